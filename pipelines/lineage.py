"""What made an artifact, what it reached, and what made a served version."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from penstock.pipelines.metadata import ExecutionRecord, Store
from penstock.schemas.artifacts import (
    Artifact,
    ExternalArtifact,
    Model,
    PushedModel,
)
from penstock.schemas.errors import MetadataError

A = TypeVar("A", bound=Artifact)


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


def upstream(store: Store, artifact: Artifact) -> Lineage:
    """Return all that an artifact came from.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.
    """
    return _walk(artifact, store.producers, lambda execution: execution.inputs)


def downstream(store: Store, artifact: Artifact) -> Lineage:
    """Return all that came from an artifact.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.
    """
    return _walk(artifact, store.consumers, lambda execution: execution.outputs)


def _walk(
    start: Artifact,
    next_executions: Callable[[Iterable[Artifact]], list[ExecutionRecord]],
    next_artifacts: Callable[[ExecutionRecord], Mapping[str, tuple[Artifact, ...]]],
) -> Lineage:
    if start.id is None:
        raise MetadataError(
            f"{start!r} is not in the lineage store: it has no number. Take artifacts "
            "from the store or from a RunResult."
        )
    artifacts: dict[int, Artifact] = {start.id: start}
    executions: dict[int, ExecutionRecord] = {}
    front: list[Artifact] = [start]
    while front:
        reached: dict[int, Artifact] = {}
        for execution in next_executions(front):
            executions[execution.id] = execution
            for group in next_artifacts(execution).values():
                for artifact in group:
                    if artifact.id is not None and artifact.id not in artifacts:
                        reached[artifact.id] = artifact
        artifacts.update(reached)
        front = list(reached.values())
    return Lineage(start, artifacts, executions)


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
    known = []
    for model in reversed(store.artifacts(PushedModel)):
        assert isinstance(model, PushedModel)
        destination = Path(str(model.properties.get("pushed_destination", "")))
        if str(model.properties.get("pushed_version")) == str(version) and wanted in (
            destination.absolute(),
            destination.absolute().parent,
        ):
            return model
        known.append(f"{destination}")
    places = sorted(set(known))[:3]
    raise MetadataError(
        f"Version {version} of '{serving_dir}' was not pushed by a run of this lineage "
        f"store (it knows pushes to {', '.join(places) or 'nowhere'}). Check --root or "
        "--store."
    )


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


def sources(lineage: Lineage) -> tuple[ExternalArtifact, ...]:
    """Return the files from outside that a lineage begins with."""
    return lineage.of(ExternalArtifact)
