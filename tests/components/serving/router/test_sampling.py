from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving.router.sampling import AT_LEAST, Window

draws = st.lists(st.floats(0, 1, exclude_max=True), max_size=60)
rates = st.floats(0, 1)


def sampled(us: list[float], rate: float, at_least: int) -> list[tuple[float, int]]:
    window: Window[int] = Window(rate, at_least)
    kept = []
    for i, u in enumerate(us):
        kept += window.draw(u, i)
        assert len(window._smallest) <= at_least + 1
    return kept + window.end()


@given(draws, rates, st.integers(0, 10))
def test_kept_is_what_the_rule_says(us: list[float], rate: float, k: int) -> None:
    threshold = max(rate, sorted(us)[k]) if len(us) > k else 1.0
    expected = [(threshold, i) for i, u in enumerate(us) if u < threshold]
    assert sorted(sampled(us, rate, k), key=lambda each: each[1]) == expected


@given(st.sets(st.floats(0, 1, exclude_max=True), max_size=60), rates)
def test_at_least_so_many_are_kept(us: set[float], rate: float) -> None:
    assert len(sampled(list(us), rate, 7)) >= min(7, len(us))


def test_a_whole_stratum_waits_for_nothing() -> None:
    window: Window[int] = Window(1.0)
    assert [window.draw(0.99, i) for i in range(3)] == [[(1.0, i)] for i in range(3)]
    assert window.end() == []


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3])
def test_weighted_totals_are_unbiased(rate: float) -> None:
    """P18: |z| < 3 of totals over 4,000 minutes of 5 to 60 requests, at least 5 kept.

    The values lie in the order of their coming and the busy minutes have others, so
    that a wrong probability cannot hide.
    """
    draw = random.Random(7)
    errors, counts = [], []
    for minute in range(4000):
        n = 5 + minute % 56
        values = [10.0 + i + n for i in range(n)]
        kept = sampled([draw.random() for _ in range(n)], rate, 5)
        errors.append(sum(values[i] / p for p, i in kept) - sum(values))
        counts.append(sum(1 / p for p, _ in kept) - n)
    for found in (errors, counts):
        mean = math.fsum(found) / len(found)
        spread = math.fsum((each - mean) ** 2 for each in found) / (len(found) - 1)
        assert abs(mean / math.sqrt(spread / len(found))) < 3


def test_weighting_by_the_share_that_was_kept_would_be_biased_by_comparison() -> None:
    """The harness sees a sampler that keeps the first of every minute."""
    errors = []
    for minute in range(4000):
        n = 5 + minute % 56
        values = [10.0 + i + n for i in range(n)]
        errors.append(sum(values[:5]) * n / 5 - sum(values))
    mean = math.fsum(errors) / len(errors)
    spread = math.fsum((each - mean) ** 2 for each in errors) / (len(errors) - 1)
    assert abs(mean / math.sqrt(spread / len(errors))) > 30


def test_a_hundred_a_minute_are_kept() -> None:
    assert AT_LEAST == 100
    draw = random.Random(1)
    assert len(sampled([draw.random() for _ in range(5000)], 0.001, AT_LEAST)) == 100
