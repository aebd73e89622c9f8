from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.components.serving.control import Loaded, LoadState
from penstock.components.serving.ledger import Conflict, Ledger
from penstock.components.serving.rollout import state as moves
from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.plan import Guard, Rollout, Step
from penstock.components.serving.rollout.state import Phase, state_of
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.shelf import quarantine
from penstock.components.serving.standing import standing_of
from penstock.components.serving.traffic import BREAKER, MISSING, Report, Tally
from penstock.components.serving.version_dir import push
from penstock.schemas.errors import ServingError
from tests.components.serving.rollout.worlds import PLAN, Crowd, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_the_first_version_becomes_stable_once_it_is_loaded(world: World) -> None:
    world.start(1)
    assert world.routing == Routing(seq=world.routing.seq)
    state = world.live(10)
    assert state.phase is Phase.PROMOTED
    assert (world.routing.stable, world.routing.previous) == (1, None)
    assert world.kinds == ["rollout started", "loaded", "promoted"]


def test_a_healthy_candidate_goes_through_all_steps(world: World) -> None:
    world.stable(1)
    world.start(2)
    weights = []
    for _ in range(100):
        state = world.live(1)
        weights.append(world.routing.weight)
        if state.phase.is_over:
            break
    assert state.phase is Phase.PROMOTED
    assert list(dict.fromkeys(weights)) == [0.0, 0.05, 0.5, 1.0]
    assert weights[:-1] == sorted(weights[:-1])
    assert (world.routing.stable, world.routing.previous) == (2, 1)
    assert world.routing.weight == 0 and world.routing.candidate is None
    assert world.kinds[3:] == ["rollout started", "loaded", *["step"] * 3, "promoted"]
    assert {1, 2} <= world.server.available, "the version before stays loaded"
    assert world.server.announced == [(1, None), (1, 2), (2, None)]


def test_a_candidate_that_fails_more_is_rolled_back_and_set_aside(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.crowd.error_rates = {"stable": 0.01, "candidate": 0.3}
    state = world.live(60)
    assert state.phase is Phase.ROLLED_BACK and state.blames
    assert "Guard 'errors' failed" in state.reason
    assert world.routing == Routing(seq=world.routing.seq, stable=1)
    assert world.set_aside == [(2, state.reason)]
    assert world.server.available == {1}
    assert world.kinds[-2:] == ["rolls back", "rolled back"]
    with pytest.raises(ServingError, match="was turned down by an earlier rollout"):
        world.start(2)


def test_a_version_that_does_not_load_never_gets_a_request(world: World) -> None:
    world.stable(1)
    world.server.broken.add(2)
    world.start(2)
    state = world.live(10)
    assert state.phase is Phase.FAILED
    assert state.reason == "It could not be loaded: no saved_model.pb"
    assert world.routing == Routing(seq=world.routing.seq, stable=1)
    assert world.set_aside == [(2, state.reason)]
    assert "step" not in world.kinds


def test_a_load_that_takes_too_long_fails(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.server.down = True
    state = world.live(100)
    assert state.phase is Phase.FAILED
    assert state.reason == (
        "It was not loaded in 60 seconds. The model server at 127.0.0.1:8500 does not "
        "answer."
    )
    assert world.kinds.count("holds") == 1, "a reason that stays is told once"


def test_without_traffic_it_stays_where_it_is(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(3)
    world.crowd.asks = 0
    state = world.live(200)
    assert (state.phase, state.step) == (Phase.STEP, 0)


def test_without_reports_it_stays_where_it_is_and_says_so(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(5)
    world.crowd.silent = True
    for each in world.controller._traffic.routers():
        world.controller._traffic.leave(each.router)
    before = world.routing
    state = world.live(200)
    assert (state.phase, state.step) == (Phase.STEP, 0)
    assert state.holding_kind == "no fresh reports" and "no fresh" in state.holding
    assert world.routing == before and world.kinds[-1] == "holds"
    world.crowd.silent = False
    assert world.live(100).phase is Phase.PROMOTED


def test_a_store_of_reports_that_cannot_be_read_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stable(1)
    world.start(2)
    world.live(5)

    def fails(_: str) -> None:
        raise ServingError("What routers saw cannot be kept.")

    monkeypatch.setattr(world.controller._traffic, "steps", fails)
    world.crowd.error_rates["candidate"] = 1.0
    state = world.live(50)
    assert (state.phase, state.step, state.holding_kind) == (Phase.STEP, 0, "traffic")


def test_a_router_that_does_not_follow_delays_the_next_step(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    assert world.routing.weight == 0.05
    late = Crowd(world.directory, "router-2")
    late._traffic.report(Report("router-2", acknowledged=world.routing.seq - 1))
    assert world.live(100).step == 0
    late.live(1.0)
    assert world.live(100).step > 0
    late.close()


def test_both_versions_failing_alike_is_no_reason_to_roll_back(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.crowd.error_rates = {"stable": 0.9, "candidate": 0.9}
    state = world.live(300)
    assert state.phase is not Phase.ROLLED_BACK


def test_the_breaker_of_a_router_rolls_back(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.crowd.alarm = BREAKER + "6 units in a row failed."
    state = world.live(10)
    assert (state.phase, state.reason) == (
        Phase.ROLLED_BACK,
        "6 units in a row failed.",
    )


def test_a_router_that_asks_another_server_holds_the_rollout(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.crowd.alarm = MISSING + "It does not have version 2. Check the router."
    state = world.live(100)
    assert (state.phase, state.step, state.holding_kind) == (Phase.STEP, 0, "router")
    assert state.holding == "It does not have version 2. Check the router."
    world.crowd.alarm = ""
    assert world.live(100).phase is Phase.PROMOTED


def test_a_dead_mans_alarm_is_no_reason_to_roll_back(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.crowd.alarm = "dead man: nobody has controlled the rollout for 600 seconds."
    assert world.live(3).phase is Phase.STEP


def test_a_server_that_lost_the_candidate_is_told_to_load_it(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.server.loses(2)
    state = world.live(1)
    assert state.holding == (
        "The model server has not loaded version 2, which requests go to; it was told "
        "to."
    )
    assert world.live(100).phase is Phase.PROMOTED


def test_where_stable_is_not_loaded_the_candidate_is_kept(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.server.broken.add(1)
    world.server.loses(1)
    world.crowd.error_rates["candidate"] = 1.0
    state = world.live(20)
    assert state.phase is Phase.STEP and state.holding.startswith(
        "It should roll back, but the model server has not loaded version 1, so that "
        "nothing would answer."
    )
    assert world.routing.weight == 0.05
    world.server.broken.clear()
    assert world.live(20).phase is Phase.ROLLED_BACK


def test_where_stable_is_not_loaded_the_version_before_it_is_next(world: World) -> None:
    world.stable(1)
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED
    world.start(3)
    world.live(4)
    assert world.server.available == {1, 2, 3}
    with world.ledger.writing() as transaction:
        event = transaction.event("test")
        kept = dataclasses.replace(world.routing, previous=1)
        route(transaction, kept, event)
    world.server.broken.add(2)
    world.server.loses(2)
    world.crowd.error_rates["candidate"] = 1.0
    assert world.live(20).phase is Phase.ROLLED_BACK
    assert world.routing.stable == 1


def test_a_shadow_that_fails_never_gets_a_request(world: World) -> None:
    world.stable(1)
    world.start(2, dataclasses.replace(PLAN, shadow="5s"))
    state = world.live(4)
    assert state.phase is Phase.SHADOW
    assert world.routing.shadow and world.routing.weight == 0
    assert world.live(20).holding_kind == "no traffic"
    _shadowed(world, requests=6, failures=6)
    state = world.live(10)
    assert state.phase is Phase.ROLLED_BACK
    assert state.reason == "It failed all of 6 copies of requests."
    assert "step" not in world.kinds


def test_a_shadow_that_answers_goes_on_to_the_first_step(world: World) -> None:
    world.stable(1)
    world.start(2, dataclasses.replace(PLAN, shadow="5s"))
    world.live(4)
    _shadowed(world, requests=5, failures=1)
    assert world.live(100).phase is Phase.PROMOTED


def test_a_slow_candidate_is_rolled_back(world: World) -> None:
    world.stable(1)
    plan = Rollout(
        "ranker",
        steps=[Step(20, "20s"), Step(50, "60s"), Step(100, "10s", 0)],
        guards=[Guard.latency(0.99, max_ratio=1.1)],
        deadline="10m",
    )
    world.start(2, plan)
    world.live(12)
    assert world.routing.slow_seconds is not None
    assert 0.01 < world.routing.slow_seconds < 0.03
    assert world.routing.slow_ratio == 1.1
    world.crowd.seconds["candidate"] = 0.05
    state = world.live(60)
    assert state.phase is Phase.ROLLED_BACK and "Guard 'latency'" in state.reason


def test_a_candidate_that_costs_clicks_is_rolled_back(world: World) -> None:
    world.stable(1)
    plan = Rollout(
        "ranker",
        steps=[Step(50, "60s"), Step(100, "10s", 0)],
        guards=[Guard.business("clicks", max_drop=0.15)],
    )
    world.start(2, plan)
    world.crowd.values = {"stable": 1.0, "candidate": 0.5}
    state = world.live(60)
    assert state.phase is Phase.ROLLED_BACK
    assert "Guard 'business:clicks' failed" in state.reason


def test_a_metric_that_nobody_reports_holds(world: World) -> None:
    world.stable(1)
    plan = dataclasses.replace(PLAN, guards=(Guard.business("clicks"),))
    world.start(2, plan)
    state = world.live(100)
    assert (state.step, state.holding_kind) == (0, "unreported metric")
    assert "Guard 'business:clicks' watches the metric 'clicks'" in state.holding


def test_the_deadline_holds(world: World) -> None:
    world.stable(1)
    world.start(2, dataclasses.replace(PLAN, deadline="30s"))
    world.crowd.asks = 1
    state = world.live(60)
    assert (state.phase, state.holding_kind) == (Phase.STEP, "deadline")


# --- what people do


def test_a_rollout_that_is_held_does_not_go_on_but_still_rolls_back(
    world: World,
) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    verbs.hold(world.ledger, "A release is on.")
    assert world.live(60).step == 0
    with pytest.raises(ServingError, match=r"is held already: A release is on\. Res"):
        verbs.hold(world.ledger, "again")
    verbs.resume(world.ledger)
    assert world.live(2).step == 1
    verbs.hold(world.ledger, "Another.")
    world.crowd.error_rates["candidate"] = 0.5
    assert world.live(30).phase is Phase.ROLLED_BACK


def test_an_aborted_rollout_may_be_started_again(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    verbs.abort(world.ledger, "Changed our minds.")
    assert world.routing.weight == 0 and world.routing.stable == 1
    assert world.live(10).phase is Phase.ROLLED_BACK
    assert world.set_aside == []
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED


def test_a_promotion_by_hand_needs_a_first_step(world: World) -> None:
    world.stable(1)
    world.start(2)
    with pytest.raises(
        ServingError, match="Version 2 cannot be promoted while its rollout is loading"
    ):
        verbs.promote(world.ledger, "Good enough.")
    world.live(4)
    with pytest.raises(
        ServingError,
        match=r"^Version 2 cannot be promoted: the model server has not loaded it \(it "
        r"has 1\)\. Wait until it has, or abort the rollout\.$",
    ):
        verbs.promote(world.ledger, "Good enough.", loaded={1})
    assert verbs.promote(world.ledger, "Good enough.").phase is Phase.PROMOTED
    assert world.routing.stable == 2


def test_a_rollback_goes_to_stable_while_a_rollout_runs(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    assert verbs.roll_back(world.ledger, "It burns.").stable == 1
    assert world.routing.weight == 0
    assert world.live(5).phase is Phase.ROLLED_BACK


def test_a_rollback_after_the_rollout_goes_to_the_version_before(world: World) -> None:
    world.stable(1)
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED
    with pytest.raises(
        ServingError,
        match=r"has not loaded it \(it has 2\), and a rollback waits for",
    ):
        verbs.roll_back(world.ledger, "It burns.", loaded={2})
    assert verbs.roll_back(world.ledger, "It burns.", loaded={1, 2}).stable == 1
    assert world.ledger.events(2)[-1].kind == "rolled back"
    with pytest.raises(
        ServingError,
        match=r"There is no version to go back to: version 1 is stable, and none was",
    ):
        verbs.roll_back(world.ledger, "Still.")


@pytest.mark.parametrize(
    "verb",
    [
        lambda ledger: verbs.hold(ledger, "x"),
        verbs.resume,
        lambda ledger: verbs.abort(ledger, "x"),
        lambda ledger: verbs.promote(ledger, "x"),
    ],
    ids=["held", "resumed", "aborted", "promoted"],
)
def test_what_is_done_to_no_rollout_is_told(
    world: World, verb: object, request: pytest.FixtureRequest
) -> None:
    assert callable(verb)
    what = request.node.callspec.id
    with pytest.raises(ServingError, match=rf"no rollout that could be {what}\. Start"):
        verb(world.ledger)
    world.stable(1)
    with pytest.raises(
        ServingError, match=r"The last one, of version 1, is promoted\. Start one with"
    ):
        verb(world.ledger)


def test_one_rollout_at_a_time(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    with pytest.raises(
        ServingError,
        match=r"Version 3 cannot be rolled out while version 2 is: rollout '\w+' is at "
        r"5 %\. Wait for it, resume it if nobody controls it, or abort it\.",
    ):
        world.start(3)


def test_stable_is_not_rolled_out_again(world: World) -> None:
    world.stable(1)
    with pytest.raises(ServingError, match="Version 1 is stable already"):
        world.start(1)


def test_versions_that_must_not_be_rolled_out(world: World, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"has no version 9 \(it has 1, 2, 3\)"):
        world.start(9)
    (world.directory / "2" / "saved_model.pb").write_bytes(b"MODEL 2")
    with pytest.raises(ServingError, match=r"Version 2 of '.*' is corrupt: "):
        world.start(2)
    number = push(world.directory, tmp_path / "model-3").number
    with pytest.raises(
        ServingError, match=rf"Version {number} of '.*' was pushed without a blessing"
    ):
        world.start(number)
    verbs.start(world.ledger, number, PLAN, server={}, unblessed="An emergency.")
    verbs.abort(world.ledger, "It was none.")
    quarantine(world.ledger, 1, "It is cursed.")
    with pytest.raises(ServingError, match=r"is quarantined: It is cursed\. Take"):
        world.start(1)


# --- what may happen at any time


def test_a_plan_that_was_changed_since_it_started_is_refused(world: World) -> None:
    world.stable(1)
    world.start(2)
    with world.ledger.writing() as transaction:
        held = transaction.fact(moves.FACT)
        held["plan"]["alpha"] = 0.5
        transaction.hold(moves.FACT, held)
    with pytest.raises(
        ServingError, match=r"it was changed since, so that its verdict would not have"
    ):
        world.live(1)


def test_a_move_by_somebody_else_makes_the_controller_look_again(world: World) -> None:
    world.stable(1)
    state = world.start(2)
    verbs.hold(world.ledger, "Wait.")
    with (
        pytest.raises(Conflict, match="was changed by somebody else just now"),
        world.ledger.writing() as transaction,
    ):
        moves.unchanged(transaction, state)


def test_the_state_comes_back_as_it_was(world: World) -> None:
    state = world.start(1)
    assert state_of(world.ledger) == state
    assert json.loads(json.dumps(state.to_json())) == state.to_json()


def test_a_controller_that_takes_over_goes_on(world: World) -> None:
    world.stable(1)
    world.start(2)
    for _ in range(10):
        state = world.live(1)
        world.controller.close()
        world.controller = world.new_controller()
        world.now += 100  # a gap is no time that was watched
    assert state.phase is Phase.STEP and state.step_seconds == 0
    state = world.live(100)
    assert state.phase is Phase.PROMOTED


def test_a_server_that_is_started_anew_is_told_what_to_load(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.server.known.clear()
    world.live(1)
    assert world.server.asked[-1] == (1, 2)
    world.live(3)
    assert world.server.known[1].state is LoadState.AVAILABLE


def test_a_candidate_is_not_blamed_for_a_server_that_does_not_answer(
    world: World,
) -> None:
    world.stable(1)
    world.start(2)
    world.server.down = True
    state = world.live(100)
    assert state.phase is Phase.FAILED and not state.blames
    assert world.set_aside == []
    assert standing_of(world.ledger, 2).fault == ""
    world.server.down = False
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED


def test_a_rollout_that_is_held_while_it_loads_sends_nobody_there(
    world: World,
) -> None:
    world.stable(1)
    world.start(2)
    verbs.hold(world.ledger, "A release is on.")
    state = world.live(100)
    assert state.phase is Phase.LOADING and world.routing.weight == 0
    verbs.resume(world.ledger)
    assert world.live(100).phase is Phase.PROMOTED


def test_the_breaker_of_a_router_that_died_says_nothing_of_the_next_candidate(
    world: World,
) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.crowd.alarm = BREAKER + "6 units in a row failed."
    assert world.live(10).phase is Phase.ROLLED_BACK
    dead = Report("dead", world.routing.seq - 1, alarm=world.crowd.alarm)
    world.crowd._traffic.report(dead)
    world.crowd.alarm = ""
    world.start(3)
    assert world.live(20).phase is Phase.STEP
    world.crowd._traffic.leave("dead")
    assert world.live(100).phase is Phase.PROMOTED


def test_a_version_is_looked_at_again_in_the_transaction_that_takes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verbs.check_candidate

    def overtaken(ledger: Ledger, version: int, **how: Any) -> str:
        found = check(ledger, version, **how)
        if how.get("reads_bytes", True):
            quarantine(world.ledger, version, "It is cursed.")
        return found

    monkeypatch.setattr(verbs, "check_candidate", overtaken)
    with pytest.raises(ServingError, match=r"is quarantined: It is cursed\. Take"):
        world.start(1)
    assert state_of(world.ledger) is None


def test_nobody_is_sent_back_to_a_version_that_was_set_aside(world: World) -> None:
    world.stable(1)
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED
    quarantine(world.ledger, 1, "It is cursed.")
    with pytest.raises(
        ServingError,
        match=r"^Version 1 was stable before, but was quarantined since: It is cursed\."
        r" Push a version that works, and roll it out\.$",
    ):
        verbs.roll_back(world.ledger, "It burns.", loaded={1, 2})
    assert world.routing.stable == 2
    world.start(3)
    world.live(4)
    assert world.server.asked[-1] == (2, 3), "what is set aside cannot be loaded"
    with world.ledger.writing() as transaction:
        event = transaction.event("test")
        route(transaction, dataclasses.replace(world.routing, previous=1), event)
    world.server.known[1] = Loaded(LoadState.AVAILABLE)
    world.server.broken.add(2)
    world.server.loses(2)
    world.crowd.error_rates["candidate"] = 1.0
    assert world.live(20).holding_kind == "nothing to go back to"
    assert world.routing.stable == 2


def test_a_rollout_whose_plan_was_changed_can_be_taken_back(world: World) -> None:
    def changed() -> None:
        with world.ledger.writing() as transaction:
            held = transaction.fact(moves.FACT)
            held["plan"]["alpha"] = 0.5
            transaction.hold(moves.FACT, held)

    world.stable(1)
    world.start(2)
    world.live(4)
    changed()
    with pytest.raises(ServingError, match=r"Abort it, and start another one"):
        verbs.promote(world.ledger, "Why not.")
    verbs.abort(world.ledger, "Its plan was changed.")
    assert world.routing.weight == 0
    assert world.live(10).phase is Phase.ROLLED_BACK
    world.start(2)
    world.live(4)
    changed()
    assert verbs.roll_back(world.ledger, "It burns.").weight == 0
    assert world.live(10).phase is Phase.ROLLED_BACK


def test_what_rolls_back_without_a_controller_is_told_how_to_finish(
    world: World,
) -> None:
    world.stable(1)
    world.start(2)
    verbs.abort(world.ledger, "No.")
    with pytest.raises(
        ServingError,
        match=r"^Version 3 cannot be rolled out while rollout '\w+' of version 2 is "
        r"rolling back\. Wait for its controller, or if none runs: penstock rollout "
        r"resume DIR\.$",
    ):
        world.start(3)


def test_a_promotion_by_hand_is_announced(world: World) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    verbs.promote(world.ledger, "Good enough.")
    world.controller.tick()
    assert world.server.announced[-1] == (2, None)


def test_what_was_not_announced_is_before_the_next_candidate_is_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stable(1)
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED
    verbs.roll_back(world.ledger, "It burns.")
    told: list[object] = []
    load, announce = world.server.load, world.server.announce

    def loads(versions: tuple[int, ...]) -> None:
        told.append(versions)
        load(versions)

    def announces(stable: int | None, canary: int | None = None) -> None:
        told.append((stable, canary))
        announce(stable, canary)

    monkeypatch.setattr(world.server, "load", loads)
    monkeypatch.setattr(world.server, "announce", announces)
    world.start(3)
    world.live(2)
    assert told[:2] == [(1, None), (1, 3)]


def test_a_deadline_that_passes_without_evidence_blames_nobody(world: World) -> None:
    world.stable(1)
    plan = dataclasses.replace(PLAN, deadline="30s", on_deadline="rollback")
    world.start(2, plan)
    world.crowd.asks = 1
    state = world.live(60)
    assert (state.phase, state.blames) == (Phase.ROLLED_BACK, False)
    assert state.reason.startswith("The deadline of 30s passed")
    assert world.set_aside == []
    world.start(3, dataclasses.replace(plan, shadow="5s"))
    state = world.live(60)
    assert (state.phase, state.blames) == (Phase.ROLLED_BACK, False)
    assert state.reason == "The deadline passed before the first step."


def test_a_few_copies_that_fail_are_no_verdict(world: World) -> None:
    world.stable(1)
    world.start(2, dataclasses.replace(PLAN, shadow="5s"))
    world.live(4)
    _shadowed(world, requests=5, failures=5)
    state = world.live(20)
    assert (state.phase, state.holding) == (
        Phase.SHADOW,
        "It failed 5 of 5 copies of requests; after 6 it is taken for dead.",
    )


def test_what_was_seen_in_earlier_rollouts_is_forgotten(world: World) -> None:
    world.stable(1)
    first = world.start(2)
    assert world.live(100).phase is Phase.PROMOTED
    assert world.crowd._traffic.steps(first.id)
    world.controller.close()
    world.controller = world.new_controller()
    world.start(3)
    assert world.live(100).phase is Phase.PROMOTED
    assert not world.crowd._traffic.steps(first.id)


def test_a_controller_whose_ledger_fails_closes_all_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stable(1)

    def fails(_: object) -> None:
        raise ServingError("The disk is full.")

    monkeypatch.setattr(world.controller.ledger, "release", fails)
    with pytest.raises(ServingError, match=r"The disk is full\."):
        world.controller.close()
    with pytest.raises(ServingError, match="Cannot operate on a closed database"):
        world.controller._traffic.routers()
    monkeypatch.undo()


def _shadowed(world: World, *, requests: int, failures: int) -> None:
    world.crowd._traffic.report(
        Report(
            "router-1",
            world.routing.seq,
            world.routing.rollout,
            tallies={(-1, "candidate"): Tally(requests, failures)},
        )
    )
    world.crowd._tallies[(str(world.routing.rollout), -1, "candidate")] = Tally(
        requests, failures
    )
