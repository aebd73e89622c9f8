"""Whether metrics meet their thresholds: plain functions of plain values.

Decides as TFMA does, from values that any engine can give, and says why.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

SliceValue: TypeAlias = str | int | float

Slice: TypeAlias = tuple[tuple[str, SliceValue], ...]
"""Features and their values, sorted by feature; () is all rows."""


@dataclasses.dataclass(frozen=True)
class MetricName:
    """What a metric is called, with all that tells it from its siblings.

    Attributes:
        name: As its config names it: `auc`.
        output: Name of the model's output, for a model with several.
        sub_key: Which class, k or top k it is of: `class 1`, `top 3`.
        aggregation: How classes are averaged: `micro average`.
        weighted: Whether rows are weighted; None where it makes no difference.
    """

    name: str
    output: str = ""
    sub_key: str = ""
    aggregation: str = ""
    weighted: bool | None = None

    def __str__(self) -> str:
        head = f"{self.output}/{self.name}" if self.output else self.name
        more = [part for part in (self.sub_key, self.aggregation) if part]
        return f"{head} ({', '.join(more)})" if more else head


@dataclasses.dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval of a number.

    Attributes:
        lower: Its lower end; NaN, as `upper`, where it is not defined.
        upper: Its upper end.
        confidence: How often such intervals hold the true number.
        degrees: Degrees of freedom of the Student t distribution it was made with;
            infinite for the normal distribution.
    """

    lower: float
    upper: float
    confidence: float = 0.95
    degrees: float = math.inf


@dataclasses.dataclass(frozen=True)
class Measured:
    """One metric in one slice.

    Attributes:
        value: The candidate's; NaN where it is not defined, None where it is not a
            single number.
        baseline: The baseline's, where there is one.
        difference: Candidate minus baseline, where there is one.
        interval: Of `value`, where one was made.
        baseline_interval: Of `baseline`, where one was made.
        difference_interval: Of `difference`, where one was made.
    """

    value: float | None
    baseline: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    baseline_interval: Interval | None = None
    difference_interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class SliceMetrics:
    """The metrics of one slice, or of one slice compared with another.

    Attributes:
        slice: The rows that are measured.
        metrics: What was measured, by name.
        baseline_slice: For a comparison, the slice whose metrics `slice`'s were
            subtracted from; None otherwise.
        is_too_small: Whether the slice has fewer rows than `min_slice_size`, so that
            nothing was measured.
        rows: How many rows it has, where that is known; of a comparison, those of
            its smaller slice.
    """

    slice: Slice
    metrics: Mapping[MetricName, Measured]
    baseline_slice: Slice | None = None
    is_too_small: bool = False
    rows: int | None = None

    def __str__(self) -> str:
        if self.baseline_slice is None:
            return slice_text(self.slice)
        return f"{slice_text(self.baseline_slice)} minus {slice_text(self.slice)}"


def slice_text(key: Slice) -> str:
    """Return a slice as texts show it: `all rows`, `hour=7, payment_type=Cash`."""
    return ", ".join(f"{name}={value}" for name, value in key) or "all rows"


@dataclasses.dataclass(frozen=True)
class Slicing:
    """Which slices a threshold is for.

    Attributes:
        keys: Features of any value.
        values: Features of one value.
    """

    keys: frozenset[str] = frozenset()
    values: frozenset[tuple[str, SliceValue]] = frozenset()

    @classmethod
    def of(cls, keys: Iterable[str], values: Mapping[str, SliceValue]) -> Slicing:
        """Return the slicing of feature keys and values; numbers may be text."""
        return cls(
            frozenset(keys),
            frozenset((name, _comparable(value)) for name, value in values.items()),
        )

    def matches(self, key: Slice) -> bool:
        """Return whether a slice is one of these."""
        keys, values = set(self.keys), set(self.values)
        for name, value in key:
            if (name, _comparable(value)) in values:
                values.remove((name, _comparable(value)))
            elif name in keys:
                keys.remove(name)
            else:
                return False
        return not keys and not values

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in sorted(self.values, key=str)]
        return ", ".join([*parts, *sorted(self.keys)]) or "all rows"


@dataclasses.dataclass(frozen=True)
class CrossSlicing:
    """Which comparisons of two slices a threshold is for."""

    baseline: Slicing
    compared: tuple[Slicing, ...]

    def __str__(self) -> str:
        compared = " or ".join(map(str, self.compared))
        return f"{self.baseline} minus {compared}"


def _comparable(value: SliceValue) -> SliceValue:
    """Return text that is a number as that number, and floats as a file keeps them.

    TFMA reads `feature_values` so, and its files hold 32 bits of a float.
    """
    if isinstance(value, str):
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return value
    if isinstance(value, float):
        narrow: float = struct.unpack("f", struct.pack("f", value))[0]
        return narrow
    return value


@dataclasses.dataclass(frozen=True)
class ValueBound:
    """The range in which a metric must lie, bounds included."""

    lower: float = -math.inf
    upper: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.lower) and math.isinf(self.upper):
            return "any number"
        if math.isinf(self.upper):
            return f"at least {_number(self.lower)}"
        if math.isinf(self.lower):
            return f"at most {_number(self.upper)}"
        return f"between {_number(self.lower)} and {_number(self.upper)}"


@dataclasses.dataclass(frozen=True)
class ChangeBound:
    """How a metric must compare with the baseline's.

    Attributes:
        absolute: Bound of candidate minus baseline.
        relative: Bound of that difference divided by the baseline.
        higher_is_better: Whether they are lower bounds, or else upper bounds.
    """

    absolute: float | None = None
    relative: float | None = None
    higher_is_better: bool = True

    def __str__(self) -> str:
        side = "at least" if self.higher_is_better else "at most"
        parts = []
        if self.absolute is not None:
            parts.append(f"a change of {side} {_number(self.absolute)}")
        if self.relative is not None:
            percent = _number(100 * self.relative)
            parts.append(f"a relative change of {side} {percent} %")
        return " and ".join(parts) or "any change"

    def admits(self, difference: float, baseline: float) -> bool:
        """Return whether a difference is within the bounds.

        A relative change from a baseline of 0 is not defined and is not within any.
        """
        good = True
        if self.absolute is not None:
            good = self._admits(difference, self.absolute)
        if self.relative is not None:
            good = good and self._admits(
                relative_change(difference, baseline), self.relative
            )
        return good

    def _admits(self, change: float, bound: float) -> bool:
        return change >= bound if self.higher_is_better else change <= bound


def relative_change(difference: float, baseline: float) -> float:
    """Return a difference as a share of the baseline; NaN if that is 0."""
    return math.nan if math.isclose(baseline, 0.0) else difference / baseline


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What is asked of a metric.

    Attributes:
        metric: The metric.
        bound: The values that are good enough.
        slicing: The slices it is for; None for every slice.
    """

    metric: MetricName
    bound: ValueBound | ChangeBound
    slicing: Slicing | CrossSlicing | None = None

    def applies(self, measured: SliceMetrics) -> bool:
        """Return whether it is for this slice."""
        if isinstance(self.slicing, CrossSlicing):
            return (
                measured.baseline_slice is not None
                and self.slicing.baseline.matches(measured.baseline_slice)
                and any(each.matches(measured.slice) for each in self.slicing.compared)
            )
        if measured.baseline_slice is not None:
            return False
        return self.slicing is None or self.slicing.matches(measured.slice)


class Word(enum.Enum):
    """What a blessing says, in one word."""

    BLESSED = "BLESSED"
    NOT_BLESSED = "NOT_BLESSED"
    NO_THRESHOLDS = "NO_THRESHOLDS"


@dataclasses.dataclass(frozen=True)
class Judgment:
    """A word and the sentences behind it.

    Attributes:
        word: What is decided.
        reasons: Why, those against a blessing first.
        against: How many of the reasons speak against a blessing.
    """

    word: Word
    reasons: tuple[str, ...]
    against: int


def judge(
    thresholds: Sequence[Threshold],
    measured: Sequence[SliceMetrics],
    *,
    ignored: Sequence[Threshold] = (),
    min_slice_size: int = 0,
) -> Judgment:
    """Decide whether a model may be pushed.

    A threshold without slices is for every slice. One whose slices have no rows is
    not met; a slice that is smaller than `min_slice_size` is left out.

    Args:
        thresholds: What is asked.
        measured: What was measured, slice by slice.
        ignored: Thresholds that do not count, because there is no baseline.
        min_slice_size: Rows that a slice needs, for the text of reasons.

    Returns:
        BLESSED if every threshold is met; NO_THRESHOLDS if there is none, not even
        an ignored one.
    """
    if not thresholds and not ignored:
        return Judgment(
            Word.NO_THRESHOLDS,
            (
                "The eval_config sets no threshold, so nothing can bless the model. "
                "Give a metric a MetricThreshold.",
            ),
            against=1,
        )
    against: list[str] = []
    in_favor: list[str] = []
    for threshold in thresholds:
        for passed, reason in _checked(threshold, measured, min_slice_size):
            (in_favor if passed else against).append(reason)
    left_out = [
        f"The change threshold on '{each.metric}'{_for_slices(each)} is ignored "
        f"({each.bound}): there is no baseline."
        for each in ignored
    ]
    word = Word.NOT_BLESSED if against else Word.BLESSED
    reasons = dict.fromkeys([*against, *in_favor, *left_out])
    return Judgment(word, tuple(reasons), against=len(set(against)))


def _for_slices(threshold: Threshold) -> str:
    return "" if threshold.slicing is None else f" for {threshold.slicing}"


def _checked(
    threshold: Threshold, measured: Sequence[SliceMetrics], min_slice_size: int
) -> Iterator[tuple[bool, str]]:
    fitting = [each for each in measured if threshold.applies(each)]
    if not fitting:
        yield (
            False,
            f"'{threshold.metric}' has a threshold for {threshold.slicing}, but no "
            "evaluated slice is that.",
        )
    for each in fitting:
        if each.is_too_small:
            yield (
                True,
                f"'{threshold.metric}' in {each} is left out: the slice has fewer "
                f"than {min_slice_size:,} rows, the min_slice_size.",
            )
        else:
            found = each.metrics.get(threshold.metric)
            if found is None:
                yield (
                    False,
                    f"'{threshold.metric}' in {each} was not computed, and "
                    f"{threshold.bound} is asked.",
                )
            else:
                yield _met(threshold, each, found)


def _met(
    threshold: Threshold, where: SliceMetrics, found: Measured
) -> tuple[bool, str]:
    subject = f"'{threshold.metric}' in {where}"
    if isinstance(threshold.bound, ValueBound):
        return _value_met(threshold.bound, subject, found)
    return _change_met(threshold.bound, subject, found)


def _value_met(bound: ValueBound, subject: str, found: Measured) -> tuple[bool, str]:
    if found.value is None:
        return False, f"{subject} is not a single number, and {bound} is asked."
    passed = bound.lower <= found.value <= bound.upper
    side = "as asked:" if passed else "not"
    return passed, f"{subject} is {_number(found.value)}, {side} {bound}."


def _change_met(bound: ChangeBound, subject: str, found: Measured) -> tuple[bool, str]:
    if found.difference is None:
        return False, f"{subject} has no baseline to compare with; {bound} is asked."
    baseline = math.nan if found.baseline is None else found.baseline
    passed = bound.admits(found.difference, baseline)
    side = "as asked:" if passed else "not"
    change = f"a change of {_number(found.difference)}"
    if bound.relative is not None:
        share = relative_change(found.difference, baseline)
        change += (
            " (no share of a baseline of 0)"
            if math.isclose(baseline, 0.0)
            else f" ({_number(100 * share)} %)"
        )
    if found.value is None or found.baseline is None:  # a metric of both models
        return passed, f"{subject} has {change}, {side} {bound}."
    return passed, (
        f"{subject} is {_number(found.value)}, the baseline's "
        f"{_number(baseline)}: {change}, {side} {bound}."
    )


def _number(value: float) -> str:
    return "not a number" if math.isnan(value) else f"{value:.6g}"


def overall_values(measured: Sequence[SliceMetrics]) -> dict[str, Any]:
    """Return the candidate's finite metrics over all rows, as recorded properties.

    A weighted metric beside an unweighted one of the same name gets ` (weighted)`.
    """
    values: dict[str, Any] = {}
    for each in measured:
        if each.slice != () or each.baseline_slice is not None:
            continue
        names = [str(name) for name in each.metrics]
        for name, found in each.metrics.items():
            text = str(name)
            if names.count(text) > 1 and name.weighted:
                text += " (weighted)"
            if found.value is not None and math.isfinite(found.value):
                values[text] = found.value
    return values
