import datetime

import pytest

from penstock.components.monitoring.windows import DAY, HOUR, Window
from penstock.schemas.errors import DataError


def test_a_day_is_named_by_its_date_and_another_window_by_both_ends() -> None:
    assert Window.day("2026-11-30").name == "2026-11-30"
    assert Window.day(datetime.date(2026, 11, 30)).start == 1_795_996_800.0
    hour = Window.hour("2026-11-30", 23)
    assert hour.name == "2026-11-30T23:00:00Z/2026-12-01T00:00:00Z"
    assert hour.to_json() == {
        "start": "2026-11-30T23:00:00Z",
        "end": "2026-12-01T00:00:00Z",
        "name": "2026-11-30T23:00:00Z/2026-12-01T00:00:00Z",
    }


def test_a_window_has_its_start_and_not_its_end() -> None:
    day = Window.day("2026-11-30")
    assert day.start in day
    assert day.end not in day
    assert (day.weekday, day.hour_of_day, day.seconds) == (0, 0, DAY)


def test_a_week_is_divided_into_days_that_span_it() -> None:
    week = Window(Window.day("2026-11-30").start, Window.day("2026-12-06").end)
    days = list(week.split())
    assert [each.weekday for each in days] == list(range(7))
    assert Window.spanning(days) == week
    assert [each.seconds for each in Window(0, 1.5 * HOUR).split(HOUR)] == [3600, 1800]


def test_what_is_no_window_gets_a_sentence() -> None:
    with pytest.raises(DataError, match="start at 5 and end at 5 seconds since 1970"):
        Window(5, 5)
    with pytest.raises(DataError, match=r"'30\.11\.' is not a day\. Write it as '2026"):
        Window.day("30.11.")
    with pytest.raises(DataError, match="A day has no hour 24"):
        Window.hour("2026-11-30", 24)
    with pytest.raises(DataError, match="No windows span no time"):
        Window.spanning([])
