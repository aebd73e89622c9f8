"""Kills receivers and trainings at every durable write, and looks what is left.

Every point is a moment before or after one statement of the journal, one write to the
lineage store, or one call that changes a file of the state or of the run. A process is
killed at the point: the receiver and the process of the run at once, as when a machine
goes down; the receiver alone; or the process of the run alone. Then Alertmanager sends
the alert twice more, another receiver begins, the alert is resolved, and in the end
there is one decision to start and one run of it, which was begun once, and whose
outcome is known.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._kills import Calls, answered, ended, forked
from penstock.components.monitoring.retraining import receiver as receiving
from penstock.components.monitoring.retraining.config import Config, ModelConfig
from penstock.components.monitoring.retraining.journal import (
    Decision,
    Journal,
    Limits,
    Recipe,
)
from penstock.components.monitoring.retraining.places import carrying_out
from penstock.components.monitoring.retraining.receiver import Receiver
from penstock.pipelines import metadata, retraining
from penstock.pipelines.pipeline import Pipeline
from tests.components.monitoring.alertmanager_json import alert, notification
from tests.pipelines.toys import Bless, Fit, Make, Push

SCENARIOS = ("together", "receiver", "run")
"""What is killed: both processes, the receiver alone, the process of the run alone."""

_STORE_WRITES = (
    *("begin_run", "end_run", "begin_execution", "complete_execution"),
    "_put_external",
)

# What only reads changes nothing, so there is no point in dying there.
_READS = re.compile(
    "sqlite (SELECT|PRAGMA synchronous)|StoreReader|MetadataStore.get|Connection|"
    # What is kept of code and packages is looked after by the harness of runs.
    "<root>/(code|environments|sources)|<sha256>"
)

_WAIT_SECONDS = 60.0


class Program:
    """A forked process, with as much of `Popen` as a receiver asks for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Site:
    """A state and a root, and the receivers at work on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state, self.root = folder / "state", folder / "root"
        self.ledger = folder / "began"
        recipe = Recipe("kills:toy", str(self.root), str(folder), runner="local")
        self.config = Config({"taxi": ModelConfig("taxi", recipe, Limits(0.0, 99))})

    def clear(self) -> None:
        """Remove all that is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def pipeline(self, _: Recipe) -> tuple[Pipeline, Mapping[str, Any]]:
        """Make the pipeline; what began is written to a file by its first component."""
        make = Noted(ledger=str(self.ledger))
        fit = Fit(examples=make.examples)
        bless = Bless(model=fit.model)
        push = Push(model=fit.model, blessing=bless.blessing)
        return Pipeline("toy", [make, fit, bless, push]), {}

    def carry_out(self, decision: Decision) -> None:
        """Do what the process of a run does."""
        retraining.carry_out(Journal(self.state), decision.id, self.pipeline)

    def receiver(self, start: Callable[[Decision], Any]) -> Receiver:
        """Return a receiver that begins now."""
        return Receiver(self.config, Journal(self.state), start)

    def calls(self, kill_at: str | None) -> Calls:
        """Count the calls of this process; it dies at one of them."""

        def named(path: str) -> str:
            path = path.replace(str(self.state), "<state>")
            path = path.replace(str(self.root / ".penstock"), "<root>")
            path = re.sub(r"\d{8}-\d{6}\.\d{6}", "<run>", path)
            return re.sub(r"[0-9a-f]{32,64}", "<sha256>", path)

        calls = Calls(named, kill_at)
        calls.hook_files(below="<")
        calls.hook_sqlite()
        calls.hook(metadata.Store, "_patiently", lambda args: args[1].__qualname__)
        for name in _STORE_WRITES:
            calls.hook(metadata.Store, name, _always(f"Store.{name}"))
        return calls


def _always(label: str) -> Callable[[tuple[Any, ...]], str]:
    return lambda _: label


class Noted(Make):
    """Make Examples, and note that it was done."""

    ledger: str = ""

    def run(self, context: Any) -> None:
        """Write a line, and do what Make does."""
        with open(self.ledger, "a", encoding="utf-8") as file:
            file.write(f"{context.run_id}\n")
        super().run(context)


def _lives(site: Site, scenario: str, kill_at: str | None) -> list[str]:
    """Be a receiver that gets an alert, or what it starts; return the points."""
    calls: list[Calls] = []

    def fork(decision: Decision) -> Program:
        def work(_: Connection) -> None:
            if scenario == "run":
                calls.append(site.calls(kill_at))
            site.carry_out(decision)

        pid, pipe = forked(work)
        pipe.close()
        return Program(pid)

    def inline(decision: Decision) -> Program:
        site.carry_out(decision)
        return Program(os.getpid())

    if scenario == "together":
        calls.append(site.calls(kill_at))
        site.receiver(inline).receive(notification())
        receiver = site.receiver(inline)
        for decision in receiver.journal.left():
            receiver.journal.attempt(decision.id)
            inline(decision)
        return calls[0].points
    if scenario == "receiver":
        calls.append(site.calls(kill_at))
        receiver = site.receiver(fork)
        receiver.receive(notification())
        receiver.carry_on()
        return calls[0].points
    receiver = site.receiver(fork)
    receiver.receive(notification())
    (decision,) = receiver.journal.left()
    points: list[str] = []

    def recorded(pipe: Connection) -> None:
        send = pipe.send
        counted = site.calls(kill_at)
        site.carry_out(decision)
        counted.are_counted = False
        send(list(counted.points))

    receiver.journal.attempt(decision.id)
    pid, pipe = forked(recorded)
    if kill_at is None:
        points = answered(pid, pipe)
    elif ended(pid) != -signal.SIGKILL:
        raise RuntimeError(f"No run came by '{kill_at}'.")
    return points


def find_points(site: Site, scenarios: Sequence[str] = SCENARIOS) -> list[str]:
    """Return every point as `scenario: moment call number`."""
    found = []
    for scenario in scenarios:
        site.clear()

        def work(pipe: Connection, scenario: str = scenario) -> None:
            send = pipe.send
            points = list(_lives(site, scenario, None))
            send(points)

        points = answered(*forked(work))
        _settle(site)
        found += [f"{scenario}: {each}" for each in points if not _READS.search(each)]
    return found


def kill(site: Site, scenario: str, point: str) -> list[str]:
    """Kill something at a point; return what must not be in the end."""
    site.clear()

    def work(_: Connection) -> None:
        _lives(site, scenario, point)

    pid, pipe = forked(work)
    pipe.close()
    code = ended(pid)
    if scenario != "run" and code != -signal.SIGKILL:
        raise RuntimeError(f"No {scenario} came by '{point}'.")
    faults = _settle(site) or _look(site)
    return [f"{scenario}, {point}: {fault}" for fault in faults]


def _settle(site: Site) -> list[str]:
    """Send the alert again to another receiver, wait for the outcome, resolve it."""

    def work(_: Connection) -> None:
        def fork(decision: Decision) -> Program:
            pid, pipe = forked(lambda _: site.carry_out(decision))
            pipe.close()
            return Program(pid)

        receiver = site.receiver(fork)
        for _again in range(2):
            receiver.receive(notification())
        ends = time.monotonic() + _WAIT_SECONDS
        while receiver.journal.left():
            receiver.carry_on()
            receiver.receive(notification())
            if time.monotonic() > ends:
                os._exit(3)
            time.sleep(0.02)
        after = site.receiver(fork)
        after.receive(notification(alert(status="resolved")))
        after.receive(notification())
        after.carry_on()

    pid, pipe = forked(work)
    pipe.close()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [] if code == 0 else [f"it was not settled (code {code})"]


def _look(site: Site) -> list[str]:
    """Compare what the journal says with what the lineage has, by other code."""
    with closing(sqlite3.connect(site.state / "decisions.sqlite")) as sql:
        rows = sql.execute(
            "SELECT run_id, state, outcome FROM decisions WHERE answer = 'start'"
        ).fetchall()
    with closing(sqlite3.connect(site.root / "metadata.sqlite")) as sql:
        runs = sql.execute(
            "SELECT c.name, p.string_value FROM Context c JOIN Type t ON t.id = "
            "c.type_id LEFT JOIN ContextProperty p ON p.context_id = c.id AND p.name = "
            "'penstock_state' WHERE t.name = 'pipeline_run'"
        ).fetchall()
        caused = sql.execute(
            "SELECT COUNT(*) FROM ContextProperty WHERE name = 'retraining_decision'"
        ).fetchone()[0]
        pushed = sql.execute(
            "SELECT COUNT(*) FROM Artifact a JOIN Type t ON t.id = a.type_id "
            "WHERE t.name = 'PushedModel'"
        ).fetchone()[0]
    began = site.ledger.read_text().split() if site.ledger.exists() else []
    faults = []
    if len(rows) != 1:
        return [f"{len(rows)} decisions to start"]
    ((run_id, state, outcome),) = rows
    if state != "ended":
        faults.append(f"the decision was left at {state}")
    if [each[0] for each in runs] != [run_id]:
        return [*faults, f"runs {runs} of a decision on '{run_id}'"]
    if caused != 1:
        faults.append(f"{caused} runs say why they were started")
    if len(began) > 1:
        faults.append(f"the pipeline began {len(began)} times")
    # A version may be pushed, and the run killed before it could say that it ended.
    if outcome != ("pushed" if pushed else "abandoned"):
        faults.append(f"the outcome is {outcome}, and {pushed} versions were pushed")
    if runs[0][1] not in ("complete", "abandoned"):
        faults.append(f"the run was left {runs[0][1]}")
    if runs[0][1] == "complete" and pushed != 1:
        faults.append(f"{pushed} versions were pushed by a run that is complete")
    if outcome == "pushed" and began != [run_id]:
        faults.append(f"a version was pushed by {began}")
    locks = site.state / "locks"
    for each in locks.iterdir():
        with carrying_out(site.state, each.name) as is_free:
            if not is_free:
                faults.append("somebody still carries it out")
    return faults


def main(argv: list[str]) -> dict[str, Any]:
    """Kill at points; return counts. Faults are the sentences of what must not be."""
    parser = argparse.ArgumentParser(prog="retrain-kills", description=__doc__)
    parser.add_argument(
        "--kills", type=int, help="kills (without it: one at every point)"
    )
    parser.add_argument(
        "--only", default="", help="only at points that this is found in, as a pattern"
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only in these"
    )
    options = parser.parse_args(argv)
    # What dies without a word is followed by another at once, so that nobody waits.
    receiving._LONGEST_WAIT_SECONDS = 0.0
    root = Path(tempfile.mkdtemp(prefix="retrain-kills-"))
    site = Site(root / "site")
    try:
        points = [
            each
            for each in find_points(site, options.scenario or SCENARIOS)
            if re.search(options.only, each)
        ]
        chosen = points
        if options.kills is not None:
            chosen = random.Random(6).sample(points, options.kills)
        faults = []
        for each in chosen:
            scenario, _, point = each.partition(": ")
            faults += kill(site, scenario, point)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return {
        "points": len(points),
        "points_of": dict(Counter(each.partition(":")[0] for each in points)),
        "kills": len(chosen),
        "faults": faults,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
