"""Files and folders that are opened to be locked, by this process alone.

The kernel frees a lock when the last process that has the descriptor is gone, and a
fork has them all: what a component forked and left behind would hold the locks of a
run that was killed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DESCRIPTORS: set[int] = set()
_LOCK = threading.Lock()


@contextmanager
def to_lock(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or folder that is to be locked; closing it frees the lock.

    Args:
        path: The file or folder.
        flags: As of `os.open`.

    Yields:
        The descriptor, which no child process has.

    Raises:
        OSError: If it cannot be opened.
    """
    with _LOCK:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
        _DESCRIPTORS.add(descriptor)
    try:
        yield descriptor
    finally:
        with _LOCK:
            if descriptor in _DESCRIPTORS:  # not in a fork
                _DESCRIPTORS.remove(descriptor)
                os.close(descriptor)


def _forget() -> None:
    for descriptor in _DESCRIPTORS:
        os.close(descriptor)
    _DESCRIPTORS.clear()
    _LOCK.release()


os.register_at_fork(
    before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_forget
)
