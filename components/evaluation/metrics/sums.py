"""Counts, means and errors: metrics that are sums of numbers of each row.

Names and definitions are TFMA's (`calibration`, `example_count`, ...).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import Rows, RowSums


@metric("ExampleCount")
def _example_count(request: Request) -> list[Metric]:
    view = request.view if request.view.is_weighted else None
    part = Part(Rows(view))
    # TFMA gives it none: how many rows there are is known.
    return [Metric(request.plain_key, (part,), _total, has_interval=False)]


@metric("WeightedExampleCount")
def _weighted_example_count(request: Request) -> list[Metric]:
    view = dataclasses.replace(request.view, is_weighted=True)
    key = request.plain_key._replace(example_weighted=True)
    return [Metric(key, (Part(Rows(view)),), _total, has_interval=False)]


def _total(sums: Array) -> Array:
    found: Array = sums[..., 0, 0]
    return found


@dataclasses.dataclass(frozen=True)
class LabelsAndPredictions(RowSums):
    """Sums of weights, weighted labels and weighted predictions."""

    columns: ClassVar[int] = 3  # type: ignore[misc]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the three for every pair."""
        pairs = self.view.pairs(batch)
        weights = pairs.full_weights
        return weights, weights * pairs.labels, weights * pairs.predictions


def quotient(numerator: Array, denominator: Array) -> Array:
    """Return a quotient, NaN where the denominator is close to 0, as TFMA has it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isclose(denominator, 0.0), np.nan, numerator / denominator)


def _mean_label(sums: Array) -> Array:
    return quotient(sums[..., 0, 1], sums[..., 0, 0])


def _mean_prediction(sums: Array) -> Array:
    return quotient(sums[..., 0, 2], sums[..., 0, 0])


def _calibration(sums: Array) -> Array:
    return quotient(sums[..., 0, 2], sums[..., 0, 1])


_MEANS = {
    "MeanLabel": _mean_label,
    "MeanPrediction": _mean_prediction,
    "Calibration": _calibration,
}


@metric(*_MEANS)
def _means(request: Request) -> list[Metric]:
    part = Part(LabelsAndPredictions(request.view))
    return [Metric(request.plain_key, (part,), _MEANS[request.class_name])]
