"""From the evidence of the last windows to a state: ok, watch, alert, too few rows.

A column is called drifted if its differences are significant (one level for the whole
model, kept over groups, columns and slices by the procedures of Simes and of Benjamini
and Hochberg), large enough to matter, and there in k of the last m windows, or in one
window so clearly that no second one is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from penstock.components.monitoring.measures import WindowEvidence
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

State = Literal["ok", "watch", "alert", "insufficient_data"]


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What it takes to raise an alert; made by `budget.calibrate`.

    Attributes:
        level: Share of windows in which a model without drift may raise an alert.
        k: In how many of the last m windows a column has to be significant.
        m: How many windows are looked at.
        min_rows: Below them a window decides nothing.
        effects: By drift type, the least effect that may raise an alert.
        once: Share of the level for columns that are significant in one window alone.
        groups: Shares of the level by role; what is not named is shared by the rest.
        budget: Alerts per model and month that were asked for.
        windows_per_month: How many windows a month has.
        rows_per_window: Rows of a window that the level was found for.
        expected: Alerts per model and month at this level, as replayed without drift.
        interval: 95 % interval of `expected`.
        run_length: Windows between two false alarms.
        inflation: By column, by how many times its windows vary more than independent
            rows would; 1 where not named.
        reference_id: Of the reference that they were made for.
        reference_rows: Its rows.
        seed: Of the replay.
        replayed: Model-years that were replayed; 0 if the level was set by hand.
        notes: Sentences on how it was made.
    """

    level: float
    k: int = 2
    m: int = 3
    min_rows: int = 500
    effects: Mapping[str, float] = dataclasses.field(default_factory=dict)
    once: float = 0.3
    groups: Mapping[str, float] = dataclasses.field(default_factory=dict)
    budget: float = 1.0
    windows_per_month: float = 30.4
    rows_per_window: int = 0
    expected: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    run_length: float = 0.0
    inflation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reference_id: str = ""
    reference_rows: int = 0
    seed: int = 0
    replayed: float = 0.0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, for `from_json`."""
        found = dataclasses.asdict(self)
        return found | {"interval": list(self.interval), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Thresholds:
        """Return what `to_json` wrote."""
        made = {
            "interval": tuple(found["interval"]),
            "notes": tuple(found["notes"]),
        }
        return cls(**{**found, **made})


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
        evidence: Of the last windows, the current one last; those before the last m
            with enough rows are not looked at.
        thresholds: What it takes.
        importances: Of columns to the model, in any unit; for the ranking.
    """
    raise NotImplementedError
