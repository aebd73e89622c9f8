"""What the Evaluator refuses, before it starts a Beam pipeline, and what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.components.base import RunContext
from penstock.components.evaluation import (
    EvalConfig,
    Evaluator,
    GenericChangeThreshold,
    MetricConfig,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    PerSliceMetricThreshold,
    SlicingSpec,
)
from penstock.components.evaluation.eval_config import check_metrics
from penstock.schemas.artifacts import Examples, Model, Schema
from penstock.schemas.errors import DataError, PipelineError

AUC = MetricsSpec(metrics=[MetricConfig(class_name="AUC")])
BIG = ModelSpec(label_key="big")


def config(**fields: Any) -> EvalConfig:
    return EvalConfig(**{"model_specs": [BIG], "metrics_specs": [AUC], **fields})


def with_metric(**fields: Any) -> EvalConfig:
    return config(metrics_specs=[MetricsSpec(metrics=[MetricConfig(**fields)])])


def evaluator(eval_config: Any, **fields: Any) -> Evaluator:
    given = {"examples": Examples("/data"), "model": Model("/model"), **fields}
    return Evaluator(eval_config=eval_config, **given)


def refused(tmp_path: Path, **fields: Any) -> str:
    """Return what the Evaluator says when it runs."""
    live = Evaluator(**{"eval_config": config(), **fields}).with_outputs(
        tmp_path / "out"
    )
    with pytest.raises((DataError, PipelineError)) as caught:
        live.run(RunContext.local(tmp_path / "temporary"))
    assert not list(live.blessing.path.iterdir())
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("AUC", "str"),
        (None, "NoneType"),
        (ModelSpec(), "tensorflow_model_analysis.ModelSpec"),
    ],
)
def test_something_else_than_an_eval_config_is_refused(wrong: Any, kind: str) -> None:
    with pytest.raises(PipelineError) as caught:
        evaluator(wrong)
    assert str(caught.value) == (
        f"Evaluator.eval_config takes an EvalConfig, got {kind}. Make one with "
        "penstock.components.evaluation.EvalConfig(model_specs=..., metrics_specs=...)."
    )


UNDIRECTED = MetricThreshold(
    change_threshold=GenericChangeThreshold(absolute={"value": -0.01})
)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            config(model_specs=[ModelSpec(signature_name="serve")]),
            "Evaluator.eval_config names no label. Give it "
            "model_specs=[ModelSpec(label_key=...)].",
        ),
        (
            config(model_specs=[ModelSpec(name="taxi", label_key="big")]),
            "Evaluator.eval_config names its only model 'taxi', and it is the "
            "'candidate'. Leave the ModelSpec's name out.",
        ),
        (
            config(
                model_specs=[
                    ModelSpec(name="candidate", label_key="big"),
                    ModelSpec(name="basline", label_key="big", is_baseline=True),
                ]
            ),
            "Evaluator.eval_config has 2 model_specs, named 'basline', 'candidate'. "
            "Two models are compared, 'candidate' and 'baseline'; give one ModelSpec "
            "for both, or one for each. Did you mean 'baseline'?",
        ),
        (
            config(
                model_specs=[
                    ModelSpec(name="candidate", label_key="big"),
                    ModelSpec(name="baseline", label_key="big"),
                ]
            ),
            "Evaluator.eval_config: is_baseline of ModelSpec 'baseline' is False. Set "
            "it for 'baseline', and only there.",
        ),
        (
            config(model_specs=[ModelSpec(label_key="big", model_type="tf_lite")]),
            "Evaluator.eval_config has model_type 'tf_lite'; SavedModels are evaluated "
            "by their signature. Leave model_type out.",
        ),
        (
            config(metrics_specs=[MetricsSpec()]),
            "Evaluator.eval_config asks for no metric. Give it metrics_specs="
            "[MetricsSpec(metrics=[MetricConfig(class_name='AUC')])].",
        ),
        (
            config(metrics_specs=[AUC, MetricsSpec(model_names=["candidat"])]),
            "Evaluator.eval_config: model_names of a MetricsSpec has 'candidat'. The "
            "models are 'candidate' and 'baseline'. Did you mean 'candidate'?",
        ),
        (
            config(metrics_specs=[AUC, MetricsSpec(thresholds={"loss": UNDIRECTED})]),
            "Evaluator.eval_config: MetricsSpec.thresholds has 'loss'; those are for "
            "metrics inside the model, which are not evaluated. Give its MetricConfig "
            "the threshold.",
        ),
        (
            with_metric(class_name="AUC", threshold=UNDIRECTED),
            "Evaluator.eval_config: the change threshold of 'AUC' has no direction. "
            "Set it to MetricDirection.HIGHER_IS_BETTER or LOWER_IS_BETTER.",
        ),
        (
            with_metric(
                class_name="AUC",
                per_slice_thresholds=[PerSliceMetricThreshold(threshold=UNDIRECTED)],
            ),
            "Evaluator.eval_config: a threshold of 'AUC' is for slices and names none. "
            "Give it slicing_specs.",
        ),
        (
            config(slicing_specs=[SlicingSpec(slice_keys_sql="SELECT hour")]),
            "Evaluator.eval_config has a slice in SQL ('SELECT hour'), which TFMA no "
            "longer has. Use feature_keys and feature_values.",
        ),
    ],
)
def test_a_config_that_cannot_be_done_is_refused(wrong: EvalConfig, text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        evaluator(wrong)
    assert str(caught.value) == text


def test_splits_are_named_at_construction() -> None:
    with pytest.raises(PipelineError) as caught:
        evaluator(config(), example_splits=())
    assert str(caught.value) == (
        "Evaluator.example_splits is empty. Name the splits to evaluate on, such as "
        "'eval'."
    )
    with pytest.raises(PipelineError, match=r"Split name '\.\./x' cannot be used"):
        evaluator(config(), example_splits=("../x",))


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (
            {"class_name": "BinaryAcuracy"},
            "The eval_config asks for the metric 'BinaryAcuracy', which neither TFMA "
            "nor Keras has. Did you mean 'BinaryAccuracy'? For a metric of your own, "
            "give its module too.",
        ),
        (
            {"class_name": "CosineSimilarty"},
            "The eval_config asks for the metric 'CosineSimilarty', which neither TFMA "
            "nor Keras has. Did you mean 'CosineSimilarity'? For a metric of your own, "
            "give its module too.",
        ),
        (
            {"class_name": "Mine", "module": "no_such_module"},
            "The eval_config takes the metric 'Mine' from the module "
            "'no_such_module', which cannot be imported: No module named "
            "'no_such_module'. Install it, or mend its name.",
        ),
        (
            {"class_name": "MeanSquaredEror", "module": "tf_keras.losses"},
            "The eval_config asks for the metric 'MeanSquaredEror', which the module "
            "'tf_keras.losses' does not have. Did you mean 'MeanSquaredError'?",
        ),
    ],
)
def test_an_unknown_metric_is_refused(metric: dict[str, str], text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check_metrics(with_metric(**metric))
    assert str(caught.value) == text


def test_a_metric_that_does_not_take_its_config_is_refused() -> None:
    with pytest.raises(PipelineError) as caught:
        check_metrics(with_metric(class_name="AUC", config='"curv": "PR"'))
    assert re.fullmatch(
        r"Metric 'AUC' cannot be made from its config '\"curv\": \"PR\"': .+[.?] Mend "
        r"the config\.",
        str(caught.value),
    )


def test_metrics_and_losses_of_keras_are_known() -> None:
    check_metrics(with_metric(class_name="CosineSimilarity"))
    check_metrics(with_metric(class_name="Hinge", module="tf_keras.losses"))


@pytest.mark.parametrize(
    ("wrong", "role", "near"),
    [
        (config(model_specs=[ModelSpec(label_key="bigg")]), "label 'bigg'", "big"),
        (
            config(
                model_specs=[ModelSpec(label_key="big", example_weight_key="weigth")]
            ),
            "example weight 'weigth'",
            "weight",
        ),
        (
            config(slicing_specs=[SlicingSpec(feature_keys=["hours"])]),
            "slicing feature 'hours'",
            "hour",
        ),
        (
            config(slicing_specs=[SlicingSpec(feature_values={"pament": "Cash"})]),
            "slicing feature 'pament'",
            "payment",
        ),
        (
            config(metrics_specs=[AUC, MetricsSpec(query_key="compny")]),
            "query key 'compny'",
            "company",
        ),
    ],
)
def test_a_name_that_is_no_column_is_refused(
    tmp_path: Path, examples: Examples, model: Model, wrong: Any, role: str, near: str
) -> None:
    text = refused(tmp_path, examples=examples, model=model, eval_config=wrong)
    assert text == (
        f"The eval_config has the {role}, which is no column of Examples "
        f"'{examples.uri}' (it has 'big', 'company', 'fare', 'hour', 'payment', "
        f"'share', 'weight'). Did you mean '{near}'?"
    )


def test_an_unknown_split_is_refused(
    tmp_path: Path, examples: Examples, model: Model
) -> None:
    text = refused(tmp_path, examples=examples, model=model, example_splits=("evl",))
    assert text == (
        f"Split 'evl' is not in Examples '{examples.uri}' (it has 'eval', 'train'). "
        "Did you mean 'eval'?"
    )


def test_a_missing_label_is_refused_with_its_rows(
    tmp_path: Path,
    model: Model,
    rows: Callable[..., pa.Table],
    write_examples: Callable[..., Examples],
) -> None:
    table = rows(10)
    labels = pa.array([1, None, 0, None, 1, 1, 0, 0, 1, 0], pa.int64())
    index = table.schema.get_field_index("big")
    table = table.set_column(index, "big", labels)
    examples = write_examples(tmp_path / "examples", eval=table)
    assert refused(tmp_path, examples=examples, model=model) == (
        "Label 'big' is missing in 2 of the 10 rows of split 'eval'. Leave such rows "
        "out before ingestion, or evaluate on another split."
    )


def test_a_split_without_rows_is_refused(
    tmp_path: Path,
    model: Model,
    rows: Callable[..., pa.Table],
    write_examples: Callable[..., Examples],
) -> None:
    examples = write_examples(tmp_path / "examples", eval=rows(10).slice(0, 0))
    assert refused(tmp_path, examples=examples, model=model) == (
        f"Split 'eval' of Examples '{examples.uri}' has no rows, so there is nothing "
        "to evaluate on. Evaluate on another split, or ingest more rows."
    )


def test_missing_values_of_a_tensor_are_refused(
    tmp_path: Path,
    model: Model,
    rows: Callable[..., pa.Table],
    write_examples: Callable[..., Examples],
) -> None:
    table = rows(3).set_column(0, "fare", pa.array([1.0, None, 2.0], pa.float64()))
    examples = write_examples(tmp_path / "examples", eval=table)
    assert refused(tmp_path, examples=examples, model=model) == (
        f"Signature 'serving_default' of Model '{model.uri}' (candidate) takes "
        "'fare' as a dense tensor, and 1 rows have no value. Fill them before "
        "ingestion, or export the model with a signature that takes serialized "
        "tf.Examples."
    )


def test_a_column_of_another_type_is_refused(
    tmp_path: Path,
    model: Model,
    rows: Callable[..., pa.Table],
    write_examples: Callable[..., Examples],
) -> None:
    table = rows(2).set_column(0, "fare", pa.array(["a", "b"]))
    examples = write_examples(tmp_path / "examples", eval=table)
    assert refused(tmp_path, examples=examples, model=model) == (
        f"Signature 'serving_default' of Model '{model.uri}' (candidate) takes "
        "'fare' as float32, and column 'fare' is string. Export the model with the "
        "type that the data has, or convert the column before ingestion."
    )


def test_an_unknown_signature_is_refused(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    wrong = config(
        model_specs=[ModelSpec(label_key="big", signature_name="servin_default")]
    )
    text = refused(
        tmp_path, examples=examples, model=tf_example_model, eval_config=wrong
    )
    assert text == (
        f"Model '{tf_example_model.uri}' (candidate) has no signature "
        "'servin_default' (it has 'serving_default'). Did you mean 'serving_default'? "
        "Export it with that signature, or set signature_name in the ModelSpec."
    )


def test_an_unknown_preprocessing_signature_is_refused(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    wrong = config(
        model_specs=[
            ModelSpec(label_key="big", preprocessing_function_names=["transform"])
        ]
    )
    text = refused(
        tmp_path, examples=examples, model=tf_example_model, eval_config=wrong
    )
    assert text == (
        f"Model '{tf_example_model.uri}' (candidate) has no signature 'transform' (it "
        "has 'serving_default'). Export it with that signature, or set "
        "preprocessing_function_names in the ModelSpec."
    )


def test_names_are_looked_for_among_what_a_signature_computes(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    # Its serving signature, taken for a transformation, computes 'score'.
    wrong = config(
        model_specs=[
            ModelSpec(
                label_key="scores", preprocessing_function_names=["serving_default"]
            )
        ]
    )
    text = refused(
        tmp_path, examples=examples, model=tf_example_model, eval_config=wrong
    )
    assert "the label 'scores', which is no column" in text
    assert text.endswith("Did you mean 'score'?")


def test_a_model_that_is_not_there_or_damaged_is_refused(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    folder = tmp_path / "model" / "Format-Serving"
    text = refused(tmp_path, examples=examples, model=Model(tmp_path / "model"))
    assert text == (
        f"Model '{tmp_path}/model' (candidate) has no SavedModel at '{folder}'. Let "
        "its Trainer write one there."
    )
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\xff not a message")
    text = refused(tmp_path, examples=examples, model=Model(tmp_path / "model"))
    assert text == (
        f"'{folder}/saved_model.pb' is damaged: it is no SavedModel message. Run the "
        f"producer of Model '{tmp_path}/model' (candidate) again."
    )


def test_rows_that_a_model_refuses_fail_the_evaluation_with_its_sentence(
    tmp_path: Path,
    rows: Callable[..., pa.Table],
    write_examples: Callable[..., Examples],
) -> None:
    import tensorflow as tf

    class Strict(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="fare")])  # type: ignore[untyped-decorator]
        def strict(self, fare: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_negative(fare)]):
                return {"same": tf.identity(fare)}

    module = Strict()
    folder = tmp_path / "model" / "Format-Serving"
    tf.saved_model.save(module, str(folder), {"serving_default": module.strict})
    examples = write_examples(tmp_path / "examples", eval=rows(10))
    text = refused(tmp_path, examples=examples, model=Model(tmp_path / "model"))
    assert text.startswith(
        f"Signature 'serving_default' of Model '{tmp_path}/model' (candidate) fails on "
        "row 0 of split 'eval': "
    )


def test_a_damaged_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.pbtxt").write_text("featur {}")
    live = evaluator(config(), schema=Schema(tmp_path))
    with pytest.raises(DataError) as caught:
        live._schema_message()
    assert re.fullmatch(
        rf"Schema '{tmp_path}/schema.pbtxt' cannot be read: .+\. Mend it, or run its "
        r"producer again\.",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"nan_scores": "drops"},
            "Evaluator.nan_scores takes 'refuse' or 'drop', got 'drops' (str). Pass a "
            "value of that kind.",
        ),
        ({"seed": -1}, "Evaluator.seed is -1. Pass a whole number from 0."),
        (
            {"replicates": 20},
            "Evaluator.replicates is 20; intervals at 95 % take at least 100, and "
            "1,000 are usual.",
        ),
        (
            {"model": None, "baseline": Model("/other")},
            "Evaluator has a baseline and no model. Give both, or none to evaluate "
            "predictions that are columns.",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(
    fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        evaluator(config(), **fields)
    assert str(caught.value) == text


def test_a_cluster_key_that_is_no_column_is_refused(
    tmp_path: Path, examples: Examples, model: Model
) -> None:
    text = refused(tmp_path, examples=examples, model=model, cluster_key="compny")
    assert text == (
        f"Evaluator.cluster_key is 'compny', which is no column of Examples "
        f"'{examples.uri}' (it has 'big', 'company', 'fare', 'hour', 'payment', "
        "'share', 'weight'). Did you mean 'company'?"
    )


def scored(rows: pa.Table, scores: list[float]) -> pa.Table:
    return rows.append_column("score", pa.array(scores, pa.float64()))


def test_scores_that_are_not_numbers_are_refused_or_dropped_and_counted(
    tmp_path: Path,
    rows: Callable[..., pa.Table],
    write_examples: Callable[..., Examples],
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores = [0.5] * 10
    scores[3] = scores[7] = float("nan")
    examples = write_examples(tmp_path / "examples", eval=scored(rows(10), scores))
    logged = ModelSpec(label_key="big", prediction_key="score")
    fields = {
        "examples": examples,
        "eval_config": config(
            model_specs=[logged],
            metrics_specs=[
                MetricsSpec(metrics=[MetricConfig(class_name="ExampleCount")]),
                AUC,
            ],
        ),
    }
    text = refused(tmp_path / "refused", **fields)
    assert text == (
        "2 of 10 rows have a score that is not a number, the first is row 3 of split "
        "'eval'. Mend the model, or pass nan_scores='drop' to leave such rows out and "
        "count them."
    )
    live = Evaluator(**fields, nan_scores="drop").with_outputs(tmp_path / "dropped")
    with caplog.at_level("WARNING", logger="penstock"):
        live.run(RunContext.local(tmp_path / "temporary"))
    assert live.evaluation.properties["example_count"] == 8
    assert "2 of 10 rows are left out, because a score is not a number." in caplog.text
