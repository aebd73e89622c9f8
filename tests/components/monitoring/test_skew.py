"""Skew by value: exact counts of what was injected, and what counts as alike."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from penstock.components.monitoring.logs import LogFormat, of_table
from penstock.components.monitoring.skew import compare_rows, wilson
from penstock.schemas.errors import DataError


def rows(count: int = 10_000, seed: int = 3) -> pa.Table:
    draw = np.random.default_rng(seed)
    return pa.table(
        {
            "id": [f"r{i}" for i in range(count)],
            "fare": draw.lognormal(2, 1, count),
            "company": draw.choice(["a", "b", "c"], count),
            "seconds": draw.integers(0, 10**9, count),
            "tags": [[int(i) % 7] * (i % 3) for i in range(count)],
        }
    )


def changed(table: pa.Table, name: str, values: Any) -> pa.Table:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return table.set_column(table.column_names.index(name), name, array)


def column(training: Any, serving: Any, **options: Any) -> Any:
    ids = [f"r{i}" for i in range(len(training))]
    found = compare_rows(
        pa.table({"id": ids, "x": training}),
        pa.table({"id": ids, "x": serving}),
        id="id",
        **options,
    )
    return found["x"]


def test_one_percent_of_mismatches_is_found_row_by_row() -> None:
    training = rows()
    draw = np.random.default_rng(8)
    places = {
        name: np.sort(draw.choice(10_000, 100, replace=False))
        for name in ("fare", "company", "seconds", "tags")
    }
    serving = training
    fares = training.column("fare").to_numpy().copy()
    fares[places["fare"]] *= 1.0001
    serving = changed(serving, "fare", fares)
    for name, other in (("company", "z"), ("seconds", -1), ("tags", [9, 9, 9])):
        values = training.column(name).to_pylist()
        for place in places[name]:
            values[place] = other
        serving = changed(serving, name, values)
    order = draw.permutation(10_000)
    found = compare_rows(training, serving.take(pa.array(order)), id="id")
    assert found.joined == 10_000
    assert found.only_training == found.only_serving == 0
    for name in places:
        each = found[name]
        assert (each.mismatches, each.share) == (100, 0.01)
        # An empty list is missing, and so has no other value.
        assert each.different == 100 - each.missing_in_training
        assert name == "tags" or not each.missing_in_training
        low, high = proportion_confint(100, 10_000, method="wilson")
        assert (each.lower, each.upper) == pytest.approx((low, high))
        assert {int(e.id[1:]) for e in each.examples} <= set(places[name].tolist())
    assert len(found.beyond(0.005)) == 4
    assert found.beyond(0.01) == ()


def test_only_rows_of_both_sides_are_compared() -> None:
    training = rows(100)
    serving = rows(100).slice(40)
    extra = changed(rows(30), "id", [f"new{i}" for i in range(30)])
    found = compare_rows(training, pa.concat_tables([serving, extra]), id="id")
    assert (found.joined, found.only_training, found.only_serving) == (60, 40, 30)
    assert not any(each.mismatches for each in found.columns)
    assert found.sentence == (
        "All 4 columns agree between training and serving in 60 rows."
    )
    nothing = compare_rows(training, extra, id="id")
    assert nothing.sentence == (
        "None of the 30 rows of the log has the id of one of the 100 rows of training, "
        "so no value was compared. Compare rows of the same requests."
    )
    assert nothing.document()["state"] == "insufficient_data"
    assert math.isnan(nothing["fare"].share)


def test_a_log_is_joined_by_its_ids() -> None:
    training = rows(50)
    renamed = training.rename_columns(["request", *training.column_names[1:]])
    log = of_table(renamed, format=LogFormat(id="request", leave_out=("tags",)))
    found = compare_rows(training, log, id="id")
    assert found.joined == 50
    assert [each.name for each in found.columns] == ["company", "fare", "seconds"]
    assert found.not_in_serving == ("tags",)
    nameless = of_table(renamed)
    with pytest.raises(DataError, match="has no ids, and rows of training are joined"):
        compare_rows(training, nameless, id="id")


# --- what is alike

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("training", "serving", "different", "ours", "theirs"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, 0, 0),
        ([1.0, 2.0], [1.0 + 1e-7, 2.1], 1, 0, 0),
        ([NAN, NAN, 1.0], [NAN, 1.0, NAN], 2, 0, 0),
        ([INF, INF, -INF], [INF, 1.0, INF], 2, 0, 0),
        ([1.0, None, None], [None, 1.0, None], 0, 1, 1),
        ([0.0, 1.0], [-0.0, None], 0, 0, 1),
        ([1, 2], [1.0, 2.5], 1, 0, 0),
        ([True, False], [1, 1], 1, 0, 0),
        ([2**53, 7], [2**53 + 1, 7], 1, 0, 0),
        ([1_700_000_000], [1_700_000_001], 1, 0, 0),
        (["a", ""], ["a", None], 0, 0, 1),
        (["a", "b"], [b"a", b"c"], 1, 0, 0),
        ([[1.0], [2.0, 3.0]], [[1.0], [2.0, 4.0]], 1, 0, 0),
        ([[1], [], None], [[1, 1], None, []], 1, 0, 0),
        ([["a"], ["b"]], [["a"], ["c"]], 1, 0, 0),
        ([[1, None], [1, None]], [[1, None], [1, 2]], 1, 0, 0),
        ([[1], []], [["1"], []], 1, 0, 0),
        ([None, None], [1.0, None], 0, 1, 0),
        ([None, None], [None, None], 0, 0, 0),
        ([], [], 0, 0, 0),
    ],
)
def test_what_counts_as_alike(
    training: list[Any], serving: list[Any], different: int, ours: int, theirs: int
) -> None:
    found = column(training, serving)
    assert found.different == different
    assert (found.missing_in_training, found.missing_in_serving) == (ours, theirs)


NUMBERS = st.one_of(
    st.none(), st.floats(width=32), st.integers(-(2**60), 2**60).map(float)
)


@settings(max_examples=150)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40), st.booleans())
def test_numbers_are_compared_as_one_by_one(
    pairs: list[tuple[float | None, float | None]], lists: bool
) -> None:
    def alike(a: float, b: float) -> bool:
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=0.5)

    ours, theirs = zip(*pairs, strict=True)
    expected = sum(
        1 for a, b in pairs if a is not None and b is not None and not alike(a, b)
    )

    def array(values: Any) -> pa.Array:
        flat = pa.array(values, pa.float64())
        if not lists:
            return flat
        return pa.array(
            [None if v is None else [v] for v in values], pa.list_(flat.type)
        )

    found = column(array(ours), array(theirs), absolute={"x": 0.5})
    assert found.different == expected
    assert found.missing_in_training == sum(
        a is None and b is not None for a, b in pairs
    )


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.lists(st.sampled_from("ab"), max_size=3)),
            st.one_of(st.none(), st.lists(st.sampled_from("ab"), max_size=3)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_lists_are_compared_as_one_by_one(pairs: list[tuple[Any, Any]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    kind = pa.list_(pa.string())
    found = column(pa.array(ours, kind), pa.array(theirs, kind))
    assert found.different == sum(bool(a) and bool(b) and a != b for a, b in pairs)
    assert found.mismatches == sum((a or None) != (b or None) for a, b in pairs)


def test_float32_is_alike_to_float64_and_tolerances_can_be_named() -> None:
    values = np.random.default_rng(2).lognormal(0, 5, 1_000)
    assert column(values, values.astype(np.float32)).mismatches == 0
    assert column(values, values.astype(np.float32), relative=0.0).mismatches > 900
    assert column([1, 2, 3], [2, 4, 3], absolute=1).different == 1
    assert column([1, 2, 3], [2, 4, 3], absolute={"y": 1.0}).different == 2


def test_a_changed_type_is_said_and_numbers_in_text_still_compared() -> None:
    found = column([1, 2, 3, None], ["1", "2.5", "three", "4"])
    assert found.type_changed
    assert (found.different, found.missing_in_training) == (2, 1)
    assert found.sentence.endswith(
        "2 have another value and 1 have none in training. It is string in serving "
        "where training has int64."
    )
    same = column([1, 2], ["1", "2"])
    assert same.type_changed and not same.mismatches
    assert same.sentence == (
        "'x' agrees between training and serving in all 2 rows. It is string in "
        "serving where training has int64."
    )
    listed = column([[1], [2]], [1, 2])
    assert listed.type_changed and listed.different == 2


def test_columns_of_categories_and_dates_are_compared() -> None:
    codes = pa.array(["a", "b", None]).dictionary_encode()
    assert column(codes, ["a", "c", None]).different == 1
    stamps = pa.array([1, 2, 3]).cast(pa.timestamp("s"))
    assert column(stamps, pa.array([1, 2, 4]).cast(pa.timestamp("s"))).different == 1


def test_how_far_numbers_are_apart_is_said() -> None:
    found = column([1.0, 2.0, None, NAN], [2.0, 4.0, 5.0, 1.0])
    assert found.mean_difference == 1.5
    assert column(["a"], ["b"]).mean_difference is None


# --- texts


def test_what_differs_is_a_sentence_and_json() -> None:
    training = rows(1_000)
    values = training.column("company").to_pylist()
    for place in range(12):
        values[place] = None if place % 3 == 0 else "z"
    found = compare_rows(training, changed(training, "company", values), id="id")
    assert found.sentence == (
        "'company' differs between training and serving in 1.20% of 1,000 rows (95% "
        "interval 0.69% to 2.09%): 8 have another value and 4 have none in serving."
    )
    document = found.document(tolerated=0.05)
    assert document["state"] == "ok"
    strict = found.document()
    assert strict["state"] == "alert" and strict["joined"] == 1_000
    assert strict["columns"][0] == {
        "name": "company",
        "state": "alert",
        "compared": 1_000,
        "different": 12,
        "sentence": found["company"].sentence,
    }
    data = json.loads(json.dumps(found.to_json()))
    assert data["columns"][0]["examples"][0] == {
        "id": "r0",
        "training": training.column("company")[0].as_py(),
        "serving": None,
    }
    with pytest.raises(KeyError):
        found["nothing"]


def test_values_of_any_kind_are_json() -> None:
    ids = ["a", "b"]
    training = pa.table({"id": ids, "x": [NAN, 1.0], "y": [b"\xff", b"a"]})
    serving = pa.table({"id": ids, "x": [INF, 1.0], "y": [b"a", b"a"]})
    data = json.loads(json.dumps(compare_rows(training, serving, id="id").to_json()))
    examples = {each["name"]: each["examples"][0] for each in data["columns"]}
    assert examples["x"] == {"id": "a", "training": "nan", "serving": "inf"}
    assert examples["y"]["training"] == "\\xff"


def test_ids_that_join_nothing() -> None:
    training = rows(5)
    with pytest.raises(DataError) as error:
        compare_rows(training, training, id="idd")
    assert str(error.value) == (
        "The training data has no column 'idd' to join rows by (it has 'company', "
        "'fare', 'id', 'seconds', 'tags'). Did you mean 'id'?"
    )
    holes = changed(training, "id", ["a", None, None, "b", "c"])
    with pytest.raises(DataError) as error:
        compare_rows(training, holes, id="id")
    assert str(error.value) == (
        "The log has 2 rows without an id in column 'id', which nothing can be joined "
        "to. Leave them out."
    )
    twice = changed(training, "id", ["a", "a", "a", "b", "b"])
    with pytest.raises(DataError) as error:
        compare_rows(twice, training, id="id")
    assert str(error.value) == (
        "The training data has the id 'a' in 3 rows, and 3 rows too many in all, so "
        "that nobody knows which of them to compare. Give every row an id of its own, "
        "or keep one row of each."
    )
    with pytest.raises(DataError) as error:
        compare_rows(training, training, id="id", columns=["fares"])
    assert str(error.value) == (
        "Column 'fares' is to be compared, and the training data lacks it (it has "
        "'company', 'fare', 'id', 'seconds', 'tags'). Did you mean 'fare'?"
    )


@settings(max_examples=100)
@given(st.integers(1, 10**6), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_intervals_are_those_of_statsmodels(
    trials: int, data: st.DataObject, confidence: float
) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = proportion_confint(
        successes, trials, alpha=1 - confidence, method="wilson"
    )
    found = wilson(successes, trials, confidence)
    assert found == pytest.approx((low, high), abs=1e-12)
    assert wilson(0, 0, confidence) == (0.0, 1.0)
