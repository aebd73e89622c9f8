"""What the taxi model is measured by, and what is asked of it.

Importing this loads TensorFlow Model Analysis.
"""

from __future__ import annotations

from penstock.components.evaluation import (
    EvalConfig,
    GenericChangeThreshold,
    GenericValueThreshold,
    MetricConfig,
    MetricDirection,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    SlicingSpec,
)
from penstock.pipelines.taxi.model import LABEL

_GOOD_ENOUGH = MetricThreshold(
    value_threshold=GenericValueThreshold(lower_bound={"value": 0.9}),
    # A model trained again on the same trips may lose a little by chance.
    change_threshold=GenericChangeThreshold(
        absolute={"value": -0.01}, direction=MetricDirection.HIGHER_IS_BETTER
    ),
)

EVAL_CONFIG = EvalConfig(
    # The label is no column: the model computes it from tips and fare.
    model_specs=[
        ModelSpec(
            signature_name="serving_default",
            preprocessing_function_names=["transform_features"],
            label_key=LABEL,
        )
    ],
    # All trips; each hour of the day; those paid by credit card, the only ones whose
    # tips are recorded.
    slicing_specs=[
        SlicingSpec(),
        SlicingSpec(feature_keys=["trip_start_hour"]),
        SlicingSpec(feature_values={"payment_type": "Credit Card"}),
    ],
    metrics_specs=[
        MetricsSpec(
            metrics=[
                MetricConfig(class_name="AUC", threshold=_GOOD_ENOUGH),
                MetricConfig(class_name="BinaryAccuracy"),
                MetricConfig(class_name="BinaryCrossentropy"),
                MetricConfig(class_name="ExampleCount"),
            ]
        )
    ],
)
"""The evaluation of the taxi pipeline, a TFMA EvalConfig."""
