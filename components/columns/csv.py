"""CSV files as batches: cut at record ends, typed over the whole input, rows counted.

The text is cut into chunks of whole records by a scan for quotes and line ends, which
also counts the rows; pyarrow parses the chunks, and both must agree on their number.
"""

from __future__ import annotations

import codecs
import dataclasses
import enum
import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from penstock.schemas.errors import DataError, did_you_mean, quoted

CHUNK_BYTES = 2 << 20
"""About how much text is parsed at a time."""

MOST_RECORD_BYTES = 64 << 20
"""A record longer than this is taken for a quote that was never closed."""

COLUMN_TYPES: Mapping[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
"""The types that a user can give a column, by name."""

_Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

_BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13
_UTF8 = ("utf-8", "ascii", "utf-8-sig")
_EXACT = float(1 << 53)  # float64 holds every integer up to here


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How the text of a CSV file is meant.

    Attributes:
        delimiter: What stands between fields, one ASCII character.
        quote: What encloses a field that holds delimiters, quotes or line ends; a
            quote inside is doubled. None if quotes mean nothing.
        encoding: Name of the encoding, as Python knows it.
        missing_values: What stands for a missing value, beside nothing at all.
    """

    delimiter: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    missing_values: tuple[str, ...] = ()


class Level(enum.IntEnum):
    """What the cells of a column need, from the least to the most.

    Cells are empty (NULL), empty with quotes (EMPTY), integers (INT), integers of
    which float64 cannot hold some (BIG_INT), numbers (FLOAT), or text.
    """

    NULL = 0
    EMPTY = 1
    INT = 2
    BIG_INT = 3
    FLOAT = 4
    STRING = 5


def joined(one: Level, other: Level) -> Level:
    """Return what cells of both levels need together.

    Numbers that float64 cannot hold beside integers become text, so that no digit is
    lost.
    """
    if {one, other} == {Level.BIG_INT, Level.FLOAT}:
        return Level.STRING
    return max(one, other)


_TYPE_OF_LEVEL = {
    Level.NULL: pa.null(),
    Level.EMPTY: pa.string(),
    Level.INT: pa.int64(),
    Level.BIG_INT: pa.int64(),
    Level.FLOAT: pa.float64(),
    Level.STRING: pa.string(),
}


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of CSV files: their names, and what is known of their types.

    Attributes:
        names: The header.
        explicit: Types that the user gave, by column.
        levels: What the cells seen so far need, for every other column.
    """

    names: tuple[str, ...]
    explicit: Mapping[str, str]
    levels: Mapping[str, Level]

    @classmethod
    def unseen(cls, names: Sequence[str], explicit: Mapping[str, str]) -> Columns:
        """Return columns of which no cell was seen."""
        levels = {name: Level.NULL for name in names if name not in explicit}
        return cls(tuple(names), dict(explicit), levels)

    def joined(self, levels: Mapping[str, Level]) -> Columns:
        """Return the columns with more cells seen."""
        both = {
            name: joined(level, levels[name]) for name, level in self.levels.items()
        }
        return dataclasses.replace(self, levels=both)

    @property
    def schema(self) -> pa.Schema:
        """The types that the columns have, all cells seen.

        A column without any value has the type null.
        """
        return pa.schema([pa.field(name, self._type(name)) for name in self.names])

    def _type(self, name: str) -> pa.DataType:
        if name in self.explicit:
            return COLUMN_TYPES[self.explicit[name]]
        return _TYPE_OF_LEVEL[self.levels[name]]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A piece of a CSV file: whole records, as UTF-8.

    Attributes:
        file: The file, as texts name it.
        text: The records.
        line: Number of the line in the file where it begins, from 1.
        rows: How many records it holds, by the scan; blank lines are none.
        is_open: Whether its last quote is never closed.
        lines: The line on which each record begins, if records were taken out.
    """

    file: str
    text: bytes
    line: int
    rows: int
    is_open: bool = False
    lines: tuple[int, ...] | None = None

    def line_of(self, row: int, start: int) -> int:
        """Return the line on which a record begins, `start` bytes into the text."""
        if self.lines is not None:
            return self.lines[row]
        return self.line + _count_lines(self.text[:start])


@dataclasses.dataclass(frozen=True)
class BadLine:
    """A record that cannot be read.

    Attributes:
        file: The file, as texts name it.
        line: Number of the line on which it begins, from 1.
        reason: What is wrong with it.
        cure: What to do about it.
        text: The record, as it stands, in UTF-8.
    """

    file: str
    line: int
    reason: str
    cure: str
    text: bytes

    def error(self) -> DataError:
        """Return the error that names it."""
        return DataError(
            f"{self.file}, line {self.line}: {self.reason}. {self.cure}, or pass "
            'on_bad_line="quarantine" to set such lines aside.'
        )


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What became of a chunk.

    Attributes:
        batch: Its good rows, if they fit the types that were expected.
        levels: What its cells need.
        bad: Its bad records.
    """

    batch: pa.RecordBatch | None
    levels: Mapping[str, Level]
    bad: tuple[BadLine, ...] = ()


# --- the text, in chunks of whole records ------------------------------------------


def is_utf8(encoding: str) -> bool:
    """Return whether text of an encoding can be read without decoding it."""
    return codecs.lookup(encoding).name in _UTF8


def _opened(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(path))
    if magic == b"\x28\xb5\x2f\xfd":
        return cast("IO[bytes]", pa.input_stream(str(path), compression="zstd"))
    return open(path, "rb", buffering=0)


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """Yield the file's bytes, decompressed."""
    with _opened(path) as file:
        while True:
            try:
                block = file.read(size)
            except (EOFError, OSError, zlib.error) as error:
                raise DataError(
                    f"'{path.name}' cannot be decompressed to its end: {error}. It is "
                    "cut off or damaged; copy it again."
                ) from error
            if not block:
                return
            yield block


def _utf8_blocks(path: Path, encoding: str, size: int) -> Iterator[bytes]:
    """Yield the file's text as UTF-8, without a byte order mark."""
    if is_utf8(encoding):
        first = True
        for block in _blocks(path, size):
            yield block[3:] if first and block.startswith(_BOM) else block
            first = False
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    first = True
    blocks = _blocks(path, size)
    for block in itertools.chain(blocks, (b"",)):  # nothing more: the end
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            lines += error.object[: error.start].decode(encoding, "ignore").count("\n")
            raise _not_encoded(path.name, lines, encoding) from error
        lines += text.count("\n")
        yield (text.removeprefix("\ufeff") if first else text).encode()
        first = first and not text


def _not_encoded(file: str, line: int, encoding: str) -> DataError:
    return DataError(
        f"{file}, line {line}: bytes that are no {encoding} text. Pass the encoding "
        'that the file is written in, such as encoding="latin-1".'
    )


@dataclasses.dataclass(frozen=True)
class _Spans:
    """The quoted stretches of a text that begins at a record's beginning."""

    opens: _Positions
    closes: _Positions

    @property
    def is_open(self) -> bool:
        return len(self.opens) > len(self.closes)

    def outside(self, positions: _Positions) -> _Positions:
        """Return those of the positions that are not quoted."""
        if len(self.opens) == 0:
            return positions
        before = np.searchsorted(self.opens, positions)
        is_outside = before == np.searchsorted(self.closes, positions)
        return np.asarray(positions[is_outside], np.intp)


def _spans(text: bytes, dialect: Dialect) -> _Spans:
    none = np.zeros(0, np.intp)
    if dialect.quote is None or dialect.quote.encode() not in text:
        return _Spans(none, none)
    codes = np.frombuffer(text, np.uint8)
    quote, delimiter = ord(dialect.quote), ord(dialect.delimiter)
    places = np.flatnonzero(codes == quote)
    opens, closes = places[0::2], places[1::2]
    ends = np.zeros(256, np.bool_)
    ends[[quote, delimiter, _LF, _CR]] = True
    before = codes[np.maximum(opens - 1, 0)]
    after = codes[np.minimum(closes + 1, len(codes) - 1)]
    if np.all(ends[before] | (opens == 0)) and np.all(ends[after]):
        return _Spans(opens, closes)
    return _spans_one_by_one(text, places.tolist(), dialect)


def _spans_one_by_one(text: bytes, places: list[int], dialect: Dialect) -> _Spans:
    """Find quoted stretches where quotes that begin no field are text."""
    starts = {ord(dialect.delimiter), _LF, _CR}
    opens: list[int] = []
    closes: list[int] = []
    at = 0
    while at < len(places):
        place = places[at]
        at += 1
        if place and text[place - 1] not in starts:
            continue
        opens.append(place)
        while at + 1 < len(places) and places[at + 1] == places[at] + 1:
            at += 2  # a doubled quote
        if at < len(places):
            closes.append(places[at])
            at += 1
    return _Spans(np.array(opens, np.intp), np.array(closes, np.intp))


def _line_ends(text: bytes, *, final: bool) -> _Positions:
    """Return where lines end: at LF, CR LF (its LF), and CR alone."""
    codes = np.frombuffer(text, np.uint8)
    if b"\r" not in text:
        return np.flatnonzero(codes == _LF)
    is_end = codes == _LF
    returns = np.flatnonzero(codes == _CR)
    if not final and len(returns) and returns[-1] == len(codes) - 1:
        returns = returns[:-1]  # its LF may follow in the next block
    following = codes[np.minimum(returns + 1, len(codes) - 1)]
    is_end[returns[(following != _LF) | (returns == len(codes) - 1)]] = True
    return np.flatnonzero(is_end)


def _records(text: bytes, dialect: Dialect) -> tuple[_Positions, _Positions]:
    """Return where the records of a whole text begin and end, blank lines left out."""
    ends = _spans(text, dialect).outside(_line_ends(text, final=True)) + 1
    if not len(ends) or ends[-1] != len(text):
        ends = np.append(ends, len(text))
    starts = np.append(0, ends[:-1])
    lengths = ends - starts
    codes = np.frombuffer(text, np.uint8)
    is_blank = lengths == 0
    first = codes[np.minimum(starts, len(codes) - 1)]
    is_end = (first == _LF) | (first == _CR)
    is_blank |= is_end & (lengths == 1)
    is_blank |= (first == _CR) & (lengths == 2)
    return starts[~is_blank], ends[~is_blank]


def _cut(text: bytes, dialect: Dialect, *, final: bool) -> int:
    """Return where the last whole record of a text ends."""
    has_quotes = dialect.quote is not None and dialect.quote.encode() in text
    if not has_quotes and b"\r" not in text:
        return text.rfind(b"\n") + 1
    ends = _spans(text, dialect).outside(_line_ends(text, final=final))
    return int(ends[-1]) + 1 if len(ends) else 0


def _count(text: bytes, dialect: Dialect) -> int:
    """Return the number of records of a text, without parsing a field."""
    has_quotes = dialect.quote is not None and dialect.quote.encode() in text
    if has_quotes or b"\r" in text or b"\n\n" in text or text.startswith(b"\n"):
        return len(_records(text, dialect)[0])
    return _count_lines(text) + (not text.endswith(b"\n"))


def _count_lines(text: bytes) -> int:
    if b"\r" in text:
        return len(_line_ends(text, final=True))
    # Twenty times as fast as bytes.count, and beside other threads.
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _LF))


def _pieces(
    path: Path, dialect: Dialect, size: int
) -> Iterator[tuple[bytes, int, bool]]:
    """Yield whole records as text, the line they begin on, and if a quote is open."""
    rest = b""
    line = 1
    for block in _utf8_blocks(path, dialect.encoding, size):
        rest = rest + block if rest else block
        cut = _cut(rest, dialect, final=False)
        if cut:
            yield rest[:cut], line, False
            line += _count_lines(rest[:cut])
            rest = rest[cut:]
        elif len(rest) > MOST_RECORD_BYTES:
            raise DataError(
                f"{path.name}, line {line}: a record that does not end within "
                f"{MOST_RECORD_BYTES >> 20} MiB. Close the quote that was opened "
                "there, or pass quote=None if quotes mean nothing in this file."
            )
    cut = _cut(rest, dialect, final=True) if rest else 0
    if cut:
        yield rest[:cut], line, False
        line += _count_lines(rest[:cut])
    if rest[cut:]:
        yield rest[cut:], line, _spans(rest[cut:], dialect).is_open


def read_header(path: Path, dialect: Dialect) -> tuple[str, ...]:
    """Return the column names of a CSV file, its first line that is not blank.

    Raises:
        DataError: If the file is empty, its header is not text of the encoding, or a
            name is missing or there twice.
    """
    return _header_and_rest(path, dialect)[0]


def chunks(path: Path, dialect: Dialect, *, size: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Read a CSV file, without its header, in chunks of whole records.

    Args:
        path: The file: plain, gzip or zstd.
        dialect: How its text is meant.
        size: About how many bytes of text a chunk has.

    Yields:
        The chunks, in order; none without a record.

    Raises:
        DataError: If the text cannot be decompressed or decoded, the header is
            wrong, or a record does not end.
    """
    for chunk in _header_and_rest(path, dialect, size)[1]:
        if chunk.rows:
            yield chunk


def _header_and_rest(
    path: Path, dialect: Dialect, size: int = CHUNK_BYTES
) -> tuple[tuple[str, ...], Iterator[Chunk]]:
    pieces = _pieces(path, dialect, size)
    for text, line, is_open in pieces:
        starts, ends = _records(text, dialect)
        if not len(starts):
            continue
        start, end = int(starts[0]), int(ends[0])
        line += _count_lines(text[:start])
        if is_open:
            raise _never_closed(path.name, line, b"").error()
        names = _parsed_header(text[start:end], path.name, line, dialect)
        rest = text[end:]
        return names, _chunks(
            path.name, rest, line + _count_lines(text[start:end]), pieces, dialect
        )
    raise DataError(
        f"{path.name} is empty. A CSV file begins with a line of column names; add it, "
        "or leave the file out by the pattern."
    )


def _chunks(
    file: str,
    text: bytes,
    line: int,
    pieces: Iterator[tuple[bytes, int, bool]],
    dialect: Dialect,
) -> Iterator[Chunk]:
    if text:
        yield Chunk(file, text, line, _count(text, dialect))
    for text, line, is_open in pieces:
        yield Chunk(file, text, line, _count(text, dialect), is_open)


def _parsed_header(
    record: bytes, file: str, line: int, dialect: Dialect
) -> tuple[str, ...]:
    if b"\0" in record:
        raise DataError(
            f"{file}, line {line}: the header holds NUL bytes. Pass the encoding that "
            'the file is written in, such as encoding="utf-16".'
        )
    try:
        record.decode()
    except UnicodeDecodeError as error:
        raise _not_encoded(file, line, dialect.encoding) from error
    import csv

    quoting: Literal[0, 3] = 3 if dialect.quote is None else 0  # none, minimal
    reader = csv.reader(
        record.decode().splitlines(keepends=True),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        quoting=quoting,
    )
    names = next(reader)
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise DataError(
                f"{file}, line {line}: column {place} of the header has no name. Name "
                "every column."
            )
        if name in names[: place - 1]:
            raise DataError(
                f"{file}, line {line}: the header names the column '{name}' twice. "
                "Give every column a name of its own."
            )
    return tuple(names)


# --- parsing a chunk ---------------------------------------------------------------


def check_same_header(
    names: Sequence[str], file: str, expected: Sequence[str], first_file: str
) -> None:
    """Check that a file has the header of the first one.

    Raises:
        DataError: If columns are missing, new or in another order.
    """
    if list(names) == list(expected):
        return
    missing = [name for name in expected if name not in names]
    more = [name for name in names if name not in expected]
    if missing or more:
        parts = [f"lacks {quoted(missing)}"] if missing else []
        parts += [f"has {quoted(more)} more"] if more else []
        raise DataError(
            f"{file} {' and '.join(parts)}, compared with the columns of {first_file}. "
            "Give all files the same header, or separate them by the pattern."
        )
    place = next(i for i, name in enumerate(names) if name != expected[i])
    raise DataError(
        f"{file} has the columns of {first_file} in another order: column {place + 1} "
        f"is '{names[place]}' where '{expected[place]}' is expected. Write all files "
        "with the same header."
    )


def check_explicit(explicit: Mapping[str, str], names: Sequence[str]) -> None:
    """Check that every column with an explicit type is there.

    Raises:
        DataError: If one is not.
    """
    for name in explicit:
        if name not in names:
            raise DataError(
                f"column_types names the column '{name}', which the input does not "
                f"have (it has {quoted(names)}).{did_you_mean(name, names)}"
            )


def parse(chunk: Chunk, columns: Columns, dialect: Dialect, *, infer: bool) -> Parsed:
    """Parse a chunk.

    Args:
        chunk: Records.
        columns: What its columns are expected to be.
        dialect: How its text is meant.
        infer: Whether to find out what its cells need by themselves, rather than to
            parse them as expected. If expected types do not fit, that happens anyhow.

    Returns:
        The batch, or None if it does not fit the expected types; what the cells need;
        and the records that cannot be read, which the batch does not hold.

    Raises:
        DataError: If the parser finds other rows than the scan: nothing is lost
            silently.
    """
    bad: list[BadLine] = []
    if b"\0" in chunk.text or chunk.is_open:
        chunk = _without_malformed(chunk, columns, dialect, bad)
    try:
        return _parsed(chunk, columns, dialect, infer, bad)
    except pa.ArrowInvalid:
        chunk = _without_malformed(chunk, columns, dialect, bad)
    try:
        return _parsed(chunk, columns, dialect, infer, bad)
    except pa.ArrowInvalid:
        chunk = _without_misfits(chunk, columns, dialect, bad)
    try:
        return _parsed(chunk, columns, dialect, infer, bad)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{chunk.file}, from line {chunk.line}: {error}. Check the records there "
            "against the delimiter, the quote and the encoding that were passed."
        ) from error


def _parsed(
    chunk: Chunk, columns: Columns, dialect: Dialect, infer: bool, bad: list[BadLine]
) -> Parsed:
    found = tuple(sorted(bad, key=lambda line: line.line))
    if chunk.rows == 0:
        return Parsed(_no_rows(columns), columns.levels, found)
    if not infer:
        try:
            table = _read(chunk, columns.schema, dialect)
        except pa.ArrowInvalid:
            table = None
        if table is not None:
            levels = _levels_needed(table, chunk, columns, dialect)
            if columns.joined(levels).schema == columns.schema:
                return Parsed(_one_batch(table), levels, found)
            return Parsed(None, levels, found)
    return Parsed(None, _inferred(chunk, columns, dialect), found)


def _no_rows(columns: Columns) -> pa.RecordBatch:
    schema = columns.schema
    return pa.RecordBatch.from_arrays(
        [pa.nulls(0, each.type) for each in schema], schema=schema
    )


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _read(
    chunk: Chunk,
    types: pa.Schema | Mapping[str, pa.DataType],
    dialect: Dialect,
    *,
    names: Sequence[str] | None = None,
    include: Sequence[str] | None = None,
    quoted_is_null: bool | None = None,
) -> pa.Table:
    """Parse a chunk with pyarrow, and prove the number of its rows.

    Quoted cells that stand for a missing value are values in a column of text, and
    missing in others: where that makes a difference, the two are parsed apart.
    """
    if isinstance(types, pa.Schema):
        schema = types
        names = schema.names
        types = {each.name: each.type for each in schema}
        text = [name for name, kind in types.items() if pa.types.is_string(kind)]
        other = [name for name in names if name not in text]
        try:
            return _read(chunk, types, dialect, names=names, quoted_is_null=False)
        except pa.ArrowInvalid:
            if not other or not _has_quoted_null(chunk.text, dialect):
                raise
        table = _read(
            chunk, types, dialect, names=names, include=other, quoted_is_null=True
        )
        if text:
            strings = _read(
                chunk, types, dialect, names=names, include=text, quoted_is_null=False
            )
            for name in text:
                table = table.append_column(name, strings.column(name))
        return table.select(names)
    table = pa_csv.read_csv(
        pa.BufferReader(chunk.text),
        read_options=pa_csv.ReadOptions(
            column_names=list(names or ()),
            use_threads=False,
            block_size=len(chunk.text) + 1,
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote if dialect.quote is not None else False,
            double_quote=True,
            escape_char=False,
            newlines_in_values=True,
            ignore_empty_lines=True,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=types,
            null_values=["", *dialect.missing_values],
            strings_can_be_null=True,
            quoted_strings_can_be_null=bool(quoted_is_null),
            include_columns=list(include) if include is not None else [],
        ),
    )
    if table.num_rows != chunk.rows:
        raise DataError(
            f"{chunk.file}, from line {chunk.line}: the parser found {table.num_rows} "
            f"rows where a count of the records found {chunk.rows}. Check the quotes "
            "in this part of the file, or pass quote=None if they mean nothing."
        )
    return table


def _has_quoted_null(text: bytes, dialect: Dialect) -> bool:
    if dialect.quote is None:
        return False
    quote = dialect.quote
    return any(
        f"{quote}{token}{quote}".encode() in text
        for token in ("", *dialect.missing_values)
    )


# --- what the cells of a chunk need ------------------------------------------------


def _levels_needed(
    table: pa.Table, chunk: Chunk, columns: Columns, dialect: Dialect
) -> dict[str, Level]:
    """Return what cells need that were parsed as expected; most need just that."""
    levels = {}
    has_hex = _has_hex(chunk.text)
    for name, level in columns.levels.items():
        values = table.column(name)
        if level is Level.EMPTY:
            empty = pc.all(pc.equal(values, "")).as_py()
            if empty is False:
                level = _inferred(chunk, columns, dialect)[name]
        elif level in (Level.INT, Level.BIG_INT, Level.FLOAT):
            level = _number_level(values, name, chunk, columns, dialect, has_hex)
        levels[name] = level
    return levels


def _number_level(
    values: pa.ChunkedArray,
    name: str,
    chunk: Chunk,
    columns: Columns,
    dialect: Dialect,
    has_hex: bool,
) -> Level:
    """Return what the cells of a column need that were parsed as numbers."""
    is_int = pa.types.is_int64(values.type)
    if is_int:
        level = Level.BIG_INT if _has_inexact(values) else Level.INT
    else:
        level = Level.FLOAT
        numbers = np.abs(values.drop_null().to_numpy())
        if not has_hex and not np.any((numbers >= _EXACT) & (numbers < np.inf)):
            return level
    if is_int and not has_hex:
        return level
    cells = _read(
        chunk,
        {name: pa.string()},
        dialect,
        names=columns.names,
        include=[name],
        quoted_is_null=True,
    ).column(name)
    for cell in pc.unique(cells).drop_null().to_pylist():
        if not _keeps_digits(cell.strip(), is_int=is_int):
            return Level.STRING
    return level


def _has_hex(text: bytes) -> bool:
    """Return whether there may be a hexadecimal number, which stays text."""
    codes = np.frombuffer(text, np.uint8)
    after_zero = codes[:-1] == ord("0")
    return any(bool(np.any(after_zero & (codes[1:] == ord(letter)))) for letter in "xX")


def _keeps_digits(cell: str, *, is_int: bool) -> bool:
    """Return whether the number that a cell is parsed to says all that it says."""
    digits = cell.lstrip("+-")
    if digits[:2] in ("0x", "0X"):
        return False
    if is_int or not digits.isdigit():
        return True
    return len(digits) < 20 and _is_exact(int(digits))


def _is_exact(number: int) -> bool:
    return number < 1 << 63 and int(float(number)) == number


def _has_inexact(values: pa.ChunkedArray) -> bool:
    """Return whether there are integers that float64 cannot hold."""
    ends = pc.min_max(values).as_py()
    if ends["min"] is None or (ends["min"] >= -_EXACT and ends["max"] <= _EXACT):
        return False
    numbers = values.drop_null().to_numpy()
    return bool(np.any(numbers.astype(np.float64).astype(object) != numbers))


def _inferred(chunk: Chunk, columns: Columns, dialect: Dialect) -> dict[str, Level]:
    """Return what the cells of a chunk need by themselves."""
    explicit = {name: COLUMN_TYPES[kind] for name, kind in columns.explicit.items()}
    free = list(columns.levels)
    if not free:
        _read(chunk, columns.schema, dialect)
        return {}
    table = _read(
        chunk,
        {},
        dialect,
        names=columns.names,
        include=free,
        quoted_is_null=False,
    )
    levels = {
        name: _guessed_level(table.column(name), name, chunk, columns, dialect)
        for name in free
    }
    doubtful = [name for name, level in levels.items() if level is Level.STRING]
    if doubtful and _has_quoted_null(chunk.text, dialect):
        table = _read(
            chunk,
            {},
            dialect,
            names=columns.names,
            include=doubtful,
            quoted_is_null=True,
        )
        for name in doubtful:
            level = _guessed_level(table.column(name), name, chunk, columns, dialect)
            levels[name] = Level.EMPTY if level is Level.NULL else level
    if explicit:
        # Explicit types must fit; whoever calls finds the records that do not.
        _read_explicit(chunk, columns, explicit, dialect)
    return levels


def _read_explicit(
    chunk: Chunk,
    columns: Columns,
    explicit: Mapping[str, pa.DataType],
    dialect: Dialect,
) -> pa.Table:
    for quoted_is_null in (False, True):
        try:
            return _read(
                chunk,
                explicit,
                dialect,
                names=columns.names,
                include=list(explicit),
                quoted_is_null=quoted_is_null,
            )
        except pa.ArrowInvalid:
            if quoted_is_null:
                raise
    raise AssertionError


def _guessed_level(
    values: pa.ChunkedArray,
    name: str,
    chunk: Chunk,
    columns: Columns,
    dialect: Dialect,
) -> Level:
    if pa.types.is_null(values.type):
        return Level.NULL
    if pa.types.is_int64(values.type) or pa.types.is_float64(values.type):
        has_hex = _has_hex(chunk.text)
        return _number_level(values, name, chunk, columns, dialect, has_hex)
    if pa.types.is_binary(values.type):
        raise pa.ArrowInvalid("The text is not UTF-8.")
    # Whatever else pyarrow takes cells for (bool, date, time) stays the text it is.
    return Level.STRING


# --- bad records -------------------------------------------------------------------


def _never_closed(file: str, line: int, text: bytes) -> BadLine:
    return BadLine(
        file,
        line,
        "a quote is opened in the record that begins here, and never closed",
        "Close it",
        text,
    )


def _without_malformed(
    chunk: Chunk, columns: Columns, dialect: Dialect, bad: list[BadLine]
) -> Chunk:
    """Take records out that are not text, or have too many or too few fields."""
    text = chunk.text
    starts, ends = _records(text, dialect)
    if chunk.is_open:
        line = chunk.line_of(len(starts) - 1, int(starts[-1]))
        bad.append(_never_closed(chunk.file, line, text[starts[-1] :]))
        kept = np.arange(len(starts) - 1)
        chunk = _kept(chunk, starts, ends, kept)
        return _without_malformed(chunk, columns, dialect, bad) if len(kept) else chunk
    codes = np.frombuffer(text, np.uint8)
    delimiters = np.flatnonzero(codes == ord(dialect.delimiter))
    delimiters = _spans(text, dialect).outside(delimiters)
    owners = np.searchsorted(ends, delimiters, side="right")
    fields = np.bincount(owners, minlength=len(ends)) + 1
    reasons: dict[int, tuple[str, str]] = {}
    for row in np.flatnonzero(fields != len(columns.names)).tolist():
        count, expected = int(fields[row]), len(columns.names)
        noun = "field" if count == 1 else "fields"
        reason = f"{count} {noun} where the header has {expected}"
        reasons[row] = (reason, "Fix the line")
    nuls = np.searchsorted(ends, np.flatnonzero(codes == 0), side="right")
    for row in np.unique(nuls).tolist():
        reasons.setdefault(
            row,
            (
                "the record holds a NUL byte",
                "Pass the encoding of the file, fix the line",
            ),
        )
    if not _is_utf8_text(text):
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if not _is_utf8_text(text[start:end]):
                reason = f"bytes that are no {dialect.encoding} text"
                cure = "Pass the encoding that the file is written in, such as "
                reasons.setdefault(row, (reason, cure + 'encoding="latin-1"'))
    return _without(chunk, starts, ends, reasons, bad)


def _without(
    chunk: Chunk,
    starts: _Positions,
    ends: _Positions,
    reasons: Mapping[int, tuple[str, str]],
    bad: list[BadLine],
) -> Chunk:
    if not reasons:
        return chunk
    for row in sorted(reasons):
        start, end = int(starts[row]), int(ends[row])
        line = chunk.line_of(row, start)
        reason, cure = reasons[row]
        bad.append(BadLine(chunk.file, line, reason, cure, chunk.text[start:end]))
    good = np.ones(len(starts), np.bool_)
    good[list(reasons)] = False
    return _kept(chunk, starts, ends, np.flatnonzero(good))


def _kept(
    chunk: Chunk, starts: _Positions, ends: _Positions, kept: _Positions
) -> Chunk:
    lines = chunk.lines
    if lines is None:
        # The lines that begin records are counted once for all of them.
        line_ends = _line_ends(chunk.text, final=True)
        lines = tuple((np.searchsorted(line_ends, starts) + chunk.line).tolist())
    pairs = zip(starts[kept].tolist(), ends[kept].tolist(), strict=True)
    return dataclasses.replace(
        chunk,
        text=b"".join(chunk.text[start:end] for start, end in pairs),
        rows=len(kept),
        is_open=False,
        lines=tuple(lines[row] for row in kept.tolist()),
    )


def _is_utf8_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _misfits(
    chunk: Chunk,
    columns: Columns,
    name: str,
    dialect: Dialect,
    starts: _Positions,
    ends: _Positions,
) -> Iterator[int]:
    """Find the records whose cell does not fit an explicit type, by halving."""
    kinds = {name: COLUMN_TYPES[columns.explicit[name]]}
    ranges = [(0, len(starts))] if len(starts) else []
    while ranges:
        low, high = ranges.pop()
        text = chunk.text[starts[low] : ends[high - 1]]
        part = Chunk(chunk.file, text, chunk.line, high - low)
        try:
            _read_explicit(part, columns, kinds, dialect)
        except pa.ArrowInvalid:
            if high - low == 1:
                yield low
            else:
                middle = (low + high) // 2
                ranges += [(middle, high), (low, middle)]


def _without_misfits(
    chunk: Chunk, columns: Columns, dialect: Dialect, bad: list[BadLine]
) -> Chunk:
    """Take records out that do not fit an explicit type."""
    starts, ends = _records(chunk.text, dialect)
    reasons: dict[int, tuple[str, str]] = {}
    for name, kind in columns.explicit.items():
        for row in _misfits(chunk, columns, name, dialect, starts, ends):
            record = chunk.text[starts[row] : ends[row]]
            cell = _read(
                Chunk(chunk.file, record, chunk.line, 1),
                {name: pa.string()},
                dialect,
                names=columns.names,
                include=[name],
            ).column(name)[0]
            reasons.setdefault(
                row,
                (
                    f"column '{name}' is {kind} and holds '{cell}'",
                    "Fix the line, give the column another type in column_types",
                ),
            )
    return _without(chunk, starts, ends, reasons, bad)
