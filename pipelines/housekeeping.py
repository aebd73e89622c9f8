"""What lies below a root that no policy keeps, and how it is deleted: `penstock gc`.

Only what penstock made is ever deleted, and only where it makes it: artifacts in
`<root>/<pipeline>/<component>/<output>/<execution>`, and below `<root>/.penstock` the
folders of runs, the sources of code and the lists of packages. Locations that the store
names are compared with these places, never used as they are, and links are not
followed.

The store knows first: an artifact is marked for deletion, then its files are removed,
then it is DELETED. Killed in between, the next deletion goes on there.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from penstock.pipelines.disk import sync
from penstock.pipelines.metadata import ExecutionRecord, Store
from penstock.pipelines.repair import repair
from penstock.pipelines.retention import AT_ONCE, Policy, Reason, Why, retained
from penstock.pipelines.root_lock import is_going_on, unused
from penstock.schemas.artifacts import Artifact, ArtifactState
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import DataError, PipelineError

_T = TypeVar("_T")

_BATCH = 50  # items that are marked, removed and recorded together

_HEX = re.compile(r"[0-9a-f]{64}")


class What(enum.Enum):
    """What kind of thing is deleted."""

    ARTIFACT = "artifact"
    RUN = "run"
    """The folder of a run, with its logs."""
    SOURCE = "source"
    """A file of code that executions ran, or the list of what belongs to it."""
    ENVIRONMENT = "environment"
    """A list of the packages that executions ran with."""
    FOLDER = "folder"
    """A folder that is empty, or will be."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to be deleted.

    Attributes:
        what: Its kind.
        path: Where it lies.
        size_bytes: Size of all its files.
        artifacts: The artifacts that lie there.
    """

    what: What
    path: Path
    size_bytes: int
    artifacts: tuple[Artifact, ...] = ()


@dataclasses.dataclass(frozen=True)
class Kept:
    """One folder with artifacts that is kept.

    Attributes:
        path: Where it lies.
        size_bytes: Size of all its files.
        artifacts: The artifacts that lie there.
        reason: Why it is kept.
    """

    path: Path
    size_bytes: int
    artifacts: tuple[Artifact, ...]
    reason: Reason


@dataclasses.dataclass(frozen=True)
class Garbage:
    """What a policy does not keep below a root, and why it keeps the rest.

    Attributes:
        items: What is to be deleted, or was.
        kept: What penstock made there and is kept.
        restored: Artifacts that an earlier deletion has marked, and that are kept now
            with all their bytes.
        untouched: How many artifacts of the store are none of housekeeping's, by why.
        remarks: What keeps more than the policy would, a sentence each.
    """

    items: tuple[Item, ...]
    kept: tuple[Kept, ...]
    restored: tuple[Artifact, ...]
    untouched: Mapping[str, int]
    remarks: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all that is to be deleted."""
        return sum(each.size_bytes for each in self.items)

    def of(self, what: What) -> tuple[Item, ...]:
        """Return the items of a kind."""
        return tuple(each for each in self.items if each.what is what)


def find_garbage(
    store: Store, root: str | Path, policy: Policy, *, now: float | None = None
) -> Garbage:
    """Return what a policy does not keep below a root; change nothing.

    Args:
        store: The lineage store.
        root: Folder that artifacts, logs and locks lie in.
        policy: What is to be kept.
        now: The present, in seconds since 1970; the clock's unless given.

    Raises:
        PipelineError: If the root is no folder, or the policy names a serving
            directory that nothing was pushed to.
        DataError: If something below the root cannot be read.
    """
    folder = _existing(root)
    runs = store.runs()
    artifacts = {each.id: each for each in store.artifacts() if each.id is not None}
    try:
        gone = {number for number, each in artifacts.items() if _is_gone(folder, each)}
        now = time.time() if now is None else now
        kept = retained(store, artifacts, gone, policy, now)
        sorting = _Sorting(store, folder, artifacts, gone, kept.artifacts)
        staying = [*map(_trace, kept.executions), *sorting.staying()]
        busy = {each.run_id for each in staying} | set(kept.runs)
        known = {each.id for each in runs}
        strangers = _strangers(folder, known)
        items = [*sorting.items(), *_run_folders(folder, known - busy)]
        if not strangers:
            items += _sources(folder, {each.code for each in staying})
            items += _environments(folder, {each.packages for each in staying})
        pipelines = {each.pipeline for each in runs}
        items += _empty_folders(folder, pipelines, {each.path for each in items})
        return Garbage(
            items=tuple(items),
            kept=tuple(sorting.kept()),
            restored=tuple(sorting.restored),
            untouched=dict(sorting.untouched),
            remarks=tuple(_remark(folder, each) for each in strangers[:1]),
        )
    except OSError as error:
        raise DataError(
            f"'{error.filename}' cannot be read: {error.strerror}. Give yourself the "
            "right to read it, and run 'penstock gc' again."
        ) from error


def delete_garbage(
    store: Store,
    root: str | Path,
    policy: Policy,
    *,
    wait_seconds: float = 0.0,
    now: float | None = None,
) -> Garbage:
    """Delete what a policy does not keep below a root.

    What killed runs left behind is put right first.

    Args:
        store: The lineage store.
        root: Folder that artifacts, logs and locks lie in.
        policy: What is to be kept.
        wait_seconds: How long to wait while runs go on below the root.
        now: The present, in seconds since 1970; the clock's unless given.

    Returns:
        What was deleted, and why the rest was kept.

    Raises:
        PipelineError: If the root is no folder or is in use, or the policy names a
            serving directory that nothing was pushed to.
        DataError: If something below the root cannot be read or removed; what can be
            removed is removed all the same.
    """
    folder = _existing(root)
    with unused(folder, wait_seconds):
        repair(folder, store)
        garbage = find_garbage(store, folder, policy, now=now)
        _delete(store, garbage)
    return garbage


def _existing(root: str | Path) -> Path:
    """Return the root without links.

    Raises:
        PipelineError: If it is no folder.
    """
    folder = Path(os.path.realpath(root))
    if not folder.is_dir():
        raise PipelineError(
            f"Root '{root}' is no folder that exists. Name the folder of artifacts and "
            "logs with --root."
        )
    return folder


# Artifacts -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Trace:
    """What an execution left beside artifacts.

    Attributes:
        run_id: The run that it belongs to.
        code: Digest of the code that it ran, in hexadecimal; empty if not recorded.
        packages: Digest of the list of packages that it ran with, likewise.
    """

    run_id: str
    code: str
    packages: str


def _trace(execution: ExecutionRecord) -> _Trace:
    try:
        parts = json.loads(str(execution.properties.get("penstock_parts", "{}")))
    except ValueError:
        parts = {}
    code = parts.get("code", "") if isinstance(parts, dict) else ""
    packages = execution.properties.get("penstock_environment_packages", "")
    code, packages = (str(each).removeprefix("sha256:") for each in (code, packages))
    return _Trace(execution.run_id, code, packages)


class _Sorting:
    """Sorts the artifacts that are not deleted yet.

    Args:
        store: The lineage store.
        root: The root, without links.
        artifacts: All artifacts of the store, by number.
        gone: Numbers of those without their bytes.
        retained: Why the policy keeps what it keeps, by number.

    Attributes:
        restored: What was marked for deletion, and is kept with all its bytes.
        untouched: How many are none of housekeeping's, by why.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        artifacts: Mapping[int, Artifact],
        gone: Collection[int],
        retained: Mapping[int, Reason],
    ) -> None:
        self.root = root
        self.untouched: Counter[str] = Counter()
        self._live = {
            number: each
            for number, each in artifacts.items()
            if each.state is not ArtifactState.DELETED
        }
        self._places = {number: _place(each) for number, each in self._live.items()}
        self._reasons = {
            number: retained[number]
            for number in sorted(retained.keys() & self._live.keys())
            if number not in gone
        }
        self._garbage: dict[Path, list[int]] = {}
        self._traces: dict[int, _Trace] = {}
        self.restored = [
            self._live[each] for each in self._reasons if self._live[each].is_deleted
        ]
        self._sort(store)

    def items(self) -> list[Item]:
        """Return what is to be deleted, the oldest first."""
        return [
            Item(
                What.ARTIFACT,
                place,
                _size(place),
                tuple(self._live[each] for each in sorted(numbers)),
            )
            for place, numbers in sorted(self._garbage.items(), key=_oldest)
        ]

    def kept(self) -> list[Kept]:
        """Return what is kept below the root, the oldest first."""
        found: dict[Path, list[int]] = {}
        for number in sorted(self._reasons):
            place = self._places[number]
            if place is not None and not self._why_elsewhere(number):
                found.setdefault(place, []).append(number)
        return [
            Kept(
                place,
                _size(place),
                tuple(self._live[each] for each in numbers),
                self._reasons[numbers[0]],
            )
            for place, numbers in sorted(found.items(), key=_oldest)
        ]

    def staying(self) -> list[_Trace]:
        """Return what first wrote the artifacts that stay though no policy says so."""
        gone = set(itertools.chain.from_iterable(self._garbage.values()))
        return [each for number, each in self._traces.items() if number not in gone]

    def _sort(self, store: Store) -> None:
        others: dict[int, str] = {}
        rest = [each for each in self._live if each not in self._reasons]
        for chunk in _chunks(rest, AT_ONCE):
            writers = store.first_records([self._live[each] for each in chunk])
            for number in chunk:
                writer, place = writers.get(number), self._places[number]
                if writer is not None:
                    self._traces[number] = _trace(writer)
                why = self._why_untouched(number, writer)
                if why or writer is None or place is None:
                    others[number] = why
                elif writer.run_id:
                    self._garbage.setdefault(place, []).append(number)
                else:
                    text = f"it records what '{writer.component}' was told"
                    self._reasons[number] = Reason(Why.SAID, text)
        self._keep_shared()
        self._share_fate(others)

    def _why_untouched(self, number: int, writer: ExecutionRecord | None) -> str:
        """Return why an artifact is none of housekeeping's, or the empty string."""
        place = self._places[number]
        why = self._why_elsewhere(number)
        if why or place is None:
            return why
        if writer is None or "penstock_component" not in writer.properties:
            return "not made by penstock"
        if writer.run_id and not _is_home(self.root, place, number, writer):
            return "not where penstock puts artifacts"
        return ""

    def _why_elsewhere(self, number: int) -> str:
        place = self._places[number]
        if self._live[number].properties.get("is_external") == 1:
            return "external"
        is_below = place is not None and place.is_relative_to(self.root)
        return "" if is_below and place != self.root else "not below the root"

    def _keep_shared(self) -> None:
        """Keep what is, holds or lies in a place that something kept needs."""
        needed = {self._places[each]: each for each in self._reasons}
        needed.pop(None, None)
        holding = {
            above: number
            for place, number in needed.items()
            if place is not None
            for above in place.parents
        }
        for place in list(self._garbage):
            near = [needed[each] for each in (place, *place.parents) if each in needed]
            near += [holding[place]] if place in holding else []
            if near:
                other = self._live[near[0]]
                text = f"{other.TYPE_NAME} {other.id}, which is kept, lies there too"
                for number in self._garbage.pop(place):
                    self._reasons[number] = Reason(Why.SHARED, text)

    def _share_fate(self, others: Mapping[int, str]) -> None:
        """Let go what others recorded of places that go: its bytes go with them."""
        for number, why in others.items():
            place = self._places[number]
            around = () if place is None else (place, *place.parents)
            home = next((each for each in around if each in self._garbage), None)
            if home is None:
                self.untouched[why] += 1
            else:
                self._garbage[home].append(number)


def _oldest(folder: tuple[Path, list[int]]) -> int:
    return min(folder[1])


def _place(artifact: Artifact) -> Path | None:
    """Return where an artifact really lies on this machine, or None."""
    if artifact.is_promise:
        return None  # recorded without a location
    place = artifact.uri.removeprefix("file://")
    return None if "://" in place else Path(os.path.realpath(place))


def _is_home(root: Path, place: Path, number: int, writer: ExecutionRecord) -> bool:
    """Return whether a place is where an execution of ours puts what it writes."""
    keys = [
        key
        for key, made in writer.outputs.items()
        if number in [each.id for each in made]
    ]
    # The longer name is for when an execution of another store had the shorter one.
    names = (f"{writer.id}", f"{writer.id}-{writer.run_id}")
    parts = place.relative_to(root).parts
    return not parts[0].startswith(".") and parts in [
        (writer.pipeline, writer.component, key, name) for key in keys for name in names
    ]


def _is_gone(root: Path, artifact: Artifact) -> bool:
    """Return whether an artifact is deleted, or was begun to be and is not whole."""
    if artifact.state is not ArtifactState.MARKED_FOR_DELETION:
        return artifact.is_deleted
    place = _place(artifact)
    if place is None or not place.is_relative_to(root) or not place.is_dir():
        return True
    return folder_digest(place) != artifact.digest


def _size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder; links are not followed.

    What is gone has no size: a run beside may remove what it has written.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    sizes = [_file_size(path)] if path.is_symlink() or not path.is_dir() else []
    for folder, folders, names in os.walk(path, onerror=fail):
        links = [each for each in folders if os.path.islink(os.path.join(folder, each))]
        sizes += [_file_size(Path(folder, each)) for each in (*names, *links)]
    return sum(sizes)


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


# Runs, code and folders ------------------------------------------------------------


def _run_folders(root: Path, removable: set[str]) -> list[Item]:
    """Return the folders of runs of which nothing is left that they wrote."""
    return [
        Item(What.RUN, folder, _size(folder))
        for folder in _folders(root / ".penstock" / "runs")
        if folder.name in removable
        and not is_going_on(folder)
        # Listed there, it was killed, and what it had ready has still to be recorded.
        and not (root / ".penstock" / "live" / folder.name).exists()
    ]


def _strangers(root: Path, known: set[str]) -> list[Path]:
    """Return the folders of runs that another lineage store knows."""
    return [
        folder
        for folder in _folders(root / ".penstock" / "runs")
        if folder.name not in known
        and any(folder.iterdir())
        and not is_going_on(folder)  # else the store has only just been told
    ]


def _remark(root: Path, stranger: Path) -> str:
    return (
        f"Run '{stranger.name}' below '{root}' is not in this lineage store. Another "
        "one seems to share the root, so the sources of all code are kept."
    )


def _folders(place: Path) -> list[Path]:
    """Return the folders in a place, without links and hidden ones."""
    if not place.is_dir() or place.is_symlink():
        return []
    with os.scandir(place) as entries:
        return sorted(
            Path(each.path)
            for each in entries
            if each.is_dir(follow_symlinks=False) and not each.name.startswith(".")
        )


def _sources(root: Path, codes: set[str]) -> list[Item]:
    """Return the files of code that none of these digests of code is made of.

    The lists of what belongs to a digest come first: one that is there vouches for its
    files, even after a kill.
    """
    files = _named_by_content(root / ".penstock" / "code")
    needed = {f"{each}.json" for each in codes} & files.keys()
    for name in list(needed):
        needed |= _listed(files[name])
    return [
        Item(What.SOURCE, path, _file_size(path))
        for name, path in sorted(files.items(), key=lambda each: not each[1].suffix)
        if name not in needed
    ]


def _environments(root: Path, digests: set[str]) -> list[Item]:
    """Return the lists of packages that have none of these digests."""
    files = _named_by_content(root / ".penstock" / "environments")
    return [
        Item(What.ENVIRONMENT, path, _file_size(path))
        for path in files.values()
        if path.stem not in digests
    ]


def _named_by_content(folder: Path) -> dict[str, Path]:
    """Return the files in a folder that are named by a SHA-256, by their names."""
    if not folder.is_dir() or folder.is_symlink():
        return {}
    return {
        each.name: each
        for each in sorted(folder.iterdir())
        if _HEX.fullmatch(each.stem) and each.is_file() and not each.is_symlink()
    }


def _listed(index: Path) -> set[str]:
    """Return the names of files that a list of sources may mean.

    Raises:
        DataError: If it is no JSON.
    """
    text = index.read_text(encoding="utf-8", errors="replace")
    try:
        json.loads(text)
    except ValueError as error:
        raise DataError(
            f"'{index}', which lists the code of executions, is no JSON: {error}. "
            "Remove it to give up these sources, and run 'penstock gc' again."
        ) from error
    return set(_HEX.findall(text))


def _empty_folders(root: Path, pipelines: set[str], removed: set[Path]) -> list[Item]:
    """Return the folders above artifacts that are empty, or will be, deepest first."""
    found: list[Item] = []

    def is_hollow(folder: Path, depth: int) -> bool:
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda each: each.name)
        except FileNotFoundError:
            return True  # a run that goes on removed it
        left = [
            each
            for each in listed
            if Path(each.path) not in removed
            and not (
                depth < 3
                and each.is_dir(follow_symlinks=False)
                and is_hollow(Path(each.path), depth + 1)
            )
        ]
        if not left:
            found.append(Item(What.FOLDER, folder, 0))
        return not left

    for folder in _folders(root):
        if folder.name in pipelines:
            is_hollow(folder, 1)
    return found


# Deletion --------------------------------------------------------------------------


def _delete(store: Store, garbage: Garbage) -> None:
    """Delete garbage, the store's state first.

    Raises:
        DataError: If something cannot be removed; the rest is.
    """
    failures: list[OSError] = []
    if garbage.restored:
        store.set_artifact_state(garbage.restored, ArtifactState.LIVE)
    for batch in _chunks(garbage.of(What.ARTIFACT), _BATCH):
        marked = [each for item in batch for each in item.artifacts]
        store.set_artifact_state(marked, ArtifactState.MARKED_FOR_DELETION)
        removed = [item for item in batch if _is_removed(item, failures)]
        for parent in {item.path.parent for item in removed}:
            if parent.is_dir():
                sync(parent)  # else a power cut could bring back what is DELETED
        gone = [each for item in removed for each in item.artifacts]
        store.set_artifact_state(gone, ArtifactState.DELETED)
    for what in (What.RUN, What.SOURCE, What.ENVIRONMENT):
        for item in garbage.of(what):
            _is_removed(item, failures)
    for item in () if failures else garbage.of(What.FOLDER):
        _is_removed(item, failures)
    if failures:
        first, *others = failures
        more = f", nor can {len(others)} more" if others else ""
        raise DataError(
            f"'{first.filename}' cannot be removed{more}: {first.strerror}. The rest "
            "is deleted. Give yourself the right to remove it, and run 'penstock gc "
            "--delete' again."
        ) from first


def _is_removed(item: Item, failures: list[OSError]) -> bool:
    """Remove an item, unless a link leads there by now; say whether it is gone."""
    path = item.path
    try:
        if os.path.realpath(path) != str(path):
            raise OSError(0, "a link leads there by now", str(path))
        if item.what is What.FOLDER:
            path.rmdir()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        failures.append(error)
        return False
    return True


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
