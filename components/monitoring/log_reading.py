"""Files of a log into `LogTable`s: roles, rules, and what was left out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns import tfrecord
from penstock.components.columns.forms import is_list
from penstock.components.monitoring import prediction_logs
from penstock.components.monitoring.ids import whole_numbers
from penstock.components.monitoring.log_files import Piece, TableFiles, find, seconds
from penstock.components.monitoring.log_rules import Checked, Layout, column_of
from penstock.components.monitoring.logs import (
    ID,
    KNOWN,
    LANE,
    PROBABILITY,
    STRATUM,
    TIME,
    VERSION,
    LogFormat,
    LogRules,
    LogTable,
    check_columns,
)
from penstock.components.monitoring.sample_files import format_of
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

Array: TypeAlias = "np.ndarray[Any, Any]"

_KNOWN_TYPES = {
    ID: pa.string(),
    TIME: pa.float64(),
    VERSION: pa.string(),
    LANE: pa.string(),
    STRATUM: pa.string(),
    PROBABILITY: pa.float64(),
}
_BATCH_ROWS = 50_000


# --- whole logs, and batches


def whole(
    paths: Sequence[Path | str],
    window: Window | None,
    format: LogFormat,
    rules: LogRules,
    version: str | int | None,
) -> LogTable:
    """Read the rows of a window, sorted by time; see `logs.read_log`."""
    opened = _opened(paths, window, format, rules, version, _BATCH_ROWS, keep=True)
    return _gathered(opened, window)


def of_tables(
    tables: Sequence[pa.Table],
    window: Window | None,
    format: LogFormat,
    rules: LogRules,
    version: str | int | None,
    subject: str,
) -> LogTable:
    """Take tables for a log; see `logs.of_table`."""
    table = pa.concat_tables(tables)
    layout, roles = _table_layout(subject, table.schema, format, window)
    checks = Checked(subject, layout, window, rules, _text(version))
    pieces = _pieces_of(table)
    batches = _in_roles(pieces, subject, layout, roles, format, window, rules, checks)
    return _gathered(_Opened(subject, layout, checks, batches, 1), window)


def _pieces_of(table: pa.Table) -> Iterator[Piece]:
    from penstock.components.columns.forms import to_plain

    first = 0
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        yield Piece(Path("table"), first, to_plain(batch))
        first += batch.num_rows


def in_batches(
    paths: Sequence[Path | str],
    window: Window | None,
    format: LogFormat,
    rules: LogRules,
    version: str | int | None,
    batch_rows: int,
) -> Iterator[LogTable]:
    """Read the rows of a window in batches; see `logs.read_log_batches`."""
    opened = _opened(paths, window, format, rules, version, batch_rows, keep=False)
    waiting: LogTable | None = None
    rows = 0
    for batch in opened.batches:
        batch = opened.checks.rows(batch)
        if not batch.num_rows:
            continue
        rows += batch.num_rows
        if waiting is not None:
            yield waiting
        waiting = opened.log(pa.Table.from_batches([batch]), window, ())
    if not rows:
        opened.checks.refuse_none(opened.files)
        waiting = opened.log(opened.layout.schema.empty_table(), window, ())
    assert waiting is not None
    yield dataclasses.replace(waiting, notes=opened.checks.whole_notes())


@dataclasses.dataclass
class _Opened:
    """A log whose batches are read as they are asked for."""

    subject: str
    layout: Layout
    checks: Checked
    batches: Iterator[pa.RecordBatch]
    files: int

    def log(
        self, table: pa.Table, window: Window | None, notes: tuple[str, ...]
    ) -> LogTable:
        layout = self.layout
        return LogTable(
            self.subject,
            table,
            layout.features,
            layout.scores,
            layout.label,
            layout.has_ids,
            window,
            notes,
        )


def _gathered(opened: _Opened, window: Window | None) -> LogTable:
    checks = opened.checks
    batches = list(opened.batches)
    table = pa.Table.from_batches(batches, opened.layout.schema)
    # In order of time first, so that of rows with one id the first is the earliest.
    times = table.column(TIME).to_numpy()
    if np.any(times[1:] < times[:-1]):
        table = table.take(pa.array(np.argsort(times, kind="stable")))
    kept = [
        checks.rows(batch)
        for batch in table.combine_chunks().to_batches(max_chunksize=1 << 20)
    ]
    table = pa.Table.from_batches(kept, opened.layout.schema)
    if not table.num_rows:
        checks.refuse_none(opened.files)
    return opened.log(table, window, checks.whole_notes())


def _text(version: str | int | None) -> str | None:
    return None if version is None else str(version)


def _opened(
    paths: Sequence[Path | str],
    window: Window | None,
    format: LogFormat,
    rules: LogRules,
    version: str | int | None,
    batch_rows: int,
    *,
    keep: bool,
) -> _Opened:
    if not paths:
        raise DataError("No log was named. Pass its files or folders.")
    subject = "The log " + ", ".join(f"'{each}'" for each in paths)
    files, partial, kind = find(paths, window)
    if kind == "PredictionLog":
        opened = _prediction_logs(
            files, subject, window, format, rules, _text(version), batch_rows, keep
        )
    else:
        if kind == "Parquet":
            format = format_of(files, format)
        source = TableFiles(files, kind, format, window)
        layout, roles = _table_layout(subject, source.schema, format, window)
        checks = Checked(subject, layout, window, rules, _text(version))
        for name, where in source.lacking.items():
            if name in {*layout.features, *layout.scores, layout.label}:
                checks.notes.append(
                    f"Column '{name}' is missing in {len(where):,} of {len(files):,} "
                    f"files, the first of them '{where[0]}'."
                )
        pieces = source.pieces(list(dict.fromkeys(roles.values())), batch_rows)
        batches = _in_roles(
            pieces, subject, layout, roles, format, window, rules, checks
        )
        opened = _Opened(subject, layout, checks, batches, len(files))
    if partial:
        opened.checks.notes.append(
            f"{len(partial):,} files are still being written, the first of them "
            f"'{partial[0].name}', and were not read."
        )
    return opened


# --- Parquet, CSV and tables


def _table_layout(
    subject: str, schema: pa.Schema, format: LogFormat, window: Window | None
) -> tuple[Layout, dict[str, str]]:
    """Return the columns of the log, and the file's column of each."""
    roles = {
        known: name
        for known, name in (
            (ID, format.id),
            (TIME, format.time),
            (VERSION, format.version),
            (LANE, format.lane),
            (STRATUM, format.stratum),
            (PROBABILITY, format.probability),
        )
        if name is not None
    }
    if window is not None and TIME not in roles:
        raise DataError(
            f"{subject} has no column of times, so that nobody can tell the rows of "
            f"the window {window.name}. Name it as LogFormat(time=...)."
        )
    label = [] if format.label is None else [format.label]
    named = [*roles.values(), *format.scores, *label, *format.features]
    check_columns(named, schema.names, subject, "The LogFormat")
    skip = {*roles.values(), *format.scores, *label, *format.leave_out}
    features = format.features or tuple(
        name for name in schema.names if name not in skip
    )
    own = [*dict.fromkeys([*features, *format.scores, *label])]
    _refuse_known(own, subject)
    fields = [pa.field(name, _KNOWN_TYPES[name]) for name in KNOWN]
    fields += [schema.field(name) for name in own]
    layout = Layout(
        pa.schema(fields), features, format.scores, format.label, ID in roles
    )
    return layout, {**roles, **{name: name for name in own}}


def _refuse_known(names: Iterable[str], subject: str) -> None:
    for name in names:
        if name in KNOWN:
            raise DataError(
                f"{subject} has a column '{name}', a name that is kept for what is "
                "known of every row. Name the column in LogFormat for what it is, or "
                "in its leave_out."
            )


def _in_roles(
    pieces: Iterable[Piece],
    subject: str,
    layout: Layout,
    roles: dict[str, str],
    format: LogFormat,
    window: Window | None,
    rules: LogRules,
    checks: Checked,
) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        where = f"'{piece.path}'" if piece.path.name != "table" else subject
        count = piece.batch.num_rows
        arrays: dict[str, pa.Array] = {}
        for name in layout.schema.names:
            if name in roles:
                arrays[name] = column_of(piece.batch, roles[name])
        kept = np.ones(count, np.bool_)
        if TIME in arrays:
            times = seconds(arrays[TIME], format.time_unit, where, roles[TIME])
            unknown = np.isnan(times)
            if unknown.any():
                row = piece.first + int(np.argmax(unknown)) + 1
                raise DataError(
                    f"{where} has {int(unknown.sum()):,} rows without a time, the "
                    f"first of them row {row:,}. Log the time of every request."
                )
            checks.in_order(piece.path, times)
            arrays[TIME] = pa.array(times)
            if window is not None:
                kept &= (window.start <= times) & (times < window.end)
        else:
            arrays[TIME] = pa.array(np.zeros(count))
        for name in (VERSION, LANE, STRATUM):
            arrays[name] = _as_text(arrays.get(name, pa.nulls(count)), where, name)
        kept &= _of_lanes(arrays[LANE], rules, kept, checks)
        if ID in arrays:
            arrays[ID] = _as_text(arrays[ID], where, roles[ID])
        else:
            arrays[ID] = prediction_logs.placed(piece.path, piece.first, count)
        arrays[PROBABILITY] = _shares(
            arrays.get(PROBABILITY), count, kept, where, roles
        )
        batch = pa.RecordBatch.from_arrays(
            [arrays[name] for name in layout.schema.names], schema=layout.schema
        )
        yield batch if kept.all() else batch.filter(pa.array(kept))


def _of_lanes(lanes: pa.Array, rules: LogRules, kept: Array, checks: Checked) -> Array:
    if lanes.null_count == len(lanes):
        return np.ones(len(lanes), np.bool_)
    # 'fallback 2 INTERNAL' is of the lane 'fallback'.
    first = pc.replace_substring_regex(lanes.fill_null(""), " .*$", "")
    known = pa.array(["", *rules.lanes], pa.string())
    wanted: Array = pc.is_in(first, value_set=known).to_numpy(zero_copy_only=False)
    others = first.filter(pa.array(kept & ~wanted))
    for lane, count in Counter(others.to_pylist()).items():
        checks.left_out[f"of lane '{lane}'"] += count
    return wanted


def _as_text(array: pa.Array, subject: str, name: str) -> pa.Array:
    """Return ids, versions and the like as text; whole floats without a fraction."""
    kind = array.type
    if pa.types.is_floating(kind):
        column = f"Column '{name}' of {subject}"
        return whole_numbers(array, column).cast(pa.string())
    if (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
        or pa.types.is_boolean(kind)
    ):
        return array.cast(pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return array.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"Column '{name}' of {subject} holds bytes that are no text. Log ids "
                "as text or whole numbers."
            ) from error
    raise DataError(
        f"Column '{name}' of {subject} has type {kind}, which tells no rows apart. Log "
        "it as text or whole numbers."
    )


def _shares(
    array: pa.Array | None,
    count: int,
    kept: Array,
    subject: str,
    roles: dict[str, str],
) -> pa.Array:
    if array is None:
        return pa.array(np.ones(count))
    name = roles[PROBABILITY]
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type)):
        raise DataError(
            f"Column '{name}' of {subject} has type {array.type}, which is no "
            "probability. Name a column of numbers as LogFormat(probability=...)."
        )
    shares = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wrong = kept & ~((shares > 0) & (shares <= 1))
    if wrong.any():
        raise DataError(
            f"Column '{name}' of {subject} has {int(wrong.sum()):,} values that are no "
            f"probabilities, the first of them {shares[int(np.argmax(wrong))]:g}. Log "
            "with which probability a row was kept, from above 0 to 1."
        )
    return pa.array(shares)


# --- PredictionLog


def _prediction_logs(
    files: Sequence[Path],
    subject: str,
    window: Window | None,
    format: LogFormat,
    rules: LogRules,
    version: str | None,
    batch_rows: int,
    keep: bool,
) -> _Opened:
    """Read the files once for the types of columns, and again for their rows.

    Args:
        keep: Whether to hold the batches in memory, rather than to read again.
    """
    start, end = (-math.inf, math.inf) if window is None else (window.start, window.end)
    wanted = prediction_logs.Wanted(start, end, version, rules.lanes)
    shape = tfrecord.Shape()
    for name in (TIME, PROBABILITY):
        shape.add(pa.RecordBatch.from_arrays([pa.array([], pa.float64())], [name]), "")
    for name in (VERSION, LANE, STRATUM):
        shape.add(pa.RecordBatch.from_arrays([pa.array([], pa.string())], [name]), "")
    held: list[tuple[Path, pa.RecordBatch]] = []
    order = Checked(subject, _NO_LAYOUT, window, rules, version)
    for path in files:
        for batch, times in prediction_logs.read(path, format, wanted, batch_rows):
            order.in_order(path, times)
            if batch.num_rows:
                shape.add(batch, f"'{path}'")
                if keep:
                    held.append((path, batch))
    names, layout = _prediction_layout(subject, shape.schema(), format)
    checks = Checked(subject, layout, window, rules, version)
    checks.left_out.update(order.left_out)
    checks.noun = "records"  # those of other versions are not taken apart into rows
    for why, count in wanted.left_out.items():
        if why != "of other times" and not why.startswith("of version"):
            checks.left_out[why] += count
    if version is not None:
        checks.versions.update(
            {each: rows for each, rows in wanted.versions.items() if each != version}
        )

    def again() -> Iterator[tuple[Path, pa.RecordBatch]]:
        nothing = dataclasses.replace(wanted, left_out=Counter(), versions=Counter())
        for path in files:
            for batch, _ in prediction_logs.read(path, format, nothing, batch_rows):
                yield path, batch

    batches = _natural(
        held if keep else again(), shape.schema(), names, layout, subject
    )
    return _Opened(subject, layout, checks, batches, len(files))


_NO_LAYOUT = Layout(pa.schema([]), (), (), None, False)


def _prediction_layout(
    subject: str, schema: pa.Schema, format: LogFormat
) -> tuple[dict[str, str], Layout]:
    """Return the key of each column while it is read, and the layout."""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for key in schema.names:
        side, name = prediction_logs.side_and_name(key)
        if side == "input":
            inputs[name] = key
        elif side == "output":
            outputs[name] = key
    for name in sorted(outputs.keys() & inputs.keys()):
        outputs[f"output_{name}"] = outputs.pop(name)
        if f"output_{name}" in inputs:
            raise DataError(
                f"{subject} has the output '{name}', whose other name 'output_{name}' "
                "is that of an input, too. Name one of them in "
                "LogFormat(leave_out=...)."
            )
    names = {**inputs, **outputs}
    label = [] if format.label is None else [format.label]
    id = [] if format.id is None else [format.id]
    if names:
        named = [*id, *label, *format.scores, *format.features]
        check_columns(named, list(names), subject, "The LogFormat")
    elif id:
        names[id[0]] = ID
    scores = format.scores or tuple(
        name for name in outputs if name not in {*id, *label}
    )
    features = format.features or tuple(
        name for name in inputs if name not in {*id, *label, *scores}
    )
    own = [*dict.fromkeys([*features, *scores, *(label if inputs or outputs else [])])]
    _refuse_known(own, subject)
    fields = [pa.field(name, _KNOWN_TYPES[name]) for name in KNOWN]
    fields += [pa.field(name, schema.field(names[name]).type) for name in own]
    keys = {name: names[name] for name in own}
    if id:
        keys[ID] = names[id[0]]
    layout = Layout(pa.schema(fields), features, scores, format.label, bool(id))
    return keys, layout


def _natural(
    batches: Iterable[tuple[Path, pa.RecordBatch]],
    schema: pa.Schema,
    keys: dict[str, str],
    layout: Layout,
    subject: str,
) -> Iterator[pa.RecordBatch]:
    for path, grouped in itertools.groupby(batches, key=lambda pair: pair[0]):
        first = 0
        for _, batch in grouped:
            natural = tfrecord.to_natural(batch, schema)
            arrays = {
                name: column_of(natural, keys.get(name, name))
                for name in layout.schema.names
                if name != ID
            }
            if layout.has_ids:
                ids = column_of(natural, keys[ID])
                if is_list(ids.type):
                    raise DataError(
                        f"{subject} has lists of ids, where a row has one. Name "
                        "another input as LogFormat(id=...)."
                    )
                arrays[ID] = _as_text(ids, f"'{path}'", keys[ID].partition(":")[2])
            else:
                arrays[ID] = prediction_logs.placed(path, first, batch.num_rows)
            first += batch.num_rows
            yield pa.RecordBatch.from_arrays(
                [arrays[name] for name in layout.schema.names], schema=layout.schema
            )
