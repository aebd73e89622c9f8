import numpy as np
import pyarrow as pa

from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.profiling import profile_column, profile_table
from penstock.components.monitoring.windows import Window

DAY = Window.day("2026-11-30")


def test_places_are_left_open_and_the_minimum_has_its_own() -> None:
    grid = Grid.of({"x": np.array([1.0, 2.0, 5.0])})["x"]
    profile = profile_column(grid, [0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 6.0, None])
    assert profile.counts.tolist() == [1, 1, 2, 2, 1]
    assert (profile.below, profile.above, profile.zeros) == (1, 1, 1)
    assert (profile.rows, profile.missing, profile.present) == (8, 1, 7)


def test_two_days_are_added_up_and_taken_apart() -> None:
    table = pa.table({"x": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]})
    grid = Grid.of(table)
    one = profile_table(grid, table, DAY, model="taxi", version="7")
    two = profile_table(
        grid, {"x": [2.0], "c": ["new"]}, Window.day("2026-12-01"), model="taxi"
    )
    both = one + two
    assert both["c"].unseen == {"new": 1}
    assert both["x"].counts.tolist() == [0, 1, 2, 1, 0]
    assert both.window.name == "2026-11-30T00:00:00Z/2026-12-02T00:00:00Z"
    assert (both - two)["x"].counts.tolist() == one["x"].counts.tolist()
