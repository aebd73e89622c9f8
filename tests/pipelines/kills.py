"""Runs that are killed from outside, at a call or at any time, and what comes of them.

A process that has imported everything and has one thread forks a child for every run;
the hook that counts calls and kills is put into the child. See `remains` for what is
looked at afterwards.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from benchmarks._kills import Calls, answered, ended, forked
from penstock.pipelines import commit, environment, execution, metadata
from penstock.pipelines import repair as repairing
from penstock.pipelines import run as running
from penstock.pipelines.cache import why_broken
from penstock.pipelines.code import Reader
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner
from penstock.pipelines.selection import check_names
from tests.pipelines.counted import apart, counted, daemon, pair
from tests.pipelines.remains import (
    children,
    faults_at_rest,
    finished,
    lost,
    partial_outputs,
    processes,
    records,
    works,
)

CHECKOUT = Path(__file__).resolve().parents[2]

# A process that forks has one thread; these libraries start some when imported.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}

_WRITES = (
    *("begin_run", "end_run", "begin_execution", "complete_execution"),
    *("end_execution", "record_execution"),
)

# Files of code are kept one after the other; three of them are as good as sixty.
_FURTHER_CODE = re.compile(r"<sha256>(.json)?.partial ([4-9]|\d\d+)$")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is killed, and what was there before.

    Attributes:
        make: Makes the pipeline, of a ledger, a salt that tells it from others, and
            seconds that it takes.
        start: Leaves what was there before in the root of a site.
        runner: Makes the runner.
        counts: What the names of calls contain that count, as a regular expression.
        in_repair: Whether only calls of the repair count.
        modules: What is imported before a run is forked, because it takes long.
        seconds: How long it takes, if no run is to be made to find that out; then
            outputs need not be the same each time.
    """

    make: Callable[..., Pipeline]
    start: Callable[[Site], None]
    runner: Callable[[], Runner] = lambda: LocalRunner(max_workers=1)
    counts: str = ""
    in_repair: bool = False
    modules: tuple[str, ...] = ()
    seconds: float | None = None


class Site:
    """A root, and the runs in it.

    Args:
        folder: Where the root and all else of this site lies.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.ledger = folder / "ledger"
        self.store = self.root / "metadata.sqlite"
        self._templates = folder / "templates"
        self._references: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._begun: dict[int, Connection] = {}

    # Points -----------------------------------------------------------------------

    def points(self, name: str) -> list[str]:
        """Return the points of a scenario."""
        scenario = SCENARIOS[name]
        self.reference(name)
        self.restore(name)

        def work(pipe: Connection) -> None:
            send = pipe.send
            calls = self._recorded(scenario, None)
            self._run(scenario, "")
            send(list(calls.points))

        found: list[str] = answered(*forked(work))
        return [
            each
            for each in found
            if re.search(scenario.counts, each) and not _FURTHER_CODE.search(each)
        ]

    def kill_at(self, name: str, point: str, careless: str = "") -> list[str]:
        """Kill a run at a point; return what is wrong then, and after the next run.

        Args:
            name: The scenario.
            point: The point, as `points` returns it.
            careless: What is spoilt on purpose, as in `CARELESS`.
        """
        reference = self.reference(name)
        self.restore(name)
        self.leave_killed(name, point, careless=careless)
        return self.examine(name, reference, careless)

    def leave_killed(
        self, name: str, point: str, salt: str = "", careless: str = ""
    ) -> None:
        """Run a pipeline until it dies at a point."""
        pid = self.begin(name, salt, point=point, careless=careless)
        said = self.end(pid)
        if said is not None:
            raise RuntimeError(f"No run came by '{point}', but one to {said}.")

    def examine(self, name: str, reference: Any, careless: str = "") -> list[str]:
        """Look at what a kill left, run once more, look again; return what is wrong."""
        found = records(self.store)
        faults = [f"before the next run {each}" for each in partial_outputs(found)]
        done = finished(self.root, found)
        said = self.run(name, careless=careless)
        if said != reference:
            faults.append(f"the next run came to {said}, not to {reference}")
        faults += lost(done, records(self.store))
        faults += faults_at_rest(self.root, self.store)
        faults += [
            f"process {each} works on" for each in processes(self.ledger) if works(each)
        ]
        return faults

    # Random times -------------------------------------------------------------------

    def kill_at_random(self, name: str, runs: int, kills: int, seed: int) -> list[str]:
        """Kill runs at random times; return what is wrong.

        Args:
            name: The scenario.
            runs: How many runs of the same pipeline there are at once; one of them is
                killed, or the process of a component of it.
            kills: How many to kill.
            seed: Seeds the times.
        """
        source = random.Random(f"{name} {runs} {seed}")
        reference = self.reference(name)
        faults: list[str] = []
        while kills:
            self.restore(name)
            # What is left by one that was killed is sometimes left to another.
            for _ in range(min(kills, source.choice([1, 1, 2]))):
                begun = [self.begin(name) for _ in range(runs)]
                time.sleep(source.uniform(0, runs * self._seconds[name]))
                victim = source.choice([*begun, *children(begun, self.ledger)])
                os.kill(victim, signal.SIGKILL)
                said = {pid: self.end(pid) for pid in begun}
                if said.get(victim) is not None:
                    continue  # it was faster
                kills -= 1
                if victim in begun:
                    faults += [
                        f"a run beside the killed one came to {each}, not {reference}"
                        for pid, each in said.items()
                        if pid != victim and each != reference
                    ]
            faults += self.examine(name, reference)
        return faults

    # Runs ---------------------------------------------------------------------------

    def run(self, name: str, salt: str = "", careless: str = "") -> Any:
        """Run a pipeline in a child; return what came of it, or its traceback."""
        return self.end(self.begin(name, salt, careless=careless))

    def begin(
        self,
        name: str,
        salt: str = "",
        *,
        seconds: float = 0.0,
        store: str | None = None,
        point: str = "",
        careless: str = "",
    ) -> int:
        """Begin to run a pipeline in a child; return the child's number.

        Args:
            name: The scenario.
            salt: Tells the pipeline from others.
            seconds: How long it works.
            store: URL of its store; the root's own if None.
            point: Where to kill it; empty for nowhere.
            careless: What is spoilt on purpose, as in `CARELESS`.
        """
        scenario = SCENARIOS[name]
        for module in scenario.modules:
            importlib.import_module(module)

        def work(pipe: Connection) -> None:
            CARELESS[careless]()
            if point:
                self._recorded(scenario, point)
            try:
                said: Any = self._run(scenario, salt, seconds, store)
            except Exception:
                said = traceback.format_exc()
            pipe.send(said)

        pid, pipe = forked(work)
        self._begun[pid] = pipe
        return pid

    def end(self, pid: int) -> Any:
        """Return what came of a run, its traceback, or None if it was killed."""
        ended(pid)  # first: what it left behind may hold the pipe open
        pipe = self._begun.pop(pid)
        try:
            return pipe.recv() if pipe.poll() else None
        except EOFError:
            return None

    def _run(
        self,
        scenario: Scenario,
        salt: str,
        seconds: float = 0.0,
        store: str | None = None,
    ) -> dict[str, str]:
        """Run a pipeline; return the digest of every output."""
        pipeline = scenario.make(self.ledger, salt, seconds)
        result = running.run(pipeline, self.root, runner=scenario.runner(), store=store)
        return {
            f"{execution.component}.{key}": artifact.digest
            if scenario.seconds is None
            else artifact.TYPE_NAME
            for execution in result.executions.values()
            for key, artifact in execution.outputs.items()
        }

    def _recorded(self, scenario: Scenario, kill_at: str | None) -> Calls:
        """Put the recorder of calls between this process and files and stores."""
        calls = Calls(_named(self.root), kill_at)
        calls.hook_files(below="<root>")
        calls.hook(subprocess, "Popen", _program)
        calls.hook(metadata.Store, "_patiently", lambda args: args[1].__qualname__)
        for name in _WRITES:
            calls.hook(metadata.Store, name, _always(f"Store.{name}"))
        if scenario.in_repair:
            calls.are_counted = False

            def counted_repair(*args: Any) -> Any:
                calls.are_counted = True
                try:
                    return repairing.repair(*args)
                finally:
                    calls.are_counted = False

            _replace(running, "repair", counted_repair)
        return calls

    # What was there before ----------------------------------------------------------

    def restore(self, name: str) -> None:
        """Make the root what it was before a scenario."""
        template = self._templates / name
        for folder in (self.root, self.ledger.with_name("serving")):
            shutil.rmtree(folder, ignore_errors=True)
        self.ledger.unlink(missing_ok=True)
        if template.exists():
            shutil.copytree(template, self.root)
        else:
            SCENARIOS[name].start(self)
            if self.root.exists():
                shutil.copytree(self.root, template)

    def reference(self, name: str) -> Any:
        """Return what a run comes to that nobody kills."""
        scenario = SCENARIOS[name]
        if name not in self._references and scenario.seconds is not None:
            self._seconds[name] = scenario.seconds
            self._references[name] = {
                f"{component.name}.{key}": promise.TYPE_NAME
                for component in scenario.make(self.ledger).components
                for key, promise in component.outputs.items()
            }
        elif name not in self._references:
            self.restore(name)
            began = time.monotonic()
            self._references[name] = self.run(name)
            self._seconds[name] = time.monotonic() - began
        return self._references[name]


def _program(args: tuple[Any, ...]) -> str:
    """Name a call of Popen: how often Git is asked depends on what it says."""
    own = "penstock.pipelines.child"
    return f"start {own if own in args[0] else 'another program'}"


def _always(label: str) -> Callable[[tuple[Any, ...]], str]:
    return lambda _: label


def _named(root: Path) -> Callable[[str], str]:
    """Return what gives the name that stands for a path in points."""

    def named(path: str) -> str:
        # Whose turn it is at the store is a part of calling it.
        path = path.replace(f"{root}/metadata.sqlite", "<store>")
        path = path.replace(str(root), "<root>")
        path = re.sub(r"[0-9a-f]{64}", "<sha256>", path)
        path = re.sub(r"\d{8}-\d{6}\.\d{6}", "<run>", path)
        return re.sub(r"-\d{9,}", "-<thread>", path)

    return named


# --- what is there before


def _nothing(site: Site) -> None:
    """Leave nothing: the first run ever makes root and store."""


def _complete(site: Site) -> None:
    """Leave a complete run, whose outputs are all taken."""
    site.run("first")


# Where runs die that are repaired: at work; in the commit, while it is written down and
# after, between two renames, and after the store is told; and where a run begins.
_DEADLY = (
    "after open <root>/counted/Halves/statistics/.<run>.partial/deep/1 1",
    "after open <root>/.penstock/runs/<run>/{id}.commit.partial 1",
    "after os.rename <root>/.penstock/runs/<run>/{id}.commit.partial 1",
    "after os.rename <root>/counted/Halves/examples/.<run>.partial 1",
    "after Store.complete_execution 1",
    "before Store._update_context.<locals>.<lambda> 1",
    "after os.rename <root>/counted/Halves/examples/.<run>.partial 1",
)


def _dead(site: Site) -> None:
    """Leave a complete run and many dead ones, and nothing of them repaired."""
    site.run("first")
    for number, pattern in enumerate(_DEADLY):
        newest = max(each.id for each in records(site.store).executions)
        point = pattern.format(id=newest + 1)
        site.leave_killed("first", point, f"dead {number}", "no repair")
    # Of the last one somebody removed what was not renamed yet.
    *_, last = sorted(site.root.glob("counted/Halves/statistics/.*.partial"))
    shutil.rmtree(last)


def _taxi(ledger: Path, salt: str = "", seconds: float = 0.0) -> Pipeline:
    """Return the taxi pipeline on trips beside the ledger."""
    from penstock.pipelines.taxi import taxi

    serving_dir = ledger.with_name("serving")
    return taxi(ledger.with_name("trips"), serving_dir, train_steps=150)


def _trips(site: Site) -> None:
    """Leave trips for a run that makes root and store."""
    from penstock.pipelines.taxi.trips import write_trips

    trips = site.ledger.with_name("trips")
    if not trips.exists():
        write_trips(trips, rows=600, days=2)


_FOR_BEAM = ("apache_beam", "apache_beam.runners.portability.fn_api_runner")

SCENARIOS = {
    "first": Scenario(pair, _nothing),
    "again": Scenario(pair, _complete),
    "repair": Scenario(pair, _dead, in_repair=True),
    # What does not know of the process is as in "first".
    "apart": Scenario(
        apart, _nothing, counts=r"<root>/apart|start penstock|Apart.log|commit"
    ),
    "whole": Scenario(counted, _nothing),
    "daemon": Scenario(daemon, _nothing),
    "beam": Scenario(counted, _nothing, BeamDagRunner, modules=_FOR_BEAM),
    "taxi": Scenario(
        _taxi,
        _trips,
        modules=(
            "tensorflow",
            "tensorflow_data_validation",
            "penstock.pipelines.taxi.evaluation",
            *_FOR_BEAM,
        ),
        seconds=15.0,
    ),
}


# --- what is spoilt on purpose


def _replace(owner: Any, name: str, by: Any) -> None:
    setattr(owner, name, by)


def _no_repair() -> None:
    for module in (running, execution):
        _replace(module, "repair", lambda root, store: [])


def _no_notes() -> None:
    """Write nothing down before the folders are renamed."""
    _replace(commit.Commit, "write", lambda self, folder: None)


def _renamed_late() -> None:
    """Tell the store first, and rename the folders then."""
    reveal, record = commit.Places.reveal, commit.Commit.record
    waiting: list[Any] = []

    def keep(self: commit.Places, execution_id: int) -> dict[str, Path]:
        waiting.append(lambda: reveal(self, execution_id))
        return {
            key: staged.with_name(str(execution_id))
            for key, staged in self.staged.items()
        }

    def record_and_reveal(self: commit.Commit, *args: Any) -> None:
        record(self, *args)
        waiting.pop()()

    _replace(commit.Places, "reveal", keep)
    _replace(commit.Commit, "record", record_and_reveal)


def _slow_repair() -> None:
    """Take a while to compare the bytes of what is adopted."""

    def slowly(artifact: Any) -> str:
        time.sleep(0.5)
        return why_broken(artifact)

    _replace(repairing, "why_broken", slowly)


def _slow_start() -> None:
    """Wait between the repair and the first component until another run's commit."""

    def slowly(pipeline: Pipeline, *args: Any) -> None:
        root = Path(str(pipeline.components[0].parameters["ledger"])).with_name("root")
        while not list(root.glob(".penstock/runs/*/*.commit.json")):
            time.sleep(0.01)
        time.sleep(0.2)
        check_names(pipeline, *args)

    _replace(running, "check_names", slowly)


CARELESS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "no repair": _no_repair,
    "no notes": _no_notes,
    "renamed late": _renamed_late,
    "slow repair": _slow_repair,
    "slow start": _slow_start,
}


# --- a process for it


def serve(pipe: Connection, folder: Path) -> None:
    """Do with a site what comes through a pipe: a method's name and its arguments."""
    logging.disable(logging.CRITICAL)
    from ml_metadata.metadata_store import metadata_store  # noqa: F401

    # Reading code and lists of packages takes longer than all else in a run; they stay
    # as they are.
    environment.packages()
    reader = Reader()
    for make in (counted, apart):
        for each in make(Path("ledger")).components:
            reader.code_of(each)
    _replace(running, "Reader", lambda: reader)
    _replace(running, "check_loaded", lambda code: None)
    site = Site(folder)
    while True:
        try:
            name, args, options = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((getattr(site, name)(*args, **options), ""))
        except Exception:
            pipe.send((None, traceback.format_exc()))


class Remote:
    """A site in a process of its own.

    Args:
        folder: Where all of the site lies.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.ledger = folder / "ledger"
        self.pipe, other = Pipe()
        code = (
            "import sys; from multiprocessing.connection import Connection; "
            "from pathlib import Path; from tests.pipelines.kills import serve; "
            "serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(other.fileno()), str(folder)],
            pass_fds=[other.fileno()],
            cwd=CHECKOUT,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(CHECKOUT)},
        )
        other.close()

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the site."""
        self.send(method, *args, **options)
        return self.receive()

    def send(self, method: str, *args: Any, **options: Any) -> None:
        """Begin to call a method of the site."""
        self.pipe.send((method, args, options))

    def receive(self) -> Any:
        """Return what the call came to."""
        said, failed = self.pipe.recv()
        if failed:
            raise RuntimeError(failed)
        return said

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self._process.wait(60)
