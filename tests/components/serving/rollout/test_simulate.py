"""Simulated rollouts: the same decisions, and the promised error rates."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from penstock.components.serving.rollout.decide import decide
from penstock.components.serving.rollout.kernels import (
    ACTIONS,
    HOLD,
    PROMOTE,
    ROLL_BACK,
)
from penstock.components.serving.rollout.plan import Guard, Rollout, Step
from penstock.components.serving.rollout.simulate import (
    Candidate,
    ErrorModel,
    Look,
    Traffic,
    delay_units,
    simulate,
    upper_bound,
)
from penstock.schemas.errors import ServingError

PLAN = Rollout("m")
WITH_METRIC = Rollout("m", guards=[*PLAN.guards, Guard.business("ctr")])
MODELS: tuple[ErrorModel, ...] = ("independent", "bad-users", "daily")
RPS = (1, 5, 20, 100, 500)
ERRORS = (0.001, 0.005, 0.01, 0.02)


# --- the same kernels


@pytest.mark.parametrize(
    ("traffic", "candidate"),
    [
        (Traffic(20, 0.01), Candidate()),
        (Traffic(20, 0.01), Candidate(errors=3)),
        (Traffic(20, 0.01), Candidate(latency=1.6)),
        (Traffic(100, 0.005, "bad-users"), Candidate(drop=0.5)),
        (Traffic(5, 0.02, "daily"), Candidate(errors=2, drop=0.1)),
    ],
)
def test_a_simulated_rollout_replayed_through_decide_gets_the_same_decisions(
    traffic: Traffic, candidate: Candidate
) -> None:
    looks = 0
    words = set()

    def replay(look: Look) -> None:
        nonlocal looks
        for row in range(len(look.rollouts)):
            decision = decide(WITH_METRIC, look.evidence(row), look.rollout_seconds)
            assert decision.action == ACTIONS[look.actions[row]]
            looks += 1
            words.add(decision.action)

    outcomes = simulate(
        WITH_METRIC, traffic, candidate, rollouts=6, look_seconds=60, on_look=replay
    )
    assert looks >= 6
    assert {ACTIONS[each] for each in outcomes.actions} <= words


def test_a_rollout_rolls_back_for_the_guard_that_failed() -> None:
    for candidate, guard in (
        (Candidate(errors=5), "errors"),
        (Candidate(latency=2), "latency"),
        (Candidate(drop=0.9), "business:ctr"),
    ):
        outcomes = simulate(WITH_METRIC, Traffic(100, 0.01), candidate, rollouts=50)
        assert outcomes.rate(ROLL_BACK) == 1
        names = [WITH_METRIC.guards[each].name for each in outcomes.guards]
        assert names.count(guard) >= 49


def test_simulated_counts_are_those_of_the_traffic() -> None:
    last: list[Look] = []
    plan = Rollout("m", steps=[Step(5, "1h")], guards=[Guard.errors(), Guard.latency()])
    traffic = Traffic(20, 0.01, requests_per_hour=6)
    simulate(plan, traffic, rollouts=400, on_look=last.append)
    look = last[359]
    assert look.rollout_seconds == 3600
    # A unit is seen with probability 1 - exp(-6) in an hour, and fails, or is slow,
    # with hazard 0.06.
    for arms, share in (
        (look.tallies.units, -math.expm1(-6)),
        (look.tallies.failing, -math.expm1(-0.06)),
        (look.tallies.slow, None),
    ):
        for arm, fraction in ((arms.stable, 0.95), (arms.candidate, 0.05)):
            if share is not None:
                expected = 12_000 * fraction * share
                assert arm.mean() == pytest.approx(expected, rel=0.02)
    slow = look.tallies.slow
    slower = stats.norm.sf(stats.norm.isf(0.01) + math.log(1.1) / 0.5)
    ratio = math.log1p(-slow.candidate.mean() / 600) / math.log1p(
        -slow.stable.mean() / 11_400
    )
    assert ratio == pytest.approx(slower / 0.01, rel=0.06)


def test_bad_users_make_the_same_mean() -> None:
    for errors in ERRORS:
        kinds = Traffic(1, errors, "bad-users").kinds
        assert sum(share for share, _ in kinds) == pytest.approx(1)
        assert sum(share * each for share, each in kinds) == pytest.approx(errors)
    # The anchor's: 1 % of users fail 40 %, the others 0.1 %.
    (_, rest), (share, bad) = Traffic(1, 0.005, "bad-users").kinds
    assert (share, bad) == (0.01, 0.4)
    assert rest == pytest.approx(0.001, rel=0.02)


def test_a_seed_gives_the_same_rollouts() -> None:
    first, again, other = (
        simulate(PLAN, Traffic(20, 0.01), rollouts=50, seed=seed) for seed in (1, 1, 2)
    )
    assert (first.failing == again.failing).all()
    assert (first.failing != other.failing).any()


# --- error rates


def shown(plan: Rollout, traffic: Traffic, rollouts: int) -> None:
    """Hold one cell to what is promised of a healthy candidate."""
    outcomes = simulate(plan, traffic, rollouts=rollouts)
    back = int((outcomes.actions == ROLL_BACK).sum())
    assert back / rollouts <= plan.alpha
    if traffic.rps >= 20:
        assert outcomes.rate(PROMOTE) >= 0.95
    print(
        f"{traffic.rps:g} rps, {traffic.errors:.1%} errors, {traffic.model}: rolled "
        f"back {back / rollouts:.2%} (at most {outcomes.upper(ROLL_BACK):.2%}), held "
        f"{outcomes.rate(HOLD):.2%}"
    )


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(5, 0.001, "bad-users"),
        Traffic(20, 0.02),
        Traffic(20, 0.001, "daily"),
        Traffic(100, 0.005, "bad-users"),
        Traffic(500, 0.02, "daily"),
    ],
)
def test_a_healthy_candidate_is_promoted_and_seldom_rolled_back(
    traffic: Traffic,
) -> None:
    shown(PLAN, traffic, 500)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rps", RPS)
def test_a_healthy_candidate_is_seldom_rolled_back_in_any_cell(
    rps: float, model: ErrorModel
) -> None:
    for errors in ERRORS:
        shown(PLAN, Traffic(rps, errors, model), 2_000)


def test_few_units_that_return_often_do_not_mislead() -> None:
    # Everybody who is bad has failed long before the end: only first failures count.
    busy = Traffic(100, 0.005, "bad-users", requests_per_hour=60)
    shown(PLAN, busy, 500)


def test_a_candidate_that_is_better_is_not_rolled_back_for_it() -> None:
    # Its bad users fail later, and so seem to be many among those who still fail.
    traffic = Traffic(20, 0.02, "bad-users", requests_per_hour=30)
    outcomes = simulate(PLAN, traffic, Candidate(errors=0.5), rollouts=500)
    assert outcomes.rate(ROLL_BACK) <= 0.01
    assert outcomes.rate(PROMOTE) >= 0.95


def test_a_candidate_as_slow_as_is_tolerated_is_not_rolled_back() -> None:
    outcomes = simulate(
        PLAN, Traffic(100, 0.01), Candidate(latency=1.1), rollouts=1_000
    )
    assert outcomes.rate(ROLL_BACK) <= 0.01


@pytest.mark.parametrize("converting", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("drop", [0.0, 0.15])
def test_a_metric_that_drops_as_much_as_is_tolerated_is_not_rolled_back(
    converting: float, drop: float
) -> None:
    plan = Rollout("m", guards=[Guard.business("ctr", max_drop=0.15)], deadline="1h")
    traffic = Traffic(100, 0.01, converting=converting)
    outcomes = simulate(plan, traffic, Candidate(drop=drop), rollouts=500)
    assert outcomes.rate(ROLL_BACK) <= plan.alpha


def test_a_metric_that_halves_is_found() -> None:
    traffic = Traffic(100, 0.01, converting=0.2)
    outcomes = simulate(WITH_METRIC, traffic, Candidate(drop=0.5), rollouts=200)
    assert outcomes.rate(ROLL_BACK) >= 0.99


def test_doubled_errors_are_rolled_back_by_the_default_plan() -> None:
    outcomes = simulate(PLAN, Traffic(100, 0.01), Candidate(errors=2), rollouts=500)
    assert outcomes.rate(ROLL_BACK) >= 0.999
    assert outcomes.median(outcomes.seconds, ROLL_BACK) <= 600


def test_without_traffic_a_rollout_is_held_or_rolled_back_at_the_deadline() -> None:
    for plan, action in (
        (PLAN, HOLD),
        (dataclasses.replace(PLAN, on_deadline="rollback"), ROLL_BACK),
    ):
        outcomes = simulate(plan, Traffic(0.05, 0.01), rollouts=20, look_seconds=300)
        assert outcomes.rate(action) == 1
        assert set(outcomes.seconds) == {plan.deadline_seconds}
        assert set(outcomes.guards) == {-1}


def test_the_upper_bound_is_clopper_and_pearsons() -> None:
    assert upper_bound(0, 2_000) == pytest.approx(1 - 0.05 ** (1 / 2_000), rel=1e-9)
    assert upper_bound(7, 7) == 1
    found = upper_bound(3, 500)
    assert stats.binom.cdf(3, 500, found) == pytest.approx(0.05, rel=1e-9)


def test_failing_units_that_stop_nobody_count_as_infinitely_many() -> None:
    units = delay_units(PLAN, 0, 1.0, rollouts=200, at_most=500)
    assert np.isinf(units).mean() >= 0.97


# --- what is refused

WRONG: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Traffic(0, 0.01),
        "Simulated traffic: rps is 0. Write a number above 0.",
    ),
    (
        lambda: Traffic(5, 1.0),
        "Simulated traffic: errors is 1.0, where a share is needed. Write a number "
        "between 0 and 1, such as 0.01 for 1 %.",
    ),
    (
        lambda: Traffic(5, 0.1, "bad-user"),  # type: ignore[arg-type]
        "There is no error model 'bad-user' (there are 'bad-users', 'daily', "
        "'independent'). Did you mean 'bad-users'?",
    ),
    (
        lambda: Candidate(errors=0),
        "A simulated candidate's errors is 0, where 1 means as much as stable's. Write "
        "a number above 0.",
    ),
    (
        lambda: Candidate(drop=15),
        "A simulated candidate's drop is 15, where 0.1 means 10 % less than stable. "
        "Write a number from 0 to 1.",
    ),
    (
        lambda: simulate(PLAN, Traffic(5, 0.1), rollouts=0),
        "A simulation of 0 rollouts with a look every 10 s simulates nothing. Write at "
        "least one rollout and a time above 0.",
    ),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_what_cannot_be_simulated_gets_a_sentence(
    wrong: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(ServingError, match=f"^{re.escape(sentence)}$"):
        wrong()
