"""The request log: what was asked and answered, as TensorFlow Serving would log it.

Files are TFRecord of `PredictionLog`, so that they serve as warm-up files, and as input
of a replay or of drift statistics. The path of a request only adds to a queue; a thread
samples (see `sampling`), removes what is private, and writes.

LogMetadata says of each record: `model_spec`, the version that answered;
`sampling_config.sampling_rate`, the probability with which it was kept, so that totals
weighted by its inverse are unbiased; `timestamp_secs`; `request_criticality`, the
stratum; `request_origin`, the lane: 'stable', 'candidate', or, where stable answered
in place of a candidate, 'fallback' with the version that failed and its code, as in
'fallback 43 INTERNAL'. Such an answer is no answer of the candidate.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import random
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from penstock.components.serving.messages import (
    CLASSIFY,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    Message,
    Method,
    PredictionLog,
    model_specs,
)
from penstock.components.serving.router.frames import framed, read_frames
from penstock.components.serving.router.private import Unreadable, strip
from penstock.components.serving.router.sampling import (
    AT_LEAST,
    WINDOW_SECONDS,
    Window,
)
from penstock.components.serving.router.waiting import Waiting
from penstock.schemas.errors import DataError, ServingError

ORDINARY = "ordinary"
"""The stratum of a request that no other is said of."""

FAILED = "failed"
"""The stratum of what a version failed, whether or not stable answered in its place.

All of it is kept unless a rate says otherwise: of a candidate that is rolled back for a
few failures, a sample would hold hardly one.
"""

MAX_WAITING = 10_000
"""Requests that wait to be logged; those that come then are dropped and counted."""

MAX_WAITING_BYTES = 256 << 20

MAX_STRATA = 100
"""Strata there may be; requests of others count as ordinary."""

_KINDS = {
    PREDICT.path: "predict_log",
    CLASSIFY.path: "classify_log",
    REGRESS.path: "regress_log",
    MULTI_INFERENCE.path: "multi_inference_log",
}

_PARTIAL = ".partial"
_UNSEEN = ".unseen"
_SUFFIX = ".tfrecord"
_TICK_SECONDS = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exchange:
    """A request and what came of it.

    Attributes:
        method: The call.
        request: The serialized request.
        response: The serialized answer; None if nobody answered.
        version: The version that answered, or that failed if nobody did.
        lane: 'stable', 'candidate', 'fallback VERSION CODE' or 'failed CODE'.
        unit: Id of the unit, if there is one.
        headers: Headers of the request, in lower case.
    """

    method: Method[Any, Any]
    request: bytes
    response: bytes | None
    version: int
    lane: str
    unit: str | None = None
    headers: Mapping[str, str] | None = None

    @cached_property
    def message(self) -> Message:
        """The request, parsed."""
        parsed: Message = self.method.request.FromString(self.request)
        return parsed


Stratify = Callable[[Exchange], str]
"""Names the stratum of a request. It is called by the thread that writes."""


def by_header(name: str) -> Stratify:
    """Return what names the stratum of a request as one of its headers does."""
    key = name.lower()

    def stratum(exchange: Exchange) -> str:
        return (exchange.headers or {}).get(key) or ORDINARY

    return stratum


def by_input(name: str) -> Stratify:
    """Return what names the stratum of a Predict request as its first value does."""
    from penstock.components.serving.messages import to_array

    def stratum(exchange: Exchange) -> str:
        if exchange.method.path != PREDICT.path or name not in exchange.message.inputs:
            return ORDINARY
        values = to_array(exchange.message.inputs[name], name).ravel().tolist()
        first = values[0] if values else ORDINARY
        return (
            first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
        )

    return stratum


class RequestLog:
    """Writes a sample of requests to a folder.

    Args:
        folder: Where to; made if it is missing. Routers may share it.
        model: Name of the model.
        rates: Share of the requests of each stratum that is kept, from 0 to 1; that of
            `ORDINARY` is for all strata that are not named, 0.01 if it is not given;
            that of `FAILED` is 1.
        stratum: Names the stratum of a request; all are ordinary without it.
        at_least: So many requests of a stratum are kept of a minute, if there are as
            many, whatever its rate.
        private: Names of inputs, outputs and features that are never written.
        max_bytes: A file that is larger is closed.
        max_seconds: A file that is older is closed.
        window_seconds: What counts as a minute.
        seed: Of the draws; None for a random one.

    Raises:
        ServingError: If the folder cannot be used, or a rate is no share.
    """

    def __init__(
        self,
        folder: Path | str,
        model: str,
        *,
        rates: Mapping[str, float] | None = None,
        stratum: Stratify | None = None,
        at_least: int = AT_LEAST,
        private: Iterable[str] = (),
        max_bytes: int = 64 << 20,
        max_seconds: float = 300.0,
        window_seconds: float = WINDOW_SECONDS,
        seed: int | None = None,
    ) -> None:
        self._model = model
        self._rates = {ORDINARY: 0.01, FAILED: 1.0, **(rates or {})}
        for name, rate in self._rates.items():
            if not 0 <= rate <= 1:
                raise ServingError(
                    f"The request log is to keep {rate:g} of stratum '{name}', which "
                    "is no share. Pass a number from 0 to 1."
                )
        self._stratum = stratum
        self._at_least = at_least
        self._private = frozenset(private)
        self._window_seconds = window_seconds
        self._draw = random.Random(seed).random
        self._windows: dict[str, Window[tuple[str, Exchange, float]]] = {}
        self._ends: Counter[str] = Counter()
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-"
        name += f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # What nobody answered would fail again where answered requests are replayed.
        self._files = {
            True: _Files(Path(folder), f"requests-{name}", max_bytes, max_seconds),
            False: _Files(Path(folder), f"failures-{name}", max_bytes, max_seconds),
        }
        recover(Path(folder))
        self._waiting: Waiting[Exchange] = Waiting(MAX_WAITING, MAX_WAITING_BYTES)
        self._thread = threading.Thread(
            target=self._go, name="penstock-request-log", daemon=True
        )
        self._thread.start()

    def add(self, exchange: Exchange) -> None:
        """Take in a request that ended; never waits."""
        size = len(exchange.request) + len(exchange.response or b"")
        self._waiting.add(exchange, size)

    @property
    def ends(self) -> Mapping[str, int]:
        """How many requests were 'written', 'left_out' by the sampling, and so on.

        Those 'dropped' came faster than they could be written, 'unreadable' ones could
        not be freed of what is private, and 'lost' ones could not be written. Weights
        know nothing of these: totals are those of what was not dropped.
        """
        return {**self._ends, "dropped": self._waiting.dropped}

    def close(self) -> None:
        """Write what is left and close the files."""
        self._waiting.end()
        self._thread.join()

    # --- the thread

    def _go(self) -> None:
        window = time.monotonic() + self._window_seconds
        going = True
        while going:
            with contextlib.suppress(queue.Empty):
                exchange = self._waiting.take(_TICK_SECONDS)
                going = exchange is not None
                if exchange is not None:
                    self._take(exchange)
            now = time.monotonic()
            if now >= window or not going:
                window = now + self._window_seconds
                self._end_window()
            for files in self._files.values():
                try:
                    files.close() if not going else files.tick(now)
                except OSError as error:
                    self._lose(0, error)

    def _take(self, exchange: Exchange) -> None:
        stratum = self._named(exchange)
        window = self._windows.get(stratum)
        if window is None:
            rate = self._rates.get(stratum, self._rates[ORDINARY])
            window = self._windows[stratum] = Window(rate, self._at_least)
        item = (stratum, exchange, time.time())
        self._ends["taken"] += 1
        self._write(window.draw(self._draw(), item))

    def _named(self, exchange: Exchange) -> str:
        if exchange.lane not in ("stable", "candidate"):
            return FAILED
        if self._stratum is None:
            return ORDINARY
        try:
            name = str(self._stratum(exchange))
        except Exception:  # of the user's function; the request is logged all the same
            if not self._ends["unnamed"]:
                _log.exception("The stratum of a request could not be told.")
            self._ends["unnamed"] += 1
            return ORDINARY
        known = name in self._rates or name in self._windows
        # Callers choose names: they must not choose how much is held.
        return name if known or len(self._windows) < MAX_STRATA else ORDINARY

    def _end_window(self) -> None:
        windows, self._windows = self._windows, {}
        for window in windows.values():
            self._write(window.end())

    def _write(self, kept: list[tuple[float, tuple[str, Exchange, float]]]) -> None:
        for probability, (stratum, exchange, at) in kept:
            try:
                record = self._record(probability, stratum, exchange, at)
            except Exception as error:  # whatever one holds, the others are logged
                if not isinstance(error, (Unreadable, DataError)):
                    _log.exception("A request could not be logged.")
                self._ends["unreadable"] += 1
                continue
            try:
                self._files[exchange.response is not None].write(framed(record))
            except OSError as error:
                self._lose(1, error)
            else:
                self._ends["written"] += 1

    def _lose(self, records: int, error: OSError) -> None:
        if not self._ends["lost"]:
            _log.warning("Requests are not logged: %s", error)
        self._ends["lost"] += records

    def _record(
        self, probability: float, stratum: str, exchange: Exchange, at: float
    ) -> bytes:
        log = PredictionLog()
        record = getattr(log, _KINDS[exchange.method.path])
        record.request.CopyFrom(exchange.message)
        specs = model_specs(record.request)
        for spec in specs:
            # The version is the router's choice, and a record is replayed to others.
            spec.name = self._model
            spec.ClearField("version")
            spec.ClearField("version_label")
        if exchange.response is not None:
            record.response.MergeFromString(exchange.response)
        metadata = log.log_metadata
        if specs:
            metadata.model_spec.signature_name = specs[0].signature_name
        metadata.model_spec.name = self._model
        metadata.model_spec.version.value = exchange.version
        metadata.sampling_config.sampling_rate = probability
        metadata.timestamp_secs = int(at)
        metadata.request_origin = exchange.lane
        metadata.request_criticality = stratum
        strip(log, self._private)
        return log.SerializeToString()


class _Files:
    """One file after the other, each visible under its name when it is whole."""

    def __init__(
        self, folder: Path, name: str, max_bytes: int, max_seconds: float
    ) -> None:
        self._folder = folder
        self._name = name
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._number = 0
        self._file: IO[bytes] | None = None
        self._path = Path()
        self._began = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            raise ServingError(
                f"The request log cannot be written to '{folder}': {error.strerror}. "
                "Pass a folder that this user may write to."
            ) from error

    def write(self, frame: bytes) -> None:
        if self._file is None:
            self._number += 1
            self._path = self._folder / f"{self._name}-{self._number:05}{_SUFFIX}"
            partial = self._path.with_name(self._path.name + _PARTIAL)
            # Whoever recovers files sees it only after it is locked.
            unseen = self._path.with_name(self._path.name + _UNSEEN)
            self._file = open(unseen, "xb")  # noqa: SIM115 (it stays open)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.rename(unseen, partial)
            self._began = time.monotonic()
        self._file.write(frame)
        if self._file.tell() >= self._max_bytes:
            self.close()

    def tick(self, now: float) -> None:
        if self._file is None:
            return
        self._file.flush()
        if now >= self._began + self._max_seconds:
            self.close()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            file.flush()
            os.fsync(file.fileno())
            os.rename(self._path.with_name(self._path.name + _PARTIAL), self._path)


def recover(folder: Path) -> int:
    """Finish the files of routers that were killed; a torn last record is cut off.

    Returns:
        How many files were finished.
    """
    found = 0
    for partial in sorted(folder.glob(f"*{_SUFFIX}{_PARTIAL}")):
        with contextlib.suppress(OSError), open(partial, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = 0
            try:
                for reached, _ in read_frames(partial):
                    end = reached
            except DataError as error:
                _log.warning("What follows was cut off: %s", error)
            file.truncate(end)
            os.fsync(file.fileno())
            os.rename(partial, partial.with_name(partial.name[: -len(_PARTIAL)]))
            found += 1
    return found


def read_log(*paths: Path | str) -> Iterator[Message]:
    """Read the records of files of a request log, or of all files in folders.

    Args:
        *paths: Files, or folders. Of a folder the finished files are read.

    Yields:
        PredictionLog messages. A last record that is cut off is left out.

    Raises:
        DataError: A path is not there, a file is damaged, or holds something else.
    """
    for each in map(Path, paths):
        if each.is_dir():
            yield from read_log(*sorted(each.glob(f"requests-*{_SUFFIX}")))
            continue
        if not each.exists():
            raise DataError(f"There is no request log '{each}'. Check the path.")
        for _, record in read_frames(each):
            try:
                log: Message = PredictionLog.FromString(record)
            except Exception as error:  # the class differs between Protobuf's releases
                raise DataError(
                    f"'{each}' holds a record that is no PredictionLog. Pass the files "
                    "of a request log."
                ) from error
            yield log
