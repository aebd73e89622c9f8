"""ExampleValidator: anomalies are TFDV's, severities and the verdict are ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from penstock.components.base import RunContext
from penstock.components.validation import ExampleValidator
from penstock.components.validation.protos import read_anomalies, read_statistics
from penstock.schemas.artifacts import (
    Answer,
    ExampleAnomalies,
    ExampleStatistics,
    Schema,
)
from penstock.schemas.errors import DataError
from tests.components.validation.oracle import described, write_examples

GOOD = pa.table({"pay": ["cash", "card"] * 10, "fare": [1.0, 2.0] * 10})
BAD = pa.table({"pay": ["cash", "bitcoin"] * 10, "fare": [1.0, 2.0] * 10})
ODD = pa.table(
    {"pay": ["cash", "card"] * 10, "fare": ["1", "2"] * 10, "more": [1] * 20}
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExampleStatistics]:
    """Statistics of every table, as splits 'train' and 'eval'."""
    folder = tmp_path_factory.mktemp("statistics")
    tables = {
        "good": {"train": GOOD, "eval": GOOD},
        "bad": {"train": GOOD, "eval": BAD},
        "odd": {"train": ODD},
        "empty": {"train": GOOD, "eval": GOOD.slice(0, 0)},
    }
    return {
        name: described(
            write_examples(folder / f"{name}-examples", splits), folder / name
        )
        for name, splits in tables.items()
    }


def curated() -> schema_pb2.Schema:
    return text_format.Parse(
        """
        feature {
          name: "pay" type: BYTES domain: "pay" presence { min_fraction: 1 }
          drift_comparator { infinity_norm { threshold: 0.1 } }
          skew_comparator { infinity_norm { threshold: 0.1 } }
        }
        feature { name: "fare" type: FLOAT }
        feature { name: "tip" type: FLOAT presence { min_fraction: 1 }
                  not_in_environment: "SERVING" lifecycle_stage: PRODUCTION }
        string_domain { name: "pay" value: "cash" value: "card" }
        default_environment: "TRAINING"
        default_environment: "SERVING"
        """,
        schema_pb2.Schema(),
    )


def judged(
    statistics: ExampleStatistics,
    folder: Path,
    *,
    schema: schema_pb2.Schema | None = None,
    **parameters: Any,
) -> ExampleAnomalies:
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(
        text_format.MessageToString(schema or curated())
    )
    parameters.setdefault("environment", "SERVING")
    live = ExampleValidator(
        statistics=statistics, schema=Schema(folder / "schema"), **parameters
    ).with_outputs(folder / "out")
    live.run(RunContext.local(folder / "tmp"))
    return live.anomalies


def test_data_that_fits_is_blessed(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(made["good"], tmp_path)
    assert found.answer is Answer.YES
    assert found.reasons == ()
    assert found.properties["blessed"] == {"train": 1, "eval": 1}
    assert found.properties["span"] == 3
    assert found.split_names == ("train", "eval")
    assert found.file("eval").name == "SchemaDiff.pb"


def test_an_unknown_value_is_an_error_with_its_reason(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(made["bad"], tmp_path)
    assert found.answer is Answer.NO
    assert found.properties["blessed"] == {"train": 1, "eval": 0}
    assert found.reasons == (
        "Split 'eval', feature 'pay': Examples contain values missing from the "
        "schema: bitcoin (~50%) (error).",
    )


@pytest.mark.parametrize("name", ["good", "bad", "odd", "empty"])
@pytest.mark.parametrize("environment", [None, "TRAINING", "SERVING"])
def test_anomalies_equal_those_of_tfdv(
    made: dict[str, ExampleStatistics],
    tmp_path: Path,
    name: str,
    environment: str | None,
) -> None:
    found = judged(
        made[name],
        tmp_path,
        environment=environment,
        previous_statistics=made["bad"],
        serving_statistics=made["odd"],
    )
    for split in made[name].split_names:
        assert read_anomalies(found, split) == tfdv.validate_statistics(
            read_statistics(made[name], split),
            curated(),
            environment=environment,
            previous_statistics=read_statistics(made["bad"], split),
            serving_statistics=read_statistics(made["odd"], "train"),
        )


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("previous_statistics", "between current and previous"),
        ("serving_statistics", "between training and serving"),
    ],
)
def test_drift_and_skew_are_found_where_the_schema_compares(
    made: dict[str, ExampleStatistics], tmp_path: Path, control: str, words: str
) -> None:
    found = judged(made["good"], tmp_path, **{control: made["bad"]})
    assert found.properties["blessed"] == {"train": 1, "eval": 0}
    (reason,) = found.reasons
    assert words in reason
    assert reason.endswith("(error).")


def test_the_environment_can_differ_by_split(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(made["good"], tmp_path, environment={"eval": "SERVING"})
    assert found.properties["blessed"] == {"train": 0, "eval": 1}
    assert found.reasons == (
        "Split 'train', feature 'tip': Column is completely missing (error).",
    )


def test_a_split_without_examples_is_not_enough_data(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(made["empty"], tmp_path)
    assert found.properties["blessed"] == {"train": 1, "eval": 2}
    assert found.answer is Answer.NOT_ENOUGH_DATA
    assert found.reasons == ("Split 'eval' has no example to judge by.",)


def test_excluded_splits_are_not_judged(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(made["bad"], tmp_path, exclude_splits=["eval"])
    assert found.answer is Answer.YES
    assert found.split_names == ("train",)


@pytest.mark.parametrize(
    ("severity", "fail_on", "answer"),
    [
        ({"pay": "warning"}, "error", Answer.YES),
        ({"pay": "warning"}, "warning", Answer.NO),
        ({"ENUM_TYPE_UNEXPECTED_STRING_VALUES": "warning"}, "error", Answer.YES),
        ({"ENUM_TYPE_UNEXPECTED_STRING_VALUES": "ignore"}, "warning", Answer.YES),
        (
            {"pay": "error", "ENUM_TYPE_UNEXPECTED_STRING_VALUES": "ignore"},
            "error",
            Answer.NO,
        ),
    ],
)
def test_severities_are_overridden_by_feature_and_by_type(
    made: dict[str, ExampleStatistics],
    tmp_path: Path,
    severity: dict[str, str],
    fail_on: str,
    answer: Answer,
) -> None:
    found = judged(made["bad"], tmp_path, severity=severity, fail_on=fail_on)
    assert found.answer is answer
    written = read_anomalies(found, "eval").anomaly_info
    if "ignore" in severity.values() and "pay" not in severity:
        assert not written
    else:
        level = severity.get("pay") or "warning"
        assert written["pay"].severity == anomalies_pb2.AnomalyInfo.Severity.Value(
            level.upper()
        )
        assert f"({level})." in found.reasons[0]


def test_an_anomaly_keeps_the_reasons_that_are_not_ignored(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(
        made["bad"],
        tmp_path,
        previous_statistics=made["good"],
        severity={"COMPARATOR_L_INFTY_HIGH": "ignore"},
    )
    kept = read_anomalies(found, "eval").anomaly_info["pay"]
    assert [each.short_description for each in kept.reason] == [
        "Unexpected string values"
    ]
    assert kept.short_description == "Unexpected string values"
    assert kept.description == kept.reason[0].description


def test_anomalies_of_the_whole_data_set_count(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    schema = curated()
    schema.dataset_constraints.min_examples_count = 100
    found = judged(made["odd"], tmp_path, schema=schema, severity={"fare": "ignore"})
    assert found.answer is Answer.NO
    assert any(
        each.startswith("Split 'train', the dataset: ") for each in found.reasons
    )


def test_a_whole_data_set_anomaly_can_be_ignored(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    schema = curated()
    schema.dataset_constraints.min_examples_count = 100
    found = judged(
        made["good"],
        tmp_path,
        schema=schema,
        severity={"DATASET_LOW_NUM_EXAMPLES": "ignore"},
    )
    assert found.answer is Answer.YES
    assert not read_anomalies(found, "train").HasField("dataset_anomaly_info")


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"environment": "SERVNG"},
            "Environment 'SERVNG' of ExampleValidator.environment is not in the "
            "schema's default_environment (it has 'SERVING', 'TRAINING'). Did you mean "
            "'SERVING'?",
        ),
        (
            {"environment": {"evl": "SERVING"}},
            "Split 'evl' is not in ExampleStatistics",
        ),
        (
            {"severity": {"SCHEMA_NEW_COLUM": "ignore"}},
            "Severity override 'SCHEMA_NEW_COLUM' is neither a feature nor a type of "
            "anomaly. Did you mean 'SCHEMA_NEW_COLUMN'? Types are those of TensorFlow "
            "Metadata's AnomalyInfo, such as 'SCHEMA_NEW_COLUMN'.",
        ),
        ({"exclude_splits": ["evl"]}, "Did you mean 'eval'?"),
    ],
)
def test_names_that_do_not_exist_are_refused(
    made: dict[str, ExampleStatistics],
    tmp_path: Path,
    parameters: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(DataError, match=re.escape(sentence)):
        judged(made["good"], tmp_path, **parameters)


def test_anomalies_that_are_damaged_are_named(
    made: dict[str, ExampleStatistics], tmp_path: Path
) -> None:
    found = judged(made["good"], tmp_path)
    found.file("train").write_bytes(b"\xff\xff")
    with pytest.raises(
        DataError,
        match=re.escape(
            f"Anomalies file '{found.file('train')}' cannot be parsed as Anomalies: it "
            "was cut off or written by something else. Run its producer again."
        ),
    ):
        read_anomalies(found, "train")
