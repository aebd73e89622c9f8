"""Anything may happen to a rollout in any order; what must hold, holds throughout."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from benchmarks._histories import faults
from penstock.components.serving.ledger import Conflict, Event, LeaseLost
from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.controller import Controller
from penstock.components.serving.rollout.plan import Rollout, Step
from penstock.components.serving.rollout.state import Phase, state_of
from penstock.components.serving.traffic import BREAKER
from penstock.schemas.errors import ServingError
from tests.components.serving.rollout.worlds import Crowd, World

PLAN = Rollout(
    "ranker",
    steps=[Step(20, "1s", 5), Step(60, "1s", 5), Step(100, "1s", 0)],
    deadline="10m",
)
VERSIONS = 4


class Rollouts(RuleBasedStateMachine):
    """A serving directory that things happen to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name), VERSIONS)
        self.world.crowd.asks = 30
        self.crowds = [self.world.crowd]
        self.rival: Controller | None = None
        self.seen = 0
        self.before = self.world.routing

    def teardown(self) -> None:
        if self.rival is not None:
            self.rival.close()
        for crowd in self.crowds[1:]:
            crowd.close()
        self.world.close()
        self.folder.cleanup()

    @initialize()
    def first(self) -> None:
        self.world.stable(1)
        self.world.start(2, PLAN)
        self.seen = len(self.world.ledger.events())

    # --- what the controller and routers do

    @rule(looks=st.integers(1, 12))
    def time_passes(self, looks: int) -> None:
        self._live(looks)

    @rule()
    def all_is_well_for_a_while(self) -> None:
        self.all_is_mended()
        self._live(4)

    def _live(self, looks: int) -> None:
        for _ in range(looks):
            self.before = self.world.routing
            for crowd in self.crowds:
                crowd.live(1.0)
            self.world.now += 1.0
            self._look(self.world.controller)
            self._check_moves()

    @rule()
    def a_rival_takes_over(self) -> None:
        if self.rival is None:
            self.rival = self.world.new_controller()
        # As after a long pause of the other one.
        self.rival.lease = self.world.ledger.acquire(seconds=0)
        self.world.controller, self.rival = self.rival, self.world.controller

    @rule()
    @precondition(lambda self: self.rival is not None)
    def the_one_that_lost_the_lease_wakes_up(self) -> None:
        assert self.rival is not None
        before = self.world.ledger.events()
        lease = self.rival.lease
        with contextlib.suppress(LeaseLost, Conflict, ServingError):
            if lease is not None:
                self.rival.tick()
        if lease is not None and lease != self.world.controller.lease:
            assert self.world.ledger.events() == before

    @rule()
    def the_controller_is_killed(self) -> None:
        self.world.controller.lease = None  # what a process had in memory is gone
        self.world.controller = self.world.new_controller()

    def _look(self, controller: Controller) -> None:
        state = state_of(self.world.ledger)
        if state is None or state.phase.is_over:
            return
        with contextlib.suppress(Conflict):
            controller.tick()

    # --- what people do

    @rule(version=st.integers(1, VERSIONS), shadow=st.booleans())
    def start(self, version: int, shadow: bool) -> None:
        plan = dataclasses.replace(PLAN, shadow="2s" if shadow else "0")
        self._tried(lambda: self.world.start(version, plan))

    @rule(verb=st.sampled_from(["hold", "resume", "abort", "promote", "roll back"]))
    def somebody_acts(self, verb: str) -> None:
        ledger, loaded = self.world.ledger, self.world.server.available
        acts: dict[str, Callable[[], object]] = {
            "hold": lambda: verbs.hold(ledger, "Wait."),
            "resume": lambda: verbs.resume(ledger),
            "abort": lambda: verbs.abort(ledger, "No."),
            "promote": lambda: verbs.promote(ledger, "Yes."),
            "roll back": lambda: verbs.roll_back(ledger, "Back.", loaded=loaded),
        }
        self._tried(acts[verb])

    def _tried(self, verb: Callable[[], object]) -> None:
        before = self.world.ledger.events(), self.world.routing
        try:
            verb()
        except ServingError:
            assert before == (self.world.ledger.events(), self.world.routing)
        self.seen = len(self.world.ledger.events())

    # --- what goes wrong

    @rule(
        trouble=st.sampled_from(["breaks", "down", "anew", "alarm", "asks", "silent"]),
        looks=st.integers(0, 3),
    )
    def something_goes_wrong(self, trouble: str, looks: int) -> None:
        server, crowd = self.world.server, self.world.crowd
        if trouble == "breaks":
            server.broken |= {2, 3}
        elif trouble == "down":
            server.down = True
        elif trouble == "anew":
            server.known.clear()
            server.down = False
        elif trouble == "alarm":
            crowd.alarm = BREAKER + "6 in a row."
        elif trouble == "asks":
            crowd.asks = 0
        else:
            self.crowds[-1].silent = True
        self._live(looks)

    def all_is_mended(self) -> None:
        self.world.server.broken.clear()
        self.world.server.down = False
        self.world.crowd.alarm = ""
        for crowd in self.crowds:
            crowd.silent, crowd.asks = False, 30

    @rule(stable=st.sampled_from([0, 0.05]), candidate=st.sampled_from([0, 0.05, 1]))
    def errors_change(self, stable: float, candidate: float) -> None:
        for crowd in self.crowds:
            crowd.error_rates = {"stable": stable, "candidate": candidate}

    @rule()
    @precondition(lambda self: len(self.crowds) == 1)
    def another_router_starts(self) -> None:
        self.crowds.append(Crowd(self.world.directory, "router-2"))

    # --- what must hold

    def _check_moves(self) -> None:
        """Check what the controller's moves at this look were allowed to be."""
        events = self.world.ledger.events()
        for event in events[self.seen :]:
            self._check_move(event)
        self.seen = len(events)

    def _check_move(self, event: Event) -> None:
        server = self.world.server
        if event.kind == "loaded":
            assert event.version in server.available
        if event.kind == "step":
            assert event.version in server.available  # P1
            if event.data["step"] > 0:
                self._check_fresh()
        if event.kind == "promoted":
            assert event.version in server.available  # P7
            if event.data["previous"] is not None:
                assert event.data["previous"] in server.available  # P16
                self._check_fresh()
        if event.kind == "rolls back" and not server.down:
            # Nobody is sent to what does not answer while something does.
            answers = event.data["to"] in server.available
            assert (
                answers
                or event.version not in server.available
                or (self.before.weight == 0)
            )

    def _check_fresh(self) -> None:
        """P5: every router that is heard of obeys the step that ends."""
        heard = [crowd for crowd in self.crowds if crowd.has_reported]
        assert heard and all(crowd.obeyed.seq >= self.before.seq for crowd in heard)

    @invariant()
    def the_history_holds(self) -> None:
        assert faults(self.world.ledger) == []
        routing = self.world.routing
        state = state_of(self.world.ledger)
        if state is not None and state.phase is Phase.ROLLING_BACK:
            assert routing.weight == 0 and routing.candidate is None  # P4
        for crowd in self.crowds:
            assert crowd.obeyed.seq <= routing.seq


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
