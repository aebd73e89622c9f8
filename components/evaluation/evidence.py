"""What a confidence interval says about a bound: alone, and as one of many.

A number is good if its whole interval lies within its limits, bad if the whole interval
lies beyond one, and else not known. `holm` keeps many comparisons from failing by
chance. The statistics are explained in docs/adr/0006.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

RULE_OF_THREE = "rule of three"
"""The method of intervals by `agreeing_rows`."""

_MOST_TIMES_THE_ROWS = 1_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval of a number.

    Attributes:
        lower: Its lower end; NaN, as `upper`, where it is not defined.
        upper: Its upper end.
        confidence: How often such intervals hold the true number.
        degrees: Degrees of freedom of the Student t distribution it was made with;
            infinite for the normal distribution.
        method: How it was made, for texts.
    """

    lower: float
    upper: float
    confidence: float = 0.95
    degrees: float = math.inf
    method: str = ""

    @property
    def is_defined(self) -> bool:
        """Whether both ends are numbers."""
        return not (math.isnan(self.lower) or math.isnan(self.upper))

    def at(self, confidence: float, value: float) -> Interval:
        """Return the interval of `value` at another confidence.

        Each side is scaled by the ratio of Student t quantiles, so that a skewed
        interval stays skewed. One that does not hold the value, as percentiles of a
        biased bootstrap may not, is widened up to the value first.
        """
        lower, upper = min(self.lower, value), max(self.upper, value)
        if confidence != self.confidence:
            ratio = _quantile(confidence, self.degrees) / _quantile(
                self.confidence, self.degrees
            )
            lower, upper = (
                value - ratio * (value - lower),
                value + ratio * (upper - value),
            )
        if not self.is_defined or math.isnan(value):
            lower = upper = math.nan
        return Interval(lower, upper, confidence, self.degrees, self.method)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A number with its interval, and the limits that it must lie within.

    Attributes:
        value: The number.
        interval: Of the number, which it holds.
        lower: The least that is good; minus infinity for any.
        upper: The most that is good; infinity for any.
    """

    value: float
    interval: Interval
    lower: float = -math.inf
    upper: float = math.inf

    @property
    def is_good(self) -> bool | None:
        """Whether the whole interval is within the limits; None if not known.

        False if all of it is beyond one limit.
        """
        if not self.interval.is_defined:
            return None
        if self.lower <= self.interval.lower and self.interval.upper <= self.upper:
            return True
        if self.interval.upper < self.lower or self.upper < self.interval.lower:
            return False
        return None

    @property
    def level(self) -> float:
        """The one-sided p-value of lying within the limits, for one that is bad.

        It is the level whose interval would just reach the limit, by Student's t. Of a
        skewed interval the wider side counts: how skewed it is farther out is not
        known. With two limits the level is doubled, as either could be missed by
        chance.
        """
        ((distance, side),) = self._gaps(wider=True)
        degrees = self.interval.degrees
        if side == 0 or math.isinf(distance):
            return 0.0
        errors = _quantile(self.interval.confidence, degrees) * distance / side
        found = _tail(errors, degrees)
        if math.isfinite(self.lower) and math.isfinite(self.upper):
            found *= 2
        return 1.0 if math.isnan(found) else min(1.0, found)

    def rows_needed(self, rows: int) -> int | None:
        """Return with how many rows the interval would no longer reach a limit.

        Its width shrinks with the square root of the rows, or with the rows if all of
        them agree, and the value is taken to stay.

        Args:
            rows: How many rows it was made of.

        Returns:
            The number; None if it cannot be told, or is more than a thousand times
            `rows`.
        """
        if not self.interval.is_defined:
            return None
        return self._times(rows, self._gaps())

    def rows_needed_at(self, rows: int, level: float) -> int | None:
        """Return with how many rows `level` would be at most a given one.

        Args:
            rows: How many rows the interval was made of.
            level: What is asked of a bad one.

        Returns:
            As `rows_needed`.
        """
        degrees = self.interval.degrees
        more = _quantile(1 - 2 * level, degrees) / _quantile(
            self.interval.confidence, degrees
        )
        gaps = self._gaps(wider=True)
        return self._times(rows, [(distance, side * more) for distance, side in gaps])

    def _gaps(self, *, wider: bool = False) -> list[tuple[float, float]]:
        """Return how far each limit is, and the interval's side that faces it.

        Args:
            wider: Whether to return the wider side instead.
        """
        below = self.value - self.interval.lower
        above = self.interval.upper - self.value
        if wider:
            below = above = max(below, above)
        if self.value < self.lower:
            return [(self.lower - self.value, above)]
        if self.value > self.upper:
            return [(self.value - self.upper, below)]
        gaps = [(self.value - self.lower, below), (self.upper - self.value, above)]
        return [(distance, side) for distance, side in gaps if math.isfinite(distance)]

    def _times(self, rows: int, gaps: Sequence[tuple[float, float]]) -> int | None:
        """Return the rows that shrink every side to its distance, in two digits."""
        if not all(distance for distance, _ in gaps):
            return None
        times: float = max((side / distance for distance, side in gaps), default=0.0)
        if self.interval.method != RULE_OF_THREE:
            times **= 2
        if not times <= _MOST_TIMES_THE_ROWS:
            return None
        needed = math.ceil(round(rows * times, 6))
        unit = int(10 ** max(len(str(needed)) - 2, 0))
        return -(-needed // unit) * unit


def agreeing_rows(value: float, scale: float, rows: int, confidence: float) -> Interval:
    """Return the interval of a number on which all rows agree.

    Resampling them gives an interval of no width, which is no certainty: up to
    -log((1 - confidence) / 2) of every `rows` rows may be others and just not be among
    them, the rule of three (Hanley & Lippman-Hand 1983, JAMA 249, 1743-1745).

    Args:
        value: The number.
        scale: How much the number would move if all rows were others.
        rows: How many there are.
        confidence: Of the interval.
    """
    half = scale * min(-math.log((1 - confidence) / 2) / rows, 1.0) if rows else scale
    return Interval(value - half, value + half, confidence, method=RULE_OF_THREE)


def relative(difference: float, baseline: float) -> float:
    """Return a difference as a share of the baseline.

    From a baseline of 0 every rise is infinite and every fall minus infinite; no
    difference is a change of 0. (TFMA gives NaN, which meets no bound.)
    """
    if baseline:
        return difference / baseline
    if difference == 0 or math.isnan(difference):
        return difference
    return math.copysign(math.inf, difference)


def relative_interval(difference: Interval, baseline: Interval) -> Interval:
    """Return the interval of a difference as a share of the baseline.

    All shares d / b of a d in the one interval and a b in the other: the set of
    Fieller (1954) with the standard errors of d and b added, as if they moved as one
    against us. It holds the true share at least as often as they are confident,
    however they depend on one another. If the baseline can be of either sign, the
    share can be anything.

    Args:
        difference: Of candidate minus baseline.
        baseline: Of the baseline, at the same confidence.
    """
    degrees = min(difference.degrees, baseline.degrees)
    shares = [
        relative(each, other)
        for each in (difference.lower, difference.upper)
        for other in (baseline.lower, baseline.upper)
    ]
    lower, upper = min(shares), max(shares)
    if any(map(math.isnan, shares)):
        lower = upper = math.nan
    elif baseline.lower < 0 <= baseline.upper:
        lower, upper = -math.inf, math.inf
    return Interval(lower, upper, difference.confidence, degrees)


def relative_contrast(
    difference: float,
    spread: Interval,
    baseline: float,
    around: Interval,
    lower: float,
    upper: float,
) -> Comparison:
    """Return the comparison of a relative change as one of a difference.

    d / b is compared with a bound r by the sign of d - r b, which has a standard error
    where the ratio has none. The standard errors are added, as in `relative_interval`.

    Args:
        difference: Candidate minus baseline.
        spread: Interval of the difference.
        baseline: The baseline's value.
        around: Interval of the baseline, at the same confidence.
        lower: The least relative change that is good, or minus infinity.
        upper: The most; infinity if there is a least.
    """
    share = upper if math.isinf(lower) else lower
    sign = -1.0 if baseline < 0 else 1.0
    parts = (share * around.lower, share * around.upper)
    ends = sign * (spread.lower - max(parts)), sign * (spread.upper - min(parts))
    return Comparison(
        sign * (difference - share * baseline),
        Interval(
            min(ends),
            max(ends),
            spread.confidence,
            min(spread.degrees, around.degrees),
        ),
        -math.inf if math.isinf(lower) else 0.0,
        math.inf if math.isinf(upper) else 0.0,
    )


def holm(levels: Sequence[float], rate: float) -> list[bool]:
    """Return which of many comparisons fail, by Holm's procedure.

    The chance that any of them fails although it is good is at most `rate`, however
    they depend on one another: the lowest p-value is compared with rate / n, the next
    with rate / (n - 1), until one is above (Holm 1979, Scandinavian Journal of
    Statistics 6, 65-70).

    Args:
        levels: The one-sided p-values.
        rate: The chance of a false failure among them all.
    """
    fails = [False] * len(levels)
    order = sorted(range(len(levels)), key=levels.__getitem__)
    for place, index in enumerate(order):
        if levels[index] * (len(levels) - place) > rate:
            break
        fails[index] = True
    return fails


def _quantile(confidence: float, degrees: float) -> float:
    """Return how many standard errors a side of an interval has."""
    if math.isinf(degrees):
        return statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    from scipy import special

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def _tail(errors: float, degrees: float) -> float:
    """Return how often an estimate is off by as many standard errors, to one side."""
    if math.isinf(degrees):
        return statistics.NormalDist().cdf(-errors)
    from scipy import special

    return float(special.stdtr(degrees, -errors))
