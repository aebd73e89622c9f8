"""The forms of a batch: values as they are, or as the lists that TFDV expects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.schemas.errors import DataError


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type with dictionary encoding taken out, at every depth."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_map(kind):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(
            [pa.field(each.name, plain_type(each.type)) for each in fields_of(kind)]
        )
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_type(kind.value_type))
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def to_plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with dictionary-encoded and fixed-size columns decoded.

    Args:
        batch: Any batch.

    Returns:
        The same rows; a column that is plain already is not copied.
    """
    arrays = []
    for column in batch.columns:
        kind = plain_type(column.type)
        arrays.append(column if kind.equals(column.type) else _plain(column))
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def to_tfdv_form(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch as TFDV and tfx-bsl expect it: every column a list.

    Values become lists of one, and a missing value a missing list. Integers become
    int64 (uint64 stays), floats keep their width (half becomes float32), text becomes
    binary, booleans 0 and 1; dates, times and decimals become their ISO text. Lists
    stay lists, and structs keep their fields, each of them a list. A column of type
    null stays: TFDV counts it as a feature of unknown type.

    Args:
        batch: A batch in natural form, as `examples.read_batches` gives it.

    Returns:
        As many rows, in the same order, with the same column names.

    Raises:
        DataError: If a column has a type that TFDV cannot describe.
    """
    names = batch.schema.names
    return pa.RecordBatch.from_arrays(
        [
            _listed(column, name)
            for name, column in zip(names, batch.columns, strict=True)
        ],
        names=names,
    )


def as_text(array: pa.Array) -> pa.Array:
    """Return dates, times and decimals as text."""
    if pa.types.is_decimal(array.type):
        # pyarrow 10 has no such cast.
        cells = [None if cell is None else str(cell) for cell in array.to_pylist()]
        return pa.array(cells, pa.string())
    return array.cast(pa.string())


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is a list of values."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    )


def fields_of(kind: pa.DataType) -> list[pa.Field]:
    """Return the fields of a struct type."""
    return [kind[index] for index in range(kind.num_fields)]


def validity(array: pa.Array) -> tuple[np.ndarray[Any, Any] | None, pa.Buffer | None]:
    """Return which rows are not null, as booleans and as a bitmap; None if all are."""
    if array.null_count == 0:
        return None, None
    valid = array.is_valid()
    return valid.to_numpy(zero_copy_only=False), valid.buffers()[1]


def list_parts(
    array: pa.Array,
) -> tuple[np.ndarray[Any, Any], pa.Array, np.ndarray[Any, Any] | None]:
    """Return a list array as lengths, flat values and which rows are not null.

    Args:
        array: A list, large list or fixed-size list array, sliced or not.

    Returns:
        The length of each row's list (0 where it is null), the values of all lists
        that are not null, one after the other, and the valid rows (None if all are).
    """
    valid, _ = validity(array)
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64), array.flatten(), valid


def _plain(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_struct(kind):
        return _struct(array, [_plain(child) for child in struct_children(array)])
    if is_list(kind):
        lengths, values, _ = list_parts(array)
        return _list(array, lengths, _plain(values), large=pa.types.is_large_list(kind))
    return array


def struct_children(array: pa.Array) -> list[pa.Array]:
    """Return the fields of a struct array, null where the struct itself is null."""
    return list(array.flatten())


def _struct(array: pa.Array, children: list[pa.Array]) -> pa.Array:
    fields = [
        pa.field(each.name, child.type)
        for each, child in zip(fields_of(array.type), children, strict=True)
    ]
    _, bitmap = validity(array)
    return pa.Array.from_buffers(
        pa.struct(fields), len(array), [bitmap], children=children
    )


def _list(
    array: pa.Array, lengths: np.ndarray[Any, Any], values: pa.Array, *, large: bool
) -> pa.Array:
    width = np.int64 if large else np.int32
    offsets = np.zeros(len(array) + 1, width)
    np.cumsum(lengths, out=offsets[1:])
    kind = pa.large_list(values.type) if large else pa.list_(values.type)
    _, bitmap = validity(array)
    return pa.Array.from_buffers(
        kind, len(array), [bitmap, pa.py_buffer(offsets)], children=[values]
    )


def _listed(array: pa.Array, name: str) -> pa.Array:
    kind = array.type
    if pa.types.is_null(kind):
        return array
    if pa.types.is_dictionary(kind):
        return _listed(array.dictionary_decode(), name)
    if pa.types.is_struct(kind):
        children = [_listed(child, name) for child in struct_children(array)]
        return _struct(array, children)
    if pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays(
            [array.keys, array.items], names=["key", "value"]
        )
        lengths = np.diff(np.asarray(array.offsets))
        return _list(array, lengths, _inner(entries, name), large=False)
    if is_list(kind):
        lengths, values, _ = list_parts(array)
        large = bool(pa.types.is_large_list(kind))
        return _list(array, lengths, _inner(values, name), large=large)
    values = _value(array, name)
    valid, _ = validity(array)
    lengths = np.ones(len(array), np.int64) if valid is None else valid.astype(np.int64)
    return _list(
        array, lengths, values if valid is None else values.drop_null(), large=False
    )


def _inner(values: pa.Array, name: str) -> pa.Array:
    """Return what lies inside a list in the form that TFDV expects there."""
    if pa.types.is_struct(values.type) or is_list(values.type):
        return _listed(values, name)
    if pa.types.is_dictionary(values.type):
        return _inner(values.dictionary_decode(), name)
    if pa.types.is_null(values.type):
        return values
    return _value(values, name)


def _value(array: pa.Array, name: str) -> pa.Array:
    kind = array.type
    kinds = pa.types
    if kinds.is_int64(kind) or kinds.is_uint64(kind):
        return array
    if kinds.is_float32(kind) or kinds.is_float64(kind):
        return array
    if kinds.is_binary(kind) or kinds.is_large_binary(kind):
        return array
    if kinds.is_string(kind):
        return array.cast(pa.binary())
    if kinds.is_large_string(kind):
        return array.cast(pa.large_binary())
    if kinds.is_integer(kind) or kinds.is_boolean(kind):
        return array.cast(pa.int64())
    if kinds.is_float16(kind):
        return array.cast(pa.float32())
    if kinds.is_fixed_size_binary(kind) and not kinds.is_decimal(kind):
        return array.cast(pa.binary())
    if kinds.is_decimal(kind) or (
        kinds.is_temporal(kind) and not kinds.is_interval(kind)
    ):
        return as_text(array).cast(pa.binary())
    raise DataError(
        f"Column '{name}' has type {kind}, which TensorFlow Data Validation cannot "
        "describe. Convert it before ingestion, or leave it out."
    )
