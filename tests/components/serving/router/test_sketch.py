from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving.router import sketch

latencies = st.floats(sketch.LEAST_SECONDS, sketch.MOST_SECONDS)
many = st.lists(latencies, min_size=1, max_size=200)


def counted(values: list[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        sketch.add(counts, value)
    return counts


@given(latencies)
def test_a_latency_lies_within_the_bounds_of_its_bucket(seconds: float) -> None:
    bucket = sketch.bucket_of(seconds)
    slack = 1 + 1e-12
    assert sketch.upper_bound(bucket - 1) <= seconds * slack
    assert seconds <= sketch.upper_bound(bucket) * slack


def test_neighbouring_bounds_are_at_most_2_percent_apart() -> None:
    bounds = [sketch.upper_bound(i) for i in range(sketch.LAST_BUCKET + 1)]
    ratios = np.array(bounds[1:]) / np.array(bounds[:-1])
    assert ratios.max() <= 1.02 * (1 + 1e-12)
    assert bounds[0] == 1e-6
    assert bounds[-2] < 1e3 <= bounds[-1]


@given(many, st.floats(0, 1))
def test_a_quantile_is_numpys_but_for_1_percent(values: list[float], q: float) -> None:
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    found = sketch.quantile(counted(values), q)
    assert found == pytest.approx(exact, rel=sketch.RELATIVE_ERROR * (1 + 1e-9))
    assert sketch.RELATIVE_ERROR < 0.01
    bounds = sketch.quantile_bounds(counted(values), q)
    assert bounds is not None
    assert bounds[0] * (1 - 1e-12) <= exact <= bounds[1] * (1 + 1e-12)


@given(many, many)
def test_merged_sketches_are_the_sketch_of_all(
    one: list[float], other: list[float]
) -> None:
    both = sketch.merged(counted(one), counted(other))
    assert both == counted(one + other)


@given(many, latencies)
def test_what_is_above_a_latency_is_counted_to_the_bucket(
    values: list[float], border: float
) -> None:
    found = sketch.count_above(counted(values), border)
    assert found <= sum(value > border for value in values)
    wide = border * sketch.RATIO * (1 + 1e-12)
    assert found >= sum(value > wide for value in values)


def test_counts_go_into_json_and_back() -> None:
    counts = counted([1e-4, 0.02, 0.02, 5.0])
    back = json.loads(json.dumps(sorted(counts.items())))
    assert {bucket: n for bucket, n in back} == counts


def test_the_ends_take_what_is_beyond_them() -> None:
    assert sketch.bucket_of(0.0) == sketch.bucket_of(1e-9) == 0
    assert sketch.bucket_of(1e9) == sketch.LAST_BUCKET


def test_nothing_counted_has_no_quantile() -> None:
    assert sketch.quantile({}, 0.5) is None
    assert sketch.quantile_bounds({}, 0.5) is None


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_no_latency_is_negative_or_no_number(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"^{wrong} seconds is no latency$"):
        sketch.bucket_of(wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_no_share_is_outside_0_to_1(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"^{wrong} is no share$"):
        sketch.quantile({1: 1}, wrong)
