"""The tests of one column, and the one p-value that they come to.

Each test has a weight; the p-value of the column is the smallest one of p-value by
weight (a weighted Bonferroni, valid however the tests depend on one another). A test
takes part only if its effect is large enough to matter: that makes p-values greater,
never smaller, so that the level is kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from penstock.components.monitoring import kernels
from penstock.components.monitoring.kernels import Array

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "numeric": {
        "mean_shift": 0.42,
        "ks": 0.22,
        "chi_squared": 0.10,
        "missing": 0.08,
        "zeros": 0.07,
        "l_infinity": 0.04,
        "out_of_range": 0.03,
        "nan": 0.02,
        "infinite": 0.02,
    },
    "category": {
        "chi_squared": 0.40,
        "l_infinity": 0.25,
        "unseen": 0.15,
        "missing": 0.10,
        "vanished": 0.10,
    },
}
"""By kind of column, how much of the level each test has; they add up to 1."""

EFFECTS: Mapping[str, float] = {
    "mean_shift": 0.025,
    "ks": 0.01,
    "chi_squared": 0.025,
    "l_infinity": 0.005,
    "missing": 0.005,
    "zeros": 0.01,
    "unseen": 0.005,
    "vanished": 0.005,
    "out_of_range": 0.002,
    "nan": 0.001,
    "infinite": 0.0002,
    "psi": 0.1,
    "js": 0.1,
    "hellinger": 0.1,
    "wasserstein": 0.1,
    "type": 0.005,
}
"""By drift type, the least effect that matters; PSI and distances do not decide."""

LEAST_VALUES = 50
"""Below as many values on a side only the share that is missing is tested."""

MOST_PLACES = 50
"""A numeric column with at most this many values is tested value by value, too."""

_SURELY = 1e-9


@dataclasses.dataclass(frozen=True)
class Tested:
    """A test of a column in windows; each field has their shape.

    Attributes:
        value: The statistic in its own unit.
        effect: It, less what chance adds.
        p: The p-value.
    """

    value: Array
    effect: Array
    p: Array


KsLaw = Callable[[Array, Array, Array], Array]


def combined_p(
    tests: Mapping[str, Tested],
    kind: str,
    effects: Mapping[str, float] | None = None,
) -> Array:
    """Return the p-value of a column in windows.

    Args:
        tests: By drift type.
        kind: Of the column.
        effects: The least effect by drift type that a test needs to take part; None
            to let all take part.
    """
    found: list[Array] = [np.ones(())]
    for drift_type, weight in WEIGHTS[kind].items():
        test = tests.get(drift_type)
        if test is None:
            continue
        p = test.p / weight
        if effects is not None:
            p = np.where(test.effect >= effects[drift_type], p, 1.0)
        found.append(p)
    smallest: Array = np.minimum.reduce(np.broadcast_arrays(*found))
    return np.minimum(smallest, 1.0)


def share_tests(
    counts: Mapping[str, tuple[Array, Array, Array, Array]],
) -> dict[str, Tested]:
    """Test shares of rows, such as those without a value.

    Args:
        counts: By drift type: rows of the kind and all rows of the window, the same of
            the reference.
    """
    tests = {}
    for drift_type, (a, n, b, m) in counts.items():
        value = a / np.maximum(n, 1) - b / np.maximum(m, 1)
        p = kernels.share_p(a, n, b, m) if np.any(a) or np.any(b) else np.ones(())
        tests[drift_type] = Tested(
            value, kernels.share_effect(a, n, b, m), np.broadcast_to(p, np.shape(value))
        )
    return tests


def numeric_tests(
    reference: Array,
    current: Array,
    *,
    zero_place: int | None = None,
    ks_law: KsLaw = kernels.fast_ks_p,
    coarse: int = 0,
) -> dict[str, Tested]:
    """Test the values of a numeric column, its places in the order of the values.

    Args:
        reference: Counts, shape (p,).
        current: Counts, shape (..., p). Rows in places outside of those that the
            reference uses are out of range.
        zero_place: The place that holds the value 0 alone, if there is one.
        ks_law: What makes p-values of KS distances, n and m.
        coarse: Of a continuous column that is simulated in this many places only:
            what the distance misses between them is made up for (Siegmund 1979,
            Advances in Applied Probability 11, 701-719).
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    m, n = r.sum(-1), c.sum(-1)
    size = np.maximum(kernels.harmonic(n, m), _SURELY)
    greater, z, skewness = kernels.rank_sum(r, c)
    tests = {"mean_shift": _mean_shift(greater, z, skewness)}

    distance = kernels.ks_distance(r, c)
    seen = distance + 0.5826 / np.sqrt(coarse * size) if coarse else distance
    tests["ks"] = Tested(
        distance,
        np.sqrt(np.maximum(distance**2 - kernels.MEAN_SQUARE_KOLMOGOROV / size, 0)),
        ks_law(np.minimum(seen, 1.0), n, np.broadcast_to(m, n.shape)),
    )

    starts = kernels.bins_of(r)
    tests["chi_squared"] = _chi_squared(
        *kernels.pooled_chi_squared(
            kernels.binned(r, starts), kernels.binned(c, starts)
        ),
        size,
    )

    used = np.flatnonzero(r)
    low, high = (int(used[0]), int(used[-1])) if len(used) else (0, len(r) - 1)
    tests["out_of_range"] = _out_of_range(
        c[..., :low].sum(-1), c[..., high + 1 :].sum(-1), n, m
    )
    if len(used) <= MOST_PLACES:
        tests["l_infinity"] = _clearest(r, c, n, m)
    if zero_place is not None:
        tests |= share_tests({"zeros": (c[..., zero_place], n, r[zero_place], m)})
    return _without_the_few(tests, n, m)


def category_tests(
    reference: Array,
    current: Array,
    unseen: Array,
    singles: float = 0.0,
    doubles: float = 0.0,
) -> dict[str, Tested]:
    """Test the values of a category column.

    Args:
        reference: Counts, shape (p,): by category that the reference has, and last of
            those beyond the most frequent ones, taken together.
        current: Counts, shape (..., p).
        unseen: Shape (...), the window's values that the reference does not have.
        singles: Categories of the reference that came once. Their share of its rows is
            what the categories that it has not seen should have together (Good 1953,
            Biometrika 40, 237-264).
        doubles: Categories that came twice; they say how far that estimate may be off.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    unseen = np.asarray(unseen, np.float64)
    m, n = r.sum(-1), c.sum(-1) + unseen
    size = np.maximum(kernels.harmonic(n, m), _SURELY)
    # Whether a category has a place, or was seen at all, the reference's noise has
    # decided: what has none is rare, and so is what came hardly more often than the
    # last one that has a place.
    named_r, named_c = r[:-1], c[..., :-1]
    rest = (np.broadcast_to(r[-1], n.shape), c[..., -1] + unseen)
    last = float(named_r.min()) if r[-1] and len(named_r) else 0.0
    least = last + 4 * math.sqrt(last)
    place, p = kernels.clearest_place(named_r, named_c, rest, least)
    a, b = np.take_along_axis(c, place[..., None], -1)[..., 0], r[place]
    apart = np.abs(c / np.maximum(n, 1)[..., None] - r / np.maximum(m, 1))
    tests = {
        "chi_squared": _chi_squared(
            *kernels.pooled_chi_squared(named_r, named_c, rest, least), size
        ),
        "l_infinity": Tested(
            np.maximum(apart.max(-1), unseen / np.maximum(n, 1)),
            kernels.share_effect(a, n, b, m),
            p,
        ),
        "unseen": _unseen(unseen, n, float(m), singles, doubles),
    }
    gone = np.where(named_c == 0, named_r, 0.0).max(-1, initial=0.0)
    counting = (named_r * np.minimum(n, m)[..., None] >= (n + m)[..., None]).sum(-1)
    none = np.zeros(())
    tests["vanished"] = Tested(
        gone / np.maximum(m, 1),
        kernels.share_effect(none, n, gone, m),
        np.minimum(kernels.tail_below(none, n, gone, m) * np.maximum(counting, 1), 1.0),
    )
    return _without_the_few(tests, n, m)


def _unseen(
    unseen: Array, n: Array, m: float, singles: float, doubles: float
) -> Tested:
    """Return the test that more values are unseen than the reference lets expect."""
    # The estimate singles/m of what is unseen has the variance (singles + 2 doubles)
    # / m², not the singles/m² of a count: as if it came from fewer rows.
    spread = 1 + 2 * doubles / singles if singles else 1.0
    b, m = singles / spread, m / spread
    more = unseen * max(m, 1.0) > b * n
    return Tested(
        unseen / np.maximum(n, 1),
        np.where(more, kernels.share_effect(unseen, n, b, m), 0.0),
        kernels.tail_above(unseen, n, b, m),
    )


def _mean_shift(greater: Array, z: Array, skewness: Array) -> Tested:
    """Return the shift in standard deviations that normal values would have.

    √2 Φ⁻¹(P(current > reference)); the ranks carry it to other laws.
    """
    from scipy import special

    shift = math.sqrt(2) * special.ndtri(np.clip(greater, _SURELY, 1 - _SURELY))
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(z != 0, 2 * math.sqrt(math.pi) * (greater - 0.5) / z, 0.0)
    return Tested(
        shift,
        np.sqrt(np.maximum(shift**2 - chance**2, 0)),
        kernels.normal_p(z, skewness),
    )


def _chi_squared(statistic: Array, degrees: Array, size: Array) -> Tested:
    """Return it with Cohen's w as its effect, less what chance adds."""
    return Tested(
        statistic,
        np.sqrt(np.maximum(statistic - degrees, 0) / size),
        kernels.chi_squared_p(statistic, degrees),
    )


def _clearest(r: Array, c: Array, n: Array, m: Array) -> Tested:
    """Return the test of single places."""
    place, p = kernels.clearest_place(r, c)
    a, b = np.take_along_axis(c, place[..., None], -1)[..., 0], r[place]
    apart = np.abs(kernels.shares(c) - kernels.shares(r))
    return Tested(apart.max(-1), kernels.share_effect(a, n, b, m), p)


def _out_of_range(below: Array, above: Array, n: Array, m: Array) -> Tested:
    """Return the test that more rows lie beyond the reference's ends than should.

    Of n + m rows of one law the a greatest are all the window's with probability
    C(n, a)/C(n + m, a): exactly so without ties, at most with them.
    """
    sides = [kernels.tail_above(a, n, np.zeros(()), m) for a in (below, above)]
    a = below + above
    return Tested(
        a / np.maximum(n, 1),
        kernels.share_effect(a, n, np.zeros(()), m),
        np.minimum(1.0, 2 * np.minimum(*sides)),
    )


def _without_the_few(tests: dict[str, Tested], n: Array, m: Array) -> dict[str, Tested]:
    """Return the tests with p-value 1 where a side has too few values."""
    few = np.minimum(n, m) < LEAST_VALUES
    if not np.any(few):
        return tests
    return {
        name: dataclasses.replace(test, p=np.where(few, 1.0, test.p))
        for name, test in tests.items()
    }


def effect_ratio(
    tests: Mapping[str, Tested], kind: str, effects: Mapping[str, float], level: float
) -> Array:
    """Return the greatest effect, in multiples of its limit, of significant tests.

    Args:
        tests: By drift type.
        kind: Of the column.
        effects: The limits.
        level: That p-value by weight has to reach.

    Returns:
        The tests' shape; 0 where nothing is significant and matters.
    """
    found: list[Array] = [np.zeros(())]
    for drift_type, test in tests.items():
        limit = effects[drift_type]
        passed = (test.p <= level * WEIGHTS[kind][drift_type]) & (test.effect >= limit)
        found.append(np.where(passed, test.effect / max(limit, 1e-6), 0.0))
    greatest: Array = np.maximum.reduce(np.broadcast_arrays(*found))
    return greatest
