"""Evidence in counts: e-values, exact under any number of looks.

An e-value is a number that is 1 or less on average if nothing is wrong. Rejecting when
a process of them, updated with every count, reaches 1/α goes wrong with probability at
most α, however often and whenever one looks (Ville 1939; Ramdas, Grünwald, Vovk &
Shafer 2023, Statistical Science 38, 576-601). Everything here is in logarithms, and
vectorized over leading axes: counts have the shape (..., steps).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

Array = npt.NDArray[Any]

RATIOS = (1.1, 1.3, 1.6, 2.0, 2.5, 3.5, 5.0, 10.0, 30.0, 1000.0)
"""The alternatives: how many times as much as tolerated the candidate does."""

RATIO_WEIGHTS = (0.06, 0.10, 0.14, 0.28, 0.10, 0.10, 0.07, 0.06, 0.04, 0.05)
"""What each of `RATIOS` is given of the evidence: most to a doubling, which is what
rollouts are asked to find, enough to 1000, a dead candidate, to find that at once, and
a little to 1.1, which a long healthy time hardly diminishes."""

FROM_THE_START = 0.6
"""What is given to 'assigned wrongly from the first step on'; later ones share the
rest."""

CONCENTRATION = 1000.0
"""Pseudo-counts of the sample ratio's mixture: it looks for small imbalances."""


def null_share(weight: float, max_ratio: float = 1.0) -> float:
    """Return the candidate's share of events if it has `max_ratio` times as many.

    Args:
        weight: Fraction of the units that it gets.
        max_ratio: Events per unit, candidate over stable.
    """
    return max_ratio * weight / (max_ratio * weight + 1 - weight)


def log_excess(
    stable: npt.ArrayLike,
    candidate: npt.ArrayLike,
    weights: Sequence[float],
    max_ratio: float = 1.0,
) -> Array:
    """Return log evidence that the candidate's units have events too soon.

    Tested is: no unit of the candidate has its first event sooner, in distribution,
    than it would with `max_ratio` times stable's hazard. At that edge each unit with a
    new event is the candidate's with at most `null_share`, whatever happened before and
    however traffic and errors vary over time, because the assignment does not know who
    will fail; a unit that fails later than that never adds evidence.

    The evidence is one mixture over the whole rollout, of the likelihood ratios of
    every ratio in `RATIOS`, each over all steps. Steps without a concurrent control
    (weight 1) and steps not yet begun (no counts) multiply by 1.

    Args:
        stable: Distinct units with a first event, on stable; shape (..., steps).
        candidate: The same on the candidate.
        weights: Fraction of units of every step of the plan.
        max_ratio: Which ratio is tolerated.

    Returns:
        Natural logarithms, of shape (...).
    """
    of_candidate, of_stable, priors = _components(tuple(weights), float(max_ratio))
    logs = np.asarray(candidate, np.float64) @ of_candidate
    logs += np.asarray(stable, np.float64) @ of_stable
    logs += priors
    return log_sum_exp(logs)


@functools.lru_cache(maxsize=256)
def _components(
    weights: tuple[float, ...], max_ratio: float
) -> tuple[Array, Array, Array]:
    """Return what one event adds to the logarithm of every ratio's likelihood ratio.

    Returns:
        For an event of the candidate and for one of stable, both of the shape (steps,
        ratios), and the logarithms of the ratios' weights.
    """
    null = np.array([null_share(weight, max_ratio) for weight in weights])[:, None]
    ratios = np.array(RATIOS)
    # log(1 - share) from the terms themselves: 1 - share would cancel.
    scale = np.log1p((ratios - 1) * null)
    has_control = np.array(weights)[:, None] < 1
    of_candidate = np.where(has_control, np.log(ratios) - scale, 0.0)
    of_stable = np.where(has_control, -scale, 0.0)
    return of_candidate, of_stable, np.log(RATIO_WEIGHTS)


def log_beta_mixture(
    candidate: npt.ArrayLike,
    total: npt.ArrayLike,
    share: npt.ArrayLike,
    concentration: float,
) -> Array:
    """Return log evidence that a share is another one, on either side.

    The likelihood ratio of a Beta(c·share, c·(1 - share)) mixture over all shares
    against `share` itself (Lindon & Malek 2022, NeurIPS 35, with two arms).

    Args:
        candidate: Events of the candidate; shape (...).
        total: Events of both; shape (...).
        share: The share that is tested, in (0, 1).
        concentration: c, the mixture's pseudo-counts.
    """
    x, m = np.asarray(candidate, np.float64), np.asarray(total, np.float64)
    w = np.asarray(share, np.float64)
    a, b = concentration * w, concentration * (1 - w)
    gained: Array = np.asarray(betaln(a + x, b + m - x) - betaln(a, b))
    gained -= x * np.log(w) + (m - x) * np.log1p(-w)
    return gained


def start_weights(steps: int) -> Array:
    """Return the weight of 'wrong from step j on' for each of so many steps."""
    if steps == 1:
        return np.ones(1)
    later = (1 - FROM_THE_START) / (steps - 1)
    return np.array([FROM_THE_START] + [later] * (steps - 1))


def log_imbalance(
    stable: npt.ArrayLike, candidate: npt.ArrayLike, weights: Sequence[float]
) -> Array:
    """Return log evidence that units are not assigned with the steps' weights.

    Every step has a mixture of its own, because what goes wrong with an assignment may
    be one step's. They multiply, from the first step on and, so that a long time in
    which all was right hides nothing, from every later one.

    Args:
        stable: Distinct units first seen in each step, on stable; shape (..., steps).
        candidate: The same on the candidate.
        weights: Fraction of units of every step of the plan.

    Returns:
        Natural logarithms, of shape (...).
    """
    tested = [step for step, weight in enumerate(weights) if weight < 1]
    x = np.asarray(candidate, np.float64)[..., tested]
    if not tested:
        return np.zeros(x.shape[:-1])
    total = x + np.asarray(stable, np.float64)[..., tested]
    shares = np.asarray(weights, np.float64)[tested]
    by_step = log_beta_mixture(x, total, shares, CONCENTRATION)
    from_step = np.cumsum(by_step[..., ::-1], axis=-1)[..., ::-1]
    return log_sum_exp(from_step + np.log(start_weights(len(tested))))


def log_sum_exp(logs: Array) -> Array:
    """Return log(sum(exp(logs))) over the last axis, without overflow."""
    top = logs.max(axis=-1, keepdims=True)
    total: Array = np.log(np.exp(logs - top).sum(axis=-1)) + top[..., 0]
    return total
