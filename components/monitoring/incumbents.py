"""The rules that other tools apply by default, as formulas: what ours are held against.

Facts about the tools, not their code. Counts by place as in `kernels`; nothing here
takes part in a decision of ours.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from penstock.components.monitoring import kernels
from penstock.components.monitoring.kernels import Array

MOST_SMALL_ROWS = 1_000
"""References up to this size Evidently tests by p-values, larger ones by distance."""

MOST_DISCRETE = 5
"""A numeric column with at most as many values is treated as categories there."""

_SMALLEST_SHARE = 1e-4


def evidently(
    reference: Array, current: Array, values: npt.ArrayLike | None = None
) -> Array:
    """Return whether Evidently's default rule calls a column drifted.

    Above 1,000 reference rows: Wasserstein's distance by the reference's standard
    deviation of at least 0.1 for numbers, the Jensen-Shannon distance (natural
    logarithms) of at least 0.1 for categories; up to 1,000 rows: p-values of at most
    0.05 of KS, of chi-squared, and for two values of z.

    Args:
        reference: Counts, shape (p,).
        current: Counts, shape (..., p).
        values: Of the places, shape (p,); None for categories.

    Returns:
        Booleans, shape (...).
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    discrete = values is None or np.count_nonzero(r) <= MOST_DISCRETE
    if r.sum() > MOST_SMALL_ROWS:
        if discrete:
            found: Array = jensen_shannon_distance(r, c) >= 0.1
            return found
        return wasserstein_by_deviation(r, c, np.asarray(values, np.float64)) >= 0.1
    if not discrete:
        return uncorrected_ks(r, c)
    if np.count_nonzero(r + c.reshape(-1, len(r)).sum(0)) <= 2:
        shares = c[..., 0] / c.sum(-1), r[0] / r.sum()
        common = (c[..., 0] + r[0]) / (c.sum(-1) + r.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (shares[0] - shares[1]) / np.sqrt(
                common * (1 - common) * (1 / c.sum(-1) + 1 / r.sum())
            )
        small: Array = kernels.normal_p(np.nan_to_num(z)) <= 0.05
        return small
    # One-sample: the reference's shares are taken as known.
    expected = r / r.sum() * c.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        cells = np.where(expected > 0, (c - expected) ** 2 / expected, 0.0)
    p = kernels.chi_squared_p(cells.sum(-1), np.count_nonzero(r) - 1)
    likewise: Array = p <= 0.05
    return likewise


def wasserstein_by_deviation(reference: Array, current: Array, values: Array) -> Array:
    """Return Wasserstein's distance by the standard deviation of the reference."""
    p = kernels.shares(reference)
    mean = (p * values).sum()
    deviation = math.sqrt(float((p * (values - mean) ** 2).sum()))
    distance: Array = kernels.wasserstein(reference, current, values) / max(
        deviation, 1e-3
    )
    return distance


def jensen_shannon_distance(reference: Array, current: Array) -> Array:
    """Return the root of the divergence in nats, as SciPy's default."""
    nats = kernels.jensen_shannon(reference, current) * math.log(2)
    distance: Array = np.sqrt(nats)
    return distance


def uncorrected_ks(reference: Array, current: Array, level: float = 0.05) -> Array:
    """Return whether KS alone has a p-value below a level, as whylogs does it."""
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    p = kernels.fast_ks_p(kernels.ks_distance(r, c), c.sum(-1), r.sum())
    found: Array = p < level
    return found


def fixed_psi(reference: Array, current: Array, limit: float = 0.1) -> Array:
    """Return whether PSI is above a limit, whatever the number of rows."""
    found: Array = kernels.psi(reference, current) > limit
    return found


def equal_width_ks(reference: Array, current: Array, bins: int = 10_000) -> float:
    """Return NannyML's estimate of the KS distance for large references, of raw values.

    The distribution functions are compared at equally wide steps from the smallest to
    the greatest value of the reference.
    """
    steps = np.linspace(reference.min(), reference.max(), bins + 1)[1:]
    left = np.searchsorted(np.sort(reference), steps, "right") / len(reference)
    right = np.searchsorted(np.sort(current), steps, "right") / len(current)
    return float(np.abs(left - right).max())


def equal_width_psi(reference: Array, current: Array) -> float:
    """Return Evidently's PSI of raw values: bins of equal width, by Sturges' rule."""
    p, q = _equal_width(reference, current)
    p, q = (np.where(each == 0, _SMALLEST_SHARE, each) for each in (p, q))
    return float(((q - p) * np.log(q / p)).sum())


def equal_width_js(reference: Array, current: Array) -> float:
    """Return Evidently's Jensen-Shannon distance of raw values, in the same bins."""
    p, q = _equal_width(reference, current)
    return float(jensen_shannon_distance(p * len(reference), q * len(current)))


def ten_bins_divergence(reference: Array, current: Array) -> float:
    """Return the Jensen-Shannon divergence of ten equally wide bins, in bits.

    TFDV's for numbers, whose histograms are of equal width by default, over the range
    of both sides.
    """
    edges = np.histogram_bin_edges(np.concatenate([reference, current]), 10)
    p, q = (np.histogram(each, edges)[0] for each in (reference, current))
    return float(kernels.jensen_shannon(p, q))


def _equal_width(reference: Array, current: Array) -> tuple[Array, Array]:
    edges = np.histogram_bin_edges(np.concatenate([reference, current]), "sturges")
    p = np.histogram(reference, edges)[0] / len(reference)
    q = np.histogram(current, edges)[0] / len(current)
    return p, q
