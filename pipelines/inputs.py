"""Inputs that no component of the pipeline makes: resolved when a run needs them.

Each function is typed as the artifact it promises, so that fields stay typed; what
it returns is a promise that knows how to look itself up.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol, TypeVar

from penstock.components.base import Component
from penstock.pipelines.metadata import Store
from penstock.pipelines.overrides import block_list
from penstock.schemas.artifacts import Artifact, Model, ModelBlessing
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import DataError

A = TypeVar("A", bound=Artifact)


class Resolver(Protocol):
    """Finds the artifact that an input stands for."""

    def resolve(
        self, store: Store, pipeline: str, component: Component
    ) -> Artifact | None:
        """Return the artifact, or None where there is none.

        Args:
            store: The lineage store.
            pipeline: Name of the pipeline that runs.
            component: The component, with its wired inputs as facts.
        """


@dataclasses.dataclass(frozen=True)
class _Import:
    uri: str
    kind: type[Artifact]

    def __str__(self) -> str:
        return f"Import('{self.uri}', {self.kind.__name__})"

    def resolve(self, store: Store, pipeline: str, component: Component) -> Artifact:
        path = Path(self.uri)
        if not path.is_dir():
            raise DataError(
                f"'{self}' in '{component.name}' names no folder that exists. Check "
                "the path; an artifact is a folder."
            )
        return self.kind(path.resolve(), digest=folder_digest(path), source=self)


@dataclasses.dataclass(frozen=True)
class _Latest:
    kind: type[Artifact]

    def __str__(self) -> str:
        return f"Latest({self.kind.__name__})"

    def resolve(
        self, store: Store, pipeline: str, component: Component
    ) -> Artifact | None:
        recorded = store.artifacts(self.kind, pipeline=pipeline)
        found = [each for each in recorded if not each.is_deleted]
        return found[-1] if found else None


@dataclasses.dataclass(frozen=True)
class _LatestBlessed:
    def __str__(self) -> str:
        return "LatestBlessed()"

    def resolve(
        self, store: Store, pipeline: str, component: Component
    ) -> Artifact | None:
        # Only facts count as candidates: the baseline itself is still a promise.
        candidates = {
            artifact.digest
            for artifacts in component.inputs.values()
            for artifact in artifacts
            if isinstance(artifact, Model) and not artifact.is_promise
        }
        blessed = {
            int(number)
            for each in store.artifacts(ModelBlessing, pipeline=pipeline)
            if each.properties.get("blessed") == 1
            and isinstance(
                number := each.properties.get("current_model_id"), int | float
            )
        }
        blocked = block_list(store)
        for number in sorted(blessed, reverse=True):
            model = store.artifact(number)
            # The same bytes would be compared with themselves.
            if model.is_deleted or (model.digest and model.digest in candidates):
                continue
            if isinstance(model, Model) and blocked.entry(model) is None:
                return model
        return None


def Import(uri: str | Path, kind: type[A]) -> A:
    """Promise an artifact that lies on disk already.

    Args:
        uri: Its folder.
        kind: Its type.
    """
    return kind(source=_Import(str(uri), kind))


def Latest(kind: type[A]) -> A:
    """Promise the newest artifact of a type that this pipeline recorded.

    One that `penstock gc` has deleted is passed over.

    Args:
        kind: Its type.
    """
    return kind(source=_Latest(kind))


def LatestBlessed() -> Model:
    """Promise the newest blessed model with other bytes than the candidate's.

    An unchanged re-run so resolves to the same baseline as before. The newest is the
    one that was recorded last, as for TFX, however old or new its blessing is; one on
    the block-list is passed over, and so is one that `penstock gc` has deleted. Where
    there is none yet, a field of type `Model | None` gets None.
    """
    return Model(source=_LatestBlessed())
