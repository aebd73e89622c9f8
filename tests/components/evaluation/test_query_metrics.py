"""Metrics of whole queries, against TFMA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.base import RunContext
from penstock.components.evaluation import (
    EvalConfig,
    Evaluator,
    MetricConfig,
    MetricsSpec,
    ModelSpec,
    results,
)
from penstock.components.evaluation.accumulate import (
    Accumulator,
    Settings,
    ranks_of_clusters,
)
from penstock.components.evaluation.batch import Array, Batch
from penstock.components.evaluation.intervals import Asked
from penstock.components.evaluation.measure import measured
from penstock.components.evaluation.metrics import queries
from penstock.components.evaluation.slicing import SliceBy
from penstock.components.evaluation.views import View
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError, PipelineError
from tests.components.evaluation import parity
from tests.components.evaluation.parity import Data

NDCG = MetricConfig(
    class_name="NDCG", config='"gain_key": "gain", "top_k_list": [1, 3, 10]'
)
RANKED = (NDCG, "MinLabelPosition", "QueryStatistics", "ExampleCount")
ORDINARY = (
    "AUC",
    "AUCPrecisionRecall",
    "BinaryAccuracy",
    "Precision",
    "MeanLabel",
    "MeanPrediction",
    "Calibration",
    MetricConfig(
        class_name="ConfusionMatrixAtThresholds", config='"thresholds": [0.3, 0.5]'
    ),
    MetricConfig(class_name="CalibrationPlot", config='"num_buckets": 10'),
)


def _spec(*metrics: str | MetricConfig, key: str = "query", **fields: Any) -> Any:
    return MetricsSpec(
        metrics=[
            MetricConfig(class_name=each) if isinstance(each, str) else each
            for each in metrics
        ],
        query_key=key,
        **fields,
    )


def _data(seed: int, rows: int = 240, *, texts: bool = False, digits: int = 1) -> Data:
    """Queries of one row to many, all over the data, with ties."""
    random = np.random.default_rng(seed)
    query = np.minimum(random.geometric(0.05, rows), 30)
    columns = {
        "label": random.integers(0, 2, rows),
        "gain": random.integers(-1, 4, rows),
        "weight": (query % 4) + 0.5,
        "case": random.integers(0, 3, rows),
        "query": np.array([f"q{each}" for each in query]) if texts else query,
    }
    score = np.round(random.random(rows), digits).astype(np.float32)
    return Data(columns, score)


def _asked(*specs: Any, **fields: Any) -> EvalConfig:
    return parity.config(*specs, **fields)


@pytest.mark.parametrize("weighted", [False, True])
def test_rankings_are_those_of_tfma(weighted: bool) -> None:
    mine = parity.assert_parity(
        _asked(_spec(*RANKED), weighted=weighted), _data(1, texts=True)
    )
    names = {(key.name, key.sub_key.top_k if key.sub_key else None) for key in mine[()]}
    assert names == {
        ("ndcg", 1),
        ("ndcg", 3),
        ("ndcg", 10),
        ("min_label_position", None),
        ("total_queries", None),
        ("total_documents", None),
        ("min_documents", None),
        ("max_documents", None),
        ("example_count", None),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_ordinary_metrics_of_whole_queries(weighted: bool) -> None:
    """A slice has all rows of a query, one of whose rows is in it."""
    data = _data(2)
    asked = _asked(_spec(*ORDINARY), weighted=weighted)
    mine = parity.assert_parity(asked, data)
    by_rows = parity.ours(_asked(*ORDINARY, weighted=weighted), data)

    slice_key = (("case", 0),)
    for key, value in mine[()].items():
        assert parity.is_equal(by_rows[()][key], value, 1e-12)
    assert any(by_rows[slice_key][key] != mine[slice_key][key] for key in mine[()])


def _precise(draw: st.DrawFn, size: int, *values: float) -> Array:
    chosen = st.lists(st.sampled_from(values), min_size=size, max_size=size)
    return np.array(draw(chosen))


@st.composite
def _cases(draw: st.DrawFn) -> list[Data]:
    found = []
    for _ in range(6):
        size = draw(st.integers(1, 40))
        query = _precise(draw, size, 1, 2, 3).astype(np.int64)
        found.append(
            Data(
                {
                    "label": _precise(draw, size, 0, 0, 1),
                    "gain": _precise(draw, size, -1.0, 0.0, 0.5, 3.0),
                    "weight": np.array([0.0, 1.0, 0.25, 4.0])[query],
                    "query": query,
                },
                _precise(draw, size, 0.0, 0.25, 0.5, 1.0, 2.5),
            )
        )
    return found


@settings(max_examples=6)
@given(_cases(), st.booleans())
def test_ties_and_queries_without_gain(cases: Sequence[Data], weighted: bool) -> None:
    joined = Data.joined(cases)
    # A query is in every slice of its rows, so that queries of cases are kept apart.
    joined.columns["query"][:] += 10 * joined.columns["case"]
    parity.assert_parity(_asked(_spec(*RANKED), weighted=weighted), joined)


def test_top_k_is_of_a_query() -> None:
    rows = 90
    random = np.random.default_rng(4)
    data = Data(
        {
            "label": random.integers(0, 2, rows),
            "gain": random.integers(0, 3, rows),
            "query": random.permutation(np.arange(rows) % 9),
            "case": np.arange(rows) % 2,
        },
        np.round(random.random(rows), 2).astype(np.float32),
    )
    binarized = _spec("Precision", "Recall", "BinaryAccuracy", NDCG)
    binarized.binarize.top_k_list.values.extend([1, 4])
    kth = _spec(MetricConfig(class_name="Precision", config='"name": "kth"'))
    kth.binarize.k_list.values.extend([1, 3])
    own = _spec(MetricConfig(class_name="Recall", config='"name": "own", "top_k": 2'))
    parity.assert_parity(_asked(binarized, kth, own), data)


def test_queries_shorter_than_k_are_refused_as_by_tfma() -> None:
    spec = _spec("Precision")
    spec.binarize.top_k_list.values.append(3)
    data = Data(
        {
            "label": np.zeros(6),
            "query": np.array([1, 1, 1, 2, 2, 3]),
            "case": np.zeros(6),
        },
        np.linspace(0, 1, 6),
    )
    with pytest.raises(DataError) as error:
        parity.ours(_asked(spec), data)
    assert str(error.value) == (
        "The 3 highest predictions of every query are asked for, and 1 of 3 queries "
        "have 1. Lower k, or leave such queries out before ingestion."
    )
    with pytest.raises(Exception, match="add_input failed"):
        parity.theirs(_asked(spec), data)


def test_two_models_and_a_label_that_is_a_feature() -> None:
    one, other = _data(5), _data(6)
    data = Data(one.columns, one.candidate, other.candidate)
    position = MetricConfig(class_name="MinLabelPosition", config='"label_key": "gain"')
    mine = parity.assert_parity(_asked(_spec(NDCG, position, "AUC")), data)
    assert {
        (key.name, key.model_name, key.is_diff)
        for key in mine[()]
        if key.name == "ndcg"
    } == {
        ("ndcg", "candidate", False),
        ("ndcg", "baseline", False),
        ("ndcg", "candidate", True),
    }


def test_statistics_of_two_models_where_tfma_fails() -> None:
    """TFMA takes the dict of models for the prediction, and finds no key in it."""
    one, other = _data(7), _data(8)
    data = Data(one.columns, one.candidate, other.candidate)
    asked = _asked(_spec("QueryStatistics"))
    with pytest.raises(Exception, match="add_input failed"):
        parity.theirs(asked, data)
    mine = parity.ours(asked, data)
    alone = parity.ours(asked, Data(one.columns, one.candidate))
    for key, value in alone[()].items():
        for name in ("candidate", "baseline"):
            assert mine[()][key._replace(model_name=name)] == value


def test_specs_of_several_keys_and_of_rows() -> None:
    data = _data(9)
    data.columns["query2"] = data.columns["query"] % 3  # type: ignore[index]
    asked = _asked(
        "AUC",
        _spec(NDCG, MetricConfig(class_name="AUC", config='"name": "auc_of_queries"')),
        _spec(
            MetricConfig(
                class_name="NDCG",
                config='"gain_key": "gain", "top_k_list": [2], "name": "other"',
            ),
            key="query2",
        ),
    )
    parity.assert_parity(asked, data)


def test_compared_slices() -> None:
    from tensorflow_model_analysis.proto import config_pb2

    cross = config_pb2.CrossSlicingSpec(
        baseline_spec={}, slicing_specs=[{"feature_keys": ["case"]}]
    )
    asked = _asked(_spec(NDCG, "MinLabelPosition"), cross_slicing_specs=[cross])
    parity.assert_parity(asked, _data(10))


def test_what_only_tfma_does_is_left_to_it() -> None:
    data = _data(11)
    two = Data(data.columns, data.candidate, data.candidate)
    classes = _spec("AUC")
    classes.binarize.class_ids.values.append(0)
    own = _spec(MetricConfig(class_name="AUC", config='"class_id": 0'))
    for spec, name in (
        (_spec("SymmetricFlipRate"), "SymmetricFlipRate"),
        (classes, "AUC"),
        (own, "AUC"),
        (_spec(NDCG, key=""), "NDCG"),
        (_spec("QueryStatistics", key=""), "QueryStatistics"),
        (_spec("MinLabelPosition", key=""), "MinLabelPosition"),
        (_spec(MetricConfig(class_name="NDCG", config='"gain_key": "gain"')), "NDCG"),
    ):
        assert parity.planned(_asked(spec), two).left_names == (name,)


def test_a_metric_of_rows_and_of_queries_needs_two_names() -> None:
    with pytest.raises(PipelineError) as error:
        parity.planned(_asked("AUC", _spec("AUC")), _data(12))
    assert str(error.value) == (
        "The eval_config asks for 'auc' with the query_key 'query' and with another or "
        "none. Give one of them a name of its own in its config."
    )


def test_rows_are_kept_only_for_what_reads_them() -> None:
    plan = parity.planned(_asked("AUC", _spec(NDCG)), _data(13))
    (kept,) = plan.queries
    assert kept.key == "query"
    assert plan.columns == ("gain",)
    assert kept.keeps(("column", "", "gain"))
    assert not kept.keeps(("column", "", "query"))
    assert kept.keeps(("prediction", "", ""))
    assert not kept.keeps(("prediction", "baseline", ""))


@pytest.mark.parametrize(
    "values", [pa.array([1, None]), pa.array([[1], []]), pa.array([[1], [2, 3]])]
)
def test_rows_without_one_query_are_refused(values: pa.Array) -> None:
    plan = parity.planned(_asked(_spec("MinLabelPosition")), _data(14))
    accumulator = Accumulator(
        Settings((SliceBy(),), plan.statistics, (False,), queries=plan.queries)
    )
    arrays = {
        ("label", "", ""): np.zeros(2),
        ("prediction", "", ""): np.zeros(2),
    }
    with pytest.raises(DataError) as error:
        accumulator.add(
            pa.RecordBatch.from_arrays([values], names=["query"]),
            Batch(2, arrays),  # type: ignore[arg-type]
            None,
        )
    assert str(error.value) == (
        "1 of 2 rows have none or several values in 'query', the query_key of a "
        "MetricsSpec, and a row is of one query. Leave such rows out before ingestion."
    )


def _evaluator(
    folder: Path, write_examples: Callable[..., Examples], data: Data, metric: str
) -> Evaluator:
    table = pa.table(
        {
            **{name: pa.array(each) for name, each in data.columns.items()},
            "score": pa.array(data.candidate),
        }
    )
    asked = _asked(
        "AUC",
        _spec(MetricConfig(class_name="NDCG", config=metric)),
        model_specs=[ModelSpec(label_key="label", prediction_key="score")],
    )
    return Evaluator(
        examples=write_examples(folder / "examples", eval=table),
        eval_config=asked,
        confidence=0.95,
    ).with_outputs(folder / "out")


def test_the_evaluator_ranks_queries(
    tmp_path: Path, write_examples: Callable[..., Examples]
) -> None:
    data, metric = _data(15, texts=True), '"gain_key": "gain", "top_k_list": [3]'
    evaluator = _evaluator(tmp_path, write_examples, data, metric)

    evaluator.run(RunContext.local(tmp_path / "temporary"))

    found = results.read(evaluator.evaluation.path)
    mine = parity.ours(
        _asked(_spec(MetricConfig(class_name="NDCG", config=metric))), data
    )
    assert len(found) == 4
    for each in found:
        (value,) = mine[each.slice].values()
        (ndcg,) = (value for name, value in each.metrics.items() if name.name == "ndcg")
        assert ndcg.value == pytest.approx(value)
        assert ndcg.interval is not None
        assert ndcg.interval.lower < value < ndcg.interval.upper


def test_a_gain_that_is_no_column_is_refused(
    tmp_path: Path, write_examples: Callable[..., Examples]
) -> None:
    metric = '"gain_key": "gains", "top_k_list": [3]'
    evaluator = _evaluator(tmp_path, write_examples, _data(16), metric)
    with pytest.raises(DataError) as error:
        evaluator.run(RunContext.local(tmp_path / "temporary"))
    assert str(error.value) == (
        "The eval_config has the metric column 'gains', which is no column of "
        f"Examples '{evaluator.examples.uri}' (it has 'case', 'gain', 'label', "
        "'query', 'score', 'weight'). Did you mean 'gain'?"
    )


def _whole(**arrays: Array) -> Batch:
    keys: dict[str, Any] = {
        "label": ("label", "", ""),
        "prediction": ("prediction", "", ""),
        "weight": ("weight", "", ""),
        "gain": ("column", "", "gain"),
        "query": ("query", "", "query"),
    }
    rows = len(arrays["query"])
    return Batch(rows, {keys[name]: each for name, each in arrays.items()})


VIEW = View(query_key="query")


def test_rows_of_different_weights_are_refused() -> None:
    batch = _whole(
        query=np.array([0, 0, 1, 1, 1]),
        prediction=np.zeros(5),
        weight=np.array([1.0, 1.0, 2.0, 3.0, 4.0]),
    )
    view = View(query_key="query", is_weighted=True)
    with pytest.raises(DataError) as error:
        queries.QuerySizes(view).contributions(batch)
    assert str(error.value) == (
        "1 of 2 queries of 'query' have rows of different weights, and a query counts "
        "with one. Give its rows the same weight, or measure without weights "
        "(example_weights { unweighted: true } in the MetricsSpec)."
    )


def test_gains_that_are_no_numbers_are_refused() -> None:
    batch = _whole(
        query=np.zeros(2), prediction=np.zeros(2), gain=np.array(["a", "b"], object)
    )
    with pytest.raises(DataError) as error:
        queries.DiscountedGains(VIEW, "gain", 1).contributions(batch)
    assert str(error.value) == (
        "Column 'gain' has 1 values of type object in a row, and a ranked row has one "
        "number. Name another column in the metric's config."
    )


def test_several_predictions_or_labels_are_refused() -> None:
    batch = _whole(query=np.zeros(2), prediction=np.zeros((2, 3)), label=np.zeros(2))
    with pytest.raises(DataError) as error:
        VIEW.pairs(batch)
    assert str(error.value) == (
        "A row has 3 predictions, and a query's rows are ranked by one. Take the "
        "query_key out of the MetricsSpec, or name the output that ranks."
    )
    batch = _whole(query=np.zeros(2), prediction=np.zeros(2), label=np.zeros((2, 4)))
    with pytest.raises(DataError) as error:
        VIEW.pairs(batch)
    assert str(error.value) == (
        "A row has 4 labels, and a row of a query has one. Name the right label_key."
    )


def _ranked_rows(random: np.random.Generator, count: int) -> Data:
    """Queries whose rows are alike, so that rows are not independent."""
    sizes = random.integers(1, 12, count)
    query = np.repeat(np.arange(count), sizes)
    quality = random.normal(0, 1, count)[query]
    relevance = random.normal(quality, 1)
    order = random.permutation(len(query))
    columns = {
        "query": query,
        "label": (relevance > 0).astype(np.int64),
        "gain": np.maximum(np.round(relevance), 0),
        "case": np.zeros(len(query)),
    }
    score = 1 / (1 + np.exp(-relevance - random.normal(0, 1, len(query))))
    return Data({name: each[order] for name, each in columns.items()}, score[order])


def test_intervals_are_of_queries() -> None:
    ndcg = MetricConfig(
        class_name="NDCG", config='"gain_key": "gain", "top_k_list": [5]'
    )
    asked = _asked(_spec(ndcg, "MinLabelPosition", "MeanPrediction"), slices=())
    (whole,) = parity.found(asked, _ranked_rows(np.random.default_rng(0), 50_000))
    held = dict.fromkeys(whole.values, 0)
    times = 150
    for seed in range(times):
        data = _ranked_rows(np.random.default_rng(seed + 1), 150)
        (found,) = parity.found(asked, data, intervals=Asked(seed=seed))
        assert set(found.spreads) == set(held)
        for key, spread in found.spreads.items():
            assert spread.method == "linearized"
            held[key] += bool(spread.lower <= whole.values[key] <= spread.upper)
    for count in held.values():
        assert 0.90 <= count / times <= 0.99


def test_a_sample_of_queries_has_the_spread_of_all() -> None:
    asked = _asked(_spec("MinLabelPosition", "MeanPrediction"), slices=())
    data = _ranked_rows(np.random.default_rng(3), 6_000)
    (found,) = parity.found(asked, data, intervals=Asked())
    widths = {
        key.name: float(each.upper - each.lower) for key, each in found.spreads.items()
    }
    exact = _widths(data)
    for name, width in exact.items():
        assert widths[name] == pytest.approx(width, rel=0.05)


def test_units_are_clusters_of_queries_if_asked() -> None:
    """Each query is there five times, in five that one user asked."""
    once = _ranked_rows(np.random.default_rng(4), 200)
    copies = 5
    columns = {name: np.tile(each, copies) for name, each in once.columns.items()}
    user = columns["query"]
    copy = np.repeat(np.arange(copies), once.rows)
    columns["query"] = user + 1_000 * copy
    data = Data(columns, np.tile(np.asarray(once.candidate), copies))
    asked = _asked(_spec("MinLabelPosition"), slices=())
    plan = parity.planned(asked, data)
    accumulator = Accumulator(
        Settings(plan.slicings, plan.statistics, (False,), 5_000, True, plan.queries)
    )
    table = pa.table({"query": columns["query"], "user": user}).to_batches()[0]
    arrays: dict[Any, Any] = {
        ("label", "", ""): columns["label"],
        ("prediction", "", ""): data.candidate,
    }
    ranks = ranks_of_clusters(table, "user", np.zeros(data.rows, np.uint64), 0)
    accumulator.add(table, Batch(data.rows, arrays), ranks)

    (found,) = measured(accumulator, plan.metrics, asked=Asked(has_clusters=True))
    (alone,) = parity.found(asked, once, intervals=Asked())

    (spread,), (expected,) = found.spreads.values(), alone.spreads.values()
    assert found.values == pytest.approx(alone.values)
    assert spread.upper - spread.lower == pytest.approx(expected.upper - expected.lower)


def _widths(data: Data) -> dict[str, float]:
    """The widths of 95 % intervals of ratios of sums over queries, by hand."""
    query, score = data.columns["query"], np.asarray(data.candidate)
    count = int(query.max()) + 1
    order = np.lexsort((-score, query))
    labels, of = data.columns["label"][order], query[order]
    first = np.r_[True, of[1:] != of[:-1]]
    starts = np.flatnonzero(first)
    place = np.arange(len(of)) - np.repeat(starts, np.bincount(of)) + 1
    best = np.minimum.reduceat(np.where(labels > 0, place, np.inf), starts)
    known = np.isfinite(best)
    position = np.where(known, best, 0.0)
    sums = {
        "min_label_position": (position, known.astype(float)),
        "mean_prediction": (
            np.bincount(query, score, count),
            np.bincount(query, minlength=count).astype(float),
        ),
    }
    widths = {}
    for name, (top, bottom) in sums.items():
        ratio = top.sum() / bottom.sum()
        influence = (top - ratio * bottom) / bottom.sum()
        widths[name] = 2 * 1.96 * float(np.sqrt((influence**2).sum()))
    return widths
