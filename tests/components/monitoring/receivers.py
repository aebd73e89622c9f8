"""Receivers on loopback for tests of what is sent: HTTP and SMTP servers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass(frozen=True)
class Got:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class HttpReceiver:
    """Keeps what it is sent, and answers as it is told.

    Attributes:
        url: Where it is.
        got: Requests, in the order they came.
        answer: Makes the answer to a request.
    """

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answer: Callable[[Got], Answer] = lambda got: (200, {}, b"ok")


@contextlib.contextmanager
def http_receiver(port: int = 0) -> Iterator[HttpReceiver]:
    """Run a receiver of HTTP while the context lasts."""
    receiver = HttpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            got = Got(self.command, self.path, dict(self.headers.items()), body)
            receiver.got.append(got)
            code, headers, text = receiver.answer(got)
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    """Return a port of this machine at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert isinstance(port, int)
    return port


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_796_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class Mail:
    """A mail that was taken."""

    sender: str
    recipients: list[str]
    data: bytes


@dataclass
class SmtpReceiver:
    """Keeps the mails that it is sent.

    Attributes:
        port: Where it is.
        mails: What was taken.
        said: Every line of the clients.
        refuse: Returns the answer to a line, or None for the usual one.
        login: Whether it offers to log in.
        tls: How to encrypt; it then offers STARTTLS.
        tls_first: Whether everything is encrypted from the first byte.
    """

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    refuse: Callable[[str], str | None] = lambda line: None
    login: bool = False
    tls: ssl.SSLContext | None = None
    tls_first: bool = False
    usual: ClassVar[dict[str, str]] = {
        "HELO": "250 hello",
        "MAIL": "250 ok",
        "RCPT": "250 ok",
        "RSET": "250 ok",
        "NOOP": "250 ok",
        "DATA": "354 go on",
        "QUIT": "221 bye",
        "AUTH": "235 welcome",
    }

    def serve(self, connection: socket.socket) -> None:
        """Talk to one client."""
        if self.tls and self.tls_first:
            connection = self.tls.wrap_socket(connection, server_side=True)
        with connection:
            upgraded = self._talk(connection, "220 receiver")
        if upgraded is not None:
            with upgraded:
                self._talk(upgraded, "")

    def _talk(self, connection: socket.socket, hello: str) -> socket.socket | None:
        """Talk until the end, or until STARTTLS; return the encrypted connection."""
        with connection.makefile("rwb") as file:

            def say(text: str) -> None:
                file.write(text.encode() + b"\r\n")
                file.flush()

            if hello:
                say(hello)
            mail = Mail("", [], b"")
            while raw := file.readline():
                line = raw.decode().strip()
                self.said.append(line)
                word = line[:4].upper()
                answer = self.refuse(line)
                if answer is None and word == "EHLO":
                    say("250-receiver")
                    if self.login:
                        say("250-AUTH PLAIN")
                    if self.tls and hello and not self.tls_first:
                        say("250-STARTTLS")
                    answer = "250 8BITMIME"
                if answer is None and word == "STAR" and self.tls:
                    say("220 go on")
                    return self.tls.wrap_socket(connection, server_side=True)
                answer = answer or self.usual.get(word, "500 what?")
                if word == "MAIL":
                    mail = Mail(line.partition("<")[2].partition(">")[0], [], b"")
                if word == "RCPT" and answer.startswith("2"):
                    mail.recipients.append(line.partition("<")[2].partition(">")[0])
                say(answer)
                if answer.startswith("354"):
                    lines = []
                    while (each := file.readline()) not in (b".\r\n", b""):
                        lines.append(each)
                    mail.data = b"".join(lines)
                    answer = self.refuse("END OF DATA") or "250 taken"
                    if answer.startswith("2"):
                        self.mails.append(mail)
                    say(answer)
                if word == "QUIT" or answer.startswith("421"):
                    return None
        return None


@contextlib.contextmanager
def smtp_receiver(port: int = 0) -> Iterator[SmtpReceiver]:
    """Run a receiver of mail while the context lasts."""
    receiver = SmtpReceiver()
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(10)
                with contextlib.suppress(OSError):
                    receiver.serve(connection)

    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.02)
        receiver.port = listener.getsockname()[1]
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield receiver
        finally:
            ended.set()
            thread.join()
