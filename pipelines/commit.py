"""How outputs become facts: written beside, written down, renamed, recorded.

An execution writes into folders whose names begin with a dot. When it is done, what is
to be recorded is written to the run's folder, then the folders are renamed, then the
store is told. Killed before the first of these, an execution leaves nothing that
counts; killed after it, the next run finishes what is left to do (see `repair`).
"""

from __future__ import annotations

import dataclasses
import json
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.pipelines.disk import sync
from penstock.pipelines.metadata import Store
from penstock.schemas.artifacts import Artifact, PropertyValue
from penstock.schemas.errors import MetadataError

_SUFFIX = ".commit.json"


class Places:
    """Where one execution writes.

    Args:
        base: Folder of the component.
        execution_id: The execution's number.
        keys: Its output keys.

    Attributes:
        final: Where each output lies in the end, by output key.
        staged: Where it is written before.
        temp_dir: The component's own temporary folder.
        child_dir: What this process and a child process tell one another in.
    """

    def __init__(self, base: Path, execution_id: int, keys: Iterable[str]) -> None:
        name = str(execution_id)
        self.final = {key: base / key / name for key in keys}
        self.staged = {key: base / key / f".{name}.partial" for key in self.final}
        self.temp_dir = base / ".tmp" / name
        self.child_dir = base / ".tmp" / f"{name}.child"

    @property
    def temporary(self) -> list[Path]:
        """All that is to be removed when the execution has ended."""
        return [self.temp_dir, self.child_dir, *self.staged.values()]

    def make(self) -> None:
        """Make the folders to write in."""
        for folder in (self.temp_dir, *self.staged.values()):
            folder.mkdir(parents=True)

    def reveal(self) -> None:
        """Rename what is staged into place; go on where a kill interrupted that."""
        for key, staged in self.staged.items():
            if staged.exists():
                os.rename(staged, self.final[key])
            sync(staged.parent)


@dataclasses.dataclass(frozen=True)
class Commit:
    """What the store is to be told of an execution that is done.

    Attributes:
        execution_id: The execution's number.
        component: Name of the component.
        fingerprint: Digest of what it depends on.
        outputs: Its outputs, with their digests and final places, by output key.
        properties: What was measured.
    """

    execution_id: int
    component: str
    fingerprint: str
    outputs: Mapping[str, Artifact]
    properties: Mapping[str, PropertyValue]

    def write(self, folder: Path) -> None:
        """Write it down in the run's folder, through to the disk."""
        path = self._path(folder)
        partial = path.with_suffix(".partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(self._data(), file, default=_plain)
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, path)
        sync(folder)

    def record(self, store: Store, pipeline: str, run_id: str) -> None:
        """Tell the store, in one transaction; each output is given its number."""
        store.complete_execution(
            self.execution_id,
            self.outputs,
            pipeline=pipeline,
            run_id=run_id,
            component=self.component,
            properties=self.properties,
            fingerprint=self.fingerprint,
        )

    def forget(self, folder: Path) -> None:
        """Remove what `write` wrote."""
        self._path(folder).unlink(missing_ok=True)

    def _path(self, folder: Path) -> Path:
        return folder / f"{self.execution_id}{_SUFFIX}"

    def _data(self) -> dict[str, Any]:
        return {
            "execution_id": self.execution_id,
            "component": self.component,
            "fingerprint": self.fingerprint,
            "outputs": {
                key: {
                    "type": each.TYPE_NAME,
                    "uri": each.uri,
                    "digest": each.digest,
                    "properties": each.properties,
                }
                for key, each in self.outputs.items()
            },
            "properties": dict(self.properties),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, numbers.Integral):  # NumPy's among them
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else str(value)


def written(store: Store, folder: Path) -> list[Commit]:
    """Return the commits that are written down in a run's folder.

    Args:
        store: The lineage store, which knows the types of artifacts.
        folder: The run's folder.

    Raises:
        MetadataError: If one cannot be read.
    """
    found = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            outputs = {
                key: store.kind(each["type"])(
                    each["uri"], properties=each["properties"], digest=each["digest"]
                )
                for key, each in data.pop("outputs").items()
            }
            found.append(Commit(outputs=outputs, **data))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MetadataError(
                f"'{path}', which a killed run left, cannot be read: {error}. Look at "
                "it, and remove it to give up what that execution wrote."
            ) from error
    return found
