"""Windows of time: what one profile, one verdict and one point of a trend are about."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator

from penstock.schemas.errors import DataError, PipelineError

HOUR = 3_600.0
"""Seconds of an hour."""

DAY = 86_400.0
"""Seconds of a day."""

_UTC = datetime.timezone.utc


@dataclasses.dataclass(frozen=True, order=True)
class Window:
    """A stretch of time: its start belongs to it, its end to the next.

    Attributes:
        start: Seconds since 1970 UTC.
        end: Likewise; later than the start.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise DataError(
                f"A window cannot start at {self.start} and end at {self.end} seconds "
                "since 1970. Give an end after the start."
            )

    @classmethod
    def day(cls, date: datetime.date | str) -> Window:
        """Return the UTC day of a date, or of one written as '2026-11-30'."""
        if isinstance(date, str):
            try:
                date = datetime.date.fromisoformat(date)
            except ValueError:
                raise DataError(
                    f"'{date}' is not a day. Write it as '2026-11-30'."
                ) from None
        start = datetime.datetime(date.year, date.month, date.day, tzinfo=_UTC)
        return cls(start.timestamp(), start.timestamp() + DAY)

    @classmethod
    def hour(cls, date: datetime.date | str, hour: int) -> Window:
        """Return an hour, 0 to 23, of the UTC day of a date."""
        if not 0 <= hour < 24:
            raise DataError(f"A day has no hour {hour}. Give one from 0 to 23.")
        start = cls.day(date).start + hour * HOUR
        return cls(start, start + HOUR)

    @classmethod
    def parse(cls, text: str, subject: str) -> Window:
        """Return the UTC day '2026-11-30', or start and end in ISO 8601 with a slash.

        Args:
            text: What is said.
            subject: What says it, for the sentence.

        Raises:
            DataError: It is no day, or ends before it starts.
            PipelineError: One of its ends is no time.
        """
        if "/" not in text:
            return cls.day(text)
        start, _, end = text.partition("/")
        return cls(seconds_of(start, subject), seconds_of(end, subject))

    @classmethod
    def spanning(cls, windows: Iterable[Window]) -> Window:
        """Return the stretch from the first start to the last end of some windows.

        Raises:
            DataError: If there are none.
        """
        found = list(windows)
        if not found:
            raise DataError("No windows span no time. Give at least one.")
        return cls(min(each.start for each in found), max(each.end for each in found))

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start

    @property
    def name(self) -> str:
        """'2026-11-30' for a UTC day, else both ends in ISO 8601 with a slash."""
        if self.seconds == DAY and self.start % DAY == 0:
            return self.start_time.date().isoformat()
        return f"{iso(self.start)}/{iso(self.end)}"

    @property
    def start_time(self) -> datetime.datetime:
        """Its start as an aware UTC time."""
        return _time(self.start)

    @property
    def weekday(self) -> int:
        """Day of the week on which it starts, in UTC: 0 is a Monday."""
        return self.start_time.weekday()

    @property
    def hour_of_day(self) -> int:
        """Hour of the day in which it starts, in UTC."""
        return self.start_time.hour

    def __contains__(self, time: float) -> bool:
        return self.start <= time < self.end

    def split(self, seconds: float = DAY) -> Iterator[Window]:
        """Divide it into windows of a length; the last one may be shorter."""
        start = self.start
        while start < self.end:
            yield Window(start, min(start + seconds, self.end))
            start += seconds

    def to_json(self) -> dict[str, str]:
        """Return its start, end and name as reports have them."""
        return {"start": iso(self.start), "end": iso(self.end), "name": self.name}


UNDATED = Window(0.0, 1.0)
"""The window of rows that do not say when they were logged, as training data."""


def iso(seconds: float) -> str:
    """Return a time as '2026-11-30T00:00:00Z', with microseconds where it has any."""
    return _time(seconds).isoformat().replace("+00:00", "Z")


def seconds_of(text: str, subject: str) -> float:
    """Return a time in ISO 8601 as seconds since 1970; UTC if it does not say.

    Args:
        text: The time.
        subject: What says it, for the sentence.

    Raises:
        PipelineError: It is none.
    """
    try:
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise PipelineError(
            f"{subject} has the time '{text}'. Write it as '2026-11-30T06:00:00Z'."
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=_UTC)
    return found.timestamp()


def _time(seconds: float) -> datetime.datetime:
    # Added, not fromtimestamp: that rounds otherwise and refuses years before 1970 on
    # some platforms.
    return datetime.datetime(1970, 1, 1, tzinfo=_UTC) + datetime.timedelta(
        seconds=seconds
    )


def is_alike(one: Window, other: Window) -> bool:
    """Return whether windows are of one length; months and leap seconds may differ."""
    return abs(one.seconds - other.seconds) <= 0.2 * other.seconds


def recent_since(window: Window, m: int) -> float:
    """Return from when on windows may count as one of the last m before another.

    Days without traffic, as weekends, may lie between; what is longer ago than four
    times as many windows says nothing of now.
    """
    return window.start - 4 * m * window.seconds


def is_recent(before: Window, window: Window, m: int) -> bool:
    """Return whether a window may count as one of the last m before another."""
    return is_alike(before, window) and (
        recent_since(window, m) <= before.start < before.end <= window.start
    )
