"""What verbs print to and how, and the exit codes."""

from __future__ import annotations

import json
import os
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.schemas.artifacts import Answer


DONE, ERROR, USAGE, SAID_NO, NOT_ENOUGH_DATA, CANCELED = 0, 1, 2, 3, 4, 130
"""Exit codes."""


def new_console(*, stderr: bool = False) -> Console:
    """Return where to print; what goes to a file or a pipe is not cut to a width."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if terminal else 500)


def print_json(value: Any) -> None:
    """Print a value as JSON, what JSON does not know as text."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def when(seconds: float | None) -> str:
    """Return a time, in seconds since 1970, as tables show it."""
    from datetime import datetime

    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def took(seconds: float | None) -> str:
    """Return a length of time as tables show it."""
    return "" if seconds is None else f"{seconds:.1f} s"


_STYLES = {
    "complete": "green",
    "cached": "green",
    "failed": "red",
    "abandoned": "red",
    "skipped": "yellow",
    "stopped": "yellow",
    "canceled": "yellow",
    "running": "cyan",
}


def styled(state: str) -> str:
    """Return a state in its color, as markup of Rich."""
    return f"[{_STYLES.get(state, 'white')}]{state}[/]"


def interrupt(*_: Any) -> None:
    """Do at SIGTERM what is done at Ctrl-C."""
    raise KeyboardInterrupt


def answer_code(answer: Answer) -> int:
    """Return the exit code that says what a verdict said."""
    return {"yes": DONE, "no": SAID_NO}.get(answer.value, NOT_ENOUGH_DATA)


@contextmanager
def noise_kept(root: Path, *, verbose: bool) -> Iterator[TextIO]:
    """Keep what libraries write to stderr off the terminal, in a file of the root.

    TensorFlow's native parts write to file descriptor 2 whatever Python's stderr is,
    and Beam's imports warn on every start.

    Yields:
        The real stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    folder = root / ".penstock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:
        # The run itself says, in a sentence, that the root cannot be written.
        log = os.open(os.devnull, os.O_WRONLY)
    if verbose:
        os.close(log)
        yield sys.stderr
        return
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        os.dup2(log, 2)
        os.close(log)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)


def plain(text: str) -> str:
    """Return text as it is, for a place where Rich looks for markup."""
    from rich.markup import escape

    return escape(text)


def short(value: Any) -> str:
    """Return a value as tables show it: of a digest and of much text, the beginning."""
    text = "–" if value is None else str(value)
    digest = text.removeprefix("sha256:")
    if len(digest) == 64 and set(digest) <= set(string.hexdigits):
        return digest[:12]
    return text if len(text) <= 60 else f"{text[:60]}…"
