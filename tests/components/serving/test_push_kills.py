"""Pushes that are killed anywhere, under the eyes of a watcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

# Kills lose no page cache, so memory shows as much as a disk, and shows it sooner.
MEMORY = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}


def push_kills(*options: str) -> dict[str, Any]:
    """Run the benchmark in a process that may fork: it has one thread."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.push_kills", *options],
        cwd=ROOT,
        env={**os.environ, **MEMORY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def assert_nothing_partial_was_seen(result: dict[str, Any], pushes: int) -> None:
    assert result["faults"] == []
    assert result["partial_versions"] == 0
    # The watcher saw every version, and looked again and again at each of them.
    assert result["watcher_checked"] > result["kills"] + pushes
    assert result["watcher_looks"] > 5 * result["watcher_checked"]
    # The same watcher catches a copier that writes in place.
    assert result["in_place_partial_versions"] > result["in_place_kills"] / 4
    assert result["in_place_partial_versions_watched"] > 0
    assert result["in_place_pushes_caught"] > 0
    assert (result["pushers"], result["distinct_versions"]) == (32, 32)
    assert result["pushes"] == pushes


def test_killed_pushes_leave_nothing_partial_and_32_at_once_rise(
    tmp_path: Path,
) -> None:
    state = tmp_path / "kills.json"
    options = (
        *("--random-kills", "8", "--control-kills", "10", "--pushes", "100"),
        *("--state", str(state)),
    )
    first = push_kills("--kills", "60", *options)
    assert_nothing_partial_was_seen(first, 100)
    assert first["kills"] == 60
    # Kills are counted per point and go on where the last run stopped.
    second = push_kills("--kills", "1", *options)
    assert (second["kills"], second["random_kills"]) == (61, 16)
    assert set(json.loads(state.read_text())["counts"].values()) == {0, 1}


@pytest.mark.long
def test_three_kills_at_every_point_leave_nothing_partial() -> None:
    result = push_kills("--random-kills", "50")
    assert_nothing_partial_was_seen(result, 2000)
    assert result["points"] > 600
    assert result["least_kills_per_point"] >= 3
    assert result["random_kills"] == 50


def test_a_harness_that_does_not_catch_the_in_place_copier_fails() -> None:
    code = (
        "from benchmarks import push_kills as harness; "
        "harness.push_in_place = harness.push; "
        "harness.main(['--kills', '0', '--control-kills', '3'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **MEMORY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "The copier that writes in place was not caught" in done.stderr
    assert done.returncode == 1
