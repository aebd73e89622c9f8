"""A window as JUnit XML: its cases, their outcomes, and what no name can break."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree  # type: ignore[import-untyped]

from penstock.components.monitoring.document import Document, check_document
from penstock.components.monitoring.junit import render_junit
from tests.components.monitoring.documents import (
    DOCUMENTS,
    alert_document,
    column,
    document,
    metric,
    ok_document,
    quality,
    trend,
    watch_document,
)
from tests.pages import HOSTILE

SCHEMA = etree.XMLSchema(
    etree.parse(str(Path(__file__).parents[2] / "resources" / "junit.xsd"))
)


def parsed(watched: Document) -> ElementTree.Element:
    """Return the XML of a document, which is as the schema says."""
    text = render_junit(watched)
    SCHEMA.assertValid(etree.fromstring(text.encode()))
    return ElementTree.fromstring(text)


def outcomes(watched: Document) -> dict[str, str]:
    """Return what each case came to, by its suite and name."""
    found = {}
    for case in parsed(watched).iter("testcase"):
        (outcome,) = [each.tag for each in case] or ["passed"]
        suite = case.attrib["classname"].rpartition(".")[2]
        name = f"{suite}: {case.attrib['name']}"
        assert name not in found
        found[name] = outcome
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_every_state_are_valid_and_count_right(name: str) -> None:
    watched = DOCUMENTS[name]()
    suites = parsed(watched)
    for number, suite in enumerate(suites):
        cases = suite.findall("testcase")
        assert suite.attrib["id"] == str(number)
        assert int(suite.attrib["tests"]) == len(cases)
        for key, tag in (("failures", "failure"), ("skipped", "skipped")):
            count = sum(case.find(tag) is not None for case in cases)
            assert int(suite.attrib[key]) == count
        assert suite.attrib["errors"] == "0"
        assert suite.attrib["timestamp"] == "2026-12-01T04:00:12"
        assert suite.attrib["hostname"] == "localhost"
    failures = [*suites.iter("failure")]
    assert bool(failures) == (watched["state"] == "alert")


def test_every_column_and_slice_is_a_case() -> None:
    found = outcomes(alert_document(1))
    assert found == {
        "window: window 2026-11-30": "failure",
        "drift: prediction": "passed",
        "drift: big_tipper": "passed",
        "drift: fare": "failure",
        "drift: fare in payment_type=Cash": "failure",
        "drift: fare in payment_type=Dispute": "skipped",
        "drift: payment_type": "failure",
        "drift: feature_000": "passed",
        "drift: columns together": "passed",
        "skew: all columns": "passed",
        "skew: tips": "passed",
        "skew: fare": "passed",
        "quality: auc in overall": "passed",
        "quality: auc in payment_type=Cash": "failure",
        "quality: auc in payment_type=Credit Card": "passed",
        "quality: auc in payment_type=Dispute": "skipped",
        "quality: calibration in overall": "passed",
        "quality: auc in unlabeled (estimated)": "passed",
        "quality: auc in overall over time": "passed",
        "quality: auc in payment_type=Cash over time": "failure",
        "quality: assumption of CBPE": "passed",
        "quality: ADWIN": "passed",
        "quality: Page-Hinkley": "passed",
    }


def test_a_failure_says_the_sentence_and_what_is_watched_is_told() -> None:
    suites = {suite.attrib["name"]: suite for suite in parsed(alert_document(1))}
    assert list(suites) == ["window", "drift", "skew", "quality"]
    (fare,) = suites["drift"].findall("testcase[@name='fare']")
    assert fare.attrib["classname"] == "penstock.taxi.drift"
    (failure,) = fare
    sentence = (
        "'fare' is 0.35 standard deviations higher than in the reference, most of all "
        "where payment_type is Cash."
    )
    assert failure.attrib == {"type": "alert", "message": sentence}
    assert failure.text == sentence
    assert suites["drift"].findtext("system-out") == (
        "prediction: The score is 0.1 standard deviations higher.\n"
        "columns together: The columns drift together in 1 of the last 3 windows.\n"
    )
    (window,) = suites["window"].iter("failure")
    assert (window.text or "").startswith("'fare' drifted in 3 of the last 3 windows: ")
    properties = {
        each.attrib["name"]: each.attrib["value"]
        for each in suites["window"].iter("property")
    }
    assert properties["rows"] == "5000"
    assert properties["reference"].startswith("sha256:4f1c")


def test_nothing_fails_where_the_window_is_no_alert() -> None:
    found = quality(
        concept=[{"detector": "DDM", "state": "drift", "sentence": "The loss rose."}],
        metrics=[],
        trends=[],
    )
    assert found["estimate"]
    found["estimate"]["assumption"] = "violated"
    watched = document(quality=found, columns=[column("fare", "alert")])
    assert set(outcomes(watched).values()) == {"passed"}
    told = "".join(each.text or "" for each in parsed(watched).iter("system-out"))
    assert "DDM: The loss rose.\n" in told
    assert "assumption of CBPE: Scores stay calibrated" in told
    assert set(outcomes(watch_document()).values()) == {"passed"}


def test_what_has_no_sentence_gets_one() -> None:
    watched = alert_document(0)
    watched["reasons"] = []
    watched["columns"] = [
        column("plain", "alert", measures=[]),
        column("measured", "alert", shift=0.5),
    ]
    watched["multivariate"] = {
        "p_value": 0.001,
        "auc": 0.6,
        "columns": [],
        "state": "alert",
    }
    watched["skew"] = None
    watched["quality"] = quality(
        metrics=[metric("auc", "a=1", None, "alert", rows=1_234)],
        trends=[trend("a=1", 0.9, 0.0, "alert")],
        concept=[],
        estimate=None,
    )
    assert {each.text for each in parsed(watched).iter("failure")} == {
        "The window is an alert.",
        "'plain' is an alert.",
        "The ks effect is 0.2, of 0.03 that count.",
        "Together they are an alert.",
        "auc in a=1 is not defined on 1,234 rows: an alert.",
        "auc in a=1 is an alert.",
    }


def test_a_report_of_too_few_rows_is_skipped_not_passed() -> None:
    found = Counter(outcomes(DOCUMENTS["insufficient"]()).values())
    assert found == {"skipped": 5}
    assert outcomes(DOCUMENTS["observing"]()) == {
        "window: window 2026-11-30": "skipped"
    }
    (skipped,) = parsed(DOCUMENTS["observing"]()).iter("skipped")
    assert skipped.attrib["message"] == (
        "The model is observed for 9 more days before it has a reference."
    )


def named(text: str) -> Document:
    """Return an alert that says one text wherever data is shown."""
    watched: Any = alert_document(0)
    watched |= {"model": text or "m", "model_version": text, "reasons": [text]}
    watched["window"]["name"] = text or "w"
    watched["columns"] = [column(text, "alert", explanation=text)]
    watched["quality"]["metrics"] = [metric(text, text, 0.5, "alert", sentence=text)]
    watched["skew"]["sentence"] = text
    return check_document(watched)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_leave_valid_xml(text: str) -> None:
    suites = parsed(named(text))
    assert [suite.attrib["tests"] for suite in suites] == ["1", "2", "3", "6"]


def test_what_xml_cannot_have_is_written_as_an_escape() -> None:
    suites = parsed(named("a\x00b\x1b\ud800\ufffe\nc"))
    names = [case.attrib["name"] for case in suites.iter("testcase")]
    assert r"a\x00b\x1b\ud800\ufffe\nc" in names


@settings(max_examples=60)
@given(st.text(st.characters()))
def test_any_name_leaves_valid_xml(text: str) -> None:
    parsed(named(text))


def test_the_same_document_gives_the_same_bytes() -> None:
    assert render_junit(ok_document()) == render_junit(ok_document())
