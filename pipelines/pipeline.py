"""Pipeline: a name and components, checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.components.base import Component
from penstock.pipelines.rules import RULES, producers


class Pipeline:
    """Components that belong together, under a name.

    Args:
        name: Name of the pipeline, the same from run to run.
        components: The components. What reads an output of another waits for it;
            the order of the list alone is no dependency.

    Raises:
        PipelineError: If a rule of `penstock.pipelines.rules` is broken.

    Example:
        >>> ingest = CsvExampleGen(input_dir=data)
        >>> stats = StatisticsGen(examples=ingest.examples)
        >>> Pipeline("trips", [ingest, stats])
    """

    def __init__(self, name: str, components: Sequence[Component]) -> None:
        self.name = name
        self.components = tuple(components)
        for rule in RULES:
            rule(self.name, self.components)

    def __repr__(self) -> str:
        names = ", ".join(component.name for component in self.components)
        return f"Pipeline('{self.name}', [{names}])"

    def ordered(self) -> list[tuple[Component, tuple[str, ...]]]:
        """Return the components, each after those it waits for, with their names."""
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
        return found
