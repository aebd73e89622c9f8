"""The page of an evaluation: what it says, what cannot change it, how it works."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.evaluation.blessing import (
    ChangeBound,
    Interval,
    Measured,
    MetricName,
    Outcome,
    SliceMetrics,
    Slicing,
    Threshold,
    ValueBound,
    Word,
    judge,
)
from penstock.components.evaluation.drawing import shown
from penstock.components.evaluation.report import (
    MAX_BYTES,
    MAX_PLOTS,
    Curves,
    Plots,
    Reason,
    Report,
    Row,
    plotted_slices,
    reasons_of,
    render,
    rows_of,
)
from tests.browser import Browser, Page, browser
from tests.components.evaluation.reports import large_report, taxi_report
from tests.pages import CONTRASTS, HOSTILE, Seen


def simple(**changes: object) -> Report:
    """Return a small report of one row, with changes."""
    report = Report(
        title="Tips",
        examples="trips",
        candidate="new",
        baseline=None,
        verdict=Word.BLESSED,
        blessed=True,
        reasons=(Reason("'auc' is fine.", Outcome.PASSED),),
        table=(Row("all rows", "auc", 1_234, 0.8125),),
        rows=1_234,
        splits=("eval",),
        seed=7,
    )
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


def of_text(text: str) -> Report:
    """Return a report that says one text wherever data is shown."""
    report = taxi_report()
    return dataclasses.replace(
        report,
        title=text,
        candidate=text,
        baseline=text,
        method=text,
        splits=(text,),
        table_file=text,
        reasons=(Reason(text, Outcome.FAILED),),
        table=(dataclasses.replace(report.table[0], slice=text, metric=text),),
        plots=(dataclasses.replace(report.plots[0], slice=text),),
    )


@pytest.mark.parametrize(
    ("verdict", "blessed", "sentence"),
    [
        (Word.BLESSED, True, "The candidate may be pushed."),
        (Word.NOT_BLESSED, False, "The candidate is not to be pushed."),
        (
            Word.INCONCLUSIVE,
            False,
            "The data cannot tell whether every threshold is met. The candidate is not "
            "to be pushed.",
        ),
        (
            Word.INCONCLUSIVE,
            True,
            "The data cannot tell whether every threshold is met. The candidate may be "
            "pushed.",
        ),
        (
            Word.NO_THRESHOLDS,
            False,
            "Nothing was asked of the metrics. The candidate is not to be pushed.",
        ),
    ],
)
def test_the_verdict_is_on_top(verdict: Word, blessed: bool, sentence: str) -> None:
    text = Seen(render(simple(verdict=verdict, blessed=blessed))).text
    word = verdict.value.replace("_", " ")
    assert text.index(f"\n{word}\n{sentence}\n") < text.index("\nReasons\n")


def test_reasons_against_come_first() -> None:
    reasons = (
        Reason("Passed.", Outcome.PASSED),
        Reason("Ignored.", Outcome.IGNORED),
        Reason("Left out.", Outcome.LEFT_OUT),
        Reason("Unsure.", Outcome.INCONCLUSIVE),
        Reason("Failed.", Outcome.FAILED),
        Reason("Of none."),
    )
    text = Seen(render(simple(reasons=reasons))).text
    places = [text.index(each.sentence) for each in reasons]
    assert places == sorted(places, reverse=True)
    assert "3 checks passed or do not count" in text
    for word in ("failed", "inconclusive", "left out", "ignored", "passed"):
        assert f"\n1 {word}\n" in text


def test_a_report_of_nothing_says_so() -> None:
    page = Seen(render(simple(reasons=(), table=())))
    assert "There are none." in page.text
    assert "No metric was computed." in page.text
    assert not {"table", "svg", "section.plot", "select"} & set(page.tags)


def test_facts_are_said() -> None:
    text = Seen(render(taxi_report())).text
    for fact in (
        "taxi/Trainer.model, run 2024-05-02-101500",
        "taxi/Trainer.model, run 2024-04-25-101412 (version 12)",
        "\nExamplesCsvExampleGen.examples, split eval\n",
        "\nRows15,002\n",
        "95 %, Poisson bootstrap, 1,000 replicates, seed 0",
    ):
        assert fact in text
    assert "\nIntervalsnone\n" in Seen(render(simple())).text
    both = Seen(render(simple(splits=("eval", "test")))).text
    assert "\nExamplestrips, splits eval, test\n" in both


def test_numbers_are_shown_alike_within_a_metric() -> None:
    row = Row("all rows", "auc", 12_345, 0.81, 0.8, 0.8255, 0.8, 0.79, 0.81, 0.01)
    rows = (
        dataclasses.replace(row, difference_lower=-1e-6, difference_upper=0.02),
        Row("a=1", "auc", 5, math.nan, None, None, None, difference=-math.inf),
        Row("a=2", "auc", None, None),
    )
    text = Seen(render(simple(baseline="old", table=rows))).text
    assert (
        "12,3450.8100[0.8000, 0.8255]0.8000[0.7900, 0.8100]+0.0100[−1.0e−6, +0.0200]"
    ) in text.replace("\n", "")
    assert "a=15NaN–−∞" in text.replace("\n", "")
    assert "a=2––––" in text.replace("\n", "")


def test_without_a_baseline_there_is_no_comparison() -> None:
    text = Seen(render(simple())).text
    assert "\nBaselinenone\n" in text
    assert "Difference" not in text
    assert "minus" not in text


def test_the_page_asks_for_nothing() -> None:
    text = render(taxi_report())
    page = Seen(text)
    links = {value for _, name, value in page.attributes if name == "href"}
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    names = {name for _, name, _ in page.attributes}
    assert not names & {"src", "srcset", "style", "action", "background", "ping"}
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in text
    assert "@import" not in text


def test_only_its_own_style_and_script_are_allowed() -> None:
    page = render(taxi_report())
    (policy,) = re.findall(r'Content-Security-Policy content="([^"]*)"', page)
    parts = dict(part.split(" ", 1) for part in html.unescape(policy).split("; "))
    assert parts["default-src"] == "'none'"
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (code,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert parts[kind] == f"'sha256-{digest}'"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_data_cannot_change_the_page(text: str) -> None:
    harmless, hostile = Seen(render(of_text("taxi"))), Seen(render(of_text(text)))
    assert hostile.tags == harmless.tags
    assert hostile.attributes == harmless.attributes


@settings(max_examples=30)
@given(st.text(max_size=40))
def test_no_text_changes_the_page(text: str) -> None:
    row = Row(text, text, 1, 0.5)
    page = render(simple(table=(row,), reasons=(Reason(text),), title=text))
    harmless = Seen(
        render(
            simple(
                table=(dataclasses.replace(row, slice="x", metric="x"),),
                reasons=(Reason("x"),),
            )
        )
    )
    assert Seen(page).tags == harmless.tags
    assert Seen(page).attributes == harmless.attributes


NUMBERS = st.none() | st.floats()
BOUNDS = st.lists(st.floats(), max_size=2).map(tuple)
PAIRS = st.lists(st.tuples(st.floats(), st.floats()), max_size=4)
TRIPLES = st.lists(st.tuples(st.floats(), st.floats(), st.floats()), max_size=4)
CURVES = st.builds(Curves, PAIRS, PAIRS, TRIPLES)
ROWS = st.builds(
    Row,
    st.sampled_from(["all rows", "a=1"]),
    st.sampled_from(["auc", "f1"]),
    st.none() | st.integers(0, 10**15),
    *[NUMBERS] * 9,
    bounds=BOUNDS,
    difference_bounds=BOUNDS,
)


@settings(max_examples=60)
@given(st.lists(ROWS, max_size=4), st.builds(Plots, st.text(), CURVES, CURVES))
def test_any_numbers_make_a_page(table: list[Row], plots: Plots) -> None:
    page = render(simple(baseline="old", table=tuple(table), plots=(plots,)))
    paths = [value or "" for _, name, value in Seen(page).attributes if name == "d"]
    assert all(re.fullmatch(r"[MHVhvl\d -]*", path) for path in paths)


def test_long_and_wild_texts_are_cut_and_their_controls_seen() -> None:
    text = html.unescape(render(of_text("y" * 10_000)))
    assert f">{'y' * 80}…<" in text
    assert "y" * 301 not in text
    page = render(of_text("a\u202eb\x00c\nd\ud800"))
    assert r"<bdi>a\u202eb\x00c\nd\ud800</bdi>" in page


def test_the_same_report_gives_the_same_bytes() -> None:
    code = (
        "import hashlib\n"
        "from penstock.components.evaluation.report import render\n"
        "from tests.components.evaluation.reports import taxi_report\n"
        "print(hashlib.sha256(render(taxi_report()).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    report = taxi_report()
    digests.add(hashlib.sha256(render(report).encode()).hexdigest())
    table, plots = list(report.table), list(report.plots)
    random.Random(3).shuffle(table)
    random.Random(3).shuffle(plots)
    shuffled = dataclasses.replace(report, table=tuple(table), plots=tuple(plots))
    digests.add(hashlib.sha256(render(shuffled).encode()).hexdigest())
    assert len(digests) == 1


def test_a_thousand_slices_fit_and_the_page_says_what_is_left_out() -> None:
    report = large_report(slices=1_000, metrics=5)
    page = render(report)
    assert len(page.encode()) < MAX_BYTES
    shown = page.count("<tr><th scope=row>")
    assert shown > 250
    text = Seen(page).text
    assert f"{5_000 - shown:,} of 5,000 rows are left out here" in text
    assert "table.parquet, beside this page, has all of them." in text
    plots = page.count("<section class=plot")
    assert plots > 5
    assert f"Curves are drawn for {plots} of 1,000 slices" in text
    told = text.count("' in ") // 3  # each sentence names its slice three times
    left = len(report.reasons) - page.count("<li>")
    assert told
    assert f"{left:,} of {len(report.reasons):,} reasons are left out here" in text


def test_wide_letters_fit_too() -> None:
    report = large_report(slices=300)
    wide = "\U00012000" * 300
    report = dataclasses.replace(
        report,
        title=wide,
        candidate=wide,
        table=tuple(
            dataclasses.replace(row, slice=f"{index}{wide}", metric=wide)
            for index, row in enumerate(report.table)
        ),
        reasons=tuple(
            dataclasses.replace(each, sentence=wide) for each in report.reasons
        ),
    )
    page = render(report)
    assert 0.5 * MAX_BYTES < len(page.encode()) < MAX_BYTES


def test_slices_worth_a_look_come_first() -> None:
    table = [
        Row("small", "auc", 10),
        Row("large", "auc", 1_000, verdict=Outcome.PASSED),
        Row("unsure", "auc", 20, verdict=Outcome.INCONCLUSIVE),
        Row("bad", "auc", 5, verdict=Outcome.PASSED),
        Row("bad", "f1", 5, verdict=Outcome.FAILED),
        Row("all rows", "auc", 2_000),
        Row("also large", "auc", 1_000),
    ]
    expected = "all rows", "bad", "unsure", "also large", "large", "small"
    assert plotted_slices(table) == expected
    assert plotted_slices(table, 2) == expected[:2]
    page = render(simple(table=tuple(table)))
    rows = re.findall(r"<tr><th scope=row><bdi>(.*?)</bdi>", page)
    assert rows == [*expected, "bad"]


def test_curves_that_a_model_has_not_are_not_drawn() -> None:
    line = ((0.0, 0.0), (math.nan, 0.5), (1.0, 1.0))
    report = simple(
        baseline="old", plots=(Plots("all rows", Curves(roc=line), Curves()),)
    )
    page = render(report)
    assert page.count("<figure>") == 1
    assert '<path class=c d="M140 1050l1020-1020"/>' in page


def test_rows_of_an_evaluation_have_intervals_verdicts_and_bounds() -> None:
    auc, loss = MetricName("auc"), MetricName("loss")
    both = Measured(
        0.9, 0.8, 0.1, Interval(0.85, 0.95), Interval(0.75, 0.85), Interval(0.0, 0.2)
    )
    measured = [
        SliceMetrics((), {auc: both, loss: Measured(None)}, rows=100),
        SliceMetrics((("hour", 7),), {}, is_too_small=True, rows=3),
        SliceMetrics((("hour", 7),), {auc: Measured(None, None, -0.1)}, ()),
    ]
    judgment = judge(
        [
            Threshold(auc, ValueBound(lower=0.95), Slicing()),
            Threshold(auc, ChangeBound(absolute=-0.01, relative=0.5), Slicing()),
            Threshold(auc, ValueBound(upper=1.0), Slicing.of(["hour"], {})),
        ],
        measured,
        min_slice_size=10,
    )
    failed, left = Outcome.FAILED, Outcome.LEFT_OUT
    numbers = 0.9, 0.85, 0.95, 0.8, 0.75, 0.85, 0.1, 0.0, 0.2
    assert rows_of(measured, judgment.findings) == (
        Row("all rows", "auc", 100, *numbers, failed, (0.95,), (-0.01, 0.4)),
        Row("all rows minus hour=7", "auc", difference=-0.1),
        Row("hour=7", "auc", 3, verdict=left, bounds=(1.0,)),
    )
    assert rows_of(measured[2:]) == (
        Row("all rows minus hour=7", "auc", difference=-0.1),
    )


def test_reasons_of_a_judgment_have_their_outcomes() -> None:
    auc = MetricName("auc")
    threshold = Threshold(auc, ValueBound(lower=0.5), Slicing())
    judgment = judge([threshold], [SliceMetrics((), {auc: Measured(0.75)})])
    assert reasons_of(judgment) == (
        Reason("'auc' in all rows is 0.75, as asked: at least 0.5.", Outcome.PASSED),
    )
    (reason,) = reasons_of(judge([], []))
    assert reason.outcome is None


# From here on the page is looked at in Chromium.


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(running: Browser) -> Page:
    return Page(running)


def opened(page: Page, report: Report, folder: Path, **look: object) -> Path:
    """Render a report, open it, and return its file."""
    file = folder / "report.html"
    file.write_text(render(report), encoding="utf-8")
    page.look(**look)  # type: ignore[arg-type]
    page.open(file)
    return file


def column(page: Page, number: int, group: int = 0) -> list[str]:
    """Return the texts of a column as they stand in a group, hidden rows left out."""
    texts: list[str] = page.ask(
        f"[...document.querySelectorAll('tbody')[{group}].rows].slice(1)"
        f".filter(row => row.getClientRects().length)"
        f".map(row => row.cells[{number}].firstChild?.data"
        f" ?? row.cells[{number}].textContent)"
    )
    return texts


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_renders_without_requests_or_complaints_and_with_contrast(
    page: Page, tmp_path: Path, scheme: str, width: int
) -> None:
    file = opened(page, taxi_report(), tmp_path, width=width, scheme=scheme)
    page.ask("document.querySelector('details').open = true")
    contrasts = page.ask(CONTRASTS)
    assert len(contrasts) > 5
    assert {pair: ratio for pair, ratio in contrasts.items() if ratio < 4.5} == {}
    background = page.ask("getComputedStyle(document.body).backgroundColor")
    is_dark = max(map(int, re.findall(r"\d+", background))) < 64
    assert is_dark == (scheme == "dark")
    assert len(page.picture()) > 20_000  # a blank page has a tenth of that
    assert page.requests == [file.as_uri()]
    assert page.complaints == []


@pytest.mark.browser
def test_nothing_sticks_out_at_the_side(page: Page, tmp_path: Path) -> None:
    great = [
        dataclasses.replace(row, value=123_456_789.5, difference=-123_456_789.25)
        for row in taxi_report().table
    ]
    for report in (
        taxi_report(),
        of_text("wide" * 100),
        large_report(20),
        dataclasses.replace(taxi_report(), table=tuple(great)),
        simple(),
    ):
        opened(page, report, tmp_path)
        for width in (320, 360, 600, 768, 1180, 1240, 1241, 1280, 1920):
            page.look(width=width)
            assert page.ask("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_a_click_on_a_heading_sorts_up_down_and_back(
    page: Page, tmp_path: Path
) -> None:
    opened(page, taxi_report(), tmp_path)
    heads = "[...document.querySelectorAll('thead th')].map(h => h.ariaSort)"
    first = column(page, 0)
    rows = [int(text.replace(",", "")) for text in column(page, 1)]
    assert page.ask(heads) == ["none"] * 5 + [None, "none", None]

    page.click("thead th:nth-child(2) button")
    assert page.ask(heads)[1] == "ascending"
    assert [int(text.replace(",", "")) for text in column(page, 1)] == sorted(rows)
    page.click("thead th:nth-child(2) button")
    assert page.ask(heads)[1] == "descending"
    assert column(page, 1)[0] == "15,002"
    page.click("thead th:nth-child(2) button")
    assert page.ask(heads)[1] == "none"
    assert column(page, 0) == first

    page.click("thead th:nth-child(7) button")
    differences = [float(text.replace("−", "-")) for text in column(page, 6)]
    assert differences == sorted(differences)
    assert page.ask(heads) == ["none"] * 5 + [None, "ascending", None]
    for group in range(1, 5):
        values = [float(t.replace("−", "-")) for t in column(page, 6, group)]
        assert values == sorted(values)
    page.click("thead th:nth-child(3) button")
    verdicts = column(page, 2)
    assert verdicts == sorted(
        verdicts, key=["failed", "inconclusive", "left out", "passed"].index
    )
    page.click("thead th:nth-child(1) button")
    assert column(page, 0)[0] == "all rows"
    assert column(page, 0)[-1].startswith("payment_type")


@pytest.mark.browser
def test_what_is_no_number_is_sorted_last(page: Page, tmp_path: Path) -> None:
    values = {"a": 1_234.5, "b": math.nan, "c": -2.0, "d": None, "e": math.inf}
    table = tuple(Row(name, "mse", 1, value) for name, value in values.items())
    opened(page, simple(table=table), tmp_path)
    page.click("thead th:nth-child(4) button")
    assert column(page, 0) == ["c", "a", "e", "b", "d"]
    page.click("thead th:nth-child(4) button")
    assert column(page, 0) == ["e", "a", "c", "b", "d"]


@pytest.mark.browser
def test_the_keyboard_sorts_and_filters(page: Page, tmp_path: Path) -> None:
    opened(page, taxi_report(), tmp_path)
    page.ask("document.querySelector('#tools input').focus()")
    page.call("Input.insertText", text="cash")
    assert column(page, 0) == ["payment_type=Cash"]
    reached = []
    for _ in range(6):
        page.press("Tab", 9)
        reached.append(page.ask("document.activeElement.textContent.trim()"))
    assert reached[2:] == ["Slice", "Rows", "Verdict", "Candidate"]
    page.press("Enter", 13, "\r")
    sort = "document.querySelector('thead th:nth-child(4)').ariaSort"
    assert page.ask(sort) == "ascending"
    page.press(" ", 32, " ")
    assert page.ask(sort) == "descending"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.ask(outline) == "solid"


@pytest.mark.browser
def test_filters_work_together_and_count(page: Page, tmp_path: Path) -> None:
    report = taxi_report()
    opened(page, report, tmp_path)
    output = "document.querySelector('#tools output').textContent"
    assert page.ask(output) == "85 of 85 rows"
    choose = (
        "(() => {{ const each = document.querySelectorAll('#tools select')[{}];"
        "each.value = {!r}; each.dispatchEvent(new Event('input')); }})()"
    )
    page.ask(choose.format(0, "0"))
    assert page.ask(output) == "17 of 85 rows"
    seen = "[...document.querySelectorAll('tbody')].map(b => b.hidden)"
    assert page.ask(seen) == [False, True, True, True, True]
    outcomes = Counter(row.verdict for row in report.table if row.metric == "auc")
    for outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.LEFT_OUT):
        page.ask(choose.format(1, outcome.value))
        assert column(page, 2) == [outcome.value] * outcomes[outcome]
    page.ask(choose.format(1, "inconclusive"))
    page.type("#tools input", "COMPANY=")
    assert column(page, 0) == [
        row.slice
        for row in sorted(report.table, key=lambda row: -(row.rows or 0))
        if row.metric == "auc"
        and row.verdict is Outcome.INCONCLUSIVE
        and row.slice.startswith("company=")
    ]
    page.type("#tools input", "nowhere")
    assert page.ask(output) == "0 of 85 rows"
    assert page.complaints == []


@pytest.mark.browser
def test_the_curves_of_one_slice_are_seen_and_a_link_chooses(
    page: Page, tmp_path: Path
) -> None:
    opened(page, taxi_report(), tmp_path)
    seen = (
        "[...document.querySelectorAll('.plot')].filter(p => !p.hidden)"
        ".map(p => p.querySelector('h3').textContent)"
    )
    assert page.ask(seen) == ["all rows"]
    assert page.ask("document.querySelectorAll('.plot').length") == MAX_PLOTS
    page.click("tbody a[href='#p1']")
    page.ask("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    assert page.ask(seen) == ["company=Northwest Management LLC"]
    choice = "document.querySelector('#choice select').value"
    assert page.ask(choice) == "1"
    assert page.ask("scrollY") > 1_000
    page.ask(
        "(() => { const each = document.querySelector('#choice select');"
        "each.value = '2'; each.dispatchEvent(new Event('input')); })()"
    )
    assert page.ask(seen) == ["company=Dispatch Taxi Affiliation"]


@pytest.mark.browser
def test_without_scripts_all_is_there_and_no_tool_is(
    page: Page, tmp_path: Path
) -> None:
    opened(page, taxi_report(), tmp_path, scripts=False)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    seen = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length)"
    assert page.ask(seen.format("tbody tr:not(.m)") + ".length") == 85
    assert page.ask(seen.format(".plot") + ".length") == MAX_PLOTS
    assert page.ask(seen.format(".tools, button") + ".length") == 0


@pytest.mark.browser
def test_paper_gets_all_curves_and_reasons_in_black_on_white(
    page: Page, tmp_path: Path
) -> None:
    opened(page, taxi_report(), tmp_path, scheme="dark", media="print")
    assert page.ask("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    page.ask("dispatchEvent(new Event('beforeprint'))")
    assert page.ask("document.querySelectorAll('.plot:not([hidden])').length") == 12
    shown = "document.querySelector('details li').getClientRects().length"
    assert page.ask(shown) == 1
    page.ask("dispatchEvent(new Event('afterprint'))")
    assert page.ask("document.querySelectorAll('.plot:not([hidden])').length") == 1


@pytest.mark.browser
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text_in_a_browser(
    page: Page, tmp_path: Path, text: str
) -> None:
    file = opened(page, of_text(text), tmp_path)
    assert page.ask("document.querySelector('h1').textContent") == (shown(text))
    assert page.ask("document.scripts.length") == 1
    assert page.ask("document.images.length") == 0
    assert page.ask("document.querySelectorAll('tbody tr:not(.m)').length") == 1
    page.type("#tools input", "zzz")
    assert page.ask("document.querySelector('#tools output').textContent") == (
        "0 of 1 rows"
    )
    assert page.requests == [file.as_uri()]
    assert page.complaints == []


@pytest.mark.browser
def test_text_from_right_to_left_stays_in_its_place(page: Page, tmp_path: Path) -> None:
    opened(page, of_text("مرحبا بالعالم"), tmp_path)
    assert page.ask("getComputedStyle(document.querySelector('h1 bdi')).direction") == (
        "rtl"
    )
    assert page.ask("getComputedStyle(document.body).direction") == "ltr"
