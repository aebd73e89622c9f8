"""One execution: resolve, gate, register, prepare, run, commit, record.

Both runners share this one function, `execute`. Of all its lines one is the
component's own; the rest is bookkeeping.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from penstock.components.base import (
    Canceled,
    Component,
    Input,
    Promise,
    RunContext,
    declared,
)
from penstock.pipelines import logs, overrides
from penstock.pipelines.disk import sync, sync_folder
from penstock.pipelines.metadata import State, Store, traceback_tail
from penstock.pipelines.rules import producers
from penstock.schemas.artifacts import Answer, Artifact, ModelBlessing, Verdict
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import ComponentFailed, DataError, PenstockError


@dataclasses.dataclass
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
        shared: Whether other components ran in the same process at the same time.
        rows: Rows that it reported as handled.
        inputs: The artifacts it read, by input name.
        outputs: The artifacts it wrote, by output name.
        error: What it failed with.
        log: The file with all it printed and logged.
    """

    component: str
    state: State = State.RUNNING
    reason: str = ""
    answer: Answer | None = None
    id: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    shared: bool = False
    rows: int = 0
    inputs: dict[str, tuple[Artifact, ...]] = dataclasses.field(default_factory=dict)
    outputs: dict[str, Artifact] = dataclasses.field(default_factory=dict)
    error: ComponentFailed | None = None
    log: Path | None = None


class ActiveRun:
    """What the executions of one run share.

    Args:
        pipeline: Name of the pipeline.
        run_id: Id of the run.
        root: Folder that artifacts, logs and locks lie in.
        store: The lineage store.
        beam_args: Beam options for the pipelines that components open.
        on_change: Called with an execution when it starts, advances or ends.
    """

    def __init__(
        self,
        *,
        pipeline: str,
        run_id: str,
        root: Path,
        store: Store,
        beam_args: tuple[str, ...],
        on_change: Callable[[Execution], None],
    ) -> None:
        self.pipeline = pipeline
        self.run_id = run_id
        self.root = root
        self.store = store
        self.beam_args = beam_args
        self.on_change = on_change
        self.executions: dict[str, Execution] = {}
        self.failures: list[ComponentFailed] = []  # in the order they happened
        self.canceled = threading.Event()
        self.lock = threading.RLock()
        self.children: set[subprocess.Popen[bytes]] = set()
        self.temporary: dict[int, list[Path]] = {}
        self.threads: set[int] = set()  # those that are inside a component's run
        self.started: dict[int, float] = {}

    @property
    def folder(self) -> Path:
        """The run's own folder, with its logs; locked while the run lives."""
        return self.root / ".penstock" / "runs" / self.run_id

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
                    execution.id, State.CANCELED, _measured(execution)
                )
                self.on_change(execution)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the lock that tells a living run from a dead one: the kernel frees it.

    Args:
        folder: The run's own folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
                live = _resolve(component, run, execution)
                _gate(live, run, execution)
                if execution.state is State.SKIPPED:
                    _record_skipped(live, run, execution)
                else:
                    _execute(live, run, execution, started)
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


def _resolve(component: Component, run: ActiveRun, execution: Execution) -> Component:
    """Return the component with facts for promises, as far as there are any."""
    facts: dict[str, Any] = {}
    later = []
    for each in declared(type(component)).inputs:
        value = getattr(component, each.name)
        if isinstance(value, tuple):
            facts[each.name] = tuple(
                _fact(item, run, component, each) for item in value
            )
        elif value is not None and hasattr(value.source, "resolve"):
            later.append((each, value))
        elif value is not None:
            facts[each.name] = _fact(value, run, component, each)
    live = component.bound(facts, {})
    # Resolvers see the facts: the candidate, for the baseline it is compared with.
    for each, value in later:
        found = value.source.resolve(run.store, run.pipeline, live)
        if found is None and not each.optional:
            raise DataError(
                f"'{value.source}' finds nothing for {component.name}.{each.name} in "
                f"pipeline '{run.pipeline}'. Run what writes {each.kind.TYPE_NAME} "
                "first, or import it."
            )
        live = live.bound({each.name: found}, {})
    execution.inputs = {
        name: tuple(artifact for artifact in artifacts if not artifact.is_promise)
        for name, artifacts in live.inputs.items()
    }
    return live


def _fact(
    artifact: Artifact, run: ActiveRun, component: Component, wired: Input
) -> Artifact:
    """Return what a promise became, or the promise itself if nothing came of it."""
    source = artifact.source
    if isinstance(source, Promise) and artifact.is_promise:
        produced = run.executions[source.producer.name].outputs
        return produced.get(source.key, artifact)
    if not artifact.digest and not artifact.is_promise:
        if not artifact.path.is_dir():
            raise DataError(
                f"{component.name}.{wired.name} is {artifact.TYPE_NAME} "
                f"'{artifact.uri}', which is no folder that exists. Check the path; an "
                "artifact is a folder."
            )
        artifact.digest = folder_digest(artifact.path)
    return artifact


def _gate(live: Component, run: ActiveRun, execution: Execution) -> None:
    """Mark the execution as skipped if something it waits for is not a yes."""
    for name in sorted({each.name for each in _waited_for(live)}):
        before = run.executions[name]
        if before.state is State.SKIPPED:
            execution.state, execution.answer = State.SKIPPED, before.answer
            # The first that did not run says why; the rest of the chain adds nothing.
            is_first = " did not run: " not in before.reason
            said = f"'{name}' did not run: {before.reason}"
            execution.reason = said if is_first else before.reason
            return
        if before.state is not State.COMPLETE:
            execution.state = State.SKIPPED
            execution.reason = f"'{name}' {before.state.value}."
            return
    for each in declared(type(live)).inputs:
        for verdict in live.inputs.get(each.name, ()) if each.gate else ():
            if isinstance(verdict, Verdict):
                answer, said = _said(verdict, live, run)
                if answer is not Answer.YES:
                    execution.state, execution.answer = State.SKIPPED, answer
                    execution.reason = f"'{verdict.source or verdict.uri}' says {said}."
                    return


def _said(verdict: Verdict, live: Component, run: ActiveRun) -> tuple[Answer, str]:
    """Return what a verdict says now, and that with its reasons.

    A blessing of a model that is block-listed is a no, whenever it was given.
    """
    if verdict.answer is Answer.YES and isinstance(verdict, ModelBlessing):
        read = itertools.chain.from_iterable(live.inputs.values())
        blocked = overrides.why_blocked(run.store, verdict, read)
        if blocked:
            return Answer.NO, f"yes, but {blocked.rstrip('.')}"
    against = [reason.rstrip(".") for reason in verdict.reasons_against]
    said, more = "; ".join(against[:3]), len(against) - 3
    return verdict.answer, (
        verdict.answer.value
        + (f": {said}" if said else "")
        + (f"; and {more} more" if more > 0 else "")
    )


def _waited_for(live: Component) -> Iterator[Component]:
    yield from producers(live)
    for artifacts in live.inputs.values():
        for artifact in artifacts:
            if isinstance(artifact.source, Promise):
                yield artifact.source.producer


def _record_skipped(live: Component, run: ActiveRun, execution: Execution) -> None:
    execution.id = run.store.begin_execution(
        live,
        pipeline=run.pipeline,
        run_id=run.run_id,
        inputs=execution.inputs,
        state=State.SKIPPED,
        reason=execution.reason,
    )


def _execute(
    live: Component, run: ActiveRun, execution: Execution, started: float
) -> None:
    """Register, prepare, run, commit."""
    external = live.external_inputs()
    with run.lock:
        if run.canceled.is_set():
            raise Canceled
        execution.id = run.store.begin_execution(
            live,
            pipeline=run.pipeline,
            run_id=run.run_id,
            inputs=execution.inputs,
            external=external,
        )
        run.started[execution.id] = started
    run.on_change(execution)
    base = run.root / run.pipeline / live.name
    temp_dir = base / ".tmp" / str(execution.id)
    final = {key: base / key / str(execution.id) for key in live.outputs}
    staged = {
        key: path.with_name(f".{path.name}.partial") for key, path in final.items()
    }
    run.temporary[execution.id] = [temp_dir, *staged.values()]
    try:
        for folder in (temp_dir, *staged.values()):
            folder.mkdir(parents=True)
        outputs = {
            key: type(promise)(staged[key], source=promise.source)
            for key, promise in live.outputs.items()
        }
        live = live.bound({}, outputs)
        context = RunContext(
            run_id=run.run_id,
            temp_dir=temp_dir,
            beam_args=run.beam_args,
            external_inputs=external,
            on_progress=_progress(run, execution),
        )
        if live.isolated or live.options.timeout_seconds is not None:
            from penstock.pipelines.child import run_in_child

            run_in_child(live, context, run, execution)
        else:
            with _measuring(execution, run), _interruptible(run):
                live.run(context)
        _commit(live, run, execution, final, started)
    except BaseException:
        for path in final.values():
            shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        _remove(run.temporary.pop(execution.id, []))


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
    final: dict[str, Path],
    started: float,
) -> None:
    """Make the outputs facts: digest, fsync, rename, then one store transaction."""
    for artifact in live.outputs.values():
        artifact.digest = folder_digest(artifact.path)
        sync_folder(artifact.path)
    committed = {}
    with run.lock:
        if run.canceled.is_set():
            raise Canceled
        for key, artifact in live.outputs.items():
            os.rename(artifact.path, final[key])
            sync(final[key].parent)
            committed[key] = type(artifact)(
                final[key],
                properties=artifact.properties,
                digest=artifact.digest,
                source=artifact.source,
            )
        execution.seconds = time.time() - started
        assert execution.id is not None
        run.store.complete_execution(
            execution.id,
            committed,
            pipeline=run.pipeline,
            run_id=run.run_id,
            component=live.name,
            properties=_measured(execution),
        )
        execution.outputs = committed
        execution.state = State.COMPLETE


def _record_failed(
    component: Component,
    run: ActiveRun,
    execution: Execution,
    error: BaseException,
    started: float,
) -> None:
    """Record why a component failed, and keep the failure for the run to raise."""
    message = _sentence(component, error)
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
        **_measured(execution),
        "penstock_exception": kind,
        "penstock_message": getattr(error, "message_text", "") or str(error),
        "penstock_traceback": traceback_tail(text),
    }
    try:
        if execution.id is None:
            execution.id = run.store.begin_execution(
                component,
                pipeline=run.pipeline,
                run_id=run.run_id,
                inputs=execution.inputs,
            )
        run.store.end_execution(execution.id, State.FAILED, properties)
    except PenstockError as unrecorded:
        execution.reason = f"{message} It could not be recorded: {unrecorded}"


def _sentence(component: Component, error: BaseException) -> str:
    if isinstance(error, PenstockError):
        # Beam appends the label of its transform to whatever a worker raises.
        text = re.sub(r" \[while running '.*'\]$", "", str(error))
        return f"'{component.name}' failed: {text}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        filename = getattr(error, "filename", None)
        where = f" of '{filename}'" if filename else ""
        return (
            f"'{component.name}' failed: the disk{where} is full. Free some space and "
            "run again; nothing half-written is left."
        )
    kind = getattr(error, "type_name", "") or type(error).__name__
    text = getattr(error, "message_text", "") or str(error)
    place = getattr(error, "place", "") or _place(error)
    return f"'{component.name}' failed in {place}: {kind}: {text}"


def _place(error: BaseException) -> str:
    """Return where the user's code raised, or else where anything did."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    last = (ours or frames)[-1]
    return f"{last.name} ({Path(last.filename).name}, line {last.lineno})"


@contextmanager
def _measuring(execution: Execution, run: ActiveRun) -> Iterator[None]:
    """Measure processor time and sample the memory of this process meanwhile."""
    stop = threading.Event()
    before = time.process_time()

    def sample() -> None:
        while True:
            running = [
                each
                for each in list(run.executions.values())
                if each.state is State.RUNNING
            ]
            execution.shared = execution.shared or len(running) > 1
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


def _measured(execution: Execution) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "penstock_seconds": execution.seconds,
        "penstock_cpu_seconds": execution.cpu_seconds,
        "penstock_peak_memory_bytes": execution.peak_memory_bytes,
        "penstock_shared": int(execution.shared),
        "penstock_rows": execution.rows,
    }
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
