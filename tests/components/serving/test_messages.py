"""Our messages against TensorFlow's, and arrays against its tensors."""

from __future__ import annotations

import ast
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    prediction_log_pb2,
)

from penstock.components.serving import descriptors, messages
from penstock.components.serving.messages import (
    PREDICT,
    Code,
    DataType,
    MultiInferenceRequest,
    PredictRequest,
    State,
    TensorProto,
    model_specs,
    to_array,
    to_tensor,
)
from penstock.schemas.errors import DataError

# Importing them registered what the comparisons below look up by name.
INSTALLED = (
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    prediction_log_pb2,
)

OPAQUE = {
    "tensorflow.TypeSpecProto",
    "tensorflow.serving.FileSystemStoragePathSourceConfig",
    "tensorflow.serving.Input",
    "tensorflow.serving.PredictRequest.RequestOptions",
    "tensorflow.serving.PredictStreamedOptions",
    "tensorflow.serving.SessionRunLog",
}
"""Messages that are carried and never read: nothing in them is described."""

LATER = {
    "tensorflow.serving.PredictRequest.RequestOptions",
    "tensorflow.serving.PredictRequest.request_options",
    "tensorflow.serving.LoggingConfig.custom_logging_config",
    "tensorflow.serving.LogMetadata.safe_aggregation_privacy_key",
}
"""What the old set's packages do not have, and the current set's do."""


def ours() -> list[Any]:
    """Return the descriptor of every message of ours, nested ones included."""
    found = []
    for package in ("tensorflow", "tensorflow.serving"):
        waiting = list(
            messages._POOL.FindFileByName(
                f"{package}.proto"
            ).message_types_by_name.values()
        )
        while waiting:
            found.append(waiting.pop())
            waiting.extend(found[-1].nested_types)
    return sorted(found, key=lambda message: str(message.full_name))


def installed(full_name: str) -> Any:
    return descriptor_pool.Default().FindMessageTypeByName(full_name)


COMPARED = [message.full_name for message in ours() if message.full_name not in LATER]


def repeated(field: Any) -> bool:
    try:
        return bool(field.is_repeated)
    except AttributeError:  # protobuf 4
        return bool(field.label == FieldDescriptor.LABEL_REPEATED)


def shape_of(field: Any) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        repeated(field),
        field.has_presence,
        repeated(field) and field.type != field.TYPE_MESSAGE and field.is_packed
        if hasattr(field, "is_packed")
        else None,
        kind and kind.full_name,
        oneof and oneof.name,
    )


# --- descriptors


@pytest.mark.parametrize("full_name", COMPARED)
def test_every_field_is_as_tensorflow_has_it(full_name: str) -> None:
    mine = messages._POOL.FindMessageTypeByName(full_name)
    theirs = installed(full_name)
    for field in mine.fields:
        known = theirs.fields_by_number.get(field.number)
        if known is None:
            assert field.full_name in LATER
        else:
            assert shape_of(field) == shape_of(known)
    left_out = set(theirs.fields_by_name) - set(mine.fields_by_name)
    assert not left_out or full_name in OPAQUE, left_out
    assert mine.GetOptions().map_entry == theirs.GetOptions().map_entry


def test_what_is_opaque_has_no_field() -> None:
    empty = {
        message.full_name
        for message in ours()
        if not message.fields and not message.full_name.endswith("Policy.All")
    }
    assert empty == OPAQUE


def test_every_enum_value_is_as_tensorflow_has_it() -> None:
    default = descriptor_pool.Default()
    for name in descriptors._ENUMS:
        theirs = default.FindEnumTypeByName(name).values_by_number
        mine = messages._POOL.FindEnumTypeByName(name).values_by_number
        shared = set(theirs) & set(mine)
        assert {n: theirs[n].name for n in shared} == {n: mine[n].name for n in shared}
        assert name == "tensorflow.DataType" or set(theirs) - set(mine) <= {20}
    assert State(30).name == "AVAILABLE"
    assert Code(16).name == "UNAUTHENTICATED"
    assert DataType.Name(19) == "DT_HALF"


def test_every_typed_class_is_a_message_of_that_name() -> None:
    tree = ast.parse(Path(messages.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {node.name for node in block.body if isinstance(node, ast.ClassDef)}
    for name in names - {"Message"}:
        assert getattr(messages, name).DESCRIPTOR.name == name
    assert set(messages.__all__) == names | {
        name
        for name in messages.__all__
        if not hasattr(getattr(messages, name), "DESCRIPTOR") or name == "DataType"
    }
    assert messages.__all__ == sorted(messages.__all__)


def test_the_module_imports_no_tensorflow() -> None:
    code = (
        "import sys; from penstock.components.serving import messages; "
        "print([name for name in ('tensorflow', 'tensorflow_serving', 'grpc') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- round trips

WHOLE = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_FLOAT: st.floats(allow_nan=False, width=32),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_SINT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: st.text(max_size=5),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=5),
}


def fill(draw: st.DrawFn, message: Any, depth: int) -> None:
    """Set some fields of a message to values of their types."""
    fields = [
        field for field in message.DESCRIPTOR.fields if depth or not field.message_type
    ]
    if not fields:
        return
    for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=id)):
        value = getattr(message, field.name)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            value_field = kind.fields_by_name["value"]
            for key in draw(st.lists(st.text(max_size=3), max_size=2)):
                if value_field.message_type is None:
                    value[key] = draw(WHOLE[value_field.type])
                else:
                    fill(draw, value[key], depth - 1)
        elif repeated(field):
            for _ in range(draw(st.integers(0, 2))):
                if kind is not None:
                    fill(draw, value.add(), depth - 1)
                else:
                    value.append(one(draw, field))
        elif kind is not None:
            value.SetInParent()
            fill(draw, value, depth - 1)
        else:
            setattr(message, field.name, one(draw, field))


def one(draw: st.DrawFn, field: Any) -> Any:
    if field.enum_type is not None:
        return draw(st.integers(0, 2**31 - 1))  # proto3 keeps numbers it does not know
    return draw(WHOLE[field.type])


@pytest.mark.parametrize(
    "full_name", [name for name in COMPARED if not name.endswith("Entry")]
)
@settings(max_examples=15)
@given(data=st.data())
def test_messages_come_back_the_same_from_the_other_side(
    full_name: str, data: st.DataObject
) -> None:
    mine = GetMessageClass(messages._POOL.FindMessageTypeByName(full_name))
    theirs = GetMessageClass(installed(full_name))
    draw: Any = data.draw
    for here, there in ((mine, theirs), (theirs, mine)):
        sent = here()
        fill(draw, sent, depth=4)
        arrived = there.FromString(sent.SerializeToString())
        again = here.FromString(arrived.SerializeToString())
        # Unknown fields take part in no comparison, so the bytes are compared.
        assert again.SerializeToString(deterministic=True) == here.FromString(
            sent.SerializeToString()
        ).SerializeToString(deterministic=True)


@settings(max_examples=50)
@given(data=st.data())
def test_a_rewritten_model_spec_leaves_all_else_as_it_was(data: st.DataObject) -> None:
    draw: Any = data.draw
    sent = inference_pb2.MultiInferenceRequest()
    fill(draw, sent, depth=5)
    sent.input.example_list.examples.add().features.feature[
        "x"
    ].int64_list.value.append(7)
    rewritten = MultiInferenceRequest.FromString(sent.SerializeToString())
    for spec in model_specs(rewritten):
        spec.name = "other"
    expected = inference_pb2.MultiInferenceRequest.FromString(sent.SerializeToString())
    for task in expected.tasks:
        task.model_spec.name = "other"
    arrived = inference_pb2.MultiInferenceRequest.FromString(
        rewritten.SerializeToString()
    )
    assert arrived == expected


def test_a_request_with_one_model_spec_gives_it_to_be_changed() -> None:
    request = PredictRequest()
    (spec,) = model_specs(request)
    spec.name = "ranker__v3"
    assert request.model_spec.name == "ranker__v3"


def test_calls_have_the_names_and_messages_of_the_services() -> None:
    from tensorflow_serving.apis import (
        model_service_pb2_grpc,
        prediction_service_pb2_grpc,
    )

    class Channel:
        """Records what a stub of TensorFlow Serving asks of its channel."""

        def __init__(self) -> None:
            self.calls: dict[str, str] = {}

        def unary_unary(
            self, path: str, *, response_deserializer: Any, **_: Any
        ) -> None:
            self.calls[path] = response_deserializer.__self__.DESCRIPTOR.full_name

    stubs = Channel()
    prediction_service_pb2_grpc.PredictionServiceStub(stubs)
    model_service_pb2_grpc.ModelServiceStub(stubs)
    calls = [
        call for call in vars(messages).values() if isinstance(call, messages.Method)
    ]
    assert {
        call.path: call.response.DESCRIPTOR.full_name for call in calls
    } == stubs.calls
    for call in calls:  # a stub does not tell the class of its request
        response = call.response.DESCRIPTOR.name
        assert call.request.DESCRIPTOR.name == response.replace("Response", "Request")
    assert PREDICT.path == "/tensorflow.serving.PredictionService/Predict"


# --- tensors


def as_tensorflow(tensor: Any) -> Any:
    return tensor_pb2.TensorProto.FromString(tensor.SerializeToString())


def as_ours(tensor: Any) -> Any:
    return TensorProto.FromString(tensor.SerializeToString())


def runtime_array(tensor: Any) -> Any:
    """Return what TensorFlow's C++ runtime, and so a server, makes of a tensor."""
    value = tf.io.parse_tensor(tensor.SerializeToString(), tf.as_dtype(tensor.dtype))
    found = value.numpy()
    if tensor.dtype != DataType.Value("DT_STRING"):
        return np.asarray(found)
    return found if isinstance(found, np.ndarray) else np.array(found, object)


def shape_message(shape: tuple[int, ...]) -> Any:
    return {"dim": [{"size": size} for size in shape]}


def varint(number: int) -> bytes:
    return (
        number.to_bytes(1, "little")
        if number < 128
        else bytes([number & 0x7F | 0x80, number >> 7])
    )


def one_by_one(array: Any, count: int) -> Any:
    """Return a tensor with the first values in the field for single values."""
    values = array.ravel()[:count]
    if array.dtype == object:
        return TensorProto(
            dtype=7, tensor_shape=shape_message(array.shape), string_val=values.tolist()
        )
    dtype = tf.as_dtype(array.dtype).as_datatype_enum
    field = messages._VALUES[DataType.Name(dtype)][0]
    if array.dtype.kind == "c":
        values = values.view(f"f{array.dtype.itemsize // 2}")
    if field == "half_val":
        values = values.view(np.uint16)
    return TensorProto(
        dtype=dtype,
        tensor_shape=shape_message(array.shape),
        **{field: values.tolist()},
    )


def same(left: Any, right: Any) -> None:
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    if left.dtype == object:
        assert left.tolist() == right.tolist()
    else:
        assert left.tobytes() == right.tobytes()


NUMBERS = st.sampled_from(
    [np.dtype(kind).name for _, kind in messages._VALUES.values()]
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = NUMBERS.flatmap(lambda name: hnp.arrays(name, SHAPES))
STRINGS = hnp.arrays(object, SHAPES, elements=st.binary(max_size=6))


@settings(max_examples=200)
@given(ARRAYS | STRINGS)
def test_arrays_become_the_tensors_tensorflow_reads(array: Any) -> None:
    tensor = to_tensor(array)
    assert tensor.dtype == tf.make_tensor_proto(array).dtype
    same(tf.make_ndarray(as_tensorflow(tensor)), array)
    same(runtime_array(tensor), array)
    same(to_array(tensor), array)


@settings(max_examples=200)
@given(ARRAYS | STRINGS)
def test_tensors_tensorflow_makes_become_the_arrays_it_reads(array: Any) -> None:
    made = tf.make_tensor_proto(array)
    same(to_array(as_ours(made)), tf.make_ndarray(made))


def test_a_text_that_ends_in_zero_bytes_is_repeated_whole() -> None:
    tensor = TensorProto(dtype=7, tensor_shape=shape_message((3,)), string_val=[b"\0"])
    assert to_array(tensor).tolist() == [b"\0"] * 3
    tensor.string_val.append(b"a\0")
    assert to_array(tensor).tolist() == [b"\0", b"a\0", b"a\0"]


@settings(max_examples=300)
@given(ARRAYS | STRINGS, st.data())
def test_the_last_of_single_values_is_repeated_as_tensorflow_does(
    array: Any, data: st.DataObject
) -> None:
    given_values = data.draw(st.integers(0, array.size))
    tensor = one_by_one(array, given_values)
    found = to_array(tensor)
    same(found, runtime_array(tensor))
    if given_values:  # tf.make_ndarray reads no strings at all as texts, not bytes
        same(found, tf.make_ndarray(as_tensorflow(tensor)))


@settings(max_examples=100)
@given(STRINGS)
def test_strings_in_raw_bytes_are_read_as_tensorflow_does(array: Any) -> None:
    content = b"".join(map(varint, map(len, array.ravel()))) + b"".join(array.ravel())
    tensor = TensorProto(
        dtype=7, tensor_shape=shape_message(array.shape), tensor_content=content
    )
    same(to_array(tensor), array)
    if array.size:
        same(runtime_array(tensor), array)


def test_a_long_string_in_raw_bytes_has_a_length_of_several_bytes() -> None:
    text = b"x" * 300
    tensor = TensorProto(
        dtype=7, tensor_shape=shape_message((1,)), tensor_content=varint(300) + text
    )
    assert to_array(tensor).tolist() == [text] == runtime_array(tensor).tolist()


@settings(max_examples=30)
@given(hnp.arrays("uint16", SHAPES))
def test_bfloat16_is_read_and_written_once_numpy_has_it(bits: Any) -> None:
    array = bits.view(tf.bfloat16.as_numpy_dtype)  # importing TensorFlow added it
    tensor = to_tensor(array)
    assert DataType.Name(tensor.dtype) == "DT_BFLOAT16"
    same(to_array(tensor), array)
    same(runtime_array(tensor), array)
    values = TensorProto(
        dtype=tensor.dtype, tensor_shape=tensor.tensor_shape, half_val=bits.ravel()
    )
    same(to_array(values), array)


def test_bfloat16_without_its_package_gets_a_sentence() -> None:
    code = (
        "from penstock.components.serving.messages import *\n"
        "to_array(TensorProto(dtype=14, half_val=[1]), 'inputs/x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().endswith(
        "DataError: 'inputs/x' is of type DT_BFLOAT16, which NumPy alone does not "
        "have. Import ml_dtypes first, which adds it, or cast to float32 in the "
        "signature."
    )


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array(["é", ""]), ["é".encode(), b""]),
        (np.array([b"a", b"bc"]), [b"a", b"bc"]),
        (np.array(["é", b"\x00"], object), ["é".encode(), b"\x00"]),
        (np.array("x"), b"x"),
    ],
)
def test_texts_and_bytes_become_strings(array: Any, expected: Any) -> None:
    assert to_array(to_tensor(array)).tolist() == expected


def test_numbers_of_any_byte_order_and_stride_are_written() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2].T
    assert to_array(to_tensor(array)).tolist() == array.tolist()
    assert to_array(to_tensor(np.float32(1.5))).tolist() == 1.5


def test_the_array_is_the_callers_own() -> None:
    array = to_array(to_tensor(np.zeros(3)))
    array[0] = 1.0
    assert array.tolist() == [1, 0, 0]


def test_a_raw_boolean_that_is_neither_is_true() -> None:
    tensor = TensorProto(
        dtype=10, tensor_shape=shape_message((2,)), tensor_content=b"\x02\x00"
    )
    assert to_array(tensor).tobytes() == b"\x01\x00"


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (
            {"dtype": 1, "tensor_shape": {"dim": [{"size": 3}, {"size": -1}]}},
            "'x' has the shape [3, -1], with a negative size. Send the size of every "
            "dimension.",
        ),
        (
            {"dtype": 1, "tensor_shape": {"unknown_rank": True}},
            "'x' has a shape of unknown rank, but a value has a shape. Send the size "
            "of every dimension.",
        ),
        (
            {"dtype": 1, "tensor_shape": {"dim": [{"size": 2**40}]}, "float_val": [1]},
            "'x' has the shape [1099511627776], which takes 4,398,046,511,104 bytes "
            "where 268,435,456 are allowed. Send it in smaller batches.",
        ),
        (
            {"dtype": 7, "tensor_shape": {"dim": [{"size": 2**26}]}},
            "'x' has the shape [67108864], which takes 536,870,912 bytes where "
            "268,435,456 are allowed. Send it in smaller batches.",
        ),
        (
            {"dtype": 3, "tensor_shape": {"dim": [{"size": 2**62}, {}, {"size": 2}]}},
            "'x' has the shape [4611686018427387904, 0, 2], which takes "
            "36,893,488,147,419,103,232 bytes where 268,435,456 are allowed. Send it "
            "in smaller batches.",
        ),
        (
            {"dtype": 1, "tensor_shape": {"dim": [{"size": 1}] * 33}},
            "'x' has 33 dimensions, and an array has at most 32. Reshape it.",
        ),
        (
            {
                "dtype": 1,
                "tensor_shape": {"dim": [{"size": 2}]},
                "float_val": [1, 2, 3],
            },
            "'x' holds 3 values where its shape has 2 elements. Send one value for "
            "each element.",
        ),
        (
            {
                "dtype": 1,
                "tensor_shape": {"dim": [{"size": 2}]},
                "tensor_content": b"abc",
            },
            "'x' holds 3 bytes of 4-byte values where its shape has 2 elements. Send "
            "one value for each element.",
        ),
        (
            {"dtype": 8, "tensor_shape": {"dim": [{"size": 2}]}, "scomplex_val": [1]},
            "'x' holds 1 parts where its shape has 2 elements. Send one value for "
            "each element.",
        ),
        (
            {"dtype": 7, "tensor_shape": {}, "string_val": [b"a", b"b"]},
            "'x' holds 2 values where its shape has 1 elements. Send one value for "
            "each element.",
        ),
        (
            {"dtype": 4, "tensor_shape": {}, "int_val": [300]},
            "'x' holds the value 300, which is no uint8. Send values from 0 to 255.",
        ),
        (
            {"dtype": 19, "tensor_shape": {}, "half_val": [-1]},
            "'x' holds the value -1, which is no 16-bit pattern. Send values from 0 "
            "to 65535.",
        ),
        (
            {"dtype": 7, "tensor_shape": {}, "tensor_content": b"\x05ab"},
            "'x' holds 3 raw bytes that are not 1 strings. Send the values in "
            "'string_val'.",
        ),
        (
            {"dtype": 7, "tensor_shape": {}, "tensor_content": b"\xff" * 40},
            "'x' holds 40 raw bytes that are not 1 strings. Send the values in "
            "'string_val'.",
        ),
        (
            {"dtype": 20, "tensor_shape": {}},
            "'x' is of type DT_RESOURCE, which NumPy does not have. Cast it to a "
            "number type in the signature of the model.",
        ),
        (
            {"dtype": 77},
            "'x' is of type 77, which NumPy does not have. Cast it to a number type in "
            "the signature of the model.",
        ),
    ],
)
def test_a_hostile_tensor_gets_a_sentence_and_no_memory(
    tensor: dict[str, Any], text: str
) -> None:
    message = TensorProto(**tensor)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            to_array(message, "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value) == text
    assert peak < 1 << 20


def test_the_greatest_size_is_the_callers_choice() -> None:
    tensor = to_tensor(np.zeros(4))
    assert to_array(tensor, max_bytes=32).shape == (4,)
    with pytest.raises(DataError, match="which takes 32 bytes where 31 are allowed"):
        to_array(tensor, max_bytes=31)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (
            np.array(["2026-01-01"], "datetime64[D]"),
            "An array of type 'datetime64[D]' is no tensor: TensorFlow Serving takes "
            "numbers, booleans, texts and bytes. Convert it with .astype.",
        ),
        (
            np.array([b"a", 3], object),
            "An array of objects holds a value of type 'int': only texts and bytes "
            "become a tensor of objects. Convert the array with .astype.",
        ),
    ],
)
def test_an_array_that_is_no_tensor_gets_a_sentence(array: Any, text: str) -> None:
    with pytest.raises(DataError) as caught:
        to_tensor(array)
    assert str(caught.value) == text
