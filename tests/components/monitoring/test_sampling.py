"""Samples: the same rows anywhere, the right number, and weights that stay true."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penstock.components.monitoring.logs import (
    LogFormat,
    LogRules,
    LogTable,
    of_table,
)
from penstock.components.monitoring.sampling import (
    BottomK,
    allotted,
    estimated_mean,
    estimated_total,
    hashes,
    sample_by_rate,
    strata_counts,
    thinned,
    uniforms,
)
from penstock.schemas.errors import DataError


def log_of(
    ids: list[str], strata: list[str] | None = None, p: list[float] | None = None
) -> LogTable:
    table = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "x": pa.array(range(len(ids)), pa.int64()),
            "s": pa.array(strata or ["a"] * len(ids), pa.string()),
            "p": pa.array(p or [1.0] * len(ids), pa.float64()),
        }
    )
    return of_table(
        table,
        format=LogFormat(id="id", stratum="s", probability="p"),
        rules=LogRules(on_empty="accept"),
        subject="It",
    )


def xs(log: LogTable) -> list[int]:
    found: list[int] = log.table.column("x").to_pylist()
    return found


# --- the hash


def test_hashes_are_these_on_every_machine() -> None:
    found = hashes(pa.array(["", "a", "trip-1", "trip-1234567890", "üñ"]), 7)
    assert found.tolist() == [
        0x6F4EEFDC892A0C3B,
        0xAA6300648E7A81D7,
        0x7E5246B378619401,
        0x664C1A51FA912D60,
        0xA2432C1A6D010CFC,
    ]


@settings(max_examples=40)
@given(st.lists(st.text(), min_size=1, max_size=30), st.integers(), st.data())
def test_a_hash_depends_on_the_id_and_the_seed_alone(
    ids: list[str], seed: int, data: st.DataObject
) -> None:
    array = pa.array(ids)
    whole = hashes(array, seed)
    one_by_one = [int(hashes(pa.array([each]), seed)[0]) for each in ids]
    assert whole.tolist() == one_by_one
    cut = data.draw(st.integers(0, len(ids)))
    parts = pa.chunked_array([array.slice(0, cut), array.slice(cut)])
    assert np.array_equal(hashes(parts, seed), whole)
    assert np.array_equal(hashes(array.slice(cut), seed), whole[cut:])
    large = array.cast(pa.large_string())
    assert np.array_equal(hashes(large, seed), whole)


def test_integers_are_hashed_as_their_digits() -> None:
    numbers = hashes(pa.array([1, -20, 300]))
    assert np.array_equal(numbers, hashes(pa.array(["1", "-20", "300"])))


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize("form", ["{}", "trip-{:08d}", "0{}-0000-4000-8000-{:012x}"])
def test_ids_that_follow_one_another_are_spread_evenly(seed: int, form: str) -> None:
    ids = [form.format(i, i) for i in range(200_000)]
    hashed = hashes(pa.array(ids), seed)
    assert len(np.unique(hashed)) == len(ids)
    log = log_of(ids)
    drawn = uniforms(log, seed)
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4
    assert stats.kstest(np.diff(drawn) % 1, "uniform").pvalue > 1e-4
    # Every bit is set half of the time, and independently of the others' neighbors.
    bits = (hashed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    errors = (bits.mean(0) - 0.5) * 2 * np.sqrt(len(ids))
    assert np.abs(errors).max() < 5
    assert stats.pearsonr(drawn, uniforms(log, seed + 1)).pvalue > 1e-4
    # Nor does what a row was kept by say anything of what it will be kept by.
    kept = log_of(ids, p=[0.5] * len(ids))
    assert stats.pearsonr(drawn, uniforms(kept, seed)).pvalue > 1e-4


def test_one_changed_bit_changes_half_of_the_hash() -> None:
    ids = [f"request-{i}" for i in range(2_000)]
    changed = [each[:-1] + chr(ord(each[-1]) ^ 1) for each in ids]
    both = hashes(pa.array(ids)) ^ hashes(pa.array(changed))
    flips = ((both[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
    assert np.all(np.abs(flips - 0.5) < 0.07)


def test_an_id_that_is_missing_decides_nothing() -> None:
    with pytest.raises(DataError) as error:
        hashes(pa.array(["a", None, None]))
    assert str(error.value) == (
        "2 of 3 ids are missing, and nothing decides on rows without one. Leave such "
        "rows out, or give them ids."
    )


# --- by rate


def test_the_same_seed_keeps_the_same_rows_of_any_part_in_any_order() -> None:
    ids = [f"r{i}" for i in range(2_000)]
    whole = sample_by_rate(log_of(ids), 0.2, seed=3)
    halves = [
        sample_by_rate(log_of(part), 0.2, seed=3) for part in (ids[:777], ids[777:])
    ]
    expected = set(whole.ids.to_pylist())
    assert {each for part in halves for each in part.ids.to_pylist()} == expected
    backwards = sample_by_rate(log_of(ids[::-1]), 0.2, seed=3)
    assert set(backwards.ids.to_pylist()) == expected
    other = sample_by_rate(log_of(ids), 0.2, seed=4)
    assert set(other.ids.to_pylist()) != expected
    assert 330 < whole.rows < 470


def test_a_larger_rate_keeps_the_rows_of_a_smaller_one() -> None:
    log = log_of([f"r{i}" for i in range(1_000)])
    small, large = (sample_by_rate(log, rate, seed=3) for rate in (0.1, 0.3))
    assert set(small.ids.to_pylist()) <= set(large.ids.to_pylist())


def test_strata_have_rates_and_probabilities_are_multiplied() -> None:
    count = 4_000
    log = log_of(
        [f"r{i}" for i in range(count)],
        ["rare" if i % 100 == 0 else "common" for i in range(count)],
        [0.5 if i % 2 else 1.0 for i in range(count)],
    )
    found = sample_by_rate(log, {"rare": 1.0, "*": 0.1}, seed=1)
    kept = strata_counts(found)
    assert kept["rare"] == 40 and 320 < kept["common"] < 480
    by_stratum = zip(
        found.table.column("log_stratum").to_pylist(),
        found.table.column("x").to_pylist(),
        found.probabilities.tolist(),
        strict=True,
    )
    for stratum, x, probability in by_stratum:
        expected = (0.5 if x % 2 else 1.0) * (1.0 if stratum == "rare" else 0.1)
        assert probability == pytest.approx(expected)


def test_rates_that_are_none() -> None:
    log = log_of(["a"], ["vip"])
    with pytest.raises(DataError) as error:
        sample_by_rate(log, {"vib": 0.5})
    assert str(error.value) == (
        "It has the stratum 'vip' in column 'log_stratum', which has no rate (there "
        "are rates for 'vib'). Did you mean 'vib'? Add it, or '*' for all others."
    )
    with pytest.raises(DataError) as error:
        sample_by_rate(log, {"vip": 0.0})
    assert str(error.value) == (
        "Stratum 'vip' is to be sampled at the rate 0, which is no share of its rows. "
        "Pass a number above 0 and up to 1."
    )
    with pytest.raises(DataError, match="It has no column 'y' to divide into strata"):
        sample_by_rate(log, 0.5, by="y")


# --- exact sizes


@settings(max_examples=100)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12), st.integers(0, 10**6))
def test_shares_of_strata_are_exact_to_within_one_row(
    sizes: list[int], total: int
) -> None:
    counts = np.array(sizes, np.int64)
    given_ = allotted(counts, total)
    everything = int(counts.sum())
    assert given_.sum() == min(total, everything)
    assert np.all(given_ <= counts) and np.all(given_ >= 0)
    if everything:
        exact = counts * (min(total, everything) / everything)
        assert np.all(np.abs(given_ - exact) < 1 + 1e-6)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from("abc")),
        min_size=1,
        max_size=80,
        unique_by=lambda pair: pair[0],
    ),
    st.integers(1, 10),
    st.integers(0, 5),
    st.data(),
)
def test_merged_samples_are_the_sample_of_the_whole(
    rows: list[tuple[int, str]], size: int, seed: int, data: st.DataObject
) -> None:
    def sample(some: list[tuple[int, str]]) -> BottomK:
        log = log_of([f"{i}" for i, _ in some], [s for _, s in some])
        return BottomK.of(log, size, seed=seed)

    cut = data.draw(st.integers(0, len(rows)))
    whole = sample(rows)
    merged = sample(rows[:cut]) + sample(rows[cut:])
    assert merged.seen == whole.seen
    ids = set(whole.rows().ids.to_pylist())
    assert set(merged.rows().ids.to_pylist()) == ids
    swapped = sample(rows[cut:]) + sample(rows[:cut])
    assert set(swapped.rows().ids.to_pylist()) == ids
    counts = strata_counts(whole.rows())
    for stratum, seen in whole.seen.items():
        assert counts[stratum] == min(size, seen)


def test_a_sample_of_a_total_has_the_shares_of_the_log() -> None:
    strata = ["a"] * 617 + ["b"] * 250 + ["c"] * 133
    log = log_of([f"r{i}" for i in range(1_000)], strata)
    sample = BottomK.of(log, 100, seed=2)
    found = sample.rows(100)
    assert strata_counts(found) == {"a": 62, "b": 25, "c": 13}
    assert found.weights.sum() == pytest.approx(1_000)
    assert sample.rows(50).rows == 50
    with pytest.raises(DataError) as error:
        sample.rows(500)
    assert str(error.value) == (
        "Of 500 rows, 309 are of stratum 'a', of which 100 were kept. Keep more of "
        "each stratum, or ask for fewer rows."
    )


def test_samples_that_do_not_merge() -> None:
    log = log_of(["a", "b"])
    with pytest.raises(DataError) as error:
        BottomK.of(log, 5) + BottomK.of(log, 6)
    assert str(error.value) == (
        "A sample of 5 rows by 'log_stratum' with seed 0 does not merge with one of 6 "
        "by 'log_stratum' with seed 0. Make both alike."
    )
    with pytest.raises(DataError) as error:
        BottomK.of(log, 5) + BottomK.of(log, 5)
    assert "It has the id '" in str(error.value)
    assert str(error.value).endswith(
        "twice, and a sample of exact size needs ids that tell rows apart. Read the "
        'log with LogRules(on_duplicate="first").'
    )
    with pytest.raises(DataError) as error:
        BottomK.of(log, 0)
    assert str(error.value) == (
        "A sample of 0 rows per stratum holds nothing. Pass 1 or more."
    )


# --- one probability


def test_thinned_rows_are_as_if_all_had_been_kept_alike() -> None:
    draw = np.random.default_rng(1)
    count = 40_000
    kept_with = np.where(np.arange(count) % 4 == 0, 1.0, 0.25)
    kept = np.flatnonzero(draw.random(count) < kept_with)
    log = log_of(
        [f"r{i}" for i in kept],
        ["vip" if i % 4 == 0 else "ordinary" for i in kept],
        kept_with[kept].tolist(),
    )
    found = thinned(log, seed=9)
    assert set(found.probabilities) == {0.25}
    counts = strata_counts(found)
    # As of the traffic: a quarter are of the stratum that was kept whole.
    share = counts["vip"] / found.rows
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / found.rows))
    assert counts["ordinary"] == strata_counts(log)["ordinary"]
    again = thinned(log, seed=9)
    assert again.ids.to_pylist() == found.ids.to_pylist()
    further = thinned(log, seed=9, to=0.1)
    assert set(further.ids.to_pylist()) <= set(found.ids.to_pylist())
    assert further.weights.sum() == pytest.approx(count, rel=0.1)


def test_what_was_not_kept_is_not_brought_back() -> None:
    log = log_of(["a", "b"], p=[0.25, 1.0])
    with pytest.raises(DataError) as error:
        thinned(log, to=0.5)
    assert str(error.value) == (
        "It cannot be thinned to 0.5: its rows were kept with 0.25 to 1, and what was "
        "not kept cannot be brought back. Pass a number above 0 and up to 0.25."
    )
    assert thinned(log.only(np.zeros(2, np.bool_))).rows == 0


# --- weights, over 200 seeds


def _z(estimates: list[float], truth: float) -> float:
    errors = np.array(estimates) - truth
    return float(errors.mean() / (errors.std(ddof=1) / np.sqrt(len(errors))))


@pytest.mark.parametrize(
    "mode", ["rate", "exact", "both", "thinned", "twice", "across"]
)
def test_weighted_totals_are_unbiased_over_200_seeds(mode: str) -> None:
    draw = np.random.default_rng(4)
    count = 2_000
    values = draw.lognormal(size=count) * np.where(np.arange(count) % 10 == 0, 20, 1)
    log = log_of(
        [f"r{i}" for i in range(count)],
        ["rich" if i % 10 == 0 else "ordinary" for i in range(count)],
    )
    halves = pa.array([i % 2 for i in range(count)])
    log = dataclasses.replace(log, table=log.table.append_column("half", halves))
    totals, covered = [], 0
    for seed in range(200):
        if mode == "rate":
            found = sample_by_rate(log, {"rich": 0.5, "ordinary": 0.1}, seed=seed)
        elif mode == "exact":
            found = BottomK.of(log, 90, seed=seed).rows()
        elif mode == "both":
            first = sample_by_rate(log, {"rich": 0.5, "*": 0.4}, seed=seed)
            found = BottomK.of(first, 60, seed=seed).rows()
        elif mode == "twice":
            first = BottomK.of(log, 90, seed=seed).rows()
            found = sample_by_rate(first, 0.5, seed=seed)
        elif mode == "across":  # rows of one stratum were kept with other probabilities
            first = sample_by_rate(log, {"rich": 0.5, "*": 0.1}, seed=seed)
            found = BottomK.of(first, 60, by="half", seed=seed).rows()
        else:
            first = sample_by_rate(log, {"rich": 0.5, "*": 0.1}, seed=seed)
            found = thinned(first, seed=seed)
        estimate = estimated_total(values[xs(found)], found.probabilities)
        totals.append(estimate.value)
        covered += abs(estimate.value - values.sum()) < 1.96 * estimate.error
    assert abs(_z(totals, float(values.sum()))) < 3
    if mode in ("rate", "thinned"):  # rows that are kept independently
        assert covered >= stats.binom.ppf(0.001, 200, 0.93)


def test_the_weighted_mean_has_the_error_it_says() -> None:
    draw = np.random.default_rng(5)
    count = 3_000
    values = draw.normal(10, 3, count)
    log = log_of(
        [f"r{i}" for i in range(count)],
        ["a" if i % 3 else "b" for i in range(count)],
    )
    means, errors = [], []
    for seed in range(200):
        found = sample_by_rate(log, {"a": 0.1, "b": 0.4}, seed=seed)
        estimate = estimated_mean(values[xs(found)], found.probabilities)
        means.append(estimate.value)
        errors.append(estimate.error)
    assert abs(_z(means, float(values.mean()))) < 3
    assert np.mean(errors) == pytest.approx(np.std(means, ddof=1), rel=0.2)
    nothing: Any = np.zeros(0)
    assert np.isnan(estimated_mean(nothing, nothing).value)
