"""The document of a window: what was decided about drift, column by column."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from penstock.components.monitoring import column_tests
from penstock.components.monitoring.classifier import MultivariateDrift
from penstock.components.monitoring.decision import (
    DriftDecision,
    DriftedColumn,
    Thresholds,
)
from penstock.components.monitoring.distribution import distribution
from penstock.components.monitoring.document import (
    FORMAT,
    VERSION,
    BudgetOf,
    ColumnOf,
    Document,
    ReferenceOf,
    SliceOf,
    State,
)
from penstock.components.monitoring.measures import ColumnEvidence, WindowEvidence
from penstock.components.monitoring.profile import Profile
from penstock.components.monitoring.reference import Reference
from penstock.components.monitoring.skew import Skew
from penstock.components.monitoring.windows import Window, iso


@dataclasses.dataclass(frozen=True)
class RowFindings:
    """What the rows of a window say, beside their profile.

    Attributes:
        skew: Its rows against those of training with the same ids.
        tolerated: Share of rows whose value in a column may differ from that of
            training.
        together: All columns at once against those of the reference.
    """

    skew: Skew | None = None
    tolerated: float = 0.0
    together: MultivariateDrift | None = None


def drift_document(
    profile: Profile,
    reference: Reference,
    evidence: WindowEvidence,
    decision: DriftDecision,
    thresholds: Thresholds,
    importances: Mapping[str, float],
    rows: RowFindings,
) -> Document:
    """Return the document of a window that was compared and decided about.

    Args:
        profile: Of the window.
        reference: That it was compared with; of its season, if there are seasons.
        evidence: What was measured.
        decision: What it came to.
        thresholds: By which it was decided.
        importances: Of columns to the model, where they are known.
        rows: What its rows say. Skew is an alert, for values differ by no chance; what
            only a classifier sees is to be watched, for it has no share of the budget.
    """
    drifted = {each.column: each for each in (*decision.alerts, *decision.watch)}
    states: dict[str, State] = {each.column: "watch" for each in decision.watch}
    states |= {each.column: "alert" for each in decision.alerts}
    nothing: State = "ok"
    if decision.state == "insufficient_data":
        nothing = "insufficient_data"
    columns = []
    for name, each in evidence.columns.items():
        found = drifted.get(name)
        columns.append(
            _column(
                each,
                profile,
                reference,
                state=states.get(name, nothing),
                rank=found.rank if found and name in states else None,
                importance=importances.get(name),
                explanation=found.explanation if found else "",
                slices=_slices(
                    each, drifted.get(name), states.get(name, nothing), thresholds
                ),
            )
        )
    # Those that alert first, in the order of their ranks, as they are read.
    order = {"alert": 0, "watch": 1}
    columns.sort(key=lambda each: (order.get(each["state"], 2), each["rank"] or 0))
    state, reasons = decision.state, list(decision.reasons)
    skew = rows.skew and rows.skew.document(rows.tolerated)
    together = rows.together and rows.together.document()
    if state != "insufficient_data":
        if together and together["state"] == "alert":
            reasons.append(together["sentence"])
            state = "watch" if state == "ok" else state
        if skew and skew["state"] == "alert":
            reasons.insert(0, skew["sentence"])
            state = "alert"
    return {
        **blank(profile.model, _version(profile), profile.window, profile.rows),
        "versions": dict(profile.versions),
        "reference": reference_of(reference),
        "state": state,
        "reasons": reasons,
        "budget": _budget(thresholds),
        "columns": columns,
        "skew": skew,  # type: ignore[typeddict-item]
        "multivariate": together,  # type: ignore[typeddict-item]
    }


def blank(model: str, version: str, window: Window, rows: int) -> Document:
    """Return the document of a window that nothing is known of yet.

    Args:
        model: Name of the model.
        version: Of the model; "" if it is not known.
        window: The window.
        rows: How many it has.
    """
    start, end = iso(window.start), iso(window.end)
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "model_version": version or None,
        "window": {"start": start, "end": end, "name": window.name},
        "made_at": iso(round(time.time())),
        "rows": rows,
        "reference": None,
        "state": "insufficient_data",
        "reasons": [],
        "budget": None,
        "columns": [],
        "skew": None,
        "multivariate": None,
        "quality": None,
    }


def reference_of(reference: Reference) -> ReferenceOf:
    """Return what a document says of a reference."""
    return {
        "id": reference.whole or reference.id,
        "rows": reference.rows,
        "model_version": reference.version or None,
        "seasonal": bool(reference.season),
    }


def _version(profile: Profile) -> str:
    return next(iter(profile.versions)) if len(profile.versions) == 1 else ""


def _budget(thresholds: Thresholds) -> BudgetOf:
    return {
        "alerts_per_month": thresholds.budget,
        "expected_alerts_per_month": thresholds.expected,
        # Of a replay without any alert the windows between two are not known.
        "run_length_windows": thresholds.run_length if thresholds.expected else None,
        "level": thresholds.level,
        "k": thresholds.k,
        "m": thresholds.m,
        "min_rows": thresholds.min_rows,
    }


def _column(
    evidence: ColumnEvidence,
    profile: Profile,
    reference: Reference,
    *,
    state: State,
    rank: int | None,
    importance: float | None,
    explanation: str,
    slices: list[SliceOf],
) -> ColumnOf:
    name = evidence.name
    grid = reference.grid[name]
    found: ColumnOf = {
        "name": name,
        "role": grid.role,
        "kind": grid.kind,
        "state": state,
        "rank": rank,
        "p_value": evidence.p_value,
        "importance": importance,
        "explanation": explanation,
        "missing": {"reference": evidence.missing[0], "current": evidence.missing[1]},
        "measures": [each.to_json() for each in evidence.measures],  # type: ignore[misc]
        "distribution": distribution(reference.profile[name], profile[name]),
    }
    if slices:
        found["slices"] = slices
    return found


def _slices(
    evidence: ColumnEvidence,
    found: DriftedColumn | None,
    state: State,
    thresholds: Thresholds,
) -> list[SliceOf]:
    """Return the slices in which a column drifted, with what is plainest there."""
    effects = {**column_tests.EFFECTS, **thresholds.effects}
    told: list[SliceOf] = []
    for name in found.slices if found else ():
        part = evidence.slices[name]
        plainest = part.plainest(thresholds.level, effects)
        told.append(
            {
                "slice": name,
                "state": state,
                "p_value": part.p_value,
                "sentence": plainest.sentence if plainest else "",
            }
        )
    return told
