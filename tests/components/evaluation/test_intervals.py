"""Intervals: as wide as a bootstrap of rows gives them, whatever way they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock.components.evaluation import MetricConfig
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.intervals import Asked
from tests.components.evaluation import simulated
from tests.components.evaluation.parity import Data, config, found

METRICS = ("AUC", "BinaryAccuracy", "Precision", "Calibration", "MeanPrediction")
ROWS = 3_000


def auc(label: Array, score: Array, weight: Array) -> Array:
    """The area under the ROC curve of rows sorted by score, for many weightings."""
    positive, negative = weight * label, weight * (1 - label)
    below = np.cumsum(negative, axis=-1)
    wins = (positive * below).sum(axis=-1)
    total: Array = wins / positive.sum(axis=-1) / negative.sum(axis=-1)
    return total


def share(
    mask: Callable[[Array, Array], Array], of: Callable[[Array, Array], Array]
) -> Any:
    """A quotient of two sums of weights."""

    def value(label: Array, score: Array, weight: Array) -> Array:
        found: Array = (weight * mask(label, score)).sum(-1) / (
            weight * of(label, score)
        ).sum(-1)
        return found

    return value


FORMULAS = {
    "auc": auc,
    "binary_accuracy": share(
        lambda label, score: (score > 0.5) == label, lambda label, score: score == score
    ),
    "precision": share(
        lambda label, score: (score > 0.5) & (label == 1),
        lambda label, score: score > 0.5,
    ),
    "calibration": share(lambda label, score: score, lambda label, score: label),
    "mean_prediction": share(
        lambda label, score: score, lambda label, score: score == score
    ),
}


def widths(
    data: Data, *, weighted: bool, cluster: str
) -> dict[tuple[str, bool], float]:
    """Widths of the intervals of a bootstrap of rows or clusters, 2,000 replicates.

    By the metric's name, and whether it is of the candidate minus the baseline.
    """
    random = np.random.default_rng(11)
    units = data.columns[cluster] if cluster else np.arange(data.rows)
    drawn = random.poisson(1.0, (2_000, units.max() + 1))[:, units].astype(float)
    if weighted:
        drawn *= data.columns["weight"]
    values: dict[str, list[Array]] = {}
    for scores in (data.candidate, data.baseline):
        assert isinstance(scores, np.ndarray)
        order = np.argsort(scores)
        label = data.columns["label"][order]
        for name, formula in FORMULAS.items():
            replicates = formula(label, scores[order], drawn[:, order])
            values.setdefault(name, []).append(replicates)
    limits = [0.025, 0.975]
    return {
        (name, is_difference): float(np.diff(np.quantile(replicates, limits))[0])
        for name, (candidate, baseline) in values.items()
        for is_difference, replicates in (
            (False, candidate),
            (True, candidate - baseline),
        )
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cluster", ["", "cluster"])
def test_widths_are_those_of_a_bootstrap_of_rows(weighted: bool, cluster: str) -> None:
    data = simulated.rows(np.random.default_rng(5), ROWS, clustered=bool(cluster))
    (overall,) = found(
        config(*METRICS, weighted=weighted, slices=()),
        data,
        intervals=Asked(has_clusters=bool(cluster)),
        cluster=cluster,
    )
    expected = widths(data, weighted=weighted, cluster=cluster)
    ours = {
        (key.name, key.is_diff): spread.upper - spread.lower
        for key, spread in overall.spreads.items()
        if key.model_name == "candidate"
    }
    assert ours.keys() == expected.keys()
    for key, width in expected.items():
        assert ours[key] == pytest.approx(width, rel=0.10), key


def test_clusters_that_are_ignored_make_intervals_too_narrow() -> None:
    data = simulated.rows(np.random.default_rng(5), ROWS, clustered=True)
    asked = config("MeanPrediction", slices=())
    rows, clusters = (
        next(iter(found(asked, data, intervals=each, cluster=name)[0].spreads.values()))
        for each, name in ((Asked(), ""), (Asked(has_clusters=True), "cluster"))
    )
    assert clusters.upper - clusters.lower > 1.3 * (rows.upper - rows.lower)


def test_a_sample_of_the_rows_gives_nearly_the_same_intervals() -> None:
    data = simulated.rows(np.random.default_rng(6), 20_000)
    asked = config(*METRICS, weighted=True, slices=())
    whole, part = (
        found(asked, data, intervals=Asked(), sampled=sampled)[0].spreads
        for sampled in (20_000, 4_000)
    )
    for key, spread in whole.items():
        # A variance that is known from 4,000 skewed squares is known within some 6 %.
        width = part[key].upper - part[key].lower
        assert width == pytest.approx(spread.upper - spread.lower, rel=0.12), key


def test_a_sample_of_clusters_gives_nearly_the_same_intervals() -> None:
    data = simulated.rows(np.random.default_rng(6), 20_000, clustered=True)
    asked = config(*METRICS, slices=())
    whole, part = (
        found(
            asked,
            data,
            intervals=Asked(has_clusters=True),
            cluster="cluster",
            sampled=sampled,
        )[0].spreads
        for sampled in (5_000, 1_500)
    )
    for key, spread in whole.items():
        width = part[key].upper - part[key].lower
        assert width == pytest.approx(spread.upper - spread.lower, rel=0.12), key


def test_the_seed_decides_and_neither_portions_nor_other_slices_do() -> None:
    data = simulated.rows(np.random.default_rng(7), 2_000)
    data = dataclasses.replace(
        data, columns={**data.columns, "case": np.arange(2_000) % 3}
    )
    asked = config(*METRICS)
    first = found(asked, data, intervals=Asked(seed=3), parts=1)
    again = found(asked, data, intervals=Asked(seed=3), parts=1)
    other = found(asked, data, intervals=Asked(seed=4), parts=1)
    alone = found(config(*METRICS, slices=()), data, intervals=Asked(seed=3), parts=1)
    key = next(key for key in first[0].spreads if key.name == "auc")
    assert [each.spreads for each in first] == [each.spreads for each in again]
    # Other slices change the order in which weights are added, in the last digits.
    assert first[0].spreads[key].lower == pytest.approx(
        alone[0].spreads[key].lower, rel=1e-12
    )
    assert first[0].spreads[key].lower != other[0].spreads[key].lower


def test_metrics_without_derivatives_are_drawn_unit_by_unit() -> None:
    data = simulated.rows(np.random.default_rng(8), 2_000)
    at = MetricConfig(class_name="RecallAtPrecision", config='"precision": 0.6')
    (overall,) = found(config(at, slices=()), data, intervals=Asked())
    by_key = {key: each for key, each in overall.spreads.items()}
    methods = {
        (key.model_name, key.is_diff): each.method for key, each in by_key.items()
    }
    assert methods == {
        ("candidate", False): "Poisson bootstrap",
        ("baseline", False): "Poisson bootstrap",
        ("candidate", True): "Poisson bootstrap of units",
    }
    for key, spread in by_key.items():
        assert spread.lower <= overall.values[key] <= spread.upper


def test_a_difference_of_slices_has_the_variance_of_both() -> None:
    from penstock.components.evaluation import CrossSlicingSpec, SlicingSpec

    data = simulated.rows(np.random.default_rng(9), 4_000)
    half = np.arange(4_000) % 2
    data = dataclasses.replace(data, columns={**data.columns, "half": half})
    spec = CrossSlicingSpec(
        baseline_spec=SlicingSpec(feature_values={"half": "0"}),
        slicing_specs=[SlicingSpec(feature_values={"half": "1"})],
    )
    asked = config("MeanPrediction", slices=(), cross_slicing_specs=[spec])
    measured = found(asked, data, intervals=Asked())
    by_slice = {
        (each.slice, each.baseline_slice): next(
            spread.upper - spread.lower
            for key, spread in each.spreads.items()
            if key.model_name == "candidate" and not key.is_diff
        )
        for each in measured
    }
    zero, one = (("half", 0),), (("half", 1),)
    both = np.hypot(by_slice[zero, None], by_slice[one, None])
    assert by_slice[one, zero] == pytest.approx(both, rel=0.01)


def test_a_slice_of_one_row_has_no_linearized_interval() -> None:
    data = simulated.rows(np.random.default_rng(10), 10)
    case = np.array([0] * 9 + [1])
    data = dataclasses.replace(data, columns={**data.columns, "case": case})
    *_, alone = found(config("MeanPrediction"), data, intervals=Asked())
    assert alone.rows == 1
    assert alone.spreads == {}


def test_an_area_of_one_class_is_no_evidence() -> None:
    data = simulated.rows(np.random.default_rng(12), 400)
    case = np.where(data.columns["label"] == 1, 0, np.arange(400) % 2)
    data = dataclasses.replace(data, columns={**data.columns, "case": case})
    _, _, negatives = found(config("AUC"), data, intervals=Asked())
    assert negatives.slice == (("case", 1),)
    # TFMA gives the area 0, which is no measurement.
    assert set(negatives.values.values()) == {0.0}
    assert negatives.spreads == {}
