"""Conformance: which versions of a serving directory are wanted.

Every case names what it mirrors in TensorFlow Serving, in
sources/storage_path/file_system_storage_path_source_test.cc unless it says otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorflow_serving.config import file_system_storage_path_source_pb2

from penstock.components.serving.model_server.source import (
    FileSystemSource,
    Monitored,
    Versions,
    aspired_versions,
)
from penstock.components.serving.model_server.status import Code, ServableError

_Policy = (
    file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig
).ServableVersionPolicy


def latest(number: int = 0) -> Any:
    policy = _Policy()
    policy.latest.num_versions = number
    return policy


def every() -> Any:
    policy = _Policy()
    policy.all.SetInParent()
    return policy


def specific(*versions: int) -> Any:
    policy = _Policy()
    policy.specific.versions.extend(versions)
    return policy


def wanted(base: Path, policy: Any = None) -> list[int]:
    model = Monitored("m", base, _Policy() if policy is None else policy)
    return [version for version, _ in aspired_versions(model)]


@pytest.fixture
def folders(base: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        base.mkdir(exist_ok=True)
        for name in names:
            (base / name).mkdir()
        return base

    return make


class Target:
    """Takes note of what a source passes on."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[int]]] = []

    def __call__(self, name: str, versions: Versions) -> None:
        self.told.append((name, [version for version, _ in versions]))


def test_no_versions_at_startup(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc NoVersionsAtStartup"""
    assert wanted(folders("non_numerical_child")) == []


def test_no_base_path_at_startup(base: Path) -> None:
    """file_system_storage_path_source_test.cc NoVersionsAtStartup (no base path)"""
    with pytest.raises(ServableError) as error:
        wanted(base)
    assert error.value.code is Code.INVALID_ARGUMENT
    assert error.value.message == (
        f"Could not find base path {base} for servable m with error NOT_FOUND: "
        f"{base} not found"
    )


def test_a_base_path_that_is_a_file(tmp_path: Path) -> None:
    """file_system_storage_path_source.cc PollFileSystemForServable (GetChildren)"""
    (tmp_path / "file").touch()
    with pytest.raises(ServableError, match="Not a directory"):
        wanted(tmp_path / "file")


def test_files_appear_after_startup(base: Path, folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc FilesAppearAfterStartup"""
    target = Target()
    source = FileSystemSource(target, -1)
    source.update([Monitored("m", base, _Policy())])
    with pytest.raises(ServableError):
        source.poll()
    folders("3")
    source.poll()
    assert target.told == [("m", [3])]


def test_multiple_versions(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc MultipleVersions"""
    assert wanted(folders("non_numerical_child", "42", "17")) == [42]


def test_multiple_versions_at_the_same_time(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc MultipleVersionsAtTheSameTime"""
    assert wanted(folders("non_numerical_child", "42", "17"), every()) == [17, 42]


def test_n_latest_versions(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc NLatestVersions"""
    base = folders("non_numerical_child", "42", "33", "30", "21", "17")
    assert wanted(base, latest(3)) == [42, 33, 30]


def test_specific_versions(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc SpecificVersions"""
    base = folders("non_numerical_child", "42", "33", "30", "21", "17")
    assert wanted(base, specific(17, 30)) == [17, 30]


def test_a_specific_version_that_is_absent(
    folders: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """file_system_storage_path_source.cc AspireSpecificVersions (not found)"""
    assert wanted(folders("1"), specific(1, 9)) == [1]
    assert "Version 9 of servable m" in caplog.text


def test_default_version_policy(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc DefaultVersionPolicy"""
    assert wanted(folders("non_numerical_child", "42", "33", "30")) == [42]


def test_default_num_latest_versions(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc DefaultNumLatestVersions"""
    assert wanted(folders("non_numerical_child", "42", "33", "30"), latest()) == [42]


def test_multiple_servables(tmp_path: Path) -> None:
    """file_system_storage_path_source_test.cc MultipleServables"""
    for name in ("0/1", "0/3", "1/42", "2"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    target = Target()
    source = FileSystemSource(target, -1)
    source.update([Monitored(f"s{i}", tmp_path / str(i), _Policy()) for i in range(3)])
    source.poll()
    assert target.told == [("s0", [3]), ("s1", [42]), ("s2", [])]


def test_one_missing_base_path_stops_the_poll_for_all(tmp_path: Path) -> None:
    """file_system_storage_path_source.cc PollFileSystemForConfig (first error)"""
    (tmp_path / "a" / "1").mkdir(parents=True)
    target = Target()
    source = FileSystemSource(target, -1)
    source.update(
        [Monitored(name, tmp_path / name, _Policy()) for name in ("a", "missing")]
    )
    with pytest.raises(ServableError, match="for servable missing"):
        source.poll()
    assert target.told == []


def test_change_set_of_servables(tmp_path: Path) -> None:
    """file_system_storage_path_source_test.cc ChangeSetOfServables"""
    for i in range(3):
        (tmp_path / str(i) / "0").mkdir(parents=True)
    target = Target()
    source = FileSystemSource(target, -1)
    models = [Monitored(f"s{i}", tmp_path / str(i), _Policy()) for i in range(3)]
    source.update(models[:2])
    source.poll()
    target.told.clear()
    source.update(models[1:])
    # The one that stays is never told to be wanted in no version.
    assert target.told == [("s0", [])]
    source.poll()
    assert target.told == [("s0", []), ("s1", [0]), ("s2", [0])]


def test_change_version_policy(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc ChangeVersionPolicy"""
    base = folders("1", "2", "3", "5", "8", "13")
    target = Target()
    source = FileSystemSource(target, -1)
    source.update([Monitored("m", base, latest(2))])
    source.poll()
    source.update([Monitored("m", base, specific(2, 5))])
    source.poll()
    assert target.told == [("m", [13, 8]), ("m", [2, 5])]


def test_parse_timestamped_version(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc ParseTimestampedVersion"""
    assert wanted(folders("20170111173521"), every()) == [20170111173521]


def test_servable_version_dir_renamed(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc ServableVersionDirRenamed"""
    base = folders("1", "2", "3", "5", "8")
    assert wanted(base, every()) == [1, 2, 3, 5, 8]
    (base / "2").rename(base / "2.denied")
    (base / "5").rename(base / "5.denied")
    (base / "8").rmdir()
    assert wanted(base, every()) == [1, 3]


def test_duplicate_versions(
    folders: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """file_system_storage_path_source_test.cc DuplicateVersions"""
    base = folders("non_numerical_child", "0001", "001", "00001")
    ((version, path),) = aspired_versions(Monitored("m", base, every()))
    assert version == 1
    assert path.name in ("0001", "001", "00001")
    assert "Duplicate version directories detected" in caplog.text


def test_last_version_removed(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc LastVersionNotRemoved (not present)"""
    base = folders("42")
    assert wanted(base) == [42]
    (base / "42").rmdir()
    assert wanted(base) == []


def test_poll_filesystem_only_once(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source_test.cc PollFilesystemOnlyOnce"""
    base = folders("3")
    target = Target()
    source = FileSystemSource(target, 0)
    source.update([Monitored("m", base, _Policy())])
    source.start()
    assert source._thread is not None
    source._thread.join()  # it looked once, and ended
    folders("4")
    source.stop()
    assert target.told == [("m", [3])]


def test_polls_again_and_again(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source.cc SetAspiredVersionsCallback (period)"""
    base = folders("3")
    fourth = threading.Event()

    def told(_: str, versions: Versions) -> None:
        if [version for version, _ in versions] == [4]:
            fourth.set()

    source = FileSystemSource(told, 0.01)
    source.update([Monitored("m", base, _Policy())])
    source.start()
    folders("4")
    assert fourth.wait(60)
    source.stop()


def test_never_polls(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source.proto file_system_poll_wait_seconds < 0"""
    target = Target()
    source = FileSystemSource(target, -1)
    source.update([Monitored("m", folders("3"), _Policy())])
    source.start()
    source.stop()
    assert target.told == []


@pytest.mark.parametrize("name", ["43", "00043", " 43", "+43"])
def test_names_that_are_versions(folders: Callable[..., Path], name: str) -> None:
    """file_system_storage_path_source.cc ParseVersionNumber (safe_strto64)"""
    assert wanted(folders(name)) == [43]


@pytest.mark.parametrize("name", ["43.tmp", ".43", "43.denied", "4 3", "0x2b", "43L"])
def test_names_that_are_no_versions(folders: Callable[..., Path], name: str) -> None:
    """file_system_storage_path_source.cc IndexChildrenByVersion (skipped)"""
    assert wanted(folders(name)) == []


def test_negative_versions_are_the_lowest(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source.cc ParseVersionNumber (sign)"""
    assert wanted(folders("-1", "0"), latest(2)) == [0, -1]


def test_a_plain_file_is_a_version(folders: Callable[..., Path]) -> None:
    """file_system_storage_path_source.cc IndexChildrenByVersion (no IsDirectory)"""
    base = folders("42")
    (base / "43").touch()
    assert wanted(base) == [43]
