"""Pipeline: a name and components, checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeAlias

from penstock.components.base import Component
from penstock.pipelines.rules import RULES, producers
from penstock.schemas.errors import PipelineError

if TYPE_CHECKING:
    from penstock.pipelines.run import RunResult

Hook: TypeAlias = "Callable[[RunResult], None]"
"""What is called when a run has ended."""


class Pipeline:
    """Components that belong together, under a name.

    Args:
        name: Name of the pipeline, the same from run to run.
        components: The components. What reads an output of another waits for it;
            the order of the list alone is no dependency.
        on_exit: Functions that are called, once each and in order, when a run has
            ended: complete, stopped, failed or canceled.

    Raises:
        PipelineError: If a rule of `penstock.pipelines.rules` is broken.

    Example:
        >>> ingest = CsvExampleGen(input_dir=data)
        >>> stats = StatisticsGen(examples=ingest.examples)
        >>> Pipeline("trips", [ingest, stats])
    """

    def __init__(
        self,
        name: str,
        components: Sequence[Component],
        *,
        on_exit: Sequence[Hook] = (),
    ) -> None:
        self.name = name
        for what, given in (("components", components), ("on_exit", on_exit)):
            if not isinstance(given, list | tuple):
                raise PipelineError(
                    f"Pipeline '{name}' has {given!r} for {what}, which is no list. "
                    "Put brackets around it."
                )
        self.components = tuple(components)
        self.on_exit = tuple(on_exit)
        for hook in self.on_exit:
            if not callable(hook):
                raise PipelineError(
                    f"Pipeline '{name}' has {hook!r} in on_exit, which cannot be "
                    "called. Pass functions that take a RunResult."
                )
        for rule in RULES:
            rule(self.name, self.components)

    def __repr__(self) -> str:
        names = ", ".join(component.name for component in self.components)
        return f"Pipeline('{self.name}', [{names}])"

    def ordered(
        self, names: Collection[str] | None = None
    ) -> list[tuple[Component, tuple[str, ...]]]:
        """Return the components, each after those it waits for, with their names.

        Args:
            names: Only these components; all of them if None.
        """
        waits_for = {
            component.name: tuple(sorted({each.name for each in producers(component)}))
            for component in self.components
        }
        left = list(self.components)
        done: set[str] = set()
        found = []
        while left:
            ready = next(each for each in left if done.issuperset(waits_for[each.name]))
            left.remove(ready)
            done.add(ready.name)
            found.append((ready, waits_for[ready.name]))
        if names is None:
            return found
        return [
            (component, tuple(each for each in waited_for if each in names))
            for component, waited_for in found
            if component.name in names
        ]
