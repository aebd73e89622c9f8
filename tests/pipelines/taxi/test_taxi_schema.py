"""The curated schema of the trips, held against plain TensorFlow Data Validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines.taxi import TRIPS_SCHEMA
from penstock.pipelines.taxi.trips import Fault, write_trips


def anomalies(
    pattern: Path, *, environment: str = "TRAINING", previous: Path | None = None
) -> dict[str, Any]:
    """Return TFDV's anomalies of the CSV files, by feature."""
    import tensorflow_data_validation as tfdv

    found = tfdv.validate_statistics(
        statistics(pattern),
        tfdv.load_schema_text(str(TRIPS_SCHEMA)),
        environment=environment,
        previous_statistics=statistics(previous) if previous else None,
    )
    return dict(found.anomaly_info)


def statistics(pattern: Path) -> Any:
    import pandas as pd
    import tensorflow_data_validation as tfdv

    frames = [pd.read_csv(file) for file in sorted(pattern.parent.glob(pattern.name))]
    # Whole numbers stay whole where some are missing, as when TFDV reads the CSV.
    rows = pd.concat(frames, ignore_index=True).convert_dtypes(
        convert_string=False, convert_floating=False
    )
    return tfdv.generate_statistics_from_dataframe(rows)


def test_clean_trips_have_no_anomaly(tmp_path: Path) -> None:
    write_trips(tmp_path, rows=1_000, days=2)
    assert anomalies(tmp_path / "*.csv") == {}


def test_one_day_has_not_drifted_from_another(tmp_path: Path) -> None:
    first, second = write_trips(tmp_path, rows=2_000, days=2)
    assert anomalies(second, previous=first) == {}


def test_a_weekend_has_not_drifted_from_a_week(tmp_path: Path) -> None:
    *week, saturday = write_trips(tmp_path, rows=2_000, days=4)
    assert anomalies(saturday, previous=week[0]) == {}


def test_the_real_sample_has_no_anomaly(taxi_csv: Path) -> None:
    assert anomalies(taxi_csv) == {}


@pytest.mark.parametrize(
    ("fault", "features", "kind", "text"),
    [
        (
            "new_payment_type",
            ["payment_type"],
            "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
            "Mobile",
        ),
        ("shifted_fare", ["fare"], "FLOAT_TYPE_BIG_FLOAT", "high"),
        (
            "missing_coordinates",
            ["pickup_latitude", "pickup_longitude"],
            "FEATURE_TYPE_LOW_FRACTION_PRESENT",
            "fraction",
        ),
    ],
)
def test_every_fault_is_an_error_of_its_features_and_of_no_other(
    tmp_path: Path, fault: Fault, features: list[str], kind: str, text: str
) -> None:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    write_trips(tmp_path, rows=1_000, days=5, fault=fault)
    found = anomalies(tmp_path / "*.csv")
    assert sorted(found) == features
    for name in features:
        info = found[name]
        assert info.severity == anomalies_pb2.AnomalyInfo.ERROR
        assert [
            anomalies_pb2.AnomalyInfo.Type.Name(reason.type) for reason in info.reason
        ] == [kind]
        assert text in info.description


def test_a_shifted_fare_has_drifted_from_the_day_before(tmp_path: Path) -> None:
    friday, saturday = write_trips(tmp_path, rows=2_000, days=2, fault="shifted_fare")
    found = anomalies(saturday, previous=friday)
    assert list(found) == ["fare"]
    assert "Jensen-Shannon" in found["fare"].description


def test_requests_have_no_tips_and_training_data_must(tmp_path: Path) -> None:
    write_trips(tmp_path, rows=200, days=1)
    (file,) = tmp_path.glob("*.csv")
    lines = file.read_text(encoding="utf-8").splitlines()
    without = "\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n"
    file.write_text(without, encoding="utf-8")
    assert anomalies(file, environment="SERVING") == {}
    found = anomalies(file, environment="TRAINING")
    assert list(found) == ["tips"]
    assert found["tips"].description == "Column is completely missing"
