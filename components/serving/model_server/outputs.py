"""What a model gives: arrays, as the answers of Predict, Classify and Regress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, regression_pb2

from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.model_server.tensors import (
    Array,
    dtype_of,
    to_proto,
)


def encode(alias: str, value: Array, proto: Any, as_content: bool) -> None:
    """Encode one output of Predict.

    Raises:
        ServableError: Its type cannot be sent.
    """
    try:
        to_proto(value, proto, as_content=as_content)
    except ValueError as error:
        raise ServableError(
            Code.UNIMPLEMENTED, f"Output '{alias}' cannot be encoded: {error}"
        ) from None


def _shape(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _type(array: Array) -> str:
    number = dtype_of(array)
    return str(types_pb2.DataType.Name(number)) if number else str(array.dtype)


def _checked_column(name: str, column: Array, count: int, dtype: int) -> Array:
    if column.ndim != 2:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"Expected Tensor shape: [batch_size num_classes] but got {_shape(column)}",
        )
    if dtype_of(column) != dtype:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"Expected {name} Tensor of {types_pb2.DataType.Name(dtype)}. "
            f"Got: {_type(column)}",
        )
    if column.shape[0] != count:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"Expected {name} output batch size of {count}. Got: {column.shape[0]}",
        )
    return column


def fill_classes(
    signature: meta_graph_pb2.SignatureDef,
    count: int,
    outputs: Mapping[str, Array],
    result: classification_pb2.ClassificationResult,
) -> None:
    """Fill in the classes of every example from columns of labels and scores.

    Args:
        signature: The classification signature.
        count: How many examples there were.
        outputs: What the model gave, by the name of the tensor: labels and scores of
            shape [count, classes].
        result: Filled in.

    Raises:
        ServableError: A column has another type or shape.
    """
    classes = scores = None
    if "classes" in signature.outputs:
        column = outputs[signature.outputs["classes"].name]
        classes = _checked_column("classes", column, count, types_pb2.DT_STRING)
    if "scores" in signature.outputs:
        column = outputs[signature.outputs["scores"].name]
        scores = _checked_column("scores", column, count, types_pb2.DT_FLOAT)
    if (
        classes is not None
        and scores is not None
        and classes.shape[1] != scores.shape[1]
    ):
        raise ServableError(
            Code.INVALID_ARGUMENT,
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}",
        )
    for row in range(count):
        filled = result.classifications.add()
        labels = None if classes is None else classes[row].tolist()
        numbers = None if scores is None else scores[row].tolist()
        for place in range(len(labels if labels is not None else numbers or ())):
            entry = filled.classes.add()
            if labels is not None:
                entry.label = labels[place].decode("utf-8", errors="replace")
            if numbers is not None:
                entry.score = numbers[place]


def fill_values(
    signature: meta_graph_pb2.SignatureDef,
    count: int,
    outputs: Mapping[str, Array],
    result: regression_pb2.RegressionResult,
) -> None:
    """Fill in the value of every example.

    Args:
        signature: The regression signature.
        count: How many examples there were.
        outputs: What the model gave, by the name of the tensor: values of shape
            [count] or [count, 1].
        result: Filled in.

    Raises:
        ServableError: The values have another type or shape.
    """
    values = outputs[signature.outputs["outputs"].name]
    if values.ndim != 1 and not (values.ndim == 2 and values.shape[1] == 1):
        raise ServableError(
            Code.INVALID_ARGUMENT,
            "Expected output Tensor shape to be either [batch_size] or "
            f"[batch_size, 1] but got {_shape(values)}",
        )
    if values.shape[0] != count:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            "Input batch size did not match output batch size: "
            f"{count} vs. {values.shape[0]}",
        )
    if dtype_of(values) != types_pb2.DT_FLOAT:
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"Expected output Tensor of DT_FLOAT.  Got: {_type(values)}",
        )
    for value in values.reshape(-1).tolist():
        result.regressions.add().value = value
