"""Reports that tests render: one of plausible numbers, and one of very many."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from penstock.components.evaluation.blessing import Outcome, Word
from penstock.components.evaluation.report import (
    Curves,
    Plots,
    Reason,
    Report,
    Row,
    plotted_slices,
)

TAXI_SLICES = {
    "all rows": 15_002,
    "payment_type=Cash": 8_731,
    "payment_type=Credit Card": 6_104,
    "payment_type=No Charge": 121,
    "payment_type=Unknown": 46,
    "hour in range(7, 10)=true": 2_208,
    "hour in range(7, 10)=false": 12_794,
    "bucket(fare, 5, 10, 20)=below 5": 1_390,
    "bucket(fare, 5, 10, 20)=[5, 10)": 8_260,
    "bucket(fare, 5, 10, 20)=[10, 20)": 3_617,
    "bucket(fare, 5, 10, 20)=20 or more": 1_735,
    "company=Blue Ribbon Taxi Association Inc.": 873,
    "company=Chicago Elite Cab Corp. (Chicago Carriag": 412,
    "company=Dispatch Taxi Affiliation": 1_301,
    "company=Northwest Management LLC": 398,
    "company=Taxi Affiliation Services": 3_966,
    "company=Yellow Cab": 77,
}

# Value of the candidate over all rows, typical deviation of a slice, width of the
# interval for one row, and what the thresholds ask.
TAXI_METRICS = {
    "auc": (0.912, 0.02, 0.75, 0.85, -0.02),
    "binary_accuracy": (0.861, 0.02, 0.70, None, None),
    "calibration": (1.012, 0.03, 2.10, None, None),
    "precision": (0.744, 0.03, 1.60, None, None),
    "recall": (0.683, 0.04, 1.70, None, None),
}


@functools.cache
def taxi_report() -> Report:
    """Return a report such as the taxi pipeline's; invented, always the same."""
    random = np.random.default_rng(7)
    table, reasons = [], []
    for metric, (center, deviation, width, bound, change) in TAXI_METRICS.items():
        for name, rows in TAXI_SLICES.items():
            own = 0.0 if name == "all rows" else float(random.normal(0, deviation))
            shift = 0.006 + float(random.normal(0, 0.35 * width / rows**0.5))
            if name == "payment_type=Unknown" and metric == "auc":
                own, shift = -0.075, -0.05
            if name == "company=Northwest Management LLC" and metric == "auc":
                own, shift = -0.02, -0.09
            value, half = center + own, 1.2 * width / rows**0.5
            row = Row(
                name,
                metric,
                rows,
                value,
                value - half,
                value + half * 0.9,
                value - shift,
                value - shift - half,
                value - shift + half * 0.9,
                shift,
                shift - 0.55 * half,
                shift + 0.55 * half,
            )
            if bound is not None and change is not None:
                row, why = judged(row, bound, change)
                reasons.append(why)
            table.append(row)
    reports_table = tuple(table)
    return Report(
        title="Generous tips of Chicago taxi trips",
        candidate="taxi/Trainer.model, run 2024-05-02-101500",
        baseline="taxi/Trainer.model, run 2024-04-25-101412 (version 12)",
        verdict=Word.NOT_BLESSED,
        blessed=False,
        reasons=tuple(reasons),
        table=reports_table,
        plots=tuple(
            Plots(name, taxi_curves(0.0), taxi_curves(0.12))
            for name in plotted_slices(reports_table)
        ),
        rows=15_002,
        splits=("eval",),
        seed=0,
        confidence=0.95,
        method="Poisson bootstrap, 1,000 replicates",
    )


def judged(row: Row, bound: float, change: float) -> tuple[Row, Reason]:
    """Return a row with its verdict, and the verdict's sentence."""
    assert row.lower is not None and row.difference_lower is not None
    assert row.upper is not None and row.difference_upper is not None
    assert row.rows is not None
    if row.rows < 60:
        outcome, said = Outcome.LEFT_OUT, "has fewer rows than the min_slice_size"
    elif row.upper < bound or row.difference_upper < change:
        outcome, said = Outcome.FAILED, "is not as asked"
    elif row.lower < bound or row.difference_lower < change:
        outcome, said = Outcome.INCONCLUSIVE, "may or may not be as asked"
    else:
        outcome, said = Outcome.PASSED, "is as asked"
    sentence = (
        f"'{row.metric}' in {row.slice} {said}: {row.value:.4f} "
        f"[{row.lower:.4f}, {row.upper:.4f}] where at least {bound} is asked, and a "
        f"change of {row.difference:+.4f} [{row.difference_lower:+.4f}, "
        f"{row.difference_upper:+.4f}] where at least {change} is asked "
        f"({row.rows:,} rows)."
    )
    marked = dataclasses.replace(
        row, verdict=outcome, bounds=(bound,), difference_bounds=(change,)
    )
    return marked, Reason(sentence, outcome)


def taxi_curves(worse: float, points: int = 2_000) -> Curves:
    """Return smooth curves; the larger `worse`, the worse."""
    threshold = np.linspace(0, 1, points)
    false_positives = (1 - threshold) ** 3
    recall = (1 - threshold**3) * (1 - worse * threshold)
    positives = 0.22 * recall
    precision = positives / np.maximum(positives + 0.78 * false_positives, 1e-12)
    prediction = np.linspace(0.02, 0.95, 10)
    label = prediction + 0.4 * (worse + 0.05) * np.sin(6 * prediction)
    weight = 3_000 * np.exp(-3 * prediction)
    return Curves(
        roc=np.column_stack([false_positives, recall])[::-1].tolist(),
        precision_recall=np.column_stack([recall, precision])[:-1].tolist(),
        calibration=np.column_stack([prediction, label, weight]).tolist(),
    )


@functools.cache
def large_report(slices: int = 1_000, metrics: int = 5) -> Report:
    """Return a report of very many rows, reasons and points, as irregular as can be."""
    random = np.random.default_rng(1)
    outcomes = [*Outcome, None]
    table = tuple(
        dataclasses.replace(
            Row(
                "all rows" if not index else f"company=Taxi Company Number {index}",
                f"metric_{metric}",
                int(random.integers(1, 1_000_000)),
                *random.normal(0.8, 0.05, size=9).tolist(),
            ),
            verdict=outcomes[int(random.integers(len(outcomes)))],
            bounds=(0.75, 0.95),
            difference_bounds=(-0.02,),
        )
        for index in range(slices)
        for metric in range(metrics)
    )
    return dataclasses.replace(
        taxi_report(),
        table=table,
        reasons=tuple(
            Reason(f"'{row.metric}' in {row.slice} is {row.value}, " * 3, row.verdict)
            for row in table
            if row.verdict
        ),
        plots=tuple(
            Plots(name, noisy_curves(seed), noisy_curves(seed + 1))
            for seed, name in enumerate(dict.fromkeys(row.slice for row in table))
            if seed < 20
        ),
    )


def noisy_curves(seed: int) -> Curves:
    """Return curves of 10,000 points that no thinning makes smooth."""
    random = np.random.default_rng(seed)
    return Curves(
        roc=random.random((10_000, 2)),
        precision_recall=random.random((10_000, 2)),
        calibration=random.random((10_000, 3)),
    )
