"""`penstock retrain serve` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[3]


class Served:
    """A receiver in a process of its own."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._port = "0"
        self.process: subprocess.Popen[str]
        self.url = ""

    def begin(self) -> None:
        """Start it, again at the same port, and wait until it takes alerts."""
        code = "from penstock.commands.retraining import app; app()"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                "serve",
                f"--port={self._port}",
                *self._options,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"at (http://\S+)/v1/alerts", said)
        assert found is not None, said
        self.url = found[1]
        self._port = self.url.rpartition(":")[2]

    def kill(self) -> None:
        """Kill it, and nothing else."""
        self.process.kill()
        self.process.communicate()

    def post(self, body: bytes) -> dict[str, Any]:
        """Send a notification; return what it answers."""
        request = urllib.request.Request(
            f"{self.url}/v1/alerts", body, {"Content-Type": "application/json"}
        )
        with _direct(request) as answer:
            said: dict[str, Any] = json.loads(answer.read())
        return said

    def get(self, path: str) -> str:
        """Return what lies at a path."""
        with _direct(urllib.request.Request(self.url + path)) as answer:
            return str(answer.read().decode())


def _direct(request: urllib.request.Request) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=30)
