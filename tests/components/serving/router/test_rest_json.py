"""JSON as TensorFlow Serving's REST API has it; the model server's own code, which is
held to TensorFlow Serving, is the oracle."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from penstock.components.serving.messages import (
    DataType,
    PredictResponse,
    TensorInfo,
    to_array,
    to_tensor,
)
from penstock.components.serving.model_server import json_tensors
from penstock.components.serving.model_server.status import ServableError
from penstock.components.serving.model_server.tensors import to_array as known_array
from penstock.components.serving.router import rest_json
from penstock.schemas.errors import DataError

KINDS = ["FLOAT", "DOUBLE", "INT32", "INT64", "UINT32", "UINT64", "BOOL", "STRING"]


def inputs_of(**kinds: str) -> dict[str, Any]:
    return {
        name: TensorInfo(dtype=DataType.Value(f"DT_{kind}"))
        for name, kind in kinds.items()
    }


def ours(document: dict[str, Any], **kinds: str) -> tuple[dict[str, Any], bool]:
    request, rows = rest_json.request_of(document, "s", inputs_of(**kinds))
    return {name: to_array(each) for name, each in request.inputs.items()}, rows


def theirs(document: dict[str, Any], **kinds: str) -> tuple[dict[str, Any], bool]:
    infos = {
        name: meta_graph_pb2.TensorInfo(dtype=DataType.Value(f"DT_{kind}"))
        for name, kind in kinds.items()
    }
    request = predict_pb2.PredictRequest()
    rows = json_tensors.fill_predict(document, infos, request)
    return {name: known_array(each) for name, each in request.inputs.items()}, rows


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and (
            one[name].tolist() == other[name].tolist()
            or np.array_equal(one[name], other[name], equal_nan=True)
        )
        for name in one
    )


base64s = st.binary(max_size=6).map(
    lambda value: {"b64": json_tensors._as_base64(value)["b64"]}
)
values = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-300, 300),
    st.sampled_from([2**24 - 1, 2**24, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, -1]),
    st.floats(width=32),
    st.floats(),
    st.text(max_size=3),
    base64s,
    st.sampled_from([{"b64": "?"}, {"b64": 3}, {"x": 1}]),
)
tensors = st.recursive(values, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@st.composite
def documents(draw: Any) -> tuple[dict[str, Any], dict[str, str]]:
    kinds = {
        name: draw(st.sampled_from(KINDS))
        for name in draw(st.sampled_from([["x"], ["a", "b"]]))
    }
    others = {"more": tensors} if draw(st.booleans()) else {}
    objects = st.fixed_dictionaries({name: tensors for name in kinds} | others)
    value = st.one_of(objects, tensors)
    rows = st.lists(value, max_size=3)
    document = draw(
        st.one_of(
            st.fixed_dictionaries({"instances": rows}),
            st.fixed_dictionaries({"inputs": value}),
            st.fixed_dictionaries({"inputs": value, "instances": rows}),
            st.fixed_dictionaries({}),
        )
    )
    return document, kinds


@settings(max_examples=500)
@given(documents())
def test_what_is_taken_and_as_what_is_as_in_the_model_server(
    case: tuple[dict[str, Any], dict[str, str]],
) -> None:
    document, kinds = case
    try:
        expected, rows = theirs(document, **kinds)
    except ServableError:
        with pytest.raises(DataError):
            ours(document, **kinds)
        return
    found, found_rows = ours(document, **kinds)
    assert found_rows == rows
    assert same(found, expected)


answers = st.one_of(
    st.lists(st.floats(width=32), max_size=4).map(lambda x: np.array(x, np.float32)),
    st.lists(st.floats(), max_size=4).map(lambda x: np.array(x, np.float64)),
    st.lists(st.integers(-5, 5), max_size=4).map(lambda x: np.array(x, np.int64)),
    st.lists(st.booleans(), max_size=4).map(lambda x: np.array(x, np.bool_)),
    st.lists(st.binary(max_size=4), max_size=4).map(
        lambda x: np.array([*x, None], object)[:-1]
    ),
    st.just(np.float32(1.5)),
    st.just(np.ones((2, 3), np.float32)),
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["y", "z", "z_bytes"]), answers), st.booleans())
def test_answers_are_written_as_the_model_server_writes_them(
    outputs: dict[str, Any], rows: bool
) -> None:
    response = PredictResponse()
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(to_tensor(value))
    known = predict_pb2.PredictResponse.FromString(response.SerializeToString())
    try:
        expected = json_tensors.predictions(known, rows=rows)
    except ServableError:
        # It also refuses batches of nothing and answers of nothing, with no need.
        whole = all(np.size(value) and np.ndim(value) for value in outputs.values())
        if outputs and whole:
            with pytest.raises(DataError):
                rest_json.answer_of(response.outputs, rows=rows)
        return
    found = rest_json.answer_of(response.outputs, rows=rows)
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize(
    ("document", "kinds", "sentence"),
    [
        (
            {"a": 1},
            {"x": "FLOAT"},
            "The body has neither 'instances' nor 'inputs' (it has 'a'). Send one of "
            "the two.",
        ),
        (
            {"inputs": 1, "instances": [1]},
            {"x": "FLOAT"},
            "The body has both 'instances' and 'inputs'. Send one of the two.",
        ),
        (
            {"instances": {}},
            {"x": "FLOAT"},
            "'instances' is {}, where a list of at least one instance is needed. Send "
            "one element for each.",
        ),
        (
            {"inputs": [1]},
            {"x": "FLOAT", "y": "FLOAT"},
            "'inputs' holds plain values, but the signature has several inputs: 'x', "
            "'y'. Send an object that names them.",
        ),
        (
            {"instances": [{"fares": 1}]},
            {"fare": "FLOAT"},
            "Instance 0 has 'fares', which is no input of the signature (it has "
            "'fare'). Did you mean 'fare'?",
        ),
        (
            {"inputs": {"x": 1}},
            {"x": "FLOAT", "y": "FLOAT"},
            "'inputs' lacks 'y'. Send all inputs.",
        ),
        (
            {"instances": [1, {"x": 1}]},
            {"x": "FLOAT"},
            "Instance 1 is an object where instance 0 is none. Send all of them alike.",
        ),
        (
            {"instances": [{"x": 1}, 1]},
            {"x": "FLOAT"},
            "Instance 1 is no object where instance 0 is one. Send all of them alike.",
        ),
        (
            {"inputs": [[1, 2], [3]]},
            {"x": "FLOAT"},
            "'x' has lists of 1 and of 2 elements at depth 1, which make no tensor. "
            "Send lists of one length.",
        ),
        (
            {"inputs": [1, [2]]},
            {"x": "FLOAT"},
            "'x' has lists beside values at depth 1, which make no tensor. Send lists "
            "of one depth.",
        ),
        (
            {"inputs": [1, "2"]},
            {"x": "FLOAT"},
            "'x' holds \"2\" where numbers (DT_FLOAT) are needed. Send those.",
        ),
        (
            {"inputs": [1.5]},
            {"x": "INT32"},
            "'x' holds 1.5 where whole numbers (DT_INT32) are needed. Send those.",
        ),
        (
            {"inputs": [1]},
            {"x": "BOOL"},
            "'x' holds 1 where booleans (DT_BOOL) are needed. Send those.",
        ),
        (
            {"inputs": [None]},
            {"x": "STRING"},
            "'x' holds null where texts (DT_STRING) are needed. Send those.",
        ),
        (
            {"inputs": [300]},
            {"x": "UINT8"},
            "'x' holds 300, which is no uint8. Send numbers that are.",
        ),
        (
            {"inputs": [1e39]},
            {"x": "FLOAT"},
            "'x' holds 1e+39, which is no float32. Send numbers that are.",
        ),
        (
            {"inputs": [{"a": 1}, "b"]},
            {"x": "STRING"},
            "'x' holds {\"a\": 1} where texts are needed. Send a text, or bytes as "
            '{"b64": "..."}.',
        ),
        (
            {"inputs": {"b64": "!"}},
            {"x": "STRING"},
            '\'x\' holds {"b64": "!"}, which is no base64. Encode the bytes anew.',
        ),
        (
            {"inputs": [1]},
            {"x": "COMPLEX64"},
            "'x' is of type DT_COMPLEX64, which JSON cannot say. Send it by gRPC.",
        ),
    ],
)
def test_a_body_that_does_not_fit_gets_a_sentence(
    document: dict[str, Any], kinds: dict[str, str], sentence: str
) -> None:
    with pytest.raises(DataError) as raised:
        ours(document, **kinds)
    assert str(raised.value) == sentence


def test_half_floats_are_taken_and_written_too() -> None:
    found, _ = ours({"inputs": [0.1]}, x="HALF")
    assert found["x"].dtype == np.float16
    response = PredictResponse()
    response.outputs["y"].CopyFrom(to_tensor(found["x"]))
    assert rest_json.answer_of(response.outputs, rows=True) == {"predictions": [0.1]}


def test_outputs_that_cannot_be_written_get_a_sentence() -> None:
    response = PredictResponse()
    response.outputs["y"].CopyFrom(to_tensor(np.array([1j])))
    with pytest.raises(DataError) as raised:
        rest_json.answer_of(response.outputs, rows=False)
    assert str(raised.value) == (
        "Output 'y' is of type complex128, which JSON cannot say. Ask for it by gRPC."
    )
    response.outputs["y"].CopyFrom(to_tensor(np.array([1.0, 2.0])))
    response.outputs["z"].CopyFrom(to_tensor(np.array(1.0)))
    with pytest.raises(DataError) as raised:
        rest_json.answer_of(response.outputs, rows=True)
    assert str(raised.value) == (
        "The outputs have no batch dimension in common, so they cannot be in rows: "
        "'y' [2], 'z' []. Send 'inputs' in place of 'instances'."
    )


def test_a_body_that_is_no_json_object_gets_a_sentence() -> None:
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(DataError, match=r"^The body is no JSON: .+ Send a JSON"):
            rest_json.parse(body)
    with pytest.raises(DataError) as raised:
        rest_json.parse(b"[1]")
    assert str(raised.value) == (
        "The body is [1], no JSON object. Send an object with 'instances' or 'inputs'."
    )


def test_numbers_that_are_none_stay_what_they_are() -> None:
    found, _ = ours(rest_json.parse(b'{"inputs": [NaN, Infinity]}'), x="FLOAT")
    assert math.isnan(found["x"][0]) and math.isinf(found["x"][1])


def test_a_signature_that_is_not_there_gets_a_near_miss() -> None:
    legal = ["serving_default", "serving_raw"]
    assert rest_json.signature_name({}, legal) == "serving_default"
    with pytest.raises(DataError) as raised:
        rest_json.signature_name({"signature_name": "serving_rw"}, legal)
    assert str(raised.value) == (
        "The model has no signature \"serving_rw\" (it has 'serving_default', "
        "'serving_raw'). Did you mean 'serving_raw'?"
    )
