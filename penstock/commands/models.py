"""Verbs for models: overruling what was said of them, and their versions."""

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
from penstock.commands.records import (
    artifact_json,
    find_remarks,
    find_subject,
    open_store,
    remarked,
)
from penstock.commands.terminal import new_console, plain, print_json, when
from penstock.pipelines.run import DEFAULT_ROOT

if TYPE_CHECKING:
    from penstock.components.serving.shelf import Entry


def bless(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|VERSION",
            help="Number of a model, its location, or a served version as "
            "SERVING_DIR/NUMBER.",
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    force: Annotated[
        bool,
        typer.Option("--force", help="Bless it, whatever its evaluation said."),
    ] = False,
    block: Annotated[
        bool, typer.Option("--block", help="Put its bytes on the block-list.")
    ] = False,
    unblock: Annotated[
        bool, typer.Option("--unblock", help="Take its bytes off the block-list.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is kept in the lineage.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Bless a model by force, or block it, with a reason."""
    chosen = [
        name
        for name, given in (("force", force), ("block", block), ("unblock", unblock))
        if given
    ]
    if len(chosen) != 1 or not reason.strip():
        raise typer.BadParameter(
            "bless overrules what the lineage says of a model, so it has to be told "
            "what to do and why. Pass one of --force (bless it, whatever its "
            "evaluation said), --block (put its bytes on the block-list) and "
            "--unblock (take them off), and --reason TEXT."
        )
    from penstock.pipelines import lineage as ask
    from penstock.pipelines import overrides
    from penstock.pipelines.root_lock import in_use
    from penstock.pipelines.run import usable_root

    opened = open_store(root, store, store_wait)
    act = {
        "force": overrides.force,
        "block": overrides.block,
        "unblock": overrides.unblock,
    }[chosen[0]]
    folder = usable_root(root)
    with in_use(folder):
        subject = ask.model_behind(opened, find_subject(opened, model))
        blessing = act(opened, folder, subject, reason)
    remarks = find_remarks(opened)
    if as_json:
        print_json(
            {
                "action": chosen[0],
                "model": artifact_json(subject, remarks),
                "blessing": artifact_json(blessing, remarks),
            }
        )
        return
    console = new_console()
    said = remarked(remarks, blessing)
    console.print(f"Model {subject.id} is {said}.", markup=False)
    if force and "verdict" in blessing.properties:
        console.print(f"Its evaluation said {blessing.properties['verdict']}.")
    console.print(
        f"Recorded as ModelBlessing {blessing.id}: {blessing.uri}", markup=False
    )


def versions(
    serving_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="The serving directory.")
    ],
    as_json: JsonOption = False,
) -> None:
    """List the versions of a serving directory and how they stand, the newest last."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.shelf import entries

    with Ledger(serving_dir, read_only=True) as ledger:
        found = entries(ledger)
    if as_json:
        print_json([entry_json(each) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("version", "state", "standing", "pushed", "size", "digest", "model"):
        table.add_column(title, overflow="fold")
    for each in found:
        row = entry_json(each)
        table.add_row(
            str(row["version"]),
            str(row["state"]),
            plain("; ".join(_cut(remark) for remark in row["remarks"])),
            when(row.get("pushed_at")),
            f"{row.get('size', 0):,}",
            str(row.get("digest") or "")[:19],
            plain(str(row.get("model_uri") or "")),
        )
    console = new_console()
    console.print(table)
    for each in found:
        if each.remark:
            console.print(each.remark, markup=False, soft_wrap=True)


def _cut(text: str, most: int = 100) -> str:
    """Return text as the table has it; `rollout status` and --json have all of it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def entry_json(each: Entry) -> dict[str, Any]:
    """Return a version as it is printed with --json."""
    version, standing = each.version, each.standing
    return {
        "version": version.number,
        "path": str(version.path),
        "state": version.state.value,
        "pushed_at": version.pushed_at.timestamp() if version.pushed_at else None,
        "size": version.size_bytes,
        "digest": version.digest,
        "model_uri": version.model_uri,
        "run_id": version.run_id,
        "blessing": standing.blessing,
        "is_stable": standing.is_stable,
        "is_previous": standing.is_previous,
        "is_candidate": standing.is_candidate,
        "weight": standing.weight,
        "pins": dict(standing.pins),
        "quarantined": standing.quarantined,
        "rolled_back": standing.rolled_back,
        "remarks": list(standing.remarks),
        "remark": each.remark,
    }
