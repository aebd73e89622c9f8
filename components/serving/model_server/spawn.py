"""Starts a model server in a process of its own, for tests; without TensorFlow here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.components.serving.model_server.options import Options, Ports, flags
from penstock.schemas.errors import ServingError

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Spawned:
    """A model server in a process of its own.

    Attributes:
        ports: Where it answers.
        process: The process.
        log: What it printed.
    """

    ports: Ports
    process: subprocess.Popen[bytes]
    log: Path


@contextlib.contextmanager
def spawned(
    options: Options | None = None,
    *,
    timeout_seconds: float = 120.0,
    command: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Spawned]:
    """Run a model server in a process of its own while the context lasts.

    Its process ends with the context, and when this one is killed.

    Args:
        options: How to start it.
        timeout_seconds: How long it may take until it answers.
        command: What starts it; the module of this package, run by this Python.
        **settings: Fields of `Options`, as for `ModelServer`.

    Yields:
        Where it answers, and the process.

    Raises:
        ServingError: It ended, or does not answer in time.
    """
    base = options or Options(port="auto")
    with tempfile.TemporaryDirectory(prefix="model-server-") as folder:
        port_file, log = Path(folder, "ports.json"), Path(folder, "log")
        chosen = dataclasses.replace(
            base, **settings, port_file=str(port_file), exit_with_stdin=True
        )
        module = __name__.rpartition(".")[0]
        words = [*(command or (sys.executable, "-m", module)), *flags(chosen)]
        with open(log, "wb") as printed:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                },
                start_new_session=True,  # so that Ctrl-C reaches it only through us
            )
        try:
            yield Spawned(
                _await(process, port_file, log, timeout_seconds), process, log
            )
        finally:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _await(
    process: subprocess.Popen[bytes], port_file: Path, log: Path, seconds: float
) -> Ports:
    end = time.monotonic() + seconds
    while not port_file.exists():
        if process.poll() is not None or time.monotonic() > end:
            what = f"does not answer after {seconds:g} s"
            if process.returncode is not None:
                what = f"ended with code {process.returncode}"
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            last = said.splitlines()[-1] if said else "nothing"
            raise ServingError(
                f"The model server {what}. The last it said: '{last[:500]}'. Mend "
                "that, or give it more time."
            )
        time.sleep(_POLL_SECONDS)
    return Ports(**json.loads(port_file.read_text(encoding="utf-8")))
