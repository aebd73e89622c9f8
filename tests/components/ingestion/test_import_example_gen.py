"""ImportExampleGen: records are kept byte for byte, where TFX puts them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from penstock.components.base import RunContext
from penstock.components.columns import examples as reading
from penstock.components.columns import tfrecord
from penstock.components.ingestion import ByKey, ByTime, ImportExampleGen, Stratified
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError

WEIGHTS = {"train": 2, "eval": 1}


def example_of(**features: Any) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def sequence_of(steps: list[int], label: int) -> bytes:
    example = tf.train.SequenceExample()
    example.context.feature["label"].int64_list.value.append(label)
    for step in steps:
        feature = example.feature_lists.feature_list["step"].feature.add()
        feature.int64_list.value.append(step)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


RECORDS = [
    example_of(n=[n], fare=[n / 4], user=[b"u%d" % (n % 9)], tags=[b"x"] * (n % 3 + 1))
    for n in range(300)
]


def write(path: Path, records: list[bytes], compression: str = "GZIP") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = tf.io.TFRecordOptions(compression_type=compression)
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)


def records_of(examples: Examples, split: str) -> list[bytes]:
    return [
        record
        for path in examples.files(split)
        for records in tfrecord.read_records(path, batch_size=100)
        for record in records
    ]


def ingested(tmp_path: Path, **parameters: Any) -> Examples:
    out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
    live = ImportExampleGen(input_dir=tmp_path / "in", **parameters).with_outputs(out)
    live.run(RunContext.local(tmp_path / "tmp"))
    return live.examples


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_records_go_where_tfx_puts_them_byte_for_byte(
    tmp_path: Path, compression: str
) -> None:
    write(tmp_path / "in" / "a", RECORDS, compression)
    examples = ingested(tmp_path)

    def bucket(record: bytes) -> int:
        return int(hashlib.sha256(record).hexdigest(), 16) % 3

    assert records_of(examples, "train") == [r for r in RECORDS if bucket(r) < 2]
    assert records_of(examples, "eval") == [r for r in RECORDS if bucket(r) == 2]
    assert examples.properties["payload_format"] == "FORMAT_TF_EXAMPLE"
    assert examples.properties["file_format"] == "tfrecords_gzip"
    (path,) = examples.files("train")
    assert path.name == "data_tfrecord-00000-of-00001.gz"
    assert tfrecord.is_gzip(path)


def test_sequence_examples_are_kept_and_can_be_read(tmp_path: Path) -> None:
    records = [sequence_of(list(range(n)), n % 2) for n in range(20)]
    write(tmp_path / "in" / "a", records)
    examples = ingested(
        tmp_path, splits={"all": 1}, payload_format="FORMAT_TF_SEQUENCE_EXAMPLE"
    )
    assert records_of(examples, "all") == records
    rows = [
        row
        for batch in reading.read_batches(examples, "all", batch_size=7)
        for row in batch.to_pylist()
    ]
    assert [row["label"] for row in rows] == [n % 2 for n in range(20)]
    assert rows[3][tfrecord.SEQUENCE_COLUMN]["step"] == [[0], [1], [2]]


@pytest.mark.parametrize(
    "rule",
    [
        ByKey("user", WEIGHTS),
        ByTime("n", {"train": 200, "eval": None}),
        Stratified("user", WEIGHTS),
    ],
    ids=["key", "time", "stratified"],
)
def test_other_rules_deal_out_by_features(tmp_path: Path, rule: Any) -> None:
    write(tmp_path / "in" / "a", RECORDS[:120])
    write(tmp_path / "in" / "b", RECORDS[120:])
    examples = ingested(tmp_path, splits=rule)
    train, evaluation = (records_of(examples, split) for split in ("train", "eval"))
    assert sorted(train + evaluation) == sorted(RECORDS)
    if isinstance(rule, ByTime):
        assert train == RECORDS[:200]
    elif isinstance(rule, ByKey):
        users = [
            {RECORDS.index(record) % 9 for record in split}
            for split in (train, evaluation)
        ]
        assert not users[0] & users[1]
    else:
        for user in range(9):
            mine = sum(RECORDS.index(record) % 9 == user for record in train)
            assert abs(mine - 2 / 3 * len(RECORDS[user::9])) < 1


def the_error(tmp_path: Path, **parameters: Any) -> str:
    with pytest.raises(DataError) as caught:
        ingested(tmp_path, **parameters)
    return str(caught.value)


def test_a_file_that_is_cut_off_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a"
    write(path, RECORDS, "")
    path.write_bytes(path.read_bytes()[:-3])
    said = the_error(tmp_path)
    assert said.startswith(f"'{path}', after record 0: ")
    assert said.endswith("It is no whole TFRecord file; write it again.")


def test_records_of_another_kind_get_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a"
    write(path, [b"what is this?"])
    said = the_error(tmp_path)
    assert said.startswith(
        f"'{path}' holds records that are not what payload_format says"
    )
    assert said.endswith("Pass the payload_format of these files.")


def test_a_time_feature_must_be_there_and_single(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a", RECORDS)
    time = {"train": 1, "eval": None}
    assert the_error(tmp_path, splits=ByTime("tags", time)) == (
        "Feature 'tags' has 3 values in a record, and a row has one time. Deal out "
        "records by a feature of one value."
    )
    assert the_error(tmp_path, splits=ByTime("nn", time)) == (
        "The splits are dealt out by column 'nn', which the input does not have (it "
        "has 'fare', 'n', 'tags', 'user'). Did you mean 'n'?"
    )


def test_records_that_are_lost_get_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a", RECORDS)
    monkeypatch.setattr(
        "penstock.components.columns.tfrecord.Writer.write", lambda *_: None
    )
    assert the_error(tmp_path) == (
        f"{tmp_path}/in/a: the framing says 300 records and 0 came out. Nothing may be "
        "lost; report this with the input."
    )
