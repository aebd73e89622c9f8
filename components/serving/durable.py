"""Files and folders that are written, copied and renamed so that they stay."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from penstock.schemas.digests import folder_manifest
from penstock.schemas.errors import ServingError

_BLOCK_BYTES = 1 << 20


def copy_folder(
    source: Path, target: Path, progress: Callable[[], object] = lambda: None
) -> dict[str, tuple[str, int]]:
    """Copy a folder to disk: every file and folder is synced before this returns.

    Links are followed, so the copy shares no bytes with anything.

    Args:
        source: The folder to copy.
        target: The folder to copy into; it must exist and be empty.
        progress: Called after every block; may raise to stop the copy.

    Returns:
        The manifest of what was read, as `folder_manifest` gives it.

    Raises:
        ServingError: The source cannot be read, or holds something that is neither a
            file nor a folder, or no file.
        OSError: The target cannot be written.
    """
    manifest: dict[str, tuple[str, int]] = {}
    folders = []
    for root, names in _walk(source):
        relative = os.path.relpath(root, source)
        folder = os.path.normpath(os.path.join(target, relative))
        if relative != ".":
            os.mkdir(folder)
        folders.append(folder)
        for name in names:
            path = os.path.normpath(os.path.join(relative, name))
            manifest[path] = _copy_file(
                source, os.path.join(root, name), os.path.join(folder, name), progress
            )
    for folder in reversed(folders):
        sync_folder(folder)
    return dict(sorted(manifest.items()))


def model_size(model: Path) -> int:
    """Return the size of all files of a model, in bytes.

    Raises:
        ServingError: It cannot be read, holds something that is neither a file nor a
            folder, or no file.
    """
    total = 0
    files = 0
    for root, names in _walk(model):
        for name in names:
            path = os.path.join(root, name)
            try:
                status = os.stat(path)
            except OSError as error:
                _unreadable(model, error)
            if not stat.S_ISREG(status.st_mode):
                raise ServingError(
                    f"Model '{model}' holds '{os.path.relpath(path, model)}', which is "
                    "neither a file nor a folder. Remove it, and push again."
                )
            total += status.st_size
            files += 1
    if not files:
        raise ServingError(
            f"Model '{model}' holds no file. Pass the folder of a SavedModel."
        )
    return total


def _unreadable(model: Path, error: OSError) -> NoReturn:
    raise ServingError(
        f"Model '{model}' cannot be read: {error.strerror} "
        f"('{error.filename or model}'). Mend that, or train the model again."
    ) from error


def _walk(model: Path) -> Iterator[tuple[str, list[str]]]:
    def fail(error: OSError) -> NoReturn:
        _unreadable(model, error)

    # os.walk keeps silent about folders it cannot list unless it is told what to do.
    for root, folders, names in os.walk(model, onerror=fail, followlinks=True):
        folders.sort()
        yield root, sorted(names)


def _blocks(model: Path, path: str) -> Iterator[bytes]:
    try:
        reader = os.open(path, os.O_RDONLY)
        try:
            while block := os.read(reader, _BLOCK_BYTES):
                yield block
        finally:
            os.close(reader)
    except OSError as error:
        _unreadable(model, error)


def _copy_file(
    model: Path, source: str, target: str, progress: Callable[[], object]
) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for block in _blocks(model, source):
            digest.update(block)
            size += len(block)
            _write_all(writer, block)
            progress()
        os.fsync(writer)
        if hasattr(os, "posix_fadvise"):
            # The copy is read back next: from the disk, not from the page cache.
            os.posix_fadvise(writer, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(writer)
    return digest.hexdigest(), size


def _write_all(writer: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(writer, rest) :]


def sync_folder(folder: str) -> None:
    """Make what was made, renamed or removed in a folder stay so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str) -> None:
    """Make a folder with those above it, unless it is there, so that it stays."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    sync_folder(parent)


def compare_copy(copy: Path, manifest: Mapping[str, tuple[str, int]]) -> None:
    """Check that a copy reads back as it was written.

    Raises:
        ServingError: If it does not.
    """
    different = differences(folder_manifest(copy), manifest)
    if different:
        raise ServingError(
            f"The copy '{copy}' does not read back as it was written. "
            f"{' '.join(different)} Check the disk, and push again."
        )


def differences(
    found: Mapping[str, tuple[str, int]], expected: Mapping[str, tuple[str, int]]
) -> tuple[str, ...]:
    """Return a sentence for every file that differs between two manifests."""
    sentences = []
    for path in sorted({*found, *expected}):
        if path not in found:
            sentences.append(f"'{path}' is missing.")
        elif path not in expected:
            sentences.append(f"'{path}' is not in the manifest.")
        elif found[path][1] != expected[path][1]:
            sentences.append(
                f"'{path}' has {found[path][1]:,} bytes where the manifest has "
                f"{expected[path][1]:,}."
            )
        elif found[path][0] != expected[path][0]:
            sentences.append(
                f"'{path}' has the SHA-256 {found[path][0]} where the manifest has "
                f"{expected[path][0]}."
            )
    return tuple(sentences)


def publish(folder: str, data: Any, target: str) -> None:
    """Make a JSON file appear whole and stay, replacing what was there.

    Args:
        folder: Where it is drafted; on the same file system.
        data: What it holds, as JSON data.
        target: Its path.
    """
    draft = os.path.join(folder, os.path.basename(target))
    writer = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(writer, (json.dumps(data, indent=1) + "\n").encode())
        os.fsync(writer)
    finally:
        os.close(writer)
    os.replace(draft, target)
    sync_folder(os.path.dirname(target))


def rename_new(source: str, target: str) -> None:
    """Rename a folder, unless something has the new name.

    A plain rename would replace an empty folder of that name without a word.
    `renameat2` with RENAME_NOREPLACE refuses in the same step. Where the C library or
    the file system lacks it, the name is looked up first; all pushes hold the lock, so
    only a tool that knows no lock and makes this very folder between the two calls
    could lose it, and it would lose an empty one.

    Raises:
        FileExistsError: Something has the new name.
    """
    code = _renameat2(os.fsencode(source), os.fsencode(target))
    # EPERM: what some sandboxes answer to system calls they do not know.
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(
                    errno.EEXIST, os.strerror(errno.EEXIST), target
                ) from error
            raise
    elif code:
        raise OSError(code, os.strerror(code), target)


def _renameat2(source: bytes, target: bytes) -> int:
    """Call renameat2(2) with RENAME_NOREPLACE; return 0 or the error number."""
    call = getattr(_C_LIBRARY, "renameat2", None)
    if call is None:
        return errno.ENOSYS
    current_folder, no_replace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    if call(current_folder, source, current_folder, target, no_replace) == 0:
        return 0
    return ctypes.get_errno()


_C_LIBRARY = ctypes.CDLL(None, use_errno=True)
