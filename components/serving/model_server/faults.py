"""Faults on purpose: a JSON file that a test changes while the server runs."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from penstock.components.serving.model_server.status import Code, ServableError
from penstock.schemas.errors import ServingError, did_you_mean, quoted

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one version; by default nothing.

    Attributes:
        load_error: Fails every load, with this text.
        load_error_code: Name of the code of that failure.
        load_seconds: Time that a load takes longer.
        partial: Loads as if the variables had not been copied yet: it is AVAILABLE, and
            every request fails (tensorflow/serving#1086).
        crash_on_load: Ends the process while it loads.
        crash_after: Ends the process at this request of the version, counted from 1.
        error_share: Share of requests that fail, evenly spread: 0.25 is every fourth.
        error_when: Requests fail in which a feature has a value, as
            {"input": "category", "equals": "x"}.
        error_code: Name of the code of failing requests.
        error_message: Their text.
        latency_seconds: Time that requests take longer.
        latency_share: Share of requests that do, evenly spread.
    """

    load_error: str = ""
    load_error_code: str = "INTERNAL"
    load_seconds: float = 0.0
    partial: bool = False
    crash_on_load: bool = False
    crash_after: int = 0
    error_share: float = 0.0
    error_when: Mapping[str, Any] = field(default_factory=dict)
    error_code: str = "INTERNAL"
    error_message: str = "A fault on purpose."
    latency_seconds: float = 0.0
    latency_share: float = 1.0


_NONE = Fault()


class Faults:
    """The faults of a server, read again whenever their file changes.

    The file holds `{"<model>": {"<version>": {"<fault>": <value>}}}`. `*` stands for
    any model or version that is not named.
    """

    def __init__(self, path: Path | None = None, *, may_crash: bool = False) -> None:
        """Read the faults.

        Args:
            path: The file; None has no faults, and a file that is missing has none yet.
            may_crash: Whether the process is the server's own, so that it may end.

        Raises:
            ServingError: The file is not right.
        """
        self._path = path
        self._may_crash = may_crash
        self._seen: tuple[int, ...] | None = None
        self._faults: dict[str, dict[str, Fault]] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()
        self._read()

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            self._seen, self._faults = None, {}
            return
        if seen != self._seen:
            self._faults = read_faults(self._path, may_crash=self._may_crash)
            self._seen = seen

    def of(self, model: str, version: int) -> Fault:
        """Return what goes wrong with a version now."""
        if self._path is None:
            return _NONE
        try:
            self._read()
        except ServingError as error:  # a write that is not finished: keep the last
            _log.warning("%s", error)
        for name in (model, "*"):
            for number in (str(version), "*"):
                fault = self._faults.get(name, {}).get(number)
                if fault is not None:
                    return fault
        return _NONE

    def at_load(self, model: str, version: int) -> Fault:
        """Let a load take longer, fail or end the process; return the fault.

        Raises:
            ServableError: The load fails.
        """
        fault = self.of(model, version)
        if fault.load_seconds:
            time.sleep(fault.load_seconds)
        if fault.crash_on_load:
            _crash()
        if fault.load_error:
            raise ServableError(Code[fault.load_error_code], fault.load_error)
        return fault

    def at_request(self, model: str, version: int, request: Any) -> None:
        """Let a request take longer, fail or end the process.

        Raises:
            ServableError: The request fails.
        """
        fault = self.of(model, version)
        if fault is _NONE:
            return
        with self._lock:
            count = self._counts.get((model, version), 0) + 1
            self._counts[model, version] = count
        if fault.crash_after and count >= fault.crash_after:
            _crash()
        if fault.latency_seconds and _falls(count, fault.latency_share):
            time.sleep(fault.latency_seconds)
        if _falls(count, fault.error_share) or (
            fault.error_when and _holds(request, fault.error_when)
        ):
            raise ServableError(Code[fault.error_code], fault.error_message)


def read_faults(path: Path, *, may_crash: bool = False) -> dict[str, dict[str, Fault]]:
    """Read a file of faults.

    Raises:
        ServingError: It cannot be read, or a model, version, fault or value is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ServingError(
            f"Fault file '{path}' cannot be read: {error}. Write JSON such as "
            '{"model": {"43": {"error_share": 0.5}}}.'
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(versions, dict)
        and all(isinstance(fault, dict) for fault in versions.values())
        for versions in found.values()
    ):
        raise ServingError(
            f"Fault file '{path}' is not made of models, versions and faults. Write "
            '{"model": {"43": {"error_share": 0.5}}}.'
        )
    return {
        model: {
            version: _fault(path, f"{model}/{version}", settings, may_crash)
            for version, settings in versions.items()
        }
        for model, versions in found.items()
    }


def _fault(path: Path, which: str, settings: dict[str, Any], may_crash: bool) -> Fault:
    kinds = {entry.name: type(getattr(_NONE, entry.name)) for entry in fields(Fault)}
    for name, value in settings.items():
        if name not in kinds:
            raise ServingError(
                f"Fault file '{path}' has '{name}' for '{which}', which is no fault "
                f"(known are {quoted(kinds)}).{did_you_mean(name, kinds)}"
            )
        kind = kinds[name]
        legal = (int, float) if kind is float else kind
        if not isinstance(value, legal) or (isinstance(value, bool) != (kind is bool)):
            raise ServingError(
                f"Fault file '{path}' has {name}={value!r} for '{which}', where "
                f"{_NOUNS[kind]} is needed."
            )
        if name.endswith("_code") and str(value) not in Code.__members__:
            raise ServingError(
                f"Fault file '{path}' has {name}={value!r} for '{which}', which is no "
                f"code.{did_you_mean(str(value), Code.__members__)}"
            )
        if name.endswith("_share") and not 0 <= value <= 1:
            raise ServingError(
                f"Fault file '{path}' has {name}={value!r} for '{which}', where a "
                "share from 0 to 1 is needed."
            )
        if name == "error_when" and set(settings[name]) != {"input", "equals"}:
            raise ServingError(
                f"Fault file '{path}' has error_when={value!r} for '{which}'. Write "
                '{"input": "category", "equals": "x"}.'
            )
        if name.startswith("crash") and value and not may_crash:
            raise ServingError(
                f"Fault file '{path}' has '{name}' for '{which}', but the server runs "
                "in this process, which would end. Start it in a process of its own."
            )
    return Fault(**settings)


_NOUNS: dict[type, str] = {
    str: "a text",
    float: "a number",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
}


def _falls(count: int, share: float) -> bool:
    # Evenly spread, so that a test can count on the number.
    return int(count * share) > int((count - 1) * share)


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _holds(request: Any, when: Mapping[str, Any]) -> bool:
    name, wanted = when["input"], when["equals"]
    if hasattr(request, "inputs"):
        if name not in request.inputs:
            return False
        from penstock.components.serving.model_server.tensors import to_array

        try:
            values = to_array(request.inputs[name]).reshape(-1).tolist()
        except ValueError:
            return False  # refused soon, for what it is
        return any(_same(value, wanted) for value in values)
    kind = request.input.WhichOneof("kind")
    if kind is None:
        return False
    held = getattr(request.input, kind)
    rows = list(held.examples)
    if kind == "example_list_with_context":
        rows.append(held.context)
    for row in rows:
        feature = row.features.feature.get(name)
        if feature is not None and feature.WhichOneof("kind"):
            values = getattr(feature, feature.WhichOneof("kind")).value
            if any(_same(value, wanted) for value in values):
                return True
    return False


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bytes) and isinstance(wanted, str):
        return value == wanted.encode()
    return bool(value == wanted)
