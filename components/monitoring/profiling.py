"""Making profiles: rows counted on a reference grid, column by column."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from penstock.components.monitoring.counting import ColumnCounter
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.values import as_array, column_of, name_counts
from penstock.components.monitoring.windows import Window
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

    def __init__(self, grid: Grid) -> None:
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
                as_array(batch.column(column.name))
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

    def _add_versions(self, values: Any, name: str) -> None:
        column = column_of(as_array(values), name)
        texts, counts, nan = name_counts(column.values)
        for version, rows in zip(texts.to_pylist(), counts.tolist(), strict=True):
            self.versions[version] = self.versions.get(version, 0) + rows
        if unknown := column.missing + nan:
            self.versions[""] = self.versions.get("", 0) + unknown

    def merge(self, other: Profiler) -> None:
        """Add what another profiler has counted on the same grid."""
        self.rows += other.rows
        for version, rows in other.versions.items():
            self.versions[version] = self.versions.get(version, 0) + rows
        for name, counter in other.counters.items():
            self.counters[name].merge(counter)

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
            logged.window, logged.model, versions, self.rows, grid, columns, logged.rate
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

    Raises:
        DataError: If there are no rows, the version's column is not there, or a
            column has parts but no values.
    """
    if isinstance(table, Mapping):
        arrays = {name: as_array(values) for name, values in table.items()}
        table = pa.table(list(arrays.values()), names=list(arrays))
    return profile_batches(
        grid,
        [table],
        window,
        model=model,
        version=version,
        version_column=version_column,
        rate=rate,
        threads=threads,
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
) -> Profile:
    """Profile the rows of a window, batch after batch; see `profile_table`."""
    profiler = Profiler(grid)
    for batch in batches:
        profiler.add(
            grid,
            batch,
            version_column=version_column,
            threads=processors() if threads is None else threads,
        )
    logged = Logged(window, model, version, version_column, rate)
    return profiler.profile(grid, logged)


def profile_column(grid: ColumnGrid, values: Any) -> ColumnProfile:
    """Profile the values of one column.

    Args:
        grid: Its grid.
        values: An Arrow or NumPy array, or a sequence.

    Raises:
        DataError: If the column has parts but no values.
    """
    counter = ColumnCounter(grid)
    counter.add(grid, column_of(as_array(values), grid.name))
    return counter.profile(grid)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
