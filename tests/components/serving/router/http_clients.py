"""An ASGI application behind a real HTTP server, and a client for it."""

from __future__ import annotations

import http.client
import json as json_module
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn


@dataclass(frozen=True)
class Said:
    """An answer; names of headers are in lower case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json_module.loads(self.content)


class Client:
    """Sends each request over a connection of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    def request(
        self,
        method: str,
        path: str,
        *,
        content: Any = None,
        json: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Said:
        if json is not None:
            content = json_module.dumps(json).encode()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.request(
                method,
                path,
                content,
                dict(headers or {}),
                encode_chunked=content is not None and not isinstance(content, bytes),
            )
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Said(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Said:
        return self.request("GET", path)

    def head(self, path: str) -> Said:
        return self.request("HEAD", path)

    def post(self, path: str, **options: Any) -> Said:
        return self.request("POST", path, **options)


@contextmanager
def over_http(app: Any) -> Iterator[Client]:
    """Serve an application while the block lasts; its end is awaited."""
    kind = socket.SOCK_STREAM, socket.IPPROTO_TCP  # without which asyncio is slow
    with socket.socket(socket.AF_INET, *kind) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(*listening.getsockname())
        finally:
            server.should_exit = True
            thread.join()
