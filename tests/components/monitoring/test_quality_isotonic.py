"""Isotonic regression against SciPy, the max-min formula and its own definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from penstock.components.monitoring.quality.isotonic import (
    Array,
    centered_isotonic,
    isotonic,
)

_numbers = st.floats(-5, 5).map(lambda each: round(each, 2))


@st.composite
def _sequences(draw: st.DrawFn) -> tuple[Array, Array]:
    """Some sequences of one length, with weights above 0."""
    length, count = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    each = st.lists(_numbers, min_size=length, max_size=length)
    means = draw(st.lists(each, min_size=count, max_size=count))
    heavy = st.lists(st.integers(1, 5), min_size=length, max_size=length)
    weights = draw(st.lists(heavy, min_size=count, max_size=count))
    return np.array(means), np.array(weights, float)


def _max_min(means: Array, weights: Array) -> Array:
    """Return max over j <= i of min over k >= i of the mean of j..k."""
    count = len(means)

    def mean(first: int, last: int) -> float:
        taken = slice(first, last + 1)
        return float((means[taken] * weights[taken]).sum() / weights[taken].sum())

    return np.array(
        [
            max(min(mean(j, k) for k in range(i, count)) for j in range(i + 1))
            for i in range(count)
        ]
    )


@given(_sequences())
def test_it_is_scipys_and_the_max_min_formula(given: tuple[Array, Array]) -> None:
    means, weights = given
    found = isotonic(means, weights)
    for row, mean, weight in zip(found, means, weights, strict=True):
        expected = isotonic_regression(mean, weights=weight).x
        np.testing.assert_allclose(row, expected, atol=1e-12)
        np.testing.assert_allclose(row, _max_min(mean, weight), atol=1e-12)


def test_long_sequences_are_scipys() -> None:
    random = np.random.default_rng(0)
    means = np.sort(random.normal(size=(3, 5_000)), axis=1) + random.normal(
        size=(3, 5_000)
    )
    weights = random.gamma(1.0, 1.0, (3, 5_000))
    for row, mean, weight in zip(isotonic(means, weights), means, weights, strict=True):
        expected = isotonic_regression(mean, weights=weight).x
        np.testing.assert_allclose(row, expected, atol=1e-10)


def test_places_without_weight_take_the_block_before_them() -> None:
    found = isotonic(np.array([9.0, 1.0, 9.0, 3.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert found.tolist() == [1.0, 1.0, 1.0, 3.0]


def test_nothing_gives_nothing() -> None:
    assert isotonic(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)
    assert isotonic(np.ones(3), np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert centered_isotonic(np.zeros(0), np.zeros(0)).shape == (0,)


@given(_sequences())
def test_the_centered_one_rises_between_the_same_ends(
    given: tuple[Array, Array],
) -> None:
    means, weights = given
    steps, found = isotonic(means, weights), centered_isotonic(means, weights)
    assert (np.diff(found, axis=1) >= -1e-12).all()
    assert (found >= steps.min(axis=1, keepdims=True) - 1e-12).all()
    assert (found <= steps.max(axis=1, keepdims=True) + 1e-12).all()
    # One sequence alone is as it is among others.
    for row, mean, weight in zip(found, means, weights, strict=True):
        np.testing.assert_allclose(row, centered_isotonic(mean, weight), atol=1e-9)


def test_the_centered_one_joins_the_centers_of_blocks() -> None:
    # Blocks: one value of weight 1 at its center 0.5, two of weight 1 at 2.
    found = centered_isotonic(np.array([0.0, 0.8, 0.4]), np.ones(3))
    assert found == pytest.approx([0.0, 0.4, 0.6])
