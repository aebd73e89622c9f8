"""Labels that arrive late, joined to predictions by id, in a file that survives.

A `LabelJoin` remembers which ids wait for a label, and which labels came. What is added
twice counts once; what a killed process was adding is there as a whole or not at all.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sqlite3
import time as clock
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import Self

from penstock.components.monitoring.label_accounts import (
    Labeled,
    Predicted,
    WindowLabels,
    completeness,
)
from penstock.components.monitoring.label_delays import (
    LEAST_LABELS,
    DelayCurve,
    LabelBias,
    delay_curve,
    label_bias,
)
from penstock.components.monitoring.label_values import (
    id_texts,
    label_array,
    label_values,
)
from penstock.components.monitoring.logs import LogTable
from penstock.components.monitoring.sampling import hashes
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"

FILE = "labels.sqlite"
"""Name of the file in the folder of a `LabelJoin`."""

ENOUGH = 0.95
"""Share of the labels that ever come with which a window is complete by default."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE predictions(
    id TEXT NOT NULL PRIMARY KEY, time REAL NOT NULL, place INTEGER NOT NULL,
    label, label_time REAL, late INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX by_time ON predictions(time);
CREATE INDEX by_place ON predictions(place, time);
CREATE TABLE strays(
    id TEXT NOT NULL PRIMARY KEY, label NOT NULL, label_time REAL NOT NULL)
    WITHOUT ROWID;
CREATE TABLE conflicts(
    id TEXT NOT NULL, label NOT NULL, PRIMARY KEY(id, label)) WITHOUT ROWID;
CREATE TABLE evaluated(
    start REAL NOT NULL, end REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY(start, end));
"""
_PLACES = 1 << 16
_CACHE_KIB = 1 << 17  # with SQLite's own 2 MiB, a million rows take a minute
_MOST_WATCHED = 200_000  # rows that say how late labels are; of more, a sample by place
_BEHIND = 0.9  # of the labels expected by now; fewer than that did not come by chance


class LabelJoin:
    """Joins labels to predictions by id, however late they come.

    Args:
        folder: Where what is known is kept; made if it is not there.
        on_conflict: What to do with a label that contradicts one that is there:
            'refuse' it, keep the 'first', or take the 'last'. Contradictions are
            counted, whatever is done.

    Raises:
        DataError: The folder cannot be used, or its file is something else.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        on_conflict: Literal["refuse", "first", "last"] = "refuse",
    ) -> None:
        self._path = Path(folder) / FILE
        self._on_conflict = on_conflict
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self._path, timeout=60.0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"Labels cannot be kept in '{folder}': {error}. Pass a folder that "
                "this user may write to."
            ) from error
        try:
            self._prepare()
        except BaseException:
            self._base.close()
            raise

    def _prepare(self) -> None:
        try:
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            self._base.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            with self._change():
                (version,) = self._one("PRAGMA user_version")
                (tables,) = self._one("SELECT count(*) FROM sqlite_master")
                if not version and not tables:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        self._base.execute(statement)
                    self._base.execute(f"PRAGMA user_version={_VERSION}")
                    version = _VERSION
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"'{self._path}' does not hold labels: {error}. Pass another folder, "
                "or put its backup back."
            ) from error
        if version != _VERSION:
            raise DataError(
                f"'{self._path}' holds labels in version {version} of their form, and "
                f"this penstock writes version {_VERSION}. Read it with the penstock "
                "that wrote it, or pass another folder."
            )
        self._base.execute(
            "CREATE TEMP TABLE incoming(id TEXT NOT NULL, label, time REAL NOT NULL, "
            "place INTEGER)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    # --- what comes in

    def add_predictions(self, log: LogTable) -> Predicted:
        """Take in rows that wait for labels; those that are known count once.

        Raises:
            DataError: The log has no ids.
        """
        log.need_ids("labels are joined by id")
        places = (hashes(log.ids, seed=0x1A) % np.uint64(_PLACES)).tolist()
        nothing = itertools.repeat(None, log.rows)
        rows = zip(
            log.ids.to_pylist(), nothing, log.times.tolist(), places, strict=True
        )
        with self._change():
            self._take_in(rows)
            known, moved = self._one(
                "SELECT ifnull(sum(p.time = i.time), 0), ifnull(sum(p.time <> i.time),"
                " 0) FROM incoming i JOIN predictions p USING (id)"
            )
            before = self._count("predictions")
            self._base.execute(
                "INSERT OR IGNORE INTO predictions(id, time, place) SELECT id, time, "
                "place FROM incoming ORDER BY id"
            )
            new = self._count("predictions") - before
            joined = self._join(
                "SELECT s.id, s.label, s.label_time FROM incoming i JOIN strays s "
                "USING (id)"
            )[0]
            self._base.execute(
                "DELETE FROM strays WHERE id IN (SELECT id FROM incoming)"
            )
        sentences = []
        if moved:
            sentences.append(
                f"{moved:,} rows of {log.subject[:1].lower()}{log.subject[1:]} have "
                "ids that are known with another time; the first stays. Give every "
                "request an id of its own."
            )
        return Predicted(new, known, moved, joined, tuple(sentences))

    def add_labels(
        self,
        ids: pa.Array | pa.ChunkedArray | Sequence[str],
        labels: pa.Array | pa.ChunkedArray | Sequence[Any],
        times: Array | Sequence[float] | None = None,
    ) -> Labeled:
        """Take in labels; those that are known count once.

        Args:
            ids: Of the rows that they are of, as text or whole numbers.
            labels: Numbers, texts or booleans.
            times: When each became known, in seconds since 1970; now if None. Delays
                are counted up to these times.

        Raises:
            DataError: A label or an id is missing, or contradicts another one that is
                to be refused. Nothing was added.
        """
        names, values = id_texts(ids), label_values(labels)
        if times is None:
            times = [clock.time()] * len(names)
        if not len(names) == len(values) == len(times):
            raise DataError(
                f"There are {len(names):,} ids, {len(values):,} labels and "
                f"{len(times):,} times. Pass one of each for every label."
            )
        missing = sum(value is None for value in values)
        if missing:
            raise DataError(
                f"{missing:,} of {len(values):,} labels are missing, the first of them "
                f"that of id '{names[values.index(None)]}'. Add labels when they have "
                "come."
            )
        seconds = [math.nan if time is None else float(time) for time in times]
        unknown = sum(not math.isfinite(time) for time in seconds)
        if unknown:
            raise DataError(
                f"{unknown:,} of {len(seconds):,} labels have no time, so that nobody "
                "knows how long they took. Pass the time at which each became known, "
                "or none at all, for now."
            )
        with self._change():
            self._take_in(
                (*row, None) for row in zip(names, values, seconds, strict=True)
            )
            within = self._within_batch()
            (known,) = self._one(
                "SELECT (SELECT count(*) FROM incoming i JOIN predictions p USING (id) "
                "WHERE p.label IS i.label) + (SELECT count(*) FROM incoming i JOIN "
                "strays s USING (id) WHERE s.label IS i.label)"
            )
            against = self._against()
            if self._on_conflict == "last" and against:
                self._replace(against)
            self._remember([*within, *((id, label) for id, _, label, _ in against)])
            joined, late, early = self._join(
                "SELECT i.id, i.label, i.time FROM incoming i JOIN predictions p "
                "USING (id) WHERE p.label_time IS NULL"
            )
            strange = self._keep_strays()
        conflicting = len(within) + len(against)
        sentences = list(self._oddities(within, against))
        if strange:
            sentences.append(
                f"{strange:,} labels are of ids that no prediction has. They are kept "
                "and joined when it comes; if none does, check that both sides log the "
                "same id."
            )
        if early:
            sentences.append(
                f"{early:,} labels are dated before their prediction; their delay "
                "counts as 0. Check the clocks of both."
            )
        if late:
            sentences.append(
                f"{late:,} labels are of windows that were evaluated before. Evaluate "
                "these again if they are many."
            )
        return Labeled(joined, late, known, strange, conflicting, tuple(sentences))

    def _take_in(self, rows: Iterable[tuple[str, Any, float, int | None]]) -> None:
        self._base.execute("DELETE FROM incoming")
        self._base.executemany("INSERT INTO incoming VALUES (?, ?, ?, ?)", rows)

    def _within_batch(self) -> list[tuple[str, Any]]:
        """Leave one label of each id among those that come in; return the others."""
        order = "DESC" if self._on_conflict == "last" else "ASC"
        self._base.execute("DROP TABLE IF EXISTS temp.single")
        self._base.execute(
            "CREATE TEMP TABLE single AS SELECT id, label, time, place FROM (SELECT *, "
            f"row_number() OVER (PARTITION BY id ORDER BY time {order}, rowid {order}) "
            "AS rank FROM incoming) WHERE rank = 1"
        )
        others = self._base.execute(
            "SELECT DISTINCT i.id, i.label, s.label FROM incoming i JOIN single s "
            "USING (id) WHERE i.label IS NOT s.label ORDER BY i.id"
        ).fetchall()
        if others and self._on_conflict == "refuse":
            id, one, other = others[0]
            raise self._contradiction(id, other, one, len(others))
        self._base.execute("DELETE FROM incoming")
        self._base.execute("INSERT INTO incoming SELECT * FROM single")
        self._base.execute("DROP TABLE single")
        return [(id, label) for id, label, _ in others]

    def _against(self) -> list[tuple[str, Any, Any, float]]:
        """Return ids with the label that is there, and another that comes in."""
        found = self._base.execute(
            "SELECT i.id, k.label, i.label, i.time FROM incoming i JOIN (SELECT id, "
            "label FROM predictions WHERE label_time IS NOT NULL UNION ALL SELECT id, "
            "label FROM strays) k USING (id) WHERE k.label IS NOT i.label ORDER BY i.id"
        ).fetchall()
        if found and self._on_conflict == "refuse":
            id, there, new, _ = found[0]
            raise self._contradiction(id, there, new, len(found))
        return found

    def _contradiction(self, id: str, one: Any, other: Any, count: int) -> DataError:
        return DataError(
            f"Id '{id}' has the label '{one}' and the label '{other}', and "
            f"{count:,} labels in all contradict others. Correct the source of labels, "
            "or open the LabelJoin with on_conflict='first' or 'last'. Nothing was "
            "added."
        )

    def _oddities(
        self, within: Sequence[tuple[str, Any]], against: Sequence[tuple[Any, ...]]
    ) -> Iterator[str]:
        count = len(within) + len(against)
        if count:
            id = against[0][0] if against else within[0][0]
            yield (
                f"{count:,} labels contradict others of the same id, the first of them "
                f"of '{id}'; the {self._on_conflict} was taken. Correct the source of "
                "labels."
            )

    def _replace(self, against: Sequence[tuple[str, Any, Any, float]]) -> None:
        changes = [(label, time, id) for id, _, label, time in against]
        for table in ("predictions", "strays"):
            self._base.executemany(
                f"UPDATE {table} SET label = ?, label_time = ? WHERE id = ?", changes
            )

    def _remember(self, conflicts: Iterable[tuple[str, Any]]) -> None:
        self._base.executemany(
            "INSERT OR IGNORE INTO conflicts VALUES (?, ?)", conflicts
        )

    def _join(self, select: str) -> tuple[int, int, int]:
        """Give rows their labels; return how many, how many late, how many early.

        Args:
            select: Gives id, label and time of each.
        """
        self._base.execute("DROP TABLE IF EXISTS temp.matched")
        self._base.execute("CREATE TEMP TABLE matched(id TEXT, label, time REAL)")
        self._base.execute(f"INSERT INTO matched {select}")
        self._base.execute(
            "UPDATE predictions SET label = m.label, label_time = "
            "max(m.time, predictions.time), late = EXISTS(SELECT 1 FROM evaluated e "
            "WHERE e.start <= predictions.time AND predictions.time < e.end) FROM "
            "matched m WHERE predictions.id = m.id"
        )
        joined, late, early = self._one(
            "SELECT count(*), ifnull(sum(p.late), 0), ifnull(sum(m.time < p.time), 0) "
            "FROM matched m JOIN predictions p USING (id)"
        )
        self._base.execute("DROP TABLE matched")
        return joined, late, early

    def _keep_strays(self) -> int:
        """Keep labels of unknown ids; return how many are new."""
        before = self._count("strays")
        self._base.execute(
            "INSERT OR IGNORE INTO strays SELECT id, label, time FROM incoming WHERE "
            "id NOT IN (SELECT id FROM predictions)"
        )
        return self._count("strays") - before

    # --- what is known

    def window(
        self, window: Window, *, now: float | None = None, enough: float = ENOUGH
    ) -> WindowLabels:
        """Return how complete the labels of a window are.

        Args:
            window: Which.
            now: The time, in seconds since 1970.
            enough: Share of the labels that ever come with which it is complete.
        """
        now = clock.time() if now is None else now
        rows, joined, late = self._one(
            "SELECT count(*), count(label_time), ifnull(sum(late), 0) FROM predictions "
            "WHERE time >= ? AND time < ?",
            (window.start, window.end),
        )
        curve = self.delays(now=now)
        expected: float | None = None
        behind = False
        if rows and curve.is_known:
            ages = now - self._column(
                "SELECT time FROM predictions WHERE time >= ? AND time < ?",
                (window.start, window.end),
            )
            came = curve.came_by(ages)
            expected = min(1.0, float(came.mean()) / curve.ever)
            due = float(came.sum())
            spread = math.sqrt(float(np.sum(came * (1 - came))))
            behind = joined < _BEHIND * due and joined < due - 4 * spread
        complete = expected is not None and expected >= enough and not behind
        found = WindowLabels(
            window, rows, joined, rows - joined, late, expected, complete, ""
        )
        return dataclasses.replace(
            found, sentence=completeness(found, curve, enough, behind)
        )

    def delays(
        self, *, now: float | None = None, history_days: float = 90.0
    ) -> DelayCurve:
        """Return how labels came to the rows of the last days."""
        now = clock.time() if now is None else now
        since = now - history_days * DAY
        rows, first, places = self._watched(since, now)
        pairs = self._base.execute(
            "SELECT ifnull(label_time, ?) - time, label_time IS NOT NULL FROM "
            "predictions INDEXED BY by_place WHERE place < ? AND time >= ? AND "
            "time <= ?",
            (now, places, since, now),
        ).fetchall()
        found = np.array(pairs, np.float64).reshape(-1, 2)
        watched = now - first if rows else None
        return delay_curve(found[:, 0], found[:, 1] > 0, watched=watched)

    def _watched(self, since: float, until: float) -> tuple[int, float, int]:
        """Return how many rows there are, the first time, and places that do."""
        rows, first = self._one(
            "SELECT count(*), min(time) FROM predictions WHERE time >= ? AND time <= ?",
            (since, until),
        )
        share = min(1.0, _MOST_WATCHED / max(rows, 1))
        return rows, first or 0.0, math.ceil(share * _PLACES)

    def bias(
        self, *, now: float | None = None, history_days: float = 90.0
    ) -> LabelBias | None:
        """Return whether labels that come early differ from those that come late.

        Only rows are looked at that are old enough for late labels to have come.
        """
        now = clock.time() if now is None else now
        curve = self.delays(now=now, history_days=history_days)
        if curve.labels < LEAST_LABELS:
            return None
        since, oldest = now - history_days * DAY, now - curve.quantile(0.99)
        pairs = self._base.execute(
            "SELECT label_time - time, label FROM predictions INDEXED BY by_place "
            "WHERE place < ? AND time >= ? AND time <= ? AND label_time IS NOT NULL",
            (self._watched(since, oldest)[2], since, oldest),
        ).fetchall()
        delays = np.array([delay for delay, _ in pairs], np.float64)
        return label_bias(delays, [label for _, label in pairs])

    def mark_evaluated(self, window: Window, *, now: float | None = None) -> None:
        """Say that a window was evaluated; labels that come from now on are late."""
        at = clock.time() if now is None else now
        with self._change():
            self._base.execute(
                "INSERT OR IGNORE INTO evaluated VALUES (?, ?, ?)",
                (window.start, window.end, at),
            )

    def labeled(self, log: LogTable, name: str = "label") -> LogTable:
        """Return a log with the labels that have come; missing where none has.

        Args:
            log: Rows with ids.
            name: The name of the column of labels.

        Raises:
            DataError: The log has no ids, or a column of that name.
        """
        log.need_ids("labels are joined by id")
        if name in log.table.column_names:
            raise DataError(
                f"{log.subject} has a column '{name}' already, so that labels need "
                "another name. Pass name=..."
            )
        times = log.times
        if not log.rows:
            return dataclasses.replace(
                log,
                table=log.table.append_column(name, label_array([], self._kinds())),
                label=name,
            )
        pairs = self._base.execute(
            "SELECT id, label FROM predictions WHERE time >= ? AND time <= ? AND "
            "label_time IS NOT NULL",
            (float(times.min()), float(times.max())),
        ).fetchall()
        ids = pa.array([id for id, _ in pairs], pa.string())
        place = pc.index_in(log.ids, value_set=ids)
        column = label_array([label for _, label in pairs], self._kinds()).take(place)
        return dataclasses.replace(
            log, table=log.table.append_column(name, column), label=name
        )

    def state(self, first: float, last: float) -> str:
        """Return a text that changes with the labels of rows.

        Args:
            first: The time of the first row, in seconds since 1970.
            last: The time of the last row.
        """
        count, times = self._one(
            "SELECT count(label_time), total(label_time) FROM predictions "
            "WHERE time >= ? AND time <= ?",
            (first, last),
        )
        return f"{count} labels, {times!r}"

    def _kinds(self) -> set[str]:
        """Return what kinds of labels there are: of one log all columns are alike."""
        return {
            kind
            for (kind,) in self._base.execute(
                "SELECT DISTINCT typeof(label) FROM predictions "
                "WHERE label_time IS NOT NULL"
            )
        }

    @property
    def strays(self) -> int:
        """How many labels are of ids that no prediction has."""
        return self._count("strays")

    @property
    def conflicts(self) -> int:
        """How many labels contradicted others, whatever was done."""
        return self._count("conflicts")

    def forget(self, before: float) -> int:
        """Forget rows and strays from before a time; return how many."""
        with self._change():
            gone = self._base.execute(
                "DELETE FROM predictions WHERE time < ?", (before,)
            ).rowcount
            gone += self._base.execute(
                "DELETE FROM strays WHERE label_time < ?", (before,)
            ).rowcount
            self._base.execute("DELETE FROM evaluated WHERE end <= ?", (before,))
        return gone

    # --- the file

    @contextmanager
    def _change(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        found: tuple[Any, ...] = self._base.execute(query, values).fetchone()
        return found

    def _count(self, table: str) -> int:
        (count,) = self._one(f"SELECT count(*) FROM {table}")
        return int(count)

    def _column(self, query: str, values: tuple[Any, ...]) -> Array:
        rows = self._base.execute(query, values)
        return np.fromiter(itertools.chain.from_iterable(rows), np.float64)
