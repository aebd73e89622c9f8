"""What windows come to: states, ranking, persistence, words and refusals."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.monitoring import comparing
from penstock.components.monitoring.decision import (
    DriftDecision,
    Thresholds,
    column_level,
    decide,
)
from penstock.components.monitoring.explanation import percent, side_by_side
from penstock.components.monitoring.grid import ColumnGrid
from penstock.components.monitoring.measures import (
    DRIFT_TYPES,
    ColumnEvidence,
    Measure,
    WindowEvidence,
)
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.profiling import profile_column, profile_table
from penstock.components.monitoring.reference import Reference
from penstock.components.monitoring.windows import DAY, Window, is_recent
from penstock.schemas.errors import DataError
from tests.components.monitoring.drifting import (
    day,
    importances,
    reference,
    rows,
    window,
)

LEVEL = 0.03


def thresholds(**other: Any) -> Thresholds:
    of = reference()
    return Thresholds(level=LEVEL, reference_id=of.id, reference_rows=of.rows, **other)


def compared(*windows: Profile) -> list[WindowEvidence]:
    of = reference()
    return [
        comparing.compare_windows(of.profile, each, reference_id=of.id)
        for each in windows
    ]


def test_windows_without_drift_are_ok() -> None:
    decision = decide(compared(window(0), window(1), window(2)), thresholds())
    assert decision.state == "ok"
    assert decision.alerts == decision.watch == ()
    (reason,) = decision.reasons
    assert reason.startswith("None of 7 columns drifted: the p-value of all together")
    assert decision.p_value > LEVEL


def test_clear_drift_is_an_alert_in_its_first_window() -> None:
    evidence = compared(window(0), window(1, shift=0.15), window(2, shift=0.15))
    first = decide(evidence[:2], thresholds())
    assert first.state == "alert"
    assert [each.column for each in first.alerts] == ["fare"]
    both = decide(evidence, thresholds())
    assert both.alerts[0].windows == ("2026-01-02", "2026-01-03")
    assert both.alerts[0].persistent_p < first.alerts[0].persistent_p


def test_drift_too_faint_for_one_window_is_found_in_two() -> None:
    quiet = window(0)
    faint = [
        compared(quiet, *(window(i, shift=0.07) for i in (n, n + 1)))
        for n in range(10, 30, 2)
    ]
    once = [decide(each[:2], thresholds()).state for each in faint]
    twice = [decide(each, thresholds()).state for each in faint]
    assert twice.count("alert") > once.count("alert")
    assert twice.count("alert") >= 7


def test_an_alert_outlasts_a_quiet_window_between() -> None:
    evidence = compared(
        window(1, shift=0.12), window(2, shift=0.12), window(3), window(4), window(5)
    )
    states = [decide(evidence[: i + 1], thresholds()).state for i in range(5)]
    assert states[1] == states[2] == "alert"
    assert states[4] in ("ok", "watch")


def test_what_drifted_most_by_importance_comes_first() -> None:
    drifting = [
        window(i, shift=0.2, missing=0.03, new=0.02, score=0.02) for i in (1, 2)
    ]
    evidence = compared(window(0), *drifting)
    decision = decide(evidence, thresholds(), importances())
    assert {each.column for each in decision.alerts} == {
        "fare",
        "miles",
        "payment",
        "score",
    }
    # As important as the most important feature, and next to it in effect.
    assert {decision.alerts[0].column, decision.alerts[1].column} == {"fare", "score"}
    assert [each.rank for each in decision.alerts] == [1, 2, 3, 4]
    scores = [each.score for each in decision.alerts]
    assert scores == sorted(scores, reverse=True)
    assert decision.alerts[0].importance == 0.5
    plain = decide(evidence, thresholds())
    assert plain.alerts[0].importance is None
    assert plain.reasons == tuple(each.explanation for each in plain.alerts)


def test_explanations_say_what_changed_and_where() -> None:
    evidence = compared(window(1, shift=0.2, missing=0.03, new=0.02, score=0.05))
    decision = decide(evidence, thresholds())
    said = {each.column: each.explanation for each in decision.alerts}
    assert said["miles"].startswith(
        "Feature 'miles' drifted: 2.9 % of the rows have no value instead of 0.0 %"
    )
    assert "of the values are unseen before, most often 'Voucher'" in said["payment"]
    assert said["fare"].startswith("Feature 'fare' drifted: values are greater by 0.")
    assert "; more values from " in said["fare"] or "; fewer values" in said["fare"]
    assert said["score"].startswith("Score 'score' drifted: values are greater by")


def test_large_effects_only_raise_alerts_and_small_ones_a_watch() -> None:
    of = reference()
    limits = thresholds(effects={"mean_shift": 0.5, "ks": 0.5, "chi_squared": 0.5})
    evidence = compared(window(1, shift=0.15), window(2, shift=0.15))
    decision = decide(evidence, limits)
    assert decision.state == "watch"
    assert [each.column for each in decision.watch] == ["fare"]
    assert decision.reasons[0].startswith(
        "Nothing drifted in 2 of the last 3 windows by as much as matters. Near to it: "
        "'fare'"
    )
    assert of.rows == 20_000


def test_a_tiny_shift_in_very_many_rows_is_no_alert() -> None:
    """A million rows on either side, and a 200th of a standard deviation."""
    rng = np.random.default_rng(3)
    from scipy import special

    grid = ColumnGrid("x", "numeric", edges=np.arange(4_096.0))
    ends = special.ndtri(np.arange(4_097) / 4_096)
    even = np.diff(special.ndtr(ends))
    shifted = np.diff(special.ndtr(ends - 0.005))

    def column(p: Any) -> ColumnProfile:
        counts = np.zeros(4_098, np.int64)
        counts[1:-1] = rng.multinomial(1_000_000, p / p.sum())
        return ColumnProfile(grid, 1_000_000, 0, 1_000_000, counts)

    significant = 0
    for _ in range(10):
        found = comparing.compare_column(column(even), column(shifted))
        evidence = WindowEvidence(day(0), 1_000_000, "r", 1_000_000, {"x": found})
        decision = decide([evidence], Thresholds(level=LEVEL))
        assert decision.alerts == ()
        shift = found.measure("mean_shift")
        assert shift is not None and shift.p_value is not None
        significant += shift.p_value < 0.05
    assert significant >= 8


@pytest.mark.parametrize(
    ("drift", "drift_type", "column"),
    [
        ({"missing": 0.03}, "missing", "miles"),
        ({"new": 0.02}, "unseen", "payment"),
        ({"zeros": 0.16}, "zeros", "tips"),
        ({"shift": 0.3}, "mean_shift", "fare"),
        ({"score": 0.5}, "out_of_range", "score"),
    ],
)
def test_every_kind_of_drift_is_found_by_its_own_test(
    drift: dict[str, Any], drift_type: str, column: str
) -> None:
    (evidence,) = compared(window(1, **drift))
    measure = evidence.columns[column].measure(drift_type)
    assert measure is not None and measure.p_value is not None
    assert measure.p_value < 1e-8
    assert measure.ratio > 1
    decision = decide([evidence], thresholds())
    assert column in [each.column for each in decision.alerts]


def test_measures_of_all_types_are_known_by_name() -> None:
    (evidence,) = compared(window(1))
    kinds = {
        measure.drift_type
        for column in evidence.columns.values()
        for measure in column.measures
    }
    assert kinds == set(DRIFT_TYPES) - {"type"}
    assert evidence.columns["fare"].measure("type") is None
    for column in evidence.columns.values():
        for measure in column.measures:
            assert measure.sentence.endswith(".")
            assert measure.sentence[0].isupper() or measure.sentence[0].isdigit()


def test_infinite_values_and_nan_are_drift_of_their_own() -> None:
    rng = np.random.default_rng(8)
    grid = reference().grid["fare"]
    before = profile_column(grid, rng.lognormal(2, 1, 20_000))
    values = rng.lognormal(2, 1, 5_000)
    values[:60] = np.nan
    values[60:100] = np.inf
    found = comparing.compare_column(before, profile_column(grid, values))
    for drift_type, share in (("nan", 0.012), ("infinite", 0.008)):
        measure = found.measure(drift_type)
        assert measure is not None and measure.p_value is not None
        assert measure.value == pytest.approx(share)
        assert measure.p_value < 1e-20
    shift = found.measure("mean_shift")
    assert shift is not None and shift.ratio < 1


def test_values_of_another_type_are_an_alert() -> None:
    table = rows(5_000, 1)
    texts = pa.array([str(value) for value in table["fare"].to_pylist()])
    place = table.schema.get_field_index("fare")
    profile = profile_table(
        reference().grid, table.set_column(place, "fare", texts), day(1), model="taxi"
    )
    decision = decide(compared(profile), thresholds())
    assert decision.state == "alert"
    assert decision.alerts[0].column == "fare"
    assert "100.0 % of the values are of another type" in decision.reasons[0]


def test_a_vanished_category_is_drift_of_its_own() -> None:
    grid = reference().grid["payment"]
    before = profile_column(grid, np.array(["Cash"] * 18_000 + ["Mobile"] * 2_000))
    after = profile_column(grid, np.array(["Cash"] * 5_000))
    measure = comparing.compare_column(before, after).measure("vanished")
    assert measure is not None and measure.p_value is not None
    assert measure.value == pytest.approx(0.1)
    assert measure.p_value < 1e-50
    assert measure.sentence.startswith(
        "A value that 10.0 % of the reference has is gone"
    )


def test_constant_and_empty_columns_are_compared() -> None:
    constant = ColumnGrid("x", "numeric", edges=np.array([3.0]))
    same = profile_column(constant, np.full(1_000, 3.0))
    assert comparing.compare_column(same, same).p_value == 1
    other = profile_column(constant, np.full(1_000, 4.0))
    moved = comparing.compare_column(same, other)
    assert moved.p_value < 1e-100
    assert moved.moved == "more values above 3: 100.0 % instead of 0.0 %"
    none = ColumnProfile(constant, 1_000, 1_000, 0, np.zeros(3, np.int64))
    gone = comparing.compare_column(same, none)
    assert gone.measure("psi") is None
    assert gone.missing == (0, 1)
    assert gone.p_value < 1e-100
    assert comparing.compare_column(none, none).p_value == 1


def test_too_few_rows_decide_nothing() -> None:
    evidence = compared(window(0), window(1, count=499, shift=3.0))
    decision = decide(evidence, thresholds())
    assert decision.state == "insufficient_data"
    assert decision.alerts == ()
    assert decision.reasons == (
        "Window '2026-01-02' has 499 rows; a decision needs 500.",
    )
    small = dataclasses.replace(compared(window(0))[0], reference_rows=120)
    assert decide([small], thresholds()).reasons == (
        "The reference has 120 rows; a decision needs 500.",
    )
    none = dataclasses.replace(compared(window(0))[0], rows=0)
    assert decide([none], thresholds()).reasons == ("Window '2026-01-01' has no rows.",)


def test_windows_with_too_few_rows_are_not_looked_back_on() -> None:
    drifted = [window(i, shift=0.12) for i in (1, 3)]
    evidence = compared(drifted[0], window(2, count=100), drifted[1])
    decision = decide(evidence, thresholds())
    assert decision.alerts[0].windows == ("2026-01-02", "2026-01-04")


def test_a_score_is_tested_with_a_level_of_its_own() -> None:
    roles = ["feature"] * 300 + ["score"]
    limits = thresholds()
    of_score = column_level(limits, roles, "score", 5_000)
    of_feature = column_level(limits, roles, "feature", 5_000)
    assert of_score > 5 * of_feature
    assert column_level(thresholds(m=1, k=1), roles, "score", 5_000) == LEVEL * 0.1


def test_labels_that_have_not_come_are_no_drift_and_those_that_have_are_looked_at() -> (
    None
):
    def decided(share: float, ones: float) -> DriftDecision:
        rng = np.random.default_rng([7, round(100 * ones)])
        table = rows(5_000, 1)
        came = (rng.random(5_000) < ones).astype(float)
        label = pa.array(came, mask=rng.random(5_000) >= share)
        place = table.column_names.index("label")
        of = reference()
        profile = profile_table(
            of.grid,
            table.set_column(place, "label", label),
            day(0),
            model="taxi",
            version="7",
        )
        (evidence,) = compared(profile)
        missing = evidence.columns["label"].missing[1]
        assert missing == pytest.approx(1 - share, abs=0.03)
        return decide([evidence], thresholds())

    assert decided(0.6, 0.3).state == "ok"
    assert decided(0.0, 0.3).state == "ok"
    (found,) = decided(0.6, 0.45).alerts
    assert found.column == "label"
    assert found.explanation.endswith(
        "; more values equal to 1: 44.6 % instead of 29.8 %."
    )


def test_a_column_whose_days_vary_needs_more() -> None:
    evidence = compared(window(1, shift=0.1))
    assert decide(evidence, thresholds()).state == "alert"
    varied = decide(evidence, thresholds(inflation={"fare": 9.0}))
    assert varied.state in ("ok", "watch")


def test_an_alert_of_several_windows_says_so() -> None:
    found = compared(window(1, shift=0.07), window(2), window(3, shift=0.07))
    assert (
        decide(found, thresholds())
        .reasons[0]
        .endswith("; it was so in 2 of the last 3 windows.")
    )
    clear = decide(compared(window(1), window(2, shift=0.2)), thresholds())
    assert "it was so" not in clear.reasons[0]


def test_windows_of_long_ago_or_of_another_length_do_not_count() -> None:
    limits = thresholds()
    # Drift that one window does not show and two do.
    pairs = (compared(*(window(i, shift=0.07) for i in (n, n + 1))) for n in range(99))
    before, last = next(
        (one, two)
        for one, two in pairs
        if decide([two], limits).state != "alert"
        and decide([one, two], limits).state == "alert"
    )
    end = last.window.start
    for earlier, counts in (
        (Window(end - 3 * DAY, end - 2 * DAY), True),
        (Window(end - 12 * DAY, end - 11 * DAY), True),
        (Window(end - 13 * DAY, end - 12 * DAY), False),
        (Window(end - 3_600, end), False),
    ):
        other = dataclasses.replace(before, window=earlier)
        assert (decide([other, last], limits).state == "alert") == counts
        assert is_recent(earlier, last.window, limits.m) == counts
    assert not is_recent(last.window, last.window, limits.m)


def test_slices_are_named_where_only_they_drifted() -> None:
    of = reference()

    def part(number: int, **drift: float) -> Profile:
        return profile_table(
            of.grid, rows(2_000, 50 + number, **drift), day(number), model="taxi"
        )

    slices = {
        "payment=Cash": (of.profile, part(1, shift=0.4)),
        "payment=Mobile": (of.profile, part(2)),
    }
    evidence = comparing.compare_windows(
        of.profile, window(1), reference_id=of.id, slices=slices
    )
    decision = decide([evidence], thresholds())
    assert [each.column for each in decision.alerts] == ["fare"]
    assert decision.alerts[0].slices == ("payment=Cash",)
    assert decision.reasons[0].startswith("Feature 'fare' drifted in payment=Cash")
    stored = WindowEvidence.from_json(json.loads(json.dumps(evidence.to_json())))
    assert decide([stored], thresholds()) == decision


def test_evidence_thresholds_and_decisions_are_stored_as_json() -> None:
    evidence = compared(window(1, shift=0.2, missing=0.05))
    limits = thresholds(
        inflation={"tips": 1.5}, notes=("A note.",), groups={"score": 0.2}
    )
    decision = decide(evidence, limits)
    for each, kind in (
        (evidence[0], WindowEvidence),
        (limits, Thresholds),
        (decision, DriftDecision),
    ):
        text = json.dumps(each.to_json(), allow_nan=False)
        again: Any = kind.from_json(json.loads(text))
        assert json.dumps(again.to_json()) == text
    assert DriftDecision.from_json(decision.to_json()) == decision
    assert Thresholds.from_json(limits.to_json()) == limits


def test_what_is_no_evidence_is_refused() -> None:
    with pytest.raises(DataError, match="the evidence of a window has no right"):
        WindowEvidence.from_json({"window": [0, 1]})
    with pytest.raises(DataError, match="be a drift decision has no right 'state'"):
        DriftDecision.from_json({})


def test_a_decision_needs_windows_of_one_reference_in_order() -> None:
    with pytest.raises(DataError) as error:
        decide([], thresholds())
    assert str(error.value) == (
        "There is no window to decide about. Compare one first."
    )
    first, second = compared(window(0), window(1))
    with pytest.raises(
        DataError, match="'2026-01-01' does not come after '2026-01-02'"
    ):
        decide([second, first], thresholds())
    with pytest.raises(DataError) as error:
        decide([first], dataclasses.replace(thresholds(), reference_id="sha256:other"))
    assert str(error.value) == (
        "Window '2026-01-01' is judged by thresholds and windows of different "
        f"references: sha256:other and {reference().id}. Compare all windows with one "
        "reference, and calibrate for that one."
    )


def test_windows_on_another_grid_are_refused() -> None:
    of = reference()
    table = rows(1_000, 3)
    lacking = Reference.of(table.drop(["miles"]), model="taxi")
    with pytest.raises(
        DataError, match=r"The reference lacks the columns 'miles' that"
    ):
        comparing.compare_windows(lacking.profile, window(1))
    other = profile_table(lacking.grid, table, day(0), model="taxi")
    with pytest.raises(DataError, match="lacks the columns 'miles' of the reference"):
        comparing.compare_windows(of.profile, other)
    texts = Reference.of(table, model="taxi", categories=["hour"])
    other = profile_table(texts.grid, table, day(0), model="taxi")
    with pytest.raises(
        DataError, match="'hour' is a numeric column in the reference and"
    ):
        comparing.compare_windows(of.profile, other)
    another = Reference.of(table, model="taxi")
    other = profile_table(another.grid, table, day(0), model="taxi")
    with pytest.raises(DataError, match=f"was counted on grid {another.grid.id}"):
        comparing.compare_windows(of.profile, other)
    with pytest.raises(
        DataError, match="Column 'fare' of the window was counted on an"
    ):
        comparing.compare(of.profile.columns["fare"], other.columns["fare"])


def test_rows_of_several_versions_are_noted() -> None:
    profile = dataclasses.replace(window(1), versions={"7": 4_000, "8": 1_000})
    (evidence,) = compared(profile)
    assert evidence.notes == (
        "The window has rows of 2 versions of the model: '7' (4000 rows), '8' (1000 "
        "rows).",
    )
    assert decide([evidence], thresholds()).reasons[-1] == evidence.notes[0]


def test_a_distribution_lies_side_by_side() -> None:
    of = reference().profile
    names, left, right = side_by_side(of["payment"], window(1, new=0.02)["payment"])
    assert names[0] == "Cash" and names[-1] == "unseen before"
    assert sum(left) == pytest.approx(1) and sum(right) == pytest.approx(1)
    names, left, right = side_by_side(of["score"], window(1, score=0.5)["score"])
    assert len(names) <= 20 and names[-1].startswith("above ")
    assert left[-1] == 0 and right[-1] > 0.05
    names, left, _ = side_by_side(of["label"], window(1)["label"])
    assert names == ("0", "1")
    assert left[1] == pytest.approx(0.3, abs=0.02)
    assert (percent(0.5), percent(0.005), percent(0.0)) == ("50.0 %", "0.50 %", "0.0 %")


def test_the_plainest_test_is_told_and_the_greatest_effect_ranked() -> None:
    def measure(drift_type: str, effect: float, p: float) -> Measure:
        return Measure("x", drift_type, effect, effect, p, 0.01, 0.01)

    measures = (
        measure("mean_shift", 0.2, 1e-9),
        measure("chi_squared", 0.5, 1e-9),
        measure("ks", 0.3, 0.5),
    )
    column = ColumnEvidence("x", "feature", "numeric", 1e-9, measures)
    limits = dict.fromkeys(DRIFT_TYPES, 0.01)
    clearest, plainest = column.clearest(1e-4, limits), column.plainest(1e-4, limits)
    assert clearest is not None and clearest.drift_type == "chi_squared"
    assert plainest is not None and plainest.drift_type == "mean_shift"
    assert column.clearest(1e-12, limits) == measures[0]
    assert column.gated_p(limits) == pytest.approx(1e-9 / 0.42)
    assert column.gated_p(dict.fromkeys(DRIFT_TYPES, 9.0)) == 1
    nothing = dataclasses.replace(column, measures=())
    assert nothing.clearest(1e-4, limits) is None
    assert Measure("x", "js", 0.2, 0.15, None, 0.1, 0.1).ratio == pytest.approx(1.5)
