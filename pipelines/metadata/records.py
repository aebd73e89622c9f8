"""What the lineage store gives back, and the words for how it stands."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.schemas.artifacts import Artifact, PropertyValue
from penstock.schemas.errors import MetadataError, UnknownName, did_you_mean, quoted

if TYPE_CHECKING:
    pass


TFX_VERSION = "1.21.0"
"""What artifacts say of themselves to TFX's readers, which take artifacts without a
version, or of one before 0.29, for the layouts of that time."""


class State(enum.Enum):
    """How an execution stands, or how it ended."""

    RUNNING = "running"
    COMPLETE = "complete"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELED = "canceled"
    ABANDONED = "abandoned"


class RunState(enum.Enum):
    """How a run stands, or how it ended."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELED = "canceled"
    ABANDONED = "abandoned"


# ML Metadata has no state for two of ours.
STORED_STATE = {State.SKIPPED: "CANCELED", State.ABANDONED: "FAILED"}


@dataclasses.dataclass(frozen=True)
class ExecutionRecord:
    """An execution as the store has it.

    Attributes:
        id: Its number in the store.
        component: Name of the component.
        type: Its execution type, the path of the component's class.
        run_id: The run it belongs to; empty if something else than a run wrote it.
        pipeline: The pipeline it belongs to; empty likewise.
        state: How it stands.
        reason: Why it was skipped, canceled or abandoned; for a failure its message;
            for what somebody did outside of a run, why they did it.
        started: Start, in seconds since 1970.
        seconds: How long it took; None while it runs.
        properties: All that is recorded of it: parameters and measurements.
        inputs: What it read, by input key.
        outputs: What it wrote, by output key.
    """

    id: int
    component: str
    type: str
    run_id: str
    pipeline: str
    state: State
    reason: str
    started: float
    seconds: float | None
    properties: Mapping[str, PropertyValue]
    inputs: Mapping[str, tuple[Artifact, ...]]
    outputs: Mapping[str, tuple[Artifact, ...]]

    def __getitem__(self, key: str) -> Artifact:
        """Return an output by its key, as in `run["Trainer"]["model"]`.

        Raises:
            MetadataError: If there is no output of that key, or several artifacts.
        """
        made = self.outputs.get(key, ())
        if len(made) == 1:
            return made[0]
        if made:
            raise MetadataError(
                f"'{self.component}' wrote {len(made)} artifacts under '{key}'. Take "
                f"them from .outputs['{key}']."
            )
        raise UnknownName(
            f"'{self.component}' has no output '{key}' (it is {self.state.value} and "
            f"wrote {quoted(self.outputs)}).{did_you_mean(key, self.outputs)}"
        )

    def __getattr__(self, name: str) -> Artifact:
        """Return an output by its key, as in `run["Trainer"].model`."""
        # Python itself asks for names like this one, some before there are outputs.
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run as the store has it.

    Attributes:
        id: The run's id, the name of its context.
        pipeline: Name of the pipeline.
        state: How it stands.
        reason: One sentence on a run that is not complete.
        started: Start, in seconds since 1970.
        finished: End, in seconds since 1970; None while it runs.
        properties: All else that is recorded of it.
    """

    id: str
    pipeline: str
    state: RunState
    reason: str
    started: float
    finished: float | None
    properties: Mapping[str, PropertyValue]


@dataclasses.dataclass(frozen=True)
class Written:
    """An artifact, and an execution that it was an output of.

    Attributes:
        artifact: The artifact.
        execution_id: The execution's number.
        component: Name of the component.
        is_first: Whether this execution made it; another one took it from the cache.
        is_live: Whether it is there as far as the store knows: not deleted.
    """

    artifact: Artifact
    execution_id: int
    component: str
    is_first: bool
    is_live: bool
