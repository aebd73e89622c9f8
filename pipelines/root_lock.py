"""The lock of a root, which keeps runs and housekeeping out of each other's way.

Whoever relies on what lies below a root holds it shared: a run for as long as it lives,
because any artifact may be the next thing that it takes from the cache. Whoever deletes
holds it alone. The kernel frees it when a process dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from penstock.pipelines.disk import to_lock, writing_below
from penstock.schemas.errors import PipelineError, quoted

_POLL_SECONDS = 0.05


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Let nothing below a root be deleted meanwhile; wait while something just is.

    Args:
        root: Folder that artifacts lie in.
    """
    with _opened(root) as descriptor:
        if not _is_locked(descriptor, fcntl.LOCK_SH):
            logging.getLogger("penstock").warning(
                "Waiting for 'penstock gc', which deletes below '%s'.", root
            )
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def unused(root: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a root alone, to delete below it.

    Args:
        root: Folder that artifacts lie in.
        wait_seconds: How long to wait while it is in use.

    Raises:
        PipelineError: If it is in use for longer.
    """
    with _opened(root) as descriptor:
        ends = time.monotonic() + wait_seconds
        while not (_is_locked(descriptor, fcntl.LOCK_EX) and not runs_going_on(root)):
            # Not kept while waiting: a run that it kept waiting would never end.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            if time.monotonic() >= ends:
                raise _in_use(root)
            time.sleep(_POLL_SECONDS)
        yield


def runs_going_on(root: Path) -> list[str]:
    """Return the ids of the runs below a root that live, whatever the store says.

    Args:
        root: Folder that artifacts lie in.
    """
    folders = (root / ".penstock" / "runs").glob("[!.]*")
    return sorted(each.name for each in folders if is_going_on(each))


def is_going_on(folder: Path) -> bool:
    """Return whether the run lives that a folder of `.penstock/runs` belongs to.

    Args:
        folder: The run's own folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False  # removed meanwhile
    try:
        return not _is_locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    folder = root / ".penstock"
    with ExitStack() as opened:
        with writing_below(root):
            folder.mkdir(parents=True, exist_ok=True)
            file = to_lock(folder / "gc.lock", os.O_RDWR | os.O_CREAT)
            descriptor = opened.enter_context(file)
        yield descriptor


def _is_locked(descriptor: int, kind: int) -> bool:
    """Take a lock if it is free; return whether it is held now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_use(root: Path) -> PipelineError:
    runs = runs_going_on(root)
    who = f"run{'s' * (len(runs) > 1)} {quoted(runs)}" if runs else "another process"
    return PipelineError(
        f"Root '{root}' is in use by {who}, which may need what would be deleted. Wait "
        "until that ends, or say with --wait SECONDS how long to wait for it."
    )
