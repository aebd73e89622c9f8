"""Verbs for the logs of a model: label, sample, delete and hold them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from penstock.commands.options import JsonOption
from penstock.commands.terminal import new_console, plain, print_json

if TYPE_CHECKING:
    from penstock.components.monitoring.tier_state import Hold
    from penstock.components.monitoring.tiers import (
        Applied,
        RetentionPlan,
        Tiers,
        Unsampled,
    )
    from penstock.components.monitoring.windows import Window

RawArgument = Annotated[
    Path, typer.Argument(metavar="LOGS", help="The folder of the raw logs.")
]


def labels(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="Parquet or CSV files, or folders, with labels."
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--dir", metavar="DIR", help="Where labels are kept, a LabelJoin's folder."
        ),
    ],
    id_column: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="The rows that they are of.")
    ],
    label_column: Annotated[
        str,
        typer.Option("--label", metavar="COLUMN", help="The labels; null: none yet."),
    ],
    time_column: Annotated[
        str,
        typer.Option(
            "--time", metavar="COLUMN", help="When each became known; now if left out."
        ),
    ] = "",
    on_conflict: Annotated[
        Literal["refuse", "first", "last"],
        typer.Option(
            "--on-conflict", help="What to do with labels that contradict others."
        ),
    ] = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Add labels that have come, for the rows of logs that wait for them.

    What was added before counts once. LogExampleGen joins them to the logs.
    """
    import dataclasses

    from penstock.components.monitoring.label_files import read_labels
    from penstock.components.monitoring.labels import LabelJoin

    found = read_labels(files, id_column, label_column, time_column)
    with LabelJoin(folder, on_conflict=on_conflict) as join:
        came = join.add_labels(found.ids, found.labels, found.times)
    if as_json:
        print_json({**dataclasses.asdict(came), "waiting": found.waiting})
        return
    console = new_console()
    console.print(
        f"joined {came.joined:,}, known before {came.known:,}, of unknown rows "
        f"{came.unknown:,}, without a label yet {found.waiting:,}"
    )
    for sentence in came.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def tiers(
    raw: RawArgument,
    samples: Annotated[
        Path, typer.Option("--samples", metavar="DIR", help="Folder of the samples.")
    ],
    profiles: Annotated[
        Path,
        typer.Option(
            "--profiles",
            metavar="DIR",
            help="Folder of the profiles, as monitoring/taxi/profiles.",
        ),
    ],
    raw_days: Annotated[
        float, typer.Option("--raw-days", help="Keep raw logs for so long.")
    ] = 30.0,
    sample_days: Annotated[
        float, typer.Option("--sample-days", help="Keep samples for so long.")
    ] = 180.0,
    rows: Annotated[
        int,
        typer.Option(
            "--sample",
            metavar="N",
            min=0,
            help="First keep N rows of each stratum of each day that is over and has "
            "no sample.",
        ),
    ] = 0,
    id_column: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="What tells rows apart.")
    ] = "",
    time_column: Annotated[
        str,
        typer.Option(
            "--time",
            metavar="COLUMN",
            help="When a row was logged; a PredictionLog says it itself.",
        ),
    ] = "",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them, and do not only list them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List old logs and why some are kept, or delete them; profiles stay for ever.

    A raw log goes only if the sample and the profile of its days are there.
    """
    from penstock.components.monitoring import tiers as logs
    from penstock.components.monitoring.logs import LogFormat

    if rows and not id_column:
        raise typer.BadParameter(
            "which rows stay is decided by their ids. Pass --id COLUMN, too.",
            param_hint="--sample",
        )
    folders = logs.Tiers(
        raw,
        samples,
        profiles,
        LogFormat(id=id_column or None, time=time_column or None),
    )
    now = time.time()
    planned = logs.plan(folders, logs.Retention(raw_days, sample_days), now=now)
    made, waiting = _sampled(folders, planned, rows) if rows else ((), ())
    if made:
        planned = logs.plan(folders, planned.retention, now=now)
    applied = logs.apply(folders, planned) if delete else None
    if as_json:
        print_json(
            {
                **planned.to_json(),
                "deleted": applied is not None,
                "sampled": [each.name for each in made],
                "not_sampled": [each.window.name for each in waiting],
            }
        )
        return
    for each in made:
        new_console().print(f"sampled {each.name}", markup=False)
    for late in waiting:
        new_console().print(
            f"not sampled {late.window.name}: '{late.unfinished[0].name}' is still "
            "being written, or was left by a router that died; the next one there "
            "finishes it",
            markup=False,
        )
    _print(planned, applied)


def _sampled(
    folders: Tiers, planned: RetentionPlan, rows: int
) -> tuple[tuple[Window, ...], tuple[Unsampled, ...]]:
    """Keep some rows of each window that is over; return those, and those that wait."""
    import dataclasses

    from penstock.components.monitoring.logs import LogRules, read_log
    from penstock.components.monitoring.sample_files import write_sample
    from penstock.components.monitoring.sampling import BottomK
    from penstock.components.monitoring.tiers import unsampled

    found = unsampled(folders, planned.retention, now=planned.at)
    # Rows keep their versions and times; a file may span a day without requests.
    rules = LogRules(
        on_mixed_versions="accept", on_backwards="accept", on_empty="accept"
    )
    ready = [each for each in found if not each.unfinished]
    for each in ready:
        log = read_log(
            *each.files, window=each.window, format=folders.format, rules=rules
        )
        log = dataclasses.replace(log, subject=f"The log '{folders.raw}'")
        write_sample(BottomK.of(log, rows).rows(), folders.sample)
    return (
        tuple(each.window for each in ready),
        tuple(each for each in found if each.unfinished),
    )


def _print(planned: RetentionPlan, applied: Applied | None) -> None:
    from rich.table import Table

    console = new_console()
    gone = planned.deletions if applied is None else applied.deleted
    kept = planned.kept if applied is None else (*planned.kept, *applied.kept)
    verb = "would be deleted" if applied is None else "deleted"
    table = Table(box=None, pad_edge=False)
    for title in ("tier", "file", "size", "", "because"):
        justify: Any = "right" if title == "size" else "left"
        table.add_column(title, justify=justify, overflow="fold")
    for each in gone:
        table.add_row(each.tier, plain(each.path), f"{each.size:,}", verb, "")
    for stays in kept:
        table.add_row(stays.tier, plain(stays.path), "", "kept", plain(stays.why))
    if gone or kept:
        console.print(table)
    size = sum(each.size for each in gone)
    listed = f"{len(gone):,} file{'s' * (len(gone) != 1)}" if gone else "nothing"
    console.print(
        f"{verb}: {listed}, {size:,} bytes; not old enough: {planned.young:,}"
    )
    if gone and applied is None:
        console.print("Nothing is deleted yet: --delete does it.")


def hold(
    raw: RawArgument,
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Of the hold, to release it by."),
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is kept with the hold.")
    ] = "",
    day: Annotated[
        str, typer.Option("--day", metavar="DATE", help="Hold the rows of this day.")
    ] = "",
    file: Annotated[
        str,
        typer.Option(
            "--file", metavar="PATTERN", help="Hold files, by their paths in LOGS."
        ),
    ] = "",
    release: Annotated[
        bool, typer.Option("--release", help="Release the hold of this name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep logs from being deleted until the hold is released; or list the holds."""
    from penstock.components.monitoring import tier_state
    from penstock.components.monitoring.tiers import check_raw
    from penstock.components.monitoring.windows import Window

    check_raw(raw)
    if release:
        if not name:
            raise typer.BadParameter("pass the --name of the hold, too.")
        tier_state.release_hold(raw, name)
        said = {"released": name}
        _say(said, f"Hold '{name}' is released.", as_json)
        return
    if name or reason or day or file:
        placed = tier_state.place_hold(
            raw,
            reason,
            window=Window.day(day) if day else None,
            file=file or None,
            name=name or None,
            now=time.time(),
        )
        _say(_hold_json(placed), _told(placed), as_json)
        return
    found = tier_state.holds(raw)
    if as_json:
        print_json([_hold_json(each) for each in found])
        return
    console = new_console()
    for each in found:
        console.print(_told(each), markup=False, soft_wrap=True)
    if not found:
        console.print(f"Nothing of '{raw}' is held.", markup=False, soft_wrap=True)


def _say(data: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        new_console().print(sentence, markup=False, soft_wrap=True)


def _hold_json(hold: Hold) -> dict[str, Any]:
    return {
        "name": hold.name,
        "reason": hold.reason,
        "since": hold.since,
        "window": hold.window and hold.window.name,
        "file": hold.file,
    }


def _told(hold: Hold) -> str:
    what = hold.window.name if hold.window is not None else f"'{hold.file}'"
    return f"Hold '{hold.name}' keeps {what}: {hold.reason}"
