"""However a receiver or a training is killed, an alert comes to exactly one run."""

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

# A process that forks has one thread; these libraries start some when imported.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


def retrain_kills(*arguments: str, before: str = "") -> dict[str, Any]:
    """Run the benchmark in a process that may fork: it has one thread."""
    code = (
        "import json, sys\n"
        "from benchmarks import retrain_kills\n"
        "from penstock.components.monitoring.retraining import journal\n"
        "from penstock.pipelines import retraining\n"
        f"{before}\n"
        "print(json.dumps(retrain_kills.main(sys.argv[1:])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **MEMORY, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_killed_where_it_matters_most_an_alert_comes_to_one_run() -> None:
    result = retrain_kills(
        *("--scenario", "together", "--scenario", "run", "--only"),
        "^together: after (sqlite (INSERT INTO decisions 1|COMMIT 2)$|Store.begin_run)|"
        "^run: before Store.(begin_execution|end_run) 1",
    )
    assert result["faults"] == []
    assert result["kills"] == 6


def test_a_receiver_that_forgets_what_it_answered_is_caught() -> None:
    result = retrain_kills(
        *("--scenario", "run", "--only", "after Store.end_run"),
        before="journal._answered = lambda sql, wish, answers: None",
    )
    assert any("decisions to start" in each for each in result["faults"])


@pytest.mark.long
def test_killed_anywhere_an_alert_comes_to_one_run() -> None:
    result = retrain_kills("--kills", "150")
    assert result["faults"] == []
    assert result["points"] > 500
    assert set(result["points_of"]) == {"together", "receiver", "run"}
