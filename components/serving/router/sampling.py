"""Which requests are logged: a rate for each stratum, and never too few a minute.

Every request draws a number u from [0, 1). At the end of a minute those of a stratum
are kept whose u is below the threshold

    T = max(rate, the (k+1)-th smallest u of the minute),     k = `AT_LEAST`,

or all of them (T = 1) where there were at most k. So a stratum keeps min(k, n) of n
requests at least, and the share `rate` where that is more.

Each record carries T as its sampling probability, and weighted by 1/T totals are
unbiased, exactly. Take request i and hold the draws of all others fixed. Let

    T_i = max(rate, the k-th smallest u of the others),     or 1 if there are fewer.

T_i does not depend on u_i, and i is kept if and only if u_i < T_i; and whenever it is
kept, T = T_i: either u_i is among the k smallest, and the k-th smallest of the others
is the (k+1)-th of all, or u_i < rate, and both maxima are the rate. Hence

    E[1{i is kept} / T | the others] = P(u_i < T_i) / T_i = 1.

The estimator is the one for bottom-k samples by conditioning on ranks (Cohen and
Kaplan, "Summarizing data using bottom-k sketches", PODC 2007), with a floor on T.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

AT_LEAST = 100
"""So many requests of a stratum are kept of a minute, if there are as many."""

WINDOW_SECONDS = 60.0

_T = TypeVar("_T")


class Window(Generic[_T]):
    """The requests of one stratum in one minute.

    At most `at_least` + 1 of them are held at a time: as soon as so many draws lie
    below the rate, the threshold is the rate whatever comes later, and nothing waits
    for the end of the minute any more.

    Args:
        rate: Share that is kept at least, from 0 to 1.
        at_least: How many are kept at least, if there are as many.
    """

    def __init__(self, rate: float, at_least: int = AT_LEAST) -> None:
        self._rate = rate
        self._size = at_least + 1
        # The smallest draws so far, the greatest of them first.
        self._smallest: list[tuple[float, int, _T]] = []
        self._ties = itertools.count()
        self._settled = rate >= 1

    def draw(self, u: float, item: _T) -> list[tuple[float, _T]]:
        """Take in a request; return those that are kept for sure, with the threshold.

        Args:
            u: Its draw, from [0, 1).
            item: The request.
        """
        if self._settled:
            return [(self._rate, item)] if u < self._rate else []
        entry = (-u, next(self._ties), item)
        if len(self._smallest) < self._size:
            heapq.heappush(self._smallest, entry)
        else:
            heapq.heappushpop(self._smallest, entry)
        self._settled = self._is_full and -self._smallest[0][0] <= self._rate
        return self._taken(self._rate) if self._settled else []

    def end(self) -> list[tuple[float, _T]]:
        """Return the requests that are kept and were not returned yet."""
        return self._taken(-self._smallest[0][0] if self._is_full else 1.0)

    @property
    def _is_full(self) -> bool:
        return len(self._smallest) == self._size

    def _taken(self, threshold: float) -> list[tuple[float, _T]]:
        entries, self._smallest = self._smallest, []
        entries.sort(key=lambda entry: entry[1])  # as they came
        return [
            (threshold, item) for minus_u, _, item in entries if -minus_u < threshold
        ]
