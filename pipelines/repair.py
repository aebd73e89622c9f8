"""Putting right what killed runs left behind, and only that.

A run that lives holds a lock on its folder, which the kernel frees when its process
dies, and is listed below `.penstock/live` until all of it is recorded. So what is
listed and not locked is dead: what it had ready is recorded, what it had not is
removed, and its executions are marked as abandoned.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from penstock.pipelines.cache import remove_free_locks, why_broken
from penstock.pipelines.commit import Commit, Places, written
from penstock.pipelines.disk import sync, to_lock, writing_below
from penstock.pipelines.metadata import ExecutionRecord, RunState, State, Store
from penstock.schemas.artifacts import PropertyValue
from penstock.schemas.errors import PipelineError


@contextmanager
def living(root: Path, run_id: str, store: Store) -> Iterator[Living]:
    """Hold the lock that tells a living run from a dead one.

    Args:
        root: The folder that artifacts lie in.
        run_id: Id of the run, whose folder exists.
        store: The lineage store that the run is recorded in.

    Raises:
        PipelineError: If the run cannot be listed.
    """
    entry = _listed(root) / run_id
    with _locked(root / ".penstock" / "runs" / run_id):
        with writing_below(root):
            entry.parent.mkdir(exist_ok=True)
            entry.write_text(_name(store))  # under the lock: listed and free means dead
            sync(entry)
            sync(
                entry.parent
            )  # before the store hears of it, which outlives a power cut
        run = Living()
        yield run
        if run.is_recorded:
            entry.unlink()


class Living:
    """A run that lives.

    Attributes:
        is_recorded: Whether its end is in the store, so that nothing is to be repaired.
    """

    is_recorded: bool = False


def repair(root: Path, store: Store) -> list[str]:
    """Put right what killed runs left behind.

    Args:
        root: The folder that artifacts lie in.
        store: The lineage store; runs that are recorded in another one are left alone.

    Returns:
        The ids of the runs that were dead.

    Raises:
        MetadataError: If the store cannot be read or written.
        PipelineError: If a file cannot.
    """
    try:
        remove_free_locks(root)
        if not any(_listed(root).glob("*")):
            return []
        # One at a time: else a run could begin before what it needs is adopted.
        with _locked(_listed(root)):
            return [
                entry.name
                for entry in sorted(_listed(root).glob("*"))
                if _is_dead(root, store, entry)
            ]
    except OSError as error:
        raise PipelineError(
            f"What a killed run left in '{root}' cannot be put right: "
            f"{error.strerror}: '{error.filename}'. Give yourself the right to read "
            "and write it, or remove it, and run again."
        ) from error


def _is_dead(root: Path, store: Store, entry: Path) -> bool:
    """Return whether a listed run was dead; if so, it is put right."""
    folder = root / ".penstock" / "runs" / entry.name
    folder.mkdir(exist_ok=True)  # somebody may have removed it
    try:
        with _locked(folder, fcntl.LOCK_NB):
            if not entry.exists():
                return False  # it has ended meanwhile
            is_ours = entry.read_text() in ("", _name(store))
            # The same store may have been given by another URL.
            if is_ours or store.find_run(entry.name) is not None:
                _repair_run(root, store, entry.name)
                entry.unlink()
                return True
    except BlockingIOError:
        pass  # it lives
    return False


@contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a folder, which the kernel frees when this process dies."""
    with to_lock(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield


def _listed(root: Path) -> Path:
    return root / ".penstock" / "live"


def _name(store: Store) -> str:
    """Return what tells a store from others, without its password."""
    return hashlib.sha256(store.url.encode()).hexdigest()


def _repair_run(root: Path, store: Store, run_id: str) -> None:
    folder = root / ".penstock" / "runs" / run_id
    for unfinished in folder.glob("*.partial"):
        unfinished.unlink()
    record = store.find_run(run_id)
    if record is None:
        return  # killed before it began
    commits = {each.execution_id: each for each in written(store, folder)}
    for execution in store.executions(run_id):
        commit = commits.get(execution.id)
        base = root / execution.pipeline / execution.component
        if execution.state is State.RUNNING and not (
            commit and _finished(store, commit, execution, base)
        ):
            store.end_execution(
                execution.id,
                State.ABANDONED,
                {"reason": "The run's process ended while it was working."},
            )
        if commit is not None:
            commit.forget(folder)
        _remove(Places.left(base, run_id).temporary)
    begun = "penstock_state" in record.properties
    if record.state is RunState.RUNNING or not begun:
        store.end_run(run_id, RunState.ABANDONED, _reason(record.properties))


def _finished(
    store: Store, commit: Commit, execution: ExecutionRecord, base: Path
) -> bool:
    """Record what an execution had ready; return whether it is all there."""
    places = Places(base, execution.run_id, commit.outputs)
    try:
        commit = commit.placed(places.reveal(execution.id))
    except FileNotFoundError:
        return False  # somebody removed the component's folder
    if any(why_broken(each) for each in commit.outputs.values()):
        places.withdraw(execution.id)
        return False
    try:
        commit.record(store, execution.pipeline, execution.run_id)
    except PipelineError:  # of what it says of itself something cannot be recorded
        places.withdraw(execution.id)
        return False
    return True


def _reason(properties: Mapping[str, PropertyValue]) -> str:
    which = ""
    if "penstock_pid" in properties:  # else it was killed while it was being recorded
        which = f" ({properties['penstock_pid']} on '{properties['penstock_host']}')"
    return (
        f"Its process{which} ended without recording how: it was killed, or the "
        "machine went down."
    )


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
