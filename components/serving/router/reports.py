"""Counts what requests left behind, and tells it: to the controller and to Prometheus.

One thread does all of it. The path of a request only adds a note to a queue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from penstock.components.serving.router import sketch
from penstock.components.serving.router.assignment import unit_number
from penstock.components.serving.router.metrics import Counts, Shelf
from penstock.components.serving.router.notes import Note
from penstock.components.serving.router.watch import Snapshot
from penstock.components.serving.traffic import (
    MAX_UNITS,
    Arm,
    Mark,
    Report,
    Seen,
    Tally,
    Traffic,
)
from penstock.schemas.errors import ServingError

REPORT_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0

MAX_NOTES = 500_000
"""Notes that are kept while they wait to be counted."""

MAX_PENDING = 100_000
"""Units and values each that are kept while a report cannot be written."""

_BATCH = 10_000  # units and values each of one report, so that it is soon written
_RETRY_SECONDS = 1.0
_KEPT_ROLLOUTS = 3

_log = logging.getLogger(__name__)

Value = tuple[str, int, float]


@dataclass
class _Evidence:
    """What was seen of one rollout, and what of it is still to be told."""

    known: dict[Mark, set[int]] = field(
        default_factory=lambda: {"seen": set(), "failing": set(), "slow": set()}
    )
    tallies: dict[tuple[int, Arm], Tally] = field(default_factory=dict)
    full: set[tuple[int, Mark]] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    changed: set[tuple[int, Arm]] = field(default_factory=set)
    answered: dict[tuple[int, Arm], set[int]] = field(default_factory=dict)

    def tally(self, step: int, arm: Arm) -> Tally:
        self.changed.add((step, arm))
        return self.tallies.setdefault((step, arm), Tally())

    def mark(self, mark: Mark, unit: int, step: int, arm: Arm) -> None:
        if unit in self.known[mark] or (step, mark) in self.full:
            return
        # A unit that there is no room for now is new again the next time.
        if len(self.seen) < MAX_PENDING:
            self.known[mark].add(unit)
            self.seen.append(Seen(mark, unit, step, arm))

    def answer(self, unit: int, step: int, arm: Arm) -> None:
        units = self.answered.get((step, arm))
        if units is None:
            # Units of the steps before are counted, and need not be known any more.
            for key in [key for key in self.answered if key[0] < step]:
                del self.answered[key]
            units = self.answered[step, arm] = set()
        if len(units) < MAX_UNITS:
            units.add(unit)
        tally = self.tallies[step, arm]
        tally.units = max(tally.units, len(units))

    @property
    def is_told(self) -> bool:
        return not (self.seen or self.values or self.changed)


class Reporter:
    """Counts notes and reports what is new.

    Args:
        serving_dir: The serving directory, in whose traffic it is told.
        name: What the router is called; no other may be.
        snapshot: Returns what the router obeys.
        report_seconds: How often something new is told.
        shelf: Where to leave the counts for other processes.
    """

    def __init__(
        self,
        serving_dir: Path | str,
        name: str,
        snapshot: Callable[[], Snapshot],
        *,
        report_seconds: float = REPORT_SECONDS,
        shelf: Shelf | None = None,
    ) -> None:
        self._serving_dir = serving_dir
        self._name = name
        self._snapshot = snapshot
        self._report_seconds = report_seconds
        self._shelf = shelf
        self._notes: deque[Note] = deque()
        self._values: deque[tuple[str, str, str, float]] = deque()
        self._dropped = 0
        self._lock = threading.Lock()
        self._counts = Counts()
        self._rollouts: dict[str, _Evidence] = {}
        self._traffic: Traffic | None = None
        self._told: tuple[int, str] | None = None
        self._told_at = 0.0
        self._failed_at: float | None = None
        self._stop = False
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=self._go, name="penstock-report", daemon=True
        )
        self._thread.start()

    # --- from the path of a request

    def note(self, note: Note) -> None:
        """Take in what became of a request."""
        if len(self._notes) < MAX_NOTES:
            self._notes.append(note)
        else:
            self._dropped += 1

    def value(self, rollout: str, unit: str, metric: str, value: float) -> None:
        """Take in a value of a business metric."""
        if len(self._values) < MAX_NOTES:
            self._values.append((rollout, unit, metric, value))
        else:
            self._dropped += 1

    def event(self, name: str, what: str) -> None:
        """Count something for Prometheus alone, from any thread but a caller's."""
        with self._lock:
            self._counts.events[name, what] += 1

    def shadowed(self, rollout: str, ok: bool, seconds: float) -> None:
        """Take in what the candidate did with a copy of a request."""
        with self._lock:
            tally = self._of(rollout).tally(-1, "candidate")
            tally.requests += 1
            if ok:
                sketch.add(tally.sketch, seconds)
            else:
                tally.failures += 1

    # --- for others

    def counts(self) -> Counts:
        """Return all that was counted, by every process that shares the shelf."""
        self._count()
        total = Counts()
        with self._lock:
            total.add(self._counts)
        if self._dropped:
            total.events["penstock_unreported", "queue"] += self._dropped
        if self._shelf is not None:
            for other in self._shelf.others():
                total.add(other)
        return total

    def wake(self) -> None:
        """Report at once."""
        self._wake.set()

    def close(self) -> None:
        """Tell what is left, and that the router ends."""
        self._stop = True
        self._wake.set()
        self._thread.join()

    # --- counting

    def _count(self) -> None:
        """Count the notes so far."""
        with self._lock:
            for _ in range(len(self._notes)):
                note = self._notes.popleft()
                self._counts.count(note, note.arm)
                if note.unit is not None and note.routing.rollout is not None:
                    self._weigh(note, note.unit)
            for _ in range(len(self._values)):
                rollout, unit, metric, value = self._values.popleft()
                evidence = self._of(rollout)
                if len(evidence.values) < MAX_PENDING:
                    evidence.values.append((metric, unit_number(unit), value))
                else:
                    self._counts.events["penstock_unreported", "values"] += 1

    def _weigh(self, note: Note, unit: str) -> None:
        routing, arm = note.routing, note.arm
        assert routing.rollout is not None
        in_shadow = routing.weight <= 0 and arm == "stable"
        if not note.counts and not in_shadow:
            return
        evidence = self._of(routing.rollout)
        tally = evidence.tally(routing.step if note.counts else -1, arm)
        tally.requests += 1
        tally.failures += note.outcome in ("failed", "fell_back")
        tally.client_errors += note.outcome == "client_error"
        tally.fallbacks += note.outcome == "fell_back"
        if note.outcome == "ok":
            sketch.add(tally.sketch, note.seconds)
        if not note.counts:
            return
        number = unit_number(unit)
        evidence.mark("seen", number, routing.step, arm)
        if note.outcome in ("failed", "fell_back") or note.late:
            evidence.mark("failing", number, routing.step, arm)
        if note.outcome != "ok":
            return
        evidence.answer(number, routing.step, arm)
        if not note.late and routing.slow_seconds is not None:
            ratio = routing.slow_ratio if arm == "candidate" else 1.0
            if note.seconds > ratio * routing.slow_seconds:
                evidence.mark("slow", number, routing.step, arm)

    def _of(self, rollout: str) -> _Evidence:
        return self._rollouts.setdefault(rollout, _Evidence())

    # --- telling

    def _go(self) -> None:
        shelved = 0.0
        while not self._stop:
            self._wake.wait(self._report_seconds)
            self._wake.clear()
            try:
                self._count()
                now = time.monotonic()
                if self._shelf is not None and now >= shelved + HEARTBEAT_SECONDS:
                    shelved = now
                    self._put()
                if self._failed_at is None or now >= self._failed_at + _RETRY_SECONDS:
                    self._tell(now)
            except ServingError as error:
                self._fail(str(error))
            except Exception as error:  # whatever happens, it goes on
                _log.exception("What requests did could not be told.")
                self._fail(f"{type(error).__name__}: {error}")
        self._end()

    def _put(self) -> None:
        assert self._shelf is not None
        with self._lock:
            counts = Counts()
            counts.add(self._counts)
        try:
            self._shelf.put(counts)
        except OSError as error:
            _log.warning("Counts of this process are not shared: %s", error)

    def _tell(self, now: float) -> None:
        snapshot = self._snapshot()
        state = (snapshot.routing.seq, snapshot.alarm)
        told = False
        for rollout in list(self._rollouts):
            while report := self._report(rollout, snapshot):
                self._send(rollout, report)
                told = True
        self._forget(snapshot.routing.rollout)
        if not told and (
            state != self._told or now >= self._told_at + HEARTBEAT_SECONDS
        ):
            self._open().report(self._plain(snapshot))
            told = True
        if told:
            self._told, self._told_at = state, now
        self._failed_at = None

    def _forget(self, current: str | None) -> None:
        """Let go of what was seen of rollouts that ended some time ago.

        Requests of the last ones may still end, and totals must then not begin anew.
        """
        with self._lock:
            old = [each for each in self._rollouts if each != current]
            for each in old[: max(0, len(old) - _KEPT_ROLLOUTS)]:
                if self._rollouts[each].is_told:
                    del self._rollouts[each]

    def _report(self, rollout: str, snapshot: Snapshot) -> Report | None:
        with self._lock:
            evidence = self._rollouts[rollout]
            if evidence.is_told:
                return None
            tallies = {
                key: dataclasses.replace(tally, sketch=dict(tally.sketch))
                for key in evidence.changed
                for tally in [evidence.tallies[key]]
            }
            evidence.changed.clear()
            return Report(
                self._name,
                snapshot.routing.seq,
                rollout,
                evidence.seen[:_BATCH],
                evidence.values[:_BATCH],
                tallies,
                snapshot.alarm,
            )

    def _send(self, rollout: str, report: Report) -> None:
        evidence = self._rollouts[rollout]
        try:
            full = self._open().report(report)
        except BaseException:
            with self._lock:
                evidence.changed.update(report.tallies)
            raise
        with self._lock:
            evidence.full |= full
            del evidence.seen[: len(report.seen)]
            del evidence.values[: len(report.values)]

    def _plain(self, snapshot: Snapshot) -> Report:
        return Report(self._name, snapshot.routing.seq, alarm=snapshot.alarm)

    def _open(self) -> Traffic:
        if self._traffic is None:
            self._traffic = Traffic(self._serving_dir)
        return self._traffic

    def _fail(self, what: str) -> None:
        if self._failed_at is None:
            _log.warning("Requests go on, and are counted: %s", what)
        self._failed_at = time.monotonic()
        with self._lock:
            self._counts.events["penstock_unreported", "tries"] += 1
        # The file may have been removed or mended: it is opened anew.
        traffic, self._traffic = self._traffic, None
        if traffic is not None:
            traffic.close()

    def _end(self) -> None:
        with contextlib.suppress(ServingError):
            self._count()
            if self._shelf is not None:
                self._put()
            self._tell(time.monotonic())
            self._open().leave(self._name)
        if self._traffic is not None:
            self._traffic.close()
