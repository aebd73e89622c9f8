"""An EvalConfig in short: files, metrics, thresholds, and the metrics that fit data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format

from penstock.components.evaluation import EvalConfig, ModelSpec, shorthand
from penstock.components.evaluation.eval_config import check_metrics
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import DataError, PenstockError, PipelineError


def config(*metrics: str) -> EvalConfig:
    made = EvalConfig()
    shorthand.name_columns(made, label="big", prediction="score")
    if metrics:
        shorthand.add_metrics(made, metrics)
    return made


def message(text: str) -> EvalConfig:
    found: EvalConfig = text_format.Parse(text, EvalConfig())
    return found


# Files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.pbtxt", 'model_specs { label_key: "big" }'),
        ("config.json", '{"modelSpecs": [{"labelKey": "big"}]}'),
    ],
)
def test_a_config_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert shorthand.read_config(tmp_path / name) == EvalConfig(
        model_specs=[ModelSpec(label_key="big")]
    )


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("config.yaml", "", "'{file}' ends in none of '.json', '.pbtxt'. Write the "),
        ("config.json", None, "There is no file '{file}'. Check the path."),
        ("config.json", "{", "'{file}' holds no EvalConfig: Failed to load JSON: "),
        (
            "config.json",
            '{"metric": 1}',
            "'{file}' holds no EvalConfig: Message type "
            '"tensorflow_model_analysis.EvalConfig" has no field named "metric"',
        ),
        ("config.pbtxt", "metrics: {", "'{file}' holds no EvalConfig: 1:1 : "),
    ],
)
def test_a_file_without_a_config_is_refused(
    tmp_path: Path, name: str, text: str | None, sentence: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        shorthand.read_config(tmp_path / name)
    assert str(caught.value).startswith(sentence.format(file=tmp_path / name))


def test_columns_that_are_named_take_the_place_of_the_files_own() -> None:
    given = message(
        'model_specs { name: "candidate" label_keys { key: "a" value: "x" } '
        'prediction_key: "p" } model_specs { name: "baseline" is_baseline: true }'
    )
    shorthand.name_columns(given, label="big", weight="w")
    assert given == message(
        'model_specs { name: "candidate" label_key: "big" prediction_key: "p" '
        'example_weight_key: "w" } model_specs { name: "baseline" is_baseline: true '
        'label_key: "big" example_weight_key: "w" }'
    )


# Metrics and slices --------------------------------------------------------------


def test_metrics_have_the_names_of_results_too() -> None:
    names = {
        "auc": "AUC",
        "AUC": "AUC",
        "mean_squared_error": "MeanSquaredError",
        "sparse_categorical_accuracy": "SparseCategoricalAccuracy",
        "binary_cross_entropy": "BinaryCrossEntropy",  # Keras spells it otherwise
        "BinaryCrossentropy": "BinaryCrossentropy",
    }
    (spec,) = config(*names).metrics_specs
    assert [each.class_name for each in spec.metrics] == list(names.values())


def test_an_unknown_metric_keeps_its_name_and_is_refused_with_the_near_one() -> None:
    with pytest.raises(PipelineError) as caught:
        check_metrics(config("Binaryaccurracy"))
    assert str(caught.value) == (
        "The eval_config asks for the metric 'Binaryaccurracy', which neither TFMA nor "
        "Keras has. Did you mean 'BinaryAccuracy'? For a metric of your own, give its "
        "module too."
    )


def test_slices_are_added_to_all_rows_or_to_those_of_the_file() -> None:
    given = EvalConfig()
    shorthand.add_slices(given, ["hour", "fare > 20"])
    assert given == message(
        'slicing_specs {} slicing_specs { feature_keys: "hour" } '
        'slicing_specs { feature_keys: "fare > 20" }'
    )
    given = message('slicing_specs { feature_keys: "payment" }')
    shorthand.add_slices(given, ["hour"])
    keys = [each.feature_keys for each in given.slicing_specs]
    assert keys == [["payment"], ["hour"]]


# Thresholds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["auc >= 0.8"], "value_threshold { lower_bound { value: 0.8 } }"),
        (["AUC >= 0"], "value_threshold { lower_bound {} }"),
        (["0.8 <= auc"], "value_threshold { lower_bound { value: 0.8 } }"),
        (["auc <= 1"], "value_threshold { upper_bound { value: 1 } }"),
        (["-.5 >= auc"], "value_threshold { upper_bound { value: -0.5 } }"),
        (
            ["0.8 <= auc <= 0.9"],
            "value_threshold { lower_bound { value: 0.8 } upper_bound { value: 0.9 } }",
        ),
        (
            ["auc <= 0.9", "0.8 <= auc"],
            "value_threshold { lower_bound { value: 0.8 } upper_bound { value: 0.9 } }",
        ),
        (
            ["auc - baseline >= -0.01"],
            "change_threshold { absolute { value: -0.01 } "
            "direction: HIGHER_IS_BETTER }",
        ),
        (
            ["0 >= auc - baseline", "auc >= 0.5"],
            "change_threshold { absolute { value: 0 } direction: LOWER_IS_BETTER } "
            "value_threshold { lower_bound { value: 0.5 } }",
        ),
    ],
)
def test_thresholds_become_those_of_their_metric(
    texts: list[str], expected: str
) -> None:
    given = config("AUC", "Recall")
    shorthand.add_thresholds(given, texts, has_baseline=True)
    auc, recall = given.metrics_specs[0].metrics
    assert auc == type(auc)(
        class_name="AUC",
        threshold=text_format.Parse(expected, type(auc.threshold)()),
    )
    assert not recall.HasField("threshold")


FORMS = (
    "Write a metric and numbers, as 'auc >= 0.8' or '0.9 <= calibration <= 1.1', or "
    "its change from the baseline, as 'auc - baseline >= -0.01'. Bounds are included."
)


@pytest.mark.parametrize(
    "text",
    [
        "auc",
        "auc > 0.8",
        "auc == 0.8",
        "auc >= recall",
        "auc >= true",
        "auc >= '0.8'",
        "auc >= 0.8 >= 0.7",
        "0.8 <= auc >= 0.9",
        "0.8 <= auc <= 0.9 <= 1",
        "auc >= 0.8 and recall >= 0.5",
        "auc - recall >= 0",
        "auc + baseline >= 0",
        "auc - 1 >= 0",
        "-1 <= auc - baseline <= 1",
        "abs(auc) >= 0.8",
    ],
)
def test_what_is_no_threshold_is_refused_with_its_forms(text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        shorthand.add_thresholds(config("AUC"), [text], has_baseline=True)
    assert str(caught.value) == f"Threshold '{text}' is none. {FORMS}"


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (
            ["auc >>= 1"],
            "Threshold 'auc >>= 1' cannot be read. Expression 'auc >>= 1' has '>=' "
            "where a value is expected. Write a column, a number or a 'text' there.\n"
            "    auc >>= 1\n"
            "         ^",
        ),
        (
            ["acu >= 1"],
            "Threshold 'acu >= 1' is for 'acu', which is not measured (those are "
            "'auc', 'recall'). Did you mean 'auc'? Ask for the metric too.",
        ),
        (
            ["auc >= 0.5", "auc >= 0.6"],
            "Threshold 'auc >= 0.6' sets a bound of 'auc' that another one sets too. "
            "Keep one of them.",
        ),
        (
            ["auc - baseline >= 0"],
            "Threshold 'auc - baseline >= 0' asks for a change from the baseline, and "
            "there is no baseline. Give one.",
        ),
    ],
)
def test_a_threshold_that_cannot_be_set_is_refused(
    texts: list[str], sentence: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        given = config("AUC", "Recall")
        shorthand.add_thresholds(given, texts, has_baseline=False)
    assert str(caught.value) == sentence


def test_a_threshold_is_for_all_metrics_of_its_name() -> None:
    given = config("AUC")
    shorthand.add_metrics(given, ["AUC"])
    shorthand.add_thresholds(given, ["auc >= 0.5"], has_baseline=False)
    assert all(
        spec.metrics[0].threshold.value_threshold.lower_bound.value == 0.5
        for spec in given.metrics_specs
    )


# Metrics that fit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.2, 0.9], "AUC"),
        ([0.0, 1.0], [0.2, 0.9], "AUC"),
        ([True, False], [0.2, 0.9], "AUC"),
        ([[1], [0]], [0.2, 0.9], "AUC"),
        ([0, None], [0.2, 0.9], "AUC"),
        ([0, 2], [0.2, 0.9], "MeanAbsoluteError"),
        ([0.5, 1.0], [0, 1], "MeanAbsoluteError"),
        ([0, 2], [[0.2, 0.8], [0.1, 0.9]], "SparseCategoricalAccuracy"),
        ([[1, 0], [0, 1]], [[0.2, 0.8], [0.1, 0.9]], "CategoricalAccuracy"),
        (["a", "b"], ["a", "a"], "ExactMatch"),
    ],
)
def test_metrics_fit_labels_and_predictions(
    tmp_path: Path,
    write_examples: Callable[..., Examples],
    labels: Any,
    scores: Any,
    expected: str,
) -> None:
    table = pa.table({"big": pa.array(labels), "score": pa.array(scores)})
    examples = write_examples(tmp_path, eval=table)
    first, *_, last = shorthand.usual_metrics(config(), examples, ["eval"], None)
    assert (first, last) == (expected, "ExampleCount")
    check_metrics(config(first, last))


def test_two_classes_are_seen_from_all_rows_of_all_splits(
    tmp_path: Path, write_examples: Callable[..., Examples]
) -> None:
    classes = pa.table({"big": np.zeros(70_000, int), "score": np.full(70_000, 0.5)})
    counts = pa.table({"big": [0, 7], "score": [0.5, 0.5]})
    examples = write_examples(tmp_path, eval=classes, late=counts)
    found = shorthand.usual_metrics(config(), examples, ["eval"], None)
    assert found[0] == "AUC"
    found = shorthand.usual_metrics(config(), examples, ["eval", "late"], None)
    assert found[0] == "MeanAbsoluteError"


def test_a_label_that_a_model_computes_is_computed(
    examples: Examples, transforming_model: Model, tf_example_model: Model
) -> None:
    given = EvalConfig()
    shorthand.name_columns(given, label="generous")
    shorthand.compute_labels(given, transforming_model, ["fare", "hour"])
    assert given.model_specs[0].preprocessing_function_names == ["labels"]
    found = shorthand.usual_metrics(given, examples, ["eval"], transforming_model)
    assert found[0] == "AUC"
    # What is a column, or what no signature gives, is left alone.
    shorthand.name_columns(given, label="big")
    given.model_specs[0].ClearField("preprocessing_function_names")
    shorthand.compute_labels(given, transforming_model, ["big"])
    shorthand.compute_labels(given, tf_example_model, ["fare"])
    assert not given.model_specs[0].preprocessing_function_names


@pytest.mark.parametrize(
    ("label", "labels", "kind", "sentence"),
    [
        (
            "",
            [0, 1],
            PipelineError,
            "Neither a label nor metrics are named, so nothing says what to measure. "
            "Name the column of the label.",
        ),
        (
            "big",
            ["a", "b"],
            DataError,
            "Label 'big' of Examples '{folder}' has the type object, and predictions "
            "have float64: no metric fits both. Turn them into numbers, or name the "
            "metrics.",
        ),
        (
            "bgi",
            [0, 1],
            DataError,
            "The eval_config has the label 'bgi', which is no column of Examples "
            "'{folder}' (it has 'big', 'score'). Did you mean 'big'?",
        ),
    ],
)
def test_what_no_metric_fits_is_refused(
    tmp_path: Path,
    write_examples: Callable[..., Examples],
    label: str,
    labels: Any,
    kind: type[PenstockError],
    sentence: str,
) -> None:
    table = pa.table({"big": labels, "score": [0.2, 0.9]})
    examples = write_examples(tmp_path, eval=table)
    given = EvalConfig()
    shorthand.name_columns(given, label=label, prediction="score")
    with pytest.raises(kind) as caught:
        shorthand.usual_metrics(given, examples, ["eval"], None)
    assert str(caught.value) == sentence.format(folder=tmp_path)
