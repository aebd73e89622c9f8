"""Confidence intervals of metrics, from sums by slice and a sample of units.

Three ways, each where it is right (docs/adr/0007):

- Counts of one model: a Poisson bootstrap drawn on cells. A sum of n Poisson(1) weights
  is Poisson(n), so one draw per cell is distributed as one per row would be (Hanley &
  MacGibbon 2006; Chamandy et al. 2012). A cell of weighted rows is drawn as a scaled
  Poisson of the same mean and variance.
- All else (sums, differences of two models, clusters of rows, differences of slices):
  linearized. Each unit's influence on the metric is its contribution times the
  metric's derivatives, and the variance is the sum of squared influences (Hampel 1974;
  the infinitesimal jackknife).
- Metrics without derivatives: a Poisson bootstrap of the units themselves.

Units are rows, or clusters of rows that are not independent.
"""

from __future__ import annotations

import dataclasses
import threading
import zlib
from collections.abc import Sequence

import numpy as np

from penstock.components.evaluation.accumulate import Accumulator, Sample
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.metrics.registry import (
    GroupedForm,
    Metric,
    Part,
    State,
)
from penstock.components.evaluation.statistics import Contributions, Statistic

_GROUPS_DRAWN = 256
_GROUPS_LINEARIZED = 128
_REPLICATES_OF_UNITS = 400
_STEP = 1e-6  # of a derivative, as a share of a slice's weight


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which intervals are asked for.

    Attributes:
        confidence: Of the intervals, between 0 and 1.
        replicates: Of a bootstrap.
        seed: Of all that is drawn.
        has_clusters: Whether units are clusters.
    """

    confidence: float = 0.95
    replicates: int = 1_000
    seed: int = 0
    has_clusters: bool = False


@dataclasses.dataclass(frozen=True)
class Spread:
    """An interval around a value, or around each number of an array.

    Attributes:
        lower: Of the shape of the value.
        upper: Of the shape of the value.
        degrees: Degrees of freedom of Student's t.
        method: How it was found.
    """

    lower: Array
    upper: Array
    degrees: float
    method: str


@dataclasses.dataclass(frozen=True)
class _Grouped:
    """One part of a metric in one slice, its cells in groups.

    Attributes:
        groups: The group of every cell.
        form: What makes a state of sums of shape (..., groups, columns).
        totals: Of shape (groups, columns).
        squares: Sums of squared weights, of shape (groups,), of counts.
    """

    groups: Array
    form: GroupedForm
    totals: Array
    squares: Array


@dataclasses.dataclass(frozen=True)
class Influence:
    """What each unit of a slice adds to a metric, to first order.

    Attributes:
        units: Hashes of the units, rising.
        values: Of shape (units, numbers).
        factor: How many units of the slice each of them stands for.
    """

    units: Array
    values: Array
    factor: float

    @property
    def variance(self) -> Array:
        """The variance of the metric."""
        found: Array = self.factor * np.sum(self.values**2, axis=0)
        return found

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the variance, by Satterthwaite's approximation.

        The variance of heavy-tailed influences is known less well than that of as
        many normal ones.
        """
        count = len(self.units)
        squares = np.sum(self.values**2, axis=0)
        with np.errstate(all="ignore"):
            kurtosis = count * np.sum(self.values**4, axis=0) / squares**2
        worst = float(np.max(np.nan_to_num(kurtosis, nan=3.0)))
        return min(max(2 * count / max(worst - 1, 1e-9), 1.0), max(count - 1, 1.0))

    def covariance(self, other: Influence) -> Array:
        """Return the covariance with the metric of another slice."""
        _, mine, others = np.intersect1d(
            self.units, other.units, assume_unique=True, return_indices=True
        )
        factor = max(self.factor, other.factor)
        found: Array = factor * np.sum(self.values[mine] * other.values[others], axis=0)
        return found


class Intervals:
    """Computes the intervals of metrics, slice by slice.

    Args:
        accumulator: What was accumulated, with a sample.
        asked: Which intervals.
    """

    def __init__(self, accumulator: Accumulator, asked: Asked) -> None:
        self._accumulator = accumulator
        self._asked = asked
        self._sample = accumulator.sample()
        self._contributed: dict[Statistic, Contributions] = {}
        self._last = threading.local()  # what was drawn in a thread's last slice
        for statistic in accumulator.settings.statistics:
            accumulator.sums(statistic).all()  # merged now: threads only read
        if self._sample is not None:
            self._order = np.argsort(self._sample.slices, kind="stable")
            self._by_slice = self._sample.slices[self._order]

    def of(self, metric: Metric, number: int, value: Array) -> Spread | None:
        """Return the interval of a metric in a slice; None if there is none.

        Args:
            metric: One with `has_interval`.
            number: Of the slice.
            value: The metric's value there, of shape () or (numbers,).
        """
        if self._is_drawn(metric):
            return self._drawn(metric, number, value)
        return self._of_units([(metric, 1.0)], number, value)

    def of_difference(
        self, metric: Metric, baseline: Metric, number: int, value: Array
    ) -> Spread | None:
        """Return the interval of a metric minus the same of another model."""
        return self._of_units([(metric, 1.0), (baseline, -1.0)], number, value)

    def of_slices(
        self,
        metrics: Sequence[tuple[Metric, float]],
        number: int,
        other: int,
        value: Array,
    ) -> Spread | None:
        """Return the interval of a metric (or difference) in a slice minus another."""
        mine, others = (self._influence(metrics, each) for each in (number, other))
        if mine is None or others is None:
            return None
        variance = mine.variance + others.variance - 2 * mine.covariance(others)
        return self._student(
            value, np.maximum(variance, 0), min(mine.degrees, others.degrees)
        )

    def _is_drawn(self, metric: Metric) -> bool:
        if self._asked.has_clusters or len(metric.parts) != 1:
            return False
        statistic = metric.parts[0].statistic
        return statistic.counts and self._accumulator.sums(statistic).per_row <= 1

    def _drawn(self, metric: Metric, number: int, value: Array) -> Spread | None:
        """Draw replicates on the cells of a slice."""
        point, drawn = self._replicates(metric.parts[0], number)
        moved = metric.defined(drawn) - metric.defined(point)
        # Groups of cells shift the metric a little, replicates and point alike.
        return self._percentiles(value, moved, "Poisson bootstrap")

    def _replicates(self, part: Part, number: int) -> tuple[State, State]:
        """Return the state of a slice and of its replicates, for all its metrics."""
        last = self._last
        if getattr(last, "number", None) != number:
            last.number, last.states = number, {}
        states: dict[Part, tuple[State, State]] = last.states
        if part not in states:
            states[part] = self._draw(part, number)
        return states[part]

    def _draw(self, part: Part, number: int) -> tuple[State, State]:
        grouped = self._grouped(part, number, _GROUPS_DRAWN)
        weights, squares = grouped.totals[:, 0], grouped.squares
        filled = np.flatnonzero(squares > 0)
        scale = squares[filled] / weights[filled]
        expected = weights[filled] / scale
        random = self._random(number, part.statistic)
        drawn = np.zeros((self._asked.replicates, len(weights), 1))
        drawn[:, filled, 0] = _poisson(random, expected, self._asked.replicates) * scale
        with np.errstate(all="ignore"):
            return grouped.form(grouped.totals), grouped.form(drawn)

    def _random(self, number: int, statistic: Statistic | None) -> np.random.Generator:
        slicing, key = self._accumulator.slices[number]
        text = repr((slicing, key, statistic)).encode()
        return np.random.Generator(
            np.random.SFC64([self._asked.seed, zlib.crc32(text)])
        )

    def _percentiles(self, value: Array, moved: Array, method: str) -> Spread | None:
        """Return the interval of replicates, given as differences from the value."""
        known = ~np.isnan(moved)
        if np.any(known.mean(axis=0) < 0.5):
            return None
        tail = (1 - self._asked.confidence) / 2
        with np.errstate(all="ignore"):
            low, high = np.nanquantile(moved, [tail, 1 - tail], axis=0)
        return Spread(value + low, value + high, np.inf, method)

    def _of_units(
        self, metrics: Sequence[tuple[Metric, float]], number: int, value: Array
    ) -> Spread | None:
        if not all(metric.is_smooth for metric, _ in metrics):
            return self._of_drawn_units(metrics, number, value)
        influence = self._influence(metrics, number)
        if influence is None:
            return None
        return self._student(value, influence.variance, influence.degrees)

    def _student(self, value: Array, variance: Array, degrees: float) -> Spread | None:
        from scipy import stats

        deviation = np.sqrt(variance).reshape(np.shape(value))
        if not np.all(np.isfinite(deviation)):
            return None
        half = stats.t.ppf((1 + self._asked.confidence) / 2, degrees) * deviation
        return Spread(value - half, value + half, degrees, "linearized")

    def _influence(
        self, metrics: Sequence[tuple[Metric, float]], number: int
    ) -> Influence | None:
        """Return the influence of units on a sum of metrics, each with a sign."""
        rows = self._rows(number)
        if len(rows) < 2:
            return None
        sample = self._the_sample
        units, place = np.unique(sample.ranks[rows], return_inverse=True)
        total: Array | None = None
        for metric, sign in metrics:
            found = self._by_rows(metric, number, rows)
            if found is None:
                return None
            total = sign * found if total is None else total + sign * found
        assert total is not None
        summed = np.zeros((len(units), total.shape[1]))
        np.add.at(summed, place, total)
        return Influence(units, summed, self._factor(units, len(rows), number))

    @property
    def _the_sample(self) -> Sample:
        assert self._sample is not None, "intervals need a sample"
        return self._sample

    def _factor(self, units: Array, rows: int, number: int) -> float:
        """Return how many units each sampled one stands for."""
        if len(units) < self._accumulator.settings.sampled:
            return 1.0
        if not self._asked.has_clusters:
            return self._total_rows(number) / rows
        # Of hashes that are even in [0, 1) the m-th lowest is about m / units
        # (Bar-Yossef et al. 2002).
        share = float(units[-1]) / 2.0**64
        return max((len(units) - 1) / share / len(units), 1.0)

    def _total_rows(self, number: int) -> float:
        from penstock.components.evaluation.accumulate import ROWS

        _, sums = self._accumulator.sums(ROWS).of(number)
        return float(sums[0, 0])

    def _rows(self, number: int) -> Array:
        if self._sample is None:
            return np.zeros(0, np.int64)
        start, end = np.searchsorted(self._by_slice, [number, number + 1])
        found: Array = self._sample.rows[self._order[start:end]]
        return found

    def _by_rows(self, metric: Metric, number: int, rows: Array) -> Array | None:
        """Return the influence of sampled rows, of shape (rows, numbers)."""
        parts = [
            self._grouped(each, number, _GROUPS_LINEARIZED) for each in metric.parts
        ]
        states = [each.form(each.totals) for each in parts]
        point = np.atleast_1d(metric.defined(*states))
        total = np.zeros((len(rows), len(point)))
        for index, (part, grouped) in enumerate(zip(metric.parts, parts, strict=True)):
            slopes = self._slopes(metric, states, index, grouped, point)
            if not np.all(np.isfinite(slopes)):
                return None
            total += self._applied(part.statistic, grouped.groups, slopes, rows)
        return total

    @staticmethod
    def _slopes(
        metric: Metric,
        states: list[object],
        index: int,
        grouped: _Grouped,
        point: Array,
    ) -> Array:
        """Return derivatives in the sums, of shape (groups, columns, numbers)."""
        totals = grouped.totals
        count = totals.size
        # Each column has a scale of its own: weights, or weighted squares of errors.
        scale = np.abs(totals).sum(axis=0)
        step = np.where(scale > 0, scale, 1.0) * _STEP
        moved = np.repeat(totals[None], count, axis=0)
        every = np.arange(count)
        steps = np.broadcast_to(step, totals.shape).ravel()
        moved.reshape(count, count)[every, every] += steps
        given = list(states)
        given[index] = grouped.form(moved)
        with np.errstate(all="ignore"):
            values = metric.defined(*given).reshape(count, -1)
            slopes: Array = (values - point) / steps[:, None]
        return slopes.reshape(*totals.shape, -1)

    def _applied(
        self, statistic: Statistic, groups: Array, slopes: Array, rows: Array
    ) -> Array:
        found = self._contributions(statistic)
        numbers = slopes.shape[2]
        total = np.zeros((len(rows), numbers))
        cells = np.zeros((len(rows), 1), np.int64)
        if found.cells is not None:
            cells = groups[found.cells[rows]]
        for column, values in enumerate(found.values):
            slope = slopes[cells, column]  # (rows, per row, numbers)
            if values is None:
                total += slope.sum(axis=1)
            else:
                total += (slope * values[rows][:, :, None]).sum(axis=1)
        return total

    def _contributions(self, statistic: Statistic) -> Contributions:
        if statistic not in self._contributed:
            batch = self._the_sample.batch
            self._contributed[statistic] = statistic.contributions(batch)
        return self._contributed[statistic]

    def _grouped(self, part: Part, number: int, groups: int) -> _Grouped:
        statistic = part.statistic
        cells, sums = self._accumulator.sums(statistic).of(number)
        dense = np.zeros((statistic.cells, statistic.columns))
        dense[cells] = sums[:, : statistic.columns]
        group, form = part.form.grouped(dense, groups)
        count = int(group.max()) + 1
        totals = np.stack(
            [
                np.bincount(group[cells], weights=sums[:, column], minlength=count)
                for column in range(statistic.columns)
            ],
            axis=1,
        )
        squares = np.bincount(group[cells], weights=sums[:, -1], minlength=count)
        return _Grouped(group, form, totals, squares)

    def _of_drawn_units(
        self, metrics: Sequence[tuple[Metric, float]], number: int, value: Array
    ) -> Spread | None:
        """Draw replicates of the units of a slice."""
        rows = self._rows(number)
        if len(rows) < 2:
            return None
        units, place = np.unique(self._the_sample.ranks[rows], return_inverse=True)
        factor = self._factor(units, len(rows), number)
        random = self._random(number, None)
        drawn = random.poisson(1.0, (_REPLICATES_OF_UNITS, len(units))).astype(float)
        drawn = np.concatenate([np.ones((1, len(units))), drawn])[:, place]
        total: Array = np.zeros(1)
        for metric, sign in metrics:
            states = [
                self._of_weighted(part, number, rows, drawn) for part in metric.parts
            ]
            total = total + sign * metric.defined(*states)
        # A sample is more spread than the slice, by the square root of their sizes.
        moved = (total[1:] - total[:1]) / np.sqrt(factor)
        return self._percentiles(value, moved, "Poisson bootstrap of units")

    def _of_weighted(
        self, part: Part, number: int, rows: Array, drawn: Array
    ) -> object:
        """Return states of replicates, of weights of shape (replicates, rows)."""
        from scipy import sparse

        grouped = self._grouped(part, number, _GROUPS_DRAWN)
        found = self._contributions(part.statistic)
        groups, columns = grouped.totals.shape
        sums = np.zeros((len(drawn), groups, columns))
        cells = np.zeros((len(rows), 1), np.int64)
        if found.cells is not None:
            cells = grouped.groups[found.cells[rows]]
        for column, values in enumerate(found.values):
            taken = np.ones((len(rows), 1)) if values is None else values[rows]
            if found.cells is None:
                taken = taken.sum(axis=1, keepdims=True)
            taken = np.broadcast_to(taken, cells.shape)
            matrix = sparse.csr_matrix(
                (
                    taken.ravel(),
                    (np.repeat(np.arange(len(rows)), cells.shape[1]), cells.ravel()),
                ),
                shape=(len(rows), groups),
            )
            sums[:, :, column] = (matrix.T @ drawn.T).T
        return grouped.form(sums)


def _poisson(random: np.random.Generator, expected: Array, replicates: int) -> Array:
    """Return Poisson numbers of shape (replicates, cells).

    Few rows are drawn one by one: given their number, which is Poisson, they fall into
    cells independently. That takes half the time and is the same distribution.

    Args:
        random: What to draw from.
        expected: The mean of every cell.
        replicates: How many.
    """
    cells = len(expected)
    whole = expected.astype(np.int64)
    rows = int(whole.sum())
    if rows > 2 * cells or not np.array_equal(whole, expected):
        return random.poisson(expected, (replicates, cells))
    cell_of = np.repeat(np.arange(cells), whole)
    counts = random.poisson(rows, replicates)
    fallen = cell_of[random.integers(0, rows, int(counts.sum()))]
    fallen += np.repeat(np.arange(replicates) * cells, counts)
    return np.bincount(fallen, minlength=replicates * cells).reshape(replicates, cells)
