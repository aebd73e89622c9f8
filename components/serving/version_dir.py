"""The serving directory: numbered versions that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from penstock.schemas.digests import folder_manifest, manifest_digest
from penstock.schemas.errors import ServingError

MAX_VERSION = 2**63 - 1
"""The greatest version number TensorFlow Serving can parse."""

# What penstock keeps in a serving directory lies below this folder. TensorFlow
# Serving looks only at the direct children of a serving directory and ignores the
# ones whose names are no numbers, so nothing below it can be taken for a version:
#
#   .penstock/lock                 held while a number is given and a version appears
#   .penstock/high-water           the greatest number ever given
#   .penstock/manifests/<n>.json   what version n holds, and where it came from
#   .penstock/checked/<hex>.json   the result of a check, by the digest of the model
#   .penstock/checked/slot-<0|1>   held while a check runs, so at most two run at once
#   .penstock/staging/<push>/lock  held by the push as long as its process lives
#   .penstock/staging/<push>/model the copy that is renamed to <n>
_CONTROL = ".penstock"

_BLOCK_BYTES = 1 << 20
_LOCK_WAIT_SECONDS = 120.0
_LOCK_POLL_SECONDS = 0.01

# What absl::SimpleAtoi<int64> accepts: ASCII white space around a sign and digits.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,255})[ \t\n\v\f\r]*")

# One letter before the colon is a drive; pathlib folds the two slashes of a URL.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class VersionState(str, Enum):
    """What is known about the bytes of a version."""

    COMPLETE = "complete"
    """Every file of the manifest is there in its size, and no other."""
    FOREIGN = "foreign"
    """No manifest: another tool put it there."""
    DAMAGED = "damaged"
    """Files are missing, added or of another size, or the manifest is unreadable."""


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


def push(
    serving_dir: Path,
    model: Path,
    *,
    digest: str | None = None,
    check: Callable[[Path], Mapping[str, Any]] | None = None,
    progress: Callable[[], object] = lambda: None,
    model_uri: str | None = None,
    run_id: str | None = None,
) -> Version:
    """Copy a SavedModel into a serving directory as its next version.

    The copy is made below `.penstock/`, forced to disk, read back and compared with
    what was read from `model`, and checked. Then, under a lock, the next number is
    written as the high-water mark, the manifest is written, and the copy is renamed to
    the number: whoever sees the number sees all of the version and its manifest, and
    numbers appear in rising order however many pushes run at once. A push that is
    killed leaves only a folder that the next push removes.

    Args:
        serving_dir: The serving directory; made if it is missing.
        model: Folder of the SavedModel.
        digest: The content digest `model` must have, if it is known.
        check: Called with the copy before it becomes visible; raises to refuse it.
            What it returns must be JSON data. It runs once for each content digest;
            at most two checks run at once in one serving directory.
        progress: Called often; may raise to stop the push.
        model_uri: Folder of the Model artifact, to be recorded.
        run_id: Pipeline run that pushes, to be recorded.

    Returns:
        The version that is visible now.

    Raises:
        ServingError: The serving directory cannot take it, or the model cannot be
            read, is empty, or has another digest. Nothing became visible, and the
            copy was removed.
    """
    directory = str(local_directory(serving_dir))
    needed = _size(model)
    with _explained(directory, needed), _staging(directory, progress) as staging:
        copy = os.path.join(staging, "model")
        os.mkdir(copy)
        manifest = copy_folder(model, Path(copy), progress)
        found = manifest_digest(manifest)
        if digest is not None and found != digest:
            raise ServingError(
                f"Model '{model}' has the digest '{found}' where '{digest}' was "
                "expected: it changed while it was pushed. Let nothing write to it, "
                "and push again."
            )
        _compare_copy(Path(copy), manifest)
        checked = _checked(directory, staging, found, check, progress)
        record = {
            "push": os.path.basename(staging),
            "digest": found,
            "size_bytes": needed,
            "model_uri": model_uri,
            "run_id": run_id,
            "checked": checked,
            "files": {
                path: {"sha256": sha256, "bytes": size}
                for path, (sha256, size) in manifest.items()
            },
        }
        return _commit(directory, staging, record, progress)


def versions(serving_dir: Path) -> tuple[Version, ...]:
    """Return everything TensorFlow Serving takes for a version, in rising order.

    States come from names and sizes; only `verify` reads the bytes. Nothing is locked
    or written, so it may run beside pushes and as a user who may only read.

    Raises:
        ServingError: The serving directory is missing, a file, unreadable or a URL.
    """
    directory = _existing(serving_dir)
    with _explained(str(directory)):
        found = [
            version
            for name in os.listdir(directory)
            if (number := parse_version(name)) is not None
            and (version := _version(directory, name, number)) is not None
        ]
    return tuple(sorted(found, key=lambda version: (version.number, version.path)))


def verify(serving_dir: Path, version: int) -> tuple[str, ...]:
    """Compare the bytes of a version with its manifest.

    Returns:
        One sentence for every file that differs; none if all bytes are as pushed.

    Raises:
        ServingError: There is no such version, or it has no manifest.
    """
    directory = _existing(serving_dir)
    known = [entry.number for entry in versions(directory)]
    if version not in known:
        raise ServingError(
            f"Serving directory '{directory}' has no version {version} "
            f"(it has {', '.join(map(str, known)) or 'none'}). Name one of these."
        )
    record = _read_manifest(directory, version)
    if record is None:
        raise ServingError(
            f"Version {version} in '{directory}' has no manifest: it was not pushed "
            "by penstock, so there is nothing to compare it with. Push the model to "
            "get a version that can be verified."
        )
    with _explained(str(directory)):
        return _differences(
            folder_manifest(directory / str(version)), _manifest_files(record)
        )


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
        _sync_folder(folder)
    return dict(sorted(manifest.items()))


def _existing(serving_dir: Path) -> Path:
    directory = local_directory(serving_dir)
    if not directory.is_dir():
        kind = "is a file" if directory.exists() else "does not exist"
        raise ServingError(
            f"Serving directory '{directory}' {kind}. Pass the folder that holds the "
            "numbered versions."
        )
    return directory


def _control(directory: str, *names: str) -> str:
    return os.path.join(directory, _CONTROL, *names)


# --- reading a model and writing its copy


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


def _size(model: Path) -> int:
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


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _compare_copy(copy: Path, manifest: Mapping[str, tuple[str, int]]) -> None:
    different = _differences(folder_manifest(copy), manifest)
    if different:
        raise ServingError(
            f"The copy '{copy}' does not read back as it was written. "
            f"{' '.join(different)} Check the disk, and push again."
        )


def _differences(
    found: Mapping[str, tuple[str, int]], expected: Mapping[str, tuple[str, int]]
) -> tuple[str, ...]:
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


# --- staging


@contextlib.contextmanager
def _staging(directory: str, progress: Callable[[], object]) -> Iterator[str]:
    """Give a push a folder of its own, and remove what killed pushes left."""
    for folder in (
        directory,
        _control(directory),
        _control(directory, "manifests"),
        _control(directory, "checked"),
        _control(directory, "staging"),
    ):
        _make_folder(folder)
    with contextlib.ExitStack() as locks:
        mine = _control(directory, "staging", uuid.uuid4().hex)
        try:
            # Under the lock: a folder that has no locked owner has none any more.
            with _locked(directory, progress):
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


def _make_folder(folder: str) -> None:
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    _sync_folder(parent)


def _abandoned(directory: str, locks: contextlib.ExitStack) -> list[str]:
    """Return the staging folders of dead pushes, locked until `locks` closes."""
    parent = _control(directory, "staging")
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
    return _flock(descriptor)


def _discard(directory: str, staging: str) -> None:
    """Remove a staging folder, and its manifest if its version never appeared."""
    copy = os.path.join(staging, "model")
    if os.path.lexists(copy):
        manifests = _control(directory, "manifests")
        for name in os.listdir(manifests):
            path = os.path.join(manifests, name)
            # An unreadable manifest is not this push's: those appear whole.
            with contextlib.suppress(ServingError, FileNotFoundError):
                if _load_manifest(path)["push"] == os.path.basename(staging):
                    os.unlink(path)
        shutil.rmtree(copy)
    # Gone already: it was never made, or others found it empty (see `_abandoned`).
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(staging), key=lambda name: name == "lock"):
            os.unlink(os.path.join(staging, name))
        os.rmdir(staging)


# --- locks


@contextlib.contextmanager
def _locked(directory: str, progress: Callable[[], object]) -> Iterator[None]:
    path = _control(directory, "lock")
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS

    def wait() -> None:
        progress()
        if time.monotonic() > deadline:
            raise ServingError(
                f"Serving directory '{directory}' has been locked by another push for "
                f"{_LOCK_WAIT_SECONDS:g} seconds. End the process that holds '{path}', "
                "and push again."
            )

    with _file_lock(path, wait):
        yield


@contextlib.contextmanager
def _file_lock(path: str, wait: Callable[[], object]) -> Iterator[None]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not _flock(descriptor):
                wait()
                time.sleep(_LOCK_POLL_SECONDS)
            if _same_file(descriptor, path):
                yield
                return
            # Somebody removed the file while we waited: this lock excludes nobody.
        finally:
            # Closing alone would leave it locked if another thread forked meanwhile.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(descriptor: int, path: str) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)


# --- the check


def _checked(
    directory: str,
    staging: str,
    digest: str,
    check: Callable[[Path], Mapping[str, Any]] | None,
    progress: Callable[[], object],
) -> Mapping[str, Any] | None:
    if check is None:
        return None
    sha256 = digest.partition(":")[2]
    path = _control(directory, "checked", f"{sha256}.json")
    known = _known_check(path)
    if known is not None:
        return known
    # The slot depends on the digest, so equal models wait for one check.
    slot = _control(directory, "checked", f"slot-{int(sha256[-1], 16) % 2}")
    with _file_lock(slot, progress):
        known = _known_check(path)
        if known is None:
            known = check(Path(staging, "model"))
            _publish(staging, known, path)
    return known


def _known_check(path: str) -> Mapping[str, Any] | None:
    try:
        known = json.loads(_read(path))
    except (FileNotFoundError, ValueError):
        return None  # Not checked yet, or the file was spoiled: check (again).
    return known if isinstance(known, dict) else None


# --- giving a number


def _commit(
    directory: str,
    staging: str,
    record: Mapping[str, Any],
    progress: Callable[[], object],
) -> Version:
    with _locked(directory, progress):
        number = _high_water(directory)
        while True:
            # Manifests count too: they outlive a lost high-water mark.
            names = os.listdir(_control(directory, "manifests"))
            stems = [name.removesuffix(".json") for name in names]
            number = next_version([*os.listdir(directory), *stems], number)
            if number > MAX_VERSION:
                raise ServingError(
                    f"Serving directory '{directory}' holds or held version "
                    f"{MAX_VERSION}, the greatest TensorFlow Serving can parse, so "
                    "there is no next one. Push to another serving directory."
                )
            # The number is burned before anybody can see it: whatever happens from
            # here on, no other version will ever have it.
            _publish(staging, number, _control(directory, "high-water"))
            manifest = _control(directory, "manifests", f"{number}.json")
            pushed_at = datetime.now(timezone.utc)
            _publish(
                staging,
                {"version": number, "pushed_at": pushed_at.isoformat(), **record},
                manifest,
            )
            target = os.path.join(directory, str(number))
            try:
                _rename_new(os.path.join(staging, "model"), target)
            except FileExistsError:
                # Another tool, which knows no lock, has just taken the number.
                os.unlink(manifest)
                continue
            _sync_folder(directory)
            return Version(
                number=number,
                path=Path(target),
                state=VersionState.COMPLETE,
                size_bytes=record["size_bytes"],
                digest=record["digest"],
                pushed_at=pushed_at,
                model_uri=record["model_uri"],
                run_id=record["run_id"],
            )


def _high_water(directory: str) -> int:
    path = _control(directory, "high-water")
    try:
        text = _read(path).decode(errors="replace").strip()
    except FileNotFoundError:
        return 0
    number = parse_version(text)
    if number is None:
        raise ServingError(
            f"The high-water mark '{path}' holds '{text[:40]}', which is no version "
            "number. Write the greatest version number ever used there into it."
        )
    return number


def _publish(staging: str, data: Any, target: str) -> None:
    """Make a JSON file appear whole and stay, replacing what was there."""
    draft = os.path.join(staging, os.path.basename(target))
    writer = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(writer, (json.dumps(data, indent=1) + "\n").encode())
        os.fsync(writer)
    finally:
        os.close(writer)
    os.replace(draft, target)
    _sync_folder(os.path.dirname(target))


def _rename_new(source: str, target: str) -> None:
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


# --- reading versions


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _load_manifest(path: str) -> dict[str, Any]:
    try:
        record = json.loads(_read(path))
        _manifest_files(record)
        # Every field that is read anywhere, so that a manifest is whole or refused.
        datetime.fromisoformat(record["pushed_at"])
        record["push"], record["digest"], record["model_uri"], record["run_id"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServingError(
            f"The manifest '{path}' is not what penstock writes "
            f"({type(error).__name__}: {error}). Remove it, and push the model again."
        ) from error
    return dict(record)


def _manifest_files(record: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    return {
        path: (entry["sha256"], entry["bytes"])
        for path, entry in record["files"].items()
    }


def _read_manifest(directory: Path, number: int) -> dict[str, Any] | None:
    try:
        return _load_manifest(_control(str(directory), "manifests", f"{number}.json"))
    except FileNotFoundError:
        return None


def _version(directory: Path, name: str, number: int) -> Version | None:
    path = directory / name
    sizes = _sizes(path)
    if sizes is None:
        return None
    size_bytes = sum(sizes.values())
    try:
        # Only '7' is what was pushed as 7; '007' is somebody else's.
        record = _read_manifest(directory, number) if name == str(number) else None
    except ServingError:
        return Version(number, path, VersionState.DAMAGED, size_bytes)
    if record is None:
        return Version(number, path, VersionState.FOREIGN, size_bytes)
    pushed = {file: size for file, (_, size) in _manifest_files(record).items()}
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


# --- sentences


@contextlib.contextmanager
def _explained(directory: str, needed: int = 0) -> Iterator[None]:
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
