"""Which components a run executes, and which it takes from an earlier run."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from penstock.components.base import Component
from penstock.pipelines import cache
from penstock.pipelines.metadata import ExecutionRecord, RunState, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.resolution import DONE
from penstock.pipelines.rules import producers
from penstock.schemas.errors import PipelineError, did_you_mean, quoted


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a run is about.

    Attributes:
        executed: Names of the components that it executes.
        taken: What it takes from an earlier run instead, by the component's name.
    """

    executed: frozenset[str]
    taken: Mapping[str, cache.Hit]

    @property
    def names(self) -> frozenset[str]:
        """Names of all the components that the run is about."""
        return self.executed | self.taken.keys()


def select(
    pipeline: Pipeline,
    store: Store,
    *,
    resume: str | None = None,
    only: Sequence[str] = (),
    from_: Sequence[str] = (),
    to: Sequence[str] = (),
) -> Selection:
    """Return what a run is about.

    Args:
        pipeline: The pipeline.
        store: The lineage store.
        resume: Id of a run of this pipeline: what is complete there is taken from it.
        only: Names of components: these alone are executed.
        from_: Names of components: these are executed, and what depends on them.
        to: Names of components: these are executed, and what they depend on.

    Raises:
        PipelineError: If the names or the run do not fit the pipeline.
        MetadataError: If there is no such run.
    """
    for option, names in (("only", only), ("from", from_), ("to", to)):
        check_names(pipeline, names, option)
    if only and (from_ or to):
        raise PipelineError(
            "--only names all that is executed, so that --from and --to add nothing. "
            "Give one or the other."
        )
    components = {each.name: each for each in pipeline.components}
    done = {} if resume is None else _done(pipeline, store, resume)
    if only:
        executed = set(only)
    elif from_ or to:
        executed = _between(pipeline, from_, to)
    else:
        executed = set(components) - done.keys()
    if only or from_ or to:
        wanted = {
            producer.name
            for name in executed
            for producer in _read(components[name])
            if producer.name not in executed
        }
    else:
        wanted = set(done)
    taken = {}
    for name in sorted(wanted):
        if name not in done:
            raise _missing(pipeline, store, name, executed, resume)
        outputs = cache.taken(components[name], done[name])
        if isinstance(outputs, str):
            if not (only or from_ or to):
                executed.add(name)  # resumed: made again where it is broken
                continue
            raise PipelineError(
                f"'{name}' cannot be taken from run '{resume}': {outputs}. Execute it "
                "too, or take it from another run."
            )
        taken[name] = cache.Hit(done[name], outputs)
    return Selection(frozenset(executed), taken)


def check_names(pipeline: Pipeline, names: Collection[str], option: str) -> None:
    """Check that an option names components of a pipeline.

    Raises:
        PipelineError: If one is not.
    """
    legal = [each.name for each in pipeline.components]
    for name in names:
        if name not in legal:
            raise PipelineError(
                f"--{option} names '{name}', which pipeline '{pipeline.name}' does not "
                f"contain (it has {quoted(legal)}).{did_you_mean(name, legal)}"
            )


def _read(component: Component) -> list[Component]:
    after = set(component.after)
    return [each for each in producers(component) if each not in after]


def _between(pipeline: Pipeline, from_: Sequence[str], to: Sequence[str]) -> set[str]:
    waits_for = {each.name: set(names) for each, names in pipeline.ordered()}
    below = set(from_) or set(waits_for)
    for name, names in waits_for.items():  # in order: each after what it waits for
        if names & below:
            below.add(name)
    above = set(to) or set(waits_for)
    for name in reversed(waits_for):
        if name in above:
            above |= waits_for[name]
    if from_ and to and not below & above:
        raise PipelineError(
            f"Nothing lies from {quoted(from_)} to {quoted(to)} in pipeline "
            f"'{pipeline.name}': {quoted(to)} does not depend on {quoted(from_)}. "
            + (
                "Swap them."
                if _reaches(waits_for, to, from_)
                else "Name components of which one depends on the other."
            )
        )
    return below & above


def _reaches(
    waits_for: Mapping[str, set[str]], start: Sequence[str], end: Sequence[str]
) -> bool:
    reached = set(start)
    for name, names in waits_for.items():
        if names & reached:
            reached.add(name)
    return bool(reached & set(end))


def _done(pipeline: Pipeline, store: Store, run_id: str) -> dict[str, ExecutionRecord]:
    """Return the executions of a run that have outputs, by component."""
    record = store.run(run_id)
    if record.pipeline != pipeline.name:
        raise PipelineError(
            f"Run '{run_id}' is of pipeline '{record.pipeline}', not of "
            f"'{pipeline.name}'. Name a run of '{pipeline.name}' ('penstock runs' "
            "lists them)."
        )
    if record.state is RunState.RUNNING:
        raise PipelineError(
            f"Run '{run_id}' is still going on. Wait for it, or end it, before another "
            "run takes its outputs."
        )
    names = {each.name for each in pipeline.components}
    return {
        each.component: each
        for each in store.executions(run_id)
        if each.state in DONE and each.component in names
    }


def _missing(
    pipeline: Pipeline,
    store: Store,
    name: str,
    executed: Collection[str],
    resume: str | None,
) -> PipelineError:
    readers = [
        each.name
        for each in pipeline.components
        if each.name in executed and name in {read.name for read in _read(each)}
    ]
    subject = f"'{readers[0]}' reads outputs of '{name}', which is not executed"
    if resume is not None:
        return PipelineError(
            f"{subject}, and run '{resume}' has none. Execute '{name}' too, or take it "
            "from another run."
        )
    last = store.last_execution(pipeline.name, name)
    near = f", such as --resume {last.run_id}" if last and last.state in DONE else ""
    if not any(True for _ in store.newest_runs(pipeline.name)):
        return PipelineError(
            f"{subject}, and '{pipeline.name}' has not run yet. Run all of it first."
        )
    return PipelineError(
        f"{subject}. Name the run to take them from with --resume{near}."
    )
