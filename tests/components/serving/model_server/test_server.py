"""The server as a whole: starting, draining, ports, TLS, tokens, faults, limits."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from penstock.components.serving.model_server.server import ModelServer
from penstock.schemas.errors import ServingError
from tests.components.serving.model_server import models
from tests.components.serving.model_server.client import Client
from tests.components.serving.model_server.models import (
    answer,
    named_request,
    predict_request,
)
from tests.components.serving.model_server.under_test import until

Save = Callable[[int], Path]


def start(base: Path, **settings: Any) -> ModelServer:
    return ModelServer(
        **{
            "model_name": "m",
            "model_base_path": str(base),
            "file_system_poll_wait_seconds": 0.05,
            "max_num_load_retries": 0,
            **settings,
        }
    )


# --- starting and stopping


def test_a_server_answers_over_grpc_and_rest_and_stops(base: Path, save: Save) -> None:
    save(1)
    with start(base, rest_api_port="auto") as server:
        with Client(server.ports.address) as client:
            assert answer(client.predict(predict_request([1.0], model="m"))) == [3.0]
        found = httpx.post(
            f"{server.ports.rest_url}/v1/models/m:predict", json={"instances": [1.0]}
        )
        assert found.json() == {"predictions": [3.0]}
        rest_url = server.ports.rest_url
    with Client(server.ports.address) as client, pytest.raises(grpc.RpcError) as error:
        client.predict(predict_request(model="m"))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{rest_url}/v1/models/m")


def test_stopping_waits_for_what_is_under_way(
    base: Path, save: Save, faults: Path
) -> None:
    save(1)
    faults.write_text(json.dumps({"m": {"1": {"latency_seconds": 0.5}}}))
    with start(base, fault_file=str(faults)) as server:
        client = Client(server.ports.address)
        under_way = client.predict_future(predict_request([1.0], model="m"))
        until(lambda: bool(server.core._manager._map.users))
    assert answer(under_way.result()) == [3.0]
    client.close()


def test_a_model_that_does_not_load_fails_the_start(base: Path) -> None:
    (base / "1").mkdir(parents=True)
    with pytest.raises(ServingError) as error, start(base):
        pass
    assert str(error.value) == (
        "1 servable(s) did not become available: {{{name: m version: 1} due to error: "
        "NOT_FOUND: Could not find SavedModel .pb or .pbtxt at supplied export "
        f"directory path: {base}/1. Check that the directory exists and that you have "
        "the right permissions for accessing it.}, }"
    )


def test_a_port_that_is_taken_is_told(base: Path, save: Save) -> None:
    save(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingError) as error, start(base, port=port):
            pass
        assert str(error.value) == (
            f"The model server cannot listen on '127.0.0.1:{port}': another process "
            "may hold it. Choose another port."
        )
        with pytest.raises(ServingError) as error, start(base, rest_api_port=port):
            pass
        assert str(error.value) == (
            f"The model server cannot listen on '127.0.0.1:{port}' for REST: Address "
            "already in use. Choose another port."
        )


def test_no_model_is_told() -> None:
    with pytest.raises(ServingError) as error:
        ModelServer()
    assert str(error.value) == (
        "The model server has no model. Name one with --model_base_path, or several "
        "with --model_config_file."
    )


def test_a_unix_socket_answers_too(base: Path, save: Save, tmp_path: Path) -> None:
    save(1)
    path = tmp_path / "s"
    with start(base, grpc_socket_path=str(path)), Client(f"unix:{path}") as client:
        assert answer(client.predict(predict_request([1.0], model="m"))) == [3.0]


def test_the_port_file_appears_whole(base: Path, save: Save, tmp_path: Path) -> None:
    save(1)
    path = tmp_path / "ports.json"
    with start(base, port_file=str(path), rest_api_port="auto") as server:
        found = json.loads(path.read_text())
        assert found == {
            "address": server.ports.address,
            "control_address": server.ports.address,
            "rest_url": server.ports.rest_url,
        }
    assert server.ports.address.startswith("127.0.0.1:")


def test_health_says_when_the_server_drains(base: Path, save: Save) -> None:
    save(1)
    with (
        start(base, enable_grpc_healthcheck_service=True) as server,
        grpc.insecure_channel(server.ports.address) as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01"
        server._health.drain()
        assert check(b"") == b"\x08\x02"
        with pytest.raises(grpc.RpcError) as error:
            check(b"\x0a\x01m")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


# --- who may ask, and how much at once


def test_a_request_that_is_too_large_is_refused(base: Path, save: Save) -> None:
    save(1)
    values = [1.0] * 10_000
    with (
        start(base, rest_api_port="auto", max_request_bytes=10_000) as server,
        Client(server.ports.address) as client,
    ):
        with pytest.raises(grpc.RpcError) as error:
            client.predict(predict_request(values, model="m"))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = httpx.post(
            f"{server.ports.rest_url}/v1/models/m:predict", json={"instances": values}
        )
        assert found.status_code == 429
        assert found.json() == {
            "error": "The request is larger than 10000 bytes. Send less at once, or "
            "raise the server's --max_request_bytes."
        }


def test_configs_are_changed_on_the_control_port_only(
    base: Path, save: Save, tmp_path: Path
) -> None:
    save(1)
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length")
    token.chmod(0o600)
    with start(base, control_port="auto", control_token_file=str(token)) as server:
        assert server.ports.control_address != server.ports.address
        with Client(server.ports.address) as client:
            assert client.states("m") == {1: "AVAILABLE"}
            with pytest.raises(grpc.RpcError) as error:
                client.reload(models.config(m=base))
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert error.value.details() == (
                "This port answers predictions and status only. Send "
                "HandleReloadConfigRequest to the server's control port."
            )
        with Client(server.ports.control_address) as client:
            for header in (None, "Bearer wrong-token-of-some", "Basic abc"):
                client.authorization = header
                with pytest.raises(grpc.RpcError) as error:
                    client.reload(models.config(m=base))
                assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
                assert error.value.details() == (
                    "The request carries no token or a wrong one. Send the metadata "
                    "'authorization: Bearer <token>' with the one of the server's "
                    "token file."
                )
            client.authorization = "Bearer a-token-of-some-length"
            client.reload(models.config(m=base))
            assert client.states("m") == {1: "AVAILABLE"}
            with pytest.raises(grpc.RpcError) as error:
                client.predict(predict_request(model="m"))
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_without_a_control_port_is_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError) as error:
        start(base, control_token_file=str(tmp_path / "token"))
    assert str(error.value) == (
        "The model server has a token file but no control port to ask for the token "
        "at. Set --control_port too."
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An authority, and a certificate of it for the server and one for a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *new, "-subj", "/CN=authority", "-days", "2",
        "-keyout", "ca.key", "-out", "ca.crt",
    )  # fmt: skip
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1")
        openssl(
            "req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext",
            "-out", f"{name}.crt",
        )  # fmt: skip
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ssl_config(path: Path, **fields: Any) -> Path:
    lines = [
        f"{name}: {json.dumps(v.decode() if isinstance(v, bytes) else v)}"
        for name, v in fields.items()
    ]
    path.write_text("\n".join(lines))
    return path


def test_tls_and_mutual_tls(
    base: Path, save: Save, tmp_path: Path, certificates: dict[str, bytes]
) -> None:
    save(1)
    ours = {
        "server_key": certificates["server.key"],
        "server_cert": certificates["server.crt"],
    }
    plain = ssl_config(tmp_path / "tls", **ours)
    mutual = ssl_config(
        tmp_path / "mtls",
        **ours,
        custom_ca=certificates["ca.crt"],
        client_verify=True,
    )
    anybody = grpc.ssl_channel_credentials(certificates["ca.crt"])
    known = grpc.ssl_channel_credentials(
        certificates["ca.crt"], certificates["client.key"], certificates["client.crt"]
    )
    request = predict_request([1.0], model="m")
    for config, credentials, allowed in [
        (plain, None, False),
        (plain, anybody, True),
        (mutual, anybody, False),
        (mutual, known, True),
    ]:
        with (
            start(base, ssl_config_file=str(config)) as server,
            Client(server.ports.address, credentials) as client,
        ):
            if allowed:
                assert answer(client.predict(request)) == [3.0]
            else:
                with pytest.raises(grpc.RpcError) as error:
                    client.predict(request)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE


# --- faults


@pytest.fixture
def server(base: Path, save: Save, faults: Path) -> Iterator[ModelServer]:
    save(1)
    with start(base, fault_file=str(faults)) as server:
        yield server


def test_faults_are_switched_while_the_server_runs(
    server: ModelServer, faults: Path
) -> None:
    request = predict_request([1.0], model="m")
    with Client(server.ports.address) as client:
        assert answer(client.predict(request)) == [3.0]
        faults.write_text(
            '{"m": {"1": {"error_share": 0.25, "error_code": "UNAVAILABLE"}}}'
        )
        codes = []
        for _ in range(40):
            try:
                client.predict(request)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
        assert codes.count("UNAVAILABLE") == 10
        faults.write_text('{"m": {"1": {"error_share": 0')  # torn: the last stays
        with pytest.raises(grpc.RpcError):
            for _ in range(4):
                client.predict(request)
        faults.unlink()
        assert answer(client.predict(request)) == [3.0]


def test_requests_of_one_feature_value_fail(server: ModelServer, faults: Path) -> None:
    faults.write_text('{"*": {"*": {"error_when": {"input": "x", "equals": 7}}}}')
    with Client(server.ports.address) as client:
        assert answer(client.predict(predict_request([1.0, 2.0], model="m")))
        with pytest.raises(grpc.RpcError) as error:
            client.predict(predict_request([1.0, 7.0], model="m"))
        assert error.value.code() is grpc.StatusCode.INTERNAL
        assert error.value.details() == "A fault on purpose."
        with pytest.raises(grpc.RpcError):
            client.regress("m", "regress", 7.0)
        assert client.regress("m", "regress", 6.0)
        faults.write_text('{"m": {"1": {"error_when": {"input": "s", "equals": "b"}}}}')
        for text, fails in [("a", False), ("b", True)]:
            request = named_request(
                {"a": [1.0], "b": np.array([1], np.int64), "s": [text]},
                model="m",
                signature="several",
            )
            try:
                client.predict(request)
                assert not fails
            except grpc.RpcError:
                assert fails


def test_a_load_can_fail_be_slow_and_be_partial(
    server: ModelServer, faults: Path, save: Save
) -> None:
    def state(version: int) -> str:
        return client.states("m").get(version, "")

    with Client(server.ports.address) as client:
        faults.write_text(
            '{"m": {"2": {"load_error": "No luck."}, "3": {"partial": true}}}'
        )
        save(2)
        until(lambda: state(2) == "END")
        assert client.error("m", 2) == (13, "No luck.")
        assert state(1) == "AVAILABLE"
        save(3)
        until(lambda: state(3) == "AVAILABLE")
        with pytest.raises(grpc.RpcError) as error:
            client.predict(predict_request(model="m"))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        faults.write_text('{"m": {"4": {"load_seconds": 0.5}}}')
        save(4)
        until(lambda: state(4) == "LOADING")
        until(lambda: state(4) == "AVAILABLE")


# --- many at once


def test_no_request_fails_while_versions_come_and_go(base: Path, save: Save) -> None:
    save(1)
    wrong: list[Any] = []
    stop = threading.Event()

    def ask(address: str) -> None:
        with Client(address) as client:
            while not stop.is_set():
                response = client.predict(predict_request([1.0], model="m"))
                version = response.model_spec.version.value
                if answer(response) != [2.0 + version]:
                    wrong.append(response)

    with start(base) as server:
        threads = [
            threading.Thread(target=ask, args=(server.ports.address,)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        try:
            for version in range(2, 8):
                save(version)
                loaded = [("m", version)]
                while server.core.available() != loaded:
                    time.sleep(0.01)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not wrong
    assert server.metrics.request_count.value("m", "OK") > 100
    assert [entry for entry in server.metrics.request_count._cells] == [("m", "OK")]


def test_what_nobody_waits_for_is_not_run(base: Path, save: Save, faults: Path) -> None:
    save(1)
    faults.write_text('{"m": {"1": {"latency_seconds": 0.6}}}')
    with (
        start(base, fault_file=str(faults), grpc_max_threads=1) as server,
        Client(server.ports.address) as client,
    ):
        request = predict_request([1.0], model="m")
        first = client.predict_future(request)
        until(lambda: bool(server.core._manager._map.users))
        with pytest.raises(grpc.RpcError) as error:
            client.call("PredictionService/Predict", request, seconds=0.2)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert answer(first.result()) == [3.0]
        assert answer(client.predict(request)) == [3.0]
        counted = server.metrics.request_count._cells
        assert counted == {("m", "OK"): 2}


def test_a_defect_is_an_internal_error_in_both_protocols(
    base: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1)
    with (
        start(base, rest_api_port="auto") as server,
        Client(server.ports.address) as client,
    ):
        monkeypatch.setattr(server._requests, "run", lambda *_, **__: 1 / 0)
        with pytest.raises(grpc.RpcError) as error:
            client.predict(predict_request(model="m"))
        assert error.value.code() is grpc.StatusCode.INTERNAL
        assert error.value.details() == "ZeroDivisionError: division by zero"
        found = httpx.post(
            f"{server.ports.rest_url}/v1/models/m:predict", json={"instances": [1.0]}
        )
        assert found.status_code == 500
        assert found.json() == {"error": "ZeroDivisionError: division by zero"}
