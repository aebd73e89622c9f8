"""Slices of windows: found, kept, compared, and told where only they drift."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring import comparing, procedures
from penstock.components.monitoring.budget import calibrate
from penstock.components.monitoring.decision import Thresholds, decide
from penstock.components.monitoring.profile import Profile, merged
from penstock.components.monitoring.profile_files import (
    profile_digest,
    read_profile,
    write_profile,
)
from penstock.components.monitoring.profiling import profile_table, profile_windows
from penstock.components.monitoring.reference import (
    Reference,
    Season,
    read_reference,
    write_reference,
)
from penstock.components.monitoring.replay import replay
from penstock.components.monitoring.slices import Slicer, is_of
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import DataError

LIMITS = Thresholds(level=0.05, reference_rows=20_000)
FIRST = Window.day("2026-11-02")


def rows(many: int, seed: int, *, day: int = 0, mobile: float = 0.0) -> pa.Table:
    """Return rows of a day; the fares of those who pay by mobile may be others."""
    random = np.random.default_rng([11, seed])
    payment = random.choice(["Cash", "Card", "Mobile"], many, p=[0.5, 0.35, 0.15])
    fare = random.lognormal(2.3, 0.6, many)
    return pa.table(
        {
            "time": FIRST.start + day * DAY + random.uniform(0, DAY, many),
            "payment": payment,
            "fare": np.where(payment == "Mobile", fare * np.exp(mobile), fare),
            "miles": random.gamma(1.5, 2, many),
        }
    )


def reference(*slices: str, **how: Any) -> Reference:
    columns = ["payment", "fare", "miles"]
    return Reference.of(
        rows(20_000, 0), model="taxi", columns=columns, slices=slices, **how
    )


def window(of: Reference, day: int, many: int = 5_000, **drift: float) -> Profile:
    return profile_table(
        of.grid,
        rows(many, day + 1, day=day, **drift),
        Window(FIRST.start + day * DAY, FIRST.end + day * DAY),
        model="taxi",
        slicer=of.slicer,
    )


def evidence(of: Reference, current: Profile) -> Any:
    return comparing.compare_windows(
        of.profile,
        current,
        reference_id=of.id,
        slices=comparing.shared_slices(of.profile, current, LIMITS.min_rows),
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "a=b", "", None]),
            st.integers(-3, 3),
            st.lists(st.integers(0, 2), max_size=3),
        ),
        max_size=40,
    )
)
def test_the_rows_of_a_slice_are_those_that_a_loop_finds(
    given_rows: list[tuple[str | None, int, list[int]]],
) -> None:
    table = pa.table(
        {
            "text": pa.array([each[0] for each in given_rows], pa.string()),
            "number": pa.array([each[1] for each in given_rows], pa.int64()),
            "list": pa.array([each[2] for each in given_rows], pa.list_(pa.int64())),
            "row": np.arange(len(given_rows)),
        }
    )
    expected: dict[str, list[int]] = {}
    for row, (text, number, several) in enumerate(given_rows):
        names = [f"number > 0={'true' if number > 0 else 'false'}"]
        names += [f"text={text}"] if text is not None else []
        names += [f"list={each}" for each in sorted(set(several))]
        for name in names:
            expected.setdefault(name, []).append(row)
    features = ("text", "number > 0", "list")
    slicer = Slicer(features, frozenset(expected))
    found = {name: part.column("row").to_pylist() for name, part in slicer.parts(table)}
    assert found == expected
    # Of batches it is the same, and only slices that are watched are found.
    some = Slicer(features, frozenset(list(expected)[:1]))
    assert [
        name for batch in table.to_batches() for name, _ in some.parts(batch)
    ] == list(expected)[:1]


def test_a_feature_whose_column_is_gone_has_no_slices() -> None:
    slicer = Slicer(("payment", "fare > 10"), frozenset(["payment=Cash"]))
    assert list(slicer.parts(rows(10, 0).drop(["payment", "fare"]))) == []


def test_slices_are_those_with_rows_enough() -> None:
    found = Slicer.of(["payment", "miles > 20"], [rows(2_000, 0), rows(2_000, 1)])
    assert found.names == {
        *("payment=Cash", "payment=Card", "payment=Mobile"),
        "miles > 20=false",
    }
    assert not is_of("fare", "payment=Cash")
    assert is_of("payment", "payment=Cash")


@pytest.mark.parametrize(
    ("feature", "table", "text"),
    [
        (
            "paymnt",
            rows(10, 0),
            "Slices are asked for by 'paymnt', and the reference has no column "
            "'paymnt' (it has 'fare', 'miles', 'payment', 'time'). Did you mean "
            "'payment'?",
        ),
        (
            "fare >",
            rows(10, 0),
            "Slices are asked for by 'fare >', which is no column of the reference (it "
            "has 'fare', 'miles', 'payment', 'time'). Did you mean 'fare'? "
            "Expression 'fare >' ends where a value is expected. Write a column, a "
            "number or a 'text' there.\n"
            "    fare >\n"
            "          ^",
        ),
        (
            "fair > 10",
            rows(10, 0),
            "Slices are asked for by 'fair > 10', and the reference has no column "
            "'fair' (it has 'fare', 'miles', 'payment', 'time'). Did you mean 'fare'?",
        ),
        (
            "payment",
            pa.table({"payment": ["a", "a", "b"]}),
            "No slice by 'payment' has 500 rows in the reference: of 2 the largest has "
            "2. Slice by something coarser.",
        ),
        (
            "zone",
            pa.table({"zone": np.repeat(np.arange(51), 500)}),
            "51 slices have 500 rows or more in the reference (51 by 'zone'), and 50 "
            "are watched at most. Slice by something coarser.",
        ),
    ],
)
def test_what_cannot_be_sliced_by_is_told(
    feature: str, table: pa.Table, text: str
) -> None:
    with pytest.raises(DataError) as raised:
        Slicer.of([feature], [table])
    assert str(raised.value) == text


def test_a_week_of_slices_is_the_sum_of_its_days(tmp_path: Path) -> None:
    of = reference("payment", "fare > 10")
    days = [rows(1_000, day, day=day) for day in range(7)]
    week = profile_windows(
        of.grid,
        [pa.concat_tables(days)],
        "time",
        seconds=DAY,
        model="taxi",
        slicer=of.slicer,
    )
    total = merged(week)
    assert set(total.slices) == set(of.profile.slices)
    for name, each in total.slices.items():
        parts = [
            part
            for day in days
            for found, part in of.slicer.parts(day)  # type: ignore[union-attr]
            if found == name
        ]
        direct = profile_table(
            of.grid, pa.concat_tables(parts), total.window, model="taxi"
        )
        assert each.rows == direct.rows
        for column, found in each.columns.items():
            assert (found.counts == direct[column].counts).all()
            assert found.sum == pytest.approx(direct[column].sum, rel=1e-12, abs=1e-9)
    path = write_profile(total, tmp_path)
    again = read_profile(path)
    assert again == total
    assert profile_digest(again) == profile_digest(total)
    without = dataclasses.replace(total, slices={})
    assert profile_digest(without) != profile_digest(total)
    # What is left of a sum has none.
    assert (total - week[0]).slices == {}


@pytest.mark.parametrize("season", ["", "weekday"])
def test_a_reference_keeps_its_slices(season: Season, tmp_path: Path) -> None:
    days = pa.concat_tables([rows(2_000, day, day=day) for day in range(7)])
    of = Reference.of(
        days, model="taxi", time_column="time", season=season, slices=["payment"]
    )
    names = {"payment=Cash", "payment=Card", "payment=Mobile"}
    assert set(of.profile.slices) == names
    assert sum(each.rows for each in of.profile.slices.values()) == 14_000
    assert {name for each in of.history for name in each.slices} == (
        names if season else set()
    )
    assert set(of.for_window(FIRST).profile.slices) == names
    write_reference(of, tmp_path / "kept")
    again = read_reference(tmp_path / "kept")
    assert (again.id, again.slices) == (of.id, ("payment",))
    assert again.profile == of.profile
    assert again.slicer == of.slicer
    plain = Reference.of(days, model="taxi", time_column="time", season=season)
    assert plain.slicer is None
    assert plain.id != of.id


def test_drift_of_one_slice_is_found_and_told_by_that_slice() -> None:
    of = reference("payment", "fare > 15")
    quiet = decide([evidence(of, window(of, 0))], LIMITS)
    assert quiet.state == "ok"
    found = evidence(of, window(of, 1, mobile=0.3))
    decision = decide([found], LIMITS)
    first = decision.alerts[0]
    assert (first.column, first.slices[0]) == ("fare", "payment=Mobile")
    assert first.explanation.startswith("Feature 'fare' drifted in payment=Mobile")
    inside = found.columns["fare"].slices["payment=Mobile"].measure("mean_shift")
    assert f"greater by {inside.value:.3f} standard" in first.explanation
    # Within a slice by a column, that column is not compared.
    assert set(found.columns["payment"].slices) == {
        *("fare > 15=false", "fare > 15=true")
    }
    small = decide([evidence(of, window(of, 2, 600, mobile=0.3))], LIMITS)
    assert small.state == "ok"


def test_a_backtest_decides_about_slices_as_looks_do() -> None:
    of = reference("payment")
    windows = [
        *(window(of, day) for day in range(4)),
        window(of, 4, mobile=0.12),
        window(of, 5, mobile=0.12),
        window(of, 6, many=600),
        window(of, 7, mobile=0.3),
        dataclasses.replace(window(of, 8, mobile=0.3), slices={}),
        window(of, 9),
    ]
    seen = [evidence(of, each) for each in windows]
    one_by_one = [
        decide([*seen[max(0, i - LIMITS.m + 1) : i], each], LIMITS)
        for i, each in enumerate(seen)
    ]
    at_once = replay(of.profile, windows, LIMITS, reference_id=of.id).decisions
    assert [each.state for each in at_once] == [each.state for each in one_by_one]
    assert [[c.slices for c in each.alerts] for each in at_once] == [
        [c.slices for c in each.alerts] for each in one_by_one
    ]
    assert {"ok", "alert"} <= {each.state for each in at_once}


def test_with_slices_the_level_does_not_count_on_least_effects() -> None:
    # In windows this large only differences that matter are gated away: the level
    # could be high, and slices, of fewer rows, would break the budget by it.
    plain, sliced = (
        calibrate(each, 200_000) for each in (reference(), reference("payment"))
    )
    assert sliced.level < plain.level
    assert sliced.expected <= 1


@given(
    st.lists(
        st.one_of(st.floats(1e-12, 1), st.just(float("nan"))), min_size=1, max_size=12
    ),
    st.floats(1e-12, 1),
)
def test_a_p_value_that_is_not_there_is_none(p: list[float], own: float) -> None:
    there = np.array([each for each in p if each == each])
    simes = float(procedures.simes(np.array(p)))
    assert simes == procedures.simes(there)
    both = float(procedures.with_slices(np.array(own), np.array(p)))
    assert both == (min(1, 2 * min(own, simes)) if len(there) else own)
