"""Whether metrics meet their thresholds: plain functions of plain values.

Decides as TFMA does, or on the evidence of confidence intervals where that is asked,
from values that any engine can give, and says why.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from penstock.components.evaluation import evidence
from penstock.components.evaluation.evidence import Comparison
from penstock.components.evaluation.evidence import Interval as Interval

_NO_WIDTH = 1e-12  # of an interval, as a share of the metric: rounding

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
        return slice_text(self.slice, self.baseline_slice)


def slice_text(key: Slice, baseline: Slice | None = None) -> str:
    """Return a slice as texts show it: `all rows`, `hour=7, payment_type=Cash`.

    Args:
        key: The slice.
        baseline: The slice that it is subtracted from, in a comparison.
    """
    if baseline is not None:
        return f"{slice_text(baseline)} minus {slice_text(key)}"
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

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the most that is good."""
        return self.lower, self.upper

    def admits(self, value: float) -> bool:
        """Return whether a number is good."""
        return self.lower <= value <= self.upper

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

    def admits(self, change: float) -> bool:
        """Return whether a number is good, of one of the `parts`."""
        if self.absolute is None and self.relative is None:
            return True
        lower, upper = self.limits
        return lower <= change <= upper

    @property
    def parts(self) -> tuple[ChangeBound, ...]:
        """The bound as bounds of one number each, all of which have to be met."""
        if self.absolute is None or self.relative is None:
            return (self,)
        return (
            dataclasses.replace(self, relative=None),
            dataclasses.replace(self, absolute=None),
        )

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the most that is good, of one of the `parts`."""
        bound = self.absolute if self.relative is None else self.relative
        if bound is None:
            return -math.inf, math.inf
        return (bound, math.inf) if self.higher_is_better else (-math.inf, bound)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What is asked of a metric.

    Attributes:
        metric: The metric.
        bound: The values that are good enough.
        slicing: The slices it is for; None for every slice.
        confidence: Of the interval that has to lie within the bound; None to compare
            the value alone, as TFMA does.
    """

    metric: MetricName
    bound: ValueBound | ChangeBound
    slicing: Slicing | CrossSlicing | None = None
    confidence: float | None = None

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
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_THRESHOLDS = "NO_THRESHOLDS"


class Outcome(enum.Enum):
    """What came of one threshold in one slice; the gravest is first."""

    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    LEFT_OUT = "left out"
    IGNORED = "ignored"
    PASSED = "passed"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of one threshold in one slice.

    Attributes:
        metric: The metric.
        slice: The slice; None where the threshold was compared with none.
        baseline_slice: The slice that it is subtracted from, in a comparison.
        bound: What is asked; of a change, either the absolute or the relative one.
        outcome: What came of it.
        sentence: The same in words, with the numbers.
        value: What is compared with the bound: the metric's value, its change, or its
            relative change (0.01 is 1 %); None where there is none.
        interval: Of the value, at the threshold's confidence, if that was asked.
        rows: How many rows the slice has, where that is known.
    """

    metric: MetricName
    slice: Slice | None
    baseline_slice: Slice | None
    bound: ValueBound | ChangeBound
    outcome: Outcome
    sentence: str
    value: float | None = None
    interval: Interval | None = None
    rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Judgment:
    """A word, and what is behind it.

    Attributes:
        word: What the data say.
        blessed: Whether the model may be pushed: BLESSED, or INCONCLUSIVE where that
            counts as a yes.
        findings: What came of every threshold in every slice, the gravest first.
        reasons: Why, in sentences, those against a blessing first.
        against: How many of the reasons speak against a blessing.
    """

    word: Word
    blessed: bool
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    against: int


def judge(
    thresholds: Sequence[Threshold],
    measured: Sequence[SliceMetrics],
    *,
    ignored: Sequence[Threshold] = (),
    min_slice_size: int = 0,
    on_inconclusive: Literal["block", "bless"] = "block",
    false_block_rate: float = 0.05,
) -> Judgment:
    """Decide whether a model may be pushed.

    A threshold without slices is for every slice. One whose slices have no rows is
    not met; a slice that is smaller than `min_slice_size` is left out.

    A threshold without confidence looks at the value. One with confidence c passes if
    the whole interval is within the bound, fails if all of it is beyond, and is
    inconclusive else. With intervals that hold the true value as often as they say:

    - A model that is truly beyond a bound in any of the slices is BLESSED with a
      chance of at most (1 - c) / 2, however many slices there are, because every one
      has to pass (Berger 1982, Technometrics 24, 295-300).
    - A model that is truly within all bounds is NOT_BLESSED with a chance of at most
      `false_block_rate`. Where several metrics and slices are compared, those whose
      interval is beyond the bound fail only if Holm's procedure rejects them too
      (Holm 1979, Scandinavian Journal of Statistics 6, 65-70), and are inconclusive
      else. A single one fails as its interval says: with a chance of at most
      (1 - c) / 2, or 1 - c between two limits.

    Args:
        thresholds: What is asked.
        measured: What was measured, slice by slice.
        ignored: Thresholds that do not count, because there is no baseline.
        min_slice_size: Rows that a slice needs.
        on_inconclusive: Whether INCONCLUSIVE lets the model be pushed.
        false_block_rate: The chance that a good model is NOT_BLESSED because one of
            many intervals is beyond its bound by chance.

    Returns:
        NOT_BLESSED if anything fails; INCONCLUSIVE if anything is that, or every
        slice was left out; BLESSED else. NO_THRESHOLDS if there is no threshold, not
        even an ignored one.
    """
    if not thresholds and not ignored:
        return Judgment(
            Word.NO_THRESHOLDS,
            False,
            (),
            (
                "The eval_config sets no threshold, so nothing can bless the model. "
                "Give a metric a MetricThreshold.",
            ),
            against=1,
        )
    checked = _check_all(thresholds, measured, min_slice_size)
    checked = _failing_seldom_by_chance(checked, false_block_rate)
    gravity = list(Outcome)
    findings = sorted(
        [*(each.finding for each in checked), *map(_ignored, ignored)],
        key=lambda each: gravity.index(each.outcome),
    )
    outcomes = {each.outcome for each in findings}
    against = [
        each.sentence
        for each in findings
        if each.outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE)
    ]
    if thresholds and outcomes <= {Outcome.LEFT_OUT, Outcome.IGNORED}:
        against.append(
            f"Every slice with a threshold has fewer than {min_slice_size:,} rows, the "
            "min_slice_size, so nothing is left to judge the model by."
        )
    word = Word.BLESSED if not against else Word.INCONCLUSIVE
    if Outcome.FAILED in outcomes:
        word = Word.NOT_BLESSED
    turned = word is Word.INCONCLUSIVE and on_inconclusive == "bless"
    turn = ["The model is blessed all the same: on_inconclusive is 'bless'."]
    reasons = dict.fromkeys(
        [*against, *(turn if turned else ()), *(each.sentence for each in findings)]
    )
    return Judgment(
        word,
        turned or word is Word.BLESSED,
        tuple(findings),
        tuple(reasons),
        against=len(set(against)),
    )


def _ignored(threshold: Threshold) -> Finding:
    slices = "" if threshold.slicing is None else f" for {threshold.slicing}"
    return Finding(
        threshold.metric,
        None,
        None,
        threshold.bound,
        Outcome.IGNORED,
        f"The change threshold on '{threshold.metric}'{slices} is ignored "
        f"({threshold.bound}): there is no baseline.",
    )


@dataclasses.dataclass(frozen=True)
class _Number:
    """What is compared with a bound.

    Attributes:
        lead: What a sentence says before it.
        value: The number.
        interval: At the threshold's confidence; NaN where there is none.
        contrast: For a relative change, the same comparison of a number that has a
            standard error, as a ratio has not.
    """

    lead: str
    value: float
    interval: Interval
    contrast: Comparison | None = None

    def __str__(self) -> str:
        return self.text(self.value, "{:.6g}")

    def within(self, bound: ValueBound | ChangeBound) -> Comparison:
        """Return its comparison with a bound."""
        return Comparison(self.value, self.interval, *bound.limits)

    def text(self, number: float, form: str = "{:.4g}") -> str:
        """Return the number, or an end of its interval, as texts show it."""
        if math.isnan(number):
            return "not a number"
        if self.contrast is None:
            return form.format(number)
        if math.isinf(number):
            return "∞ %" if number > 0 else "-∞ %"
        return form.format(100 * number) + " %"


@dataclasses.dataclass(frozen=True)
class _Checked:
    """One bound, checked in one slice.

    Attributes:
        asked: The threshold, with a bound of one number.
        where: The slice; None where there is none.
        outcome: What came of it.
        said: The sentence after the metric's name.
        number: What was compared, if anything was.
    """

    asked: Threshold
    where: SliceMetrics | None
    outcome: Outcome
    said: str
    number: _Number | None = None

    @property
    def comparison(self) -> Comparison | None:
        """The comparison that standard errors can be counted in, if on evidence."""
        if self.number is None or self.asked.confidence is None:
            return None
        return self.number.contrast or self.number.within(self.asked.bound)

    @property
    def finding(self) -> Finding:
        """The same, as it is told."""
        where, number = self.where, self.number
        known = number is not None and number.interval.is_defined
        return Finding(
            self.asked.metric,
            where.slice if where else None,
            where.baseline_slice if where else None,
            self.asked.bound,
            self.outcome,
            f"'{self.asked.metric}' {self.said}",
            number.value if number else None,
            number.interval if number and known else None,
            where.rows if where else None,
        )


def _check_all(
    thresholds: Sequence[Threshold],
    measured: Sequence[SliceMetrics],
    min_slice_size: int,
) -> list[_Checked]:
    """Check every bound once in every slice that it is for."""
    checked: dict[Any, _Checked] = {}
    for threshold in thresholds:
        fitting = [each for each in measured if threshold.applies(each)]
        if not fitting:
            checked[threshold] = _Checked(
                threshold,
                None,
                Outcome.FAILED,
                f"has a threshold for {threshold.slicing}, but no evaluated slice is "
                "that.",
            )
        bound = threshold.bound
        for part in bound.parts if isinstance(bound, ChangeBound) else (bound,):
            asked = dataclasses.replace(threshold, bound=part, slicing=None)
            for each in fitting:
                key = asked, each.slice, each.baseline_slice
                if key not in checked:
                    checked[key] = _check(asked, each, min_slice_size)
    return list(checked.values())


def _check(asked: Threshold, where: SliceMetrics, min_slice_size: int) -> _Checked:
    if where.is_too_small or (where.rows is not None and where.rows < min_slice_size):
        has = f"fewer than {min_slice_size:,} rows"
        if where.rows is not None:
            has = f"{_rows(where.rows)}, fewer than {min_slice_size:,}"
        return _Checked(
            asked,
            where,
            Outcome.LEFT_OUT,
            f"in {where} is left out: the slice has {has}, the min_slice_size.",
        )
    number = _number_of(asked, where.metrics.get(asked.metric), where.rows)
    if isinstance(number, str):
        said = f"in {where} {number} {asked.bound} is asked."
        return _Checked(asked, where, Outcome.FAILED, said)
    if asked.confidence is None:
        passed = asked.bound.admits(number.value)
        return _Checked(
            asked,
            where,
            Outcome.PASSED if passed else Outcome.FAILED,
            f"in {where} {number.lead}{number}, "
            f"{'as asked:' if passed else 'not'} {asked.bound}.",
            number,
        )
    return _check_evidence(asked, where, number)


def _number_of(
    asked: Threshold, found: Measured | None, rows: int | None
) -> _Number | str:
    """Return what is compared with a bound, or what texts say where it is missing."""
    if found is None:
        return "was not computed, and"
    bound = asked.bound
    if isinstance(bound, ValueBound):
        if found.value is None:
            return "is not a single number, and"
        interval = _at(asked, found.interval, found.value)
        return _Number("is ", found.value, _widened(interval, found, rows))
    if found.difference is None:
        return "has no baseline to compare with;"
    lead = "has "
    if found.value is not None and found.baseline is not None:
        lead = f"is {_number(found.value)}, the baseline's {_number(found.baseline)}: "
    change = _at(asked, found.difference_interval, found.difference)
    change = _widened(change, found, rows)
    if bound.relative is None:
        return _Number(f"{lead}a change of ", found.difference, change)
    if found.baseline is None:
        return "has no value of the baseline to be a share of;"
    around = _at(asked, found.baseline_interval, found.baseline)
    return _Number(
        f"{lead}a relative change of ",
        evidence.relative(found.difference, found.baseline),
        evidence.relative_interval(change, around),
        evidence.relative_contrast(
            found.difference, change, found.baseline, around, *bound.limits
        ),
    )


def _at(asked: Threshold, interval: Interval | None, value: float) -> Interval:
    if asked.confidence is None or interval is None:
        return Interval(math.nan, math.nan)
    return interval.at(asked.confidence, value)


def _widened(interval: Interval, found: Measured, rows: int | None) -> Interval:
    """Return an interval; of one without width, what the rule of three gives.

    A row that is not among so many could move the metric by about its own size.
    """
    scale = max(abs(found.value or 0.0), abs(found.baseline or 0.0)) or 1.0
    width = interval.upper - interval.lower
    if rows is None or math.isinf(scale) or not width <= _NO_WIDTH * scale:
        return interval
    middle = (interval.lower + interval.upper) / 2
    return evidence.agreeing_rows(middle, scale, rows, interval.confidence)


def _check_evidence(asked: Threshold, where: SliceMetrics, number: _Number) -> _Checked:
    is_good = number.within(asked.bound).is_good
    said = _measured(asked, where, number)
    if is_good is not None:
        outcome = Outcome.PASSED if is_good else Outcome.FAILED
        side = "as asked:" if is_good else "not"
        return _Checked(asked, where, outcome, f"{said}, {side} {asked.bound}.", number)
    said += f", and {asked.bound} is asked: not enough data to tell."
    checked = _Checked(asked, where, Outcome.INCONCLUSIVE, said, number)
    return dataclasses.replace(checked, said=said + _rows_that_would_do(checked))


def _measured(asked: Threshold, where: SliceMetrics, number: _Number) -> str:
    """Return what was measured, with the interval and the rows in brackets."""
    interval = number.interval
    details = []
    if interval.is_defined:
        ends = f"{number.text(interval.lower)} to {number.text(interval.upper)}"
        details.append(f"{_number(100 * interval.confidence)} % interval {ends}")
    if where.rows is not None:
        details.append(_rows(where.rows))
    brackets = f" ({', '.join(details)})" if details else ""
    if math.isnan(number.value):
        is_value = isinstance(asked.bound, ValueBound)
        what = "is not defined" if is_value else "has no defined change"
        return f"{what} in {where}{brackets}"
    without = "" if interval.is_defined else " without an interval"
    return f"in {where} {number.lead}{number}{brackets}{without}"


def _rows_that_would_do(checked: _Checked, level: float | None = None) -> str:
    """Return a sentence with how many rows would tell, if that can be known.

    Args:
        checked: What is inconclusive.
        level: Of p-values, for one whose interval is beyond the bound.
    """
    rows = checked.where.rows if checked.where else None
    comparison = checked.comparison
    if rows is None or comparison is None:
        return ""
    if level is None:
        needed = comparison.rows_needed(rows)
    else:
        needed = comparison.rows_needed_at(rows, level)
    if needed is None or needed <= rows:
        return ""
    return f" About {needed:,} rows would do if it stays so."


def _failing_seldom_by_chance(checked: list[_Checked], rate: float) -> list[_Checked]:
    """Return what was checked, with failures that may be chance as inconclusive.

    All comparisons on evidence are one family of hypotheses. One that its own interval
    does not fail counts in it, and cannot fail.
    """
    family = {
        index: each.comparison
        for index, each in enumerate(checked)
        if each.comparison is not None
    }
    if len(family) < 2:
        return checked
    levels = [
        comparison.level if checked[index].outcome is Outcome.FAILED else 1.0
        for index, comparison in family.items()
    ]
    judged = list(checked)
    for index, fails in zip(family, evidence.holm(levels, rate), strict=True):
        if checked[index].outcome is Outcome.FAILED and not fails:
            judged[index] = _perhaps_by_chance(checked[index], len(family), rate)
    return judged


def _perhaps_by_chance(failed: _Checked, comparisons: int, rate: float) -> _Checked:
    # The first of Holm's levels, which is the strictest: it suffices.
    would_do = _rows_that_would_do(failed, rate / comparisons)
    return dataclasses.replace(
        failed,
        outcome=Outcome.INCONCLUSIVE,
        said=f"{failed.said.removesuffix('.')}, but among {comparisons:,} comparisons "
        f"that may be chance: not enough data to tell.{would_do}",
    )


def _number(value: float) -> str:
    return "not a number" if math.isnan(value) else f"{value:.6g}"


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")


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
