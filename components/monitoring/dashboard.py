"""A Grafana dashboard of watched models: classic JSON, which every Grafana imports.

It names no data source and no model: both are chosen on the page. Every query is of a
metric that penstock exports, and the tests run each of them against a Prometheus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UID = "penstock-models"
SCHEMA_VERSION = 39
"""Of Grafana 11; newer ones migrate it when they load it."""

Panel = dict[str, Any]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24

_MODEL = 'model_name=~"$model"'
_SERVED = 'model=~"$served"'
_FEATURE = f'{_MODEL},feature=~"$feature"'
_DRIFT = f'{_FEATURE},drift_type=~"$drift_type"'

_STATES = (
    ("ok", 0, "green"),
    ("watch", 1, "yellow"),
    ("alert", 2, "red"),
    ("insufficient_data", 3, "blue"),
)


def dashboard(*, report_url: str = "") -> dict[str, Any]:
    """Return the dashboard, as data for a JSON file.

    Args:
        report_url: Where the HTML reports of windows are, linked from the top; empty
            for nowhere.
    """
    links = [
        {
            "title": "Report",
            "type": "link",
            "icon": "doc",
            "url": report_url,
            "targetBlank": True,
            "includeVars": False,
            "keepTime": False,
            "asDropdown": False,
            "tags": [],
            "tooltip": "The report of the newest windows",
        }
    ]
    return {
        "uid": UID,
        "id": None,
        "title": "penstock: watched models",
        "tags": ["penstock"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-14d", "to": "now"},
        "timezone": "utc",
        "templating": {"list": _variables()},
        "annotations": {"list": _annotations()},
        "links": links if report_url else [],
        "panels": _laid_out(_rows()),
    }


def queries(made: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every query of a dashboard with the title of what asks it."""
    found = [
        (panel["title"], target["expr"])
        for panel in made["panels"]
        for target in panel.get("targets", ())
    ]
    found += [
        (each["name"], each["expr"])
        for each in made["annotations"]["list"]
        if "expr" in each
    ]
    return found


# --- variables and annotations


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
    }
    return [
        source,
        _variable(
            "model",
            "Model",
            "label_values(model_feature_drift, model_name)",
            multi=False,
        ),
        _variable(
            "feature",
            "Feature",
            'label_values(model_feature_drift{model_name=~"$model"}, feature)',
        ),
        _variable(
            "drift_type",
            "Drift type",
            'label_values(model_feature_drift{model_name=~"$model"}, drift_type)',
        ),
        _variable(
            "served", "Served as", "label_values(penstock_requests_total, model)"
        ),
    ]


def _variable(
    name: str, label: str, query: str, *, multi: bool = True
) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "current": {"text": "All", "value": "$__all"} if multi else {},
        "hide": 0,
        "includeAll": multi,
        "allValue": ".*" if multi else None,
        "multi": multi,
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }


def _annotations() -> list[dict[str, Any]]:
    of_version = "count by (model_name, model_version) (penstock_model_build_info"
    return [
        {
            "name": "Deployments",
            "datasource": _SOURCE,
            "enable": True,
            "hide": False,
            "iconColor": "blue",
            # A version that answers now, and did not one step ago.
            "expr": f"{of_version}{{{_MODEL}}})\nunless\n"
            f"{of_version}{{{_MODEL}}} offset $__interval)",
            "step": "5m",
            "titleFormat": "{{model_name}}: version {{model_version}}",
            "textFormat": "",
            "tagKeys": "model_version",
            "useValueForTime": False,
        },
        {
            "name": "Training runs",
            "datasource": _SOURCE,
            "enable": True,
            "hide": False,
            "iconColor": "purple",
            "expr": "sum by (model_name, reason) (increase("
            f"penstock_model_retrain_triggered_total{{{_MODEL}}}[$__rate_interval]))"
            " > 0",
            "step": "5m",
            "titleFormat": "{{model_name}}: trained again",
            "textFormat": "{{reason}}",
            "tagKeys": "reason",
            "useValueForTime": False,
        },
    ]


# --- panels


def _rows() -> list[tuple[str, list[tuple[int, int, Panel]]]]:
    """Return rows of panels with their widths and heights."""
    return [
        ("What it comes to", _verdict_panels()),
        ("Drift", _drift_panels()),
        ("Quality", _quality_panels()),
        ("Requests", _serving_panels()),
        ("Who watches", _job_panels()),
    ]


def _verdict_panels() -> list[tuple[int, int, Panel]]:
    number = " or ".join(
        f'max by (monitor) (penstock_model_state{{{_MODEL},state="{state}"}} == 1) * '
        f"{value}"
        for state, value, _ in _STATES
    )
    mapped = {
        str(value): {"text": state.replace("_", " "), "color": color, "index": value}
        for state, value, color in _STATES
    }
    state = _panel("State", "state-timeline", [(number, "{{monitor}}")])
    state["fieldConfig"]["defaults"]["mappings"] = [
        {"type": "value", "options": mapped}
    ]
    state["options"] = {"showValue": "auto", "mergeValues": True, "rowHeight": 0.8}
    return [
        (12, 6, state),
        (
            4,
            6,
            _stat(
                "Features in alert",
                f'max(penstock_model_features{{{_MODEL},state="alert"}})',
                steps=((None, "green"), (1, "red")),
            ),
        ),
        (
            4,
            6,
            _stat(
                "Furthest drift (1 counts)",
                f"max(penstock_model_feature_drift_threshold_ratio{{{_MODEL}}})",
                steps=((None, "green"), (0.7, "yellow"), (1, "red")),
                decimals=2,
            ),
        ),
        (
            4,
            6,
            _stat(
                "Slices in alert",
                f"sum(penstock_model_evaluation_alert{{{_MODEL}}})",
                steps=((None, "green"), (1, "red")),
            ),
        ),
    ]


def _drift_panels() -> list[tuple[int, int, Panel]]:
    ratio = f"penstock_model_feature_drift_threshold_ratio{{{_DRIFT}}}"
    ranked = _panel(
        "Drift by the least that counts, the ten furthest",
        "timeseries",
        [
            (
                f'topk(10, max by (feature) ({ratio[:-1]},feature!="__max__"}}))',
                "{{feature}}",
            )
        ],
        steps=((None, "transparent"), (1, "red")),
    )
    ranked["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] = {"mode": "line"}
    return [
        (12, 9, ranked),
        (
            12,
            9,
            _panel(
                "Values of drift types (of different kinds)",
                "timeseries",
                [
                    (
                        "max by (feature, drift_type) (model_feature_drift"
                        f"{{{_DRIFT}}})",
                        "{{feature}} {{drift_type}}",
                    )
                ],
            ),
        ),
        (
            12,
            8,
            _panel(
                "Missing values",
                "timeseries",
                [
                    (
                        "max by (feature) (penstock_model_feature_missing_ratio"
                        f"{{{_FEATURE}}})",
                        "{{feature}}",
                    )
                ],
                unit="percentunit",
            ),
        ),
        (
            6,
            8,
            _panel(
                "Where drift counts",
                "table",
                [
                    (
                        "max by (feature, drift_type, severity) ("
                        f"penstock_model_feature_drift_threshold{{{_DRIFT}}})",
                        "",
                    )
                ],
                instant=True,
            ),
        ),
        (
            6,
            8,
            _panel(
                "Features by state",
                "timeseries",
                [
                    (
                        f"max by (state) (penstock_model_features{{{_MODEL}}})",
                        "{{state}}",
                    ),
                    (
                        f"max(penstock_model_features_hidden{{{_MODEL}}})",
                        "without series",
                    ),
                ],
            ),
        ),
        (
            12,
            6,
            _panel(
                "Training against serving: rows that differ",
                "timeseries",
                [
                    (
                        f"max by (feature) (penstock_model_skew_ratio{{{_FEATURE}}})",
                        "{{feature}}",
                    )
                ],
                unit="percentunit",
            ),
        ),
        (
            12,
            6,
            _panel(
                "Window against reference, as a classifier tells them (AUC)",
                "timeseries",
                [(f"max(penstock_model_multivariate_auc{{{_MODEL}}})", "AUC")],
            ),
        ),
    ]


def _quality_panels() -> list[tuple[int, int, Panel]]:
    metric = "penstock_model_evaluation_metric"
    overall = f'{{{_MODEL},slice="overall"}}'
    estimated = f"penstock_model_estimated_metric{{{_MODEL}}}"
    return [
        (
            12,
            9,
            _panel(
                "Metrics of all rows, with their intervals",
                "timeseries",
                [
                    (f"max by (metric) ({metric}{overall})", "{{metric}}"),
                    (
                        f"max by (metric) ({metric}_ci_lower{overall})",
                        "{{metric}} from",
                    ),
                    (f"max by (metric) ({metric}_ci_upper{overall})", "{{metric}} to"),
                    (
                        f"max by (metric, slice, method) ({estimated})",
                        "{{metric}} estimated ({{method}}) {{slice}}",
                    ),
                ],
                decimals=3,
            ),
        ),
        (
            12,
            9,
            _panel(
                "Metrics by slice",
                "timeseries",
                [
                    (
                        f"max by (metric, slice) ({metric}{{{_MODEL}}})",
                        "{{metric}} {{slice}}",
                    )
                ],
                decimals=3,
            ),
        ),
        (
            8,
            6,
            _panel(
                "Rows by slice",
                "timeseries",
                [
                    (
                        "max by (metric, slice) (penstock_model_evaluation_rows"
                        f"{{{_MODEL}}})",
                        "{{metric}} {{slice}}",
                    )
                ],
            ),
        ),
        (
            8,
            6,
            _panel(
                "Labels that have come",
                "timeseries",
                [(f"max(penstock_model_labels_joined_ratio{{{_MODEL}}})", "joined")],
                unit="percentunit",
            ),
        ),
        (
            8,
            6,
            _panel(
                "Detectors of concept drift that say so",
                "timeseries",
                [
                    (
                        "max by (detector, state) (penstock_model_concept_state"
                        f'{{{_MODEL},state!="ok"}})',
                        "{{detector}} {{state}}",
                    )
                ],
            ),
        ),
    ]


def _serving_panels() -> list[tuple[int, int, Panel]]:
    requests = f"penstock_requests_total{{{_SERVED}}}"
    failed = f'penstock_requests_total{{{_SERVED},outcome="failed"}}'
    per_second = f"sum by (model) (rate({requests}[$__rate_interval]))"
    week = f"sum by (model) (rate({requests}[$__rate_interval] offset 1w))"
    seconds = f"penstock_request_seconds_bucket{{{_SERVED}}}"
    return [
        (
            8,
            8,
            _panel(
                "Requests per second, and a week ago",
                "timeseries",
                [(per_second, "{{model}}"), (week, "{{model}} a week ago")],
                unit="reqps",
            ),
        ),
        (
            8,
            8,
            _panel(
                "Requests without an answer",
                "timeseries",
                [
                    (
                        f"sum by (model) (rate({failed}[$__rate_interval])) / "
                        f"sum by (model) (rate({requests}[$__rate_interval]))",
                        "{{model}}",
                    )
                ],
                unit="percentunit",
            ),
        ),
        (
            8,
            8,
            _panel(
                "Latency",
                "timeseries",
                [
                    (
                        f"histogram_quantile({share}, sum by (model, version, le) ("
                        f"rate({seconds}[$__rate_interval])))",
                        f"{{{{model}}}} {{{{version}}}} p{round(100 * share)}",
                    )
                    for share in (0.5, 0.99)
                ],
                unit="s",
            ),
        ),
    ]


def _job_panels() -> list[tuple[int, int, Panel]]:
    last = f"penstock_model_last_success_timestamp_seconds{{{_MODEL}}}"
    rows = f"penstock_model_window_rows{{{_MODEL}}}"
    return [
        (
            6,
            6,
            _panel(
                "Since it was last looked at",
                "stat",
                [(f"time() - max by (monitor) ({last})", "{{monitor}}")],
                unit="s",
                steps=((None, "green"), (90_000, "yellow"), (172_800, "red")),
            ),
        ),
        (
            6,
            6,
            _panel(
                "Rows of the window, and the least",
                "timeseries",
                [
                    (f"max by (monitor) ({rows})", "{{monitor}}"),
                    (
                        f"max by (monitor) (penstock_model_min_rows{{{_MODEL}}})",
                        "{{monitor}} least",
                    ),
                ],
            ),
        ),
        (
            6,
            6,
            _panel(
                "False alerts per month: allowed and expected",
                "timeseries",
                [
                    (f"max(penstock_model_alert_budget{{{_MODEL}}})", "allowed"),
                    (f"max(penstock_model_alert_expected{{{_MODEL}}})", "expected"),
                ],
                decimals=2,
            ),
        ),
        (
            6,
            6,
            _panel(
                "Training runs",
                "timeseries",
                [
                    (
                        "max by (reason) (penstock_model_retrain_triggered_total"
                        f"{{{_MODEL}}})",
                        "{{reason}}",
                    )
                ],
            ),
        ),
        (
            24,
            5,
            _panel(
                "What it is",
                "table",
                [
                    (
                        "max by (model_name, monitor, version, reference_id, "
                        f"model_version) (penstock_model_build_info{{{_MODEL}}})",
                        "",
                    )
                ],
                instant=True,
            ),
        ),
    ]


def _panel(
    title: str,
    kind: str,
    asked: Sequence[tuple[str, str]],
    *,
    unit: str = "short",
    decimals: int | None = None,
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),),
    instant: bool = False,
) -> Panel:
    defaults: dict[str, Any] = {
        "unit": unit,
        "custom": {},
        "mappings": [],
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in steps],
        },
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 0, "spanNulls": 5_400_000}
        defaults["color"] = {"mode": "palette-classic"}
    options: dict[str, Any] = {}
    if kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}}
    if kind == "timeseries":
        options = {"tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "title": title,
        "type": kind,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if instant else "time_series",
            }
            for place, (expression, legend) in enumerate(asked)
        ],
    }


def _stat(
    title: str,
    expression: str,
    *,
    steps: Sequence[tuple[float | None, str]],
    decimals: int | None = None,
) -> Panel:
    return _panel(title, "stat", [(expression, "")], steps=steps, decimals=decimals)


def _laid_out(rows: list[tuple[str, list[tuple[int, int, Panel]]]]) -> list[Panel]:
    """Return panels with their places, left to right and top to bottom."""
    found: list[Panel] = []
    top = 0
    for title, panels in rows:
        place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        row = {"title": title, "type": "row", "collapsed": False, "panels": []}
        found.append({**row, "id": len(found) + 1, "gridPos": place})
        top, left, tallest = top + 1, 0, 0
        for width, height, panel in panels:
            if left + width > _WIDTH:
                top, left, tallest = top + tallest, 0, 0
            place = {"x": left, "y": top, "w": width, "h": height}
            found.append({**panel, "id": len(found) + 1, "gridPos": place})
            left, tallest = left + width, max(tallest, height)
        top += tallest
    return found
