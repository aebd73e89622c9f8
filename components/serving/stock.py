"""Taking stock: the ledger learns what lies there, and what was begun is finished.

Whoever is about to write of versions holds the lock of the serving directory, and so
knows that whoever began something and did not finish it is dead. What was decided is
done: a push whose version appeared has pushed it, a deletion goes on, a quarantined
version is set aside. What lies there without a word in the ledger was pushed if its
manifest says so, and found otherwise; so a ledger that was lost is made anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.components.serving.durable import make_folder, rename_new, sync_folder
from penstock.components.serving.ledger import Ledger, Transaction
from penstock.components.serving.locks import locked
from penstock.components.serving.place import control, explained
from penstock.components.serving.standing import (
    LIFE,
    PENDING,
    Standing,
    standing_of,
)
from penstock.components.serving.versions import DENIED, parse_version, read_manifest
from penstock.schemas.errors import ServingError


@contextlib.contextmanager
def stocktaking(
    ledger: Ledger, progress: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Let nobody else write of versions, and begin with what others left undone.

    Args:
        ledger: The ledger of the serving directory.
        progress: Called while waiting; may raise to stop.

    Raises:
        ServingError: If the directory or its ledger cannot be written, or has been
            locked for too long.
    """
    directory = str(ledger.directory)
    with explained(directory):
        make_folder(control(directory, "manifests"))
        with locked(directory, progress):
            settle(ledger)
            yield
        empty_trash(directory)


def settle(ledger: Ledger) -> None:
    """Write down what lies there, and finish what was begun.

    The caller holds the lock of the serving directory.

    Args:
        ledger: The ledger of the serving directory.
    """
    directory = ledger.directory
    names = {name for name in os.listdir(directory) if is_ours(name)}
    last = ledger.last_kinds(LIFE)
    suspicious = [
        number
        for number in sorted({*last, *map(number_of, names)})
        if _may_be_unsettled(last.get(number), _is_there(number, names))
    ]
    unsettled = [
        number
        for number in suspicious
        if _is_unsettled(standing_of(ledger, number), _is_there(number, names))
    ]
    if not unsettled:
        return
    with ledger.writing() as transaction:
        for number in unsettled:
            # What was decided may have become more while nobody wrote.
            before = standing_of(ledger, number)
            _settle_one(transaction, ledger, before, _is_there(number, names))


def is_ours(name: str) -> bool:
    """Return whether a name is what penstock calls a version, quarantined or not."""
    number = parse_version(name.removesuffix(DENIED))
    return number is not None and name.removesuffix(DENIED) == str(number)


def number_of(name: str) -> int:
    """Return the number of a version by what penstock calls it."""
    return int(name.removesuffix(DENIED))


def _may_be_unsettled(last: str | None, is_there: bool) -> bool:
    """Return whether a version is to be looked at, going by its last event."""
    if last in PENDING:
        return True
    is_expected = last in ("pushed", "found", "quarantined", "released")
    return is_there is not is_expected


def _is_unsettled(standing: Standing, is_there: bool) -> bool:
    if standing.pending is not None:
        return True
    is_expected = standing.is_known and not standing.is_missing
    return is_there is not (is_expected and standing.deleted is None)


def _is_there(number: int, names: set[str]) -> bool:
    return str(number) in names or f"{number}{DENIED}" in names


def _settle_one(
    transaction: Transaction,
    ledger: Ledger,
    before: Standing,
    is_there: bool,
) -> None:
    number, directory = before.version, ledger.directory
    if before.pending == "deleting":
        throw_away(directory, number)
        transaction.event("deleted", number, reason=before.deleted)
    elif before.pending == "quarantining":
        if set_aside(directory, number):
            transaction.event("quarantined", number, reason=before.quarantined)
    elif before.pending == "releasing":
        if put_back(directory, number):
            (*_, begun) = ledger.events(number, kinds=("releasing",))
            transaction.event("released", number, reason=begun.data["reason"])
    elif is_there:
        origin = _origin(directory, number)
        kind = "found" if origin is None else "pushed"
        transaction.event(kind, number, **(origin or {}))
    elif before.pending == "pushing":
        transaction.event("withdrawn", number)
    elif before.is_known:
        transaction.event("missing", number)


def _origin(directory: Path, number: int) -> dict[str, Any] | None:
    """Return what the manifest of a version says, if what lies there was pushed."""
    try:
        record = read_manifest(directory, number)
    except ServingError:
        return None
    # A push whose copy is still staged had its number taken by another tool.
    if record is None or os.path.lexists(
        control(str(directory), "staging", str(record["push"]), "model")
    ):
        return None
    return origin_of(record)


def origin_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the ledger keeps of a manifest."""
    names = ("digest", "size_bytes", "model_uri", "run_id", "blessing", "push")
    at = datetime.fromisoformat(record["pushed_at"]).timestamp()
    return {"pushed_at": at, **{name: record.get(name) for name in names}}


# --- what is done to a folder; each may be done again


def set_aside(directory: Path, number: int) -> bool:
    """Rename a version so that no model server serves it any more.

    Returns:
        Whether nothing of its number is left; False if its other name is taken.
    """
    return _renamed(directory, f"{number}", f"{number}{DENIED}")


def put_back(directory: Path, number: int) -> bool:
    """Rename a version that was set aside to its number.

    Returns:
        Whether it is not set aside any more; False if its number is taken.
    """
    return _renamed(directory, f"{number}{DENIED}", f"{number}")


def _renamed(directory: Path, name: str, other: str) -> bool:
    try:
        rename_new(str(directory / name), str(directory / other))
    except FileExistsError:
        return False
    except FileNotFoundError:
        pass  # done before, or gone
    sync_folder(str(directory))
    return True


def throw_away(directory: Path, number: int) -> None:
    """Move a version into the trash, under whatever name it has, with its manifest."""
    trash = control(str(directory), "trash")
    make_folder(trash)
    for name in (f"{number}", f"{number}{DENIED}"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(
                directory / name, os.path.join(trash, f"{number}.{uuid.uuid4().hex}")
            )
    sync_folder(str(directory))
    sync_folder(trash)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(control(str(directory), "manifests", f"{number}.json"))
    sync_folder(control(str(directory), "manifests"))


def empty_trash(directory: str) -> None:
    """Remove what was moved into the trash; others may do so at the same time."""
    trash = control(directory, "trash")
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(trash):
            path = os.path.join(trash, name)
            if os.path.isdir(path) and not os.path.islink(path):
                _remove(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def _remove(folder: str) -> None:
    def only_gone(_: Any, __: str, raised: Any) -> None:
        error = raised[1] if isinstance(raised, tuple) else raised
        if not isinstance(error, FileNotFoundError):
            raise error

    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=only_gone)
    else:
        shutil.rmtree(folder, onerror=only_gone)
