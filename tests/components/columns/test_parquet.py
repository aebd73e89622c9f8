"""Parquet files: the same rows give the same bytes, and every row is counted."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components.columns import parquet
from penstock.schemas.errors import DataError

BATCH = pa.RecordBatch.from_pydict(
    {
        "n": list(range(1000)),
        "s": [f"trip {n % 7}" if n % 5 else None for n in range(1000)],
    }
)


def written(path: Path, cuts: list[int]) -> bytes:
    with parquet.Writer(path, BATCH.schema) as writer:
        for start, end in zip([0, *cuts], [*cuts, 1000], strict=True):
            writer.write(BATCH.slice(start, end - start))
    assert writer.rows == 1000
    return path.read_bytes()


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.integers(0, 1000), max_size=9).map(sorted))
def test_batches_leave_no_trace_in_the_bytes(tmp_path: Path, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS_PER_GROUP", 300)
        expected = written(tmp_path / "a.parquet", [])
        assert written(tmp_path / "b.parquet", cuts) == expected
    assert parquet.group_rows(tmp_path / "b.parquet") == [300, 300, 300, 100]
    batches = [
        batch
        for index in range(4)
        for batch in parquet.read_group(tmp_path / "b.parquet", index, batch_size=128)
    ]
    assert pa.Table.from_batches(batches) == pa.Table.from_batches([BATCH])


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.Writer(path, BATCH.schema).close()
    assert parquet.group_rows(path) == []
    assert parquet.file_schema(path) == BATCH.schema


def test_a_column_is_read_by_name_in_the_order_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", [])
    (batch,) = parquet.read_group(tmp_path / "a.parquet", 0, columns=["s", "n"])
    assert batch.schema.names == ["s", "n"]
    with pytest.raises(DataError) as caught:
        list(parquet.read_group(tmp_path / "a.parquet", 0, columns=[]))
    assert str(caught.value) == (
        f"'{tmp_path}/a.parquet' was asked for no columns. Name at least one."
    )


def test_a_damaged_file_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = bytearray(written(path, []))
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(parquet.read_group(path, 0))
    assert str(caught.value).startswith(f"'{path}' cannot be read, row group 0: ")
    assert str(caught.value).endswith(" It is damaged; write it again.")


def test_a_group_with_other_rows_than_its_footer_says_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    written(path, [])

    class Short(pq.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, **_: object) -> list[pa.RecordBatch]:
            return [BATCH.slice(1)]

    monkeypatch.setattr("penstock.components.columns.parquet.pq.ParquetFile", Short)
    with pytest.raises(DataError) as caught:
        list(parquet.read_group(path, 0))
    assert str(caught.value) == (
        f"'{path}' gave 999 rows in row group 0, where its footer says 1000. It is "
        "damaged; write it again."
    )


def test_a_writer_that_is_left_by_an_error_closes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(ZeroDivisionError), parquet.Writer(path, BATCH.schema) as writer:
        writer.write(BATCH)
        raise ZeroDivisionError
    assert path.exists()
