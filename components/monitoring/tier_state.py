"""What a folder of raw logs remembers: holds, and windows whose raw log is gone.

It is kept in the folder itself, so that whoever reads the log there sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import fnmatch
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from penstock.components.monitoring.sample_files import sync_folder
from penstock.components.monitoring.windows import Window, iso
from penstock.schemas.errors import DataError, did_you_mean, quoted

STATE = ".retention"
"""Name of the folder, in that of the raw logs, where it is kept."""

_GONE = "gone.json"

Tier: TypeAlias = Literal["raw", "sample"]
_TIERS: tuple[Tier, ...] = ("raw", "sample")


@dataclasses.dataclass(frozen=True)
class Hold:
    """What must not be deleted, whatever its age.

    Attributes:
        name: By which it is released.
        reason: Why, for whoever asks later.
        since: When it was placed, in seconds since 1970.
        window: Everything with rows of this window is held; None for a hold of files.
        file: Files of this path, or pattern of paths, below the folder of the raw logs
            or of the samples are held; None for a hold of a window.
    """

    name: str
    reason: str
    since: float
    window: Window | None = None
    file: str | None = None

    def covers(self, path: str, windows: Iterable[Window]) -> bool:
        """Return whether a file is held.

        Args:
            path: Below its folder, with forward slashes.
            windows: That it has rows of.
        """
        held = self.window
        if held is not None:
            return any(w.start < held.end and held.start < w.end for w in windows)
        return self.file is not None and fnmatch.fnmatchcase(path, self.file)


def place_hold(
    raw: Path | str,
    reason: str,
    *,
    window: Window | None = None,
    file: str | None = None,
    name: str | None = None,
    now: float,
) -> Hold:
    """Hold a window or files.

    Args:
        raw: The folder of the raw logs.
        reason: Why.
        window: What is held; or
        file: A path or pattern below the folder.
        name: Of the hold; made up if None.
        now: Seconds since 1970.

    Raises:
        DataError: Neither or both are given, the reason is empty, or there is a hold
            of that name.
    """
    if (window is None) == (file is None):
        raise DataError(
            "A hold is of a window or of files, and "
            f"{'both' if window is not None else 'neither'} were given. Pass "
            "window=... or file=..."
        )
    if not reason.strip():
        raise DataError(
            "A hold has no reason, by which somebody could release it one day. Pass "
            "one."
        )
    chosen = name or f"hold-{uuid.uuid4().hex[:8]}"
    if not chosen.replace("-", "").replace("_", "").isalnum():
        raise DataError(
            f"A hold cannot be named '{chosen}'. Use letters, digits, '-' and '_'."
        )
    hold = Hold(chosen, reason, now, window, file)
    path = _holds(Path(raw)) / f"{chosen}.json"
    with locked(Path(raw)):
        if path.exists():
            raise DataError(
                f"There is a hold '{chosen}' on '{raw}' already. Choose another name, "
                "or release that one."
            )
        _write(path, _hold_json(hold))
    return hold


def release_hold(raw: Path | str, name: str) -> None:
    """Release a hold.

    Raises:
        DataError: There is none of that name.
    """
    with locked(Path(raw)):
        names = [hold.name for hold in holds(raw)]
        if name not in names:
            raise DataError(
                f"There is no hold '{name}' on '{raw}' (there are {quoted(names)})."
                f"{did_you_mean(name, names)}"
            )
        folder = _holds(Path(raw))
        (folder / f"{name}.json").unlink()
        sync_folder(folder)


def holds(raw: Path | str) -> tuple[Hold, ...]:
    """Return the holds on a folder of raw logs, by name.

    Raises:
        DataError: One cannot be read: then nobody knows what is held.
    """
    found = []
    for path in sorted(_holds(Path(raw)).glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            window = data["window"]
            found.append(
                Hold(
                    data["name"],
                    data["reason"],
                    data["since"],
                    None if window is None else Window(*window),
                    data["file"],
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"The hold '{path}' cannot be read ({error!r}), so that nobody knows "
                "what it holds. Mend it, or remove the file and place the hold again."
            ) from error
    return tuple(found)


def _hold_json(hold: Hold) -> dict[str, Any]:
    window = hold.window
    return {
        "name": hold.name,
        "reason": hold.reason,
        "since": hold.since,
        "window": None if window is None else [window.start, window.end],
        "file": hold.file,
    }


def _holds(raw: Path) -> Path:
    return raw / STATE / "holds"


# --- windows that are gone


def gone(raw: Path, tier: Tier = "raw") -> dict[Window, float]:
    """Return the windows whose raw log, or sample, was deleted, and when."""
    return _gone(raw).get(tier, {})


def _gone(raw: Path) -> dict[Tier, dict[Window, float]]:
    path = raw / STATE / _GONE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            tier: {Window(start, end): at for start, end, at in windows}
            for tier, windows in data.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"'{path}' cannot be read ({error!r}), so that nobody knows which windows "
            "are whole. Mend it, or take it from a backup."
        ) from error


def add_gone(raw: Path, windows: Mapping[Tier, Iterable[Window]], now: float) -> None:
    """Remember that windows are not whole any more, before they are not."""
    known = _gone(raw)
    both = {
        tier: {**dict.fromkeys(windows.get(tier, ()), now), **known.get(tier, {})}
        for tier in _TIERS
    }
    if both == {tier: known.get(tier, {}) for tier in _TIERS}:
        return
    data = {
        tier: [[window.start, window.end, at] for window, at in sorted(all_.items())]
        for tier, all_ in both.items()
    }
    _write(raw / STATE / _GONE, data)


def refuse_gone(raw: Path, window: Window) -> None:
    """Refuse to read a window whose raw log was deleted.

    Raises:
        DataError: It was.
    """
    for each, at in gone(raw).items():
        if each.start < window.end and window.start < each.end:
            raise DataError(
                f"The raw log of {each.name} in '{raw}' was deleted on "
                f"{iso(at)[:10]}, as its retention asks, and what is left of it is not "
                "whole. Read the sample of that window, or its profile."
            )


# --- files


@contextlib.contextmanager
def locked(raw: Path) -> Iterator[None]:
    """Let nobody else change what is remembered, or delete, meanwhile.

    Raises:
        DataError: The folder is not there, or cannot be written to.
    """
    if not raw.is_dir():
        raise DataError(f"There is no folder of raw logs '{raw}'. Check the path.")
    try:
        (raw / STATE / "holds").mkdir(parents=True, exist_ok=True)
        descriptor = os.open(raw / STATE / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DataError(
            f"'{raw}' cannot be written to: {error.strerror}. Run this as a user that "
            "may."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: Any) -> None:
    tried = path.with_name(f".{path.name}.new")
    with open(tried, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(tried, path)
    sync_folder(path.parent)
