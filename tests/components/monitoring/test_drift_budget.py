"""The budget of false alerts: how it is found, kept and refused."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from benchmarks import drift_alarms
from penstock.components.monitoring import budget, laws, overdispersion
from penstock.components.monitoring.budget import (
    MONTH,
    Replay,
    calibrate,
    thresholds_of,
)
from penstock.components.monitoring.column_tests import EFFECTS
from penstock.components.monitoring.decision import Thresholds
from penstock.components.monitoring.laws import ColumnLaw, law_of, numeric_law
from penstock.components.monitoring.profile import Profile, merged
from penstock.components.monitoring.reference import Reference
from penstock.schemas.errors import DataError
from tests.components.monitoring.drifting import profiled, reference

CONTINUOUS = numeric_law(np.full(4_096, 5.0))


@pytest.fixture(autouse=True)
def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay a tenth of what a real calibration replays."""
    monkeypatch.setattr(budget, "_COLUMN_WINDOWS", 70_000)


@functools.cache
def calibrated(rows: int = 5_000) -> Thresholds:
    return calibrate(reference(), rows)


def test_the_level_keeps_the_budget_and_uses_it() -> None:
    found = calibrated()
    assert 0.3 < found.expected <= 1
    assert found.interval[0] < found.expected < found.interval[1]
    assert found.run_length == pytest.approx(MONTH / found.expected)
    assert 0.005 < found.level < 0.3
    assert (found.budget, found.k, found.m, found.min_rows) == (1, 2, 3, 500)
    assert found.reference_id == reference().id
    assert found.notes[0].startswith(
        "The reference has a history of 0 windows, too short to show that 1 alerts in "
        "30.4 windows are kept: it would have to be 95 windows."
    )


def replay(columns: int, rows: int = 5_000, **how: int) -> Replay:
    return Replay(
        [ColumnLaw("feature", CONTINUOUS)] * columns,
        20_000,
        rows,
        k=how.get("k", 2),
        m=how.get("m", 3),
        once=0.3,
        effects=EFFECTS,
        seed=how.get("seed", 0),
        column_windows=how.get("column_windows", 60_000),
    )


def test_a_smaller_budget_has_a_smaller_level() -> None:
    found = replay(10)
    levels = [found.level(budget, MONTH) for budget in (0.5, 1.0, 2.0)]
    assert levels == sorted(levels) and levels[0] < levels[2]
    # Windows of an hour: the same budget is a smaller share of them.
    assert found.level(1.0, 730.0) < levels[0]


def test_the_same_seed_gives_the_same_level() -> None:
    one, two = (replay(3, column_windows=20_000) for _ in range(2))
    assert (one.model_p == two.model_p).all()
    other = replay(3, column_windows=20_000, seed=1)
    assert not (one.model_p == other.model_p).all()


def test_a_replay_is_of_what_the_model_has() -> None:
    found = {
        name: law_of(column) for name, column in reference().profile.columns.items()
    }
    assert found["fare"].values == found["score"].values == CONTINUOUS
    assert found["score"].role == "score"
    payment = found["payment"].values
    assert payment is not None and payment.kind == "category"
    assert len(payment.probabilities) == 5
    tips = found["tips"].values
    assert tips is not None and tips.zero_place is not None
    assert tips.probabilities[tips.zero_place] == pytest.approx(0.1, abs=0.01)
    label = found["label"].values
    assert label is not None and len(label.probabilities) == 2


def history(windows: int, count: int, vary: float) -> tuple[Profile, ...]:
    rng = np.random.default_rng(4)
    return tuple(
        profiled(reference(), i, count, shift=float(vary * rng.standard_normal()))
        for i in range(windows)
    )


def test_days_that_vary_more_than_rows_do_are_corrected_for() -> None:
    of = dataclasses.replace(reference(), history=history(20, 2_000, 0.15))
    windows = overdispersion.history_of(of.history, EFFECTS)
    usual = replay(1, 2_000, column_windows=20_000).scores * 7
    roles = {name: column.grid.role for name, column in of.profile.columns.items()}
    inflation = windows.inflation(roles, usual)
    assert list(inflation) == ["fare"]
    assert inflation["fare"] > 3
    steady = overdispersion.history_of(history(20, 2_000, 0.0), EFFECTS)
    assert steady.inflation(roles, usual) == {}
    short = overdispersion.history_of(of.history[:5], EFFECTS)
    assert short.inflation(roles, usual) == {}


def test_a_long_history_has_a_say_in_the_level() -> None:
    profiles = history(100, 600, 0.25)
    # All columns vary together in the real windows' replay: nothing is corrected for.
    windows = overdispersion.history_of(profiles, EFFECTS)
    roles = [column.grid.role for column in reference().profile.columns.values()]
    levels = np.exp(np.linspace(-11, -0.7, 60))
    correlation = 600 / 20_600

    def level(inflation: dict[str, float]) -> float:
        return overdispersion.level_of_history(
            windows,
            inflation,
            roles,
            None,
            levels,
            1 / MONTH,
            (2, 3, 0.3, correlation),
            0,
        )

    assert level({}) < 1e-3 < level({"fare": 30.0})


def test_a_history_too_short_for_the_budget_is_told_or_refused() -> None:
    of = dataclasses.replace(reference(), history=history(9, 600, 0.0))
    with pytest.raises(DataError) as error:
        calibrate(of, 600, budget=2.0, require_history=True)
    assert str(error.value) == (
        "The reference has a history of 9 windows, too short to show that 2 alerts in "
        "30.4 windows are kept: it would have to be 49 windows. Collect them, or raise "
        "the budget."
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"budget": 0.0},
            "The budget is 0 alerts per model and month, which has 30.4 windows. Give "
            "a budget above 0 and below half the windows.",
        ),
        (
            {"budget": 20.0},
            "The budget is 20 alerts per model and month, which has 30.4 windows. Give "
            "a budget above 0 and below half the windows.",
        ),
        (
            {"k": 4},
            "Drift is asked to be in 4 of the last 3 windows. Give a k from 1 to m.",
        ),
        (
            {"once": 1.0},
            "The share of the level for one window alone is 1. Give one from 0 up to "
            "but not including 1.",
        ),
        (
            {"rows_per_window": 0},
            "A window of 0 rows cannot be replayed. Give the rows of a typical window.",
        ),
        (
            {"effects": {"kss": 0.1}},
            "There is no drift type 'kss' to give a least effect for. Did you mean "
            "'ks'?",
        ),
        (
            {"effects": {"ks": -0.1}},
            "The least effect of 'ks' is -0.1. Give 0 or more.",
        ),
        (
            {"groups": {"score": 1.0}},
            "The groups' shares of the level are {'score': 1.0}. Give shares above 0 "
            "that leave something for the features.",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    wrong: dict[str, object], text: str
) -> None:
    asked: dict[str, object] = {"rows_per_window": 5_000, **wrong}
    with pytest.raises(DataError) as error:
        calibrate(reference(), **asked)  # type: ignore[arg-type]
    assert str(error.value) == text


def test_a_history_is_part_of_a_calibration() -> None:
    profiles = history(20, 1_000, 0.3)
    of = Reference(merged(profiles), profiles)
    found = calibrate(of, 1_000)
    assert list(found.inflation) == ["fare"]
    assert found.notes[0].startswith(
        "The windows of 1 columns vary more than independent rows would, most those of "
        "'fare'"
    )


def simulated(rows: int, years: int, columns: int, limits: Thresholds) -> list[float]:
    model = drift_alarms.model(columns, places=256)
    found = [
        drift_alarms.model_year(model, rows, limits, year) for year in range(years)
    ]
    return [each["alerts"] / (each["windows"] / MONTH) for each in found]


def test_years_without_drift_keep_the_budget() -> None:
    model = drift_alarms.model(30, places=256)
    limits = drift_alarms.calibrated(model, 1_000)
    assert limits.expected <= 1
    monthly = simulated(1_000, 12, 30, limits)
    # 144 months: 144 alerts are allowed, with a standard deviation of 12.
    assert 0.2 < np.mean(monthly) < 1.25


def test_below_the_least_rows_no_alert_is_raised() -> None:
    limits = Thresholds(level=0.05, reference_rows=20_000)
    found = drift_alarms.model_year(drift_alarms.model(20, 128), 200, limits, 0)
    assert found["alerts"] == 0
    # Where others alarm in every window.
    assert found["peers"][0] >= 4


@pytest.mark.long
@pytest.mark.parametrize("rows", [1_000, 5_000])
def test_budget_and_power_hold_for_a_model_of_300_columns(rows: int) -> None:
    model = drift_alarms.model(300, places=256)
    limits = drift_alarms.calibrated(model, rows)
    years = [drift_alarms.model_year(model, rows, limits, year) for year in range(10)]
    monthly = np.array([each["alerts"] / (each["windows"] / MONTH) for each in years])
    error = monthly.std(ddof=1) / np.sqrt(len(monthly))
    assert 0.2 < monthly.mean() < 1 + 3 * error
    for year in years:
        assert year["peers"][0] == drift_alarms._PEER_WINDOWS
    if rows != 5_000:
        return
    for scenario, least in (
        ("0.15", 0.99),
        ("0.10", 0.9),
        ("new category", 0.99),
        ("missing", 0.99),
        ("heavy tail", 0.99),
    ):
        replays = [each for year in years for each in year["power"][scenario]]
        assert np.mean([each[0] for each in replays]) >= least, scenario
        assert np.mean([each[1] for each in replays if each[0]]) >= 0.97, scenario


def test_a_law_of_few_values_is_not_replayed_by_value() -> None:
    column = dataclasses.replace(
        reference().profile["fare"],
        rows=20,
        values=20,
        counts=np.append(20, np.zeros(reference().grid["fare"].places - 1, np.int64)),
    )
    law = law_of(column)
    assert law.values is None
    assert laws.zero_place(column) is None
    found = thresholds_of(
        [law, ColumnLaw("feature", None, 0.5, {"missing": 0.5})], 20, 500
    )
    assert found.level > 0
