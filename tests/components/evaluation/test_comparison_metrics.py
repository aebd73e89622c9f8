"""Metrics of two models on the same rows, against TFMA."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import (
    flip_metrics,
    metric_types,
    model_cosine_similarity,
    prediction_difference_metrics,
)

from penstock.components.evaluation import EvalConfig, MetricConfig, MetricsSpec
from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.intervals import Asked
from penstock.components.evaluation.metrics.comparisons import (
    Flips,
    RelativeDifferences,
)
from penstock.components.evaluation.plan import outputs_of
from penstock.components.evaluation.views import View
from penstock.schemas.errors import DataError
from tests.components.evaluation import parity
from tests.components.evaluation.parity import BASELINE, CANDIDATE, Data

RATES = (
    "BooleanFlipRates",
    "SymmetricFlipRate",
    "NegToNegFlipRate",
    "NegToPosFlipRate",
    "PosToNegFlipRate",
    "PosToPosFlipRate",
)


TFMAS_MERGE = flip_metrics._BooleanFlipCountsCombiner.merge_accumulators


@pytest.fixture(autouse=True, scope="module")
def every_bundle_counts_once() -> Iterator[None]:
    """Mend how TFMA merges, which goes wrong when Beam makes several bundles."""
    with pytest.MonkeyPatch.context() as patch:
        for combiner in (
            flip_metrics._BooleanFlipCountsCombiner,
            prediction_difference_metrics._SymmetricPredictionDifferenceCombiner,
            model_cosine_similarity._ModelCosineSimilarityCombiner,
        ):
            patch.setattr(combiner, "merge_accumulators", _merged)
        yield


def _merged(combiner: Any, accumulators: Iterable[Any]) -> Any:
    total = combiner.create_accumulator()
    for each in accumulators:
        total.merge(each)
    return total


def _data(seed: int, rows: int = 200, values: int = 1) -> Data:
    random = np.random.default_rng(seed)
    shape = (rows, values)
    return Data(
        {
            "label": random.integers(0, 2, rows),
            "weight": random.random(rows) + 0.5,
            "case": random.integers(0, 3, rows),
        },
        np.round(random.random(shape), 1).astype(np.float32).squeeze(),
        np.round(random.random(shape), 1).astype(np.float32).squeeze(),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_rates_and_differences_are_those_of_tfma(weighted: bool) -> None:
    names = (*RATES, "SymmetricPredictionDifference", "AUC")
    mine = parity.assert_parity(
        parity.config(*names, weighted=weighted), _data(1), relative=1e-7
    )

    assert {key.name for key in mine[()] if key.is_diff} == {
        "flip_rate",
        "symmetric_flip_rate",
        "neg_to_neg_flip_rate",
        "neg_to_pos_flip_rate",
        "pos_to_neg_flip_rate",
        "pos_to_pos_flip_rate",
        "symmetric_prediction_difference",
        "auc",
    }
    assert not any("flip" in key.name for key in mine[()] if not key.is_diff)


def _thresholds(*thresholds: float) -> EvalConfig:
    return parity.config(
        *(
            MetricConfig(
                class_name="NegToPosFlipRate",
                config=f'"threshold": {each}, "name": "at_{each}"',
            )
            for each in thresholds
        )
    )


def test_thresholds_are_those_of_tfma() -> None:
    data = _data(2)
    cast = [np.asarray(each, np.float64) for each in (data.candidate, data.baseline)]
    parity.assert_parity(_thresholds(0.1, 0.3, 0.7), Data(data.columns, *cast))


def test_a_threshold_has_64_bits() -> None:
    """0.3 in 32 bits is above 0.3 in 64: so in TFMA 0.52, not so in 0.47."""
    data = _data(2)
    candidate, baseline = (
        np.asarray(each, np.float64) for each in (data.candidate, data.baseline)
    )
    assert (np.float32(0.3) == data.candidate).any()
    mine = parity.ours(_thresholds(0.3), data)
    rate = ((candidate > 0.3) & ~(baseline > 0.3)).mean()
    assert next(iter(mine[()].values())) == pytest.approx(rate)


def _rows(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    scores = st.lists(
        st.sampled_from([0.0, 1e-8, 0.25, 0.5, 0.75, 1.0]), min_size=3, max_size=12
    )
    candidate = draw(scores)
    size = len(candidate)
    baseline = draw(
        st.lists(st.sampled_from([0.0, 1e-9, 0.5, 1.0]), min_size=size, max_size=size)
    )
    return candidate, baseline


@st.composite
def _cases(draw: st.DrawFn) -> list[tuple[list[float], list[float]]]:
    return [_rows(draw) for _ in range(6)]


@settings(max_examples=4)
@given(_cases(), st.booleans())
def test_extreme_and_equal_scores(
    cases: Sequence[tuple[list[float], list[float]]], weighted: bool
) -> None:
    data = Data.joined(
        [
            Data(
                {
                    "label": np.arange(len(candidate)) % 2,
                    "weight": np.arange(len(candidate)) * 0.5,
                },
                np.array(candidate),
                np.array(baseline),
            )
            for candidate, baseline in cases
        ]
    )
    parity.assert_parity(
        parity.config(*RATES, "SymmetricPredictionDifference", weighted=weighted), data
    )


@pytest.mark.parametrize("values", [1, 4])
def test_cosines_are_those_of_tfma(values: int) -> None:
    data = _data(3, values=values)
    candidate = np.asarray(data.candidate)
    candidate[:3] = 0  # a vector without direction makes the mean unknown
    parity.assert_parity(parity.config("ModelCosineSimilarity"), data)
    candidate += 0.01
    np.asarray(data.baseline)[:] += np.float32(0.01)
    mine = parity.assert_parity(parity.config("ModelCosineSimilarity"), data)
    assert 0.3 < next(iter(mine[()].values())) <= 1


def test_weighted_cosines_are_left_to_tfma_which_refuses_them() -> None:
    data, asked = _data(4), parity.config("ModelCosineSimilarity", weighted=True)
    assert parity.planned(asked, data).left_names == ("ModelCosineSimilarity",)
    with pytest.raises(ValueError, match="does not support example weights"):
        parity.theirs(asked, data)


def test_without_a_baseline_tfma_is_left_to_refuse() -> None:
    data = _data(5)
    alone = Data(data.columns, data.candidate)
    for name in (*RATES, "SymmetricPredictionDifference", "ModelCosineSimilarity"):
        assert parity.planned(parity.config(name), alone).left_names == (name,)


def test_classes_are_compared_with_themselves_where_tfma_makes_no_difference() -> None:
    """TFMA gives every class of a binarized flip rate the same number.

    In 0.47 it is that of class 0, in 0.52 that of all classes.
    """
    data = _data(6, values=3)
    spec = MetricsSpec(metrics=[MetricConfig(class_name="SymmetricFlipRate")])
    spec.binarize.class_ids.values.extend([0, 2])
    asked = parity.config(spec)

    mine, other = (
        {key.sub_key.class_id: value for key, value in values[()].items()}
        for values in (parity.ours(asked, data), parity.theirs(asked, data))
    )

    flipped = (np.asarray(data.candidate) > 0.5) != (np.asarray(data.baseline) > 0.5)
    assert mine == pytest.approx({0: flipped[:, 0].mean(), 2: flipped[:, 2].mean()})
    assert other[0] == other[2]


@pytest.mark.parametrize("weighted", [False, True])
def test_all_classes_are_decisions_as_in_tfma_052(weighted: bool) -> None:
    data = _data(8, values=3)
    asked = parity.config("SymmetricFlipRate", weighted=weighted)
    (mine,), (other,) = (
        values[()].values()
        for values in (parity.ours(asked, data), parity.theirs(asked, data))
    )
    flipped = (np.asarray(data.candidate) > 0.5) != (np.asarray(data.baseline) > 0.5)
    weights = data.columns["weight"] if weighted else np.ones(data.rows)
    assert mine == pytest.approx(np.average(flipped.mean(axis=1), weights=weights))
    first = np.average(flipped[:, 0], weights=weights)  # in 0.47
    assert other == pytest.approx(mine) or other == pytest.approx(first)


def test_a_difference_of_many_predictions_is_refused() -> None:
    batch = Batch(
        2,
        {
            ("prediction", CANDIDATE, ""): np.ones((2, 3)),
            ("prediction", BASELINE, ""): np.ones((2, 3)),
        },
    )
    differences = RelativeDifferences(View(CANDIDATE), View(BASELINE))
    with pytest.raises(DataError) as error:
        differences.contributions(batch)
    assert str(error.value) == (
        "A relative difference is of two predictions, and a row has 3 of each model. "
        "Name the classes with class_ids of binarize, or compare them whole with "
        "ModelCosineSimilarity."
    )


def test_a_class_that_is_not_there_is_refused() -> None:
    batch = Batch(1, {("prediction", CANDIDATE, ""): np.ones((1, 2))})
    flips = Flips(View(CANDIDATE, class_id=2), View(CANDIDATE, class_id=2), 0.5)
    with pytest.raises(DataError) as error:
        flips.contributions(batch)
    assert str(error.value) == (
        "Class 2 is asked for, and the predictions have 2 classes, from 0. Mend the "
        "class of the metric, or class_ids or class_weights of its MetricsSpec."
    )


def test_tfma_counts_the_first_of_several_bundles_twice() -> None:
    """Beam hands accumulators over as a tuple, which TFMA iterates twice."""
    key = metric_types.MetricKey("flips")
    combiner = flip_metrics._BooleanFlipCountsCombiner(
        key, None, BASELINE, CANDIDATE, "", False, 0.5
    )
    parts = [combiner.create_accumulator() for _ in range(2)]
    parts[0].num_weighted_examples, parts[0].num_weighted_neg_to_pos = 10, 10
    parts[1].num_weighted_examples = 10

    wrong = combiner.extract_output(TFMAS_MERGE(combiner, tuple(parts)))[key]
    data = Data(
        {"label": np.zeros(20), "case": np.zeros(20)},
        np.repeat([1.0, 0.0], 10),
        np.zeros(20),
    )
    mine = parity.ours(parity.config("NegToPosFlipRate"), data)

    assert wrong.num_weighted_neg_to_pos / wrong.num_weighted_examples == 2 / 3
    assert next(iter(mine[()].values())) == 0.5


def _predictions(random: Any, rows: int) -> tuple[Array, Array]:
    baseline = random.random(rows)
    return np.clip(baseline + random.normal(0, 0.2, rows), 0, 1), baseline


@pytest.mark.parametrize("weighted", [False, True])
def test_intervals_hold_the_true_rate(weighted: bool) -> None:
    names = ("SymmetricFlipRate", "SymmetricPredictionDifference")
    truth = _rates(_predictions(np.random.default_rng(0), 1_000_000))
    held = dict.fromkeys(names, 0)
    times = 200
    for seed in range(times):
        random = np.random.default_rng(seed + 1)
        rows = 300
        data = Data(
            {
                "label": np.zeros(rows),
                "weight": random.gamma(2.0, size=rows),
                "case": np.zeros(rows),
            },
            *_predictions(random, rows),
        )
        asked = parity.config(*names, weighted=weighted, slices=())
        (found,) = parity.found(asked, data, intervals=Asked(replicates=300, seed=seed))
        for (name, true), spread in zip(
            truth.items(), found.spreads.values(), strict=True
        ):
            held[name] += bool(spread.lower <= true <= spread.upper)
    for count in held.values():
        assert 0.90 <= count / times <= 0.99


def _rates(predictions: tuple[Array, Array]) -> dict[str, float]:
    candidate, baseline = predictions
    return {
        "SymmetricFlipRate": float(((candidate > 0.5) != (baseline > 0.5)).mean()),
        "SymmetricPredictionDifference": float(
            (2 * abs(candidate - baseline) / (candidate + baseline)).mean()
        ),
    }


def test_a_comparison_reads_the_output_of_both_models() -> None:
    plan = parity.planned(parity.config("SymmetricFlipRate"), _data(7))
    assert [outputs_of(plan.metrics, name) for name in (CANDIDATE, BASELINE)] == [
        ("",),
        ("",),
    ]
