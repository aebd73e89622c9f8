"""The page of an evaluation: one HTML file that needs nothing else, not even a network.

It is made of plain values, so that any engine can fill it. The same report gives the
same bytes. What does not fit is left out, and the page says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.components.evaluation import drawing, pages
from penstock.components.evaluation.blessing import (
    Finding,
    Interval,
    Judgment,
    Measured,
    Outcome,
    SliceMetrics,
    ValueBound,
    Word,
)
from penstock.components.evaluation.table import TABLE_FILE, metric_texts

if TYPE_CHECKING:
    import numpy as np

PAGE_FILE = "report.html"
"""Its name in the folder of a ModelEvaluation."""

MAX_BYTES = 300_000
"""The page is smaller than this."""

MAX_ROWS = 400
"""Most rows of the table that the page shows."""

MAX_REASONS = 60
"""Most reasons that the page shows."""

MAX_PLOTS = 12
"""Most slices whose curves the page shows."""

_VALUE_WIDTH = 220
_DIFFERENCE_WIDTH = 170
_MIDDLE, _APART = 14, 5  # of a row's bars; candidate and baseline lie apart
_PLOT = (140, 1160, 30, 1050)  # left, right, top and bottom of a plot's frame

Points: TypeAlias = "Sequence[tuple[float, float]] | np.ndarray[Any, Any]"
"""Pairs of numbers in the order of a curve, or an array of shape (n, 2)."""

Bins: TypeAlias = "Sequence[tuple[float, float, float]] | np.ndarray[Any, Any]"
"""Triples of numbers, or an array of shape (n, 3)."""


_GRAVE = (None, Outcome.FAILED, Outcome.INCONCLUSIVE)


@dataclasses.dataclass(frozen=True)
class Reason:
    """A sentence of the verdict, and what came of the check that it is about."""

    sentence: str
    outcome: Outcome | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric in one slice: a row of the table.

    Attributes:
        slice: The slice as texts show it: `all rows`, `hour=7`.
        metric: Name of the metric.
        rows: How many rows of data the slice has, where that is known.
        value: The candidate's; NaN where it is not defined, None where there is none.
        lower: Lower end of its interval, if it has one.
        upper: Upper end.
        baseline: The baseline's value.
        baseline_lower: Lower end of its interval.
        baseline_upper: Upper end.
        difference: Candidate minus baseline.
        difference_lower: Lower end of its interval.
        difference_upper: Upper end.
        verdict: The gravest outcome of its thresholds, if it has any.
        bounds: Thresholds of the value, drawn as ticks.
        difference_bounds: Thresholds of the difference.
    """

    slice: str
    metric: str
    rows: int | None = None
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    baseline: float | None = None
    baseline_lower: float | None = None
    baseline_upper: float | None = None
    difference: float | None = None
    difference_lower: float | None = None
    difference_upper: float | None = None
    verdict: Outcome | None = None
    bounds: tuple[float, ...] = ()
    difference_bounds: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Curves:
    """The curves of one model in one slice; an empty one is not drawn.

    Attributes:
        roc: False positive rate and recall, by threshold.
        precision_recall: Recall and precision, by threshold.
        calibration: Mean prediction, mean label and weight of each bin.
    """

    roc: Points = ()
    precision_recall: Points = ()
    calibration: Bins = ()


@dataclasses.dataclass(frozen=True)
class Plots:
    """The curves of one slice."""

    slice: str
    candidate: Curves
    baseline: Curves | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page shows.

    Attributes:
        title: What it is called: the Evaluator's name.
        examples: Which rows were evaluated.
        candidate: Which model is judged.
        baseline: Which model it is compared with; None without one.
        verdict: The word.
        blessed: Whether the word, after `on_inconclusive`, is a yes.
        reasons: Why, in any order.
        table: The metrics, in any order.
        plots: The curves; see `plotted_slices`.
        rows: How many rows of data were evaluated.
        splits: Their splits.
        seed: Seed of the intervals.
        confidence: Confidence of the intervals; None without intervals.
        method: How the intervals were made: `Poisson bootstrap, 1,000 replicates`.
        table_file: Name of the file that has the whole table.
    """

    title: str
    examples: str
    candidate: str
    baseline: str | None
    verdict: Word
    blessed: bool
    reasons: tuple[Reason, ...]
    table: tuple[Row, ...]
    plots: tuple[Plots, ...] = ()
    rows: int
    splits: tuple[str, ...]
    seed: int
    confidence: float | None = None
    method: str = ""
    table_file: str = TABLE_FILE


def rows_of(
    measured: Iterable[SliceMetrics], findings: Iterable[Finding] = ()
) -> tuple[Row, ...]:
    """Return the table of what was measured, with what came of the thresholds.

    Args:
        measured: The metrics; what is not a single number has no row.
        findings: Of the judgment. A metric that a threshold asks for has a row also
            where nothing was measured.
    """
    by_place: dict[Any, list[Finding]] = {}
    for each in findings:
        place = each.slice, each.baseline_slice, each.metric
        by_place.setdefault(place, []).append(each)
    rows = []
    for where in measured:
        texts = metric_texts(where.metrics)
        own = {
            metric: by_place.get((where.slice, where.baseline_slice, metric), [])
            for metric in where.metrics
        }
        rows += [
            _row(where, texts[metric], found, own[metric])
            for metric, found in where.metrics.items()
            if own[metric] or _has_numbers(found)
        ]
        for metric in own:
            by_place.pop((where.slice, where.baseline_slice, metric), None)
    for (key, baseline, metric), asked in by_place.items():
        if key is not None:
            where = SliceMetrics(key, {}, baseline, rows=asked[0].rows)
            rows.append(_row(where, str(metric), Measured(None), asked))
    return tuple(rows)


def _has_numbers(found: Measured) -> bool:
    return (found.value, found.baseline, found.difference) != (None, None, None)


def _row(
    where: SliceMetrics, metric: str, found: Measured, findings: list[Finding]
) -> Row:
    order = list(Outcome)
    value, baseline, difference = map(
        _ends, (found.interval, found.baseline_interval, found.difference_interval)
    )
    bounds = [each.bound for each in findings]
    values = [each.limits for each in bounds if isinstance(each, ValueBound)]
    changes = [
        # A relative bound is drawn where the baseline puts it.
        [
            end * (1 if each.relative is None else (found.baseline or 0.0))
            for end in each.limits
        ]
        for each in bounds
        if not isinstance(each, ValueBound)
    ]
    return Row(
        str(where),
        metric,
        where.rows,
        found.value,
        *value,
        found.baseline,
        *baseline,
        found.difference,
        *difference,
        min((each.outcome for each in findings), key=order.index, default=None),
        _finite(values),
        _finite(changes),
    )


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (interval.lower, interval.upper) if interval else (None, None)


def _finite(limits: Iterable[Iterable[float]]) -> tuple[float, ...]:
    ends = {end for pair in limits for end in pair if math.isfinite(end)}
    return tuple(sorted(ends))


def reasons_of(judgment: Judgment) -> tuple[Reason, ...]:
    """Return the sentences of a judgment, with what came of each check."""
    found = {each.sentence: each.outcome for each in judgment.findings}
    return tuple(Reason(each, found.get(each)) for each in judgment.reasons)


def plotted_slices(table: Iterable[Row], most: int = MAX_PLOTS) -> tuple[str, ...]:
    """Return the slices whose curves are worth seeing, the first ones first.

    All rows come first, then slices with failed and inconclusive metrics, then the
    largest. Only these have a place in `Report.plots`, so no others need be made.
    """
    return tuple(_slices_by_weight(tuple(table)))[:most]


def render(report: Report) -> str:
    """Return the page: HTML with its style, its script and its drawings inside.

    Everything that comes from data is escaped, and a Content-Security-Policy allows
    nothing but the page's own style and script. Without the script the table, the
    drawings and the reasons are all there; with it the table sorts and filters.

    Returns:
        Text of fewer than `MAX_BYTES` bytes of UTF-8.
    """
    order = [None, *Outcome]
    rank = {name: index for index, name in enumerate(_slices_by_weight(report.table))}
    plots = sorted(
        report.plots, key=lambda each: (rank.get(each.slice, len(rank)), each.slice)
    )
    ready = _Ready(
        report,
        sorted(report.table, key=lambda row: (rank[row.slice], row.metric)),
        sorted(report.reasons, key=lambda each: order.index(each.outcome)),
        [_drawn_plots(each) for each in plots[:MAX_PLOTS]],
        len(rank),
    )
    limits = _Limits(MAX_ROWS, MAX_REASONS, MAX_PLOTS)
    page = _page(ready, limits)
    while len(page.encode()) >= MAX_BYTES:  # of long names in a script of wide letters
        limits = limits.lowered()
        page = _page(ready, limits)
    return page


@dataclasses.dataclass(frozen=True)
class _Ready:
    """A report in the order in which it is shown."""

    report: Report
    table: list[Row]
    reasons: list[Reason]
    plots: list[_DrawnPlots]
    slices: int


@dataclasses.dataclass(frozen=True)
class _Limits:
    rows: int
    reasons: int
    plots: int

    def lowered(self) -> _Limits:
        return _Limits(self.rows * 4 // 5, self.reasons * 4 // 5, self.plots * 4 // 5)


def _page(ready: _Ready, limits: _Limits) -> str:
    table, plots = ready.table[: limits.rows], ready.plots[: limits.plots]
    reasons = ready.reasons[: limits.reasons]
    places = {each.slice: index for index, each in enumerate(plots)}
    counts = Counter(each.outcome for each in ready.reasons)
    template = pages.template(Path(__file__).with_name("report.html.jinja"))
    text = template.render(
        report=ready.report,
        counts=[(each, counts[each]) for each in Outcome if counts[each]],
        grave=[each for each in reasons if each.outcome in _GRAVE],
        light=[each for each in reasons if each.outcome not in _GRAVE],
        groups=_groups(table, places),
        plots=plots,
        slices=ready.slices,
        rows_shown=len(table),
    )
    return text + "\n"


def _slices_by_weight(table: Sequence[Row]) -> list[str]:
    """Return the slices: all rows, those with the gravest outcomes, the largest."""
    order = [*Outcome, None]
    gravity: dict[str, int] = {}
    rows: dict[str, int] = {}
    for row in table:
        # Left out or passed makes no slice more worth a look than no threshold does.
        weight = min(order.index(row.verdict), order.index(Outcome.LEFT_OUT))
        gravity[row.slice] = min(gravity.get(row.slice, weight), weight)
        rows[row.slice] = max(rows.get(row.slice, 0), row.rows or 0)
    return sorted(
        gravity,
        key=lambda name: (name != "all rows", gravity[name], -rows[name], name),
    )


@dataclasses.dataclass(frozen=True)
class _Group:
    """The rows of one metric, with the axes that they share."""

    metric: str
    lines: list[_Line]
    ticks: list[tuple[int, str]]
    difference_ticks: list[tuple[int, str]]
    zero: int


@dataclasses.dataclass(frozen=True)
class _Cell:
    number: str
    interval: str
    path: str
    bounds: list[int]


@dataclasses.dataclass(frozen=True)
class _Line:
    row: Row
    plot: int | None
    candidate: _Cell
    baseline: _Cell
    difference: _Cell


def _groups(table: Sequence[Row], plots: dict[str, int]) -> list[_Group]:
    by_metric: dict[str, list[Row]] = {}
    for row in table:
        by_metric.setdefault(row.metric, []).append(row)
    return [_group(metric, rows, plots) for metric, rows in sorted(by_metric.items())]


def _group(metric: str, rows: list[Row], plots: dict[str, int]) -> _Group:
    values = [(row.value, row.lower, row.upper) for row in rows]
    baselines = [(row.baseline, row.baseline_lower, row.baseline_upper) for row in rows]
    differences = [
        (row.difference, row.difference_lower, row.difference_upper) for row in rows
    ]
    scale = drawing.scale_of(
        [*values, *baselines],
        [bound for row in rows for bound in row.bounds],
        _VALUE_WIDTH,
    )
    change = drawing.scale_of(
        differences,
        [0.0, *(bound for row in rows for bound in row.difference_bounds)],
        _DIFFERENCE_WIDTH,
    )
    decimals = drawing.places((end for each in values + baselines for end in each), 4)
    finer = max(
        drawing.places((end for each in differences for end in each), 2), decimals
    )
    apart = _APART if any(row.baseline is not None for row in rows) else 0
    lines = [
        _Line(
            row,
            plots.get(row.slice),
            _cell(values[index], row.bounds, scale, _MIDDLE - apart, decimals),
            _cell(baselines[index], (), scale, _MIDDLE + apart, decimals),
            _cell(
                differences[index],
                row.difference_bounds,
                change,
                _MIDDLE,
                finer,
                signed=True,
            ),
        )
        for index, row in enumerate(rows)
    ]
    return _Group(metric, lines, scale.ticks(6), change.ticks(4), change.pixel(0.0))


def _cell(
    span: drawing.Span,
    bounds: tuple[float, ...],
    scale: drawing.Scale,
    middle: int,
    decimals: int,
    *,
    signed: bool = False,
) -> _Cell:
    value, lower, upper = span
    return _Cell(
        drawing.number(value, decimals, signed=signed),
        drawing.interval(lower, upper, decimals, signed=signed),
        drawing.interval_path(span, scale, middle),
        [scale.pixel(bound) for bound in bounds if not math.isnan(bound)],
    )


@dataclasses.dataclass(frozen=True)
class _Plot:
    """One drawing of a slice; a path is empty where a model has no curve.

    Attributes:
        kind: What it shows.
        x: What its horizontal axis says.
        y: What its vertical axis says.
        x_ticks: Pixels and texts.
        y_ticks: Pixels and texts.
        paths: The candidate's curve and the baseline's.
        circles: Or else, their points: x, y and radius of each.
        has_diagonal: Whether equal values of both axes mean something.
    """

    kind: str
    x: str
    y: str
    x_ticks: list[tuple[int, str]]
    y_ticks: list[tuple[int, str]]
    paths: tuple[str, str] = ("", "")
    circles: tuple[list[tuple[int, int, int]], ...] = ([], [])
    has_diagonal: bool = True


@dataclasses.dataclass(frozen=True)
class _DrawnPlots:
    slice: str
    drawings: list[_Plot]


def _drawn_plots(plots: Plots) -> _DrawnPlots:
    models = (plots.candidate, plots.baseline or Curves())
    drawn = [
        _curves("ROC", "false positive rate", "recall", [each.roc for each in models]),
        _curves(
            "Precision and recall",
            "recall",
            "precision",
            [each.precision_recall for each in models],
        ),
        _calibration([each.calibration for each in models]),
    ]
    return _DrawnPlots(
        plots.slice, [each for each in drawn if any(each.paths) or any(each.circles)]
    )


def _frame(lower: float, upper: float) -> tuple[drawing.Scale, drawing.Scale]:
    left, right, top, bottom = _PLOT
    return (
        drawing.Scale(lower, upper, left, right),
        drawing.Scale(lower, upper, bottom, top),
    )


def _curves(kind: str, x: str, y: str, points: list[Points]) -> _Plot:
    across, up = _frame(0.0, 1.0)
    candidate, baseline = (drawing.curve_path(each, across, up) for each in points)
    return _Plot(
        kind,
        x,
        y,
        across.ticks(5),
        up.ticks(5),
        paths=(candidate, baseline),
        has_diagonal=kind == "ROC",
    )


def _calibration(bins: list[Bins]) -> _Plot:
    merged = [drawing.merged_bins(each) for each in bins]
    numbers = [float(end) for each in merged for end in each[:, :2].ravel()]
    across, up = _frame(*drawing.rounded([0.0, *numbers], 5))
    circles = []
    for each in merged:
        heaviest = max(each[:, 2], default=1.0)
        circles.append(
            [
                (across.pixel(x), up.pixel(y), round(8 + 20 * (w / heaviest) ** 0.5))
                for x, y, w in each.tolist()
            ]
        )
    return _Plot(
        "Calibration",
        "mean prediction",
        "mean label",
        across.ticks(5),
        up.ticks(5),
        circles=tuple(circles),
    )
