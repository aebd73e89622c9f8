"""Writes request logs for tests: as the router does, and with times of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.components.serving.messages import (
    PREDICT,
    Message,
    PredictionLog,
    PredictRequest,
    to_tensor,
)
from penstock.components.serving.router.frames import framed

NOON = 1_796_040_000.0
"""2026-11-30, 12:00 UTC."""


def predict_log(
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    time: float = NOON,
    version: int | None = 7,
    lane: str = "stable",
    stratum: str = "ordinary",
    rate: float | None = 1.0,
) -> Message:
    """A record of a Predict call."""
    log = PredictionLog()
    request, response = log.predict_log.request, log.predict_log.response
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(to_tensor(np.asarray(value)))
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(to_tensor(np.asarray(value)))
    return with_metadata(log, time, version, lane, stratum, rate)


def with_metadata(
    log: Message,
    time: float = NOON,
    version: int | None = 7,
    lane: str = "stable",
    stratum: str = "ordinary",
    rate: float | None = 1.0,
) -> Message:
    """Say of a record who answered, and when."""
    metadata = log.log_metadata
    metadata.timestamp_secs = int(time)
    metadata.request_origin = lane
    metadata.request_criticality = stratum
    if version is not None:
        metadata.model_spec.version.value = version
    if rate is not None:
        metadata.sampling_config.sampling_rate = rate
    return log


def write(path: Path, records: Sequence[Message]) -> Path:
    """Write records to a file, as the router frames them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(each.SerializeToString()) for each in records))
    return path


def request(**inputs: Any) -> bytes:
    """A serialized Predict request."""
    made = PredictRequest()
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(to_tensor(np.asarray(value)))
    return made.SerializeToString()


def answer(**outputs: Any) -> bytes:
    """A serialized answer to one."""
    made = PREDICT.response()
    for name, value in outputs.items():
        made.outputs[name].CopyFrom(to_tensor(np.asarray(value)))
    return made.SerializeToString()
