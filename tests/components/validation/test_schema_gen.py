"""SchemaGen and ImportSchemaGen."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv

from penstock.components.base import RunContext
from penstock.components.validation import ImportSchemaGen, SchemaGen
from penstock.components.validation.protos import read_schema, read_statistics
from penstock.schemas.artifacts import ExampleStatistics, Schema
from penstock.schemas.digests import file_digest, manifest_digest
from penstock.schemas.errors import DataError
from tests.components.validation.oracle import described, write_examples

TRAIN = pa.table({"s": ["x", "y", "x"], "n": [1, 2, 3]})
EVAL = pa.table({"s": ["x", "z", None], "n": [1, 2, 3], "new": [0.5, 1.5, 2.5]})


@pytest.fixture
def statistics(tmp_path: Path) -> ExampleStatistics:
    made = []
    for name, table in (("train", TRAIN), ("eval", EVAL)):
        examples = write_examples(tmp_path / f"examples-{name}", {name: table})
        made.append(described(examples, tmp_path / f"out-{name}"))
    (made[1].path / "Split-eval").rename(made[0].path / "Split-eval")
    made[0].split_names = ("train", "eval")
    return made[0]


def inferred(
    statistics: ExampleStatistics, folder: Path, **parameters: object
) -> Schema:
    live = SchemaGen(statistics=statistics, **parameters).with_outputs(folder)  # type: ignore[arg-type]
    live.run(RunContext.local(folder / "tmp"))
    return live.schema


@pytest.mark.parametrize("shape", [True, False])
def test_the_first_split_is_inferred_from_and_the_others_relax(
    statistics: ExampleStatistics, tmp_path: Path, shape: bool
) -> None:
    found = inferred(statistics, tmp_path / "schema", infer_feature_shape=shape)
    expected = tfdv.update_schema(
        tfdv.infer_schema(read_statistics(statistics, "train"), shape),
        read_statistics(statistics, "eval"),
    )
    assert read_schema(found.file) == expected
    assert tfdv.load_schema_text(str(found.file)) == expected
    assert {each.name for each in expected.feature} == {"s", "n", "new"}


def test_excluded_splits_are_not_looked_at(
    statistics: ExampleStatistics, tmp_path: Path
) -> None:
    found = inferred(statistics, tmp_path / "schema", exclude_splits=["eval"])
    train = read_statistics(statistics, "train")
    assert read_schema(found.file) == tfdv.infer_schema(train)


def test_statistics_that_are_not_there_are_named(
    statistics: ExampleStatistics, tmp_path: Path
) -> None:
    file = statistics.file("eval")
    file.unlink()
    with pytest.raises(
        DataError,
        match=re.escape(
            f"Statistics file '{file}' cannot be read: No such file or directory. "
            "Check the path and its permissions."
        ),
    ):
        inferred(statistics, tmp_path / "schema")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"\xff\xff",
            "Statistics file '{file}' cannot be parsed as "
            "DatasetFeatureStatisticsList: it was cut off or written by something "
            "else. Run its producer again.",
        ),
        (
            b"",
            "Statistics file '{file}' describes no dataset. It is empty or was cut "
            "off; run its producer again.",
        ),
    ],
)
def test_statistics_that_are_damaged_are_named(
    statistics: ExampleStatistics, tmp_path: Path, content: bytes, sentence: str
) -> None:
    file = statistics.file("train")
    file.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(sentence.format(file=file))):
        inferred(statistics, tmp_path / "schema")


def imported(file: Path, folder: Path) -> ImportSchemaGen:
    live = ImportSchemaGen(schema_file=file).with_outputs(folder)
    live.run(RunContext.local(folder / "tmp"))
    return live


def test_a_curated_schema_is_brought_in_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "trips.pbtxt"
    file.write_text('# fares\nfeature { name: "fare" type: FLOAT }\n')
    live = imported(file, tmp_path / "out")
    assert live.schema.file.read_bytes() == file.read_bytes()
    assert read_schema(live.schema.file).feature[0].name == "fare"
    (outside,) = live.external_inputs()
    assert outside.uri == str(file)
    expected = manifest_digest(
        {"trips.pbtxt": (file_digest(file), file.stat().st_size)}
    )
    assert outside.digest == expected


def test_a_schema_that_does_not_parse_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trips.pbtxt"
    file.write_text("feature { nam: 'fare' }")
    with pytest.raises(
        DataError,
        match=rf"Schema file '{file}' is not a TensorFlow Metadata Schema in text "
        r"form: 1:11 .*nam.* Mend the file at that place\.",
    ):
        imported(file, tmp_path / "out")


def test_a_schema_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.pbtxt"
    with pytest.raises(
        DataError,
        match=re.escape(
            f"Schema file '{file}' cannot be read: No such file or directory. Check "
            "the path and its permissions."
        ),
    ):
        imported(file, tmp_path / "out")
