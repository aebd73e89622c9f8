"""The lineage store: what is written into it."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.pipelines.metadata.connection import is_taken
from penstock.pipelines.metadata.recent import CACHE, SPANS, SPANS_EACH, RecentReader
from penstock.pipelines.metadata.records import (
    STORED_STATE,
    TFX_VERSION,
    RunState,
    State,
)
from penstock.pipelines.metadata.values import new_event, recorded, set_value
from penstock.schemas.artifacts import (
    Artifact,
    ArtifactState,
    Examples,
    ExternalArtifact,
    PropertyValue,
)
from penstock.schemas.errors import MetadataError, PipelineError

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2

    from penstock.components.base import Component


class Store(RecentReader):
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
                    set_value(context.custom_properties[key], value)
                self._put_once(lambda: self._mlmd.put_contexts([context]))
                found = self._find_context(kind, name)
            self._contexts[kind, name] = found
        return self._contexts[kind, name]

    def _put_once(self, call: Callable[[], None]) -> None:
        """Put something, unless another process put the same in between."""
        try:
            self._patiently(call)
        except MetadataError as error:
            if not is_taken(error):
                raise

    def _contexts_of(
        self, pipeline: str, run_id: str, component: str
    ) -> list[metadata_store_pb2.Context]:
        return [
            self._context("pipeline", pipeline),
            self._context("pipeline_run", run_id),
            self._context("node", f"{pipeline}.{component}"),
        ]

    def begin_run(
        self, pipeline: str, run_id: str, properties: Mapping[str, PropertyValue]
    ) -> None:
        """Record that a run began.

        Args:
            pipeline: Name of the pipeline.
            run_id: Id of the run.
            properties: What else to record of it.
        """
        begun: dict[str, PropertyValue] = {
            **properties,
            "penstock_state": RunState.RUNNING.value,
            "penstock_started": time.time(),
        }
        parent = self._context("pipeline", pipeline)
        # With all that is known of it: what is killed next has left no half of a run.
        child = self._context("pipeline_run", run_id, begun)
        link = self._pb.ParentContext(parent_id=parent.id, child_id=child.id)
        self._put_once(lambda: self._mlmd.put_parent_contexts([link]))
        self._update_context(child, begun)

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
            set_value(context.custom_properties[name], value)
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
                set_value(execution.custom_properties[name], recorded(value))
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
            (stored[id], new_event(self._pb, event.INPUT, path, id))
            for id, (_, path) in linked.items()
        ]
        pairs += [
            (stored[id], new_event(self._pb, event.OUTPUT, [(key, 0)], id))
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
            event = new_event(self._pb, self._pb.Event.OUTPUT, [(key, 0)])
            pairs.append((proto, event))
        contexts = self._contexts_of(pipeline, run_id, component)
        contexts += self._span_contexts(pipeline, outputs.values())
        if fingerprint:
            contexts.append(self._context_proto(CACHE, fingerprint))
        _, artifact_ids, _ = self._patiently(
            lambda: self._mlmd.put_execution(
                execution, pairs, contexts, reuse_context_if_already_exist=True
            )
        )
        for artifact, id in zip(outputs.values(), artifact_ids, strict=True):
            artifact.id = int(id)

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
            (stored[id], new_event(self._pb, event.INPUT, [(key, 0)], id))
            for key, id in zip(inputs, ids, strict=True)
        ]
        for key, artifact in outputs.items():
            proto = self._artifact_proto(artifact, f"{name}:{key}:0", is_external=False)
            pairs.append((proto, new_event(self._pb, event.OUTPUT, [(key, 0)])))
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
        stored = STORED_STATE.get(state, state.name)
        execution.last_known_state = getattr(self._pb.Execution, stored)
        set_value(execution.custom_properties["penstock_state"], state.value)
        for name, value in properties.items():
            set_value(execution.custom_properties[name], value)

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
            if found is None or not is_taken(error):
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
                set_value(slots[key], value, is_typed=typed is not None)
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

    def _span_contexts(
        self, pipeline: str, outputs: Iterable[Artifact]
    ) -> list[metadata_store_pb2.Context]:
        """Return the contexts that `examples_by_span` shall find outputs in."""
        blocks = {
            each.span // SPANS_EACH
            for each in outputs
            if isinstance(each, Examples) and each.span is not None
        }
        return [self._span_context(pipeline, block) for block in sorted(blocks)]

    def _span_context(self, pipeline: str, block: int) -> metadata_store_pb2.Context:
        top = self._find_context(SPANS, pipeline)
        if top is None:
            # Examples from before there were such contexts are in none: to find them,
            # one has to look at all that the pipeline has.
            is_whole = not any(
                isinstance(each, Examples) and each.span is not None
                for each in self.artifacts(Examples, pipeline=pipeline)
            )
            top = self._context(SPANS, pipeline, {"is_whole": int(is_whole)})
        context = self._context(SPANS, f"{pipeline}:{block}")
        if not self._patiently(
            lambda: self._mlmd.get_parent_contexts_by_context(context.id)
        ):
            link = self._pb.ParentContext(parent_id=top.id, child_id=context.id)
            self._put_once(lambda: self._mlmd.put_parent_contexts([link]))
        return context
