"""Watches serving directories, and says which versions of each model are wanted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.version_dir import parse_version

_log = logging.getLogger(__name__)

Versions = list[tuple[int, Path]]
"""Numbers of versions and where they lie."""


@dataclass(frozen=True)
class Monitored:
    """One model to look for.

    Attributes:
        name: Its name.
        base_path: Its serving directory.
        policy: A `ServableVersionPolicy`: the latest ones, all, or specific ones.
    """

    name: str
    base_path: Path
    policy: Any


def aspired_versions(model: Monitored) -> Versions:
    """Return the versions of a model that its policy wants, of those on disk.

    Names are numbers by the rule of `absl::SimpleAtoi`, and nobody looks whether they
    name folders. Of several names of one number the last in the order of names is
    taken.

    Raises:
        ServableError: The serving directory is missing or cannot be read.
    """
    if not os.path.exists(model.base_path):
        raise ServableError(
            Code.INVALID_ARGUMENT,
            f"Could not find base path {model.base_path} for servable {model.name} "
            f"with error NOT_FOUND: {model.base_path} not found",
        )
    try:
        names = sorted(os.listdir(model.base_path))
    except OSError as error:
        raise ServableError(
            Code.FAILED_PRECONDITION, f"{model.base_path}; {error.strerror}"
        ) from error
    found: dict[int, str] = {}
    for name in names:
        number = parse_version(name)
        if number is None:
            continue
        if number in found:
            _log.warning(
                "Duplicate version directories detected. Version %d will be loaded "
                "from %s, %s will be ignored.",
                number,
                name,
                found[number],
            )
        found[number] = name
    wanted = _wanted(model, sorted(found))
    if not wanted:
        _log.warning(
            "No versions of servable %s found under base path %s. Did you forget to "
            "name your leaf directory as a number (eg. '/1/')?",
            model.name,
            model.base_path,
        )
    return [(number, model.base_path / found[number]) for number in wanted]


def _wanted(model: Monitored, numbers: Sequence[int]) -> list[int]:
    choice = model.policy.WhichOneof("policy_choice")
    if choice == "all":
        return list(numbers)
    if choice == "specific":
        asked = set(model.policy.specific.versions)
        for number in sorted(asked.difference(numbers)):
            _log.warning(
                "Version %d of servable %s, which was requested to be served as a "
                "'specific' version in the servable's version policy, was not found "
                "in the file system",
                number,
                model.name,
            )
        return [number for number in numbers if number in asked]
    latest = max(model.policy.latest.num_versions, 1)
    return list(reversed(numbers))[:latest]


class FileSystemSource:
    """Polls serving directories and passes on what their policies want."""

    def __init__(
        self, aspire: Callable[[str, Versions], None], poll_seconds: float
    ) -> None:
        """Watch nothing yet.

        Args:
            aspire: Called with the name of a model and all versions wanted of it.
            poll_seconds: Time between two looks; 0 looks once, less than 0 never.
        """
        self._aspire = aspire
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._models: tuple[Monitored, ...] = ()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def names(self) -> frozenset[str]:
        """The names of the models that are watched."""
        with self._lock:
            return frozenset(model.name for model in self._models)

    def update(self, models: Sequence[Monitored]) -> None:
        """Watch these models instead; those left out are wanted in no version."""
        with self._lock:
            kept = {model.name for model in models}
            for model in self._models:
                if model.name not in kept:
                    self._aspire(model.name, [])
            self._models = tuple(models)

    def poll(self) -> None:
        """Look once.

        Raises:
            ServableError: A serving directory is missing. Then nothing is passed on,
                not even for the other models: so does TensorFlow Serving.
        """
        with self._lock:
            found = [(model.name, aspired_versions(model)) for model in self._models]
            for name, versions in found:
                self._aspire(name, versions)

    def start(self) -> None:
        """Start to look, at once and then again and again."""
        if self._poll_seconds < 0:
            return
        self._thread = threading.Thread(
            target=self._run, name="model-server-source", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.poll()
            except ServableError as error:
                _log.error(
                    "FileSystemStoragePathSource encountered a filesystem access "
                    "error: %s",
                    error.message,
                )
            if self._poll_seconds == 0:
                return
            self._stopping.wait(self._poll_seconds)
