"""What stays of a window's evaluation: small enough to keep for ever.

One JSON file per window: every metric in every slice with its interval and rows, how
many rows had labels, and where detectors of concept drift stand. Trends are made of
these files; no log is read again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from penstock.components.columns.whole import write_whole
from penstock.components.monitoring.windows import Window, iso
from penstock.schemas.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"

FORMAT = "penstock-quality-window"
VERSION = 1
OVERALL = "overall"
"""What the slice of all rows is called."""

FOLDER = "windows"
"""Where the windows are, below the folder of an evaluation."""

_WEEK = 7 * 86_400.0
_COLUMNS = ("metric", "slice", "value", "lower", "upper", "rows")


@dataclasses.dataclass(frozen=True)
class Point:
    """A metric in one slice of one window.

    Attributes:
        metric: Its name.
        slice: As texts show it, `payment_type=Cash`; `overall` for all rows.
        value: The metric; NaN where it is not defined.
        lower: Lower end of its interval; NaN where there is none.
        upper: Upper end.
        rows: How many rows with labels the slice has.
    """

    metric: str
    slice: str
    value: float
    lower: float
    upper: float
    rows: int


@dataclasses.dataclass(frozen=True)
class QualityWindow:
    """What was measured in one window.

    Attributes:
        window: The time.
        model: Name of the model.
        versions: Rows by version of the model.
        rows: How many rows were logged.
        labeled: How many of them have a label by now.
        confidence: Of the intervals.
        points: The metrics.
        detectors: States of detectors of concept drift at its end, by name.
        late: How many labels came after it was measured first.
    """

    window: Window
    model: str
    versions: Mapping[str, int]
    rows: int
    labeled: int
    confidence: float
    points: tuple[Point, ...]
    detectors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    late: int = 0

    def measured_before(self, earlier: QualityWindow | None) -> QualityWindow:
        """Return it with the labels that it did not have when it was measured before.

        Args:
            earlier: What was measured then; None if it never was.
        """
        if earlier is None:
            return self
        more = max(self.labeled - earlier.labeled, 0)
        return dataclasses.replace(self, late=earlier.late + more)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads; points column by column."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "window": {"start": self.window.start, "end": self.window.end},
            "name": self.window.name,
            "model": self.model,
            "versions": dict(sorted(self.versions.items())),
            "rows": self.rows,
            "labeled": self.labeled,
            "late": self.late,
            "confidence": self.confidence,
            "points": {
                name: [_plain(getattr(each, name)) for each in self.points]
                for name in _COLUMNS
            },
            "detectors": dict(self.detectors),
        }

    @classmethod
    def from_json(cls, value: Any, subject: str) -> QualityWindow:
        """Return what `to_json` was made of.

        Args:
            value: The data.
            subject: What texts call it.

        Raises:
            DataError: If it is something else.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(
                f"{subject} is no stored window: its 'format' is not '{FORMAT}'. Name "
                "a folder that a QualityMonitor wrote."
            )
        if value.get("version") != VERSION:
            raise DataError(
                f"{subject} is a stored window of version {value.get('version')!r}, "
                f"and this penstock reads version {VERSION}. Read it with the penstock "
                "that wrote it."
            )
        try:
            columns = [value["points"][name] for name in _COLUMNS]
            points = tuple(
                Point(
                    str(metric),
                    str(where),
                    _number(number),
                    _number(lower),
                    _number(upper),
                    int(rows),
                )
                for metric, where, number, lower, upper, rows in zip(
                    *columns, strict=True
                )
            )
            return cls(
                Window(float(value["window"]["start"]), float(value["window"]["end"])),
                str(value["model"]),
                {str(name): int(rows) for name, rows in value["versions"].items()},
                int(value["rows"]),
                int(value["labeled"]),
                float(value["confidence"]),
                points,
                dict(value["detectors"]),
                int(value.get("late", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{subject} is a damaged window ({type(error).__name__}: {error}). "
                "Evaluate that window again."
            ) from error


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def file_name(window: Window) -> str:
    """Return the name of the file of a window: `2026-11-30.json` for a UTC day."""
    return window.name.replace("/", "_").replace(":", "") + ".json"


def write_window(folder: Path, found: QualityWindow) -> Path:
    """Write a window, whole or not at all; one of the same time is replaced.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(found.window)
    text = json.dumps(found.to_json(), separators=(",", ":"), allow_nan=False)
    write_whole(path, text.encode("utf-8"))
    return path


def read_windows(folder: Path) -> list[QualityWindow]:
    """Return the windows in a folder, in the order of time.

    Raises:
        DataError: If there is no such folder, or a file of it is something else.
    """
    if not folder.is_dir():
        raise DataError(
            f"There is no folder '{folder}' of stored windows. Name one that a "
            "QualityMonitor wrote."
        )
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"'{path}' is not JSON: {error}. Evaluate that window again."
            ) from error
        found.append(QualityWindow.from_json(value, f"'{path}'"))
    return in_order(found)


def in_order(windows: Iterable[QualityWindow]) -> list[QualityWindow]:
    """Return windows in the order of time; of two of the same time, the last given.

    Raises:
        DataError: If two overlap, or they are of several models.
    """
    by_time = {each.window: each for each in windows}
    found = [by_time[window] for window in sorted(by_time)]
    for before, after in itertools.pairwise(found):
        if after.window.start < before.window.end:
            raise DataError(
                f"The windows {before.window.name} and {after.window.name} overlap, so "
                "that rows would count twice. Keep windows of one length."
            )
        if after.model != before.model:
            raise DataError(
                f"The window {before.window.name} is of model '{before.model}' and "
                f"{after.window.name} of '{after.model}'. Keep each model's windows in "
                "a folder of its own."
            )
    return found


@dataclasses.dataclass(frozen=True)
class History:
    """Metrics by slice over windows, as arrays.

    Attributes:
        windows: The windows, in the order of time.
        keys: Metric and slice of each series.
        times: Middle of each window in weeks since 1970, of shape (windows,).
        values: Of shape (series, windows); NaN where there is none.
        errors: Standard errors, likewise; NaN where there is none.
        rows: Rows with labels, likewise; 0 where there is none.
    """

    windows: tuple[Window, ...]
    keys: tuple[tuple[str, str], ...]
    times: Array
    values: Array
    errors: Array
    rows: Array

    @classmethod
    def of(cls, windows: Sequence[QualityWindow], *, min_rows: int = 0) -> History:
        """Return the history of windows in the order of time.

        Standard errors are those of the whole series, scaled by the rows of each
        window. Those of the window itself would hang together with its value, as that
        of a share does, and a trend of weights would be taken for one of values.

        Args:
            windows: What was measured.
            min_rows: Rows with labels that a slice needs in a window to count.
        """
        keys = tuple(
            dict.fromkeys(
                (point.metric, point.slice) for each in windows for point in each.points
            )
        )
        place = {key: number for number, key in enumerate(keys)}
        shape = len(keys), len(windows)
        values, raw = np.full(shape, np.nan), np.full(shape, np.nan)
        rows = np.zeros(shape)
        for column, each in enumerate(windows):
            width = 2 * _quantile(each.confidence)
            for point in each.points:
                if point.rows < max(min_rows, 1) or not math.isfinite(point.value):
                    continue
                series = place[point.metric, point.slice]
                values[series, column] = point.value
                rows[series, column] = point.rows
                raw[series, column] = (point.upper - point.lower) / width
        known = np.isfinite(values) & np.isfinite(raw) & (raw > 0)
        of_one = np.where(known, raw**2 * rows, 0.0).sum(axis=1)
        count = known.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = np.sqrt((of_one / count)[:, None] / np.where(known, rows, np.nan))
        times = np.array(
            [(each.window.start + each.window.end) / 2 / _WEEK for each in windows]
        )
        return cls(
            tuple(each.window for each in windows), keys, times, values, errors, rows
        )

    def last(self, count: int, *, without: int = 0) -> History:
        """Return the last windows.

        Args:
            count: How many.
            without: How many to leave out at the end first.
        """
        end = len(self.windows) - without
        taken = slice(max(end - count, 0), max(end, 0))
        return dataclasses.replace(
            self,
            windows=self.windows[taken],
            times=self.times[taken],
            values=self.values[:, taken],
            errors=self.errors[:, taken],
            rows=self.rows[:, taken],
        )

    def only(self, series: Sequence[int]) -> History:
        """Return some of the series, by number."""
        numbers = list(series)
        return dataclasses.replace(
            self,
            keys=tuple(self.keys[number] for number in numbers),
            values=self.values[numbers],
            errors=self.errors[numbers],
            rows=self.rows[numbers],
        )

    @property
    def weights(self) -> Array:
        """One over squared errors, of shape (series, windows); 0 where unknown."""
        known = np.isfinite(self.values) & np.isfinite(self.errors) & (self.errors > 0)
        return np.where(known, 1 / np.where(known, self.errors, 1.0) ** 2, 0.0)


def _quantile(confidence: float) -> float:
    from scipy import special

    return float(special.ndtri((1 + confidence) / 2))


def time_text(window: Window) -> str:
    """Return the start of a window as ISO 8601 has it."""
    return iso(window.start)
