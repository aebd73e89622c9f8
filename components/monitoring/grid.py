"""The reference grid: the places in which every window counts a column's values.

Stored once and named by the hash of its content. Windows that were counted on one grid
are added up and compared without their rows.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock.components.monitoring.places import Search
from penstock.schemas.errors import DataError, did_you_mean, quoted

Floats = npt.NDArray[np.float64]
Kind = Literal["numeric", "category"]
Role = Literal["feature", "score", "label", "segment"]

ROLES: tuple[Role, ...] = ("feature", "score", "label", "segment")
FORMAT = 1
"""Version of the grid's canonical form; part of what is hashed."""

QUANTILES = 4_096
"""Most edges of a numeric column."""

MOST_CATEGORIES = 1_000
"""Most categories that have a place of their own."""


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnGrid:
    """The places of one column.

    A numeric column with b edges has b + 2 places: 0 is below the first edge, the
    reference's minimum; 1 is exactly that edge; i + 1 is from edge i - 1, exclusive,
    to edge i, inclusive; b + 1 is above the last edge, the reference's maximum. A
    category column has one place per category and a last one for the values that the
    reference has beyond them.

    Attributes:
        name: The column.
        kind: "numeric" or "category".
        role: What the model does with it.
        type: Arrow type of the reference's column, as 'double' or 'list<int64>'.
        edges: Shape (b,), float64, strictly rising and finite: the distinct ones of
            4,096 reference quantiles. Empty for a category column.
        categories: The reference's values by falling count, at most 1,000.
        others: Sorted 64-bit hashes, uint64, of the reference's values beyond them.
        is_open: Whether the reference has more values than can be told from unseen
            ones: then whatever is not a category counts as beyond them.
        center: Median of the reference's finite values, about which sums are taken: it
            is within a standard deviation of the mean, so that nothing cancels.
    """

    name: str
    kind: Kind
    role: Role = "feature"
    type: str = ""
    edges: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))
    categories: tuple[str, ...] = ()
    others: npt.NDArray[np.uint64] = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.uint64)
    )
    is_open: bool = False
    center: float = 0.0

    def __post_init__(self) -> None:
        # A negative zero would make another hash of the same grid.
        edges = np.array(self.edges, np.float64) + 0.0
        others = np.array(self.others, np.uint64)
        edges.flags.writeable = others.flags.writeable = False
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "others", others)
        object.__setattr__(self, "categories", tuple(self.categories))
        if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise DataError(
                f"The edges of column '{self.name}' are not finite numbers that rise. "
                "Make the grid with Grid.of."
            )

    @property
    def places(self) -> int:
        """How many counts a window has of it."""
        if self.kind == "numeric":
            return len(self.edges) + 2
        return len(self.categories) + 1

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """The place of each category."""
        return {name: place for place, name in enumerate(self.categories)}

    @functools.cached_property
    def search(self) -> Search:
        """What finds the place of a number."""
        return Search.of(self.edges)

    @functools.cached_property
    def short_search(self) -> Search:
        """What finds the place of a number that was rounded to float32.

        Edges are rounded, too: 1.1 of float32 is more than 1.1 of float64, and has the
        place of the value that it was.
        """
        with np.errstate(over="ignore"):
            return Search.of(self.edges.astype(np.float32).astype(np.float64))

    @property
    def is_short(self) -> bool:
        """Whether the reference's values were float32."""
        return bool({"float", "halffloat"} & set(re.split(r"\W+", self.type)))

    @functools.cached_property
    def category_array(self) -> Any:
        """The categories as an Arrow array."""
        import pyarrow as pa

        return pa.array(self.categories, pa.string())

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of its canonical content."""
        about = {
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "type": self.type,
            "categories": self.categories,
            "is_open": self.is_open,
            "center": float(self.center).hex(),
            "edges": len(self.edges),
        }
        content = json.dumps(about, sort_keys=True, separators=(",", ":")).encode()
        made = hashlib.sha256(content + b"\n")
        made.update(self.edges.astype("<f8").tobytes())
        made.update(self.others.astype("<u8").tobytes())
        return made.digest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ColumnGrid):
            return NotImplemented
        return self is other or self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __getstate__(self) -> dict[str, Any]:
        # What can be made again is not worth sending to workers.
        return {
            each.name: getattr(self, each.name) for each in dataclasses.fields(self)
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The places of all columns of a model.

    Attributes:
        columns: By name, in the reference's order.
    """

    columns: Mapping[str, ColumnGrid]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        for name, column in self.columns.items():
            if name != column.name:
                raise DataError(
                    f"The grid has column '{column.name}' under the name '{name}'. "
                    "Make it with Grid.of."
                )

    @classmethod
    def of_columns(cls, columns: Sequence[ColumnGrid]) -> Grid:
        """Return the grid of some columns."""
        return cls({column.name: column for column in columns})

    @classmethod
    def of(
        cls,
        table: Any,
        *,
        roles: Mapping[str, Role] | None = None,
        categories: Sequence[str] = (),
        columns: Sequence[str] | None = None,
    ) -> Grid:
        """Return the grid of reference rows.

        Numbers and times are numeric, everything else is a category; of a list column
        every value counts.

        Args:
            table: An Arrow table or batch, arrays by name, or batches of one schema.
            roles: Of the columns that are no features.
            categories: Columns of numbers that are names, as a postcode.
            columns: Which to profile; all if None.

        Raises:
            DataError: If there are no rows, a name is not one of the columns, or a
                column has parts but no values, as a struct.
        """
        from penstock.components.monitoring.gridding import grid_of

        return grid_of(table, roles=roles, categories=categories, columns=columns)

    @functools.cached_property
    def id(self) -> str:
        """'sha256:...' of its canonical content; the columns' order does not count."""
        made = hashlib.sha256(b"penstock grid %d\n" % FORMAT)
        for name in sorted(self.columns):
            made.update(self.columns[name].digest)
        return f"sha256:{made.hexdigest()}"

    def __getitem__(self, name: str) -> ColumnGrid:
        try:
            return self.columns[name]
        except KeyError:
            raise DataError(
                f"Column '{name}' is not in the reference grid (it has "
                f"{quoted(self.columns)}).{did_you_mean(name, self.columns)}"
            ) from None

    def __iter__(self) -> Iterator[ColumnGrid]:
        return iter(self.columns.values())

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self is other or self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __getstate__(self) -> dict[str, Any]:
        return {"columns": self.columns}

    def with_role(self, role: Role) -> tuple[ColumnGrid, ...]:
        """Return the columns of a role, in the reference's order."""
        return tuple(column for column in self if column.role == role)
