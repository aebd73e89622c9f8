"""Fixed designs, for comparison: group-sequential constants, sample sizes, and peeking.

Rollouts are decided without them, because nobody knows beforehand when to look. They
are what an experiment with a known horizon uses, and what the rollout's tests are held
to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from penstock.schemas.errors import ServingError, did_you_mean, quoted

Array = npt.NDArray[Any]
Shape = Literal["pocock", "obrien-fleming"]

_NODES = 48  # Gauss-Legendre nodes of a panel of 8: crossing to 1e-9
_FARTHEST = 9.0  # standard deviations


def crossing_probability(bounds: Sequence[float], drift: float = 0.0) -> float:
    """Return the chance that a z statistic leaves its bounds at one of its looks.

    Looks are equally spaced in information. The distribution of what has not crossed is
    carried from look to look by numerical integration (Armitage, McPherson & Rowe 1969,
    Journal of the Royal Statistical Society A 132, 235-244).

    Args:
        bounds: For each look, the |z| at which it stops.
        drift: Expected z at the last look; 0 for no effect.

    Raises:
        ServingError: There are no looks, or a bound is not above 0.
    """
    if not bounds or not all(bound > 0 for bound in bounds):
        raise ServingError(
            f"The bounds of a sequential design are {list(bounds)}. Write at least "
            "one, and numbers above 0."
        )
    looks = len(bounds)
    # In units of one look's information: sums S_k with increments N(step, 1).
    step = drift / math.sqrt(looks)
    nodes, node_weights = special.roots_legendre(_NODES)
    alive_at = np.zeros(1)
    alive = np.ones(1)
    crossed = 0.0
    for look, bound in enumerate(bounds, 1):
        edge = bound * math.sqrt(look)
        up = stats.norm.sf(edge - alive_at - step)
        down = stats.norm.cdf(-edge - alive_at - step)
        crossed += float(alive @ (up + down))
        # What lies farther out than this from everything alive has no weight.
        low = max(-edge, float(alive_at.min()) + step - _FARTHEST)
        high = min(edge, float(alive_at.max()) + step + _FARTHEST)
        if high <= low:
            break
        at, weights = _panels(low, high, nodes, node_weights)
        density = stats.norm.pdf(at[:, None] - alive_at[None, :] - step) @ alive
        alive_at, alive = at, density * weights
    return crossed


def _panels(
    low: float, high: float, nodes: Array, node_weights: Array
) -> tuple[Array, Array]:
    """Return quadrature nodes and weights on an interval, in panels at most 8 wide."""
    panels = max(1, math.ceil((high - low) / 8))
    edges = np.linspace(low, high, panels + 1)
    half = (edges[1:] - edges[:-1]) / 2
    middle = (edges[1:] + edges[:-1]) / 2
    at = middle[:, None] + half[:, None] * nodes[None, :]
    weights = half[:, None] * node_weights[None, :]
    return at.ravel(), weights.ravel()


def group_bounds(shape: Shape, constant: float, looks: int) -> tuple[float, ...]:
    """Return the bounds of a design for each look.

    Pocock's are all the same; O'Brien and Fleming's are constant · √(looks / look).
    """
    legal = ("pocock", "obrien-fleming")
    if shape not in legal:
        raise ServingError(
            f"There is no design '{shape}' (there are {quoted(legal)})."
            f"{did_you_mean(str(shape), legal)}"
        )
    if shape == "pocock":
        return (constant,) * looks
    return tuple(constant * math.sqrt(looks / look) for look in range(1, looks + 1))


def group_constant(shape: Shape, looks: int, alpha: float = 0.05) -> float:
    """Return the constant with which a design of so many looks has a level.

    Pocock 1977, Biometrika 64, 191-199; O'Brien & Fleming 1979, Biometrics 35, 549-556.

    Args:
        shape: Which design.
        looks: How many equally spaced looks, at least 1.
        alpha: Its two-sided level.

    Raises:
        ServingError: A value is out of its range.
    """
    if looks < 1 or not 0 < alpha < 1:
        raise ServingError(
            f"A design of {looks} looks at level {alpha:g} cannot be. Write at least "
            "one look and a level between 0 and 1."
        )

    def excess(constant: float) -> float:
        return crossing_probability(group_bounds(shape, constant, looks)) - alpha

    # With one look the constant is the normal quantile; with many, Bonferroni's is
    # more.
    low = float(stats.norm.isf(alpha / 2)) * 0.999
    high = float(stats.norm.isf(alpha / (2 * looks))) * 1.001
    return float(optimize.brentq(excess, low, high, xtol=1e-9))


def peeking(looks: int, z: float = 1.959963984540054) -> float:
    """Return how often a fixed |z| is exceeded at one of so many looks, by chance
    alone.

    The negative control: what a fixed test at every look does to its 5 %.
    """
    return crossing_probability((z,) * looks)


def units_for_drop(
    base: float, relative: float, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Return how many units per arm show a relative change of a proportion.

    The two-sided z test of two proportions, with the variance of `base` in both arms.

    Args:
        base: The proportion on stable.
        relative: The change; -0.15 for 15 % less.
        alpha: Two-sided level.
        power: How often it is to be found.
    """
    _check_share("base", base)
    _check_share("base with the change", base * (1 + relative))
    spread = (_quantile(alpha / 2) + _quantile(1 - power)) ** 2 * 2 * base * (1 - base)
    return math.ceil(spread / (base * relative) ** 2)


def units_for_ratio(
    expected: float, actual: float, *, alpha: float = 0.001, power: float = 0.8
) -> int:
    """Return how many units in all show that an assignment has another share.

    The χ² test of two cells, that is, the z test with the variance of `expected`.

    Args:
        expected: The share that the candidate should get.
        actual: The one that it gets.
        alpha: Level.
        power: How often it is to be found.
    """
    _check_share("expected", expected)
    _check_share("actual", actual)
    spread = (_quantile(alpha / 2) + _quantile(1 - power)) ** 2
    return math.ceil(spread * expected * (1 - expected) / (actual - expected) ** 2)


def _quantile(tail: float) -> float:
    return float(stats.norm.isf(tail))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ServingError(
            f"A sample size was asked for with '{name}' {value:g}, which is no share. "
            "Write a number between 0 and 1."
        )
