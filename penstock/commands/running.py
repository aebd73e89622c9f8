"""Verbs that run a pipeline, or say what a run would do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from penstock.commands.options import (
    ForceOption,
    FromOption,
    JsonOption,
    OnlyOption,
    ParamOption,
    ResumeOption,
    RootOption,
    StoreOption,
    TargetArgument,
    ToOption,
    WaitOption,
)
from penstock.commands.records import (
    artifact_json,
    find_run_id,
    find_subject,
    open_store,
)
from penstock.commands.targets import load_pipeline, parsed_pairs
from penstock.commands.terminal import (
    CANCELED,
    DONE,
    ERROR,
    SAID_NO,
    answer_code,
    interrupt,
    new_console,
    noise_kept,
    print_json,
    styled,
)
from penstock.pipelines.run import DEFAULT_ROOT
from penstock.schemas.errors import ComponentFailed, HookFailed, did_you_mean, quoted

if TYPE_CHECKING:
    from penstock.pipelines.execution import Execution
    from penstock.pipelines.pipeline import Pipeline
    from penstock.pipelines.run import RunResult
    from penstock.schemas.artifacts import Verdict


def run(
    target: TargetArgument,
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    param: ParamOption = None,
    force: ForceOption = None,
    resume: ResumeOption = None,
    only: OnlyOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    runner: Annotated[
        str, typer.Option("--runner", help="What orders components: beam or local.")
    ] = "beam",
    beam: Annotated[
        list[str] | None,
        typer.Option(
            "--beam",
            help="A Beam option for the components, as --beam=--runner=FlinkRunner.",
        ),
    ] = None,
    store_wait: WaitOption = 30.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print what components print.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline."""
    from penstock.pipelines.run import run as run_pipeline
    from penstock.pipelines.runners import BeamDagRunner, LocalRunner

    runners = {"beam": BeamDagRunner, "local": LocalRunner}
    if runner not in runners:
        raise typer.BadParameter(
            f"'{runner}' is no runner (there are {quoted(runners)})."
            f"{did_you_mean(runner, runners)}",
            param_hint="--runner",
        )
    given = parsed_pairs(param or [])
    signal.signal(signal.SIGTERM, interrupt)
    with noise_kept(root, verbose=verbose) as terminal:
        pipeline, arguments = load_pipeline(target, given)
        if resume:
            opened = open_store(root, store, store_wait)
            resume = find_run_id(opened, resume, pipeline.name)
        quiet = as_json or verbose
        with _display(pipeline, terminal, quiet=quiet) as display:
            try:
                result = run_pipeline(
                    pipeline,
                    root,
                    store=store or None,
                    runner=runners[runner](),
                    beam_args=beam or [],
                    parameters=arguments,
                    force=force or (),
                    resume=resume,
                    only=only or (),
                    from_=from_ or (),
                    to=to or (),
                    store_wait_seconds=store_wait,
                    on_change=display,
                    verbose=verbose,
                )
                code = exit_code(result)
            except (ComponentFailed, HookFailed) as error:
                result = error.result
                code = ERROR
                if result is None:
                    raise
    _report(result, root, as_json=as_json)
    raise typer.Exit(code)


def plan(
    target: TargetArgument,
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    param: ParamOption = None,
    force: ForceOption = None,
    resume: ResumeOption = None,
    only: OnlyOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would do, and why; nothing is run."""
    from penstock.pipelines.metadata import Store
    from penstock.pipelines.plan import plan as plan_pipeline

    given = parsed_pairs(param or [])
    with TemporaryDirectory() as folder, noise_kept(Path(folder), verbose=False):
        pipeline, _ = load_pipeline(target, given)
        exists = store or resume or (root / "metadata.sqlite").exists()
        opened = open_store(root, store, store_wait) if exists else Store("sqlite://")
        if resume:
            resume = find_run_id(opened, resume, pipeline.name)
        planned = plan_pipeline(
            pipeline,
            root.absolute(),
            opened,
            force=force or (),
            resume=resume,
            only=only or (),
            from_=from_ or (),
            to=to or (),
        )
    if as_json:
        print_json(
            {
                "pipeline": planned.pipeline,
                "components": [
                    {
                        "component": each.component,
                        "forecast": each.forecast.value,
                        "reasons": each.reasons,
                    }
                    for each in planned.components
                ],
                "remarks": planned.remarks,
            }
        )
        return
    from rich.markup import escape
    from rich.table import Table

    styles = {"will run": "cyan", "hit": "green", "depends": "yellow"}
    table = Table(title=f"plan of {planned.pipeline}", title_justify="left", box=None)
    for title in ("component", "plan", "why"):
        table.add_column(title, overflow="fold")
    for each in planned.components:
        word = each.forecast.value
        for number, reason in enumerate(each.reasons):
            first = (each.component, f"[{styles[word]}]{word}[/]")
            table.add_row(*(first if not number else ("", "")), escape(reason))
    console = new_console()
    console.print(table)
    for remark in planned.remarks:
        console.print(remark, markup=False)


def exit_code(result: RunResult) -> int:
    """Return the exit code that says how a run ended."""
    from penstock.pipelines.metadata import RunState
    from penstock.schemas.artifacts import Answer

    if result.state is RunState.STOPPED:
        return answer_code(result.answer or Answer.NO)
    if result.state is RunState.COMPLETE:
        # What a monitor says is what its pipeline was run for, gate or not.
        said = {verdict.answer for _, verdict in _watched(result)}
        for answer in (Answer.NO, Answer.NOT_ENOUGH_DATA):
            if answer in said:
                return answer_code(answer)
    return {
        RunState.COMPLETE: DONE,
        RunState.FAILED: ERROR,
        RunState.CANCELED: CANCELED,
    }[result.state]


def _watched(result: RunResult) -> Iterator[tuple[str, Verdict]]:
    """Yield what monitors said in a run, with the names of the components."""
    from penstock.schemas.artifacts import DriftVerdict, QualityVerdict

    for each in result.executions.values():
        for made in each.outputs.values():
            if isinstance(made, DriftVerdict | QualityVerdict):
                yield each.component, made


@contextmanager
def _display(pipeline: Pipeline, terminal: TextIO, *, quiet: bool) -> Iterator[Any]:
    """Show each component's state, rows and seconds while the pipeline runs."""
    import time

    if quiet or not terminal.isatty():
        yield lambda execution: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    names = [component.name for component, _ in pipeline.ordered()]
    seen: dict[str, Execution] = {}
    began: dict[str, float] = {}

    def table() -> Table:
        shown = Table(box=None, pad_edge=False)
        for title in ("component", "state", "rows", "seconds"):
            numeric = title in ("rows", "seconds")
            shown.add_column(title, justify="right" if numeric else "left")
        for name in names:
            execution = seen.get(name)
            if execution is None:
                shown.add_row(name, "[dim]waiting[/]", "", "")
                continue
            running = execution.state.value == "running"
            seconds = time.time() - began[name] if running else execution.seconds
            rows = f"{execution.rows:,}" if execution.rows else ""
            state = styled(execution.state.value)
            shown.add_row(name, state, rows, f"{seconds:.1f}")
        return shown

    def changed(execution: Execution) -> None:
        began.setdefault(execution.component, time.time())
        seen[execution.component] = execution

    console = Console(file=terminal, highlight=False)
    console.print(f"pipeline [bold]{pipeline.name}[/]")
    with Live(
        get_renderable=table,
        console=console,
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield changed


def _report(result: RunResult, root: Path, *, as_json: bool) -> None:
    """Print how a run ended."""
    if as_json:
        print_json(
            {
                "run": result.run_id,
                "pipeline": result.pipeline,
                "state": result.state.value,
                "reason": result.reason,
                "seconds": result.seconds,
                "components": [
                    {
                        "component": each.component,
                        "state": each.state.value,
                        "reason": each.reason,
                        "rows": each.rows,
                        "seconds": each.seconds,
                        "outputs": {
                            key: artifact_json(made)
                            for key, made in each.outputs.items()
                        },
                    }
                    for each in result.executions.values()
                ],
            }
        )
        return
    from rich.table import Table

    table = Table(title=f"run {result.run_id}", title_justify="left", box=None)
    for title in ("component", "state", "rows", "seconds", "outputs"):
        numeric = title in ("rows", "seconds")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for each in result.executions.values():
        table.add_row(
            each.component,
            styled(each.state.value),
            f"{each.rows:,}" if each.rows else "",
            f"{each.seconds:.1f}",
            ", ".join(f"{key} ({made.id})" for key, made in each.outputs.items()),
        )
    console = new_console()
    console.print(table)
    summary = f"{styled(result.state.value)} in {result.seconds:.1f} s"
    console.print(f"{summary}, in {root}")
    for name, verdict in _watched(result):
        word = str(verdict.properties.get("verdict", "")).lower().replace("_", " ")
        window = verdict.properties.get("window", "")
        console.print(f"{name}: {word}, {window}", markup=False, soft_wrap=True)
        # A run that it stopped says why below.
        for reason in () if result.reason else verdict.reasons:
            console.print(f"- {reason}", markup=False, soft_wrap=True)
        console.print(f"in {verdict.path}", markup=False, soft_wrap=True)
    if result.reason:
        new_console(stderr=True).print(result.reason, markup=False)
    for sentence in result.hook_errors:
        new_console(stderr=True).print(sentence, markup=False)
    failed = [each for each in result.executions.values() if each.error is not None]
    for each in failed:
        new_console(stderr=True).print(
            f"'penstock logs {result.run_id} {each.component}' prints its log.",
            markup=False,
        )


def reproduce(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="VERSION|ARTIFACT",
            help="A served version as SERVING_DIR/NUMBER, or the number of a Model.",
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    here: Annotated[
        bool,
        typer.Option("--here", help="With the libraries that are here, if others."),
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FOLDER", help="Keep what is made there."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version again from what was recorded; exit with 3 if it is another."""
    from penstock.pipelines.reproduce import reproduce as make_again

    opened = open_store(root, store, store_wait)
    artifact = find_subject(opened, subject)
    with noise_kept(root, verbose=False):
        compared = make_again(
            opened, root.absolute(), artifact, folder=keep, is_here=here
        )
    is_same = all(each.is_equal or each.is_log for each in compared)
    code = DONE if is_same else SAID_NO
    if as_json:
        print_json(
            [
                {
                    "component": each.component,
                    "output": each.output,
                    "type": each.type_name,
                    "recorded": each.recorded,
                    "found": each.found,
                    "equal": each.is_equal,
                    "is_log": each.is_log,
                    "reasons": each.reasons,
                }
                for each in compared
            ]
        )
        raise typer.Exit(code)
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("component", "output", "recorded", "made again", ""):
        table.add_column(title)
    for each in compared:
        word = "[green]equal[/]" if each.is_equal else "[red]differs[/]"
        if each.is_log:
            word = "a log, which tells of times"
        digests = (f"{text[:19]}…" for text in (each.recorded, each.found))
        table.add_row(each.component, each.output, *digests, word)
    console = new_console()
    console.print(table)
    for name in dict.fromkeys(each.component for each in compared):
        reasons = next(each.reasons for each in compared if each.component == name)
        for reason in reasons:
            console.print(f"{name}: {reason}", markup=False)
    raise typer.Exit(code)
