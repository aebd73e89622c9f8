"""The history as objects: what is found, what is read for it, what is not there."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from benchmarks.lineage import History
from benchmarks.lineage import main as benchmark
from penstock.components.base import Component, RunContext, output
from penstock.pipelines import lineage
from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import (
    Artifact,
    ExampleAnomalies,
    Examples,
    Model,
    ModelBlessing,
    PushedModel,
)
from penstock.schemas.errors import ComponentFailed, MetadataError, UnknownName
from tests.pipelines.servers import KINDS
from tests.pipelines.toys import Fit, Make, toy


class Ledger(Artifact):
    """A type of a user's own."""

    TYPE_NAME = "Ledger"


class Write(Component):
    """Write a ledger of Examples."""

    examples: Examples
    ledger: Ledger = output()

    def run(self, context: RunContext) -> None:
        (self.ledger.path / "ledger.txt").write_text("x")


@pytest.fixture(scope="module", params=KINDS)
def url(
    request: pytest.FixtureRequest,
    new_store: Callable[[str, Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    return new_store(request.param, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def results(url: str, tmp_path_factory: pytest.TempPathFactory) -> list[RunResult]:
    root = tmp_path_factory.mktemp("root")

    def ran(pipeline: Pipeline) -> RunResult:
        return run(pipeline, root, store=url, runner=LocalRunner())

    make = Make(rows=9)
    other = Pipeline("other", [make, Write(examples=make.examples)])
    made = [*(ran(toy(rows=rows)) for rows in (1, 2, 3)), ran(other)]
    with pytest.raises(ComponentFailed) as failed:
        ran(toy(rows=4, fail=True))
    assert failed.value.result is not None
    return [*made, failed.value.result]


@pytest.fixture
def store(url: str, results: list[RunResult]) -> Store:
    return Store(url, create=False)


# What is found -------------------------------------------------------------------


def test_the_examples_of_the_newest_model(
    store: Store, results: list[RunResult]
) -> None:
    newest = store.pipelines["toy"].runs[-2]["Fit"].model
    (examples,) = newest.upstream(Examples)
    assert type(newest) is Model and type(examples) is Examples
    assert examples.id == results[2]["Make"].outputs["examples"].id
    (pushed,) = examples.downstream(PushedModel)
    assert pushed.properties["pushed"] == 1
    assert newest.upstream(Model) == newest.downstream(Model) == ()
    assert len(newest.upstream(ExampleAnomalies)) == 1
    assert [type(each) for each in newest.upstream(Artifact)] == [
        *(Examples, ExampleAnomalies)
    ]


def test_a_type_of_a_users_own_is_found_by_its_class(store: Store) -> None:
    run = store.pipelines["other"].runs[-1]
    (ledger,) = run["Make"].examples.downstream(Ledger)
    assert type(ledger) is Ledger
    assert ledger.uri == run["Write"].ledger.uri


def test_pipelines_are_a_mapping_in_order(store: Store) -> None:
    assert list(store.pipelines) == ["toy", "other"]
    assert len(store.pipelines) == 2
    assert "toy" in store.pipelines and "tou" not in store.pipelines
    assert store.pipelines.get("tou") is None
    assert repr(store.pipelines) == "Pipelines(toy, other)"
    assert repr(store.pipelines["toy"]) == "PipelineRecord('toy')"


def test_runs_are_a_sequence_with_the_newest_last(
    store: Store, results: list[RunResult]
) -> None:
    runs = store.pipelines["toy"].runs
    ids = [each.run_id for each in results if each.pipeline == "toy"]
    assert len(runs) == 4
    assert [each.id for each in runs] == ids
    assert [each.id for each in reversed(runs)] == ids[::-1]
    for place in range(-4, 4):
        assert runs[place].id == ids[place]
    for part in (
        *(slice(None), slice(-2, None), slice(-9, None), slice(1, 3)),
        *(slice(None, None, -1), slice(-3, None, 2), slice(-3, None, -1)),
        *(slice(-3, -1), slice(5, 7)),
    ):
        assert [each.id for each in runs[part]] == ids[part], part
    assert runs[-1].state is RunState.FAILED
    assert runs[-1].record.reason == results[-1].reason
    assert repr(runs) == "Runs('toy')"
    assert repr(runs[0]) == f"Run('{ids[0]}')"


def test_a_run_is_a_mapping_of_executions(store: Store) -> None:
    run = store.pipelines["toy"].runs[0]
    assert set(run) == {"Make", "Check", "Fit", "Bless", "Push"}
    assert len(run) == 5 and "Fit" in run and "Fitt" not in run
    assert run["Fit"].state is State.COMPLETE
    assert run["Fit"]["model"].id == run["Fit"].model.id
    assert run["Fit"].inputs["examples"][0].id == run["Make"].examples.id
    assert not hasattr(run["Fit"], "modle")
    again = pickle.loads(pickle.dumps(run["Fit"]))
    assert again.model.uri == run["Fit"].model.uri


# What is not there ---------------------------------------------------------------


def test_a_wrong_name_gets_a_sentence_with_the_near_one(store: Store) -> None:
    run = store.pipelines["toy"].runs[0]
    for ask, sentence in (
        (
            lambda: store.pipelines["tou"],
            "Pipeline 'tou' is not in the lineage store (it has 'other', 'toy'). Did "
            "you mean 'toy'?",
        ),
        (
            lambda: run["Pusher"],
            f"Run '{run.id}' has no component 'Pusher' (it has 'Bless', 'Check', "
            "'Fit', 'Make', 'Push'). Did you mean 'Push'?",
        ),
        (
            lambda: run["Fit"].modle,
            "'Fit' has no output 'modle' (it is complete and wrote 'model'). Did you "
            "mean 'model'?",
        ),
        (
            lambda: store.pipelines["toy"].runs[-1]["Fail"].model,
            "'Fail' has no output 'model' (it is failed and wrote none).",
        ),
    ):
        with pytest.raises(UnknownName) as raised:
            ask()
        assert str(raised.value) == sentence


@pytest.mark.parametrize("place", [-5, 4])
def test_a_run_beyond_the_first_or_the_last_gets_a_sentence(
    store: Store, place: int
) -> None:
    with pytest.raises(IndexError) as raised:
        store.pipelines["toy"].runs[place]
    assert str(raised.value) == (
        f"Pipeline 'toy' has 4 runs, so that there is no run {place}. The newest is "
        "run -1."
    )


def test_several_artifacts_under_a_key_get_a_sentence(store_url: str) -> None:
    store = Store(store_url)
    store.begin_run("p", "r", {})
    two = [Examples("/1", digest="1"), Examples("/2", digest="2")]
    inputs = {"examples": two}
    store.begin_execution(Make(), pipeline="p", run_id="r", inputs=inputs)
    (record,) = store.executions("r")
    record = type(record)(**{**vars(record), "outputs": record.inputs})
    with pytest.raises(MetadataError) as raised:
        _ = record.examples
    assert str(raised.value) == (
        "'Make' wrote 2 artifacts under 'examples'. Take them from "
        ".outputs['examples']."
    )


def test_an_artifact_that_no_store_gave_gets_a_sentence(store: Store) -> None:
    given = store.pipelines["toy"].runs[0]["Fit"].model
    for artifact in (Model("/x"), copy.deepcopy(given)):
        with pytest.raises(MetadataError) as raised:
            artifact.upstream(Examples)
        assert str(raised.value) == (
            f"Model('{artifact.uri}') was not read from a lineage store, so that "
            "nothing is known of what came before and after it. Take it from there, "
            "as with store.artifact(number)."
        )
        with pytest.raises(MetadataError, match="was not read from a lineage store"):
            artifact.downstream(PushedModel)


# What is read for it -------------------------------------------------------------


class Counting:
    """ML Metadata's client, with how often it was called and how much it gave."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: Counter[str] = Counter()
        self.given = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            found = call(*args, **kwargs)
            self.given += len(found) if isinstance(found, list) else 1
            return found

        return counted


@pytest.fixture(scope="module")
def histories(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[History, Store]]]:
    """A short history, and one that is four times as long."""
    folder = tmp_path_factory.mktemp("histories")
    made = []
    for runs in (60, 240):
        path = folder / f"{runs}.sqlite"
        made.append((History(path, runs), Store(f"sqlite:///{path}", create=False)))
    yield made


def of_newest_run(history: History, store: Store) -> object:
    return store.pipelines["taxi"].runs[-1]["Trainer"].model.upstream(Examples)


def of_last_runs(history: History, store: Store) -> object:
    return [each.id for each in store.pipelines["taxi"].runs[-3:]]


def impact(history: History, store: Store) -> object:
    span = history.files[len(history.files) // 2]
    return lineage.impact(store, store.artifact(span)).models


def impact_of_span(history: History, store: Store) -> object:
    return lineage.impact(store, *lineage.of_span(store, "taxi", 20)).models


def origin(history: History, store: Store) -> object:
    return lineage.made(store, "/serving/taxi", len(history.pushed) - 3).artifacts


def newest_blessing(history: History, store: Store) -> object:
    return next(store.newest_artifacts(ModelBlessing))


@pytest.mark.parametrize(
    "ask",
    [of_newest_run, of_last_runs, impact, impact_of_span, origin, newest_blessing],
)
def test_a_longer_history_costs_no_more(
    histories: list[tuple[History, Store]],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[History, Store], Any],
) -> None:
    given = []
    for history, store in histories:
        ask(history, store)  # types are learned once
        counting = Counting(store._mlmd)
        monkeypatch.setattr(store, "_mlmd", counting)
        assert ask(history, store)
        # Nothing is asked for each execution or artifact on its own.
        assert counting.calls["get_contexts_by_execution"] == 0
        assert sum(counting.calls.values()) < 40, counting.calls
        given.append(counting.given)
    # How many runs did a day again is chance.
    assert given[1] < 1.5 * given[0] + 60, given
    assert given[1] < 800, given


def test_the_histories_that_questions_are_measured_on_are_as_told(
    histories: list[tuple[History, Store]],
) -> None:
    history, store = histories[1]
    assert 0.15 < history.cached_share < 0.25
    executions = [each for run in store.pipelines["taxi"].runs for each in run.values()]
    assert len(executions) == 240 * 8
    cached = [each for each in executions if each.state is State.CACHED]
    assert len(cached) / len(executions) == history.cached_share
    for each in executions:
        for made in (one for group in each.outputs.values() for one in group):
            first = made.properties["penstock_execution"]
            assert (first == each.id) == (each.state is State.COMPLETE)
    model = store.artifact(history.models[100])
    assert len(model.upstream(Examples)) == 7
    (schema,) = store.artifacts("Schema")
    assert len(store.readers([schema])) > 240
    found = lineage.impact(store, store.artifact(history.spans[100]))
    assert 7 <= len(found.models) <= 8
    for number in history.pushed[::50]:
        assert type(store.artifact(number)) is PushedModel


def test_the_benchmark_says_the_worst_of_all_questions() -> None:
    said = benchmark(["--runs", "10", "20", "40", "--questions", "3"])
    longest, before = said["questions"]["40"], said["questions"]["20"]
    assert set(longest) == {
        *("impact_of_examples", "impact_of_file", "impact_of_span", "newest_run"),
        *("origin_of_pushed", "origin_of_served", "latest_blessed"),
    }
    assert said["p95_ms"] == max(each["p95_ms"] for each in longest.values())
    growth = {
        name: longest[name]["p95_ms"] / before[name]["p95_ms"] for name in longest
    }
    assert said["growth"] == round(max(growth.values()), 2)
    assert all(0 < each["artifacts"] <= 100 for each in longest.values())
    assert said["runs"] == [10, 20, 40]


def test_what_lies_before_the_newest_is_found_too(
    histories: list[tuple[History, Store]],
) -> None:
    """Beyond the blocks of the newest, all of a kind is read, once."""
    _, store = histories[1]
    pushed = [each.id for each in store.newest_artifacts(PushedModel)]
    assert pushed == [each.id for each in reversed(store.artifacts(PushedModel))]
    assert len(store.artifacts()) > 1_000
    runs = [each.id for each in store.newest_runs()]
    assert runs == [each.id for each in reversed(store.runs())]
    assert len(runs) == 240


def test_spans_are_found_with_and_without_their_contexts(
    histories: list[tuple[History, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    history, store = histories[0]
    spans = {
        span: [each.id for each in lineage.of_span(store, "taxi", span)]
        for span in range(len(history.files))
    }
    assert sorted(id for ids in spans.values() for id in ids if id) == history.spans
    # As if TFX had written the pipeline.
    monkeypatch.setattr("penstock.pipelines.metadata.recent.SPANS", "nothing")
    for span, ids in spans.items():
        assert [each.id for each in lineage.of_span(store, "taxi", span)] == ids


def test_a_span_is_found_in_every_pipeline_that_has_it(
    store_url: str, tmp_path: Path
) -> None:
    first = Pipeline("first", [Make()])
    run(first, tmp_path, store=store_url, runner=LocalRunner())
    make = Make()
    second = Pipeline("second", [make, Fit(examples=make.examples)])
    assert (
        run(second, tmp_path, store=store_url, runner=LocalRunner())["Make"].state
        is State.CACHED
    )
    store = Store(store_url, create=False)
    (examples,) = store.artifacts(Examples)
    for pipeline in ("first", "second"):
        (found,) = lineage.of_span(store, pipeline, 7)
        assert found.id == examples.id


def test_a_span_whose_files_are_deleted_is_found_all_the_same(
    store_url: str, tmp_path: Path
) -> None:
    run(toy(), tmp_path, store=store_url, runner=LocalRunner())
    store = Store(store_url, create=False)
    (examples,) = store.artifacts(Examples)
    (proto,) = store._mlmd.get_artifacts_by_id([examples.id])
    proto.state = pb.Artifact.DELETED
    store._mlmd.put_artifacts([proto])
    (found,) = lineage.of_span(store, "toy", 7)
    assert found.id == examples.id
    assert len(lineage.impact(store, found).models) == 1


def test_a_span_that_was_never_read_gets_a_sentence(
    store_url: str, tmp_path: Path
) -> None:
    run(toy(), tmp_path, store=store_url, runner=LocalRunner())
    store = Store(store_url, create=False)
    with pytest.raises(MetadataError) as raised:
        lineage.of_span(store, "toy", 8)
    assert str(raised.value) == (
        "Span 8 of pipeline 'toy' is not in the lineage store (its spans are from 7 to "
        "7). 'penstock artifacts --type Examples' lists them."
    )
    with pytest.raises(MetadataError, match="Pipeline 'tou' is not in the lineage"):
        lineage.of_span(store, "tou", 7)
