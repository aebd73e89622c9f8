"""The user's own modules: found by path or file, imported, blamed where they raise."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from penstock.schemas.errors import PenstockError, PipelineError


def load_module(place: str, what: str) -> ModuleType:
    """Return the module of a path such as 'package.module', or of a file.

    Args:
        place: The module path, or a file that ends in '.py'.
        what: What is looked for in it, as sentences name it.

    Raises:
        PipelineError: If there is none, or it cannot be imported.
    """
    import importlib
    import importlib.util

    sys.path.insert(0, os.getcwd())
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise PipelineError(f"There is no file '{place}'. Check the path.")
        sys.path.insert(0, str(path.absolute().parent))
        place = path.stem
    try:
        found = importlib.util.find_spec(place)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise PipelineError(
            f"There is no module '{place}' on Python's path. Check its name, or name "
            f"a file, as in path/to/module.py:{what}."
        )
    with users_code(f"Module '{place}' cannot be imported"):
        return importlib.import_module(place)


@contextmanager
def users_code(subject: str) -> Iterator[None]:
    """Say where the user's own code raised: that is no defect of penstock."""
    from penstock.pipelines.failures import frame_of

    try:
        yield
    except PenstockError:
        raise
    except Exception as error:
        if isinstance(error, SyntaxError):
            text, path, line = error.msg, error.filename, error.lineno
        else:
            frame = frame_of(error.__traceback__)
            assert frame is not None
            text, path, line = str(error), frame.filename, frame.lineno
        raise PipelineError(
            f"{subject}: {type(error).__name__}{': ' if text else ''}{text} ({path}, "
            f"line {line}). Mend it and run again."
        ) from error
