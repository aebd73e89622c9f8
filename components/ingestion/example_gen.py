"""What every ExampleGen shares: which files it reads, and how rows become splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.components.base import Component, RunContext, field, output
from penstock.components.ingestion import inputs
from penstock.schemas.artifacts import Examples, ExternalArtifact
from penstock.schemas.errors import DataError, PipelineError
from penstock.schemas.splits import DEFAULT_WEIGHTS, ByHash, ByKey, ByTime, Stratified

if TYPE_CHECKING:
    from penstock.components.ingestion.shards import Deal, Written

_PAYLOADS = {"parquet": "FORMAT_PARQUET", "tfrecords_gzip": "FORMAT_TF_EXAMPLE"}


class FileExampleGen(Component):
    """Read files by pattern and deal their rows out to splits; derive from it.

    Attributes:
        input_dir: The folder that the files lie in.
        pattern: Which of them to read, as `day-{SPAN}/*.csv`. `{SPAN}`, `{VERSION}`,
            `{YYYY}`, `{MM}` and `{DD}` stand for numbers, the latest of which is
            taken.
        input_splits: A pattern for each split, if the input has splits of its own.
        splits: How rows are dealt out: weights by name, a `ByKey`, a `ByTime` or a
            `Stratified`. Twice as many to `train` as to `eval` if None.
        span: Number of the span to read; the latest if None.
        version: Number of its version to read; the latest if None.
    """

    BASE_TYPE = "PROCESS"

    LIBRARIES = ("pyarrow",)

    input_dir: Path | str = field(counts=False)
    pattern: str = "*"
    input_splits: Mapping[str, str] | None = None
    splits: Mapping[str, int] | ByHash | ByKey | ByTime | Stratified | None = None
    span: int | None = None
    version: int | None = None
    examples: Examples = output()

    def check(self) -> None:
        inputs.check_inputs(
            self.name, self.pattern, self.input_splits, self.span, self.version
        )
        if self.input_splits is not None and self.splits is not None:
            raise PipelineError(
                f"{self.name} has both input_splits and splits. Leave splits out to "
                "keep the input's own, or give one pattern for all the rows."
            )
        _ = self._rule  # its weights are checked where it is made

    @property
    def _rule(self) -> ByHash | ByKey | ByTime | Stratified | None:
        if self.input_splits is not None:
            return None
        if isinstance(self.splits, ByHash | ByKey | ByTime | Stratified):
            return self.splits
        return ByHash(DEFAULT_WEIGHTS if self.splits is None else self.splits)

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        """Return the input files by pattern, with the digest of each."""
        found = inputs.find(
            self.input_dir,
            self.pattern,
            self.input_splits,
            span=self.span,
            version=self.version,
        )
        return inputs.external_inputs(found, self.input_dir)

    def _deal(self, file_format: str, context: RunContext) -> Deal:
        from penstock.components.ingestion.shards import Deal

        rule = self._rule
        names = tuple(self.input_splits or ()) if rule is None else rule.names
        folder = str(context.temp_dir)
        return Deal(folder, rule, names, context.live_rows, file_format)

    def _found(self, context: RunContext) -> tuple[ExternalArtifact, ...]:
        return context.external_inputs or self.external_inputs()

    def _record(
        self,
        found: tuple[ExternalArtifact, ...],
        written: Sequence[Written],
        context: RunContext,
        *,
        file_format: str,
        payload_format: str = "",
    ) -> None:
        """Check that nothing changed or is missing; keep what was written."""
        from penstock.components.ingestion.shards import gathered

        self._check_unchanged(found)
        rows = gathered(written, self.examples.path)
        context.progress_in_all(sum(rows.values()))
        if not sum(rows.values()):
            patterns = ", ".join(f"'{each.uri}'" for each in found)
            raise DataError(
                f"The input {patterns} has no rows, only headers or empty files. Pass "
                "the files that hold the data."
            )
        properties = self.examples.properties
        self.examples.split_names = rows
        properties["span"] = found[0].properties["span"]
        if "version" in found[0].properties:
            properties["version"] = found[0].properties["version"]
        properties["payload_format"] = payload_format or _PAYLOADS[file_format]
        properties["file_format"] = file_format
        properties["input_fingerprint"] = inputs.fingerprint(found)
        properties["rows"] = dict(rows)

    def _check_unchanged(self, found: tuple[ExternalArtifact, ...]) -> None:
        for each in found:
            files = inputs.files_of(each, self.input_dir)
            now = sum(path.stat().st_size for path in files if path.is_file())
            if now != each.properties["total_bytes"]:
                raise DataError(
                    f"The input '{each.uri}' had {each.properties['total_bytes']} "
                    f"bytes when it was digested and has {now} now. Run again when it "
                    "is written whole."
                )

    def _inputs(self, found: tuple[ExternalArtifact, ...]) -> inputs.Inputs:
        """Return the very files whose digests were recorded."""
        version: Any = found[0].properties.get("version")
        span: Any = found[0].properties["span"]
        return inputs.Inputs(
            tuple(
                inputs.InputSplit(
                    str(each.properties["split"]),
                    each.uri,
                    inputs.files_of(each, self.input_dir),
                )
                for each in found
            ),
            span,
            version,
        )
