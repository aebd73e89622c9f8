from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.components.serving.messages import (
    CLASSIFY,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    Message,
    to_tensor,
)
from penstock.components.serving.router.lanes import LaneError
from penstock.components.serving.router.router import Router
from penstock.components.serving.router.shadow import Difference, Summary, difference
from penstock.components.serving.traffic import Traffic
from tests.components.serving.router.servers import Controls, Server, obeys, until

Routers = Callable[..., Router]
X = {"x": np.array([1.0, 2.0], np.float32)}


def same(_: Message) -> Message:
    """Answer as version 1 does."""
    response = PREDICT.response()
    response.outputs["y"].CopyFrom(to_tensor(np.array([3.0, 5.0], np.float32)))
    response.model_spec.version.value = 2
    return response


def test_a_candidate_in_shadow_sees_what_stable_answers_and_nobody_its_answer(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    server.behaviors[2] = same
    router = routers()
    for i in range(10):
        assert router.predict(X, f"user-{i}").version == 1
    until(lambda: router.shadow_summary().pairs == 10)
    found = router.shadow_summary()
    assert found.candidate == 2
    assert (found.compared, found.differing, found.max_absolute) == (10, 0, 0.0)
    assert sum(found.candidate_seconds.values()) == 10
    assert sum(found.stable_seconds.values()) == 10
    assert sorted(server.versions()) == [1] * 10 + [2] * 10
    text = router.metrics().decode()
    assert 'penstock_shadow_total{model="ranker",pair="equal"} 10.0' in text
    assert 'version="2"' not in text  # a copy is no request


def test_answers_that_differ_are_told_with_how_much(
    routers: Routers, controls: Controls
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    router = routers()
    router.predict(X)
    until(lambda: router.shadow_summary().pairs == 1)
    found = router.shadow_summary()
    assert (found.differing, found.differing_share) == (1, 1.0)
    assert found.max_absolute == 1.0
    assert found.max_relative == pytest.approx(1 / 3)
    assert 'pair="differing"} 1.0' in router.metrics().decode()


def test_tolerances_are_those_of_the_router(
    routers: Routers, controls: Controls
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    router = routers(absolute=1.0)
    router.predict(X)
    until(lambda: router.shadow_summary().pairs == 1)
    assert router.shadow_summary().differing == 0


def test_a_candidate_that_fails_in_shadow_is_seen_before_it_has_weight(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    server.fail(2)
    router = routers()
    for i in range(4):
        assert router.predict(X, f"user-{i}").version == 1
    until(lambda: router.shadow_summary().candidate_failed == 4)
    server.behaviors.clear()
    router.predict(X, "user")
    until(lambda: router.shadow_summary().pairs == 5)
    router.close()
    found = Traffic(tmp_path).steps("r")
    assert list(found) == [-1]
    tally = found[-1].tallies["candidate"]
    assert (tally.requests, tally.failures) == (5, 4)
    assert sum(tally.sketch.values()) == 1
    assert found[-1].tallies["stable"].requests == 5
    assert found[-1].counts == {}  # nobody was seen by the candidate


def test_what_the_caller_did_wrong_is_not_shown_to_the_candidate(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    router = routers()
    with pytest.raises(LaneError, match="INVALID_ARGUMENT"):
        router.predict({})
    router.predict(X)
    until(lambda: router.shadow_summary().pairs == 1)
    assert server.versions() == [1, 1, 2]


def test_failures_of_stable_are_pairs_too(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    router = routers()
    server.fail(1)
    with pytest.raises(LaneError):
        router.predict(X)
    until(lambda: router.shadow_summary().pairs == 1)
    server.fail(2, grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(LaneError):
        router.predict(X)
    until(lambda: router.shadow_summary().pairs == 2)
    found = router.shadow_summary()
    assert (found.stable_failed, found.both_failed, found.candidate_failed) == (1, 1, 0)


def test_where_both_fail_nothing_is_said_of_the_candidate(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    router = routers()
    server.fail(1)
    server.fail(2)
    with pytest.raises(LaneError):
        router.predict(X, "user")
    until(lambda: router.shadow_summary().both_failed == 1)
    router.close()
    found = Traffic(tmp_path).steps("r")[-1].tallies
    assert found["stable"].failures == 1 and "candidate" not in found


def test_copies_that_do_not_fit_are_dropped_and_nobody_waits(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    go = server.stall(2)
    router = routers(shadow_capacity=2, shadow_threads=1)
    router.predict(X)
    until(lambda: server.versions() == [1, 2])
    for _ in range(7):
        router.predict(X)
    assert router.shadow_summary().dropped == 5
    assert 'pair="dropped"} 5.0' in router.metrics().decode()
    go.set()
    until(lambda: router.shadow_summary().pairs == 3)


def test_a_candidate_that_lost_its_shadow_sees_no_copy_that_waited(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.0, step=-1, shadow=True)
    go = server.stall(2)
    router = routers(shadow_threads=1)
    for _ in range(3):
        router.predict(X)
    until(lambda: server.versions().count(2) == 1)
    obeys(router, controls.rollout(0.0, step=-1))
    go.set()
    until(lambda: router.shadow_summary().withdrawn == 2)
    router.predict(X)
    assert server.versions().count(2) == 1


def test_before_any_shadow_there_is_nothing_to_tell(routers: Routers) -> None:
    assert routers().shadow_summary() == Summary()


# --- comparing


def predicted(**outputs: Any) -> bytes:
    made = PREDICT.response()
    for name, value in outputs.items():
        made.outputs[name].CopyFrom(to_tensor(np.asarray(value)))
    return made.SerializeToString()


def compared(one: bytes, other: bytes, method: Any = PREDICT) -> Difference:
    return difference(method, one, other, 1e-6, 1e-4)


@pytest.mark.parametrize(
    ("stable", "candidate", "differs"),
    [
        ([1.0, 2.0], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, 2.0001], False),
        ([1.0, 2.0], [1.0, 2.001], True),
        ([0.0], [1e-7], False),
        ([0.0], [1e-5], True),
        ([float("nan")], [float("nan")], False),
        ([float("nan")], [1.0], True),
        ([1.0], [float("nan")], True),
        ([float("inf")], [float("inf")], False),
        ([float("inf")], [float("-inf")], True),
        ([float("inf")], [1e300], True),
        ([1e300], [float("inf")], True),
        ([1], [2], True),
        ([2**62], [2**62], False),
        ([True], [False], True),
        ([1 + 2j], [1 + 2j], False),
        ([1 + 2j], [1 + 3j], True),
        (["a"], ["a"], False),
        (["a"], ["b"], True),
        ([], [], False),
    ],
)
def test_numbers_may_differ_within_the_tolerance_and_all_else_not_at_all(
    stable: list[Any], candidate: list[Any], differs: bool
) -> None:
    found = compared(predicted(y=stable), predicted(y=candidate))
    assert (found.differs, found.reshaped) == (differs, False)
    assert not math.isnan(found.absolute) and not math.isnan(found.relative)


@pytest.mark.parametrize(
    "other",
    [
        predicted(z=[1.0]),
        predicted(y=[1.0], z=[1.0]),
        predicted(y=[[1.0]]),
        predicted(y=[1.0, 1.0]),
        predicted(y=np.array([1.0], np.float32)),
        predicted(),
    ],
)
def test_names_shapes_and_types_have_to_be_the_same(other: bytes) -> None:
    found = compared(predicted(y=[1.0]), other)
    assert (found.differs, found.reshaped) == (True, True)


def test_other_kinds_of_answers_are_compared_too() -> None:
    def regressed(*values: float) -> bytes:
        made = REGRESS.response()
        made.model_spec.version.value = int(values[0])
        for value in values:
            made.result.regressions.add().value = value
        return made.SerializeToString()

    assert not compared(regressed(1.0), regressed(1.00001), REGRESS).differs
    assert compared(regressed(1.0), regressed(1.1), REGRESS).differs
    assert compared(regressed(1.0), regressed(1.0, 2.0), REGRESS).reshaped

    def classified(*rows: list[tuple[str, float]]) -> bytes:
        made = CLASSIFY.response()
        for row in rows:
            of_row = made.result.classifications.add()
            for label, score in row:
                of_row.classes.add(label=label, score=score)
        return made.SerializeToString()

    one = classified([("a", 0.5), ("b", 0.5)])
    assert not compared(one, one, CLASSIFY).differs
    assert compared(one, classified([("a", 0.5), ("c", 0.5)]), CLASSIFY).differs
    assert compared(one, classified([("a", 0.6), ("b", 0.4)]), CLASSIFY).differs
    ragged = classified([("a", 0.5)], [("a", 0.5), ("b", 0.5)])
    assert not compared(ragged, ragged, CLASSIFY).differs
    assert compared(ragged, one, CLASSIFY).differs

    def both(value: float, version: int) -> bytes:
        made = MULTI_INFERENCE.response()
        result = made.results.add()
        result.model_spec.version.value = version
        result.regression_result.regressions.add().value = value
        return made.SerializeToString()

    assert not compared(both(1.0, 1), both(1.0, 2), MULTI_INFERENCE).differs
    assert compared(both(1.0, 1), both(1.5, 2), MULTI_INFERENCE).differs
