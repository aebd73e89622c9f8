"""What it costs to import penstock and to start its command line."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.version_dir import push

HEAVY = (
    "apache_beam",
    "google.protobuf",
    "grpc",
    "jinja2",
    "keras",
    "ml_metadata",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "starlette",
    "tensorboard",
    "tensorflow",
    "tensorflow_data_validation",
    "tensorflow_metadata",
    "tensorflow_model_analysis",
    "tensorflow_serving",
    "tf_keras",
    "tfx_bsl",
    "uvicorn",
)
"""What nothing may load before it needs it."""

VERSIONS = 100
"""How many versions the serving directory has that verbs are timed with."""

_LOADED = "import json, sys, penstock; print(json.dumps(sorted(sys.modules)))"


def main(argv: list[str]) -> dict[str, Any]:
    """Start fresh processes and return the median seconds of each kind."""
    parser = argparse.ArgumentParser(prog="import-time", description=__doc__)
    parser.add_argument("--processes", type=int, default=7, help="of each kind")
    processes = parser.parse_args(argv).processes

    seconds = _median_seconds(["-c", "import penstock"], processes)
    help_seconds = _median_seconds(["-m", "penstock", "--help"], processes)
    with tempfile.TemporaryDirectory() as root:
        serving_dir = Path(root, "serving")
        _fill(serving_dir, Path(root, "model"))
        versions = ["-m", "penstock", "versions", str(serving_dir)]
        versions_seconds = _median_seconds(versions, processes)
        verify = ["-m", "penstock", "verify", str(serving_dir)]
        verify_seconds = _median_seconds(verify, processes)
        rollback = ["-m", "penstock", "rollback", str(serving_dir), "--reason", "x"]
        rollback_seconds = _median_seconds(
            rollback, processes, before=lambda: _promote(serving_dir)
        )
    loaded = json.loads(_output(["-c", _LOADED]))
    return {
        "seconds": seconds,
        "help_seconds": help_seconds,
        "versions_seconds": versions_seconds,
        "verify_seconds": verify_seconds,
        "rollback_seconds": rollback_seconds,
        "versions": VERSIONS,
        "bare_python_seconds": _median_seconds(["-c", "pass"], processes),
        "heavy_modules": [name for name in loaded if name in HEAVY],
        "processes": processes,
    }


def _fill(serving_dir: Path, model: Path) -> None:
    model.mkdir()
    (model / "saved_model.pb").write_bytes(bytes(100_000))
    for _ in range(VERSIONS):
        push(serving_dir, model, model_uri="/models/1", run_id="run")


def _promote(serving_dir: Path) -> None:
    """Make a version stable that can be rolled back from."""
    with Ledger(serving_dir) as ledger, ledger.writing() as transaction:
        event = transaction.event("promoted", VERSIONS)
        route(transaction, Routing(stable=VERSIONS, previous=VERSIONS - 1), event)


def _median_seconds(
    arguments: list[str], processes: int, before: Callable[[], object] = lambda: None
) -> float:
    before()
    _output(arguments)  # once unmeasured, so that every file is in the page cache
    measured = []
    for _ in range(processes):
        before()
        start = time.perf_counter()
        _output(arguments)
        measured.append(time.perf_counter() - start)
    return round(statistics.median(measured), 3)


def _output(arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
