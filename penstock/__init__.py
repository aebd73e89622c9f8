"""penstock: pipeline components that end in a served TensorFlow model.

Components are in `penstock.components`, artifact types in `penstock.schemas`.
Importing this loads neither TensorFlow nor Beam.
"""

from penstock.components.base import (
    Component,
    Options,
    Retries,
    RunContext,
    field,
    output,
)
from penstock.pipelines.inputs import (
    Import,
    Latest,
    LatestBlessed,
    Resolve,
    Served,
    Spans,
    TrainedOn,
    Where,
)
from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import BeamDagRunner, LocalRunner
from penstock.schemas.errors import (
    ComponentFailed,
    DataError,
    MetadataError,
    PenstockError,
    PipelineError,
    ServingError,
)

__version__ = "0.1.0"

__all__ = [
    "BeamDagRunner",
    "Component",
    "ComponentFailed",
    "DataError",
    "Import",
    "Latest",
    "LatestBlessed",
    "LocalRunner",
    "MetadataError",
    "Options",
    "PenstockError",
    "Pipeline",
    "PipelineError",
    "Resolve",
    "Retries",
    "RunContext",
    "RunResult",
    "RunState",
    "Served",
    "ServingError",
    "Spans",
    "State",
    "Store",
    "TrainedOn",
    "Where",
    "field",
    "output",
    "run",
]
