"""Pairs of labels and predictions are those that TFMA makes, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import metric_types, metric_util

from penstock.components.evaluation.batch import Array, Batch, Key
from penstock.components.evaluation.statistics import Rows, ScoreHistogram
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError


def batch(label: Array, scores: Array, weight: Array | None = None) -> Batch:
    arrays: dict[Key, Array] = {
        ("label", "", ""): label,
        ("prediction", "", ""): scores,
    }
    if weight is not None:
        arrays["weight", "", ""] = weight
    return Batch(len(label), arrays)


Triples = list[tuple[float, float, float]]


def of_tfma(label: Array, scores: Array, weight: Array, view: View) -> list[Triples]:
    """Return label, prediction and weight of every pair of every row."""
    sub_key = metric_types.SubKey(view.class_id, view.k, view.top_k)
    aggregation = metric_types.AggregationType(micro_average=True)
    rows = []
    for place in range(len(label)):
        inputs = metric_types.StandardMetricInputs(
            label=np.atleast_1d(label[place]),
            prediction=np.atleast_1d(scores[place]),
            example_weight=np.atleast_1d(weight[place]),
        )
        found = metric_util.to_label_prediction_example_weight(
            inputs,
            sub_key=sub_key if any(each is not None for each in sub_key) else None,
            aggregation_type=aggregation if view.is_aggregated else None,
            class_weights=dict(view.class_weights) or None,
            example_weighted=view.is_weighted,
        )
        rows.append([tuple(each.item() for each in triple) for triple in found])
    return rows


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, Array, View]:
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes = draw(st.integers(1, 5))
    rows = draw(st.integers(1, 5))
    # Few different scores, so that there are ties among the highest.
    kind = draw(st.sampled_from([np.float32, np.float64]))
    scores = (random.integers(0, 4, (rows, classes)) / 4).astype(kind)
    shape = draw(st.sampled_from(["numbers", "flat", "hot"]))
    if shape == "hot" or classes == 1:
        label = random.integers(0, 2, (rows, classes))
    else:
        label = random.integers(-1, classes, rows if shape == "flat" else (rows, 1))
    several = draw(st.booleans()) and classes > 1
    view: dict[str, Any] = {"is_weighted": draw(st.booleans())}
    choice = draw(st.sampled_from(["", "class_id", "k", "top_k", "micro", "micro top"]))
    if choice == "class_id":
        view["class_id"] = draw(st.integers(0, classes - 1))
    elif choice in ("k", "top_k"):
        view[choice] = draw(st.integers(1, classes))
    elif choice:
        view["is_aggregated"] = True
        if choice == "micro top":
            view["top_k"] = draw(st.integers(1, classes))
        elif draw(st.booleans()):
            view["class_weights"] = ((0, 0.5), (2, 3.0))
    if choice in ("class_id", "k", "micro top"):
        several = False  # neither takes the weights of the values that are chosen
    weight = random.integers(0, 9, (rows, classes) if several else rows) / 8
    return label, scores, weight, View(**view)


@settings(max_examples=400)
@given(case=cases())
def test_pairs_are_those_of_tfma(case: tuple[Array, Array, Array, View]) -> None:
    label, scores, weight, view = case
    pairs = view.pairs(batch(label, scores, weight))
    triples = np.stack([pairs.labels, pairs.predictions, pairs.full_weights], axis=2)
    mine = [[tuple(each) for each in row] for row in triples.tolist()]
    expected = of_tfma(label, scores, weight, view)
    if view.is_aggregated and view.top_k:
        # The order of the highest is that of the TFMA at hand, and does not count.
        mine, expected = ([sorted(row) for row in each] for each in (mine, expected))
    assert mine == expected


def test_a_batch_without_rows() -> None:
    for label, scores in (
        (np.zeros(0), np.zeros(0)),
        (np.zeros(0, np.int64), np.zeros((0, 3))),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ):
        empty = batch(label, scores, np.zeros(0))
        for view in (View(), View(is_weighted=True), View(top_k=1), View(class_id=0)):
            values = view.pairs(empty).labels.shape[1]
            assert view.pairs(empty).full_weights.shape == (0, values)
        assert ScoreHistogram(View()).contributions(empty).cells is not None


def test_what_is_weighted_without_weights_counts_one() -> None:
    # As in TFMA: example_weights { weighted: true } without an example_weight_key.
    rows = batch(np.ones(3), np.ones(3))
    assert View(is_weighted=True).pairs(rows).weights is None
    assert View(is_weighted=True).row_weights(rows).tolist() == [1, 1, 1]
    assert Rows(View(is_weighted=True)).contributions(rows).values == (None,)


def test_labels_may_be_true_and_false() -> None:
    rows = batch(np.array([True, False]), np.array([0.5, 0.25]))
    assert View().pairs(rows).labels.tolist() == [[1.0], [0.0]]
    classes = batch(np.array([True, False]), np.eye(2))
    assert View().pairs(classes).labels.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_arrays_of_more_dimensions_are_flattened() -> None:
    rows = batch(np.ones((2, 3, 4)), np.zeros((2, 3, 4)))
    assert View().pairs(rows).labels.shape == (2, 12)


def two_outputs() -> Batch:
    return Batch(
        1,
        {
            ("label", "candidate", "click"): np.ones(1),
            ("prediction", "candidate", "click"): np.ones(1),
            ("prediction", "candidate", "buy"): np.zeros(1),
            ("weight", "candidate", "click"): np.full(1, 2.0),
        },
    )


def test_an_output_has_its_own_weights() -> None:
    view = View("candidate", "click", is_weighted=True)
    assert view.row_weights(two_outputs()).tolist() == [2.0]


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (
            View("candidate", "clik"),
            "There is no label for the output 'clik' (there is 'click'). Did you mean "
            "'click'? Mend output_names of the MetricsSpec, or the label keys of the "
            "ModelSpec.",
        ),
        (
            View("candidate", "buy"),
            "There is no label for the output 'buy' (there is 'click'). Mend "
            "output_names of the MetricsSpec, or the label keys of the ModelSpec.",
        ),
    ],
)
def test_outputs_that_are_not_there(view: View, text: str) -> None:
    with pytest.raises(DataError) as caught:
        view.pairs(two_outputs())
    assert str(caught.value) == text


def test_rows_of_several_classes_have_as_many_labels() -> None:
    rows = batch(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(DataError) as caught:
        View().pairs(rows)
    assert str(caught.value) == (
        "A row has 2 labels and 3 predictions. Labels are one class number, or one "
        "value for each prediction."
    )
