"""Decisions: what one look at a rollout leads to, and why."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving.rollout.decide import (
    Decision,
    Moments,
    Pair,
    StepEvidence,
    decide,
    unreported,
)
from penstock.components.serving.rollout.plan import Guard, Rollout, Step
from penstock.schemas.errors import ServingError

PLAN = Rollout("ranker")
QUIET = StepEvidence(
    0.05, 600, units=Pair(1_900, 100), failing=Pair(19, 1), slow=Pair(10, 1)
)


def at(weight: float, **changes: Any) -> StepEvidence:
    return dataclasses.replace(QUIET, weight=weight, **changes)


DONE = (
    QUIET,
    at(0.2, units=Pair(400, 100)),
    at(0.5, units=Pair(100, 100)),
    at(1.0, units=Pair(0, 100), failing=Pair(0, 2), slow=Pair()),
)


def word(decision: Decision, guard: str) -> str:
    return {each.name: each.state for each in decision.guards}[guard]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_step_that_is_complete_and_quiet_advances(steps: int) -> None:
    decision = decide(PLAN, DONE[:steps], 600.0 * steps)
    assert decision.action == "advance"
    weight = (5, 20, 50)[steps - 1]
    assert decision.reasons == (
        f"Step {steps} of 4 ({weight} %) lasted 10m, the candidate answered 100 "
        "distinct units, and no guard objects.",
    )


def test_the_last_step_is_promoted() -> None:
    assert decide(PLAN, DONE, 2400).action == "promote"


def test_a_rollout_that_has_not_begun_holds() -> None:
    decision = decide(PLAN, (), 0)
    assert decision.action == "hold"
    assert decision.reasons == ("No step of the rollout has begun.",)
    assert {each.state for each in decision.guards} == {"no data"}


def test_a_step_holds_until_its_time_is_over() -> None:
    decision = decide(PLAN, [at(0.05, seconds=180)], 180)
    assert decision.action == "hold"
    assert decision.reasons == ("Step 1 of 4 (5 %) has lasted 3m of 10m.",)


def test_a_step_holds_until_the_candidate_answered_its_units() -> None:
    decision = decide(PLAN, [at(0.05, units=Pair(1_900, 99))], 600)
    assert decision.action == "hold"
    assert decision.reasons == (
        "Step 1 of 4 (5 %): the candidate has answered 99 of 100 distinct units.",
    )
    assert word(decision, "traffic") == "no data"


def test_units_that_were_seen_in_an_earlier_step_count_for_traffic_if_reported() -> (
    None
):
    step = at(0.2, units=Pair(3, 1), seen=640)
    assert decide(PLAN, [QUIET, step], 1200).action == "advance"


def test_the_traffic_guard_asks_for_more_units_in_every_step() -> None:
    plan = Rollout("m", guards=[Guard.errors(), Guard.traffic(500)])
    decision = decide(plan, [QUIET], 600)
    assert decision.action == "hold"
    assert decision.guards[1].sentence == (
        "Guard 'traffic' waits: the candidate answered 100 of 500 distinct units in "
        "this step."
    )


def test_doubled_errors_are_rolled_back_with_the_counts_as_the_reason() -> None:
    decision = decide(PLAN, [at(0.05, failing=Pair(19, 9))], 200)
    assert decision.action == "roll back"
    assert decision.reasons == (
        "Guard 'errors' failed: 9 of 28 failing units were the candidate's at 5 %; "
        "evidence 3,042 of 200.",
    )
    assert word(decision, "errors") == "failed"


def test_evidence_of_steps_adds_up_but_their_counts_are_never_mixed() -> None:
    first, second = at(0.05, failing=Pair(40, 8)), at(0.2, failing=Pair(40, 21))
    alone = [decide(PLAN, [first], 600), decide(PLAN, [DONE[0], second], 1200)]
    assert "roll back" not in {each.action for each in alone}
    both = decide(PLAN, [first, second], 1200)
    assert both.action == "roll back"
    assert both.reasons == (
        "Guard 'errors' failed: 8 of 48 failing units were the candidate's at 5 %, 21 "
        "of 61 at 20 %; evidence 404 of 200.",
    )


def test_a_guard_on_watch_keeps_a_complete_step_from_advancing() -> None:
    decision = decide(PLAN, [at(0.05, failing=Pair(40, 8))], 600)
    assert word(decision, "errors") == "watch"
    assert decision.action == "hold"
    assert decision.reasons[0].startswith(
        "Guard 'errors' is on watch: 8 of 48 failing units were the candidate's at 5 %"
    )


def test_slow_units_are_rolled_back() -> None:
    decision = decide(PLAN, [at(0.05, slow=Pair(20, 15))], 200)
    assert decision.action == "roll back"
    assert decision.reasons[0].startswith("Guard 'latency' failed: 15 of 35 slow units")


def test_a_sample_ratio_that_is_wrong_holds() -> None:
    decision = decide(PLAN, [at(0.05, units=Pair(9_000, 900))], 600)
    assert decision.action == "hold"
    assert decision.reasons == (
        "Guard 'sample_ratio' failed: 900 of 9,900 units were the candidate's at 5 %; "
        "evidence over 1,000,000 of 400.",
    )


@pytest.mark.parametrize("on_fail", ["rollback", "hold"])
def test_a_guard_that_fails_does_what_it_says(on_fail: Any) -> None:
    plan = Rollout("m", guards=[Guard.errors(on_fail=on_fail)])
    decision = decide(plan, [at(0.05, failing=Pair(5, 20))], 600)
    assert decision.action == {"rollback": "roll back", "hold": "hold"}[on_fail]
    assert decision.reasons[0].startswith("Guard 'errors' failed")


def test_a_tolerated_ratio_is_tolerated() -> None:
    doubled = [at(0.05, failing=Pair(900, 100))]
    assert decide(PLAN, doubled, 600).action == "roll back"
    plan = Rollout("m", guards=[Guard.errors(max_ratio=2.2)])
    assert decide(plan, doubled, 600).action == "advance"


def test_without_fresh_evidence_nothing_is_concluded() -> None:
    for step in (at(0.05, fresh=False), at(0.05, fresh=False, failing=Pair(0, 50))):
        decision = decide(PLAN, [step], 600)
        assert decision.action == "hold"
        assert decision.reasons == (
            "There is no fresh evidence: no report is newer than the step and younger "
            "than 30s.",
        )


def test_no_failure_at_all_is_no_data_and_no_objection() -> None:
    decision = decide(PLAN, [at(0.05, failing=Pair(), slow=Pair())], 600)
    assert word(decision, "errors") == "no data"
    assert decision.guards[0].sentence == (
        "Guard 'errors' has no data: no unit failed beside a concurrent stable."
    )
    assert decision.action == "advance"


def test_at_100_percent_there_is_no_control_and_so_no_evidence() -> None:
    last = at(1.0, units=Pair(0, 100), failing=Pair(0, 5_000), slow=Pair(0, 5_000))
    decision = decide(PLAN, [*DONE[:3], last], 2400)
    assert decision.action == "promote"
    before = decide(PLAN, DONE[:3], 1800)
    assert [each.evidence for each in decision.guards] == pytest.approx(
        [each.evidence for each in before.guards]
    )


def test_a_plan_of_one_step_of_100_percent_promotes_on_time_and_units() -> None:
    plan = Rollout("m", steps=[100], guards=[*PLAN.guards, Guard.business("ctr")])
    assert decide(plan, [at(1.0)], 600).action == "promote"


def test_after_the_deadline_the_plan_says_what_is_done() -> None:
    back = dataclasses.replace(PLAN, on_deadline="rollback")
    for plan, action in ((PLAN, "hold"), (back, "roll back")):
        decision = decide(plan, [QUIET], 6 * 3600)
        assert decision.action == action
        assert decision.reasons[0] == (
            "The deadline of 6h passed in step 1 of 4 (5 %)."
        )


def test_the_deadline_counts_even_without_fresh_evidence() -> None:
    plan = dataclasses.replace(PLAN, on_deadline="rollback")
    assert decide(plan, [at(0.05, fresh=False)], 6 * 3600).action == "roll back"
    assert decide(PLAN, [at(0.05, fresh=False)], 6 * 3600).reasons == (
        "The deadline of 6h passed in step 1 of 4 (5 %).",
        "There is no fresh evidence: no report is newer than the step and younger than "
        "30s.",
    )


def test_a_rollout_that_is_complete_at_its_deadline_is_promoted() -> None:
    assert decide(PLAN, DONE, 6 * 3600).action == "promote"


# --- business metrics


def conversions(units: int, events: int) -> Moments:
    return Moments(units, events, float(events), float(events))


def with_clicks(stable: Moments, candidate: Moments) -> StepEvidence:
    return at(
        0.05,
        units=Pair(stable.units, candidate.units),
        values={"ctr": (stable, candidate)},
    )


BUSINESS = Rollout("m", guards=[Guard.errors(), Guard.business("ctr", max_drop=0.15)])


def test_a_drop_that_is_surely_beyond_what_is_tolerated_is_rolled_back() -> None:
    step = with_clicks(conversions(38_000, 3_800), conversions(2_000, 80))
    decision = decide(BUSINESS, [step], 300)
    assert decision.action == "roll back"
    assert decision.reasons == (
        "Guard 'business:ctr' failed: mean 0.04 of 2,000 candidate units against 0.1 "
        "of 38,000 at 5 %; evidence over 1,000,000 of 600.",
    )


def test_a_drop_of_20_percent_in_few_units_is_no_evidence() -> None:
    step = with_clicks(conversions(19_000, 950), conversions(1_000, 40))
    decision = decide(BUSINESS, [step], 600)
    assert word(decision, "business:ctr") == "ok"
    assert decision.action == "advance"


def test_a_mean_is_not_judged_before_its_burn_in() -> None:
    step = with_clicks(conversions(1_900, 95), conversions(100, 0))
    decision = decide(BUSINESS, [step], 600)
    assert decision.action == "hold"
    assert decision.reasons == (
        "Guard 'business:ctr' has no data: no step has 100 units in both arms yet and "
        "10 with a nonzero 'ctr'.",
    )


def test_a_candidate_that_lost_all_events_is_not_spared_by_the_burn_in() -> None:
    step = with_clicks(conversions(19_000, 950), conversions(1_000, 0))
    assert decide(BUSINESS, [step], 600).action == "roll back"


def test_units_that_all_agree_are_no_certainty() -> None:
    step = with_clicks(conversions(300, 300), conversions(110, 90))
    assert decide(BUSINESS, [step], 600).action == "advance"


def test_a_metric_that_is_not_reported_holds() -> None:
    decision = decide(BUSINESS, [QUIET], 600)
    assert decision.action == "hold"
    assert decision.reasons == (
        "Guard 'business:ctr' has no data: no report names the metric 'ctr'.",
    )


def test_a_metric_that_nobody_reports_is_named_as_soon_as_it_can_be_told() -> None:
    assert unreported(BUSINESS, []) is None
    assert unreported(BUSINESS, [at(0.05, units=Pair(1_900, 99))]) is None
    assert unreported(BUSINESS, [at(0.05, fresh=False)]) is None
    assert unreported(PLAN, [QUIET]) is None
    clicks = conversions(1_000, 10)
    assert unreported(BUSINESS, [with_clicks(clicks, clicks)]) is None
    step = at(0.05, values={"ctrl": (clicks, clicks)})
    assert unreported(BUSINESS, [step]) == (
        "Guard 'business:ctr' watches the metric 'ctr', which none of 2,000 units was "
        "reported with (reported: 'ctrl'). Did you mean 'ctrl'? Report it to the "
        "router, or start a rollout whose plan does not guard it."
    )


# --- what is refused


def test_evidence_of_another_weight_is_refused() -> None:
    sentence = (
        "Step 1 of the rollout of 'ranker' was observed at 10 %, where the plan says 5 "
        "%. Counts of another weight prove nothing; pass the evidence of this plan."
    )
    with pytest.raises(ServingError, match=f"^{re.escape(sentence)}$"):
        decide(PLAN, [at(0.1)], 60)


def test_evidence_of_more_steps_than_planned_is_refused() -> None:
    sentence = (
        "There is evidence of 5 steps, but the plan of 'ranker' has 4. Pass the "
        "evidence of this plan."
    )
    with pytest.raises(ServingError, match=f"^{re.escape(sentence)}$"):
        decide(PLAN, [*DONE, DONE[-1]], 60)


def test_counts_below_zero_are_refused() -> None:
    sentence = (
        "Counts of units are -1 and 3, but nothing is counted below 0. Report counts "
        "since the step's beginning."
    )
    with pytest.raises(ServingError, match=f"^{re.escape(sentence)}$"):
        Pair(-1, 3)


# --- for any evidence

pairs = st.builds(Pair, st.integers(0, 50_000), st.integers(0, 50_000))
moments = st.builds(
    lambda units, share, size: Moments(
        units, int(units * share), units * share * size, units * share * size**2
    ),
    st.integers(0, 50_000),
    st.floats(0, 1),
    st.floats(0, 1e6),
)
ANY = Rollout("m", guards=[*PLAN.guards, Guard.business("ctr")])


@given(
    evidence=st.lists(
        st.tuples(pairs, pairs, pairs, moments, moments, st.booleans()),
        min_size=1,
        max_size=4,
    ),
    seconds=st.floats(0, 1e6),
    rollout_seconds=st.floats(0, 1e6),
)
def test_any_evidence_gets_an_action_with_reasons(
    evidence: list[tuple[Any, ...]], seconds: float, rollout_seconds: float
) -> None:
    steps = [
        StepEvidence(weight, seconds, units, failing, slow, {"ctr": (a, b)}, fresh)
        for weight, (units, failing, slow, a, b, fresh) in zip(
            (0.05, 0.2, 0.5, 1.0), evidence, strict=False
        )
    ]
    decision = decide(ANY, steps, rollout_seconds)
    assert decision.reasons
    assert all(reason.endswith(".") for reason in decision.reasons)
    assert [each.name for each in decision.guards] == [g.name for g in ANY.guards]
    assert all(each.evidence >= 0 for each in decision.guards)
    if not steps[-1].fresh:
        assert decision.action == "hold"
    if decision.action == "advance":
        assert len(steps) < 4
        assert all(each.state not in ("watch", "failed") for each in decision.guards)
    if decision.action == "roll back":
        assert any(each.state == "failed" for each in decision.guards)


@given(
    failing=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    more=st.integers(1, 50),
    steps=st.integers(1, 3),
)
def test_a_failing_unit_more_on_the_candidate_is_never_less_evidence(
    failing: tuple[int, int], more: int, steps: int
) -> None:
    def found(candidate: int) -> float:
        last = dataclasses.replace(
            DONE[steps - 1], failing=Pair(failing[0], candidate), fresh=True
        )
        return decide(PLAN, [*DONE[: steps - 1], last], 60).guards[0].evidence

    assert found(failing[1] + more) >= found(failing[1]) * (1 - 1e-9)


def test_deciding_needs_no_tensorflow_and_no_beam() -> None:
    code = (
        "import sys, penstock.components.serving.rollout.decide as d;"
        "print({'tensorflow', 'apache_beam', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_step_may_name_its_time_and_units() -> None:
    plan = Rollout("m", steps=[Step(5, "1m", 10), Step(100)], guards=())
    assert decide(plan, [at(0.05, seconds=60, units=Pair(1, 10))], 60).action == (
        "advance"
    )
