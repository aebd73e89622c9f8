"""What an execution ran in, with real Git repositories."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines import child, environment
from penstock.pipelines.environment import capture, described, packages, packages_file
from penstock.pipelines.metadata import Store
from tests.pipelines.toys import Make


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=Yvonne", "-c", "user.email=yvonne@example.org"]
    done = subprocess.run(
        ["git", *settings, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository with one commit, of code in a folder of it."""
    folder = tmp_path / "repository"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "model.py").write_text("layers = 2\n")
    (folder / ".gitignore").write_text("ignored/\n")
    git(folder, "init", "-q")
    git(folder, "remote", "add", "origin", "https://yvonne:secret@example.org/taxi.git")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def commit_of(folder: Path) -> dict[str, Any]:
    said = capture(folder.parent / "root", folder.parent, folder)
    return {
        name.removeprefix("penstock_environment_git_"): value
        for name, value in said.items()
        if "_git_" in name
    }


# Packages ------------------------------------------------------------------------


def test_the_packages_are_kept_by_their_digest(tmp_path: Path) -> None:
    said = capture(tmp_path, tmp_path, tmp_path)
    digest = str(said["penstock_environment_packages"])
    file = packages_file(tmp_path, digest)
    assert file.parent == tmp_path / ".penstock" / "environments"
    assert file.name == f"{digest.removeprefix('sha256:')}.txt"
    kept = file.read_bytes()
    assert digest == f"sha256:{hashlib.sha256(kept).hexdigest()}"
    lines = kept.decode().splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*==\S+", line) for line in lines)
    for name in ("numpy", "apache-beam", "ml-metadata"):
        assert f"{name}=={importlib.metadata.version(name)}" in lines
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_every_installed_package_is_listed() -> None:
    expected = {
        re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        for each in importlib.metadata.distributions()
    }
    assert {line.partition("==")[0] for line in packages().splitlines()} == expected


def test_the_list_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    said = capture(tmp_path, tmp_path, tmp_path)
    file = packages_file(tmp_path, str(said["penstock_environment_packages"]))
    before = file.stat()
    assert capture(tmp_path, tmp_path, tmp_path) == said
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (
        *(before.st_ino, before.st_mtime_ns),
    )


def test_what_is_installed_meanwhile_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = packages()
    info = tmp_path / "Toy.Model-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: Toy.Model\nVersion: 1.2\n\nName: other\n"
    )
    assert set(packages().splitlines()) - set(before.splitlines()) == {"toy-model==1.2"}


def test_a_package_without_a_name_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = packages()
    (tmp_path / "broken-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packages() == before


def test_a_list_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(environment, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        capture(tmp_path, tmp_path, tmp_path)
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_packages_are_read_once_per_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = importlib.metadata.distributions

    def counted() -> Any:
        asked.append(1)
        return real()

    monkeypatch.setattr(importlib.metadata, "distributions", counted)
    environment._packages.cache_clear()
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "site-" in each])
    for _ in range(3):
        capture(tmp_path, tmp_path, tmp_path)
    assert asked == [1]


# Machine and settings --------------------------------------------------------------


def test_the_machine_is_described(tmp_path: Path) -> None:
    said = capture(tmp_path, tmp_path, tmp_path)
    assert said["penstock_environment_python"] == (
        f"{platform.python_implementation()} {platform.python_version()}"
    )
    assert said["penstock_environment_cpu_count"] == os.cpu_count()
    assert said["penstock_environment_cpu"]
    assert said["penstock_environment_platform"] == platform.platform()
    assert platform.node() not in json.dumps(said)


def test_the_processor_has_a_name_where_the_system_tells_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert environment._cpu() == platform.machine()


def test_the_settings_are_those_of_a_component_of_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/ada/x --xla_gpu_ops=true")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    said = json.loads(
        str(capture(tmp_path, tmp_path, tmp_path)["penstock_environment_variables"])
    )
    assert {**said, **child.ENVIRONMENT} == said
    assert said["OMP_NUM_THREADS"] == "3"
    assert said["XLA_FLAGS"] == "--xla_dump_to=... --xla_gpu_ops=true"
    assert not {"KERAS_BACKEND", "AWS_SECRET_ACCESS_KEY"} & said.keys()


# Git -----------------------------------------------------------------------------


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    assert commit_of(repository) == {"commit": head, "dirty": 0}
    root = repository.parent
    said = json.dumps(capture(root, root, repository / "code"))
    assert head in said
    # None of them is what hexadecimal digits may spell, as "ada" would be.
    for word in ("Yvonne", "yvonne", "secret", "example.org", "origin"):
        assert word not in said


@pytest.mark.parametrize(
    ("path", "is_dirty"),
    [
        ("code/model.py", 1),  # changed
        (".gitignore", 1),
        ("code/helpers/new.py", 1),  # new
        ("new.py", 1),
        ("data/trips.csv", 0),  # not code
        ("ignored/new.py", 0),
    ],
)
def test_a_tree_with_changes_is_dirty(
    repository: Path, path: str, is_dirty: int
) -> None:
    (repository / path).parent.mkdir(exist_ok=True)
    (repository / path).write_text("something else")
    for folder in (repository, repository / "code"):
        assert commit_of(folder)["dirty"] == is_dirty


def test_staged_and_deleted_files_are_changes(repository: Path) -> None:
    (repository / "code" / "model.py").unlink()
    assert commit_of(repository)["dirty"] == 1
    git(repository, "add", "-A")
    assert commit_of(repository)["dirty"] == 1
    git(repository, "commit", "-q", "-m", "second")
    assert commit_of(repository)["dirty"] == 0


def test_a_commit_made_meanwhile_is_noticed(repository: Path) -> None:
    before = commit_of(repository)
    (repository / "code" / "model.py").write_text("layers = 3\n")
    git(repository, "commit", "-q", "-a", "-m", "second")
    after = commit_of(repository)
    assert after["commit"] == git(repository, "rev-parse", "HEAD") != before["commit"]


def test_what_a_hook_has_set_does_not_count(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / "nowhere"))
    assert commit_of(repository)["dirty"] == 0


def test_nothing_is_written_to_the_repository(repository: Path) -> None:
    # A touched file makes Git refresh its index, unless it is told not to.
    os.utime(repository / "code" / "model.py")
    before = (repository / ".git" / "index").read_bytes()
    assert commit_of(repository)["dirty"] == 0
    assert (repository / ".git" / "index").read_bytes() == before


def test_a_command_in_the_repositorys_settings_is_not_run(repository: Path) -> None:
    hook = repository.parent / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {repository.parent}/ran\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    assert commit_of(repository)["dirty"] == 0
    assert not (repository.parent / "ran").exists()


def test_a_folder_without_a_repository_is_told(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == {"commit": "no repository"}


def test_a_repository_without_a_commit_is_told(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == {"commit": "no commit yet"}


def test_a_machine_without_git_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert commit_of(repository) == {"commit": "no git"}


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    said = capture(tmp_path, tmp_path, tmp_path / "gone")
    assert said["penstock_environment_git_commit"] == "git failed"


def test_a_git_that_refuses_is_no_error(repository: Path) -> None:
    (repository / ".git" / "config").write_text("[broken")
    assert commit_of(repository) == {"commit": "git failed"}


def test_a_git_that_does_not_answer_is_given_up(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = repository.parent / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(environment, "_GIT_SECONDS", 0.1)
    assert commit_of(repository) == {"commit": "git took over 0.1 s"}


# Shown ---------------------------------------------------------------------------


def test_it_is_described_in_one_line() -> None:
    said: dict[str, Any] = {
        "packages": f"sha256:{'ab' * 32}",
        "python": "CPython 3.11.2",
        "cpu": "Some Processor @ 2 GHz",
        "cpu_count": 8,
        "git_commit": "c0ffee" * 7,
        "git_dirty": 0,
    }

    def line(**others: Any) -> str:
        properties = {**said, **others}
        return described(
            {f"penstock_environment_{name}": each for name, each in properties.items()}
        )

    start = "CPython 3.11.2, packages abababababab, 8 x Some Processor @ 2 GHz, "
    assert line() == f"{start}commit c0ffeec0ffee"
    assert line(git_dirty=1) == f"{start}commit c0ffeec0ffee with changes"
    assert line(git_commit="no repository") == f"{start}no repository"
    assert described({"penstock_seconds": 3.0}) == ""


def test_it_is_shown_with_the_run(tmp_path: Path, penstock: Callable[..., Any]) -> None:
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    store.begin_run("p", "r", {})
    said = capture(tmp_path, tmp_path, tmp_path)
    store.begin_execution(
        Make(), pipeline="p", run_id="r", inputs={}, properties={**said}
    )
    shown = penstock("show", "last", "--root", tmp_path)
    assert shown.code == 0
    assert f"Make ran in {described(said)}." in shown.out.replace("\n", " ")
    (listed,) = penstock("show", "last", "--root", tmp_path, "--json").json[
        "components"
    ]
    assert said.items() <= listed["properties"].items()
