"""Pushing into a serving directory, and reading what lies there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving import durable, locks, staging, version_dir
from penstock.components.serving.version_dir import (
    MAX_VERSION,
    VersionState,
    copy_folder,
    next_version,
    parse_version,
    push,
    verify,
    versions,
)
from penstock.schemas.digests import folder_digest, folder_manifest
from penstock.schemas.errors import ServingError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    return tmp_path / "serving"


def make_model(folder: Path, content: bytes = b"graph") -> Path:
    (folder / "assets").mkdir(parents=True)
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(content)
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return folder


def numbers(serving: Path) -> list[int]:
    return [version.number for version in versions(serving)]


def staged(serving: Path) -> list[str]:
    return os.listdir(serving / ".penstock" / "staging")


# --- numbers


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("43", 43),
        ("007", 7),
        (" 43\n", 43),
        ("-1", -1),
        ("+5", 5),
        (str(MAX_VERSION), MAX_VERSION),
        (str(-MAX_VERSION - 1), -MAX_VERSION - 1),
        (str(MAX_VERSION + 1), None),
        ("43.tmp", None),
        (".43", None),
        ("4 3", None),
        ("4_3", None),
        ("٣", None),
        ("", None),
        ("+", None),
        (".penstock", None),
    ],
)
def test_names_are_numbers_where_tensorflow_serving_says_so(
    name: str, number: int | None
) -> None:
    assert parse_version(name) == number


def test_the_first_version_is_one() -> None:
    assert next_version([]) == 1
    assert next_version(["-3", "x"]) == 1


@given(st.lists(st.integers(-9, 10**6)), st.integers(0, 10**6))
def test_the_next_version_is_above_all_that_is_or_was_taken(
    taken: list[int], high_water: int
) -> None:
    number = next_version([f" {n:04d}" for n in taken], high_water)
    assert number == max([0, high_water, *taken]) + 1


def test_versions_count_up_from_one(serving: Path, model: Path) -> None:
    assert [push(serving, model).number for _ in range(3)] == [1, 2, 3]
    assert numbers(serving) == [1, 2, 3]
    assert staged(serving) == []


def test_a_number_that_was_deleted_is_never_given_again(
    serving: Path, model: Path
) -> None:
    push(serving, model)
    shutil.rmtree(push(serving, model).path)
    assert push(serving, model).number == 3


def test_numbers_survive_a_lost_high_water_mark(serving: Path, model: Path) -> None:
    push(serving, model)
    shutil.rmtree(push(serving, model).path)
    (serving / ".penstock" / "high-water").unlink()
    assert push(serving, model).number == 3


@pytest.mark.parametrize("name", ["007", "7", " 7", "+7"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_tensorflow_serving_takes_for_a_number_is_taken(
    serving: Path, model: Path, name: str, kind: str
) -> None:
    push(serving, model)
    if kind == "folder":
        (serving / name).mkdir()
    else:
        (serving / name).write_text("a plain file")
    assert push(serving, model).number == 8


def test_a_clock_that_steps_back_changes_no_number(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2030, 1, 1, tzinfo=timezone.utc)

    class Clock(datetime):
        hours = 0

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            cls.hours -= 1
            return start + timedelta(hours=cls.hours)

    monkeypatch.setattr(version_dir, "datetime", Clock)
    pushed = [push(serving, model) for _ in range(4)]
    assert [version.number for version in pushed] == [1, 2, 3, 4]
    times = [version.pushed_at for version in pushed]
    assert times == [start - timedelta(hours=hour) for hour in (1, 2, 3, 4)]


def test_the_mark_is_on_disk_before_the_version_appears(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = []
    rename = durable.rename_new

    def watched(source: str, target: str) -> None:
        marks.append((serving / ".penstock" / "high-water").read_text().strip())
        assert (serving / ".penstock" / "manifests" / "1.json").exists()
        assert not os.path.exists(target)
        rename(source, target)

    monkeypatch.setattr(version_dir, "rename_new", watched)
    push(serving, model)
    assert marks == ["1"]


def test_a_mark_that_is_no_number_is_refused(serving: Path, model: Path) -> None:
    push(serving, model)
    mark = serving / ".penstock" / "high-water"
    mark.write_text("many")
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    assert str(raised.value) == (
        f"The high-water mark '{mark}' holds 'many', which is no version number. Write "
        "the greatest version number ever used there into it."
    )
    assert numbers(serving) == [1]
    assert staged(serving) == []


def test_there_is_no_version_after_the_greatest(serving: Path, model: Path) -> None:
    (serving / str(MAX_VERSION)).mkdir(parents=True)
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    assert str(raised.value) == (
        f"Serving directory '{serving}' holds or held version 9223372036854775807, the "
        "greatest TensorFlow Serving can parse, so there is no next one. Push to "
        "another serving directory."
    )


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("renameat2", [True, False])
def test_a_number_taken_at_the_last_moment_is_left_alone(
    serving: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    renameat2: bool,
) -> None:
    rename = durable.rename_new
    if not renameat2:
        monkeypatch.setattr(durable, "_renameat2", lambda *_: errno.ENOSYS)

    def beaten(source: str, target: str) -> None:
        if target.endswith("/1"):
            if kind == "folder":
                os.mkdir(target)
            else:
                Path(target).write_text("mine")
        rename(source, target)

    monkeypatch.setattr(version_dir, "rename_new", beaten)
    assert push(serving, model).number == 2
    assert [version.state for version in versions(serving)] == [
        VersionState.FOREIGN,
        VersionState.COMPLETE,
    ]
    assert list((serving / "1").iterdir() if kind == "folder" else []) == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_without_renameat2_a_plain_rename_does_it(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(durable, "_renameat2", lambda *_: code)
    assert [push(serving, model).number for _ in range(2)] == [1, 2]
    assert verify(serving, 2) == ()


def test_without_renameat2_a_full_folder_is_never_replaced(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_renameat2", lambda *_: errno.ENOSYS)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # Looked too early.
    (serving / "1").mkdir(parents=True)
    (serving / "1" / "file").touch()
    (serving / "2").touch()
    source = make_model(serving / "source")
    for name in ("1", "2"):
        with pytest.raises(FileExistsError):
            durable.rename_new(str(source), str(serving / name))
    assert source.exists()


def test_the_c_library_may_lack_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_C_LIBRARY", object())
    assert durable._renameat2(b"a", b"b") == errno.ENOSYS


# --- copies


def test_a_version_holds_what_the_model_holds(serving: Path, model: Path) -> None:
    before = datetime.now(timezone.utc)
    version = push(
        serving, model, digest=folder_digest(model), model_uri="/m/1", run_id="r"
    )
    assert version.path == serving / "1"
    assert version.digest == folder_digest(model) == folder_digest(version.path)
    assert (version.path / "assets").is_dir()
    assert version.size_bytes == 10
    assert version.pushed_at is not None and version.pushed_at >= before
    assert (version.model_uri, version.run_id) == ("/m/1", "r")
    assert versions(serving) == (version,)
    assert verify(serving, 1) == ()


def test_a_version_shares_no_bytes_with_the_model(
    serving: Path, model: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"weights")
    (model / "linked").symlink_to(big)
    pushed = push(serving, model).path
    big.write_bytes(b"changed")
    (model / "saved_model.pb").write_bytes(b"changed")
    assert (pushed / "linked").read_bytes() == b"weights"
    assert not (pushed / "linked").is_symlink()
    assert (pushed / "saved_model.pb").read_bytes() == b"graph"


def test_all_blocks_of_a_large_file_arrive(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_BLOCK_BYTES", 1000)
    written = os.write
    # A disk may take less than it is given.
    monkeypatch.setattr(os, "write", lambda fd, data: written(fd, data[:333]))
    data = os.urandom(4321)
    (model / "saved_model.pb").write_bytes(data)
    pushed = push(serving, model)
    assert (pushed.path / "saved_model.pb").read_bytes() == data
    assert verify(serving, 1) == ()


def test_a_served_version_can_be_read_by_others(serving: Path, model: Path) -> None:
    mask = os.umask(0o022)
    try:
        pushed = push(serving, model).path
    finally:
        os.umask(mask)
    assert pushed.stat().st_mode & 0o777 == 0o755
    assert (pushed / "saved_model.pb").stat().st_mode & 0o777 == 0o644


def test_every_file_and_folder_is_synced_before_the_version_appears(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append(os.path.relpath(path, serving))
        sync(descriptor)

    rename = durable.rename_new

    def renamed(source: str, target: str) -> None:
        synced.append("RENAME")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(version_dir, "rename_new", renamed)
    push(serving, model)
    at = synced.index("RENAME")
    copied = {path.partition("/model")[2] for path in synced[:at] if "/model" in path}
    assert copied == {
        "",
        "/assets",
        "/variables",
        "/saved_model.pb",
        "/variables/variables.index",
    }
    assert {".penstock", ".penstock/manifests"} <= set(synced[:at])
    assert synced[at + 1 :] == ["."]


def test_a_model_with_another_digest_is_refused(serving: Path, model: Path) -> None:
    expected, found = "sha256:" + "0" * 64, folder_digest(model)
    with pytest.raises(ServingError) as raised:
        push(serving, model, digest=expected)
    assert str(raised.value) == (
        f"Model '{model}' has the digest '{found}' where '{expected}' was expected: it "
        "changed while it was pushed. Let nothing write to it, and push again."
    )
    assert numbers(serving) == [] == staged(serving)


def test_a_copy_that_reads_back_differently_is_refused(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(folder: Path) -> dict[str, tuple[str, int]]:
        (folder / "saved_model.pb").write_bytes(b"grap!")
        return folder_manifest(folder)

    monkeypatch.setattr(durable, "folder_manifest", spoiled)
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    text = str(raised.value)
    assert text.startswith(f"The copy '{serving}/.penstock/staging/")
    assert "does not read back as it was written. 'saved_model.pb' has the SHA-256" in (
        text
    )
    assert text.endswith("Check the disk, and push again.")
    assert numbers(serving) == [] == staged(serving)


def test_a_model_without_files_is_refused(serving: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServingError) as raised:
        push(serving, tmp_path / "empty")
    assert str(raised.value) == (
        f"Model '{tmp_path}/empty' holds no file. Pass the folder of a SavedModel."
    )


def test_a_model_that_is_missing_is_refused(serving: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError) as raised:
        push(serving, tmp_path / "gone")
    assert str(raised.value) == (
        f"Model '{tmp_path}/gone' cannot be read: No such file or directory "
        f"('{tmp_path}/gone'). Mend that, or train the model again."
    )


def test_a_model_with_a_broken_link_is_refused(serving: Path, model: Path) -> None:
    (model / "assets" / "link").symlink_to("nowhere")
    with pytest.raises(ServingError, match="cannot be read: No such file") as raised:
        push(serving, model)
    assert f"('{model}/assets/link')" in str(raised.value)


def test_a_model_with_a_pipe_is_refused(serving: Path, model: Path) -> None:
    os.mkfifo(model / "assets" / "pipe")
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    assert str(raised.value) == (
        f"Model '{model}' holds 'assets/pipe', which is neither a file nor a folder. "
        "Remove it, and push again."
    )


def test_a_file_that_vanishes_while_it_is_copied_is_named(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    words = model / "words.txt"
    words.touch()

    def progress() -> None:
        words.unlink(missing_ok=True)

    with pytest.raises(ServingError, match=r"words\.txt'\)\. Mend that"):
        copy_folder(model, tmp_path / "copy", progress)


# --- what goes wrong


class _Stopped(BaseException):
    """Like KeyboardInterrupt: no `except Exception` catches it."""


@pytest.mark.parametrize("after", range(2))
def test_a_stopped_push_leaves_nothing(serving: Path, model: Path, after: int) -> None:
    push(serving, model)
    calls = iter(range(100))

    def progress() -> None:
        if next(calls) == after:
            raise _Stopped

    with pytest.raises(_Stopped):
        push(serving, model, progress=progress)
    assert numbers(serving) == [1]
    assert staged(serving) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_push_stopped_before_it_appears_takes_its_manifest_with_it(
    serving: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    push(serving, model)

    def stop(*_: str) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(version_dir, "rename_new", stop)
        with pytest.raises(error):
            push(serving, model)
    manifests = serving / ".penstock" / "manifests"
    assert os.listdir(manifests) == ["1.json"]
    assert staged(serving) == []
    # The number it was given stays burned.
    assert push(serving, model).number == 3


def test_a_push_stopped_after_it_appeared_leaves_the_version_whole(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = durable.rename_new

    def stop(source: str, target: str) -> None:
        rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(version_dir, "rename_new", stop)
    with pytest.raises(KeyboardInterrupt):
        push(serving, model)
    assert verify(serving, 1) == ()
    assert staged(serving) == []


def test_the_first_error_is_told_if_staging_cannot_be_removed_either(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise _Stopped

    def fail(*_: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(staging, "_discard", fail)
        with pytest.raises(_Stopped):
            push(serving, model, progress=stop)
    assert len(staged(serving)) == 1
    push(serving, model)
    assert staged(serving) == []


def test_an_empty_staging_folder_without_a_lock_is_removed(
    serving: Path, model: Path
) -> None:
    # What is left of a push that was killed between making the two.
    (serving / ".penstock" / "staging" / "0123").mkdir(parents=True)
    push(serving, model)
    assert staged(serving) == []


def test_the_staging_of_a_living_push_is_left_alone(serving: Path, model: Path) -> None:
    def check(_: Path) -> Mapping[str, Any]:
        assert len(staged(serving)) == 1
        assert push(serving, model).number == 1
        assert len(staged(serving)) == 1
        return {}

    assert push(serving, model, check=check).number == 2
    assert staged(serving) == []


def test_another_manifest_that_cannot_be_read_stops_no_clean_up(
    serving: Path, model: Path
) -> None:
    push(serving, model)
    (serving / ".penstock" / "manifests" / "1.json").write_text("{")
    with pytest.raises(ServingError):
        push(serving, model, digest="sha256:" + "0" * 64)
    assert staged(serving) == []


@pytest.mark.parametrize("url", ["gs://bucket/models", "s3:/models", "file:///m"])
def test_a_url_is_no_serving_directory(url: str, model: Path) -> None:
    with pytest.raises(ServingError) as raised:
        push(Path(url), model)
    assert str(raised.value) == (
        f"Serving directory '{Path(url)}' is a URL, where a version cannot appear at "
        "once: that needs the rename and the locks of a POSIX file system. Pass a "
        "folder of this machine or of a mounted file system."
    )
    with pytest.raises(ServingError, match="is a URL"):
        versions(Path(url))


@pytest.mark.parametrize("below", ["", "/models"])
def test_a_file_is_no_serving_directory(
    tmp_path: Path, model: Path, below: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServingError) as raised:
        push(tmp_path / f"file{below}", model)
    text = str(raised.value)
    assert f"Serving directory '{tmp_path}/file{below}' is a file or lies below" in text
    assert text.endswith("Pass a folder.")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root's right to write everywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users reach; those of pytest are closed to them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_serving_directory_that_is_not_writable_is_refused(reachable: Path) -> None:
    model = make_model(reachable / "model")
    serving = reachable / "serving"
    serving.mkdir()
    serving.chmod(0o555)
    with unprivileged():
        user = os.geteuid()
        with pytest.raises(ServingError) as raised:
            push(serving, model)
    assert str(raised.value) == (
        f"Serving directory '{serving}' is closed to user id {user}: Permission denied "
        f"('{serving}/.penstock'). Give this user the right to read and write it, or "
        "pass another serving_dir."
    )


def test_versions_can_be_read_where_nothing_can_be_written(reachable: Path) -> None:
    model = make_model(reachable / "model")
    serving = reachable / "serving"
    push(serving, model)
    serving.chmod(0o555)
    with unprivileged():
        assert numbers(serving) == [1]
        assert verify(serving, 1) == ()


def test_a_model_that_cannot_be_read_is_refused(reachable: Path) -> None:
    model = make_model(reachable / "model")
    serving = reachable / "serving"
    serving.mkdir()
    serving.chmod(0o777)
    (model / "variables").chmod(0)
    with unprivileged(), pytest.raises(ServingError) as raised:
        push(serving, model)
    (model / "variables").chmod(0o755)
    assert str(raised.value) == (
        f"Model '{model}' cannot be read: Permission denied ('{model}/variables'). "
        "Mend that, or train the model again."
    )
    with unprivileged():
        (model / "saved_model.pb").stat()


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk with room for a megabyte.

    Where a file system can be mounted it is a real one; elsewhere `os.write` fails as
    on a full disk once a megabyte was written.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = (
        shutil.which("mount")
        and not subprocess.run(mount, capture_output=True, check=False).returncode
    )
    if mounted:
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
        return
    written = 0
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)
    yield disk


def test_a_full_disk_is_told_and_the_copy_removed(
    small_disk: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_BLOCK_BYTES", 1 << 16)
    serving = small_disk / "serving"
    push(serving, model)
    (model / "saved_model.pb").write_bytes(b"x" * 2_000_000)
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    text = str(raised.value)
    assert text.startswith(
        f"Serving directory '{serving}' is full (No space left on device): the model "
        "needs 2,000,005 bytes where "
    )
    assert text.endswith(" are free. Delete old versions, or pass another serving_dir.")
    assert numbers(serving) == [1]
    assert staged(serving) == []


@pytest.mark.parametrize("call", range(5))
def test_a_disk_that_fills_up_at_any_write_leaves_nothing(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    # Two files, then the check, the mark and the manifest.
    push(serving, model)
    calls = iter(range(100))
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ServingError, match="is full"):
            push(serving, model, check=lambda _: {})
    assert numbers(serving) == [1]
    assert staged(serving) == []
    assert os.listdir(serving / ".penstock" / "manifests") == ["1.json"]
    assert push(serving, model).number > 1


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    assert str(raised.value) == (
        f"Serving directory '{serving}' lies on a file system that cannot lock or "
        f"rename ({os.strerror(code)}), without which a version could be seen half "
        "copied. Pass a folder on a local disk."
    )


def test_a_file_system_that_cannot_rename_is_refused(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_renameat2", lambda *_: errno.EXDEV)
    with pytest.raises(ServingError, match="that cannot lock or rename"):
        push(serving, model)
    assert numbers(serving) == [] == staged(serving)


def test_any_other_failure_names_the_directory_and_the_file(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(errno.EIO, "Input/output error", target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ServingError) as raised:
        push(serving, model)
    assert str(raised.value) == (
        f"Serving directory '{serving}' failed: Input/output error "
        f"('{serving}/.penstock/high-water'). Mend that, and push again."
    )


def test_a_lock_that_is_never_released_is_told(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(serving, model)
    monkeypatch.setattr(locks, "_LOCK_WAIT_SECONDS", 0.05)
    lock = serving / ".penstock" / "lock"
    with open(lock, "w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(ServingError) as raised:
            push(serving, model)
    assert str(raised.value) == (
        f"Serving directory '{serving}' has been locked by another push for 0.05 "
        f"seconds. End the process that holds '{lock}', and push again."
    )


def test_a_lock_file_that_was_removed_while_waiting_is_not_trusted(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(serving, model)
    lock = serving / ".penstock" / "lock"
    flock = fcntl.flock
    removed: list[Path] = []

    def remove_once(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if operation != fcntl.LOCK_UN and not removed:
            removed.append(lock)
            lock.unlink()

    monkeypatch.setattr(fcntl, "flock", remove_once)
    assert push(serving, model).number == 2
    assert lock.exists()


# --- the check


def test_a_check_sees_the_copy_and_runs_once_for_the_same_bytes(
    serving: Path, model: Path
) -> None:
    seen = []

    def check(copy: Path) -> Mapping[str, Any]:
        seen.append((copy.parent.parent.name, folder_digest(copy)))
        return {"signatures": ["serving_default"]}

    push(serving, model, check=check)
    push(serving, model, check=check)
    assert seen == [("staging", folder_digest(model))]
    manifest = json.loads((serving / ".penstock/manifests/2.json").read_text())
    assert manifest["checked"] == {"signatures": ["serving_default"]}
    (model / "saved_model.pb").write_bytes(b"another")
    push(serving, model, check=check)
    assert len(seen) == 2


def test_a_refusal_is_not_remembered(serving: Path, model: Path) -> None:
    def refuse(_: Path) -> Mapping[str, Any]:
        raise ServingError("No.")

    for _ in range(2):
        with pytest.raises(ServingError, match=r"^No\.$"):
            push(serving, model, check=refuse)
    assert numbers(serving) == [] == staged(serving)
    push(serving, model, check=lambda _: {})


@pytest.mark.parametrize("text", ["", "[]", '{"loads":'])
def test_a_spoiled_result_is_found_out_again(
    serving: Path, model: Path, text: str
) -> None:
    push(serving, model, check=lambda _: {"run": 1})
    sha256 = folder_digest(model).partition(":")[2]
    known = serving / ".penstock" / "checked" / f"{sha256}.json"
    known.write_text(text)
    push(serving, model, check=lambda _: {"run": 2})
    assert json.loads(known.read_text()) == {"run": 2}


def test_at_most_two_checks_run_at_once(serving: Path, tmp_path: Path) -> None:
    running: list[int] = []
    most = 0
    calls = 0
    lock = threading.Lock()

    def check(_: Path) -> Mapping[str, Any]:
        nonlocal most, calls
        with lock:
            running.append(1)
            most = max(most, len(running))
            calls += 1
        time.sleep(0.02)
        with lock:
            running.pop()
        return {}

    models = [make_model(tmp_path / f"m{n}", bytes([n])) for n in range(8)]
    threads = [
        threading.Thread(target=push, args=(serving, each), kwargs={"check": check})
        for each in models * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(serving) == list(range(1, 17))
    assert calls == 8  # Equal models waited for one check.
    assert most == 2


# --- reading versions


def test_versions_tells_ours_from_others_and_from_damaged_ones(
    serving: Path, model: Path
) -> None:
    for _ in range(4):
        push(serving, model)
    (serving / "2" / "saved_model.pb").write_bytes(b"longer than it was")
    (serving / "3" / "extra").touch()
    (serving / ".penstock" / "manifests" / "4.json").write_text('{"files": {}}')
    (serving / "007").mkdir()
    (serving / "12").write_bytes(b"file")
    (serving / "-5").mkdir()
    (serving / "13.tmp").mkdir()
    (serving / "0001").symlink_to("nowhere")
    found = versions(serving)
    assert [(each.number, each.path.name, each.state.value) for each in found] == [
        (-5, "-5", "foreign"),
        (1, "0001", "foreign"),
        (1, "1", "complete"),
        (2, "2", "damaged"),
        (3, "3", "damaged"),
        (4, "4", "damaged"),
        (7, "007", "foreign"),
        (12, "12", "foreign"),
    ]
    by_name = {each.path.name: each for each in found}
    assert by_name["12"].size_bytes == 4
    assert by_name["1"].digest == by_name["2"].digest == folder_digest(model)
    assert by_name["4"].digest is by_name["007"].digest is None


def test_a_version_removed_while_it_is_listed_is_left_out(
    serving: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(serving, model)
    monkeypatch.setattr(os, "listdir", lambda _: ["1", "2"])
    assert numbers(serving) == [1]


def test_a_version_that_may_not_be_read_is_told(reachable: Path) -> None:
    serving = reachable / "serving"
    push(serving, make_model(reachable / "model"))
    (serving / "1" / "variables").chmod(0)
    with unprivileged(), pytest.raises(ServingError, match="is closed to user id"):
        versions(serving)
    (serving / "1" / "variables").chmod(0o755)


def test_verify_names_every_file_that_differs(serving: Path, model: Path) -> None:
    (model / "assets" / "words.txt").write_text("a")
    push(serving, model)
    pushed = serving / "1"
    (pushed / "saved_model.pb").write_bytes(b"grapH")
    (pushed / "variables" / "variables.index").write_bytes(b"index and more")
    (pushed / "assets" / "words.txt").unlink()
    (pushed / "assets" / "more.txt").touch()
    more, words, graph, index = verify(serving, 1)
    assert more == "'assets/more.txt' is not in the manifest."
    assert words == "'assets/words.txt' is missing."
    assert graph.startswith("'saved_model.pb' has the SHA-256 ")
    assert " where the manifest has " in graph
    assert index == (
        "'variables/variables.index' has 14 bytes where the manifest has 5."
    )


def test_verify_finds_one_flipped_byte_that_sizes_do_not_show(
    serving: Path, model: Path
) -> None:
    pushed = push(serving, model).path
    (pushed / "saved_model.pb").write_bytes(b"gr\x9eph")
    assert versions(serving)[0].state is VersionState.COMPLETE
    assert len(verify(serving, 1)) == 1


def test_verify_wants_a_version_that_is_there(serving: Path, model: Path) -> None:
    push(serving, model)
    push(serving, model)
    with pytest.raises(ServingError) as raised:
        verify(serving, 3)
    assert str(raised.value) == (
        f"Serving directory '{serving}' has no version 3 (it has 1, 2). Name one of "
        "these."
    )


def test_verify_wants_a_manifest(serving: Path) -> None:
    (serving / "5").mkdir(parents=True)
    with pytest.raises(ServingError) as raised:
        verify(serving, 5)
    assert str(raised.value) == (
        f"Version 5 in '{serving}' has no manifest: it was not pushed by penstock, so "
        "there is nothing to compare it with. Push the model to get a version that can "
        "be verified."
    )


def test_verify_refuses_a_manifest_that_penstock_did_not_write(
    serving: Path, model: Path
) -> None:
    push(serving, model)
    manifest = serving / ".penstock" / "manifests" / "1.json"
    manifest.write_text('{"files": {}}')
    with pytest.raises(ServingError) as raised:
        verify(serving, 1)
    assert str(raised.value) == (
        f"The manifest '{manifest}' is not what penstock writes (KeyError: "
        "'pushed_at'). Remove it, and push the model again."
    )


@pytest.mark.parametrize("read", [versions, lambda path: verify(path, 1)])
def test_reading_wants_a_folder(tmp_path: Path, read: Any) -> None:
    with pytest.raises(ServingError) as raised:
        read(tmp_path / "gone")
    assert str(raised.value) == (
        f"Serving directory '{tmp_path}/gone' does not exist. Pass the folder that "
        "holds the numbered versions."
    )
    (tmp_path / "file").touch()
    with pytest.raises(ServingError, match=r"file' is a file\. Pass the folder"):
        read(tmp_path / "file")


def test_reading_writes_nothing(serving: Path) -> None:
    (serving / "1").mkdir(parents=True)
    numbers(serving)
    assert os.listdir(serving) == ["1"]


def test_the_version_directory_loads_no_heavy_library() -> None:
    heavy = ("tensorflow", "apache_beam", "numpy", "pyarrow", "ml_metadata")
    code = (
        "import sys, penstock.components.serving.version_dir, "
        "penstock.components.serving.pusher; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "[]\n"
