"""The text of what was defined in a notebook, as if it were a module.

The cells are in memory alone. Of each name that is needed, what it stands for now is
written down: a definition as its cell has it, a module or what is of one as an import,
data as they are.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import types
from collections.abc import Iterable
from typing import Any

from penstock.components.base import frozen
from penstock.pipelines.encoding import text_of
from penstock.schemas.errors import PipelineError


def session_text(session: types.ModuleType, names: Iterable[str]) -> str:
    """Return the text of definitions, and of all that they refer to.

    Args:
        session: The module of an interactive session.
        names: Names of classes and functions in it.

    Raises:
        LookupError: If the text of one was not kept.
    """
    left, texts = list(names), dict[str, str]()
    while left:
        name = left.pop()
        if name in texts or name not in vars(session):
            continue
        texts[name] = _text(session, name, vars(session)[name])
        for node in ast.walk(ast.parse(texts[name])):
            if isinstance(node, ast.Name):
                left.append(node.id)
    return "\n".join(texts[name] for name in sorted(texts))


def _text(session: types.ModuleType, name: str, value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"import {value.__name__} as {name}"
    if isinstance(value, type | types.FunctionType):
        if value.__module__ != session.__name__:
            first = value.__qualname__.partition(".")[0]
            return f"from {value.__module__} import {first} as {name}"
        if value.__name__ != name and value.__name__ in vars(session):
            return f"{name} = {value.__name__}"
        return _definition(value)
    try:
        return f"{name} = {text_of(frozen(value, name))!r}"
    except PipelineError:
        return f"{name} = {type(value).__name__}()"  # its class, at least


def _definition(value: type | types.FunctionType) -> str:
    """Return a definition as its cell has it."""
    members = vars(value).values() if isinstance(value, type) else [value]
    for each in members:
        function = inspect.unwrap(getattr(each, "fget", None) or each)
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is None:
            continue
        lines = linecache.getlines(code.co_filename)
        for node in ast.parse("".join(lines)).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            first = min(each.lineno for each in (node, *node.decorator_list))
            last = node.end_lineno or 0
            if node.name == value.__name__ and first <= code.co_firstlineno <= last:
                return ast.unparse(node)
    raise LookupError(value.__name__)
