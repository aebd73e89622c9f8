"""Loads and unloads versions, and hands out the loaded ones to requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.components.serving.model_server.policy import (
    Action,
    Phase,
    Snapshot,
    Verb,
    next_action,
)
from penstock.components.serving.model_server.source import Versions
from penstock.components.serving.model_server.states import State, VersionState
from penstock.components.serving.model_server.status import Code, ServableError

_log = logging.getLogger(__name__)


class Loaded(Protocol):
    """What a load gives: something that can be freed."""

    def close(self) -> None:
        """Free it."""


Load = Callable[[str, int, Path], Loaded]
"""Loads a version of a model from a folder; raises ServableError if it cannot."""

Tell = Callable[[str, int, VersionState], None]
"""Is told of every new state of a version."""


@dataclass
class _Harness:
    """One version that is managed, aspired or not."""

    name: str
    version: int
    path: Path
    phase: Phase = Phase.NEW
    aspired: bool = True
    cancelled: bool = False
    servable: Loaded | None = None


@dataclass
class _ServingMap:
    """The loaded versions at one moment, and how many requests still look at them."""

    handles: dict[tuple[str, int | None], _Harness] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    replaced: bool = False
    idle: threading.Event = field(default_factory=threading.Event)


class Handle(AbstractContextManager["Handle"]):
    """Holds a loaded version for the time of one request.

    Attributes:
        version: Its number.
        servable: What was loaded.
    """

    __slots__ = ("_map", "servable", "version")

    def __init__(self, serving_map: _ServingMap, version: int, servable: Loaded):
        self._map = serving_map
        self.version = version
        self.servable = servable

    def __exit__(self, *_: object) -> None:
        serving_map = self._map
        with serving_map.lock:
            serving_map.users -= 1
            if serving_map.replaced and not serving_map.users:
                serving_map.idle.set()


class AspiredVersionsManager:
    """Brings what is loaded to what is aspired, one action at a time.

    A thread looks every tenth of a second at what is aspired and takes one action. With
    no load threads it loads in that thread itself, as TensorFlow Serving does by
    default: so while a load is retried nothing else is loaded, unloaded or noticed.
    Requests are answered all the time, from a map that is replaced as a whole; a
    replaced map waits for the requests that still look at it.
    """

    def __init__(
        self,
        load: Load,
        tell: Tell,
        *,
        num_load_threads: int = 0,
        num_unload_threads: int = 0,
        max_num_load_retries: int = 5,
        load_retry_interval_seconds: float = 60.0,
        interval_seconds: float = 0.1,
    ) -> None:
        """Manage nothing yet.

        Args:
            load: Loads a version.
            tell: Told of every new state, from any thread.
            num_load_threads: Threads that load; 0 loads in the manager's own thread.
            num_unload_threads: Threads that unload; 0 unloads in the manager's own.
            max_num_load_retries: How often a failed load is tried again.
            load_retry_interval_seconds: Time before each retry.
            interval_seconds: Time between two actions.
        """
        self._load = load
        self._tell = tell
        self._num_load_threads = num_load_threads
        self._retries = max_num_load_retries
        self._retry_seconds = max(load_retry_interval_seconds, 0.0)
        self._interval = interval_seconds
        self._managed: dict[str, dict[int, _Harness]] = {}
        self._lock = threading.RLock()  # guards _managed, and replaces of the map
        self._pending: dict[str, Versions] = {}
        self._pending_lock = threading.Lock()
        self._map = _ServingMap()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loaders = _pool(num_load_threads, "model-server-load")
        self._unloaders = _pool(num_unload_threads, "model-server-unload")

    # --- requests

    def handle(self, name: str, version: int | None) -> Handle:
        """Take a loaded version; leave the returned context to give it back.

        Args:
            name: Name of the model.
            version: Its version; None takes the highest one that is loaded.

        Raises:
            ServableError: It is not loaded.
        """
        while True:
            serving_map = self._map
            harness = serving_map.handles.get((name, version))
            with serving_map.lock:
                if serving_map.replaced:
                    continue  # between our two looks; the new map is there already
                if harness is not None and harness.servable is not None:
                    serving_map.users += 1
                    return Handle(serving_map, harness.version, harness.servable)
            which = f"Latest({name})"
            if version is not None:
                which = f"Specific({name}, {version})"
            raise ServableError(
                Code.NOT_FOUND, f"Servable not found for request: {which}"
            )

    def available(self) -> list[tuple[str, int]]:
        """Return the names and versions that requests can reach."""
        handles = self._map.handles
        return sorted((name, v) for name, v in handles if v is not None)

    # --- what is aspired

    def aspire(self, name: str, versions: Versions) -> None:
        """Take note of all the versions of a model that should be loaded."""
        with self._pending_lock:
            self._pending[name] = versions

    def set_load_threads(self, count: int) -> int:
        """Change the number of load threads, after the loads under way.

        Returns:
            The number until now.
        """
        before = self._num_load_threads
        with self._lock:
            old, self._loaders = self._loaders, _pool(count, "model-server-load")
            self._num_load_threads = count
        if old is not None:
            old.shutdown(wait=True)
        return before

    def start(self) -> None:
        """Start to act."""
        self._thread = threading.Thread(
            target=self._run, name="model-server-manager", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Act no more, and free everything once no request holds it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for pool in (self._loaders, self._unloaders):
            if pool is not None:
                pool.shutdown(wait=True)
        self._replace_map(lambda harness: False)
        for versions in self._managed.values():
            for harness in versions.values():
                if harness.servable is not None:
                    harness.servable.close()
                    harness.servable = None

    def step(self) -> None:
        """Do what the thread does once: forget, take note of aspirations, act."""
        self._forget()
        self._take_note()
        self._act()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.step()

    def _forget(self) -> None:
        over = (Phase.NEW, Phase.DISABLED, Phase.ERROR)
        with self._lock:
            for name, versions in list(self._managed.items()):
                for version, harness in list(versions.items()):
                    if harness.phase in over and not harness.aspired:
                        del versions[version]
                if not versions:
                    del self._managed[name]

    def _take_note(self) -> None:
        with self._lock, self._pending_lock:
            for name, wanted in list(self._pending.items()):
                known = self._managed.get(name, {})
                # A version that is wanted again while it is on its way out has to be
                # gone first. The whole list of the model waits for that, for ever if
                # it is the only one that serves.
                if any(
                    version in known and not known[version].aspired
                    for version, _ in wanted
                ):
                    continue
                del self._pending[name]
                self._aspire_now(name, dict(wanted))

    def _aspire_now(self, name: str, wanted: dict[int, Path]) -> None:
        versions = self._managed.setdefault(name, {})
        for version, harness in versions.items():
            if version not in wanted:
                harness.aspired = False
                harness.cancelled = True
        for version, path in wanted.items():
            if version not in versions:
                versions[version] = _Harness(name, version, path)
                self._tell(name, version, VersionState(State.START))

    def _act(self) -> None:
        chosen: tuple[Action, _Harness] | None = None
        with self._lock:
            for versions in self._managed.values():
                action = next_action(
                    [
                        Snapshot(harness.version, harness.phase, harness.aspired)
                        for harness in versions.values()
                    ]
                )
                if action is not None and (
                    chosen is None or action.verb.value < chosen[0].verb.value
                ):
                    chosen = action, versions[action.version]
            if chosen is None:
                return
            action, harness = chosen
            if action.verb is Verb.LOAD:
                harness.phase = Phase.LOADING
                pool, work = self._loaders, self._load_now
            else:
                harness.phase = Phase.UNLOADING
                pool, work = self._unloaders, self._unload_now
            if pool is not None:
                pool.submit(work, harness)
                return
        work(harness)

    # --- the actions

    def _load_now(self, harness: _Harness) -> None:
        self._tell(harness.name, harness.version, VersionState(State.LOADING))
        try:
            harness.servable = self._load_with_retries(harness)
        except ServableError as error:
            _log.error(
                "Servable {name: %s version: %d} cannot be loaded: %s",
                harness.name,
                harness.version,
                error.labelled,
            )
            harness.phase = Phase.ERROR
            self._tell(harness.name, harness.version, VersionState(State.END, error))
            return
        with self._lock:
            harness.phase = Phase.READY
            self._replace_map(lambda other: other.phase is Phase.READY)
        self._tell(harness.name, harness.version, VersionState(State.AVAILABLE))

    def _load_with_retries(self, harness: _Harness) -> Loaded:
        tries = 0
        while True:
            try:
                return self._load(harness.name, harness.version, harness.path)
            except ServableError as error:
                tries += 1
                # A retry can be called off before it starts to wait, not while it does.
                if tries > self._retries or harness.cancelled:
                    raise
                _log.error(
                    "Servable {name: %s version: %d} load failure: %s",
                    harness.name,
                    harness.version,
                    error.labelled,
                )
                if self._stopping.wait(self._retry_seconds):
                    raise

    def _unload_now(self, harness: _Harness) -> None:
        with self._lock:
            self._tell(harness.name, harness.version, VersionState(State.UNLOADING))
            # Waits, with the lock held, for the requests that still look at it.
            self._replace_map(lambda other: other.phase is Phase.READY)
        if harness.servable is not None:
            harness.servable.close()
            harness.servable = None
        harness.phase = Phase.DISABLED
        self._tell(harness.name, harness.version, VersionState(State.END))

    def _replace_map(self, serves: Callable[[_Harness], bool]) -> None:
        handles: dict[tuple[str, int | None], _Harness] = {}
        for name, versions in self._managed.items():
            ready = sorted(v for v, harness in versions.items() if serves(harness))
            for version in ready:
                handles[name, version] = versions[version]
            if ready:
                handles[name, None] = versions[ready[-1]]
        old, self._map = self._map, _ServingMap(handles)
        with old.lock:
            old.replaced = True
            busy = old.users > 0
        if busy:
            old.idle.wait()


def _pool(threads: int, name: str) -> ThreadPoolExecutor | None:
    return ThreadPoolExecutor(threads, name) if threads else None
