"""The router as a service of one or several processes, from the command line."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from penstock.commands.serving import serve
from penstock.components.serving.router import service as module
from penstock.components.serving.router.request_log import read_log
from penstock.components.serving.router.service import Service, worker
from penstock.components.serving.traffic import Traffic
from penstock.schemas.errors import ServingError
from tests.components.serving.router.http_clients import Client
from tests.components.serving.router.servers import COMMAND, Controls, Server, until

ROWS = {"instances": [1.0]}
PREDICT = "/v1/models/ranker:predict"


@contextmanager
def served(
    folder: Path, server: Server, *options: str
) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """Run the verb; yield a client of it, and its process."""
    process = subprocess.Popen(
        [
            *COMMAND,
            str(folder),
            "--model=ranker",
            f"--server={server.address}",
            "--port=0",
            *options,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        match = re.search(r"http://(127\.0\.0\.1):(\d+)/", said)
        assert match is not None, said
        yield Client(match[1], int(match[2])), process
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_answers_until_sigterm_and_finishes_what_is_under_way(
    workers: int, tmp_path: Path, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    with served(tmp_path, server, f"--workers={workers}", "--deadline=20") as (
        client,
        process,
    ):
        said = client.post(PREDICT, json=ROWS, headers={"X-Unit-Id": "user"})
        assert said.json() == {"predictions": [4.0]}
        traffic = Traffic(tmp_path)
        until(lambda: len(traffic.routers()) == workers)
        go = server.stall(2)
        statuses: list[int] = []

        def ask() -> None:
            said = client.post(PREDICT, json=ROWS, headers={"X-Unit-Id": "user"})
            statuses.append(said.status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: len(server.asked) == 2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # it is on its way down
        assert process.poll() is None
        go.set()
        asking.join()
        assert statuses == [200]
        assert process.wait(30) == 0
        assert traffic.routers() == ()  # they said that they end


def test_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off only where it knows the protocol."""
    with module._listening("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
        with socket.socket(fileno=os.dup(listening.fileno())) as inherited:
            assert inherited.proto == socket.IPPROTO_TCP


def test_processes_count_together_and_one_that_is_killed_is_replaced(
    tmp_path: Path, controls: Controls, server: Server
) -> None:
    controls.set(stable=1)
    with served(tmp_path, server, "--workers=2") as (client, process):
        for _ in range(20):
            assert client.post(PREDICT, json=ROWS).status_code == 200

        def counted() -> float:
            text = client.get("/metrics").text
            return sum(
                float(line.rsplit(" ", 1)[1])
                for line in text.splitlines()
                if line.startswith("penstock_requests_total{")
            )

        until(lambda: counted() == 20)
        time.sleep(1.5)  # of what is killed, the last second is lost
        traffic = Traffic(tmp_path)
        until(lambda: len(traffic.routers()) == 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        before = children.read_text().split()
        assert len(before) == 2
        os.kill(int(before[0]), signal.SIGKILL)
        until(lambda: len(set(children.read_text().split()) - set(before)) == 1)
        until(lambda: counted() == 20)  # what the killed one counted is not lost
        # Its name is still told of, and falls silent.
        until(lambda: len(traffic.routers()) == 3)


def test_processes_end_with_the_one_that_started_them(
    tmp_path: Path, controls: Controls, server: Server
) -> None:
    controls.set(stable=1)
    with served(tmp_path, server, "--workers=2") as (client, process):
        assert client.post(PREDICT, json=ROWS).status_code == 200
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        process.kill()
        process.wait()
        until(lambda: not any(is_running(int(pid)) for pid in pids.split()))


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_requests_are_logged_as_the_options_say(
    tmp_path: Path, controls: Controls, server: Server
) -> None:
    controls.set(stable=1)
    log = tmp_path / "log"
    with served(
        tmp_path,
        server,
        f"--log-dir={log}",
        "--log-header=X-Tier",
        "--log-rate=vip=1",
        "--log-rate=ordinary=0",
        "--log-at-least=2",
        "--private=y",
    ) as (client, _):
        for i in range(10):
            client.post(PREDICT, json=ROWS, headers={"X-Tier": "vip" if i < 4 else ""})
    found = list(read_log(log))
    strata = sorted(each.log_metadata.request_criticality for each in found)
    assert strata == ["ordinary"] * 2 + ["vip"] * 4
    assert all(not each.predict_log.response.outputs for each in found)


def test_what_cannot_be_served_is_told_at_once(
    tmp_path: Path, controls: Controls, server: Server
) -> None:
    controls.set(stable=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServingError) as raised:
            serve(tmp_path, model="ranker", server=server.address, port=port)
    assert str(raised.value) == (
        f"The router cannot listen on '127.0.0.1:{port}': Address already in use. "
        "Choose another port or address."
    )
    for workers in (1, 2):
        with pytest.raises(ServingError, match="is no address of a gRPC server"):
            serve(tmp_path, model="ranker", server="nowhere", port=0, workers=workers)
    with pytest.raises(ServingError) as raised:
        serve(
            tmp_path,
            model="ranker",
            server="10.1.2.3:8500",
            port=0,
            with_model_server=True,
        )
    assert str(raised.value) == (
        "A model server cannot be started at '10.1.2.3:8500', only on this machine. "
        "Pass --server 127.0.0.1:PORT with --with-model-server."
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"layout": "nams"},
            "'nams' is no layout. Choose 'names' or 'labels'. Did you mean 'names'?",
        ),
        (
            {"log_header": "a", "log_input": "b"},
            "A stratum is named by a header or by an input, not by both. Pass one of "
            "--log-header and --log-input.",
        ),
        (
            {"log_rate": ["vip=1"]},
            "Nothing is logged without a folder for it. Pass --log-dir too.",
        ),
        (
            {"log_rate": ["vip"], "log_dir": Path("logs")},
            "'vip' names no stratum and share. Write STRATUM=SHARE, as in vip=1.",
        ),
    ],
)
def test_an_option_that_makes_no_sense_gets_a_sentence(
    options: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        serve(tmp_path, **options)  # type: ignore[arg-type]
    assert str(raised.value) == sentence


def test_a_description_survives_the_way_to_another_process(
    tmp_path: Path, controls: Controls, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[Service] = []

    def watched(self: Service) -> None:
        described.append(self)
        raise ServingError("That is enough.")

    monkeypatch.setattr(Service, "app", watched)
    # The test is not to die with who runs it.
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    service = Service(
        str(tmp_path),
        "ranker",
        server.address,
        private=("a", "b"),
        log_rates={"v": 1.0},
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "worker",
                json.dumps(dataclasses.asdict(service)),
                str(os.dup(listening.fileno())),
                str(os.getppid()),
            ],
        )
        with pytest.raises(SystemExit, match=r"^That is enough\.$"):
            worker()
    assert described == [service]
