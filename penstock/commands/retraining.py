"""Verbs that train models again: serve, now, decisions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import JsonOption, RootOption, StoreOption
from penstock.commands.terminal import (
    DONE,
    ERROR,
    SAID_NO,
    interrupt,
    new_console,
    plain,
    print_json,
    when,
)
from penstock.pipelines.run import DEFAULT_ROOT
from penstock.schemas.errors import PenstockError, PipelineError

if TYPE_CHECKING:
    from penstock.components.monitoring.retraining.config import Config
    from penstock.components.monitoring.retraining.journal import (
        Decision,
        Journal,
        Recipe,
    )
    from penstock.pipelines.pipeline import Pipeline

_WENT_WELL = ("pushed", "blessed", "complete", "unchanged")
_SAID_NO = ("not blessed", "stopped")

app = typer.Typer(
    name="retrain",
    help="Train models again when an alert or a schedule says so.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelsOption = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="FILE",
        help="A JSON file that says which models are trained again, and how.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=MODULE:PIPELINE",
        help="A model and the pipeline that trains it, instead of --models.",
    ),
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="[NAME.]KEY=VALUE",
        help="An argument of the pipeline of --model, or of that of model NAME.",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FOLDER",
        help="Where decisions are kept; .penstock/retraining in the root by default.",
        show_default=False,
    ),
]
CoolDownOption = Annotated[
    str | None,
    typer.Option(
        "--cool-down",
        help="How long no run of a model of --model starts after one; 6h by default.",
        show_default=False,
    ),
]
RunsOption = Annotated[
    int | None,
    typer.Option(
        "--runs-per-day",
        min=1,
        help="Runs of a model of --model in any 24 hours; 2 by default.",
        show_default=False,
    ),
]
ScheduleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--schedule",
        help="When models of --model are due, in UTC: 'every 7d', or '0 3 * * mon'.",
    ),
]
RunnerOption = Annotated[
    str | None,
    typer.Option(
        "--runner",
        help="What orders the components of --model: beam or local.",
        show_default=False,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Decide and write it down; start nothing.")
]


@app.command()
def serve(
    models: ModelsOption = None,
    model: ModelOption = None,
    param: ParamOption = None,
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    state: StateOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, help="Port; 0 lets the system choose one."
        ),
    ] = 9_095,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="File with the bearer token of who may send alerts; needed beyond "
            "this machine.",
        ),
    ] = None,
    model_label: Annotated[
        str | None,
        typer.Option(
            "--model-label",
            help="The label of alerts that names the model; model_name by default.",
            show_default=False,
        ),
    ] = None,
    cool_down: CoolDownOption = None,
    runs_per_day: RunsOption = None,
    schedule: ScheduleOption = None,
    runner: RunnerOption = None,
    max_request_bytes: Annotated[
        int, typer.Option("--max-request-bytes", min=1, help="The largest request.")
    ] = 1 << 20,
    dry_run: DryRunOption = False,
) -> None:
    """Take alerts from Alertmanager; train the models that they are about again."""
    import dataclasses

    from penstock.components.monitoring.retraining.app import ALERTS, App
    from penstock.components.monitoring.retraining.receiver import Keeper, Receiver
    from penstock.components.monitoring.retraining.service import serve as run
    from penstock.components.serving.security import read_token

    config = _config(
        *(models, model, param, root, store, cool_down, runs_per_day, schedule, runner)
    )
    if model_label is not None:
        config = dataclasses.replace(config, model_label=model_label)
    token = None if token_file is None else read_token(token_file)
    journal = _journal(root, state)
    receiver = Receiver(
        config, journal, lambda each: _started(journal, each), dry_run=dry_run
    )

    def ready(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        dry = ", in a dry run: nothing is started" if dry_run else ""
        typer.echo(f"Taking alerts at http://{shown}:{port}{ALERTS}{dry}.")

    application = App(receiver, Keeper(receiver), token, max_request_bytes)
    run(application, host, port, ready=ready)


@app.command()
def now(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it goes into the lineage.")
    ],
    models: ModelsOption = None,
    model: ModelOption = None,
    param: ParamOption = None,
    root: RootOption = DEFAULT_ROOT,
    store: StoreOption = "",
    state: StateOption = None,
    cool_down: CoolDownOption = None,
    runs_per_day: RunsOption = None,
    runner: RunnerOption = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Whatever cool-down and limit say.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Start it, and do not wait for its end.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model again because you say so; exit with 3 if it may not or is refused.

    Within cool-down and limit, as an alert would, unless --anyway.
    """
    from penstock.components.monitoring.retraining.journal import (
        Answer,
        Source,
        Stage,
        Wish,
    )
    from penstock.components.serving.holders import actor
    from penstock.pipelines.overrides import one_sentence

    config = _config(
        *(models, model, param, root, store, cool_down, runs_per_day, None, runner)
    )
    chosen = config.model(name)
    wish = Wish(
        model=name,
        source=Source.PERSON,
        reason=Source.PERSON.value,
        reasons=(one_sentence(reason),),
        occasions=(f"person {time.time_ns()} {os.getpid()}",),
        evidence={"actor": actor()},
    )
    journal = _journal(root, state)
    decision = journal.decide(
        wish, chosen.recipe, chosen.limits, dry_run=dry_run, anyway=anyway
    )
    if decision.answer is Answer.START:
        journal.attempt(decision.id)
        process = _started(journal, decision)
        # A receiver with the same decisions may carry it out just as well.
        while not no_wait and decision.stage is not Stage.ENDED:
            if process.poll() is not None and process.returncode:
                log = _log_of(journal, decision)
                raise PipelineError(
                    f"The process of run '{decision.run_id}' ended with code "
                    f"{process.returncode} before its outcome was known. Its words are "
                    f"in '{log}'; 'penstock retrain serve' takes it up again."
                )
            time.sleep(0.1)
            decision = journal.decision(decision.id)
        # Left to itself: nobody here has to hear of its end.
        process.returncode = process.poll() or 0
    if as_json:
        print_json(_decision_json(decision))
    else:
        console = new_console()
        console.print(
            f"decision {decision.id}: {decision.answer.value}. {decision.because}",
            markup=False,
        )
        if decision.run_id:
            text = decision.result or "It is being started."
            console.print(f"run {decision.run_id}: {text}", markup=False)
    if decision.answer not in (Answer.START, Answer.DRY_RUN):
        raise typer.Exit(SAID_NO)
    if decision.outcome in _SAID_NO:
        raise typer.Exit(SAID_NO)
    raise typer.Exit(DONE if decision.outcome in ("", *_WENT_WELL) else ERROR)


@app.command()
def decisions(
    root: RootOption = DEFAULT_ROOT,
    state: StateOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Only those on this model.")
    ] = None,
    last: Annotated[
        int, typer.Option("--last", min=1, help="So many of the newest.")
    ] = 50,
    as_json: JsonOption = False,
) -> None:
    """List what was decided on retraining, why, and what came of it."""
    folder = _state(root, state)
    if not (folder / "decisions.sqlite").exists():
        raise PipelineError(
            f"No decision was ever made in '{folder}'. Name the folder of the receiver "
            "with --state, or its root with --root."
        )
    found = _journal(root, state).decisions(model, last=last)
    if as_json:
        print_json([_decision_json(each) for each in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("", "when", "model", "reason", "answer", "run", "outcome", "why"):
        table.add_column(title, overflow="fold", no_wrap=title in ("when", "run"))
    for each in found:
        again = f" (came {each.notices} times)" if each.notices > 1 else ""
        why = " ".join([*each.reasons, each.because + again])
        table.add_row(
            str(each.id),
            when(each.decided),
            plain(each.model),
            plain(each.reason),
            each.answer.value,
            each.run_id,
            plain(f"{each.outcome}: {each.result}" if each.outcome else ""),
            plain(why),
        )
    new_console().print(table)


def _config(
    models: Path | None,
    model: list[str] | None,
    param: list[str] | None,
    root: Path,
    store: str,
    cool_down: str | None,
    runs_per_day: int | None,
    schedule: list[str] | None,
    runner: str | None,
) -> Config:
    """Return the models that a file or flags name."""
    from penstock.components.monitoring.retraining.config import (
        Config,
        model_config,
        read_config,
    )

    flags: dict[str, Any] = {
        "--param": param,
        "--cool-down": cool_down,
        "--runs-per-day": runs_per_day,
        "--schedule": schedule,
        "--runner": runner,
        "--store": store,
    }
    if models is not None:
        given = [each for each, value in {"--model": model, **flags}.items() if value]
        if given:
            raise typer.BadParameter(
                f"It is for models of --model, and '{models}' says that of its own. "
                f"Leave {' and '.join(given)} or --models out.",
                param_hint=given[0],
            )
        return read_config(models)
    if not model:
        raise typer.BadParameter(
            "No model is named. Pass --models FILE, or --model NAME=MODULE:PIPELINE.",
            param_hint="--model",
        )
    targets = _pairs(model, "--model", "NAME=MODULE:PIPELINE")
    params: dict[str, dict[str, str]] = {name: {} for name in targets}
    for key, value in _pairs(param or [], "--param", "KEY=VALUE").items():
        name, dot, rest = key.partition(".")
        if dot and name in params:
            params[name][rest] = value
        elif len(targets) == 1:
            params[next(iter(targets))][key] = value
        else:
            raise typer.BadParameter(
                f"'{key}' could be of any of the models. Write NAME.{key}=VALUE.",
                param_hint="--param",
            )
    made = {}
    for name, target in targets.items():
        said: dict[str, Any] = {"target": target, "params": params[name]}
        if store:
            said["store"] = store
        if cool_down is not None:
            said["cool_down"] = cool_down
        if runs_per_day is not None:
            said["runs_per_day"] = runs_per_day
        if schedule:
            said["schedule"] = schedule
        if runner is not None:
            said["runner"] = runner
        made[name] = model_config(name, said, f"Model '{name}'", root=str(root))
    return Config(made)


def _pairs(given: list[str], option: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals) or key in found:
            wrong = "is there twice" if key in found else f"is not {form}"
            raise typer.BadParameter(
                f"'{pair}' {wrong}. Write {form}, each once.", param_hint=option
            )
        found[key] = value
    return found


def _state(root: Path, state: Path | None) -> Path:
    return (state or root / ".penstock" / "retraining").absolute()


def _journal(root: Path, state: Path | None) -> Journal:
    from penstock.components.monitoring.retraining.journal import Journal

    return Journal(_state(root, state))


def _log_of(journal: Journal, decision: Decision) -> Path:
    from penstock.components.monitoring.retraining.places import log_path

    return log_path(journal.folder, decision.run_id)


def _started(journal: Journal, decision: Decision) -> subprocess.Popen[bytes]:
    """Start the process that carries a decision out; it outlives this one."""
    log = _log_of(journal, decision)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *(sys.executable, "-c"),
                f"from {__name__} import child; child()",
                *(str(journal.folder), str(decision.id)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=decision.recipe.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
            },
            start_new_session=True,  # Ctrl-C at a receiver is not for its trainings
        )


def child() -> None:
    """Carry out a decision, as the process that was started for it."""
    from penstock.components.monitoring.retraining.journal import Journal
    from penstock.pipelines.retraining import carry_out

    folder, id = sys.argv[1:]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    signal.signal(signal.SIGTERM, interrupt)
    code = DONE
    try:
        carry_out(Journal(folder), int(id), _pipeline)
    except PenstockError as error:
        print(error, file=sys.stderr)
        code = ERROR
    except Exception:
        import traceback

        traceback.print_exc()
        code = ERROR
    sys.stdout.flush()
    sys.stderr.flush()
    # At once, as the command line itself ends: TensorFlow tears models down too late.
    os._exit(code)


def _pipeline(recipe: Recipe) -> tuple[Pipeline, Mapping[str, Any]]:
    from penstock.commands.targets import load_pipeline

    return load_pipeline(recipe.target, dict(recipe.params))


def _decision_json(each: Decision) -> dict[str, Any]:
    return {
        "decision": each.id,
        "model": each.model,
        "source": each.source.value,
        "reason": each.reason,
        "reasons": list(each.reasons),
        "evidence": dict(each.evidence),
        "answer": each.answer.value,
        "because": each.because,
        "decided": each.decided,
        "notices": each.notices,
        "noticed": each.noticed,
        "run": each.run_id,
        "target": each.recipe.target,
        "params": dict(each.recipe.params),
        "stage": each.stage.value,
        "attempts": each.attempts,
        "started": each.started,
        "ended": each.ended,
        "outcome": each.outcome,
        "result": each.result,
    }
