"""The controller of a rollout: loads, looks, decides, and moves, until it is over.

It may be killed anywhere. Every act is written down before it is done and can be done
twice: the next controller takes the lease, reads the state, and goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from penstock.components.serving.control import Loaded, LoadState
from penstock.components.serving.ledger import (
    Conflict,
    Lease,
    LeaseLost,
    Ledger,
    Transaction,
)
from penstock.components.serving.rollout import state as moves
from penstock.components.serving.rollout.decide import (
    Decision,
    Moments,
    Pair,
    StepEvidence,
    decide,
    unreported,
)
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.rollout.state import Phase, State, state_of
from penstock.components.serving.router.sketch import merged, quantile
from penstock.components.serving.routing import routing_of
from penstock.components.serving.shelf import usable
from penstock.components.serving.traffic import (
    BREAKER,
    MISSING,
    Arm,
    Heard,
    Mark,
    StepTraffic,
    Tally,
    Traffic,
)
from penstock.schemas.errors import ServingError

MIN_LATENCIES = 1_000
"""Answers of stable that a quantile of its latency is taken from at least."""

MIN_COPIES = 6
"""Copies of requests that a candidate in shadow must have failed, one and all."""


class Target(Protocol):
    """The model server, or servers, that the versions are loaded in."""

    def load(self, versions: tuple[int, ...]) -> None:
        """Ask that exactly these versions be loaded; does not wait for it.

        Raises:
            ServingError: If the server does not answer, or refuses.
        """

    def states(self) -> Mapping[int, Loaded]:
        """Return what the server says of every version that it knows.

        Raises:
            ServingError: If the server does not answer.
        """

    def announce(self, stable: int | None, canary: int | None = None) -> None:
        """Say which version is stable to callers that come through no router.

        Raises:
            ServingError: If the server does not answer, or a version is not loaded.
        """


class Controller:
    """Controls the rollout of a serving directory.

    Args:
        serving_dir: The serving directory.
        target: The model server.
        quarantine: Called with a version that the evidence turned down, and why, once
            nothing asks it any more; may be called twice.
        tick_seconds: How often it looks.
        load_seconds: How long a load may take.
        settle_seconds: How long routers are waited for after a rollback before the
            candidate is unloaded under them.
        clock: A monotonic clock.
    """

    def __init__(
        self,
        serving_dir: Path | str,
        target: Target,
        *,
        quarantine: Callable[[int, str], object] = lambda version, reason: None,
        tick_seconds: float = 1.0,
        load_seconds: float = 600.0,
        settle_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = Ledger(serving_dir)
        self._traffic = Traffic(serving_dir)
        self._target = target
        self._quarantine = quarantine
        self._tick_seconds = tick_seconds
        self._load_seconds = load_seconds
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._last: float | None = None
        self._asked = ""
        self._announced: tuple[int | None, int | None] | None = None
        self.lease: Lease | None = None
        self.decision: Decision | None = None
        """What the last look came to, for people to see."""

    def close(self) -> None:
        """Give up the lease and close all files."""
        try:
            if self.lease is not None:
                self.ledger.release(self.lease)
        finally:
            self._traffic.close()
            self.ledger.close()

    def run(
        self,
        on_tick: Callable[[State], object] = lambda state: None,
        stop: threading.Event | None = None,
    ) -> State:
        """Control the rollout until it is over.

        Args:
            on_tick: Called after every look.
            stop: Ends it early; routers then keep the last weight until somebody else
                controls the rollout, or its dead man's time is over.

        Returns:
            What it has come to.

        Raises:
            ServingError: If there is no rollout, somebody else controls it, or the
                ledger cannot be written.
        """
        stop = stop or threading.Event()
        state = self._known()
        while not state.phase.is_over and not stop.is_set():
            if self.lease is None:
                self._take_over(state)
            with contextlib.suppress(Conflict):
                state = self.tick()
            on_tick(state)
            if not state.phase.is_over:
                stop.wait(self._tick_seconds)
        return state

    def _known(self) -> State:
        state = state_of(self.ledger)
        if state is None:
            raise ServingError(
                f"Serving directory '{self.ledger.directory}' has no rollout. Start "
                "one with: penstock rollout start DIR VERSION."
            )
        return state

    def _take_over(self, state: State) -> None:
        silence = self.ledger.silence()
        self.lease = self.ledger.acquire()
        with contextlib.suppress(ServingError):  # it holds no rollout up
            self._traffic.forget([state.id])
        if silence is not None:
            with self.ledger.writing(self.lease) as transaction:
                transaction.event(
                    "took over", state.candidate, rollout=state.id, silence=silence
                )

    def tick(self) -> State:
        """Look once, and make at most one move.

        Returns:
            The state after it.

        Raises:
            Conflict: If somebody else made a move meanwhile; look again.
            LeaseLost: If somebody else has become the controller.
        """
        if self.lease is None:
            self._take_over(self._known())
        state = self._known()
        elapsed = self._elapsed()
        # A process that was stopped, or waited for a server, watched nothing meanwhile.
        watched = min(elapsed, 5 * self._tick_seconds)
        if state.phase is Phase.LOADING:
            return self._loads(state, elapsed, watched)
        if state.phase is Phase.ROLLING_BACK:
            return self._rolls_back(state, elapsed)
        if not state.phase.is_over:
            return self._watches(state, watched)
        with contextlib.suppress(ServingError):
            self._announces()  # somebody promoted it
        return state

    def _elapsed(self) -> float:
        """Return the seconds since the last look."""
        now = self._clock()
        last, self._last = self._last, now
        return 0.0 if last is None else now - last

    @contextlib.contextmanager
    def _moving(self, state: State) -> Iterator[Transaction]:
        assert self.lease is not None
        try:
            with self.ledger.writing(self.lease) as transaction:
                moves.unchanged(transaction, state)
                transaction.renew()
                yield transaction
        except LeaseLost:
            self.lease = None
            raise

    # --- loading

    def _loads(self, state: State, elapsed: float, watched: float) -> State:
        waited = state.waiting_seconds + elapsed
        found, trouble = None, ""
        try:
            asks = self._asked != state.id
            if asks:
                if state.stable is not None:
                    # A label that lags would keep its version from being unloaded.
                    with contextlib.suppress(ServingError):
                        self._announces()
                self._target.load(self._wanted(state))
                self._asked = state.id
            found = self._target.states().get(state.candidate)
            if found is None or found.state is LoadState.UNKNOWN:
                self._asked = ""  # it has forgotten, as after a start
            elif asks and found.state is LoadState.END:
                found = None  # that was an earlier load of it
        except ServingError as error:
            trouble = str(error)
        if found is not None and found.state is LoadState.AVAILABLE:
            if state.held:
                return self._notes(state, "", "")
            with self._moving(state) as transaction:
                state = moves.loaded(transaction, state)
            with contextlib.suppress(ServingError):
                self._announces()  # else the next look does
            return state
        reason = ""
        if found is not None and found.state is LoadState.END:
            reason = f"It could not be loaded: {found.error or 'it was unloaded'}"
        elif waited >= self._load_seconds:
            reason = f"It was not loaded in {self._load_seconds:g} seconds. {trouble}"
        if reason:
            # A server that does not answer says nothing of the candidate.
            return self._turns_back(
                state, reason.strip(), blames=not trouble, fails=True
            )
        return self._notes(
            dataclasses.replace(
                state, waiting_seconds=waited, seconds=state.seconds + watched
            ),
            trouble,
            "model server" if trouble else "",
        )

    def _wanted(self, state: State) -> tuple[int, ...]:
        """Return the versions that are to be loaded, in rising order."""
        routing = routing_of(self.ledger)
        wanted = {routing.stable}
        if state.phase is not Phase.ROLLING_BACK:
            wanted.add(state.candidate)
        if self._is_kept(state) and self._is_there(routing.previous):
            wanted.add(routing.previous)
        return tuple(sorted(each for each in wanted if each is not None))

    def _is_kept(self, state: State) -> bool:
        """Return whether the version before stable is still to be kept loaded."""
        promotions = self.ledger.events(state.stable, kinds=("promoted",))
        if not promotions:
            return False
        (started,) = self.ledger.events(
            rollout=promotions[-1].rollout, kinds=("rollout started",)
        )
        plan = Rollout.from_json(json.dumps(started.data["plan"]))
        return time.time() - promotions[-1].at < plan.keep_stable_seconds

    def _is_there(self, version: int | None) -> bool:
        """Return whether a version may be served, going by the ledger and the disk."""
        if version is None:
            return False
        try:
            usable(self.ledger, version, reads_bytes=False)
        except ServingError:
            return False
        return True

    # --- watching

    def _announces(self) -> None:
        """Tell callers that come through no router, if that is new."""
        routing = routing_of(self.ledger)
        canary = routing.candidate if routing.weight > 0 else None
        if self._announced != (routing.stable, canary):
            self._target.announce(routing.stable, canary)
            self._announced = (routing.stable, canary)

    def _watches(self, state: State, elapsed: float) -> State:
        steps: Mapping[int, StepTraffic] = {}
        routers: tuple[Heard, ...] = ()
        trouble, kind = self._trouble(state), "model server"
        try:
            steps = self._traffic.steps(state.id)
            routers = self._live(state)
        except ServingError as error:
            trouble, kind = trouble or str(error), "traffic"
        for each in routers:
            # A router that died in the rollout before is still heard of for a while.
            if each.alarm.startswith(BREAKER) and each.acknowledged >= self._began(
                state
            ):
                said = each.alarm.removeprefix(BREAKER)
                return self._turns_back(state, said, blames=True)
        for each in routers:
            if each.alarm.startswith(MISSING) and not trouble:
                trouble, kind = each.alarm.removeprefix(MISSING), "router"
        seq = routing_of(self.ledger).seq
        fresh = bool(routers) and all(each.acknowledged >= seq for each in routers)
        state = dataclasses.replace(
            state,
            step_seconds=state.step_seconds
            + (elapsed if fresh and not trouble else 0.0),
            seconds=state.seconds + elapsed,
        )
        if state.phase is Phase.SHADOW:
            return self._shadows(state, steps, trouble, kind)
        found = [
            evidence(state, index, steps.get(index), fresh=fresh)
            for index in range(state.step + 1)
        ]
        decision = self.decision = decide(state.plan, found, state.seconds)
        if decision.action == "roll back":
            blames = any(each.state == "failed" for each in decision.guards)
            return self._turns_back(state, " ".join(decision.reasons), blames=blames)
        if trouble:
            return self._notes(state, trouble, kind)
        if decision.action == "promote" and not state.held:
            with self._moving(state) as transaction:
                state = moves.promoted(transaction, state, *decision.reasons)
            with contextlib.suppress(ServingError):
                self._announces()  # else the next rollout does
            return state
        slow = self._slow_seconds(state, steps)
        if decision.action == "advance" and not state.held:
            with self._moving(state) as transaction:
                return moves.next_step(transaction, state, decision.reasons, slow)
        if slow is not None and routing_of(self.ledger).slow_seconds is None:
            with self._moving(state) as transaction:
                return moves.knows_slow(transaction, state, slow)
        return self._notes(state, *_objections(state, decision, found))

    def _notes(self, state: State, holding: str, kind: str) -> State:
        with self._moving(state) as transaction:
            return moves.noted(transaction, state, holding=holding, holding_kind=kind)

    def _trouble(self, state: State) -> str:
        """Return why nothing may go on just now; empty if all routed versions answer.

        A server that lost a version, or was started anew, is told again what to load.
        """
        try:
            found = self._target.states()
            lost = [
                version
                for version in (state.candidate, routing_of(self.ledger).stable)
                if version is not None
                and (
                    version not in found
                    or found[version].state is not LoadState.AVAILABLE
                )
            ]
            if lost:
                self._target.load(self._wanted(state))
                listed = " and ".join(map(str, lost))
                return (
                    f"The model server has not loaded version {listed}, which "
                    "requests go to; it was told to."
                )
            self._announces()
        except ServingError as error:
            return str(error)
        return ""

    def _began(self, state: State) -> int:
        """Return the number of the event with which the rollout started."""
        (started,) = self.ledger.events(rollout=state.id, kinds=("rollout started",))
        return started.seq

    def _live(self, state: State) -> tuple[Heard, ...]:
        """Return the routers that were heard of lately."""
        stale = state.plan.stale_after_seconds
        return tuple(
            each for each in self._traffic.routers() if each.seconds_ago <= stale
        )

    def _shadows(
        self, state: State, steps: Mapping[int, StepTraffic], trouble: str, kind: str
    ) -> State:
        plan = state.plan
        if state.seconds >= plan.deadline_seconds and plan.on_deadline == "rollback":
            return self._turns_back(
                state, "The deadline passed before the first step.", blames=False
            )
        if trouble:
            return self._notes(state, trouble, kind)
        if state.held or state.step_seconds < state.plan.shadow_seconds:
            return self._notes(state, "", "")
        seen = steps.get(-1)
        tally = seen.tallies.get("candidate", Tally()) if seen else Tally()
        if not tally.requests:
            return self._notes(
                state, "No copy of a request has reached it.", "no traffic"
            )
        if tally.failures == tally.requests < MIN_COPIES:
            return self._notes(
                state,
                f"It failed {tally.requests} of {tally.requests} copies of requests; "
                f"after {MIN_COPIES} it is taken for dead.",
                "no traffic",
            )
        if tally.failures == tally.requests:
            return self._turns_back(
                state,
                f"It failed all of {tally.requests:,} copies of requests.",
                blames=True,
            )
        answered = tally.requests - tally.failures
        with self._moving(state) as transaction:
            return moves.next_step(
                transaction,
                state,
                (f"It answered {answered:,} of {tally.requests:,} copied requests.",),
                self._slow_seconds(state, steps),
            )

    def _slow_seconds(
        self, state: State, steps: Mapping[int, StepTraffic]
    ) -> float | None:
        """Return the quantile of stable's latency so far that the plan names."""
        quantiles = [
            each.quantile for each in state.plan.guards if each.kind == "latency"
        ]
        if not quantiles:
            return None
        counts = merged(
            *(
                step.tallies["stable"].sketch
                for step in steps.values()
                if "stable" in step.tallies
            )
        )
        if sum(counts.values()) < MIN_LATENCIES:
            return None
        return quantile(counts, quantiles[0])

    # --- rolling back

    def _turns_back(
        self, state: State, reason: str, *, blames: bool, fails: bool = False
    ) -> State:
        """Go back to stable, or else to the version before, whichever answers."""
        routing = routing_of(self.ledger)
        to, back = routing.stable, self._answers()
        # A candidate that had no unit leaves stable as it is, loaded or not.
        if state.phase is Phase.STEP and back is not None and to not in back:
            if routing.previous in back and self._is_there(routing.previous):
                to = routing.previous
            elif state.candidate in back:
                return self._notes(
                    state,
                    f"It should roll back, but the model server has not loaded "
                    f"version {to}, so that nothing would answer. {reason}",
                    "nothing to go back to",
                )
        with self._moving(state) as transaction:
            return moves.rolls_back(
                transaction, state, reason, blames=blames, fails=fails, to=to
            )

    def _answers(self) -> frozenset[int | None] | None:
        """Return the versions that are loaded; None if the server does not say."""
        try:
            found = self._target.states()
        except ServingError:
            return None
        return frozenset(
            version
            for version, each in found.items()
            if each.state is LoadState.AVAILABLE
        )

    def _rolls_back(self, state: State, elapsed: float) -> State:
        waited = state.waiting_seconds + elapsed
        try:
            trouble = self._settled(state)
            if not trouble:
                self._announces()
                self._target.load(self._wanted(state))
                if state.blames:
                    self._quarantine(state.candidate, state.reason)
        except ServingError as error:
            trouble = str(error)
        if trouble and waited < self._settle_seconds:
            with self._moving(state) as transaction:
                return moves.noted(transaction, state, waiting_seconds=waited)
        # What is loaded and not routed does no harm, and the next rollout says what
        # is to be loaded.
        with self._moving(state) as transaction:
            return moves.rolled_back(transaction, state, trouble)

    def _settled(self, state: State) -> str:
        """Return which routers have not said that they follow; empty if all have."""
        seq = routing_of(self.ledger).seq
        late = [each.router for each in self._live(state) if each.acknowledged < seq]
        return f"These routers did not follow: {', '.join(late)}." if late else ""


def observed(serving_dir: Path | str, state: State) -> list[StepEvidence]:
    """Return the evidence so far of a rollout that somebody else controls.

    Raises:
        ServingError: If what routers saw cannot be read.
    """
    with Traffic(serving_dir) as traffic:
        steps = traffic.steps(state.id)
    return [
        evidence(state, index, steps.get(index), fresh=True)
        for index in range(state.step + 1)
    ]


def _objections(
    state: State, decision: Decision, found: list[StepEvidence]
) -> tuple[str, str]:
    """Return why a step may not end when its time is over, in full and in a word."""
    if not found[-1].fresh:
        return " ".join(decision.reasons), "no fresh reports"
    if state.seconds >= state.plan.deadline_seconds:
        return " ".join(decision.reasons), "deadline"
    missing = unreported(state.plan, found)
    if missing:
        return missing, "unreported metric"
    objecting = [each for each in decision.guards if each.state in ("failed", "watch")]
    return (
        " ".join(each.sentence for each in objecting),
        ", ".join(f"{each.name} {each.state}" for each in objecting),
    )


def evidence(
    state: State, index: int, seen: StepTraffic | None, *, fresh: bool
) -> StepEvidence:
    """Return what was seen in a step, as `decide` takes it.

    Args:
        state: The rollout.
        index: The step, counted from 0.
        seen: What routers saw in it; None if nothing.
        fresh: Whether all routers that are heard of obey the step's routing.
    """
    seen = seen or StepTraffic({}, {}, {})

    def pair(mark: Mark) -> Pair:
        return Pair(
            seen.counts.get((mark, "stable"), 0),
            seen.counts.get((mark, "candidate"), 0),
        )

    units = pair("seen")
    metrics = {metric for metric, _ in seen.values}

    def moments(metric: str) -> tuple[Moments, Moments]:
        found = []
        arms: tuple[tuple[Arm, int], ...] = (
            ("stable", units.stable),
            ("candidate", units.candidate),
        )
        for arm, n in arms:
            sums = seen.values.get((metric, arm))
            found.append(
                Moments(n, sums.events, sums.total, sums.squares)
                if sums
                else Moments(n)
            )
        return found[0], found[1]

    is_current = index == state.step
    candidate = seen.tallies.get("candidate", Tally())
    return StepEvidence(
        weight=state.plan.steps[index].fraction,
        seconds=state.step_seconds if is_current else state.plan.steps[index].seconds,
        units=units,
        failing=pair("failing"),
        slow=pair("slow"),
        values={metric: moments(metric) for metric in metrics},
        fresh=fresh if is_current else True,
        seen=max(candidate.units, units.candidate),
    )
