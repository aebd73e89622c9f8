"""CSV to Parquet to statistics, against TFDV's own way from the same CSV file.

Both sides run in fresh processes that have imported what they need before the clock
starts; it stops when the files are on disk. The CSV file is generated anew, and read
once before each side so that the page cache is warm for both.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks._children import ask, measured, median

ROWS_AT_ONCE = 500_000
SLOW_PEER_SECONDS = 60


def main(argv: list[str]) -> dict[str, Any]:
    """Generate a file, let both sides run, and return the medians."""
    parser = argparse.ArgumentParser(prog="data-path", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="of each side, at least")
    parser.add_argument("--no-peer", action="store_true", help="leave TFDV out")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one")
    parser.add_argument("--child", choices=["ours", "peer"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return _child(options.child, options.folder)

    folder = Path(tempfile.mkdtemp(prefix="data-path-", dir=options.folder))
    try:
        return _compared(folder, options.rows, options.runs, not options.no_peer)
    finally:
        shutil.rmtree(folder)


def _compared(folder: Path, rows: int, runs: int, with_peer: bool) -> dict[str, Any]:
    source = folder / "input" / "trips.csv"
    source.parent.mkdir()
    write_trips(source, rows)
    ours: list[dict[str, Any]] = []
    peers: list[dict[str, Any]] = []
    for _ in range(runs):
        ours.append(_measured("ours", folder, source))
        if with_peer and (not peers or peers[0]["seconds"] <= SLOW_PEER_SECONDS):
            peers.append(_measured("peer", folder, source))
    result: dict[str, Any] = {
        "ratio": None,
        "ours_s": median(ours, "seconds"),
        "ours_ingestion_s": median(ours, "ingestion_seconds"),
        "peer_s": median(peers, "seconds") if peers else None,
        "rows_in": count_rows(source),
        "rows_out": ours[0]["rows"],
        "csv_bytes": source.stat().st_size,
        "peak_memory_gib": max(each["peak_memory_gib"] for each in ours),
        "peer_peak_memory_gib": (
            max(each["peak_memory_gib"] for each in peers) if peers else None
        ),
        "runs": len(ours),
        "peer_runs": len(peers),
        "versions": {
            name: version(name)
            for name in (
                "tensorflow-data-validation",
                "apache-beam",
                "pyarrow",
                "numpy",
            )
        },
    }
    if peers:
        result["ratio"] = round(result["peer_s"] / result["ours_s"], 2)
    return result


def _measured(side: str, folder: Path, source: Path) -> dict[str, Any]:
    """Return what one side's fresh process measured."""
    with open(source, "rb") as file:
        while file.read(1 << 24):
            pass
    work = folder / side
    work.mkdir()
    said = ask("data-path", side, "--folder", str(folder))
    shutil.rmtree(work)
    return said


def count_rows(source: Path) -> int:
    """Return the number of rows, counted with Python's csv module."""
    with open(source, newline="", encoding="utf-8") as file:
        return sum(1 for row in csv.reader(file) if row) - 1


# --- in the child processes ----------------------------------------------------------


def _child(side: str, folder: Path) -> dict[str, Any]:
    work = folder / side
    source = folder / "input" / "trips.csv"
    prepared = _ours if side == "ours" else _peer
    run = prepared(source, work)

    def ingested() -> dict[str, Any] | None:
        started = time.perf_counter()
        stopped = run()
        return None if stopped is None else {"ingestion_seconds": stopped - started}

    found = measured(ingested)
    if side == "ours":
        found["rows"] = _rows_written(work / "out" / "examples")
    return found


def _ours(source: Path, work: Path) -> Callable[[], float | None]:
    from penstock.components.base import RunContext
    from penstock.components.ingestion import CsvExampleGen, csv_files
    from penstock.components.validation import StatisticsGen
    from penstock.components.validation import statistics as engine

    imported = (csv_files, engine)
    assert all(imported)

    def run() -> float:
        ingest = CsvExampleGen(
            input_dir=source.parent, splits={"train": 4, "eval": 1}
        ).with_outputs(work / "out")
        ingest.run(RunContext.local(work / "tmp-ingest"))
        ingested = time.perf_counter()
        described = StatisticsGen(examples=ingest.examples).with_outputs(work / "out")
        described.run(RunContext.local(work / "tmp-statistics"))
        return ingested

    return run


def _rows_written(examples: Path) -> int:
    import pyarrow.parquet as pq

    return sum(
        pq.ParquetFile(path).metadata.num_rows for path in examples.rglob("*.parquet")
    )


def _peer(source: Path, work: Path) -> Callable[[], float | None]:
    import tensorflow_data_validation as tfdv
    from apache_beam.options.pipeline_options import PipelineOptions

    # The runner that DirectRunner stands for in the old set; the current set's would
    # look for a Prism binary to download.
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"

    def run() -> None:
        tfdv.generate_statistics_from_csv(
            str(source),
            output_path=str(work / "FeatureStats.pb"),
            pipeline_options=PipelineOptions(["--runner", runner]),
        )

    return run


# --- the input -----------------------------------------------------------------------


def write_trips(target: Path, rows: int, *, seed: int = 0) -> None:
    """Write taxi trips as CSV: 18 columns, the kinds and gaps of Chicago's."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with open(target, "w", encoding="utf-8", newline="") as file:
        for part, start in enumerate(range(0, rows, ROWS_AT_ONCE)):
            table = _trips(min(ROWS_AT_ONCE, rows - start), seed + part)
            if part == 0:
                file.write(",".join(table.column_names) + "\n")
            cells = [column.cast(pa.string()).fill_null("") for column in table.columns]
            lines = pc.binary_join_element_wise(*cells, ",")
            file.write("\n".join(lines.to_pylist()) + "\n")


def _trips(count: int, seed: int) -> Any:
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(seed)
    # Places, companies and payment types recur in the same proportions in every part.
    places = np.random.default_rng(1)
    latitudes = np.round(41.66 + 0.36 * places.random(400), 9)
    longitudes = np.round(-87.91 + 0.38 * places.random(400), 9)
    tracts = 17_031_000_000 + 100 * places.integers(10_000, 980_000, 400)
    companies = np.array([f"Taxi Affiliation No {n:02d} Inc" for n in range(70)])
    payments = np.array(
        ["Cash", "Credit Card", "Unknown", "No Charge", "Dispute", "Prcard"]
    )

    def weighted(size: int, power: float) -> Any:
        weights = 1 / np.arange(1, size + 1) ** power
        return random.choice(size, count, p=weights / weights.sum())

    def gaps(values: Any, share: float) -> Any:
        return pa.array(values, mask=random.random(count) < share)

    start = 1_356_998_400 + random.integers(0, 4 * 365 * 96, count) * 900
    days = start // 86_400
    miles = np.round(random.gamma(0.9, 3.5, count), 1)
    seconds = np.round(miles * 180 + random.gamma(2, 90, count)).astype(int) // 60 * 60
    fare = np.round(3.25 + 2.25 * miles + random.integers(0, 12, count) * 0.25, 2)
    paid = weighted(6, 1.2)
    tips = np.where(paid == 1, np.round(fare * random.beta(2, 6, count), 2), 0.0)
    pickup, dropoff = weighted(400, 0.9), weighted(400, 0.7)
    columns = {
        "pickup_community_area": gaps(pickup % 77 + 1, 0.08),
        "fare": gaps(fare, 0.0002),
        "trip_start_month": days // 30 % 12 + 1,
        "trip_start_hour": start // 3_600 % 24,
        "trip_start_day": (days + 4) % 7 + 1,
        "trip_start_timestamp": start,
        "pickup_latitude": gaps(latitudes[pickup], 0.08),
        "pickup_longitude": gaps(longitudes[pickup], 0.08),
        "dropoff_latitude": gaps(latitudes[dropoff], 0.1),
        "dropoff_longitude": gaps(longitudes[dropoff], 0.1),
        "trip_miles": gaps(miles, 0.0001),
        "pickup_census_tract": gaps(tracts[pickup], 0.99),
        "dropoff_census_tract": gaps(tracts[dropoff], 0.28),
        "payment_type": payments[paid],
        "company": gaps(companies[weighted(70, 1.0)], 0.35),
        "trip_seconds": gaps(seconds, 0.001),
        "dropoff_community_area": gaps(dropoff % 77 + 1, 0.1),
        "tips": gaps(tips, 0.0001),
    }
    return pa.table(columns)
