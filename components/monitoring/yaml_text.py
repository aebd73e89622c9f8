"""Plain data as YAML, for files that people read and edit afterwards."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n"])


def yaml(data: Mapping[str, Any], comment: str = "") -> str:
    """Return data as the text of a file.

    Args:
        data: Mappings and lists, and text, numbers, booleans and None in them.
        comment: Lines that stand before it.
    """
    head = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join([*head, *_lines(data)]) + "\n"


def _lines(data: Any) -> list[str]:
    if isinstance(data, Mapping) and data:
        lines = []
        for key, value in data.items():
            inner = _lines(value)
            if isinstance(value, Mapping | list | tuple) and value:
                lines += [f"{_scalar(str(key))}:", *(f"  {line}" for line in inner)]
            else:
                lines += [f"{_scalar(str(key))}: {inner[0]}", *inner[1:]]
        return lines
    if isinstance(data, list | tuple) and data:
        lines = []
        for value in data:
            first, *rest = _lines(value)
            if isinstance(value, str):
                rest = [line.removeprefix("  ") for line in rest]
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    if isinstance(data, Mapping):
        return ["{}"]
    if isinstance(data, list | tuple):
        return ["[]"]
    if isinstance(data, str) and _is_block(data):
        return ["|-", *(f"  {line}" for line in data.split("\n"))]
    return [_scalar(data)]


def _is_block(text: str) -> bool:
    """Return whether text can be shown as lines and comes back as it is."""
    lines = text.split("\n")
    return len(lines) > 1 and all(
        line == line.strip(" ") and line.isprintable() and line for line in lines
    )


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(value)
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    number = ord(letter)
    if 0xD800 <= number < 0xE000:
        return "\\uFFFD"  # half a letter, which no file can hold
    if letter.isprintable():
        return letter
    if number < 0x100:
        return f"\\x{number:02X}"
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
