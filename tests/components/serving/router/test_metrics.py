from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from penstock.components.serving.router import sketch
from penstock.components.serving.router.metrics import (
    BOUNDS,
    Counts,
    Gauges,
    Shelf,
    exposition,
)
from penstock.components.serving.router.notes import Note
from penstock.components.serving.routing import Routing


def note(**fields: Any) -> Note:
    return Note(
        **{
            "routing": Routing(),
            "counts": True,
            "arm": "stable",
            "version": 3,
            "unit": "user",
            "outcome": "ok",
            "seconds": 0.02,
            **fields,
        }
    )


def samples(counts: Counts, gauges: Gauges | None = None) -> dict[Any, float]:
    text = exposition("ranker", counts, gauges or Gauges()).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_version_lane_and_outcome() -> None:
    counts = Counts()
    counts.count(note(), "stable")
    counts.count(note(), "stable")
    counts.count(note(version=4, outcome="fell_back", code="INTERNAL"), "candidate")
    counts.count(
        note(outcome="client_error", code="OUT_OF_RANGE", origin="client"), "stable"
    )
    found = samples(counts, Gauges(0.2, 1, True, False))
    model = ("model", "ranker")

    def of(name: str, **labels: str) -> float:
        key = (name, *sorted([model, *labels.items()]))
        return found[key]

    stable = {"version": "3", "lane": "stable"}
    candidate = {"version": "4", "lane": "candidate"}
    assert of("penstock_requests_total", outcome="ok", **stable) == 2
    assert of("penstock_requests_total", outcome="client_error", **stable) == 1
    assert of("penstock_requests_total", outcome="fell_back", **candidate) == 1
    assert (
        of("penstock_errors_total", code="INTERNAL", origin="server", **candidate) == 1
    )
    assert (
        of("penstock_errors_total", code="OUT_OF_RANGE", origin="client", **stable) == 1
    )
    assert of("penstock_fallback_total", version="4") == 1
    assert of("penstock_request_seconds_count", **stable) == 2
    assert of("penstock_request_seconds_sum", **stable) == pytest.approx(0.04)
    assert of("penstock_weight") == 0.2
    assert of("penstock_rollout_step") == 1
    assert of("penstock_router_alarm") == 1
    assert of("penstock_ledger_readable") == 0


def test_buckets_are_close_together_from_1_ms_to_10_s() -> None:
    bounds = np.array([sketch.upper_bound(bound) for bound in BOUNDS])
    assert (bounds[1:] / bounds[:-1]).max() <= 1.1
    assert bounds[0] <= 1e-3
    assert bounds[-1] >= 10.0


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=50))
def test_the_histogram_is_exact(latencies: list[float]) -> None:
    counts = Counts()
    for seconds in latencies:
        counts.count(note(seconds=seconds), "stable")
    rows = {
        dict(key[1:])["le"]: value
        for key, value in samples(counts).items()
        if key[0] == "penstock_request_seconds_bucket"
    }
    for bound in BOUNDS:
        border = sketch.upper_bound(bound)
        wanted = sum(sketch.bucket_of(each) <= bound for each in latencies)
        assert rows[repr(border)] == wanted
    assert rows["+Inf"] == len(latencies)


def test_counts_of_processes_add_up_and_stay_after_one_ended(tmp_path: Path) -> None:
    def some(version: int) -> Counts:
        counts = Counts()
        counts.count(note(version=version), "stable")
        counts.count(note(code="INTERNAL", outcome="failed"), "stable")
        counts.events["penstock_shadow", "equal"] += 2
        return counts

    one, two = Shelf(tmp_path, "one"), Shelf(tmp_path, "two")
    one.put(some(3))
    two.put(some(4))
    total = some(3)
    for other in one.others():
        total.add(other)
    expected = some(3)
    expected.add(some(4))
    assert total == expected
    assert total.requests["3", "stable", "failed"] == 2
    assert total.events["penstock_shadow", "equal"] == 4
    assert total.seconds["3", "stable"] == pytest.approx(0.06)
    back = Counts.from_json(json.loads(json.dumps(total.to_json())))
    assert back == total
