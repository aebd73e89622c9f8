"""Servers in processes of their own: the command, its signals, whom it outlives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from penstock.components.serving.model_server.__main__ import main
from penstock.components.serving.model_server.spawn import spawned
from penstock.schemas.errors import ServingError
from tests.components.serving.model_server.client import Client
from tests.components.serving.model_server.models import answer, predict_request
from tests.components.serving.model_server.under_test import until

Save = Callable[[int], Path]


def test_sigterm_drains_and_exits_0(base: Path, save: Save, faults: Path) -> None:
    save(1)
    faults.write_text(json.dumps({"m": {"1": {"latency_seconds": 1.0}}}))
    with (
        spawned(
            model_name="m", model_base_path=str(base), fault_file=str(faults)
        ) as run,
        Client(run.ports.address) as client,
    ):
        futures = [
            client.predict_future(predict_request([1.0], model="m")) for _ in range(4)
        ]
        time.sleep(0.5)  # so that they have arrived; they take a second
        run.process.send_signal(signal.SIGTERM)
        assert [answer(future.result()) for future in futures] == [[3.0]] * 4
        assert run.process.wait() == 0


def test_a_signal_ends_a_server_that_waits_for_its_models(base: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "penstock.components.serving.model_server",
            "--port=0",
            f"--model_base_path={base}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Could not find base path" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.communicate()


def test_a_server_ends_with_who_started_it(base: Path, save: Save) -> None:
    save(1)
    code = (
        "import sys, time\n"
        "from penstock.components.serving.model_server.spawn import spawned\n"
        f"with spawned(model_base_path={str(base)!r}) as run:\n"
        "    print(run.process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: _ended(child))


def _ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_command_that_cannot_serve_exits_1(base: Path) -> None:
    (base / "1").mkdir(parents=True)
    with (
        pytest.raises(ServingError) as error,
        spawned(model_base_path=str(base), max_num_load_retries=0),
    ):
        pass
    assert str(error.value).startswith(
        "The model server ended with code 1. The last it said: 'Failed to start "
        "server. Error: 1 servable(s) did not become available: "
    )


def test_a_process_of_its_own_can_crash(base: Path, save: Save, faults: Path) -> None:
    save(1)
    faults.write_text('{"m": {"1": {"crash_after": 3}}}')
    with (
        spawned(
            model_name="m", model_base_path=str(base), fault_file=str(faults)
        ) as run,
        Client(run.ports.address) as client,
    ):
        for _ in range(2):
            client.predict(predict_request(model="m"))
        with pytest.raises(grpc.RpcError) as error:
            client.predict(predict_request(model="m"))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert run.process.wait() == -signal.SIGKILL


def test_a_wrong_flag_exits_2_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model_nam=m"]) == 2
    assert capsys.readouterr().err == (
        "The model server has no flag '--model_nam'. Did you mean 'model_name'? "
        "'--help' lists them.\n"
    )


def test_help_lists_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "--max_num_load_retries=5\n      How often a failed load is" in said
    assert "--enable_batching" in said


def test_a_server_without_models_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port=0"]) == 1
    assert capsys.readouterr().err.endswith(
        "Failed to start server. The model server has no model. Name one with "
        "--model_base_path, or several with --model_config_file.\n"
    )
