"""What made an artifact, what it reached, and what made a served version."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from penstock.pipelines.metadata import ExecutionRecord, Store, StoreReader
from penstock.schemas.artifacts import (
    Artifact,
    Examples,
    ExternalArtifact,
    Model,
    PushedModel,
    Verdict,
)
from penstock.schemas.errors import MetadataError, ServingError

A = TypeVar("A", bound=Artifact)

_BASELINE = "baseline"
"""How the keys begin under which an artifact is read to be compared with."""


@dataclasses.dataclass(frozen=True)
class Lineage:
    """All that an artifact came from, or all that came from it.

    Attributes:
        start: The artifact asked about.
        artifacts: Every artifact found, the start included, by number.
        executions: Every execution between them, by number.
    """

    start: Artifact
    artifacts: Mapping[int, Artifact]
    executions: Mapping[int, ExecutionRecord]

    def of(self, kind: type[A]) -> tuple[A, ...]:
        """Return the artifacts of a type, in the order they were recorded."""
        return tuple(
            artifact
            for _, artifact in sorted(self.artifacts.items())
            if isinstance(artifact, kind)
        )


def upstream(store: StoreReader, artifact: Artifact) -> Lineage:
    """Return all that an artifact came from.

    What cached executions stand for came from what first wrote it, and from nothing
    that the cached ones read.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.

    Raises:
        MetadataError: If it is not of the store.
    """

    def writers(front: list[Artifact]) -> set[int]:
        return store.first_producers(front)

    return _walk(store, [artifact], writers, lambda execution: execution.inputs)


def downstream(store: StoreReader, artifact: Artifact) -> Lineage:
    """Return all that came from an artifact: what has something of it inside.

    A verdict is reached and not walked on from, unless it is what was asked about: what
    it let through has nothing of the data that it judged. Nor is what was only compared
    with an artifact, its baseline, walked on to.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.

    Raises:
        MetadataError: If it is not of the store.
    """
    return _descent(store, [artifact])


def _descent(store: StoreReader, starts: Sequence[Artifact]) -> Lineage:
    judged = {each.id for each in starts}

    def readers(front: list[Artifact]) -> set[int]:
        walked = [
            each for each in front if each.id in judged or not isinstance(each, Verdict)
        ]
        return {
            execution
            for execution, keys in store.readers(walked).items()
            if not all(key.startswith(_BASELINE) for key in keys)
        }

    return _walk(store, starts, readers, lambda execution: execution.outputs)


def _walk(
    store: StoreReader,
    starts: Sequence[Artifact],
    next_executions: Callable[[list[Artifact]], set[int]],
    next_artifacts: Callable[[ExecutionRecord], Mapping[str, tuple[Artifact, ...]]],
) -> Lineage:
    artifacts = {_number(start): start for start in starts}
    executions: dict[int, ExecutionRecord] = {}
    known = dict(artifacts)  # on the way or beside it
    front = list(starts)
    while front:
        reached: dict[int, Artifact] = {}
        new = next_executions(front) - executions.keys()
        for execution in store.executions_by_id(new, known):
            executions[execution.id] = execution
            for group in next_artifacts(execution).values():
                for artifact in group:
                    if artifact.id is not None and artifact.id not in artifacts:
                        reached[artifact.id] = artifact
        artifacts.update(reached)
        front = list(reached.values())
    return Lineage(starts[0], artifacts, executions)


def _number(artifact: Artifact) -> int:
    if artifact.id is None:
        raise MetadataError(
            f"{artifact!r} is not in the lineage store: it has no number. Take "
            "artifacts from the store or from a RunResult."
        )
    return artifact.id


@dataclasses.dataclass(frozen=True)
class Impact:
    """What some data reached.

    Attributes:
        sources: The data.
        models: The models that were trained on it, in the order they were recorded.
        pushed: The versions that are copies of such models, likewise.
    """

    sources: tuple[Artifact, ...]
    models: tuple[Model, ...]
    pushed: tuple[PushedModel, ...]


def impact(store: Store, *sources: Artifact) -> Impact:
    """Return the models and the pushed versions that have data inside.

    Args:
        store: The lineage store.
        *sources: Artifacts of the store, at least one: those of a span, say, as
            `of_span` finds them.

    Raises:
        MetadataError: If one is not of the store.
    """
    found = _descent(store, sources)
    return Impact(sources, found.of(Model), found.of(PushedModel))


def of_span(store: Store, pipeline: str, span: int) -> tuple[Examples, ...]:
    """Return the Examples of a span, in the order they were recorded.

    Args:
        store: The lineage store.
        pipeline: Name of the pipeline that read it.
        span: The span.

    Raises:
        MetadataError: If no such pipeline or no such span is recorded.
    """
    store.pipelines[pipeline]  # or else a sentence with near misses

    def examples(first: int | None, last: int | None) -> list[Examples]:
        # What is deleted was read all the same.
        groups = store.examples_by_span(pipeline, first=first, last=last, deleted=True)
        return list(itertools.chain(*groups))

    found = sorted(examples(span, span), key=_number)
    if not found:
        known = {each.span for each in examples(None, None)}
        spans = sorted(each for each in known if each is not None)
        has = f"from {spans[0]} to {spans[-1]}" if spans else "none"
        raise MetadataError(
            f"Span {span} of pipeline '{pipeline}' is not in the lineage store (its "
            f"spans are {has}). 'penstock artifacts --type Examples' lists them."
        )
    return tuple(found)


def pushed(store: Store, serving_dir: str | Path, version: int) -> PushedModel:
    """Return the record of a served version.

    Args:
        store: The lineage store.
        serving_dir: The serving directory.
        version: The version's number.

    Raises:
        MetadataError: If no push of that version to that directory is recorded.
    """
    wanted = Path(serving_dir).absolute()
    known = set()
    for model in itertools.chain(
        _pushed_by(store, _pushing_run(wanted, version)),
        store.newest_artifacts(PushedModel),
    ):
        destination = Path(str(model.properties.get("pushed_destination", "")))
        if str(model.properties.get("pushed_version")) == str(version) and wanted in (
            destination.absolute(),
            destination.absolute().parent,
        ):
            assert isinstance(model, PushedModel)
            return model
        known.add(f"{destination}")
    places = ", ".join(sorted(known)[:3])
    knows = f"pushes to {places}" if places else "no pushes"
    raise MetadataError(
        f"Version {version} of '{serving_dir}' was not pushed by a run of this lineage "
        f"store (it knows {knows}). Check --root or --store."
    )


def _pushing_run(serving_dir: Path, version: int) -> str:
    """Return the id of the run that pushed a version, if the directory says so."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.standing import standing_of
    from penstock.components.serving.version_dir import versions

    with suppress(ServingError):  # the directory may be gone, and its history not
        with Ledger(serving_dir, read_only=True) as ledger:
            run_id = standing_of(ledger, version).run_id
        if run_id:
            return run_id
        for each in versions(serving_dir):  # pushed before there were ledgers
            if each.number == version and each.run_id:
                return each.run_id
    return ""


def _pushed_by(store: Store, run_id: str) -> Iterator[PushedModel]:
    if run_id and store.find_run(run_id) is not None:
        for execution in store.executions(run_id):
            for made in itertools.chain(*execution.outputs.values()):
                if isinstance(made, PushedModel):
                    yield made


def model_behind(store: Store, artifact: Artifact) -> Model:
    """Return a model itself, or the model that a pushed one is a copy of.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.

    Raises:
        MetadataError: If it is neither.
    """
    if isinstance(artifact, Model):
        return artifact
    if isinstance(artifact, PushedModel):
        for execution in store.producers([artifact]):
            for read in execution.inputs.values():
                for each in read:
                    if isinstance(each, Model):
                        return each
    raise MetadataError(
        f"Artifact {artifact.id} is of type {artifact.TYPE_NAME}, no model. Pass the "
        "number or the location of a Model ('penstock artifacts --type Model' lists "
        "them), or a served version as SERVING_DIR/NUMBER."
    )


def made(store: Store, serving_dir: str | Path, version: int) -> Lineage:
    """Return all that a served version came from.

    Args:
        store: The lineage store.
        serving_dir: The serving directory.
        version: The version's number.

    Raises:
        MetadataError: If no push of that version to that directory is recorded.
    """
    return upstream(store, pushed(store, serving_dir, version))


def reached(store: Store, source: Artifact) -> tuple[PushedModel, ...]:
    """Return the pushed models that an input reached.

    Args:
        store: The lineage store.
        source: An artifact of the store, such as an ExternalArtifact.
    """
    return downstream(store, source).of(PushedModel)


def beginnings(lineage: Lineage) -> tuple[Artifact, ...]:
    """Return what a lineage begins with: what none of its executions wrote."""
    made = {
        artifact.id
        for execution in lineage.executions.values()
        for artifacts in execution.outputs.values()
        for artifact in artifacts
    }
    return tuple(each for each in lineage.of(Artifact) if each.id not in made)


def sources(lineage: Lineage) -> tuple[ExternalArtifact, ...]:
    """Return the files from outside that a lineage begins with."""
    return lineage.of(ExternalArtifact)
