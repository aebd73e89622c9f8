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
class _Look:
    """What one look at the history sees, by series."""

    lines: trends.Trends
    step: changes.Scan
    trend_levels: Array
    step_levels: Array
    matters: Array
    sinks: Array

    @property
    def levels(self) -> Array:
        return np.minimum(self.trend_levels, self.step_levels)


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
        _look(history, directions, watch, back)
        for back in range(min(watch.m, len(history.windows)))
    ]
    now = looks[0]
    agreeing = np.sum([each.sinks for each in looks], axis=0)
    shown = changes.change_points(
        history.last(watch.change_windows), level=marks, deployments=deployments
    )
    lower, upper = now.lines.interval()
    order = np.lexsort((np.arange(len(history.keys)), now.levels, ~now.sinks))
    ranks = {int(number): place for place, number in enumerate(order, 1)}
    found = []
    for number in order.tolist():
        metric, where = history.keys[number]
        slope = float(now.lines.slopes[number])
        is_known = bool(np.isfinite(slope))
        state: State = "ok"
        if now.sinks[number]:
            state = "alert" if agreeing[number] >= watch.k else "watch"
        elif not is_known:
            state = "insufficient_data"
        ends = (float(lower[number]), float(upper[number]))
        found.append(
            SeriesFinding(
                metric,
                where,
                state,
                ranks[number] if now.sinks[number] else None,
                slope if is_known else None,
                ends[0] if is_known else None,
                ends[1] if is_known else None,
                float(now.trend_levels[number]) if is_known else None,
                shown[number],
                _sentence(history, now, number, ends, shown[number]),
            )
        )
    return found


def _look(history: History, directions: Array, watch: Watch, back: int) -> _Look:
    """Look at the history as it was some windows ago."""
    lines = trends.fit(history.last(watch.trend_windows, without=back))
    step = changes.scan(history.last(watch.change_windows, without=back), directions)
    trend_levels = lines.p_values(directions)
    with np.errstate(invalid="ignore"):
        least = watch.least_change * np.abs(lines.levels)
        lost = np.abs(lines.slopes * lines.spans) >= least
        fallen = np.abs(step.after - step.before) >= watch.least_change * np.abs(
            step.before
        )
    levels = [*trend_levels.tolist(), *step.p_values.tolist()]
    fails = np.array(holm(levels, watch.level)).reshape(2, -1)
    matters = np.stack([lost, fallen])
    return _Look(
        lines,
        step,
        np.where(lost, trend_levels, 1.0),
        np.where(fallen, step.p_values, 1.0),
        matters,
        (fails & matters).any(axis=0),
    )


def _sentence(
    history: History,
    look: _Look,
    number: int,
    ends: tuple[float, float],
    points: Sequence[changes.ChangePoint],
) -> str:
    metric, where = history.keys[number]
    subject = f"'{metric}' in {where}"
    slope, windows = look.lines.slopes[number], int(look.lines.windows[number])
    if not np.isfinite(slope):
        return (
            f"{subject} has {windows} windows with enough rows, and a trend needs "
            f"{trends.LEAST_WINDOWS}."
        )
    line = (
        f"{subject} moves by {slope:+.2g} a week (95 % interval {ends[0]:+.2g} to "
        f"{ends[1]:+.2g}, {windows} windows)"
    )
    if look.step_levels[number] < look.trend_levels[number] and points:
        last = points[-1]
        line = (
            f"{subject} went from {last.before:.4g} to {last.after:.4g} at "
            f"{last.window}"
        )
        if last.deployment:
            line += f", when {last.deployment} was deployed"
    return line + ("." if not look.sinks[number] else ": worse than chance explains.")
