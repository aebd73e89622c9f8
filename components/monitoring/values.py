"""Columns of Arrow as profiles see them: finite numbers, or names and their counts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.splits import row_hashes
from penstock.components.monitoring import names
from penstock.components.monitoring.grid import Kind
from penstock.schemas.errors import DataError, quoted

Hashes = npt.NDArray[np.uint64]


@dataclasses.dataclass(frozen=True)
class Column:
    """The values of some rows of a column.

    Attributes:
        rows: How many rows.
        missing: How many of them are null.
        values: The values, without nulls; those in lists one after the other.
        type: Arrow type of the rows.
    """

    rows: int
    missing: int
    values: pa.Array
    type: pa.DataType

    @property
    def is_number(self) -> bool:
        """Whether the values can be counted between edges."""
        return is_number(self.values.type)

    @property
    def is_short(self) -> bool:
        """Whether the values are float32 or less."""
        kind = self.values.type
        return bool(pa.types.is_float32(kind) or pa.types.is_float16(kind))


def as_array(values: Any) -> pa.Array:
    """Return values as one Arrow array: from Arrow, NumPy, pandas or a sequence.

    NaN of NumPy stays NaN; of pandas, which has no other sign of it, it is null.
    """
    if isinstance(values, pa.ChunkedArray):
        if values.num_chunks == 1:
            return values.chunk(0)
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return (
            pa.concat_arrays(values.chunks)
            if values.num_chunks
            else pa.array([], values.type)
        )
    if isinstance(values, pa.Array):
        return values
    return pa.array(values)


def as_table(rows: Any) -> pa.Table:
    """Return rows as a table: one, a batch, or arrays by name."""
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if isinstance(rows, Mapping):
        arrays = {name: as_array(values) for name, values in rows.items()}
        return pa.table(list(arrays.values()), names=list(arrays))
    return rows


def column_of(values: Any, name: str) -> Column:
    """Return a column that an array, Arrow's or another, holds.

    Raises:
        DataError: If its type has no values of its own, as a struct.
    """
    array = as_array(values)
    rows, missing, kind = len(array), array.null_count, array.type
    values = array
    while _is_list(values.type):
        values = values.flatten()
    if _is_unfit(values.type):
        raise DataError(
            f"Column '{name}' has type {kind}, which has parts but no value to "
            f"profile. Give its parts as columns of their own{_parts(values.type)}."
        )
    if pa.types.is_dictionary(values.type) and is_number(values.type.value_type):
        values = values.dictionary_decode()
    if values.null_count:
        values = values.drop_null()
    return Column(rows, missing, values, kind)


def kind_of(array_type: pa.DataType) -> Kind:
    """Return how a column is profiled: numbers and times by places, others by name."""
    while _is_list(array_type):
        array_type = array_type.value_type
    if pa.types.is_dictionary(array_type):
        array_type = array_type.value_type
    return "numeric" if is_number(array_type) else "category"


def type_name(kind: pa.DataType) -> str:
    """Return the name of a type as grids and profiles have it.

    What is the same to them has the same name, and in every version of Arrow: text and
    large text, a list and one whose parts have another name, a dictionary's values.
    """
    kinds = pa.types
    if _is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if kinds.is_dictionary(kind):
        return type_name(kind.value_type)
    if kinds.is_large_string(kind):
        return "string"
    if kinds.is_large_binary(kind):
        return "binary"
    return str(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether values of a type have an order and differences: not booleans."""
    kinds = pa.types
    return bool(
        kinds.is_integer(kind)
        or kinds.is_floating(kind)
        or kinds.is_decimal(kind)
        or (kinds.is_temporal(kind) and not kinds.is_interval(kind))
    )


def numbers(values: pa.Array) -> npt.NDArray[Any]:
    """Return values without nulls as float32 or float64.

    Whole numbers beyond 2**53 are rounded. Times are seconds, from 1970 UTC where they
    have a date.
    """
    kind = values.type
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
    elif pa.types.is_temporal(kind):
        return _seconds(values)
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    found = values.to_numpy(zero_copy_only=False)
    small = found.dtype in (np.float16, np.int8, np.uint8, np.int16, np.uint16)
    return np.asarray(found.astype(np.float32 if small else np.float64))


def _seconds(values: pa.Array) -> npt.NDArray[np.float64]:
    kind = values.type
    if pa.types.is_date32(kind):
        return np.asarray(values.cast(pa.int32()).to_numpy() * 86_400.0)
    # As in 'timestamp[ms, tz=UTC]': not every type has its unit as an attribute.
    unit = str(kind).partition("[")[2].rstrip("]").partition(",")[0]
    if pa.types.is_time32(kind):
        values = values.cast(pa.int32())
    per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    return np.asarray(values.cast(pa.int64()).to_numpy() / per_second)


def name_counts(
    values: pa.Array,
) -> tuple[pa.StringArray, npt.NDArray[np.int64], int]:
    """Return the distinct values as names with their counts, and the number of NaNs.

    Whole floats are named as integers, as pandas makes floats of integers with nulls;
    booleans are 'false' and 'true'; bytes that are no UTF-8 have their escapes; of a
    text of more than 120 characters the rest is replaced by its hash.

    Args:
        values: Without nulls.

    Returns:
        The names, shape (n,), each once; their counts, shape (n,), int64; and how many
        values are NaN, which have no name.
    """
    kind = values.type
    if pa.types.is_null(kind):
        return pa.array([], pa.string()), np.zeros(0, np.int64), 0
    nan = 0
    if pa.types.is_dictionary(kind):
        indices = values.indices.to_numpy(zero_copy_only=False)
        counts = np.bincount(indices, minlength=len(values.dictionary))
        seen = np.flatnonzero(counts)
        unique, counts = values.dictionary.take(pa.array(seen)), counts[seen]
    else:
        if pa.types.is_floating(kind):
            doubles = numbers(values).astype(np.float64)
            is_nan = np.isnan(doubles)
            nan = int(is_nan.sum())
            values = pa.array(doubles[~is_nan])
        pairs = pc.value_counts(values)
        unique, counts = pairs.field("values"), pairs.field("counts").to_numpy()
    texts, counts = _texts(unique), counts.astype(np.int64)
    if texts.equals(unique) and not pa.types.is_dictionary(kind):
        return texts, counts, nan  # one of each, as they came
    return *_together(texts, counts), nan


def hashes(texts: pa.StringArray) -> Hashes:
    """Return a well mixed 64-bit hash of each name, the same on every machine."""
    return row_hashes(pa.RecordBatch.from_arrays([texts], ["value"]))


def _texts(unique: pa.Array) -> pa.StringArray:
    kind = unique.type
    if pa.types.is_floating(kind):
        texts = pa.array([_number(each) for each in unique.to_pylist()], pa.string())
    elif _is_bytes(kind):
        texts = pa.array(
            [each.decode("utf-8", "backslashreplace") for each in unique.to_pylist()],
            pa.string(),
        )
    else:
        texts = unique.cast(pa.string())
    if pc.any(pc.greater(pc.utf8_length(texts), names.LONGEST)).as_py():
        texts = pa.array([_cut(each) for each in texts.to_pylist()], pa.string())
    return texts


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _cut(text: str) -> str:
    if len(text) <= names.LONGEST:
        return text
    found = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[: names.LONGEST - 17]}…{found}"


def _together(
    texts: pa.StringArray, counts: npt.NDArray[np.int64]
) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """Add up what has one name: 0.0 and -0.0, or a dictionary's entry and its twin."""
    encoded = texts.dictionary_encode()
    if len(encoded.dictionary) == len(texts):
        return texts, counts
    total = np.zeros(len(encoded.dictionary), np.int64)
    np.add.at(total, encoded.indices.to_numpy(), counts)
    return encoded.dictionary, total


def _is_bytes(kind: pa.DataType) -> bool:
    kinds = pa.types
    return bool(
        kinds.is_binary(kind)
        or kinds.is_large_binary(kind)
        or kinds.is_fixed_size_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    kinds = pa.types
    return bool(
        (kinds.is_list(kind) or kinds.is_large_list(kind))
        or kinds.is_fixed_size_list(kind)
    )


def _is_unfit(kind: pa.DataType) -> bool:
    kinds = pa.types
    return bool(kinds.is_nested(kind) or kinds.is_interval(kind))


def _parts(kind: pa.DataType) -> str:
    if not pa.types.is_struct(kind):
        return ""
    return f": {quoted(kind.field(each).name for each in range(kind.num_fields))}"
