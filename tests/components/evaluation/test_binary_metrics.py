"""Metrics of confusion matrices equal TFMA's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import confusion_matrix_metrics, metric_types

from penstock.components.evaluation import MetricConfig
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.metrics.registry import METRICS, find_builder
from penstock.schemas.errors import DataError, PipelineError
from tests.components.evaluation.parity import (
    Data,
    assert_equal,
    assert_parity,
    config,
    ours,
    theirs,
)

# TFMA divides by zero for it: see test_where_tfma_stops_there_is_no_value.
STOPS = "PrevalenceThreshold"
# Each of these needs a bound, or thresholds.
BOUNDED: dict[str, dict[str, Any]] = {
    "SensitivityAtSpecificity": {"specificity": 0.6},
    "SpecificityAtSensitivity": {"sensitivity": 0.6},
    "PrecisionAtRecall": {"recall": 0.6},
    "RecallAtPrecision": {"precision": 0.6},
    "RecallAtFalsePositiveRate": {"false_positive_rate": 0.2},
    "ThresholdAtRecall": {"recall": 0.6},
    "ConfusionMatrixAtThresholds": {"thresholds": [0.2, 0.5, 0.9]},
}
SAMPLERS = {"FalsePositiveFeatureSampler", "FalseNegativeFeatureSampler"}


def names() -> list[str]:
    """Return TFMA's names of metrics of two classes, without samplers of features."""
    return [
        name
        for name, kind in metric_types.registered_metrics().items()
        if kind.__module__ == confusion_matrix_metrics.__name__ and name not in SAMPLERS
    ]


def metric(name: str, called: str = "", **given: Any) -> MetricConfig:
    """Return the config of a metric that has what it needs."""
    full = {**BOUNDED.get(name, {}), **given, **({"name": called} if called else {})}
    return MetricConfig(class_name=name, config=json.dumps(full))


EVERY = [metric(each) for each in names() if each != STOPS]


def test_every_binary_metric_of_tfma_is_ours() -> None:
    find_builder(metric("AUC"), "")
    assert set(names()) <= set(METRICS)


def made(
    rows: int, seed: int, *, digits: int = 2, fractional: bool = False, bias: float = 0
) -> Data:
    """Return rows of two models with ties, whose scores say something of the label."""
    random = np.random.default_rng(seed)
    score = np.round(random.beta(2, 3, rows), digits)
    other = np.clip(np.round(score + random.normal(0, 0.1, rows), digits), 0, 1)
    label: Array = (random.random(rows) < score + bias).astype(np.int64)
    if fractional:
        label = np.round(np.clip(score + random.normal(0, 0.2, rows), 0, 1), 1)
    # Sums of these are exact in any order: rates of differences of matrices, which
    # TFMA has too, divide by what would be left of rounding.
    weight = np.ceil(random.gamma(2, 8, rows)) / 8
    return Data({"label": label, "weight": weight}, score, other)


def alone(data: Data) -> Data:
    """Return the rows without the baseline."""
    return Data(data.columns, data.candidate)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("compared", [False, True])
def test_every_metric(weighted: bool, compared: bool) -> None:
    data = Data.joined([made(200, 0), made(40, 1), made(3, 2), made(1, 3)])
    asked = config(*EVERY, weighted=weighted)
    assert_parity(asked, data if compared else alone(data))


def test_fractional_labels_are_split() -> None:
    data = Data.joined([made(50, seed, fractional=True) for seed in range(3)])
    assert_parity(config(*EVERY, weighted=True), alone(data))


EXTREME: dict[str, Callable[[int], Array]] = {
    "zero": lambda rows: np.zeros(rows),
    "one": lambda rows: np.ones(rows),
    "half": lambda rows: np.full(rows, 0.5),
    "zero or one": lambda rows: np.arange(rows) % 2,
    "nearly zero": lambda rows: np.full(rows, 1e-9),
    "nearly one": lambda rows: np.full(rows, 1 - 1e-9),
    "edges of buckets": lambda rows: np.arange(rows) / 10_000,
    "thresholds of Keras": lambda rows: np.arange(rows) / 199,
}


def of_scores(score: Array) -> list[Data]:
    """Return rows with these scores: of two labels, of no positives, of positives."""
    rows = len(score)
    weight = np.linspace(0.1, 2, rows)
    return [
        Data({"label": label, "weight": weight}, score)
        for label in (
            np.arange(rows) // 2 % 2,
            np.zeros(rows, np.int64),
            np.ones(rows, np.int64),
        )
    ]


def test_extreme_and_equal_scores() -> None:
    parts = [part for score in EXTREME.values() for part in of_scores(score(8))]
    more = [metric("AUC", "auc200", num_thresholds=200)]
    assert_parity(config(*EVERY, *more, weighted=True), Data.joined(parts))


def test_scores_as_32_bit_floats() -> None:
    scores = (np.arange(50) * 1_237 % 10_000 / 10_000).astype(np.float32)
    assert_parity(config(*EVERY), Data.joined(of_scores(scores)))


RATES: list[dict[str, Any]] = [
    {"thresholds": 0.3},
    {"thresholds": [0.3]},
    {"thresholds": [0.0]},
    {"thresholds": [0.9, 0.1, 0.5]},
    {"thresholds": [0, 1]},
    {"thresholds": [-0.5, 1.5]},
]
AREAS: list[dict[str, Any]] = [
    {"num_thresholds": 2},
    {"num_thresholds": 3},
    {"num_thresholds": 200},
    {"num_thresholds": 9_999},
    {"thresholds": [0.1, 0.5, 0.7]},
    {"thresholds": [-1e-7, 0.5, 1 + 1e-7]},
    *(
        {"curve": curve, "summation_method": method}
        for curve in ("ROC", "PR")
        for method in ("interpolation", "majoring", "minoring")
    ),
]
BOUNDS: list[tuple[Any, dict[str, Any]]] = [
    (0.0, {}),
    (1.0, {}),
    (0.5, {"num_thresholds": 7}),
    ([0.1, 0.5, 0.99], {}),
]


def test_thresholds_and_their_number() -> None:
    asked = [
        metric(name, f"{name} {number}", **given)
        for name in ("Precision", "Recall", "F1Score", "TruePositives", "Markedness")
        for number, given in enumerate(RATES)
    ]
    asked += [
        metric(name, f"{name} {number}", **given)
        for name in ("AUC", "AUCPrecisionRecall")
        for number, given in enumerate(AREAS)
        if name == "AUC" or "curve" not in given
    ]
    asked += [
        metric(name, f"{name} {number}", **{key: bound}, **given)
        for name, needed in BOUNDED.items()
        for key in needed
        if key != "thresholds"
        for number, (bound, given) in enumerate(BOUNDS)
        # For these TFMA takes one bound only.
        if not (key in ("precision", "false_positive_rate") and type(bound) is list)
    ]
    data = Data.joined([made(300, 4), made(10, 5), made(20, 6, bias=-1)])
    assert_parity(config(*asked, weighted=True), alone(data))


def by_class(rows: int, classes: int, seed: int, *, one_hot: bool = False) -> Data:
    """Return rows of several classes, whose scores say something of the class."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, rows)
    score = random.random((rows, classes))
    score[np.arange(rows), label] += 0.3
    score /= score.sum(axis=1, keepdims=True)
    return Data(
        {
            "label": np.eye(classes)[label] if one_hot else label,
            "weight": random.random(rows) + 0.5,
        },
        score,
    )


@pytest.mark.parametrize("one_hot", [False, True])
def test_a_class_and_the_top_k_in_the_config_of_a_metric(one_hot: bool) -> None:
    data = Data.joined([by_class(rows, 5, 7, one_hot=one_hot) for rows in (60, 2)])
    chosen = ["AUC", "Precision", "Recall", "FalsePositives", "F1Score", "PPV"]
    asked = [metric(name, class_id=3) for name in chosen]
    asked += [metric(name, f"{name}_1", class_id=0) for name in chosen]
    asked += [metric(name, f"{name}_2", top_k=2) for name in chosen[1:]]
    asked += [
        metric(name, f"{name}_3", top_k=3, thresholds=[0.25]) for name in chosen[1:]
    ]
    asked += [
        metric("ConfusionMatrixAtThresholds", "cm", class_id=2),
        metric("BinaryAccuracy", class_id=3, threshold=0.3),
    ]
    assert_parity(config(*asked, weighted=True), data)


# All ways from scores to a value: TFMA takes seconds for every one of the rates.
SOME = [
    *(metric(each) for each in ("AUC", "AUCPrecisionRecall", "FPR", "TN", "MaxRecall")),
    *(metric(each) for each in ("MatthewsCorrelationCoefficient", "ThresholdAtRecall")),
    *(metric(each) for each in ("RecallAtPrecision", "PositiveLikelihoodRatio")),
    metric("AUC", "few", num_thresholds=7, summation_method="majoring"),
    metric("F1Score", "some", thresholds=[0.1, 0.5, 1 / 3]),
]

SCORES = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, 1e-7, 1 - 1e-7, 1 / 3, 0.1, 0.7]),
    st.floats(0, 1, width=32),
    st.floats(0, 1),
    st.integers(0, 10).map(lambda each: each / 10),
    st.integers(0, 10_000).map(lambda each: each / 10_000),
)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1), SCORES, st.sampled_from([0.25, 1.0, 3.1, 0.7]), SCORES
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def data_sets(draw: st.DrawFn) -> Data:
    """Several small data sets, as slices."""
    is_short = draw(st.booleans())
    parts = []
    for rows in draw(st.lists(ROWS, min_size=1, max_size=5)):
        label, score, weight, other = (
            np.array(each) for each in zip(*rows, strict=True)
        )
        kind = np.float32 if is_short else np.float64
        parts.append(
            Data(
                {"label": label, "weight": weight},
                score.astype(kind),
                other.astype(kind),
            )
        )
    return Data.joined(parts)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=data_sets(), weighted=st.booleans())
def test_generated_rows(data: Data, weighted: bool) -> None:
    assert_parity(config(*SOME, weighted=weighted), data)


def test_where_tfma_stops_there_is_no_value() -> None:
    # A named difference: where sensitivity and specificity add up to 1, TFMA divides
    # by zero and the whole evaluation stops.
    label = np.array([0, 1, 0, 1])
    useless = Data({"label": label, "weight": label}, np.full(4, 0.9))
    (values,) = ours(config(STOPS, slices=()), useless).values()
    assert [math.isnan(each) for each in values.values()] == [True]
    with pytest.raises(ZeroDivisionError):
        theirs(config(STOPS, slices=()), useless)
    useful = made(200, 9)
    assert_parity(config(STOPS, slices=()), alone(useful))


def test_top_k_of_logits_is_a_named_difference() -> None:
    # TFMA takes every prediction that is not among the top k for -infinity, and then
    # everything below 0, -infinity or not, for a negative.
    label = np.array([0, 1, 2, 1])
    logits = np.array([[-1.0, -2, -3], [-3, -1, -2], [4, 2, 5], [1, 2, 3]])
    data = Data({"label": label}, logits)
    asked = config(metric("TruePositives", top_k=1), slices=())
    (mine,), (other,) = ours(asked, data).values(), theirs(asked, data).values()
    assert list(mine.values()) == [3.0]
    assert list(other.values()) == [1.0]


def refused(asked: MetricConfig, data: Data) -> str:
    with pytest.raises((DataError, PipelineError)) as caught:
        ours(config(asked, slices=()), data, parts=1)
    return str(caught.value)


def test_labels_that_are_none_of_two_classes() -> None:
    data = Data({"label": np.array([0, 1, 3, -1])}, np.full(4, 0.5))
    for name in ("AUC", "Precision"):
        assert refused(metric(name), data) == (
            "2 labels of 2 rows are not within 0 and 1, the first is 3, and a metric "
            "of two classes takes 0 and 1. Name the right label_key, or binarize the "
            "metric."
        )
    with pytest.raises(RuntimeError, match="add_input failed"):
        theirs(config("AUC", slices=()), data)


def test_scores_that_are_no_probabilities() -> None:
    # A named difference: TFMA counts them into the lowest and the highest bucket.
    label = np.array([0, 1, 1, 0])
    logits = Data({"label": label}, np.array([-2.0, 3, 0.5, 1.25]))
    assert refused(metric("AUC"), logits) == (
        "2 scores of 2 rows are not within 0 and 1, from -2 to 3, and the thresholds "
        "of a curve divide 0 to 1. They look like logits: export probabilities (end "
        "the model with a sigmoid or softmax), or give the metric 'thresholds' of its "
        "own."
    )
    percent = Data({"label": label}, np.array([20.0, 90, 70, 50]))
    assert refused(metric("RecallAtPrecision"), percent) == (
        "2 scores of 2 rows are not within 0 and 1, from 20 to 90, and the thresholds "
        "of a curve divide 0 to 1. Export probabilities, or give the metric "
        "'thresholds' of its own."
    )
    # Thresholds of one's own are of whatever the scores are.
    asked = [
        metric("Recall", thresholds=[0.0, 1.0]),
        metric("AUC", thresholds=[0.0, 1]),
    ]
    assert_parity(config(*asked, slices=()), logits)
    # What rounding leaves over is no mistake.
    rounded = Data({"label": label}, np.array([0.5, 1.0000001, 0.2, -1e-8], np.float32))
    assert_parity(config("AUC", slices=()), rounded)


def test_thresholds_that_cannot_be() -> None:
    data = made(4, 11)
    assert refused(metric("AUC", num_thresholds=5, thresholds=[0.5]), data) == (
        "Metric 'auc' has num_thresholds=5 and 1 thresholds. Give at least 2, or "
        "thresholds instead, in its config."
    )
    assert refused(metric("AUC", num_thresholds=1), data) == (
        "Metric 'auc' has num_thresholds=1. Give at least 2, or thresholds instead, in "
        "its config."
    )


def test_merging_does_not_matter() -> None:
    data = made(101, 10)
    asked = config(*EVERY, slices=(), weighted=True)
    once = ours(asked, alone(data), parts=1)
    assert_equal(ours(asked, alone(data), parts=7), once, relative=1e-12)


def test_scores_of_exactly_one_beside_few_others() -> None:
    """Nothing is above the last threshold, and scores of 1 are above the one before."""
    random = np.random.default_rng(12)
    score = np.round(random.random(200), 1)
    score[:20] = 1.0
    label = random.integers(0, 2, 200)
    assert_parity(config(*EVERY, slices=()), Data({"label": label}, score))
