"""What was decided on retraining, and what came of it: one SQLite file.

Every step is written before it is taken: first the decision, with the id that its run
will have, then that it is being started, then the outcome. A decision to start is made
at most once for each occasion, whatever process asks. So a process that is killed at
any point leaves either no decision, and the next notice makes it, or one that the next
process carries on with.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from penstock.schemas.errors import PipelineError, UnknownName

DAY_SECONDS = 86_400.0

MEMORY_SECONDS = 2 * DAY_SECONDS
"""How long an alert that was not resolved counts as the same after it was last told. A
restart of Prometheus and Alertmanager gives it another beginning."""

_BUSY_SECONDS = 30.0
_FORMAT = 1

_SCHEMA = f"""
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    reasons TEXT NOT NULL,
    evidence TEXT NOT NULL,
    answer TEXT NOT NULL,
    because TEXT NOT NULL,
    decided REAL NOT NULL,
    notices INTEGER NOT NULL DEFAULT 1,
    noticed REAL NOT NULL,
    run_id TEXT UNIQUE,
    recipe TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    attempted REAL,
    started REAL,
    ended REAL,
    outcome TEXT,
    result TEXT
);
CREATE INDEX decisions_of_a_model ON decisions (model, answer, id);
CREATE INDEX decisions_left ON decisions (state);
CREATE TABLE occasions (
    model TEXT NOT NULL,
    occasion TEXT NOT NULL,
    answer TEXT NOT NULL,
    decision INTEGER NOT NULL REFERENCES decisions (id),
    PRIMARY KEY (model, occasion, answer)
);
CREATE TABLE firing (
    model TEXT NOT NULL,
    series TEXT NOT NULL,
    answer TEXT NOT NULL,
    decision INTEGER NOT NULL REFERENCES decisions (id),
    starts_at INTEGER NOT NULL,
    noticed REAL NOT NULL,
    PRIMARY KEY (model, series, answer)
);
CREATE TABLE schedules (
    model TEXT NOT NULL,
    schedule TEXT NOT NULL,
    due REAL NOT NULL,
    PRIMARY KEY (model, schedule)
);
PRAGMA user_version = {_FORMAT};
"""


class Source(enum.Enum):
    """Where the wish to train again came from."""

    ALERT = "alert"
    SCHEDULE = "schedule"
    PERSON = "person"


class Answer(enum.Enum):
    """What was decided."""

    START = "start"
    DRY_RUN = "dry run"
    """It would have been started."""
    RUNNING = "running"
    """A run of the model goes on."""
    COOL_DOWN = "cool-down"
    """Too soon after the last one."""
    LIMIT = "limit"
    """There were as many in a day as may be."""


class Stage(enum.Enum):
    """How far a decision got; only those to start get anywhere."""

    DECIDED = "decided"
    STARTED = "started"
    ENDED = "ended"


@dataclass(frozen=True)
class Limits:
    """How often a model may be trained again.

    Attributes:
        cool_down_seconds: How long none is started after one has ended.
        runs_per_day: How many are started in any 24 hours.
    """

    cool_down_seconds: float = 6 * 3_600.0
    runs_per_day: int = 2


@dataclass(frozen=True)
class Recipe:
    """What is run, as it was configured when it was decided.

    Attributes:
        target: The pipeline, as `MODULE:PIPELINE`.
        params: Arguments of the function that makes it, as text.
        root: Folder of artifacts, logs and the default store, absolute.
        store: URL of the lineage store; empty for the one in the root.
        runner: What orders components: beam or local.
        folder: The folder that the process is in, absolute: what `target` and `params`
            name by a relative path is looked for there.
    """

    target: str
    root: str
    folder: str
    params: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    runner: str = "beam"

    @property
    def store_url(self) -> str:
        """The lineage store that the run is recorded in."""
        return self.store or f"sqlite:///{self.root}/metadata.sqlite"


@dataclass(frozen=True)
class Wish:
    """A reason to train a model again.

    Attributes:
        model: Name of the model.
        source: Where it came from.
        reason: One word for it, of few that there are: an alert's name, or the source.
        reasons: Sentences.
        occasions: What it is about: each of these starts at most one run, ever.
        evidence: All else that was said, as JSON data.
        series: What fires, and since when, in nanoseconds since 1970: as long as it
            is not resolved it is one and the same, whenever it is said to begin.
    """

    model: str
    source: Source
    reason: str
    reasons: tuple[str, ...]
    occasions: tuple[str, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What was decided on a wish, and what came of it.

    Attributes:
        id: Its number.
        model: Name of the model.
        source: Where the wish came from.
        reason: One word for it.
        reasons: Why somebody or something wanted it, a sentence each.
        evidence: All else that was said.
        answer: What was decided.
        because: Why, in a sentence.
        decided: When, in seconds since 1970.
        notices: How often the same wish came, with the same answer.
        noticed: When it last came.
        run_id: The id of its run, given before the run began; empty if none is started.
        recipe: What is run.
        stage: How far it got.
        attempts: How many processes were started for it.
        attempted: When the last one was.
        started: When its run began.
        ended: When its outcome was known.
        outcome: A word for what came of it; empty until it is known.
        result: The same in a sentence.
        is_repeat: Whether the wish that was asked about had been answered before.
    """

    id: int
    model: str
    source: Source
    reason: str
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    answer: Answer
    because: str
    decided: float
    notices: int
    noticed: float
    run_id: str
    recipe: Recipe
    stage: Stage
    attempts: int
    attempted: float | None
    started: float | None
    ended: float | None
    outcome: str
    result: str
    is_repeat: bool = False


_COLUMNS = (
    "id, model, source, reason, reasons, evidence, answer, because, decided, notices, "
    "noticed, run_id, recipe, state, attempts, attempted, started, ended, outcome, "
    "result"
)


class Journal:
    """The decisions of one receiver, or of several on one machine.

    Any number of threads and processes may use it.

    Args:
        folder: Where it lies; made if it is not there.

    Raises:
        PipelineError: If it cannot be opened, or is of a newer penstock.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        self.path = self.folder / "decisions.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PipelineError(
                f"The folder of decisions '{self.folder}' cannot be made: "
                f"{error.strerror}. Name another with --state."
            ) from error
        with self._connected() as sql:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("BEGIN IMMEDIATE")
            found = int(sql.execute("PRAGMA user_version").fetchone()[0])
            if not found:
                for statement in _SCHEMA.split(";\n"):
                    sql.execute(statement)
            sql.execute("COMMIT")
        if found > _FORMAT:
            raise PipelineError(
                f"The decisions in '{self.path}' were written by a newer penstock "
                f"(format {found}, this one knows {_FORMAT}). Upgrade penstock, or "
                "name another folder with --state."
            )

    # --- deciding

    def decide(
        self,
        wish: Wish,
        recipe: Recipe,
        limits: Limits,
        *,
        now: float | None = None,
        dry_run: bool = False,
        anyway: bool = False,
    ) -> Decision:
        """Decide whether a model is trained again; what is returned is on the disk.

        Args:
            wish: Who wants it, and why.
            recipe: What would be run.
            limits: How often it may be.
            now: The present, in seconds since 1970; the clock's unless given.
            dry_run: Whether nothing is to be started, only decided.
            anyway: Whether cool-down and limit do not count.

        Returns:
            The decision; one that was made before if the wish is a repeat.

        Raises:
            PipelineError: If it cannot be written.
        """
        now = time.time() if now is None else now
        with self._writing() as sql:
            return _decided(sql, wish, recipe, limits, now, dry_run, anyway)

    def decide_if_due(
        self,
        wish: Wish,
        schedule: str,
        due: float,
        recipe: Recipe,
        limits: Limits,
        *,
        now: float | None = None,
        dry_run: bool = False,
    ) -> Decision | None:
        """Decide on a time of a schedule, unless that was done or it is the first.

        A schedule that is new starts nothing for times before it was known.

        Args:
            wish: The wish that the time is.
            schedule: The schedule, as it is written.
            due: The time, in seconds since 1970.
            recipe: What would be run.
            limits: How often it may be.
            now: The present; the clock's unless given.
            dry_run: Whether nothing is to be started.

        Returns:
            The decision, or None.
        """
        now = time.time() if now is None else now
        with self._writing() as sql:
            row = sql.execute(
                "SELECT due FROM schedules WHERE model = ? AND schedule = ?",
                (wish.model, schedule),
            ).fetchone()
            # One that lies ahead was written by a clock that was set back since.
            if row is not None and row[0] > now:
                row = None
            if row is not None and row[0] >= due:
                return None
            sql.execute(
                "INSERT INTO schedules VALUES (?, ?, ?) "
                "ON CONFLICT (model, schedule) DO UPDATE SET due = excluded.due",
                (wish.model, schedule, due),
            )
            if row is None:
                return None
            return _decided(sql, wish, recipe, limits, now, dry_run, False)

    def resolve(self, model: str, series: Mapping[str, int]) -> None:
        """Record that alerts fire no more: what fires from now on is another matter.

        Args:
            model: Name of the model.
            series: What was resolved, and since when it had fired. What fires since
                later goes on: a notification may come late.
        """
        with self._writing() as sql:
            sql.executemany(
                "DELETE FROM firing WHERE model = ? AND series = ? AND starts_at <= ?",
                [(model, each, since) for each, since in series.items()],
            )

    # --- carrying out

    def attempt(self, id: int, *, now: float | None = None) -> int:
        """Record that a process is about to be started for a decision.

        Returns:
            How many that makes.
        """
        now = time.time() if now is None else now
        with self._writing() as sql:
            sql.execute(
                "UPDATE decisions SET attempts = attempts + 1, attempted = ? "
                "WHERE id = ?",
                (now, id),
            )
            return int(
                sql.execute(
                    "SELECT attempts FROM decisions WHERE id = ?", (id,)
                ).fetchone()[0]
            )

    def begin(self, id: int, *, now: float | None = None) -> None:
        """Record that the run of a decision begins."""
        now = time.time() if now is None else now
        with self._writing() as sql:
            sql.execute(
                "UPDATE decisions SET state = ?, started = COALESCE(started, ?) "
                "WHERE id = ? AND state != ?",
                (Stage.STARTED.value, now, id, Stage.ENDED.value),
            )

    def end(
        self, id: int, outcome: str, result: str, *, now: float | None = None
    ) -> None:
        """Record what came of a decision, unless that is known already."""
        now = time.time() if now is None else now
        with self._writing() as sql:
            sql.execute(
                "UPDATE decisions SET state = ?, ended = ?, outcome = ?, result = ? "
                "WHERE id = ? AND state != ?",
                (Stage.ENDED.value, now, outcome, result, id, Stage.ENDED.value),
            )

    # --- reading

    def decision(self, id: int) -> Decision:
        """Return a decision by its number.

        Raises:
            UnknownName: If there is none.
        """
        found = self._decisions("WHERE id = ?", (id,))
        if not found:
            raise UnknownName(
                f"Decision {id} is not in '{self.path}'. 'penstock retrain decisions' "
                "lists what is."
            )
        return found[0]

    def decisions(
        self, model: str | None = None, *, last: int | None = None
    ) -> list[Decision]:
        """Return decisions in the order they were made.

        Args:
            model: Only those on this model.
            last: Only so many of the newest.
        """
        which, values = ("WHERE model = ?", (model,)) if model else ("", ())
        limit = -1 if last is None else last
        newest = self._decisions(f"{which} ORDER BY id DESC LIMIT ?", (*values, limit))
        return newest[::-1]

    def left(self) -> list[Decision]:
        """Return the decisions to start whose outcome is not known yet."""
        return self._decisions(
            "WHERE answer = ? AND state != ? ORDER BY id",
            (Answer.START.value, Stage.ENDED.value),
        )

    def counts(self) -> list[tuple[str, str, str, str, int, str]]:
        """Count the decisions.

        Returns:
            Model, answer, reason, outcome, how many there are of these, and the run id
            of the newest one.
        """
        with self._connected() as sql:
            return sql.execute(
                "SELECT model, answer, reason, COALESCE(outcome, ''), COUNT(*), "
                "COALESCE(MAX(run_id), '') FROM decisions "
                "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
            ).fetchall()

    def last_ended(self) -> dict[str, float]:
        """Return when the last run of each model ended, in seconds since 1970."""
        with self._connected() as sql:
            return dict(
                sql.execute(
                    "SELECT model, MAX(ended) FROM decisions "
                    "WHERE answer = ? AND ended IS NOT NULL GROUP BY model",
                    (Answer.START.value,),
                )
            )

    def _decisions(self, which: str, values: tuple[Any, ...]) -> list[Decision]:
        with self._connected() as sql:
            rows = sql.execute(
                f"SELECT {_COLUMNS} FROM decisions {which}", values
            ).fetchall()
        return [_decision(row) for row in rows]

    # --- SQLite

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: there are few, from threads that come and go.
        try:
            with contextlib.closing(
                sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            ) as sql:
                sql.execute("PRAGMA synchronous = FULL")
                yield sql
        except sqlite3.Error as error:
            raise PipelineError(
                f"The decisions in '{self.path}' cannot be read or written: {error}. "
                "Give yourself the right to, or name another folder with --state."
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as sql:
            sql.execute("BEGIN IMMEDIATE")
            try:
                yield sql
            except BaseException:
                sql.execute("ROLLBACK")
                raise
            sql.execute("COMMIT")


def _decided(
    sql: sqlite3.Connection,
    wish: Wish,
    recipe: Recipe,
    limits: Limits,
    now: float,
    dry_run: bool,
    anyway: bool,
) -> Decision:
    """Decide within a transaction."""
    counted = [Answer.START.value, *([Answer.DRY_RUN.value] if dry_run else [])]
    answered = _answered(sql, wish, counted)
    if answered is None:
        answered = _going_on(sql, wish, counted, now)
    if answered is not None:
        _fires(sql, wish, counted, now)
        return _noticed(sql, answered, now)
    answer, because = _answer(sql, wish, limits, now, counted, anyway)
    if answer is Answer.START and dry_run:
        answer = Answer.DRY_RUN
        because = "It would have been started; nothing is, in a dry run."
    if answer not in (Answer.START, Answer.DRY_RUN):
        # Said once, however often the same alert comes while nothing changes.
        before = _answered(sql, wish, [answer.value])
        if before is not None and before == _last(sql, wish.model):
            return _noticed(sql, before, now)
    is_start = answer is Answer.START
    run_id = _run_id(sql, now) if is_start else None
    cursor = sql.execute(
        "INSERT INTO decisions (model, source, reason, reasons, evidence, answer, "
        "because, decided, noticed, run_id, recipe, state, ended) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            wish.model,
            wish.source.value,
            wish.reason,
            json.dumps(wish.reasons),
            json.dumps(dict(wish.evidence), sort_keys=True),
            answer.value,
            because,
            now,
            now,
            run_id,
            json.dumps({**vars(recipe), "params": dict(recipe.params)}),
            (Stage.DECIDED if is_start else Stage.ENDED).value,
            None if is_start else now,
        ),
    )
    id = int(cursor.lastrowid or 0)
    for occasion in wish.occasions:
        # Of a refusal the last one counts; of a start there is but one.
        sql.execute(
            "INSERT INTO occasions VALUES (?, ?, ?, ?) "
            "ON CONFLICT (model, occasion, answer) DO "
            + (
                "NOTHING"
                if answer.value in counted
                else "UPDATE SET decision = excluded.decision"
            ),
            (wish.model, occasion, answer.value, id),
        )
    if answer.value in counted:
        sql.executemany(
            "INSERT OR REPLACE INTO firing VALUES (?, ?, ?, ?, ?, ?)",
            [
                (wish.model, each, answer.value, id, since, now)
                for each, since in wish.series.items()
            ],
        )
    return _by_id(sql, id)


def _answered(sql: sqlite3.Connection, wish: Wish, answers: list[str]) -> int | None:
    """Return the last decision on a wish, if all that it is about was answered so."""
    rows = sql.execute(
        "SELECT occasion, MAX(decision) FROM occasions WHERE model = ? "
        f"AND answer IN ({', '.join('?' * len(answers))}) "
        f"AND occasion IN ({', '.join('?' * len(wish.occasions))}) GROUP BY occasion",
        (wish.model, *answers, *wish.occasions),
    ).fetchall()
    if len(rows) < len(set(wish.occasions)):
        return None
    return max(int(row[1]) for row in rows)


def _going_on(
    sql: sqlite3.Connection, wish: Wish, answers: list[str], now: float
) -> int | None:
    """Return the last decision on what fires, if all of it was answered so before."""
    found = [
        row
        for row in sql.execute(
            "SELECT series, MAX(decision) FROM firing WHERE model = ? AND noticed > ? "
            f"AND answer IN ({', '.join('?' * len(answers))}) GROUP BY series",
            (wish.model, now - MEMORY_SECONDS, *answers),
        )
        if row[0] in wish.series
    ]
    if not found or len(found) < len(wish.series):
        return None
    return max(int(decision) for _, decision in found)


def _fires(sql: sqlite3.Connection, wish: Wish, answers: list[str], now: float) -> None:
    """Remember that what was answered fires still, and since when it is said to."""
    sql.executemany(
        "UPDATE firing SET noticed = ?, starts_at = MAX(starts_at, ?) "
        "WHERE model = ? AND series = ? AND "
        f"answer IN ({', '.join('?' * len(answers))})",
        [
            (now, since, wish.model, each, *answers)
            for each, since in wish.series.items()
        ],
    )


def _answer(
    sql: sqlite3.Connection,
    wish: Wish,
    limits: Limits,
    now: float,
    counted: list[str],
    anyway: bool,
) -> tuple[Answer, str]:
    marks = ", ".join("?" * len(counted))
    going_on = sql.execute(
        "SELECT run_id FROM decisions WHERE model = ? AND answer = ? AND state != ?",
        (wish.model, Answer.START.value, Stage.ENDED.value),
    ).fetchone()
    if going_on is not None:
        return Answer.RUNNING, (
            f"Run '{going_on[0]}' of '{wish.model}' goes on, and one at a time is run."
        )
    if anyway:
        return Answer.START, "Neither cool-down nor limit was asked."
    (last,) = sql.execute(
        f"SELECT MAX(ended) FROM decisions WHERE model = ? AND answer IN ({marks})",
        (wish.model, *counted),
    ).fetchone()
    # Where the clock was set back since, by a little: a lot is no reason to wait.
    if last is not None and abs(now - last) < limits.cool_down_seconds:
        return Answer.COOL_DOWN, (
            f"The last one ended {_length(now - last)} ago; until "
            f"{_moment(last + limits.cool_down_seconds)} '{wish.model}' cools down."
        )
    (count, first) = sql.execute(
        "SELECT COUNT(*), MIN(decided) FROM decisions WHERE model = ? "
        f"AND answer IN ({marks}) AND ABS(decided - ?) < ?",
        (wish.model, *counted, now, DAY_SECONDS),
    ).fetchone()
    if count >= limits.runs_per_day:
        until = now if first is None else first + DAY_SECONDS
        return Answer.LIMIT, (
            f"'{wish.model}' was trained again {count} times within 24 hours, and "
            f"{limits.runs_per_day} is the limit; until {_moment(until)} none starts."
        )
    return Answer.START, (
        f"No run of '{wish.model}' goes on; cool-down and limit allow one."
    )


def _run_id(sql: sqlite3.Connection, now: float) -> str:
    """Return an id for a run that no decision has, in the form that all runs have."""
    moment = datetime.fromtimestamp(now, timezone.utc)
    while True:
        run_id = moment.strftime("%Y%m%d-%H%M%S.%f")
        taken = sql.execute("SELECT 1 FROM decisions WHERE run_id = ?", (run_id,))
        if taken.fetchone() is None:
            return run_id
        moment += timedelta(microseconds=1)


def _last(sql: sqlite3.Connection, model: str) -> int | None:
    (found,) = sql.execute(
        "SELECT MAX(id) FROM decisions WHERE model = ?", (model,)
    ).fetchone()
    return None if found is None else int(found)


def _noticed(sql: sqlite3.Connection, id: int, now: float) -> Decision:
    sql.execute(
        "UPDATE decisions SET notices = notices + 1, noticed = ? WHERE id = ?",
        (now, id),
    )
    return _by_id(sql, id, is_repeat=True)


def _by_id(sql: sqlite3.Connection, id: int, *, is_repeat: bool = False) -> Decision:
    row = sql.execute(f"SELECT {_COLUMNS} FROM decisions WHERE id = ?", (id,))
    return _decision(row.fetchone(), is_repeat=is_repeat)


def _decision(row: tuple[Any, ...], *, is_repeat: bool = False) -> Decision:
    (id, model, source, reason, reasons, evidence, answer, because, decided) = row[:9]
    (notices, noticed, run_id, recipe, state, attempts, attempted) = row[9:16]
    (started, ended, outcome, result) = row[16:]
    return Decision(
        id=id,
        model=model,
        source=Source(source),
        reason=reason,
        reasons=tuple(json.loads(reasons)),
        evidence=json.loads(evidence),
        answer=Answer(answer),
        because=because,
        decided=decided,
        notices=notices,
        noticed=noticed,
        run_id=run_id or "",
        recipe=Recipe(**json.loads(recipe)),
        stage=Stage(state),
        attempts=attempts,
        attempted=attempted,
        started=started,
        ended=ended,
        outcome=outcome or "",
        result=result or "",
        is_repeat=is_repeat,
    )


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _length(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{max(seconds, 0.0):.3g} s"
