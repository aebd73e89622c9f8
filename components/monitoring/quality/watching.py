"""What the history of a model's quality comes to: which series sink, the worst first.

Looked at every day, whatever is found by chance is found some day. So the budget is one
of false alerts: with at most `alerts` a month and `windows_per_month` looks, each look
may raise one with a chance of alerts / windows_per_month, over all metrics, slices and
tests of that look together (Holm's procedure). Then the expected number of looks that
raise a false alert is within the budget however looks depend on one another, and alerts
are fewer still, for looks in a row that raise the same one are one alert, and `k` of
the last `m` looks have to agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from penstock.components.evaluation.evidence import holm
from penstock.components.monitoring.quality import change_points as changes
from penstock.components.monitoring.quality import trends
from penstock.components.monitoring.quality.history import History
from penstock.schemas.errors import PipelineError

Array: TypeAlias = "np.ndarray[Any, Any]"
State = Literal["ok", "watch", "alert", "insufficient_data"]


@dataclasses.dataclass(frozen=True)
class Watch:
    """How closely a history is watched.

    Attributes:
        alerts: False alerts a month, at most and on average.
        windows_per_month: How many windows a month has.
        k: How many of the last `m` looks have to find a series sinking.
        m: How many looks count.
        trend_windows: How far a trend looks back.
        change_windows: How far a change is looked for.
        least_change: Share of a metric's value that has to be lost to matter.
    """

    alerts: float = 0.5
    windows_per_month: float = 30.4
    k: int = 2
    m: int = 3
    trend_windows: int = 35
    change_windows: int = 60
    least_change: float = 0.005

    def __post_init__(self) -> None:
        if not 0 < self.alerts <= self.windows_per_month / 4:
            raise PipelineError(
                f"A budget of {self.alerts:g} false alerts a month cannot be kept with "
                f"{self.windows_per_month:g} windows a month: it lies above 0 and at "
                f"most at {self.windows_per_month / 4:g}. Pass 1 for one a month."
            )
        if not 1 <= self.k <= self.m:
            raise PipelineError(
                f"{self.k} of {self.m} looks cannot agree. Pass a k from 1 to m."
            )

    @property
    def level(self) -> float:
        """The chance of a false alert of one look."""
        return self.alerts / self.windows_per_month


@dataclasses.dataclass(frozen=True)
class SeriesFinding:
    """What one metric in one slice comes to.

    Attributes:
        metric: The metric.
        slice: The slice.
        state: `alert` if it sinks, `watch` if only the last look says so,
            `insufficient_data` if there are too few windows, else `ok`.
        rank: 1 for the one that sinks most surely; None for those that do not.
        slope_per_week: Of the line through the last windows; None with too few.
        lower: Of its 95 % interval.
        upper: Likewise.
        p_value: How likely a line as bad is by chance; None with too few windows.
        change_points: Where its level changed.
        sentence: The same in words.
    """

    metric: str
    slice: str
    state: State
    rank: int | None
    slope_per_week: float | None
    lower: float | None
    upper: float | None
    p_value: float | None
    change_points: tuple[changes.ChangePoint, ...]
    sentence: str


@dataclasses.dataclass(frozen=True)
class Look:
    """What one look at a history sees, by series.

    Attributes:
        lines: The trends.
        step: The changes of level.
        levels: P-values of a trend and of a change, of shape (2, series).
        matters: Whether what is lost is enough to matter, likewise.
    """

    lines: trends.Trends
    step: changes.Scan
    levels: Array
    matters: Array

    @property
    def least(self) -> Array:
        """The lesser p-value of what matters, of shape (series,)."""
        found: Array = np.where(self.matters, self.levels, 1.0).min(axis=0)
        return found

    def sinks(self, level: float) -> Array:
        """Return which series sink, by Holm's procedure over all and both tests."""
        fails = np.array(holm(self.levels.ravel().tolist(), level))
        found: Array = (fails.reshape(self.levels.shape) & self.matters).any(axis=0)
        return found


def look(history: History, directions: Array, watch: Watch, back: int = 0) -> Look:
    """Look at a history as it was some windows ago.

    Args:
        history: The series.
        directions: What is better of each, as `trends.direction_of` says.
        watch: How closely.
        back: How many windows ago.
    """
    lines = trends.fit(history.last(watch.trend_windows, without=back))
    step = changes.scan(history.last(watch.change_windows, without=back), directions)
    with np.errstate(invalid="ignore"):
        least = watch.least_change * np.abs(lines.levels)
        lost = np.abs(lines.slopes * lines.spans) >= least
        least = watch.least_change * np.abs(step.before)
        fallen = np.abs(step.after - step.before) >= least
    return Look(
        lines,
        step,
        np.stack([lines.p_values(directions), step.p_values]),
        np.stack([lost, fallen]),
    )


def watched(
    history: History,
    watch: Watch = Watch(),
    *,
    deployments: Sequence[tuple[float, str]] = (),
    marks: float = 0.01,
) -> list[SeriesFinding]:
    """Return what every series of a history comes to, those that sink first.

    Args:
        history: Up to now; series whose metrics say nothing of quality are left out.
        watch: How closely.
        deployments: Seconds since 1970 and what was deployed then, to mark changes.
        marks: The p-value up to which a change point is shown. It raises no alert.
    """
    known = [trends.direction_of(metric) for metric, _ in history.keys]
    history = history.only([i for i, each in enumerate(known) if each is not None])
    if not history.keys:
        return []
    directions = np.array([each for each in known if each is not None])
    looks = [
        look(history, directions, watch, back)
        for back in range(min(watch.m, len(history.windows)))
    ]
    now = looks[0]
    sinking = [each.sinks(watch.level) for each in looks]
    agreeing, sinks = np.sum(sinking, axis=0), sinking[0]
    shown = changes.change_points(
        history.last(watch.change_windows), level=marks, deployments=deployments
    )
    lower, upper = now.lines.interval()
    order = np.lexsort((np.arange(len(history.keys)), now.least, ~sinks))
    ranks = {int(number): place for place, number in enumerate(order, 1)}
    found = []
    for number in order.tolist():
        metric, where = history.keys[number]
        slope = float(now.lines.slopes[number])
        is_known = bool(np.isfinite(slope))
        state: State = "ok"
        if sinks[number]:
            state = "alert" if agreeing[number] >= watch.k else "watch"
        elif not is_known:
            state = "insufficient_data"
        ends = (float(lower[number]), float(upper[number]))
        found.append(
            SeriesFinding(
                metric,
                where,
                state,
                ranks[number] if sinks[number] else None,
                slope if is_known else None,
                ends[0] if is_known else None,
                ends[1] if is_known else None,
                float(now.levels[0, number]) if is_known else None,
                shown[number],
                _sentence(
                    history, now, number, ends, shown[number], sinks=bool(sinks[number])
                ),
            )
        )
    return found


def _sentence(
    history: History,
    seen: Look,
    number: int,
    ends: tuple[float, float],
    points: Sequence[changes.ChangePoint],
    *,
    sinks: bool,
) -> str:
    metric, where = history.keys[number]
    subject = f"'{metric}' in {where}"
    slope, windows = seen.lines.slopes[number], int(seen.lines.windows[number])
    if not np.isfinite(slope):
        return (
            f"{subject} has {windows} windows with enough rows, and a trend needs "
            f"{trends.LEAST_WINDOWS}."
        )
    line = (
        f"{subject} moves by {slope:+.2g} a week (95 % interval {ends[0]:+.2g} to "
        f"{ends[1]:+.2g}, {windows} windows)"
    )
    if seen.levels[1, number] < seen.levels[0, number] and points:
        last = points[-1]
        line = (
            f"{subject} went from {last.before:.4g} to {last.after:.4g} at "
            f"{last.window}"
        )
        if last.deployment:
            line += f", when {last.deployment} was deployed"
    return line + ("." if not sinks else ": worse than chance explains.")
