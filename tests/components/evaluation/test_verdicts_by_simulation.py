"""How often verdicts are wrong, on estimates whose truth is known.

Each slice of each data set has an estimated change with a 95 % interval, normal or with
an estimated standard error and Student's t. The point gate judges the same estimates.
The rates are printed (`pytest -s`).
"""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from penstock.components.evaluation.blessing import (
    ChangeBound,
    Interval,
    Measured,
    MetricName,
    SliceMetrics,
    Threshold,
    Word,
    judge,
)

AUC = MetricName("auc")
MARGIN = ChangeBound(absolute=-0.02)
Numbers = npt.NDArray[np.float64]


@functools.cache
def half_width(degrees: float) -> float:
    """Half of a 95 % interval, in standard errors."""
    return float(stats.t.ppf(0.975, degrees))


def drawn(
    true: Numbers, errors: Numbers, random: np.random.Generator, degrees: float
) -> list[SliceMetrics]:
    """Estimates of true changes by slice, correlated as overlapping slices are."""
    common = random.standard_normal()
    noise = math.sqrt(0.3) * common + math.sqrt(0.7) * random.standard_normal(len(true))
    values = true + errors * noise
    if math.isfinite(degrees):
        errors = errors * np.sqrt(random.chisquare(degrees, len(true)) / degrees)
    halves = half_width(degrees) * errors
    return [
        SliceMetrics(
            (("hour", hour),),
            {
                AUC: Measured(
                    0.8 + value,
                    0.8,
                    value,
                    difference_interval=Interval(
                        value - half, value + half, 0.95, degrees
                    ),
                )
            },
        )
        for hour, (value, half) in enumerate(
            zip(values.tolist(), halves.tolist(), strict=True)
        )
    ]


def shares(
    true: Numbers,
    errors: Numbers,
    *,
    confidence: float | None = 0.95,
    degrees: float = math.inf,
    data_sets: int = 1_000,
) -> dict[Word, float]:
    """How often each word is given."""
    threshold = Threshold(AUC, MARGIN, confidence=confidence)
    words = Counter(
        judge(
            [threshold], drawn(true, errors, np.random.default_rng(seed), degrees)
        ).word
        for seed in range(data_sets)
    )
    return {word: words[word] / data_sets for word in Word}


def at_most(rate: float, data_sets: int) -> float:
    """The rate that is exceeded by chance once in a thousand times."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / data_sets)


def told(subject: str, evidence: dict[Word, float], points: dict[Word, float]) -> None:
    for gate, found in (("evidence", evidence), ("points", points)):
        rates = ", ".join(f"{word.value} {share:.1%}" for word, share in found.items())
        print(f"{subject}, by {gate}: {rates}")


ERRORS = np.geomspace(0.002, 0.03, 50)


@pytest.mark.parametrize("degrees", [5.0, math.inf])
def test_fifty_slices_at_the_margin_are_seldom_blocked(degrees: float) -> None:
    margin = np.full(50, -0.02)
    evidence = shares(margin, ERRORS, degrees=degrees)
    points = shares(margin, ERRORS, confidence=None, data_sets=200)
    told(f"at the margin, t with {degrees} degrees", evidence, points)
    assert evidence[Word.NOT_BLESSED] <= at_most(0.05, 1_000)
    assert evidence[Word.BLESSED] <= at_most(0.025, 1_000)
    assert points[Word.NOT_BLESSED] >= 0.95


def test_a_lone_slice_is_as_its_interval_says() -> None:
    evidence = shares(np.array([-0.02]), np.array([0.01]), data_sets=4_000)
    points = shares(np.array([-0.02]), np.array([0.01]), confidence=None)
    told("a lone slice at the margin", evidence, points)
    for word in (Word.BLESSED, Word.NOT_BLESSED):
        assert 0.025 / 1.4 <= evidence[word] <= at_most(0.025, 4_000)
        assert points[word] == pytest.approx(0.5, abs=0.06)


def test_the_same_model_again_is_seldom_blocked_and_often_blessed() -> None:
    # All rows and 50 slices of an A/A pair, of 20,000 rows.
    same, errors = np.zeros(51), np.r_[0.0017, np.full(50, 0.012)]
    evidence = shares(same, errors)
    points = shares(same, errors, confidence=None, data_sets=200)
    told("the same model again", evidence, points)
    assert evidence[Word.NOT_BLESSED] <= at_most(0.05, 1_000)
    assert points[Word.NOT_BLESSED] >= 0.5
    overall = shares(same[:1], errors[:1])
    assert overall[Word.BLESSED] >= 0.8


def test_a_real_loss_is_blocked() -> None:
    lost, errors = np.full(51, -0.04), np.r_[0.0017, np.full(50, 0.012)]
    evidence = shares(lost, errors)
    points = shares(lost, errors, confidence=None, data_sets=200)
    told("a loss of 0.04 everywhere", evidence, points)
    assert evidence[Word.NOT_BLESSED] >= 0.9
    in_one = np.zeros(51)
    in_one[0], in_one[7] = -0.001, -0.075
    evidence = shares(in_one, errors)
    points = shares(in_one, errors, confidence=None, data_sets=200)
    told("a loss of 0.075 in one slice", evidence, points)
    assert evidence[Word.NOT_BLESSED] >= 0.9


def test_a_loss_in_one_slice_is_not_blessed_however_many_slices_are_good() -> None:
    one_bad = np.r_[-0.02, np.full(49, 0.05)]
    evidence = shares(one_bad, np.full(50, 0.005), data_sets=1_500)
    points = shares(one_bad, np.full(50, 0.005), confidence=None)
    told("one slice of 50 at the margin", evidence, points)
    assert evidence[Word.BLESSED] <= at_most(0.025, 1_500)
    assert points[Word.BLESSED] >= 0.4


@pytest.mark.long
@pytest.mark.parametrize("degrees", [2.0, 5.0, 30.0, math.inf])
@pytest.mark.parametrize("slices", [2, 10, 50, 500])
def test_the_rates_hold_for_few_and_many_slices(slices: int, degrees: float) -> None:
    data_sets = 20_000 // int(math.sqrt(slices))
    margin, errors = np.full(slices, -0.02), np.geomspace(0.001, 0.05, slices)
    evidence = shares(margin, errors, degrees=degrees, data_sets=data_sets)
    print(f"{slices} slices at the margin, t with {degrees} degrees: {evidence}")
    assert evidence[Word.NOT_BLESSED] <= at_most(0.05, data_sets)
    assert evidence[Word.BLESSED] <= at_most(0.025, data_sets)
