"""The CSV reader: its text, its types, its counts, and what it says of bad records."""

from __future__ import annotations

import codecs
import csv as oracle
import gzip
import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.components.columns import csv
from penstock.components.columns.csv import Columns, Dialect, Level
from penstock.schemas.errors import DataError

SMALL = 64
"""Bytes of a chunk, to have many of them."""


def read(
    path: Path,
    dialect: Dialect | None = None,
    explicit: dict[str, str] | None = None,
    *,
    size: int = SMALL,
) -> tuple[pa.Table, list[csv.BadLine]]:
    """Read a file as ingestion does: types over the whole input, then the values."""
    dialect = dialect or Dialect()
    columns = Columns.unseen(csv.read_header(path, dialect), explicit or {})
    for chunk in csv.chunks(path, dialect, size=size):
        parsed = csv.parse(chunk, columns, dialect, infer=True)
        columns = columns.joined(parsed.levels)
    batches: list[pa.RecordBatch] = []
    bad: list[csv.BadLine] = []
    for chunk in csv.chunks(path, dialect, size=size):
        parsed = csv.parse(chunk, columns, dialect, infer=False)
        assert parsed.batch is not None
        assert parsed.batch.num_rows + len(parsed.bad) == chunk.rows
        batches.append(parsed.batch)
        bad += parsed.bad
    return pa.Table.from_batches(batches, columns.schema), bad


def table_of(tmp_path: Path, text: str, **options: Any) -> pa.Table:
    path = tmp_path / "trips.csv"
    path.write_bytes(text.encode())
    table, bad = read(path, **options)
    assert bad == []
    return table


def types_of(table: pa.Table) -> dict[str, str]:
    return {each.name: str(each.type) for each in table.schema}


# --- types -------------------------------------------------------------------------


def test_types_are_found_over_the_whole_input(tmp_path: Path) -> None:
    rows = [f"{n},{n},{n},{n},," for n in range(100)]
    rows += ["1.5,x,9223372036854775807,9223372036854775808,2020-01-01,", ",,,,,"]
    table = table_of(tmp_path, "a,b,c,d,e,f\n" + "\n".join(rows) + "\n")
    assert types_of(table) == {
        "a": "double",
        "b": "string",
        "c": "int64",
        "d": "string",
        "e": "string",
        "f": "null",
    }
    assert table.column("a").to_pylist() == [*map(float, range(100)), 1.5, None]
    assert table.column("b").to_pylist() == [*map(str, range(100)), "x", None]
    assert table.column("c").to_pylist()[-2:] == [2**63 - 1, None]
    assert table.column("d").to_pylist()[-2:] == ["9223372036854775808", None]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2"], "int64"),
        (["0", "1"], "int64"),
        (["007"], "int64"),
        (["9223372036854775807", "-9223372036854775808"], "int64"),
        (["9223372036854775808"], "string"),
        (["1", "1.5"], "double"),
        (["nan", "inf", "-inf", "1e300"], "double"),
        (["9007199254740993", "1"], "int64"),
        # float64 would lose the last digit of the integer: no digit is lost.
        (["9007199254740993", "1.5"], "string"),
        (["1.5", "9007199254740993"], "string"),
        (["9007199254740992", "1.5"], "double"),
        (["1000000000000000000000", "1.5"], "string"),
        (["9223372036854775808", "1.5"], "string"),
        (["0x1F"], "string"),
        (["0x1F", "1.5"], "string"),
        (["true", "false"], "string"),
        (["2020-01-01"], "string"),
        (["12:30"], "string"),
        (["2020-01-01 10:00:00"], "string"),
        (["1", "x"], "string"),
        (["1", '""', "2.5"], "double"),
        (['""', "3"], "int64"),
        (['""', ""], "string"),
        (['""', "a"], "string"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_type_that_cells_need(
    tmp_path: Path, cells: list[str], kind: str, size: int
) -> None:
    for order in (cells, cells[::-1]):
        text = "k,a\n" + "".join(f"1,{cell}\n" for cell in order)
        table = table_of(tmp_path, text, size=size)
        assert types_of(table)["a"] == kind
        if kind == "string":
            expected = [None if cell == "" else cell.strip('"') for cell in order]
            assert table.column("a").to_pylist() == expected


def test_levels_join_in_any_order_and_grouping() -> None:
    for one in Level:
        for other in Level:
            assert csv.joined(one, other) == csv.joined(other, one)
            for third in Level:
                assert csv.joined(csv.joined(one, other), third) == csv.joined(
                    one, csv.joined(other, third)
                )


def test_every_digit_of_int64_and_float64_is_kept(tmp_path: Path) -> None:
    source = random.Random(7)
    ints = [source.randrange(-(2**63), 2**63) for _ in range(500)]
    floats = [source.gauss(0, 1) * 10 ** source.randrange(-30, 30) for _ in range(500)]
    rows = "".join(f"{i},{f!r}\n" for i, f in zip(ints, floats, strict=True))
    table = table_of(tmp_path, "i,f\n" + rows, size=1 << 12)
    assert table.column("i").to_pylist() == ints
    assert table.column("f").to_pylist() == floats


def test_explicit_types_go_before_found_ones(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        "zip,n,b,d,t\n02134,1,true,2020-02-29,2020-01-01 10:00:00\n,,,,\n",
        explicit={
            "zip": "string",
            "n": "float64",
            "b": "bool",
            "d": "date",
            "t": "timestamp",
        },
    )
    assert table.column("zip").to_pylist() == ["02134", None]
    assert types_of(table) == {
        "zip": "string",
        "n": "double",
        "b": "bool",
        "d": "date32[day]",
        "t": "timestamp[us]",
    }


def test_nothing_is_missing_and_quoted_nothing_is_a_text(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'a,b,c\n,"",""\nx,y,3\n')
    assert table.to_pylist() == [
        {"a": None, "b": "", "c": None},
        {"a": "x", "b": "y", "c": 3},
    ]


def test_missing_values_are_missing_where_they_are_not_quoted(tmp_path: Path) -> None:
    text = 'a,b\nNA,NA\n"NA","NA"\nx,5\n-,-\n'
    table = table_of(tmp_path, text, dialect=Dialect(missing_values=("NA", "-")))
    assert table.to_pydict() == {
        "a": [None, "NA", "x", None],
        "b": [None, None, 5, None],
    }


# --- text --------------------------------------------------------------------------


def test_quoted_fields_hold_line_ends_delimiters_and_quotes(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'a,b\r\n"x\r\ny, ""z""",1\r\n"\n\n",2\r\n')
    assert table.to_pylist() == [
        {"a": 'x\r\ny, "z"', "b": 1},
        {"a": "\n\n", "b": 2},
    ]


def test_a_quote_inside_an_unquoted_field_is_a_character(tmp_path: Path) -> None:
    text = 'a,b\n5" pipe,1\n"q"r"s,2\nJoe "Bob" Smith,3\n"x\ny",4\n'
    for size in (1, 16, SMALL, 1 << 16):
        table = table_of(tmp_path, text, size=size)
        assert table.column("a").to_pylist() == [
            '5" pipe',
            'qr"s',
            'Joe "Bob" Smith',
            "x\ny",
        ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_one(tmp_path: Path, end: str) -> None:
    text = end.join(["a,b", "1,x", "", "", "2,y"])
    for size in (1, 2, 3, 5, 1 << 16):
        expected = {"a": [1, 2], "b": ["x", "y"]}
        assert table_of(tmp_path, text, size=size).to_pydict() == expected
        assert table_of(tmp_path, text + end, size=size).to_pydict() == expected


def test_blank_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    assert table_of(tmp_path, "\n\r\na\n1\n").to_pydict() == {"a": [1]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16", "utf-16-le"])
def test_text_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes("é,b\ncafé,1\nñandú,2\n".encode(encoding))
    for size in (1, 7, 1 << 16):
        table, _ = read(path, Dialect(encoding=encoding), size=size)
        assert table.to_pydict() == {"é": ["café", "ñandú"], "b": [1, 2]}


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(codecs.BOM_UTF8 + b"a,b\n1,2\n")
    table, _ = read(path)
    assert table.to_pydict() == {"a": [1], "b": [2]}


def test_compressed_files_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    text = b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(1000))
    plain, zipped, zstd = (tmp_path / name for name in ("p.csv", "g.csv", "z.csv"))
    plain.write_bytes(text)
    # Two members, as `cat one.gz two.gz` makes.
    zipped.write_bytes(gzip.compress(text[:100]) + gzip.compress(text[100:]))
    with pa.output_stream(str(zstd), compression="zstd") as out:
        out.write(text)
    expected, _ = read(plain)
    assert read(zipped)[0] == expected
    assert read(zstd)[0] == expected


def test_a_cut_off_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv.gz"
    text = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(9999))
    path.write_bytes(gzip.compress(text)[:-100])
    with pytest.raises(DataError, match=r"^'trips\.csv\.gz' cannot be decompressed to"):
        read(path)


# --- bad input ---------------------------------------------------------------------


def the_error(path: Path, data: bytes, **options: Any) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        _, bad = read(path, **options)
        raise bad[0].error()
    return str(caught.value)


HINT = 'or pass on_bad_line="quarantine" to set such lines aside.'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"a,b\n1,2\n3\n",
            f"trips.csv, line 3: 1 field where the header has 2. Fix the line, {HINT}",
        ),
        (
            b'a,b\n"x\ny",2\n\n3,4,5\n',
            f"trips.csv, line 5: 3 fields where the header has 2. Fix the line, {HINT}",
        ),
        (
            b"a,b\n1,2\nx\xff,2\n",
            "trips.csv, line 3: bytes that are no utf-8 text. Pass the encoding that "
            f'the file is written in, such as encoding="latin-1", {HINT}',
        ),
        (
            b"a,b\n1,2\n1,x\0\n",
            "trips.csv, line 3: the record holds a NUL byte. Pass the encoding of the "
            f"file, fix the line, {HINT}",
        ),
        (
            b'a,b\n1,2\n3,"x\n4,5\n',
            "trips.csv, line 3: a quote is opened in the record that begins here, and "
            f"never closed. Close it, {HINT}",
        ),
        (
            b'a,"b\n1,2\n',
            "trips.csv, line 1: a quote is opened in the record that begins here, and "
            f"never closed. Close it, {HINT}",
        ),
        (
            b"a,,c\n1,2,3\n",
            "trips.csv, line 1: column 2 of the header has no name. Name every column.",
        ),
        (
            b"a,b,a\n1,2,3\n",
            "trips.csv, line 1: the header names the column 'a' twice. Give every "
            "column a name of its own.",
        ),
        (
            b"\n\n",
            "trips.csv is empty. A CSV file begins with a line of column names; add "
            "it, or leave the file out by the pattern.",
        ),
        (
            "a,b\n1,2\n".encode("utf-16-le"),
            "trips.csv, line 1: the header holds NUL bytes. Pass the encoding that the "
            'file is written in, such as encoding="utf-16".',
        ),
        (
            b"\xff,b\n1,2\n",
            "trips.csv, line 1: bytes that are no utf-8 text. Pass the encoding that "
            'the file is written in, such as encoding="latin-1".',
        ),
    ],
)
def test_bad_text_gets_a_sentence(tmp_path: Path, data: bytes, said: str) -> None:
    for size in (1, SMALL, 1 << 16):
        assert the_error(tmp_path / "trips.csv", data, size=size) == said


def test_text_that_is_not_of_its_encoding_is_named(tmp_path: Path) -> None:
    text = "a,b\n1,2\n3,x".encode("utf-16-le") + b"\x00\xd8" + b"\n\x00"
    said = the_error(
        tmp_path / "trips.csv", text, dialect=Dialect(encoding="utf-16-le")
    )
    assert said == (
        "trips.csv, line 3: bytes that are no utf-16-le text. Pass the encoding that "
        'the file is written in, such as encoding="latin-1".'
    )


def test_a_text_in_a_column_of_numbers_is_named(tmp_path: Path) -> None:
    rows = [f"{n},{n}" for n in range(9000)]
    rows[8001] = "abc,1"
    text = ("a,b\n" + "\n".join(rows) + "\n").encode()
    said = the_error(
        tmp_path / "trips.csv", text, explicit={"a": "int64"}, size=1 << 14
    )
    assert said == (
        "trips.csv, line 8003: column 'a' is int64 and holds 'abc'. Fix the line, give "
        f"the column another type in column_types, {HINT}"
    )


def test_a_record_without_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "MOST_RECORD_BYTES", 1 << 20)
    data = b'a,b\n1,2\n3,"' + b"4,5\n" * 400_000
    assert the_error(tmp_path / "trips.csv", data, size=1 << 16) == (
        "trips.csv, line 3: a record that does not end within 1 MiB. Close the quote "
        "that was opened there, or pass quote=None if quotes mean nothing in this file."
    )


def test_other_columns_than_the_first_file_has_are_named() -> None:
    with pytest.raises(DataError) as caught:
        csv.check_same_header(["a", "x"], "2.csv", ["a", "b", "c"], "1.csv")
    assert str(caught.value) == (
        "2.csv lacks 'b', 'c' and has 'x' more, compared with the columns of 1.csv. "
        "Give all files the same header, or separate them by the pattern."
    )
    with pytest.raises(DataError) as caught:
        csv.check_same_header(["a", "c", "b"], "2.csv", ["a", "b", "c"], "1.csv")
    assert str(caught.value) == (
        "2.csv has the columns of 1.csv in another order: column 2 is 'c' where 'b' is "
        "expected. Write all files with the same header."
    )
    csv.check_same_header(["a", "b"], "2.csv", ["a", "b"], "1.csv")


def test_a_type_for_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError) as caught:
        csv.check_explicit({"fares": "int64"}, ["fare", "tips"])
    assert str(caught.value) == (
        "column_types names the column 'fares', which the input does not have (it has "
        "'fare', 'tips'). Did you mean 'fare'?"
    )


def test_rows_that_the_parser_loses_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(b"a,b\n1,2\n3,4\n")
    (chunk,) = csv.chunks(path, Dialect())
    wrong = csv.Chunk(chunk.file, chunk.text, chunk.line, 3)
    with pytest.raises(DataError) as caught:
        csv.parse(wrong, Columns.unseen(["a", "b"], {}), Dialect(), infer=True)
    assert str(caught.value) == (
        "trips.csv, from line 2: the parser found 2 rows where a count of the records "
        "found 3. Check the quotes in this part of the file, or pass quote=None if "
        "they mean nothing."
    )


def test_bad_records_are_set_aside_as_they_stand_with_their_lines(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trips.csv"
    path.write_bytes(
        b'a,b\n1,x\n2\n"\n\n",\n3,"y\nz"\n4,\xff\n5,z,7\nq,w\n6,\0\n7,"open\n8,x\n'
    )
    for size in (1, 16, 1 << 16):
        table, bad = read(path, explicit={"a": "int64"}, size=size)
        assert table.to_pydict() == {"a": [1, 3], "b": ["x", "y\nz"]}
        assert [(line.line, line.text) for line in bad] == [
            (3, b"2\n"),
            (4, b'"\n\n",\n'),
            (9, b"4,\xff\n"),
            (10, b"5,z,7\n"),
            (11, b"q,w\n"),
            (12, b"6,\0\n"),
            (13, b'7,"open\n8,x\n'),
        ]


# --- against Python's csv module ---------------------------------------------------

CELL = st.one_of(
    st.none(),
    st.text(
        st.characters(codec="utf-8", exclude_characters="\0"),
        max_size=6,
    ),
    st.sampled_from(["", '"', "\n", "\r", "\r\n", ",", ";", '""', "a\nb", "x", " "]),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str | None]], dict[str, Any]]:
    width = draw(st.integers(1, 4))
    rows = draw(
        st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=8)
    )
    quoting = draw(st.sampled_from([oracle.QUOTE_ALL, oracle.QUOTE_MINIMAL]))
    # Before Python 3.13 only characters of the line end itself get quotes.
    ends = ["\r\n"] if quoting == oracle.QUOTE_MINIMAL else ["\n", "\r\n", "\r"]
    return rows, {
        "delimiter": draw(st.sampled_from(",;\t|")),
        "quotechar": draw(st.sampled_from("\"'")),
        "lineterminator": draw(st.sampled_from(ends)),
        "quoting": quoting,
    }


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables(), st.sampled_from([1, 3, 16, 1 << 16]))
@example(([["a"], [""], ["b"]], {"lineterminator": "\n"}), 1)
def test_texts_come_back_as_the_csv_module_reads_them(
    tmp_path: Path, made: tuple[list[list[str | None]], dict[str, Any]], size: int
) -> None:
    rows, dialect = made
    names = [f"c{number}" for number in range(len(rows[0]))]
    text = io.StringIO(newline="")
    writer = oracle.writer(text, **dialect)
    writer.writerows([names, *rows])
    path = tmp_path / "table.csv"
    path.write_bytes(text.getvalue().encode())
    ours = Dialect(dialect.get("delimiter", ","), dialect.get("quotechar", '"'))
    table, bad = read(path, ours, dict.fromkeys(names, "string"), size=size)
    assert bad == []
    text.seek(0)
    expected = [row for row in oracle.reader(text, **dialect) if row][1:]
    got = [[cell or "" for cell in row.values()] for row in table.to_pylist()]
    assert got == expected


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.one_of(st.none(), st.integers(-(2**64), 2**64)), min_size=1, max_size=9
    ),
    st.sampled_from([1, 16, 1 << 16]),
    st.booleans(),
)
def test_integers_come_back_whole(
    tmp_path: Path, values: list[int | None], size: int, quote_all: bool
) -> None:
    path = tmp_path / "table.csv"
    with open(path, "w", newline="") as file:
        writer = oracle.writer(
            file, quoting=oracle.QUOTE_ALL if quote_all else oracle.QUOTE_MINIMAL
        )
        writer.writerows([["k", "a"], *(["x", value] for value in values)])
    table, _ = read(path, size=size)
    kind = types_of(table)["a"]
    fits = all(v is None or -(2**63) <= v < 2**63 for v in values)
    if all(value is None for value in values):
        # Quoted, a text of no characters is all that is there.
        assert kind == ("string" if quote_all else "null")
        return
    assert kind == ("int64" if fits else "string")
    got = [None if v in (None, "") else int(v) for v in table.column("a").to_pylist()]
    assert got == values


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.one_of(st.none(), st.floats(), st.integers(-1000, 1000)),
        min_size=1,
        max_size=9,
    ),
    st.sampled_from([1, 16, 1 << 16]),
)
def test_floats_come_back_bit_for_bit(
    tmp_path: Path, values: list[float | None], size: int
) -> None:
    path = tmp_path / "table.csv"
    with open(path, "w", newline="") as file:
        oracle.writer(file).writerows([["k", "a"], *(["x", v] for v in values)])
    table, _ = read(path, size=size)
    if any(isinstance(value, float) for value in values):
        assert types_of(table)["a"] == "double"
        expected = [None if v is None else float(v) for v in values]
        assert list(map(repr, table.column("a").to_pylist())) == list(
            map(repr, expected)
        )


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.text(st.sampled_from('ab,"\n\r'), max_size=12).map(str.encode),
        min_size=1,
        max_size=6,
    )
)
def test_no_record_is_lost_whatever_the_text(
    tmp_path: Path, lines: list[bytes]
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n" + b"\n".join(lines))
    whole, bad_whole = read(path, size=1 << 16)
    small, bad_small = read(path, size=1)
    assert small == whole
    assert bad_small == bad_whole
