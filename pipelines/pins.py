"""Pins: what somebody said is to be kept, whatever the policy of housekeeping.

Each is an execution of type `penstock.Pin` in the lineage store, with the reason, and
the artifact as input. The later record wins.
"""

from __future__ import annotations

import dataclasses

from penstock.pipelines.metadata import Store
from penstock.pipelines.overrides import one_sentence
from penstock.schemas.artifacts import Artifact
from penstock.schemas.errors import MetadataError

EXECUTION_TYPE = "penstock.Pin"
COMPONENT = "penstock gc"


@dataclasses.dataclass(frozen=True)
class Pin:
    """One artifact that is pinned.

    Attributes:
        artifact: The artifact.
        reason: Why.
        at: Since when, in seconds since 1970.
    """

    artifact: Artifact
    reason: str
    at: float


def pins(store: Store) -> dict[int, Pin]:
    """Return what is pinned now, by the artifact's number.

    Args:
        store: The lineage store.
    """
    found: dict[int, Pin] = {}
    for record in store.executions_of_type(EXECUTION_TYPE):
        (artifact,) = record.inputs["artifact"]
        assert artifact.id is not None
        found.pop(artifact.id, None)
        if record.properties["penstock_action"] == "pin":
            found[artifact.id] = Pin(artifact, record.reason, record.started)
    return found


def pin(store: Store, artifact: Artifact, reason: str) -> Pin:
    """Keep an artifact, and all that it came from, until it is unpinned.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.
        reason: Why.

    Returns:
        The pin, recorded.

    Raises:
        PipelineError: If the reason is empty.
        MetadataError: If it is pinned already, deleted, gone, or nothing that penstock
            made.
    """
    assert artifact.id is not None
    subject = f"{artifact.TYPE_NAME} {artifact.id}"
    if artifact.properties.get("is_external") == 1:
        raise MetadataError(
            f"{subject} is '{artifact.uri}', which no pipeline wrote and 'penstock gc' "
            "never deletes. There is nothing to pin."
        )
    if artifact.is_deleted:
        raise MetadataError(
            f"{subject} was deleted by 'penstock gc', so there is nothing to keep. Run "
            "its pipeline to make it again."
        )
    if "://" not in artifact.uri and not artifact.path.exists():
        raise MetadataError(
            f"{subject} is gone from '{artifact.uri}', so there is nothing to keep. "
            "Run its pipeline to make it again."
        )
    standing = pins(store).get(artifact.id)
    if standing is not None:
        raise MetadataError(f"{subject} is pinned already: {standing.reason}")
    _record(store, "pin", artifact, reason)
    return pins(store)[artifact.id]


def unpin(store: Store, artifact: Artifact, reason: str) -> Pin:
    """Leave an artifact to the policy again.

    Args:
        store: The lineage store.
        artifact: An artifact of the store.
        reason: Why.

    Returns:
        The pin that counts no more.

    Raises:
        PipelineError: If the reason is empty.
        MetadataError: If it is not pinned.
    """
    assert artifact.id is not None
    standing = pins(store).get(artifact.id)
    if standing is None:
        raise MetadataError(
            f"{artifact.TYPE_NAME} {artifact.id} is not pinned, so it cannot be "
            "unpinned. 'penstock gc' lists what is."
        )
    _record(store, "unpin", artifact, reason)
    return standing


def _record(store: Store, action: str, artifact: Artifact, reason: str) -> None:
    made_by = store.first_records([artifact]).values()
    store.record_execution(
        EXECUTION_TYPE,
        component=COMPONENT,
        pipelines=[each.pipeline for each in made_by if each.pipeline],
        inputs={"artifact": artifact},
        outputs={},
        properties={"penstock_action": action, "reason": one_sentence(reason)},
    )
