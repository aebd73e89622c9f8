"""The Evaluator as a whole: TFMA's files and values, a blessing, and plain errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.api import model_eval_lib

from penstock.components.base import RunContext
from penstock.components.columns import tfrecord
from penstock.components.columns.examples import read_batches
from penstock.components.evaluation import (
    AggregationOptions,
    CrossSlicingSpec,
    EvalConfig,
    Evaluator,
    ExampleWeightOptions,
    GenericChangeThreshold,
    GenericValueThreshold,
    MetricConfig,
    MetricDirection,
    MetricsSpec,
    MetricThreshold,
    ModelSpec,
    Options,
    PerSliceMetricThreshold,
    SlicingSpec,
)
from penstock.components.evaluation.results import read
from penstock.schemas.artifacts import Answer, Examples, Model

AT_LEAST_HALF = GenericValueThreshold(lower_bound={"value": 0.5})
NO_WORSE = GenericChangeThreshold(
    absolute={"value": -0.01}, direction=MetricDirection.HIGHER_IS_BETTER
)

# TFMA's default is 10,000 thresholds per slice, and a test would wait for nothing else.
COARSE = '"num_thresholds": 200'


def config(*metrics: Any, slices: Any = (), **model: Any) -> EvalConfig:
    """An EvalConfig of AUC and ExampleCount, unless other metrics are given."""
    wanted = list(metrics) or [metric("AUC"), metric("ExampleCount")]
    return EvalConfig(
        model_specs=[ModelSpec(**{"label_key": "big", **model})],
        slicing_specs=[SlicingSpec(), *slices],
        metrics_specs=[MetricsSpec(metrics=wanted)],
    )


def metric(name: str, **threshold: Any) -> MetricConfig:
    """A metric, with a threshold for every slice if one is given."""
    made = MetricConfig(class_name=name)
    if name == "AUC":
        made.config = COARSE
    if threshold:
        made.threshold.CopyFrom(MetricThreshold(**threshold))
    return made


def evaluated(folder: Path, **fields: Any) -> Evaluator:
    """Run an Evaluator and return it, with its outputs."""
    live = Evaluator(**fields).with_outputs(folder / "out")
    live.run(RunContext.local(folder / "temporary"))
    return live


def test_every_kind_of_signature_gives_the_same_metrics_and_no_blessing(
    tmp_path: Path,
    examples: Examples,
    model: Model,
    keras2_model: Model,
    tf_example_model: Model,
) -> None:
    found = [
        evaluated(
            tmp_path / str(number), examples=examples, model=each, eval_config=config()
        )
        for number, each in enumerate((model, keras2_model, tf_example_model))
    ]
    values = [each.evaluation.properties for each in found]
    assert values[0]["example_count"] == 600
    assert 0.7 < values[0]["auc"] < 0.95  # type: ignore[operator]
    for other in values[1:]:
        assert other == pytest.approx(values[0], rel=1e-5)
    blessing = found[0].blessing
    assert blessing.answer is Answer.NO
    assert blessing.properties == {
        "blessed": 0,
        "verdict": "NO_THRESHOLDS",
        "current_model": model.uri,
        "current_model_id": 11,
        "component_id": "Evaluator",
        "reasons_against": 1,
        "reasons": [
            "The eval_config sets no threshold, so nothing can bless the model. Give a "
            "metric a MetricThreshold."
        ],
    }
    assert [each.name for each in blessing.path.iterdir()] == ["NOT_BLESSED"]


COMPARED = EvalConfig(
    model_specs=[ModelSpec(label_key="big", example_weight_key="weight")],
    slicing_specs=[
        SlicingSpec(),
        SlicingSpec(feature_keys=["payment"]),
        SlicingSpec(feature_keys=["company"]),
        SlicingSpec(feature_keys=["share"]),
    ],
    cross_slicing_specs=[
        CrossSlicingSpec(
            baseline_spec=SlicingSpec(feature_values={"payment": "Card"}),
            slicing_specs=[SlicingSpec(feature_values={"payment": "Cash"})],
        )
    ],
    metrics_specs=[
        MetricsSpec(
            metrics=[
                MetricConfig(
                    class_name="AUC",
                    config=COARSE,
                    threshold=MetricThreshold(
                        value_threshold=AT_LEAST_HALF, change_threshold=NO_WORSE
                    ),
                ),
                MetricConfig(
                    class_name="BinaryAccuracy",
                    per_slice_thresholds=[
                        PerSliceMetricThreshold(
                            slicing_specs=[
                                SlicingSpec(feature_values={"share": "0.3"})
                            ],
                            threshold=MetricThreshold(value_threshold=AT_LEAST_HALF),
                        )
                    ],
                ),
                MetricConfig(class_name="CalibrationPlot"),
            ]
        ),
        MetricsSpec(
            metrics=[MetricConfig(class_name="ExampleCount")],
            example_weights=ExampleWeightOptions(unweighted=True),
        ),
    ],
)


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory,
    examples: Examples,
    model: Model,
    worse_model: Model,
) -> Evaluator:
    """A candidate that is better than its baseline, by slices, weighted."""
    return evaluated(
        tmp_path_factory.mktemp("compared"),
        name="Judge",
        examples=examples,
        model=model,
        baseline=worse_model,
        eval_config=COMPARED,
    )


def test_a_better_candidate_is_blessed_for_a_reason_per_metric_and_slice(
    compared: Evaluator, model: Model, worse_model: Model
) -> None:
    blessing = compared.blessing
    assert blessing.answer is Answer.YES
    assert [each.name for each in blessing.path.iterdir()] == ["BLESSED"]
    properties = dict(blessing.properties)
    del properties["reasons"]
    assert properties == {
        "blessed": 1,
        "verdict": "BLESSED",
        "current_model": model.uri,
        "current_model_id": 11,
        "baseline_model": worse_model.uri,
        "baseline_model_id": 7,
        "component_id": "Judge",
        "reasons_against": 0,
    }
    # All rows, two payments, one company and eleven shares: a value and a change.
    assert len(blessing.reasons) == 15 * 2 + 1
    text = " ".join(blessing.reasons)
    assert "'auc' in payment=Cash is 0." in text
    assert "the baseline's 0." in text
    assert "'binary_accuracy' in share=0.3" in text


def test_tfma_reads_the_result(compared: Evaluator, examples: Examples) -> None:
    folder = compared.evaluation.path
    assert sorted(path.name for path in folder.iterdir()) == [
        "attributions-00000-of-00001.tfrecord",
        "eval_config.json",
        "metrics-00000-of-00001.tfrecord",
        "plots-00000-of-00001.tfrecord",
        "report.html",
        "table.parquet",
        "validations.tfrecord",
    ]
    result = model_eval_lib.load_eval_result(str(folder), model_name="candidate")
    metrics = result.get_metrics_for_slice()
    assert metrics["auc"]["doubleValue"] == compared.evaluation.properties["auc"]
    assert result.get_slice_names()[0] == ()
    assert result.plots
    assert (folder / result.data_location).resolve() == examples.path.resolve()
    assert not Path(result.model_location).is_absolute()
    assert (folder / result.model_location / "Format-Serving").is_dir()
    assert result.config.model_specs[1].name == "baseline"
    written = json.loads((folder / "eval_config.json").read_text("utf-8"))
    assert written["fileFormat"] == "parquet"
    assert sorted(written["modelLocations"]) == ["baseline", "candidate"]


def test_tfma_validates_as_we_bless(compared: Evaluator) -> None:
    result = model_eval_lib.load_validation_result(str(compared.evaluation.path))
    assert result.validation_ok


def test_slices_with_missing_values_count_the_rows_that_have_one(
    compared: Evaluator, examples: Examples
) -> None:
    batches = list(read_batches(examples, "eval", columns=["company", "payment"]))
    table = pa.Table.from_batches(batches)
    counts = {
        each.slice: metrics.value
        for each in read(compared.evaluation.path)
        for name, metrics in each.metrics.items()
        if name.name == "example_count" and each.baseline_slice is None
    }
    assert counts[()] == 600
    missing = table["company"].null_count
    assert counts[(("company", "Flash"),)] == 600 - missing
    cash = table["payment"].to_pylist().count("Cash")
    assert counts[(("payment", "Cash"),)] == cash


def test_metrics_equal_those_of_tfmas_own_pipeline_on_tfrecord_of_the_same_rows(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    import tensorflow as tf
    from tensorflow_model_analysis.proto import config_pb2

    file = tmp_path / "examples" / "Split-eval" / "data_tfrecord-00000-of-00001.gz"
    file.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions("GZIP")) as writer:
        for batch in read_batches(examples, "eval"):
            for record in tfrecord.encode(batch):
                writer.write(record)
    wanted = config(
        metric("AUC", value_threshold=AT_LEAST_HALF),
        metric("Precision"),
        metric("MeanLabel"),
        slices=[SlicingSpec(feature_keys=["hour"])],
    )
    ready = config_pb2.EvalConfig()
    ready.CopyFrom(wanted)
    ready.model_specs[0].model_type = "tf_generic"
    ready.model_specs[0].signature_name = "serving_default"
    model_eval_lib.run_model_analysis(
        eval_config=ready,
        eval_shared_model=model_eval_lib.default_eval_shared_model(
            str(tf_example_model.serving_dir), eval_config=ready, tags=["serve"]
        ),
        data_location=str(file),
        output_path=str(tmp_path / "theirs"),
    )
    ours = evaluated(
        tmp_path,
        examples=Examples(
            tmp_path / "examples",
            properties={"payload_format": "FORMAT_TF_EXAMPLE", "split_names": ["eval"]},
        ),
        model=tf_example_model,
        eval_config=wanted,
    )
    mine = {each.slice: each.metrics for each in read(ours.evaluation.path)}
    peers = {each.slice: each.metrics for each in read(tmp_path / "theirs")}
    assert len(mine) == 25
    assert mine.keys() == peers.keys()
    for key, metrics in peers.items():
        for name, found in metrics.items():
            assert mine[key][name].value == pytest.approx(
                found.value, rel=1e-9, nan_ok=True
            )
    theirs = model_eval_lib.load_validation_result(str(tmp_path / "theirs"))
    assert (ours.blessing.answer is Answer.YES) is theirs.validation_ok
    assert next(iter(mine)) == ()


def test_the_first_model_is_blessed_by_change_thresholds_alone_and_says_so(
    tmp_path: Path, examples: Examples, tf_example_model: Model
) -> None:
    live = evaluated(
        tmp_path,
        examples=examples,
        model=tf_example_model,
        eval_config=config(metric("AUC", change_threshold=NO_WORSE)),
    )
    assert live.blessing.answer is Answer.YES
    assert live.blessing.reasons == (
        "The change threshold on 'auc' is ignored (a change of at least -0.01): there "
        "is no baseline.",
    )


def test_a_worse_candidate_is_not_blessed_and_small_slices_are_left_out(
    tmp_path: Path, examples: Examples, tf_example_model: Model, worse_model: Model
) -> None:
    wanted = config(
        metric("AUC", change_threshold=NO_WORSE),
        slices=[SlicingSpec(feature_keys=["payment"])],
    )
    wanted.options.CopyFrom(
        Options(
            min_slice_size={"value": 300},
            compute_confidence_intervals={"value": True},
        )
    )
    live = evaluated(
        tmp_path,
        examples=examples,
        model=worse_model,
        baseline=tf_example_model,
        eval_config=wanted,
    )
    assert live.blessing.answer is Answer.NO
    assert live.blessing.properties["verdict"] == "NOT_BLESSED"
    assert (live.blessing.path / "NOT_BLESSED").is_file()
    worst, other, left_out = live.blessing.reasons
    assert worst.startswith("'auc' in all rows is 0.5")
    assert worst.endswith("not a change of at least -0.01.")
    assert "payment=Card" in other
    assert left_out == (
        "'auc' in payment=Cash is left out: the slice has 174 rows, fewer than 300, "
        "the min_slice_size."
    )
    (first, *_) = tfma.load_metrics(str(live.evaluation.path))
    assert first.metric_keys_and_values[0].HasField("confidence_interval")


def test_labels_can_come_from_a_signature_of_the_model(
    tmp_path: Path, examples: Examples
) -> None:
    import tensorflow as tf

    class Transformer(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def transform(self, examples: Any) -> Any:
            parsed = tf.io.parse_example(
                examples, {"hour": tf.io.FixedLenFeature([1], tf.int64)}
            )
            return {"late": tf.cast(parsed["hour"] > 11, tf.int64)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
        def score(self, examples: Any) -> Any:
            parsed = tf.io.parse_example(
                examples, {"hour": tf.io.FixedLenFeature([1], tf.int64)}
            )
            return {"score": tf.cast(parsed["hour"], tf.float32) / 24}

    module = Transformer()
    tf.saved_model.save(
        module,
        str(tmp_path / "model" / "Format-Serving"),
        {"serving_default": module.score, "transform": module.transform},
    )
    live = evaluated(
        tmp_path,
        examples=examples,
        model=Model(tmp_path / "model"),
        eval_config=config(
            label_key="late", preprocessing_function_names=["transform"]
        ),
    )
    assert live.evaluation.properties["auc"] == pytest.approx(1.0)


def test_importing_the_component_loads_nothing_heavy() -> None:
    code = (
        "import sys; from penstock.components.evaluation import Evaluator; "
        "print([each for each in ('tensorflow', 'apache_beam', 'pyarrow', 'numpy', "
        "'tensorflow_model_analysis') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_messages_of_a_config_are_there_under_our_name() -> None:
    from penstock.components import evaluation

    for name in evaluation.__all__:
        assert getattr(evaluation, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'EvalConfg'"):
        _ = evaluation.EvalConfg


def test_slices_by_expressions_over_what_the_model_computes(
    tmp_path: Path, examples: Examples
) -> None:
    import tensorflow as tf

    class Scorer(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="fare")])  # type: ignore[untyped-decorator]
        def score(self, fare: Any) -> Any:
            return {"score": tf.sigmoid(fare - 15.0)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="fare")])  # type: ignore[untyped-decorator]
        def transform(self, fare: Any) -> Any:
            return {"rounded": tf.round(fare)}

    module = Scorer()
    folder = tmp_path / "model"
    tf.saved_model.save(
        module,
        str(folder / "Format-Serving"),
        {"serving_default": module.score, "transform_features": module.transform},
    )
    asked = config(
        metric("ExampleCount"),
        slices=[SlicingSpec(feature_keys=["rounded > 15"])],
        preprocessing_function_names=["transform_features"],
    )
    live = evaluated(
        tmp_path, examples=examples, model=Model(folder), eval_config=asked
    )
    counts = {
        each.slice: found.value
        for each in read(live.evaluation.path)
        for found in each.metrics.values()
    }
    fares = [
        fare
        for batch in read_batches(examples, "eval", columns=["fare"])
        for fare in batch.column(0).to_pylist()
    ]
    above = sum(round(fare) > 15 for fare in fares)
    assert counts == {
        (): 600,
        (("rounded > 15", "false"),): 600 - above,
        (("rounded > 15", "true"),): above,
    }


@pytest.mark.parametrize("weight", ["", "weight"])
def test_a_beam_runner_gives_the_same_bytes(
    tmp_path: Path, examples: Examples, tf_example_model: Model, weight: str
) -> None:
    fields = {
        "examples": examples,
        "model": tf_example_model,
        "baseline": tf_example_model,
        "eval_config": config(example_weight_key=weight),
        "example_splits": ("train", "eval"),
        "confidence": {"auc": 0.9},
    }
    fields["eval_config"].metrics_specs[0].metrics[0].threshold.CopyFrom(
        MetricThreshold(value_threshold=AT_LEAST_HALF)
    )
    here = evaluated(tmp_path / "here", **fields)
    there = Evaluator(**fields).with_outputs(tmp_path / "there" / "out")
    there.run(
        RunContext.local(tmp_path / "temporary", beam_args=("--runner=DirectRunner",))
    )
    files = sorted(path.name for path in here.evaluation.path.iterdir())
    assert "table.parquet" in files
    for name in files:
        if name != "report.html":  # it names the folders
            assert (there.evaluation.path / name).read_bytes() == (
                here.evaluation.path / name
            ).read_bytes(), name


def test_a_threshold_finds_an_aggregated_metric_that_tfma_never_does(
    tmp_path: Path,
) -> None:
    from tests.components.evaluation.conftest import make_examples

    scores = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.6, 0.3, 0.1]]
    table = pa.table({"label": [0, 1, 2, 1], "scores": scores})
    asked = EvalConfig(
        model_specs=[ModelSpec(label_key="label", prediction_key="scores")],
        metrics_specs=[
            MetricsSpec(
                metrics=[
                    metric(
                        name, value_threshold=GenericValueThreshold(lower_bound=bound)
                    )
                    for name, bound in (
                        ("MeanLabel", {"value": 0.3}),
                        ("Precision", {"value": 0.5}),
                    )
                ],
                aggregate=AggregationOptions(
                    weighted_macro_average=True, class_weights={0: 1, 1: 1, 2: 1}
                ),
            )
        ],
    )
    asked.metrics_specs.add().CopyFrom(asked.metrics_specs[0])
    asked.metrics_specs[1].aggregate.ClearField("weighted_macro_average")
    asked.metrics_specs[1].aggregate.micro_average = True
    live = evaluated(
        tmp_path,
        examples=make_examples(tmp_path / "examples", eval=table),
        eval_config=asked,
    )
    assert live.blessing.properties["verdict"] == "BLESSED"
    assert [reason.partition(" in ")[0] for reason in live.blessing.reasons] == [
        "'mean_label (macro average)'",
        "'precision (macro average)'",
        "'mean_label'",
        "'precision (micro average)'",
    ]
