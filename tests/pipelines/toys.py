"""Small components and pipelines for tests of how pipelines run."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import ClassVar, Literal

from penstock.components.base import Component, RunContext, field, output
from penstock.pipelines.pipeline import Pipeline
from penstock.schemas.artifacts import (
    ExampleAnomalies,
    Examples,
    Model,
    ModelBlessing,
    PushedModel,
)
from penstock.schemas.errors import DataError


class Make(Component):
    """Write Examples with one split of a few rows; read nothing."""

    rows: int = 3
    text: str = "row"
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        folder = self.examples.path / "Split-train"
        folder.mkdir()
        (folder / "data").write_text(f"{self.text}\n" * self.rows)
        self.examples.split_names = ("train",)
        self.examples.properties["span"] = 7
        self.examples.properties["note"] = "made by hand"
        context.progress(self.rows)


class Check(Component):
    """Give the verdict that it is told to give on Examples."""

    examples: Examples
    verdict: str = "yes"
    reasons: tuple[str, ...] = ("Split 'train': payment_type is new.",)
    anomalies: ExampleAnomalies = output()

    def run(self, context: RunContext) -> None:
        answer = {"yes": 1, "no": 0, "not enough data": 2}[self.verdict]
        self.anomalies.properties["blessed"] = {"train": answer}
        self.anomalies.set_reasons(() if self.verdict == "yes" else self.reasons)


class Fit(Component):
    """Write a Model from Examples, if the anomalies allow it."""

    examples: Examples
    anomalies: ExampleAnomalies | None = None
    baseline: Model | None = None
    model: Model = output()

    def run(self, context: RunContext) -> None:
        data = self.examples.path / "Split-train" / "data"
        folder = self.model.path / "Format-Serving"
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(data.read_bytes())
        self.model.properties["auc"] = 0.5
        context.progress(7)


class IsolatedFit(Fit):
    """Do what Fit does, in a process of its own."""

    isolated: ClassVar[bool] = True

    def run(self, context: RunContext) -> None:
        print("words of the child")
        super().run(context)
        self.model.properties["process"] = os.getpid()


class Bless(Component):
    """Bless a Model."""

    model: Model
    blessed: bool = True
    blessing: ModelBlessing = output()

    def run(self, context: RunContext) -> None:
        name = "BLESSED" if self.blessed else "NOT_BLESSED"
        (self.blessing.path / name).touch()
        assert self.model.id is not None
        self.blessing.properties.update(
            blessed=int(self.blessed),
            current_model=self.model.uri,
            current_model_id=self.model.id,
            component_id=self.name,
        )
        self.blessing.set_reasons([] if self.blessed else ["auc is 0.4, under 0.5."])


class Push(Component):
    """Say that a blessed Model was pushed."""

    model: Model
    blessing: ModelBlessing | None = None
    serving_dir: Path = Path("serving")
    version: int = 1
    pushed: PushedModel = output()

    def run(self, context: RunContext) -> None:
        target = self.serving_dir.absolute() / str(self.version)
        self.pushed.properties.update(
            pushed=1, pushed_destination=str(target), pushed_version=str(self.version)
        )


class Report(Component):
    """Write down what a verdict says, whatever it says."""

    anomalies: ExampleAnomalies = field(gate=False)
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        self.examples.split_names = ("report",)
        answer = self.anomalies.answer.value
        (self.examples.path / "said.txt").write_text(answer)


class Wait(Component):
    """Compute or sleep for a while, in this process or its own."""

    examples: Examples | None = None
    seconds: float = 60.0
    busy: bool = False
    children: int = 0
    started: Path = Path("started")
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (context.temp_dir / "left").write_text("x")
        (self.model.path / "left").write_text("x")
        pids = [os.getpid()]
        for _ in range(self.children):
            pids.append(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60"))
        partial = self.started.with_suffix(".partial")
        partial.write_text(json.dumps(pids))
        partial.rename(self.started)
        if self.busy:
            # One call into C that holds the interpreter for a while, again and again.
            ends = time.monotonic() + self.seconds
            while time.monotonic() < ends:
                sum(range(10_000_000))
        else:
            time.sleep(self.seconds)


class IsolatedWait(Wait):
    """Do what Wait does, in a process of its own."""

    isolated: ClassVar[bool] = True


class Unpicklable(Exception):
    """An exception that cannot be carried to another process."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
        self.lock = threading.Lock()


class Fail(Component):
    """Fail in one of many ways."""

    examples: Examples | None = None
    how: str = "raise"
    depth: int = 0
    seconds: float = 0.0
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (context.temp_dir / "half").write_text("half")
        (self.model.path / "half").write_text("half")
        time.sleep(self.seconds)
        if self.depth:
            _fail_below(self.depth)
        if self.how == "raise":
            raise ValueError("the feature 'fare' is all zeros")
        if self.how == "unpicklable":
            raise Unpicklable("this", "that")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(7)
        if self.how == "sys.exit":
            raise SystemExit(3)
        if self.how == "sleep":
            time.sleep(60)
        if self.how == "full":
            with open("/dev/full", "w") as file:
                file.write("x" * 100_000)


class Flaky(Component):
    """Fail the first times, as a service that is not there yet."""

    tried: Path
    failures: int = 2
    model: Model = output()

    def run(self, context: RunContext) -> None:
        with open(self.tried, "a") as file:
            file.write("x")
        assert not list(self.model.path.iterdir()), "what a failed attempt left"
        assert not list(context.temp_dir.iterdir())
        (self.model.path / "half").write_text("half")
        (context.temp_dir / "half").write_text("half")
        if len(self.tried.read_text()) <= self.failures:
            raise ConnectionRefusedError("nobody listens")
        context.progress(1)


class IsolatedFlaky(Flaky):
    """Do the same in a process of its own."""

    isolated: ClassVar[bool] = True


def _fail_below(depth: int) -> None:
    if depth == 1:
        raise ValueError("deep down")
    # Two ways in turn, because Python folds repeated frames of a traceback.
    (_fail_below if depth % 2 else _fail_beside)(depth - 1)


def _fail_beside(depth: int) -> None:
    _fail_below(depth)


class IsolatedFail(Fail):
    """Fail in a process of its own."""

    isolated: ClassVar[bool] = True


class Picky(DataError):
    """A user's own error, whose constructor pickling cannot call."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first}, {second}")


class Refuse(Component):
    """Fail with a sentence, in a process of its own."""

    isolated: ClassVar[bool] = True
    picky: bool = False
    model: Model = output()

    def run(self, context: RunContext) -> None:
        if self.picky:
            raise Picky("Column 'fare' is text", "make it a number.")
        raise DataError("Split 'eval' has no rows. Give it some.")


class Meet(Component):
    """Wait until as many others as told are running too."""

    folder: Path
    parties: int = 2
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (self.folder / self.name).touch()
        ends = time.monotonic() + 30
        while len(list(self.folder.iterdir())) < self.parties:
            if time.monotonic() > ends:
                raise TimeoutError("nobody else came")
            time.sleep(0.005)


class Talk(Component):
    """Print, log and warn with its own word, until the others have begun too."""

    folder: Path
    word: str
    parties: int = 1
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (self.folder / self.word).touch()
        while len(list(self.folder.iterdir())) < self.parties:
            time.sleep(0.005)
        for number in range(20):
            print(f"printed {self.word} {number}")
        context.logger.info("logged %s", self.word)
        logging.getLogger("somebody.else").warning("warned %s", self.word)
        warnings.warn(f"deprecated {self.word}", UserWarning, stacklevel=1)


class IsolatedTalk(Talk):
    """Do what Talk does, in a process of its own."""

    isolated: ClassVar[bool] = True


def toy(
    good: bool = True,
    fail: bool = False,
    rows: int = 3,
    serving_dir: Path = Path("serving"),
) -> Pipeline:
    """Make, check, fit, bless and push, in the wrong order of listing."""
    make = Make(rows=rows)
    check = Check(examples=make.examples, verdict="yes" if good else "no")
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    bless = Bless(model=fit.model)
    push = Push(model=fit.model, blessing=bless.blessing, serving_dir=serving_dir)
    components: list[Component] = [push, bless, fit, make, check]
    if fail:
        components.append(Fail(examples=make.examples))
    return Pipeline("toy", components)


def checked(verdict: Literal["yes", "no"] = "yes", rows: int | None = None) -> Pipeline:
    """A pipeline with a choice and a number that may be left out."""
    make = Make(rows=3 if rows is None else rows)
    return Pipeline("checked", [make, Check(examples=make.examples, verdict=verdict)])


def unsure() -> Pipeline:
    """A pipeline whose verdict has not enough data."""
    make = Make()
    check = Check(
        examples=make.examples,
        verdict="not enough data",
        reasons=("Split 'train' has 3 rows, under 100.",),
    )
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    return Pipeline("unsure", [make, check, fit])


def waiting(started: Path, busy: bool = False, isolated: bool = False) -> Pipeline:
    """A pipeline that runs until it is interrupted."""
    make = Make()
    kind = IsolatedWait if isolated else Wait
    wait = kind(
        examples=make.examples, started=started, busy=busy, children=int(isolated)
    )
    fit = Fit(examples=make.examples, after=(wait,))
    return Pipeline("waiting", [make, wait, fit])
