"""The versions of a serving directory, as they lie there and as they stand.

What people do to a version is here: pin it, quarantine it, release it. Deleting old
ones is in `retention`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from penstock.components.serving.ledger import Lease, Ledger
from penstock.components.serving.place import explained
from penstock.components.serving.standing import Standing, standing_of, standings
from penstock.components.serving.stock import (
    is_ours,
    number_of,
    put_back,
    set_aside,
    stocktaking,
)
from penstock.components.serving.versions import (
    DENIED,
    Version,
    VersionState,
    absent,
    verify,
    version_at,
    versions,
)
from penstock.schemas.errors import ServingError, did_you_mean, quoted


@dataclass(frozen=True)
class Entry:
    """A version of a serving directory.

    Attributes:
        version: What lies there.
        standing: What holds of it.
    """

    version: Version
    standing: Standing

    @property
    def number(self) -> int:
        """Its number."""
        return self.version.number

    @property
    def is_servable(self) -> bool:
        """Whether it lies there whole, under its number, as far as sizes show."""
        return not _wrong(self)

    @property
    def remark(self) -> str:
        """What somebody should look at, as a sentence; empty if there is nothing."""
        subject = f"Version {self.number}"
        if self.version.state is VersionState.MISSING:
            return (
                f"{subject} is missing: something other than penstock deleted or moved "
                "it. Put it back, or push its model again."
            )
        if self.version.state is VersionState.DAMAGED:
            return (
                f"{subject} is damaged: it does not hold the files that were pushed. "
                "'penstock verify' names them."
            )
        is_denied = self.version.path.name.endswith(DENIED)
        if self.standing.quarantined is not None and not is_denied:
            return (
                f"{subject} is quarantined, but lies there under its number again, "
                f"where a model server may serve it. Rename it to '{self.number}"
                f"{DENIED}', or release it."
            )
        if self.standing.quarantined is None and is_denied:
            return (
                f"{subject} is called '{self.version.path.name}' though nobody "
                f"quarantined it here. Rename it to '{self.number}', or quarantine it."
            )
        return ""


def entries(ledger: Ledger) -> tuple[Entry, ...]:
    """Return all versions that lie in a serving directory or should, in rising order.

    Those that were deleted are left out. Nothing is locked or written.

    Args:
        ledger: The ledger of the serving directory.

    Raises:
        ServingError: If the directory or its ledger cannot be read.
    """
    directory = ledger.directory
    standing = standings(ledger)
    found = []
    with explained(str(directory)):
        names = {name for name in os.listdir(directory) if is_ours(name)}
    for number in sorted({*map(number_of, names), *standing}):
        entry = _entry(directory, number, standing.get(number, Standing(number)))
        if entry is not None:
            found.append(entry)
    for each in versions(directory):
        if not is_ours(each.path.name):
            found.append(Entry(each, Standing(each.number)))
    return tuple(sorted(found, key=lambda each: (each.number, each.version.path)))


def _entry(directory: Path, number: int, standing: Standing) -> Entry | None:
    with explained(str(directory)):
        for name in (str(number), f"{number}{DENIED}"):
            version = version_at(directory, name)
            if version is not None:
                return Entry(version, standing)
    is_expected = standing.is_known or standing.is_stable or standing.is_candidate
    if not is_expected or standing.deleted is not None:
        return None
    gone = Version(
        number,
        directory / str(number),
        VersionState.MISSING,
        size_bytes=0,
        digest=standing.digest,
        model_uri=standing.model_uri,
        run_id=standing.run_id,
    )
    return Entry(gone, standing)


def entry_of(ledger: Ledger, version: int) -> Entry:
    """Return a version of a serving directory, be it quarantined or missing.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.

    Raises:
        ServingError: If there is none of this number, or it was deleted.
    """
    standing = standing_of(ledger, version)
    entry = _entry(ledger.directory, version, standing)
    if entry is not None:
        return entry
    if standing.deleted is not None:
        raise ServingError(
            f"Version {version} of '{ledger.directory}' was deleted: "
            f"{standing.deleted.rstrip('.')}. Push its model again; it gets a new "
            "number."
        )
    raise absent(ledger.directory, version, {each.number for each in entries(ledger)})


def usable(ledger: Ledger, version: int, *, reads_bytes: bool = True) -> Entry:
    """Return a version that may be served.

    Within `ledger.writing()` it is what holds in that transaction; the bytes are then
    better not read.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
        reads_bytes: Whether all bytes are compared with the manifest, and not the
            sizes of the files alone.

    Raises:
        ServingError: If it is absent, deleted, quarantined, missing or corrupt.
    """
    entry = entry_of(ledger, version)
    wrong = _wrong(entry)
    if not wrong and reads_bytes and entry.version.digest is not None:
        different = verify(ledger.directory, version)
        if different:
            wrong = _corrupt(len(different), different[0])
    if wrong:
        raise ServingError(f"Version {version} of '{ledger.directory}' {wrong}")
    return entry


def _wrong(entry: Entry) -> str:
    number, standing = entry.number, entry.standing
    if standing.deleted is not None:
        return (
            f"is being deleted: {standing.deleted.rstrip('.')}. Push its model again; "
            "it gets a new number."
        )
    if standing.quarantined is not None:
        return (
            f"is quarantined: {standing.quarantined.rstrip('.')}. Take another, or "
            f"release it first: penstock quarantine DIR {number} --release --reason "
            "TEXT."
        )
    if entry.version.state is VersionState.MISSING:
        return (
            "is missing: something other than penstock deleted or moved it. Put it "
            "back, or push its model again."
        )
    if entry.version.path.name != str(number):
        return (
            f"is called '{entry.version.path.name}', where no model server finds it. "
            f"Rename it to '{number}'."
        )
    if entry.version.state is VersionState.DAMAGED:
        return (
            "is corrupt: it does not hold the files that were pushed. 'penstock "
            f"verify DIR {number}' names them; push its model again."
        )
    return ""


def _corrupt(count: int, first: str) -> str:
    more = f" and {count - 1} more files differ" if count > 1 else ""
    return (
        f"is corrupt: {first.rstrip('.')}{more}. Quarantine it, and push its model "
        "again."
    )


# --- what people do to a version


def pin(ledger: Ledger, version: int, name: str, reason: str) -> None:
    """Keep a version from being deleted, until every pin of it is removed.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
        name: Name of the pin; one of the same name is replaced.
        reason: Why.

    Raises:
        ServingError: If there is no such version, or name or reason are empty.
    """
    _check_text("name of a pin", name)
    _check_text("reason", reason)
    with stocktaking(ledger), ledger.writing() as transaction:
        entry_of(ledger, version)
        transaction.event("pinned", version, name=name.strip(), reason=reason.strip())


def unpin(ledger: Ledger, version: int, name: str, reason: str) -> None:
    """Remove a pin.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
        name: Name of the pin.
        reason: Why.

    Raises:
        ServingError: If there is no such version or pin, or the reason is empty.
    """
    _check_text("reason", reason)
    with stocktaking(ledger), ledger.writing() as transaction:
        pins = entry_of(ledger, version).standing.pins
        if name not in pins:
            has = f"its pins are {quoted(pins)}" if pins else "it has none"
            raise ServingError(
                f"Version {version} of '{ledger.directory}' has no pin '{name}' "
                f"({has}).{did_you_mean(name, pins)} Name one that it has."
            )
        transaction.event("unpinned", version, name=name, reason=reason.strip())


def quarantine(
    ledger: Ledger, version: int, reason: str, *, lease: Lease | None = None
) -> None:
    """Set a version aside: its folder gets a name that no model server takes.

    From the moment it is decided, nothing may route to it. A version that is
    quarantined already stays as it is.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
        reason: Why.
        lease: The lease under which to write, for a controller.

    Raises:
        ServingError: If there is no such version, requests may reach it, its other
            name is taken, or the reason is empty.
        LeaseLost: If another holder has the lease.
    """
    _check_text("reason", reason)
    other = f"{version}{DENIED}"
    with stocktaking(ledger):
        with ledger.writing(lease) as transaction:
            entry = entry_of(ledger, version)
            if entry.standing.quarantined is not None:
                return
            _refuse_in_use(ledger, entry)
            if os.path.lexists(ledger.directory / str(version)) and os.path.lexists(
                ledger.directory / other
            ):
                raise ServingError(
                    f"Version {version} of '{ledger.directory}' cannot be set aside: "
                    f"'{other}' is there already. Move it away first."
                )
            transaction.event("quarantining", version, reason=reason.strip())
        set_aside(ledger.directory, version)
        with ledger.writing() as transaction:
            transaction.event("quarantined", version, reason=reason.strip())


def _refuse_in_use(ledger: Ledger, entry: Entry) -> None:
    number, standing = entry.number, entry.standing
    subject = f"Version {number} of '{ledger.directory}' cannot be quarantined: it is "
    if standing.is_stable:
        raise ServingError(
            f"{subject}stable, so that {standing.weight:.0%} of requests go to it. "
            "Roll back or promote another version first, then quarantine it."
        )
    if standing.is_seen:
        raise ServingError(
            f"{subject}the candidate of a rollout, so that {standing.weight:.0%} of "
            "requests go to it, or copies of them. Abort the rollout first: penstock "
            "rollout abort DIR."
        )
    if standing.is_candidate:
        raise ServingError(
            f"{subject}the candidate of a rollout that has begun. Abort the rollout "
            "first: penstock rollout abort DIR."
        )


def release(ledger: Ledger, version: int, reason: str) -> None:
    """Take back that a version was quarantined or rolled back.

    A quarantined one gets its number back: a model server that takes the newest
    version by itself may then serve it at once.

    Args:
        ledger: The ledger of the serving directory.
        version: Its number.
        reason: Why.

    Raises:
        ServingError: If nothing of the kind was said of it, its number is taken by
            another folder, or the reason is empty.
    """
    _check_text("reason", reason)
    with stocktaking(ledger):
        with ledger.writing() as transaction:
            standing = standing_of(ledger, version)
            if not standing.fault:
                entry_of(ledger, version)
                raise ServingError(
                    f"Version {version} of '{ledger.directory}' was neither "
                    "quarantined nor rolled back, so there is nothing to take back. "
                    "'penstock versions DIR' shows how versions stand."
                )
            names = [str(version), f"{version}{DENIED}"]
            if all(os.path.lexists(ledger.directory / name) for name in names):
                raise ServingError(
                    f"Version {version} of '{ledger.directory}' cannot get its number "
                    f"back: '{version}' is there already. Move it away first."
                )
            if standing.quarantined is None:
                transaction.event("released", version, reason=reason.strip())
                return
            transaction.event("releasing", version, reason=reason.strip())
        put_back(ledger.directory, version)
        with ledger.writing() as transaction:
            transaction.event("released", version, reason=reason.strip())


def _check_text(what: str, text: str) -> None:
    if not text.strip():
        raise ServingError(
            f"The {what} is empty, and later readers will know nothing else of it. "
            "Write one."
        )
