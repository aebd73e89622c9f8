"""Profiles: what one window of rows looks like, in counts that add up.

A profile of seven days is the sum of seven profiles of a day. Counts, counters and the
names of unseen values are exact; sums differ by the rounding of float64; the number of
distinct values and the names beyond 1,000 are estimates with a stated error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.components.monitoring import names
from penstock.components.monitoring.distinct import Distinct
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError, quoted

Counts = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnProfile:
    """What a window has of one column.

    A list column counts each of its values: `values` may then be more than the rows.

    Attributes:
        grid: Where its values are counted.
        rows: Rows of the window.
        missing: Rows whose value is null, or whose column is not there.
        values: Values that are not null: rows - missing if the column has no lists.
        nan: Values that are NaN.
        pos_inf: Values that are plus infinity.
        neg_inf: Values that are minus infinity.
        zeros: Values that are 0; counted in their place, too.
        mistyped: Values of a type that the grid cannot count, as text where the
            reference has numbers.
        counts: Shape (grid.places,), int64: the finite values of a numeric column, or
            the values of a category column that the reference has.
        unseen: Values that the reference does not have, by name, at most 1,000.
        unseen_other: How many more unseen values are not counted under a name.
        unseen_error: By how much a count of `unseen` may be too low; 0 means exact.
        sum: Of the finite values less `grid.center`.
        sum_squares: Of the squares of those differences.
        minimum: Of the finite values; NaN if there are none.
        maximum: Likewise.
        distinct: A sketch of the distinct values.
        type: Arrow type of the window's column; 'null' if it was not there, and empty
            if nothing is known.
    """

    grid: ColumnGrid
    rows: int
    missing: int
    values: int
    counts: Counts
    nan: int = 0
    pos_inf: int = 0
    neg_inf: int = 0
    zeros: int = 0
    mistyped: int = 0
    unseen: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unseen_other: int = 0
    unseen_error: int = 0
    sum: float = 0.0
    sum_squares: float = 0.0
    minimum: float = math.nan
    maximum: float = math.nan
    distinct: Distinct = dataclasses.field(default_factory=Distinct.empty)
    type: str = ""

    def __post_init__(self) -> None:
        counts = np.array(self.counts, np.int64)
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)
        if counts.shape != (self.grid.places,):
            raise DataError(
                f"Column '{self.name}' has {self.grid.places} places, and counts of "
                f"shape {counts.shape} were given. Count on its grid."
            )

    @classmethod
    def empty(cls, grid: ColumnGrid) -> ColumnProfile:
        """Return the profile of no rows."""
        return cls(grid, 0, 0, 0, np.zeros(grid.places, np.int64))

    @property
    def name(self) -> str:
        """The column."""
        return self.grid.name

    @property
    def present(self) -> int:
        """Rows whose value is not missing."""
        return self.rows - self.missing

    @property
    def finite(self) -> int:
        """Values that are numbers: not NaN, not infinite, not of another type."""
        return self.values - self.nan - self.pos_inf - self.neg_inf - self.mistyped

    @property
    def below(self) -> int:
        """Finite values below the reference's minimum."""
        return int(self.counts[0]) if self.grid.kind == "numeric" else 0

    @property
    def above(self) -> int:
        """Finite values above the reference's maximum."""
        return int(self.counts[-1]) if self.grid.kind == "numeric" else 0

    @property
    def unseen_values(self) -> int:
        """How many values the reference does not have; exact."""
        return sum(self.unseen.values()) + self.unseen_other

    @property
    def mean(self) -> float:
        """Of the finite values; NaN if there are none."""
        return self.grid.center + self.sum / self.finite if self._sums else math.nan

    @property
    def variance(self) -> float:
        """Of the finite values, with one degree of freedom less; NaN below two."""
        if not self._sums or self.finite < 2:
            return math.nan
        about = self.sum_squares - self.sum * self.sum / self.finite
        return max(about, 0.0) / (self.finite - 1)

    @property
    def _sums(self) -> bool:
        return self.grid.kind == "numeric" and self.finite > 0

    def __add__(self, other: ColumnProfile) -> ColumnProfile:
        self._check(other)
        unseen = names.bounded(names.together(_unseen(self), _unseen(other)))
        return dataclasses.replace(
            self,
            **{each: getattr(self, each) + getattr(other, each) for each in _SUMS},
            unseen=unseen.counts,
            unseen_other=unseen.other,
            unseen_error=unseen.error,
            minimum=float(np.fmin(self.minimum, other.minimum)),
            maximum=float(np.fmax(self.maximum, other.maximum)),
            distinct=self.distinct + other.distinct,
            type=usual_or_not((self.type, other.type), self.grid.type),
        )

    def __sub__(self, part: ColumnProfile) -> ColumnProfile:
        """Take out a part that was added: for leaving one window out.

        Counts, counters and exact names are as if it had never been added. Minimum,
        maximum, distinct values and inexact names stay those of the whole.
        """
        self._check(part)
        left = {each: getattr(self, each) - getattr(part, each) for each in _SUMS}
        unseen = names.subtracted(_unseen(self), _unseen(part))
        if left["counts"].min(initial=0) < 0 or left["rows"] < 0:
            raise DataError(
                f"The profile of column '{self.name}' with {part.rows} rows is no part "
                f"of the one with {self.rows} rows. Take out only what was added."
            )
        return dataclasses.replace(
            self,
            **left,
            unseen=unseen.counts,
            unseen_other=unseen.other,
            unseen_error=unseen.error,
        )

    def _check(self, other: ColumnProfile) -> None:
        if self.grid != other.grid:
            raise DataError(
                f"Column '{self.name}' was counted on two grids, which do not add up. "
                "Profile both windows against one reference."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ColumnProfile):
            return NotImplemented
        mine, theirs = self._content(), other._content()
        return mine == theirs and bool((self.counts == other.counts).all())

    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> tuple[Any, ...]:
        return tuple(
            repr(value) if isinstance(value, float) else value
            for each in dataclasses.fields(self)
            if each.name != "counts"
            for value in [getattr(self, each.name)]
        )


_SUMS = (
    "rows",
    "missing",
    "values",
    "counts",
    "nan",
    "pos_inf",
    "neg_inf",
    "zeros",
    "mistyped",
    "sum",
    "sum_squares",
)


def _unseen(profile: ColumnProfile) -> names.Unseen:
    return names.Unseen(profile.unseen, profile.unseen_other, profile.unseen_error)


def usual_or_not(types: Iterable[str], usual: str) -> str:
    """Return the type to name for several: one that is not as usual, where there is.

    So that a week in which a column changed its type still says so. A window without
    the column says less than one with another type.

    Args:
        types: What windows or batches had.
        usual: The reference's.
    """
    known = set(types) - {""}
    present = known - {"null"} or known
    return min(present - {usual} or present, default="")


def several_versions(
    window: Window, model: str, versions: Mapping[str, int]
) -> DataError:
    """Return what is said of a window whose rows are of several versions of a model."""
    listed = ", ".join(
        f"'{version}' ({rows} rows)" for version, rows in versions.items()
    )
    return DataError(
        f"Window '{window.name}' of model '{model}' mixes versions of the model: "
        f"{listed}. Profile the rows of each version by themselves."
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """What a model saw in a window.

    Attributes:
        window: The time.
        model: Name of the model.
        versions: Rows by version of the model.
        rows: How many there are.
        grid: The reference grid.
        columns: By name, in the grid's order.
        rate: The share of the traffic that the rows are.
        slices: Profiles of the rows of slices on the same grid, by name as
            'payment_type=Cash'. One that is not there has no rows.
    """

    window: Window
    model: str
    versions: Mapping[str, int]
    rows: int
    grid: Grid
    columns: Mapping[str, ColumnProfile]
    rate: float = 1.0
    slices: Mapping[str, Profile] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", dict(sorted(self.versions.items())))
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "slices", dict(sorted(self.slices.items())))
        if self.columns.keys() != self.grid.columns.keys():
            raise DataError(
                f"The profile of window '{self.window.name}' has the columns "
                f"{quoted(self.columns)} and its grid {quoted(self.grid.columns)}. "
                "Profile all columns of the grid."
            )

    @property
    def version(self) -> str:
        """The one version of the model that the rows are of.

        Raises:
            DataError: If they are of none or of several.
        """
        if len(self.versions) == 1:
            return next(iter(self.versions))
        if not self.versions:
            raise DataError(
                f"The rows of window '{self.window.name}' of model '{self.model}' do "
                "not say which version of the model they are of. Profile them with "
                "'version'."
            )
        raise several_versions(self.window, self.model, self.versions)

    def __getitem__(self, name: str) -> ColumnProfile:
        return self.columns[self.grid[name].name]

    def __add__(self, other: Profile) -> Profile:
        self._check(other)
        versions = dict(self.versions)
        for version, rows in other.versions.items():
            versions[version] = versions.get(version, 0) + rows
        return dataclasses.replace(
            self,
            window=Window.spanning([self.window, other.window]),
            versions=versions,
            rows=self.rows + other.rows,
            columns={
                name: column + other.columns[name]
                for name, column in self.columns.items()
            },
            slices={
                **self.slices,
                **{
                    name: self.slices[name] + each if name in self.slices else each
                    for name, each in other.slices.items()
                },
            },
        )

    def __sub__(self, part: Profile) -> Profile:
        """Take out a part that was added; the window stays. See `ColumnProfile`.

        What is left has no slices.
        """
        self._check(part)
        versions = dict(self.versions)
        for version, rows in part.versions.items():
            versions[version] = versions.get(version, 0) - rows
        return dataclasses.replace(
            self,
            versions={version: rows for version, rows in versions.items() if rows},
            rows=self.rows - part.rows,
            columns={
                name: column - part.columns[name]
                for name, column in self.columns.items()
            },
            slices={},
        )

    def _check(self, other: Profile) -> None:
        if self.grid.id != other.grid.id:
            raise DataError(
                f"Window '{self.window.name}' was counted on grid {self.grid.id} and "
                f"window '{other.window.name}' on {other.grid.id}; they do not add up. "
                "Profile both against one reference."
            )
        if self.model != other.model:
            raise DataError(
                f"Window '{self.window.name}' is of model '{self.model}' and window "
                f"'{other.window.name}' of '{other.model}'. Add up profiles of one "
                "model."
            )
        if not math.isclose(self.rate, other.rate, rel_tol=1e-9):
            raise DataError(
                f"The rows of window '{self.window.name}' are {self.rate:.3%} of the "
                f"traffic and those of window '{other.window.name}' {other.rate:.3%}. "
                "Thin both to the smaller rate before they are profiled."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        return all(
            getattr(self, each.name) == getattr(other, each.name)
            for each in dataclasses.fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


def merged(profiles: Iterable[Profile]) -> Profile:
    """Return the sum of profiles, in the order of their windows.

    The order does not depend on how they come, so that neither do the last digits.

    Raises:
        DataError: If there are none, or they do not add up.
    """
    found = sorted(profiles, key=lambda each: each.window)
    if not found:
        raise DataError("No profiles add up to none. Give at least one window.")
    total = found[0]
    for each in found[1:]:
        total = total + each
    return total
