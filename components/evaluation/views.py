"""What a metric sees of the rows: pairs of label and prediction, and their weights.

The choices are TFMA's (`metric_util.to_label_prediction_example_weight`), made for
whole batches: outputs, classes, top k, one-hot labels, class weights.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from penstock.components.evaluation import rankings
from penstock.components.evaluation.batch import Array, Batch
from penstock.schemas.errors import DataError


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Labels and predictions of the same shape, with weights.

    Attributes:
        labels: Of shape (rows, values).
        predictions: Of shape (rows, values).
        weights: Of shape (rows, values) or (rows, 1); None if every weight is 1.
    """

    labels: Array
    predictions: Array
    weights: Array | None

    @property
    def full_weights(self) -> Array:
        """The weights, ones where there are none, of shape (rows, values)."""
        if self.weights is None:
            return np.ones(self.labels.shape)
        return np.broadcast_to(self.weights, self.labels.shape)


@dataclasses.dataclass(frozen=True)
class View:
    """Which labels, predictions and weights a metric is of.

    Attributes:
        model: Name of the model; '' if there is one.
        output: Name of its output; '' if it has one.
        class_id: The class that alone counts.
        k: The k-th highest prediction alone counts.
        top_k: The k highest predictions count. The others become -infinity, or are
            left out if classes are aggregated.
        is_aggregated: Whether classes are averaged.
        class_weights: Weights of classes, by class; classes that have none count 0.
        is_weighted: Whether rows are weighted.
        query_key: Column of equal values in the rows of a query. `k` and `top_k` then
            count rows of a query; '' for classes of a row.
    """

    model: str = ""
    output: str = ""
    class_id: int | None = None
    k: int | None = None
    top_k: int | None = None
    is_aggregated: bool = False
    class_weights: tuple[tuple[int, float], ...] = ()
    is_weighted: bool = False
    query_key: str = ""

    def labels(self, batch: Batch) -> Array:
        """Return the labels, of shape (rows, values)."""
        return _in_two_dimensions(batch.get("label", self.model, self.output))

    def predictions(self, batch: Batch) -> Array:
        """Return the predictions as 64-bit floats, of shape (rows, values)."""
        return self.scores(batch).astype(np.float64, copy=False)

    def weights(self, batch: Batch) -> Array | None:
        """Return weights of shape (rows, values), or None if every weight is 1."""
        if not self.is_weighted or not batch.has("weight", self.model):
            return None
        found = _in_two_dimensions(batch.get("weight", self.model, self.output))
        return found.astype(np.float64, copy=False)

    def row_weights(self, batch: Batch) -> Array:
        """Return one weight per row, of shape (rows,).

        Raises:
            DataError: If a row has several that differ.
        """
        weights = self.weights(batch)
        if weights is None:
            return np.ones(batch.rows)
        differ = (weights != weights[:, :1]).any(axis=1)
        if differ.any():
            row = weights[int(np.argmax(differ))]
            raise DataError(
                f"{int(differ.sum()):,} rows of {len(weights):,} have several example "
                f"weights that differ, the first has {row.min():g} to {row.max():g}, "
                "and the metric takes one per row. Name an example_weight_key whose "
                "column has one."
            )
        return weights[:, 0]

    def pairs(self, batch: Batch) -> Pairs:
        """Return labels, predictions and weights, value by value.

        Raises:
            DataError: If they have shapes that do not fit one another, or there are
                not as many classes.
        """
        if self.query_key:
            return self._pairs_of_queries(batch)
        labels, predictions = self.labels(batch), self.scores(batch)
        if self.k is not None:
            highest = _top(predictions, self.k)[:, :1]
            labels, predictions = _taken(labels, predictions, highest)
        elif self.top_k is not None:
            highest = _top(predictions, self.top_k)
            if self.is_aggregated:
                labels, predictions = _taken(labels, predictions, highest)
            else:
                kept = np.full(predictions.shape, -np.inf)
                chosen = np.take_along_axis(predictions, highest, 1)
                np.put_along_axis(kept, highest, chosen, 1)
                predictions = kept
        if self.class_id is not None:
            if labels.shape == predictions.shape:
                labels = self.of_class(labels)
            else:
                numbers = class_numbers(labels, predictions.shape[1])
                labels = (numbers == self.class_id)[:, None]
            predictions = self.of_class(predictions)
        labels = as_one_hot(labels, predictions).astype(np.float64, copy=False)
        predictions = predictions.astype(np.float64, copy=False)
        weights = self.value_weights(batch, predictions.shape[1])
        return Pairs(labels, predictions, weights)

    def queries(self, batch: Batch) -> Array:
        """Return the first row of every query of a batch of whole queries."""
        return rankings.starts_of(batch.get("query", "", self.query_key))

    def ranking(self, batch: Batch) -> Array:
        """Return the prediction that ranks each row, in its own type, of shape (rows,).

        Raises:
            DataError: If a row has several.
        """
        found = self.scores(batch)
        if found.shape[1] != 1:
            raise DataError(
                f"A row has {found.shape[1]} predictions, and a query's rows are "
                "ranked by one. Take the query_key out of the MetricsSpec, or name "
                "the output that ranks."
            )
        return found[:, 0]

    def _pairs_of_queries(self, batch: Batch) -> Pairs:
        """Return pairs of which only the highest of every query count."""
        labels, ranking = self.labels(batch), self.ranking(batch)
        if labels.shape[1] != 1:
            raise DataError(
                f"A row has {labels.shape[1]} labels, and a row of a query has one. "
                "Name the right label_key."
            )
        predictions = ranking[:, None].astype(np.float64)
        weights = self.value_weights(batch, 1)
        if self.k is not None:
            chosen = rankings.highest(ranking, self.queries(batch), self.k)[:, 0]
            kept = np.zeros(predictions.shape)  # other places count nothing
            kept[chosen] = 1.0 if weights is None else weights[chosen]
            weights = kept
        elif self.top_k is not None:
            chosen = rankings.highest(ranking, self.queries(batch), self.top_k).ravel()
            kept = np.full(predictions.shape, -np.inf)
            kept[chosen] = predictions[chosen]
            predictions = kept
        return Pairs(labels.astype(np.float64), predictions, weights)

    def raw_pairs(self, batch: Batch) -> tuple[Array, Array]:
        """Return labels and predictions of all classes, in the types that they have.

        Raises:
            DataError: If they have shapes that do not fit one another.
        """
        labels, predictions = self.labels(batch), self.scores(batch)
        return as_one_hot(labels, predictions), predictions

    def of_class(self, values: Array) -> Array:
        """Return the values of `class_id`, of shape (rows, 1).

        Args:
            values: Of shape (rows, classes).

        Raises:
            DataError: If there is no such class.
        """
        assert self.class_id is not None
        classes = values.shape[1]
        if not 0 <= self.class_id < classes:
            raise DataError(
                f"Class {self.class_id} is asked for, and the predictions have "
                f"{classes} {'class' if classes == 1 else 'classes'}, from 0. Mend the "
                "class of the metric, or class_ids or class_weights of its MetricsSpec."
            )
        return values[:, self.class_id, None]

    def scores(self, batch: Batch) -> Array:
        """Return the predictions in their own type, of shape (rows, values)."""
        return _in_two_dimensions(batch.get("prediction", self.model, self.output))

    def value_weights(self, batch: Batch, values: int) -> Array | None:
        """Return weights of values: of rows, of classes, or the product of both.

        Args:
            batch: The rows.
            values: How many a row has.

        Returns:
            Of shape (rows, values) or (rows, 1); None if every weight is 1.

        Raises:
            DataError: If a row has another number of weights.
        """
        weights = self.weights(batch)
        if weights is not None and weights.shape[1] not in (1, values):
            raise DataError(
                f"A row has {weights.shape[1]} example weights for {values} "
                "predictions. Give one weight, or one for each."
            )
        if not self.class_weights:
            return weights
        by_class = np.zeros(values)
        for number, weight in self.class_weights:
            if number < values:
                by_class[number] = weight
        if weights is None:
            return np.broadcast_to(by_class, (batch.rows, values))
        return by_class * weights


def as_one_hot(labels: Array, predictions: Array) -> Array:
    """Return labels in the shape of predictions: class numbers become one-hot rows.

    Args:
        labels: Of shape (rows, values), or (rows, 1) class numbers; -1 is no class.
        predictions: Of shape (rows, values).

    Raises:
        DataError: If the shapes do not fit, or a label is no class number.
    """
    if labels.shape == predictions.shape:
        return labels
    classes = predictions.shape[1]
    numbers = class_numbers(labels, classes)
    found = np.zeros((len(numbers), classes + 1))
    found[np.arange(len(numbers)), numbers] = 1.0
    return found[:, :classes]


def class_numbers(labels: Array, classes: int) -> Array:
    """Return the class of every row, of shape (rows,); -1 is no class.

    Args:
        labels: Of shape (rows, 1).
        classes: How many there are.

    Raises:
        DataError: If a row has several labels, or one that is no class number.
    """
    if labels.shape[1] != 1:
        raise DataError(
            f"A row has {labels.shape[1]} labels and {classes} predictions. Labels "
            "are one class number, or one value for each prediction."
        )
    if labels.dtype.kind not in "biuf":
        raise DataError(
            f"Labels have the type {labels.dtype}, and a metric of {classes} classes "
            "takes their numbers, from 0. Turn the labels into numbers before "
            "ingestion."
        )
    given = labels[:, 0]
    with np.errstate(invalid="ignore"):
        numbers = given.astype(np.int64)
    wrong = (numbers < -1) | (numbers >= classes) | (numbers != given)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum()):,} labels of {len(given):,} rows are no class, the "
            f"first is {given[wrong][0]:g}: the predictions have {classes} classes, "
            "numbered from 0. Mend the labels, or the model's output."
        )
    return numbers


def _taken(labels: Array, predictions: Array, places: Array) -> tuple[Array, Array]:
    """Return the labels and predictions at places, of shape (rows, places of a row)."""
    labels = as_one_hot(labels, predictions)
    return (
        np.take_along_axis(labels, places, 1),
        np.take_along_axis(predictions, places, 1),
    )


def _top(predictions: Array, k: int) -> Array:
    """Return the numbers of the k highest predictions; the k-th highest comes first."""
    if predictions.shape[1] < k:
        raise DataError(
            f"The {k} highest predictions are asked for, and a row has "
            f"{predictions.shape[1]}. Lower k, or look at the model's output."
        )
    return rankings.top(predictions, k)


def _in_two_dimensions(array: Array) -> Array:
    return array.reshape(len(array), math.prod(array.shape[1:]))
