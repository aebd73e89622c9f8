"""What became of a request, as its path leaves it for others to count."""

from __future__ import annotations

from typing import Literal, NamedTuple

from penstock.components.serving.router.lanes import Origin
from penstock.components.serving.routing import Routing
from penstock.components.serving.traffic import Arm

Outcome = Literal["ok", "client_error", "fell_back", "failed"]


class Note(NamedTuple):
    """One request that ended.

    Attributes:
        routing: The routing under which it was sent.
        counts: Whether the unit was assigned as that routing says, so that it is
            evidence; not so for a request without a unit, for one that named its
            version, and while an alarm sends everybody to stable.
        arm: Which arm was asked.
        version: Which version was asked.
        unit: Id of its unit, if it has one.
        outcome: What came of it: the arm answered; the caller was to blame; stable
            answered in place of the candidate; or nobody did.
        seconds: How long the arm took.
        late: Whether that was longer than the candidate may take before stable is
            asked. For both arms it then counts as failed, because a limit for one arm
            only would be a difference between them.
        code: Name of the gRPC code of an error; empty without one.
        origin: Who is to blame for the error.
    """

    routing: Routing
    counts: bool
    arm: Arm
    version: int
    unit: str | None
    outcome: Outcome
    seconds: float
    late: bool = False
    code: str = ""
    origin: Origin = "server"
