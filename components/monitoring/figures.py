"""Figures of a monitoring report: distributions and trends as SVG paths, and numbers.

Coordinates are whole and paths relative, because they are most of the page.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence

from penstock.components.evaluation import drawing
from penstock.components.monitoring.document import DistributionOf, PointOf, TrendOf

MAX_BARS = 30
"""Most bins of a distribution that is drawn large."""

MAX_POINTS = 120
"""Most windows of a trend that are drawn, the last ones."""

SMALL_WIDTH, SMALL_HEIGHT = 99, 22
"""Pixels of a distribution that is drawn small."""

WIDE, HIGH = 1000, 100
"""Units of a figure that is stretched to the width there is."""

_SMALL_BINS = 10
_TOP = 88  # of a bar's 100 units of height, so that the tallest one is not cut


@dataclasses.dataclass(frozen=True)
class Bar:
    """Shares of one bin, as texts and for a pair of horizontal bars of 100 units.

    Attributes:
        label: What the bin holds.
        reference: Share in the reference.
        current: Share in the window.
        lengths: The same two in units, of the largest share.
    """

    label: str
    reference: str
    current: str
    lengths: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Histogram:
    """A distribution drawn large.

    Attributes:
        bars: Every bin that is drawn.
        width: Units of the drawing's width; its height is 100.
        reference: Path of the reference's bars.
        current: Path of the window's bars, each beside that of the reference.
        largest: The largest share, which the tallest bar has.
    """

    bars: list[Bar]
    width: int
    reference: str
    current: str
    largest: str


def histogram(distribution: DistributionOf, *, is_ordered: bool) -> Histogram:
    """Return a distribution for a large drawing.

    Args:
        distribution: Shares by bin.
        is_ordered: Whether bins are ranges of numbers. Then neighbors are merged where
            there are too many; else the smallest ones make one bin.
    """
    labels, reference, current = _merged(distribution, MAX_BARS, is_ordered=is_ordered)
    largest = max([*reference, *current], default=0.0) or 1.0
    paths = []
    for side, start in ((reference, 1), (current, 5)):
        heights = [round(share / largest * _TOP) for share in side]
        paths.append(
            "".join(
                f"M{10 * index + start} 100v-{height}h4v{height}"
                for index, height in enumerate(heights)
                if height
            )
        )
    bars = [
        Bar(
            label,
            percent(before),
            percent(now),
            (_units(before / largest), _units(now / largest)),
        )
        for label, before, now in zip(labels, reference, current, strict=True)
    ]
    return Histogram(bars, 10 * len(bars), paths[0], paths[1], percent(largest))


def _units(share: float) -> int:
    """Return a length of 100 units at most; what is there at all is seen."""
    return max(round(100 * share), 1) if share > 0 else 0


def small(distribution: DistributionOf, *, is_ordered: bool) -> tuple[str, str]:
    """Return the paths of a small drawing: the reference's and the window's.

    Ranges of numbers make a line each, other bins a pair of bars each.
    """
    _, *sides = _merged(distribution, _SMALL_BINS, is_ordered=is_ordered)
    largest = max([*sides[0], *sides[1]], default=0.0) or 1.0
    most, count = SMALL_HEIGHT - 2, len(sides[0])
    paths = []
    for offset, side in enumerate(sides):
        heights = [round(share / largest * most) for share in side]
        if is_ordered:
            step = SMALL_WIDTH // max(count - 1, 1)
            moves = [
                f"{step} {before - now}" for before, now in itertools.pairwise(heights)
            ]
            first = SMALL_HEIGHT - (heights[0] if heights else 0)
            paths.append(f"M0 {first}l{_joined(moves)}" if moves else "")
        else:
            paths.append(
                "".join(
                    f"M{SMALL_WIDTH * index // count + 2 + 4 * offset} {SMALL_HEIGHT}"
                    f"v-{height}"
                    for index, height in enumerate(heights)
                    if height
                )
            )
    return paths[0], paths[1]


def _joined(moves: Sequence[str]) -> str:
    # A minus parts two numbers as well as a space does.
    return " ".join(moves).replace(" -", "-")


def _merged(
    distribution: DistributionOf, most: int, *, is_ordered: bool
) -> tuple[list[str], list[float], list[float]]:
    labels, reference, current = (
        list(distribution["bins"]),
        list(distribution["reference"]),
        list(distribution["current"]),
    )
    if len(labels) <= most:
        return labels, reference, current
    if is_ordered:
        starts = [index * len(labels) // most for index in range(most)]
        groups = [
            range(start, end)
            for start, end in zip(starts, [*starts[1:], len(labels)], strict=True)
        ]
        names = [
            labels[group[0]]
            if len(group) == 1
            else f"{labels[group[0]]} … {labels[group[-1]]}"
            for group in groups
        ]
    else:
        # What grew or shrank stays, as far as there is room; in the order of the bins.
        weight = [max(pair) for pair in zip(reference, current, strict=True)]
        order = sorted(range(len(labels)), key=lambda index: -weight[index])
        kept = sorted(order[: most - 1])
        rest = sorted(order[most - 1 :])
        groups = [*(range(index, index + 1) for index in kept)]
        names = [labels[index] for index in kept]
        return (
            [*names, f"{len(rest):,} others"],
            [*(reference[index] for index in kept), sum(reference[i] for i in rest)],
            [*(current[index] for index in kept), sum(current[i] for i in rest)],
        )
    return (
        names,
        [sum(reference[index] for index in group) for group in groups],
        [sum(current[index] for index in group) for group in groups],
    )


@dataclasses.dataclass(frozen=True)
class Mark:
    """Where a line is drawn through a trend, in percent of its width.

    Attributes:
        at: The place.
        number: What it is called by.
        is_late: Whether there is no room for a name on its right.
    """

    at: str
    number: int
    is_late: bool


@dataclasses.dataclass(frozen=True)
class TrendFigure:
    """A trend drawn, stretched over `WIDE` by `HIGH` units.

    Attributes:
        line: Path of the values, with gaps where there are none.
        band: Path around the intervals.
        ticks: Texts of the vertical axis, the highest first.
        ends: First and last window that are drawn.
        left_out: Windows before the first one that are not drawn.
        changes: Change points, numbered as the document has them.
        deployments: Deployments, numbered as the document has them.
    """

    line: str
    band: str
    ticks: list[str]
    ends: tuple[str, str]
    left_out: int
    changes: list[Mark]
    deployments: list[Mark]


def drawn(trend: TrendOf) -> list[PointOf]:
    """Return the windows of a trend that are drawn."""
    return trend["points"][-MAX_POINTS:]


def trend_figure(trend: TrendOf, deployments: Sequence[str]) -> TrendFigure | None:
    """Return the drawing of a trend; None if it has no value.

    Args:
        trend: The trend.
        deployments: Windows in which something was deployed.
    """
    points = drawn(trend)
    if all(point["value"] is None for point in points):
        return None
    # A day of few rows has an interval that would leave no room for the others.
    spans = [(point["value"], point["lower"], point["upper"]) for point in points]
    scale = drawing.scale_of(spans, [], HIGH)
    lower, upper = drawing.rounded([scale.lower, scale.upper], 4)
    up = drawing.Scale(lower, upper, HIGH, 0)
    step = WIDE / max(len(points) - 1, 1)
    across = [round(index * step) for index in range(len(points))]
    windows = [point["window"] for point in points]
    changes = [change["window"] for change in trend["change_points"]]
    ticks = (upper, (lower + upper) / 2, lower)
    decimals = max(drawing.places([upper - lower], 2), drawing.places(ticks, 3))
    return TrendFigure(
        _line(points, across, up),
        _band(points, across, up),
        [drawing.number(each, decimals) for each in ticks],
        (windows[0], windows[-1]),
        len(trend["points"]) - len(points),
        _marks(changes, windows),
        _marks(deployments, windows),
    )


def _line(points: Sequence[PointOf], across: Sequence[int], up: drawing.Scale) -> str:
    """Return the path of the values; a value alone between gaps is a short dash."""
    path = ""
    for has_value, run in itertools.groupby(
        zip(across, points, strict=True), key=lambda each: each[1]["value"] is not None
    ):
        if has_value:
            places = [(x, up.pixel(point["value"] or 0.0)) for x, point in run]
            moves = f"l{_moves(places)}" if len(places) > 1 else "h3"
            path += f"M{places[0][0]} {places[0][1]}{moves}"
    return path


def _band(points: Sequence[PointOf], across: Sequence[int], up: drawing.Scale) -> str:
    """Return the path around the intervals, one part for each run without a gap."""
    path = ""
    for has_interval, run in itertools.groupby(
        zip(across, points, strict=True),
        key=lambda each: None not in (each[1]["lower"], each[1]["upper"]),
    ):
        if not has_interval:
            continue
        spans = [
            (x, up.pixel(point["upper"] or 0.0), up.pixel(point["lower"] or 0.0))
            for x, point in run
        ]
        corners = [(x, high) for x, high, _ in spans]
        corners += [(x, low) for x, _, low in reversed(spans)]
        path += f"M{corners[0][0]} {corners[0][1]}l{_moves(corners)}z"
    return path


def _moves(places: Sequence[tuple[int, int]]) -> str:
    """Return the steps from each place to the next; of one place, a step to itself."""
    steps = [
        f"{right - left} {below - above}"
        for (left, above), (right, below) in itertools.pairwise(places)
    ]
    return _joined(steps or ["0 0"])


def _marks(wanted: Sequence[str], windows: Sequence[str]) -> list[Mark]:
    """Return marks of the windows that are drawn; names of windows sort by time."""
    share = 100 / max(len(windows) - 1, 1)
    places = [
        (bisect.bisect_left(windows, each) * share, number)
        for number, each in enumerate(wanted, 1)
        if windows[0] <= each <= windows[-1]
    ]
    return [Mark(f"{at:.1f}", number, at > 90) for at, number in places]


def percent(share: float | None) -> str:
    """Return a share in percent; what is there but small as less than 0.1."""
    if share is None:
        return "–"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share else "0 %"


def probability(p_value: float | None) -> str:
    """Return a p-value: three places, or a power of ten."""
    if p_value is None:
        return "–"
    if p_value >= 0.001:
        return f"{p_value:.3f}"
    if p_value < 1e-99:
        return "<1e−99"
    digits, power = f"{p_value:.0e}".split("e")
    return f"{digits}e−{abs(int(power))}"


def ratio(value: float | None) -> str:
    """Return how many times the threshold something is."""
    return "–" if value is None else drawing.number(value, 2)


def short(value: float | None) -> str:
    """Return a number with three digits that count."""
    if value is None or math.isnan(value):
        return "–"
    if value and not 0.001 <= abs(value) < 1e6:
        return drawing.number(value, 3)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:,.{min(max(digits, 0), 5)}f}"
    return drawing.number(value, len(text.partition(".")[2].rstrip("0")))
