"""Which rows are in which slice: as TFMA's slicer says, row by row."""

from __future__ import annotations

import datetime
import decimal
import math
import pickle
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.base import RunContext
from penstock.components.columns.examples import read_batches
from penstock.components.evaluation import (
    CrossSliceMetricThreshold,
    CrossSlicingSpec,
    EvalConfig,
    Evaluator,
    GenericValueThreshold,
    MetricConfig,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    PerSliceMetricThreshold,
    SlicingSpec,
)
from penstock.components.evaluation.blessing import Slice
from penstock.components.evaluation.eval_config import check_columns, slice_columns
from penstock.components.evaluation.slicing import (
    SliceBy,
    check_feature,
    slices_by,
    with_features,
)
from penstock.schemas.artifacts import Answer, Examples, Model
from penstock.schemas.errors import DataError, PipelineError


def batch_of(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


ROWS = batch_of(
    fare=pa.array([1.0, 5.0, 25.0, None]),
    hour=pa.array([7, 8, None, 7]),
    paid=pa.array(["Cash", "Card", None, "Cash"]),
    tags=pa.array([["a", "b", "a"], [], None, ["b"]]),
    days=pa.array([[1, 2], [2], [3, None], None]),
    deep=pa.array([[["x"], ["y", "x"]], [[]], None, [None, ["z"]]]),
    nothing=pa.nulls(4),
)


def members(slicing: SliceBy, batch: pa.RecordBatch) -> dict[Slice, list[int]]:
    """Return the rows of every slice, having looked at the form of the answer."""
    assigned = slicing.assign(batch)
    assert assigned.codes.dtype == np.int64
    if assigned.rows is None:
        assert len(assigned.codes) == batch.num_rows
        rows = np.arange(batch.num_rows)
    else:
        assert assigned.rows.dtype == np.int64
        assert (np.diff(assigned.rows) >= 0).all()
        assert (assigned.codes >= 0).all()
        rows = assigned.rows
    found: dict[Slice, list[int]] = {key: [] for key in assigned.keys}
    assert len(found) == len(assigned.keys)
    for row, code in zip(rows.tolist(), assigned.codes.tolist(), strict=True):
        if code >= 0:
            found[assigned.keys[code]].append(row)
    assert all(found.values())
    assert all(sorted(set(each)) == each for each in found.values())
    return found


@pytest.mark.parametrize(
    ("slicing", "expected"),
    [
        (SliceBy(), {(): [0, 1, 2, 3]}),
        (
            SliceBy(("paid",)),
            {(("paid", "Cash"),): [0, 3], (("paid", "Card"),): [1]},
        ),
        (
            SliceBy(("paid", "hour")),
            {
                (("hour", 7), ("paid", "Cash")): [0, 3],
                (("hour", 8), ("paid", "Card")): [1],
            },
        ),
        (SliceBy((), (("paid", "Cash"),)), {(("paid", "Cash"),): [0, 3]}),
        (SliceBy((), (("paid", "Gold"),)), {}),
        (SliceBy((), (("hour", "7"),)), {(("hour", 7),): [0, 3]}),
        (SliceBy((), (("hour", 7),)), {(("hour", 7),): [0, 3]}),
        (SliceBy((), (("hour", "7.0"),)), {(("hour", 7.0),): [0, 3]}),
        (SliceBy((), (("hour", "7.5"),)), {}),
        (SliceBy((), (("hour", "seven"),)), {}),
        (SliceBy((), (("hour", "9" * 20),)), {}),
        (SliceBy((), (("hour", "9" * 400),)), {}),
        (SliceBy((), (("fare", "9" * 400),)), {}),
        (SliceBy((), (("fare", "9" * 400 + ".0"),)), {}),
        (SliceBy((), (("fare", "25"),)), {(("fare", 25),): [2]}),
        (
            SliceBy(("paid",), (("hour", "7"),)),
            {(("hour", 7), ("paid", "Cash")): [0, 3]},
        ),
        (SliceBy(("tags",)), {(("tags", "a"),): [0], (("tags", "b"),): [0, 3]}),
        (SliceBy((), (("tags", "b"),)), {(("tags", "b"),): [0, 3]}),
        (
            SliceBy(("deep",)),
            {(("deep", "x"),): [0], (("deep", "y"),): [0], (("deep", "z"),): [3]},
        ),
        (
            SliceBy(("days", "tags")),
            {
                (("days", 1), ("tags", "a")): [0],
                (("days", 1), ("tags", "b")): [0],
                (("days", 2), ("tags", "a")): [0],
                (("days", 2), ("tags", "b")): [0],
            },
        ),
        (
            SliceBy(("hour", "tags"), (("days", "2"),)),
            {
                (("days", 2), ("hour", 7), ("tags", "a")): [0],
                (("days", 2), ("hour", 7), ("tags", "b")): [0],
            },
        ),
        (SliceBy(("nothing",)), {}),
        (SliceBy(("nothing", "hour")), {}),
        (SliceBy((), (("nothing", "1"),)), {}),
        (
            SliceBy(("fare > 2",)),
            {(("fare > 2", "false"),): [0], (("fare > 2", "true"),): [1, 2]},
        ),
        (
            SliceBy(("bucket(fare, 5, 10)",), (("hour in range(7, 9)", "true"),)),
            {
                (
                    ("bucket(fare, 5, 10)", "(-inf, 5)"),
                    ("hour in range(7, 9)", "true"),
                ): [0],
                (
                    ("bucket(fare, 5, 10)", "[5, 10)"),
                    ("hour in range(7, 9)", "true"),
                ): [1],
            },
        ),
        (
            SliceBy(("hour // 4",)),
            {(("hour // 4", 1),): [0, 3], (("hour // 4", 2),): [1]},
        ),
        (SliceBy((), (("fare / 2", "2.5"),)), {(("fare / 2", 2.5),): [1]}),
    ],
)
def test_the_rows_of_slices(slicing: SliceBy, expected: dict[Slice, list[int]]) -> None:
    assert members(slicing, ROWS) == expected
    assert members(slicing, ROWS.slice(4)) == {}
    later = {key: [row - 1 for row in rows if row] for key, rows in expected.items()}
    assert members(slicing, ROWS.slice(1)) == {
        key: rows for key, rows in later.items() if rows
    }


@pytest.mark.parametrize(
    ("values", "value"),
    [
        (pa.array([True]), 1),
        (pa.array([5], pa.int8()), 5),
        (pa.array([5], pa.uint64()), 5),
        (pa.array([0.5], pa.float32()), 0.5),
        (pa.array([0.1], pa.float32()), 0.10000000149011612),
        (pa.array([-0.0]), 0.0),
        (pa.array([math.inf]), math.inf),
        (pa.array([decimal.Decimal("1.50")]), "1.50"),
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array(["é".encode()]), "é"),
        (pa.array([b"a"], pa.large_binary()), "a"),
        (pa.array([b"a"], pa.binary(1)), "a"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([["a"]], pa.large_list(pa.string())), "a"),
        (pa.array([["a", "a"]], pa.list_(pa.string(), 2)), "a"),
        (pa.array([datetime.date(2020, 1, 31)]), "2020-01-31"),
        (pa.array([datetime.datetime(2020, 1, 31)]), "2020-01-31 00:00:00.000000"),
    ],
)
def test_values_are_numbers_or_text(values: pa.Array, value: Any) -> None:
    batch = batch_of(x=values)
    assert members(SliceBy(("x",)), batch) == {(("x", value),): [0]}
    ((_, found),) = SliceBy(("x",)).assign(batch).keys[0]
    assert type(found) is type(value)
    assert members(SliceBy((), (("x", value),)), batch) == {(("x", value),): [0]}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            pa.array([b"\xff"]),
            "Column 'x' has text that is not UTF-8. Mend or convert it before "
            "ingestion.",
        ),
        (
            pa.array([2**63], pa.uint64()),
            "Column 'x' has an integer beyond 9,223,372,036,854,775,807, the greatest. "
            "Mend or convert it before ingestion.",
        ),
        (
            pa.array([{"y": 1}]),
            "Column 'x' has the type struct<y: int64>, which is no number, no text and "
            "no truth value. Convert it before ingestion, or leave it out.",
        ),
        (
            pa.array([datetime.timedelta(1)]),
            "Column 'x' has the type duration[us], which is no number, no text and no "
            "truth value. Convert it before ingestion, or leave it out.",
        ),
    ],
)
def test_values_that_no_slice_can_have_are_refused(
    values: pa.Array, sentence: str
) -> None:
    for slicing in (SliceBy(("x",)), SliceBy((), (("x", "1"),))):
        with pytest.raises(DataError) as caught:
            slicing.assign(batch_of(x=values))
        assert str(caught.value) == sentence
        if "type" in sentence:
            with pytest.raises(DataError) as caught:
                slicing.check(batch_of(x=values).schema, "trips")
            assert str(caught.value) == sentence


def test_types_are_checked_before_there_are_rows() -> None:
    fitting = SliceBy(("fare > 2", "tags"), (("hour", "7"), ("computed > 2", "true")))
    fitting.check(ROWS.schema, "trips")
    with pytest.raises(DataError) as caught:
        SliceBy(("hour", "paid > 2")).check(ROWS.schema, "trips")
    assert str(caught.value).startswith(
        "Expression 'paid > 2' compares 'paid', which is text, with '2', which is a "
        "number."
    )


def test_a_slicing_is_plain_data() -> None:
    slicing = SliceBy(("fare > 2", "hour"), (("paid", "Cash"),))
    assert pickle.loads(pickle.dumps(slicing)) == slicing
    assert len({slicing, pickle.loads(pickle.dumps(slicing))}) == 1
    assert slicing.features == ("fare > 2", "hour", "paid")
    assert slicing.columns(ROWS.schema) == {"fare", "hour", "paid"}
    assert SliceBy().columns(ROWS.schema) == frozenset()


def test_a_column_wins_over_an_expression() -> None:
    batch = batch_of(**{"a - b": pa.array(["odd"]), "a": pa.array([1])})
    assert members(SliceBy(("a - b",)), batch) == {(("a - b", "odd"),): [0]}
    assert SliceBy(("a - b",)).columns(batch.schema) == {"a - b"}


# TFMA's slicer, row by row.


def by_tfma(batch: pa.RecordBatch, slicing: SliceBy) -> dict[Slice, list[int]]:
    """Return the rows of every slice, as TFMA finds them."""
    from tensorflow_model_analysis.slicer import slicer_lib

    spec = slicer_lib.SingleSliceSpec(
        spec=SlicingSpec(
            feature_keys=slicing.keys,
            feature_values={name: str(value) for name, value in slicing.values},
        )
    )
    found: dict[Slice, list[int]] = defaultdict(list)
    for number, row in enumerate(batch.to_pylist()):
        features = {
            name: feature(value, batch.schema.field(name).type)
            for name, value in row.items()
            if value is not None
        }
        keys = slicer_lib.get_slices_for_features_dicts([], features, [spec])
        for key in set(keys):
            found[key].append(number)
    return dict(found)


def feature(value: Any, kind: pa.DataType) -> Any:
    """Return what a row has, as TFMA keeps it: an array of numbers or of bytes."""
    values = value if isinstance(value, list) else [value]
    values = [each.encode() if isinstance(each, str) else each for each in values]
    if "float" in str(kind) and "double" not in str(kind):
        return np.array(values, np.float32)
    return np.array(values, object if values and type(values[0]) is bytes else None)


def typed(found: dict[Slice, list[int]]) -> dict[Any, list[int]]:
    """Return slices with the types of their values, which files keep too."""
    return {
        tuple((name, type(value).__name__, value) for name, value in key): rows
        for key, rows in found.items()
    }


KINDS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int": (pa.int64(), [-1, 0, 7, 123_456_789_012]),
    "float": (pa.float64(), [0.0, 0.5, -1.5, 7.0, 0.1]),
    "narrow": (pa.float32(), [0.0, 0.5, 7.0]),
    "text": (pa.string(), ["", "a", "é", "seven", "a, b", "1e5", "nan"]),
}


def random_batch(seed: int) -> pa.RecordBatch:
    """Return up to 30 rows: of each kind a column of values, and one of lists."""
    chance = random.Random(seed)
    rows = chance.randrange(30)
    columns = {}
    for name, (kind, legal) in KINDS.items():
        columns[name] = pa.array(
            [chance.choice([*legal, None]) for _ in range(rows)], kind
        )
        lists = [
            chance.choice([None, *([legal] * 3)])
            and chance.choices(legal, k=chance.choice([0, 1, 1, 2, 3]))
            for _ in range(rows)
        ]
        columns[f"{name}s"] = pa.array(lists, pa.list_(kind))
    return batch_of(**columns)


VALUES = ["0", "0.0", "7", "7.0", "0.5", "-1", "a", "é", "seven", "", "1e5", "nan"]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 100_000),
    names=st.lists(
        st.sampled_from([each for name in KINDS for each in (name, f"{name}s")]),
        max_size=4,
        unique=True,
    ),
    values=st.lists(st.sampled_from(VALUES), max_size=2),
)
def test_the_same_slices_as_tfma(
    seed: int, names: list[str], values: list[str]
) -> None:
    count = max(0, len(names) - len(values))
    slicing = SliceBy(
        tuple(sorted(names[:count])),
        tuple(sorted(zip(names[count:], values, strict=False))),
    )
    batch = random_batch(seed)
    assert typed(members(slicing, batch)) == typed(by_tfma(batch, slicing))


@settings(max_examples=30)
@given(seed=st.integers(0, 100_000))
def test_tfma_finds_the_same_slices_in_added_columns(seed: int) -> None:
    batch = random_batch(seed)
    slicings = [
        SliceBy(("int > 0", "text")),
        SliceBy(("bucket(float, 0, 1)",), (("int // 2", "3"),)),
        SliceBy(("length(text)", "ints")),
    ]
    added = with_features(batch.slice(0), batch, slicings)
    assert added.schema.names == [
        *batch.schema.names,
        "int > 0",
        "bucket(float, 0, 1)",
        "int // 2",
        "length(text)",
    ]
    for slicing in slicings:
        expected = by_tfma(added, slicing)
        assert typed(members(slicing, batch)) == typed(expected)
        assert typed(members(slicing, added)) == typed(expected)


def test_unlike_in_tfma_a_nan_is_missing() -> None:
    batch = batch_of(x=pa.array([math.nan, math.nan, 1.0]))
    assert members(SliceBy(("x",)), batch) == {(("x", 1.0),): [2]}
    assert len(by_tfma(batch, SliceBy(("x",)))) == 3


def test_unlike_in_tfma_text_that_looks_like_a_number_is_found() -> None:
    batch = batch_of(zip=pa.array(["00501", "501", "7"]))
    for value, row in (("00501", 0), ("501", 1), ("7", 2)):
        slicing = SliceBy((), (("zip", value),))
        assert members(slicing, batch) == {(("zip", value),): [row]}
        assert by_tfma(batch, slicing) == {}


def test_unlike_in_tfma_decimals_find_32_bit_floats() -> None:
    batch = batch_of(share=pa.array([0.1, 0.5], pa.float32()))
    slicing = SliceBy((), (("share", "0.1"),))
    assert members(slicing, batch) == {(("share", 0.1),): [0]}
    assert by_tfma(batch, slicing) == {}


def test_many_values_in_one_batch_do_not_need_room_for_every_pair() -> None:
    rows = 3_000
    numbers = pa.array(np.arange(rows))
    batch = batch_of(a=numbers, b=numbers, c=numbers, d=pa.array([[1, 2]] * rows))
    assert len(members(SliceBy(("a", "b", "c")), batch)) == rows
    assert len(members(SliceBy(("a", "b", "c", "d")), batch)) == 2 * rows


def test_no_function_is_called_per_row() -> None:
    slicing = SliceBy(("fare > 20", "paid", "tags"), (("hour", "3"), ("days", "2")))

    def calls(rows: int) -> int:
        number = np.arange(rows)
        batch = batch_of(
            fare=pa.array(number % 50 / 1.5),
            hour=pa.array(number % 4),
            paid=pa.array(np.where(number % 3, "a", "b")),
            tags=pa.array([["x"], ["x", "y"], None] * (rows // 3)),
            days=pa.array([[1, 2], [2], []] * (rows // 3)),
        )
        slicing.assign(batch)
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            slicing.assign(batch)
        finally:
            sys.setprofile(None)
        return count

    assert calls(3_000) == calls(30_000)


# What an EvalConfig asks for.

CREDIT = SlicingSpec(feature_values={"paid": "Card"})
BY_HOUR = SlicingSpec(feature_keys=["hour"])
ALL = SlicingSpec()


def threshold_for(**fields: Any) -> MetricsSpec:
    return MetricsSpec(metrics=[MetricConfig(class_name="AUC", **fields)])


CONFIGS = {
    "nothing": EvalConfig(),
    "some": EvalConfig(slicing_specs=[ALL, BY_HOUR, CREDIT, BY_HOUR]),
    "without all rows": EvalConfig(slicing_specs=[BY_HOUR]),
    "crosses alone": EvalConfig(
        cross_slicing_specs=[
            CrossSlicingSpec(baseline_spec=CREDIT, slicing_specs=[BY_HOUR])
        ]
    ),
    "crosses and more": EvalConfig(
        slicing_specs=[BY_HOUR],
        cross_slicing_specs=[
            CrossSlicingSpec(baseline_spec=ALL, slicing_specs=[BY_HOUR, CREDIT])
        ],
    ),
    "thresholds": EvalConfig(
        slicing_specs=[BY_HOUR],
        metrics_specs=[
            threshold_for(
                per_slice_thresholds=[PerSliceMetricThreshold(slicing_specs=[CREDIT])],
                cross_slice_thresholds=[
                    CrossSliceMetricThreshold(
                        cross_slicing_specs=[
                            CrossSlicingSpec(baseline_spec=ALL, slicing_specs=[CREDIT])
                        ]
                    )
                ],
            )
        ],
    ),
}

HOUR, CARD = SliceBy(("hour",)), SliceBy((), (("paid", "Card"),))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing", [SliceBy()]),
        ("some", [SliceBy(), HOUR, CARD]),
        ("without all rows", [HOUR]),
        ("crosses alone", [CARD, HOUR]),
        ("crosses and more", [HOUR, SliceBy(), CARD]),
        ("thresholds", [HOUR]),
    ],
)
def test_the_slices_of_a_config(
    name: str, expected: list[SliceBy], tmp_path: Path
) -> None:
    assert slices_by(CONFIGS[name]) == expected
    keys = {key for each in expected for key in members(each, ROWS.slice(1, 1))}
    assert keys == extracted(CONFIGS[name], tmp_path)


def extracted(config: EvalConfig, folder: Path) -> set[Slice]:
    """Return the slices that TFMA's extractor finds of the second row."""
    import apache_beam as beam
    from tensorflow_model_analysis import constants
    from tensorflow_model_analysis.extractors import slice_key_extractor

    features = {"hour": np.array([8]), "paid": np.array([b"Card"])}
    found: list[Slice] = []
    extractor = slice_key_extractor.SliceKeyExtractor(
        eval_config=config, materialize=False
    )
    file = folder / "keys"
    with RunContext.local(folder).beam_pipeline() as root:
        _ = (
            root
            | "One row" >> beam.Create([{constants.FEATURES_KEY: features}])
            | "Find its slices" >> extractor.ptransform
            | "Write them"
            >> beam.Map(
                lambda row: file.write_bytes(
                    pickle.dumps(list(row[constants.SLICE_KEY_TYPES_KEY]))
                )
            )
        )
    found = pickle.loads(file.read_bytes())
    return set(found)


def test_a_feature_by_value_and_by_key_at_once_is_refused() -> None:
    spec = SlicingSpec(feature_keys=["hour"], feature_values={"hour": "7"})
    with pytest.raises(PipelineError) as caught:
        slices_by(EvalConfig(slicing_specs=[spec]))
    assert str(caught.value) == (
        "A SlicingSpec has 'hour' in feature_keys and in feature_values. Keep one of "
        "them: every value, or the one."
    )


COLUMNS = ["big", "fare", "hour", "trip-start"]
HAS = "(it has 'big', 'fare', 'hour', 'trip-start')"
MODEL = ModelSpec(label_key="big")


def checked(*specs: SlicingSpec) -> None:
    config = EvalConfig(model_specs=[MODEL], slicing_specs=specs)
    check_columns(config, COLUMNS, "Examples 'trips'")


@pytest.mark.parametrize(
    ("feature", "sentence"),
    [
        (
            "hours",
            "The eval_config has the slicing feature 'hours', which is no column of "
            f"Examples 'trips' {HAS}. Did you mean 'hour'?",
        ),
        (
            "in",
            "The eval_config has the slicing feature 'in', which is no column of "
            f"Examples 'trips' {HAS}.",
        ),
        (
            "fare >",
            "The eval_config has the slicing feature 'fare >', which is no column of "
            f"Examples 'trips' {HAS}. Did you mean 'fare'? Expression 'fare >' ends "
            "where a value is expected. Write a column, a number or a 'text' there.\n"
            "    fare >\n"
            "          ^",
        ),
        (
            "trip start",
            "The eval_config has the slicing feature 'trip start', which is no column "
            f"of Examples 'trips' {HAS}. Did you mean 'trip-start'? Expression 'trip "
            "start' has 'start' where an operator is expected. Write one there, or "
            "take it out.\n"
            "    trip start\n"
            "         ^",
        ),
        (
            "fair > 20",
            f"Expression 'fair > 20' reads 'fair', which is no column of Examples "
            f"'trips' {HAS}. Did you mean 'fare'?\n"
            "    fair > 20\n"
            "    ^",
        ),
    ],
)
def test_what_is_neither_column_nor_expression_is_refused(
    feature: str, sentence: str
) -> None:
    for spec in (
        SlicingSpec(feature_keys=[feature]),
        SlicingSpec(feature_values={feature: "true"}),
    ):
        with pytest.raises(DataError) as caught:
            checked(spec)
        assert str(caught.value) == sentence
    with pytest.raises(DataError) as caught:
        check_feature(feature, COLUMNS, "Examples 'trips'")
    assert str(caught.value) == sentence


def test_columns_and_expressions_are_features() -> None:
    checked(
        SlicingSpec(feature_keys=["trip-start", "fare > 20 and hour in range(7, 10)"]),
        SlicingSpec(feature_values={"hour": "every", "fare > 20": "true"}),
        SlicingSpec(feature_values={"hour // 2": "every"}),
    )


@pytest.mark.parametrize(
    ("feature", "value", "sentence"),
    [
        (
            "fare > 20",
            "True",
            "The eval_config has a slice where 'fare > 20' is 'True', and it can only "
            "be 'false' or 'true'. Did you mean 'true'?",
        ),
        (
            "bucket(fare, 5, 10)",
            "[5,10)",
            "The eval_config has a slice where 'bucket(fare, 5, 10)' is '[5,10)', and "
            "it can only be '(-inf, 5)' or '[5, 10)' or '[10, inf)'. Did you mean "
            "'[5, 10)'?",
        ),
    ],
)
def test_a_value_that_an_expression_never_has_is_refused(
    feature: str, value: str, sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        checked(SlicingSpec(feature_values={feature: value}))
    assert str(caught.value) == sentence


def test_the_columns_that_slices_may_read() -> None:
    config = EvalConfig(
        slicing_specs=[
            SlicingSpec(feature_keys=["trip-start", "hour", "odd name"]),
            SlicingSpec(feature_values={"fare > 20": "true"}),
        ]
    )
    assert slice_columns(config) >= {"trip-start", "hour", "odd name", "fare"}
    assert set(COLUMNS) & slice_columns(config) == {"fare", "hour", "trip-start"}


def test_expressions_are_features_wherever_a_config_has_one(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    dear, early = "fare > 20 and payment == 'Cash'", "hour in range(0, 6)"
    bucket = "bucket(fare, 10, 20)"
    of_dear = SlicingSpec(feature_values={dear: "true"})
    config = EvalConfig(
        model_specs=[ModelSpec(label_key="big")],
        slicing_specs=[
            SlicingSpec(feature_keys=[dear]),
            SlicingSpec(
                feature_keys=[bucket, "company"], feature_values={early: "true"}
            ),
        ],
        cross_slicing_specs=[
            CrossSlicingSpec(baseline_spec=SlicingSpec(), slicing_specs=[of_dear])
        ],
        metrics_specs=[
            MetricsSpec(
                metrics=[
                    MetricConfig(
                        class_name="ExampleCount",
                        per_slice_thresholds=[
                            PerSliceMetricThreshold(
                                slicing_specs=[of_dear],
                                threshold=MetricThreshold(
                                    value_threshold=GenericValueThreshold(
                                        lower_bound={"value": 10}
                                    )
                                ),
                            )
                        ],
                    )
                ]
            )
        ],
    )
    live = Evaluator(
        examples=examples, model=tf_example_model, eval_config=config
    ).with_outputs(tmp_path / "out")
    live.run(RunContext.local(tmp_path / "temporary"))

    rows = pa.Table.from_batches(read_batches(examples, "eval")).to_pandas()
    is_dear = (rows.fare > 20) & (rows.payment == "Cash")
    flashy = rows[(rows.hour < 6) & (rows.company == "Flash")]
    fares = pd.cut(flashy.fare, [-np.inf, 10, 20, np.inf], right=False)
    expected: dict[Any, int] = {
        (): len(rows),
        ((dear, "false"),): int((~is_dear).sum()),
        ((dear, "true"),): int(is_dear.sum()),
    }
    for number, label in enumerate(("(-inf, 10)", "[10, 20)", "[20, inf)")):
        key = ((bucket, label), ("company", "Flash"), (early, "true"))
        expected[key] = int((fares.cat.codes == number).sum())

    counts = {
        key: metrics[""][""]["example_count"]["doubleValue"]
        for key, metrics in tfma.load_eval_result(live.evaluation.uri).slicing_metrics
    }
    compared = counts.pop(((), ((dear, "true"),)))
    assert compared == len(rows) - is_dear.sum()
    assert counts == expected
    assert live.blessing.answer is Answer.YES
    assert live.blessing.reasons == (
        f"'example_count' in {dear}=true is {is_dear.sum()}, as asked: at least 10.",
    )
