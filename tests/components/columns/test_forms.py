"""The forms of a batch: plain, and as TFDV expects it."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.columns.forms import to_plain, to_tfdv_form
from penstock.schemas.errors import DataError


def listed(array: pa.Array) -> pa.Array:
    batch = pa.RecordBatch.from_arrays([array], names=["a"])
    return to_tfdv_form(batch).column(0)


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array([1, None, 0]), "list<item: int64>", [[1], None, [0]]),
        (pa.array([True, False]), "list<item: int64>", [[1], [0]]),
        (pa.array([1], pa.int8()), "list<item: int64>", [[1]]),
        (pa.array([2**63], pa.uint64()), "list<item: uint64>", [[2**63]]),
        (pa.array([0.0, None]), "list<item: double>", [[0.0], None]),
        (pa.array([1.5], pa.float32()), "list<item: float>", [[1.5]]),
        (pa.array(["", None, "x"]), "list<item: binary>", [[b""], None, [b"x"]]),
        (pa.array(["x"], pa.large_string()), "list<item: large_binary>", [[b"x"]]),
        (pa.array([b"xy"], pa.binary(2)), "list<item: binary>", [[b"xy"]]),
        (pa.array(["x"]).dictionary_encode(), "list<item: binary>", [[b"x"]]),
        (pa.nulls(2), "null", [None, None]),
        (pa.array([[1, 2], [], None]), "list<item: int64>", [[1, 2], [], None]),
        (
            pa.array([["x"], None], pa.large_list(pa.string())),
            "large_list<item: binary>",
            [[b"x"], None],
        ),
        (
            pa.array([[[1.5], []], None]),
            "list<item: list<item: double>>",
            [[[1.5], []], None],
        ),
        (
            pa.array([datetime.date(2020, 2, 29)]),
            "list<item: binary>",
            [[b"2020-02-29"]],
        ),
        (pa.array([decimal.Decimal("1.50")]), "list<item: binary>", [[b"1.50"]]),
        (
            pa.array([{"x": 1, "y": None}, None, {"x": None, "y": ["q"]}]),
            "struct<x: list<item: int64>, y: list<item: binary>>",
            [{"x": [1], "y": None}, None, {"x": None, "y": [b"q"]}],
        ),
        (
            pa.array([[{"x": 1}], None]),
            "list<item: struct<x: list<item: int64>>>",
            [[{"x": [1]}], None],
        ),
        (
            pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            "list<item: struct<key: list<item: binary>, value: list<item: int64>>>",
            [[{"key": [b"k"], "value": [1]}], []],
        ),
        (pa.array([[None], []], pa.list_(pa.null())), "list<item: null>", [[None], []]),
    ],
)
def test_every_column_is_a_list(array: pa.Array, kind: str, expected: Any) -> None:
    made = listed(array)
    made.validate(full=True)
    assert str(made.type) == kind
    assert made.to_pylist() == expected
    # A slice has an offset, which must not shift anything.
    assert listed(array.slice(1)).to_pylist() == expected[1:]


def test_a_type_that_tfdv_cannot_describe_gets_a_sentence() -> None:
    with pytest.raises(DataError) as caught:
        listed(pa.array([None], pa.month_day_nano_interval()))
    assert str(caught.value) == (
        "Column 'a' has type month_day_nano_interval, which TensorFlow Data Validation "
        "cannot describe. Convert it before ingestion, or leave it out."
    )


def test_plain_batches_are_not_dictionary_encoded_at_any_depth() -> None:
    words = pa.array(["x", None, "x"]).dictionary_encode()
    struct = pa.StructArray.from_arrays([words], ["w"])
    lists = pa.ListArray.from_arrays([0, 2, 2, 3], words)
    batch = pa.RecordBatch.from_arrays([words, struct, lists], ["a", "b", "c"])
    plain = to_plain(batch)
    assert [str(kind) for kind in plain.schema.types] == [
        "string",
        "struct<w: string>",
        "list<item: string>",
    ]
    assert plain.to_pydict() == batch.to_pydict()


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-9, 9)))),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_lists_keep_their_values_wherever_a_slice_begins(
    values: list[Any], start: int
) -> None:
    array = pa.array(values, pa.list_(pa.int32())).slice(start)
    assert listed(array).to_pylist() == values[start:]
