"""From the evidence of the last windows to a state: ok, watch, alert, too few rows.

A column is called drifted if its differences are significant (one level for the whole
model, kept over groups, columns and slices by the procedures of Simes and of Benjamini
and Hochberg), large enough to matter, and there in k of the last m windows, or in one
window so clearly that no second one is needed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from penstock.components.monitoring import column_tests, procedures
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.measures import (
    ColumnEvidence,
    Measure,
    WindowEvidence,
)
from penstock.components.monitoring.procedures import deflated
from penstock.components.monitoring.thresholds import Thresholds, column_level
from penstock.components.monitoring.windows import Window, is_recent
from penstock.schemas.errors import DataError

__all__ = [
    "DriftDecision",
    "DriftedColumn",
    "State",
    "Thresholds",
    "column_level",
    "decide",
]

State = Literal["ok", "watch", "alert", "insufficient_data"]


@dataclasses.dataclass(frozen=True)
class DriftedColumn:
    """A column that an alert, or a watch, is about.

    Attributes:
        column: Its name.
        role: What the model does with it.
        rank: 1 for the one to look at first.
        p_value: Of the current window.
        persistent_p: Of the last m windows together.
        effect_ratio: Its largest significant effect as a multiple of its threshold.
        importance: Of the column to the model; None if not known.
        score: What it is ranked by: importance times effect.
        windows: Names of the windows in which it was significant.
        slices: Names of the slices that drifted, the clearest first.
        explanation: A sentence: what changed, where, by how much.
    """

    column: str
    role: str
    rank: int
    p_value: float
    persistent_p: float
    effect_ratio: float
    importance: float | None = None
    score: float = 0.0
    windows: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    explanation: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = dataclasses.asdict(self)
        return found | {"windows": list(self.windows), "slices": list(self.slices)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> DriftedColumn:
        """Return what `to_json` wrote."""
        made = {key: tuple(found[key]) for key in ("windows", "slices")}
        return cls(**{**found, **made})


@dataclasses.dataclass(frozen=True)
class DriftDecision:
    """What the last windows come to.

    Attributes:
        state: "ok", "watch", "alert" or "insufficient_data".
        window: The current one.
        rows: Its rows.
        alerts: Columns that drifted, ranked.
        watch: Columns to keep an eye on, ranked: nearly significant, or significant
            and too small to matter.
        reasons: Sentences, the most important first.
        p_value: Of the model: how often no drift at all looks like this.
        level: What it was compared with.
        reference_id: Of the reference.
    """

    state: State
    window: Window
    rows: int
    alerts: tuple[DriftedColumn, ...] = ()
    watch: tuple[DriftedColumn, ...] = ()
    reasons: tuple[str, ...] = ()
    p_value: float = 1.0
    level: float = 0.0
    reference_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, for `from_json`."""
        return {
            "state": self.state,
            "window": [self.window.start, self.window.end],
            "rows": self.rows,
            "alerts": [each.to_json() for each in self.alerts],
            "watch": [each.to_json() for each in self.watch],
            "reasons": list(self.reasons),
            "p_value": self.p_value,
            "level": self.level,
            "reference_id": self.reference_id,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> DriftDecision:
        """Return what `to_json` wrote.

        Raises:
            DataError: If it is something else.
        """
        try:
            return cls(
                state=found["state"],
                window=Window(*found["window"]),
                rows=found["rows"],
                alerts=tuple(map(DriftedColumn.from_json, found["alerts"])),
                watch=tuple(map(DriftedColumn.from_json, found["watch"])),
                reasons=tuple(found["reasons"]),
                p_value=found["p_value"],
                level=found["level"],
                reference_id=found["reference_id"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"What should be a drift decision has no right {error}. "
                "Decide about the window again."
            ) from error


def decide(
    evidence: Sequence[WindowEvidence],
    thresholds: Thresholds,
    importances: Mapping[str, float] | None = None,
) -> DriftDecision:
    """Decide about the last one of some windows.

    Args:
        evidence: Of the last windows, the current one last; looked at are the last m
            with enough rows, of its length, and not longer ago than four times m.
        thresholds: What it takes.
        importances: Of columns to the model, in any unit; for the ranking.

    Raises:
        DataError: If there is no window, the windows are not in the order of time, or
            they were compared with another reference than the thresholds are for.
    """
    _check(evidence, thresholds)
    current = evidence[-1]
    short = _too_few(current, thresholds)
    if short:
        return DriftDecision(
            state="insufficient_data",
            window=current.window,
            rows=current.rows,
            reasons=(short, *current.notes),
            level=thresholds.level,
            reference_id=current.reference_id,
        )
    enough = [
        each
        for each in evidence[:-1]
        if each.rows >= thresholds.min_rows
        and is_recent(each.window, current.window, thresholds.m)
    ] + [current]
    judged = _Judged(enough[-thresholds.m :], thresholds, importances or {})
    alerts = judged.ranked(judged.found(judged.over, thresholds.level))
    named = {each.column for each in alerts}
    # What nearly is an alert, or is one but for its size.
    near = judged.found(judged.over, min(_NEARLY * thresholds.level, 0.5))
    small = judged.found(judged.ungated, thresholds.level)
    watch = judged.ranked(
        [name for name in dict.fromkeys([*near, *small]) if name not in named]
    )
    state: State = "alert" if alerts else "watch" if watch else "ok"
    return DriftDecision(
        state=state,
        window=current.window,
        rows=current.rows,
        alerts=alerts,
        watch=watch,
        reasons=(*_reasons(alerts, watch, judged), *current.notes),
        p_value=judged.model_p,
        level=thresholds.level,
        reference_id=current.reference_id,
    )


class _Judged:
    """The p-values of the last windows, with all that is asked of them."""

    def __init__(
        self,
        windows: Sequence[WindowEvidence],
        thresholds: Thresholds,
        importances: Mapping[str, float],
    ) -> None:
        self.windows = windows
        self.thresholds = thresholds
        self.importances = importances
        current = windows[-1]
        self.columns = current.columns
        self.names = list(current.columns)
        self.roles = [column.role for column in current.columns.values()]
        self.correlation = current.rows / max(current.rows + current.reference_rows, 1)
        self.effects = {**column_tests.EFFECTS, **thresholds.effects}
        self.p = self._matrix(gated=True)
        self.whole = self._over(self.p)
        self.ungated = self._over(self._matrix(gated=False))
        self.slices = {
            name: self._slices(name)
            for name, each in self.columns.items()
            if each.slices
        }
        self.over = self._with_slices(self.whole)
        self.model_p = float(
            procedures.model_p(self.over[:, None], self.roles, thresholds.shares)[0]
        )

    def _matrix(self, *, gated: bool) -> Array:
        p = [
            [self._p(window.columns.get(name), gated) for window in self.windows]
            for name in self.names
        ]
        return np.array(p, np.float64).reshape(len(self.names), len(self.windows))

    def _p(self, column: ColumnEvidence | None, gated: bool) -> float:
        if column is None:
            return 1.0
        p = column.gated_p(self.effects) if gated else column.p_value
        inflation = self.thresholds.inflation.get(column.name, 1.0)
        return float(deflated(np.asarray(p), inflation))

    def _over(self, p: Array) -> Array:
        limits = self.thresholds
        found: Array = procedures.over_windows(
            p, limits.k, limits.m, self.correlation, limits.once
        )[:, -1]
        return found

    def _slices(self, name: str) -> dict[str, float]:
        """Return the p-values over the windows of the slices of a column."""
        found = {}
        for part, each in self.columns[name].slices.items():
            p = [
                self._p(window.columns[name].slices.get(part), True)
                if name in window.columns
                else 1.0
                for window in self.windows[:-1]
            ]
            p.append(self._p(each, True))
            found[part] = float(self._over(np.array([p]))[0])
        return found

    def _with_slices(self, over: Array) -> Array:
        over = over.copy()
        for i, name in enumerate(self.names):
            if name in self.slices:
                parts = np.array([*self.slices[name].values()])
                over[i] = procedures.with_slices(over[i], parts)
        return over

    def found(self, p: Array, level: float) -> list[str]:
        """Return the columns that are findings at a level of the model."""
        shares = self.thresholds.shares
        groups = np.array([procedures.group_of(role, shares) for role in self.roles])
        names = np.array(self.names, object)
        found: list[str] = []
        for group, share in procedures.group_shares(self.roles, shares).items():
            within = groups == group
            passed = procedures.benjamini_hochberg(p[within], level * share)
            found += [str(name) for name in names[within][passed]]
        return found

    def ranked(self, names: Sequence[str]) -> tuple[DriftedColumn, ...]:
        """Return columns with what they are ranked by, the first to look at first."""
        found = [self._drifted(name) for name in names]
        found.sort(key=lambda each: (-each.score, each.persistent_p, each.column))
        return tuple(
            dataclasses.replace(each, rank=rank) for rank, each in enumerate(found, 1)
        )

    def _drifted(self, name: str) -> DriftedColumn:
        i = self.names.index(name)
        role = self.roles[i]
        level = self._column_level(role)
        seen = [
            window
            for window, p in zip(self.windows, self.p[i], strict=True)
            if p <= level and name in window.columns
        ]
        # A column can alert when the last window is quiet: then the latest one that
        # is not says what it is about.
        told = seen[-1] if seen else self.windows[-1]
        slices = self._drifted_slices(name)
        evidence, where = told.columns[name], list[str]()
        if slices and self.slices[name][slices[0]] < self.whole[i]:
            # A slice shows it better than all rows do.
            evidence, where = self.columns[name].slices[slices[0]], slices
        clearest = evidence.clearest(level, self.effects)
        plainest = evidence.plainest(level, self.effects)
        ratio = 0.0
        if clearest is not None:
            ratio = clearest.effect / max(self.effects[clearest.drift_type], 1e-6)
        importance = self._importance(name, role)
        score = ratio * (1.0 if importance is None else importance)
        return DriftedColumn(
            column=name,
            role=role,
            rank=0,
            p_value=float(self.p[i, -1]),
            persistent_p=float(self.over[i]),
            effect_ratio=ratio,
            importance=importance,
            score=score,
            windows=tuple(window.window.name for window in seen),
            slices=tuple(slices),
            explanation=_explanation(
                evidence, plainest, where, _often(len(seen), len(self.windows))
            ),
        )

    def _drifted_slices(self, name: str) -> list[str]:
        """Return the slices in which a column drifted, the clearest first."""
        parts = self.slices.get(name, {})
        passed = procedures.benjamini_hochberg([*parts.values()], self.thresholds.level)
        slices = [part for part, yes in zip(parts, passed, strict=True) if yes]
        return sorted(slices, key=lambda part: parts[part])

    def _column_level(self, role: str) -> float:
        return column_level(
            dataclasses.replace(
                self.thresholds, reference_rows=self.windows[-1].reference_rows
            ),
            self.roles,
            role,
            self.windows[-1].rows,
        )

    def _importance(self, name: str, role: str) -> float | None:
        """Return what is known; scores and labels are as important as any feature."""
        if not self.importances:
            return None
        if name in self.importances:
            return self.importances[name]
        if role in ("score", "label"):
            return max(self.importances.values())
        return 0.0


def _explanation(
    column: ColumnEvidence,
    clearest: Measure | None,
    slices: Sequence[str],
    often: str,
) -> str:
    parts = [f"{_ROLES[column.role]} '{column.name}' drifted"]
    if slices:
        parts.append(f" in {', '.join(slices[:3])}")
    if clearest is not None:
        parts.append(f": {clearest.sentence[0].lower()}{clearest.sentence[1:-1]}")
    if column.moved and (
        clearest is None or clearest.drift_type not in ("missing", "unseen", "type")
    ):
        parts.append(f"; {column.moved}")
    return "".join(parts) + f"{often}."


def _often(seen: int, windows: int) -> str:
    """Return in how many windows a column was as it is now, where that says more."""
    if seen < 2:
        return ""
    some = "both" if seen == windows == 2 else f"{seen}"
    return f"; it was so in {some} of the last {windows} windows"


def _reasons(
    alerts: Sequence[DriftedColumn], watch: Sequence[DriftedColumn], judged: _Judged
) -> list[str]:
    limits = judged.thresholds
    if alerts:
        return [each.explanation for each in alerts]
    if watch:
        names = ", ".join(f"'{each.column}'" for each in watch[:5])
        more = f" and {len(watch) - 5} more" if len(watch) > 5 else ""
        return [
            f"Nothing drifted in {limits.k} of the last {limits.m} windows by as much "
            f"as matters. Near to it: {names}{more}."
        ]
    return [
        f"None of {len(judged.names)} columns drifted: the p-value of all together is "
        f"{judged.model_p:.2g}, and an alert needs {limits.level:.2g}."
    ]


def _too_few(current: WindowEvidence, thresholds: Thresholds) -> str:
    """Return why nothing can be decided, or nothing."""
    if current.rows == 0:
        return f"Window '{current.window.name}' has no rows."
    if current.rows < thresholds.min_rows:
        return (
            f"Window '{current.window.name}' has {current.rows} rows; a decision needs "
            f"{thresholds.min_rows}."
        )
    if current.reference_rows < thresholds.min_rows:
        return (
            f"The reference has {current.reference_rows} rows; a decision needs "
            f"{thresholds.min_rows}."
        )
    return ""


def _check(evidence: Sequence[WindowEvidence], thresholds: Thresholds) -> None:
    if not evidence:
        raise DataError("There is no window to decide about. Compare one first.")
    ids = {each.reference_id for each in evidence}
    if thresholds.reference_id:
        ids.add(thresholds.reference_id)
    if len(ids) > 1:
        of = thresholds.reference_id or evidence[-1].reference_id
        other = sorted(ids - {of})[0]
        raise DataError(
            f"Window '{evidence[-1].window.name}' is judged by thresholds and windows "
            f"of different references: {of} and {other}. Compare all windows with one "
            "reference, and calibrate for that one."
        )
    for before, after in itertools.pairwise(evidence):
        if after.window.start < before.window.end:
            raise DataError(
                f"Window '{after.window.name}' does not come after "
                f"'{before.window.name}'. Give windows in the order of time, each once."
            )


_NEARLY = 4.0
"""A level as many times as high as that of an alert makes a watch."""

_ROLES = {
    "feature": "Feature",
    "score": "Score",
    "label": "Label",
    "segment": "Segment",
}
