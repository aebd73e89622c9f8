"""Inputs that no component makes: what is found, what is recorded, what is said."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.base import Component, RunContext, output
from penstock.pipelines import overrides
from penstock.pipelines.inputs import (
    Import,
    Latest,
    LatestBlessed,
    Resolve,
    Spans,
    Where,
    resolver_of,
)
from penstock.pipelines.metadata import ExecutionRecord, State, Store, recent, values
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import (
    Artifact,
    Examples,
    InfraBlessing,
    Model,
    ModelBlessing,
    ModelEvaluation,
    Schema,
)
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import ComponentFailed, PipelineError
from tests.pipelines.toys import Bless, Fit, Make

# Components ----------------------------------------------------------------------


class Day(Component):
    """Write the Examples of a span."""

    span: int | None
    version: int | None = None
    text: str = "row"
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "rows").write_text(self.text)
        if self.span is not None:
            self.examples.properties["span"] = self.span
        if self.version is not None:
            self.examples.properties["version"] = self.version


class Window(Component):
    """Train on several spans: write down what they are."""

    examples: tuple[Examples, ...]
    model: Model = output()

    def run(self, context: RunContext) -> None:
        read = [(each.path / "rows").read_text() for each in self.examples]
        (self.model.path / "read").write_text("\n".join(read))


class WindowIfAny(Component):
    """Take several spans, or none at all."""

    examples: tuple[Examples, ...] | None = None
    model: Model = output()

    def run(self, context: RunContext) -> None:
        count = "none" if self.examples is None else str(len(self.examples))
        (self.model.path / "read").write_text(count)


class Train(Component):
    """Write a Model with a number of its own."""

    number: int
    auc: float | None = None
    base: Model | None = None
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (self.model.path / "number").write_text(str(self.number))
        if self.auc is not None:
            self.model.properties["auc"] = self.auc


class Judge(Component):
    """Write a ModelEvaluation that says how good a Model is."""

    model: Model
    auc: float
    baseline: Model | None = None
    evaluation: ModelEvaluation = output()

    def run(self, context: RunContext) -> None:
        (self.evaluation.path / "auc").write_text(str(self.auc))
        self.evaluation.properties["auc"] = self.auc


class Use(Component):
    """Need a Model; write a Schema."""

    model: Model
    schema: Schema = output()

    def run(self, context: RunContext) -> None:
        self.schema.file.write_text(self.model.uri)


class Vocabulary(Artifact):
    """An artifact type of a user's own."""

    TYPE_NAME = "Vocabulary"


class Words(Component):
    """Write a Vocabulary; read one."""

    text: str
    before: Vocabulary | None = None
    vocabulary: Vocabulary = output()

    def run(self, context: RunContext) -> None:
        (self.vocabulary.path / "words").write_text(self.text)


def ran(root: Path, *components: Component, name: str = "p") -> RunResult:
    return run(Pipeline(name, list(components)), root, runner=LocalRunner())


def failure(root: Path, *components: Component, name: str = "p") -> str:
    with pytest.raises(ComponentFailed) as raised:
        ran(root, *components, name=name)
    return str(raised.value)


def store_of(root: Path) -> Store:
    return Store(f"sqlite:///{root / 'metadata.sqlite'}")


def numbers(artifacts: Sequence[Artifact]) -> list[int | None]:
    return [each.id for each in artifacts]


def found_by(store: Store, promise: Artifact, pipeline: str = "p") -> Any:
    """Return what a promise is resolved to for a component without inputs."""
    resolver = resolver_of(promise)
    assert resolver is not None
    return resolver.resolve(store, pipeline, Make())


def ingest(root: Path, *spans: int, text: str = "row", name: str = "p") -> None:
    for span in spans:
        ran(root, Day(span=span, text=f"{text} {span}"), name=name)


def window_of(root: Path, *examples: Examples, name: str = "p") -> RunResult:
    return ran(root, Window(examples=examples), name=name)


def texts(result: RunResult, component: str = "Window") -> list[str]:
    (model,) = result[component].outputs.values()
    return (model.path / "read").read_text().splitlines()


def delete(store: Store, artifact: Artifact) -> None:
    """Say in the store that an artifact is deleted."""
    (proto,) = store._mlmd.get_artifacts_by_id([artifact.id])
    proto.state = store._pb.Artifact.DELETED
    store._mlmd.put_artifacts([proto])


# Spans ---------------------------------------------------------------------------


def test_the_newest_spans_come_oldest_first(tmp_path: Path) -> None:
    ingest(tmp_path, 16, 14, 17, 15)
    result = window_of(tmp_path, *Spans(last=3))
    assert texts(result) == ["row 15", "row 16", "row 17"]


def test_the_place_in_the_window_is_the_index_of_the_event(tmp_path: Path) -> None:
    ingest(tmp_path, 9, 8, 7)
    result = window_of(tmp_path, *Spans(last=3))
    store = store_of(tmp_path)
    events = store._mlmd.get_events_by_execution_ids([result["Window"].id])
    places = {
        each.path.steps[1].index: each.artifact_id
        for each in events
        if each.type == store._pb.Event.INPUT
    }
    assert [each.path.steps[0].key for each in events[:-1]] == ["examples"] * 3
    by_span = {each.span: each.id for each in result["Window"].inputs["examples"]}  # type: ignore[attr-defined]
    assert places == {0: by_span[7], 1: by_span[8], 2: by_span[9]}
    (record,) = store.executions(result.run_id)
    assert numbers(record.inputs["examples"]) == [by_span[7], by_span[8], by_span[9]]


def test_a_span_that_was_ingested_late_is_not_new(tmp_path: Path) -> None:
    ingest(tmp_path, *(305, 306), *(100, 101, 102), 299)
    result = window_of(tmp_path, *Spans(last=4))
    assert texts(result) == ["row 102", "row 299", "row 305", "row 306"]


def test_of_a_span_the_greatest_version_counts(tmp_path: Path) -> None:
    ran(tmp_path, Day(span=3, version=2, text="second"))
    ran(tmp_path, Day(span=3, version=10, text="tenth"))
    ran(tmp_path, Day(span=3, version=9, text="ninth"))
    ran(tmp_path, Day(span=3, text="none"))
    assert texts(window_of(tmp_path, *Spans(last=1))) == ["tenth"]


def test_of_a_span_ingested_again_the_last_counts(tmp_path: Path) -> None:
    for text in ("first", "second"):
        ran(tmp_path, Day(span=3, text=text))
    assert texts(window_of(tmp_path, *Spans(last=1))) == ["second"]
    # The data is as it was at first: its artifact is taken from the cache.
    again = ran(tmp_path, Day(span=3, text="first"))
    assert again["Day"].state is State.CACHED
    assert texts(window_of(tmp_path, *Spans(last=1))) == ["first"]


def test_spans_of_another_pipeline_are_not_found(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2)
    ingest(tmp_path, 3, 4, text="other", name="other")
    assert texts(window_of(tmp_path, *Spans(last=2))) == ["row 1", "row 2"]


def test_examples_that_a_pipeline_only_read_are_not_its_own(tmp_path: Path) -> None:
    """They lie in the same context as what was made of them."""

    class Copy(Day):
        """Copy the Examples of another pipeline."""

        source: Examples

    ran(tmp_path, Day(span=20, text="foreign"), name="other")
    (foreign,) = store_of(tmp_path).artifacts(Examples)
    assert isinstance(foreign, Examples)
    ran(tmp_path, Copy(span=21, text="own", source=foreign))
    assert texts(window_of(tmp_path, *Spans(last=2, at_least=1))) == ["own"]


def test_a_component_can_be_named(tmp_path: Path) -> None:
    raw, clean = (
        Day(name="raw", span=3, text="raw"),
        Day(name="clean", span=3, text="x"),
    )
    ran(tmp_path, raw, clean)
    (result,) = texts(window_of(tmp_path, *Spans(last=1, component="raw")))
    assert result == "raw"
    (result,) = texts(window_of(tmp_path, *Spans(last=1, component="clean")))
    assert result == "x"


def test_what_a_pipeline_takes_of_another_from_the_cache_is_its_own(
    tmp_path: Path,
) -> None:
    ingest(tmp_path, 3, name="other")
    assert ran(tmp_path, Day(span=3, text="row 3"))["Day"].state is State.CACHED
    for promise in (Spans(last=1)[0], Latest(Examples)):
        assert texts(window_of(tmp_path, promise)) == ["row 3"]


def test_deleted_examples_are_passed_over(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2, 3)
    store = store_of(tmp_path)
    delete(store, store.artifacts(Examples)[-1])
    assert texts(window_of(tmp_path, *Spans(last=2))) == ["row 1", "row 2"]


def test_a_range_of_spans_may_miss_some(tmp_path: Path) -> None:
    ingest(tmp_path, 99, 100, 103, 200)
    found = window_of(tmp_path, *Spans(between=(99, 103), at_least=3))
    assert texts(found) == ["row 99", "row 100", "row 103"]
    assert texts(window_of(tmp_path, *Spans(between=(99, 100)))) == [
        "row 99",
        "row 100",
    ]


def test_fewer_spans_will_do_if_that_is_said(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2)
    assert texts(window_of(tmp_path, *Spans(last=7, at_least=2))) == ["row 1", "row 2"]


def test_no_span_will_do_if_that_is_said(tmp_path: Path) -> None:
    result = ran(tmp_path, WindowIfAny(examples=Spans(last=7, at_least=0)))
    assert texts(result, "WindowIfAny") == ["0"]
    assert texts(window_of(tmp_path, *Spans(last=7, at_least=0))) == []


def test_promises_of_all_kinds_stand_beside_one_another(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2)
    day = Day(span=3, text="this run's")
    window = Window(
        examples=(day.examples, *Spans(last=2), Latest(Examples, component="Day")),
        after=(day,),
    )
    result = ran(tmp_path, day, window)
    assert texts(result) == ["this run's", "row 2", "this run's", "this run's"]


def test_this_runs_span_counts_for_what_comes_after_it(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2)
    day = Day(span=3, text="new")
    result = ran(tmp_path, day, Window(examples=Spans(last=2), after=(day,)))
    assert texts(result) == ["row 2", "new"]


def test_an_unchanged_window_is_a_hit(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2, 3)
    assert window_of(tmp_path, *Spans(last=2))["Window"].state is State.COMPLETE
    assert window_of(tmp_path, *Spans(last=2))["Window"].state is State.CACHED
    assert window_of(tmp_path, *Spans(between=(2, 3)))["Window"].state is State.CACHED
    ingest(tmp_path, 4)
    assert window_of(tmp_path, *Spans(last=2))["Window"].state is State.COMPLETE


def test_spans_recorded_as_text_are_numbers(tmp_path: Path) -> None:
    """As some versions of TFX write them."""
    for span in ("9", "10"):
        day = Examples(tmp_path / span, properties={"note": span})
        day.properties["span"] = span
        assert day.span == int(span)
    assert Examples("/x", properties={"span": "new", "version": 3}).span is None
    assert Examples("/x", properties={"span": "new", "version": 3}).version == 3


def test_too_few_spans_are_told(tmp_path: Path) -> None:
    ingest(tmp_path, 15, 16, 17)
    assert failure(tmp_path, Window(examples=Spans(last=7))) == (
        "'Window' failed: 'Spans(last=7)' finds 3 spans of Examples in pipeline 'p' "
        "(15, 16, 17), where at least 7 are wanted. Ingest more, or pass at_least=3."
    )
    assert failure(tmp_path, Window(examples=Spans(between=(10, 15), at_least=4))) == (
        "'Window' failed: 'Spans(between=(10, 15), at_least=4)' finds 1 span of "
        "Examples in pipeline 'p' (15), where at least 4 are wanted. Ingest more, or "
        "pass at_least=1."
    )


def test_many_spans_are_told_in_short(tmp_path: Path) -> None:
    ran(tmp_path, *(Day(name=f"day-{span}", span=span) for span in range(12)))
    assert failure(tmp_path, Window(examples=Spans(last=13))) == (
        "'Window' failed: 'Spans(last=13)' finds 12 spans of Examples in pipeline 'p' "
        "(0, 1, 2, ..., 9, 10, 11), where at least 13 are wanted. Ingest more, or pass "
        "at_least=12."
    )


def test_where_there_is_no_span_the_nearest_is_told(tmp_path: Path) -> None:
    nothing = (
        "'Window' failed: 'Spans({})' finds no span of Examples in pipeline '{}', "
        "where at least {} are wanted.{} Ingest some, or pass at_least=0."
    )
    window = Window(examples=Spans(last=7))
    assert failure(tmp_path, window) == nothing.format("last=7", "p", 7, "")
    ran(tmp_path, Day(span=None))
    assert failure(tmp_path, window) == nothing.format(
        *("last=7", "p", 7),
        " Examples 1 has no span: put '{SPAN}' or a date into the pattern of its "
        "files.",
    )
    ingest(tmp_path, 15, 16)
    early = Window(examples=Spans(between=(3, 5)))
    assert failure(tmp_path, early) == nothing.format(
        *("between=(3, 5)", "p", 3), " There are 15, 16."
    )
    other = Window(examples=Spans(last=2, component="Dey"))
    assert failure(tmp_path, other) == nothing.format(
        *("last=2, component='Dey'", "p", 2),
        " 'Dey' wrote none ('Day' did). Did you mean 'Day'?",
    )
    assert failure(tmp_path, window, name="pp") == nothing.format(
        *("last=7", "pp", 7),
        " The nearest is Examples 3 of pipeline 'p'. Did you mean 'p'?",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {},
            "Spans takes either last or between. Write Spans(last=7) for the newest "
            "seven, or Spans(between=(10, 16)).",
        ),
        (
            {"last": 3, "between": (1, 2)},
            "Spans takes either last or between. Write Spans(last=7) for the newest "
            "seven, or Spans(between=(10, 16)).",
        ),
        ({"last": 0}, "Spans.last is 0. Pass a whole number of at least 1."),
        ({"last": True}, "Spans.last is True. Pass a whole number of at least 1."),
        (
            {"between": (5, 3)},
            "Spans.between is (5, 3), which is no range of spans. Pass the first and "
            "the last, as between=(10, 16).",
        ),
        (
            {"between": 7},
            "Spans.between is 7, which is no range of spans. Pass the first and the "
            "last, as between=(10, 16).",
        ),
        (
            {"last": 7, "at_least": 8},
            "Spans.at_least is 8, of 7 that are asked for. Pass a whole number from 0 "
            "to 7.",
        ),
        (
            {"between": (1, 3), "at_least": -1},
            "Spans.at_least is -1, of 3 that are asked for. Pass a whole number from 0 "
            "to 3.",
        ),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PipelineError) as raised:
        Spans(**arguments)
    assert str(raised.value) == sentence


def test_several_spans_are_not_for_a_field_of_one() -> None:
    with pytest.raises(PipelineError) as raised:
        Fit(examples=Spans(last=7))  # type: ignore[arg-type]
    assert str(raised.value) == (
        "Fit.examples takes Examples, got (Examples('Spans(last=7)'),) (tuple). Pass a "
        "value of that kind."
    )


# Where the store keeps spans -------------------------------------------------------


def test_a_history_from_before_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    """As TFX wrote it, or an older penstock: no context holds its spans."""
    store = store_of(tmp_path)
    context = store._context("pipeline", "p")
    pb = store._pb
    for span in (8, 9):
        store.record_execution(
            "x",
            component="Day",
            pipelines=["p"],
            inputs={},
            outputs={"examples": Examples(f"/{span}", properties={"span": span})},
            properties={},
        )
    assert store._find_context("penstock_spans", "p") is None

    def found(count: int) -> list[int | None]:
        (promise,) = Spans(last=count)
        return [each.span for each in found_by(store, promise)]

    assert found(2) == [8, 9]
    ran(tmp_path, Day(span=7))
    ran(tmp_path, Day(span=10))
    top = store._find_context("penstock_spans", "p")
    assert top is not None and top.custom_properties["is_whole"].int_value == 0
    assert found(4) == [7, 8, 9, 10]
    assert isinstance(context, pb.Context)


def test_a_context_that_a_kill_left_loose_is_tied(tmp_path: Path) -> None:
    ingest(tmp_path, 100)
    store = store_of(tmp_path)
    store._context("penstock_spans", "p:2")  # killed before it was linked
    ingest(tmp_path, 250)
    assert texts(window_of(tmp_path, *Spans(last=2))) == ["row 100", "row 250"]


def test_two_processes_tie_the_same_context(tmp_path: Path) -> None:
    one, two = store_of(tmp_path), store_of(tmp_path)
    for each in (one, two):
        each._context("pipeline", "p")
    top = one._context("penstock_spans", "p", {"is_whole": 1})
    child = one._context("penstock_spans", "p:0")
    link = one._pb.ParentContext(parent_id=top.id, child_id=child.id)
    for each in (one, two):
        each._put_once(lambda each=each: each._mlmd.put_parent_contexts([link]))  # type: ignore[misc]
    assert two._span_context("p", 0).id == child.id


def test_negative_spans_are_spans(tmp_path: Path) -> None:
    ingest(tmp_path, -101, -1, 0, 1)
    found = window_of(tmp_path, *Spans(last=4))
    assert texts(found) == ["row -101", "row -1", "row 0", "row 1"]


# Latest --------------------------------------------------------------------------


def test_the_latest_is_what_was_written_or_taken_last(tmp_path: Path) -> None:
    for number in (1, 2):
        ran(tmp_path, Train(number=number))
    store = store_of(tmp_path)
    assert found_by(store, Latest(Model)).id == 2
    assert ran(tmp_path, Train(number=1))["Train"].state is State.CACHED
    assert found_by(store, Latest(Model)).id == 1


def test_the_latest_of_a_component_is_its_own(tmp_path: Path) -> None:
    ran(tmp_path, Train(name="small", number=1))
    ran(tmp_path, Train(name="large", number=2))
    store = store_of(tmp_path)
    assert found_by(store, Latest(Model, component="small")).id == 1
    assert found_by(store, Latest(Model, component="large")).id == 2
    assert found_by(store, Latest(Model, component="huge")) is None


def test_what_was_only_read_is_not_the_latest(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    ran(tmp_path, Use(model=Import(tmp_path / "given", Model)))
    assert len(store_of(tmp_path).artifacts(Model, pipeline="p")) == 1
    assert found_by(store_of(tmp_path), Latest(Model)) is None


def test_the_latest_that_is_deleted_is_passed_over(tmp_path: Path) -> None:
    for number in (1, 2):
        ran(tmp_path, Train(number=number))
    store = store_of(tmp_path)
    delete(store, store.artifacts(Model)[-1])
    assert found_by(store, Latest(Model)).id == 1
    delete(store, store.artifacts(Model)[0])
    assert failure(tmp_path, Use(model=Latest(Model))) == (
        "'Use' failed: 'Latest(Model)' finds nothing for Use.model in pipeline 'p'. "
        "The newest, Model 2, is deleted. Run what writes Model first, or import it."
    )


def test_a_type_of_the_users_own_is_found_as_the_users_class(tmp_path: Path) -> None:
    ran(tmp_path, Words(text="a"))
    result = ran(tmp_path, Words(text="b", before=Latest(Vocabulary)))
    assert type(result["Words"].inputs["before"][0]) is Vocabulary


def test_nothing_to_be_found_is_told_with_the_nearest(tmp_path: Path) -> None:
    said = (
        "'Use' failed: '{}' finds nothing for Use.model in pipeline '{}'. {}Run what "
        "writes Model first, or import it."
    )
    use = Use(model=Latest(Model))
    assert failure(tmp_path, use) == said.format("Latest(Model)", "p", "")
    (tmp_path / "given").mkdir()
    ran(tmp_path, Use(model=Import(tmp_path / "given", Model)), name="other")
    assert failure(tmp_path, use) == said.format(
        "Latest(Model)", "p", f"The nearest is Model 1 at '{tmp_path / 'given'}'. "
    )
    ran(tmp_path, Train(number=1), name="taxi")
    assert failure(tmp_path, use, name="taxy") == said.format(
        "Latest(Model)",
        "taxy",
        "The nearest is Model 3 of pipeline 'taxi'. Did you mean 'taxi'? ",
    )
    ran(tmp_path, Train(number=2))
    use = Use(model=Latest(Model, component="Trian"))
    assert failure(tmp_path, use) == said.format(
        "Latest(Model, component='Trian')",
        "p",
        "'Trian' wrote none ('Train' did). Did you mean 'Train'? ",
    )


# LatestBlessed -------------------------------------------------------------------


def test_a_model_that_cannot_be_the_baseline_is_told_why(tmp_path: Path) -> None:
    said = (
        "'{}' failed: 'LatestBlessed()' finds nothing for {} in pipeline 'p'. {}Run "
        "what writes Model first, or import it."
    )
    use = Use(model=LatestBlessed())
    assert failure(tmp_path, use) == said.format("Use", "Use.model", "")
    train = Train(number=1)
    ran(tmp_path, train, Bless(model=train.model, blessed=False))
    assert failure(tmp_path, use) == said.format(
        "Use", "Use.model", "The newest, Model 1, is not blessed. "
    )
    ran(tmp_path, train, Bless(model=train.model))

    class Compare(Component):
        """Need a baseline."""

        candidate: Model
        baseline: Model
        schema: Schema = output()

    compare = Compare(candidate=train.model, baseline=LatestBlessed())
    assert failure(tmp_path, train, compare) == said.format(
        *("Compare", "Compare.baseline"),
        "Model 1 is blessed, but has the bytes of the candidate. ",
    )
    store = store_of(tmp_path)
    model = store.artifact(1)
    assert isinstance(model, Model)
    overrides.block(store, tmp_path, model, "it favors Mondays")
    assert failure(tmp_path, use) == said.format(
        "Use", "Use.model", "Model 1 is on the block-list: it favors Mondays. "
    )
    overrides.unblock(store, tmp_path, model, "it does not")
    delete(store, model)
    assert failure(tmp_path, use) == said.format(
        "Use", "Use.model", "Model 1 is blessed, but deleted. "
    )


def test_a_blessing_counts_though_it_is_deleted(tmp_path: Path) -> None:
    train = Train(number=1)
    ran(tmp_path, train, Bless(model=train.model))
    store = store_of(tmp_path)
    delete(store, store.artifacts(ModelBlessing)[0])
    assert found_by(store, LatestBlessed()).id == 1


def test_a_model_that_was_imported_can_be_the_baseline(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    ran(tmp_path, Bless(model=Import(tmp_path / "given", Model)))
    assert found_by(store_of(tmp_path), LatestBlessed()).id == 1


# Where ---------------------------------------------------------------------------


def test_the_newest_that_an_expression_is_true_of_is_found(tmp_path: Path) -> None:
    for number, auc in enumerate((0.95, 0.92, 0.8, None)):
        ran(tmp_path, Train(number=number, auc=auc))
    store = store_of(tmp_path)
    assert found_by(store, Where("auc > 0.9", Model)).id == 2
    assert found_by(store, Where("auc > 0.93", Model)).id == 1
    assert found_by(store, Where("auc is null", Model)).id == 4
    assert found_by(store, Where("auc > 0.99", Model)) is None


def test_metrics_of_the_newest_evaluation_are_a_models_own(tmp_path: Path) -> None:
    first, second = Train(number=1), Train(number=2)
    ran(tmp_path, first, Judge(model=first.model, auc=0.95))
    # As the baseline of the second, the first is read, but not judged.
    judge = Judge(model=second.model, auc=0.85, baseline=Latest(Model))
    ran(tmp_path, second, judge)
    store = store_of(tmp_path)
    one, two = (each.id for each in store.artifacts(Model))
    assert found_by(store, Where("auc > 0.9", Model)).id == one
    assert found_by(store, Where("auc < 0.9", Model)).id == two
    ran(tmp_path, first, Judge(model=first.model, auc=0.8))
    assert found_by(store, Where("auc > 0.9", Model)) is None
    ran(tmp_path, first, Judge(model=first.model, auc=0.95))  # from the cache
    assert found_by(store, Where("auc > 0.9", Model)).id == one


def test_a_metric_does_not_hide_a_property_of_the_model(tmp_path: Path) -> None:
    train = Train(number=1, auc=0.5)
    ran(tmp_path, train, Judge(model=train.model, auc=0.95))
    assert found_by(store_of(tmp_path), Where("auc > 0.9", Model)) is None


def test_what_is_found_has_no_more_properties_than_it_had(tmp_path: Path) -> None:
    train = Train(number=1)
    ran(tmp_path, train, Judge(model=train.model, auc=0.95))
    found = found_by(store_of(tmp_path), Where("auc > 0.9", Model))
    assert "auc" not in found.properties


def test_other_types_are_asked_for_their_own_properties(tmp_path: Path) -> None:
    train = Train(number=1)
    ran(tmp_path, train, Judge(model=train.model, auc=0.95))
    store = store_of(tmp_path)
    assert found_by(store, Where("auc > 0.9", ModelEvaluation)).TYPE_NAME == (
        "ModelEvaluation"
    )


def test_no_match_is_told_with_the_newest(tmp_path: Path) -> None:
    said = (
        "'Use' failed: 'Where({}, Model)' finds nothing for Use.model in pipeline "
        "'p'. {}Run what writes Model first, or import it."
    )

    def told(expression: str) -> str:
        return failure(tmp_path, Use(model=Where(expression, Model)))

    assert told("auc > 0.9") == said.format("'auc > 0.9'", "")
    ran(tmp_path, Train(number=1, auc=0.8))
    assert told("auc > 0.9") == said.format(
        "'auc > 0.9'", "The newest, Model 1, has auc 0.8. "
    )
    assert told("acu > 0.9 and auc > 0.5") == said.format(
        "'acu > 0.9 and auc > 0.5'",
        "The newest, Model 1, has no 'acu' and auc 0.8. Did you mean 'auc'? ",
    )


def test_a_property_that_nothing_has_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(tmp_path)
    assert found_by(store, Where("acu > 0.9", Model)) is None
    assert caplog.messages == []
    ran(tmp_path, Train(number=1, auc=0.8))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "penstock"):
        assert found_by(store, Where("acu > 0.9", Model)) is None
    assert caplog.messages == [
        "'Where('acu > 0.9', Model)' finds nothing: no Model of pipeline 'p' has the "
        "property 'acu'. Did you mean 'auc'?"
    ]


def test_expressions_are_checked_when_they_are_written() -> None:
    with pytest.raises(PipelineError, match="ends where a value"):
        Where("auc >", Model)
    with pytest.raises(PipelineError) as raised:
        Where("auc", Model)
    assert str(raised.value) == (
        "Expression 'auc' is neither true nor false of an artifact. Compare it with "
        "something, as in auc > 0.9."
    )


# Resolve -------------------------------------------------------------------------


def oldest(store: Store, pipeline: str, component: Component) -> Model | None:
    """Return the first model of a pipeline."""
    found = store.artifacts(Model, pipeline=pipeline)
    assert isinstance(component, Train | Use)
    first = found[0] if found else None
    assert first is None or isinstance(first, Model)
    return first


def every_second(store: Store, pipeline: str, component: Component) -> list[Examples]:
    """Return every second of a pipeline's Examples."""
    found = store.artifacts(Examples, pipeline=pipeline)[::2]
    return [each for each in found if isinstance(each, Examples)]


def wrong(store: Store, pipeline: str, component: Component) -> Any:
    """Return what no field takes."""
    return {"Train": 3, "Use": Examples("/x"), "Window": "x", "WindowIfAny": [None]}[
        component.name
    ]


def unmade(store: Store, pipeline: str, component: Component) -> Any:
    """Return a promise."""
    return Train(number=1).model


def broken(store: Store, pipeline: str, component: Component) -> Model | None:
    """Raise."""
    raise ValueError("no idea")


def given_folder(store: Store, pipeline: str, component: Component) -> Model:
    """Return a model that no store knows."""
    return Model(pipeline_folder(store))


def pipeline_folder(store: Store) -> Path:
    return Path(store.url.removeprefix("sqlite:///")).parent / "given"


def words(store: Store, pipeline: str, component: Component) -> Any:
    """Return the newest of a user's own type, as the store gives it."""
    return store.artifacts("Vocabulary")[-1]


def test_a_function_of_the_users_chooses(tmp_path: Path) -> None:
    base = Resolve(oldest, Model)
    first = ran(tmp_path, Train(number=1, base=base))
    assert first["Train"].inputs.get("base", ()) == ()
    ran(tmp_path, Train(number=2))
    third = ran(tmp_path, Train(number=3, base=base))
    assert numbers(third["Train"].inputs["base"]) == [1]


def test_a_function_of_the_users_chooses_several(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2, 3)
    result = ran(tmp_path, Window(examples=Resolve(every_second, Examples, many=True)))
    assert texts(result) == ["row 1", "row 3"]


def test_what_a_function_finds_on_disk_gets_a_digest(tmp_path: Path) -> None:
    given = tmp_path / "given"
    use = Use(model=Resolve(given_folder, Model))
    assert failure(tmp_path, use) == (
        f"'Use' failed: Use.model is Model '{given}', which is no folder that exists. "
        "Check the path; an artifact is a folder."
    )
    given.mkdir()
    (given / "weights").write_text("1")
    (model,) = ran(tmp_path, use)["Use"].inputs["model"]
    assert model.digest == folder_digest(given)


def test_a_function_may_return_what_the_store_makes_of_a_users_type(
    tmp_path: Path,
) -> None:
    ran(tmp_path, Words(text="a"))
    result = ran(tmp_path, Words(text="b", before=Resolve(words, Vocabulary)))
    assert type(result["Words"].inputs["before"][0]) is Vocabulary


def test_what_a_function_returns_is_checked(tmp_path: Path) -> None:
    place = f"{__name__}.wrong"
    told = failure(tmp_path, Train(number=1, base=Resolve(wrong, Model)))
    assert told == (
        f"'Train' failed: 'Resolve({place}, Model)' returned 3 (int), where Model or "
        "None is needed. Return what is in the lineage store, or on disk."
    )
    told = failure(tmp_path, Use(model=Resolve(wrong, Model)))
    assert f"'Resolve({place}, Model)' returned Examples('/x') (Examples), " in told
    for window in (Window, WindowIfAny):
        component = window(examples=Resolve(wrong, Examples, many=True))
        told = failure(tmp_path, component)
        returned = "'x' (str)" if window is Window else "None (NoneType)"
        assert told == (
            f"'{window.__name__}' failed: 'Resolve({place}, Examples, many=True)' "
            f"returned {returned}, where a list of Examples is needed. Return what is "
            "in the lineage store, or on disk."
        )
    told = failure(tmp_path, Use(model=Resolve(unmade, Model)))
    assert "returned Model('Train.model') (Model), where Model or None" in told


def test_a_function_that_finds_nothing_leaves_a_needed_input_empty(
    tmp_path: Path,
) -> None:
    assert failure(tmp_path, Use(model=Resolve(oldest, Model))) == (
        f"'Use' failed: 'Resolve({__name__}.oldest, Model)' finds nothing for "
        "Use.model in pipeline 'p'. Run what writes Model first, or import it."
    )


def test_where_a_function_raises_is_told(tmp_path: Path) -> None:
    told = failure(tmp_path, Use(model=Resolve(broken, Model)))
    assert told.startswith("'Use' failed in broken (test_inputs.py, line ")
    assert told.endswith("): ValueError: no idea")


SCRIPT = """
from penstock import LocalRunner, Pipeline, Resolve, run
from penstock.schemas import Model
from tests.pipelines.toys import IsolatedFit, Make


def oldest(store, pipeline, component):
    return next(iter(store.artifacts(Model, pipeline=pipeline)), None)


if __name__ == "__main__":
    for rows in (3, 4):
        make = Make(rows=rows)
        fit = IsolatedFit(examples=make.examples, baseline=Resolve(oldest, Model))
        result = run(Pipeline("p", [make, fit]), "root", runner=LocalRunner())
        print([each.id for each in result["IsolatedFit"].inputs.get("baseline", ())])
"""


def test_a_script_has_functions_for_components_in_processes_of_their_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[]\n[2]\n", 0), done.stderr


def test_a_promise_that_was_carried_elsewhere_finds_nothing(tmp_path: Path) -> None:
    use = Use(model=Resolve(oldest, Model))
    assert repr(copy.deepcopy(use)) == repr(use)
    carried = pickle.loads(pickle.dumps(use))
    assert repr(carried) == repr(use)
    assert failure(tmp_path, carried) == (
        f"'Use' failed: 'Resolve({__name__}.oldest, Model)' was carried here from "
        "another process, without its function. Make the pipeline in the process that "
        "runs it."
    )
    assert "finds nothing for Use.model" in failure(tmp_path, copy.deepcopy(use))


def test_a_function_that_another_process_cannot_find_is_refused() -> None:
    def inner(store: Store, pipeline: str, component: Component) -> Model | None:
        return None

    with pytest.raises(PipelineError) as raised:
        Resolve(inner, Model)
    assert str(raised.value).startswith("The function of Resolve is 'test_a_function")
    assert str(raised.value).endswith("Define it at the top level of a module.")
    with pytest.raises(PipelineError) as raised:
        Resolve("oldest", Model)  # type: ignore[call-overload]
    assert str(raised.value) == (
        "Resolve takes a function, got 'oldest' (str). Pass one that is defined at the "
        "top level of a module."
    )


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: Latest("Model"), "Latest"),  # type: ignore[arg-type]
        (lambda: Where("auc > 0.9", "Model"), "Where"),  # type: ignore[arg-type]
        (lambda: Import("/x", "Model"), "Import"),  # type: ignore[arg-type]
        (lambda: Resolve(oldest, "Model"), "Resolve"),  # type: ignore[call-overload]
    ],
)
def test_a_name_is_no_class_of_artifacts(call: Any, name: str) -> None:
    with pytest.raises(PipelineError) as raised:
        call()
    assert str(raised.value) == (
        f"{name} takes a class of artifacts, got 'Model' (str). Pass one of "
        "penstock.schemas, such as Model."
    )


# What is recorded ----------------------------------------------------------------


def test_what_gave_an_input_is_recorded(tmp_path: Path) -> None:
    ingest(tmp_path, 1, 2)
    ran(tmp_path, Train(number=1, auc=0.95))
    record = record_of(
        ran(tmp_path, Train(number=2, base=Where("auc > 0.9", Model))), tmp_path
    )
    assert record.properties["penstock_resolved_base"] == "Where('auc > 0.9', Model)"
    assert numbers(record.inputs["base"]) == [3]
    window = Window(examples=(*Spans(last=2, component="Day"), Latest(Examples)))
    record = record_of(ran(tmp_path, window), tmp_path)
    assert record.properties["penstock_resolved_examples"] == (
        "Spans(last=2, component='Day'), Latest(Examples)"
    )
    cached = record_of(ran(tmp_path, window), tmp_path)
    assert cached.state is State.CACHED
    assert cached.properties["penstock_resolved_examples"] == (
        "Spans(last=2, component='Day'), Latest(Examples)"
    )


def test_a_resolver_that_found_nothing_is_recorded_too(tmp_path: Path) -> None:
    result = ran(tmp_path, Train(number=1, base=LatestBlessed()))
    record = record_of(result, tmp_path)
    assert record.properties["penstock_resolved_base"] == "LatestBlessed()"
    assert "base" not in record.inputs
    failure(tmp_path, Use(model=Where("auc > 2", Model)))
    failed = store_of(tmp_path).executions(store_of(tmp_path).runs()[-1].id)
    assert failed[0].properties["penstock_resolved_model"] == "Where('auc > 2', Model)"


def test_what_a_component_makes_has_no_resolver(tmp_path: Path) -> None:
    train = Train(number=1)
    result = ran(tmp_path, train, Use(model=train.model))
    for record in store_of(tmp_path).executions(result.run_id):
        assert not any(key.startswith("penstock_resolved") for key in record.properties)


def record_of(result: RunResult, root: Path) -> ExecutionRecord:
    (record,) = store_of(root).executions(result.run_id)
    return record


# Histories -----------------------------------------------------------------------


class History:
    """A store that things happen in, and a plain list of what happened."""

    def __init__(self) -> None:
        self.store = Store("sqlite://")
        self.places = itertools.count()
        self.written: list[tuple[str, str, Artifact]] = []  # in order of execution
        for pipeline in ("p", "q"):
            self.store.begin_run(pipeline, f"{pipeline} run", {})

    def write(self, pipeline: str, component: str, artifact: Artifact) -> Artifact:
        made = Make(name=component)
        run_id = f"{pipeline} run"
        execution = self.store.begin_execution(
            made, pipeline=pipeline, run_id=run_id, inputs={}
        )
        self.store.complete_execution(
            execution,
            {f"out{execution}": artifact},
            pipeline=pipeline,
            run_id=run_id,
            component=component,
            properties={},
        )
        self.written.append((pipeline, component, artifact))
        return artifact

    def take(self, pipeline: str, component: str, artifact: Artifact) -> None:
        self.store.begin_execution(
            Make(name=component),
            pipeline=pipeline,
            run_id=f"{pipeline} run",
            inputs={},
            state=State.CACHED,
            outputs={"out": artifact},
        )
        self.written.append((pipeline, component, artifact))

    def of(self, kind: type[Artifact], component: str = "") -> Iterator[Artifact]:
        """Yield what pipeline 'p' wrote or took, the last first."""
        for pipeline, name, artifact in reversed(self.written):
            is_asked = pipeline == "p" and component in ("", name)
            if is_asked and isinstance(artifact, kind):
                yield artifact

    def do(self, what: str, pipeline: str, component: str, number: int) -> None:
        place = f"/{next(self.places)}"
        if what == "model":
            properties: dict[str, Any] = {"auc": number / 10}
            model = Model(place, properties=properties, digest=f"sha256:{number}")
            self.write(pipeline, component, model)
        elif what == "examples":
            span: dict[str, Any] = {"span": 97 + number, "version": number % 2}
            self.write(pipeline, component, Examples(place, properties=span))
        elif what == "again" and self.written:
            _, _, artifact = self.written[number % len(self.written)]
            self.take(pipeline, component, artifact)
        elif what in ("yes", "no"):
            models = [each for _, _, each in self.written if isinstance(each, Model)]
            if models:
                said: dict[str, Any] = {
                    "blessed": int(what == "yes"),
                    "current_model_id": models[-1 - number % len(models)].id,
                }
                self.write(pipeline, component, ModelBlessing(place, properties=said))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["model", "examples", "again", "yes", "no"]),
        st.sampled_from(["p", "p", "q"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 9),
    ),
    max_size=25,
)


@settings(max_examples=80)
@given(STEPS, st.sampled_from([1, 5, 2_048]))
def test_what_is_found_is_what_a_look_at_everything_finds(
    steps: list[tuple[str, str, str, int]], many: int
) -> None:
    """With pages of any size: what is not among the last is found all the same."""
    history = History()
    for step in steps:
        history.do(*step)
    before, recent._RECENT = recent._RECENT, many
    try:
        for component in ("", "a"):
            for kind in (Model, Examples, ModelBlessing):
                newest = next(history.of(kind, component), None)
                found = found_by(history.store, Latest(kind, component=component))
                assert (found and found.id) == (newest and newest.id)
        good = (
            each
            for each in history.of(Model)
            if float(str(each.properties["auc"])) > 0.45
        )
        found = found_by(history.store, Where("auc > 0.45", Model))
        assert (found and found.id) == next((each.id for each in good), None)
        blessed = [
            int(str(each.properties["current_model_id"]))
            for each in history.of(ModelBlessing)
            if each.properties["blessed"]
        ]
        found = found_by(history.store, LatestBlessed())
        assert (found.id if found else None) == max(blessed, default=None)
        best: dict[int | None, tuple[int, int | None]] = {}
        for each in history.of(Examples):
            assert isinstance(each, Examples) and each.version is not None
            newer = each.version > best.get(each.span, (-1, 0))[0]
            best[each.span] = (each.version, each.id) if newer else best[each.span]
        spans = sorted(best, key=lambda span: span or 0)
        for count in (1, 3):
            (promise,) = Spans(last=count, at_least=0)
            found = found_by(history.store, promise)
            assert numbers(found) == [best[span][1] for span in spans[-count:]]
    finally:
        recent._RECENT = before


KINDS = (Examples, Model, ModelEvaluation, ModelBlessing)


def write_runs(store: Store, count: int) -> None:
    """Record runs of four executions each, as a run records them, but in one go."""
    pb, mlmd = store._pb, store._mlmd
    pipeline = store._context("pipeline", "p")
    first = len(mlmd.get_executions())
    places = range(first, first + 4 * count)
    ids = mlmd.put_artifacts([_artifact_proto(store, each) for each in places])
    execution = pb.Execution(type_id=store._execution_type("x"))
    execution.custom_properties["penstock_pipeline"].string_value = "p"
    # The numbers of artifacts and executions are one more than their places.
    assert ids == mlmd.put_executions([execution] * len(places))
    assert ids == [each + 1 for each in places]
    events = []
    for place, id in enumerate(ids, start=first):
        events.append(_event(pb.Event.OUTPUT, id, id))
        if place % 4:  # the model reads the examples; all else reads the model
            read = id - place % 4 + (place % 4 > 1)
            events.append(_event(pb.Event.INPUT, read, id))
    mlmd.put_events(events)
    spans = [
        (each + 1, store._span_context("p", each // 400).id) for each in places[::4]
    ]
    mlmd.put_attributions_and_associations(
        [
            pb.Attribution(artifact_id=id, context_id=context)
            for id, context in [*((id, pipeline.id) for id in ids), *spans]
        ],
        [pb.Association(execution_id=id, context_id=pipeline.id) for id in ids],
    )


def _event(kind: int, artifact_id: int, execution_id: int) -> Any:
    from ml_metadata.proto import metadata_store_pb2 as pb

    event = values.new_event(pb, kind, [("model", 0)], artifact_id)
    event.execution_id = execution_id
    return event


def _artifact_proto(store: Store, place: int) -> Any:
    """Return what an execution wrote; the model of every fifth run is good."""
    day, step = divmod(place, 4)
    kind = KINDS[step]
    said: dict[type[Artifact], dict[str, Any]] = {
        Examples: {"span": day},
        ModelEvaluation: {"auc": 0.5 if day % 5 else 0.95},
        ModelBlessing: {"blessed": int(day % 5 == 0), "current_model_id": place - 1},
    }
    properties = {**said.get(kind, {}), "penstock_execution": place + 1}
    artifact = kind(f"/{place}", properties=properties, digest=f"sha256:{place}")
    return store._artifact_proto(artifact, f"name {place}", is_external=False)


class Counting:
    """Counts the calls of ML Metadata, and the rows that they return."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = self.rows = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            found = call(*arguments, **named)
            self.calls += 1
            self.rows += len(found) if isinstance(found, list) else 1
            return found

        return counted


def cost(store: Store, promise: Artifact) -> tuple[int, int]:
    """Return how many calls resolving takes, and how many rows they return."""
    store._mlmd = counting = Counting(store._mlmd)
    assert found_by(store, promise)
    store._mlmd = counting.inner
    return counting.calls, counting.rows


def test_a_long_history_costs_no_more_than_a_short_one() -> None:
    """As far as calls and rows can tell: 40 runs, and 1,040."""
    store = Store("sqlite://")
    write_runs(store, 40)
    (spans,) = Spans(last=7)
    promises = [
        Latest(Model),
        Latest(ModelBlessing),
        LatestBlessed(),
        Where("auc > 0.9", Model),
        spans,
    ]
    short = [cost(store, each) for each in promises]
    write_runs(store, 1_000)
    long = [cost(store, each) for each in promises]
    calls, rows = zip(*short, strict=True)
    assert all(after <= before for before, (after, _) in zip(calls, long, strict=True))
    assert max(calls) <= 16
    for before, (_, after) in zip(rows, long, strict=True):
        # The spans have a block for every hundred.
        assert after <= before + 100
        assert after < 600


def test_a_new_pipeline_in_an_old_store_pays_for_what_is_recent() -> None:
    store = Store("sqlite://")
    store._context("pipeline", "new")
    write_runs(store, 700)
    store._mlmd = counting = Counting(store._mlmd)
    assert found_by(store, LatestBlessed(), "new") is None
    assert found_by(store, Latest(Model), "new") is None
    assert counting.rows < 2.5 * recent._RECENT


def test_a_pipeline_that_is_unknown_has_nothing(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    (spans,) = Spans(last=1, at_least=0)
    assert found_by(store, Latest(Model)) is None
    assert found_by(store, LatestBlessed()) is None
    assert found_by(store, Where("auc > 0.9", Model)) is None
    assert found_by(store, spans) == ()
    assert list(store.newest(InfraBlessing, pipeline="p")) == []
    assert store.last_writers([], pipeline="p") == {}


def test_what_tfx_wrote_is_found_by_its_contexts() -> None:
    """Its executions do not say of themselves which pipeline they are of."""
    store = Store("sqlite://")
    pb, mlmd = store._pb, store._mlmd
    model_type = store._artifact_type(Model)
    event = pb.Event

    def execute(pipeline: str, node: str, kind: int, *artifacts: Any) -> list[int]:
        contexts = [
            store._context("pipeline", pipeline),
            store._context("node", f"{pipeline}.{node}"),
        ]
        execution = pb.Execution(type_id=store._execution_type("tfx.X"))
        pairs = [(each, pb.Event(type=kind)) for each in artifacts]
        return list(mlmd.put_execution(execution, pairs, contexts)[1])

    def model(uri: str) -> Any:
        return pb.Artifact(type_id=model_type, uri=uri, state=pb.Artifact.LIVE)

    (old,) = execute("p", "Trainer", event.OUTPUT, model("/1"))
    (new,) = execute("p", "Trainer", event.OUTPUT, model("/2"))
    execute("q", "Trainer", event.OUTPUT, model("/3"))
    # A Resolver finds what was there before, and writes nothing.
    execute("p", "Resolver", event.INTERNAL_OUTPUT, *mlmd.get_artifacts_by_id([old]))
    failed = model("/4")
    failed.state = pb.Artifact.ABANDONED
    execute("p", "Trainer", event.OUTPUT, failed)
    assert found_by(store, Latest(Model)).id == new
    assert found_by(store, Latest(Model, component="Trainer")).id == new
    assert found_by(store, Latest(Model, component="Tuner")) is None
    blessing = pb.Artifact(type_id=store._artifact_type(ModelBlessing), uri="/b")
    blessing.custom_properties["blessed"].int_value = 1
    blessing.custom_properties["current_model_id"].int_value = old
    execute("p", "Evaluator", event.OUTPUT, blessing)
    assert found_by(store, LatestBlessed()).id == old
