"""The story of a version, as the ledger has it: what was done, when and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.components.serving.ledger import Event, Ledger
from penstock.components.serving.standing import PENDING


@dataclass(frozen=True)
class Chapter:
    """One thing that was done to a version.

    Attributes:
        at: When, in seconds since 1970.
        kind: What, in a word or two, as the ledger has it.
        text: What and why, for people.
        actor: Who did it, as host and process.
        rollout: The rollout that it belongs to, if any.
        data: All that the ledger has of it.
    """

    at: float
    kind: str
    text: str
    actor: str
    rollout: str | None
    data: Mapping[str, Any]


def story_of(ledger: Ledger, version: int) -> tuple[Chapter, ...]:
    """Return what was done to a version, in the order in which it was done.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
    """
    return told(ledger.events(version))


def told(events: Iterable[Event]) -> tuple[Chapter, ...]:
    """Return events of one version as people are told of them.

    What was decided is left out where what came of it follows.

    Args:
        events: In the order in which things were done.
    """
    listed = list(events)
    return tuple(
        Chapter(
            float(event.data.get("pushed_at") or event.at)
            if event.kind == "pushed"
            else event.at,
            event.kind,
            _text(event.kind, event.data),
            event.actor,
            event.rollout,
            event.data,
        )
        for number, event in enumerate(listed)
        if event.kind not in PENDING
        or not any(_ends(event, later) for later in listed[number + 1 :])
    )


_ENDS = {
    "pushing": ("pushed", "found", "withdrawn"),
    "quarantining": ("quarantined",),
    "releasing": ("released",),
    "deleting": ("deleted",),
}


def _ends(event: Event, later: Event) -> bool:
    return later.kind in _ENDS[event.kind]


def _text(kind: str, data: Mapping[str, Any]) -> str:
    why = _why(data)
    if kind == "pushed":
        run = f" by run {data['run_id']}" if data.get("run_id") else ""
        model = f", a copy of '{data['model_uri']}'" if data.get("model_uri") else ""
        return f"pushed{run}{model}"
    if kind in ("pinned", "unpinned"):
        return f"{kind} as '{data.get('name')}'{why}"
    if kind == "rollout started":
        stable = data.get("stable")
        beside = "no version was stable" if stable is None else f"{stable} was stable"
        return f"rollout started; {beside}"
    if kind == "blessing":
        blessing = data.get("blessing")
        return f"blessed by '{blessing}'" if blessing else f"rolled out unblessed{why}"
    if kind == "step":
        percent = 100 * float(data.get("weight", 0.0))
        done = f"; the step before is done{why}" if why else ""
        return f"answers {percent:.4g} % of units{done}"
    if kind == "slow":
        return f"an answer of stable is slow from {1000 * data['seconds']:.4g} ms on"
    if kind == "rolls back":
        to = data.get("to")
        return f"rolls back{'' if to is None else f' to version {to}'}{why}"
    if kind == "promoted":
        before = data.get("previous")
        after = "" if before is None else f", after version {before}"
        return f"promoted: stable from now on{after}{why}"
    if kind == "rolled back":
        remark = f" {data['remark']}" if data.get("remark") else ""
        return f"rolled back{why}{remark}"
    if kind in _PLAIN:
        return f"{_PLAIN[kind]}{why}"
    rest = {key: each for key, each in data.items() if key not in ("reason", "reasons")}
    return f"{kind}{why}" + (f" {json.dumps(rest, sort_keys=True)}" if rest else "")


_PLAIN = {
    "pushing": "is being pushed, or was by a process that died",
    "withdrawn": "its push was broken off before it appeared",
    "found": "found there: penstock did not push it",
    "missing": "found to be gone: something other than penstock deleted or moved it",
    "quarantining": "is being quarantined",
    "quarantined": "quarantined",
    "releasing": "is being released",
    "released": "released",
    "deleting": "is being deleted",
    "deleted": "deleted",
    "loaded": "loaded",
    "shadow": "sees copies of requests; nobody gets its answers",
    "held": "held by somebody",
    "goes on": "goes on, as somebody said",
    "holds": "waits",
    "watches": "waits no more",
    "failed": "failed to load",
    "aborted": "aborted",
    "took over": "another process controls its rollout",
}


def _why(data: Mapping[str, Any]) -> str:
    reasons = [str(each) for each in data.get("reasons") or () if each]
    if not reasons and data.get("reason"):
        reasons = [str(data["reason"])]
    return f": {' '.join(reasons)}" if reasons else ""
