"""Averages of a metric over classes and over outputs.

Definitions and keys are TFMA's (`aggregation`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.metrics.registry import (
    Builder,
    Metric,
    Part,
    Request,
)
from penstock.components.evaluation.statistics import Contributions, Statistic
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError, PipelineError


@dataclasses.dataclass(frozen=True)
class ClassLabels(Statistic):
    """Weighted sums of the labels of classes, one cell a class.

    Attributes:
        view: The labels: class numbers, or one value for each class.
        class_ids: The classes that count.
    """

    view: View
    class_ids: tuple[int, ...]

    @property
    def cells(self) -> int:  # type: ignore[override]
        """One cell a class."""
        return len(self.class_ids)

    def contributions(self, batch: Batch) -> Contributions:
        """Return weighted labels.

        Raises:
            DataError: If there is no such class.
        """
        labels = self.view.labels(batch)
        weights = self.view.row_weights(batch)[:, None]
        classes = np.array(self.class_ids)
        if labels.shape[1] == 1:
            found = labels == classes
        else:
            self._check(labels.shape[1])
            found = labels[:, classes]
        cells = np.broadcast_to(np.arange(len(classes)), found.shape)
        return Contributions(cells, (weights * found,))

    def _check(self, classes: int) -> None:
        highest = max(self.class_ids)
        if highest >= classes:
            raise DataError(
                f"Class {highest} is averaged over, and a row has labels of {classes} "
                "classes, from 0. Mend class_weights of the MetricsSpec."
            )


@dataclasses.dataclass(frozen=True)
class _Average:
    """The formula of an average.

    Attributes:
        formulas: Of the metrics, each with the number of states that it takes.
        weights: Of the metrics.
        has_labels: Whether metrics weigh as their class' labels do too: the last state.
    """

    formulas: tuple[tuple[Callable[..., Any], int], ...]
    weights: tuple[float, ...]
    has_labels: bool = False

    def __call__(self, *states: Any) -> Array:
        shares: Array | None = None
        if self.has_labels:
            labels = states[-1][..., 0]
            total = labels.sum(axis=-1, keepdims=True)
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = np.where(total == 0, 0.0, labels / total)
        value: Array = np.zeros(())
        weight: Array = np.zeros(())
        start = 0
        for place, (formula, count) in enumerate(self.formulas):
            share = self.weights[place] * (
                1.0 if shares is None else shares[..., place]
            )
            value = value + share * formula(*states[start : start + count])
            weight = weight + share
            start += count
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(weight == 0, np.nan, value / weight)


def _averaged(
    key: Any,
    metrics: Iterable[tuple[Metric, float]],
    labels: ClassLabels | None = None,
) -> Metric:
    """Return the average of metrics, each with its weight."""
    found = list(metrics)
    parts = tuple(part for each, _ in found for part in each.parts)
    return Metric(
        key,
        parts if labels is None else (*parts, Part(labels)),
        _Average(
            tuple((each.value, len(each.parts)) for each, _ in found),
            tuple(weight for _, weight in found),
            labels is not None,
        ),
        is_smooth=all(each.is_smooth for each, _ in found),
        has_interval=all(each.has_interval for each, _ in found),
        columns=tuple(
            dict.fromkeys(name for each, _ in found for name in each.columns)
        ),
    )


def is_macro(request: Request) -> bool:
    """Return whether a request is of the average of the metrics of classes."""
    kind = request.key.aggregation_type
    return bool(kind and (kind.macro_average or kind.weighted_macro_average))


def macro_average(request: Request, builder: Builder) -> list[Metric] | None:
    """Return the average of the metrics of classes, or None if only TFMA has them.

    A weighted average weighs a class as its labels do; its key says that it is a macro
    average, as TFMA's does.

    Args:
        request: For which `is_macro`.
        builder: What builds the metric of a class.

    Raises:
        PipelineError: If no classes are named, or the metric has no value for each.
    """
    from tensorflow_model_analysis.metrics.metric_types import AggregationType

    found = []
    for sub_key, weight in _classes(request):
        view = dataclasses.replace(
            request.view,
            class_id=sub_key.class_id,
            k=sub_key.k,
            top_k=None,
            is_aggregated=False,
            class_weights=(),
        )
        key = request.plain_key._replace(sub_key=sub_key)
        built = builder(dataclasses.replace(request, key=key, view=view))
        if built is None:
            return None
        found.append((_number(built, key, "class"), weight))
    class_ids = tuple(number for number, _ in request.view.class_weights)
    labels = None
    if request.key.aggregation_type.weighted_macro_average and class_ids:
        view = View(
            request.view.model,
            request.view.output,
            is_weighted=request.view.is_weighted,
        )
        labels = ClassLabels(view, class_ids)
    kind = AggregationType(macro_average=True)
    return [_averaged(request.key._replace(aggregation_type=kind), found, labels)]


def _classes(request: Request) -> list[tuple[Any, float]]:
    """Return the sub-keys that are averaged over, with their weights."""
    from tensorflow_model_analysis.metrics.metric_types import SubKey

    if request.view.top_k is not None:
        return [(SubKey(k=place + 1), 1.0) for place in range(request.view.top_k)]
    if not request.view.class_weights:
        raise PipelineError(
            f"The MetricsSpec of '{request.key.name}' averages the metrics of classes "
            "and names no class. Give its aggregate class_weights={0: 1, 1: 1, ...}, "
            "or a top_k_list."
        )
    return [
        (SubKey(class_id=number), weight)
        for number, weight in request.view.class_weights
    ]


def _number(built: Iterable[Metric], key: Any, what: str) -> Metric:
    """Return the metric of a key, which is one number."""
    for each in built:
        if each.key == key and each.kind == "number":
            return each
    raise PipelineError(
        f"Metric '{key.name}' is not one number for each {what}, so that it has no "
        f"average. Put it into a MetricsSpec without "
        f"{'aggregate' if what == 'class' else 'output_weights'}."
    )


def output_averages(
    keys: Iterable[Any], weights: Mapping[str, float], found: Iterable[Metric]
) -> list[Metric]:
    """Return averages over outputs, whose keys name no output.

    Args:
        keys: Of the metrics that are asked for, with their outputs.
        weights: Of outputs.
        found: The metrics of all outputs.

    Raises:
        PipelineError: If a metric is averaged over classes too, or no number.
    """
    by_key = {each.key: each for each in found}
    averages = {}
    for each in keys:
        key = each._replace(output_name="", aggregation_type=None)
        if key in averages:
            continue
        alone = {output: key._replace(output_name=output) for output in weights}
        if not all(other in by_key for other in alone.values()):
            raise PipelineError(
                f"Metric '{key.name}' is averaged over classes and over outputs, and "
                "TFMA has no name for that. Take aggregate or output_weights out of "
                "its MetricsSpec."
            )
        averages[key] = _averaged(
            key,
            [
                (_number([by_key[other]], other, "output"), weights[output])
                for output, other in alone.items()
            ],
        )
    return list(averages.values())
