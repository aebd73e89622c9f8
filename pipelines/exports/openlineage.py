"""A lineage as OpenLineage run events (specification 2-0-2), a JSON list of them.

Every execution is a run of the job `PIPELINE.COMPONENT` in the namespace `penstock`; it
has a START event and, if it ended, one that says how. Artifacts are datasets, named by
where they lie. What OpenLineage has no word for is in facets of our own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urlsplit

from penstock.pipelines.lineage import Lineage
from penstock.pipelines.metadata import ExecutionRecord, State
from penstock.pipelines.recipes import location, recipe
from penstock.schemas.artifacts import Artifact

_SPECIFICATION = "https://openlineage.io/spec"
_SCHEMA = f"{_SPECIFICATION}/2-0-2/OpenLineage.json#/$defs/RunEvent"
_PRODUCER = "urn:penstock:lineage"
_NAMESPACE = "penstock"
_RUNS = uuid.uuid5(uuid.NAMESPACE_URL, _PRODUCER)

_ENDS = {
    State.COMPLETE: "COMPLETE",
    State.CACHED: "COMPLETE",
    State.FAILED: "FAIL",
    State.SKIPPED: "ABORT",
    State.CANCELED: "ABORT",
    State.ABANDONED: "ABORT",
}


def text_of(lineage: Lineage) -> str:
    """Return the events of a lineage as JSON, in the order they happened.

    Args:
        lineage: The lineage.
    """
    events = [
        event
        for _, execution in sorted(lineage.executions.items())
        for event in _events(execution)
    ]
    events.sort(key=lambda event: str(event["eventTime"]))
    return json.dumps(events, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _events(execution: ExecutionRecord) -> Iterator[dict[str, Any]]:
    ended = _ENDS.get(execution.state)
    common = {
        "producer": _PRODUCER,
        "schemaURL": _SCHEMA,
        "run": {
            "runId": _run_id(execution, str(execution.id)),
            "facets": _run(execution),
        },
        "job": {
            "namespace": _NAMESPACE,
            "name": _job(execution, execution.component or execution.type),
            "facets": {
                "jobType": _facet(
                    "facets/2-0-3/JobTypeJobFacet.json",
                    processingType="BATCH",
                    integration="PENSTOCK",
                    jobType="COMPONENT",
                )
            },
        },
        "inputs": _datasets(execution.inputs),
    }
    started = execution.started
    yield {**common, "eventType": "START", "eventTime": _time(started), "outputs": []}
    if ended:
        yield {
            **common,
            "eventType": ended,
            "eventTime": _time(started + (execution.seconds or 0.0)),
            "outputs": _datasets(execution.outputs),
        }


def _job(execution: ExecutionRecord, name: str) -> str:
    return f"{execution.pipeline}.{name}" if execution.pipeline else name


def _run_id(execution: ExecutionRecord, number: str = "") -> str:
    """Return the same id for the same execution, or the same run, at any time."""
    name = "/".join((execution.pipeline, execution.run_id, number))
    encodable = name.encode("utf-8", "backslashreplace").decode()
    return str(uuid.uuid5(_RUNS, encodable))


def _run(execution: ExecutionRecord) -> dict[str, Any]:
    made = recipe(execution)
    facets = {
        "penstock_execution": _facet(
            "",
            id=execution.id,
            type=execution.type,
            run=execution.run_id,
            state=execution.state.value,
            reason=execution.reason,
            code=made.code,
            parameters=dict(made.parameters),
            environment=dict(made.environment),
            data=dict(made.data),
        )
    }
    if execution.run_id:
        facets["parent"] = _facet(
            "facets/1-0-1/ParentRunFacet.json",
            run={"runId": _run_id(execution)},
            job={"namespace": _NAMESPACE, "name": execution.pipeline or "pipeline"},
        )
    if execution.state is State.FAILED:
        facets["errorMessage"] = _facet(
            "facets/1-0-0/ErrorMessageRunFacet.json",
            message=execution.reason,
            programmingLanguage="PYTHON",
            stackTrace=str(execution.properties.get("penstock_traceback", "")),
        )
    return facets


def _facet(schema: str, **values: Any) -> dict[str, Any]:
    name = schema.rpartition("/")[2].removesuffix(".json")
    url = f"{_SPECIFICATION}/{schema}#/$defs/{name}" if schema else f"{_PRODUCER}:facet"
    return {"_producer": _PRODUCER, "_schemaURL": url, **values}


def _datasets(sides: Mapping[str, Iterable[Artifact]]) -> list[dict[str, Any]]:
    keys: dict[int, list[str]] = {}
    found: dict[int, Artifact] = {}
    for key, artifacts in sides.items():
        for index, each in enumerate(artifacts):
            if each.id is not None:
                found[each.id] = each
                keys.setdefault(each.id, []).append(f"{key}[{index}]")
    return [_dataset(each, keys[id]) for id, each in found.items()]


def _dataset(artifact: Artifact, keys: list[str]) -> dict[str, Any]:
    # What lies nowhere is known by its number.
    where = location(artifact) or f"/{artifact.TYPE_NAME}/{artifact.id}"
    parts = urlsplit(where)
    is_url = "://" in where
    place = f"{parts.scheme}://{parts.netloc}" if is_url else "file"
    uri = where if is_url else f"file://{where}"
    facets = {
        "dataSource": _facet(
            "facets/1-0-1/DatasourceDatasetFacet.json",
            name=place,
            uri=quote(uri, safe=":/%", errors="backslashreplace"),
        ),
        "penstock_artifact": _facet(
            "",
            id=artifact.id,
            type=artifact.TYPE_NAME,
            digest=artifact.digest,
            properties=artifact.properties,
            keys=keys,
        ),
    }
    if artifact.digest:
        facets["version"] = _facet(
            "facets/1-0-0/DatasetVersionDatasetFacet.json",
            datasetVersion=artifact.digest,
        )
    name = parts.path.lstrip("/") if is_url else where
    return {"namespace": place, "name": name or "/", "facets": facets}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
