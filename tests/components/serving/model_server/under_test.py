"""The servers that the conformance suite is held against: ours, and the real one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf import text_format

from penstock.components.serving.model_server.options import Options, flags
from penstock.components.serving.model_server.server import ModelServer
from tests.components.serving.model_server.client import Client

REAL = shutil.which("tensorflow_model_server")
"""The real server, if it is on PATH."""

SERVERS = ["ours"] + (["tensorflow_model_server"] if REAL else [])

MONITORING = """
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        kind: 'ours' or 'tensorflow_model_server'.
        client: Calls it over gRPC.
        rest: Calls it over REST.
    """

    kind: str
    client: Client
    rest: httpx.Client

    def metrics(self) -> str:
        """Return the page for Prometheus."""
        return self.rest.get("/monitoring/prometheus/metrics").text


def until(holds: Callable[[], bool]) -> None:
    """Wait for what has to come; the test's own timeout ends what never does."""
    while not holds():
        time.sleep(0.01)


class Starter:
    """Starts servers for one test, of one kind, and stops them after it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, config: Any = None, **settings: Any) -> Running:
        """Start a server.

        Args:
            config: A ModelServerConfig, to be written as the config file.
            **settings: Flags over those that make tests fast.
        """
        monitoring = self._folder / "monitoring.config"
        monitoring.write_text(MONITORING)
        if config is not None:
            path = self._folder / "models.config"
            path.write_text(text_format.MessageToString(config))
            settings["model_config_file"] = str(path)
        settings = {
            "max_num_load_retries": 0,
            "monitoring_config_file": str(monitoring),
            **settings,
        }
        address, url = getattr(self, f"_{self.kind}")(settings)
        client = self._stack.enter_context(Client(address))
        rest = self._stack.enter_context(httpx.Client(base_url=url, timeout=60))
        return Running(self.kind, client, rest)

    def _ours(self, settings: dict[str, Any]) -> tuple[str, str]:
        settings = {"file_system_poll_wait_seconds": 0.03, **settings}
        server = ModelServer(rest_api_port="auto", **settings)
        server.core._manager._interval = 0.01  # nobody can set it from outside
        self._stack.enter_context(server)
        assert server.ports.rest_url is not None
        return server.ports.address, server.ports.rest_url

    def _tensorflow_model_server(self, settings: dict[str, Any]) -> tuple[str, str]:
        assert REAL is not None
        settings = {"file_system_poll_wait_seconds": 1, **settings}
        port, rest_port = _free_port(), _free_port()
        options = Options(rest_api_port=rest_port, **settings)
        words = [REAL, f"--port={port}", *flags(options)]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        with Client(f"127.0.0.1:{port}") as client:
            until(lambda: process.poll() is not None or _answers(client))
        return f"127.0.0.1:{port}", f"http://127.0.0.1:{rest_port}"


def _answers(client: Client) -> bool:
    try:
        client.status("no-such-model")
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.NOT_FOUND)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """Return the name of the code and the text with which a call is refused."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("The call was not refused.")
