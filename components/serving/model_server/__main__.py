"""The model server as a command: python -m penstock.components.serving.model_server."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.components.serving.model_server.options import (
    Options,
    parse_flags,
    usage,
)
from penstock.components.serving.signals import stopped_by_signals
from penstock.schemas.errors import ServingError

if TYPE_CHECKING:
    from penstock.components.serving.model_server.server import ModelServer

_SIGNAL_SECONDS = 0.05

_SWITCH_SECONDS = 0.001
"""How long a thread that loads may keep the interpreter from one that answers."""


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way.

    Returns:
        0 if it was stopped, 1 if it cannot serve, 2 if a flag is wrong.
    """
    if {"--help", "-h"} & set(arguments):
        print(usage())
        return 0
    try:
        options, idle = parse_flags(arguments)
    except ServingError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s"
    )
    for name in idle:
        print(f"--{name} has no effect in the Python model server.", file=sys.stderr)
    # TensorFlow is imported here, after a wrong flag was told at once.
    from penstock.components.serving.model_server.server import ModelServer

    sys.setswitchinterval(_SWITCH_SECONDS)
    with stopped_by_signals() as stop:
        try:
            server = ModelServer(options, own_process=True)
        except ServingError as error:
            print(f"Failed to start server. {error}", file=sys.stderr)
            return 1
        return _serve(server, options, stop)


def _serve(server: ModelServer, options: Options, stop: threading.Event) -> int:
    """Load and answer until it is stopped; return the exit code."""
    if options.exit_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    failed: list[ServingError] = []

    def start() -> None:
        try:
            server.start()
        except ServingError as error:
            failed.append(error)

    # In a thread, since a signal has to be answered while models are still awaited.
    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    while starting.is_alive() and not stop.wait(_SIGNAL_SECONDS):
        pass
    if not stop.is_set() and failed:
        print(f"Failed to start server. Error: {failed[0]}", file=sys.stderr)
        return 1
    if not stop.is_set():
        ports = server.ports
        print(f"Running gRPC ModelServer at {ports.address} ...", flush=True)
        if ports.control_address != ports.address:
            print(f"Running control at {ports.control_address} ...", flush=True)
        if ports.rest_url is not None:
            print(f"Exporting HTTP/REST API at:{ports.rest_url} ...", flush=True)
        stop.wait()
    server.core.give_up()
    starting.join()
    server.stop()
    return 0


def _end_with_stdin() -> None:
    # Not sys.stdin, whose lock would be held when the interpreter ends.
    while os.read(0, 1 << 16):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
