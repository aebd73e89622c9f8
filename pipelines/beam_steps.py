"""The step of a Beam graph that executes one component; importing it imports Beam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import apache_beam as beam

from penstock.components.base import Component
from penstock.pipelines.execution import ActiveRun, execute

# Where steps find their live run and components: a graph carries names only, because
# neither a store nor a lock can be pickled.
_LIVE: dict[str, tuple[ActiveRun, dict[str, Component]]] = {}


@contextmanager
def findable(run: ActiveRun, components: Iterable[Component]) -> Iterator[None]:
    """Let steps in this process find a run and its components meanwhile."""
    _LIVE[run.run_id] = (run, {each.name: each for each in components})
    try:
        yield
    finally:
        del _LIVE[run.run_id]


class Execute(beam.DoFn):  # type: ignore[misc]  # Beam's base is untyped
    """Executes one component, once, after those whose names are side inputs.

    Args:
        name: Name of the component.
        run_id: Id of the run.
    """

    def __init__(self, name: str, run_id: str) -> None:
        self._name = name
        self._run_id = run_id

    def process(self, element: object, *waited_for: object) -> Iterator[str]:
        run, components = _LIVE[self._run_id]
        execute(components[self._name], run)
        yield self._name
