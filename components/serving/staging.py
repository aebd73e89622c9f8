"""Staging folders: each belongs to one push, and is removed when that is dead."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator

from penstock.components.serving.durable import make_folder
from penstock.components.serving.locks import flock, locked
from penstock.components.serving.place import control
from penstock.components.serving.versions import load_manifest
from penstock.schemas.errors import ServingError


@contextlib.contextmanager
def staged(directory: str, progress: Callable[[], object]) -> Iterator[str]:
    """Give a push a folder of its own, and remove what killed pushes left."""
    for folder in (
        directory,
        control(directory),
        control(directory, "manifests"),
        control(directory, "checked"),
        control(directory, "staging"),
    ):
        make_folder(folder)
    with contextlib.ExitStack() as locks:
        mine = control(directory, "staging", uuid.uuid4().hex)
        try:
            # Under the lock: a folder that has no locked owner has none any more.
            with locked(directory, progress):
                leftovers = _abandoned(directory, locks)
                os.mkdir(mine)
                _own(mine, os.O_CREAT, locks)
            for leftover in leftovers:
                _discard(directory, leftover)
            yield mine
        except BaseException:
            # What cannot be removed now is removed by the next push; the reader
            # needs the first error, not the second.
            with contextlib.suppress(OSError):
                _discard(directory, mine)
            raise
        _discard(directory, mine)


def _abandoned(directory: str, locks: contextlib.ExitStack) -> list[str]:
    """Return the staging folders of dead pushes, locked until `locks` closes."""
    parent = control(directory, "staging")
    found = []
    for name in os.listdir(parent):
        staging = os.path.join(parent, name)
        try:
            if _own(staging, 0, locks):
                found.append(staging)
        except FileNotFoundError:
            # A push makes its lock first and removes it last, so the folder is empty
            # or gone.
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(staging)
    return found


def _own(staging: str, flags: int, locks: contextlib.ExitStack) -> bool:
    """Lock a staging folder until `locks` closes; False if its push is alive."""
    descriptor = os.open(os.path.join(staging, "lock"), os.O_RDWR | flags, 0o666)
    locks.callback(os.close, descriptor)
    return flock(descriptor)


def _discard(directory: str, staging: str) -> None:
    """Remove a staging folder, and its manifest if its version never appeared."""
    copy = os.path.join(staging, "model")
    if os.path.lexists(copy):
        manifests = control(directory, "manifests")
        for name in os.listdir(manifests):
            path = os.path.join(manifests, name)
            # An unreadable manifest is not this push's: those appear whole.
            with contextlib.suppress(ServingError, FileNotFoundError):
                if load_manifest(path)["push"] == os.path.basename(staging):
                    os.unlink(path)
        shutil.rmtree(copy)
    # Gone already: it was never made, or others found it empty (see `_abandoned`).
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(staging), key=lambda name: name == "lock"):
            os.unlink(os.path.join(staging, name))
        os.rmdir(staging)
