"""How late labels are: against statsmodels, and over replays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight

from penstock.components.monitoring.label_delays import (
    LabelBias,
    delay_curve,
    duration,
    label_bias,
)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=60))
def test_the_curve_is_that_of_kaplan_and_meier(rows: list[tuple[int, bool]]) -> None:
    durations = np.array([time for time, _ in rows], np.float64)
    has_come = np.array([come for _, come in rows])
    curve = delay_curve(durations, has_come)
    assert curve.labels == has_come.sum() and curve.rows == len(rows)
    assert curve.watched == durations.max()
    if not has_come.any():
        assert curve.ever == 0 and np.isnan(curve.quantile(0.5))
        assert curve.came_by(np.array([5.0])).tolist() == [0.0]
        return
    # statsmodels takes no times of 0.
    oracle = SurvfuncRight(durations + 1, has_come.astype(int))
    assert curve.delays.tolist() == (oracle.surv_times - 1).tolist()
    assert curve.shares == pytest.approx(1 - oracle.surv_prob)
    at = np.array([-1.0, 0.0, 7.5, 100.0])
    expected = [
        0.0 if not (curve.delays <= t).any() else curve.shares[curve.delays <= t][-1]
        for t in at
    ]
    assert curve.came_by(at) == pytest.approx(expected)


def test_waiting_rows_keep_the_curve_true() -> None:
    """Rows of all ages, of which only labels so far are seen: the median stays."""
    found, naive = [], []
    draw = np.random.default_rng(3)
    for _ in range(60):
        delay = np.where(draw.random(2_000) < 0.8, draw.exponential(100, 2_000), np.inf)
        age = draw.uniform(0, 800, 2_000)
        come = delay <= age
        curve = delay_curve(np.minimum(delay, age), come)
        found.append(curve.came_by(np.array([70.0]))[0])
        naive.append(np.mean(delay[come] <= 70))
    truth = 0.8 * (1 - np.exp(-0.7))
    z = (np.mean(found) - truth) / (np.std(found, ddof=1) / np.sqrt(60))
    assert abs(z) < 3
    assert np.mean(naive) > truth + 0.1
    assert curve.ever == pytest.approx(0.8, abs=0.05)


def test_a_curve_is_known_once_no_more_labels_can_come() -> None:
    delays = np.linspace(1, 100, 100)
    waiting = np.full(50, 110.0)
    durations = np.concatenate([delays, waiting])
    come = np.arange(150) < 100
    assert not delay_curve(durations, come).is_known
    durations[-1] = 130.0
    assert delay_curve(durations, come).is_known
    assert not delay_curve(durations[70:], come[70:] & (np.arange(80) < 29)).is_known


def test_classes_that_come_early_are_named() -> None:
    draw = np.random.default_rng(4)
    labels = (draw.random(4_000) < 0.3).astype(int)
    delays = draw.exponential(np.where(labels == 1, 20_000, 5_000))
    found = label_bias(delays, labels.tolist())
    assert isinstance(found, LabelBias)
    assert found.label == 1
    early = delays <= np.median(delays)
    assert found.early == pytest.approx(labels[early].mean())
    assert found.late == pytest.approx(labels[~early].mean())
    assert found.p_value < 1e-12
    assert found.sentence == (
        f"'1' is {found.early:.1%} of the labels that come within the first "
        f"{found.after / 60:.3g} minutes and {found.late:.1%} of those that come later "
        f"(p = {found.p_value:.2g}). Metrics of windows whose labels are still coming "
        "are biased; look at windows that are complete."
    )
    texts = label_bias(delays, ["no" if each else "yes" for each in labels])
    assert texts is not None and texts.label in ("no", "yes")


def test_numbers_that_come_early_are_compared_by_their_ranks() -> None:
    draw = np.random.default_rng(5)
    values = draw.lognormal(0, 1, 3_000)
    found = label_bias(draw.exponential(1 / values), values.tolist())
    assert found is not None and found.label is None and found.early > found.late
    assert found.sentence.startswith("Labels that come within the first ")
    assert label_bias(draw.exponential(1, 3_000), values.tolist()) is None
    assert label_bias(draw.exponential(1, 3_000), [f"{v}" for v in values]) is None


def test_labels_that_come_alike_are_rarely_called_biased() -> None:
    draw = np.random.default_rng(6)
    found = 0
    for _ in range(500):
        labels = (draw.random(400) < 0.3).astype(int)
        found += label_bias(draw.exponential(1, 400), labels.tolist()) is not None
    assert found <= stats.binom.ppf(0.999, 500, 1.2e-3)


def test_too_few_labels_or_one_time_or_class_say_nothing() -> None:
    assert label_bias(np.arange(50.0), [1] * 25 + [0] * 25) is None
    assert label_bias(np.zeros(100), [1] * 50 + [0] * 50) is None
    assert label_bias(np.arange(100.0), [1] * 100) is None


def test_times_are_said_in_fitting_units() -> None:
    assert [duration(each) for each in (1, 90, 600, 7_200, 200_000)] == [
        "1 seconds",
        "90 seconds",
        "10 minutes",
        "2 hours",
        "2.31 days",
    ]
