"""Metrics as TFMA keeps them in files: written in one order, read as plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.columns import tfrecord
from penstock.components.evaluation.blessing import (
    Interval,
    Judgment,
    Measured,
    MetricName,
    Outcome,
    Slice,
    SliceMetrics,
    Word,
)
from penstock.components.evaluation.eval_config import BASELINE, metric_name
from penstock.components.evaluation.measure import Found

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

CONFIG_FILE = "eval_config.json"
VALIDATION_FILE = "validations.tfrecord"
TOO_SMALL = "__ERROR__"


def write_config(
    folder: Path,
    eval_config: EvalConfig,
    data_location: str,
    file_format: str,
    model_locations: Mapping[str, str],
) -> None:
    """Write the file that says what was evaluated, the same bytes every time.

    Args:
        folder: Where the metrics are.
        eval_config: The config as it was run.
        data_location: Where the rows came from, relative to the folder.
        file_format: What their files are.
        model_locations: Where the models are, by name, relative to the folder.
    """
    from google.protobuf import json_format
    from tensorflow_model_analysis import version
    from tensorflow_model_analysis.proto import config_pb2

    run = config_pb2.EvalRun(
        eval_config=eval_config,
        version=version.VERSION,
        data_location=data_location,
        file_format=file_format,
        model_locations=model_locations,
    )
    text = json_format.MessageToJson(run, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def write(
    folder: Path,
    found: Sequence[Found],
    *,
    min_slice_size: int,
    confidence: float,
    others: Path | None = None,
) -> list[SliceMetrics]:
    """Write metrics and plots as TFMA does, one file of each kind, sorted by slice.

    Args:
        folder: Where to write.
        found: What was measured.
        min_slice_size: Slices of fewer rows get TFMA's error instead of metrics.
        confidence: Of the intervals.
        others: Folder of a result of TFMA's own for the same slices, whose metrics
            are added.

    Returns:
        All metrics, also the others', slice by slice, all rows first.
    """
    import tensorflow as tf
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2 as messages

    kinds = {
        "metrics": messages.MetricsForSlice,
        "plots": messages.PlotsForSlice,
        "attributions": messages.AttributionsForSlice,
    }
    ours: dict[str, list[Any]] = {
        "metrics": [_metrics(each, min_slice_size) for each in found],
        "plots": [each for each in map(_plots, found) if each is not None],
        "attributions": [],
    }
    of_slice = {
        _slice_bytes(message): each
        for message, each in zip(ours["metrics"], found, strict=True)
    }
    measured: list[SliceMetrics] = []
    for name, kind in kinds.items():
        by_slice = {_slice_bytes(each): each for each in ours[name]}
        for path in sorted(others.glob(f"{name}-*-of-*.tfrecord")) if others else ():
            for record in _records(path):
                _merge(by_slice, kind.FromString(record))
        path = folder / f"{name}-00000-of-00001.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for key, message in sorted(by_slice.items()):
                writer.write(message.SerializeToString(deterministic=True))
                if name == "metrics":
                    measured.append(
                        _slice_metrics(message, confidence, of_slice.get(key))
                    )
    return measured


def write_validation(
    folder: Path, judgment: Judgment, eval_config: EvalConfig, *, is_alone: bool
) -> None:
    """Write the verdict as `tfma.load_validation_result` reads it.

    Args:
        folder: Where to write.
        judgment: The verdict; what is blessed is valid.
        eval_config: The config as it was run.
        is_alone: Whether there was no baseline.
    """
    import tensorflow as tf
    from tensorflow_model_analysis.metrics import metric_specs
    from tensorflow_model_analysis.proto import validation_result_pb2 as messages
    from tensorflow_model_analysis.slicer import slicer_lib

    keys = {
        metric_name(key.to_proto()): key.to_proto()
        for key in metric_specs.metric_thresholds_from_metrics_specs(
            eval_config.metrics_specs, eval_config=eval_config
        )
    }
    result = messages.ValidationResult(
        validation_ok=judgment.blessed,
        missing_thresholds=judgment.word is Word.NO_THRESHOLDS,
        rubber_stamp=is_alone,
    )
    by_slice: dict[Any, Any] = {}
    for each in judgment.findings:
        if each.outcome not in (Outcome.FAILED, Outcome.INCONCLUSIVE):
            continue
        place = each.slice or (), each.baseline_slice
        if place not in by_slice:
            by_slice[place] = result.metric_validations_per_slice.add()
            if place[1] is None:
                by_slice[place].slice_key.CopyFrom(
                    slicer_lib.serialize_slice_key(place[0])
                )
            else:
                by_slice[place].cross_slice_key.CopyFrom(
                    slicer_lib.serialize_cross_slice_key((place[1], place[0]))
                )
        failure = by_slice[place].failures.add(message=each.sentence)
        if each.metric in keys:
            failure.metric_key.CopyFrom(keys[each.metric])
        if each.value is not None:
            failure.metric_value.double_value.value = each.value
    with tf.io.TFRecordWriter(str(folder / VALIDATION_FILE)) as writer:
        writer.write(result.SerializeToString(deterministic=True))


def _merge(by_slice: dict[tuple[bytes, bytes], Any], message: Any) -> None:
    """Add what TFMA measured in a slice, unless the slice is too small."""
    key = _slice_bytes(message)
    mine = by_slice.get(key)
    if mine is None:
        by_slice[key] = message
    elif not (hasattr(mine, "metrics") and TOO_SMALL in mine.metrics):
        message.ClearField("slice_key")
        message.ClearField("cross_slice_key")
        mine.MergeFrom(message)


def _metrics(each: Found, min_slice_size: int) -> Any:
    """Return the message of one slice, with confidence intervals."""
    from tensorflow_model_analysis.metrics import metric_types
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2 as messages
    from tensorflow_model_analysis.writers import (
        metrics_plots_and_validations_writer as writer,
    )

    values: dict[Any, Any] = {
        key: value
        for key, value in each.values.items()
        if not isinstance(key, metric_types.PlotKey)
    }
    if each.rows < min_slice_size and each.baseline_slice is None:
        values = {
            TOO_SMALL: f"The slice has {each.rows:,} rows, fewer than "
            f"{min_slice_size:,}, the min_slice_size."
        }
    message = writer.convert_slice_metrics_to_proto((_key(each), values), None)
    for pair in message.metric_keys_and_values:
        spread = each.spreads.get(metric_types.MetricKey.from_proto(pair.key))
        if spread is not None:
            convert = writer.convert_metric_value_to_proto
            pair.confidence_interval.CopyFrom(
                messages.ConfidenceInterval(
                    lower_bound=convert(_plain(spread.lower)),
                    upper_bound=convert(_plain(spread.upper)),
                )
            )
            if math.isfinite(spread.degrees):
                pair.confidence_interval.degrees_of_freedom.value = int(spread.degrees)
    return message


def _plain(value: Any) -> Any:
    return value if value.ndim else float(value)


def _plots(each: Found) -> Any:
    """Return the message of the plots of one slice; None if it has none."""
    from tensorflow_model_analysis.metrics import metric_types
    from tensorflow_model_analysis.writers import (
        metrics_plots_and_validations_writer as writer,
    )

    values = {
        key: value
        for key, value in each.values.items()
        if isinstance(key, metric_types.PlotKey)
    }
    if not values:
        return None
    return writer.convert_slice_plots_to_proto((_key(each), values), None)


def _key(each: Found) -> Any:
    """Return TFMA's key of a slice, or of a comparison of two."""
    if each.baseline_slice is None:
        return each.slice
    return each.baseline_slice, each.slice


def _records(path: Path) -> Iterator[bytes]:
    for records in tfrecord.read_records(path, batch_size=1_000):
        yield from records


def _slice_bytes(message: Any) -> tuple[bytes, bytes]:
    return (
        message.cross_slice_key.SerializeToString(deterministic=True),
        message.slice_key.SerializeToString(deterministic=True),
    )


def read(folder: Path, *, confidence: float = 0.95) -> list[SliceMetrics]:
    """Return the metrics of a result, slice by slice, all rows first.

    Args:
        folder: Folder of a ModelEvaluation.
        confidence: Of the intervals in it, which TFMA's files do not say.
    """
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2 as messages

    return [
        _slice_metrics(messages.MetricsForSlice.FromString(record), confidence)
        for path in sorted(folder.glob("metrics-*-of-*.tfrecord"))
        for record in _records(path)
    ]


def _slice_metrics(
    message: Any, confidence: float, found: Found | None = None
) -> SliceMetrics:
    """Return the metrics of a message; what it does not say is taken from `found`."""
    from tensorflow_model_analysis.metrics.metric_types import MetricKey

    rows = found.rows if found else None
    metrics: dict[MetricName, Measured] = {}
    for pair in message.metric_keys_and_values:
        name, value = metric_name(pair.key), _number(pair.value)
        interval = _interval(pair, confidence)
        if interval and found:
            spread = found.spreads.get(MetricKey.from_proto(pair.key))
            method = spread.method if spread else "TFMA"
            interval = dataclasses.replace(interval, method=method)
        before = metrics.get(name, Measured(None))
        if pair.key.is_diff:
            after = dataclasses.replace(
                before, difference=value, difference_interval=interval
            )
        elif pair.key.model_name == BASELINE:
            after = dataclasses.replace(
                before, baseline=value, baseline_interval=interval
            )
        else:
            after = dataclasses.replace(before, value=value, interval=interval)
        metrics[name] = after
    if message.WhichOneof("slicing_spec_oneof") == "cross_slice_key":
        crossed = message.cross_slice_key
        return SliceMetrics(
            _slice(crossed.comparison_slice_key.single_slice_keys),
            metrics,
            _slice(crossed.baseline_slice_key.single_slice_keys),
            rows=rows,
        )
    return SliceMetrics(
        _slice(message.slice_key.single_slice_keys),
        metrics,
        is_too_small=TOO_SMALL in message.metrics,
        rows=rows,
    )


def _interval(pair: Any, confidence: float) -> Interval | None:
    """Return the confidence interval of a number; None if it has none."""
    if not pair.HasField("confidence_interval"):
        return None
    found = pair.confidence_interval
    lower, upper = _number(found.lower_bound), _number(found.upper_bound)
    if lower is None or upper is None:
        return None
    degrees = math.inf
    if found.HasField("degrees_of_freedom"):
        degrees = float(found.degrees_of_freedom.value)
    return Interval(lower, upper, confidence, degrees)


def _slice(keys: Iterable[Any]) -> Slice:
    found = []
    for key in keys:
        kind = key.WhichOneof("kind")
        value = getattr(key, kind)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        found.append((key.column, value))
    return tuple(found)


def _number(value: Any) -> float | None:
    """Return a metric value as a number, if it is one."""
    if value.WhichOneof("type") == "double_value":
        return float(value.double_value.value)
    if value.WhichOneof("type") == "array_value":
        array = value.array_value
        numbers = [
            *array.float32_values,
            *array.float64_values,
            *array.int32_values,
            *array.int64_values,
        ]
        if len(numbers) == 1:
            return float(numbers[0])
    return None
