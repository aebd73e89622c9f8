"""The router over HTTP."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.components.serving.router.app import App
from penstock.components.serving.router.assignment import is_candidate
from penstock.components.serving.router.request_log import (
    RequestLog,
    by_header,
    read_log,
)
from penstock.components.serving.router.router import Router
from penstock.components.serving.traffic import ArmValues, Traffic
from tests.components.serving.router.http_clients import Client, over_http
from tests.components.serving.router.servers import Controls, Server, obeys, until

Routers = Callable[..., Router]
PREDICT = "/v1/models/ranker:predict"
ROWS = {"instances": [1.0, 2.5]}
UNITS = [f"user-{i}" for i in range(50)]
CANDIDATE = next(unit for unit in UNITS if is_candidate("salt", unit, 0.5))
STABLE = next(unit for unit in UNITS if not is_candidate("salt", unit, 0.5))


@pytest.fixture
def clients(routers: Routers) -> Iterator[Callable[..., Client]]:
    """Make clients of applications that end with the test."""
    with ExitStack() as stack:

        def make(router: Router | None = None, **options: Any) -> Client:
            app = App(router or routers(), **options)
            return stack.enter_context(over_http(app))

        yield make


def error_of(response: Any) -> str:
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


def test_predictions_come_from_the_version_of_the_unit(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    client = clients()
    for unit, version, lane in ((STABLE, 1, "stable"), (CANDIDATE, 2, "candidate")):
        said = client.post(PREDICT, json=ROWS, headers={"X-Unit-Id": unit})
        assert said.status_code == 200
        assert said.json() == {"predictions": [2.0 + version, 5.0 + version]}
        assert said.headers["x-penstock-version"] == str(version)
        assert said.headers["x-penstock-lane"] == lane
        assert "x-penstock-fallback" not in said.headers
    said = client.post(PREDICT, json={"inputs": {"x": [1.0]}})
    assert (said.json(), said.headers["x-penstock-version"]) == (
        {"outputs": [3.0]},
        "1",
    )


def test_the_header_of_the_unit_is_chosen_and_may_hold_any_text(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    client = clients(unit_header="X-User")
    for unit in ("jürgen", "jürgen2", "jürgen3", "jürgen4"):
        said = client.post(PREDICT, json=ROWS, headers={"x-user": unit.encode()})
        wanted = "candidate" if is_candidate("salt", unit, 0.5) else "stable"
        assert said.headers["x-penstock-lane"] == wanted


def test_a_fallback_says_so(
    clients: Callable[..., Client], controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    server.fail(2)
    said = clients().post(PREDICT, json=ROWS, headers={"X-Unit-Id": CANDIDATE})
    assert said.status_code == 200
    assert said.headers["x-penstock-version"] == "1"
    assert said.headers["x-penstock-lane"] == "stable"
    assert said.headers["x-penstock-fallback"] == "true"


def test_a_path_names_only_versions_that_get_requests(
    clients: Callable[..., Client],
    controls: Controls,
    routers: Routers,
    server: Server,
) -> None:
    controls.rollout(0.5)
    router = routers()
    client = clients(router)
    for which, version in (
        ("versions/1", "1"),
        ("versions/2", "2"),
        ("labels/stable", "1"),
        ("labels/canary", "2"),
    ):
        said = client.post(f"/v1/models/ranker/{which}:predict", json=ROWS)
        assert said.headers["x-penstock-version"] == version
    obeys(router, controls.rollout(0.0))
    before = len(server.asked)
    for which in ("versions/2", "versions/3", "versions/00000000000000000002"):
        said = client.post(f"/v1/models/ranker/{which}:predict", json=ROWS)
        assert said.status_code == 404
    said = client.post("/v1/models/ranker/versions/2:predict", json=ROWS)
    assert error_of(said) == (
        "Version 2 of 'ranker' gets no requests: those that do are '1'. Leave the "
        "version out, and the rollout decides."
    )
    said = client.post("/v1/models/ranker/labels/canary:predict", json=ROWS)
    assert said.status_code == 404
    assert error_of(said) == (
        "No version of 'ranker' that gets requests has the label 'canary' (there are "
        "'stable'). Leave the label out, and the rollout decides."
    )
    assert len(server.asked) == before
    assert server.metadata_calls == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/ranker:reload",
        "/v1/models/ranker/versions/..%2f..%2fetc:predict",
        "/v1/models/ranker/versions/-1:predict",
        "/v1/models/../ranker:classify",
        "/v1/models/ranker:regress",
        "/v1/models",
        "/",
    ],
)
def test_nothing_else_is_there(
    path: str, clients: Callable[..., Client], controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    client = clients()
    for method in ("GET", "POST", "DELETE", "PUT"):
        said = client.request(method, path, content=b"{}")
        assert said.status_code == 404
        assert error_of(said).endswith(
            ". Send predictions to '/v1/models/ranker:predict'."
        )
    assert server.asked == []


def test_another_model_gets_a_near_miss(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    said = clients().post("/v1/models/rankr:predict", json=ROWS)
    assert said.status_code == 404
    assert error_of(said) == (
        "There is no model 'rankr' here (there is 'ranker'). Did you mean 'ranker'?"
    )


def test_a_path_takes_one_method(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    client = clients()
    for method, path in (("GET", PREDICT), ("POST", "/metrics"), ("PUT", "/healthz")):
        assert client.request(method, path).status_code == 405
    assert error_of(client.get(PREDICT)) == (
        "'/v1/models/ranker:predict' was sent GET and takes POST. Use that."
    )
    assert client.head("/healthz").status_code == 200


def test_a_request_that_does_not_fit_gets_a_sentence(
    clients: Callable[..., Client], controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    client = clients()
    for body, sentence in (
        (b"{", "The body is no JSON: "),
        (b"\xff\xfe", "The body is no JSON: "),
        (b'{"instances": ["a"]}', "'x' holds \"a\" where numbers (DT_FLOAT) are"),
        (b'{"instances": [1], "signature_name": "s"}', "The model has no signature"),
    ):
        said = client.post(PREDICT, content=body)
        assert said.status_code == 400
        assert error_of(said).startswith(sentence)
    assert server.asked == []
    for version in (1, 2):
        server.fail(version, grpc.StatusCode.INVALID_ARGUMENT, "x must be [?,3]")
    said = client.post(PREDICT, json=ROWS)
    assert said.status_code == 400
    assert error_of(said) == (
        "Version 1 of 'ranker' did not answer: INVALID_ARGUMENT: x must be [?,3]. Send "
        "what the model's signature takes."
    )


@pytest.mark.parametrize(
    ("code", "details", "status"),
    [
        (grpc.StatusCode.UNAVAILABLE, "", 503),
        (grpc.StatusCode.NOT_FOUND, "Servable not found for request", 503),
        (grpc.StatusCode.INTERNAL, "", 500),
        (grpc.StatusCode.UNKNOWN, "", 500),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", 429),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", 504),
    ],
)
def test_a_failure_has_the_status_that_clients_of_tensorflow_serving_know(
    code: Any,
    details: str,
    status: int,
    clients: Callable[..., Client],
    controls: Controls,
    server: Server,
) -> None:
    controls.rollout(0.5)
    server.fail(1, code, details)
    said = clients().post(PREDICT, json=ROWS)
    assert said.status_code == status
    assert said.headers["x-penstock-version"] == "1"
    assert code.name in error_of(said)


def test_without_a_stable_version_all_is_503(
    clients: Callable[..., Client],
) -> None:
    client = clients()
    for said in (client.post(PREDICT, json=ROWS), client.get("/healthz")):
        assert said.status_code == 503
        assert error_of(said).endswith("Roll one out with 'penstock rollout start'.")


def test_a_body_that_is_too_large_is_not_read(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    client = clients(max_bytes=1000)
    sentence = (
        "The body is larger than 1,000 bytes. Send less at once, or raise "
        "--max-request-bytes."
    )
    large = b"x" * 1001

    def chunks() -> Iterator[bytes]:
        yield large

    for content, headers in (
        (large, {}),
        (chunks(), {}),
        (gzip.compress(large), {"Content-Encoding": "gzip"}),
    ):
        said = client.post(PREDICT, content=content, headers=headers)
        assert said.status_code == 413
        assert error_of(said) == sentence


def test_a_body_may_be_packed(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    client = clients()
    packed = gzip.compress(json.dumps(ROWS).encode())
    said = client.post(PREDICT, content=packed, headers={"Content-Encoding": "gzip"})
    assert said.json() == {"predictions": [3.0, 6.0]}
    for content, encoding, sentence in (
        (
            b"none",
            "gzip",
            "The body is said to be gzip and is none: Error -3 while decompressing "
            "data: incorrect header check. Pack it anew.",
        ),
        (
            packed[:-9],
            "gzip",
            "The body is gzip that ends too early. Send the whole of it.",
        ),
        (b"", "br", "The body is encoded as 'br'. Send it as it is, or as 'gzip'."),
    ):
        said = client.post(
            PREDICT, content=content, headers={"Content-Encoding": encoding}
        )
        assert (said.status_code, error_of(said)) == (400, sentence)


def test_what_is_more_than_can_be_answered_is_told_to_come_later(
    clients: Callable[..., Client], controls: Controls, server: Server
) -> None:
    controls.rollout(0.5)
    client = clients(threads=1)
    assert client.post(PREDICT, json=ROWS).status_code == 200
    go = server.stall(1)
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.post(PREDICT, json=ROWS).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) == 3)
    assert statuses == [503] * 3
    assert error_of(client.post(PREDICT, json=ROWS)) == (
        "5 requests are under way, which is all that this router takes at once. Send "
        "it again later, or run more workers."
    )
    assert client.get("/healthz").status_code == 200  # it is busy, and well
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 5 + [503] * 3


def test_outcomes_reach_the_arm_of_their_unit(
    clients: Callable[..., Client], controls: Controls, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    client = clients()
    for unit in (STABLE, CANDIDATE):
        client.post(PREDICT, json=ROWS, headers={"X-Unit-Id": unit})
    one = {"unit": STABLE, "metric": "clicks", "value": 1}
    two = {"unit": CANDIDATE, "metric": "clicks", "value": 2.5}
    assert client.post("/v1/outcomes", json=one).json() == {"accepted": 1}
    many = {"outcomes": [two, two]}
    assert client.post("/v1/outcomes", json=many).json() == {"accepted": 2}
    traffic = Traffic(tmp_path)
    until(lambda: traffic.steps("r") and len(traffic.steps("r")[0].values) == 2)
    assert traffic.steps("r")[0].values == {
        ("clicks", "stable"): ArmValues(1, 1.0, 1.0),
        ("clicks", "candidate"): ArmValues(1, 5.0, 25.0),
    }


def test_an_outcome_that_is_none_gets_a_sentence_and_none_is_taken(
    clients: Callable[..., Client], controls: Controls, tmp_path: Path
) -> None:
    controls.rollout(0.5)
    client = clients()
    client.post(PREDICT, json=ROWS, headers={"X-Unit-Id": STABLE})
    good = {"unit": STABLE, "metric": "clicks", "value": 1}
    for wrong in (3, {}, {**good, "value": "1"}, {**good, "value": True}):
        said = client.post("/v1/outcomes", json={"outcomes": [good, wrong]})
        assert said.status_code == 400
        assert error_of(said) == (
            "Outcome 1 is no object with 'unit' and 'metric' (texts) and 'value' (a "
            "number), so none was taken. Send them anew."
        )
    said = client.post("/v1/outcomes", content=b'{"outcomes": 3}')
    assert error_of(said) == (
        "'outcomes' is no list. Send a list of objects, or one object."
    )
    for value in ("1" + "0" * 400, "Infinity", "NaN"):
        body = f'{{"unit": "u", "metric": "clicks", "value": {value}}}'
        said = client.post("/v1/outcomes", content=body.encode())
        assert said.status_code == 400
        assert "which cannot be added up" in error_of(said)
    traffic = Traffic(tmp_path)
    until(lambda: traffic.steps("r"))
    assert traffic.steps("r")[0].values == {}


def test_health_status_and_metrics_are_there(
    clients: Callable[..., Client], controls: Controls
) -> None:
    controls.rollout(0.5)
    client = clients()
    client.post(PREDICT, json=ROWS)
    assert client.get("/healthz").json() == {"stable": 1, "alarm": ""}
    ok = {"error_code": "OK", "error_message": ""}
    rows = [
        {"version": version, "state": "AVAILABLE", "status": ok} for version in "21"
    ]
    for path, wanted in (
        ("", rows),
        ("/versions/1", rows[1:]),
        ("/labels/canary", rows[:1]),
    ):
        said = client.get(f"/v1/models/ranker{path}")
        assert said.json() == {"model_version_status": wanted}
    assert client.get("/v1/models/ranker/versions/9").status_code == 404
    said = client.get("/metrics")
    assert said.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (
        'penstock_requests_total{lane="stable",model="ranker",outcome="ok",version="1"}'
        " 1.0"
    ) in said.text


def test_a_header_names_the_stratum_of_the_log(
    tmp_path: Path,
    clients: Callable[..., Client],
    routers: Routers,
    controls: Controls,
) -> None:
    controls.rollout(0.5)
    log = RequestLog(tmp_path / "log", "ranker", stratum=by_header("X-Tier"))
    router = routers(request_log=log)
    client = clients(router)
    client.post(PREDICT, json=ROWS, headers={"x-tier": "vip"})
    client.post(PREDICT, json=ROWS)
    router.close()
    strata = [
        each.log_metadata.request_criticality for each in read_log(tmp_path / "log")
    ]
    assert strata == ["vip", "ordinary"]


def test_a_defect_is_told_as_one(
    clients: Callable[..., Client],
    controls: Controls,
    routers: Routers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    controls.rollout(0.5)
    router = routers()

    def broken(*_: object, **__: object) -> None:
        raise KeyError("nothing")

    monkeypatch.setattr(router, "call", broken)
    said = clients(router).post(PREDICT, json=ROWS)
    assert said.status_code == 500
    assert error_of(said) == (
        "The router failed, which is a defect of penstock. Report it with the lines of "
        "its log."
    )
    assert "KeyError: 'nothing'" in caplog.text
