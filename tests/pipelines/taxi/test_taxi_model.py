"""The taxi model: its signatures, its label, and how it takes what is missing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from penstock import RunContext
from penstock.components import CsvExampleGen
from penstock.components.training import DataAccessor, FnArgs
from penstock.pipelines.taxi import TRIPS_SCHEMA
from penstock.pipelines.taxi.model import TYPES, example_of, train
from penstock.pipelines.taxi.trips import COLUMNS, write_trips


def trips(folder: Path) -> list[dict[str, str]]:
    (file,) = folder.glob("*.csv")
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trips")
    write_trips(made, rows=2_000, days=1)
    return made


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that was trained for a moment, as a server would load it."""
    import tensorflow as tf

    temp = tmp_path_factory.mktemp("model")
    ingest = CsvExampleGen(input_dir=folder, splits={"train": 4, "eval": 1})
    live = ingest.with_outputs(temp)
    live.run(RunContext.local(temp / "temp"))
    train(
        FnArgs(
            train_files=[str(live.examples.split_dir("train") / "*")],
            train_steps=100,
            data_accessor=DataAccessor("FORMAT_PARQUET", schema_file=TRIPS_SCHEMA),
            serving_model_dir=str(temp / "saved"),
            model_run_dir=str(temp / "logs"),
        )
    )
    assert list((temp / "logs").rglob("events.*"))
    return tf.saved_model.load(str(temp / "saved"))


def probabilities(model: Any, rows: list[dict[str, str]]) -> list[float]:
    import tensorflow as tf

    examples = tf.constant([example_of(row) for row in rows])
    answer = model.signatures["serving_default"](examples=examples)["probability"]
    assert answer.shape == (len(rows), 1)
    return [float(each) for each in answer.numpy()[:, 0]]


def test_every_feature_is_a_column() -> None:
    assert set(TYPES) < set(COLUMNS)
    assert "tips" not in TYPES


def test_credit_cards_are_told_from_cash(model: Any, folder: Path) -> None:
    rows = trips(folder)
    said = probabilities(model, rows)

    def mean(kind: str) -> float:
        found = [
            each
            for row, each in zip(rows, said, strict=True)
            if row["payment_type"] == kind
        ]
        return sum(found) / len(found)

    assert mean("Cash") < 0.2
    assert mean("Credit Card") > 0.4


def test_the_answer_does_not_depend_on_the_tips(model: Any, folder: Path) -> None:
    rows = trips(folder)[:20]
    without = [{key: row[key] for key in row if key != "tips"} for row in rows]
    assert probabilities(model, without) == probabilities(model, rows)


def test_the_label_is_a_tip_above_a_fifth_of_the_fare(model: Any) -> None:
    import tensorflow as tf

    rows = [
        {"fare": "10.0", "tips": "2.5"},
        {"fare": "10.0", "tips": "1.5"},
        {"fare": "10.0", "tips": "0.0"},
        {"fare": "0", "tips": "1"},
        {"fare": "10.0"},
    ]
    answer = model.signatures["transform_features"](
        examples=tf.constant([example_of(row) for row in rows])
    )
    assert list(answer) == ["big_tipper"]
    assert answer["big_tipper"].numpy()[:, 0].tolist() == [1, 0, 0, 1, 0]


def test_missing_and_unknown_values_are_answered(model: Any, folder: Path) -> None:
    import math

    row = trips(folder)[0]
    rows = [
        {},
        *({**row, name: ""} for name in TYPES),
        {**row, "payment_type": "Mobile", "company": "Nobody"},
        {**row, "pickup_community_area": "999", "trip_start_hour": "-1"},
        {**row, "fare": "1e9", "trip_miles": "-3"},
    ]
    for said in probabilities(model, rows):
        assert math.isfinite(said)
        assert 0 <= said <= 1


def test_a_row_becomes_an_example_with_its_types() -> None:
    import tensorflow as tf

    made = tf.train.Example.FromString(
        example_of(
            {
                "fare": "12.45",
                "trip_seconds": "300.0",
                "company": "",
                "payment_type": "Cash",
                "pickup_census_tract": "17031",
            }
        )
    )
    features = made.features.feature
    assert sorted(features) == ["fare", "payment_type", "trip_seconds"]
    assert features["fare"].float_list.value[0] == pytest.approx(12.45)
    assert features["trip_seconds"].int64_list.value[:] == [300]
    assert features["payment_type"].bytes_list.value[:] == [b"Cash"]
