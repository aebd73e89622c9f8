"""The curves of the page of an evaluation, from the histograms that metrics made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from penstock.components.evaluation.accumulate import Accumulator
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.blessing import slice_text
from penstock.components.evaluation.metrics.binary import OfHistogram
from penstock.components.evaluation.report import Curves, Plots
from penstock.components.evaluation.statistics import ScoreHistogram
from penstock.components.evaluation.views import View

_THRESHOLDS = 1_000
_BINS = 20


def plots(
    accumulator: Accumulator, slices: Iterable[str], baseline: str | None
) -> tuple[Plots, ...]:
    """Return the curves of slices, where a metric made a histogram of scores.

    Args:
        accumulator: With the sums by slice.
        slices: Of which slices, as texts show them.
        baseline: Name of the baseline's model, if there is one.
    """
    candidate, other = _histograms(accumulator, baseline)
    if candidate is None:
        return ()
    numbers = {slice_text(key): n for n, (_, key) in enumerate(accumulator.slices)}
    return tuple(
        Plots(
            text,
            _curves(accumulator, candidate, numbers[text]),
            None if other is None else _curves(accumulator, other, numbers[text]),
        )
        for text in slices
        if text in numbers
    )


def _histograms(
    accumulator: Accumulator, baseline: str | None
) -> tuple[ScoreHistogram | None, ScoreHistogram | None]:
    """Return the histograms of the candidate and of the baseline."""
    found: list[ScoreHistogram | None] = [None, None]
    for each in accumulator.settings.statistics:
        if isinstance(each, ScoreHistogram) and _is_whole(each.view):
            place = int(baseline is not None and each.view.model == baseline)
            found[place] = found[place] or each
    return found[0], found[1]


def _is_whole(view: View) -> bool:
    return view.class_id is None and view.k is None and view.top_k is None


def _curves(accumulator: Accumulator, histogram: ScoreHistogram, number: int) -> Curves:
    sums = accumulator.sums(histogram).dense(number, number + 1, 1)[0]
    m = OfHistogram(_THRESHOLDS, histogram.buckets).whole(sums)
    with np.errstate(all="ignore"):
        recall = m.tp / (m.tp + m.fn)
        fallout = m.fp / (m.fp + m.tn)
        precision = m.tp / (m.tp + m.fp)
    weights = sums[:, 0].reshape(-1, 2)
    return Curves(
        _points(fallout, recall),
        _points(recall, precision),
        _bins(weights, histogram.buckets),
    )


def _points(*axes: Array) -> Array:
    """Return the points of a curve once each, without those that are not defined."""
    found = np.stack(axes, axis=1)
    found = found[~np.isnan(found).any(axis=1)]
    is_new = np.ones(len(found), bool)
    is_new[1:] = (found[1:] != found[:-1]).any(axis=1)
    points: Array = found[is_new]
    return points


def _bins(weights: Array, buckets: int) -> Sequence[tuple[float, float, float]]:
    """Return mean prediction, mean label and weight of bins of about equal weight.

    The mean prediction is that of the buckets' middles.
    """
    middles = (np.arange(-1, buckets + 1) + 0.5) / buckets
    mass = weights.sum(axis=1)
    filled = np.flatnonzero(mass)
    if not len(filled):
        return ()
    reached = np.cumsum(mass[filled]) / mass.sum()
    bins = np.minimum((reached - mass[filled] / mass.sum() / 2) * _BINS, _BINS - 1)
    bins = bins.astype(np.int64)
    weight = np.bincount(bins, mass[filled], _BINS)
    label = np.bincount(bins, weights[filled, 1], _BINS)
    prediction = np.bincount(bins, mass[filled] * middles[filled], _BINS)
    kept = weight > 0
    return [
        (float(p / w), float(y / w), float(w))
        for p, y, w in zip(prediction[kept], label[kept], weight[kept], strict=True)
    ]
