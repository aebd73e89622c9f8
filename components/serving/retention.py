"""Which versions of a serving directory are kept, and how the others are deleted.

Only what penstock pushed is ever deleted. A deletion is decided in the transaction
that finds nothing in its way, and from then on nothing may route to the version; then
its folder leaves the serving directory at once, by a rename, and its bytes go.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.place import control
from penstock.components.serving.routing import routing_of
from penstock.components.serving.shelf import Entry, entries
from penstock.components.serving.standing import Standing, standings
from penstock.components.serving.stock import is_ours, stocktaking, throw_away
from penstock.components.serving.traffic import Traffic
from penstock.components.serving.versions import VersionState
from penstock.schemas.errors import ServingError

YOUNG_SECONDS = 86_400.0
"""How long a version is kept after its push, whatever else holds of it."""

_LIVE_SECONDS = 60.0
"""A router that was heard of less than this ago may still use what it was told."""


@dataclass(frozen=True)
class Retention:
    """What is deleted from a serving directory, or would be, and why the rest is kept.

    Attributes:
        deleted: In rising order.
        kept: Why each of the others is kept, as a clause, likewise.
    """

    deleted: tuple[Entry, ...]
    kept: tuple[tuple[Entry, str], ...]

    @property
    def size_bytes(self) -> int:
        """Size of all that is deleted."""
        return sum(each.version.size_bytes for each in self.deleted)


def find_old(
    ledger: Ledger,
    keep_last: int,
    *,
    younger_than_seconds: float = YOUNG_SECONDS,
    now: float | None = None,
) -> Retention:
    """Return which versions would be deleted; change nothing.

    Kept are the last ones that were neither quarantined nor rolled back, and of the
    others those that are newer than the oldest of these; what is stable, was stable
    before, or is rolled out; what is pinned; what a model server was told to hold, with
    a label or without; what is young; what a router may still use; and what other tools
    put there.

    Args:
        ledger: The ledger of the serving directory.
        keep_last: How many to keep; at least 1.
        younger_than_seconds: A version that was pushed less than this ago is kept.
        now: The present, in seconds since 1970; the clock's unless given.

    Raises:
        ServingError: If the numbers make no sense, or the directory or what is kept
            in it cannot be read.
    """
    _check(keep_last, younger_than_seconds)
    now = time.time() if now is None else now
    found = [
        each for each in entries(ledger) if each.version.state != VersionState.MISSING
    ]
    good = sorted(
        each.number
        for each in found
        if _is_ours(each)
        and each.version.state is VersionState.COMPLETE
        and not each.standing.fault
    )
    oldest = good[-keep_last:][0] if good else 0
    late = _late_routers(ledger)
    held = _held_by_servers(ledger.directory)
    whys = [
        (
            each,
            _why_kept(each, oldest, keep_last)
            or held.get(each.number, "")
            or _why_young(each, younger_than_seconds, now)
            or late,
        )
        for each in found
    ]
    return Retention(
        deleted=tuple(each for each, why in whys if not why),
        kept=tuple((each, why) for each, why in whys if why),
    )


def retain(
    ledger: Ledger,
    keep_last: int,
    *,
    younger_than_seconds: float = YOUNG_SECONDS,
    now: float | None = None,
) -> Retention:
    """Delete old versions; `find_old` says which.

    It may be killed anywhere: what was decided is finished by the next one who writes
    of versions.

    Args:
        ledger: The ledger of the serving directory.
        keep_last: How many to keep; at least 1.
        younger_than_seconds: A version that was pushed less than this ago is kept.
        now: The present, in seconds since 1970; the clock's unless given.

    Returns:
        What was deleted, and why the rest was kept.

    Raises:
        ServingError: If the numbers make no sense, or the directory cannot be written.
    """
    _check(keep_last, younger_than_seconds)
    reason = f"It was older than the last {keep_last}."
    with stocktaking(ledger):
        seq = routing_of(ledger).seq
        found = find_old(
            ledger, keep_last, younger_than_seconds=younger_than_seconds, now=now
        )
        # What a rollout took since then is found here, and what it takes from here on
        # it finds deleted. Nobody waits for this transaction longer than for any.
        with ledger.writing() as transaction:
            found = _once_more(found, ledger, is_same=routing_of(ledger).seq == seq)
            for each in found.deleted:
                transaction.event("deleting", each.number, reason=reason)
        for each in found.deleted:
            throw_away(ledger.directory, each.number)
            with ledger.writing() as transaction:
                transaction.event("deleted", each.number, reason=reason)
    return found


def _once_more(found: Retention, ledger: Ledger, *, is_same: bool) -> Retention:
    """Return what is deleted after another look at what the ledger says."""
    standing = standings(ledger)
    deleted, kept = [], list(found.kept)
    for each in found.deleted:
        why = why_used(standing[each.number])
        if not why and not is_same:
            why = "the routing has just changed"
        if why:
            kept.append((each, why))
        else:
            deleted.append(each)
    return Retention(tuple(deleted), tuple(sorted(kept, key=lambda it: it[0].number)))


def _check(keep_last: int, younger_than_seconds: float) -> None:
    if isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 1:
        raise ServingError(
            f"keep_last is {keep_last!r}. Pass a whole number of at least 1: the "
            "newest version is what a model server serves."
        )
    if not 0 <= younger_than_seconds < float("inf"):
        raise ServingError(
            f"younger_than_seconds is {younger_than_seconds!r}, which is no length of "
            "time. Pass a number of seconds of at least 0."
        )


def _is_ours(entry: Entry) -> bool:
    return entry.version.digest is not None and is_ours(entry.version.path.name)


def _why_kept(entry: Entry, oldest: int, keep_last: int) -> str:
    standing = entry.standing
    if not _is_ours(entry):
        return "nothing says that penstock pushed it"
    said = why_used(standing)
    if said:
        return said
    if entry.number >= oldest:
        if standing.fault or entry.version.state is not VersionState.COMPLETE:
            return f"it is newer than the last {keep_last}"
        return f"it is one of the last {keep_last}"
    return ""


def _why_young(entry: Entry, young_seconds: float, now: float) -> str:
    pushed_at = entry.standing.pushed_at
    if pushed_at is None or now - pushed_at >= young_seconds:
        return ""
    at = datetime.fromtimestamp(pushed_at, timezone.utc)
    return f"it is young: it was pushed at {at:%Y-%m-%d %H:%M} UTC"


def why_used(standing: Standing) -> str:
    """Return why a version is in use, as a clause; the empty string if it is not.

    Args:
        standing: How it stands.
    """
    if standing.is_stable:
        return "it is stable"
    if standing.is_candidate:
        return "it is the candidate of a rollout"
    if standing.is_previous:
        return "it was stable before, to go back to"
    for name, reason in standing.pins.items():
        return f"it is pinned as '{name}': {reason.rstrip('.')}"
    return ""


def _held_by_servers(directory: Path) -> dict[int, str]:
    """Return what model servers were told to hold, by version, as clauses."""
    records = sorted(Path(control(str(directory), "servers")).glob("*.json"))
    held: dict[int, str] = {}
    if not records:
        return held
    from penstock.components.serving.server_record import read_record

    for path in records:
        for served in read_record(path).served.values():
            if served.serving_dir == directory:
                server = f"model server '{unquote(path.stem)}'"
                said = {n: f"{server} was told to hold it" for n in served.versions}
                said |= {
                    n: f"{server} knows it as '{at}'" for at, n in served.labels.items()
                }
                held = {**said, **held}
    return held


def _late_routers(ledger: Ledger) -> str:
    """Return which living router may still use what the routing named before."""
    if not (ledger.directory / ".penstock" / "traffic.sqlite").exists():
        return ""
    with Traffic(ledger.directory) as traffic:
        heard = traffic.routers()
    seq = routing_of(ledger).seq
    late = [
        f"router '{each.router}' does not obey the newest routing yet"
        for each in heard
        if each.acknowledged < seq and each.seconds_ago < _LIVE_SECONDS
    ]
    return late[0] if late else ""
