"""The Evaluator's verdict: parameters of evidence, words, properties and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import PipelineError, RunContext
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
    Options,
    SlicingSpec,
)
from penstock.schemas.artifacts import Answer, Examples, Model


def at_least(bound: float) -> MetricThreshold:
    return MetricThreshold(
        value_threshold=GenericValueThreshold(lower_bound={"value": bound})
    )


NO_WORSE = MetricThreshold(
    change_threshold=GenericChangeThreshold(
        direction=MetricDirection.HIGHER_IS_BETTER, absolute={"value": -0.05}
    )
)


def config(
    *, min_slice_size: int = 0, slices: Any = (), **thresholds: MetricThreshold
) -> EvalConfig:
    """A config with thresholds by metric class."""
    return EvalConfig(
        model_specs=[ModelSpec(label_key="big")],
        slicing_specs=[SlicingSpec(), *slices],
        metrics_specs=[
            MetricsSpec(
                metrics=[
                    MetricConfig(class_name=name, threshold=threshold)
                    for name, threshold in thresholds.items()
                ]
            )
        ],
        options=Options(min_slice_size={"value": min_slice_size}),
    )


def judged(folder: Path, **fields: Any) -> Evaluator:
    """Run an Evaluator by hand."""
    live = Evaluator(**fields).with_outputs(folder / "out")
    live.run(RunContext.local(folder / "temp"))
    return live


@pytest.mark.parametrize("confidence", [0, 0.5, 1, 1.5, 95, {"auc": 1.0}])
def test_confidence_is_between_a_half_and_one(
    examples: Examples, model: Model, confidence: Any
) -> None:
    number = confidence["auc"] if isinstance(confidence, dict) else confidence
    subject = "confidence['auc']" if isinstance(confidence, dict) else "confidence"
    with pytest.raises(PipelineError) as raised:
        Evaluator(
            examples=examples,
            model=model,
            eval_config=config(AUC=at_least(0.5)),
            confidence=confidence,
        )
    assert str(raised.value) == (
        f"Evaluator.{subject} is {number}; a confidence lies between 0.5 and 1. Pass "
        "0.95 for intervals of 95 %."
    )


def test_on_inconclusive_blocks_or_blesses(examples: Examples, model: Model) -> None:
    with pytest.raises(PipelineError) as raised:
        Evaluator(
            examples=examples,
            model=model,
            eval_config=config(AUC=at_least(0.5)),
            on_inconclusive="bles",  # type: ignore[arg-type]
        )
    assert str(raised.value) == (
        "Evaluator.on_inconclusive takes 'block' or 'bless', got 'bles' (str). Pass a "
        "value of that kind."
    )


def test_confidence_by_name_is_of_a_metric_with_a_threshold(
    tmp_path: Path, examples: Examples, model: Model
) -> None:
    with pytest.raises(PipelineError) as raised:
        judged(
            tmp_path,
            examples=examples,
            model=model,
            eval_config=config(AUC=at_least(0.5)),
            confidence={"acu": 0.9},
        )
    assert str(raised.value) == (
        "Evaluator.confidence has 'acu', which is no metric with a threshold (those "
        "are 'auc'). Did you mean 'auc'?"
    )


@pytest.mark.parametrize(
    ("bound", "policy", "word", "answer"),
    [
        (0.5, "block", "BLESSED", Answer.YES),
        (0.99, "bless", "NOT_BLESSED", Answer.NO),
        (None, "block", "INCONCLUSIVE", Answer.NOT_ENOUGH_DATA),
        (None, "bless", "INCONCLUSIVE", Answer.YES),
    ],
)
def test_the_word_the_answer_and_the_file_on_evidence(
    tmp_path: Path,
    examples: Examples,
    model: Model,
    bound: float | None,
    policy: Any,
    word: str,
    answer: Answer,
) -> None:
    value = bound
    if value is None:  # what it is: the bound is amid the interval
        first = judged(
            tmp_path / "first",
            examples=examples,
            model=model,
            eval_config=config(AUC=at_least(0.5)),
        )
        value = float(first.evaluation.properties["auc"])  # type: ignore[arg-type]
    live = judged(
        tmp_path,
        examples=examples,
        model=model,
        eval_config=config(AUC=at_least(value)),
        confidence=0.95,
        on_inconclusive=policy,
    )
    blessing = live.blessing
    assert blessing.word == word
    assert blessing.answer is answer
    is_yes = answer is Answer.YES
    assert blessing.properties["blessed"] == int(is_yes)
    assert [each.name for each in blessing.path.iterdir()] == [
        "BLESSED" if is_yes else "NOT_BLESSED"
    ]
    assert "(95 % interval " in blessing.reasons[0]
    assert ", 600 rows)" in blessing.reasons[0]


def test_evidence_is_asked_of_the_metrics_that_are_named(
    tmp_path: Path, examples: Examples, model: Model
) -> None:
    live = judged(
        tmp_path,
        examples=examples,
        model=model,
        eval_config=config(AUC=at_least(0.5), BinaryAccuracy=at_least(0.5)),
        confidence={"binary_accuracy": 0.9},
    )
    accuracy, auc = sorted(live.blessing.reasons, key=lambda each: "'auc'" in each)
    assert "(90 % interval " in accuracy
    assert "interval" not in auc


def test_a_change_is_judged_by_the_paired_interval(
    tmp_path: Path, examples: Examples, model: Model, worse_model: Model
) -> None:
    live = judged(
        tmp_path,
        examples=examples,
        model=worse_model,
        baseline=model,
        eval_config=config(AUC=NO_WORSE),
        confidence=0.95,
    )
    assert live.blessing.word == "NOT_BLESSED"
    assert live.blessing.reasons[0].startswith("'auc' in all rows is 0.")
    assert ": a change of -0." in live.blessing.reasons[0]
    assert "(95 % interval -0." in live.blessing.reasons[0]


def test_small_slices_are_left_out_of_the_gate_and_named(
    tmp_path: Path, examples: Examples, model: Model
) -> None:
    live = judged(
        tmp_path,
        examples=examples,
        model=model,
        eval_config=config(
            AUC=at_least(0.5),
            slices=[SlicingSpec(feature_keys=["payment"])],
            min_slice_size=300,
        ),
        confidence=0.95,
    )
    assert live.blessing.word == "BLESSED"
    left_out, *passed = live.blessing.reasons
    assert left_out.startswith("'auc' in payment=Cash is left out: the slice has 1")
    assert left_out.endswith(" rows, fewer than 300, the min_slice_size.")
    assert len(passed) == 2
