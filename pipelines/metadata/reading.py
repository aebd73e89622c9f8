"""What can be asked of the lineage store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.pipelines.metadata.connection import Connection, without_password
from penstock.pipelines.metadata.records import (
    ExecutionRecord,
    RunRecord,
    RunState,
    State,
)
from penstock.pipelines.metadata.values import get_value, number, path_of
from penstock.schemas.artifacts import (
    ARTIFACT_TYPES,
    Artifact,
    ArtifactState,
    PropertyValue,
)
from penstock.schemas.errors import MetadataError

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2

    from penstock.pipelines.history import Pipelines

_A = TypeVar("_A", bound=Artifact)

# The same of artifacts and of contexts, and how many are looked at at a time.
_NEWEST, _BLOCK = 1_000, 50


class StoreReader(Connection):
    """A lineage store that can be read."""

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

    def _newest_first(self, limit: int | None = None) -> Any:
        from ml_metadata.metadata_store import metadata_store

        return metadata_store.ListOptions(
            limit=limit, order_by=metadata_store.OrderByField.ID, is_asc=False
        )

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
            key: get_value(value)
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
                f"'{without_password(self.url)}'. 'penstock artifacts' lists what is."
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
        found = [self._artifact(proto) for proto in sorted(protos, key=by_id)]
        return [each for each in found if name in (None, each.TYPE_NAME)]

    def artifacts_at(self, uri: str) -> list[Artifact]:
        """Return the artifacts with a location, in the order they were recorded."""
        protos = self._patiently(lambda: self._mlmd.get_artifacts_by_uri(uri))
        return [self._artifact(proto) for proto in sorted(protos, key=by_id)]

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
                yield sorted(block, key=by_id, reverse=True)

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
        return [each.name for each in sorted(contexts, key=by_id)]

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
        return sorted(found, key=by_id)

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
                f"'{without_password(self.url)}'. 'penstock runs' lists what is."
            )
        return context

    def _run(self, context: metadata_store_pb2.Context) -> RunRecord:
        parents = self._patiently(
            lambda: self._mlmd.get_parent_contexts_by_context(context.id)
        )
        properties = {
            key: get_value(value) for key, value in context.custom_properties.items()
        }
        finished = properties.get("penstock_finished")
        created = context.create_time_since_epoch / 1_000
        return RunRecord(
            id=context.name,
            pipeline=parents[0].name if parents else "",
            state=RunState(properties.get("penstock_state", "complete")),
            reason=str(properties.get("reason", "")),
            started=number(properties.get("penstock_started")) or created,
            finished=number(finished),
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
        return self._records(sorted(protos, key=by_id))

    def executions_of_type(self, type_name: str) -> list[ExecutionRecord]:
        """Return the executions of a type, of all runs, in the order they began."""
        protos = self._patiently(lambda: self._mlmd.get_executions_by_type(type_name))
        return self._records(sorted(protos, key=by_id))

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
        return self._records(sorted(protos, key=by_id), known)

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
            elif not is_from_outside(each):
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
                keys.update(key for key, _ in path_of(event))
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
            for key, index in path_of(event):
                listed = own.setdefault((is_output, key), [])
                listed.append((index, made[event.artifact_id]))
        return [self._record(proto, slots.get(proto.id, {})) for proto in protos]

    def _record(
        self,
        proto: metadata_store_pb2.Execution,
        slots: Mapping[tuple[bool, str], list[tuple[int, Artifact]]],
    ) -> ExecutionRecord:
        properties = {
            key: get_value(value) for key, value in proto.custom_properties.items()
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
            started=number(properties.get("penstock_started")) or created,
            seconds=number(properties.get("penstock_seconds")),
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

    def _writing_events(self) -> tuple[int, ...]:
        # Not INTERNAL_OUTPUT: what a Resolver of TFX found, it did not write.
        return (self._pb.Event.OUTPUT, self._pb.Event.DECLARED_OUTPUT)


def _users_kind(parent: type[Artifact], name: str) -> type[Artifact] | None:
    """Return the class below another one that somebody declared for a type."""
    for each in parent.__subclasses__():
        if name == each.TYPE_NAME and each.__module__ != __name__:
            return each
        if found := _users_kind(each, name):
            return found
    return None


def is_from_outside(artifact: Artifact) -> bool:
    """Return whether penstock recorded an artifact that no execution made.

    TFX's importer writes what it calls external, and no digests.
    """
    is_external = artifact.properties.get("is_external") == 1
    return is_external and "digest" in artifact.properties


def by_id(proto: Any) -> int:
    return int(proto.id)
