"""The DriftMonitor component: is what a model is asked still what it was trained on?"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from penstock.components.base import Component, RunContext, output
from penstock.components.monitoring.log_format import ID, KNOWN
from penstock.schemas.artifacts import DriftVerdict, Examples, Model
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from penstock.components.monitoring.classifier import MultivariateDrift
    from penstock.components.monitoring.drift_document import RowFindings
    from penstock.components.monitoring.profile import Profile
    from penstock.components.monitoring.reference import Reference
    from penstock.components.monitoring.reference_rows import ReferenceRows
    from penstock.components.monitoring.skew import Skew
    from penstock.components.monitoring.watched import Look, Watched
    from penstock.components.monitoring.windows import Window

    Floats: TypeAlias = npt.NDArray[np.float64]

_EPOCH = datetime.date(1970, 1, 1)
_MOST_ROWS = 2_000  # of each side, that a classifier is asked about


class DriftMonitor(Component):
    """Compare what a model was asked, window by window, with what it was trained on.

    Reads Examples of logged requests, and those that the model was trained on. Writes
    a document, a page and a verdict: no on an alert, not enough data below `min_rows`
    or before there is a reference, else yes. Wired into a component it gates it.

    Alerts are held to a budget: thresholds are found by replaying windows without
    drift, so that at most `alerts_per_month` false alerts are raised per model and
    month. Profiles, evidence and thresholds are kept in `monitor_dir`, where `penstock
    drift`, `penstock backtest` and later windows find them.

    Example:
        drift = DriftMonitor(
            examples=ingest.examples,
            reference=TrainedOn(serving_dir),
            scored_by=Served(serving_dir),
            model="taxi",
            time="logged_at",
            scores=("score",),
            monitor_dir=Path("monitoring"),
        )

    Attributes:
        examples: Logged requests of one window or several.
        reference: What the served model was trained on. Without it the first windows
            of serving become the reference, and nothing is judged before.
        scored_by: The served model. Training data have no scores: it is asked for those
            of the reference's rows. A score is its output of that name, or its only
            one.
        model: Name of the model.
        monitor_dir: Where what is kept of watched models lies; made if missing.
        time: Column of when a row was logged: a timestamp, or seconds since 1970 UTC.
            Without it the Examples are one window: the day that their span stands for.
        hourly: Whether windows are hours; days otherwise, both in UTC.
        version: Column of the version of the model that answered.
        probability: Column of the probability with which a row was logged. Rows are
            thinned to the smallest one, so that they are a fair sample.
        columns: The columns to watch; if none are named, all that both the reference
            and the logs have when the reference is made, but those that are named
            here for something else. What only the reference has then, as the label, is
            told in the log of the component and not watched.
        scores: Columns of what the model answered; tested first, with a share of the
            budget of its own.
        labels: Columns of the truth, where it is logged; likewise. That of a
            `LogExampleGen` is one, named or not.
        categories: Columns of numbers that are names, as a postcode.
        splits: The splits of `examples` to read; all if none are named.
        reference_splits: Those of `reference`.
        slices: Columns or expressions, as 'payment_type' or 'trip_miles > 10': windows
            are compared within each of their values, too, that 500 rows of the
            reference and `min_rows` of the window have. Half of a column's share of the
            budget is then that of its slices.
        season: Windows that are alike: by 'weekday', 'hour' or 'weekday and hour'. The
            reference needs the time column for it.
        alerts_per_month: False alerts per model and month that are borne.
        k: In how many of the last `m` windows drift has to be there, unless it is so
            clear in one that it needs no other.
        m: See `k`.
        min_rows: Below them a window decides nothing.
        effects: Least effects that may raise an alert, by drift type.
        importances: Of columns to the model, in any unit; for the ranking.
        id: Column of the ids of rows, in `examples` and in `reference`: values of the
            last window are laid beside those that rows of the same id had in training.
            Without a reference it is only not watched.
        skew_tolerated: Share of rows whose value in a column may differ from that of
            training; more, beyond chance, is an alert.
        together: Whether to ask a classifier, too, whether it can tell rows of the last
            window from those of the reference. If so, the window is to be watched.
        observe_rows: Without a reference, how many rows make one.
        observe_windows: Without a reference, how many windows make one.
        verdict: What the last window came to.
    """

    LIBRARIES = ("numpy", "scipy", "pyarrow", "tensorflow")

    examples: Examples
    reference: tuple[Examples, ...] | None = None
    scored_by: Model | None = None
    model: str
    monitor_dir: Path
    time: str = ""
    hourly: bool = False
    version: str = ""
    probability: str = ""
    columns: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    reference_splits: tuple[str, ...] = ("train",)
    slices: tuple[str, ...] = ()
    season: Literal["", "weekday", "hour", "weekday and hour"] = ""
    alerts_per_month: float = 1.0
    k: int = 2
    m: int = 3
    min_rows: int = 500
    effects: Mapping[str, float] | None = None
    importances: Mapping[str, float] | None = None
    id: str = ""
    skew_tolerated: float = 0.01
    together: bool = False
    observe_rows: int = 5_000
    observe_windows: int = 7
    verdict: DriftVerdict = output()

    def check(self) -> None:
        """Check what can be checked before anything is read.

        Raises:
            PipelineError: If a parameter makes no sense.
        """
        if not self.alerts_per_month > 0:
            raise PipelineError(
                f"{self.name}.alerts_per_month is {self.alerts_per_month}; a monitor "
                "that may never be wrong can never speak. Pass a number above 0."
            )
        if not 1 <= self.k <= self.m:
            raise PipelineError(
                f"{self.name}.k is {self.k} and m is {self.m}. Pass a k from 1 to m."
            )
        if self.season and not self.time:
            raise PipelineError(
                f"{self.name}.season is '{self.season}', which takes the times of "
                "rows. Name their column as time."
            )
        if not 0 <= self.skew_tolerated < 1:
            raise PipelineError(
                f"{self.name}.skew_tolerated is {self.skew_tolerated}, and is a share "
                "of rows. Pass a number from 0 to below 1."
            )
        if self.reference is None and self.together:
            raise PipelineError(
                f"{self.name}.together is True, which takes rows of the reference, and "
                "there is none. Wire one, or leave it out."
            )

    def why_stale(self) -> str:
        """Say why an earlier verdict on these Examples no longer holds.

        Returns:
            That windows before it are others now, or that what was kept is gone; or
            nothing.
        """
        from penstock.components.monitoring.watched import Watched

        watched = Watched(self.monitor_dir, self.model)
        kept = self.verdict.properties.get("kept", "")
        if kept and not (watched.place / str(kept)).is_dir():
            return f"'{watched.place / str(kept)}' is gone"
        before = self.verdict.properties.get("before", "")
        now = watched.names_before(str(self.verdict.properties.get("window", "")))
        if before != now:
            return "the windows before it are others now"
        return ""

    def run(self, context: RunContext) -> None:
        """Look at every window of the Examples, in the order of time.

        Raises:
            DataError: If rows, windows or the reference are not as they have to be.
        """
        from penstock.components.monitoring.remarks import remarks_on
        from penstock.components.monitoring.watched import Policy, Watched

        policy = Policy(
            budget=self.alerts_per_month,
            k=self.k,
            m=self.m,
            min_rows=self.min_rows,
            effects=self.effects or {},
        )
        watched = Watched(self.monitor_dir, self.model)
        rows = self._reference_rows()
        with watched.alone():
            reference = self._reference(watched, rows, context)
            since = -math.inf
            if reference is None:
                reference = self._observe(watched)
                if reference is None:
                    return
                since = reference.profile.window.end
            *before, latest = (  # no rows are an error before
                each for each in self._profiles(reference) if each.window.start >= since
            )
            found = self._of_rows(latest.window, rows)
            for profile in (*before, latest):
                context.progress(profile.rows)
                last = watched.look(
                    profile,
                    reference,
                    policy,
                    self.importances,
                    found if profile is latest else None,
                )
                name, state = profile.window.name, last.document["state"]
                context.logger.info("%s: %s", name, state)
                for remark in remarks_on(profile):
                    context.logger.warning("%s: %s", name, remark)
            self._conclude(watched, last)

    # --- the reference

    def _reference_rows(self) -> ReferenceRows | None:
        """Return what reads the reference's rows; None without a reference.

        Raises:
            DataError: If they lack scores, and there is no model to give them.
        """
        from penstock.components.monitoring.reference_rows import ReferenceRows, lacking

        if self.reference is None:
            return None
        rows = ReferenceRows(
            self.reference, self.reference_splits, self.scores, self.scored_by
        )
        if sentence := lacking(self.scores, rows.names):
            raise DataError(sentence)
        return rows

    def _reference(
        self, watched: Watched, rows: ReferenceRows | None, context: RunContext
    ) -> Reference | None:
        if rows is None:
            found = watched.reference()
            if found is not None:
                self._check_made(found, watched.place)
            return found
        made_from = self._made_from()
        if made_from == watched.made_from():
            return watched.reference()
        from penstock.components.monitoring.reference import Reference
        from penstock.components.monitoring.remarks import remarks_on_grid

        context.logger.info("Making the reference of %s", self._subject())
        columns = self._watched_columns(rows)
        others = {self.time, self.version, self.probability, self.id}
        lacking = [each for each in rows.names if each not in {*columns, *others}]
        if lacking and not self.columns:
            context.logger.warning(
                "Not watched are %s, which '%s' does not have.",
                quoted(lacking),
                self.examples.uri,
            )
        made = Reference.of(
            rows,
            model=self.model,
            time_column=self.time if self._has_reference_times() else None,
            seconds=self._seconds,
            season=self.season,
            columns=columns,
            roles=self._roles(),  # type: ignore[arg-type]
            categories=self.categories,
            slices=self.slices,
            created=0.0,
        )
        for remark in remarks_on_grid(made.grid):
            context.logger.warning("%s", remark)
        watched.use(made, made_from)
        return made

    def _check_made(self, found: Reference, place: Path) -> None:
        """Check that what is asked for fits a reference that was made before.

        Raises:
            DataError: If its slices or seasons are others: they are counted when it
                is made.
        """
        for name in ("slices", "season"):
            mine, its = getattr(self, name), getattr(found, name)
            if mine != its:
                raise DataError(
                    f"{self.name}.{name} is {mine!r}, and the reference of model "
                    f"'{self.model}' in '{place}' was made with {its!r}. Wire a "
                    "reference, or watch in another monitor_dir, where the next "
                    "windows make one."
                )

    def _made_from(self) -> str:
        import hashlib
        import json

        parameters = [
            [
                each.digest or each.uri
                for each in (*(self.reference or ()), self.scored_by)
                if each is not None
            ],
            [self.time, self.hourly, self.season],
            [*self.columns, "", *self.scores, "", *self._labels()],
            [
                *self.categories,
                "",
                *self.reference_splits,
                self.version,
                self.probability,
                self.id,
                *self.slices,
            ],
        ]
        return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()

    def _has_reference_times(self) -> bool:
        from penstock.components.columns.examples import schema_of

        return bool(self.time) and all(
            self.time in schema_of(each).names for each in self.reference or ()
        )

    def _watched_columns(self, rows: ReferenceRows | None = None) -> list[str]:
        """Return the columns to watch: those that are named, or that both have."""
        from penstock.components.columns.examples import schema_of

        if self.columns:
            named = [*self.columns, *self.scores, *self.labels]
            return list(dict.fromkeys(named))
        logged = schema_of(self.examples).names
        known = logged if rows is None else rows.names
        others = {self.time, self.version, self.probability, self.id, *KNOWN}
        both = {*logged, *self.scores, *self.labels}
        return [name for name in known if name in both and name not in others]

    def _roles(self) -> dict[str, str]:
        return {
            **dict.fromkeys(self.scores, "score"),
            **dict.fromkeys(self._labels(), "label"),
        }

    def _labels(self) -> tuple[str, ...]:
        """Return the columns of the truth: those named, and a LogExampleGen's."""
        said = self.examples.properties.get("label")
        return (*self.labels, *([str(said)] if said else []))

    def _subject(self) -> str:
        return ", ".join(f"'{each.uri}'" for each in self.reference or ())

    # --- windows

    @property
    def _seconds(self) -> float:
        from penstock.components.monitoring.windows import DAY, HOUR

        return HOUR if self.hourly else DAY

    def _rows(self) -> Iterator[pa.RecordBatch]:
        from penstock.components.columns.examples import read_batches

        for split in self.splits or self.examples.split_names:
            yield from read_batches(self.examples, split)

    def _rate(self) -> float:
        """Return the smallest probability with which a row was logged.

        Raises:
            DataError: If one is none.
        """
        import numpy as np

        if not self.probability:
            return 1.0
        found = np.concatenate([self._probabilities(each) for each in self._rows()])
        if not ((found > 0) & (found <= 1)).all():
            raise DataError(
                f"Column '{self.probability}' of '{self.examples.uri}' has values from "
                f"{np.nanmin(found):g} to {np.nanmax(found):g}, which are not all "
                "probabilities above 0 and up to 1. Name the column of the "
                "probability with which rows were logged."
            )
        return float(found.min())

    def _probabilities(self, rows: pa.RecordBatch) -> Floats:
        import numpy as np
        import pyarrow as pa

        names = rows.schema.names
        if self.probability not in names:
            raise DataError(
                f"Column '{self.probability}' is not in '{self.examples.uri}' (it has "
                f"{quoted(names)}).{did_you_mean(self.probability, names)}"
            )
        column = rows.column(names.index(self.probability)).cast(pa.float64())
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)

    def _fair_rows(self, rate: float) -> Iterator[pa.RecordBatch]:
        """Yield the rows that a log would have that kept all with one probability."""
        import numpy as np
        import pyarrow as pa

        # The same rows whenever it is run. Seeds are others than those that data are
        # generated from, as they often are from 0: rows would not be drawn by chance.
        random = np.random.default_rng([5, 2026, 11])
        for rows in self._rows():
            if self.probability:
                stays = random.random(rows.num_rows) < rate / self._probabilities(rows)
                rows = rows.filter(pa.array(stays))
            yield rows

    def _only_window(self) -> Window:
        from penstock.components.monitoring.windows import Window

        span = self.examples.span
        if span is None or self.hourly:
            raise DataError(
                f"Examples '{self.examples.uri}' do not say when their rows were "
                f"logged: {self.name}.time names no column, and they have no "
                "span of a day. Name the column, or ingest them with a date in the "
                "pattern."
            )
        return Window.day(_EPOCH + datetime.timedelta(days=span))

    def _profiles(self, reference: Reference) -> Iterator[Profile]:
        from penstock.components.monitoring.profiling import (
            profile_batches,
            profile_windows,
        )

        rate = self._rate()
        if self.time:
            yield from profile_windows(
                reference.grid,
                self._fair_rows(rate),
                self.time,
                seconds=self._seconds,
                model=self.model,
                version_column=self.version or None,
                rate=rate,
                slicer=reference.slicer,
            )
        else:
            yield profile_batches(
                reference.grid,
                self._fair_rows(rate),
                self._only_window(),
                model=self.model,
                version_column=self.version or None,
                rate=rate,
                slicer=reference.slicer,
            )

    # --- rows of the last window

    def _of_rows(self, window: Window, reference: ReferenceRows | None) -> RowFindings:
        """Return what the rows of a window say beside those of training."""
        from penstock.components.monitoring.drift_document import RowFindings

        if reference is None or not (self.id or self.together):
            return RowFindings()
        rows = self._rows_of(window)
        return RowFindings(
            skew=self._skew(rows, reference) if self.id else None,
            tolerated=self.skew_tolerated,
            together=self._together(rows, reference) if self.together else None,
        )

    def _rows_of(self, window: Window) -> pa.Table:
        import pyarrow as pa

        from penstock.components.monitoring.profiling import by_window

        batches = self._fair_rows(self._rate())
        if not self.time:
            return pa.Table.from_batches(list(batches))
        first = round(window.start / self._seconds)
        return pa.Table.from_batches(
            [
                rows
                for batch in batches
                for number, rows in by_window(batch, self.time, self._seconds)
                if number == first
            ]
        )

    def _skew(self, rows: pa.Table, reference: ReferenceRows) -> Skew:
        """Compare rows with those of training that have the same ids."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from penstock.components.monitoring.skew import compare_rows

        if self.id not in rows.schema.names and ID in rows.schema.names:
            # LogExampleGen has ids under the name that they have in every log.
            names = [self.id if each == ID else each for each in rows.schema.names]
            rows = rows.rename_columns(names)
        self._check_id("logged", rows.schema.names, self.examples.uri)
        ids = rows.column(self.id)
        alike, many = [], 0
        for batch in reference():
            self._check_id("trained on", batch.schema.names, self._subject())
            many += batch.num_rows
            own = batch.column(batch.schema.get_field_index(self.id))
            among = pc.is_in(own, value_set=ids.cast(own.type).combine_chunks())
            alike.append(batch.filter(among))
        training = pa.Table.from_batches(alike)
        names = [
            each
            for each in self._watched_columns(reference)
            # They differ by the rounding of who computes them.
            if each not in reference.scored
            if each in rows.schema.names and each in training.schema.names
        ]
        found = compare_rows(training, rows, id=self.id, columns=names)
        return dataclasses.replace(found, only_training=many - found.joined)

    def _check_id(self, which: str, names: list[str], where: str) -> None:
        if self.id not in names:
            raise DataError(
                f"{self.name}.id is '{self.id}', and the rows {which} have no such "
                f"column ('{where}' has {quoted(names)}).{did_you_mean(self.id, names)}"
            )

    def _together(self, rows: pa.Table, reference: ReferenceRows) -> MultivariateDrift:
        """Ask a classifier to tell rows from some of the reference, drawn at random."""
        import numpy as np
        import pyarrow as pa

        from penstock.components.monitoring.classifier import domain_classifier

        # Of rows that each have a random number those with the smallest stay.
        random = np.random.default_rng([5, 2026, 12])
        numbers, kept = np.empty(0), list[pa.RecordBatch]()
        for batch in reference():
            numbers = np.concatenate([numbers, random.random(batch.num_rows)])
            stay = np.sort(np.argsort(numbers)[:_MOST_ROWS])
            table = pa.Table.from_batches([*kept, batch]).take(pa.array(stay))
            numbers, kept = numbers[stay], table.combine_chunks().to_batches()
        names = [
            each
            for each in self._watched_columns(reference)
            if each in rows.schema.names and each not in self._labels()
        ]
        return domain_classifier(
            pa.Table.from_batches(kept),
            rows,
            columns=names,
            importances=self.importances,
            most_rows=_MOST_ROWS,
        )

    # --- without a reference

    def _observe(self, watched: Watched) -> Reference | None:
        """Observe windows; return the reference if it is made and some are left."""
        from penstock.components.monitoring.drift_document import blank
        from penstock.components.monitoring.observation import Observation

        observation = Observation(
            watched.place / "observed",
            self.model,
            least_rows=self.observe_rows,
            least_windows=self.observe_windows,
            columns=self._watched_columns(),
            roles=self._roles(),  # type: ignore[arg-type]
            categories=self.categories,
            season=self.season,
            slices=self.slices,
        )
        window, rows = None, 0
        tables = self._tables()
        for window, table in tables:
            rows = table.num_rows
            self._check_versions(table, window)
            made = observation.add(window, table)
            if made is not None:
                watched.use(made)
                if next(tables, None) is not None:
                    return made
        assert window is not None
        document = blank(self.model, "", window, rows)
        document["reasons"] = [observation.sentence]
        self._write(document, [observation.sentence], window.name)
        return None

    def _tables(self) -> Iterator[tuple[Window, pa.Table]]:
        import pyarrow as pa

        from penstock.components.monitoring.profiling import by_window
        from penstock.components.monitoring.windows import Window

        batches = list(self._fair_rows(self._rate()))
        if not self.time:
            yield self._only_window(), pa.Table.from_batches(batches)
            return
        parts = [
            (number, rows)
            for batch in batches
            for number, rows in by_window(batch, self.time, self._seconds)
        ]
        parts.sort(key=lambda each: each[0])
        for number, group in itertools.groupby(parts, key=lambda each: each[0]):
            start = number * self._seconds
            table = pa.Table.from_batches([rows for _, rows in group])
            window = Window(start, start + self._seconds)
            yield window, table

    def _check_versions(self, rows: pa.Table, window: Window) -> None:
        """Refuse rows of several versions of the model, as a look does.

        Raises:
            DataError: If they are, or do not say it.
        """
        from penstock.components.monitoring.profile import several_versions
        from penstock.components.monitoring.values import column_of, name_counts

        if not self.version:
            return
        has = rows.schema.names
        if self.version not in has:
            raise DataError(
                f"{self.name}.version is '{self.version}', a column that "
                f"'{self.examples.uri}' does not have (it has {quoted(has)})."
                f"{did_you_mean(self.version, has)}"
            )
        column = column_of(rows.column(self.version), self.version)
        names, counts, _ = name_counts(column.values)
        if len(names) > 1:
            found = dict(zip(names.to_pylist(), counts.tolist(), strict=True))
            raise several_versions(window, self.model, found)

    # --- what comes of it

    def _conclude(self, watched: Watched, look: Look) -> None:
        for each in look.folder.iterdir():
            shutil.copy2(each, self.verdict.path / each.name)
        decision, document = look.decision, look.document
        self.verdict.properties.update(
            kept=str(look.folder.relative_to(watched.place)),
            before=watched.names_before(decision.window.name),
            reference=decision.reference_id,
            columns=[each.column for each in decision.alerts],
        )
        self._decide(document["state"], document["reasons"], decision.window.name)

    def _write(self, document: object, reasons: list[str], window: str) -> None:
        from penstock.components.monitoring.document import write_document
        from penstock.components.monitoring.report import render
        from penstock.components.monitoring.watched import PAGE

        write_document(document, self.verdict.file)  # type: ignore[arg-type]
        page = render(document)  # type: ignore[arg-type]
        (self.verdict.path / PAGE).write_text(page, encoding="utf-8")
        self._decide("insufficient_data", reasons, window)

    def _decide(self, state: str, reasons: list[str], window: str) -> None:
        self.verdict.decide(state)
        against = len(reasons) if state in ("alert", "insufficient_data") else 0
        self.verdict.set_reasons(reasons, against=against)
        self.verdict.properties["window"] = window
        self.verdict.properties["model"] = self.model
