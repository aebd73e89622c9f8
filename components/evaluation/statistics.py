"""What rows add to a metric: sums over cells, which merge by addition.

A statistic says, for every row of a batch, into which cells it falls and with which
values. All the rest (slices, merging, intervals) is the same for every statistic.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.views import Pairs, View
from penstock.schemas.errors import DataError

_ROUNDING = 1e-6  # by which sums of 32-bit floats leave [0, 1]


@dataclasses.dataclass(frozen=True)
class Contributions:
    """What each row adds.

    Attributes:
        cells: Number of the cell of every contribution, of shape (rows, per_row);
            None if there is one cell.
        values: For each column of the statistic, values of shape (rows, per_row) or
            (rows, 1); None for ones.
    """

    cells: Array | None
    values: tuple[Array | None, ...]


class Statistic(abc.ABC):
    """A sum over rows. Equal statistics are computed once.

    Attributes:
        cells: Number of cells.
        columns: Number of values of a cell.
        counts: Whether a row falls into one cell with its weight as the only value,
            so that a bootstrap can be drawn on cells.
        is_maximum: Whether it is no sum, but the greatest that a row has.
        is_sparse: Whether there are too many cells for an array: the metrics of its
            parts, which are objects, take the `Cells` that are filled.
    """

    cells: int
    columns: int = 1
    counts: ClassVar[bool] = False
    is_maximum: ClassVar[bool] = False
    is_sparse: ClassVar[bool] = False

    @abc.abstractmethod
    def contributions(self, batch: Batch) -> Contributions:
        """Return what the rows of a batch add."""


@dataclasses.dataclass(frozen=True)
class Rows(Statistic):
    """The number of rows, or the sum of their weights.

    Attributes:
        view: The weights; None for ones.
    """

    view: View | None = None
    cells: ClassVar[int] = 1  # type: ignore[misc]
    counts: ClassVar[bool] = True

    def contributions(self, batch: Batch) -> Contributions:
        """Return a one, or the weights, of every row."""
        weights = None if self.view is None else self.view.weights(batch)
        return Contributions(None, (weights,))


@dataclasses.dataclass(frozen=True)
class ScoreHistogram(Statistic):
    """Weights by label and by bucket of the score, in equal buckets from 0 to 1.

    Cell 2 * bucket + label; bucket 0 is below 0, the last one 1 and above. TFMA's
    calibration histogram.

    Attributes:
        view: The labels and predictions.
        buckets: Number of buckets from 0 to 1.
    """

    view: View
    buckets: int = 10_000
    counts: ClassVar[bool] = True

    @property
    def cells(self) -> int:  # type: ignore[override]
        """Two cells a bucket."""
        return 2 * (self.buckets + 2)

    def contributions(self, batch: Batch) -> Contributions:
        """Return the weight of every pair of label and prediction.

        Raises:
            DataError: If a label or a score is not within [0, 1].
        """
        pairs = self.view.pairs(batch)
        self._check(pairs.predictions)
        bucket = np.floor(pairs.predictions * self.buckets + 1)
        return _by_label(pairs, np.clip(bucket, 0, self.buckets + 1).astype(np.int64))

    def _check(self, scores: Array) -> None:
        is_score = (scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)
        if self.view.top_k is not None:
            is_score |= np.isneginf(scores)  # not among the highest
        wrong = scores[~is_score]
        if len(wrong):
            cure = (
                "They look like logits: export probabilities (end the model with a "
                "sigmoid or softmax)"
                if (wrong < 0).any()
                else "Export probabilities"
            )
            raise DataError(
                f"{len(wrong):,} scores of {len(scores):,} rows are not within 0 and "
                f"1, from {wrong.min():g} to {wrong.max():g}, and the thresholds of a "
                f"curve divide 0 to 1. {cure}, or give the metric 'thresholds' of its "
                "own."
            )


@dataclasses.dataclass(frozen=True)
class ThresholdCounts(Statistic):
    """Weights by label and by how many thresholds the score is above.

    Cell 2 * (thresholds below the score) + label.

    Attributes:
        view: The labels and predictions.
        thresholds: Rising.
    """

    view: View
    thresholds: tuple[float, ...]
    counts: ClassVar[bool] = True

    @property
    def cells(self) -> int:  # type: ignore[override]
        """Two cells an interval."""
        return 2 * (len(self.thresholds) + 1)

    def contributions(self, batch: Batch) -> Contributions:
        """Return the weight of every pair of label and prediction."""
        pairs = self.view.pairs(batch)
        if len(self.thresholds) == 1:
            above = (pairs.predictions > self.thresholds[0]).astype(np.int64)
        else:
            above = np.searchsorted(np.array(self.thresholds), pairs.predictions)
        return _by_label(pairs, above)


def _by_label(pairs: Pairs, place: Array) -> Contributions:
    """Return weights in cells `2 * place + label`; a label between 0 and 1 is split."""
    labels = pairs.labels
    positive = labels == 1
    if np.array_equal(positive, labels != 0):
        return Contributions(2 * place + positive, (pairs.weights,))
    wrong = labels[~((labels >= -_ROUNDING) & (labels <= 1 + _ROUNDING))]
    if len(wrong):
        raise DataError(
            f"{len(wrong):,} labels of {len(labels):,} rows are not within 0 and 1, "
            f"the first is {wrong[0]:g}, and a metric of two classes takes 0 and 1. "
            "Name the right label_key, or binarize the metric."
        )
    weights = pairs.full_weights
    return Contributions(
        np.concatenate([2 * place, 2 * place + 1], axis=1),
        (np.concatenate([weights * (1 - labels), weights * labels], axis=1),),
    )


@dataclasses.dataclass(frozen=True)
class RowSums(Statistic):
    """Sums of numbers of each row: a base for means and moments.

    Subclasses say the numbers.
    """

    view: View
    cells: ClassVar[int] = 1  # type: ignore[misc]

    @abc.abstractmethod
    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return one array of shape (rows, values) per column, weights applied."""

    def contributions(self, batch: Batch) -> Contributions:
        """Return the numbers of the rows."""
        return Contributions(None, self.numbers(batch))
