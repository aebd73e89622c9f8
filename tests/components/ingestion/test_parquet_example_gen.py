"""ParquetExampleGen: every value is kept as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components.base import RunContext
from penstock.components.columns import examples as reading
from penstock.components.ingestion import ByKey, ParquetExampleGen, Stratified
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError

# What TFX's Parquet executor loses: zeros, False, empty texts, bytes that are no UTF-8.
TABLE = pa.table(
    {
        "zero": pa.array([0, 1, None, 0], pa.int64()),
        "small": pa.array([0, -1, None, 127], pa.int8()),
        "real": [0.0, -0.0, None, 1.5],
        "flag": [False, True, None, False],
        "text": ["", "é", None, "x"],
        "raw": [b"", b"\xff\0", None, b"x"],
        "list": pa.array([[], [0], None, [None, 2]], pa.list_(pa.int64())),
        "place": [
            {"x": 0, "y": ["a", ""]},
            {"x": None, "y": []},
            None,
            {"x": 1, "y": None},
        ],
        "day": pa.array([0, 1, None, 2], pa.date32()),
        "nothing": pa.nulls(4),
        "kind": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "order": [0, 1, 2, 3],
    }
)


def ingested(tmp_path: Path, **parameters: Any) -> Examples:
    out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
    live = ParquetExampleGen(input_dir=tmp_path / "in", **parameters).with_outputs(out)
    live.run(RunContext.local(tmp_path / "tmp"))
    return live.examples


def write(tmp_path: Path, name: str, table: pa.Table, **options: Any) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    pq.write_table(table, tmp_path / "in" / name, **options)


def rows(examples: Examples, split: str) -> list[dict[str, Any]]:
    return [
        row
        for batch in reading.read_batches(examples, split)
        for row in batch.to_pylist()
    ]


def test_every_value_is_kept_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", TABLE, row_group_size=3)
    examples = ingested(tmp_path, splits={"all": 1})
    assert rows(examples, "all") == TABLE.to_pylist()
    types = {each.name: str(each.type) for each in reading.schema_of(examples)}
    assert types["small"] == "int8"
    assert types["flag"] == "bool"
    assert types["day"] == "date32[day]"
    assert types["kind"] == "string"
    assert examples.properties["payload_format"] == "FORMAT_PARQUET"
    assert examples.properties["rows"] == {"all": 4}


@pytest.mark.parametrize(
    "rule",
    [
        {"train": 1, "eval": 1},
        ByKey("key", {"train": 1, "eval": 1}),
        Stratified("key", {"train": 1, "eval": 1}),
    ],
    ids=["hash", "key", "stratified"],
)
def test_the_assignment_does_not_depend_on_files_or_row_groups(
    tmp_path: Path, rule: Any
) -> None:
    table = pa.table({"n": range(500), "key": [n % 7 for n in range(500)]})
    write(tmp_path, "a.parquet", table)
    one = ingested(tmp_path, splits=rule)
    write(tmp_path, "a.parquet", table.slice(300), row_group_size=11)
    write(tmp_path, "b.parquet", table.slice(0, 300), row_group_size=70)
    two = ingested(tmp_path, splits=rule)
    for split in ("train", "eval"):
        assert sorted(map(repr, rows(one, split))) == sorted(
            map(repr, rows(two, split))
        )
        assert rows(one, split)
    assert sum(len(rows(one, split)) for split in ("train", "eval")) == 500


def test_the_inputs_own_splits_stay(tmp_path: Path) -> None:
    write(tmp_path, "train-1.parquet", TABLE)
    write(tmp_path, "eval-1.parquet", TABLE.slice(1))
    splits = {"train": "train-*", "eval": "eval-*"}
    examples = ingested(tmp_path, input_splits=splits)
    assert rows(examples, "eval") == TABLE.slice(1).to_pylist()
    assert reading.count_rows(examples, "train") == 4


def test_a_column_without_values_takes_its_type_from_other_files(
    tmp_path: Path,
) -> None:
    write(tmp_path, "a.parquet", pa.table({"a": [1], "b": pa.nulls(1)}))
    write(tmp_path, "b.parquet", pa.table({"a": pa.nulls(1), "b": ["x"]}))
    examples = ingested(tmp_path, splits={"all": 1})
    assert rows(examples, "all") == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def the_error(tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        ingested(tmp_path)
    return str(caught.value)


def test_files_that_differ_get_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", pa.table({"a": [1]}))
    write(tmp_path, "b.parquet", pa.table({"a": ["1"]}))
    assert the_error(tmp_path) == (
        "b.parquet has the column 'a' as string, a.parquet as int64. Write all files "
        "with the same types, or separate them by the pattern."
    )
    write(tmp_path, "b.parquet", pa.table({"b": [1]}))
    assert the_error(tmp_path) == (
        "b.parquet lacks 'a' and has 'b' more, compared with the columns of a.parquet. "
        "Give all files the same header, or separate them by the pattern."
    )


def test_two_columns_of_one_name_get_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"]))
    assert the_error(tmp_path) == (
        "a.parquet has two columns named 'a'. Give every column a name of its own."
    )


def test_a_file_that_is_not_parquet_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_text("a,b\n1,2\n")
    path = tmp_path / "in" / "a.parquet"
    said = the_error(tmp_path)
    assert said.startswith(f"'{path}' cannot be read as Parquet: ")
    assert said.endswith(
        "Give the files that are Parquet by the pattern, or mend this one."
    )


def test_files_without_rows_get_a_sentence(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", TABLE.slice(0, 0))
    assert the_error(tmp_path) == (
        f"The input '{tmp_path}/in/*' has no rows, only headers or empty files. Pass "
        "the files that hold the data."
    )


def test_rows_that_are_lost_get_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.parquet", TABLE)
    monkeypatch.setattr(
        "penstock.components.columns.parquet.Writer.write", lambda *_: None
    )
    assert the_error(tmp_path) == (
        f"{tmp_path}/in/a.parquet: the footers say 4 rows and 0 came out. Nothing may "
        "be lost; report this with the input."
    )
