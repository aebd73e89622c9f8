"""A serving directory with versions, a model server and routers that tests control."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from penstock.components.serving.control import Loaded, LoadState
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.controller import Controller
from penstock.components.serving.rollout.plan import Rollout, Step
from penstock.components.serving.rollout.state import State
from penstock.components.serving.router import sketch
from penstock.components.serving.routing import Routing, routing_of
from penstock.components.serving.traffic import (
    Arm,
    Report,
    Seen,
    Tally,
    Traffic,
)
from penstock.components.serving.version_dir import push
from penstock.schemas.errors import ServingError

PLAN = Rollout(
    "ranker",
    steps=[Step(5, "10s", 20), Step(50, "10s", 20), Step(100, "10s", 0)],
    deadline="10m",
)


class Server:
    """A model server: loads what it is asked for, unless told otherwise.

    Attributes:
        broken: Versions that cannot be loaded.
        down: Whether it does not answer at all.
        asked: Every list of versions that it was asked for.
        announced: Everything that it was told of stable and canary.
    """

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.lost: set[int] = set()
        self.down = False
        self.asked: list[tuple[int, ...]] = []
        self.announced: list[tuple[int | None, int | None]] = []
        self.known: dict[int, Loaded] = {}

    def load(self, versions: tuple[int, ...]) -> None:
        self._answer()
        self.asked.append(versions)
        for version in list(self.known):
            if version not in versions:
                self.known[version] = Loaded(LoadState.END)
        for version in versions:
            state = self.known.get(version, Loaded(LoadState.UNKNOWN)).state
            if version in self.broken:
                self.known[version] = Loaded(LoadState.END, "no saved_model.pb")
            elif state is not LoadState.AVAILABLE:
                self.known[version] = Loaded(LoadState.LOADING)

    def states(self) -> Mapping[int, Loaded]:
        self._answer()
        said = dict(self.known)
        for version, each in said.items():
            if each.state is LoadState.LOADING:  # by the next time, it is loaded
                self.known[version] = Loaded(LoadState.AVAILABLE)
        return said

    def announce(self, stable: int | None, canary: int | None = None) -> None:
        self._answer()
        self.announced.append((stable, canary))

    def loses(self, version: int) -> None:
        self.known.pop(version, None)

    @property
    def available(self) -> set[int]:
        return {v for v, e in self.known.items() if e.state is LoadState.AVAILABLE}

    def _answer(self) -> None:
        if self.down:
            raise ServingError("The model server at 127.0.0.1:8500 does not answer.")


class Crowd:
    """A router, and everybody who asks it something.

    Attributes:
        error_rates: Share of units that each arm fails.
        asks: Units for each second.
        silent: Whether the router reports nothing.
        alarm: What it reports as its alarm.
    """

    def __init__(self, directory: Path, name: str = "router-1") -> None:
        self._traffic = Traffic(directory)
        self._ledger = Ledger(directory)
        self._random = random.Random(7)
        self._tallies: dict[tuple[str, int, Arm], Tally] = {}
        self.name = name
        self.error_rates: dict[Arm, float] = {"stable": 0.0, "candidate": 0.0}
        self.seconds: dict[Arm, float] = {"stable": 0.01, "candidate": 0.01}
        self.values: dict[Arm, float] = {}
        self.asks = 200
        self.silent = False
        self.alarm = ""
        self.obeyed = Routing()
        self.has_reported = False

    def live(self, seconds: float) -> None:
        """Ask the router for some seconds, under the routing that it finds."""
        if self.silent:
            return
        self.has_reported = True
        self.obeyed = routing = routing_of(self._ledger)
        seen, values = [], []
        # While it raises an alarm, a router assigns nobody and counts nobody.
        if routing.rollout is not None and not self.alarm:
            for _ in range(int(self.asks * seconds)):
                arm: Arm = "stable"
                if self._random.random() < routing.weight:
                    arm = "candidate"
                unit = self._random.getrandbits(62)
                key = (routing.rollout, routing.step, arm)
                tally = self._tallies.setdefault(key, Tally())
                tally.requests += 1
                tally.units += 1
                seen.append(Seen("seen", unit, routing.step, arm))
                fails = self._random.random() < self.error_rates[arm]
                if fails:
                    tally.failures += 1
                    seen.append(Seen("failing", unit, routing.step, arm))
                took = self.seconds[arm] * self._random.lognormvariate(0, 0.3)
                sketch.add(tally.sketch, took)
                limit = routing.slow_seconds or float("inf")
                if took > limit * (routing.slow_ratio if arm == "candidate" else 1):
                    seen.append(Seen("slow", unit, routing.step, arm))
                if arm in self.values and self._random.random() < 0.5:
                    values.append(("clicks", unit, self.values[arm]))
        tallies = {
            (step, arm): tally
            for (rollout, step, arm), tally in self._tallies.items()
            if rollout == routing.rollout
        }
        self._traffic.report(
            Report(
                self.name,
                routing.seq,
                routing.rollout,
                seen,
                values,
                tallies,
                self.alarm,
            )
        )

    def close(self) -> None:
        self._traffic.close()
        self._ledger.close()


class World:
    """All of it, on a clock that only tests move.

    Args:
        folder: Where the serving directory is made, with versions 1, 2 and 3.
    """

    def __init__(self, folder: Path, versions: int = 3) -> None:
        self.directory = folder / "serving"
        for number in range(1, versions + 1):
            model = folder / f"model-{number}"
            model.mkdir()
            (model / "saved_model.pb").write_bytes(b"model %d" % number)
            push(self.directory, model, blessing="/blessing")
        self.now = 0.0
        self.server = Server()
        self.ledger = Ledger(self.directory)
        self.crowd = Crowd(self.directory)
        self.set_aside: list[tuple[int, str]] = []
        self.controller = self.new_controller()

    def new_controller(self) -> Controller:
        return Controller(
            self.directory,
            self.server,
            quarantine=lambda version, reason: self.set_aside.append((version, reason)),
            load_seconds=60,
            settle_seconds=5,
            clock=lambda: self.now,
        )

    def start(self, version: int, plan: Rollout = PLAN) -> State:
        return verbs.start(self.ledger, version, plan, server={"address": "here"})

    def live(self, seconds: float) -> State:
        """Let time pass: a second of requests, then a look of the controller."""
        state = None
        for _ in range(int(seconds)):
            self.crowd.live(1.0)
            self.now += 1.0
            state = self.controller.tick()
            if state.phase.is_over:
                break
        assert state is not None
        return state

    def stable(self, version: int) -> None:
        """Make a version stable that is the first one."""
        self.start(version)
        assert self.live(20).phase.value == "promoted"

    @property
    def routing(self) -> Routing:
        return routing_of(self.ledger)

    @property
    def kinds(self) -> list[str]:
        """What was done, without what is done at every look."""
        return [
            each.kind
            for each in self.ledger.events()
            if each.kind not in ("pushing", "pushed", "slow")
        ]

    def close(self) -> None:
        self.controller.close()
        self.crowd.close()
        self.ledger.close()
