"""Trends of metrics over windows: a weighted line per slice, with its interval.

The line is fitted by weighted least squares with weights one over squared standard
errors. Windows may vary more than their standard errors say: the variance of the slope
is multiplied by the mean squared residual where that is above 1 (Birge 1932, Physical
Review 40, 207-227), never made smaller, and the quantiles are Student's. Where windows
resemble the ones before them, as the correlation of neighboring residuals shows, the
variance is multiplied by (1 + r) / (1 - r) too, what the mean of such a series has, and
the degrees of freedom are divided by it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeAlias

import numpy as np

from penstock.components.monitoring.quality.history import History

Array: TypeAlias = "np.ndarray[Any, Any]"

LEAST_WINDOWS = 7
"""Windows that a trend needs."""

_HIGHER, _LOWER, _NEITHER = 1, -1, 0

_DIRECTIONS = {
    _HIGHER: (
        *("auc", "accuracy", "precision", "recall", "f1", "specificity", "sensitivity"),
        *("correlation", "ndcg", "match", "positive_rate_true", "predictive_value"),
        *("informedness", "markedness", "true_positive_rate", "true_negative_rate"),
        *("discrimination", "threat_score", "fowlkes", "mcc", "tpr", "tnr", "r2"),
    ),
    _LOWER: (
        *("loss", "error", "crossentropy", "cross_entropy", "brier", "false", "fpr"),
        *("fnr", "miss_rate", "fall_out", "flip_rate", "hinge", "divergence"),
    ),
}
_NOT_QUALITY = ("count", "mean_label", "mean_prediction", "prevalence")


def direction_of(metric: str) -> int | None:
    """Return what is better: 1 for higher, -1 for lower, 0 if it should stay.

    By the words of its name, as TFMA's metrics have them. None for what says nothing of
    quality, such as `example_count`.
    """
    name = metric.lower().replace(" ", "_")
    if any(word in name for word in _NOT_QUALITY):
        return None
    for direction in (_LOWER, _HIGHER):
        if any(word in name for word in _DIRECTIONS[direction]):
            return direction
    return _NEITHER


@dataclasses.dataclass(frozen=True)
class Trends:
    """A line through each series.

    Attributes:
        slopes: Change per week, of shape (series,); NaN where windows are too few.
        errors: Its standard error, with what windows vary beyond theirs.
        degrees: Degrees of freedom of its Student's t.
        levels: Weighted means of the values.
        spans: Weeks from the first to the last window with a value.
        excess: How many times the variance is what standard errors say, at least 1;
            with what it is more for windows that resemble their neighbors.
        windows: How many windows have a value.
    """

    slopes: Array
    errors: Array
    degrees: Array
    levels: Array
    spans: Array
    excess: Array
    windows: Array

    def interval(self, confidence: float = 0.95) -> tuple[Array, Array]:
        """Return the ends of the intervals of the slopes."""
        from scipy import special

        times = special.stdtrit(np.maximum(self.degrees, 1), (1 + confidence) / 2)
        return self.slopes - times * self.errors, self.slopes + times * self.errors

    def p_values(self, directions: Array) -> Array:
        """Return how likely slopes as bad are where there is none; 1 if unknown.

        Args:
            directions: By series 1 if higher is better, -1 if lower, 0 if any change
                is bad, which is two-sided.
        """
        return tail(self.slopes, self.errors, self.degrees, directions)


def tail(values: Array, errors: Array, degrees: Array, directions: Array) -> Array:
    """Return p-values of values as bad, by Student's t; 1 where they are not known."""
    from scipy import special

    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = values / errors
    known = np.isfinite(scaled) & (degrees > 0)
    scaled = np.where(known, scaled, 0.0)
    freedom = np.maximum(degrees, 1)
    one = special.stdtr(freedom, scaled * directions)
    two = 2 * special.stdtr(freedom, -np.abs(scaled))
    return np.where(known, np.where(directions == 0, two, one), 1.0)


def lasting(residuals: Array, known: Array) -> Array:
    """Return by how much the variance is greater for windows that resemble neighbors.

    The correlation of neighbors is found too low in short series, by (1 + 4 r) / n
    (Marriott & Pope 1954, Biometrika 41, 390-402), and is put right. One within a
    standard error of none counts as none.

    Of few windows it is poorly known, and of many series those alarm whose windows
    resemble each other less by chance than in truth. So each counts as resembling at
    least as much as all series of the model do on average.

    Args:
        residuals: Divided by standard errors, of shape (series, windows).
        known: Which of them are.

    Returns:
        Factors of shape (series,), at least 1.
    """
    there = np.where(known, residuals, 0.0)
    count = known.sum(axis=1)
    pairs = (known[:, 1:] & known[:, :-1]).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        together = (there[:, 1:] * there[:, :-1]).sum(axis=1) / pairs
        own = together / ((there**2).sum(axis=1) / count)
        shows = own * np.sqrt(count) > 1
        found = np.where(shows, own + (1 + 4 * own) / count, 0.0)
    told = np.isfinite(own) & (count >= LEAST_WINDOWS)
    if told.any():
        shared, windows = own[told].mean(), count[told].mean()
        if shared * math.sqrt(count[told].sum()) > 1:
            # Twice as much too low where a line or a step was fitted, not a mean.
            shared += (2 + 4 * shared) / windows
            found = np.where(told, np.maximum(found, shared), found)
    found = np.clip(np.nan_to_num(found), 0.0, 0.9)
    factor: Array = (1 + found) / (1 - found)
    return factor


def fit(history: History, *, least_windows: int = LEAST_WINDOWS) -> Trends:
    """Fit a line to every series.

    Args:
        history: The series.
        least_windows: Windows with a value that a line needs.
    """
    weights = history.weights
    values = np.where(weights > 0, history.values, 0.0)
    times = history.times[None, :]
    count = (weights > 0).sum(axis=1)
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (weights * times).sum(axis=1) / total
        level = (weights * values).sum(axis=1) / total
        away = times - middle[:, None]
        spread = (weights * away**2).sum(axis=1)
        slope = (weights * away * (values - level[:, None])).sum(axis=1) / spread
        residual = values - level[:, None] - slope[:, None] * away
        squared = (weights * residual**2).sum(axis=1)
        degrees = count - 2
        excess = np.maximum(squared / np.maximum(degrees, 1), 1.0)
        times_more = lasting(np.sqrt(weights) * residual, weights > 0)
        excess, degrees = excess * times_more, degrees / times_more
        error = np.sqrt(excess / spread)
    enough = (count >= max(least_windows, 3)) & (spread > 0)
    known = np.where(weights > 0, times, np.nan)
    span = np.full(len(count), math.nan)
    if enough.any():
        span[enough] = np.nanmax(known[enough], 1) - np.nanmin(known[enough], 1)

    def where_enough(numbers: Array) -> Array:
        return np.where(enough, numbers, np.nan)

    return Trends(
        where_enough(slope),
        where_enough(error),
        np.where(enough, degrees, 0),
        where_enough(level),
        span,
        where_enough(excess),
        count,
    )
