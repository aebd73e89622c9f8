"""The router in front of a model server that executes SavedModels."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.components.serving.control import LoadState
from penstock.components.serving.model_server.replay import replay
from penstock.components.serving.model_server.servable import Servable
from penstock.components.serving.model_server.spawn import spawned
from penstock.components.serving.router.app import App
from penstock.components.serving.router.lanes import LaneError, Lanes
from penstock.components.serving.router.request_log import RequestLog, read_log
from penstock.components.serving.router.router import Router
from penstock.components.serving.security import Tls
from penstock.components.serving.target import TfServingTarget
from penstock.components.serving.traffic import Traffic
from penstock.schemas.artifacts import WARMUP_FILE
from tests.components.serving.certificates import Authority
from tests.components.serving.model_server.models import (
    examples,
    save_template,
    save_version,
)
from tests.components.serving.router.http_clients import Client, over_http
from tests.components.serving.router.servers import (
    COMMAND,
    Controls,
    obeys,
    serving,
    until,
)

MODEL = "ranker"
X = np.array([1.0, 2.5], np.float32)


@dataclass
class Real:
    """A serving directory, and a server that has loaded versions 1 and 2 of it."""

    folder: Path
    address: str
    faults: Path
    target: TfServingTarget


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_template(tmp_path_factory.mktemp("template") / "model")


@pytest.fixture(scope="module")
def real(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("serving") / MODEL
    for version in (1, 2, 3):
        save_version(template, folder, version)
    faults = folder.parent / "faults.json"
    faults.write_text("{}")
    config = folder.parent / "models.config"
    config.write_text("model_config_list {}")
    with ExitStack() as stack:
        run = stack.enter_context(
            spawned(
                model_config_file=str(config),
                fault_file=str(faults),
                file_system_poll_wait_seconds=0.05,
                # A retry keeps the loop that manages versions for minutes.
                max_num_load_retries=5,
                num_load_threads=0,
            )
        )
        address = run.ports.address
        target = stack.enter_context(TfServingTarget(MODEL, folder, address))
        load(target, 1, 2)
        yield Real(folder, address, faults, target)


def load(target: TfServingTarget, *versions: int) -> None:
    target.load(versions)
    until(
        lambda: all(
            version in target.states()
            and target.states()[version].state is LoadState.AVAILABLE
            for version in versions
        ),
        60,
    )


@pytest.fixture
def controls(real: Real) -> Iterator[Controls]:
    made = Controls(real.folder)
    yield made
    made.ledger.close()


@pytest.fixture
def routers(real: Real) -> Iterator[Callable[..., Router]]:
    made: list[Router] = []

    def make(**options: Any) -> Router:
        options = {"address": real.address, "deadline_seconds": 20.0, **options}
        made.append(Router(real.folder, MODEL, **options))
        return made[-1]

    yield make
    for router in made:
        router.close()


def test_both_versions_answer_what_they_compute(
    routers: Callable[..., Router], controls: Controls
) -> None:
    controls.rollout(0.5, rollout="both")
    router = routers()
    arms = set()
    for i in range(30):
        answer = router.predict({"x": X}, f"user-{i}")
        assert answer.outputs["y"].tolist() == (2 * X + answer.version).tolist()
        arms.add(answer.arm)
    assert arms == {"stable", "candidate"}
    request = {"signature": "several", "outputs": ["text"]}
    inputs = {"a": X, "b": np.array([1, 2]), "s": np.array(["p", "q"])}
    answer = router.predict(inputs, **request)  # type: ignore[arg-type]
    assert answer.outputs["text"].tolist() == [b"p!", b"q!"]


def test_json_is_answered_as_by_the_server_itself(
    routers: Callable[..., Router], controls: Controls
) -> None:
    controls.set(stable=1)
    with over_http(App(routers())) as client:
        for body, wanted in (
            ({"instances": [1.0, 2.5]}, {"predictions": [3.0, 6.0]}),
            ({"inputs": {"x": [0.1]}}, {"outputs": [1.2]}),
            (
                {
                    "signature_name": "several",
                    "instances": [{"a": 1, "b": 2, "s": {"b64": "cA=="}}],
                },
                None,  # its version is no batch
            ),
            (
                {
                    "signature_name": "several",
                    "inputs": {"a": [1], "b": [2], "s": ["p"]},
                },
                {"outputs": {"sum": [3.0], "text": ["p!"], "version": 1.0}},
            ),
        ):
            said = client.post(f"/v1/models/{MODEL}:predict", json=body)
            if wanted is None:
                assert said.status_code == 400
                assert said.json()["error"].startswith("The outputs have no batch")
            else:
                assert said.json() == wanted
        said = client.post(
            f"/v1/models/{MODEL}:predict",
            json={"signature_name": "matrix", "instances": [[1.0, 2.0]]},
        )
        assert said.status_code == 400  # of the wrong shape, which the server tells
        assert "INVALID_ARGUMENT" in said.json()["error"]


def test_examples_go_through_unread(
    routers: Callable[..., Router], controls: Controls
) -> None:
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    controls.set(stable=1)
    router = routers()
    regression = regression_pb2.RegressionRequest(input=examples(1.0, 2.5))
    regression.model_spec.signature_name = "regress"
    found = router.regress(regression.SerializeToString()).message
    assert [each.value for each in found.result.regressions] == [3.0, 6.0]
    classification = classification_pb2.ClassificationRequest(input=examples(9.0))
    classification.model_spec.signature_name = "classify"
    found = router.classify(classification.SerializeToString()).message
    assert [each.label for each in found.result.classifications[0].classes] == [
        "low",
        "high",
    ]


@pytest.mark.parametrize(
    ("inputs", "signature"),
    [
        ({"x": X}, "none"),
        ({"z": X}, ""),
        ({"x": np.array(["text"])}, ""),
        ({"x": X}, "matrix"),
    ],
)
def test_what_the_caller_did_wrong_is_the_same_in_both_arms(
    inputs: dict[str, Any],
    signature: str,
    routers: Callable[..., Router],
    controls: Controls,
    real: Real,
) -> None:
    name = f"wrong {sorted(inputs)} {signature} {inputs.get('x', X).dtype}"
    controls.rollout(0.5, rollout=name)
    router = routers()
    for i in range(20):
        with pytest.raises(LaneError) as raised:
            router.predict(inputs, f"user-{i}", signature=signature)
        assert raised.value.origin == "client"
    router.close()
    with Traffic(real.folder) as traffic:
        step = traffic.steps(name)[0]
    assert all(mark != "failing" for mark, _ in step.counts)
    assert {tally.failures for tally in step.tallies.values()} == {0}


def test_a_version_that_is_not_loaded_is_nobodys_fault(
    routers: Callable[..., Router], controls: Controls, real: Real
) -> None:
    controls.rollout(1.0, candidate=9, rollout="absent")
    router = routers()
    assert router.predict({"x": X}, "user-0").fell_back
    assert router.alarm.startswith(
        "missing: The model server that a router asks does not have version 9"
    )
    for i in range(1, 10):
        answer = router.predict({"x": X}, f"user-{i}")
        assert (answer.version, answer.fell_back) == (1, False)
    router.close()
    with Traffic(real.folder) as traffic:
        steps = traffic.steps("absent").values()
        assert all(("failing", "candidate") not in step.counts for step in steps)


def test_a_candidate_whose_requests_fail_is_left(
    routers: Callable[..., Router], controls: Controls, real: Real
) -> None:
    controls.rollout(1.0, rollout="failing")
    router = routers()
    real.faults.write_text(
        json.dumps({"*": {"2": {"error_share": 1.0, "error_code": "ABORTED"}}})
    )
    try:
        until(lambda: router.predict({"x": X}, "user").fell_back)
        for i in range(10):
            assert router.predict({"x": X}, f"user-{i}").version == 1
    finally:
        real.faults.write_text("{}")
    assert router.alarm
    assert 'code="ABORTED",lane="candidate"' in router.metrics().decode()


def test_a_rollback_needs_no_load_and_happens_while_the_server_tries_one_again(
    routers: Callable[..., Router], controls: Controls, real: Real
) -> None:
    controls.rollout(1.0, rollout="stuck")
    router = routers()
    assert router.predict({"x": X}, "user").version == 2
    real.faults.write_text(json.dumps({"*": {"3": {"load_error": "broken"}}}))
    try:
        real.target.load((1, 2, 3))
        until(lambda: 3 in real.target.states())
        until(lambda: real.target.states()[3].state is LoadState.LOADING)
        obeys(router, controls.rollout(0.0, rollout="stuck"))
        for i in range(20):
            answer = router.predict({"x": X}, f"user-{i}")
            assert answer.version == 1
            assert answer.outputs["y"].tolist() == (2 * X + 1).tolist()
        assert real.target.states()[3].state is LoadState.LOADING  # it still tries
        for version in (1, 2):
            assert real.target.states()[version].state is LoadState.AVAILABLE
    finally:
        real.faults.write_text("{}")


def test_logged_requests_warm_a_version_up(
    tmp_path: Path,
    template: Path,
    routers: Callable[..., Router],
    controls: Controls,
) -> None:
    controls.rollout(0.5, rollout="logged")
    router = routers(request_log=RequestLog(tmp_path / "log", MODEL))
    for i in range(20):
        router.predict({"x": X}, f"user-{i}")
    with pytest.raises(LaneError):
        router.predict({"x": np.array(["text"])}, "user")
    router.close()
    assert len(list(read_log(tmp_path / "log"))) == 20
    (path,) = (tmp_path / "log").iterdir()
    folder = save_version(template, tmp_path / "new", 5)
    (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
    path.rename(folder / WARMUP_FILE)
    servable = Servable(folder)
    assert replay(servable) == 20
    servable.close()


def test_the_service_starts_a_model_server_with_what_is_routed(
    template: Path, tmp_path: Path
) -> None:
    folder = tmp_path / MODEL
    for version in (1, 2, 3):
        save_version(template, folder, version)
    controls = Controls(folder)
    controls.rollout(1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *COMMAND,
            str(folder),
            f"--server=127.0.0.1:{port}",
            "--port=0",
            "--with-model-server",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = process.stdout.readline()
        match = re.search(r"http://(127\.0\.0\.1):(\d+)/v1/models/ranker:", said)
        assert match is not None, said
        client = Client(match[1], int(match[2]))
        statuses = f"/v1/models/{MODEL}"
        until(lambda: client.get(statuses).text.count("AVAILABLE") == 2, 60)
        for unit, version in ((None, 1), ("user", 2)):
            headers = {} if unit is None else {"X-Unit-Id": unit}
            body = {"instances": [1.0]}
            answer = client.post(f"{statuses}:predict", json=body, headers=headers)
            assert answer.json() == {"predictions": [2.0 + version]}
        process.terminate()
        assert process.wait(60) == 0
    with pytest.raises(ConnectionRefusedError):  # the server ended with it
        socket.create_connection(("127.0.0.1", port))
    controls.ledger.close()


@pytest.mark.parametrize("mutual", [False, True])
def test_the_connection_may_be_secured(
    mutual: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("server")
    known = authority.file if mutual else None
    credentials = Tls(certificate, key, known).server_credentials()
    controls = Controls(tmp_path)
    controls.set(stable=1)
    ours = authority.sign("router")
    with serving(credentials=credentials) as server:
        plain = Tls(authority=authority.file)
        for tls, answers in (
            (Tls(*ours, authority=authority.file), True),
            (plain, not mutual),
            (None, False),
            (Tls(authority=Authority(tmp_path / "other").file), False),
        ):
            with Router(
                tmp_path, MODEL, address=server.address, tls=tls, deadline_seconds=5
            ) as router:
                if answers:
                    assert router.predict({"x": X}).version == 1
                else:
                    with pytest.raises(LaneError, match="UNAVAILABLE"):
                        router.predict({"x": X})
    controls.ledger.close()


def test_a_message_that_is_too_large_is_the_callers(tmp_path: Path) -> None:
    with serving() as server:
        lanes = Lanes(server.address, MODEL, max_bytes=2000)
        from penstock.components.serving.messages import PREDICT

        with pytest.raises(LaneError) as raised:
            lanes.call(PREDICT, b"\x0a" + bytes([0x80, 0x20]) + bytes(4096), 1, 5.0)
        assert raised.value.code == "RESOURCE_EXHAUSTED"
        assert raised.value.origin == "client"
        lanes.close()
