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

    What is temporary is named by the run, in which a component is executed once: many
    stores may share a root, and number their executions alike.

    Args:
        base: Folder of the component.
        run_id: Id of the run.
        keys: The component's output keys.

    Attributes:
        staged: Where each output is written at first, by output key.
        temp_dir: The component's own temporary folder.
        child_dir: What this process and a child process tell one another in.
    """

    def __init__(self, base: Path, run_id: str, keys: Iterable[str]) -> None:
        self.staged = {key: base / key / f".{run_id}.partial" for key in keys}
        self.temp_dir = base / ".tmp" / run_id
        self.child_dir = base / ".tmp" / f"{run_id}.child"

    @classmethod
    def left(cls, base: Path, run_id: str) -> Places:
        """Return the places of an execution that was killed, as far as they are there.

        Args:
            base: Folder of the component.
            run_id: Id of the run.
        """
        staged = base.glob(f"*/.{run_id}.partial")
        return cls(base, run_id, [each.parent.name for each in staged])

    @property
    def temporary(self) -> list[Path]:
        """All that is to be removed when the execution has ended."""
        return [self.temp_dir, self.child_dir, *self.staged.values()]

    def make(self) -> None:
        """Make the folders to write in."""
        for folder in (self.temp_dir, *self.staged.values()):
            folder.mkdir(parents=True)

    def reveal(self, execution_id: int) -> dict[str, Path]:
        """Rename what is staged into place; go on where a kill interrupted that.

        Args:
            execution_id: The execution's number, by which outputs are named.

        Returns:
            Where each output lies now, by output key.
        """
        for staged in self.staged.values():
            usual, other = self._names(staged, execution_id)
            if staged.exists():
                os.rename(staged, other if usual.exists() else usual)
            sync(staged.parent)
        return self._revealed(execution_id)

    def withdraw(self, execution_id: int) -> None:
        """Take back what `reveal` renamed.

        Args:
            execution_id: The execution's number.
        """
        for key, final in self._revealed(execution_id).items():
            if not self.staged[key].exists() and final.exists():
                os.rename(final, self.staged[key])

    def _revealed(self, execution_id: int) -> dict[str, Path]:
        found = {}
        for key, staged in self.staged.items():
            usual, other = self._names(staged, execution_id)
            found[key] = other if other.exists() else usual
        return found

    def _names(self, staged: Path, execution_id: int) -> tuple[Path, Path]:
        """Return the name of an output, and what it is named if that is taken.

        An execution of another store may have the same number.
        """
        run_id = self.temp_dir.name
        names = (f"{execution_id}", f"{execution_id}-{run_id}")
        usual, other = (staged.with_name(each) for each in names)
        return usual, other


@dataclasses.dataclass(frozen=True)
class Commit:
    """What the store is to be told of an execution that is done.

    Attributes:
        execution_id: The execution's number.
        component: Name of the component.
        fingerprint: Digest of what it depends on.
        outputs: Its outputs, with their digests, by output key.
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

    def placed(self, places: Mapping[str, Path]) -> Commit:
        """Return it with its outputs in other places, by output key."""
        outputs = {
            key: type(each)(
                places[key],
                properties=each.properties,
                digest=each.digest,
                source=each.source,
            )
            for key, each in self.outputs.items()
        }
        return dataclasses.replace(self, outputs=outputs)

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
