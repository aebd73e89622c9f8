"""When something is due by a schedule."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.retraining.schedule import parse_schedule
from penstock.schemas.errors import PipelineError


def at(text: str) -> float:
    """Return a moment in UTC in seconds since 1970."""
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("text", "now", "last", "following"),
    [
        # 2026-11-30 is a Monday.
        ("0 3 * * *", "2026-11-30 12:00", "2026-11-30 03:00", "2026-12-01 03:00"),
        ("0 3 * * *", "2026-11-30 03:00", "2026-11-30 03:00", "2026-12-01 03:00"),
        ("0 3 * * *", "2026-11-30 02:59:59", "2026-11-29 03:00", "2026-11-30 03:00"),
        ("30 6 * * mon", "2026-11-30 06:29", "2026-11-23 06:30", "2026-11-30 06:30"),
        (
            "*/15 9-17 * * 1-5",
            "2026-11-29 10:00",
            "2026-11-27 17:45",
            "2026-11-30 09:00",
        ),
        ("0 0 1 jan,jul *", "2026-11-30 00:00", "2026-07-01 00:00", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2026-11-30 00:00", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 0 29 feb *", "2103-01-01 00:00", "2096-02-29 00:00", "2104-02-29 00:00"),
        # Both days are named, so either will do, as cron has it: the 1st or a Sunday.
        ("0 0 1 * sun", "2026-11-30 00:00", "2026-11-29 00:00", "2026-12-01 00:00"),
        ("0 0 * * 7", "2026-11-30 00:00", "2026-11-29 00:00", "2026-12-06 00:00"),
        ("5/20 * * * *", "2026-11-30 00:30", "2026-11-30 00:25", "2026-11-30 00:45"),
        ("every 6h", "2026-11-30 13:00", "2026-11-30 12:00", "2026-11-30 18:00"),
        ("every 30m", "2026-11-30 13:30", "2026-11-30 13:30", "2026-11-30 14:00"),
        # Weeks are counted from 1970-01-01, a Thursday.
        ("every 7d", "2026-11-30 13:30", "2026-11-26 00:00", "2026-12-03 00:00"),
    ],
)
def test_a_schedule_knows_what_was_due_last_and_what_is_next(
    text: str, now: str, last: str, following: str
) -> None:
    schedule = parse_schedule(text)
    assert moment(schedule.last_due(at(now))) == f"{last}:00"
    assert moment(schedule.next_due(at(now))) == f"{following}:00"


_FIELD = st.one_of(
    st.just("*"),
    st.sampled_from(["*/2", "*/7", "1-3", "2,5", "3", "1-6/2", "4/2"]),
)


@settings(max_examples=60)
@given(
    st.tuples(_FIELD, _FIELD, _FIELD, st.just("*"), _FIELD),
    st.integers(0, 2_000_000_000),
)
def test_cron_is_what_looking_at_every_minute_finds(
    fields: tuple[str, ...], now: int
) -> None:
    schedule = parse_schedule(" ".join(fields))
    found = schedule.last_due(now)
    minute = datetime.fromtimestamp(now - now % 60, timezone.utc)
    for _ in range(10_000):
        if _is_due(fields, minute):
            break
        minute -= timedelta(minutes=1)
    else:
        # None in a week: it is at least as long ago.
        assert found < minute.timestamp()
        return
    assert found == minute.timestamp()
    assert schedule.next_due(found - 60) == found


def _is_due(fields: tuple[str, ...], moment: datetime) -> bool:
    """Say whether a moment is due, as the manual of cron has it: field by field."""
    values = (moment.minute, moment.hour, moment.day, moment.month)
    minute, hour, day, month = (
        _in(each, value, least)
        for each, value, least in zip(fields, values, (0, 0, 1, 1), strict=False)
    )
    sunday = moment.isoweekday() % 7
    weekday = _in(fields[4], sunday, 0) or (sunday == 0 and _in(fields[4], 7, 0))
    if fields[2].startswith("*") or fields[4].startswith("*"):
        return minute and hour and month and day and weekday
    return minute and hour and month and (day or weekday)


def _in(field: str, value: int, least: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = least, 99
        elif "-" in span:
            first, last = map(int, span.split("-"))
        else:
            first, last = int(span), 99 if step else int(span)
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


def test_a_field_of_days_with_a_step_counts_from_one() -> None:
    schedule = parse_schedule("0 0 */10 * *")
    assert schedule.days == {1, 11, 21, 31}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "every now and then",
            "Schedule 'every now and then' is no interval. Write 'every 30m', 'every "
            "6h' or 'every 7d'.",
        ),
        (
            "every 0h",
            "Schedule 'every 0h' is no interval. Write 'every 30m', 'every 6h' or "
            "'every 7d'.",
        ),
        (
            "0 3 * *",
            "Schedule '0 3 * *' has 4 fields where cron has 5 (minute, hour, day of "
            "the month, month, weekday). Write '0 3 * * *' for every day at 3, or an "
            "interval, as 'every 6h'.",
        ),
        (
            "0 24 * * *",
            "Schedule '0 24 * * *' has '24' for the hour, which goes from 0 to 23. "
            "Write a number in that range, a range '1-5', a step '*/15', several with "
            "commas, or '*' for all.",
        ),
        (
            "0 3 * * someday",
            "Schedule '0 3 * * someday' has 'someday' for the weekday, which goes from "
            "0 to 7. Write a number in that range or a name such as 'sun', a range "
            "'1-5', a step '*/15', several with commas, or '*' for all.",
        ),
        (
            "*/0 3 * * *",
            "Schedule '*/0 3 * * *' has '*/0' for the minute, which goes from 0 to "
            "59. Write a number in that range, a range '1-5', a step '*/15', several "
            "with commas, or '*' for all.",
        ),
        (
            "0 0 30 2 *",
            "Schedule '0 0 30 2 *' is never due: no month that it names has such a "
            "day. Write another day of the month.",
        ),
    ],
)
def test_what_is_no_schedule_gets_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(PipelineError) as raised:
        parse_schedule(text)
    assert str(raised.value) == sentence
