"""Tensors of every type, there and back, against TensorFlow's own conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework import tensor_pb2

from penstock.components.serving.model_server.tensors import (
    dtype_name,
    dtype_of,
    to_array,
    to_proto,
)

NUMPY = [
    np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64,
    np.uint8, np.uint16, np.uint32, np.uint64, np.bool_, np.complex64, np.complex128,
]  # fmt: skip


def of_any_type() -> st.SearchStrategy[Any]:
    shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    return st.sampled_from(NUMPY).flatmap(lambda dtype: arrays.arrays(dtype, shapes))


@given(of_any_type(), st.booleans())
def test_numbers_survive(array: Any, as_content: bool) -> None:
    proto = tensor_pb2.TensorProto()
    to_proto(array, proto, as_content=as_content)
    np.testing.assert_array_equal(to_array(proto), array)
    assert to_array(proto).dtype == array.dtype
    # TensorFlow reads the same from it, and we from what TensorFlow writes.
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    np.testing.assert_array_equal(to_array(tf.make_tensor_proto(array)), array)


@given(
    st.lists(st.binary(max_size=5), max_size=6),
    st.sampled_from([(-1,), (-1, 1), (1, -1)]),
)
def test_strings_survive(values: list[bytes], shape: tuple[int, ...]) -> None:
    array = np.empty(len(values), np.object_)
    array[:] = values
    array = array.reshape(shape)
    proto = tensor_pb2.TensorProto()
    to_proto(array, proto)
    np.testing.assert_array_equal(to_array(proto), array)
    assert tf.make_ndarray(proto).tolist() == array.tolist()


def test_strings_in_content_are_read() -> None:
    content = tf.io.serialize_tensor(tf.constant(["a", "bc", ""])).numpy()
    proto = tensor_pb2.TensorProto.FromString(content)
    packed = tensor_pb2.TensorProto(dtype=proto.dtype, tensor_shape=proto.tensor_shape)
    packed.tensor_content = b"\x01\x02\x00abc"  # the lengths, then the bytes
    assert to_array(packed).tolist() == to_array(proto).tolist() == [b"a", b"bc", b""]


def test_bfloat16_survives() -> None:
    array = np.array([1.5, -2.0], tf.bfloat16.as_numpy_dtype)
    proto = tensor_pb2.TensorProto()
    to_proto(array, proto)
    assert proto.dtype == tf.bfloat16.as_datatype_enum
    assert to_array(proto).astype(np.float32).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("bits", [-1, 0x13C00])
def test_halves_of_more_than_16_bits_are_cut(bits: int) -> None:
    proto = tensor_pb2.TensorProto(dtype=tf.float16.as_datatype_enum, half_val=[bits])
    expected = np.array([bits & 0xFFFF], np.uint16).view(np.float16)
    assert to_array(proto).tobytes() == expected[0].tobytes()


def test_narrow_integers_wrap_as_in_cpp() -> None:
    proto = tensor_pb2.TensorProto(dtype=tf.uint8.as_datatype_enum, int_val=[257])
    assert to_array(proto).tolist() == 1


def test_surplus_values_are_left_out() -> None:
    proto = tensor_pb2.TensorProto(dtype=tf.int32.as_datatype_enum, int_val=[1, 2, 3])
    proto.tensor_shape.dim.add().size = 2
    assert to_array(proto).tolist() == [1, 2]


def test_what_was_read_may_be_written_to() -> None:
    proto = tf.make_tensor_proto(np.arange(3, dtype=np.int64))
    array = to_array(proto)
    array[0] = 9
    assert to_array(proto).tolist() == [0, 1, 2]


def test_types_have_tensorflows_names() -> None:
    assert dtype_name(tf.float32.as_datatype_enum) == "float"
    assert dtype_name(tf.string.as_datatype_enum) == "string"
    assert dtype_name(9999) == "unknown dtype enum (9999)"
    assert dtype_of(np.zeros(1, "datetime64[s]")) == 0
    with pytest.raises(ValueError, match="tensors of type datetime64"):
        to_proto(np.zeros(1, "datetime64[s]"), tensor_pb2.TensorProto())
