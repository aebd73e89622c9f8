"""Metrics of documents: their names, their caps, and what promtool says of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from penstock.components.monitoring.document import Document, check_document
from penstock.components.monitoring.exporter import (
    ALL,
    METRICS,
    Limits,
    exposition,
    feature_label,
    label_value,
    monitor_of,
    newest,
    samples,
    seconds_of,
    slice_label,
)
from penstock.schemas.errors import DataError
from tests.components.monitoring.documents import (
    DOCUMENTS,
    alert_document,
    column,
    document,
    large_document,
    measure,
    metric,
    ok_document,
    quality,
    trend,
)
from tests.components.monitoring.prometheus import tool

Read = dict[str, dict[tuple[tuple[str, str], ...], float]]


def read(text: bytes) -> Read:
    """Return samples by name and labels, as the client library's parser reads them."""
    found: Read = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "a series twice"
            found[sample.name][labels] = sample.value
    return found


def value(found: Read, name: str, **labels: str) -> float:
    return found[name][tuple(sorted(labels.items()))]


def quality_document(**changes: Any) -> Document:
    return document(columns=[], reference=None, budget=None, quality=quality(**changes))


def test_the_name_that_others_know_is_kept_with_its_labels() -> None:
    ks = measure("ks", 0.06)
    found = read(exposition([document(columns=[column("fare", measures=[ks])])]))
    labels = {"model_name": "taxi", "feature": "fare", "drift_type": "ks"}
    assert value(found, "model_feature_drift", **labels) == ks["value"]
    ratio = "penstock_model_feature_drift_threshold_ratio"
    assert value(found, ratio, **labels) == ks["ratio"]
    threshold = "penstock_model_feature_drift_threshold"
    assert value(found, threshold, **labels, severity="relevant") == ks["threshold"]
    assert value(found, threshold, **labels, severity="significant") == ks["critical"]


def test_every_other_name_begins_with_the_word_of_the_application() -> None:
    others = [name for name in METRICS if not name.startswith("penstock_")]
    assert others == ["model_feature_drift"]


def test_one_state_is_1_and_the_others_0() -> None:
    found = read(exposition([alert_document()]))
    states = {
        dict(labels)["state"]: number
        for labels, number in found["penstock_model_state"].items()
    }
    assert states == {"ok": 0, "watch": 0, "alert": 1, "insufficient_data": 0}


def test_what_holds_for_the_window_is_told() -> None:
    found = read(exposition([ok_document()]))
    window = {"model_name": "taxi", "monitor": "drift"}
    prefix = "penstock_model_"
    assert value(found, f"{prefix}window_rows", **window) == ok_document()["rows"]
    made = seconds_of(ok_document()["made_at"])
    assert value(found, f"{prefix}last_success_timestamp_seconds", **window) == made
    budget = ok_document()["budget"]
    assert budget
    assert value(found, f"{prefix}min_rows", **window) == budget["min_rows"]
    (info,) = found[f"{prefix}build_info"]
    reference = ok_document()["reference"]
    assert reference and dict(info)["reference_id"] == reference["id"]
    assert dict(info)["model_version"] == "7"
    assert found[f"{prefix}features"][("model_name", "taxi"), ("state", "ok")] == 12


def test_the_length_of_the_job_is_told_where_the_document_has_it() -> None:
    timed: Any = {**ok_document(), "duration_seconds": 12.5}
    found = read(exposition([timed]))
    (seconds,) = found["penstock_model_job_duration_seconds"].values()
    assert seconds == 12.5
    assert "penstock_model_job_duration_seconds" not in read(
        exposition([ok_document()])
    )


def test_a_large_model_has_few_series_and_says_how_many_are_left_out() -> None:
    found = read(exposition([large_document(300)], limits=Limits(20, 10)))
    drift = found["model_feature_drift"]
    features = {dict(labels)["feature"] for labels in drift}
    assert len(features) == 21 and ALL in features
    hidden = value(found, "penstock_model_features_hidden", model_name="taxi")
    assert hidden == len(large_document(300)["columns"]) - 20
    metrics = found["penstock_model_evaluation_metric"]
    assert len(metrics) == 10
    assert found["penstock_model_slices_hidden"] == {
        (("model_name", "taxi"),): 60 + len(quality()["metrics"]) - 10
    }


def test_the_features_shown_are_those_that_drift_and_all_speaks_for_all() -> None:
    names = [f"feature_{index:03d}" for index in range(100)]
    columns = [
        column(name, measures=[measure("ks", 0.0003 * index)])
        for index, name in enumerate(names)
    ]
    columns.append(column("calm", "alert", measures=[measure("psi", 0.0)]))
    found = read(exposition([document(columns=columns)], limits=Limits(features=5)))
    ratios = found["penstock_model_feature_drift_threshold_ratio"]
    shown = {dict(labels)["feature"] for labels in ratios}
    assert shown == {"calm", *names[-4:], ALL}
    labels = {"model_name": "taxi", "feature": ALL, "drift_type": "ks"}
    ratio = "penstock_model_feature_drift_threshold_ratio"
    assert value(found, ratio, **labels) == max(ratios.values())
    none = read(exposition([document(columns=columns)], limits=Limits(features=0)))
    assert value(none, ratio, **labels) == max(ratios.values())


def test_all_speaks_for_the_largest_shift_whichever_its_direction() -> None:
    shifts = {"fare": -0.6, "miles": 0.1, "tips": -0.2}
    columns = [
        column(name, measures=[measure("mean_shift", value=shift)])
        for name, shift in shifts.items()
    ]
    found = read(exposition([document(columns=columns)]))
    labels = {"model_name": "taxi", "feature": ALL, "drift_type": "mean_shift"}
    assert value(found, "model_feature_drift", **labels) == -0.6


def test_a_feature_that_is_called_like_all_is_another() -> None:
    assert feature_label(ALL) != ALL
    both = [
        column(ALL, measures=[measure(effect=0.01)]),
        column("fare", measures=[measure(effect=0.9)]),
    ]
    found = read(exposition([document(columns=both)]))
    of_all = {"model_name": "taxi", "feature": ALL, "drift_type": "ks"}
    ratio = value(found, "penstock_model_feature_drift_threshold_ratio", **of_all)
    assert ratio == pytest.approx(0.9 / 0.03)


def test_no_sample_is_made_of_what_is_not_known() -> None:
    unknown = measure(value=None, ratio=None, critical=None, threshold=None)
    found = read(exposition([document(columns=[column("fare", measures=[unknown])])]))
    assert "model_feature_drift" not in found
    assert "penstock_model_feature_drift_threshold" not in found


def test_a_metric_of_a_slice_has_its_interval_and_its_alert() -> None:
    found = read(exposition([quality_document()]))
    cash = {"model_name": "taxi", "metric": "auc", "slice": "payment_type=Cash"}
    (auc,) = (
        each for each in quality()["metrics"] if each["slice"] == "payment_type=Cash"
    )
    name = "penstock_model_evaluation_metric"
    assert value(found, name, **cash) == auc["value"]
    assert value(found, f"{name}_ci_lower", **cash) == auc["lower"]
    assert value(found, f"{name}_ci_upper", **cash) == auc["upper"]
    assert value(found, "penstock_model_evaluation_alert", **cash) == 1
    overall = {**cash, "slice": "overall"}
    assert value(found, "penstock_model_evaluation_alert", **overall) == 0


def test_an_alert_of_a_trend_alone_is_an_alert_of_its_slice() -> None:
    found = read(
        exposition(
            [
                quality_document(
                    metrics=[metric("auc", "company=A", 0.9)],
                    trends=[trend("company=A", 0.9, -0.3, "alert")],
                )
            ]
        )
    )
    labels = {"model_name": "taxi", "metric": "auc", "slice": "company=A"}
    assert value(found, "penstock_model_evaluation_alert", **labels) == 1


def test_the_worst_slices_are_shown_first() -> None:
    fine = [metric("auc", f"company={index}", 0.9) for index in range(100)]
    bad = metric("auc", "zone=99", 0.5, "alert")
    document = quality_document(metrics=[*fine, bad], trends=[])
    found = read(exposition([document], limits=Limits(slices=3)))
    shown = {
        dict(labels)["slice"] for labels in found["penstock_model_evaluation_rows"]
    }
    assert "zone=99" in shown and len(shown) == 3


def test_estimates_are_not_mixed_with_what_was_measured() -> None:
    both = [
        metric("auc", "overall", 0.91),
        metric("auc", "overall", 0.88, estimated=True),
    ]
    found = read(exposition([quality_document(metrics=both, trends=[])]))
    labels = {"model_name": "taxi", "metric": "auc", "slice": "overall"}
    assert value(found, "penstock_model_evaluation_metric", **labels) == 0.91
    estimated = value(
        found, "penstock_model_estimated_metric", **labels, method="estimate"
    )
    assert estimated == 0.88


def test_training_runs_are_counted_by_reason() -> None:
    found = read(exposition([ok_document()], retrains={("taxi", "drift"): 3}))
    labels = {"model_name": "taxi", "reason": "drift"}
    assert value(found, "penstock_model_retrain_triggered_total", **labels) == 3


def test_of_each_model_and_monitor_the_newest_window_counts() -> None:
    old = document(window={**ok_document()["window"], "end": "2026-11-30T12:00:00Z"})
    again = document(made_at="2026-12-02T00:00:00.5Z", rows=7)
    other = document(model="fares")
    asked = quality_document()
    found = newest([again, old, document(), other, asked])
    assert found == (other, again, asked)
    assert [monitor_of(each) for each in found] == ["drift", "drift", "quality"]
    assert monitor_of(alert_document()) == "both"
    read(exposition([again, old, document(), other, asked]))


def test_times_are_read_with_and_without_fractions() -> None:
    assert seconds_of("1970-01-02T00:00:00Z") == 86_400
    assert seconds_of("1970-01-01T00:00:01.2500001Z") == pytest.approx(1.2500001)


@pytest.mark.parametrize("name", ["features", "slices"])
def test_a_limit_below_0_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' of the limits is -1. Pass how many"):
        Limits(*((-1, 0) if name == "features" else (0, -1)))


def test_long_label_values_stay_different() -> None:
    one, two = "x" * 500 + "1", "x" * 500 + "2"
    assert label_value(one) != label_value(two)
    assert len(label_value(one)) == 96
    assert label_value("fare") == "fare"


def test_slices_with_odd_or_secret_values_show_a_digest() -> None:
    assert slice_label("overall", hashed=True) == "overall"
    assert slice_label("payment_type=Cash") == "payment_type=Cash"
    for where in ("user=a\nb", f"user={'x' * 200}", 'user="q"', "user=\ud800"):
        assert re.fullmatch("user=sha256:[0-9a-f]{8}", slice_label(where))
    hidden = slice_label("user=alice@example.com", hashed=True)
    assert re.fullmatch("user=sha256:[0-9a-f]{8}", hidden)
    assert re.fullmatch("sha256:[0-9a-f]{8}", slice_label("\x00"))


def test_values_of_categories_are_no_labels() -> None:
    secret = "a value of a category"
    shown = column(
        "company",
        kind="category",
        distribution={"bins": [secret], "reference": [1.0], "current": [1.0]},
        explanation=f"'{secret}' is new.",
    )
    assert secret.encode() not in exposition([document(columns=[shown])])


ANY_TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=120)


@settings(max_examples=60)
@given(
    model=ANY_TEXT,
    features=st.lists(ANY_TEXT, min_size=1, max_size=4, unique=True),
    wheres=st.lists(ANY_TEXT, min_size=1, max_size=4, unique=True),
    number=st.floats(allow_nan=False),
)
def test_whatever_names_are_called_the_text_parses_and_no_series_is_there_twice(
    model: str, features: list[str], wheres: list[str], number: float
) -> None:
    columns = []
    for name in features:
        measures = [measure(value=number), measure(value=0.5)]
        columns.append(column("fare", measures=measures))
        columns[-1]["name"] = name
    made = document(
        model=model,
        columns=columns,
        quality=quality(metrics=[metric("auc", each, 0.5) for each in wheres]),
    )
    found = read(exposition([made]))
    assert len(found["model_feature_drift"]) == len(features) + 1


def test_every_metric_can_be_made() -> None:
    timed: Any = {**large_document(), "duration_seconds": 3.0}
    found = samples([check_document(timed)], Limits(), {("taxi", "drift"): 1})
    found["penstock_documents_unreadable"] = {(): 0}
    assert set(found) == set(METRICS)


@pytest.mark.prometheus
@pytest.mark.parametrize("name", DOCUMENTS)
def test_promtool_has_nothing_to_say(name: str) -> None:
    text = exposition(
        [DOCUMENTS[name](), document(model='a "model"\nwith \\ odd name')],
        retrains={("taxi", "drift"): 1},
        unreadable=0,
    )
    done = tool("promtool", "check", "metrics", given=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
