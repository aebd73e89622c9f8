"""The generator of trips: its bytes, its distributions, its faults."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from penstock.pipelines.taxi.trips import COLUMNS, Fault, main, write_trips
from penstock.schemas.errors import PipelineError


def rows_of(*files: Path) -> list[dict[str, str]]:
    rows = []
    for file in files:
        with open(file, encoding="utf-8", newline="") as lines:
            rows += list(csv.DictReader(lines))
    return rows


def share(
    rows: list[dict[str, str]], matches: Callable[[dict[str, str]], bool]
) -> float:
    return sum(map(matches, rows)) / len(rows)


def is_generous(row: dict[str, str]) -> bool:
    return float(row["tips"]) > 0.2 * float(row["fare"])


def test_the_columns_are_those_of_the_real_sample_in_its_order(
    tmp_path: Path, taxi_csv: Path
) -> None:
    (file,) = write_trips(tmp_path, rows=1, days=1)
    with open(taxi_csv, encoding="utf-8") as real:
        assert next(csv.reader(real)) == list(COLUMNS)
    assert file.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_the_bytes_are_the_same_on_every_machine(tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for file in write_trips(tmp_path, rows=1_000, days=2, seed=7):
        digest.update(file.read_bytes())
    assert (
        digest.hexdigest()
        == "e7f612f87ed5f6922d5c6b2a2fe0a00b3db873ca1b23d9d0433d25915a03e643"
    )


def test_another_seed_gives_other_trips(tmp_path: Path) -> None:
    (first,) = write_trips(tmp_path / "0", rows=100, days=1)
    (second,) = write_trips(tmp_path / "1", rows=100, days=1, seed=1)
    assert first.read_bytes() != second.read_bytes()


def test_more_days_do_not_change_the_earlier_ones(tmp_path: Path) -> None:
    (alone,) = write_trips(tmp_path / "one", rows=100, days=1)
    first, second = write_trips(tmp_path / "two", rows=100, days=2)
    assert first.read_bytes() == alone.read_bytes()
    assert first.read_bytes() != second.read_bytes()
    assert (first.name, second.name) == (
        "trips-2013-05-01.csv",
        "trips-2013-05-02.csv",
    )


def test_every_day_has_the_rows_asked_for_in_order_of_time(tmp_path: Path) -> None:
    for file in write_trips(tmp_path, rows=321, days=2):
        rows = rows_of(file)
        assert len(rows) == 321
        times = [int(row["trip_start_timestamp"]) for row in rows]
        assert times == sorted(times)
        assert {row["trip_start_hour"] for row in rows} == {
            str(time // 3_600 % 24) for time in times
        }


def test_blocks_follow_one_another_without_a_seam(tmp_path: Path) -> None:
    (file,) = write_trips(tmp_path, rows=250_010, days=1)
    with open(file, encoding="utf-8", newline="") as lines:
        assert {len(row) for row in csv.reader(lines)} == {len(COLUMNS)}
    with open(file, "rb") as data:
        assert sum(1 for _ in data) == 250_011


def test_no_rows_leave_a_header(tmp_path: Path) -> None:
    (file,) = write_trips(tmp_path, rows=0, days=1)
    assert file.read_bytes() == (",".join(COLUMNS) + "\n").encode()


def test_numbers_read_back_as_they_were_meant(tmp_path: Path) -> None:
    rows = rows_of(*write_trips(tmp_path, rows=2_000, days=1))
    for row in rows:
        for name in ("fare", "tips", "trip_miles"):
            value = float(row[name])
            assert repr(value) == row[name]
            assert round(value, 2) == value
        assert round(float(row["fare"]) * 100) % 20 == 5
        assert int(row["trip_seconds"]) % 60 == 0


def test_the_distributions_are_those_documented(tmp_path: Path) -> None:
    rows = rows_of(*write_trips(tmp_path, rows=4_000, days=5))
    assert 0.20 < share(rows, is_generous) < 0.25
    assert 0.30 < share(rows, lambda row: row["payment_type"] == "Credit Card") < 0.37
    assert (
        0.005
        < share(rows, lambda row: row["payment_type"] not in ("Cash", "Credit Card"))
        < 0.012
    )
    assert 0.32 < share(rows, lambda row: not row["company"]) < 0.36
    assert 0.02 < share(rows, lambda row: not row["dropoff_latitude"]) < 0.045
    assert 0.25 < share(rows, lambda row: not row["dropoff_census_tract"]) < 0.31
    assert (
        0.22
        < share(
            rows,
            lambda row: row["pickup_community_area"] == row["dropoff_community_area"],
        )
        < 0.32
    )
    fares = sorted(float(row["fare"]) for row in rows)
    assert fares[0] == 3.25
    assert 7 < fares[len(fares) // 2] < 11


def test_only_credit_cards_record_tips(tmp_path: Path) -> None:
    rows = rows_of(*write_trips(tmp_path, rows=2_000, days=1))
    assert {row["payment_type"] for row in rows if float(row["tips"])} == {
        "Credit Card"
    }


def test_hours_differ_on_weekends(tmp_path: Path) -> None:
    files = write_trips(tmp_path, rows=4_000, days=4)  # Wednesday to Saturday

    def at_night(row: dict[str, str]) -> bool:
        return int(row["trip_start_hour"]) < 3

    weekday, weekend = rows_of(files[0]), rows_of(files[3])
    assert {row["trip_start_day"] for row in weekday} == {"4"}
    assert {row["trip_start_day"] for row in weekend} == {"7"}
    assert share(weekday, at_night) < 0.09
    assert share(weekend, at_night) > 0.16


@pytest.mark.parametrize("fault", get_args(Fault))
def test_a_fault_changes_the_last_day_only(tmp_path: Path, fault: Fault) -> None:
    clean = write_trips(tmp_path / "clean", rows=500, days=2)
    faulty = write_trips(tmp_path / "faulty", rows=500, days=2, fault=fault)
    assert clean[0].read_bytes() == faulty[0].read_bytes()
    assert clean[1].read_bytes() != faulty[1].read_bytes()


def test_a_new_payment_type_pays_one_trip_in_20(tmp_path: Path) -> None:
    rows = rows_of(*write_trips(tmp_path, rows=4_000, days=1, fault="new_payment_type"))
    assert 0.035 < share(rows, lambda row: row["payment_type"] == "Mobile") < 0.065


def test_a_shifted_fare_is_in_cents_and_the_tips_are_not(tmp_path: Path) -> None:
    clean = rows_of(*write_trips(tmp_path / "clean", rows=500, days=1))
    faulty = rows_of(
        *write_trips(tmp_path / "faulty", rows=500, days=1, fault="shifted_fare")
    )
    for before, after in zip(clean, faulty, strict=True):
        assert float(after["fare"]) == round(float(before["fare"]) * 100)
        assert after["tips"] == before["tips"]


def test_missing_coordinates_are_missing_together_for_half_the_trips(
    tmp_path: Path,
) -> None:
    rows = rows_of(
        *write_trips(tmp_path, rows=4_000, days=1, fault="missing_coordinates")
    )
    assert 0.45 < share(rows, lambda row: not row["pickup_latitude"]) < 0.55
    assert all(
        bool(row["pickup_latitude"]) == bool(row["pickup_longitude"]) for row in rows
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"rows": -1},
            "Trips cannot be generated with rows=-1: it is at least 0. Pass a larger "
            "number.",
        ),
        (
            {"days": 0},
            "Trips cannot be generated with days=0: it is at least 1. Pass a larger "
            "number.",
        ),
        (
            {"seed": -2},
            "Trips cannot be generated with seed=-2: it is at least 0. Pass a larger "
            "number.",
        ),
        (
            {"fault": "shifted_fair"},
            "Fault 'shifted_fair' is unknown (there are 'missing_coordinates', "
            "'new_payment_type', 'shifted_fare'). Did you mean 'shifted_fare'?",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, wrong: dict[str, Any], text: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        write_trips(tmp_path / "trips", **wrong)
    assert str(caught.value) == text
    assert not (tmp_path / "trips").exists()


def test_the_command_line_writes_and_names_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path), "--rows", "10", "--days", "2", "--fault", "shifted_fare"])
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["trips-2013-05-01.csv", "trips-2013-05-02.csv"]
    assert len(rows_of(*sorted(tmp_path.glob("*.csv")))) == 20
