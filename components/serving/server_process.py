"""A model server as a child process: the real one where it is installed, or ours."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.components.serving.control import ServerControl
from penstock.components.serving.security import Tls
from penstock.components.serving.server_config import (
    Served,
    read_config,
    server_config,
    without_labels,
    write_config,
    write_text,
)
from penstock.components.serving.server_metrics import METRICS_PATH
from penstock.schemas.errors import ServingError

REAL_SERVER = "tensorflow_model_server"
PYTHON_SERVER = "penstock.components.serving.model_server"

FLAGS = (
    # Loads run beside the loop that manages versions, and one that fails is not tried
    # again: a retry would keep that loop for five minutes.
    "--num_load_threads=1",
    "--num_unload_threads=1",
    "--max_num_load_retries=0",
    "--file_system_poll_wait_seconds=1",
    "--enable_model_warmup=true",
    # Else a server whose configuration has labels does not start again.
    "--allow_version_labels_for_unavailable_models=true",
)
"""What penstock recommends to run a server with."""

_POLL_SECONDS = 0.05

# The child asks the kernel to end it when its parent dies, then becomes the server.
_DIES_WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "prctl = getattr(ctypes.CDLL(None), 'prctl', None)\n"
    "prctl and prctl(1, signal.SIGTERM)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        address: 'host:port' of its gRPC side.
        rest_address: 'host:port' of its REST side.
        pid: Its process.
        log: What it prints.
        boot_config: The configuration it was started with.
    """

    address: str
    rest_address: str
    pid: int
    log: Path
    boot_config: Path


def find_server() -> tuple[str, ...]:
    """Return the command of a model server: the real one on PATH, or ours in Python."""
    found = shutil.which(REAL_SERVER)
    if found is not None:
        return (found,)
    return (sys.executable, "-m", PYTHON_SERVER)


@contextlib.contextmanager
def started_server(
    served: Iterable[Served],
    folder: Path,
    *,
    user_config: Path | None = None,
    command: tuple[str, ...] | None = None,
    flags: tuple[str, ...] = (),
    tls: Tls | None = None,
    client_tls: Tls | None = None,
    port: int | None = None,
    rest_port: int | None = None,
    startup_seconds: float = 120.0,
    grace_seconds: float = 10.0,
) -> Iterator[RunningServer]:
    """Run a model server for as long as the block.

    It is ended when the block ends, and when the thread that entered the block dies.
    The real server listens on every interface of the machine, which it has no flag
    against; ours listens on loopback.

    Args:
        served: The models it starts with.
        folder: Where its boot configuration and its log are written.
        user_config: The user's own configuration, if there is one.
        command: The server to run; the one that `find_server` finds if None.
        flags: More flags, after the recommended ones.
        tls: The server's own certificate and key, and the authority of its clients if
            they need certificates too; None for plain text. REST has no TLS.
        client_tls: How to connect to it then, to see whether it answers.
        port: Port of its gRPC side; a free one if None.
        rest_port: Port of its REST side; a free one if None.
        startup_seconds: How long it may take until it answers.
        grace_seconds: How long it may take to end.

    Yields:
        The server, once it answers.

    Raises:
        ServingError: It ended, or did not answer in time.
    """
    served = tuple(served)
    folder.mkdir(parents=True, exist_ok=True)
    boot_config = folder / "boot.config"
    monitoring = folder / "monitoring.config"
    log = folder / "server.log"
    config = without_labels(server_config(read_config(user_config), served))
    write_config(boot_config, config)
    write_text(
        monitoring, f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'
    )
    if tls is not None:
        ssl_config = folder / "ssl.config"
        write_text(ssl_config, ssl_config_text(tls), mode=0o600)
        flags = (f"--ssl_config_file={ssl_config}", *flags)
    port, rest_port = _free_ports(port, rest_port)
    arguments = [
        *(find_server() if command is None else command),
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={boot_config}",
        f"--monitoring_config_file={monitoring}",
        *FLAGS,
        *flags,
    ]
    with open(log, "wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", _DIES_WITH_PARENT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
            },
            start_new_session=True,  # so that Ctrl-C reaches it only through us
        )
    server = RunningServer(
        f"127.0.0.1:{port}", f"127.0.0.1:{rest_port}", process.pid, log, boot_config
    )
    names = [model.name for model in config.model_config_list.config]
    try:
        name = names[0] if names else "none"
        _wait(process, server, name, startup_seconds, client_tls)
        yield server
    finally:
        _stop(process, grace_seconds)


def ssl_config_text(tls: Tls) -> str:
    """Return what --ssl_config_file takes, for the server's side of TLS.

    The text holds the key: write it where nobody else can read it.

    Raises:
        ServingError: There is no certificate, or a file is not right.
    """
    authority, key, certificate = tls.read()
    if key is None or certificate is None:
        raise ServingError(
            "A TLS server has no certificate. Pass both a certificate and its key."
        )
    fields = {"server_key": key, "server_cert": certificate}
    if authority is not None:
        fields["custom_ca"] = authority
    lines = [
        f"{name}: {json.dumps(content.decode('ascii'))}"  # the same escapes as in JSON
        for name, content in fields.items()
    ]
    return "\n".join([*lines, f"client_verify: {str(authority is not None).lower()}\n"])


def _wait(
    process: subprocess.Popen[bytes],
    server: RunningServer,
    name: str,
    seconds: float,
    tls: Tls | None,
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        code = process.poll()
        if code is not None:
            raise ServingError(
                f"The model server {_death(code)} before it answered. "
                f"{_last_words(server.log)}All that it said is in '{server.log}'."
            )
        left = deadline - time.monotonic()
        try:
            wait_seconds = max(0.1, min(left, 1.0))
            with ServerControl(
                server.address, tls=tls, deadline_seconds=wait_seconds
            ) as control:
                control.statuses([name])
            return
        except ServingError as error:
            if left <= 0:
                raise ServingError(
                    f"The model server did not answer in {seconds:g} seconds. "
                    f"{_last_words(server.log)}See '{server.log}', or allow more time."
                ) from error
        time.sleep(_POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    process.terminate()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _death(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"exited with code {code}"


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"It said: '{lines[-1].strip()[:300]}'. " if lines else ""


def _free_ports(*wanted: int | None) -> tuple[int, ...]:
    """Return ports, those that are None chosen by the kernel, all of them different."""
    with contextlib.ExitStack() as stack:
        ports = []
        for port in wanted:
            if port is None:
                taken = stack.enter_context(socket.socket())
                taken.bind(("127.0.0.1", 0))
                port = taken.getsockname()[1]
            ports.append(port)
        return tuple(ports)
