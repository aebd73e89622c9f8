"""Serving: a blessed model becomes a numbered version, then the one that answers.

What plans rollouts and routes requests is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.components.serving.infra_validator import InfraValidator
from penstock.components.serving.parity import Parity
from penstock.components.serving.pusher import Pusher

if TYPE_CHECKING:
    from penstock.components.serving.rollout.plan import Guard, Rollout, Step
    from penstock.components.serving.router.router import Router

__all__ = ["Guard", "InfraValidator", "Parity", "Pusher", "Rollout", "Router", "Step"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Router":
        from penstock.components.serving.router.router import Router

        return Router
    from penstock.components.serving.rollout import plan

    return getattr(plan, name)
