"""What the events of a ledger say, for people to read."""

from __future__ import annotations

from typing import Any

from penstock.components.serving.ledger import Event

QUIET = ("blessing", "slow", "took over", "watches")
"""Kinds of events that a story can do without."""


def sentence(event: Event) -> str:
    """Return what an event says, without when and by whom.

    Args:
        event: Any event.

    Returns:
        A sentence, whose subject is the version.
    """
    data = event.data
    reasons = " ".join(data.get("reasons", ())) or str(data.get("reason") or "")
    tail = f" {reasons}" if reasons else ""
    told = _SENTENCES.get(event.kind)
    if told is None:
        return f"{event.kind}.{tail}"
    return told.format_map(_Said(data)) + tail


_SENTENCES = {
    "pushed": "Pushed.",
    "found": "Found: another tool put it there.",
    "missing": "Found missing.",
    "withdrawn": "Withdrawn before it appeared.",
    "pinned": "Pinned as '{name}'.",
    "unpinned": "No longer pinned as '{name}'.",
    "quarantined": "Quarantined.",
    "released": "Released.",
    "deleted": "Deleted.",
    "rollout started": "Its rollout started, with version {stable} stable.",
    "blessing": "Blessed by '{blessing}'.",
    "loaded": "The model server has loaded it.",
    "shadow": "It sees copies of requests.",
    "step": "It answers {weight:%} of units.",
    "slow": "An answer of stable is slow from {seconds:.4g} seconds on.",
    "holds": "The rollout holds.",
    "watches": "The rollout no longer holds.",
    "held": "Somebody holds the rollout.",
    "goes on": "Somebody lets the rollout go on.",
    "took over": "Another process controls the rollout.",
    "promoted": "It is stable, after version {previous}.",
    "rolls back": "Rolls back to version {to}.",
    "rolled back": "Rolled back.",
    "failed": "Its rollout failed.",
}


class _Said(dict[str, Any]):
    """The data of an event; what is missing or None reads as 'none'."""

    def __init__(self, data: Any) -> None:
        super().__init__({key: _Word(value) for key, value in data.items()})

    def __missing__(self, key: str) -> _Word:
        return _Word(None)


class _Word:
    """A value in a sentence."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        if self._value is None:
            return "none"
        if spec == "%":
            return f"{100 * self._value:g} %"
        return format(self._value, spec)
