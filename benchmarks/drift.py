"""Drift: profiles against profiles, wide tables against a stored reference, Evidently.

- `profile_s`: the grid, the reference's profile and the window's are read from files,
  and every drift measure of 300 features (240 numbers, 60 categories of up to 1,000
  values) is taken.
- `wide_s`: 300,000 rows x 1,000 columns (900 float32, 100 of names) are profiled and
  compared with a reference that is read from files. The rows are generated in batches
  of 30,000 and the generating is not counted.
- `bytes_per_feature`: of a window's profile as stored, the grid apart, by rows of the
  window; the most of them counts.
- `ratio`: seconds of Evidently's drift report with its defaults over ours, on the same
  float64 frames in memory: ours profiles the window and compares it with the stored
  reference, as every day. `ratio_with_reference` counts making the reference, too.

Every figure is of a fresh process that has imported what it needs before the clock
starts. Evidently is installed into an environment of its own; where that cannot be had,
`ratio` is null and `peer_reason` says why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._children import ask, measured, median

if TYPE_CHECKING:
    import pyarrow as pa

EVIDENTLY = "evidently==0.7.23"
PEER_NEEDS = (EVIDENTLY, "pandas<3")  # it does not import with pandas 3
REFERENCE_ROWS = 20_000
WINDOW_ROWS = (200, 5_000, 300_000)
BATCH = 30_000
SLOW_PEER_SECONDS = 60
CATEGORIES = (2, 5, 20, 100, 1_000)


def main(argv: list[str]) -> dict[str, Any]:
    """Let all sides run in turn, and return the medians."""
    parser = argparse.ArgumentParser(prog="drift", description=__doc__)
    parser.add_argument("--features", type=int, default=300, help="of profile_s")
    parser.add_argument("--rows", type=int, default=300_000, help="of the wide table")
    parser.add_argument("--columns", type=int, default=1_000, help="of the wide table")
    parser.add_argument("--peer-rows", type=int, default=100_000)
    parser.add_argument("--peer-columns", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3, help="of each side")
    parser.add_argument("--peer", type=Path, help="a Python that has Evidently")
    parser.add_argument("--no-peer", action="store_true", help="leave it out")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return _child(options)

    folder = Path(tempfile.mkdtemp(prefix="drift-", dir=options.folder))
    try:
        return _compared(folder, options)
    finally:
        shutil.rmtree(folder)


def _compared(folder: Path, options: Any) -> dict[str, Any]:
    shape = [
        *("--folder", str(folder)),
        *("--features", str(options.features)),
        *("--rows", str(options.rows)),
        *("--columns", str(options.columns)),
        *("--peer-rows", str(options.peer_rows)),
        *("--peer-columns", str(options.peer_columns)),
    ]
    prepared = ask("drift", "prepare", *shape)
    peer, reason = (None, "--no-peer was given") if options.no_peer else _peer(options)
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.runs):
        for name in ("profile", "wide", "frame", "frame-reference"):
            found.setdefault(name, []).append(ask("drift", name, *shape))
        done = found.get("peer", [])
        if peer and (not done or done[0]["seconds"] <= SLOW_PEER_SECONDS):
            said, reason = _ask_peer(peer, folder)
            if said is None:
                peer = None
            else:
                found.setdefault("peer", []).append(said)
    seconds = {name: median(each) for name, each in found.items()}
    peer_seconds = seconds.get("peer")
    by_rows = prepared["bytes_per_feature"]
    return {
        "profile_s": seconds["profile"],
        "profile_cpu_s": median(found["profile"], "cpu_seconds"),
        "profile_read_s": median(found["profile"], "read_seconds"),
        "features": options.features,
        "wide_s": seconds["wide"],
        "wide_cpu_s": median(found["wide"], "cpu_seconds"),
        "wide_rows": options.rows,
        "wide_columns": options.columns,
        "wide_peak_memory_gib": median(found["wide"], "peak_memory_gib"),
        "bytes_per_feature": max(by_rows.values()),
        "bytes_per_feature_by_rows": by_rows,
        "most_bytes_of_a_feature": prepared["most_bytes"],
        "grid_bytes_per_feature": prepared["grid_bytes_per_feature"],
        "ratio": _ratio(peer_seconds, seconds["frame"]),
        "ratio_with_reference": _ratio(peer_seconds, seconds["frame-reference"]),
        "frame_s": seconds["frame"],
        "frame_with_reference_s": seconds["frame-reference"],
        "frame_rows": options.peer_rows,
        "frame_columns": options.peer_columns,
        "frame_cpu_s": median(found["frame"], "cpu_seconds"),
        "peer_s": peer_seconds,
        "peer_cpu_s": median(found["peer"], "cpu_seconds") if "peer" in found else None,
        "peer_reason": reason,
        "peer_versions": {
            name: found["peer"][0][name] for name in ("evidently", "numpy", "pandas")
        }
        if "peer" in found
        else None,
        "processors": os.cpu_count(),
        "runs": {name: len(each) for name, each in found.items()},
    }


def _ratio(peer: float | None, ours: float) -> float | None:
    return None if peer is None else round(peer / ours, 1)


def _peer(options: Any) -> tuple[Path | None, str]:
    """Return a Python that has Evidently, installing it; or why there is none."""
    if options.peer:
        return options.peer, ""
    root = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = root / "penstock-benchmarks" / EVIDENTLY.replace("==", "-")
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if complete.exists():
        return python, ""
    print(f"Installing {EVIDENTLY} into {folder} ...", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *PEER_NEEDS],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return None, f"{EVIDENTLY} could not be installed: {' '.join(last)}"
    complete.touch()
    return python, ""


def _ask_peer(python: Path, folder: Path) -> tuple[dict[str, Any] | None, str]:
    script = Path(__file__).with_name("_evidently.py")
    files = [str(folder / "reference.npy"), str(folder / "current.npy")]
    done = subprocess.run(
        [str(python), str(script), *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DO_NOT_TRACK": "1", "PYTHONPATH": ""},
    )
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        return None, f"Evidently's report failed: {last}"
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print("peer", said, file=sys.stderr, flush=True)
    return said, ""


def _child(options: Any) -> dict[str, Any]:
    folder: Path = options.folder
    if options.child == "prepare":
        return _prepare(folder, options)
    if options.child == "profile":
        return _profile(folder)
    if options.child == "wide":
        return _wide(folder, options.rows, options.columns)
    return _frame(folder, with_reference=options.child == "frame-reference")


def _prepare(folder: Path, options: Any) -> dict[str, Any]:
    """Write references and a window, and say what profiles take."""
    import numpy as np

    from penstock.components.monitoring.profile_files import (
        grid_path,
        stored_lengths,
        write_profile,
    )
    from penstock.components.monitoring.profiling import profile_table
    from penstock.components.monitoring.reference import Reference, write_reference
    from penstock.components.monitoring.windows import Window

    features, day = options.features, Window.day("2026-11-30")
    reference = Reference.of(_mixed(REFERENCE_ROWS, features, 0), model="features")
    write_reference(reference, folder / "features")
    sizes = {}
    most = 0
    for rows in WINDOW_ROWS:
        profile = profile_table(
            reference.grid, _mixed(rows, features, rows), day, model="features"
        )
        path = write_profile(profile, folder / "features", f"window-{rows}")
        sizes[str(rows)] = round(path.stat().st_size / features)
        most = max(most, *stored_lengths(path).values())
    wide = Reference.of(_mixed(REFERENCE_ROWS, options.columns, 1), model="wide")
    write_reference(wide, folder / "wide")
    rng = np.random.default_rng(2)
    shape = options.peer_rows, options.peer_columns
    for name in ("reference", "current"):
        values = rng.normal(size=shape)
        values[:, ::3] = np.exp(values[:, ::3])
        np.save(folder / f"{name}.npy", values)
    stored = Reference.of(_frame_table(folder, "reference"), model="frame")
    write_reference(stored, folder / "frame")
    grid = grid_path(folder / "features", reference.grid.id)
    return {
        "bytes_per_feature": sizes,
        "most_bytes": most,
        "grid_bytes_per_feature": round(grid.stat().st_size / features),
    }


def _profile(folder: Path) -> dict[str, Any]:
    """Read a reference and a window, and take every measure."""
    from penstock.components.monitoring.comparing import compare_windows
    from penstock.components.monitoring.profile_files import read_profile
    from penstock.components.monitoring.reference import read_reference

    _warm_up()
    where = folder / "features"

    def run() -> dict[str, Any]:
        started = time.perf_counter()
        reference = read_reference(where)
        window = read_profile(where / "window-5000.profile", reference.grid)
        read = time.perf_counter() - started
        found = compare_windows(reference.profile, window, reference_id=reference.id)
        return {"read_seconds": read, "columns": len(found.columns)}

    return _measured(run)


def _wide(folder: Path, rows: int, columns: int) -> dict[str, Any]:
    """Profile a wide table in batches, and compare it with a stored reference."""
    from penstock.components.monitoring.comparing import compare_windows
    from penstock.components.monitoring.profiling import profile_batches
    from penstock.components.monitoring.reference import read_reference
    from penstock.components.monitoring.windows import Window

    _warm_up()
    generating = generating_cpu = 0.0

    def batches() -> Iterator[pa.Table]:
        nonlocal generating, generating_cpu
        for start in range(0, rows, BATCH):
            started, cpu = time.perf_counter(), time.process_time()
            batch = _mixed(min(BATCH, rows - start), columns, 10 + start)
            generating += time.perf_counter() - started
            generating_cpu += time.process_time() - cpu
            yield batch

    def run() -> dict[str, Any]:
        reference = read_reference(folder / "wide")
        window = Window.day("2026-11-30")
        profile = profile_batches(reference.grid, batches(), window, model="wide")
        found = compare_windows(reference.profile, profile, reference_id=reference.id)
        return {"rows": profile.rows, "columns": len(found.columns)}

    said = _measured(run)
    return {
        **said,
        "seconds": said["seconds"] - generating,
        "cpu_seconds": said["cpu_seconds"] - generating_cpu,
        "generating": generating,
    }


def _frame(folder: Path, *, with_reference: bool) -> dict[str, Any]:
    """Do on the peer's frames what the peer does."""
    from penstock.components.monitoring.comparing import compare_windows
    from penstock.components.monitoring.profiling import profile_table
    from penstock.components.monitoring.reference import Reference, read_reference
    from penstock.components.monitoring.windows import Window

    _warm_up()
    before, current = _frame_table(folder, "reference"), _frame_table(folder, "current")

    def run() -> dict[str, Any]:
        if with_reference:
            reference = Reference.of(before, model="frame")
        else:
            reference = read_reference(folder / "frame")
        window = Window.day("2026-11-30")
        profile = profile_table(reference.grid, current, window, model="frame")
        found = compare_windows(
            reference.profile, profile, reference_id=reference.grid.id
        )
        return {"rows": profile.rows, "columns": len(found.columns)}

    return _measured(run)


def _measured(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call a function as `measured` does, and count its processor's seconds, too.

    On a machine with other work they say what the seconds would be without it.
    """
    before = time.process_time()
    said = measured(run)
    return {**said, "cpu_seconds": time.process_time() - before}


def _warm_up() -> None:
    """Load what is loaded when it is first used, as scipy."""
    from penstock.components.monitoring.comparing import compare_windows
    from penstock.components.monitoring.profiling import profile_table
    from penstock.components.monitoring.reference import Reference
    from penstock.components.monitoring.windows import Window

    rows = _mixed(2_000, 10, 3)
    reference = Reference.of(rows)
    profile = profile_table(reference.grid, rows, Window.day("2026-11-30"))
    compare_windows(reference.profile, profile)


def _mixed(rows: int, columns: int, seed: int) -> pa.Table:
    """Return numbers, and in every tenth column or, of 300, every fifth, names."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng([seed, columns])
    every = 10 if columns > 300 else 5
    names = pa.array([f"value {each:04}" for each in range(max(CATEGORIES))])
    arrays: list[Any] = []
    for number in range(columns):
        if number % every == every - 1:
            many = CATEGORIES[number // every % len(CATEGORIES)]
            # A few are common and many are rare.
            place = (rng.random(rows) ** 2 * many).astype(np.int32)
            arrays.append(pa.DictionaryArray.from_arrays(place, names.slice(0, many)))
        else:
            values = rng.standard_normal(rows, np.float32)
            kind = number % 4
            if kind == 1:
                values = np.exp(values)
            elif kind == 2:
                values = np.floor(values * 20)
            arrays.append(pa.array(values))
    return pa.table(arrays, names=[f"f{each:04}" for each in range(columns)])


def _frame_table(folder: Path, name: str) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    values = np.load(folder / f"{name}.npy")
    # As pandas has them: a column lies together.
    columns = np.asfortranarray(values)
    arrays = [pa.array(columns[:, each]) for each in range(columns.shape[1])]
    return pa.table(arrays, names=[f"f{each:04}" for each in range(len(arrays))])
