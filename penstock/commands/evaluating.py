"""The verb that evaluates a model without a pipeline."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from penstock.commands.options import JsonOption
from penstock.commands.terminal import (
    DONE,
    answer_code,
    interrupt,
    new_console,
    noise_kept,
    plain,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.components.evaluation.report import Row
    from penstock.pipelines.evaluate import Evaluated


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A file of Parquet, CSV or TFRecord, a folder of such files, or the "
            "folder of an Examples artifact.",
        ),
    ],
    label: Annotated[
        str,
        typer.Option("--label", metavar="COLUMN", help="Column of the labels."),
    ] = "",
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="FOLDER",
            help="The model: folder of a SavedModel, a served version or an artifact.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FOLDER", help="What it is compared with."),
    ] = None,
    prediction: Annotated[
        str,
        typer.Option(
            "--prediction",
            metavar="COLUMN",
            help="Column of the predictions, without a model; or a model's output.",
        ),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="An EvalConfig, .pbtxt or .json; the other options add to it.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="As AUC; repeat it for more. By default what fits the labels.",
        ),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="FEATURE",
            help="Every value of a column or an expression, as 'fare > 20'; repeat it "
            "for more.",
        ),
    ] = None,
    weight: Annotated[
        str,
        typer.Option("--weight", metavar="COLUMN", help="Column of example weights."),
    ] = "",
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            metavar="COLUMN",
            help="Rows of equal values are not independent: intervals heed that.",
        ),
    ] = "",
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            metavar="NUMBER",
            help="Thresholds ask for evidence: the whole interval at this confidence, "
            "as 0.95, is within the bound.",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            metavar="TEXT",
            help="Asked in every slice, as 'auc >= 0.8' or 'auc - baseline >= -0.01'; "
            "repeat it for more.",
        ),
    ] = None,
    min_slice_size: Annotated[
        int,
        typer.Option(
            "--min-slice-size", metavar="ROWS", help="Leave smaller slices out.", min=0
        ),
    ] = 0,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Split of an Examples artifact; eval, or the only one, by default.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Folder for the results."),
    ] = Path("penstock-evaluation"),
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model, or logged predictions, without a pipeline."""
    if not label and config is None:
        raise typer.BadParameter(
            "nothing says what is right. Pass --label COLUMN, or an EvalConfig that "
            "names it, --config FILE."
        )
    import tempfile

    from penstock.pipelines.evaluate import Question
    from penstock.pipelines.evaluate import evaluate as evaluate_data

    question = Question(
        label=label,
        prediction=prediction,
        weight=weight,
        cluster=cluster,
        config=config,
        metrics=metric or (),
        slices=slices or (),
        thresholds=threshold or (),
        confidence=confidence,
        min_slice_size=min_slice_size,
    )
    signal.signal(signal.SIGTERM, interrupt)
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as folder,
        noise_kept(Path(folder), verbose=False) as terminal,
        _rows_shown(terminal, quiet=as_json) as on_progress,
    ):
        found = evaluate_data(
            data,
            question,
            out=out,
            model=model,
            baseline=baseline,
            splits=split or (),
            on_progress=on_progress,
        )
    if as_json:
        print_json(_evaluation_json(found, out))
    else:
        _print_evaluation(found, out)
    asked = found.blessing.word != "NO_THRESHOLDS"
    raise typer.Exit(answer_code(found.blessing.answer) if asked else DONE)


@contextmanager
def _rows_shown(terminal: TextIO, *, quiet: bool) -> Iterator[Any]:
    """Show rows as they are handled, and what a component says; yield what is told."""
    import logging

    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(record.getMessage(), style="dim", markup=False)

    console = Console(file=terminal, highlight=False, soft_wrap=True)
    logger, said = logging.getLogger("penstock"), Said()
    before = logger.level
    logger.addHandler(said)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    rows = 0

    def on_progress(more: int) -> None:
        nonlocal rows
        rows += more
        spinner.update(text=f"{rows:,} rows" if rows else "Preparing")

    spinner = Spinner("dots")
    on_progress(0)
    try:
        if quiet or not terminal.isatty():
            yield on_progress
            return
        with Live(
            spinner,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield on_progress
    finally:
        logger.setLevel(before)
        logger.removeHandler(said)


def _evaluation_rows(found: Evaluated) -> tuple[Row, ...]:
    from penstock.components.evaluation.report import rows_of

    return rows_of(found.measured)


def _evaluation_json(found: Evaluated, out: Path) -> dict[str, Any]:
    import dataclasses
    import math

    def plain(value: Any) -> Any:
        is_number = not isinstance(value, float) or math.isfinite(value)
        return value if is_number else None

    hidden = ("verdict", "bounds", "difference_bounds")  # the reasons have them
    asked = found.blessing.word != "NO_THRESHOLDS"
    return {
        "evaluation": str(out),
        "report": str(out / "report.html"),
        "splits": list(found.splits),
        "verdict": found.blessing.word,
        "answer": found.blessing.answer.value if asked else None,
        "reasons": list(found.blessing.reasons) if asked else [],
        "reasons_against": list(found.blessing.reasons_against) if asked else [],
        "metrics": [
            {
                key: plain(value)
                for key, value in dataclasses.asdict(row).items()
                if key not in hidden
            }
            for row in _evaluation_rows(found)
        ],
    }


_MOST_SLICES, _MOST_REASONS = 30, 20  # that a terminal is given


_WORD_STYLES = {"BLESSED": "green", "NOT_BLESSED": "red", "INCONCLUSIVE": "yellow"}


def _print_evaluation(found: Evaluated, out: Path) -> None:
    """Print metrics by slice, the verdict and where the page is."""
    console = new_console()
    rows = _evaluation_rows(found)
    slices = list(dict.fromkeys(row.slice for row in rows))
    shown = slices[:_MOST_SLICES] if console.is_terminal else slices
    _print_metrics(console, [row for row in rows if row.slice in shown])
    if len(shown) < len(slices):
        console.print(f"\n[dim]more slices: {len(slices) - len(shown):,}[/]")
    small = sum(each.is_too_small for each in found.measured)
    if small:
        console.print(f"\n[dim]left out, for they have too few rows: {small:,}[/]")
    word = found.blessing.word
    if word in _WORD_STYLES:
        console.print(f"\n[bold {_WORD_STYLES[word]}]{word}[/]")
        against = found.blessing.reasons_against
        said = against[:_MOST_REASONS] if console.is_terminal else against
        for reason in said:
            console.print(f"- {reason}", markup=False)
        if len(said) < len(against):
            console.print(f"[dim]more reasons: {len(against) - len(said):,}[/]")
    console.print(f"\nreport: {out / 'report.html'}", markup=False, soft_wrap=True)


def _print_metrics(console: Console, rows: list[Row]) -> None:
    """Print a table per slice, all with columns of the same widths."""
    import itertools

    from rich.table import Table

    from penstock.components.evaluation.drawing import shown

    cells = _metric_cells(rows)
    titles = ["metric", "value", "95 % interval"]
    if any(row.baseline is not None for row in rows):
        titles += ["baseline", "difference", "95 % interval"]
    else:
        cells = [each[: len(titles)] for each in cells]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    lines = zip(rows, cells, strict=True)
    for number, (_, group) in enumerate(itertools.groupby(lines, lambda e: e[0].slice)):
        table = Table(box=None, show_header=number == 0, pad_edge=False)
        for title, width in zip(titles, widths, strict=True):
            left = title == "metric" or "%" in title
            justify: Any = "left" if left else "right"
            table.add_column(title, justify=justify, min_width=width, overflow="fold")
        listed = list(group)
        for _, each in listed:
            table.add_row(*map(plain, each))
        (row, _), *_ = listed
        count = "" if row.rows is None else f", {row.rows:,} row{'s' * (row.rows != 1)}"
        console.print(f"\n[bold]{plain(shown(row.slice))}[/][dim]{count}[/]")
        console.print(table)


def _metric_cells(rows: list[Row]) -> list[list[str]]:
    """Return the texts of rows, a metric's with the same decimal places."""
    from penstock.components.evaluation.drawing import interval, number, places

    digits = {}
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric]
        decimals = places([end for row in own for end in (row.value, row.baseline)], 4)
        finer = max(places([row.difference for row in own], 2), decimals)
        digits[metric] = decimals, finer
    cells = []
    for row in rows:
        decimals, finer = digits[row.metric]
        cells.append(
            [
                row.metric,
                number(row.value, decimals),
                interval(row.lower, row.upper, decimals),
                number(row.baseline, decimals),
                number(row.difference, finer, signed=True),
                interval(
                    row.difference_lower, row.difference_upper, finer, signed=True
                ),
            ]
        )
    return cells
