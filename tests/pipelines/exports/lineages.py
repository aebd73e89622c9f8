"""Lineages made by hand, for tests of how they are exported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from penstock.pipelines.lineage import Lineage
from penstock.pipelines.metadata import ExecutionRecord, State
from penstock.schemas.artifacts import (
    Artifact,
    ExampleAnomalies,
    Examples,
    ExternalArtifact,
    Model,
    ModelBlessing,
    PushedModel,
)

STARTED = 1_700_000_000.25


def execution(
    id: int,
    component: str,
    inputs: Mapping[str, tuple[Artifact, ...]],
    outputs: Mapping[str, tuple[Artifact, ...]],
    *,
    state: State = State.COMPLETE,
    reason: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> ExecutionRecord:
    """Return an execution of one run that began in the order of its number."""
    parts = {"code": "sha256:" + 64 * "c", "python": "3.11", "library numpy": "1.26.4"}
    return ExecutionRecord(
        id=id,
        component=component,
        type=f"penstock.components.{component}",
        run_id="20250102-030405.678901",
        pipeline="taxi",
        state=state,
        reason=reason,
        started=STARTED + id,
        seconds=None if state is State.RUNNING else 0.5,
        properties={
            **(parameters or {}),
            "penstock_parts": json.dumps(parts),
            "penstock_rows": 1_000,
        },
        inputs=inputs,
        outputs=outputs,
    )


def _made(kind: type[Artifact], id: int, **properties: Any) -> Any:
    return kind(
        f"/root/taxi/{kind.TYPE_NAME}/{id}",
        properties=properties,
        digest=f"sha256:{id:064x}",
        id=id,
    )


def taxi_lineage() -> Lineage:
    """Return what made a pushed version, of all sorts of artifacts and executions."""
    files = [_made(ExternalArtifact, n, span=n) for n in (1, 2)]
    files[0]._uri = "/data/day-{SPAN}/*.csv"
    examples = [_made(Examples, n, span=n - 2, note='a "word"') for n in (3, 4)]
    anomalies = _made(ExampleAnomalies, 5, blessed={"train": 1})
    old, new = _made(Model, 6), _made(Model, 7, auc=0.75)
    refused = _made(ModelBlessing, 8, blessed=0, verdict="NOT_BLESSED")
    blessing = _made(ModelBlessing, 9, blessed=1, verdict="BLESSED", reasons=["good"])
    pushed = _made(PushedModel, 10, pushed_version="3", pushed_destination="/s/3")
    artifacts = [*files, *examples, anomalies, old, new, refused, blessing, pushed]
    executions = [
        execution(1, "Gen", {"external": (files[0],)}, {"examples": (examples[0],)}),
        execution(
            2,
            "Gen",
            {"external": (files[1],)},
            {"examples": (examples[1],)},
            state=State.CACHED,
        ),
        execution(
            3, "Check", {"examples": (examples[1],)}, {"anomalies": (anomalies,)}
        ),
        execution(4, "Trainer", {"examples": (examples[0],)}, {"model": (old,)}),
        execution(
            5,
            "Trainer",
            {"examples": tuple(examples), "anomalies": (anomalies,)},
            {"model": (new,)},
            parameters={"train_steps": 1_000, "train_fn": "taxi.train"},
        ),
        execution(6, "Evaluator", {"model": (old,)}, {"blessing": (refused,)}),
        execution(
            7,
            "Evaluator",
            {"model": (new,), "baseline": (old,)},
            {"blessing": (blessing,)},
        ),
        execution(
            8,
            "Pusher",
            {"model": (new,), "blessing": (blessing,)},
            {"pushed": (pushed,)},
        ),
        execution(
            9,
            "Report",
            {"blessing": (refused,)},
            {},
            state=State.FAILED,
            reason="'Report' failed in say (report.py, line 3): ValueError: no words",
        ),
        execution(10, "Waiter", {"model": (new,)}, {}, state=State.RUNNING),
    ]
    return Lineage(
        pushed,
        {each.id: each for each in artifacts},
        {each.id: each for each in executions},
    )


def lineage_of_text(text: str) -> Lineage:
    """Return a lineage that says one text wherever data is shown."""
    artifact = Artifact(f"/x/{text}", properties={"note": text, text: text}, id=1)
    artifact.digest = text
    step = execution(
        1, text, {text: (artifact,)}, {}, reason=text, parameters={text: 1}
    )
    step = dataclasses.replace(step, run_id=text, pipeline=text, type=text)
    return Lineage(artifact, {1: artifact}, {1: step})


def chain(length: int) -> Lineage:
    """Return a lineage of so many executions, each of what the one before wrote."""
    artifacts = [_made(Examples, n) for n in range(1, length + 2)]
    executions = [
        execution(n + 1, "Step", {"a": (artifacts[n],)}, {"b": (artifacts[n + 1],)})
        for n in range(length)
    ]
    return Lineage(
        artifacts[0],
        {each.id: each for each in artifacts},
        {each.id: each for each in executions},
    )
