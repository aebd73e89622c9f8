"""run: execute a pipeline once, record it, and return what came of it."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from penstock.components.base import Promise
from penstock.pipelines import logs
from penstock.pipelines.code import Code, Reader
from penstock.pipelines.disk import writing_below
from penstock.pipelines.execution import ActiveRun, Execution
from penstock.pipelines.failures import place_of
from penstock.pipelines.loaded import check_loaded
from penstock.pipelines.metadata import RunState, State, Store, recorded
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.repair import living, repair
from penstock.pipelines.root_lock import in_use, is_going_on
from penstock.pipelines.runners import BeamDagRunner, Runner
from penstock.pipelines.selection import check_names, select
from penstock.schemas.artifacts import Answer, Artifact, PropertyValue
from penstock.schemas.errors import (
    HookFailed,
    MetadataError,
    PipelineError,
    did_you_mean,
    quoted,
)

A = TypeVar("A", bound=Artifact)

_RUN_ID = re.compile(r"\d{8}-\d{6}\.\d{6}")

DEFAULT_ROOT = Path("penstock-root")
"""Where artifacts, logs and the default store lie unless said otherwise."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run wrote, and what failed, was skipped or canceled, and why.

    Attributes:
        run_id: Id of the run.
        pipeline: Name of the pipeline.
        state: complete, stopped (by a verdict), failed or canceled.
        reason: One sentence on a run that is not complete.
        answer: What the verdict said that stopped the run.
        executions: How each component ended, by its name, in order of execution.
        seconds: How long the run took.
        hook_errors: What functions of `Pipeline.on_exit` failed with, a sentence each.
    """

    run_id: str
    pipeline: str
    state: RunState
    reason: str
    answer: Answer | None
    executions: Mapping[str, Execution]
    seconds: float
    hook_errors: tuple[str, ...] = ()

    def __getitem__(self, component: str) -> Execution:
        """Return how a component ended.

        Raises:
            PipelineError: If the pipeline has no such component.
        """
        if component not in self.executions:
            raise PipelineError(
                f"Run '{self.run_id}' has no component '{component}' (it has "
                f"{quoted(self.executions)}).{did_you_mean(component, self.executions)}"
            )
        return self.executions[component]

    def artifact(self, promise: A) -> A:
        """Return what a promise became, as in `result.artifact(trainer.model)`.

        Raises:
            PipelineError: If its producer did not write it in this run.
        """
        source = promise.source
        if isinstance(source, Promise):
            made = self[source.producer.name].outputs.get(source.key)
            if isinstance(made, type(promise)):
                return made
            state = self[source.producer.name].state.value
            raise PipelineError(
                f"'{source}' was not written in run '{self.run_id}': "
                f"'{source.producer.name}' is {state}. See its reason in the result."
            )
        return promise


def run(
    pipeline: Pipeline,
    root: str | Path = DEFAULT_ROOT,
    *,
    store: str | None = None,
    runner: Runner | None = None,
    beam_args: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    force: Collection[str] = (),
    resume: str | None = None,
    only: Sequence[str] = (),
    from_: Sequence[str] = (),
    to: Sequence[str] = (),
    store_wait_seconds: float = 30.0,
    on_change: Callable[[Execution], None] | None = None,
    verbose: bool = False,
    run_id: str | None = None,
    cause: Artifact | None = None,
    properties: Mapping[str, PropertyValue] | None = None,
) -> RunResult:
    """Run a pipeline once.

    A component is run only if no earlier execution had the same code, parameters and
    contents of inputs (see `penstock.pipelines.plan`); else its outputs are taken from
    there. If a component fails, independent branches finish first. Ctrl-C ends the
    run, records it as canceled and returns its result. What killed runs left behind is
    put right first.

    Args:
        pipeline: The pipeline.
        root: Local folder for artifacts, logs and the default store.
        store: URL of the lineage store; `metadata.sqlite` in the root by default.
        runner: What orders the components; `BeamDagRunner()` by default.
        beam_args: Beam options for the pipelines that components open, as on a
            command line.
        parameters: What the pipeline was made with, to be recorded with the run.
        force: Names of components that are run whatever was run before.
        resume: Id of an earlier run of this pipeline: what is complete there is taken
            from it, and the rest is run.
        only: Names of components: these alone are run; what they read is taken from
            the run that `resume` names.
        from_: Names of components: these are run, and all that depends on them;
            what they read is taken likewise.
        to: Names of components: these are run, and all that they depend on.
        store_wait_seconds: How long to wait while another process holds the store.
        on_change: Called with an execution when it starts, advances or ends.
        verbose: Also print what components print and log; it is kept in any case.
        run_id: The id that the run has, for a caller who has to know it before; a run
            of that id that has done anything is refused.
        cause: What the run is started for, of the lineage store or from outside. The
            executions that the run begins with read it, under the input key
            `penstock_cause`, so that it is in the lineage of all that is made anew. It
            is in no fingerprint: the cache is as it were without.
        properties: What else to record of the run.

    Returns:
        The result: complete, stopped by a verdict, or canceled.

    Raises:
        ComponentFailed: If a component failed; `.result` has the whole result and
            `.others` the further failures.
        PipelineError: If the root cannot be used, the names do not fit the pipeline,
            or a function of `Pipeline.on_exit` failed.
        MetadataError: If the store cannot be opened or written.
    """
    folder = usable_root(root)
    with in_use(folder):
        opened = Store(
            store or f"sqlite:///{folder / 'metadata.sqlite'}",
            wait_seconds=store_wait_seconds,
        )
        repair(folder, opened)
        check_names(pipeline, force, "force")
        selection = select(
            pipeline, opened, resume=resume, only=only, from_=from_, to=to
        )
        codes = _codes(pipeline, selection.executed)
        if run_id is None:
            run_id = _new_run_id(folder)
        else:
            _take_run_id(folder, run_id, opened)
        active = ActiveRun(
            pipeline=pipeline.name,
            run_id=run_id,
            root=folder,
            store=opened,
            beam_args=tuple(beam_args),
            codes=codes,
            taken=selection.taken,
            forced=force,
            names=selection.names,
            on_change=on_change or (lambda execution: None),
            cause=cause,
        )
        with living(folder, run_id, opened) as alive:
            for code in {each.digest: each for each in codes.values()}.values():
                with writing_below(root):
                    code.keep(folder, active.folder)
            started = datetime.now(timezone.utc)
            given = {
                f"parameter_{key}": each for key, each in (parameters or {}).items()
            }
            opened.begin_run(
                pipeline.name,
                run_id,
                {
                    "penstock_root": str(folder),
                    "penstock_host": socket.gethostname(),
                    "penstock_pid": os.getpid(),
                    **({"penstock_resumed_run": resume} if resume else {}),
                    **{
                        key: recorded(each)
                        for key, each in given.items()
                        if each is not None
                    },
                    **(properties or {}),
                },
            )
            try:
                with logs.collecting(active.folder / "run.log", verbose=verbose):
                    _execute_all(runner or BeamDagRunner(), pipeline, active)
            except BaseException as error:
                # The runner itself broke: not even a failed component explains the run.
                state, text = RunState.FAILED, f"{type(error).__name__}: {error}"
                if isinstance(error, KeyboardInterrupt):  # once more, while canceling
                    state, text = RunState.CANCELED, "The run was canceled."
                opened.end_run(run_id, state, text)
                raise
            seconds = (datetime.now(timezone.utc) - started).total_seconds()
            result = _result(pipeline, active, seconds)
            try:
                opened.end_run(run_id, result.state, result.reason)
                alive.is_recorded = not active.is_unrecorded
            except MetadataError as unrecorded:
                if not active.canceled.is_set():
                    raise
                reason = f"{result.reason} It could not be recorded: {unrecorded}"
                result = dataclasses.replace(result, reason=reason)
    result = _call_hooks(pipeline, result)
    if active.failures:
        first, *others = active.failures
        first.others, first.result = tuple(others), result
        raise first
    if result.hook_errors:
        raise HookFailed(" ".join(result.hook_errors), result=result)
    return result


def _codes(pipeline: Pipeline, names: Collection[str]) -> dict[str, Code]:
    """Return the code of components as it is now, which is what will run."""
    reader = Reader()
    codes = {
        each.name: reader.code_of(each)
        for each in pipeline.components
        if each.name in names
    }
    for code in {each.digest: each for each in codes.values()}.values():
        check_loaded(code)
    return codes


def _call_hooks(pipeline: Pipeline, result: RunResult) -> RunResult:
    """Call every function of `on_exit`; add to the result what they failed with."""
    errors = []
    for hook in pipeline.on_exit:
        try:
            hook(result)
        except Exception as error:
            name = getattr(hook, "__name__", repr(hook))
            errors.append(
                f"'{name}', in on_exit of pipeline '{pipeline.name}', failed after run "
                f"'{result.run_id}' was {result.state.value}, in "
                f"{place_of(error.__traceback__)}: {type(error).__name__}: {error}. "
                "The run is recorded as it ended; mend the function."
            )
    return dataclasses.replace(result, hook_errors=tuple(errors))


def _execute_all(runner: Runner, pipeline: Pipeline, active: ActiveRun) -> None:
    """Execute in another thread, so that this one can take Ctrl-C at any time."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            runner.execute_all(pipeline, active)
        except BaseException as error:
            raised.append(error)

    # A daemon, so that after a cancel the program can end though it still computes.
    worker = threading.Thread(target=work, name=active.run_id, daemon=True)
    worker.start()
    try:
        with logs.outside():
            while worker.is_alive():
                worker.join(0.1)
    except KeyboardInterrupt:
        # A store that another process holds must not hold up the end of the run, whose
        # own record then says so.
        try:
            active.cancel("The run was canceled.")
        except MetadataError:
            active.is_unrecorded = True
        worker.join(0.5)
    if raised and not active.canceled.is_set():
        raise raised[0]


def _result(pipeline: Pipeline, active: ActiveRun, seconds: float) -> RunResult:
    executions = {
        each.name: active.executions[each.name]
        for each, _ in pipeline.ordered(active.names)
        if each.name in active.executions
    }
    state, reason, answer = RunState.COMPLETE, "", None
    skipped = [each for each in executions.values() if each.state is State.SKIPPED]
    if active.canceled.is_set():
        state, reason = RunState.CANCELED, "The run was canceled."
    elif active.failures:
        first = executions[active.failures[0].component]
        state, reason = RunState.FAILED, first.reason
    elif skipped:
        state, answer = RunState.STOPPED, skipped[0].answer
        reason = f"'{skipped[0].component}' did not run: {skipped[0].reason}"
    return RunResult(
        run_id=active.run_id,
        pipeline=pipeline.name,
        state=state,
        reason=reason,
        answer=answer,
        executions=executions,
        seconds=seconds,
    )


def usable_root(root: str | Path) -> Path:
    """Return the root as an absolute folder that exists and can be written.

    Raises:
        PipelineError: If it cannot.
    """
    if "://" in str(root):
        raise PipelineError(
            f"Root '{root}' is not a local folder. Artifacts are committed by renaming "
            "folders, which only a local file system can: name a local folder."
        )
    folder = Path(root).absolute()
    with writing_below(root):
        runs = folder / ".penstock" / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):  # it has no name to be left behind
            pass
    return folder


def _new_run_id(root: Path) -> str:
    """Make a run id that no other run has, with the run's own folder."""
    while True:
        run_id = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S.%f")
        with writing_below(root), suppress(FileExistsError):
            (root / ".penstock" / "runs" / run_id).mkdir()
            return run_id


def _take_run_id(root: Path, run_id: str, store: Store) -> None:
    """Make the folder of a run whose id was given, unless that run did something.

    Whoever gives one wants the run to be made once: so one that was killed before any
    component began is begun again, and no other is.

    Raises:
        PipelineError: If it is no run id, or there is such a run.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise PipelineError(
            f"Run id '{run_id}' is none: ids look like '20261130-061500.123456', the "
            "moment in UTC. Give one that does, or none."
        )
    record = store.find_run(run_id)
    if record is not None and (
        record.state not in (RunState.ABANDONED, RunState.RUNNING)
        or store.executions(run_id)
        or is_going_on(root / ".penstock" / "runs" / run_id)
    ):
        raise PipelineError(
            f"Run '{run_id}' is in the lineage store already ({record.state.value}), "
            "and a run is made once. Give another id, or none."
        )
    with writing_below(root):
        (root / ".penstock" / "runs" / run_id).mkdir(exist_ok=True)
