"""Verbs about drift: look at a log, decide again about the past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import JsonOption
from penstock.commands.terminal import (
    DONE,
    NOT_ENOUGH_DATA,
    SAID_NO,
    new_console,
    noise_kept,
    plain,
    print_json,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.components.monitoring.logs import LogTable
    from penstock.components.monitoring.profile import Profile
    from penstock.components.monitoring.reference import Reference
    from penstock.components.monitoring.thresholds import Thresholds
    from penstock.components.monitoring.watched import Look, Watched

ModelOption = Annotated[
    str, typer.Option("--model", metavar="NAME", help="Name of the model.")
]
DirOption = Annotated[
    Path,
    typer.Option(
        "--dir",
        metavar="DIR",
        envvar="PENSTOCK_MONITORING",
        help="Where what is kept of watched models lies.",
    ),
]
BudgetOption = Annotated[
    float,
    typer.Option(
        "--alerts-per-month",
        metavar="NUMBER",
        help="False alerts per model and month that are borne.",
    ),
]
MinRowsOption = Annotated[
    int, typer.Option("--min-rows", help="Below them a window decides nothing.")
]
KOption = Annotated[
    int, typer.Option("-k", help="In how many of the last m windows drift has to be.")
]
MOption = Annotated[int, typer.Option("-m", help="How many windows are looked at.")]
ImportanceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--importance",
        metavar="COLUMN=NUMBER",
        help="Of a column to the model, for the ranking; repeat it for more.",
    ),
]

_STYLES = {
    "ok": "green",
    "watch": "yellow",
    "alert": "bold red",
    "insufficient_data": "dim",
}


def drift(
    log: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG",
            help="Files or folders of request logs (PredictionLog), Parquet or CSV.",
        ),
    ],
    model: ModelOption,
    folder: DirOption = Path("monitoring"),
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="DATA",
            help="What the model was trained on: a file or folder of Parquet, CSV or "
            "TFRecord, or an Examples artifact. It counts until another is given.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Split of an Examples artifact.")
    ] = "train",
    scored_by: Annotated[
        Path | None,
        typer.Option(
            "--scored-by",
            metavar="MODEL",
            help="Folder of the served model: it says the scores that the --reference "
            "does not have.",
        ),
    ] = None,
    day: Annotated[
        str,
        typer.Option(
            "--day",
            metavar="DATE",
            help="The day (UTC) to look at, as 2026-11-30; all that are there if left "
            "out.",
        ),
    ] = "",
    hourly: Annotated[
        bool, typer.Option("--hourly", help="Windows are hours, not days.")
    ] = False,
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
    version: Annotated[
        str, typer.Option("--version", help="Only rows that this version answered.")
    ] = "",
    version_column: Annotated[
        str,
        typer.Option(
            "--version-column", metavar="COLUMN", help="The column that says it."
        ),
    ] = "",
    probability: Annotated[
        str,
        typer.Option(
            "--probability",
            metavar="COLUMN",
            help="With which a row was kept, of a log that is a sample.",
        ),
    ] = "",
    score: Annotated[
        list[str] | None,
        typer.Option(
            "--score", metavar="COLUMN", help="What the model answered; tested first."
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            metavar="COLUMN",
            help="Numbers that are names, as a postcode.",
        ),
    ] = None,
    slice_by: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="COLUMN",
            help="Compare within each of its values, too; an expression will do. Goes "
            "with --reference.",
        ),
    ] = None,
    importance: ImportanceOption = None,
    budget: BudgetOption = 1.0,
    min_rows: MinRowsOption = 500,
    k: KOption = 2,
    m: MOption = 3,
    first: Annotated[
        bool,
        typer.Option(
            "--first-of-id",
            help="Take the first row of each id, where requests are logged twice.",
        ),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="FILE",
            help="Write JUnit XML of the last window, for CI.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what a model was asked with what it was trained on, and decide.

    Exits with 3 if the last window is an alert, and with 4 if it had too little data.
    """
    import tempfile

    from penstock.components.columns.whole import write_whole
    from penstock.components.monitoring.junit import render_junit
    from penstock.components.monitoring.logs import LogFormat, LogRules, read_log
    from penstock.components.monitoring.remarks import remarks_on, remarks_on_grid
    from penstock.components.monitoring.watched import Policy, Watched
    from penstock.components.monitoring.windows import DAY, HOUR, Window

    importances = _importances(importance or [])
    policy = Policy(budget=budget, k=k, m=m, min_rows=min_rows)
    watched = Watched(folder, model)
    for option, names in (
        ("--category", category),
        ("--slice", slice_by),
        ("--scored-by", scored_by and [str(scored_by)]),
    ):
        if names and reference is None:
            raise typer.BadParameter(
                f"{quoted(names)} would change the reference, and none is made. Pass "
                "--reference, too.",
                param_hint=option,
            )
    if junit is not None and not junit.absolute().parent.is_dir():
        raise DataError(
            f"'{junit}' cannot be written: there is no folder '{junit.parent}'. Make "
            "it first."
        )
    found = read_log(
        *log,
        window=Window.day(day) if day else None,
        format=LogFormat(
            id=id_column or None,
            time=time_column or None,
            version=version_column or None,
            probability=probability or None,
            scores=tuple(score or ()),
        ),
        # Rows are divided into windows by their times, in whatever order they come.
        rules=LogRules(
            on_backwards="accept", on_duplicate="first" if first else "refuse"
        ),
        version=version or None,
    )
    _check_times(found)
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as scratch,
        noise_kept(Path(scratch), verbose=False),
        watched.alone(),
    ):
        others = {id_column, time_column, version_column, probability}
        counts, lacking = _reference(
            watched,
            reference,
            split,
            scored_by,
            found,
            category or [],
            slice_by or [],
            others,
        )
        _check_watched("--importance", importances, counts)
        _check_not_watched(
            {
                "--id": id_column,
                "--time": time_column,
                "--version-column": version_column,
                "--probability": probability,
            },
            counts,
        )
        profiles = _profiles(watched, found, counts, HOUR if hourly else DAY)
        looks = [watched.look(each, counts, policy, importances) for each in profiles]
    last = looks[-1]
    if junit is not None:
        write_whole(junit, render_junit(last.document).encode())
    if as_json:
        print_json([each.document for each in looks])
    else:
        said = remarks_on_grid(counts.grid) if reference is not None else ()
        unwatched = _not_watched(found, counts, lacking)
        remarks = remarks_on(profiles[-1])
        _print_looks(looks, (*found.notes, *unwatched, *said, *remarks))
    raise typer.Exit(_code(last.decision.state))


def backtest(
    model: ModelOption,
    folder: DirOption = Path("monitoring"),
    budget: BudgetOption = 1.0,
    min_rows: MinRowsOption = 500,
    k: KOption = 2,
    m: MOption = 3,
    importance: ImportanceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide again about all windows that are kept, as another policy would."""
    from penstock.components.monitoring.watched import Policy, Watched

    policy = Policy(budget=budget, k=k, m=m, min_rows=min_rows)
    watched = Watched.existing(folder, model)
    importances = _importances(importance or [])
    if importances and (reference := watched.reference(history=False)) is not None:
        _check_watched("--importance", importances, reference)
    found = watched.backtest(policy, importances)
    if as_json:
        print_json(found.to_json())
        return
    console = new_console()
    thresholds = found.thresholds
    for each in found.episodes:
        names = ", ".join(column.column for column in each.alerts)
        console.print(
            f"[bold red]alert[/] {plain(each.window.name)}  {plain(names)}",
            soft_wrap=True,
        )
        for reason in each.reasons[:3]:
            console.print(f"  {reason}", markup=False, soft_wrap=True)
    low, high = found.interval
    console.print(
        f"{_counted(len(found.episodes), 'alert')} in "
        f"{_counted(found.decided, 'window')} with enough rows, of "
        f"{len(found.decisions)}: {found.alerts_per_month:.2f} a month (95 % interval "
        f"{low:.2f} to {high:.2f}), where without drift {_expected(thresholds)}.",
        markup=False,
        soft_wrap=True,
    )
    for note in thresholds.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _expected(thresholds: Thresholds) -> str:
    # Of a replay without any alert the windows between two are not known.
    if not thresholds.expected:
        return "none are expected: the replay came to none"
    return (
        f"{thresholds.expected:.2f} are expected, one in {thresholds.run_length:.0f} "
        "windows"
    )


def _importances(given: list[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise typer.BadParameter(
                f"'{text}' names no column and number. Write COLUMN=NUMBER, as in "
                "fare=0.3.",
                param_hint="--importance",
            )
    return found


def _check_watched(option: str, names: Iterable[str], reference: Reference) -> None:
    known = [column.name for column in reference.grid]
    for name in names:
        if name not in known:
            raise DataError(
                f"{option} names the column '{name}', which is not watched (those "
                f"that are: {quoted(known)}).{did_you_mean(name, known)}"
            )


def _check_not_watched(named: dict[str, str], reference: Reference) -> None:
    """Refuse columns that are named for something else than what they are watched as.

    Raises:
        DataError: If one is: in every row it would be missing.
    """
    for option, name in named.items():
        if name in reference.grid:
            raise DataError(
                f"{option} names '{name}', which the reference of model "
                f"'{reference.model}' watches as a {reference.grid[name].role}. Pass "
                f"the --reference again, or leave {option} out."
            )


def _check_times(log: LogTable) -> None:
    """Refuse rows of which nobody knows the window: all would be of 1970.

    Raises:
        DataError: If they have no times.
    """
    if not log.times.any():
        raise DataError(
            f"{log.subject} does not say when its rows were logged, so they are of no "
            "window. Name the column that does as --time."
        )


def _not_watched(log: LogTable, reference: Reference, lacking: list[str]) -> list[str]:
    """Return sentences on columns that only one side has.

    Args:
        log: What was logged.
        reference: What it is compared with.
        lacking: Columns that it was not made of because the log has none of them.
    """
    known = {column.name for column in reference.grid}
    scores = [each for each in log.scores if each not in known]
    features = [each for each in log.features if each not in known]
    found = []
    if scores:
        found.append(
            f"Not watched are the scores {quoted(scores)}, which the reference does "
            "not have. Pass the --reference with --scored-by MODEL, which says them."
        )
    if features:
        found.append(
            f"Not watched are {quoted(features)}, which the reference does not have."
        )
    if lacking:
        found.append(f"Not watched are {quoted(lacking)}, which the log does not have.")
    return found


def _reference(
    watched: Watched,
    data: Path | None,
    split: str,
    scored_by: Path | None,
    log: LogTable,
    categories: list[str],
    slices: list[str],
    others: set[str],
) -> tuple[Reference, list[str]]:
    """Return the reference that counts: what was given, or what was given before.

    Also the columns that it could not be made of, because the log has none of them.
    """
    import tempfile

    from penstock.components.monitoring.reference import Reference
    from penstock.components.monitoring.reference_rows import ReferenceRows
    from penstock.pipelines.evaluate import open_data, open_model

    if data is None:
        known = watched.reference()
        if known is None:
            raise DataError(
                f"Model '{watched.model}' has no reference yet. Pass what it was "
                "trained on as --reference."
            )
        return known, []
    model = None if scored_by is None else open_model(scored_by)
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        examples, splits = open_data(data, _splits(data, split), Path(scratch))
        rows = ReferenceRows([examples], splits[:1], log.scores, model)
        if scored_by is not None and not rows.scored:
            raise DataError(
                f"--scored-by names '{scored_by}', and '{data}' lacks none of the "
                f"log's scores ({quoted(log.scores)}). Name them all as --score, or "
                "leave --scored-by out."
            )
        logged = set(log.table.column_names)
        shared = [name for name in rows.names if name in logged]
        if not shared:
            raise DataError(
                f"'{data}' and {log.subject} have no column in common. Name the data "
                "that the model was trained on."
            )
        how: dict[str, Any] = {
            "model": watched.model,
            "columns": shared,
            "roles": dict.fromkeys(
                (each for each in log.scores if each in shared), "score"
            ),
            "categories": [each for each in categories if each in shared],
            "slices": slices,
        }
        # Without a model that has to see them, other columns are not read.
        made = (
            Reference.of(rows, **how)
            if rows.scored
            else Reference.of_examples(examples, splits[0], **how)
        )
        names = rows.names
    _check_watched("--category", categories, made)
    watched.use(made)
    return made, [each for each in names if each not in logged | others]


def _splits(data: Path, split: str) -> tuple[str, ...]:
    return (split,) if any(data.glob("Split-*")) else ()


def _profiles(
    watched: Watched, log: LogTable, reference: Reference, seconds: float
) -> list[Profile]:
    from penstock.components.monitoring.logs import TIME, VERSION
    from penstock.components.monitoring.profiling import profile_windows
    from penstock.components.monitoring.sampling import thinned

    rows = thinned(log)
    return list(
        profile_windows(
            reference.grid,
            [rows.table],
            TIME,
            seconds=seconds,
            model=watched.model,
            version_column=VERSION if any(rows.versions) else None,
            rate=float(rows.probabilities[0]) if rows.rows else 1.0,
            slicer=reference.slicer,
        )
    )


def _code(state: str) -> int:
    return {"alert": SAID_NO, "insufficient_data": NOT_ENOUGH_DATA}.get(state, DONE)


def _print_looks(looks: list[Look], notes: tuple[str, ...]) -> None:
    from rich.table import Table

    console = new_console()
    table = Table(box=None, pad_edge=False)
    table.add_column("window")
    table.add_column("rows", justify="right")
    table.add_column("state")
    table.add_column("columns", overflow="fold")
    for each in looks:
        decision: Any = each.decision
        named = [*decision.alerts, *decision.watch]
        state = decision.state
        table.add_row(
            plain(decision.window.name),
            f"{decision.rows:,}",
            f"[{_STYLES[state]}]{state.replace('_', ' ')}[/]",
            plain(", ".join(column.column for column in named)),
        )
    console.print(table)
    last = looks[-1]
    console.print()
    for reason in last.decision.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True)
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    console.print(
        f"\nreport: {last.folder / 'report.html'}", markup=False, soft_wrap=True
    )
