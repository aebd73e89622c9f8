"""A lineage as a page: one HTML file that needs nothing else, not even a network.

The graph is drawn here, as SVG; what is recorded of every node is beside it. Without a
script both are there, and a node is a link to what is recorded of it; with its script
the page zooms, pans, searches and shows what belongs together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from penstock.components.evaluation import pages
from penstock.pipelines.environment import PREFIX
from penstock.pipelines.exports.graph import Edge, Graph, Node, graph_of
from penstock.pipelines.exports.layout import Layout, lay_out
from penstock.pipelines.lineage import Lineage
from penstock.pipelines.metadata import ExecutionRecord
from penstock.pipelines.recipes import location, recipe
from penstock.pipelines.served import story_behind
from penstock.schemas.artifacts import Artifact, PropertyValue, PushedModel
from penstock.schemas.errors import MetadataError

MAX_NODES = 2_000
"""Most artifacts and executions that a page shows."""

_WIDTH, _HEIGHT = 196, 48  # of a node
_COLUMN, _ROW = 260, 62
_MARGIN = 24

Facts = Sequence[tuple[str, str]]
"""Names and values, as texts."""


@dataclasses.dataclass(frozen=True)
class _Box:
    """A node where it is drawn."""

    node: Node
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class _Line:
    """An edge where it is drawn."""

    edge: Edge
    path: str


@dataclasses.dataclass(frozen=True)
class _Section:
    """What is recorded of a node.

    Attributes:
        node: The node.
        facts: What is told first.
        groups: What else is told, by headings.
        before: What it was made by, or what it read: keys and nodes.
        after: What read it, or what it made.
    """

    node: Node
    facts: Facts
    groups: Mapping[str, Facts]
    before: Sequence[tuple[str, Node]]
    after: Sequence[tuple[str, Node]]


def text_of(lineage: Lineage) -> str:
    """Return the page of a lineage.

    Args:
        lineage: The lineage.

    Raises:
        MetadataError: If it has more than `MAX_NODES` artifacts and executions.
    """
    count = len(lineage.artifacts) + len(lineage.executions)
    if count > MAX_NODES:
        raise MetadataError(
            f"The lineage has {count:,} artifacts and executions, and a page shows "
            f"{MAX_NODES:,} at most. Export it to .json or .dot, or ask about "
            "something less widely used."
        )
    graph = graph_of(lineage)
    names = {node.name: number for number, node in enumerate(graph.nodes)}
    layout = lay_out(
        len(graph.nodes), [(names[each.start], names[each.end]) for each in graph.edges]
    )
    boxes = [
        _Box(node, _x(column), _y(row))
        for node, column, row in zip(
            graph.nodes, layout.columns, layout.rows, strict=True
        )
    ]
    lines = [
        _Line(edge, _path(route))
        for edge, route in zip(graph.edges, layout.routes, strict=True)
    ]
    start = next(each for each in graph.nodes if each.name == f"a{lineage.start.id}")
    template = pages.template(Path(__file__).with_name("page.html.jinja"))
    return (
        template.render(
            start=start,
            boxes=boxes,
            lines=lines,
            sections=list(_sections(graph)),
            artifacts=len(lineage.artifacts),
            executions=len(lineage.executions),
            tones={each.tone for each in graph.nodes},
            has_cached=any(each.is_cached for each in graph.nodes),
            node_width=_WIDTH,
            node_height=_HEIGHT,
            width=max((box.x for box in boxes), default=0) + _WIDTH + _MARGIN,
            height=_lowest(layout) + _HEIGHT + _MARGIN,
        )
        + "\n"
    )


def _x(column: int) -> int:
    return _MARGIN + column * _COLUMN


def _y(row: float) -> int:
    return _MARGIN + round(row * _ROW)


def _lowest(layout: Layout) -> int:
    passed = [row for route in layout.routes for _, row in route]
    return max((_y(row) for row in (*layout.rows, *passed)), default=0)


def _middle(row: float) -> int:
    return _y(row) + _HEIGHT // 2


def _path(route: Sequence[tuple[int, float]]) -> str:
    """Return the path of an edge, past what lies between the columns that it joins."""
    leads_back = route[-1][0] < route[0][0]
    near, far = (_WIDTH, 0) if leads_back else (0, _WIDTH)
    (column, row), *rest = route
    x, y = _x(column) + far, _middle(row)
    path = f"M{x} {y}"
    for column, row in rest:
        end, level = _x(column) + near, _middle(row)
        bend = (x + end) // 2
        path += f"C{bend} {y} {bend} {level} {end} {level}"
        x, y = _x(column) + far, level
        path += f"H{x}"
    return path.removesuffix(f"H{x}")


def _sections(graph: Graph) -> Iterator[_Section]:
    nodes = {each.name: each for each in graph.nodes}
    before: dict[str, list[tuple[str, Node]]] = {}
    after: dict[str, list[tuple[str, Node]]] = {}
    for edge in graph.edges:
        before.setdefault(edge.end, []).append((edge.key, nodes[edge.start]))
        after.setdefault(edge.start, []).append((edge.key, nodes[edge.end]))
    for node in graph.nodes:
        record = node.record
        facts, groups = (
            _of_artifact(record)
            if isinstance(record, Artifact)
            else _of_execution(record)
        )
        yield _Section(
            node, facts, groups, before.get(node.name, ()), after.get(node.name, ())
        )


def _of_artifact(artifact: Artifact) -> tuple[Facts, Mapping[str, Facts]]:
    facts = [("location", location(artifact)), ("digest", artifact.digest)]
    said = {key: each for key, each in artifact.properties.items() if key != "digest"}
    groups = {"properties": _facts(said)}
    if isinstance(artifact, PushedModel):
        groups["story"] = [
            (_time(each.at), each.text) for each in story_behind(artifact)
        ]
    return [each for each in facts if each[1]], groups


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _of_execution(execution: ExecutionRecord) -> tuple[Facts, Mapping[str, Facts]]:
    made = recipe(execution)
    facts = {
        "state": execution.state.value,
        "reason": execution.reason,
        "pipeline": execution.pipeline,
        "run": execution.run_id,
        "started": _time(execution.started),
        "seconds": "" if execution.seconds is None else f"{execution.seconds:.3f}",
        "code": made.code,
        "type": execution.type,
    }
    measured = {
        key.removeprefix("penstock_"): each
        for key, each in execution.properties.items()
        if key.startswith("penstock_") and not key.startswith((*_TOLD, PREFIX))
    }
    groups = {
        "parameters": _facts(made.parameters),
        "environment": _facts(made.environment),
        "data": _facts(made.data),
        "measured": _facts(measured),
    }
    return [(key, each) for key, each in facts.items() if each], groups


_TOLD = {
    *("penstock_parts", "penstock_pipeline", "penstock_run", "penstock_component"),
    *("penstock_state", "penstock_started", "penstock_seconds", "penstock_class"),
}


def _facts(values: Mapping[str, PropertyValue]) -> Facts:
    return [
        (key, each if isinstance(each, str) else json.dumps(each, sort_keys=True))
        for key, each in sorted(values.items())
    ]
