import dataclasses
import datetime
import decimal
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.components.monitoring import gridding
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.gridding import edges_of
from penstock.components.monitoring.values import type_name
from penstock.schemas.errors import DataError


def test_few_distinct_values_are_all_edges() -> None:
    values = np.repeat(np.arange(4_096.0), 2)
    grid = Grid.of({"x": values})["x"]
    assert (grid.edges == np.arange(4_096)).all()
    assert grid.places == 4_098


def test_many_values_have_the_quantiles_of_numpy_as_edges() -> None:
    values = np.random.default_rng(1).lognormal(size=50_000)
    edges = Grid.of({"x": values})["x"].edges
    shares = np.arange(4_096) / 4_095
    expected = np.quantile(values, shares, method="inverted_cdf")
    assert len(edges) == 4_096
    # numpy multiplies floats where we multiply integers: it may round to the next.
    assert np.count_nonzero(edges != expected) <= 8
    assert (edges[0], edges[-1]) == (values.min(), values.max())


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 300),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_edges_rise_from_the_minimum_to_the_maximum(values: Any) -> None:
    edges = edges_of(np.sort(values))
    assert (np.diff(edges) > 0).all()
    assert set(edges.tolist()) == set(values.tolist())


def test_each_type_has_its_kind() -> None:
    day = datetime.date(2026, 11, 30)
    table = pa.table(
        {
            "float": [1.5, None],
            "int": [3, 4],
            "decimal": [decimal.Decimal("1.5"), None],
            "date": [day, day],
            "time": pa.array([1, 2], pa.timestamp("ms")),
            "clock": pa.array([1, 2], pa.time32("s")),
            "bool": [True, False],
            "text": ["a", None],
            "bytes": [b"\xff", b"a"],
            "names": pa.array(["a", "b"]).dictionary_encode(),
            "list": [[1.0, 2.0], None],
            "words": [["a", "b"], ["c"]],
            "nothing": pa.nulls(2),
        }
    )
    grid = Grid.of(table)
    assert {each.name for each in grid if each.kind == "category"} == {
        "bool",
        "text",
        "bytes",
        "names",
        "words",
        "nothing",
    }
    assert grid["bool"].categories == ("false", "true")
    assert grid["bytes"].categories == ("\\xff", "a")
    assert grid["date"].edges.tolist() == [1_795_996_800.0]
    assert grid["time"].edges.tolist() == [0.001, 0.002]
    assert grid["list"].edges.tolist() == [1.0, 2.0]
    assert grid["words"].categories == ("a", "b", "c")
    assert grid["nothing"].places == 1


def test_what_is_the_same_has_one_type_in_every_version_of_arrow() -> None:
    element = pa.list_(pa.field("element", pa.float32()))
    for kind, name in [
        (pa.list_(pa.float32()), "list<float>"),
        (element, "list<float>"),
        (pa.large_list(pa.list_(pa.large_string())), "list<list<string>>"),
        (pa.dictionary(pa.int8(), pa.large_string()), "string"),
        (pa.large_binary(), "binary"),
        (pa.timestamp("ms", "UTC"), "timestamp[ms, tz=UTC]"),
    ]:
        assert type_name(kind) == name
    lists = Grid.of({"x": pa.array([[1.0]], element)})["x"]
    assert lists.is_short
    assert not Grid.of({"x": [[1.0]]})["x"].is_short


def test_integers_are_categories_where_told() -> None:
    grid = Grid.of(
        {"zip": [60_601, 60_601, 60_602], "score": [0.5, 0.25, 0.5]},
        categories=["zip"],
        roles={"score": "score"},
    )
    assert grid["zip"].categories == ("60601", "60602")
    assert [each.name for each in grid.with_role("score")] == ["score"]


def test_whole_floats_are_named_as_integers() -> None:
    grid = Grid.of({"zip": [60_601.0, 0.5, -0.0, 0.0, np.nan]}, categories=["zip"])
    assert grid["zip"].categories == ("0", "0.5", "60601")


def test_categories_come_by_falling_count_and_the_rest_are_others() -> None:
    names = [f"value {each:04}" for each in range(1_500)]
    grid = Grid.of({"c": [*names, "value 1499", "value 1499", "value 1498"]})["c"]
    assert grid.categories[:3] == ("value 1499", "value 1498", "value 0000")
    assert (len(grid.categories), len(grid.others), grid.is_open) == (1_000, 500, False)


def test_a_column_with_too_many_values_stays_bounded() -> None:
    ids = pa.array(np.arange(300_000)).cast(pa.string())
    grid = Grid.of({"id": ids})["id"]
    assert (len(grid.categories), len(grid.others), grid.is_open) == (1_000, 0, True)


def test_a_long_text_is_cut_and_stays_itself() -> None:
    grid = Grid.of({"text": ["a" * 500, "a" * 501, "b"]})["text"]
    assert len(set(grid.categories)) == 3
    assert all(len(each) <= 120 for each in grid.categories)


def test_what_is_not_finite_is_no_edge() -> None:
    column = Grid.of({"x": [np.inf, -np.inf, np.nan, 2.0, 1e308, -1e308]})["x"]
    assert column.edges.tolist() == [-1e308, 2.0, 1e308]
    assert column.center == 2.0
    empty = Grid.of({"x": [np.nan, np.inf]})["x"]
    assert (empty.places, empty.center) == (2, 0.0)


def test_one_other_byte_makes_another_id() -> None:
    grid = Grid.of({"x": [1.0, 2.0], "c": ["a", "b"]})
    edges = grid["x"].edges.copy()
    edges.view(np.uint8)[8] ^= 1
    changed = [
        dataclasses.replace(grid["x"], edges=edges),
        dataclasses.replace(grid["x"], role="label"),
        dataclasses.replace(grid["x"], center=np.nextafter(1.5, 2)),
        dataclasses.replace(grid["x"], type="float"),
    ]
    ids = {Grid.of_columns([each, grid["c"]]).id for each in changed}
    other = dataclasses.replace(grid["c"], categories=("b", "a"))
    assert len({*ids, grid.id, Grid.of_columns([grid["x"], other]).id}) == 6


def test_the_same_content_has_the_same_id_in_any_order_and_after_pickling() -> None:
    grid = Grid.of({"x": [1.0, 2.0, -0.0], "c": ["a", "b", "a"]})
    again = Grid.of({"c": ["a", "a", "b"], "x": [0.0, 2.0, 1.0]})
    assert grid.id == again.id
    assert grid == again
    assert hash(grid) == hash(again)
    assert grid["x"] == again["x"]
    assert pickle.loads(pickle.dumps(grid)).id == grid.id
    # The canonical form is a promise: other machines and versions give this id, too.
    assert grid.id == PROMISED


PROMISED = "sha256:a1eed1443cc2f5b21d040a950dae5bcb5d6074c27edf5650510c711fb9ece822"


def test_batches_give_the_grid_of_their_table() -> None:
    rng = np.random.default_rng(2)
    table = pa.table(
        {
            "x": rng.normal(size=20_000),
            "c": pa.array(rng.integers(0, 1_200, 20_000)).cast(pa.string()),
        }
    )
    assert Grid.of(iter(table.to_batches(max_chunksize=700))).id == Grid.of(table).id


def test_of_many_rows_in_batches_a_part_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gridding, "SAMPLE", 6_000)
    values = np.random.default_rng(3).normal(size=100_000)

    def batches(rows: int) -> Iterator[pa.RecordBatch]:
        yield from pa.table({"x": values}).to_batches(max_chunksize=rows)

    edges = Grid.of(batches(1_000))["x"].edges
    assert (edges == Grid.of(batches(7_777))["x"].edges).all()
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    shares = np.searchsorted(np.sort(values), edges) / len(values)
    even = np.linspace(0, 1, len(edges))
    assert np.abs(shares - even).max() < 1.63 / np.sqrt(3_000)  # Kolmogorov, 1 %


def test_bad_references_get_a_sentence() -> None:
    struct = pa.array([{"lat": 1.0, "lon": 2.0}])
    with pytest.raises(DataError, match=r"'place' has type struct<.*'lat', 'lon'\.$"):
        Grid.of({"place": struct})
    with pytest.raises(DataError, match=r"'map' has type map<.* columns of their own"):
        Grid.of({"map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))})
    with pytest.raises(DataError, match=r"'fair' is not in .* Did you mean 'fare'\?"):
        Grid.of({"fare": [1.0]}, columns=["fair"])
    with pytest.raises(DataError, match=r"role 'skore' .* Did you mean 'score'\?"):
        Grid.of({"fare": [1.0]}, roles={"fare": "skore"})  # type: ignore[dict-item]
    for nothing in (pa.table({"fare": np.zeros(0)}), iter(())):
        with pytest.raises(DataError, match="The reference has no rows"):
            Grid.of(nothing)
    with pytest.raises(DataError, match=r"'fair' is not in the .* mean 'fare'\?"):
        Grid.of({"fare": [1.0]})["fair"]
    with pytest.raises(DataError, match="edges of column 'x' are not finite numbers"):
        ColumnGrid("x", "numeric", edges=np.array([1.0, 1.0]))
    with pytest.raises(DataError, match="has column 'x' under the name 'y'"):
        Grid({"y": ColumnGrid("x", "numeric")})
