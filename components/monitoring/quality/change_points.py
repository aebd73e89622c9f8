"""Change points: where the level of a series of windows changes, and if it does at all.

The statistic is the greatest of Student's t of the windows before against those after,
over every place where the series may be divided: the likelihood ratio scan. Its p-value
is the lesser of two that are each too high rather than too low: Bonferroni's over the
places, and the tail of the greatest normalized Brownian bridge (Miller & Siegmund 1982,
Biometrics 38, 1011-1016), which takes neighboring places for the near copies that they
are. As for trends, windows may vary more than their standard errors say, and may
resemble their neighbors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from penstock.components.monitoring.quality.history import History
from penstock.components.monitoring.quality.trends import lasting, tail

Array: TypeAlias = "np.ndarray[Any, Any]"

LEAST_WINDOWS = 4
"""Windows that are needed on either side of a change."""

_MEDIAN = 0.4549  # of the chi-squared distribution with one degree of freedom
_EFFICIENCY = 0.37  # of a variance by a median, against one by squares
_DROP = 3.84  # in twice the log likelihood: places this near are as likely, at 95 %


@dataclasses.dataclass(frozen=True)
class Scan:
    """The most likely change of every series.

    Attributes:
        places: The first window after it, of shape (series,); -1 if none can be told.
        first: The first place that is nearly as likely.
        last: The last one.
        before: Weighted mean of the windows before.
        after: Weighted mean of the windows from it on.
        p_values: How likely a change as clear is where there is none.
        degrees: Degrees of freedom.
    """

    places: Array
    first: Array
    last: Array
    before: Array
    after: Array
    p_values: Array
    degrees: Array


def scan(
    history: History,
    directions: Array | None = None,
    *,
    least_windows: int = LEAST_WINDOWS,
    several: bool = False,
) -> Scan:
    """Look for one change in every series.

    Args:
        history: The series.
        directions: By series 1 if only falls count, -1 if only rises do, 0 if both do;
            both by default.
        least_windows: Windows with a value that are needed on either side.
        several: Whether other changes must not hide one. By default all that is not
            explained by one change counts as noise; then, only what neighbors differ
            by does, of which the median is not moved by a few changes.
    """
    weights = history.weights
    series, windows = weights.shape
    asked = np.zeros(series, np.int64) if directions is None else directions
    none = np.full(series, math.nan)
    if windows < 2 * least_windows or not series:
        places = np.full(series, -1)
        return Scan(places, places, places, none, none, np.ones(series), none)
    values = np.where(weights > 0, history.values, 0.0)
    known = weights > 0
    # Place k divides the windows [0, k) from [k, windows).
    count = _before(known.astype(np.float64))
    weight = _before(weights)
    total = _before(weights * values)
    squares = _before(weights * values**2)
    rest = weight[:, -1:] - weight
    legal = (count >= least_windows) & (count[:, -1:] - count >= least_windows)
    # A place before a window without a value is the same as the one after it.
    legal[:, :-1] &= known
    legal[:, -1] = False
    degrees = count[:, -1] - 2
    with np.errstate(invalid="ignore", divide="ignore"):
        before = total / weight
        after = (total[:, -1:] - total) / rest
        residual = squares[:, -1:] - weight * before**2 - rest * after**2
        excess = np.maximum(residual / np.maximum(degrees, 1)[:, None], 1.0)
        if several:
            excess = _of_neighbors(values, weights)[:, None]
            degrees = np.maximum(_EFFICIENCY * (count[:, -1] - 1), 1)
        error = np.sqrt(excess * (1 / weight + 1 / rest))
    level = tail(
        np.where(legal, after - before, 0.0),
        np.where(legal, error, np.nan),
        np.broadcast_to(degrees[:, None], legal.shape),
        np.broadcast_to(asked[:, None], legal.shape),
    )
    level = np.where(legal, level, np.inf)
    place = np.argmin(level, axis=1)
    rows = np.arange(series)
    is_after = np.arange(windows)[None, :] >= place[:, None]
    center = np.where(is_after, after[rows, place, None], before[rows, place, None])
    more = lasting(np.sqrt(weights) * (values - center), known)
    if several:
        more = np.ones(series)
    least = tail(
        after[rows, place] - before[rows, place],
        error[rows, place] * np.sqrt(more),
        degrees / more,
        asked,
    )
    least = np.where(np.isfinite(level[rows, place]), least, np.inf)
    found = np.isfinite(least)
    bonferroni = least * legal.sum(axis=1)
    shares = np.where(legal, weight / np.maximum(weight[:, -1:], 1e-300), np.nan)
    p_values = np.ones(series)
    for number in np.flatnonzero(found):
        inside = shares[number][legal[number]]
        bound = _of_bridge(
            least[number], inside[0], inside[-1], is_one_sided=asked[number] != 0
        )
        p_values[number] = min(bonferroni[number], bound, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        likelihood = np.where(legal, ((after - before) / error) ** 2, -np.inf)
    near = likelihood >= (likelihood[rows, place] - _DROP)[:, None]
    first = np.argmax(near, axis=1)
    last = near.shape[1] - 1 - np.argmax(near[:, ::-1], axis=1)
    return Scan(
        np.where(found, place, -1),
        np.where(found, first, -1),
        np.where(found, last, -1),
        np.where(found, before[rows, place], np.nan),
        np.where(found, after[rows, place], np.nan),
        p_values,
        degrees,
    )


def _of_neighbors(values: Array, weights: Array) -> Array:
    """Return by how much variances are greater than said, by median differences."""
    found = np.ones(len(values))
    for number, (value, weight) in enumerate(zip(values, weights, strict=True)):
        value, weight = value[weight > 0], weight[weight > 0]
        if len(value) > 2:
            variance = 1 / weight[1:] + 1 / weight[:-1]
            squared = float(np.median(np.diff(value) ** 2 / variance))
            found[number] = max(squared / _MEDIAN, 1.0)
    return found


def _before(numbers: Array) -> Array:
    """Return sums of all columns before each place, of shape (series, windows + 1)."""
    found = np.zeros((numbers.shape[0], numbers.shape[1] + 1))
    np.cumsum(numbers, axis=1, out=found[:, 1:])
    return found


def _of_bridge(level: float, first: float, last: float, *, is_one_sided: bool) -> float:
    """Return the p-value of the greatest of many t, given the least p-value of one.

    Miller & Siegmund's tail of the greatest |bridge(s)| / sqrt(s (1 - s)) over s in
    [first, last], half of it for one side.
    """
    from scipy import special

    one = level if is_one_sided else level / 2
    height = float(-special.ndtri(one)) if one > 0 else math.inf
    if height < 2:  # the tail is one of high values only
        return 1.0
    if math.isinf(height):
        return 0.0
    length = (
        math.log(last * (1 - first) / (first * (1 - last))) if last > first else 0.0
    )
    density = math.exp(-(height**2) / 2) / math.sqrt(2 * math.pi)
    both = density * ((height - 1 / height) * length + 4 / height)
    return both / 2 if is_one_sided else both


@dataclasses.dataclass(frozen=True)
class ChangePoint:
    """Where the level of a series changes.

    Attributes:
        place: Number of the first window after it.
        window: Name of that window.
        before: Weighted mean of the windows before it, back to the change before.
        after: Weighted mean of the windows from it on, up to the next change.
        p_value: How likely a change as clear is where there is none.
        deployment: What was deployed about then; None if nothing was.
    """

    place: int
    window: str
    before: float
    after: float
    p_value: float
    deployment: str | None = None


def change_points(
    history: History,
    *,
    level: float = 0.01,
    least_windows: int = LEAST_WINDOWS,
    deployments: Sequence[tuple[float, str]] = (),
) -> list[tuple[ChangePoint, ...]]:
    """Return the changes of every series, by dividing it again and again.

    To be shown: noise is told from neighbors, so that one change does not hide another,
    and p-values are a little less sure than those of `scan` for one.

    Args:
        history: The series.
        level: The p-value up to which a change counts.
        least_windows: Windows on either side of a change.
        deployments: Seconds since 1970 and what was deployed then.
    """
    return [
        _divided(history.only([number]), level, least_windows, deployments, 0)
        for number in range(len(history.keys))
    ]


def _divided(
    history: History,
    level: float,
    least_windows: int,
    deployments: Sequence[tuple[float, str]],
    offset: int,
) -> tuple[ChangePoint, ...]:
    found = scan(history, least_windows=least_windows, several=True)
    place = int(found.places[0])
    if place < 0 or found.p_values[0] > level:
        return ()
    count = len(history.windows)
    sides = (
        _divided(
            history.last(place, without=count - place),
            level,
            least_windows,
            deployments,
            offset,
        ),
        _divided(
            history.last(count - place),
            level,
            least_windows,
            deployments,
            offset + place,
        ),
    )
    # What lies beyond the changes on either side is not this one's before and after.
    start = sides[0][-1].place - offset if sides[0] else 0
    end = sides[1][0].place - offset if sides[1] else count
    point = ChangePoint(
        offset + place,
        history.windows[place].name,
        _mean(history, start, place),
        _mean(history, place, end),
        float(found.p_values[0]),
        _deployed(history, int(found.first[0]), int(found.last[0]), deployments),
    )
    return (*sides[0], point, *sides[1])


def _mean(history: History, first: int, last: int) -> float:
    weights = history.weights[0, first:last]
    values = np.where(weights > 0, history.values[0, first:last], 0.0)
    total = weights.sum()
    return float((weights * values).sum() / total) if total > 0 else math.nan


def _deployed(
    history: History, first: int, last: int, deployments: Sequence[tuple[float, str]]
) -> str | None:
    """Return what was deployed where the change may be; the latest of several.

    A deployment in the middle of a window makes that window a mixture, and the change
    may show in the next: so the window before the first place counts too.
    """
    start = history.windows[max(first - 1, 0)].start
    end = history.windows[min(last, len(history.windows) - 1)].end
    inside = [each for each in deployments if start <= each[0] < end]
    return max(inside)[1] if inside else None
