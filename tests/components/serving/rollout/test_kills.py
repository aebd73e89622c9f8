"""Controllers that are killed anywhere, with rivals: the benchmark, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[4]


def killed(*options: str) -> Any:
    """Kill controllers in a process of its own, whose forks are small and quick."""
    done = subprocess.run(
        [sys.executable, "benchmarks/run.py", "rollout-kills", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_few_kills_break_nothing() -> None:
    came = killed("--points=12", "--random=12", "--seed=1")
    assert came["faults"] == 0, came["first_faults"]


@pytest.mark.long
def test_kills_at_every_kind_of_point_and_at_random_break_nothing() -> None:
    came = killed("--points=200", "--random=200", "--seed=2")
    assert came["faults"] == 0, came["first_faults"]
    assert came["kills_at_points"] >= 150 and came["kills_at_random"] >= 200
    assert came["careless_caught"] >= 4
