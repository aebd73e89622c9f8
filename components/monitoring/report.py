"""The page of a watched model: one HTML file that needs nothing else, no network.

It shows one document: the verdict first, then what changed and where. The same document
gives the same bytes. What does not fit is left out, and the page says so.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penstock.components.evaluation import drawing, pages
from penstock.components.monitoring import figures
from penstock.components.monitoring.document import (
    STATES,
    BudgetOf,
    ColumnOf,
    Document,
    MeasureOf,
)
from penstock.components.monitoring.report_quality import quality_shown

PAGE_FILE = "report.html"
"""Its name in the folder of a DriftVerdict or a QualityVerdict."""

MAX_BYTES = 300_000
"""The page is smaller than this."""

TONES = {
    "alert": "failed",
    "drift": "failed",
    "violated": "failed",
    "watch": "inconclusive",
    "warning": "inconclusive",
    "insufficient_data": "left",
    "unchecked": "left",
    "ok": "passed",
    "holds": "passed",
}
"""How a state looks; its word stands beside, so that no color alone tells it."""

_VERDICTS = {
    "alert": "Something changed, by more than chance and by enough to matter.",
    "watch": "Something may be changing. It is not yet an alert.",
    "ok": "Nothing changed by enough to matter.",
    "insufficient_data": "The data cannot tell.",
}

_MEASURES = 24  # of a column, more than there are kinds


@dataclasses.dataclass(frozen=True)
class _Limits:
    """How much of each kind the page shows."""

    reasons: int = 40
    cards: int = 24
    metrics: int = 150
    trends: int = 24
    columns: int = 500
    others: int = 60

    def lowered(self) -> _Limits:
        parts = dataclasses.asdict(self)
        return _Limits(**{name: most * 4 // 5 for name, most in parts.items()})


def render(document: Document) -> str:
    """Return the page: HTML with its style, its script and its drawings inside.

    Everything that comes from data is escaped, and a Content-Security-Policy allows
    nothing but the page's own style and script. Without the script all is there; with
    it tables sort and the table of the columns filters.

    Args:
        document: What to show, as `read_document` or `check_document` returns it.

    Returns:
        Text of fewer than `MAX_BYTES` bytes of UTF-8.
    """
    limits = _Limits()
    page = _page(document, limits)
    while len(page.encode()) >= MAX_BYTES:
        # Very many columns that changed, or long names in a script of wide letters.
        limits = limits.lowered()
        page = _page(document, limits)
    return page


def _page(document: Document, limits: _Limits) -> str:
    columns = _by_weight(document["columns"])
    changed = [each for each in columns if each["state"] in ("alert", "watch")]
    template = pages.template(Path(__file__).with_name("report.html.jinja"))
    text = template.render(
        document=document,
        file="quality.json" if document["quality"] else "drift.json",
        tones=TONES,
        sentence=_VERDICTS[document["state"]],
        counts=_counts(document),
        facts=_facts(document),
        reasons=document["reasons"][: limits.reasons],
        cards=[_card(each) for each in changed[: limits.cards]],
        changed=len(changed),
        rows=[_row(each, index) for index, each in _numbered(columns, limits)],
        quality=quality_shown(
            document["quality"], limits.metrics, limits.trends, limits.others
        ),
        skew=document["skew"],
        skew_columns=_gravest(document["skew"], limits),
        multivariate=document["multivariate"],
        multivariate_columns=_told_columns(document, limits),
        decided=_decided(document),
        percent=figures.percent,
        probability=figures.probability,
        ratio=figures.ratio,
        short=figures.short,
        wide=figures.WIDE,
        high=figures.HIGH,
    )
    return text + "\n"


def _by_weight(columns: Iterable[ColumnOf]) -> list[ColumnOf]:
    """Return columns: by rank, then by state, then by name."""
    return sorted(
        columns,
        key=lambda each: (
            each["rank"] is None,
            each["rank"] or 0,
            STATES.index(each["state"]),
            each["name"],
        ),
    )


def _numbered(
    columns: list[ColumnOf], limits: _Limits
) -> list[tuple[int | None, ColumnOf]]:
    """Return columns with the number of their card, if they have one."""
    numbered: list[tuple[int | None, ColumnOf]] = []
    cards = 0
    for each in columns[: limits.columns]:
        has_card = each["state"] in ("alert", "watch") and cards < limits.cards
        cards += has_card
        numbered.append((cards if has_card else None, each))
    return numbered


def _counts(document: Document) -> list[tuple[str, str, str]]:
    """Return how many columns and slices are in each state: tone, number, words."""
    counts: list[tuple[str, str, str]] = []
    parts = [("column", Counter(each["state"] for each in document["columns"]))]
    if document["quality"]:
        metrics = document["quality"]["metrics"]
        parts.append(("metric", Counter(each["state"] for each in metrics)))
    for noun, states in parts:
        for state in STATES:
            if count := states[state]:
                nouns = noun if count == 1 else f"{noun}s"
                words = f"{count:,} {nouns}: {words_of(state)}"
                counts.append((TONES[state], state, words))
    return counts


def words_of(state: str) -> str:
    """Return a state as texts have it: `insufficient data`."""
    return state.replace("_", " ")


def _facts(document: Document) -> list[tuple[str, str]]:
    window, reference = document["window"], document["reference"]
    versions = document.get("versions") or {}
    version = document["model_version"]
    told = f", version {version}" if version else ""
    if len(versions) > 1:
        told = ", versions " + ", ".join(
            f"{name} ({rows:,} rows)" for name, rows in sorted(versions.items())
        )
    facts = [
        ("Model", document["model"] + told),
        ("Window", f"{_instant(window['start'])} to {_instant(window['end'])} UTC"),
        ("Rows", f"{document['rows']:,}"),
    ]
    if reference:
        made_of = reference["model_version"]
        facts += [
            (
                "Reference",
                f"{reference['rows']:,} rows"
                + (f" of version {made_of}" if made_of else "")
                + (", of the same time of the week" if reference["seasonal"] else ""),
            ),
            ("Reference id", reference["id"]),
        ]
    else:
        facts.append(("Reference", "none"))
    return [*facts, ("Made at", f"{_instant(document['made_at'])} UTC")]


def _instant(text: str) -> str:
    """Return 2026-11-30 04:05 of 2026-11-30T04:05:00Z; seconds only if there are."""
    return text.replace("T", " ").removesuffix("Z").removesuffix(":00")


@dataclasses.dataclass(frozen=True)
class _Card:
    """A column that changed, in full."""

    column: ColumnOf
    histogram: figures.Histogram | None
    measures: list[MeasureOf]


def _card(column: ColumnOf) -> _Card:
    distribution = column["distribution"]
    measures = sorted(column["measures"], key=lambda each: -(each["ratio"] or 0.0))
    return _Card(
        column,
        figures.histogram(distribution, is_ordered=column["kind"] == "numeric")
        if distribution and distribution["bins"]
        else None,
        measures[:_MEASURES],
    )


@dataclasses.dataclass(frozen=True)
class _Row:
    """A column in a row of the table; `card` is the number of its card."""

    column: ColumnOf
    card: int | None
    strongest: MeasureOf | None
    paths: tuple[str, str]


def _row(column: ColumnOf, card: int | None) -> _Row:
    distribution = column["distribution"]
    return _Row(
        column,
        card,
        max(column["measures"], key=lambda each: each["ratio"] or 0.0, default=None),
        figures.small(distribution, is_ordered=column["kind"] == "numeric")
        if distribution and distribution["bins"]
        else ("", ""),
    )


def _gravest(skew: Any, limits: _Limits) -> list[Any]:
    if skew is None:
        return []
    columns = sorted(
        skew["columns"],
        key=lambda each: (
            STATES.index(each["state"]),
            -(each["different"] / max(each["compared"], 1)),
            each["name"],
        ),
    )
    return columns[: limits.others]


def _told_columns(document: Document, limits: _Limits) -> list[str]:
    found = document["multivariate"]
    return found["columns"][: limits.others] if found else []


def _decided(document: Document) -> list[str]:
    """Return the budget and the thresholds in sentences."""
    budget = document["budget"]
    if budget is None:
        return ["No budget of false alerts is in force, so nothing is called drift."]
    sentences = [*_allowance(budget), *_rule(budget)]
    if gates := _gates(document["columns"]):
        sentences += [
            f"An effect counts from: {gates}.",
            "The ratio of a measure is 1 where it is as much as counts in one window: "
            "it is the smaller one of effect by threshold and value by critical value.",
        ]
    return sentences


def _allowance(budget: BudgetOf) -> list[str]:
    allowed = figures.short(budget["alerts_per_month"])
    sentence = f"{allowed} false alerts a month are allowed for this model"
    if budget["alerts_per_month"] == 1:
        sentence = "One false alert a month is allowed for this model"
    expected, length = budget["expected_alerts_per_month"], budget["run_length_windows"]
    if expected is not None:
        sentence += (
            f"; replayed without drift, the rule gives {figures.short(expected)}"
        )
    if length is not None:
        sentence += f", one in {figures.short(length)} windows"
    return [sentence + "."]


def _rule(budget: BudgetOf) -> list[str]:
    level = budget["level"]
    sentences = [
        f"What is watched alerts if it is significant in {budget['k']} of the last "
        f"{budget['m']} windows and its effect is large enough to matter."
    ]
    if level is not None:
        sentences.append(
            f"The significance level of the whole model is "
            f"{figures.short(level)}, shared by all that is watched."
        )
    sentences.append(
        f"A window of fewer than {budget['min_rows']:,} rows decides nothing."
    )
    return sentences


def _gates(columns: Iterable[ColumnOf]) -> str:
    """Return the least effects that count, by kind of measure; a range if they vary."""
    found: dict[str, set[float]] = {}
    for column in columns:
        for measure in column["measures"]:
            if measure["threshold"] is not None:
                found.setdefault(measure["type"], set()).add(measure["threshold"])
    texts = []
    for kind, thresholds in sorted(found.items()):
        least, most = map(figures.short, (min(thresholds), max(thresholds)))
        texts.append(
            f"{drawing.shown(kind)} {least}" + ("" if least == most else f" to {most}")
        )
    return ", ".join(texts)
