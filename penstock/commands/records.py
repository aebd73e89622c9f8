"""What verbs take from the lineage store, and how it is named and printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.schemas.errors import MetadataError, quoted

if TYPE_CHECKING:
    from penstock.pipelines.metadata import ExecutionRecord, RunRecord, Store
    from penstock.pipelines.overrides import Remarks
    from penstock.schemas.artifacts import Artifact


def open_store(root: Path, store: str, wait: float) -> Store:
    """Open the store of a URL, or that of a root; it has to exist."""
    from penstock.pipelines.metadata import Store

    url = store or f"sqlite:///{root.absolute() / 'metadata.sqlite'}"
    return Store(url, wait_seconds=wait, create=False)


def run_json(each: RunRecord) -> dict[str, Any]:
    """Return a run as it is printed with --json."""
    return {
        "run": each.id,
        "pipeline": each.pipeline,
        "state": each.state.value,
        "reason": each.reason,
        "started": each.started,
        "finished": each.finished,
        "properties": dict(each.properties),
    }


def find_run_id(opened: Store, given: str, pipeline: str | None = None) -> str:
    """Return the id of the run that is meant: whole, its beginning, or 'last'.

    Args:
        opened: The store.
        given: What the user wrote.
        pipeline: The pipeline whose last run 'last' is; None for any.

    Raises:
        MetadataError: If there is none.
    """
    if given == "last":
        for newest in opened.newest_runs(pipeline):
            return newest.id
        of = "" if pipeline is None else f" of pipeline '{pipeline}'"
        raise MetadataError(
            f"No run{of} is in the lineage store, so there is no last one. Run a "
            "pipeline first."
        )
    if opened.find_run(given) is not None:
        return given
    known = [each.id for each in opened.runs()]
    matching = [each for each in known if each.startswith(given)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise MetadataError(
            f"Run '{given}' could be any of {quoted(matching)}. Write more of its id."
        )
    raise MetadataError(
        f"Run '{given}' is not in the lineage store. 'penstock runs' lists what is; "
        "'last' is the newest."
    )


def find_remarks(opened: Store) -> Remarks:
    """Return what was done beside the pipelines, to say beside artifacts."""
    from penstock.pipelines import overrides

    return overrides.Remarks(overrides.overrides(opened))


_REMARKS = {
    "deleted": "deleted",
    "blocked": "blocked",
    "forced": "blessed by force",
    "unblocked": "off the block-list",
}


def remarked(remarks: Remarks, artifact: Artifact) -> str:
    """Return what was done to an artifact, with the reason, or nothing."""
    found = remarks.of(artifact)
    return "; ".join(
        f"{_REMARKS[each]}: {reason.rstrip('.')}" for each, reason in found.items()
    )


def artifact_json(artifact: Artifact, remarks: Remarks | None = None) -> dict[str, Any]:
    """Return an artifact as it is printed with --json."""
    return {
        "id": artifact.id,
        "type": artifact.TYPE_NAME,
        "uri": artifact.uri,
        "digest": artifact.digest,
        "properties": artifact.properties,
        **({} if remarks is None else {"remarks": remarks.of(artifact)}),
    }


def execution_json(each: ExecutionRecord, remarks: Remarks) -> dict[str, Any]:
    """Return an execution as it is printed with --json."""
    return {
        "id": each.id,
        "component": each.component,
        "type": each.type,
        "run": each.run_id,
        "pipeline": each.pipeline,
        "state": each.state.value,
        "reason": each.reason,
        "started": each.started,
        "seconds": each.seconds,
        "properties": dict(each.properties),
        "inputs": {
            key: [artifact_json(one, remarks) for one in made]
            for key, made in each.inputs.items()
        },
        "outputs": {
            key: [artifact_json(one, remarks) for one in made]
            for key, made in each.outputs.items()
        },
    }


def find_subject(opened: Store, subject: str) -> Artifact:
    """Return the artifact that a number, a location or a served version names.

    Raises:
        MetadataError: If there is none.
    """
    from penstock.pipelines import lineage as ask

    if subject.isdecimal():
        return opened.artifact(int(subject))
    path = Path(subject)
    same_place = [
        artifact
        for place in dict.fromkeys((subject, str(path.absolute())))
        for artifact in opened.artifacts_at(place)
    ]
    if same_place:
        return same_place[-1]
    if path.name.isdecimal():
        return ask.pushed(opened, path.parent, int(path.name))
    raise MetadataError(
        f"'{subject}' is no artifact of the lineage store. Pass an artifact's number "
        "('penstock artifacts' lists them), its location, or a served version as "
        "SERVING_DIR/NUMBER."
    )
