"""The rules of others as negative controls: their known false alarms, shown here."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.components.serving.rollout.incumbents import (
    argo_like,
    beside,
    errors_doubled,
    flagger_like,
    request_level,
)
from penstock.components.serving.rollout.plan import Rollout, Step
from penstock.components.serving.rollout.simulate import Candidate, Traffic


@pytest.mark.parametrize(
    ("canary_rps", "errors", "rate"),
    [(5, 0.001, 0.994), (1, 0.01, 0.87), (5, 0.005, 0.216)],
)
def test_errors_doubled_in_5_minutes_fires_on_a_healthy_canary(
    canary_rps: float, errors: float, rate: float
) -> None:
    fired = errors_doubled(canary_rps, errors)
    assert fired.rate == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize(
    ("rps", "errors", "threshold_5", "threshold_10", "limit_0", "limit_3"),
    [
        (5, 0.005, 0.129, 0.003, 0.89, 0.104),
        (5, 0.008, 0.494, 0.065, 0.98, 0.39),
        (20, 0.005, 0.033, 0.0, 0.75, 0.018),
        (20, 0.008, 0.458, 0.044, 0.977, 0.389),
        (100, 0.008, 0.132, 0.002, 0.88, 0.104),
        (500, 0.008, 0.002, 0.0, 0.41, 0.001),
    ],
)
def test_incumbents_roll_back_healthy_canaries_as_often_as_is_known(
    rps: float,
    errors: float,
    threshold_5: float,
    threshold_10: float,
    limit_0: float,
    limit_3: float,
) -> None:
    traffic = Traffic(rps, errors)
    for fired, rate in (
        (flagger_like(traffic, threshold=5), threshold_5),
        (flagger_like(traffic, threshold=10), threshold_10),
        (argo_like(traffic), limit_0),
        (argo_like(traffic, failure_limit=3), limit_3),
    ):
        assert fired.rate == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("weight", [0.05, 0.2, 0.5])
def test_a_test_of_requests_is_misled_by_few_bad_users(weight: float) -> None:
    assert 0.14 <= request_level(weight).rate <= 0.19


def test_a_test_of_requests_holds_its_level_where_users_are_alike() -> None:
    # As many bad users as there are users: the requests are independent.
    assert request_level(0.2, users=40_000_000).rate <= 0.01


def test_rules_stand_beside_a_plan_on_its_own_schedule() -> None:
    plan, traffic = Rollout("m"), Traffic(5, 0.005, "bad-users")
    healthy = beside(plan, traffic)
    assert list(healthy) == [
        "errors doubled in 5 minutes",
        "Flagger-like, threshold 5",
        "Flagger-like, threshold 10",
        "Argo-like, limit 0",
        "Argo-like, limit 3",
    ]
    assert healthy["Argo-like, limit 0"].rate > 0.9
    dead = beside(plan, traffic, Candidate(errors=200))
    for fired in dead.values():
        assert fired.rate == 1
        assert np.median(fired.seconds) <= 900


def test_a_plan_without_time_for_a_window_has_nothing_to_fire_in() -> None:
    plan = Rollout("m", steps=[Step(5, "2m"), Step(100, "2m")])
    assert beside(plan, Traffic(5, 0.01))["errors doubled in 5 minutes"].rate == 0


def test_a_plan_shorter_than_a_check_has_no_rules_beside_it() -> None:
    assert beside(Rollout("m", steps=[Step(5, "30s")]), Traffic(5, 0.01)) == {}
