"""Quality as a monitoring report shows it: slices, trends, labels and the estimate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from penstock.components.evaluation import drawing
from penstock.components.monitoring import figures
from penstock.components.monitoring.document import (
    STATES,
    ConceptOf,
    DeploymentOf,
    MetricOf,
    QualityOf,
    TrendOf,
)

_INTERVAL_WIDTH, _INTERVAL_MIDDLE = 220, 14


@dataclasses.dataclass(frozen=True)
class Line:
    """A metric of a slice in a row of the table."""

    metric: MetricOf
    number: str
    interval: str
    path: str


@dataclasses.dataclass(frozen=True)
class Group:
    """The slices of one metric, with the axis that they share."""

    metric: str
    lines: list[Line]
    ticks: list[tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Trend:
    """A trend with its drawing; one that is not open is folded away."""

    trend: TrendOf
    figure: figures.TrendFigure
    sentence: str
    slope: str
    changes: list[str]
    is_open: bool


@dataclasses.dataclass(frozen=True)
class QualityShown:
    """Quality in the order in which it is shown."""

    of: QualityOf
    groups: list[Group]
    metrics_left: int
    trends: list[Trend]
    quiet_trends: list[Trend]
    trends_left: int
    deployments: list[DeploymentOf]
    concept: list[ConceptOf]
    labels: str
    estimate: str


def quality_shown(
    quality: QualityOf | None, most_metrics: int, most_trends: int, most_others: int
) -> QualityShown | None:
    """Return what the page shows of quality; None if there is none.

    Args:
        quality: That of a document.
        most_metrics: Most rows of the table of slices.
        most_trends: Most trends.
        most_others: Most deployments, and detectors of concept drift.
    """
    if quality is None:
        return None
    metrics = sorted(quality["metrics"], key=_weight_of_metric)[:most_metrics]
    by_metric: dict[str, list[MetricOf]] = {}
    for each in metrics:
        by_metric.setdefault(each["metric"], []).append(each)
    trends = sorted(quality["trends"], key=_weight_of_trend)
    deployments = _deployments(quality, trends[:most_trends], most_others)
    windows = [each["window"] for each in deployments]
    drawn = [
        made
        for trend in trends[:most_trends]
        if (made := _trend(trend, windows)) is not None
    ]
    return QualityShown(
        quality,
        [_group(metric, rows) for metric, rows in by_metric.items()],
        len(quality["metrics"]) - len(metrics),
        [each for each in drawn if each.is_open],
        [each for each in drawn if not each.is_open],
        len(trends) - len(drawn),
        deployments,
        quality["concept"][:most_others],
        _label_account(quality),
        _estimated(quality),
    )


def _deployments(
    quality: QualityOf, trends: Iterable[TrendOf], most: int
) -> list[DeploymentOf]:
    """Return the last deployments among those that fall into a trend as drawn."""
    firsts = [figures.drawn(each)[0]["window"] for each in trends if each["points"]]
    if not firsts or not most:
        return []
    within = [
        each for each in quality.get("deployments", []) if each["window"] >= min(firsts)
    ]
    return within[-most:]


def _is_overall(where: str) -> bool:
    return where in ("overall", "all rows")


def _weight_of_metric(each: MetricOf) -> tuple[Any, ...]:
    return (
        not _is_overall(each["slice"]),
        STATES.index(each["state"]),
        -each["rows"],
        each["metric"],
        each["slice"],
    )


def _weight_of_trend(each: TrendOf) -> tuple[Any, ...]:
    return (
        STATES.index(each["state"]),
        not _is_overall(each["slice"]),
        each["metric"],
        each["slice"],
    )


def _group(metric: str, rows: list[MetricOf]) -> Group:
    spans = [(row["value"], row["lower"], row["upper"]) for row in rows]
    scale = drawing.scale_of(spans, [], _INTERVAL_WIDTH)
    decimals = drawing.places((end for span in spans for end in span), 4)
    return Group(
        metric,
        [
            Line(
                row,
                drawing.number(span[0], decimals),
                drawing.interval(span[1], span[2], decimals),
                drawing.interval_path(span, scale, _INTERVAL_MIDDLE),
            )
            for row, span in zip(rows, spans, strict=True)
        ],
        scale.ticks(4),
    )


def _trend(trend: TrendOf, deployments: Sequence[str]) -> Trend | None:
    figure = figures.trend_figure(trend, deployments)
    if figure is None:
        return None
    slope = trend["slope_per_week"]
    changes = []
    for change in trend["change_points"]:
        sentence = (
            f"{change['window']}: from {figures.short(change['before'])} to "
            f"{figures.short(change['after'])}"
        )
        if change["p_value"] is not None:
            sentence += f" (p = {figures.probability(change['p_value'])})"
        if change["deployment"]:
            sentence += f", after {change['deployment']}"
        changes.append(sentence + ".")
    return Trend(
        trend,
        figure,
        trend.get("sentence", ""),
        "" if slope is None else f"{drawing.number(slope, 4, signed=True)} a week.",
        changes,
        trend["state"] in ("alert", "watch")
        or bool(changes)
        or _is_overall(trend["slice"]),
    )


def _label_account(quality: QualityOf) -> str:
    labels = quality["labels"]
    if labels is None:
        return ""
    rows = labels["joined"] + labels["waiting"]
    late = labels["late"]
    return (
        f"{labels['joined']:,} of {rows:,} rows ({figures.percent(labels['share'])}) "
        f"have their label; {labels['waiting']:,} wait for theirs."
        + (f" {late:,} came after the window was first evaluated." if late else "")
    )


def _estimated(quality: QualityOf) -> str:
    estimate = quality["estimate"]
    if estimate is None:
        return ""
    ends = (estimate["value"], estimate["lower"], estimate["upper"])
    decimals = drawing.places(ends, 4)
    value, lower, upper = ends
    interval = drawing.interval(lower, upper, decimals)
    return (
        f"{estimate['metric']} is estimated without labels, by {estimate['method']}, "
        f"at {drawing.number(value, decimals)}{interval and f' {interval}'}."
    )
