"""The newest documents among the many that lie below a folder, each read once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from penstock.components.monitoring.document import Document, read_document
from penstock.components.monitoring.exporter import age_of, monitor_of, newest
from penstock.schemas.errors import DataError

NAMES = ("drift.json", "quality.json")
"""Names of documents inside verdicts; others count only directly in the folder."""


class DocumentFolder:
    """The newest documents of a folder, or the one of a file.

    Of every model the newest document of drift and of quality is kept; the others are
    known by their stamp, and read again only when they change.

    Args:
        path: A folder that is searched with all below it, or a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: tuple[str, ...] = ()
        """A sentence for every file that should be a document, and is none."""
        self._known: dict[Path, tuple[tuple[int, int, int], Document | str | None]] = {}

    @property
    def is_whole(self) -> bool:
        """Whether it says of every model what there is: a folder does."""
        return self.path.is_dir()

    def newest(self) -> tuple[Document, ...]:
        """Return the newest document of every model and monitor.

        Raises:
            DataError: If the path is a file that is no document, or is not there.
        """
        if not self.is_whole:
            return (read_document(self.path),)
        known = {}
        for path in self._paths():
            try:
                status = path.stat()
            except OSError:
                continue  # removed meanwhile
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            before = self._known.get(path)
            if before and before[0] == stamp:
                known[path] = before
                continue
            read: Document | str
            try:
                read = read_document(path)
            except DataError as error:
                read = str(error)
            except OSError as error:
                read = (
                    f"{path} cannot be read: {error.strerror}. Let this user read it."
                )
            known[path] = (stamp, read)
        kept = newest(each for _, each in known.values() if isinstance(each, dict))
        best = {(each["model"], monitor_of(each)): age_of(each) for each in kept}
        for path, (stamp, each) in known.items():
            if isinstance(each, dict):
                # What is older than the newest never counts again, and need not stay.
                name = (each["model"], monitor_of(each))
                if age_of(each) < best[name]:
                    known[path] = (stamp, None)
        self._known = known
        self.faults = tuple(each for _, each in known.values() if isinstance(each, str))
        return kept

    def _paths(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            for name in sorted(names):
                top = folder == str(self.path) and name.endswith(".json")
                if name in NAMES or (top and not name.startswith(".")):
                    yield Path(folder) / name
