"""One execution: resolve, gate, register, prepare, run, commit, record.

Both runners share this one function, `execute`. Of all its lines one is the
component's own; the rest is bookkeeping.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from penstock.components.base import Canceled, Component, RunContext
from penstock.pipelines import cache, logs
from penstock.pipelines.code import Code
from penstock.pipelines.commit import Commit, Places
from penstock.pipelines.disk import sync_folder
from penstock.pipelines.encoding import encoded
from penstock.pipelines.failures import sentence_of
from penstock.pipelines.fingerprint import Fingerprint, fingerprint_of
from penstock.pipelines.inputs import resolvers_of
from penstock.pipelines.metadata import State, Store, traceback_tail
from penstock.pipelines.repair import repair
from penstock.pipelines.resolution import gate, resolve
from penstock.schemas.artifacts import (
    Answer,
    Artifact,
    ExternalArtifact,
    PropertyValue,
)
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import ComponentFailed, PenstockError

CAUSE = "penstock_cause"
"""The input key of what a run was started for; no component reads it."""


@dataclasses.dataclass(eq=False)
class Execution:
    """One component in one run: how it stands, or how it ended.

    Attributes:
        component: Name of the component.
        state: How it stands.
        reason: Why it was skipped, canceled or failed.
        answer: What the verdict said that stopped it or, through another component,
            made it be skipped.
        id: Its number in the store.
        seconds: How long it took.
        cpu_seconds: Processor time it used, with that of components beside it if
            `shared`.
        peak_memory_bytes: The most memory that its process held, likewise.
        attempts: How often it was run, with the last time.
        shared: Whether other components ran in the same process at the same time.
        rows: Rows that it reported as handled.
        inputs: The artifacts it read, by input name.
        outputs: The artifacts it wrote, by output name.
        error: What it failed with.
        log: The file with all it printed and logged.
        fingerprint: What it depends on; None if it was not about to run.
        resolvers: What found its inputs, as properties to record.
    """

    component: str
    state: State = State.RUNNING
    reason: str = ""
    answer: Answer | None = None
    id: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    attempts: int = 0
    shared: bool = False
    rows: int = 0
    inputs: dict[str, tuple[Artifact, ...]] = dataclasses.field(default_factory=dict)
    outputs: dict[str, Artifact] = dataclasses.field(default_factory=dict)
    error: ComponentFailed | None = None
    log: Path | None = None
    fingerprint: Fingerprint | None = None
    resolvers: dict[str, str] = dataclasses.field(default_factory=dict)


class ActiveRun:
    """What the executions of one run share.

    Args:
        pipeline: Name of the pipeline.
        run_id: Id of the run.
        root: Folder that artifacts, logs and locks lie in.
        store: The lineage store.
        beam_args: Beam options for the pipelines that components open.
        codes: The code that each component reaches, by its name.
        taken: What is taken from another run, by the component's name.
        forced: Names of the components that run whatever was run before.
        names: Names of the components that the run is about.
        on_change: Called with an execution when it starts, advances or ends.
        cause: What the run was started for; None if somebody just ran it.
    """

    def __init__(
        self,
        *,
        pipeline: str,
        run_id: str,
        root: Path,
        store: Store,
        beam_args: tuple[str, ...],
        codes: Mapping[str, Code],
        taken: Mapping[str, cache.Hit],
        forced: Collection[str],
        names: Collection[str],
        on_change: Callable[[Execution], None],
        cause: Artifact | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self.root = root
        self.store = store
        self.beam_args = beam_args
        self.codes = codes
        self.taken = taken
        self.forced = forced
        self.names = names
        self.on_change = on_change
        self.cause = cause
        self.executions: dict[str, Execution] = {}
        self.failures: list[ComponentFailed] = []  # in the order they happened
        self.canceled = threading.Event()
        self.is_unrecorded = False  # whether a cancel could not be recorded
        self.lock = threading.RLock()
        self.children: set[subprocess.Popen[bytes]] = set()
        self.temporary: dict[int, list[Path]] = {}
        self.measured: list[Execution] = []  # that run in this process now
        self.threads: set[int] = set()  # those that are inside a component's run
        self.started: dict[int, float] = {}

    @property
    def folder(self) -> Path:
        """The run's own folder, with its logs; locked while the run lives."""
        return self.root / ".penstock" / "runs" / self.run_id

    def check_canceled(self) -> None:
        """Raise Canceled if the run was canceled."""
        if self.canceled.is_set():
            raise Canceled

    def begin(
        self,
        live: Component,
        execution: Execution,
        external: tuple[ExternalArtifact, ...] = (),
        *,
        state: State = State.RUNNING,
        hit: cache.Hit | None = None,
    ) -> int:
        """Record that an execution began, or how it ended at once; return its number.

        Args:
            live: The component.
            execution: Its inputs, its reason and its fingerprint are recorded.
            external: What it reads from outside the pipeline.
            state: RUNNING, SKIPPED or CACHED.
            hit: Of a cached one, what it stands for.
        """
        properties: dict[str, PropertyValue] = {**execution.resolvers}
        if execution.reason:
            properties["reason"] = execution.reason
        if execution.fingerprint is not None:
            properties["penstock_fingerprint"] = execution.fingerprint.digest
            properties["penstock_parts"] = execution.fingerprint.text
        if state is State.RUNNING and live.isolated:
            folder = self.codes[live.name].folder
            # Imported here: it imports `child`, which a process may be started with.
            from penstock.pipelines import environment

            properties.update(environment.capture(self.root, self.folder, folder))
        inputs = execution.inputs
        if state is State.RUNNING:
            properties["penstock_parameters"] = json.dumps(
                {key: encoded(each) for key, each in live.parameters.items()}
            )
            if self.cause is not None and not self._has_new(inputs):
                # All else that the run makes comes from what these make.
                inputs = {**inputs, CAUSE: (self.cause,)}
        if hit is not None:
            properties["penstock_cached_execution"] = hit.execution.id
            properties["penstock_seconds"] = 0.0
        return self.store.begin_execution(
            live,
            pipeline=self.pipeline,
            run_id=self.run_id,
            inputs=inputs,
            external=external,
            state=state,
            properties=properties,
            outputs=None if hit is None else hit.outputs,
        )

    def _has_new(self, inputs: Mapping[str, tuple[Artifact, ...]]) -> bool:
        """Return whether something among inputs was made by this run."""
        with self.lock:
            made = {
                artifact.id
                for each in self.executions.values()
                if each.state is State.COMPLETE
                for artifact in each.outputs.values()
            }
        return any(each.id in made for given in inputs.values() for each in given)

    def cancel(self, reason: str) -> None:
        """Stop components, kill children, remove temporary folders, record CANCELED.

        Raises:
            MetadataError: If the store cannot be written now.
        """
        # Set before the lock is taken: who holds it may be waiting for the store.
        self.canceled.set()
        self.store.wait_seconds = min(self.store.wait_seconds, 0.5)
        for thread in list(self.threads):
            _raise_in(thread, Canceled)
        with self.lock:
            for child in self.children:
                kill(child)
            canceled = []
            for execution in self.executions.values():
                if execution.state is State.RUNNING and execution.id is not None:
                    execution.state = State.CANCELED
                    execution.reason = reason
                    execution.seconds = time.time() - self.started[execution.id]
                    _remove(self.temporary.get(execution.id, []))
                    canceled.append(execution)
            for execution in canceled:
                assert execution.id is not None
                self.store.end_execution(
                    execution.id, State.CANCELED, measured(execution)
                )
                self.on_change(execution)


def execute(component: Component, run: ActiveRun) -> Execution:
    """Run one component of a run, or skip it; record what happened; never raise.

    Args:
        component: The component as the pipeline lists it.
        run: The run it belongs to; the components it waits for have been executed.

    Returns:
        How it ended.
    """
    execution = Execution(component.name, log=run.folder / f"{component.name}.log")
    with run.lock:
        run.executions[component.name] = execution
    if run.canceled.is_set():
        execution.state, execution.reason = State.CANCELED, "The run was canceled."
        return execution
    started = time.time()
    assert execution.log is not None
    try:
        with logs.kept_in(execution.log):
            try:
                with ExitStack() as held:
                    found = _look_up(component, run, execution, held)
                    if isinstance(found, _Ready):
                        _execute(found, run, execution, started)
            except BaseException as error:
                # What fails after a cancel, because its folders are gone, was canceled.
                if not run.canceled.is_set():
                    _record_failed(component, run, execution, error, started)
                elif execution.state is State.RUNNING:
                    execution.state = State.CANCELED
                    execution.reason = "The run was canceled."
    except OSError as error:
        # Its log cannot be written. What ended before that stays as it ended.
        if execution.state is State.RUNNING:
            _record_failed(component, run, execution, error, started)
    execution.seconds = execution.seconds or time.time() - started
    run.on_change(execution)
    return execution


@dataclasses.dataclass(frozen=True)
class _Ready:
    """A component that is about to run, with facts for inputs."""

    live: Component
    external: tuple[ExternalArtifact, ...]


def _look_up(
    component: Component, run: ActiveRun, execution: Execution, held: ExitStack
) -> _Ready | None:
    """Skip a component, take what was written earlier, or make it ready to run.

    From the look-up on, no other execution with the same fingerprint runs, until what
    is held is let go.
    """
    if component.name in run.taken:
        hit = run.taken[component.name]
        execution.inputs = dict(hit.execution.inputs)
        _take(component, run, execution, hit)
        return None
    execution.resolvers = resolvers_of(component)
    live = resolve(component, run.pipeline, run.store, run.executions)
    execution.inputs = {
        name: tuple(artifact for artifact in artifacts if not artifact.is_promise)
        for name, artifacts in live.inputs.items()
    }
    closed = gate(live, run.store, run.executions)
    if closed is not None:
        execution.state, execution.answer = State.SKIPPED, closed.answer
        execution.reason = closed.reason
        execution.id = run.begin(live, execution, state=State.SKIPPED)
        return None
    external = live.external_inputs()
    code = run.codes[component.name]
    execution.fingerprint = fingerprint_of(live, external, code)
    held.enter_context(
        cache.only_one(run.root, execution.fingerprint, run.check_canceled)
    )
    # Whoever did the same may have been killed since this run began.
    repair(run.root, run.store)
    if component.name not in run.forced:
        found = cache.find(run.store, live, execution.fingerprint)
        if isinstance(found, cache.Hit):
            _take(live, run, execution, found, external)
            return None
    return _Ready(live, external)


def _take(
    live: Component,
    run: ActiveRun,
    execution: Execution,
    hit: cache.Hit,
    external: tuple[ExternalArtifact, ...] = (),
) -> None:
    """Record that outputs of an earlier execution stand for this one."""
    with run.lock:
        run.check_canceled()
        execution.id = run.begin(live, execution, external, state=State.CACHED, hit=hit)
        execution.outputs = dict(hit.outputs)
        execution.state = State.CACHED


def _execute(
    ready: _Ready, run: ActiveRun, execution: Execution, started: float
) -> None:
    """Register, prepare, run, commit."""
    live = ready.live
    with run.lock:
        run.check_canceled()
        execution.id = run.begin(live, execution, ready.external)
        run.started[execution.id] = started
    run.on_change(execution)
    places = Places(run.root / run.pipeline / live.name, run.run_id, live.outputs)
    run.temporary[execution.id] = places.temporary
    attempts = 1 + (live.options.retries.times if live.options.retries else 0)
    try:
        while True:
            execution.attempts += 1
            live, context = _prepared(ready, run, execution, places)
            try:
                if live.isolated or live.options.timeout_seconds is not None:
                    from penstock.pipelines.child import run_in_child

                    run_in_child(live, context, run, execution)
                else:
                    with _measuring(execution, run), _interruptible(run):
                        live.run(context)
                break
            except Exception as error:
                if execution.attempts == attempts or not _is_retried(live, error):
                    raise
                _wait_to_retry(live, run, execution, error)
                _remove(places.temporary)
        _commit(live, run, execution, places, started)
    finally:
        _remove(run.temporary.pop(execution.id, []))


def _prepared(
    ready: _Ready, run: ActiveRun, execution: Execution, places: Places
) -> tuple[Component, RunContext]:
    """Make folders for a component; return it with its outputs, and its context."""
    places.make()
    outputs = {
        key: type(promise)(places.staged[key], source=promise.source)
        for key, promise in ready.live.outputs.items()
    }
    context = RunContext(
        run_id=run.run_id,
        temp_dir=places.temp_dir,
        beam_args=run.beam_args,
        external_inputs=ready.external,
        on_progress=_progress(run, execution),
    )
    return ready.live.bound({}, outputs), context


def _is_retried(live: Component, error: Exception) -> bool:
    assert live.options.retries is not None
    kinds = getattr(error, "type_names", None)  # of what a child process raised
    if kinds is None:
        return isinstance(error, live.options.retries.on)
    return any(
        f"{kind.__module__}.{kind.__qualname__}" in kinds
        for kind in live.options.retries.on
    )


def _wait_to_retry(
    live: Component, run: ActiveRun, execution: Execution, error: Exception
) -> None:
    assert live.options.retries is not None
    seconds = live.options.retries.backoff_seconds * 2 ** (execution.attempts - 1)
    logging.getLogger("penstock").warning(
        "Attempt %d of '%s' failed and is made again in %g s: %s",
        execution.attempts,
        live.name,
        seconds,
        sentence_of(live, error),
    )
    if run.canceled.wait(seconds):
        raise Canceled


def _progress(run: ActiveRun, execution: Execution) -> Callable[[int], None]:
    def progress(rows: int) -> None:
        execution.rows += rows
        if run.canceled.is_set():
            raise Canceled
        run.on_change(execution)

    return progress


def _commit(
    live: Component,
    run: ActiveRun,
    execution: Execution,
    places: Places,
    started: float,
) -> None:
    """Make the outputs facts: digest, fsync, rename, then one store transaction.

    What is to be committed is written down first, so that the next run can finish what
    a kill interrupts.
    """
    for artifact in live.outputs.values():
        artifact.digest = folder_digest(artifact.path)
        sync_folder(artifact.path)
    assert execution.fingerprint is not None and execution.id is not None
    with run.lock:
        run.check_canceled()
        execution.seconds = time.time() - started
        commit = Commit(
            execution_id=execution.id,
            component=live.name,
            fingerprint=execution.fingerprint.digest,
            outputs=live.outputs,
            properties=measured(execution),
        )
        try:
            commit.write(run.folder)
            commit = commit.placed(places.reveal(execution.id))
            commit.record(run.store, run.pipeline, run.run_id)
        except BaseException:
            places.withdraw(execution.id)
            commit.forget(run.folder)
            raise
        commit.forget(run.folder)
        execution.outputs = dict(commit.outputs)
        execution.state = State.COMPLETE


def _record_failed(
    component: Component,
    run: ActiveRun,
    execution: Execution,
    error: BaseException,
    started: float,
) -> None:
    """Record why a component failed, and keep the failure for the run to raise."""
    message = sentence_of(component, error, execution.attempts)
    told_by_child = getattr(error, "traceback_text", "")
    text = told_by_child or "".join(traceback.format_exception(error))
    kind = getattr(error, "type_name", "") or type(error).__name__
    failed = ComponentFailed(message, component=component.name, run_id=run.run_id)
    failed.__cause__ = error
    execution.state, execution.reason, execution.error = State.FAILED, message, failed
    run.failures.append(failed)
    execution.seconds = time.time() - started
    if execution.log is not None and not told_by_child:
        # On a full disk the store still keeps the end of it.
        with suppress(OSError), open(execution.log, "a", encoding="utf-8") as log:
            log.write(text)
    properties = {
        **measured(execution),
        "penstock_exception": kind,
        "penstock_message": getattr(error, "message_text", "") or str(error),
        "penstock_traceback": traceback_tail(text),
    }
    try:
        if execution.id is None:
            execution.id = run.begin(component, execution)
        run.store.end_execution(execution.id, State.FAILED, properties)
    except PenstockError as unrecorded:
        execution.reason = f"{message} It could not be recorded: {unrecorded}"


@contextmanager
def _measuring(execution: Execution, run: ActiveRun) -> Iterator[None]:
    """Measure processor time and sample the memory of this process meanwhile."""
    stop = threading.Event()
    before = time.process_time()
    with run.lock:
        run.measured.append(execution)
        for each in run.measured:
            each.shared = each.shared or len(run.measured) > 1

    def sample() -> None:
        while True:
            execution.peak_memory_bytes = max(
                execution.peak_memory_bytes, _memory_bytes()
            )
            if stop.wait(0.05):
                return

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield
    finally:
        stop.set()
        sampler.join()
        with run.lock:
            run.measured.remove(execution)
        execution.cpu_seconds = time.process_time() - before


@contextmanager
def _interruptible(run: ActiveRun) -> Iterator[None]:
    """Let a cancel stop this thread meanwhile, even if it only computes."""
    thread = threading.get_ident()
    run.threads.add(thread)
    try:
        yield
    finally:
        run.threads.discard(thread)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise in another thread as soon as it is back in Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error)
    )


def _memory_bytes() -> int:
    """Return the memory that this process holds now (Linux), or has held at most."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(execution: Execution) -> dict[str, Any]:
    """Return what was measured of an execution, as properties."""
    properties: dict[str, Any] = {
        "penstock_seconds": execution.seconds,
        "penstock_cpu_seconds": execution.cpu_seconds,
        "penstock_peak_memory_bytes": execution.peak_memory_bytes,
        "penstock_shared": int(execution.shared),
        "penstock_rows": execution.rows,
    }
    if execution.attempts > 1:
        properties["penstock_attempts"] = execution.attempts
    if execution.reason:
        properties["reason"] = execution.reason
    return properties


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a child and whatever it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
