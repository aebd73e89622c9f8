"""The real Prometheus, Alertmanager and Pushgateway on loopback, and their tools.

Tests that use them carry the mark `prometheus`. The programs are those on PATH, or what
scripts/prometheus-tools unpacked. Every server takes a free port of the system's choice
and ends with its context.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_MAX_WAIT_SECONDS = 60.0
_LISTENS = re.compile(r'msg="Listening on".* address=(\S+)')
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@functools.cache
def program(name: str) -> str:
    """Return the path of a program: prometheus, promtool, prometheus-alertmanager, ...

    Raises:
        AssertionError: If there is none; a test that left itself out would hide that
            nothing was run.
    """
    if found := shutil.which(name):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    unpacked = cache / "penstock" / "prometheus-tools" / "usr" / "bin" / name
    if os.access(unpacked, os.X_OK):
        return str(unpacked)
    raise AssertionError(
        f"No {name} is on PATH, and none is in {unpacked.parent}. Run "
        "scripts/prometheus-tools, which gets it, or leave these tests out with "
        "-m 'not prometheus'."
    )


def tool(
    name: str, *arguments: str | Path, given: str | bytes = ""
) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool on what it is given as its input; return what it said."""
    text = given.decode() if isinstance(given, bytes) else given
    return subprocess.run(
        [program(name), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=_MAX_WAIT_SECONDS,
    )


def until(look: Callable[[], T], what: str, seconds: float = _MAX_WAIT_SECONDS) -> T:
    """Look until something is there, and return it.

    Args:
        look: Returns what is looked for, or something false.
        what: What it is, for the error.
        seconds: How long it may take.

    Raises:
        AssertionError: If it does not come.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"Waited {seconds:g} s in vain for {what}.")


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: Where it answers.
        process: Its process.
        log: What it printed.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        """Its host and port."""
        return self.url.removeprefix("http://")

    def get(self, path: str, **parameters: str) -> Any:
        """Return the JSON that it answers with."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with _DIRECT.open(f"{self.url}{path}{query}", timeout=30) as answer:
            return json.loads(answer.read())

    def query(self, expression: str, **parameters: str) -> list[dict[str, Any]]:
        """Return the series that a Prometheus has for an expression."""
        answer = self.get("/api/v1/query", query=expression, **parameters)
        found = answer["data"]["result"]
        assert isinstance(found, list)
        return found


@contextlib.contextmanager
def _served(
    folder: Path, name: str, arguments: Sequence[str], port: int
) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    begun = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [program(name), *arguments, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=output,
            stderr=output,
            cwd=folder,
        )

    def address() -> str:
        text = log.read_text(errors="replace")[begun:]
        assert process.poll() is None, f"{name} ended:\n{text}"
        found = _LISTENS.search(text)
        return found[1] if found else ""

    try:
        server = Server(f"http://{until(address, name)}", process, log)

        def is_ready() -> bool:
            with contextlib.suppress(OSError), _DIRECT.open(f"{server.url}/-/ready"):
                return True
            return False

        until(is_ready, f"{name} to be ready")
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


@contextlib.contextmanager
def prometheus(folder: Path, configuration: str, *, port: int = 0) -> Iterator[Server]:
    """Run Prometheus while the context lasts; its series lie in `folder`/series.

    Args:
        folder: Where its files go.
        configuration: Text of its prometheus.yml.
        port: To listen at; 0 for a free one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prometheus.yml"
    file.write_text(configuration)
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'series'}"]
    with _served(folder, "prometheus", arguments, port) as server:
        yield server


@contextlib.contextmanager
def alertmanager(
    folder: Path, configuration: str, *, port: int = 0
) -> Iterator[Server]:
    """Run Alertmanager alone, without a cluster, while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "alertmanager.yml"
    file.write_text(configuration)
    arguments = [
        f"--config.file={file}",
        f"--storage.path={folder / 'alerts'}",
        "--cluster.listen-address=",
    ]
    with _served(folder, "prometheus-alertmanager", arguments, port) as server:
        yield server


@contextlib.contextmanager
def pushgateway(folder: Path, *, port: int = 0) -> Iterator[Server]:
    """Run a Pushgateway while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    # Debian's keeps what was pushed below /var/lib unless it is told where.
    arguments = [f"--persistence.file={folder / 'pushed'}"]
    with _served(folder, "prometheus-pushgateway", arguments, port) as server:
        yield server
