"""The reference: what windows are compared with, frozen and named by its content."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from penstock.components.columns.examples import read_batches, schema_of
from penstock.components.columns.whole import write_whole
from penstock.components.monitoring import profile_files
from penstock.components.monitoring.grid import Grid, Role
from penstock.components.monitoring.profile import Profile, merged
from penstock.components.monitoring.profiling import profile_batches, profile_windows
from penstock.components.monitoring.slices import Slicer, columns_of
from penstock.components.monitoring.values import as_table, kind_of, type_name
from penstock.components.monitoring.windows import DAY, UNDATED, Window
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError, did_you_mean, quoted

FORMAT = 1
"""Version of the reference's file."""

Season = Literal["", "weekday", "hour", "weekday and hour"]

WEEKDAYS = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)

_FILE = "reference.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What windows of a model are compared with.

    Attributes:
        profile: All of its rows, on its own grid.
        history: Profiles of the windows that it, or the traffic that it stands for,
            was made of, in their order; maybe none. Thresholds are replayed on them,
            and seasonal references are made of them.
        season: Which windows are alike: "weekday", "hour" (of the day, UTC), "weekday
            and hour"; "" if all are.
        created: When it was made, in seconds since 1970 UTC; not part of its id.
        whole: Id of the reference that this is the seasonal part of; "" if of none.
        slices: Columns or expressions: rows are compared within each of their values,
            too. The profile has its slices; the history's windows have them only if
            there are seasons.
    """

    profile: Profile
    history: tuple[Profile, ...] = ()
    season: Season = ""
    created: float = 0.0
    whole: str = ""
    slices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.history, key=lambda each: each.window))
        object.__setattr__(self, "history", ordered)
        for each in ordered:
            if each.grid.id != self.grid.id:
                raise DataError(
                    f"Window '{each.window.name}' of the history was counted on grid "
                    f"{each.grid.id}, and the reference's is {self.grid.id}. Profile "
                    "it on the reference's grid."
                )
        if self.season and not ordered:
            raise DataError(
                f"A reference by {self.season} needs a history, and this one has none. "
                "Give a time column, or the profiles of its windows."
            )

    @classmethod
    def of(
        cls,
        rows: Any,
        *,
        model: str = "",
        version: str = "",
        window: Window | None = None,
        time_column: str | None = None,
        seconds: float = DAY,
        season: Season = "",
        columns: Sequence[str] | None = None,
        roles: Mapping[str, Role] | None = None,
        categories: Sequence[str] = (),
        slices: Sequence[str] = (),
        created: float = 0.0,
    ) -> Reference:
        """Make a reference of rows.

        Args:
            rows: An Arrow table or batch, arrays by name, or a function that gives
                batches anew each time it is called: they are read twice.
            model: Name of the model.
            version: The version of it that was trained on them, or that saw them.
            window: When the rows are from, without a time column; else told by it.
            time_column: When each row is from: a timestamp, or seconds since 1970 UTC.
                Not profiled. The windows become the history.
            seconds: Length of the history's windows.
            season: Which windows are alike.
            columns: Which to profile; all but the time column if None.
            roles: Of the columns that are no features.
            categories: Columns of numbers that are names, as a postcode.
            slices: Columns or expressions: within each of their values that has 500
                rows, windows are compared, too.
            created: When it is made, in seconds since 1970 UTC.

        Raises:
            DataError: If there are no rows, a name is not one of the columns, a column
                has parts but no values, a time is missing, or there are no slices or
                more than 50.
        """
        read: Callable[[], Iterable[Any]]
        if callable(rows):
            read = rows
            first = next(iter(read()), None)
            names = [] if first is None else first.schema.names
        else:
            table = as_table(rows)
            read = functools.partial(_once, table)
            names = table.schema.names
        if columns is None:
            columns = [name for name in names if name != time_column]
        grid = Grid.of(
            table if not callable(rows) else read(),
            roles=roles,
            categories=categories,
            columns=columns,
        )
        slicer = Slicer.of(slices, read()) if slices else None
        if time_column is None:
            profile = profile_batches(
                grid,
                read(),
                window or UNDATED,
                model=model,
                version=version,
                slicer=slicer,
            )
            return cls(profile, (), season, created, slices=tuple(slices))
        history = profile_windows(
            grid,
            read(),
            time_column,
            seconds=seconds,
            model=model,
            version=version,
            slicer=slicer if season else None,
        )
        profile = merged(history)
        if slicer and not season:
            # Slices of every window would take their number times the memory, for what
            # nothing asks for.
            again = profile_batches(
                grid,
                read(),
                profile.window,
                model=model,
                version=version,
                slicer=slicer,
            )
            profile = dataclasses.replace(profile, slices=again.slices)
        return cls(profile, history, season, created, slices=tuple(slices))

    @classmethod
    def of_examples(
        cls, examples: Examples, split: str = "train", **how: Any
    ) -> Reference:
        """Make a reference of the rows that a model was trained on.

        Args:
            examples: The training data.
            split: The split of it.
            how: As `of` takes it.

        Raises:
            DataError: As `of`, or if there is no such split.
        """
        names = schema_of(examples).names
        wanted = how.get("columns") or names
        extra = [how["time_column"]] if how.get("time_column") else []
        for name in [*wanted, *extra]:
            if name not in names:
                raise DataError(
                    f"Column '{name}' is not in '{examples.uri}' (it has "
                    f"{quoted(names)}).{did_you_mean(name, names)}"
                )
        by = columns_of(how.get("slices", ()), names)
        read = list(dict.fromkeys([*wanted, *extra, *by]))
        return cls.of(lambda: read_batches(examples, split, columns=read), **how)

    @property
    def grid(self) -> Grid:
        """Its grid."""
        return self.profile.grid

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.profile.model

    @property
    def version(self) -> str:
        """Version of the model; "" if it is not known, or rows are of several."""
        versions = self.profile.versions
        return next(iter(versions)) if len(versions) == 1 else ""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.profile.rows

    @property
    def slicer(self) -> Slicer | None:
        """What finds its slices in the rows of windows; None if it has none."""
        if not self.slices:
            return None
        return Slicer(self.slices, frozenset(self.profile.slices))

    @functools.cached_property
    def id(self) -> str:
        """'sha256:...' of its content: grid, counts, history, season and slices."""
        return _id(
            profile_files.profile_digest(self.profile),
            [profile_files.profile_digest(each) for each in self.history],
            self.season,
            self.whole,
            self.slices,
        )

    def for_window(self, window: Window) -> Reference:
        """Return the reference for a window: of its season, if this one is seasonal.

        Raises:
            DataError: If the history has no such window.
        """
        if not self.season or self.whole:
            return self
        alike = tuple(
            each
            for each in self.history
            if _key(each.window, self.season) == _key(window, self.season)
        )
        if not alike:
            raise DataError(
                f"The reference of model '{self.model}' has no window "
                f"{_described(window, self.season)}, and '{window.name}' is one. Make "
                "it of a longer history."
            )
        return dataclasses.replace(
            self, profile=merged(alike), history=alike, whole=self.id
        )

    def check(self, profile: Profile) -> None:
        """Check that a window can be compared with it.

        Raises:
            DataError: If the window was counted on another grid, naming a column that
                differs where there is one; or is of another model.
        """
        if profile.model != self.model:
            raise DataError(
                f"Window '{profile.window.name}' is of model '{profile.model}', and "
                f"the reference of '{self.model}'. Compare it with its own."
            )
        if profile.grid.id == self.grid.id:
            return
        for column in profile.grid:
            if column.name not in self.grid:
                raise DataError(
                    f"Column '{column.name}' of window '{profile.window.name}' is not "
                    f"in the reference (it has {quoted(self.grid.columns)})."
                    f"{did_you_mean(column.name, self.grid.columns)} Make the "
                    "reference again with it, or leave it out."
                )
            mine = self.grid[column.name]
            if mine.kind != column.kind:
                raise DataError(
                    f"Column '{column.name}' is {_kind(column.kind)} in window "
                    f"'{profile.window.name}' and {_kind(mine.kind)} in the reference. "
                    "Profile the window on the reference's grid."
                )
        raise DataError(
            f"Window '{profile.window.name}' was counted on grid {profile.grid.id}, "
            f"and the reference's is {self.grid.id}. Profile the window again on this "
            "reference."
        )

    def check_id(self, reference_id: str, what: str) -> None:
        """Check that results, as thresholds, were made with this reference.

        Args:
            reference_id: The id that they name.
            what: What they are, as 'The thresholds'.

        Raises:
            DataError: If it is another one.
        """
        if reference_id not in (self.id, self.whole):
            raise DataError(
                f"{what} were made with reference {reference_id}, and this one is "
                f"{self.id}. Make them again, or give the reference they belong to."
            )

    def check_columns(self, schema: pa.Schema, window: Window) -> None:
        """Check that rows have the reference's columns, in the reference's types.

        For those who want to stop there: a profile counts a missing column as missing
        values and a column of another type as such, and both are drift.

        Raises:
            DataError: If one is missing, or is a number where the reference has a
                name, or a name where it has a number.
        """
        for column in self.grid:
            if column.name not in schema.names:
                raise DataError(
                    f"The rows of window '{window.name}' have no column "
                    f"'{column.name}', which the reference has (they have "
                    f"{quoted(schema.names)})."
                    f"{did_you_mean(column.name, schema.names)}"
                )
            kind = schema.field(column.name).type
            if column.kind == "numeric" and kind_of(kind) != "numeric":
                found = type_name(kind)
                raise DataError(
                    f"Column '{column.name}' is {column.type} in the reference and "
                    f"{found} in window '{window.name}'. Convert it where it is logged."
                )


def _once(table: pa.Table) -> Iterable[pa.Table]:
    yield table


def _kind(kind: str) -> str:
    return "numeric" if kind == "numeric" else "a category"


def _key(window: Window, season: Season) -> tuple[int, ...]:
    if season == "weekday":
        return (window.weekday,)
    if season == "hour":
        return (window.hour_of_day,)
    return window.weekday, window.hour_of_day


def _described(window: Window, season: Season) -> str:
    day, hour = WEEKDAYS[window.weekday], f"{window.hour_of_day:02}:00"
    if season == "weekday":
        return f"on a {day}"
    if season == "hour":
        return f"at {hour} UTC"
    return f"on a {day} at {hour} UTC"


def _id(
    profile: str,
    history: Sequence[str],
    season: str,
    whole: str,
    slices: Sequence[str],
) -> str:
    sliced = [list(slices)] if slices else []
    content = json.dumps([FORMAT, profile, list(history), season, whole, *sliced])
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def write_reference(reference: Reference, folder: Path) -> Path:
    """Write a reference below a folder, which then holds it and nothing else.

    Args:
        reference: What to write.
        folder: Made if it is not there.

    Returns:
        The folder's `reference.json`.

    Raises:
        DataError: If another reference is there.
    """
    path = folder / _FILE
    if path.exists():
        there = _about(folder)["id"]
        if there != reference.id:
            raise DataError(
                f"'{folder}' holds reference {there} already. A reference is never "
                "overwritten; give another folder."
            )
        return path
    for stale in folder.glob("history-*.profile"):
        stale.unlink()  # what a write that was cut off left behind
    profile_files.write_profile(reference.profile, folder, "reference")
    for number, each in enumerate(reference.history):
        profile_files.write_profile(each, folder, _named(number))
    about = {
        "format": "penstock-reference",
        "version": FORMAT,
        "id": reference.id,
        "model": reference.model,
        "model_version": reference.version,
        "rows": reference.rows,
        "grid": reference.grid.id,
        "season": reference.season,
        "whole": reference.whole,
        "slices": list(reference.slices),
        "created": reference.created,
        "profile": profile_files.profile_digest(reference.profile),
        "history": [profile_files.profile_digest(each) for each in reference.history],
    }
    # Last, so that a folder that has it is complete.
    write_whole(path, json.dumps(about, indent=2).encode() + b"\n")
    return path


def read_reference(folder: Path, *, history: bool = True) -> Reference:
    """Read a reference.

    Args:
        folder: Where it was written.
        history: Whether to read its windows, which takes the longest. Without them the
            id stays what it is. Those of a seasonal reference are always read.

    Raises:
        DataError: If there is none, or a file of it is damaged.
    """
    about = _about(folder)
    profile, digest = profile_files.read_with_digest(folder / "reference.profile")
    windows: list[Profile] = []
    if history or about["season"]:
        for number, listed in enumerate(about["history"]):
            path = folder / f"{_named(number)}{profile_files.SUFFIX}"
            each, found = profile_files.read_with_digest(path, profile.grid)
            if found != listed:
                raise _damaged(path)
            windows.append(each)
    slices = tuple(about.get("slices", ()))
    found = _id(digest, about["history"], about["season"], about["whole"], slices)
    if found != about["id"]:
        raise _damaged(folder / _FILE)
    reference = Reference(
        profile,
        tuple(windows),
        about["season"],
        about["created"],
        about["whole"],
        slices,
    )
    # Known, and not to be told from what was left out.
    reference.__dict__["id"] = found
    return reference


def _named(number: int) -> str:
    return f"history-{number:05}"


def _about(folder: Path) -> dict[str, Any]:
    path = folder / _FILE
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"There is no reference in '{folder}'. Make one with Reference.of and "
            "write_reference."
        ) from None
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(about, dict) or about.get("format") != "penstock-reference":
        raise DataError(
            f"'{path}' is no reference that penstock wrote. Name the folder that was "
            "written."
        )
    if about["version"] != FORMAT:
        raise DataError(
            f"'{path}' is of format {about['version']}, and this penstock reads format "
            f"{FORMAT}. Read it with the penstock that wrote it, or make it again."
        )
    return about


def _damaged(path: Path) -> DataError:
    return DataError(
        f"'{path}' is damaged: it does not belong to the reference's id. Make the "
        "reference again, or take it from a copy."
    )
