"""The page of a watched model: what it says, and what cannot change it."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import random
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.document import Document, check_document
from penstock.components.monitoring.report import MAX_BYTES, render
from tests.components.monitoring.documents import (
    BUDGET,
    DAYS,
    DOCUMENTS,
    REFERENCE_ID,
    alert_document,
    category,
    column,
    document,
    large_document,
    measure,
    metric,
    ok_document,
    quality,
    trend,
)
from tests.pages import HOSTILE, Seen


def text_of(**changes: Any) -> str:
    """Return what the page of a document with changes says, on one line."""
    return flat(document(**changes))


def flat(watched: Document) -> str:
    """Return what the page of a document says, without line ends."""
    return Seen(render(watched)).text.replace("\n", "")


def saying(text: str) -> Document:
    """Return a document that says one text wherever data is shown."""
    watched: Any = alert_document(0)
    name = text or "x"
    drifted: Any = category(name, "alert", rank=1, explanation=text)
    drifted["distribution"]["bins"][0] = text
    # The label is one of three words, of which the page leaves out "none".
    label = text if text != "none" else "x"
    drifted["measures"][0] |= {"sentence": text, "ratio": 2.0, "label": label}
    drifted["measures"][1]["type"] = name
    drifted["slices"] = [
        {"slice": text, "state": "alert", "p_value": 0.1, "sentence": text}
    ]
    found = quality(
        metrics=[metric(text, text, 0.5)],
        trends=[trend("a=1", 0.9, 0.0)],
        deployments=[{"window": "2026-11-11", "text": text}],
    )
    found["trends"][0] |= {"metric": text, "slice": text, "sentence": text}
    found["trends"][0]["change_points"] = [
        {
            "window": "2026-11-12",
            "before": 0.1,
            "after": 0.2,
            "p_value": 0.1,
            "deployment": text,
        }
    ]
    assert found["estimate"]
    found["estimate"] |= {"method": text, "metric": text, "sentence": text}
    found["concept"] = [{"detector": text, "state": "drift", "sentence": text}]
    watched |= {
        "model": name,
        "model_version": text,
        "versions": {text: 1, "8": 2},
        "reasons": [text],
        "columns": [drifted, {**column(state="watch"), "name": name + "2"}],
        "quality": found,
        "multivariate": {
            "p_value": 0.1,
            "auc": 0.5,
            "columns": [text],
            "state": "ok",
            "sentence": text,
        },
    }
    watched["reference"]["model_version"] = text
    watched["skew"] |= {"sentence": text}
    watched["skew"]["columns"][0] |= {"name": text, "sentence": text}
    watched["window"]["name"] = name
    return check_document(watched)


@pytest.mark.parametrize(
    ("name", "word", "sentence"),
    [
        ("ok", "OK", "Nothing changed by enough to matter."),
        ("watch", "WATCH", "Something may be changing. It is not yet an alert."),
        (
            "alert",
            "ALERT",
            "Something changed, by more than chance and by enough to matter.",
        ),
        ("insufficient", "INSUFFICIENT DATA", "The data cannot tell."),
        ("observing", "INSUFFICIENT DATA", "The data cannot tell."),
    ],
)
def test_the_verdict_is_on_top(name: str, word: str, sentence: str) -> None:
    page = render(DOCUMENTS[name]())
    text = Seen(page).text
    assert text.index(f"\n{word}\n{sentence}\n") < text.index("\nReasons\n")
    assert f"<title>{word}: taxi, 2026-11-30</title>" in page


def test_columns_and_metrics_are_counted_by_state() -> None:
    text = flat(alert_document(12))
    for words in ("2 columns: alert", "1 column: watch", "13 columns: ok"):
        assert words in text
    for words in ("1 metric: alert", "1 metric: insufficient data", "4 metrics: ok"):
        assert words in text


def test_facts_are_said() -> None:
    text = flat(ok_document())
    assert "Modeltaxi, version 7" in text
    assert "Window2026-11-30 00:00 to 2026-12-01 00:00 UTC" in text
    assert "Rows5,000" in text
    assert "Reference20,000 rows of version 7" in text
    assert f"Reference id{REFERENCE_ID}" in text
    assert "Made at2026-12-01 04:00:12 UTC" in text
    assert "versions 7 (4,400 rows), 8 (600 rows)" in flat(alert_document())
    assert "Referencenone" in text_of(reference=None)
    assert "Modeltaxi" in text_of(model_version=None)
    seasonal = {"id": REFERENCE_ID, "rows": 9, "model_version": None, "seasonal": True}
    assert "Reference9 rows, of the same time of the week" in text_of(
        reference=seasonal
    )


def test_what_is_not_there_is_not_shown() -> None:
    page = Seen(render(document(reasons=[])))
    assert "There are none." in page.text
    assert not {"table", "svg", "details", "select"} & set(page.tags)
    for heading in ("What changed", "Quality", "Training against", "All columns"):
        assert heading not in page.text


def test_what_changed_is_ranked_with_its_explanation() -> None:
    text = flat(alert_document())
    first = text.index("1. fare alert feature, importance 0.31, p = 1e−9")
    second = text.index("2. payment_type alert feature, importance 0.12, p = 4e−8")
    third = text.index("3. prediction watch score, p = 3e−5")
    assert first < second < third < text.index("Slices")
    assert "most of all where payment_type is Cash." in text
    assert "Missing: 3.1 %, in the reference 0 %." in text
    assert "alert payment_type=Cash: 'fare' is 0.52 standard deviations" in text
    assert "MeasureRatioEffectAt leastValueCriticalpks4.670.140.030.149" in text
    assert "psi (moderate)1.22" in text
    assert "The ks effect is 0.14, of 0.03 that count." in text
    assert "l_infinity0.180.0180.10.0270.0310.115" in text


def test_measures_are_ordered_by_how_much_they_say() -> None:
    measures = [measure("ks", 0.01), measure("psi", 0.5), measure("missing", 0.02)]
    none = measure("type", ratio=None, p_value=None, threshold=None)
    none["effect"] = None
    watched = document(columns=[column("a", "alert", measures=[none, *measures])])
    page = render(watched)
    kinds = re.findall(r"<tr><th scope=row><bdi>(\w+)</bdi>(?: \(|<td>[\d–])", page)
    assert kinds[-4:] == ["psi", "missing", "ks", "type"]
    assert "type–––" in flat(watched)


def test_a_column_without_a_distribution_or_measures_says_so() -> None:
    bare = column("a", "alert", measures=[], distribution=None)
    nothing: Any = {"bins": [], "reference": [], "current": []}
    empty = column("b", "watch", distribution=nothing)
    text = text_of(columns=[bare, empty])
    assert text.count("There is no distribution to draw.") == 2
    assert "aalert–" in text


def test_shares_stand_side_by_side() -> None:
    page = render(alert_document(0))
    fare = page[page.index("<section class=card id=c1>") :]
    paths = re.findall(r'<path class=([rn]) d="([^"]*)"', fare)
    assert [kind for kind, _ in paths[:2]] == ["r", "n"]
    bars = [re.findall(r"M(\d+) 100v-(\d+)h4v\2", path) for _, path in paths[:2]]
    assert [int(x) % 10 for x, _ in bars[0]] == [1] * len(bars[0])
    assert [int(x) % 10 for x, _ in bars[1]] == [5] * len(bars[1])
    assert max(int(height) for side in bars for _, height in side) == 88
    text = flat(alert_document(0))
    assert "ValueReferenceWindowSide by sideCash55.0 %54.0 %" in text
    assert "unseen0 %2.1 %" in text


def test_quality_is_told_with_labels_estimate_slices_and_trends() -> None:
    text = flat(alert_document())
    assert (
        "4,811 of 5,000 rows (96.2 %) have their label; 189 wait for theirs. 18 came "
        "after the window was first evaluated."
    ) in text
    assert (
        "auc is estimated without labels, by CBPE, at 0.9080 [0.8970, 0.9190]" in text
    )
    assert "holds Its assumption: Scores stay calibrated and there is no" in text
    assert "overall4,811ok0.9120[0.9000, 0.9230]" in text
    assert "payment_type=Dispute12insufficient data–" in text
    assert "unlabeled (estimated)189ok" in text
    assert "D1 2026-11-11: version 7 pushed 2026-11-11" in text
    assert "alert auc in payment_type=Cash" in text
    assert "0.0000 a week." in text  # of the trend that has no sentence
    assert (
        "C1 2026-11-12: from 0.88 to 0.866 (p = 4e−4), after version 7 pushed "
        "2026-11-11."
    ) in text
    assert "okADWIN sees no change of the loss." in text
    assert "warningPage-Hinkley: The loss rises since 2026-11-26." in text


def test_quality_without_labels_or_an_estimate_says_nothing_of_them() -> None:
    text = text_of(quality=quality(labels=None, estimate=None, concept=[]))
    for words in ("have their label", "estimated without", "Concept drift"):
        assert words not in text
    share = {"joined": 0, "waiting": 0, "late": 0, "share": None}
    assert "0 of 0 rows (–) have their label" in text_of(quality=quality(labels=share))


def test_slices_that_are_worth_a_look_come_first() -> None:
    metrics = [
        metric("auc", "a=1", 0.9, rows=10),
        metric("auc", "a=2", 0.9, rows=1_000),
        metric("auc", "a=3", 0.5, "alert", rows=20),
        metric("auc", "a=4", None, "insufficient_data", rows=2),
        metric("auc", "overall", 0.9, rows=2_000),
    ]
    page = render(document(quality=quality(metrics=metrics)))
    slices = page[page.index("<table id=slices") :]
    rows = re.findall(r"<tr><th scope=row><bdi>(.*?)</bdi>", slices)
    assert rows[:5] == ["overall", "a=3", "a=4", "a=2", "a=1"]


def test_trends_without_a_change_are_folded_away() -> None:
    trends = [trend("overall", 0.9, 0.0), trend("a=1", 0.9, 0.0)]
    empty = trend("a=2", 0.9, 0.0, points=[])
    changed = trend(
        "a=3",
        0.9,
        0.0,
        slope_per_week=None,
        change_points=[
            {
                "window": DAYS[10],
                "before": None,
                "after": 0.5,
                "p_value": None,
                "deployment": None,
            }
        ],
    )
    watched = document(quality=quality(trends=[*trends, empty, changed]))
    page = render(watched)
    before, folded = page.split("1 more trend, without a change")
    assert before.count("<figure") == 2
    assert folded.count("<figure") == 1
    text = flat(watched)
    assert f"C1 {DAYS[10]}: from – to 0.5." in text
    assert "1 more trend is left out here." in text
    assert "in a=1 0" not in text


def test_deployments_and_changes_are_marked_where_they_were() -> None:
    page = render(alert_document(0))
    figure = page[page.index("<figure") :]
    assert "<line class=q x1=61.2% x2=61.2% y2=100% />" in figure
    assert "<line class=v x1=63.3% x2=63.3% y2=100% />" in figure
    assert "x=100.0% y=100% dx=-4 dy=-5>D2</text>" in figure


def test_deployments_before_what_is_drawn_are_not_told() -> None:
    long = trend("overall", 0.9, 0.0)
    point = long["points"][0]
    long["points"] = [{**point, "window": f"{n:04d}"} for n in range(500)]
    pushed: Any = [{"window": f"{n:04d}", "text": f"pushed {n}"} for n in range(500)]
    text = text_of(quality=quality(trends=[long], deployments=pushed))
    assert "D1 0440: pushed 440" in text
    assert "D60 0499: pushed 499" in text
    assert "pushed 439" not in text
    few = text_of(quality=quality(trends=[long], deployments=pushed[370:390]))
    assert "D1 0380: pushed 380" in few
    none = text_of(quality=quality(trends=[], deployments=pushed))
    assert "pushed" not in none


def test_only_the_last_windows_are_drawn_and_the_page_says_so() -> None:
    long = trend("overall", 0.9, 0.0)
    point = long["points"][0]
    long["points"] = [{**point, "window": f"{n:04d}"} for n in range(500)]
    text = text_of(quality=quality(trends=[long]))
    assert "380 earlier windows are left out." in text
    assert "03800499" in text


def test_skew_and_columns_together_are_told() -> None:
    text = flat(alert_document())
    assert "watch 'tips' differs between training and serving in 1.2 % of rows." in text
    assert "4,811 rows were joined by id." in text
    assert text.index("tipswatch58 of 4,811 rows") < text.index("fareokNo row differs")
    assert (
        "A classifier tells this window from the reference with an AUC of 0.57 (0.5 is "
        "chance), p = 0.005. It goes by fare, payment_type."
    ) in text
    bare: Any = {"p_value": None, "auc": None, "columns": []}
    assert "with an AUC of – (0.5 is chance), p = –." in text_of(multivariate=bare)


def test_the_budget_and_the_thresholds_are_told_in_words() -> None:
    text = flat(alert_document())
    for sentence in (
        "One false alert a month is allowed for this model; replayed without drift, "
        "the rule gives 0.93, one in 32.6 windows.",
        "What is watched alerts if it is significant in 2 of the last 3 windows and "
        "its effect is large enough to matter.",
        "The significance level of the whole model is 1.2e−4, shared by all "
        "that is watched.",
        "A window of fewer than 500 rows decides nothing.",
        "An effect counts from: ks 0.03, l_infinity 0.1, mean_shift 0.1, missing "
        "0.01, psi 0.1, unseen 0.01.",
    ):
        assert sentence in text
    few = {**BUDGET, "alerts_per_month": 0.5, "expected_alerts_per_month": None}
    assert "0.5 false alerts a month are allowed for this model, one in 32.6 win" in (
        text_of(budget=few)
    )
    never = {**BUDGET, "run_length_windows": None, "level": None}
    text = text_of(budget=never)
    assert "replayed without drift, the rule gives 0.93." in text
    assert "significance level" not in text
    assert "No budget of false alerts is in force, so nothing is called drift." in (
        text_of(budget=None)
    )
    two = [column("a", measures=[measure("ks", 0.01, threshold=0.05)]), column("b")]
    assert "An effect counts from: ks 0.03 to 0.05," in text_of(columns=two)


def test_all_columns_are_in_the_table_and_link_to_what_changed() -> None:
    page = render(alert_document(3))
    table = page[page.index("<table id=all") :]
    names = re.findall(r"<tr><th scope=row>(?:<a href=\"#(\w+)\">)?<bdi>(.*?)<", table)
    assert names == [
        ("c1", "fare"),
        ("c2", "payment_type"),
        ("c3", "prediction"),
        ("", "big_tipper"),
        ("", "feature_000"),
        ("", "feature_001"),
        ("", "feature_002"),
    ]
    text = flat(alert_document(3))
    assert "farealert4.67ks1e−93.1 %was 0 %0.31" in text
    assert "big_tipper labelok" in text


def test_the_page_asks_for_nothing() -> None:
    text = render(large_document(30))
    page = Seen(text)
    links = {value for _, name, value in page.attributes if name == "href"}
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    names = {name for _, name, _ in page.attributes}
    assert not names & {"src", "srcset", "style", "action", "background", "ping"}
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in text
    assert "@import" not in text


def test_only_its_own_style_and_script_are_allowed() -> None:
    page = render(alert_document())
    (policy,) = re.findall(r'Content-Security-Policy content="([^"]*)"', page)
    parts = dict(part.split(" ", 1) for part in html.unescape(policy).split("; "))
    assert parts["default-src"] == "'none'"
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (code,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert parts[kind] == f"'sha256-{digest}'"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_data_cannot_change_the_page(text: str) -> None:
    harmless, hostile = Seen(render(saying("taxi"))), Seen(render(saying(text)))
    assert hostile.tags == harmless.tags
    plain = [each for each in harmless.attributes if each[1] != "aria-label"]
    assert [each for each in hostile.attributes if each[1] != "aria-label"] == plain


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=40))
@example("none")
@example("overall")
def test_no_text_changes_the_page(text: str) -> None:
    assert Seen(render(saying(text))).tags == Seen(render(saying("x"))).tags


def test_long_and_wild_texts_are_cut_and_their_controls_seen() -> None:
    text = html.unescape(render(saying("y" * 10_000)))
    assert f">{'y' * 80}…<" in text
    assert "y" * 401 not in text
    page = render(saying("a\u202eb\x00c\nd\ud800"))
    assert r"<bdi>a\u202eb\x00c\nd\ud800</bdi>" in page


NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
P_VALUES = st.none() | SHARES


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Any document of one column, one metric and one trend."""
    bins = draw(st.sampled_from([0, 1, 2, 9, 70]))
    few = draw(st.lists(SHARES, min_size=5, max_size=5))
    sides = [[few[n % length] for n in range(bins)] for length in (5, 3)]
    measured: Any = measure(p_value=draw(P_VALUES))
    for key in ("value", "effect", "critical", "threshold", "ratio"):
        measured[key] = draw(NUMBERS)
    auc = metric("auc", "overall", None)
    auc["value"] = draw(NUMBERS)
    points: list[Any] = [
        {
            "window": f"{number:03d}",
            "value": draw(NUMBERS),
            "lower": draw(NUMBERS),
            "upper": draw(NUMBERS),
            "rows": draw(st.integers(0, 10**15)),
        }
        for number in range(draw(st.integers(0, 6)))
    ]
    change: Any = {
        "window": draw(st.sampled_from(["", "000", "003", "zzz"])),
        "before": draw(NUMBERS),
        "after": draw(NUMBERS),
        "p_value": draw(P_VALUES),
        "deployment": None,
    }
    return document(
        columns=[
            column(
                "a",
                draw(st.sampled_from(["alert", "ok"])),
                kind=draw(st.sampled_from(["numeric", "category"])),
                p_value=draw(P_VALUES),
                importance=draw(st.none() | st.floats(0, 1e300)),
                missing={"reference": draw(P_VALUES), "current": draw(P_VALUES)},
                measures=[measured],
                distribution={
                    "bins": [f"{number}" for number in range(bins)],
                    "reference": sides[0],
                    "current": sides[1],
                },
            )
        ],
        quality=quality(
            metrics=[auc],
            trends=[
                trend(
                    "overall",
                    0.0,
                    0.0,
                    points=points,
                    change_points=[change],
                    slope_per_week=draw(NUMBERS),
                )
            ],
            deployments=[{"window": change["window"], "text": "a"}],
        ),
    )


@settings(max_examples=150)
@given(documents())
def test_any_numbers_make_a_page(watched: Document) -> None:
    page = Seen(render(check_document(watched)))
    paths = [value or "" for _, name, value in page.attributes if name == "d"]
    assert all(re.fullmatch(r"[MHVhvlz\d -]*", path) for path in paths)
    assert "nan" not in page.text.lower()


def test_the_same_document_gives_the_same_bytes() -> None:
    code = (
        "import hashlib\n"
        "from penstock.components.monitoring.report import render\n"
        "from tests.components.monitoring.documents import large_document\n"
        "page = render(large_document(20))\n"
        "print(hashlib.sha256(page.encode()).hexdigest())"
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
    watched = large_document(20)
    digests.add(hashlib.sha256(render(watched).encode()).hexdigest())
    random.Random(3).shuffle(watched["columns"])
    assert watched["quality"]
    random.Random(3).shuffle(watched["quality"]["metrics"])
    random.Random(3).shuffle(watched["quality"]["trends"])
    digests.add(hashlib.sha256(render(watched).encode()).hexdigest())
    assert len(digests) == 1


def test_three_hundred_features_fit_with_all_columns_in_the_table() -> None:
    page = render(large_document(300))
    assert len(page.encode()) < 200_000
    table = page[page.index("<table id=all") :]
    assert table.count("<tr><th scope=row>") == 299  # a label and a score among them
    drift = large_document(300)
    drift["quality"] = None
    assert len(render(drift).encode()) < 120_000


def test_very_many_changed_columns_fit_and_the_page_says_what_is_left_out() -> None:
    columns = [
        column(f"feature_{number:04d}", "alert", shift=1.0, rank=number + 1)
        for number in range(3_000)
    ]
    watched = document(state="alert", columns=columns, reasons=["r"] * 100)
    page = render(watched)
    assert len(page.encode()) < MAX_BYTES
    text = flat(watched)
    cards = page.count("<section class=card")
    assert cards > 10
    assert f"{3_000 - cards:,} of 3,000 columns that changed are not shown" in text
    shown = page[page.index("<table id=all") :].count("<tr><th scope=row>")
    assert shown > 200
    assert f"{3_000 - shown:,} of 3,000 columns are left out here" in text
    assert "60 of 100 reasons are left out here. drift.json has all of them." in text


def test_wide_letters_fit_too() -> None:
    wide = "\U00012000" * 300
    watched = large_document(300)
    for number, each in enumerate(watched["columns"]):
        each["name"] = f"{number}{wide}"
        each["explanation"] = wide
        each["state"] = "alert"
    assert watched["quality"]
    for number, row in enumerate(watched["quality"]["metrics"]):
        row["slice"] = f"{number}{wide}"
    watched["model"] = wide
    watched["reasons"] = [wide] * 50
    page = render(check_document(watched))
    assert 0.5 * MAX_BYTES < len(page.encode()) < MAX_BYTES


def test_many_slices_trends_and_skewed_columns_are_left_out_with_a_word() -> None:
    watched: Any = alert_document(0)
    watched["quality"] = quality(
        metrics=[metric("auc", f"a={n}", 0.9) for n in range(400)],
        trends=[trend(f"a={n}", 0.9, 0.0) for n in range(40)],
    )
    differing = watched["skew"]["columns"][0]
    watched["skew"]["columns"] = [{**differing, "name": f"c{n}"} for n in range(99)]
    watched["columns"][2]["slices"] *= 10
    text = flat(watched)
    assert "250 more metrics of slices, those that are well and small, are left" in text
    assert "16 more trends are left out here. quality.json has all of them." in text
    assert "39 more columns in quality.json." in text
    assert "8 more slices in quality.json." in text
