"""What was decided on retraining is run once, and the run says why."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Component, RunContext
from penstock.components.monitoring.retraining.journal import (
    Decision,
    Journal,
    Limits,
    Recipe,
    Source,
    Stage,
    Wish,
)
from penstock.components.monitoring.retraining.places import (
    carrying_out,
    decision_dir,
)
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.pusher import Pusher
from penstock.pipelines import lineage
from penstock.pipelines.metadata import RunState, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.retraining import (
    RetrainingDecision,
    carry_out,
    why_decided,
    why_started,
)
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Model, PushedModel
from penstock.schemas.digests import folder_digest, folder_manifest
from penstock.schemas.errors import DataError, PenstockError, PipelineError
from tests.pipelines.toys import Bless, Check, Fit, Make, Push

RUN_ID = "20261130-060000.000000"
WHY = ("ModelDrift: 'fare' drifts: KS 0.21 where 0.04 is allowed.",)


class Site:
    """A journal with a decision, and the pipeline that it is about.

    Attributes:
        decision: The decision.
        made: How often the pipeline was made.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.journal = Journal(folder / "state")
        self.made = 0
        self.decision = self.decide("group 1")

    def decide(self, occasion: str, *, at: float = 1_796_018_400.0) -> Decision:
        wish = Wish("taxi", Source.ALERT, "ModelDrift", WHY, (occasion,), {"x": [1]})
        recipe = Recipe("pipe.py:toy", str(self.root), "/", runner="local")
        return self.journal.decide(wish, recipe, Limits(0.0, 99), now=at)

    @property
    def store(self) -> Store:
        return Store(self.decision.recipe.store_url)

    def pipeline(self, **changed: Any) -> Pipeline:
        make = Make(text=changed.get("text", "row"))
        check = Check(examples=make.examples, verdict=changed.get("verdict", "yes"))
        fit = Fit(examples=make.examples, anomalies=check.anomalies)
        bless = Bless(model=fit.model, blessed=changed.get("blessed", True))
        push = Push(
            model=fit.model, blessing=bless.blessing, version=changed.get("version", 1)
        )
        listed: list[Component] = [make, check, fit, bless, push]
        return Pipeline("toy", listed[: changed.get("parts", 5)])

    def carry_out(self, decision: Decision | None = None, **changed: Any) -> Decision:
        """Carry the decision out; return how it stands then."""
        id = (decision or self.decision).id

        def load(recipe: Recipe) -> tuple[Pipeline, Mapping[str, Any]]:
            self.made += 1
            return self.pipeline(**changed), {"rows": 3}

        carry_out(self.journal, id, load)
        return self.journal.decision(id)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    return Site(tmp_path)


def test_a_decision_is_run_and_the_run_says_why(site: Site) -> None:
    done = site.carry_out()
    assert (done.stage, done.outcome) == (Stage.ENDED, "pushed")
    serving = Path("serving").absolute()
    assert done.result == (
        f"The candidate earned its blessing and is version 1 of '{serving}'."
    )
    (record,) = site.store.runs()
    assert record.id == done.run_id == RUN_ID
    assert record.state is RunState.COMPLETE
    assert record.properties["retraining_decision"] == 1
    assert record.properties["parameter_rows"] == 3
    assert why_started(record) == (
        "Retraining of 'taxi' (by alert, decision 1).",
        *WHY,
        "No run of 'taxi' goes on; cool-down and limit allow one.",
    )


def test_the_decision_is_in_the_lineage_of_the_version_that_came_of_it(
    site: Site,
) -> None:
    site.carry_out()
    (pushed,) = site.store.artifacts(PushedModel)
    (found,) = lineage.upstream(site.store, pushed).of(RetrainingDecision)
    assert found.path == decision_dir(site.journal.folder, RUN_ID)
    assert found.digest == folder_digest(found.path)
    assert found.properties["reasons"] in (list(WHY), str(list(WHY)))
    assert why_decided(found)[1:2] == WHY
    # And from there to all that came of it.
    came = lineage.downstream(site.store, found)
    assert [each.id for each in came.of(PushedModel)] == [pushed.id]
    assert len(came.of(Model)) == 1


def test_only_what_a_run_begins_with_reads_the_decision(site: Site) -> None:
    site.carry_out()
    readers = [
        each.component
        for each in site.store.executions(RUN_ID)
        if "penstock_cause" in each.inputs
    ]
    assert readers == ["Make"]


def test_where_the_data_are_cached_what_is_made_of_them_reads_the_decision(
    site: Site,
) -> None:
    run(site.pipeline(blessed=False), site.root, runner=LocalRunner())
    site.carry_out()
    readers = [
        each.component
        for each in site.store.executions(RUN_ID)
        if "penstock_cause" in each.inputs
    ]
    assert readers == ["Bless"]
    (pushed,) = site.store.artifacts(PushedModel)
    assert lineage.upstream(site.store, pushed).of(RetrainingDecision)


def test_a_decision_changes_no_fingerprint(site: Site) -> None:
    run(site.pipeline(), site.root, runner=LocalRunner())
    done = site.carry_out()
    assert done.outcome == "unchanged"
    assert done.result == (
        "All was taken from earlier runs: data, code and parameters are the same. "
        "What is served stays as it was. Give the pipeline new spans to train on."
    )
    again = run(site.pipeline(), site.root, runner=LocalRunner())
    assert {each.state.value for each in again.executions.values()} == {"cached"}


def test_carried_out_again_a_decision_runs_nothing(site: Site) -> None:
    first = site.carry_out()
    assert site.carry_out() == first
    assert site.made == 1
    assert len(site.store.runs()) == 1


def test_while_somebody_carries_it_out_nobody_else_does(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pipelines.retraining._LOOKING_SECONDS", 0.05)
    with carrying_out(site.journal.folder, RUN_ID) as is_free:
        assert is_free
        assert site.carry_out().stage is Stage.DECIDED
    assert site.made == 0
    assert site.carry_out().outcome == "pushed"


def test_a_run_whose_outcome_was_not_written_down_is_found_in_the_lineage(
    site: Site,
) -> None:
    # As if the process had been killed between the run and the journal.
    run(site.pipeline(), site.root, runner=LocalRunner(), run_id=RUN_ID)
    assert site.carry_out().outcome == "pushed"
    assert site.made == 0
    assert len(site.store.runs()) == 1


def test_a_run_that_was_killed_before_anything_ran_is_begun(site: Site) -> None:
    site.root.mkdir()
    (site.root / ".penstock" / "runs" / RUN_ID).mkdir(parents=True)
    site.store.begin_run("toy", RUN_ID, {"penstock_pid": 1, "penstock_host": "here"})
    assert site.carry_out().outcome == "pushed"
    (record,) = site.store.runs()
    assert record.state is RunState.COMPLETE
    assert record.properties["retraining_decision"] == 1
    assert record.pipeline == "toy"


def test_a_candidate_that_is_not_blessed_changes_nothing_and_the_outcome_says_so(
    site: Site,
) -> None:
    done = site.carry_out(blessed=False)
    assert done.outcome == "not blessed"
    (model,) = site.store.artifacts(Model)
    assert done.result == (
        f"The candidate, Model {model.id}, is NOT_BLESSED: auc is 0.4, under 0.5. What "
        "is served stays as it was."
    )
    assert site.store.artifacts(PushedModel) == []
    assert site.store.run(RUN_ID).state is RunState.STOPPED


class RealFit(Fit):
    """Write a SavedModel that a server can load."""

    def run(self, context: RunContext) -> None:
        from tests.components.serving import served_models

        served_models.save(
            self.model.path / "Format-Serving",
            serving_default=(lambda module, x: x * module.half, served_models.DENSE),
        )


def test_the_champion_stays_unless_the_candidate_is_blessed(
    site: Site, tmp_path: Path
) -> None:
    serving = tmp_path / "real"

    def pushed(text: str, blessed: bool) -> Pipeline:
        make = Make(text=text)
        fit = RealFit(examples=make.examples)
        bless = Bless(model=fit.model, blessed=blessed)
        push = Pusher(model=fit.model, blessing=bless.blessing, serving_dir=serving)
        return Pipeline("toy", [make, fit, bless, push])

    carry_out(site.journal, 1, lambda _: (pushed("first", True), {}))
    assert site.journal.decision(1).result == (
        f"The candidate earned its blessing and is version 1 of '{serving}'."
    )
    before = (folder_manifest(serving / "1"), os.listdir(serving), stable(serving))
    second = site.decide("group 2", at=1_796_018_500.0)
    carry_out(site.journal, second.id, lambda _: (pushed("second", False), {}))
    done = site.journal.decision(second.id)
    assert done.outcome == "not blessed"
    assert done.result.endswith("What is served stays as it was.")
    after = (folder_manifest(serving / "1"), os.listdir(serving), stable(serving))
    assert after == before


def stable(serving: Path) -> str:
    """Return all that was ever done to a serving directory."""
    with Ledger(serving, read_only=True) as ledger:
        return str(ledger.events())


def test_what_a_verdict_stops_before_there_is_a_candidate_is_said(site: Site) -> None:
    done = site.carry_out(verdict="no")
    assert done.outcome == "stopped"
    assert done.result.startswith("'Fit' did not run: ")
    assert done.result.endswith("What is served stays as it was.")


@pytest.mark.parametrize(
    ("parts", "outcome", "result"),
    [
        (
            4,
            "blessed",
            "The candidate is blessed, and the pipeline pushes nothing. What is served "
            "stays as it was.",
        ),
        (
            3,
            "complete",
            "The run is complete, and it pushed nothing. What is served stays as it "
            "was.",
        ),
    ],
)
def test_a_pipeline_that_pushes_nothing_ends_with_less(
    site: Site, parts: int, outcome: str, result: str
) -> None:
    done = site.carry_out(parts=parts)
    assert (done.outcome, done.result) == (outcome, result)


class Break(Component):
    """Fail."""

    def run(self, context: RunContext) -> None:
        raise DataError("The data are gone.")


def test_a_run_that_fails_is_an_outcome_and_no_reason_to_try_again(site: Site) -> None:
    tries = []

    def load(recipe: Recipe) -> tuple[Pipeline, Mapping[str, Any]]:
        tries.append(recipe)
        return Pipeline("toy", [Break()]), {}

    for _ in range(2):
        assert carry_out(site.journal, 1, load)
    done = site.journal.decision(1)
    assert done.outcome == "failed"
    assert "The data are gone." in done.result
    assert done.result.endswith("What is served stays as it was.")
    assert len(tries) == 1


def test_a_pipeline_that_cannot_be_made_is_an_outcome(site: Site) -> None:
    def load(recipe: Recipe) -> tuple[Pipeline, Mapping[str, Any]]:
        raise PipelineError("There is no file 'pipe.py'. Check the path.")

    assert carry_out(site.journal, 1, load)
    done = site.journal.decision(1)
    assert done.outcome == "failed"
    assert done.result == (
        "There was nothing to run. There is no file 'pipe.py'. Check the path."
    )


def test_a_run_that_cannot_begin_is_tried_again(site: Site) -> None:
    site.root.write_text("no folder")
    with pytest.raises(PenstockError):
        site.carry_out()
    assert site.journal.decision(1).stage is Stage.STARTED
    site.root.unlink()
    assert site.carry_out().outcome == "pushed"


def test_a_run_that_was_killed_is_not_run_again_and_how_to_go_on_is_said(
    site: Site,
) -> None:
    (site.root / ".penstock" / "runs" / RUN_ID).mkdir(parents=True)
    live = site.root / ".penstock" / "live" / RUN_ID
    live.parent.mkdir()
    live.write_text("")
    site.store.begin_run("toy", RUN_ID, {"penstock_pid": 1, "penstock_host": "here"})
    site.store.begin_execution(Make(), pipeline="toy", run_id=RUN_ID, inputs={})
    done = site.carry_out()
    assert site.made == 0
    assert done.outcome == "abandoned"
    assert done.result == (
        "Its process (1 on 'here') ended without recording how: it was killed, or the "
        "machine went down. What is served stays as it was. 'penstock run pipe.py:toy "
        f"--resume {RUN_ID}' goes on with it."
    )


# --- run ids that are given


@pytest.mark.parametrize("run_id", ["../../x", "", "20261130", f"{RUN_ID}\n"])
def test_what_is_no_run_id_gets_a_sentence(site: Site, run_id: str) -> None:
    with pytest.raises(PipelineError) as raised:
        run(site.pipeline(), site.root, runner=LocalRunner(), run_id=run_id)
    assert str(raised.value) == (
        f"Run id '{run_id}' is none: ids look like '20261130-061500.123456', the "
        "moment in UTC. Give one that does, or none."
    )


def test_a_run_id_is_given_once(site: Site) -> None:
    run(site.pipeline(), site.root, runner=LocalRunner(), run_id=RUN_ID)
    with pytest.raises(PipelineError) as raised:
        run(site.pipeline(), site.root, runner=LocalRunner(), run_id=RUN_ID)
    assert str(raised.value) == (
        f"Run '{RUN_ID}' is in the lineage store already (complete), and a run is made "
        "once. Give another id, or none."
    )


def test_a_run_that_somebody_just_ran_has_no_reason(site: Site) -> None:
    result = run(site.pipeline(), site.root, runner=LocalRunner())
    assert why_started(site.store.run(result.run_id)) == ()


def test_a_second_decision_is_a_run_of_its_own(site: Site) -> None:
    site.carry_out()
    second = site.decide("group 2", at=1_796_018_500.0)
    done = site.carry_out(second, text="other", version=2)
    assert done.outcome == "pushed"
    assert [each.id for each in site.store.runs()] == [RUN_ID, second.run_id]
    (first, last) = site.store.artifacts(RetrainingDecision)
    assert (first.properties["decision"], last.properties["decision"]) == (1, 2)
    assert dataclasses.replace(done.recipe) == second.recipe
