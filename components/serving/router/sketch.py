"""A sketch of latencies: counts by bucket, each 2 % wider than the one before.

Counts are a plain dict, which goes into JSON; two sketches are merged by adding their
counts. Bucket 0 holds all up to a microsecond, bucket i all above 1.02^(i-1)
microseconds up to 1.02^i, and the last one everything above as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

RATIO = 1.02
"""How far apart the bounds of a bucket are."""

LEAST_SECONDS = 1e-6
MOST_SECONDS = 1e3

RELATIVE_ERROR = math.sqrt(RATIO) - 1
"""How far a quantile may be off, from `LEAST_SECONDS` to `MOST_SECONDS`: below 1 %."""

_LOG_RATIO = math.log(RATIO)

LAST_BUCKET = math.ceil(math.log(MOST_SECONDS / LEAST_SECONDS) / _LOG_RATIO)


def bucket_of(seconds: float) -> int:
    """Return the bucket of a latency.

    Raises:
        ValueError: If it is negative or no number.
    """
    if not seconds >= 0:
        raise ValueError(f"{seconds} seconds is no latency")
    if seconds <= LEAST_SECONDS:
        return 0
    if seconds >= MOST_SECONDS:
        return LAST_BUCKET
    return math.ceil(math.log(seconds / LEAST_SECONDS) / _LOG_RATIO)


def upper_bound(bucket: int) -> float:
    """Return the greatest latency of a bucket, in seconds."""
    return LEAST_SECONDS * RATIO**bucket


def add(counts: dict[int, int], seconds: float) -> None:
    """Count a latency."""
    bucket = bucket_of(seconds)
    counts[bucket] = counts.get(bucket, 0) + 1


def merged(*sketches: Mapping[int, int]) -> dict[int, int]:
    """Return the sketch of all that was counted in any."""
    total: dict[int, int] = {}
    for counts in sketches:
        for bucket, count in counts.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile(counts: Mapping[int, int], q: float) -> float | None:
    """Return a latency that a share q of those counted do not exceed, in seconds.

    It is off by at most `RELATIVE_ERROR` from the smallest latency that does so, which
    `numpy.quantile(..., method="inverted_cdf")` returns.

    Args:
        counts: The sketch.
        q: The share, from 0 to 1.

    Returns:
        The geometric middle of the bucket; None if nothing was counted.
    """
    bounds = quantile_bounds(counts, q)
    return None if bounds is None else math.sqrt(bounds[0] * bounds[1])


def quantile_bounds(counts: Mapping[int, int], q: float) -> tuple[float, float] | None:
    """Return between what bounds a quantile lies, in seconds.

    Args:
        counts: The sketch.
        q: The share, from 0 to 1.

    Returns:
        The bounds of the bucket; None if nothing was counted.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"{q} is no share")
    total = sum(counts.values())
    if not total:
        return None
    # As NumPy does it: the product is not rounded up where it is a whole number.
    wanted = max(1, math.ceil(q * total))
    reached = 0
    for bucket in sorted(counts):
        reached += counts[bucket]
        if reached >= wanted:
            break
    return upper_bound(bucket - 1), upper_bound(bucket)


def count_above(counts: Mapping[int, int], seconds: float) -> int:
    """Return how many latencies lie in buckets above the one of a latency."""
    border = bucket_of(seconds)
    return sum(count for bucket, count in counts.items() if bucket > border)
