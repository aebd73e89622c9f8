"""Cold start: a model without a past is observed until its first windows make one.

Until then nothing is judged. Then the reference is made, once, and never changes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components.columns.whole import name_to_try
from penstock.components.monitoring.grid import Grid, Role
from penstock.components.monitoring.profile import merged
from penstock.components.monitoring.profile_files import profile_path
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.reference import (
    Reference,
    Season,
    read_reference,
    write_reference,
)
from penstock.components.monitoring.slices import Slicer
from penstock.components.monitoring.values import as_table
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError, did_you_mean, quoted

State = Literal["observing", "ready"]

_WINDOW = b"penstock window"
_ROWS = "rows"
_REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class Observation:
    """The first windows of a model in service, in a folder.

    The rows of its windows are kept until the reference is made of them: the grid
    needs them all. A window that is given again replaces what was given before.

    Attributes:
        folder: Where rows, and then the reference, are kept.
        model: Name of the model.
        version: Version of the model that is observed.
        least_rows: How many rows the reference has to have.
        least_windows: How many windows it has to have.
        columns: Which to profile; all if None.
        roles: Of the columns that are no features.
        categories: Columns of numbers that are names.
        season: Which windows are alike, as `Reference` has it.
        slices: By what rows are sliced, as `Reference` has it.
    """

    folder: Path
    model: str = ""
    version: str = ""
    least_rows: int = 5_000
    least_windows: int = 7
    columns: Sequence[str] | None = None
    roles: Mapping[str, Role] | None = None
    categories: Sequence[str] = ()
    season: Season = ""
    slices: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("least_rows", "least_windows"):
            if getattr(self, name) < 1:
                raise DataError(
                    f"An observation cannot end with {getattr(self, name)} as its "
                    f"{name}. Give at least 1."
                )

    @property
    def state(self) -> State:
        """'observing' until the reference is made; then 'ready'."""
        return "ready" if self._is_made else "observing"

    @property
    def sentence(self) -> str:
        """How far it is."""
        if self._is_made:
            return f"The reference of model '{self.model}' is made."
        rows = sum(pq.read_metadata(path).num_rows for path in self._files())
        return (
            f"Model '{self.model}' is observed: {len(self._files())} of "
            f"{self.least_windows} windows and {rows} of {self.least_rows} rows are "
            "there. Nothing is judged before."
        )

    @property
    def _is_made(self) -> bool:
        return (self.folder / _REFERENCE / "reference.json").exists()

    def reference(self) -> Reference | None:
        """Return the reference; None while observing."""
        return read_reference(self.folder / _REFERENCE) if self._is_made else None

    def add(
        self, window: Window, rows: Any, *, version: str = "", created: float = 0.0
    ) -> Reference | None:
        """Add a window, and make the reference if that was the last one needed.

        Once it is made, windows are no longer added to it.

        Args:
            window: When the rows were logged.
            rows: An Arrow table or batch, or arrays by name.
            version: Version of the model that they are of.
            created: Now, in seconds since 1970 UTC.

        Returns:
            The reference, if it is made.

        Raises:
            DataError: If there are no rows, they are of another version, the window
                overlaps with one that is there, or a column has changed its type.
        """
        if self._is_made:
            return self.reference()
        table = as_table(rows)
        self._check(window, table, version)
        folder = self.folder / _ROWS
        folder.mkdir(parents=True, exist_ok=True)
        path = profile_path(folder, window).with_suffix(".parquet")
        about = {_WINDOW: json.dumps([window.start, window.end])}
        tried = name_to_try(path)
        pq.write_table(table.replace_schema_metadata(about), tried)
        os.replace(tried, path)
        read = [pq.read_table(each) for each in self._files()]
        if (
            len(read) < self.least_windows
            or sum(each.num_rows for each in read) < self.least_rows
        ):
            return None
        reference = self._made(read, created)
        write_reference(reference, self.folder / _REFERENCE)
        shutil.rmtree(folder)
        return reference

    def _check(self, window: Window, table: pa.Table, version: str) -> None:
        if not table.num_rows:
            raise DataError(
                f"Window '{window.name}' has no rows, so there is nothing to observe. "
                "Check that its log was written."
            )
        if version != self.version:
            raise DataError(
                f"Window '{window.name}' is of version '{version}' of model "
                f"'{self.model}', of which version '{self.version}' is observed. A "
                "reference is of one version: observe the new one in another folder."
            )
        for other in map(_window, self._files()):
            if (
                other != window
                and other.start < window.end
                and window.start < other.end
            ):
                raise DataError(
                    f"Window '{window.name}' overlaps with '{other.name}', which was "
                    "added before: their rows would count twice. Add windows of one "
                    "kind."
                )

    def _files(self) -> list[Path]:
        return sorted((self.folder / _ROWS).glob("*.parquet"), key=_window)

    def _made(self, tables: list[pa.Table], created: float) -> Reference:
        windows = [_window(path) for path in self._files()]
        grid = Grid.of(
            _together(tables, self.columns),
            roles=self.roles,
            categories=self.categories,
            columns=self.columns,
        )
        slicer = Slicer.of(self.slices, tables) if self.slices else None
        sliced = tuple(
            profile_table(
                grid,
                table,
                window,
                model=self.model,
                version=self.version,
                slicer=slicer,
            )
            for table, window in zip(tables, windows, strict=True)
        )
        history = tuple(
            each if self.season else dataclasses.replace(each, slices={})
            for each in sliced
        )
        return Reference(
            merged(sliced), history, self.season, created, slices=tuple(self.slices)
        )


def _window(path: Path) -> Window:
    start, end = json.loads(pq.read_schema(path).metadata[_WINDOW])
    return Window(start, end)


def _together(tables: list[pa.Table], columns: Sequence[str] | None) -> pa.Table:
    """Return all rows; a column that a window does not have is missing there."""
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    together = {}
    for name in names if columns is None else columns:
        found = [table.column(name) for table in tables if name in table.column_names]
        if not found:
            raise DataError(
                f"Column '{name}' is in none of the windows that are observed (they "
                f"have {quoted(names)}).{did_you_mean(name, names)}"
            )
        kinds = {each.type: None for each in found if not pa.types.is_null(each.type)}
        if len(kinds) > 1:
            raise DataError(
                f"Column '{name}' has the types {quoted(map(str, kinds))} in the "
                "windows that are observed. Convert it where it is logged, and add "
                "them again."
            )
        kind = next(iter(kinds), pa.null())
        together[name] = pa.chunked_array(
            [
                chunk.cast(kind)
                for table in tables
                for chunk in (
                    table.column(name).chunks
                    if name in table.column_names
                    else [pa.nulls(table.num_rows, kind)]
                )
            ],
            kind,
        )
    return pa.table(together)
