"""scripts/flink says what it lacks, before it installs or starts anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FLINK = Path(__file__).resolve().parent.parent / "scripts" / "flink"
TOOLS = (
    *("bash", "cat", "cut", "dirname", "env", "flock", "getconf", "grep", "mkdir"),
    *("rm", "sed", "sha256sum", "sort"),
)
JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"


def said(tmp_path: Path, verb: str, **programs: str) -> tuple[int, str]:
    """Run scripts/flink where there are no other programs than those given."""
    found = tmp_path / "bin"
    found.mkdir()
    for name in TOOLS:
        (found / name).symlink_to(shutil.which(name) or f"/no/{name}")
    for name, line in programs.items():
        (found / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (found / name).chmod(0o755)
    done = subprocess.run(
        [FLINK, verb],
        env={"PATH": str(found), "PENSTOCK_FLINK": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "" or verb == "status"
    return done.returncode, done.stderr or done.stdout


@pytest.mark.parametrize(
    ("missing", "programs"), [("java", {}), ("javac", {"java": JAVA_17})]
)
def test_no_java(tmp_path: Path, missing: str, programs: dict[str, str]) -> None:
    assert said(tmp_path, "start", **programs) == (
        69,
        "A Flink cluster needs a Java Development Kit 17, and there is no "
        f"'{missing}' on PATH.\nInstall it, on Debian and Ubuntu with  apt-get install "
        "openjdk-17-jdk-headless\n",
    )


def test_another_java(tmp_path: Path) -> None:
    java = "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2"
    assert said(tmp_path, "start", java=java, javac="") == (
        69,
        "A Flink cluster needs Java 17, and 'java' on PATH is version 11.\nPut a Java "
        "Development Kit 17 first on PATH.\n",
    )


def test_no_maven(tmp_path: Path) -> None:
    assert said(tmp_path, "start", java=JAVA_17, javac="") == (
        69,
        "Flink's jars come from Maven's repository, and there is no 'mvn' on PATH.\n"
        "Install Maven, on Debian and Ubuntu with  apt-get install maven\n",
    )


def test_jars_that_cannot_be_got(tmp_path: Path) -> None:
    mvn = "echo '[ERROR] Unknown host' >&2; exit 1"
    code, text = said(tmp_path, "start", java=JAVA_17, javac="", mvn=mvn)
    assert code == 70
    assert text.splitlines()[1:] == [
        "[ERROR] Unknown host",
        "Maven did not get the jars of Flink and Beam; the lines above say why.",
    ]
    assert sorted(os.listdir(tmp_path / "home")) == ["lock", "maven.log"]


def test_nothing_runs(tmp_path: Path) -> None:
    code, text = said(tmp_path, "status")
    assert code == 1
    assert text.splitlines() == [
        f"{part} does not run"
        for part in (
            *("jobmanager", "taskmanager-1", "taskmanager-2"),
            *("workers", "jobserver"),
        )
    ]


def test_another_verb(tmp_path: Path) -> None:
    code, text = said(tmp_path, "restart")
    assert code == 2
    assert text.startswith("An Apache Flink cluster on this machine, for Beam pipe")
