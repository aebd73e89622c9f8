"""Rows drawn from a known truth, for intervals and verdicts to be held against."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from penstock.components.evaluation.batch import Array
from tests.components.evaluation.parity import Data

ROWS_OF_CLUSTER = 5


def rows(random: Generator, count: int, *, clustered: bool = False) -> Data:
    """Scores of two models, weights, and clusters of rows that are alike.

    Weights are skewed and larger for positives. In clusters labels and scores share
    what is common to a driver, say.
    """
    cluster = np.arange(count) // ROWS_OF_CLUSTER
    shared = random.normal(size=cluster[-1] + 1)[cluster]
    if clustered:
        label = (0.8 * random.normal(size=count) + 0.6 * shared > 0.52).astype(np.int64)
    else:
        label = (random.random(count) < 0.3).astype(np.int64)
    score = random.normal(size=count) + 1.2 * label + 0.7 * shared * clustered
    other = 0.9 * score + 0.44 * random.normal(size=count) + 0.12 * label
    return Data(
        {
            "label": label,
            "weight": random.gamma(2.0, 1.0, count) * (1 + label),
            "cluster": cluster,
        },
        logistic(score - 1.2),
        logistic(other - 1.1),
    )


def alike(random: Generator, count: int, *, slices: int, loss: float = 0.0) -> Data:
    """Two models of AUC 0.80 whose scores have a correlation of 0.9.

    Args:
        random: What to draw from.
        count: How many rows; a fifth are positives.
        slices: How many slices they are in, by chance.
        loss: By how much the candidate's AUC is lower.
    """
    from scipy.stats import norm

    label = (random.random(count) < 0.2).astype(np.int64)
    common = random.normal(size=count)
    apart = [
        np.sqrt(0.9) * common + np.sqrt(0.1) * random.normal(size=count)
        for _ in range(2)
    ]
    candidate, baseline = (
        logistic(noise + np.sqrt(2) * norm.ppf(auc) * label - 1.5)
        for noise, auc in zip(apart, (0.80 - loss, 0.80), strict=True)
    )
    return Data(
        {"label": label, "part": random.integers(0, slices, count)}, candidate, baseline
    )


def logistic(values: Array) -> Array:
    """Return probabilities of log odds."""
    found: Array = 1 / (1 + np.exp(-values))
    return found
