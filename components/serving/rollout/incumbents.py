"""Rules that others roll back by, to be shown beside a plan: none controls an error
rate.

They compare requests of one window with a number. Kinds of rules, not programs: what is
simulated is the arithmetic of a check, once a minute, and nothing fails to be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.components.serving.rollout import evidence
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.rollout.simulate import (
    HEALTHY,
    Candidate,
    Traffic,
)

Array = npt.NDArray[Any]

CHECK_SECONDS = 60.0
WINDOW_SECONDS = 300.0

TEN_STEPS = tuple(weight / 100 for weight in range(5, 51, 5))
"""5 to 50 % in ten steps, one check in each."""


@dataclass(frozen=True)
class Fired:
    """When a rule rolled back.

    Attributes:
        seconds: From the start; infinite where it never did; shape (rollouts,).
    """

    seconds: Array

    @property
    def rate(self) -> float:
        """The share of rollouts in which it did."""
        return float(np.mean(np.isfinite(self.seconds)))


def errors_doubled(
    canary_rps: float,
    errors: float,
    *,
    hours: float = 2.0,
    candidate_errors: float = 1.0,
    rollouts: int = 10_000,
    seed: int = 0,
) -> Fired:
    """Roll back when a window of 5 minutes has twice the usual error rate or more.

    Windows follow one another; the usual rate is known exactly, which favors the rule.

    Args:
        canary_rps: Requests per second of the canary.
        errors: Share of them that fails on stable.
        hours: For how long the rule is applied.
        candidate_errors: How many times as many fail on the canary.
        rollouts: How many rollouts.
        seed: Of the random numbers.
    """
    windows = int(hours * 3600 / WINDOW_SECONDS)
    return _doubled(
        Traffic(canary_rps, errors),
        Candidate(candidate_errors),
        (1.0,) * windows,
        rollouts,
        np.random.default_rng(seed),
    )


def flagger_like(
    traffic: Traffic,
    *,
    threshold: int,
    slo_errors: float = 0.01,
    weights: Sequence[float] = TEN_STEPS,
    candidate: Candidate = HEALTHY,
    rollouts: int = 10_000,
    seed: int = 0,
) -> Fired:
    """Roll back after so many failed checks; a failed check repeats its step.

    A check fails if more than `slo_errors` of the canary's requests failed in the last
    minute. Failed checks are never paid back.

    Args:
        traffic: Requests and errors.
        threshold: How many failed checks roll back.
        slo_errors: Share of errors that a check tolerates.
        weights: The canary's share of requests, as a fraction, check by check.
        candidate: How the canary differs from stable.
        rollouts: How many rollouts.
        seed: Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    at_most = len(weights) + threshold
    shares = _error_shares(traffic, candidate, weights, rollouts, rng)
    step = np.zeros(rollouts, np.int64)
    failures = np.zeros(rollouts, np.int64)
    seconds = np.full(rollouts, np.inf)
    rows = np.arange(rollouts)
    for check in range(1, at_most + 1):
        at = np.minimum(step, len(weights) - 1)
        mean = traffic.rps * CHECK_SECONDS * np.array(weights)[at]
        requests = rng.poisson(mean)
        failing = rng.binomial(requests, shares[rows, at])
        running = (step < len(weights)) & np.isinf(seconds)
        failed = running & (failing > slo_errors * requests)
        failures += failed
        step += running & ~failed
        seconds[failed & (failures >= threshold)] = check * CHECK_SECONDS
    return Fired(seconds)


def argo_like(
    traffic: Traffic,
    *,
    failure_limit: int = 0,
    slo_errors: float = 0.01,
    weights: Sequence[float] = TEN_STEPS,
    candidate: Candidate = HEALTHY,
    rollouts: int = 10_000,
    seed: int = 0,
) -> Fired:
    """Abort when more measurements than a limit failed; one a minute, none repeated.

    Args:
        traffic: Requests and errors.
        failure_limit: How many may fail.
        slo_errors: Share of errors that a measurement tolerates.
        weights: The canary's share of requests, as a fraction, measurement by
            measurement.
        candidate: How the canary differs from stable.
        rollouts: How many rollouts.
        seed: Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    shares = _error_shares(traffic, candidate, weights, rollouts, rng)
    mean = traffic.rps * CHECK_SECONDS * np.array(weights)
    requests = rng.poisson(mean, (rollouts, len(weights)))
    failing = rng.binomial(requests, shares)
    failures = np.cumsum(failing > slo_errors * requests, axis=1)
    return _first(failures > failure_limit, CHECK_SECONDS)


def request_level(
    weight: float,
    *,
    errors: float = 0.005,
    users: int = 45_000,
    failures: int = 4_000,
    alpha: float = 0.01,
    rollouts: int = 2_000,
    seed: int = 0,
) -> Fired:
    """Test failing requests, instead of distinct failing units, of sticky users.

    An exact sequential test at level `alpha`, looked at after every tenth failure, if
    requests failed independently of one another. But 1 % of users make four fifths of
    the failures, and how many of them the canary has is chance.

    Args:
        weight: The canary's share of users, as a fraction.
        errors: Share of requests that fail on both versions.
        users: How many there are.
        failures: After how many failing requests the test ends.
        alpha: Its level.
        rollouts: How many rollouts.
        seed: Of the random numbers.

    Returns:
        When it rejected, in failing requests instead of seconds.
    """
    rng = np.random.default_rng(seed)
    kinds = Traffic(1.0, errors, "bad-users").kinds
    of_canary = np.zeros(rollouts)
    for share, failing in kinds:
        size = round(users * share)
        of_canary += failing * share * rng.binomial(size, weight, rollouts) / size
    share_of_canary = of_canary / errors
    every = 10
    new = rng.binomial(every, share_of_canary[:, None], (rollouts, failures // every))
    canary = np.cumsum(new, axis=1)
    total = np.broadcast_to(every * np.arange(1, canary.shape[1] + 1), canary.shape)
    logs = evidence.log_beta_mixture(canary, total, weight, 10.0)
    return _first(logs >= -math.log(alpha), float(every))


def beside(
    plan: Rollout,
    traffic: Traffic,
    candidate: Candidate = HEALTHY,
    *,
    rollouts: int = 10_000,
    seed: int = 0,
) -> dict[str, Fired]:
    """Return what the rules do on a plan's own schedule, by their names.

    All are told the true error share of stable and tolerate less than its double; the
    steps last their shortest time, and the last one is watched like the others.

    Args:
        plan: Gives weights and times.
        traffic: Requests and errors.
        candidate: How the canary differs from stable.
        rollouts: How many rollouts.
        seed: Of the random numbers.

    Returns:
        Nothing for a plan whose steps are shorter than a check.
    """
    minutes, windows = _weights(plan, CHECK_SECONDS), _weights(plan, WINDOW_SECONDS)
    rng = np.random.default_rng(seed)
    if not minutes:
        return {}
    slo = 2 * traffic.errors
    common: dict[str, Any] = {
        "slo_errors": slo,
        "weights": minutes,
        "candidate": candidate,
        "rollouts": rollouts,
        "seed": seed,
    }
    return {
        "errors doubled in 5 minutes": _doubled(
            traffic, candidate, windows, rollouts, rng
        ),
        "Flagger-like, threshold 5": flagger_like(traffic, threshold=5, **common),
        "Flagger-like, threshold 10": flagger_like(traffic, threshold=10, **common),
        "Argo-like, limit 0": argo_like(traffic, failure_limit=0, **common),
        "Argo-like, limit 3": argo_like(traffic, failure_limit=3, **common),
    }


def _weights(plan: Rollout, seconds: float) -> tuple[float, ...]:
    """Return the weight at every check of a plan's steps."""
    return tuple(
        step.fraction
        for step in plan.steps
        for _ in range(math.floor(step.seconds / seconds))
    )


def _doubled(
    traffic: Traffic,
    candidate: Candidate,
    weights: Sequence[float],
    rollouts: int,
    rng: np.random.Generator,
) -> Fired:
    """Apply the rule to windows of as many requests as there are on average."""
    shares = _error_shares(traffic, candidate, weights, rollouts, rng)
    mean = traffic.rps * WINDOW_SECONDS * np.array(weights)
    failing = rng.binomial(np.round(mean).astype(np.int64), shares)
    doubled = (failing > 0) & (failing >= 2 * traffic.errors * mean - 1e-9)
    return _first(doubled, WINDOW_SECONDS)


def _error_shares(
    traffic: Traffic,
    candidate: Candidate,
    weights: Sequence[float],
    rollouts: int,
    rng: np.random.Generator,
) -> Array:
    """Return the share of the canary's requests that fail, by rollout and check.

    Users are sticky: with bad ones, it depends on how many of them the canary has.
    """
    distinct = sorted(set(weights))
    edges = np.diff([0.0, *distinct, 1.0])
    failing = np.zeros((rollouts, len(distinct)))
    everyone = np.zeros_like(failing)
    for share, errors in traffic.kinds:
        size = round(traffic.units * share)
        classes = rng.multinomial(size, edges, rollouts)[:, : len(distinct)]
        of_canary = np.cumsum(classes, axis=1)
        everyone += of_canary
        failing += of_canary * min(errors * candidate.errors, 1.0)
    shares = failing / np.maximum(everyone, 1)
    by_check: Array = shares[:, np.searchsorted(distinct, weights)]
    return by_check


def _first(fires: Array, seconds: float) -> Fired:
    """Return when a rule fires first, for its value at every check."""
    if not fires.shape[1]:
        return Fired(np.full(len(fires), np.inf))
    first = (fires.argmax(axis=1) + 1) * seconds
    return Fired(np.where(fires.any(axis=1), first, np.inf))
