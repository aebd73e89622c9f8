"""Plots of binary predictions: curves, calibration, distribution of scores.

Names, defaults and values are TFMA's (`confusion_matrix_plot`, `calibration_plot`,
`score_distribution_plot`); values are the messages that its writer takes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from penstock.components.evaluation.batch import Array, Batch, Key
from penstock.components.evaluation.metrics import binary
from penstock.components.evaluation.metrics.registry import (
    GroupedForm,
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import (
    Contributions,
    ScoreHistogram,
    Statistic,
)
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError, PipelineError

_EPSILON = 1e-6  # by which the first threshold of a plot is below 0


def _key(request: Request) -> Any:
    from tensorflow_model_analysis.metrics.metric_types import PlotKey

    return PlotKey(**request.plain_key._asdict())


def _thresholds(count: int) -> Array:
    return np.concatenate([[-_EPSILON], np.arange(count + 1) * 1.0 / count])


@dataclasses.dataclass(frozen=True)
class OfPlot:
    """Matrices of a ScoreHistogram at equal steps from 0 to 1, and a little below.

    Attributes:
        steps: How many.
    """

    steps: int

    def whole(self, sums: Array) -> binary.Matrices:
        """Return matrices of sums of shape (..., cells, columns)."""
        return self._at(sums)

    def grouped(self, totals: Array, groups: int) -> tuple[Array, GroupedForm]:
        """Return every cell as a group of its own."""
        del groups
        return np.arange(len(totals)), self.whole

    @functools.cached_property
    def _at(self) -> binary.At:
        return binary.at_thresholds(_thresholds(self.steps), binary.BUCKETS)


@metric("ConfusionMatrixPlot", takes_queries=True)
def _confusion_matrices(request: Request) -> list[Metric]:
    steps = request.config["num_thresholds"]
    part = Part(ScoreHistogram(request.view, binary.BUCKETS), OfPlot(steps))
    return [Metric(_key(request), (part,), _message_of, "plot")]


def _message_of(matrices: binary.Matrices) -> Any:
    with np.errstate(all="ignore"):  # empty cells give NaN
        message = binary.as_tfma(matrices).to_proto()
    return message.confusion_matrix_at_thresholds


@dataclasses.dataclass(frozen=True)
class Calibration(Statistic):
    """Sums by bucket of the prediction: weighted labels, weighted predictions, weights.

    Bucket 0 is below `left`, the last one `right` and above.

    Attributes:
        view: The labels and predictions.
        left: Where the buckets begin.
        right: Where they end.
        buckets: Number of equal buckets between.
    """

    view: View
    left: float
    right: float
    buckets: int = binary.BUCKETS
    columns: ClassVar[int] = 3  # type: ignore[misc]

    @property
    def cells(self) -> int:  # type: ignore[override]
        """One a bucket."""
        return self.buckets + 2

    def contributions(self, batch: Batch) -> Contributions:
        """Return the three for every pair of label and prediction.

        Raises:
            DataError: If predictions are shares, and a label is not within [0, 1].
        """
        pairs = self.view.pairs(batch)
        if (self.left, self.right) == (0.0, 1.0):
            _check_shares(
                pairs.labels,
                "label",
                "For probabilities, name the right label_key; for other numbers, give "
                "the plot its left and right.",
            )
        share = (pairs.predictions - self.left) / (self.right - self.left)
        place = np.clip(np.floor(share * self.buckets + 1), 0, self.buckets + 1)
        weights = pairs.full_weights
        with np.errstate(invalid="ignore"):
            # A prediction that is not among the top k is minus infinity.
            weighted = np.where(weights == 0, 0.0, weights * pairs.predictions)
        return Contributions(
            place.astype(np.int64), (weights * pairs.labels, weighted, weights)
        )


def _check_shares(values: Array, what: str, advice: str) -> None:
    wrong = ~((values >= -binary.EPSILON) & (values <= 1 + binary.EPSILON))
    if wrong.any():
        raise DataError(
            f"{int(wrong.any(axis=1).sum()):,} of {len(values):,} rows have a {what} "
            f"that is not within 0 and 1, the first is {values[wrong][0]:g}. {advice}"
        )


@metric("CalibrationPlot", takes_queries=True)
def _calibration(request: Request) -> list[Metric]:
    config, (lowest, highest) = request.config, request.label_domain
    left = config.get("left", 0.0 if lowest is None else lowest)
    right = config.get("right", 1.0 if highest is None else highest)
    if left >= right:
        raise PipelineError(
            f"The calibration plot '{request.key.name}' begins at {left:g} and ends at "
            f"{right:g}. Give its config a left and a right, or the label a domain in "
            "the schema."
        )
    part = Part(Calibration(request.view, float(left), float(right)))
    value = functools.partial(
        _calibration_message, left=left, right=right, steps=config["num_buckets"]
    )
    return [Metric(_key(request), (part,), value, "plot")]


def _calibration_message(sums: Array, *, left: float, right: float, steps: int) -> Any:
    """Return sums of shape (buckets, 3) in fewer buckets, as TFMA has them."""
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2

    inner = left + np.arange(steps + 1) * (right - left) / steps
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    buckets = len(sums) - 2
    starts = np.arange(buckets) / buckets * (right - left) + left
    starts = np.concatenate([[-np.inf], starts, [np.inf]])
    place = np.minimum(np.searchsorted(edges, starts, "right") - 1, steps + 1)
    found = np.stack([np.bincount(place, each, steps + 2) for each in sums.T], axis=1)
    message = metrics_for_slice_pb2.CalibrationHistogramBuckets()
    for low, high, (label, prediction, weight) in zip(
        edges[:-1].tolist(), edges[1:].tolist(), found.tolist(), strict=True
    ):
        message.buckets.add(
            lower_threshold_inclusive=low,
            upper_threshold_exclusive=high,
            total_weighted_label={"value": label},
            total_weighted_refined_prediction={"value": prediction},
            num_weighted_examples={"value": weight},
        )
    return message


@dataclasses.dataclass(frozen=True)
class ScoreDistribution(Statistic):
    """Weights by how many thresholds the score is above, of two halves of a row.

    TFMA takes the score for the label, a row with the score 0.3 for 0.3 of a positive
    and 0.7 of a negative, and the rates of the plot come of that.

    Attributes:
        view: The predictions; labels are not looked at.
        steps: Thresholds are a little below 0, and at equal steps from 0 to 1.
    """

    view: View
    steps: int
    columns: ClassVar[int] = 2  # type: ignore[misc]

    @property
    def cells(self) -> int:  # type: ignore[override]
        """One an interval between thresholds."""
        return self.steps + 3

    def contributions(self, batch: Batch) -> Contributions:
        """Return the negative and the positive half of every prediction.

        Raises:
            DataError: If a prediction is not within [0, 1].
        """
        view = self.view
        scores = batch.get("prediction", view.model, view.output)
        key: Key = ("label", view.model, view.output)
        pairs = view.pairs(
            dataclasses.replace(batch, arrays={**batch.arrays, key: scores})
        )
        _check_shares(
            pairs.predictions,
            "score",
            "A score distribution is of probabilities; mend the model, or leave the "
            "plot out.",
        )
        above = np.searchsorted(_thresholds(self.steps), pairs.predictions)
        weights = pairs.full_weights
        negative = weights * (1 - pairs.predictions)
        return Contributions(above, (negative, weights * pairs.predictions))


@metric("ScoreDistributionPlot", takes_queries=True)
def _score_distribution(request: Request) -> list[Metric]:
    steps = request.config["num_thresholds"]
    part = Part(ScoreDistribution(request.view, steps))
    value = functools.partial(_score_message, steps=steps)
    return [Metric(_key(request), (part,), value, "plot")]


def _score_message(sums: Array, *, steps: int) -> Any:
    """Return sums of shape (steps + 3, 2) as matrices without errors."""
    below = np.cumsum(sums, axis=0)[:-1]
    above = np.cumsum(sums[::-1], axis=0)[::-1][1:]
    message = _message_of(
        binary.Matrices(
            _thresholds(steps), above[:, 1], below[:, 0], above[:, 0], below[:, 1]
        )
    )
    for each in message.matrices:
        each.true_negatives += each.false_negatives
        each.true_positives += each.false_positives
        each.false_negatives = each.false_positives = 0
        each.precision = each.recall = 0
    return message
