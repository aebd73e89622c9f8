"""Metrics of many classes and outputs, and their averages, equal TFMA's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import metric_types

from penstock.components.evaluation import MetricConfig, MetricsSpec, ModelSpec
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.intervals import Asked
from penstock.components.evaluation.metrics.averages import ClassLabels
from penstock.components.evaluation.metrics.classes import ClassMatrix
from penstock.components.evaluation.plan import outputs_of
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError, PipelineError
from tests.components.evaluation.parity import (
    Data,
    assert_parity,
    config,
    found,
    is_equal,
    ours,
    planned,
    theirs,
)

NAMES = [
    "AUC",
    "Precision",
    "Recall",
    "F1Score",
    "MatthewsCorrelationCoefficient",
    "MeanLabel",
    "MeanPrediction",
    "Calibration",
    "MeanSquaredError",
    "BinaryAccuracy",
    "ExampleCount",
]
CHOSEN = {
    "class_ids": {"values": [0, 2]},
    "k_list": {"values": [1, 3]},
}


def spec(*names: str | MetricConfig, **fields: Any) -> MetricsSpec:
    metrics = [
        MetricConfig(class_name=each) if isinstance(each, str) else each
        for each in names
    ]
    return MetricsSpec(metrics=metrics, **fields)


def of_classes(
    rows: int, seed: int, *, classes: int = 4, one_hot: bool = False, digits: int = 3
) -> Data:
    """Return rows of two models, whose scores of several classes have ties."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, rows)
    models = []
    for _ in range(2):
        scores = random.random((rows, classes))
        scores[np.arange(rows), label] += random.random(rows)
        scores = np.round(scores / scores.sum(axis=1, keepdims=True), digits)
        models.append(scores)
    columns: dict[str, Array] = {
        "label": np.eye(classes)[label] if one_hot else label,
        "weight": np.round(random.gamma(2, 1, rows), 3),
    }
    return Data(columns, *models)


def of_labels(rows: int, seed: int, *, classes: int = 4) -> Data:
    """Return rows with any number of labels each."""
    random = np.random.default_rng(seed)
    scores = np.round(random.random((rows, classes)), 2)
    label = (random.random((rows, classes)) < scores).astype(np.int64)
    return Data({"label": label, "weight": random.random(rows)}, scores)


def alone(data: Data) -> Data:
    return Data(data.columns, data.candidate)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_classes_one_by_one(weighted: bool, one_hot: bool) -> None:
    parts = [of_classes(rows, rows, one_hot=one_hot) for rows in (80, 5, 1)]
    asked = config(spec(*NAMES, binarize=CHOSEN), weighted=weighted)
    data = Data.joined(parts)
    assert_parity(asked, data if weighted else alone(data))


def test_classes_of_rows_with_several_labels() -> None:
    data = Data.joined([of_labels(60, 0), of_labels(3, 1)])
    micro = {"micro_average": True}
    asked = config(
        spec(*NAMES, binarize={"class_ids": {"values": [1, 3]}}),
        spec(*NAMES, aggregate=micro),
        weighted=True,
    )
    assert_parity(asked, data)


def test_the_highest_predictions() -> None:
    # TFMA cannot take means of them: it looks for as many labels as predictions.
    names = ["Precision", "Recall", "FalsePositives", "F1Score"]
    asked = config(
        spec(*names, binarize={"top_k_list": {"values": [1, 2, 4]}}), weighted=True
    )
    assert_parity(asked, Data.joined([of_classes(60, 2), of_classes(1, 3)]))


AGGREGATES: list[dict[str, Any]] = [
    {"micro_average": True},
    {"micro_average": True, "class_weights": {0: 1.0, 1: 0.25, 3: 2.0}},
    {"micro_average": True, "top_k_list": {"values": [1, 3]}},
    {"macro_average": True, "class_weights": {0: 1.0, 1: 0.25, 3: 2.0}},
    {"macro_average": True, "class_weights": {0: 1.0, 1: 0.0}},
    {"weighted_macro_average": True, "class_weights": {0: 1.0, 1: 1.0, 2: 1.0}},
    {"weighted_macro_average": True, "class_weights": {0: 0.5, 3: 3.0}},
]


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_averages_over_classes(aggregate: dict[str, Any]) -> None:
    # TFMA's means of the highest predictions fail, and so does its number of rows where
    # classes have weights.
    without = set()
    if "micro_average" in aggregate:
        without = {"ExampleCount"} if "class_weights" in aggregate else set()
        if "top_k_list" in aggregate:
            without = {"MeanLabel", "MeanPrediction", "Calibration"}
    names = [each for each in NAMES if each not in without]
    parts = [of_classes(80, 4), of_classes(3, 5)]
    assert_parity(
        config(spec(*names, aggregate=aggregate), weighted=True), Data.joined(parts)
    )


@pytest.mark.parametrize("kind", ["macro_average", "weighted_macro_average"])
def test_averages_over_the_highest_predictions(kind: str) -> None:
    names = ["AUC", "Precision", "Recall", "MeanLabel", "MeanSquaredError"]
    aggregate = {kind: True, "top_k_list": {"values": [1, 3]}}
    parts = [of_classes(80, 6), of_classes(30, 7)]
    asked = config(spec(*names, aggregate=aggregate), weighted=True)
    assert_parity(asked, alone(Data.joined(parts)))


def test_averages_beside_the_classes_they_are_of() -> None:
    weights = {0: 1.0, 2: 3.0}
    asked = config(
        spec(
            *NAMES,
            binarize={"class_ids": {"values": [0, 1]}},
            aggregate={"macro_average": True, "class_weights": weights},
        ),
        spec(*NAMES, aggregate={"micro_average": True}),
        weighted=True,
    )
    assert_parity(asked, alone(Data.joined([of_classes(80, 8)])))


def test_averages_of_rows_with_several_labels() -> None:
    weights = {0: 1.0, 1: 1.0, 2: 0.5}
    for kind in ("macro_average", "weighted_macro_average"):
        asked = config(
            spec("AUC", "Recall", aggregate={kind: True, "class_weights": weights}),
            weighted=True,
        )
        assert_parity(asked, Data.joined([of_labels(70, 9), of_labels(2, 10)]))


def test_keras_metrics_are_averaged_too() -> None:
    names = ["Poisson", "CosineSimilarity", "KLDivergence"]
    weights = {0: 1.0, 1: 2.0}
    for kind in ("macro_average", "weighted_macro_average"):
        asked = config(
            spec(*names, aggregate={kind: True, "class_weights": weights}),
            weighted=True,
        )
        data = alone(Data.joined([of_classes(70, 11)]))
        # 32-bit arithmetic, see test_keras_metrics.
        assert_parity(asked, data, relative=2e-6, absolute=3e-7)


def outputs(rows: int, seed: int) -> Data:
    """Return rows of a model with the outputs `a` and `b`."""
    random = np.random.default_rng(seed)
    columns: dict[str, Array] = {"weight": random.random(rows)}
    models: list[dict[str, Array]] = [{}, {}]
    for name in ("a", "b"):
        score = np.round(random.random(rows), 2)
        columns[f"label_{name}"] = (random.random(rows) < score).astype(np.int64)
        columns[f"weight_{name}"] = random.random(rows)
        models[0][name] = score
        models[1][name] = np.round(random.random(rows), 2)
    return Data(columns, *models)


LABELS = {"a": "label_a", "b": "label_b"}
WEIGHTS = {"a": "weight_a", "b": "weight_b"}


@pytest.mark.parametrize("compared", [False, True])
def test_outputs_and_their_average(compared: bool) -> None:
    data = Data.joined([outputs(80, 12), outputs(4, 13)])
    models = [ModelSpec(label_keys=LABELS, example_weight_keys=WEIGHTS)]
    both = {"output_names": ["a", "b"], "example_weights": {"weighted": True}}
    asked = config(
        spec(*NAMES, **both),
        spec("AUC", "Recall", "MeanLabel", output_weights={"a": 1.0, "b": 3.0}, **both),
        spec(
            MetricConfig(class_name="Precision", config='"name": "half"'),
            output_names=["a", "b"],
            output_weights={"b": 2.0},
        ),
        spec("ExampleCount", example_weights={"unweighted": True}),
        model_specs=models,
    )
    if not compared:
        data = alone(data)
    assert_parity(asked, data)
    plan = planned(asked, data)
    assert outputs_of(plan.metrics, "candidate" if compared else "") == ("a", "b")


MATRIX = "MultiClassConfusionMatrixAtThresholds"


def matrix(*thresholds: float) -> MetricConfig:
    given = {"thresholds": thresholds} if thresholds else {}
    return MetricConfig(class_name=MATRIX, config=json.dumps(given))


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("thresholds", [(), (0.0,), (0.2, 0.5, 0.9), (0.4, 1.0)])
def test_matrices_of_classes(one_hot: bool, thresholds: tuple[float, ...]) -> None:
    parts = [of_classes(rows, rows, one_hot=one_hot, digits=1) for rows in (90, 4, 1)]
    asked = config(spec(matrix(*thresholds)), weighted=True)
    assert_parity(asked, Data.joined(parts))


def test_matrices_of_two_models_are_subtracted() -> None:
    data = Data.joined([of_classes(50, 14), of_classes(2, 15)])
    assert_parity(config(spec(matrix(0.3))), data)


def test_a_matrix_has_a_key_without_classes() -> None:
    asked = config(
        spec(matrix(), binarize=CHOSEN, aggregate={"micro_average": True}), slices=()
    )
    assert_parity(asked, alone(of_classes(20, 16)))


def test_falling_thresholds_are_a_named_difference() -> None:
    # Below one threshold, TFMA goes on with no class for all thresholds after it.
    data = alone(of_classes(60, 17))
    falling = config(spec(matrix(0.6, 0.3)), slices=())
    rising = config(spec(matrix(0.3, 0.6)), slices=())
    (mine,), (other,) = (each(falling, data)[()].values() for each in (ours, theirs))
    (expected,) = theirs(rising, data)[()].values()
    assert is_equal(mine, expected, 1e-12)
    assert not is_equal(other, expected, 1e-12)


def test_a_matrix_of_many_classes_keeps_what_there_is() -> None:
    rows, classes = 40, 3_000
    random = np.random.default_rng(18)
    scores = random.random((rows, classes)).astype(np.float32)
    label = random.integers(0, classes, rows)
    asked = config(spec(matrix(0.9999)), slices=())
    (mine,) = ours(asked, Data({"label": label}, scores))[()].values()
    entries = mine.to_proto().multi_class_confusion_matrix_at_thresholds
    (only,) = entries.matrices
    assert sum(each.num_weighted_examples for each in only.entries) == rows
    statistic = ClassMatrix(View(), tuple(np.linspace(0, 1, 1_000)))
    assert statistic.cells * 2_000_000 < 2**63
    assert statistic.classes > 60_000
    with pytest.raises(DataError) as caught:
        statistic._check(70_000)
    assert str(caught.value) == (
        "The predictions have 70,000 classes, and a confusion matrix of 1,000 "
        "thresholds takes up to 66,283. Ask for fewer thresholds."
    )


CLASSES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=3, max_size=3),
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(CLASSES, min_size=1, max_size=4))
def test_generated_ties(parts: Any) -> None:
    data = []
    for rows in parts:
        label, scores, weight = (np.array(each) for each in zip(*rows, strict=True))
        data.append(Data({"label": label, "weight": weight}, scores))
    weights = {0: 1.0, 2: 0.5}
    asked = config(
        spec("Precision", "AUC", "MeanPrediction", binarize=CHOSEN),
        spec(
            "Recall",
            "AUC",
            aggregate={"weighted_macro_average": True, "class_weights": weights},
        ),
        spec("Recall", binarize={"top_k_list": {"values": [2]}}),
        spec(matrix(0.2, 0.7)),
        weighted=True,
    )
    assert_parity(asked, Data.joined(data))


def test_averages_have_intervals() -> None:
    weights = {0: 1.0, 1: 1.0}
    asked = config(
        spec(
            "AUC",
            "Recall",
            "MeanLabel",
            aggregate={"weighted_macro_average": True, "class_weights": weights},
        ),
        slices=(),
    )
    (overall,) = found(asked, alone(of_classes(500, 19)), intervals=Asked())
    assert len(overall.spreads) == 3
    for key, spread in overall.spreads.items():
        assert spread.lower < overall.values[key] < spread.upper
        assert spread.upper - spread.lower < 0.2


def refused(asked: Any, data: Data) -> str:
    with pytest.raises((DataError, PipelineError)) as caught:
        ours(asked, data, parts=1)
    return str(caught.value)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            spec("AUC", aggregate={"macro_average": True}),
            "The MetricsSpec of 'auc' averages the metrics of classes and names no "
            "class. Give its aggregate class_weights={0: 1, 1: 1, ...}, or a "
            "top_k_list.",
        ),
        (
            spec(
                "AUC",
                aggregate={
                    "macro_average": True,
                    "class_weights": {0: 1.0},
                    "top_k_list": {"values": [1]},
                },
            ),
            "The MetricsSpec of 'auc' has class_weights and a top_k_list in its "
            "aggregate. Leave one of them out: the k-th highest prediction is of "
            "another class in every row.",
        ),
        (
            spec(
                matrix(), aggregate={"macro_average": True, "class_weights": {0: 1.0}}
            ),
            "Metric 'multi_class_confusion_matrix_at_thresholds' is not one number for "
            "each class, so that it has no average. Put it into a MetricsSpec without "
            "aggregate.",
        ),
        (
            spec("AUC", output_names=["alpha"], output_weights={"alpa": 1.0}),
            "A MetricsSpec has output_weights of 'alpa', which is none of its "
            "output_names ('alpha'). Did you mean 'alpha'?",
        ),
        (
            spec(
                "AUC",
                output_names=["a"],
                output_weights={"a": 1.0},
                aggregate={"micro_average": True},
            ),
            "Metric 'auc' is averaged over classes and over outputs, and TFMA has no "
            "name for that. Take aggregate or output_weights out of its MetricsSpec.",
        ),
        (
            spec(
                MetricConfig(class_name="Precision", config='"thresholds": [0.1, 0.2]'),
                output_names=["a"],
                output_weights={"a": 1.0},
            ),
            "Metric 'precision' is not one number for each output, so that it has no "
            "average. Put it into a MetricsSpec without output_weights.",
        ),
        (
            spec("AUC", binarize={"class_ids": {"values": [4]}}),
            "Class 4 is asked for, and the predictions have 4 classes, from 0. Mend "
            "the class of the metric, or class_ids or class_weights of its "
            "MetricsSpec.",
        ),
        (
            spec("Recall", binarize={"top_k_list": {"values": [5]}}),
            "The 5 highest predictions are asked for, and a row has 4. Lower k, or "
            "look at the model's output.",
        ),
    ],
)
def test_what_is_refused(asked: MetricsSpec, text: str) -> None:
    assert refused(config(asked, slices=()), of_classes(3, 20)) == text


def test_data_that_does_not_fit() -> None:
    data = alone(of_classes(4, 21))
    one = config(spec("AUC", binarize={"class_ids": {"values": [1]}}), slices=())
    label = np.array([0.0, 1.5, 2, 9])
    wrong = Data({"label": label}, data.candidate)
    assert refused(one, wrong) == (
        "1 labels of 2 rows are no class, the first is 1.5: the predictions have 4 "
        "classes, numbered from 0. Mend the labels, or the model's output."
    )
    texts = Data({"label": np.array(["a", "b", "c", "d"])}, data.candidate)
    assert refused(one, texts) == (
        "Labels have the type <U1, and a metric of 4 classes takes their numbers, from "
        "0. Turn the labels into numbers before ingestion."
    )
    several = Data({"label": np.ones((4, 3))}, data.candidate)
    assert refused(one, several) == (
        "A row has 3 labels and 4 predictions. Labels are one class number, or one "
        "value for each prediction."
    )
    weighted = config(spec("AUC", aggregate={"micro_average": True}), weighted=True)
    columns = {**data.columns, "weight": np.ones((4, 3)), "case": np.arange(4)}
    assert refused(weighted, Data(columns, data.candidate)) == (
        "A row has 3 example weights for 4 predictions. Give one weight, or one for "
        "each."
    )
    binary = Data({"label": np.ones(4)}, np.ones(4))
    assert refused(config(spec(matrix()), slices=()), binary) == (
        "A row has 1 prediction, and a confusion matrix of classes takes one for each "
        "of several. Use ConfusionMatrixAtThresholds, or look at the model's output."
    )


def test_weights_of_classes_that_labels_do_not_have() -> None:
    statistic = ClassLabels(View(), (0, 7))
    with pytest.raises(DataError) as caught:
        statistic._check(4)
    assert str(caught.value) == (
        "Class 7 is averaged over, and a row has labels of 4 classes, from 0. Mend "
        "class_weights of the MetricsSpec."
    )


def test_a_weighted_average_has_the_key_of_a_macro_average() -> None:
    # As in TFMA, whose thresholds on weighted averages therefore never find a value.
    aggregate = {"weighted_macro_average": True, "class_weights": {0: 1.0}}
    values = ours(
        config(spec("AUC", aggregate=aggregate), slices=()), of_classes(9, 22)
    )
    kind = metric_types.AggregationType(macro_average=True)
    assert {key.aggregation_type for key in values[()]} == {kind}
