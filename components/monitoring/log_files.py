"""The files of a log: which a window needs, and the columns of Parquet and CSV."""

from __future__ import annotations

import dataclasses
import datetime
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns import csv, parquet, tfrecord
from penstock.components.monitoring import prediction_logs
from penstock.components.monitoring.logs import LogFormat
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"

Kind: TypeAlias = Literal["PredictionLog", "Parquet", "CSV"]

_DATE = "{date}"
_IN_FOLDERS = (
    prediction_logs.FINISHED,
    "*.parquet",
    "*.csv",
    "*.csv.gz",
    "*.csv.zst",
)
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def find(
    paths: Sequence[Path | str], window: Window | None
) -> tuple[list[Path], list[Path], Kind]:
    """Return the files of a log that a window may need.

    Args:
        paths: As `logs.read_log` takes them.
        window: Which rows are wanted; None for all.

    Returns:
        The files; those that are still being written; and what kind the files are.

    Raises:
        DataError: There are none, or they are of several kinds.
    """
    files: list[Path] = []
    partial: list[Path] = []
    for each in paths:
        found = False
        for path in _expanded(str(each), window):
            found = True
            if window is not None:
                _refuse_gone(path, window)
            if path.is_dir():
                for pattern in _IN_FOLDERS:
                    files += sorted(path.glob(pattern))
                partial += prediction_logs.unfinished(path)
            else:
                files.append(path)
        if not found and _DATE not in str(each):
            raise DataError(f"There is no log '{each}'. Check the path.")
    files = list(dict.fromkeys(files))
    if not files:
        where = ", ".join(f"'{each}'" for each in paths)
        is_or_are = "is" if len(partial) == 1 else "are"
        still = f" ({len(partial)} {is_or_are} still being written)" if partial else ""
        below = "" if still else _below(paths)
        raise DataError(
            f"There is no file of a log in {where}{still}. {below}Pass finished "
            "request logs of the router, or Parquet or CSV files."
        )
    kinds: dict[Kind, Path] = {}
    for file in files:
        kinds.setdefault(kind_of(file), file)
    if len(kinds) > 1:
        some = ", ".join(f"'{path}' is {kind}" for kind, path in sorted(kinds.items()))
        raise DataError(
            f"The files of a log are of different kinds: {some}. Read one kind at a "
            "time."
        )
    (kind,) = kinds
    if kind == "PredictionLog" and window is not None:
        start, end = window.start, window.end
        files = [each for each in files if prediction_logs.may_hold(each, start, end)]
    return files, partial, kind


def _below(paths: Sequence[Path | str]) -> str:
    """Return a sentence on folders below folders, which are not looked into."""
    for each in paths:
        if any(path.is_dir() for path in Path(each).glob("[!.]*")):
            return f"Folders in it are not looked into: '{each}/*' names them. "
    return ""


def _refuse_gone(path: Path, window: Window) -> None:
    """Refuse a window whose raw log was deleted from a folder, or one above it."""
    from penstock.components.monitoring.tier_state import STATE, refuse_gone

    for folder in (path, *path.parents[:3]):
        if (folder / STATE).is_dir():
            refuse_gone(folder, window)


def _expanded(pattern: str, window: Window | None) -> list[Path]:
    patterns = [pattern]
    if _DATE in pattern:
        if window is None:
            patterns = [pattern.replace(_DATE, "*")]
        else:
            first = int(window.start // DAY)
            last = int(np.ceil(window.end / DAY))
            patterns = [
                pattern.replace(_DATE, _iso_date(day)) for day in range(first, last)
            ]
    found: list[Path] = []
    for each in patterns:
        if "*" in each:
            found += [Path(path) for path in sorted(glob.glob(each))]
        elif Path(each).exists():
            found.append(Path(each))
    return found


def _iso_date(day: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def kind_of(path: Path) -> Kind:
    """Return what a file is, by its first bytes.

    Raises:
        DataError: It is called Parquet, and is none.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return "Parquet"
    if path.suffix == ".parquet":
        begins = f"begins with {magic!r}" if magic else "is empty"
        raise DataError(
            f"'{path}' is no Parquet file: it {begins}. Write it again, or give it the "
            "name of what it is."
        )
    if path.name.endswith(".tfrecord") or tfrecord.is_tfrecord(path):
        return "PredictionLog"
    return "CSV"


def seconds(
    column: pa.Array, unit: Literal["s", "ms", "us", "ns"], subject: str, name: str
) -> Array:
    """Return times as seconds since 1970 UTC; float64, shape (rows,), missing as NaN.

    Args:
        column: Timestamps or dates (those without a zone are UTC), ISO 8601 text or
            numbers.
        unit: What numbers count.
        subject: Whose they are, for texts.
        name: What the column is called.

    Raises:
        DataError: They are none of these.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _parsed(column.cast(pa.string()), subject, name)
        kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
        kind = column.type
    if pa.types.is_timestamp(kind):
        ticks = column.cast(pa.int64())
        per_second = _PER_SECOND[kind.unit]
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        ticks = column
        per_second = _PER_SECOND[unit]
    elif pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    else:
        raise DataError(
            f"Column '{name}' of {subject} has type {kind}, which is no time. Name a "
            "column of timestamps, ISO 8601 text or numbers as LogFormat(time=...)."
        )
    found: Array = ticks.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found / per_second


def _parsed(column: pa.Array, subject: str, name: str) -> pa.Array:
    try:
        zoned = pc.match_substring_regex(column, r"(Z|[+-]\d\d:?\d\d)$").fill_null(
            False
        )
        if not pc.any(zoned).as_py():
            return column.cast(pa.timestamp("us"))
        plain = pc.if_else(zoned, column, pc.binary_join_element_wise(column, "Z", ""))
        return plain.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column '{name}' of {subject} has a text that is no time: "
            f"{str(error).splitlines()[0].rstrip('.')}. Write times in ISO 8601, as in "
            "'2026-11-30T12:00:00Z'."
        ) from error


# --- Parquet and CSV as batches of their own columns


@dataclasses.dataclass(frozen=True)
class Piece:
    """Rows of a file.

    Attributes:
        path: The file.
        first: Number of the first of them in the file, from 0.
        batch: The rows; columns as the file has them.
    """

    path: Path
    first: int
    batch: pa.RecordBatch


class TableFiles:
    """The rows of Parquet or CSV files.

    Args:
        files: The files; all of one kind.
        kind: Which.
        format: Which columns mean what.
        window: Row groups without rows of it are not read; None for all.
    """

    def __init__(
        self,
        files: Sequence[Path],
        kind: Kind,
        format: LogFormat,
        window: Window | None,
    ) -> None:
        self._files = files
        self._format = format
        self._window = window
        self._csv: csv.Columns | None = None
        if kind == "CSV":
            self._csv = self._levels()
            self.schema = self._csv.schema
            self.lacking: dict[str, list[str]] = {}
        else:
            self.schema, self.lacking = _united(files)

    def pieces(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield the rows, file after file; columns that a file lacks are missing.

        Args:
            columns: Which columns.
            batch_rows: About how many rows a batch has.

        Raises:
            DataError: A file is damaged, or gives other rows than were counted.
        """
        wanted = pa.schema([self.schema.field(name) for name in columns])
        for path in self._files:
            pieces = (
                self._csv_pieces(path)
                if self._csv is not None
                else self._parquet_pieces(path, columns, batch_rows)
            )
            for first, batch in pieces:
                yield Piece(path, first, _with_columns(batch, wanted))

    def _parquet_pieces(
        self, path: Path, columns: Sequence[str], batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        has = parquet.file_schema(path).names
        present = [name for name in columns if name in has]
        first = 0
        for index, rows in enumerate(parquet.group_rows(path)):
            at = first
            if present and self._may_hold(path, index):
                for batch in parquet.read_group(
                    path, index, columns=present, batch_size=batch_rows
                ):
                    yield at, batch
                    at += batch.num_rows
            first += rows

    def _may_hold(self, path: Path, index: int) -> bool:
        """Return whether a row group may have rows of the window, by its footer."""
        name = self._format.time
        if self._window is None or name is None:
            return True
        with parquet.open_parquet(path) as file:
            group = file.metadata.row_group(index)
            for place in range(group.num_columns):
                column = group.column(place)
                if column.path_in_schema != name:
                    continue
                found = column.statistics
                if found is None or not found.has_min_max:
                    return True
                ends = pa.array([found.min, found.max])
                low, high = seconds(ends, self._format.time_unit, f"'{path}'", name)
                # A footer may hold ends to the microsecond only. Those of texts are
                # the first and last in the order of texts: where zones differ, or a
                # space stands for the 'T', times lie up to two days beyond them.
                beyond = 3 * DAY if isinstance(found.min, str) else 1.0
                return bool(
                    low - beyond < self._window.end
                    and high + beyond >= self._window.start
                )
        return True

    def _levels(self) -> csv.Columns:
        """Return the columns of all CSV files, with types that fit every cell."""
        dialect = csv.Dialect()
        names = csv.read_header(self._files[0], dialect)
        # Ids are text: '007' is another one than '7'.
        id = self._format.id
        explicit = {id: "string"} if id in names and id is not None else {}
        columns = csv.Columns.unseen(names, explicit)
        for path in self._files:
            header = csv.read_header(path, dialect)
            csv.check_same_header(header, path.name, names, self._files[0].name)
            for chunk in csv.chunks(path, dialect):
                parsed = csv.parse(chunk, columns, dialect, infer=not columns.levels)
                _refuse_bad(parsed)
                columns = columns.joined(parsed.levels)
        return columns

    def _csv_pieces(self, path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
        assert self._csv is not None
        dialect = csv.Dialect()
        first = 0
        for chunk in csv.chunks(path, dialect):
            parsed = csv.parse(chunk, self._csv, dialect, infer=False)
            _refuse_bad(parsed)
            if parsed.batch is None or parsed.batch.num_rows != chunk.rows:
                raise DataError(
                    f"'{path}' has other cells now than a moment ago. It was changed "
                    "while it was read; read it again."
                )
            yield first, parsed.batch
            first += chunk.rows


def _refuse_bad(parsed: csv.Parsed) -> None:
    for bad in parsed.bad:
        raise DataError(f"{bad.file}, line {bad.line}: {bad.reason}. {bad.cure}.")


def _united(files: Sequence[Path]) -> tuple[pa.Schema, dict[str, list[str]]]:
    """Return the columns that any of some files has, and which files lack some."""
    kinds: dict[str, tuple[pa.DataType, Path]] = {}
    schemas = {path: parquet.file_schema(path) for path in files}
    for path, schema in schemas.items():
        for field in schema:
            known = kinds.get(field.name)
            kind = field.type
            if known is not None:
                kind = _both(known[0], kind)
                if kind is None:
                    raise DataError(
                        f"Column '{field.name}' has type {field.type} in '{path}' and "
                        f"{known[0]} in '{known[1]}'. Write it with one type, or name "
                        "it in LogFormat(leave_out=...)."
                    )
            kinds[field.name] = (kind, path)
    lacking: dict[str, list[str]] = {}
    for path, schema in schemas.items():
        for name in kinds:
            if name not in schema.names:
                lacking.setdefault(name, []).append(path.name)
    fields = [pa.field(name, kind) for name, (kind, _) in kinds.items()]
    return pa.schema(fields), lacking


def _both(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if one.equals(other) or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if types.is_timestamp(one) and types.is_timestamp(other) and one.tz == other.tz:
        return pa.timestamp("ns" if "ns" in (one.unit, other.unit) else "us", one.tz)
    texts = (types.is_string, types.is_large_string)
    if any(is_(one) for is_ in texts) and any(is_(other) for is_ in texts):
        return pa.large_string()
    whole = (types.is_integer(one), types.is_integer(other))
    if all(whole):
        return pa.int64()
    if all(
        is_whole or types.is_floating(kind)
        for is_whole, kind in zip(whole, (one, other), strict=True)
    ):
        return pa.float64()
    return None


def _with_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        elif batch.column(place).type.equals(field.type):
            arrays.append(batch.column(place))
        else:
            arrays.append(batch.column(place).cast(field.type, safe=False))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
