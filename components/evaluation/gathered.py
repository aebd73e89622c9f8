"""Rows of the same query, gathered from wherever they are.

TFMA groups the rows of a MetricsSpec with a `query_key`, and measures whole queries: a
query is in every slice that one of its rows is in, with all of its rows. Its rows may
be anywhere in the data, so those of such a spec are kept until all are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from penstock.components.columns.forms import is_list, list_parts
from penstock.components.columns.splits import row_hashes
from penstock.components.evaluation.batch import Array, Batch, Key
from penstock.components.evaluation.rankings import starts_of
from penstock.components.evaluation.statistics import Statistic
from penstock.schemas.errors import DataError

_ROWS = 100_000  # about as many are turned into contributions at once


@dataclasses.dataclass(frozen=True)
class Queries:
    """What is measured of whole queries.

    Attributes:
        key: The column whose equal values make one query.
        statistics: What is summed.
        outputs: The models and outputs that they are of.
        columns: The columns that they read beside labels, predictions and weights.
    """

    key: str
    statistics: tuple[Statistic, ...]
    outputs: frozenset[tuple[str, str]]
    columns: frozenset[str] = frozenset()

    def keeps(self, key: Key) -> bool:
        """Return whether an array of a batch is needed."""
        kind, model, output = key
        if kind == "column":
            return output in self.columns
        return any(of == model and output in ("", name) for of, name in self.outputs)


@dataclasses.dataclass(frozen=True)
class Whole:
    """Rows of whole queries, one query after another.

    Attributes:
        batch: The rows, in the order of the data within a query, with the number of
            their query under the kind `query`.
        ranks: The hash of the unit of every row; a query's rows are one unit.
        members: For each membership of a row in a slice, the row.
        slices: The slice.
    """

    batch: Batch
    ranks: Array
    members: Array
    slices: Array


class Gathered:
    """The rows of queries, kept until all are there: memory grows with the rows.

    A row costs the arrays that its metrics read, 16 bytes, and 16 for every slice that
    is new to its query in a batch.

    Args:
        queries: What is measured of them.
    """

    def __init__(self, queries: Queries) -> None:
        self.queries = queries
        self._batches: list[Batch] = []
        self._hashes: list[Array] = []
        self._ranks: list[Array] = []
        self._pairs: list[tuple[Array, Array]] = []

    def add(
        self,
        table: pa.RecordBatch,
        batch: Batch,
        ranks: Array | None,
        members: Array,
        slices: Array,
    ) -> None:
        """Add rows.

        Args:
            table: Their columns.
            batch: Their labels, predictions, weights and columns.
            ranks: The hash of each row's unit, where units are clusters of queries.
            members: For each membership of a row in a slice, the row.
            slices: The slice.

        Raises:
            DataError: If a row has no query, or several.
        """
        hashes = _hashes_of(table, self.queries.key)
        self._batches.append(batch.only(self.queries.keeps))
        self._hashes.append(hashes)
        self._ranks.append(hashes if ranks is None else ranks)
        self._pairs.append(_distinct(hashes[members], slices))

    def merge(self, other: Gathered, moved: Array) -> None:
        """Add other rows; `moved` are the numbers that their slices have here."""
        self._batches += other._batches
        self._hashes += other._hashes
        self._ranks += other._ranks
        self._pairs += [(query, moved[slices]) for query, slices in other._pairs]

    def whole(self) -> Iterator[Whole]:
        """Yield all rows, some queries at a time, in the same order whatever merged."""
        if not self._batches:
            return
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        starts = starts_of(hashes[order])
        ends = np.append(starts[1:], len(order))
        queries = hashes[order[starts]]
        units = np.concatenate(self._ranks)[order[starts]]
        batch = Batch.concatenated(self._batches)
        pairs = [np.concatenate(each) for each in zip(*self._pairs, strict=True)]
        members, slices = _distinct(*pairs)
        members = np.searchsorted(queries, members)
        for first, last in _portions(starts):
            lengths = ends[first:last] - starts[first:last]
            taken = batch.take(order[starts[first] : ends[last - 1]])
            key: Key = ("query", "", self.queries.key)
            codes = np.repeat(np.arange(first, last), lengths)
            start, end = np.searchsorted(members, [first, last])
            chosen = members[start:end]
            repeats = (ends - starts)[chosen]
            yield Whole(
                Batch(taken.rows, {**taken.arrays, key: codes}),
                np.repeat(units[first:last], lengths),
                _ranges(starts[chosen] - starts[first], repeats),
                np.repeat(slices[start:end], repeats),
            )


def _hashes_of(table: pa.RecordBatch, key: str) -> Array:
    """Return the hash of every row's query."""
    column = table.column(table.schema.names.index(key))
    is_wrong = np.zeros(len(column), bool)
    if is_list(column.type):
        lengths, column, _ = list_parts(column)
        is_wrong = lengths != 1
    if not is_wrong.any():
        is_wrong = column.is_null().to_numpy(zero_copy_only=False)
    if is_wrong.any():
        raise DataError(
            f"{int(is_wrong.sum()):,} of {len(is_wrong):,} rows have none or several "
            f"values in '{key}', the query_key of a MetricsSpec, and a row is of one "
            "query. Leave such rows out before ingestion."
        )
    return row_hashes(table, [key])


def _distinct(queries: Array, slices: Array) -> tuple[Array, Array]:
    """Return pairs once each, by query and slice."""
    order = np.lexsort((slices, queries))
    queries, slices = queries[order], slices[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (queries[1:] != queries[:-1]) | (slices[1:] != slices[:-1])
    return queries[is_new], slices[is_new]


def _portions(starts: Array) -> Iterator[tuple[int, int]]:
    """Yield the first and the last query, excluded, of portions of some rows."""
    numbers = starts // _ROWS
    edges = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    yield from zip(edges, [*edges[1:], len(starts)], strict=True)


def _ranges(starts: Array, lengths: Array) -> Array:
    """Return the numbers of ranges, one range after another."""
    before = np.cumsum(lengths) - lengths
    found: Array = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return found
