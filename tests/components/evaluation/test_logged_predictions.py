"""Predictions that are columns: their forms, and what is no prediction."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.columns.inputs import Inputs
from penstock.components.evaluation import ModelSpec, models
from penstock.schemas.errors import DataError, PipelineError

SUBJECT = "Examples 'logs'"


def predicted(
    rows: pa.RecordBatch, outputs: Any = ("",), first_row: int = 0, **spec: Any
) -> dict[str, Any]:
    source = models.find(SUBJECT, None, ModelSpec(**spec), rows.schema, outputs=outputs)
    assert source.required == source.columns
    assert source.outputs == tuple(outputs)
    predictor = models.load(pickle.loads(pickle.dumps(source)))
    inputs = Inputs(rows, "eval", first_row)
    assert predictor.transform(inputs) == {}
    return predictor.predict(inputs)


def column(values: Any, kind: Any = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["score"])


def refusal(rows: pa.RecordBatch, *given: Any, **fields: Any) -> str:
    with pytest.raises((DataError, PipelineError)) as caught:
        predicted(rows, *given, **{"prediction_key": "score", **fields})
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0.25, 0.5], pa.float64(), np.array([0.25, 0.5])),
        ([0.25, 0.5], pa.float32(), np.array([0.25, 0.5], np.float32)),
        ([1, 0], pa.int8(), np.array([1, 0])),
        ([True, False], pa.bool_(), np.array([1, 0])),
        ([[0.1, 0.9], [0.8, 0.2]], None, np.array([[0.1, 0.9], [0.8, 0.2]])),
        ([[1.0], [2.0]], pa.large_list(pa.float64()), np.array([[1.0], [2.0]])),
        ([[1.0], [2.0]], pa.list_(pa.float64(), 1), np.array([[1.0], [2.0]])),
        (["a", "b"], pa.string(), np.array([b"a", b"b"], object)),
        (["a", "b"], pa.large_string(), np.array([b"a", b"b"], object)),
        ([b"a", b"b"], pa.binary(), np.array([b"a", b"b"], object)),
        ([], pa.float64(), np.array([], np.float64)),
        ([], pa.list_(pa.float64()), np.zeros((0, 1))),
        ([float("nan"), 1.0], pa.float64(), np.array([np.nan, 1.0])),
    ],
)
def test_columns_become_arrays(values: Any, kind: Any, expected: Any) -> None:
    found = predicted(column(values, kind), prediction_key="score")[""]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_half_floats_become_floats() -> None:
    rows = column(np.array([0.5, 0.25], np.float16))
    found = predicted(rows, prediction_key="score")[""]
    assert found.tolist() == [0.5, 0.25]


def test_each_output_has_its_column() -> None:
    rows = pa.RecordBatch.from_pydict({"a": [0.1], "b": [0.2], "c": [0.3]})
    keys = {"one": "b", "two": "a"}
    assert predicted(rows, ("one", "two"), prediction_keys=keys) == {
        "one": [0.2],
        "two": [0.1],
    }
    assert predicted(rows, prediction_keys={"one": "c"}) == {"": [0.3]}
    assert predicted(rows.slice(0, 1), prediction_key="b") == {"": [0.2]}


def test_without_a_key_there_is_no_prediction() -> None:
    assert refusal(column([0.5]), prediction_key="", name="candidate") == (
        "The ModelSpec 'candidate' has neither a model nor predictions. Give the "
        "Evaluator a model, or the ModelSpec the column of the predictions as its "
        "prediction_key."
    )


def test_a_column_that_is_not_there_is_refused() -> None:
    assert refusal(column([0.5]), prediction_key="scores") == (
        f"The eval_config has the prediction 'scores', which is no column of {SUBJECT} "
        "(it has 'score'). Did you mean 'score'?"
    )


def test_an_output_without_a_column_is_refused() -> None:
    text = refusal(column([0.5]), ("tip",))
    assert text == (
        f"The ModelSpec of {SUBJECT} gives no output 'tip' (it gives ''). Mend "
        "output_names of the MetricsSpec, or the prediction keys of the ModelSpec."
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [([{"a": 1}], "struct<a: int64>"), ([[[1.0]]], "list<item: list<item: double>>")],
)
def test_a_column_of_another_kind_is_refused(values: Any, kind: str) -> None:
    assert refusal(column(values)) == (
        f"Column 'score' of {SUBJECT} has type {kind}, which no prediction has: those "
        "are numbers or texts, or lists of them. Name another column as the "
        "prediction_key."
    )


@pytest.mark.parametrize(
    "values",
    [
        [0.5, None, 0.25, None],
        [[0.5], None, [0.25], []],
        [[0.5, 0.5], [0.5, None], [0.25, 0.5], [None, None]],
    ],
)
def test_rows_without_a_prediction_are_counted(values: Any) -> None:
    assert refusal(column(values), first_row=10) == (
        f"{SUBJECT} has no prediction in 2 rows of column 'score', the first of them "
        "row 11 of split 'eval'. Leave such rows out before ingestion."
    )


def test_what_the_rows_of_a_split_lack_is_said_at_once() -> None:
    spec = ModelSpec(prediction_key="score")
    source = models.find(SUBJECT, None, spec, column([0.5]).schema)
    assert str(source.missing_values("score", 12_345)) == (
        f"{SUBJECT} has no prediction in 12,345 rows of column 'score'. Leave such "
        "rows out before ingestion."
    )


def test_lists_of_different_lengths_are_refused() -> None:
    rows = column([[0.1, 0.9], [0.2, 0.8], [0.1, 0.2, 0.7]])
    assert refusal(rows, first_row=100) == (
        f"Column 'score' of {SUBJECT} has lists of predictions of different lengths: 2 "
        "values in row 100 of split 'eval', and 3 in row 102 of split 'eval'. Log as "
        "many for every row."
    )
