"""A lineage as a graph to draw: nodes with texts, and edges from what was read on."""

from __future__ import annotations

import dataclasses
from typing import Literal

from penstock.pipelines.lineage import Lineage
from penstock.pipelines.metadata import ExecutionRecord
from penstock.schemas.artifacts import (
    Answer,
    Artifact,
    Examples,
    ExternalArtifact,
    Model,
    PushedModel,
    Verdict,
)

Tone = Literal["data", "model", "version", "yes", "no", "other", "done", "failed"]
"""What sort of thing a node is: what colors say, beside the texts."""

_TOLD = ("span", "pushed_version", "verdict", "blessed")


@dataclasses.dataclass(frozen=True)
class Node:
    """An artifact or an execution.

    Attributes:
        name: Unique in the graph, a letter and the number: `a12`, `e7`.
        title: What it is called.
        line: What else is said of it where it is drawn.
        tone: What sort of thing it is.
        is_cached: Whether it is an execution that stands for an earlier one.
        record: What the store says of it.
    """

    name: str
    title: str
    line: str
    tone: Tone
    is_cached: bool
    record: Artifact | ExecutionRecord


@dataclasses.dataclass(frozen=True)
class Edge:
    """That an execution read an artifact, or wrote it.

    Attributes:
        start: Name of the node that it comes from.
        end: Name of the node that it leads to.
        key: The input or output.
    """

    start: str
    end: str
    key: str


@dataclasses.dataclass(frozen=True)
class Graph:
    """A lineage as nodes and edges, both in the order they were recorded."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph_of(lineage: Lineage) -> Graph:
    """Return the graph of a lineage: what it reached, and nothing beside that.

    Args:
        lineage: The lineage.
    """
    artifacts = dict(sorted(lineage.artifacts.items()))
    executions = dict(sorted(lineage.executions.items()))
    edges: dict[Edge, None] = {}
    for id, execution in executions.items():
        for key, made in execution.inputs.items():
            for each in made:
                if each.id in artifacts:
                    edges[Edge(f"a{each.id}", f"e{id}", key)] = None
        for key, made in execution.outputs.items():
            for each in made:
                if each.id in artifacts:
                    edges[Edge(f"e{id}", f"a{each.id}", key)] = None
    return Graph(
        (
            *(_artifact(id, each) for id, each in artifacts.items()),
            *(_execution(id, each) for id, each in executions.items()),
        ),
        tuple(edges),
    )


def _artifact(id: int, artifact: Artifact) -> Node:
    told = [
        f"{key} {artifact.properties[key]}"
        for key in _TOLD
        if isinstance(artifact.properties.get(key), int | float | str)
    ]
    line = ", ".join(told[:1]) or artifact.digest.removeprefix("sha256:")[:12]
    title = f"{artifact.TYPE_NAME} {id}"
    return Node(f"a{id}", title, line, _tone(artifact), False, artifact)


def _tone(artifact: Artifact) -> Tone:
    if isinstance(artifact, Verdict):
        return "yes" if artifact.answer is Answer.YES else "no"
    if isinstance(artifact, PushedModel):
        return "version"
    if isinstance(artifact, Model):
        return "model"
    return "data" if isinstance(artifact, Examples | ExternalArtifact) else "other"


def _execution(id: int, execution: ExecutionRecord) -> Node:
    state = execution.state.value
    has_failed = state in ("failed", "abandoned", "canceled")
    is_done = state in ("complete", "cached")
    line = [state] if not (is_done and execution.run_id) else []
    return Node(
        f"e{id}",
        execution.component or execution.type.rpartition(".")[2],
        ", ".join(filter(None, [*line, execution.run_id])),
        "failed" if has_failed else "done",
        state == "cached",
        execution,
    )
