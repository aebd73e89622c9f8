"""Writing through to the disk, so that what is recorded survives a power cut; locks."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from penstock.schemas.errors import PipelineError

_DESCRIPTORS: set[int] = set()
_LOCK = threading.Lock()


def sync_folder(folder: Path) -> None:
    """Write a folder's files and names, at every depth, through to the disk.

    Raises:
        OSError: If the disk is full or fails.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root, name))
        sync(Path(root))


def sync(path: Path) -> None:
    """Write one file, or the names in one folder, through to the disk.

    Raises:
        OSError: If the disk is full or fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing_below(root: str | Path) -> Iterator[None]:
    """Turn what keeps penstock from writing below a root into a sentence.

    Args:
        root: Folder that artifacts lie in, as the user named it.

    Raises:
        PipelineError: Instead of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        where = f": '{error.filename}'" if error.filename else ""  # fsync names none
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = (
            "Free some space and run again."
            if is_full
            else "Choose a folder that you may write to."
        )
        raise PipelineError(
            f"Root '{root}' cannot be written: {error.strerror}{where}. {remedy}"
        ) from error


@contextmanager
def to_lock(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or folder that is to be locked; closing it frees the lock.

    The kernel frees a lock when the last process that has the descriptor is gone, and a
    fork would have it: what a component forked and left behind would hold the locks of
    a run that was killed.

    Args:
        path: The file or folder.
        flags: As of `os.open`.

    Yields:
        The descriptor, which no child process has.

    Raises:
        OSError: If it cannot be opened.
    """
    _heed_forks()
    with _LOCK:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
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


@cache
def _heed_forks() -> None:
    os.register_at_fork(
        before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_forget
    )
