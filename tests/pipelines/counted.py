"""Components that count how often they run and refuse to read what is not whole.

Every run of one adds a line to a ledger that lies outside of the root. Outputs are the
same whenever they are written, so that a repaired root can be compared with another.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import ClassVar

from penstock.components.base import (
    Component,
    Options,
    Retries,
    RunContext,
    field,
    output,
)
from penstock.pipelines.pipeline import Pipeline
from penstock.schemas.artifacts import Artifact, Examples, ExampleStatistics, Model

FILES = 2


class Halves(Component):
    """Write two outputs."""

    ledger: Path = field(counts=False)
    salt: str = ""
    seconds: float = 0.0
    examples: Examples = output()
    statistics: ExampleStatistics = output()

    def run(self, context: RunContext) -> None:
        _count(self.ledger, self.name, context)
        self.examples.split_names = self.statistics.split_names = ("train",)
        _write(self.examples, f"examples {self.salt}")
        time.sleep(self.seconds)
        _write(self.statistics, f"statistics {self.salt}")


class Stubborn(Component):
    """Write a Model at the second attempt; the first leaves something half written."""

    examples: Examples
    ledger: Path = field(counts=False)
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (context.temp_dir / "left").write_text("x")
        (self.model.path / "left").write_text("x")
        if _count(self.ledger, self.name, context) == 1:
            raise ConnectionError("the first attempt never works")
        (self.model.path / "left").unlink()
        _write(self.model, f"a model of {_digest(self.examples)}")


class Whole(Component):
    """Read everything that the others wrote."""

    examples: Examples
    statistics: ExampleStatistics
    model: Model
    ledger: Path = field(counts=False)
    copy: Model = output()

    def run(self, context: RunContext) -> None:
        _count(self.ledger, self.name, context)
        inputs = (self.examples, self.statistics, self.model)
        _write(self.copy, " ".join(_digest(each) for each in inputs))


class Apart(Component):
    """Write a Model in a process of its own, which leaves something behind."""

    isolated: ClassVar[bool] = True

    ledger: Path = field(counts=False)
    salt: str = ""
    seconds: float = 0.0
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (context.temp_dir / "left").write_text("x")
        _count(self.ledger, self.name, context)
        time.sleep(self.seconds)
        _write(self.model, f"a model apart {self.salt}")


class Daemon(Component):
    """Fork a process that outlives this one by far."""

    ledger: Path = field(counts=False)
    model: Model = output()

    def run(self, context: RunContext) -> None:
        _count(self.ledger, self.name, context)
        if not os.fork():
            _count(self.ledger, self.name, context)
            time.sleep(60)
            os._exit(0)
        _write(self.model, "a model")


def daemon(ledger: Path, salt: str = "", seconds: float = 0.0) -> Pipeline:
    """Return a pipeline that leaves a process behind."""
    return Pipeline("daemon", [Daemon(ledger=ledger)])


def pair(ledger: Path, salt: str = "", seconds: float = 0.0) -> Pipeline:
    """Return a pipeline with two outputs, and with retries."""
    halves = Halves(ledger=ledger, salt=salt, seconds=seconds)
    return Pipeline("counted", [halves, _stubborn(halves)])


def counted(ledger: Path, salt: str = "", seconds: float = 0.0) -> Pipeline:
    """Return the pair with a reader of everything."""
    halves = Halves(ledger=ledger, salt=salt, seconds=seconds)
    stubborn = _stubborn(halves)
    whole = Whole(
        examples=halves.examples,
        statistics=halves.statistics,
        model=stubborn.model,
        ledger=ledger,
    )
    return Pipeline("counted", [halves, stubborn, whole])


def _stubborn(halves: Halves) -> Stubborn:
    return Stubborn(
        examples=halves.examples,
        ledger=halves.ledger,
        options=Options(retries=Retries(1, (ConnectionError,), backoff_seconds=0)),
    )


def apart(ledger: Path, salt: str = "", seconds: float = 0.0) -> Pipeline:
    """Return a pipeline of one component, which runs in a process of its own."""
    return Pipeline("apart", [Apart(ledger=ledger, salt=salt, seconds=seconds)])


def _count(ledger: Path, name: str, context: RunContext) -> int:
    """Add a line to the ledger; return the number of attempts in this run."""
    line = f"{name} {context.run_id}"
    with open(ledger, "a+", encoding="utf-8") as file:
        file.write(f"{line} {os.getpid()}\n")
        file.flush()
        file.seek(0)
        return sum(each.startswith(f"{line} ") for each in file)


def _write(artifact: Artifact, text: str) -> None:
    (artifact.path / "deep").mkdir()
    for number in range(FILES):
        (artifact.path / "deep" / f"{number}").write_text(f"{text} {number}\n" * 200)


def _digest(artifact: Artifact) -> str:
    """Return the digest of an artifact, whose files are all there."""
    texts = [
        (artifact.path / "deep" / f"{number}").read_bytes() for number in range(FILES)
    ]
    assert all(text.count(b"\n") == 200 for text in texts), artifact.uri
    assert len(list(artifact.path.rglob("*"))) == FILES + 1, artifact.uri
    return hashlib.sha256(b"".join(texts)).hexdigest()
