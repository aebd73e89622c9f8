"""What it takes to raise an alert: the level, its shares, the limits of effects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.components.monitoring import procedures


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

    @property
    def shares(self) -> Mapping[str, float] | None:
        """`groups`, or None for the default ones."""
        return self.groups or None

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


def column_level(
    thresholds: Thresholds, roles: Sequence[str], role: str, rows: int
) -> float:
    """Return the p-value that a column has to reach in k of m windows.

    It is that of a column that drifts alone; with more of them it is less strict.

    Args:
        thresholds: What is in force.
        roles: Of all columns.
        role: Of the column.
        rows: Of a window.
    """
    shares = thresholds.shares
    group = procedures.group_of(role, shares)
    size = sum(procedures.group_of(each, shares) == group for each in roles)
    share = procedures.group_shares(roles, shares).get(group, 1.0)
    level = thresholds.level * share / max(size, 1)
    if thresholds.m == 1:
        return level
    return procedures.persistence_level(
        level * (1 - thresholds.once),
        thresholds.k,
        thresholds.m,
        rows / max(rows + thresholds.reference_rows, 1),
    )
