"""An EvalConfig made ready: what it may say, TFX's defaults, and its thresholds."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from penstock.components.evaluation.blessing import (
    ChangeBound,
    CrossSlicing,
    MetricName,
    Slicing,
    Threshold,
    ValueBound,
)
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

CANDIDATE = "candidate"
BASELINE = "baseline"

_SAVED_MODEL_TYPES = ("", "tf_generic", "tf_keras", "tf_estimator")


def check_eval_config(config: object, subject: str) -> None:
    """Check what an EvalConfig says by itself, before there is data or a model.

    Args:
        config: What the user gave.
        subject: What it is called in texts: `Evaluator.eval_config`.

    Raises:
        PipelineError: If it is no EvalConfig, or asks for what cannot be done.
    """
    descriptor = getattr(config, "DESCRIPTOR", None)
    full_name = getattr(descriptor, "full_name", "")
    if full_name != "tensorflow_model_analysis.EvalConfig":
        kind = full_name or type(config).__name__
        raise PipelineError(
            f"{subject} takes an EvalConfig, got {kind}. Make one with "
            "penstock.components.evaluation.EvalConfig(model_specs=..., "
            "metrics_specs=...)."
        )
    _check_model_specs(config, subject)
    _check_metrics_specs(config, subject)
    for spec in _slicing_specs(config):
        if spec.slice_keys_sql:
            raise PipelineError(
                f"{subject} has a slice in SQL ('{spec.slice_keys_sql}'), which "
                "TFMA no longer has. Use feature_keys and feature_values."
            )


def _check_model_specs(config: Any, subject: str) -> None:
    specs = list(config.model_specs)
    if not any(spec.label_key or spec.label_keys for spec in specs):
        raise PipelineError(
            f"{subject} names no label. Give it model_specs=[ModelSpec(label_key=...)]."
        )
    names = [spec.name for spec in specs]
    if len(specs) == 1 and names[0] not in ("", CANDIDATE):
        raise PipelineError(
            f"{subject} names its only model '{names[0]}', and it is the "
            f"'{CANDIDATE}'. Leave the ModelSpec's name out."
        )
    if len(specs) > 1 and sorted(names) != [BASELINE, CANDIDATE]:
        wrong = [name for name in names if name not in (CANDIDATE, BASELINE)]
        near = did_you_mean(wrong[0], (CANDIDATE, BASELINE)) if wrong else ""
        raise PipelineError(
            f"{subject} has {len(specs)} model_specs, named {quoted(names)}. Two "
            f"models are compared, '{CANDIDATE}' and '{BASELINE}'; give one ModelSpec "
            f"for both, or one for each.{near}"
        )
    for spec in specs:
        if len(specs) > 1 and spec.is_baseline != (spec.name == BASELINE):
            raise PipelineError(
                f"{subject}: is_baseline of ModelSpec '{spec.name}' is "
                f"{spec.is_baseline}. Set it for '{BASELINE}', and only there."
            )
        if spec.model_type not in _SAVED_MODEL_TYPES:
            raise PipelineError(
                f"{subject} has model_type '{spec.model_type}'; SavedModels are "
                "evaluated by their signature. Leave model_type out."
            )


def _check_metrics_specs(config: Any, subject: str) -> None:
    if not any(spec.metrics for spec in config.metrics_specs):
        raise PipelineError(
            f"{subject} asks for no metric. Give it metrics_specs=[MetricsSpec("
            "metrics=[MetricConfig(class_name='AUC')])]."
        )
    for spec in config.metrics_specs:
        for name in spec.model_names:
            if name not in (CANDIDATE, BASELINE):
                raise PipelineError(
                    f"{subject}: model_names of a MetricsSpec has '{name}'. The models "
                    f"are '{CANDIDATE}' and '{BASELINE}'."
                    f"{did_you_mean(name, (CANDIDATE, BASELINE))}"
                )
        for field in ("thresholds", "per_slice_thresholds", "cross_slice_thresholds"):
            for name in getattr(spec, field):
                raise PipelineError(
                    f"{subject}: MetricsSpec.{field} has '{name}'; those are for "
                    "metrics inside the model, which are not evaluated. Give its "
                    "MetricConfig the threshold."
                )
        for metric in spec.metrics:
            for slices, threshold in _metric_thresholds(metric):
                if not slices:
                    raise PipelineError(
                        f"{subject}: a threshold of '{metric.class_name}' is for "
                        "slices and names none. Give it slicing_specs."
                    )
                change = threshold.change_threshold
                bounded = change.HasField("absolute") or change.HasField("relative")
                if bounded and change.direction == 0:
                    raise PipelineError(
                        f"{subject}: the change threshold of '{metric.class_name}' has "
                        "no direction. Set it to MetricDirection.HIGHER_IS_BETTER or "
                        "LOWER_IS_BETTER."
                    )


def _metric_thresholds(metric: Any) -> Iterator[tuple[bool, Any]]:
    """Yield whether each threshold of a metric says its slices, and the threshold."""
    if metric.HasField("threshold"):
        yield True, metric.threshold
    for each in metric.per_slice_thresholds:
        yield bool(each.slicing_specs), each.threshold
    for each in metric.cross_slice_thresholds:
        yield bool(each.cross_slicing_specs), each.threshold


def _slicing_specs(config: Any) -> Iterator[Any]:
    """Yield every SlicingSpec, of slices to compute and of thresholds."""
    yield from config.slicing_specs
    crossed = list(config.cross_slicing_specs)
    for metrics in config.metrics_specs:
        for metric in metrics.metrics:
            for each in metric.per_slice_thresholds:
                yield from each.slicing_specs
            for each in metric.cross_slice_thresholds:
                crossed += each.cross_slicing_specs
    for cross in crossed:
        yield cross.baseline_spec
        yield from cross.slicing_specs


def label_columns(config: EvalConfig) -> set[str]:
    """Return the columns that hold labels."""
    return set(_keys(config, "label_key", "label_keys"))


def weight_columns(config: EvalConfig) -> set[str]:
    """Return the columns that hold weights of rows."""
    return set(_keys(config, "example_weight_key", "example_weight_keys"))


def _keys(config: Any, one: str, many: str) -> Iterator[str]:
    for spec in config.model_specs:
        if getattr(spec, one):
            yield getattr(spec, one)
        yield from getattr(spec, many).values()


def slice_columns(config: EvalConfig) -> set[str]:
    """Return the names that may be columns that rows are sliced by.

    Features, and the columns that those read which are expressions: which of the two
    a feature is, only the data says.
    """
    from penstock.components.evaluation.slicing import read_by

    features = _slicing_features(config)
    return features.union(*map(read_by, features))


def _slicing_features(config: EvalConfig) -> set[str]:
    return {
        name
        for spec in _slicing_specs(config)
        for name in (*spec.feature_keys, *spec.feature_values)
    }


def query_columns(config: EvalConfig) -> set[str]:
    """Return the columns that group rows into queries."""
    return {spec.query_key for spec in config.metrics_specs if spec.query_key}


def transforms(config: EvalConfig) -> bool:
    """Return whether signatures of the model compute labels or features first."""
    return any(spec.preprocessing_function_names for spec in config.model_specs)


def check_columns(
    config: EvalConfig,
    columns: Iterable[str],
    subject: str,
    *,
    read: Iterable[str] = (),
) -> None:
    """Check that the data has what the config names.

    Args:
        config: The config.
        columns: Names of the columns of the data, and of those that a preprocessing
            signature of the model adds.
        subject: What the data is called in texts.
        read: The columns that configs of metrics name.

    Raises:
        DataError: If it names a column that is not there, or slices by what is
            neither a column nor an expression over columns.
    """
    from penstock.components.evaluation.slicing import check_feature, check_value

    legal = list(columns)
    named = (
        ("label", label_columns(config)),
        ("example weight", weight_columns(config)),
        ("query key", query_columns(config)),
        ("metric column", set(read)),
    )
    for role, names in named:
        for name in sorted(names):
            if name not in legal:
                raise DataError(
                    f"The eval_config has the {role} '{name}', which is no column of "
                    f"{subject} (it has {quoted(legal)}).{did_you_mean(name, legal)}"
                )
    for feature in sorted(_slicing_features(config)):
        check_feature(feature, legal, subject)
    for spec in _slicing_specs(config):
        for feature, value in sorted(spec.feature_values.items()):
            check_value(feature, value, legal)


def check_metrics(config: EvalConfig) -> None:
    """Check that every metric exists and can be made from its config.

    Raises:
        PipelineError: If one is unknown, or does not take its config.
    """
    import tf_keras
    from tensorflow_model_analysis import metrics as _registers_them
    from tensorflow_model_analysis.metrics import metric_specs, metric_types

    from penstock.components.evaluation import fairness

    del _registers_them
    fairness.register()
    registered = set(metric_types.registered_metrics())
    in_keras = {
        name
        for name, kind in inspect.getmembers(tf_keras.metrics, inspect.isclass)
        if issubclass(kind, tf_keras.metrics.Metric)
    }
    for spec in config.metrics_specs:
        for metric in spec.metrics:
            name = metric.class_name
            if metric.module and name not in registered:
                _check_module(metric.module, name)
            elif name not in registered | in_keras:
                near = did_you_mean(name, registered | in_keras)
                raise PipelineError(
                    f"The eval_config asks for the metric '{name}', which neither TFMA "
                    f"nor Keras has.{near} For a metric of your own, give its module "
                    "too."
                )
            try:
                metric_specs.metric_instance(metric)
            except Exception as error:
                reason = str(error).splitlines()[0]
                end = "" if reason.endswith((".", "?")) else "."
                raise PipelineError(
                    f"Metric '{name}' cannot be made from its config "
                    f"'{metric.config}': {reason}{end} Mend the config."
                ) from error


def _check_module(module: str, name: str) -> None:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise PipelineError(
            f"The eval_config takes the metric '{name}' from the module '{module}', "
            f"which cannot be imported: {error}. Install it, or mend its name."
        ) from error
    if not hasattr(found, name):
        raise PipelineError(
            f"The eval_config asks for the metric '{name}', which the module "
            f"'{module}' does not have.{did_you_mean(name, vars(found))}"
        )


def prepared(config: EvalConfig, *, has_baseline: bool) -> EvalConfig:
    """Return the config with TFX's defaults, as TFMA runs it.

    The models are named `candidate` and `baseline`; without a baseline, the one model
    has no name, and change thresholds are gone.

    Args:
        config: As the user wrote it, checked.
        has_baseline: Whether there is a baseline.
    """
    from tensorflow_model_analysis.utils import config_util

    ready = _settled(config)
    ready = config_util.update_eval_config_with_defaults(
        ready, has_baseline=has_baseline, rubber_stamp=not has_baseline
    )
    for spec in ready.model_specs:
        # A type and a signature that are given keep TFMA from loading the model with
        # tf_keras to find them out.
        spec.model_type = "tf_generic"
        spec.signature_name = spec.signature_name or "serving_default"
    return ready


def _settled(config: Any) -> Any:
    """Return a copy whose only model has no name, so that TFMA adds the baseline.

    Thresholds of fairness gaps are for all rows, which alone have gaps.
    """
    from penstock.components.evaluation.fairness import CLASS_NAME

    copied = type(config)()
    copied.CopyFrom(config)
    if len(copied.model_specs) == 1:
        copied.model_specs[0].name = ""
    for spec in copied.metrics_specs:
        for metric in spec.metrics:
            if metric.class_name == CLASS_NAME and metric.HasField("threshold"):
                overall = metric.per_slice_thresholds.add(threshold=metric.threshold)
                overall.slicing_specs.add()
                metric.ClearField("threshold")
    return copied


def thresholds(
    ready: EvalConfig,
    confidence: float | Mapping[str, float] | None = None,
    measured: Collection[MetricName] = (),
) -> list[Threshold]:
    """Return what a prepared config asks of the candidate's metrics.

    Args:
        ready: The config.
        confidence: Of the intervals that have to lie within the bounds: of all
            metrics, or by metric name. None where values are compared, as TFMA does.
        measured: Names of what was measured. TFMA measures some aggregated metrics
            under another name than their threshold has, and so never finds them.
    """
    from tensorflow_model_analysis.metrics import metric_specs
    from tensorflow_model_analysis.proto import config_pb2

    baselines = {spec.name for spec in ready.model_specs if spec.is_baseline}
    found = []
    for key, given in metric_specs.metric_thresholds_from_metrics_specs(
        ready.metrics_specs, eval_config=ready
    ).items():
        if key.model_name in baselines:
            continue
        metric = _as_measured(metric_name(key.to_proto()), measured)
        asked = (
            confidence.get(metric.name)
            if isinstance(confidence, Mapping)
            else confidence
        )
        for slicing, threshold in given:
            bound = (
                _value_bound(threshold)
                if isinstance(threshold, config_pb2.GenericValueThreshold)
                else _change_bound(threshold)
            )
            found.append(Threshold(metric, bound, _slices(slicing), asked))
    return found


_MEASURED_AS = {
    "micro average": ("micro average", ""),
    "macro average": ("macro average",),
    "weighted macro average": ("weighted macro average", "macro average"),
}


def _as_measured(name: MetricName, measured: Collection[MetricName]) -> MetricName:
    """Return the name under which an aggregated metric was measured."""
    for aggregation in _MEASURED_AS.get(name.aggregation, ()):
        other = dataclasses.replace(name, aggregation=aggregation)
        if other in measured:
            return other
    return name


def ignored_thresholds(config: EvalConfig) -> list[Threshold]:
    """Return the change thresholds of a config, which count only with a baseline."""
    return [
        each for each in _all_thresholds(config) if isinstance(each.bound, ChangeBound)
    ]


def _all_thresholds(config: EvalConfig) -> list[Threshold]:
    """Return the thresholds of a config as if there were a baseline."""
    from tensorflow_model_analysis.utils import config_util

    return thresholds(
        config_util.update_eval_config_with_defaults(
            _settled(config), has_baseline=True
        )
    )


def check_confidence(
    config: EvalConfig, confidence: float | Mapping[str, float] | None, subject: str
) -> None:
    """Check that a confidence by metric name is of metrics that have a threshold.

    Args:
        config: As the user wrote it, checked.
        confidence: Of all metrics, or by name.
        subject: What it is called in texts: `Evaluator.confidence`.

    Raises:
        PipelineError: If it names another metric.
    """
    if not isinstance(confidence, Mapping):
        return
    legal = {each.metric.name for each in _all_thresholds(config)}
    for name in confidence:
        if name not in legal:
            raise PipelineError(
                f"{subject} has '{name}', which is no metric with a threshold (those "
                f"are {quoted(legal)}).{did_you_mean(name, legal)}"
            )


def metric_name(key: Any) -> MetricName:
    """Return the name that a TFMA MetricKey message stands for."""
    sub_key = ""
    for field, text in (("class_id", "class"), ("k", "k"), ("top_k", "top")):
        if key.HasField("sub_key") and key.sub_key.HasField(field):
            sub_key = f"{text} {getattr(key.sub_key, field).value}"
    aggregation = ""
    for field in ("micro_average", "macro_average", "weighted_macro_average"):
        if key.HasField("aggregation_type") and getattr(key.aggregation_type, field):
            aggregation = field.replace("_", " ")
    return MetricName(
        key.name,
        key.output_name,
        sub_key,
        aggregation,
        key.example_weighted.value if key.HasField("example_weighted") else None,
    )


def _value_bound(threshold: Any) -> ValueBound:
    bound = ValueBound()
    return ValueBound(
        threshold.lower_bound.value
        if threshold.HasField("lower_bound")
        else bound.lower,
        threshold.upper_bound.value
        if threshold.HasField("upper_bound")
        else bound.upper,
    )


def _change_bound(threshold: Any) -> ChangeBound:
    from tensorflow_model_analysis.proto import config_pb2

    return ChangeBound(
        threshold.absolute.value if threshold.HasField("absolute") else None,
        threshold.relative.value if threshold.HasField("relative") else None,
        threshold.direction == config_pb2.MetricDirection.HIGHER_IS_BETTER,
    )


def _slices(spec: Any) -> Slicing | CrossSlicing | None:
    if spec is None:
        return None
    if spec.DESCRIPTOR.name == "CrossSlicingSpec":
        return cross_slicing(spec)
    return _slicing(spec)


def cross_slicing(spec: Any) -> CrossSlicing:
    """Return the comparisons of slices that a CrossSlicingSpec stands for."""
    return CrossSlicing(
        _slicing(spec.baseline_spec), tuple(map(_slicing, spec.slicing_specs))
    )


def _slicing(spec: Any) -> Slicing:
    return Slicing.of(spec.feature_keys, dict(spec.feature_values))
