"""JSON of TensorFlow Serving's REST API to requests, and answers to JSON."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    regression_pb2,
)

from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.model_server.tensors import dtype_name, to_array

_INT32 = (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8)
_INTEGERS: dict[int, tuple[str, int, int]] = {
    **{dtype: ("int_val", -(2**31), 2**31 - 1) for dtype in _INT32},
    types_pb2.DT_INT64: ("int64_val", -(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: ("uint32_val", 0, 2**32 - 1),
    types_pb2.DT_UINT64: ("uint64_val", 0, 2**64 - 1),
}
_DECIMALS: dict[int, tuple[str, int, float]] = {
    types_pb2.DT_FLOAT: ("float_val", 2**24 - 1, float(np.finfo(np.float32).max)),
    types_pb2.DT_DOUBLE: ("double_val", 2**53 - 1, math.inf),
}
_WRITABLE = {
    *_INTEGERS,
    *_DECIMALS,
    types_pb2.DT_STRING,
    types_pb2.DT_BOOL,
}
_BYTES_SUFFIX = "_bytes"
"""Strings of outputs named so are bytes, and written in base64."""

_MAX_SHOWN = 200


def _invalid(message: str) -> ServableError:
    return ServableError(Code.INVALID_ARGUMENT, message)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def parse(body: bytes) -> dict[str, Any]:
    """Read the body of a request.

    Raises:
        ServableError: It is no JSON object.
    """
    if not body:
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise _invalid(
            f"JSON Parse error: Invalid value. at offset: {error.pos} ({error.msg})"
        ) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, or nested too deep
        raise _invalid(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature that a request names; the empty text if it names none.

    Raises:
        ServableError: It is no text.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


# --- Predict


def fill_predict(
    document: Mapping[str, Any], inputs: Any, request: predict_pb2.PredictRequest
) -> bool:
    """Fill in the tensors of a Predict request.

    Args:
        document: The body.
        inputs: The TensorInfo of every input of the signature.
        request: Filled in.

    Returns:
        Whether the answer has to be in rows ('instances'), not in columns ('inputs').

    Raises:
        ServableError: The body does not fit the signature.
    """
    if not inputs:
        name = request.model_spec.signature_name or "DEFAULT"
        raise _invalid(f"Failed to get input map for signature: {name}")
    if "instances" in document and "inputs" in document:
        raise _invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only "
            "one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _invalid(
                f"JSON Value: {_shown(document)} Excepting 'instances' to be an "
                "list/array"
            )
        if not instances:
            raise _invalid(
                f"JSON Value: {_shown(document)} No values in 'instances' array"
            )
        _fill_rows(instances, inputs, request.inputs)
        return True
    if "inputs" in document:
        _fill_columns(document["inputs"], inputs, request.inputs)
        return False
    raise _invalid("Missing 'inputs' or 'instances' key")


def _is_base64(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and list(value) == ["b64"]
        and isinstance(value["b64"], str)
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _fill_rows(instances: list[Any], inputs: Any, tensors: Any) -> None:
    names = sorted(inputs)
    if not isinstance(instances[0], dict) and len(names) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    of_objects = _is_object(instances[0])
    shapes: dict[str, list[int]] = {}
    for place, element in enumerate(instances):
        if of_objects != _is_object(element):
            expected, found = (
                ("object", "list")
                if of_objects
                else (
                    "value/list",
                    "object",
                )
            )
            raise _invalid(
                f"Expecting {expected} but got {found} at item {place} of input list"
            )
        items = element if of_objects else {names[0]: element}
        for name, item in items.items():
            where = f"element: {place}" + (f" key: {name}" if of_objects else "")
            try:
                _add_row(item, name, inputs, shapes, tensors)
            except ServableError as error:
                raise _invalid(
                    f"Failed to process {where} of 'instances' list. "
                    f"Error: {error.labelled}"
                ) from None
        if of_objects and set(items) != set(names):
            raise _invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: "
                f"{_shown(element)} must only have keys: {','.join(names)}"
            )
    for name, shape in shapes.items():
        _set_shape(tensors[name], inputs[name].dtype, [len(instances), *shape])


def _add_row(
    item: Any, name: str, inputs: Any, shapes: dict[str, list[int]], tensors: Any
) -> None:
    if name not in inputs:
        raise _invalid(f"JSON object: does not have named input: {name}")
    shape = _dense_shape(item)
    _fill(item, 0, shape, inputs[name].dtype, tensors[name])
    known = shapes.setdefault(name, shape)
    if math.prod(known) != math.prod(shape):
        raise _invalid(
            f"Expecting tensor size: {math.prod(known)} but got: {math.prod(shape)}"
        )
    if known != shape:
        raise _invalid(
            f"Expecting shape {_bracketed(known)} but got: {_bracketed(shape)}"
        )


def _fill_columns(value: Any, inputs: Any, tensors: Any) -> None:
    names = sorted(inputs)
    if not _is_object(value):
        if len(names) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        value = {names[0]: value}
    for name in names:
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
        shape = _dense_shape(value[name])
        _fill(value[name], 0, shape, inputs[name].dtype, tensors[name])
        _set_shape(tensors[name], inputs[name].dtype, shape)


def _bracketed(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _set_shape(tensor: tensor_pb2.TensorProto, dtype: int, shape: list[int]) -> None:
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add().size = size


def _dense_shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _fill(value: Any, level: int, shape: list[int], dtype: int, tensor: Any) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise _invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in "
                f"the JSON DOM. Expected at level: {len(shape)}"
            )
        _add_value(value, dtype, tensor)
        return
    if level >= len(shape):
        raise _invalid(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise _invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _fill(element, level + 1, shape, dtype, tensor)


def _kind(value: Any) -> str:
    for kind, name in (
        (bool, "Bool"),
        (dict, "Object"),
        (list, "Array"),
        (str, "String"),
        ((int, float), "Number"),
    ):
        if isinstance(value, kind):
            return name
    return "Null"


def _add_value(value: Any, dtype: int, tensor: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype in _DECIMALS and number:
        field, largest_int, largest = _DECIMALS[dtype]
        _check_lossless(value, largest_int, largest, dtype_name(dtype))
        getattr(tensor, field).append(float(value))
    elif dtype in _INTEGERS and number and isinstance(value, int):
        field, low, high = _INTEGERS[dtype]
        if not low <= value <= high:
            raise _wrong_type(value, dtype)
        getattr(tensor, field).append(value)
    elif dtype == types_pb2.DT_BOOL and isinstance(value, bool):
        tensor.bool_val.append(value)
    elif dtype == types_pb2.DT_STRING and isinstance(value, str):
        tensor.string_val.append(value.encode("utf-8", "surrogatepass"))
    elif dtype == types_pb2.DT_STRING and isinstance(value, dict):
        tensor.string_val.append(_decoded(value))
    elif dtype not in _WRITABLE:
        raise ServableError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {_shown(value)} to type: {dtype_name(dtype)}",
        )
    else:
        raise _wrong_type(value, dtype)


def _wrong_type(value: Any, dtype: int) -> ServableError:
    return _invalid(
        f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: "
        f"{dtype_name(dtype)}"
    )


def _check_lossless(
    value: int | float, largest_int: int, largest: float, target: str
) -> None:
    # Fractions are rounded without a word; integers and what would become infinite
    # are not. NaN and Infinity are legal.
    if isinstance(value, int):
        fits = abs(value) <= largest_int
    else:
        fits = not math.isfinite(value) or abs(value) <= largest
    if not fits:
        raise _invalid(
            f"Cannot convert JSON value: {_shown(value)} to {target} without loss of "
            "precision."
        )


def _decoded(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise _invalid(
            f"JSON Value: {_shown(value)} not formatted correctly for base64 data"
        )
    text = value["b64"]
    try:
        # Padding may be left out, as absl allows.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("Unable to base64 decode") from None


def predictions(response: predict_pb2.PredictResponse, *, rows: bool) -> Any:
    """Return the JSON of an answer of Predict.

    Args:
        response: The answer.
        rows: Whether it has to be in rows.

    Raises:
        ServableError: It cannot be written, or not in rows.
    """
    arrays = {name: response.outputs[name] for name in sorted(response.outputs)}
    if not arrays:
        raise _invalid("Cannot convert empty tensor map to JSON")
    if rows:
        _check_rows(arrays)
    values = {name: _values(name, tensor) for name, tensor in arrays.items()}
    if not rows:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [
            dict(zip(values, row, strict=True))
            for row in zip(*values.values(), strict=True)
        ]
    }


def _check_rows(tensors: Mapping[str, tensor_pb2.TensorProto]) -> None:
    expected = 0
    for name, tensor in tensors.items():
        if not tensor.tensor_shape.dim:
            raise _invalid(f"Tensor name: {name} has no shape information ")
        size = tensor.tensor_shape.dim[0].size
        if size < 1:
            raise _invalid(f"Tensor name: {name} has invalid batch size: {size}")
        if expected and size != expected:
            raise _invalid(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: "
                f"{expected}"
            )
        expected = size


def _values(name: str, tensor: tensor_pb2.TensorProto) -> Any:
    if tensor.dtype not in _WRITABLE:
        raise _invalid(
            f"Failed to write JSON value for tensor type: {dtype_name(tensor.dtype)}"
        )
    array = to_array(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        as_bytes = name.endswith(_BYTES_SUFFIX)
        return _mapped(array.tolist(), _as_base64 if as_bytes else _as_text)
    if tensor.dtype == types_pb2.DT_FLOAT:
        return _mapped(array.tolist(), shortest)
    return array.tolist()


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, list):
        return [_mapped(element, function) for element in value]
    return function(value)


def _as_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")


def shortest(value: float) -> float:
    """Return the double of fewest digits that rounds to the same float: 0.1."""
    return float(str(np.float32(value)))


# --- Classify and Regress


def fill_examples(
    document: Mapping[str, Any],
    request: classification_pb2.ClassificationRequest
    | regression_pb2.RegressionRequest,
) -> None:
    """Fill in the tf.Examples of a Classify or Regress request.

    Raises:
        ServableError: The body holds none, or values that no feature can have.
    """
    held = request.input.example_list
    if "context" in document:
        held = request.input.example_list_with_context
        _fill_example(document["context"], held.context)
    if "examples" not in document:
        raise _invalid(
            f"JSON Value: {_shown(document)} When method is classify, key 'examples' "
            "is expected and was not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise _invalid(
            f"JSON Value: {_shown(document)} Expecting 'examples' value to be an "
            "list/array"
        )
    if not rows:
        raise _invalid(
            f"JSON Value: {_shown(document)} 'examples' value is an empty array"
        )
    for row in rows:
        _fill_example(row, held.examples.add())


def _fill_example(value: Any, example: tf.train.Example) -> None:
    if not isinstance(value, dict):
        raise _invalid(f"Example must be JSON object but got JSON {_kind(value)}")
    for name, content in value.items():
        feature = example.features.feature[name]
        for element in content if isinstance(content, list) else [content]:
            _add_to_feature(element, name, feature)


def _add_to_feature(value: Any, name: str, feature: tf.train.Feature) -> None:
    converted: Any
    if isinstance(value, bool):
        kind, converted = "int64_list", int(value)
    elif isinstance(value, str):
        kind, converted = "bytes_list", value.encode("utf-8", "surrogatepass")
    elif _is_base64(value):
        kind, converted = "bytes_list", _decoded(value)
    elif isinstance(value, float):
        _check_lossless(value, 0, float(np.finfo(np.float32).max), "float")
        kind, converted = "float_list", value
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _invalid(
                f"Feature: {name} has uint64 element. Only int64 is supported."
            )
        kind, converted = "int64_list", value
    else:
        raise _invalid(
            f"Feature: {name} has element with unexpected JSON type: {_kind(value)}"
        )
    held = feature.WhichOneof("kind")
    if held not in (None, kind):
        expected = str(held).removesuffix("_list")
        raise _invalid(
            f"Unexpected element type in feature: {name} expecting type: {expected}"
        )
    getattr(feature, kind).value.append(converted)


def classifications(response: classification_pb2.ClassificationResponse) -> Any:
    """Return the JSON of an answer of Classify: pairs of label and score."""
    return {
        "results": [
            [[entry.label, shortest(entry.score)] for entry in row.classes]
            for row in response.result.classifications
        ]
    }


def regressions(response: regression_pb2.RegressionResponse) -> Any:
    """Return the JSON of an answer of Regress."""
    return {"results": [shortest(entry.value) for entry in response.result.regressions]}
