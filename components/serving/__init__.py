"""Serving: a blessed model becomes a numbered version, then the one that answers."""

from penstock.components.serving.infra_validator import InfraValidator
from penstock.components.serving.parity import Parity
from penstock.components.serving.pusher import Pusher
from penstock.components.serving.rollout.plan import Guard, Rollout, Step

__all__ = ["Guard", "InfraValidator", "Parity", "Pusher", "Rollout", "Step"]
