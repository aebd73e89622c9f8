"""The lineage store on ML Metadata; the only module that imports it.

Types, properties, contexts and event paths are TFX's, so that its tools read what
is written here. ml-metadata 1.21 has neither filter queries nor lineage subgraphs:
everything here is plain look-ups by id, type, context and event.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import itertools
import json
import logging
import math
import numbers
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from penstock.pipelines.escaping import without_backslashes
from penstock.pipelines.logins import Login, Refused, alone
from penstock.pipelines.sqlite_file import is_other_database, turn
from penstock.schemas.artifacts import (
    ARTIFACT_TYPES,
    Artifact,
    ArtifactState,
    Examples,
    ExternalArtifact,
    PropertyValue,
)
from penstock.schemas.errors import (
    MetadataError,
    PipelineError,
    UnknownName,
    did_you_mean,
    quoted,
)

if TYPE_CHECKING:
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    from penstock.components.base import Component
    from penstock.pipelines.history import Pipelines

_T = TypeVar("_T")
_A = TypeVar("_A", bound=Artifact)

TFX_VERSION = "1.21.0"
"""What artifacts say of themselves to TFX's readers, which take artifacts without a
version, or of one before 0.29, for the layouts of that time."""

_TRACEBACK_LINES = 40

# TFX's name for the contexts that are named by what an execution depends on.
_CACHE = "execution_cache"

# The type of contexts that hold the Examples of a pipeline by their spans, so many
# spans in each; named by the pipeline alone, the context that they all are below.
_SPANS = "penstock_spans"
_SPANS_EACH = 100

# Among how many of the last executions, of all pipelines, something is looked for
# before all that a pipeline has is looked at.
_RECENT = 2_048

# The same of artifacts and of contexts, and how many are looked at at a time.
_NEWEST, _BLOCK = 1_000, 50


class State(enum.Enum):
    """How an execution stands, or how it ended."""

    RUNNING = "running"
    COMPLETE = "complete"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"
    ABANDONED = "abandoned"


class RunState(enum.Enum):
    """How a run stands, or how it ended."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELED = "canceled"
    ABANDONED = "abandoned"


# ML Metadata has no state for two of ours.
_STORED_STATE = {State.SKIPPED: "CANCELED", State.ABANDONED: "FAILED"}


@dataclasses.dataclass(frozen=True)
class ExecutionRecord:
    """An execution as the store has it.

    Attributes:
        id: Its number in the store.
        component: Name of the component.
        type: Its execution type, the path of the component's class.
        run_id: The run it belongs to; empty if something else than a run wrote it.
        pipeline: The pipeline it belongs to; empty likewise.
        state: How it stands.
        reason: Why it was skipped, canceled or abandoned; for a failure its message;
            for what somebody did outside of a run, why they did it.
        started: Start, in seconds since 1970.
        seconds: How long it took; None while it runs.
        properties: All that is recorded of it: parameters and measurements.
        inputs: What it read, by input key.
        outputs: What it wrote, by output key.
    """

    id: int
    component: str
    type: str
    run_id: str
    pipeline: str
    state: State
    reason: str
    started: float
    seconds: float | None
    properties: Mapping[str, PropertyValue]
    inputs: Mapping[str, tuple[Artifact, ...]]
    outputs: Mapping[str, tuple[Artifact, ...]]

    def __getitem__(self, key: str) -> Artifact:
        """Return an output by its key, as in `run["Trainer"]["model"]`.

        Raises:
            MetadataError: If there is no output of that key, or several artifacts.
        """
        made = self.outputs.get(key, ())
        if len(made) == 1:
            return made[0]
        if made:
            raise MetadataError(
                f"'{self.component}' wrote {len(made)} artifacts under '{key}'. Take "
                f"them from .outputs['{key}']."
            )
        raise UnknownName(
            f"'{self.component}' has no output '{key}' (it is {self.state.value} and "
            f"wrote {quoted(self.outputs)}).{did_you_mean(key, self.outputs)}"
        )

    def __getattr__(self, name: str) -> Artifact:
        """Return an output by its key, as in `run["Trainer"].model`."""
        # Python itself asks for names like this one, some before there are outputs.
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run as the store has it.

    Attributes:
        id: The run's id, the name of its context.
        pipeline: Name of the pipeline.
        state: How it stands.
        reason: One sentence on a run that is not complete.
        started: Start, in seconds since 1970.
        finished: End, in seconds since 1970; None while it runs.
        properties: All else that is recorded of it.
    """

    id: str
    pipeline: str
    state: RunState
    reason: str
    started: float
    finished: float | None
    properties: Mapping[str, PropertyValue]


@dataclasses.dataclass(frozen=True)
class Written:
    """An artifact, and an execution that it was an output of.

    Attributes:
        artifact: The artifact.
        execution_id: The execution's number.
        component: Name of the component.
        is_first: Whether this execution made it; another one took it from the cache.
        is_live: Whether it is there as far as the store knows: not deleted.
    """

    artifact: Artifact
    execution_id: int
    component: str
    is_first: bool
    is_live: bool


class Store:
    """The lineage store: records executions and artifacts, answers questions.

    Args:
        url: `sqlite:///path` (four slashes for an absolute path), `sqlite://` for an
            empty one in memory,
            `mysql://user:password@host:port/database`,
            `postgresql://user:password@host:port/database` or `grpc://host:port`.
        wait_seconds: How long to wait while another process holds the store.
        create: Whether to make an SQLite store that is not there.

    Raises:
        MetadataError: If the store cannot be opened.
    """

    def __init__(
        self, url: str, *, wait_seconds: float = 30.0, create: bool = True
    ) -> None:
        self.url = url
        self.wait_seconds = wait_seconds
        self._where = f"The lineage store '{_without_password(url)}'"
        self._lock = threading.RLock()
        self._path = sqlite_path(url)
        self._config, self._login = _connection(url, create=create)
        if self._path is not None and is_other_database(self._path):
            raise MetadataError(
                f"{self._where} is an SQLite database with other tables, no ML "
                "Metadata store. Name another store."
            )
        self._mlmd: metadata_store.MetadataStore = None
        self._patiently(self._connect)
        # The import is here, where a store is opened, and nowhere on the way.
        from ml_metadata.proto import metadata_store_pb2

        self._pb = metadata_store_pb2
        self._type_ids: dict[str, int] = {}
        self._types: dict[int, str] = {}
        self._contexts: dict[tuple[str, str], metadata_store_pb2.Context] = {}

    def _connect(self) -> None:
        """Connect to the store, or connect anew."""
        from ml_metadata.metadata_store import metadata_store

        with self._alone():
            self._mlmd = metadata_store.MetadataStore(self._config)
        if self._login is not None and self._login.scheme == "postgresql":
            self._mlmd._call_method = without_backslashes(self._mlmd._call_method)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only process that makes tables or types, if the store is on a server.

        Raises:
            MetadataError: If the server does not let one in.
        """
        try:
            with nullcontext() if self._login is None else alone(self._login):
                yield
        except Refused as refused:
            raise MetadataError(f"{self._where} {refused}") from None

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call, and call again while another process holds the store.

        The same if a server was lost or gave way to somebody else's transaction: then
        nothing of the call was recorded.
        """
        ends = time.monotonic() + self.wait_seconds
        while True:
            is_late = time.monotonic() > ends
            try:
                free = nullcontext(True) if self._path is None else turn(self._path)
                with self._lock, free as is_free:
                    if is_free:
                        return call()
                if is_late:
                    raise self._explained(_LOCKED)
                time.sleep(0.002)
            except MetadataError:
                raise
            except Exception as error:  # ml_metadata raises its own and RuntimeError
                if self._login is not None and _is_lost(error):
                    self._reconnect(ends, error)
                elif is_late or not _is_passing(error):
                    raise self._explained(str(error)) from error
                else:
                    time.sleep(0.02)

    def _reconnect(self, ends: float, error: Exception) -> None:
        """Connect anew: a second call without a connection would end the process."""
        while time.monotonic() < ends:
            try:
                with self._lock:
                    return self._connect()
            except Exception as refused:  # the server may be there only in parts
                error = refused
                time.sleep(0.2)
        raise MetadataError(
            f"{self._where} was lost, and was not there again within "
            f"{self.wait_seconds:g} s. Start the server and run again."
        ) from error

    def _explained(self, text: str) -> MetadataError:
        said = _shortened(" ".join(text.split()))
        newer = re.search(r"database version (\d+) is greater .* version (\d+)", text)
        if newer:
            return MetadataError(
                f"{self._where} was written by a newer ml-metadata (its schema is "
                f"version {newer[1]}, this one reads up to {newer[2]}). Upgrade "
                "ml-metadata, or name another store."
            )
        for words, explanation in _EXPLANATIONS.items():
            if any(each in text for each in words):
                return MetadataError(
                    f"{self._where} "
                    + explanation.format(seconds=self.wait_seconds, said=said)
                )
        return MetadataError(
            f"{self._where} refused a call: {said} Check that the server or file is "
            "there and is an ML Metadata store."
        )

    # Types ---------------------------------------------------------------------

    def _artifact_type(self, kind: type[Artifact]) -> int:
        key = f"artifact {kind.TYPE_NAME}"
        if key not in self._type_ids:
            proto = self._pb.ArtifactType(name=kind.TYPE_NAME)
            names = {int: self._pb.INT, str: self._pb.STRING, float: self._pb.DOUBLE}
            for name, python in kind.PROPERTIES.items():
                proto.properties[name] = names[python]
            if kind.BASE_TYPE:
                proto.base_type = getattr(self._pb.ArtifactType, kind.BASE_TYPE)
            self._type_ids[key] = self._put_type("artifact", proto)
        return self._type_ids[key]

    def _put_type(self, kind: str, proto: Any) -> int:
        """Return the number of a type, made or extended if the store lacks it."""
        if self._login is not None:
            get = f"get_{kind}_types"
            known = self._patiently(lambda: getattr(self._mlmd, get)())
            wanted = set(proto.properties.items())
            for each in known:
                if each.name == proto.name and wanted <= set(each.properties.items()):
                    return int(each.id)
        put = f"put_{kind}_type"
        with self._alone():
            return int(
                self._patiently(
                    lambda: getattr(self._mlmd, put)(
                        proto, can_add_fields=True, can_omit_fields=True
                    )
                )
            )

    def _component_type(self, component: Component) -> int:
        cls = type(component)
        name = cls.EXECUTION_TYPE or f"{cls.__module__}.{cls.__qualname__}"
        return self._execution_type(name, cls.BASE_TYPE)

    def _execution_type(self, name: str, base_type: str | None = None) -> int:
        key = f"execution {name}"
        if key not in self._type_ids:
            proto = self._pb.ExecutionType(name=name)
            if base_type:
                proto.base_type = getattr(self._pb.ExecutionType, base_type)
            self._type_ids[key] = self._put_type("execution", proto)
        return self._type_ids[key]

    def _context_proto(self, kind: str, name: str) -> metadata_store_pb2.Context:
        """Return a context of a type and name that may not be there yet."""
        key = f"context {kind}"
        if key not in self._type_ids:
            proto = self._pb.ContextType(name=kind)
            self._type_ids[key] = self._put_type("context", proto)
        return self._pb.Context(type_id=self._type_ids[key], name=name)

    def _context(
        self,
        kind: str,
        name: str,
        properties: Mapping[str, PropertyValue] | None = None,
    ) -> metadata_store_pb2.Context:
        """Return the context of a type and name, made if it is not there.

        Its properties are as they were when it was first asked for.
        """
        if (kind, name) not in self._contexts:
            found = self._find_context(kind, name)
            if found is None:
                context = self._context_proto(kind, name)
                for key, value in (properties or {}).items():
                    _set(context.custom_properties[key], value)
                self._put_once(lambda: self._mlmd.put_contexts([context]))
                found = self._find_context(kind, name)
            self._contexts[kind, name] = found
        return self._contexts[kind, name]

    def _put_once(self, call: Callable[[], None]) -> None:
        """Put something, unless another process put the same in between."""
        try:
            self._patiently(call)
        except MetadataError as error:
            if not _is_taken(error):
                raise

    def _find_context(self, kind: str, name: str) -> metadata_store_pb2.Context | None:
        found = self._patiently(
            lambda: self._mlmd.get_context_by_type_and_name(kind, name)
        )
        if found is not None and found.name != name:
            raise MetadataError(
                f"{self._where} does not tell '{name}' from '{found.name}', which it "
                "has. Make the database with a collation that does (COLLATE "
                "utf8mb4_bin), or use another name."
            )
        return found

    def _contexts_of(
        self, pipeline: str, run_id: str, component: str
    ) -> list[metadata_store_pb2.Context]:
        return [
            self._context("pipeline", pipeline),
            self._context("pipeline_run", run_id),
            self._context("node", f"{pipeline}.{component}"),
        ]

    # Writing -------------------------------------------------------------------

    def begin_run(
        self, pipeline: str, run_id: str, properties: Mapping[str, PropertyValue]
    ) -> None:
        """Record that a run began.

        Args:
            pipeline: Name of the pipeline.
            run_id: Id of the run.
            properties: What else to record of it.
        """
        parent = self._context("pipeline", pipeline)
        child = self._context("pipeline_run", run_id)
        link = self._pb.ParentContext(parent_id=parent.id, child_id=child.id)
        self._patiently(lambda: self._mlmd.put_parent_contexts([link]))
        begun: dict[str, PropertyValue] = {
            "penstock_state": RunState.RUNNING.value,
            "penstock_started": time.time(),
        }
        self._update_context(child, {**properties, **begun})

    def end_run(self, run_id: str, state: RunState, reason: str) -> None:
        """Record how a run ended."""
        self._update_context(
            self._context("pipeline_run", run_id),
            {
                "penstock_state": state.value,
                "penstock_finished": time.time(),
                "reason": reason,
            },
        )

    def _update_context(
        self,
        context: metadata_store_pb2.Context,
        properties: Mapping[str, PropertyValue],
    ) -> None:
        for name, value in properties.items():
            _set(context.custom_properties[name], value)
        self._patiently(lambda: self._mlmd.put_contexts([context]))

    def begin_execution(
        self,
        component: Component,
        *,
        pipeline: str,
        run_id: str,
        inputs: Mapping[str, Sequence[Artifact]],
        external: Sequence[ExternalArtifact] = (),
        state: State = State.RUNNING,
        properties: Mapping[str, PropertyValue] | None = None,
        outputs: Mapping[str, Artifact] | None = None,
    ) -> int:
        """Record that an execution began, was skipped, or was cached, with its inputs.

        Inputs that the store does not have yet are recorded as external ones; an
        external input with the same location and digest is recorded once.

        Args:
            component: The component.
            pipeline: Name of the pipeline.
            run_id: Id of the run.
            inputs: What it reads, by input key.
            external: What it reads from outside the pipeline.
            state: RUNNING, SKIPPED or CACHED.
            properties: What else to record of it.
            outputs: Of a cached one, the artifacts of the store that it stands for, by
                output key.

        Returns:
            The execution's number.
        """
        execution = self._pb.Execution(
            type_id=self._component_type(component), name=str(uuid.uuid4())
        )
        for name, value in component.parameters.items():
            if value is not None:
                _set(execution.custom_properties[name], recorded(value))
        cls = type(component)
        self._stamp(
            execution,
            state,
            {
                "penstock_component": component.name,
                "penstock_pipeline": pipeline,
                "penstock_run": run_id,
                "penstock_class": f"{cls.__module__}.{cls.__qualname__}",
                "penstock_started": time.time(),
                **(properties or {}),
            },
        )
        linked: dict[int, tuple[Artifact, list[tuple[str, int]]]] = {}
        listed = {**inputs, **({"external": external} if external else {})}
        for key, artifacts in listed.items():
            for index, artifact in enumerate(artifacts):
                if artifact.id is None:
                    artifact.id = self._put_external(artifact)
                linked.setdefault(artifact.id, (artifact, []))[1].append((key, index))
        made = {each.id: (key, each) for key, each in (outputs or {}).items()}
        stored = self._artifact_protos(
            [*linked, *(id for id in made if id is not None)]
        )
        event = self._pb.Event
        pairs = [
            (stored[id], _event(self._pb, event.INPUT, path, id))
            for id, (_, path) in linked.items()
        ]
        pairs += [
            (stored[id], _event(self._pb, event.OUTPUT, [(key, 0)], id))
            for id, (key, _) in made.items()
            if id is not None
        ]
        contexts = self._contexts_of(pipeline, run_id, component.name)
        contexts += self._span_contexts(pipeline, (outputs or {}).values())
        execution_id, _, _ = self._patiently(
            lambda: self._mlmd.put_execution(execution, pairs, contexts)
        )
        return int(execution_id)

    def complete_execution(
        self,
        execution_id: int,
        outputs: Mapping[str, Artifact],
        *,
        pipeline: str,
        run_id: str,
        component: str,
        properties: Mapping[str, PropertyValue],
        fingerprint: str = "",
    ) -> None:
        """Record outputs and COMPLETE in one transaction.

        Args:
            execution_id: The execution's number.
            outputs: What it wrote, by output key; each is given its number.
            pipeline: Name of the pipeline.
            run_id: Id of the run.
            component: Name of the component.
            properties: What was measured.
            fingerprint: What `find_cached` shall find it by; empty for nothing.
        """
        execution = self._execution_proto(execution_id)
        self._stamp(execution, State.COMPLETE, properties)
        pairs = []
        for key, artifact in outputs.items():
            name = f"{pipeline}:{run_id}:{component}:{key}:0"
            artifact.properties["penstock_execution"] = execution_id
            proto = self._artifact_proto(artifact, name, is_external=False)
            pairs.append((proto, _event(self._pb, self._pb.Event.OUTPUT, [(key, 0)])))
        contexts = self._contexts_of(pipeline, run_id, component)
        contexts += self._span_contexts(pipeline, outputs.values())
        if fingerprint:
            contexts.append(self._context_proto(_CACHE, fingerprint))
        _, artifact_ids, _ = self._patiently(
            lambda: self._mlmd.put_execution(
                execution, pairs, contexts, reuse_context_if_already_exist=True
            )
        )
        for artifact, id in zip(outputs.values(), artifact_ids, strict=True):
            artifact.id = int(id)

    def find_cached(self, fingerprint: str) -> Iterator[ExecutionRecord]:
        """Yield the complete executions with a fingerprint, the newest first.

        Args:
            fingerprint: As it was given to `complete_execution`.
        """
        context = self._find_context(_CACHE, fingerprint)
        if context is None:
            return
        newest_first = self._newest_first()
        protos = self._patiently(
            lambda: self._mlmd.get_executions_by_context(context.id, newest_first)
        )
        for proto in protos:
            yield from self._records([proto])

    def last_execution(self, pipeline: str, component: str) -> ExecutionRecord | None:
        """Return the newest execution of a component that has a fingerprint, if any.

        Args:
            pipeline: Name of the pipeline.
            component: Name of the component.
        """
        context = self._find_context("node", f"{pipeline}.{component}")
        if context is None:
            return None
        for page in self._pages():
            for proto in page:
                if self._is_of(proto, pipeline, component) and _has_parts(proto):
                    return self._records([proto])[0]
        # Long ago: a context has to be looked at whole.
        protos = self._patiently(
            lambda: self._mlmd.get_executions_by_context(context.id)
        )
        found = max(filter(_has_parts, protos), key=_by_id, default=None)
        return None if found is None else self._records([found])[0]

    def _pages(self) -> Iterator[list[metadata_store_pb2.Execution]]:
        """Yield the last executions of all pipelines, the newest first."""
        top = self._patiently(lambda: self._mlmd.get_executions(self._newest_first(1)))
        end = int(top[0].id) + 1 if top else 1
        least, size = end - _RECENT, 32
        while end > max(least, 1):
            yield self._executions(range(max(1, end - size), end))
            end, size = end - size, min(2 * size, 256)

    def _newest_first(self, limit: int | None = None) -> Any:
        from ml_metadata.metadata_store import metadata_store

        return metadata_store.ListOptions(
            limit=limit, order_by=metadata_store.OrderByField.ID, is_asc=False
        )

    def end_execution(
        self, execution_id: int, state: State, properties: Mapping[str, PropertyValue]
    ) -> None:
        """Record that an execution ended without outputs, and why.

        Args:
            execution_id: The execution's number.
            state: FAILED, CANCELED or ABANDONED.
            properties: `reason`, and what was measured.
        """
        execution = self._execution_proto(execution_id)
        self._stamp(execution, state, properties)
        self._patiently(lambda: self._mlmd.put_executions([execution]))

    def record_execution(
        self,
        type_name: str,
        *,
        component: str,
        pipelines: Sequence[str],
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        properties: Mapping[str, PropertyValue],
    ) -> int:
        """Record in one transaction what was done outside of any run.

        Args:
            type_name: Name of its execution type.
            component: What did it.
            pipelines: The pipelines that it is about.
            inputs: What it read, by input key; the store has them.
            outputs: What it wrote, by output key; each is given its number.
            properties: What else to record of it.

        Returns:
            The execution's number.
        """
        name = str(uuid.uuid4())
        execution = self._pb.Execution(
            type_id=self._execution_type(type_name), name=name
        )
        done: dict[str, PropertyValue] = {
            "penstock_component": component,
            "penstock_started": time.time(),
        }
        self._stamp(execution, State.COMPLETE, {**done, **properties})
        ids = [each.id for each in inputs.values() if each.id is not None]
        stored = self._artifact_protos(ids)
        event = self._pb.Event
        pairs = [
            (stored[id], _event(self._pb, event.INPUT, [(key, 0)], id))
            for key, id in zip(inputs, ids, strict=True)
        ]
        for key, artifact in outputs.items():
            proto = self._artifact_proto(artifact, f"{name}:{key}:0", is_external=False)
            pairs.append((proto, _event(self._pb, event.OUTPUT, [(key, 0)])))
        contexts = [self._context("pipeline", each) for each in pipelines]
        execution_id, artifact_ids, _ = self._patiently(
            lambda: self._mlmd.put_execution(execution, pairs, contexts)
        )
        for artifact, id in zip(
            outputs.values(), artifact_ids[len(ids) :], strict=True
        ):
            artifact.id = int(id)
        return int(execution_id)

    def _stamp(
        self,
        execution: metadata_store_pb2.Execution,
        state: State,
        properties: Mapping[str, PropertyValue],
    ) -> None:
        stored = _STORED_STATE.get(state, state.name)
        execution.last_known_state = getattr(self._pb.Execution, stored)
        _set(execution.custom_properties["penstock_state"], state.value)
        for name, value in properties.items():
            _set(execution.custom_properties[name], value)

    def _put_external(self, artifact: Artifact) -> int:
        """Record an artifact that no execution here made; return its number."""
        type_id = self._artifact_type(type(artifact))
        found = self._find_external(artifact, type_id)
        if found is not None:
            return found
        # The name is the same in every process, so that only one of them makes it;
        # another after each that was deleted.
        deleted = sum(each.is_deleted for each in self.artifacts_at(artifact.uri))
        said = f"{artifact.uri}\0{artifact.digest}\0{deleted or ''}"
        content = hashlib.sha256(said.rstrip("\0").encode())
        name = f"{type(artifact).TYPE_NAME}:{content.hexdigest()}"
        proto = self._artifact_proto(artifact, name, is_external=True)
        try:
            return int(self._patiently(lambda: self._mlmd.put_artifacts([proto]))[0])
        except MetadataError as error:
            found = self._find_external(artifact, type_id)
            if found is None or not _is_taken(error):
                raise
            return found  # another process made the same one in between

    def _find_external(self, artifact: Artifact, type_id: int) -> int | None:
        same_place = self._patiently(
            lambda: self._mlmd.get_artifacts_by_uri(artifact.uri)
        )
        for proto in same_place:
            found = self._artifact(proto)
            is_same = found.uri == artifact.uri and found.digest == artifact.digest
            if is_same and proto.type_id == type_id:
                if found.is_deleted:  # its bytes are there again
                    self.set_artifact_state([found], ArtifactState.LIVE)
                return int(proto.id)
        return None

    def _artifact_proto(
        self, artifact: Artifact, name: str, *, is_external: bool
    ) -> metadata_store_pb2.Artifact:
        kind = type(artifact)
        proto = self._pb.Artifact(
            type_id=self._artifact_type(kind),
            uri=artifact.uri,
            state=self._pb.Artifact.LIVE,
        )
        if artifact.id is not None:
            proto.id = artifact.id
        else:
            proto.name = name
        properties: dict[str, PropertyValue] = {
            "tfx_version": TFX_VERSION,
            "is_external": int(is_external),
            "digest": artifact.digest,
            **artifact.properties,
        }
        for key, value in properties.items():
            typed = kind.PROPERTIES.get(key)
            slots = proto.custom_properties if typed is None else proto.properties
            try:
                if typed is not None and not isinstance(value, typed):
                    raise TypeError(f"it takes {typed.__name__}")
                _set(slots[key], value, is_typed=typed is not None)
            except (TypeError, ValueError) as error:
                raise PipelineError(
                    f"Property '{key}' of '{artifact.source or artifact.uri}' is "
                    f"{value!r} ({type(value).__name__}), which cannot be recorded: "
                    f"{error}. Set text, a number, or a list or dict of them."
                ) from error
        return proto

    def set_artifact_state(
        self, artifacts: Iterable[Artifact], state: ArtifactState
    ) -> None:
        """Record in one transaction how artifacts of the store stand.

        Args:
            artifacts: The artifacts, which are given that state themselves too.
            state: How they stand from now on.
        """
        changed = {each.id: each for each in artifacts if each.id is not None}
        protos = self._artifact_protos(changed)
        for proto in protos.values():
            proto.state = self._pb.Artifact.State.Value(state.name)
        self._patiently(lambda: self._mlmd.put_artifacts(list(protos.values())))
        for artifact in changed.values():
            artifact.state = state

    # Reading -------------------------------------------------------------------

    def _execution_proto(self, id: int) -> metadata_store_pb2.Execution:
        return self._patiently(lambda: self._mlmd.get_executions_by_id([id]))[0]

    def _artifact_protos(
        self, ids: Iterable[int]
    ) -> dict[int, metadata_store_pb2.Artifact]:
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        found = self._patiently(lambda: self._mlmd.get_artifacts_by_id(wanted))
        return {int(proto.id): proto for proto in found}

    def _type_name(self, type_id: int, kind: str) -> str:
        if type_id not in self._types:
            calls = {
                "artifact": self._mlmd.get_artifact_types,
                "execution": self._mlmd.get_execution_types,
            }
            for proto in self._patiently(calls[kind]):
                self._types[int(proto.id)] = proto.name
        return self._types[type_id]

    def _artifact(self, proto: metadata_store_pb2.Artifact) -> Artifact:
        kind = self.kind(self._type_name(proto.type_id, "artifact"))
        properties = {
            key: _get(value)
            for values in (proto.properties, proto.custom_properties)
            for key, value in values.items()
        }
        artifact = kind(
            proto.uri,
            properties=properties,
            digest=str(properties.get("digest", "")),
            id=int(proto.id),
            records=self,
        )
        state = self._pb.Artifact.State.Name(proto.state)
        if state in ArtifactState.__members__:
            artifact.state = ArtifactState[state]
        return artifact

    def kind(self, name: str) -> type[Artifact]:
        """Return the class that stands for an artifact type of the store.

        One that is neither ours nor, as a class that is imported, the user's own is
        another tool's, or of a module that is not loaded: it gets a class of its name.
        """
        known = ARTIFACT_TYPES.get(name) or _users_kind(Artifact, name)
        return known or type(name, (Artifact,), {"TYPE_NAME": name})

    def artifact(self, id: int) -> Artifact:
        """Return an artifact by its number.

        Raises:
            MetadataError: If there is none.
        """
        found = self.find_artifact(id)
        if found is None:
            raise MetadataError(
                f"Artifact {id} is not in the lineage store "
                f"'{_without_password(self.url)}'. 'penstock artifacts' lists what is."
            )
        return found

    def find_artifact(self, id: int) -> Artifact | None:
        """Return an artifact by its number, or None if there is none."""
        found = self._artifact_protos([id])
        return self._artifact(found[id]) if found else None

    def artifacts(
        self, kind: type[Artifact] | str | None = None, *, pipeline: str | None = None
    ) -> list[Artifact]:
        """Return artifacts in the order they were recorded.

        Args:
            kind: Only those of this type, by class or name.
            pipeline: Only those of this pipeline.
        """
        name = kind if isinstance(kind, str) or kind is None else kind.TYPE_NAME
        if pipeline is not None:
            context = self._patiently(
                lambda: self._mlmd.get_context_by_type_and_name("pipeline", pipeline)
            )
            if context is None:
                return []
            protos = self._patiently(
                lambda: self._mlmd.get_artifacts_by_context(context.id)
            )
        elif name is not None:
            protos = self._patiently(lambda: self._mlmd.get_artifacts_by_type(name))
        else:
            protos = self._patiently(lambda: self._mlmd.get_artifacts())
        found = [self._artifact(proto) for proto in sorted(protos, key=_by_id)]
        return [each for each in found if name in (None, each.TYPE_NAME)]

    def artifacts_at(self, uri: str) -> list[Artifact]:
        """Return the artifacts with a location, in the order they were recorded."""
        protos = self._patiently(lambda: self._mlmd.get_artifacts_by_uri(uri))
        return [self._artifact(proto) for proto in sorted(protos, key=_by_id)]

    def newest_artifacts(self, kind: type[Artifact]) -> Iterator[Artifact]:
        """Yield the artifacts of a type, the one that was recorded last first.

        Little is read for the first ones, however long the history is.

        Args:
            kind: The type.
        """
        low = 0
        for block in self._newest_blocks(
            self._mlmd.get_artifacts, self._mlmd.get_artifacts_by_id
        ):
            low = block[-1].id
            for proto in block:
                if self._type_name(proto.type_id, "artifact") == kind.TYPE_NAME:
                    yield self._artifact(proto)
        # ML Metadata's own paging sorts all that it chooses from, for every page.
        for artifact in reversed(self.artifacts(kind) if low > 1 else []):
            if artifact.id is not None and artifact.id < low:
                yield artifact

    def _newest_blocks(
        self,
        list_with: Callable[[Any], list[Any]],
        get_by_id: Callable[[list[int]], list[Any]],
    ) -> Iterator[list[Any]]:
        """Yield the newest protos of a kind in blocks, the newest first."""
        newest = self._patiently(lambda: list_with(self._newest_first(1)))
        end = int(newest[0].id) if newest else 0
        for high in range(end, max(end - _NEWEST, 0), -_BLOCK):
            ids = list(range(max(high - _BLOCK, 0) + 1, high + 1))
            block = self._patiently(lambda ids=ids: get_by_id(ids))  # type: ignore[misc]
            if block:
                yield sorted(block, key=_by_id, reverse=True)

    def _contexts_around(
        self, call: Callable[[], list[metadata_store_pb2.Context]]
    ) -> list[metadata_store_pb2.Context]:
        """Return the contexts of something, which may be in none."""
        try:
            return self._patiently(call)
        except MetadataError as error:
            if "No contexts found" not in str(error.__cause__):
                raise
            return []

    @property
    def pipelines(self) -> Pipelines:
        """The pipelines that the store knows, by name, with their runs."""
        from penstock.pipelines.history import Pipelines

        return Pipelines(self)

    def pipeline_names(self) -> list[str]:
        """Return the names of the pipelines, in the order of their first runs."""
        contexts = self._patiently(lambda: self._mlmd.get_contexts_by_type("pipeline"))
        return [each.name for each in sorted(contexts, key=_by_id)]

    def newest_runs(self, pipeline: str | None = None) -> Iterator[RunRecord]:
        """Yield runs, the newest first.

        Little is read for the first ones, however long the history is.

        Args:
            pipeline: Only those of this pipeline.
        """
        low = 0
        for block in self._newest_blocks(
            self._mlmd.get_contexts, self._mlmd.get_contexts_by_id
        ):
            low = block[-1].id
            for context in block:
                if context.type == "pipeline_run":
                    run = self._run(context)
                    if pipeline in (None, run.pipeline):
                        yield run
        for context in reversed(self._run_contexts(pipeline) if low > 1 else []):
            if context.id < low:
                yield self._run(context)

    def _run_contexts(self, pipeline: str | None) -> list[metadata_store_pb2.Context]:
        if pipeline is None:
            found = self._patiently(
                lambda: self._mlmd.get_contexts_by_type("pipeline_run")
            )
        else:
            parent = self._find_context("pipeline", pipeline)
            if parent is None:
                return []
            found = self._patiently(
                lambda: self._mlmd.get_children_contexts_by_context(parent.id)
            )
        return sorted(found, key=_by_id)

    def runs(self, pipeline: str | None = None) -> list[RunRecord]:
        """Return the runs in the order they began.

        Args:
            pipeline: Only those of this pipeline.
        """
        return [self._run(context) for context in self._run_contexts(pipeline)]

    def run(self, run_id: str) -> RunRecord:
        """Return a run by its id.

        Raises:
            MetadataError: If there is none.
        """
        return self._run(self._run_context(run_id))

    def find_run(self, run_id: str) -> RunRecord | None:
        """Return a run by its id, or None if there is none."""
        context = self._find_context("pipeline_run", run_id)
        return None if context is None else self._run(context)

    def _run_context(self, run_id: str) -> metadata_store_pb2.Context:
        context = self._find_context("pipeline_run", run_id)
        if context is None:
            raise MetadataError(
                f"Run '{run_id}' is not in the lineage store "
                f"'{_without_password(self.url)}'. 'penstock runs' lists what is."
            )
        return context

    def _run(self, context: metadata_store_pb2.Context) -> RunRecord:
        parents = self._patiently(
            lambda: self._mlmd.get_parent_contexts_by_context(context.id)
        )
        properties = {
            key: _get(value) for key, value in context.custom_properties.items()
        }
        finished = properties.get("penstock_finished")
        created = context.create_time_since_epoch / 1_000
        return RunRecord(
            id=context.name,
            pipeline=parents[0].name if parents else "",
            state=RunState(properties.get("penstock_state", "complete")),
            reason=str(properties.get("reason", "")),
            started=_number(properties.get("penstock_started")) or created,
            finished=_number(finished),
            properties=properties,
        )

    def executions(self, run_id: str) -> list[ExecutionRecord]:
        """Return the executions of a run in the order they began.

        Raises:
            MetadataError: If there is no such run.
        """
        context = self._run_context(run_id)
        protos = self._patiently(
            lambda: self._mlmd.get_executions_by_context(context.id)
        )
        return self._records(sorted(protos, key=_by_id))

    def executions_of_type(self, type_name: str) -> list[ExecutionRecord]:
        """Return the executions of a type, of all runs, in the order they began."""
        protos = self._patiently(lambda: self._mlmd.get_executions_by_type(type_name))
        return self._records(sorted(protos, key=_by_id))

    def upstream(self, artifact: Artifact, kind: type[_A]) -> tuple[_A, ...]:
        """Return the artifacts of a type that one came from; see `lineage.upstream`."""
        from penstock.pipelines import lineage

        found = lineage.upstream(self, artifact).of(kind)
        return tuple(each for each in found if each.id != artifact.id)

    def downstream(self, artifact: Artifact, kind: type[_A]) -> tuple[_A, ...]:
        """Return the artifacts of a type that came of one; see `lineage.downstream`."""
        from penstock.pipelines import lineage

        found = lineage.downstream(self, artifact).of(kind)
        return tuple(each for each in found if each.id != artifact.id)

    def producers(self, artifacts: Iterable[Artifact]) -> list[ExecutionRecord]:
        """Return the executions that these artifacts were first written by."""
        return self.executions_by_id(self.first_producers(artifacts))

    def consumers(self, artifacts: Iterable[Artifact]) -> list[ExecutionRecord]:
        """Return the executions that read these artifacts."""
        return self.executions_by_id(self.readers(artifacts))

    def executions_by_id(
        self, ids: Iterable[int], known: dict[int, Artifact] | None = None
    ) -> list[ExecutionRecord]:
        """Return executions by their numbers, in the order they began.

        Args:
            ids: The numbers; those of no execution are left out.
            known: Artifacts by number that need not be read; those that are read are
                added to it.
        """
        wanted = sorted(set(ids))
        if not wanted:
            return []
        protos = self._patiently(lambda: self._mlmd.get_executions_by_id(wanted))
        return self._records(sorted(protos, key=_by_id), known)

    def first_producers(self, artifacts: Iterable[Artifact]) -> set[int]:
        """Return the numbers of the executions that first wrote these artifacts."""
        return set(self._first_writers(artifacts).values())

    def first_records(
        self, artifacts: Iterable[Artifact]
    ) -> dict[int, ExecutionRecord]:
        """Return what first wrote each of these artifacts, by the artifact's number.

        What nothing wrote is left out.
        """
        writers = self._first_writers(artifacts)
        records = {each.id: each for each in self.executions_by_id(writers.values())}
        return {id: records[each] for id, each in writers.items() if each in records}

    def _first_writers(self, artifacts: Iterable[Artifact]) -> dict[int, int]:
        """Return the execution that first wrote each artifact, by its number.

        Cached executions stand for what an earlier one wrote. Artifacts say which that
        was: an artifact that every run reads has more events than can be looked through
        for it. Only those that TFX wrote, or an older penstock, do not.
        """
        found: dict[int, int] = {}
        silent = []
        for each in artifacts:
            said = each.properties.get("penstock_execution")
            if each.id is None:
                continue
            if isinstance(said, int | float):
                found[each.id] = int(said)
            elif not _is_from_outside(each):
                silent.append(each.id)
        first: dict[int, tuple[int, int]] = {}
        for event in self._events_of(silent):
            if event.type in self._writing_events():
                mark = (int(event.milliseconds_since_epoch), int(event.execution_id))
                id = int(event.artifact_id)
                first[id] = min(first.get(id, mark), mark)
        return found | {id: execution for id, (_, execution) in first.items()}

    def readers(self, artifacts: Iterable[Artifact]) -> dict[int, set[str]]:
        """Return the keys under which artifacts were read, by number of execution."""
        found: dict[int, set[str]] = {}
        for event in self._events_of(each.id for each in artifacts if each.id):
            if event.type not in self._output_events():
                keys = found.setdefault(int(event.execution_id), set())
                keys.update(key for key, _ in _path(event))
        return found

    def _events_of(self, artifact_ids: Iterable[int]) -> list[metadata_store_pb2.Event]:
        ids = sorted(set(artifact_ids))
        if not ids:
            return []
        return self._patiently(lambda: self._mlmd.get_events_by_artifact_ids(ids))

    def _output_events(self) -> tuple[int, ...]:
        event = self._pb.Event
        return (event.OUTPUT, event.DECLARED_OUTPUT, event.INTERNAL_OUTPUT)

    def _records(
        self,
        protos: Sequence[metadata_store_pb2.Execution],
        known: dict[int, Artifact] | None = None,
    ) -> list[ExecutionRecord]:
        if not protos:
            return []
        made = {} if known is None else known
        ids = [proto.id for proto in protos]
        events = self._patiently(lambda: self._mlmd.get_events_by_execution_ids(ids))
        unknown = {int(event.artifact_id) for event in events} - made.keys()
        for id, proto in self._artifact_protos(unknown).items():
            made[id] = self._artifact(proto)
        slots: dict[int, dict[tuple[bool, str], list[tuple[int, Artifact]]]] = {}
        for event in events:
            is_output = event.type in self._output_events()
            own = slots.setdefault(int(event.execution_id), {})
            for key, index in _path(event):
                listed = own.setdefault((is_output, key), [])
                listed.append((index, made[event.artifact_id]))
        return [self._record(proto, slots.get(proto.id, {})) for proto in protos]

    def _record(
        self,
        proto: metadata_store_pb2.Execution,
        slots: Mapping[tuple[bool, str], list[tuple[int, Artifact]]],
    ) -> ExecutionRecord:
        properties = {
            key: _get(value) for key, value in proto.custom_properties.items()
        }
        pipeline, run_id, component = (
            str(properties.get(f"penstock_{name}", ""))
            for name in ("pipeline", "run", "component")
        )
        if not run_id:  # written by TFX, by an older penstock, or outside of any run
            contexts = self._contexts_around(
                lambda: self._mlmd.get_contexts_by_execution(proto.id)
            )
            names = {context.type: context.name for context in contexts}
            pipeline = names.get("pipeline", "")
            run_id = names.get("pipeline_run", "")
            component = component or names.get("node", "").removeprefix(f"{pipeline}.")
        sides: tuple[dict[str, tuple[Artifact, ...]], ...] = ({}, {})
        for (is_output, key), items in slots.items():
            ordered = tuple(each for _, each in sorted(items, key=lambda i: i[0]))
            sides[is_output][key] = ordered
        created = proto.create_time_since_epoch / 1_000
        return ExecutionRecord(
            id=int(proto.id),
            component=component,
            type=self._type_name(proto.type_id, "execution"),
            run_id=run_id,
            pipeline=pipeline,
            state=self._state(proto, properties),
            reason=str(properties.get("reason", "")),
            started=_number(properties.get("penstock_started")) or created,
            seconds=_number(properties.get("penstock_seconds")),
            properties=properties,
            inputs=sides[False],
            outputs=sides[True],
        )

    def _state(
        self,
        proto: metadata_store_pb2.Execution,
        properties: Mapping[str, PropertyValue],
    ) -> State:
        ours = properties.get("penstock_state")
        if isinstance(ours, str):
            return State(ours)
        name = self._pb.Execution.State.Name(proto.last_known_state)
        return State[name] if name in State.__members__ else State.RUNNING

    # Newest first --------------------------------------------------------------

    def newest(
        self, *kinds: type[Artifact], pipeline: str, component: str = ""
    ) -> Iterator[Written]:
        """Yield what a pipeline wrote or took from the cache, the last first.

        Who stops early pays for what is recent, however long the history is: the
        newest executions are found by their numbers, in pages. (Of a context, ML
        Metadata finds not even the newest without a look at all that it has.) Only
        what is not found among the last of all pipelines takes such a look.

        Args:
            kinds: The types of artifacts.
            pipeline: Name of the pipeline.
            component: Only what this component wrote.
        """
        names = {each.TYPE_NAME for each in kinds}
        context = self._find_context("pipeline", pipeline)
        if context is None:
            return
        last = 0
        for page in self._pages():
            own = [each for each in page if self._is_of(each, pipeline, component)]
            yield from self._written(own, names)
            last = page[-1].id if page else last
        if last > 1:
            for each in self._all_written(context, names, pipeline, component):
                if each.execution_id < last:
                    yield each

    def _all_written(
        self,
        context: metadata_store_pb2.Context,
        names: Collection[str],
        pipeline: str,
        component: str,
    ) -> list[Written]:
        """Return each artifact of a context with the last execution that wrote it."""
        stored = {each.id: each for each in self._artifacts_in(context, names)}
        writers = self._last_writers(stored, pipeline, component)
        ranked = sorted(writers, key=lambda id: (writers[id].id, id), reverse=True)
        return [self._as_written(stored[id], writers[id]) for id in ranked]

    def _artifacts_in(
        self, context: metadata_store_pb2.Context, names: Collection[str]
    ) -> list[metadata_store_pb2.Artifact]:
        found = self._patiently(lambda: self._mlmd.get_artifacts_by_context(context.id))
        return [
            each for each in found if self._type_name(each.type_id, "artifact") in names
        ]

    def _executions(self, ids: Iterable[int]) -> list[metadata_store_pb2.Execution]:
        """Return the executions that there are with these numbers, the newest first."""
        found = self._patiently(lambda: self._mlmd.get_executions_by_id(list(ids)))
        return sorted(found, key=_by_id, reverse=True)

    def _is_of(
        self, proto: metadata_store_pb2.Execution, pipeline: str, component: str = ""
    ) -> bool:
        """Return whether an execution is of a pipeline, and of a component if named."""
        said = proto.custom_properties
        if "penstock_pipeline" in said:
            names = ("", said["penstock_component"].string_value)
            return said["penstock_pipeline"].string_value == pipeline and (
                component in names
            )
        # Written by TFX, by an older penstock, or outside of any run.
        contexts = self._contexts_around(
            lambda: self._mlmd.get_contexts_by_execution(proto.id)
        )
        found = {(each.type, each.name) for each in contexts}
        return ("pipeline", pipeline) in found and (
            not component or ("node", f"{pipeline}.{component}") in found
        )

    def _written(
        self, protos: Sequence[metadata_store_pb2.Execution], names: Collection[str]
    ) -> Iterator[Written]:
        """Yield the outputs of executions, those of some types."""
        ids = [int(proto.id) for proto in protos]
        if not ids:
            return
        events = self._patiently(lambda: self._mlmd.get_events_by_execution_ids(ids))
        outputs: dict[int, set[int]] = {}
        for event in events:
            if event.type in self._writing_events():
                outputs.setdefault(event.execution_id, set()).add(event.artifact_id)
        stored = self._artifact_protos(itertools.chain(*outputs.values()))
        for proto in protos:
            for id in sorted(outputs.get(proto.id, ()), reverse=True):
                if self._type_name(stored[id].type_id, "artifact") in names:
                    yield self._as_written(stored[id], proto)

    def _as_written(
        self,
        proto: metadata_store_pb2.Artifact,
        execution: metadata_store_pb2.Execution,
    ) -> Written:
        artifact = self._artifact(proto)
        return Written(
            artifact,
            int(execution.id),
            execution.custom_properties["penstock_component"].string_value,
            is_first=artifact.properties.get("penstock_execution") == execution.id,
            is_live=self._is_live(proto),
        )

    def _writing_events(self) -> tuple[int, ...]:
        # Not INTERNAL_OUTPUT: what a Resolver of TFX found, it did not write.
        return (self._pb.Event.OUTPUT, self._pb.Event.DECLARED_OUTPUT)

    def _is_live(self, proto: metadata_store_pb2.Artifact) -> bool:
        gone = ("PENDING", "MARKED_FOR_DELETION", "DELETED", "ABANDONED")
        return self._pb.Artifact.State.Name(proto.state) not in gone

    def find_live(self, id: int) -> Artifact | None:
        """Return an artifact by its number, or None if it is deleted or not there."""
        found = self._artifact_protos([id])
        is_live = id in found and self._is_live(found[id])
        return self._artifact(found[id]) if is_live else None

    def last_writers(
        self, artifacts: Iterable[Artifact], *, pipeline: str, component: str = ""
    ) -> dict[int, int]:
        """Return, by artifact, the last execution that it is an output of.

        Args:
            artifacts: Artifacts of the store.
            pipeline: Only executions of this pipeline.
            component: Only executions of this component.

        Returns:
            Numbers of executions by numbers of artifacts; without those that nothing
            here wrote or took from the cache.
        """
        ids = [each.id for each in artifacts if each.id is not None]
        found = self._last_writers(ids, pipeline, component)
        return {id: int(each.id) for id, each in found.items()}

    def _last_writers(
        self, ids: Iterable[int], pipeline: str, component: str
    ) -> dict[int, metadata_store_pb2.Execution]:
        return self._newest_seen(
            self._linked(ids, self._writing_events()),
            lambda page: {
                int(each.id): each
                for each in page
                if self._is_of(each, pipeline, component)
            },
        )

    def _linked(
        self,
        ids: Iterable[int],
        kinds: tuple[int, ...],
        but: Collection[str] = (),
    ) -> dict[int, list[int]]:
        """Return the executions that events of some kinds link artifacts to.

        The newest first, by the number of the artifact; without events that have only
        these keys.
        """
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        events = self._patiently(lambda: self._mlmd.get_events_by_artifact_ids(wanted))
        linked: dict[int, set[int]] = {}
        for event in events:
            if event.type in kinds and any(key not in but for key, _ in _path(event)):
                linked.setdefault(int(event.artifact_id), set()).add(
                    int(event.execution_id)
                )
        return {id: sorted(found, reverse=True) for id, found in linked.items()}

    def last_made_of(
        self, artifacts: Iterable[Artifact], kind: type[_A], *, but: Collection[str]
    ) -> dict[int, _A]:
        """Return, by artifact, the last of a type that came of reading it.

        Args:
            artifacts: Artifacts of the store.
            kind: The type of what came of them.
            but: Keys of inputs: reading an artifact only as one of these counts not.

        Returns:
            Artifacts by the numbers of those that were read.
        """
        ids = [each.id for each in artifacts if each.id is not None]
        reading = (self._pb.Event.INPUT, self._pb.Event.DECLARED_INPUT)
        return self._newest_seen(
            self._linked(ids, reading, but),
            lambda page: {
                each.execution_id: each.artifact
                for each in self._written(page, {kind.TYPE_NAME})
                if isinstance(each.artifact, kind)
            },
        )

    def _newest_seen(
        self,
        linked: Mapping[int, Sequence[int]],
        look: Callable[[list[metadata_store_pb2.Execution]], Mapping[int, _T]],
    ) -> dict[int, _T]:
        """Return, by artifact, what is seen in the first of its executions to have any.

        Args:
            linked: Executions by artifact, the newest first.
            look: Returns what is seen in executions, by their numbers.
        """
        found: dict[int, _T] = {}
        left, each_time = dict(linked), 8
        while left:
            pages = {id: some[:each_time] for id, some in left.items()}
            seen = look(self._executions(set(itertools.chain(*pages.values()))))
            for id, some in pages.items():
                hits = [seen[number] for number in some if number in seen]
                if hits:
                    found[id] = hits[0]
            left = {
                id: some[each_time:]
                for id, some in left.items()
                if id not in found and some[each_time:]
            }
        return found

    # Spans ---------------------------------------------------------------------

    def examples_by_span(
        self,
        pipeline: str,
        *,
        first: int | None = None,
        last: int | None = None,
        deleted: bool = False,
    ) -> Iterator[list[Examples]]:
        """Yield the Examples of a pipeline that have a span, in groups.

        All those of greater spans come in an earlier group than those of lesser ones.

        Args:
            pipeline: Name of the pipeline.
            first: Leave out lesser spans.
            last: Leave out greater spans.
            deleted: Give those too whose files are deleted.
        """
        low = -math.inf if first is None else first
        high = math.inf if last is None else last
        top = self._find_context(_SPANS, pipeline)
        if top is None or not top.custom_properties["is_whole"].int_value:
            everything = self._find_context("pipeline", pipeline)
            if everything is not None:
                yield self._examples_in(everything, low, high, deleted)
            return
        below = self._patiently(
            lambda: self._mlmd.get_children_contexts_by_context(top.id)
        )
        blocks = {int(each.name.rpartition(":")[2]): each for each in below}
        for block in sorted(blocks, reverse=True):
            start, end = block * _SPANS_EACH, (block + 1) * _SPANS_EACH
            if low < end and start <= high:
                # What was read to make them is there too, whatever its span.
                least, most = max(low, start), min(high, end - 1)
                yield self._examples_in(blocks[block], least, most, deleted)

    def _examples_in(
        self,
        context: metadata_store_pb2.Context,
        low: float,
        high: float,
        deleted: bool,
    ) -> list[Examples]:
        found = self._artifacts_in(context, {Examples.TYPE_NAME})
        wanted = [each for each in found if deleted or self._is_live(each)]
        return [
            each
            for each in map(self._artifact, wanted)
            if isinstance(each, Examples)
            and each.span is not None
            and low <= each.span <= high
        ]

    def _span_contexts(
        self, pipeline: str, outputs: Iterable[Artifact]
    ) -> list[metadata_store_pb2.Context]:
        """Return the contexts that `examples_by_span` shall find outputs in."""
        blocks = {
            each.span // _SPANS_EACH
            for each in outputs
            if isinstance(each, Examples) and each.span is not None
        }
        return [self._span_context(pipeline, block) for block in sorted(blocks)]

    def _span_context(self, pipeline: str, block: int) -> metadata_store_pb2.Context:
        top = self._find_context(_SPANS, pipeline)
        if top is None:
            # Examples from before there were such contexts are in none: to find them,
            # one has to look at all that the pipeline has.
            is_whole = not any(
                isinstance(each, Examples) and each.span is not None
                for each in self.artifacts(Examples, pipeline=pipeline)
            )
            top = self._context(_SPANS, pipeline, {"is_whole": int(is_whole)})
        context = self._context(_SPANS, f"{pipeline}:{block}")
        if not self._patiently(
            lambda: self._mlmd.get_parent_contexts_by_context(context.id)
        ):
            link = self._pb.ParentContext(parent_id=top.id, child_id=context.id)
            self._put_once(lambda: self._mlmd.put_parent_contexts([link]))
        return context


def recorded(value: Any) -> PropertyValue:
    """Return a parameter as the store keeps it: a number, text, or JSON as text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, int | float | str):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return {
            "kind": type(value).__name__,
            **{
                each.name: _plain(getattr(value, each.name))
                for each in dataclasses.fields(value)
            },
        }
    if hasattr(value, "DESCRIPTOR"):
        from google.protobuf import json_format

        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def traceback_tail(text: str) -> str:
    """Return the last lines of a traceback, as many as the store keeps."""
    return "\n".join(text.rstrip().splitlines()[-_TRACEBACK_LINES:])


def _set(
    slot: metadata_store_pb2.Value, value: PropertyValue, *, is_typed: bool = False
) -> None:
    """Put a value where the store keeps it as it is.

    What a column would change or refuse goes into a struct, as TFX has it for what
    is no number and no text; a typed property has no choice.
    """
    if isinstance(value, numbers.Integral):  # NumPy's among them
        # MySQL and PostgreSQL have 32 bits, and a struct's numbers 53.
        if is_typed or -(2**31) <= value < 2**31:
            slot.int_value = int(value)
        else:
            _wrap(slot, {"__int__": str(int(value))})
    elif isinstance(value, numbers.Real):
        # SQL has no NaN: stored as one, it would come back as nothing.
        if not math.isfinite(value):
            slot.string_value = str(float(value))
        elif is_typed or _is_kept(float(value)):
            slot.double_value = float(value)
        else:
            _wrap(slot, {"__value__": float(value)})
    elif isinstance(value, str):
        # Text that is not UTF-8 (undecodable file names) must not fail the record, and
        # SQLite ends text at a NUL.
        text = value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        if text == "__MLMD_NULL__" and not is_typed:  # its word for nothing at all
            _wrap(slot, {"__value__": text})
        else:
            slot.string_value = text
    elif isinstance(value, dict | list | tuple):
        # TFX wraps what is no dict.
        _wrap(slot, value if isinstance(value, dict) else {"__value__": list(value)})
    else:
        raise TypeError("the store has no such kind of value")


def _wrap(slot: metadata_store_pb2.Value, value: dict[str, Any]) -> None:
    slot.struct_value.Clear()
    slot.struct_value.update(value)


def _is_kept(value: float) -> bool:
    """Whether a number is the same after ml_metadata has written it into SQL.

    It writes six decimals (std::to_string), SQLite gives back fifteen digits, and
    MySQL takes no more than 65.
    """
    return abs(value) < 1e15 and float(f"{float(f'{value:f}'):.15g}") == value


def _get(slot: metadata_store_pb2.Value) -> PropertyValue:
    which = slot.WhichOneof("value")
    if which == "struct_value":
        plain = _unwrapped(slot)
        if "__int__" in plain:
            return int(plain["__int__"])
        inner: PropertyValue = plain.get("__value__", plain)
        return inner
    if which is None:
        return ""
    value: PropertyValue = getattr(slot, which)
    return value


def _unwrapped(value: Any) -> Any:
    """Return what a struct holds; json_format would refuse NaN."""
    which = value.WhichOneof(value.DESCRIPTOR.oneofs[0].name)
    if which == "struct_value":
        fields = value.struct_value.fields
        return {key: _unwrapped(each) for key, each in fields.items()}
    if which == "list_value":
        return [_unwrapped(each) for each in value.list_value.values]
    return None if which == "null_value" else getattr(value, which)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _users_kind(parent: type[Artifact], name: str) -> type[Artifact] | None:
    """Return the class below another one that somebody declared for a type."""
    for each in parent.__subclasses__():
        if name == each.TYPE_NAME and each.__module__ != __name__:
            return each
        if found := _users_kind(each, name):
            return found
    return None


def _is_from_outside(artifact: Artifact) -> bool:
    """Return whether penstock recorded an artifact that no execution made.

    TFX's importer writes what it calls external, and no digests.
    """
    is_external = artifact.properties.get("is_external") == 1
    return is_external and "digest" in artifact.properties


def _has_parts(proto: metadata_store_pb2.Execution) -> bool:
    return "penstock_parts" in proto.custom_properties


def _by_id(proto: Any) -> int:
    return int(proto.id)


def _event(
    pb: Any, kind: int, path: Iterable[tuple[str, int]], artifact_id: int | None = None
) -> metadata_store_pb2.Event:
    event = pb.Event(type=kind)
    if artifact_id is not None:
        event.artifact_id = artifact_id
    for key, index in path:
        event.path.steps.add().key = key
        event.path.steps.add().index = index
    return event


def _path(event: metadata_store_pb2.Event) -> list[tuple[str, int]]:
    """Return the pairs of key and index that an event's path lists."""
    pairs = []
    key = ""
    for step in event.path.steps:
        if step.WhichOneof("value") == "key":
            key = step.key
        else:
            pairs.append((key, int(step.index)))
    return pairs or [(key, 0)]


_LOCKED = "database is locked"

_HELD = (_LOCKED, "database table is locked", "Concurrent writes aborted")

# What ml_metadata or the database says, and what penstock says of it.
_EXPLANATIONS = {
    _HELD: (
        "is held by another process for more than {seconds:g} s. Wait for that "
        "process, or allow more time with --store-wait."
    ),
    ("unable to open database file",): (
        "cannot be opened: its folder is missing or not readable. Check the path."
    ),
    ("not a database",): (
        "is a file of another kind, no SQLite database. Name another store."
    ),
    ("readonly database", "read-only", "permission denied", "command denied"): (
        "cannot be written. Give yourself the right to write it, or name another store."
    ),
    ("disk is full", "disk I/O error"): (
        "cannot be written: its disk is full or fails. Free some space and run again."
    ),
    ("concurrent connection to the empty database", "no MLMDEnv version exist"): (
        "is half made: whoever made its tables was killed at it. Drop the database and "
        "create it again."
    ),
    ("value too long for type", "Data too long for column"): (
        "takes names of at most 255 bytes: {said} Shorten the name."
    ),
}


def _is_passing(error: Exception) -> bool:
    """Whether a call fails only because of what others do just now."""
    if type(error).__name__ == "AbortedError":
        return True
    return re.search(_PASSING, str(error)) is not None


_PASSING = "|".join(
    [
        *_HELD,
        *("[Dd]eadlock", "could not serialize access", "Lock wait timeout"),
        # PostgreSQL, where two processes make the same context at once.
        "current transaction is aborted",
    ]
)


def _is_taken(error: MetadataError) -> bool:
    """Whether a call failed because the name that it gives is given already."""
    words = "already exists|[Dd]uplicate (key|entry)"
    return re.search(words, str(error.__cause__)) is not None


def _is_lost(error: Exception) -> bool:
    """Whether a call fails because there is no connection to the server any more."""
    if type(error).__name__ == "UnavailableError":
        return True
    return re.search(_LOST, str(error)) is not None


_LOST = "|".join(
    [
        *("Lost connection", "server has gone away", "mysql_real_connect failed"),
        *("terminating connection", "server closed the connection"),
        *("connection pointer is NULL", r"PostgreSQL metadata source error:\s*$"),
    ]
)


def _shortened(text: str, most: int = 500) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {text[-most // 2 :]}"


def _load_quietly() -> None:
    """Load ml_metadata such that it keeps to itself what it otherwise prints."""
    # Every connection to PostgreSQL, and every error, which it raises too.
    level = "GLOG_minloglevel"
    is_ours = level not in os.environ
    if is_ours:
        os.environ[level] = "3"
    try:
        import ml_metadata  # noqa: F401
    finally:
        if is_ours:
            del os.environ[level]
    logging.getLogger("absl").addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a line is no connection, password included, and no error raised too."""
    beginnings = ("ConnectionConfig", "mlmd client", "%s failed after retrying")
    return not str(record.msg).startswith(beginnings)


def _without_password(url: str) -> str:
    hidden = re.sub(r"//([^:/@]*):.*@", r"//\1:…@", url)
    return re.sub(r"(://[^?#]*[?#]).*", r"\1…", hidden)


def sqlite_path(url: str) -> Path | None:
    """Return the file of an `sqlite:///` URL, or None for another kind of store."""
    if not url.startswith("sqlite:///") or url == "sqlite:///":
        return None  # elsewhere, or in memory
    return Path(unquote(url.removeprefix("sqlite:///")))


def _connection(
    url: str, *, create: bool
) -> tuple[metadata_store_pb2.ConnectionConfig, Login | None]:
    """Return the connection that a URL describes, and the login if it is to a server.

    Raises:
        MetadataError: If it describes none, or an SQLite file that is not there.
    """
    _load_quietly()
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.retry_options.max_num_retries = 1  # the store itself tries again
    path = sqlite_path(url)
    if path is not None:
        if not create and not path.is_file():
            raise MetadataError(
                f"There is no lineage store at '{path}'. Run a pipeline first, or "
                "name the store with --root or --store."
            )
        if create:
            _make_folder(path)
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        return config, None
    if url == "sqlite://":
        config.fake_database.SetInParent()
        return config, None
    login = _server(url)
    if login.scheme == "grpc":
        client = metadata_store_pb2.MetadataStoreClientConfig()
        client.host, client.port = login.host, login.port
        client.channel_arguments.max_receive_message_length = -1  # any answer
        return client, login
    # Databases are made by whoever knows how: with letters that differ by case.
    if login.scheme == "mysql":
        config.mysql.host, config.mysql.port = login.host, login.port
        config.mysql.user, config.mysql.password = login.user, login.password
        # Written into SQL as it is.
        config.mysql.database = f"`{login.database.replace('`', '``')}`"
        config.mysql.skip_db_creation = True
    else:
        # Written into libpq's connection string as they are.
        config.postgresql.host = _in_quotes(login.host)
        config.postgresql.port = str(login.port)
        config.postgresql.dbname = _in_quotes(login.database)
        config.postgresql.user = _in_quotes(login.user)
        config.postgresql.password = _in_quotes(login.password)
        config.postgresql.skip_db_creation = True
    return config, login


_PORTS = {"mysql": 3306, "postgresql": 5432}


def _server(url: str) -> Login:
    """Return what a URL says of a server.

    Raises:
        MetadataError: If it names none.
    """
    try:
        parts = urlsplit(url)
        scheme = "postgresql" if parts.scheme == "postgres" else parts.scheme
        login = Login(
            scheme,
            parts.hostname or "",
            parts.port or _PORTS.get(scheme, 0),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")),
        )
    except ValueError as error:  # a port that is none
        raise _no_store(url) from error
    named = bool(login.user), bool(login.database)
    wanted = {"grpc": (False, False)}.get(scheme, (True, True))
    is_known = scheme == "grpc" or scheme in _PORTS
    if not (is_known and login.host and login.port and named == wanted):
        raise _no_store(url)
    if parts.query or parts.fragment:
        raise MetadataError(
            f"'{_without_password(url)}' has options ('?' or '#'), and lineage stores "
            "take none. Leave them out; in a password, '?' and '#' are written %3F "
            "and %23."
        )
    return login


def _in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _no_store(url: str) -> MetadataError:
    return MetadataError(
        f"'{_without_password(url)}' does not describe a lineage store. Write "
        "sqlite:///PATH, mysql://USER:PASSWORD@HOST:PORT/DATABASE, "
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE or grpc://HOST:PORT."
    )


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MetadataError(
            f"The lineage store '{path}' cannot be made: {error.strerror}: "
            f"'{error.filename}'. Choose a folder that you may write to."
        ) from error
    # Empty for now, so that processes take turns from the first moment. Where it
    # cannot be made, opening it says so.
    with suppress(OSError):
        path.touch(exist_ok=False)
