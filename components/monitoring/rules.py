"""Rules for Prometheus, made for one model: what is recorded, and what is an alert.

The decision that a model drifts, with its budget of false alerts, was made over windows
before there were metrics; a rule that compared values with thresholds of its own would
spend the budget a second time. So rules look at the state, and guard it: a job that is
late, metrics that are absent and windows of too few rows are alerts of their own, and
while one of them holds, nothing is said about drift. An alert keeps its labels when a
target moves, so that it stays the same alert.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.schemas.errors import DataError

DAY_SECONDS = 86_400

Rule = dict[str, Any]

OUTCOMES = ("ok", "client_error", "fell_back", "failed")
"""Outcomes of requests that the router counts; the last is nobody's answer."""


@dataclass(frozen=True)
class RuleOptions:
    """What rules are made for.

    Attributes:
        model: Name of the model.
        every_seconds: How often a window is looked at.
        quality: Whether its quality is looked at by itself, besides drift.
        label_delay_seconds: How long labels may take; quality is looked at that much
            later than drift.
        serving: Name of the model in the router; empty for no rules of serving.
        wait_seconds: How long something holds before it is an alert.
        max_error_ratio: Share of requests that may fail.
        min_requests: Below so many requests in 10 minutes nothing is said of errors,
            and below so many in an hour of last week nothing of traffic.
        min_failures: Below so many failures in 10 minutes nothing is said of errors.
        max_traffic_factor: How many times more, or fewer, requests than a week ago are
            an alert.
    """

    model: str
    every_seconds: int = DAY_SECONDS
    quality: bool = False
    label_delay_seconds: int = 0
    serving: str = ""
    wait_seconds: int = 60
    max_error_ratio: float = 0.02
    min_requests: int = 100
    min_failures: int = 5
    max_traffic_factor: float = 2.0

    def __post_init__(self) -> None:
        if not self.model:
            raise DataError(
                "Rules are for a model, and its name is empty. Pass the name that the "
                "metrics have as 'model_name'."
            )
        for name, least, unit in (
            ("every_seconds", 1, "seconds"),
            ("label_delay_seconds", 0, "seconds"),
            ("wait_seconds", 0, "seconds"),
            ("min_requests", 1, "requests"),
            ("min_failures", 1, "failures"),
        ):
            if getattr(self, name) < least:
                raise DataError(
                    f"'{name}' of the rules for '{self.model}' is "
                    f"{getattr(self, name)}. Pass {unit}, at least {least}."
                )
        if not 0 < self.max_error_ratio < 1:
            raise DataError(
                f"'max_error_ratio' of the rules for '{self.model}' is "
                f"{self.max_error_ratio:g}. Pass a share between 0 and 1, as 0.02."
            )
        if not self.max_traffic_factor > 1:
            raise DataError(
                f"'max_traffic_factor' of the rules for '{self.model}' is "
                f"{self.max_traffic_factor:g}. Pass how many times the traffic of last "
                "week is too much, as 2."
            )

    @property
    def late_seconds(self) -> int:
        """How old the last look may be: two of them may be missing."""
        return 2 * self.every_seconds

    @property
    def late_quality_seconds(self) -> int:
        """How old the last look at quality may be, which waits for labels."""
        return self.late_seconds + self.label_delay_seconds

    @property
    def late_window_seconds(self) -> int:
        """How long ago the newest window may have ended."""
        return 3 * self.every_seconds


def monitoring_rules(options: RuleOptions) -> dict[str, Any]:
    """Return the rules of a model's monitoring, as data for a YAML file."""
    return {
        "groups": [
            {
                "name": f"penstock monitoring of {options.model}",
                "rules": [*_recorded_drift(options), *_monitoring_alerts(options)],
            }
        ]
    }


def serving_rules(options: RuleOptions) -> dict[str, Any]:
    """Return the rules of a model's requests, as data for a YAML file.

    They look at the metrics of penstock's router.

    Raises:
        DataError: If the options name no model in the router.
    """
    if not options.serving:
        raise DataError(
            f"Rules of serving for '{options.model}' need the name that the router "
            "serves it under. Pass it as 'serving'."
        )
    return {
        "groups": [
            {
                "name": f"penstock serving of {options.model}",
                "rules": [*_recorded_requests(options), *_serving_alerts(options)],
            }
        ]
    }


# --- words of PromQL


def selector(name: str, *matchers: str, **labels: str) -> str:
    """Return a metric with labels that it has to have."""
    equal = [f"{label}={text(value)}" for label, value in labels.items()]
    return f"{name}{{{','.join([*equal, *matchers])}}}"


def text(value: str) -> str:
    """Return a text as PromQL writes it."""
    # Go reads the escapes that JSON writes, but for halves of letters.
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)


def literal(value: str) -> str:
    """Return text for a place where Prometheus looks for templates."""
    return value.replace("{{", '{{ "{{" }}')


def duration(seconds: int) -> str:
    """Return a length of time as Prometheus writes it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _alert(
    name: str,
    expression: str,
    options: RuleOptions,
    severity: str,
    summary: str,
    description: str,
    *,
    wait_seconds: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Rule:
    wait = options.wait_seconds if wait_seconds is None else wait_seconds
    return {
        "alert": name,
        "expr": expression,
        "for": duration(wait),
        "labels": {
            "model_name": literal(options.model),
            "severity": severity,
            **(labels or {}),
        },
        "annotations": {"summary": summary, "description": description},
    }


# --- monitoring

DRIFT, QUALITY, BOTH = 'monitor!="quality"', 'monitor="quality"', 'monitor!="drift"'

FURTHEST = (
    "{{ range printf `topk(3, max by (feature) "
    '(penstock_model_feature_drift_threshold_ratio{model_name=%q,feature!="__max__"})'
    " > 1)` $labels.model_name | query }} {{ .Labels.feature }}: "
    '{{ printf "%.1f" .Value }} times what counts.{{ end }}'
)
"""Names the three features that are furthest from the reference."""


def _recorded_drift(options: RuleOptions) -> list[Rule]:
    ratio = "penstock_model_feature_drift_threshold_ratio"
    metric = selector(ratio, model_name=options.model)
    return [
        {
            "record": f"model_name:{ratio}:max",
            "expr": f"max by (model_name) ({metric})",
        }
    ]


def _by_window(options: RuleOptions, name: str, *matchers: str) -> str:
    """Return a metric of windows, without the labels of who was scraped."""
    metric = selector(name, *matchers, model_name=options.model)
    return f"max by (model_name, monitor) ({metric})"


def _age(options: RuleOptions, *matchers: str) -> str:
    last = "penstock_model_last_success_timestamp_seconds"
    return f"time() - {_by_window(options, last, *matchers)}"


def _on_time(options: RuleOptions, matcher: str) -> str:
    late = options.late_seconds if matcher == DRIFT else options.late_quality_seconds
    return f"{_age(options, matcher)} < {late}"


def _enough_rows(options: RuleOptions, matcher: str) -> str:
    rows = _by_window(options, "penstock_model_window_rows", matcher)
    least = _by_window(options, "penstock_model_min_rows", matcher)
    on = "on (model_name, monitor)"
    # Where nothing was calibrated there is no least number.
    return f"{rows} >= {on}\n  {least}\n  or {rows} unless {on}\n  {least}"


def _in_alert(options: RuleOptions, matcher: str) -> str:
    state = _by_window(options, "penstock_model_state", 'state="alert"', matcher)
    return (
        f"{state} == 1\n"
        f"and on (model_name, monitor) ({_on_time(options, matcher)})\n"
        f"and on (model_name, monitor) (\n  {_enough_rows(options, matcher)}\n)"
    )


def _monitoring_alerts(options: RuleOptions) -> list[Rule]:
    of_model = literal(options.model)
    retrain = {"retrain": "true"}
    late = f"{_age(options)}\n> {options.late_seconds}"
    if options.quality:
        late = (
            f"{_age(options, DRIFT)}\n> {options.late_seconds}\n"
            f"or {_age(options, QUALITY)}\n> {options.late_quality_seconds}"
        )
    # Windows of quality are as old as their labels are late.
    old = _by_window(options, "penstock_model_window_end_timestamp_seconds", DRIFT)
    too_few = _by_window(options, "penstock_model_state", 'state="insufficient_data"')
    every = duration(options.every_seconds)
    alerts = [
        _alert(
            "PenstockDrift",
            _in_alert(options, DRIFT),
            options,
            "warning",
            f"{of_model} drifts",
            "What reaches the model is no longer what it was trained on, beyond chance "
            f"and beyond what counts; see the report of the window.{FURTHEST}",
            labels=retrain,
        ),
        _alert(
            "PenstockInsufficientRows",
            f"{too_few} == 1",
            options,
            "info",
            f"{of_model} has too few rows to be judged",
            "The newest window has fewer rows than its thresholds were made for, so "
            "nothing is said about drift. Use longer windows, or look for the rows.",
        ),
        _alert(
            "PenstockMonitoringStale",
            late,
            options,
            "critical",
            f"{of_model} is not watched any more ({{{{ $labels.monitor }}}})",
            f"It was to be looked at every {every}, and the last two times it was not. "
            "Until it is, no drift is told.",
        ),
        _alert(
            "PenstockWindowOld",
            f"time() - {old}\n> {options.late_window_seconds}",
            options,
            "warning",
            f"{of_model} is watched on old data ({{{{ $labels.monitor }}}})",
            "The newest window ended more than "
            f"{duration(options.late_window_seconds)} ago. Look whether logs arrive.",
        ),
        _absent(options, "drift", DRIFT),
        _alert(
            "PenstockDocumentsUnreadable",
            "max(penstock_documents_unreadable) > 0",
            options,
            "warning",
            "Documents of watched models cannot be read",
            "Their models have no new metrics. 'penstock export' on their folder says "
            "which they are.",
        ),
    ]
    if options.quality:
        alerts += _quality_alerts(options, of_model, retrain)
    return alerts


def _absent(options: RuleOptions, monitor: str, matcher: str) -> Rule:
    metric = selector(
        "penstock_model_last_success_timestamp_seconds",
        matcher,
        model_name=options.model,
    )
    return _alert(
        "PenstockMonitoringAbsent",
        f"absent({metric})",
        options,
        "critical",
        f"{literal(options.model)} has no metrics ({monitor})",
        "Nothing is scraped of it, so nothing would be told. Look for the text file, "
        "the gateway or the server that 'penstock export' fills.",
        wait_seconds=max(options.wait_seconds, 600),
        labels={"monitor": monitor},
    )


def _quality_alerts(
    options: RuleOptions, of_model: str, retrain: Mapping[str, str]
) -> list[Rule]:
    slices = selector("penstock_model_evaluation_alert", model_name=options.model)
    return [
        _alert(
            "PenstockQuality",
            _in_alert(options, QUALITY),
            options,
            "critical",
            f"{of_model} has become worse",
            "Its quality on labels is below what it was, beyond chance; see the report "
            "of the window.",
            labels=retrain,
        ),
        _alert(
            "PenstockSliceQuality",
            f"max by (model_name, metric, slice) ({slices}) == 1\n"
            "and on (model_name) max by (model_name) (\n"
            f"  {_on_time(options, BOTH)}\n)",
            options,
            "warning",
            f"{of_model} is worse in {{{{ $labels.slice }}}}",
            "{{ $labels.metric }} in {{ $labels.slice }} is below what it was, beyond "
            "chance; see the report of the window.",
        ),
        _absent(options, "quality", BOTH),
    ]


# --- serving

REQUESTS, FAILED = "model:penstock_requests", "model:penstock_requests_failed"


def _recorded_requests(options: RuleOptions) -> list[Rule]:
    requests = selector("penstock_requests_total", model=options.serving)
    failed = selector(
        "penstock_requests_total", model=options.serving, outcome=OUTCOMES[-1]
    )
    return [
        {
            "record": f"{name}:rate{span}",
            "expr": f"sum by (model) (rate({metric}[{span}]))",
        }
        for name, metric in ((REQUESTS, requests), (FAILED, failed))
        for span in ("10m", "1h")
    ]


def _serving_alerts(options: RuleOptions) -> list[Rule]:
    model = {"model": options.serving}
    requests = selector(f"{REQUESTS}:rate10m", **model)
    failed = selector(f"{FAILED}:rate10m", **model)
    now = selector(f"{REQUESTS}:rate1h", **model)
    then = f"{now} offset 1w"
    least = options.min_requests
    factor = options.max_traffic_factor
    of_model = literal(options.model)
    return [
        _alert(
            "PenstockErrors",
            f"{failed} / {requests} > {options.max_error_ratio}\n"
            f"and {requests} * 600 >= {least}\n"
            f"and {failed} * 600 >= {options.min_failures}",
            options,
            "critical",
            f"{of_model} fails requests",
            f"More than {options.max_error_ratio:.4g} of the requests of the last 10 "
            f"minutes have no answer (of at least {least}).",
        ),
        _alert(
            "PenstockTrafficFell",
            f"{now} < ({then}) / {factor:g}\n"
            f"and ({then}) * 3600 >= {least}\n"
            f"or (({then}) * 3600 >= {least} unless {now})",
            options,
            "warning",
            f"{of_model} gets fewer requests than a week ago",
            f"A week ago it got more than {factor:g} times the requests of the last "
            "hour, or now it gets none.",
        ),
        _alert(
            "PenstockTrafficRose",
            f"{now} > ({then}) * {factor:g}\nand {now} * 3600 >= {least}",
            options,
            "warning",
            f"{of_model} gets more requests than a week ago",
            f"In the last hour it got more than {factor:g} times the requests that it "
            "got in the same hour last week.",
        ),
    ]
