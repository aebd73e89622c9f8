"""Models that are no SavedModels: Python predictors, named by a file in the model.

The file `flavor.json` beside the model's own files names a function that loads them:

    {"version": 1, "flavor": "python", "loader": "rides.scoring:load",
     "columns": ["fare", "trip_miles"], "code": "sha256:..."}

Nothing that comes with a model is executed: the file can only name a function that the
installed code has marked with `@model_loader`, and it is that function's business
which files it trusts.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from penstock.schemas.artifacts import FLAVOR_FILE
from penstock.schemas.digests import file_digest
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Array: TypeAlias = "np.ndarray[Any, Any]"
Answer: TypeAlias = "Array | Mapping[str, Array]"
Loader = TypeVar("Loader", bound="Callable[[Path], Callable[[pa.RecordBatch], Answer]]")

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
    found = resolved(f"write_flavor('{model_dir}')", loader)
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    said = {
        "version": _VERSION,
        "flavor": "python",
        "loader": loader,
        "columns": list(columns),
        # So that a model whose loader was edited is another model.
        "code": _digest(found),
    }
    (folder / FLAVOR_FILE).write_text(json.dumps(said, indent=2) + "\n", "utf-8")


def _digest(loader: Callable[[Path], Any]) -> str:
    file = inspect.getsourcefile(loader)
    return "" if file is None else f"sha256:{file_digest(Path(file))}"


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
    return (folder / FLAVOR_FILE).is_file()


def content(subject: str, file: Path) -> dict[str, Any]:
    """Return what a model's file says.

    Raises:
        DataError: If it is damaged.
    """
    try:
        said = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DataError(
            f"'{file}' is no JSON: {error}. Let the train function of {subject} write "
            "it with write_flavor."
        ) from error
    is_ours = (
        isinstance(said, dict)
        and said.get("version") == _VERSION
        and said.get("flavor") == "python"
        and isinstance(said.get("loader"), str)
        and isinstance(said.get("columns"), list)
    )
    if not is_ours:
        raise DataError(
            f"'{file}' does not say version {_VERSION}, the flavor 'python', a loader "
            f"and columns. Let the train function of {subject} write it with "
            "write_flavor."
        )
    found: dict[str, Any] = said
    return found


def resolved(subject: str, loader: str) -> Callable[[Path], Any]:
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
