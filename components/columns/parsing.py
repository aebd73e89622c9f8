"""Which features a signature parses from serialized tf.Examples, by its graph.

A signature does not declare them, but the operation that parses names them as
constants. Where everything that takes the records is understood, only those columns
need be encoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_PASSES_ON = {"Identity", "Reshape", "Squeeze", "ExpandDims", "EnsureShape"}
_SEES_SHAPE_ONLY = {"Shape", "Size", "Rank"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A feature that is parsed.

    Attributes:
        name: Its name.
        dtype: TensorFlow's name of its type.
        is_required: Whether every record must have it.
    """

    name: str
    dtype: str
    is_required: bool


class _Unknown(Exception):
    """The graph does something with the records that is not understood."""


def parsed_features(
    graph: Any, tensor: str, outputs: Iterable[str]
) -> tuple[Parsed, ...] | None:
    """Return the features that a graph parses from records.

    Args:
        graph: The graph of a SavedModel, a GraphDef.
        tensor: Name of the tensor that is fed with the records.
        outputs: Names of the tensors that the signature returns.

    Returns:
        The features by name, or None if something in the graph takes the records and
        is not understood, so that it may read any.
    """
    functions = {each.signature.name: each for each in graph.library.function}
    found: dict[str, Parsed] = {}
    try:
        passed = _walk(graph.node, _source(tensor), functions, found)
    except _Unknown:
        return None
    if passed & {_source(each) for each in outputs}:
        return None
    return tuple(found[name] for name in sorted(found))


def _walk(
    nodes: Any, start: str, functions: Mapping[str, Any], found: dict[str, Parsed]
) -> set[str]:
    """Follow the records from a node; return the nodes that pass them on."""
    by_name = {node.name: node for node in nodes}
    takers: dict[str, list[tuple[Any, int]]] = {}
    for node in nodes:
        for place, reference in enumerate(node.input):
            if not reference.startswith("^"):
                takers.setdefault(_source(reference), []).append((node, place))
    passed = {start}
    waiting = [start]
    while waiting:
        for node, place in takers.get(waiting.pop(), ()):
            if node.op in _SEES_SHAPE_ONLY:
                continue
            if node.op in _CALLS:
                _walk_call(node, place, functions, found)
            elif place != 0:
                raise _Unknown
            elif node.op in _PASSES_ON:
                if node.name not in passed:
                    passed.add(node.name)
                    waiting.append(node.name)
            elif node.op in ("ParseExample", "ParseExampleV2"):
                for feature in _features(node, by_name):
                    found[feature.name] = _both(found.get(feature.name), feature)
            else:
                raise _Unknown
    return passed


def _walk_call(
    node: Any, place: int, functions: Mapping[str, Any], found: dict[str, Parsed]
) -> None:
    function = functions.get(node.attr["f"].func.name)
    if function is None:
        raise _Unknown
    argument = function.signature.input_arg[place].name
    passed = _walk(function.node_def, argument, functions, found)
    if passed & {_source(each) for each in function.ret.values()}:
        raise _Unknown


def _both(one: Parsed | None, other: Parsed) -> Parsed:
    if one is None:
        return other
    if one.dtype != other.dtype:
        raise _Unknown
    return dataclasses.replace(one, is_required=one.is_required or other.is_required)


def _features(node: Any, by_name: Mapping[str, Any]) -> Iterator[Parsed]:
    """Yield what a parsing operation names (see ParseExample in TensorFlow's ops)."""
    inputs = [each for each in node.input if not each.startswith("^")]
    sparse_types = node.attr["sparse_types"].list.type
    dense_types = node.attr["Tdense"].list.type
    ragged_types = node.attr["ragged_value_types"].list.type
    sparse, dense = len(sparse_types), len(dense_types)
    if node.op == "ParseExampleV2":
        sparse_keys, dense_keys, ragged_keys = (
            _texts(inputs[place], by_name) for place in (2, 3, 4)
        )
        defaults = inputs[5 : 5 + dense]
    else:
        keys = [_texts(each, by_name)[0] for each in inputs[2 : 2 + sparse + dense]]
        sparse_keys, dense_keys, ragged_keys = keys[:sparse], keys[sparse:], []
        defaults = inputs[2 + sparse + dense : 2 + sparse + 2 * dense]
    if [len(sparse_keys), len(dense_keys), len(ragged_keys)] != [
        sparse,
        dense,
        len(ragged_types),
    ]:
        raise _Unknown
    yield from _typed(sparse_keys, sparse_types)
    yield from _typed(ragged_keys, ragged_types)
    shapes = node.attr["dense_shapes"].list.shape
    for feature, default, shape in zip(
        _typed(dense_keys, dense_types), defaults, shapes, strict=True
    ):
        yield dataclasses.replace(
            feature,
            is_required=not _varies(shape) and _is_empty(default, by_name),
        )


def _typed(names: Iterable[str], types: Iterable[int]) -> Iterator[Parsed]:
    import tensorflow as tf

    for name, kind in zip(names, types, strict=True):
        yield Parsed(name, tf.as_dtype(kind).name, False)


def _varies(shape: Any) -> bool:
    return bool(shape.unknown_rank or any(each.size < 0 for each in shape.dim))


def _texts(reference: str, by_name: Mapping[str, Any]) -> list[str]:
    return [each.decode() for each in _constant(reference, by_name).ravel().tolist()]


def _is_empty(reference: str, by_name: Mapping[str, Any]) -> bool:
    """Return whether a default is known to be none."""
    try:
        return bool(_constant(reference, by_name).size == 0)
    except _Unknown:
        return False


def _constant(reference: str, by_name: Mapping[str, Any]) -> Any:
    import tensorflow as tf

    node = by_name.get(_source(reference))
    if node is None or node.op != "Const":
        raise _Unknown
    return tf.make_ndarray(node.attr["value"].tensor)


def _source(reference: str) -> str:
    """Return the node or argument that a reference is to an output of."""
    return reference.removeprefix("^").split(":")[0]
