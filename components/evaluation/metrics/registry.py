"""A metric as the engine sees it, and where metrics are looked up by name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.statistics import Statistic
from penstock.components.evaluation.views import View

Kind: TypeAlias = Literal["number", "array", "object", "plot"]
State: TypeAlias = Any


class Form(Protocol):
    """What a formula needs of sums: the sums themselves, or matrices made of them.

    Equal forms of a statistic are computed once for all metrics that take them.
    """

    def whole(self, sums: Array) -> State:
        """Return it for sums of shape (..., cells, columns)."""

    def grouped(self, totals: Array, groups: int) -> tuple[Array, GroupedForm]:
        """Return a coarser division of the cells, for the intervals of large slices.

        Args:
            totals: What is in the cells of one slice, of shape (cells, columns).
            groups: About how many groups are wanted. If as many as there are cells,
                numbers are the same as of the whole.

        Returns:
            The group of every cell, of shape (cells,), and what makes the state of
            sums of shape (..., groups, columns).
        """


GroupedForm: TypeAlias = Callable[[Array], State]


@dataclasses.dataclass(frozen=True)
class Plain:
    """The sums as they are, of shape (..., cells, columns)."""

    def whole(self, sums: Array) -> Array:
        """Return the sums."""
        return sums

    def grouped(self, totals: Array, groups: int) -> tuple[Array, GroupedForm]:
        """Return every cell as a group of its own."""
        del groups
        return np.arange(len(totals)), self.whole


@dataclasses.dataclass(frozen=True)
class Part:
    """A statistic, and the form in which a formula takes it."""

    statistic: Statistic
    form: Form = dataclasses.field(default_factory=Plain)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of one model (or of both), output and class.

    Attributes:
        key: TFMA's MetricKey or PlotKey.
        parts: What its formula takes.
        value: The formula: from one state per part, with any leading dimensions, to
            values of those dimensions (`number`), with one more (`array`), or from
            states without leading dimensions to an object that TFMA's writer takes
            (`object`, `plot`).
        kind: What the value is.
        is_smooth: Whether the formula has derivatives in the sums, so that its
            intervals can be linearized.
        has_interval: Whether an interval makes sense.
        is_undefined: From the same states, where TFMA gives a number although there is
            none, such as the AUC of one class. Such a number has no interval, so that
            no evidence is found in it.
        query_key: Column that groups rows into the queries that it is of; '' for rows.
        columns: Columns that it reads beside labels, predictions and weights.
    """

    key: Any
    parts: tuple[Part, ...]
    value: Callable[..., Any]
    kind: Kind = "number"
    is_smooth: bool = True
    has_interval: bool = True
    is_undefined: Callable[..., Array] | None = None
    query_key: str = ""
    columns: tuple[str, ...] = ()

    def defined(self, *states: State) -> Array:
        """Return the values, of kind `number` or `array`; NaN where undefined."""
        with np.errstate(all="ignore"):
            values = np.asarray(self.value(*states))
            if self.is_undefined is None:
                return values
            return np.where(self.is_undefined(*states), np.nan, values)


@dataclasses.dataclass(frozen=True)
class Request:
    """A metric that a config asks for.

    Attributes:
        class_name: TFMA's name of its class.
        key: TFMA's MetricKey, with name, model, output, class, aggregation.
        config: Arguments of the class, without those that are None.
        view: What the metric sees, from the key and the spec.
        query_key: Column that groups rows into queries; '' for none.
        baseline: Name of the baseline's model, if there is one.
        label_domain: The least and the greatest label that the schema allows; None
            where it says nothing.
    """

    class_name: str
    key: Any
    config: Mapping[str, Any]
    view: View
    query_key: str = ""
    baseline: str | None = None
    label_domain: tuple[float | None, float | None] = (None, None)

    @property
    def plain_key(self) -> Any:
        """The key without aggregation, as TFMA has it where classes are not named."""
        return self.key._replace(aggregation_type=None)

    def with_class_settings(self) -> Request | None:
        """Return the request with the config's own `top_k` and `class_id` applied.

        Returns:
            None if the spec binarizes too, which TFMA refuses with its own words.
        """
        top_k, class_id = self.config.get("top_k"), self.config.get("class_id")
        if top_k is None and class_id is None:
            return self
        view = self.view
        if class_id is not None and self.query_key:
            return None
        if (top_k is not None and view.top_k is not None) or (
            class_id is not None and view.class_id is not None
        ):
            return None
        from tensorflow_model_analysis.metrics.metric_types import SubKey

        sub_key = self.key.sub_key._asdict() if self.key.sub_key else {}
        if top_k is not None:
            view = dataclasses.replace(view, top_k=top_k)
            sub_key["top_k"] = top_k
        if class_id is not None:
            view = dataclasses.replace(view, class_id=class_id)
            sub_key["class_id"] = class_id
        return dataclasses.replace(
            self, view=view, key=self.key._replace(sub_key=SubKey(**sub_key))
        )


Builder: TypeAlias = Callable[[Request], "list[Metric] | None"]

METRICS: dict[str, Builder] = {}
"""Builders by TFMA's class name. A builder gives None for what only TFMA can do."""

_MODULES = (
    "binary",
    "class_plots",
    "classes",
    "comparisons",
    "keras",
    "plots",
    "queries",
    "sums",
)

_OF_QUERIES: set[str] = set()


def metric(*names: str, takes_queries: bool = False) -> Callable[[Builder], Builder]:
    """Register a builder under class names.

    Args:
        names: TFMA's.
        takes_queries: Whether it heeds the query key, of the request or of its view.
    """

    def register(builder: Builder) -> Builder:
        for name in names:
            METRICS[name] = builder
        if takes_queries:
            _OF_QUERIES.update(names)
        return builder

    return register


def find_builder(config: Any, query_key: str) -> Builder | None:
    """Return what builds a metric, or None if only TFMA has it.

    Args:
        config: A MetricConfig.
        query_key: Of its MetricsSpec.
    """
    from tensorflow_model_analysis.metrics import metric_types

    if config.class_name not in metric_types.registered_metrics():
        package = config.module.partition(".")[0]
        if package not in ("", "tf_keras", "keras", "tensorflow"):
            return None  # the user's own
    for module in _MODULES:
        importlib.import_module(f"penstock.components.evaluation.metrics.{module}")
    if query_key and config.class_name not in _OF_QUERIES:
        return None
    return METRICS.get(config.class_name)
