"""Metrics and losses of Keras that TFMA runs: means over rows of a number of each.

Names, options and formulas are those of tf_keras (`metrics`, `losses`, `backend`), with
its clipping and its 0 for a mean of nothing. Keras computes in 32 bits: labels and
predictions are rounded as it does, and all that follows is in 64 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Part,
    Request,
    metric,
)
from penstock.components.evaluation.statistics import RowSums
from penstock.components.evaluation.views import View, class_numbers
from penstock.schemas.errors import DataError, PipelineError

_EPSILON = float(np.float32(1e-7))
Options: TypeAlias = Mapping[str, Any]
Function: TypeAlias = Callable[[Array, Array, Options], Array]


@dataclasses.dataclass(frozen=True)
class Rule:
    """How Keras makes a number of a row, or of each of its values.

    Attributes:
        function: From labels and predictions of shape (rows, values), and options, to
            numbers of shape (rows,) or (rows, values).
        labels: `alike`: of the shape of predictions, class numbers become one-hot.
            `same`: of that shape as they are. `numbers`: class numbers.
        options: Names and defaults.
    """

    function: Function
    labels: Literal["alike", "same", "numbers"] = "alike"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _highest_probability(options: Options) -> float:
    """Return 1 - epsilon, in the floats that Keras computes with."""
    kind = options["kind"]
    return float(kind(1) - kind(1e-7))


def _binary_cross_entropy(y: Array, p: Array, options: Options) -> Array:
    smoothing = options["label_smoothing"]
    y = y * (1 - smoothing) + 0.5 * smoothing
    if options["from_logits"]:
        found = np.maximum(p, 0) - p * y + np.log1p(np.exp(-np.abs(p)))
    else:
        p = np.clip(p, _EPSILON, _highest_probability(options))
        found = -y * np.log(p + _EPSILON) - (1 - y) * np.log(1 - p + _EPSILON)
    return np.asarray(found.mean(axis=1))


def _log_softmax(logits: Array) -> Array:
    moved = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(moved - np.log(np.exp(moved).sum(axis=1, keepdims=True)))


def _categorical_cross_entropy(y: Array, p: Array, options: Options) -> Array:
    smoothing = options["label_smoothing"]
    y = y * (1 - smoothing) + smoothing / y.shape[1]
    if options["from_logits"]:
        logs = _log_softmax(p)
    else:
        p = p / p.sum(axis=1, keepdims=True)
        logs = np.log(np.clip(p, _EPSILON, _highest_probability(options)))
    return -np.asarray(np.sum(y * logs, axis=1))


def _sparse_cross_entropy(y: Array, p: Array, options: Options) -> Array:
    """Return NaN for rows of the class that is ignored."""
    ignored = options["ignore_class"]
    is_ignored = np.zeros(len(y), bool) if ignored is None else y[:, 0] == ignored
    numbers = class_numbers(np.where(is_ignored[:, None], 0, y), p.shape[1])
    if (numbers < 0).any():
        raise DataError(
            f"{int((numbers < 0).sum()):,} labels of {len(y):,} rows are -1, and the "
            "cross-entropy of a row needs its class. Leave such rows out before "
            "ingestion, or set ignore_class of the metric."
        )
    if not options["from_logits"]:
        p = np.log(np.clip(p, _EPSILON, _highest_probability(options)))
    found = -np.take_along_axis(_log_softmax(p), numbers[:, None], 1)[:, 0]
    return np.where(is_ignored, np.nan, found)


def _is_first(numbers: Array, p: Array) -> Array:
    return np.asarray(np.argmax(p, axis=1) == numbers, float)


def _is_among(numbers: Array, p: Array, k: int) -> Array:
    """Return whether fewer than k predictions are higher than that of the label."""
    is_class = (numbers >= 0) & (numbers < p.shape[1])
    place = np.where(is_class, numbers, 0).astype(np.int64)
    own = np.take_along_axis(p, place[:, None], 1)
    known = np.isfinite(p).all(axis=1) & is_class
    return np.asarray(((p > own).sum(axis=1) < k) & known, float)


def _signed(y: Array) -> Array:
    """Return labels of -1 and 1, of labels of 0 and 1."""
    return np.where(y == 0, -1.0, y)


def _categorical_hinge(y: Array, p: Array, _: Options) -> Array:
    gap = np.max((1 - y) * p, axis=1) - np.sum(y * p, axis=1)
    return np.asarray(np.maximum(gap + 1, 0))


def _divergence(y: Array, p: Array, _: Options) -> Array:
    y, p = np.clip(y, _EPSILON, 1), np.clip(p, _EPSILON, 1)
    return np.asarray(np.sum(y * np.log(y / p), axis=1))


def _cosine(y: Array, p: Array, _: Options) -> Array:
    lengths = (np.sqrt(np.maximum((each**2).sum(axis=1), 1e-12)) for each in (y, p))
    return np.asarray(np.sum(y * p, axis=1) / np.prod(list(lengths), axis=0))


def _log_cosh(y: Array, p: Array, _: Options) -> Array:
    error = p - y
    found = error + np.logaddexp(0, -2 * error) - np.log(2)
    return np.asarray(found.mean(axis=1))


def _huber(y: Array, p: Array, options: Options) -> Array:
    error, delta = np.abs(p - y), options["delta"]
    found = np.where(error <= delta, error**2 / 2, delta * error - delta**2 / 2)
    return np.asarray(found.mean(axis=1))


_FROM_LOGITS = {"from_logits": False, "label_smoothing": 0.0}
_METRICS: Mapping[str, Rule] = {
    "Accuracy": Rule(lambda y, p, _: np.asarray(y == p, float), "same"),
    "RootMeanSquaredError": Rule(lambda y, p, _: (p - y) ** 2),
    "BinaryCrossentropy": Rule(_binary_cross_entropy, options=_FROM_LOGITS),
    "CategoricalCrossentropy": Rule(_categorical_cross_entropy, options=_FROM_LOGITS),
    "SparseCategoricalCrossentropy": Rule(
        _sparse_cross_entropy, "numbers", {"from_logits": False, "ignore_class": None}
    ),
    "CategoricalAccuracy": Rule(lambda y, p, _: _is_first(np.argmax(y, axis=1), p)),
    "SparseCategoricalAccuracy": Rule(lambda y, p, _: _is_first(y[:, 0], p), "numbers"),
    "TopKCategoricalAccuracy": Rule(
        lambda y, p, options: _is_among(np.argmax(y, axis=1), p, options["k"]),
        options={"k": 5},
    ),
    "SparseTopKCategoricalAccuracy": Rule(
        lambda y, p, options: _is_among(y[:, 0], p, options["k"]), "numbers", {"k": 5}
    ),
    "Hinge": Rule(lambda y, p, _: np.maximum(1 - _signed(y) * p, 0).mean(axis=1)),
    "SquaredHinge": Rule(
        lambda y, p, _: (np.maximum(1 - _signed(y) * p, 0) ** 2).mean(axis=1)
    ),
    "CategoricalHinge": Rule(_categorical_hinge),
    "CosineSimilarity": Rule(_cosine),
    "KLDivergence": Rule(_divergence),
    "LogCoshError": Rule(_log_cosh),
    "Poisson": Rule(lambda y, p, _: (p - y * np.log(p + _EPSILON)).mean(axis=1)),
}
_LOSSES: Mapping[str, Rule] = {
    **{name: rule for name, rule in _METRICS.items() if name != "LogCoshError"},
    "CosineSimilarity": Rule(lambda y, p, options: -_cosine(y, p, options)),
    "LogCosh": Rule(_log_cosh),
    "Huber": Rule(_huber, options={"delta": 1.0}),
}


@dataclasses.dataclass(frozen=True)
class Means(RowSums):
    """Sums of weights and of weighted numbers.

    Attributes:
        name: Keras' name of the class.
        is_loss: Whether it is one of Keras' losses.
        options: Of the rule, in its order.
    """

    name: str
    is_loss: bool
    options: tuple[Any, ...]
    columns: ClassVar[int] = 2  # type: ignore[misc]

    @property
    def rule(self) -> Rule:
        """How a row's number is made."""
        return (_LOSSES if self.is_loss else _METRICS)[self.name]

    def numbers(self, batch: Batch) -> tuple[Array, ...]:
        """Return the two for every row or value.

        Raises:
            DataError: If labels do not fit the metric.
        """
        labels, predictions = self._seen(batch)
        shape = labels.shape
        if self.view.is_aggregated:  # every class is a row of its own
            labels, predictions = labels.reshape(-1, 1), predictions.reshape(-1, 1)
        # A loss is computed in the floats that the predictions have.
        is_wide = self.is_loss and predictions.dtype == np.float64
        kind: type[Any] = np.float64 if is_wide else np.float32
        with np.errstate(all="ignore"):
            found = self.rule.function(
                labels.astype(kind).astype(np.float64),
                predictions.astype(kind).astype(np.float64),
                {
                    **dict(zip(self.rule.options, self.options, strict=True)),
                    "kind": kind,
                },
            )
        if self.view.is_aggregated or found.ndim == 2:
            found = found.reshape(shape)
            weights = self.view.value_weights(batch, shape[1])
            full = np.broadcast_to(1.0 if weights is None else weights, shape)
        else:
            found = found[:, None]
            full = self.view.row_weights(batch)[:, None]
        if self.name == "SparseCategoricalCrossentropy" and self.options[1] is not None:
            full = full * ~np.isnan(found)
            found = np.nan_to_num(found)
        return full, full * found

    def _seen(self, batch: Batch) -> tuple[Array, Array]:
        """Return labels and predictions as the rule takes them."""
        if self.rule.labels == "alike":
            pairs = self.view.pairs(batch)
            kind = batch.get("prediction", self.view.model, self.view.output).dtype
            return pairs.labels, pairs.predictions.astype(kind, copy=False)
        labels, predictions = self.view.labels(batch), self.view.scores(batch)
        wanted = predictions.shape[1] if self.rule.labels == "same" else 1
        if labels.shape[1] != wanted:
            near = "SparseCategoricalAccuracy" if wanted > 1 else "CategoricalAccuracy"
            raise DataError(
                f"A row has {labels.shape[1]} labels and {predictions.shape[1]} "
                f"predictions, and '{self.name}' takes {wanted} "
                f"{'label' if wanted == 1 else 'labels'}. Did you mean '{near}', or "
                "another label_key?"
            )
        return labels, predictions


def _mean(sums: Array) -> Array:
    total = sums[..., 0, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total == 0, 0.0, sums[..., 0, 1] / total)


@metric(*{**_METRICS, **_LOSSES})
def _keras(request: Request) -> list[Metric] | None:
    is_loss = "reduction" in request.config
    rule = (_LOSSES if is_loss else _METRICS).get(request.class_name)
    if rule is None or not _is_plain(request.view, rule, request.config):
        return None
    if request.view.is_aggregated and request.class_name.startswith("Sparse"):
        raise PipelineError(
            f"Metric '{request.key.name}' takes the number of the class, and its "
            "MetricsSpec aggregates classes, where each is right or wrong. Use "
            f"'{request.class_name[len('Sparse') :]}', or a MetricsSpec of its own."
        )
    options = tuple(
        request.config.get(name, default) for name, default in rule.options.items()
    )
    part = Part(Means(request.view, request.class_name, is_loss, options))
    value = _root_mean if request.class_name == "RootMeanSquaredError" else _mean
    return [Metric(request.plain_key, (part,), value)]


def _root_mean(sums: Array) -> Array:
    return np.asarray(np.sqrt(_mean(sums)))


def _is_plain(view: View, rule: Rule, config: Options) -> bool:
    """Return whether all that is configured is known here."""
    known = {
        "name": (config.get("name"),),
        "fn": (config.get("fn"),),  # the class says it
        "dtype": ("float32",),
        "axis": (-1, 1),
        "reduction": ("auto", "sum_over_batch_size", "none"),
    }
    return (
        all(
            name in rule.options or (name in known and value in known[name])
            for name, value in config.items()
        )
        and (view.top_k is None or view.is_aggregated)
        and (rule.labels == "alike" or (view.class_id, view.k) == (None, None))
    )
