"""The split assignment: content hashes of rows, and from them a split for each row.

A row's hash depends on its values and the names of their columns, and on nothing else:
not on the order of columns, rows or files, nor on batches, dictionary encoding or the
width of a number. It is part of what a pipeline wrote once and must find again: it
never changes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.forms import (
    as_text,
    fields_of,
    is_list,
    list_parts,
    struct_children,
    validity,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted
from penstock.schemas.splits import ByHash, ByKey, ByTime, Stratified

Rule: TypeAlias = ByHash | ByKey | ByTime | Stratified
Hashes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"

# The finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
# generators, OOPSLA 2014), which turns close inputs into independent outputs.
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# What tells apart values of different kinds that have the same 64 bits.
_FLOAT = np.uint64(0x5851F42D4C957F2D)
_TIME = np.uint64(0x14057B7EF767814F)
_UNSIGNED = np.uint64(0x2545F4914F6CDD1D)
_TEXT = np.uint64(0x9FB21C651E98DF25)
_NULL = np.uint64(0xD6E8FEB86659FD93)


def row_hashes(batch: pa.RecordBatch, columns: Sequence[str] | None = None) -> Hashes:
    """Return a 64-bit hash of every row's content.

    Missing values, also those of a whole column, add nothing. Integers and whole
    floats, booleans and 0 and 1, text and the same bytes, -0.0 and 0.0, and all NaNs
    hash alike; an empty text or list and a missing one do not.

    Args:
        batch: The rows.
        columns: Names of the columns to hash; all if None.

    Returns:
        Array of shape (rows,), dtype uint64.

    Raises:
        DataError: If a column is not there, or has a type without a hash.
    """
    names = batch.schema.names if columns is None else columns
    total = np.zeros(batch.num_rows, np.uint64)
    for name in names:
        index = batch.schema.get_field_index(name)
        if index < 0:
            raise no_such_column(name, batch.schema.names)
        total += _contributions(batch.column(index), name)
    return mixed(total)


def no_such_column(name: str, names: Sequence[str]) -> DataError:
    """Return the error for a split rule that names a column that is not there."""
    return DataError(
        f"The splits are dealt out by column '{name}', which the input does not have "
        f"(it has {quoted(names)}).{did_you_mean(name, names)}"
    )


@functools.lru_cache(maxsize=65_536)
def _seed(path: str) -> np.uint64:
    digest = hashlib.sha256(b"penstock column " + path.encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def mixed(bits: Hashes) -> Hashes:
    """Return the bits well mixed, in place (Steele, Lea & Flood, OOPSLA 2014)."""
    bits ^= bits >> np.uint64(30)
    bits *= _FIRST
    bits ^= bits >> np.uint64(27)
    bits *= _SECOND
    bits ^= bits >> np.uint64(31)
    return bits


def _contributions(array: pa.Array, path: str) -> Hashes:
    """Return what a column adds to the hash of each row: 0 where it is null."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.uint64)
    if pa.types.is_struct(kind):
        total = np.zeros(len(array), np.uint64)
        for each, child in zip(fields_of(kind), struct_children(array), strict=True):
            total += _contributions(child, f"{path}\0{each.name}")
        return total
    if pa.types.is_dictionary(kind):
        return _of_dictionary(array, path)
    if _is_text(kind):
        return _of_dictionary(array.dictionary_encode(), path)
    hashes = mixed(_contents(array, path) + _seed(path))
    valid, _ = validity(array)
    if valid is not None:
        hashes[~valid] = 0
    return hashes


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    )


def _of_dictionary(array: pa.DictionaryArray, path: str) -> Hashes:
    if _is_text(array.type.value_type):
        values = mixed(_of_text(array.dictionary) + _seed(path))
        valid, _ = validity(array.dictionary)
        if valid is not None:
            values[~valid] = 0
    else:
        values = _contributions(array.dictionary, path)
    if array.null_count == 0:
        return np.asarray(values[array.indices.to_numpy()], np.uint64)
    # One more entry for the rows that are null.
    values = np.append(values, np.uint64(0))
    last = pa.scalar(len(values) - 1, pa.int64())
    indices = array.indices.cast(pa.int64()).fill_null(last)
    return np.asarray(values[indices.to_numpy()], np.uint64)


def _contents(array: pa.Array, path: str) -> Hashes:
    """Return 64 bits for each value; anything where it is null."""
    kind = array.type
    kinds = pa.types
    if kinds.is_null(kind):
        return np.full(len(array), _NULL)
    if kinds.is_struct(kind) or kinds.is_dictionary(kind):
        return _contributions(array, path)
    if _is_text(kind):
        return _of_text(array)
    if kinds.is_fixed_size_binary(kind) and not kinds.is_decimal(kind):
        return _of_text(array.cast(pa.binary()))
    if kinds.is_decimal(kind):
        return _of_text(as_text(array))
    if kinds.is_map(kind):
        entries = pa.StructArray.from_arrays(
            [array.keys, array.items], names=["key", "value"]
        )
        return _of_lists(np.diff(np.asarray(array.offsets)), entries, path)
    if is_list(kind):
        lengths, values, _ = list_parts(array)
        return _of_lists(lengths, values, path)
    if kinds.is_floating(kind):
        return _of_floats(_numbers(array, 0.0))
    if kinds.is_boolean(kind):
        array = array.cast(pa.int8())
    elif kinds.is_temporal(kind) and not kinds.is_interval(kind):
        return _of_times(array)
    elif not kinds.is_integer(kind):
        raise DataError(
            f"Column '{path}' has type {kind}, by which rows cannot be told apart. "
            "Convert it before ingestion, or deal out splits by a key column."
        )
    numbers = _numbers(array, 0)
    if numbers.dtype == np.uint64:
        return np.where(numbers >> np.uint64(63), numbers ^ _UNSIGNED, numbers)
    return numbers.astype(np.int64).view(np.uint64)


def _numbers(array: pa.Array, nothing: float) -> np.ndarray[Any, Any]:
    if array.null_count:
        array = array.fill_null(pa.scalar(nothing, array.type))
    numbers: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def _of_times(array: pa.Array) -> Hashes:
    if pa.types.is_date32(array.type) or pa.types.is_time32(array.type):
        array = array.cast(pa.int32())
    return _numbers(array.cast(pa.int64()), 0).view(np.uint64) ^ _TIME


def _of_floats(values: np.ndarray[Any, Any]) -> Hashes:
    doubles = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        whole = doubles.astype(np.int64)
    # The cast of anything outside the range of int64 means nothing: leave it out.
    is_whole = (whole == doubles) & (doubles >= -(2.0**63)) & (doubles < 2.0**63)
    if is_whole.all():
        return whole.view(np.uint64)
    doubles[np.isnan(doubles)] = np.nan
    return np.where(is_whole, whole.view(np.uint64), doubles.view(np.uint64) ^ _FLOAT)


def _of_text(array: pa.Array) -> Hashes:
    """Return 64 bits for each text: its 8-byte words, mixed by place and added up."""
    array = array.cast(pa.large_binary())
    if array.null_count:
        array = array.fill_null(b"")
    buffers = array.buffers()
    count = len(array)
    if count == 0:
        return np.zeros(0, np.uint64)
    offsets = np.frombuffer(buffers[1], np.int64)[array.offset :][: count + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    lengths = np.diff(offsets)
    words = (lengths + 7) // 8
    ends = np.cumsum(words)
    starts = ends - words
    padded = np.zeros(int(ends[-1]) * 8, np.uint8)
    if last > first:
        text = np.frombuffer(buffers[2], np.uint8)[first:last]
        shift = starts * 8 - (offsets[:-1] - first)
        padded[np.arange(last - first) + np.repeat(shift, lengths)] = text
    parts = padded.view("<u8").astype(np.uint64)
    return _summed(parts, words, ends) + lengths.astype(np.uint64) + _TEXT


def _summed(
    parts: Hashes,
    counts: np.ndarray[Any, Any],
    ends: np.ndarray[Any, Any],
) -> Hashes:
    """Return for each segment the sum of its parts, each mixed with its place."""
    place = np.arange(1, len(parts) + 1) - np.repeat(ends - counts, counts)
    running = np.zeros(len(parts) + 1, np.uint64)
    np.cumsum(mixed(parts + place.astype(np.uint64) * GOLDEN), out=running[1:])
    return np.asarray(running[ends] - running[ends - counts], np.uint64)


def _of_lists(lengths: np.ndarray[Any, Any], values: pa.Array, path: str) -> Hashes:
    parts = _contents(values, path)
    valid, _ = validity(values)
    if valid is not None:
        parts[~valid] = _NULL
    ends = np.cumsum(lengths)
    return _summed(parts, lengths, ends) + (lengths + 1).astype(np.uint64) * GOLDEN


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Where the rows of each stratum, ranked by hash, go over into the next split.

    Attributes:
        strata: Hashes of the stratum column's values, rising, shape (strata,), uint64.
        limits: The first hash of each split but the first, shape (strata, splits - 1),
            uint64.
        is_open: Whether such a limit lies above every hash, same shape, bool.
    """

    strata: Hashes
    limits: Hashes
    is_open: np.ndarray[Any, np.dtype[np.bool_]]


def strata_and_hashes(rule: Stratified, batch: pa.RecordBatch) -> Hashes:
    """Return the hash of each row's stratum and of its content.

    Returns:
        Array of shape (rows, 2), dtype uint64.
    """
    strata = row_hashes(batch, [rule.column])
    return np.stack([strata, row_hashes(batch)], axis=1)


def cuts(rule: Stratified, pairs: Hashes) -> Cuts:
    """Return where to cut every stratum so that each split gets its share.

    Args:
        rule: The rule.
        pairs: What `strata_and_hashes` gave, for all rows, in any order; shape
            (rows, 2), dtype uint64.
    """
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    strata, starts = np.unique(pairs[:, 0], return_index=True)
    counts = np.diff(np.append(starts, len(pairs)))
    bounds = np.cumsum(list(rule.weights.values()), dtype=np.int64)
    total = bounds[-1]
    # Rounded half up, in whole numbers.
    ranks = (2 * counts[:, None] * bounds[None, :-1] + total) // (2 * total)
    is_open = ranks >= counts[:, None]
    at = np.minimum(starts[:, None] + ranks, max(len(pairs) - 1, 0))
    limits = pairs[at.ravel(), 1].reshape(at.shape) if len(pairs) else at.view("u8")
    return Cuts(strata, limits, is_open)


def assign(
    rule: Rule, batch: pa.RecordBatch, at: Cuts | None = None
) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the number of each row's split, as `rule.names` counts them.

    Args:
        rule: How rows are dealt out.
        batch: The rows.
        at: For `Stratified`, the cuts of all rows.

    Returns:
        Array of shape (rows,).

    Raises:
        DataError: If a column that the rule needs is not there or not of its kind, or
            a time is missing.
    """
    if len(rule.names) == 1 and not isinstance(rule, ByTime):
        return np.zeros(batch.num_rows, np.intp)
    if isinstance(rule, ByHash):
        return _by_weight(row_hashes(batch), rule)
    if isinstance(rule, ByKey):
        return _by_weight(row_hashes(batch, rule.columns), rule)
    if isinstance(rule, ByTime):
        return _by_time(rule, batch)
    if at is None:
        raise TypeError("Stratified rows are assigned by the cuts of all rows.")
    pairs = strata_and_hashes(rule, batch)
    stratum = np.searchsorted(at.strata, pairs[:, 0])
    past = (pairs[:, 1:] >= at.limits[stratum]) & ~at.is_open[stratum]
    return np.asarray(past.sum(axis=1), np.intp)


def _by_weight(
    hashes: Hashes, rule: ByHash | ByKey
) -> np.ndarray[Any, np.dtype[np.intp]]:
    bounds = np.cumsum(list(rule.weights.values()), dtype=np.uint64)
    # The upper half of the hash, scaled to [0, total): a multiplication and a shift.
    buckets = (hashes >> np.uint64(32)) * bounds[-1] >> np.uint64(32)
    return np.asarray(np.searchsorted(bounds, buckets, side="right"), np.intp)


def _by_time(rule: ByTime, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.intp]]:
    index = batch.schema.get_field_index(rule.column)
    if index < 0:
        raise no_such_column(rule.column, batch.schema.names)
    times = batch.column(index)
    kind = times.type
    missing = times.null_count
    if pa.types.is_floating(kind):
        missing += int(pc.sum(pc.is_nan(times)).as_py() or 0)
    if missing:
        raise DataError(
            f"Column '{rule.column}' has no time in {missing} of {len(times)} rows, so "
            "that they belong to no split. Fill them in, or take them out of the input."
        )
    found = np.zeros(len(times), np.intp)
    for end in rule.until.values():
        if end is None:
            continue
        found += _not_before(times, end, rule.column)
    return found


def _not_before(
    times: pa.Array, end: float | str, column: str
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    kind = times.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    fits = (
        not isinstance(end, str)
        if is_number
        else isinstance(end, str) and (_is_text(kind) or pa.types.is_temporal(kind))
    )
    if pa.types.is_null(kind):
        return np.zeros(len(times), np.bool_)
    if not fits:
        raise DataError(
            f"Column '{column}' is {kind}, and ByTime ends a split at {end!r}. Give "
            "numbers for a column of numbers, and text for text, dates and timestamps."
        )
    if is_number:
        values = times.to_numpy(zero_copy_only=False)
        return np.asarray(values >= end)
    try:
        limit = pa.scalar(end, pa.string()).cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column '{column}' is {kind}, and ByTime ends a split at {end!r}, which "
            "is no such time. Write it as ISO 8601 does."
        ) from error
    later = pc.greater_equal(times, limit)
    return np.asarray(later.to_numpy(zero_copy_only=False), np.bool_)


def deal(
    batch: pa.RecordBatch, numbers: np.ndarray[Any, np.dtype[np.intp]], splits: int
) -> list[pa.RecordBatch]:
    """Return the rows of a batch by split, in their order.

    Args:
        batch: The rows.
        numbers: The number of each row's split, shape (rows,).
        splits: How many splits there are.
    """
    if splits == 1:
        return [batch]
    places = [np.flatnonzero(numbers == number) for number in range(splits)]
    order = np.concatenate(places)
    taken = pa.RecordBatch.from_arrays(
        [_taken(column, order) for column in batch.columns], schema=batch.schema
    )
    ends = np.cumsum([len(each) for each in places]).tolist()
    return [
        taken.slice(end - len(each), len(each))
        for end, each in zip(ends, places, strict=True)
    ]


def _taken(array: pa.Array, order: np.ndarray[Any, np.dtype[np.intp]]) -> pa.Array:
    """Return the values at the places given; numbers four times as fast as Arrow."""
    kind = array.type
    if not (pa.types.is_int64(kind) or pa.types.is_float64(kind)) or not len(array):
        return array.take(pa.array(order))
    valid, _ = validity(array)
    numbers = np.frombuffer(array.buffers()[1], np.int64)
    numbers = numbers[array.offset : array.offset + len(array)][order]
    bitmap = None
    if valid is not None:
        bitmap = pa.py_buffer(np.packbits(valid[order], bitorder="little"))
    return pa.Array.from_buffers(kind, len(order), [bitmap, pa.py_buffer(numbers)])
