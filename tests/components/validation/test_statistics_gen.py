"""StatisticsGen against TFDV, on real data and on generated tables."""

from __future__ import annotations

import json
import math
import pickle
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pytest
import tensorflow_data_validation as tfdv
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_data_validation.utils import variance_util
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from penstock.components.base import RunContext
from penstock.components.columns import examples as columns
from penstock.components.columns import tfrecord
from penstock.components.columns.examples import RowGroup
from penstock.components.validation import StatisticsGen, statistics
from penstock.components.validation.protos import read_statistics
from penstock.schemas.artifacts import Examples, Schema
from penstock.schemas.errors import DataError, PipelineError
from tests.components.validation.oracle import (
    assert_equal,
    assert_quantiles,
    described,
    in_memory,
    list_form,
    statistics_of,
    write_examples,
)


@pytest.fixture(scope="module")
def taxi(taxi_csv: Path) -> pa.Table:
    return pc.read_csv(taxi_csv)


def with_beam(
    table: pa.Table, file: Path, **options: Any
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return TFDV's statistics by its Beam transform, which counts values exactly."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([list_form(table)])
            | tfdv.GenerateStatistics(tfdv.StatsOptions(**options))
            | tfdv.WriteStatisticsToBinaryFile(str(file))
        )
    return tfdv.load_stats_binary(str(file))


def write_schema(folder: Path, schema: schema_pb2.Schema) -> Schema:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.pbtxt").write_text(text_format.MessageToString(schema))
    return Schema(folder)


def feature(
    found: statistics_pb2.DatasetFeatureStatisticsList, name: str
) -> statistics_pb2.FeatureNameStatistics:
    (each,) = (f for f in found.datasets[0].features if list(f.path.step) == [name])
    return each


# Real data


def test_statistics_of_real_trips_equal_tfdv_from_a_data_frame(
    taxi: pa.Table, tmp_path: Path
) -> None:
    frame = taxi.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    theirs = tfdv.generate_statistics_from_dataframe(frame)
    ours = statistics_of(taxi, tmp_path)
    assert_equal(ours, theirs)


def test_statistics_of_real_trips_in_small_portions_keep_counts_and_quantiles(
    taxi: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "ROWS_PER_PORTION", 1000)
    ours = statistics_of(taxi, tmp_path, rows_per_group=500)
    assert_equal(ours, in_memory(taxi), quantiles=False)
    for name in ("fare", "trip_miles", "trip_seconds", "tips"):
        assert_quantiles(feature(ours, name), taxi.column(name).drop_null().to_pylist())


def test_weighted_and_sliced_statistics_of_real_trips_equal_tfdv(
    taxi: pa.Table, tmp_path: Path
) -> None:
    table = taxi.slice(0, 3000).append_column(
        "weight", pa.array(np.arange(3000) % 7 / 4)
    )
    slices: list[Mapping[str, str | int | None]] = [
        {"payment_type": None},
        {"trip_start_day": None, "payment_type": "Cash"},
        {"trip_start_hour": 13},
    ]
    schema = schema_pb2.Schema()
    for name in ("trip_start_day", "pickup_community_area"):
        schema.feature.add(
            name=name, type=schema_pb2.INT
        ).int_domain.is_categorical = True
    theirs = in_memory(table, schema=schema, weight_feature="weight")
    ours = statistics_of(
        table,
        tmp_path,
        schema=write_schema(tmp_path / "schema", schema),
        weight_feature="weight",
        slices=slices,
    )
    frame = table.to_pandas()
    parts: dict[str, Any] = {}
    for value in frame["payment_type"].dropna().unique():
        parts[f"payment_type_{value}"] = frame["payment_type"] == value
    for day in frame.loc[frame["payment_type"] == "Cash", "trip_start_day"].unique():
        parts[f"payment_type_Cash_trip_start_day_{day}"] = (
            frame["payment_type"] == "Cash"
        ) & (frame["trip_start_day"] == day)
    parts["trip_start_hour_13"] = frame["trip_start_hour"] == 13
    assert [each.name for each in ours.datasets] == ["All Examples", *sorted(parts)]
    theirs.datasets[0].name = "All Examples"
    for name, rows in parts.items():
        part = in_memory(
            table.filter(pa.array(rows)), schema=schema, weight_feature="weight"
        ).datasets[0]
        part.name = name
        theirs.datasets.append(part)
    assert_equal(ours, theirs)


def test_statistics_of_real_trips_equal_tfdv_on_beam(
    taxi: pa.Table, tmp_path: Path
) -> None:
    table = taxi.slice(0, 3000)
    assert_equal(
        statistics_of(table, tmp_path), with_beam(table, tmp_path / "theirs.pb")
    )


def test_values_are_counted_exactly_up_to_a_thousand_distinct(tmp_path: Path) -> None:
    numbers = np.random.default_rng(5).zipf(1.3, 40_000) % 1000
    table = pa.table({"word": pa.array([f"w{number}" for number in numbers])})
    ours = statistics_of(table, tmp_path, rows_per_group=3000, num_top_values=1000)
    found = feature(ours, "word").string_stats
    counts = {each.value: each.frequency for each in found.top_values}
    values, expected = np.unique(numbers, return_counts=True)
    assert counts == {
        f"w{value}": count for value, count in zip(values, expected, strict=True)
    }
    assert found.unique == len(values)


# Generated tables

_TEXT = st.text(max_size=6)
_INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2)
_FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)
_KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), _INTEGERS),
    (pa.float64(), _FLOATS),
    (pa.float32(), st.floats(allow_nan=True, allow_infinity=True, width=32)),
    (pa.string(), _TEXT),
    (pa.binary(), st.binary(max_size=4)),
    (pa.bool_(), st.booleans()),
    (pa.list_(pa.int64()), st.lists(_INTEGERS, max_size=4)),
    (pa.list_(pa.float64()), st.lists(_FLOATS, max_size=4)),
    (pa.list_(pa.string()), st.lists(_TEXT, max_size=4)),
    (pa.null(), st.none()),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 12))
    columns: dict[str, pa.Array] = {}
    for name in draw(st.lists(_TEXT, min_size=1, max_size=4, unique=True)):
        kind, values = draw(st.sampled_from(_KINDS))
        empty = draw(st.integers(0, 5)) == 0
        column = draw(
            st.lists(
                st.none() if empty else st.none() | values,
                min_size=rows,
                max_size=rows,
            )
        )
        columns[name] = pa.array(column, kind)
    return pa.table(columns)


def test_moments_of_infinities_depend_on_batches_in_tfdv() -> None:
    def mean(*batches: list[float]) -> float:
        found = variance_util.MeanVarAccumulator()
        with np.errstate(invalid="ignore"):
            for batch in batches:
                found.update(np.array(batch))
        return float(found.mean)

    assert math.isnan(mean([-1.0, math.inf]))
    assert mean([-1.0], [math.inf]) == math.inf


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(table=tables(), rows_per_group=st.sampled_from([1, 5, 100]))
def test_statistics_of_any_table_equal_tfdv(
    table: pa.Table, rows_per_group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ours = statistics_of(
        table, tmp_path_factory.mktemp("any"), rows_per_group=rows_per_group
    )
    assert_equal(ours, in_memory(table))


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    table=tables(),
    rows_per_group=st.sampled_from([1, 5, 100]),
    weights=st.lists(st.floats(0.25, 1e6), min_size=12, max_size=12),
)
def test_weighted_statistics_of_any_table_equal_tfdv(
    table: pa.Table,
    rows_per_group: int,
    weights: list[float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    column = pa.array(weights[: table.num_rows], pa.float64())
    table = table.append_column("the weight", column)
    ours = statistics_of(
        table,
        tmp_path_factory.mktemp("weighted"),
        rows_per_group=rows_per_group,
        weight_feature="the weight",
    )
    assert_equal(ours, in_memory(table, weight_feature="the weight"))


def test_structs_are_described_with_paths(tmp_path: Path) -> None:
    trips: list[Any] = [{"fare": 1.5, "tags": ["a"]}, None, {"fare": None, "tags": []}]
    kind = pa.struct({"fare": pa.float64(), "tags": pa.list_(pa.string())})
    ours = statistics_of(pa.table({"trip": pa.array(trips, kind)}), tmp_path)
    inner = pa.struct({"fare": pa.list_(pa.float64()), "tags": pa.list_(pa.binary())})
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(
                [{"fare": [1.5], "tags": [b"a"]}, None, {"fare": None, "tags": []}],
                inner,
            )
        ],
        names=["trip"],
    )
    theirs = tfdv.statistics.stats_impl.generate_statistics_in_memory(batch)
    assert_equal(ours, theirs)
    paths = [list(each.path.step) for each in ours.datasets[0].features]
    assert paths == [["trip"], ["trip", "fare"], ["trip", "tags"]]


def test_a_split_without_rows_has_its_columns_described(tmp_path: Path) -> None:
    table = pa.table({"n": pa.array([], pa.int64()), "s": pa.array([], pa.string())})
    ours = statistics_of(table, tmp_path, slices=[{"s": None}])
    assert [each.name for each in ours.datasets] == ["All Examples"]
    assert ours.datasets[0].num_examples == 0
    assert [list(f.path.step) for f in ours.datasets[0].features] == [["n"], ["s"]]


def test_a_column_that_one_file_lacks_values_of_is_missing_there(
    tmp_path: Path,
) -> None:
    files = [
        pa.table({"a": pa.array([1, 2, 3]), "b": pa.array([None] * 3, pa.string())}),
        pa.table({"a": pa.array([None], pa.int64()), "b": pa.array(["x"])}),
    ]
    examples = write_examples(tmp_path / "examples", {"train": files})
    ours = read_statistics(described(examples, tmp_path / "out"), "train")
    assert_equal(ours, in_memory(pa.concat_tables(files)))


def test_tfrecord_files_give_the_statistics_that_parquet_files_give(
    tmp_path: Path,
) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "s": pa.array(["a", "b", None]),
            "x": pa.array([[0.5, 1.5], [], None], pa.list_(pa.float32())),
        }
    )
    target = tmp_path / "examples" / "Split-train"
    target.mkdir(parents=True)
    with tfrecord.Writer(target / "data_tfrecord-00000-of-00001.gz") as writer:
        for batch in table.to_batches():
            writer.write(tfrecord.encode(batch))
    examples = Examples(
        tmp_path / "examples", properties={"split_names": json.dumps(["train"])}
    )
    ours = read_statistics(described(examples, tmp_path / "out"), "train")
    assert_equal(ours, in_memory(table))


def test_semantic_domains_are_looked_for_when_asked(tmp_path: Path) -> None:
    table = pa.table({"when": pa.array(["2024-01-02T03:04:05"] * 50)})
    ours = statistics_of(table, tmp_path, enable_semantic_domain_stats=True)
    theirs = in_memory(table, enable_semantic_domain_stats=True)
    assert_equal(ours, theirs)


def test_a_schema_makes_integers_categories_and_text_bytes(tmp_path: Path) -> None:
    schema = schema_pb2.Schema()
    schema.feature.add(
        name="code", type=schema_pb2.INT
    ).int_domain.is_categorical = True
    schema.feature.add(name="blob", type=schema_pb2.BYTES).image_domain.SetInParent()
    table = pa.table({"code": [7, 7, 8], "blob": ["a", "bb", "ccc"], "n": [1, 2, 3]})
    ours = statistics_of(
        table, tmp_path, schema=write_schema(tmp_path / "schema", schema)
    )
    assert_equal(ours, in_memory(table, schema=schema))
    assert feature(ours, "code").string_stats.top_values[0].value == "7"
    assert feature(ours, "blob").bytes_stats.max_num_bytes == 3


def test_crosses_have_covariance_and_correlation(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=1000)
    table = pa.table(
        {"x": x, "z": random.normal(size=1000), "y": x * 2 + random.normal(size=1000)}
    )
    ours = statistics_of(
        table,
        tmp_path,
        rows_per_group=300,
        feature_crosses=[("z", "x"), ("x", "y")],
    )
    crosses = ours.datasets[0].cross_features
    names = [(*each.path_x.step, *each.path_y.step) for each in crosses]
    assert names == [("x", "y"), ("x", "z")]
    frame = table.to_pandas()
    for (one, other), each in zip(names, crosses, strict=True):
        assert each.count == 1000
        assert each.num_cross_stats.correlation == pytest.approx(
            frame[one].corr(frame[other])
        )
        assert each.num_cross_stats.covariance == pytest.approx(
            frame[one].cov(frame[other], ddof=0)
        )


# What is written


def test_every_split_but_the_excluded_is_described(tmp_path: Path) -> None:
    table = pa.table({"n": [1, 2, 3]})
    examples = write_examples(
        tmp_path / "examples", {"train": table, "eval": table.slice(1), "test": table}
    )
    found = described(examples, tmp_path / "out", exclude_splits=["test"])
    assert found.split_names == ("train", "eval")
    assert found.properties["span"] == 3
    assert sorted(path.name for path in found.path.iterdir()) == [
        "Split-eval",
        "Split-train",
    ]
    assert read_statistics(found, "train").datasets[0].num_examples == 3
    assert read_statistics(found, "eval").datasets[0].num_examples == 2
    assert tfdv.load_stats_binary(str(found.file("eval"))) == read_statistics(
        found, "eval"
    )


def test_the_same_examples_give_the_same_bytes_on_any_runner_and_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "ROWS_PER_PORTION", 700)
    random = np.random.default_rng(3)
    table = pa.table(
        {
            "x": random.lognormal(size=9000) * 10.0 ** random.integers(-9, 9, 9000),
            "word": [f"w{n}" for n in random.zipf(1.2, 9000) % 4000],
            "weight": random.random(9000),
        }
    )
    examples = write_examples(
        tmp_path / "examples",
        {"train": [table.slice(0, 5000), table.slice(5000)], "eval": table},
        rows_per_group=250,
    )
    slices = [{"word": "w1"}]

    def digest(name: str, *beam: str) -> bytes:
        found = described(
            examples,
            tmp_path / name,
            beam=beam,
            weight_feature="weight",
            slices=slices,
        )
        return found.file("train").read_bytes() + found.file("eval").read_bytes()

    first = digest("first")
    assert digest("again") == first
    threads = ("--direct_num_workers=3", "--direct_running_mode=multi_threading")
    assert digest("threads", *threads) == first
    forward = statistics.write_statistics

    def backward(pipeline: Any, work: Any, *rest: Any) -> None:
        forward(pipeline, list(reversed(work)), *rest)

    monkeypatch.setattr(statistics, "write_statistics", backward)
    assert digest("backward") == first


def test_portions_depend_on_row_groups_only_and_are_bounded_in_number() -> None:
    groups = [RowGroup("f", 0, index, 50_000) for index in range(1_000)]
    schema = pa.schema({"n": pa.int64()})
    many = statistics.portions("train", groups, schema)
    assert 60 <= len(many) <= columns.MOST_PORTIONS
    assert [group for portion in many for group in portion.row_groups] == groups
    few = statistics.portions("train", groups[:12], schema)
    assert [portion.rows for portion in few] == [250_000, 250_000, 100_000]
    (nothing,) = statistics.portions("train", [], schema)
    assert nothing.rows == 0


def test_an_analysis_survives_pickling(tmp_path: Path) -> None:
    analysis = statistics.StatisticsAnalysis(
        tfdv.StatsOptions(weight_feature="w"), [{"s": None}], [("a", "b")]
    )
    copy = pickle.loads(pickle.dumps(analysis))
    batch = list_form(
        pa.table({"s": ["x", "y"], "w": [1.0, 2.0], "a": [1, 2], "b": [3, 5]})
    )
    results = []
    for each in (analysis, copy):
        accumulator = each.create_accumulator()
        each.add_input(accumulator, batch)
        results.append(each.extract_output(each.merge_accumulators([accumulator])))
    assert results[0] == results[1]
    assert [each.name for each in results[0].datasets] == ["All Examples", "s_x", "s_y"]


# Bad input


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    table = pa.table(
        {
            "fare": pa.array([1.5, None, 2.0]),
            "company": pa.array(["a", "b", "a"]),
            "hour": pa.array([1, 2, 3]),
        }
    )
    return write_examples(tmp_path / "examples", {"train": table})


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"exclude_splits": ["trian"]},
            "Split 'trian' is not in Examples '{uri}' (it has 'train'). "
            "Did you mean 'train'?",
        ),
        (
            {"weight_feature": "fair"},
            "Feature 'fair' of StatisticsGen.weight_feature is not in Examples '{uri}' "
            "(it has 'company', 'fare', 'hour'). Did you mean 'fare'?",
        ),
        (
            {"weight_feature": "company"},
            "Weight feature 'company' has type string, which is no number. Name a "
            "feature of numbers.",
        ),
        (
            {"weight_feature": "fare"},
            "Weight feature 'fare' has 0 values in 1 of 3 examples. Give every example "
            "exactly one weight.",
        ),
        (
            {"slices": [{"compny": None}]},
            "Feature 'compny' of StatisticsGen.slices is not in Examples '{uri}' (it "
            "has 'company', 'fare', 'hour'). Did you mean 'company'?",
        ),
        (
            {"slices": [{"hour": "noon"}]},
            "Slice value 'noon' of feature 'hour' is no integer, but the feature holds "
            "integers. Pass an integer or None.",
        ),
        (
            {"feature_crosses": [("fare", "hours")]},
            "Feature 'hours' of StatisticsGen.feature_crosses is not in Examples "
            "'{uri}' (it has 'company', 'fare', 'hour'). Did you mean 'hour'?",
        ),
    ],
)
def test_what_the_examples_cannot_give_is_said(
    examples: Examples, tmp_path: Path, parameters: dict[str, Any], sentence: str
) -> None:
    expected = re.escape(sentence.format(uri=examples.uri))
    with pytest.raises(DataError, match=expected):
        described(examples, tmp_path / "out", **parameters)


@pytest.mark.parametrize(("weight", "shown"), [(-1.0, "-1.0"), (np.inf, "inf")])
def test_a_weight_below_zero_or_without_end_is_refused(
    tmp_path: Path, weight: float, shown: str
) -> None:
    examples = write_examples(
        tmp_path / "examples", {"train": pa.table({"w": [1.0, weight]})}
    )
    file = examples.files("train")[0]
    with pytest.raises(
        DataError,
        match=re.escape(
            f"Split 'train', file '{file}': Weight feature 'w' holds {shown}, which is "
            "no weight. Use finite numbers of at least 0."
        ),
    ):
        described(examples, tmp_path / "out", weight_feature="w")


def test_weights_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    table = pa.table({"n": [1.0, 2.0], "w": [0.0, 0.0]})
    with pytest.raises(
        DataError,
        match=re.escape(
            "'All Examples' cannot be described: TFDV finds no finite values, or no "
            "weight above 0, for a numeric feature. Leave the feature out, or give "
            "some example a weight."
        ),
    ):
        statistics_of(table, tmp_path, weight_feature="w")


def test_files_that_disagree_about_a_type_are_refused(tmp_path: Path) -> None:
    examples = write_examples(
        tmp_path / "examples",
        {"train": [pa.table({"n": [1]}), pa.table({"n": ["one"]})]},
    )
    with pytest.raises(
        DataError,
        match=r"Split 'train' cannot be described: TFDV says 'Cannot determine the "
        r"type "
        "of feature n.*Give every column one type and one depth of lists in all files "
        "of a split.",
    ):
        described(examples, tmp_path / "out")


def test_slices_whose_names_meet_are_refused(tmp_path: Path) -> None:
    examples = write_examples(
        tmp_path / "examples",
        {"train": pa.table({"a": ["b_c"], "a_b": ["c"]})},
    )
    with pytest.raises(
        DataError,
        match=r"Slice 'a_b_c' comes out of two definitions in slices, and its "
        r"statistics would be mixed\. Drop or rename one of the features\.",
    ):
        described(examples, tmp_path / "out", slices=[{"a": None}, {"a_b": None}])


def test_a_slice_value_that_is_no_text_is_refused(tmp_path: Path) -> None:
    examples = write_examples(
        tmp_path / "examples",
        {"train": pa.table({"b": pa.array([b"\xff"], pa.binary())})},
    )
    with pytest.raises(
        DataError,
        match=re.escape(
            "Feature 'b' holds b'\\xff', which is not UTF-8 and cannot name a slice. "
            "Slice by features of text or numbers."
        ),
    ):
        described(examples, tmp_path / "out", slices=[{"b": None}])


def test_rows_that_were_lost_are_noticed(tmp_path: Path) -> None:
    analysis = statistics.StatisticsAnalysis(tfdv.StatsOptions())
    accumulator = analysis.create_accumulator()
    analysis.add_input(accumulator, list_form(pa.table({"n": [1, 2]})))
    packed = zlib.compress(pickle.dumps(accumulator))
    with pytest.raises(
        DataError,
        match=r"Split 'train' has 3 rows by its files' footers, but 2 were described\. "
        r"A file changed while it was read; run again\.",
    ):
        statistics.write_merged(
            ("train", [(0, 3, packed)]), analysis, {"train": tmp_path / "f.pb"}
        )
    assert not (tmp_path / "f.pb").exists()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"num_top_values": 0}, "StatisticsGen.num_top_values is 0. Pass at least 1."),
        (
            {"epsilon": 1.5},
            "StatisticsGen.epsilon is 1.5. Pass a fraction between 0 and 1, such as "
            "TFDV's 0.01.",
        ),
        (
            {"slices": [{}]},
            "StatisticsGen.slices has an empty mapping at position 0. Leave it out: "
            "all examples are always described.",
        ),
        (
            {"slices": [{"a": None}, {"a": "x"}]},
            "StatisticsGen.slices has {'a': None} and {'a': 'x'}, which give slices of "
            "the same name. Drop one of them.",
        ),
        (
            {"feature_crosses": [("a", "a")]},
            "StatisticsGen.feature_crosses crosses 'a' with itself. Name two features.",
        ),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(
    parameters: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PipelineError, match=re.escape(sentence)):
        StatisticsGen(examples=Examples("x"), **parameters)


def test_slices_of_different_values_go_together() -> None:
    StatisticsGen(
        examples=Examples("x"), slices=({"a": "x"}, {"a": "y"}, {"a": None, "b": None})
    )


def test_progress_counts_the_rows(examples: Examples, tmp_path: Path) -> None:
    seen: list[int] = []
    live = StatisticsGen(examples=examples).with_outputs(tmp_path / "out")
    (tmp_path / "tmp").mkdir()
    live.run(RunContext(run_id="r", temp_dir=tmp_path / "tmp", on_progress=seen.append))
    assert sum(seen) == 3
