"""Fixed times at which a model is trained again, in UTC.

Two forms: an interval, `every 6h` (with m, h or d), counted from 1970-01-01 00:00; and
the five fields of cron, `0 3 * * mon` (minute, hour, day of the month, month, weekday).
Which time was due last follows from the form and the clock alone, so that after any
length of being down there is one time that was missed, not many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from penstock.schemas.errors import PipelineError

_UNITS = {"m": 60, "h": 3_600, "d": 86_400}

_EVERY = re.compile(r"every\s+(\d{1,6})\s*([mhd])")

_MONTHS = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

# Name, least, greatest and words of each field.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    # Both 0 and 7 are Sunday.
    ("weekday", 0, 7, {name: i for i, name in enumerate(_WEEKDAYS)}),
)

_DAYS_AT_MOST = 8 * 366
"""A 29th of February comes back within eight years (1896 to 1904, 2096 to 2104)."""


@dataclass(frozen=True)
class Schedule:
    """When something is due.

    Attributes:
        text: The schedule as it was written.
        interval_seconds: Of an interval, its length; 0 for fields of cron.
        minutes: Minutes of the hour.
        hours: Hours of the day.
        days: Days of the month.
        months: Months of the year.
        weekdays: Days of the week, 0 for Sunday.
        either_day: Whether a day of the month or of the week will do, as cron has it
            where both are given.
    """

    text: str
    interval_seconds: int = 0
    minutes: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    either_day: bool = False

    def last_due(self, now: float) -> float:
        """Return the last time at or before `now`, in seconds since 1970."""
        if self.interval_seconds:
            return float(now // self.interval_seconds * self.interval_seconds)
        moment = datetime.fromtimestamp(now // 60 * 60, timezone.utc)
        for back in range(_DAYS_AT_MOST):
            day = moment - timedelta(days=back)
            if not self._is_due_on(day):
                continue
            for hour in reversed(self.hours):
                for minute in reversed(self.minutes):
                    due = day.replace(hour=hour, minute=minute)
                    if due <= moment:
                        return due.timestamp()
        raise self._never()

    def next_due(self, now: float) -> float:
        """Return the first time after `now`, in seconds since 1970."""
        if self.interval_seconds:
            return float((now // self.interval_seconds + 1) * self.interval_seconds)
        moment = datetime.fromtimestamp(now // 60 * 60, timezone.utc)
        for ahead in range(_DAYS_AT_MOST):
            day = moment + timedelta(days=ahead)
            if not self._is_due_on(day):
                continue
            for hour in self.hours:
                for minute in self.minutes:
                    due = day.replace(hour=hour, minute=minute)
                    if due > moment:
                        return due.timestamp()
        raise self._never()

    def _is_due_on(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        in_month = day.day in self.days
        in_week = day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week

    def _never(self) -> PipelineError:
        return PipelineError(
            f"Schedule '{self.text}' is never due: no month that it names has such a "
            "day. Write another day of the month."
        )


def parse_schedule(text: str) -> Schedule:
    """Return the schedule that a text describes.

    Args:
        text: `every 6h`, or the five fields of cron, as `30 3 * * mon-fri`.

    Raises:
        PipelineError: If it describes none, or one that is never due.
    """
    words = text.lower().split()
    if words[:1] == ["every"]:
        found = _EVERY.fullmatch(" ".join(words))
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        if not seconds:
            raise PipelineError(
                f"Schedule '{text}' is no interval. Write 'every 30m', 'every 6h' or "
                "'every 7d'."
            )
        return Schedule(text, interval_seconds=seconds)
    if len(words) != len(_FIELDS):
        raise PipelineError(
            f"Schedule '{text}' has {len(words)} fields where cron has 5 (minute, "
            "hour, day of the month, month, weekday). Write '0 3 * * *' for every day "
            "at 3, or an interval, as 'every 6h'."
        )
    minutes, hours, days, months, weekdays = (
        _values(text, word, *field) for word, field in zip(words, _FIELDS, strict=True)
    )
    made = Schedule(
        text,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(each % 7 for each in weekdays),
        # As in cron: a field that begins with a star does not name days.
        either_day=not words[2].startswith("*") and not words[4].startswith("*"),
    )
    made.next_due(0.0)  # or else it never is
    return made


def _values(
    text: str, word: str, name: str, least: int, greatest: int, words: dict[str, int]
) -> frozenset[int]:
    """Return the numbers that one field of cron stands for."""
    found: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if slash and not (step.isdecimal() and int(step)):
                raise ValueError
            if span == "*":
                begin, end = least, greatest
            else:
                begin = _number(first, words)
                end = _number(last, words) if dash else begin
                if slash and not dash:
                    end = greatest
            if not least <= begin <= end <= greatest:
                raise ValueError
        except ValueError:
            among = f" or a name such as '{next(iter(words))}'" if words else ""
            raise PipelineError(
                f"Schedule '{text}' has '{part}' for the {name}, which goes from "
                f"{least} to {greatest}. Write a number in that range{among}, a range "
                "'1-5', a step '*/15', several with commas, or '*' for all."
            ) from None
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return frozenset(found)


def _number(word: str, words: dict[str, int]) -> int:
    if word in words:
        return words[word]
    if not (word.isascii() and word.isdecimal()):
        raise ValueError
    return int(word)
