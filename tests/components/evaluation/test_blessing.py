"""Thresholds over metric values: the rules, and the sentences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.evaluation.blessing import (
    ChangeBound,
    CrossSlicing,
    Measured,
    MetricName,
    SliceMetrics,
    Slicing,
    Threshold,
    ValueBound,
    Word,
    judge,
    overall_values,
    relative_change,
)

AUC = MetricName("auc", weighted=False)


def one(measured: Measured, bound: ValueBound | ChangeBound) -> tuple[Word, str]:
    judgment = judge([Threshold(AUC, bound)], [SliceMetrics((), {AUC: measured})])
    (reason,) = judgment.reasons
    return judgment.word, reason


def test_a_value_within_its_bounds_is_blessed_with_value_and_bound() -> None:
    assert one(Measured(0.8125), ValueBound(lower=0.5)) == (
        Word.BLESSED,
        "'auc' in all rows is 0.8125, as asked: at least 0.5.",
    )
    assert one(Measured(0.5), ValueBound(0.5, 0.9)) == (
        Word.BLESSED,
        "'auc' in all rows is 0.5, as asked: between 0.5 and 0.9.",
    )


def test_a_value_beyond_a_bound_is_not_blessed() -> None:
    assert one(Measured(0.4), ValueBound(lower=0.5)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is 0.4, not at least 0.5.",
    )
    assert one(Measured(0.95), ValueBound(upper=0.9)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is 0.95, not at most 0.9.",
    )


def test_nan_meets_no_bound() -> None:
    assert one(Measured(math.nan), ValueBound()) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is not a number, not any number.",
    )


def test_a_metric_of_many_numbers_meets_no_bound() -> None:
    assert one(Measured(None), ValueBound(lower=0.0)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is not a single number, and at least 0 is asked.",
    )


def test_a_change_names_both_models_and_the_difference() -> None:
    bound = ChangeBound(absolute=-0.01, relative=-0.05)
    assert one(Measured(0.8, 0.805, -0.005), bound) == (
        Word.BLESSED,
        "'auc' in all rows is 0.8, the baseline's 0.805: a change of -0.005 "
        "(-0.621118 %), as asked: a change of at least -0.01 and a relative change of "
        "at least -5 %.",
    )
    assert one(Measured(0.7, 0.8, -0.1), ChangeBound(absolute=-0.01)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is 0.7, the baseline's 0.8: a change of -0.1, not a change "
        "of at least -0.01.",
    )


def test_lower_can_be_better() -> None:
    bound = ChangeBound(absolute=0.01, higher_is_better=False)
    assert one(Measured(0.3, 0.3, 0.0), bound)[0] is Word.BLESSED
    word, reason = one(Measured(0.4, 0.3, 0.1), bound)
    assert word is Word.NOT_BLESSED
    assert reason.endswith("not a change of at most 0.01.")


def test_a_relative_change_from_zero_is_not_blessed() -> None:
    assert one(Measured(0.5, 0.0, 0.5), ChangeBound(relative=0.1)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is 0.5, the baseline's 0: a change of 0.5 (no share of a "
        "baseline of 0), not a relative change of at least 10 %.",
    )


def test_a_change_needs_a_baseline() -> None:
    assert one(Measured(0.5), ChangeBound(absolute=0.1)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows has no baseline to compare with; a change of at least 0.1 "
        "is asked.",
    )


def test_a_metric_that_compares_models_itself_has_only_a_change() -> None:
    assert one(Measured(None, None, 0.2), ChangeBound(absolute=0.1)) == (
        Word.BLESSED,
        "'auc' in all rows has a change of 0.2, as asked: a change of at least 0.1.",
    )


def test_a_metric_that_was_not_computed_is_not_blessed() -> None:
    judgment = judge([Threshold(AUC, ValueBound(0.5))], [SliceMetrics((), {})])
    assert judgment.word is Word.NOT_BLESSED
    assert judgment.reasons == (
        "'auc' in all rows was not computed, and at least 0.5 is asked.",
    )


def test_no_threshold_blesses_nothing() -> None:
    judgment = judge([], [SliceMetrics((), {AUC: Measured(1.0)})])
    assert judgment.word is Word.NO_THRESHOLDS
    assert judgment.reasons == (
        "The eval_config sets no threshold, so nothing can bless the model. Give a "
        "metric a MetricThreshold.",
    )


def test_ignored_change_thresholds_are_named_and_bless() -> None:
    judgment = judge(
        [],
        [SliceMetrics((), {AUC: Measured(0.1)})],
        ignored=[Threshold(AUC, ChangeBound(absolute=-0.01), Slicing.of(["hour"], {}))],
    )
    assert judgment.word is Word.BLESSED
    assert judgment.reasons == (
        "The change threshold on 'auc' for hour is ignored (a change of at least "
        "-0.01): there is no baseline.",
    )


def test_what_speaks_against_a_blessing_comes_first() -> None:
    judgment = judge(
        [Threshold(AUC, ValueBound(0.5))],
        [
            SliceMetrics((), {AUC: Measured(0.8)}),
            SliceMetrics((("hour", 7),), {AUC: Measured(0.4)}),
        ],
    )
    assert judgment.reasons == (
        "'auc' in hour=7 is 0.4, not at least 0.5.",
        "'auc' in all rows is 0.8, as asked: at least 0.5.",
    )


def test_a_threshold_for_slices_that_are_not_there_is_not_met() -> None:
    judgment = judge(
        [Threshold(AUC, ValueBound(0.5), Slicing.of([], {"payment": "Barter"}))],
        [SliceMetrics((), {AUC: Measured(0.8)})],
    )
    assert judgment.word is Word.NOT_BLESSED
    assert judgment.reasons == (
        "'auc' has a threshold for payment=Barter, but no evaluated slice is that.",
    )


def test_a_slice_that_is_too_small_is_left_out_and_named() -> None:
    judgment = judge(
        [Threshold(AUC, ValueBound(0.5))],
        [
            SliceMetrics((), {AUC: Measured(0.8)}),
            SliceMetrics((("hour", 3),), {}, is_too_small=True),
        ],
        min_slice_size=1_000,
    )
    assert judgment.word is Word.BLESSED
    assert judgment.reasons[1] == (
        "'auc' in hour=3 is left out: the slice has fewer than 1,000 rows, the "
        "min_slice_size."
    )


def test_slicings_match_numbers_written_as_text_and_floats_of_32_bits() -> None:
    assert Slicing.of([], {"hour": "7"}).matches((("hour", 7),))
    assert Slicing.of([], {"share": "0.1"}).matches((("share", 0.10000000149011612),))
    assert Slicing.of(["hour"], {"payment": "Cash"}).matches(
        (("hour", 7), ("payment", "Cash"))
    )
    assert not Slicing.of(["hour"], {}).matches((("hour", 7), ("payment", "Cash")))
    assert not Slicing.of(["hour"], {}).matches(())
    assert Slicing().matches(())


def test_a_comparison_of_slices_has_thresholds_of_its_own() -> None:
    cash, card = (("payment", "Cash"),), (("payment", "Card"),)
    crossed = SliceMetrics(cash, {AUC: Measured(0.02)}, baseline_slice=card)
    slicing = CrossSlicing(
        Slicing.of([], {"payment": "Card"}), (Slicing.of(["payment"], {}),)
    )
    judgment = judge([Threshold(AUC, ValueBound(upper=0.1), slicing)], [crossed])
    assert judgment.word is Word.BLESSED
    assert judgment.reasons == (
        "'auc' in payment=Card minus payment=Cash is 0.02, as asked: at most 0.1.",
    )
    assert not Threshold(AUC, ValueBound()).applies(crossed)
    assert not Threshold(AUC, ValueBound(), slicing).applies(SliceMetrics(cash, {}))
    assert str(slicing) == "payment=Card minus payment"


def test_names_say_what_tells_metrics_apart() -> None:
    assert str(MetricName("auc", "tips", "class 1", "micro average")) == (
        "tips/auc (class 1, micro average)"
    )


def test_overall_values_are_finite_and_of_all_rows() -> None:
    weighted = MetricName("auc", weighted=True)
    loss = MetricName("loss")
    count = MetricName("example_count")
    assert overall_values(
        [
            SliceMetrics((("hour", 1),), {AUC: Measured(0.1)}),
            SliceMetrics(
                (),
                {
                    AUC: Measured(0.8),
                    weighted: Measured(0.7),
                    loss: Measured(math.nan),
                    count: Measured(None),
                },
            ),
        ]
    ) == {"auc": 0.8, "auc (weighted)": 0.7}


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_relative_change_is_a_share_of_the_baseline(baseline: float) -> None:
    share = relative_change(0.5 * baseline, baseline)
    assert math.isnan(share) if baseline == 0 else share == pytest.approx(0.5)
