"""Resumed and partial runs: what is executed, what is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Component, Options, RunContext, output
from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import ComponentFailed, MetadataError, PipelineError
from tests.pipelines.toys import Fit, Make, toy


class Count(Component):
    """Write how often it ran; never cached, and fails while it is told to."""

    examples: Examples
    ran: Path
    broken: Path = Path("never")
    options: Options = Options(cache=False)
    model: Model = output()

    def run(self, context: RunContext) -> None:
        with open(self.ran, "a") as file:
            file.write(f"{self.name}\n")
        if self.broken.exists():
            raise ValueError("broken")
        (self.model.path / "saved_model.pb").write_text("x")


class Join(Component):
    """Read two models."""

    first: Model
    second: Model
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "data").write_text("x")


def counted(folder: Path) -> Pipeline:
    """A pipeline of Make, two Counts beside each other, and a Join of them."""
    make = Make()
    good, bad = (
        Count(
            name=name,
            examples=make.examples,
            ran=folder / "ran",
            broken=folder / f"{name} is broken",
        )
        for name in ("good", "bad")
    )
    return Pipeline("p", [make, good, bad, Join(first=good.model, second=bad.model)])


def go(folder: Path, pipeline: Pipeline | None = None, **options: Any) -> RunResult:
    return run(
        pipeline or counted(folder),
        folder,
        runner=LocalRunner(),
        **options,
    )


def states(result: RunResult) -> dict[str, str]:
    return {name: each.state.value for name, each in result.executions.items()}


def failed_run(folder: Path) -> str:
    (folder / "bad is broken").touch()
    with pytest.raises(ComponentFailed) as raised:
        go(folder)
    (folder / "bad is broken").unlink()
    return raised.value.run_id


def test_a_resumed_run_runs_only_what_failed_and_what_depends_on_it(
    tmp_path: Path,
) -> None:
    first = failed_run(tmp_path)
    assert (tmp_path / "ran").read_text().split() in (["good", "bad"], ["bad", "good"])
    (tmp_path / "ran").unlink()
    result = go(tmp_path, resume=first)
    assert (tmp_path / "ran").read_text().split() == ["bad"]
    assert states(result) == {
        "Make": "cached",
        "good": "cached",
        "bad": "complete",
        "Join": "complete",
    }
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    assert store.run(result.run_id).properties["penstock_resumed_run"] == first
    (good,) = (e for e in store.executions(result.run_id) if e.component == "good")
    (old,) = (e for e in store.executions(first) if e.component == "good")
    assert good.properties["penstock_cached_execution"] == old.id
    assert {key: made.id for key, (made,) in good.outputs.items()} == {
        key: made.id for key, (made,) in old.outputs.items()
    }
    assert {key: read.id for key, (read,) in good.inputs.items()} == {
        key: read.id for key, (read,) in old.inputs.items()
    }


def test_a_complete_run_can_be_resumed_and_runs_nothing(tmp_path: Path) -> None:
    first = go(tmp_path)
    result = go(tmp_path, resume=first.run_id)
    assert set(states(result).values()) == {"cached"}
    assert result.state is RunState.COMPLETE


def test_what_is_gone_of_a_resumed_run_is_made_again(tmp_path: Path) -> None:
    first = go(tmp_path)
    (first["good"].outputs["model"].path / "saved_model.pb").unlink()
    result = go(tmp_path, resume=first.run_id)
    assert states(result) == {
        "Make": "cached",
        "good": "complete",
        "bad": "cached",
        "Join": "cached",
    }


def test_one_component_is_run_with_what_another_run_wrote(tmp_path: Path) -> None:
    first = go(tmp_path)
    (tmp_path / "ran").unlink()
    result = go(tmp_path, resume=first.run_id, only=["good"])
    assert states(result) == {"Make": "cached", "good": "complete"}
    assert (tmp_path / "ran").read_text().split() == ["good"]


def test_from_a_component_on_means_all_that_depends_on_it(tmp_path: Path) -> None:
    first = go(tmp_path)
    result = go(tmp_path, resume=first.run_id, from_=["good"])
    assert states(result) == {
        "bad": "cached",
        "Make": "cached",
        "good": "complete",
        "Join": "cached",
    }
    assert result["bad"].outputs["model"].id == first["bad"].outputs["model"].id


def test_to_a_component_means_all_that_it_depends_on(tmp_path: Path) -> None:
    result = go(tmp_path, to=["good"])
    assert states(result) == {"Make": "complete", "good": "complete"}


def test_from_one_to_another(tmp_path: Path) -> None:
    first = go(tmp_path)
    result = go(tmp_path, resume=first.run_id, from_=["good"], to=["good"])
    assert states(result) == {"Make": "cached", "good": "complete"}


def test_a_forced_component_is_run_again(tmp_path: Path) -> None:
    make = Make()
    pipeline = Pipeline("p", [make, Fit(examples=make.examples)])
    go(tmp_path, pipeline)
    result = go(tmp_path, pipeline, force=["Make"])
    assert states(result) == {"Make": "complete", "Fit": "cached"}


def refusal(kind: type[Exception], folder: Path, **options: Any) -> str:
    with pytest.raises(kind) as raised:
        go(folder, **options)
    return str(raised.value)


@pytest.mark.parametrize("option", ["only", "from_", "to", "force"])
def test_a_name_that_is_no_component_gets_a_near_miss(
    tmp_path: Path, option: str
) -> None:
    assert refusal(PipelineError, tmp_path, **{option: ["goood"]}) == (
        f"--{option.rstrip('_')} names 'goood', which pipeline 'p' does not contain "
        "(it has 'Join', 'Make', 'bad', 'good'). Did you mean 'good'?"
    )


def test_a_run_that_never_was(tmp_path: Path) -> None:
    go(tmp_path)
    store = tmp_path / "metadata.sqlite"
    assert refusal(MetadataError, tmp_path, resume="20200101-000000.000000") == (
        "Run '20200101-000000.000000' is not in the lineage store "
        f"'sqlite:///{store}'. 'penstock runs' lists what is."
    )


def test_a_run_of_another_pipeline(tmp_path: Path) -> None:
    other = go(tmp_path, toy())
    assert refusal(PipelineError, tmp_path, resume=other.run_id) == (
        f"Run '{other.run_id}' is of pipeline 'toy', not of 'p'. Name a run of 'p' "
        "('penstock runs' lists them)."
    )


def test_a_run_that_is_going_on(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    store.begin_run("p", "20260101-000000.000000", {})
    assert refusal(PipelineError, tmp_path, resume="20260101-000000.000000") == (
        "Run '20260101-000000.000000' is still going on. Wait for it, or end it, "
        "before another run takes its outputs."
    )


def test_from_after_to(tmp_path: Path) -> None:
    assert refusal(PipelineError, tmp_path, from_=["Join"], to=["Make"]) == (
        "Nothing lies from 'Join' to 'Make' in pipeline 'p': 'Make' does not depend on "
        "'Join'. Swap them."
    )
    assert refusal(PipelineError, tmp_path, from_=["good"], to=["bad"]) == (
        "Nothing lies from 'good' to 'bad' in pipeline 'p': 'bad' does not depend on "
        "'good'. Name components of which one depends on the other."
    )


def test_only_with_from(tmp_path: Path) -> None:
    assert refusal(PipelineError, tmp_path, only=["good"], from_=["bad"]) == (
        "--only names all that is executed, so that --from and --to add nothing. Give "
        "one or the other."
    )


def test_inputs_that_a_partial_run_lacks(tmp_path: Path) -> None:
    assert refusal(PipelineError, tmp_path, only=["good"]) == (
        "'good' reads outputs of 'Make', which is not executed, and 'p' has not run "
        "yet. Run all of it first."
    )
    first = failed_run(tmp_path)
    assert refusal(PipelineError, tmp_path, only=["good"]) == (
        "'good' reads outputs of 'Make', which is not executed. Name the run to take "
        f"them from with --resume, such as --resume {first}."
    )
    assert refusal(PipelineError, tmp_path, only=["Join"], resume=first) == (
        "'Join' reads outputs of 'bad', which is not executed, and run "
        f"'{first}' has none. Execute 'bad' too, or take it from another run."
    )


def test_inputs_of_a_partial_run_that_are_gone(tmp_path: Path) -> None:
    first = go(tmp_path)
    model = first["bad"].outputs["model"].path
    (model / "saved_model.pb").write_text("y")
    assert refusal(PipelineError, tmp_path, only=["Join"], resume=first.run_id) == (
        f"'bad' cannot be taken from run '{first.run_id}': its output 'model' has "
        f"other bytes in '{model}' than were recorded. Execute it too, or take it from "
        "another run."
    )


def test_states_of_a_partial_run_are_recorded(tmp_path: Path) -> None:
    first = go(tmp_path)
    result = go(tmp_path, resume=first.run_id, only=["good"])
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    assert {each.component: each.state for each in store.executions(result.run_id)} == {
        "Make": State.CACHED,
        "good": State.COMPLETE,
    }
