"""The split assignment: content only, the same for ever, in the right proportions."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.columns import splits
from penstock.components.columns.splits import assign, cuts, deal, row_hashes
from penstock.schemas.errors import DataError, PipelineError
from penstock.schemas.splits import ByHash, ByKey, ByTime, Stratified

WEIGHTS = {"train": 4, "eval": 1}


def batch_of(**columns: Any) -> pa.RecordBatch:
    arrays = [
        each if isinstance(each, pa.Array) else pa.array(each)
        for each in columns.values()
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def hashes(**columns: Any) -> list[int]:
    found: list[int] = row_hashes(batch_of(**columns)).tolist()
    return found


def test_hashes_are_what_they_have_always_been() -> None:
    """These never change: rows of an old pipeline would change their split."""
    batch = batch_of(
        fare=[1.5, 0.0, None, math.nan, 1e300],
        hour=pa.array([3, -1, None, 2**63 - 1, 0], pa.int64()),
        company=["Taxi", "", None, "longer than eight bytes é", "x"],
        tags=pa.array([["a", "b"], [], None, [None], [""]], pa.list_(pa.string())),
        place=pa.array([{"x": 1, "y": None}] * 4 + [None]),
        paid=[True, False, None, True, False],
        raw=pa.array([b"\0\xff", b"", None, b"abc", b"12345678"]),
        big=pa.array([2**63, 1, None, 2, 3], pa.uint64()),
        day=pa.array([0, 1, None, 2, 3], pa.date32()),
    )
    assert row_hashes(batch).tolist() == GOLDEN
    assert row_hashes(batch, ["company"]).tolist() == GOLDEN_COMPANY


GOLDEN: list[int] = [
    6919856330229336274,
    2002832706457247835,
    5856204162838380569,
    11780861482711363514,
    7550827684631874753,
]
GOLDEN_COMPANY: list[int] = [
    7740962835285588724,
    17931119883377351309,
    0,
    14118433334330198618,
    7262688355039641320,
]


def test_a_row_without_any_value_hashes_as_nothing() -> None:
    assert hashes(a=pa.nulls(2), b=pa.array([None, None], pa.int64())) == [0, 0]


def test_missing_values_add_nothing() -> None:
    assert hashes(a=[1], b=pa.array([None], pa.string())) == hashes(a=[1])
    assert hashes(a=[1], b=pa.nulls(1)) == hashes(a=[1])


def test_numbers_hash_alike_whatever_their_width() -> None:
    expected = hashes(a=pa.array([0, 1, 100], pa.int64()))
    for kind in (pa.int8(), pa.int32(), pa.uint16(), pa.uint64(), pa.float32()):
        assert hashes(a=pa.array([0, 1, 100], kind)) == expected
    assert hashes(a=[-0.0, 1.0, 100.0]) == expected
    assert hashes(a=[False, True]) == expected[:2]
    assert hashes(a=pa.array([0.5], pa.float32())) == hashes(a=[0.5])


def test_decimals_are_told_apart() -> None:
    kind = pa.decimal128(5, 2)
    values = [decimal.Decimal("1.50"), decimal.Decimal("1.51"), None]
    one, other, none = hashes(a=pa.array(values, kind))
    assert one != other != none == 0


def test_all_nans_hash_alike() -> None:
    odd = np.array([0xFFF8000000000001, 0x7FF8000000000000], np.uint64)
    assert len(set(hashes(a=pa.array(odd.view(np.float64), from_pandas=False)))) == 1


def test_text_hashes_as_its_bytes_do() -> None:
    words = ["a", "", "café", "twelve bytes", None]
    expected = hashes(a=words)
    raw = [word if word is None else word.encode() for word in words]
    for array in (
        pa.array(raw, pa.binary()),
        pa.array(words, pa.large_string()),
        pa.array(words).dictionary_encode(),
    ):
        assert hashes(a=array) == expected


def test_what_differs_hashes_differently() -> None:
    rows: list[Any] = [
        hashes(a=[1]),
        hashes(b=[1]),
        hashes(a=["1"]),
        hashes(a=[""]),
        hashes(a=["\0"]),
        hashes(a=["\0\0"]),
        hashes(a=["abcdefgh"]),
        hashes(a=["abcdefgh\0"]),
        hashes(a=["12345678abcdefgh"]),
        hashes(a=["abcdefgh12345678"]),
        hashes(a=[[1, 2]]),
        hashes(a=[[2, 1]]),
        hashes(a=pa.array([[]], pa.list_(pa.int64()))),
        hashes(a=pa.array([[None]], pa.list_(pa.int64()))),
        hashes(a=[[[1], [2]]]),
        hashes(a=[[[1, 2]]]),
        hashes(a=[{"b": 1}]),
        hashes(a=[{"c": 1}]),
        hashes(a=[[{"b": 1}]]),
        hashes(a=[0.5]),
        hashes(a=[2.0**63]),
        hashes(a=pa.array([2**63], pa.uint64())),
        hashes(a=pa.array([1], pa.timestamp("us"))),
    ]
    assert len({row[0] for row in rows}) == len(rows)


VALUE = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
TEXT = st.one_of(st.none(), st.text(max_size=20))


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(VALUE, st.one_of(st.none(), st.floats()), TEXT, st.lists(TEXT)),
        min_size=1,
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_the_hash_depends_on_content_only(rows: list[Any], source: Any) -> None:
    names = ["i", "f", "s", "l"]
    kinds = [pa.int64(), pa.float64(), pa.string(), pa.list_(pa.string())]
    columns = {
        name: pa.array([row[at] for row in rows], kind)
        for at, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    whole = row_hashes(batch_of(**columns)).tolist()

    source.shuffle(names)  # another order of columns
    batch = batch_of(**{name: columns[name] for name in names})
    assert row_hashes(batch).tolist() == whole
    # Row by row: no batch is another's neighbor, and every slice has an offset.
    alone = [row_hashes(batch.slice(at, 1)).tolist() for at in range(len(rows))]
    assert [each for (each,) in alone] == whole
    # Another order of rows.
    order = list(range(len(rows)))
    source.shuffle(order)
    moved = pa.Table.from_batches([batch]).take(order).combine_chunks().to_batches()[0]
    assert row_hashes(moved).tolist() == [whole[at] for at in order]
    # Dictionary encoding.
    encoded = {**columns, "s": columns["s"].dictionary_encode()}
    assert row_hashes(batch_of(**encoded)).tolist() == whole


def test_splits_have_their_shares() -> None:
    """Pearson's chi-square over 50 buckets, and each share within 5 sigma."""
    rows = 200_000
    batch = batch_of(n=np.arange(rows), s=[f"trip {n % 977}" for n in range(rows)])
    rule = ByHash({f"s{n}": 1 for n in range(50)})
    counts = np.bincount(assign(rule, batch), minlength=50)
    expected = rows / 50
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # 49 degrees of freedom: mean 49, standard deviation 9.9.
    assert chi_square < 49 + 5 * 9.9
    counts = np.bincount(assign(ByHash(WEIGHTS), batch))
    assert abs(counts[0] - 0.8 * rows) < 5 * math.sqrt(rows * 0.8 * 0.2)
    counts = np.bincount(assign(ByHash({"a": 1, "b": 2, "c": 7}), batch))
    for count, share in zip(counts, (0.1, 0.2, 0.7), strict=True):
        assert abs(count - share * rows) < 5 * math.sqrt(rows * share * (1 - share))


def test_no_key_is_in_two_splits() -> None:
    keys = [f"user {n % 500}" for n in range(5000)] + [None] * 50
    batch = batch_of(user=keys, n=list(range(5050)))
    numbers = assign(ByKey("user", WEIGHTS), batch)
    by_key: dict[str | None, set[int]] = {}
    for key, number in zip(keys, numbers.tolist(), strict=True):
        by_key.setdefault(key, set()).add(number)
    assert all(len(found) == 1 for found in by_key.values())
    share = sum(found == {0} for found in by_key.values()) / len(by_key)
    assert abs(share - 0.8) < 5 * math.sqrt(0.8 * 0.2 / 501)


def test_several_columns_can_be_the_key() -> None:
    batch = batch_of(a=[1, 1, 2], b=["x", "x", "x"], c=[1, 2, 3])
    rule = ByKey(("a", "b"), {f"s{n}": 1 for n in range(1000)})
    first, second, third = assign(rule, batch).tolist()
    assert first == second != third


@pytest.mark.parametrize(
    ("times", "ends"),
    [
        (pa.array([1, 5, 9, 10, 99]), (5, 10)),
        (pa.array([1.0, 5.0, 9.5, 10.0, 99.0]), (5, 10.0)),
        (
            pa.array(["2020-01", "2020-02", "2020-02-9", "2021", "3"]),
            ("2020-02", "2021"),
        ),
        (pa.array([0, 31, 40, 366, 999], pa.date32()), ("1970-02-01", "1971-01-02")),
        (
            pa.array([0, 31, 40, 366, 999], pa.timestamp("s")),
            ("1970-01-01T00:00:31", "1970-01-01T00:06:06"),
        ),
    ],
)
def test_time_parts_the_splits(times: pa.Array, ends: tuple[Any, Any]) -> None:
    rule = ByTime("t", {"train": ends[0], "eval": ends[1], "test": None})
    assert assign(rule, batch_of(t=times)).tolist() == [0, 1, 1, 2, 2]


def time_error(times: pa.Array, end: Any, column: str = "t") -> str:
    with pytest.raises(DataError) as caught:
        assign(ByTime(column, {"train": end, "eval": None}), batch_of(t=times))
    return str(caught.value)


def test_a_time_that_is_missing_or_of_another_kind_gets_a_sentence() -> None:
    assert time_error(pa.array([1.0, None, math.nan]), 1) == (
        "Column 't' has no time in 2 of 3 rows, so that they belong to no split. Fill "
        "them in, or take them out of the input."
    )
    assert time_error(pa.array(["2020"]), 1) == (
        "Column 't' is string, and ByTime ends a split at 1. Give numbers for a column "
        "of numbers, and text for text, dates and timestamps."
    )
    assert time_error(pa.array([1], pa.date32()), "soon") == (
        "Column 't' is date32[day], and ByTime ends a split at 'soon', which is no "
        "such time. Write it as ISO 8601 does."
    )
    assert time_error(pa.array([1]), 1, "tt") == (
        "The splits are dealt out by column 'tt', which the input does not have (it "
        "has 't'). Did you mean 't'?"
    )


def test_a_key_column_that_is_missing_gets_a_sentence() -> None:
    with pytest.raises(DataError) as caught:
        assign(ByKey("users", WEIGHTS), batch_of(user=[1]))
    assert str(caught.value) == (
        "The splits are dealt out by column 'users', which the input does not have (it "
        "has 'user'). Did you mean 'user'?"
    )


def stratified(batch: pa.RecordBatch, rule: Stratified) -> list[int]:
    at = cuts(rule, splits.strata_and_hashes(rule, batch))
    numbers: list[int] = assign(rule, batch, at).tolist()
    return numbers


def test_every_stratum_has_its_shares_to_within_a_row() -> None:
    sizes = {"Cash": 6001, "Credit Card": 3333, "Dispute": 7, "Unknown": 1, None: 90}
    labels = [label for label, size in sizes.items() for _ in range(size)]
    batch = batch_of(paid=labels, n=list(range(len(labels))))
    weights = {"train": 7, "eval": 2, "test": 1}
    numbers = stratified(batch, Stratified("paid", weights))
    for label, size in sizes.items():
        counts = np.bincount(
            [n for n, each in zip(numbers, labels, strict=True) if each == label],
            minlength=3,
        )
        assert counts.sum() == size
        for count, weight in zip(counts.tolist(), weights.values(), strict=True):
            assert abs(count - size * weight / 10) < 1


def test_stratified_splits_do_not_depend_on_order_and_keep_equal_rows_together() -> (
    None
):
    rows = [("a" if n % 3 else "b", n % 40) for n in range(400)]
    rule = Stratified("s", WEIGHTS)

    def dealt(order: list[int]) -> dict[tuple[str, int], int]:
        picked = [rows[at] for at in order]
        batch = batch_of(s=[row[0] for row in picked], n=[row[1] for row in picked])
        found: dict[tuple[str, int], int] = {}
        for row, number in zip(picked, stratified(batch, rule), strict=True):
            assert found.setdefault(row, number) == number
        return found

    assert dealt(list(range(400))) == dealt(list(range(399, -1, -1)))


def test_no_rows_have_no_strata() -> None:
    batch = batch_of(s=pa.array([], pa.string()))
    assert stratified(batch, Stratified("s", WEIGHTS)) == []


def test_stratified_rows_need_cuts() -> None:
    with pytest.raises(TypeError, match="by the cuts of all rows"):
        assign(Stratified("s", WEIGHTS), batch_of(s=["a"]))


def test_deal_keeps_every_row_in_order() -> None:
    batch = batch_of(
        n=list(range(10)), s=[str(n) if n % 4 else None for n in range(10)]
    )
    numbers = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    parts = deal(batch, numbers, 3)
    assert [part.column(0).to_pylist() for part in parts] == [
        [0, 3, 6, 9],
        [1, 4, 7],
        [2, 5, 8],
    ]
    assert parts[1].column(1).to_pylist() == ["1", None, "7"]
    assert deal(batch, np.zeros(10, np.intp), 1) == [batch]


@settings(max_examples=100)
@given(
    st.lists(st.tuples(VALUE, st.floats(), TEXT, st.integers(0, 3)), max_size=30),
    st.integers(0, 30),
)
def test_deal_gives_what_a_filter_gives(rows: list[Any], start: int) -> None:
    batch = batch_of(
        i=pa.array([row[0] for row in rows], pa.int64()),
        f=pa.array([row[1] for row in rows], pa.float64()),
        s=pa.array([row[2] for row in rows], pa.string()),
    ).slice(start)
    numbers = np.array([row[3] for row in rows[start:]], np.intp)
    for number, part in enumerate(deal(batch, numbers, 4)):
        kept = batch.filter(pa.array(numbers == number))
        assert list(map(repr, part.to_pylist())) == list(map(repr, kept.to_pylist()))
        part.validate(full=True)


def test_a_type_without_a_hash_gets_a_sentence() -> None:
    array = pa.array([None, None], pa.month_day_nano_interval())
    with pytest.raises(DataError) as caught:
        hashes(gap=array)
    assert str(caught.value) == (
        "Column 'gap' has type month_day_nano_interval, by which rows cannot be told "
        "apart. Convert it before ingestion, or deal out splits by a key column."
    )


# --- what a rule may say -------------------------------------------------------------


def refused(make: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        make()
    return str(caught.value)


def test_rules_that_cannot_be_get_a_sentence() -> None:
    assert refused(lambda: ByHash({})) == (
        'No split is named. Name at least one, as {"train": 4, "eval": 1}.'
    )
    assert refused(lambda: ByHash({"train": 0})) == (
        "Split 'train' has the weight 0. Weights are whole numbers of at least 1; "
        "leave out a split that gets nothing."
    )
    assert refused(lambda: ByHash({"a": 1 << 31})) == (
        "The weights of the splits add up to 2147483648. Divide them so that they stay "
        "below 2147483648."
    )
    assert refused(lambda: Stratified("a", {"-x": 1})).startswith(
        "Split name '-x' cannot be used"
    )
    assert refused(lambda: ByKey("", WEIGHTS)) == (
        "ByKey.column is '', which names no column. Pass the name of the key column, "
        "or a tuple of names."
    )
    assert refused(lambda: ByTime("t", {"train": 1, "eval": 2})) == (
        "ByTime.until is {'train': 1, 'eval': 2}. Give every split the time at which "
        "it ends, and the last one, and only that, None."
    )
    assert refused(lambda: ByTime("t", {"a": 1, "b": "x", "c": None})) == (
        "ByTime.until is {'a': 1, 'b': 'x', 'c': None}. Give times of one kind: all "
        "numbers, or all text."
    )
    assert refused(lambda: ByTime("t", {"a": 2, "b": 1, "c": None})) == (
        "ByTime.until is {'a': 2, 'b': 1, 'c': None}, whose times do not rise. Name "
        "the splits in order of time."
    )
