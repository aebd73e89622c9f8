"""One turn after another at an SQLite file that several processes use.

ml_metadata waits for a held SQLite file itself, for seconds on end and without letting
go of the interpreter: no signal, no other thread gets through. So it is only called
when it is this process's turn and nobody else holds the file.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

# SQLite's lock bytes: pending, reserved, and 510 of which readers take one.
_SQLITE_BYTES = (0x40000000, 512)


@dataclasses.dataclass(frozen=True)
class _File:
    """A file as this process has it open, and which of its threads has the turn.

    The descriptor is never closed: closing any descriptor of a file drops all locks
    that this process holds on it, those of ml_metadata among them.
    """

    descriptor: int
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


_FILES: dict[tuple[int, int], _File] = {}
_FILES_LOCK = threading.Lock()


@contextmanager
def turn(path: Path) -> Iterator[bool]:
    """Take the turn at a file, if it can be had just now.

    Args:
        path: The file. Where there is none, or none that can be opened, nobody else
            uses it.

    Yields:
        Whether the file is this process's until the end of the block.
    """
    file, _ = _opened(path)
    if file is None or sys.platform != "linux":
        yield True
        return
    with file.lock:
        if not _lock(file):
            yield False
            return
        try:
            yield not _is_held(file)
        finally:
            fcntl.flock(file.descriptor, fcntl.LOCK_UN)


def is_other_database(path: Path) -> bool:
    """Return whether an SQLite file holds tables, but none of ML Metadata.

    Looked at once per process, before ml_metadata holds locks on it. ml_metadata itself
    would put its tables beside the others.

    Args:
        path: The file.
    """
    import sqlite3

    _, is_new = _opened(path)
    if not is_new:
        return False
    # Immutable: without locks, which another process may hold.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            rows = database.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError:
        return False  # no database at all: opening it says so
    names = {name for (name,) in rows}
    return bool(names) and not names & {"MLMDEnv", "Artifact"}


def _opened(path: Path) -> tuple[_File | None, bool]:
    """Return a file as this process has it open, and whether it is new to it."""
    try:
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        with _FILES_LOCK:
            is_new = key not in _FILES
            if is_new:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                _FILES[key] = _File(descriptor)
            return _FILES[key], is_new
    except OSError:
        return None, False  # not there yet, or not readable: opening it says so


def _lock(file: _File) -> bool:
    """Lock the whole file, as SQLite never does; return whether that was possible."""
    try:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without such locks (NFS): everybody has the turn
    return True


def _is_held(file: _File) -> bool:
    """Return whether another process reads or writes the file just now."""
    layout = "hhqqi"  # struct flock of Linux
    wanted = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, *_SQLITE_BYTES, 0)
    found = fcntl.fcntl(file.descriptor, fcntl.F_GETLK, wanted)
    return bool(struct.unpack(layout, found)[0] != fcntl.F_UNLCK)
