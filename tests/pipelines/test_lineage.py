"""Lineage equals a walk over the graph that built the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pipelines import lineage
from penstock.pipelines.metadata import Store
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import (
    Artifact,
    Examples,
    ExternalArtifact,
    Model,
    PushedModel,
)
from penstock.schemas.errors import MetadataError
from tests.pipelines.toys import Make, toy

# Each execution reads some of the artifacts before it and writes some of its own.
GRAPHS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 30), max_size=4), st.integers(0, 2), st.booleans()
    ),
    min_size=1,
    max_size=8,
)


def built(
    store: Store, graph: list[tuple[list[int], int, bool]]
) -> tuple[list[Artifact], list[tuple[set[int], set[int]]]]:
    """Write a graph into the store; return its artifacts, and edges by their places."""
    artifacts: list[Artifact] = [Examples("/outside", digest="outside")]
    edges: list[tuple[set[int], set[int]]] = []
    for reads, writes, pushes in graph:
        inputs = {number % len(artifacts) for number in reads}
        execution = store.begin_execution(
            Make(),
            pipeline="p",
            run_id="r",
            inputs={"examples": [artifacts[each] for each in sorted(inputs)]},
        )
        kind = PushedModel if pushes else Examples
        outputs = {f"o{number}": kind(f"/x/{execution}") for number in range(writes)}
        store.complete_execution(
            execution,
            outputs,
            pipeline="p",
            run_id="r",
            component=f"Make{execution}",
            properties={},
        )
        places = set(range(len(artifacts), len(artifacts) + writes))
        artifacts.extend(outputs.values())
        edges.append((inputs, places))
    return artifacts, edges


def walked(start: int, edges: list[tuple[set[int], set[int]]], *, up: bool) -> set[int]:
    found = {start}
    while True:
        more = {
            each
            for reads, writes in edges
            for near, far in [(writes, reads) if up else (reads, writes)]
            if near & found
            for each in far
        }
        if more <= found:
            return found
        found |= more


@settings(max_examples=25, deadline=None)
@given(GRAPHS)
def test_lineage_equals_a_walk_over_the_graph(
    store: Store, graph: list[tuple[list[int], int, bool]]
) -> None:
    artifacts, edges = built(store, graph)
    if not any(0 in reads for reads, _ in edges):
        artifacts, edges = (
            artifacts[1:],
            [
                ({each - 1 for each in reads}, {each - 1 for each in writes})
                for reads, writes in edges
            ],
        )
    for place, artifact in enumerate(artifacts):
        if place == 0 and artifact.digest == "outside":
            continue  # shared by all graphs: its descendants are everybody's
        for up, walk in ((True, lineage.upstream), (False, lineage.downstream)):
            expected = {artifacts[each].id for each in walked(place, edges, up=up)}
            found = walk(store, artifact)
            assert set(found.artifacts) == expected
            assert found.start is artifact
        below = walked(place, edges, up=False)
        assert {each.id for each in lineage.reached(store, artifact)} == {
            artifacts[each].id
            for each in below
            if isinstance(artifacts[each], PushedModel)
        }


def test_a_diamond_is_counted_once(store: Store) -> None:
    # 1 makes 2 and 3, which both make 4.
    artifacts, _ = built(
        store, [([], 1, False), ([1], 1, False), ([1], 1, False), ([2, 3], 1, True)]
    )
    up = lineage.upstream(store, artifacts[4])
    assert set(up.artifacts) == {each.id for each in artifacts[1:]}
    assert len(up.executions) == 4
    down = lineage.downstream(store, artifacts[1])
    assert set(down.artifacts) == {each.id for each in artifacts[1:]}
    assert len(down.executions) == 3
    assert [each.id for each in up.of(PushedModel)] == [artifacts[4].id]


def test_an_artifact_without_a_number_is_not_in_the_store(store: Store) -> None:
    with pytest.raises(MetadataError) as raised:
        lineage.upstream(store, Examples("/x"))
    assert str(raised.value) == (
        "Examples('/x') is not in the lineage store: it has no number. Take artifacts "
        "from the store or from a RunResult."
    )


def test_what_made_a_served_version(store_url: str, tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    first = run(
        toy(serving_dir=serving), tmp_path, store=store_url, runner=LocalRunner()
    )
    run(
        toy(serving_dir=tmp_path / "other"),
        tmp_path,
        store=store_url,
        runner=LocalRunner(),
    )
    store = Store(store_url, create=False)
    made = lineage.made(store, serving, 1)
    assert {each.component for each in made.executions.values()} == {
        *("Make", "Check", "Fit", "Bless", "Push")
    }
    assert {each.run_id for each in made.executions.values()} == {first.run_id}
    (examples,) = made.of(Examples)
    (push,) = lineage.reached(store, examples)
    assert push.properties["pushed_destination"] == str(serving / "1")
    assert lineage.sources(made) == made.of(ExternalArtifact) == ()


def test_the_model_behind_a_pushed_one(store_url: str, tmp_path: Path) -> None:
    result = run(toy(), tmp_path, store=store_url, runner=LocalRunner())
    store = Store(store_url, create=False)
    made = {name: each.outputs for name, each in result.executions.items()}
    model = made["Fit"]["model"]
    assert isinstance(model, Model)
    assert lineage.model_behind(store, model) is model
    assert lineage.model_behind(store, made["Push"]["pushed"]).id == model.id
    examples = made["Make"]["examples"]
    with pytest.raises(MetadataError) as raised:
        lineage.model_behind(store, examples)
    assert str(raised.value) == (
        f"Artifact {examples.id} is of type Examples, no model. Pass the number or the "
        "location of a Model ('penstock artifacts --type Model' lists them), or a "
        "served version as SERVING_DIR/NUMBER."
    )


def test_a_version_that_was_never_pushed_gets_a_sentence(
    store_url: str, tmp_path: Path
) -> None:
    run(
        toy(serving_dir=tmp_path / "serving"),
        tmp_path,
        store=store_url,
        runner=LocalRunner(),
    )
    store = Store(store_url, create=False)
    with pytest.raises(MetadataError) as raised:
        lineage.made(store, tmp_path / "serving", 2)
    assert str(raised.value) == (
        f"Version 2 of '{tmp_path}/serving' was not pushed by a run of this lineage "
        f"store (it knows pushes to {tmp_path}/serving/1). Check --root or --store."
    )
    empty = Store(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    with pytest.raises(MetadataError, match=r"\(it knows pushes to nowhere\)"):
        lineage.made(empty, tmp_path / "serving", 1)
