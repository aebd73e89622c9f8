"""The decision of one look at a rollout: values in, an action and its reasons out.

No clock, no files, no network. The arithmetic is that of `kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.components.serving.rollout.kernels import (
    ACTIONS,
    BURN_IN_EVENTS,
    BURN_IN_UNITS,
    STATES,
    Action,
    Arms,
    Array,
    Measured,
    State,
    Sums,
    Tallies,
    choose,
    measure,
)
from penstock.components.serving.rollout.plan import Guard, Rollout, duration_text
from penstock.schemas.errors import ServingError, did_you_mean, quoted


@dataclass(frozen=True)
class Pair:
    """A number of distinct units in each arm.

    Raises:
        ServingError: One is negative.
    """

    stable: int = 0
    candidate: int = 0

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.stable < 0 or self.candidate < 0:
            raise ServingError(
                f"Counts of units are {self.stable} and {self.candidate}, but nothing "
                "is counted below 0. Report counts since the step's beginning."
            )

    @property
    def total(self) -> int:
        """Both arms together."""
        return self.stable + self.candidate


@dataclass(frozen=True)
class Moments:
    """What one arm's units add up to in one business metric.

    Attributes:
        units: Distinct units.
        events: Units with a nonzero value.
        total: Sum of the units' values.
        squares: Sum of their squares.
    """

    units: int = 0
    events: int = 0
    total: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True)
class StepEvidence:
    """What was observed in one step; counts of steps are never added up.

    Attributes:
        weight: Fraction of units on the candidate.
        seconds: How long the step was watched.
        units: Distinct units first seen in this step.
        failing: Distinct units whose first failure of the rollout fell in this step.
            What callers did wrong is no failure; a fallback answer is the candidate's.
        slow: Distinct units whose first slow answer of the rollout fell in this step.
            Slow is a stable answer over t, or a candidate's over max_ratio * t, where t
            is stable's quantile, fixed when the step was entered.
        values: By metric, stable's and the candidate's moments over the units first
            seen in this step.
        fresh: Whether there are reports newer than the step's beginning and younger
            than the plan's `stale_after`.
        seen: Distinct units that the candidate answered in this step, also those seen
            before; None if only new units are counted.
    """

    weight: float
    seconds: float
    units: Pair = Pair()
    failing: Pair = Pair()
    slow: Pair = Pair()
    values: Mapping[str, tuple[Moments, Moments]] = field(default_factory=dict)
    fresh: bool = True
    seen: int | None = None


@dataclass(frozen=True)
class GuardState:
    """What a guard says.

    Attributes:
        name: The guard.
        evidence: Its e-value: 1 or less on average if nothing is wrong.
        limit: The e-value at which it fails; infinite if it tests nothing.
        state: Its word.
        sentence: Why, with the counts.
    """

    name: str
    evidence: float
    limit: float
    state: State
    sentence: str


@dataclass(frozen=True)
class Decision:
    """What to do now.

    Attributes:
        action: The word.
        reasons: Sentences; at least one.
        guards: Every guard of the plan, in its order.
    """

    action: Action
    reasons: tuple[str, ...]
    guards: tuple[GuardState, ...]


def decide(
    plan: Rollout, steps: Sequence[StepEvidence], rollout_seconds: float
) -> Decision:
    """Return what to do with a rollout at one look.

    In this order: without fresh evidence nothing is concluded from it; a failed guard
    rolls back or holds, as it says; a last step that is complete is promoted; after the
    deadline the plan's `on_deadline` is done; a step that is complete advances;
    anything else holds. A step is complete when its time and its units are reached and
    no guard failed, is on watch or has no data yet.

    Args:
        plan: The plan.
        steps: The evidence of every step from the first to the current one.
        rollout_seconds: How long the rollout has lasted, while it was watched.

    Raises:
        ServingError: The evidence is not that of this plan's steps.
    """
    _check(plan, steps)
    tallies = tallies_of(plan, steps)
    measured = measure(plan, tallies)
    states = tuple(
        _guard_state(plan, guard, measured.get(guard.name), steps)
        for guard in plan.guards
    )
    if not steps:
        return Decision("hold", ("No step of the rollout has begun.",), states)
    current = steps[-1]
    code = choose(
        plan,
        measured,
        step=np.array(len(steps) - 1),
        seconds=np.array(current.seconds),
        seen=np.array(seen_units(current)),
        fresh=np.array(current.fresh),
        rollout_seconds=np.array(rollout_seconds),
    )
    action = ACTIONS[int(code)]
    reasons = _reasons(plan, steps, rollout_seconds, action, states)
    return Decision(action, reasons, states)


def seen_units(step: StepEvidence) -> int:
    """Return how many distinct units the candidate is known to have answered."""
    return step.units.candidate if step.seen is None else step.seen


def unreported(plan: Rollout, steps: Sequence[StepEvidence]) -> str | None:
    """Return a sentence on a guard whose metric nobody reports, or None.

    Said as soon as the current step has fresh evidence of as many units in both arms as
    a mean needs, none of which came with the metric. Until then nobody can tell.

    Args:
        plan: The plan.
        steps: As `decide` takes them.
    """
    if not steps or not steps[-1].fresh:
        return None
    stable = sum(step.units.stable for step in steps)
    candidate = sum(step.units.candidate for step in steps)
    if min(stable, candidate) < BURN_IN_UNITS:
        return None
    reported = {
        metric
        for step in steps
        for metric, arms in step.values.items()
        if arms[0].units or arms[1].units
    }
    for guard in plan.guards:
        if guard.kind == "business" and guard.metric not in reported:
            return (
                f"Guard '{guard.name}' watches the metric '{guard.metric}', which none "
                f"of {stable + candidate:,} units was reported with (reported: "
                f"{quoted(reported)}).{did_you_mean(guard.metric, reported)} Report it "
                "to the router, or start a rollout whose plan does not guard it."
            )
    return None


def _arms(pair: Pair) -> tuple[int, int]:
    return pair.stable, pair.candidate


def _check(plan: Rollout, steps: Sequence[StepEvidence]) -> None:
    if len(steps) > len(plan.steps):
        raise ServingError(
            f"There is evidence of {len(steps)} steps, but the plan of "
            f"'{plan.model}' has {len(plan.steps)}. Pass the evidence of this plan."
        )
    for number, (step, planned) in enumerate(zip(steps, plan.steps, strict=False), 1):
        if not math.isclose(step.weight, planned.fraction, rel_tol=1e-9):
            raise ServingError(
                f"Step {number} of the rollout of '{plan.model}' was observed at "
                f"{100 * step.weight:g} %, where the plan says {planned.weight:g} %. "
                "Counts of another weight prove nothing; pass the evidence of this "
                "plan."
            )


def tallies_of(plan: Rollout, steps: Sequence[StepEvidence]) -> Tallies:
    """Return the evidence of one rollout as the kernels take it."""
    size = len(plan.steps)

    def padded(values: Sequence[float]) -> Array:
        return np.array([*values, *[0.0] * (size - len(values))], np.float64)

    def arms(pairs: Sequence[tuple[float, float]]) -> Arms:
        return Arms(padded([s for s, _ in pairs]), padded([c for _, c in pairs]))

    none = Moments(), Moments()
    values = {}
    for metric in {name for step in steps for name in step.values}:
        both = [step.values.get(metric, none) for step in steps]
        values[metric] = Sums(
            units=arms([(s.units, c.units) for s, c in both]),
            events=arms([(s.events, c.events) for s, c in both]),
            total=arms([(s.total, c.total) for s, c in both]),
            squares=arms([(s.squares, c.squares) for s, c in both]),
        )
    return Tallies(
        units=arms([_arms(step.units) for step in steps]),
        failing=arms([_arms(step.failing) for step in steps]),
        slow=arms([_arms(step.slow) for step in steps]),
        values=values,
    )


def _guard_state(
    plan: Rollout,
    guard: Guard,
    measured: Measured | None,
    steps: Sequence[StepEvidence],
) -> GuardState:
    if measured is None:
        return _traffic_state(plan, guard, steps)
    log_evidence = float(measured.log_evidence)
    found = math.exp(min(log_evidence, 700.0))
    limit = math.exp(min(measured.log_limit, 700.0))
    state = STATES[int(measured.states)]
    counts = _counts(guard, steps)
    if state == "ok" and not counts and guard.kind != "business":
        state = "no data"
    if state == "no data":
        said = f"Guard '{guard.name}' has no data: {_missing(guard, steps)}"
    else:
        word = {
            "ok": "is quiet",
            "watch": "is on watch",
            "failed": "failed",
        }[state]
        said = (
            f"Guard '{guard.name}' {word}: {counts}; evidence {_short(found)} of "
            f"{limit:,.0f}."
        )
    return GuardState(guard.name, found, limit, state, said)


def _short(value: float) -> str:
    """Return an e-value as people read it."""
    if value >= 1e6:
        return "over 1,000,000"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _traffic_state(
    plan: Rollout, guard: Guard, steps: Sequence[StepEvidence]
) -> GuardState:
    if not steps:
        said = f"Guard '{guard.name}' has no data: no step has begun."
        return GuardState(guard.name, 1.0, math.inf, "no data", said)
    seen = seen_units(steps[-1])
    enough = seen >= guard.min_units
    said = (
        f"Guard '{guard.name}' {'is content' if enough else 'waits'}: the candidate "
        f"answered {seen:,} of {guard.min_units:,} distinct units in this step."
    )
    return GuardState(guard.name, 1.0, math.inf, "ok" if enough else "no data", said)


def _counts(guard: Guard, steps: Sequence[StepEvidence]) -> str:
    """Return the counts that a guard looks at, by step, or '' if there are none."""
    said = []
    for step in steps:
        if step.weight >= 1:
            continue
        at = f"at {100 * step.weight:g} %"
        if guard.kind == "business":
            stable, candidate = step.values.get(guard.metric, (Moments(), Moments()))
            if stable.units and candidate.units:
                said.append(
                    f"mean {candidate.total / candidate.units:.4g} of "
                    f"{candidate.units:,} candidate units against "
                    f"{stable.total / stable.units:.4g} of {stable.units:,} {at}"
                )
            continue
        pair, noun = {
            "errors": (step.failing, "failing units"),
            "latency": (step.slow, "slow units"),
            "sample_ratio": (step.units, "units"),
        }[guard.kind]
        if pair.total:
            whose = "" if said else f"{noun} were the candidate's "
            said.append(f"{pair.candidate:,} of {pair.total:,} {whose}{at}")
    return ", ".join(said)


def _missing(guard: Guard, steps: Sequence[StepEvidence]) -> str:
    if guard.kind != "business":
        noun = {"errors": "no unit failed", "latency": "no unit was slow"}
        return f"{noun.get(guard.kind, 'no unit was seen')} beside a concurrent stable."
    if not any(guard.metric in step.values for step in steps):
        return f"no report names the metric '{guard.metric}'."
    return (
        f"no step has {BURN_IN_UNITS} units in both arms yet and {BURN_IN_EVENTS} with "
        f"a nonzero '{guard.metric}'."
    )


def _reasons(
    plan: Rollout,
    steps: Sequence[StepEvidence],
    rollout_seconds: float,
    action: Action,
    states: Sequence[GuardState],
) -> tuple[str, ...]:
    current, planned = steps[-1], plan.steps[len(steps) - 1]
    step = f"Step {len(steps)} of {len(plan.steps)} ({planned.weight:g} %)"
    lasted = duration_text(current.seconds)
    needed = plan.min_units(len(steps) - 1)
    seen = seen_units(current)
    if action in ("advance", "promote"):
        return (
            f"{step} lasted {lasted}, the candidate answered {seen:,} distinct units, "
            "and no guard objects.",
        )
    on_fail = {guard.name: guard.on_fail for guard in plan.guards}
    if action == "roll back" and current.fresh:
        failed = tuple(
            each.sentence
            for each in states
            if each.state == "failed" and on_fail[each.name] == "rollback"
        )
        if failed:
            return failed
    reasons = []
    if rollout_seconds >= plan.deadline_seconds:
        reasons.append(
            f"The deadline of {duration_text(plan.deadline_seconds)} passed in step "
            f"{len(steps)} of {len(plan.steps)} ({planned.weight:g} %)."
        )
        if action == "roll back":
            return tuple(reasons)
    if not current.fresh:
        reasons.append(
            "There is no fresh evidence: no report is newer than the step and younger "
            f"than {duration_text(plan.stale_after_seconds)}."
        )
        return tuple(reasons)
    reasons.extend(
        each.sentence
        for each in states
        if each.state in ("failed", "watch")
        or (each.state == "no data" and each.name.startswith("business:"))
    )
    if current.seconds < planned.seconds:
        reasons.append(
            f"{step} has lasted {lasted} of {duration_text(planned.seconds)}."
        )
    if seen < needed:
        reasons.append(
            f"{step}: the candidate has answered {seen:,} of {needed:,} distinct units."
        )
    return tuple(reasons)
