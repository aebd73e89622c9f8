"""Models that are no SavedModels: Python predictors, named by a file in the model.

The file `flavor.json` beside the model's own files names a function that loads them:

    {"version": 1, "flavor": "python", "loader": "rides.scoring:load",
     "columns": ["fare", "trip_miles"]}

Nothing that comes with a model is executed: the file can only name a function that the
installed code has marked with `@model_loader`, and it is that function's business
which files it trusts.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from penstock.components.evaluation.inputs import Inputs
from penstock.components.evaluation.outputs import check_rows, chosen, near_misses
from penstock.components.evaluation.saved_model import BATCH_ROWS, first_failing
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

Array: TypeAlias = "np.ndarray[Any, Any]"
Answer: TypeAlias = "Array | Mapping[str, Array]"
Loader = TypeVar("Loader", bound="Callable[[Path], Callable[[pa.RecordBatch], Answer]]")

FILE = "flavor.json"
_VERSION = 1
_MARK = "_loads_penstock_models"


def model_loader(loader: Loader) -> Loader:
    """Mark a function as one that loads models, so that a model may name it.

    Args:
        loader: Takes the folder of a model, as `write_flavor` was given it, and
            returns a function that takes a `pyarrow.RecordBatch` of the model's
            columns and returns its predictions: an array with one row per row, or
            such arrays by output name.

    Example:
        @model_loader
        def load(folder):
            # joblib executes what is in the file: it has to be one's own.
            model = joblib.load(folder / "model.joblib")
            return lambda batch: model.predict_proba(batch.to_pandas())[:, 1]
    """
    setattr(loader, _MARK, True)
    return loader


def write_flavor(model_dir: str | Path, *, loader: str, columns: Iterable[str]) -> None:
    """Say in a model how it is loaded; a train function calls this.

    Args:
        model_dir: Where the model's files are: `fn_args.serving_model_dir`.
        loader: The function that loads them, as `module:function`. It is marked with
            `@model_loader`, and its module can be imported wherever the model is
            evaluated.
        columns: The columns that the model reads.

    Raises:
        DataError: If there is no such function.
    """
    names = list(columns)
    _resolved(f"write_flavor('{model_dir}')", loader)
    Path(model_dir).mkdir(parents=True, exist_ok=True)
    content = {
        "version": _VERSION,
        "flavor": "python",
        "loader": loader,
        "columns": names,
    }
    (Path(model_dir) / FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@model_loader
def load_xgboost(folder: Path) -> Callable[[pa.RecordBatch], Answer]:
    """Load a booster that XGBoost saved as `model.json`.

    Its features are columns of numbers, by name; a missing value is NaN. A booster
    that stopped early predicts with the trees up to its best iteration.
    """
    import numpy as np
    import xgboost

    booster = xgboost.Booster(model_file=str(folder / "model.json"))
    best = booster.attr("best_iteration")
    trees = (0, 0 if best is None else int(best) + 1)

    def predict(batch: pa.RecordBatch) -> Array:
        features = [
            batch.column(batch.schema.names.index(name)).to_numpy(zero_copy_only=False)
            for name in booster.feature_names or batch.schema.names
        ]
        matrix = np.stack([each.astype(np.float32) for each in features], axis=1)
        scores: Array = booster.inplace_predict(matrix, iteration_range=trees)
        return scores

    return predict


def is_there(folder: Path) -> bool:
    """Return whether a model's folder names a loader."""
    return (folder / FILE).is_file()


@dataclasses.dataclass(frozen=True)
class PythonSource:
    """How a Python predictor is called.

    Attributes:
        subject: What the model is called in texts.
        folder: The folder of its files.
        state: Sizes and times of those, so that changed ones are loaded anew.
        loader: The function that loads them, as `module:function`.
        reads: The columns that it reads, in its order.
        outputs: The output names that are wanted.
        key: `prediction_key` of the ModelSpec.
        keys: Its `prediction_keys`.
        batch_rows: How many rows it is called with.
    """

    subject: str
    folder: str
    state: tuple[tuple[str, int, int], ...]
    loader: str
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    key: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    batch_rows: int = BATCH_ROWS
    gives: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(self.reads)

    def missing_values(self, column: str, rows: int, first: str = "") -> DataError:
        """Raise KeyError: a Python predictor is given missing values as they are."""
        raise KeyError(column)

    def open(self) -> PythonPredictor:
        """Load the model."""
        return PythonPredictor(self)


def find(
    subject: str,
    folder: Path,
    spec: ModelSpec,
    schema: pa.Schema,
    outputs: Iterable[str],
) -> PythonSource:
    """Return how a Python predictor is called with columns, without loading it.

    Args:
        subject: What the model is called in texts.
        folder: The folder of its files.
        spec: Names its outputs.
        schema: The columns.
        outputs: The output names that metrics ask for.

    Raises:
        DataError: If its file is damaged or names no loader, or if it reads what the
            data does not have.
        PipelineError: If the spec asks for signatures.
    """
    asked = [
        field
        for field in ("signature_name", "preprocessing_function_names")
        if getattr(spec, field)
    ]
    if asked:
        raise PipelineError(
            f"{subject} is a Python predictor, which has no signatures, and the "
            f"ModelSpec sets {quoted(asked)}. Leave that out."
        )
    if (folder / "saved_model.pb").is_file():
        raise DataError(
            f"{subject} holds both a SavedModel and a '{FILE}', so that what is "
            "evaluated might not be what is served. Leave one of them out."
        )
    file = folder / FILE
    content = _content(subject, file)
    _resolved(subject, content["loader"])
    missing = [name for name in content["columns"] if name not in schema.names]
    if missing:
        raise DataError(
            f"{subject} reads {quoted(missing)}, which the data does not have (it has "
            f"{quoted(schema.names)}).{near_misses(missing, schema.names)} Ingest the "
            f"columns, or mend 'columns' of '{file}'."
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return PythonSource(
        subject,
        str(folder),
        tuple(
            (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths
        ),
        content["loader"],
        tuple(content["columns"]),
        tuple(outputs),
        spec.prediction_key,
        tuple(spec.prediction_keys.items()),
        spec.inference_batch_size or BATCH_ROWS,
    )


def _content(subject: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DataError(
            f"'{file}' is no JSON: {error}. Let the train function of {subject} write "
            "it with write_flavor."
        ) from error
    is_ours = (
        isinstance(content, dict)
        and content.get("version") == _VERSION
        and content.get("flavor") == "python"
        and isinstance(content.get("loader"), str)
        and isinstance(content.get("columns"), list)
    )
    if not is_ours:
        raise DataError(
            f"'{file}' does not say version {_VERSION}, the flavor 'python', a loader "
            f"and columns. Let the train function of {subject} write it with "
            "write_flavor."
        )
    found: dict[str, Any] = content
    return found


def _resolved(subject: str, loader: str) -> Callable[[Path], Any]:
    """Return the function that a loader's name stands for.

    Raises:
        DataError: If there is none, or none that is marked.
    """
    module, _, name = loader.partition(":")
    if not module or not name:
        raise DataError(
            f"{subject} names the loader '{loader}', which is no 'module:function'. "
            "Name a function of a module that can be imported."
        )
    try:
        found = vars(importlib.import_module(module))
    except ImportError as error:
        raise DataError(
            f"{subject} is loaded by '{loader}', and the module '{module}' cannot be "
            f"imported: {error}. Install it where models are evaluated."
        ) from error
    legal = [each for each, value in found.items() if getattr(value, _MARK, False)]
    if name not in legal:
        raise DataError(
            f"{subject} is loaded by '{loader}', and the module '{module}' marks no "
            f"'{name}' with @model_loader (it marks {quoted(legal)})."
            f"{did_you_mean(name, legal)} Only what installed code marks is called."
        )
    function: Callable[[Path], Any] = found[name]
    return function


class PythonPredictor:
    """A loaded Python predictor.

    Args:
        source: How to call it.

    Raises:
        DataError: If it cannot be loaded.
    """

    def __init__(self, source: PythonSource) -> None:
        self._source = source
        load = _resolved(source.subject, source.loader)
        try:
            self._call = load(Path(source.folder))
        except Exception as error:  # a user's code raises anything
            raise DataError(
                f"{source.subject} cannot be loaded: '{source.loader}' raised "
                f"{type(error).__name__}: {error}. Mend it, or train the model again."
            ) from error

    def predict(self, rows: Inputs) -> dict[str, Array]:
        """Return what the predictor says of each row.

        Args:
            rows: With every column that it reads.

        Returns:
            The outputs that are wanted, by name.

        Raises:
            DataError: If it fails on a row, or an output has another number of rows.
        """
        source = self._source
        try:
            answer = self._answer(rows)
        except Exception as error:  # a user's code raises anything
            raise self._failed(rows, error) from error
        check_rows(source.subject, answer, rows.batch.num_rows)
        keys = chosen(
            source.subject, answer, source.outputs, source.key, dict(source.keys)
        )
        return {wanted: answer[name] for wanted, name in keys.items()}

    def transform(self, rows: Inputs) -> dict[str, Array]:
        """Return nothing: a Python predictor has no preprocessing signatures."""
        return {}

    def _answer(self, rows: Inputs) -> dict[str, Array]:
        import numpy as np

        answer = self._call(rows.select(self._source.reads))
        outputs = answer if isinstance(answer, Mapping) else {"": answer}
        return {name: np.asarray(each) for name, each in outputs.items()}

    def _failed(self, rows: Inputs, error: Exception) -> DataError:
        def fails(start: int, stop: int) -> bool:
            try:
                self._answer(rows.part(start, stop))
            except Exception:  # a user's code raises anything
                return True
            return False

        count = rows.batch.num_rows
        row = first_failing(fails, count)
        which = f"{count:,} rows from {rows.row(0)}" if row is None else rows.row(row)
        return DataError(
            f"{self._source.subject} raises {type(error).__name__} on {which}. Call "
            "the predictor with that row in a test of the model."
        )
