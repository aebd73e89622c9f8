"""What a window came to as JUnit XML, which CI servers read: one test case per check.

It keeps to what the schemas in use agree on, those of Ant and of Jenkins: suites have
their properties, cases and outputs in this order, and a case has one outcome at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal
from xml.etree import ElementTree

from penstock.components.evaluation.drawing import shown
from penstock.components.monitoring.document import ColumnOf, Document, QualityOf

_MOST_NAME, _MOST_SENTENCE = 300, 4_000

_Outcome = Literal["passed", "watch", "failed", "skipped"]

_OUTCOMES: dict[str, _Outcome] = {
    "ok": "passed",
    "watch": "watch",
    "warning": "watch",
    "alert": "failed",
    "drift": "failed",
    "insufficient_data": "skipped",
    "holds": "passed",
    "violated": "watch",
    "unchecked": "skipped",
}


@dataclasses.dataclass(frozen=True)
class _Check:
    suite: str
    name: str
    outcome: _Outcome
    sentence: str


def render_junit(document: Document) -> str:
    """Return a document as JUnit XML.

    An alert is a failure, too few rows skip a case, and what is watched passes with its
    sentence in the suite's output. Every column, slice, metric, trend and detector is a
    case, and the window as a whole is one, so that no report is without any. A case
    fails only where the window as a whole is an alert, as the exit code does.

    Characters that XML cannot have are written as Python escapes them.
    """
    suites = ElementTree.Element("testsuites")
    checks = list(_checks(document))
    if document["state"] != "alert":
        # A detector alone, or a column within a budget that is kept, fails no build.
        checks = [
            dataclasses.replace(each, outcome="watch")
            if each.outcome == "failed"
            else each
            for each in checks
        ]
    for number, name in enumerate(dict.fromkeys(each.suite for each in checks)):
        own = [each for each in checks if each.suite == name]
        suites.append(_suite(document, name, number, own))
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(
    document: Document, name: str, number: int, checks: list[_Check]
) -> ElementTree.Element:
    package = shown(f"penstock.{document['model']}", _MOST_NAME)
    outcomes = [each.outcome for each in checks]
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        package=package,
        id=str(number),
        # Ant's schema allows no time zone; it is UTC.
        timestamp=document["made_at"][:19],
        hostname="localhost",
        tests=str(len(checks)),
        failures=str(outcomes.count("failed")),
        errors="0",
        skipped=str(outcomes.count("skipped")),
        time="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    reference = document["reference"]
    for key, value in (
        ("model", document["model"]),
        ("model_version", document["model_version"] or ""),
        ("window", document["window"]["name"]),
        ("window_start", document["window"]["start"]),
        ("window_end", document["window"]["end"]),
        ("rows", str(document["rows"])),
        ("reference", reference["id"] if reference else ""),
    ):
        ElementTree.SubElement(
            properties, "property", name=key, value=shown(value, _MOST_NAME)
        )
    for check in checks:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{package}.{name}",
            name=shown(check.name, _MOST_NAME),
            time="0",
        )
        sentence = shown(check.sentence, _MOST_SENTENCE)
        if check.outcome == "failed":
            failure = ElementTree.SubElement(
                case, "failure", type="alert", message=sentence
            )
            failure.text = sentence
        elif check.outcome == "skipped":
            # Its message is an attribute that Jenkins knows and Ant lets pass.
            ElementTree.SubElement(case, "skipped", message=sentence)
    watched = [
        f"{shown(each.name, _MOST_NAME)}: {shown(each.sentence, _MOST_SENTENCE)}\n"
        for each in checks
        if each.outcome == "watch"
    ]
    ElementTree.SubElement(suite, "system-out").text = "".join(watched)
    ElementTree.SubElement(suite, "system-err")
    return suite


def _checks(document: Document) -> Iterator[_Check]:
    yield _Check(
        "window",
        f"window {document['window']['name']}",
        _OUTCOMES[document["state"]],
        " ".join(document["reasons"]) or f"The window is {_words(document['state'])}.",
    )
    for column in document["columns"]:
        name = column["name"]
        yield _Check(
            "drift", name, _OUTCOMES[column["state"]], _sentence_of_column(column)
        )
        for each in column.get("slices", []):
            yield _Check(
                "drift",
                f"{name} in {each['slice']}",
                _OUTCOMES[each["state"]],
                each["sentence"] or f"'{name}' is {_words(each['state'])} there.",
            )
    if (together := document["multivariate"]) and (state := together.get("state")):
        yield _Check(
            "drift",
            "columns together",
            _OUTCOMES[state],
            together.get("sentence", "") or f"Together they are {_words(state)}.",
        )
    if skew := document["skew"]:
        yield _Check("skew", "all columns", _OUTCOMES[skew["state"]], skew["sentence"])
        for differing in skew["columns"]:
            yield _Check(
                "skew",
                differing["name"],
                _OUTCOMES[differing["state"]],
                differing["sentence"],
            )
    if quality := document["quality"]:
        yield from _checks_of_quality(quality)


def _checks_of_quality(quality: QualityOf) -> Iterator[_Check]:
    for metric in quality["metrics"]:
        name = f"{metric['metric']} in {metric['slice']}"
        value = "not defined" if metric["value"] is None else f"{metric['value']:.6g}"
        yield _Check(
            "quality",
            name + " (estimated)" * metric["estimated"],
            _OUTCOMES[metric["state"]],
            metric.get("sentence", "")
            or f"{name} is {value} on {metric['rows']:,} rows: "
            f"{_words(metric['state'])}.",
        )
    for trend in quality["trends"]:
        name = f"{trend['metric']} in {trend['slice']}"
        yield _Check(
            "quality",
            f"{name} over time",
            _OUTCOMES[trend["state"]],
            trend.get("sentence", "") or f"{name} is {_words(trend['state'])}.",
        )
    if estimate := quality["estimate"]:
        yield _Check(
            "quality",
            f"assumption of {estimate['method']}",
            _OUTCOMES[estimate["assumption"]],
            estimate["sentence"],
        )
    for detector in quality["concept"]:
        yield _Check(
            "quality",
            detector["detector"],
            _OUTCOMES[detector["state"]],
            detector["sentence"],
        )


def _sentence_of_column(column: ColumnOf) -> str:
    """Return what is said of a column: its explanation, or its strongest measure's."""
    if column["explanation"]:
        return column["explanation"]
    strongest = max(
        column["measures"], key=lambda each: each["ratio"] or 0.0, default=None
    )
    told = strongest["sentence"] if strongest else ""
    return told or f"'{column['name']}' is {_words(column['state'])}."


def _words(state: str) -> str:
    words = {
        "ok": "as it was",
        "watch": "to be watched",
        "alert": "an alert",
        "insufficient_data": "not known, for there are too few rows",
    }
    return words[state]
