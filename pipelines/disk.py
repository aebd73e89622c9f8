"""Writing through to the disk, so that what is recorded survives a power cut."""

from __future__ import annotations

import os
from pathlib import Path


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
