"""Outputs of earlier executions that stand for a new one, and who makes them first."""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.components.base import Component
from penstock.pipelines.disk import to_lock
from penstock.pipelines.fingerprint import Fingerprint
from penstock.pipelines.metadata import ExecutionRecord, State, Store
from penstock.schemas.artifacts import Artifact
from penstock.schemas.digests import folder_digest

_POLL_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Hit:
    """An earlier execution whose outputs stand for a new one.

    Attributes:
        execution: Its record.
        outputs: Its outputs, by output key; their bytes are those recorded.
    """

    execution: ExecutionRecord
    outputs: Mapping[str, Artifact]


@dataclasses.dataclass(frozen=True)
class Miss:
    """Why no earlier execution will do.

    Attributes:
        reason: Why one with the same fingerprint will not, as a clause; empty where
            there is none.
    """

    reason: str = ""


def find(store: Store, live: Component, fingerprint: Fingerprint) -> Hit | Miss:
    """Look for outputs that can be taken instead of running a component.

    Args:
        store: The lineage store.
        live: The component, with facts for inputs.
        fingerprint: What it depends on.
    """
    options = live.options
    if not options.cache:
        return Miss("cache=False")
    first = Miss()
    for record in store.find_cached(fingerprint.digest):
        if record.state is not State.COMPLETE:
            continue
        found = _usable(live, record)
        if isinstance(found, Hit):
            return found
        first = first if first.reason else found
    return first


def _usable(live: Component, record: ExecutionRecord) -> Hit | Miss:
    limit = live.options.cache_ttl_seconds
    ended = record.started + (record.seconds or 0.0)
    if limit is not None and time.time() - ended > limit:
        return Miss(f"its outputs are older than cache_ttl_seconds={limit:g}")
    outputs = taken(live, record)
    if isinstance(outputs, str):
        return Miss(outputs)
    stale = live.bound({}, outputs).why_stale()
    return Miss(stale) if stale else Hit(record, outputs)


def taken(live: Component, record: ExecutionRecord) -> dict[str, Artifact] | str:
    """Return the outputs of an execution as those of a component, or what is wrong.

    Args:
        live: The component.
        record: A complete or cached execution of it.
    """
    outputs: dict[str, Artifact] = {}
    for key, promise in live.outputs.items():
        artifacts = record.outputs.get(key, ())
        if len(artifacts) != 1:
            return f"execution {record.id} has no output '{key}'"
        (artifact,) = artifacts
        broken = why_broken(artifact)
        if broken:
            return f"its output '{key}' {broken}"
        outputs[key] = type(promise)(
            artifact.uri,
            properties=artifact.properties,
            digest=artifact.digest,
            id=artifact.id,
            source=promise.source,
        )
    return outputs


def why_broken(artifact: Artifact) -> str:
    """Say what is wrong with the bytes of an artifact, or the empty string."""
    if artifact.is_deleted:
        return "was deleted by 'penstock gc'"
    try:
        if not artifact.path.is_dir():
            return f"is gone from '{artifact.uri}'"
        found = folder_digest(artifact.path)
    except OSError as error:
        return f"cannot be read: {error.strerror}: '{error.filename}'"
    if found != artifact.digest:
        return f"has other bytes in '{artifact.uri}' than were recorded"
    return ""


@contextmanager
def only_one(
    root: Path, fingerprint: Fingerprint, check: Callable[[], None]
) -> Iterator[None]:
    """Let one execution with a fingerprint run at a time, in any process.

    The lock is the kernel's, which frees it when a process dies.

    Args:
        root: The folder that artifacts lie in.
        fingerprint: What the execution depends on.
        check: Called while waiting; raises to stop.
    """
    folder = root / ".penstock" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / fingerprint.digest.removeprefix("sha256:")
    is_told = False
    while True:
        with to_lock(path, os.O_RDWR | os.O_CREAT) as descriptor:
            if _is_locked(descriptor, path):
                try:
                    yield
                finally:
                    # Removed while it is held: who waits then finds that it is gone.
                    os.unlink(path)
                return
        if not is_told:
            logging.getLogger("penstock").info(
                "Waiting for another execution of the same content, to take its outputs"
            )
            is_told = True
        check()
        time.sleep(_POLL_SECONDS)


def remove_free_locks(root: Path) -> None:
    """Remove the locks that killed processes left, which nobody holds.

    Args:
        root: The folder that artifacts lie in.
    """
    for path in (root / ".penstock" / "locks").glob("*"):
        with suppress(FileNotFoundError), to_lock(path) as descriptor:
            if _is_locked(descriptor, path):
                os.unlink(path)


def _is_locked(descriptor: int, path: Path) -> bool:
    """Lock a file if it is free; return whether it is, and still has its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
