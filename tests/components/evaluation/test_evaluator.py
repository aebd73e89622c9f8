"""The Evaluator as a whole: TFMA's files and values, a blessing, and plain errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import RunContext
from penstock.components.evaluation import (
    EvalConfig,
    Evaluator,
    GenericChangeThreshold,
    GenericValueThreshold,
    MetricConfig,
    MetricDirection,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    SlicingSpec,
)
from penstock.schemas.artifacts import Examples, Model


def config(*metrics: Any, slices: Any = (), **model: Any) -> EvalConfig:
    """An EvalConfig of AUC and ExampleCount, unless other metrics are given."""
    return EvalConfig(
        model_specs=[ModelSpec(**{"label_key": "big", **model})],
        slicing_specs=[SlicingSpec(), *slices],
        metrics_specs=[
            MetricsSpec(
                metrics=list(metrics)
                or [MetricConfig(class_name="AUC"), MetricConfig(class_name="ExampleCount")]
            )
        ],
    )


def evaluated(folder: Path, context: RunContext, **fields: Any) -> Evaluator:
    """Run an Evaluator and return it, with its outputs."""
    live = Evaluator(**fields).with_outputs(folder / "out")
    live.run(context)
    return live


def test_every_kind_of_signature_gives_the_same_metrics(
    tmp_path: Path,
    context: RunContext,
    examples: Examples,
    model: Model,
    keras2_model: Model,
    tf_example_model: Model,
) -> None:
    found = [
        evaluated(
            tmp_path / str(number),
            context,
            examples=examples,
            model=each,
            eval_config=config(),
        ).evaluation.properties
        for number, each in enumerate((model, keras2_model, tf_example_model))
    ]
    assert found[0]["example_count"] == 600
    assert 0.7 < found[0]["auc"] < 0.95  # type: ignore[operator]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)
