"""Quality without labels: confidence-based performance estimation.

Scores are calibrated on rows with labels, the reference: how often a row of a score is
positive is a rising function of the score, found by isotonic regression on bins. In a
window without labels every row then counts as a positive with that probability, and
metrics are computed of such fractions of labels (NannyML's documentation describes the
method; Guillory et al. 2021, Garg et al. 2022 study its kin).

The assumption is that how often rows of a score are positive has not changed. It holds
when only the mix of rows changes (covariate shift) and the score tells all that matters
of a row; it does not hold under concept drift, which no method without labels can see.
So it is stated with every estimate, and checked when labels come.

Intervals are for the value that the labels of these very rows will give. They come of a
parametric bootstrap: in worlds whose truth is the calibrated probabilities, labels of
the reference and of the window are drawn, and what the one let expect is compared with
what the other gives. So they have the noise of the labels to come and that of the
calibration. What isotonic regression is off by on average, for it makes too much of
chance, is seen in the same worlds and taken off. The spread is that of shares as
counted: isotonic regression of a truth that is itself made of its blocks varies less
than that of one that rises throughout (Sen, Banerjee & Woodroofe 2010, Annals of
Statistics 38, 1953-1977, on why that bootstrap fails).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from penstock.components.monitoring.quality.binned import (
    METRICS,
    Scores,
    bins_of,
    positives_of,
)
from penstock.components.monitoring.quality.isotonic import centered_isotonic
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"

METHOD = "CBPE"
BINS = 500
"""Most bins of scores, each of about as many rows of the reference."""

ROWS_OF_A_BIN = 50
"""Rows of the reference that a bin has at least, unless it has under a thousand."""

LEAST_OF_A_CLASS = 30
"""Positives, and negatives, that a reference needs."""

ASSUMPTION = (
    "It is assumed that rows of a score are as often positive as in the reference: "
    "true if only the mix of rows changed, not if what makes a row positive did."
)

_LEAST_BINS = 20
_GROUPS = 10  # of scores, whose shares of positives are compared
_REPLICATES = 1_000
_FOR_BIAS = 200  # worlds that are calibrated again


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often rows of a score are positive, from a reference.

    Attributes:
        edges: Inner edges of the bins of scores, rising; the threshold is one.
        rows: Weight of the reference's rows by bin.
        effective: How many rows without weights they are worth, by bin.
        positives: Weight of the positive ones.
        threshold: From which score on a row is predicted to be positive.
    """

    edges: Array
    rows: Array
    effective: Array
    positives: Array
    threshold: float = 0.5

    @classmethod
    def fit(
        cls,
        scores: Array,
        labels: Array,
        weights: Array | None = None,
        *,
        threshold: float = 0.5,
        bins: int = BINS,
    ) -> Calibration:
        """Calibrate scores on rows with labels that the model was not trained on.

        Args:
            scores: Of shape (rows,), between 0 and 1.
            labels: Of shape (rows,), 0 or 1.
            weights: Of shape (rows,), positive; None for 1 each.
            threshold: From which score on a row is predicted to be positive.
            bins: Most bins.

        Raises:
            DataError: If a score or label is none, or one class is too rare.
        """
        scores = checked_scores(scores, "The reference")
        labels = checked_labels(labels, "The reference")
        ones = int(labels.sum())
        if min(ones, len(labels) - ones) < LEAST_OF_A_CLASS:
            raise DataError(
                f"The reference has {ones:,} positive and {len(labels) - ones:,} "
                f"negative rows, and a calibration needs {LEAST_OF_A_CLASS} of each. "
                "Give more rows with labels."
            )
        count = max(_LEAST_BINS, min(bins, len(scores) // ROWS_OF_A_BIN))
        shares = np.linspace(0, 1, count + 1)[1:-1]
        inner = np.quantile(scores, shares, method="inverted_cdf")
        edges = np.unique(np.append(inner, threshold))
        found = Scores.of(scores, edges, weights)
        effective = _divided(found.rows**2, found.squares)
        positives = positives_of(scores, labels, edges, weights)
        return cls(edges, found.rows, effective, positives, threshold)

    @property
    def id(self) -> str:
        """Digest of what it is made of, `sha256:...`."""
        content = hashlib.sha256()
        for each in (self.edges, self.rows, self.positives):
            content.update(np.ascontiguousarray(each, "<f8").tobytes())
        return f"sha256:{content.hexdigest()}"

    @property
    def place(self) -> int:
        """The first bin above the threshold."""
        return int(np.searchsorted(self.edges, self.threshold, side="right"))

    @property
    def probabilities(self) -> Array:
        """How often a row is positive, by bin, of shape (bins,): rising."""
        return calibrated(self.positives, self.rows)

    def of(self, scores: Array) -> Array:
        """Return how often rows of scores are positive, of the shape of `scores`."""
        found: Array = self.probabilities[bins_of(scores, self.edges)]
        return found

    def binned(self, scores: Array, weights: Array | None = None) -> Scores:
        """Return the bins of the scores of a window.

        Raises:
            DataError: If one is not between 0 and 1.
        """
        return Scores.of(checked_scores(scores, "The window"), self.edges, weights)

    def positives_in(
        self, scores: Array, labels: Array, weights: Array | None = None
    ) -> Array:
        """Return the weight of the positive rows of a window by bin.

        Raises:
            DataError: If a label is not 0 or 1.
        """
        labels = checked_labels(labels, "The window")
        return positives_of(np.asarray(scores), labels, self.edges, weights)


def calibrated(positives: Array, rows: Array) -> Array:
    """Return the rising shares of positives by bin, of shape (..., bins).

    Isotonic regression goes too far at its ends, where few rows have the last word.
    Half a positive more in the lowest bin and half a negative more in the highest hold
    it back (Woodroofe & Sun 1993, Statistica Sinica 3, 501-515, penalize ends so).

    Args:
        positives: Weight of the positive rows, of shape (..., bins).
        rows: Weight of all rows, of shape (bins,).
    """
    positives, rows = positives.astype(np.float64), rows.astype(np.float64)
    positives[..., 0] += 0.5
    rows[[0, -1]] += 0.5
    return centered_isotonic(_divided(positives, rows), rows)


def checked_scores(scores: Array, subject: str) -> Array:
    """Return scores as float64, each between 0 and 1.

    Raises:
        DataError: If there are none, or one is not.
    """
    found = np.asarray(scores, np.float64)
    if not len(found):
        raise DataError(f"{subject} has no rows. Give some with scores.")
    wrong = ~((found >= 0) & (found <= 1))
    if wrong.any():
        raise DataError(
            f"{subject} has {int(wrong.sum()):,} of {len(found):,} scores that are not "
            f"between 0 and 1, the first is {found[wrong][0]:g}. Log probabilities."
        )
    return found


def checked_labels(labels: Array, subject: str) -> Array:
    """Return labels as int64, each 0 or 1.

    Raises:
        DataError: If one is not.
    """
    found = np.asarray(labels)
    wrong = ~((found == 0) | (found == 1))
    if wrong.any():
        raise DataError(
            f"{subject} has {int(wrong.sum()):,} of {len(found):,} labels that are "
            f"neither 0 nor 1, the first is {found[wrong][0]!s}. Quality is estimated "
            "of two classes only; leave the estimate out."
        )
    return found.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a metric will be when the labels of a window are there.

    Attributes:
        metric: Its name.
        value: The estimate.
        lower: Of the interval of what the labels will give.
        upper: Likewise.
        confidence: Of the interval.
        error: Standard deviation of what the labels will give, minus the estimate.
        bias: What was added to the value, for isotonic regression is off by it.
        rows: Weight of the rows it is made of.
        replicates: How many worlds were drawn.
    """

    metric: str
    value: float
    lower: float
    upper: float
    confidence: float
    error: float
    bias: float
    rows: float
    replicates: int

    def at(self, confidence: float) -> tuple[float, float]:
        """Return the interval at another confidence, by the normal distribution."""
        half = self.error * statistics.NormalDist().inv_cdf((1 + confidence) / 2)
        return self.value - half, self.value + half

    @property
    def sentence(self) -> str:
        """The estimate and its assumption, in words."""
        return (
            f"'{self.metric}' is estimated at {self.value:.4g} "
            f"({100 * self.confidence:g} % interval {self.lower:.4g} to "
            f"{self.upper:.4g}) without labels. {ASSUMPTION}"
        )


def estimates(
    calibration: Calibration,
    scores: Scores,
    metrics: Sequence[str] = ("auc",),
    *,
    confidence: float = 0.95,
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate metrics of a window that has no labels.

    Args:
        calibration: From the reference.
        scores: The window's rows, by `calibration.binned`.
        metrics: Names, of `binned.METRICS`.
        confidence: Of the intervals.
        replicates: How many worlds to draw.
        seed: Of what is drawn.

    Returns:
        One estimate per metric; NaN where the metric is not defined.

    Raises:
        PipelineError: If there is no metric of a name.
    """
    truth = calibration.probabilities
    worlds = _Worlds(calibration, scores, truth, replicates, seed)
    expected = scores.rows * truth
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name in metrics:
        raw = float(METRICS[_known(name)](scores, expected, calibration.place))
        off, bias = worlds.of(name)
        value, lower, upper, error = raw, *(math.nan,) * 3
        if len(off) > 1:
            value = raw + bias
            ends = value + np.quantile(off, tails, method="weibull")
            lower, upper = float(ends[0]), float(ends[1])
            error = float(off.std(ddof=1))
        found[name] = Estimate(
            name,
            value,
            lower,
            upper,
            confidence,
            error,
            bias,
            scores.total,
            replicates,
        )
    return found


@dataclasses.dataclass(frozen=True)
class AssumptionCheck:
    """Whether rows of a score are as often positive as in the reference.

    Attributes:
        assumption: `holds`, `violated`, or `unchecked` if there are too few labels.
        p_value: How likely labels are that are as far off, if it holds; NaN unchecked.
        metric: The metric that was estimated.
        estimated: Its value, on the rows that have labels by now.
        realized: What the labels gave.
        sentence: The same in words.
    """

    assumption: Literal["holds", "violated", "unchecked"]
    p_value: float
    metric: str
    estimated: float
    realized: float
    sentence: str


def check(
    calibration: Calibration,
    scores: Scores,
    positives: Array,
    metric: str = "auc",
    *,
    level: float = 0.01,
    replicates: int = _REPLICATES,
    seed: int = 0,
) -> AssumptionCheck:
    """Compare what labels say with what was estimated of the same rows.

    Two things are compared, at half of the level each: the value of the metric, and the
    shares of positives in ten groups of scores (which can change while the metric does
    not).

    Args:
        calibration: From the reference.
        scores: The rows whose labels have come, by `calibration.binned`.
        positives: Weight of the positive ones by bin, by `calibration.positives_in`.
        metric: Which metric.
        level: How often a check may say `violated` although the assumption holds.
        replicates: How many worlds to draw.
        seed: Of what is drawn.
    """
    from scipy import special

    place = calibration.place
    expected = scores.rows * calibration.probabilities
    estimated = float(METRICS[_known(metric)](scores, expected, place))
    realized = float(METRICS[metric](scores, positives, place))
    ones, total = float(positives.sum()), scores.total
    if min(ones, total - ones) < LEAST_OF_A_CLASS or math.isnan(realized):
        return AssumptionCheck(
            "unchecked",
            math.nan,
            metric,
            estimated,
            realized,
            f"Labels have come for {ones:,.0f} positive and {total - ones:,.0f} "
            f"negative rows, too few to check the estimate of '{metric}': "
            f"{LEAST_OF_A_CLASS} of each are needed. {ASSUMPTION}",
        )
    # If the assumption holds, the labels of both sides tell of the same truth.
    truth = calibrated(
        calibration.positives + positives, calibration.rows + scores.rows
    )
    off, bias = _Worlds(calibration, scores, truth, replicates, seed).of(metric)
    estimated += bias
    error = float(off.std(ddof=1)) * math.sqrt(1 + 1 / len(off))
    away = abs(realized - estimated) / max(error, 1e-12)
    of_value = 2 * float(special.stdtr(len(off) - 1, -away))
    of_shares = _of_shares(calibration, scores, positives, truth)
    p_value = min(1.0, 2 * min(of_value, of_shares))
    is_violated = p_value < level
    if not is_violated:
        verdict = (
            f"The labels give {realized:.4g}, as the estimate lets expect (p-value "
            f"{p_value:.2g}): the assumption holds as far as they tell."
        )
    elif of_value <= of_shares:
        verdict = (
            f"The labels give {realized:.4g}, farther off than chance explains "
            f"(p-value {p_value:.2g}): rows of a score are not as often positive as in "
            "the reference. Go by labels, not by estimates, and retrain."
        )
    else:
        verdict = (
            f"The labels give {realized:.4g}, and {ones:,.0f} positive rows where "
            f"{expected.sum():,.0f} were expected, in other places than chance "
            f"explains (p-value {p_value:.2g}): rows of a score are not as often "
            "positive as in the reference. Go by labels, not by estimates, and retrain."
        )
    return AssumptionCheck(
        "violated" if is_violated else "holds",
        p_value,
        metric,
        estimated,
        realized,
        f"'{metric}' was estimated at {estimated:.4g} without labels. {verdict}",
    )


def _of_shares(
    calibration: Calibration, scores: Scores, positives: Array, truth: Array
) -> float:
    """Return the p-value of the shares of positives in ten groups of scores.

    In every bin the reference's share, as counted and not as calibrated, is what the
    window's is expected to be, whatever rows it has; gaps are summed by group. Under
    the assumption each sum has mean 0 and the variance of binomials on both sides, and
    the sum of their squares has the chi-squared distribution.
    """
    from scipy import special

    known = calibration.rows > 0
    times = _divided(scores.rows, calibration.rows)
    gaps = np.where(known, positives - times * calibration.positives, 0.0)
    drawn = _divided(calibration.rows**2, calibration.effective)
    noise = truth * (1 - truth) * np.where(known, scores.squares + times**2 * drawn, 0)
    groups = _groups(scores)
    summed, variance = _summed_by(groups, gaps), _summed_by(groups, noise)
    told = variance > 0
    squared = float((summed[told] ** 2 / variance[told]).sum())
    return float(special.chdtrc(int(told.sum()), squared)) if told.any() else 1.0


def _groups(scores: Scores) -> Array:
    """Return the group of every bin: ten of about as many rows of the window."""
    middle = np.cumsum(scores.rows) - scores.rows / 2
    group = np.floor(_GROUPS * middle / max(scores.total, 1e-300)).astype(np.int64)
    found: Array = np.clip(group, 0, _GROUPS - 1)
    return found


def _summed_by(groups: Array, values: Array) -> Array:
    """Return sums by group of values of shape (..., bins)."""
    member = groups[:, None] == np.unique(groups)[None, :]
    found: Array = values @ member.astype(np.float64)
    return found


class _Worlds:
    """Worlds in which rows of each bin are as often positive as a truth says.

    Args:
        calibration: Whose rows get labels again.
        scores: Rows that get labels.
        truth: Probabilities by bin.
        replicates: How many worlds.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        calibration: Calibration,
        scores: Scores,
        truth: Array,
        replicates: int,
        seed: int,
    ) -> None:
        random = np.random.default_rng([seed, 0xCB9E])
        self._scores, self._place = scores, calibration.place
        self._truth = scores.rows * truth
        rows = calibration.rows
        worth = _divided(scores.rows**2, scores.squares)
        before = _drawn(random, truth, calibration.effective, rows, replicates)
        self._labels = _drawn(random, truth, worth, scores.rows, replicates)
        self._counted = scores.rows * _divided(before, rows)
        self._calibrated = scores.rows * calibrated(before[:_FOR_BIAS], rows)

    def of(self, metric: str) -> tuple[Array, float]:
        """Return how far labels are from what is expected, and what is off always.

        Returns:
            The differences, with mean 0, of shape (worlds in which it is defined,);
            and what has to be added to estimates.
        """

        def value(positives: Array) -> Array:
            found: Array = METRICS[metric](self._scores, positives, self._place)
            return found

        off = value(self._labels) - value(self._counted)
        off = off[np.isfinite(off)]
        again = value(self._calibrated)
        again = again[np.isfinite(again)]
        if len(off) < 2 or not len(again):
            return off, math.nan
        return off - off.mean(), float(value(self._truth) - again.mean())


def _divided(above: Array, below: Array) -> Array:
    shape = np.broadcast_shapes(above.shape, below.shape)
    found: Array = np.divide(above, below, out=np.zeros(shape), where=below > 0)
    return found


def _drawn(
    random: np.random.Generator, truth: Array, worth: Array, rows: Array, count: int
) -> Array:
    """Return weights of positives by bin, of shape (count, bins).

    Rows with weights are worth fewer rows without: that many are drawn, and scaled.
    """
    whole = np.maximum(np.round(worth), rows > 0).astype(np.int64)
    drawn = random.binomial(whole, truth, (count, len(truth)))
    found: Array = drawn * _divided(rows, whole)
    return found


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise PipelineError(
            f"No metric '{metric}' can be estimated without labels (those are "
            f"{quoted(METRICS)}).{did_you_mean(metric, METRICS)} Name one of them."
        )
    return metric
