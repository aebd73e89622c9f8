"""Unit tests of a model's rules, for `promtool test rules`.

They are made with the rules and lie beside them, so that whoever changes a rule by hand
learns at once what it no longer does: every alert has a case in which it fires, and one
for each guard in which it keeps silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.components.monitoring.rules import (
    FURTHEST,
    Rule,
    RuleOptions,
    duration,
    monitoring_rules,
    selector,
    serving_rules,
)

_STEP = 300
"""Seconds between samples, at most: Prometheus forgets one after 5 minutes."""

_EVERY = 1_800
"""Seconds between evaluations, at most: there is a week of them."""


@dataclass(frozen=True)
class _Case:
    """What is there, and which alerts fire at a time.

    Attributes:
        name: What it shows.
        series: Values by series, as promtool writes them.
        at: When the alerts are looked at, in seconds.
        fires: Labels of the alerts that fire, by their name; the others do not.
    """

    name: str
    series: Mapping[str, str]
    at: int
    fires: Mapping[str, Mapping[str, str]]


def monitoring_tests(options: RuleOptions, rule_file: str) -> dict[str, Any]:
    """Return tests of `monitoring_rules`, as data for a YAML file.

    Args:
        options: What the rules were made for.
        rule_file: Name of their file, beside that of the tests.
    """
    # A window is seen by some evaluations.
    every = max(1, min(_EVERY, options.every_seconds // 8))
    step = min(_STEP, every)
    return _tests(
        *(rule_file, step, every),
        monitoring_rules(options),
        _monitoring_cases(options, step, every),
    )


def serving_tests(options: RuleOptions, rule_file: str) -> dict[str, Any]:
    """Return tests of `serving_rules`, as data for a YAML file."""
    return _tests(
        *(rule_file, _STEP, _EVERY),
        serving_rules(options),
        _serving_cases(options),
    )


def _tests(
    rule_file: str,
    step: int,
    every: int,
    rules: Mapping[str, Any],
    cases: Sequence[_Case],
) -> dict[str, Any]:
    (group,) = rules["groups"]
    alerts = [rule for rule in group["rules"] if "alert" in rule]
    return {
        "rule_files": [rule_file],
        "evaluation_interval": duration(every),
        "tests": [
            {
                "name": case.name,
                "interval": duration(step),
                "input_series": [
                    {"series": series, "values": values}
                    for series, values in case.series.items()
                ],
                "alert_rule_test": [
                    {
                        "eval_time": duration(case.at),
                        "alertname": name,
                        "exp_alerts": [
                            _expected(rule, case.fires[name])
                            for rule in alerts
                            if rule["alert"] == name and _is_meant(rule, case, name)
                        ],
                    }
                    for name in dict.fromkeys(rule["alert"] for rule in alerts)
                ],
            }
            for case in cases
        ],
    }


def _is_meant(rule: Rule, case: _Case, name: str) -> bool:
    """Return whether it is this rule that fires, of several of one name."""
    if name not in case.fires:
        return False
    monitor = rule["labels"].get("monitor")
    return monitor is None or monitor == case.fires[name].get("monitor")


def _expected(rule: Rule, labels: Mapping[str, str]) -> dict[str, Any]:
    found = {**labels, **rule["labels"]}
    return {
        "exp_labels": {name: _said(value, labels) for name, value in found.items()},
        "exp_annotations": {
            name: _said(value, labels) for name, value in rule["annotations"].items()
        },
    }


def _said(template: str, labels: Mapping[str, str]) -> str:
    """Return what Prometheus makes of a template."""
    for name, value in labels.items():
        template = template.replace(f"{{{{ $labels.{name} }}}}", value)
    return template.replace(FURTHEST, " fare: 3.0 times what counts.").replace(
        '{{ "{{" }}', "{{"
    )


# --- monitoring


def _monitoring_cases(options: RuleOptions, step: int, every: int) -> list[_Case]:
    # When an alert that waits may fire first; and some samples of silence before.
    def after(seconds: int) -> int:
        return -(-seconds // every) * every + 2 * every

    soon = after(options.wait_seconds)
    late = after(options.late_seconds + options.wait_seconds)
    unseen = after(options.late_quality_seconds + options.wait_seconds)
    old = after(options.late_window_seconds + options.wait_seconds)
    gone = after(max(options.wait_seconds, 600))
    count = max(unseen, old, gone) // step + 9

    def watched(
        monitor: str,
        state: str,
        made: str = f"0+{step}",
        rows: int = 5_000,
        least: int | None = 500,
        end: str = f"0+{step}",
    ) -> dict[str, str]:
        labels = {"model_name": options.model, "monitor": monitor, "instance": "a"}
        prefix = "penstock_model_"
        values = {
            selector(f"{prefix}window_rows", **labels): str(rows),
            selector(f"{prefix}last_success_timestamp_seconds", **labels): made,
            selector(f"{prefix}window_end_timestamp_seconds", **labels): end,
            selector(f"{prefix}state", **labels, state="ok"): str(int(state == "ok")),
            selector(f"{prefix}state", **labels, state=state): "1",
        }
        if least is not None:
            values[selector(f"{prefix}min_rows", **labels)] = str(least)
        ratio = f"{prefix}feature_drift_threshold_ratio"
        for feature, value in (("fare", "3"), ("__max__", "3"), ("tips", "0.5")):
            of_feature = {"model_name": options.model, "feature": feature}
            values[selector(ratio, **of_feature, drift_type="ks")] = value
        return {
            series: f"{value}x{count}" if "+" in value else f"{value}+0x{count}"
            for series, value in values.items()
        }

    both = watched("quality", "ok") if options.quality else {}
    drift, of_drift = watched("drift", "alert"), {"monitor": "drift"}
    never = {"PenstockMonitoringAbsent": {"monitor": "drift"}}
    moved = dict(drift)
    for series, value in drift.items():
        if 'instance="a"' in series:
            moved[series] = value.partition("x")[0] + "x1"
            moved[series.replace('instance="a"', 'instance="b"')] = f"_x2 {value}"
    cases = [
        _Case(
            "a model that is as it was", {**watched("drift", "ok"), **both}, soon, {}
        ),
        _Case(
            "a model that drifts",
            {**drift, **both},
            soon,
            {"PenstockDrift": of_drift},
        ),
        _Case(
            "a model that drifts, before the rule has waited",
            {**drift, **both},
            0,
            {"PenstockDrift": of_drift} if not options.wait_seconds else {},
        ),
        _Case(
            "drift that was told from another target stays the same alert",
            {**moved, **both},
            max(soon, 4 * every),
            {"PenstockDrift": of_drift},
        ),
        _Case(
            "drift without a least number of rows",
            {**watched("drift", "alert", least=None), **both},
            soon,
            {"PenstockDrift": of_drift},
        ),
        _Case(
            "drift in a window of too few rows is not told",
            {**watched("drift", "alert", rows=499), **both},
            soon,
            {},
        ),
        _Case(
            "a window of too few rows",
            {**watched("drift", "insufficient_data", rows=499), **both},
            soon,
            {"PenstockInsufficientRows": of_drift},
        ),
        _Case(
            "a job that is late; its drift is told no more",
            {**watched("drift", "alert", made="0+0", end=f"0+{step}"), **both},
            late,
            {"PenstockMonitoringStale": of_drift},
        ),
        _Case(
            "a job that looks at old windows",
            {**watched("drift", "ok", end="0+0"), **both},
            old,
            {"PenstockWindowOld": of_drift},
        ),
        _Case("a model without metrics", both, gone, never),
        _Case(
            "documents that cannot be read",
            {
                **watched("drift", "ok"),
                **both,
                'penstock_documents_unreadable{instance="a"}': f"1+0x{count}",
            },
            soon,
            {"PenstockDocumentsUnreadable": {}},
        ),
    ]
    if options.quality:
        cases += _quality_cases(
            options, every, (soon, unseen, old, gone), count, watched
        )
    return cases


def _quality_cases(
    options: RuleOptions, every: int, times: tuple[int, ...], count: int, watched: Any
) -> list[_Case]:
    soon, late, old, gone = times
    good, of_quality = watched("drift", "ok"), {"monitor": "quality"}
    waiting = watched("quality", "ok", end="0+0")
    where = {"metric": "auc", "slice": "payment_type=Cash"}
    name = "penstock_model_evaluation_alert"
    slices = {
        selector(name, model_name=options.model, **where): f"1+0x{count}",
        selector(
            name, model_name=options.model, metric="auc", slice="overall"
        ): f"0+0x{count}",
    }
    return [
        _Case("windows whose labels were late", {**good, **waiting}, old, {}),
        _Case(
            "quality that is as old as its labels are late",
            {**good, **watched("quality", "alert", made="0+0"), **slices},
            (options.late_quality_seconds - 1) // every * every,
            {"PenstockQuality": of_quality, "PenstockSliceQuality": where},
        ),
        _Case(
            "a model that has become worse, in one slice",
            {**good, **watched("quality", "alert"), **slices},
            soon,
            {"PenstockQuality": of_quality, "PenstockSliceQuality": where},
        ),
        _Case(
            "a slice of a model whose quality is looked at no more",
            {**good, **watched("quality", "alert", made="0+0"), **slices},
            late,
            {"PenstockMonitoringStale": of_quality},
        ),
        _Case(
            "a model whose quality has no metrics",
            good,
            gone,
            {"PenstockMonitoringAbsent": of_quality},
        ),
    ]


# --- serving


def _serving_cases(options: RuleOptions) -> list[_Case]:
    week = 7 * 86_400 // _STEP
    hour = 3_600 // _STEP
    least, factor = options.min_requests, options.max_traffic_factor
    # So many in 5 minutes that an hour of them, and a share of it, is enough.
    usual = max(least, 10) * 10
    few = max(1, least // 100)
    labels = {"version": "1", "lane": "user", "instance": "a"}

    wait = -(-options.wait_seconds // _EVERY) * _EVERY
    waiting = wait // _STEP
    at, end = _EVERY + wait, (week + 4 * hour + waiting) * _STEP

    def counted(outcome: str) -> str:
        return selector(
            "penstock_requests_total",
            model=options.serving,
            outcome=outcome,
            **labels,
        )

    def traffic(*parts: tuple[int, int]) -> dict[str, str]:
        """Return requests that end well: so many per step, for so many steps."""
        found, total = [], 0
        for each, steps in parts:
            found.append(f"{total}+{each}x{steps - 1}")
            total += each * steps
        return {counted("ok"): " ".join(found)}

    def failing(share: float, each: int) -> dict[str, str]:
        failed = round(share * each)
        return {
            counted("ok"): f"0+{each - failed}x{at // _STEP + 9}",
            counted("failed"): f"0+{failed}x{at // _STEP + 9}",
        }

    many = round(usual * factor * 2)
    model = {"model": options.serving}
    loud = min(1.0, options.max_error_ratio * 4)
    enough = max(usual, round(options.min_failures * 10 / options.max_error_ratio))
    cases = [
        _Case(
            "traffic as it was a week ago",
            traffic((usual, week + 5 * hour + waiting)),
            end,
            {},
        ),
        _Case(
            "traffic that fell",
            traffic((usual, week), (round(usual / factor / 4), 5 * hour + waiting)),
            end,
            {"PenstockTrafficFell": model},
        ),
        _Case(
            "traffic that ended",
            {counted("ok"): f"0+{usual}x{week}"},
            end,
            {"PenstockTrafficFell": model},
        ),
        _Case(
            "traffic that rose",
            traffic((usual, week), (many, 5 * hour + waiting)),
            end,
            {"PenstockTrafficRose": model},
        ),
        _Case(
            "traffic of the first week has nothing to be compared with",
            traffic((usual, 3 * hour), (many, 3 * hour), (few, 3 * hour)),
            8 * hour * _STEP,
            {},
        ),
        _Case("no traffic was ever seen", {}, at, {}),
        _Case(
            "requests that fail",
            failing(loud, enough),
            at,
            {"PenstockErrors": model},
        ),
        _Case(
            "requests that fail no more often than they may",
            failing(options.max_error_ratio / 2, enough),
            at,
            {},
        ),
    ]
    blamed = {
        counted("ok"): f"0+1x{at // _STEP + 9}",
        counted("client_error"): f"0+{enough}x{at // _STEP + 9}",
    }
    cases.append(_Case("requests that callers are to blame for", blamed, at, {}))
    if few * 24 < least:
        cases.append(
            _Case(
                "traffic that was too little to be compared",
                traffic((few, week), (0, 5 * hour + waiting)),
                end,
                {},
            )
        )
        cases.append(
            _Case("too few requests to speak of errors", failing(1.0, few), at, {})
        )
    return cases
