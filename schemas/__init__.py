"""The nouns of penstock: artifact types, verdicts, splits, errors and digests."""

from penstock.schemas.artifacts import (
    Answer,
    Artifact,
    ExampleAnomalies,
    Examples,
    ExampleStatistics,
    ExternalArtifact,
    InferenceResult,
    InfraBlessing,
    Model,
    ModelBlessing,
    ModelEvaluation,
    ModelRun,
    PushedModel,
    Schema,
    TransformGraph,
    Verdict,
)
from penstock.schemas.splits import ByHash, ByKey, ByTime, Stratified

__all__ = [
    "Answer",
    "Artifact",
    "ByHash",
    "ByKey",
    "ByTime",
    "ExampleAnomalies",
    "ExampleStatistics",
    "Examples",
    "ExternalArtifact",
    "InferenceResult",
    "InfraBlessing",
    "Model",
    "ModelBlessing",
    "ModelEvaluation",
    "ModelRun",
    "PushedModel",
    "Schema",
    "Stratified",
    "TransformGraph",
    "Verdict",
]
