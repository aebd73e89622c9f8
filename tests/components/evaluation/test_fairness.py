"""Gaps of a metric between the slices of a feature, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.base import RunContext
from penstock.components.evaluation import (
    EvalConfig,
    Evaluator,
    GenericValueThreshold,
    MetricConfig,
    MetricThreshold,
    ModelSpec,
    SlicingSpec,
    fairness,
    results,
)
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.eval_config import check_metrics
from penstock.components.evaluation.intervals import Asked
from penstock.components.evaluation.measure import Found
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import PipelineError
from tests.components.evaluation import parity
from tests.components.evaluation.parity import Data

GROUPS = "case"


def _gap(metric: str = "recall", **config: Any) -> MetricConfig:
    given = {"metric": metric, "feature": GROUPS, **config}
    text = ", ".join(f'"{key}": "{value}"' for key, value in given.items())
    return MetricConfig(class_name="FairnessGap", config=text)


def _data(random: np.random.Generator, sizes: Sequence[int], rates: Any) -> Data:
    """Rows that are all positive; each group has its recall."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    hit = random.random(len(group)) < np.asarray(rates)[group]
    score = np.where(hit, 0.75, 0.25)
    return Data({"label": np.ones(len(group)), GROUPS: group}, score)


def _measured(
    asked: EvalConfig, data: Data, intervals: Asked | None = None
) -> list[Found]:
    plan = parity.planned(asked, data)
    found = parity.found(asked, data, intervals=intervals)
    fairness.add_gaps(found, plan.gaps, baseline=plan.baseline)
    return found


def _named(values: dict[Any, Any]) -> dict[str, Any]:
    return {key.name: value for key, value in values.items()}


def test_a_gap_is_of_the_highest_and_the_lowest_slice() -> None:
    random = np.random.default_rng(0)
    data = _data(random, [50, 60, 70], [0.5, 0.7, 0.9])
    asked = parity.config("Recall", _gap(), _gap(kind="ratio", name="four_fifths"))
    whole, *slices = _measured(asked, data)

    recall = [_named(each.values)["recall"] for each in slices]
    found = _named(whole.values)
    assert found["recall_difference_by_case"] == max(recall) - min(recall)
    assert found["four_fifths"] == min(recall) / max(recall)
    assert all(set(_named(each.values)) == {"recall"} for each in slices)
    assert not whole.spreads


def test_slices_without_a_value_or_with_few_rows_are_left_out() -> None:
    data = _data(np.random.default_rng(1), [50, 60, 4], [0.5, 0.7, 0.0])
    data.columns["label"][:50] = 0  # no positives in group 0: it has no recall
    asked = parity.config("Recall", _gap(), _gap(kind="ratio", name="ratio"))
    whole, _, one, small = _measured(asked, data)
    found = _named(whole.values)
    assert found["recall_difference_by_case"] == _named(one.values)["recall"] - 0
    assert found["ratio"] == 0

    asked.options.min_slice_size.value = 5
    alone = _named(_measured(asked, data)[0].values)
    assert small.rows == 4
    assert np.isnan(alone["recall_difference_by_case"])
    assert np.isnan(alone["ratio"])


def test_two_models_have_a_gap_each_and_a_difference() -> None:
    random = np.random.default_rng(2)
    one = _data(random, [40, 40], [0.5, 0.9])
    other = _data(random, [40, 40], [0.6, 0.7])
    data = Data(one.columns, one.candidate, other.candidate)
    whole, *_ = _measured(parity.config("Recall", _gap()), data, Asked())
    gaps = {
        (key.model_name, key.is_diff): value
        for key, value in whole.values.items()
        if key.name == "recall_difference_by_case"
    }
    assert gaps["candidate", True] == pytest.approx(
        gaps["candidate", False] - gaps["baseline", False]
    )
    assert {key.model_name for key in whole.spreads if "by_case" in key.name} == {
        "candidate",
        "baseline",
    }


SIZES = [150, 250, 400, 600]


@pytest.mark.parametrize(
    ("rates", "kind", "most"),
    [
        ([0.8, 0.8, 0.8, 0.8], "difference", 0.20),
        ([0.8, 0.8, 0.8, 0.6], "difference", 0.23),
        ([0.5, 0.6, 0.7, 0.8], "difference", 0.24),
        ([0.8, 0.8, 0.8, 0.8], "ratio", 0.20),
        ([0.5, 0.6, 0.7, 0.8], "ratio", 0.28),
    ],
)
def test_intervals_hold_the_true_gap(
    rates: Sequence[float], kind: str, most: float
) -> None:
    low, high = min(rates), max(rates)
    truth = low / high if kind == "ratio" else high - low
    asked = parity.config("Recall", _gap(kind=kind, name="gap"))
    held, widths, times = 0, [], 200
    for seed in range(times):
        data = _data(np.random.default_rng(seed), SIZES, rates)
        whole, *_ = _measured(asked, data, Asked(replicates=300, seed=seed))
        spread = _named(whole.spreads)["gap"]
        assert spread.lower <= _named(whole.values)["gap"] <= spread.upper
        held += bool(spread.lower <= truth <= spread.upper)
        widths.append(float(spread.upper - spread.lower))
    assert held / times >= 0.93
    assert np.mean(widths) < most


def test_two_slices_have_the_interval_of_a_difference() -> None:
    """Of two, there is nothing to choose: it is that of Newcombe's difference."""
    data = _data(np.random.default_rng(4), [300, 500], [0.5, 0.9])
    whole, *slices = _measured(parity.config("Recall", _gap()), data, Asked())
    spread = _named(whole.spreads)["recall_difference_by_case"]
    low, high = (_named(each.spreads)["recall"] for each in slices)
    value = _named(whole.values)["recall_difference_by_case"]
    ends = [_named(each.values)["recall"] for each in slices]
    assert spread.lower == pytest.approx(
        value - np.hypot(ends[1] - high.lower, low.upper - ends[0]), rel=1e-6
    )
    assert spread.upper == pytest.approx(
        value + np.hypot(high.upper - ends[1], ends[0] - low.lower), rel=1e-6
    )


def test_a_ratio_of_nothing_has_no_interval() -> None:
    data = _data(np.random.default_rng(5), [50, 60], [0.0, 0.7])
    asked = parity.config("Recall", _gap(kind="ratio"), _gap(name="difference"))
    whole, *_ = _measured(asked, data, Asked())
    assert _named(whole.values)["recall_ratio_by_case"] == 0
    assert "recall_ratio_by_case" not in _named(whole.spreads)
    assert "difference" in _named(whole.spreads)


def _refusal(*metrics: Any, **fields: Any) -> str:
    data = _data(np.random.default_rng(6), [5, 5], [0.5, 0.5])
    with pytest.raises(PipelineError) as error:
        parity.planned(parity.config(*metrics, **fields), data)
    return str(error.value)


def test_a_gap_of_a_metric_that_is_not_computed_is_refused() -> None:
    assert _refusal("Recall", "Precision", _gap("recal")) == (
        "'recal_difference_by_case' is the gap of a metric 'recal', and its "
        "MetricsSpec has no such number computed in columns (there is 'precision', "
        "'recall'). Did you mean 'recall'?"
    )


def test_a_gap_of_slices_that_are_not_computed_is_refused() -> None:
    assert _refusal("Recall", _gap(feature="hour")) == (
        "'recall_difference_by_hour' compares the slices of 'hour' and is shown for "
        "all rows, and slicing_specs lack SlicingSpec(feature_keys=['hour']). Add it."
    )
    only = [SlicingSpec(feature_keys=[GROUPS])]
    assert _refusal("Recall", _gap(), slicing_specs=only) == (
        "'recall_difference_by_case' compares the slices of 'case' and is shown for "
        "all rows, and slicing_specs lack SlicingSpec(). Add it."
    )


def test_another_kind_is_refused() -> None:
    with pytest.raises(PipelineError) as error:
        check_metrics(parity.config(_gap(kind="ration")))
    assert str(error.value) == (
        'Metric \'FairnessGap\' cannot be made from its config \'"metric": "recall", '
        '"feature": "case", "kind": "ration"\': its kind is \'ration\' and not one of '
        "'difference', 'ratio'. Did you mean 'ratio'? Mend the config."
    )


def test_tfma_does_not_compute_it() -> None:
    data = _data(np.random.default_rng(7), [5, 5], [0.5, 0.5])
    with pytest.raises(PipelineError) as error:
        parity.theirs(parity.config("Recall", _gap()), data)
    assert str(error.value) == (
        "A FairnessGap is computed by penstock's Evaluator, and TFMA does not have it. "
        "Run the eval_config with the Evaluator, or take the FairnessGap out."
    )


def _table(rates: Array, seed: int) -> pa.Table:
    data = _data(np.random.default_rng(seed), [400, 400], rates)
    return pa.table(
        {
            "label": data.columns["label"],
            "group": np.array(["a", "b"])[data.columns[GROUPS]],
            "score": data.candidate,
        }
    )


@pytest.mark.parametrize(
    ("rates", "word"),
    [
        ([0.8, 0.8], "BLESSED"),
        ([0.5, 0.9], "NOT_BLESSED"),
        ([0.7, 0.8], "INCONCLUSIVE"),
    ],
)
def test_a_gap_blesses_or_not_on_evidence(
    tmp_path: Path, write_examples: Callable[..., Examples], rates: Any, word: str
) -> None:
    gap = _gap(feature="group")
    gap.threshold.CopyFrom(
        MetricThreshold(
            value_threshold=GenericValueThreshold(upper_bound={"value": 0.1})
        )
    )
    asked = parity.config(
        "Recall",
        gap,
        slices=("group",),
        model_specs=[ModelSpec(label_key="label", prediction_key="score")],
    )
    evaluator = Evaluator(
        examples=write_examples(tmp_path / "examples", eval=_table(rates, 8)),
        eval_config=asked,
        confidence=0.95,
    ).with_outputs(tmp_path / "out")

    evaluator.run(RunContext.local(tmp_path / "temporary"))

    assert evaluator.blessing.properties["verdict"] == word
    whole = results.read(evaluator.evaluation.path)[0]
    (measured,) = (
        each
        for name, each in whole.metrics.items()
        if name.name == "recall_difference_by_group"
    )
    assert measured.interval is not None
    assert evaluator.evaluation.properties["recall_difference_by_group"] == (
        measured.value
    )
