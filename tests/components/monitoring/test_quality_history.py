"""Stored windows: read as written, refused when damaged, laid out as arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from penstock.components.monitoring.quality.history import (
    History,
    Point,
    QualityWindow,
    file_name,
    in_order,
    read_windows,
    write_window,
)
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

DAY = Window.day("2026-11-30")


def _window(
    window: Window = DAY, model: str = "taxi", auc: float = 0.8
) -> QualityWindow:
    return QualityWindow(
        window,
        model,
        {"7": 90, "8": 10},
        100,
        80,
        0.95,
        (
            Point("auc", "overall", auc, auc - 0.0196, auc + 0.0196, 80),
            Point("auc", "payment_type=Cash", math.nan, math.nan, math.nan, 3),
        ),
        {"ADWIN": {"detector": "ADWIN", "rows": 3, "sizes": [[[1.0, 0.0]]]}},
    )


def test_a_window_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_window(tmp_path / "windows", _window())
    assert path.name == "2026-11-30.json"
    (found,) = read_windows(tmp_path / "windows")
    assert dataclasses.replace(found, points=found.points[:1]) == dataclasses.replace(
        _window(), points=_window().points[:1]
    )
    assert math.isnan(found.points[1].value)
    assert found.points[1].rows == 3


def test_windows_are_small(tmp_path: Path) -> None:
    points = tuple(
        Point("auc", f"payment_type=Kind {number}", 1 / (number + 3), 0.1, 0.9, 1_000)
        for number in range(100)
    )
    path = write_window(tmp_path, dataclasses.replace(_window(), points=points))
    assert path.stat().st_size < 8_000


def test_an_hour_has_a_name_that_file_systems_take() -> None:
    assert file_name(Window.hour("2026-11-30", 6)) == (
        "2026-11-30T060000Z_2026-11-30T070000Z.json"
    )


def test_of_two_of_the_same_time_the_later_counts() -> None:
    found = in_order([_window(auc=0.7), _window(auc=0.8)])
    assert [each.points[0].value for each in found] == [0.8]


def test_windows_that_overlap_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        in_order([_window(), _window(Window.hour("2026-11-30", 6))])
    assert str(caught.value) == (
        "The windows 2026-11-30 and 2026-11-30T06:00:00Z/2026-11-30T07:00:00Z overlap, "
        "so that rows would count twice. Keep windows of one length."
    )


def test_windows_of_two_models_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        in_order([_window(), _window(Window.day("2026-12-01"), "other")])
    assert str(caught.value) == (
        "The window 2026-11-30 is of model 'taxi' and 2026-12-01 of 'other'. Keep each "
        "model's windows in a folder of its own."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ('{"format": "other"}', "is no stored window: its 'format' is not"),
        (
            '{"format": "penstock-quality-window", "version": 9}',
            "of version 9, and this penstock reads version 1",
        ),
        (
            '{"format": "penstock-quality-window", "version": 1}',
            "is a damaged window (KeyError: 'points'). Evaluate that window again.",
        ),
    ],
)
def test_a_damaged_window_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "2026-11-30.json").write_text(text)
    with pytest.raises(DataError) as caught:
        read_windows(tmp_path)
    assert expected in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .* of stored windows"):
        read_windows(tmp_path / "none")


def test_arrays_have_a_place_for_every_series_and_window() -> None:
    days = [Window.day(f"2026-11-{day}") for day in (28, 29, 30)]
    windows = [_window(day, auc=auc) for day, auc in zip(days, (0.7, 0.8, 0.9))]  # noqa: B905
    windows[1] = dataclasses.replace(windows[1], points=())
    history = History.of(windows)
    assert history.keys == (("auc", "overall"), ("auc", "payment_type=Cash"))
    assert history.values[0].tolist()[::2] == [0.7, 0.9]
    assert math.isnan(history.values[0, 1])
    assert np.diff(history.times) == pytest.approx([1 / 7, 1 / 7])
    assert history.errors[0, 0] == pytest.approx(0.01, rel=1e-3)
    assert history.weights[1].tolist() == [0.0, 0.0, 0.0]
    assert history.last(2).keys == history.keys
    assert [each.name for each in history.last(2, without=1).windows] == [
        "2026-11-28",
        "2026-11-29",
    ]
    assert history.only([1]).keys == (("auc", "payment_type=Cash"),)


def test_standard_errors_are_those_of_the_series_scaled_by_rows() -> None:
    days = [Window.day(f"2026-11-{day}") for day in (29, 30)]
    windows = [
        dataclasses.replace(
            _window(day),
            points=(Point("auc", "overall", 0.8, 0.8 - half, 0.8 + half, rows),),
        )
        for day, half, rows in zip(days, (0.0392, 0.0196), (100, 400), strict=True)
    ]
    first, second = History.of(windows).errors[0]
    assert first == pytest.approx(2 * second)
    assert first == pytest.approx(0.02, rel=1e-3)


def test_small_slices_do_not_count() -> None:
    history = History.of([_window()], min_rows=81)
    assert np.isnan(history.values).all()


def test_the_file_is_plain(tmp_path: Path) -> None:
    written = json.loads(write_window(tmp_path, _window()).read_text())
    assert written["points"]["slice"] == ["overall", "payment_type=Cash"]
    assert written["points"]["value"] == [0.8, None]
