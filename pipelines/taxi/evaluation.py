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
    PerSliceMetricThreshold,
    SlicingSpec,
)
from penstock.pipelines.taxi.model import LABEL

_ALL = SlicingSpec()
_EACH_DAY = SlicingSpec(feature_keys=["trip_start_day"])
# The only trips whose tips are recorded; who pays in cash never seems to tip.
_BY_CREDIT_CARD = SlicingSpec(feature_values={"payment_type": "Credit Card"})

_THRESHOLDS = [
    PerSliceMetricThreshold(
        slicing_specs=[_ALL],
        threshold=MetricThreshold(
            value_threshold=GenericValueThreshold(lower_bound={"value": 0.9}),
            # A model trained again on the same trips may lose a little by chance.
            change_threshold=GenericChangeThreshold(
                absolute={"value": -0.01}, direction=MetricDirection.HIGHER_IS_BETTER
            ),
        ),
    ),
    PerSliceMetricThreshold(
        slicing_specs=[_BY_CREDIT_CARD],
        threshold=MetricThreshold(
            value_threshold=GenericValueThreshold(lower_bound={"value": 0.55})
        ),
    ),
]

EVAL_CONFIG = EvalConfig(
    # The label is no column: the model computes it from tips and fare.
    model_specs=[
        ModelSpec(
            signature_name="serving_default",
            preprocessing_function_names=["transform_features"],
            label_key=LABEL,
        )
    ],
    slicing_specs=[_ALL, _EACH_DAY, _BY_CREDIT_CARD],
    metrics_specs=[
        MetricsSpec(
            metrics=[
                MetricConfig(class_name="AUC", per_slice_thresholds=_THRESHOLDS),
                MetricConfig(class_name="BinaryAccuracy"),
                MetricConfig(class_name="ExampleCount"),
            ]
        )
    ],
)
"""The evaluation of the taxi pipeline, a TFMA EvalConfig."""
