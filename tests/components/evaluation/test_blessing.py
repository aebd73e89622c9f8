"""Thresholds over metric values: the rules, and the sentences."""

from __future__ import annotations

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from penstock.components.evaluation.blessing import (
    ChangeBound,
    CrossSlicing,
    Finding,
    Interval,
    Judgment,
    Measured,
    MetricName,
    Outcome,
    Slice,
    SliceMetrics,
    Slicing,
    Threshold,
    ValueBound,
    Word,
    judge,
    overall_values,
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
    assert one(Measured(0.7, 0.8, -0.1), ChangeBound(absolute=-0.01)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is 0.7, the baseline's 0.8: a change of -0.1, not a change "
        "of at least -0.01.",
    )


def test_an_absolute_and_a_relative_bound_are_two_findings() -> None:
    bound = ChangeBound(absolute=-0.01, relative=-0.005)
    measured = [SliceMetrics((), {AUC: Measured(0.8, 0.805, -0.005)}, rows=400)]
    judgment = judge([Threshold(AUC, bound)], measured)
    assert judgment.word is Word.NOT_BLESSED
    share = -0.005 / 0.805
    failed = Finding(
        AUC,
        (),
        None,
        ChangeBound(relative=-0.005),
        Outcome.FAILED,
        "'auc' in all rows is 0.8, the baseline's 0.805: a relative change of "
        "-0.621118 %, not a relative change of at least -0.5 %.",
        share,
        rows=400,
    )
    passed = Finding(
        AUC,
        (),
        None,
        ChangeBound(absolute=-0.01),
        Outcome.PASSED,
        "'auc' in all rows is 0.8, the baseline's 0.805: a change of -0.005, as "
        "asked: a change of at least -0.01.",
        -0.005,
        rows=400,
    )
    assert judgment.findings == (failed, passed)
    assert judgment.reasons == (failed.sentence, passed.sentence)
    assert judgment.against == 1


def test_lower_can_be_better() -> None:
    bound = ChangeBound(absolute=0.01, higher_is_better=False)
    assert one(Measured(0.3, 0.3, 0.0), bound)[0] is Word.BLESSED
    word, reason = one(Measured(0.4, 0.3, 0.1), bound)
    assert word is Word.NOT_BLESSED
    assert reason.endswith("not a change of at most 0.01.")


def test_from_a_baseline_of_zero_every_rise_is_infinite() -> None:
    higher, lower = ChangeBound(relative=0.1), ChangeBound(None, 0.1, False)
    assert one(Measured(0.5, 0.0, 0.5), higher) == (
        Word.BLESSED,
        "'auc' in all rows is 0.5, the baseline's 0: a relative change of ∞ %, as "
        "asked: a relative change of at least 10 %.",
    )
    assert one(Measured(0.5, 0.0, 0.5), lower)[0] is Word.NOT_BLESSED
    assert one(Measured(-0.5, 0.0, -0.5), higher) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is -0.5, the baseline's 0: a relative change of -∞ %, not "
        "a relative change of at least 10 %.",
    )
    assert one(Measured(-0.5, 0.0, -0.5), lower)[0] is Word.BLESSED
    assert one(Measured(0.0, 0.0, 0.0), lower)[0] is Word.BLESSED
    assert one(Measured(0.0, 0.0, 0.0), higher) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is 0, the baseline's 0: a relative change of 0 %, not a "
        "relative change of at least 10 %.",
    )


def test_a_change_that_is_no_number_meets_no_bound() -> None:
    nan = Measured(math.nan, 0.0, math.nan)
    assert one(nan, ChangeBound(relative=-0.1)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows is not a number, the baseline's 0: a relative change of "
        "not a number, not a relative change of at least -10 %.",
    )
    assert one(nan, ChangeBound(absolute=-0.1))[0] is Word.NOT_BLESSED


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


def test_a_relative_change_needs_the_baselines_value() -> None:
    assert one(Measured(None, None, 0.2), ChangeBound(relative=0.1)) == (
        Word.NOT_BLESSED,
        "'auc' in all rows has no value of the baseline to be a share of; a relative "
        "change of at least 10 % is asked.",
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


def test_small_slices_are_left_out_and_named_with_their_rows() -> None:
    judgment = judge(
        [Threshold(AUC, ValueBound(0.5))],
        [
            SliceMetrics((), {AUC: Measured(0.8)}, rows=9_012),
            SliceMetrics((("hour", 3),), {}, is_too_small=True),
            SliceMetrics((("hour", 4),), {AUC: Measured(0.1)}, rows=12),
            SliceMetrics((("hour", 5),), {AUC: Measured(0.9)}, rows=1_000),
        ],
        min_slice_size=1_000,
    )
    assert judgment.word is Word.BLESSED
    assert judgment.against == 0
    assert judgment.reasons[:2] == (
        "'auc' in hour=3 is left out: the slice has fewer than 1,000 rows, the "
        "min_slice_size.",
        "'auc' in hour=4 is left out: the slice has 12 rows, fewer than 1,000, the "
        "min_slice_size.",
    )
    assert [each.outcome for each in judgment.findings] == [
        Outcome.LEFT_OUT,
        Outcome.LEFT_OUT,
        Outcome.PASSED,
        Outcome.PASSED,
    ]


def test_where_every_slice_is_left_out_nothing_is_blessed() -> None:
    judgment = judge(
        [Threshold(AUC, ValueBound(0.5))],
        [SliceMetrics((), {AUC: Measured(0.8)}, rows=12)],
        ignored=[Threshold(AUC, ChangeBound(absolute=0.0))],
        min_slice_size=1_000,
    )
    assert judgment.word is Word.INCONCLUSIVE
    assert not judgment.blessed
    assert judgment.against == 1
    assert judgment.reasons[0] == (
        "Every slice with a threshold has fewer than 1,000 rows, the min_slice_size, "
        "so nothing is left to judge the model by."
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


CASH: Slice = (("payment_type", "Cash"),)


def at_least(bound: float, confidence: float | None = 0.95) -> Threshold:
    return Threshold(AUC, ValueBound(lower=bound), confidence=confidence)


def in_hour(
    hour: int, value: float, lower: float, upper: float, rows: int | None = None
) -> SliceMetrics:
    measured = Measured(value, interval=Interval(lower, upper))
    return SliceMetrics((("hour", hour),), {AUC: measured}, rows=rows)


def on_evidence(
    measured: Measured,
    bound: ValueBound | ChangeBound,
    *,
    confidence: float = 0.95,
    rows: int | None = None,
) -> tuple[Word, str]:
    judgment = judge(
        [Threshold(AUC, bound, confidence=confidence)],
        [SliceMetrics(CASH, {AUC: measured}, rows=rows)],
    )
    (reason,) = judgment.reasons
    return judgment.word, reason


def test_evidence_passes_if_the_whole_interval_is_good() -> None:
    measured = Measured(0.9124567, interval=Interval(0.900004, 0.9251))
    assert on_evidence(measured, ValueBound(lower=0.9), rows=5_012) == (
        Word.BLESSED,
        "'auc' in payment_type=Cash is 0.912457 (95 % interval 0.9 to 0.9251, 5,012 "
        "rows), as asked: at least 0.9.",
    )
    assert on_evidence(measured, ValueBound(upper=0.9251))[0] is Word.BLESSED
    assert on_evidence(measured, ValueBound(0.9, 0.93))[0] is Word.BLESSED


def test_evidence_fails_if_the_whole_interval_is_bad() -> None:
    measured = Measured(0.85, interval=Interval(0.82, 0.88))
    assert on_evidence(measured, ValueBound(lower=0.9), rows=1) == (
        Word.NOT_BLESSED,
        "'auc' in payment_type=Cash is 0.85 (95 % interval 0.82 to 0.88, 1 row), not "
        "at least 0.9.",
    )
    assert on_evidence(measured, ValueBound(upper=0.8))[0] is Word.NOT_BLESSED
    assert on_evidence(measured, ValueBound(0.6, 0.7))[0] is Word.NOT_BLESSED


def test_evidence_else_is_inconclusive_and_says_how_many_rows_would_do() -> None:
    measured = Measured(0.912, interval=Interval(0.874, 0.941))
    # The interval reaches 0.038 down and the bound is 0.012 away: ten times the rows.
    assert on_evidence(measured, ValueBound(lower=0.9), rows=412) == (
        Word.INCONCLUSIVE,
        "'auc' in payment_type=Cash is 0.912 (95 % interval 0.874 to 0.941, 412 rows), "
        "and at least 0.9 is asked: not enough data to tell. About 4,200 rows would do "
        "if it stays so.",
    )
    assert on_evidence(measured, ValueBound(lower=0.912), rows=412)[1].endswith(
        "and at least 0.912 is asked: not enough data to tell."
    )
    assert on_evidence(measured, ValueBound(lower=0.9))[1] == (
        "'auc' in payment_type=Cash is 0.912 (95 % interval 0.874 to 0.941), and at "
        "least 0.9 is asked: not enough data to tell."
    )


def test_a_bound_is_within_itself() -> None:
    exact = Measured(0.9, interval=Interval(0.9, 0.9))
    assert on_evidence(exact, ValueBound(0.9, 0.9))[0] is Word.BLESSED
    touching = Measured(0.88, interval=Interval(0.86, 0.9))
    assert on_evidence(touching, ValueBound(0.9))[0] is Word.INCONCLUSIVE


def test_the_values_that_points_bless_may_not_be_evidence() -> None:
    wide = Measured(0.51, interval=Interval(0.11, 0.91))
    assert one(wide, ValueBound(lower=0.5))[0] is Word.BLESSED
    assert on_evidence(wide, ValueBound(lower=0.5))[0] is Word.INCONCLUSIVE


def test_confidence_scales_intervals_that_were_made_at_another() -> None:
    measured = Measured(0.912, interval=Interval(0.902, 0.941))
    assert on_evidence(measured, ValueBound(lower=0.9))[0] is Word.BLESSED
    assert on_evidence(measured, ValueBound(lower=0.9), confidence=0.99) == (
        Word.INCONCLUSIVE,
        "'auc' in payment_type=Cash is 0.912 (99 % interval 0.8989 to 0.9501), and at "
        "least 0.9 is asked: not enough data to tell.",
    )


def test_without_an_interval_nothing_can_be_told() -> None:
    for interval in (None, Interval(math.nan, math.nan), Interval(0.9, math.nan)):
        measured = Measured(0.95, interval=interval)
        assert on_evidence(measured, ValueBound(lower=0.9), rows=412) == (
            Word.INCONCLUSIVE,
            "'auc' in payment_type=Cash is 0.95 (412 rows) without an interval, and at "
            "least 0.9 is asked: not enough data to tell.",
        )


def test_a_metric_that_is_not_defined_in_a_slice_is_inconclusive() -> None:
    measured = Measured(math.nan, 0.9, math.nan, Interval(0.1, 0.9))
    assert on_evidence(measured, ValueBound(lower=0.9), rows=3) == (
        Word.INCONCLUSIVE,
        "'auc' is not defined in payment_type=Cash (3 rows), and at least 0.9 is "
        "asked: not enough data to tell.",
    )
    assert on_evidence(measured, ChangeBound(absolute=-0.1)) == (
        Word.INCONCLUSIVE,
        "'auc' has no defined change in payment_type=Cash, and a change of at least "
        "-0.1 is asked: not enough data to tell.",
    )
    assert on_evidence(measured, ChangeBound(relative=-0.1))[0] is Word.INCONCLUSIVE


def test_what_more_data_would_not_mend_fails_on_evidence_too() -> None:
    bound = ValueBound(lower=0.5)
    assert on_evidence(Measured(None), bound)[0] is Word.NOT_BLESSED
    assert on_evidence(Measured(0.5), ChangeBound(0.1))[0] is Word.NOT_BLESSED
    empty = SliceMetrics((), {})
    assert judge([at_least(0.5)], [empty]).word is Word.NOT_BLESSED
    assert judge([at_least(0.5)], []).word is Word.NOT_BLESSED


def test_rows_that_all_agree_are_no_certainty() -> None:
    all_right = Measured(1.0, interval=Interval(1.0, 1.0))
    # Where 3.7 of 6 rows are wrong, 6 are all right as often as 2.5 % of the time.
    assert on_evidence(all_right, ValueBound(lower=0.9), rows=6) == (
        Word.INCONCLUSIVE,
        "'auc' in payment_type=Cash is 1 (95 % interval 0.3852 to 1.615, 6 rows), and "
        "at least 0.9 is asked: not enough data to tell. About 37 rows would do if it "
        "stays so.",
    )
    assert on_evidence(all_right, ValueBound(lower=0.9), rows=37)[0] is Word.BLESSED
    assert on_evidence(all_right, ValueBound(lower=0.9))[0] is Word.BLESSED
    none_wrong = Measured(0.0, interval=Interval(0.0, 0.0))
    assert on_evidence(none_wrong, ValueBound(upper=0.1), rows=6)[0] is (
        Word.INCONCLUSIVE
    )
    assert on_evidence(none_wrong, ValueBound(upper=0.1), rows=37)[0] is Word.BLESSED
    even = Interval(0.0, 0.0)
    same = Measured(0.8, 0.8, 0.0, difference_interval=even)
    bound = ChangeBound(absolute=-0.01)
    assert on_evidence(same, bound, rows=290)[0] is Word.INCONCLUSIVE
    assert on_evidence(same, bound, rows=300)[0] is Word.BLESSED
    # Of a metric of small numbers small changes count.
    small = Measured(8e-7, 8e-7, 0.0, difference_interval=even)
    tenth = ChangeBound(absolute=1e-8, higher_is_better=False)
    assert on_evidence(small, tenth, rows=300)[0] is Word.BLESSED


def test_a_change_needs_its_own_interval() -> None:
    bound = ChangeBound(absolute=-0.01)
    wide = Interval(0.7, 0.9)
    paired = Measured(0.8, 0.805, -0.005, wide, wide, Interval(-0.008, -0.002))
    assert on_evidence(paired, bound, rows=5_000) == (
        Word.BLESSED,
        "'auc' in payment_type=Cash is 0.8, the baseline's 0.805: a change of -0.005 "
        "(95 % interval -0.008 to -0.002, 5,000 rows), as asked: a change of at least "
        "-0.01.",
    )
    unpaired = Measured(0.8, 0.805, -0.005, wide, wide)
    assert on_evidence(unpaired, bound)[0] is Word.INCONCLUSIVE
    assert on_evidence(paired, ChangeBound(0.0))[0] is Word.NOT_BLESSED
    lower = ChangeBound(absolute=-0.001, higher_is_better=False)
    assert on_evidence(paired, lower)[0] is Word.BLESSED


def changed(
    difference: Interval, baseline: Interval, relative: float = -0.05
) -> tuple[Word, str]:
    """What evidence on a relative change says, of values amid their intervals."""
    middle, below = ((each.lower + each.upper) / 2 for each in (difference, baseline))
    measured = Measured(
        below + middle,
        below,
        middle,
        baseline_interval=baseline,
        difference_interval=difference,
    )
    return on_evidence(measured, ChangeBound(relative=relative), rows=1_000)


def test_a_relative_change_counts_the_baselines_interval_too() -> None:
    baseline = Interval(0.48, 0.52)
    assert changed(Interval(-0.023, -0.017), baseline) == (
        Word.BLESSED,
        "'auc' in payment_type=Cash is 0.48, the baseline's 0.5: a relative change of "
        "-4 % (95 % interval -4.792 % to -3.269 %, 1,000 rows), as asked: a relative "
        "change of at least -5 %.",
    )
    # -0.0245 is less than 5 % of 0.5, but not of 0.48.
    word, reason = changed(Interval(-0.0245, -0.0155), baseline)
    assert word is Word.INCONCLUSIVE
    assert reason.endswith(
        "not enough data to tell. About 1,300 rows would do if it stays so."
    )
    assert changed(Interval(-0.033, -0.027), baseline)[0] is Word.NOT_BLESSED
    without = Measured(0.6, 0.5, 0.1, difference_interval=Interval(0.09, 0.11))
    assert on_evidence(without, ChangeBound(relative=0.0))[0] is Word.INCONCLUSIVE


def test_a_relative_change_from_a_negative_baseline_is_turned_round() -> None:
    baseline = Interval(-2.1, -1.9)
    assert changed(Interval(-0.2, -0.1), baseline, 0.0)[0] is Word.BLESSED
    assert changed(Interval(0.1, 0.2), baseline, 0.0)[0] is Word.NOT_BLESSED


def test_a_rise_from_a_baseline_of_zero_is_evidence() -> None:
    zero = Interval(0.0, 0.0)
    assert changed(Interval(0.1, 0.3), zero, 0.5)[0] is Word.BLESSED
    assert changed(Interval(-0.3, -0.1), zero, 0.5)[0] is Word.NOT_BLESSED
    assert changed(Interval(-0.1, 0.3), zero)[0] is Word.INCONCLUSIVE
    assert changed(Interval(0.0, 0.0), zero)[0] is Word.INCONCLUSIVE
    assert changed(Interval(0.1, 0.3), Interval(0.0, 0.2), 0.5)[0] is Word.BLESSED
    # Where the baseline may be of either sign, a share of it may be anything.
    assert changed(Interval(0.1, 0.3), Interval(-0.1, 0.1), 0.5) == (
        Word.INCONCLUSIVE,
        "'auc' in payment_type=Cash is 0.2, the baseline's 0: a relative change of "
        "∞ % (95 % interval -∞ % to ∞ %, 1,000 rows), and a relative change of at "
        "least 50 % is asked: not enough data to tell.",
    )


def test_a_comparison_of_slices_is_judged_by_its_own_interval() -> None:
    slicing = CrossSlicing(Slicing(), (Slicing.of(["payment_type"], {}),))
    measured = SliceMetrics(
        CASH, {AUC: Measured(0.02, interval=Interval(-0.03, 0.07))}, (), rows=412
    )
    judgment = judge(
        [Threshold(AUC, ValueBound(upper=0.05), slicing, confidence=0.95)], [measured]
    )
    assert judgment.word is Word.INCONCLUSIVE
    (found,) = judgment.findings
    assert found.slice == CASH
    assert found.baseline_slice == ()
    assert found.sentence.startswith(
        "'auc' in all rows minus payment_type=Cash is 0.02 (95 % interval -0.03 to "
        "0.07, 412 rows), and at most 0.05 is asked"
    )


def test_a_finding_has_all_that_is_said() -> None:
    judgment = judge([at_least(0.9, 0.99)], [in_hour(7, 0.95, 0.94, 0.96, rows=400)])
    (found,) = judgment.findings
    assert found.metric == AUC
    assert found.slice == (("hour", 7),)
    assert found.baseline_slice is None
    assert found.bound == ValueBound(lower=0.9)
    assert found.outcome is Outcome.PASSED
    assert found.value == 0.95
    assert found.interval == Interval(0.94, 0.96).at(0.99, 0.95)
    assert found.rows == 400
    assert judgment.reasons == (found.sentence,)


def test_inconclusive_becomes_a_yes_only_if_asked() -> None:
    measured = [in_hour(7, 0.9, 0.8, 0.95)]
    blocked = judge([at_least(0.9)], measured)
    assert (blocked.word, blocked.blessed) == (Word.INCONCLUSIVE, False)
    assert blocked.against == len(blocked.reasons) == 1
    blessed = judge([at_least(0.9)], measured, on_inconclusive="bless")
    assert (blessed.word, blessed.blessed) == (Word.INCONCLUSIVE, True)
    assert blessed.reasons == (
        *blocked.reasons,
        "The model is blessed all the same: on_inconclusive is 'bless'.",
    )
    assert blessed.against == 1


def test_on_inconclusive_turns_nothing_else() -> None:
    for lower in (0.0, 1.0):
        measured = [in_hour(7, 0.9, 0.8, 0.95)]
        words = {
            judge([at_least(lower)], measured, on_inconclusive=policy)
            for policy in ("block", "bless")
        }
        assert len(words) == 1
    assert not judge([], [], on_inconclusive="bless").blessed


def test_one_failure_among_what_is_not_known_is_a_no() -> None:
    judgment = judge(
        [at_least(0.9)], [in_hour(6, 0.9, 0.8, 0.95), in_hour(7, 0.5, 0.4, 0.6)]
    )
    assert judgment.word is Word.NOT_BLESSED
    assert [each.outcome for each in judgment.findings] == [
        Outcome.FAILED,
        Outcome.INCONCLUSIVE,
    ]
    assert judgment.against == 2


def test_among_many_slices_one_beyond_its_bound_may_be_chance() -> None:
    fine = [in_hour(hour, 0.93, 0.91, 0.95, rows=400) for hour in range(1, 50)]
    # The bound is 2.2 standard errors above the value: 1.4 % by chance, in each slice.
    bad = in_hour(0, 0.9 - 0.022, 0.878 - 0.0196, 0.878 + 0.0196, rows=400)
    alone = judge([at_least(0.9)], [bad])
    assert alone.word is Word.NOT_BLESSED
    among = judge([at_least(0.9)], [*fine, bad])
    assert among.word is Word.INCONCLUSIVE
    # 0.1 % is 3.09 standard errors: (3.09 / 2.2) ** 2 times the rows.
    assert among.reasons[0] == (
        "'auc' in hour=0 is 0.878 (95 % interval 0.8584 to 0.8976, 400 rows), not at "
        "least 0.9, but among 50 comparisons that may be chance: not enough data to "
        "tell. About 790 rows would do if it stays so."
    )
    far = in_hour(0, 0.86, 0.8404, 0.8796)
    assert judge([at_least(0.9)], [*fine, far]).word is Word.NOT_BLESSED
    # Points are not evidence, and are no part of the many.
    assert judge([at_least(0.9, None)], [*fine, bad]).word is Word.NOT_BLESSED
    points = [Threshold(AUC, ValueBound(0.5)), at_least(0.9)]
    assert judge(points, [bad]).word is Word.NOT_BLESSED
    # A rate that is asked for is the one that is held.
    generous = judge([at_least(0.9)], [*fine, bad], false_block_rate=0.8)
    assert generous.word is Word.NOT_BLESSED


def test_slices_that_are_left_out_are_none_of_the_many() -> None:
    small = [in_hour(hour, 0.93, 0.91, 0.95, rows=4) for hour in range(1, 50)]
    bad = in_hour(0, 0.878, 0.8584, 0.8976, rows=400)
    judgment = judge([at_least(0.9)], [*small, bad], min_slice_size=5)
    assert judgment.word is Word.NOT_BLESSED


def test_the_same_bound_twice_is_judged_once() -> None:
    twice = [
        dataclasses.replace(at_least(0.9), slicing=Slicing.of(["hour"], {})),
        dataclasses.replace(at_least(0.9), slicing=Slicing.of([], {"hour": 0})),
    ]
    judgment = judge(twice, [in_hour(0, 0.878, 0.8584, 0.8976)])
    assert len(judgment.findings) == 1
    assert judgment.word is Word.NOT_BLESSED


# Intervals about bounds of 0: all of one side, of the other, or across.
OFFSETS = st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0])
WIDTHS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0])
DEGREES = st.sampled_from([3.0, 30.0, math.inf])


@st.composite
def slices(draw: st.DrawFn) -> list[SliceMetrics]:
    """Slices whose AUC, baseline and change have intervals, or one has none."""

    def around(value: float) -> Interval | None:
        if draw(st.integers(0, 9)) == 0:
            return draw(st.sampled_from([None, Interval(math.nan, math.nan)]))
        return Interval(
            value - draw(WIDTHS),
            value + draw(WIDTHS),
            draw(st.sampled_from([0.9, 0.95])),
            draw(DEGREES),
        )

    found = []
    for hour in range(draw(st.integers(1, 5))):
        value, baseline = draw(OFFSETS), draw(OFFSETS)
        measured = Measured(
            value,
            baseline,
            value - baseline,
            around(value),
            around(baseline),
            around(value - baseline),
        )
        rows = draw(st.sampled_from([None, 10, 1_000]))
        found.append(SliceMetrics((("hour", hour),), {AUC: measured}, rows=rows))
    return found


BOUNDS = st.one_of(
    st.builds(ValueBound, OFFSETS, st.sampled_from([1.0, 3.0, math.inf])),
    st.builds(
        ChangeBound,
        st.one_of(st.none(), OFFSETS),
        st.one_of(st.none(), OFFSETS),
        st.booleans(),
    ),
)
ASKED = st.lists(
    st.builds(
        Threshold,
        st.just(AUC),
        BOUNDS,
        st.sampled_from([None, Slicing.of(["hour"], {}), Slicing.of([], {"hour": 0})]),
        st.sampled_from([0.9, 0.95, 0.99]),
    ),
    min_size=1,
    max_size=3,
)


def outcomes(
    judgment: Judgment,
) -> dict[tuple[ValueBound | ChangeBound, Slice | None], Outcome]:
    return {(each.bound, each.slice): each.outcome for each in judgment.findings}


@given(asked=ASKED, measured=slices())
def test_nothing_is_blessed_whose_interval_crosses_its_bound(
    asked: list[Threshold], measured: list[SliceMetrics]
) -> None:
    judgment = judge(asked, measured)
    if judgment.word is not Word.BLESSED:
        return
    for threshold in asked:
        for each in filter(threshold.applies, measured):
            found, bound = each.metrics[AUC], threshold.bound
            assert threshold.confidence is not None
            if isinstance(bound, ValueBound):
                assert found.interval is not None
                assert found.value is not None
                interval = found.interval.at(threshold.confidence, found.value)
                assert bound.lower <= interval.lower
                assert interval.upper <= bound.upper
            elif bound.absolute is not None:
                assert found.difference_interval is not None
                assert found.difference is not None
                interval = found.difference_interval.at(
                    threshold.confidence, found.difference
                )
                if bound.higher_is_better:
                    assert bound.absolute <= interval.lower
                else:
                    assert interval.upper <= bound.absolute


def widened(interval: Interval | None, by: float) -> Interval | None:
    if interval is None:
        return None
    return dataclasses.replace(
        interval, lower=interval.lower - by, upper=interval.upper + by
    )


@given(asked=ASKED, measured=slices(), by=WIDTHS)
def test_wider_intervals_never_pass_nor_fail_more(
    asked: list[Threshold], measured: list[SliceMetrics], by: float
) -> None:
    # Without rows, by which intervals of no width are judged: see the rows that agree.
    measured = [dataclasses.replace(each, rows=None) for each in measured]
    wider = [
        dataclasses.replace(
            each,
            metrics={
                AUC: dataclasses.replace(
                    each.metrics[AUC],
                    interval=widened(each.metrics[AUC].interval, by),
                    baseline_interval=widened(each.metrics[AUC].baseline_interval, by),
                    difference_interval=widened(
                        each.metrics[AUC].difference_interval, by
                    ),
                )
            },
        )
        for each in measured
    ]
    before, after = outcomes(judge(asked, measured)), outcomes(judge(asked, wider))
    for key, outcome in after.items():
        assert outcome in (Outcome.INCONCLUSIVE, before[key])


@given(asked=ASKED, measured=slices())
def test_another_slice_makes_none_of_the_others_fail(
    asked: list[Threshold], measured: list[SliceMetrics]
) -> None:
    all_of_them = outcomes(judge(asked, measured))
    without = outcomes(judge(asked, measured[:-1]))
    for (bound, where), outcome in without.items():
        if where is not None and all_of_them[bound, where] is Outcome.FAILED:
            assert outcome is Outcome.FAILED


@given(asked=ASKED, measured=slices(), data=st.data())
def test_the_order_of_thresholds_and_slices_does_not_matter(
    asked: list[Threshold], measured: list[SliceMetrics], data: st.DataObject
) -> None:
    first = judge(asked, measured)
    other = judge(
        data.draw(st.permutations(asked)), data.draw(st.permutations(measured))
    )
    assert other.word is first.word
    assert set(other.findings) == set(first.findings)
    assert set(other.reasons[: other.against]) == set(first.reasons[: first.against])
