"""Where nodes are drawn: columns lead on, rows are clear of one another."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pipelines.exports.layout import Layout, lay_out

NODES = 12
EDGES = st.lists(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=30
)


def check(count: int, edges: list[tuple[int, int]]) -> Layout:
    """Lay a graph out, and check all that holds for any graph."""
    layout = lay_out(count, edges)
    assert len(layout.columns) == len(layout.rows) == count
    places = list(zip(layout.columns, layout.rows, strict=True))
    for column, group in itertools.groupby(sorted(places), lambda each: each[0]):
        assert column >= 0
        rows = [row for _, row in group]
        assert rows[0] >= -1e-9
        for above, below in itertools.pairwise(rows):
            assert below - above >= 1 - 1e-9
    assert len(layout.routes) == len(edges)
    for (start, end), route in zip(edges, layout.routes, strict=True):
        assert route[0] == places[start]
        assert route[-1] == places[end]
        if start != end:
            steps = {b[0] - a[0] for a, b in itertools.pairwise(route)}
            assert steps in ({1}, {-1})
    return layout


@settings(max_examples=200)
@given(EDGES)
def test_any_graph_is_laid_out(edges: list[tuple[int, int]]) -> None:
    check(NODES, edges)


@settings(max_examples=200)
@given(EDGES)
def test_every_edge_of_a_graph_without_loops_leads_to_the_right(
    edges: list[tuple[int, int]],
) -> None:
    edges = [(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]]
    layout = check(NODES, edges)
    for start, end in edges:
        assert layout.columns[start] < layout.columns[end]


def test_what_begins_late_is_drawn_near_what_reads_it() -> None:
    layout = check(5, [(0, 1), (1, 2), (2, 3), (4, 3)])
    assert layout.columns == (0, 1, 2, 3, 2)


def test_a_long_edge_is_led_past_the_nodes_between() -> None:
    layout = check(4, [(0, 1), (1, 2), (2, 3), (0, 3)])
    *_, route = layout.routes
    assert [column for column, _ in route] == [0, 1, 2, 3]
    for column, row in route[1:-1]:
        assert abs(row - layout.rows[column]) > 0.5


def test_a_loop_leads_back() -> None:
    layout = check(3, [(0, 1), (1, 2), (2, 0)])
    assert layout.columns == (0, 1, 2)
    assert [column for column, _ in layout.routes[2]] == [2, 1, 0]


def test_a_straight_line_is_straight() -> None:
    layout = check(6, list(itertools.pairwise(range(6))))
    assert set(layout.rows) == {0.0}


def test_two_trees_do_not_cross() -> None:
    edges = [(0, 2), (0, 3), (1, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 9)]
    layout = check(10, edges)
    for (a, b), (c, d) in itertools.combinations(edges, 2):
        if layout.columns[a] == layout.columns[c]:
            before = layout.rows[a] - layout.rows[c]
            after = layout.rows[b] - layout.rows[d]
            assert before * after >= 0


@pytest.mark.parametrize("count", [0, 1])
def test_the_smallest_graphs(count: int) -> None:
    layout = check(count, [])
    assert layout.columns == (0,) * count


def test_a_large_graph_and_a_deep_one() -> None:
    chance = random.Random(1)
    check(5_000, list(itertools.pairwise(range(5_000))))
    edges = [
        (chance.randrange(each), each) for each in range(1, 2_000) for _ in range(2)
    ]
    check(2_000, edges)
