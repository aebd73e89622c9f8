"""Loading a module file of the user's, siblings and all."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.schemas.errors import PipelineError, did_you_mean, quoted


@contextlib.contextmanager
def function_of(path: Path, name: str) -> Iterator[Callable[..., Any]]:
    """Load a module file and give one of its functions.

    While the context is open the file's folder comes first on `sys.path`, so that the
    modules beside it can be imported, at its top or inside its functions. On leaving,
    they are forgotten: another file's siblings may have the same names.

    Args:
        path: The file.
        name: Name of the function.

    Raises:
        PipelineError: If there is no such file, or no such function in it.
    """
    if not path.is_file():
        near = [each.name for each in path.parent.glob("*.py")]
        raise PipelineError(
            f"Module file '{path}' does not exist. Pass the path of a Python file that "
            f"defines {name}(fn_args).{did_you_mean(path.name, near)}"
        )
    folder = str(path.parent.resolve())
    before = set(sys.modules)
    # Another list each time: who imports in another thread goes through the old one,
    # and would miss an entry if those before it moved.
    sys.path = [folder, *sys.path]
    try:
        yield _function(_loaded(path), path, name)
    finally:
        place = sys.path.index(folder)
        sys.path = [*sys.path[:place], *sys.path[place + 1 :]]
        for module in set(sys.modules) - before:
            origin = getattr(sys.modules[module], "__file__", None)
            if origin and Path(origin).resolve().is_relative_to(folder):
                del sys.modules[module]


def _loaded(path: Path) -> ModuleType:
    # Registered under its own name, as an import would: dataclasses, pickle and Keras
    # look their classes up there. A name that is taken (a file named `types.py`) is
    # never taken over.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_module_file"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PipelineError(
            f"Module file '{path}' is no Python file. Pass one that ends in '.py'."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if inspect.isroutine(found):
        function: Callable[..., Any] = found
        return function
    names = [
        each
        for each, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    raise PipelineError(
        f"Module file '{path}' has no function '{name}' (it has {quoted(names)}). "
        f"Define {name}(fn_args).{did_you_mean(name, names)}"
    )
