"""The history of pipelines as objects: `store.pipelines["taxi"].runs[-1]["Trainer"]`.

All of it is read from the lineage store when it is asked for, and no more of it than
that: the newest run is found without the ten thousand before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

from penstock.pipelines.metadata import (
    ExecutionRecord,
    RunRecord,
    RunState,
    StoreReader,
)
from penstock.schemas.errors import UnknownName, did_you_mean, quoted


class Pipelines(Mapping[str, "PipelineRecord"]):
    """The pipelines that a store knows, by name, in the order of their first runs.

    Args:
        store: The lineage store.
    """

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    def __getitem__(self, name: str) -> PipelineRecord:
        """Return a pipeline.

        Raises:
            UnknownName: If the store knows none of that name.
        """
        names = self._store.pipeline_names()
        if name not in names:
            raise UnknownName(
                f"Pipeline '{name}' is not in the lineage store (it has "
                f"{quoted(names)}).{did_you_mean(name, names)}"
            )
        return PipelineRecord(self._store, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.pipeline_names())

    def __len__(self) -> int:
        return len(self._store.pipeline_names())

    def __repr__(self) -> str:
        return f"Pipelines({', '.join(self)})"


class PipelineRecord:
    """A pipeline as a store knows it.

    Args:
        store: The lineage store.
        name: Its name.
    """

    def __init__(self, store: StoreReader, name: str) -> None:
        self.name = name
        self.runs = Runs(store, name)

    def __repr__(self) -> str:
        return f"PipelineRecord({self.name!r})"


class Runs(Sequence["Run"]):
    """The runs of a pipeline, the newest last.

    The last ones, as `runs[-1]`, `runs[-3:]` and `reversed(runs)`, are read without
    those before them; whatever counts from the first run reads all.

    Args:
        store: The lineage store.
        pipeline: Name of the pipeline.
    """

    def __init__(self, store: StoreReader, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | Sequence[Run]:
        if isinstance(index, slice):
            count = -(index.start or 0)
            if count > 0 and index.stop is None and index.step is None:
                return list(itertools.islice(reversed(self), count))[::-1]
            return list(self)[index]
        runs, place = (reversed(self), -index - 1) if index < 0 else (self, index)
        for run in itertools.islice(runs, place, None):
            return run
        raise IndexError(
            f"Pipeline '{self._pipeline}' has {len(self)} runs, so that there is no "
            f"run {index}. The newest is run -1."
        )

    def __iter__(self) -> Iterator[Run]:
        for record in self._store.runs(self._pipeline):
            yield Run(self._store, record)

    def __reversed__(self) -> Iterator[Run]:
        for record in self._store.newest_runs(self._pipeline):
            yield Run(self._store, record)

    def __len__(self) -> int:
        return len(self._store.runs(self._pipeline))

    def __repr__(self) -> str:
        return f"Runs({self._pipeline!r})"


class Run(Mapping[str, ExecutionRecord]):
    """A run: its executions by component, in the order they began.

    Of a component that was tried more than once, the last execution counts.

    Args:
        store: The lineage store.
        record: What the store says of the run itself.
    """

    def __init__(self, store: StoreReader, record: RunRecord) -> None:
        self._store = store
        self.record = record

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def state(self) -> RunState:
        """How it stands."""
        return self.record.state

    @cached_property
    def _executions(self) -> dict[str, ExecutionRecord]:
        return {each.component: each for each in self._store.executions(self.id)}

    def __getitem__(self, component: str) -> ExecutionRecord:
        """Return how a component was executed; its outputs are attributes.

        Raises:
            UnknownName: If the run has no such component.
        """
        if component not in self._executions:
            names = self._executions
            raise UnknownName(
                f"Run '{self.id}' has no component '{component}' (it has "
                f"{quoted(names)}).{did_you_mean(component, names)}"
            )
        return self._executions[component]

    def __iter__(self) -> Iterator[str]:
        return iter(self._executions)

    def __len__(self) -> int:
        return len(self._executions)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"
