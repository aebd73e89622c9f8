"""The dashboard is what Grafana imports, and each of its queries finds something."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from penstock.components.monitoring.dashboard import UID, dashboard, queries
from penstock.components.monitoring.exporter import METRICS, exposition
from penstock.components.serving.router import sketch
from penstock.components.serving.router.metrics import Counts, Gauges
from penstock.components.serving.router.metrics import exposition as routed
from tests.components.monitoring.documents import alert_document
from tests.components.monitoring.prometheus import Server, prometheus, tool

SOURCE = {"const": {"type": "prometheus", "uid": "${datasource}"}}
TEXT = {"type": "string", "minLength": 1}
PLACE = {
    "type": "object",
    "required": ["x", "y", "w", "h"],
    "properties": {
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "h": {"type": "integer", "minimum": 1},
    },
    "additionalProperties": False,
}
STEPS = {
    "type": "array",
    "minItems": 1,
    "prefixItems": [{"properties": {"value": {"type": "null"}}}],
    "items": {
        "type": "object",
        "required": ["value", "color"],
        "properties": {"value": {"type": ["number", "null"]}, "color": TEXT},
    },
}
TARGET = {
    "type": "object",
    "required": ["refId", "datasource", "expr", "instant", "range", "format"],
    "properties": {
        "refId": {"pattern": "^[A-Z]$"},
        "datasource": SOURCE,
        "expr": TEXT,
        "format": {"enum": ["time_series", "table"]},
    },
}
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "title": TEXT,
        "gridPos": PLACE,
        "type": {"enum": ["row", "timeseries", "stat", "table", "state-timeline"]},
    },
    "if": {"properties": {"type": {"const": "row"}}},
    "then": {"required": ["collapsed", "panels"]},
    "else": {
        "required": ["datasource", "fieldConfig", "options", "targets"],
        "properties": {
            "datasource": SOURCE,
            "targets": {"type": "array", "minItems": 1, "items": TARGET},
            "fieldConfig": {
                "type": "object",
                "required": ["defaults", "overrides"],
                "properties": {
                    "defaults": {
                        "type": "object",
                        "required": ["unit", "thresholds", "mappings", "custom"],
                        "properties": {
                            "thresholds": {
                                "required": ["mode", "steps"],
                                "properties": {"steps": STEPS},
                            }
                        },
                    }
                },
            },
        },
    },
}
VARIABLE = {
    "type": "object",
    "required": ["name", "label", "type", "query", "refresh", "hide"],
    "properties": {
        "name": {"pattern": "^[a-z_]+$"},
        "type": {"enum": ["datasource", "query"]},
    },
    "if": {"properties": {"type": {"const": "query"}}},
    "then": {
        "required": ["datasource", "definition", "includeAll", "multi"],
        "properties": {
            "datasource": SOURCE,
            "query": {"type": "object", "required": ["query", "refId"]},
        },
    },
}
DASHBOARD = {
    "type": "object",
    "required": [
        *("uid", "id", "title", "schemaVersion", "version", "time", "refresh"),
        *("templating", "annotations", "links", "panels"),
    ],
    "properties": {
        "uid": {"pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "id": {"type": "null"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {"type": "array", "minItems": 1, "items": PANEL},
        "templating": {"properties": {"list": {"items": VARIABLE}}},
        "annotations": {
            "properties": {
                "list": {
                    "items": {
                        "type": "object",
                        "required": ["name", "datasource", "expr", "enable"],
                        "properties": {"datasource": SOURCE},
                    }
                }
            }
        },
        "links": {
            "items": {
                "type": "object",
                "required": ["title", "type", "url"],
                "properties": {"type": {"const": "link"}},
            }
        },
    },
}


def test_the_dashboard_is_of_the_classic_form() -> None:
    made = dashboard(report_url="https://reports.example.com/")
    jsonschema.Draft202012Validator(DASHBOARD).validate(made)
    assert json.loads(json.dumps(made)) == made
    assert made["uid"] == UID == "penstock-models"
    assert made["links"][0]["url"] == "https://reports.example.com/"
    assert dashboard()["links"] == []


def test_panels_have_ids_of_their_own_and_lie_beside_one_another() -> None:
    panels = dashboard()["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_every_variable_that_is_used_is_there() -> None:
    made = dashboard()
    names = {each["name"] for each in made["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(made)))
    assert used == names
    model = next(e for e in made["templating"]["list"] if e["name"] == "model")
    assert model["definition"] == "label_values(model_feature_drift, model_name)"
    assert any("$__rate_interval" in query for _, query in queries(made))


def test_no_metric_is_left_out() -> None:
    asked = " ".join(query for _, query in queries(dashboard()))
    known = {
        f"{name}_total" if "retrain" in name else name
        for name in METRICS
        if name
        not in {
            # Ends of an estimate are in the report; the rest are for rules.
            "penstock_model_estimated_metric_ci_lower",
            "penstock_model_estimated_metric_ci_upper",
            "penstock_documents_unreadable",
            "penstock_model_job_duration_seconds",
            "penstock_model_labels_late",
            "penstock_model_slices_hidden",
            "penstock_model_window_end_timestamp_seconds",
        }
    }
    missing = {name for name in known if not re.search(rf"\b{name}\b", asked)}
    assert missing == set()


def samples(at: float, step: int) -> str:
    """Return what penstock exposes in one moment, as OpenMetrics with its time."""
    document = alert_document(features=3)
    document["model_version"] = "7" if step < 20 else "8"
    watched = exposition([document], retrains={("taxi", "drift"): 1 + (step >= 20)})
    counts = Counts()
    answered = 5_000 * (step + 1)
    counts.requests["8", "user", "ok"] = answered
    counts.requests["8", "user", "failed"] = answered // 100
    counts.latencies["8", "user"] = {sketch.bucket_of(0.012): answered}
    counts.seconds["8", "user"] = 0.012 * answered
    lines = (watched + routed("taxi", counts, Gauges())).decode().splitlines()
    told = [f"{line} {at:.0f}" for line in lines if not line.startswith("#")]
    return "\n".join(told) + "\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prometheus that has scraped for the last hours, and some of last week."""
    folder = tmp_path_factory.mktemp("dashboard")
    now = time.time()
    text = "".join(
        samples(begin + 300 * step, step)
        for begin in (now - 7 * 86_400 - 10_800, now - 10_800)
        for step in range(37)
    )
    (folder / "samples").write_text(text + "# EOF\n")
    done = tool(
        *("promtool", "tsdb", "create-blocks-from", "openmetrics"),
        *(folder / "samples", folder / "series"),
    )
    assert done.returncode == 0, done.stderr
    with prometheus(folder, "global: {}\n") as started:
        yield started


def filled(query: str) -> str:
    """Return a query as Grafana asks it, with all of everything chosen."""
    query = query.replace("$__rate_interval", "20m").replace("$__interval", "5m")
    query = query.replace("$model", "taxi")
    return re.sub(r"\$\w+", ".*", query)


QUERIES = queries(dashboard())


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("title", "query"),
    QUERIES,
    ids=[f"{n}-{t[:20]}" for n, (t, _) in enumerate(QUERIES)],
)
def test_every_query_finds_something(server: Server, title: str, query: str) -> None:
    now = time.time()
    answer = server.get(
        "/api/v1/query_range",
        query=filled(query),
        start=f"{now - 7_200:.0f}",
        end=f"{now:.0f}",
        step="300",
    )
    assert answer["data"]["result"], f"'{title}' finds nothing"


@pytest.mark.prometheus
def test_every_variable_finds_something(server: Server) -> None:
    for each in dashboard()["templating"]["list"]:
        if each["type"] != "query":
            continue
        inner = re.fullmatch(r"label_values\((.*), (\w+)\)", each["definition"])
        assert inner
        week = f"{time.time() - 7_200:.0f}"
        answer = server.get(
            f"/api/v1/label/{inner[2]}/values",
            **{"match[]": filled(inner[1]), "start": week},
        )
        assert answer["data"], each["name"]


@pytest.mark.prometheus
def test_training_runs_and_deployments_are_marked_where_they_were(
    server: Server,
) -> None:
    now = time.time()
    for each in dashboard()["annotations"]["list"]:
        answer: Any = server.get(
            "/api/v1/query_range",
            query=filled(each["expr"]),
            start=f"{now - 7_200:.0f}",
            end=f"{now:.0f}",
            step="300",
        )
        (series,) = answer["data"]["result"]
        assert 1 <= len(series["values"]) <= 4, each["name"]
