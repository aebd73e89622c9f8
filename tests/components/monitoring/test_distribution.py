"""Distributions side by side: every value is in one bin, and bins can be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.monitoring.distribution import distribution
from penstock.components.monitoring.document import DistributionOf
from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.windows import Window

DAY = Window.day("2026-11-30")


def shown(reference: Any, current: Any) -> DistributionOf | None:
    columns = [
        each if isinstance(each, pa.Array) else pa.array(each)
        for each in (reference, current)
    ]
    grid = Grid.of({"x": columns[0]})
    sides = [profile_table(grid, {"x": each}, DAY)["x"] for each in columns]
    return distribution(*sides)


def test_numbers_are_shown_in_bins_of_one_width() -> None:
    random = np.random.default_rng(0)
    found = shown(random.normal(size=50_000), random.normal(0.5, 1, 10_000))
    assert found is not None
    assert len(found["bins"]) == 20
    assert found["bins"][0].startswith("up to -2.5")
    assert found["bins"][-1].startswith("above 2.5")
    assert sum(found["reference"]) == pytest.approx(1, abs=1e-5)
    assert sum(found["current"]) == pytest.approx(1, abs=1e-5)
    lows = [float(each.split(" to ")[0]) for each in found["bins"][1:-1]]
    assert np.diff(lows) == pytest.approx(np.diff(lows)[0], rel=0.02)
    assert np.argmax(found["current"]) > np.argmax(found["reference"])


def test_few_numbers_have_a_bin_each() -> None:
    found = shown([0, 0, 1, 2], [-1, 1, 2, 9])
    assert found == {
        "bins": ["below 0", "0", "1", "2", "above 2"],
        "reference": [0, 0.5, 0.25, 0.25, 0],
        "current": [0.25, 0, 0.25, 0.25, 0.25],
    }


def test_what_is_no_number_is_shown_apart() -> None:
    found = shown([0.0, 1.0], [float("nan"), 1.0, float("inf"), 0.0])
    assert found is not None
    assert found["bins"][-1] == "no finite number"
    assert found["current"][-1] == 0.5


def test_categories_are_named_and_what_is_new_is_told() -> None:
    reference = ["cash"] * 6 + ["card"] * 4
    found = shown(reference, ["card", "card", "prepaid", "cash"])
    assert found == {
        "bins": ["card", "cash", "not in the reference (prepaid)"],
        "reference": [0.4, 0.6, 0],
        "current": [0.5, 0.25, 0.25],
    }


def test_many_categories_are_put_together_but_for_the_frequent_ones() -> None:
    reference = [f"c{number:02}" for number in range(30)] * 2
    found = shown(reference, ["c29"] * 10)
    assert found is not None
    assert found["bins"][0] == "c29"
    assert found["bins"][-1] == "all others"
    assert len(found["bins"]) == 13
    assert sum(found["reference"]) == pytest.approx(1, abs=1e-4)


def test_without_values_nothing_is_shown() -> None:
    assert shown([1.0, 2.0], [None, None]) is None


@given(
    st.lists(st.floats(-1e12, 1e12) | st.none(), min_size=1, max_size=60),
    st.lists(st.floats(allow_nan=True) | st.none(), min_size=1, max_size=60),
)
def test_every_value_is_in_one_bin(
    reference: list[float | None], current: list[float | None]
) -> None:
    found = shown(pa.array(reference, pa.float64()), pa.array(current, pa.float64()))
    if found is not None:
        sides = found["reference"], found["current"]
        assert [len(side) for side in sides] == [len(found["bins"])] * 2
        assert [sum(side) for side in sides] == pytest.approx([1, 1], abs=1e-4)
