"""The tidy table of metrics: what is in it, and that its bytes can be made again."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components.evaluation.blessing import (
    Interval,
    Measured,
    MetricName,
    SliceMetrics,
)
from penstock.components.evaluation.table import (
    TABLE_FILE,
    TABLE_SCHEMA,
    metric_texts,
    read_table,
    write_table,
)
from penstock.schemas.errors import DataError

AUC = MetricName("auc", weighted=False)
LOSS = MetricName("loss", output="tip", sub_key="class 1")
MEASURED = [
    SliceMetrics(
        (("hour", 7), ("payment_type", "Cash")),
        {
            LOSS: Measured(math.nan),
            AUC: Measured(
                0.75,
                0.5,
                0.25,
                Interval(0.5, 1.0, method="Poisson bootstrap"),
                Interval(0.25, 0.75, 0.9, 11, "linearized"),
                None,
            ),
        },
        rows=12,
    ),
    SliceMetrics((), {AUC: Measured(0.625)}, rows=1_000_000_000_000),
    SliceMetrics((("hour", 8),), {}, is_too_small=True, rows=1),
    SliceMetrics((("hour", 7),), {AUC: Measured(None, None, -0.5)}, ()),
]


def test_the_table_has_a_row_per_slice_metric_and_model(tmp_path: Path) -> None:
    write_table(tmp_path / TABLE_FILE, MEASURED)
    table = read_table(tmp_path / TABLE_FILE)
    assert table.schema == TABLE_SCHEMA
    *numbers, undefined = table.to_pylist()
    where = "hour=7, payment_type=Cash"
    nothing = {"lower": None, "upper": None, "confidence": None, "method": None}
    drawn = "Poisson bootstrap"
    assert numbers == [
        {"slice": "all rows", "metric": "auc", "model": "candidate", "value": 0.625}
        | nothing
        | {"rows": 1_000_000_000_000},
        {
            "slice": "all rows minus hour=7",
            "metric": "auc",
            "model": "difference",
            "value": -0.5,
        }
        | nothing
        | {"rows": None},
        {
            "slice": where,
            "metric": "auc",
            "model": "baseline",
            "value": 0.5,
            "lower": 0.25,
            "upper": 0.75,
            "confidence": 0.9,
            "rows": 12,
            "method": "linearized",
        },
        {
            "slice": where,
            "metric": "auc",
            "model": "candidate",
            "value": 0.75,
            "lower": 0.5,
            "upper": 1.0,
            "confidence": 0.95,
            "rows": 12,
            "method": drawn,
        },
        {"slice": where, "metric": "auc", "model": "difference", "value": 0.25}
        | nothing
        | {"rows": 12},
    ]
    assert undefined["metric"] == "tip/loss (class 1)"
    assert math.isnan(undefined["value"])


def test_any_parquet_reader_reads_it(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", MEASURED[1:])
    assert pq.read_table(tmp_path / "a.parquet") == read_table(tmp_path / "a.parquet")
    frame = pq.read_table(tmp_path / "a.parquet").to_pandas()
    assert list(frame["model"][frame["slice"] == "all rows"]) == ["candidate"]


NUMBERS = st.none() | st.floats()
INTERVALS = st.none() | st.builds(
    Interval, st.floats(), st.floats(), st.sampled_from([0.9, 0.95])
)
SLICES = st.lists(
    st.builds(
        SliceMetrics,
        st.lists(
            st.tuples(
                st.sampled_from(["hour", "payment"]),
                st.integers(-3, 3) | st.text(st.characters(codec="utf-8"), max_size=4),
            ),
            max_size=2,
        ).map(tuple),
        st.dictionaries(
            st.builds(
                MetricName, st.sampled_from("abc"), weighted=st.sampled_from([0, 1])
            ),
            st.builds(
                Measured, NUMBERS, NUMBERS, NUMBERS, INTERVALS, INTERVALS, INTERVALS
            ),
            max_size=4,
        ),
        rows=st.none() | st.integers(0, 2**60),
    ),
    max_size=5,
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(SLICES, st.randoms(use_true_random=False))
def test_the_same_metrics_in_any_order_give_the_same_bytes(
    tmp_path: Path, measured: list[SliceMetrics], shuffled: random.Random
) -> None:
    write_table(tmp_path / "a.parquet", measured)
    shuffled.shuffle(measured)
    write_table(tmp_path / "b.parquet", measured)
    assert (tmp_path / "a.parquet").read_bytes() == (
        tmp_path / "b.parquet"
    ).read_bytes()
    table = read_table(tmp_path / "a.parquet")
    values = [
        value
        for each in measured
        for found in each.metrics.values()
        for value in (found.value, found.baseline, found.difference)
        if value is not None
    ]
    assert sorted(map(repr, table["value"].to_pylist())) == sorted(map(repr, values))
    keys = table.select(["slice", "metric", "model"]).to_pylist()
    assert keys == sorted(keys, key=lambda key: list(key.values()))


def test_a_table_of_nothing_has_the_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", [])
    assert read_table(tmp_path / "a.parquet") == TABLE_SCHEMA.empty_table()


def test_weights_are_named_only_where_they_tell_two_metrics_apart() -> None:
    weighted, alone = MetricName("auc", weighted=True), MetricName("f1", weighted=True)
    assert metric_texts([AUC, weighted, alone]) == {
        AUC: "auc",
        weighted: "auc (weighted)",
        alone: "f1",
    }


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / TABLE_FILE)
    assert str(caught.value) == (
        f"There is no table of metrics at '{tmp_path / TABLE_FILE}'. Run the Evaluator "
        "that writes it again."
    )


def test_another_table_is_told_with_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    pq.write_table(pa.table({"fare": [1.0]}), path)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value) == (
        f"'{path}' is no table of metrics: it has the columns 'fare' of other names or "
        "types than 'confidence', 'lower', 'method', 'metric', 'model', 'rows', "
        "'slice', 'upper', 'value'. Give the file that an Evaluator wrote."
    )


def test_a_file_that_is_not_parquet_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no table")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_table(path)
