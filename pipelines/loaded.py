"""Whether the code that is loaded is the code that the files say.

In a notebook or a server, a module may have been edited after it was imported. What
would run is then the old code, and a fingerprint made of the file would lie about it.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import os
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

from penstock.pipelines.code import Code, SourceFile
from penstock.pipelines.syntax import LOOSE, WHOLE
from penstock.schemas.errors import PipelineError

_STARTED = time.time()


def check_loaded(code: Code) -> None:
    """Check that what is loaded is what a component's code was read from.

    Only files that changed while this process ran are looked at.

    Raises:
        PipelineError: If one was edited after it was imported.
    """
    for module, file in code.files.items():
        loaded = sys.modules.get(module)
        if loaded is None or not _is_same_file(loaded, file):
            continue
        status = os.stat(file.path)
        if max(status.st_mtime, status.st_ctime) < _STARTED:
            continue
        prefix = f"{module}."
        for symbol in code.symbols:
            name = symbol.removeprefix(prefix)
            if symbol.startswith(prefix) and "." not in name:
                _check(loaded, name, file)


def _is_same_file(module: types.ModuleType, file: SourceFile) -> bool:
    path = getattr(module, "__file__", None)
    return bool(path) and os.path.realpath(str(path)) == os.path.realpath(file.path)


def _check(module: types.ModuleType, name: str, file: SourceFile) -> None:
    if name in (LOOSE, WHOLE):
        return
    tree = ast.parse(file.source)
    said = next((each for each in tree.body if name in _names(each)), None)
    if said is None:
        return
    missing = object()
    found = getattr(module, name, missing)
    if found is missing or not _is_as_said(found, said, module.__name__, _flags(tree)):
        raise PipelineError(
            f"'{name}' in '{file.path}' was edited after this process imported it: "
            "what would run is not what the file says. Start a new process, or reload "
            "the module."
        )


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [each.id for each in statement.targets if isinstance(each, ast.Name)]
    return []


def _flags(tree: ast.Module) -> int:
    """Return how a module asks to be compiled by its imports from `__future__`."""
    flags = 0
    for each in tree.body:
        if isinstance(each, ast.ImportFrom) and each.module == "__future__":
            for name in each.names:
                flags |= getattr(__future__, name.name).compiler_flag
    return flags


def _is_as_said(found: Any, said: ast.stmt, module: str, flags: int) -> bool:
    if isinstance(said, ast.Assign):
        try:
            return bool(found == ast.literal_eval(said.value))
        except (ValueError, TypeError):
            return True  # no literal: what it refers to is looked at by itself
    loaded = {key: _essence(each) for key, each in _codes_of(found, module)}
    compiled = compile(
        ast.Module([said], []), "said", "exec", flags=flags, dont_inherit=True
    )
    now = {key: _essence(each) for key, each in _nested(compiled, "")}
    return all(now.get(key, essence) == essence for key, essence in loaded.items())


def _codes_of(found: Any, module: str) -> Iterator[tuple[str, types.CodeType]]:
    """Yield the code of a function, or of the methods of a class, by qualified name."""
    if inspect.isclass(found):
        for each in vars(found).values():
            yield from _codes_of(each, module)
        return
    for part in ("fget", "fset", "__func__"):
        if hasattr(found, part) and getattr(found, part) is not None:
            found = getattr(found, part)
    found = inspect.unwrap(found) if callable(found) else found
    if inspect.isfunction(found) and found.__module__ == module:
        yield found.__qualname__, found.__code__


def _nested(code: types.CodeType, prefix: str) -> Iterator[tuple[str, types.CodeType]]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield prefix + each.co_name, each
            yield from _nested(each, f"{prefix}{each.co_name}.")


def _essence(code: types.CodeType) -> tuple[Any, ...]:
    """Return what a code object does, without where it stands."""
    constants = tuple(
        _essence(each) if isinstance(each, types.CodeType) else (type(each), each)
        for each in code.co_consts
    )
    return code.co_code, code.co_names, code.co_varnames, constants
