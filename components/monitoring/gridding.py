"""Making the reference grid from rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.components.columns.splits import mixed
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
    as_table,
    column_of,
    hashes,
    kind_of,
    name_counts,
    numbers,
    type_name,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

MOST_OTHERS = 65_536
"""Most values beyond the categories that are told from unseen ones."""

SAMPLE = 250_000
"""Values that are kept of each numeric column when rows come in batches."""

_MOST_NAMED = MOST_CATEGORIES + MOST_OTHERS


def grid_of(
    rows: Any,
    *,
    roles: Mapping[str, Role] | None = None,
    categories: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> Grid:
    """Return the grid of reference rows; see `Grid.of`."""
    if isinstance(rows, (pa.Table, pa.RecordBatch, Mapping)):
        batches: Iterable[Any] = [as_table(rows)]
        most: float = math.inf
    else:
        batches, most = rows, SAMPLE
    makers: list[_Maker] = []
    count = 0
    for batch in batches:
        if not makers:
            makers = _makers(batch.schema, roles or {}, categories, columns, most)
        for maker in makers:
            maker.add(batch.column(maker.name))
        count += batch.num_rows
    if not count:
        raise DataError(
            "The reference has no rows, so there is nothing to compare windows with. "
            "Give the rows that the model was trained on."
        )
    return Grid.of_columns([maker.column() for maker in makers])


def _makers(
    schema: pa.Schema,
    roles: Mapping[str, Role],
    categories: Sequence[str],
    columns: Sequence[str] | None,
    most: float,
) -> list[_Maker]:
    for name in [*roles, *categories, *(columns or ())]:
        if name not in schema.names:
            raise DataError(
                f"Column '{name}' is not in the reference (it has "
                f"{quoted(schema.names)}).{did_you_mean(name, schema.names)}"
            )
    for name, role in roles.items():
        if role not in ROLES:
            raise DataError(
                f"Column '{name}' cannot have the role '{role}' (there are "
                f"{quoted(ROLES)}).{did_you_mean(role, ROLES)}"
            )
    return [
        _Maker(
            name,
            schema.field(name).type,
            roles.get(name, "feature"),
            name in categories,
            most,
        )
        for name in (schema.names if columns is None else columns)
    ]


class _Maker:
    """Makes the grid of one column, batch after batch."""

    def __init__(
        self, name: str, kind: pa.DataType, role: Role, is_named: bool, most: float
    ) -> None:
        self.name, self.role, self.type = name, role, type_name(kind)
        self.is_category = is_named or kind_of(kind) == "category"
        self.sample = _Sample(most)
        self.low, self.high = math.inf, -math.inf
        self.named: dict[str, int] = {}
        self.is_open = False

    def add(self, array: Any) -> None:
        column = column_of(array, self.name)
        if self.is_category:
            self._add_names(column.values)
            return
        found = numbers(column.values)
        found = found[np.isfinite(found)]
        if len(found):
            self.low = min(self.low, float(found.min()))
            self.high = max(self.high, float(found.max()))
            self.sample.add(found)

    def _add_names(self, values: pa.Array) -> None:
        texts, counts, _ = name_counts(values)
        for name, count in zip(texts.to_pylist(), counts.tolist(), strict=True):
            self.named[name] = self.named.get(name, 0) + count
        if len(self.named) > 2 * _MOST_NAMED:
            # Too many for their hashes to be kept: only the first ones matter now.
            self.is_open = True
            self.named = dict(self._ranked()[:_MOST_NAMED])

    def _ranked(self) -> list[tuple[str, int]]:
        return sorted(self.named.items(), key=lambda each: (-each[1], each[0]))

    def column(self) -> ColumnGrid:
        """Return the grid."""
        if self.is_category:
            ranked = [name for name, _ in self._ranked()]
            beyond = ranked[MOST_CATEGORIES:]
            is_open = self.is_open or len(beyond) > MOST_OTHERS
            others = pa.array([] if is_open else beyond, pa.string())
            return ColumnGrid(
                self.name,
                "category",
                self.role,
                self.type,
                categories=tuple(ranked[:MOST_CATEGORIES]),
                others=np.sort(hashes(others)),
                is_open=is_open,
            )
        values = np.sort(self.sample.values().astype(np.float64))
        if len(values):
            values[0], values[-1] = self.low, self.high
        return ColumnGrid(
            self.name,
            "numeric",
            self.role,
            self.type,
            edges_of(values),
            # -0.0, which may have any place among zeros, would make another id.
            center=float(values[len(values) // 2]) + 0.0 if len(values) else 0.0,
        )


class _Sample:
    """Values of a column: all, then a half, a quarter ... of them, chosen by a hash.

    The hash is of the value's number in the column, so that how they come in batches
    does not matter.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.seen = self.kept = self.bits = 0
        self.parts: list[npt.NDArray[Any]] = []

    def add(self, values: npt.NDArray[Any]) -> None:
        if self.bits:
            numbered = np.arange(self.seen, self.seen + len(values), dtype=np.uint64)
            values = values[self._chosen(numbered)]
            self.seen += len(numbered)
        else:
            self.seen += len(values)
        self.parts.append(values)
        self.kept += len(values)
        while self.kept > self.most:
            self._halve()

    def _halve(self) -> None:
        numbered = np.arange(self.seen, dtype=np.uint64)
        numbered = numbered[self._chosen(numbered)]
        self.bits += 1
        self.parts = [self.values()[self._chosen(numbered)]]
        self.kept = len(self.parts[0])

    def _chosen(self, numbered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        mask = np.uint64((1 << self.bits) - 1)
        return np.asarray(mixed(numbered.copy()) & mask == 0)

    def values(self) -> npt.NDArray[Any]:
        """Return those that are in it."""
        return np.concatenate(self.parts) if self.parts else np.zeros(0)


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
