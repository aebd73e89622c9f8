"""The router as a service: one socket, and processes that answer on it."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import Self

from penstock.components.serving.router.app import THREADS, UNIT_HEADER, App
from penstock.components.serving.router.metrics import Shelf
from penstock.components.serving.router.request_log import (
    RequestLog,
    by_header,
    by_input,
)
from penstock.components.serving.router.router import Router
from penstock.components.serving.router.sampling import AT_LEAST
from penstock.components.serving.security import MAX_REQUEST_BYTES, Tls
from penstock.components.serving.server_config import Layout
from penstock.schemas.errors import PenstockError, ServingError

DRAIN_SECONDS = 30.0
"""How long requests that are under way may take when a service ends."""

_RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


@dataclass(frozen=True)
class Service:
    """What a router service is made of; see `Router`, `RequestLog` and `App`.

    Attributes:
        serving_dir: The serving directory.
        model: Name of the model.
        address: The model server's gRPC side.
        layout: What tells versions apart there.
        authority: Certificates of the authorities that sign the server's.
        certificate: Our certificate.
        key: Its private key.
        server_name: The name expected in the server's certificate.
        tls: Whether the connection to the server is secured.
        deadline_seconds: How long a request may take.
        fallback: Whether stable is asked what the candidate failed.
        unit_header: The header that holds the id of the unit.
        max_bytes: The largest request.
        threads: Requests under way at once, in each process.
        log_dir: Where requests are logged; None for nowhere.
        log_rates: Share of each stratum that is kept.
        log_at_least: So many of a stratum are kept of a minute in any case.
        log_header: The header that names the stratum.
        log_input: The input that names the stratum.
        private: What is never logged.
        shelf: Where processes share what they count; None for one process.
    """

    serving_dir: str
    model: str
    address: str
    layout: Layout = "names"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None
    tls: bool = False
    deadline_seconds: float = 1.0
    fallback: bool = True
    unit_header: str = UNIT_HEADER
    max_bytes: int = MAX_REQUEST_BYTES
    threads: int = THREADS
    log_dir: str | None = None
    log_rates: Mapping[str, float] = field(default_factory=dict)
    log_at_least: int = AT_LEAST
    log_header: str | None = None
    log_input: str | None = None
    private: tuple[str, ...] = ()
    shelf: str | None = None

    def router(self) -> Router:
        """Return a router as described.

        Raises:
            ServingError: If something of it cannot be.
        """
        tls = None
        files = (self.authority, self.certificate, self.key)
        if self.tls or self.server_name or any(files):
            authority, certificate, key = (
                None if each is None else Path(each) for each in files
            )
            tls = Tls(certificate, key, authority, self.server_name)
        shelf = None
        if self.shelf is not None:
            shelf = Shelf(Path(self.shelf), str(os.getpid()))
        log = None
        if self.log_dir is not None:
            stratum = None
            if self.log_header is not None:
                stratum = by_header(self.log_header)
            elif self.log_input is not None:
                stratum = by_input(self.log_input)
            log = RequestLog(
                self.log_dir,
                self.model,
                rates=self.log_rates,
                stratum=stratum,
                at_least=self.log_at_least,
                private=self.private,
            )
        try:
            return Router(
                self.serving_dir,
                self.model,
                address=self.address,
                layout=self.layout,
                tls=tls,
                deadline_seconds=self.deadline_seconds,
                fallback=self.fallback,
                max_bytes=self.max_bytes,
                request_log=log,
                shelf=shelf,
            )
        except BaseException:
            if log is not None:
                log.close()
            raise

    def app(self) -> App:
        """Return a router as an ASGI application.

        Raises:
            ServingError: If something of it cannot be.
        """
        return App(
            self.router(),
            unit_header=self.unit_header,
            max_bytes=self.max_bytes,
            threads=self.threads,
        )


def serve(
    service: Service,
    host: str,
    port: int,
    *,
    workers: int = 1,
    ready: Callable[[str, int], object] = lambda host, port: None,
) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what is under way.

    Args:
        service: What to serve.
        host: The address to listen on.
        port: The port; 0 lets the system choose one.
        workers: Processes that answer.
        ready: Called with the address and the port once they take requests.

    Raises:
        ServingError: If it cannot begin.
    """
    with _Ending() as ending, _listening(host, port) as listening:
        name = listening.getsockname()[:2]
        if workers == 1:
            app = service.app()
            ready(*name)
            _answer(app, listening, ending)
            return
        # What cannot be is told here, once, and not by every process.
        service.router().close()
        with tempfile.TemporaryDirectory(prefix="penstock-serve-") as shelf:
            shared = dataclasses.replace(service, shelf=shelf)
            _supervise(shared, listening, workers, lambda: ready(*name), ending)


class _Ending:
    """Takes SIGTERM for a wish to end, from before there is anything that could."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.server: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _end(self, *_: object) -> None:
        # uvicorn has a handler of its own while it answers; it then raises the signal
        # anew, which comes here, so that what the caller has to end is ended.
        self.event.set()
        if self.server is not None:
            self.server.should_exit = True


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Where the protocol is not named, asyncio leaves Nagle's algorithm on, and answers
    # wait 40 ms for the client's acknowledgment of their headers.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ServingError(
            f"The router cannot listen on '{host}:{port}': {error.strerror}. Choose "
            "another port or address."
        ) from error
    made.listen(2048)  # from here on a client is kept waiting, not refused
    return made


def _answer(app: App, listening: socket.socket, ending: _Ending) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
    )
    server = ending.server = uvicorn.Server(config)
    try:
        if not ending.event.is_set():
            server.run(sockets=[listening])
    finally:
        app.close()


def _supervise(
    service: Service,
    listening: socket.socket,
    workers: int,
    ready: Callable[[], object],
    ending: _Ending,
) -> None:
    """Keep processes running that answer on one socket."""
    stop = ending.event
    running: list[subprocess.Popen[bytes]] = []
    try:
        running = [_started(service, listening) for _ in range(workers)]
        ready()
        while not stop.wait(_POLL_SECONDS):
            for i, process in enumerate(running):
                if process.poll() is not None:
                    logging.getLogger(__name__).warning(
                        "A process of the router ended with code %d; another begins.",
                        process.returncode,
                    )
                    stop.wait(_RESTART_SECONDS)
                    running[i] = _started(service, listening)
    finally:
        for process in running:
            process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS + 5
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(service: Service, listening: socket.socket) -> subprocess.Popen[bytes]:
    number = listening.fileno()
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from {__name__} import worker; worker()",
            json.dumps(dataclasses.asdict(service)),
            str(number),
            str(os.getpid()),
        ],
        stdin=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        },
        pass_fds=[number],
        start_new_session=True,  # so that Ctrl-C reaches it only through us
    )


def worker() -> None:
    """Answer on the socket of the parent, as a process of a service."""
    described, number, parent = sys.argv[1:]
    # If the parent is killed, so is this process: nobody else would end it.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        return
    fields: dict[str, Any] = json.loads(described)
    service = Service(**{**fields, "private": tuple(fields["private"])})
    with _Ending() as ending, socket.socket(fileno=int(number)) as listening:
        try:
            app = service.app()
        except PenstockError as error:
            sys.exit(str(error))
        with contextlib.suppress(KeyboardInterrupt):
            _answer(app, listening, ending)
