"""Conformance: metrics, their names, labels, buckets and text.

Every case names what it mirrors in TensorFlow Serving. Those over the wire run against
our server and, where it is on PATH, against tensorflow_model_server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.components.serving.model_server.metrics import (
    LATENCY_LIMITS,
    Counter,
    Histogram,
)
from tests.components.serving.model_server.models import (
    config,
    predict_log,
    predict_request,
    write_warmup,
)
from tests.components.serving.model_server.under_test import Starter, refused

Save = Callable[[int], Path]


def value(page: str, name: str, **labels: str) -> float | None:
    """Return a sample of a page for Prometheus."""
    inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
    found = re.search(
        rf"^{re.escape(name)}\{{{re.escape(inside)}\}} (\S+)$", page, re.M
    )
    return float(found[1]) if found else None


# --- the text


def test_counter() -> None:
    """prometheus_exporter_test.cc Counter"""
    counter = Counter(":test:path:total", ("name",))
    counter.add(("abc",), 2)
    assert counter.lines() == [
        "# TYPE :test:path:total counter",
        ':test:path:total{name="abc"} 2',
    ]


def test_histogram() -> None:
    """prometheus_exporter_test.cc Histogram"""
    limits = [2.0**power for power in range(10)]
    histogram = Histogram(":test:path:histogram", ("status",), limits)
    for number in (2, 20, 200):
        histogram.observe(("good",), number)
    counts = [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert histogram.lines() == [
        "# TYPE :test:path:histogram histogram",
        *(
            f':test:path:histogram_bucket{{status="good",le="{limit:g}"}} {count}'
            for limit, count in zip(limits, counts, strict=True)
        ),
        ':test:path:histogram_bucket{status="good",le="+Inf"} 3',
        ':test:path:histogram_sum{status="good"} 222',
        ':test:path:histogram_count{status="good"} 3',
    ]


def test_sanitize_label_value() -> None:
    """prometheus_exporter_test.cc SanitizeLabelValue"""
    counter = Counter(":test:path:total", ("name",))
    counter.add(('"abc\\"',), 2)
    assert counter.lines()[1] == r':test:path:total{name="\"abc\\\""} 2'


def test_several_labels() -> None:
    """prometheus_exporter_test.cc Gauge (two labels)"""
    counter = Counter(":test:path:total", ("x", "y"))
    counter.add(("abc", "def"), 5)
    assert counter.lines()[1] == ':test:path:total{x="abc",y="def"} 5'


def test_buckets_of_latency() -> None:
    """util.cc request_latency (Buckets::Exponential(10, 1.8, 33))"""
    assert len(LATENCY_LIMITS) == 33
    assert LATENCY_LIMITS[0] == 10
    assert LATENCY_LIMITS[1] == pytest.approx(18)
    # About twenty minutes, as the comment there says.
    assert 20 * 60e6 < LATENCY_LIMITS[-1] < 30 * 60e6


# --- over the wire


def test_requests_are_counted_by_model_and_code(
    start: Starter, base: Path, save: Save
) -> None:
    """util.cc RecordModelRequestCount and prediction_service_impl.cc"""
    save(1)
    server = start(config(m=base))
    for _ in range(3):
        server.client.predict(predict_request(model="m"))
    refused(lambda: server.client.predict(predict_request(model="m", signature="s")))
    refused(lambda: server.client.predict(predict_request(model="m", outputs=["z"])))
    refused(lambda: server.client.predict(predict_request(model="other")))
    page = server.metrics()
    name = ":tensorflow:serving:request_count"
    assert f"# TYPE {name} counter" in page
    assert value(page, name, model_name="m", status="OK") == 3
    assert value(page, name, model_name="m", status="FAILED_PRECONDITION") == 1
    assert value(page, name, model_name="m", status="INVALID_ARGUMENT") == 1
    assert value(page, name, model_name="other", status="NOT_FOUND") == 1
    assert "version=" not in page


def test_latency_is_of_requests_that_succeed(
    start: Starter, base: Path, save: Save
) -> None:
    """prediction_service_impl.cc Predict (RecordRequestLatency if ok)"""
    save(1)
    server = start(config(m=base))
    for _ in range(3):
        server.client.predict(predict_request(model="m"))
    for _ in range(5):
        refused(lambda: server.client.predict(predict_request(model="m", outputs="z")))
    page = server.metrics()
    labels = {"model_name": "m", "API": "Predict", "entrypoint": "GRPC"}
    name = ":tensorflow:serving:request_latency"
    assert f"# TYPE {name} histogram" in page
    assert value(page, f"{name}_count", **labels) == 3
    assert value(page, f"{name}_bucket", **labels, le="+Inf") == 3
    total = value(page, f"{name}_sum", **labels)
    assert total is not None and 0 < total < 60e6  # microseconds
    limits = re.findall(rf'{name}_bucket\{{[^}}]*"GRPC",le="([^"]+)"\}}', page)
    assert len(limits) == 34
    assert limits[:4] == ["10", "18", "32.4", "58.32"]


def test_rest_has_its_own_labels(start: Starter, base: Path, save: Save) -> None:
    """http_server.cc ProcessRequest (API is the method, entrypoint REST)"""
    save(1)
    server = start(config(m=base))
    server.rest.post("/v1/models/m:predict", json={"instances": [1.0]})
    server.rest.post("/v1/models/m:predict", json={"instances": ["a"]})
    page = server.metrics()
    name = ":tensorflow:serving:request_latency_count"
    labels = {"model_name": "m", "API": "predict", "entrypoint": "REST"}
    assert value(page, name, **labels) == 1
    name = ":tensorflow:serving:request_count"
    assert value(page, name, model_name="m", status="INVALID_ARGUMENT") == 1


def test_runtime_latency(start: Starter, base: Path, save: Save) -> None:
    """util.cc runtime_latency (TF1)"""
    save(1)
    server = start(config(m=base))
    server.client.predict(predict_request(model="m"))
    labels = {"model_name": "m", "API": "Predict", "runtime": "TF1"}
    name = ":tensorflow:serving:runtime_latency_count"
    assert value(server.metrics(), name, **labels) == 1


def test_examples_are_counted(start: Starter, base: Path, save: Save) -> None:
    """util.cc RecordRequestExampleCount"""
    save(1)
    server = start(config(m=base))
    server.client.regress("m", "regress", 1.0, 2.0, 3.0)
    server.client.regress("m", "regress", 1.0)
    page = server.metrics()
    name = ":tensorflow:serving:request_example_count_total"
    assert value(page, name, model="m") == 4
    name = ":tensorflow:serving:request_example_counts_bucket"
    # A bucket ends before its limit: 3 is in the one that ends at 4, 1 at 2.
    assert [value(page, name, model="m", le=le) for le in ("1", "2", "4")] == [0, 1, 2]
    assert len(re.findall(name, page)) == 16


def test_loads_are_counted_by_folder(start: Starter, base: Path, save: Save) -> None:
    """loader.cc load_attempt_count, load_latency"""
    save(1)
    server = start(config(m=base))
    page = server.metrics()
    path = str(base / "1")
    saved_model = ":tensorflow:cc:saved_model:"
    name = f"{saved_model}load_attempt_count"
    assert value(page, name, model_path=path, status="success") == 1
    latency = value(page, f"{saved_model}load_latency", model_path=path)
    assert latency is not None and latency > 0


def test_warmups_are_counted_by_folder(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util.cc model_warmup_latency"""
    folder = save(1)
    write_warmup(folder, [predict_log()] * 5)
    page = start(config(m=base)).metrics()
    name = ":tensorflow:serving:model_warmup_latency_count"
    assert value(page, name, model_path=str(folder), status="OK") == 1


def test_metrics_are_off_by_default(start: Starter, base: Path, save: Save) -> None:
    """http_server.cc CreateAndStartHttpServer (prometheus_config.enable)"""
    save(1)
    server = start(config(m=base), monitoring_config_file="")
    assert server.rest.get("/monitoring/prometheus/metrics").status_code == 404
    assert server.rest.get("/v1/models/m").status_code == 200


def test_metrics_have_the_path_of_the_config(
    start: Starter, base: Path, save: Save, tmp_path: Path
) -> None:
    """monitoring_config.proto prometheus_config.path"""
    save(1)
    path = tmp_path / "other.config"
    path.write_text('prometheus_config { enable: true path: "/metrics" }')
    server = start(config(m=base), monitoring_config_file=str(path))
    found = server.rest.get("/metrics")
    assert found.status_code == 200
    assert found.headers["content-type"].startswith("text/plain")
    assert ":tensorflow:cc:saved_model:load_attempt_count{" in found.text
