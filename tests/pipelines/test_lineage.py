"""Lineage equals a walk over the graph that built the store."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_metadata.proto import metadata_store_pb2 as pb

from penstock.components.serving.version_dir import push
from penstock.pipelines import lineage
from penstock.pipelines.metadata import State, Store
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import (
    Artifact,
    Examples,
    ExternalArtifact,
    Model,
    ModelBlessing,
    PushedModel,
)
from penstock.schemas.errors import MetadataError
from tests.pipelines.toys import Make, toy

KINDS: list[type[Artifact]] = [Examples, Model, PushedModel, ModelBlessing]
KEYS = ["examples", "model", "baseline", "baseline_model"]


@dataclasses.dataclass(frozen=True)
class Step:
    """An execution of a random graph.

    Attributes:
        reads: Artifacts before it, by place (modulo their number), and keys.
        writes: What it writes, by place in `KINDS`.
        cached: The earlier execution whose outputs it stands for (likewise), if any.
    """

    reads: list[tuple[int, int]]
    writes: list[int]
    cached: int | None


STEPS = st.lists(
    st.builds(
        Step,
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=4),
        st.lists(st.integers(0, 3), max_size=2),
        st.none() | st.integers(0, 10),
    ),
    min_size=1,
    max_size=9,
)


class Graph:
    """A graph in a store, and a plain copy of it beside that."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.artifacts: list[Artifact] = []
        self.executions: list[tuple[list[tuple[int, str]], list[int], bool]] = []

    def add(self, step: Step) -> None:
        """Execute a step, in the store and in the copy."""
        places = {place % len(self.artifacts): key for place, key in step.reads}
        reads = [(place, KEYS[key]) for place, key in places.items()]
        done = [each for each in self.executions if not each[2] and each[1]]
        if step.cached is not None and done:
            _, hits, _ = done[step.cached % len(done)]
            self._cached(reads, hits)
            self.executions.append((reads, hits, True))
            return
        before = len(self.artifacts)
        self._complete(reads, [KINDS[each] for each in step.writes])
        new = list(range(before, len(self.artifacts)))
        self.executions.append((reads, new, False))

    def _inputs(self, reads: list[tuple[int, str]]) -> dict[str, list[Artifact]]:
        found: dict[str, list[Artifact]] = {}
        for place, key in reads:
            found.setdefault(key, []).append(self.artifacts[place])
        return found

    def _complete(
        self, reads: list[tuple[int, str]], kinds: list[type[Artifact]]
    ) -> None:
        number = self.store.begin_execution(
            Make(), pipeline="p", run_id="r", inputs=self._inputs(reads)
        )
        outputs = {f"o{i}": kind(f"/x/{number}") for i, kind in enumerate(kinds)}
        self.store.complete_execution(
            number,
            outputs,
            pipeline="p",
            run_id="r",
            component=f"Make{number}",
            properties={},
        )
        self.artifacts.extend(outputs.values())

    def _cached(self, reads: list[tuple[int, str]], hits: list[int]) -> None:
        self.store.begin_execution(
            Make(),
            pipeline="p",
            run_id="r",
            inputs=self._inputs(reads),
            state=State.CACHED,
            outputs={f"o{i}": self.artifacts[each] for i, each in enumerate(hits)},
        )

    def above(self, start: int) -> set[int]:
        """Walk up the copy: through what first wrote an artifact."""
        found = {start}
        front = [start]
        while front:
            at = front.pop()
            for reads, writes, is_cached in self.executions:
                if at in writes and not is_cached:
                    new = {place for place, _ in reads} - found
                    found |= new
                    front += new
        return found

    def below(self, start: int) -> set[int]:
        """Walk down the copy: not through verdicts or to what is only compared."""
        found = {start}
        front = [start]
        while front:
            at = front.pop()
            if at != start and isinstance(self.artifacts[at], ModelBlessing):
                continue
            for reads, writes, _ in self.executions:
                if any(
                    place == at and not key.startswith("baseline")
                    for place, key in reads
                ):
                    new = set(writes) - found
                    found |= new
                    front += new
        return found

    def ids(self, places: set[int]) -> set[int | None]:
        """Return the numbers of artifacts."""
        return {self.artifacts[each].id for each in places}


class ForeignGraph(Graph):
    """The same as TFX writes it: without our properties, and with several events."""

    def _complete(
        self, reads: list[tuple[int, str]], kinds: list[type[Artifact]]
    ) -> None:
        outputs = [
            pb.Artifact(type_id=self.store._artifact_type(kind), uri="/x")
            for kind in kinds
        ]
        for id in self._put(reads, outputs, pb.Execution.COMPLETE)[len(reads) :]:
            self.artifacts.append(self.store.artifact(id))

    def _cached(self, reads: list[tuple[int, str]], hits: list[int]) -> None:
        self._put(reads, [self._stored(each) for each in hits], pb.Execution.CACHED)

    def _stored(self, place: int) -> pb.Artifact:
        id = self.artifacts[place].id
        return self.store._mlmd.get_artifacts_by_id([id])[0]

    def _put(
        self, reads: list[tuple[int, str]], outputs: list[pb.Artifact], state: int
    ) -> list[int]:
        events = []
        for kind, keys in (
            (pb.Event.INPUT, [key for _, key in reads]),
            (pb.Event.OUTPUT, [f"o{i}" for i in range(len(outputs))]),
        ):
            for key in keys:
                event = pb.Event(type=kind)
                event.path.steps.add().key = key
                event.path.steps.add().index = 0
                events.append(event)
        stored = [*(self._stored(place) for place, _ in reads), *outputs]
        type_id = self.store._execution_type("tfx.components.X")
        execution = pb.Execution(type_id=type_id, last_known_state=state)
        pairs = list(zip(stored, events, strict=True))
        _, ids, _ = self.store._mlmd.put_execution(execution, pairs, [])
        return list(ids)


@pytest.mark.parametrize("kind", [Graph, ForeignGraph])
@settings(max_examples=40)
@given(steps=STEPS)
def test_lineage_equals_a_walk_over_the_graph(
    store: Store, kind: type[Graph], steps: list[Step]
) -> None:
    graph = kind(store)
    graph._complete([], [Examples])
    graph.executions.append(([], [0], False))
    for step in steps:
        graph.add(step)
    for place, artifact in enumerate(graph.artifacts):
        up = lineage.upstream(store, artifact)
        assert set(up.artifacts) == graph.ids(graph.above(place))
        assert up.start is artifact
        below = graph.below(place)
        down = lineage.downstream(store, artifact)
        assert set(down.artifacts) == graph.ids(below)
        pushed = {each for each in below if type(graph.artifacts[each]) is PushedModel}
        models = {each for each in below if type(graph.artifacts[each]) is Model}
        reached = lineage.reached(store, artifact)
        assert {each.id for each in reached} == graph.ids(pushed)
        found = lineage.impact(store, artifact)
        assert found.sources == (artifact,)
        assert {each.id for each in found.models} == graph.ids(models)
        assert {each.id for each in found.pushed} == graph.ids(pushed)
    both = lineage.impact(store, graph.artifacts[0], graph.artifacts[-1])
    last = graph.below(len(graph.artifacts) - 1)
    assert {each.id for each in both.models} == graph.ids(
        {each for each in graph.below(0) | last if type(graph.artifacts[each]) is Model}
    )


def drawn(store: Store, *steps: tuple[list[tuple[int, str]], list[type]]) -> Graph:
    """Return a graph of executions that are given by what they read and write."""
    graph = Graph(store)
    for reads, writes in steps:
        before = len(graph.artifacts)
        graph._complete(reads, writes)
        new = list(range(before, len(graph.artifacts)))
        graph.executions.append((reads, new, False))
    return graph


def test_a_diamond_is_counted_once(store: Store) -> None:
    # 0 makes 1 and 2, which both make 3.
    graph = drawn(
        store,
        ([], [Examples]),
        ([(0, "a")], [Examples]),
        ([(0, "a")], [Examples]),
        ([(1, "a"), (2, "b")], [PushedModel]),
    )
    up = lineage.upstream(store, graph.artifacts[3])
    assert set(up.artifacts) == {each.id for each in graph.artifacts}
    assert len(up.executions) == 4
    down = lineage.downstream(store, graph.artifacts[0])
    assert set(down.artifacts) == {each.id for each in graph.artifacts}
    assert len(down.executions) == 3
    assert [each.id for each in up.of(PushedModel)] == [graph.artifacts[3].id]
    assert lineage.beginnings(down) == (graph.artifacts[0],)
    assert lineage.beginnings(up) == ()


def test_a_withdrawn_span_is_not_in_what_was_only_compared_with_it(
    store: Store,
) -> None:
    """Of two days: the second model is compared with the first, and pushed too."""
    graph = drawn(
        store,
        ([], [Examples]),  # 0
        ([(0, "examples")], [Model]),  # 1
        ([(1, "model"), (0, "examples")], [ModelBlessing]),  # 2
        ([(1, "model"), (2, "blessing")], [PushedModel]),  # 3
        ([], [Examples]),  # 4
        ([(4, "examples")], [Model]),  # 5
        ([(5, "model"), (1, "baseline"), (4, "examples")], [ModelBlessing]),  # 6
        ([(5, "model"), (6, "blessing")], [PushedModel]),  # 7
    )
    ids = [each.id for each in graph.artifacts]
    found = lineage.impact(store, graph.artifacts[0])
    assert [each.id for each in found.models] == [ids[1]]
    assert [each.id for each in found.pushed] == [ids[3]]
    assert set(lineage.downstream(store, graph.artifacts[0]).artifacts) == set(ids[:4])
    # What let the second be pushed is asked about for its own sake.
    down = lineage.downstream(store, graph.artifacts[6])
    assert set(down.artifacts) == {ids[6], ids[7]}
    # All of it made the second version.
    up = lineage.upstream(store, graph.artifacts[7])
    assert set(up.artifacts) == {ids[each] for each in (0, 1, 4, 5, 6, 7)}


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
        toy(rows=5, serving_dir=tmp_path / "other"),
        tmp_path,
        store=store_url,
        runner=LocalRunner(),
    )
    # All but the push is taken from the first run, and its lineage stays what it was.
    again = run(
        toy(serving_dir=tmp_path / "third"),
        tmp_path,
        store=store_url,
        runner=LocalRunner(),
    )
    assert again["Fit"].state is State.CACHED
    store = Store(store_url, create=False)
    made = lineage.made(store, serving, 1)
    assert {each.component for each in made.executions.values()} == {
        *("Make", "Check", "Fit", "Bless", "Push")
    }
    assert {each.run_id for each in made.executions.values()} == {first.run_id}
    (examples,) = made.of(Examples)
    pushes = lineage.reached(store, examples)
    assert [each.properties["pushed_destination"] for each in pushes] == [
        *(str(serving / "1"), str(tmp_path / "third" / "1"))
    ]
    assert lineage.sources(made) == made.of(ExternalArtifact) == ()


def test_a_served_version_says_itself_which_run_pushed_it(
    store_url: str, tmp_path: Path
) -> None:
    """Of two pushes to one place, after somebody emptied the directory."""
    serving = tmp_path / "serving"
    first, second = (
        run(
            toy(rows=rows, serving_dir=serving),
            tmp_path,
            store=store_url,
            runner=LocalRunner(),
        )
        for rows in (3, 5)
    )
    store = Store(store_url, create=False)
    ids = [each["Push"].outputs["pushed"].id for each in (first, second)]
    assert lineage.pushed(store, serving, 1).id == ids[1]
    model = first["Fit"].outputs["model"].path / "Format-Serving"
    for run_id, expected in (
        *((first.run_id, ids[0]), (second.run_id, ids[1])),
        *((None, ids[1]), ("of another store", ids[1])),
    ):
        shutil.rmtree(serving, ignore_errors=True)
        push(serving, model, run_id=run_id)
        assert lineage.pushed(store, serving, 1).id == expected


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
    with pytest.raises(MetadataError, match=r"\(it knows no pushes\)"):
        lineage.made(empty, tmp_path / "serving", 1)
