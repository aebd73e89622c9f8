"""Sums by slice and cell: sparse, mergeable, the same whatever the order of merging.

Only cells that rows fell into are kept, so that a histogram of 10,000 buckets costs a
slice of 100 rows no more than 100 cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.statistics import Contributions

_MOST_DENSE = 1 << 22  # cells that are counted in one array, 32 MiB
_LEAST_WAITING = 1 << 18  # places that wait before they are merged


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of one slice that are not empty.

    Attributes:
        cells: Their numbers, rising.
        sums: Of shape (cells, columns).
    """

    cells: Array
    sums: Array


@dataclasses.dataclass
class Sums:
    """Sums of a statistic over the rows of every slice of a slicing.

    Attributes:
        cells: Number of cells of the statistic.
        per_row: The most cells that one row fell into.
        is_maximum: Whether the greatest is kept instead of the sum.
    """

    cells: int
    per_row: int = 0
    is_maximum: bool = False
    _parts: list[tuple[Array, Array]] = dataclasses.field(default_factory=list)
    _waiting: int = 0

    def add(
        self, rows: Array | None, slices: Array, found: Contributions, *, squares: bool
    ) -> None:
        """Add what the rows of a batch contribute.

        Args:
            rows: Numbers of rows, one per slice that a row is in; None if every row
                is in one slice.
            slices: Slice of each of these rows, of shape (rows,), all from 0.
            found: What every row of the batch contributes.
            squares: Whether to keep sums of squares too, as a last column.
        """
        width = 1
        places = slices[:, None] * self.cells
        if found.cells is not None:
            places = places + (found.cells if rows is None else found.cells[rows])
            width = found.cells.shape[1]
        shape = places.shape
        columns: list[Array | None] = []
        for each in found.values:
            if each is None:
                columns.append(None)
                continue
            taken = each if rows is None else each[rows]
            if found.cells is None and taken.shape[1] > 1:
                width = max(width, taken.shape[1])
                taken = taken.sum(axis=1, keepdims=True)
            columns.append(np.broadcast_to(taken, shape).ravel())
        if squares:
            (only,) = columns
            columns.append(None if only is None else only * only)
        self.per_row = max(self.per_row, width)
        self._append(*self._reduced(places.ravel(), columns))

    def merge(self, other: Sums, slices: Array) -> None:
        """Add other sums; `slices` are the numbers that their slices have here."""
        self.per_row = max(self.per_row, other.per_row)
        places, values = other.all()
        if not len(places):
            return
        moved = slices[places // self.cells] * self.cells + places % self.cells
        order = np.argsort(moved, kind="stable")
        self._append(moved[order], values[order])

    def all(self) -> tuple[Array, Array]:
        """Return places, `slice * cells + cell`, rising, and their sums.

        The sums have the shape (places, columns).
        """
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros((0, 1))
        if len(self._parts) > 1:
            places = np.concatenate([each for each, _ in self._parts])
            values = np.concatenate([each for _, each in self._parts])
            columns = [values[:, column] for column in range(values.shape[1])]
            self._parts = [self._reduced(places, columns)]
        self._waiting = 0
        return self._parts[0]

    def of(self, number: int) -> tuple[Array, Array]:
        """Return the cells of one slice that are not empty, and their sums."""
        places, values = self.all()
        start, end = np.searchsorted(
            places, [number * self.cells, (number + 1) * self.cells]
        )
        return places[start:end] - number * self.cells, values[start:end]

    def filled(self, number: int) -> Cells:
        """Return the cells of one slice that are not empty."""
        return Cells(*self.of(number))

    def dense(self, first: int, last: int, columns: int) -> Array:
        """Return the sums of slices, of shape (last - first, cells, columns)."""
        places, values = self.all()
        start, end = np.searchsorted(places, [first * self.cells, last * self.cells])
        found = np.zeros(((last - first) * self.cells, columns))
        found[places[start:end] - first * self.cells] = values[start:end, :columns]
        return found.reshape(last - first, self.cells, columns)

    def _reduced(
        self, places: Array, columns: Sequence[Array | None]
    ) -> tuple[Array, Array]:
        return (_greatest if self.is_maximum else _summed)(places, columns)

    def _append(self, places: Array, values: Array) -> None:
        self._parts.append((places, values))
        # Merged when as much waits as is merged, so that each place moves a few times
        # at most, however many batches there are.
        self._waiting += len(places)
        if self._waiting > max(_LEAST_WAITING, len(self._parts[0][0])):
            self.all()


def _greatest(places: Array, columns: Sequence[Array | None]) -> tuple[Array, Array]:
    """Return places without repetition, rising, and the greatest of each column."""
    order = np.argsort(places, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    values = [np.ones(len(order)) if each is None else each[order] for each in columns]
    return places[starts], np.maximum.reduceat(np.stack(values, axis=1), starts)


def _summed(places: Array, columns: Sequence[Array | None]) -> tuple[Array, Array]:
    """Return places without repetition, rising, and the sums of each column."""
    if len(places) == 0:
        return np.zeros(0, np.int64), np.zeros((0, len(columns)))
    size = int(places.max()) + 1
    if size <= min(_MOST_DENSE, 32 * len(places) + 65_536):
        counts = np.bincount(places, minlength=size)
        kept = np.flatnonzero(counts)
        counts = counts[kept]
        sums = [
            counts
            if each is None
            else np.bincount(places, weights=each, minlength=size)[kept]
            for each in columns
        ]
        return kept, np.stack(sums, axis=1).astype(np.float64)
    kept, inverse, counts = np.unique(places, return_inverse=True, return_counts=True)
    sums = [
        counts
        if each is None
        else np.bincount(inverse, weights=each, minlength=len(kept))
        for each in columns
    ]
    return kept, np.stack(sums, axis=1).astype(np.float64)
