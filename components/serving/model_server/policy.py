"""Which version to load or to unload next, so that some version stays available."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where a version stands within the server."""

    NEW = "new"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    DISABLED = "disabled"
    ERROR = "error"


class Verb(Enum):
    """What can be done with a version."""

    # In this order: an unload goes before a load, whatever models they are of.
    UNLOAD = 0
    LOAD = 1


@dataclass(frozen=True)
class Snapshot:
    """What the policy knows of one version of a model.

    Attributes:
        version: Its number.
        phase: Where it stands.
        aspired: Whether the source wants it loaded.
    """

    version: int
    phase: Phase
    aspired: bool


@dataclass(frozen=True)
class Action:
    """Something to do with one version of the model."""

    verb: Verb
    version: int


def next_action(versions: Sequence[Snapshot]) -> Action | None:
    """Return what to do next with the versions of one model, if anything.

    A version that is not aspired is unloaded, the lowest first, if nothing is aspired
    at all, if an aspired one is ready, or if another one that is not aspired stays
    ready. Otherwise the highest new aspired version is loaded. So while a new version
    loads, or after it failed, the old one goes on serving. This is TensorFlow
    Serving's AvailabilityPreservingPolicy, the only one its server uses.
    """
    unwanted = [
        snapshot.version
        for snapshot in versions
        if snapshot.phase is Phase.READY and not snapshot.aspired
    ]
    wanted = [snapshot for snapshot in versions if snapshot.aspired]
    serving = any(snapshot.phase is Phase.READY for snapshot in wanted)
    if unwanted and (not wanted or serving or len(unwanted) > 1):
        return Action(Verb.UNLOAD, min(unwanted))
    new = [snapshot.version for snapshot in wanted if snapshot.phase is Phase.NEW]
    return Action(Verb.LOAD, max(new)) if new else None
