"""Prometheus takes the rules, their tests pass, and notice what a rule loses."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from penstock.components.monitoring.exporter import METRICS
from penstock.components.monitoring.rule_tests import monitoring_tests, serving_tests
from penstock.components.monitoring.rules import (
    FURTHEST,
    OUTCOMES,
    RuleOptions,
    duration,
    literal,
    monitoring_rules,
    selector,
    serving_rules,
    text,
)
from penstock.components.monitoring.yaml_text import yaml
from penstock.components.serving.router.metrics import Counts, Gauges, exposition
from penstock.components.serving.router.notes import Outcome
from penstock.schemas.errors import DataError
from tests.components.monitoring.prometheus import tool

pyyaml: Any = importlib.import_module("yaml")  # it has no types

DAILY = RuleOptions("taxi", quality=True, serving="taxi")

OPTIONS = {
    "daily": DAILY,
    "hourly": RuleOptions("taxi", every_seconds=3_600, serving="router-name"),
    "at once": RuleOptions("taxi", every_seconds=60, wait_seconds=0, serving="taxi"),
    "odd name": RuleOptions(
        'o"dd {{ name }} \\ \n é', every_seconds=600, quality=True, serving='"{{x}}"'
    ),
    "strict": RuleOptions(
        "taxi",
        every_seconds=7_200,
        quality=True,
        serving="taxi",
        wait_seconds=3_600,
        max_error_ratio=0.5,
        min_requests=1,
        min_failures=1,
        max_traffic_factor=1.2,
    ),
    "busy": RuleOptions(
        "taxi",
        every_seconds=900,
        serving="taxi",
        wait_seconds=600,
        max_error_ratio=0.001,
        min_requests=100_000,
        min_failures=50,
        max_traffic_factor=10.0,
    ),
}


def promtool(folder: Path, rules: str, tests: str) -> tuple[int, str]:
    """Run promtool on rules and their tests; return its code and what it said."""
    (folder / "rules.yml").write_text(rules)
    (folder / "tests.yml").write_text(tests)
    done = tool("promtool", "test", "rules", folder / "tests.yml")
    return done.returncode, done.stdout + done.stderr


def checked(folder: Path, rules: dict[str, Any], tests: dict[str, Any]) -> None:
    code, said = promtool(folder, yaml(rules), yaml(tests))
    assert code == 0, said
    # Lint of duplicates and of fields as well.
    done = tool("promtool", "check", "rules", "--lint=all", folder / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
@pytest.mark.parametrize("name", OPTIONS)
def test_promtool_takes_the_rules_of_monitoring_and_their_tests_pass(
    name: str, tmp_path: Path
) -> None:
    options = OPTIONS[name]
    tests = monitoring_tests(options, "rules.yml")
    checked(tmp_path, monitoring_rules(options), tests)


# A week of samples takes promtool some seconds.
@pytest.mark.prometheus
@pytest.mark.parametrize(
    "name",
    [
        name if name == "daily" else pytest.param(name, marks=pytest.mark.long)
        for name in OPTIONS
    ],
)
def test_promtool_takes_the_rules_of_serving_and_their_tests_pass(
    name: str, tmp_path: Path
) -> None:
    options = OPTIONS[name]
    checked(tmp_path, serving_rules(options), serving_tests(options, "rules.yml"))


SOON = RuleOptions(
    "taxi", every_seconds=600, quality=True, label_delay_seconds=1_200, serving="taxi"
)

MONITORING_LOSSES = {
    "freshness": ("expr", r"\nand on \(model_name, monitor\) \(time\(\)[^\n]*", ""),
    "enough rows": ("expr", r"(?s)\nand on \(model_name, monitor\) \(\n  max.*", ""),
    "windows without a least number": ("expr", r"(?s)\n  or max.*(?=\n\))", ""),
    "who was scraped": (
        "expr",
        r"max by \(model_name, monitor\) (?=\(penstock_model_state)",
        "",
    ),
    "the monitor": ("expr", r',monitor!?="quality"', ""),
    "the state": ("expr", r'state="alert"', 'state="ok"'),
    "waiting": ("for", r"1m", "0s"),
    "lateness": ("expr", r"> 1200", "> 120000"),
    "lateness of labels": ("expr", r"2400", "1200"),
    "age of windows": ("expr", r"> 1800", "> 180000"),
    "windows of quality": (
        "expr",
        r'(?<=end_timestamp_seconds\{model_name="taxi"),[^}]*',
        "",
    ),
    "absence": ("expr", r"absent\(", "max("),
    "freshness of slices": ("expr", r"(?s)\nand on \(model_name\) max by.*", ""),
    "slices": ("expr", r"\(model_name, metric, slice\)", "(model_name, metric)"),
    "a label": ("retrain", "true", "false"),
    "unreadable documents": ("expr", r"unreadable\) > 0", "unreadable) > 1"),
    "too few rows": ("expr", "insufficient_data", "watch"),
}

SERVING_LOSSES = {
    "a least number of requests": ("expr", r" >= 100\b", " >= 0"),
    "a least number of failures": ("expr", r" >= 5\b", " >= 5000000"),
    "a week ago": ("expr", " offset 1w", ""),
    "traffic that ended": ("expr", r"(?s)\nor \(\(.*", ""),
    "the share": ("expr", r"> 0\.02", "> 0.2"),
    "who is to blame": (
        "expr",
        'outcome="failed"',
        'outcome=~"failed|client_error"',
    ),
    "the factor of a fall": ("expr", r"\) / 2", ") / 200"),
    "the factor of a rise": ("expr", r"\) \* 2", ") * 200"),
}


def lost(rules: dict[str, Any], field: str, pattern: str, instead: str) -> str:
    """Return rules of which something was taken away, as YAML."""
    places = 0
    for group in rules["groups"]:
        for rule in group["rules"]:
            holder = rule["labels"] if field == "retrain" and "labels" in rule else rule
            if field in holder:
                holder[field], count = re.subn(pattern, instead, holder[field])
                places += count
    assert places, "nothing was taken away"
    return yaml(rules)


@pytest.mark.prometheus
@pytest.mark.parametrize("loss", MONITORING_LOSSES)
def test_the_tests_notice_what_a_rule_of_monitoring_loses(
    loss: str, tmp_path: Path
) -> None:
    rules = lost(monitoring_rules(SOON), *MONITORING_LOSSES[loss])
    code, said = promtool(tmp_path, rules, yaml(monitoring_tests(SOON, "rules.yml")))
    assert code == 1 and "FAILED" in said


@pytest.mark.prometheus
@pytest.mark.long
@pytest.mark.parametrize("loss", SERVING_LOSSES)
def test_the_tests_notice_what_a_rule_of_serving_loses(
    loss: str, tmp_path: Path
) -> None:
    rules = lost(serving_rules(SOON), *SERVING_LOSSES[loss])
    code, said = promtool(tmp_path, rules, yaml(serving_tests(SOON, "rules.yml")))
    assert code == 1 and "FAILED" in said


def test_rules_ask_only_for_metrics_that_there_are() -> None:
    known = {*METRICS, *(f"{name}_total" for name in METRICS)}
    routed = exposition("taxi", Counts(), Gauges()).decode()
    known |= set(re.findall(r"# TYPE (\S+)", routed))
    rules = [*monitoring_rules(DAILY)["groups"], *serving_rules(DAILY)["groups"]]
    asked = set()
    for group in rules:
        for rule in group["rules"]:
            names = re.findall(r"(?<![:\w])(?:penstock|model)_\w+(?=\{)", rule["expr"])
            asked |= set(names)
    assert len(asked) == 8
    assert asked - known == set()


def test_the_guide_lists_every_alert() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text("utf-8")
    rules = [*monitoring_rules(DAILY)["groups"], *serving_rules(DAILY)["groups"]]
    alerts = {each["alert"] for g in rules for each in g["rules"] if "alert" in each}
    assert alerts == set(re.findall(r"`(Penstock\w+)`(?=[ ,])", guide))


def test_outcomes_are_those_of_the_router() -> None:
    assert get_args(Outcome) == OUTCOMES


def test_what_starts_a_training_run_is_drift_and_quality() -> None:
    (group,) = monitoring_rules(DAILY)["groups"]
    starting = [
        rule["alert"]
        for rule in group["rules"]
        if rule.get("labels", {}).get("retrain") == "true"
    ]
    assert starting == ["PenstockDrift", "PenstockQuality"]
    (group,) = serving_rules(DAILY)["groups"]
    assert not any("retrain" in rule.get("labels", {}) for rule in group["rules"])


def test_the_files_are_yaml_that_says_the_same() -> None:
    for options in OPTIONS.values():
        for data in (
            monitoring_rules(options),
            serving_rules(options),
            monitoring_tests(options, "rules.yml"),
        ):
            assert pyyaml.safe_load(yaml(data)) == data


def test_words_of_promql_are_escaped() -> None:
    assert text('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
    assert selector("up", 'x!="1"', job='"') == 'up{job="\\"",x!="1"}'
    assert literal("{{x}}") == '{{ "{{" }}x}}'
    spans = {0: "0s", 59: "59s", 60: "1m", 5_400: "90m", 86_400: "1d", 172_800: "2d"}
    assert {seconds: duration(seconds) for seconds in spans} == spans


def test_the_drift_alert_names_what_is_furthest() -> None:
    (group,) = monitoring_rules(DAILY)["groups"]
    (drift,) = (r for r in group["rules"] if r.get("alert") == "PenstockDrift")
    assert FURTHEST in drift["annotations"]["description"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": ""},
            "Rules are for a model, and its name is empty. Pass the name that the "
            "metrics have as 'model_name'.",
        ),
        (
            {"every_seconds": 0},
            "'every_seconds' of the rules for 'taxi' is 0. Pass seconds, at least 1.",
        ),
        (
            {"wait_seconds": -1},
            "'wait_seconds' of the rules for 'taxi' is -1. Pass seconds, at least 0.",
        ),
        (
            {"label_delay_seconds": -1},
            "'label_delay_seconds' of the rules for 'taxi' is -1. Pass seconds, at "
            "least 0.",
        ),
        (
            {"min_requests": 0},
            "'min_requests' of the rules for 'taxi' is 0. Pass requests, at least 1.",
        ),
        (
            {"min_failures": 0},
            "'min_failures' of the rules for 'taxi' is 0. Pass failures, at least 1.",
        ),
        (
            {"max_error_ratio": 2.0},
            "'max_error_ratio' of the rules for 'taxi' is 2. Pass a share between 0 "
            "and 1, as 0.02.",
        ),
        (
            {"max_traffic_factor": 0.5},
            "'max_traffic_factor' of the rules for 'taxi' is 0.5. Pass how many times "
            "the traffic of last week is too much, as 2.",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        RuleOptions(**{"model": "taxi", **changes})
    assert str(caught.value) == said


def test_rules_of_serving_need_the_name_in_the_router() -> None:
    with pytest.raises(DataError) as caught:
        serving_rules(RuleOptions("taxi"))
    assert str(caught.value) == (
        "Rules of serving for 'taxi' need the name that the router serves it under. "
        "Pass it as 'serving'."
    )
