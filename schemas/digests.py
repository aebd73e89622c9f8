"""Digests of file contents: what an artifact is, whatever its name and times."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        block = bytearray(_BLOCK_BYTES)
        view = memoryview(block)
        while count := file.readinto(block):
            digest.update(view[:count])
    return digest.hexdigest()


def folder_manifest(folder: Path) -> dict[str, tuple[str, int]]:
    """Return what a folder holds, read from its bytes.

    Args:
        folder: The folder to read; links inside it count as what they point at.

    Returns:
        For every file below it, by its path with forward slashes, its SHA-256 in
        hexadecimal and its size in bytes; sorted by path.

    Raises:
        OSError: If anything in it cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error  # os.walk says nothing of folders that it cannot list

    found = sorted(
        (Path(root, name).relative_to(folder).as_posix(), Path(root, name))
        for root, _, names in os.walk(folder, onerror=fail, followlinks=True)
        for name in names
    )
    # hashlib releases the interpreter for large blocks: two threads, two cores.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        digests = pool.map(file_digest, (path for _, path in found))
        return {
            relative: (digest, path.stat().st_size)
            for (relative, path), digest in zip(found, digests, strict=True)
        }


def manifest_digest(manifest: Mapping[str, tuple[str, int]]) -> str:
    """Return the digest of a manifest: `sha256:` and 64 hexadecimal digits.

    It covers relative paths, sizes and contents, and nothing else: not times, not
    owners, not where the folder lies, not empty folders.
    """
    lines = "".join(
        f"{digest} {size} {path}\n" for path, (digest, size) in sorted(manifest.items())
    )
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """Return the digest of a folder's contents (see `manifest_digest`)."""
    return manifest_digest(folder_manifest(folder))
