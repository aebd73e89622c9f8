"""Where the nodes of a directed graph are drawn: in layers, with few crossings.

Plain arithmetic on numbers of nodes. Layers go from left to right, so that every edge
leads to the right; long edges are led between the nodes that they pass.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

_SWEEPS = 8  # over all layers, to the right and back
_PASSED = 0.35  # of a row, for an edge that passes


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where nodes and edges lie, in units of columns and rows.

    Attributes:
        columns: Column of every node, from 0.
        rows: Row of every node's middle, at least 0; nodes of a column lie at least
            one row apart.
        routes: Of every edge the columns and rows that it leads through, its ends
            included.
    """

    columns: tuple[int, ...]
    rows: tuple[float, ...]
    routes: tuple[tuple[tuple[int, float], ...], ...]


def lay_out(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Return where the nodes of a graph are drawn.

    Args:
        count: How many nodes there are; they are numbered from 0.
        edges: Pairs of numbers. A loop is drawn, with an edge that leads back.
    """
    forward = _without_loops(count, edges)
    columns = _columns(count, forward)
    links, chains = _links(count, forward, columns)
    layers: list[list[int]] = [[] for _ in range(max(columns, default=-1) + 1)]
    for number, column in enumerate(columns):
        layers[column].append(number)
    before: list[list[int]] = [[] for _ in columns]
    after: list[list[int]] = [[] for _ in columns]
    for start, end in links:
        after[start].append(end)
        before[end].append(start)
    heights = [1.0 if number < count else _PASSED for number in range(len(columns))]
    for sweep in range(_SWEEPS):
        _order(layers, after if sweep % 2 else before, reverse=sweep % 2 == 1)
    near = [a + b for a, b in zip(before, after, strict=True)]
    rows = _rows(layers, near, heights)
    routes = []
    for (start, _), (a, _b), chain in zip(edges, forward, chains, strict=True):
        route = [(columns[each], rows[each]) for each in chain]
        routes.append(tuple(route if start == a else route[::-1]))
    return Layout(tuple(columns[:count]), tuple(rows[:count]), tuple(routes))


def _without_loops(
    count: int, edges: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the edges, those turned around that close a loop."""
    after: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        after[start].append(end)
    state = [0] * count  # 1 while what is after it is looked at, 2 when that is done
    turned = set()
    for root in range(count):
        stack = [(root, iter(after[root]))] if not state[root] else []
        state[root] = state[root] or 1
        while stack:
            node, rest = stack[-1]
            for each in rest:
                if state[each] == 1:
                    turned.add((node, each))
                elif not state[each]:
                    state[each] = 1
                    stack.append((each, iter(after[each])))
                    break
            else:
                state[node] = 2
                stack.pop()
    return [(b, a) if (a, b) in turned else (a, b) for a, b in edges]


def _columns(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the longest way to every node; what nothing leads to is moved near."""
    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for start, end in edges:
        if start != end:
            after[start].append(end)
            waiting[end] += 1
    columns = [0] * count
    first = [number for number in range(count) if not waiting[number]]
    ready = list(first)
    while ready:
        node = ready.pop()
        for each in after[node]:
            columns[each] = max(columns[each], columns[node] + 1)
            waiting[each] -= 1
            if not waiting[each]:
                ready.append(each)
    for node in first:
        columns[node] = min((columns[each] - 1 for each in after[node]), default=0)
    return columns


def _links(
    count: int, edges: Sequence[tuple[int, int]], columns: list[int]
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Part long edges into links from column to column; add what they pass.

    Returns:
        All links, and the nodes of every edge in order, those passed included.
    """
    links: list[tuple[int, int]] = []
    chains = []
    for start, end in edges:
        chain = [start]
        for column in range(columns[start] + 1, columns[end]):
            chain.append(len(columns))
            columns.append(column)
        chain.append(end)
        chains.append(chain)
        links += itertools.pairwise(chain)
    return [link for link in links if link[0] != link[1]], chains


def _order(layers: list[list[int]], near: list[list[int]], *, reverse: bool) -> None:
    """Sort every layer by the mean place of its neighbors in the layer before."""
    place: dict[int, float] = {}
    for layer in reversed(layers) if reverse else layers:
        own = {node: index / max(len(layer), 1) for index, node in enumerate(layer)}
        means = {
            node: _mean(
                [place[each] for each in near[node] if each in place], own[node]
            )
            for node in layer
        }
        layer.sort(key=lambda node: means[node])
        place.update((node, index / len(layer)) for index, node in enumerate(layer))


def _rows(
    layers: list[list[int]], near: list[list[int]], heights: list[float]
) -> list[float]:
    """Return the row of every node: near its neighbors, and clear of its layer's."""
    rows = [0.0] * len(heights)
    for sweep in range(-1, _SWEEPS):
        for layer in reversed(layers) if sweep % 2 else layers:
            wanted = [
                # At first they only make room for one another.
                0.0
                if sweep < 0
                else _mean([rows[each] for each in near[node]], rows[node])
                for node in layer
            ]
            for node, row in zip(layer, _clear(wanted, layer, heights), strict=True):
                rows[node] = row
    top = min(rows, default=0.0)
    return [row - top for row in rows]


def _clear(wanted: list[float], layer: list[int], heights: list[float]) -> list[float]:
    """Return rows in order, none nearer than its height, the nearest to those wanted.

    With the room that they need taken off, rows that only rise are asked for: blocks of
    those that fall are merged to their mean (pool adjacent violators).
    """
    room = 0.0
    offsets = []
    for index, node in enumerate(layer):
        room += (heights[layer[index - 1]] + heights[node]) / 2 if index else 0.0
        offsets.append(room)
    blocks: list[tuple[float, int]] = []  # sum and count
    for want, offset in zip(wanted, offsets, strict=True):
        total, number = want - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / number:
            last, more = blocks.pop()
            total, number = total + last, number + more
        blocks.append((total, number))
    levels = [total / number for total, number in blocks for _ in range(number)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
