"""What a JSON Schema says of a value, in a sentence: the part of it that we use.

The keywords are those of `KEYWORDS`; a schema with others is refused, so that nothing
is left unchecked. Unlike most readers of schemas this one calls the place by its path,
offers near misses, and needs no package.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.schemas.errors import did_you_mean, quoted

KEYWORDS = frozenset(
    {
        "additionalProperties",
        "const",
        "enum",
        "items",
        "maximum",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "$ref",
    }
)
"""Keywords that are checked."""

_REMARKS = frozenset({"$schema", "$id", "$defs", "title", "description"})

_NOUNS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a text",
}


def fault(value: Any, schema: Mapping[str, Any]) -> str:
    """Return a sentence on the first place where a value breaks a schema, or nothing.

    Args:
        value: Plain values, as JSON has them.
        schema: A JSON Schema (2020-12) of `KEYWORDS`, with references within itself.

    Raises:
        ValueError: If the schema has another keyword where the value leads to.
    """
    return _fault(value, schema, schema, "")


def _fault(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], path: str
) -> str:
    if others := schema.keys() - KEYWORDS - _REMARKS:
        raise ValueError(f"The schema says {quoted(others)} of '{path}', unknown here.")
    if reference := schema.get("$ref"):
        found: Mapping[str, Any] = root["$defs"][reference.removeprefix("#/$defs/")]
        if sentence := _fault(value, found, root, path):
            return sentence
    return (
        _fault_of_type(value, schema, path)
        or _fault_of_value(value, schema, path)
        or _fault_of_parts(value, schema, root, path)
    )


def _fault_of_type(value: Any, schema: Mapping[str, Any], path: str) -> str:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not kinds or any(_is_of(value, kind) for kind in kinds):
        return ""
    return (
        f"{_place(path)} is {_shown(value)} where "
        f"{' or '.join(_NOUNS[kind] for kind in kinds)} belongs. Mend what wrote it."
    )


def _is_of(value: Any, kind: str) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_whole or (isinstance(value, float) and math.isfinite(value))
    match kind:
        case "array":
            return isinstance(value, list)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return is_number and value == int(value)
        case "null":
            return value is None
        case "number":
            return is_number
        case "object":
            return isinstance(value, dict)
        case _:
            return isinstance(value, str)


def _fault_of_value(value: Any, schema: Mapping[str, Any], path: str) -> str:
    legal: Sequence[Any] = schema.get("enum", [])
    if "const" in schema:
        legal = [schema["const"]]
    if legal and not any(_equal(value, each) for each in legal):
        names = [each for each in legal if isinstance(each, str)]
        near = did_you_mean(value, names) if isinstance(value, str) else ""
        listed = ", ".join(_shown(each) for each in legal)
        return f"{_place(path)} is {_shown(value)}, not one of {listed}.{near}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return f"{_place(path)} is empty. Give it a name."
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return (
                f"{_place(path)} is {_shown(value)}, which is not of the form "
                f"{schema['pattern']}. Mend what wrote it."
            )
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", -math.inf):
            return (
                f"{_place(path)} is {_shown(value)}, below the least that is possible, "
                f"{schema['minimum']}. Mend what wrote it."
            )
        if value > schema.get("maximum", math.inf):
            return (
                f"{_place(path)} is {_shown(value)}, above the most that is possible, "
                f"{schema['maximum']}. Mend what wrote it."
            )
    return ""


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _fault_of_parts(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], path: str
) -> str:
    if isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            if sentence := _fault(each, schema["items"], root, f"{path}[{index}]"):
                return sentence
    if not isinstance(value, dict):
        return ""
    properties = schema.get("properties", {})
    for key in schema.get("required", []):
        if key not in value:
            near = did_you_mean(key, value.keys() - properties.keys())
            return f"{_place(path)} lacks '{key}'.{near or ' Add it.'}"
    rest = schema.get("additionalProperties", {})
    for key, each in value.items():
        below = f"{path}.{key}" if path else key
        if sentence := _fault(each, properties.get(key, rest), root, below):
            return sentence
    return ""


def _place(path: str) -> str:
    return f"'{path}'" if path else "it"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value[:60]}…'" if len(value) > 60 else f"'{value}'"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return json.dumps(value, default=lambda each: f"a {type(each).__name__}")
