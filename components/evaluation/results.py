"""Metrics as TFMA keeps them in files: written in one order, read as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.columns import tfrecord
from penstock.components.evaluation.blessing import (
    Measured,
    MetricName,
    Slice,
    SliceMetrics,
)
from penstock.components.evaluation.eval_config import BASELINE, metric_name

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

CONFIG_FILE = "eval_config.json"
_TOO_SMALL = "__ERROR__"


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


def in_one_order(folder: Path) -> None:
    """Rewrite the records of a result as one file of each kind, sorted by slice.

    Beam leaves them in whatever order its workers were done, in as many files as the
    runner likes.
    """
    import tensorflow as tf
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2 as messages

    kinds = {
        "metrics": messages.MetricsForSlice,
        "plots": messages.PlotsForSlice,
        "attributions": messages.AttributionsForSlice,
    }
    for name, kind in kinds.items():
        files = sorted(folder.glob(f"{name}-*-of-*.tfrecord"))
        found = [kind.FromString(record) for path in files for record in _records(path)]
        found.sort(key=_slice_bytes)
        for path in files:
            path.unlink()
        with tf.io.TFRecordWriter(
            str(folder / f"{name}-00000-of-00001.tfrecord")
        ) as writer:
            for message in found:
                writer.write(message.SerializeToString(deterministic=True))


def _records(path: Path) -> Iterator[bytes]:
    for records in tfrecord.read_records(path, batch_size=1_000):
        yield from records


def _slice_bytes(message: Any) -> tuple[bytes, bytes]:
    return (
        message.cross_slice_key.SerializeToString(deterministic=True),
        message.slice_key.SerializeToString(deterministic=True),
    )


def read(folder: Path) -> list[SliceMetrics]:
    """Return the metrics of a result, slice by slice, all rows first.

    Args:
        folder: Folder of a ModelEvaluation.
    """
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2 as messages

    return [
        _slice_metrics(messages.MetricsForSlice.FromString(record))
        for path in sorted(folder.glob("metrics-*-of-*.tfrecord"))
        for record in _records(path)
    ]


def _slice_metrics(message: Any) -> SliceMetrics:
    metrics: dict[MetricName, Measured] = {}
    for pair in message.metric_keys_and_values:
        name, value = metric_name(pair.key), _number(pair.value)
        before = metrics.get(name, Measured(None))
        if pair.key.is_diff:
            metrics[name] = dataclasses.replace(before, difference=value)
        elif pair.key.model_name == BASELINE:
            metrics[name] = dataclasses.replace(before, baseline=value)
        else:
            metrics[name] = dataclasses.replace(before, value=value)
    if message.WhichOneof("slicing_spec_oneof") == "cross_slice_key":
        crossed = message.cross_slice_key
        return SliceMetrics(
            _slice(crossed.comparison_slice_key.single_slice_keys),
            metrics,
            _slice(crossed.baseline_slice_key.single_slice_keys),
        )
    return SliceMetrics(
        _slice(message.slice_key.single_slice_keys),
        metrics,
        is_too_small=_TOO_SMALL in message.metrics,
    )


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
