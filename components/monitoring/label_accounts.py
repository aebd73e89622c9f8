"""What became of predictions, labels and windows, in counts and sentences."""

from __future__ import annotations

import dataclasses
from typing import Any

from penstock.components.monitoring.label_delays import (
    LEAST_LABELS,
    DelayCurve,
    duration,
)
from penstock.components.monitoring.windows import Window


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What became of predictions that were added.

    Attributes:
        new: Rows whose id was not known.
        known: Rows that were there, with the same time.
        moved: Rows whose id was there with another time; the first stays.
        joined: New rows whose label had come before them.
        sentences: What is odd.
    """

    new: int
    known: int
    moved: int
    joined: int
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Labeled:
    """What became of labels that were added.

    Attributes:
        joined: Labels that a row waited for.
        late: Of these, labels of windows that had been evaluated before.
        known: Labels that were there already.
        unknown: Labels of ids that no row has; kept until one comes.
        conflicting: Labels that contradict one that was there.
        sentences: What is odd.
    """

    joined: int
    late: int
    known: int
    unknown: int
    conflicting: int
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class WindowLabels:
    """The labels of a window.

    Attributes:
        window: Which.
        rows: Rows of the window.
        joined: Rows whose label has come.
        waiting: Rows that wait.
        late: Of the joined ones, labels that came after the window was evaluated.
        expected: Share of the labels that ever come that should have come by now, by
            how they came before; None if nobody knows.
        complete: Whether enough labels are there to judge by.
        sentence: What it comes to.
    """

    window: Window
    rows: int
    joined: int
    waiting: int
    late: int
    expected: float | None
    complete: bool
    sentence: str

    @property
    def share(self) -> float:
        """Share of the rows whose label has come; 0 of none."""
        return self.joined / self.rows if self.rows else 0.0

    def document(self) -> dict[str, Any]:
        """Return the part of a monitoring report that says it."""
        return {
            "joined": self.joined,
            "waiting": self.waiting,
            "late": self.late,
            "share": self.share,
        }


def completeness(
    found: WindowLabels, curve: DelayCurve, enough: float, behind: bool
) -> str:
    """Return what the labels of a window come to.

    Args:
        found: Its counts.
        curve: How labels come.
        enough: Share of the labels that ever come with which it is complete.
        behind: Whether fewer have come than chance explains.
    """
    name = f"Window {found.window.name}"
    if not found.rows:
        return f"{name} has no rows that wait for labels."
    here = (
        f"{name} has the labels of {found.joined:,} of {found.rows:,} rows "
        f"({found.share:.1%})"
    )
    late = f" {found.late:,} came after it was evaluated." if found.late else ""
    if found.expected is None:
        if curve.labels < LEAST_LABELS:
            why = (
                f"{curve.labels:,} labels have come so far, and {LEAST_LABELS} are the "
                "least that say how late they are"
            )
        else:
            why = (
                f"99 % of labels came within {duration(curve.quantile(0.99))}, and "
                f"rows were watched for {duration(curve.watched)} only, so that more "
                "may come"
            )
        return (
            f"{here}. {why[:1].upper()}{why[1:]}: it does not count as complete.{late}"
        )
    due = f"{found.expected:.1%} of the labels that ever come are due"
    if behind:
        return (
            f"{here}, where {due}: labels have fallen behind. Look at where they come "
            f"from.{late}"
        )
    if found.complete:
        return f"{here}; {due}, so that it is complete.{late}"
    return f"{here}; {due}, and {enough:.0%} make it complete.{late}"
