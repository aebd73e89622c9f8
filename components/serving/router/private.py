"""Removes what is private from messages before anything of them is kept.

Inputs of Predict are named; the features of examples are named too, inside messages
that nothing else looks into. Those are taken apart as Protocol Buffers are encoded, so
that no class of TensorFlow's is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Set
from functools import partial
from typing import Any

from penstock.components.serving.messages import DataType, Message, to_array
from penstock.schemas.errors import DataError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_STRING: int = DataType.Value("DT_STRING")


class Unreadable(Exception):
    """Bytes are not the message they should be, so nothing of them may be kept."""


def strip(log: Message, names: Set[str]) -> None:
    """Remove named inputs, outputs and features from a PredictionLog, in place.

    Of an input of strings that are serialized Examples, the features are removed.

    Args:
        log: A PredictionLog.
        names: What is private.

    Raises:
        Unreadable: Its examples cannot be taken apart.
    """
    if not names:
        return
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    record = getattr(log, kind)
    if kind != "predict_log":
        _strip_input(record.request, names)
        return
    for tensors in (record.request.inputs, record.response.outputs):
        for name in names & set(tensors):
            del tensors[name]
    for tensor in record.request.inputs.values():
        if tensor.dtype == _STRING:
            _strip_strings(tensor, names)


def _strip_input(request: Any, names: Set[str]) -> None:
    # Input holds ExampleList in 1, or ExampleListWithContext in 2; both hold Examples
    # in 1, and the latter its context in 2.
    examples = partial(_edited, edit=partial(without_features, names=names))
    without = _edited(request.input.SerializeToString(), edit=examples)
    request.ClearField("input")
    request.input.MergeFromString(without)


def _strip_strings(tensor: Any, names: Set[str]) -> None:
    if tensor.tensor_content:  # which may hold strings as well
        try:
            values = to_array(tensor).ravel().tolist()
        except DataError as error:
            raise Unreadable from error
        tensor.ClearField("tensor_content")
        tensor.string_val.extend(values)
    for i, value in enumerate(tensor.string_val):
        with contextlib.suppress(Unreadable):  # a text like any other
            tensor.string_val[i] = without_features(value, names)


def without_features(example: bytes, names: Set[str]) -> bytes:
    """Return a serialized Example or SequenceExample without some features.

    Both have maps from names to features in field 1 of the messages in their fields 1
    and 2.

    Raises:
        Unreadable: It is neither.
    """

    def features(content: bytes) -> bytes:
        kept = bytearray()
        for number, kind, value, raw in _fields(content):
            if number == 1 and kind == _BYTES and _key(value) in names:
                continue
            kept += raw
        return bytes(kept)

    return _edited(example, edit=features)


def _key(entry: bytes) -> str:
    for number, kind, value, _ in _fields(entry):
        if number == 1 and kind == _BYTES:
            return value.decode("utf-8", "replace")
    return ""


def _edited(content: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """Return a message with the messages in its fields 1 and 2 edited."""
    made = bytearray()
    for number, kind, value, raw in _fields(content):
        edited = edit(value) if number in (1, 2) and kind == _BYTES else value
        if edited != value:
            raw = _varint(number << 3 | _BYTES) + _varint(len(edited)) + edited
        made += raw
    return bytes(made)


def _fields(content: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield number, wire type, content and all the bytes of each field."""
    at = 0
    while at < len(content):
        start = at
        tag, at = _read_varint(content, at)
        kind = tag & 7
        begin = at
        if kind == _VARINT:
            _, at = _read_varint(content, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _BYTES:
            size, begin = _read_varint(content, at)
            at = begin + size
        else:
            raise Unreadable
        if at > len(content) or not tag >> 3:
            raise Unreadable
        yield tag >> 3, kind, content[begin:at], content[start:at]


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise Unreadable


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
