"""Confidence sequences for means: intervals that hold at every look at once.

Asymptotic, so they need a burn-in: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024,
Annals of Statistics 52, 2613-2640 (arXiv 2103.06476).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TUNED_FOR = 5_000.0
"""At how many units the boundary is tightest by default; it is flat around there."""


def tuning(alpha: float, tuned_for: float = TUNED_FOR) -> float:
    """Return ρ², the mixture's variance, for a boundary that is tightest at a size.

    Equation 10 of the paper, to its order: ρ² = (-2 ln α + ln(1 - 2 ln α)) / N.

    Args:
        alpha: Level of a two-sided sequence; of a one-sided one, twice its level.
        tuned_for: N, in units.
    """
    wanted = -2 * math.log(alpha)
    return (wanted + math.log1p(wanted)) / tuned_for


def two_sided_boundary(
    units: npt.ArrayLike, alpha: float, tuned_for: float = TUNED_FOR
) -> Array:
    """Return how many standard errors wide a two-sided sequence is, on each side.

    Equation 9: a mean of n values is within σ/√n times this of the truth at all n at
    once with probability 1 - α.

    Args:
        units: n; shape (...).
        alpha: The level.
        tuned_for: Where it is tightest.
    """
    scale = np.asarray(units, np.float64) * tuning(alpha, tuned_for)
    boundary: Array = np.sqrt(
        2 * (scale + 1) / scale * (0.5 * np.log1p(scale) - math.log(alpha))
    )
    return boundary


def one_sided_boundary(
    units: npt.ArrayLike, alpha: float, tuned_for: float = TUNED_FOR
) -> Array:
    """Return how many standard errors below the mean a lower sequence lies.

    Equation 134: √(2 (nρ² + 1)/(nρ²) · ln(1 + √(nρ² + 1)/(2α))).
    """
    scale = np.asarray(units, np.float64) * tuning(min(2 * alpha, 1.0), tuned_for)
    boundary: Array = np.sqrt(
        2
        * (scale + 1)
        / scale
        * np.logaddexp(0, 0.5 * np.log1p(scale) - math.log(2 * alpha))
    )
    return boundary


def log_one_sided(
    z: npt.ArrayLike, units: npt.ArrayLike, alpha: float, tuned_for: float = TUNED_FOR
) -> Array:
    """Return log evidence that a mean is above zero: `one_sided_boundary`, inverted.

    It reaches ln(1/α) exactly where the lower confidence sequence of level α passes
    zero.

    Args:
        z: The mean over its standard error; shape (...).
        units: How many units the mean is of; shape (...).
        alpha: The level that the boundary is tuned for; evidence for other levels is
            valid, too.
        tuned_for: Where it is tightest.

    Returns:
        Natural logarithms, of shape (...); minus infinity where z is not positive.
    """
    scale = np.asarray(units, np.float64) * tuning(min(2 * alpha, 1.0), tuned_for)
    above = np.maximum(np.asarray(z, np.float64), 0)
    power = above**2 * scale / (2 * (scale + 1))
    with np.errstate(divide="ignore"):
        # log(expm1(power)), which neither over- nor underflows.
        grown = power + np.log(-np.expm1(-power))
    evidence: Array = math.log(2) + grown - 0.5 * np.log1p(scale)
    return evidence
