"""Controllers that are killed anywhere, with rivals: the benchmark, in small."""

from __future__ import annotations

import pytest

from benchmarks import rollout_kills


def test_a_few_kills_break_nothing() -> None:
    came = rollout_kills.run(at_points=12, at_random=12, seed=1, say=False)
    assert came["faults"] == 0, came["first_faults"]


@pytest.mark.long
def test_kills_at_every_kind_of_point_and_at_random_break_nothing() -> None:
    came = rollout_kills.run(at_points=200, at_random=200, seed=2, say=False)
    assert came["faults"] == 0, came["first_faults"]
    assert came["kills_at_points"] >= 150 and came["kills_at_random"] >= 200
    assert came["careless_caught"] >= 4
