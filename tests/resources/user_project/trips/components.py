"""The components."""

from pathlib import Path
from typing import Any, ClassVar

import common.marks
from penstock import Component, RunContext, field, output
from penstock.components.training.user_module import function_of
from penstock.schemas.artifacts import (
    ExampleAnomalies,
    Examples,
    ExternalArtifact,
    Model,
    ModelEvaluation,
)
from penstock.schemas.digests import folder_digest

from . import clean, registry
from . import steps as _  # for its side effects
from .bases import Kept, Rows
from .settings import Limits, Mode


class Ingest(Rows):
    """Read the files of a folder."""

    data_dir: Path = field(counts=False)
    examples: Examples = output()

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        return (ExternalArtifact(self.data_dir, digest=folder_digest(self.data_dir)),)

    def run(self, context: RunContext) -> None:
        files = sorted(self.data_dir.glob("*.csv"))
        self.write(
            self.examples, [row for path in files for row in path.read_text().splitlines()]
        )


class Clean(Kept):
    """Clean every row."""

    LIBRARIES: ClassVar[tuple[str, ...]] = ("fakelib",)

    examples: Examples
    limits: Limits
    mode: Mode
    bonus: float | bool = 0
    note: Path = Path("notes")
    columns: dict[str, dict[str, Any]] = {}
    cleaned: Examples = output()

    def run(self, context: RunContext) -> None:
        rows = self.read(self.examples)
        rows = [clean(row, self.limits, self.mode) for row in rows]
        rows = [row for row in rows if row is not None]
        for step in registry.STEPS.values():
            rows = step(rows)
        self.write(self.cleaned, rows)


class Check(Rows):
    """Say yes if there are enough rows."""

    examples: Examples
    at_least: int = 1
    anomalies: ExampleAnomalies = output()

    def run(self, context: RunContext) -> None:
        count = len(self.read(self.examples))
        self.anomalies.properties["blessed"] = {"train": int(count >= self.at_least)}
        (self.anomalies.path / "count.txt").write_text(f"{count} of {self.at_least}\n")


class Fit(Rows):
    """Call the user's function."""

    examples: Examples
    anomalies: ExampleAnomalies
    module_file: Path = field(counts=False)
    model: Model = output()

    def called_code(self) -> tuple[tuple[Path, str], ...]:
        return ((self.module_file, "run_fn"),)

    def run(self, context: RunContext) -> None:
        with function_of(self.module_file, "run_fn") as run_fn:
            text = run_fn(self.read(self.examples))
        (self.model.path / "model.txt").write_text(text)


class Report(Rows):
    """Write down what there is, whatever the verdict."""

    examples: Examples
    anomalies: ExampleAnomalies = field(gate=False)
    report: ModelEvaluation = output()

    def run(self, context: RunContext) -> None:
        from texts import heading

        rows = self.read(self.examples)
        said = heading(self.anomalies.answer.value)
        marked = common.marks.marked(rows)
        (self.report.path / "report.txt").write_text(f"{said}\n{marked}\n")


class Compare(Component):
    """Write down the digest of the newest model."""

    newest: Model
    report: ModelEvaluation = output()

    def run(self, context: RunContext) -> None:
        (self.report.path / "digest.txt").write_text(self.newest.digest)
