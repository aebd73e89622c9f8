"""What a metric sees of the rows: pairs of label and prediction, and their weights.

The choices are TFMA's (`metric_util.to_label_prediction_example_weight`), made for
whole batches: outputs, classes, top k, one-hot labels, class weights.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

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
    """

    model: str = ""
    output: str = ""
    class_id: int | None = None
    k: int | None = None
    top_k: int | None = None
    is_aggregated: bool = False
    class_weights: tuple[tuple[int, float], ...] = ()
    is_weighted: bool = False

    def labels(self, batch: Batch) -> Array:
        """Return the labels, of shape (rows, values)."""
        return _in_two_dimensions(batch.get("label", self.model, self.output))

    def predictions(self, batch: Batch) -> Array:
        """Return the predictions as 64-bit floats, of shape (rows, values)."""
        found = _in_two_dimensions(batch.get("prediction", self.model, self.output))
        return found.astype(np.float64, copy=False)

    def weights(self, batch: Batch) -> Array | None:
        """Return weights of shape (rows, values), or None if every weight is 1."""
        if not self.is_weighted:
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
        if (weights != weights[:, :1]).any():
            raise DataError(
                "A row has several example weights that differ, and the metric takes "
                "one per row. Name the output whose weights are meant."
            )
        return weights[:, 0]

    def pairs(self, batch: Batch) -> Pairs:
        """Return labels, predictions and weights, value by value.

        Raises:
            DataError: If they have shapes that do not fit one another.
        """
        labels, predictions = self.labels(batch), self.predictions(batch)
        weights = self.weights(batch)
        if self.k is not None:
            order = _top(predictions, self.k)[:, :1]
            labels = np.take_along_axis(as_one_hot(labels, predictions), order, 1)
            predictions = np.take_along_axis(predictions, order, 1)
        elif self.top_k is not None:
            order = _top(predictions, self.top_k)
            if self.is_aggregated:
                labels = np.take_along_axis(as_one_hot(labels, predictions), order, 1)
                predictions = np.take_along_axis(predictions, order, 1)
            else:
                kept = np.full(predictions.shape, -np.inf)
                chosen = np.take_along_axis(predictions, order, 1)
                np.put_along_axis(kept, order, chosen, 1)
                predictions = kept
        if self.class_id is not None:
            labels = self.of_class(as_one_hot(labels, predictions))
            predictions = self.of_class(predictions)
        labels = as_one_hot(labels, predictions).astype(np.float64, copy=False)
        return Pairs(labels, predictions, self._of_values(weights, predictions))

    def of_class(self, values: Array) -> Array:
        """Return the values of `class_id`, of shape (rows, 1).

        Args:
            values: Of shape (rows, classes).

        Raises:
            DataError: If there is no such class.
        """
        assert self.class_id is not None
        if not 0 <= self.class_id < values.shape[1]:
            raise DataError(
                f"Class {self.class_id} is asked for, and the predictions have "
                f"{values.shape[1]} classes, from 0. Mend class_ids."
            )
        return values[:, self.class_id, None]

    def _of_values(self, weights: Array | None, predictions: Array) -> Array | None:
        """Return weights of values: of rows, of classes, or the product of both."""
        values = predictions.shape[1]
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
        return by_class[None, :] * (
            np.ones((len(predictions), 1)) if weights is None else weights
        )


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
    if labels.shape[1] != 1:
        raise DataError(
            f"A row has {labels.shape[1]} labels and {classes} predictions. Labels "
            "are one class number, or one value for each prediction."
        )
    numbers = labels[:, 0].astype(np.int64)
    wrong = (numbers < -1) | (numbers >= classes)
    if wrong.any():
        raise DataError(
            f"Label {labels[wrong, 0][0]} is no class: the predictions have {classes} "
            "classes, numbered from 0. Mend the labels, or the model's output."
        )
    found = np.zeros((len(numbers), classes + 1))
    found[np.arange(len(numbers)), numbers] = 1.0
    return found[:, :classes]


def _top(predictions: Array, k: int) -> Array:
    """Return the numbers of the k highest predictions; the k-th highest comes first."""
    if predictions.shape[1] < k:
        raise DataError(
            f"The {k} highest predictions are asked for, and a row has "
            f"{predictions.shape[1]}. Lower k, or look at the model's output."
        )
    return np.argpartition(predictions, -k, axis=1)[:, -k:]


def _in_two_dimensions(array: Array) -> Array:
    return array.reshape(len(array), math.prod(array.shape[1:]))
