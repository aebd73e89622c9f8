"""Metrics of two models on the same rows: what the candidate changes.

Names and definitions are TFMA's (`flip_metrics`, `prediction_difference_metrics`,
`model_cosine_similarity`). Each is computed once, for the candidate against the
baseline, under the candidate's name as a difference.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.eval_config import BASELINE
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import Contributions, Statistic
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError

_EPSILON = 1e-7  # below it, TFMA takes sum and difference of two predictions for 0


@dataclasses.dataclass(frozen=True)
class Comparison(Statistic):
    """Sums over rows that two models predicted: a base.

    Attributes:
        candidate: The predictions of one; its class, if it has one, is both's.
        baseline: Those of the other. The weights are taken from it, as TFMA does.
    """

    candidate: View
    baseline: View

    def predictions(self, batch: Batch) -> tuple[Array, Array]:
        """Return the candidate's and the baseline's, of shape (rows, values)."""
        return _predictions(self.candidate, batch), _predictions(self.baseline, batch)

    def weights(self, batch: Batch, values: int) -> Array | None:
        """Return weights, of shape (rows, values) or (rows, 1); None if all are 1."""
        return self.baseline.value_weights(batch, values)


def _predictions(view: View, batch: Batch) -> Array:
    found = view.predictions(batch)
    return found if view.class_id is None else view.of_class(found)


@dataclasses.dataclass(frozen=True)
class Flips(Comparison):
    """Weights by what the two models decide, in cells 2 * baseline + candidate.

    Every value of a row is a decision of its own, as in TFMA 0.52.

    Attributes:
        threshold: A prediction above it is positive.
    """

    threshold: float
    cells: ClassVar[int] = 4  # type: ignore[misc]
    counts: ClassVar[bool] = True

    def contributions(self, batch: Batch) -> Contributions:
        """Return the weight of every decision."""
        candidate, baseline = (
            (each > self.threshold).astype(np.int64) for each in self.predictions(batch)
        )
        weights = self.weights(batch, candidate.shape[1])
        return Contributions(2 * baseline + candidate, (weights,))


@dataclasses.dataclass(frozen=True)
class RelativeDifferences(Comparison):
    """Sums of weights and of weighted symmetric differences, 2 |b - c| / |b + c|."""

    cells: ClassVar[int] = 1  # type: ignore[misc]
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def contributions(self, batch: Batch) -> Contributions:
        """Return weight and weighted difference of every row.

        Raises:
            DataError: If a row has several predictions.
        """
        candidate, baseline = self.predictions(batch)
        if candidate.shape[1] != 1:
            raise DataError(
                f"A relative difference is of two predictions, and a row has "
                f"{candidate.shape[1]} of each model. Name the classes with class_ids "
                "of binarize, or compare them whole with ModelCosineSimilarity."
            )
        apart = 2 * np.abs(baseline - candidate)
        together = np.abs(baseline + candidate)
        is_none = (apart < _EPSILON) & (together < _EPSILON)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(is_none, 0.0, apart / together)
        weights = self.weights(batch, 1)
        if weights is None:
            return Contributions(None, (None, found))
        return Contributions(None, (weights, weights * found))


@dataclasses.dataclass(frozen=True)
class Cosines(Comparison):
    """Sums of ones and of cosines of the angle between two vectors of predictions."""

    cells: ClassVar[int] = 1  # type: ignore[misc]
    columns: ClassVar[int] = 2  # type: ignore[misc]

    def contributions(self, batch: Batch) -> Contributions:
        """Return the cosine of every row, NaN where a vector is 0."""
        one, other = self.predictions(batch)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (one * other).sum(axis=1) / lengths
        return Contributions(None, (None, found[:, None]))


def _mean(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0, 1] / sums[..., 0, 0])


# Of weights in the order negative to negative, negative to positive, and so on, from
# baseline to candidate.
_FLIPS: Mapping[str, tuple[int, ...]] = {
    "SymmetricFlipRate": (1, 2),
    "NegToNegFlipRate": (0,),
    "NegToPosFlipRate": (1,),
    "PosToNegFlipRate": (2,),
    "PosToPosFlipRate": (3,),
}
_NAMES = {  # arguments that name the five in a BooleanFlipRates
    "symmetric_flip_rate_name": "SymmetricFlipRate",
    "neg_to_neg_flip_rate_name": "NegToNegFlipRate",
    "neg_to_pos_flip_rate_name": "NegToPosFlipRate",
    "pos_to_neg_flip_rate_name": "PosToNegFlipRate",
    "pos_to_pos_flip_rate_name": "PosToPosFlipRate",
}


def _rate(sums: Array, *, cells: tuple[int, ...]) -> Array:
    weights = sums[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(weights[..., list(cells)].sum(-1) / weights.sum(-1))


def _built(
    request: Request,
    statistic: Callable[[View, View], Statistic],
    formulas: Mapping[str, Callable[[Array], Array]],
) -> list[Metric] | None:
    """Return metrics of a statistic of two models, by their names."""
    if request.key.model_name == BASELINE:
        return []
    view = request.view
    if request.baseline is None or view.k is not None or view.top_k is not None:
        return None
    baseline = dataclasses.replace(view, model=request.baseline)
    part = Part(statistic(view, baseline))
    key = request.plain_key._replace(is_diff=True)
    return [
        Metric(key._replace(name=name), (part,), formula)
        for name, formula in formulas.items()
    ]


@metric(*_FLIPS)
def _flip_rate(request: Request) -> list[Metric] | None:
    formula = functools.partial(_rate, cells=_FLIPS[request.class_name])
    return _flips(request, {request.key.name: formula})


@metric("BooleanFlipRates")
def _flip_rates(request: Request) -> list[Metric] | None:
    return _flips(
        request,
        {
            request.config[name]: functools.partial(_rate, cells=_FLIPS[rate])
            for name, rate in _NAMES.items()
        },
    )


def _flips(request: Request, formulas: Mapping[str, Any]) -> list[Metric] | None:
    threshold = float(request.config["threshold"])
    return _built(request, functools.partial(Flips, threshold=threshold), formulas)


@metric("SymmetricPredictionDifference")
def _difference(request: Request) -> list[Metric] | None:
    return _built(request, RelativeDifferences, {request.key.name: _mean})


@metric("ModelCosineSimilarity")
def _cosine(request: Request) -> list[Metric] | None:
    if request.view.class_id is not None or request.view.is_weighted:
        return None  # TFMA refuses weights
    return _built(request, Cosines, {request.key.name: _mean})
