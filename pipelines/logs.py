"""What components print and log, kept in one file per execution."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""What a line of a log looks like."""

_here = threading.local()
_open: list[TextIO] = []  # the run's own log first, then those of executions
_lock = threading.RLock()


def _targets() -> list[TextIO]:
    """Return the logs that this thread's words belong to.

    A thread that a component started itself (Beam does) is not known here; its words
    go to every execution that runs just now, which is mostly one, or to the run's
    own log.
    """
    mine: TextIO | None = getattr(_here, "log", None)
    if mine is not None and mine in _open:
        return [mine]
    return _open[1:] or _open[:1]


def _keep(text: str) -> bool:
    """Write into the logs that this thread's words belong to; say if there are any."""
    with _lock:  # so that no log is closed meanwhile
        targets = _targets()
        for log in targets:
            log.write(text)
            log.flush()
        return bool(targets)


class _Tee(io.TextIOBase):
    """Stands in for stdout or stderr while components run."""

    def __init__(self, terminal: TextIO, *, verbose: bool) -> None:
        self.terminal = terminal
        self.verbose = verbose

    def write(self, text: str) -> int:
        is_kept = not getattr(_here, "outside", False) and _keep(text)
        if self.verbose or not is_kept:
            self.terminal.write(text)
        return len(text)

    def flush(self) -> None:
        self.terminal.flush()

    def close(self) -> None:
        """Leave the terminal open: it is somebody else's, and may be gone first."""

    def isatty(self) -> bool:
        return self.terminal.isatty()

    def fileno(self) -> int:
        return self.terminal.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.terminal.encoding


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _keep(self.format(record) + "\n")


@contextmanager
def collecting(path: Path, *, verbose: bool) -> Iterator[None]:
    """Send what components print and log to their executions while this is open.

    Args:
        path: The run's own log, for what belongs to no execution.
        verbose: Also print it, as it comes.
    """
    stdout, stderr = sys.stdout, sys.stderr
    handler = _Handler(level=logging.INFO)
    handler.setFormatter(logging.Formatter(LINE))
    root, ours = logging.getLogger(), logging.getLogger("penstock")
    before = ours.level
    sys.stdout = _Tee(stdout, verbose=verbose)
    sys.stderr = _Tee(stderr, verbose=verbose)
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as log:
            _open.insert(0, log)
            try:
                yield
            finally:
                with _lock:
                    _open.remove(log)
    finally:
        ours.setLevel(before)
        root.removeHandler(handler)
        sys.stdout, sys.stderr = stdout, stderr


@contextmanager
def kept_in(path: Path) -> Iterator[TextIO]:
    """Keep what this thread prints and logs in a file.

    Args:
        path: The file, appended to.
    """
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as log:
        _here.log = log
        with _lock:
            _open.append(log)
        try:
            yield log
        finally:
            with _lock:
                _open.remove(log)
            _here.log = None


@contextmanager
def outside() -> Iterator[None]:
    """Let this thread's own words reach the terminal: it runs no component."""
    _here.outside = True
    try:
        yield
    finally:
        _here.outside = False
