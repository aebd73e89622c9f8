"""The tests and the choice behind a decision, for many rollouts of a plan at once.

`decide` puts one rollout through these, `simulate` thousands: they are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock.components.serving.rollout import evidence, sequences
from penstock.components.serving.rollout.plan import Guard, Rollout

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
