"""Kills runs at every call of the file system and of the store, and looks at the rest.

Every point is a moment before or after one call that changes a file below the root, or
one call of the lineage store, found by running a pipeline whose calls are recorded. A
child process runs the pipeline and kills itself at the point. Whatever it left, no
artifact that the store knows may be partial, the next run must end well, lose nothing
that was done and leave nothing behind. Runs are also killed at random times, alone and
beside others. Implementations that are careless on purpose go through the same; a
harness that does not catch them proves nothing and fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

# A process that forks has one thread; these libraries start some when imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")

from benchmarks._kills import Calls, answered, ended, forked
from penstock.pipelines import code, commit, metadata
from penstock.pipelines import run as running
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner
from tests.pipelines import counted
from tests.pipelines.kills import (
    faults_at_rest,
    finished,
    lost,
    partial_outputs,
    records,
    survivors,
)

_WRITES = (
    *("begin_run", "end_run", "begin_execution", "complete_execution"),
    *("end_execution", "record_execution"),
)

# Files of code are kept one after the other; three of them are as good as sixty.
_FURTHER_CODE = re.compile(r"/code/.* ([4-9]|\d\d+)$")

_RANDOM_KILLS_AT_ONCE = 5

Make = Callable[[Path, str], Pipeline]
"""Makes a pipeline from a ledger and a salt, which tells one pipeline from another."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is killed, and what was there before.

    Attributes:
        make: Makes the pipeline.
        start: Leaves what was there before in the root of a site.
        runner: Makes the runner.
        in_repair: Whether only calls of the repair are points.
    """

    make: Make
    start: Callable[[Site], None]
    runner: Callable[[], Runner] = lambda: LocalRunner(max_workers=1)
    in_repair: bool = False


class Site:
    """A root, and what happens there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.ledger = folder / "ledger"
        self.store = self.root / "metadata.sqlite"
        self._templates = folder / "templates"
        self._references: dict[str, Any] = {}

    # --- what is killed

    def points(self, name: str) -> list[str]:
        """Return the points of a scenario."""

        def work(pipe: Connection) -> None:
            send = pipe.send
            calls = self._recorded(scenario, None)
            self._run(scenario, "")
            send([each for each in calls.points if _FURTHER_CODE.search(each) is None])

        scenario = SCENARIOS[name]
        self._restore(name)
        found: list[str] = answered(*forked(work))
        return found

    def kill_at(
        self, name: str, point: str, careless: Callable[[], None] | None = None
    ) -> list[str]:
        """Kill a run at a point; return what is wrong then, or after the next run."""
        scenario = SCENARIOS[name]
        reference = self._reference(name)
        self._restore(name)
        self.kill(scenario, "", point, careless)
        return self.examine(scenario, "", reference, careless)

    def kill(
        self,
        scenario: Scenario,
        salt: str,
        point: str,
        careless: Callable[[], None] | None = None,
    ) -> None:
        """Run a pipeline until it dies at a point."""

        def work(_: Connection) -> None:
            if careless is not None:
                careless()
            self._recorded(scenario, point)
            self._run(scenario, salt)

        pid, _ = forked(work)
        if ended(pid) != -signal.SIGKILL:
            raise RuntimeError(f"No run came by '{point}'.")

    def run(
        self, scenario: Scenario, salt: str, careless: Callable[[], None] | None = None
    ) -> Any:
        """Run a pipeline in a child; return what came of it, or its traceback."""

        def work(pipe: Connection) -> None:
            if careless is not None:
                careless()
            try:
                pipe.send(self._run(scenario, salt))
            except Exception:
                pipe.send(traceback.format_exc())

        return answered(*forked(work))

    def examine(
        self,
        scenario: Scenario,
        salt: str,
        reference: Any,
        careless: Callable[[], None] | None = None,
    ) -> list[str]:
        """Look at what a kill left, run once more, look again; return faults."""
        found = records(self.store)
        faults = [f"before the next run: {each}" for each in partial_outputs(found)]
        done = finished(self.root, found)
        said = self.run(scenario, salt, careless)
        if said != reference:
            faults.append(f"the next run ended with {said} and not {reference}")
        faults += lost(done, records(self.store))
        faults += faults_at_rest(self.root, self.store)
        faults += [f"process {each} works on" for each in survivors(self.ledger)]
        return faults

    def _run(self, scenario: Scenario, salt: str) -> dict[str, str]:
        """Run a pipeline; return the digest of every output."""
        pipeline = scenario.make(self.ledger, salt)
        result = running.run(pipeline, self.root, runner=scenario.runner())
        return {
            f"{execution.component}.{key}": artifact.digest
            for execution in result.executions.values()
            for key, artifact in execution.outputs.items()
        }

    def _recorded(self, scenario: Scenario, kill_at: str | None) -> Calls:
        """Put the recorder of calls between this process and files and stores."""
        calls = Calls(_named(self.root), kill_at)
        calls.hook_files(below="<root>")
        calls.hook(metadata.Store, "_patiently", lambda args: args[1].__qualname__)
        for name in _WRITES:
            calls.hook(metadata.Store, name, lambda _, name=name: f"Store.{name}")
        if scenario.in_repair:
            calls.are_counted = False
            repair = running.repair

            def counted_repair(*args: Any) -> list[str]:
                calls.are_counted = True
                try:
                    return repair(*args)
                finally:
                    calls.are_counted = False

            running.repair = counted_repair
        return calls

    # --- what was there before

    def _restore(self, name: str) -> None:
        """Make the root what it was before a scenario."""
        template = self._templates / name
        self.clear()
        if not template.exists():
            SCENARIOS[name].start(self)
            self.root.mkdir(exist_ok=True)
            shutil.copytree(self.root, template)
        else:
            shutil.copytree(template, self.root)

    def clear(self) -> None:
        """Remove the root."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.ledger.unlink(missing_ok=True)

    def _reference(self, name: str) -> Any:
        """Return what a run comes to that nobody kills."""
        if name not in self._references:
            self._restore(name)
            self._references[name] = self.run(SCENARIOS[name], "")
        return self._references[name]


def _named(root: Path) -> Callable[[str], str]:
    """Return what gives the name that stands for a path in points."""

    def named(path: str) -> str:
        path = path.replace(str(root), "<root>")
        path = re.sub(r"[0-9a-f]{64}", "<sha256>", path)
        path = re.sub(r"\d{8}-\d{6}\.\d{6}", "<run>", path)
        return re.sub(r"\d+-\d{9,}", "<thread>", path)

    return named


# --- what is there before


def _nothing(site: Site) -> None:
    """Leave nothing: the first run ever makes root and store."""


def _complete(site: Site) -> None:
    """Leave a complete run, whose outputs are all taken."""
    site.run(SCENARIOS["first"], "")


# Where the runs die that are repaired: at work, between two attempts, and in the commit
# before it is written down, after that, between two renames, before and after the store
# is told; and where a run begins and ends.
_DEADLY = (
    "after open <root>/counted/Halves/statistics/.{id}.partial/deep/1 1",
    "after os.rmdir <root>/counted/Stubborn/.tmp/{next} 1",
    "after open <root>/.penstock/runs/<run>/{id}.commit.partial 1",
    "after os.rename <root>/.penstock/runs/<run>/{id}.commit.partial 1",
    "after os.rename <root>/counted/Halves/examples/.{id}.partial 1",
    "before Store.complete_execution 1",
    "after Store.complete_execution 1",
    "after Store._update_context.<locals>.<lambda> 1",
    "before Store.begin_run 1",
    "after Store.begin_run.<locals>.<lambda> 1",
    "before Store.end_run 1",
    "after Store.end_run 1",
)


def _dead(site: Site) -> None:
    """Leave a complete run and many dead ones, and nothing of them repaired."""

    def leave_unrepaired() -> None:
        running.repair = lambda root, store: []

    _complete(site)
    for number, pattern in enumerate(_DEADLY):
        newest = max(each.id for each in records(site.store).executions)
        point = pattern.format(id=newest + 1, next=newest + 2)
        site.kill(SCENARIOS["first"], f"dead {number}", point, leave_unrepaired)


SCENARIOS = {
    "first": Scenario(counted.counted, _nothing),
    "again": Scenario(counted.counted, _complete),
    "apart": Scenario(counted.apart, _nothing),
    "repair": Scenario(counted.counted, _dead, in_repair=True),
    "beam": Scenario(counted.counted, _nothing, BeamDagRunner),
}
