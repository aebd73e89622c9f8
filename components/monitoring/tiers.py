"""Retention in tiers: raw logs for a month, samples for half a year, profiles for ever.

`plan` says what is to be deleted and why the rest stays, and changes nothing; `apply`
deletes what a plan says, after looking again. A raw log goes only when the sample and
the profile of each of its windows are there and can be read.

Before the first file of a window goes, the folder remembers that the window is not
whole any more, and readers are told so from then on. So a process that is killed in
between leaves nothing that looks whole and is not; the next run deletes the rest.
"""

from __future__ import annotations

import dataclasses
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.components.monitoring import prediction_logs
from penstock.components.monitoring.log_times import file_times
from penstock.components.monitoring.logs import LogFormat
from penstock.components.monitoring.profile_files import profile_path, read_profile
from penstock.components.monitoring.sample_files import (
    check_sample,
    sample_path,
    sync_folder,
    window_of_sample,
)
from penstock.components.monitoring.tier_state import (
    STATE,
    Hold,
    Tier,
    add_gone,
    gone,
    holds,
    locked,
)
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError

_UNFINISHED = ".tfrecord.partial"
_LOGS = (".tfrecord", ".parquet", ".csv", ".csv.gz", ".csv.zst")


@dataclasses.dataclass(frozen=True)
class Tiers:
    """The folders of the logs of a model.

    Attributes:
        raw: What the router, or whatever logs, writes. Folders in it are looked into.
        sample: What `sample_files.write_sample` writes.
        profiles: What `profile_files.write_profile` writes.
        format: Of raw logs that are Parquet or CSV: their column of times.
    """

    raw: Path
    sample: Path
    profiles: Path
    format: LogFormat = dataclasses.field(default_factory=LogFormat)

    def check(self) -> None:
        """Check that no tier lies in another.

        Raises:
            DataError: One does, or the folder of the raw logs is no folder of its own.
        """
        real = {
            name: Path(os.path.realpath(getattr(self, name)))
            for name in ("raw", "sample", "profiles")
        }
        for name, path in real.items():
            if path == Path(path.anchor) or path == Path.home():
                raise DataError(
                    f"The {name} tier is '{path}', where other things than logs are. "
                    "Give it a folder of its own."
                )
        for name, path in real.items():
            for other, inner in real.items():
                if name != other and (path == inner or path in inner.parents):
                    raise DataError(
                        f"The {other} tier '{inner}' lies in the {name} tier '{path}', "
                        "so that the one could be deleted with the other. Give each a "
                        "folder of its own."
                    )


@dataclasses.dataclass(frozen=True)
class Retention:
    """How long each tier is kept; profiles are kept for ever.

    Attributes:
        raw_days: Days after the end of its last window that a raw log is kept.
        sample_days: Days after the end of its window that a sample is kept.
        window_seconds: Length of the windows that are sampled and profiled.
    """

    raw_days: float = 30.0
    sample_days: float = 180.0
    window_seconds: float = DAY

    def check(self) -> None:
        """Check that it makes sense.

        Raises:
            DataError: It does not.
        """
        for name in ("raw_days", "sample_days", "window_seconds"):
            value = getattr(self, name)
            if not value > 0 or math.isnan(value):
                raise DataError(
                    f"Retention(...) has {name}={value:g}, which keeps nothing. Pass a "
                    "number above 0."
                )
        if self.sample_days < self.raw_days:
            raise DataError(
                f"Samples are to be kept for {self.sample_days:g} days and raw logs "
                f"for {self.raw_days:g}, which they are to outlive. Pass a larger "
                "sample_days."
            )


@dataclasses.dataclass(frozen=True)
class Deletion:
    """A file that is to go.

    Attributes:
        tier: Which tier it is of.
        path: Below the folder of its tier.
        windows: That it has rows of.
        size: In bytes.
        changed: When it was changed last, in nanoseconds since 1970.
    """

    tier: Tier
    path: str
    windows: tuple[Window, ...]
    size: int
    changed: int


@dataclasses.dataclass(frozen=True)
class Kept:
    """A file that is old enough to go, and stays.

    Attributes:
        tier: Which tier it is of.
        path: Below the folder of its tier.
        why: Why it stays.
    """

    tier: Tier
    path: str
    why: str


@dataclasses.dataclass(frozen=True)
class RetentionPlan:
    """What is to be deleted.

    Attributes:
        at: For which time it was made, in seconds since 1970.
        retention: With which periods.
        deletions: Files that are to go.
        kept: Files that are old enough, and stay.
        young: How many files are not old enough.
    """

    at: float
    retention: Retention
    deletions: tuple[Deletion, ...]
    kept: tuple[Kept, ...]
    young: int

    @property
    def size(self) -> int:
        """How many bytes are to go."""
        return sum(each.size for each in self.deletions)

    @property
    def sentence(self) -> str:
        """What it comes to."""
        return (
            f"{len(self.deletions):,} files of {self.size:,} bytes are to go, "
            f"{len(self.kept):,} stay though they are old enough, and {self.young:,} "
            "are not."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "at": self.at,
            "deletions": [
                {
                    **dataclasses.asdict(each),
                    "windows": [window.name for window in each.windows],
                }
                for each in self.deletions
            ],
            "kept": [dataclasses.asdict(each) for each in self.kept],
            "young": self.young,
            "sentence": self.sentence,
        }


@dataclasses.dataclass(frozen=True)
class Applied:
    """What a plan came to.

    Attributes:
        deleted: Files that are gone.
        kept: Files that stay because something changed since the plan.
        size: How many bytes went.
    """

    deleted: tuple[Deletion, ...]
    kept: tuple[Kept, ...]
    size: int


def plan(
    tiers: Tiers,
    retention: Retention = Retention(),
    *,
    now: float,
) -> RetentionPlan:
    """Say what is to be deleted; nothing is.

    Args:
        tiers: The folders.
        retention: How long they are kept.
        now: The time, in seconds since 1970.

    Raises:
        DataError: The folders or the periods make no sense, or a hold cannot be read.
    """
    tiers.check()
    retention.check()
    check_raw(tiers.raw)
    looking = _Looking(tiers, retention, now, holds(tiers.raw))
    deletions: list[Deletion] = []
    kept: list[Kept] = []
    young = 0
    files: list[tuple[Tier, Path]] = [("raw", path) for path in _logs(tiers.raw)]
    if tiers.sample.is_dir():
        files += [("sample", path) for path in sorted(tiers.sample.glob("*.parquet"))]
    for tier, path in files:
        found = looking.at(tier, path)
        if isinstance(found, Deletion):
            deletions.append(found)
        elif found is None:
            young += 1
        else:
            kept.append(found)
    # Of a window that is to be sampled again, all has to be there.
    for each in tuple(deletions):
        lacks = next(filter(None, map(looking.stale.get, each.windows)), "")
        if each.tier == "raw" and lacks:
            deletions.remove(each)
            kept.append(Kept(each.tier, each.path, lacks))
    return RetentionPlan(now, retention, tuple(deletions), tuple(kept), young)


def check_raw(raw: Path) -> None:
    """Check that there is a folder of raw logs.

    Raises:
        DataError: There is none.
    """
    if not raw.is_dir():
        raise DataError(f"There is no folder of raw logs '{raw}'. Check the path.")


@dataclasses.dataclass(frozen=True)
class Unsampled:
    """A window that is over and has no sample.

    Attributes:
        window: Which.
        files: The raw logs that have rows of it, or may have.
        unfinished: Files still being written that may get some: until they are whole, a
            sample would lack their rows.
    """

    window: Window
    files: tuple[Path, ...]
    unfinished: tuple[Path, ...]


def unsampled(
    tiers: Tiers, retention: Retention = Retention(), *, now: float
) -> tuple[Unsampled, ...]:
    """Return the windows that are over, have rows in raw logs, and have no sample.

    Those of which raw logs were deleted are not among them: what is left of such a
    window is not all of it.

    Args:
        tiers: The folders.
        retention: Says how long windows are.
        now: The time, in seconds since 1970.

    Raises:
        DataError: As `plan`, or nobody knows what times a raw log has.
    """
    tiers.check()
    retention.check()
    check_raw(tiers.raw)
    looking = _Looking(tiers, retention, now, ())
    windows: dict[Window, list[Path]] = {}
    for path in _logs(tiers.raw):
        for window in looking.windows("raw", path):
            if window.end <= now:
                windows.setdefault(window, []).append(path)
    known = gone(tiers.raw)
    written = list(_logs(tiers.raw, (_UNFINISHED,)))
    return tuple(
        Unsampled(
            window,
            tuple(files),
            tuple(
                path
                for path in written
                if prediction_logs.may_still_get(path, window.start, window.end)
            ),
        )
        for window, files in sorted(windows.items())
        if window not in known and not sample_path(tiers.sample, window).exists()
    )


def apply(tiers: Tiers, planned: RetentionPlan) -> Applied:
    """Delete what a plan says, after looking at each file again.

    Args:
        tiers: The folders.
        planned: What `plan` gave.

    Raises:
        DataError: As `plan`; or a file cannot be deleted.
    """
    tiers.check()
    planned.retention.check()
    deleted: list[Deletion] = []
    kept: list[Kept] = []
    with locked(tiers.raw):
        looking = _Looking(tiers, planned.retention, planned.at, holds(tiers.raw))
        due: list[Deletion] = []
        for each in planned.deletions:
            why = _changed(getattr(tiers, each.tier), each)
            if why:
                kept.append(Kept(each.tier, each.path, why))
                continue
            path = getattr(tiers, each.tier) / each.path
            found = looking.at(each.tier, path, each.windows)
            if isinstance(found, Deletion):
                due.append(each)
            elif isinstance(found, Kept):
                kept.append(found)
            else:
                kept.append(Kept(each.tier, each.path, "It is not old enough."))
        windows: dict[Tier, list[Window]] = {"raw": [], "sample": []}
        for each in due:
            windows[each.tier] += each.windows
        add_gone(tiers.raw, windows, planned.at)
        for each in due:
            _unlink(getattr(tiers, each.tier) / each.path)
            deleted.append(each)
        for parent in {(getattr(tiers, e.tier) / e.path).parent for e in due}:
            sync_folder(parent)
    return Applied(tuple(deleted), tuple(kept), sum(each.size for each in deleted))


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be deleted: {error.strerror}. Run this as a user that "
            "may; what was planned and is left goes with the next run."
        ) from error


def _logs(raw: Path, ends: tuple[str, ...] = _LOGS) -> Iterator[Path]:
    """Yield the files of logs below a folder; links are not followed."""
    for root, folders, names in os.walk(raw):
        folders[:] = sorted(
            name
            for name in folders
            if name != STATE and not os.path.islink(os.path.join(root, name))
        )
        for name in sorted(names):
            path = Path(root, name)
            if name.endswith(ends) and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _changed(folder: Path, planned: Deletion) -> str:
    """Return what speaks against deleting a file by its path; nothing if nothing does.

    No part of the path may be a link: it could lead out of the folder by now.
    """
    path = Path(planned.path)
    if not path.parts or path.is_absolute() or {"..", STATE} & set(path.parts):
        return "It is no file below the folder of its tier."
    at = folder
    for part in path.parts[:-1]:
        at = at / part
        if at.is_symlink():
            return "It lies behind a link."
    try:
        state = (folder / path).lstat()
    except OSError:
        return "It is not there any more."
    if not stat.S_ISREG(state.st_mode):
        return "It is no file."
    if (state.st_size, state.st_mtime_ns) != (planned.size, planned.changed):
        return "It was changed since the plan."
    return ""


class _Looking:
    """Looks at files, and remembers what it found of windows."""

    def __init__(
        self,
        tiers: Tiers,
        retention: Retention,
        now: float,
        held: Sequence[Hold],
    ) -> None:
        self._tiers = tiers
        self._retention = retention
        self._now = now
        self._held = held
        self._gone = gone(tiers.raw, "sample")
        self._lacks: dict[tuple[str, Window], str] = {}
        self.stale: dict[Window, str] = {}

    def at(
        self, tier: Tier, path: Path, known: tuple[Window, ...] | None = None
    ) -> Deletion | Kept | None:
        """Return what becomes of a file; None if it is not old enough.

        Args:
            tier: Which tier it is of.
            path: Where it is.
            known: Its windows, if somebody looked before.
        """
        folder = getattr(self._tiers, tier)
        relative = path.relative_to(folder).as_posix()
        state = path.lstat()
        days = {"raw": self._retention.raw_days, "sample": self._retention.sample_days}
        until = self._now - days[tier] * DAY
        # A file holds nothing that is later than its last change, so that young files
        # need not be opened.
        if state.st_mtime > until and tier == "raw":
            return None
        try:
            windows = self.windows(tier, path) if known is None else known
        except DataError as error:
            return Kept(tier, relative, f"Nobody knows what it holds: {error}")
        if any(window.end > until for window in windows):
            return None
        for hold in self._held:
            if hold.covers(relative, windows):
                return Kept(tier, relative, f"Held by '{hold.name}': {hold.reason}")
        for window in windows:
            lacks = self._lacking(tier, window)
            if tier == "raw" and not lacks:
                lacks = self._came_after(state.st_mtime, window)
            if lacks:
                return Kept(tier, relative, lacks)
        return Deletion(tier, relative, windows, state.st_size, state.st_mtime_ns)

    def windows(self, tier: Tier, path: Path) -> tuple[Window, ...]:
        """Return the windows that a file has rows of, or may have."""
        if tier == "sample":
            return (window_of_sample(path),)
        times = file_times(path, self._tiers.format)
        if times is None:
            return ()
        size = self._retention.window_seconds
        first, last = (int(each // size) for each in times)
        return tuple(
            Window(number * size, (number + 1) * size)
            for number in range(first, last + 1)
        )

    def _came_after(self, changed: float, window: Window) -> str:
        """Return that a file is newer than the sample of its window, if it is."""
        if window in self._gone:
            return ""
        if sample_path(self._tiers.sample, window).stat().st_mtime >= changed:
            return ""
        self.stale[window] = (
            f"A log was changed after the sample of {window.name} was made, which may "
            "lack its rows. Remove that sample, and sample the window again."
        )
        return self.stale[window]

    def _lacking(self, tier: Tier, window: Window) -> str:
        """Return what has to be there before a window goes, and is not."""
        checks: list[tuple[str, Callable[[], object]]] = [
            (
                "profile",
                lambda: read_profile(profile_path(self._tiers.profiles, window)),
            )
        ]
        # A raw log that was held may outlive the sample of one of its windows.
        if tier == "raw" and window not in self._gone:
            sample = sample_path(self._tiers.sample, window)
            checks.append(("sample", lambda: check_sample(sample, window)))
        for what, check in checks:
            if (what, window) not in self._lacks:
                try:
                    check()
                    self._lacks[what, window] = ""
                except DataError as error:
                    self._lacks[what, window] = (
                        f"There is no {what} of {window.name} that can be read: {error}"
                    )
            if self._lacks[what, window]:
                return self._lacks[what, window]
        return ""
