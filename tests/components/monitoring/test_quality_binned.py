"""Metrics of binned scores against their definitions, pair by pair and row by row."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penstock.components.monitoring.quality.binned import (
    METRICS,
    Array,
    Scores,
    positives_of,
)

EDGES = np.round(np.arange(0.1, 1.0, 0.1), 1)
PLACE = 5  # bins from 0.5 on

_rows = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(1, 4)),
    min_size=2,
    max_size=60,
).filter(lambda rows: len({label for _, label, _ in rows}) == 2)


def _arrays(rows: list[tuple[int, int, int]]) -> tuple[Array, Array, Array]:
    """Rows whose scores are all in the middle of a bin, so that bins lose nothing."""
    scores, labels, weights = (
        np.array(each, float) for each in zip(*rows, strict=True)
    )
    return scores / 10 + 0.05, labels, weights


def _auc(scores: Array, labels: Array, weights: Array) -> float:
    """Of all pairs of a positive and a negative row."""
    ones, zeros = labels == 1, labels == 0
    difference = scores[ones][:, None] - scores[zeros][None, :]
    weight = weights[ones][:, None] * weights[zeros][None, :]
    difference = np.round(difference, 9)
    won = weight * ((difference > 0) + 0.5 * (difference == 0))
    return float(won.sum() / weight.sum())


def _average_precision(scores: Array, labels: Array, weights: Array) -> float:
    total, found, before = (weights * labels).sum(), 0.0, 0.0
    for bound in sorted(set(np.round(scores, 9)), reverse=True):
        taken = scores >= bound - 1e-9
        recall = (weights * labels)[taken].sum() / total
        found += (
            (recall - before) * (weights * labels)[taken].sum() / weights[taken].sum()
        )
        before = recall
    return float(found)


def _share(of: Callable[[Array, Array], Array], among: Callable[..., Array]) -> object:
    def metric(scores: Array, labels: Array, weights: Array) -> float:
        said = scores >= 0.5
        below = (weights * among(said, labels == 1)).sum()
        above = (weights * among(said, labels == 1) * of(said, labels == 1)).sum()
        return float(above / below) if below else math.nan

    return metric


def _f1(scores: Array, labels: Array, weights: Array) -> float:
    said = scores >= 0.5
    true = (weights * (said & (labels == 1))).sum()
    return float(2 * true / ((weights * said).sum() + (weights * labels).sum()))


ORACLES = {
    "auc": _auc,
    "average_precision": _average_precision,
    "f1": _f1,
    "accuracy": _share(lambda said, is_one: said == is_one, lambda s, o: s | ~s),
    "precision": _share(lambda said, is_one: is_one, lambda s, o: s),
    "recall": _share(lambda said, is_one: said, lambda s, o: o),
    "specificity": _share(lambda said, is_one: ~said, lambda s, o: ~o),
    "brier": lambda s, y, w: float(np.average((s - y) ** 2, weights=w)),
    "log_loss": lambda s, y, w: float(
        -np.average(y * np.log(s) + (1 - y) * np.log(1 - s), weights=w)
    ),
}


def test_every_metric_has_an_oracle() -> None:
    assert sorted(ORACLES) == sorted(METRICS)


@pytest.mark.parametrize("name", sorted(METRICS))
@given(rows=_rows)
def test_it_is_its_definition(name: str, rows: list[tuple[int, int, int]]) -> None:
    scores, labels, weights = _arrays(rows)
    binned = Scores.of(scores, EDGES, weights)
    positives = positives_of(scores, labels, EDGES, weights)
    found = float(METRICS[name](binned, positives, PLACE))
    expected = ORACLES[name](scores, labels, weights)  # type: ignore[operator]
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_many_sets_of_labels_are_measured_at_once() -> None:
    random = np.random.default_rng(1)
    scores = random.random(500)
    edges = np.linspace(0, 1, 41)[1:-1]
    binned = Scores.of(scores, edges)
    labels = (random.random((7, 500)) < scores).astype(int)
    stacked = np.stack([positives_of(scores, each, edges) for each in labels])
    for name, metric in METRICS.items():
        together = metric(binned, stacked, 20)
        assert together.shape == (7,)
        for number in range(7):
            alone = metric(binned, stacked[number], 20)
            assert float(alone) == pytest.approx(float(together[number])), name


def test_fine_bins_lose_nearly_nothing() -> None:
    random = np.random.default_rng(2)
    labels = (random.random(4_000) < 0.3).astype(int)
    scores = 1 / (1 + np.exp(-(random.normal(size=4_000) + 1.2 * labels - 1)))
    edges = np.quantile(scores, np.linspace(0, 1, 501)[1:-1])
    found = METRICS["auc"](
        Scores.of(scores, edges), positives_of(scores, labels, edges), 0
    )
    won = stats.mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    assert float(found) == pytest.approx(
        won / (labels.sum() * (1 - labels).sum()), abs=2e-4
    )


def test_what_is_not_defined_is_nan() -> None:
    binned = Scores.of(np.array([0.2, 0.7]), EDGES)
    none = np.zeros(10)
    for name in ("auc", "recall", "average_precision"):
        assert math.isnan(float(METRICS[name](binned, none, PLACE)))
