"""Making the reference grid from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.components.monitoring.grid import (
    MOST_CATEGORIES,
    QUANTILES,
    ROLES,
    ColumnGrid,
    Floats,
    Grid,
    Role,
)
from penstock.components.monitoring.values import (
    Column,
    as_array,
    column_of,
    hashes,
    kind_of,
    name_counts,
    numbers,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

MOST_OTHERS = 65_536
"""Most values beyond the categories that are told from unseen ones."""


def grid_of(
    table: Any,
    *,
    roles: Mapping[str, Role] | None = None,
    categories: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> Grid:
    """Return the grid of reference rows; see `Grid.of`."""
    rows = as_table(table)
    roles = dict(roles or {})
    for name in [*roles, *categories, *(columns or ())]:
        if name not in rows.column_names:
            raise DataError(
                f"Column '{name}' is not in the reference (it has "
                f"{quoted(rows.column_names)}).{did_you_mean(name, rows.column_names)}"
            )
    for name, role in roles.items():
        if role not in ROLES:
            raise DataError(
                f"Column '{name}' cannot have the role '{role}'. Give one of "
                f"{quoted(ROLES)}.{did_you_mean(role, ROLES)}"
            )
    if not rows.num_rows:
        raise DataError(
            "The reference has no rows, so there is nothing to compare windows with. "
            "Give the rows that the model was trained on."
        )
    return Grid.of_columns(
        [
            _column_grid(
                name,
                column_of(as_array(rows.column(name)), name),
                roles.get(name, "feature"),
                name in categories,
            )
            for name in (rows.column_names if columns is None else columns)
        ]
    )


def as_table(table: Any) -> pa.Table:
    """Return rows as one table: from a table, a batch, arrays by name, or batches."""
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if isinstance(table, Mapping):
        arrays = {name: as_array(values) for name, values in table.items()}
        return pa.table(list(arrays.values()), names=list(arrays))
    batches: list[pa.RecordBatch] = list(table)
    if not batches:
        return pa.table({})
    return pa.Table.from_batches(batches)


def _column_grid(
    name: str, column: Column, role: Role, is_category: bool
) -> ColumnGrid:
    kind = str(column.type)
    if is_category or kind_of(column.type) == "category":
        kept, others, is_open = _categories(column)
        return ColumnGrid(
            name,
            "category",
            role,
            kind,
            categories=kept,
            others=others,
            is_open=is_open,
        )
    values = np.sort(numbers(column.values).astype(np.float64))
    values = values[np.isfinite(values)]
    edges = edges_of(values)
    center, scale = 0.0, 0.0
    if len(values):
        # Halved, so that numbers near the largest float do not overflow.
        center = float((values / 2).mean()) * 2
        scale = float(values.std()) if np.abs(values[[0, -1]]).max() < 1e150 else 0.0
    return ColumnGrid(name, "numeric", role, kind, edges, center=center, scale=scale)


def edges_of(values: Floats) -> Floats:
    """Return the edges of some rising finite values: at most 4,096, each of them one.

    All distinct values if they are few enough; else the distinct ones of the quantiles
    j / 4095, from the minimum to the maximum, each the least value that at least so
    many values do not exceed.

    Args:
        values: Shape (n,).
    """
    if not len(values):
        return values
    first = np.concatenate([[True], values[1:] != values[:-1]])
    if np.count_nonzero(first) <= QUANTILES:
        return np.asarray(values[first])
    shares = np.arange(QUANTILES) * len(values)
    ranks = np.maximum(-(-shares // (QUANTILES - 1)) - 1, 0)
    chosen = values[ranks]
    return np.asarray(chosen[np.concatenate([[True], chosen[1:] != chosen[:-1]])])


def _categories(
    column: Column,
) -> tuple[tuple[str, ...], npt.NDArray[np.uint64], bool]:
    texts, counts, _ = name_counts(column.values)
    named = list(zip(texts.to_pylist(), counts.tolist(), strict=True))
    ranked = sorted(range(len(named)), key=lambda each: (-named[each][1], named[each]))
    kept = tuple(named[each][0] for each in ranked[:MOST_CATEGORIES])
    beyond = ranked[MOST_CATEGORIES:]
    if len(beyond) > MOST_OTHERS:
        return kept, np.zeros(0, np.uint64), True
    return kept, np.sort(hashes(texts)[np.array(beyond, np.int64)]), False
