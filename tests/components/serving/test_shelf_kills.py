"""Quarantines, releases and deletions that are killed anywhere are finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

# Kills lose no page cache, so memory shows as much as a disk, and shows it sooner.
MEMORY = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}


def shelf_kills(before: str = "") -> dict[str, Any]:
    """Run the benchmark in a process that may fork: it has one thread."""
    code = (
        "import json\n"
        "from benchmarks import shelf_kills\n"
        "from penstock.components.serving import stock\n"
        f"{before}\n"
        "print(json.dumps(shelf_kills.main([])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, **MEMORY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_what_was_decided_is_done_wherever_it_was_killed() -> None:
    result = shelf_kills()
    assert result["faults"] == []
    assert result["kills"] == result["points"] > 100
    assert set(result["points_of"]) == {"quarantine", "release", "retain"}


def test_where_nobody_finishes_what_was_begun_it_is_caught() -> None:
    result = shelf_kills("stock.settle = lambda ledger: None")
    assert any("the ledger was left at ['quarantining" in f for f in result["faults"])
    assert any("lie there where the ledger has" in each for each in result["faults"])
