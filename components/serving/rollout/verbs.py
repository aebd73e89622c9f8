"""What people do to rollouts: start, hold, resume, abort, promote, roll back.

Each is one transaction, which needs no controller to be running; the controller, if
there is one, sees it at its next look. All of it works without a model server, but for
what has to be loaded first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from penstock.components.serving.ledger import Ledger, Transaction
from penstock.components.serving.rollout import state as moves
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.rollout.servers import server_of
from penstock.components.serving.rollout.state import Phase, State, state_of
from penstock.components.serving.routing import Routing, routing_of
from penstock.components.serving.security import check_address
from penstock.components.serving.shelf import usable
from penstock.components.serving.standing import standing_of
from penstock.schemas.errors import ServingError

SERVER = "server"
"""The fact that says which model server the versions are loaded in."""


def start(
    ledger: Ledger,
    version: int,
    plan: Rollout,
    *,
    server: Mapping[str, Any],
    unblessed: str = "",
) -> State:
    """Start the rollout of a version.

    Args:
        ledger: Of the serving directory.
        version: The candidate.
        plan: The plan, which is fixed from now on.
        server: What is known of the model server, as JSON data without secrets.
        unblessed: Why a version without a blessing is rolled out all the same.

    Returns:
        What it has come to: the candidate is to be loaded.

    Raises:
        ServingError: If the version is absent, damaged, set aside, unblessed or
            stable, or another rollout is not over.
    """
    check_candidate(ledger, version, unblessed=unblessed)
    with ledger.writing() as transaction:
        # What was done to it while its bytes were read counts as well.
        blessing = check_candidate(
            ledger, version, unblessed=unblessed, reads_bytes=False
        )
        transaction.hold(SERVER, dict(server))
        return moves.begin(
            transaction, plan, version, blessing=blessing, unblessed=unblessed
        )


def check_candidate(
    ledger: Ledger, version: int, *, unblessed: str = "", reads_bytes: bool = True
) -> str:
    """Check that a version may be rolled out; return its blessing, if it has one.

    Args:
        ledger: Of the serving directory.
        version: The version.
        unblessed: Why a version without a blessing is rolled out all the same.
        reads_bytes: Whether all its bytes are compared with its manifest.

    Raises:
        ServingError: If it may not.
    """
    entry = usable(ledger, version, reads_bytes=reads_bytes)
    where = f"Version {version} of '{ledger.directory}'"
    for event in reversed(ledger.events(version)):
        if event.kind == "released":
            break
        if event.kind in ("rolled back", "failed") and event.data["blames"]:
            raise ServingError(
                f"{where} was turned down by an earlier rollout: "
                f"{event.data['reason']} Release it with: penstock quarantine "
                f"{ledger.directory} {version} --release --reason TEXT, or push "
                "another model."
            )
    blessing = entry.standing.blessing or ""
    if not blessing and not unblessed.strip():
        raise ServingError(
            f"{where} was pushed without a blessing, so that nobody has said it is "
            "good. Wire Evaluator's blessing into Pusher, or say why it is rolled out "
            "all the same: --unblessed REASON."
        )
    return blessing


def hold(ledger: Ledger, reason: str) -> State:
    """Keep the rollout at its step; its guards go on watching.

    Raises:
        ServingError: If there is none, it is over, or held already.
    """
    with ledger.writing() as transaction:
        return moves.held(transaction, _running(transaction, "held"), reason)


def resume(ledger: Ledger) -> State:
    """Let the rollout go on that somebody holds.

    Raises:
        ServingError: If there is none, or it is over.
    """
    with ledger.writing() as transaction:
        state = _running(transaction, "resumed")
        return moves.released(transaction, state) if state.held else state


def move_server(ledger: Ledger, address: str) -> None:
    """Say where the model server is from now on.

    Raises:
        ServingError: If no model server was named before, or the address is none.
    """
    server = dataclasses.replace(server_of(ledger), address=address)
    check_address(address)
    with ledger.writing() as transaction:
        transaction.event("server", address=address)
        transaction.hold(SERVER, server.to_json())


def abort(ledger: Ledger, reason: str) -> State:
    """Send everybody to stable, and end the rollout.

    Raises:
        ServingError: If there is none, or it is over.
    """
    with ledger.writing() as transaction:
        state = _running(transaction, "aborted", any_plan=True)
        if state.phase is Phase.ROLLING_BACK:
            return state
        return moves.rolls_back(transaction, state, reason, blames=False)


def promote(
    ledger: Ledger, reason: str, *, loaded: Collection[int] | None = None
) -> State:
    """Make the candidate stable now, whatever steps are left.

    Args:
        ledger: Of the serving directory.
        reason: Why.
        loaded: The versions that the server has loaded; None if it does not say.

    Raises:
        ServingError: If there is no rollout, it is over, or the candidate has not
            answered anybody yet, or is not loaded.
    """
    with ledger.writing() as transaction:
        state = _running(transaction, "promoted")
        if state.phase is not Phase.STEP:
            raise ServingError(
                f"Version {state.candidate} cannot be promoted while its rollout is "
                f"{state.phase.value}: nobody has been answered by it. Wait for its "
                "first step."
            )
        if loaded is not None and state.candidate not in loaded:
            raise ServingError(
                f"Version {state.candidate} cannot be promoted: the model server has "
                f"not loaded it (it has {', '.join(map(str, sorted(loaded))) or 'none'}"
                "). Wait until it has, or abort the rollout."
            )
        return moves.promoted(transaction, state, reason)


def roll_back(
    ledger: Ledger, reason: str, *, loaded: Collection[int] | None = None
) -> Routing:
    """Send everybody to the last good version, at once.

    While a rollout runs, that is stable; afterwards, the version that was stable
    before.

    Args:
        ledger: Of the serving directory.
        reason: Why.
        loaded: The versions that the server has loaded; None if it does not say.

    Returns:
        Where requests go from now on.

    Raises:
        ServingError: If there is no version to go back to, it is not loaded, or it was
            set aside since.
    """
    with ledger.writing() as transaction:
        state = state_of(transaction, any_plan=True)
        if state is not None and not state.phase.is_over:
            if state.phase is not Phase.ROLLING_BACK:
                moves.rolls_back(transaction, state, reason, blames=False)
            return routing_of(transaction)
        previous = routing_of(transaction).previous
        if loaded is not None and previous is not None and previous not in loaded:
            raise ServingError(
                f"Version {previous} was stable before, but the model server has not "
                f"loaded it (it has {', '.join(map(str, sorted(loaded))) or 'none'}), "
                "and a rollback waits for no load. Roll it out: penstock rollout "
                f"start {ledger.directory} {previous}."
            )
        if previous is not None:
            check_not_set_aside(ledger, previous)
        return moves.went_back(transaction, reason)


def check_not_set_aside(ledger: Ledger, version: int) -> None:
    """Check that nobody quarantined or deleted a version that requests may go back to.

    Its files are not looked at: what is loaded answers without them.

    Raises:
        ServingError: If somebody did.
    """
    standing = standing_of(ledger, version)
    why = standing.quarantined or standing.deleted
    if why is not None:
        what = "deleted" if standing.quarantined is None else "quarantined"
        raise ServingError(
            f"Version {version} was stable before, but was {what} since: "
            f"{why.rstrip('.')}. Push a version that works, and roll it out."
        )


def _running(transaction: Transaction, what: str, *, any_plan: bool = False) -> State:
    state = state_of(transaction, any_plan=any_plan)
    if state is None or state.phase.is_over:
        last = (
            f" The last one, of version {state.candidate}, is {state.phase.value}."
            if state
            else ""
        )
        raise ServingError(
            f"There is no rollout that could be {what}.{last} Start one with: penstock "
            "rollout start DIR VERSION."
        )
    return state
