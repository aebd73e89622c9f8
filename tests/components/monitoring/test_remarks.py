import re

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.monitoring.grid import Grid
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.remarks import remarks_on, remarks_on_grid
from penstock.components.monitoring.windows import Window

DAY = Window.day("2026-11-30")


def text(values: object) -> pa.Array:
    return pa.array(values).cast(pa.string())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full(9, 3.5), r"'x' is 3\.5 in the whole reference: any other value is a"),
        (pa.nulls(3, pa.float64()), r"'x' has no value in the reference: any value is"),
        (["a", "a"], r"'x' is 'a' in the whole reference: any other value is unseen"),
        (
            text(np.arange(1_500)),
            r"'x' has 1500 values in the .* The 1000 most frequent",
        ),
        (text(np.arange(90_000)), r"'x' has more than 66536 values in the .* is an id"),
    ],
)
def test_a_reference_that_says_little_gets_a_sentence(
    values: object, expected: str
) -> None:
    (remark,) = remarks_on_grid(Grid.of({"x": values}))
    assert re.search(f"^Column {expected}", remark)


def test_a_good_reference_and_window_get_none() -> None:
    grid = Grid.of({"x": [1.0, 2.0], "c": ["a", "b"]})
    assert remarks_on_grid(grid) == ()
    assert remarks_on(profile_table(grid, {"x": [1.0], "c": ["b"]}, DAY)) == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.inf, -np.inf, 1.0], r"'x' has 2 infinite values of 3\. They are counted"),
        ([np.nan, 1.0], r"'x' has 1 NaN values of 2\. They are counted as such, apart"),
        (["1", "2"], r"'x' has 2 values of type string where the reference has double"),
        ([1e300], r"'x' has values whose squares are beyond the largest float"),
    ],
)
def test_a_window_with_odd_values_gets_a_sentence(
    values: list[object], expected: str
) -> None:
    grid = Grid.of({"x": [1.0, 2.0]})
    (remark,) = remarks_on(profile_table(grid, {"x": values}, DAY))
    assert re.search(f"^Column {expected}", remark)


def test_a_category_column_with_a_million_values_gets_a_sentence() -> None:
    grid = Grid.of({"id": ["a", "b"]})
    rows = {"id": text(np.arange(1_000_000))}
    profile = profile_table(grid, rows, DAY)
    (remark,) = remarks_on(profile)
    assert re.search(
        r"^Column 'id' has more unseen values than the 1000 that are kept by name: "
        r"about \d{6,7} distinct ones \(standard error 2\.3%\)\. 0 of 1000000 "
        r"unseen values have a name, with counts up to 1 too low\.$",
        remark,
    )


def test_mixed_versions_get_a_sentence() -> None:
    grid = Grid.of({"x": [1.0, 2.0]})
    rows = {"x": [1.0, 1.0, 2.0], "v": ["7", "8", "8"]}
    (remark,) = remarks_on(profile_table(grid, rows, DAY, version_column="v"))
    assert remark.startswith(
        "Window '2026-11-30' mixes versions of the model: '7' (1 rows), '8' (2 rows)."
    )
