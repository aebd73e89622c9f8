"""What it costs to import penstock and to start its command line."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

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

_LOADED = "import json, sys, penstock; print(json.dumps(sorted(sys.modules)))"


def main(argv: list[str]) -> dict[str, Any]:
    """Start fresh processes and return the median seconds of each kind."""
    parser = argparse.ArgumentParser(prog="import-time", description=__doc__)
    parser.add_argument("--processes", type=int, default=7, help="of each kind")
    processes = parser.parse_args(argv).processes

    with tempfile.TemporaryDirectory() as serving_dir:
        seconds = _median_seconds(["-c", "import penstock"], processes)
        help_seconds = _median_seconds(["-m", "penstock", "--help"], processes)
        versions = ["-m", "penstock", "versions", serving_dir]
        versions_seconds = _median_seconds(versions, processes)
    loaded = json.loads(_output(["-c", _LOADED]))
    return {
        "seconds": seconds,
        "help_seconds": help_seconds,
        "versions_seconds": versions_seconds,
        "bare_python_seconds": _median_seconds(["-c", "pass"], processes),
        "heavy_modules": [name for name in loaded if name in HEAVY],
        "processes": processes,
    }


def _median_seconds(arguments: list[str], processes: int) -> float:
    _output(arguments)  # once unmeasured, so that every file is in the page cache
    measured = []
    for _ in range(processes):
        start = time.perf_counter()
        _output(arguments)
        measured.append(time.perf_counter() - start)
    return round(statistics.median(measured), 3)


def _output(arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
