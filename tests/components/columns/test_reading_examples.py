"""Reading Examples artifacts, from Parquet and TFRecord alike."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.components.columns import examples as reading
from penstock.components.columns import parquet, tfrecord
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"fare": 1.5, "hour": 0, "name": "", "tags": ["a", "b"]},
    {"fare": None, "hour": -3, "name": "é", "tags": []},
    {"fare": 0.0, "hour": None, "name": None, "tags": None},
]
SCHEMA = pa.schema(
    {
        "fare": pa.float32(),
        "hour": pa.int64(),
        "name": pa.string(),
        "tags": pa.list_(pa.string()),
    }
)
BATCH = pa.RecordBatch.from_arrays(
    [pa.array([row[f.name] for row in ROWS], f.type) for f in SCHEMA], schema=SCHEMA
)


def written(folder: Path, *, as_parquet: bool) -> Examples:
    for split, batch in (("train", BATCH), ("eval", BATCH.slice(1))):
        target = folder / f"Split-{split}"
        target.mkdir(parents=True)
        if as_parquet:
            name = target / "data_parquet-00000-of-00001.parquet"
            with parquet.Writer(name, SCHEMA) as writer:
                writer.write(batch)
        else:
            with tfrecord.Writer(target / "data_tfrecord-00000-of-00001.gz") as out:
                out.write(tfrecord.encode(batch))
    return Examples(folder, properties={"split_names": '["train", "eval"]'})


@pytest.fixture(params=[True, False], ids=["parquet", "tfrecord"])
def examples(request: pytest.FixtureRequest, tmp_path: Path) -> Examples:
    return written(tmp_path / "examples", as_parquet=request.param)


def rows(examples: Examples, split: str, **options: Any) -> list[dict[str, Any]]:
    return [
        row
        for batch in reading.read_batches(examples, split, **options)
        for row in batch.to_pylist()
    ]


def test_rows_come_back_as_they_were_whatever_the_files(examples: Examples) -> None:
    assert rows(examples, "train") == ROWS
    assert rows(examples, "eval") == ROWS[1:]
    assert reading.schema_of(examples) == SCHEMA


def test_every_batch_has_the_schema(examples: Examples) -> None:
    for split in ("train", "eval"):
        for batch in reading.read_batches(examples, split, batch_size=1):
            assert batch.num_rows == 1
            assert batch.schema == SCHEMA


def test_rows_are_counted_without_reading_them(examples: Examples) -> None:
    assert reading.count_rows(examples, "train") == 3
    assert reading.count_rows(examples, "eval") == 2


def test_columns_come_in_the_order_asked_for(examples: Examples) -> None:
    assert rows(examples, "eval", columns=["name", "hour"]) == [
        {"name": "é", "hour": -3},
        {"name": None, "hour": None},
    ]


def test_a_missing_column_is_named_with_what_there_is(examples: Examples) -> None:
    with pytest.raises(DataError) as caught:
        rows(examples, "train", columns=["fares"])
    assert str(caught.value) == (
        f"Column 'fares' is not in '{examples.uri}' (it has 'fare', 'hour', 'name', "
        "'tags'). Did you mean 'fare'?"
    )


def test_a_missing_split_is_named_with_what_there_is(examples: Examples) -> None:
    with pytest.raises(DataError, match="Split 'evl' is not in Examples"):
        rows(examples, "evl")


def test_handles_travel_and_read_the_same_rows(examples: Examples) -> None:
    (group,) = pickle.loads(pickle.dumps(reading.row_groups(examples, "train")))
    assert (group.rows, group.key) == (3, (0, 0))
    (batch,) = reading.read_row_group(group)
    assert batch.to_pylist() == ROWS
    (batch,) = reading.read_row_group(group, columns=["hour"])
    assert batch.to_pydict() == {"hour": [0, -3, None]}


def test_a_handle_that_says_other_rows_is_refused(examples: Examples) -> None:
    import dataclasses

    (group,) = reading.row_groups(examples, "train")
    wrong = dataclasses.replace(group, rows=4)
    with pytest.raises(DataError) as caught:
        list(reading.read_row_group(wrong))
    assert str(caught.value) == (
        f"'{group.path}' gave 3 rows where 4 were counted. It was changed while it "
        "was read; run again."
    )
    with pytest.raises(DataError, match=f"Column 'x' is not in '{group.path}'"):
        list(reading.read_row_group(group, columns=["x"]))
