"""What is accumulated does not depend on how the rows are divided."""

from __future__ import annotations

import pickle
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.evaluation import accumulate as module
from penstock.components.evaluation.accumulate import (
    ROWS,
    Accumulator,
    Settings,
    lowest,
    ranks_of_clusters,
    ranks_of_rows,
    statistics_of,
)
from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.sums import LabelsAndPredictions
from penstock.components.evaluation.slicing import SliceBy
from penstock.components.evaluation.statistics import ThresholdCounts
from penstock.components.evaluation.views import View

COUNTS = ThresholdCounts(View(is_weighted=True), (0.25, 0.5))
MEANS = LabelsAndPredictions(View(is_weighted=True))
STATISTICS = statistics_of([COUNTS, MEANS, COUNTS])
SLICINGS = (SliceBy(), SliceBy(("hour",)), SliceBy((), (("hour", 2),)))


def settings_of(sampled: int = 0, *, has_clusters: bool = False) -> Settings:
    squares = tuple(each.counts for each in STATISTICS)
    return Settings(SLICINGS, STATISTICS, squares, sampled, has_clusters)


class Data:
    """Rows whose sums are exact in any order, with a hash and a cluster each."""

    def __init__(self, rows: int, seed: int, *, clusters: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.rows = rows
        self.hour = random.integers(0, 4, rows)
        self.table = pa.RecordBatch.from_arrays(
            [pa.array(self.hour), pa.array(random.integers(0, max(clusters, 1), rows))],
            names=["hour", "driver"],
        )
        self.batch = Batch(
            rows,
            {
                ("label", "", ""): random.integers(0, 2, rows),
                ("prediction", "", ""): random.integers(0, 9, rows) / 8,
                ("weight", "", ""): random.integers(1, 9, rows) / 4,
                ("column", "", "row"): np.arange(rows),
            },
        )
        self.ranks = ranks_of_rows((seed,), rows)
        if clusters:
            self.ranks = ranks_of_clusters(self.table, "driver", self.ranks, seed)

    def added(self, accumulator: Accumulator, rows: Array) -> None:
        accumulator.add(
            self.table.take(pa.array(rows)), self.batch.take(rows), self.ranks[rows]
        )


def values(accumulator: Accumulator) -> dict[Any, Any]:
    """Return the sums of every statistic in every slice, by name."""
    found = {}
    for number, key in enumerate(accumulator.slices):
        for statistic in STATISTICS:
            cells, sums = accumulator.sums(statistic).of(number)
            if len(cells):
                found[key, statistic] = (cells.tolist(), sums.tolist())
    return found


def sampled(accumulator: Accumulator) -> dict[Any, set[int]]:
    """Return the rows that are kept of every slice."""
    sample = accumulator.sample()
    assert sample is not None
    batch = sample.batch
    rows = batch.arrays["column", "", "row"]
    found = defaultdict(set)
    for row, number in zip(sample.rows, sample.slices, strict=True):
        found[accumulator.slices[number]].add(int(rows[row]))
    assert len(sample.ranks) == batch.rows == len(set(rows.tolist()))
    return found


@settings(max_examples=60)
@given(
    rows=st.integers(1, 60),
    seed=st.integers(0, 50),
    most=st.sampled_from([1, 3, 10, 1_000]),
    clusters=st.sampled_from([0, 3, 20]),
    waiting=st.sampled_from([0, 1 << 17]),
    data=st.data(),
)
def test_any_division_of_rows_gives_the_same(
    rows: int, seed: int, most: int, clusters: int, waiting: int, data: st.DataObject
) -> None:
    every = Data(rows, seed, clusters=clusters)
    given_settings = settings_of(most, has_clusters=clusters > 0)
    once = Accumulator(given_settings)
    every.added(once, np.arange(rows))
    owners = np.array(
        data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LEAST_WAITING", waiting)
        shares = [Accumulator(given_settings) for _ in range(4)]
        for number in range(6):
            every.added(shares[number // 2], np.flatnonzero(owners == number))
        total = Accumulator(given_settings)
        for number in data.draw(st.permutations(range(4))):
            # As it comes back from a worker.
            total.merge(pickle.loads(pickle.dumps(shares[number])))
        assert total.rows == rows
        assert values(total) == values(once)
        assert sampled(total) == sampled(once)


@settings(max_examples=100)
@given(
    rows=st.integers(1, 60),
    seed=st.integers(0, 50),
    most=st.integers(1, 12),
    clusters=st.sampled_from([0, 5]),
)
def test_a_sample_has_the_lowest_units_of_every_slice(
    rows: int, seed: int, most: int, clusters: int
) -> None:
    every = Data(rows, seed, clusters=clusters)
    accumulator = Accumulator(settings_of(most, has_clusters=clusters > 0))
    every.added(accumulator, np.arange(rows))
    expected = {}
    for number, key in accumulator.slices:
        inside = np.ones(rows, bool)
        if key:
            inside = every.hour == key[0][1]
        units = np.unique(every.ranks[inside])[:most]
        expected[number, key] = set(
            np.flatnonzero(inside & np.isin(every.ranks, units)).tolist()
        )
    assert sampled(accumulator) == expected


def test_sums_are_those_of_the_rows_in_a_slice() -> None:
    every = Data(200, 7)
    accumulator = Accumulator(settings_of())
    every.added(accumulator, np.arange(200))
    assert accumulator.sample() is None
    assert len(accumulator.slices) == 6
    weight = every.batch.arrays["weight", "", ""]
    label = every.batch.arrays["label", "", ""]
    for number, (_, key) in enumerate(accumulator.slices):
        inside = every.hour == key[0][1] if key else np.ones(200, bool)
        _, counted = accumulator.sums(ROWS).of(number)
        assert counted[0, 0] == inside.sum()
        _, means = accumulator.sums(MEANS).of(number)
        assert means[0, 0] == weight[inside].sum()
        assert means[0, 1] == (weight * label)[inside].sum()
        _, counts = accumulator.sums(COUNTS).of(number)
        assert counts[:, 0].sum() == weight[inside].sum()
        assert counts[:, 1].sum() == (weight[inside] ** 2).sum()


def test_accumulators_without_rows_merge() -> None:
    total = Accumulator(settings_of(5))
    total.merge(Accumulator(settings_of(5)))
    assert total.sample() is None
    every = Data(9, 1)
    other = Accumulator(settings_of(5))
    every.added(other, np.zeros(0, np.int64))
    every.added(other, np.arange(9))
    total.merge(other)
    total.merge(Accumulator(settings_of(5)))
    assert values(total) == values(other)
    assert sampled(total) == sampled(other)


def test_equal_statistics_are_computed_once() -> None:
    assert statistics_of([COUNTS, MEANS, COUNTS, ROWS]) == (ROWS, COUNTS, MEANS)


@settings(max_examples=200)
@given(
    members=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30),
    most=st.integers(1, 5),
)
def test_lowest_ranks(members: list[tuple[int, int]], most: int) -> None:
    slices = np.array([number for number, _ in members], np.int64)
    ranks = np.array([rank for _, rank in members], np.uint64)
    kept, highest = lowest(ranks, slices, most)
    by_slice: dict[int, set[int]] = defaultdict(set)
    for number, rank in members:
        by_slice[number].add(rank)
    chosen = {number: sorted(found)[:most] for number, found in by_slice.items()}
    assert kept.tolist() == [
        place for place, (number, rank) in enumerate(members) if rank in chosen[number]
    ]
    assert {number: int(rank) for number, rank in highest.items()} == {
        number: found[-1] for number, found in chosen.items() if len(found) == most
    }


def test_ranks_say_where_a_row_is() -> None:
    ranks = ranks_of_rows((0, 1, 100), 1_000)
    assert len(np.unique(ranks)) == 1_000
    # A batch may start anywhere: only the numbers that name it count.
    assert (ranks_of_rows((0, 1, 100), 10) == ranks[:10]).all()
    assert not np.isin(ranks_of_rows((0, 1, 101), 1_000), ranks).any()
    assert not np.isin(ranks_of_rows((1, 1, 100), 1_000), ranks).any()
    share = (ranks < np.uint64(2**63)).mean()
    assert 0.45 < share < 0.55


def test_equal_values_are_one_unit() -> None:
    table = pa.RecordBatch.from_arrays(
        [pa.array(["a", "b", None, "a", None])], names=["driver"]
    )
    alone = ranks_of_rows((0,), 5)
    ranks = ranks_of_clusters(table, "driver", alone, 3)
    assert ranks[0] == ranks[3] != ranks[1]
    assert (ranks[[2, 4]] == alone[[2, 4]]).all()
    assert (ranks_of_clusters(table, "driver", alone, 4)[[0, 1]] != ranks[[0, 1]]).all()
