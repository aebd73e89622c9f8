"""Where something failed, and what is said of it."""

from __future__ import annotations

import errno
import os
import re
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from types import TracebackType

from penstock.components.base import Component
from penstock.schemas.errors import PenstockError

_OURS = os.path.abspath(Path(__file__).parents[1]) + os.sep


# Without a bound: all modules are asked one after the other, over and over, and of more
# than a bounded cache holds it would know none.
@cache
def is_installed(path: str) -> bool:
    """Return whether a file is Python's own or an installed library's."""
    real = os.path.realpath(path)
    parts = Path(real).parts
    return (
        "site-packages" in parts
        or "dist-packages" in parts
        or any(
            real.startswith(os.path.realpath(sysconfig.get_path(each)) + os.sep)
            for each in ("stdlib", "platstdlib")
        )
    )


def frame_of(raised_at: TracebackType | None) -> traceback.FrameSummary | None:
    """Return the frame in which the user's code raised.

    Args:
        raised_at: The traceback of the exception.

    Returns:
        Of the frames the innermost that is the user's; if there is none, the innermost
        of penstock; else the innermost of all.
    """
    frames = traceback.extract_tb(raised_at)
    ours = [each for each in frames if _is_ours(each.filename)]
    users = [each for each in frames if _is_users(each.filename)]
    return next(reversed(users or ours or list(frames)), None)


def place_of(raised_at: TracebackType | None) -> str:
    """Return the function and line where the user's code raised; see `frame_of`."""
    frame = frame_of(raised_at)
    if frame is None:
        return "an unknown place"
    return f"{frame.name} ({Path(frame.filename).name}, line {frame.lineno})"


def _is_ours(path: str) -> bool:
    return os.path.abspath(path).startswith(_OURS)


def _is_users(path: str) -> bool:
    # A cell of a notebook is no file, and no file's name either.
    is_generated = path.startswith("<frozen") or path == "<string>"
    return not (is_generated or is_installed(path) or _is_ours(path))


def sentence_of(component: Component, error: BaseException, attempts: int = 1) -> str:
    """Return what is said of a component that failed.

    Args:
        component: The component.
        error: What it, or something that it needed, raised.
        attempts: How often it was tried.
    """
    subject = f"'{component.name}' failed"
    if attempts > 1:
        subject += f" {attempts} times, last"
    if isinstance(error, PenstockError):
        # Beam appends the label of its transform to whatever a worker raises.
        text = re.sub(r" \[while running '.*'\]$", "", str(error))
        return f"{subject}: {text}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        filename = getattr(error, "filename", None)
        where = f" of '{filename}'" if filename else ""
        return (
            f"{subject}: the disk{where} is full. Free some space and run again; "
            "nothing half-written is left."
        )
    kind = getattr(error, "type_name", "") or type(error).__name__
    text = getattr(error, "message_text", "") or str(error)
    place = getattr(error, "place", "") or place_of(error.__traceback__)
    return f"{subject} in {place}: {kind}{': ' if text else ''}{text}"
