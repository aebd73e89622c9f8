"""Binary metrics of scores in bins: in closed form, for many sets of labels at once.

All bins are in rising order of score. Rows of one bin count as ties, which is what
fine bins make of them anyway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

_LEAST = 1e-7
"""Scores nearer to 0 or 1 than this are taken to be at this distance, in log loss."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Rows by bin of their score.

    Attributes:
        edges: Inner edges of shape (bins - 1,), rising: bin i is [edge i-1, edge i).
        rows: Weights of the rows in each bin, of shape (bins,), float64.
        squares: Sums of squared weights; equal to `rows` without weights.
        sums: Sums of scores.
        square_sums: Sums of squared scores.
        log_sums: Sums of log(score).
        other_log_sums: Sums of log(1 - score).
    """

    edges: Array
    rows: Array
    squares: Array
    sums: Array
    square_sums: Array
    log_sums: Array
    other_log_sums: Array

    @classmethod
    def of(cls, scores: Array, edges: Array, weights: Array | None = None) -> Scores:
        """Return the bins of scores.

        Args:
            scores: Of shape (rows,), finite.
            edges: Inner edges, rising.
            weights: Of shape (rows,), positive; None for 1 each.
        """
        scores = np.asarray(scores, np.float64)
        place, count = bins_of(scores, edges), len(edges) + 1
        weight = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
        inside = np.clip(scores, _LEAST, 1 - _LEAST)

        def summed(values: Array) -> Array:
            return np.bincount(place, weights=values, minlength=count)

        return cls(
            np.asarray(edges, np.float64),
            summed(weight),
            summed(weight * weight),
            summed(weight * scores),
            summed(weight * scores**2),
            summed(weight * np.log(inside)),
            summed(weight * np.log1p(-inside)),
        )

    @property
    def total(self) -> float:
        """The weight of all rows."""
        return float(self.rows.sum())


def bins_of(scores: Array, edges: Array) -> Array:
    """Return the bin of every score; those beyond the edges are in the outer bins."""
    found: Array = np.searchsorted(edges, scores, side="right")
    return found


def positives_of(
    scores: Array, labels: Array, edges: Array, weights: Array | None = None
) -> Array:
    """Return the weight of the positive rows of every bin, of shape (bins,)."""
    values = np.asarray(labels, np.float64)
    if weights is not None:
        values = values * weights
    return np.bincount(bins_of(scores, edges), weights=values, minlength=len(edges) + 1)


def auc(scores: Scores, positives: Array, place: int = 0) -> Array:
    """Return the areas under the ROC curve, ties counting half.

    Args:
        scores: The rows.
        positives: Weight of positive rows by bin, of shape (..., bins); it may be an
            expectation.
        place: Not used, here as in other metrics without a threshold.
    """
    del place
    negatives = scores.rows - positives
    below = np.cumsum(negatives, axis=-1) - negatives
    won = (positives * (below + negatives / 2)).sum(axis=-1)
    return _ratio(won, positives.sum(axis=-1) * negatives.sum(axis=-1))


def average_precision(scores: Scores, positives: Array, place: int = 0) -> Array:
    """Return the sum of precisions over the steps of recall, from the highest bin."""
    del place
    taken = np.cumsum(positives[..., ::-1], axis=-1)
    rows = np.cumsum(scores.rows[::-1])
    terms = positives[..., ::-1] * np.divide(
        taken, rows, out=np.zeros_like(taken), where=rows > 0
    )
    return _ratio(terms.sum(axis=-1), positives.sum(axis=-1))


def _confusion(
    scores: Scores, positives: Array, place: int
) -> tuple[Array, Array, Array, Array]:
    """Return true and false positives, false and true negatives; from bin `place`."""
    true = positives[..., place:].sum(axis=-1)
    missed = positives[..., :place].sum(axis=-1)
    false = scores.rows[place:].sum() - true
    return true, false, missed, scores.rows[:place].sum() - missed


def accuracy(scores: Scores, positives: Array, place: int) -> Array:
    """Return the share of rows that are on their side of the threshold."""
    true, _, _, other = _confusion(scores, positives, place)
    return _ratio(true + other, np.asarray(scores.total))


def precision(scores: Scores, positives: Array, place: int) -> Array:
    """Return the share of positives among the rows above the threshold."""
    true, false, _, _ = _confusion(scores, positives, place)
    return _ratio(true, true + false)


def recall(scores: Scores, positives: Array, place: int) -> Array:
    """Return the share of positives that are above the threshold."""
    true, _, missed, _ = _confusion(scores, positives, place)
    return _ratio(true, true + missed)


def specificity(scores: Scores, positives: Array, place: int) -> Array:
    """Return the share of negatives that are below the threshold."""
    _, false, _, other = _confusion(scores, positives, place)
    return _ratio(other, other + false)


def f1(scores: Scores, positives: Array, place: int) -> Array:
    """Return the harmonic mean of precision and recall."""
    true, false, missed, _ = _confusion(scores, positives, place)
    return _ratio(2 * true, 2 * true + false + missed)


def _per_row(sums: Array, scores: Scores) -> Array:
    return np.divide(sums, scores.rows, out=np.zeros_like(sums), where=scores.rows > 0)


def brier(scores: Scores, positives: Array, place: int = 0) -> Array:
    """Return the mean squared distance of scores from labels."""
    del place
    mean = _per_row(scores.sums, scores)
    terms = positives - 2 * positives * mean
    return _ratio(scores.square_sums.sum() + terms.sum(axis=-1), np.array(scores.total))


def log_loss(scores: Scores, positives: Array, place: int = 0) -> Array:
    """Return the mean negative log likelihood of the labels, in nats."""
    del place
    of_ones = _per_row(scores.log_sums, scores)
    of_zeros = _per_row(scores.other_log_sums, scores)
    likelihood = positives * of_ones + (scores.rows - positives) * of_zeros
    return _ratio(-likelihood.sum(axis=-1), np.array(scores.total))


def _ratio(above: Array, below: Array) -> Array:
    below = np.asarray(below, np.float64)
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), below)
    found: Array = np.divide(
        above, below, out=np.full(above.shape, np.nan), where=below > 0
    )
    return found


METRICS: Mapping[str, Callable[[Scores, Array, int], Array]] = {
    "auc": auc,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "specificity": specificity,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier": brier,
}
"""What can be computed of binned scores, by name.

Each takes the scores, the positives by bin of shape (..., bins) and the first bin above
the threshold, and returns numbers of shape (...); NaN where it is not defined.
"""
