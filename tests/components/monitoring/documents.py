"""Documents of watched models that tests read: every state, and one of 300 features."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np

from penstock.components.monitoring.document import (
    BudgetOf,
    ChangePointOf,
    ColumnOf,
    Document,
    MeasureOf,
    MetricOf,
    PointOf,
    QualityOf,
    State,
    TrendOf,
)

REFERENCE_ID = "sha256:" + "4f1c" * 16

BUDGET: BudgetOf = {
    "alerts_per_month": 1.0,
    "expected_alerts_per_month": 0.93,
    "run_length_windows": 32.6,
    "level": 1.2e-4,
    "k": 2,
    "m": 3,
    "min_rows": 500,
}

DAYS = [f"2026-10-{day:02d}" for day in range(12, 32)] + [
    f"2026-11-{day:02d}" for day in range(1, 31)
]
"""The seven weeks that end with the window of the documents."""


def document(**changes: Any) -> Document:
    """Return a document in which nothing happened to nothing, with changes."""
    plain: Document = {
        "format": "penstock-monitoring-report",
        "version": 1,
        "model": "taxi",
        "model_version": "7",
        "window": {
            "start": "2026-11-30T00:00:00Z",
            "end": "2026-12-01T00:00:00Z",
            "name": "2026-11-30",
        },
        "made_at": "2026-12-01T04:00:12Z",
        "rows": 5_000,
        "reference": {
            "id": REFERENCE_ID,
            "rows": 20_000,
            "model_version": "7",
            "seasonal": False,
        },
        "state": "ok",
        "reasons": ["None of 0 columns drifted."],
        "budget": copy.copy(BUDGET),
        "columns": [],
        "skew": None,
        "multivariate": None,
        "quality": None,
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]


def measure(kind: str = "ks", effect: float = 0.004, **changes: Any) -> MeasureOf:
    """Return a measure of a numeric column, as significant as its effect is large."""
    threshold = {"ks": 0.03, "psi": 0.1, "missing": 0.01, "unseen": 0.01}.get(kind, 0.1)
    plain: MeasureOf = {
        "type": kind,
        "value": round(effect + 0.009, 4),
        "effect": effect,
        "p_value": max(min(math.exp(-12 * effect / threshold), 1.0), 0.0),
        "critical": 0.031,
        "threshold": threshold,
        "ratio": effect / threshold,
        "label": "none",
        "sentence": f"The {kind} effect is {effect:.3g}, of {threshold:g} that count.",
    }
    if kind == "psi":
        labels = "none", "moderate", "major"
        plain["label"] = labels[(effect >= 0.1) + (effect >= 0.25)]
    return {**plain, **changes}  # type: ignore[typeddict-item]


def column(
    name: str = "fare",
    state: State = "ok",
    *,
    shift: float = 0.0,
    seed: int = 0,
    **changes: Any,
) -> ColumnOf:
    """Return a numeric column whose current values moved by so many deviations."""
    random = np.random.default_rng([seed, *name.encode(errors="replace")])
    places = np.linspace(-2.4, 2.4, 20)
    skewed = random.uniform(-0.4, 0.4)
    reference = np.exp(-((places + skewed) ** 2) / 2)
    current = np.exp(-((places + skewed - shift) ** 2) / 2)
    current *= random.normal(1.0, 0.04, 20)
    edges = np.cumsum(random.gamma(2.0, 1.0, 21))
    effects = {"ks": abs(shift) * 0.4, "psi": shift**2, "mean_shift": abs(shift)}
    plain: ColumnOf = {
        "name": name,
        "role": "feature",
        "kind": "numeric",
        "state": state,
        "rank": None,
        "p_value": 0.41,
        "importance": round(float(random.random()), 3),
        "explanation": "",
        "missing": {"reference": 0.0, "current": 0.0},
        "measures": [measure(kind, round(each, 4)) for kind, each in effects.items()],
        "distribution": {
            "bins": [
                f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)
            ],
            "reference": [round(float(each), 5) for each in reference / sum(reference)],
            "current": [round(float(each), 5) for each in current / sum(current)],
        },
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]


def category(
    name: str = "payment_type", state: State = "ok", **changes: Any
) -> ColumnOf:
    """Return a category column, in which a wallet has come up."""
    bins = ["Cash", "Credit Card", "Prcard", "No Charge", "Dispute", "other", "unseen"]
    plain = column(
        name,
        state,
        kind="category",
        measures=[measure("l_infinity", 0.018), measure("unseen", 0.021)],
        distribution={
            "bins": bins,
            "reference": [0.55, 0.391, 0.03, 0.02, 0.007, 0.002, 0.0],
            "current": [0.54, 0.38, 0.03, 0.019, 0.008, 0.002, 0.021],
        },
    )
    return {**plain, **changes}  # type: ignore[typeddict-item]


def ok_document(columns: int = 12) -> Document:
    """Return a quiet day."""
    return document(
        columns=[column(f"feature_{index:03d}") for index in range(columns)],
        reasons=[f"None of {columns} columns drifted."],
    )


def watch_document() -> Document:
    """Return a first day of something that may be drift."""
    watched = column(
        "trip_miles",
        "watch",
        shift=0.12,
        rank=1,
        p_value=2e-6,
        explanation="'trip_miles' is 0.12 standard deviations higher than in the "
        "reference, for the first of the last 3 windows.",
    )
    return document(
        state="watch",
        columns=[watched, *ok_document()["columns"]],
        reasons=["'trip_miles' drifted in 1 of the last 3 windows; 2 are an alert."],
    )


def insufficient_document() -> Document:
    """Return a day of too few rows to say anything."""
    return document(
        state="insufficient_data",
        rows=212,
        reasons=["The window has 212 rows, and 500 are needed. Use longer windows."],
        columns=[
            column(
                f"feature_{index:03d}",
                "insufficient_data",
                p_value=None,
                measures=[],
                distribution=None,
                missing={"reference": 0.0, "current": None},
            )
            for index in range(4)
        ],
    )


def observing_document() -> Document:
    """Return a day before there is a reference: a new model is observed first."""
    return document(
        state="insufficient_data",
        reference=None,
        budget=None,
        reasons=["The model is observed for 9 more days before it has a reference."],
    )


def alert_document(features: int = 12) -> Document:
    """Return a day with everything: drift, skew, and quality that sinks in a slice."""
    drifted = [
        column(
            "prediction",
            "watch",
            role="score",
            shift=0.1,
            rank=3,
            p_value=3.1e-5,
            importance=None,
            explanation="The score is 0.1 standard deviations higher.",
        ),
        column("big_tipper", role="label", importance=None),
        column(
            "fare",
            "alert",
            shift=0.35,
            rank=1,
            p_value=1e-9,
            importance=0.31,
            explanation="'fare' is 0.35 standard deviations higher than in the "
            "reference, most of all where payment_type is Cash.",
            missing={"reference": 0.0, "current": 0.031},
            slices=[
                {
                    "slice": "payment_type=Cash",
                    "state": "alert",
                    "p_value": 2e-8,
                    "sentence": "'fare' is 0.52 standard deviations higher where "
                    "payment_type is Cash.",
                },
                {
                    "slice": "payment_type=Dispute",
                    "state": "insufficient_data",
                    "p_value": None,
                    "sentence": "The slice has 12 rows, and 500 are needed.",
                },
            ],
        ),
        category(
            state="alert",
            rank=2,
            p_value=4e-8,
            importance=0.12,
            explanation="2.1 % of the rows have a 'payment_type' that the reference "
            "does not have: 'Wallet'.",
        ),
    ]
    drifted[2]["measures"].append(
        measure("missing", 0.031, value=0.031, critical=0.004)
    )
    quiet = [column(f"feature_{index:03d}") for index in range(features)]
    return document(
        state="alert",
        columns=[*drifted, *quiet],
        reasons=[
            "'fare' drifted in 3 of the last 3 windows: it is 0.35 standard deviations "
            "higher, and 3.1 % of its values are missing.",
            "'payment_type' drifted in 2 of the last 3 windows: 2.1 % of its values "
            "are new.",
            "'auc' in payment_type=Cash falls by 0.3 points a week.",
        ],
        versions={"7": 4_400, "8": 600},
        skew={
            "state": "watch",
            "sentence": "'tips' differs between training and serving in 1.2 % of rows.",
            "joined": 4_811,
            "columns": [
                {
                    "name": "tips",
                    "state": "watch",
                    "compared": 4_811,
                    "different": 58,
                    "sentence": "58 of 4,811 rows differ: 3.5 was served as 3.",
                },
                {
                    "name": "fare",
                    "state": "ok",
                    "compared": 4_811,
                    "different": 0,
                    "sentence": "No row differs.",
                },
            ],
        },
        multivariate={
            "p_value": 0.005,
            "auc": 0.57,
            "columns": ["fare", "payment_type"],
            "state": "watch",
            "sentence": "The columns drift together in 1 of the last 3 windows.",
        },
        quality=quality(),
    )


def quality(**changes: Any) -> QualityOf:
    """Return seven weeks of AUC: steady overall, and sinking where trips are cash."""
    plain: QualityOf = {
        "metrics": [
            metric("auc", "overall", 0.912, rows=4_811),
            metric(
                "auc",
                "payment_type=Cash",
                0.861,
                "alert",
                rows=2_640,
                sentence="It falls by 0.3 points a week.",
            ),
            metric("auc", "payment_type=Credit Card", 0.921, rows=2_020),
            metric("auc", "payment_type=Dispute", None, "insufficient_data", rows=12),
            metric("calibration", "overall", 1.012, rows=4_811),
            metric("auc", "unlabeled", 0.905, estimated=True, rows=189),
        ],
        "trends": [
            trend("overall", 0.912, 0.0),
            trend(
                "payment_type=Cash",
                0.882,
                -0.3,
                "alert",
                change_points=[
                    {
                        "window": "2026-11-12",
                        "before": 0.880,
                        "after": 0.866,
                        "p_value": 0.0004,
                        "deployment": "version 7 pushed 2026-11-11",
                    }
                ],
                sentence="'auc' in payment_type=Cash falls by 0.3 points a week.",
            ),
        ],
        "deployments": [
            {"window": "2026-11-11", "text": "version 7 pushed 2026-11-11"},
            {"window": "2026-11-30", "text": "version 8 pushed 2026-11-30"},
        ],
        "labels": {"joined": 4_811, "waiting": 189, "late": 18, "share": 0.9622},
        "estimate": {
            "method": "CBPE",
            "metric": "auc",
            "value": 0.908,
            "lower": 0.897,
            "upper": 0.919,
            "assumption": "holds",
            "sentence": "Scores stay calibrated and there is no concept drift, as far "
            "as the labels that have come can tell.",
        },
        "concept": [
            {
                "detector": "ADWIN",
                "state": "ok",
                "sentence": "ADWIN sees no change of the loss.",
            },
            {
                "detector": "Page-Hinkley",
                "state": "warning",
                "sentence": "The loss rises since 2026-11-26.",
            },
        ],
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]


def metric(
    name: str, where: str, value: float | None, state: State = "ok", **changes: Any
) -> MetricOf:
    """Return a metric of a slice."""
    plain: MetricOf = {
        "metric": name,
        "slice": where,
        "value": value,
        "lower": None if value is None else value - 0.012,
        "upper": None if value is None else value + 0.011,
        "rows": 1_000,
        "estimated": False,
        "state": state,
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]


def trend(
    where: str,
    value: float,
    points_per_week: float,
    state: State = "ok",
    *,
    change_points: list[ChangePointOf] | None = None,
    **changes: Any,
) -> TrendOf:
    """Return seven weeks of a metric in a slice."""
    random = np.random.default_rng([*where.encode(errors="replace")])
    points: list[PointOf] = []
    for index, day in enumerate(DAYS):
        mean = value + points_per_week / 100 * index / 7
        noise = float(random.normal(0, 0.004))
        points.append(
            {
                "window": day,
                "value": round(mean + noise, 5),
                "lower": round(mean + noise - 0.011, 5),
                "upper": round(mean + noise + 0.011, 5),
                "rows": 2_500 + index,
            }
        )
    points[9] = {**points[9], "value": None, "lower": None, "upper": None, "rows": 0}
    plain: TrendOf = {
        "metric": "auc",
        "slice": where,
        "points": points,
        "change_points": change_points or [],
        "slope_per_week": points_per_week / 100,
        "state": state,
    }
    return {**plain, **changes}  # type: ignore[typeddict-item]


def large_document(features: int = 300) -> Document:
    """Return an alert of a model with many features, five of which drifted."""
    large = alert_document(features - 5)
    trends = [trend(f"company={index}", 0.9, 0.0) for index in range(20)]
    slices = [metric("auc", f"company={index}", 0.9) for index in range(60)]
    found = quality()
    found["trends"] += trends
    found["metrics"] += slices
    large["quality"] = found
    return large


DOCUMENTS = {
    "ok": ok_document,
    "watch": watch_document,
    "alert": alert_document,
    "insufficient": insufficient_document,
    "observing": observing_document,
    "large": large_document,
}
"""A document of every state, by name."""
