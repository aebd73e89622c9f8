"""What changed, in words: measures as sentences, and the place that moved most."""

from __future__ import annotations

import math

import numpy as np

from penstock.components.monitoring import kernels
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.measures import Measure
from penstock.components.monitoring.profile import ColumnProfile

BINS = 20
"""Most bins that a column is divided into."""

_LEAST_MOVED = 0.001


def side_by_side(
    reference: ColumnProfile, current: ColumnProfile, bins: int = BINS
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Return a column side by side, in bins that the reference fills alike.

    To find what moved; `distribution` is for looking at. Numbers are divided at
    quantiles of the reference, with bins of their own for what
    is below and above all of it; categories are the most frequent ones of the
    reference, then all others, then unseen ones.
    """
    if reference.grid.kind == "numeric":
        return _numeric(reference, current, bins)
    r, c = np.asarray(reference.counts), np.asarray(current.counts)
    names = reference.grid.categories
    shown = min(len(names), bins - 2)
    labels = [*names[:shown]]
    left, right = [*r[:shown]], [*c[:shown]]
    rest = int(r[shown:].sum()), int(c[shown:].sum())
    if any(rest):
        labels.append(
            f"{len(names) - shown} others" if shown < len(names) else "others"
        )
        left.append(rest[0])
        right.append(rest[1])
    if current.unseen_values:
        labels.append("unseen before")
        left.append(0)
        right.append(current.unseen_values)
    return tuple(labels), _shares(np.array(left)), _shares(np.array(right))


def moved(reference: ColumnProfile, current: ColumnProfile) -> str:
    """Return the place that gained or lost the greatest share of values, in words.

    Empty if there are none, or nothing moved by a thousandth.
    """
    labels, left, right = side_by_side(reference, current, 12)
    if not labels or not any(right) or not any(left):
        return ""
    names = _most_frequent(current)
    changes = [b - a for a, b in zip(left, right, strict=True)]
    at = max(range(len(changes)), key=lambda i: (abs(changes[i]), changes[i]))
    if abs(changes[at]) < _LEAST_MOVED:
        return ""
    more = "more" if changes[at] > 0 else "fewer"
    label = labels[at]
    if label == "unseen before":
        return f"{percent(right[at])} of the values are unseen before{names}"
    if reference.grid.kind == "category":
        label = f"are {label}" if label.endswith("others") else f"are '{label}'"
    elif " to " in label:
        label = f"from {label}"
    elif not label.startswith(("below", "above")):
        label = f"equal to {label}"
    return f"{more} values {label}: {percent(right[at])} instead of {percent(left[at])}"


def sentence_of(
    measure: Measure, reference: ColumnProfile, current: ColumnProfile
) -> str:
    """Return what a measure says, in a sentence."""
    value, effect = measure.value, measure.effect
    before = reference.missing / max(reference.rows, 1)
    after = current.missing / max(current.rows, 1)
    direction = "greater" if value > 0 else "smaller"
    texts = {
        "mean_shift": f"Values are {direction} by {abs(value):.3f} standard deviations",
        "ks": f"The distribution functions are up to {percent(value)} apart",
        "chi_squared": f"Pearson's statistic of the bins is {value:.1f}",
        "l_infinity": f"Shares of single values changed by up to {percent(value)}",
        "missing": (
            f"{percent(after)} of the rows have no value instead of {percent(before)}"
        ),
        "nan": f"The share of NaN changed by {points(value)}",
        "infinite": f"The share of infinite values changed by {points(value)}",
        "zeros": f"The share of zeros changed by {points(value)}",
        "unseen": f"{percent(value)} of the values are unseen before"
        + _most_frequent(current),
        "vanished": f"A value that {percent(value)} of the reference has is gone",
        "out_of_range": f"{percent(value)} of the values are beyond the reference's "
        "ends",
        "psi": f"PSI is {value:.3f}, of which chance makes {value - effect:.3f}",
        "js": f"The Jensen-Shannon distance is {value:.3f}",
        "hellinger": f"The Hellinger distance is {value:.3f}",
        "wasserstein": f"The Wasserstein distance is {value:.3f} spreads",
        "type": f"{percent(value)} of the values are of another type"
        + (f" ({current.type})" if current.type else ""),
    }
    return f"{texts[measure.drift_type]}{_evidence(measure)}."


def _evidence(measure: Measure) -> str:
    if measure.p_value is None or measure.drift_type == "type":
        return ""
    if math.isnan(measure.critical):
        return f" (p = {p_text(measure.p_value)})"
    return f" (p = {p_text(measure.p_value)}; critical {measure.critical:.3g})"


def p_text(p: float) -> str:
    """Return a p-value as texts have it."""
    return "below 1e-300" if p < 1e-300 else f"{p:.2g}"


def percent(share: float) -> str:
    """Return a share as a percentage with as many digits as tell it from 0."""
    digits = 1 if abs(share) >= 0.01 or share == 0 else 2 if abs(share) >= 1e-3 else 3
    return f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """Return a difference of two shares, with its sign, in points of a percentage."""
    return f"{100 * difference:+.2f} points"


def _numeric(
    reference: ColumnProfile, current: ColumnProfile, bins: int
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    r, c = np.asarray(reference.counts), np.asarray(current.counts)
    edges = reference.grid.edges
    if not len(edges):
        return (), (), ()
    starts = kernels.bins_of(r[1:-1], bins - 2)
    left = [*kernels.binned(r[1:-1], starts)]
    right = [*kernels.binned(c[1:-1], starts)]
    labels = []
    for i, start in enumerate(starts):
        last = starts[i + 1] - 1 if i + 1 < len(starts) else len(edges) - 1
        low, high = edges[max(start - 1, 0)], edges[last]
        if last == start and (start == 0 or len(edges) <= BINS):
            labels.append(number(high))
        else:
            labels.append(f"{number(low)} to {number(high)}")
    if c[0]:
        labels.insert(0, f"below {number(edges[0])}")
        left.insert(0, 0.0)
        right.insert(0, float(c[0]))
    if c[-1]:
        labels.append(f"above {number(edges[-1])}")
        left.append(0.0)
        right.append(float(c[-1]))
    return tuple(labels), _shares(np.array(left)), _shares(np.array(right))


def number(value: float) -> str:
    """Return a number in at most five digits."""
    return f"{value:.5g}"


def _shares(counts: Array) -> tuple[float, ...]:
    return tuple(float(share) for share in kernels.shares(counts))


def _most_frequent(current: ColumnProfile) -> str:
    """Return the unseen value that came most often, in parentheses; or nothing."""
    if not current.unseen:
        return ""
    name = max(current.unseen, key=lambda each: current.unseen[each])
    return f", most often '{name}'"
