"""Conformance: loading, unloading, retries, handles and states.

Every case names what it mirrors in TensorFlow Serving's core/basic_manager_test.cc or
core/aspired_versions_manager_test.cc. As there, the manager's thread is not started:
each step is taken by hand; and as there, cases run without and with thread pools.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.components.serving.model_server.manager import AspiredVersionsManager
from penstock.components.serving.model_server.states import (
    State,
    StateMonitor,
    VersionState,
)
from penstock.components.serving.model_server.status import Code, ServableError


class Fake:
    """A servable that knows its version and whether it was freed."""

    def __init__(self, version: int, on_close: Callable[[], object] = lambda: None):
        self.version = version
        self.closed_by: threading.Thread | None = None
        self._on_close = on_close

    def close(self) -> None:
        self._on_close()
        self.closed_by = threading.current_thread()


class World:
    """A manager, what its loads do, and what it told."""

    def __init__(self, threads: int, retries: int = 1) -> None:
        self.monitor = StateMonitor()
        self.told: list[tuple[str, int, State]] = []
        self.loads: list[tuple[str, int]] = []
        self.failures: dict[tuple[str, int], list[ServableError]] = {}
        self.at_load: Callable[[str, int], object] = lambda name, version: None
        self.fakes: dict[tuple[str, int], Fake] = {}
        self.at_close: Callable[[], object] = lambda: None
        self.manager = AspiredVersionsManager(
            self._load,
            self._tell,
            num_load_threads=threads,
            num_unload_threads=threads,
            max_num_load_retries=retries,
            load_retry_interval_seconds=0,
        )

    def _load(self, name: str, version: int, path: Path) -> Fake:
        self.loads.append((name, version))
        self.at_load(name, version)
        failures = self.failures.get((name, version))
        if failures:
            raise failures.pop(0) if len(failures) > 1 else failures[0]
        self.fakes[name, version] = Fake(version, self.at_close)
        return self.fakes[name, version]

    def _tell(self, name: str, version: int, state: VersionState) -> None:
        self.told.append((name, version, state.state))
        self.monitor.tell(name, version, state)

    def aspire(self, name: str, *versions: int) -> None:
        self.manager.aspire(name, [(version, Path(name)) for version in versions])

    def take_note(self) -> None:
        self.manager._take_note()

    def act(self, times: int = 1) -> None:
        for _ in range(times):
            self.manager._act()

    def state(self, name: str, version: int) -> State | None:
        found = self.monitor.versions(name).get(version)
        return found.state if found else None

    def reaches(self, name: str, version: int, state: State) -> None:
        while self.state(name, version) is not state:
            time.sleep(0.002)

    def settle(self, name: str, *versions: int) -> None:
        """Aspire versions and take steps until they are all available."""
        self.aspire(name, *versions)
        while {v for n, v in self.manager.available() if n == name} != set(versions):
            self.manager.step()
            time.sleep(0.002)

    def latest(self, name: str) -> int:
        with self.manager.handle(name, None) as held:
            return held.version


@pytest.fixture(params=[0, 4], ids=["inline", "threads"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Versions 0 and 1 of 'a' and of 'b' are loaded."""
    made = World(request.param)
    made.settle("a", 0, 1)
    made.settle("b", 0, 1)
    made.loads.clear()
    made.told.clear()
    yield made
    made.manager.stop()


def failure(text: str = "An error.") -> ServableError:
    return ServableError(Code.INTERNAL, text)


def missing(world: World, name: str, version: int | None) -> str:
    with pytest.raises(ServableError) as error:
        world.manager.handle(name, version)
    assert error.value.code is Code.NOT_FOUND
    return error.value.message


def test_servable_handle_not_found_missing_loader_name(world: World) -> None:
    """basic_manager_test.cc ServableHandleNotFoundMissingLoaderName"""
    assert missing(world, "amissing", None) == (
        "Servable not found for request: Latest(amissing)"
    )


def test_servable_handle_not_found_missing_version(world: World) -> None:
    """basic_manager_test.cc ServableHandleNotFoundMissingVersion"""
    assert missing(world, "a", 100) == (
        "Servable not found for request: Specific(a, 100)"
    )


def test_servable_handle_latest(world: World) -> None:
    """aspired_versions_manager_test.cc ServableHandleLatest"""
    world.aspire("a", 3)
    world.take_note()
    world.act(3)
    world.reaches("a", 3, State.AVAILABLE)
    assert world.latest("a") == 3


def test_servable_handle_latest_version_is_zero(world: World) -> None:
    """aspired_versions_manager_test.cc ServableHandleLatestVersionIsZero"""
    world.aspire("c", 0)
    world.take_note()
    world.act()
    world.reaches("c", 0, State.AVAILABLE)
    assert world.latest("c") == 0


def test_servable_handle_specific_version(world: World) -> None:
    """aspired_versions_manager_test.cc ServableHandleSpecificVersion"""
    with world.manager.handle("b", 0) as held:
        assert isinstance(held.servable, Fake)
        assert held.servable.version == 0


def test_list_available_servable_ids(world: World) -> None:
    """aspired_versions_manager_test.cc ListAvailableServableIds"""
    assert world.manager.available() == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    world.failures["a", 7] = [failure()]
    world.aspire("a", 7)
    world.take_note()
    world.act(3)
    world.reaches("a", 7, State.END)
    world.aspire("a")
    world.take_note()
    world.act(3)
    world.reaches("a", 0, State.END)
    world.reaches("a", 1, State.END)
    assert world.manager.available() == [("b", 0), ("b", 1)]


def test_aspired_removed_full(world: World) -> None:
    """aspired_versions_manager_test.cc AspiredRemovedFull"""
    world.aspire("a")
    world.take_note()
    world.act(2)
    world.reaches("a", 0, State.END)
    world.reaches("a", 1, State.END)
    world.manager._forget()
    assert "a" not in world.manager._managed
    assert world.fakes["a", 0].closed_by and world.fakes["a", 1].closed_by
    missing(world, "a", None)


def test_aspired_removed_partial(world: World) -> None:
    """aspired_versions_manager_test.cc AspiredRemovedPartial"""
    world.aspire("a", 0)
    world.take_note()
    world.act()
    world.reaches("a", 1, State.END)
    assert world.latest("a") == 0
    missing(world, "a", 1)


def test_revert_to_smaller_version_number(world: World) -> None:
    """aspired_versions_manager_test.cc RevertToSmallerVersionNumber"""
    world.settle("a", 1)
    world.settle("a", 0)
    assert world.latest("a") == 0
    missing(world, "a", 1)


def test_aspired_and_manage_state_load(world: World) -> None:
    """aspired_versions_manager_test.cc AspiredAndManageStateLoad"""
    missing(world, "a", 2)
    world.aspire("a", 2)
    world.take_note()
    missing(world, "a", 2)
    world.act(3)
    world.reaches("a", 2, State.AVAILABLE)
    with world.manager.handle("a", 2) as held:
        assert held.version == 2


def test_manager_prefers_unload_over_load(world: World) -> None:
    """aspired_versions_manager_test.cc ManagerPrefersUnloadOverLoad"""
    world.aspire("a", 1)
    world.aspire("b", 0, 1, 2)
    world.take_note()
    world.act()
    world.reaches("a", 0, State.END)
    missing(world, "a", 0)
    missing(world, "b", 2)
    world.act()
    world.reaches("b", 2, State.AVAILABLE)


def test_event_bus_error_on_load(world: World) -> None:
    """aspired_versions_manager_test.cc EventBusErrorOnLoad"""
    world.failures["a", 7] = [failure("Error on load.")]
    world.aspire("a", 7)
    world.take_note()
    assert world.state("a", 7) is State.START
    world.act(3)
    world.reaches("a", 7, State.END)
    error = world.monitor.versions("a")[7].error
    assert error is not None
    assert (error.code, error.message) == (Code.INTERNAL, "Error on load.")


def test_event_bus_servable_lifecycle(world: World) -> None:
    """aspired_versions_manager_test.cc EventBusServableLifecycle"""
    world.aspire("c", 7)
    world.take_note()
    world.act()
    world.reaches("c", 7, State.AVAILABLE)
    world.aspire("c")
    world.take_note()
    world.act()
    world.reaches("c", 7, State.END)
    assert [state for name, _, state in world.told if name == "c"] == [
        State.START,
        State.LOADING,
        State.AVAILABLE,
        State.UNLOADING,
        State.END,
    ]
    assert world.monitor.versions("c")[7].error is None


def test_retry_on_load_error_finally_succeeds(world: World) -> None:
    """aspired_versions_manager_test.cc RetryOnLoadErrorFinallySucceeds"""

    def fails_once(name: str, version: int) -> None:
        if world.loads.count((name, version)) == 1:
            raise failure("Error on load.")

    world.at_load = fails_once
    world.aspire("c", 7)
    world.take_note()
    world.act()
    world.reaches("c", 7, State.AVAILABLE)
    assert world.loads == [("c", 7), ("c", 7)]


def test_retry_on_load_error_finally_fails(world: World) -> None:
    """aspired_versions_manager_test.cc RetryOnLoadErrorFinallyFails"""
    world.failures["c", 7] = [failure("Error on load.")]
    world.aspire("c", 7)
    world.take_note()
    world.act()
    world.reaches("c", 7, State.END)
    assert world.loads == [("c", 7), ("c", 7)]  # once more than it is retried


def test_retry_on_load_error_cancelled() -> None:
    """loader_harness_test.cc RetryOnLoadErrorCancelledLoad"""
    world = World(1, retries=10)
    reached, go_on = threading.Event(), threading.Event()

    def fails(name: str, version: int) -> None:
        reached.set()
        go_on.wait(60)
        raise failure()

    world.at_load = fails
    world.aspire("c", 7)
    world.take_note()
    world.act()
    assert reached.wait(60)
    world.aspire("c")  # calls the retries off
    world.take_note()
    go_on.set()
    world.reaches("c", 7, State.END)
    assert world.loads == [("c", 7)]
    world.manager.stop()


def test_an_erroneous_version_is_not_tried_again(world: World) -> None:
    """aspired_versions_manager.h enable_reload_servables_with_error (off)"""
    world.failures["c", 7] = [failure()]
    world.aspire("c", 7)
    world.take_note()
    world.act()
    world.reaches("c", 7, State.END)
    tries = len(world.loads)
    del world.failures["c", 7]
    for _ in range(5):
        world.aspire("c", 7)
        world.manager.step()
    assert len(world.loads) == tries
    # It has to be unwanted in between.
    world.aspire("c")
    world.manager.step()
    world.manager.step()
    world.settle("c", 7)


def test_aspire_error_dont_unload(world: World) -> None:
    """aspired_versions_manager_test.cc AspireErrorDontUnload"""
    world.failures["a", 7] = [failure()]
    world.aspire("a", 7)
    world.take_note()
    world.act()
    world.reaches("a", 0, State.END)
    world.act()
    world.reaches("a", 7, State.END)
    for _ in range(3):
        world.manager.step()
    assert world.manager.available() == [("a", 1), ("b", 0), ("b", 1)]
    world.settle("a", 8)
    assert world.latest("a") == 8


def test_unaspire_then_immediately_reaspire(world: World) -> None:
    """aspired_versions_manager_test.cc UnaspireThenImmediatelyReaspire"""
    world.settle("c", 7)
    first = world.fakes["c", 7]
    held = world.manager.handle("c", 7)
    world.aspire("c")
    world.take_note()
    unload = threading.Thread(target=world.act)  # waits for the handle
    unload.start()
    world.reaches("c", 7, State.UNLOADING)
    world.aspire("c", 7)
    assert first.closed_by is None
    assert len(world.loads) == 1
    held.__exit__(None, None, None)
    unload.join()
    while len(world.loads) < 2:
        world.manager.step()
    assert first.closed_by is not None
    world.reaches("c", 7, State.AVAILABLE)
    assert world.fakes["c", 7] is not first


def test_unaspire_failed_servable_then_immediately_reaspire(world: World) -> None:
    """aspired_versions_manager_test.cc UnaspireFailedServableThenImmediatelyReaspire"""
    world.failures["c", 7] = [failure("first load failing")]
    world.aspire("c", 7)
    world.take_note()
    world.act()
    world.reaches("c", 7, State.END)
    tries = len(world.loads)
    world.aspire("c")
    world.take_note()
    del world.failures["c", 7]
    world.aspire("c", 7)
    for _ in range(5):  # without forgetting the first, nothing happens
        world.take_note()
        world.act()
    assert len(world.loads) == tries
    world.manager._forget()
    world.take_note()
    world.act()
    world.reaches("c", 7, State.AVAILABLE)


def test_unaspire_new_servable_then_immediately_reaspire(world: World) -> None:
    """aspired_versions_manager_test.cc UnaspireNewServableThenImmediatelyReaspire"""
    world.aspire("c", 7)
    world.take_note()
    world.aspire("c")
    world.take_note()
    world.aspire("c", 7)
    world.take_note()
    assert not world.loads
    world.manager._forget()
    world.take_note()
    world.act()
    world.reaches("c", 7, State.AVAILABLE)
    assert world.loads == [("c", 7)]


def test_a_version_that_alone_serves_is_never_reaspired() -> None:
    """aspired_versions_manager.cc HandlePendingAspiredVersionsRequests (sits on it)"""
    # {42}, then {43} which fails, then {42} again: 42 serves on, but is not wanted, so
    # the list that wants it waits for ever, and 43 is never given up.
    world = World(0, retries=0)
    world.settle("m", 42)
    world.failures["m", 43] = [failure()]
    world.aspire("m", 43)
    world.manager.step()
    assert world.state("m", 43) is State.END
    world.aspire("m", 42)
    for _ in range(10):
        world.manager.step()
    assert world.manager.available() == [("m", 42)]
    assert not world.manager._managed["m"][42].aspired
    assert world.manager._managed["m"][43].aspired
    world.settle("m", 44)  # the way out is a new number
    world.manager.stop()


def test_destruct_on_non_serving_thread(world: World) -> None:
    """aspired_versions_manager_test.cc DestructOnNonServingThread"""
    held = world.manager.handle("a", 0)
    world.aspire("a")
    world.take_note()
    unload = threading.Thread(target=lambda: world.act(2))
    unload.start()
    # Whichever of both is first holds up the other, too.
    while State.UNLOADING not in (world.state("a", 0), world.state("a", 1)):
        time.sleep(0.002)
    assert world.fakes["a", 0].closed_by is None  # in-flight requests are waited for
    held.__exit__(None, None, None)
    unload.join()
    world.reaches("a", 0, State.END)
    assert world.fakes["a", 0].closed_by is not threading.current_thread()


def test_update_serving_map_servable_handle_latest() -> None:
    """basic_manager_test.cc UpdateServingMapServableHandleLatest"""
    world = World(1)
    started, finish = threading.Event(), threading.Event()

    def close() -> None:
        started.set()
        finish.wait(60)

    world.settle("c", 0)
    world.at_close = close
    world.settle("c", 0, 1)
    assert world.latest("c") == 1
    world.aspire("c", 0)
    world.take_note()
    world.act()
    assert started.wait(60)
    assert world.latest("c") == 0  # while the other is still being freed
    finish.set()
    world.reaches("c", 1, State.END)
    world.manager.stop()


def test_requests_are_answered_while_a_load_is_retried() -> None:
    """basic_manager.h (serving reads a map that no load or unload locks)"""
    world = World(0, retries=3)
    world.settle("a", 1)
    loading, go_on = threading.Event(), threading.Event()

    def blocks(name: str, version: int) -> None:
        loading.set()
        go_on.wait(60)

    world.at_load = blocks
    world.aspire("a", 1, 2)
    world.take_note()
    inline = threading.Thread(target=world.act)
    inline.start()
    assert loading.wait(60)
    assert world.latest("a") == 1
    # In the manager's own thread, nothing else happens meanwhile.
    world.aspire("b", 1)
    assert world.state("b", 1) is None
    go_on.set()
    inline.join()
    assert world.latest("a") == 2
    world.manager.stop()


def test_loads_then_unloads() -> None:
    """basic_manager_test.cc LoadsThenUnloads"""
    world = World(4)
    world.settle("c", *range(20))
    world.settle("c")
    assert world.manager.available() == []
    for version in range(20):
        world.reaches("c", version, State.END)
    world.manager.stop()


def test_thread_pool_swapped() -> None:
    """basic_manager_test.cc SetNumLoadThreadsBasicManagerTest ThreadPoolSwapped"""
    world = World(0)
    loaders: list[str] = []
    world.at_load = lambda *_: loaders.append(threading.current_thread().name)
    assert world.manager.set_load_threads(2) == 0
    world.settle("c", 0)
    assert world.manager.set_load_threads(0) == 2
    world.settle("c", 1)
    assert loaders[0].startswith("model-server-load")
    assert loaders[1] == threading.current_thread().name
    world.manager.stop()


def test_loads_of_several_models_run_together_in_threads() -> None:
    """basic_manager_test.cc (num_load_threads) and server.h num_load_threads"""
    world = World(2)
    both = threading.Barrier(2)
    world.at_load = lambda *_: both.wait(60)
    world.aspire("a", 1)
    world.aspire("b", 1)
    world.take_note()
    world.act(2)
    world.reaches("a", 1, State.AVAILABLE)
    world.reaches("b", 1, State.AVAILABLE)
    world.manager.stop()
