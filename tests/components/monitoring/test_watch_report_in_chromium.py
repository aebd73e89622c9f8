"""The page of a watched model in Chromium: how it looks, and how it works."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.components.evaluation.drawing import shown
from penstock.components.monitoring.document import Document
from penstock.components.monitoring.report import render
from tests.browser import Browser, Page, browser
from tests.components.monitoring.documents import (
    DOCUMENTS,
    alert_document,
    column,
    document,
    large_document,
    metric,
    quality,
)
from tests.components.monitoring.test_watch_report import saying
from tests.pages import CONTRASTS, HOSTILE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(running: Browser) -> Page:
    return Page(running)


def opened(page: Page, watched: Document, folder: Path, **look: Any) -> Path:
    """Render a document, open its page, and return the file."""
    file = folder / "report.html"
    file.write_text(render(watched), encoding="utf-8")
    page.look(**look)
    page.open(file)
    return file


def names(page: Page, table: str = "#all") -> list[str]:
    """Return the first column of a table as it stands, hidden rows left out."""
    found: list[str] = page.ask(
        f"[...document.querySelectorAll('{table} tbody tr:not(.m)')]"
        ".filter(row => row.checkVisibility())"
        ".map(row => row.cells[0].querySelector('bdi').textContent)"
    )
    return found


UNFOLD = "document.querySelectorAll('details').forEach(each => each.open = true)"

STICKING_OUT = """[...document.querySelectorAll("main *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5)
  .map((each) => `${each.tagName}.${each.getAttribute("class")} ${each.textContent}`)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_renders_without_requests_or_complaints_and_with_contrast(
    page: Page, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    file = opened(page, DOCUMENTS[name](), tmp_path, width=width, scheme=scheme)
    page.ask(UNFOLD)
    contrasts = page.ask(CONTRASTS)
    assert len(contrasts) > 3
    assert {pair: ratio for pair, ratio in contrasts.items() if ratio < 4.5} == {}
    background = page.ask("getComputedStyle(document.body).backgroundColor")
    is_dark = max(map(int, re.findall(r"\d+", background))) < 64
    assert is_dark == (scheme == "dark")
    assert len(page.picture()) > 5_000  # a blank page has a tenth of that
    assert page.requests == [file.as_uri()]
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_bars_stand_out_from_what_is_behind_them(
    page: Page, tmp_path: Path, scheme: str
) -> None:
    opened(page, alert_document(), tmp_path, scheme=scheme)
    page.ask(UNFOLD)
    # As texts are told by CONTRASTS: 3 to 1 is what WCAG 2 asks of graphics.
    page.ask(
        """(() => {
        for (const each of document.querySelectorAll("path.r, path.n, path.g, line")) {
          const style = getComputedStyle(each);
          const color = style.stroke === "none" ? style.fill : style.stroke;
          const text = document.createElement("span");
          text.textContent = "x";
          text.style.color = color;
          each.closest("figure, section, table, .card").append(text);
        }})()"""
    )
    contrasts = page.ask(CONTRASTS)
    assert {pair: ratio for pair, ratio in contrasts.items() if ratio < 3} == {}


@pytest.mark.parametrize("width", [320, 360, 480, 600, 601, 768, 860, 861, 1280, 1920])
def test_nothing_sticks_out_at_the_side(page: Page, tmp_path: Path, width: int) -> None:
    great = column(
        "great",
        "alert",
        rank=1,
        importance=123_456_789.5,
        p_value=1e-300,
        missing={"reference": 0.12345, "current": 0.99999},
    )
    for each in great["measures"]:
        each |= {
            "value": -123_456.789,
            "effect": 1e-200,
            "ratio": 987_654.321,
            "critical": 123_456.7,
            "threshold": 1e12,
        }
    wide = metric("calibration", "a=1", 123_456_789.5, "insufficient_data", rows=10**9)
    found = quality(metrics=[wide, *quality()["metrics"]])
    for watched in (
        alert_document(),
        large_document(20),
        saying("wide" * 100),
        document(columns=[great], quality=found),
        *(DOCUMENTS[name]() for name in ("insufficient", "observing")),
    ):
        opened(page, watched, tmp_path, width=width)
        page.ask(UNFOLD)
        assert page.ask(STICKING_OUT) == []
        assert page.ask("document.documentElement.scrollWidth") <= width


def test_what_is_ok_is_folded_away_and_a_key_unfolds_it(
    page: Page, tmp_path: Path
) -> None:
    opened(page, large_document(300), tmp_path)
    assert names(page) == []
    folded = "document.querySelector('#folded')"
    assert page.ask(f"{folded}.open") is False
    page.ask(f"{folded}.querySelector('summary').focus()")
    page.press("Enter", 13, "\r")
    assert page.ask(f"{folded}.open") is True
    assert len(names(page)) == 299
    assert names(page)[:3] == ["fare", "payment_type", "prediction"]


def test_the_keyboard_skips_sorts_and_filters(page: Page, tmp_path: Path) -> None:
    opened(page, alert_document(), tmp_path)
    page.press("Tab", 9)
    focus = "document.activeElement"
    assert page.ask(f"{focus}.textContent") == "Skip to the report"
    box = page.ask(
        f"(() => {{ const box = {focus}.getBoundingClientRect();"
        "return [box.left >= 0, box.top >= 0, box.width > 50]; })()"
    )
    assert box == [True, True, True]
    assert page.ask(f"getComputedStyle({focus}).outlineStyle") == "solid"
    page.press("Enter", 13, "\r")
    assert page.ask("location.hash") == "#main"

    page.ask(UNFOLD)
    page.ask("document.querySelector('#tools input').focus()")
    page.call("Input.insertText", text="feature_00")
    assert len(names(page)) == 10
    output = "document.querySelector('#tools output').textContent"
    assert page.ask(output) == "10 of 16 columns"
    page.press("Tab", 9)
    reached = []
    for _ in range(6):
        page.press("Tab", 9)
        reached.append(page.ask(f"{focus}.textContent.trim()"))
    assert reached == ["Column", "State", "Ratio", "p", "Missing", "Importance"]
    sort = "document.querySelector('#all th:nth-child(6)').ariaSort"
    page.press("Enter", 13, "\r")
    assert page.ask(sort) == "ascending"
    weights = (
        "[...document.querySelectorAll('#all tbody tr')].filter(r => !r.hidden)"
        ".map(r => +r.cells[5].textContent)"
    )
    found = page.ask(weights)
    assert found == sorted(found)
    page.press(" ", 32, " ")
    assert page.ask(sort) == "descending"
    assert page.ask(weights) == found[::-1]
    assert page.ask(f"getComputedStyle({focus}).outlineStyle") == "solid"


def test_a_click_on_a_heading_sorts_up_down_and_back(
    page: Page, tmp_path: Path
) -> None:
    opened(page, alert_document(2), tmp_path)
    page.ask(UNFOLD)
    first = names(page)
    heads = "[...document.querySelectorAll('#all th[scope=col]')].map(h => h.ariaSort)"
    assert page.ask(heads) == ["none"] * 6 + [None]
    page.click("#all th:nth-child(1) button")
    assert page.ask(heads) == ["ascending", *["none"] * 5, None]
    assert names(page) == sorted(first)
    page.click("#all th:nth-child(1) button")
    assert names(page) == sorted(first, reverse=True)
    page.click("#all th:nth-child(1) button")
    assert page.ask(heads) == ["none"] * 6 + [None]
    assert names(page) == first
    page.click("#all th:nth-child(2) button")
    states = (
        "[...document.querySelectorAll('#all tbody tr')]"
        ".map(r => r.cells[1].textContent)"
    )
    assert page.ask(states) == ["alert", "alert", "watch", "ok", "ok", "ok"]
    page.click("#all th:nth-child(5) button")
    assert names(page)[-1] == "fare"  # the others miss nothing
    # What has no importance, a score and a label, is last either way.
    for _ in range(2):
        page.click("#all th:nth-child(6) button")
        assert set(names(page)[-2:]) == {"prediction", "big_tipper"}
    assert page.complaints == []


def test_every_table_sorts_by_itself(page: Page, tmp_path: Path) -> None:
    opened(page, alert_document(), tmp_path)
    page.click("#slices th:nth-child(2) button")
    assert names(page, "#slices")[:3] == [
        "payment_type=Dispute",
        "unlabeled",
        "payment_type=Credit Card",
    ]
    assert names(page, "#slices")[-1] == "overall"  # of another metric
    page.click("#skewed th:nth-child(1) button")
    assert names(page, "#skewed") == ["fare", "tips"]
    sorts = "[...document.querySelectorAll('[aria-sort]')].map(h => h.ariaSort)"
    assert page.ask(sorts).count("ascending") == 2


def test_filters_work_together_and_count(page: Page, tmp_path: Path) -> None:
    opened(page, alert_document(), tmp_path)
    page.ask(UNFOLD)
    output = "document.querySelector('#tools output').textContent"
    assert page.ask(output) == "16 of 16 columns"
    choose = (
        "(() => {{ const each = document.querySelector('#tools select');"
        "each.value = {!r}; each.dispatchEvent(new Event('input')); }})()"
    )
    for state, expected in (
        ("alert", ["fare", "payment_type"]),
        ("watch", ["prediction"]),
        ("insufficient data", []),
    ):
        page.ask(choose.format(state))
        assert names(page) == expected
    page.ask(choose.format("alert"))
    page.type("#tools input", "TYPE")
    assert names(page) == ["payment_type"]
    assert page.ask(output) == "1 of 16 columns"
    assert page.complaints == []


def test_a_link_leads_to_the_column_in_full(page: Page, tmp_path: Path) -> None:
    opened(page, alert_document(), tmp_path)
    page.ask(UNFOLD)
    page.click("#all a[href='#c2']")
    page.ask("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    top = "document.querySelector('#c2').getBoundingClientRect().top"
    assert -1 <= page.ask(top) < 900


def test_without_scripts_all_is_there_and_no_tool_is(
    page: Page, tmp_path: Path
) -> None:
    opened(page, alert_document(), tmp_path, scripts=False)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    page.ask(UNFOLD)
    seen = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length)"
    assert page.ask(seen.format("#all tbody tr") + ".length") == 16
    assert page.ask(seen.format(".tools, button") + ".length") == 0


def test_paper_gets_what_is_folded_in_black_on_white(
    page: Page, tmp_path: Path
) -> None:
    # 186 mm of A4 between its margins, at 96 pixels an inch.
    opened(page, alert_document(), tmp_path, width=703, scheme="dark", media="print")
    assert page.ask("document.documentElement.scrollWidth") <= 703
    assert page.ask(STICKING_OUT) == []
    assert page.ask("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert page.ask("document.querySelector('#folded').open") is False
    shown_rows = "document.querySelector('#all tbody tr').getClientRects().length"
    assert page.ask(shown_rows) == 1
    hidden = "document.querySelector('{}').getClientRects().length"
    assert page.ask(hidden.format(".skip")) == 0
    assert page.ask(hidden.format(".tools")) == 0
    assert page.ask(hidden.format("nav")) == 0


def test_no_color_alone_tells_a_state(page: Page, tmp_path: Path) -> None:
    opened(page, alert_document(), tmp_path)
    signs = page.ask(
        "[...document.querySelectorAll('.chip')].map(e => [e.textContent,"
        "getComputedStyle(e, '::before').content])"
    )
    found = {tuple(each) for each in signs}
    assert {("alert", '"!"'), ("watch", '"?"'), ("ok", '"✓"')} <= found
    assert all(text and sign not in ("none", "normal") for text, sign in found)
    bars = "getComputedStyle(document.querySelector('.h .{}')).fill"
    assert page.ask(bars.format("r")) == "none"
    assert page.ask(bars.format("n")) != "none"
    lines = "getComputedStyle(document.querySelector('#all .{}')).strokeDasharray"
    assert page.ask(lines.format("r")) != page.ask(lines.format("n"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text_in_a_browser(
    page: Page, tmp_path: Path, text: str
) -> None:
    file = opened(page, saying(text), tmp_path)
    assert page.ask("document.querySelector('h1 bdi').textContent") == shown(text)
    assert page.ask("document.scripts.length") == 1
    assert page.ask("document.images.length") == 0
    page.ask(UNFOLD)
    assert len(names(page)) == 2
    page.type("#tools input", "zzz")
    assert page.ask("document.querySelector('#tools output').textContent") == (
        "0 of 2 columns"
    )
    assert page.requests == [file.as_uri()]
    assert page.complaints == []


def test_text_from_right_to_left_stays_in_its_place(page: Page, tmp_path: Path) -> None:
    opened(page, saying("مرحبا بالعالم"), tmp_path)
    assert page.ask("getComputedStyle(document.querySelector('h1 bdi')).direction") == (
        "rtl"
    )
    assert page.ask("getComputedStyle(document.body).direction") == "ltr"


def test_headings_and_landmarks_are_in_order(page: Page, tmp_path: Path) -> None:
    opened(page, alert_document(), tmp_path)
    levels = page.ask(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.ask("document.querySelectorAll('main').length") == 1
    unnamed = (
        "[...document.querySelectorAll('svg[role=img], table')].filter(e =>"
        "!e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')"
        " && !e.classList.contains('bins')).length"
    )
    assert page.ask(unnamed) == 0
    ids = page.ask("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.ask(
        "[...document.querySelectorAll('a[href]')].filter("
        "a => !document.querySelector(a.getAttribute('href'))).length"
    )
    assert targets == 0
