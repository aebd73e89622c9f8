"""Making profiles: rows counted on a reference grid, column by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.splits import mixed
from penstock.components.monitoring import names
from penstock.components.monitoring.distinct import Distinct
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.values import (
    Column,
    as_array,
    column_of,
    hashes,
    name_counts,
    numbers,
)
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

_SEED = np.uint64(0x2545F4914F6CDD1D)


def profile_table(
    grid: Grid,
    table: pa.Table | pa.RecordBatch | Mapping[str, Any],
    window: Window,
    *,
    model: str = "",
    version: str = "",
    rate: float = 1.0,
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
        rate: The share of the traffic that the rows are.

    Raises:
        DataError: If there are no rows, or a column has parts but no values.
    """
    if isinstance(table, Mapping):
        arrays = {name: as_array(values) for name, values in table.items()}
        table = pa.table(list(arrays.values()), names=list(arrays))
    rows = table.num_rows
    if not rows:
        raise no_rows(window)
    here = set(table.schema.names)
    columns = {
        column.name: profile_column(
            column, table.column(column.name) if column.name in here else pa.nulls(rows)
        )
        for column in grid
    }
    versions = {version: rows} if version else {}
    return Profile(window, model, versions, rows, grid, columns, rate)


def profile_column(grid: ColumnGrid, values: Any) -> ColumnProfile:
    """Profile the values of one column.

    Args:
        grid: Its grid.
        values: An Arrow or NumPy array, or a sequence.

    Raises:
        DataError: If the column has parts but no values.
    """
    column = column_of(as_array(values), grid.name)
    known: dict[str, Any] = {
        "grid": grid,
        "rows": column.rows,
        "missing": column.missing,
        "values": len(column.values),
        "type": str(column.type),
    }
    if grid.kind == "category":
        return ColumnProfile(**known, **_categories(grid, column))
    if not column.is_number and not pa.types.is_boolean(column.values.type):
        counts = np.zeros(grid.places, np.int64)
        return ColumnProfile(**known, counts=counts, mistyped=len(column.values))
    return ColumnProfile(**known, **_numeric(grid, numbers(column.values)))


def _numeric(grid: ColumnGrid, values: npt.NDArray[Any]) -> dict[str, Any]:
    values = np.sort(values.astype(np.float64))
    nan = int(np.isnan(values).sum())
    neg_inf = int((values == -np.inf).sum())
    pos_inf = int((values == np.inf).sum())
    finite = values[neg_inf : len(values) - nan - pos_inf]
    counts = places(grid.edges, finite)
    with np.errstate(over="ignore"):
        apart = finite - grid.center
        total, squares = float(apart.sum()), float((apart * apart).sum())
    zeros = np.searchsorted(finite, 0.0, "right") - np.searchsorted(finite, 0.0, "left")
    return {
        "counts": counts,
        "nan": nan,
        "pos_inf": pos_inf,
        "neg_inf": neg_inf,
        "zeros": int(zeros),
        "sum": total,
        "sum_squares": squares,
        "minimum": float(finite[0]) if len(finite) else np.nan,
        "maximum": float(finite[-1]) if len(finite) else np.nan,
        "distinct": Distinct.of_hashes(number_hashes(finite)),
    }


def places(edges: npt.NDArray[np.float64], ordered: npt.NDArray[Any]) -> Any:
    """Return how many of some sorted values are in each place.

    Args:
        edges: Of the grid, shape (b,).
        ordered: Finite and rising, shape (n,).

    Returns:
        Shape (b + 2,), int64.
    """
    if not len(edges):
        return np.array([0, len(ordered)])
    upto = np.searchsorted(ordered, edges, "right")
    below = np.searchsorted(ordered, edges[:1], "left")
    return np.diff(np.concatenate([[0], below, upto, [len(ordered)]])).astype(np.int64)


def number_hashes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Return a well mixed 64-bit hash of each number, the same on every machine."""
    bits = (values.astype(np.float64) + 0.0).view(np.uint64)
    return mixed(bits ^ _SEED)


def _categories(grid: ColumnGrid, column: Column) -> dict[str, Any]:
    texts, counts, nan = name_counts(column.values)
    found = hashes(texts)
    place = pc.index_in(texts, value_set=pa.array(grid.categories, pa.string()))
    place = place.fill_null(-1).to_numpy()
    known = place >= 0
    other = ~known & (grid.is_open or np.isin(found, grid.others))
    total = np.zeros(grid.places, np.int64)
    total[place[known]] = counts[known]
    total[-1] = counts[other].sum()
    fresh = np.flatnonzero(~known & ~other)
    unseen = names.bounded(
        dict(
            zip(
                texts.take(pa.array(fresh)).to_pylist(),
                counts[fresh].tolist(),
                strict=True,
            )
        )
    )
    return {
        "counts": total,
        "nan": nan,
        "unseen": unseen.counts,
        "unseen_other": unseen.other,
        "unseen_error": unseen.error,
        "distinct": Distinct.of_hashes(found),
    }


def profile_batches(
    grid: Grid,
    batches: Iterable[pa.RecordBatch],
    window: Window,
    *,
    model: str = "",
    version: str = "",
    rate: float = 1.0,
) -> Profile:
    """Profile the rows of a window, batch after batch; see `profile_table`.

    Raises:
        DataError: If there are no rows, or a column has parts but no values.
    """
    total: Profile | None = None
    for batch in batches:
        if batch.num_rows:
            found = profile_table(
                grid, batch, window, model=model, version=version, rate=rate
            )
            total = found if total is None else total + found
    if total is None:
        raise no_rows(window)
    return total


def no_rows(window: Window) -> DataError:
    """Return the error for a window without rows."""
    return DataError(
        f"Window '{window.name}' has no rows, so there is nothing to profile. Check "
        "that its log was written, or give a longer window."
    )
