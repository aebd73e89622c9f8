"""Plots of predictions of many classes, against TFMA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.evaluation import MetricConfig, MetricsSpec
from penstock.components.evaluation.batch import Batch
from penstock.components.evaluation.metrics.class_plots import LabelMatrix
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError
from tests.components.evaluation import parity
from tests.components.evaluation.parity import Data

CLASSES = "MultiClassConfusionMatrixPlot"
LABELS = "MultiLabelConfusionMatrixPlot"


def _plot(plot: str, text: str = "") -> MetricConfig:
    return MetricConfig(class_name=plot, config=text)


def _data(seed: int, form: str, rows: int = 80, classes: int = 4) -> Data:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, classes, rows)
    labels = {
        "sparse": numbers,
        "one-hot": np.eye(classes)[numbers],
        "many": (random.random((rows, classes)) < 0.4).astype(np.int64),
    }[form]
    return Data(
        {
            "label": labels,
            "weight": random.random(rows) + 0.5,
            "case": random.integers(0, 3, rows),
        },
        np.round(random.random((rows, classes)), 1),
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", ["sparse", "one-hot", "many"])
def test_plots_are_those_of_tfma(form: str, weighted: bool) -> None:
    mine = parity.assert_parity(
        parity.config(
            CLASSES,
            LABELS,
            _plot(LABELS, '"thresholds": [0.7, 0.1], "name": "labels_at"'),
            _plot(LABELS, '"num_thresholds": 6, "name": "labels_six"'),
            weighted=weighted,
        ),
        _data(1, form),
    )
    assert len(mine[()]) == 4


@pytest.mark.parametrize("text", ['"thresholds": [0.3, 0.9]', '"num_thresholds": 5'])
def test_thresholds_of_classes(text: str) -> None:
    parity.assert_parity(parity.config(_plot(CLASSES, text)), _data(6, "sparse"))


def test_plots_of_other_thresholds_are_the_first_ones_in_tfma() -> None:
    """TFMA's private matrices of all plots have one name, and the first are kept."""
    data = _data(7, "sparse")
    asked = parity.config(CLASSES, _plot(CLASSES, '"thresholds": [0.8], "name": "at"'))
    mine, other = (
        {
            key.name: [each.threshold for each in plot.matrices]
            for key, plot in each.items()
        }
        for each in (parity.ours(asked, data)[()], parity.theirs(asked, data)[()])
    )
    assert other == {"multi_class_confusion_matrix_plot": [0.0], "at": [0.0]}
    assert mine == {"multi_class_confusion_matrix_plot": [0.0], "at": [0.8]}


@st.composite
def _cases(draw: st.DrawFn) -> list[Data]:
    """Classes that no row has or is taken for, rows without labels, weights of 0."""
    found = []
    for _ in range(8):
        size = draw(st.integers(1, 6))
        number = st.sampled_from([0.0, 0.1, 0.5, 0.5, 1.0])
        one_row = st.lists(number, min_size=3, max_size=3)
        has = st.lists(st.sampled_from([0, 0, 1]), min_size=3, max_size=3)
        rows = st.lists(one_row, min_size=size, max_size=size)
        labels = draw(st.lists(has, min_size=size, max_size=size))
        weights = draw(st.lists(number, min_size=size, max_size=size))
        columns = {"label": np.array(labels), "weight": np.array(weights)}
        found.append(Data(columns, np.array(draw(rows))))
    return found


@settings(max_examples=5)
@given(_cases(), st.booleans())
def test_missing_classes(cases: Sequence[Data], weighted: bool) -> None:
    asked = parity.config(
        CLASSES,
        LABELS,
        _plot(LABELS, '"num_thresholds": 4, "name": "four"'),
        weighted=weighted,
    )
    parity.assert_parity(asked, Data.joined(cases))


def test_a_label_that_is_no_class_has_no_entry() -> None:
    data = _data(2, "sparse")
    data.columns["label"][::3] = -1
    parity.assert_parity(parity.config(LABELS), data)


def test_two_models_and_aggregated_classes() -> None:
    one, other = _data(3, "sparse"), _data(4, "sparse")
    data = Data(one.columns, one.candidate, other.candidate)
    micro = MetricsSpec(metrics=[_plot(CLASSES), _plot(LABELS)])
    micro.aggregate.micro_average = True
    mine = parity.assert_parity(parity.config(micro), data)
    assert {key.model_name for key in mine[()]} == {"candidate", "baseline"}
    assert not any(key.is_diff or key.aggregation_type for key in mine[()])


def test_what_contradicts_itself_is_left_to_tfma() -> None:
    text = '"thresholds": [0.5], "num_thresholds": 3'
    for name in (CLASSES, LABELS):
        asked = parity.config(_plot(name, text))
        assert parity.planned(asked, _data(5, "sparse")).left_names == (name,)


@pytest.mark.parametrize(
    ("classes", "thresholds", "takes"), [(1, 1, "1,048,576"), (1500, 999_999, "1,482")]
)
def test_too_few_or_too_many_classes_are_refused(
    classes: int, thresholds: int, takes: str
) -> None:
    arrays: dict[Any, Any] = {
        ("label", "", ""): np.zeros((2, classes)),
        ("prediction", "", ""): np.zeros((2, classes)),
    }
    matrix = LabelMatrix(View(), tuple(np.linspace(0, 1, thresholds).tolist()))
    with pytest.raises(DataError) as error:
        matrix.contributions(Batch(2, arrays))
    assert str(error.value) == (
        f"A row has {classes:,} predictions, and a confusion matrix of labels with "
        f"{thresholds:,} thresholds takes 2 to {takes}. Look at the model's output, or "
        "ask for fewer thresholds."
    )
