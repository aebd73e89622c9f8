"""Scales, paths and numbers of the evaluation page."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.components.evaluation.drawing import (
    MAX_BINS,
    MAX_POINTS,
    Scale,
    curve_path,
    interval,
    interval_path,
    merged_bins,
    number,
    places,
    rounded,
    scale_of,
    shown,
    thinned,
)

UNIT = Scale(0.0, 1.0, 0, 1_000)


def test_a_scale_puts_numbers_between_its_ends() -> None:
    up = Scale(-1.0, 1.0, 100, 0)
    assert [up.pixel(each) for each in (-2, -1, 0, 0.5, 1, math.inf)] == [
        *(100, 100, 50, 25, 0, 0)
    ]


@pytest.mark.parametrize(
    ("lower", "upper", "texts"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.031, 0.012, ["−0.03", "−0.02", "−0.01", "0.00", "0.01"]),
        (1_010.0, 5_200.0, ["2,000", "3,000", "4,000", "5,000"]),
        (0.799, 0.801, ["0.7990", "0.7995", "0.8000", "0.8005", "0.8010"]),
    ],
)
def test_ticks_are_round_numbers(lower: float, upper: float, texts: list[str]) -> None:
    assert [text for _, text in Scale(lower, upper, 0, 100).ticks(5)] == texts


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 10))
def test_there_are_about_as_many_ticks_as_asked(
    lower: float, width: float, about: int
) -> None:
    upper = lower + width
    if width > 1e-3 * abs(lower):
        ticks = Scale(lower, upper, 0, 100).ticks(about)
        assert about / 3 - 1 <= len(ticks) <= about + 1
        assert len({text for _, text in ticks}) == len(ticks)


def test_one_wide_interval_does_not_hide_the_others() -> None:
    spans: list[tuple[float, float, float]] = [
        (0.80, 0.79, 0.81),
        (0.82, 0.81, 0.83),
        (0.81, 0.10, 0.99),
    ]
    scale = scale_of(spans, [], 200)
    assert (scale.lower, scale.upper) == pytest.approx((0.76, 0.86))
    assert interval_path(spans[2], scale, 9) == "M6 9H194M100 5v8"


def test_a_scale_shows_all_marks_and_values() -> None:
    scale = scale_of([(0.8, None, None), (None, None, None)], [0.5, math.inf], 200)
    assert (scale.lower, scale.upper) == (0.5, 0.8)
    only = scale_of([(0.8, 0.7, 0.95)], [], 200)
    assert (only.lower, only.upper) == (0.7, 0.95)


NUMBERS = st.none() | st.floats()


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=4), st.lists(st.floats())
)
@example([(-1.7e308, None, None), (1.7e308, None, None)], [])
@example([(5e-324, None, None), (0.0, None, None)], [])
@example([(1e16, 1e16 - 2, 1e16 + 2), (0.8, 0.9, 0.7)], [])
def test_any_numbers_have_a_scale(
    spans: list[tuple[float | None, float | None, float | None]], marks: list[float]
) -> None:
    scale = scale_of(spans, marks, 200)
    assert scale.lower < scale.upper
    assert scale.ticks(5) is not None
    for span in spans:
        assert re.fullmatch(r"(M\d+ 9H\d+)?(M\d+ 5v8)?", interval_path(span, scale, 9))


def test_a_curve_is_a_path_of_whole_steps() -> None:
    points = [(0, 0), (0.001, 0.25), (math.nan, 0.3), (0.0012, 0.25), (1, 0.2)]
    assert curve_path(points, UNIT, UNIT) == "M0 0l1 250 999-50"
    assert curve_path([(0.5, 0.5)], UNIT, UNIT) == "M500 500l0 0"
    assert curve_path([], UNIT, UNIT) == ""


def test_a_thinned_curve_keeps_its_ends_and_its_way() -> None:
    across = np.linspace(0, 1, 10_000)
    curve = np.column_stack([across**8, across])
    few = thinned(curve)
    assert len(few) <= MAX_POINTS
    assert few[0].tolist() == [0, 0]
    assert few[-1].tolist() == [1, 1]
    between = np.interp(curve[:, 1], few[:, 1], few[:, 0])
    assert np.abs(between - curve[:, 0]).max() < 0.002


def test_merged_bins_keep_weights_and_means() -> None:
    random = np.random.default_rng(5)
    bins = random.random((1_000, 3))
    bins[:5, 2] = 0
    bins[5, 0] = np.nan
    few = merged_bins(bins)
    assert len(few) == MAX_BINS
    kept = bins[6:]
    assert few[:, 2].sum() == pytest.approx(kept[:, 2].sum())
    for column in (0, 1):
        assert np.average(few[:, column], weights=few[:, 2]) == pytest.approx(
            np.average(kept[:, column], weights=kept[:, 2])
        )
    assert few[:, 2].max() < 1.2 * few[:, 2].min()
    assert merged_bins(bins[10:13])[:, 0].tolist() == sorted(bins[10:13, 0])


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (None, 4, "–"),
        (math.nan, 4, "NaN"),
        (-math.inf, 4, "−∞"),
        (0.8125, 3, "0.812"),
        (-0.0, 2, "0.00"),
        (-0.00001, 3, "−1.0e−5"),
        (1_234_567.8, 1, "1,234,567.8"),
        (2.5e12, 0, "2.5e12"),
    ],
)
def test_numbers_are_said_plainly(
    value: float | None, decimals: int, text: str
) -> None:
    assert number(value, decimals) == text


def test_differences_have_a_sign() -> None:
    assert number(0.5, 2, signed=True) == "+0.50"
    assert number(0.0, 2, signed=True) == "0.00"
    assert interval(-0.5, 0.25, 2, signed=True) == "[−0.50, +0.25]"
    assert interval(None, 0.25, 2) == ""


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([0.5, 0.912], 4),
        ([0.5, 1.02], 4),
        ([12.5], 3),
        ([0.003], 6),
        ([0.0, 0.0, 1.1, 0.9, 172.7], 4),
        ([1e9 + 0.5], 0),
        ([3.0, None, math.nan], 0),
        ([], 0),
    ],
)
def test_a_metric_has_places_for_a_typical_number(
    values: list[float | None], decimals: int
) -> None:
    assert places(values, 4) == decimals


def test_an_axis_ends_at_round_numbers() -> None:
    assert rounded([0.0, 0.95], 5) == (0.0, 1.0)
    assert rounded([-3.2, 41.0], 5) == (-10.0, 50.0)
    assert rounded([2.0, 2.0], 5) == (2.0, 3.0)


@given(st.text())
def test_any_text_is_shown_in_letters_that_can_be_written(text: str) -> None:
    plain = shown(text, 10)
    assert len(plain) <= 11
    plain.encode()
    assert all(each.isprintable() or each in "\u200c\u200d" for each in plain)


def test_text_that_fits_is_shown_as_it_is() -> None:
    assert shown("10 %, “ß”, 👩\u200d🚕") == "10 %, “ß”, 👩\u200d🚕"
    assert shown("x" * 80) == "x" * 80
    assert shown("x" * 81) == "x" * 80 + "…"
