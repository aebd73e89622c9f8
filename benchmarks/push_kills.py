"""Kills pushes at every call of the file system and the ledger, under a watcher.

Every point is a moment before or after one call of the staging and the commit, or one
statement of the ledger, found by running a push whose calls are recorded. A child
process runs a push and kills itself at the point; another push must then succeed, and
the ledger say of every version that lies there, once, that it was pushed. Meanwhile a
watcher in a process of its own lists the serving directory and compares every version
that it has not seen before, byte by byte, with its manifest. Thousands of pushes that
nobody kills go through the same, and a copier that writes in place; a harness that does
not catch it proves nothing and fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._kills import Calls, answered, ended, forked
from penstock.components.serving import durable, version_dir

Pusher = Callable[[Path, Path], int]

_START = ("first", "next")
"""States to push into: no serving directory yet; versions and killed pushes."""


# --- the two ways of pushing


def push(directory: Path, model: Path) -> int:
    """Push as penstock does; return the version."""
    return version_dir.push(directory, model, check=lambda _: {"loads": True}).number


def push_in_place(directory: Path, model: Path) -> int:
    """Push as a copier that knows no staging does, its manifest first."""
    manifests = directory / ".penstock" / "manifests"
    manifests.mkdir(parents=True, exist_ok=True)
    number = version_dir.next_version(os.listdir(directory))
    files = {
        path.relative_to(model).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in model.rglob("*")
        if path.is_file()
    }
    record = json.dumps({"push": "in place", "files": files})
    (manifests / f"{number}.json").write_text(record, encoding="utf-8")
    for root, _, names in os.walk(model):
        folder = directory / str(number) / Path(root).relative_to(model)
        os.mkdir(folder)
        for name in names:
            reader = os.open(Path(root, name), os.O_RDONLY)
            writer = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
            while block := os.read(reader, 1 << 14):
                os.write(writer, block)
            os.close(reader)
            os.close(writer)
    return number


def write_model(folder: Path, seed: int) -> None:
    """Write files like those of a small SavedModel; other bytes for another seed."""
    source = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "assets").mkdir(parents=True)
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(source.randbytes(60_000))
    (folder / "variables" / "variables.index").write_bytes(source.randbytes(300))
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(
        source.randbytes(150_000)
    )


# --- points: calls of the file system in a child


def _named(directory: Path, model: Path) -> Callable[[str], str]:
    """Return what gives the name that stands for a path in points."""
    roots = {
        str(directory): "<serving>",
        str(model): "<model>",
        str(directory.parent): "<parent>",
    }

    def named(path: str) -> str:
        for root, name in roots.items():
            path = path.replace(root, name)
        path = re.sub(r"[0-9a-f]{64}", "<sha256>", path)
        path = re.sub(r"[0-9a-f]{32}", "<push>", path)
        path = re.sub(r"slot-\d", "slot-<n>", path)
        return re.sub(r"(/|^)\d+(?=$|/|\.json)", r"\1<n>", path)

    return named


def _recorded(directory: Path, model: Path, kill_at: str | None) -> Calls:
    """Put the recorder of calls between this process and the file system."""
    calls = Calls(_named(directory, model), kill_at)
    calls.hook_files()
    calls.hook_sqlite()
    calls.hook(
        durable,
        "_renameat2",
        lambda args: f"renameat2 {calls.where(args)}",
    )
    return calls


def _run(pusher: Pusher, directory: Path, model: Path) -> int:
    number: int = answered(*forked(lambda pipe: pipe.send(pusher(directory, model))))
    return number


def _points(pusher: Pusher, directory: Path, model: Path) -> list[str]:
    def work(pipe: Connection) -> None:
        send = pipe.send
        calls = _recorded(directory, model, None)
        pusher(directory, model)
        points = list(calls.points)
        send(points)

    points: list[str] = answered(*forked(work))
    return points


def _killed(pusher: Pusher, directory: Path, model: Path, point: str) -> bool:
    """Run a push that dies at a point; return whether it came by that point."""

    def work(_: Connection) -> None:
        _recorded(directory, model, point)
        pusher(directory, model)

    pid, _ = forked(work)
    return ended(pid) == -signal.SIGKILL


# --- the watcher


def _fault(directory: Path, name: str) -> str | None:
    """Compare a version with its manifest, sharing no code with penstock."""
    manifest = directory / ".penstock" / "manifests" / f"{name}.json"
    if not manifest.exists():
        return f"version {name} has no manifest"
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    folder = directory / name
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    if found != {path: entry["sha256"] for path, entry in files.items()}:
        return f"version {name} holds {sorted(found)}, not what its manifest says"
    return None


def _told(directory: Path) -> tuple[list[int], set[int]] | None:
    """Return the versions that a ledger says were pushed, and those left undecided.

    It shares no code with penstock. None without a ledger.
    """
    path = directory / ".penstock" / "ledger.sqlite"
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as sql:
        events = sql.execute("SELECT kind, version FROM events ORDER BY seq").fetchall()
    pushed = [version for kind, version in events if kind == "pushed"]
    begun = {version for kind, version in events if kind == "pushing"}
    over = {version for kind, version in events if kind in ("pushed", "withdrawn")}
    return pushed, begun - over


def _watch(pipe: Connection) -> None:
    directory: Path | None = None
    seen: set[str] = set()
    looks = checked = 0
    faults: list[str] = []

    def look() -> None:
        nonlocal looks, checked
        if directory is None or not directory.exists():
            return
        looks += 1
        for name in os.listdir(directory):
            if name.isdigit() and name not in seen:
                seen.add(name)
                checked += 1
                fault = _fault(directory, name)
                if fault:
                    faults.append(fault)

    while True:
        if pipe.poll():
            look()
            pipe.send((looks, checked, faults))
            directory = pipe.recv()
            seen.clear()
            looks = checked = 0
            faults = []
            if directory is None:
                return
        look()
        time.sleep(0.0002)


class _Watcher:
    """A process that looks at one serving directory after another.

    Attributes:
        looks: How often it listed a serving directory.
        checked: How many versions it compared with their manifests.
        faults: What it saw that must not be seen.
    """

    def __init__(self) -> None:
        self.looks = self.checked = 0
        self.faults: list[str] = []
        self._pipe, other = multiprocessing.Pipe()

        def watch(_: Connection) -> None:
            self._pipe.close()  # So that it ends when this process is killed.
            _watch(other)

        self._pid, _ = forked(watch)
        other.close()

    def look_at(self, directory: Path | None) -> int:
        """Look at another directory; return how many versions it checked in the last.

        With None it ends.
        """
        self._pipe.send(directory)
        looks, checked, faults = self._pipe.recv()
        self.looks += looks
        self.checked += checked
        self.faults += faults
        if directory is None:
            ended(self._pid)
        return int(checked)


@contextmanager
def _watching() -> Iterator[_Watcher]:
    watcher = _Watcher()
    try:
        yield watcher
    except BaseException:
        os.kill(watcher._pid, signal.SIGKILL)
        os.waitpid(watcher._pid, 0)
        raise
    watcher.look_at(None)


# --- experiments


class _Site:
    """Serving directories and models of one way of pushing, and what went wrong."""

    def __init__(self, root: Path, pusher: Pusher, watcher: _Watcher) -> None:
        self.pusher = pusher
        self.watcher = watcher
        self.faults: list[str] = []
        self.partial = 0
        self.model = root / "model"
        self._root = root
        self._count = 0

    def prepare(self, start: str, leave: Leave) -> Path:
        """Return a new serving directory, as pushes before have left it."""
        self._count += 1
        directory = self._root / f"serving-{self._count}"
        write_model(self.model, self._count)
        if start == "next":
            _run(self.pusher, directory, self.model)
            leave(self, directory)
            write_model(self.model, self._count + 1_000_000)
        return directory

    def kill(self, start: str, point: str, leave: Leave) -> bool:
        """Kill a push at a point, push again, and check all that can be seen."""
        directory = self.prepare(start, leave)
        self.watcher.look_at(directory)
        if not _killed(self.pusher, directory, self.model, point):
            return False
        self.examine(directory, point)
        shutil.rmtree(directory)
        return True

    def examine(self, directory: Path, what: str) -> None:
        """Check a serving directory after a kill, push once more, check again."""
        before = _numbers(directory)
        bad = [fault for n in before if (fault := _fault(directory, str(n)))]
        self.partial += len(bad)
        number = _run(self.pusher, directory, self.model)
        if number <= max(before, default=0):
            self.faults.append(f"{what}: version {number} after {before}")
        control = directory / ".penstock"
        staging = control / "staging"
        after = _numbers(directory)
        bad += [
            fault
            for n in after
            if n not in before and (fault := _fault(directory, str(n)))
        ]
        if staging.exists() and (left := os.listdir(staging)):
            bad.append(f"staging holds {left}")
        stems = {int(path.stem) for path in (control / "manifests").iterdir()}
        if stems != set(after):
            bad.append(f"manifests {sorted(stems)} beside versions {after}")
        told = _told(directory)
        if told is not None and told != (after, set()):
            bad.append(f"the ledger says {told} were pushed and begun, not {after}")
        seen = self.watcher.look_at(self._root / "nothing")
        if seen != len(after):
            bad.append(f"the watcher checked {seen} of the versions {after}")
        self.faults += [f"{what}: {fault}" for fault in bad]


Leave = Callable[[_Site, Path], None]


def _numbers(directory: Path) -> list[int]:
    if not directory.exists():
        return []
    return sorted(int(name) for name in os.listdir(directory) if name.isdigit())


def leave_killed_push(site: _Site, directory: Path) -> None:
    """Leave what a push leaves that is killed right before its version appears."""
    point = "before renameat2 <serving>/.penstock/staging/<push>/model 1"
    if not _killed(site.pusher, directory, site.model, point):
        raise RuntimeError(f"No push came by '{point}'.")


def leave_nothing(site: _Site, directory: Path) -> None:
    """Leave nothing: what a killed push leaves in place is a version."""


def find_points(site: _Site, leave: Leave) -> list[str]:
    """Return every point as `start: moment call path number`."""
    found = []
    for start in _START:
        directory = site.prepare(start, leave)
        found += [f"{start}: {p}" for p in _points(site.pusher, directory, site.model)]
        shutil.rmtree(directory)
    return found


def kill_at_points(site: _Site, leave: Leave, counts: Counter[str], kills: int) -> None:
    """Kill pushes at the points that had the fewest kills so far."""
    source = random.Random(sum(counts.values()))
    for _ in range(kills):
        fewest = min(counts.values())
        point = source.choice([each for each in counts if counts[each] == fewest])
        start, _, call = point.partition(": ")
        if not site.kill(start, call, leave):
            raise RuntimeError(f"No push came by '{point}'.")
        counts[point] += 1


def kill_at_random(site: _Site, kills: int, seed: int) -> None:
    """Kill one of four simultaneous pushes at a random time, over and over."""
    source = random.Random(seed)
    directory = site.prepare("first", leave_nothing)
    site.watcher.look_at(directory)
    began = time.monotonic()
    for _ in range(3):
        _run(site.pusher, directory, site.model)
    seconds = (time.monotonic() - began) / 3
    done = 0
    while done < kills:
        pushes = [
            forked(lambda pipe: pipe.send(site.pusher(directory, site.model)))
            for _ in range(4)
        ]
        time.sleep(source.uniform(0, 2 * seconds))
        victim = source.choice(pushes)[0]
        os.kill(victim, signal.SIGKILL)
        for pid, _ in pushes:
            code = ended(pid)
            done += pid == victim and code == -signal.SIGKILL
    site.examine(directory, "random")
    shutil.rmtree(directory)


def push_at_once(site: _Site, pushers: int) -> list[int]:
    """Push from many processes at once; return the versions they were given.

    A push that returns version n must find all versions up to n visible.
    """
    directory = site.prepare("first", leave_nothing)
    site.watcher.look_at(directory)
    gate, opened = os.pipe()

    def work(pipe: Connection) -> None:
        os.close(opened)
        os.read(gate, 1)  # Returns when the parent closes its end.
        number = site.pusher(directory, site.model)
        pipe.send((number, _numbers(directory)))

    children = [forked(work) for _ in range(pushers)]
    os.close(gate)
    os.close(opened)
    given = []
    for pid, answer in children:
        number, visible = answered(pid, answer)
        given.append(number)
        if not set(range(1, number + 1)) <= set(visible):
            site.faults.append(f"version {number} appeared before a smaller one")
    site.examine(directory, f"{pushers} at once")
    shutil.rmtree(directory)
    return given


def push_often(site: _Site, pushes: int, pushers: int = 4) -> int:
    """Push again and again from several processes, bytes that were checked before.

    Returns:
        How many versions there are then, beside the one that was pushed first.
    """
    directory = site.prepare("first", leave_nothing)
    site.watcher.look_at(directory)
    _run(site.pusher, directory, site.model)

    def work(pipe: Connection) -> None:
        for _ in range(share):
            site.pusher(directory, site.model)
        pipe.send(share)

    share = pushes // pushers
    for child in [forked(work) for _ in range(pushers)]:
        answered(*child)
    made = len(_numbers(directory)) - 1
    site.examine(directory, f"{pushes} pushes")
    shutil.rmtree(directory)
    return made


def _control(root: Path, kills: int, most_pushes: int) -> dict[str, int]:
    """Send the copier that writes in place through the same; it must be caught."""
    with _watching() as watcher:
        site = _Site(root, push_in_place, watcher)
        points = find_points(site, leave_nothing)
        counts = Counter(dict.fromkeys(points, 0))
        kill_at_points(site, leave_nothing, counts, kills)
        seen = len(watcher.faults)
        # Where other processes hold the processor the watcher may sleep through many
        # pushes, so the copier goes on until it is caught.
        pushes = seen_alive = 0
        while not seen_alive and pushes < most_pushes:
            pushes += push_often(site, 4 * kills, pushers=1)
            seen_alive = len(watcher.faults) - seen
    caught = {
        "in_place_kills": kills,
        "in_place_partial_versions": site.partial,
        "in_place_partial_versions_watched": seen,
        "in_place_pushes": pushes,
        "in_place_pushes_caught": seen_alive,
    }
    if not (site.partial and seen and seen_alive):
        raise RuntimeError(
            f"The copier that writes in place was not caught ({caught}), so this "
            "harness proves nothing about other pushes."
        )
    return caught


def main(argv: list[str]) -> dict[str, Any]:
    """Kill pushes; return counts. Faults are the sentences of what must not be."""
    parser = argparse.ArgumentParser(prog="push-kills", description=__doc__)
    parser.add_argument(
        "--kills",
        type=int,
        help="kills at points (without it: until every point has had three)",
    )
    parser.add_argument("--random-kills", type=int, default=50)
    parser.add_argument("--control-kills", type=int, default=40)
    parser.add_argument("--pushers", type=int, default=32)
    parser.add_argument(
        "--pushes", type=int, default=2000, help="pushes that nobody kills"
    )
    parser.add_argument(
        "--state",
        type=Path,
        help="a JSON file with the counts so far, which this run adds to; a run that "
        "is broken off loses at most a hundred kills",
    )
    options = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="push-kills-"))
    try:
        return _measure(options, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    for name in ("ours", "in-place"):
        (root / name).mkdir()
    control = _control(
        root / "in-place", options.control_kills, max(options.pushes, 2000)
    )
    known: dict[str, Any] = {}
    if options.state is not None and options.state.exists():
        known = json.loads(options.state.read_text(encoding="utf-8"))
    with _watching() as watcher:
        site = _Site(root / "ours", push, watcher)
        points = find_points(site, leave_killed_push)
        counts = Counter({p: known.get("counts", {}).get(p, 0) for p in points})
        random_kills = known.get("random_kills", 0)

        def total() -> dict[str, Any]:
            """Return what was counted so far, and keep it for the next run."""
            partial = site.partial + len(watcher.faults)
            sums = {
                "random_kills": random_kills,
                "partial_versions": known.get("partial_versions", 0) + partial,
                "watcher_looks": known.get("watcher_looks", 0) + watcher.looks,
                "watcher_checked": known.get("watcher_checked", 0) + watcher.checked,
                "faults": known.get("faults", []) + site.faults + watcher.faults,
            }
            if options.state is not None:
                options.state.parent.mkdir(parents=True, exist_ok=True)
                draft = options.state.with_suffix(".partial")
                draft.write_text(json.dumps({**sums, "counts": counts}, indent=1))
                draft.replace(options.state)
            return sums

        began = time.monotonic()
        pushes = push_often(site, options.pushes)
        push_seconds = time.monotonic() - began
        given = push_at_once(site, options.pushers)
        kill_at_random(site, options.random_kills, random_kills)
        random_kills += options.random_kills
        kills = options.kills
        if kills is None:
            kills = sum(max(0, 3 - count) for count in counts.values())
        while kills > 0:
            total()
            kill_at_points(site, leave_killed_push, counts, min(kills, 100))
            kills -= 100
        sums = total()
    return {
        "points": len(points),
        "kills": sum(counts.values()),
        "least_kills_per_point": min(counts.values()),
        **sums,
        "pushes": pushes,
        "push_seconds": round(push_seconds, 1),
        "pushers": options.pushers,
        "distinct_versions": len(set(given)),
        **control,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
