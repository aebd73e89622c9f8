"""What a request brings: named tensors, or tf.Examples, as arrays to be fed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import input_pb2, predict_pb2

from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.model_server.tensors import (
    Array,
    dtype_name,
    to_array,
)


def example_count(examples: input_pb2.Input) -> int:
    """Return how many tf.Examples a request holds."""
    if examples.WhichOneof("kind") == "example_list":
        return len(examples.example_list.examples)
    return len(examples.example_list_with_context.examples)


def serialized_examples(examples: input_pb2.Input) -> Array:
    """Return serialized tf.Examples, each with the shared context before it.

    Raises:
        ServableError: There are none.
    """
    if examples.WhichOneof("kind") == "example_list":
        context, rows = b"", examples.example_list.examples
    else:
        # The bytes of two messages in a row are the bytes of both merged. Where a
        # feature is in both, the one of the example counts, being the later.
        together = examples.example_list_with_context
        context, rows = together.context.SerializeToString(), together.examples
    if not rows:
        raise ServableError(Code.INVALID_ARGUMENT, "Input is empty.")
    serialized = np.empty(len(rows), np.object_)
    serialized[:] = [context + row.SerializeToString() for row in rows]
    return serialized


def request_inputs(
    signature: meta_graph_pb2.SignatureDef,
    inputs: Sequence[tuple[str, meta_graph_pb2.TensorInfo]],
    request: predict_pb2.PredictRequest,
) -> list[Array]:
    """Return the tensors of a Predict request in the order of a signature's inputs.

    Shapes are not looked at, as in TensorFlow Serving: the operations do that.

    Args:
        signature: The signature.
        inputs: Its inputs, by the name a client gives them.
        request: The request.

    Raises:
        ServableError: Inputs are missing, surplus, malformed or of another type.
    """
    # Models saved before TensorFlow 2.14 have no defaults.
    defaults = getattr(signature, "defaults", {})
    given = request.inputs
    if len(given) > len(inputs) or (len(given) < len(inputs) and not defaults):
        raise ServableError(Code.INVALID_ARGUMENT, _wrong_size(signature, given))
    feeds: list[Array] = []
    used = set()
    for alias, tensor in inputs:
        if alias in given:
            proto = given[alias]
            used.add(alias)
        elif alias in defaults:
            proto = defaults[alias]
        else:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Signature input alias: {alias}(feed name: {tensor.name}) not found "
                "in request and no default value provided. Inputs expected to be in "
                f"the request {{{_joined(given)}}}, or default input alias set: "
                f"{_joined(defaults)}",
            )
        try:
            value = to_array(proto)
        except (ValueError, DecodeError) as error:
            raise ServableError(
                Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}: {error}"
            ) from None
        if proto.dtype != tensor.dtype:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Expects arg[{len(feeds)}] to be {dtype_name(tensor.dtype)} but "
                f"{dtype_name(proto.dtype)} is provided (input '{alias}')",
            )
        feeds.append(value)
    if len(used) != len(given):
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"Inputs contains invalid name. Used request inputs: {_joined(used)}, "
            f"request input: {_joined(given)}",
        )
    return feeds


def _wrong_size(signature: meta_graph_pb2.SignatureDef, given: Any) -> str:
    wanted = set(signature.inputs)
    return (
        f"input size does not match signature: {len(given)}!={len(wanted)} "
        f"len({{{_joined(given)}}}) != len({{{_joined(wanted)}}}). "
        f"Sent extra: {{{_joined(set(given) - wanted)}}}. "
        f"Missing but required: {{{_joined(wanted - set(given))}}}."
    )


def wrong_filter(
    signature: meta_graph_pb2.SignatureDef, aliases: Sequence[str]
) -> ServableError | None:
    """Return why these outputs cannot be asked for together; None if they can."""
    for place, alias in enumerate(aliases):
        if alias not in signature.outputs:
            return ServableError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected "
                f"to be in the set {{{_joined(signature.outputs)}}}.",
            )
        if alias in aliases[:place]:
            return ServableError(
                Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}"
            )
    return None


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))
