"""Kills quarantines, releases and deletions at every call, and looks what is left.

Every point is a moment before or after one call that changes a file, or one statement
of the ledger. A child process kills itself at the point; then somebody else pins a
version, which any writer may do, and all that was decided has to be done: what the
ledger calls quarantined is set aside, what it calls deleted is gone with its manifest,
what is stable lies there whole, and the trash is empty.
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
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._kills import Calls, answered, ended, forked
from penstock.components.serving import durable
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.retention import retain
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.shelf import pin, quarantine, release
from penstock.components.serving.version_dir import push, verify

VERSIONS = 4
STABLE, ASIDE = 1, 2
"""A version that must stay, and one that was quarantined before a release."""

ACTS: dict[str, Callable[[Ledger], object]] = {
    "quarantine": lambda ledger: quarantine(ledger, 3, "It fails."),
    "release": lambda ledger: release(ledger, ASIDE, "It does not."),
    "retain": lambda ledger: retain(ledger, 1, younger_than_seconds=0),
}


def _prepared(root: Path) -> Path:
    """Make the serving directory that each act begins with."""
    serving, model = root / "before", root / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    for _ in range(VERSIONS):
        push(serving, model)
    with Ledger(serving) as ledger:
        with ledger.writing() as transaction:
            event = transaction.event("promoted", STABLE)
            route(transaction, Routing(stable=STABLE), event)
        quarantine(ledger, ASIDE, "It failed.")
    return serving


def _named(serving: Path) -> Callable[[str], str]:
    def named(path: str) -> str:
        path = path.replace(str(serving), "<serving>")
        return re.sub(r"[0-9a-f]{32}", "<random>", path)

    return named


def _acts(serving: Path, act: str, kill_at: str | None) -> list[str]:
    """Do it in this process, which dies at a point; return the points."""
    calls = Calls(_named(serving), kill_at)
    calls.hook_files(below="<serving>")
    calls.hook_sqlite()
    calls.hook(durable, "_renameat2", lambda args: f"rename {calls.where(args)}")
    with Ledger(serving) as ledger:
        ACTS[act](ledger)
    return list(calls.points)


def find_points(before: Path, root: Path) -> list[str]:
    """Return every point as `act: moment call path number`."""
    found = []
    for act in ACTS:
        serving = root / "points"
        shutil.copytree(before, serving)

        def work(pipe: Connection, act: str = act, serving: Path = serving) -> None:
            send = pipe.send
            points = _acts(serving, act, None)
            send(points)

        found += [f"{act}: {point}" for point in answered(*forked(work))]
        shutil.rmtree(serving)
    return found


def kill(before: Path, root: Path, act: str, point: str) -> list[str]:
    """Kill an act at a point; return what must not be after somebody came by."""
    serving = root / "serving"
    shutil.copytree(before, serving)

    def work(_: Connection) -> None:
        _acts(serving, act, point)

    pid, _ = forked(work)
    if ended(pid) != -signal.SIGKILL:
        raise RuntimeError(f"No {act} came by '{point}'.")
    faults = _look(serving)
    shutil.rmtree(serving)
    return [f"{act}, {point}: {fault}" for fault in faults]


def _look(serving: Path) -> list[str]:
    """Let somebody come by; compare what lies there with the ledger, by other code."""
    with Ledger(serving) as ledger:
        pin(ledger, STABLE, "benchmark", "Somebody comes by.")
    with closing(sqlite3.connect(serving / ".penstock" / "ledger.sqlite")) as sql:
        events = sql.execute(
            "SELECT version, kind FROM events WHERE version IS NOT NULL ORDER BY seq"
        ).fetchall()
    last = {
        version: kind
        for version, kind in events
        if kind not in ("promoted", "pinned")  # they say nothing of where it lies
    }
    wanted = {"pushed": "{}", "released": "{}", "quarantined": "{}.denied"}
    lying = {name for name in os.listdir(serving) if name[0].isdigit()}
    control = serving / ".penstock"
    expected = {
        wanted[kind].format(version) for version, kind in last.items() if kind in wanted
    }
    left = {kind for kind in last.values()} - {*wanted, "deleted"}
    manifests = {path.stem for path in (control / "manifests").iterdir()}
    trash = control / "trash"
    faults = []
    if left:
        faults.append(f"the ledger was left at {sorted(left)}")
    if lying != expected:
        faults.append(f"{sorted(lying)} lie there where the ledger has {expected}")
    if manifests != {name.partition(".")[0] for name in lying}:
        faults.append(f"manifests {sorted(manifests)} beside {sorted(lying)}")
    if trash.exists() and os.listdir(trash):
        faults.append("the trash was not emptied")
    if str(STABLE) not in lying or verify(serving, STABLE):
        faults.append("the stable version is not whole")
    return faults


def main(argv: list[str]) -> dict[str, Any]:
    """Kill at points; return counts. Faults are the sentences of what must not be."""
    parser = argparse.ArgumentParser(prog="shelf-kills", description=__doc__)
    parser.add_argument(
        "--kills", type=int, help="kills (without it: one at every point)"
    )
    options = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="shelf-kills-"))
    try:
        before = _prepared(root)
        points = find_points(before, root)
        chosen = points
        if options.kills is not None:
            chosen = random.Random(5).sample(points, options.kills)
        faults = []
        for each in chosen:
            act, _, point = each.partition(": ")
            faults += kill(before, root, act, point)
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
