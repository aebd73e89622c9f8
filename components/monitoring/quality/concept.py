"""Detectors of concept drift: on errors or losses of rows in the order of their labels.

Each as its paper has it, over many values at once where the paper's recursion has a
closed form between two drifts, and with a state that is plain data, so that the next
window goes on where the last one ended.

- DDM: Gama, Medas, Castillo & Rodrigues 2004, SBIA, 286-295.
- EDDM: Baena-García, del Campo-Ávila, Fidalgo, Bifet, Gavaldà & Morales-Bueno,
  Workshop on Knowledge Discovery from Data Streams 2006, 77-86.
- ADWIN2: Bifet & Gavaldà 2007, SIAM Data Mining, 443-448.
- Page-Hinkley: Page 1954, Biometrika 41, 100-115, as Gama, Sebastião & Rodrigues 2013,
  Machine Learning 90, 317-346, write it.
- CUSUM: Page 1954, with the run length of Siegmund 1985, Sequential Analysis.

DDM and EDDM raise false alarms the more often the longer they look, for their
thresholds are those of one look. CUSUM is designed for a run length, and ADWIN bounds
its false alarms. docs/quality-over-time.md has figures.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np

from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"
Level = Literal["ok", "warning", "drift"]

_FIRST_CHUNK, _MOST_CHUNK = 1 << 10, 1 << 18  # values looked at at once


@dataclasses.dataclass(frozen=True)
class Signals:
    """What a detector says of values, by their number, from 0.

    Attributes:
        warnings: Where it warns and does not see drift.
        drifts: Where it sees drift, after which it begins anew.
        level: What it says after the last value; `drift` if it saw one among them.
    """

    warnings: tuple[int, ...]
    drifts: tuple[int, ...]
    level: Level


class Detector(Protocol):
    """Looks at one value after another."""

    NAME: ClassVar[str]

    def update(self, values: Array) -> Signals:
        """Look at values.

        Args:
            values: Of shape (values,), finite; errors are 0 or 1 where it says so.
        """

    def state(self) -> dict[str, Any]:
        """Return what is remembered, as JSON has it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class _Sequential(abc.ABC):
    """What looks at values between two drifts at once.

    Derived classes say in `_segment` what they see up to the first drift, and remember
    what they need to go on.
    """

    NAME: ClassVar[str]
    IS_BINARY: ClassVar[bool] = False
    _MEMORY: ClassVar[Mapping[str, float]]

    def __init__(self) -> None:
        self._memory: dict[str, float] = dict(self._MEMORY)
        self._level: Level = "ok"

    def update(self, values: Array) -> Signals:
        """Look at values.

        Args:
            values: Of shape (values,), finite.

        Raises:
            DataError: If one is not finite, or neither 0 nor 1 for who takes errors.
        """
        found = _checked(values, self.NAME, is_binary=self.IS_BINARY)
        warnings: list[int] = []
        drifts: list[int] = []
        first, size = 0, _FIRST_CHUNK
        while first < len(found):
            # A drift makes the rest of a chunk be looked at again, so the first is
            # short.
            chunk = found[first : first + size]
            warned, drift = self._segment(chunk)
            warnings += [first + int(place) for place in np.flatnonzero(warned)]
            if drift is None:
                self._level = "warning" if warned[-1] else "ok"
                first, size = first + len(chunk), min(2 * size, _MOST_CHUNK)
                continue
            drifts.append(first + drift)
            first, size = first + drift + 1, _FIRST_CHUNK
            self._memory, self._level = dict(self._MEMORY), "ok"
        return Signals(
            tuple(warnings), tuple(drifts), "drift" if drifts else self._level
        )

    @abc.abstractmethod
    def _segment(self, values: Array) -> tuple[Array, int | None]:
        """Return where it warns, and the first drift, after which nothing counts."""

    def state(self) -> dict[str, Any]:
        """Return what is remembered, as JSON has it."""
        memory = {
            name: None if not math.isfinite(value) else value
            for name, value in self._memory.items()
        }
        return {"detector": self.NAME, "level": self._level, **memory}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            DataError: If it is one of another detector.
        """
        _check_state(state, self.NAME, {*self._MEMORY, "level"})
        self._level = state["level"]
        self._memory = {
            name: default if state[name] is None else float(state[name])
            for name, default in self._MEMORY.items()
        }


def _checked(values: Array, name: str, *, is_binary: bool) -> Array:
    found = np.asarray(values, np.float64)
    if not np.isfinite(found).all():
        first = int(np.argmin(np.isfinite(found)))
        raise DataError(
            f"{name} got {found[first]} as value {first:,}, which is no number to look "
            "at. Leave such rows out."
        )
    if is_binary and not ((found == 0) | (found == 1)).all():
        first = int(np.argmin((found == 0) | (found == 1)))
        raise DataError(
            f"{name} looks at errors, 1 for wrong and 0 for right, and got "
            f"{found[first]:g} as value {first:,}. Give whether predictions were wrong."
        )
    return found


def _check_state(state: Mapping[str, Any], name: str, keys: set[str]) -> None:
    if state.get("detector") != name or not keys <= state.keys():
        raise DataError(
            f"A state of detector {state.get('detector')!r} was given to {name}. Give "
            f"what {name}.state() returned."
        )


class DDM(_Sequential):
    """Warns when the error rate is 2 standard deviations above its least, drift at 3.

    The least is that of rate plus standard deviation, after `least` rows.

    Args:
        warning: Standard deviations of a warning.
        drift: Of a drift.
        least: Rows before anything is said.
    """

    NAME = "DDM"
    IS_BINARY = True
    _MEMORY = {"rows": 0, "errors": 0, "rate": math.inf, "deviation": math.inf}

    def __init__(
        self, *, warning: float = 2.0, drift: float = 3.0, least: int = 30
    ) -> None:
        super().__init__()
        self._factors, self._least = (warning, drift), least

    def _segment(self, values: Array) -> tuple[Array, int | None]:
        memory = self._memory
        count = memory["rows"] + np.arange(1, len(values) + 1)
        rate = (memory["errors"] + np.cumsum(values)) / count
        deviation = np.sqrt(rate * (1 - rate) / count)
        counts = count >= self._least
        height = np.where(counts, rate + deviation, np.inf)
        before = memory["rate"] + memory["deviation"]
        least = np.minimum.accumulate(np.minimum(height, before))
        # Where the least was reached last, or the memory's if nothing is below.
        renewed = height < np.concatenate([[before], least[:-1]])
        renewed &= np.isfinite(height)
        place = np.maximum.accumulate(np.where(renewed, np.arange(len(values)), -1))
        least_rate = np.where(place >= 0, rate[place], memory["rate"])
        least_deviation = np.where(place >= 0, deviation[place], memory["deviation"])
        over = [
            counts
            & (rate + deviation >= least_rate + times * least_deviation)
            # An error rate that never varied is at its least and above it at once.
            & (rate + deviation > least)
            for times in self._factors
        ]
        drift = int(np.argmax(over[1])) if over[1].any() else None
        end = len(values) if drift is None else drift
        if drift is None and len(values):
            self._memory = {
                "rows": float(count[-1]),
                "errors": float(memory["errors"] + values.sum()),
                "rate": float(least_rate[-1]),
                "deviation": float(least_deviation[-1]),
            }
        return over[0][:end], drift


class EDDM(_Sequential):
    """Warns when errors come closer together than they did: at 95 %, drift at 90 %.

    Of the mean distance between errors plus 2 standard deviations, compared with its
    greatest, after `least` errors.

    Args:
        warning: Ratio of a warning.
        drift: Of a drift.
        least: Errors before anything is said.
    """

    NAME = "EDDM"
    IS_BINARY = True
    _MEMORY = {
        "rows": 0,
        "errors": 0,
        "last": 0,
        "sum": 0,
        "squares": 0,
        "greatest": 0,
    }

    def __init__(
        self, *, warning: float = 0.95, drift: float = 0.90, least: int = 30
    ) -> None:
        super().__init__()
        self._ratios, self._least = (warning, drift), least

    def _segment(self, values: Array) -> tuple[Array, int | None]:
        memory = self._memory
        at = np.flatnonzero(values == 1)
        rows = memory["rows"] + at + 1
        distance = np.diff(np.concatenate([[memory["last"]], rows]))
        count = memory["errors"] + np.arange(1, len(at) + 1)
        total = memory["sum"] + np.cumsum(distance)
        squares = memory["squares"] + np.cumsum(distance**2)
        mean = total / count
        height = mean + 2 * np.sqrt(np.maximum(squares / count - mean**2, 0))
        counts = count >= self._least
        greatest = np.maximum.accumulate(np.where(counts, height, -np.inf))
        greatest = np.maximum(greatest, memory["greatest"])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(counts, height / greatest, 1.0)
        warned = ratio < self._ratios[0]
        over = ratio < self._ratios[1]
        first = int(np.argmax(over)) if over.any() else None
        drift = None if first is None else int(at[first])
        # Between two errors nothing changes, and a warning stands.
        level = np.zeros(len(values), bool)
        reach = np.cumsum(values == 1) - 1
        level = np.where(
            reach >= 0, warned[reach] if len(at) else False, self._level == "warning"
        )
        if drift is None and len(values):
            self._memory = {
                "rows": memory["rows"] + len(values),
                "errors": float(count[-1]) if len(at) else memory["errors"],
                "last": float(rows[-1]) if len(at) else memory["last"],
                "sum": float(total[-1]) if len(at) else memory["sum"],
                "squares": float(squares[-1]) if len(at) else memory["squares"],
                "greatest": float(greatest[-1]) if len(at) else memory["greatest"],
            }
        return level[: len(values) if drift is None else drift], drift


class PageHinkley(_Sequential):
    """Sees drift when values rise above their own mean, summed up, by a threshold.

    m_t = sum of (x_i - mean_i - tolerance); drift when m_t - min m > threshold.

    Args:
        tolerance: Rise that is of no interest, in the unit of the values.
        threshold: Of the sum.
        least: Values before anything is said.
    """

    NAME = "Page-Hinkley"
    _MEMORY = {"rows": 0, "sum": 0, "height": 0, "least": math.inf}

    def __init__(
        self, *, tolerance: float = 0.005, threshold: float = 50.0, least: int = 30
    ) -> None:
        super().__init__()
        self._tolerance, self._threshold, self._least = tolerance, threshold, least

    def _segment(self, values: Array) -> tuple[Array, int | None]:
        memory = self._memory
        count = memory["rows"] + np.arange(1, len(values) + 1)
        total = memory["sum"] + np.cumsum(values)
        height = memory["height"] + np.cumsum(values - total / count - self._tolerance)
        least = np.minimum(np.minimum.accumulate(height), memory["least"])
        over = (count >= self._least) & (height - least > self._threshold)
        drift = int(np.argmax(over)) if over.any() else None
        if drift is None and len(values):
            self._memory = {
                "rows": float(count[-1]),
                "sum": float(total[-1]),
                "height": float(height[-1]),
                "least": float(least[-1]),
            }
        return np.zeros(len(values) if drift is None else drift, bool), drift


class CUSUM(_Sequential):
    """Sees drift when values are above a known mean, summed up, by a threshold.

    g_t = max(0, g + (x_t - mean) / deviation - allowance); drift when g_t > threshold.

    Args:
        mean: Of the values when all is well.
        deviation: Standard deviation of them.
        allowance: Half of the rise to be found soonest, in standard deviations.
        threshold: Of the sum, in standard deviations.
    """

    NAME = "CUSUM"
    _MEMORY = {"height": 0}

    def __init__(
        self,
        *,
        mean: float,
        deviation: float,
        allowance: float = 0.05,
        threshold: float = 50.0,
    ) -> None:
        super().__init__()
        if not deviation > 0:
            raise PipelineError(
                f"CUSUM.deviation is {deviation}; it measures how far values are from "
                "their mean. Give one above 0, or leave out values that do not vary."
            )
        self._mean, self._deviation = mean, deviation
        self._allowance, self.threshold = allowance, threshold

    @classmethod
    def for_run_length(
        cls, run_length: float, *, mean: float, deviation: float, allowance: float
    ) -> CUSUM:
        """Return one that sees drift once in so many values on average without any.

        By Siegmund's approximation of the run length without a change,
        (exp(2 k b) - 2 k b - 1) / (2 k^2) with b = threshold + 1.166.

        Args:
            run_length: Values between false drifts.
            mean: As of the class, as the others.
            deviation: Likewise.
            allowance: Likewise, above 0.
        """
        threshold = _least_where(
            lambda each: cls._run_length(each, allowance, 2 * allowance) >= run_length
        )
        return cls(
            mean=mean, deviation=deviation, allowance=allowance, threshold=threshold
        )

    @classmethod
    def for_errors(cls, run_length: float, *, rate: float, allowance: float) -> CUSUM:
        """Return one for errors, 0 or 1, with a run length.

        Rare errors are skewed, and their sums climb farther than normal ones: the
        factor 2 k of Siegmund's exponent becomes the t above 0 for which a step z - k
        has E exp(t (z - k)) = 1, and the formula (exp(t b) - t b - 1) / (t k).

        Args:
            run_length: Errors and successes between false drifts.
            rate: Error rate when all is well, above 0 and below 1.
            allowance: As of the class, above 0.
        """
        deviation = math.sqrt(rate * (1 - rate))
        up, down = (1 - rate) / deviation - allowance, -rate / deviation - allowance

        def is_above(tilt: float) -> bool:
            return rate * math.exp(tilt * up) + (1 - rate) * math.exp(tilt * down) >= 1

        tilt = _least_where(is_above, low=1e-9, high=600 / up)
        threshold = _least_where(
            lambda each: cls._run_length(each, allowance, tilt) >= run_length
        )
        return cls(
            mean=rate, deviation=deviation, allowance=allowance, threshold=threshold
        )

    @staticmethod
    def _run_length(threshold: float, allowance: float, tilt: float) -> float:
        exponent = tilt * (threshold + 1.166)
        if exponent > 700:
            return math.inf
        return (math.exp(exponent) - exponent - 1) / (tilt * allowance)

    def _segment(self, values: Array) -> tuple[Array, int | None]:
        steps = (values - self._mean) / self._deviation - self._allowance
        walk = self._memory["height"] + np.cumsum(steps)
        height = walk - np.minimum(np.minimum.accumulate(walk), 0.0)
        over = height > self.threshold
        drift = int(np.argmax(over)) if over.any() else None
        if drift is None and len(values):
            self._memory = {"height": float(height[-1])}
        return np.zeros(len(values) if drift is None else drift, bool), drift


def _least_where(
    holds: Callable[[float], bool], *, low: float = 0.0, high: float = 1e6
) -> float:
    """Return the least number from which on something holds, by halving."""
    for _ in range(200):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


class ADWIN:
    """Keeps the longest window whose parts have one mean; drift is when it shrinks.

    ADWIN2: buckets of 1, 2, 4, ... values, at most `buckets` of a size; the window is
    cut wherever two parts differ by more than a bound that holds with confidence
    1 - delta, with the variance of the window, delta' = delta / ln(n).

    Args:
        delta: The chance of a false cut.
        buckets: Most buckets of a size, the paper's M.
        every: Values between two looks at the cuts; the paper looks at every one.
        least: Values that a part needs.
    """

    NAME: ClassVar[str] = "ADWIN"

    def __init__(
        self, *, delta: float = 0.002, buckets: int = 5, every: int = 32, least: int = 5
    ) -> None:
        self._delta, self._most, self._every = delta, buckets, every
        self._least = least
        self._rows = 0
        self._level: Level = "ok"
        # By size, the smallest first; in each the oldest first: sum, and sum of squared
        # differences from the mean.
        self._sizes: list[list[tuple[float, float]]] = []

    def update(self, values: Array) -> Signals:
        """Look at values.

        Args:
            values: Of shape (values,), finite.

        Raises:
            DataError: If one is not finite.
        """
        drifts = []
        for place, value in enumerate(
            _checked(values, self.NAME, is_binary=False).tolist()
        ):
            self._add(value)
            self._rows += 1
            if self._rows % self._every == 0 and self._shrinks():
                drifts.append(place)
        # It goes on by itself after a drift, and has no warnings.
        return Signals((), tuple(drifts), "drift" if drifts else "ok")

    @property
    def width(self) -> int:
        """How many values the window has."""
        return sum(len(each) << size for size, each in enumerate(self._sizes))

    @property
    def mean(self) -> float:
        """Mean of the window; NaN if it is empty."""
        total = sum(bucket[0] for each in self._sizes for bucket in each)
        return total / self.width if self.width else math.nan

    def _add(self, value: float) -> None:
        carried: tuple[float, float] | None = (value, 0.0)
        size = 0
        while carried is not None:
            if size == len(self._sizes):
                self._sizes.append([])
            buckets = self._sizes[size]
            buckets.append(carried)
            carried = None
            if len(buckets) > self._most:
                (one, around), (two, beside) = buckets.pop(0), buckets.pop(0)
                count = 1 << size
                between = (one - two) ** 2 / (2 * count)
                carried = one + two, around + beside + between
            size += 1

    def _shrinks(self) -> bool:
        """Drop the oldest buckets while two parts differ; return whether any was."""
        is_cut = False
        while self._is_cut():
            is_cut = True
            oldest = max(size for size, each in enumerate(self._sizes) if each)
            self._sizes[oldest].pop(0)
            while self._sizes and not self._sizes[-1]:
                self._sizes.pop()
        return is_cut

    def _is_cut(self) -> bool:
        # The oldest first.
        found = [
            (1 << size, *bucket)
            for size in reversed(range(len(self._sizes)))
            for bucket in self._sizes[size]
        ]
        if len(found) < 2:
            return False
        counts, sums, squares = np.array(found, np.float64).T
        width, total = counts.sum(), sums.sum()
        if width <= 2 * self._least:
            return False
        mean = total / width
        variance = (squares + counts * (sums / counts - mean) ** 2).sum() / width
        old, old_sum = np.cumsum(counts)[:-1], np.cumsum(sums)[:-1]
        new = width - old
        legal = (old >= self._least) & (new >= self._least)
        difference = np.abs(old_sum / old - (total - old_sum) / new)
        harmonic = 1 / (1 / old + 1 / new)
        log = math.log(2 * math.log(width) / self._delta)
        bound = np.sqrt(2 / harmonic * variance * log) + 2 / (3 * harmonic) * log
        return bool((legal & (difference > bound)).any())

    def state(self) -> dict[str, Any]:
        """Return what is remembered, as JSON has it."""
        return {
            "detector": self.NAME,
            "rows": self._rows,
            "sizes": [[list(bucket) for bucket in each] for each in self._sizes],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            DataError: If it is one of another detector.
        """
        _check_state(state, self.NAME, {"rows", "sizes"})
        self._rows = int(state["rows"])
        self._sizes = [
            [(float(total), float(around)) for total, around in each]
            for each in state["sizes"]
        ]


NAMES = ("ADWIN", "CUSUM", "DDM", "EDDM", "Page-Hinkley")
"""Detectors by name, as `detector` makes them."""


def check_names(names: tuple[str, ...], subject: str) -> None:
    """Check that there are detectors of names.

    Raises:
        PipelineError: If there is none of one.
    """
    for name in names:
        if name not in NAMES:
            raise PipelineError(
                f"{subject} has '{name}', and there is no such detector (they are "
                f"{quoted(NAMES)}).{did_you_mean(name, NAMES)} Name one of them."
            )


def detector(name: str, *, rate: float, run_length: float) -> Detector:
    """Return a detector for errors, 0 or 1.

    Args:
        name: One of `NAMES`.
        rate: Error rate when all is well, for CUSUM.
        run_length: Rows between its false drifts, likewise.
    """
    if name == CUSUM.NAME:
        # A reference without errors, or without anything else, says little of how rare.
        known = min(max(rate, 1e-4), 1 - 1e-4)
        return CUSUM.for_errors(run_length, rate=known, allowance=0.05)
    made: dict[str, Detector] = {
        DDM.NAME: DDM(),
        EDDM.NAME: EDDM(),
        PageHinkley.NAME: PageHinkley(),
        ADWIN.NAME: ADWIN(),
    }
    return made[name]
