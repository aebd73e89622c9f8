"""What an execution was made with: code, parameters, environment and data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from penstock.pipelines.environment import PREFIX
from penstock.pipelines.metadata import ExecutionRecord
from penstock.schemas.artifacts import Artifact, PropertyValue


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an execution was made with.

    Attributes:
        code: Digest of the code that the component reaches; empty where nothing is
            recorded of it, as by TFX.
        parameters: The component's parameters, as the store keeps them.
        environment: Versions by name, of Python and of the libraries that the
            component declares; of a training also what it ran in, as
            `penstock.pipelines.environment` captures it.
        data: Digests of what it read, by place: `examples[0]`; locations where there
            is no digest.
    """

    code: str
    parameters: Mapping[str, PropertyValue]
    environment: Mapping[str, str]
    data: Mapping[str, str]


def recipe(execution: ExecutionRecord) -> Recipe:
    """Return what an execution was made with.

    Args:
        execution: The execution, as the store has it.
    """
    parts: dict[str, str] = json.loads(
        str(execution.properties.get("penstock_parts", "{}"))
    )
    return Recipe(
        parts.get("code", ""),
        {
            name: value
            for name, value in sorted(execution.properties.items())
            if name != "reason" and not name.startswith(("penstock_", "__"))
        },
        {
            **{
                name.removeprefix("library "): version
                for name, version in parts.items()
                if name == "python" or name.startswith("library ")
            },
            **{
                name.removeprefix(PREFIX): str(value)
                for name, value in sorted(execution.properties.items())
                if name.startswith(PREFIX)
            },
        },
        {
            f"{key}[{index}]": artifact.digest or location(artifact)
            for key, artifacts in execution.inputs.items()
            for index, artifact in enumerate(artifacts)
        },
    )


def location(artifact: Artifact) -> str:
    """Return where an artifact of the store lies; empty where that is not recorded.

    Other tools record artifacts that lie nowhere.
    """
    return "" if artifact.is_promise else artifact.uri
