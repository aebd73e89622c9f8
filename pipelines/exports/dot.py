"""A lineage in Graphviz's language."""

from __future__ import annotations

from penstock.components.evaluation.drawing import shown
from penstock.pipelines.exports.graph import Node, graph_of
from penstock.pipelines.lineage import Lineage

_COLORS = {
    "data": "#dbe9fb",
    "model": "#e9e0fa",
    "version": "#fdf1cd",
    "yes": "#dcf5e3",
    "no": "#fde8ea",
    "other": "#e9edf1",
    "done": "#ffffff",
    "failed": "#fde8ea",
}


def text_of(lineage: Lineage) -> str:
    """Return a directed graph: boxes are artifacts, ellipses are executions.

    Args:
        lineage: The lineage.
    """
    graph = graph_of(lineage)
    return "\n".join(
        [
            "digraph lineage {",
            "  rankdir=LR;",
            '  node [fontname="Helvetica", fontsize=11, style="filled"];',
            '  edge [fontname="Helvetica", fontsize=9, color="#566069"];',
            *(f"  {_node(each)}" for each in graph.nodes),
            *(
                f"  {each.start} -> {each.end} [label={_quoted(each.key)}];"
                for each in graph.edges
            ),
            "}",
            "",
        ]
    )


def _node(node: Node) -> str:
    shape = "box" if node.name.startswith("a") else "ellipse"
    style = ', style="filled,dashed"' if node.is_cached else ""
    label = _quoted(*(each for each in (node.title, node.line) if each))
    color = _COLORS[node.tone]
    return f'{node.name} [label={label}, shape={shape}, fillcolor="{color}"{style}];'


def _quoted(*lines: str) -> str:
    texts = (shown(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(texts) + '"'
