"""Python predictors: models that a function of the user's code loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from penstock.components.columns.inputs import Inputs, first_failing
from penstock.components.evaluation import flavors
from penstock.components.evaluation.outputs import by_parts, chosen, picked
from penstock.schemas.artifacts import FLAVOR_FILE
from penstock.schemas.errors import DataError, PipelineError, near_misses, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

Array: TypeAlias = "np.ndarray[Any, Any]"

_ROWS = 10_000  # that a predictor is called with, unless the ModelSpec says how many


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
    batch_rows: int = _ROWS
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
            f"{subject} holds both a SavedModel and a '{FLAVOR_FILE}', so that what "
            "is evaluated might not be what is served. Leave one of them out."
        )
    file = folder / FLAVOR_FILE
    said = flavors.content(subject, file)
    flavors.resolved(subject, said["loader"])
    missing = [name for name in said["columns"] if name not in schema.names]
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
        said["loader"],
        tuple(said["columns"]),
        tuple(outputs),
        spec.prediction_key,
        tuple(spec.prediction_keys.items()),
        spec.inference_batch_size or _ROWS,
    )


class PythonPredictor:
    """A loaded Python predictor.

    Args:
        source: How to call it.

    Raises:
        DataError: If it cannot be loaded.
    """

    def __init__(self, source: PythonSource) -> None:
        self._source = source
        load = flavors.resolved(source.subject, source.loader)
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
        return by_parts(rows, self._source.batch_rows, self._picked)

    def transform(self, rows: Inputs) -> dict[str, Array]:
        """Return nothing: a Python predictor has no preprocessing signatures."""
        return {}

    def _picked(self, rows: Inputs) -> dict[str, Array]:
        source = self._source
        try:
            answer = self._answer(rows)
        except Exception as error:  # a user's code raises anything
            raise self._failed(rows, error) from error
        keys = chosen(
            source.subject, answer, source.outputs, source.key, dict(source.keys)
        )
        return picked(source.subject, answer, keys, rows.batch.num_rows)

    def _answer(self, rows: Inputs) -> dict[str, Array]:
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
