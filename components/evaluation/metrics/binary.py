"""Metrics of confusion matrices of two classes, by threshold of the score.

Names, defaults and definitions are TFMA's
(`tensorflow_model_analysis.metrics.confusion_matrix_metrics`); a denominator of 0 gives
NaN, as there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.metrics.registry import (
    Builder,
    GroupedForm,
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import ScoreHistogram, ThresholdCounts
from penstock.schemas.errors import PipelineError

EPSILON = 1e-7
BUCKETS = 10_000
THRESHOLDS = 10_000
_KERAS_THRESHOLDS = 200


@dataclasses.dataclass(frozen=True)
class Matrices:
    """Weights of true and false positives and negatives.

    Attributes:
        thresholds: Of shape (thresholds,); a score above one is a positive.
        tp: Of shape (..., thresholds), like the others.
        tn: True negatives.
        fp: False positives.
        fn: False negatives.
    """

    thresholds: Array
    tp: Array
    tn: Array
    fp: Array
    fn: Array


@dataclasses.dataclass(frozen=True)
class At:
    """Makes matrices at thresholds, of weights by ordered intervals of the score.

    Attributes:
        thresholds: Of shape (thresholds,).
        first: The first interval above each threshold, of shape (thresholds,).
        has_end: Whether nothing counts as above the last threshold.
    """

    thresholds: Array
    first: Array
    has_end: bool

    def __call__(self, sums: Array) -> Matrices:
        """Return matrices of sums of shape (..., 2 * intervals, columns)."""
        weights = sums[..., 0].reshape(*sums.shape[:-2], -1, 2)
        negative, positive = weights[..., 0], weights[..., 1]
        # Both sides are summed, so that what is empty is exactly 0 on either.
        tp, fp = self._above(positive), self._above(negative)
        fn, tn = self._below(positive), self._below(negative)
        if self.has_end:
            tp[..., -1] = fp[..., -1] = 0
            fn[..., -1], tn[..., -1] = tp[..., 0], fp[..., 0]
        return Matrices(self.thresholds, tp, tn, fp, fn)

    def _below(self, weights: Array) -> Array:
        sums = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
        np.cumsum(weights, axis=-1, out=sums[..., 1:])
        return sums[..., self.first]

    def _above(self, weights: Array) -> Array:
        sums = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
        np.cumsum(weights[..., ::-1], axis=-1, out=sums[..., 1:])
        return sums[..., weights.shape[-1] - self.first]


@dataclasses.dataclass(frozen=True)
class OfHistogram:
    """Matrices of a ScoreHistogram at interpolated thresholds.

    Attributes:
        thresholds: How many: from 0 to 1, the first and the last a little outside, so
            that scores of exactly 0 and 1 count; as Keras and TFMA have them.
        buckets: Of the histogram.
    """

    thresholds: int = THRESHOLDS
    buckets: int = BUCKETS

    def whole(self, sums: Array) -> Matrices:
        """Return matrices of sums of shape (..., cells, columns)."""
        return self._at(sums)

    def grouped(self, totals: Array, groups: int) -> tuple[Array, GroupedForm]:
        """Keep the thresholds that part the rows into groups of equal weight."""
        mass = totals[:, 0].reshape(-1, 2).sum(axis=1)
        first = self._at.first
        filled = np.flatnonzero(mass)
        last = len(first) - 1
        # Nothing is above the last threshold: what is in its bucket is above the one
        # before.
        start = np.clip(np.searchsorted(first, filled, "right") - 1, 0, last - 1)
        kept = np.unique([0, *start, last])
        if len(kept) > groups:
            reached = np.cumsum(mass)
            wanted = reached[-1] * np.linspace(0, 1, groups)[1:-1]
            start = np.searchsorted(first, np.searchsorted(reached, wanted), "right")
            kept = np.unique([0, *np.clip(start - 1, 0, last - 1), last])
        # Thresholds within one bucket are the same; of those the first is kept.
        _, once = np.unique(first[kept], return_index=True)
        kept = np.union1d(kept[once], [last])
        group = np.searchsorted(first[kept], np.arange(len(mass)), "right") - 1
        cells = (2 * np.maximum(group, 0)[:, None] + np.arange(2)).ravel()
        return cells, At(self._at.thresholds[kept], np.arange(len(kept)), True)

    @functools.cached_property
    def _at(self) -> At:
        inner = np.arange(1, self.thresholds - 1) * 1.0 / (self.thresholds - 1)
        thresholds = np.concatenate([[-EPSILON], inner, [1.0 + EPSILON]])
        return at_thresholds(thresholds, self.buckets)


def at_thresholds(thresholds: Array, buckets: int) -> At:
    """Return what makes matrices of a ScoreHistogram.

    Args:
        thresholds: Rising, the first one below 0.
        buckets: Of the histogram.
    """
    # A bucket holds scores from its left edge on, a matrix those above a threshold:
    # TFMA moves the edges by as little as this.
    edges = np.where(thresholds != 0, thresholds + EPSILON, thresholds)
    left = np.arange(buckets) / buckets
    bucket_of = np.concatenate([[-np.inf], left, [np.inf]])
    first = np.searchsorted(bucket_of, edges, "left")
    first[0] = 0
    return At(thresholds, first, bool(thresholds[-1] >= 1.0 + EPSILON))


@dataclasses.dataclass(frozen=True)
class OfCounts:
    """Matrices of ThresholdCounts.

    Attributes:
        thresholds: As the config gives them, in its order.
    """

    thresholds: tuple[float, ...]

    def whole(self, sums: Array) -> Matrices:
        """Return matrices of sums of shape (..., cells, columns)."""
        return self._at(sums)

    def grouped(self, totals: Array, groups: int) -> tuple[Array, GroupedForm]:
        """Return every cell as a group of its own."""
        del groups
        return np.arange(len(totals)), self._at

    @functools.cached_property
    def _at(self) -> At:
        rising = np.unique(self.thresholds)
        first = np.searchsorted(rising, self.thresholds) + 1
        return At(np.array(self.thresholds), first, False)


def matrices_part(request: Request, default: float | None) -> Part:
    """Return the matrices that a metric takes, at the thresholds that TFMA takes.

    Args:
        request: With `thresholds` or `num_thresholds` in its config, or neither.
        default: The threshold where there is neither; None for 10,000 of them.

    Raises:
        PipelineError: If there are both, or fewer than 2 thresholds are asked for.
    """
    thresholds = request.config.get("thresholds")
    count = request.config.get("num_thresholds")
    if thresholds is None and count is None:
        if request.view.top_k is not None:
            thresholds = -np.inf
        elif default is not None:
            thresholds = default
    if thresholds is not None and not isinstance(thresholds, list | tuple):
        thresholds = [thresholds]
    if thresholds:
        found = tuple(float(each) for each in thresholds)
        if count is None and found == tuple(OfHistogram(len(found))._at.thresholds):
            count, thresholds = len(found), None
        elif count in (THRESHOLDS, _KERAS_THRESHOLDS) and len(found) == count - 2:
            thresholds = None
    if count is not None and (thresholds or count < 2):
        raise PipelineError(
            f"Metric '{request.key.name}' has num_thresholds={count}"
            + (f" and {len(thresholds)} thresholds" if thresholds else "")
            + ". Give at least 2, or thresholds instead, in its config."
        )
    if thresholds:
        return Part(
            ThresholdCounts(request.view, tuple(sorted(set(found)))), OfCounts(found)
        )
    return Part(ScoreHistogram(request.view, BUCKETS), OfHistogram(count or THRESHOLDS))


def _share(numerator: Array, denominator: Array) -> Array:
    """Return a quotient, NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _where(condition: Array, value: Array) -> Array:
    return np.where(condition, value, np.nan)


def _prevalence_threshold(m: Matrices) -> Array:
    tpr, tnr = _share(m.tp, m.tp + m.fn), _share(m.tn, m.tn + m.fp)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = (np.sqrt(tpr * (1 - tnr)) + tnr - 1) / (tpr + tnr - 1)
    return found


def _correlation(m: Matrices) -> Array:
    margins = (m.tp + m.fp) * (m.tp + m.fn) * (m.tn + m.fp) * (m.tn + m.fn)
    return _share(m.tp * m.tn - m.fp * m.fn, np.sqrt(np.maximum(margins, 0)))


def _odds_ratio(m: Matrices) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (m.tp / m.fn) / (m.fp / m.tn)
    return _where((m.fn > 0) & (m.fp > 0) & (m.tn > 0), ratio)


_FORMULAS: Mapping[str, Callable[[Matrices], Array]] = {
    "TruePositives": lambda m: m.tp,
    "TrueNegatives": lambda m: m.tn,
    "FalsePositives": lambda m: m.fp,
    "FalseNegatives": lambda m: m.fn,
    "BinaryAccuracy": lambda m: _share(m.tp + m.tn, m.tp + m.fp + m.tn + m.fn),
    "Precision": lambda m: _share(m.tp, m.tp + m.fp),
    "Recall": lambda m: _share(m.tp, m.tp + m.fn),
    "Specificity": lambda m: _share(m.tn, m.tn + m.fp),
    "FallOut": lambda m: _share(m.fp, m.fp + m.tn),
    "MissRate": lambda m: _share(m.fn, m.fn + m.tp),
    "NegativePredictiveValue": lambda m: _share(m.tn, m.tn + m.fn),
    "FalseDiscoveryRate": lambda m: _share(m.fp, m.fp + m.tp),
    "FalseOmissionRate": lambda m: _share(m.fn, m.fn + m.tn),
    "Prevalence": lambda m: _share(m.tp + m.fn, m.tp + m.tn + m.fp + m.fn),
    "PrevalenceThreshold": _prevalence_threshold,
    "ThreatScore": lambda m: _share(m.tp, m.tp + m.fn + m.fp),
    "BalancedAccuracy": lambda m: (
        (_share(m.tp, m.tp + m.fn) + _share(m.tn, m.tn + m.fp)) / 2
    ),
    "F1Score": lambda m: _share(2 * m.tp, 2 * m.tp + m.fp + m.fn),
    "MatthewsCorrelationCoefficient": _correlation,
    "FowlkesMallowsIndex": lambda m: np.sqrt(
        _share(m.tp, m.tp + m.fp) * _share(m.tp, m.tp + m.fn)
    ),
    "Informedness": lambda m: _share(m.tp, m.tp + m.fn) + _share(m.tn, m.tn + m.fp) - 1,
    "Markedness": lambda m: _share(m.tp, m.tp + m.fp) + _share(m.tn, m.tn + m.fn) - 1,
    "PositiveLikelihoodRatio": lambda m: _share(
        _share(m.tp, m.tp + m.fn), _share(m.fp, m.fp + m.tn)
    ),
    "NegativeLikelihoodRatio": lambda m: _share(
        _share(m.fn, m.fn + m.tp), _share(m.tn, m.tn + m.fp)
    ),
    "DiagnosticOddsRatio": _odds_ratio,
    "PredictedPositiveRate": lambda m: _share(m.tp + m.fp, m.tp + m.fp + m.tn + m.fn),
}
_ALIASES = {
    "TP": "TruePositives",
    "TN": "TrueNegatives",
    "FP": "FalsePositives",
    "FN": "FalseNegatives",
    "PPV": "Precision",
    "TPR": "Recall",
    "TNR": "Specificity",
    "FPR": "FallOut",
    "FNR": "MissRate",
    "NPV": "NegativePredictiveValue",
    "MaxRecall": "Recall",
}
# TFMA's name for "whatever score there is": all above it are positives.
_DEFAULTS = {"MaxRecall": 1.0e-12}


def _settled(builder: Builder) -> Builder:
    """Apply the `top_k` and `class_id` of a metric's own config before it is built."""

    def build(request: Request) -> list[Metric] | None:
        settled = request.with_class_settings()
        return None if settled is None else builder(settled)

    return build


def _only(formula: Callable[[Matrices], Array], matrices: Matrices) -> Array:
    found: Array = formula(matrices)[..., 0]
    return found


@metric(*_FORMULAS, *_ALIASES, takes_queries=True)
@_settled
def _rates(request: Request) -> list[Metric]:
    name = request.class_name
    formula = _FORMULAS[_ALIASES.get(name, name)]
    part = matrices_part(request, _DEFAULTS.get(name, 0.5))
    if isinstance(part.form, OfCounts) and len(part.form.thresholds) == 1:
        return [Metric(request.key, (part,), functools.partial(_only, formula))]
    return [Metric(request.key, (part,), formula, "array")]


def area(matrices: Matrices, *, curve: str, method: str) -> Array:
    """Return the area under a curve by the trapezoid rule.

    As TFMA does, the precision-recall curve is interpolated after Davis & Goadrich,
    "The Relationship Between Precision-Recall and ROC Curves" (ICML 2006).

    Args:
        matrices: At falling positives.
        curve: `ROC` or `PR`.
        method: `interpolation`, `minoring` or `majoring`.
    """
    m = matrices
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = m.tp / (m.tp + m.fn)
        if curve == "PR" and method == "interpolation":
            return _interpolated_area(m)
        x, y = (
            (m.fp / (m.fp + m.tn), recall)
            if curve == "ROC"
            else (recall, _precision(m))
        )
        left, right = y[..., :-1], y[..., 1:]
        if method == "interpolation":
            heights = (left + right) / 2.0
        else:
            choose = np.minimum if method == "minoring" else np.maximum
            heights = choose(left, right)
        return np.asarray(np.nansum((x[..., :-1] - x[..., 1:]) * heights, axis=-1))


def _precision(m: Matrices) -> Array:
    found = m.tp / (m.tp + m.fp)
    return np.where(np.isnan(found), _precision_of_none(), found)


@functools.cache
def _precision_of_none() -> float:
    """Return the precision that the TFMA at hand takes where nothing is positive.

    0.52 takes 0; 0.47 leaves such thresholds out of the area.
    """
    from tensorflow_model_analysis.metrics import confusion_matrix_metrics

    matrices = as_tfma(
        Matrices(*np.array([[0, 1], [1, 0], [0, 0], [0, 0], [0, 1]], float))
    )
    with np.errstate(all="ignore"):
        found = confusion_matrix_metrics.AUC()._metric_value(
            "PR", "majoring", None, matrices
        )
    return 0.0 if found else float("nan")


def _interpolated_area(m: Matrices) -> Array:
    positives = m.tp + m.fp
    gained = m.tp[..., :-1] - m.tp[..., 1:]
    step = positives[..., :-1] - positives[..., 1:]
    slope = gained / np.maximum(step, 0)
    intercept = m.tp[..., 1:] - slope * positives[..., 1:]
    before, after = positives[..., :-1], positives[..., 1:]
    ratio = np.where(
        (before > 0) & (after > 0), before / np.maximum(after, 0), np.ones_like(after)
    )
    parts = slope * (gained + intercept * np.log(ratio))
    all_positives = np.maximum(m.tp[..., 1:] + m.fn[..., 1:], 0)
    return np.asarray(np.nansum(parts / all_positives, axis=-1))


@metric("AUC", "AUCPrecisionRecall", takes_queries=True)
@_settled
def _areas(request: Request) -> list[Metric]:
    curve = "PR" if request.class_name == "AUCPrecisionRecall" else "ROC"
    curve = str(request.config.get("curve", curve)).upper()
    method = str(request.config.get("summation_method", "interpolation")).lower()
    formula = functools.partial(area, curve=curve, method=method)
    part = matrices_part(request, None)
    return [Metric(request.key, (part,), formula, is_undefined=_has_one_class)]


def _has_one_class(m: Matrices) -> Array:
    positives, negatives = m.tp[..., 0] + m.fn[..., 0], m.fp[..., 0] + m.tn[..., 0]
    found: Array = (positives == 0) | (negatives == 0)
    return found


_CURVES: Mapping[str, Callable[[Matrices], Array]] = {
    "sensitivity": lambda m: m.tp / (m.tp + m.fn),
    "recall": lambda m: m.tp / (m.tp + m.fn),
    "specificity": lambda m: m.tn / (m.tn + m.fp),
    "precision": lambda m: m.tp / (m.tp + m.fp),
    "false_positive_rate": lambda m: m.fp / (m.fp + m.tn),
    "threshold": lambda m: np.broadcast_to(m.thresholds, m.tp.shape),
}
# What is sought, and what constrains it.
_SOUGHT = {
    "SensitivityAtSpecificity": ("sensitivity", "specificity"),
    "SpecificityAtSensitivity": ("specificity", "sensitivity"),
    "PrecisionAtRecall": ("precision", "recall"),
    "RecallAtPrecision": ("recall", "precision"),
    "RecallAtFalsePositiveRate": ("recall", "false_positive_rate"),
    "ThresholdAtRecall": ("threshold", "recall"),
}


def highest(
    matrices: Matrices, *, sought: str, given: str, bounds: tuple[float, ...]
) -> Array:
    """Return the highest value at the thresholds that meet each bound, else 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values, constrained = _CURVES[sought](matrices), _CURVES[given](matrices)
    found = []
    for bound in bounds:
        fits = (
            constrained <= bound
            if given == "false_positive_rate"
            else constrained >= bound
        )
        best = np.max(np.where(fits & ~np.isnan(values), values, -np.inf), axis=-1)
        unknown = np.where(fits.any(axis=-1), np.nan, 0.0)
        found.append(np.where(np.isneginf(best), unknown, best))
    return np.stack(found, axis=-1)


@metric(*_SOUGHT, takes_queries=True)
@_settled
def _constrained(request: Request) -> list[Metric]:
    sought, given = _SOUGHT[request.class_name]
    bound = request.config[given]
    one = not isinstance(bound, list | tuple)
    bounds = (float(bound),) if one else tuple(map(float, bound))
    formula = functools.partial(highest, sought=sought, given=given, bounds=bounds)
    return [
        Metric(
            request.key,
            (matrices_part(request, None),),
            functools.partial(_only, formula) if one else formula,
            "number" if one else "array",
            is_smooth=False,
        )
    ]


@metric("ConfusionMatrixAtThresholds", takes_queries=True)
@_settled
def _at_thresholds(request: Request) -> list[Metric]:
    return [
        Metric(
            request.key,
            (matrices_part(request, None),),
            as_tfma,
            "object",
            has_interval=False,
        )
    ]


def as_tfma(matrices: Matrices) -> Any:
    """Return matrices of one slice as TFMA's writer takes them."""
    from tensorflow_model_analysis.metrics import binary_confusion_matrices

    return binary_confusion_matrices.Matrices(
        thresholds=matrices.thresholds.tolist(),
        tp=matrices.tp.tolist(),
        tn=matrices.tn.tolist(),
        fp=matrices.fp.tolist(),
        fn=matrices.fn.tolist(),
    )
