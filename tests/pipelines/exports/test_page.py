"""The page of a lineage: what it says, what cannot change it, how it works."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.components.evaluation.drawing import shown
from penstock.pipelines.exports.page import MAX_NODES, text_of
from penstock.pipelines.lineage import Lineage
from penstock.schemas.errors import MetadataError
from tests.browser import Browser, Page, browser
from tests.pages import CONTRASTS, HOSTILE, Seen
from tests.pipelines.exports.lineages import chain, lineage_of_text, taxi_lineage


def test_it_needs_nothing_else() -> None:
    page = text_of(taxi_lineage())
    seen = Seen(page)
    assert {tag for tag in seen.tags if tag in ("script", "link", "img", "style")} == {
        *("script", "link", "style")
    }
    links = {
        value
        for tag, name, value in seen.attributes
        if name in ("href", "src") and not (value or "").startswith("#")
    }
    assert links == {"data:,"}
    assert not any(name.startswith("on") for _, name, _ in seen.attributes)
    assert not any(name == "style" for _, name, _ in seen.attributes)


def test_only_its_own_style_and_script_are_allowed() -> None:
    page = text_of(taxi_lineage())
    (policy,) = re.findall(r'content="(default-src[^"]*)"', page)
    for tag in ("style", "script"):
        (code,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html.unescape(policy)
    assert policy.startswith("default-src 'none'; ")


def test_the_same_lineage_gives_the_same_bytes() -> None:
    assert text_of(taxi_lineage()) == text_of(taxi_lineage())


def test_every_node_is_drawn_and_told() -> None:
    page = text_of(taxi_lineage())
    names = [f"{letter}{number}" for letter in "ae" for number in range(1, 11)]
    assert re.findall(r'<a href="#(\w+)" class="n ', page) == names
    assert re.findall(r"<section id=(\w+)>", page) == names
    assert len(re.findall(r"<path class=e ", page)) == 22
    assert "<p class=soft>10 artifacts, 10 executions</p>" in page
    assert "<title>Lineage of PushedModel 10</title>" in page
    assert re.findall(r'href="#(\w+)" class="n \w+ cached', page) == ["e2"]
    assert re.findall(r'href="#(\w+)" class="n \w+ start', page) == ["a10"]


def test_a_section_has_the_recipe_and_the_neighbors() -> None:
    page = text_of(taxi_lineage())
    (section,) = re.findall(r"<section id=e5>(.*?)</section>", page, re.S)
    text = re.sub(r"<[^>]*>", " ", section)
    for words in (
        "train_steps 1000",
        "numpy 1.26.4",
        f"code sha256:{64 * 'c'}",
        "Examples 3 examples",
        "ExampleAnomalies 5 anomalies",
        "Model 7 model",
        f"examples[1] sha256:{4:064x}",
        "started 2023-11-14 22:13:25 UTC",
    ):
        assert words in re.sub(r"\s+", " ", text), words
    assert "penstock_parts" not in section


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text(text: str) -> None:
    page = text_of(lineage_of_text(text))
    page.encode("utf-8")
    seen = Seen(page)
    assert seen.tags.count("script") == seen.tags.count("style") == 1
    assert "img" not in seen.tags
    assert shown(text, 22) in seen.text
    assert not any(name.startswith("on") for _, name, _ in seen.attributes)


def test_a_lineage_that_is_too_large_gets_a_sentence() -> None:
    page = text_of(chain(MAX_NODES // 2 - 1))
    assert len(page) < 5_000_000
    with pytest.raises(MetadataError) as raised:
        text_of(chain(MAX_NODES // 2))
    assert str(raised.value) == (
        "The lineage has 2,001 artifacts and executions, and a page shows 2,000 at "
        "most. Export it to .json or .dot, or ask about something less widely used."
    )


# From here on the page is looked at in Chromium.


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(running: Browser) -> Page:
    return Page(running)


def opened(page: Page, lineage: Lineage, folder: Path, **look: object) -> Path:
    """Render a lineage, open it, and return its file."""
    file = folder / "lineage.html"
    file.write_text(text_of(lineage), encoding="utf-8")
    page.look(**look)  # type: ignore[arg-type]
    page.open(file)
    return file


ALL = ".tools button:nth-of-type(3)"
SCALE = (
    "document.querySelector('#stage').clientWidth"
    " / document.querySelector('#stage svg').viewBox.baseVal.width"
)
CORNER = "(({x, y}) => [x, y])(document.querySelector('#stage svg').viewBox.baseVal)"
SEEN = (
    "[...document.querySelectorAll('section')].filter(e => e.getClientRects().length)"
    ".map(e => e.id)"
)


def mouse(page: Page, kind: str, x: float, y: float, **more: object) -> None:
    page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


def middle(page: Page, selector: str) -> tuple[float, float]:
    x, y = page.ask(
        f"(b => [b.x + b.width / 2, b.y + b.height / 2])"
        f"(document.querySelector({selector!r}).getBoundingClientRect())"
    )
    return x, y


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_renders_without_requests_or_complaints_and_with_contrast(
    page: Page, tmp_path: Path, scheme: str, width: int
) -> None:
    file = opened(page, taxi_lineage(), tmp_path, width=width, scheme=scheme)
    page.ask("location.hash = 'e5'")
    contrasts = page.ask(CONTRASTS)
    assert len(contrasts) > 3
    assert {pair: ratio for pair, ratio in contrasts.items() if ratio < 4.5} == {}
    fills = page.ask(
        "[...document.querySelectorAll('.n rect')].map(e => getComputedStyle(e).fill)"
    )
    assert len(set(fills)) >= 6
    background = page.ask("getComputedStyle(document.body).backgroundColor")
    is_dark = max(map(int, re.findall(r"\d+", background))) < 64
    assert is_dark == (scheme == "dark")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert len(page.picture()) > 20_000  # a blank page has a tenth of that
    assert page.requests == [file.as_uri()]
    assert page.complaints == []


@pytest.mark.browser
def test_texts_of_nodes_have_contrast(page: Page, tmp_path: Path) -> None:
    """On their own boxes, which the measure for HTML does not see."""
    script = CONTRASTS.replace(
        "for (; each; each = each.parentElement) {",
        "if (each.closest('.n')) return getComputedStyle("
        "each.closest('.n').querySelector('rect')).fill;"
        "for (; each; each = each.parentElement) {",
    )
    for scheme in ("light", "dark"):
        opened(page, taxi_lineage(), tmp_path, scheme=scheme)
        contrasts = page.ask(script)
        assert len(contrasts) > 10
        assert {pair: ratio for pair, ratio in contrasts.items() if ratio < 4.5} == {}


@pytest.mark.browser
def test_a_click_shows_what_is_recorded(page: Page, tmp_path: Path) -> None:
    opened(page, taxi_lineage(), tmp_path)
    page.click(ALL)
    assert page.ask(SEEN) == []
    x, y = middle(page, "a[href='#a7'] rect")
    for kind in ("mousePressed", "mouseReleased"):
        mouse(page, kind, x, y, button="left", clickCount=1)
    page.ask("new Promise(done => setTimeout(done, 50))")
    assert page.ask(SEEN) == ["a7"]
    assert "auc" in page.ask("document.querySelector('#a7').textContent")
    assert page.ask("getComputedStyle(document.querySelector('.hint')).display") == (
        "none"
    )
    near = (
        "[...document.querySelectorAll('.e.near')].map(e => e.dataset.a + e.dataset.b)"
    )
    assert sorted(page.ask(near)) == ["a7e10", "a7e7", "a7e8", "e5a7"]
    here = "[...document.querySelectorAll('.here')].map(e => e.getAttribute('href'))"
    assert page.ask(here) == ["#a7"]
    # From there to what made it.
    page.click("#a7 a[href='#e5']")
    page.ask("new Promise(done => setTimeout(done, 50))")
    assert page.ask(SEEN) == ["e5"]
    assert page.ask(here) == ["#e5"]


@pytest.mark.browser
def test_it_zooms_by_buttons_wheel_and_keys(page: Page, tmp_path: Path) -> None:
    opened(page, taxi_lineage(), tmp_path)
    page.click(ALL)
    first = page.ask(SCALE)
    page.click(".tools button:nth-of-type(1)")
    assert page.ask(SCALE) == pytest.approx(first * 1.4)
    page.click(".tools button:nth-of-type(2)")
    assert page.ask(SCALE) == pytest.approx(first)
    x, y = middle(page, "a[href='#a10'] rect")
    mouse(page, "mouseWheel", x, y, deltaX=0, deltaY=-200)
    page.ask("new Promise(done => setTimeout(done, 100))")
    assert page.ask(SCALE) == pytest.approx(first * 2.718281828**0.5, rel=1e-3)
    # What is under the pointer stays there.
    assert middle(page, "a[href='#a10'] rect") == pytest.approx((x, y), abs=1.5)
    page.click(ALL)
    all_seen = page.ask(SCALE)
    assert all_seen == pytest.approx(first, rel=0.02)
    page.press("+", 187, "+")
    assert page.ask(SCALE) == pytest.approx(all_seen * 1.4)
    page.press("0", 48, "0")
    assert page.ask(SCALE) == pytest.approx(all_seen)
    before = page.ask(CORNER)
    page.press("ArrowRight", 39)
    assert page.ask(CORNER)[0] > before[0]


@pytest.mark.browser
def test_it_is_dragged_and_that_is_no_click(page: Page, tmp_path: Path) -> None:
    opened(page, taxi_lineage(), tmp_path)
    page.click(ALL)
    x, y = middle(page, "a[href='#a7'] rect")
    before = page.ask(CORNER)
    scale = page.ask(SCALE)
    mouse(page, "mousePressed", x, y, button="left", clickCount=1)
    for step in range(1, 6):
        mouse(page, "mouseMoved", x + 20 * step, y + 10 * step, button="left")
    mouse(page, "mouseReleased", x + 100, y + 50, button="left", clickCount=1)
    page.ask("new Promise(done => setTimeout(done, 50))")
    after = page.ask(CORNER)
    assert before[0] - after[0] == pytest.approx(100 / scale, rel=0.01)
    assert before[1] - after[1] == pytest.approx(50 / scale, rel=0.01)
    assert page.ask(SEEN) == []
    assert page.complaints == []


@pytest.mark.browser
def test_the_search_looks_into_what_is_recorded(page: Page, tmp_path: Path) -> None:
    opened(page, taxi_lineage(), tmp_path)
    clear = (
        "[...document.querySelectorAll('.n:not(.dim)')]"
        ".map(e => e.getAttribute('href'))"
    )
    assert len(page.ask(clear)) == 20
    page.type(".tools input", "pushedmodel")
    assert page.ask(clear) == ["#a10"]  # and not what made it
    page.ask("document.querySelector('.tools input').value = ''")
    page.type(".tools input", "TRAIN_steps taxi.train")
    assert page.ask(clear) == ["#e5"]
    output = "document.querySelector('.tools output').textContent"
    assert page.ask(output) == "1 of 20"
    page.press("Enter", 13, "\r")
    page.ask("new Promise(done => setTimeout(done, 50))")
    assert page.ask(SEEN) == ["e5"]
    stage = middle(page, "#stage")
    assert middle(page, "a[href='#e5'] rect") == pytest.approx(stage, abs=30)
    page.ask("document.querySelector('.tools input').value = ''")
    page.type(".tools input", "nowhere")
    assert page.ask(clear) == []
    assert page.ask(output) == "0 of 20"
    page.press("Enter", 13, "\r")
    assert page.complaints == []


@pytest.mark.browser
def test_the_keyboard_reaches_every_node(page: Page, tmp_path: Path) -> None:
    opened(page, taxi_lineage(), tmp_path)
    page.ask("document.querySelector('.tools button:last-of-type').focus()")
    reached = []
    for _ in range(20):
        page.press("Tab", 9)
        reached.append(page.ask("document.activeElement.getAttribute('href')"))
    assert sorted(reached) == sorted(
        f"#{letter}{number}" for letter in "ae" for number in range(1, 11)
    )
    page.press("Enter", 13, "\r")
    page.ask("new Promise(done => setTimeout(done, 50))")
    assert page.ask(SEEN) == [reached[-1][1:]]


@pytest.mark.browser
def test_without_scripts_the_graph_and_what_is_recorded_are_there(
    page: Page, tmp_path: Path
) -> None:
    file = opened(page, taxi_lineage(), tmp_path, scripts=False)
    page.call("Page.navigate", url=f"{file.as_uri()}#e5")
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert page.ask("document.querySelectorAll('.n').length") == 20
    assert page.ask("document.querySelector('.n').getClientRects().length") == 1
    assert page.ask(SEEN) == ["e5"]
    assert page.ask("document.querySelector('.tools').getClientRects().length") == 0
    # The stage scrolls, for it is not dragged.
    assert page.ask("getComputedStyle(document.querySelector('#stage')).overflow") == (
        "auto"
    )


@pytest.mark.browser
def test_paper_gets_the_whole_graph_in_black_on_white(
    page: Page, tmp_path: Path
) -> None:
    opened(page, taxi_lineage(), tmp_path, scheme="dark")
    page.click(".tools button:nth-of-type(1)")
    page.look(scheme="dark", media="print")
    page.ask("dispatchEvent(new Event('beforeprint'))")
    assert page.ask("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert page.ask(CORNER) == [0, 0]
    assert page.ask("document.querySelector('aside').getClientRects().length") == 0
    page.ask("dispatchEvent(new Event('afterprint'))")


@pytest.mark.browser
def test_a_wide_lineage_begins_where_the_question_began(
    page: Page, tmp_path: Path
) -> None:
    opened(page, chain(200), tmp_path)
    assert page.ask(SCALE) > 0.5
    x, _ = middle(page, ".start rect")
    left, right = page.ask(
        "(b => [b.left, b.right])"
        "(document.querySelector('#stage').getBoundingClientRect())"
    )
    assert left < x < right
    page.click(ALL)
    assert page.ask(SCALE) < 0.1
    assert page.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text_in_a_browser(
    page: Page, tmp_path: Path, text: str
) -> None:
    file = opened(page, lineage_of_text(text), tmp_path)
    page.ask("location.hash = 'e1'")
    assert page.ask("document.querySelector('#e1 h2').textContent") == shown(text)
    assert page.ask("document.scripts.length") == 1
    assert page.ask("document.images.length") == 0
    assert page.ask("document.querySelectorAll('.n').length") == 2
    assert page.requests == [file.as_uri()]
    assert page.complaints == []
