"""Lines, scales and numbers of the evaluation page: SVG paths from plain values.

Coordinates are whole pixels and paths relative, because they are most of the page.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

if TYPE_CHECKING:
    import numpy as np

Span: TypeAlias = "tuple[float | None, float | None, float | None]"
"""A value and the ends of its interval, each None where there is none."""

MAX_POINTS = 120
"""Most points of a curve that is drawn."""

MAX_BINS = 20
"""Most points of a calibration plot."""

_JOINERS = "\u200c\u200d"  # parts of words and of emoji, though no letters

_LEAST, _GREATEST = 1e-200, 1e200  # of numbers that are drawn

_MARGIN = 6
"""Pixels left free beside the outermost marks of an axis."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Numbers on an axis of so many pixels.

    Attributes:
        lower: The number at the start.
        upper: The number at the end, greater than `lower`.
        start: Pixel of `lower`.
        end: Pixel of `upper`; before `start` where the axis points up.
    """

    lower: float
    upper: float
    start: int
    end: int

    def pixel(self, value: float) -> int:
        """Return where a number is; what lies beyond the axis is at its end."""
        share = (value - self.lower) / (self.upper - self.lower)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start))

    def ticks(self, about: int) -> list[tuple[int, str]]:
        """Return pixels and texts of about so many round numbers."""
        step = _round_step((self.upper - self.lower) / about)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        is_plain = decimals < 7 and max(abs(self.lower), abs(self.upper)) < 1e9
        form = f",.{decimals}f" if is_plain else ".6g"
        first = math.ceil(self.lower / step - 1e-9)
        last = math.floor(self.upper / step + 1e-9)
        return [
            (self.pixel(index * step), _signed(format(index * step, form)))
            for index in range(first, last + 1)
        ]


def rounded(numbers: Iterable[float], about: int) -> tuple[float, float]:
    """Return the ends of an axis of about so many round steps that holds numbers."""
    listed = list(numbers)
    lower, upper = min(listed), max(listed)
    if not lower < upper:
        return lower, lower + 1.0
    step = _round_step((upper - lower) / about)
    return (
        math.floor(lower / step + 1e-9) * step,
        math.ceil(upper / step - 1e-9) * step,
    )


def _round_step(step: float) -> float:
    """Return the least of 1, 2, 5, 10 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= step)


def scale_of(spans: Iterable[Span], marks: Iterable[float], width: int) -> Scale:
    """Return a scale that shows values, marks, and intervals as far as is useful.

    One slice of five rows has an interval that would leave no room for the others:
    intervals are shown up to the width of all values, or twice a typical interval.

    Args:
        spans: What is drawn.
        marks: Further numbers that must be seen.
        width: Pixels of the axis.
    """
    listed = list(spans)
    ends = [end for span in listed for end in span[1:] if _is_finite(end)]
    points = [span[0] for span in listed if _is_finite(span[0])]
    core = [*points, *(mark for mark in marks if _is_finite(mark))] or ends or [0.0]
    lower, upper = min(core), max(core)
    widths = [
        high - low for _, low, high in listed if _is_finite(low) and _is_finite(high)
    ]
    reach = max(upper - lower, 2 * statistics.median(widths or [0.0]))
    lower = max(min([*core, *ends]), lower - reach)
    upper = min(max([*core, *ends]), upper + reach)
    if upper - lower <= 1e-9 * max(abs(lower), abs(upper), _LEAST):
        room = max(abs(upper) / 10, _LEAST) if upper else 1.0
        lower, upper = lower - room, upper + room
    return Scale(lower, upper, _MARGIN, width - _MARGIN)


def _is_finite(value: float | None) -> TypeGuard[float]:
    """Return whether there is a number, and one that differences can be taken of."""
    return value is not None and abs(value) < _GREATEST


def interval_path(span: Span, scale: Scale, middle: int) -> str:
    """Return the path of an interval with a tick at its value; empty without one."""
    value, lower, upper = span
    path = ""
    if _is_finite(lower) and _is_finite(upper):
        left, right = scale.pixel(lower), scale.pixel(upper)
        path = f"M{left} {middle}H{max(right, left + 1)}"
    if _is_finite(value):
        at = scale.pixel(value)
        path += f"M{at} {middle - 4}v8"
    return path


def curve_path(points: Any, x: Scale, y: Scale) -> str:
    """Return the path through points, thinned to `MAX_POINTS`.

    Args:
        points: Pairs of numbers, in the order of the curve; those that are not finite
            are left out.
        x: Scale of the first of each pair.
        y: Scale of the second.
    """
    import numpy as np

    array = _finite_rows(points, 2)
    if not len(array):
        return ""
    pixels = np.array([[x.pixel(a), y.pixel(b)] for a, b in thinned(array)])
    steps = np.diff(pixels, axis=0)
    steps = steps[(steps != 0).any(axis=1)]
    left, top = pixels[0]
    # A minus parts two numbers as well as a space does.
    lines = " ".join(f"{dx} {dy}" for dx, dy in steps.tolist()).replace(" -", "-")
    return f"M{left} {top}l{lines or '0 0'}"


def thinned(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return at most `MAX_POINTS` points, evenly spread along the curve, ends kept.

    Args:
        points: Numbers of shape (n, 2).
    """
    import numpy as np

    if len(points) <= MAX_POINTS:
        return points
    steps = np.abs(np.diff(points, axis=0)).sum(axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.searchsorted(length, np.linspace(0.0, length[-1], MAX_POINTS))
    at[-1] = len(points) - 1
    kept: np.ndarray[Any, Any] = points[np.unique(at)]
    return kept


def merged_bins(bins: Any) -> np.ndarray[Any, Any]:
    """Return at most `MAX_BINS` bins; neighbors are merged to about equal weights.

    Args:
        bins: Mean prediction, mean label and weight of each bin; those that are not
            finite or weigh nothing are left out.

    Returns:
        The same of the merged bins, of shape (n, 3).
    """
    import numpy as np

    array = _finite_rows(bins, 3)
    array = array[array[:, 2] > 0]
    array = array[np.argsort(array[:, 0], kind="stable")]
    if len(array) <= MAX_BINS:
        return array
    weight = array[:, 2]
    middle = np.cumsum(weight) - weight / 2
    group = np.minimum((middle / weight.sum() * MAX_BINS).astype(int), MAX_BINS - 1)
    sums = np.zeros((MAX_BINS, 3))
    np.add.at(sums, group, array * [[1, 1, 0]] * weight[:, None] + [[0, 0, 1]] * array)
    sums = sums[sums[:, 2] > 0]
    sums[:, :2] /= sums[:, 2:]
    return sums


def _finite_rows(rows: Any, width: int) -> np.ndarray[Any, Any]:
    import numpy as np

    array: np.ndarray[Any, Any] = np.asarray(rows, dtype=float).reshape(-1, width)
    finite: np.ndarray[Any, Any] = array[(np.abs(array) < _GREATEST).all(axis=1)]
    return finite


def places(values: Iterable[float | None], digits: int) -> int:
    """Return the decimal places that give a typical one of numbers so many digits.

    The greatest of them is no measure: one tiny slice can have a calibration of 170
    where that of all others is about 1.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    typical = statistics.median_high([abs(each) for each in finite if each] or [0.0])
    if typical == 0 or all(value == int(value) for value in finite):
        return 0
    # Slightly over 1 asks for no fewer places than 0.99 does.
    return min(max(digits - 1 - math.floor(math.log10(typical / 1.5)), 0), 6)


def number(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """Return a number as the page shows it; what is too small for it as a power."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return _signed("∞" if value > 0 else "-∞")
    if value and (abs(value) < 0.5 * 10.0**-decimals or abs(value) >= 1e12):
        digits, _, power = f"{value:.1e}".partition("e")
        text = f"{digits}e{_signed(str(int(power)))}"
    else:
        text = f"{value or 0.0:,.{decimals}f}"
    return _signed(f"+{text}" if signed and value > 0 else text)


def _signed(text: str) -> str:
    """Return a number's text with a minus as wide as a plus."""
    return text.replace("-", "−") if text.startswith("-") else text


def interval(
    lower: float | None, upper: float | None, decimals: int, *, signed: bool = False
) -> str:
    """Return an interval as the page shows it; empty if there is none."""
    if lower is None or upper is None:
        return ""
    ends = (number(each, decimals, signed=signed) for each in (lower, upper))
    return f"[{', '.join(ends)}]"


def shown(text: str, most: int = 80) -> str:
    """Return a text with its controls made visible, and cut to so many letters.

    Controls of direction and line, and halves of letters, would let a slice's value
    change the text around it, or could not be written at all.
    """
    plain = "".join(
        each
        if each.isprintable() or each in _JOINERS
        else each.encode("unicode_escape").decode("ascii")
        for each in text[: most + 1]
    )
    return plain if len(plain) <= most else plain[:most] + "…"
