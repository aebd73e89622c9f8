"""When a router follows the ledger, and when it must not."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.router import watch as module
from penstock.components.serving.router.lanes import LaneError
from penstock.components.serving.router.router import Router
from penstock.components.serving.router.watch import MAX_FAILURES
from penstock.components.serving.traffic import Traffic
from tests.components.serving.router.servers import Controls, Server, obeys, until

Routers = Callable[..., Router]
X = {"x": np.array([1.0], np.float32)}
BROKEN = (
    "breaker: Version 2 failed 6 different units in a row while version 1 answered."
)


def test_a_request_goes_where_the_routing_says_when_it_is_sent(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    router = routers()
    assert router.predict(X, "user").version == 2
    go = server.stall(2)
    versions = []
    sent = threading.Thread(
        target=lambda: versions.append(router.predict(X, "user").version)
    )
    sent.start()
    until(lambda: server.versions() == [2, 2])
    controls.rollout(0.0)
    until(lambda: router.routing.weight == 0)
    # One that is under way ends where it was sent; those after it go elsewhere.
    assert router.predict(X, "user").version == 1
    go.set()
    sent.join()
    assert versions == [2]
    assert server.versions() == [2, 2, 1]


def test_after_weight_0_was_seen_nobody_is_sent_to_the_candidate(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    router = routers()
    stop = threading.Event()

    def ask(mine: int) -> None:
        while not stop.is_set():
            router.predict(X, f"user-{mine}")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()

    def more_than(reached: int) -> None:
        until(lambda: len(server.asked) > reached)

    for _ in range(5):
        obeys(router, controls.rollout(1.0))
        reached = len(server.asked)
        more_than(reached + 8)
        assert 2 in server.versions()[reached:]
        obeys(router, controls.rollout(0.0))
        # Those that took the snapshot before are on their way: one for each thread.
        reached = len(server.asked)
        more_than(reached + 40)
        assert 2 not in server.versions()[reached + 5 :]
    stop.set()
    for thread in threads:
        thread.join()


def test_every_router_obeys_and_says_so(
    routers: Routers, controls: Controls, tmp_path: Path
) -> None:
    several = [routers() for _ in range(3)]
    seq = controls.rollout(0.2).seq
    traffic = Traffic(tmp_path)

    def obeyed() -> bool:
        heard = {each.router: each.acknowledged for each in traffic.routers()}
        return heard == {router.name: seq for router in several}

    until(obeyed)
    several[0].close()
    until(lambda: len(traffic.routers()) == 2)


def test_a_dead_candidate_gets_nobody_after_6_units(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(1.0)
    server.fail(2)
    router = routers()
    for i in range(20):
        answer = router.predict(X, f"user-{i}")
        assert (answer.version, answer.fell_back) == (1, i < MAX_FAILURES)
    assert server.versions().count(2) == MAX_FAILURES == 6
    assert router.alarm == BROKEN
    traffic = Traffic(tmp_path)
    until(lambda: [each.alarm for each in traffic.routers()] == [BROKEN])
    # Those that stable answered since belong to no arm.
    router.close()
    counts = traffic.steps("r")[0].counts
    assert counts == {("seen", "candidate"): 6, ("failing", "candidate"): 6}
    assert 'penstock_router_alarm{model="ranker"} 1.0' in router.metrics().decode()


def test_one_unit_that_fails_again_and_again_is_one(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    server.fail(2)
    router = routers()
    for i in range(20):
        assert router.predict(X, f"user-{i % (MAX_FAILURES - 1)}").fell_back
    assert router.alarm == ""


def test_a_good_answer_of_the_candidate_ends_the_row(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    router = routers()
    for i in range(30):
        if i % MAX_FAILURES:
            server.fail(2)
        else:
            server.behaviors.clear()
        router.predict(X, f"user-{i}")
    assert router.alarm == ""


def test_where_stable_fails_as_well_the_candidate_is_not_dead(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    for version in (1, 2):
        server.fail(version, grpc.StatusCode.UNAVAILABLE)
    router = routers()
    for i in range(20):
        with pytest.raises(LaneError):
            router.predict(X, f"user-{i}")
    assert router.alarm == ""


def test_what_the_caller_is_to_blame_for_opens_no_breaker(
    routers: Routers, controls: Controls
) -> None:
    controls.rollout(1.0)
    router = routers()
    for i in range(20):
        with pytest.raises(LaneError, match="INVALID_ARGUMENT"):
            router.predict({}, f"user-{i}")
    assert router.alarm == ""


def test_only_another_rollout_closes_the_breaker(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    server.fail(2)
    router = routers()
    for i in range(MAX_FAILURES):
        router.predict(X, f"user-{i}")
    server.behaviors.clear()
    obeys(router, controls.rollout(0.5, step=1))
    assert router.alarm == BROKEN
    assert router.predict(X, "user").version == 1
    obeys(router, controls.rollout(1.0, rollout="another"))
    assert router.alarm == ""
    assert router.predict(X, "user").version == 2


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("failed"), st.integers(0, 8)),
            st.tuples(st.sampled_from(["answered", "stable"]), st.just(0)),
        ),
        max_size=60,
    )
)
def test_the_breaker_is_what_its_rule_says(told: list[tuple[str, int]]) -> None:
    breaker = module._Breaker()
    subject = ("r", 2)
    row: list[tuple[str, int]] = []
    dead = False
    for what, unit in told:
        if what == "stable":
            breaker.stable_good = time.monotonic()
        elif what == "answered":
            breaker.answered()
        else:
            breaker.failed(subject, str(unit))
        if what == "answered":
            row = []
        elif what == "failed" or row:
            row.append((what, unit))
        # It is looked at when the candidate fails.
        units = {each for kind, each in row if kind == "failed"}
        dead = dead or (
            what == "failed" and len(units) >= MAX_FAILURES and ("stable", 0) in row
        )
        assert breaker.is_open(subject) == dead
        assert not breaker.is_open(("r", 3))


def test_without_a_controller_everybody_goes_to_stable(
    routers: Routers, controls: Controls, tmp_path: Path
) -> None:
    lease = controls.ledger.acquire()
    controls.rollout(1.0, dead_man_seconds=0.3)
    router = routers()
    assert router.predict(X, "user").version == 2
    until(lambda: router.alarm)
    alarm = (
        "Nobody has controlled the rollout of version 2 for more than 0.3 seconds: "
        "everybody is sent to version 1 until somebody does. Start the controller."
    )
    assert router.alarm == alarm
    assert router.predict(X, "user").version == 1
    traffic = Traffic(tmp_path)
    until(lambda: [each.alarm for each in traffic.routers()] == [alarm])
    controls.ledger.renew(lease)
    until(lambda: not router.alarm)
    assert router.predict(X, "user").version == 2


def test_a_lease_that_was_given_up_is_silence_too(
    routers: Routers, controls: Controls
) -> None:
    controls.ledger.release(controls.ledger.acquire())
    controls.rollout(1.0, dead_man_seconds=0.2)
    router = routers()
    until(lambda: router.alarm)
    assert router.predict(X, "user").version == 1


def test_without_a_rollout_no_controller_is_needed(
    routers: Routers, controls: Controls
) -> None:
    controls.set(stable=1, dead_man_seconds=0.01)
    router = routers()
    time.sleep(0.1)
    assert router.alarm == ""
    assert router.predict(X, "user").version == 1


def test_a_ledger_that_cannot_be_read_leaves_all_as_it_is_but_for_the_dead_man(
    routers: Routers,
    controls: Controls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease = controls.ledger.acquire()
    controls.rollout(1.0, dead_man_seconds=1.0)
    router = routers()

    def broken(_: Ledger) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Ledger, "changes", broken)
    until(lambda: "penstock_ledger_readable" in router.metrics().decode())
    until(lambda: 'readable{model="ranker"} 0.0' in router.metrics().decode())
    assert router.predict(X, "user").version == 2
    controls.ledger.renew(lease)  # which the router cannot know
    until(lambda: router.alarm)
    assert router.predict(X, "user").version == 1
    monkeypatch.undo()
    controls.ledger.renew(lease)
    until(lambda: not router.alarm)
    until(lambda: 'readable{model="ranker"} 1.0' in router.metrics().decode())


def test_a_copy_put_in_the_place_of_the_ledger_is_obeyed(
    routers: Routers,
    controls: Controls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN_SECONDS", 0.01)
    controls.set(stable=1)
    router = routers()
    folder = tmp_path / ".penstock"
    controls.set(stable=5)
    controls.ledger.close()
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copy(folder / "ledger.sqlite", folder / "copy")
    controls.set(stable=6)
    controls.ledger.close()
    until(lambda: router.routing.stable == 6)
    for each in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (folder / each).unlink(missing_ok=True)
    (folder / "copy").rename(folder / "ledger.sqlite")
    until(lambda: router.routing.stable == 5)


def test_a_router_may_start_before_there_is_a_ledger(
    tmp_path: Path, server: Server
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    with Router(folder, "ranker", address=server.address) as router:
        assert router.routing.stable is None
        made = Controls(folder)
        made.set(stable=1)
        until(lambda: router.routing.stable == 1)
        made.ledger.close()
        assert router.predict(X).version == 1


def test_a_ledger_that_is_gone_leaves_everybody_where_they_were(
    routers: Routers,
    controls: Controls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN_SECONDS", 0.01)
    controls.set(stable=1)
    router = routers()
    controls.ledger.close()
    for each in (tmp_path / ".penstock").glob("ledger.sqlite*"):
        each.unlink()
    until(lambda: 'readable{model="ranker"} 0.0' in router.metrics().decode())
    assert router.predict(X).version == 1
    Ledger(tmp_path).close()
    assert router.predict(X).version == 1
    controls.set(stable=7)
    until(lambda: router.routing.stable == 7)


def test_the_dead_mans_time_does_not_begin_anew_with_a_router(
    routers: Routers, controls: Controls
) -> None:
    lease = controls.ledger.acquire()
    controls.rollout(1.0, dead_man_seconds=0.2)
    controls.ledger.release(lease)
    first = routers()
    until(lambda: first.alarm)
    assert routers().alarm
