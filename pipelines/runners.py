"""The two ways to order executions: a Beam graph, or threads."""

from __future__ import annotations

import os
import queue
import threading
from typing import Protocol

from penstock.components.base import Component, show_nothing_of_beam
from penstock.pipelines.execution import ActiveRun, execute
from penstock.pipelines.pipeline import Pipeline
from penstock.schemas.errors import PipelineError


class Runner(Protocol):
    """Executes every component of a pipeline after those it waits for."""

    def execute_all(self, pipeline: Pipeline, run: ActiveRun) -> None:
        """Execute every component; failures are recorded in the run, not raised."""


class LocalRunner:
    """Runs components in threads, independent ones at the same time.

    Args:
        max_workers: How many components run at once; by default the number of cores.

    Raises:
        PipelineError: If that is no whole number of at least 1.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None and (
            isinstance(max_workers, bool)
            or not isinstance(max_workers, int)
            or max_workers < 1
        ):
            raise PipelineError(
                f"LocalRunner.max_workers is {max_workers!r}, which is no number of "
                "threads. Pass a whole number of at least 1, or None for the number of "
                "cores."
            )
        self.max_workers = max_workers or os.cpu_count() or 1

    def execute_all(self, pipeline: Pipeline, run: ActiveRun) -> None:
        """Execute every component; failures are recorded in the run, not raised."""
        left = {each.name: (each, names) for each, names in pipeline.ordered(run.names)}
        ended: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()
        done: set[str] = set()
        working = 0

        def work(component: Component) -> None:
            error = None
            try:
                execute(component, run)
            except BaseException as raised:
                error = raised
            ended.put((component.name, error))

        while left or working:
            ready = [name for name in left if done.issuperset(left[name][1])]
            for name in ready[: self.max_workers - working]:
                component, _ = left.pop(name)
                # Daemons, which no pool's are: after a cancel nothing waits for them.
                threading.Thread(target=work, args=(component,), daemon=True).start()
                working += 1
            name, error = ended.get()
            if error is not None:
                raise error
            done.add(name)
            working -= 1


class BeamDagRunner:
    """Runs the pipeline as a Beam graph: one transform each, ordered by side inputs.

    The graph itself always runs in this process. Beam options given to a run apply
    to the pipelines that components open.
    """

    def execute_all(self, pipeline: Pipeline, run: ActiveRun) -> None:
        """Execute every component; failures are recorded in the run, not raised."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        from penstock.pipelines.beam_steps import Execute, findable

        show_nothing_of_beam()
        order = pipeline.ordered(run.names)
        # No arguments: Beam would read this program's command line. Its check of types
        # takes no variable number of side inputs.
        options = PipelineOptions([], pipeline_type_check=False)
        with (
            findable(run, (each for each, _ in order)),
            beam.Pipeline(runner=FnApiRunner(), options=options) as graph,
        ):
            # One start for all, and no other transforms than the components: each
            # costs Beam some 10 ms.
            start = graph | beam.Impulse()
            done: dict[str, beam.PCollection[str]] = {}
            for component, names in order:
                waited_for = (beam.pvalue.AsIter(done[each]) for each in names)
                done[component.name] = (
                    start
                    | f"Execute {component.name}"
                    >> beam.ParDo(Execute(component.name, run.run_id), *waited_for)
                )
