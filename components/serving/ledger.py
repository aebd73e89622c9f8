"""The ledger of a serving directory: what was done to its versions, and what holds now.

One SQLite file, `.penstock/ledger.sqlite`, in write-ahead mode. Events are only ever
added; facts are what holds now, and change in the same transaction as the event that
says why. Whoever acts for long holds the lease, whose epoch rises with every holder: a
write with an older epoch fails, however long its writer was asleep.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from penstock.components.serving.holders import (
    actor,
    is_dead,
    readable,
    silent_seconds,
    this_holder,
)
from penstock.components.serving.place import existing
from penstock.schemas.errors import ServingError

LEASE_SECONDS = 10.0
"""How long a holder that is not known to be dead keeps the lease without renewing."""

_BUSY_SECONDS = 30.0
_FORMAT = 1

# Each thread has a connection of its own; only closing is done by any.
_HOW: dict[str, Any] = {
    "timeout": _BUSY_SECONDS,
    "isolation_level": None,
    "check_same_thread": False,
}

_inherited: list[sqlite3.Connection] = []

_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    epoch INTEGER NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    version INTEGER,
    rollout TEXT,
    data TEXT NOT NULL
);
CREATE INDEX events_of_a_version ON events (version, seq);
CREATE TRIGGER events_stay BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_remain BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE lease (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    holder TEXT,
    renewed REAL NOT NULL
);
INSERT INTO lease VALUES (1, 0, NULL, 0);
"""


class LeaseLost(ServingError):
    """Another holder has the lease: nothing that was to be written was written."""


class Conflict(ServingError):
    """A fact changed since it was read: nothing that was to be written was written."""


@dataclass(frozen=True)
class Event:
    """One thing that was done.

    Attributes:
        seq: Its number; rises in the order in which things were done.
        at: When, in seconds since 1970. Information only: clocks step.
        epoch: Epoch of the lease under which it was done; 0 for a deed without one.
        actor: Who did it, as host and process.
        kind: What was done, such as `pushed`.
        version: The version it was done to, if any.
        rollout: The rollout it belongs to, if any.
        data: All else about it.
    """

    seq: int
    at: float
    epoch: int
    actor: str
    kind: str
    version: int | None
    rollout: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Lease:
    """The right to act on a serving directory for as long as nobody else has it.

    Attributes:
        epoch: Greater than that of every holder before.
        holder: Who has it.
    """

    epoch: int
    holder: str


class Transaction:
    """What is read and written together; it holds as a whole, or not at all."""

    def __init__(self, connection: sqlite3.Connection, epoch: int) -> None:
        self._connection = connection
        self._epoch = epoch

    def event(
        self,
        kind: str,
        version: int | None = None,
        *,
        rollout: str | None = None,
        **data: Any,
    ) -> int:
        """Add an event.

        Args:
            kind: What was done.
            version: The version it was done to.
            rollout: The rollout it belongs to.
            **data: What else is to be known of it, as JSON data.

        Returns:
            Its number.
        """
        cursor = self._connection.execute(
            "INSERT INTO events (at, epoch, actor, kind, version, rollout, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                time.time(),
                self._epoch,
                actor(),
                kind,
                version,
                rollout,
                json.dumps(data, sort_keys=True),
            ),
        )
        return int(cursor.lastrowid or 0)

    def fact(self, key: str) -> Any:
        """Return what holds now, as JSON data; None if nothing was ever said."""
        return _fact(self._connection, key)

    def renew(self) -> None:
        """Say that the holder of the lease, who writes this, is alive."""
        self._connection.execute("UPDATE lease SET renewed = ?", (time.monotonic(),))

    def hold(self, key: str, value: Any) -> None:
        """Make a fact hold from this transaction on; None removes it."""
        if value is None:
            self._connection.execute("DELETE FROM facts WHERE key = ?", (key,))
            return
        self._connection.execute(
            "INSERT INTO facts VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, json.dumps(value, sort_keys=True)),
        )


class Ledger:
    """The ledger of one serving directory.

    It may be used by any number of threads and processes of one machine.

    Args:
        serving_dir: The serving directory, which exists.
        read_only: Never make or change anything; a ledger that is not there reads as
            an empty one.

    Raises:
        ServingError: If it is not there, cannot be opened, or is of a newer penstock.
    """

    def __init__(self, serving_dir: Path | str, *, read_only: bool = False) -> None:
        self.directory = existing(serving_dir)
        self._path = self.directory / ".penstock" / "ledger.sqlite"
        self._read_only = read_only
        self._local = threading.local()
        self._made: list[sqlite3.Connection] = []
        self._process = os.getpid()
        with self._explained():
            self._prepare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Python 3.13 warns of connections that are left to the garbage collector.
        if getattr(self, "_process", None) == os.getpid():
            self.close()

    # --- reading

    def events(
        self,
        version: int | None = None,
        *,
        rollout: str | None = None,
        kinds: tuple[str, ...] = (),
        since: int = 0,
    ) -> tuple[Event, ...]:
        """Return events in the order in which things were done.

        Args:
            version: Only those of this version.
            rollout: Only those of this rollout.
            kinds: Only those of these kinds.
            since: Only those with a greater number.
        """
        wanted = ["seq > ?"]
        values: list[Any] = [since]
        for column, value in (("version", version), ("rollout", rollout)):
            if value is not None:
                wanted.append(f"{column} = ?")
                values.append(value)
        if kinds:
            wanted.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values += kinds
        with self._explained():
            connection = self._connection()
            if connection is None:
                return ()
            rows = connection.execute(
                "SELECT seq, at, epoch, actor, kind, version, rollout, data "
                f"FROM events WHERE {' AND '.join(wanted)} ORDER BY seq",
                values,
            ).fetchall()
        return tuple(
            Event(seq, at, epoch, actor, kind, version, rollout, json.loads(data))
            for seq, at, epoch, actor, kind, version, rollout, data in rows
        )

    def last_kinds(self, kinds: tuple[str, ...]) -> dict[int, str]:
        """Return the kind of the last event of each version, of these kinds alone.

        It takes milliseconds for thousands of versions.

        Args:
            kinds: The kinds that count.
        """
        with self._explained():
            connection = self._connection()
            if connection is None:
                return {}
            # SQLite takes a bare column from the row that has the maximum.
            rows = connection.execute(
                "SELECT version, kind, MAX(seq) FROM events WHERE version IS NOT NULL "
                f"AND kind IN ({', '.join('?' * len(kinds))}) GROUP BY version",
                kinds,
            ).fetchall()
        return {version: kind for version, kind, _ in rows}

    def fact(self, key: str) -> Any:
        """Return what holds now, as JSON data; None if nothing was ever said."""
        with self._explained():
            connection = self._connection()
            return None if connection is None else _fact(connection, key)

    def facts(self, *keys: str) -> tuple[Any, ...]:
        """Return what holds now, of several keys at one moment."""
        with self._explained():
            connection = self._connection()
            if connection is None:
                return tuple(None for _ in keys)
            found = dict(
                connection.execute(
                    "SELECT key, value FROM facts "
                    f"WHERE key IN ({', '.join('?' * len(keys))})",
                    keys,
                )
            )
        return tuple(json.loads(found[key]) if key in found else None for key in keys)

    def changes(self) -> int:
        """Return a number that is another one after somebody else has written.

        It takes microseconds, so that it can be asked a hundred times a second.
        """
        with self._explained():
            connection = self._connection()
            if connection is None:
                return 0
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    # --- writing

    @contextlib.contextmanager
    def writing(self, lease: Lease | None = None) -> Iterator[Transaction]:
        """Read and write together, while nobody else writes.

        What is written is on the disk when the block ends, and not at all if it
        raises.

        Args:
            lease: The lease under which to write.

        Yields:
            The transaction.

        Raises:
            LeaseLost: If another holder has the lease.
            ServingError: If the ledger cannot be written.
        """
        if self._read_only:
            raise ServingError(
                f"The ledger of '{self.directory}' was opened to be read only. Open "
                "it without read_only to write to it."
            )
        with self._explained():
            connection = self._connection()
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                if lease is not None:
                    _check_lease(connection, self.directory, lease)
                yield Transaction(connection, lease.epoch if lease else 0)
                connection.execute("COMMIT")
            except BaseException:
                # A full disk rolls back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def acquire(self, *, seconds: float = LEASE_SECONDS) -> Lease:
        """Take the lease, if its holder gave it up, died or fell silent.

        A holder on this machine that was killed is known to be dead at once; one in
        another container is waited for.

        Args:
            seconds: For how long a silent holder keeps it.

        Raises:
            ServingError: If somebody else has it.
        """
        with self._explained():
            with self.writing() as transaction:
                connection = transaction._connection
                epoch, holder, renewed = connection.execute(
                    "SELECT epoch, holder, renewed FROM lease"
                ).fetchone()
                mine = this_holder()
                if holder is not None and holder != mine:
                    silent = silent_seconds(holder, renewed)
                    if silent < seconds and not is_dead(holder):
                        raise ServingError(
                            f"Serving directory '{self.directory}' is already "
                            f"controlled, by {readable(holder)}, which was heard of "
                            f"{silent:.0f} seconds ago. Use the one that runs, or end "
                            "it first."
                        )
                connection.execute(
                    "UPDATE lease SET epoch = ?, holder = ?, renewed = ?",
                    (epoch + 1, mine, time.monotonic()),
                )
            return Lease(epoch + 1, mine)

    def renew(self, lease: Lease) -> None:
        """Say that the holder of the lease is alive.

        Raises:
            LeaseLost: If another holder has it.
        """
        with self.writing(lease) as transaction:
            transaction.renew()

    def release(self, lease: Lease) -> None:
        """Give the lease up; nothing happens if another holder has it."""
        with contextlib.suppress(LeaseLost), self.writing(lease) as transaction:
            transaction._connection.execute("UPDATE lease SET holder = NULL")

    def silence(self) -> float | None:
        """Return for how many seconds the holder of the lease has not been heard of.

        None if nobody has it; infinity if its machine was started anew since.
        """
        _, holder, renewed = self._lease()
        return None if holder is None else silent_seconds(holder, renewed)

    def unattended(self) -> float | None:
        """Return for how many seconds nobody has controlled this, as far as is known.

        None if nobody ever has; infinity if the machine was started anew since.
        """
        epoch, holder, renewed = self._lease()
        if holder is not None:
            return silent_seconds(holder, renewed)
        silent = time.monotonic() - renewed
        return None if epoch == 0 else silent if silent >= 0 else float("inf")

    def _lease(self) -> tuple[int, str | None, float]:
        """Return the epoch, who has the lease, and when it was renewed."""
        with self._explained():
            connection = self._connection()
            if connection is None:
                return 0, None, 0.0
            epoch, holder, renewed = connection.execute(
                "SELECT epoch, holder, renewed FROM lease"
            ).fetchone()
        return epoch, holder, renewed

    def controller(self) -> str | None:
        """Return who has the lease and is alive, for people to read; or None."""
        _, holder, renewed = self._lease()
        if holder is None or is_dead(holder):
            return None
        if silent_seconds(holder, renewed) > LEASE_SECONDS:
            return None
        return readable(holder)

    def close(self) -> None:
        """Close the connections of all threads; the next use opens a new one."""
        while self._made:
            self._made.pop().close()
        self._local = threading.local()

    # --- the file

    def _prepare(self) -> None:
        if self._read_only:
            return
        if not self._path.exists():
            self._path.parent.mkdir(exist_ok=True)
        connection = self._connection()
        assert connection is not None
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            # Two processes may open a new ledger at once: the second finds it made.
            connection.execute("BEGIN IMMEDIATE")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in _statements(_SCHEMA):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("COMMIT")
        self._check_format(connection)

    def _check_format(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise ServingError(
                f"The ledger '{self._path}' has format {found} where this penstock "
                f"knows {_FORMAT}. Install the penstock that wrote it, or a newer one."
            )

    def _connection(self) -> sqlite3.Connection | None:
        """Return this thread's connection; None for a ledger that is not there."""
        if os.getpid() != self._process:
            # A connection must neither be used nor closed by the child of a fork.
            self._process = os.getpid()
            _inherited.extend(self._made)
            self._made = []
            self._local = threading.local()
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None:
            made = self._opened()
            if made is not None:
                self._made.append(made)
                self._local.connection = made
        return made

    def _opened(self) -> sqlite3.Connection | None:
        if self._read_only:
            if not self._path.exists():
                return None
            made = _read_only_connection(self._path)
            try:
                if made.execute("PRAGMA user_version").fetchone()[0] == 0:
                    made.close()  # it is being made just now
                    return None
                self._check_format(made)
            except BaseException:
                made.close()
                raise
            return made
        fresh: sqlite3.Connection = sqlite3.connect(self._path, **_HOW)
        try:
            fresh.execute("PRAGMA journal_mode = WAL")
            fresh.execute("PRAGMA synchronous = FULL")
        except BaseException:
            fresh.close()
            raise
        return fresh

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ServingError(_sentence(self._path, error)) from error
        except OSError as error:
            what = error.strerror or str(error)
            raise ServingError(
                f"The ledger '{self._path}' cannot be written: {what}. Give this user "
                "the right to write there, or free space."
            ) from error


def _read_only_connection(path: Path) -> sqlite3.Connection:
    """Open a ledger that this user may only read.

    A write-ahead log needs a file that readers share. Where this user may not make
    it, nobody writes as long as it is absent, and the file can be read as it is.
    """
    for query in ("mode=ro", "mode=ro&immutable=1"):
        made: sqlite3.Connection = sqlite3.connect(
            f"{path.as_uri()}?{query}", uri=True, **_HOW
        )
        try:
            made.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException as error:
            made.close()
            if not isinstance(error, sqlite3.OperationalError) or "imm" in query:
                raise
        else:
            return made
    raise AssertionError("one of the two was opened, or raised")


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would end a transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _fact(connection: sqlite3.Connection, key: str) -> Any:
    row = connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return None if row is None else json.loads(row[0])


def _check_lease(connection: sqlite3.Connection, directory: Path, lease: Lease) -> None:
    epoch, holder = connection.execute("SELECT epoch, holder FROM lease").fetchone()
    if epoch != lease.epoch or holder != lease.holder:
        by = f", by {readable(holder)}" if holder else ""
        raise LeaseLost(
            f"Serving directory '{directory}' has been controlled under epoch {epoch}"
            f"{by}, since epoch {lease.epoch} fell silent. Nothing was written; let "
            "the other one go on."
        )


def _sentence(path: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return (
            f"The ledger '{path}' cannot be written: {text}. Nothing was done that it "
            "does not say; free space on its disk, and repeat what you did."
        )
    if "locked" in text or "busy" in text:
        return (
            f"The ledger '{path}' has been locked by another process for "
            f"{_BUSY_SECONDS:g} seconds. End the process that holds it, and repeat "
            "what you did."
        )
    if "not a database" in text or "malformed" in text:
        return (
            f"The ledger '{path}' is damaged: {text}. Put a copy of it back, or move "
            "it away to begin a new one."
        )
    if "readonly" in text or "unable to open" in text:
        return (
            f"The ledger '{path}' is closed to user id {os.geteuid()}: {text}. Give "
            "this user the right to read and write it and its folder."
        )
    return f"The ledger '{path}' failed: {text}. Mend that, and repeat what you did."
