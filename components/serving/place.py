"""Where a serving directory lies, and what it means when its file system fails."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from penstock.schemas.errors import ServingError

# What penstock keeps in a serving directory lies below this folder. TensorFlow
# Serving looks only at the direct children of a serving directory and ignores the
# ones whose names are no numbers, so nothing below it can be taken for a version:
#
#   .penstock/lock                 held while a number is given and a version appears
#   .penstock/high-water           the greatest number ever given
#   .penstock/ledger.sqlite        what was done to versions, and where requests go
#   .penstock/traffic.sqlite       what routers saw
#   .penstock/manifests/<n>.json   what version n holds, and where it came from
#   .penstock/checked/<hex>.json   the result of a check, by the digest of the model
#   .penstock/checked/slot-<0|1>   held while a check runs, so at most two run at once
#   .penstock/staging/<push>/lock  held by the push as long as its process lives
#   .penstock/staging/<push>/model the copy that is renamed to <n>
#   .penstock/trash/<n>.<random>   a version that is being deleted
_CONTROL = ".penstock"

# One letter before the colon is a drive; pathlib folds the two slashes of a URL.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_directory(serving_dir: Path | str) -> Path:
    """Return a serving directory as an absolute path.

    Raises:
        ServingError: It is a URL.
    """
    if _URL.match(str(serving_dir)):
        raise ServingError(
            f"Serving directory '{serving_dir}' is a URL, where a version cannot "
            "appear at once: that needs the rename and the locks of a POSIX file "
            "system. Pass a folder of this machine or of a mounted file system."
        )
    return Path(os.path.abspath(serving_dir))


def existing(serving_dir: Path | str) -> Path:
    """Return a serving directory that is there, as an absolute path.

    Raises:
        ServingError: It is a URL, a file, or missing.
    """
    directory = local_directory(serving_dir)
    if not directory.is_dir():
        kind = "is a file" if directory.exists() else "does not exist"
        raise ServingError(
            f"Serving directory '{directory}' {kind}. Pass the folder that holds the "
            "numbered versions."
        )
    return directory


def control(directory: str, *names: str) -> str:
    """Return the path of what penstock keeps in a serving directory."""
    return os.path.join(directory, _CONTROL, *names)


@contextlib.contextmanager
def explained(directory: str, needed: int = 0) -> Iterator[None]:
    """Say in a sentence why the file system of a serving directory failed.

    Args:
        directory: The serving directory.
        needed: Bytes that the model needs.

    Raises:
        ServingError: For every OSError.
    """
    try:
        yield
    except OSError as error:
        raise ServingError(_sentence(directory, needed, error)) from error


def _sentence(directory: str, needed: int, error: OSError) -> str:
    what = error.strerror or str(error)
    where = f" ('{error.filename}')" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"Serving directory '{directory}' is full ({what}): the model needs "
            f"{needed:,} bytes where {_free_bytes(directory):,} are free. Delete old "
            "versions, or pass another serving_dir."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"Serving directory '{directory}' is closed to user id {os.geteuid()}: "
            f"{what}{where}. Give this user the right to read and write it, or pass "
            "another serving_dir."
        )
    if error.errno == errno.ENOTDIR:
        return (
            f"Serving directory '{directory}' is a file or lies below one: "
            f"{what}{where}. Pass a folder."
        )
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV):
        return (
            f"Serving directory '{directory}' lies on a file system that cannot lock "
            f"or rename ({what}), without which a version could be seen half copied. "
            "Pass a folder on a local disk."
        )
    return (
        f"Serving directory '{directory}' failed: {what}{where}. Mend that, and push "
        "again."
    )


def _free_bytes(directory: str) -> int:
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
