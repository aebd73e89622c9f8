"""Where the files of a decision lie, and the lock of whoever carries it out."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.02


def log_path(folder: Path, run_id: str) -> Path:
    """Return the file that the process of a run prints to."""
    return folder / "logs" / f"{run_id}.log"


def decision_dir(folder: Path, run_id: str) -> Path:
    """Return the folder of the artifact that stands for a decision in the lineage."""
    return folder / "decisions" / run_id


@contextmanager
def carrying_out(
    folder: Path, run_id: str, *, wait_seconds: float = 0.0
) -> Iterator[bool]:
    """Be the one who carries out a decision, unless somebody else is.

    The kernel frees the lock when a process dies, however it does.

    Args:
        folder: Where the journal lies.
        run_id: The run of the decision.
        wait_seconds: How long to wait for somebody who only looks.

    Yields:
        Whether nobody else is.
    """
    path = folder / "locks" / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _is_locked(descriptor, time.monotonic() + wait_seconds)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, ends: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True
