"""TensorFlow Serving's metrics, under its names and in its buckets, as Prometheus text.

Not by prometheus_client: it appends `_total` to the names of counters, and refuses the
empty label sets and the number format that TensorFlow Serving's exporter has.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

LATENCY_LIMITS = tuple(10.0 * 1.8**power for power in range(33))
"""Upper limits of the buckets of latencies in microseconds; one more is infinite."""

COUNT_LIMITS = tuple(float(2**power) for power in range(15))
"""Upper limits of the buckets of examples per request; one more is infinite."""


class Counter:
    """Counts, by the values of its labels."""

    kind = "counter"

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        """Count nothing yet.

        Args:
            name: Full name, with its leading colon.
            labels: Names of its labels.
        """
        self.name = name
        self._labels = tuple(labels)
        self._cells: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, values: tuple[str, ...], count: int = 1) -> None:
        """Count some more.

        Args:
            values: Values of the labels.
            count: How many more.
        """
        with self._lock:
            self._cells[values] = self._cells.get(values, 0) + count

    def value(self, *values: str) -> int:
        """Return the count at these values of the labels."""
        with self._lock:
            return self._cells.get(values, 0)

    def lines(self) -> list[str]:
        """Return it in Prometheus' text format."""
        with self._lock:
            cells = sorted(self._cells.items())
        return [
            f"# TYPE {self.name} {self.kind}",
            *(
                f"{self.name}{{{_labels(self._labels, values)}}} {count}"
                for values, count in cells
            ),
        ]


class Histogram:
    """Counts values in buckets, by the values of its labels."""

    kind = "histogram"

    def __init__(
        self, name: str, labels: Sequence[str], limits: Sequence[float] = LATENCY_LIMITS
    ) -> None:
        """Count nothing yet.

        Args:
            name: Full name, with its leading colon.
            labels: Names of its labels.
            limits: Upper limits of its buckets but the last, rising.
        """
        self.name = name
        self._labels = tuple(labels)
        self._limits = tuple(limits)
        self._cells: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def observe(self, values: tuple[str, ...], value: float) -> None:
        """Count a value.

        Args:
            values: Values of the labels.
            value: In the unit of the limits.
        """
        # A limit belongs to the bucket above it, in TensorFlow's histograms.
        bucket = bisect.bisect_right(self._limits, value)
        with self._lock:
            cell = self._cells.get(values)
            if cell is None:
                cell = self._cells[values] = ([0] * (len(self._limits) + 1), [0.0])
            cell[0][bucket] += 1
            cell[1][0] += value

    def count(self, *values: str) -> int:
        """Return how many values were counted at these values of the labels."""
        with self._lock:
            cell = self._cells.get(values)
            return sum(cell[0]) if cell else 0

    def lines(self) -> list[str]:
        """Return it in Prometheus' text format."""
        lines = [f"# TYPE {self.name} {self.kind}"]
        with self._lock:
            cells = [
                (values, list(buckets), total[0])
                for values, (buckets, total) in sorted(self._cells.items())
            ]
        for values, buckets, total in cells:
            labels = _labels(self._labels, values)
            separator = "," if labels else ""
            reached = 0
            for limit, count in zip((*self._limits, None), buckets, strict=True):
                reached += count
                le = "+Inf" if limit is None else f"{limit:g}"
                lines.append(
                    f'{self.name}_bucket{{{labels}{separator}le="{le}"}} {reached}'
                )
            lines.append(f"{self.name}_sum{{{labels}}} {total:g}")
            lines.append(f"{self.name}_count{{{labels}}} {reached}")
        return lines


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """All metrics of one server.

    Attributes:
        request_count: Requests, by model and code.
        request_latency: Microseconds of the requests that succeeded.
        runtime_latency: Microseconds that the model itself took.
        example_counts: Examples per request of Classify, Regress and MultiInference.
        example_total: Examples in all.
        warmup_latency: Microseconds of replaying warm-up files.
        warmup_records: Warm-up records read.
        load_attempts: Loads of SavedModels, by folder and outcome.
        load_latency: Microseconds of the loads that succeeded, added up.
    """

    def __init__(self) -> None:
        """Count nothing yet."""
        serving = ":tensorflow:serving:"
        saved_model = ":tensorflow:cc:saved_model:"
        self.request_count = Counter(
            f"{serving}request_count", ("model_name", "status")
        )
        self.request_latency = Histogram(
            f"{serving}request_latency", ("model_name", "API", "entrypoint")
        )
        self.runtime_latency = Histogram(
            f"{serving}runtime_latency", ("model_name", "API", "runtime")
        )
        self.example_counts = Histogram(
            f"{serving}request_example_counts", ("model",), COUNT_LIMITS
        )
        self.example_total = Counter(
            f"{serving}request_example_count_total", ("model",)
        )
        self.warmup_latency = Histogram(
            f"{serving}model_warmup_latency", ("model_path", "status")
        )
        self.warmup_records = Counter(
            f"{serving}model_warmup_records_read", ("model_path", "status")
        )
        self.load_attempts = Counter(
            f"{saved_model}load_attempt_count", ("model_path", "status")
        )
        self.load_latency = Counter(f"{saved_model}load_latency", ("model_path",))

    def page(self) -> str:
        """Return all of them in Prometheus' text format."""
        lines: list[str] = []
        for metric in sorted(vars(self).values(), key=lambda metric: metric.name):
            lines += metric.lines()
        return "\n".join(lines) + "\n"
