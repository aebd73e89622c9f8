"""The order of rows within queries: arithmetic on arrays, for all queries at once.

Rows of a query stand one after another. Queries of the same length are sorted
together, each as NumPy sorts it alone, so that equal scores stand as TFMA has them.
What is the highest of a row's classes is found here too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from penstock.components.evaluation.batch import Array
from penstock.schemas.errors import DataError


def starts_of(codes: Array) -> Array:
    """Return the first row of every query.

    Args:
        codes: The query of every row, of shape (rows,).
    """
    is_first = np.ones(len(codes), bool)
    is_first[1:] = codes[1:] != codes[:-1]
    return np.flatnonzero(is_first)


def falling(values: Array, starts: Array) -> Array:
    """Return the rows, query by query, the highest value first.

    Args:
        values: Of shape (rows,).
        starts: The first row of every query.
    """
    order = np.empty(len(values), np.int64)
    for rows in _of_one_length(starts, len(values)):
        place = np.argsort(values[rows], axis=1)[:, ::-1]
        order[rows] = np.take_along_axis(rows, place, axis=1)
    return order


def highest(values: Array, starts: Array, k: int) -> Array:
    """Return the rows with the k highest values of every query, the k-th first.

    Args:
        values: Of shape (rows,).
        starts: The first row of every query.
        k: How many.

    Returns:
        Rows, of shape (queries, k); the order of queries is not theirs.

    Raises:
        DataError: If a query has fewer rows.
    """
    found = [np.empty((0, k), np.int64)]
    for rows in _of_one_length(starts, len(values)):
        if rows.shape[1] < k:
            raise DataError(
                f"The {k} highest predictions of every query are asked for, and "
                f"{len(rows):,} of {len(starts):,} queries have {rows.shape[1]}. Lower "
                "k, or leave such queries out before ingestion."
            )
        place = top(values[rows], k)
        found.append(np.take_along_axis(rows, place, axis=1))
    return np.concatenate(found)


def top(values: Array, k: int) -> Array:
    """Return the places of the k highest values of every row, the k-th highest first.

    Of equal values those are taken that the TFMA at hand takes.

    Args:
        values: Of shape (rows, values), at least k of them.
        k: How many.

    Returns:
        Places, of shape (rows, k).
    """
    if _ties_are_in_order():
        return np.argsort(-values, axis=1, kind="stable")[:, :k][:, ::-1]
    return np.argpartition(values, -k, axis=1)[:, -k:]


@functools.cache
def _ties_are_in_order() -> bool:
    """Return whether TFMA takes the first of equal predictions.

    0.52 does. 0.47 takes those that NumPy's partition leaves in their place, and its
    results can only be had with the same partition.
    """
    from tensorflow_model_analysis.metrics.metric_util import top_k_indices

    return int(top_k_indices(2, np.array([1.0, 0.0]))[0]) == 0


def places(starts: Array, rows: int) -> Array:
    """Return the place of every row in its query, from 0."""
    lengths = np.diff(starts, append=rows)
    found: Array = np.arange(rows) - np.repeat(starts, lengths)
    return found


def _of_one_length(starts: Array, rows: int) -> Iterator[Array]:
    """Yield the rows of queries of one length, of shape (queries, length)."""
    lengths = np.diff(starts, append=rows)
    order = np.argsort(lengths, kind="stable")
    ends = np.flatnonzero(np.diff(lengths[order], append=-1)) + 1
    for queries in np.split(order, ends[:-1]):
        if len(queries):
            yield starts[queries][:, None] + np.arange(lengths[queries[0]])
