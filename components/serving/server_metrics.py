"""What a server holds, as its metrics tell: nothing else lists its models."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
from dataclasses import dataclass

from penstock.schemas.errors import ServingError

METRICS_PATH = "/monitoring/prometheus/metrics"
"""Where TensorFlow Serving shows its metrics, unless its configuration says another."""

_MAX_BYTES = 64 << 20
_NAME = re.compile(
    r'^:tensorflow:serving:request_count\{(?:.*,)?model_name="((?:[^"\\]|\\.)*)"', re.M
)
_PATH = re.compile(
    r'^:tensorflow:cc:saved_model:load_attempt_count\{(?:.*,)?model_path="((?:[^"\\]|\\.)*)"',
    re.M,
)


@dataclass(frozen=True)
class Seen:
    """What a server was asked for and has loaded since it was started.

    Attributes:
        names: Names that requests named, whether there was such a model or not.
        base_paths: Folders whose versions it tried to load, unloaded since or not.
    """

    names: frozenset[str]
    base_paths: frozenset[str]


def read_metrics(rest_address: str, seconds: float) -> Seen:
    """Return what the metrics of a server name.

    Args:
        rest_address: 'host:port' of its REST side.
        seconds: How long it may take.

    Raises:
        ServingError: There are no metrics at that address.
    """
    subject = f"The metrics of the model server at '{rest_address}'"
    cure = (
        "Start the server with --rest_api_port and --monitoring_config_file, or pass "
        "no REST address: then nobody looks whether it holds models of others."
    )
    try:
        with contextlib.closing(
            http.client.HTTPConnection(rest_address, timeout=seconds)
        ) as connection:
            connection.request("GET", METRICS_PATH)
            response = connection.getresponse()
            content = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ServingError(f"{subject} cannot be read: {why}. {cure}") from error
    if response.status != 200:
        raise ServingError(
            f"{subject} cannot be read: '{METRICS_PATH}' gives status "
            f"{response.status}. {cure}"
        )
    return parse_metrics(content.decode("utf-8", "replace"))


def parse_metrics(text: str) -> Seen:
    """Return what metrics in Prometheus' text format name."""
    return Seen(
        frozenset(map(_unescaped, _NAME.findall(text))),
        # A path ends with the folder of the version.
        frozenset(
            os.path.dirname(_unescaped(path).rstrip("/"))
            for path in _PATH.findall(text)
        ),
    )


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)
