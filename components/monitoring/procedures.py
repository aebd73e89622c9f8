"""One level for many tests: over columns, groups and windows.

Pure functions of p-values, along an axis: the replay of a budget and the decision
about a window go through the same ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from penstock.components.monitoring.kernels import Array

SCORE_SHARE = 0.1
"""Share of the level that the scores have to themselves; the labels likewise."""

_NODES = 513
_SMALLEST = -600.0


def simes(p: Array) -> Array:
    """Return Simes' p-value that none of the p-values on the first axis is a finding.

    min over i of c p₍ᵢ₎/i. It is at most a level exactly if the procedure of Benjamini
    & Hochberg at that level finds something. NaN is a p-value that is not there.
    """
    if not len(p):
        return np.ones(p.shape[1:])
    count = (~np.isnan(p)).sum(0)
    ranks = np.arange(1, len(p) + 1).reshape(-1, *[1] * (p.ndim - 1))
    # NaNs are sorted to the end.
    found: Array = np.fmin.reduce(np.sort(p, axis=0) * count / ranks, initial=1.0)
    return found


def with_slices(own: Array, slices: Array) -> Array:
    """Return p-values of columns: of all rows, and of those of slices.

    Half of a column's level is its own, the other half that of its slices together, by
    Simes.

    Args:
        own: Of all rows.
        slices: Of each slice, on the first axis; NaN where there is none.
    """
    has = ~np.isnan(slices).all(0)
    both = np.minimum(2 * np.minimum(own, simes(slices)), 1.0)
    found: Array = np.where(has, both, own)
    return found


def benjamini_hochberg(p: npt.ArrayLike, level: float) -> Array:
    """Return which ones of some p-values are findings at a false discovery rate.

    Benjamini & Hochberg 1995, Journal of the Royal Statistical Society B 57, 289-300.

    Args:
        p: Shape (c,).
        level: The rate.

    Returns:
        Booleans, shape (c,).
    """
    p = np.asarray(p, np.float64)
    ordered = np.sort(p)
    passed = ordered * len(p) <= level * np.arange(1, len(p) + 1)
    found: Array = (
        p <= ordered[np.flatnonzero(passed)[-1]]
        if passed.any()
        else np.zeros(p.shape, bool)
    )
    return found


def group_shares(
    roles: Sequence[str], shares: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return the share of the level that each group of columns has; they add up to 1.

    Scores and labels have shares of their own, whatever the number of features: that
    is what testing them first comes to.

    Args:
        roles: Of all columns.
        shares: By role; what is left belongs to the features and segments.
    """
    wanted = {"score": SCORE_SHARE, "label": SCORE_SHARE} if shares is None else shares
    groups = {group_of(role, wanted) for role in roles}
    found = {group: wanted[group] for group in groups if group in wanted}
    if "feature" in groups and "feature" not in found:
        found["feature"] = 1 - sum(found.values())
    total = sum(found.values())
    return {group: share / total for group, share in sorted(found.items())}


def default_shares(shares: Mapping[str, float] | None) -> dict[str, float]:
    """Return the shares by role that are in force if these are asked for."""
    return (
        {"score": SCORE_SHARE, "label": SCORE_SHARE} if shares is None else dict(shares)
    )


def group_of(role: str, shares: Mapping[str, float] | None = None) -> str:
    """Return the group that a role is tested in: its own if that has a share."""
    return role if role in default_shares(shares) else "feature"


def model_p(
    p: Array, roles: Sequence[str], shares: Mapping[str, float] | None = None
) -> Array:
    """Return the p-value that no column of a model drifted.

    Args:
        p: Of the columns, on the first axis.
        roles: Of the columns.
        shares: As for `group_shares`.
    """
    groups = np.array([group_of(role, shares) for role in roles])
    found = [
        simes(p[groups == group]) / share
        for group, share in group_shares(roles, shares).items()
        if share > 0
    ]
    smallest: Array = np.minimum(np.minimum.reduce(found), 1.0)
    return smallest


def over_windows(p: Array, k: int, m: int, correlation: float, once: float) -> Array:
    """Return, for each window, the p-value of it and the m - 1 before it together.

    Drift is either there in k of the m windows, or in the last one alone so clearly
    that it needs no second one: the smaller one of the two p-values by its share of
    the level. The k-th smallest p-value of m is made a p-value itself by
    `persistence_p`.

    Args:
        p: Shape (..., windows), in the order of time.
        k: How many windows.
        m: Of how many; fewer are looked at where there are no more.
        correlation: Of two windows, as both are compared with one reference.
        once: Share of the level of the last window alone.

    Returns:
        Shape (..., windows).
    """
    if m == 1:
        return p
    windows = p.shape[-1]
    found = np.minimum(p / once, 1.0) if once > 0 else np.ones_like(p)
    for seen in range(k, min(m, windows) + 1):
        # Positions that have `seen` windows to look at: the first m - 1 have fewer.
        at = slice(seen - 1, seen) if seen < m else slice(seen - 1, windows)
        stack = np.stack(
            [p[..., at.start - back : at.stop - back] for back in range(seen)], -1
        )
        kth = np.sort(stack, -1)[..., k - 1]
        lasting = persistence_p(kth, k, seen, correlation)
        found[..., at] = np.minimum(found[..., at], lasting / (1 - once))
    return found


def deflated(p: Array, inflation: float) -> Array:
    """Return p-values whose z was too large by the root of an inflation."""
    from scipy import special

    if inflation <= 1:
        return p
    with np.errstate(divide="ignore"):
        z = special.ndtri_exp(np.log(np.maximum(p, 1e-300)) - math.log(2))
    smaller: Array = np.minimum(2 * special.ndtr(z / math.sqrt(inflation)), 1.0)
    return smaller


def persistence_p(kth: Array, k: int, m: int, correlation: float) -> Array:
    """Return how often k of m windows without drift have p-values as small.

    The windows share the reference and so its noise: they are taken as normal scores
    with one correlation, n/(n + reference rows) for windows of n rows. Without
    correlation it is the law of an order statistic, about C(m, k) pᵏ; with much it is
    hardly less than p itself.

    Args:
        kth: The k-th smallest p-values, of any shape.
        k: How many windows.
        m: Of how many.
        correlation: From 0 up to but not including 1.
    """
    logs, values = _persistence_table(k, m, round(float(correlation), 4))
    with np.errstate(divide="ignore"):
        logged = np.log(np.maximum(kth, 1e-300))
    found: Array = np.exp(np.interp(logged, logs, values))
    return found


def persistence_level(p: float, k: int, m: int, correlation: float) -> float:
    """Return the p-value that k of m windows have to reach for `persistence_p` of p."""
    logs, values = _persistence_table(k, m, round(float(correlation), 4))
    return float(np.exp(np.interp(np.log(p), values, logs)))


@functools.lru_cache(maxsize=64)
def _persistence_table(k: int, m: int, correlation: float) -> tuple[Array, Array]:
    from scipy import special

    # Closer together where p-values are large: there the law bends.
    logs = _SMALLEST * np.linspace(1.0, 0.0, _NODES) ** 3
    # The normal quantile of the tail exp(log)/2, also where that underflows.
    reach = -special.ndtri_exp(logs - np.log(2))
    if correlation <= 0:
        each = np.broadcast_to(logs[:, None], (_NODES, 1))
        weights = np.zeros(1)
    else:
        # Where the shared noise has to lie for tails of 1e-260 is far out: the points
        # of the integral follow the reach.
        root, rest = np.sqrt(correlation), np.sqrt(1 - correlation)
        spread = np.linspace(-12.0, 12.0, 241)
        center = reach * m * root / (1 + (m - 1) * correlation)
        shared = np.concatenate(
            [center[:, None] + spread, spread + 0 * center[:, None]], 1
        )
        shared = np.sort(shared, 1)
        gaps = np.gradient(shared, axis=1)
        weights = (
            -0.5 * shared**2
            - 0.5 * np.log(2 * np.pi)
            + np.log(np.maximum(gaps, 1e-300))
        )
        # Positive shared noise only, and both of its signs at once: twice.
        upper = special.log_ndtr(-(reach[:, None] - root * shared) / rest)
        lower = special.log_ndtr(-(reach[:, None] + root * shared) / rest)
        each = np.minimum(np.logaddexp(upper, lower), 0.0)
    # log of P(at least k of m) with success probability exp(each), through logs.
    with np.errstate(divide="ignore"):
        misses = np.log(-np.expm1(np.minimum(each, -1e-16)))
    terms = [
        special.gammaln(m + 1)
        - special.gammaln(j + 1)
        - special.gammaln(m - j + 1)
        + j * each
        + (m - j) * misses
        for j in range(k, m + 1)
    ]
    tail = np.logaddexp.reduce(np.stack(terms), axis=0)
    values = special.logsumexp(tail + weights, axis=1)
    values = np.minimum(np.maximum.accumulate(values), 0.0)
    values[-1] = 0.0
    return logs, values
