"""E-values of counts: valid, exact in the tails, and soon large if all is not well."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penstock.components.serving.rollout import evidence
from penstock.components.serving.rollout.evidence import (
    FROM_THE_START,
    RATIO_WEIGHTS,
    RATIOS,
    log_beta_mixture,
    log_excess,
    log_imbalance,
    log_sum_exp,
    null_share,
    start_weights,
)
from penstock.components.serving.rollout.plan import Guard, Rollout
from penstock.components.serving.rollout.simulate import delay_units

WEIGHTS = (0.05, 0.2, 0.5, 1.0)


def test_the_mixtures_weights_add_up_to_1() -> None:
    assert math.fsum(RATIO_WEIGHTS) == pytest.approx(1, abs=1e-15)
    assert len(RATIOS) == len(RATIO_WEIGHTS)
    for steps in range(1, 9):
        assert start_weights(steps).sum() == pytest.approx(1, abs=1e-15)
    assert start_weights(3)[0] == FROM_THE_START


def by_fractions(counts: list[tuple[int, int]], max_ratio: Fraction) -> Fraction:
    """Return the e-value in exact arithmetic, written from its definition."""
    total = Fraction(0)
    for ratio, of_ratio in zip(RATIOS, RATIO_WEIGHTS, strict=True):
        product = Fraction(str(of_ratio))
        for percent, (stable, candidate) in zip((5, 20, 50), counts, strict=True):
            odds = max_ratio * Fraction(percent, 100 - percent)
            null = odds / (1 + odds)
            other = odds * Fraction(str(ratio))
            share = other / (1 + other)
            product *= (share / null) ** candidate
            product *= ((1 - share) / (1 - null)) ** stable
        total += product
    return total


@given(
    counts=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=3, max_size=3
    ),
    max_ratio=st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(4)]),
)
def test_the_evidence_of_an_excess_is_its_definition_in_exact_arithmetic(
    counts: list[tuple[int, int]], max_ratio: Fraction
) -> None:
    stable = [*(each for each, _ in counts), 0]
    candidate = [*(each for _, each in counts), 0]
    found = float(log_excess(stable, candidate, WEIGHTS, float(max_ratio)))
    exact = by_fractions(counts, max_ratio)
    getcontext().prec = 40
    expected = (Decimal(exact.numerator) / Decimal(exact.denominator)).ln()
    assert found == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("max_ratio", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("weights", [(0.05,), (0.3, 0.5), (0.05, 0.2, 0.5, 1.0)])
def test_evidence_of_an_excess_is_1_on_average_at_the_edge_of_what_is_tolerated(
    weights: tuple[float, ...], max_ratio: float
) -> None:
    # Over all outcomes of 12 failing units in each step, with their probabilities.
    tested = [weight for weight in weights if weight < 1]
    grids = np.meshgrid(*[np.arange(13)] * len(tested), indexing="ij")
    candidate = np.zeros((*grids[0].shape, len(weights)))
    stable = np.zeros_like(candidate)
    probability = np.ones(grids[0].shape)
    for step, (weight, x) in enumerate(zip(tested, grids, strict=True)):
        candidate[..., step], stable[..., step] = x, 12 - x
        probability *= stats.binom.pmf(x, 12, null_share(weight, max_ratio))
    e = np.exp(log_excess(stable, candidate, weights, max_ratio))
    assert float((e * probability).sum()) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("ratio", [0.2, 0.7, 0.99])
def test_evidence_of_an_excess_is_below_1_on_average_if_the_candidate_is_better(
    ratio: float,
) -> None:
    x = np.arange(41)
    probability = stats.binom.pmf(x, 40, null_share(0.2, ratio))
    e = np.exp(log_excess((40 - x)[:, None], x[:, None], (0.2,)))
    assert float((e * probability).sum()) < 1


@pytest.mark.parametrize("weight", [0.01, 0.05, 0.2, 0.5, 0.9])
def test_a_healthy_candidate_seldom_crosses_however_often_one_looks(
    weight: float,
) -> None:
    # Exactly: the chance that a path of 1,500 failing units ever reaches the limit.
    for alpha in (0.05, 0.01):
        assert 0.1 * alpha < crossing(weight, 1_500, alpha) <= alpha


def crossing(weight: float, length: int, alpha: float) -> float:
    alive = np.ones(1)
    crossed = 0.0
    for failing in range(1, length + 1):
        alive = np.append(alive * (1 - weight), 0) + np.append(0, alive * weight)
        x = np.arange(failing + 1)
        over = log_excess((failing - x)[:, None], x[:, None], (weight,)) >= -math.log(
            alpha
        )
        crossed += float(alive[over].sum())
        alive[over] = 0
        if not alive.any():
            break
    return crossed


def test_a_step_without_control_and_steps_to_come_add_nothing() -> None:
    before = log_excess([30, 0, 0, 0], [4, 0, 0, 0], WEIGHTS)
    after = log_excess([30, 0, 0, 5], [4, 0, 0, 9_000], WEIGHTS)
    assert after == before
    assert log_excess([0] * 4, [0] * 4, WEIGHTS) == pytest.approx(0, abs=1e-12)
    assert log_excess([7], [9], (1.0,)) == 0


@given(
    stable=st.lists(st.integers(0, 200), min_size=4, max_size=4),
    candidate=st.lists(st.integers(1, 50), min_size=4, max_size=4),
    steps=st.tuples(st.integers(0, 3), st.integers(0, 3)).map(sorted),
    max_ratio=st.floats(1, 20),
)
def test_a_unit_that_fails_later_on_the_candidate_never_adds_evidence(
    stable: list[int], candidate: list[int], steps: list[int], max_ratio: float
) -> None:
    # Which makes a candidate that is better than stable safe, too: its bad units fail
    # late, when stable's have failed already, and must not look like an excess then.
    sooner, later = steps
    found = log_excess(stable, candidate, WEIGHTS, max_ratio)
    candidate[sooner] -= 1
    never = log_excess(stable, candidate, WEIGHTS, max_ratio)
    candidate[later] += 1
    assert log_excess(stable, candidate, WEIGHTS, max_ratio) <= found + 1e-9
    assert never <= found + 1e-9


@pytest.mark.parametrize("failing", [100, 600, 3_000, 6_000])
@pytest.mark.parametrize("ratio", [2.0, 5.0, 100.0])
def test_what_a_healthy_step_takes_from_the_evidence_is_soon_made_up_for(
    failing: int, ratio: float
) -> None:
    # Errors rise only at 20 %: found after a third as many failing units as before, and
    # those that it takes anyway.
    before = 0.05 * failing
    share = null_share(0.2, ratio)
    more = failing / 3 + {2.0: 150, 5.0: 25, 100.0: 6}[ratio]
    logs = log_excess(
        [failing - before, more * (1 - share), 0, 0],
        [before, more * share, 0, 0],
        WEIGHTS,
    )
    assert logs >= math.log(200)


def test_one_mixture_over_the_rollout_grows_more_than_a_product_of_mixtures() -> None:
    # Errors doubled in all steps, too few failing units in any of them alone.
    rng = np.random.default_rng(7)
    candidate = np.zeros((4_000, 4))
    for step in range(3):
        candidate[:, step] = rng.binomial(60, null_share(WEIGHTS[step], 2.0), 4_000)
    stable = np.array([60, 60, 60, 0]) - candidate
    together = log_excess(stable, candidate, WEIGHTS)
    apart = np.zeros(4_000)
    for step in range(3):
        apart += log_excess(
            stable[:, [step]], candidate[:, [step]], WEIGHTS[step : step + 1]
        )
    assert together.mean() > apart.mean() + 0.3


def test_counts_of_any_size_neither_overflow_nor_underflow() -> None:
    huge = 10**12
    found = log_excess([[0] * 4, [huge] * 4], [[huge] * 4, [0] * 4], WEIGHTS)
    assert np.isfinite(found).all()
    assert found[0] > 1e12
    assert np.isfinite(log_imbalance([huge, 0, 0, 0], [huge, 0, 0, 0], WEIGHTS))


def test_evidence_is_computed_for_many_rollouts_at_once() -> None:
    rng = np.random.default_rng(0)
    stable, candidate = rng.integers(0, 100, (2, 3, 5, 4))
    for kernel in (log_excess, log_imbalance):
        together = kernel(stable, candidate, WEIGHTS)
        assert together.shape == (3, 5)
        for row in np.ndindex(3, 5):
            assert together[row] == pytest.approx(
                kernel(stable[row], candidate[row], WEIGHTS), rel=1e-12
            )


def test_log_sum_exp_is_exact_far_out() -> None:
    assert log_sum_exp(np.array([-1e6, -1e6])) == pytest.approx(-1e6 + math.log(2))
    assert log_sum_exp(np.array([1e6, -1e6])) == 1e6


# --- how soon something is found


@pytest.mark.parametrize(("step", "at_most"), [(0, 380), (1, 128), (2, 110)])
def test_doubled_errors_are_found_in_time_with_all_of_alpha(
    step: int, at_most: int
) -> None:
    whole = Rollout("m", guards=[Guard.errors(), Guard.traffic()])
    assert np.median(delay_units(whole, step, 2.0, rollouts=2_000)) <= at_most


@pytest.mark.parametrize(("step", "at_most"), [(0, 400), (1, 140), (2, 120)])
def test_doubled_errors_are_found_in_time_by_the_default_plan(
    step: int, at_most: int
) -> None:
    assert np.median(delay_units(Rollout("m"), step, 2.0, rollouts=2_000)) <= at_most


def test_a_dead_candidate_is_found_within_6_failing_units() -> None:
    for failing in range(1, 7):
        if log_excess([0, 0, 0, 0], [failing, 0, 0, 0], WEIGHTS) >= math.log(200):
            break
    assert failing <= 6
    # Even if one unit of stable failed among them.
    assert log_excess([1, 0, 0, 0], [5, 0, 0, 0], WEIGHTS) >= math.log(200)


# --- the anchors' reference: a Beta mixture of concentration 10


@pytest.mark.parametrize(
    ("share", "failures"), [(0.05, (4, 5, 6)), (0.2, (6, 8, 10)), (0.5, (12, 16, 20))]
)
def test_a_beta_mixture_needs_as_many_failures_of_a_dead_candidate_as_is_known(
    share: float, failures: tuple[int, ...]
) -> None:
    for alpha, expected in zip((0.05, 0.01, 0.001), failures, strict=True):
        needed = next(
            m
            for m in range(1, 50)
            if log_beta_mixture(m, m, share, 10.0) >= -math.log(alpha)
        )
        assert needed == expected


REFERENCE = {  # share: times more errors: (SPRT, median, 90 % quantile)
    0.05: {2: (267, 360, 712), 5: (30, 44, 85)},
    0.2: {2: (95, 118, 228), 5: (15, 24, 40)},
    0.5: {2: (81, 95, 187), 5: (19, 30, 44)},
}


@pytest.mark.parametrize("share", REFERENCE)
@pytest.mark.parametrize("ratio", [2, 5])
def test_a_beta_mixture_stops_when_it_is_known_to(share: float, ratio: int) -> None:
    wald, median, high = REFERENCE[share][ratio]
    other = null_share(share, ratio)
    information = other * math.log(other / share)
    information += (1 - other) * math.log((1 - other) / (1 - share))
    assert math.log(100) / information == pytest.approx(wald, abs=0.6)

    rng = np.random.default_rng(1)
    m = np.arange(1, 2_001)
    x = np.cumsum(rng.random((4_000, 2_000)) < other, axis=1)
    over = log_beta_mixture(x, m, share, 10.0) >= math.log(100)
    stops = np.where(over.any(axis=1), over.argmax(axis=1) + 1, np.inf)
    # The reference was simulated, too: two failing units or 6 % are its precision.
    assert np.median(stops) == pytest.approx(median, rel=0.06, abs=2)
    assert np.quantile(stops, 0.9) == pytest.approx(high, rel=0.06, abs=2)


def test_a_beta_mixture_is_the_integral_that_it_stands_for() -> None:
    share, c, x, m = 0.2, 10.0, 9, 25
    grid = np.linspace(0, 1, 200_001)[1:-1]
    density = stats.beta.pdf(grid, c * share, c * (1 - share))
    ratio = (grid / share) ** x * ((1 - grid) / (1 - share)) ** (m - x)
    integral = float((density * ratio).sum() * (grid[1] - grid[0]))
    assert math.exp(log_beta_mixture(x, m, share, c)) == pytest.approx(
        integral, rel=1e-6
    )


# --- the sample ratio


def test_a_right_assignment_is_seldom_called_wrong() -> None:
    rng = np.random.default_rng(2)
    looks = 300
    for weight in (0.05, 0.5):
        x = np.cumsum(rng.binomial(500, weight, (4_000, looks)), axis=1)
        total = 500 * np.arange(1, looks + 1)
        logs = log_imbalance((total - x)[..., None], x[..., None], (weight,))
        false = (logs >= math.log(1_000)).any(axis=1).mean()
        assert false <= 0.002  # the level is 0.001


@pytest.mark.parametrize(
    ("weight", "actual", "median", "p80"),
    [(0.5, 0.51, 42_000, 60_500), (0.05, 0.055, 32_000, 47_500)],
)
def test_a_wrong_assignment_is_found_when_it_is_known_to_be(
    weight: float, actual: float, median: float, p80: float
) -> None:
    rng = np.random.default_rng(3)
    looks = 400
    x = np.cumsum(rng.binomial(500, actual, (2_000, looks)), axis=1)
    total = 500 * np.arange(1, looks + 1)
    logs = log_imbalance((total - x)[..., None], x[..., None], (weight,))
    over = logs >= math.log(1_000)
    stops = np.where(over.any(axis=1), (over.argmax(axis=1) + 1) * 500, np.inf)
    assert np.median(stops) == pytest.approx(median, rel=0.08)
    assert np.quantile(stops, 0.8) == pytest.approx(p80, rel=0.08)


def test_the_last_step_says_nothing_of_the_sample_ratio() -> None:
    assert log_imbalance([950, 0, 0, 9], [50, 0, 0, 4_000], WEIGHTS) == log_imbalance(
        [950, 0, 0, 0], [50, 0, 0, 0], WEIGHTS
    )
    assert log_imbalance([5], [7], (1.0,)) == 0


def test_a_steps_imbalance_shows_however_right_earlier_steps_were() -> None:
    logs = log_imbalance([47_500, 800, 0, 0], [2_500, 400, 0, 0], WEIGHTS)
    assert logs > math.log(400)


def test_null_share_is_the_share_of_events_at_a_ratio() -> None:
    assert null_share(0.05) == pytest.approx(0.05)
    assert null_share(0.5, 3.0) == pytest.approx(0.75)
    assert evidence.null_share(1.0, 7.0) == 1
