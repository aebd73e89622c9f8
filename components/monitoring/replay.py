"""Decides about stored windows anew, with other thresholds: `penstock backtest`.

A year of days is replayed in seconds: the columns of all windows are tested at once,
and only windows in which something stirs are looked at one by one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.components.monitoring import column_tests, procedures
from penstock.components.monitoring.comparing import (
    compare_windows,
    p_over_windows,
    shared_slices,
)
from penstock.components.monitoring.decision import (
    DriftDecision,
    Thresholds,
    column_level,
    decide,
)
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.measures import WindowEvidence
from penstock.components.monitoring.profile import Profile
from penstock.components.monitoring.slices import is_of
from penstock.components.monitoring.windows import is_recent
from penstock.schemas.errors import DataError

_STIRS = 4.5
"""As many times the level of an alert makes a window worth a closer look."""


@dataclasses.dataclass(frozen=True)
class Backtest:
    """What a sequence of windows comes to with some thresholds.

    Attributes:
        decisions: About every window, in the order of time.
        thresholds: That they were made with.
    """

    decisions: tuple[DriftDecision, ...]
    thresholds: Thresholds

    @property
    def episodes(self) -> tuple[DriftDecision, ...]:
        """The first decision of every alert; one that goes on is the same alert."""
        return episodes(self.decisions)

    @property
    def decided(self) -> int:
        """How many windows had enough rows."""
        return sum(each.state != "insufficient_data" for each in self.decisions)

    @property
    def alerts_per_month(self) -> float:
        """Alerts per month of windows with enough rows; NaN if there are none."""
        if not self.decided:
            return math.nan
        months = self.decided / self.thresholds.windows_per_month
        return len(self.episodes) / months

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of `alerts_per_month`, by Poisson's law (Garwood)."""
        from scipy import special

        count = len(self.episodes)
        months = self.decided / self.thresholds.windows_per_month
        if not months:
            return 0.0, math.inf
        low = float(special.gammaincinv(count, 0.025)) if count else 0.0
        return low / months, float(special.gammaincinv(count + 1, 0.975)) / months

    @property
    def run_length(self) -> float:
        """Windows between two alerts; infinite without any."""
        count = len(self.episodes)
        return self.decided / count if count else math.inf

    def to_json(self) -> dict[str, Any]:
        """Return what `penstock backtest --json` prints."""
        low, high = self.interval
        return {
            "windows": len(self.decisions),
            "decided": self.decided,
            "alerts": [
                {
                    "window": each.window.name,
                    "columns": [column.column for column in each.alerts],
                    "reasons": list(each.reasons),
                }
                for each in self.episodes
            ],
            "states": {each.window.name: each.state for each in self.decisions},
            "alerts_per_month": _number(self.alerts_per_month),
            "interval": [low, _number(high)],
            "run_length_windows": _number(self.run_length),
            "thresholds": self.thresholds.to_json(),
        }


def episodes(decisions: Sequence[DriftDecision]) -> tuple[DriftDecision, ...]:
    """Return the first decision of every alert.

    Windows without enough rows neither end an alert nor begin one.
    """
    found = []
    before = "ok"
    for each in decisions:
        if each.state == "insufficient_data":
            continue
        if each.state == "alert" and before != "alert":
            found.append(each)
        before = each.state
    return tuple(found)


def replay_evidence(
    evidence: Sequence[WindowEvidence],
    thresholds: Thresholds,
    importances: Mapping[str, float] | None = None,
) -> Backtest:
    """Decide about every window of stored evidence, in the order of time."""
    usable: list[WindowEvidence] = []
    decisions = []
    for each in evidence:
        decisions.append(decide([*usable, each], thresholds, importances))
        if each.rows >= thresholds.min_rows:
            usable = [*usable, each][-(thresholds.m - 1) :] if thresholds.m > 1 else []
    return Backtest(tuple(decisions), thresholds)


def replay(
    reference: Profile,
    windows: Sequence[Profile],
    thresholds: Thresholds,
    importances: Mapping[str, float] | None = None,
    *,
    reference_id: str = "",
) -> Backtest:
    """Compare stored profiles with a reference and decide about each.

    Args:
        reference: Profile of the reference.
        windows: Profiles on its grid, in the order of time.
        thresholds: What it takes.
        importances: Of columns to the model.
        reference_id: Of the reference; that of the thresholds if empty.

    Returns:
        The same decisions as from `compare_windows` and `decide` for each window.
        Quiet windows get a shorter reason.

    Raises:
        DataError: If there are no windows, or they are not in the order of time or
            counted on another grid.
    """
    if not windows:
        raise DataError("There are no windows to replay. Profile some first.")
    for before, after in itertools.pairwise(windows):
        if after.window.start < before.window.end:
            raise DataError(
                f"Window '{after.window.name}' does not come after "
                f"'{before.window.name}'. Give windows in the order of time, each once."
            )
    reference_id = reference_id or thresholds.reference_id or reference.grid.id
    usable = [i for i, each in enumerate(windows) if each.rows >= thresholds.min_rows]
    stirred = _stirred(reference, [windows[i] for i in usable], thresholds)
    kept: dict[int, WindowEvidence] = {}
    roles = [column.role for column in reference.grid]

    def evidence(i: int) -> WindowEvidence:
        if i not in kept:
            kept[i] = compare_windows(
                reference,
                windows[i],
                reference_id=reference_id,
                slices=shared_slices(reference, windows[i], thresholds.min_rows),
                effects=thresholds.effects,
                level=column_level(thresholds, roles, "feature", windows[i].rows),
            )
        return kept[i]

    position = {i: at for at, i in enumerate(usable)}
    decisions = []
    for i, window in enumerate(windows):
        at = position.get(i)
        last = usable[max(at + 1 - thresholds.m, 0) : at] if at is not None else []
        # After a gap fewer windows count than were looked at for what stirs.
        is_whole = all(
            is_recent(windows[each].window, window.window, thresholds.m)
            for each in last
        )
        if at is not None and is_whole and not stirred[at]:
            decisions.append(_quiet(window, thresholds, reference_id))
        else:
            found = [evidence(each) for each in [*last, i]]
            decisions.append(decide(found, thresholds, importances))
            kept = {each: value for each, value in kept.items() if each > i - 32}
    return Backtest(tuple(decisions), thresholds)


def _stirred(
    reference: Profile, windows: Sequence[Profile], thresholds: Thresholds
) -> list[bool]:
    """Return in which windows anything comes near to an alert or a watch."""
    if not windows or reference.rows < thresholds.min_rows:
        return [True] * len(windows)
    effects = {**column_tests.EFFECTS, **thresholds.effects}
    roles = [column.role for column in reference.grid]
    found = np.zeros(len(windows), bool)
    for limits in (effects, dict.fromkeys(effects, 0.0)):
        p = _lasting(reference, windows, thresholds, limits)
        if reference.slices:
            p = procedures.with_slices(
                p, _lasting_in_slices(reference, windows, thresholds, limits)
            )
        model = procedures.model_p(p, roles, thresholds.shares)
        found |= model <= _STIRS * thresholds.level
    return [bool(each) for each in found]


def _lasting(
    reference: Profile,
    windows: Sequence[Profile | None],
    thresholds: Thresholds,
    limits: Mapping[str, float],
) -> Array:
    """Return p-values of columns over windows, shape (columns, windows).

    Args:
        reference: Profile of the reference, or of one of its slices.
        windows: In the order of time; None has a p-value of 1.
        thresholds: What it takes.
        limits: Least effects.
    """
    there = [each for each in windows if each is not None]
    p = np.ones((len(reference.columns), len(windows)))
    if not there:
        return p
    at = [each is not None for each in windows]
    for i, (name, column) in enumerate(reference.columns.items()):
        found = p_over_windows(column, [each.columns[name] for each in there], limits)
        p[i, at] = procedures.deflated(found, thresholds.inflation.get(name, 1.0))
    # The least correlation makes the smallest p-values.
    rows = min(each.rows for each in there)
    correlation = rows / (rows + reference.rows)
    return procedures.over_windows(
        p, thresholds.k, thresholds.m, correlation, thresholds.once
    )


def _lasting_in_slices(
    reference: Profile,
    windows: Sequence[Profile],
    thresholds: Thresholds,
    limits: Mapping[str, float],
) -> Array:
    """Return the same of slices, shape (slices, columns, windows); NaN: none there."""
    shared = [shared_slices(reference, each, thresholds.min_rows) for each in windows]
    found = []
    for name, part in reference.slices.items():
        some = [each[name][1] if name in each else None for each in shared]
        p = _lasting(part, some, thresholds, limits)
        p[:, [each is None for each in some]] = np.nan
        p[[is_of(column, name) for column in part.columns]] = np.nan
        found.append(p)
    return np.stack(found)


def _quiet(window: Profile, thresholds: Thresholds, reference_id: str) -> DriftDecision:
    return DriftDecision(
        state="ok",
        window=window.window,
        rows=window.rows,
        reasons=(f"None of {len(window.columns)} columns drifted.",),
        level=thresholds.level,
        reference_id=reference_id,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
