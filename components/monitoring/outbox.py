"""What is to be sent, kept on disk until it was: nothing is lost, little comes twice.

A letter is written down before anybody tries to send it, and crossed out after it was
taken. A process that is killed between the two leaves it for the next one, which sends
it again under the same key; so it arrives at least once, and the receiver can tell.
What cannot be sent is tried again, later and later; what never will be is kept as a
dead letter, with the reason, until somebody revives it.

Secrets are never written here: a letter names its channel, and how to get there is
known to whoever sends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from penstock.schemas.errors import DataError

FIRST_DELAY_SECONDS = 30.0
LONGEST_DELAY_SECONDS = 3_600.0
KEPT_SECONDS = 400 * 86_400.0
"""How long what was sent is remembered, so that it is not sent again."""

Clock = Callable[[], float]
Fate = Literal["waiting", "sent", "dead", "silenced"]


class NotSent(Exception):
    """A letter was not taken; its text is a sentence without what is secret.

    Attributes:
        permanent: Whether it will never be, so that it is dead.
        unreachable: Whether nobody answered, so that other letters to the same channel
            need not be tried now.
        after_seconds: How long the receiver asked to wait; 0 if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        unreachable: bool = False,
        after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.unreachable = unreachable
        self.after_seconds = after_seconds


@dataclass(frozen=True)
class Letter:
    """One thing to be sent to one receiver.

    Attributes:
        key: What it is known by; the same for the same content, however often it is
            made or sent.
        channel: Whom it goes to.
        body: What is sent.
        thread: What it is about: of one channel and thread, letters arrive in the order
            in which they were put. Empty where the order does not matter.
        not_before: When it may be sent first, in seconds since 1970.
        tries: How often it was tried.
        fate: What became of it.
        said: Why it was not sent, at the last try.
        due: When it is tried next.
        made: When it was put.
        tried: When it was tried first; 0 if it never was.
        serial: Of this very content of the key.
    """

    key: str
    channel: str
    body: bytes
    thread: str = ""
    not_before: float = 0.0
    tries: int = 0
    fate: Fate = "waiting"
    said: str = ""
    due: float = 0.0
    made: float = 0.0
    tried: float = 0.0
    serial: int = 0


@dataclass
class Delivery:
    """What came of trying to send what was due.

    Attributes:
        sent: Letters that were taken.
        kept: Letters that were not, and are tried again, each with the reason.
        dead: Letters that will not be tried again, each with the reason.
    """

    sent: list[Letter] = field(default_factory=list)
    kept: list[tuple[Letter, str]] = field(default_factory=list)
    dead: list[tuple[Letter, str]] = field(default_factory=list)


_TABLES = """
CREATE TABLE IF NOT EXISTS letters (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    channel TEXT NOT NULL,
    thread TEXT NOT NULL,
    body BLOB NOT NULL,
    made REAL NOT NULL,
    due REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    fate TEXT NOT NULL DEFAULT 'waiting',
    said TEXT NOT NULL DEFAULT '',
    tried REAL,
    ended REAL,
    UNIQUE (key, channel)
);
CREATE INDEX IF NOT EXISTS waiting ON letters (fate, serial);
CREATE TABLE IF NOT EXISTS memory (
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (subject, name)
);
"""

_FIELDS = "key, channel, body, thread, tries, fate, said, due, made, tried, serial"


class Outbox:
    """Letters in a SQLite file.

    Several processes may put letters into one file; one of them at a time sends.

    Args:
        path: The file; it is made if it is not there.
        clock: Tells the time, in seconds since 1970.
        give_up_seconds: How long after it was first tried a letter is dead.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock = time.time,
        give_up_seconds: float = 3 * 86_400.0,
    ) -> None:
        self.path = path
        self._clock = clock
        self._give_up_seconds = give_up_seconds
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The file tells what is wrong with models, which is nobody else's business.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._file = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            try:
                # A letter that was put stays, whatever happens to the machine.
                self._file.execute("PRAGMA synchronous = EXTRA")
                self._file.executescript(_TABLES)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise DataError(
                f"Outbox '{path}' cannot be opened: {error.strerror}. Name a file in a "
                "folder that this user may write."
            ) from error
        except sqlite3.Error as error:
            raise DataError(
                f"Outbox '{path}' cannot be opened: {error}. Name another file, or "
                "move this one away; what waits in it is not sent then."
            ) from error

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def changes(self) -> Iterator[None]:
        """Make all that is done in the context at once, or none of it."""
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    # --- putting

    def put(self, letter: Letter, *, replace: bool = False) -> bool:
        """Write a letter down.

        Args:
            letter: What is to be sent.
            replace: Whether it takes the place of one with its key and channel,
                whatever became of that. Otherwise it is not written where there is one.

        Returns:
            Whether it was written.
        """
        if replace:
            self._file.execute(
                "DELETE FROM letters WHERE key = ? AND channel = ?",
                (letter.key, letter.channel),
            )
        now = self._clock()
        written = self._file.execute(
            "INSERT OR IGNORE INTO letters (key, channel, thread, body, made, due) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(letter.key, letter.channel, letter.thread, letter.body, now),
                max(now, letter.not_before),
            ),
        )
        return written.rowcount == 1

    def silence(self, channel: str, thread: str) -> bool:
        """Give up letters that wait and were never tried: they have no point any more.

        Returns:
            Whether there were any.
        """
        done = self._file.execute(
            "UPDATE letters SET fate = 'silenced', ended = ? WHERE channel = ? AND "
            "thread = ? AND fate = 'waiting' AND tries = 0 AND due > ?",
            (self._clock(), channel, thread, self._clock()),
        )
        return done.rowcount > 0

    def revive(self) -> int:
        """Have dead letters tried again; return how many there were."""
        done = self._file.execute(
            "UPDATE letters SET fate = 'waiting', tries = 0, tried = NULL, due = ?, "
            "ended = NULL WHERE fate = 'dead'",
            (self._clock(),),
        )
        return done.rowcount

    # --- remembering

    def recall(self, subject: str, name: str) -> str | None:
        """Return what is remembered of a name, or None."""
        row = self._file.execute(
            "SELECT value FROM memory WHERE subject = ? AND name = ?", (subject, name)
        ).fetchone()
        return None if row is None else str(row[0])

    def recalled(self, subject: str) -> dict[str, str]:
        """Return all that is remembered of a subject, by name."""
        rows = self._file.execute(
            "SELECT name, value FROM memory WHERE subject = ? ORDER BY name", (subject,)
        )
        return {str(name): str(value) for name, value in rows}

    def remember(self, subject: str, name: str, value: str | None) -> None:
        """Remember a value of a name; nothing with None."""
        if value is None:
            self._file.execute(
                "DELETE FROM memory WHERE subject = ? AND name = ?", (subject, name)
            )
            return
        self._file.execute(
            "INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (subject, name, value)
        )

    # --- sending

    def letters(self, fate: Fate | None = None) -> tuple[Letter, ...]:
        """Return the letters of one fate, or all, in the order they were put."""
        where = "" if fate is None else "WHERE fate = ?"
        rows = self._file.execute(
            f"SELECT {_FIELDS} FROM letters {where} ORDER BY serial",
            () if fate is None else (fate,),
        )
        return tuple(_letter(row) for row in rows.fetchall())

    def deliver(
        self,
        send: Callable[[Letter], None],
        *,
        channels: Callable[[str], bool] = lambda channel: True,
    ) -> Delivery:
        """Send what is due, once each.

        While another process sends from this file, this waits for it to end.

        Args:
            send: Sends one letter; raises `NotSent` where it was not taken.
            channels: Says whether a channel is looked after here.
        """
        found = Delivery()
        with self._only_sender():
            stuck: set[tuple[str, str]] = set()
            unreachable: dict[str, str] = {}
            for letter in self.letters("waiting"):
                lane = (letter.channel, letter.thread)
                if not channels(letter.channel):
                    continue
                if letter.channel in unreachable:
                    found.kept.append((letter, unreachable[letter.channel]))
                    continue
                waits = bool(letter.thread) and lane in stuck
                if waits or letter.due > self._clock():
                    stuck.add(lane)
                    if letter.tries:
                        found.kept.append((letter, letter.said))
                    continue
                try:
                    send(letter)
                except NotSent as error:
                    if error.unreachable:
                        unreachable[letter.channel] = str(error)
                    self._failed(letter, error, found)
                    stuck.add(lane)
                else:
                    self._end(letter, "sent", "")
                    found.sent.append(letter)
            self._forget()
        return found

    def deliver_for(
        self,
        send: Callable[[Letter], None],
        seconds: float,
        *,
        channels: Callable[[str], bool] = lambda channel: True,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> Delivery:
        """Send what is due, and what becomes due, until nothing waits or time is over.

        Returns:
            What was sent and died in all, and what is kept in the end.
        """
        end = self._clock() + seconds
        total = Delivery()
        while True:
            last = self.deliver(send, channels=channels)
            total.sent += last.sent
            total.dead += last.dead
            total.kept = last.kept
            dues = [
                each.due for each in self.letters("waiting") if channels(each.channel)
            ]
            now = self._clock()
            if not dues or max(now, min(dues)) >= end:
                return total
            # Others of an unreachable channel are due still; it is not pestered.
            sleep(max(1.0, min(dues) - now))

    def _failed(self, letter: Letter, error: NotSent, found: Delivery) -> None:
        now = self._clock()
        first = letter.tried or now
        if error.permanent or now - first > self._give_up_seconds:
            self._end(letter, "dead", str(error))
            found.dead.append((letter, str(error)))
            return
        delay = max(backoff_seconds(letter.key, letter.tries), error.after_seconds)
        self._file.execute(
            "UPDATE letters SET tries = tries + 1, tried = ?, due = ?, said = ? "
            "WHERE serial = ?",
            (first, now + delay, str(error), letter.serial),
        )
        found.kept.append((letter, str(error)))

    def _end(self, letter: Letter, fate: Fate, said: str) -> None:
        # By its serial: what took its place meanwhile is another letter.
        self._file.execute(
            "UPDATE letters SET tries = tries + 1, fate = ?, said = ?, ended = ? "
            "WHERE serial = ?",
            (fate, said, self._clock(), letter.serial),
        )

    def _forget(self) -> None:
        self._file.execute(
            "DELETE FROM letters WHERE fate IN ('sent', 'silenced') AND ended < ?",
            (self._clock() - KEPT_SECONDS,),
        )

    @contextlib.contextmanager
    def _only_sender(self) -> Iterator[None]:
        """Hold the lock of senders, which the kernel frees if a process is killed."""
        lock = os.open(
            self.path.with_name(self.path.name + ".lock"),
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
            0o600,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def backoff_seconds(key: str, tries: int) -> float:
    """Return how long to wait after a try that failed.

    Twice as long after each, up to an hour, and a tenth more or less, which the key
    decides, so that what failed together does not come back together.
    """
    doubled = FIRST_DELAY_SECONDS * math.pow(2, min(tries, 30))
    digest = hashlib.sha256(f"{key} {tries}".encode()).digest()
    return min(doubled, LONGEST_DELAY_SECONDS) * (0.9 + 0.2 * digest[0] / 255)


def _letter(row: tuple[Any, ...]) -> Letter:
    key, channel, body, thread, tries, fate, said, due, made, tried, serial = row
    return Letter(
        key,
        channel,
        bytes(body),
        thread,
        tries=tries,
        fate=fate,
        said=said,
        due=due,
        made=made,
        tried=tried or 0.0,
        serial=serial,
    )
