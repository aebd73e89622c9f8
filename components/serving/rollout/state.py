"""What a rollout has come to, as the ledger keeps it, and every move it can make.

A move adds an event, changes the state and, where requests are to go elsewhere, the
routing, all in one transaction. Nothing else changes any of them, so that a process
that is killed anywhere leaves a state that some move led to.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any

from penstock.components.serving.ledger import Conflict, Ledger, Transaction
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.routing import Routing, route, routing_of
from penstock.schemas.errors import ServingError

FACT = "rollout"


class Phase(str, Enum):
    """How far a rollout is."""

    LOADING = "loading"
    """The candidate is being loaded; no request reaches it."""
    SHADOW = "shadow"
    """It sees copies of requests; nobody gets its answers."""
    STEP = "step"
    """It answers the units of a step."""
    ROLLING_BACK = "rolling back"
    """The routing has left it; routers and the server are to follow."""
    PROMOTED = "promoted"
    """It is stable."""
    ROLLED_BACK = "rolled back"
    """No request reaches it any more."""
    FAILED = "failed"
    """It could not be loaded; no request ever reached it."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.FAILED)


@dataclass(frozen=True)
class State:
    """What a rollout has come to.

    Attributes:
        id: Its id.
        plan: The plan, fixed when it started.
        plan_digest: Digest of the plan's JSON, taken when it started.
        candidate: The version that is rolled out.
        stable: The version that was stable when it started; None for the first.
        phase: How far it is.
        step: Its step, counted from 0; -1 before the first.
        step_seconds: For how long this step was watched with fresh reports.
        seconds: For how long the rollout was controlled in all.
        waiting_seconds: For how long the phase has waited for the server or routers.
        held: Why somebody holds it; empty if nobody does.
        holding: Why it does not go on by itself just now; empty if it does.
        holding_kind: The same in a word or two, without values that change.
        reason: Why it ended as it did, or rolls back.
        blames: Whether the evidence, and no person, turned it down.
        ends: What rolling back ends in.
        revision: How often it changed.
    """

    id: str
    plan: Rollout
    plan_digest: str
    candidate: int
    stable: int | None
    phase: Phase = Phase.LOADING
    step: int = -1
    step_seconds: float = 0.0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    held: str = ""
    holding: str = ""
    holding_kind: str = ""
    reason: str = ""
    blames: bool = False
    ends: Phase = Phase.ROLLED_BACK
    revision: int = 0

    @property
    def weight(self) -> float:
        """Share of units that the candidate is to answer, from 0 to 1."""
        if self.phase is Phase.PROMOTED:
            return 1.0
        if self.phase is not Phase.STEP:
            return 0.0
        return self.plan.steps[self.step].fraction

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        fields = {
            each.name: getattr(self, each.name) for each in dataclasses.fields(self)
        }
        plan = json.loads(self.plan.to_json())
        return {
            **fields,
            "plan": plan,
            "phase": self.phase.value,
            "ends": self.ends.value,
        }


def state_of(ledger: Ledger | Transaction, *, any_plan: bool = False) -> State | None:
    """Return what the last rollout has come to; None before the first.

    Args:
        ledger: Of the serving directory.
        any_plan: Whether a plan that was changed since will do: who takes a candidate
            back, or starts another rollout, draws no conclusion from it.

    Raises:
        ServingError: If it is not what this penstock writes, or its plan is not the
            one that it started with.
    """
    held = ledger.fact(FACT)
    if held is None:
        return None
    try:
        state = State(
            **{
                **held,
                "plan": Rollout.from_json(json.dumps(held["plan"])),
                "phase": Phase(held["phase"]),
                "ends": Phase(held["ends"]),
            }
        )
    except (TypeError, KeyError, ValueError) as error:
        raise ServingError(
            f"The ledger's rollout is not what this penstock writes ({error}). "
            "Install the penstock that wrote it, or a newer one."
        ) from error
    is_tested = not state.phase.is_over and state.phase is not Phase.ROLLING_BACK
    if is_tested and not any_plan and state.plan.digest != state.plan_digest:
        raise ServingError(
            f"The plan of rollout '{state.id}' has the digest '{state.plan.digest}' "
            f"where it started with '{state.plan_digest}': it was changed since, so "
            "that its verdict would not have the error rate it was given. Abort it, "
            "and start another one with the new plan."
        )
    return state


# --- moves


def begin(
    transaction: Transaction,
    plan: Rollout,
    candidate: int,
    *,
    blessing: str = "",
    unblessed: str = "",
) -> State:
    """Start a rollout: the candidate is to be loaded.

    Args:
        transaction: What it is part of.
        plan: The plan.
        candidate: The version.
        blessing: What says that it is good.
        unblessed: Why it is rolled out without that.

    Raises:
        ServingError: If another one is not over, or the version is stable.
    """
    last = state_of(transaction, any_plan=True)
    routing = routing_of(transaction)
    if last is not None and last.phase is Phase.ROLLING_BACK:
        raise ServingError(
            f"Version {candidate} cannot be rolled out while rollout '{last.id}' of "
            f"version {last.candidate} is rolling back. Wait for its controller, or "
            "if none runs: penstock rollout resume DIR."
        )
    if last is not None and not last.phase.is_over:
        raise ServingError(
            f"Version {candidate} cannot be rolled out while version "
            f"{last.candidate} is: rollout '{last.id}' is {_where(last)}. Wait for "
            "it, resume it if nobody controls it, or abort it."
        )
    if routing.stable == candidate:
        raise ServingError(
            f"Version {candidate} is stable already. Roll out another version."
        )
    state = State(
        id=uuid.uuid4().hex[:12],
        plan=plan,
        plan_digest=plan.digest,
        candidate=candidate,
        stable=routing.stable,
    )
    return _record(
        transaction,
        state,
        transaction.event(
            "rollout started",
            candidate,
            rollout=state.id,
            stable=routing.stable,
            plan=json.loads(plan.to_json()),
            plan_digest=plan.digest,
            blessing=blessing,
            unblessed=unblessed,
        ),
        Routing(stable=routing.stable, previous=routing.previous),
    )


def loaded(transaction: Transaction, state: State) -> State:
    """The candidate is loaded: it becomes stable if nothing is, and is tried else."""
    _expect(state, Phase.LOADING)
    transaction.event("loaded", state.candidate, rollout=state.id)
    if state.stable is None:
        return promoted(transaction, state, "There was no stable version before.")
    if state.plan.shadow_seconds > 0:
        return _moved(
            transaction,
            state,
            transaction.event("shadow", state.candidate, rollout=state.id),
            phase=Phase.SHADOW,
            waiting_seconds=0.0,
        )
    return next_step(transaction, state, ())


def next_step(
    transaction: Transaction,
    state: State,
    reasons: tuple[str, ...],
    slow_seconds: float | None = None,
) -> State:
    """Give the candidate the weight of the next step.

    Args:
        transaction: What it is part of.
        state: The state before.
        reasons: Why the step before is done.
        slow_seconds: From what time on an answer of stable is slow, if known.
    """
    _expect(state, Phase.LOADING, Phase.SHADOW, Phase.STEP)
    state = dataclasses.replace(
        state,
        phase=Phase.STEP,
        step=state.step + 1,
        step_seconds=0.0,
        holding="",
        holding_kind="",
    )
    event = transaction.event(
        "step",
        state.candidate,
        rollout=state.id,
        step=state.step,
        weight=state.weight,
        reasons=list(reasons),
    )
    return _moved(transaction, state, event, slow_seconds=slow_seconds)


def knows_slow(transaction: Transaction, state: State, slow_seconds: float) -> State:
    """It is known from now on what a slow answer is."""
    _expect(state, Phase.STEP)
    event = transaction.event(
        "slow", state.candidate, rollout=state.id, seconds=slow_seconds
    )
    return _moved(transaction, state, event, slow_seconds=slow_seconds)


def promoted(transaction: Transaction, state: State, *reasons: str) -> State:
    """The candidate is stable from now on."""
    _expect(state, Phase.LOADING, Phase.SHADOW, Phase.STEP)
    routing = routing_of(transaction)
    state = dataclasses.replace(
        state,
        phase=Phase.PROMOTED,
        holding="",
        holding_kind="",
        reason=" ".join(reasons),
    )
    event = transaction.event(
        "promoted",
        state.candidate,
        rollout=state.id,
        previous=routing.stable,
        reasons=list(reasons),
    )
    return _record(
        transaction,
        state,
        event,
        Routing(stable=state.candidate, previous=routing.stable),
    )


def rolls_back(
    transaction: Transaction,
    state: State,
    reason: str,
    *,
    blames: bool,
    fails: bool = False,
    to: int | None = None,
) -> State:
    """No unit is the candidate's any more, from the end of the transaction on.

    Args:
        transaction: What it is part of.
        state: The state before.
        reason: Why.
        blames: Whether the evidence, and no person, turned the candidate down.
        fails: Whether it could not be loaded, and so never had a unit.
        to: The version to go back to; stable unless given.
    """
    _expect(state, Phase.LOADING, Phase.SHADOW, Phase.STEP)
    routing = routing_of(transaction)
    to = routing.stable if to is None else to
    state = dataclasses.replace(
        state,
        phase=Phase.ROLLING_BACK,
        reason=reason,
        blames=blames,
        ends=Phase.FAILED if fails else Phase.ROLLED_BACK,
        holding="",
        holding_kind="",
        waiting_seconds=0.0,
    )
    event = transaction.event(
        "rolls back",
        state.candidate,
        rollout=state.id,
        to=to,
        reason=reason,
        is_fault=blames or not fails,
    )
    previous = routing.previous if routing.previous != to else None
    return _record(transaction, state, event, Routing(stable=to, previous=previous))


def rolled_back(transaction: Transaction, state: State, remark: str = "") -> State:
    """Routers and the server have followed, as far as they are heard of.

    Args:
        transaction: What it is part of.
        state: The state before.
        remark: What did not go as it should.
    """
    _expect(state, Phase.ROLLING_BACK)
    event = transaction.event(
        state.ends.value,
        state.candidate,
        rollout=state.id,
        reason=state.reason,
        blames=state.blames,
        is_fault=state.blames or state.ends is not Phase.FAILED,
        remark=remark,
    )
    state = dataclasses.replace(state, phase=state.ends, waiting_seconds=0.0)
    return _record(transaction, state, event, None)


def went_back(transaction: Transaction, reason: str) -> Routing:
    """Make the version before stable again, after its rollout was complete.

    Raises:
        ServingError: If a rollout is not over, or there is no version before.
    """
    last = state_of(transaction, any_plan=True)
    routing = routing_of(transaction)
    if last is not None and not last.phase.is_over:
        raise Conflict(f"Rollout '{last.id}' is not over. Abort it.")
    if routing.previous is None or routing.stable is None:
        stable = "none is" if routing.stable is None else f"version {routing.stable} is"
        raise ServingError(
            f"There is no version to go back to: {stable} stable, and none was before "
            "it. Push a version that works, and roll it out."
        )
    event = transaction.event(
        "rolled back",
        routing.stable,
        rollout=last.id if last else None,
        to=routing.previous,
        reason=reason,
        blames=False,
        remark="",
    )
    return route(transaction, Routing(stable=routing.previous), event)


def held(transaction: Transaction, state: State, reason: str) -> State:
    """Somebody wants it to stay where it is; guards go on watching.

    Raises:
        ServingError: If it is over, or rolls back.
    """
    _expect_running(state, "held")
    if state.held:
        raise ServingError(
            f"Rollout '{state.id}' is held already: {state.held.rstrip('.')}. Resume "
            "it first, to hold it for another reason."
        )
    event = transaction.event("held", state.candidate, rollout=state.id, reason=reason)
    return _record(transaction, dataclasses.replace(state, held=reason), event, None)


def released(transaction: Transaction, state: State) -> State:
    """Somebody lets it go on.

    Raises:
        ServingError: If it is over, or rolls back.
    """
    _expect_running(state, "resumed")
    event = transaction.event("goes on", state.candidate, rollout=state.id)
    return _record(transaction, dataclasses.replace(state, held=""), event, None)


def noted(transaction: Transaction, state: State, **changes: Any) -> State:
    """Keep how long it has been watched, and why it does not go on.

    An event says so whenever it is for another kind of reason.
    """
    before = state.holding_kind
    state = dataclasses.replace(state, **changes)
    if state.holding_kind != before:
        kind = "holds" if state.holding_kind else "watches"
        transaction.event(kind, state.candidate, rollout=state.id, reason=state.holding)
    return _record(transaction, state, 0, None)


def unchanged(transaction: Transaction, state: State) -> None:
    """Check that nobody changed the rollout since it was read.

    Raises:
        Conflict: If somebody did.
    """
    now = state_of(transaction)
    if now is None or (now.id, now.revision) != (state.id, state.revision):
        raise Conflict(
            f"Rollout '{state.id}' was changed by somebody else just now. Read it "
            "again."
        )


def _moved(
    transaction: Transaction,
    state: State,
    event: int,
    *,
    slow_seconds: float | None = None,
    **changes: Any,
) -> State:
    """Keep a state in which the candidate may be asked, and route accordingly."""
    state = dataclasses.replace(state, **changes)
    routing = routing_of(transaction)
    ratios = [each.max_ratio for each in state.plan.guards if each.kind == "latency"]
    return _record(
        transaction,
        state,
        event,
        dataclasses.replace(
            routing,
            candidate=state.candidate,
            weight=state.weight,
            shadow=state.phase is Phase.SHADOW,
            salt=state.plan.salt_for(state.candidate),
            rollout=state.id,
            step=state.step,
            slow_seconds=(
                routing.slow_seconds if slow_seconds is None else slow_seconds
            ),
            slow_ratio=ratios[0] if ratios else 1.0,
            dead_man_seconds=state.plan.dead_man_seconds,
        ),
    )


def _record(
    transaction: Transaction, state: State, event: int, routing: Routing | None
) -> State:
    state = dataclasses.replace(state, revision=state.revision + 1)
    transaction.hold(FACT, state.to_json())
    if routing is not None:
        route(transaction, routing, event)
    return state


def _expect(state: State, *phases: Phase) -> None:
    if state.phase not in phases:
        raise Conflict(
            f"Rollout '{state.id}' is {_where(state)}, which allows no such move. Read "
            "it again."
        )


def _expect_running(state: State, what: str) -> None:
    if state.phase.is_over or state.phase is Phase.ROLLING_BACK:
        raise ServingError(
            f"Rollout '{state.id}' of version {state.candidate} cannot be {what}: it "
            f"is {_where(state)}. Start another one."
        )


def _where(state: State) -> str:
    if state.phase is Phase.STEP:
        return f"at {state.plan.steps[state.step].weight:g} %"
    return str(state.phase.value)
