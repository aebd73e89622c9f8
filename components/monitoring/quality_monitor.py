"""QualityMonitor: a verdict on whether a model still answers as well as it did."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from penstock.components.base import Component, RunContext, output
from penstock.schemas.artifacts import (
    Examples,
    ExternalArtifact,
    ModelEvaluation,
    QualityVerdict,
    check_split_name,
)
from penstock.schemas.errors import DataError, PipelineError

if TYPE_CHECKING:
    from penstock.components.evaluation.blessing import Threshold
    from penstock.components.monitoring.logs import LogTable
    from penstock.components.monitoring.quality import cbpe, concept
    from penstock.components.monitoring.quality.daily import Question
    from penstock.components.monitoring.quality.history import QualityWindow
    from penstock.components.monitoring.quality.verdict import Budget, Said
    from penstock.components.monitoring.windows import Window

_EPOCH = datetime.date(1970, 1, 1)
_MOST_WINDOWS = 400  # that are kept: a year, and what a trend needs before it


class QualityMonitor(Component):
    """Measure logged predictions window by window, and say whether quality sinks.

    Reads Examples of logged rows, with predictions and, where they have come, labels;
    earlier evaluations, for trends; and a reference with labels, for estimates where
    they have not. Writes an evaluation of the last window, with the history of all
    windows in its folder `windows`, and a verdict that gates: no for ALERT, not enough
    data for INSUFFICIENT_DATA, yes for OK and WATCH.

    Thresholds, trends and the check of estimates share one budget of false alerts,
    valid for looks at every window; see docs/quality-over-time.md.

    Example:
        monitor = QualityMonitor(
            examples=logs.examples,
            evaluations=Latest(ModelEvaluation, component="QualityMonitor"),
            label="big_tipper", prediction="score", slices=["payment_type"],
        )

    Attributes:
        examples: Logged rows of one window or of several days.
        reference: Rows with predictions and labels that the model was not trained on,
            such as its test split: what estimates without labels are calibrated on.
        evaluations: What this component wrote for earlier windows. Of a window that is
            there twice, the later counts.
        label: Column of the labels; null where none has come.
        prediction: Column of the predictions.
        model: Name of the model.
        window: The window that all rows are of: a UTC day, '2026-11-30', or start and
            end in ISO 8601 with a slash between. Without one, `time` divides rows into
            days, or else the span of the examples is the day.
        time: Column of the time of a row.
        version: Column of the model's version.
        probability: Column of the probability with which a row was logged; rows count
            one over it.
        nan_scores: What happens to rows whose prediction is not a number: `refuse`
            them with their count, or `drop` and count them.
        splits: Splits of the examples to read; all if none is named.
        reference_splits: Likewise of the reference.
        metrics: Names, as `AUC`; those that fit the labels if none is named.
        slices: Columns or expressions; every value is a slice.
        thresholds: Bounds of metrics, as `auc >= 0.8`.
        estimated: Metrics to estimate where there is a reference, the one that is
            checked first.
        decision: From which prediction on a row counts as positive, for estimates and
            errors.
        concept: Detectors of concept drift, of ADWIN, CUSUM, DDM, EDDM, Page-Hinkley.
            They raise WATCH, not ALERT.
        deployments: Times in ISO 8601 and what was deployed then, to mark changes.
        history_dir: Folder of stored windows from elsewhere.
        alerts_per_month: The budget of false alerts.
        min_rows: Rows with labels that a window needs.
        min_slice_size: Rows with labels that a slice needs in a window.
        trend_windows: How many windows a trend looks back.
        least_change: Share of a metric's value that has to be lost to matter.
        replicates: Of bootstraps.
        seed: Of all that is drawn.
        evaluation: Metrics of the last window, as an Evaluator writes them, and the
            stored windows.
        verdict: What it comes to, as `quality.json`, and a page.
    """

    examples: Examples
    reference: Examples | None = None
    evaluations: tuple[ModelEvaluation, ...] | None = None
    label: str
    prediction: str
    model: str = "model"
    window: str = ""
    time: str = ""
    version: str = ""
    probability: str = ""
    nan_scores: Literal["refuse", "drop"] = "refuse"
    splits: tuple[str, ...] = ()
    reference_splits: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()
    estimated: tuple[str, ...] = ("auc",)
    decision: float = 0.5
    concept: tuple[str, ...] = ("ADWIN",)
    deployments: tuple[tuple[str, str], ...] = ()
    history_dir: Path | None = None
    alerts_per_month: float = 1.0
    min_rows: int = 500
    min_slice_size: int = 100
    trend_windows: int = 35
    least_change: float = 0.005
    replicates: int = 1_000
    seed: int = 0
    evaluation: ModelEvaluation = output()
    verdict: QualityVerdict = output()

    BASE_TYPE = "EVALUATE"
    LIBRARIES = ("tensorflow-model-analysis", "numpy", "scipy")

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        """Return the folder of stored windows, if one is named."""
        if self.history_dir is None:
            return ()
        return (ExternalArtifact.of(self.history_dir),)

    def check(self) -> None:
        for name in ("label", "prediction", "model"):
            if not getattr(self, name):
                raise PipelineError(
                    f"{self.name}.{name} is empty. Pass the name of "
                    f"{'the model' if name == 'model' else 'a column'}."
                )
        for split in (*self.splits, *self.reference_splits):
            check_split_name(split)
        if self.window:
            self._window()
        self._times()
        for name, least in (
            *(("min_rows", 1), ("min_slice_size", 1), ("seed", 0)),
            *(("trend_windows", 7), ("replicates", 100)),
        ):
            value = getattr(self, name)
            if value < least:
                raise PipelineError(
                    f"{self.name}.{name} is {value}. Pass a whole number from {least}."
                )
        for name, low, high in (
            ("alerts_per_month", 0.0, 7.6),
            ("decision", 0.0, 1.0),
            ("least_change", -1e-300, 1.0),
        ):
            value = getattr(self, name)
            if not low < value < high:
                raise PipelineError(
                    f"{self.name}.{name} is {value}; it lies between {max(low, 0):g} "
                    f"and {high:g}. Pass a number in between."
                )

    def run(self, context: RunContext) -> None:
        from penstock.components.monitoring.quality import (
            concept,
            daily,
            history,
            verdict,
        )

        concept.check_names(self.concept, f"{self.name}.concept")
        verdict.check_estimated(self.estimated, f"{self.name}.estimated")
        if "CUSUM" in self.concept and self.reference is None:
            raise PipelineError(
                f"{self.name}.concept has 'CUSUM', which has to know the error rate "
                "when all is well. Give a reference, or another detector."
            )
        question = self._question()
        log = daily.read(
            self.examples, self.splits or self.examples.split_names, question
        )
        self._told(log)
        calibration, error_rate = self._calibration(context)
        windows = {each.window: each for each in self._earlier()}
        found = daily.by_window(log, self._window(), has_time=bool(self.time))
        for number, (window, rows) in enumerate(found):
            is_last = number == len(found) - 1
            before = [windows[each] for each in sorted(windows) if each < window]
            live = _Live(self, question, window, rows, context, error_rate)
            stored, said, budget = live.looked_at(
                before, windows.get(window), calibration, is_last=is_last
            )
            windows[window] = stored
            context.logger.info(
                "Window %s: %s rows, %s with labels.",
                window.name,
                f"{stored.rows:,}",
                f"{stored.labeled:,}",
            )
        kept = history.in_order(windows.values())[-_MOST_WINDOWS:]
        for each in kept:
            history.write_window(self.evaluation.path / history.FOLDER, each)
        self._decide(stored, said, budget, self._reference_of(calibration))

    def _earlier(self) -> list[QualityWindow]:
        """Return stored windows, from the folder first, then the evaluations' order."""
        from penstock.components.monitoring.quality import history

        found = []
        if self.history_dir is not None:
            found += history.read_windows(self.history_dir)
        for each in self.evaluations or ():
            folder = each.path / history.FOLDER
            if not folder.is_dir():
                raise DataError(
                    f"The evaluation '{each.source or each.uri}' holds no stored "
                    f"windows: its folder '{history.FOLDER}' is not there, as it is in "
                    f"those of a QualityMonitor. Wire its own evaluations to "
                    f"{self.name}.evaluations."
                )
            found += history.read_windows(folder)
        found = history.in_order(found)
        for stored in found:
            if stored.model != self.model:
                raise DataError(
                    f"The stored window {stored.window.name} is of '{stored.model}', "
                    f"and {self.name}.model is '{self.model}'. Give the history of the "
                    "same model."
                )
        return found

    def _question(self) -> Question:
        from penstock.components.monitoring.quality.daily import Question

        return Question(
            label=self.label,
            prediction=self.prediction,
            probability=self.probability,
            version=self.version,
            time=self.time,
            metrics=self.metrics,
            slices=self.slices,
            thresholds=self.thresholds,
            min_slice_size=self.min_slice_size,
            replicates=self.replicates,
            seed=self.seed,
        )

    def _window(self) -> Window | None:
        """Return the window that all rows are of; None if their times tell it."""
        from penstock.components.monitoring.windows import Window

        if self.window:
            return Window.parse(self.window, f"{self.name}.window")
        if self.time or self.examples.is_promise:
            return None
        span = self.examples.span
        if span is None:
            raise DataError(
                f"Nothing tells which window Examples "
                f"'{self.examples.source or self.examples.uri}' are of: they have no "
                f"span, and {self.name} names neither a window nor a column of the "
                "time. Pass window='2026-11-30', or time='the column'."
            )
        return Window.day(_EPOCH + datetime.timedelta(days=span))

    def _times(self) -> list[tuple[float, str]]:
        """Return the deployments, their times in seconds since 1970."""
        from penstock.components.monitoring.windows import seconds_of

        return [
            (seconds_of(time, f"{self.name}.deployments"), text)
            for time, text in self.deployments
        ]

    def _calibration(
        self, context: RunContext
    ) -> tuple[cbpe.Calibration | None, float | None]:
        """Return how often rows of a score are positive, and the share of errors."""
        if self.reference is None:
            return None, None
        import dataclasses

        from penstock.components.monitoring.quality import cbpe, daily

        question = dataclasses.replace(
            self._question(), slices=(), time="", version="", probability=""
        )
        reference = self.reference
        log = daily.read(
            reference, self.reference_splits or reference.split_names, question
        )
        log = self._told(log)
        rows = daily.arrays(log, question)
        rows = (
            rows.where(daily.has_value(log, self.label)) if len(rows.scores) else rows
        )
        if not rows.are_binary:
            raise DataError(
                f"The reference '{reference.source or reference.uri}' has predictions "
                f"in '{self.prediction}' and labels in '{self.label}' that are not "
                "probabilities and classes of 0 and 1, and quality without labels is "
                f"estimated of those only. Leave {self.name}.reference out."
            )
        is_wrong = (rows.scores >= self.decision) != (rows.labels == 1)
        context.logger.info("Calibrating on %s rows.", f"{len(rows.scores):,}")
        made = cbpe.Calibration.fit(rows.scores, rows.labels, threshold=self.decision)
        return made, float(is_wrong.mean())

    def _told(self, log: LogTable) -> LogTable:
        """Return the rows whose prediction is a number."""
        from penstock.components.monitoring.quality import daily

        known = daily.is_number(log, self.prediction)
        count = len(known) - int(known.sum())
        if count and self.nan_scores == "refuse":
            raise DataError(
                f"{log.subject} has {count:,} of {len(known):,} rows whose prediction "
                f"in '{self.prediction}' is not a number. Mend the model, or pass "
                "nan_scores='drop' to leave such rows out and count them."
            )
        return log.only(known) if count else log

    def _reference_of(self, calibration: cbpe.Calibration | None) -> Any:
        if calibration is None or self.reference is None:
            return None
        return {
            "id": calibration.id,
            "rows": int(calibration.rows.sum()),
            "model_version": None,
            "seasonal": False,
        }

    def _decide(
        self, stored: QualityWindow, said: Said, budget: Budget, reference: Any
    ) -> None:
        from penstock.components.monitoring import document
        from penstock.components.monitoring.report import render
        from penstock.components.monitoring.windows import iso

        state = said.state
        versions = dict(stored.versions)
        run_length = budget.windows_per_month / budget.alerts
        document.write_document(
            {
                "format": "penstock-monitoring-report",
                "version": 1,
                "model": self.model,
                "model_version": max(versions, key=lambda each: versions[each])
                if versions
                else None,
                "versions": versions,
                "window": stored.window.to_json(),  # type: ignore[typeddict-item]
                "made_at": iso(round(time.time())),
                "rows": stored.rows,
                "reference": reference,
                "state": state,
                "reasons": said.reasons,
                "budget": {
                    "alerts_per_month": self.alerts_per_month,
                    "expected_alerts_per_month": None,
                    "run_length_windows": run_length,
                    "level": budget.level,
                    "k": 2,
                    "m": 3,
                    "min_rows": self.min_rows,
                },
                "columns": [],
                "skew": None,
                "multivariate": None,
                "quality": said.quality,
            },
            self.verdict.file,
        )
        page = render(document.read_document(self.verdict.file))
        (self.verdict.path / "report.html").write_text(page, encoding="utf-8")
        self.verdict.properties["window"] = stored.window.name
        self.verdict.set_reasons(said.reasons, against=len(said.alerts))
        self.verdict.decide(state)
        self.evaluation.properties["window"] = stored.window.name
        for point in stored.points:
            if point.slice == "overall" and point.value == point.value:
                self.evaluation.properties[point.metric] = point.value


class _Live:
    """One window as it is looked at.

    Args:
        monitor: The component.
        question: What is measured.
        window: The window.
        log: Its rows, those without a number for a prediction among them.
        context: Of the component's run.
        error_rate: Share of errors in the reference, if there is one.
    """

    def __init__(
        self,
        monitor: QualityMonitor,
        question: Question,
        window: Window,
        log: LogTable,
        context: RunContext,
        error_rate: float | None,
    ) -> None:
        self._monitor = monitor
        self._question = question
        self._window = window
        self._log = monitor._told(log)
        self._without = log.rows - self._log.rows
        self._context = context
        self._error_rate = error_rate

    def looked_at(
        self,
        before: Sequence[QualityWindow],
        earlier: QualityWindow | None,
        calibration: cbpe.Calibration | None,
        *,
        is_last: bool,
    ) -> tuple[QualityWindow, Said, Budget]:
        """Measure the window and, if it is the last one, judge it.

        Args:
            before: The windows before it.
            earlier: What was measured of it before, with the labels of then.
            calibration: Of the reference, if there is one.
            is_last: Whether it is the one that the verdict is about.
        """
        from penstock.components.monitoring.quality import daily, verdict

        monitor = self._monitor
        budget = verdict.Budget(
            monitor.alerts_per_month,
            verdict.MONTH / self._window.seconds,
            1 + bool(monitor.thresholds) + (calibration is not None),
        )
        has_label = daily.has_value(self._log, monitor.label)
        labeled = int(has_label.sum())
        log = self._log.only(has_label)
        rows = daily.arrays(self._log, self._question)
        signals, states = self._errors(rows, has_label, before, budget)
        measured, thresholds, points = self._measured(log, labeled, budget, is_last)
        stored = daily.window_of(
            self._log, self._window, monitor.model, labeled, points, states
        ).measured_before(earlier)
        said = verdict.nothing_said(stored)
        if not is_last:
            return stored, said, budget
        has_labels = labeled >= monitor.min_rows
        if has_labels:
            verdict.add_metrics(
                said,
                stored,
                measured,
                thresholds,
                budget,
                min_slice_size=monitor.min_slice_size,
            )
        self._add_trends(said, [*before, stored], budget, has_labels=has_labels)
        if calibration is not None:
            self._add_estimates(
                said, stored, rows, has_label, calibration, thresholds, budget
            )
        verdict.add_concept(said, signals)
        if not has_labels:
            text = (
                f"Labels have come for {labeled:,} of the {stored.rows:,} rows of "
                f"{self._window.name}, and {monitor.min_rows:,} are needed to measure."
            )
            if stored.rows < monitor.min_rows:
                said.states.append("insufficient_data")
                text += " Use longer windows."
            elif calibration is None:
                said.states.append("insufficient_data")
                text += " Wait for more, or give a reference for estimates without."
            said.notes.insert(0, text)
        if self._without:
            said.notes.append(
                f"{self._without:,} of {stored.rows + self._without:,} rows of "
                f"{self._window.name} have a prediction that is not a number, and are "
                "left out."
            )
        if mixed := verdict.mixed_versions(stored):
            said.notes.append(mixed)
        return stored, said, budget

    def _measured(
        self, log: LogTable, labeled: int, budget: Budget, is_last: bool
    ) -> tuple[Any, list[Threshold], Any]:
        from penstock.components.evaluation import eval_config
        from penstock.components.monitoring.quality import daily

        monitor = self._monitor
        config = daily.config_of(log, self._question, monitor.examples, self._context)
        ready = eval_config.prepared(config, has_baseline=False)
        confidence = 1 - budget.level
        if labeled < monitor.min_rows:
            return [], eval_config.thresholds(ready, confidence), ()
        evaluation = monitor.evaluation
        if not is_last:
            folder = self._context.temp_dir / "earlier"
            folder.mkdir(exist_ok=True)
            evaluation = ModelEvaluation(folder)
        measured = daily.measure(
            log,
            self._question,
            config,
            monitor.examples,
            evaluation,
            self._context,
        )
        names = {name for each in measured for name in each.metrics}
        thresholds = eval_config.thresholds(ready, confidence, names)
        return measured, thresholds, daily.points_of(measured)

    def _add_trends(
        self,
        said: Said,
        windows: list[QualityWindow],
        budget: Budget,
        *,
        has_labels: bool,
    ) -> None:
        from penstock.components.monitoring.quality import verdict, watching

        monitor = self._monitor
        if not has_labels:
            windows = windows[:-1]
        if not windows:
            return
        watch = watching.Watch(
            alerts=budget.of_one,
            windows_per_month=budget.windows_per_month,
            trend_windows=monitor.trend_windows,
            change_windows=max(60, monitor.trend_windows),
            least_change=monitor.least_change,
        )
        deployed = [*monitor._times(), *verdict.first_seen(windows)]
        verdict.add_trends(
            said, windows, watch, deployed, min_slice_size=monitor.min_slice_size
        )

    def _add_estimates(
        self,
        said: Said,
        stored: QualityWindow,
        rows: Any,
        has_label: Any,
        calibration: cbpe.Calibration,
        thresholds: list[Threshold],
        budget: Budget,
    ) -> None:
        from penstock.components.monitoring.quality import cbpe, verdict

        monitor = self._monitor
        if not monitor.estimated or not stored.rows:
            return
        scores = calibration.binned(rows.scores, rows.weights)
        found = cbpe.estimates(
            calibration, scores, monitor.estimated, seed=monitor.seed
        )
        checked = None
        if has_label.any():
            known = rows.where(has_label)
            checked = cbpe.check(
                calibration,
                calibration.binned(known.scores, known.weights),
                calibration.positives_in(known.scores, known.labels, known.weights),
                monitor.estimated[0],
                level=budget.level,
                seed=monitor.seed,
            )
        verdict.add_estimates(
            said,
            stored,
            found,
            checked,
            thresholds,
            level=budget.level,
            counts=stored.labeled < monitor.min_rows,
        )

    def _errors(
        self, rows: Any, has_label: Any, before: Sequence[QualityWindow], budget: Budget
    ) -> tuple[dict[str, concept.Signals], dict[str, Any]]:
        """Show the errors of the window to the detectors, in the order of time."""
        from penstock.components.monitoring.quality import verdict

        monitor = self._monitor
        # A window whose labels have not come must not make detectors forget.
        states = dict(before[-1].detectors) if before else {}
        if not monitor.concept or not len(rows.scores):
            return {}, states
        known = rows.where(has_label)
        if not known.are_binary:
            return {}, states
        detectors = verdict.detectors_of(
            monitor.concept,
            states,
            rate=0.0 if self._error_rate is None else self._error_rate,
            run_length=max(len(known.scores), 1) * budget.windows_per_month,
        )
        errors = ((known.scores >= monitor.decision) != (known.labels == 1)).astype(
            float
        )
        signals = {name: each.update(errors) for name, each in detectors.items()}
        return signals, {name: each.state() for name, each in detectors.items()}
