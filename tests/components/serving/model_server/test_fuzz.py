"""Whatever a client sends, it is answered or refused; nothing else ever comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2, regression_pb2

from penstock.components.serving.model_server import json_tensors
from penstock.components.serving.model_server.servable import Servable
from penstock.components.serving.model_server.status import Code, ServableError
from tests.components.serving.model_server import models

REFUSALS = (Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION)

NAMES = st.sampled_from(
    ["instances", "inputs", "examples", "context", "signature_name", "x", "s", "b64"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just("aGVsbG8="),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=12,
)
BODIES = JSON | st.dictionaries(NAMES, JSON, max_size=3)

TYPES = st.sampled_from(sorted(types_pb2.DataType.values()))


def inputs(*types: int) -> dict[str, meta_graph_pb2.TensorInfo]:
    return {
        name: meta_graph_pb2.TensorInfo(dtype=dtype)
        for name, dtype in zip("xs", types, strict=False)
    }


@given(BODIES, st.lists(TYPES, min_size=1, max_size=2))
def test_any_json_is_filled_in_or_refused(body: Any, types: list[int]) -> None:
    text = json.dumps(body).encode()
    try:
        document = json_tensors.parse(text)
        json_tensors.signature_name(document)
        request = predict_pb2.PredictRequest()
        json_tensors.fill_predict(document, inputs(*types), request)
        assert set(request.inputs) == set(inputs(*types))
    except ServableError as error:
        assert error.code in REFUSALS
    try:
        examples = regression_pb2.RegressionRequest()
        json_tensors.fill_examples(json_tensors.parse(text), examples)
    except ServableError as error:
        assert error.code in REFUSALS


@given(st.binary(max_size=30))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        assert isinstance(json_tensors.parse(body), dict)
    except ServableError as error:
        assert error.code is Code.INVALID_ARGUMENT


def test_json_without_end_is_refused() -> None:
    with pytest.raises(ServableError):
        json_tensors.parse(b'{"instances": ' + b"[" * 100_000)


@pytest.fixture(scope="module")
def servable(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Servable:
    return Servable(models.save_version(template, tmp_path_factory.mktemp("m"), 1))


@st.composite
def tensors(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    """Make tensors of any type, shape and content, most of them wrong."""
    proto = tensor_pb2.TensorProto(dtype=draw(TYPES | st.just(1) | st.integers(0, 200)))
    sizes = st.integers(0, 3) | st.sampled_from([-1, 1 << 20, 1 << 40, (1 << 63) - 1])
    for size in draw(st.lists(sizes, max_size=4)):
        proto.tensor_shape.dim.add().size = size
    proto.tensor_shape.unknown_rank = draw(st.sampled_from([False] * 9 + [True]))
    proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    proto.string_val.extend(draw(st.lists(st.binary(max_size=3), max_size=3)))
    proto.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2)))
    proto.tensor_content = draw(st.just(b"") | st.binary(max_size=16))
    return proto


@given(tensor=tensors(), signature=st.sampled_from(["", "matrix", "several", "nope"]))
def test_any_tensor_is_answered_or_refused(
    servable: Servable, tensor: tensor_pb2.TensorProto, signature: str
) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    names = ("a", "b", "s") if signature == "several" else ("x",)
    for name in names:
        request.inputs[name].CopyFrom(tensor)
    try:
        response = servable.predict(request)
        assert all(
            tf.make_ndarray(value) is not None for value in response.outputs.values()
        )
    except ServableError as error:
        assert error.code in REFUSALS
