"""Finding the place of a number among thousands of edges without searching for it.

A monotone map takes numbers to buckets, fine enough that few hold two edges. The edges
in buckets before a number's own are below it; the one in its own is compared; only
where there are more is it searched for. Rounding does not change the answer: rounded
differences and products are monotone, too.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PER_EDGE = 16
_MOST_SEARCHED = 1 / 4
# One edge in so many, on each side, may be far out: it is searched for instead.
_PER_OUTLIER = 512
_ALL_BUT_SIGN = np.int64(2**63 - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """A map from numbers to buckets, and the edges that each has.

    Attributes:
        edges: Shape (b,), rising.
        by: What is divided evenly: the value, or the digits of its float, which are as
            its logarithm and suit long tails.
        first: Where the buckets begin.
        scale: Buckets per unit of what is divided, or bits that are left out.
        before: Edges in earlier buckets, shape (buckets,), uint16.
        has_many: Whether a bucket has more than one edge, same shape.
    """

    edges: Floats
    by: Literal["value", "digits"]
    first: float | int
    scale: float | int
    before: npt.NDArray[np.uint16]
    has_many: npt.NDArray[np.bool_]

    def edges_below(self, values: Floats) -> Ints:
        """Return how many edges are below each value: searchsorted, side "left".

        Args:
            values: Finite, shape (n,).
        """
        if self.by == "value":
            bucket = _by_value(values, float(self.first), self.scale, len(self.before))
        else:
            bucket = _by_digits(
                values, int(self.first), int(self.scale), len(self.before)
            )
        found = self.before.take(bucket).astype(np.int64)
        found += values > self._ended.take(found)
        searched = np.flatnonzero(self.has_many.take(bucket))
        if len(searched):
            found[searched] = np.searchsorted(self.edges, values[searched])
        return found

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ended", np.append(self.edges, np.inf))

    _ended: Floats = dataclasses.field(init=False, repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What counts numbers between edges.

    Attributes:
        edges: Shape (b,), rising; equal ones share their numbers' place, the first.
        buckets: None if none suit the edges: then numbers are sorted instead.
    """

    edges: Floats
    buckets: Buckets | None

    @classmethod
    def of(cls, edges: Floats) -> Search:
        """Return the search for some edges, shape (b,), rising."""
        return cls(edges, buckets_of(edges))

    def counts(self, values: Floats) -> Ints:
        """Return how many values are in each place.

        Args:
            values: Finite, shape (n,).

        Returns:
            Shape (b + 2,): below the first edge, equal to it, in (first, second], ...,
            above the last.
        """
        if not len(self.edges):
            return np.array([0, len(values)])
        if self.buckets is None:
            ordered = np.sort(values)
            upto = np.searchsorted(ordered, self.edges, "right")
            found = np.diff(upto, prepend=0, append=len(ordered))
        else:
            found = np.bincount(
                self.buckets.edges_below(values), minlength=len(self.edges) + 1
            )
        below = int(np.count_nonzero(values < self.edges[0]))
        return np.concatenate([[below, found[0] - below], found[1:]])


def buckets_of(edges: Floats) -> Buckets | None:
    """Return the better map for some edges; None if too many would share a bucket.

    Args:
        edges: Rising and finite, shape (b,), b at most 65,535.
    """
    if len(edges) < 2:
        return None
    most = _PER_EDGE * (1 << (len(edges) - 1).bit_length())
    left_out = len(edges) // _PER_OUTLIER
    low, high = edges[left_out], edges[-1 - left_out]
    best: Buckets | None = None
    fewest = _MOST_SEARCHED * len(edges)
    with np.errstate(all="ignore"):
        scale = float((most - 2) / (high - low))
    if 0 < scale < np.inf:
        bucket = _by_value(edges, float(low), scale, most)
        best, fewest = _better(
            best, fewest, edges, bucket, most, "value", float(low), scale
        )
    digits = _rising_bits(np.array([low, high]))
    bits = (int(digits[1]) - int(digits[0])).bit_length()
    shift = max(bits - most.bit_length() + 1, 0)
    first = int(digits[0]) >> shift
    bucket = _by_digits(edges, first, shift, most)
    best, _ = _better(best, fewest, edges, bucket, most, "digits", first, shift)
    return best


def _better(
    best: Buckets | None,
    fewest: float,
    edges: Floats,
    bucket: Ints,
    most: int,
    by: Literal["value", "digits"],
    first: float | int,
    scale: float | int,
) -> tuple[Buckets | None, float]:
    held = np.bincount(bucket, minlength=most)
    sharing = int(held[held > 1].sum())
    if sharing > fewest or (best is not None and sharing == fewest):
        return best, fewest
    before = (np.cumsum(held) - held).astype(np.uint16)
    return Buckets(edges, by, first, scale, before, held > 1), sharing


def _by_value(values: Floats, first: float, scale: float, most: int) -> Ints:
    # Far values overflow to infinity, which belongs to the outermost bucket.
    with np.errstate(over="ignore"):
        apart = values - first
        apart *= scale
    apart += 1.0
    np.maximum(apart, 0.0, out=apart)
    np.minimum(apart, most - 1, out=apart)
    return apart.astype(np.int64)


def _by_digits(values: Floats, first: int, shift: int, most: int) -> Ints:
    bucket = _rising_bits(values)
    bucket >>= np.int64(shift)
    # Limited before the difference, which would overflow for values far away.
    np.maximum(bucket, first, out=bucket)
    np.minimum(bucket, first + most - 1, out=bucket)
    bucket -= np.int64(first)
    return bucket


def _rising_bits(values: Floats) -> Ints:
    """Return the bits of floats as integers that rise with them.

    -0.0, whose bits would come before those of 0.0, is made 0.0 by adding it.
    """
    bits = (values + 0.0).view(np.int64)
    return np.asarray(bits ^ ((bits >> np.int64(63)) & _ALL_BUT_SIGN), np.int64)
