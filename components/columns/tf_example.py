"""Serialized tf.Examples of a batch, made column by column.

A record is the wire format of protocol buffers: a message is its fields, one after the
other, each with its number, its size and its bytes. Within a column those bytes differ
only in the values and their size, so that a record is joined from two pieces per
column, of which the first is one of few:

    Example = 0A size Features
    Features = (0A size Entry) for each feature
    Entry = 0A size name, 12 size Feature
    Feature = (0A | 12 | 1A) size List, of bytes, of floats or of integers
    List = (0A size bytes) for each value | 0A size packed values

(https://protobuf.dev/programming-guides/encoding and TensorFlow's feature.proto)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.forms import is_list, list_parts, to_tfdv_form
from penstock.schemas.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"

_BYTES, _FLOATS, _INTEGERS = b"\x0a", b"\x12", b"\x1a"
_MISSING, _EMPTY = -2, -1  # in place of the size of values
_COUNTED = 1 << 16  # sizes below it are told apart by counting, others by sorting
_MOST_BYTES = (1 << 31) - 1  # of a message, and of what Arrow joins at once


def encode(batch: pa.RecordBatch) -> Array:
    """Return one serialized tf.Example per row.

    tf.Example has int64, float32 and bytes and nothing else, so float64 is rounded to
    float32. A missing value is a feature without values; a column of type null is
    left out. Features stand in the order of the columns, so that the bytes of a row
    depend on nothing but the row.

    Args:
        batch: Rows in natural form.

    Returns:
        As many records, as bytes objects, in the same order.

    Raises:
        DataError: If a column is a struct or a list of lists, has a missing value
            inside a list, or holds an integer above the range of int64, none of which
            tf.Example can say; or if a row is too large.
    """
    listed = to_tfdv_form(batch)
    # Integers take up to ten bytes, and each value of a list at most six more.
    most = 2 * listed.nbytes + batch.num_rows * sum(
        len(name.encode()) + 32 for name in listed.schema.names
    )
    if most > _MOST_BYTES:
        if batch.num_rows == 1:
            raise DataError(
                f"A row holds {listed.nbytes:,} bytes, which may not fit into a "
                "tf.Example of 2 GiB. Pass a location of what is so large instead."
            )
        half = batch.num_rows // 2
        return np.concatenate([encode(batch.slice(0, half)), encode(batch.slice(half))])
    pieces: list[Any] = []
    for name, column in zip(listed.schema.names, listed.columns, strict=True):
        if not pa.types.is_null(column.type):
            pieces += _feature(name, column, batch.schema.field(name).type)
    sizes = sum((_sizes(piece) for piece in pieces), np.zeros(batch.num_rows, np.int64))
    if not sizes.any():
        return np.full(batch.num_rows, b"", object)
    joined = _joined(_by_size(sizes, _field), *pieces)
    return np.asarray(joined.to_numpy(zero_copy_only=False))


def _feature(name: str, column: pa.Array, natural: pa.DataType) -> list[Any]:
    """Return, by row, what stands before the values of a feature, and the values."""
    if not is_list(column.type):
        raise _no_example(name, natural)
    lengths, values, valid = list_parts(column)
    if values.null_count and not pa.types.is_null(values.type):
        raise DataError(
            f"Column '{name}' has {values.null_count:,} missing values inside lists, "
            "which tf.Example cannot say. Fill them, or leave them out, when the data "
            'are made, or pass file_format="parquet".'
        )
    tag, values = _encoded(name, values, natural)
    has_one_header = tag != _BYTES or not (lengths > 1).any()
    if not has_one_header:
        values = _joined(_by_size(_sizes(values), _field), values)
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    offsets = _offsets(values)[ends]
    sizes = np.diff(offsets).astype(np.int64)
    sizes[lengths == 0] = _EMPTY
    if valid is not None:
        sizes[~valid] = _MISSING
    key = name.encode()
    key = _field(len(key)) + key

    def head(size: int) -> bytes:
        if size == _MISSING:
            return _field(len(key) + 2) + key + b"\x12\x00"
        inner = _field(size) if has_one_header and size != _EMPTY else b""
        size = max(size, 0)
        feature = tag + _varint(len(inner) + size) + inner
        entry = key + b"\x12" + _varint(len(feature) + size) + feature
        return _field(len(entry) + size) + entry

    return [_by_size(sizes, head), _binary(offsets, values.buffers()[2])]


def _encoded(
    name: str, values: pa.Array, natural: pa.DataType
) -> tuple[bytes, pa.Array]:
    """Return which kind of list values make, and the bytes of each."""
    kind = values.type
    if pa.types.is_integer(kind):
        return _INTEGERS, _varints(_as_int64(values, name))
    if pa.types.is_floating(kind):
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            data = values.to_numpy(zero_copy_only=False).astype("<f4")
        return _FLOATS, _binary(np.arange(len(data) + 1) * 4, pa.py_buffer(data))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _BYTES, values.cast(pa.binary())
    raise _no_example(name, natural)


def _as_int64(values: pa.Array, name: str) -> Array:
    try:
        cast = values.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column '{name}' holds an integer above 2**63 - 1, the largest that "
            'tf.Example can say. Pass file_format="parquet", or ingest it as text.'
        ) from error
    return np.asarray(cast.to_numpy(zero_copy_only=False))


def _no_example(name: str, kind: pa.DataType) -> DataError:
    return DataError(
        f"Column '{name}' has type {kind}, which tf.Example cannot say: it has lists "
        'of integers, floats and bytes. Pass file_format="parquet".'
    )


def _field(size: int) -> bytes:
    """Return what stands before the bytes of field 1 of a message."""
    return b"\x0a" + _varint(size)


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _varints(numbers: Array) -> pa.Array:
    """Return each of some int64 as `_varint`; negative ones as if they were uint64."""
    rest = numbers.astype(np.int64).view(np.uint64)
    most = max(1, int(rest.max()).bit_length()) if len(rest) else 1
    shifts = np.arange(0, most, 7, dtype=np.uint64)
    widths = np.ones(len(rest), np.int64)
    for shift in shifts[1:]:
        widths += rest >> shift > 0
    groups = (rest[:, None] >> shifts & np.uint64(0x7F)).astype(np.uint8)
    places = np.arange(len(shifts))
    groups[places < widths[:, None] - 1] |= 0x80
    offsets = np.zeros(len(rest) + 1, np.int64)
    np.cumsum(widths, out=offsets[1:])
    return _binary(offsets, pa.py_buffer(groups[places < widths[:, None]]))


def _by_size(sizes: Array, text: Callable[[int], bytes]) -> Any:
    """Return a text for each size, made once for each that occurs; one for all."""
    lowest, highest = (int(sizes.min()), int(sizes.max())) if len(sizes) else (0, 0)
    if lowest == highest:
        return pa.scalar(text(lowest), pa.binary())
    if highest - lowest < _COUNTED:
        shifted = sizes - lowest
        occurs = np.bincount(shifted) > 0
        codes = (np.cumsum(occurs) - 1)[shifted]
        present = np.flatnonzero(occurs) + lowest
    else:
        present, codes = np.unique(sizes, return_inverse=True)
    texts = pa.array([text(size) for size in present.tolist()], pa.binary())
    return texts.take(pa.array(codes))


def _joined(*pieces: Any) -> pa.Array:
    """Return the pieces of each row, one after the other."""
    return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.binary()))


def _sizes(piece: Any) -> Array:
    """Return the size of each of some binaries; of one scalar, of each row."""
    if isinstance(piece, pa.Scalar):
        return np.array([len(piece.as_py())], np.int64)
    return np.diff(_offsets(piece)).astype(np.int64)


def _binary(offsets: Array, data: pa.Buffer | None) -> pa.Array:
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), data]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _offsets(values: pa.Array) -> Array:
    """Return where each of some binaries starts, and where the last one ends."""
    if not len(values):
        return np.zeros(1, np.int32)
    starts = np.frombuffer(values.buffers()[1], np.int32)
    return starts[values.offset : values.offset + len(values) + 1]
