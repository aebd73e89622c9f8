"""Metrics and losses of Keras equal TFMA's, which runs them in 32 bits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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

# Keras sums, and takes logarithms, of 32-bit floats: their spacing around 1 is 1.2e-7.
RELATIVE, ABSOLUTE = 2e-6, 3e-7
LOSSES = "tf_keras.src.losses"  # the module that TFMA knows losses by

OF_NUMBERS = ["RootMeanSquaredError", "LogCoshError", "Accuracy"]
OF_CLASSES = [
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "KLDivergence",
    "Poisson",
    "BinaryCrossentropy",
    "Hinge",
    "SquaredHinge",
    "RootMeanSquaredError",
]
SPARSE = [
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
]


def metric(name: str, called: str = "", module: str = "", **given: Any) -> MetricConfig:
    full = {**given, **({"name": called} if called else {})}
    return MetricConfig(class_name=name, module=module, config=json.dumps(full))


def of_numbers(rows: int, seed: int) -> Data:
    random = np.random.default_rng(seed)
    label = random.integers(0, 5, rows).astype(np.float32)
    candidate, baseline = (
        np.where(random.random(rows) < 0.3, label, label + random.normal(0, 1, rows))
        for _ in range(2)
    )
    return Data(
        {"label": label, "weight": random.gamma(2, 1, rows).astype(np.float32)},
        candidate.astype(np.float32),
        baseline.astype(np.float32),
    )


def of_classes(
    rows: int,
    seed: int,
    *,
    classes: int = 6,
    logits: bool = False,
    sparse: bool = False,
) -> Data:
    """Return rows of classes, with ties and scores of 0 and 1."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, classes, rows)
    scores = np.round(random.normal(0, 2, (rows, classes)), 1)
    scores[np.arange(rows), numbers] += 2
    if not logits:
        scores = np.exp(scores)
        scores[::7] = np.eye(classes)[numbers[::7] // 2] + 1e-9
        scores /= scores.sum(axis=1, keepdims=True)
    return Data(
        {
            "label": numbers if sparse else np.eye(classes, dtype=np.float32)[numbers],
            "weight": random.gamma(2, 1, rows).astype(np.float32),
        },
        scores.astype(np.float32),
    )


def parity(asked: list[Any], data: Data, *, weighted: bool = True) -> None:
    assert_parity(
        config(*asked, weighted=weighted), data, relative=RELATIVE, absolute=ABSOLUTE
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_numbers_to_32_bits(weighted: bool) -> None:
    data = Data.joined([of_numbers(300, 0), of_numbers(1, 1), of_numbers(20, 2)])
    parity(OF_NUMBERS, data, weighted=weighted)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_classes_to_32_bits(weighted: bool) -> None:
    asked: list[Any] = [*OF_CLASSES]
    asked += [metric("TopKCategoricalAccuracy", f"top {k}", k=k) for k in (1, 2, 6)]
    asked += [metric("BinaryCrossentropy", "smooth", label_smoothing=0.2)]
    asked += [metric("CategoricalCrossentropy", "even", label_smoothing=0.5)]
    data = Data.joined([of_classes(200, 3), of_classes(1, 4), of_classes(9, 5)])
    parity(asked, data, weighted=weighted)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_of_class_numbers_to_32_bits(weighted: bool) -> None:
    asked: list[Any] = [*SPARSE, metric("SparseTopKCategoricalAccuracy")]
    asked += [metric("SparseTopKCategoricalAccuracy", "two", k=2)]
    asked += [metric("SparseCategoricalCrossentropy", "without", ignore_class=2)]
    parts = [of_classes(200, 6, sparse=True), of_classes(1, 7, sparse=True)]
    parity(asked, Data.joined(parts), weighted=weighted)


def test_cross_entropies_of_logits_to_32_bits() -> None:
    names = ["BinaryCrossentropy", "CategoricalCrossentropy"]
    parts = [of_classes(200, 8, logits=True), of_classes(3, 9, logits=True)]
    asked = [metric(name, from_logits=True) for name in names]
    parity(asked, Data.joined(parts))
    parts = [of_classes(50, 8, logits=True, sparse=True)]
    asked = [metric("SparseCategoricalCrossentropy", from_logits=True)]
    parity(asked, Data.joined(parts))


def test_binary_metrics_to_32_bits() -> None:
    # Labels of 0 and 1, and of -1 and 1; scores of 0 and 1.
    scores = np.array([0, 1, 0.5, 1e-8, 1 - 1e-6, 0.3], np.float32)
    weight = np.arange(1.0, 7.0)
    asked = ["BinaryCrossentropy", "Hinge", "SquaredHinge", "Poisson", "Accuracy"]
    for label in (np.array([0, 1, 1, 0, 0, 1]), np.array([-1, 1, 1, -1, -1, 1])):
        parity(asked, Data.joined([Data({"label": label, "weight": weight}, scores)]))


@pytest.mark.filterwarnings("ignore:In loss categorical_crossentropy:SyntaxWarning")
def test_classes_and_averages_to_32_bits() -> None:
    metrics = [MetricConfig(class_name=name) for name in OF_CLASSES]
    data = Data.joined([of_classes(100, 10), of_classes(4, 11)])
    specs = [
        MetricsSpec(
            metrics=metrics,
            binarize={"class_ids": {"values": [0, 3]}, "k_list": {"values": [1, 2]}},
        ),
        MetricsSpec(
            metrics=metrics,
            aggregate={"micro_average": True, "class_weights": {0: 1.0, 2: 0.5}},
        ),
        MetricsSpec(
            metrics=metrics,
            aggregate={"micro_average": True, "top_k_list": {"values": [2]}},
        ),
    ]
    for spec in specs:
        parity([spec], data)


def test_losses_to_32_bits() -> None:
    names = [*OF_CLASSES, "LogCosh", "Huber"]
    asked = [
        metric(name, module=LOSSES)
        for name in names
        if name not in ("RootMeanSquaredError", "CategoricalAccuracy")
    ]
    asked += [metric("Huber", "near", LOSSES, delta=0.1)]
    asked += [metric("Poisson", "each", LOSSES, reduction="none")]
    # A loss heeds weights only if it does not reduce: see below.
    parity(asked, Data.joined([of_classes(100, 12)]), weighted=False)
    parity([asked[-1]], Data.joined([of_classes(100, 12)]), weighted=True)
    data = of_classes(30, 13)
    label = data.columns["label"].astype(np.float64)
    wide = Data({**data.columns, "label": label}, np.asarray(data.candidate, float))
    assert_parity(config(*asked), Data.joined([wide]), relative=1e-6, absolute=1e-7)


def test_weighted_losses_are_a_named_difference() -> None:
    # TFMA weighs the mean of a batch of rows instead of its rows.
    data = of_classes(50, 14)
    asked = config(metric("Poisson", module=LOSSES), weighted=True, slices=())
    (mine,), (other,) = ours(asked, data)[()].values(), theirs(asked, data)[()].values()
    plain = config(metric("Poisson", module=LOSSES), slices=())
    (unweighted,) = ours(plain, data)[()].values()
    assert is_equal(other, unweighted, RELATIVE)
    metric_asked = config("Poisson", weighted=True, slices=())
    (as_metric,) = theirs(metric_asked, data)[()].values()
    assert is_equal(mine, as_metric, RELATIVE)


def cross_entropy(y: Array, p: Array) -> Array:
    top = float(np.float32(1) - np.float32(1e-7))
    epsilon = float(np.float32(1e-7))
    p = np.clip(p, epsilon, top)
    each = y * np.log(p + epsilon) + (1 - y) * np.log(1 - p + epsilon)
    return np.asarray(-each.mean(axis=1))


FORMULAS: dict[str, Callable[[Array, Array], Array]] = {
    "BinaryCrossentropy": cross_entropy,
    "CategoricalHinge": lambda y, p: np.maximum(
        ((1 - y) * p).max(axis=1) - (y * p).sum(axis=1) + 1, 0
    ),
    "CosineSimilarity": lambda y, p: (
        (y * p).sum(axis=1) / np.linalg.norm(y, axis=1) / np.linalg.norm(p, axis=1)
    ),
    "LogCoshError": lambda y, p: np.log(np.cosh(p - y)).mean(axis=1),
    "CategoricalAccuracy": lambda y, p: 1.0 * (y.argmax(axis=1) == p.argmax(axis=1)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_in_64_bits(name: str) -> None:
    data = of_classes(500, 15)
    label, scores, weight = (
        np.asarray(each, np.float64)
        for each in (data.columns["label"], data.candidate, data.columns["weight"])
    )
    (value,) = ours(config(name, weighted=True, slices=()), data)[()].values()
    expected = np.average(FORMULAS[name](label, scores), weights=weight)
    assert is_equal(value, expected, 1e-12)


def test_rows_without_weight_have_a_mean_of_zero() -> None:
    data = of_classes(4, 16)
    nothing = Data({**data.columns, "weight": np.zeros(4)}, data.candidate)
    parity(["Poisson", "CategoricalAccuracy"], Data.joined([data, nothing]))


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.lists(
                    st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0, 0.1]),
                    min_size=3,
                    max_size=3,
                ).filter(any),
            ),
            min_size=1,
            max_size=6,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_generated_ties_to_32_bits(parts: Any) -> None:
    data = []
    for rows in parts:
        numbers, scores = zip(*rows, strict=True)
        label = np.eye(3)[list(numbers)]
        data.append(Data({"label": label}, np.array(scores, np.float32)))
    asked = [*OF_CLASSES, metric("TopKCategoricalAccuracy", k=2)]
    parity(asked, Data.joined(data), weighted=False)


def test_hinges_of_other_labels_are_a_named_difference() -> None:
    # Keras takes labels of 0 for -1 only if all of a batch are 0 or 1.
    data = Data({"label": np.array([0.0, 1, 0.5])}, np.array([0.5, 0.5, 0.5]))
    asked = config("Hinge", slices=())
    (mine,), (other,) = ours(asked, data)[()].values(), theirs(asked, data)[()].values()
    assert is_equal(mine, (1.5 + 0.5 + 0.75) / 3, 1e-12)
    assert is_equal(other, (1.0 + 0.5 + 0.75) / 3, RELATIVE)


def test_what_is_left_to_tfma() -> None:
    from tests.components.evaluation.parity import planned

    data = of_classes(2, 17)
    for left in (
        metric("CosineSimilarity", axis=0),
        metric("Poisson", module=LOSSES, reduction="sum"),
        metric("MeanIoU", num_classes=3),
        metric("Poisson", dtype="float64"),
        MetricsSpec(
            metrics=[MetricConfig(class_name="Poisson")],
            binarize={"top_k_list": {"values": [2]}},
        ),
        MetricsSpec(
            metrics=[MetricConfig(class_name="SparseCategoricalAccuracy")],
            binarize={"class_ids": {"values": [2]}},
        ),
    ):
        assert planned(config(left), data).left_names


def refused(data: Data, name: str) -> str:
    with pytest.raises(DataError) as caught:
        ours(config(name, slices=()), data, parts=1)
    return str(caught.value)


def test_labels_that_do_not_fit() -> None:
    sparse = of_classes(4, 18, sparse=True)
    wrong = Data({"label": np.array([0, 7, 2, -1])}, sparse.candidate)
    assert refused(wrong, "SparseCategoricalCrossentropy") == (
        "1 labels of 2 rows are no class, the first is 7: the predictions have 6 "
        "classes, numbered from 0. Mend the labels, or the model's output."
    )
    none = Data({"label": np.array([-1, 3, 2, -1])}, sparse.candidate)
    assert refused(none, "SparseCategoricalCrossentropy") == (
        "1 labels of 2 rows are -1, and the cross-entropy of a row needs its class. "
        "Leave such rows out before ingestion, or set ignore_class of the metric."
    )
    assert refused(sparse, "Accuracy") == (
        "A row has 1 labels and 6 predictions, and 'Accuracy' takes 6 labels. Did you "
        "mean 'SparseCategoricalAccuracy', or another label_key?"
    )
    assert refused(of_classes(4, 18), "SparseCategoricalAccuracy") == (
        "A row has 6 labels and 6 predictions, and 'SparseCategoricalAccuracy' takes 1 "
        "label. Did you mean 'CategoricalAccuracy', or another label_key?"
    )
    # A label that no class has is wrong, and no more, for an accuracy.
    (value,) = ours(config("SparseCategoricalAccuracy", slices=()), none)[()].values()
    assert math.isfinite(value)


def test_averages_take_no_class_numbers() -> None:
    spec = MetricsSpec(
        metrics=[MetricConfig(class_name="SparseCategoricalAccuracy")],
        aggregate={"micro_average": True},
    )
    with pytest.raises(PipelineError) as caught:
        ours(config(spec), of_classes(2, 19))
    assert str(caught.value) == (
        "Metric 'sparse_categorical_accuracy' takes the number of the class, and its "
        "MetricsSpec aggregates classes, where each is right or wrong. Use "
        "'CategoricalAccuracy', or a MetricsSpec of its own."
    )
