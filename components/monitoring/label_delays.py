"""How late labels are: the curve of their delay, and whether it depends on the label.

Rows whose label is still to come say something, too: that its delay is longer than they
are old. The estimate of Kaplan and Meier takes both in (JASA 53, 1958, 457-481).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

LEAST_LABELS = 30
"""Labels below which nothing is said of their delay."""

_MOST_CLASSES = 20
_LEVEL = 1e-3  # p-value up to which labels that come early differ
_EFFECT = 0.02  # share by which they have to


@dataclasses.dataclass(frozen=True, eq=False)
class DelayCurve:
    """Which share of rows has its label after which time.

    Attributes:
        delays: The delays that were seen, rising; float64 seconds, shape (delays,).
        shares: Share of rows whose label has come by each; float64, shape (delays,).
        labels: How many labels it is made of.
        rows: Of how many rows.
        watched: Age of the oldest row, in seconds.
    """

    delays: Array
    shares: Array
    labels: int
    rows: int
    watched: float

    @property
    def ever(self) -> float:
        """Share of rows that ever get a label, as far as it was watched."""
        return float(self.shares[-1]) if len(self.shares) else 0.0

    @property
    def is_known(self) -> bool:
        """Whether there are labels enough, and rows old enough that no more come.

        Rows have to have been watched for a quarter longer than 99 % of labels took.
        """
        if self.labels < LEAST_LABELS:
            return False
        return self.quantile(0.99) * 1.25 <= self.watched

    def quantile(self, share: float) -> float:
        """Return after how many seconds a share of the labels has come; NaN of none."""
        if not len(self.delays):
            return math.nan
        place = int(np.searchsorted(self.shares, share * self.ever - 1e-12))
        return float(self.delays[min(place, len(self.delays) - 1)])

    def came_by(self, ages: Array) -> Array:
        """Return which share of rows has its label at each age; shape (ages,)."""
        if not len(self.delays):
            return np.zeros(len(ages))
        place = np.searchsorted(self.delays, ages, side="right")
        found: Array = np.append(0.0, self.shares)[place]
        return found


def delay_curve(
    durations: Array, has_come: Array, *, watched: float | None = None
) -> DelayCurve:
    """Estimate how labels come, from rows with labels and rows that wait for theirs.

    Args:
        durations: Seconds until a label came or, of rows that wait, their age; shape
            (rows,).
        has_come: Whether the label has come; booleans, shape (rows,).
        watched: Age of the oldest row; the longest duration if it is not given.
    """
    durations = np.maximum(np.asarray(durations, np.float64), 0.0)
    has_come = np.asarray(has_come, np.bool_)
    order = np.argsort(durations, kind="stable")
    ordered = durations[order]
    delays, counts = np.unique(durations[has_come], return_counts=True)
    at_risk = len(ordered) - np.searchsorted(ordered, delays, side="left")
    left = np.cumprod(1.0 - counts / np.maximum(at_risk, 1))
    return DelayCurve(
        delays,
        1.0 - left,
        int(has_come.sum()),
        len(durations),
        max([*ordered[-1:].tolist(), watched or 0.0]),
    )


@dataclasses.dataclass(frozen=True)
class LabelBias:
    """Labels that come early are others than those that come late.

    Attributes:
        label: The label that differs most; None of numbers.
        early: Its share among the labels of the first half; of numbers, their mean.
        late: Its share among the others; of numbers, their mean.
        after: Seconds by which the first half has come.
        p_value: Of such a difference by chance.
    """

    label: Any
    early: float
    late: float
    after: float
    p_value: float

    @property
    def sentence(self) -> str:
        """What it means for metrics."""
        when = f"the first {duration(self.after)}"
        what = (
            f"Labels that come within {when} are {self.early:.4g} on average and those "
            f"that come later {self.late:.4g}"
            if self.label is None
            else f"'{self.label}' is {self.early:.1%} of the labels that come within "
            f"{when} and {self.late:.1%} of those that come later"
        )
        return (
            f"{what} (p = {self.p_value:.2g}). Metrics of windows whose labels are "
            "still coming are biased; look at windows that are complete."
        )


def label_bias(delays: Array, labels: Sequence[Any]) -> LabelBias | None:
    """Compare the labels that come early with those that come late.

    Up to 20 different labels are classes, compared by a chi-squared test; more
    numbers than that by the test of Mann and Whitney.

    Args:
        delays: Seconds; of rows old enough that late labels have come; shape (labels,).
        labels: The labels.

    Returns:
        The difference; None if there is none, or too few labels to tell.
    """
    if len(delays) < 2 * LEAST_LABELS:
        return None
    median = float(np.median(delays))
    early = np.asarray(delays) <= median
    if early.all():
        return None
    values = np.array([*labels, None], object)[:-1]
    names = sorted(set(values.tolist()), key=lambda each: (str(type(each)), each))
    if len(names) > _MOST_CLASSES:
        if any(isinstance(name, (str, bytes)) for name in names):
            return None
        return _numbers_apart(values.astype(np.float64), early, median)
    from scipy.stats import chi2_contingency

    codes = {name: place for place, name in enumerate(names)}
    places = np.array([codes[value] for value in values.tolist()])
    table = np.stack(
        [np.bincount(places[side], minlength=len(names)) for side in (early, ~early)]
    )
    if len(names) < 2:
        return None
    p_value = float(chi2_contingency(table, correction=False)[1])
    shares = table / table.sum(axis=1, keepdims=True)
    # Of two classes the later in order, such as 1 of 0 and 1.
    gaps = np.abs(shares[0] - shares[1])
    most = int(np.flatnonzero(gaps >= gaps.max() - 1e-9)[-1])
    if p_value > _LEVEL or gaps[most] < _EFFECT:
        return None
    return LabelBias(
        names[most], float(shares[0][most]), float(shares[1][most]), median, p_value
    )


def _numbers_apart(values: Array, early: Array, median: float) -> LabelBias | None:
    from scipy.stats import mannwhitneyu

    test = mannwhitneyu(values[early], values[~early])
    count = float(early.sum()) * float((~early).sum())
    # The statistic over all pairs is the share of pairs in which early is larger.
    if test.pvalue > _LEVEL or abs(test.statistic / count - 0.5) < _EFFECT / 2:
        return None
    return LabelBias(
        None,
        float(values[early].mean()),
        float(values[~early].mean()),
        median,
        float(test.pvalue),
    )


def duration(seconds: float) -> str:
    """Return a stretch of time as texts say it."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
