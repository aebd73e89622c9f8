"""Reports that tests render: one of plausible numbers, and one of very many."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from penstock.components.evaluation.blessing import (
    ChangeBound,
    Interval,
    Measured,
    MetricName,
    Outcome,
    Slice,
    SliceMetrics,
    Threshold,
    ValueBound,
    judge,
)
from penstock.components.evaluation.report import (
    Curves,
    Plots,
    Reason,
    Report,
    Row,
    plotted_slices,
    reasons_of,
    rows_of,
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

# Value of the candidate over all rows, typical deviation of a slice, and width of the
# interval for one row.
TAXI_METRICS = {
    "auc": (0.912, 0.02, 0.75),
    "binary_accuracy": (0.861, 0.02, 0.70),
    "calibration": (1.012, 0.03, 2.10),
    "precision": (0.744, 0.03, 1.60),
    "recall": (0.683, 0.04, 1.70),
}

# Deviation, and candidate minus baseline, of what is not as usual.
TAXI_TROUBLES = {
    ("auc", "payment_type=Unknown"): (-0.075, -0.05),
    ("auc", "company=Northwest Management LLC"): (-0.06, -0.09),
    ("auc", "company=Yellow Cab"): (0.0, -0.02),
}


@functools.cache
def taxi_report() -> Report:
    """Return a report such as the taxi pipeline's; invented, always the same."""
    random = np.random.default_rng(7)
    metrics: dict[str, dict[MetricName, Measured]] = {name: {} for name in TAXI_SLICES}
    for metric, (center, deviation, width) in TAXI_METRICS.items():
        for name, rows in TAXI_SLICES.items():
            own = 0.0 if name == "all rows" else float(random.normal(0, deviation))
            change = 0.006 + float(random.normal(0, 0.35 * width / rows**0.5))
            own, change = TAXI_TROUBLES.get((metric, name), (own, change))
            value, half = center + own, 1.2 * width / rows**0.5
            most = math.inf if metric == "calibration" else 0.999
            baseline = value - change
            metrics[name][MetricName(metric)] = Measured(
                value,
                baseline,
                change,
                Interval(value - half, min(value + 0.9 * half, most)),
                Interval(baseline - half, min(baseline + 0.9 * half, most)),
                Interval(change - 0.55 * half, change + 0.55 * half),
            )
    measured = [
        SliceMetrics(taxi_slice(name), metrics[name], rows=rows)
        for name, rows in TAXI_SLICES.items()
    ]
    judgment = judge(
        [
            Threshold(MetricName("auc"), bound, confidence=0.95)
            for bound in (ValueBound(lower=0.85), ChangeBound(absolute=-0.02))
        ],
        measured,
        min_slice_size=50,
    )
    table = rows_of(measured, judgment.findings)
    return Report(
        title="Generous tips of Chicago taxi trips",
        examples="CsvExampleGen.examples",
        candidate="taxi/Trainer.model, run 2024-05-02-101500",
        baseline="taxi/Trainer.model, run 2024-04-25-101412 (version 12)",
        verdict=judgment.word,
        blessed=judgment.blessed,
        reasons=reasons_of(judgment),
        table=table,
        plots=tuple(
            Plots(name, taxi_curves(0.0), taxi_curves(0.12))
            for name in plotted_slices(table)
        ),
        rows=15_002,
        splits=("eval",),
        seed=0,
        confidence=0.95,
        method="Poisson bootstrap, 1,000 replicates",
    )


def taxi_slice(text: str) -> Slice:
    """Return the slice of a text."""
    feature, _, value = text.rpartition("=")
    return ((feature, value),) if feature else ()


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
