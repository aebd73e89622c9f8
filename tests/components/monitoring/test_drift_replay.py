"""Stored windows, decided about anew."""

from __future__ import annotations

import json
import math

import pytest

from penstock.components.monitoring import comparing
from penstock.components.monitoring.decision import Thresholds
from penstock.components.monitoring.replay import (
    Backtest,
    episodes,
    replay,
    replay_evidence,
)
from penstock.schemas.errors import DataError
from tests.components.monitoring.drifting import reference, window

LIMITS = Thresholds(level=0.03, reference_rows=20_000)


def backtest(limits: Thresholds = LIMITS) -> Backtest:
    of = reference()
    windows = [
        *(window(i) for i in range(8)),
        window(8, count=100),
        *(window(i, shift=0.15) for i in (9, 10)),
        window(11, count=100),
        window(12, shift=0.15),
        *(window(i) for i in range(13, 20)),
        window(20, missing=0.05),
    ]
    return replay(of.profile, windows, limits, reference_id=of.id)


def test_an_alert_that_goes_on_is_one_alert() -> None:
    found = backtest()
    states = [each.state for each in found.decisions]
    assert states[8] == states[11] == "insufficient_data"
    assert states[9] == states[10] == states[12] == states[20] == "alert"
    assert [each.window.name for each in found.episodes] == ["2026-01-10", "2026-01-21"]
    assert found.decided == 19
    assert found.alerts_per_month == pytest.approx(2 / (19 / 30.4))
    assert found.run_length == 9.5
    low, high = found.interval
    assert low == pytest.approx(0.2422 / (19 / 30.4), rel=1e-3)
    assert high == pytest.approx(7.2247 / (19 / 30.4), rel=1e-3)


def test_a_replay_of_profiles_is_one_of_their_evidence() -> None:
    of = reference()
    windows = [
        *(window(i) for i in range(4)),
        window(4, shift=0.07),
        window(5, count=300),
        window(6, shift=0.07),
        window(7, new=0.02),
        window(8),
    ]
    evidence = [
        comparing.compare_windows(of.profile, each, reference_id=of.id)
        for each in windows
    ]
    one_by_one = replay_evidence(evidence, LIMITS)
    at_once = replay(of.profile, windows, LIMITS, reference_id=of.id)
    assert [each.state for each in one_by_one.decisions] == [
        each.state for each in at_once.decisions
    ]
    for one, two in zip(one_by_one.decisions, at_once.decisions, strict=True):
        assert [each.column for each in one.alerts] == [
            each.column for each in two.alerts
        ]
        assert [each.p_value for each in one.alerts] == [
            each.p_value for each in two.alerts
        ]


@pytest.mark.parametrize("shift", [0.02, 0.03, 0.04, 0.05])
def test_windows_before_a_gap_hide_nothing(shift: float) -> None:
    # Two of two windows are surer than two of seven are.
    limits = Thresholds(level=0.03, reference_rows=20_000, k=2, m=7, once=0.0)
    of = reference()
    windows = [
        *(window(i) for i in range(6)),
        *(window(i, shift=shift) for i in (70, 71)),
        window(72),
    ]
    evidence = [
        comparing.compare_windows(of.profile, each, reference_id=of.id)
        for each in windows
    ]
    one_by_one = replay_evidence(evidence, limits).decisions
    at_once = replay(of.profile, windows, limits, reference_id=of.id).decisions
    assert [each.state for each in one_by_one] == [each.state for each in at_once]


def test_other_thresholds_give_other_alerts() -> None:
    deaf = backtest(Thresholds(level=1e-200, reference_rows=20_000))
    assert deaf.episodes == ()
    assert deaf.run_length == math.inf
    assert deaf.to_json()["run_length_windows"] is None


def test_a_backtest_is_plain_data() -> None:
    found = json.loads(json.dumps(backtest().to_json(), allow_nan=False))
    assert found["windows"] == 21
    assert found["alerts"][0]["columns"] == ["fare"]
    assert found["states"]["2026-01-09"] == "insufficient_data"
    assert Thresholds.from_json(found["thresholds"]) == LIMITS


def test_windows_without_rows_leave_nothing_to_count() -> None:
    found = replay(reference().profile, [window(0, count=50)], LIMITS)
    assert found.decided == 0
    assert math.isnan(found.alerts_per_month)
    assert found.interval == (0, math.inf)
    assert episodes(found.decisions) == ()


def test_what_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(DataError) as error:
        replay(reference().profile, [], LIMITS)
    assert str(error.value) == "There are no windows to replay. Profile some first."
    with pytest.raises(DataError) as error:
        replay(reference().profile, [window(1), window(0)], LIMITS)
    assert str(error.value) == (
        "Window '2026-01-01' does not come after '2026-01-02'. Give windows in the "
        "order of time, each once."
    )
