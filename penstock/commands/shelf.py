"""Verbs for the versions of a serving directory: verify, pin, quarantine, retain.

None of them needs the lineage store, TensorFlow or a model server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.housekeeping import seconds_of
from penstock.commands.models import entry_json
from penstock.commands.options import JsonOption
from penstock.commands.terminal import SAID_NO, new_console, plain, print_json
from penstock.schemas.errors import ServingError

if TYPE_CHECKING:
    from penstock.components.serving.retention import Retention

ServingDirArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The serving directory.")
]
VersionArgument = Annotated[
    int, typer.Argument(metavar="VERSION", help="Number of the version.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why; it is kept in the ledger.")
]


def verify(
    serving_dir: ServingDirArgument,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="VERSION", help="Number of a version; all of them by default."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the bytes of versions with what was pushed; 3 says that they differ."""
    from penstock.components.serving import versions
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.shelf import entries, entry_of

    with Ledger(serving_dir, read_only=True) as ledger:
        found = entries(ledger) if version is None else (entry_of(ledger, version),)
        if not found:
            raise ServingError(
                f"Serving directory '{ledger.directory}' has no versions, so there is "
                "nothing to compare. Push a model first, or name the folder that holds "
                "the numbered versions."
            )
        said: dict[int, tuple[str, ...]] = {}
        for each in found:
            if each.version.state is versions.VersionState.MISSING:
                said[each.number] = ("It is missing.",)
            elif each.version.state is not versions.VersionState.FOREIGN or version:
                said[each.number] = versions.verify(ledger.directory, each.number)
    differ = {number: sentences for number, sentences in said.items() if sentences}
    if as_json:
        print_json({str(number): list(each) for number, each in said.items()})
    else:
        console = new_console()
        for each in found:
            if each.number in differ:
                for sentence in differ[each.number]:
                    console.print(
                        f"Version {each.number} differs: {sentence}",
                        markup=False,
                        soft_wrap=True,
                    )
            elif each.number in said:
                console.print(f"Version {each.number} is as it was pushed.")
            else:
                console.print(
                    f"Version {each.number} was not pushed by penstock: there is "
                    "nothing to compare it with."
                )
    if differ:
        raise typer.Exit(SAID_NO)


def pin(
    serving_dir: ServingDirArgument,
    version: VersionArgument,
    name: Annotated[str, typer.Option("--name", help="Name of the pin.")] = "",
    reason: ReasonOption = "",
    unpin: Annotated[
        bool, typer.Option("--unpin", help="Remove the pin of this name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep a version from being deleted, until the pin is removed."""
    if not name.strip() or not reason.strip():
        raise typer.BadParameter(
            "a pin has a name to be removed by, and a reason, which is all that later "
            "readers will know. Pass --name NAME and --reason TEXT."
        )
    from penstock.components.serving import shelf
    from penstock.components.serving.ledger import Ledger

    with Ledger(serving_dir) as ledger:
        (shelf.unpin if unpin else shelf.pin)(ledger, version, name, reason)
    said = f"is no more pinned as '{name}'" if unpin else f"is pinned as '{name}'"
    _done("unpin" if unpin else "pin", version, said, reason, as_json)


def quarantine(
    serving_dir: ServingDirArgument,
    version: VersionArgument,
    reason: ReasonOption = "",
    release: Annotated[
        bool,
        typer.Option(
            "--release", help="Take back that it was quarantined or rolled back."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Rename a version so that no model server takes it; or give its number back."""
    if not reason.strip():
        raise typer.BadParameter(
            "the reason is all that later readers will know. Pass --reason TEXT."
        )
    from penstock.components.serving import shelf
    from penstock.components.serving.ledger import Ledger

    with Ledger(serving_dir) as ledger:
        (shelf.release if release else shelf.quarantine)(ledger, version, reason)
        if not release:
            # It may have been quarantined before, for a reason that stays.
            standing = shelf.entry_of(ledger, version).standing
            reason = standing.quarantined or reason
    said = "is released" if release else "is quarantined"
    _done("release" if release else "quarantine", version, said, reason, as_json)


def _done(action: str, version: int, said: str, reason: str, as_json: bool) -> None:
    if as_json:
        print_json({"action": action, "version": version, "reason": reason})
        return
    new_console().print(f"Version {version} {said}: {reason}", markup=False)


def retain(
    serving_dir: ServingDirArgument,
    keep: Annotated[
        int,
        typer.Option("--keep", metavar="N", min=1, help="Keep the last N versions."),
    ],
    younger_than: Annotated[
        str,
        typer.Option(
            "--younger-than",
            metavar="TIME",
            help="Keep versions that were pushed less than this ago, as 7d, 12h or "
            "90m.",
        ),
    ] = "1d",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them, and do not only list them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List old versions and why the others are kept, or delete them."""
    seconds = seconds_of(younger_than, "--younger-than")
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.retention import find_old
    from penstock.components.serving.retention import retain as delete_old

    act = delete_old if delete else find_old
    with Ledger(serving_dir, read_only=not delete) as ledger:
        found = act(ledger, keep, younger_than_seconds=seconds)
    if as_json:
        print_json(_retention_json(found, deleted=delete))
    else:
        _print_retention(found, deleted=delete)


def _retention_json(found: Retention, *, deleted: bool) -> dict[str, Any]:
    return {
        "deleted": deleted,
        "size": found.size_bytes,
        "old": [entry_json(each) for each in found.deleted],
        "kept": [{**entry_json(each), "reason": why} for each, why in found.kept],
    }


def _print_retention(found: Retention, *, deleted: bool) -> None:
    from rich.table import Table

    console = new_console()
    verb = "deleted" if deleted else "would be deleted"
    table = Table(box=None, pad_edge=False)
    for title in ("version", "size", "", "because"):
        justify: Any = "right" if title == "size" else "left"
        table.add_column(title, justify=justify, overflow="fold")
    rows = [
        *((each, verb, "") for each in found.deleted),
        *((each, "kept", why) for each, why in found.kept),
    ]
    for each, what, why in sorted(rows, key=lambda row: row[0].number):
        size = f"{each.version.size_bytes:,}"
        table.add_row(str(each.number), size, what, plain(why))
    if rows:
        console.print(table)
    count = len(found.deleted)
    listed = f"{count:,} version{'s' * (count != 1)}" if count else "nothing"
    console.print(f"{verb}: {listed}, {found.size_bytes:,} bytes")
    if count and not deleted:
        console.print("Nothing is deleted yet: --delete does it.")
