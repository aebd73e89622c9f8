"""Decisions equal TFMA's own validation, over a matrix and over generated cases."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.writers import (
    metrics_plots_and_validations_writer as writer,
)

from penstock.components.evaluation import (
    AggregationOptions,
    BinarizationOptions,
    CrossSliceMetricThreshold,
    CrossSlicingSpec,
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
    eval_config,
)
from penstock.components.evaluation.blessing import (
    Judgment,
    SliceMetrics,
    Word,
    judge,
)
from penstock.components.evaluation.results import _slice_metrics
from penstock.schemas.errors import PipelineError

HIGHER = MetricDirection.HIGHER_IS_BETTER
LOWER = MetricDirection.LOWER_IS_BETTER
CASH = (("payment", "Cash"),)
CARD = (("payment", "Card"),)

Sliced = dict[Any, dict[str, tuple[float, float]]]
"""Candidate's and baseline's values, by metric, by slice."""


def value(lower: float | None = None, upper: float | None = None) -> MetricThreshold:
    bound = GenericValueThreshold()
    if lower is not None:
        bound.lower_bound.value = lower
    if upper is not None:
        bound.upper_bound.value = upper
    return MetricThreshold(value_threshold=bound)


def change(
    direction: int, absolute: float | None = None, relative: float | None = None
) -> MetricThreshold:
    bound = GenericChangeThreshold(direction=direction)
    if absolute is not None:
        bound.absolute.value = absolute
    if relative is not None:
        bound.relative.value = relative
    return MetricThreshold(change_threshold=bound)


def auc(
    *thresholds: MetricThreshold, slices: Any = (), crossed: Any = ()
) -> EvalConfig:
    """A config whose AUC has thresholds: for all slices, or for the given ones."""
    metric = MetricConfig(class_name="AUC")
    for threshold in thresholds:
        if crossed:
            metric.cross_slice_thresholds.append(
                CrossSliceMetricThreshold(
                    cross_slicing_specs=crossed, threshold=threshold
                )
            )
        elif slices:
            metric.per_slice_thresholds.append(
                PerSliceMetricThreshold(slicing_specs=slices, threshold=threshold)
            )
        else:
            metric.threshold.MergeFrom(threshold)
    return EvalConfig(
        model_specs=[ModelSpec(label_key="big")],
        metrics_specs=[MetricsSpec(metrics=[metric])],
    )


def plain(records: list[Any]) -> list[SliceMetrics]:
    """Return TFMA's metrics of slices as our plain values."""
    convert = writer.convert_slice_metrics_to_proto
    return [_slice_metrics(convert(record, []), 0.95) for record in records]


def both(
    config: EvalConfig, sliced: Sliced, *, baseline: bool
) -> tuple[bool, Judgment]:
    """Return TFMA's decision and ours on the same metric values."""
    ready = eval_config.prepared(config, has_baseline=baseline)
    records = []
    for key, metrics in sliced.items():
        found = {}
        for name, (candidate, other) in metrics.items():
            metric = metric_types.MetricKey(
                name, "candidate" if baseline else "", example_weighted=False
            )
            found[metric] = candidate
            if baseline:
                found[metric.make_baseline_key("baseline")] = other
                found[metric.make_diff_key()] = candidate - other
        records.append((key, found))
    combined = writer.CombineValidations(ready, rubber_stamp=not baseline)
    result = combined.create_accumulator()
    for record in records:
        result = combined.add_input(
            result, metrics_validator.validate_metrics(record, ready)
        )
    result = combined.extract_output(result)
    ours = judge(
        eval_config.thresholds(ready),
        plain(records),
        ignored=() if baseline else eval_config.ignored_thresholds(config),
    )
    return result.validation_ok, ours


OVERALL: Sliced = {(): {"auc": (0.8, 0.79)}}
SLICED: Sliced = {
    (): {"auc": (0.8, 0.79)},
    CASH: {"auc": (0.6, 0.75)},
    CARD: {"auc": (0.85, 0.8)},
}
TO_CARD = [
    CrossSlicingSpec(
        baseline_spec=SlicingSpec(feature_values={"payment": "Card"}),
        slicing_specs=[SlicingSpec(feature_keys=["payment"])],
    )
]
CROSSED: Sliced = {**SLICED, (CARD, CASH): {"auc": (0.25, 0.05)}}


@pytest.mark.parametrize(
    ("config", "sliced", "baseline", "expected"),
    [
        (auc(value(lower=0.5)), OVERALL, False, True),
        (auc(value(lower=0.8)), OVERALL, False, True),
        (auc(value(lower=0.81)), OVERALL, False, False),
        (auc(value(upper=0.9)), OVERALL, True, True),
        (auc(value(upper=0.7)), OVERALL, True, False),
        (auc(value(0.5, 0.9)), OVERALL, True, True),
        (auc(value(0.5, 0.7)), OVERALL, True, False),
        (auc(value()), {(): {"auc": (math.nan, 0.5)}}, False, False),
        (auc(value(lower=0.5)), {(): {"auc": (math.nan, 0.5)}}, True, False),
        (auc(change(HIGHER, absolute=-0.1)), OVERALL, True, True),
        (auc(change(HIGHER, absolute=0.1)), OVERALL, True, False),
        (auc(change(LOWER, absolute=0.1)), OVERALL, True, True),
        (auc(change(LOWER, absolute=-0.1)), OVERALL, True, False),
        (auc(change(HIGHER, relative=0.01)), OVERALL, True, True),
        (auc(change(HIGHER, relative=0.02)), OVERALL, True, False),
        (auc(change(LOWER, relative=0.02)), OVERALL, True, True),
        (auc(change(LOWER, absolute=0.1, relative=0.001)), OVERALL, True, False),
        (auc(change(HIGHER, relative=0.0)), {(): {"auc": (0.5, 1e-12)}}, True, True),
        (auc(change(HIGHER, absolute=0.0)), {(): {"auc": (0.5, 0.0)}}, True, True),
        (auc(change(HIGHER, absolute=0.0)), {(): {"auc": (math.nan, 1)}}, True, False),
        (auc(value(lower=0.5), change(HIGHER, absolute=0.0)), OVERALL, True, True),
        (auc(value(lower=0.9), change(HIGHER, absolute=0.0)), OVERALL, True, False),
        # Without a baseline a change does not count, and alone it blesses.
        (auc(change(HIGHER, absolute=0.5)), OVERALL, False, True),
        (auc(value(lower=0.9), change(HIGHER, absolute=0.5)), OVERALL, False, False),
        # A threshold without slices is for every slice.
        (auc(value(lower=0.7)), SLICED, True, False),
        (auc(value(lower=0.5)), SLICED, True, True),
        (auc(change(HIGHER, absolute=0.0)), SLICED, True, False),
        (auc(value(lower=0.7), slices=[SlicingSpec()]), SLICED, True, True),
        (
            auc(
                value(lower=0.7),
                slices=[SlicingSpec(feature_values={"payment": "Card"})],
            ),
            SLICED,
            True,
            True,
        ),
        (
            auc(value(lower=0.7), slices=[SlicingSpec(feature_keys=["payment"])]),
            SLICED,
            True,
            False,
        ),
        (
            auc(
                value(lower=0.7),
                slices=[SlicingSpec(feature_values={"payment": "Barter"})],
            ),
            SLICED,
            True,
            False,
        ),
        (auc(value(upper=0.2), crossed=TO_CARD), CROSSED, True, False),
        (auc(change(LOWER, absolute=0.1), crossed=TO_CARD), CROSSED, True, False),
        (auc(value(upper=0.3), crossed=TO_CARD), SLICED, True, False),
        (auc(value(lower=0.5)), {(): {"recall": (0.8, 0.8)}}, True, False),
    ],
)
def test_decisions_equal_tfmas(
    config: EvalConfig, sliced: Sliced, baseline: bool, expected: bool
) -> None:
    theirs, ours = both(config, sliced, baseline=baseline)
    assert theirs is expected
    assert ours.word is (Word.BLESSED if expected else Word.NOT_BLESSED)
    assert ours.reasons


# Values and bounds that are often equal, and values that are no numbers.
NUMBERS = st.sampled_from([0.0, 1e-12, 0.25, 0.5, 0.75, 1.0, -0.25, math.nan, math.inf])
BOUNDS = st.one_of(st.none(), st.sampled_from([-0.25, 0.0, 0.25, 0.5, 1.0]))
SPECS = st.sampled_from(
    [
        (),
        [SlicingSpec()],
        [SlicingSpec(feature_keys=["payment"])],
        [SlicingSpec(feature_values={"payment": "Cash"}), SlicingSpec()],
        [SlicingSpec(feature_values={"payment": "Barter"})],
    ]
)


@settings(max_examples=300)
@given(
    values=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=3),
    bounds=st.tuples(BOUNDS, BOUNDS),
    changes=st.tuples(BOUNDS, BOUNDS),
    direction=st.sampled_from([HIGHER, LOWER]),
    slices=SPECS,
    baseline=st.booleans(),
)
def test_generated_decisions_equal_tfmas(
    values: list[tuple[float, float]],
    bounds: tuple[float | None, float | None],
    changes: tuple[float | None, float | None],
    direction: int,
    slices: Any,
    baseline: bool,
) -> None:
    sliced: Sliced = {
        key: {"auc": pair} for key, pair in zip([(), CASH, CARD], values, strict=True)
    }
    config = auc(value(*bounds), change(direction, *changes), slices=slices)
    theirs, ours = both(config, sliced, baseline=baseline)
    if changes[1] is not None and any(other == 0 for _, other in values):
        assert theirs <= (ours.word is Word.BLESSED)  # a named difference, see below
    else:
        assert (ours.word is Word.BLESSED) is theirs


@pytest.mark.parametrize(
    ("threshold", "candidate", "expected"),
    [
        (change(HIGHER, relative=0.0), 0.5, Word.BLESSED),
        (change(HIGHER, relative=0.1), 0.5, Word.BLESSED),
        (change(HIGHER, relative=-0.1), 0.0, Word.BLESSED),
        (change(HIGHER, relative=0.1), 0.0, Word.NOT_BLESSED),
        (change(HIGHER, relative=-0.1), -0.5, Word.NOT_BLESSED),
        (change(LOWER, relative=0.1), -0.5, Word.BLESSED),
        (change(LOWER, relative=0.1), 0.0, Word.BLESSED),
        (change(LOWER, relative=0.1), 0.5, Word.NOT_BLESSED),
    ],
)
def test_relative_changes_from_zero_are_a_named_difference(
    threshold: MetricThreshold, candidate: float, expected: Word
) -> None:
    # TFMA's relative change from a baseline of 0 is NaN, which meets no bound: it
    # refuses a candidate that is better. Here it is infinite, or 0 for no change.
    theirs, ours = both(auc(threshold), {(): {"auc": (candidate, 0.0)}}, baseline=True)
    assert theirs is False
    assert ours.word is expected


def test_a_config_without_thresholds_is_a_named_difference() -> None:
    # TFMA rubber-stamps the first model, and refuses every later one.
    assert both(auc(), OVERALL, baseline=False)[0] is True
    assert both(auc(), OVERALL, baseline=True)[0] is False
    for baseline in (False, True):
        assert both(auc(), OVERALL, baseline=baseline)[1].word is Word.NO_THRESHOLDS


def test_comparisons_of_slices_are_a_named_difference() -> None:
    # TFMA counts the slices that a threshold met by their slicing_spec alone, which a
    # comparison does not have: one that is met is missing all the same.
    config = auc(value(upper=0.3), crossed=TO_CARD)
    theirs, ours = both(config, CROSSED, baseline=True)
    assert theirs is False
    assert ours.word is Word.BLESSED
    ready = eval_config.prepared(config, has_baseline=False)
    key = metric_types.MetricKey("auc", example_weighted=False)
    record: Any = ((CARD, CASH), {key: 0.25})
    assert metrics_validator.validate_metrics(record, ready).validation_ok


def test_small_slices_are_a_named_difference() -> None:
    # Below min_slice_size TFMA keeps an error in place of metrics, and then takes
    # every threshold for unmet, whichever slice it is for.
    small = {"__ERROR__": "Example count for this slice key is lower than 100."}
    ready = eval_config.prepared(
        auc(value(lower=0.5), slices=[SlicingSpec()]), has_baseline=False
    )
    ready.options.min_slice_size.value = 100
    key = metric_types.MetricKey("auc", example_weighted=False)
    records: list[Any] = [((), {key: 0.8}), (CASH, small)]
    combined = writer.CombineValidations(ready, rubber_stamp=True)
    theirs = combined.create_accumulator()
    for record in records:
        theirs = combined.add_input(
            theirs, metrics_validator.validate_metrics(record, ready)
        )
    theirs = combined.extract_output(theirs)
    assert not theirs.validation_ok
    (failed,) = theirs.metric_validations_per_slice
    assert failed.slice_key.single_slice_keys[0].column == "payment"
    assert failed.failures[0].message == "Metric not found."
    ours = judge(
        eval_config.thresholds(ready),
        plain(records),
        min_slice_size=100,
    )
    assert ours.word is Word.BLESSED
    assert ours.reasons == ("'auc' in all rows is 0.8, as asked: at least 0.5.",)


def test_small_slices_disturb_no_threshold_but_their_own() -> None:
    # As before, with a threshold that is for the small slice too.
    ready = eval_config.prepared(
        auc(
            value(lower=0.5),
            slices=[SlicingSpec(), SlicingSpec(feature_keys=["payment"])],
        ),
        has_baseline=False,
    )
    key = metric_types.MetricKey("auc", example_weighted=False)
    small = {"__ERROR__": "Example count for this slice key is lower than 100."}
    records: list[Any] = [((), {key: 0.8}), (CASH, small), (CARD, {key: 0.7})]
    ours = judge(
        eval_config.thresholds(ready),
        plain(records),
        min_slice_size=100,
    )
    assert ours.word is Word.BLESSED
    assert ours.reasons == (
        "'auc' in payment=Cash is left out: the slice has fewer than 100 rows, the "
        "min_slice_size.",
        "'auc' in all rows is 0.8, as asked: at least 0.5.",
        "'auc' in payment=Card is 0.7, as asked: at least 0.5.",
    )


def test_thresholds_of_classes_and_averages_have_names_of_their_own() -> None:
    config = EvalConfig(
        model_specs=[ModelSpec(label_key="big", example_weight_key="weight")],
        metrics_specs=[
            MetricsSpec(
                metrics=[MetricConfig(class_name="AUC", threshold=value(lower=0.5))],
                binarize=BinarizationOptions(class_ids={"values": [0, 2]}),
                aggregate=AggregationOptions(micro_average=True),
            )
        ],
    )
    ready = eval_config.prepared(config, has_baseline=True)
    found = eval_config.thresholds(ready)
    assert sorted(str(each.metric) for each in found) == [
        "auc (class 0)",
        "auc (class 2)",
        "auc (micro average)",
    ]
    assert all(each.metric.weighted for each in found)


TWO = EvalConfig(
    model_specs=[ModelSpec(label_key="big")],
    metrics_specs=[
        MetricsSpec(
            metrics=[
                MetricConfig(class_name="AUC", threshold=change(HIGHER, absolute=0.0)),
                MetricConfig(class_name="Recall", threshold=value(lower=0.5)),
                MetricConfig(class_name="ExampleCount"),
            ]
        )
    ],
)


def asked(confidence: float | dict[str, float] | None) -> dict[str, float | None]:
    ready = eval_config.prepared(TWO, has_baseline=True)
    return {
        each.metric.name: each.confidence
        for each in eval_config.thresholds(ready, confidence)
    }


def test_confidence_is_asked_of_all_metrics_or_by_name() -> None:
    assert asked(None) == {"auc": None, "recall": None}
    assert asked(0.9) == {"auc": 0.9, "recall": 0.9}
    assert asked({"recall": 0.99}) == {"auc": None, "recall": 0.99}


def test_confidence_by_name_is_of_metrics_with_thresholds() -> None:
    for good in (None, 0.9, {}, {"auc": 0.9, "recall": 0.95}):
        eval_config.check_confidence(TWO, good, "Evaluator.confidence")
    with pytest.raises(PipelineError) as raised:
        eval_config.check_confidence(TWO, {"recal": 0.9}, "Evaluator.confidence")
    assert str(raised.value) == (
        "Evaluator.confidence has 'recal', which is no metric with a threshold (those "
        "are 'auc', 'recall'). Did you mean 'recall'?"
    )
    with pytest.raises(PipelineError, match="'example_count', which is no metric"):
        eval_config.check_confidence(TWO, {"example_count": 0.9}, "confidence")
