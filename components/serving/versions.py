"""What lies in a serving directory: numbered versions, and what is known of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from penstock.components.serving.durable import differences
from penstock.components.serving.place import control, existing, explained
from penstock.schemas.digests import folder_manifest
from penstock.schemas.errors import ServingError

MAX_VERSION = 2**63 - 1
"""The greatest version number TensorFlow Serving can parse."""

# What absl::SimpleAtoi<int64> accepts: ASCII white space around a sign and digits.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,255})[ \t\n\v\f\r]*")


class VersionState(str, Enum):
    """What is known about the bytes of a version."""

    COMPLETE = "complete"
    """Every file of the manifest is there in its size, and no other."""
    FOREIGN = "foreign"
    """No manifest: another tool put it there."""
    DAMAGED = "damaged"
    """Files are missing, added or of another size, or the manifest is unreadable."""
    MISSING = "missing"
    """The ledger knows it, nobody deleted it here, and it is gone."""


DENIED = ".denied"
"""What the name of a quarantined version ends in, so that it is no number."""


@dataclass(frozen=True)
class Version:
    """One version in a serving directory.

    Attributes:
        number: The number TensorFlow Serving serves it under.
        path: Where it lies; its name may differ from the number ('007').
        state: Whether it holds what was pushed.
        size_bytes: Size of all its files.
        digest: Content digest of what was pushed; None without a manifest.
        pushed_at: When it was pushed, in UTC; None without a manifest. Information
            only: the order of versions is the order of their numbers.
        model_uri: Folder of the Model artifact it was copied from, if recorded.
        run_id: Pipeline run that pushed it, if recorded.
    """

    number: int
    path: Path
    state: VersionState
    size_bytes: int
    digest: str | None = None
    pushed_at: datetime | None = None
    model_uri: str | None = None
    run_id: str | None = None


def parse_version(name: str) -> int | None:
    """Return the number TensorFlow Serving reads from a name, or None if it is none.

    Its rule is `absl::SimpleAtoi<int64>` on the names of direct children, folders and
    plain files alike: '7', '007', ' 7' and '-1' are versions, '7.tmp' and '.7' are not.
    """
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if -MAX_VERSION - 1 <= number <= MAX_VERSION else None


def next_version(names: Iterable[str], high_water: int = 0) -> int:
    """Return the number after every one that is or ever was taken; the first is 1.

    Args:
        names: Names of what lies in the serving directory, numbers or not.
        high_water: The greatest number ever given, even if it was deleted since.
    """
    taken = (parse_version(name) for name in names)
    return max([0, high_water, *(number for number in taken if number is not None)]) + 1


def versions(serving_dir: Path) -> tuple[Version, ...]:
    """Return everything TensorFlow Serving takes for a version, in rising order.

    States come from names and sizes; only `verify` reads the bytes. Nothing is locked
    or written, so it may run beside pushes and as a user who may only read.

    Raises:
        ServingError: The serving directory is missing, a file, unreadable or a URL.
    """
    directory = existing(serving_dir)
    with explained(str(directory)):
        found = [
            version
            for name in os.listdir(directory)
            if parse_version(name) is not None
            and (version := version_at(directory, name)) is not None
        ]
    return tuple(sorted(found, key=lambda version: (version.number, version.path)))


def verify(serving_dir: Path, version: int) -> tuple[str, ...]:
    """Compare the bytes of a version with its manifest.

    Returns:
        One sentence for every file that differs; none if all bytes are as pushed.

    Raises:
        ServingError: There is no such version, or it has no manifest.
    """
    directory = existing(serving_dir)
    folder = directory / str(version)
    if not folder.is_dir():
        folder = directory / f"{version}{DENIED}"
    if not folder.is_dir():
        known = [each.number for each in versions(directory)]
        if version not in known:
            raise absent(directory, version, known)
    record = read_manifest(directory, version)
    if record is None or not folder.is_dir():
        raise ServingError(
            f"Version {version} in '{directory}' has no manifest: it was not pushed "
            "by penstock, so there is nothing to compare it with. Push the model to "
            "get a version that can be verified."
        )
    with explained(str(directory)):
        return differences(folder_manifest(folder), manifest_files(record))


def absent(directory: Path, version: int, known: Iterable[int]) -> ServingError:
    """Return the error that says that there is no such version.

    Args:
        directory: The serving directory.
        version: The number.
        known: The versions that there are.
    """
    if not (listed := ", ".join(map(str, sorted(known)))):
        return ServingError(
            f"Serving directory '{directory}' has no version {version}: it has none at "
            "all. Push a model first, or name the folder that holds the numbered "
            "versions."
        )
    return ServingError(
        f"Serving directory '{directory}' has no version {version} (it has {listed}). "
        "Name one of these."
    )


def load_manifest(path: str) -> dict[str, Any]:
    """Return what a manifest says.

    Raises:
        ServingError: It is not what penstock writes.
        FileNotFoundError: There is none.
    """
    try:
        record = json.loads(Path(path).read_bytes())
        manifest_files(record)
        # Every field that is read anywhere, so that a manifest is whole or refused.
        datetime.fromisoformat(record["pushed_at"])
        record["push"], record["digest"], record["model_uri"], record["run_id"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServingError(
            f"The manifest '{path}' is not what penstock writes "
            f"({type(error).__name__}: {error}). Remove it, and push the model again."
        ) from error
    return dict(record)


def manifest_files(record: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the SHA-256 and the size of every file, as a manifest has them."""
    return {
        path: (entry["sha256"], entry["bytes"])
        for path, entry in record["files"].items()
    }


def read_manifest(directory: Path, number: int) -> dict[str, Any] | None:
    """Return what the manifest of a version says; None if there is none.

    Raises:
        ServingError: It is not what penstock writes.
    """
    try:
        return load_manifest(control(str(directory), "manifests", f"{number}.json"))
    except FileNotFoundError:
        return None


def version_at(directory: Path, name: str) -> Version | None:
    """Return the version that lies under a name; None if nothing lies there.

    Args:
        directory: The serving directory.
        name: A name that is a number, or that of a quarantined version.

    Raises:
        OSError: It cannot be read.
    """
    number = parse_version(name.removesuffix(DENIED))
    assert number is not None
    path = directory / name
    sizes = _sizes(path)
    if sizes is None:
        return None
    size_bytes = sum(sizes.values())
    try:
        # Only '7' is what was pushed as 7; '007' is somebody else's.
        is_ours = name.removesuffix(DENIED) == str(number)
        record = read_manifest(directory, number) if is_ours else None
    except ServingError:
        return Version(number, path, VersionState.DAMAGED, size_bytes)
    if record is None:
        return Version(number, path, VersionState.FOREIGN, size_bytes)
    pushed = {file: size for file, (_, size) in manifest_files(record).items()}
    return Version(
        number=number,
        path=path,
        state=VersionState.COMPLETE if sizes == pushed else VersionState.DAMAGED,
        size_bytes=size_bytes,
        digest=record["digest"],
        pushed_at=datetime.fromisoformat(record["pushed_at"]),
        model_uri=record["model_uri"],
        run_id=record["run_id"],
    )


def _sizes(path: Path) -> dict[str, int] | None:
    """Return the size of every file of a version; None if it is no longer there."""

    def fail(error: OSError) -> None:
        # A version may be a plain file, or be removed while it is listed.
        if not isinstance(error, (NotADirectoryError, FileNotFoundError)):
            raise error

    sizes = {}
    for root, _, names in os.walk(path, onerror=fail, followlinks=True):
        for name in names:
            file = Path(root, name)
            with contextlib.suppress(FileNotFoundError):
                sizes[file.relative_to(path).as_posix()] = file.stat().st_size
    if path.is_dir():
        return sizes
    return {"": path.lstat().st_size} if os.path.lexists(path) else None
