"""Plots of binary predictions, against TFMA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2

from penstock.components.evaluation import MetricConfig, MetricsSpec
from penstock.components.evaluation.batch import Batch
from penstock.components.evaluation.metrics.plots import Calibration, ScoreDistribution
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError, PipelineError
from tests.components.evaluation import parity
from tests.components.evaluation.parity import Data

PLOTS = ("ConfusionMatrixPlot", "CalibrationPlot", "ScoreDistributionPlot")


def _data(seed: int, rows: int = 60) -> Data:
    random = np.random.default_rng(seed)
    return Data(
        {
            "label": random.integers(0, 2, rows),
            "weight": random.random(rows) + 0.5,
            "case": random.integers(0, 3, rows),
        },
        np.round(random.random(rows), 3).astype(np.float32),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_plots_are_those_of_tfma(weighted: bool) -> None:
    mine = parity.assert_parity(parity.config(*PLOTS, weighted=weighted), _data(1))
    assert {key.name for key in mine[()]} == {
        "confusion_matrix_plot",
        "calibration_plot",
        "score_distribution_plot",
    }


def test_two_models_have_plots_and_no_difference_of_plots() -> None:
    one, other = _data(2), _data(3)
    data = Data(one.columns, one.candidate, other.candidate)
    few = [_plot(name, num_thresholds=9) for name in PLOTS[::2]]
    mine = parity.assert_parity(parity.config(*few, "CalibrationPlot"), data)
    assert sorted(key.model_name for key in mine[()]) == [
        *["baseline"] * 3,
        *["candidate"] * 3,
    ]


def _plot(plot: str, **config: Any) -> MetricConfig:
    text = ", ".join(f'"{key}": {value}' for key, value in config.items())
    return MetricConfig(class_name=plot, config=text.replace("'", '"'))


def test_settings_of_plots() -> None:
    parity.assert_parity(
        parity.config(
            _plot("ConfusionMatrixPlot", num_thresholds=7, name="'curves'"),
            _plot("CalibrationPlot", num_buckets=3),
            _plot("CalibrationPlot", left=0.2, name="'from'"),
            _plot("CalibrationPlot", right=0.75, name="'to'", num_buckets=30),
            _plot("ScoreDistributionPlot", num_thresholds=10),
        ),
        _data(4),
    )


@pytest.mark.parametrize(
    "domain",
    [
        "int_domain {min: -2 max: 30}",
        "float_domain {min: -1.5}",
        "int_domain {max: 12}",
        "bool_domain {}",
    ],
)
def test_a_schema_says_the_range_of_labels(domain: str) -> None:
    schema = text_format.Parse(
        f'feature {{name: "label" {domain}}} feature {{name: "weight"}}',
        schema_pb2.Schema(),
    )
    random = np.random.default_rng(5)
    rows = 100
    data = Data(
        {"label": random.integers(0, 2, rows), "case": np.arange(rows) % 2},
        random.normal(5, 10, rows),
    )
    parity.assert_parity(
        parity.config("CalibrationPlot", _plot("CalibrationPlot", left=0, name="'b'")),
        data,
        schema=schema,
    )


@st.composite
def _cases(draw: st.DrawFn) -> list[Data]:
    scores = st.lists(
        st.one_of(
            st.sampled_from([0.0, 1e-7, 0.1, 0.3, 0.5, 0.999, 1.0]),
            st.floats(0, 1, width=32),
        ),
        min_size=1,
        max_size=10,
    )
    found = []
    for _ in range(8):
        score = draw(scores)
        size = len(score)
        one = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=size, max_size=size)
        columns = {"label": np.array(draw(one)), "weight": np.array(draw(one))}
        found.append(Data(columns, np.array(score)))
    return found


@settings(max_examples=4)
@given(_cases(), st.booleans())
def test_extreme_and_equal_scores(cases: Sequence[Data], weighted: bool) -> None:
    parity.assert_parity(
        parity.config(
            *(_plot(name, num_thresholds=20) for name in PLOTS[::2]),
            _plot("CalibrationPlot", num_buckets=20),
            weighted=weighted,
        ),
        Data.joined(cases),
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_plots_of_classes(sparse: bool) -> None:
    random = np.random.default_rng(6)
    rows, classes = 120, 4
    scores = np.round(random.dirichlet(np.ones(classes), rows), 2).astype(np.float32)
    numbers = random.integers(0, classes, rows)
    data = Data(
        {
            "label": numbers if sparse else np.eye(classes)[numbers],
            "weight": random.random(rows),
            "case": np.arange(rows) % 3,
        },
        scores,
    )
    few = [*(_plot(name, num_thresholds=9) for name in PLOTS[::2])]
    alone = MetricsSpec(metrics=[*few, _plot("CalibrationPlot")])
    alone.binarize.class_ids.values.extend([0, 3])
    alone.binarize.k_list.values.append(2)
    micro = MetricsSpec(
        metrics=[
            _plot("CalibrationPlot", name="'micro'"),
            *(_plot(name, name=f"'{name}'", num_thresholds=9) for name in PLOTS[::2]),
        ]
    )
    micro.aggregate.micro_average = True
    micro.aggregate.class_weights.update({0: 1.0, 1: 0.5})
    parity.assert_parity(parity.config(alone, micro, weighted=True), data)


def test_the_highest_scores_are_plotted_alone() -> None:
    random = np.random.default_rng(7)
    rows, classes = 60, 5
    data = Data(
        {"label": random.integers(0, classes, rows), "case": np.zeros(rows)},
        random.random((rows, classes)),
    )
    spec = MetricsSpec(metrics=[MetricConfig(class_name=each) for each in PLOTS[:2]])
    spec.binarize.top_k_list.values.append(2)
    parity.assert_parity(parity.config(spec), data)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    asked = parity.config(_plot("CalibrationPlot", left=2))
    with pytest.raises(PipelineError) as error:
        parity.planned(asked, _data(9))
    assert str(error.value) == (
        "The calibration plot 'calibration_plot' begins at 2 and ends at 1. Give its "
        "config a left and a right, or the label a domain in the schema."
    )


def _batch(label: float, score: float) -> Batch:
    return Batch(
        2,
        {
            ("label", "", ""): np.array([0, label]),
            ("prediction", "", ""): np.array([0, score]),
        },
    )


def test_numbers_that_are_no_shares_are_refused() -> None:
    with pytest.raises(DataError) as error:
        Calibration(View(), 0.0, 1.0).contributions(_batch(3, 0.5))
    assert str(error.value) == (
        "1 of 2 rows have a label that is not within 0 and 1, the first is 3. For "
        "probabilities, name the right label_key; for other numbers, give the plot "
        "its left and right."
    )
    with pytest.raises(DataError) as error:
        ScoreDistribution(View(), 10).contributions(_batch(1, -2.5))
    assert str(error.value) == (
        "1 of 2 rows have a score that is not within 0 and 1, the first is -2.5. A "
        "score distribution is of probabilities; mend the model, or leave the plot out."
    )
