"""Counts, means, errors and cross-entropies equal TFMA's."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import mean_regression_error, metric_types

from penstock.components.evaluation import MetricConfig, MetricsSpec
from penstock.components.evaluation.batch import Array
from penstock.schemas.errors import DataError, PipelineError
from tests.components.evaluation.parity import (
    Data,
    assert_parity,
    config,
    is_equal,
    ours,
    theirs,
)

REGRESSION = [
    name
    for name, kind in metric_types.registered_metrics().items()
    if kind.__module__ == mean_regression_error.__name__
]
EVERY = [
    *REGRESSION,
    "ExampleCount",
    "WeightedExampleCount",
    "MeanLabel",
    "MeanPrediction",
    "Calibration",
    "SquaredPearsonCorrelation",
    "CoefficientOfDiscrimination",
    "RelativeCoefficientOfDiscrimination",
    "ExactMatch",
]


def metric(name: str, called: str = "", **given: Any) -> MetricConfig:
    full = {**given, **({"name": called} if called else {})}
    return MetricConfig(class_name=name, config=json.dumps(full))


def made(rows: int, seed: int, *, scale: float = 1.0, shift: float = 0.0) -> Data:
    """Return rows of two models that predict a number, some of them exactly."""
    random = np.random.default_rng(seed)
    label = np.round(random.gamma(2, scale, rows) + shift, 1)
    candidate, baseline = (
        np.where(
            random.random(rows) < 0.2,
            label,
            np.round(label + random.normal(0, scale / 3, rows), 3),
        )
        for _ in range(2)
    )
    weight = np.round(random.gamma(2, 1, rows), 3)
    return Data({"label": label, "weight": weight}, candidate, baseline)


def alone(data: Data) -> Data:
    return Data(data.columns, data.candidate)


@pytest.mark.parametrize("weighted", [False, True])
def test_every_metric_of_two_models(weighted: bool) -> None:
    parts = [made(300, 0), made(40, 1, scale=30), made(2, 2), made(50, 3, shift=100)]
    assert_parity(config(*EVERY, weighted=weighted), Data.joined(parts))


def test_errors_of_whole_queries() -> None:
    # A slice has all rows of a query, one of whose rows is in it.
    data = made(60, 13)
    random = np.random.default_rng(13)
    columns = {**data.columns, "query": random.integers(0, 9, 60)}
    data = Data({**columns, "case": random.integers(0, 2, 60)}, data.candidate)
    names = [each for each in EVERY if each not in ("ExampleCount", "ExactMatch")]
    metrics = [MetricConfig(class_name=each) for each in names]
    spec = MetricsSpec(metrics=metrics, query_key="query")
    assert_parity(config(spec, weighted=True), data)


def test_every_metric_of_class_labels() -> None:
    random = np.random.default_rng(4)
    label = random.integers(0, 2, 60)
    data = Data({"label": label, "weight": random.random(60)}, random.random(60))
    none = Data({"label": label[:5] * 0, "weight": random.random(5)}, random.random(5))
    every = Data({"label": none.columns["label"] + 1, **none.columns}, none.candidate)
    assert_parity(config(*EVERY, weighted=True), Data.joined([data, none, every]))


def test_rows_without_an_error_do_not_count() -> None:
    # A share of a label of 0, and a logarithm of a negative number.
    label = np.array([0.0, 0, 2, 3, -2, -1])
    prediction = np.array([1.0, 0, 1, -5, 3, 0.5])
    weight = np.array([1.0, 2, 3, 4, 5, 6])
    parts = [
        Data({"label": label, "weight": weight}, prediction),
        Data({"label": label[:1], "weight": weight[:1]}, prediction[:1]),
    ]
    values = assert_parity(config(*REGRESSION, weighted=True), Data.joined(parts))
    share = metric_types.MetricKey(
        "mean_absolute_percentage_error", example_weighted=True
    )
    assert math.isnan(values[("case", 1),][share])


def test_errors_of_32_bit_floats_are_taken_in_64_bits() -> None:
    # TFMA subtracts them, and takes logarithms, in 32 bits.
    data = alone(made(200, 5))
    short = Data(
        {**data.columns, "label": data.columns["label"].astype(np.float32)},
        np.asarray(data.candidate, np.float32),
    )
    assert_parity(config(*REGRESSION, slices=()), short, relative=1e-5)
    exact = ours(config(*REGRESSION, slices=()), short)
    label, prediction = (
        np.asarray(each, np.float64)
        for each in (short.columns["label"], short.candidate)
    )
    found = {key.name: value for key, value in exact[()].items()}
    assert is_equal(
        found["mean_squared_logarithmic_error"],
        np.mean(np.log((label + 1) / (prediction + 1)) ** 2),
        1e-9,
    )
    assert is_equal(
        found["mean_squared_error"], np.mean((label - prediction) ** 2), 1e-12
    )


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 100.0]),
    st.integers(-8, 8).map(float),
    st.floats(-100, 100).map(lambda each: round(each, 3)),
)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(
        st.lists(
            st.tuples(NUMBERS, NUMBERS, st.sampled_from([0.5, 1.0, 3.0])),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=6,
    ),
    weighted=st.booleans(),
)
def test_generated_rows(parts: Any, weighted: bool) -> None:
    data = []
    for rows in parts:
        label, prediction, weight = (np.array(each) for each in zip(*rows, strict=True))
        data.append(Data({"label": label, "weight": weight}, prediction))
    # A correlation of a few rows is made of rounding errors where there is none.
    asked = [each for each in EVERY if each != "SquaredPearsonCorrelation"]
    assert_parity(config(*asked, weighted=weighted), Data.joined(data), absolute=1e-9)


def test_equal_values_have_no_correlation() -> None:
    # TFMA divides what is left after rounding where all values are alike.
    same = np.full(7, 0.1)
    data = Data({"label": same}, np.linspace(0, 1, 7))
    values = ours(config("SquaredPearsonCorrelation", slices=()), data)
    assert [math.isnan(each) for each in values[()].values()] == [True]


def test_a_correlation_of_one_class_is_a_named_difference() -> None:
    # TFMA gives the correlation of all classes, under the key of every one.
    random = np.random.default_rng(6)
    scores = random.random((50, 3))
    label = np.argmax(scores + random.random((50, 3)), axis=1)
    data = Data({"label": label}, scores)
    spec = MetricsSpec(
        metrics=[
            MetricConfig(class_name=name)
            for name in ("SquaredPearsonCorrelation", "CoefficientOfDiscrimination")
        ],
        binarize={"class_ids": {"values": [0, 2]}},
    )
    asked = config(spec, slices=())
    mine, other = ours(asked, data)[()], theirs(asked, data)[()]
    assert set(mine) == set(other)
    assert len(set(other.values())) == 2
    assert len(set(mine.values())) == 4
    for class_id in (0, 2):
        key = metric_types.MetricKey(
            "squared_pearson_correlation",
            sub_key=metric_types.SubKey(class_id=class_id),
            example_weighted=False,
        )
        expected = np.corrcoef(label == class_id, scores[:, class_id])[0, 1] ** 2
        assert is_equal(mine[key], expected, 1e-12)


ENTROPIES = ["BinaryCrossEntropy", "CategoricalCrossEntropy"]


def of_classes(rows: int, seed: int, *, logits: bool = False) -> Data:
    random = np.random.default_rng(seed)
    scores = random.normal(0, 2, (rows, 4))
    label = np.eye(4)[random.integers(0, 4, rows)]
    if not logits:
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Data({"label": label, "weight": random.random(rows)}, scores)


@pytest.mark.parametrize("logits", [False, True])
def test_cross_entropies(logits: bool) -> None:
    asked = [
        metric(
            name, f"{name} {smoothing}", from_logits=logits, label_smoothing=smoothing
        )
        for name in ENTROPIES
        for smoothing in (0.0, 0.1, 1.0)
    ]
    data = Data.joined(
        [of_classes(80, 7, logits=logits), of_classes(1, 8, logits=logits)]
    )
    assert_parity(config(*asked, weighted=True), data)


def test_certain_predictions_have_the_cross_entropies_that_tfma_gives_them() -> None:
    # Probabilities are not clipped: wrong is infinite or NaN in the binary one, and
    # nothing in the categorical one.
    scores = np.array([[1.0, 0], [0, 1], [0.5, 0.5], [0.25, 0.75]])
    label = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    parts = [Data({"label": label}, scores), Data({"label": label[2:]}, scores[2:])]
    assert_parity(config(*ENTROPIES), Data.joined(parts))


def test_logits_that_overflow_are_a_named_difference() -> None:
    # TFMA exponentiates them as they are, and then leaves out what is no number.
    scores = np.array([[800.0, 799.0]])
    data = Data({"label": np.array([[0, 1]])}, scores)
    asked = config(metric("CategoricalCrossEntropy", from_logits=True), slices=())
    (mine,), (other,) = ours(asked, data)[()].values(), theirs(asked, data)[()].values()
    assert is_equal(mine, math.log(1 + math.e), 1e-12)
    assert other == 0.0


def test_cross_entropies_of_class_numbers_are_a_named_difference() -> None:
    # TFMA spreads the number of the class over the predictions as if it were a label.
    numbers = of_classes(30, 9)
    label = np.argmax(numbers.columns["label"], axis=1)
    asked = config(*ENTROPIES, slices=())
    sparse = Data({"label": label}, numbers.candidate)
    mine = ours(asked, sparse)[()]
    assert mine == ours(asked, numbers)[()]
    other = theirs(asked, sparse)[()]
    assert all(not is_equal(mine[key], value, 1e-3) for key, value in other.items())


def test_cross_entropies_take_no_class_weights() -> None:
    spec = MetricsSpec(
        metrics=[MetricConfig(class_name="BinaryCrossEntropy")],
        aggregate={"micro_average": True, "class_weights": {0: 1.0, 1: 2.0}},
    )
    with pytest.raises(PipelineError) as caught:
        ours(config(spec), of_classes(3, 10))
    assert str(caught.value) == (
        "Metric 'binary_crossentropy' is one number for all classes of a row, and its "
        "MetricsSpec has class_weights. Leave them out, or put the metric into a "
        "MetricsSpec without them."
    )


def texts(*values: str) -> Array:
    return np.array(values, dtype=object)


def test_exact_match_of_texts() -> None:
    label = texts("a", "bee", "", "ü")
    prediction = texts("a", "be", "", "ü")
    weight = np.array([1.0, 2.0, 0.5, 3.0])
    data = Data({"label": label, "weight": weight}, prediction)
    values = assert_parity(config("ExactMatch", weighted=True, slices=()), data)
    assert list(values[()].values()) == [pytest.approx(4.5 / 6.5)]
    said = np.array([each.encode() for each in prediction], dtype=object)
    as_bytes = Data(data.columns, said)
    assert ours(config("ExactMatch", weighted=True, slices=()), as_bytes) == values


def test_mean_of_a_column() -> None:
    random = np.random.default_rng(11)
    rows = 40
    columns = {
        "label": random.random(rows),
        "weight": random.random(rows),
        "age": random.integers(0, 90, rows),
    }
    data = Data(columns, random.random(rows), random.random(rows))
    path = ["features", "age"]
    asked = config(
        metric("Mean", feature_key_path=path),
        metric(
            "Mean",
            "weighted",
            feature_key_path=path,
            example_weights_key_path=["features", "weight"],
        ),
        "MeanLabel",
    )
    assert_parity(asked, Data.joined([data, data]))


def test_a_mean_of_what_is_no_number() -> None:
    columns = {"label": np.ones(2), "pair": np.ones((2, 2))}
    asked = config(metric("Mean", feature_key_path=["features", "pair"]), slices=())
    with pytest.raises(DataError) as caught:
        ours(asked, Data(columns, np.ones(2)), parts=1)
    assert str(caught.value) == (
        "Column 'pair' has 2 values of the type float64 in a row, and its mean takes "
        "one number. Name another column, or split this one before ingestion."
    )


def test_several_weights_of_a_row_are_all_counted() -> None:
    scores = np.random.default_rng(12).random((6, 3))
    weight = np.arange(18.0).reshape(6, 3)
    data = Data({"label": (scores > 0.5) * 1, "weight": weight}, scores)
    asked = config("ExampleCount", "MeanLabel", "Calibration", weighted=True, slices=())
    assert_parity(asked, data)


def test_one_weight_where_several_differ() -> None:
    scores = np.full((6, 3), 1 / 3)
    data = Data(
        {"label": np.eye(3)[[0, 1, 2] * 2], "weight": scores + scores.cumsum(1)}, scores
    )
    with pytest.raises(DataError) as caught:
        ours(config("BinaryCrossEntropy", weighted=True, slices=()), data, parts=1)
    assert str(caught.value) == (
        "3 rows of 3 have several example weights that differ, the first has 0.666667 "
        "to 1.33333, and the metric takes one per row. Name an example_weight_key "
        "whose column has one."
    )
