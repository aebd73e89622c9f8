"""One notice per change of a model's state, whatever comes and comes again."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.components.monitoring.document import Document, State
from penstock.components.monitoring.notices.notice import Notice, Standing, news
from tests.components.monitoring.documents import (
    alert_document,
    column,
    document,
    insufficient_document,
    ok_document,
    quality,
)


def day(number: int, state: State = "ok", **changes: Any) -> Document:
    """Return the document of a day of a year that no test ends."""
    window = {
        "start": f"2026-01-{number:02}T00:00:00Z",
        "end": f"2026-01-{number:02}T23:59:59Z",
        "name": f"2026-01-{number:02}",
    }
    changes.setdefault("made_at", f"2026-02-{number:02}T00:00:00Z")
    return document(window=window, state=state, **changes)


def told(documents: list[Document]) -> list[tuple[str, str, str]]:
    """Return kind, episode and window of the notices of documents."""
    standing = Standing()
    found: list[tuple[str, str, str]] = []
    for each in documents:
        standing, notice = news(each, standing)
        standing = Standing.from_json(standing.to_json())
        if notice:
            found.append((notice.kind, notice.episode[-2:], notice.window[-2:]))
    return found


def test_an_alert_that_goes_on_is_told_once_and_again_when_it_is_over() -> None:
    states: list[State] = ["ok", "alert", "alert", "alert", "watch", "ok", "alert"]
    assert told([day(n, state) for n, state in enumerate(states, start=1)]) == [
        ("alert", "02", "02"),
        ("resolved", "02", "05"),
        ("alert", "07", "07"),
    ]


def test_too_few_rows_end_no_alert() -> None:
    states: list[State] = ["alert", "insufficient_data", "insufficient_data", "alert"]
    assert told([day(n, state) for n, state in enumerate(states, start=1)]) == [
        ("alert", "01", "01"),
        ("insufficient_data", "02", "02"),
    ]
    states = ["alert", "insufficient_data", "ok", "insufficient_data"]
    assert told([day(n, state) for n, state in enumerate(states, start=1)]) == [
        ("alert", "01", "01"),
        ("insufficient_data", "02", "02"),
        ("resolved", "01", "03"),
        ("insufficient_data", "04", "04"),
    ]


def test_the_same_document_and_older_ones_are_no_news() -> None:
    assert told([day(3, "alert"), day(3, "alert"), day(1), day(2)]) == [
        ("alert", "03", "03")
    ]


def test_a_later_look_at_the_same_window_is_news_if_it_says_otherwise() -> None:
    again = day(3, "ok", made_at="2026-02-05T00:00:00Z")
    assert told([day(3, "alert"), again]) == [
        ("alert", "03", "03"),
        ("resolved", "03", "03"),
    ]


def test_keys_are_those_of_the_change_and_of_no_other() -> None:
    _, one = news(day(1, "alert"), Standing())
    _, same = news(day(1, "alert", made_at="2026-02-09T00:00:00Z"), Standing())
    _, other = news(day(1, "alert", model="fares"), Standing())
    assert one and same and other
    assert one.key == same.key != other.key
    first, _ = news(day(1, "alert"), Standing())
    over, resolved = news(day(2), first)
    _, again = news(day(3, "alert"), over)
    assert resolved and again and resolved.alert_key == one.key
    assert len({one.key, resolved.key, again.key}) == 3


@given(
    st.lists(
        st.sampled_from(["ok", "watch", "alert", "insufficient_data"]), max_size=28
    )
)
def test_alerts_and_their_ends_take_turns(states: list[State]) -> None:
    found = told([day(n, state) for n, state in enumerate(states, start=1)])
    kinds = [kind for kind, _, _ in found if kind != "insufficient_data"]
    turns = itertools.cycle(["alert", "resolved"])
    assert kinds == [next(turns) for _ in kinds]
    heard = [state for state in states if state != "insufficient_data"]
    began = sum(
        state == "alert" and (n == 0 or heard[n - 1] != "alert")
        for n, state in enumerate(heard)
    )
    assert kinds.count("alert") == began


def alert() -> Notice:
    _, notice = news(alert_document(), Standing(), "https://reports/taxi")
    assert notice
    return notice


def test_one_notice_names_what_changed_in_the_order_of_rank() -> None:
    found = alert()
    assert found.title == (
        "taxi: alert on 2026-11-30 in fare, payment_type, auc in payment_type=Cash"
    )
    assert found.lines[: len(alert_document()["reasons"])] == tuple(
        alert_document()["reasons"]
    )
    assert any("most of all where payment_type is Cash" in each for each in found.lines)
    assert found.link == "https://reports/taxi"
    assert Notice.from_json(found.to_json()) == found


def test_many_features_are_one_notice_that_says_how_many_more() -> None:
    columns = [
        column(f"f{index:03}", "alert", rank=index + 1, explanation=f"f{index} moved.")
        for index in range(300)
    ]
    _, found = news(document(state="alert", columns=columns, reasons=[]), Standing())
    assert found
    assert found.title == ("taxi: drift on 2026-11-30 in f000, f001, f002 and 297 more")
    assert len(found.lines) == 10 and found.hidden == 290


def test_other_titles_say_what_they_are_about() -> None:
    _, too_few = news(insufficient_document(), Standing())
    assert too_few
    assert too_few.title == "taxi: not enough data on 2026-11-30 (212 rows)"
    before, _ = news(day(1, "alert"), Standing())
    _, over = news(ok_document(), before)
    assert over
    assert over.title == "taxi: resolved on 2026-11-30"
    assert over.lines == (
        "The alert that began with 2026-01-01 is over: 2026-11-30 is 'ok'.",
    )
    bare = document(columns=[], quality=quality(), state="alert")
    _, of_quality = news(bare, Standing())
    assert of_quality and of_quality.title.startswith("taxi: quality on 2026-11-30 in")
