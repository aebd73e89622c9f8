"""Where requests go: what the ledger says, and every router obeys.

The routing is one fact of the ledger. Routers read it anew as soon as it changes; a
rollback is a change of this fact, and of nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from penstock.components.serving.ledger import Ledger, Transaction
from penstock.schemas.errors import ServingError

FACT = "routing"


@dataclass(frozen=True)
class Routing:
    """Which versions answer, and for whom.

    Attributes:
        seq: Number of the event that made it so; 0 before any.
        stable: The version that answers everybody else; None before the first.
        previous: The version that was stable before, to go back to.
        candidate: The version that is rolled out, if any.
        weight: Share of units that the candidate answers, from 0 to 1.
        shadow: Whether the candidate sees a copy of what stable answers.
        salt: What the assignment of units is salted with.
        rollout: Id of the rollout, if any.
        step: Its step, counted from 0; -1 before the first.
        slow_seconds: From what time on an answer of stable is slow; None while that
            is not known.
        slow_ratio: How many times as long an answer of the candidate may take.
        dead_man_seconds: After how many seconds without a controller routers send
            everybody to stable; infinity for never.
    """

    seq: int = 0
    stable: int | None = None
    previous: int | None = None
    candidate: int | None = None
    weight: float = 0.0
    shadow: bool = False
    salt: str = ""
    rollout: str | None = None
    step: int = -1
    slow_seconds: float | None = None
    slow_ratio: float = 1.0
    dead_man_seconds: float = math.inf

    @property
    def routed(self) -> tuple[int, ...]:
        """The versions that may be asked, each once, in rising order."""
        wanted = {self.stable, self.candidate if self.sees_candidate else None}
        return tuple(sorted(each for each in wanted if each is not None))

    @property
    def sees_candidate(self) -> bool:
        """Whether any request may reach the candidate."""
        return self.candidate is not None and (self.weight > 0 or self.shadow)


def routing_of(ledger: Ledger | Transaction) -> Routing:
    """Return where requests go now.

    Raises:
        ServingError: If the ledger holds something else.
    """
    held = ledger.fact(FACT)
    if held is None:
        return Routing()
    try:
        dead_man = held.pop("dead_man_seconds")
        return Routing(
            **held, dead_man_seconds=math.inf if dead_man is None else dead_man
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ServingError(
            f"The ledger's routing is not what this penstock writes ({error}). "
            "Install the penstock that wrote it, or a newer one."
        ) from error


def route(transaction: Transaction, routing: Routing, event: int) -> Routing:
    """Let requests go elsewhere, as soon as the transaction ends.

    Args:
        transaction: What the event was added in.
        routing: Where they go from now on.
        event: Number of the event that says why.

    Returns:
        The routing with the number of the event.
    """
    if not 0 <= routing.weight <= 1:
        raise ValueError(f"weight {routing.weight} is no share")
    if routing.weight > 0 and routing.candidate is None:
        raise ValueError("there is no candidate to give a weight to")
    routing = dataclasses.replace(routing, seq=event)
    held: dict[str, Any] = dataclasses.asdict(routing)
    if math.isinf(routing.dead_man_seconds):
        held["dead_man_seconds"] = None
    transaction.hold(FACT, held)
    return routing
