"""Making profiles: rows counted on a reference grid, column by column."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components.monitoring.counting import ColumnCounter
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.slices import Slicer
from penstock.components.monitoring.values import (
    as_table,
    column_of,
    name_counts,
    numbers,
)
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError, did_you_mean, quoted

WORTH_A_THREAD = 1_000_000
"""Values of a batch from which on its columns are counted by several threads."""


@dataclasses.dataclass(frozen=True)
class Logged:
    """What rows do not say themselves about where they come from.

    Attributes:
        window: When they were logged.
        model: Name of the model.
        version: Version of the model that all of them are of; "" if not known.
        version_column: The column that says it, if rows of several may come.
        rate: The share of the traffic that they are.
    """

    window: Window
    model: str = ""
    version: str = ""
    version_column: str | None = None
    rate: float = 1.0


class Profiler:
    """Counts batches of rows of one window; may be sent to workers and merged."""

    def __init__(self, grid: Grid, slicer: Slicer | None = None) -> None:
        self.slicer = slicer
        self.slices: dict[str, Profiler] = {}
        self.rows = 0
        self.versions: dict[str, int] = {}
        self.counters = {column.name: ColumnCounter(column) for column in grid}

    def add(
        self,
        grid: Grid,
        batch: pa.RecordBatch | pa.Table,
        *,
        version_column: str | None = None,
        threads: int = 1,
    ) -> None:
        """Count the rows of a batch.

        Args:
            grid: The grid it was made with.
            batch: Rows. A column of the grid that it does not have is missing in every
                row; columns that the grid does not have are left out.
            version_column: The column that says the version of the model.
            threads: How many columns are counted at once.

        Raises:
            DataError: If the version's column is not there, or a column has parts but
                no values.
        """
        here = set(batch.schema.names)
        if version_column is not None and batch.num_rows:
            if version_column not in here:
                raise DataError(
                    f"The version of the model is to be read from column "
                    f"'{version_column}', which the rows do not have (they have "
                    f"{quoted(here)}).{did_you_mean(version_column, here)}"
                )
            self._add_versions(batch.column(version_column), version_column)
        self.rows += batch.num_rows

        def count(column: ColumnGrid) -> None:
            array = (
                batch.column(column.name)
                if column.name in here
                else pa.nulls(batch.num_rows)
            )
            self.counters[column.name].add(column, column_of(array, column.name))

        if threads > 1 and batch.num_rows * len(grid) >= WORTH_A_THREAD:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(count, grid))
        else:
            for column in grid:
                count(column)
        if self.slicer is not None:
            for name, rows in self.slicer.parts(batch):
                self._slice(grid, name).add(
                    grid, rows, version_column=version_column, threads=threads
                )

    def _slice(self, grid: Grid, name: str) -> Profiler:
        if name not in self.slices:
            self.slices[name] = Profiler(grid)
        return self.slices[name]

    def _add_versions(self, values: Any, name: str) -> None:
        column = column_of(values, name)
        texts, counts, nan = name_counts(column.values)
        for version, rows in zip(texts.to_pylist(), counts.tolist(), strict=True):
            self.versions[version] = self.versions.get(version, 0) + rows
        if unknown := column.missing + nan:
            self.versions[""] = self.versions.get("", 0) + unknown

    def merge(self, other: Profiler, grid: Grid) -> None:
        """Add what another profiler has counted on the same grid."""
        self.rows += other.rows
        for version, rows in other.versions.items():
            self.versions[version] = self.versions.get(version, 0) + rows
        for name, counter in other.counters.items():
            self.counters[name].merge(counter)
        for name, each in other.slices.items():
            self._slice(grid, name).merge(each, grid)

    def profile(self, grid: Grid, logged: Logged) -> Profile:
        """Return the profile of all rows so far.

        Raises:
            DataError: If there were none.
        """
        if not self.rows:
            raise DataError(
                f"Window '{logged.window.name}' has no rows, so there is nothing to "
                "profile. Check that its log was written, or give a longer window."
            )
        versions = {logged.version: self.rows} if logged.version else self.versions
        columns = {each.name: self.counters[each.name].profile(each) for each in grid}
        return Profile(
            logged.window,
            logged.model,
            versions,
            self.rows,
            grid,
            columns,
            logged.rate,
            {name: each.profile(grid, logged) for name, each in self.slices.items()},
        )


def profile_table(
    grid: Grid,
    table: pa.Table | pa.RecordBatch | Mapping[str, Any],
    window: Window,
    *,
    model: str = "",
    version: str = "",
    version_column: str | None = None,
    rate: float = 1.0,
    threads: int | None = None,
    slicer: Slicer | None = None,
) -> Profile:
    """Profile the rows of a window.

    A column of the grid that the table does not have is missing in every row; columns
    that the grid does not have are left out.

    Args:
        grid: The reference grid.
        table: The rows, as Arrow or as arrays by name.
        window: When they were logged.
        model: Name of the model.
        version: Version of the model that all rows are of; "" if not known.
        version_column: The column that says it instead.
        rate: The share of the traffic that the rows are.
        threads: How many columns to count at once; one per processor if None.
        slicer: Of the slices to profile, too.

    Raises:
        DataError: If there are no rows, the version's column is not there, or a
            column has parts but no values.
    """
    return profile_batches(
        grid,
        [as_table(table)],
        window,
        model=model,
        version=version,
        version_column=version_column,
        rate=rate,
        threads=threads,
        slicer=slicer,
    )


def profile_batches(
    grid: Grid,
    batches: Iterable[pa.RecordBatch | pa.Table],
    window: Window,
    *,
    model: str = "",
    version: str = "",
    version_column: str | None = None,
    rate: float = 1.0,
    threads: int | None = None,
    slicer: Slicer | None = None,
) -> Profile:
    """Profile the rows of a window, batch after batch; see `profile_table`."""
    profiler = Profiler(grid, slicer)
    for batch in batches:
        profiler.add(
            grid,
            batch,
            version_column=version_column,
            threads=processors() if threads is None else threads,
        )
    logged = Logged(window, model, version, version_column, rate)
    return profiler.profile(grid, logged)


def profile_windows(
    grid: Grid,
    batches: Iterable[pa.RecordBatch | pa.Table],
    time_column: str,
    *,
    seconds: float = DAY,
    model: str = "",
    version: str = "",
    version_column: str | None = None,
    rate: float = 1.0,
    slicer: Slicer | None = None,
) -> tuple[Profile, ...]:
    """Profile rows by the windows that their times fall in.

    All windows are counted at once, as their rows may come in any order: 35 kB of
    memory for each numeric column and window, and as much for each slice. Give years
    in parts.

    Args:
        grid: The reference grid.
        batches: The rows, in any order.
        time_column: When each was logged: a timestamp, or seconds since 1970 UTC.
        seconds: Length of a window; they begin at its multiples since 1970 UTC.
        model: Name of the model.
        version: Version of the model that all rows are of; "" if not known.
        version_column: The column that says it instead.
        rate: The share of the traffic that the rows are.
        slicer: Of the slices to profile, too.

    Returns:
        The profiles of the windows that have rows, in their order.

    Raises:
        DataError: If there are no rows, or a time is missing or no time.
    """
    profilers: dict[int, Profiler] = {}
    for batch in batches:
        for number, rows in by_window(batch, time_column, seconds):
            if number not in profilers:
                profilers[number] = Profiler(grid, slicer)
            profilers[number].add(grid, rows, version_column=version_column)
    if not profilers:
        raise DataError(
            f"There are no rows to divide into windows by column '{time_column}'. "
            "Check that the log was written."
        )
    return tuple(
        profilers[number].profile(
            grid,
            Logged(
                Window(number * seconds, (number + 1) * seconds),
                model,
                version,
                version_column,
                rate,
            ),
        )
        for number in sorted(profilers)
    )


def by_window(
    batch: pa.RecordBatch | pa.Table, time_column: str, seconds: float
) -> Iterator[tuple[int, pa.RecordBatch | pa.Table]]:
    """Yield the rows of each window of a batch with the window's number since 1970."""
    present = batch.schema.names
    if time_column not in present:
        raise DataError(
            f"Column '{time_column}', which is to say when rows were logged, is not "
            f"there (they have {quoted(present)}).{did_you_mean(time_column, present)}"
        )
    column = column_of(batch.column(time_column), time_column)
    if not column.is_number or len(column.values) != column.rows:
        raise DataError(
            f"Column '{time_column}' is to say when rows were logged, and has "
            f"{column.missing} rows without a value, of type {column.type}. Give a "
            "timestamp, or seconds since 1970 UTC, in every row."
        )
    times = numbers(column.values).astype(np.float64)
    if not np.isfinite(times).all():
        raise DataError(
            f"Column '{time_column}' is to say when rows were logged, and has "
            f"{np.count_nonzero(~np.isfinite(times))} rows that are NaN or infinite. "
            "Give seconds since 1970 UTC in every row."
        )
    if not len(times):
        return
    number = np.floor(times / seconds).astype(np.int64)
    if (np.diff(number) < 0).any():
        order = np.argsort(number, kind="stable")
        batch, number = batch.take(pa.array(order)), number[order]
    starts = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
    for start, end in itertools.pairwise([*starts.tolist(), len(number)]):
        yield int(number[start]), batch.slice(start, end - start)


def profile_column(grid: ColumnGrid, values: Any) -> ColumnProfile:
    """Profile the values of one column.

    Args:
        grid: Its grid.
        values: An Arrow or NumPy array, or a sequence.

    Raises:
        DataError: If the column has parts but no values.
    """
    counter = ColumnCounter(grid)
    counter.add(grid, column_of(values, grid.name))
    return counter.profile(grid)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
