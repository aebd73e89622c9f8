"""Carries out what was decided on retraining: runs the pipeline once, and records why.

The id of the run is given with the decision, before anything runs; so whether a
decision was carried out is a question to the lineage store, whatever became of the
processes that were to do it. The run carries the decision with its reasons as
properties and reads it as an artifact, `RetrainingDecision`, which thereby is in the
lineage of every version that comes of it.

Nothing here pushes: the pipeline does, if its own gates let it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.components.monitoring.retraining.journal import (
    Decision,
    Journal,
    Recipe,
    Stage,
)
from penstock.components.monitoring.retraining.places import (
    carrying_out,
    decision_dir,
)
from penstock.pipelines.disk import sync, sync_folder, writing_below
from penstock.pipelines.metadata import (
    ExecutionRecord,
    RunRecord,
    RunState,
    State,
    Store,
)
from penstock.pipelines.repair import repair
from penstock.schemas.artifacts import (
    Answer,
    Artifact,
    ModelBlessing,
    PropertyValue,
    PushedModel,
)
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import ComponentFailed, HookFailed, PenstockError

if TYPE_CHECKING:
    from penstock.pipelines.pipeline import Pipeline

_STANDS = "What is served stays as it was."

_LOOKING_SECONDS = (
    5.0  # who only looks whether a decision is carried out is done by then
)

Load = Callable[[Recipe], "tuple[Pipeline, Mapping[str, Any]]"]
"""Returns the pipeline of a recipe, and the arguments that it was made with."""


class RetrainingDecision(Artifact):
    """Why a model was trained again: a folder with `decision.json`."""

    TYPE_NAME = "RetrainingDecision"
    PROPERTIES: ClassVar[Mapping[str, type]] = {"model": str, "reason": str}


def carry_out(journal: Journal, id: int, load: Load) -> bool:
    """Do what is left to do of a decision: run, or find out what came of the run.

    Called for the same decision by any number of processes, at any time, it makes one
    run.

    Args:
        journal: Where the decision is.
        id: Its number.
        load: Makes the pipeline.

    Returns:
        Whether its outcome is known now; if not, somebody else is at work on it.

    Raises:
        PenstockError: If the run could not begin, or its outcome not be read; it is to
            be tried again.
    """
    decision = journal.decision(id)
    run_id = decision.run_id
    if decision.stage is Stage.ENDED:
        return True
    with carrying_out(journal.folder, run_id, wait_seconds=_LOOKING_SECONDS) as is_free:
        if not is_free:
            return False
        decision = journal.decision(id)
        if decision.outcome:
            return True
        recipe = decision.recipe
        if not _has_begun(recipe, run_id):
            try:
                pipeline, arguments = load(recipe)
            except PenstockError as error:
                journal.end(id, "failed", f"There was nothing to run. {error}")
                return True
            _run(journal, decision, pipeline, arguments)
        store = Store(recipe.store_url)
        repair(Path(recipe.root), store)
        journal.end(id, *outcome_of(store, run_id, recipe))
        return True


def _has_begun(recipe: Recipe, run_id: str) -> bool:
    """Return whether the run is recorded, and any of its components."""
    if not recipe.store and not (Path(recipe.root) / "metadata.sqlite").exists():
        return False
    store = Store(recipe.store_url)
    record = store.find_run(run_id)
    if record is None:
        return False
    is_open = record.state in (RunState.RUNNING, RunState.ABANDONED)
    return not is_open or bool(store.executions(run_id))


def _run(
    journal: Journal,
    decision: Decision,
    pipeline: Pipeline,
    arguments: Mapping[str, Any],
) -> None:
    """Run the pipeline, whatever comes of it; that is in the lineage store then.

    Raises:
        PenstockError: If it could not begin.
    """
    from penstock.pipelines.run import run
    from penstock.pipelines.runners import BeamDagRunner, LocalRunner

    cause = _artifact(journal, decision)
    journal.begin(decision.id)
    recipe = decision.recipe
    try:
        run(
            pipeline,
            recipe.root,
            store=recipe.store or None,
            runner=LocalRunner() if recipe.runner == "local" else BeamDagRunner(),
            parameters=arguments,
            run_id=decision.run_id,
            cause=cause,
            properties=properties_of(decision),
        )
    except (ComponentFailed, HookFailed):
        pass  # recorded
    except PenstockError:
        if not _has_begun(recipe, decision.run_id):
            raise


def properties_of(decision: Decision) -> dict[str, PropertyValue]:
    """Return what a run carries of the decision that it was started by."""
    return {
        "retraining_decision": decision.id,
        "retraining_model": decision.model,
        "retraining_source": decision.source.value,
        "retraining_reason": decision.reason,
        "retraining_reasons": list(decision.reasons),
        "retraining_because": decision.because,
        "retraining_decided": decision.decided,
    }


def why_started(record: RunRecord) -> tuple[str, ...]:
    """Return why a run was started, a sentence each; none if somebody just ran it."""
    prefix = "retraining_"
    said = {
        key.removeprefix(prefix): value
        for key, value in record.properties.items()
        if key.startswith(prefix)
    }
    return _sentences(said) if "decision" in said else ()


def why_decided(decision: Artifact) -> tuple[str, ...]:
    """Return why a model was trained again, a sentence each.

    Args:
        decision: A RetrainingDecision of the store.
    """
    return _sentences(decision.properties)


def _sentences(said: Mapping[str, PropertyValue]) -> tuple[str, ...]:
    reasons = said.get("reasons", [])
    listed = json.loads(reasons) if isinstance(reasons, str) else reasons
    assert isinstance(listed, list)
    how = f"by {said.get('source')}, decision {said.get('decision')}"
    return (
        f"Retraining of '{said.get('model')}' ({how}).",
        *map(str, listed),
        str(said.get("because", "")),
    )


def _artifact(journal: Journal, decision: Decision) -> RetrainingDecision:
    """Write down what was decided, for the lineage; the same bytes every time."""
    folder = decision_dir(journal.folder, decision.run_id)
    document = {
        "decision": decision.id,
        "model": decision.model,
        "source": decision.source.value,
        "reason": decision.reason,
        "reasons": list(decision.reasons),
        "because": decision.because,
        "decided": decision.decided,
        "evidence": dict(decision.evidence),
        "run": decision.run_id,
        "target": decision.recipe.target,
        "params": dict(decision.recipe.params),
    }
    with writing_below(journal.folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "decision.json").write_text(
            json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        sync_folder(folder)
        sync(folder.parent)
    return RetrainingDecision(
        folder,
        digest=folder_digest(folder),
        properties={
            "model": decision.model,
            "reason": decision.reason,
            "reasons": list(decision.reasons),
            "decision": decision.id,
            "source": decision.source.value,
            "because": decision.because,
        },
    )


def outcome_of(store: Store, run_id: str, recipe: Recipe) -> tuple[str, str]:
    """Return a word and a sentence for what came of a run.

    Args:
        store: The lineage store, which has the run.
        run_id: Its id.
        recipe: What was run.

    Returns:
        `pushed`, `not blessed`, `blessed`, `unchanged`, `stopped`, `complete`,
        `failed`, `canceled` or `abandoned`; and the sentence.
    """
    record = store.run(run_id)
    executions = store.executions(run_id)
    made = [each for each in executions if each.state is State.COMPLETE]
    for each in _written(made):
        if isinstance(each, PushedModel):
            return "pushed", (
                f"The candidate earned its blessing and is version "
                f"{each.properties.get('pushed_version')} of "
                f"'{Path(str(each.properties.get('pushed_destination'))).parent}'."
            )
    if record.state is RunState.FAILED:
        return "failed", f"{record.reason} {_STANDS}"
    if record.state is RunState.CANCELED:
        return "canceled", f"{record.reason} {_STANDS}"
    if record.state in (RunState.ABANDONED, RunState.RUNNING):
        return "abandoned", (
            f"{record.reason} {_STANDS} 'penstock run {recipe.target} --resume "
            f"{run_id}' goes on with it."
        )
    judged = [
        each
        for each in _written(
            each for each in executions if each.state in (State.COMPLETE, State.CACHED)
        )
        if isinstance(each, ModelBlessing)
    ]
    for blessing in judged:
        if blessing.answer is not Answer.YES:
            model = blessing.properties.get("current_model_id", "")
            why = " ".join(blessing.reasons_against or blessing.reasons)
            return "not blessed", (
                f"The candidate, Model {model}, is {blessing.word}: {why} {_STANDS}"
            )
    if record.state is RunState.STOPPED:
        return "stopped", f"{record.reason} {_STANDS}"
    if not made:
        return "unchanged", (
            "All was taken from earlier runs: data, code and parameters are the same. "
            f"{_STANDS} Give the pipeline new spans to train on."
        )
    if judged:
        return "blessed", (
            f"The candidate is blessed, and the pipeline pushes nothing. {_STANDS}"
        )
    return "complete", f"The run is complete, and it pushed nothing. {_STANDS}"


def _written(executions: Any) -> list[Artifact]:
    found: list[ExecutionRecord] = list(executions)
    return [
        artifact
        for each in found
        for artifact in itertools.chain(*each.outputs.values())
    ]
