"""What an EvalConfig asks for: metrics computed in columns, and those left to TFMA."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.components.evaluation.accumulate import statistics_of
from penstock.components.evaluation.blessing import CrossSlicing
from penstock.components.evaluation.eval_config import BASELINE, cross_slicing
from penstock.components.evaluation.fairness import (
    CLASS_NAME,
    Gap,
    gap_of,
    register,
)
from penstock.components.evaluation.gathered import Queries
from penstock.components.evaluation.metrics import averages
from penstock.components.evaluation.metrics.registry import (
    Metric,
    Request,
    find_builder,
)
from penstock.components.evaluation.slicing import SliceBy, slices_by
from penstock.components.evaluation.statistics import Statistic
from penstock.components.evaluation.views import View
from penstock.schemas.errors import PipelineError, did_you_mean, quoted


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to compute.

    Attributes:
        metrics: Those that are computed in columns.
        slicings: How rows are sliced.
        crosses: Slices that are compared.
        baseline: Name of the baseline's model, if there is one.
        left: An EvalConfig of the metrics that only TFMA has; None if there are none.
        left_names: Their class names.
        gaps: Fairness gaps of metrics.
    """

    metrics: tuple[Metric, ...]
    slicings: tuple[SliceBy, ...]
    crosses: tuple[CrossSlicing, ...]
    baseline: str | None
    left: Any
    left_names: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """What is summed over rows, the number of rows first."""
        return self._statistics("")

    @property
    def queries(self) -> tuple[Queries, ...]:
        """What is summed over queries, by query key."""
        keys = dict.fromkeys(each.query_key for each in self.metrics if each.query_key)
        return tuple(
            Queries(
                key,
                self._statistics(key),
                frozenset(
                    (each.key.model_name, each.key.output_name)
                    for each in self.metrics
                    if each.query_key == key
                ),
                frozenset(
                    name
                    for each in self.metrics
                    if each.query_key == key
                    for name in each.columns
                ),
            )
            for key in keys
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that metrics read beside labels, predictions and weights."""
        return tuple(sorted({name for each in self.metrics for name in each.columns}))

    def _statistics(self, query_key: str) -> tuple[Statistic, ...]:
        return statistics_of(
            [
                part.statistic
                for each in self.metrics
                if each.query_key == query_key
                for part in each.parts
            ]
        )


def make_plan(ready: Any, schema: Any = None) -> Plan:
    """Divide the metrics of a config.

    Args:
        ready: A config made by `eval_config.prepared`.
        schema: A TensorFlow Metadata schema of the rows, for what it says of labels.
    """
    register()
    baseline = next((each.name for each in ready.model_specs if each.is_baseline), None)
    slicings = tuple(slices_by(ready))
    gaps: list[Request] = []
    metrics: dict[Any, Metric] = {}
    left = type(ready)()
    left.CopyFrom(ready)
    del left.metrics_specs[:]
    names: list[str] = []
    for spec in ready.metrics_specs:
        kept = type(spec)()
        kept.CopyFrom(spec)
        del kept.metrics[:]
        for config in spec.metrics:
            if config.class_name == CLASS_NAME:
                gaps += _requests(ready, schema, spec, config, baseline)
                continue
            found = _built(ready, schema, spec, config, baseline)
            if found is None:
                kept.metrics.append(config)
                names.append(config.class_name)
            else:
                _add(metrics, found)
        if kept.metrics:
            left.metrics_specs.append(kept)
    return Plan(
        tuple(metrics.values()),
        slicings,
        tuple(map(cross_slicing, ready.cross_slicing_specs)),
        baseline,
        left if names else None,
        tuple(dict.fromkeys(names)),
        tuple(
            gap_of(each, metrics, slicings, ready.options.min_slice_size.value)
            for each in gaps
        ),
    )


def _add(metrics: dict[Any, Metric], found: Sequence[Metric]) -> None:
    """Add metrics, unless there are such already: as TFMA, the first one counts."""
    for each in found:
        before = metrics.setdefault(each.key, each)
        if before.query_key != each.query_key:
            keys = [key for key in (before.query_key, each.query_key) if key]
            raise PipelineError(
                f"The eval_config asks for '{each.key.name}' with the query_key "
                f"{quoted(keys)} and with another or none. Give one of them a name of "
                "its own in its config."
            )


def _built(
    ready: Any, schema: Any, spec: Any, config: Any, baseline: str | None
) -> list[Metric] | None:
    """Return a metric for every model, output and class; None if TFMA has to."""
    builder = find_builder(config, spec.query_key)
    if builder is None:
        return None
    found: list[Metric] = []
    requests = list(_requests(ready, schema, spec, config, baseline))
    for request in requests:
        view = request.view
        if spec.query_key and (view.class_id is not None or view.is_aggregated):
            return None  # a query has no classes
        built = (
            averages.macro_average(request, builder)
            if averages.is_macro(request)
            else builder(request)
        )
        if built is None:
            return None
        found += built
    if spec.output_weights:
        _check_outputs(spec)
        keys = [each.key for each in requests]
        found += averages.output_averages(keys, spec.output_weights, found)
    return [dataclasses.replace(each, query_key=spec.query_key) for each in found]


def _check_outputs(spec: Any) -> None:
    """Check that the outputs of output_weights are outputs of the MetricsSpec."""
    for name in sorted(spec.output_weights):
        if name not in spec.output_names:
            raise PipelineError(
                f"A MetricsSpec has output_weights of '{name}', which is none of its "
                f"output_names ({quoted(spec.output_names)})."
                f"{did_you_mean(name, spec.output_names)}"
            )


def _class_weights(spec: Any, key: Any) -> tuple[tuple[int, float], ...]:
    """Return the weights of classes of a metric that is averaged over them."""
    if not key.aggregation_type:
        return ()
    weights = dict(spec.aggregate.class_weights)
    if weights and spec.aggregate.top_k_list.values:
        raise PipelineError(
            f"The MetricsSpec of '{key.name}' has class_weights and a top_k_list in "
            "its aggregate. Leave one of them out: the k-th highest prediction is of "
            "another class in every row."
        )
    return tuple(sorted(weights.items()))


def _requests(
    ready: Any, schema: Any, spec: Any, config: Any, baseline: str | None
) -> Iterator[Request]:
    from tensorflow_model_analysis.metrics import metric_specs

    alone = type(spec)()
    alone.CopyFrom(spec)
    del alone.metrics[:]
    alone.metrics.append(config)
    for key, _, instance in metric_specs.keys_and_metrics_from_specs(ready, [alone]):
        sub_key = key.sub_key
        yield Request(
            config.class_name,
            key,
            {
                name: value
                for name, value in instance.get_config().items()
                if value is not None
            },
            View(
                key.model_name,
                key.output_name,
                sub_key.class_id if sub_key else None,
                sub_key.k if sub_key else None,
                sub_key.top_k if sub_key else None,
                bool(key.aggregation_type),
                _class_weights(spec, key),
                bool(key.example_weighted),
                spec.query_key,
            ),
            spec.query_key,
            baseline if key.model_name != BASELINE else None,
            _label_domain(ready, schema, key),
        )


def _label_domain(
    ready: Any, schema: Any, key: Any
) -> tuple[float | None, float | None]:
    """Return the least and the greatest label that a schema allows a model's output."""
    if schema is None:
        return None, None
    specs = {each.name: each for each in ready.model_specs}
    spec = specs.get(key.model_name, ready.model_specs[0])
    name = spec.label_keys.get(key.output_name) or spec.label_key
    for feature in schema.feature:
        kind = feature.WhichOneof("domain_info")
        if feature.name == name and kind in ("int_domain", "float_domain"):
            domain = getattr(feature, kind)
            low, high = (
                float(getattr(domain, end)) if domain.HasField(end) else None
                for end in ("min", "max")
            )
            return low, high
    return None, None


def outputs_of(metrics: Sequence[Metric], model: str) -> tuple[str, ...]:
    """Return the names of a model's outputs that metrics are of.

    A metric of two models is of both, under the candidate's name. One without an
    output, such as a number of rows or an average over outputs, needs none of its own
    where others have one.
    """
    names = dict.fromkeys(
        each.key.output_name
        for each in metrics
        if each.key.model_name == model or each.key.is_diff
    )
    return tuple(name for name in names if name) or tuple(names)
