"""The rules of a log, batch by batch: versions, ids, order, what is left out."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.monitoring.logs import ID, VERSION, LogRules
from penstock.components.monitoring.sampling import hashes
from penstock.components.monitoring.windows import Window, iso
from penstock.schemas.errors import DataError, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a log, and what they are for.

    Attributes:
        schema: All of them, as `LogTable.table` has them.
        features: Names of the features.
        scores: Names of the scores.
        label: Name of the label, or None.
        has_ids: Whether there are ids.
    """

    schema: pa.Schema
    features: tuple[str, ...]
    scores: tuple[str, ...]
    label: str | None
    has_ids: bool


class Checked:
    """Applies the rules of a log to its batches, and counts what it leaves out.

    Args:
        subject: What texts call the log.
        layout: Its columns.
        window: Which rows are wanted; None for all.
        rules: What to do with what is not as it should be.
        version: Which version is wanted; None for the only one.
    """

    def __init__(
        self,
        subject: str,
        layout: Layout,
        window: Window | None,
        rules: LogRules,
        version: str | None,
    ) -> None:
        self.notes: list[str] = []
        self.noun = "rows"
        self.left_out: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self._subject = subject
        self._layout = layout
        self._window = window
        self._rules = rules
        self._version = version
        self._seen = _Seen()
        self._latest: dict[Path, float] = {}
        self._row: dict[Path, int] = {}

    def in_order(self, path: Path, times: Array) -> None:
        """Check that the times of a file do not go backwards.

        Raises:
            DataError: They do, and the rules refuse it.
        """
        if not len(times):
            return
        before = self._latest.get(path, -math.inf)
        latest = np.maximum.accumulate(np.append(before, times))
        first = self._row.get(path, 0)
        self._latest[path] = float(latest[-1])
        self._row[path] = first + len(times)
        back = latest[:-1] - times
        wrong = np.flatnonzero(back > self._rules.backwards_seconds)
        if not wrong.size:
            return
        row = int(wrong[0])
        sentence = (
            f"Times go backwards in '{path}': row {first + row + 1:,} is of "
            f"{iso(times[row])}, {back[row]:,.0f} seconds before a row above it."
        )
        if self._rules.on_backwards == "refuse":
            raise DataError(
                f"{sentence} Look at the clock of the machine that logs, or, if the "
                "log is not written in order of time, read it with "
                'LogRules(on_backwards="accept").'
            )
        self.left_out[sentence] += 0

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a batch that count."""
        batch = self._with_version(batch)
        if self._layout.has_ids and batch.num_rows:
            batch = self._with_ids(batch)
        return batch

    def _with_version(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.num_rows:
            return batch
        found = column_of(batch, VERSION).fill_null("")
        for each in pc.value_counts(found).to_pylist():
            self.versions[each["values"]] += each["counts"]
        if self._version is not None:
            wanted = pc.equal(found, self._version)
            return batch.filter(wanted)
        if len(self.versions) > 1 and self._rules.on_mixed_versions == "refuse":
            raise self.mixed()
        return batch

    def mixed(self) -> DataError:
        """Return the error of a log of several versions."""
        name = ", ".join(
            f"'{version}' ({rows:,} rows)" if version else f"none said ({rows:,} rows)"
            for version, rows in sorted(self.versions.items())
        )
        one = max(self.versions, key=lambda version: (version != "", version))
        return DataError(
            f"{self._subject} holds answers of several versions{self._when}: {name}. "
            f"Read those of one by version='{one}', or take them as one with "
            'LogRules(on_mixed_versions="accept").'
        )

    @property
    def _when(self) -> str:
        return f" in the window {self._window.name}" if self._window else ""

    def _with_ids(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids = column_of(batch, ID)
        if ids.null_count:
            if self._rules.on_missing_id == "refuse":
                raise DataError(
                    f"{self._subject} has {ids.null_count:,} rows without an id"
                    f"{self._when}, which nothing can be joined to. Log the id of "
                    "every request, or leave such rows out with "
                    'LogRules(on_missing_id="leave_out").'
                )
            self.left_out["rows without an id"] += ids.null_count
            batch = batch.filter(ids.is_valid())
        again = self._seen.again(column_of(batch, ID))
        if again.any():
            count = int(again.sum())
            if self._rules.on_duplicate == "refuse":
                first = column_of(batch, ID)[int(np.argmax(again))].as_py()
                raise DataError(
                    f"{self._subject} has the id '{first}' in several rows"
                    f"{self._when}, and at least {count:,} such rows. Log an id of its "
                    "own for every request, or take the first row of each with "
                    'LogRules(on_duplicate="first").'
                )
            self.left_out["rows with an id that another row has"] += count
            batch = batch.filter(pa.array(~again))
        return batch

    def whole_notes(self) -> tuple[str, ...]:
        """Return what was left out, in sentences."""
        notes = list(self.notes)
        for what, count in sorted(self.left_out.items()):
            notes.append(what if not count else _were_left_out(count, what))
        if self._version is not None:
            others = sum(self.versions.values()) - self.versions[self._version]
            if others:
                notes.append(
                    f"{others:,} {self.noun} of other versions than '{self._version}' "
                    "were left out."
                )
        elif len(self.versions) > 1:
            notes.append(
                f"Rows of the versions {quoted(self.versions)} were taken as one."
            )
        return tuple(notes)

    def refuse_none(self, files: int) -> None:
        """Refuse a window without rows, where the rules do.

        Raises:
            DataError: They do.
        """
        if self._rules.on_empty == "accept":
            return
        version = ""
        if self._version is not None and self.versions:
            named = [each for each in self.versions if each]
            there = (
                f"there are rows of {quoted(named)}"
                if named
                else "no row says its version; name the column that does"
            )
            version = f" of version '{self._version}' ({there})"
        why = " ".join(self.whole_notes())
        raise DataError(
            f"{self._subject} has no rows{version}{self._when}, in {files:,} "
            f"file{'s' * (files != 1)} that may hold some.{' ' + why if why else ''} "
            "Check the window, and that requests are logged, or accept it with "
            'LogRules(on_empty="accept").'
        )


def _were_left_out(count: int, what: str) -> str:
    noun = "" if what.startswith("rows") else "records "
    return f"{count:,} {noun}{what} were left out."


class _Seen:
    """The ids that came, as 64 bits of their hash each."""

    def __init__(self) -> None:
        self._sorted = np.zeros(0, np.uint64)
        self._recent: list[Array] = []
        self._waiting = 0

    def again(self, ids: pa.Array) -> Array:
        """Return which of some ids came before, or earlier among these."""
        hashed = hashes(ids, seed=0x1D)
        order = np.argsort(hashed, kind="stable")
        ordered = hashed[order]
        repeated = np.zeros(len(hashed), np.bool_)
        repeated[order[1:]] = ordered[1:] == ordered[:-1]
        for known in (self._sorted, *self._recent):
            if len(known):
                place = np.searchsorted(known, hashed)
                repeated |= known[np.minimum(place, len(known) - 1)] == hashed
        self._recent.append(np.unique(ordered))
        self._waiting += len(hashed)
        # Merged now and then, so that the cost stays near that of one sort.
        if len(self._recent) > 16 and self._waiting > len(self._sorted) // 4:
            self._sorted = np.unique(np.concatenate([self._sorted, *self._recent]))
            self._recent, self._waiting = [], 0
        return repeated


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column of a batch by name."""
    return batch.column(batch.schema.get_field_index(name))
