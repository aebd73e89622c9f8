"""Histories of runs of any age, written as runs leave them without running anything.

Written with ML Metadata alone, so that they do not change with penstock's own writer.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from penstock.pipelines.housekeeping import Garbage, delete_garbage, find_garbage
from penstock.pipelines.metadata import Store
from penstock.pipelines.retention import Policy
from penstock.schemas.artifacts import Model
from penstock.schemas.digests import folder_digest

NOW = time.time()
DAY = 86_400.0

NOTHING = Policy(runs=0, blessed=0, younger_than_seconds=0)
"""Keeps what is served, pinned, going on, or may be the latest blessed model."""

_STATES = {"complete": pb.Execution.COMPLETE, "cached": pb.Execution.CACHED}


@dataclasses.dataclass
class Made:
    """An artifact of a history."""

    id: int
    kind: str
    path: Path
    digest: str
    writer: int


@dataclasses.dataclass
class Done:
    """An execution of a history."""

    id: int
    run: str
    inputs: list[int]
    outputs: list[int]


class History:
    """A root with its store.

    Args:
        root: The root.
        says_writers: Whether artifacts say which execution wrote them first.
    """

    def __init__(self, root: Path, *, says_writers: bool = True) -> None:
        self.root = root
        self.says_writers = says_writers
        self.artifacts: dict[int, Made] = {}
        self.executions: dict[int, Done] = {}
        self.runs: list[str] = []
        root.mkdir(parents=True, exist_ok=True)
        config = pb.ConnectionConfig()
        config.sqlite.filename_uri = str(root / "metadata.sqlite")
        config.sqlite.connection_mode = (
            pb.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        self.raw = metadata_store.MetadataStore(config)
        self._types: dict[str, int] = {}
        self._contexts: dict[tuple[str, str], Any] = {}

    def store(self) -> Store:
        """Open the store as penstock does."""
        return Store(f"sqlite:///{self.root / 'metadata.sqlite'}")

    def run(
        self,
        pipeline: str = "p",
        *,
        days_ago: float = 0.0,
        state: str = "complete",
        log: str = "log\n",
    ) -> str:
        """Record a run, with its folder; return its id."""
        run_id = f"run-{len(self.runs)}"
        self.runs.append(run_id)
        context = self._context("pipeline_run", run_id)
        for key, value in {
            "penstock_state": state,
            "penstock_started": NOW - days_ago * DAY,
            "penstock_finished": NOW - days_ago * DAY,
            "penstock_root": str(self.root),
            "pipeline": pipeline,
        }.items():
            _set(context.custom_properties[key], value)
        self.raw.put_contexts([context])
        parent = self._context("pipeline", pipeline)
        link = pb.ParentContext(parent_id=parent.id, child_id=context.id)
        self.raw.put_parent_contexts([link])
        folder = self.root / ".penstock" / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "run.log").write_text(log)
        return run_id

    def execute(
        self,
        run: str,
        component: str,
        inputs: Mapping[str, Sequence[int]] | None = None,
        outputs: Mapping[str, tuple[str, str, Mapping[str, Any]]] | None = None,
        *,
        cached: Mapping[str, int] | None = None,
        state: str = "complete",
        code: str = "",
    ) -> dict[str, int]:
        """Record an execution; return its outputs.

        Args:
            run: The run.
            component: Name of the component.
            inputs: Numbers of what it reads, by key.
            outputs: What it writes, by key: type, content of its file, properties.
            cached: Numbers of what it takes from earlier ones instead, by key.
            state: How it ended.
            code: Digest of its code.
        """
        pipeline = self._contexts["pipeline_run", run].custom_properties["pipeline"]
        name = pipeline.string_value
        if cached is not None:
            state = "cached"
        execution = pb.Execution(
            type_id=self._type("execution", f"toys.{component}"),
            last_known_state=_STATES.get(state, pb.Execution.FAILED),
        )
        for key, value in {
            "penstock_component": component,
            "penstock_pipeline": name,
            "penstock_run": run,
            "penstock_started": NOW,
            "penstock_state": state,
            "penstock_parts": json.dumps({"code": f"sha256:{code}"} if code else {}),
        }.items():
            _set(execution.custom_properties[key], value)
        (execution.id,) = self.raw.put_executions([execution])
        read = [each for numbers in (inputs or {}).values() for each in numbers]
        pairs = [
            (self._stored(each), _event(pb.Event.INPUT, key, index, each))
            for key, numbers in (inputs or {}).items()
            for index, each in enumerate(numbers)
        ]
        written = []
        for key, (kind, content, properties) in (outputs or {}).items():
            path = self.root / name / component / key / str(execution.id)
            path.mkdir(parents=True)
            (path / "data").write_text(content)
            artifact = self._artifact(path, kind, properties, execution.id)
            pairs.append((artifact, _event(pb.Event.OUTPUT, key)))
            written.append((key, kind, path))
        for key, number in (cached or {}).items():
            pairs.append(
                (self._stored(number), _event(pb.Event.OUTPUT, key, 0, number))
            )
        contexts = [
            self._context("pipeline", name),
            self._context("pipeline_run", run),
            self._context("node", f"{name}.{component}"),
        ]
        _, numbers, _ = self.raw.put_execution(execution, pairs, contexts)
        new = numbers[len(read) : len(read) + len(written)]
        found = dict(cached or {})
        for (key, kind, path), number in zip(written, new, strict=True):
            digest = folder_digest(path)
            self.artifacts[number] = Made(number, kind, path, digest, execution.id)
            found[key] = number
        self.executions[execution.id] = Done(
            execution.id, run, read, list(found.values())
        )
        return found

    def model(
        self,
        run: str,
        content: str = "weights",
        *,
        blessed: bool = True,
        baseline: Sequence[int] = (),
        serving_dir: Path | str | None = None,
        version: int = 1,
        code: str = "",
    ) -> dict[str, int]:
        """Record what a run makes, trains, evaluates and may be pushes; return it."""
        made = self.execute(
            run, "Make", {}, {"examples": ("Examples", content, {})}, code=code
        )
        read = {"examples": [made["examples"]]}
        made |= self.execute(run, "Fit", read, {"model": ("Model", content, {})})
        said = {"blessed": int(blessed), "current_model_id": made["model"]}
        made |= self.execute(
            run,
            "Evaluate",
            {**read, "model": [made["model"]], "baseline": baseline},
            {
                "evaluation": ("ModelEvaluation", "auc", {}),
                "blessing": ("ModelBlessing", "", said),
            },
        )
        if serving_dir is not None:
            pushed = {
                "pushed": 1,
                "pushed_destination": f"{serving_dir}/{version}",
                "pushed_version": str(version),
            }
            made |= self.execute(
                run,
                "Push",
                {"model": [made["model"]], "blessing": [made["blessing"]]},
                {"pushed": ("PushedModel", content, pushed)},
            )
        return made

    def record(
        self,
        uri: str,
        kind: str = "Examples",
        *,
        is_external: bool = False,
        **more: Any,
    ) -> int:
        """Record an artifact that nothing wrote."""
        artifact = pb.Artifact(
            type_id=self._type("artifact", kind), uri=uri, state=pb.Artifact.LIVE
        )
        for key, value in {"is_external": int(is_external), **more}.items():
            _set(artifact.custom_properties[key], value)
        return int(self.raw.put_artifacts([artifact])[0])

    def move(self, number: int, uri: str) -> None:
        """Record another location of an artifact."""
        artifact = self._stored(number)
        artifact.uri = uri
        self.raw.put_artifacts([artifact])

    def mark(self, number: int) -> None:
        """Record that the deletion of an artifact began."""
        artifact = self._stored(number)
        artifact.state = pb.Artifact.MARKED_FOR_DELETION
        self.raw.put_artifacts([artifact])

    def states(self) -> dict[int, str]:
        """Return the state of every artifact, by its number."""
        return {
            each.id: pb.Artifact.State.Name(each.state)
            for each in self.raw.get_artifacts()
        }

    def _artifact(
        self, path: Path, kind: str, properties: Mapping[str, Any], writer: int
    ) -> pb.Artifact:
        artifact = pb.Artifact(
            type_id=self._type("artifact", kind),
            uri=str(path),
            state=pb.Artifact.LIVE,
            name=str(path),
        )
        said = {"penstock_execution": writer} if self.says_writers else {}
        for key, value in {
            "is_external": 0,
            "digest": folder_digest(path),
            **said,
            **properties,
        }.items():
            _set(artifact.custom_properties[key], value)
        return artifact

    def _stored(self, number: int) -> pb.Artifact:
        (artifact,) = self.raw.get_artifacts_by_id([number])
        return artifact

    def _type(self, what: str, name: str) -> int:
        key = f"{what} {name}"
        if key not in self._types:
            put, kind = {
                "artifact": (self.raw.put_artifact_type, pb.ArtifactType),
                "execution": (self.raw.put_execution_type, pb.ExecutionType),
                "context": (self.raw.put_context_type, pb.ContextType),
            }[what]
            self._types[key] = put(kind(name=name), can_omit_fields=True)
        return self._types[key]

    def _context(self, kind: str, name: str) -> Any:
        if (kind, name) not in self._contexts:
            context = pb.Context(type_id=self._type("context", kind), name=name)
            (context.id,) = self.raw.put_contexts([context])
            self._contexts[kind, name] = context
        return self._contexts[kind, name]


def _event(kind: int, key: str, index: int = 0, number: int | None = None) -> Any:
    event = pb.Event(type=kind)
    if number is not None:
        event.artifact_id = number
    event.path.steps.add().key = key
    event.path.steps.add().index = index
    return event


def _set(slot: Any, value: Any) -> None:
    if isinstance(value, int):
        slot.int_value = value
    elif isinstance(value, float):
        slot.double_value = value
    else:
        slot.string_value = value


def deleted(history: History, policy: Policy = NOTHING) -> set[int]:
    """Delete; return the numbers of what is gone."""
    delete_garbage(history.store(), history.root, policy, now=NOW)
    return gone(history)


def gone(history: History) -> set[int]:
    """The numbers of artifacts that are DELETED; nothing is half so."""
    states = history.states()
    found = {number for number, state in states.items() if state == "DELETED"}
    for number, made in history.artifacts.items():
        assert made.path.exists() == (number not in found)
    assert set(states.values()) <= {"DELETED", "LIVE"}
    return found


def reasons(garbage: Garbage) -> dict[int, str]:
    """Why each artifact is kept, by its number."""
    return {
        artifact.id or 0: f"{each.reason.why.value}: {each.reason.text}"
        for each in garbage.kept
        for artifact in each.artifacts
    }


def found(history: History, policy: Policy = NOTHING) -> Garbage:
    """What could be deleted, and what not."""
    return find_garbage(history.store(), history.root, policy, now=NOW)


def tree(folder: Path, *without: str) -> dict[str, str]:
    """What lies below a folder, without the store and the lock."""
    listed = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in ("metadata.sqlite", "gc.lock") or any(
            each in name for each in without
        ):
            continue
        if path.is_symlink():
            listed[name] = f"link to {os.readlink(path)}"
        else:
            listed[name] = "folder" if path.is_dir() else path.read_text()
    return listed


def size(listed: Mapping[str, str]) -> int:
    """Size of all files of a tree."""
    return sum(len(text) for text in listed.values() if text != "folder")


def dumped(root: Path) -> list[str]:
    """All that a store holds."""
    with closing(sqlite3.connect(root / "metadata.sqlite")) as database:
        return list(database.iterdump())


@contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Hold the lock that a living run holds on its own folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def model_of(store: Store, number: int) -> Model:
    """A model of a store."""
    model = store.artifact(number)
    assert isinstance(model, Model)
    return model
