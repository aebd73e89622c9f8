"""TFRecord files: framing, records of every kind, and their natural form."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components.columns import tfrecord
from penstock.components.columns.tfrecord import Decoder, Shape, encode, to_natural
from penstock.schemas.errors import DataError


def round_trip(batch: pa.RecordBatch, size: int = 1000) -> pa.Table:
    records = encode(batch)
    decoder, shape = Decoder(tfrecord.TF_EXAMPLE), Shape()
    parts = [records[at : at + size] for at in range(0, len(records), size)]
    for part in parts:
        shape.add(decoder.decode(part, "here"), "here")
    schema = shape.schema()
    return pa.Table.from_batches(
        [to_natural(decoder.decode(part, "here"), schema) for part in parts], schema
    )


INT = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(width=32, allow_nan=False)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            INT,
            st.one_of(st.none(), FLOAT),
            st.one_of(st.none(), st.text(max_size=5)),
            st.one_of(st.none(), st.lists(st.binary(max_size=3), max_size=3)),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 12),
)
def test_values_come_back(rows: list[Any], size: int) -> None:
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([row[0] for row in rows], pa.int64()),
            pa.array([row[1] for row in rows], pa.float32()),
            pa.array([row[2] for row in rows], pa.string()),
            pa.array([row[3] for row in rows], pa.list_(pa.binary())),
        ],
        names=["i", "f", "s", "l"],
    )
    table = round_trip(batch, size)
    for name, at in (("i", 0), ("f", 1), ("s", 2)):
        if name in table.column_names:
            assert table.column(name).to_pylist() == [row[at] for row in rows]
        else:
            assert all(row[at] is None for row in rows)
    if "l" in table.column_names:
        raw = [row[3] for row in rows]
        got = table.column("l").to_pylist()
        one_each = all(each is None or len(each) == 1 for each in raw)
        as_bytes = [_bytes(each) for each in got]
        assert as_bytes == ([each and each[0] for each in raw] if one_each else raw)


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(each) for each in value]
    return value.encode() if isinstance(value, str) else value


def test_float64_is_rounded_to_float32_and_null_columns_are_left_out() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [0.1], "b": pa.nulls(1), "c": [True]})
    assert round_trip(batch).to_pylist() == [
        {"a": pytest.approx(0.1, abs=1e-7), "c": 1}
    ]


def test_rows_without_any_column_are_empty_examples() -> None:
    records = encode(pa.RecordBatch.from_pydict({"b": pa.nulls(2)}))
    assert records == [b"", b""]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([{"x": 1}]), "struct<x: int64>"),
        (pa.array([[[1]]]), "list<item: list<item: int64>>"),
        (pa.array([[{"x": 1}]]), "list<item: struct<x: int64>>"),
    ],
)
def test_what_tf_example_cannot_say_gets_a_sentence(array: pa.Array, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        encode(pa.RecordBatch.from_arrays([array], names=["a"]))
    assert str(caught.value) == (
        f"Column 'a' has type {kind}, which tf.Example cannot say: it has lists of "
        'integers, floats and bytes. Pass file_format="parquet".'
    )


def test_an_integer_beyond_int64_gets_a_sentence() -> None:
    array = pa.array([2**63], pa.uint64())
    with pytest.raises(DataError) as caught:
        encode(pa.RecordBatch.from_arrays([array], names=["a"]))
    assert str(caught.value) == (
        "Column 'a' holds an integer above 2**63 - 1, the largest that tf.Example can "
        'say. Pass file_format="parquet", or ingest it as text.'
    )
    small = pa.array([7], pa.uint64())
    assert round_trip(pa.RecordBatch.from_arrays([small], names=["a"])).to_pylist() == [
        {"a": 7}
    ]


def test_another_payload_format_gets_a_sentence() -> None:
    with pytest.raises(DataError) as caught:
        Decoder("FORMAT_PROTO")
    assert str(caught.value) == (
        "Records of payload format 'FORMAT_PROTO' cannot be read as columns, only "
        "'FORMAT_TF_EXAMPLE' and 'FORMAT_TF_SEQUENCE_EXAMPLE' can. Convert them first."
    )


def test_a_feature_of_two_types_gets_a_sentence() -> None:
    decoder, shape = Decoder(tfrecord.TF_EXAMPLE), Shape()
    shape.add(decoder.decode(encode(pa.RecordBatch.from_pydict({"a": [1]})), "x"), "x")
    other = decoder.decode(encode(pa.RecordBatch.from_pydict({"a": [b"1"]})), "y")
    with pytest.raises(DataError) as caught:
        shape.add(other, "y")
    assert str(caught.value) == (
        "y: feature 'a' is large_binary where it was int64 before. Write it with one "
        "type."
    )


def test_records_of_another_kind_get_a_sentence() -> None:
    with pytest.raises(DataError) as caught:
        Decoder(tfrecord.TF_EXAMPLE).decode([b"what?"], "here")
    assert str(caught.value).startswith(
        "here holds records that are not what payload_format says: "
    )
    assert str(caught.value).endswith("Pass the payload_format of these files.")


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.binary(max_size=100), max_size=20))
def test_records_are_kept_byte_for_byte_and_counted(
    tmp_path: Path, records: list[bytes]
) -> None:
    path = tmp_path / "records.gz"
    with tfrecord.Writer(path) as writer:
        writer.write(records)
    assert writer.rows == len(records)
    assert tfrecord.count_records(path) == len(records)
    found = [r for part in tfrecord.read_records(path, batch_size=3) for r in part]
    assert found == records
    plain = tmp_path / "records"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert tfrecord.count_records(plain) == len(records)
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(plain))] == records


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with tfrecord.Writer(tmp_path / name) as writer:
            writer.write([b"x" * 100] * 100)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_record_that_is_cut_off_is_named(
    tmp_path: Path, cut: int, zipped: bool
) -> None:
    path = tmp_path / "records.gz"
    with tfrecord.Writer(path) as writer:
        writer.write([b"first", b"second" * 3])
    data = gzip.decompress(path.read_bytes())[:-cut]
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(DataError) as caught:
        tfrecord.count_records(path)
    assert str(caught.value) == (
        f"'{path}', record 2: the file ends, or is damaged, inside the record. It is "
        "no whole TFRecord file; write it again."
    )
    if cut < 30:  # TensorFlow takes a cut in the record's own header for the end
        with pytest.raises(DataError, match="It is no whole TFRecord file; write it"):
            list(tfrecord.read_records(path, batch_size=1))


def test_tfrecord_files_are_known_by_their_beginning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with tfrecord.Writer(file) as writer:
        writer.write([b"record"])
    assert tfrecord.is_tfrecord(file)
    file.write_bytes(gzip.decompress(file.read_bytes()))
    assert tfrecord.is_tfrecord(file)
    text = b"fare,hour,payment\n1,2,Cash\n"
    damaged = gzip.compress(text)[:11] + b"\xff" * 20
    for other in (b"", b"PAR1", text, gzip.compress(text), gzip.compress(text)[:9]):
        file.write_bytes(other)
        assert not tfrecord.is_tfrecord(file)
    file.write_bytes(damaged)
    assert not tfrecord.is_tfrecord(file)
