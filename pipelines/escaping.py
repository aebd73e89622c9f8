"""Backslashes on their way into PostgreSQL and back.

ml_metadata puts text that has a backslash into its SQL such that the rest of the text
is taken for SQL too: an error at best. So none may get there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_MARK = "\N{REVERSE SOLIDUS OPERATOR}"


def escaped(text: str) -> str:
    """Return text without backslashes, of which `unescaped` makes the text again."""
    return text.replace(_MARK, _MARK * 2).replace("\\", f"{_MARK}/")


def unescaped(text: str) -> str:
    """Return the text that `escaped` was given."""
    return re.sub(
        f"{_MARK}([{_MARK}/])",
        lambda found: "\\" if found[1] == "/" else _MARK,
        text,
    )


def without_backslashes(
    call: Callable[[str, Any, Any], None],
) -> Callable[[str, Any, Any], None]:
    """Return a call of ml_metadata that escapes what is asked, and undoes it after.

    Args:
        call: What takes a method's name, the request and, to be filled, the response.
    """

    def escaping(method: str, request: Any, response: Any) -> None:
        sent = request.SerializeToString()
        if b"\\" in sent or _MARK.encode() in sent:
            # A copy, because a request is used again for the next page.
            asked = type(request)()
            asked.CopyFrom(request)
            _rewrite(asked, escaped)
            request = asked
        call(method, request, response)
        if _MARK.encode() in response.SerializeToString():
            _rewrite(response, unescaped)

    return escaping


def _rewrite(message: Any, change: Callable[[str], str]) -> None:
    """Change all text in a protocol buffer, keys among it."""
    for field, value in message.ListFields():
        is_nested = field.message_type is not None
        if isinstance(value, str):
            setattr(message, field.name, change(value))
        elif is_nested and field.message_type.GetOptions().map_entry:
            _rewrite_map(value, change)
        elif is_nested and hasattr(value, "DESCRIPTOR"):
            _rewrite(value, change)
        elif is_nested:
            for each in value:
                _rewrite(each, change)
        elif field.type == field.TYPE_STRING:
            value[:] = [change(each) for each in value]


def _rewrite_map(entries: Any, change: Callable[[str], str]) -> None:
    for key in list(entries):
        value = entries[key]
        if hasattr(value, "DESCRIPTOR"):
            _rewrite(value, change)
        new = change(key) if isinstance(key, str) else key
        if new != key:
            if hasattr(value, "DESCRIPTOR"):
                entries[new].CopyFrom(value)
            else:
                entries[new] = value
            del entries[key]
