"""The verbs of penstock: components, one folder per capability."""

from penstock.components.evaluation.evaluator import Evaluator
from penstock.components.ingestion import (
    CsvExampleGen,
    ImportExampleGen,
    ParquetExampleGen,
)
from penstock.components.monitoring.drift_monitor import DriftMonitor
from penstock.components.monitoring.log_example_gen import LogExampleGen
from penstock.components.monitoring.quality_monitor import QualityMonitor
from penstock.components.serving.infra_validator import InfraValidator
from penstock.components.serving.pusher import Pusher
from penstock.components.training import Trainer
from penstock.components.validation import (
    ExampleValidator,
    ImportSchemaGen,
    SchemaGen,
    StatisticsGen,
)

__all__ = [
    "CsvExampleGen",
    "DriftMonitor",
    "Evaluator",
    "ExampleValidator",
    "ImportExampleGen",
    "ImportSchemaGen",
    "InfraValidator",
    "LogExampleGen",
    "ParquetExampleGen",
    "Pusher",
    "QualityMonitor",
    "SchemaGen",
    "StatisticsGen",
    "Trainer",
]
