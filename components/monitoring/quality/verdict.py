"""The verdict on a window's quality: every test of it, within one budget of alerts.

Four tests share the budget of false alerts in equal parts, those that are asked for:
thresholds, trends with changes, and whether estimates without labels hold. Detectors of
concept drift have no part in it, for most of them keep no budget: they raise `watch`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from penstock.components.evaluation.blessing import Outcome, ValueBound, judge
from penstock.components.monitoring.document import (
    ConceptOf,
    EstimateOf,
    LabelsOf,
    MetricOf,
    QualityOf,
    TrendOf,
)
from penstock.components.monitoring.quality import cbpe, concept
from penstock.components.monitoring.quality.history import (
    OVERALL,
    History,
    QualityWindow,
)
from penstock.components.monitoring.quality.watching import (
    SeriesFinding,
    State,
    Watch,
    watched,
)
from penstock.schemas.errors import PipelineError, quoted

if TYPE_CHECKING:
    from penstock.components.evaluation.blessing import (
        Judgment,
        SliceMetrics,
        Threshold,
    )

MONTH = 30.4 * 86_400.0
"""Seconds of a month, a twelfth of a year."""

ESTIMATED = {
    "auc": "auc",
    "auc_precision_recall": "average_precision",
    "binary_accuracy": "accuracy",
    "binary_crossentropy": "log_loss",
    "f1_score": "f1",
    "mean_squared_error": "brier",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
}
"""What metrics of evaluations are called in `binned.METRICS`."""

GRAVITY: tuple[State, ...] = ("alert", "insufficient_data", "watch", "ok")
"""States, the one that a window comes to before those that it does not."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """False alerts, and what of them each test has.

    Attributes:
        alerts: A month, at most and on average.
        windows_per_month: How many windows a month has.
        tests: How many tests share them.
    """

    alerts: float
    windows_per_month: float
    tests: int

    @property
    def of_one(self) -> float:
        """Alerts a month of one test."""
        return self.alerts / max(self.tests, 1)

    @property
    def level(self) -> float:
        """The chance of a false alert of one test in one window."""
        return self.of_one / self.windows_per_month


@dataclasses.dataclass
class Said:
    """What tests say, as the document has it.

    Attributes:
        states: What each part comes to.
        alerts: Sentences that speak against the model, the gravest first.
        notes: What else is to be known.
        quality: The part of the document.
    """

    states: list[State]
    alerts: list[str]
    notes: list[str]
    quality: QualityOf

    @property
    def state(self) -> State:
        """The gravest state."""
        return min(self.states, key=GRAVITY.index, default="ok")

    @property
    def reasons(self) -> list[str]:
        """All sentences, alerts first."""
        return [*self.alerts, *self.notes]


def nothing_said(window: QualityWindow) -> Said:
    """Return what is said before any test."""
    waiting = window.rows - window.labeled
    labels = LabelsOf(
        joined=window.labeled,
        waiting=waiting,
        late=window.late,
        share=window.labeled / window.rows if window.rows else None,
    )
    quality = QualityOf(metrics=[], trends=[], labels=labels, estimate=None, concept=[])
    return Said([], [], [], quality)


def add_metrics(
    said: Said,
    window: QualityWindow,
    measured: Sequence[SliceMetrics],
    thresholds: Sequence[Threshold],
    budget: Budget,
    *,
    min_slice_size: int,
) -> None:
    """Add the metrics of a window, and what thresholds say of them.

    A threshold fails if the whole interval is beyond the bound, at a confidence that
    the budget sets, and by Holm's procedure among all slices and thresholds.
    """
    states: dict[tuple[str, str], tuple[State, str]] = {}
    if thresholds:
        judgment = judge(
            thresholds,
            measured,
            min_slice_size=min_slice_size,
            on_inconclusive="bless",
            false_block_rate=budget.level,
        )
        states = _states_of(judgment)
        for each in judgment.findings:
            if each.outcome is Outcome.FAILED:
                said.states.append("alert")
                said.alerts.append(each.sentence)
    for point in window.points:
        state, sentence = states.get((point.metric, point.slice), ("ok", ""))
        entry = MetricOf(
            metric=point.metric,
            slice=point.slice,
            value=point.value,
            lower=point.lower,
            upper=point.upper,
            rows=point.rows,
            estimated=False,
            state=state,
        )
        if sentence:
            entry["sentence"] = sentence
        said.quality["metrics"].append(entry)


def _states_of(judgment: Judgment) -> dict[tuple[str, str], tuple[State, str]]:
    found: dict[tuple[str, str], tuple[State, str]] = {}
    for each in judgment.findings:
        if each.slice is None or each.outcome is not Outcome.FAILED:
            continue
        where = ", ".join(f"{name}={value}" for name, value in each.slice) or OVERALL
        found.setdefault((str(each.metric), where), ("alert", each.sentence))
    return found


def add_trends(
    said: Said,
    windows: Sequence[QualityWindow],
    watch: Watch,
    deployments: Sequence[tuple[float, str]],
    *,
    min_slice_size: int,
) -> list[SeriesFinding]:
    """Add trends and change points; return what every series comes to."""
    history = History.of(windows, min_rows=min_slice_size)
    findings = watched(history, watch, deployments=deployments)
    places = {key: number for number, key in enumerate(history.keys)}
    shown = history.last(max(watch.trend_windows, watch.change_windows))
    points = {
        (each.window, point.metric, point.slice): point
        for each in windows
        for point in each.points
    }
    for found in findings:
        number = places[found.metric, found.slice]
        trend = TrendOf(
            metric=found.metric,
            slice=found.slice,
            points=[
                {
                    "window": window.name,
                    "value": point.value,
                    "lower": point.lower,
                    "upper": point.upper,
                    "rows": point.rows,
                }
                for place, window in enumerate(shown.windows)
                if shown.rows[number, place] > 0
                and (point := points[window, found.metric, found.slice])
            ],
            change_points=[
                {
                    "window": each.window,
                    "before": each.before,
                    "after": each.after,
                    "p_value": each.p_value,
                    "deployment": each.deployment,
                }
                for each in found.change_points
            ],
            slope_per_week=found.slope_per_week,
            state=found.state,
            sentence=found.sentence,
        )
        said.quality["trends"].append(trend)
        if found.state == "alert":
            said.alerts.append(found.sentence)
        elif found.state == "watch":
            said.notes.append(found.sentence)
        if found.state in ("alert", "watch"):
            said.states.append(found.state)
    said.quality["deployments"] = [
        {"window": window.name, "text": text}
        for window in shown.windows
        for time, text in sorted(deployments)
        if time in window
    ]
    if findings and all(each.state == "insufficient_data" for each in findings):
        count = "is 1 window" if len(windows) == 1 else f"are {len(windows):,} windows"
        said.notes.append(
            f"There {count} yet, too few for trends: every series needs 7 with enough "
            "rows."
        )
    return findings


def add_estimates(
    said: Said,
    window: QualityWindow,
    estimates: Mapping[str, cbpe.Estimate],
    checked: cbpe.AssumptionCheck | None,
    thresholds: Sequence[Threshold],
    *,
    level: float,
    counts: bool,
) -> None:
    """Add estimates without labels, and whether their assumption holds.

    Args:
        said: To add to.
        window: The window.
        estimates: By name, the one to be shown first.
        checked: The check of that one, where labels have come.
        thresholds: Bounds; an estimate whose whole interval is beyond one alerts.
        level: One minus the confidence of that interval.
        counts: Whether estimates are what there is to go by, for there are no labels.
    """
    bounds = _bounds(thresholds)
    for name, each in estimates.items():
        state: State = "ok"
        limits = bounds.get(name)
        lower, upper = each.at(1 - level)
        if counts and limits and (upper < limits[0] or lower > limits[1]):
            state = "alert"
            said.states.append(state)
            said.alerts.append(
                f"{each.sentence} The bound is {limits[0]:g} to {limits[1]:g}, beyond "
                f"its {100 * (1 - level):.4g} % interval {lower:.4g} to {upper:.4g}."
            )
        said.quality["metrics"].append(
            MetricOf(
                metric=name,
                slice=OVERALL,
                value=each.value,
                lower=each.lower,
                upper=each.upper,
                rows=window.rows,
                estimated=True,
                state=state,
                sentence=each.sentence,
            )
        )
    if not estimates:
        return
    first = next(iter(estimates.values()))
    assumption: Literal["holds", "violated", "unchecked"] = "unchecked"
    sentence = first.sentence
    if checked is not None:
        assumption, sentence = checked.assumption, checked.sentence
        if assumption == "violated":
            said.states.append("alert")
            said.alerts.append(sentence)
    said.quality["estimate"] = EstimateOf(
        method=cbpe.METHOD,
        metric=first.metric,
        value=first.value,
        lower=first.lower,
        upper=first.upper,
        assumption=assumption,
        sentence=sentence,
    )


def _bounds(thresholds: Sequence[Threshold]) -> dict[str, tuple[float, float]]:
    """Return the bounds of all rows, by the name that estimates have."""
    found = {}
    for each in thresholds:
        name = ESTIMATED.get(str(each.metric))
        is_for_all = each.slicing is None or not getattr(each.slicing, "keys", True)
        if name and is_for_all and isinstance(each.bound, ValueBound):
            found[name] = each.bound.limits
    return found


def add_concept(said: Said, signals: Mapping[str, concept.Signals]) -> None:
    """Add what detectors of concept drift say of the errors of the window."""
    for name, each in signals.items():
        if each.drifts:
            sentence = (
                f"{name} sees concept drift: the error rate rose, in the order of time "
                f"first at error or success {each.drifts[0] + 1:,} of the window."
            )
            said.states.append("watch")
            said.notes.append(sentence)
        elif each.level == "warning":
            # Too common to be told: a column of the page, and no state.
            sentence = f"{name} warns: the error rate may be rising."
        else:
            sentence = f"{name} sees no concept drift."
        said.quality["concept"].append(
            ConceptOf(detector=name, state=each.level, sentence=sentence)
        )


def mixed_versions(window: QualityWindow) -> str:
    """Return a sentence on a window of several versions; empty if it is of one."""
    if len(window.versions) < 2:
        return ""
    counts = ", ".join(
        f"'{name}' ({rows:,} rows)" for name, rows in window.versions.items()
    )
    return (
        f"The window {window.window.name} mixes versions of the model: {counts}. Its "
        "metrics are of all of them; slice by the version to tell them apart."
    )


def first_seen(windows: Sequence[QualityWindow]) -> list[tuple[float, str]]:
    """Return when versions of the model were first seen, beyond the first window."""
    known: set[str] = set()
    found: list[tuple[float, str]] = []
    for number, each in enumerate(windows):
        new = [name for name in each.versions if name not in known]
        known.update(new)
        if number and new:
            found.append((each.window.start, f"version {', '.join(sorted(new))}"))
    return found


def check_estimated(names: Sequence[str], subject: str) -> None:
    """Check that metrics can be estimated without labels.

    Raises:
        PipelineError: If one cannot.
    """
    from penstock.components.monitoring.quality.binned import METRICS
    from penstock.schemas.errors import did_you_mean

    for name in names:
        if name not in METRICS:
            raise PipelineError(
                f"{subject} has '{name}', which cannot be estimated without labels "
                f"(those are {quoted(METRICS)}).{did_you_mean(name, METRICS)} Name one "
                "of them."
            )


def detectors_of(
    names: Sequence[str],
    states: Mapping[str, Any],
    *,
    rate: float,
    run_length: float,
) -> dict[str, concept.Detector]:
    """Return detectors, going on from where they stood at the end of a window."""
    found = {}
    for name in names:
        made = concept.detector(name, rate=rate, run_length=run_length)
        if name in states:
            made.restore(states[name])
        found[name] = made
    return found
