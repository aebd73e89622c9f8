"""Values as the lineage store keeps them, and the paths of its events."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.schemas.artifacts import PropertyValue

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2


_TRACEBACK_LINES = 40


def recorded(value: Any) -> PropertyValue:
    """Return a parameter as the store keeps it: a number, text, or JSON as text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, int | float | str):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return {
            "kind": type(value).__name__,
            **{
                each.name: _plain(getattr(value, each.name))
                for each in dataclasses.fields(value)
            },
        }
    if hasattr(value, "DESCRIPTOR"):
        from google.protobuf import json_format

        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def traceback_tail(text: str) -> str:
    """Return the last lines of a traceback, as many as the store keeps."""
    return "\n".join(text.rstrip().splitlines()[-_TRACEBACK_LINES:])


def set_value(
    slot: metadata_store_pb2.Value, value: PropertyValue, *, is_typed: bool = False
) -> None:
    """Put a value where the store keeps it as it is.

    What a column would change or refuse goes into a struct, as TFX has it for what
    is no number and no text; a typed property has no choice.
    """
    if isinstance(value, numbers.Integral):  # NumPy's among them
        # MySQL and PostgreSQL have 32 bits, and a struct's numbers 53.
        if is_typed or -(2**31) <= value < 2**31:
            slot.int_value = int(value)
        else:
            _wrap(slot, {"__int__": str(int(value))})
    elif isinstance(value, numbers.Real):
        # SQL has no NaN: stored as one, it would come back as nothing.
        if not math.isfinite(value):
            slot.string_value = str(float(value))
        elif is_typed or _is_kept(float(value)):
            slot.double_value = float(value)
        else:
            _wrap(slot, {"__value__": float(value)})
    elif isinstance(value, str):
        # Text that is not UTF-8 (undecodable file names) must not fail the record, and
        # SQLite ends text at a NUL.
        text = value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        if text == "__MLMD_NULL__" and not is_typed:  # its word for nothing at all
            _wrap(slot, {"__value__": text})
        else:
            slot.string_value = text
    elif isinstance(value, dict | list | tuple):
        # TFX wraps what is no dict.
        _wrap(slot, value if isinstance(value, dict) else {"__value__": list(value)})
    else:
        raise TypeError("the store has no such kind of value")


def _wrap(slot: metadata_store_pb2.Value, value: dict[str, Any]) -> None:
    slot.struct_value.Clear()
    slot.struct_value.update(value)


def _is_kept(value: float) -> bool:
    """Whether a number is the same after ml_metadata has written it into SQL.

    It writes six decimals (std::to_string), SQLite gives back fifteen digits and no
    negative zero, and MySQL takes no more than 65.
    """
    if value == 0.0:
        return math.copysign(1.0, value) > 0.0
    return abs(value) < 1e15 and float(f"{float(f'{value:f}'):.15g}") == value


def get_value(slot: metadata_store_pb2.Value) -> PropertyValue:
    which = slot.WhichOneof("value")
    if which == "struct_value":
        plain = _unwrapped(slot)
        if "__int__" in plain:
            return int(plain["__int__"])
        inner: PropertyValue = plain.get("__value__", plain)
        return inner
    if which is None:
        return ""
    value: PropertyValue = getattr(slot, which)
    return value


def _unwrapped(value: Any) -> Any:
    """Return what a struct holds; json_format would refuse NaN."""
    which = value.WhichOneof(value.DESCRIPTOR.oneofs[0].name)
    if which == "struct_value":
        fields = value.struct_value.fields
        return {key: _unwrapped(each) for key, each in fields.items()}
    if which == "list_value":
        return [_unwrapped(each) for each in value.list_value.values]
    return None if which == "null_value" else getattr(value, which)


def number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def new_event(
    pb: Any, kind: int, path: Iterable[tuple[str, int]], artifact_id: int | None = None
) -> metadata_store_pb2.Event:
    event = pb.Event(type=kind)
    if artifact_id is not None:
        event.artifact_id = artifact_id
    for key, index in path:
        event.path.steps.add().key = key
        event.path.steps.add().index = index
    return event


def path_of(event: metadata_store_pb2.Event) -> list[tuple[str, int]]:
    """Return the pairs of key and index that an event's path lists."""
    pairs = []
    key = ""
    for step in event.path.steps:
        if step.WhichOneof("value") == "key":
            key = step.key
        else:
            pairs.append((key, int(step.index)))
    return pairs or [(key, 0)]
