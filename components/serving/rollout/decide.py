"""The decision of one look at a rollout: values in, an action and its reasons out.

No clock, no files, no network. `decide` takes one rollout; `measure` and `choose` are
its kernels, vectorized over rollouts, and `simulate` runs the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock.components.serving.rollout import evidence, sequences
from penstock.components.serving.rollout.plan import Guard, Rollout, duration_text
from penstock.schemas.errors import ServingError, did_you_mean, quoted

Array = npt.NDArray[Any]
Action = Literal["advance", "hold", "roll back", "promote"]
State = Literal["ok", "watch", "failed", "no data"]

OK, WATCH, FAILED, NO_DATA = range(4)
STATES: tuple[State, ...] = ("ok", "watch", "failed", "no data")

ADVANCE, HOLD, ROLL_BACK, PROMOTE = range(4)
ACTIONS: tuple[Action, ...] = ("advance", "hold", "roll back", "promote")

BURN_IN_UNITS = 100
"""Units that each arm must have before a mean is tested: its normal approximation."""

BURN_IN_EVENTS = 10
"""Units with a nonzero value that each arm must have, the candidate by expectation."""


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


# --- the kernels, over any number of rollouts of one plan


@dataclass(frozen=True)
class Arms:
    """Counts of both arms by step.

    Attributes:
        stable: Shape (..., steps of the plan).
        candidate: The same.
    """

    stable: Array
    candidate: Array


@dataclass(frozen=True)
class Sums:
    """Moments of both arms by step; every array has the shape (..., steps).

    Attributes:
        units: Distinct units.
        events: Units with a nonzero value.
        total: Sums of values.
        squares: Sums of squares.
    """

    units: Arms
    events: Arms
    total: Arms
    squares: Arms


@dataclass(frozen=True)
class Tallies:
    """The evidence of many rollouts; steps that have not begun are zeros.

    Attributes:
        units: Distinct units first seen.
        failing: Distinct units with a first failure.
        slow: Distinct units with a first slow answer.
        values: By metric.
    """

    units: Arms
    failing: Arms
    slow: Arms
    values: Mapping[str, Sums]


@dataclass(frozen=True)
class Measured:
    """What a guard's test says of many rollouts.

    Attributes:
        log_evidence: Natural logarithms of e-values; shape (...).
        log_limit: Where it fails.
        states: `OK`, `WATCH`, `FAILED` or `NO_DATA`; shape (...).
    """

    log_evidence: Array
    log_limit: float
    states: Array


def measure(plan: Rollout, tallies: Tallies) -> dict[str, Measured]:
    """Return what every guard that tests something says, by its name.

    A guard fails when its evidence reaches 1/α of its part of alpha, and is on watch
    from the square root of that on, halfway on the scale on which evidence adds up: a
    healthy candidate ever gets there with probability √α, and gets away again.

    Args:
        plan: The plan.
        tallies: Counts of the shape (..., steps of the plan).
    """
    return {
        guard.name: _measure(plan, guard, tallies)
        for guard in plan.guards
        if guard.tests
    }


def _measure(plan: Rollout, guard: Guard, tallies: Tallies) -> Measured:
    log_limit = -math.log(plan.alphas[guard.name])
    has_data: Array | None = None
    if guard.kind == "sample_ratio":
        units = tallies.units
        logs = evidence.log_imbalance(units.stable, units.candidate, plan.weights)
    elif guard.kind == "business":
        logs, log_limit, has_data = _log_drop(plan, guard, tallies, log_limit)
    else:
        counts = tallies.failing if guard.kind == "errors" else tallies.slow
        # The latency guard's max_ratio is already in what counts as slow.
        tolerated = guard.max_ratio if guard.kind == "errors" else 1.0
        logs = evidence.log_excess(
            counts.stable, counts.candidate, plan.weights, tolerated
        )
    states = np.where(logs >= log_limit / 2, WATCH, OK)
    states = np.where(logs >= log_limit, FAILED, states)
    if has_data is not None:
        states = np.where(has_data, states, NO_DATA)
    return Measured(logs, log_limit, states)


def _log_drop(
    plan: Rollout, guard: Guard, tallies: Tallies, log_limit: float
) -> tuple[Array, float, Array]:
    """Return the strongest step's evidence of a drop, its limit, and if there is any.

    Tested is candidate mean >= (1 - max_drop) * stable mean, by the difference of the
    two sides: linear in the means, so it needs no ratio and no delta method. An
    asymptotic sequence is no e-process, and means of steps may not be mixed, so every
    step has its own sequence and an equal part of the guard's alpha.
    """
    tested = [step for step, weight in enumerate(plan.weights) if weight < 1]
    shape = tallies.units.stable.shape[:-1]
    log_limit += math.log(max(1, len(tested)))
    sums = tallies.values.get(guard.metric)
    if sums is None or not tested:
        # A plan without any concurrent control has nothing to wait for.
        return np.full(shape, -np.inf), log_limit, np.full(shape, not tested)
    z, units, enough = _drop(sums, guard.max_drop)
    logs = sequences.log_one_sided(z, units, math.exp(-log_limit))
    logs = np.where(enough, logs, -np.inf)[..., tested]
    strongest: Array = logs.max(axis=-1)
    has_data: Array = np.asarray(enough[..., tested].any(axis=-1))
    return strongest, log_limit, has_data


def _drop(sums: Sums, max_drop: float) -> tuple[Array, Array, Array]:
    """Return how many standard errors the drop is beyond what is tolerated, by step.

    Returns:
        z, the effective number of units, and where the burn-in is over.
    """
    n = np.maximum(sums.units.stable, 1.0)
    m = np.maximum(sums.units.candidate, 1.0)
    mean, other = sums.total.stable / n, sums.total.candidate / m
    # Units that all agree are no certainty: as if one of them had been otherwise.
    spread = np.maximum(_variance(sums.squares.stable, n, mean), mean**2 / n)
    # An arm that lost events by chance has lost variance with them. A candidate that is
    # no worse varies as stable does, so it is taken to vary at least as much.
    spread_of_candidate = np.maximum(
        _variance(sums.squares.candidate, m, other), spread
    )
    kept = 1 - max_drop
    variance = kept**2 * spread / n + spread_of_candidate / m
    z = (kept * mean - other) / np.sqrt(np.where(variance > 0, variance, 1.0))
    # The candidate's events by expectation: one that lost them all must not be spared.
    expected = sums.events.stable / n * sums.units.candidate
    enough = (
        (sums.units.stable >= BURN_IN_UNITS)
        & (sums.units.candidate >= BURN_IN_UNITS)
        & (sums.events.stable >= BURN_IN_EVENTS)
        & (expected >= BURN_IN_EVENTS)
        & (mean > 0)  # a relative drop from nothing is none
    )
    return z, n * m / (n + m), enough


def _variance(squares: Array, units: Array, mean: Array) -> Array:
    scatter = np.maximum(squares - units * mean**2, 0.0)
    variance: Array = scatter / np.maximum(units - 1, 1)
    return variance


def choose(
    plan: Rollout,
    measured: Mapping[str, Measured],
    *,
    step: Array,
    seconds: Array,
    seen: Array,
    fresh: Array,
    rollout_seconds: Array,
) -> Array:
    """Return the action of every rollout: `ADVANCE`, `HOLD`, `ROLL_BACK` or `PROMOTE`.

    Args:
        plan: The plan.
        measured: What `measure` gave, of the shape (...).
        step: Index of the step that each is in; shape (...), as all that follows.
        seconds: How long that step was watched.
        seen: Distinct units that the candidate answered in it.
        fresh: Whether there is fresh evidence.
        rollout_seconds: How long the rollout has lasted.
    """
    none = np.zeros(np.shape(step), bool)
    worse, open_question = none, none
    for name, each in measured.items():
        guard = plan.guard(name)
        failed = each.states == FAILED
        if guard.on_fail == "rollback":
            worse = worse | failed
        open_question = open_question | (each.states != OK)
    needed = np.array([each.seconds for each in plan.steps])[step]
    units = np.array([plan.min_units(each) for each in range(len(plan.steps))])[step]
    complete = fresh & (seconds >= needed) & (seen >= units) & ~open_question
    is_last = step == len(plan.steps) - 1
    late = rollout_seconds >= plan.deadline_seconds
    at_deadline = ROLL_BACK if plan.on_deadline == "rollback" else HOLD
    chosen: Array = np.select(
        [fresh & worse, complete & is_last, late, complete],
        [ROLL_BACK, PROMOTE, at_deadline, ADVANCE],
        HOLD,
    )
    return chosen


# --- one rollout, with reasons


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
