"""Fresh processes that measure one thing each, and what they measure."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RUN = Path(__file__).resolve().parent / "run.py"


def ask(benchmark: str, child: str, *options: str) -> dict[str, Any]:
    """Return what a fresh process of a benchmark says, called with `--child`."""
    command = [sys.executable, str(_RUN), benchmark, "--child", child, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The process of '{child}' failed:\n{done.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(child, said, file=sys.stderr, flush=True)
    return said


def measured(run: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """Call a function once; return its seconds, its peak memory and what it says.

    The peak is what the function adds to what was there before it.
    """
    before = _memory("VmRSS")
    # Forget the peak that the imports reached.
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    said = run()
    seconds = time.perf_counter() - started
    peak = (_memory("VmHWM") - before) / (1 << 20)
    return {
        "seconds": seconds,
        "peak_memory_gib": round(max(peak, 0.0), 3),
        **(said or {}),
    }


def median(found: list[dict[str, Any]], key: str = "seconds") -> float:
    """Return the median of a figure."""
    return float(round(statistics.median(each[key] for each in found), 3))


def _memory(name: str) -> int:
    """Return a figure of this process's memory, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no '{name}'. Run this on Linux.")
