"""What an execution depends on, by content: the same fingerprint, the same outputs.

A fingerprint covers the component's name and parameters, the code that it reaches, the
contents of what it reads, and the versions of the libraries that it declares. It covers
neither the pipeline's name, nor places, nor times: files may be touched, folders moved
and pipelines renamed. A verdict that only gates is no input: what counts of it is that
it says yes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import numbers
import platform
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from penstock.components.base import Component, declared
from penstock.pipelines.code import Code
from penstock.pipelines.encoding import text_of
from penstock.schemas.artifacts import Artifact, ExternalArtifact

# What the store and the runner add to any artifact.
_ADDED = {"tfx_version", "is_external", "digest", "name", "state"}


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What an execution depends on.

    Attributes:
        digest: Digest of all the parts, `sha256:...`.
        parts: What it is made of, as text by name: `code`, `parameter train_steps`,
            `input examples[0]`, `library tensorflow`, `python`, ...
    """

    digest: str
    parts: Mapping[str, str]

    @property
    def text(self) -> str:
        """The parts as the store keeps them."""
        return json.dumps(dict(self.parts), sort_keys=True)


def fingerprint_of(
    live: Component, external: Sequence[ExternalArtifact], code: Code
) -> Fingerprint:
    """Return what an execution of a component depends on.

    Args:
        live: The component, with facts for inputs.
        external: What it reads from outside the pipeline.
        code: The code that it reaches.
    """
    # Its name, because it may write it; its options are about how it runs.
    parts = {"name": live.name, "code": code.digest, "python": python_version()}
    declaration = declared(type(live))
    for name, value in live.parameters.items():
        if declaration.counts(name):
            parts[f"parameter {name}"] = text_of(value)
    gates = {each.name for each in declaration.inputs if each.gate}
    for name, artifacts in live.inputs.items():
        if name not in gates:
            _add(parts, f"input {name}", artifacts)
    _add(parts, "external", external)
    for library in type(live).LIBRARIES:
        parts[f"library {library}"] = version_of(library)
    if live.options.cache_salt:
        parts["salt"] = live.options.cache_salt
    text = json.dumps(parts, sort_keys=True)
    return Fingerprint("sha256:" + hashlib.sha256(text.encode()).hexdigest(), parts)


def _add(parts: dict[str, str], name: str, artifacts: Sequence[Artifact]) -> None:
    for index, artifact in enumerate(artifacts):
        parts[f"{name}[{index}]"] = f"{artifact.TYPE_NAME} {artifact.digest}"
        said = {
            key: _plain(value)
            for key, value in artifact.properties.items()
            if key not in _ADDED
            and key not in artifact.ORIGIN
            and not key.startswith("penstock_")
        }
        if said:
            parts[f"{name}[{index}] properties"] = json.dumps(said, sort_keys=True)


def _plain(value: Any) -> Any:
    """Return a property as it is the same before and after the store had it.

    The store knows no bool, and of numbers in lists and dicts only floats.
    """
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return int(number) if number.is_integer() else repr(number)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


@lru_cache(maxsize=256)
def version_of(library: str) -> str:
    """Return the version of an installed library, by the name it is installed by."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def python_version() -> str:
    """Return the version of Python, as far as it counts: `3.11`."""
    return ".".join(platform.python_version_tuple()[:2])
