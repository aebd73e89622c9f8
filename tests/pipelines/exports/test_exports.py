"""Files of lineages: the form by the name, and Graphviz's language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.pipelines import exports
from penstock.pipelines.exports import dot
from penstock.schemas.errors import DataError, PipelineError
from tests.pages import HOSTILE
from tests.pipelines.exports.lineages import lineage_of_text, taxi_lineage

STRING = r'"(?:[^"\\]|\\.)*"'


@pytest.mark.parametrize(
    ("name", "begins"),
    [("x.dot", "digraph"), ("x.html", "<!doctype html>"), ("a.b.json", "[")],
)
def test_the_name_says_the_form(tmp_path: Path, name: str, begins: str) -> None:
    for _ in range(2):  # what is there is replaced
        exports.write(taxi_lineage(), tmp_path / name)
    assert (tmp_path / name).read_text("utf-8").lstrip().startswith(begins)


def test_a_name_of_no_form_gets_a_sentence(tmp_path: Path) -> None:
    for name, ends, near in (
        ("x.htm", ".htm", " Did you mean '.html'?"),
        ("x", "", ""),
        ("x.svg", ".svg", ""),
    ):
        with pytest.raises(PipelineError) as raised:
            exports.write(taxi_lineage(), tmp_path / name)
        assert str(raised.value) == (
            f"'{tmp_path / name}' does not say in which form the lineage is to be "
            f"written: it ends in '{ends}', and not in one of '.dot', '.html', "
            f"'.json'. Name a file that does.{near}"
        )
        assert not (tmp_path / name).exists()


def test_a_place_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        exports.write(taxi_lineage(), tmp_path / "none" / "x.dot")
    assert str(raised.value) == (
        f"The lineage cannot be written to '{tmp_path}/none/x.dot': No such file or "
        "directory. Name a file in a folder that you may write to."
    )


def test_dot_has_every_node_and_edge() -> None:
    text = dot.text_of(taxi_lineage())
    nodes = re.findall(rf"^  ([ae]\d+) \[label=({STRING}), shape=(\w+)", text, re.M)
    assert [name for name, _, _ in nodes] == [
        *(f"a{n}" for n in range(1, 11)),
        *(f"e{n}" for n in range(1, 11)),
    ]
    assert {shape for name, _, shape in nodes if name[0] == "a"} == {"box"}
    assert {shape for name, _, shape in nodes if name[0] == "e"} == {"ellipse"}
    labels = {name: label for name, label, _ in nodes}
    assert labels["a10"] == r'"PushedModel 10\npushed_version 3"'
    assert labels["a3"] == r'"Examples 3\nspan 1"'
    assert labels["e9"] == r'"Report\nfailed, 20250102-030405.678901"'
    edges = re.findall(rf"^  (\w+) -> (\w+) \[label=({STRING})\];$", text, re.M)
    assert ("a6", "e7", '"baseline"') in edges
    assert ("e8", "a10", '"pushed"') in edges
    assert len(edges) == len(set(edges)) == 22
    assert len(re.findall("dashed", text)) == 1  # the cached one


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_in_its_quotes(text: str) -> None:
    lines = dot.text_of(lineage_of_text(text)).splitlines()
    bare = [re.sub(STRING, "_", line) for line in lines]
    assert bare == [
        "digraph lineage {",
        "  rankdir=LR;",
        "  node [fontname=_, fontsize=11, style=_];",
        "  edge [fontname=_, fontsize=9, color=_];",
        "  a1 [label=_, shape=box, fillcolor=_];",
        "  e1 [label=_, shape=ellipse, fillcolor=_];",
        "  a1 -> e1 [label=_];",
        "}",
    ]
