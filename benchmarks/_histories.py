"""What a ledger has to look like, whatever happened: checked against its own events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.components.serving.ledger import Event, Ledger
from penstock.components.serving.rollout.state import Phase, state_of
from penstock.components.serving.routing import routing_of


@dataclass
class Story:
    """What the events alone say, told anew by rules of their own.

    Attributes:
        stable: The version that is stable.
        was_stable: Every version that ever was.
        candidate: The version of the last rollout.
        weight: The weight that it has.
        phase: How far the last rollout is.
        faults: Sentences on what must not happen.
    """

    stable: int | None = None
    was_stable: set[int] = field(default_factory=set)
    candidate: int | None = None
    rollout: str | None = None
    weight: float = 0.0
    phase: str = ""
    step: int = -1
    turned_down: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def fault(self, event: Event, text: str) -> None:
        self.faults.append(f"event {event.seq} ({event.kind}): {text}")


def told(events: Sequence[Event]) -> Story:
    """Fold the events of a serving directory."""
    story = Story()
    epoch = 0
    for event in events:
        if event.epoch:
            if event.epoch < epoch:
                story.fault(event, f"written under epoch {event.epoch} after {epoch}")
            epoch = event.epoch
        starts = event.rollout is None or event.kind == "rollout started"
        if not starts and event.rollout != story.rollout:
            story.fault(event, "belongs to no rollout that runs")
        _tell(story, event)
    return story


def _tell(story: Story, event: Event) -> None:
    over = story.phase in ("", "promoted", "rolled back", "failed")
    if event.kind == "rollout started":
        if not over:
            story.fault(event, "starts while another one is not over")
        if event.version in story.turned_down:
            story.fault(event, "rolls out a version that was turned down")
        story.rollout, story.candidate = event.rollout, event.version
        story.phase, story.step, story.weight = "loading", -1, 0.0
    elif event.kind == "step":
        if story.phase not in ("loading", "shadow", "step"):
            story.fault(event, f"steps while {story.phase}")
        if event.data["step"] != story.step + 1 or event.data["weight"] <= story.weight:
            story.fault(event, "is not the next step")
        story.phase, story.step = "step", event.data["step"]
        story.weight = event.data["weight"]
    elif event.kind == "shadow":
        story.phase = "shadow"
    elif event.kind == "promoted":
        if over or story.phase == "rolling back":
            story.fault(event, f"promotes while {story.phase}")
        if event.data["previous"] != story.stable:
            story.fault(event, "names another version as the one before")
        story.stable = event.version
        story.was_stable.add(event.version or 0)
        story.phase, story.weight = "promoted", 0.0
    elif event.kind == "rolls back":
        if over or story.phase == "rolling back":
            story.fault(event, f"rolls back while {story.phase}")
        to = event.data["to"]
        if to is not None and to not in story.was_stable:
            story.fault(event, f"goes back to {to}, which never was stable")
        story.stable, story.phase, story.weight = to, "rolling back", 0.0
    elif event.kind in ("rolled back", "failed") and event.data.get("to") is not None:
        if not over:
            story.fault(event, f"goes back while {story.phase}")
        if event.data["to"] not in story.was_stable:
            story.fault(event, f"goes back to {event.data['to']}, never stable")
        story.stable = event.data["to"]
    elif event.kind in ("rolled back", "failed"):
        if story.phase != "rolling back":
            story.fault(event, f"ends while {story.phase}")
        if event.data["blames"]:
            story.turned_down.add(event.version or 0)
        story.phase = event.kind


def faults(ledger: Ledger) -> list[str]:
    """Return what is wrong with a ledger: its history, and facts against it."""
    with ledger.writing():  # at one moment
        story = told(ledger.events())
        state, routing = state_of(ledger), routing_of(ledger)
    found = list(story.faults)
    said = (routing.stable, routing.weight)
    if said != (story.stable, story.weight):
        found.append(f"routing says {said}, events {story.stable, story.weight}")
    if routing.weight > 0 and routing.candidate != story.candidate:
        found.append(f"routing names {routing.candidate}, events {story.candidate}")
    if routing.shadow != (story.phase == "shadow"):
        found.append(f"shadow is {routing.shadow} while {story.phase}")
    if state is not None:
        if (state.id, state.phase.value) != (story.rollout, story.phase):
            found.append(f"state {state.id, state.phase}, events {story.phase}")
        if state.phase is Phase.STEP and state.step != story.step:
            found.append(f"state is at step {state.step}, events at {story.step}")
    return found
