"""What a router obeys: the routing as it is now, and when it must not be followed.

A thread looks at the ledger a hundred times a second. A request takes the snapshot that
holds when it is sent; nothing in the way of a request reads a file or waits for a lock.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.router.assignment import end_of
from penstock.components.serving.routing import Routing, routing_of
from penstock.components.serving.traffic import BREAKER, MISSING
from penstock.schemas.errors import ServingError

MAX_FAILURES = 6
"""After failures of so many units in a row the candidate is taken for dead."""

MISSING_SECONDS = 5.0
"""How long nobody is sent to a candidate that its model server does not have."""

POLL_SECONDS = 0.01

_LOOK_AGAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """Where requests go now.

    Attributes:
        routing: What the ledger says.
        alarm: Why nobody is sent to the candidate although it has a weight; or empty.
        end: The first place whose unit the candidate does not answer.
    """

    routing: Routing = field(default_factory=Routing)
    alarm: str = ""
    end: int = 0

    @property
    def assigns(self) -> bool:
        """Whether units are divided between the arms as the routing says."""
        return self.routing.weight > 0 and not self.alarm


class Watch:
    """Follows the ledger of a serving directory.

    Args:
        serving_dir: The serving directory.
        poll_seconds: How often to look.

    Attributes:
        changed: Called after the snapshot has changed, from any thread.
        snapshot: Where requests go now.
        trouble: Why the ledger cannot be read; empty if it can.

    Raises:
        ServingError: If the serving directory or its ledger cannot be used.
    """

    def __init__(
        self,
        serving_dir: Path | str,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.snapshot = Snapshot()
        self.trouble = ""
        self.changed: Callable[[], object] = lambda: None
        self._ledger = Ledger(serving_dir, read_only=True)
        self._file = self._ledger.directory / ".penstock" / "ledger.sqlite"
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._routing = Routing()
        self._breaker = _Breaker()
        self._missing: object = None
        self._missing_until = 0.0
        # When the controller was last heard of, by this process's monotonic clock.
        self._heard = time.monotonic()
        self._read()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, name="penstock-watch", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
        self._ledger.close()

    # --- what requests tell

    def candidate_failed(self, routing: Routing, unit: str) -> None:
        """Note that the candidate failed a unit through no fault of the caller."""
        if self._breaker.failed((routing.rollout, routing.candidate), unit):
            self._renew()

    def candidate_missing(self, routing: Routing) -> None:
        """Note that the model server that is asked does not have the candidate."""
        self._missing = (routing.rollout, routing.candidate)
        self._missing_until = time.monotonic() + MISSING_SECONDS
        self._renew()

    def candidate_answered(self) -> None:
        """Note that the candidate answered well."""
        self._breaker.answered()

    def stable_answered(self) -> None:
        """Note that stable answered well."""
        self._breaker.stable_good = time.monotonic()

    # --- the ledger

    def _follow(self) -> None:
        seen: object = None
        file: object = None
        looked = -math.inf
        while not self._stop.wait(self._poll_seconds):
            try:
                now = time.monotonic()
                if now >= looked + _LOOK_AGAIN_SECONDS:
                    # The file may have been replaced by a copy of it.
                    looked = now
                    if (found := self._identity()) != file:
                        file = found
                        seen = None
                        self._ledger.close()
                changes = self._ledger.changes()
                if changes != seen:
                    self._read()
                    seen = changes
                self._trouble("")
            except ServingError as error:
                seen = None
                self._trouble(str(error))
            except Exception as error:  # whatever happens, requests go on
                seen = None
                self._trouble(f"{type(error).__name__}: {error}")
            self._renew()
        self._ledger.close()

    def _identity(self) -> tuple[int, int, bool] | None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return None
        # A user who may only read takes a ledger without a log for one that stays.
        has_log = self._file.with_name(f"{self._file.name}-wal").exists()
        return status.st_dev, status.st_ino, has_log

    def _read(self) -> None:
        routing = routing_of(self._ledger)
        if self._routing.seq and not routing.seq:
            raise ServingError(
                f"The ledger '{self._file}' is gone, or says no more where requests "
                "go. Put a copy of it back."
            )
        silent = self._ledger.unattended()
        if silent is not None:
            self._heard = time.monotonic() - silent
        self._routing = routing
        self._renew()

    def _trouble(self, what: str) -> None:
        if what and not self.trouble:
            _log.warning("Requests go on as before: %s", what)
        self.trouble = what

    def _renew(self) -> None:
        with self._lock:
            routing = self._routing
            alarm = self._alarm(routing)
            before = self.snapshot
            if before.routing is routing and before.alarm == alarm:
                return
            end = 0 if alarm else end_of(routing.weight)
            self.snapshot = Snapshot(routing, alarm, end)
        if alarm and alarm != before.alarm:
            _log.warning("%s", alarm)
        self.changed()

    def _alarm(self, routing: Routing) -> str:
        if routing.weight <= 0:
            return ""
        if self._breaker.is_open((routing.rollout, routing.candidate)):
            return (
                f"{BREAKER}Version {routing.candidate} failed {MAX_FAILURES} different "
                f"units in a row while version {routing.stable} answered."
            )
        subject = (routing.rollout, routing.candidate)
        if self._missing == subject and time.monotonic() < self._missing_until:
            return (
                f"{MISSING}The model server that a router asks does not have version "
                f"{routing.candidate} under the name that it asks for, so that version "
                f"{routing.stable} answers everybody there. Check the router's "
                "--server, --model and --layout against those of the rollout."
            )
        silent = time.monotonic() - self._heard
        if silent > routing.dead_man_seconds:
            return (
                "Nobody has controlled the rollout of version "
                f"{routing.candidate} for more than {routing.dead_man_seconds:g} "
                f"seconds: everybody is sent to version {routing.stable} until "
                "somebody does. Start the controller."
            )
        return ""


class _Breaker:
    """Takes a candidate for dead that fails one unit after the other.

    Stable has to answer meanwhile: where both fail, it is no fault of the candidate.
    """

    def __init__(self) -> None:
        self.stable_good = -math.inf
        self._lock = threading.Lock()
        self._units: set[str] = set()
        self._since = 0.0
        self._subject: object = None
        self._dead: object = None

    def is_open(self, subject: tuple[str | None, int | None]) -> bool:
        """Return whether this candidate of this rollout was taken for dead."""
        return self._dead == subject

    def failed(self, subject: tuple[str | None, int | None], unit: str) -> bool:
        """Count a failure; return whether the candidate is dead from now on."""
        with self._lock:
            if self._dead == subject:
                return False
            if self._subject != subject or not self._units:
                self._subject = subject
                self._units.clear()
                self._since = time.monotonic()
            if len(self._units) < MAX_FAILURES:
                self._units.add(unit)
            if len(self._units) < MAX_FAILURES or self.stable_good < self._since:
                return False
            self._dead = subject
            return True

    def answered(self) -> None:
        """Forget the failures so far."""
        if self._units:  # hardly ever: no lock is taken for a good answer
            with self._lock:
                self._units.clear()
