"""What was last, found from the newest on, however long the history is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from penstock.pipelines.metadata.reading import StoreReader, by_id
from penstock.pipelines.metadata.records import ExecutionRecord, Written
from penstock.pipelines.metadata.values import path_of
from penstock.schemas.artifacts import Artifact, Examples

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2


_T = TypeVar("_T")
_A = TypeVar("_A", bound=Artifact)

# TFX's name for the contexts that are named by what an execution depends on.
CACHE = "execution_cache"

# The type of contexts that hold the Examples of a pipeline by their spans, so many
# spans in each; named by the pipeline alone, the context that they all are below.
SPANS = "penstock_spans"

SPANS_EACH = 100

# Among how many of the last executions, of all pipelines, something is looked for
# before all that a pipeline has is looked at.
_RECENT = 2_048


class RecentReader(StoreReader):
    """A lineage store that knows what was last, and the Examples of a span."""

    def find_cached(self, fingerprint: str) -> Iterator[ExecutionRecord]:
        """Yield the complete executions with a fingerprint, the newest first.

        Args:
            fingerprint: As it was given to `complete_execution`.
        """
        context = self._find_context(CACHE, fingerprint)
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
        found = max(filter(_has_parts, protos), key=by_id, default=None)
        return None if found is None else self._records([found])[0]

    def _pages(self) -> Iterator[list[metadata_store_pb2.Execution]]:
        """Yield the last executions of all pipelines, the newest first."""
        top = self._patiently(lambda: self._mlmd.get_executions(self._newest_first(1)))
        end = int(top[0].id) + 1 if top else 1
        least, size = end - _RECENT, 32
        while end > max(least, 1):
            yield self._executions(range(max(1, end - size), end))
            end, size = end - size, min(2 * size, 256)

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
        return sorted(found, key=by_id, reverse=True)

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
            if event.type in kinds and any(key not in but for key, _ in path_of(event)):
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

    def made_of(
        self, artifact: Artifact, kind: type[_A], *, but: Collection[str]
    ) -> list[_A]:
        """Return all of a type that came of reading an artifact, the last first.

        Args:
            artifact: An artifact of the store.
            kind: The type of what came of it.
            but: Keys of inputs: reading it only as one of these counts not.
        """
        reading = (self._pb.Event.INPUT, self._pb.Event.DECLARED_INPUT)
        ids = [] if artifact.id is None else [artifact.id]
        found: dict[int | None, _A] = {}
        for some in self._linked(ids, reading, but).values():
            for start in range(0, len(some), _RECENT):
                page = self._executions(some[start : start + _RECENT])
                for each in self._written(page, {kind.TYPE_NAME}):
                    if isinstance(each.artifact, kind):
                        found[each.artifact.id] = each.artifact
        return sorted(found.values(), key=lambda each: each.id or 0, reverse=True)

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
        top = self._find_context(SPANS, pipeline)
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
            start, end = block * SPANS_EACH, (block + 1) * SPANS_EACH
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


def _has_parts(proto: metadata_store_pb2.Execution) -> bool:
    return "penstock_parts" in proto.custom_properties
