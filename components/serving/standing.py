"""What holds of every version, told from what the ledger says was done to it.

Plain functions of events and facts; nothing here looks at the disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.components.serving.ledger import Event, Ledger
from penstock.components.serving.routing import Routing, routing_of

ROLLOUT = "rollout"
"""The fact that says what the last rollout has come to."""

PENDING = ("pushing", "quarantining", "releasing", "deleting")
"""Kinds of events that say what is about to be done, before it is done."""

KINDS = (
    *PENDING,
    *("pushed", "found", "missing", "withdrawn", "pinned", "unpinned"),
    *("quarantined", "released", "deleted"),
    *("rolls back", "rolled back", "failed", "promoted"),
)
"""Kinds of events that change how a version stands."""

LIFE = (
    *PENDING,
    *("pushed", "found", "missing", "withdrawn", "quarantined", "released", "deleted"),
)
"""Those that say whether and where a version lies."""

_OVER = ("promoted", "rolling back", "rolled back", "failed")
"""Phases of a rollout in which nothing reaches its candidate as such any more."""


@dataclass(frozen=True)
class Standing:
    """What holds of a version.

    Attributes:
        version: Its number.
        pushed_at: When it was pushed, in seconds since 1970; None for a version that
            another tool put there.
        digest: Content digest of what was pushed, likewise.
        model_uri: Folder of the Model artifact it was copied from, if recorded.
        run_id: Pipeline run that pushed it, if recorded.
        blessing: The ModelBlessing that let it through, if recorded.
        push: Id of the push, which its manifest has too.
        is_known: Whether the ledger knows that it appeared.
        pending: What is about to be done to it, or was by a process that was killed.
        pins: Why it is pinned, by the name of each pin.
        quarantined: Why it is quarantined; None if it is not. It counts from the
            moment that it was decided.
        rolled_back: Why its rollout was turned back or failed, since when it was
            neither promoted nor released; None if nothing of the kind happened.
        deleted: Why it was deleted, or is about to be; None if it is not.
        is_missing: Whether it was found to be gone though nobody deleted it here.
        is_stable: Whether it answers everybody that no candidate answers.
        is_previous: Whether it was stable before, to go back to.
        is_candidate: Whether it is rolled out just now.
        weight: Share of units that it answers, from 0 to 1.
        is_seen: Whether any request may reach it, be it a copy.
    """

    version: int
    pushed_at: float | None = None
    digest: str | None = None
    model_uri: str | None = None
    run_id: str | None = None
    blessing: str | None = None
    push: str | None = None
    is_known: bool = False
    pending: str | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    quarantined: str | None = None
    rolled_back: str | None = None
    deleted: str | None = None
    is_missing: bool = False
    is_stable: bool = False
    is_previous: bool = False
    is_candidate: bool = False
    weight: float = 0.0
    is_seen: bool = False

    @property
    def fault(self) -> str:
        """Why its model is none to be served, as a clause; empty if it is not so."""
        if self.quarantined is not None:
            return f"was quarantined: {self.quarantined}"
        if self.rolled_back is not None:
            return f"was rolled back: {self.rolled_back}"
        return ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What holds of it, as short clauses: what it does, and what was said of it."""
        share = f"{100 * self.weight:.4g} %"
        said = {
            f"stable, {share}": self.is_stable,
            f"candidate, {share}": self.is_candidate,
            "stable before": self.is_previous,
            f"deleted: {self.deleted}": self.deleted is not None,
            f"quarantined: {self.quarantined}": self.quarantined is not None,
            f"rolled back: {self.rolled_back}": (
                self.rolled_back not in (None, self.quarantined)
            ),
            **{f"pinned '{name}': {why}": True for name, why in self.pins.items()},
        }
        return tuple(clause.rstrip(".") for clause, holds in said.items() if holds)


def standings(ledger: Ledger) -> dict[int, Standing]:
    """Return how every version stands that the ledger speaks of, in rising order.

    Within `ledger.writing()` it is what holds in that transaction.

    Args:
        ledger: The ledger of the serving directory.
    """
    found = folded(ledger.events(kinds=KINDS))
    return routed(found, routing_of(ledger), ledger.fact(ROLLOUT))


def standing_of(ledger: Ledger, version: int) -> Standing:
    """Return how one version stands, whether or not the ledger speaks of it.

    Within `ledger.writing()` it is what holds in that transaction.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
    """
    found = folded(ledger.events(version, kinds=KINDS))
    found.setdefault(version, Standing(version))
    return routed(found, routing_of(ledger), ledger.fact(ROLLOUT))[version]


def folded(events: Iterable[Event]) -> dict[int, Standing]:
    """Return what events came to, by version, without where requests go.

    Args:
        events: In the order in which things were done.
    """
    found: dict[int, Standing] = {}
    for event in events:
        if event.version is not None:
            before = found.get(event.version, Standing(event.version))
            found[event.version] = after(before, event)
    return dict(sorted(found.items()))


def after(before: Standing, event: Event) -> Standing:
    """Return how a version stands after an event.

    Args:
        before: How it stood before.
        event: What was done to it.
    """
    kind, data = event.kind, event.data
    if kind in PENDING:
        changes: dict[str, Any] = {"pending": kind}
        if kind == "quarantining":
            changes["quarantined"] = str(data["reason"])
        elif kind == "deleting":
            changes["deleted"] = str(data["reason"])
        elif kind == "pushing":
            changes |= _origin(event)
        return dataclasses.replace(before, **changes)
    if kind in ("pushed", "found"):
        back = Standing(
            before.version,
            # A version that comes back keeps what people said of it.
            pins=before.pins,
            quarantined=before.quarantined,
            rolled_back=before.rolled_back,
            is_known=True,
        )
        return dataclasses.replace(back, **_origin(event))
    changes = {"pending": None}
    if kind == "withdrawn":
        pass
    elif kind == "missing":
        changes["is_missing"] = True
    elif kind == "pinned":
        pins = {**before.pins, str(data["name"]): str(data["reason"])}
        changes = {"pins": pins}
    elif kind == "unpinned":
        changes = {"pins": {k: v for k, v in before.pins.items() if k != data["name"]}}
    elif kind == "quarantined":
        changes["quarantined"] = str(data["reason"])
    elif kind == "released":
        changes |= {"quarantined": None, "rolled_back": None}
    elif kind == "deleted":
        changes |= {"deleted": str(data["reason"]), "pins": {}}
    elif kind in ("rolls back", "rolled back", "failed"):
        # A server that answered nobody says nothing of the model.
        is_fault = data.get("is_fault", True)
        changes = (
            {"rolled_back": str(data.get("reason", "")) or kind} if is_fault else {}
        )
    elif kind == "promoted":
        changes = {"rolled_back": None}
    return dataclasses.replace(before, **changes)


def _origin(event: Event) -> dict[str, Any]:
    names = ("digest", "model_uri", "run_id", "blessing", "push")
    origin = {name: event.data.get(name) for name in names}
    if event.kind != "found":
        origin["pushed_at"] = event.data.get("pushed_at", event.at)
    return origin


def routed(
    found: Mapping[int, Standing],
    routing: Routing,
    rollout: Mapping[str, Any] | None = None,
) -> dict[int, Standing]:
    """Return how versions stand with where requests go.

    Args:
        found: How they stand without.
        routing: Where requests go.
        rollout: What the last rollout has come to, as the ledger has it.
    """
    is_going_on = rollout is not None and rollout.get("phase") not in _OVER
    tried = int(rollout["candidate"]) if rollout and is_going_on else None
    everything = dict(found)
    for named in (routing.stable, routing.previous, routing.candidate, tried):
        if named is not None:
            everything.setdefault(named, Standing(named))
    weight = routing.weight if routing.candidate is not None else 0.0
    return {
        version: dataclasses.replace(
            each,
            is_stable=version == routing.stable,
            is_previous=version == routing.previous,
            is_candidate=version in (routing.candidate, tried),
            weight=(
                (1 - weight) * (version == routing.stable)
                + weight * (version == routing.candidate)
            ),
            is_seen=version in routing.routed,
        )
        for version, each in sorted(everything.items())
    }


def why_turned_down(ledger: Ledger, digest: str, model_uri: str | None = None) -> str:
    """Return why a model is none to be served, or the empty string.

    What was last said of any version with its bytes counts, or of any copy of it: that
    it was quarantined or rolled back, or that it was promoted or released.

    Args:
        ledger: The ledger of a serving directory.
        digest: Content digest of the SavedModel.
        model_uri: Folder of the Model artifact, whose versions may differ by their
            warm-up files.
    """
    verdict = ""
    found: dict[int, Standing] = {}
    for event in ledger.events(kinds=KINDS):
        if event.version is None:
            continue
        before = found.get(event.version, Standing(event.version))
        now = found[event.version] = after(before, event)
        is_it = digest == now.digest or (
            model_uri is not None and model_uri == now.model_uri
        )
        if is_it and (
            now.fault != before.fault or event.kind in ("promoted", "released")
        ):
            verdict = f"version {now.version}, which {now.fault}" if now.fault else ""
    return verdict
