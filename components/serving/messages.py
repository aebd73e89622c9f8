"""The messages TensorFlow Serving speaks, and tensors in them, without TensorFlow.

Every module of `tensorflow_serving.apis` imports TensorFlow, which takes seconds and
hundreds of megabytes that a router and a control verb do not have. So these classes are
made from descriptors of our own, in a pool of their own: TensorFlow may register the
same names in the same process, and nothing clashes. The two sides meet only as bytes.

What is not described stays in a message as unknown fields, and is written out as it
came: nothing looks into `Input`, which holds the examples of Classify and Regress.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

from penstock.components.serving.descriptors import Code, State, message_pool
from penstock.schemas.errors import DataError

__all__ = [
    "CLASSIFY",
    "ClassificationRequest",
    "ClassificationResponse",
    "ClassifyLog",
    "Code",
    "DataType",
    "GET_MODEL_METADATA",
    "GET_MODEL_STATUS",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "Input",
    "Int64Value",
    "LogMetadata",
    "MAX_TENSOR_BYTES",
    "MULTI_INFERENCE",
    "Message",
    "Method",
    "ModelConfig",
    "ModelConfigList",
    "ModelServerConfig",
    "ModelSpec",
    "ModelVersionStatus",
    "MultiInferenceLog",
    "MultiInferenceRequest",
    "MultiInferenceResponse",
    "PREDICT",
    "PredictLog",
    "PredictRequest",
    "PredictResponse",
    "PredictionLog",
    "REGRESS",
    "RELOAD_CONFIG",
    "RegressLog",
    "RegressionRequest",
    "RegressionResponse",
    "ReloadConfigRequest",
    "ReloadConfigResponse",
    "SamplingConfig",
    "SignatureDef",
    "SignatureDefMap",
    "State",
    "StatusProto",
    "TensorInfo",
    "TensorProto",
    "TensorShapeProto",
    "model_specs",
    "to_array",
    "to_tensor",
]

MAX_TENSOR_BYTES = 256 << 20
"""What one tensor may hold when it is read. A message of a few bytes can ask for any
size, because the last value is repeated up to the end of the shape."""

_M = TypeVar("_M", bound="Message")
_Q = TypeVar("_Q", bound="Message")
_R = TypeVar("_R", bound="Message")

_MAX_DIMENSIONS = 32  # of an array in NumPy 1; NumPy 2 takes 64

_POOL = message_pool()

if TYPE_CHECKING:

    class Message:
        """A message; its fields are attributes of the types the tables above give."""

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

        DESCRIPTOR: Any

        @classmethod
        def FromString(cls: type[_M], data: bytes) -> _M: ...
        def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...
        def ByteSize(self) -> int: ...
        def CopyFrom(self: _M, other: _M) -> None: ...
        def HasField(self, name: str) -> bool: ...
        def ClearField(self, name: str) -> None: ...
        def WhichOneof(self, name: str) -> str | None: ...

    class Int64Value(Message): ...

    class TensorShapeProto(Message): ...

    class TensorProto(Message): ...

    class TensorInfo(Message): ...

    class SignatureDef(Message): ...

    class ModelSpec(Message): ...

    class StatusProto(Message): ...

    class GetModelStatusRequest(Message): ...

    class ModelVersionStatus(Message): ...

    class GetModelStatusResponse(Message): ...

    class ModelServerConfig(Message): ...

    class ModelConfigList(Message): ...

    class ModelConfig(Message): ...

    class ReloadConfigRequest(Message): ...

    class ReloadConfigResponse(Message): ...

    class PredictRequest(Message): ...

    class PredictResponse(Message): ...

    class Input(Message): ...

    class ClassificationRequest(Message): ...

    class ClassificationResponse(Message): ...

    class RegressionRequest(Message): ...

    class RegressionResponse(Message): ...

    class MultiInferenceRequest(Message): ...

    class MultiInferenceResponse(Message): ...

    class GetModelMetadataRequest(Message): ...

    class GetModelMetadataResponse(Message): ...

    class SignatureDefMap(Message): ...

    class SamplingConfig(Message): ...

    class LogMetadata(Message): ...

    class PredictLog(Message): ...

    class ClassifyLog(Message): ...

    class RegressLog(Message): ...

    class MultiInferenceLog(Message): ...

    class PredictionLog(Message): ...

else:
    from google.protobuf.message import Message

    Int64Value = GetMessageClass(
        _POOL.FindMessageTypeByName("google.protobuf.Int64Value")
    )
    for _package in ("tensorflow", "tensorflow.serving"):
        _file = _POOL.FindFileByName(f"{_package}.proto")
        for _name, _descriptor in _file.message_types_by_name.items():
            globals()[_name] = GetMessageClass(_descriptor)

DataType: Any = EnumTypeWrapper(_POOL.FindEnumTypeByName("tensorflow.DataType"))
"""Names and numbers of the types of tensors: `DataType.Name(1)` is 'DT_FLOAT'."""

# --- the calls


@dataclass(frozen=True)
class Method(Generic[_Q, _R]):
    """A call of TensorFlow Serving's gRPC services.

    Attributes:
        path: What the call is named on the wire.
        request: Class of what is sent.
        response: Class of what comes back.
    """

    path: str
    request: type[_Q]
    response: type[_R]

    def on(self, channel: Any) -> Callable[..., _R]:
        """Return the call on a channel of `grpc` or `grpc.aio`."""
        call: Callable[..., _R] = channel.unary_unary(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )
        return call


_PREDICTION = "/tensorflow.serving.PredictionService"
_MODEL = "/tensorflow.serving.ModelService"

PREDICT = Method(f"{_PREDICTION}/Predict", PredictRequest, PredictResponse)
CLASSIFY = Method(
    f"{_PREDICTION}/Classify", ClassificationRequest, ClassificationResponse
)
REGRESS = Method(f"{_PREDICTION}/Regress", RegressionRequest, RegressionResponse)
MULTI_INFERENCE = Method(
    f"{_PREDICTION}/MultiInference", MultiInferenceRequest, MultiInferenceResponse
)
GET_MODEL_METADATA = Method(
    f"{_PREDICTION}/GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
)
GET_MODEL_STATUS = Method(
    f"{_MODEL}/GetModelStatus", GetModelStatusRequest, GetModelStatusResponse
)
RELOAD_CONFIG = Method(
    f"{_MODEL}/HandleReloadConfigRequest", ReloadConfigRequest, ReloadConfigResponse
)


def model_specs(request: Message) -> list[Message]:
    """Return every ModelSpec of a request: one, or one per task of a MultiInference.

    They are parts of the request; what is set on them is sent with it.
    """
    if isinstance(request, MultiInferenceRequest):
        return [task.model_spec for task in request.tasks]
    return [request.model_spec]


# --- tensors

# The field that holds the values of a type one by one, where it is not the raw bytes.
_VALUES = {
    "DT_FLOAT": ("float_val", np.float32),
    "DT_DOUBLE": ("double_val", np.float64),
    "DT_INT8": ("int_val", np.int8),
    "DT_INT16": ("int_val", np.int16),
    "DT_INT32": ("int_val", np.int32),
    "DT_INT64": ("int64_val", np.int64),
    "DT_UINT8": ("int_val", np.uint8),
    "DT_UINT16": ("int_val", np.uint16),
    "DT_UINT32": ("uint32_val", np.uint32),
    "DT_UINT64": ("uint64_val", np.uint64),
    "DT_BOOL": ("bool_val", np.bool_),
    "DT_HALF": ("half_val", np.float16),
    "DT_COMPLEX64": ("scomplex_val", np.complex64),
    "DT_COMPLEX128": ("dcomplex_val", np.complex128),
}
_NAMES = {np.dtype(kind).name: name for name, (_, kind) in _VALUES.items()}
_NAMES["bfloat16"] = "DT_BFLOAT16"


def to_tensor(array: npt.NDArray[Any] | np.generic) -> TensorProto:
    """Write an array as a tensor.

    Args:
        array: Of any shape. Numbers keep their type. Texts are written in UTF-8, bytes
            as they are; both, and objects that are one of them, become DT_STRING.

    Raises:
        DataError: TensorFlow Serving has no type for it.
    """
    array = np.asarray(array)
    shape = TensorShapeProto(dim=[{"size": size} for size in array.shape])
    if array.dtype.kind in "SUO":
        return TensorProto(
            dtype=DataType.Value("DT_STRING"),
            tensor_shape=shape,
            string_val=[_as_bytes(value) for value in array.ravel().tolist()],
        )
    name = _NAMES.get(array.dtype.name)
    if name is None:
        raise DataError(
            f"An array of type '{array.dtype}' is no tensor: TensorFlow Serving takes "
            "numbers, booleans, texts and bytes. Convert it with .astype."
        )
    little = array.dtype.newbyteorder("<")
    return TensorProto(
        dtype=DataType.Value(name),
        tensor_shape=shape,
        tensor_content=array.astype(little, copy=False).tobytes(),
    )


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise DataError(
        f"An array of objects holds a value of type '{type(value).__name__}': only "
        "texts and bytes become a tensor of objects. Convert the array with .astype."
    )


def to_array(
    tensor: Message, name: str = "tensor", max_bytes: int = MAX_TENSOR_BYTES
) -> npt.NDArray[Any]:
    """Read a tensor as an array of its own memory.

    The values stand as raw bytes, or one by one; of the latter the last is repeated up
    to the end of the shape, and none at all means zeros, as `tf.make_ndarray` reads it.
    Strings become an array of `bytes` objects.

    Args:
        tensor: A TensorProto.
        name: What texts call it.
        max_bytes: The size of the array that is still made, in bytes.

    Raises:
        DataError: The shape is unknown, negative or too large, the values do not fit
            it, or NumPy has no such type. Nothing was allocated.
    """
    type_name = _type_name(tensor.dtype)
    if type_name == "DT_STRING":
        dtype: np.dtype[Any] = np.dtype(object)
    elif type_name == "DT_BFLOAT16":
        dtype = _bfloat16(name)
    elif type_name in _VALUES:
        dtype = np.dtype(_VALUES[type_name][1])
    else:
        raise DataError(
            f"'{name}' is of type {type_name}, which NumPy does not have. Cast it to a "
            "number type in the signature of the model."
        )
    shape, count = _shape(tensor, name, dtype.itemsize, max_bytes)
    if type_name == "DT_STRING":
        values = _strings(tensor, name, count)
    elif tensor.tensor_content:
        values = _raw(tensor.tensor_content, name, dtype, count)
    else:
        field = "half_val" if type_name == "DT_BFLOAT16" else _VALUES[type_name][0]
        values = _one_by_one(getattr(tensor, field), name, dtype, count)
    return values.reshape(shape)


def _type_name(number: int) -> str:
    try:
        return str(DataType.Name(number))
    except ValueError:  # an enum of proto3 holds any number
        return str(number)


def _bfloat16(name: str) -> np.dtype[Any]:
    try:
        return np.dtype("bfloat16")
    except TypeError:
        raise DataError(
            f"'{name}' is of type DT_BFLOAT16, which NumPy alone does not have. Import "
            "ml_dtypes first, which adds it, or cast to float32 in the signature."
        ) from None


def _shape(
    tensor: Message, name: str, itemsize: int, max_bytes: int
) -> tuple[list[int], int]:
    if tensor.tensor_shape.unknown_rank:
        raise DataError(
            f"'{name}' has a shape of unknown rank, but a value has a shape. Send "
            "the size of every dimension."
        )
    rank = len(tensor.tensor_shape.dim)
    if rank > _MAX_DIMENSIONS:
        raise DataError(
            f"'{name}' has {rank} dimensions, and an array has at most "
            f"{_MAX_DIMENSIONS}. Reshape it."
        )
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if min(shape, default=0) < 0:
        raise DataError(
            f"'{name}' has the shape {shape}, with a negative size. Send the size of "
            "every dimension."
        )
    # Zeros do not count, because NumPy refuses [0, 2**62, 4] as well.
    needed = math.prod(size for size in shape if size) * itemsize
    if needed > max_bytes:
        raise DataError(
            f"'{name}' has the shape {shape}, which takes {needed:,} bytes where "
            f"{max_bytes:,} are allowed. Send it in smaller batches."
        )
    return shape, math.prod(shape)


def _misfit(name: str, found: str, count: int) -> DataError:
    return DataError(
        f"'{name}' holds {found} where its shape has {count:,} elements. Send one "
        "value for each element."
    )


def _raw(
    content: bytes, name: str, dtype: np.dtype[Any], count: int
) -> npt.NDArray[Any]:
    if len(content) != count * dtype.itemsize:
        found = f"{len(content):,} bytes of {dtype.itemsize}-byte values"
        raise _misfit(name, found, count)
    if dtype.kind == "b":  # of a byte that is neither 0 nor 1, NumPy makes neither
        return np.frombuffer(content, np.uint8).astype(np.bool_)
    values = np.frombuffer(content, dtype.newbyteorder("<"))
    return values.astype(dtype, copy=True)


def _one_by_one(
    found: Any, name: str, dtype: np.dtype[Any], count: int
) -> npt.NDArray[Any]:
    pair = 2 if dtype.kind == "c" else 1
    given = len(found)
    if given % pair or given > count * pair:
        raise _misfit(name, f"{given:,} {'parts' if pair == 2 else 'values'}", count)
    if pair == 2:
        part = np.dtype(f"f{dtype.itemsize // 2}")
        values = np.fromiter(found, part, given).view(dtype)
    elif dtype.itemsize == 2 and dtype.kind not in "iu":  # the bits of a float
        values = _narrowed(found, name, np.dtype(np.uint16), "16-bit pattern").view(
            dtype
        )
    elif dtype.kind in "iu" and dtype.itemsize < 4:
        values = _narrowed(found, name, dtype, str(dtype))
    else:
        values = np.fromiter(found, dtype, given)
    if not values.size:
        return np.zeros(count, dtype)
    if values.size == count:
        return values
    full = np.full(count, values[-1], dtype)
    full[: values.size] = values
    return full


def _narrowed(
    found: Any, name: str, dtype: np.dtype[Any], what: str
) -> npt.NDArray[Any]:
    wide = np.fromiter(found, np.int32, len(found))
    values = wide.astype(dtype)
    wrong = np.flatnonzero(values != wide)
    if wrong.size:
        raise DataError(
            f"'{name}' holds the value {wide[wrong[0]]}, which is no {what}. Send "
            f"values from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}."
        )
    return values


def _strings(tensor: Message, name: str, count: int) -> npt.NDArray[Any]:
    if tensor.tensor_content:
        found = _split(tensor.tensor_content, name, count)
    else:
        found = list(tensor.string_val)
    if len(found) > count:
        raise _misfit(name, f"{len(found):,} values", count)
    # `np.full` would make an array of fixed width of the last one first, and lose zero
    # bytes at its end.
    values = np.empty(count, object)
    values[: len(found)] = found
    values[len(found) :] = [found[-1] if found else b""] * (count - len(found))
    return values


def _split(content: bytes, name: str, count: int) -> list[bytes]:
    """Return the strings of raw bytes: all lengths as varints, then all the bytes."""
    lengths: list[int] = []
    at = 0
    # A length takes at least one byte, so a short content cannot ask for a long loop.
    while len(lengths) < count and at < len(content):
        length = shift = 0
        more = True
        while more and at < len(content) and shift < 64:
            more = content[at] >= 0x80
            length |= (content[at] & 0x7F) << shift
            shift += 7
            at += 1
        lengths.append(length)
    if len(lengths) != count or sum(lengths) != len(content) - at:
        raise DataError(
            f"'{name}' holds {len(content):,} raw bytes that are not {count:,} "
            "strings. Send the values in 'string_val'."
        )
    found = []
    for length in lengths:
        found.append(content[at : at + length])
        at += length
    return found
