"""Locks of a serving directory: the kernel's, which frees them when a process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from penstock.components.serving.place import control
from penstock.schemas.errors import ServingError

_LOCK_WAIT_SECONDS = 120.0
_LOCK_POLL_SECONDS = 0.01


@contextlib.contextmanager
def locked(directory: str, progress: Callable[[], object]) -> Iterator[None]:
    """Let nobody else give a number, or rename a version.

    Args:
        directory: The serving directory.
        progress: Called while waiting; may raise to stop.

    Raises:
        ServingError: If somebody else holds the lock for too long.
    """
    path = control(directory, "lock")
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS

    def wait() -> None:
        progress()
        if time.monotonic() > deadline:
            raise ServingError(
                f"Serving directory '{directory}' has been locked by another push for "
                f"{_LOCK_WAIT_SECONDS:g} seconds. End the process that holds '{path}', "
                "and push again."
            )

    with file_lock(path, wait):
        yield


@contextlib.contextmanager
def file_lock(path: str, wait: Callable[[], object]) -> Iterator[None]:
    """Hold a file's lock; the file is made.

    Args:
        path: The file.
        wait: Called again and again while somebody else holds it; may raise to stop.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not flock(descriptor):
                wait()
                time.sleep(_LOCK_POLL_SECONDS)
            if _same_file(descriptor, path):
                yield
                return
            # Somebody removed the file while we waited: this lock excludes nobody.
        finally:
            # Closing alone would leave it locked if another thread forked meanwhile.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def flock(descriptor: int) -> bool:
    """Lock an open file; return False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(descriptor: int, path: str) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
