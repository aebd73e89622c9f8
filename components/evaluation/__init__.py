"""Evaluation: metrics by slice, thresholds, and the blessing that gates the push.

The messages of an EvalConfig are TFMA's own; they are re-exported here because TFMA
exports them at different places in its versions. They are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.components.evaluation.evaluator import Evaluator
from penstock.components.evaluation.flavors import model_loader, write_flavor

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import (
        AggregationOptions,
        BinarizationOptions,
        ConfidenceIntervalOptions,
        CrossSliceMetricThreshold,
        CrossSlicingSpec,
        EvalConfig,
        ExampleWeightOptions,
        GenericChangeThreshold,
        GenericValueThreshold,
        MetricConfig,
        MetricDirection,
        MetricsSpec,
        MetricThreshold,
        ModelSpec,
        Options,
        PerSliceMetricThreshold,
        SlicingSpec,
    )

__all__ = [
    "AggregationOptions",
    "BinarizationOptions",
    "ConfidenceIntervalOptions",
    "CrossSliceMetricThreshold",
    "CrossSlicingSpec",
    "EvalConfig",
    "Evaluator",
    "ExampleWeightOptions",
    "GenericChangeThreshold",
    "GenericValueThreshold",
    "MetricConfig",
    "MetricDirection",
    "MetricThreshold",
    "MetricsSpec",
    "ModelSpec",
    "Options",
    "PerSliceMetricThreshold",
    "SlicingSpec",
    "model_loader",
    "write_flavor",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tensorflow_model_analysis.proto import config_pb2

    return getattr(config_pb2, name)
