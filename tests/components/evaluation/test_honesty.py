"""How often intervals hold the truth, and verdicts are wrong: simulations."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from penstock.components.evaluation import (
    EvalConfig,
    GenericChangeThreshold,
    MetricConfig,
    MetricDirection,
    MetricThreshold,
)
from penstock.components.evaluation import eval_config as configs
from penstock.components.evaluation.blessing import (
    Judgment,
    Measured,
    Outcome,
    SliceMetrics,
    Word,
    judge,
)
from penstock.components.evaluation.evidence import Interval
from penstock.components.evaluation.intervals import Asked
from penstock.components.evaluation.measure import Found
from tests.components.evaluation import simulated
from tests.components.evaluation.parity import config, found, ready

pytestmark = pytest.mark.long

METRICS = ("AUC", "BinaryAccuracy", "Precision", "Calibration", "MeanPrediction")


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("clustered", [False, True], ids=["rows", "clusters"])
def test_intervals_of_95_percent_hold_the_truth_as_often(
    weighted: bool, clustered: bool, record_property: Any
) -> None:
    asked = config(*METRICS, weighted=weighted, slices=())
    many = simulated.rows(np.random.default_rng(10**9), 2_000_000, clustered=clustered)
    truth = _by_name(found(asked, dataclasses.replace(many, baseline=None))[0].values)
    held: Counter[str] = Counter()
    for seed in range(2_000):
        data = simulated.rows(np.random.default_rng(seed), 2_000, clustered=clustered)
        (overall,) = found(
            asked,
            dataclasses.replace(data, baseline=None),
            parts=1,
            intervals=Asked(seed=seed, has_clusters=clustered),
            cluster="cluster" if clustered else "",
        )
        for name, spread in _by_name(overall.spreads).items():
            held[name] += bool(spread.lower <= truth[name] <= spread.upper)
    shares = {name: count / 2_000 for name, count in held.items()}
    record_property("coverage", shares)
    print(f"coverage, weighted={weighted}, clustered={clustered}: {shares}")
    assert len(shares) == len(METRICS)
    for name, share in shares.items():
        assert 0.93 <= share <= 0.97, name


def _by_name(by_key: dict[Any, Any]) -> dict[str, Any]:
    return {key.name: value for key, value in by_key.items()}


MARGIN = EvalConfig(
    model_specs=config("AUC").model_specs,
    slicing_specs=config("AUC", slices=["part"]).slicing_specs,
    metrics_specs=config(
        MetricConfig(
            class_name="AUC",
            threshold=MetricThreshold(
                change_threshold=GenericChangeThreshold(
                    absolute={"value": -0.02},
                    direction=MetricDirection.HIGHER_IS_BETTER,
                )
            ),
        )
    ).metrics_specs,
)


def judgments(runs: int, loss: float) -> Iterator[tuple[Judgment, Judgment]]:
    """Judge pairs of models by evidence, and by their values as TFMA does."""
    for seed in range(runs):
        data = simulated.alike(
            np.random.default_rng(seed), 20_000, slices=50, loss=loss
        )
        measured = [
            slice_metrics(each)
            # What is judged is linearized; replicates are of either model alone.
            for each in found(MARGIN, data, parts=1, intervals=Asked(replicates=100))
        ]
        settled = ready(MARGIN, data)
        evidence, point = (
            judge(configs.thresholds(settled, confidence), measured)
            for confidence in (0.95, None)
        )
        yield evidence, point


def slice_metrics(each: Found) -> SliceMetrics:
    """Return what was measured as the gate takes it."""
    values: dict[Any, Measured] = {}
    for key, value in each.values.items():
        if not key.is_diff:
            continue
        spread = each.spreads.get(key)
        interval = None
        if spread is not None:
            lower, upper = float(spread.lower), float(spread.upper)
            interval = Interval(lower, upper, 0.95, spread.degrees)
        values[configs.metric_name(key.to_proto())] = Measured(
            each.values[key._replace(is_diff=False)],
            each.values[key.make_baseline_key("baseline")],
            value,
            difference_interval=interval,
        )
    return SliceMetrics(each.slice, values, rows=each.rows)


def rates(judged: list[Judgment]) -> dict[str, float]:
    """The share of each word, and of an overall slice that passes."""
    words = Counter(each.word for each in judged)
    overall = sum(
        finding.outcome is Outcome.PASSED
        for each in judged
        for finding in each.findings
        if finding.slice == ()
    )
    return {
        **{word.value: words[word] / len(judged) for word in Word},
        "overall passes": overall / len(judged),
    }


def test_a_model_as_good_is_seldom_blocked_and_passes_over_all_rows() -> None:
    evidence, point = zip(*judgments(150, loss=0.0), strict=True)
    by_evidence, by_value = rates(list(evidence)), rates(list(point))
    print(f"A/A by evidence: {by_evidence}, by value: {by_value}")
    assert by_evidence["NOT_BLESSED"] <= 0.05
    assert by_evidence["overall passes"] >= 0.80
    # What TFMA's gate does with the same numbers.
    assert by_value["NOT_BLESSED"] > 0.90


def test_a_real_loss_is_blocked() -> None:
    evidence, point = zip(*judgments(50, loss=0.04), strict=True)
    by_evidence = rates(list(evidence))
    print(f"A loss of 0.04 by evidence: {by_evidence}, by value: {rates(list(point))}")
    assert by_evidence["NOT_BLESSED"] >= 0.90
