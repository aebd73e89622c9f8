"""The receiver as a service: one socket, one process."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

from penstock.components.monitoring.retraining.app import App
from penstock.components.serving.security import is_local
from penstock.schemas.errors import ServingError

_DRAIN_SECONDS = 10


def serve(
    app: App, host: str, port: int, *, ready: Callable[[str, int], object]
) -> None:
    """Answer until SIGTERM or Ctrl-C; training runs that were started go on.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 lets the system choose one.
        ready: Called with the address and the port once they take requests.

    Raises:
        ServingError: If it cannot begin, or others could start trainings.
    """
    import uvicorn

    if app.token is None and not is_local(f"{host}:{port}"):
        raise ServingError(
            f"On '{host}' anybody who reaches this machine could start trainings. Pass "
            "--token-file, or listen on 127.0.0.1."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Where the protocol is not named, asyncio leaves Nagle's algorithm on.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ServingError(
                f"The receiver cannot listen on '{host}:{port}': {error.strerror}. "
                "Choose another port or address."
            ) from error
        listening.listen(128)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )

        def end(*_: object) -> None:
            server.should_exit = True

        # uvicorn raises anew, when it is done, the signal that ended it.
        before = signal.signal(signal.SIGTERM, end)
        try:
            ready(*listening.getsockname()[:2])
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
