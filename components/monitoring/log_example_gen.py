"""LogExampleGen: what a model was asked and answered, as Examples for monitors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.components.base import Component, RunContext, field, output
from penstock.components.monitoring.log_format import LogFormat, LogRules
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.artifacts import Examples, ExternalArtifact
from penstock.schemas.errors import DataError, PipelineError

if TYPE_CHECKING:
    from penstock.components.monitoring.labels import LabelJoin
    from penstock.components.monitoring.logs import LogTable

SPLIT = "logged"
"""The split that the rows are in."""

_FILE = "data_parquet-00000-of-00001.parquet"


class LogExampleGen(Component):
    """Read inference logs, with the labels that have come by now.

    Reads request logs (`PredictionLog`) of the router and of TensorFlow Serving,
    Parquet, CSV, or samples of these. Writes one split, `logged`, as Parquet: features
    and scores under their own names, the label where it has come, and what is known of
    every row as `log_id`, `log_time`, `log_version`, `log_lane`, `log_stratum` and
    `log_probability`.

    It runs anew when a log has changed, or labels of its rows have come since.

    Example:
        logs = LogExampleGen(
            log_dir="log", window="2026-11-30", format=LogFormat(id="trip_id"),
            labels_dir="labels",
        )
        quality = QualityMonitor(
            examples=logs.examples, label="label", prediction="score",
            version="log_version", probability="log_probability",
        )

    Attributes:
        log_dir: The logs: a file, a folder, or a pattern, in which `{date}` stands for
            the dates of the window.
        window: Which rows: a UTC day, '2026-11-30', or start and end in ISO 8601 with
            a slash between. All of them if empty.
        version: Only rows that this version of the model answered.
        format: Which columns mean what.
        rules: What to do where the log is not as it should be.
        labels_dir: The folder of a `LabelJoin`, which `penstock labels` fills too. Its
            rows are the predictions of these logs, added here.
        label: Name of the column of labels.
    """

    BASE_TYPE = "PROCESS"

    LIBRARIES = ("pyarrow",)

    log_dir: Path | str = field(counts=False)
    window: str = ""
    version: str = ""
    format: LogFormat = LogFormat()
    rules: LogRules = LogRules()
    labels_dir: Path | None = field(default=None, counts=False)
    label: str = "label"
    examples: Examples = output()

    def check(self) -> None:
        """Check what can be checked before anything is read.

        Raises:
            PipelineError: If parameters do not go together.
        """
        if self.window:
            self._window()
        if self.labels_dir is not None and self.format.id is None:
            raise PipelineError(
                f"{self.name}.labels_dir is '{self.labels_dir}', and labels are joined "
                "by id. Name the column of ids as format=LogFormat(id=...)."
            )
        if self.labels_dir is not None and not self.label:
            raise PipelineError(
                f"{self.name}.label is empty. Pass a name for the column of labels."
            )

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        """Return the files of the log that the window needs."""
        return tuple(map(ExternalArtifact.of, self._files()))

    def why_stale(self) -> str:
        """Say why rows that were read before are not those that would be read now.

        Returns:
            That labels of them have come since, or are gone; or nothing.
        """
        if self.labels_dir is None:
            return ""
        from penstock.components.monitoring.labels import FILE, LabelJoin

        if not (self.labels_dir / FILE).is_file():
            return f"'{self.labels_dir}' holds no labels any more"
        kept = self.examples.properties
        first, last = (float(str(kept.get(key, "nan"))) for key in ("first", "last"))
        with LabelJoin(self.labels_dir) as join:
            if join.state(first, last) == kept.get("labels"):
                return ""
        return "labels of its rows have come, or changed, since"

    def run(self, context: RunContext) -> None:
        """Read the rows of the window, and join the labels that have come.

        Raises:
            DataError: If the log is not as it should be, or has no rows.
        """
        from penstock.components.monitoring.labels import LabelJoin

        if self.labels_dir is None:
            rows = self._write(self._read(), context)
        else:
            self.examples.properties["label"] = self.label
            with LabelJoin(self.labels_dir) as join:
                rows = self._write(self._labeled(join), context)
                if self.window:
                    context.logger.info("%s", join.window(self._window()).sentence)
        properties = self.examples.properties
        self.examples.split_names = [SPLIT]
        properties["payload_format"] = "FORMAT_PARQUET"
        properties["file_format"] = "parquet"
        properties["rows"] = {SPLIT: rows}
        window = self._window() if self.window else None
        if window is not None and window.seconds == DAY and window.start % DAY == 0:
            properties["span"] = round(window.start / DAY)

    def _write(self, logs: Iterable[LogTable], context: RunContext) -> int:
        """Write batches of a log; return how many rows they have."""
        from penstock.components.columns import parquet

        path = self.examples.path / f"Split-{SPLIT}" / _FILE
        path.parent.mkdir()
        writer: parquet.Writer | None = None
        rows = 0
        notes: tuple[str, ...] = ()
        try:
            for log in logs:
                writer = writer or parquet.Writer(path, log.table.schema)
                for batch in log.table.combine_chunks().to_batches():
                    writer.write(batch)
                context.progress(log.rows)
                rows, notes = rows + log.rows, log.notes
        finally:
            if writer is not None:
                writer.close()
        for note in notes:
            context.logger.warning("%s", note)
        if not rows:
            raise DataError(
                f"The log '{self.log_dir}' has no rows, so that there is nothing to "
                "watch. Ingest a window with requests."
            )
        return rows

    def _read(self) -> Iterator[LogTable]:
        """Yield the rows in batches; the last one has the notes."""
        from penstock.components.monitoring.logs import read_log_batches

        return read_log_batches(
            self.log_dir,
            window=self._window() if self.window else None,
            format=self.format,
            rules=self.rules,
            version=self.version or None,
        )

    def _labeled(self, join: LabelJoin) -> Iterator[LogTable]:
        """Yield the same with their labels, for which they are predictions first."""
        first, last = math.inf, -math.inf
        for log in self._read():
            join.add_predictions(log)
            if log.rows:
                first = min(first, float(log.times.min()))
                last = max(last, float(log.times.max()))
        # Of now: what comes while rows are read is told as having come since.
        self.examples.properties.update(
            first=first, last=last, labels=join.state(first, last)
        )
        for log in self._read():
            yield join.labeled(log, self.label)

    def _window(self) -> Window:
        return Window.parse(self.window, f"{self.name}.window")

    def _files(self) -> list[Path]:
        from penstock.components.monitoring.log_files import find

        return find([self.log_dir], self._window() if self.window else None)[0]
