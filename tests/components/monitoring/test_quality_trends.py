"""Trends and changes of level against statsmodels, SciPy and simulated series."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api
from scipy import stats

from penstock.components.monitoring.quality import change_points, trends
from penstock.components.monitoring.quality.history import Array, History
from penstock.components.monitoring.windows import DAY, Window

START = Window.day("2026-09-07").start


def series(values: Array, errors: Array | float, metric: str = "auc") -> History:
    """Daily series of shape (series, windows)."""
    count, days = values.shape
    windows = tuple(
        Window(START + DAY * day, START + DAY * (day + 1)) for day in range(days)
    )
    return History(
        windows,
        tuple((metric, f"n={number}") for number in range(count)),
        np.array([(each.start + DAY / 2) / (7 * DAY) for each in windows]),
        values,
        np.broadcast_to(np.asarray(errors, float), values.shape),
        np.full(values.shape, 1_000.0),
    )


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("auc", 1),
        ("auc_precision_recall", 1),
        ("binary_accuracy", 1),
        ("binary_crossentropy", -1),
        ("false_positive_rate", -1),
        ("mean_squared_error", -1),
        ("calibration", 0),
        ("example_count", None),
        ("mean_prediction", None),
        ("squared_pearson_correlation", 1),
    ],
)
def test_metrics_have_a_direction(metric: str, direction: int | None) -> None:
    assert trends.direction_of(metric) == direction


def test_a_line_is_that_of_statsmodels() -> None:
    random = np.random.default_rng(0)
    values = 0.8 + 0.02 * random.normal(size=(3, 20))
    errors = random.uniform(0.002, 0.01, (3, 20))
    values[1, [0, 7]] = np.nan
    found = trends.fit(series(values, errors))
    times = series(values, errors).times
    for number in range(3):
        known = ~np.isnan(values[number])
        design = statsmodels.api.add_constant(times[known] - times[known].mean())
        expected = statsmodels.api.WLS(
            values[number][known], design, 1 / errors[number][known] ** 2
        ).fit()
        residuals = expected.wresid
        assert found.slopes[number] == pytest.approx(expected.params[1])
        padded = np.zeros(20)
        padded[known] = residuals
        more = float(trends.lasting(padded[None], known[None])[0])
        error = expected.bse[1] * math.sqrt(max(1, 1 / expected.scale) * more)
        assert found.errors[number] == pytest.approx(error)
        assert found.degrees[number] == pytest.approx((known.sum() - 2) / more)


def test_windows_that_agree_too_well_are_not_believed_more() -> None:
    days = np.arange(14) / 7
    found = trends.fit(series((0.8 - 0.01 * days)[None], 0.01))
    assert found.slopes[0] == pytest.approx(-0.01)
    assert found.excess[0] == 1.0
    spread = ((days - days.mean()) ** 2).sum()
    assert found.errors[0] == pytest.approx(0.01 / math.sqrt(spread))
    lower, upper = found.interval()
    assert lower[0] == pytest.approx(-0.01 - stats.t.ppf(0.975, 12) * found.errors[0])
    assert upper[0] > found.slopes[0]


def test_few_windows_make_no_trend() -> None:
    found = trends.fit(series(np.full((1, 6), 0.8), 0.01))
    assert math.isnan(found.slopes[0])
    assert found.p_values(np.array([1])).tolist() == [1.0]


def test_p_values_look_where_it_is_worse() -> None:
    days = np.arange(28) / 7
    falling = np.stack([0.8 - 0.02 * days, 0.8 + 0.02 * days])
    found = trends.fit(series(falling, 0.01))
    higher, lower = found.p_values(np.array([1, 1])), found.p_values(np.array([-1, -1]))
    assert higher[0] < 1e-3 < 0.99 < higher[1]
    assert higher == pytest.approx(lower[::-1])
    assert found.p_values(np.zeros(2, int)) == pytest.approx(2 * higher[[0, 0]])


@pytest.mark.parametrize("excess", [0.0, 0.01])
@pytest.mark.parametrize("windows", [9, 35])
def test_p_values_are_not_too_low(windows: int, excess: float) -> None:
    random = np.random.default_rng([windows, int(excess * 100)])
    noise = math.hypot(0.01, excess)
    history = series(0.8 + noise * random.normal(size=(8_000, windows)), 0.01)
    directions = np.ones(8_000, np.int64)
    for levels in (
        trends.fit(history).p_values(directions),
        change_points.scan(history, directions).p_values,
        change_points.scan(history).p_values,
        change_points.scan(history, several=True).p_values,
    ):
        for level in (0.05, 0.01):
            most = level + 3 * math.sqrt(level / 8_000)
            assert (levels <= level).mean() <= most


def test_series_that_resemble_their_neighbors_are_believed_less() -> None:
    random = np.random.default_rng(4)
    steps = random.normal(size=(2_000, 60))
    values = steps.copy()
    for day in range(1, 60):
        values[:, day] = 0.5 * values[:, day - 1] + math.sqrt(0.75) * steps[:, day]
    known = np.ones(values.shape, bool)
    # (1 + 0.5) / (1 - 0.5), as far as 60 windows tell.
    assert np.median(trends.lasting(values, known)) == pytest.approx(3.0, abs=0.5)
    assert np.median(trends.lasting(steps, known)) == 1.0


def test_series_count_as_resembling_as_much_as_all_do_on_average() -> None:
    random = np.random.default_rng(5)
    steps = random.normal(size=(60, 35))
    values = steps.copy()
    for day in range(1, 35):
        values[:, day] = 0.5 * values[:, day - 1] + math.sqrt(0.75) * steps[:, day]
    days = np.arange(35)
    for each in (*values, *steps):
        line = stats.linregress(days, each)
        each -= line.intercept + line.slope * days
    known = np.ones(values.shape, bool)
    alone = np.array([trends.lasting(each[None], known[:1])[0] for each in values])
    found = trends.lasting(values, known)
    assert alone.min() < 1.7
    assert found.min() == pytest.approx(3.0, abs=0.5)  # as above
    assert (found[alone < found.min()] == found.min()).all()
    # A series of too few windows has no part in it, nor have many that do not last.
    known[0, 6:] = False
    few = trends.lasting(values[:1], known[:1])
    assert trends.lasting(values, known)[:1] == pytest.approx(few)
    assert np.median(trends.lasting(steps, np.ones(steps.shape, bool))) == 1.0


def test_a_scan_finds_the_likeliest_place() -> None:
    random = np.random.default_rng(5)
    values = 0.8 + 0.004 * random.normal(size=(4, 30))
    values[1, 18:] -= 0.03
    values[2, 10:] += 0.03
    history = series(values, 0.004)
    found = change_points.scan(history)
    assert found.places[1:3].tolist() == [18, 10]
    assert found.after[1] - found.before[1] == pytest.approx(-0.03, abs=0.005)
    assert (found.p_values[1:3] < 1e-6).all()
    assert (found.p_values[[0, 3]] > 0.01).all()
    # One side only.
    worse = change_points.scan(history, np.ones(4, np.int64))
    assert worse.p_values[1] < 1e-6 < 0.5 < worse.p_values[2]


def test_a_scan_is_students_t_at_every_place() -> None:
    random = np.random.default_rng(6)
    values = 0.8 + 0.02 * random.normal(size=(1, 16))
    values[0, 9:] -= 0.08
    found = change_points.scan(series(values, 0.01))
    levels = [
        stats.ttest_ind(values[0, :place], values[0, place:]).pvalue
        for place in range(4, 13)
    ]
    # Windows vary beyond their errors, so that the pooled variance is the one of t.
    assert found.places[0] == 4 + int(np.argmin(levels)) == 9
    assert found.p_values[0] <= 9 * min(levels) * 1.0001


def test_short_series_have_no_change() -> None:
    found = change_points.scan(series(np.full((2, 7), 0.8), 0.01))
    assert found.places.tolist() == [-1, -1]
    assert found.p_values.tolist() == [1.0, 1.0]


def test_windows_without_rows_are_passed_over() -> None:
    values = np.repeat([[0.8, 0.7]], 10, axis=1).reshape(1, 20)
    values[0, 8:12] = np.nan
    found = change_points.scan(series(values, 0.005))
    assert found.places[0] == 12


def test_the_tail_of_the_bridge_is_that_of_many_replays() -> None:
    """Miller & Siegmund's tail is above that of series, and not far above."""
    random = np.random.default_rng(7)
    history = series(0.02 * random.normal(size=(20_000, 60)), 0.01)
    levels = change_points.scan(history).p_values
    assert 0.002 < (levels <= 0.01).mean() <= 0.012


def _with_steps(*steps: tuple[int, float]) -> History:
    random = np.random.default_rng(8)
    values = 0.8 + 0.002 * random.normal(size=(1, 40))
    for place, height in steps:
        values[0, place:] += height
    return series(values, 0.002)


def test_several_changes_are_all_found_with_what_was_before_and_after() -> None:
    (found,) = change_points.change_points(_with_steps((12, -0.03), (26, 0.02)))
    assert [each.window for each in found] == ["2026-09-19", "2026-10-03"]
    assert [each.place for each in found] == [12, 26]
    assert found[0].before == pytest.approx(0.8, abs=0.002)
    assert found[0].after == found[1].before == pytest.approx(0.77, abs=0.002)
    assert found[1].after == pytest.approx(0.79, abs=0.002)


def test_a_change_is_marked_with_what_was_deployed_then() -> None:
    history = _with_steps((20, -0.03))
    at = history.windows[20].start
    deployments = [
        (at - 9 * DAY, "version 6"),
        (at - 0.3 * DAY, "version 7"),
        (at + 9 * DAY, "version 8"),
    ]
    ((found,),) = change_points.change_points(history, deployments=deployments)
    assert found.deployment == "version 7"
    ((found,),) = change_points.change_points(history, deployments=deployments[::2])
    assert found.deployment is None


def test_steady_series_have_no_changes() -> None:
    assert change_points.change_points(_with_steps()) == [()]
