"""Predictions that are columns of the data, as logs have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.columns.inputs import Inputs
from penstock.components.evaluation.outputs import chosen
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclasses.dataclass(frozen=True)
class LoggedSource:
    """Where predictions stand in the data.

    Attributes:
        subject: What the data is called in texts.
        keys: Output names, '' for the prediction, and the column of each.
        batch_rows: How many rows are read at once.
    """

    subject: str
    keys: tuple[tuple[str, str], ...]
    batch_rows: int = 50_000
    gives: frozenset[str] = frozenset()

    @property
    def columns(self) -> frozenset[str]:
        """The columns that hold predictions."""
        return frozenset(column for _, column in self.keys)

    @property
    def required(self) -> frozenset[str]:
        """All of them."""
        return self.columns

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(output for output, _ in self.keys)

    def missing_values(self, column: str, rows: int, first: str = "") -> DataError:
        """Return the error that says how many rows have no prediction."""
        which = f", the first of them {first}" if first else ""
        return DataError(
            f"{self.subject} has no prediction in {rows:,} rows of column '{column}'"
            f"{which}. Leave such rows out before ingestion."
        )

    def open(self) -> LoggedPredictions:
        """Return what reads them."""
        return LoggedPredictions(self)


def find(
    subject: str, spec: ModelSpec, schema: pa.Schema, outputs: Iterable[str]
) -> LoggedSource:
    """Return where the predictions of a ModelSpec stand.

    Raises:
        PipelineError: If the spec names no predictions.
        DataError: If they are no columns, or columns of something else.
    """
    keys = dict(spec.prediction_keys)
    if spec.prediction_key:
        keys = {"": spec.prediction_key}
    if not keys:
        name = f" '{spec.name}'" if spec.name else ""
        raise PipelineError(
            f"The ModelSpec{name} has neither a model nor predictions. Give the "
            "Evaluator a model, or the ModelSpec the column of the predictions as its "
            "prediction_key."
        )
    for column in keys.values():
        if column not in schema.names:
            raise DataError(
                f"The eval_config has the prediction '{column}', which is no column of "
                f"{subject} (it has {quoted(schema.names)})."
                f"{did_you_mean(column, schema.names)}"
            )
        _check_type(subject, column, schema.field(column).type)
    wanted = chosen(f"The ModelSpec of {subject}", keys, list(outputs))
    return LoggedSource(
        subject, tuple((output, keys[name]) for output, name in wanted.items())
    )


def _check_type(subject: str, column: str, kind: pa.DataType) -> None:
    from penstock.components.columns.forms import is_list

    value = kind.value_type if is_list(kind) else kind
    types = pa.types
    if not (
        types.is_integer(value)
        or types.is_floating(value)
        or types.is_boolean(value)
        or types.is_string(value)
        or types.is_large_string(value)
        or types.is_binary(value)
        or types.is_large_binary(value)
    ):
        raise DataError(
            f"Column '{column}' of {subject} has type {kind}, which no prediction has: "
            "those are numbers or texts, or lists of them. Name another column as the "
            "prediction_key."
        )


class LoggedPredictions:
    """Reads predictions from columns.

    Args:
        source: Which columns.
    """

    def __init__(self, source: LoggedSource) -> None:
        self._source = source

    def predict(self, rows: Inputs) -> dict[str, Array]:
        """Return the columns as arrays: (rows,), or (rows, k) for lists of k.

        Args:
            rows: With the columns.

        Returns:
            One array per output: float64, int64, or objects for texts.

        Raises:
            DataError: If rows have no prediction, or lists of other lengths.
        """
        return {output: self._read(rows, name) for output, name in self._source.keys}

    def transform(self, rows: Inputs) -> dict[str, Array]:
        """Return nothing: no model computes anything."""
        return {}

    def _read(self, rows: Inputs, name: str) -> Array:
        from penstock.components.columns.forms import is_list

        lengths, values = rows.lists(name)
        missing = lengths == 0
        if values.null_count:
            unknown = values.is_null().to_numpy(zero_copy_only=False)
            missing[np.repeat(np.arange(len(lengths)), lengths)[unknown]] = True
        if missing.any():
            first = rows.row(int(np.argmax(missing)))
            raise self._source.missing_values(name, int(missing.sum()), first)
        width = int(lengths[0]) if len(lengths) else 1
        if (lengths != width).any():
            row = int(np.argmax(lengths != width))
            raise DataError(
                f"Column '{name}' of {self._source.subject} has lists of predictions "
                f"of different lengths: {width} values in {rows.row(0)}, and "
                f"{lengths[row]} in {rows.row(row)}. Log as many for every row."
            )
        found = _array(values)
        return found.reshape(-1, width) if is_list(rows.column(name).type) else found


def _array(values: pa.Array) -> Array:
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        values = values.cast(pa.int64())
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.cast(pa.large_binary())
    found: Array = values.to_numpy(zero_copy_only=False)
    return found.astype(np.float32) if found.dtype == np.float16 else found
