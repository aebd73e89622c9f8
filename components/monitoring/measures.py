"""How far a window lies from the reference, column by column: what is said and kept.

The arithmetic is in `kernels`; here it is applied to two profiles and put into words.
Evidence is plain data, so that it is stored, replayed and reported without the rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from penstock.components.monitoring.column_tests import WEIGHTS
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

DRIFT_TYPES = (
    "ks",
    "psi",
    "js",
    "wasserstein",
    "hellinger",
    "l_infinity",
    "chi_squared",
    "mean_shift",
    "missing",
    "nan",
    "infinite",
    "zeros",
    "unseen",
    "vanished",
    "out_of_range",
    "type",
)
"""Every kind of drift that is measured."""

SHOWN = ("psi", "js", "hellinger", "wasserstein")
"""Those that are only shown: others of the same places are tested."""

_WHOLE = ("chi_squared", "ks")

Label = Literal["none", "moderate", "major"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number on how far a column of a window lies from the reference.

    Attributes:
        column: The column.
        drift_type: One of `DRIFT_TYPES`.
        value: The number itself.
        effect: The number without what chance alone adds to it at these sizes; 0 if it
            is no more than that.
        p_value: How often two samples of one distribution differ as much; None where
            that is not known.
        critical: The least value that would be significant at the level in force;
            NaN if there is none.
        threshold: The least effect that may raise an alert; of a measure that is only
            shown, its conventional limit.
        label: What the conventional limits 0.1 and 0.25 say of PSI; else "none".
        sentence: All of it in words.
    """

    column: str
    drift_type: str
    value: float
    effect: float
    p_value: float | None = None
    critical: float = math.nan
    threshold: float = math.nan
    label: Label = "none"
    sentence: str = ""

    @property
    def is_tested(self) -> bool:
        """Whether it has a say in the decision; else it is only shown."""
        return self.drift_type not in SHOWN

    @property
    def ratio(self) -> float:
        """1 where it is as much as would be called drift in one window.

        The smaller one of value to critical value and of effect to threshold: both have
        to be reached. Infinite for what needs no evidence, as another type.
        """
        ratios = [
            _ratio(abs(self.value), self.critical),
            _ratio(self.effect, self.threshold),
        ]
        return min((each for each in ratios if not math.isnan(each)), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return what a report says of it; numbers that are none become null."""
        return {
            "type": self.drift_type,
            "value": _number(self.value),
            "effect": _number(self.effect),
            "p_value": self.p_value,
            "critical": _number(self.critical),
            "threshold": _number(self.threshold),
            "ratio": _number(self.ratio),
            "label": self.label,
            "sentence": self.sentence,
        }

    @classmethod
    def from_json(cls, column: str, found: Mapping[str, Any]) -> Measure:
        """Return the measure of a column that `to_json` wrote."""
        return cls(
            column=column,
            drift_type=found["type"],
            value=_float(found["value"]),
            effect=_float(found["effect"]),
            p_value=found["p_value"],
            critical=_float(found["critical"]),
            threshold=_float(found["threshold"]),
            label=found["label"],
            sentence=found["sentence"],
        )


@dataclasses.dataclass(frozen=True)
class ColumnEvidence:
    """What one window says about one column.

    Attributes:
        name: The column.
        role: "feature", "score", "label" or "segment".
        kind: "numeric" or "category".
        p_value: Of all its tests together: how often a column that did not drift has
            one as small.
        measures: What was measured.
        missing: Shares of rows without a value: of the reference, of the window.
        moved: The place that gained or lost most, in words.
        slices: The same of slices of the window, by name as 'payment_type=Cash'.
    """

    name: str
    role: str
    kind: str
    p_value: float
    measures: tuple[Measure, ...] = ()
    missing: tuple[float, float] = (0.0, 0.0)
    moved: str = ""
    slices: Mapping[str, ColumnEvidence] = dataclasses.field(default_factory=dict)

    def measure(self, drift_type: str) -> Measure | None:
        """Return its measure of a drift type; None if it was not measured."""
        return next((m for m in self.measures if m.drift_type == drift_type), None)

    def gated_p(self, effects: Mapping[str, float]) -> float:
        """Return the p-value of the tests whose effects are at least some limits."""
        found = [p for p, each in self._tested() if each.effect >= _of(effects, each)]
        return min([1.0, *found])

    def clearest(self, level: float, effects: Mapping[str, float]) -> Measure | None:
        """Return the test whose effect is the greatest multiple of its limit.

        Of those that are significant at a level and matter; without one that is, the
        one with the smallest p-value; None if nothing was tested.
        """
        tested = list(self._tested())
        passed = [
            each
            for p, each in tested
            if p <= level and each.effect >= _of(effects, each)
        ]
        if passed:
            return max(passed, key=lambda m: m.effect / max(_of(effects, m), 1e-6))
        return min(tested, key=lambda pair: pair[0])[1] if tested else None

    def plainest(self, level: float, effects: Mapping[str, float]) -> Measure | None:
        """Return the test that says most plainly what happened.

        As `clearest`, but one of a mean, a share or a value before one of the whole
        distribution, which only says that something did.
        """
        plain = [each for each in self.measures if each.drift_type not in _WHOLE]
        found = dataclasses.replace(self, measures=tuple(plain)).clearest(
            level, effects
        )
        if found is not None and found.p_value is not None:
            weight = WEIGHTS[self.kind].get(found.drift_type, 1.0)
            if found.p_value / weight <= level:
                return found
        return self.clearest(level, effects)

    def _tested(self) -> Iterator[tuple[float, Measure]]:
        """Yield the measures that are tested, with their p-values by weight."""
        for each in self.measures:
            weight = WEIGHTS[self.kind].get(each.drift_type, 0.0)
            if each.drift_type == "type":
                weight = 1.0
            if weight and each.p_value is not None:
                yield each.p_value / weight, each

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "role": self.role,
            "kind": self.kind,
            "p_value": self.p_value,
            "measures": [each.to_json() for each in self.measures],
            "missing": {"reference": self.missing[0], "current": self.missing[1]},
            "moved": self.moved,
            "slices": {name: each.to_json() for name, each in self.slices.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ColumnEvidence:
        """Return what `to_json` wrote."""
        return cls(
            name=found["name"],
            role=found["role"],
            kind=found["kind"],
            p_value=found["p_value"],
            measures=tuple(
                Measure.from_json(found["name"], each) for each in found["measures"]
            ),
            missing=(found["missing"]["reference"], found["missing"]["current"]),
            moved=found["moved"],
            slices={
                name: cls.from_json(each) for name, each in found["slices"].items()
            },
        )


@dataclasses.dataclass(frozen=True)
class WindowEvidence:
    """What one window says about all columns of a model.

    Attributes:
        window: When.
        rows: Rows of the window.
        reference_id: Of the reference that it was compared with.
        reference_rows: Its rows.
        columns: By name, in the reference's order.
        notes: Sentences on what could not be compared.
    """

    window: Window
    rows: int
    reference_id: str
    reference_rows: int
    columns: Mapping[str, ColumnEvidence]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, for `from_json`."""
        return {
            "window": [self.window.start, self.window.end],
            "rows": self.rows,
            "reference_id": self.reference_id,
            "reference_rows": self.reference_rows,
            "columns": [each.to_json() for each in self.columns.values()],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> WindowEvidence:
        """Return what `to_json` wrote.

        Raises:
            DataError: If it is something else.
        """
        try:
            columns = [ColumnEvidence.from_json(each) for each in found["columns"]]
            return cls(
                window=Window(*found["window"]),
                rows=found["rows"],
                reference_id=found["reference_id"],
                reference_rows=found["reference_rows"],
                columns={each.name: each for each in columns},
                notes=tuple(found["notes"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"What should be the evidence of a window has no right {error}. "
                "Compare the window again."
            ) from error


def _of(effects: Mapping[str, float], measure: Measure) -> float:
    return effects[measure.drift_type]


def _ratio(value: float, limit: float) -> float:
    return value / limit if limit > 0 else math.nan


def _number(value: float) -> float | None:
    """Return what JSON can hold: it has neither NaN nor infinities."""
    return float(value) if math.isfinite(value) else None


def _float(value: float | None) -> float:
    return math.nan if value is None else value
