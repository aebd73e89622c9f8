"""Who is told of which models, how they are reached, and when they are left alone.

Settings are a file of JSON. What is secret (an incoming webhook's URL, a password, a
token) is never in it: it names files, which are read when something is sent.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from penstock.components.monitoring.notices.notice import KINDS, Notice
from penstock.components.monitoring.web import check_url, is_loopback
from penstock.schemas.errors import DataError, did_you_mean, quoted

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ADDRESS = re.compile(r"[!-;=?A-~]+@[A-Za-z0-9.\[\]:-]+")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Channel:
    """Somebody who is told.

    Attributes:
        name: What sentences and the outbox call it.
        models: Patterns of the models it is told of, as `taxi*`.
        notices: The kinds of notices that it gets.
    """

    name: str
    models: tuple[str, ...]
    notices: tuple[str, ...]

    def wants(self, notice: Notice) -> bool:
        """Return whether a notice is for it."""
        return notice.kind in self.notices and _fits(notice.model, self.models)

    @property
    def recipients(self) -> tuple[str, ...]:
        """Whom it goes to one by one; one empty name for the channel itself."""
        return ("",)


@dataclass(frozen=True)
class Mail(Channel):
    """A mail server and whom it brings mail to.

    Attributes:
        host: Of the server.
        port: Of the server.
        security: `starttls`, `tls` from the first byte, or `none`.
        user: Whom to log in as; empty for nobody.
        password_file: Of the user.
        sender: Address that mails are from.
        to: Addresses that they go to.
    """

    host: str
    port: int
    security: str
    user: str
    password_file: Path | None
    sender: str
    to: tuple[str, ...]

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses: each gets a letter, so that one that is refused stops none."""
        return self.to


@dataclass(frozen=True)
class Slack(Channel):
    """An incoming webhook of Slack, or of what takes the same JSON.

    Attributes:
        url_file: Holds its URL, which is a secret.
    """

    url_file: Path


@dataclass(frozen=True)
class Webhook(Channel):
    """Any receiver of JSON.

    Attributes:
        url: Where it is; empty where it is in a file.
        url_file: Holds the URL, if that is a secret.
        token_file: Holds the bearer token that it asks for, if it does.
    """

    url: str
    url_file: Path | None
    token_file: Path | None


@dataclass(frozen=True)
class Silence:
    """A time in which nobody is told; what is still true afterwards is told then.

    Either one time, or one of every week.

    Attributes:
        models: Patterns of the models that it is about.
        channels: Names of the channels that it is about; all of them if empty.
        begin: Its first instant, in seconds since 1970; None for one of every week.
        end: The first instant after it.
        weekdays: The days on which it begins, 0 for Monday.
        opens: When it begins on them.
        closes: When it ends, the next day if that is not after it begins.
        zone: Whose clock and calendar that is.
    """

    models: tuple[str, ...]
    channels: tuple[str, ...]
    begin: float | None = None
    end: float = 0.0
    weekdays: tuple[int, ...] = ()
    opens: time = time(0)
    closes: time = time(0)
    zone: ZoneInfo | timezone = timezone.utc

    def until(self, now: float) -> float:
        """Return when it ends, in seconds since 1970; `now` if it does not hold."""
        if self.begin is not None:
            return self.end if self.begin <= now < self.end else now
        today = datetime.fromtimestamp(now, self.zone).date()
        for day in (today - timedelta(days=1), today):
            if day.weekday() not in self.weekdays:
                continue
            over = day + timedelta(days=self.closes <= self.opens)
            begin, end = self._at(day, self.opens), self._at(over, self.closes)
            if begin <= now < end:
                return end
        return now

    def _at(self, day: date, clock: time) -> float:
        return datetime.combine(day, clock, self.zone).timestamp()


@dataclass(frozen=True)
class Settings:
    """Who is told of what, and when not.

    Attributes:
        channels: By their names.
        silences: When nobody is told.
        link: Where reports are, with `{model}` and `{window}`; empty if nowhere.
    """

    channels: Mapping[str, Channel]
    silences: tuple[Silence, ...] = ()
    link: str = ""

    def not_before(self, notice: Notice, channel: Channel, now: float) -> float:
        """Return when a notice may be sent, in seconds since 1970."""
        about = [
            silence
            for silence in self.silences
            if _fits(notice.model, silence.models)
            and (not silence.channels or channel.name in silence.channels)
        ]
        # One silence may end within the next. A year of days is enough of them.
        for _ in range(366):
            later = max((silence.until(now) for silence in about), default=now)
            if later <= now:
                break
            now = later
        return now


def _fits(model: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns)


# --- reading


def read_settings(path: Path) -> Settings:
    """Return the settings in a file; paths in it are relative to its folder.

    Raises:
        DataError: If it is missing, no JSON, or says something that is not understood.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"Settings '{path}' cannot be read: {error.strerror}. Name a file of JSON "
            "with 'channels'."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"Settings '{path}' are no JSON: {error}.") from error
    reader = _Reader(f"Settings '{path}'", data, path.parent)
    channels = {}
    for name, each in reader.table("channels").items():
        if not _NAME.fullmatch(name):
            reader.fail(
                f"have a channel '{name}'. Name it with letters, digits, '-' and '_'"
            )
        channels[name] = _channel(name, reader.part(f"channel '{name}'", each))
    if not channels:
        reader.fail("have no channel. Add one to 'channels', or nobody is told")
    silences = [
        _silence(reader.part(f"silence {number}", each), channels)
        for number, each in enumerate(reader.take("silences", list, []), start=1)
    ]
    link = reader.take("link", str, "")
    try:
        link.format(model="", window="")
    except (KeyError, IndexError, ValueError, AttributeError):
        reader.fail(
            f"have the link '{link}', in which only '{{model}}' and '{{window}}' are "
            "known. Write others as '{{' and '}}'"
        )
    reader.end()
    return Settings(channels, tuple(silences), link)


class _Reader:
    """Takes what is known from a table of JSON, and complains of the rest."""

    def __init__(self, subject: str, data: Any, folder: Path) -> None:
        self.subject = subject
        self.folder = folder
        self._known: list[str] = []
        if not isinstance(data, dict):
            self.fail("are no table. Write { and } around it")
        self._data: dict[str, Any] = data

    def fail(self, what: str) -> NoReturn:
        raise DataError(f"{self.subject} {what}.")

    def part(self, what: str, data: Any) -> _Reader:
        return _Reader(f"{self.subject}, {what},", data, self.folder)

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        self._known.append(key)
        if key not in self._data:
            if default is None:
                near = did_you_mean(key, self._data)
                raise DataError(f"{self.subject} have no '{key}'. Add it.{near}")
            return default
        found = self._data[key]
        if not isinstance(found, kind) or isinstance(found, bool):
            name = {str: "text", int: "number", list: "list", dict: "table"}[kind]
            self.fail(f"have a '{key}' that is no {name}. Write a {name}")
        return found

    def table(self, key: str) -> dict[str, Any]:
        return self.take(key, dict)

    def texts(
        self, key: str, default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        found = self.take(key, list, None if default is None else list(default))
        if not all(isinstance(each, str) and each for each in found):
            self.fail(f"have a '{key}' that is no list of texts. Write a list of texts")
        return tuple(found)

    def choice(self, key: str, legal: Iterable[str], default: str | None = None) -> str:
        found = self.take(key, str, default)
        self.one_of(key, found, legal)
        return found

    def one_of(self, key: str, found: str, legal: Iterable[str]) -> None:
        if found not in legal:
            near = did_you_mean(found, legal)
            raise DataError(
                f"{self.subject} have '{found}' as '{key}', which is one of "
                f"{quoted(legal)}.{near}"
            )

    def file(self, key: str) -> Path | None:
        found = self.take(key, str, "")
        return self.folder / found if found else None

    def has(self, key: str) -> bool:
        return key in self._data

    def end(self) -> None:
        """Refuse what nobody took."""
        for key in sorted(self._data.keys() - set(self._known)):
            near = did_you_mean(key, self._known)
            raise DataError(
                f"{self.subject} have '{key}', which is not known (known are "
                f"{quoted(self._known)}).{near}"
            )


def _channel(name: str, reader: _Reader) -> Channel:
    made = _KINDS[reader.choice("kind", _KINDS)]
    models = reader.texts("models", ("*",))
    notices = reader.texts("notices", KINDS)
    for each in notices:
        reader.one_of("notices", each, KINDS)
    channel = made(reader, name, models, notices)
    reader.end()
    return channel


def _mail(
    reader: _Reader, name: str, models: tuple[str, ...], notices: tuple[str, ...]
) -> Mail:
    host, _, port = reader.take("server", str).rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        reader.fail("have a 'server' that is not 'host:port'. Write it so")
    host = host.strip("[]")
    security = reader.choice("security", ("starttls", "tls", "none"), "starttls")
    user = reader.take("user", str, "")
    password = reader.file("password_file")
    if bool(user) != (password is not None):
        reader.fail("have one of 'user' and 'password_file'. Write both, or neither")
    if user and security == "none" and not is_loopback(host):
        reader.fail(
            f"would send a password to '{host}' for everybody to read. Write "
            "'starttls' or 'tls' as 'security'"
        )
    sender = reader.take("sender", str)
    to = reader.texts("to")
    for address in (sender, *to):
        if not _ADDRESS.fullmatch(address):
            reader.fail(f"have the address '{address}'. Write it as 'name@host'")
    if not to:
        reader.fail("have an empty 'to'. Write at least one address")
    return Mail(
        name, models, notices, host, int(port), security, user, password, sender, to
    )


def _slack(
    reader: _Reader, name: str, models: tuple[str, ...], notices: tuple[str, ...]
) -> Slack:
    if reader.has("url"):
        reader.fail(
            "have a 'url', and whoever knows it can write to Slack. Put it into a file "
            "that only you may read, and name that as 'url_file'"
        )
    return Slack(name, models, notices, reader.folder / reader.take("url_file", str))


def _webhook(
    reader: _Reader, name: str, models: tuple[str, ...], notices: tuple[str, ...]
) -> Webhook:
    url, file = reader.take("url", str, ""), reader.file("url_file")
    if bool(url) == (file is not None):
        reader.fail("have to have either a 'url' or a 'url_file'. Write one of them")
    if url:
        url = check_url(url, f"{reader.subject} have a 'url', which")
    return Webhook(name, models, notices, url, file, reader.file("token_file"))


_KINDS: Mapping[
    str, Callable[[_Reader, str, tuple[str, ...], tuple[str, ...]], Channel]
] = {"mail": _mail, "slack": _slack, "webhook": _webhook}


def _silence(reader: _Reader, channels: Iterable[str]) -> Silence:
    models = reader.texts("models", ("*",))
    names = reader.texts("channels", ())
    for name in names:
        reader.one_of("channels", name, channels)
    reader.take("reason", str, "")
    if not reader.has("weekdays"):
        begin = _instant(reader, "from", reader.take("from", str))
        end = _instant(reader, "until", reader.take("until", str))
        if end <= begin:
            reader.fail("end before they begin. Write 'until' after 'from'")
        reader.end()
        return Silence(models, names, begin, end)
    days = reader.texts("weekdays")
    for day in days:
        reader.one_of("weekdays", day, _WEEKDAYS)
    opens = _clock(reader, "from", reader.take("from", str, "00:00"))
    closes = _clock(reader, "until", reader.take("until", str, "00:00"))
    zone = _zone(reader, reader.take("timezone", str, "UTC"))
    reader.end()
    weekdays = tuple(_WEEKDAYS.index(day) for day in days)
    return Silence(models, names, None, 0.0, weekdays, opens, closes, zone)


def _instant(reader: _Reader, key: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        reader.fail(
            f"have the time '{text}' as '{key}'. Write it as '2026-12-24T00:00:00Z'"
        )
    return found.timestamp()


def _clock(reader: _Reader, key: str, text: str) -> time:
    found = _CLOCK.fullmatch(text)
    if found is None:
        reader.fail(f"have '{text}' as '{key}'. Write hours and minutes, as '22:00'")
    return time(int(found[1]), int(found[2]))


def _zone(reader: _Reader, name: str) -> ZoneInfo | timezone:
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        reader.fail(
            f"have the time zone '{name}', which this machine does not know. Write it "
            "as 'Europe/Berlin', or 'UTC'"
        )
