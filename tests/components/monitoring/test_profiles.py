import functools
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring import counting
from penstock.components.monitoring.counting import ExactSum
from penstock.components.monitoring.distinct import STANDARD_ERROR
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.places import buckets_of
from penstock.components.monitoring.profile import ColumnProfile, Profile, merged
from penstock.components.monitoring.profiling import (
    profile_batches,
    profile_column,
    profile_table,
    profile_windows,
)
from penstock.components.monitoring.windows import DAY, HOUR, Window
from penstock.schemas.errors import DataError

MONDAY = Window.day("2026-11-30")

numbers = st.one_of(
    st.none(),
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, math.nan, math.inf, -math.inf]),
)
texts = st.one_of(st.none(), st.sampled_from("abcdefgh"), st.text(max_size=4))


def directly(edges: Any, values: list[float | None]) -> list[int]:
    """Count without a trick: one value and one place at a time."""
    finite = [each for each in values if each is not None and math.isfinite(each)]
    if not len(edges):
        return [0, len(finite)]
    counts = [0] * (len(edges) + 2)
    for value in finite:
        if value < edges[0]:
            counts[0] += 1
        elif value > edges[-1]:
            counts[-1] += 1
        else:
            counts[1 + next(i for i, edge in enumerate(edges) if value <= edge)] += 1
    return counts


@settings(max_examples=60)
@given(
    reference=st.lists(numbers, min_size=1, max_size=60),
    days=st.lists(st.lists(numbers, max_size=40), min_size=2, max_size=7),
)
def test_seven_days_of_numbers_are_their_sum_and_what_is_counted_directly(
    reference: list[float | None], days: list[list[float | None]]
) -> None:
    grid = Grid.of({"x": pa.array(reference, pa.float64())})["x"]
    parts = [profile_column(grid, pa.array(day, pa.float64())) for day in days]
    total = functools.reduce(ColumnProfile.__add__, parts)
    values = [value for day in days for value in day]
    whole = profile_column(grid, pa.array(values, pa.float64()))

    assert whole.counts.tolist() == directly(grid.edges, values)
    present = [each for each in values if each is not None]
    assert whole.missing == values.count(None)
    assert whole.zeros == sum(each == 0 for each in present)
    assert whole.nan == sum(map(math.isnan, present))
    assert whole.pos_inf == sum(each == math.inf for each in present)
    assert whole.neg_inf == sum(each == -math.inf for each in present)
    finite = [each for each in present if math.isfinite(each)]
    assert whole.finite == len(finite) == whole.counts.sum()
    if finite:
        assert (whole.minimum, whole.maximum) == (min(finite), max(finite))

    # Everything is the same either way, to the last bit but for the sums.
    sums = {"sum": whole.sum, "sum_squares": whole.sum_squares}
    assert replaced(total, **sums) == replaced(whole, **sums)
    apart = [each - grid.center for each in finite]
    if max(map(abs, apart), default=0.0) < 1e150:
        size = math.fsum(map(abs, apart))
        assert total.sum == pytest.approx(whole.sum, rel=1e-12, abs=1e-12 * size)
        assert total.sum_squares == pytest.approx(whole.sum_squares, rel=1e-12)
        assert whole.sum == pytest.approx(math.fsum(apart), rel=1e-12, abs=1e-12 * size)

    for number, part in enumerate(parts):
        rest = functools.reduce(
            ColumnProfile.__add__,
            [ColumnProfile.empty(grid), *parts[:number], *parts[number + 1 :]],
        )
        assert ((total - part).counts == rest.counts).all()
        assert (total - part).nan == rest.nan


@settings(max_examples=60)
@given(
    reference=st.lists(texts, min_size=1, max_size=60),
    days=st.lists(st.lists(texts, max_size=40), min_size=2, max_size=7),
)
def test_seven_days_of_names_are_their_sum_and_what_is_counted_directly(
    reference: list[str | None], days: list[list[str | None]]
) -> None:
    grid = Grid.of({"c": pa.array(reference, pa.string())})["c"]
    parts = [profile_column(grid, pa.array(day, pa.string())) for day in days]
    total = functools.reduce(ColumnProfile.__add__, parts)
    values = [value for day in days for value in day]
    whole = profile_column(grid, pa.array(values, pa.string()))
    assert total == whole

    direct = Counter(each for each in values if each is not None)
    counted = dict(zip(grid.categories, whole.counts.tolist(), strict=False))
    assert {name: count for name, count in counted.items() if count} == {
        name: count for name, count in direct.items() if name in grid.index
    }
    assert whole.unseen == {
        name: count for name, count in direct.items() if name not in grid.index
    }
    assert (whole.counts[-1], whole.unseen_other, whole.unseen_error) == (0, 0, 0)
    assert (total - parts[0]).unseen == functools.reduce(
        ColumnProfile.__add__, parts[1:]
    ).unseen


def replaced(profile: ColumnProfile, **changes: Any) -> ColumnProfile:
    import dataclasses

    return dataclasses.replace(profile, **changes)


@settings(max_examples=200)
@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=200,
        unique=True,
    ),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50),
)
def test_buckets_find_what_searching_finds(
    edges: list[float], values: list[float]
) -> None:
    rising = np.unique(np.array(edges) + 0.0)
    buckets = buckets_of(rising)
    if buckets is None:
        return
    with np.errstate(over="ignore"):
        sides = [np.nextafter(rising, -np.inf), np.nextafter(rising, np.inf)]
    near = np.concatenate([np.array(values, np.float64), rising, *sides])
    near = near[np.isfinite(near)]
    assert (buckets.edges_below(near) == np.searchsorted(rising, near)).all()


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("value", lambda rng: rng.normal(size=50_000)),
        ("value", lambda rng: rng.integers(0, 30, 50_000).astype(np.float64)),
        ("digits", lambda rng: rng.lognormal(0, 3, size=50_000)),
        ("digits", lambda rng: np.append(rng.lognormal(size=50_000), 1e9)),
        ("value", lambda rng: np.append(rng.normal(size=50_000), [1e300, -1e300])),
        ("digits", lambda rng: -rng.pareto(1, size=50_000)),
    ],
)
def test_common_shapes_are_counted_by_buckets(name: str, draw: Any) -> None:
    rng = np.random.default_rng(4)
    grid = Grid.of({"x": draw(rng)})["x"]
    assert grid.search.buckets is not None
    assert grid.search.buckets.by == name
    values = draw(rng)
    found = profile_column(grid, values).counts
    places = np.searchsorted(grid.edges, values) + (values >= grid.edges[0])
    assert (found == np.bincount(places, minlength=grid.places)).all()


def test_a_shape_that_no_buckets_suit_is_sorted() -> None:
    edges = np.concatenate([1e300 + np.arange(500) * 1e290, np.arange(500.0) * 1e-9])
    edges = np.concatenate([-edges, edges])
    grid = Grid.of({"x": edges})["x"]
    assert grid.search.buckets is None
    assert profile_column(grid, edges).counts.tolist() == directly(
        grid.edges, edges.tolist()
    )


@given(st.permutations([1e308, -1e308, 1.0, 1e-300, 3.0, 1e16, -1e16]))
def test_a_sum_does_not_depend_on_its_order(values: list[float]) -> None:
    total = ExactSum()
    for value in values:
        total.add(value)
    assert total.value() == math.fsum(values)


def test_a_sum_beyond_the_largest_float_is_infinite() -> None:
    total = ExactSum()
    for _ in range(3):
        total.add(1e308)
    assert total.value() == math.inf
    total.add(-math.inf)
    assert math.isnan(total.value())


def test_places_are_left_open_and_the_minimum_has_its_own() -> None:
    grid = Grid.of({"x": np.array([1.0, 2.0, 5.0])})["x"]
    profile = profile_column(grid, [0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 6.0, None])
    assert profile.counts.tolist() == [1, 1, 2, 2, 1]
    assert (profile.below, profile.above, profile.zeros) == (1, 1, 1)
    assert (profile.rows, profile.missing, profile.present) == (8, 1, 7)


def test_moments_are_those_of_numpy_however_far_from_zero() -> None:
    rng = np.random.default_rng(5)
    values = 1e12 + rng.normal(size=50_000)
    grid = Grid.of({"x": 1e12 + rng.normal(size=5_000)})["x"]
    profile = profile_column(grid, values)
    apart = values - 1e12  # exact, and so are their moments nearly
    assert profile.mean == pytest.approx(1e12 + apart.mean(), rel=1e-15)
    assert profile.variance == pytest.approx(apart.var(ddof=1), rel=1e-12)
    none = ColumnProfile.empty(grid)
    assert math.isnan(none.mean)
    assert math.isnan(none.variance)


def test_distinct_values_are_estimated_within_four_standard_errors() -> None:
    rng = np.random.default_rng(6)
    grid = Grid.of({"x": rng.normal(size=100)})["x"]
    for many in (0, 1, 10, 1_000, 30_000, 300_000):
        found = profile_column(grid, np.repeat(rng.normal(size=many), 2)).distinct
        assert found.estimate() == pytest.approx(many, rel=4 * STANDARD_ERROR, abs=0.5)


def test_the_distinct_estimate_of_merged_days_is_that_of_all_rows() -> None:
    values = np.random.default_rng(7).integers(0, 5_000, 40_000)
    grid = Grid.of({"x": values})["x"]
    parts = [profile_column(grid, each) for each in np.split(values, 8)]
    total = functools.reduce(ColumnProfile.__add__, parts)
    assert total.distinct == profile_column(grid, values).distinct
    # Another type of the same numbers is the same to it.
    floats = profile_column(grid, values.astype(np.float32))
    assert floats.distinct == total.distinct


def test_every_value_of_a_list_counts() -> None:
    grid = Grid.of({"x": pa.array([[1.0, 2.0], [3.0]])})["x"]
    values = pa.array([[1.0, 9.0, None], None, [], [2.0]])
    profile = profile_column(grid, values)
    assert (profile.rows, profile.missing, profile.values) == (4, 1, 3)
    assert profile.counts.tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, None], pa.int8()),
        pa.array([1, 2, None], pa.uint64()),
        pa.array([1, 2, None], pa.float32()),
        pa.array([1, 2, None]).dictionary_encode(),
        pa.chunked_array([[1.0], [2.0, None]]),
        pa.chunked_array([], pa.float64()),
    ],
)
def test_numbers_of_any_type_are_counted(values: Any) -> None:
    grid = Grid.of({"x": [1.0, 2.0]})["x"]
    profile = profile_column(grid, values)
    assert profile.counts.tolist() == ([0, 1, 1, 0] if len(values) else [0] * 4)


def test_numbers_of_fewer_digits_keep_the_place_they_were_trained_in() -> None:
    prices = np.random.default_rng(10).integers(0, 9_000, 5_000) / 100
    for trained, logged in [(np.float64, np.float32), (np.float32, np.float64)]:
        grid = Grid.of({"x": prices.astype(trained)})["x"]
        same = profile_column(grid, prices.astype(trained))
        assert (profile_column(grid, prices.astype(logged)).counts == same.counts).all()
    lists = Grid.of({"x": pa.array([[1.1], [1.3]], pa.list_(pa.float32()))})["x"]
    assert profile_column(lists, [[1.1], [1.3]]).counts.tolist() == [0, 1, 1, 0]
    huge = Grid.of({"x": np.array([1.0, 2.0], np.float32)})["x"]
    assert profile_column(huge, [1e300]).pos_inf == 1


def test_names_of_any_type_are_counted() -> None:
    grid = Grid.of({"c": ["a", "a", "1", "true"]})["c"]
    for values, place in [
        (pa.array(["a", None], pa.large_string()), 0),
        (pa.array([b"a", None]), 0),
        (pa.array(["b", "a", None]).dictionary_encode()[1:], 0),
        (pa.chunked_array([pa.array(["a"]).dictionary_encode(), ["a"]][:1]), 0),
        (pa.array([1, None]), 1),
        (pa.array([1.0, None]), 1),
        (pa.array([True, None]), 2),
    ]:
        assert np.flatnonzero(profile_column(grid, values).counts).tolist() == [place]


def test_text_where_the_reference_has_numbers_is_counted_as_such() -> None:
    grid = Grid.of({"x": [1.0, 2.0]})["x"]
    profile = profile_column(grid, ["1.0", None, "x"])
    assert (profile.mistyped, profile.values, profile.missing) == (2, 2, 1)
    assert (profile.type, profile.finite) == ("string", 0)
    both = profile + profile_column(grid, [1.0])
    assert (both.type, both.mistyped, both.finite) == ("string", 2, 1)


def test_values_beyond_a_thousand_categories_are_other_and_not_unseen() -> None:
    names = [f"value {each:04}" for each in range(1_500)]
    grid = Grid.of({"c": names})["c"]
    profile = profile_column(grid, [*names, "new"])
    assert profile.counts.tolist() == [1] * 1_000 + [500]
    assert profile.unseen == {"new": 1}


def test_unseen_names_are_exact_up_to_a_thousand_in_any_order() -> None:
    grid = Grid.of({"c": ["a"]})["c"]
    names = [f"new {each:04}" for each in range(1_000)]
    rows = names * 3 + names[:5] * 10
    parts = [profile_column(grid, rows[start::7]) for start in range(7)]
    total = functools.reduce(ColumnProfile.__add__, parts)
    assert total.unseen == Counter(rows)
    assert (total.unseen_error, total.unseen_other) == (0, 0)
    assert functools.reduce(ColumnProfile.__add__, parts[::-1]) == total


def test_a_million_unseen_values_keep_within_their_stated_error() -> None:
    rng = np.random.default_rng(8)
    grid = Grid.of({"c": ["a"]})["c"]
    common = np.repeat(np.arange(20), 20_000)
    rows = rng.permutation(np.concatenate([common, np.arange(100, 1_000_100)]))
    batches = [pa.array(each).cast(pa.string()) for each in np.array_split(rows, 20)]
    profile = functools.reduce(
        ColumnProfile.__add__, [profile_column(grid, each) for each in batches]
    )
    assert profile.unseen_values == 1_400_000
    assert len(profile.unseen) <= 1_000
    assert 0 < profile.unseen_error <= 1_400_000 / 400
    for name in map(str, range(20)):
        assert 0 <= 20_000 - profile.unseen[name] <= profile.unseen_error
    assert all(profile.unseen[name] <= 1 for name in profile.unseen if len(name) > 2)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(9).normal(size=1_000)
    values[::50] = np.nan
    grid = Grid.of({"x": values})["x"]
    whole = profile_column(grid, values)
    monkeypatch.setattr(counting, "BLOCK", 7)
    blocks = profile_column(grid, values)
    assert blocks.sum == pytest.approx(whole.sum, rel=1e-12)
    sums = {"sum": whole.sum, "sum_squares": whole.sum_squares}
    assert replaced(blocks, **sums) == whole


def table(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
            "c": pa.array(rng.choice(list("abcdef"), rows)),
            "time": MONDAY.start + np.sort(rng.random(rows)) * 7 * DAY,
            "version": rng.choice(["7", "8"], rows),
        }
    )


def test_batches_and_threads_give_the_profile_of_their_table() -> None:
    grid = Grid.of(table(5_000, 0), columns=["x", "c"])
    rows = table(600_000, 1)
    whole = profile_table(grid, rows, MONDAY, model="taxi", version="7", threads=1)
    assert whole.rows == 600_000
    assert profile_table(grid, rows, MONDAY, model="taxi", version="7") == whole
    batches = profile_batches(
        grid, rows.to_batches(max_chunksize=32_768), MONDAY, model="taxi", version="7"
    )
    assert batches == whole  # blocks of the same rows: even the sums


def test_windows_are_told_by_the_times_of_rows_in_any_order() -> None:
    grid = Grid.of(table(5_000, 0), columns=["x", "c"])
    rows = table(20_000, 2)
    days = profile_windows(
        grid, rows.to_batches(max_chunksize=999), "time", version_column="version"
    )
    assert [each.window.name for each in days][:2] == ["2026-11-30", "2026-12-01"]
    assert len(days) == 7
    shuffled = rows.take(pa.array(np.random.default_rng(3).permutation(20_000)))
    again = profile_windows(grid, [shuffled], "time", version_column="version")
    for one, other in zip(days, again, strict=True):
        assert one.rows == other.rows
        assert (one["x"].counts == other["x"].counts).all()
        assert one.versions == other.versions
        assert one["c"] == other["c"]
    total = merged(reversed(days))
    assert total.window == Window(MONDAY.start, MONDAY.start + 7 * DAY)
    assert total == merged(days)
    assert total.rows == 20_000
    assert len(profile_windows(grid, [rows], "time", seconds=HOUR)) == 7 * 24
    stamped = rows.set_column(
        2, "time", pa.array((rows["time"].to_numpy() * 1e6).astype("datetime64[us]"))
    )
    assert profile_windows(grid, [stamped], "time")[6].rows == days[6].rows


def test_a_part_can_be_taken_out_of_a_profile() -> None:
    grid = Grid.of(table(5_000, 0), columns=["x", "c"])
    days = profile_windows(grid, [table(9_000, 3)], "time", version_column="version")
    left = merged(days) - days[2]
    rest = merged([*days[:2], *days[3:]])
    assert (left.rows, left.versions) == (rest.rows, rest.versions)
    assert (left["x"].counts == rest["x"].counts).all()
    assert left["x"].sum == pytest.approx(rest["x"].sum)
    with pytest.raises(DataError, match="with 9000 rows is no part of the one with"):
        days[0]["x"] - merged(days)["x"]


def test_the_version_is_one_or_a_sentence() -> None:
    grid = Grid.of({"x": [1.0]})
    rows = {"x": [1.0, 2.0, 3.0], "version": ["8", "7", "8"]}
    one = profile_table(grid, rows, MONDAY, model="taxi", version="7")
    assert one.version == "7"
    two = profile_table(grid, rows, MONDAY, model="taxi", version_column="version")
    with pytest.raises(
        DataError,
        match=r"^Window '2026-11-30' of model 'taxi' mixes versions of the model: '7' "
        r"\(1 rows\), '8' \(2 rows\)\. Profile the rows of each version by them",
    ):
        _ = two.version
    with pytest.raises(DataError, match="do not say which version of the model"):
        _ = profile_table(grid, rows, MONDAY).version
    unknown = {"x": [1.0, 2.0], "version": ["8", None]}
    found = profile_table(grid, unknown, MONDAY, version_column="version")
    assert found.versions == {"": 1, "8": 1}
    with pytest.raises(DataError, match=r"'versoin', .* Did you mean 'version'\?"):
        profile_table(grid, rows, MONDAY, version_column="versoin")


def test_a_column_that_is_not_there_is_missing() -> None:
    grid = Grid.of({"x": [1.0], "c": ["a"]})
    profile = profile_table(grid, {"c": ["a", "a"]}, MONDAY)
    assert (profile["x"].missing, profile["x"].type) == (2, "null")
    both = profile["x"] + profile_column(grid["x"], [1.0])
    assert both.type == "double"


def test_what_does_not_add_up_gets_a_sentence() -> None:
    grid, other = Grid.of({"x": [1.0]}), Grid.of({"x": [2.0]})
    rows = {"x": [1.0]}
    one = profile_table(grid, rows, MONDAY, model="taxi")
    with pytest.raises(DataError, match=r"was counted on grid sha256:.* do not add up"):
        _ = one + profile_table(other, rows, MONDAY, model="taxi")
    with pytest.raises(DataError, match=r"is of model 'taxi' and window .* of 'bus'"):
        _ = one + profile_table(grid, rows, MONDAY, model="bus")
    with pytest.raises(
        DataError, match=r"are 100\.000% of the traffic and .* 10\.000%"
    ):
        _ = one + profile_table(grid, rows, MONDAY, model="taxi", rate=0.1)
    with pytest.raises(DataError, match="'x' was counted on two grids"):
        _ = one["x"] + profile_column(other["x"], [1.0])
    with pytest.raises(DataError, match=r"'x' has 3 places, .* of shape \(1,\)"):
        ColumnProfile(grid["x"], 1, 0, 1, np.array([1]))
    with pytest.raises(DataError, match=r"has the columns none and its grid 'x'"):
        Profile(MONDAY, "taxi", {}, 1, grid, {})
    with pytest.raises(DataError, match=r"'y' is not in the reference grid"):
        _ = one["y"]
    with pytest.raises(DataError, match="No profiles add up to none"):
        merged([])


def test_rows_that_cannot_be_profiled_get_a_sentence() -> None:
    grid = Grid.of({"x": [1.0]})
    with pytest.raises(DataError, match=r"^Window '2026-11-30' has no rows, so there"):
        profile_table(grid, {"x": np.zeros(0)}, MONDAY)
    with pytest.raises(DataError, match="'2026-11-30' has no rows"):
        profile_batches(grid, [], MONDAY)
    with pytest.raises(DataError, match="'x' has type struct<"):
        profile_table(grid, {"x": pa.array([{"a": 1.0}])}, MONDAY)
    with pytest.raises(DataError, match="no rows to divide into windows"):
        profile_windows(grid, [], "time")
    for times, text in [
        (pa.array([1.0, None]), "has 1 rows without a value, of type double"),
        (pa.array(["a", "b"]), "has 0 rows without a value, of type string"),
        (pa.array([math.nan, 1.0]), "has 1 rows that are NaN or infinite"),
    ]:
        with pytest.raises(DataError, match=text):
            profile_windows(grid, [pa.table({"x": [1.0, 2.0], "time": times})], "time")
    with pytest.raises(DataError, match=r"'tiem', .* Did you mean 'time'\?"):
        profile_windows(grid, [pa.table({"x": [1.0], "time": [1.0]})], "tiem")


def test_a_negative_zero_is_zero() -> None:
    grid = Grid.of({"x": [0.0]})["x"]
    values = [[0.0, -0.0], [-0.0, 0.0], [-0.0], [0.0]]
    bits = {repr(profile_column(grid, each).minimum) for each in values}
    assert bits == {"0.0"}
    assert repr(profile_column(grid, [-0.0]).sum) == "0.0"
    assert profile_column(grid, [-0.0]).counts.tolist() == [0, 1, 0]


def test_the_mean_of_a_category_is_no_number() -> None:
    grid = ColumnGrid("c", "category", categories=("a",))
    assert math.isnan(profile_column(grid, ["a"]).mean)
