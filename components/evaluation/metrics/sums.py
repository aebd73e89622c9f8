"""Counts, means and errors: metrics that are sums of numbers of each row.

Names and definitions are TFMA's (`calibration`, `example_count`,
`mean_regression_error`, `squared_pearson_correlation`, `tjur_discrimination`,
`cross_entropy_metrics`, `exact_match`, `stats`), in 64-bit arithmetic.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.queries import count_of_queries
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import (
    Contributions,
    Rows,
    RowSums,
    Statistic,
)
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError, PipelineError


@metric("ExampleCount", "WeightedExampleCount", takes_queries=True)
def _example_count(request: Request) -> list[Metric]:
    view = request.view
    weights = View(view.model, view.output, is_weighted=True)
    part = Part(Rows(weights if view.is_weighted else None))
    if request.query_key and not view.is_weighted:
        part = Part(count_of_queries(view))  # weights are summed over rows
    # TFMA gives it none: how many rows there are is known.
    return [Metric(request.plain_key, (part,), _total, has_interval=False)]


def _total(sums: Array) -> Array:
    found: Array = sums[..., 0, 0]
    return found


def close_quotient(numerator: Array, denominator: Array) -> Array:
    """Return a quotient, NaN where the denominator is close to 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isclose(denominator, 0.0), np.nan, numerator / denominator)


def quotient(numerator: Array, denominator: Array) -> Array:
    """Return a quotient, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def mean(sums: Array) -> Array:
    """Return means of sums of weights and of weighted values, NaN without weight.

    Args:
        sums: Of shape (..., 1, 2).
    """
    return quotient(sums[..., 0, 1], sums[..., 0, 0])


@dataclasses.dataclass(frozen=True)
class LabelsAndPredictions(RowSums):
    """Sums of weights, weighted labels and weighted predictions."""

    columns: ClassVar[int] = 3  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the three for every pair."""
        pairs = self.view.pairs(batch)
        weights = pairs.full_weights
        return weights, weights * pairs.labels, weights * pairs.predictions


_MEANS: Mapping[str, Callable[[Array], Array]] = {
    "MeanLabel": lambda sums: close_quotient(sums[..., 0, 1], sums[..., 0, 0]),
    "MeanPrediction": lambda sums: close_quotient(sums[..., 0, 2], sums[..., 0, 0]),
    "Calibration": lambda sums: close_quotient(sums[..., 0, 2], sums[..., 0, 1]),
}


@metric(*_MEANS, takes_queries=True)
def _means(request: Request) -> list[Metric]:
    part = Part(LabelsAndPredictions(request.view))
    return [Metric(request.plain_key, (part,), _MEANS[request.class_name])]


_ERRORS: Mapping[str, Callable[[Array, Array], Array]] = {
    "MeanAbsoluteError": lambda label, prediction: np.abs(label - prediction),
    "MeanSquaredError": lambda label, prediction: (label - prediction) ** 2,
    "MeanAbsolutePercentageError": lambda label, prediction: np.where(
        label == 0, np.nan, 100 * np.abs((label - prediction) / label)
    ),
    "MeanSquaredLogarithmicError": lambda label, prediction: (
        (np.log(label + 1) - np.log(prediction + 1)) ** 2
    ),
}


@dataclasses.dataclass(frozen=True)
class Errors(RowSums):
    """Sums of weights and of weighted errors, over the pairs that have an error.

    A pair whose error is not a number has none: a share of a label of 0, a logarithm
    of what is negative.

    Attributes:
        name: Of the error.
    """

    name: str
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the two for every pair."""
        pairs = self.view.pairs(batch)
        with np.errstate(all="ignore"):
            errors = _ERRORS[self.name](pairs.labels, pairs.predictions)
        known = ~np.isnan(errors)
        weights = pairs.full_weights * known
        return weights, weights * np.where(known, errors, 0.0)


@metric(*_ERRORS, takes_queries=True)
def _errors(request: Request) -> list[Metric]:
    part = Part(Errors(request.view, request.class_name))
    return [Metric(request.plain_key, (part,), mean)]


@dataclasses.dataclass(frozen=True)
class Moments(RowSums):
    """Weighted sums of 1, labels, predictions, their squares and their product."""

    columns: ClassVar[int] = 6  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the six for every pair."""
        pairs = self.view.pairs(batch)
        label, prediction, weights = pairs.labels, pairs.predictions, pairs.full_weights
        return (
            weights,
            weights * label,
            weights * prediction,
            weights * label**2,
            weights * prediction**2,
            weights * label * prediction,
        )


_ROUNDING = 1e-14  # of a sum of squares, below which a spread is none


def squared_correlation(sums: Array) -> Array:
    """Return Pearson's r squared, NaN where labels or predictions do not vary.

    Args:
        sums: Of `Moments`, of shape (..., 1, 6).
    """
    total, label, prediction, labels, predictions, product = (
        sums[..., 0, column] for column in range(6)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        shared = (product - label * prediction / total) ** 2
        spread = labels - label**2 / total, predictions - prediction**2 / total
        # What is left of equal values is a rounding error of either sign.
        varies = (spread[0] > _ROUNDING * labels) & (
            spread[1] > _ROUNDING * predictions
        )
        return np.where(varies, shared / (spread[0] * spread[1]), np.nan)


@metric("SquaredPearsonCorrelation", takes_queries=True)
def _squared_correlation(request: Request) -> list[Metric]:
    part = Part(Moments(request.view))
    return [Metric(request.plain_key, (part,), squared_correlation)]


@dataclasses.dataclass(frozen=True)
class Discriminated(RowSums):
    """Sums of weights, and of weighted predictions, of negatives and positives."""

    columns: ClassVar[int] = 4  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the four for every pair; a label between 0 and 1 is split."""
        pairs = self.view.pairs(batch)
        positive = pairs.full_weights * pairs.labels
        negative = pairs.full_weights * (1 - pairs.labels)
        return (
            negative,
            positive,
            negative * pairs.predictions,
            positive * pairs.predictions,
        )


def _averages(sums: Array) -> tuple[Array, Array]:
    """Return the average prediction of negatives and of positives."""
    return (
        quotient(sums[..., 0, 2], sums[..., 0, 0]),
        quotient(sums[..., 0, 3], sums[..., 0, 1]),
    )


@metric("CoefficientOfDiscrimination", takes_queries=True)
def _discrimination(request: Request) -> list[Metric]:
    def difference(sums: Array) -> Array:
        negative, positive = _averages(sums)
        return positive - negative

    part = Part(Discriminated(request.view))
    return [Metric(request.plain_key, (part,), difference)]


@metric("RelativeCoefficientOfDiscrimination", takes_queries=True)
def _relative_discrimination(request: Request) -> list[Metric]:
    def ratio(sums: Array) -> Array:
        negative, positive = _averages(sums)
        return quotient(positive, negative)

    # TFMA's key says no class, and no class is chosen.
    view = dataclasses.replace(request.view, class_id=None, k=None, top_k=None)
    key = request.plain_key._replace(sub_key=None)
    return [Metric(key, (Part(Discriminated(view)),), ratio)]


@dataclasses.dataclass(frozen=True)
class CrossEntropies(RowSums):
    """Sums of weights and of weighted cross-entropies of rows.

    Attributes:
        from_logits: Whether predictions are logits.
        label_smoothing: The share of a label that is spread over all classes.
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the two for every row."""
        pairs = self.view.pairs(batch)
        weights = self.view.row_weights(batch)[:, None]
        with np.errstate(all="ignore"):
            found = self.of_rows(pairs.labels, pairs.predictions)
        return weights, weights * found[:, None]

    @abc.abstractmethod
    def of_rows(self, labels: Array, predictions: Array) -> Array:
        """Return the cross-entropy of every row, of shape (rows,)."""


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropies(CrossEntropies):
    """Each value is a class of its own; a row has their mean.

    Probabilities are not clipped: a certain prediction that is wrong gives infinity,
    one that is right NaN, as in TFMA.
    """

    def of_rows(self, labels: Array, predictions: Array) -> Array:
        """Return the cross-entropy of every row, of shape (rows,)."""
        y = labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        p = predictions
        found = (
            np.maximum(p, 0) - p * y + np.log1p(np.exp(-np.abs(p)))
            if self.from_logits
            else -y * np.log(p) - (1 - y) * np.log(1 - p)
        )
        return np.asarray(found.mean(axis=1))


@dataclasses.dataclass(frozen=True)
class CategoricalCrossEntropies(CrossEntropies):
    """Values are classes of which one is true.

    Predictions are divided by their sum; a class that is predicted with 0 adds
    nothing, as in TFMA.
    """

    def of_rows(self, labels: Array, predictions: Array) -> Array:
        """Return the cross-entropy of every row, of shape (rows,)."""
        classes = predictions.shape[1]
        y = labels * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.from_logits:
            predictions = np.exp(predictions - predictions.max(axis=1, keepdims=True))
        p = predictions / predictions.sum(axis=1, keepdims=True)
        return np.asarray(-np.sum(y * np.log(np.where(p > 0, p, 1.0)), axis=1))


_ENTROPIES: Mapping[str, type[CrossEntropies]] = {
    "BinaryCrossEntropy": BinaryCrossEntropies,
    "CategoricalCrossEntropy": CategoricalCrossEntropies,
}


@metric(*_ENTROPIES)
def _cross_entropies(request: Request) -> list[Metric]:
    if request.view.class_weights:
        raise PipelineError(
            f"Metric '{request.key.name}' is one number for all classes of a row, and "
            "its MetricsSpec has class_weights. Leave them out, or put the metric into "
            "a MetricsSpec without them."
        )
    statistic = _ENTROPIES[request.class_name](
        request.view,
        bool(request.config.get("from_logits", False)),
        float(request.config.get("label_smoothing", 0.0)),
    )
    return [Metric(request.plain_key, (Part(statistic),), mean)]


@dataclasses.dataclass(frozen=True)
class Matches(RowSums):
    """Sums of weights, and of weights of pairs that are equal: numbers or texts."""

    columns: ClassVar[int] = 2  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the two for every pair."""
        labels, predictions = self.view.raw_pairs(batch)
        weights = self.view.value_weights(batch, predictions.shape[1])
        is_equal = _is_equal(labels, predictions)
        full = np.broadcast_to(1.0 if weights is None else weights, is_equal.shape)
        return full, full * is_equal


def _is_equal(labels: Array, predictions: Array) -> Array:
    """Return where texts or numbers are equal; bytes are text in UTF-8."""
    if labels.dtype.kind in "iufb" and predictions.dtype.kind in "iufb":
        return np.asarray(labels == predictions)
    import pyarrow as pa
    import pyarrow.compute as pc

    first, second = (
        pa.array(each.ravel().tolist(), pa.binary()) for each in (labels, predictions)
    )
    found: Array = pc.equal(first, second).to_numpy(zero_copy_only=False)
    return found.reshape(labels.shape)


@metric("ExactMatch")
def _exact_match(request: Request) -> list[Metric] | None:
    if request.config.get("convert_to") or request.key.sub_key:
        return None
    return [Metric(request.plain_key, (Part(Matches(request.view)),), mean)]


@dataclasses.dataclass(frozen=True)
class ColumnMean(Statistic):
    """Sums of weights and of weighted values of a column.

    Attributes:
        name: The column.
        weights: The column of weights; '' for ones.
    """

    name: str
    weights: str = ""
    cells: ClassVar[int] = 1  # type: ignore[misc]
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def contributions(self, batch: Batch) -> Contributions:
        """Return the two for every row.

        Raises:
            DataError: If a row has several values, or one that is no number.
        """
        values = _numbers_of(batch, self.name)
        if not self.weights:
            return Contributions(None, (None, values))
        weights = _numbers_of(batch, self.weights)
        return Contributions(None, (weights, weights * values))


def _numbers_of(batch: Batch, name: str) -> Array:
    values = batch.get("column", "", name).reshape(batch.rows, -1 if batch.rows else 1)
    if values.shape[1] != 1 or values.dtype.kind not in "iufb":
        raise DataError(
            f"Column '{name}' has {values.shape[1]} values of the type {values.dtype} "
            "in a row, and its mean takes one number. Name another column, or split "
            "this one before ingestion."
        )
    return values.astype(np.float64)


@metric("Mean")
def _mean(request: Request) -> list[Metric] | None:
    paths = [
        tuple(request.config.get(name, ()))
        for name in ("feature_key_path", "example_weights_key_path")
    ]
    if any(path and (len(path) != 2 or path[0] != "features") for path in paths):
        return None
    names = [path[1] if path else "" for path in paths]
    key = request.plain_key._replace(
        model_name="", output_name="", sub_key=None, example_weighted=bool(names[1])
    )
    part = Part(ColumnMean(*names))
    columns = tuple(each for each in names if each)
    return [Metric(key, (part,), mean, columns=columns)]
