"""Estimates without labels, held against the labels of replays with a known truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from penstock.components.monitoring.quality import cbpe
from penstock.components.monitoring.quality.binned import METRICS, Array
from penstock.schemas.errors import DataError, PipelineError

ROWS = 5_000


def _logistic(values: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-values))
    return found


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Rows with two features; scores overstate the truth, as uncalibrated ones do.

    Attributes:
        shift: How far the features moved, in standard deviations.
        concept: How much less one of them matters than it did.
    """

    shift: float = 0.0
    concept: float = 0.0

    def rows(self, random: np.random.Generator, count: int) -> tuple[Array, Array]:
        features = random.normal(self.shift, 1, (count, 2))
        known = 1.3 * features[:, 0] + 0.7 * features[:, 1] - 1.0
        truth = known - self.concept * features[:, 0]
        labels = (random.random(count) < _logistic(truth)).astype(int)
        return _logistic(1.4 * known + 0.3), labels


@dataclasses.dataclass
class Replays:
    """What came of many replays of one kind of traffic."""

    errors: Array
    covered: Array
    violated: Array

    @classmethod
    def of(
        cls,
        traffic: Traffic,
        count: int,
        *,
        metric: str = "auc",
        reference_rows: int = 20_000,
        rows: int = ROWS,
        level: float = 0.01,
        replicates: int = 300,
    ) -> Replays:
        errors, covered, violated = [], [], []
        for seed in range(count):
            random = np.random.default_rng([seed, 6])
            reference = Traffic().rows(random, reference_rows)
            calibration = cbpe.Calibration.fit(*reference)
            scores, labels = traffic.rows(random, rows)
            binned = calibration.binned(scores)
            positives = calibration.positives_in(scores, labels)
            estimate = cbpe.estimates(
                calibration, binned, (metric,), replicates=replicates, seed=seed
            )[metric]
            realized = float(METRICS[metric](binned, positives, calibration.place))
            errors.append(realized - estimate.value)
            covered.append(estimate.lower <= realized <= estimate.upper)
            checked = cbpe.check(
                calibration,
                binned,
                positives,
                metric,
                level=level,
                replicates=replicates,
                seed=seed,
            )
            violated.append(checked.assumption == "violated")
        return cls(*map(np.array, (errors, covered, violated)))


def test_under_covariate_shift_estimates_are_near_and_intervals_hold() -> None:
    found = Replays.of(Traffic(shift=0.5), 40)
    assert np.median(np.abs(found.errors)) < 0.01
    assert found.covered.sum() >= 34  # of 40 at 95 %: fewer in one of 300 times
    assert found.violated.sum() <= 2


def test_under_concept_drift_labels_say_that_the_assumption_is_violated() -> None:
    found = Replays.of(Traffic(concept=0.6), 15)
    assert found.violated.all()


@pytest.mark.long
@pytest.mark.parametrize(
    ("metric", "count", "margin"), [("auc", 500, 0.02), ("f1", 200, 0.03)]
)
def test_of_500_replays_under_covariate_shift(
    metric: str, count: int, margin: float
) -> None:
    found = Replays.of(Traffic(shift=0.5), count, metric=metric, replicates=500)
    coverage, alarms = found.covered.mean(), found.violated.mean()
    print(
        f"{metric}: median error {np.median(np.abs(found.errors)):.4f}, coverage "
        f"{coverage:.3f}, violated {alarms:.3f}"
    )
    assert np.median(np.abs(found.errors)) < 0.01
    assert 0.95 - margin <= coverage <= 0.95 + margin
    assert alarms <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / count)


@pytest.mark.long
@pytest.mark.parametrize(
    ("traffic", "least"),
    [
        (Traffic(concept=0.3), 0.9),
        (Traffic(concept=0.6), 0.99),
        (Traffic(0.5, 0.3), 0.9),
    ],
)
def test_of_200_replays_under_concept_drift(traffic: Traffic, least: float) -> None:
    found = Replays.of(traffic, 200)
    print(f"{traffic}: violated {found.violated.mean():.3f}")
    assert found.violated.mean() >= least


@pytest.mark.long
def test_a_small_reference_is_no_reason_for_false_alarms() -> None:
    found = Replays.of(Traffic(shift=0.8), 300, reference_rows=5_000, rows=20_000)
    print(f"coverage {found.covered.mean():.3f}, violated {found.violated.mean():.3f}")
    assert found.violated.mean() <= 0.03


def _calibration(rows: int = 10_000) -> cbpe.Calibration:
    return cbpe.Calibration.fit(*Traffic().rows(np.random.default_rng(0), rows))


def test_scores_are_calibrated() -> None:
    random = np.random.default_rng(3)
    calibration = cbpe.Calibration.fit(*Traffic().rows(random, 100_000))
    scores, _ = Traffic().rows(random, 2_000)
    truth = _logistic((np.log(scores / (1 - scores)) - 0.3) / 1.4)
    assert np.abs(calibration.of(scores) - truth).mean() < 0.01
    assert np.abs(scores - truth).mean() > 0.04
    assert (np.diff(calibration.probabilities) >= 0).all()


def test_the_threshold_is_an_edge_of_bins() -> None:
    calibration = cbpe.Calibration.fit(
        *Traffic().rows(np.random.default_rng(0), 5_000), threshold=0.37
    )
    scores = np.array([0.369999, 0.37])
    binned = calibration.binned(scores)
    assert binned.rows[calibration.place :].sum() == 1.0


def test_all_metrics_have_estimates_near_what_labels_give() -> None:
    calibration = _calibration(20_000)
    scores, labels = Traffic(0.3).rows(np.random.default_rng(1), 20_000)
    binned = calibration.binned(scores)
    positives = calibration.positives_in(scores, labels)
    found = cbpe.estimates(calibration, binned, tuple(METRICS), replicates=200)
    for name, estimate in found.items():
        realized = float(METRICS[name](binned, positives, calibration.place))
        assert abs(realized - estimate.value) < 4 * estimate.error, name
        assert estimate.lower < estimate.value < estimate.upper


def test_weights_count_as_many_rows() -> None:
    """Half of the rows logged with a probability of a fifth, and weighted by 5."""
    calibration = _calibration()
    random = np.random.default_rng(5)
    scores, _ = Traffic().rows(random, 40_000)
    is_kept = (scores > 0.5) | (random.random(len(scores)) < 0.2)
    weights = np.where(scores > 0.5, 1.0, 5.0)
    whole, sampled = (
        cbpe.estimates(calibration, each, replicates=300)["auc"]
        for each in (
            calibration.binned(scores),
            calibration.binned(scores[is_kept], weights[is_kept]),
        )
    )
    assert sampled.value == pytest.approx(whole.value, abs=0.01)
    assert sampled.error > whole.error
    assert sampled.rows == pytest.approx(40_000, rel=0.02)


def test_the_same_seed_gives_the_same_numbers() -> None:
    calibration = _calibration()
    scores, labels = Traffic().rows(np.random.default_rng(1), 1_000)
    binned = calibration.binned(scores)
    one, two, other = (
        cbpe.estimates(calibration, binned, replicates=100, seed=seed)
        for seed in (7, 7, 8)
    )
    assert one == two != other
    positives = calibration.positives_in(scores, labels)
    assert cbpe.check(calibration, binned, positives) == cbpe.check(
        calibration, binned, positives
    )


def test_estimates_state_the_assumption() -> None:
    calibration = _calibration()
    scores, _ = Traffic().rows(np.random.default_rng(1), 1_000)
    found = cbpe.estimates(calibration, calibration.binned(scores), replicates=100)
    assert found["auc"].sentence.startswith("'auc' is estimated at 0.")
    assert "not if what makes a row positive did" in found["auc"].sentence
    lower, upper = found["auc"].at(0.999)
    assert lower < found["auc"].lower and found["auc"].upper < upper


def test_labels_that_agree_are_said_to() -> None:
    calibration = _calibration()
    scores, labels = Traffic().rows(np.random.default_rng(1), ROWS)
    found = cbpe.check(
        calibration,
        calibration.binned(scores),
        calibration.positives_in(scores, labels),
    )
    assert found.assumption == "holds"
    assert "the assumption holds as far as they tell" in found.sentence


def test_labels_that_change_where_the_metric_does_not_are_found_too() -> None:
    """Every score is less often positive, and ranks are as good as they were."""
    random = np.random.default_rng(2)
    calibration = _calibration(20_000)
    scores, _ = Traffic().rows(random, ROWS)
    logit = (np.log(scores / (1 - scores)) - 0.3) / 1.4
    labels = (random.random(ROWS) < _logistic(logit - 0.4)).astype(int)
    found = cbpe.check(
        calibration,
        calibration.binned(scores),
        calibration.positives_in(scores, labels),
    )
    assert found.assumption == "violated"
    assert abs(found.realized - found.estimated) < 0.03
    assert "positive rows where" in found.sentence
    assert found.sentence.endswith("Go by labels, not by estimates, and retrain.")


def test_few_labels_leave_the_assumption_unchecked() -> None:
    calibration = _calibration()
    scores, labels = Traffic().rows(np.random.default_rng(1), 50)
    found = cbpe.check(
        calibration,
        calibration.binned(scores),
        calibration.positives_in(scores, labels),
    )
    assert found.assumption == "unchecked"
    assert "too few to check the estimate of 'auc': 30 of each are needed" in (
        found.sentence
    )


def test_a_metric_that_is_not_defined_has_no_interval() -> None:
    calibration = _calibration()
    nothing_above = calibration.binned(np.full(3, 0.01))
    found = cbpe.estimates(calibration, nothing_above, ("precision",), replicates=100)
    assert math.isnan(found["precision"].value)
    assert math.isnan(found["precision"].lower)


def test_the_same_reference_has_the_same_id() -> None:
    assert _calibration().id == _calibration().id != _calibration(9_999).id
    assert _calibration().id.startswith("sha256:")


def test_scores_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        _calibration().binned(np.array([0.1, 1.2, math.nan]))
    assert str(caught.value) == (
        "The window has 2 of 3 scores that are not between 0 and 1, the first is 1.2. "
        "Log probabilities."
    )
    with pytest.raises(DataError, match=r"The window has no rows\. Give some"):
        _calibration().binned(np.zeros(0))


def test_labels_that_are_no_classes_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        _calibration().positives_in(np.array([0.1, 0.2]), np.array([1, 2]))
    assert str(caught.value) == (
        "The window has 1 of 2 labels that are neither 0 nor 1, the first is 2. "
        "Quality is estimated of two classes only; leave the estimate out."
    )


def test_a_reference_with_one_class_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        cbpe.Calibration.fit(np.full(100, 0.5), np.repeat([0, 1], [90, 10]))
    assert str(caught.value) == (
        "The reference has 10 positive and 90 negative rows, and a calibration needs "
        "30 of each. Give more rows with labels."
    )


def test_an_unknown_metric_gets_a_near_miss() -> None:
    calibration = _calibration()
    with pytest.raises(PipelineError, match="Did you mean 'recall'"):
        cbpe.estimates(calibration, calibration.binned(np.array([0.5])), ("recal",))
