"""Shows a candidate what stable answers, and compares what the two make of it.

Nobody waits for the candidate, and nobody gets its answer: copies go to a short queue,
and those that do not fit in it are dropped and counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.components.serving.messages import (
    CLASSIFY,
    PREDICT,
    REGRESS,
    Message,
    Method,
    to_array,
)
from penstock.components.serving.router import sketch
from penstock.components.serving.router.lanes import LaneError, Lanes
from penstock.components.serving.router.waiting import Waiting
from penstock.components.serving.router.watch import Snapshot

CAPACITY = 64
THREADS = 2

MAX_BYTES = 64 << 20
"""How large the copies that wait may be together."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """A request that stable was asked, and what it said.

    Attributes:
        method: The call.
        request: The serialized request.
        response: Stable's serialized answer; None if it failed.
        seconds: How long stable took.
        rollout: The rollout that the candidate is shown it in.
        candidate: The candidate.
    """

    method: Method[Any, Any]
    request: bytes
    response: bytes | None
    seconds: float
    rollout: str
    candidate: int


@dataclass(frozen=True)
class Summary:
    """What was compared in one rollout.

    Attributes:
        candidate: The candidate; None before any.
        pairs: Requests that both versions ended.
        both_failed: Pairs in which both failed.
        stable_failed: Pairs in which only stable did.
        candidate_failed: Pairs in which only the candidate did.
        compared: Pairs of answers.
        differing: Those of them that differ by more than the tolerance, in shape, type
            or names included.
        reshaped: Those of them whose names, types or shapes differ.
        max_absolute: The greatest difference of two numbers.
        max_relative: The greatest difference as a share of stable's number.
        stable_seconds: Sketch of stable's latencies in pairs that both answered.
        candidate_seconds: The candidate's in the same pairs.
        slower: Pairs in which the candidate took longer.
        dropped: Requests that did not fit in the queue.
        withdrawn: Requests that the candidate was not to see any more.
    """

    candidate: int | None = None
    pairs: int = 0
    both_failed: int = 0
    stable_failed: int = 0
    candidate_failed: int = 0
    compared: int = 0
    differing: int = 0
    reshaped: int = 0
    max_absolute: float = 0.0
    max_relative: float = 0.0
    stable_seconds: Mapping[int, int] = field(default_factory=dict)
    candidate_seconds: Mapping[int, int] = field(default_factory=dict)
    slower: int = 0
    dropped: int = 0
    withdrawn: int = 0

    @property
    def differing_share(self) -> float:
        """Share of compared pairs that differ; 0 without any."""
        return self.differing / self.compared if self.compared else 0.0


class Shadow:
    """Sends copies to the candidate from threads of its own.

    Args:
        lanes: Where the versions are.
        snapshot: Returns what the router obeys.
        deadline_seconds: How long to wait for the candidate.
        absolute: Numbers that are at most so far apart are equal.
        relative: And so are those that are within this share of stable's number.
        capacity: Copies that wait.
        threads: Copies that are under way at a time.
        ended: Called for each copy with the rollout, whether the candidate answered,
            and how long it took.
        event: Called with what became of a copy, to be counted.
    """

    def __init__(
        self,
        lanes: Lanes,
        snapshot: Callable[[], Snapshot],
        *,
        deadline_seconds: float,
        absolute: float = 1e-6,
        relative: float = 1e-4,
        capacity: int = CAPACITY,
        threads: int = THREADS,
        ended: Callable[[str, bool, float], object] = lambda *_: None,
        event: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._lanes = lanes
        self._snapshot = snapshot
        self._deadline_seconds = deadline_seconds
        self._absolute = absolute
        self._relative = relative
        self._ended = ended
        self._event = event
        self._waiting: Waiting[Copy] = Waiting(capacity, MAX_BYTES)
        self._lock = threading.Lock()
        self._rollout: str | None = None
        self._found: dict[str, Any] = {}
        self._threads = [
            threading.Thread(target=self._go, name=f"penstock-shadow-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, copy: Copy) -> None:
        """Take in a copy; never waits."""
        self._waiting.add(copy, len(copy.request) + len(copy.response or b""))

    @property
    def dropped(self) -> int:
        """How many copies did not fit in the queue, since it began."""
        return self._waiting.dropped

    def summary(self) -> Summary:
        """Return what was compared in the last rollout that had a shadow."""
        with self._lock:
            found: dict[str, Any] = {
                name: dict(value) if isinstance(value, dict) else value
                for name, value in self._found.items()
            }
        return Summary(**found, dropped=self.dropped)

    def close(self) -> None:
        """End the threads; copies that wait are left."""
        self._waiting.clear()
        self._waiting.end(len(self._threads))
        for thread in self._threads:
            thread.join()

    def _go(self) -> None:
        while (copy := self._waiting.take()) is not None:
            try:
                self._show(copy)
            except Exception:  # whatever one holds, the others are compared
                _log.exception("A request could not be compared.")

    def _show(self, copy: Copy) -> None:
        routing = self._snapshot().routing
        if not routing.shadow or (routing.rollout, routing.candidate) != (
            copy.rollout,
            copy.candidate,
        ):
            self._add(copy, withdrawn=1)
            return
        began = time.monotonic()
        response: bytes | None = None
        with contextlib.suppress(LaneError):
            response = self._lanes.call(
                copy.method, copy.request, copy.candidate, self._deadline_seconds
            )
        seconds = time.monotonic() - began
        # What stable failed as well says nothing of the candidate.
        if copy.response is not None or response is not None:
            self._ended(copy.rollout, response is not None, seconds)
        if copy.response is None or response is None:
            failed = "both_failed"
            if copy.response is not None:
                failed = "candidate_failed"
            elif response is not None:
                failed = "stable_failed"
            self._event(failed)
            self._add(copy, pairs=1, **{failed: 1})
            return
        found = difference(
            copy.method, copy.response, response, self._absolute, self._relative
        )
        self._event("differing" if found.differs else "equal")
        with self._lock:
            mine = self._of(copy)
            mine["pairs"] += 1
            mine["compared"] += 1
            mine["differing"] += found.differs
            mine["reshaped"] += found.reshaped
            mine["max_absolute"] = max(mine["max_absolute"], found.absolute)
            mine["max_relative"] = max(mine["max_relative"], found.relative)
            mine["slower"] += seconds > copy.seconds
            sketch.add(mine["stable_seconds"], copy.seconds)
            sketch.add(mine["candidate_seconds"], seconds)

    def _add(self, copy: Copy, **counts: int) -> None:
        with self._lock:
            mine = self._of(copy)
            for name, count in counts.items():
                mine[name] += count

    def _of(self, copy: Copy) -> dict[str, Any]:
        if self._rollout != copy.rollout or not self._found:
            self._rollout = copy.rollout
            self._found = {
                each.name: {} if each.name.endswith("seconds") else 0
                for each in dataclasses.fields(Summary)
                if each.name != "dropped"
            }
            self._found["candidate"] = copy.candidate
        return self._found


@dataclass(frozen=True)
class Difference:
    """How two answers differ.

    Attributes:
        differs: Whether by more than the tolerance.
        reshaped: Whether in names, types or shapes.
        absolute: The greatest difference of two numbers.
        relative: The greatest difference as a share of the first number.
    """

    differs: bool
    reshaped: bool
    absolute: float
    relative: float


def difference(
    method: Method[Any, Any],
    stable: bytes,
    candidate: bytes,
    absolute: float,
    relative: float,
) -> Difference:
    """Compare two answers to one request.

    Args:
        method: The call.
        stable: The serialized answer that is taken for right.
        candidate: The other.
        absolute: Numbers that are at most so far apart are equal.
        relative: And so are those that are within this share of stable's.
    """
    one, other = (
        _values(method, method.response.FromString(each))
        for each in (stable, candidate)
    )
    if one is None or other is None:
        same = _body(method, stable) == _body(method, candidate)
        return Difference(not same, False, 0.0, 0.0)
    reshaped = one.keys() != other.keys()
    differs = reshaped
    greatest = share = 0.0
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            reshaped = differs = True
        elif a.dtype.kind in "fciub":
            wide = np.complex128 if a.dtype.kind == "c" else np.float64
            with np.errstate(all="ignore"):
                a, b = a.astype(wide), b.astype(wide)
                same = (a == b) | (np.isnan(a) & np.isnan(b))
                gap = np.where(same, 0.0, np.abs(b - a))
                gap = np.where(np.isnan(gap), np.inf, gap)
                of = np.where(same, 0.0, gap / np.abs(a))
                wrong = gap > absolute + relative * np.abs(a)
            wrong = wrong | (~same & ~np.isfinite(gap))
            differs = differs or bool(np.any(wrong))
            greatest = max(greatest, float(np.max(gap, initial=0.0)))
            share = max(share, float(np.max(of, initial=0.0)))
        elif not np.array_equal(a, b):
            differs = True
    return Difference(differs, reshaped, greatest, share)


def _values(
    method: Method[Any, Any], response: Message
) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return the arrays of an answer by name; None where it is not made of arrays."""
    if method.path == PREDICT.path:
        return {name: to_array(each, name) for name, each in response.outputs.items()}
    if method.path == REGRESS.path:
        values = [each.value for each in response.result.regressions]
        return {"value": np.array(values, np.float32)}
    if method.path == CLASSIFY.path:
        rows = [row.classes for row in response.result.classifications]
        labels = [[each.label for each in row] for row in rows]
        scores = [[each.score for each in row] for row in rows]
        if len({len(row) for row in labels}) > 1:
            return None
        return {
            "label": np.array(labels, object),
            "score": np.array(scores, np.float32),
        }
    return None


def _body(method: Method[Any, Any], response: bytes) -> bytes:
    """Return an answer without the version that gave it."""
    parsed = method.response.FromString(response)
    for part in getattr(parsed, "results", [parsed]):
        part.ClearField("model_spec")
    body: bytes = parsed.SerializeToString(deterministic=True)
    return body
