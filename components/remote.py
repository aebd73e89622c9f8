"""Beam pipelines that run elsewhere: whether that is reached, and what failed there."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from penstock.schemas import errors
from penstock.schemas.errors import DataError, PenstockError, PipelineError

_SECONDS_TO_CONNECT = 5

# The last lines of a worker's traceback, with the label that Beam adds to them.
_RAISED = re.compile(
    r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<text>.*?))?"
    r"(?: \[while running '[^\n]*'\])?\s*\Z",
    re.MULTILINE | re.DOTALL,
)
_NOT_FOUND = re.compile(r"FileNotFoundError: \[Errno 2\] [^\n]*?: '([^'\n]+)'")
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+), in (\S+)', re.MULTILINE)


class WorkerFailed(Exception):
    """A Beam step raised on a worker, which comes back as text.

    Attributes:
        type_name: The class of what it raised.
        message_text: Its text.
        place: Where it was raised.
    """

    def __init__(self, type_name: str, message_text: str, place: str) -> None:
        super().__init__(f"{type_name}: {message_text}")
        self.type_name = type_name
        self.message_text = message_text
        self.place = place

    def __reduce__(self) -> Any:
        return WorkerFailed, (self.type_name, self.message_text, self.place)


class RemotePipeline(beam.Pipeline):  # type: ignore[misc]
    """A pipeline whose job ends with its `with` statement, however that ends.

    Args:
        options: Name the runner and how it is reached.
    """

    def __init__(self, options: PipelineOptions) -> None:
        setup = options.view_as(SetupOptions)
        # Workers unpickle steps in several threads, and a package that two threads
        # import at the same time can end in Python's "deadlock detected". Modules
        # given here are imported before.
        setup.beam_plugins = [*(setup.beam_plugins or ()), "penstock"]
        super().__init__(options=options)
        self.result: Any = None

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)
        except Exception as failure:
            meant = explained(failure)
            if meant is failure:
                raise
            raise meant from failure
        except BaseException:
            # Canceled: nobody waits for the job any more.
            if self.result is not None:
                self.result.cancel()
            raise


def check_job_server(endpoint: str | None) -> None:
    """Check that Beam's job server is there, before a job waits for it in vain.

    Args:
        endpoint: Its host and port; None or 'embed' if there is none of its own.

    Raises:
        PipelineError: If it does not answer.
    """
    if endpoint is None or endpoint == "embed":
        return
    host, _, port = endpoint.rpartition(":")
    if not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65_535:
        raise PipelineError(
            f"--job_endpoint is '{endpoint}', which is no host and port. Write it as "
            "'localhost:8099'."
        )
    address = (host.strip("[]"), int(port))
    try:
        socket.create_connection(address, _SECONDS_TO_CONNECT).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise PipelineError(
            f"The Beam job server at '{endpoint}' cannot be reached: {reason}. Start "
            "it (scripts/flink start), or correct --job_endpoint."
        ) from error


def explained(failure: Exception) -> Exception:
    """Return what a step raised on a worker, out of what the runner raised for it."""
    text = str(failure)
    lost = _NOT_FOUND.findall(text)
    if lost and Path(lost[-1]).exists():
        return DataError(
            f"A Beam worker finds no '{lost[-1]}', which is there on this machine. "
            "Workers read and write artifacts themselves: keep the root and the input "
            "on a file system that all of them mount, under the same path as here."
        )
    traceback = text.rpartition("Traceback (most recent call last):\n")[2]
    found = _RAISED.search(traceback)
    if traceback == text or found is None:
        return failure
    kind, message = found["kind"], found["text"] or ""
    if kind.startswith(f"{errors.__name__}."):
        ours: type[PenstockError] = getattr(errors, kind.rpartition(".")[2])
        return ours(message)
    frames = [
        frame
        for frame in _FRAME.findall(traceback)
        if "site-packages" not in frame[0] and not frame[0].startswith("apache_beam")
    ]
    where = "a Beam worker"
    if frames:
        path, line, function = frames[-1]
        where = f"{function} ({Path(path).name}, line {line}) on {where}"
    return WorkerFailed(kind, message, where)
