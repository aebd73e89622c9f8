"""What routers tell of a rollout."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penstock.components.serving import traffic as traffic_module
from penstock.components.serving.router import sketch
from penstock.components.serving.router.assignment import is_candidate, unit_number
from penstock.components.serving.router.router import Router
from penstock.components.serving.traffic import Arm, ArmValues, Report, Seen, Traffic
from penstock.schemas.errors import ServingError
from tests.components.serving.router.servers import Controls, Server, obeys, until

Routers = Callable[..., Router]
X = {"x": np.array([1.0], np.float32)}
ARMS: tuple[Arm, ...] = ("stable", "candidate")
UNITS = [f"user-{i}" for i in range(60)]


def in_arm(arm: Arm) -> list[str]:
    wanted = arm == "candidate"
    return [unit for unit in UNITS if is_candidate("salt", unit, 0.5) == wanted]


def test_units_are_told_once_with_the_step_they_were_first_seen_in(
    routers: Routers, controls: Controls, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    router = routers()
    for _ in range(3):
        for unit in UNITS[:40]:
            router.predict(X, unit)
    obeys(router, controls.rollout(0.5, step=1))
    for unit in UNITS:
        router.predict(X, unit)
    router.close()
    steps = Traffic(tmp_path).steps("r")
    for step, units in enumerate((UNITS[:40], UNITS[40:])):
        for arm in ARMS:
            mine = [unit for unit in units if unit in in_arm(arm)]
            assert steps[step].counts["seen", arm] == len(mine)
    for arm in ARMS:
        tally = steps[0].tallies[arm]
        mine = [unit for unit in UNITS[:40] if unit in in_arm(arm)]
        assert (tally.requests, tally.units) == (3 * len(mine), len(mine))
        assert sum(tally.sketch.values()) == tally.requests
        # In the next step all units were answered, though few were seen first.
        assert steps[1].tallies[arm].units == len(in_arm(arm))


def test_requests_without_a_unit_are_no_evidence(
    routers: Routers, controls: Controls, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    router = routers()
    router.predict(X)
    router.close()
    assert Traffic(tmp_path).steps("r") == {}


def test_slow_is_what_takes_longer_than_the_routing_says(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5, slow_seconds=0.1, slow_ratio=2.0)
    router = routers()
    server.delay(1, 0.15)
    server.delay(2, 0.15)
    router.predict(X, in_arm("stable")[0])
    router.predict(X, in_arm("candidate")[0])
    server.delay(2, 0.25)
    router.predict(X, in_arm("candidate")[1])
    router.close()
    counts = Traffic(tmp_path).steps("r")[0].counts
    assert counts["slow", "stable"] == 1
    assert counts["slow", "candidate"] == 1
    assert counts["seen", "candidate"] == 2


def test_an_answer_of_stable_that_the_candidate_was_not_given_the_time_for_is_a_failure(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5, slow_seconds=0.01)
    router = routers(deadline_seconds=1.0, candidate_share=0.1)
    server.delay(1, 0.2)
    assert router.predict(X, in_arm("stable")[0]).version == 1
    assert router.predict(X, in_arm("stable")[1]).version == 1
    server.delay(2, 0.3)
    assert router.predict(X, in_arm("candidate")[0]).fell_back
    router.close()
    counts = Traffic(tmp_path).steps("r")[0].counts
    assert counts["failing", "stable"] == 2
    assert counts["failing", "candidate"] == 1
    assert ("slow", "stable") not in counts


def test_values_reach_the_arm_of_their_unit(
    routers: Routers, controls: Controls, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    router = routers()
    for arm, value in zip(ARMS, (1.0, 4.0), strict=True):
        unit = in_arm(arm)[0]
        router.predict(X, unit)
        router.record(unit, "clicks", value)
        router.record(unit, "clicks", value)
    router.record("never seen", "clicks", 9.0)
    router.close()
    assert Traffic(tmp_path).steps("r")[0].values == {
        ("clicks", "stable"): ArmValues(1, 2.0, 4.0),
        ("clicks", "candidate"): ArmValues(1, 8.0, 64.0),
    }


def test_before_the_first_step_stable_is_known_by_its_latencies(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.0, step=-1)
    server.delay(1, 0.05)
    router = routers()
    router.predict(X, "user")
    router.close()
    found = Traffic(tmp_path).steps("r")[-1]
    assert found.counts == {}  # or the unit would not be new in the first step
    median = sketch.quantile(found.tallies["stable"].sketch, 0.5)
    assert median is not None and median >= 0.05 * 0.99


def test_traffic_that_cannot_be_written_fails_nobody_and_is_told_later(
    routers: Routers,
    controls: Controls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controls.rollout(0.5)
    router = routers()
    real = Traffic.report
    tries = threading.Event()

    def broken(self: Traffic, report: Report) -> frozenset[tuple[int, str]]:
        tries.set()
        raise ServingError("The disk is full.")

    monkeypatch.setattr(Traffic, "report", broken)
    for unit in UNITS:
        router.predict(X, unit)
        router.record(unit, "clicks", 1.0)
    assert tries.wait(20)
    assert 'penstock_unreported_total{cause="tries",model="ranker"}' in (
        router.metrics().decode()
    )
    monkeypatch.setattr(Traffic, "report", real)
    traffic = Traffic(tmp_path)
    until(lambda: traffic.steps("r"))
    router.close()
    found = traffic.steps("r")[0]
    for arm in ARMS:
        assert found.counts["seen", arm] == len(in_arm(arm))
        assert found.tallies[arm].requests == len(in_arm(arm))
        assert found.values["clicks", arm].total == len(in_arm(arm))


def test_a_step_that_is_full_is_not_told_of_again(
    routers: Routers,
    controls: Controls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic_module, "MAX_UNITS", 10)
    told: list[Seen] = []
    real = Traffic.report

    def watched(self: Traffic, report: Report) -> object:
        told.extend(report.seen)
        return real(self, report)

    monkeypatch.setattr(Traffic, "report", watched)
    controls.rollout(1.0)
    router = routers()
    for unit in UNITS[:30]:
        router.predict(X, unit)
    until(lambda: len(told) >= 11)
    traffic = Traffic(tmp_path)

    def requests() -> int:
        steps = traffic.steps("r")
        return steps[0].tallies["candidate"].requests if steps else 0

    until(lambda: requests() == 30)
    assert traffic.steps("r")[0].counts["seen", "candidate"] == 10
    router.predict(X, UNITS[30])
    until(lambda: requests() == 31)
    before = len(told)
    for unit in UNITS[31:]:
        router.predict(X, unit)
    router.close()
    assert len(told) == before
    tally = Traffic(tmp_path).steps("r")[0].tallies["candidate"]
    assert (tally.requests, tally.units) == (60, 60)


def test_units_go_by_a_hash_that_is_not_their_place(
    routers: Routers,
    controls: Controls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Seen] = []
    real = Traffic.report

    def watched(self: Traffic, report: Report) -> object:
        told.extend(report.seen)
        return real(self, report)

    monkeypatch.setattr(Traffic, "report", watched)
    controls.rollout(1.0)
    router = routers()
    router.predict(X, "user")
    router.close()
    assert told == [Seen("seen", unit_number("user"), 0, "candidate")]


def test_a_rollout_that_follows_another_is_told_of_by_itself(
    routers: Routers, controls: Controls, tmp_path: Path
) -> None:
    controls.rollout(1.0, rollout="one")
    router = routers()
    router.predict(X, "user")
    for name in ("two", "three", "four", "five", "six"):
        obeys(router, controls.rollout(1.0, rollout=name))
        router.predict(X, "user")
    router.close()
    traffic = Traffic(tmp_path)
    for name in ("one", "two", "three", "four", "five", "six"):
        assert traffic.steps(name)[0].counts == {("seen", "candidate"): 1}
