"""Counts of values by name, bounded: exact up to a limit, then a Misra-Gries summary.

Mergeable as Agarwal, Cormode, Huang, Phillips, Wei & Yi 2012 (Mergeable summaries)
show: what a count may be too low by is added up and stated.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

MOST_NAMES = 1_000
"""Most names that are kept."""

MOST_BYTES = 4_096
"""Most bytes that they take, sorted and without what they share with the one before."""

LONGEST = 120
"""Most characters of a name; the rest is cut off and hashed."""


@dataclasses.dataclass(frozen=True)
class Unseen:
    """Counts of values by name.

    Attributes:
        counts: By name, by falling count and then by name.
        other: How many values more there are, not counted under a name.
        error: By how much a count may be too low, and how often at most a value can
            have come that has no name here. 0 means exact.
    """

    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    other: int = 0
    error: int = 0


def bounded(unseen: Unseen) -> Unseen:
    """Return counts with few enough names, those that came most often.

    The count of the first name that is left out is taken from all that stay: so a
    count is too low by at most that, as in the summary of Misra & Gries 1982, and what
    is taken grows with the number of values over the number of names.
    """
    ranked = sorted(
        ((name, count) for name, count in unseen.counts.items() if count > 0),
        key=lambda each: (-each[1], each[0]),
    )
    kept = _fitting([name for name, _ in ranked])
    if kept == len(ranked):
        return Unseen(dict(ranked), unseen.other, unseen.error)
    taken = ranked[kept][1]
    total = sum(count for _, count in ranked)
    left = {name: count - taken for name, count in ranked[:kept] if count > taken}
    return Unseen(left, unseen.other + total - sum(left.values()), unseen.error + taken)


def together(one: Unseen, two: Unseen) -> Unseen:
    """Return the counts of both, however many names that makes; errors add up."""
    if not (two.counts or two.other):
        return one
    if not (one.counts or one.other):
        return two
    total = dict(one.counts)
    for name, count in two.counts.items():
        total[name] = total.get(name, 0) + count
    return Unseen(total, one.other + two.other, one.error + two.error)


def subtracted(whole: Unseen, part: Unseen) -> Unseen:
    """Return the counts without those of a part.

    Exact if both are. Else the total stays right and the counts are within the error.
    """
    left = {
        name: max(count - part.counts.get(name, 0), 0)
        for name, count in whole.counts.items()
    }
    total = sum(whole.counts.values()) + whole.other
    total -= sum(part.counts.values()) + part.other
    kept = {name: count for name, count in left.items() if count}
    ranked = sorted(kept.items(), key=lambda each: (-each[1], each[0]))
    error = whole.error + part.error
    return Unseen(dict(ranked), max(total - sum(kept.values()), 0), error)


def size(names: Iterable[str]) -> int:
    """Return how many bytes names take, sorted, each without what it shares."""
    ordered = sorted(name.encode("utf-8", "surrogatepass") for name in names)
    total = len(ordered[0]) + 2 if ordered else 0
    for before, name in itertools.pairwise(ordered):
        total += len(name) - shared(before, name) + 2
    return total


def shared(one: bytes, two: bytes) -> int:
    """Return how many first bytes two names share, at most 255."""
    most = min(len(one), len(two), 255)
    for place in range(most):
        if one[place] != two[place]:
            return place
    return most


def _fitting(ranked: list[str]) -> int:
    """Return how many of the first names fit: the most that do, by halving."""
    most = min(len(ranked), MOST_NAMES)
    if size(ranked[:most]) <= MOST_BYTES:
        return most
    low, high = 0, most
    while low + 1 < high:
        middle = (low + high) // 2
        if size(ranked[:middle]) <= MOST_BYTES:
            low = middle
        else:
            high = middle
    return low
