"""Fixed designs: constants, sizes, and what peeking does to a fixed test."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import GofChisquarePower

from penstock.components.serving.rollout.designs import (
    crossing_probability,
    group_bounds,
    group_constant,
    peeking,
    units_for_drop,
    units_for_ratio,
)
from penstock.schemas.errors import ServingError

DRIFT = float(stats.norm.isf(0.025) + stats.norm.isf(0.2))  # fixed power 0.8


@pytest.mark.parametrize(
    ("looks", "rate"),
    [
        *((1, 0.050), (2, 0.083), (3, 0.107), (4, 0.126), (5, 0.142)),
        *((10, 0.193), (20, 0.248), (50, 0.320), (100, 0.374)),
    ],
)
def test_peeking_with_a_fixed_z_is_as_wrong_as_armitage_found(
    looks: int, rate: float
) -> None:
    # Armitage, McPherson & Rowe 1969, table 2.
    assert peeking(looks) == pytest.approx(rate, abs=6e-4)


def test_peeking_agrees_with_simulation_at_200_looks() -> None:
    rng = np.random.default_rng(0)
    sums = np.cumsum(rng.normal(size=(20_000, 200)), axis=1)
    z = np.abs(sums) / np.sqrt(np.arange(1, 201))
    simulated = float((z > 1.959963984540054).any(axis=1).mean())
    assert peeking(200) == pytest.approx(simulated, abs=0.011)
    assert peeking(200) == pytest.approx(0.421, abs=0.005)


@pytest.mark.parametrize(
    ("shape", "looks", "constant"),
    [
        *(("pocock", 5, 2.413), ("pocock", 10, 2.555), ("pocock", 20, 2.672)),
        *(("obrien-fleming", 5, 2.040), ("obrien-fleming", 10, 2.087)),
        ("obrien-fleming", 20, 2.126),
    ],
)
def test_group_sequential_constants_are_the_known_ones(
    shape: Any, looks: int, constant: float
) -> None:
    assert group_constant(shape, looks) == pytest.approx(constant, abs=1e-3)


@pytest.mark.parametrize("shape", ["pocock", "obrien-fleming"])
def test_one_look_is_the_fixed_test(shape: Any) -> None:
    assert group_constant(shape, 1, 0.05) == pytest.approx(1.959964, abs=1e-6)
    assert group_constant(shape, 1, 1e-6) == pytest.approx(
        float(stats.norm.isf(5e-7)), abs=1e-6
    )


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.001])
@pytest.mark.parametrize("shape", ["pocock", "obrien-fleming"])
def test_a_constant_has_the_level_that_it_was_made_for(
    shape: Any, alpha: float
) -> None:
    bounds = group_bounds(shape, group_constant(shape, 7, alpha), 7)
    assert crossing_probability(bounds) == pytest.approx(alpha, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "powers"),
    [("pocock", (0.71, 0.68, 0.66)), ("obrien-fleming", (0.790, 0.783, 0.785))],
)
def test_group_sequential_designs_have_their_known_power(
    shape: Any, powers: tuple[float, ...]
) -> None:
    for looks, power in zip((5, 10, 20), powers, strict=True):
        bounds = group_bounds(shape, group_constant(shape, looks), looks)
        # The reference was simulated 40,000 times, and is given in 2 or 3 digits.
        assert crossing_probability(bounds, DRIFT) == pytest.approx(power, abs=0.006)


def test_one_look_crosses_as_the_normal_distribution_says_also_far_out() -> None:
    for bound in (0.5, 2.0, 8.0, 30.0):
        exact = 2 * stats.norm.sf(bound)
        assert crossing_probability([bound]) == pytest.approx(exact, rel=1e-10)
    assert crossing_probability([2.0], 3.0) == pytest.approx(
        stats.norm.sf(-1.0) + stats.norm.cdf(-5.0), rel=1e-10
    )


def test_two_looks_cross_as_the_bivariate_normal_distribution_says() -> None:
    both = stats.multivariate_normal([0, 0], [[1, math.sqrt(0.5)], [math.sqrt(0.5), 1]])
    stay = both.cdf([2.0, 2.2], lower_limit=[-2.0, -2.2])
    assert crossing_probability([2.0, 2.2]) == pytest.approx(1 - stay, abs=1e-5)


@pytest.mark.parametrize(
    ("base", "anchor"), [(0.02, 34_187), (0.05, 13_257), (0.2, 2_791)]
)
def test_sizes_for_a_drop_of_15_percent_are_the_known_ones(
    base: float, anchor: int
) -> None:
    # The anchor's quantiles were rounded to 1.96 and 0.8416: at most one unit more.
    assert anchor - units_for_drop(base, -0.15) in (0, 1)
    rounded = (1.96 + 0.8416) ** 2 * 2 * base * (1 - base) / (0.15 * base) ** 2
    assert math.ceil(rounded) == anchor


@pytest.mark.parametrize(
    ("expected", "actual", "anchor"), [(0.5, 0.51, 42_685), (0.05, 0.055, 32_441)]
)
def test_sizes_for_a_sample_ratio_are_the_known_ones(
    expected: float, actual: float, anchor: int
) -> None:
    effect = abs(actual - expected) / math.sqrt(expected * (1 - expected))
    oracle = GofChisquarePower().solve_power(
        effect_size=effect, n_bins=2, alpha=0.001, power=0.8
    )
    assert units_for_ratio(expected, actual) == math.ceil(oracle)
    # The anchor's quantiles were rounded to 3.2905 and 0.8416, and the size down.
    assert math.floor(((3.2905 + 0.8416) / effect) ** 2) == anchor


def test_what_is_no_design_is_refused() -> None:
    for wrong, sentence in (
        (
            lambda: crossing_probability([]),
            "The bounds of a sequential design are []. Write at least one, and numbers "
            "above 0.",
        ),
        (
            lambda: crossing_probability([2.0, -1.0]),
            "The bounds of a sequential design are [2.0, -1.0]. Write at least one, "
            "and numbers above 0.",
        ),
        (
            lambda: group_bounds("pocok", 2.0, 5),  # type: ignore[arg-type]
            "There is no design 'pocok' (there are 'obrien-fleming', 'pocock'). Did "
            "you mean 'pocock'?",
        ),
        (
            lambda: group_constant("pocock", 0),
            "A design of 0 looks at level 0.05 cannot be. Write at least one look and "
            "a level between 0 and 1.",
        ),
        (
            lambda: units_for_drop(2.0, -0.15),
            "A sample size was asked for with 'base' 2, which is no share. Write a "
            "number between 0 and 1.",
        ),
    ):
        with pytest.raises(ServingError, match=f"^{re.escape(sentence)}$"):
            wrong()
