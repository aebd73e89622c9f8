"""Plots of predictions of many classes: which is taken for which.

Names, defaults and values are TFMA's (`multi_class_confusion_matrix_plot`,
`multi_label_confusion_matrix_plot`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from penstock.components.evaluation.batch import Batch
from penstock.components.evaluation.metrics import binary, classes
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import Contributions, Statistic
from penstock.components.evaluation.sums import Cells
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError

_MOST_CELLS = 1 << 42  # so that 2 million slices have places of 64 bits


def _key(request: Request) -> Any:
    from tensorflow_model_analysis.metrics.metric_types import PlotKey

    return PlotKey(**request.plain_key._replace(sub_key=None)._asdict())


def _view(request: Request) -> View:
    """Return what is seen of all classes, whichever the spec names."""
    view = request.view
    return View(view.model, view.output, is_weighted=view.is_weighted)


def _thresholds(request: Request, default: float) -> tuple[float, ...] | None:
    """Return the thresholds of a plot, rising; None if it is given both kinds."""
    thresholds = request.config.get("thresholds")
    count = request.config.get("num_thresholds")
    if count is None:
        return tuple(sorted({float(each) for each in thresholds or [default]}))
    if thresholds is not None:
        return None
    inner = np.arange(1, count - 1) / (count - 1)
    return (-binary.EPSILON, *inner.tolist(), 1.0 + binary.EPSILON)


@metric("MultiClassConfusionMatrixPlot")
def _class_matrices(request: Request) -> list[Metric] | None:
    thresholds = _thresholds(request, 0.0)
    if thresholds is None or request.view.class_weights:
        return None
    statistic = classes.ClassMatrix(_view(request), thresholds)
    value = functools.partial(_class_message, statistic)
    return [Metric(_key(request), (Part(statistic),), value, "plot")]


def _class_message(statistic: classes.ClassMatrix, filled: Cells) -> Any:
    message = classes.as_tfma(statistic, filled).to_proto()
    return message.multi_class_confusion_matrix_at_thresholds


@dataclasses.dataclass(frozen=True)
class LabelMatrix(Statistic):
    """Weights by a label that a row has, by any other class, and how it is predicted.

    Columns are the weights and the number of rows. Cells are of an actual class, a
    class, whether the row has that too, and how many thresholds its prediction is
    above.

    Attributes:
        view: The labels, predictions and weights of rows.
        thresholds: Rising.
    """

    view: View
    thresholds: tuple[float, ...]
    columns: ClassVar[int] = 2  # type: ignore[misc]
    is_sparse: ClassVar[bool] = True

    @property
    def classes(self) -> int:
        """The most classes that there can be."""
        return math.isqrt(_MOST_CELLS // (2 * (len(self.thresholds) + 1)))

    @property
    def cells(self) -> int:  # type: ignore[override]
        """All that there can be."""
        return 2 * (len(self.thresholds) + 1) * self.classes**2

    def contributions(self, batch: Batch) -> Contributions:
        """Return weight and one for each label of a row with each class.

        Raises:
            DataError: If there are not several classes, or too many.
        """
        labels, predictions = self.view.raw_pairs(batch)
        classes = predictions.shape[1]
        if not 2 <= classes <= self.classes:
            raise DataError(
                f"A row has {classes:,} predictions, and a confusion matrix of labels "
                f"with {len(self.thresholds):,} thresholds takes 2 to "
                f"{self.classes:,}. Look at the model's output, or ask for fewer "
                "thresholds."
            )
        has = labels != 0
        most = max(int(has.sum(axis=1).max(initial=0)), 1)
        # The labels of a row first, and then as many others as fill the array.
        actual = np.argsort(~has, axis=1, kind="stable")[:, :most]
        counted = np.take_along_axis(has, actual, 1)[:, :, None]
        above = np.searchsorted(
            np.array(self.thresholds), predictions.astype(np.float64)
        )
        outcome = (2 * above + has)[:, None, :]
        pair = actual[:, :, None] * self.classes + np.arange(classes)
        cells = outcome * self.classes**2 + pair
        ones = np.broadcast_to(counted, cells.shape).reshape(batch.rows, -1)
        return Contributions(
            cells.reshape(batch.rows, most * classes),
            (ones * self.view.row_weights(batch)[:, None], ones.astype(np.float64)),
        )


@metric("MultiLabelConfusionMatrixPlot")
def _label_matrices(request: Request) -> list[Metric] | None:
    thresholds = _thresholds(request, 0.5)
    if thresholds is None or request.view.class_weights:
        return None
    statistic = LabelMatrix(_view(request), thresholds)
    value = functools.partial(_label_message, statistic)
    return [Metric(_key(request), (Part(statistic),), value, "plot")]


_OUTCOMES = ("true_negatives", "false_negatives", "false_positives", "true_positives")


def _label_message(statistic: LabelMatrix, filled: Cells) -> Any:
    """Return the matrices of one slice as TFMA's writer takes them."""
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2

    seen = filled.sums[:, 1] > 0
    outcome, pair = np.divmod(filled.cells[seen], statistic.classes**2)
    above, has = np.divmod(outcome, 2)
    pairs, place = np.unique(pair, return_inverse=True)
    actual, predicted = np.divmod(pairs, statistic.classes)
    message = metrics_for_slice_pb2.MultiLabelConfusionMatrixAtThresholds()
    for number, threshold in enumerate(statistic.thresholds):
        # TFMA calls thresholds a little outside of 0 and 1 by those names.
        shown = min(max(threshold, 0.0), 1.0) if _is_end(threshold) else threshold
        matrix = message.matrices.add(threshold=shown)
        weights = np.bincount(
            4 * place + 2 * (above > number) + has,
            weights=filled.sums[seen, 0],
            minlength=4 * len(pairs),
        ).reshape(-1, 4)
        for one, other, row in zip(
            actual.tolist(), predicted.tolist(), weights.tolist(), strict=True
        ):
            matrix.entries.add(
                actual_class_id=one,
                predicted_class_id=other,
                **dict(zip(_OUTCOMES, row, strict=True)),
            )
    return message


def _is_end(threshold: float) -> bool:
    return threshold in (-binary.EPSILON, 1.0 + binary.EPSILON)
