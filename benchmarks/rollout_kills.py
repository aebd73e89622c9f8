"""Kills controllers of rollouts at every statement and call, with four rivals each.

An episode is one rollout on a serving directory: a healthy candidate, one that fails
its units, or one that does not load. One process controls it and is killed: at a point,
which is a moment before or after one statement of the ledger or one call of the model
server, told apart by the phase of the rollout; or at random, and then whoever comes
next as well. Four rivals want to control it all the while. A router that obeys the
ledger counts units, and looks at every routing that it finds. In the end the rollout
has to be over as it should, and the ledger has to tell a history that holds.

Controllers that look at no lease go through the same; a harness that does not catch
them proves nothing and fails.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._histories import faults
from benchmarks._kills import Calls, answered, forked
from penstock.components.serving import ledger as ledger_module
from penstock.components.serving.control import Loaded, LoadState
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.rollout import state as moves
from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.controller import Controller
from penstock.components.serving.rollout.plan import Guard, Rollout, Step
from penstock.components.serving.rollout.state import State, state_of
from penstock.components.serving.routing import routing_of
from penstock.components.serving.traffic import Arm, Report, Seen, Tally, Traffic
from penstock.components.serving.version_dir import push
from penstock.schemas.errors import ServingError

PLAN = Rollout(
    "ranker",
    steps=[Step(30, 0.01, 3), Step(60, 0.01, 3), Step(100, 0.01, 0)],
    guards=[Guard.errors(), Guard.traffic(3)],
    shadow=0.01,
    stale_after=2.0,
)
RIVALS = 4
TICK_SECONDS = 0.003
END_SECONDS = 30.0
"""How long an episode may take until it is stuck."""

ENDS = {"healthy": "promoted", "failing": "rolled back", "broken": "failed"}
"""Kinds of candidates, and what their rollouts end in."""


class FileServer:
    """A model server that is a file, so that all processes see the same one.

    Args:
        path: The file.
        broken: Versions that do not load.
    """

    def __init__(self, path: Path, broken: tuple[int, ...] = ()) -> None:
        self._path = path
        self._broken = broken

    def load(self, versions: tuple[int, ...]) -> None:
        with self._locked() as known:
            for name in list(known):
                if int(name) not in versions:
                    known[name] = ["END", ""]
            for version in versions:
                broken = version in self._broken
                said = ["END", "it is broken"] if broken else ["AVAILABLE", ""]
                known[str(version)] = said

    def states(self) -> Mapping[int, Loaded]:
        with self._locked() as known:
            return {
                int(version): Loaded(LoadState(state), error)
                for version, (state, error) in known.items()
            }

    def announce(self, stable: int | None, canary: int | None = None) -> None:
        pass

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, list[str]]]:
        # A killed process frees the lock, and the file is replaced as a whole.
        with open(f"{self._path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known: dict[str, list[str]] = {}
            if self._path.exists():
                known = json.loads(self._path.read_text())
            before = json.dumps(known)
            yield known
            if json.dumps(known) != before:
                draft = self._path.with_suffix(f".{os.getpid()}")
                draft.write_text(json.dumps(known))
                os.replace(draft, self._path)


@dataclass(frozen=True)
class Place:
    """Where an episode happens."""

    folder: Path
    kind: str

    @property
    def directory(self) -> Path:
        return self.folder / "serving"

    @property
    def server(self) -> FileServer:
        broken = (2,) if self.kind == "broken" else ()
        return FileServer(self.folder / "server.json", broken)

    def controller(self) -> Controller:
        return Controller(
            self.directory,
            self.server,
            quarantine=self._sets_aside,
            tick_seconds=TICK_SECONDS,
            load_seconds=20,
            settle_seconds=5,
        )

    def _sets_aside(self, version: int, reason: str) -> None:
        (self.folder / f"set-aside-{version}").touch()

    def make(self) -> None:
        """Make two versions, the first of which is stable, and start the rollout."""
        for number in (1, 2):
            model = self.folder / f"model-{number}"
            model.mkdir()
            (model / "saved_model.pb").write_bytes(b"model %d" % number)
            push(self.directory, model, blessing="/blessing")
        with Ledger(self.directory) as ledger:
            verbs.start(ledger, 1, PLAN, server={})
            first = self.controller()
            first.run()
            first.close()
            verbs.start(ledger, 2, PLAN, server={})


# --- the processes


class Points(Calls):
    """Points of a controller: statements and calls, by the phase they happen in."""

    phase = "start"

    def _around(self, label: str, call: Callable[[], Any]) -> Any:
        label = f"{self.phase}: {label}"
        if self._seen[label] >= 3:  # what comes after is the same again
            return call()
        return super()._around(label, call)

    def hook_controller(self) -> None:
        """Put itself around all that a controller does to the outside, for good."""
        points = self

        class Recorded(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> Any:
                label = f"sqlite {' '.join(sql.split()[:3])}"
                return points._around(
                    label, lambda: super(Recorded, self).execute(sql, *args)
                )

        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **kwargs: connect(
            *args, **{**kwargs, "factory": Recorded}
        )
        self.hook(FileServer, "load", lambda args: "server load")
        self.hook(FileServer, "states", lambda args: "server states")
        self.hook(Place, "_sets_aside", lambda args: "set aside")
        tick = Controller.tick

        def named_tick(controller: Controller) -> State:
            with contextlib.suppress(ServingError):
                state = state_of(controller.ledger)
                if state is not None:
                    points.phase = f"{state.phase.value} {state.step}"
            return tick(controller)

        Controller.tick = named_tick  # type: ignore[method-assign]


def control(place: Place, seconds: float = END_SECONDS) -> None:
    """Control the rollout, or wait for one's turn to, until it is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        controller = place.controller()
        try:
            if controller.run().phase.is_over:
                return
        except ServingError:
            time.sleep(TICK_SECONDS)  # somebody else controls it, or has taken over
        finally:
            controller.close()


def route(place: Place, stop: Path) -> list[str]:
    """Obey the routing and count units until a file appears; return what is wrong."""
    source = random.Random(5)
    found: list[str] = []
    tallies: dict[tuple[int, Arm], Tally] = {}
    rollout = None
    with Ledger(place.directory) as ledger, Traffic(place.directory) as traffic:
        while not stop.exists():
            routing = routing_of(ledger)
            known = place.server.states()
            if routing_of(ledger).seq == routing.seq:
                for version in routing.routed:
                    state = known.get(version, Loaded(LoadState.UNKNOWN)).state
                    if state is not LoadState.AVAILABLE:
                        found.append(f"version {version} is routed and {state.value}")
            if routing.rollout != rollout:
                rollout, tallies = routing.rollout, {}
            seen = []
            for _ in range(20 if rollout else 0):
                arm: Arm = "candidate" if source.random() < routing.weight else "stable"
                tally = tallies.setdefault((routing.step, arm), Tally())
                tally.requests += 1
                tally.units += 1
                unit = source.getrandbits(62)
                seen.append(Seen("seen", unit, routing.step, arm))
                if arm == "candidate" and place.kind == "failing":
                    seen.append(Seen("failing", unit, routing.step, arm))
                    tally.failures += 1
            if routing.shadow:
                tallies.setdefault((-1, "candidate"), Tally()).requests += 1
            traffic.report(
                Report("router", routing.seq, rollout, seen, tallies=tallies)
            )
            time.sleep(TICK_SECONDS)
        traffic.leave("router")
    return found


# --- episodes


def episode(
    place: Place, kill: Callable[[Connection], None] | None, seed: int | None
) -> tuple[int, list[str]]:
    """Let a rollout happen while its controllers are killed.

    Args:
        place: Where.
        kill: What the first controller does, which kills itself; None for one that
            is killed at random.
        seed: Of the random kills.

    Returns:
        How many were killed, and what is wrong.
    """
    place.make()
    stop = place.folder / "stop"
    router = forked(lambda pipe: pipe.send(route(place, stop)))
    kills = 0
    source = random.Random(seed)
    victim, _ = forked(kill or (lambda pipe: control(place)))
    _wait_for_lease(place, victim)
    rivals = [forked(lambda pipe: control(place))[0] for _ in range(RIVALS)]
    running = {victim, *rivals}
    deadline = time.monotonic() + END_SECONDS
    found: list[str] = []
    with Ledger(place.directory) as ledger:
        while True:
            state = state_of(ledger)
            if state is not None and state.phase.is_over:
                break
            if time.monotonic() > deadline:
                found.append(f"stuck while {state and state.phase.value}")
                break
            for pid in list(running):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    running.discard(pid)
                    kills += pid == victim and kill is not None
            if kill is None:
                time.sleep(source.uniform(0.001, 0.03))
                holder = _holder(ledger)
                if holder in running:
                    os.kill(holder, signal.SIGKILL)
                    os.waitpid(holder, 0)
                    running.discard(holder)
                    running.add(forked(lambda pipe: control(place))[0])
                    kills += 1
            else:
                time.sleep(TICK_SECONDS)
        if kill is not None and victim in running:
            # It was not killed if others came first; that is said by the count.
            running.discard(victim)
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        stop.touch()
        found += answered(*router)
        found += faults(ledger)
        found += _outcome(place, ledger)
    return kills, found


def _wait_for_lease(place: Place, victim: int) -> None:
    """Wait until the first controller has the lease, or is dead."""
    deadline = time.monotonic() + 2.0
    with Ledger(place.directory) as ledger:
        while _holder(ledger) != victim and time.monotonic() < deadline:
            if os.waitid(os.P_PID, victim, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.001)


def _holder(ledger: Ledger) -> int:
    connection = ledger._connection()
    assert connection is not None
    (holder,) = connection.execute("SELECT holder FROM lease").fetchone()
    return int(json.loads(holder)["pid"]) if holder else 0


def _outcome(place: Place, ledger: Ledger) -> list[str]:
    """Return what did not come as it had to."""
    state, routing = state_of(ledger), routing_of(ledger)
    assert state is not None
    found = []
    if state.phase.value != ENDS[place.kind]:
        found.append(f"ended as {state.phase.value}: {state.reason}")
    stable = 2 if place.kind == "healthy" else 1
    if routing.stable != stable or routing.candidate is not None:
        found.append(f"in the end {routing} is routed")
    aside = (place.folder / "set-aside-2").exists()
    if aside != (place.kind != "healthy"):
        found.append(f"the candidate was {'' if aside else 'not '}set aside")
    # No event may be there twice but those that say how things are.
    once = Counter(
        (event.kind, event.data.get("step"))
        for event in ledger.events(rollout=state.id)
        if event.kind not in ("holds", "watches", "took over", "slow")
    )
    found += [f"{kind} {n} times" for kind, n in once.items() if n > 1]
    return found


def points_of(folder: Path, kind: str) -> list[str]:
    """Return the points that an undisturbed controller comes by."""
    place = Place(folder, kind)
    folder.mkdir()
    place.make()
    stop = place.folder / "stop"
    router = forked(lambda pipe: pipe.send(route(place, stop)))

    def work(pipe: Connection) -> None:
        send = pipe.send
        points = Points(lambda path: path, None)
        points.hook_controller()
        control(place)
        send(list(points.points))

    found: list[str] = answered(*forked(work))
    stop.touch()
    wrong = answered(*router)
    if wrong:
        raise RuntimeError(f"An undisturbed rollout goes wrong: {wrong[:3]}")
    return found


def killed_at(place: Place, point: str) -> Callable[[Connection], None]:
    """Return a controller that kills itself at a point."""

    def work(_: Connection) -> None:
        Points(lambda path: path, point).hook_controller()
        control(place)

    return work


def careless(folder: Path) -> int:
    """Return how many faults a harness finds where leases are not looked at."""
    check = ledger_module._check_lease
    unchanged = moves.unchanged
    ledger_module._check_lease = lambda *_: None
    moves.unchanged = lambda *_: None
    acquire = Ledger.acquire
    Ledger.acquire = (  # type: ignore[method-assign]
        lambda self, *, seconds=0.0: acquire(self, seconds=0.0)
    )
    try:
        found = 0
        for number in range(8):
            place = Place(folder / f"careless-{number}", "healthy")
            place.folder.mkdir()
            found += bool(episode(place, None, number)[1])
        return found
    finally:
        ledger_module._check_lease = check
        moves.unchanged = unchanged
        Ledger.acquire = acquire  # type: ignore[method-assign]


def run(at_points: int, at_random: int, seed: int, say: bool) -> dict[str, Any]:
    """Kill so many controllers at points and at random; return what came of it.

    Args:
        at_points: How many at points; the points are gone through in turn.
        at_random: How many at random.
        seed: Of all that is random.
        say: Whether to tell of progress on stderr.
    """
    base = Path(tempfile.mkdtemp(prefix="rollout-kills-"))
    wrong: list[str] = []
    killed = Counter[str]()
    reached: set[tuple[str, str]] = set()
    try:
        points = [
            (kind, point)
            for kind in ENDS
            for point in dict.fromkeys(points_of(base / f"points-{kind}", kind))
        ]
        random.Random(seed).shuffle(points)
        for number in range(at_points):
            kind, point = points[number % len(points)]
            place = Place(base / f"at-{number}", kind)
            place.folder.mkdir()
            kills, found = episode(place, killed_at(place, point), seed + number)
            killed["points"] += kills
            if kills:
                reached.add((kind, point))
            wrong += [f"{kind}, {point}: {each}" for each in found]
            shutil.rmtree(place.folder)
            if say and number % 50 == 49:
                _say(f"{number + 1} of {at_points} points, {len(wrong)} faults")
        number = 0
        while killed["random"] < at_random:
            if number > 50 + 5 * at_random:
                raise RuntimeError("Rollouts are over before anybody is killed.")
            kind = list(ENDS)[number % len(ENDS)]
            place = Place(base / f"random-{number}", kind)
            place.folder.mkdir()
            kills, found = episode(place, None, seed + number)
            killed["random"] += kills
            wrong += [f"{kind}, at random {seed + number}: {each}" for each in found]
            shutil.rmtree(place.folder)
            number += 1
            if say and number % 20 == 0:
                _say(
                    f"{killed['random']} of {at_random} at random, {len(wrong)} faults"
                )
        caught = careless(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if not caught:
        raise RuntimeError("Controllers that look at no lease were not caught.")
    return {
        "points": len(points),
        "points_reached": len(reached),
        "kills_at_points": killed["points"],
        "kills_at_random": killed["random"],
        "rivals": RIVALS,
        "faults": len(wrong),
        "first_faults": wrong[:5],
        "careless_caught": caught,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(options: list[str]) -> dict[str, Any]:
    """Run it."""
    parser = argparse.ArgumentParser(prog="rollout-kills")
    parser.add_argument("--points", type=int, default=1_000)
    parser.add_argument("--random", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(options)
    return run(chosen.points, chosen.random, chosen.seed, say=True)
