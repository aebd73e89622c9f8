"""Runs recorded executions again, in a process whose path begins with their code.

`reproduce` calls `main` in it, with the files of request and answer as arguments.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from penstock.components.base import Component, declared
from penstock.pipelines.child import load_main
from penstock.pipelines.encoding import decoded
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Artifact
from penstock.schemas.errors import PenstockError


def main() -> None:
    """Run what the file named first asks for; write the answer to the second."""
    asked, answered = map(Path, sys.argv[1:3])
    try:
        answer = replay(json.loads(asked.read_text(encoding="utf-8")))
    except PenstockError as error:
        answer = {"error": str(error)}
    answered.write_text(json.dumps(answer), encoding="utf-8")


def replay(request: dict[str, Any]) -> dict[str, Any]:
    """Run what a request lists, one after another.

    Args:
        request: As `reproduce` writes it.

    Returns:
        The digest of every output, by execution and key, and the parts of their
        fingerprints.
    """
    sources = Path(request["sources"])
    if (sources / "__main__.py").exists():
        load_main(str(sources / "__main__.py"))
    made: dict[int, Artifact] = {}
    digests: dict[str, dict[str, str]] = {}
    parts: dict[str, dict[str, str]] = {}
    for each in request["executions"]:
        component = _component(each, sources, made)
        pipeline = Pipeline(each["pipeline"], [component])
        result = run(pipeline, request["root"], runner=LocalRunner())
        execution = result[component.name]
        if execution.reason:
            raise SystemExit(execution.reason)
        assert execution.fingerprint is not None
        parts[str(each["id"])] = dict(execution.fingerprint.parts)
        digests[str(each["id"])] = {
            key: artifact.digest for key, artifact in execution.outputs.items()
        }
        for key, id in each["outputs"].items():
            made[id] = execution.outputs[key]
    return {"digests": digests, "parts": parts}


def _component(
    said: dict[str, Any], sources: Path, made: dict[int, Artifact]
) -> Component:
    module, _, name = said["class"].rpartition(".")
    kind: Any = getattr(importlib.import_module(module), name)
    fields: dict[str, Any] = {
        name: _here(decoded(value), sources)
        for name, value in said["parameters"].items()
    }
    for each in declared(kind).inputs:
        given = [
            made.get(artifact["id"])
            or each.kind(
                artifact["uri"],
                properties=artifact["properties"],
                digest=artifact["digest"],
            )
            for artifact in said["inputs"].get(each.name, ())
        ]
        if given:
            fields[each.name] = tuple(given) if each.many else given[0]
    component: Component = kind(name=said["component"], **fields)
    return component


def _here(value: Any, sources: Path) -> Any:
    """Return a module file as it was recorded, for the path of one."""
    if isinstance(value, Path) and value.suffix == ".py":
        recorded = sources / value.name
        return recorded if recorded.exists() else value
    return value
