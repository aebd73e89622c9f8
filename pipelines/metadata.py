"""The lineage store on ML Metadata; the only module that imports it.

Types, properties, contexts and event paths are TFX's, so that its tools read what
is written here. ml-metadata 1.21 has neither filter queries nor lineage subgraphs:
everything here is plain look-ups by id, type, context and event.
"""

from __future__ import annotations

import dataclasses
import enum
import fcntl
import itertools
import json
import math
import numbers
import os
import re
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from penstock.schemas.artifacts import (
    ARTIFACT_TYPES,
    Artifact,
    ArtifactState,
    Examples,
    ExternalArtifact,
    PropertyValue,
)
from penstock.schemas.errors import MetadataError, PipelineError

if TYPE_CHECKING:
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    from penstock.components.base import Component

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
        self._lock = threading.RLock()
        config = _connection(url, create=create)
        path = sqlite_path(url)
        if path is not None and _is_other_database(path):
            raise MetadataError(
                f"The lineage store '{url}' is an SQLite database with other tables, "
                "no ML Metadata store. Name another store."
            )
        # The import is here, where a store is opened, and nowhere on the way.
        from ml_metadata.metadata_store import metadata_store
        from ml_metadata.proto import metadata_store_pb2

        self._pb = metadata_store_pb2
        self._mlmd: metadata_store.MetadataStore = None
        self._mlmd = self._patiently(lambda: metadata_store.MetadataStore(config))
        self._type_ids: dict[str, int] = {}
        self._types: dict[int, str] = {}
        self._contexts: dict[tuple[str, str], metadata_store_pb2.Context] = {}

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call, and call again while another process holds the store.

        ml_metadata waits for a held SQLite file itself, for seconds on end and without
        letting go of the interpreter: no signal, no other thread gets through. So it
        is only called when nobody else holds the file.
        """
        started = time.monotonic()
        path = sqlite_path(self.url)
        while True:
            is_late = time.monotonic() - started > self.wait_seconds
            if path is not None and _is_held_elsewhere(path):
                if is_late:
                    raise self._explained(_LOCKED)
                time.sleep(0.02)
                continue
            try:
                with self._lock:
                    return call()
            except Exception as error:  # ml_metadata raises its own and RuntimeError
                text = str(error)
                if _is_locked(text) and not is_late:
                    time.sleep(0.02)
                    continue
                raise self._explained(text) from error

    def _explained(self, text: str) -> MetadataError:
        where = f"The lineage store '{_without_password(self.url)}'"
        newer = re.search(r"database version (\d+) is greater .* version (\d+)", text)
        if newer:
            return MetadataError(
                f"{where} was written by a newer ml-metadata (its schema is version "
                f"{newer[1]}, this one reads up to {newer[2]}). Upgrade ml-metadata, "
                "or name another store."
            )
        if _is_locked(text):
            return MetadataError(
                f"{where} is held by another process for more than "
                f"{self.wait_seconds:g} s. Wait for that process, or allow more time "
                "with --store-wait."
            )
        if "unable to open database file" in text:
            return MetadataError(
                f"{where} cannot be opened: its folder is missing or not readable. "
                "Check the path."
            )
        if "not a database" in text:
            return MetadataError(
                f"{where} is a file of another kind, no SQLite database. Name another "
                "store."
            )
        if "readonly database" in text or "read-only" in text:
            return MetadataError(
                f"{where} cannot be written. Give yourself the right to write it, or "
                "name another store."
            )
        if "disk is full" in text or "disk I/O error" in text:
            return MetadataError(
                f"{where} cannot be written: its disk is full or fails. Free some "
                "space and run again."
            )
        return MetadataError(
            f"{where} refused a call: {' '.join(text.split())} Check that the server "
            "or file is there and is an ML Metadata store."
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
            self._type_ids[key] = self._patiently(
                lambda: self._mlmd.put_artifact_type(
                    proto, can_add_fields=True, can_omit_fields=True
                )
            )
        return self._type_ids[key]

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
            self._type_ids[key] = self._patiently(
                lambda: self._mlmd.put_execution_type(
                    proto, can_add_fields=True, can_omit_fields=True
                )
            )
        return self._type_ids[key]

    def _context_proto(self, kind: str, name: str) -> metadata_store_pb2.Context:
        """Return a context of a type and name that may not be there yet."""
        key = f"context {kind}"
        if key not in self._type_ids:
            proto = self._pb.ContextType(name=kind)
            self._type_ids[key] = self._patiently(
                lambda: self._mlmd.put_context_type(
                    proto, can_add_fields=True, can_omit_fields=True
                )
            )
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
            if "already exists" not in str(error.__cause__):
                raise

    def _find_context(self, kind: str, name: str) -> metadata_store_pb2.Context | None:
        return self._patiently(
            lambda: self._mlmd.get_context_by_type_and_name(kind, name)
        )

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
        newest_first = self._newest_first(20)
        protos = self._patiently(
            lambda: self._mlmd.get_executions_by_context(context.id, newest_first)
        )
        for proto in protos:
            if "penstock_parts" in proto.custom_properties:
                return self._records([proto])[0]
        return None

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
        same_place = self._patiently(
            lambda: self._mlmd.get_artifacts_by_uri(artifact.uri)
        )
        type_id = self._artifact_type(type(artifact))
        for proto in same_place:
            found = self._artifact(proto)
            same = proto.type_id == type_id and found.digest == artifact.digest
            if same and not found.is_deleted:
                return int(proto.id)
        name = f"{type(artifact).TYPE_NAME}:{artifact.uri}:{uuid.uuid4()}"
        proto = self._artifact_proto(artifact, name, is_external=True)
        return int(self._patiently(lambda: self._mlmd.put_artifacts([proto]))[0])

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
                _set(slots[key], value)
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
        )
        state = self._pb.Artifact.State.Name(proto.state)
        if state in ArtifactState.__members__:
            artifact.state = ArtifactState[state]
        return artifact

    def kind(self, name: str) -> type[Artifact]:
        """Return the class that stands for an artifact type of the store."""
        known = ARTIFACT_TYPES.get(name)
        # Else it is a type of the user's own, or another tool's.
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

    def runs(self, pipeline: str | None = None) -> list[RunRecord]:
        """Return the runs in the order they began.

        Args:
            pipeline: Only those of this pipeline.
        """
        contexts = self._patiently(
            lambda: self._mlmd.get_contexts_by_type("pipeline_run")
        )
        found = [self._run(context) for context in sorted(contexts, key=_by_id)]
        return [each for each in found if pipeline in (None, each.pipeline)]

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

    def producers(self, artifacts: Iterable[Artifact]) -> list[ExecutionRecord]:
        """Return the executions that wrote these artifacts."""
        return self._by_events(artifacts, outputs=True)

    def consumers(self, artifacts: Iterable[Artifact]) -> list[ExecutionRecord]:
        """Return the executions that read these artifacts."""
        return self._by_events(artifacts, outputs=False)

    def first_producers(
        self, artifacts: Iterable[Artifact]
    ) -> dict[int, ExecutionRecord]:
        """Return what first wrote each of these artifacts, by the artifact's number.

        Cached executions have an artifact as output that another one wrote. What
        nothing wrote is left out.
        """
        writers: dict[int, int] = {}
        unsaid = []
        for each in artifacts:
            said = each.properties.get("penstock_execution")
            if each.id is not None and isinstance(said, int):
                writers[each.id] = said
            elif each.id is not None:
                unsaid.append(each.id)
        if unsaid:
            events = self._patiently(
                lambda: self._mlmd.get_events_by_artifact_ids(unsaid)
            )
            for event in events:
                if event.type in self._output_events():
                    id, writer = int(event.artifact_id), int(event.execution_id)
                    writers[id] = min(writer, writers.get(id, writer))
        if not writers:
            return {}
        wanted = sorted(set(writers.values()))
        protos = self._patiently(lambda: self._mlmd.get_executions_by_id(wanted))
        records = {each.id: each for each in self._records(protos)}
        return {id: records[each] for id, each in writers.items() if each in records}

    def _by_events(
        self, artifacts: Iterable[Artifact], *, outputs: bool
    ) -> list[ExecutionRecord]:
        ids = sorted({each.id for each in artifacts if each.id is not None})
        if not ids:
            return []
        events = self._patiently(lambda: self._mlmd.get_events_by_artifact_ids(ids))
        wanted = sorted(
            {
                int(event.execution_id)
                for event in events
                if (event.type in self._output_events()) is outputs
            }
        )
        if not wanted:
            return []
        protos = self._patiently(lambda: self._mlmd.get_executions_by_id(wanted))
        return self._records(sorted(protos, key=_by_id))

    def _output_events(self) -> tuple[int, ...]:
        event = self._pb.Event
        return (event.OUTPUT, event.DECLARED_OUTPUT, event.INTERNAL_OUTPUT)

    def _records(
        self, protos: Sequence[metadata_store_pb2.Execution]
    ) -> list[ExecutionRecord]:
        if not protos:
            return []
        ids = [proto.id for proto in protos]
        events = self._patiently(lambda: self._mlmd.get_events_by_execution_ids(ids))
        stored = self._artifact_protos(event.artifact_id for event in events)
        made = {id: self._artifact(proto) for id, proto in stored.items()}
        slots: dict[tuple[int, bool, str], list[tuple[int, Artifact]]] = {}
        for event in events:
            is_output = event.type in self._output_events()
            for key, index in _path(event):
                slot = (int(event.execution_id), is_output, key)
                slots.setdefault(slot, []).append((index, made[event.artifact_id]))
        return [self._record(proto, slots) for proto in protos]

    def _record(
        self,
        proto: metadata_store_pb2.Execution,
        slots: Mapping[tuple[int, bool, str], list[tuple[int, Artifact]]],
    ) -> ExecutionRecord:
        properties = {
            key: _get(value) for key, value in proto.custom_properties.items()
        }
        pipeline, run_id, component = (
            str(properties.get(f"penstock_{name}", ""))
            for name in ("pipeline", "run", "component")
        )
        if not run_id:  # written by TFX, by an older penstock, or outside of any run
            contexts = self._patiently(
                lambda: self._mlmd.get_contexts_by_execution(proto.id)
            )
            names = {context.type: context.name for context in contexts}
            pipeline = names.get("pipeline", "")
            run_id = names.get("pipeline_run", "")
            component = component or names.get("node", "").removeprefix(f"{pipeline}.")
        sides: tuple[dict[str, tuple[Artifact, ...]], ...] = ({}, {})
        for (execution_id, is_output, key), items in slots.items():
            if execution_id == proto.id:
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
        top = self._patiently(lambda: self._mlmd.get_executions(self._newest_first(1)))
        end = int(top[0].id) + 1 if top else 1
        least, size = end - _RECENT, 32
        while end > max(least, 1):
            page = self._executions(range(max(1, end - size), end))
            own = [each for each in page if self._is_of(each, pipeline, component)]
            yield from self._written(own, names)
            end, size = end - size, min(2 * size, 256)
        if end > 1:
            for each in self._all_written(context, names, pipeline, component):
                if each.execution_id < end:
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
        contexts = self._patiently(
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
        self, pipeline: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[list[Examples]]:
        """Yield the Examples of a pipeline that have a span, in groups.

        All those of greater spans come in an earlier group than those of lesser ones.

        Args:
            pipeline: Name of the pipeline.
            first: Leave out lesser spans.
            last: Leave out greater spans.
        """
        low = -math.inf if first is None else first
        high = math.inf if last is None else last
        top = self._find_context(_SPANS, pipeline)
        if top is None or not top.custom_properties["is_whole"].int_value:
            everything = self._find_context("pipeline", pipeline)
            if everything is not None:
                yield self._examples_in(everything, low, high)
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
                yield self._examples_in(blocks[block], least, most)

    def _examples_in(
        self, context: metadata_store_pb2.Context, low: float, high: float
    ) -> list[Examples]:
        found = self._artifacts_in(context, {Examples.TYPE_NAME})
        live = [self._artifact(each) for each in found if self._is_live(each)]
        return [
            each
            for each in live
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


def _set(slot: metadata_store_pb2.Value, value: PropertyValue) -> None:
    if isinstance(value, numbers.Integral):  # NumPy's among them
        slot.int_value = int(value)
    elif isinstance(value, numbers.Real):
        # SQL has no NaN: stored as one, it would come back as nothing.
        if math.isfinite(value):
            slot.double_value = float(value)
        else:
            slot.string_value = str(float(value))
    elif isinstance(value, str):
        # Text that is not UTF-8 (undecodable file names) must not fail the record, and
        # SQLite ends text at a NUL.
        text = value.encode("utf-8", "backslashreplace").decode()
        slot.string_value = text.replace("\0", "\\x00")
    elif isinstance(value, dict | list | tuple):
        # TFX wraps what is no dict.
        slot.struct_value.Clear()
        wrapped = value if isinstance(value, dict) else {"__value__": list(value)}
        slot.struct_value.update(wrapped)
    else:
        raise TypeError("the store has no such kind of value")


def _get(slot: metadata_store_pb2.Value) -> PropertyValue:
    which = slot.WhichOneof("value")
    if which == "struct_value":
        from google.protobuf import json_format

        plain = json_format.MessageToDict(slot.struct_value)
        inner: PropertyValue = plain.get("__value__", plain)
        return inner
    if which is None:
        return ""
    value: PropertyValue = getattr(slot, which)
    return value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


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


def _is_locked(text: str) -> bool:
    return any(
        each in text
        for each in (_LOCKED, "database table is locked", "Concurrent writes aborted")
    )


# SQLite's lock bytes: pending, reserved, and 510 of which readers take one.
_LOCK_BYTES = (0x40000000, 512)

# One descriptor per SQLite file, never closed: closing any descriptor of a file drops
# all locks that this process holds on it, those of ml_metadata among them.
_DESCRIPTORS: dict[tuple[int, int], int] = {}
_DESCRIPTORS_LOCK = threading.Lock()


def _descriptor(path: Path) -> tuple[int | None, bool]:
    """Return this process's descriptor of an SQLite file, and whether it is new."""
    try:
        status = os.stat(path)
        key = (status.st_dev, status.st_ino)
        with _DESCRIPTORS_LOCK:
            is_new = key not in _DESCRIPTORS
            if is_new:
                _DESCRIPTORS[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return _DESCRIPTORS[key], is_new
    except OSError:
        return None, False  # not there yet, or not readable: opening it says so


def _is_held_elsewhere(path: Path) -> bool:
    """Return whether another process reads or writes an SQLite file just now."""
    if sys.platform != "linux":
        return False
    descriptor, _ = _descriptor(path)
    if descriptor is None:
        return False
    layout = "hhqqi"  # struct flock of Linux
    wanted = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, *_LOCK_BYTES, 0)
    found = fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted)
    return bool(struct.unpack(layout, found)[0] != fcntl.F_UNLCK)


def _is_other_database(path: Path) -> bool:
    """Return whether an SQLite file holds tables, but none of ML Metadata.

    Looked at once per process, before ml_metadata holds locks on it. ml_metadata itself
    would put its tables beside the others.
    """
    import sqlite3

    _, is_new = _descriptor(path)
    if not is_new:
        return False
    # Immutable: without locks, which another process may hold.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            rows = database.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError:
        return False  # no database at all: opening it says so
    names = {name for (name,) in rows}
    return bool(names) and not names & {"MLMDEnv", "Artifact"}


def _without_password(url: str) -> str:
    return re.sub(r"//([^:/@]*):[^@]*@", r"//\1:…@", url)


def sqlite_path(url: str) -> Path | None:
    """Return the file of an `sqlite:///` URL, or None for another kind of store."""
    if not url.startswith("sqlite:///") or url == "sqlite:///":
        return None  # elsewhere, or in memory
    return Path(unquote(url.removeprefix("sqlite:///")))


def _connection(url: str, *, create: bool) -> metadata_store_pb2.ConnectionConfig:
    """Return the connection that a URL describes.

    Raises:
        MetadataError: If it describes none, or an SQLite file that is not there.
    """
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    path = sqlite_path(url)
    if path is not None:
        if not create and not path.is_file():
            raise MetadataError(
                f"There is no lineage store at '{path}'. Run a pipeline first, or "
                "name the store with --root or --store."
            )
        if create:
            _make_folder(path)
        config.retry_options.max_num_retries = 1  # the store itself tries again
        config.sqlite.filename_uri = str(path)
        config.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
        return config
    if url == "sqlite://":
        config.fake_database.SetInParent()
        return config
    parts = urlsplit(url)
    database = unquote(parts.path.lstrip("/"))
    try:
        port = parts.port
    except ValueError as error:
        raise _no_store(url) from error
    if parts.scheme == "grpc" and parts.hostname and port:
        client = metadata_store_pb2.MetadataStoreClientConfig()
        client.host = parts.hostname
        client.port = port
        return client
    if parts.scheme == "mysql" and parts.hostname and database:
        config.mysql.host = parts.hostname
        config.mysql.port = port or 3306
        config.mysql.database = database
        config.mysql.user = unquote(parts.username or "")
        config.mysql.password = unquote(parts.password or "")
        return config
    if parts.scheme in ("postgresql", "postgres") and parts.hostname and database:
        config.postgresql.host = parts.hostname
        config.postgresql.port = str(port or 5432)
        config.postgresql.dbname = database
        config.postgresql.user = unquote(parts.username or "")
        config.postgresql.password = unquote(parts.password or "")
        return config
    raise _no_store(url)


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
