"""Which series are found to sink: within a budget, over slices, looked at daily."""

from __future__ import annotations

import math

import numpy as np
import pytest

from penstock.components.monitoring.quality.history import History
from penstock.components.monitoring.quality.trends import Array
from penstock.components.monitoring.quality.watching import Watch, look, watched
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.errors import PipelineError
from tests.components.monitoring.test_quality_trends import START, series

SLICES = 6


def _alerts(values: Array, watch: Watch, *, error: float = 0.01) -> Array:
    """Return the alerts of models looked at daily, (days, models, slices)."""
    models, slices, days = values.shape
    directions = np.ones(slices, np.int64)
    sinks = np.zeros((days, models, slices), bool)
    for model in range(models):
        history = series(values[model], error)
        for day in range(7, days):
            seen = look(history, directions, watch, days - 1 - day)
            sinks[day, model] = seen.sinks(watch.level)
    alerts = np.zeros_like(sinks)
    for day in range(watch.m - 1, days):
        recent = sinks[day - watch.m + 1 : day + 1]
        alerts[day] = sinks[day] & (recent.sum(axis=0) >= watch.k)
    return alerts


def _per_month(alerts: Array) -> float:
    """Return alerts per model and month: days of one alert in a row are one."""
    raised = alerts.any(axis=2)
    begun = int((raised[1:] & ~raised[:-1]).sum())
    return begun / float(raised.shape[1] * (len(raised) - 9) / 30.4)


def _steady(
    random: np.random.Generator, models: int, days: int, excess: float
) -> Array:
    noise = math.hypot(0.01, excess)
    found: Array = 0.8 + noise * random.normal(size=(models, SLICES, days))
    return found


@pytest.mark.parametrize("excess", [0.0, 0.01])
def test_daily_looks_stay_within_the_budget(excess: float) -> None:
    random = np.random.default_rng([1, int(excess * 100)])
    rate = _per_month(_alerts(_steady(random, 30, 70, excess), Watch(alerts=1.0)))
    assert rate <= 1.0


@pytest.mark.long
@pytest.mark.parametrize("slices", [6, 60])
@pytest.mark.parametrize("excess", [0.0, 0.01])
def test_model_years_stay_within_the_budget(excess: float, slices: int) -> None:
    random = np.random.default_rng([2, int(excess * 100), slices])
    models = 100 if slices == 6 else 20
    noise = math.hypot(0.01, excess)
    found = []
    for _ in range(1 if slices == 6 else 2):
        values = 0.8 + noise * random.normal(size=(models, slices, 365))
        found.append(_per_month(_alerts(values, Watch(alerts=1.0))))
    print(f"{slices} slices, excess {excess}: {np.mean(found):.3f} alerts a month")
    assert np.mean(found) <= 1.0


def _lasting(
    random: np.random.Generator, models: int, slices: int, days: int, correlation: float
) -> Array:
    """Half of the variance lasts from day to day, in each slice by itself."""
    steps = random.normal(size=(models, slices, days))
    lasting = steps.copy()
    fresh = math.sqrt(1 - correlation**2)
    for day in range(1, days):
        lasting[..., day] *= fresh
        lasting[..., day] += correlation * lasting[..., day - 1]
    found: Array = 0.8 + 0.01 * (lasting + random.normal(size=lasting.shape))
    return found


def test_many_slices_that_resemble_their_neighbors_stay_within_the_budget() -> None:
    """Each taken by itself, as a correlation of 35 windows is known, this was 1.3."""
    values = _lasting(np.random.default_rng(8), 8, 60, 80, 0.5)
    assert _per_month(_alerts(values, Watch(alerts=0.5))) <= 0.5


@pytest.mark.long
@pytest.mark.parametrize(
    ("slices", "correlation", "most"),
    [(6, 0.5, 1.0), (6, 0.7, 1.0), (60, 0.5, 1.0), (60, 0.7, 1.1)],
)
def test_months_of_windows_that_resemble_their_neighbors(
    slices: int, correlation: float, most: float
) -> None:
    """For the docs."""
    random = np.random.default_rng([3, slices, int(10 * correlation)])
    values = _lasting(random, 240 // slices + 20, slices, 190, correlation)
    rate = _per_month(_alerts(values, Watch(alerts=1.0)))
    print(f"{slices} slices, {correlation}: {rate:.3f} alerts a month")
    assert rate <= most


def test_a_slice_that_sinks_is_found_in_five_weeks_and_named_first() -> None:
    """0.003 of AUC a week, where a day's standard error is 0.0045."""
    random = np.random.default_rng(4)
    models, days = 40, 21 + 35
    values = 0.8 + 0.0045 * random.normal(size=(models, SLICES, days))
    values[:, 0] -= 0.003 * np.maximum(np.arange(days) - 21, 0) / 7
    watch = Watch(alerts=0.5)
    alerts = _alerts(values, watch, error=0.0045)
    assert alerts[..., 0].any(axis=0).mean() >= 0.95
    assert alerts[..., 1:].any(axis=(0, 2)).mean() <= 0.1
    for model in range(5):
        findings = watched(series(values[model], 0.0045), watch)
        assert (findings[0].slice, findings[0].rank) == ("n=0", 1)
        assert findings[0].state == "alert"


def _history(values: Array) -> History:
    return series(values, 0.004)


def test_what_is_found_is_said() -> None:
    random = np.random.default_rng(5)
    days = np.arange(35) / 7
    values = 0.8 + 0.004 * random.normal(size=(3, 35))
    values[1] -= 0.01 * days
    first, *others = watched(_history(values))
    assert (first.metric, first.slice, first.state, first.rank) == (
        *("auc", "n=1", "alert"),
        1,
    )
    assert first.slope_per_week == pytest.approx(-0.01, abs=0.002)
    assert first.lower is not None and first.upper is not None
    assert first.lower < -0.01 < first.upper
    assert first.sentence.startswith(
        "'auc' in n=1 moves by -0.0091 a week (95 % interval"
    )
    assert first.sentence.endswith("35 windows): worse than chance explains.")
    assert {each.state for each in others} == {"ok"}
    assert {each.rank for each in others} == {None}


def test_a_step_is_told_with_the_deployment() -> None:
    random = np.random.default_rng(6)
    values = 0.8 + 0.004 * random.normal(size=(2, 35))
    values[0, 25:] -= 0.05
    deployments = [(START + 25 * DAY, "version 8")]
    first, _ = watched(_history(values), deployments=deployments)
    assert first.state == "alert"
    assert first.change_points[-1].deployment == "version 8"
    assert ", when version 8 was deployed: worse than chance explains." in (
        first.sentence
    )


def test_what_rises_raises_no_alert() -> None:
    values = np.tile(0.8 + 0.01 * np.arange(35) / 7, (1, 1))
    assert watched(_history(values))[0].state == "ok"


def test_what_is_certain_and_small_does_not_matter() -> None:
    """A loss of 0.0005 a week, with errors so small that it is beyond doubt."""
    random = np.random.default_rng(7)
    values = 0.8 - 0.0005 * np.arange(35) / 7 + 0.00005 * random.normal(size=(1, 35))
    tight = series(values, 0.00005)
    assert watched(tight)[0].state == "ok"
    assert watched(tight, Watch(least_change=0.0))[0].state == "alert"


def test_one_look_is_a_watch_and_two_an_alert() -> None:
    random = np.random.default_rng(8)
    values = 0.8 + 0.004 * random.normal(size=(1, 35))
    values[0, 20:] -= 0.02
    states = [watched(_history(values[:, :days]))[0].state for days in range(20, 36)]
    assert states[0] == "ok" and states[-1] == "alert"
    assert states.index("watch") < states.index("alert")


def test_few_windows_are_said_to_be_few() -> None:
    (found,) = watched(_history(np.full((1, 5), 0.8)))
    assert found.state == "insufficient_data"
    assert found.slope_per_week is None
    assert found.sentence == (
        "'auc' in n=0 has 5 windows with enough rows, and a trend needs 7."
    )


def test_counts_are_no_quality() -> None:
    assert watched(series(np.full((1, 30), 5.0), 0.1, "example_count")) == []


def test_a_budget_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(PipelineError) as caught:
        Watch(alerts=9)
    assert str(caught.value) == (
        "A budget of 9 false alerts a month cannot be kept with 30.4 windows a month: "
        "it lies above 0 and at most at 7.6. Pass 1 for one a month."
    )
    with pytest.raises(PipelineError, match="4 of 3 looks cannot agree"):
        Watch(k=4)


def test_the_level_is_the_budgets_share_of_a_window() -> None:
    assert Watch(alerts=1.0, windows_per_month=730).level == pytest.approx(1 / 730)
    assert Window(START, START + DAY).name == "2026-09-07"
