"""Prometheus metrics of a router, with the version that TensorFlow Serving's lack.

Nothing is counted in the path of a request: what ended is noted there, and counted by
the thread that reports. Latencies are counted in the sketch; the bounds that Prometheus
sees are some of the sketch's own, so its histogram is exact.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from penstock.components.serving.router import sketch
from penstock.components.serving.router.notes import Note

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STRIDE = 4  # bounds of the histogram are 1.02^4 = 1.082 apart
_FIRST = sketch.bucket_of(1e-3) - 1
BOUNDS = tuple(
    range(_FIRST, sketch.bucket_of(10.0) + _STRIDE, _STRIDE),
)
"""The sketch's buckets whose upper bounds Prometheus sees: below 1 ms to over 10 s."""


@dataclass
class Counts:
    """What a router counted since it began; sums of routers are sums of these.

    Attributes:
        requests: By version, lane and outcome.
        errors: By version, lane, code and origin.
        latencies: Sketch by version and lane.
        seconds: Sum of latencies by version and lane.
        events: All else that is counted, by the name of its metric.
    """

    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    errors: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    latencies: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, note: Note, lane: str) -> None:
        """Count a request that ended."""
        version = str(note.version)
        self.requests[version, lane, note.outcome] += 1
        if note.code:
            self.errors[version, lane, note.code, note.origin] += 1
        if note.outcome == "fell_back":
            self.events["penstock_fallback", version] += 1
        if note.outcome != "client_error":
            key = (version, lane)
            sketch.add(self.latencies.setdefault(key, {}), note.seconds)
            self.seconds[key] = self.seconds.get(key, 0.0) + note.seconds

    def add(self, other: Counts) -> None:
        """Add what another router counted."""
        self.requests.update(other.requests)
        self.errors.update(other.errors)
        self.events.update(other.events)
        for key, counts in other.latencies.items():
            self.latencies[key] = sketch.merged(self.latencies.get(key, {}), counts)
            self.seconds[key] = self.seconds.get(key, 0.0) + other.seconds[key]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "requests": [[*key, n] for key, n in self.requests.items()],
            "errors": [[*key, n] for key, n in self.errors.items()],
            "latencies": [
                [*key, sorted(counts.items()), self.seconds[key]]
                for key, counts in self.latencies.items()
            ],
            "events": [[*key, n] for key, n in self.events.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Counts:
        """Return what `to_json` wrote."""
        made = cls()
        for *key, n in data["requests"]:
            made.requests[tuple(key)] = n
        for *key, n in data["errors"]:
            made.errors[tuple(key)] = n
        for version, lane, counts, seconds in data["latencies"]:
            made.latencies[version, lane] = {bucket: n for bucket, n in counts}
            made.seconds[version, lane] = seconds
        for *key, n in data["events"]:
            made.events[tuple(key)] = n
        return made


@dataclass(frozen=True)
class Gauges:
    """What holds now.

    Attributes:
        weight: Share of units that are sent to the candidate, from 0 to 1.
        step: Step of the rollout; -1 before the first, and without one.
        alarm: Whether everybody is sent to stable whatever the routing says.
        ledger_readable: Whether the ledger can be read.
    """

    weight: float = 0.0
    step: int = -1
    alarm: bool = False
    ledger_readable: bool = True


_EVENTS = {
    "penstock_fallback": ("Answers of stable in place of the candidate.", "version"),
    "penstock_unreported": ("Notes that no report told of, by cause.", "cause"),
    "penstock_shadow": ("Requests shown to a candidate, by what came of it.", "pair"),
    "penstock_request_log": ("Records of the request log, by their end.", "end"),
}


class _Collector:
    def __init__(self, model: str, counts: Counts, gauges: Gauges) -> None:
        self._model = model
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "penstock_requests",
            "Requests that ended, by the version and lane they were sent to.",
            labels=["model", "version", "lane", "outcome"],
        )
        _fill(requests, self._model, self._counts.requests)
        yield requests
        errors = CounterMetricFamily(
            "penstock_errors",
            "Errors that versions answered with, by whose fault they are.",
            labels=["model", "version", "lane", "code", "origin"],
        )
        _fill(errors, self._model, self._counts.errors)
        yield errors
        seconds = HistogramMetricFamily(
            "penstock_request_seconds",
            "How long a version took; without errors that the caller is to blame for.",
            labels=["model", "version", "lane"],
        )
        for key, counts in sorted(self._counts.latencies.items()):
            total = self._counts.seconds[key]
            seconds.add_metric([self._model, *key], _buckets(counts), total)
        yield seconds
        for name, (text, label) in _EVENTS.items():
            family = CounterMetricFamily(name, text, labels=["model", label])
            of_name = {
                (what,): n
                for (each, what), n in self._counts.events.items()
                if each == name
            }
            _fill(family, self._model, of_name)
            yield family
        for name, text, value in (
            (
                "penstock_weight",
                "Share of units sent to the candidate.",
                self._gauges.weight,
            ),
            (
                "penstock_rollout_step",
                "Step of the rollout; -1 without one.",
                self._gauges.step,
            ),
            (
                "penstock_router_alarm",
                "1 while the candidate gets nobody whatever the routing says.",
                self._gauges.alarm,
            ),
            (
                "penstock_ledger_readable",
                "0 while the ledger cannot be read and requests go on as before.",
                self._gauges.ledger_readable,
            ),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            gauge.add_metric([self._model], float(value))
            yield gauge


def _fill(family: CounterMetricFamily, model: str, counts: Mapping[Any, float]) -> None:
    for key, n in sorted(counts.items()):
        family.add_metric([model, *key], n)


def _buckets(counts: Mapping[int, int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    left = sorted(counts.items(), reverse=True)
    total = 0
    for bound in BOUNDS:
        while left and left[-1][0] <= bound:
            total += left.pop()[1]
        found.append((repr(sketch.upper_bound(bound)), total))
    found.append(("+Inf", total + sum(n for _, n in left)))
    return found


def exposition(model: str, counts: Counts, gauges: Gauges) -> bytes:
    """Return metrics as Prometheus reads them (`CONTENT_TYPE`)."""
    registry = CollectorRegistry()
    registry.register(_Collector(model, counts, gauges))
    return generate_latest(registry)


class Shelf:
    """Where the processes of one service leave their counts for one another.

    Whichever of them Prometheus reaches tells of all. What one counted that ended is
    kept; of one that was killed, but for its last second.

    Args:
        folder: A folder of this service alone, made anew with it.
        name: What this process is called.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._mine = folder / f"{name}.json"

    def put(self, counts: Counts) -> None:
        """Leave what this process counted."""
        partial = self._mine.with_suffix(".partial")
        partial.write_text(json.dumps(counts.to_json()), encoding="utf-8")
        os.replace(partial, self._mine)

    def others(self) -> Iterable[Counts]:
        """Return what the other processes counted."""
        for path in sorted(self._folder.glob("*.json")):
            if path != self._mine:
                with contextlib.suppress(FileNotFoundError):
                    yield Counts.from_json(json.loads(path.read_text("utf-8")))
