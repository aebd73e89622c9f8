"""TensorProto to NumPy and back, by the rules of TensorFlow's Tensor::FromProto."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2

Array = NDArray[Any]

_MAX_FILLED_BYTES = 1 << 30
"""Most that a tensor may grow to by repeating its last value."""


def _of_bits(dtype: Any) -> Callable[[Any], Array]:
    # The field is of 32 bits, of which C++ takes the lower half.
    return lambda values: np.array(values, np.int32).astype(np.uint16).view(dtype)


def _of_pairs(dtype: Any) -> Callable[[Any], Array]:
    # Real and imaginary parts take turns.
    half = np.float32 if dtype is np.complex64 else np.float64
    return lambda values: np.array(values, half)[: len(values) // 2 * 2].view(dtype)


def _as(dtype: Any) -> Callable[[Any], Array]:
    return lambda values: np.array(values, dtype)


def _wrapped(dtype: Any) -> Callable[[Any], Array]:
    # C++ casts int32 to narrower integers without looking.
    return lambda values: np.array(values, np.int32).astype(dtype)


_BFLOAT16 = tf.bfloat16.as_numpy_dtype

# DataType -> NumPy type, field of the values, how the field's values become an array.
_KINDS: dict[int, tuple[Any, str, Callable[[Any], Array]]] = {
    types_pb2.DT_FLOAT: (np.float32, "float_val", _as(np.float32)),
    types_pb2.DT_DOUBLE: (np.float64, "double_val", _as(np.float64)),
    types_pb2.DT_INT32: (np.int32, "int_val", _as(np.int32)),
    types_pb2.DT_INT64: (np.int64, "int64_val", _as(np.int64)),
    types_pb2.DT_STRING: (np.object_, "string_val", _as(np.object_)),
    types_pb2.DT_BOOL: (np.bool_, "bool_val", _as(np.bool_)),
    types_pb2.DT_UINT8: (np.uint8, "int_val", _wrapped(np.uint8)),
    types_pb2.DT_INT8: (np.int8, "int_val", _wrapped(np.int8)),
    types_pb2.DT_INT16: (np.int16, "int_val", _wrapped(np.int16)),
    types_pb2.DT_UINT16: (np.uint16, "int_val", _wrapped(np.uint16)),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val", _as(np.uint32)),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val", _as(np.uint64)),
    types_pb2.DT_HALF: (np.float16, "half_val", _of_bits(np.float16)),
    types_pb2.DT_BFLOAT16: (_BFLOAT16, "half_val", _of_bits(_BFLOAT16)),
    types_pb2.DT_COMPLEX64: (np.complex64, "scomplex_val", _of_pairs(np.complex64)),
    types_pb2.DT_COMPLEX128: (
        np.complex128,
        "dcomplex_val",
        _of_pairs(np.complex128),
    ),
}

_BY_NUMPY = {np.dtype(kind): name for name, (kind, _, _) in _KINDS.items()}


def dtype_name(dtype: int) -> str:
    """Return TensorFlow's short name of a DataType number: 'float', 'string'."""
    try:
        return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()
    except ValueError:
        return f"unknown dtype enum ({dtype})"


def dtype_of(array: Array) -> int:
    """Return the DataType number of an array; 0 if no tensor has its type."""
    return _BY_NUMPY.get(array.dtype, 0)


def to_array(proto: tensor_pb2.TensorProto) -> Array:
    """Decode a tensor.

    Values stand in `tensor_content`, or in the field of their type. There the last
    value is repeated if there are fewer than the shape asks for, zeros stand for no
    value at all, and surplus values are ignored.

    Raises:
        ValueError: TensorFlow could not decode it.
    """
    kind = _KINDS.get(proto.dtype)
    if kind is None:
        raise ValueError(f"tensors of type {dtype_name(proto.dtype)} cannot be sent")
    dtype, field, decode = kind
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("its shape is not fully known")
    count = 1
    for size in shape:
        count *= size
    if proto.tensor_content:
        if dtype is np.object_:
            return _decoded_strings(proto, shape, count)
        if len(proto.tensor_content) != count * np.dtype(dtype).itemsize:
            raise ValueError(
                f"its content is {len(proto.tensor_content)} bytes where its shape "
                f"takes {count * np.dtype(dtype).itemsize}"
            )
        # A copy: the buffer of the message is read-only and may be unaligned.
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape).copy()
    values = decode(getattr(proto, field))
    if len(values) == count:
        return values.reshape(shape)
    if len(values) > count:
        return values[:count].reshape(shape)
    if count * values.itemsize > _MAX_FILLED_BYTES:
        raise ValueError(
            f"its shape takes {count} values, but only {len(values)} were sent"
        )
    empty: Any = b"" if dtype is np.object_ else 0
    filled: Array = np.full(count, values[-1] if len(values) else empty, dtype)
    filled[: len(values)] = values
    return filled.reshape(shape)


def _decoded_strings(
    proto: tensor_pb2.TensorProto, shape: tuple[int, ...], count: int
) -> Array:
    # The lengths as varints come first, then the bytes; TensorFlow knows how.
    if count > len(proto.tensor_content):
        raise ValueError("its content is shorter than its shape")
    try:
        decoded = tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy()
    except tf.errors.OpError as error:
        raise ValueError("its content holds no such strings") from error
    return np.asarray(decoded, np.object_).reshape(shape)


def to_proto(
    array: Array, proto: tensor_pb2.TensorProto, *, as_content: bool = False
) -> None:
    """Encode an array as TensorFlow Serving answers: values in the field of their type.

    Args:
        array: What to encode, of any shape.
        proto: Filled in; must be empty.
        as_content: Write the bytes of numbers into `tensor_content` instead.

    Raises:
        ValueError: Its type cannot be sent.
    """
    number = dtype_of(array)
    kind = _KINDS.get(number)
    if kind is None:
        raise ValueError(f"tensors of type {array.dtype} cannot be sent")
    _, field, _ = kind
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    flat = array.reshape(-1)
    if as_content and field != "string_val":
        proto.tensor_content = flat.tobytes()
        return
    if field == "half_val":
        flat = flat.view(np.uint16)
    elif field == "scomplex_val":
        flat = flat.view(np.float32)
    elif field == "dcomplex_val":
        flat = flat.view(np.float64)
    getattr(proto, field).extend(flat.tolist())
