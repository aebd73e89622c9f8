"""False alarms and power of drift monitoring, simulated on models of 300 columns.

Each model-year has its own reference of 20,000 rows and 365 windows, all drawn by
place from the same laws: continuous, heavy-tailed, integer, zero-inflated and binary
columns, and categories of 2 to 1,000 values. The thresholds are calibrated once per
size of window, from one more reference, at the default budget; false alarms, power and
the default rules of others are told from the same windows with these thresholds.

An alert is an episode: a state that lasts is counted once. The rules of others have no
such state: told is the share of windows in which they call any column drifted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.components.monitoring import (
    column_tests,
    incumbents,
    kernels,
    laws,
    procedures,
)
from penstock.components.monitoring.budget import MONTH, thresholds_of
from penstock.components.monitoring.decision import Thresholds, column_level

Array = npt.NDArray[Any]
Drawn = tuple[tuple[Array, int], tuple[Array, Array]]

REFERENCE = 20_000
SIZES = (200, 1_000, 5_000, 100_000)
YEARS = 200
WINDOWS = 365
COLUMNS = 300
SCENARIOS = ("0.15", "0.10", "new category", "missing", "heavy tail")
REPLAYS = 5
_PEER_WINDOWS = 5
_POWER_ROWS = 5_000


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a column of the simulated model is.

    Attributes:
        kind: "numeric" or "category".
        p: Shares of its places.
        values: Of the places of a numeric column.
        zero: The place of the zeros.
        missing: Share of rows without a value.
    """

    kind: str
    p: Array
    values: Array | None = None
    zero: int | None = None
    missing: float = 0.0


def main(options: list[str]) -> dict[str, Any]:
    """Simulate; return the figures."""
    parser = argparse.ArgumentParser(prog="drift-alarms")
    parser.add_argument("--years", type=int, default=3, help="model-years per size")
    parser.add_argument("--full", action="store_true", help=f"{YEARS} of them")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--places", type=int, default=512, help="of continuous columns")
    parser.add_argument("--columns", type=int, default=COLUMNS)
    parser.add_argument(
        "--slices", type=int, default=0, help="compare within as many slices, too"
    )
    parser.add_argument("--state", type=Path, help="a file to go on from and add to")
    chosen = parser.parse_args(options)
    years = YEARS if chosen.full else chosen.years
    columns = model(chosen.columns, chosen.places)
    done = _read(chosen.state)
    for rows in chosen.sizes:
        key = str(rows)
        cell = done.setdefault(key, {"years": {}})
        if "thresholds" not in cell:
            begun = time.process_time()
            cell["thresholds"] = calibrated(columns, rows, chosen.slices).to_json()
            cell["calibrate_s"] = round(time.process_time() - begun, 1)
        limits = Thresholds.from_json(cell["thresholds"])
        for year in range(years):
            if str(year) in cell["years"]:
                continue
            begun = time.process_time()
            found = model_year(columns, rows, limits, year, chosen.slices)
            found["seconds"] = round(time.process_time() - begun, 2)
            cell["years"][str(year)] = found
            _write(chosen.state, done)
            print(f"{rows} rows, year {year}: {found}", file=sys.stderr, flush=True)
    return summary(done, years)


def model(columns: int = COLUMNS, places: int = 512) -> list[Truth]:
    """Return the columns of the simulated model, always the same ones."""
    from scipy import special

    rng = np.random.default_rng(6)
    even = np.full(places, 1 / places)
    middle = special.ndtri((np.arange(places) + 0.5) / places)
    sizes = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000)
    found = []
    for i in range(columns):
        missing = 0.02 if i % 6 == 5 else 0.0
        family = i % 10
        if family < 3:
            found.append(Truth("numeric", even, middle, missing=missing))
        elif family == 3:
            found.append(Truth("numeric", even, np.exp(2 * middle), missing=missing))
        elif family == 4:
            # Counts, as of purchases.
            values = np.arange(40.0)
            shares = _poisson(2 + i % 7, values)
            found.append(Truth("numeric", shares, values, 0, missing))
        elif family == 5:
            # A tenth to nine tenths zeros, else continuous.
            zeros = 0.1 + 0.8 * rng.random()
            half = places // 2
            shares = np.append(zeros, np.full(half, (1 - zeros) / half))
            values = np.append(
                0.0, np.exp(special.ndtri((np.arange(half) + 0.5) / half))
            )
            found.append(Truth("numeric", shares, values, 0, missing))
        elif family == 6:
            one = 10 ** rng.uniform(-2.3, -0.3)
            found.append(Truth("numeric", np.array([1 - one, one]), np.arange(2.0), 0))
        else:
            size = sizes[(i // 10) % len(sizes)]
            shares = 1 / np.arange(1.0, size + 1) ** rng.uniform(0.3, 1.2)
            found.append(Truth("category", shares / shares.sum(), missing=missing))
    return found


def calibrated(columns: list[Truth], rows: int, slices: int = 0) -> Thresholds:
    """Return the thresholds for windows of a size, from one reference drawn anew."""
    rng = np.random.default_rng([7, rows])
    laws_of = [law(each, rng) for each in columns]
    return thresholds_of(laws_of, REFERENCE, rows, sliced=slices > 0)


def law(truth: Truth, rng: np.random.Generator) -> laws.ColumnLaw:
    """Return the law that a reference of the column leads to."""
    missing = rng.binomial(REFERENCE, truth.missing) / REFERENCE
    counts = rng.multinomial(round(REFERENCE * (1 - missing)), truth.p)
    if truth.kind == "numeric":
        zero = truth.zero if truth.zero is not None and counts[truth.zero] else None
        values = laws.numeric_law(counts.astype(float), zero)
    else:
        held = counts[counts > 0]
        values = laws.ValueLaw("category", tuple(np.sort(held)[::-1] / held.sum()))
    shares = {"missing": float(f"{missing:.1e}")} if missing else {}
    return laws.ColumnLaw("feature", values, round(1 - missing, 2), shares)


def model_year(
    columns: list[Truth], rows: int, limits: Thresholds, year: int, slices: int = 0
) -> dict[str, Any]:
    """Return what one model-year comes to.

    Rows are split over slices by shares of 1, 1/2, 1/3 ...: those with fewer than the
    minimum of rows on any side are not compared.
    """
    rng = np.random.default_rng([rows, year])
    found: dict[str, Any] = {}
    enough = rows >= limits.min_rows
    roles = ["feature"] * len(columns)
    level = column_level(limits, roles, "feature", rows) if enough else 0.0
    p = np.ones((len(columns), WINDOWS), np.float32 if not enough else np.float64)
    ratio = np.zeros((len(columns), WINDOWS), np.float32)
    alarms = np.zeros((3, _PEER_WINDOWS), bool)
    references = []
    sizes = _sizes(rows, slices)
    compared = [s for s, size in enumerate(sizes) if min(size) >= limits.min_rows]
    in_slices = np.ones((len(compared), len(columns), WINDOWS))
    for i, truth in enumerate(columns):
        windows = WINDOWS if enough else _PEER_WINDOWS
        parts = [drawn(truth, rng, size, windows, of) for of, size in sizes]
        reference, current = _together(parts)
        references.append(reference)
        for at, s in enumerate(compared if slices else ()):
            in_slices[at, i] = judged(truth, *parts[s], limits, level)[0]
        if enough:
            p[i], ratio[i] = judged(truth, reference, current, limits, level)
        alarms |= _peers(truth, reference[0], current[0][:_PEER_WINDOWS])
    found["peers"] = [int(each) for each in alarms.sum(1)]
    if not enough:
        return found | {"alerts": 0, "windows": WINDOWS, "alerting": 0}
    correlation = rows / (rows + REFERENCE)
    over = procedures.over_windows(p, limits.k, limits.m, correlation, limits.once)
    if slices:
        over = procedures.with_slices(
            over,
            procedures.over_windows(
                in_slices, limits.k, limits.m, correlation, limits.once
            ),
        )
    alert = procedures.model_p(over, roles) <= limits.level
    found["alerts"] = int((alert[1:] & ~alert[:-1]).sum() + alert[0])
    found["windows"] = WINDOWS
    found["alerting"] = int(alert.sum())
    if rows == _POWER_ROWS:
        found["power"] = {
            scenario: _power(
                scenario, columns, references, (p, ratio), limits, level, rng
            )
            for scenario in SCENARIOS
        }
    return found


def _sizes(rows: int, slices: int) -> list[tuple[int, int]]:
    """Return the rows of slices: of the reference, of a window."""
    if not slices:
        return [(REFERENCE, rows)]
    shares = 1 / np.arange(1, slices + 1)
    shares /= shares.sum()
    ends = [(round(REFERENCE * end), round(rows * end)) for end in np.cumsum(shares)]
    return [
        (right[0] - left[0], right[1] - left[1])
        for left, right in zip([(0, 0), *ends], ends, strict=False)
    ]


def _together(parts: list[Drawn]) -> Drawn:
    """Return what slices come to."""
    references, currents = zip(*parts, strict=True)
    return (
        (sum(each[0] for each in references), sum(each[1] for each in references)),
        (sum(each[0] for each in currents), sum(each[1] for each in currents)),
    )


def drawn(
    truth: Truth,
    rng: np.random.Generator,
    rows: int,
    windows: int,
    of: int = REFERENCE,
) -> Drawn:
    """Draw a reference and windows: counts by place, and rows without a value."""
    gone = int(rng.binomial(of, truth.missing))
    reference = rng.multinomial(of - gone, truth.p)
    missing = rng.binomial(rows, truth.missing, size=windows)
    return (reference, gone), (_counted(truth.p, rng, rows - missing), missing)


def _counted(p: Array, rng: np.random.Generator, rows: Array) -> Array:
    """Return multinomial counts of windows, by whichever way is quicker."""
    places = len(p)
    even = bool(np.all(p == p[0]))
    if even and rows.max() < 25 * places and not places & (places - 1):
        kind = np.uint16 if places <= 1 << 16 else np.uint32
        at = rng.integers(0, places, size=int(rows.sum()), dtype=kind)
        at = at + np.repeat(np.arange(len(rows)) * places, rows)
        counted: Array = np.bincount(at, minlength=len(rows) * places)
        return counted.reshape(len(rows), places)
    drawn_counts: Array = rng.multinomial(rows, p)
    return drawn_counts


def judged(
    truth: Truth,
    reference: tuple[Array, int],
    current: tuple[Array, Array],
    limits: Thresholds,
    level: float,
) -> tuple[Array, Array]:
    """Return p-values and effect ratios of a column in windows, as decisions do."""
    counts, gone = reference
    values, missing = current
    rows = values.sum(-1) + missing
    of = float(counts.sum() + gone)
    if truth.kind == "numeric":
        tests = column_tests.numeric_tests(counts, values, zero_place=truth.zero)
    else:
        if values.shape[-1] > len(counts):
            # What was added is not among the reference's categories.
            counts = np.append(counts, 0)
        tests = column_tests.category_tests(*laws.seen(counts, values))
    tests |= column_tests.share_tests(
        {
            "missing": (
                missing.astype(float),
                rows.astype(float),
                np.asarray(float(gone)),
                np.asarray(of),
            )
        }
    )
    effects = {**column_tests.EFFECTS, **limits.effects}
    return (
        column_tests.combined_p(tests, truth.kind, effects),
        column_tests.effect_ratio(tests, truth.kind, effects, level),
    )


def _power(
    scenario: str,
    columns: list[Truth],
    references: list[tuple[Array, int]],
    year: tuple[Array, Array],
    limits: Thresholds,
    level: float,
    rng: np.random.Generator,
) -> list[list[int]]:
    """Return, for each replay, whether drift was found within 2 windows, and first.

    One column drifts from some window of the year on; the others, and its own windows
    before, are as they were.
    """
    found = []
    p, ratio = year
    for _ in range(REPLAYS):
        i, truth, reference, current = _drifted(scenario, columns, references, rng)
        new_p, new_ratio = judged(truth, reference, current, limits, level)
        begin = int(rng.integers(limits.m, WINDOWS - 2))
        part = slice(begin - limits.m + 1, begin + 2)
        some_p, some_ratio = p[:, part].copy(), ratio[:, part].copy()
        some_p[i, -2:], some_ratio[i, -2:] = new_p, new_ratio
        if scenario == "heavy tail":
            # Its reference is another one: its windows before say nothing.
            some_p[i, :-2], some_ratio[i, :-2] = 1.0, 0.0
        over = procedures.over_windows(
            some_p,
            limits.k,
            limits.m,
            _POWER_ROWS / (_POWER_ROWS + REFERENCE),
            limits.once,
        )
        hit = first = 0
        for window in (-2, -1):
            passed = procedures.benjamini_hochberg(over[:, window], limits.level)
            if not passed[i]:
                continue
            hit = 1
            end = some_ratio.shape[1] + window + 1
            last = _latest(some_ratio[:, max(end - limits.m, 0) : end])
            first = int(last[i] >= np.where(passed, last, 0.0).max())
            break
        found.append([hit, first])
    return found


def _latest(ratio: Array) -> Array:
    """Return each column's last ratio that is not 0."""
    last = np.zeros(len(ratio))
    for window in range(ratio.shape[1]):
        last = np.where(ratio[:, window] > 0, ratio[:, window], last)
    return last


def _drifted(
    scenario: str,
    columns: list[Truth],
    references: list[tuple[Array, int]],
    rng: np.random.Generator,
) -> tuple[int, Truth, tuple[Array, int], tuple[Array, Array]]:
    """Return a column that drifts, and two windows of it."""
    from scipy import special

    rows = np.full(2, _POWER_ROWS)
    if scenario in ("0.15", "0.10"):
        i = int(rng.choice([j for j in range(len(columns)) if j % 10 < 3]))
        truth = columns[i]
        ends = special.ndtri(np.arange(len(truth.p) + 1) / len(truth.p))
        shifted = np.diff(special.ndtr(ends - float(scenario)))
        shifted /= shifted.sum()
        missing = rng.binomial(rows, truth.missing)
        return (
            i,
            truth,
            references[i],
            (_counted(shifted, rng, rows - missing), missing),
        )
    if scenario == "new category":
        i = int(rng.choice([j for j in range(len(columns)) if j % 10 > 6]))
        truth = columns[i]
        p = np.append(truth.p * 0.98, 0.02)
        missing = rng.binomial(rows, truth.missing)
        return i, truth, references[i], (_counted(p, rng, rows - missing), missing)
    if scenario == "missing":
        none = [j for j in range(len(columns)) if columns[j].missing == 0]
        i = int(rng.choice(none))
        truth = columns[i]
        missing = rng.binomial(rows, 0.03)
        return (
            i,
            truth,
            references[i],
            (_counted(truth.p, rng, rows - missing), missing),
        )
    # 20,000 lognormal values and one of 1e9; the window is shifted by 0.5 in the log.
    i = int(rng.choice([j for j in range(len(columns)) if j % 10 == 3]))
    places = 4_096
    even = np.full(places, 1 / places)
    counts = np.append(rng.multinomial(REFERENCE - 1, even), 1)
    ends = special.ndtri(np.arange(places + 1) / places)
    p = np.append(np.diff(special.ndtr(ends - 0.5)), 0.0)
    truth = Truth("numeric", p / p.sum())
    return i, truth, (counts, 0), (_counted(truth.p, rng, rows), np.zeros(2, np.int64))


def _peers(truth: Truth, reference: Array, current: Array) -> Array:
    """Return which rules call a column drifted: Evidently, raw KS, PSI above 0.1."""
    if truth.kind == "numeric":
        starts = kernels.bins_of(reference)
        binned = kernels.binned
        return np.stack(
            [
                incumbents.evidently(reference, current, truth.values),
                incumbents.uncorrected_ks(reference, current),
                incumbents.fixed_psi(
                    binned(reference, starts), binned(current, starts)
                ),
            ]
        )
    return np.stack(
        [
            incumbents.evidently(reference, current),
            np.zeros(len(current), bool),
            incumbents.fixed_psi(reference, current),
        ]
    )


def summary(done: dict[str, Any], years: int) -> dict[str, Any]:
    """Return the figures of all cells."""
    cells: dict[str, Any] = {}
    power: dict[str, list[list[int]]] = {scenario: [] for scenario in SCENARIOS}
    for rows, cell in done.items():
        found = [each for year, each in cell["years"].items() if int(year) < years]
        if not found:
            continue
        monthly = np.array(
            [each["alerts"] / (each["windows"] / MONTH) for each in found]
        )
        error = monthly.std(ddof=1) / math.sqrt(len(found)) if len(found) > 1 else 0.0
        windows = len(found) * _PEER_WINDOWS
        peers = np.array([each["peers"] for each in found]).sum(0) / windows
        cells[rows] = {
            "years": len(found),
            "alerts_per_model_month": round(float(monthly.mean()), 3),
            "upper": round(float(monthly.mean() + 1.645 * error), 3),
            "interval": [
                round(float(monthly.mean() + side * 1.96 * error), 3)
                for side in (-1, 1)
            ],
            "alerting_share": round(
                sum(each["alerting"] for each in found) / len(found) / WINDOWS, 4
            ),
            "insufficient_data": int(rows) < cell["thresholds"]["min_rows"],
            "level": round(cell["thresholds"]["level"], 5),
            "expected": round(cell["thresholds"]["expected"], 3),
            "calibrate_s": cell["calibrate_s"],
            "evidently": round(float(peers[0]), 3),
            "uncorrected_ks": round(float(peers[1]), 3),
            "fixed_psi": round(float(peers[2]), 3),
            "seconds_per_year": round(
                float(np.mean([each.get("seconds", 0.0) for each in found])), 2
            ),
        }
        for each in found:
            for scenario, replays in each.get("power", {}).items():
                power[scenario] += replays
    worst = max(cells.values(), key=lambda cell: float(cell["upper"]))
    told = {
        f"power_{scenario.replace('.', '_').replace(' ', '_')}": _share(replays, 0)
        for scenario, replays in power.items()
    }
    first = [each for replays in power.values() for each in replays if each[0]]
    return {
        "alerts_per_model_month": worst["alerts_per_model_month"],
        "upper": worst["upper"],
        **told,
        "replays": len(power["0.15"]),
        "ranked_first": _share(first, 1),
        "peer_alarm_rate": max(float(cell["evidently"]) for cell in cells.values()),
        "columns": COLUMNS,
        "reference_rows": REFERENCE,
        "cells": cells,
    }


def _share(replays: list[list[int]], at: int) -> float | None:
    if not replays:
        return None
    return round(sum(each[at] for each in replays) / len(replays), 4)


def _poisson(mean: float, values: Array) -> Array:
    from scipy import special

    shares = np.exp(values * math.log(mean) - mean - special.gammaln(values + 1))
    normed: Array = shares / shares.sum()
    return normed


def _read(state: Path | None) -> dict[str, Any]:
    if state is None or not state.exists():
        return {}
    found: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
    return found


def _write(state: Path | None, done: dict[str, Any]) -> None:
    if state is None:
        return
    part = state.with_suffix(".part")
    part.write_text(json.dumps(done), encoding="utf-8")
    part.replace(state)
