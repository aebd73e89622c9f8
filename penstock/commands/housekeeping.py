"""The verb that deletes what nobody needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import (
    JsonOption,
    RootOption,
    StoreOption,
    WaitOption,
)
from penstock.commands.records import artifact_json, find_subject, open_store
from penstock.commands.terminal import new_console, plain, print_json
from penstock.pipelines.run import DEFAULT_ROOT
from penstock.schemas.errors import quoted

if TYPE_CHECKING:
    from penstock.pipelines.housekeeping import Garbage
    from penstock.pipelines.metadata import Store
    from penstock.schemas.artifacts import Artifact


def gc(
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    runs: Annotated[
        int,
        typer.Option(
            "--runs",
            metavar="N",
            min=0,
            help="Keep what the last N runs of each pipeline read and wrote.",
        ),
    ] = 5,
    blessed: Annotated[
        int,
        typer.Option(
            "--blessed",
            metavar="N",
            min=0,
            help="Keep the last N blessed models of each pipeline.",
        ),
    ] = 3,
    younger_than: Annotated[
        str,
        typer.Option(
            "--younger-than",
            metavar="TIME",
            help="Keep what runs younger than this read and wrote, as 30d, 12h or 90m.",
        ),
    ] = "30d",
    unserved: Annotated[
        list[str] | None,
        typer.Option(
            "--unserved",
            metavar="DIR",
            help="A serving directory that is gone for good; repeat it for more.",
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete it, and do not only list it.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=0,
            help="How long to wait for runs that go on before something is deleted.",
        ),
    ] = 0.0,
    pin: Annotated[
        str,
        typer.Option(
            "--pin",
            metavar="ARTIFACT|VERSION",
            help="Only record that it is kept from now on, with all it came from.",
        ),
    ] = "",
    unpin: Annotated[
        str,
        typer.Option(
            "--unpin",
            metavar="ARTIFACT|VERSION",
            help="Only record that it is left to the policy again.",
        ),
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is kept in the lineage.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List what could be deleted and why the rest is kept, or delete it."""
    if pin or unpin:
        if (pin and unpin) or delete or not reason.strip():
            raise typer.BadParameter(
                "a pin is recorded by itself, with the reason, which is all that later "
                "readers will know. Pass one of --pin and --unpin, --reason TEXT, and "
                "no --delete."
            )
        _pin(open_store(root, store, store_wait), root, pin, unpin, reason, as_json)
        return
    if reason:
        raise typer.BadParameter("--reason says why something is pinned. Pass --pin.")
    from penstock.pipelines import housekeeping
    from penstock.pipelines.retention import Policy

    policy = Policy(
        runs=runs,
        blessed=blessed,
        younger_than_seconds=seconds_of(younger_than, "--younger-than"),
        unserved=tuple(unserved or ()),
    )
    opened = open_store(root, store, store_wait)
    if delete:
        garbage = housekeeping.delete_garbage(opened, root, policy, wait_seconds=wait)
    else:
        garbage = housekeeping.find_garbage(opened, root, policy)
    if as_json:
        print_json(_garbage_json(garbage, deleted=delete))
    else:
        _print_garbage(garbage, deleted=delete)


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(text: str, option: str) -> float:
    """Return a length of time such as 30d, as an option has it, in seconds."""
    try:
        number = float(text[:-1])
        if text[-1:] in _UNIT_SECONDS and 0 <= number < float("inf"):
            return number * _UNIT_SECONDS[text[-1]]
    except ValueError:
        pass
    raise typer.BadParameter(
        f"'{text}' is no length of time. Write a number and one of "
        f"{quoted(_UNIT_SECONDS)}, as in 30d.",
        param_hint=option,
    )


def _pin(
    opened: Store, root: Path, pin: str, unpin: str, reason: str, as_json: bool
) -> None:
    from penstock.pipelines import pins
    from penstock.pipelines.root_lock import in_use

    with in_use(root):
        artifact = find_subject(opened, pin or unpin)
        made = (pins.pin if pin else pins.unpin)(opened, artifact, reason)
    if as_json:
        print_json(
            {
                "action": "pin" if pin else "unpin",
                "artifact": artifact_json(artifact),
                "reason": made.reason,
            }
        )
        return
    said = "is pinned" if pin else "is pinned no more. It was"
    subject = f"{artifact.TYPE_NAME} {artifact.id}"
    new_console().print(f"{subject} {said}: {made.reason}", markup=False)


def _garbage_json(garbage: Garbage, *, deleted: bool) -> dict[str, Any]:
    return {
        "deleted": deleted,
        "size": garbage.size_bytes,
        "garbage": [
            {
                "what": each.what.value,
                "path": str(each.path),
                "size": each.size_bytes,
                "artifacts": [artifact_json(one) for one in each.artifacts],
            }
            for each in garbage.items
        ],
        "kept_size": sum(each.size_bytes for each in garbage.kept),
        "kept": [
            {
                "why": each.reason.why.value,
                "reason": each.reason.text,
                "path": str(each.path),
                "size": each.size_bytes,
                "artifacts": [artifact_json(one) for one in each.artifacts],
            }
            for each in garbage.kept
        ],
        "restored": [artifact_json(each) for each in garbage.restored],
        "untouched": dict(garbage.untouched),
        "remarks": list(garbage.remarks),
    }


def _print_garbage(garbage: Garbage, *, deleted: bool) -> None:
    from collections import Counter

    from rich.table import Table

    console = new_console()
    if garbage.kept:
        table = Table(title="kept", title_justify="left", box=None, pad_edge=False)
        for title in ("artifact", "size", "because", "location"):
            justify: Any = "right" if title == "size" else "left"
            table.add_column(title, justify=justify, overflow="fold")
        for kept in garbage.kept:
            table.add_row(
                _named(kept.artifacts),
                f"{kept.size_bytes:,}",
                f"[bold]{kept.reason.why.value}[/]: {plain(kept.reason.text)}",
                plain(str(kept.path)),
            )
        console.print(table)
    verb = "deleted" if deleted else "would be deleted"
    if garbage.items:
        table = Table(title=verb, title_justify="left", box=None, pad_edge=False)
        for title in ("what", "size", "location"):
            justify = "right" if title == "size" else "left"
            table.add_column(title, justify=justify, overflow="fold")
        for item in garbage.items:
            table.add_row(
                _named(item.artifacts) or item.what.value,
                f"{item.size_bytes:,}",
                plain(str(item.path)),
            )
        console.print(table)
    for number, why in sorted((n, w) for w, n in garbage.untouched.items()):
        console.print(f"[dim]{number:,} artifacts are not looked at: {why}[/]")
    for remark in garbage.remarks:
        console.print(remark, markup=False)
    for artifact in garbage.restored:
        console.print(
            f"{artifact.TYPE_NAME} {artifact.id}, which an earlier 'penstock gc' had "
            f"begun to delete, is kept{'' if deleted else ' by --delete'}."
        )
    size = sum(each.size_bytes for each in garbage.kept)
    count = sum(len(each.artifacts) for each in garbage.kept)
    console.print(f"kept: {_counted('artifact', count)}, {size:,} bytes")
    counts = Counter(each.what.value for each in garbage.items)
    listed = [_counted(what, count) for what, count in counts.items()] or ["nothing"]
    console.print(f"{verb}: {', '.join(listed)}, {garbage.size_bytes:,} bytes")
    if garbage.items and not deleted:
        console.print("Nothing is deleted yet: --delete does it.")


def _counted(noun: str, count: int) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _named(artifacts: tuple[Artifact, ...]) -> str:
    return ", ".join(f"{each.TYPE_NAME} {each.id}" for each in artifacts)
