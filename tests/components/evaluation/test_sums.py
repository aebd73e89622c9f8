"""Sums by slice and cell equal sums that are made one by one."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.evaluation import sums as module
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.statistics import Contributions
from penstock.components.evaluation.sums import Sums

# Sums of these are exact, in whatever order.
VALUES = st.integers(-64, 64).map(lambda each: each / 8)
Expected = dict[tuple[int, int], Array]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some rows: in which slices they are, and what they contribute."""

    rows: Array | None
    slices: Array
    found: Contributions


@dataclasses.dataclass(frozen=True)
class Case:
    """Batches of the same statistic, of `cells` cells and `columns` columns."""

    cells: int
    columns: int
    squares: bool
    batches: tuple[Batch, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    cells = draw(st.sampled_from([1, 2, 7, 40, 1_000_000, 1 << 40]))
    has_cells = cells > 1
    per_row = draw(st.integers(1, 3))
    squares = has_cells and draw(st.booleans())
    columns = 1 if squares else draw(st.integers(1, 3))
    of_ones = [has_cells and draw(st.booleans()) for _ in range(columns)]
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(0, 6))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        members = draw(st.sampled_from([None, 0, 5, 12]))
        chosen = None if members is None else random.integers(0, max(rows, 1), members)
        if chosen is not None and not rows:
            chosen = np.zeros(0, np.int64)
        count = rows if chosen is None else len(chosen)
        values = tuple(
            None
            if is_one
            else random.integers(-64, 65, (rows, random.choice([1, per_row]))) / 8
            for is_one in of_ones
        )
        places = random.integers(0, cells, (rows, per_row)) if has_cells else None
        batches.append(
            Batch(chosen, random.integers(0, 4, count), Contributions(places, values))
        )
    return Case(cells, columns, squares, tuple(batches))


def expected(case: Case) -> Expected:
    """Return the sums of every cell of every slice, one contribution at a time."""
    found: Expected = defaultdict(lambda: np.zeros(case.columns + case.squares))
    for batch in case.batches:
        members = range(len(batch.slices)) if batch.rows is None else batch.rows
        for row, number in zip(members, batch.slices, strict=True):
            _add(found, batch.found, int(row), int(number), case.squares)
    return found


def _add(
    found: Expected, given: Contributions, row: int, number: int, squares: bool
) -> None:
    places = [0] if given.cells is None else given.cells[row].tolist()
    for place, cell in enumerate(places):
        added = []
        for values in given.values:
            if values is None:
                added.append(1.0)
            elif given.cells is None:
                added.append(float(values[row].sum()))
            else:
                added.append(float(values[row][place % values.shape[1]]))
        if squares:
            added.append(added[0] ** 2)
        found[number, cell] = found[number, cell] + np.array(added)


def added(case: Case, batches: Any) -> Sums:
    sums = Sums(case.cells)
    for each in batches:
        sums.add(each.rows, each.slices, each.found, squares=case.squares)
    return sums


def as_dict(sums: Sums) -> dict[tuple[int, int], list[float]]:
    places, values = sums.all()
    assert (np.diff(places) > 0).all()
    return {
        (int(place) // sums.cells, int(place) % sums.cells): each.tolist()
        for place, each in zip(places, values, strict=True)
    }


@settings(max_examples=200)
@given(case=cases())
def test_sums_of_one_accumulator(case: Case) -> None:
    assert as_dict(added(case, case.batches)) == {
        key: each.tolist() for key, each in expected(case).items()
    }


@settings(max_examples=200)
@given(case=cases(), data=st.data())
def test_any_split_and_order_of_merging_gives_the_same_sums(
    case: Case, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(4)))
    owner = [data.draw(st.integers(0, 2)) for _ in case.batches]
    moved = np.array(order)
    total = Sums(case.cells)
    for number in range(3):
        mine = [
            # Each accumulator numbers slices in its own way.
            dataclasses.replace(batch, slices=np.argsort(moved)[batch.slices])
            for batch, of in zip(case.batches, owner, strict=True)
            if of == number
        ]
        total.merge(added(case, mine), moved)
    assert as_dict(total) == as_dict(added(case, case.batches))


@settings(max_examples=50)
@given(case=cases())
def test_all_ways_of_counting_agree(case: Case) -> None:
    """Of arrays as long as the cells, of sorted places, and of parts that wait."""
    whole = as_dict(added(case, case.batches))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_DENSE", 0)
        assert as_dict(added(case, case.batches)) == whole
        patch.setattr(module, "_LEAST_WAITING", 0)
        assert as_dict(added(case, case.batches)) == whole


@settings(max_examples=100)
@given(case=cases())
def test_slices_one_by_one_and_as_arrays(case: Case) -> None:
    sums = added(case, case.batches)
    whole = as_dict(sums)
    for number in range(4):
        filled = sums.filled(number)
        mine = {cell: each for (of, cell), each in whole.items() if of == number}
        assert (
            dict(zip(filled.cells.tolist(), filled.sums.tolist(), strict=True)) == mine
        )
    if case.cells > 1_000:
        return
    dense = sums.dense(1, 4, case.columns)
    assert dense.shape == (3, case.cells, case.columns)
    for (of, cell), each in whole.items():
        if of >= 1:
            assert dense[of - 1, cell].tolist() == each[: case.columns]
    assert np.count_nonzero(dense) <= len(whole) * case.columns


def test_what_is_empty_merges_with_anything() -> None:
    contributed = Contributions(None, (np.ones((2, 1)), np.full((2, 1), 3.0)))
    filled = Sums(1)
    filled.add(None, np.array([0, 1]), contributed, squares=False)
    before = as_dict(filled)
    filled.merge(Sums(1), np.zeros(0, np.int64))
    assert as_dict(filled) == before
    total = Sums(1)
    total.merge(Sums(1), np.zeros(0, np.int64))
    total.merge(filled, np.array([0, 1]))
    assert as_dict(total) == before


def test_how_many_cells_a_row_fell_into() -> None:
    sums = Sums(4)
    sums.add(
        None,
        np.zeros(1, np.int64),
        Contributions(np.array([[2]]), (None,)),
        squares=True,
    )
    assert sums.per_row == 1
    two = Contributions(np.array([[1, 3]]), (np.array([[0.5, 0.25]]),))
    sums.add(None, np.zeros(1, np.int64), two, squares=True)
    assert sums.per_row == 2
    other = Sums(4)
    other.merge(sums, np.array([0]))
    assert other.per_row == 2
    assert as_dict(other) == {
        (0, 1): [0.5, 0.25],
        (0, 2): [1.0, 1.0],
        (0, 3): [0.25, 0.0625],
    }


@settings(max_examples=100)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), VALUES), max_size=20),
    first=st.integers(0, 20),
)
def test_maxima_are_kept_instead(rows: list[tuple[int, float]], first: int) -> None:
    def of(some: list[tuple[int, float]]) -> Sums:
        sums = Sums(1, is_maximum=True)
        slices = np.array([number for number, _ in some], np.int64)
        values = np.array([value for _, value in some])[:, None]
        sums.add(None, slices, Contributions(None, (values,)), squares=False)
        return sums

    total = of(rows[:first])
    total.merge(of(rows[first:]), np.arange(4))
    greatest: dict[tuple[int, int], list[float]] = {}
    for number, value in rows:
        before = greatest.get((number, 0), [value])
        greatest[number, 0] = [max(value, *before)]
    assert as_dict(total) == greatest
