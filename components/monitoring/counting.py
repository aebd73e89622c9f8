"""Counting one column, batch after batch: what becomes its profile in the end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.splits import mixed
from penstock.components.monitoring import names
from penstock.components.monitoring.distinct import Distinct, raise_registers
from penstock.components.monitoring.grid import ColumnGrid
from penstock.components.monitoring.places import Search
from penstock.components.monitoring.profile import ColumnProfile, usual_or_not
from penstock.components.monitoring.values import (
    Column,
    hashes,
    name_counts,
    numbers,
    type_name,
)

Floats = npt.NDArray[np.float64]

BLOCK = 32_768
"""Values that are worked on at once: as many as the processor's cache holds."""

_SEED = np.uint64(0x2545F4914F6CDD1D)
_MOST_PENDING = 8 * names.MOST_NAMES


class ExactSum:
    """A sum of floats without rounding, so that their order does not matter.

    Attributes:
        parts: Floats that do not overlap and add up to it (Shewchuk 1997, Discrete &
            Computational Geometry 18, 305-363).
    """

    def __init__(self) -> None:
        self.parts: list[float] = []

    def add(self, value: float) -> None:
        """Add a number."""
        kept = []
        for part in self.parts:
            if abs(value) < abs(part):
                value, part = part, value
            total = value + part
            if math.isfinite(total):
                rest = part - (total - value)
                if rest:
                    kept.append(rest)
            value = total
        self.parts = [*kept, value] if math.isfinite(value) else [value]

    def value(self) -> float:
        """Return it, rounded once."""
        return math.fsum(self.parts) + 0.0  # -0.0 is 0.0


class ColumnCounter:
    """The counts of one column so far; mergeable, and small to send.

    The grid is given with each batch and not kept: there are many counters on the way
    and one grid.
    """

    def __init__(self, grid: ColumnGrid) -> None:
        self.rows = self.missing = self.values = 0
        self.nan = self.pos_inf = self.neg_inf = self.zeros = self.mistyped = 0
        self.counts = np.zeros(grid.places, np.int64)
        self.unseen = names.Unseen()
        self.sum, self.sum_squares = ExactSum(), ExactSum()
        self.minimum = self.maximum = math.nan
        self.registers = Distinct.empty().registers
        self.types: set[str] = set()

    def add(self, grid: ColumnGrid, column: Column) -> None:
        """Count the values of a batch."""
        self.rows += column.rows
        self.missing += column.missing
        self.values += len(column.values)
        self.types.add(type_name(column.type))
        if not len(column.values):
            return
        if grid.kind == "category":
            self._add_names(grid, column.values)
        elif column.is_number or pa.types.is_boolean(column.values.type):
            self._add_blocks(grid, numbers(column.values), column.is_short)
        else:
            self.mistyped += len(column.values)

    def _add_blocks(
        self, grid: ColumnGrid, found: npt.NDArray[Any], is_short: bool
    ) -> None:
        """Count numbers in the precision that they and the reference both have."""
        search = grid.search
        if is_short and not grid.is_short:
            search = grid.short_search
        rounded = grid.is_short and not is_short
        for start in range(0, len(found), BLOCK):
            block = found[start : start + BLOCK]
            if rounded:
                with np.errstate(over="ignore"):
                    block = block.astype(np.float32)
            self._add_numbers(grid, search, block.astype(np.float64))

    def _add_numbers(self, grid: ColumnGrid, search: Search, values: Floats) -> None:
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            nan = np.isnan(values)
            self.nan += int(np.count_nonzero(nan))
            self.pos_inf += int(np.count_nonzero(values == np.inf))
            self.neg_inf += int(np.count_nonzero(values == -np.inf))
            values = values[np.isfinite(values)]
            if not len(values):
                return
            low, high = float(values.min()), float(values.max())
        # Of -0.0 and 0.0, which are equal, either could be found: it is always 0.0.
        self.minimum = float(np.fmin(self.minimum, low + 0.0))
        self.maximum = float(np.fmax(self.maximum, high + 0.0))
        self.zeros += int(np.count_nonzero(values == 0.0))
        self.counts += search.counts(values)
        raise_registers(self.registers, number_hashes(values))
        # Squares of numbers near the largest float are infinite, and said to be.
        with np.errstate(over="ignore", invalid="ignore"):
            values -= grid.center
            self.sum.add(float(values.sum()))
            values *= values
            self.sum_squares.add(float(values.sum()))

    def _add_names(self, grid: ColumnGrid, values: pa.Array) -> None:
        texts, counts, nan = name_counts(values)
        self.nan += nan
        found = hashes(texts)
        raise_registers(self.registers, found)
        place = pc.index_in(texts, value_set=grid.category_array)
        place = place.fill_null(-1).to_numpy()
        known = place >= 0
        self.counts[place[known]] += counts[known]
        if known.all():
            return
        other = ~known
        if not grid.is_open:
            other &= np.isin(found, grid.others)
        self.counts[-1] += counts[other].sum()
        fresh = np.flatnonzero(~known & ~other)
        if len(fresh):
            self._add_unseen(_unseen(texts, counts, fresh))

    def _add_unseen(self, more: names.Unseen) -> None:
        self.unseen = names.together(self.unseen, more)
        if len(self.unseen.counts) > _MOST_PENDING:
            self.unseen = names.bounded(self.unseen)

    def merge(self, other: ColumnCounter) -> None:
        """Add what another counter has counted on the same grid."""
        for name in ("rows", "missing", "values", "nan", "pos_inf", "neg_inf"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.zeros += other.zeros
        self.mistyped += other.mistyped
        self.counts = self.counts + other.counts
        self._add_unseen(other.unseen)
        for mine, theirs in (
            (self.sum, other.sum),
            (self.sum_squares, other.sum_squares),
        ):
            for part in theirs.parts:
                mine.add(part)
        self.minimum = float(np.fmin(self.minimum, other.minimum))
        self.maximum = float(np.fmax(self.maximum, other.maximum))
        self.registers = np.maximum(self.registers, other.registers)
        self.types |= other.types

    def profile(self, grid: ColumnGrid) -> ColumnProfile:
        """Return what was counted."""
        unseen = names.bounded(self.unseen)
        return ColumnProfile(
            grid,
            self.rows,
            self.missing,
            self.values,
            self.counts,
            self.nan,
            self.pos_inf,
            self.neg_inf,
            self.zeros,
            self.mistyped,
            unseen.counts,
            unseen.other,
            unseen.error,
            self.sum.value(),
            self.sum_squares.value(),
            self.minimum,
            self.maximum,
            Distinct(self.registers),
            usual_or_not(self.types, grid.type),
        )


def _unseen(
    texts: pa.StringArray,
    counts: npt.NDArray[np.int64],
    fresh: npt.NDArray[np.int64],
) -> names.Unseen:
    """Return the counts of some names, bounded before they become Python's.

    As `names.bounded` does, with more names: nearly all of a million drop out here.
    """
    total = counts[fresh]
    taken = 0
    if len(fresh) > _MOST_PENDING:
        taken = int(np.partition(total, -_MOST_PENDING - 1)[-_MOST_PENDING - 1])
        fresh = fresh[total > taken]
    kept = counts[fresh] - taken
    named = texts.take(pa.array(fresh)).to_pylist()
    other = int(total.sum()) - int(kept.sum())
    return names.Unseen(dict(zip(named, kept.tolist(), strict=True)), other, taken)


def number_hashes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Return a well mixed 64-bit hash of each number, the same on every machine."""
    # Negative zero becomes zero, which it equals.
    bits = (values.astype(np.float64, copy=False) + 0.0).view(np.uint64)
    bits ^= _SEED
    return mixed(bits)
