"""Parameters as JSON data that says what they were, so that they can be made again.

The same value always gives the same text: it is hashed. Numbers, text, True, False and
None are themselves; all else is an object with one tag. The order of a dict is a part
of the value: whoever goes through it goes by it.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import importlib
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.schemas.errors import PipelineError


def text_of(value: Any) -> str:
    """Return a parameter as one line of JSON."""
    # In ASCII, so that text that is no Unicode (names of files) can be kept too.
    return json.dumps(encoded(value), separators=(",", ":"))


def encoded(value: Any) -> Any:
    """Return a parameter as JSON data.

    Args:
        value: What `penstock.components.base.frozen` lets a component keep.
    """
    if isinstance(value, enum.Enum):
        return {"enum": _place(type(value)), "name": value.name}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # JSON has neither NaN nor a difference between 1.0 and 1.
        return {"float": repr(float(value))}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Mapping):
        return {"dict": {key: encoded(each) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [encoded(each) for each in value]
    if isinstance(value, types.FunctionType):
        return {"function": _place(value)}
    if hasattr(value, "DESCRIPTOR"):
        # Deterministic within a process only for maps: hence sorted.
        body = value.SerializeToString(deterministic=True)
        return {
            "proto": _place(type(value)),
            "bytes": base64.b64encode(body).decode(),
        }
    assert dataclasses.is_dataclass(value), type(value)
    return {
        "dataclass": _place(type(value)),
        "fields": {
            each.name: encoded(getattr(value, each.name))
            for each in dataclasses.fields(value)
            if each.init
        },
    }


def decoded(data: Any) -> Any:
    """Return the parameter that `encoded` made data of.

    Raises:
        PipelineError: If it names a class or function that is not there.
    """
    if isinstance(data, list):
        return tuple(decoded(each) for each in data)
    if not isinstance(data, dict):
        return data
    if "float" in data:
        return float(data["float"]) if data["float"] != "nan" else math.nan
    if "path" in data:
        return Path(data["path"])
    if "dict" in data:
        return {key: decoded(each) for key, each in data["dict"].items()}
    if "enum" in data:
        return getattr(_found(data["enum"]), data["name"])
    if "function" in data:
        return _found(data["function"])
    if "proto" in data:
        message = _found(data["proto"])()
        message.ParseFromString(base64.b64decode(data["bytes"]))
        return message
    if "dataclass" in data:
        fields = {key: decoded(each) for key, each in data["fields"].items()}
        return _found(data["dataclass"])(**fields)
    return base64.b64decode(data["bytes"])


def _place(owner: Any) -> str:
    return f"{owner.__module__}:{owner.__qualname__}"


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise PipelineError(
            f"'{place}', which a recorded parameter needs, cannot be imported: "
            f"{error}. Put its module where Python finds it."
        ) from error
    return found
