"""What an evaluation remembers of rows: sums by slice, and a sample for intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from penstock.components.columns.splits import GOLDEN, mixed, row_hashes
from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.blessing import Slice
from penstock.components.evaluation.gathered import Gathered, Queries
from penstock.components.evaluation.slicing import Assignment, SliceBy
from penstock.components.evaluation.statistics import Rows, Statistic
from penstock.components.evaluation.sums import Sums

ROWS = Rows()

_LEAST_WAITING = 1 << 17  # members of a sample that wait before it is thinned


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to accumulate: the same on every worker.

    Attributes:
        slicings: How rows are sliced.
        statistics: What is summed.
        has_squares: For each statistic, whether sums of squared weights are kept, for
            the bootstrap of weighted counts.
        sampled: Most units (rows or clusters) per slice that are kept for intervals;
            0 for none.
        has_clusters: Whether the units are clusters.
        queries: What is measured of whole queries; their rows are kept.
    """

    slicings: tuple[SliceBy, ...]
    statistics: tuple[Statistic, ...]
    has_squares: tuple[bool, ...]
    sampled: int = 0
    has_clusters: bool = False
    queries: tuple[Queries, ...] = ()


@dataclasses.dataclass
class Sample:
    """The units of every slice that have the lowest hashes.

    Attributes:
        batch: The rows that are kept.
        ranks: The hash of each row's unit.
        rows: For each membership of a row in a slice, the row.
        slices: The slice.
    """

    batch: Batch
    ranks: Array
    rows: Array
    slices: Array


class Accumulator:
    """Sums over rows, mergeable.

    Args:
        settings: What to accumulate.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows = 0
        self.dropped = 0
        self.slices: list[tuple[int, Slice]] = []
        self._numbers: dict[tuple[int, Slice], int] = {}
        self._sums = [
            Sums(each.cells, is_maximum=each.is_maximum) for each in settings.statistics
        ]
        self._gathered = [Gathered(each) for each in settings.queries]
        self._samples: list[Sample] = []
        # The highest rank that a slice's sample takes, by its number.
        self._highest = np.zeros(0, np.uint64)

    def add(self, table: pa.RecordBatch, batch: Batch, ranks: Array | None) -> None:
        """Add rows.

        Args:
            table: Their columns, which they are sliced by.
            batch: Their labels, predictions and weights.
            ranks: The hash of each row's unit, where a sample is kept.
        """
        self.rows += batch.rows
        everyone = np.arange(batch.rows)
        rows, slices = [], []
        for number, slicing in enumerate(self.settings.slicings):
            assigned = slicing.assign(table)
            known = self._known(number, assigned)
            codes = assigned.codes
            members = everyone if assigned.rows is None else assigned.rows
            inside = codes >= 0
            if not inside.all():
                members, codes = members[inside], codes[inside]
            rows.append(members)
            slices.append(known[codes])
        members = np.concatenate(rows)
        numbers = np.concatenate(slices)
        self._add_members(batch, ranks, members, numbers)
        for each in self._gathered:
            clusters = ranks if self.settings.has_clusters else None
            each.add(table, batch, clusters, members, numbers)

    def _add_members(
        self, batch: Batch, ranks: Array | None, members: Array, numbers: Array
    ) -> None:
        """Add rows whose slices are known.

        Args:
            batch: Their labels, predictions and weights.
            ranks: The hash of each row's unit, where a sample is kept.
            members: For each membership of a row in a slice, the row.
            numbers: The number of the slice.
        """
        for statistic, squares, sums in zip(
            self.settings.statistics,
            self.settings.has_squares,
            self._sums,
            strict=True,
        ):
            sums.add(members, numbers, statistic.contributions(batch), squares=squares)
        if ranks is not None and self.settings.sampled:
            self._add_sample(batch, ranks, members, numbers)

    def merge(self, other: Accumulator) -> None:
        """Add what another one has."""
        self.rows += other.rows
        self.dropped += other.dropped
        moved = np.array([self._number(*each) for each in other.slices], np.int64)
        for mine, others in zip(self._sums, other._sums, strict=True):
            mine.merge(others, moved)
        for gathered, more in zip(self._gathered, other._gathered, strict=True):
            gathered.merge(more, moved)
        for sample in other._samples:
            self._samples.append(
                dataclasses.replace(sample, slices=moved[sample.slices])
            )
        self._thin_if_many()

    def of_queries(self, key: str) -> Accumulator:
        """Return the sums over queries, once all rows are there.

        Slices have the same numbers. Units are queries, or clusters of queries.

        Args:
            key: The column that groups rows into queries.
        """
        (gathered,) = (each for each in self._gathered if each.queries.key == key)
        statistics = gathered.queries.statistics
        total = Accumulator(
            dataclasses.replace(
                self.settings,
                statistics=statistics,
                has_squares=(False,) * len(statistics),
                has_clusters=True,
                queries=(),
            )
        )
        for each in self.slices:
            total._number(*each)
        for whole in gathered.whole():
            total._add_members(whole.batch, whole.ranks, whole.members, whole.slices)
        return total

    def sums(self, statistic: Statistic) -> Sums:
        """Return the sums of a statistic, by the numbers of `slices`."""
        return self._sums[self.settings.statistics.index(statistic)]

    def sample(self) -> Sample | None:
        """Return the sample; None if there is none."""
        if not self._samples:
            return None
        self._thin()
        return self._samples[0]

    def _add_sample(
        self, batch: Batch, ranks: Array, members: Array, numbers: Array
    ) -> None:
        """Keep the rows that can be among the lowest of a slice."""
        open_slices = len(self.slices) - len(self._highest)
        if open_slices:
            no_limit = np.full(open_slices, np.iinfo(np.uint64).max)
            self._highest = np.concatenate([self._highest, no_limit])
        kept = ranks[members] <= self._highest[numbers]
        chosen, rows = np.unique(members[kept], return_inverse=True)
        if len(chosen):
            self._samples.append(
                Sample(batch.take(chosen), ranks[chosen], rows, numbers[kept])
            )
        self._thin_if_many()

    def _thin_if_many(self) -> None:
        """Thin when as much waits as is kept, so that a member is sorted rarely."""
        sizes = [len(each.rows) for each in self._samples]
        if len(sizes) > 1 and sum(sizes[1:]) > max(_LEAST_WAITING, sizes[0]):
            self._thin()

    def _known(self, slicing: int, assigned: Assignment) -> Array:
        return np.array(
            [self._number(slicing, key) for key in assigned.keys] or [0], np.int64
        )

    def _number(self, slicing: int, key: Slice) -> int:
        found = self._numbers.get((slicing, key))
        if found is None:
            found = self._numbers[slicing, key] = len(self.slices)
            self.slices.append((slicing, key))
        return found

    def _thin(self) -> None:
        """Keep of every slice the units with the lowest hashes."""
        starts = np.cumsum([0, *(len(each.ranks) for each in self._samples)])
        ranks = np.concatenate([each.ranks for each in self._samples])
        rows = np.concatenate(
            [
                each.rows + start
                for each, start in zip(self._samples, starts, strict=False)
            ]
        )
        slices = np.concatenate([each.slices for each in self._samples])
        batch = Batch.concatenated([each.batch for each in self._samples])
        kept, highest = lowest(ranks[rows], slices, self.settings.sampled)
        rows, slices = rows[kept], slices[kept]
        self._highest = np.full(len(self.slices), np.iinfo(np.uint64).max)
        for number, rank in highest.items():
            self._highest[number] = rank
        chosen, rows = np.unique(rows, return_inverse=True)
        self._samples = [Sample(batch.take(chosen), ranks[chosen], rows, slices)]


def lowest(
    ranks: Array, slices: Array, most: int
) -> tuple[Array, dict[int, np.uint64]]:
    """Return which members have the `most` lowest ranks of their slice.

    Members with the same rank are one unit and stay together.

    Args:
        ranks: Of the members.
        slices: Of the members.
        most: Units of a slice that are kept.

    Returns:
        Numbers of the members that are kept, rising; and of every slice that has as
        many units, the highest rank that is kept.
    """
    if not len(ranks):
        return np.zeros(0, np.int64), {}
    order = np.lexsort((ranks, slices))
    ranks, slices = ranks[order], slices[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = slices[1:] != slices[:-1]
    is_new = is_first.copy()
    is_new[1:] |= ranks[1:] != ranks[:-1]
    unit = np.cumsum(is_new)
    starts = np.flatnonzero(is_first)
    sizes = np.diff([*starts, len(order)])
    place = unit - np.repeat(unit[starts], sizes)
    is_last = is_new & (place == most - 1)
    highest = dict(zip(slices[is_last].tolist(), ranks[is_last], strict=True))
    return np.sort(order[place < most]), highest


def ranks_of_rows(start: tuple[int, ...], rows: int) -> Array:
    """Return a hash of every row, from where it is: the same on any runner.

    Args:
        start: Numbers that tell the batch from all others: seed, split, file, row.
        rows: How many.
    """
    state = np.zeros(1, np.uint64)
    for each in start:
        state = mixed((state ^ np.uint64(each)) + GOLDEN)
    return mixed(np.arange(rows, dtype=np.uint64) + state + GOLDEN)


def ranks_of_clusters(
    table: pa.RecordBatch, key: str, alone: Array, seed: int
) -> Array:
    """Return a hash of every value of a column, so that equal values are one unit.

    Args:
        table: With the column.
        key: Its name.
        alone: The hashes of rows, for those in which it is missing.
        seed: Of the sample.
    """
    column = table.column(table.schema.names.index(key))
    hashes = mixed((row_hashes(table, [key]) ^ np.uint64(seed)) + GOLDEN)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, alone, hashes)


def statistics_of(parts: Sequence[Statistic]) -> tuple[Statistic, ...]:
    """Return statistics once each, the number of rows first."""
    return tuple(dict.fromkeys([ROWS, *parts]))
