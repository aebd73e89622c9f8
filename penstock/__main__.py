"""The command line: run a pipeline, evaluate a model, ask the lineage store.

Exit codes, for every verb: 0 yes or done, 1 error, 2 usage, 3 a verdict said no,
4 not enough data, 130 canceled. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from penstock.schemas.errors import (
    ComponentFailed,
    MetadataError,
    PenstockError,
    PipelineError,
    did_you_mean,
    quoted,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from penstock.components.evaluation.report import Row
    from penstock.components.serving.version_dir import Version
    from penstock.pipelines.evaluate import Evaluated
    from penstock.pipelines.execution import Execution
    from penstock.pipelines.housekeeping import Garbage
    from penstock.pipelines.lineage import Lineage
    from penstock.pipelines.metadata import ExecutionRecord, Store
    from penstock.pipelines.overrides import Remarks
    from penstock.pipelines.pipeline import Pipeline
    from penstock.pipelines.run import RunResult
    from penstock.schemas.artifacts import Answer, Artifact

DONE, ERROR, USAGE, SAID_NO, NOT_ENOUGH_DATA, CANCELED = 0, 1, 2, 3, 4, 130

app = typer.Typer(
    name="penstock",
    help="Pipelines that end in a served TensorFlow model, and their lineage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # drawn by Rich, --help would take twice as long
    pretty_exceptions_enable=False,
)

RootOption = Annotated[
    Path,
    typer.Option(
        "--root",
        envvar="PENSTOCK_ROOT",
        help="Folder of artifacts, logs and the default store.",
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PENSTOCK_STORE",
        help="URL of the lineage store; metadata.sqlite in the root by default.",
        show_default=False,
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--store-wait", help="Seconds to wait while another process holds the store."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:PIPELINE",
        help="A Pipeline, or a function that returns one, in a module or a file.",
    ),
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", help="An argument of the function, as KEY=VALUE."),
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--force", metavar="NAME", help="Run this component whatever was run before."
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Take what is complete in this run from it, and run the rest.",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Run this component and no other."),
]
FromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from", metavar="NAME", help="Run this component and what depends on it."
    ),
]
ToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--to", metavar="NAME", help="Run this component and what it depends on."
    ),
]

_ROOT = Path("penstock-root")


def _console(*, stderr: bool = False) -> Console:
    """Return where to print; what goes to a file or a pipe is not cut to a width."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if terminal else 500)


def _opened(root: Path, store: str, wait: float) -> Store:
    from penstock.pipelines.metadata import Store

    url = store or f"sqlite:///{root.absolute() / 'metadata.sqlite'}"
    return Store(url, wait_seconds=wait, create=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def _when(seconds: float | None) -> str:
    from datetime import datetime

    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


_STYLES = {
    "complete": "green",
    "cached": "green",
    "failed": "red",
    "abandoned": "red",
    "skipped": "yellow",
    "stopped": "yellow",
    "canceled": "yellow",
    "running": "cyan",
}


def _styled(state: str) -> str:
    return f"[{_STYLES.get(state, 'white')}]{state}[/]"


# run ---------------------------------------------------------------------------


@app.command()
def run(
    target: TargetArgument,
    root: RootOption = _ROOT,
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
    given = _given(param or [])
    if resume:
        resume = _run_id(_opened(root, store, store_wait), resume)
    signal.signal(signal.SIGTERM, _interrupt)
    with _noise_kept(root, verbose=verbose) as terminal:
        pipeline, arguments = load_pipeline(target, given)
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
            except ComponentFailed as error:
                result = error.result
                code = ERROR
                if result is None:
                    raise
    _report(result, root, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def plan(
    target: TargetArgument,
    root: RootOption = _ROOT,
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

    given = _given(param or [])
    if resume:
        resume = _run_id(_opened(root, store, store_wait), resume)
    with _noise_kept(root, verbose=False):
        pipeline, _ = load_pipeline(target, given)
        exists = store or (root / "metadata.sqlite").exists()
        planned = plan_pipeline(
            pipeline,
            root.absolute(),
            _opened(root, store, store_wait) if exists else Store("sqlite://"),
            force=force or (),
            resume=resume,
            only=only or (),
            from_=from_ or (),
            to=to or (),
        )
    if as_json:
        _print_json(
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
    console = _console()
    console.print(table)
    for remark in planned.remarks:
        console.print(remark, markup=False)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def exit_code(result: RunResult) -> int:
    """Return the exit code that says how a run ended."""
    from penstock.pipelines.metadata import RunState
    from penstock.schemas.artifacts import Answer

    if result.state is RunState.STOPPED:
        return answer_code(result.answer or Answer.NO)
    return {
        RunState.COMPLETE: DONE,
        RunState.FAILED: ERROR,
        RunState.CANCELED: CANCELED,
    }[result.state]


def answer_code(answer: Answer) -> int:
    """Return the exit code that says what a verdict said."""
    return {"yes": DONE, "no": SAID_NO}.get(answer.value, NOT_ENOUGH_DATA)


@contextmanager
def _noise_kept(root: Path, *, verbose: bool) -> Iterator[TextIO]:
    """Keep what libraries write to stderr off the terminal, in a file of the root.

    TensorFlow's native parts write to file descriptor 2 whatever Python's stderr is,
    and Beam's imports warn on every start.

    Yields:
        The real stderr.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    folder = root / ".penstock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:
        # The run itself says, in a sentence, that the root cannot be written.
        log = os.open(os.devnull, os.O_WRONLY)
    if verbose:
        os.close(log)
        yield sys.stderr
        return
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        os.dup2(log, 2)
        os.close(log)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)


def _given(pairs: list[str]) -> dict[str, str]:
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(
                f"'{pair}' has no '='. Write KEY=VALUE.", param_hint="--param"
            )
        given[key] = value
    return given


def load_pipeline(
    target: str, given: dict[str, str]
) -> tuple[Pipeline, dict[str, Any]]:
    """Return the pipeline that `MODULE:PIPELINE` names, and what it was made with.

    Args:
        target: A module path or a file, a colon, and the name of a `Pipeline` or of a
            function that returns one.
        given: Arguments of the function, as text.

    Raises:
        PipelineError: If there is no such thing, or an argument does not fit.
    """
    import importlib
    import importlib.util

    from penstock.pipelines.pipeline import Pipeline

    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise PipelineError(
            f"'{target}' does not name a pipeline. Write MODULE:PIPELINE, as in "
            "penstock.pipelines.taxi:taxi or my_pipeline.py:taxi."
        )
    sys.path.insert(0, os.getcwd())
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise PipelineError(f"There is no file '{place}'. Check the path.")
        sys.path.insert(0, str(path.absolute().parent))
        place = path.stem
    try:
        found = importlib.util.find_spec(place)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise PipelineError(
            f"There is no module '{place}' on Python's path. Check its name, or name "
            "a file, as in path/to/module.py:pipeline."
        )
    with _users_code(f"Module '{place}' cannot be imported"):
        module = importlib.import_module(place)
    made = getattr(module, name, None)
    if made is None:
        legal = [
            each
            for each, value in vars(module).items()
            if isinstance(value, Pipeline)
            or (callable(value) and getattr(value, "__module__", "") == place)
        ]
        raise PipelineError(
            f"Module '{place}' has no '{name}' (it has {quoted(legal)})."
            f"{did_you_mean(name, legal)}"
        )
    arguments: dict[str, Any] = {}
    if not isinstance(made, Pipeline) and callable(made):
        arguments = _arguments(made, name, given)
        with _users_code(f"'{target}' makes no pipeline"):
            made = made(**arguments)
    elif given:
        raise PipelineError(
            f"'{target}' is a Pipeline, which takes no --param. Name a function that "
            "returns one."
        )
    if not isinstance(made, Pipeline):
        raise PipelineError(
            f"'{target}' is a {type(made).__name__}, no Pipeline. Name a Pipeline or a "
            "function that returns one."
        )
    return made, arguments


@contextmanager
def _users_code(subject: str) -> Iterator[None]:
    """Say where the user's own code raised: that is no defect of penstock."""
    import traceback

    try:
        yield
    except PenstockError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, SyntaxError):
            last = traceback.FrameSummary(error.filename or "", error.lineno or 0, "")
        raise PipelineError(
            f"{subject}: {type(error).__name__}: {error} ({last.filename}, line "
            f"{last.lineno}). Mend it and run again."
        ) from error


def _arguments(function: Any, name: str, given: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of a function, converted from text as it annotates them."""
    import inspect
    import typing

    signature = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    for key in given:
        if key not in signature:
            raise PipelineError(
                f"'{name}' has no parameter '{key}' (it has {quoted(signature)})."
                f"{did_you_mean(key, signature)}"
            )
    missing = [
        key
        for key, each in signature.items()
        if each.default is each.empty
        and key not in given
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if missing:
        raise PipelineError(
            f"'{name}' needs {quoted(missing)}. Pass "
            + " ".join(f"--param {key}=..." for key in missing)
            + "."
        )
    return {key: _converted(key, text, hints.get(key)) for key, text in given.items()}


_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


def _converted(key: str, text: str, kind: Any) -> Any:
    import typing

    kinds = typing.get_args(kind) or (kind,)
    if type(None) in kinds and text.lower() in ("", "none"):
        return None
    if typing.get_origin(kind) is typing.Literal:
        if text not in kinds:
            raise PipelineError(
                f"Parameter '{key}' is '{text}', which is not one of {quoted(kinds)}."
                f"{did_you_mean(text, kinds)}"
            )
        return text
    for each in kinds:
        try:
            if each is bool:
                if text.lower() in _TRUE + _FALSE:
                    return text.lower() in _TRUE
            elif each in (int, float, Path):
                return each(text)
        except ValueError:
            continue
    if str in kinds or kind is None:
        return text
    names = " or ".join(getattr(each, "__name__", str(each)) for each in kinds)
    raise PipelineError(
        f"Parameter '{key}' is '{text}', which is no {names}. Pass one that is."
    )


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
            state = _styled(execution.state.value)
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
        _print_json(
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
                            key: _artifact_json(made)
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
            _styled(each.state.value),
            f"{each.rows:,}" if each.rows else "",
            f"{each.seconds:.1f}",
            ", ".join(f"{key} ({made.id})" for key, made in each.outputs.items()),
        )
    console = _console()
    console.print(table)
    summary = f"{_styled(result.state.value)} in {result.seconds:.1f} s"
    console.print(f"{summary}, in {root}")
    if result.reason:
        _console(stderr=True).print(result.reason, markup=False)
    for sentence in result.hook_errors:
        _console(stderr=True).print(sentence, markup=False)
    failed = [each for each in result.executions.values() if each.error is not None]
    for each in failed:
        _console(stderr=True).print(
            f"'penstock logs {result.run_id} {each.component}' prints its log.",
            markup=False,
        )


# evaluate ----------------------------------------------------------------------


@app.command()
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
    signal.signal(signal.SIGTERM, _interrupt)
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as folder,
        _noise_kept(Path(folder), verbose=False) as terminal,
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
        _print_json(_evaluation_json(found, out))
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
    console = _console()
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
            table.add_row(*map(_plain, each))
        (row, _), *_ = listed
        count = "" if row.rows is None else f", {row.rows:,} row{'s' * (row.rows != 1)}"
        console.print(f"\n[bold]{_plain(shown(row.slice))}[/][dim]{count}[/]")
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


# questions ---------------------------------------------------------------------


@app.command()
def runs(
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Only runs of this pipeline.")
    ] = None,
) -> None:
    """List the runs, the newest last."""
    opened = _opened(root, store, store_wait)
    _require_pipeline(opened, pipeline)
    found = opened.runs(pipeline)
    if as_json:
        _print_json([_run_json(each) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("run", "pipeline", "state", "started", "took", "reason"):
        table.add_column(title, overflow="fold", no_wrap=title in ("run", "started"))
    for each in found:
        took = None if each.finished is None else each.finished - each.started
        table.add_row(
            each.id,
            each.pipeline,
            _styled(each.state.value),
            _when(each.started),
            _took(took),
            _plain(each.reason),
        )
    _console().print(table)


def _require_pipeline(opened: Store, name: str | None) -> None:
    """Check that a pipeline is in the store, if one is named."""
    if name is not None:
        opened.pipelines[name]


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _run_json(each: Any) -> dict[str, Any]:
    return {
        "run": each.id,
        "pipeline": each.pipeline,
        "state": each.state.value,
        "reason": each.reason,
        "started": each.started,
        "finished": each.finished,
        "properties": dict(each.properties),
    }


def _run_id(opened: Store, given: str) -> str:
    """Return the id of the run that is meant: whole, its beginning, or 'last'."""
    if given == "last":
        for newest in opened.newest_runs():
            return newest.id
    if opened.find_run(given) is not None:
        return given
    known = [each.id for each in opened.runs()]
    matching = [each for each in known if each.startswith(given)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise MetadataError(
            f"Run '{given}' could be any of {quoted(matching)}. Write more of its id."
        )
    raise MetadataError(
        f"Run '{given}' is not in the lineage store. 'penstock runs' lists what is; "
        f"'last' is the newest.{did_you_mean(given, known)}"
    )


RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of the run, its beginning, or 'last'.")
]


@app.command()
def show(
    run_id: RunArgument,
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show the components of a run: how they ended, what they read and wrote."""
    from penstock.pipelines.environment import described

    opened = _opened(root, store, store_wait)
    record = opened.run(_run_id(opened, run_id))
    executions = opened.executions(record.id)
    remarks = _remarks(opened)
    if as_json:
        _print_json(
            {
                **_run_json(record),
                "components": [_execution_json(each, remarks) for each in executions],
            }
        )
        return
    from rich.table import Table

    console = _console()
    console.print(
        f"run [bold]{record.id}[/] of pipeline [bold]{record.pipeline}[/], "
        f"{_styled(record.state.value)}, started {_when(record.started)}"
    )
    table = Table(box=None, pad_edge=False)
    for title in ("component", "state", "took", "read", "wrote", "reason"):
        table.add_column(title, overflow="fold")
    for each in executions:
        table.add_row(
            each.component,
            _styled(each.state.value),
            _took(each.seconds),
            _keys(each.inputs),
            _keys(each.outputs),
            _plain(each.reason),
        )
    console.print(table)
    for each in executions:
        environment = described(each.properties)
        if environment:
            console.print(f"{each.component} ran in {environment}.", markup=False)
        for made in each.outputs.values():
            for artifact in made:
                said = _remarked(remarks, artifact)
                if said:
                    subject = f"{artifact.TYPE_NAME} {artifact.id}"
                    console.print(f"{subject} is {said}.", markup=False)


def _remarks(opened: Store) -> Remarks:
    from penstock.pipelines import overrides

    return overrides.Remarks(overrides.overrides(opened))


_REMARKS = {
    "deleted": "deleted",
    "blocked": "blocked",
    "forced": "blessed by force",
    "unblocked": "off the block-list",
}


def _remarked(remarks: Remarks, artifact: Artifact) -> str:
    """Return what was done to an artifact, with the reason, or nothing."""
    found = remarks.of(artifact)
    return "; ".join(
        f"{_REMARKS[each]}: {reason.rstrip('.')}" for each, reason in found.items()
    )


def _keys(sides: Any) -> str:
    return ", ".join(
        f"{key} ({' '.join(str(each.id) for each in made)})"
        for key, made in sides.items()
    )


def _artifact_json(
    artifact: Artifact, remarks: Remarks | None = None
) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "type": artifact.TYPE_NAME,
        "uri": artifact.uri,
        "digest": artifact.digest,
        "properties": artifact.properties,
        **({} if remarks is None else {"remarks": remarks.of(artifact)}),
    }


def _execution_json(each: ExecutionRecord, remarks: Remarks) -> dict[str, Any]:
    return {
        "id": each.id,
        "component": each.component,
        "type": each.type,
        "run": each.run_id,
        "pipeline": each.pipeline,
        "state": each.state.value,
        "reason": each.reason,
        "started": each.started,
        "seconds": each.seconds,
        "properties": dict(each.properties),
        "inputs": {
            key: [_artifact_json(one, remarks) for one in made]
            for key, made in each.inputs.items()
        },
        "outputs": {
            key: [_artifact_json(one, remarks) for one in made]
            for key, made in each.outputs.items()
        },
    }


@app.command()
def logs(
    run_id: RunArgument,
    component: Annotated[str, typer.Argument(help="Name of the component.")],
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Print what a component printed and logged in a run."""
    opened = _opened(root, store, store_wait)
    record = opened.run(_run_id(opened, run_id))
    executions = opened.executions(record.id)
    known = [each.component for each in executions]
    if component not in known:
        raise MetadataError(
            f"Run '{record.id}' has no component '{component}' (it has "
            f"{quoted(known)}).{did_you_mean(component, known)}"
        )
    place = Path(str(record.properties.get("penstock_root", root)))
    path = place / ".penstock" / "runs" / record.id / f"{component}.log"
    try:
        text = path.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError as error:
        raise MetadataError(
            f"The log of '{component}' in run '{record.id}' is not at '{path}'. It is "
            "kept under the root of the machine that ran it."
        ) from error
    if as_json:
        _print_json({"run": record.id, "component": component, "log": text})
    else:
        sys.stdout.write(text)


@app.command()
def artifacts(
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
    kind: Annotated[
        str | None, typer.Option("--type", help="Only artifacts of this type.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="Only those of this pipeline.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="EXPRESSION",
            help="Only those whose properties it is true of, as 'auc > 0.9'; an odd "
            "name stands in backticks.",
        ),
    ] = None,
) -> None:
    """List the artifacts, the newest last."""
    opened = _opened(root, store, store_wait)
    _require_pipeline(opened, pipeline)
    everything = opened.artifacts(None, pipeline=pipeline)
    types = {each.TYPE_NAME for each in everything}
    if kind is not None and kind not in types:
        raise MetadataError(
            f"No artifact of type '{kind}' is recorded (there are {quoted(types)})."
            f"{did_you_mean(kind, types)}"
        )
    found = [each for each in everything if kind in (None, each.TYPE_NAME)]
    asked: tuple[str, ...] = ()
    if where is not None:
        from penstock.pipelines import where as questions

        asked = questions.properties_read(where)
        found = questions.where(found, where)
    remarks = _remarks(opened)
    if as_json:
        _print_json([_artifact_json(each, remarks) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("id", "type", "digest", *map(_plain, asked), "location", "remarks"):
        table.add_column(title, overflow="fold")
    for each in found:
        table.add_row(
            str(each.id),
            each.TYPE_NAME,
            each.digest.removeprefix("sha256:")[:12],
            *(_plain(str(each.properties.get(name, ""))) for name in asked),
            _plain(each.uri),
            _plain(_remarked(remarks, each)),
        )
    _console().print(table)


@app.command()
def lineage(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|VERSION",
            help="Number of an artifact, its location, or a served version as "
            "SERVING_DIR/NUMBER.",
        ),
    ],
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    downstream: Annotated[
        bool, typer.Option("--downstream", help="What came of it, not what made it.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write it to a file: .html is a page with the graph, .dot is for "
            "Graphviz, .json has OpenLineage events.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what made an artifact or a served version, back to the files it read."""
    from penstock.pipelines import lineage as ask

    opened = _opened(root, store, store_wait)
    artifact = _subject(opened, subject)
    walk = ask.downstream if downstream else ask.upstream
    found = walk(opened, artifact)
    if export is not None:
        from penstock.pipelines import exports

        exports.write(found, export)
    remarks = _remarks(opened)
    if as_json:
        _print_json(
            {
                "start": _artifact_json(found.start, remarks),
                "artifacts": [
                    _artifact_json(each, remarks)
                    for _, each in sorted(found.artifacts.items())
                ],
                "executions": [
                    {**_execution_json(each, remarks), "recipe": _recipe_json(each)}
                    for _, each in sorted(found.executions.items())
                ],
            }
        )
        return
    print_lineage(found, remarks, downstream=downstream)
    if not downstream:
        _print_recipes(found)
    if export is not None:
        _console().print(f"\nwritten: {export}", markup=False, soft_wrap=True)


def _recipe_json(execution: ExecutionRecord) -> dict[str, Any]:
    import dataclasses

    from penstock.pipelines.recipes import recipe

    return dataclasses.asdict(recipe(execution))


def _print_recipes(found: Lineage) -> None:
    """Print what executions were made with, those with the same once, and the data."""
    from rich.table import Table

    from penstock.pipelines import lineage as ask
    from penstock.pipelines.recipes import recipe

    rows: dict[tuple[str, ...], None] = {}
    for _, each in sorted(found.executions.items()):
        made = recipe(each)
        parameters = [f"{key}={_short(on)}" for key, on in made.parameters.items()]
        environment = [f"{key} {_short(on)}" for key, on in made.environment.items()]
        listed = (", ".join(each) for each in (parameters, environment))
        row = (each.component, _short(made.code), *listed)
        rows[row] = None
    console = _console()
    for title, lines in (
        (("component", "code", "parameters", "environment"), rows),
        (
            ("data", "span", "digest", "location"),
            {
                (
                    f"{each.TYPE_NAME} {each.id}",
                    str(each.properties.get("span", "")),
                    _short(each.digest),
                    each.uri,
                ): None
                for each in ask.beginnings(found)
            },
        ),
    ):
        table = Table(box=None, pad_edge=False)
        for name in title:
            table.add_column(name, overflow="fold")
        for line in lines:
            table.add_row(*map(_plain, line))
        console.print()
        console.print(table)


def _short(value: Any) -> str:
    """Return a value as tables show it: of a digest and of much text, the beginning."""
    text = "–" if value is None else str(value)
    if text.startswith("sha256:"):
        return text.removeprefix("sha256:")[:12]
    return text if len(text) <= 60 else f"{text[:60]}…"


@app.command()
def reproduce(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="VERSION|ARTIFACT",
            help="A served version as SERVING_DIR/NUMBER, or the number of a Model.",
        ),
    ],
    root: RootOption = _ROOT,
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

    opened = _opened(root, store, store_wait)
    artifact = _subject(opened, subject)
    with _noise_kept(root, verbose=False):
        compared = make_again(
            opened, root.absolute(), artifact, folder=keep, is_here=here
        )
    is_same = all(each.is_equal or each.is_log for each in compared)
    code = DONE if is_same else SAID_NO
    if as_json:
        _print_json(
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
    console = _console()
    console.print(table)
    for name in dict.fromkeys(each.component for each in compared):
        reasons = next(each.reasons for each in compared if each.component == name)
        for reason in reasons:
            console.print(f"{name}: {reason}", markup=False)
    raise typer.Exit(code)


def _subject(opened: Store, subject: str) -> Artifact:
    from penstock.pipelines import lineage as ask

    if subject.isdecimal():
        return opened.artifact(int(subject))
    path = Path(subject)
    same_place = [
        artifact
        for place in dict.fromkeys((subject, str(path.absolute())))
        for artifact in opened.artifacts_at(place)
    ]
    if same_place:
        return same_place[-1]
    if path.name.isdecimal():
        return ask.pushed(opened, path.parent, int(path.name))
    raise MetadataError(
        f"'{subject}' is no artifact of the lineage store. Pass an artifact's number "
        "('penstock artifacts' lists them), its location, or a served version as "
        "SERVING_DIR/NUMBER."
    )


def print_lineage(
    found: Lineage, remarks: Remarks, *, downstream: bool = False
) -> None:
    """Print a lineage as a tree, each artifact with its execution below it.

    Args:
        found: The lineage.
        remarks: What to say beside artifacts.
        downstream: Whether it leads to what came of the artifact.
    """
    from rich.tree import Tree

    next_of: dict[int, list[tuple[ExecutionRecord, list[tuple[str, Artifact]]]]] = {}
    for execution in found.executions.values():
        near = execution.inputs if downstream else execution.outputs
        far = execution.outputs if downstream else execution.inputs
        ends = [(key, each) for key, made in far.items() for each in made]
        for made in near.values():
            for each in made:
                if each.id is not None:
                    next_of.setdefault(each.id, []).append((execution, ends))
    shown: set[int] = set()

    def grow(branch: Tree, artifact: Artifact) -> None:
        if artifact.id is None or artifact.id in shown:
            return
        shown.add(artifact.id)
        for execution, ends in next_of.get(artifact.id, []):
            verb = "read by" if downstream else "made by"
            how = [execution.state.value, _when(execution.started)]
            if execution.run_id:
                how.append(f"run {execution.run_id}")
            twig = branch.add(
                f"{verb} [bold]{execution.component}[/] [dim]({', '.join(how)})[/]"
                f" {_plain(execution.reason)}".rstrip()
            )
            for key, each in ends:
                again = " [dim](above)[/]" if each.id in shown else ""
                grow(twig.add(_label(each, remarks, f"{key}: ", again)), each)

    tree = Tree(_label(found.start, remarks))
    grow(tree, found.start)
    _console().print(tree)


def _label(
    artifact: Artifact, remarks: Remarks, before: str = "", after: str = ""
) -> Text:
    from rich.text import Text

    parts = [f"[cyan]{artifact.TYPE_NAME}[/] {artifact.id}"]
    for key in ("span", "pushed_version", "blessed", "verdict", "auc"):
        value = artifact.properties.get(key)
        if value not in (None, ""):
            parts.append(_plain(f"{key}={value}"))
    said = _remarked(remarks, artifact)
    if said:
        parts.append(f"[yellow]{_plain(said)}[/]")
    if artifact.digest:
        parts.append(f"[dim]{artifact.digest[:19]}…[/]")
    parts.append(_plain(artifact.uri))
    return Text.from_markup(before + " ".join(parts) + after, overflow="fold")


@app.command()
def impact(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|PIPELINE",
            help="Number of an artifact or its location; or a pipeline, with --span.",
        ),
    ],
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    span: Annotated[
        int | None, typer.Option("--span", help="A span that the pipeline read.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which models and pushed versions have an artifact's or a span's data."""
    from penstock.pipelines import lineage as ask

    opened = _opened(root, store, store_wait)
    if span is None and subject in opened.pipelines and not subject.isdecimal():
        raise typer.BadParameter(
            f"'{subject}' is a pipeline. Pass --span NUMBER, or an artifact.",
            param_hint="--span",
        )
    sources = (
        [_subject(opened, subject)]
        if span is None
        else ask.of_span(opened, subject, span)
    )
    found = ask.impact(opened, *sources)
    remarks = _remarks(opened)
    if as_json:
        _print_json(
            {
                "sources": [_artifact_json(each, remarks) for each in found.sources],
                "models": [_artifact_json(each, remarks) for each in found.models],
                "pushed": [
                    {**_artifact_json(each, remarks), "is_there": _is_there(each)}
                    for each in found.pushed
                ],
            }
        )
        return
    from rich.table import Table

    console = _console()
    table = Table(box=None, pad_edge=False)
    for title in ("", "id", "digest", "location", "remarks"):
        table.add_column(title, overflow="fold")
    for model in found.models:
        digest, said = _short(model.digest), _plain(_remarked(remarks, model))
        table.add_row("model", str(model.id), digest, _plain(model.uri), said)
    for pushed in found.pushed:
        said = "" if _is_there(pushed) else "not there any more"
        place = str(pushed.properties.get("pushed_destination", pushed.uri))
        digest = _short(pushed.digest)
        table.add_row("version", str(pushed.id), digest, _plain(place), said)
    for source in found.sources:
        console.print(_label(source, remarks))
    console.print(table if table.rows else "It is in no model.")


def _is_there(pushed: Artifact) -> bool:
    """Return whether a version still lies where it was pushed to."""
    destination = pushed.properties.get("pushed_destination")
    return isinstance(destination, str) and Path(destination).is_dir()


@app.command()
def diff(
    before: RunArgument,
    after: RunArgument,
    root: RootOption = _ROOT,
    store: StoreOption = "",
    store_wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show in what two runs differ: parameters, code, environment, data, metrics."""
    from penstock.pipelines.difference import difference

    opened = _opened(root, store, store_wait)
    found = difference(opened, _run_id(opened, before), _run_id(opened, after))
    if as_json:
        import dataclasses

        _print_json(
            {
                "before": _run_json(found.before),
                "after": _run_json(found.after),
                **{
                    name: [dataclasses.asdict(change) for change in changes]
                    for name, changes in found.sections.items()
                },
            }
        )
        return
    from rich.table import Table

    console = _console()
    runs = f"runs [bold]{found.before.id}[/] and [bold]{found.after.id}[/]"
    differs = any(found.sections.values())
    console.print(runs if differs else f"{runs} differ in nothing that is recorded.")
    for name, changes in found.sections.items():
        table = Table(title=f"\n{name}", title_justify="left", box=None, pad_edge=False)
        for title in ("name", "before", "after", "components"):
            table.add_column(title, overflow="fold")
        rows: dict[tuple[str, str, str], list[str]] = {}
        for each in changes:  # several components may share what changed
            row = each.name, _short(each.before), _short(each.after)
            rows.setdefault(row, []).append(each.component)
        for row, components in rows.items():
            table.add_row(
                *map(_plain, row), _plain(", ".join(filter(None, components)))
            )
        if changes:
            console.print(table)


@app.command()
def bless(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|VERSION",
            help="Number of a model, its location, or a served version as "
            "SERVING_DIR/NUMBER.",
        ),
    ],
    root: RootOption = _ROOT,
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

    opened = _opened(root, store, store_wait)
    act = {
        "force": overrides.force,
        "block": overrides.block,
        "unblock": overrides.unblock,
    }[chosen[0]]
    folder = usable_root(root)
    with in_use(folder):
        subject = ask.model_behind(opened, _subject(opened, model))
        blessing = act(opened, folder, subject, reason)
    remarks = _remarks(opened)
    if as_json:
        _print_json(
            {
                "action": chosen[0],
                "model": _artifact_json(subject, remarks),
                "blessing": _artifact_json(blessing, remarks),
            }
        )
        return
    console = _console()
    said = _remarked(remarks, blessing)
    console.print(f"Model {subject.id} is {said}.", markup=False)
    if force and "verdict" in blessing.properties:
        console.print(f"Its evaluation said {blessing.properties['verdict']}.")
    console.print(
        f"Recorded as ModelBlessing {blessing.id}: {blessing.uri}", markup=False
    )


@app.command()
def versions(
    serving_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="The serving directory.")
    ],
    as_json: JsonOption = False,
) -> None:
    """List the versions of a serving directory, the newest last."""
    from penstock.components.serving import version_dir

    found = version_dir.versions(serving_dir)
    if as_json:
        _print_json([_version_json(each) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("version", "state", "pushed", "size", "digest", "model"):
        table.add_column(title, overflow="fold")
    for each in found:
        row = _version_json(each)
        table.add_row(
            str(row["version"]),
            str(row["state"]),
            _when(row.get("pushed_at")),
            f"{row.get('size', 0):,}",
            str(row.get("digest") or "")[:19],
            _plain(str(row.get("model_uri") or "")),
        )
    _console().print(table)


def _version_json(each: Version) -> dict[str, Any]:
    return {
        "version": each.number,
        "path": str(each.path),
        "state": each.state.value,
        "pushed_at": each.pushed_at.timestamp() if each.pushed_at else None,
        "size": each.size_bytes,
        "digest": each.digest,
        "model_uri": each.model_uri,
        "run_id": each.run_id,
    }


# housekeeping ------------------------------------------------------------------


@app.command()
def gc(
    root: RootOption = _ROOT,
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
        _pin(_opened(root, store, store_wait), root, pin, unpin, reason, as_json)
        return
    if reason:
        raise typer.BadParameter("--reason says why something is pinned. Pass --pin.")
    from penstock.pipelines import housekeeping
    from penstock.pipelines.retention import Policy

    policy = Policy(
        runs=runs,
        blessed=blessed,
        younger_than_seconds=_seconds(younger_than, "--younger-than"),
        unserved=tuple(unserved or ()),
    )
    opened = _opened(root, store, store_wait)
    if delete:
        garbage = housekeeping.delete_garbage(opened, root, policy, wait_seconds=wait)
    else:
        garbage = housekeeping.find_garbage(opened, root, policy)
    if as_json:
        _print_json(_garbage_json(garbage, deleted=delete))
    else:
        _print_garbage(garbage, deleted=delete)


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _seconds(text: str, option: str) -> float:
    """Return a length of time such as 30d in seconds."""
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
        artifact = _subject(opened, pin or unpin)
        made = (pins.pin if pin else pins.unpin)(opened, artifact, reason)
    if as_json:
        _print_json(
            {
                "action": "pin" if pin else "unpin",
                "artifact": _artifact_json(artifact),
                "reason": made.reason,
            }
        )
        return
    said = "is pinned" if pin else "is pinned no more. It was"
    subject = f"{artifact.TYPE_NAME} {artifact.id}"
    _console().print(f"{subject} {said}: {made.reason}", markup=False)


def _garbage_json(garbage: Garbage, *, deleted: bool) -> dict[str, Any]:
    return {
        "deleted": deleted,
        "size": garbage.size_bytes,
        "garbage": [
            {
                "what": each.what.value,
                "path": str(each.path),
                "size": each.size_bytes,
                "artifacts": [_artifact_json(one) for one in each.artifacts],
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
                "artifacts": [_artifact_json(one) for one in each.artifacts],
            }
            for each in garbage.kept
        ],
        "restored": [_artifact_json(each) for each in garbage.restored],
        "untouched": dict(garbage.untouched),
        "remarks": list(garbage.remarks),
    }


def _print_garbage(garbage: Garbage, *, deleted: bool) -> None:
    from collections import Counter

    from rich.table import Table

    console = _console()
    if garbage.kept:
        table = Table(title="kept", title_justify="left", box=None, pad_edge=False)
        for title in ("artifact", "size", "because", "location"):
            justify: Any = "right" if title == "size" else "left"
            table.add_column(title, justify=justify, overflow="fold")
        for kept in garbage.kept:
            table.add_row(
                _named(kept.artifacts),
                f"{kept.size_bytes:,}",
                f"[bold]{kept.reason.why.value}[/]: {_plain(kept.reason.text)}",
                _plain(str(kept.path)),
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
                _plain(str(item.path)),
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


def command_line() -> int:
    """Run the command line; print sentences for errors that the user can mend.

    Returns:
        The exit code.
    """
    try:
        app()
    except SystemExit as ended:
        if _is_interrupt(ended):
            print("Canceled.", file=sys.stderr)
            return CANCELED
        return ended.code if isinstance(ended.code, int) else ERROR
    except PenstockError as error:
        print(error, file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        print("Canceled.", file=sys.stderr)
        return CANCELED
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:
        import traceback

        traceback.print_exc()
        print(
            "\nThis is a defect of penstock, not of your pipeline. Report it with the "
            "lines above.",
            file=sys.stderr,
        )
        return ERROR
    return DONE


def _is_interrupt(ended: SystemExit) -> bool:
    """Return whether Typer made an exit of Ctrl-C, as some of its versions do."""
    reason: BaseException | None = ended
    while reason is not None and not isinstance(reason, KeyboardInterrupt):
        reason = reason.__cause__ or reason.__context__
    return reason is not None


class _NoPandas:
    """Lets nobody import pandas, for a verb that has no use for it.

    pyarrow does, where there is one, with the first value that it makes, and that
    takes longer than all else that such a verb does.
    """

    def find_spec(self, name: str, *_: Any) -> None:
        """Raise for pandas; leave all else to others."""
        if name == "pandas":
            raise ModuleNotFoundError("This verb has no use for pandas.", name=name)


def main() -> None:
    """Run the command line and end the process."""
    if sys.argv[1:2] == ["artifacts"]:
        sys.meta_path.insert(0, _NoPandas())
    code = command_line()
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: after a cancel a component may still compute in a thread that nothing
    # waits for, and TensorFlow's functions complain when the interpreter ends.
    os._exit(code)


if __name__ == "__main__":
    main()
