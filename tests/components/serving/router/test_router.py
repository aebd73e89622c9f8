from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.components.serving.messages import (
    PREDICT,
    ClassificationRequest,
    MultiInferenceRequest,
    PredictRequest,
    RegressionRequest,
    State,
    to_tensor,
)
from penstock.components.serving.router.answers import (
    MAX_UNIT_LENGTH,
    NoStable,
    NotRouted,
)
from penstock.components.serving.router.assignment import is_candidate
from penstock.components.serving.router.lanes import LaneError, origin_of
from penstock.components.serving.router.router import Router
from penstock.components.serving.traffic import Arm, Traffic
from penstock.schemas.errors import DataError, ServingError
from tests.components.serving.router.servers import Controls, Server, until

Routers = Callable[..., Router]
X = {"x": np.array([1.0, 2.0], np.float32)}
UNITS = [f"user-{i}" for i in range(200)]
CANDIDATE = next(unit for unit in UNITS if is_candidate("salt", unit, 0.5))
STABLE = next(unit for unit in UNITS if not is_candidate("salt", unit, 0.5))


def test_every_unit_is_answered_by_the_version_of_its_arm(
    routers: Routers, controls: Controls
) -> None:
    controls.rollout(0.5)
    router = routers()
    arms = set()
    for unit in UNITS[:40]:
        answer = router.predict(X, unit)
        wanted = "candidate" if is_candidate("salt", unit, 0.5) else "stable"
        assert answer.arm == wanted
        assert answer.version == {"stable": 1, "candidate": 2}[wanted]
        assert answer.outputs["y"].tolist() == [
            2.0 + answer.version,
            4.0 + answer.version,
        ]
        assert not answer.fell_back
        arms.add(wanted)
    assert arms == {"stable", "candidate"}
    assert router.routed() == {1: "stable", 2: "candidate"}


def test_what_has_no_unit_is_answered_by_stable(
    routers: Routers, controls: Controls
) -> None:
    controls.rollout(1.0)
    router = routers()
    assert router.predict(X).version == 1
    assert router.predict(X, "anyone").version == 2


def test_a_version_without_weight_is_never_asked(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.0)
    router = routers()
    for unit in UNITS[:20]:
        assert router.predict(X, unit).version == 1
    with pytest.raises(NotRouted) as raised:
        router.predict(X, version=2)
    assert str(raised.value) == (
        "Version 2 of 'ranker' gets no requests: those that do are '1'. Leave the "
        "version out, and the rollout decides."
    )
    assert server.versions() == [1] * 20


def test_a_routed_version_may_be_named_and_that_is_no_evidence(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    router = routers()
    assert router.predict(X, STABLE, version=2).version == 2
    server.fail(2)
    with pytest.raises(LaneError):
        router.predict(X, STABLE, version=2)
    router.close()
    assert server.versions() == [2, 2]
    assert Traffic(tmp_path).steps("r") == {}


def test_without_a_stable_version_nobody_is_answered(
    routers: Routers, controls: Controls
) -> None:
    router = routers()
    with pytest.raises(NoStable) as raised:
        router.predict(X)
    assert str(raised.value) == (
        "No version of 'ranker' is routed, so nobody can be answered. Roll one out "
        "with 'penstock rollout start'."
    )
    controls.set(stable=7)
    until(lambda: router.routing.stable == 7)
    assert router.predict(X).version == 7


@pytest.mark.parametrize("layout", ["names", "labels"])
def test_the_version_replaces_what_a_request_says_and_nothing_else(
    layout: Any, routers: Routers, controls: Controls, server: Server
) -> None:
    controls.set(stable=3)
    router = routers(layout=layout)
    request = PredictRequest(output_filter=["y"])
    request.model_spec.name = "another"
    request.model_spec.version_label = "canary"
    request.model_spec.signature_name = "special"
    request.inputs["x"].CopyFrom(to_tensor(X["x"]))
    for form in (request, request.SerializeToString()):
        assert router.predict(form).version == 3
    for sent in server.requests:
        assert sent.model_spec.name == ("ranker__v3" if layout == "names" else "ranker")
        assert sent.model_spec.version.value == 3
        assert sent.model_spec.signature_name == "special"
        assert sent.output_filter == ["y"]


def test_the_other_calls_are_routed_too(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.set(stable=3)
    router = routers()
    regressed = router.regress(RegressionRequest()).message
    assert regressed.result.regressions[0].value == 3
    classified = router.classify(ClassificationRequest()).message
    assert classified.result.classifications[0].classes[0].label == "3"
    both = MultiInferenceRequest()
    both.tasks.add().model_spec.signature_name = "one"
    both.tasks.add().model_spec.signature_name = "two"
    router.multi_inference(both)
    specs = [task.model_spec for task in server.requests[-1].tasks]
    assert [spec.name for spec in specs] == ["ranker__v3"] * 2
    assert [spec.signature_name for spec in specs] == ["one", "two"]
    assert router.status(3) == (State.AVAILABLE, "")
    assert (
        list(router.signatures(3)) == list(router.signatures(3)) == ["serving_default"]
    )
    assert server.metadata_calls == 1


def test_a_failure_of_the_candidate_is_answered_by_stable(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    server.fail(2)
    router = routers()
    answer = router.predict(X, CANDIDATE)
    assert (answer.version, answer.arm, answer.fell_back) == (1, "stable", True)
    assert server.versions() == [2, 1]
    router.close()
    found = Traffic(tmp_path).steps("r")[0]
    assert found.counts == {("seen", "candidate"): 1, ("failing", "candidate"): 1}
    assert list(found.tallies) == ["candidate"]
    tally = found.tallies["candidate"]
    assert (tally.requests, tally.failures, tally.fallbacks) == (1, 1, 1)
    assert tally.sketch == {}


def test_a_candidate_that_hangs_leaves_stable_time_to_answer(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    go = server.stall(2)
    answer = routers(deadline_seconds=1.0).predict(X, CANDIDATE)
    go.set()
    assert answer.fell_back
    assert server.versions() == [2, 1]


def test_a_failed_fallback_raises_the_first_error_and_nothing_is_tried_again(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    server.fail(2, details="the candidate is broken")
    server.fail(1, details="stable is broken")
    with pytest.raises(LaneError) as raised:
        routers().predict(X, CANDIDATE)
    assert str(raised.value) == (
        "Version 2 of 'ranker' did not answer: INTERNAL: the candidate is broken. Look "
        "into the log of the model server."
    )
    assert server.versions() == [2, 1]


def test_a_failure_of_stable_is_not_tried_again(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    server.fail(1)
    with pytest.raises(LaneError, match=r"^Version 1 of 'ranker'"):
        routers().predict(X, STABLE)
    assert server.versions() == [1]


def test_without_fallback_the_error_of_the_candidate_is_raised(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    server.fail(2)
    with pytest.raises(LaneError, match=r"^Version 2 of 'ranker'"):
        routers(fallback=False).predict(X, CANDIDATE)
    assert server.versions() == [2]


def test_what_the_caller_did_wrong_counts_against_nobody(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    router = routers()
    for unit in (CANDIDATE, STABLE):
        with pytest.raises(LaneError) as raised:
            router.predict({"z": np.array([1.0])}, unit)
        assert str(raised.value).endswith(
            "did not answer: INVALID_ARGUMENT: input 'x' is missing. Send what the "
            "model's signature takes."
        )
    router.close()
    tallies = Traffic(tmp_path).steps("r")[0].tallies
    arms: tuple[Arm, ...] = ("stable", "candidate")
    for arm in arms:
        tally = tallies[arm]
        assert (tally.requests, tally.failures, tally.client_errors) == (1, 0, 1)
    counts = Traffic(tmp_path).steps("r")[0].counts
    assert not any(mark == "failing" for mark, _ in counts)


def test_what_only_the_candidate_calls_the_callers_fault_is_its_own(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    server.fail(2, grpc.StatusCode.INVALID_ARGUMENT, "assertion failed: category")
    router = routers()
    assert router.predict(X, CANDIDATE).fell_back
    router.close()
    assert Traffic(tmp_path).steps("r")[0].counts["failing", "candidate"] == 1
    text = router.metrics().decode()
    assert (
        'code="INVALID_ARGUMENT",lane="candidate",model="ranker",origin="server"'
        in (text)
    )


def test_a_request_that_breaks_the_candidate_but_is_wrong_is_the_callers_fault(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    server.fail(2, grpc.StatusCode.INTERNAL)
    server.fail(1, grpc.StatusCode.INVALID_ARGUMENT, "no such shape")
    router = routers()
    with pytest.raises(LaneError, match="no such shape"):
        router.predict(X, CANDIDATE)
    router.close()
    tally = Traffic(tmp_path).steps("r")[0].tallies["candidate"]
    assert (tally.failures, tally.client_errors) == (0, 1)


def test_a_candidate_that_the_server_does_not_have_is_not_to_blame(
    routers: Routers, controls: Controls, server: Server, tmp_path: Path
) -> None:
    controls.rollout(1.0)
    server.fail(2, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest")
    router = routers()
    for number in range(20):
        answer = router.predict(X, f"{CANDIDATE}-{number}")
        assert (answer.version, answer.arm) == (1, "stable")
    assert router.alarm.startswith(
        "missing: The model server that a router asks does not have version 2 under "
        "the name that it asks for"
    )
    asked = len(server.asked)
    assert router.predict(X, CANDIDATE).version == 1
    assert len(server.asked) == asked + 1, "the candidate is left alone for a while"
    router.close()
    for step in Traffic(tmp_path).steps("r").values():
        assert ("failing", "candidate") not in step.counts


def test_an_id_that_is_no_text_is_refused(routers: Routers, controls: Controls) -> None:
    controls.rollout(1.0)
    with pytest.raises(
        DataError, match=r"The id of a unit is 7 \(int\), which is no te"
    ):
        routers().predict(X, 7)  # type: ignore[arg-type]


def test_one_version_going_away_is_nothing_the_caller_did() -> None:
    code = grpc.StatusCode
    servers = [
        (code.NOT_FOUND, "Servable not found for request: Specific(m, 42)"),
        (code.UNAVAILABLE, "failed to connect"),
        (code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (code.FAILED_PRECONDITION, "not currently available for inference"),
        (code.RESOURCE_EXHAUSTED, "out of memory"),
        (code.INTERNAL, "invalid argument"),
    ]
    clients = [
        (code.INVALID_ARGUMENT, "shape"),
        (code.NOT_FOUND, "Serving signature name: 'x' not found in signature def"),
        (code.FAILED_PRECONDITION, 'Serving signature key "x" not found.'),
        (code.OUT_OF_RANGE, ""),
        (code.UNAUTHENTICATED, ""),
        (code.PERMISSION_DENIED, ""),
        (code.CANCELLED, ""),
        (code.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)"),
    ]
    assert {origin_of(*each) for each in servers} == {"server"}
    assert {origin_of(*each) for each in clients} == {"client"}


def test_a_server_that_is_not_there_is_told_as_such(
    routers: Routers, controls: Controls
) -> None:
    controls.set(stable=1)
    with pytest.raises(LaneError) as raised:
        routers(address="127.0.0.1:1").predict(X)
    assert raised.value.code == "UNAVAILABLE"
    assert str(raised.value).endswith(
        ". Check that the model server runs, and its address."
    )


def test_a_request_that_is_no_message_is_refused_before_it_is_sent(
    routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    router = routers()
    with pytest.raises(DataError) as raised:
        router.call(PREDICT, b"\xff\xff", "user")
    assert str(raised.value) == (
        "A request of 2 bytes is no PredictRequest. Serialize one with "
        "SerializeToString."
    )
    assert server.asked == []


def test_an_id_that_is_too_long_is_refused(
    routers: Routers, controls: Controls
) -> None:
    controls.rollout(1.0)
    with pytest.raises(DataError) as raised:
        routers().predict(X, "u" * (MAX_UNIT_LENGTH + 1))
    assert str(raised.value) == (
        "The id of a unit has 1,025 characters where 1,024 are the most. Send a "
        "shorter one, such as a hash."
    )


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_a_deadline_is_a_positive_number(
    wrong: float, routers: Routers, controls: Controls
) -> None:
    sentence = (
        f"A deadline of {wrong:g} seconds cannot be kept. Pass a positive number of "
        "seconds."
    )
    with pytest.raises(ServingError) as raised:
        routers(deadline_seconds=wrong)
    assert str(raised.value) == sentence
    controls.set(stable=1)
    with pytest.raises(ServingError) as raised:
        routers().predict(X, deadline_seconds=wrong)
    assert str(raised.value) == sentence


def test_the_share_of_the_candidate_is_a_share(routers: Routers) -> None:
    with pytest.raises(ServingError) as raised:
        routers(candidate_share=0.0)
    assert str(raised.value) == (
        "The candidate is given 0 of the deadline, which is no share. Pass a number "
        "above 0 and at most 1."
    )


def test_an_outcome_is_a_finite_value_of_a_short_metric(
    routers: Routers, controls: Controls
) -> None:
    router = routers()
    with pytest.raises(DataError) as raised:
        router.record("user", "clicks", float("nan"))
    assert str(raised.value) == (
        "The value of 'clicks' is nan, which cannot be added up. Send a finite number."
    )
    with pytest.raises(DataError) as raised:
        router.record("user", "", 1.0)
    assert str(raised.value) == (
        "An outcome has a metric of 0 characters and a unit of 4, where 1 to 200 and "
        "at most 1024 are taken. Shorten them."
    )


def test_many_threads_share_a_router(routers: Routers, controls: Controls) -> None:
    controls.rollout(0.5)
    router = routers()
    wrong: list[str] = []

    def ask(mine: int) -> None:
        for unit in UNITS[mine::8]:
            arm = "candidate" if is_candidate("salt", unit, 0.5) else "stable"
            if router.predict(X, unit).arm != arm:
                wrong.append(unit)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    text = router.metrics().decode()
    counted = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("penstock_requests_total{")
    ]
    assert sum(counted) == len(UNITS)


def test_nothing_of_the_router_imports_tensorflow(
    tmp_path: Path, controls: Controls, server: Server
) -> None:
    controls.set(stable=1)
    code = """
import json, sys
import numpy as np
from penstock.commands import serving
from penstock.components.serving.router import app, request_log, router, service
log = request_log.RequestLog(sys.argv[1] + "/log", "ranker")
with router.Router(sys.argv[1], "ranker", address=sys.argv[2], request_log=log) as made:
    made.predict({"x": np.array([1.0], np.float32)}, "user")
    made.metrics()
heavy = {"tensorflow", "tensorflow_serving", "apache_beam", "pandas", "pyarrow"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), server.address],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []
