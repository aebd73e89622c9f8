"""What intervals say about bounds: against SciPy, statsmodels and plain arithmetic."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from penstock.components.evaluation.evidence import (
    RULE_OF_THREE,
    Comparison,
    Interval,
    agreeing_rows,
    holm,
    relative,
    relative_contrast,
    relative_interval,
)

NAN = math.nan
INF = math.inf


@functools.cache
def _quantile(degrees: float) -> float:
    return float(stats.t.ppf(0.975, degrees))


def around(value: float, error: float, degrees: float = INF) -> Interval:
    """The 95 % interval of a value with a standard error."""
    half = _quantile(degrees) * error
    return Interval(value - half, value + half, 0.95, degrees)


@pytest.mark.parametrize("degrees", [2.0, 7.5, 400.0, INF])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_intervals_are_scaled_by_quantiles_of_student(
    confidence: float, degrees: float
) -> None:
    scaled = around(0.8, 0.01, degrees).at(confidence, 0.8)
    low, high = stats.t.interval(confidence, degrees, 0.8, 0.01)
    assert scaled.lower == pytest.approx(low)
    assert scaled.upper == pytest.approx(high)
    assert (scaled.confidence, scaled.degrees) == (confidence, degrees)


def test_a_skewed_interval_stays_skewed() -> None:
    scaled = Interval(0.7, 0.95).at(0.99, 0.9)
    ratio = stats.norm.ppf(0.995) / stats.norm.ppf(0.975)
    assert scaled.lower == pytest.approx(0.9 - 0.2 * ratio)
    assert scaled.upper == pytest.approx(0.9 + 0.05 * ratio)


def test_an_interval_at_its_own_confidence_is_itself() -> None:
    assert Interval(0.1, 0.7).at(0.95, 0.3) == Interval(0.1, 0.7)


def test_an_interval_beside_its_value_is_widened_to_it() -> None:
    assert Interval(0.1, 0.7).at(0.95, 0.8) == Interval(0.1, 0.8)
    assert Interval(0.1, 0.7).at(0.95, 0.0) == Interval(0.0, 0.7)


def test_what_is_not_defined_stays_so() -> None:
    for interval, value in [
        (Interval(NAN, 0.7), 0.3),
        (Interval(0.1, NAN), 0.3),
        (Interval(0.1, 0.7), NAN),
    ]:
        for confidence in (0.95, 0.99):
            assert not interval.at(confidence, value).is_defined


@pytest.mark.parametrize(
    ("interval", "lower", "upper", "expected"),
    [
        (Interval(0.5, 0.7), 0.5, INF, True),
        (Interval(0.5, 0.7), -INF, 0.7, True),
        (Interval(0.5, 0.7), 0.5, 0.7, True),
        (Interval(0.5, 0.7), 0.6, INF, None),
        (Interval(0.5, 0.7), 0.7, INF, None),
        (Interval(0.5, 0.7), 0.71, INF, False),
        (Interval(0.5, 0.7), -INF, 0.49, False),
        (Interval(0.5, 0.7), 0.55, 0.65, None),
        (Interval(0.5, 0.7), 0.8, 0.9, False),
        (Interval(-INF, INF), 0.5, INF, None),
        (Interval(-INF, INF), -INF, INF, True),
        (Interval(NAN, NAN), -INF, INF, None),
    ],
)
def test_an_interval_is_good_bad_or_neither(
    interval: Interval, lower: float, upper: float, expected: bool | None
) -> None:
    assert Comparison(0.6, interval, lower, upper).is_good is expected


@pytest.mark.parametrize("degrees", [2.0, 7.5, 400.0, INF])
def test_levels_are_those_of_students_test(degrees: float) -> None:
    interval = around(0.8, 0.01, degrees)
    for bound in (0.83, 0.85, 0.9):
        level = stats.t.sf((bound - 0.8) / 0.01, degrees)
        at_least = Comparison(0.8, interval, lower=bound)
        assert at_least.level == pytest.approx(level, rel=1e-6, abs=1e-15)
        at_most = Comparison(0.8, interval, upper=1.6 - bound)
        assert at_most.level == pytest.approx(level, rel=1e-6, abs=1e-15)
        between = Comparison(0.8, interval, bound, 1.0)
        assert between.level == pytest.approx(2 * level, rel=1e-6, abs=1e-15)


def test_an_interval_that_just_reaches_its_bound_has_half_of_the_rest() -> None:
    assert Comparison(0.8, Interval(0.7, 0.9), lower=0.9).level == pytest.approx(0.025)


def test_levels_of_skewed_intervals_take_the_wider_side() -> None:
    skewed = Comparison(0.8, Interval(0.6, 0.9), lower=1.0)
    assert skewed.level == pytest.approx(0.025)
    at_the_end = Comparison(0.0, Interval(0.0, 0.1), upper=-0.1)
    assert at_the_end.level == pytest.approx(0.025)


def test_an_exact_number_is_beyond_its_bound_for_certain() -> None:
    assert Comparison(0.8, Interval(0.8, 0.8), lower=0.9).level == 0.0
    assert Comparison(INF, Interval(0.8, INF), upper=0.7).level == 0.0


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.sampled_from([0.01, 0.05, 0.3]),
)
@settings(max_examples=30)  # statsmodels collects garbage each time
def test_holm_equals_statsmodels(levels: list[float], rate: float) -> None:
    products = [
        level * (len(levels) - place) for place, level in enumerate(sorted(levels))
    ]
    assume(all(abs(each - rate) > 1e-9 for each in products))
    expected = multipletests(levels, alpha=rate, method="holm")[0]
    assert holm(levels, rate) == list(expected)


def test_holm_of_none_is_none() -> None:
    assert holm([], 0.05) == []


@pytest.mark.parametrize(
    ("value", "interval", "lower", "upper", "expected"),
    [
        # Half the distance: four times the rows.
        (0.9, Interval(0.8, 1.0), 0.85, INF, 4_000),
        (0.9, Interval(0.8, 0.95), 0.85, INF, 4_000),
        (0.9, Interval(0.85, 1.0), -INF, 0.95, 4_000),
        # Within two limits both have to be out of reach.
        (0.9, Interval(0.8, 1.0), 0.85, 0.925, 16_000),
        # On the bad side, to fail.
        (0.8, Interval(0.7, 0.9), 0.85, INF, 4_000),
        (0.8, Interval(0.7, 0.9), -INF, 0.75, 4_000),
        (0.9, Interval(0.8, 1.0), 0.83, INF, 2_100),
        (0.9, Interval(0.8, 1.0), 0.9, INF, None),
        (0.9, Interval(0.8, 1.0), 0.8999, INF, None),
        (0.9, Interval(NAN, NAN), 0.8999, INF, None),
        (0.9, Interval(-INF, INF), 0.8, INF, None),
    ],
)
def test_rows_needed_grow_with_the_square(
    value: float, interval: Interval, lower: float, upper: float, expected: int | None
) -> None:
    assert Comparison(value, interval, lower, upper).rows_needed(1_000) == expected


def test_rows_needed_at_a_level_are_those_that_reach_it() -> None:
    comparison = Comparison(0.8, around(0.8, 0.01), lower=0.825)
    assert comparison.level == pytest.approx(stats.norm.sf(2.5))
    needed = comparison.rows_needed_at(1_000, 0.001)
    assert needed == 1_600  # (3.09 / 2.5) ** 2 is 1.528
    more = Comparison(0.8, around(0.8, 0.01 / math.sqrt(1.528)), lower=0.825)
    assert more.level == pytest.approx(0.001, rel=0.01)


@pytest.mark.parametrize("rows", [10, 50, 400])
def test_rows_that_agree_tell_what_a_binomial_tells(rows: int) -> None:
    # Clopper and Pearson's exact limit, where none of the rows is wrong.
    exact = stats.beta.ppf(0.975, 1, rows)
    found = agreeing_rows(0.0, 1.0, rows, 0.95)
    assert exact <= found.upper <= exact * (1 + 3 / rows)
    assert found.lower == -found.upper
    assert found.method == RULE_OF_THREE


def test_rows_that_agree_on_nothing_tell_nothing() -> None:
    assert agreeing_rows(0.5, 2.0, 0, 0.95).upper == 2.5
    assert agreeing_rows(0.5, 2.0, 1, 0.95).upper == 2.5


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from([-0.5, 0.0, 0.25]),
)
def test_a_relative_change_is_a_share_of_the_baseline(
    baseline: float, share: float
) -> None:
    assume(baseline != 0)
    assert relative(share * baseline, baseline) == pytest.approx(share)


def test_a_relative_change_from_zero_is_infinite_or_none() -> None:
    assert relative(1e-9, 0.0) == INF
    assert relative(-1e-9, 0.0) == -INF
    assert relative(1e-9, -0.0) == INF
    assert relative(0.0, 0.0) == 0.0
    assert math.isnan(relative(NAN, 0.0))
    assert math.isnan(relative(0.1, NAN))


@pytest.mark.parametrize(
    ("difference", "baseline", "expected"),
    [
        ((1.0, 2.0), (4.0, 5.0), (0.2, 0.5)),
        ((-1.0, 2.0), (4.0, 5.0), (-0.25, 0.5)),
        ((-2.0, -1.0), (4.0, 5.0), (-0.5, -0.2)),
        ((1.0, 2.0), (-5.0, -4.0), (-0.5, -0.2)),
        ((1.0, 2.0), (0.0, 4.0), (0.25, INF)),
        ((-1.0, 2.0), (0.0, 4.0), (-INF, INF)),
        ((0.0, 2.0), (0.0, 0.0), (0.0, INF)),
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
        ((1.0, 2.0), (-1.0, 4.0), (-INF, INF)),
        ((1.0, 2.0), (-4.0, 0.0), (-INF, INF)),
    ],
)
def test_shares_are_all_those_of_the_two_intervals(
    difference: tuple[float, float],
    baseline: tuple[float, float],
    expected: tuple[float, float],
) -> None:
    found = relative_interval(
        Interval(*difference, degrees=30), Interval(*baseline, degrees=9)
    )
    assert (found.lower, found.upper) == expected
    assert found.degrees == 9


def test_shares_of_what_is_not_defined_are_not() -> None:
    defined, not_defined = Interval(0.1, 0.2), Interval(NAN, NAN)
    assert not relative_interval(not_defined, defined).is_defined
    assert not relative_interval(defined, not_defined).is_defined


NUMBERS = st.floats(-10, 10, allow_nan=False).map(lambda number: round(number, 2))
SIDES = st.floats(0, 3).map(lambda number: round(number, 2))


@given(NUMBERS, SIDES, SIDES, NUMBERS, SIDES, SIDES, NUMBERS, st.booleans())
@settings(max_examples=300)
def test_the_contrast_says_what_the_share_says(
    difference: float,
    below: float,
    above: float,
    baseline: float,
    left: float,
    right: float,
    bound: float,
    higher: bool,
) -> None:
    spread = Interval(difference - below, difference + above)
    base = Interval(baseline - left, baseline + right)
    assume(base.lower > 1e-6 or base.upper < -1e-6)
    limits = (bound, INF) if higher else (-INF, bound)
    shares = relative_interval(spread, base)
    by_share = Comparison(relative(difference, baseline), shares, *limits)
    by_contrast = relative_contrast(difference, spread, baseline, base, *limits)
    ends = (shares.lower, shares.upper)
    assume(all(abs(end - bound) > 1e-9 for end in ends))
    assert by_contrast.is_good is by_share.is_good


def test_shares_hold_the_true_one_however_the_two_depend_on_one_another() -> None:
    random = np.random.default_rng(20_240_801)
    true, errors = np.array([-0.02, 0.5]), np.array([0.01, 0.03])
    shown = []
    for correlation in (-0.95, -0.5, 0.0, 0.5, 0.95):
        drawn = true + errors * random.multivariate_normal(
            [0, 0], [[1, correlation], [correlation, 1]], size=4_000
        )
        held = 0
        for difference, baseline in drawn:
            found = relative_interval(
                around(difference, errors[0]), around(baseline, errors[1])
            )
            held += found.lower <= true[0] / true[1] <= found.upper
        shown.append(held / len(drawn))
    print(f"coverage of relative changes by correlation: {shown}")
    assert min(shown) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 4_000)
