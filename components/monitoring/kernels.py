"""The arithmetic of drift on counts: statistics and p-values, for many windows at once.

The last axis of an array of counts is the places of a column. A reference is one row of
counts, shape (p,); windows are (..., p). Simulations of thousands of windows and the
decision about one go through the same functions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MEAN_SQUARE_KOLMOGOROV = math.pi**2 / 12
"""E K² of Kolmogorov's law: what n D² is on average without drift."""

_SMIRNOV_FROM = 2.2
_MOST_FOR_SMIRNOV = 20_000

SMALLEST_EXPECTED = 5.0
"""Least rows of a window that a group of categories has to expect in chi-squared."""


def harmonic(n: npt.ArrayLike, m: npt.ArrayLike) -> Array:
    """Return nm/(n+m), the size that two samples are worth; 0 if one has no rows."""
    n, m = np.asarray(n, np.float64), np.asarray(m, np.float64)
    size: Array = n * m / np.maximum(n + m, 1)
    return size


# Shares: how many of the rows are of one kind.


def tail_above(
    a: npt.ArrayLike, n: npt.ArrayLike, b: npt.ArrayLike, m: npt.ArrayLike
) -> Array:
    """Return how often at least `a` of the n + m rows' `a + b` fall among the n.

    The upper tail of the hypergeometric law (Fisher's exact test, one-sided). Exact to
    rounding where b is 0 or a is n; else by the approximation of Peizer as Ling &
    Pratt give it (1984, JASA 79, 49-60), good to 10 % of the p-value, mostly to 1 %.

    Args:
        a: Rows of the kind among the n of the window.
        n: Rows of the window.
        b: Rows of the kind among the m of the reference.
        m: Rows of the reference.

    Returns:
        Probabilities, of the shape that the arguments broadcast to.
    """
    from scipy import special

    a, n, b, m = (np.asarray(each, np.float64) for each in (a, n, b, m))
    found = special.ndtr(-_peizer(a - 1, n, b + 1, m))
    for none, rows, kind in ((b == 0, n, a), (a == n, a + b, n)):
        if np.any(none):
            # All of the kind are in the window, or all of the window is of the kind.
            alone = np.exp(_log_all(kind, rows, n + m))
            found = np.where(none, alone, found)
    # At its least possible value the count is always at least that.
    sure = (a <= 0) | (m - b <= 0)
    tail: Array = np.where(sure, 1.0, np.clip(found, 0.0, 1.0))
    return tail


def tail_below(
    a: npt.ArrayLike, n: npt.ArrayLike, b: npt.ArrayLike, m: npt.ArrayLike
) -> Array:
    """Return how often at most `a` of them fall among the n; see `tail_above`."""
    a, n = np.asarray(a, np.float64), np.asarray(n, np.float64)
    b, m = np.asarray(b, np.float64), np.asarray(m, np.float64)
    return tail_above(n - a, n, m - b, m)


def share_p(
    a: npt.ArrayLike, n: npt.ArrayLike, b: npt.ArrayLike, m: npt.ArrayLike
) -> Array:
    """Return the two-sided p-value of two shares, a of n and b of m: twice the tail."""
    both = np.minimum(tail_above(a, n, b, m), tail_below(a, n, b, m))
    p: Array = np.minimum(1.0, 2 * both)
    return p


def share_effect(
    a: npt.ArrayLike, n: npt.ArrayLike, b: npt.ArrayLike, m: npt.ArrayLike
) -> Array:
    """Return how far two shares are apart, beyond what chance makes of equal ones.

    √(max(Δ² - Var Δ, 0)) with the variance that the common share would give.
    """
    a, n, b, m = (np.asarray(each, np.float64) for each in (a, n, b, m))
    n, m = np.maximum(n, 1), np.maximum(m, 1)
    common = (a + b) / (n + m)
    chance = common * (1 - common) * (1 / n + 1 / m)
    effect: Array = np.sqrt(np.maximum((a / n - b / m) ** 2 - chance, 0))
    return effect


def _log_all(draws: Array, kind: Array, total: Array) -> Array:
    """Return the log of C(kind, d)/C(total, d): that all d draws are of a kind."""
    from scipy import special

    draws = np.minimum(draws, kind)
    logged: Array = (
        special.gammaln(kind + 1)
        - special.gammaln(kind - draws + 1)
        - special.gammaln(total + 1)
        + special.gammaln(total - draws + 1)
    )
    return logged


def _peizer(a: Array, n: Array, b: Array, m: Array) -> Array:
    """Return z with Φ(z) close to the probability of at most `a`."""
    total = n + m
    kind, rest = a + b, total - a - b
    # Cells of the table, moved by half a row toward the next one.
    one, two = a + 0.5, n - a - 0.5
    three, four = b - 0.5, m - b + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (
            _xlogy(one, one * total / (n * kind))
            + _xlogy(two, two * total / (n * rest))
            + _xlogy(three, three * total / (m * kind))
            + _xlogy(four, four * total / (m * rest))
        )
        sixth = 1 / 6
        ends = (
            0.01 / (n + 1),
            0.01 / (m + 1),
            0.01 / (kind + 1),
            0.01 / (rest + 1),
        )
        top = (one + sixth + 0.02 / (one + 0.5) + ends[0] + ends[2]) * (
            four + sixth + 0.02 / (four + 0.5) + ends[1] + ends[3]
        ) - (two + sixth + 0.02 / (two + 0.5) + ends[0] + ends[3]) * (
            three + sixth + 0.02 / (three + 0.5) + ends[1] + ends[2]
        )
        apart = np.abs(one * four - two * three)
        scale = (
            (m * n * kind * rest * (total - sixth))
            / ((m + sixth) * (n + sixth) * (kind + sixth) * (rest + sixth))
            / total
        )
        z = top / apart * np.sqrt(2 * np.maximum(likelihood, 0) * scale)
    return np.where(apart > 0, np.nan_to_num(z, nan=0.0), 0.0)


def _xlogy(x: Array, y: Array) -> Array:
    logged: Array = x * np.log(y)
    return logged


# Numbers: ranks, distribution functions, bins.


def rank_sum(reference: Array, current: Array) -> tuple[Array, Array, Array]:
    """Return which side tends to greater values, by ranks with ties at their middle.

    Args:
        reference: Counts, shape (p,) or (..., p).
        current: Counts, shape (..., p).

    Returns:
        Each of shape (...): the probability that a row of the window is greater than
        one of the reference (ties count a half); z of Mann & Whitney with the variance
        corrected for ties; and the skewness of z, of samples drawn without replacement
        from all rows together.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    both = r + c
    total = both.sum(-1)
    m, n = r.sum(-1), c.sum(-1)
    # Middle ranks less their mean; a sum of them over the window is U less its mean.
    score = np.cumsum(both, -1) - both / 2 - total[..., None] / 2
    above = (c * score).sum(-1)
    weighted = both * score
    squares = (weighted * score).sum(-1)
    cubes = (weighted * score * score).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = n * m * squares / (total * (total - 1))
        z = above / np.sqrt(variance)
        third = n * m * (m - n) * cubes / (total * (total - 1) * (total - 2))
        skewness = third / variance**1.5
        greater = 0.5 + above / (n * m)
    known = (variance > 0) & (n > 0) & (m > 0)
    return (
        np.where(known, greater, 0.5),
        np.where(known, z, 0.0),
        np.where(known & (total > 2), np.nan_to_num(skewness), 0.0),
    )


def normal_p(z: npt.ArrayLike, skewness: npt.ArrayLike = 0.0) -> Array:
    """Return the two-sided p-value of a nearly normal z.

    With skewness the tail on its side is heavier: z is moved by the first term of
    Cornish & Fisher, as far as that rises with z, and only toward zero.
    """
    from scipy import special

    z, skewness = np.asarray(z, np.float64), np.asarray(skewness, np.float64)
    size = np.abs(z)
    heavy = np.maximum(skewness * np.sign(z), 0)
    with np.errstate(divide="ignore"):
        turning = np.where(heavy > 0, 3 / heavy, np.inf)
    at = np.minimum(size, turning)
    moved = np.where(heavy > 0, at - heavy / 6 * np.maximum(at * at - 1, 0), size)
    p: Array = 2 * special.ndtr(-moved)
    return p


def ks_distance(reference: Array, current: Array) -> Array:
    """Return the largest distance of the two distribution functions, at the places."""
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    m, n = r.sum(-1, keepdims=True), c.sum(-1, keepdims=True)
    apart = np.cumsum(r, -1) / np.maximum(m, 1) - np.cumsum(c, -1) / np.maximum(n, 1)
    distance: Array = np.abs(apart).max(-1)
    return distance


def ks_p(distance: npt.ArrayLike, n: float, m: float) -> Array:
    """Return the p-value of `ks_distance`, by Kolmogorov's law at size nm/(n+m).

    Below 0.025, where it may decide, as `scipy.stats.ks_2samp(method="asymp")`: twice
    Smirnov's one-sided law. Above it and from 20,000 rows on, `fast_ks_p`. With ties
    p-values are too large, never too small.
    """
    from scipy import special

    distance = np.asarray(distance, np.float64)
    size = round(float(harmonic(n, m)))
    found = fast_ks_p(distance, n, m)
    tail = size * distance**2 >= _SMIRNOV_FROM
    if not 0 < size <= _MOST_FOR_SMIRNOV or not np.any(tail):
        return found
    p: Array = np.where(
        tail,
        np.minimum(2 * special.smirnov(size, np.where(tail, distance, 1)), 1),
        found,
    )
    return p


def fast_ks_p(distance: npt.ArrayLike, n: npt.ArrayLike, m: npt.ArrayLike) -> Array:
    """Return `ks_p` by its expansion, to 0.3 % of it from 40 rows on: for many windows.

    Kolmogorov's limit with the argument moved by 1/(6√n) + (t - 1)/(4n), where n is
    the size nm/(n+m) (Vrbik 2018, Pioneer Journal of Theoretical and Applied
    Statistics 15, 15-23).
    """
    from scipy import special

    size = np.maximum(harmonic(n, m), 1)
    t = np.asarray(distance, np.float64) * np.sqrt(size)
    moved = t + 1 / (6 * np.sqrt(size)) + (t - 1) / (4 * size)
    p: Array = special.kolmogorov(np.maximum(moved, 0))
    return p


def ks_critical(p: float, n: float, m: float) -> float:
    """Return the distance that has a p-value by `fast_ks_p`."""
    from scipy import special

    size = max(float(harmonic(n, m)), 1.0)
    moved = float(special.kolmogi(p))
    t = (moved - 1 / (6 * math.sqrt(size)) + 1 / (4 * size)) / (1 + 1 / (4 * size))
    return min(t / math.sqrt(size), 1.0)


def bins_of(reference: Array, bins: int = 10) -> Array:
    """Return where bins of about equal shares of the reference begin, as places.

    A place is never divided, so that there are fewer bins where many rows are equal.

    Args:
        reference: Counts, shape (p,).
        bins: How many are wanted.

    Returns:
        Shape (at most `bins`,), int64, rising from 0.
    """
    r = np.asarray(reference, np.float64)
    total = r.sum()
    if not total:
        return np.zeros(1, np.int64)
    below = np.concatenate([[0.0], np.cumsum(r)])
    wanted = total * np.arange(1, bins) / bins
    # The boundary nearest to each quantile; one that would leave a bin empty goes.
    right = np.searchsorted(below, wanted)
    left = np.maximum(right - 1, 0)
    nearer = np.where(wanted - below[left] <= below[right] - wanted, left, right)
    starts = np.unique(nearer)
    keep = (below[starts] > 0) & (below[starts] < total)
    found: Array = np.concatenate([[0], starts[keep]]).astype(np.int64)
    held = np.add.reduceat(r, found)
    return found[held > 0] if (held == 0).any() else found


def binned(counts: Array, starts: Array) -> Array:
    """Return counts by bin, of shape (..., bins)."""
    found: Array = np.add.reduceat(np.asarray(counts, np.float64), starts, axis=-1)
    return found


def chi_squared(reference: Array, current: Array) -> tuple[Array, Array]:
    """Return Pearson's statistic that two samples are of one law, and its degrees.

    As `scipy.stats.chi2_contingency` of the two rows. Places that neither side has do
    not count.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    m, n = r.sum(-1, keepdims=True), c.sum(-1, keepdims=True)
    both = r + c
    # Σ (c - n p)²/(n p) + Σ (r - m p)²/(m p), with p = both/(n + m), in one sum.
    apart = (c * m - r * n) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        cells = np.where(both > 0, apart / both, 0.0)
        statistic = np.where((n * m)[..., 0] > 0, cells.sum(-1) / (n * m)[..., 0], 0.0)
    degrees = np.maximum((both > 0).sum(-1) - 1, 0)
    return statistic, degrees


def chi_squared_p(statistic: npt.ArrayLike, degrees: npt.ArrayLike) -> Array:
    """Return the upper tail of the chi-squared law; 1 without degrees."""
    from scipy import special

    degrees = np.asarray(degrees, np.float64)
    tail = special.chdtrc(np.maximum(degrees, 1), statistic)
    p: Array = np.where(degrees > 0, tail, 1.0)
    return p


def pooled_chi_squared(
    reference: Array,
    current: Array,
    rest: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 0.0),
    least: npt.ArrayLike = 0.0,
) -> tuple[Array, Array]:
    """Return `chi_squared` with the rare places taken together as one.

    Rare is what expects fewer than 5 rows of the smaller side, by both sides' rows
    together: so that which ones are rare says nothing about how they differ. If all
    rare ones together expect fewer, their rows are left out.

    Args:
        reference: Counts, shape (p,) or (..., p).
        current: Counts, shape (..., p).
        rest: Rows of the reference and of the window, shape (...), in no place; they
            are always with the rare ones.
        least: Rows that a place has to expect of the reference not to be rare.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    r, c = np.broadcast_arrays(r, c)
    more_r, more_c = (np.asarray(each, np.float64)[..., None] for each in rest)
    m = r.sum(-1, keepdims=True) + more_r
    n = c.sum(-1, keepdims=True) + more_c
    common = _expected(r, c, m, n) >= SMALLEST_EXPECTED
    if np.any(least):
        common &= (r + c) * m / np.maximum(n + m, 1) >= least
    rare_r = np.where(common, 0, r).sum(-1, keepdims=True) + more_r
    rare_c = np.where(common, 0, c).sum(-1, keepdims=True) + more_c
    enough = _expected(rare_r, rare_c, m, n) >= SMALLEST_EXPECTED
    return chi_squared(
        np.concatenate([np.where(common, r, 0), np.where(enough, rare_r, 0)], -1),
        np.concatenate([np.where(common, c, 0), np.where(enough, rare_c, 0)], -1),
    )


def _expected(r: Array, c: Array, m: Array, n: Array) -> Array:
    """Return how many rows the smaller side has to expect of those of both."""
    expected: Array = (r + c) * (np.minimum(n, m) / np.maximum(n + m, 1))
    return expected


def clearest_place(
    reference: Array,
    current: Array,
    rest: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 0.0),
    least: npt.ArrayLike = 0.0,
) -> tuple[Array, Array]:
    """Return the place whose share differs most clearly, and how clearly.

    Fisher's exact test of single places, at the places with the greatest z among the
    common and among the rare ones, times the number of places (Bonferroni) that expect
    a row on the smaller side; rarer ones could hardly be significant.

    Args:
        reference: As for `pooled_chi_squared`, as are the others.

    Returns:
        Each of shape (...): the place, and its p-value among all.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    r, c = np.broadcast_arrays(r, c)
    m = r.sum(-1) + np.asarray(rest[0], np.float64)
    n = c.sum(-1) + np.asarray(rest[1], np.float64)
    both, total = r + c, np.maximum(n + m, 1)[..., None]
    expected = _expected(r, c, m[..., None], n[..., None])
    counting = expected >= 1
    if np.any(least):
        counting &= both * m[..., None] / total >= least
    apart = np.abs(c * m[..., None] - r * n[..., None])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = apart / np.sqrt(both * (total - both))
    z = np.where(both > 0, np.nan_to_num(z, posinf=np.inf), 0.0)
    common = counting & (expected >= 2 * SMALLEST_EXPECTED)
    best, best_p = np.zeros(z.shape[:-1], np.int64), np.ones(z.shape[:-1])
    for which in (common, counting & ~common):
        at = np.where(which, z, -1.0).argmax(-1)
        p = share_p(_at(c, at), n, _at(r, at), m)
        p = np.where(_at(which, at), p, 1.0)
        best = np.where(p < best_p, at, best)
        best_p = np.minimum(best_p, p)
    return best, np.minimum(best_p * np.maximum(counting.sum(-1), 1), 1.0)


def _at(counts: Array, places: Array) -> Array:
    found: Array = np.take_along_axis(counts, places[..., None], -1)[..., 0]
    return found


# Distances that are shown and not tested.


def shares(counts: Array) -> Array:
    """Return counts as shares of their sum; zeros if there are none."""
    counts = np.asarray(counts, np.float64)
    found: Array = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
    return found


def psi(reference: Array, current: Array) -> Array:
    """Return the population stability index of two rows of counts.

    Σ (q - p) ln(q/p). A bin that only one side has would make it infinite; the other
    side is taken to have half a row there.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    r, c = np.broadcast_arrays(r, c)
    used = r + c > 0
    m = np.maximum(r.sum(-1, keepdims=True), 1)
    n = np.maximum(c.sum(-1, keepdims=True), 1)
    p = np.where(r > 0, r, 0.5) / m
    q = np.where(c > 0, c, 0.5) / n
    index: Array = np.where(used, (q - p) * np.log(q / p), 0).sum(-1)
    return index


def psi_null(bins: npt.ArrayLike, n: npt.ArrayLike, m: npt.ArrayLike) -> Array:
    """Return what PSI is on average without drift: (1/n + 1/m)(bins - 1).

    Yurdakul & Naranjo 2020, Journal of Risk Model Validation 14(4).
    """
    size = np.maximum(harmonic(n, m), 1e-300)
    mean: Array = np.maximum(np.asarray(bins, np.float64) - 1, 0) / size
    return mean


def psi_critical(level: float, bins: int, n: float, m: float) -> float:
    """Return the PSI that is reached with probability `level` without drift."""
    from scipy import special

    if bins < 2:
        return math.inf
    return float(special.chdtri(bins - 1, level)) / max(float(harmonic(n, m)), 1e-300)


def jensen_shannon(reference: Array, current: Array) -> Array:
    """Return the Jensen-Shannon divergence in bits; its root is a distance."""
    from scipy import special

    p, q = shares(reference), shares(current)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(-1) / 2
    bits: Array = np.maximum(nats, 0) / math.log(2)
    return bits


def hellinger(reference: Array, current: Array) -> Array:
    """Return √(1 - Σ √(p q)), as half the squared distance of the roots."""
    roots = np.sqrt(shares(reference)) - np.sqrt(shares(current))
    distance: Array = np.sqrt((roots * roots).sum(-1) / 2)
    return distance


def wasserstein(reference: Array, current: Array, values: Array) -> Array:
    """Return the area between the two distribution functions.

    Args:
        reference: Counts, shape (p,).
        current: Counts, shape (..., p).
        values: Of the places, shape (p,), rising.

    Returns:
        Shape (...), in the unit of the values.
    """
    apart = np.cumsum(shares(reference), -1) - np.cumsum(shares(current), -1)
    area: Array = (np.abs(apart[..., :-1]) * np.diff(values)).sum(-1)
    return area
