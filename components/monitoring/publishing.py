"""Three ways for metrics to reach Prometheus: a text file, a push gateway, HTTP.

A job that runs once a day leaves a text file for the node exporter. Where there is
none, it pushes to a gateway; what the gateway could not take waits in an outbox, and
newer metrics take the place of older ones there. Where nothing else runs, a small
server answers with the newest documents of a folder.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from penstock.components.monitoring.document import Document
from penstock.components.monitoring.exporter import (
    CONTENT_TYPE,
    Limits,
    age_of,
    exposition,
    monitor_of,
    newest,
)
from penstock.components.monitoring.outbox import Delivery, Letter, Outbox
from penstock.components.monitoring.web import check_url, request
from penstock.schemas.errors import DataError, PenstockError, ServingError

DEFAULT_ADDRESS = "127.0.0.1:9464"


# --- text file


def write_textfile(path: Path, text: bytes) -> None:
    """Leave metrics for the node exporter's textfile collector, whole or not at all.

    Args:
        path: The file; its name ends with `.prom`, as the collector reads no other.
        text: What `exposition` returned.

    Raises:
        DataError: If the name has another end, or the folder cannot be written.
    """
    if path.suffix != ".prom":
        raise DataError(
            f"Text file '{path}' does not end with '.prom', and the node exporter "
            f"reads no other. Name it '{path.with_suffix('.prom').name}'."
        )
    try:
        descriptor, draft = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".partial"
        )
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            # The node exporter runs as another user.
            os.fchmod(file.fileno(), 0o644)
        os.replace(draft, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(
        f"Text file '{path}' cannot be written: {error.strerror}. Name one in a folder "
        "that this user may write."
    )


# --- push gateway


def push(
    url: str,
    documents: Iterable[Document],
    outbox: Outbox,
    *,
    whole: bool = False,
    token: str | None = None,
    limits: Limits | None = None,
    retrains: Mapping[tuple[str, str], int] | None = None,
) -> Delivery:
    """Push the newest documents, and what could not be pushed before.

    Each model and monitor is a group of its own in the gateway, which a push replaces.
    A document that is older than what was pushed of its group is left out.

    Args:
        url: Of the gateway, such as `http://gateway:9091`.
        documents: What to push.
        outbox: Where it waits; it also knows what was pushed.
        whole: Whether `documents` are all there are, so that the groups that were
            pushed of other models are stale and are deleted from the gateway.
        token: Bearer token for the gateway, if it asks for one.
        limits: As for `exposition`.
        retrains: As for `exposition`.

    Returns:
        What was taken. What was not is kept in the outbox for the next call.

    Raises:
        DataError: If the URL is none, or holds a password.
    """
    url = check_url(url, "The URL of the push gateway")
    channel = f"push:{url}"
    with outbox.changes():
        pushed = outbox.recalled(channel)
        known: set[str] = set()
        counted: set[str] = set()
        for document in newest(documents):
            model, monitor = document["model"], monitor_of(document)
            group = f"job/penstock_{monitor}/{_segment('model_name', model)}"
            known.add(group)
            age = "{:017.3f} {:017.3f}".format(*age_of(document))
            if age < pushed.get(group, ""):
                continue
            # A counter of the model is in one of its groups, or it would count twice.
            of_model = {
                key: number
                for key, number in (retrains or {}).items()
                if key[0] == model and model not in counted
            }
            counted.add(model)
            body = exposition([document], limits=limits, retrains=of_model)
            outbox.put(Letter(group, channel, body), replace=True)
            outbox.remember(channel, group, age)
        if whole:
            for group in pushed.keys() - known:
                outbox.put(Letter(group, channel, b""), replace=True)
                outbox.remember(channel, group, None)
    headers = {"Content-Type": CONTENT_TYPE}
    if token:
        headers["Authorization"] = f"Bearer {token}"

    def send(letter: Letter) -> None:
        method = "PUT" if letter.body else "DELETE"
        where = f"{url}/metrics/{letter.key}"
        subject = f"Push gateway '{url}'"
        secrets = (token,) if token else ()
        request(subject, method, where, letter.body, headers, secrets=secrets)

    return outbox.deliver(send, channels=lambda each: each == channel)


def _segment(label: str, value: str) -> str:
    """Return a grouping label of a push gateway as part of a path."""
    if value in ("", ".", "..") or "/" in value:
        # Neither a slash nor nothing can stand in a path.
        encoded = base64.urlsafe_b64encode(value.encode("utf-8", "replace")).decode()
        return f"{label}@base64/{encoded or '='}"
    return f"{label}/{urllib.parse.quote(value, safe='', errors='replace')}"


# --- HTTP


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    source: Callable[[], bytes]


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # seconds that a silent client may hold a thread
    protocol_version = "HTTP/1.1"
    server_version = "penstock"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the metrics."""
        if urllib.parse.urlsplit(self.path).path != "/metrics":
            self._answer(
                404, "text/plain; charset=utf-8", b"Metrics are at /metrics.\n"
            )
            return
        try:
            body = self.server.source()
        except PenstockError as error:
            self._answer(500, "text/plain; charset=utf-8", f"{error}\n".encode())
            return
        self._answer(200, CONTENT_TYPE, body)

    do_HEAD = do_GET

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape comes every few seconds."""


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of an address to listen at.

    Args:
        text: `PORT` or `:PORT`, which are of this machine alone, or `HOST:PORT`.

    Raises:
        ServingError: If it is none.
    """
    host, _, port = text.rpartition(":")
    if port.isascii() and port.isdecimal() and int(port) < 65536:
        inside = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
        if ":" not in inside or inside != host:
            return inside or "127.0.0.1", int(port)
    raise ServingError(
        f"'{text}' is no address to serve metrics at. Write it as 'PORT' for this "
        "machine alone, 'HOST:PORT' or '[::1]:PORT'."
    )


@contextlib.contextmanager
def served(source: Callable[[], bytes], address: str) -> Iterator[str]:
    """Answer to HTTP with metrics while the context lasts.

    Args:
        source: Returns what `exposition` returned, at every scrape.
        address: As for `split_address`; port 0 is any free one.

    Yields:
        The URL of the metrics.

    Raises:
        ServingError: If the address is none, or taken.
    """
    host, port = split_address(address)
    kind = _Server6 if ":" in host else _Server
    try:
        server = kind((host, port), _Handler)
    except OSError as error:
        raise ServingError(
            f"Metrics cannot be served at '{address}': {error.strerror or error}. Name "
            "an address of this machine with a free port, or port 0."
        ) from error
    server.source = source
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
