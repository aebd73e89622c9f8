"""Records made column by column: equal to tfx-bsl's, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tfx_bsl.coders import example_coder

from penstock.components.columns import tf_example
from penstock.components.columns.forms import to_tfdv_form
from penstock.schemas.errors import DataError

INTEGER = st.one_of(
    st.integers(-3, 200), st.integers(0, 2**40), st.integers(-(2**63), 2**63 - 1)
)
FLOAT = st.floats(width=32)
BINARY = st.one_of(st.binary(max_size=3), st.binary(min_size=120, max_size=140))
KINDS: list[tuple[pa.DataType, Any]] = [
    (pa.int64(), INTEGER),
    (pa.float32(), FLOAT),
    (pa.float64(), FLOAT),
    (pa.binary(), BINARY),
    (pa.string(), st.text(max_size=4)),
    (pa.large_string(), st.text(max_size=4)),
    (pa.bool_(), st.booleans()),
]


@st.composite
def batches(draw: Any) -> pa.RecordBatch:
    """Batches of values and of lists, some of them missing, some names long."""
    rows = draw(st.integers(1, 8))
    arrays, names = [], []
    for number in range(draw(st.integers(1, 4))):
        kind, values = draw(st.sampled_from(KINDS))
        if draw(st.booleans()):
            kind, values = pa.list_(kind), st.lists(values, max_size=4)
        if draw(st.booleans()):
            values = st.one_of(st.none(), values)
        made = draw(st.lists(values, min_size=rows, max_size=rows))
        arrays.append(pa.array(made, kind))
        names.append(f"{number}é" * draw(st.sampled_from([1, 60])))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def parsed(records: Any) -> list[bytes]:
    """Return records in the one order that protobuf gives the same messages."""
    return [
        tf.train.Example.FromString(each).SerializeToString(deterministic=True)
        for each in records
    ]


def theirs(batch: pa.RecordBatch) -> list[bytes]:
    """Return the records that tfx-bsl makes, which knows no float64."""
    listed = to_tfdv_form(batch)
    arrays = [
        each.cast(pa.list_(pa.float32()))
        if pa.types.is_float64(each.type.value_type)
        else each
        for each in listed.columns
    ]
    encoder = example_coder.RecordBatchToExamplesEncoder()
    return list(
        encoder.encode(pa.RecordBatch.from_arrays(arrays, names=batch.schema.names))
    )


@settings(max_examples=150)
@given(batches())
def test_records_say_what_tfx_bsls_say(batch: pa.RecordBatch) -> None:
    assert parsed(tf_example.encode(batch)) == parsed(theirs(batch))


@settings(max_examples=50)
@given(batches(), st.integers(0, 7))
def test_the_bytes_of_a_row_depend_on_the_row_alone(
    batch: pa.RecordBatch, start: int
) -> None:
    whole = tf_example.encode(batch).tolist()
    assert tf_example.encode(batch.slice(start, 2)).tolist() == whole[start : start + 2]


def test_sizes_far_apart_and_batches_too_large_for_arrow_are_no_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"a": ["x" * 100_000, "", None, "y"], "b": [1, 2, 3, 4]}
    )
    whole = tf_example.encode(batch)
    assert parsed(whole) == parsed(theirs(batch))
    monkeypatch.setattr(tf_example, "_MOST_BYTES", 250_000)
    assert tf_example.encode(batch).tolist() == whole.tolist()
    monkeypatch.setattr(tf_example, "_MOST_BYTES", 100_000)
    with pytest.raises(DataError) as caught:
        tf_example.encode(batch)
    assert re.fullmatch(
        r"A row holds 100,0\d\d bytes, which may not fit into a tf.Example of 2 GiB. "
        "Pass a location of what is so large instead.",
        str(caught.value),
    )


def test_a_batch_without_rows_or_columns_has_empty_records() -> None:
    nothing = pa.RecordBatch.from_pydict({"a": pa.nulls(2)})
    assert tf_example.encode(nothing).tolist() == [b"", b""]
    assert (
        tf_example.encode(
            pa.RecordBatch.from_pydict({"a": pa.array([], "i8")})
        ).tolist()
        == []
    )


def test_floats_that_float32_cannot_hold_are_infinite() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1e300, -1e300]})
    values = [
        tf.train.Example.FromString(each).features.feature["a"].float_list.value[0]
        for each in tf_example.encode(batch)
    ]
    assert values == [float("inf"), float("-inf")]


def test_a_missing_value_inside_a_list_gets_a_sentence() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [[1, None], None, [None]]})
    with pytest.raises(DataError) as caught:
        tf_example.encode(batch)
    assert str(caught.value) == (
        "Column 'a' has 2 missing values inside lists, which tf.Example cannot say. "
        "Fill them, or leave them out, when the data are made, or pass "
        'file_format="parquet".'
    )
