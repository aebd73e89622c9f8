"""Confusion matrices of many classes.

Names and definitions are TFMA's
(`tensorflow_model_analysis.metrics.multi_class_confusion_matrix_metrics`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import Contributions, Statistic
from penstock.components.evaluation.sums import Cells
from penstock.components.evaluation.views import View, class_numbers
from penstock.schemas.errors import DataError

_MOST_CELLS = 1 << 42  # so that 2 million slices have places of 64 bits
NO_CLASS = -1


@dataclasses.dataclass(frozen=True)
class ClassMatrix(Statistic):
    """Weights by the class, by that of the highest prediction, and by how high it is.

    Attributes:
        view: The labels, predictions and weights of rows.
        thresholds: Rising.
    """

    view: View
    thresholds: tuple[float, ...]
    is_sparse: ClassVar[bool] = True

    @property
    def classes(self) -> int:
        """The most classes that there can be."""
        return math.isqrt(_MOST_CELLS // (len(self.thresholds) + 1)) - 1

    @property
    def cells(self) -> int:  # type: ignore[override]
        """One cell for each class (or none) and class, between thresholds."""
        return (len(self.thresholds) + 1) * (self.classes + 1) * self.classes

    def contributions(self, batch: Batch) -> Contributions:
        """Return the weight of every row.

        Raises:
            DataError: If labels are not of the classes of the predictions.
        """
        labels, predictions = self.view.labels(batch), self.view.predictions(batch)
        classes = predictions.shape[1]
        self._check(classes)
        if labels.shape == predictions.shape:
            actual = np.argmax(labels, axis=1)
        else:
            actual = class_numbers(labels, classes)
        predicted = np.argmax(predictions, axis=1)
        highest = np.take_along_axis(predictions, predicted[:, None], 1)[:, 0]
        above = np.searchsorted(np.array(self.thresholds), highest)
        cells = (above * (self.classes + 1) + actual + 1) * self.classes + predicted
        return Contributions(cells[:, None], (self.view.row_weights(batch)[:, None],))

    def _check(self, classes: int) -> None:
        if classes < 2:
            raise DataError(
                "A row has 1 prediction, and a confusion matrix of classes takes one "
                "for each of several. Use ConfusionMatrixAtThresholds, or look at the "
                "model's output."
            )
        if classes > self.classes:
            raise DataError(
                f"The predictions have {classes:,} classes, and a confusion matrix of "
                f"{len(self.thresholds):,} thresholds takes up to {self.classes:,}. "
                "Ask for fewer thresholds."
            )

    def matrices(self, filled: Cells) -> list[tuple[float, Array, Array, Array]]:
        """Return for every threshold classes, predicted classes and weights.

        Args:
            filled: The cells of a slice.
        """
        rest, predicted = np.divmod(filled.cells, self.classes)
        above, actual = np.divmod(rest, self.classes + 1)
        found = []
        for place, threshold in enumerate(self.thresholds):
            chosen = np.where(above > place, predicted, NO_CLASS)
            pairs, where = np.unique(
                np.stack([actual - 1, chosen]), axis=1, return_inverse=True
            )
            weights = np.bincount(where.ravel(), weights=filled.sums[:, 0])
            found.append((threshold, *pairs, weights))
        return found


@metric("MultiClassConfusionMatrixAtThresholds")
def _class_matrices(request: Request) -> list[Metric]:
    asked = request.config.get("thresholds") or [0.5]
    view = View(
        request.view.model, request.view.output, is_weighted=request.view.is_weighted
    )
    statistic = ClassMatrix(view, tuple(sorted({float(each) for each in asked})))
    return [
        Metric(
            request.plain_key._replace(sub_key=None),
            (Part(statistic),),
            functools.partial(as_tfma, statistic),
            "object",
            has_interval=False,
        )
    ]


def as_tfma(statistic: ClassMatrix, filled: Cells) -> Any:
    """Return matrices of one slice as TFMA's writer takes them."""
    from tensorflow_model_analysis.metrics import (
        multi_class_confusion_matrix_metrics as theirs,
    )

    return theirs.Matrices(
        {
            threshold: {
                theirs.MatrixEntryKey(*pair): weight
                for *pair, weight in zip(
                    actual.tolist(), predicted.tolist(), weights.tolist(), strict=True
                )
            }
            for threshold, actual, predicted, weights in statistic.matrices(filled)
        }
    )
