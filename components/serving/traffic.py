"""What routers saw of a rollout: units, failures, slowness, values, by step and arm.

One SQLite file, `.penstock/traffic.sqlite`, apart from the ledger: it is large, it may
be lost without harm (a rollout then holds for want of evidence), and writing to it
never delays an act. Units are counted once each in a whole rollout, by the step and the
arm that they were first seen in, whichever router saw them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from typing_extensions import Self

from penstock.components.serving.holders import boot_id
from penstock.schemas.errors import ServingError

Arm = Literal["stable", "candidate"]
Mark = Literal["seen", "failing", "slow"]

BREAKER = "breaker: "
"""What the alarm of a router begins with that saw the candidate fail throughout."""

MISSING = "missing: "
"""And one whose model server has no such version: that tells nothing of the version."""

MAX_UNITS = 50_000
"""How many units are kept of a step; those that come later count for no guard."""

_FORMAT = 1
_BUSY_SECONDS = 5.0

_SCHEMA = (
    """CREATE TABLE units (
        rollout TEXT NOT NULL, mark TEXT NOT NULL, unit INTEGER NOT NULL,
        step INTEGER NOT NULL, arm TEXT NOT NULL,
        PRIMARY KEY (rollout, mark, unit)
    ) WITHOUT ROWID""",
    """CREATE TABLE counts (
        rollout TEXT NOT NULL, mark TEXT NOT NULL, step INTEGER NOT NULL,
        arm TEXT NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (rollout, mark, step, arm)
    ) WITHOUT ROWID""",
    """CREATE TABLE unit_values (
        rollout TEXT NOT NULL, metric TEXT NOT NULL, unit INTEGER NOT NULL,
        total REAL NOT NULL,
        PRIMARY KEY (rollout, metric, unit)
    ) WITHOUT ROWID""",
    """CREATE TABLE tallies (
        rollout TEXT NOT NULL, router TEXT NOT NULL, step INTEGER NOT NULL,
        arm TEXT NOT NULL, requests INTEGER NOT NULL, failures INTEGER NOT NULL,
        client_errors INTEGER NOT NULL, fallbacks INTEGER NOT NULL,
        units INTEGER NOT NULL, sketch TEXT NOT NULL,
        PRIMARY KEY (rollout, router, step, arm)
    ) WITHOUT ROWID""",
    """CREATE TABLE routers (
        router TEXT PRIMARY KEY, boot TEXT NOT NULL, heard REAL NOT NULL,
        acknowledged INTEGER NOT NULL, alarm TEXT NOT NULL
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True)
class Seen:
    """A unit that a router saw do something for the first time, as far as it knows.

    Attributes:
        mark: What: `seen` at all, `failing` or `slow`.
        unit: 64 bits of a hash of the unit's id, as a signed number.
        step: The step of the rollout.
        arm: The arm that the unit is in.
    """

    mark: Mark
    unit: int
    step: int
    arm: Arm


@dataclass
class Tally:
    """What one router saw of one arm in one step, in all.

    Attributes:
        requests: Requests of the arm that ended, well or not.
        failures: Those that failed through no fault of the caller.
        client_errors: Those that the caller is to blame for.
        fallbacks: Those that stable answered in the end.
        units: Distinct units that the arm answered in the step. Of several routers
            the greatest number counts: they may have seen the same ones.
        sketch: Counts of latencies of good answers, by bucket of the latency sketch.
    """

    requests: int = 0
    failures: int = 0
    client_errors: int = 0
    fallbacks: int = 0
    units: int = 0
    sketch: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a router tells since its last report.

    Attributes:
        router: Its name, which no other has.
        acknowledged: Number of the event whose routing it obeys.
        rollout: The rollout that all else is about; None without one.
        seen: Units that did something for the first time.
        values: Values of a business metric that came in: metric, unit, value.
        tallies: What it saw in all, since it began, by step and arm.
        alarm: Why it sends nobody to the candidate whatever the routing says; empty
            if it obeys.
    """

    router: str
    acknowledged: int
    rollout: str | None = None
    seen: Sequence[Seen] = ()
    values: Sequence[tuple[str, int, float]] = ()
    tallies: Mapping[tuple[int, Arm], Tally] = field(default_factory=dict)
    alarm: str = ""


@dataclass(frozen=True)
class Heard:
    """What was last heard of a router.

    Attributes:
        router: Its name.
        seconds_ago: When it last reported.
        acknowledged: Number of the event whose routing it obeyed then.
        alarm: Why it sends nobody to the candidate; empty if it obeys.
    """

    router: str
    seconds_ago: float
    acknowledged: int
    alarm: str


@dataclass(frozen=True)
class ArmValues:
    """Sums of a business metric over the units of one arm that were seen in one step.

    Attributes:
        events: Units with a value other than 0.
        total: Sum over units.
        squares: Sum of squares over units.
    """

    events: int = 0
    total: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True)
class StepTraffic:
    """What all routers saw in one step.

    Attributes:
        counts: Distinct units, by mark and arm.
        values: By metric and arm.
        tallies: Of all routers together, by arm.
    """

    counts: Mapping[tuple[Mark, Arm], int]
    values: Mapping[tuple[str, Arm], ArmValues]
    tallies: Mapping[Arm, Tally]


class Traffic:
    """The reports of all routers of one serving directory.

    It may be used by any number of threads and processes of one machine.

    Args:
        serving_dir: The serving directory, which has a ledger.

    Raises:
        ServingError: If it cannot be opened.
    """

    def __init__(self, serving_dir: Path | str) -> None:
        self._path = Path(serving_dir) / ".penstock" / "traffic.sqlite"
        self._lock = threading.Lock()
        with self._explained():
            self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def report(self, report: Report) -> frozenset[tuple[int, Mark]]:
        """Add what a router saw.

        Units that another router told of before count once, where they were first
        seen.

        Returns:
            The steps and marks of which no more units are kept.

        Raises:
            ServingError: If it cannot be written; nothing of it was.
        """
        with self._explained(), self._lock, self._transaction() as sql:
            sql.execute(
                "INSERT INTO routers VALUES (?, ?, ?, ?, ?) ON CONFLICT (router) DO "
                "UPDATE SET boot = excluded.boot, heard = excluded.heard, "
                "acknowledged = excluded.acknowledged, alarm = excluded.alarm",
                (
                    report.router,
                    boot_id(),
                    time.monotonic(),
                    report.acknowledged,
                    report.alarm,
                ),
            )
            if report.rollout is None:
                return frozenset()
            for (step, arm), tally in report.tallies.items():
                sql.execute(
                    "INSERT OR REPLACE INTO tallies "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        report.rollout,
                        report.router,
                        step,
                        arm,
                        tally.requests,
                        tally.failures,
                        tally.client_errors,
                        tally.fallbacks,
                        tally.units,
                        json.dumps(sorted(tally.sketch.items())),
                    ),
                )
            for metric, unit, value in report.values:
                sql.execute(
                    "INSERT INTO unit_values VALUES (?, ?, ?, ?) ON CONFLICT "
                    "(rollout, metric, unit) DO UPDATE SET total = total + ?",
                    (report.rollout, metric, unit, value, value),
                )
            return self._mark(sql, report.rollout, report.seen)

    def _mark(
        self, sql: sqlite3.Connection, rollout: str, seen: Sequence[Seen]
    ) -> frozenset[tuple[int, Mark]]:
        groups: dict[tuple[int, Mark], list[Seen]] = {}
        for each in seen:
            groups.setdefault((each.step, each.mark), []).append(each)
        full = set()
        for (step, mark), units in groups.items():
            (had,) = sql.execute(
                "SELECT COALESCE(SUM(n), 0) FROM counts "
                "WHERE rollout = ? AND mark = ? AND step = ?",
                (rollout, mark, step),
            ).fetchone()
            room = MAX_UNITS - had
            added: dict[Arm, int] = {}
            for each in units:
                if room <= 0:
                    full.add((step, mark))
                    break
                cursor = sql.execute(
                    "INSERT OR IGNORE INTO units VALUES (?, ?, ?, ?, ?)",
                    (rollout, mark, each.unit, step, each.arm),
                )
                if cursor.rowcount == 1:
                    added[each.arm] = added.get(each.arm, 0) + 1
                    room -= 1
            for arm, n in added.items():
                sql.execute(
                    "INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT "
                    "(rollout, mark, step, arm) DO UPDATE SET n = n + excluded.n",
                    (rollout, mark, step, arm, n),
                )
        return frozenset(full)

    def steps(self, rollout: str) -> Mapping[int, StepTraffic]:
        """Return what was seen in a rollout, by step.

        Raises:
            ServingError: If it cannot be read.
        """
        with self._explained(), self._lock:
            self._find()
            sql = self._connection
            counts: dict[int, dict[tuple[Mark, Arm], int]] = {}
            for mark, step, arm, n in sql.execute(
                "SELECT mark, step, arm, n FROM counts WHERE rollout = ?", (rollout,)
            ):
                counts.setdefault(step, {})[(mark, arm)] = n
            values: dict[int, dict[tuple[str, Arm], ArmValues]] = {}
            for metric, step, arm, *sums in sql.execute(
                "SELECT metric, step, arm, SUM(total <> 0), SUM(total), "
                "SUM(total * total) FROM unit_values JOIN units "
                "USING (rollout, unit) WHERE rollout = ? AND mark = 'seen' "
                "GROUP BY metric, step, arm",
                (rollout,),
            ):
                values.setdefault(step, {})[(metric, arm)] = ArmValues(*sums)
            tallies: dict[int, dict[Arm, Tally]] = {}
            for step, arm, *numbers, sketch in sql.execute(
                "SELECT step, arm, requests, failures, client_errors, fallbacks, "
                "units, sketch FROM tallies WHERE rollout = ?",
                (rollout,),
            ):
                tally = tallies.setdefault(step, {}).setdefault(arm, Tally())
                tally.requests += numbers[0]
                tally.failures += numbers[1]
                tally.client_errors += numbers[2]
                tally.fallbacks += numbers[3]
                tally.units = max(tally.units, numbers[4])
                for bucket, n in json.loads(sketch):
                    tally.sketch[bucket] = tally.sketch.get(bucket, 0) + n
        return {
            step: StepTraffic(
                counts.get(step, {}), values.get(step, {}), tallies.get(step, {})
            )
            for step in sorted({*counts, *values, *tallies})
        }

    def routers(self) -> tuple[Heard, ...]:
        """Return what was last heard of every router since this machine started.

        Raises:
            ServingError: If it cannot be read.
        """
        with self._explained(), self._lock:
            self._find()
            rows = self._connection.execute(
                "SELECT router, heard, acknowledged, alarm FROM routers "
                "WHERE boot = ? ORDER BY router",
                (boot_id(),),
            ).fetchall()
        now = time.monotonic()
        return tuple(
            Heard(router, max(0.0, now - heard), acknowledged, alarm)
            for router, heard, acknowledged, alarm in rows
        )

    def leave(self, router: str) -> None:
        """Say that a router ends, so that nobody waits for it.

        Raises:
            ServingError: If it cannot be written.
        """
        with self._explained(), self._lock, self._transaction() as sql:
            sql.execute("DELETE FROM routers WHERE router = ?", (router,))

    def forget(self, keep: Sequence[str]) -> None:
        """Remove what was seen in rollouts other than these.

        Raises:
            ServingError: If it cannot be written.
        """
        wanted = ", ".join("?" * len(keep))
        with self._explained(), self._lock, self._transaction() as sql:
            for table in ("units", "counts", "unit_values", "tallies"):
                sql.execute(
                    f"DELETE FROM {table} WHERE rollout NOT IN ({wanted})", tuple(keep)
                )

    # --- the file

    def _open(self) -> None:
        self._connection = sqlite3.connect(
            self._path,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What a power cut takes with it is counted anew.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._file = self._identity()  # made by now
        self._prepare()

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _find(self) -> None:
        """Open the file anew if it was removed or replaced: others find only that."""
        if self._identity() != self._file:
            self._connection.close()
            self._open()

    def _prepare(self) -> None:
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            with self._transaction() as sql:
                (found,) = sql.execute("PRAGMA user_version").fetchone()
                if found == 0:
                    for statement in _SCHEMA:
                        sql.execute(statement)
                    sql.execute(f"PRAGMA user_version = {_FORMAT}")
        elif found > _FORMAT:
            raise ServingError(
                f"'{self._path}' has format {found} where this penstock knows "
                f"{_FORMAT}. Install the penstock that wrote it, or remove the file "
                "while no router runs."
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._find()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ServingError(
                f"What routers saw cannot be kept in '{self._path}': {error}. Rollouts "
                "hold meanwhile. Free space, give user id "
                f"{os.geteuid()} the right to write there, or remove the file if it is "
                "damaged: what was seen is then counted anew."
            ) from error
