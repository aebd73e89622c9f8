"""Which artifacts a policy of housekeeping keeps, and why.

What is kept, is kept with all of its lineage upward, through what first wrote each
artifact, and with what the same executions wrote beside it: an evaluation beside its
blessing. So nothing that is left has inputs without bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from penstock.components.serving.retention import why_used
from penstock.pipelines.metadata import ExecutionRecord, RunRecord, RunState, Store
from penstock.pipelines.overrides import block_list
from penstock.pipelines.pins import pins
from penstock.pipelines.served import (
    normal,
    serving_dir_of,
    standing_behind,
    taken_back,
)
from penstock.schemas.artifacts import (
    Artifact,
    Model,
    ModelBlessing,
    PushedModel,
)
from penstock.schemas.errors import (
    PipelineError,
    ServingError,
    did_you_mean,
    quoted,
)

DAY_SECONDS = 86_400.0

AT_ONCE = 500
"""How many artifacts the store is asked about in one call."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is kept beside what is served, what is pinned, and what a run still reads.

    Attributes:
        runs: How many of the newest runs of each pipeline keep what they read and
            wrote.
        blessed: How many of the newest blessed models of each pipeline are kept; what
            `LatestBlessed()` could give is kept in any case.
        younger_than_seconds: Runs that began or ended less than this ago keep what
            they read and wrote.
        unserved: Serving directories that are gone for good. Without this, what was
            pushed to a directory that is missing or empty counts as served: it may lie
            on a file system that is not there just now.
    """

    runs: int = 5
    blessed: int = 3
    younger_than_seconds: float = 30 * DAY_SECONDS
    unserved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("runs", "blessed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise PipelineError(
                    f"Policy.{name} is {value!r}. Pass a whole number of at least 0."
                )
        seconds = self.younger_than_seconds
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not math.isfinite(seconds) or seconds < 0:
            raise PipelineError(
                f"Policy.younger_than_seconds is {seconds!r}, which is no length of "
                "time. Pass a number of seconds of at least 0."
            )


class Why(enum.Enum):
    """Why something is kept."""

    RUNNING = "running"
    """A run that has not ended reads or wrote it."""
    SERVED = "served"
    """A version lies in its serving directory, or may lie there."""
    PINNED = "pinned"
    """Somebody said so."""
    BLESSED = "blessed"
    """It is a newest blessed model, or what `LatestBlessed()` could give."""
    LAST = "last runs"
    """One of the last runs of its pipeline reads or wrote it."""
    YOUNG = "young"
    """A run that is young enough reads or wrote it."""
    SAID = "said"
    """It records what somebody said: a forced blessing, a block."""
    SHARED = "shared"
    """Something that is kept lies in the same place."""


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why something is kept.

    Attributes:
        why: In one word.
        text: In a clause that names what it is kept for.
    """

    why: Why
    text: str


@dataclasses.dataclass(frozen=True)
class Retained:
    """What a policy keeps.

    Attributes:
        artifacts: Why each artifact is kept, by its number.
        runs: Why each run is kept, by its id.
        executions: The executions of these runs, and what first wrote these artifacts.
    """

    artifacts: Mapping[int, Reason]
    runs: Mapping[str, Reason]
    executions: tuple[ExecutionRecord, ...]


def retained(
    store: Store,
    artifacts: Mapping[int, Artifact],
    gone: Collection[int],
    policy: Policy,
    now: float,
) -> Retained:
    """Return what a policy keeps.

    Args:
        store: The lineage store.
        artifacts: All that it has, by number.
        gone: Numbers of those without their bytes, which no run can get any more.
        policy: What is to be kept.
        now: The present, in seconds since 1970.

    Raises:
        PipelineError: If the policy names a serving directory that nothing was pushed
            to.
    """
    records = store.runs()
    runs = {each.id: reason for each, reason in _runs(records, policy, now)}
    pipelines = sorted({each.pipeline for each in records if each.pipeline})
    walk = _Walk(store, artifacts)
    walk.keep_runs(runs, {Why.RUNNING})
    walk.keep_judged(_served(artifacts.values(), policy))
    walk.keep_judged(
        {
            number: Reason(Why.PINNED, each.reason.rstrip("."))
            for number, each in pins(store).items()
        }
    )
    left = {each: made for each, made in artifacts.items() if each not in gone}
    walk.keep_judged(_blessed(store, left, pipelines, policy))
    walk.keep_runs(runs, {Why.LAST, Why.YOUNG})
    return Retained(walk.reasons, runs, tuple(walk.executions.values()))


class _Walk:
    """Keeps artifacts with their lineage; the first reason for each counts."""

    def __init__(self, store: Store, artifacts: Mapping[int, Artifact]) -> None:
        self.store = store
        self.artifacts = artifacts
        self.reasons: dict[int, Reason] = {}
        self.executions: dict[int, ExecutionRecord] = {}
        self.judgments: dict[int, list[int]] = {}
        for number, each in artifacts.items():
            judged = _judged(each)
            if judged is not None:
                self.judgments.setdefault(judged, []).append(number)

    def keep_runs(self, runs: Mapping[str, Reason], kinds: set[Why]) -> None:
        """Keep what the runs read and wrote that are kept for such reasons."""
        front: dict[int, Reason] = {}
        for run_id, reason in runs.items():
            if reason.why in kinds:
                for execution in self.store.executions(run_id):
                    self.executions[execution.id] = execution
                    for each in _linked(execution):
                        front.setdefault(each, reason)
        self._keep(front)

    def keep_judged(self, front: Mapping[int, Reason]) -> None:
        """Keep artifacts, and what was said of the models among and behind them."""
        self._keep(front)
        said: dict[int, Reason] = {}
        for number, reason in front.items():
            for model in self._models(self.artifacts.get(number)):
                for blessing in self.judgments.get(model, ()):
                    said.setdefault(blessing, reason)
        self._keep(said)

    def _models(self, artifact: Artifact | None) -> list[int]:
        if isinstance(artifact, PushedModel):
            pushers = self.store.first_records([artifact]).values()
            read = itertools.chain.from_iterable(
                made for each in pushers for made in each.inputs.values()
            )
            return [each.id for each in read if isinstance(each, Model) and each.id]
        return [artifact.id] if isinstance(artifact, Model) and artifact.id else []

    def _keep(self, front: Mapping[int, Reason]) -> None:
        front = {each: why for each, why in front.items() if each not in self.reasons}
        while front:
            self.reasons.update(front)
            reached: dict[int, Reason] = {}
            # A run that goes on may have recorded more since they were looked up.
            asked = [self.artifacts[each] for each in front if each in self.artifacts]
            for start in range(0, len(asked), AT_ONCE):
                writers = self.store.first_records(asked[start : start + AT_ONCE])
                for number, writer in writers.items():
                    self.executions[writer.id] = writer
                    for each in _linked(writer):
                        if each not in self.reasons:
                            reached.setdefault(each, front[number])
            front = reached


def _linked(execution: ExecutionRecord) -> Iterator[int]:
    """Yield the numbers of what an execution read and wrote."""
    for side in (execution.inputs, execution.outputs):
        for each in itertools.chain.from_iterable(side.values()):
            if each.id is not None:
                yield each.id


def _judged(artifact: Artifact) -> int | None:
    """Return the number of the model that an artifact is a blessing of, if it is."""
    if not isinstance(artifact, ModelBlessing):
        return None
    number = artifact.properties.get("current_model_id")
    return int(number) if isinstance(number, int | float) else None


def _runs(
    records: Iterable[RunRecord], policy: Policy, now: float
) -> Iterator[tuple[RunRecord, Reason]]:
    newer: dict[str, int] = {}  # runs of each pipeline
    for run in reversed(list(records)):
        before = newer.get(run.pipeline, 0)
        newer[run.pipeline] = before + 1
        age = now - max(run.started, run.finished or run.started)
        if run.state is RunState.RUNNING:
            text = f"run {run.id} has not ended, or was killed and is not repaired yet"
            yield run, Reason(Why.RUNNING, text)
        elif before < policy.runs:
            which = "the last" if policy.runs == 1 else f"one of the last {policy.runs}"
            text = f"run {run.id} is {which} of '{run.pipeline}'"
            yield run, Reason(Why.LAST, text)
        elif age < policy.younger_than_seconds:
            limit = _length(policy.younger_than_seconds)
            text = f"run {run.id} is younger than {limit}"
            yield run, Reason(Why.YOUNG, text)


def _length(seconds: float) -> str:
    units = {"day": DAY_SECONDS, "hour": 3_600.0, "minute": 60.0, "second": 0.0}
    unit = next(each for each, length in units.items() if seconds >= length)
    number = seconds / (units[unit] or 1.0)
    return f"{number:g} {unit}{'s' * (number != 1)}"


def _served(artifacts: Iterable[Artifact], policy: Policy) -> dict[int, Reason]:
    pushed = [each for each in artifacts if isinstance(each, PushedModel)]
    places = {each: serving_dir_of(each) for each in pushed}
    known = {place for place in places.values() if place}
    unserved = {normal(each) for each in policy.unserved}
    for wrong in sorted(unserved - known):
        raise PipelineError(
            f"No model was pushed to the serving directory '{wrong}' (models were to "
            f"{quoted(known)}).{did_you_mean(wrong, known)} Name it as it was given to "
            "Pusher."
        )
    reasons = {}
    for each, place in places.items():
        text = _why_served(each, place, place in unserved)
        if text and each.id is not None:
            reasons[each.id] = Reason(Why.SERVED, text)
    return reasons


def _why_served(pushed: PushedModel, place: str, is_gone: bool) -> str:
    """Return why a pushed model counts as served, or the empty string."""
    if not place:
        return ""
    version = f"version {pushed.properties.get('pushed_version', '?')}"
    if "://" in place:
        why = "no local folder"
    else:
        folder = Path(place)
        if os.path.lexists(folder / str(pushed.properties.get("pushed_version"))):
            return f"{version} lies in '{place}'"
        needed = _why_needed(pushed)
        if needed:
            return f"{version} of '{place}' {needed}"
        try:
            with os.scandir(folder) as entries:
                why = "" if any(entries) else "empty"
        except FileNotFoundError:
            why = "missing"
        except OSError as error:
            why = f"not readable ({error.strerror})"
    if not why or is_gone:
        return ""
    return f"{version} may lie in '{place}', which is {why}"


def _why_needed(pushed: PushedModel) -> str:
    """Return why a version is needed though nothing lies under its number.

    It may be quarantined, and released again; or somebody deleted what is stable.
    """
    try:
        standing = standing_behind(pushed)
    except ServingError as error:
        return f"may be needed: {error}"
    if standing is None or standing.deleted is not None:
        return ""
    if standing.quarantined is not None:
        return f"is quarantined: {standing.quarantined.rstrip('.')}"
    used = why_used(standing)
    return f"is gone, and {used}" if used else ""


def _blessed(
    store: Store,
    artifacts: Mapping[int, Artifact],
    pipelines: Iterable[str],
    policy: Policy,
) -> dict[int, Reason]:
    blocked = block_list(store)
    reasons: dict[int, Reason] = {}
    for pipeline in pipelines:
        numbers = {
            _judged(each)
            for each in store.artifacts(ModelBlessing, pipeline=pipeline)
            if each.properties.get("blessed") == 1
        }
        newest_first = [
            model
            for number in sorted((each for each in numbers if each), reverse=True)
            if isinstance(model := artifacts.get(number), Model)
            and blocked.entry(model) is None
        ]
        kept = _last(newest_first, policy.blessed, store)
        for model in kept:
            assert model.id is not None
            text = f"Model {model.id} is one of the last blessed of '{pipeline}'"
            reasons[model.id] = Reason(Why.BLESSED, text)
    return reasons


def _last(newest_first: list[Model], count: int, store: Store) -> list[Model]:
    """Return the last models, and what `LatestBlessed()` could give beside them.

    That is the newest with two digests of those that were not taken back.
    """
    kept = newest_first[:count]
    good: list[Model] = []
    for each in newest_first:
        if good and (not good[0].digest or each.digest == good[0].digest):
            continue
        if not taken_back(store, each):
            good.append(each)
        if len(good) == 2:
            break
    return [*kept, *(each for each in good if each not in kept)]
