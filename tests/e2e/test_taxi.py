"""The taxi pipeline from CSV files to a served version, on generated and real trips."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import RunState, State, Store, run
from penstock.pipelines import lineage
from penstock.pipelines.taxi import TRIPS_SCHEMA, taxi
from penstock.schemas.artifacts import Answer, Examples, Model, ModelEvaluation
from penstock.schemas.digests import file_digest

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).resolve().parents[2]


def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would, with the checkout on its path."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )


def store_of(root: Path) -> Store:
    return Store(f"sqlite:///{root / 'metadata.sqlite'}", create=False)


def probabilities(
    serving_dir: Path, version: int, file: Path
) -> dict[str, list[float]]:
    """Return what a served version says of the first trips, by payment type."""
    import tensorflow as tf

    from penstock.pipelines.taxi.model import example_of

    with open(file, encoding="utf-8", newline="") as lines:
        trips = list(itertools.islice(csv.DictReader(lines), 400))
    model = tf.saved_model.load(str(serving_dir / str(version)))
    answer = model.signatures["serving_default"](
        examples=tf.constant([example_of(trip) for trip in trips])
    )
    found: dict[str, list[float]] = {}
    for trip, probability in zip(
        trips, answer["probability"].numpy()[:, 0], strict=True
    ):
        found.setdefault(trip["payment_type"], []).append(float(probability))
    return found


def assert_credit_cards_tip(found: dict[str, list[float]]) -> None:
    cash, credit = found["Cash"], found["Credit Card"]
    assert all(0 <= each <= 1 for each in cash + credit)
    assert sum(cash) / len(cash) < 0.1
    assert sum(credit) / len(credit) > 0.4


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The root of a demo that ran once, and what it printed."""
    root = tmp_path_factory.mktemp("demo") / "root"
    done = python("-m", "penstock.pipelines.taxi.demo", "--root", root)
    assert done.returncode == 0, done.stdout + done.stderr
    yield root, done.stdout
    shutil.rmtree(root)


def test_the_demo_prints_the_version_and_its_lineage(demo: tuple[Path, str]) -> None:
    root, printed = demo
    assert "Generated 25,000 trips" in printed
    assert "pushed_version=1" in printed
    assert "trips/5000" in printed.split("lineage")[1]
    assert "Try next" in printed
    assert (root / "serving" / "taxi" / "1" / "saved_model.pb").is_file()


def test_the_demo_prints_nothing_of_libraries(demo: tuple[Path, str]) -> None:
    _, printed = demo
    assert "Warning" not in printed
    assert "WARNING" not in printed


def test_the_model_beats_the_base_rate_clearly(demo: tuple[Path, str]) -> None:
    root, _ = demo
    (evaluation,) = store_of(root).artifacts(ModelEvaluation)
    auc, accuracy = (
        float(str(evaluation.properties[name])) for name in ("auc", "binary_accuracy")
    )
    assert auc > 0.93
    assert accuracy > 0.85  # 0.78 without any model


def test_the_served_version_answers_a_csv_row(demo: tuple[Path, str]) -> None:
    root, _ = demo
    (file, *_) = sorted((root / "trips" / "5000").glob("*.csv"))
    assert_credit_cards_tip(probabilities(root / "serving" / "taxi", 1, file))


def test_the_lineage_of_the_version_reaches_trips_and_schema(
    demo: tuple[Path, str],
) -> None:
    root, _ = demo
    store = store_of(root)
    made = lineage.made(store, root / "serving" / "taxi", 1)
    assert {each.component for each in made.executions.values()} == {
        "CsvExampleGen",
        "StatisticsGen",
        "ImportSchemaGen",
        "ExampleValidator",
        "Trainer",
        "Evaluator",
        "Pusher",
    }
    recorded = json.dumps([each.properties for each in lineage.sources(made)])
    for file in (root / "trips" / "5000").glob("*.csv"):
        assert file_digest(file) in recorded
    assert [each.uri for each in lineage.sources(made) if "pbtxt" in each.uri] == [
        str(TRIPS_SCHEMA)
    ]


def test_a_retrained_model_is_compared_with_the_first_and_becomes_version_2(
    demo: tuple[Path, str],
) -> None:
    root, _ = demo
    serving_dir = root / "serving" / "taxi"
    pipeline = taxi(root / "trips" / "5000", serving_dir, train_steps=900)
    result = run(pipeline, root)
    assert result.state is RunState.COMPLETE, result.reason
    blessing = result["Evaluator"].outputs["blessing"]
    first = lineage.made(store_of(root), serving_dir, 1)
    trainer = next(
        each for each in first.executions.values() if each.component == "Trainer"
    )
    (model,) = trainer.outputs["model"]
    assert blessing.properties["baseline_model_id"] == model.id
    pushed = result["Pusher"].outputs["pushed_model"]
    assert pushed.properties["pushed_version"] == "2"
    (source,) = (each for each in lineage.sources(first) if "span" in each.properties)
    reached = lineage.reached(store_of(root), source)
    assert [each.properties["pushed_version"] for each in reached] == ["1", "2"]


def test_the_version_is_made_again_byte_for_byte(demo: tuple[Path, str]) -> None:
    root, _ = demo
    version = root / "serving" / "taxi" / "1"
    done = python("-m", "penstock", "reproduce", version, "--json", "--root", root)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["output"]: each["equal"] for each in json.loads(done.stdout)}
    del found["model_run"]  # logs of training, with times
    assert found == {
        name: True
        for name in (
            *("examples", "statistics", "schema", "anomalies", "model"),
            *("evaluation", "blessing"),
        )
    }


def test_a_fault_stops_the_run_before_training(tmp_path: Path) -> None:
    root = tmp_path / "root"
    done = python(
        *("-m", "penstock.pipelines.taxi.demo", "--fault", "new_payment_type"),
        *("--root", root, "--rows", "400"),
    )
    assert done.returncode == 3, done.stdout + done.stderr
    printed = (done.stdout + done.stderr).splitlines()
    sentences = [line for line in printed if "did not run" in line]
    assert len(sentences) == 1
    assert sentences[0].startswith(
        "'Trainer' did not run: 'ExampleValidator.anomalies'"
    )
    assert "Mobile" in sentences[0]
    assert "Traceback" not in done.stdout + done.stderr
    assert not (root / "serving").exists()

    store = store_of(root)
    (record,) = store.runs()
    assert record.state is RunState.STOPPED
    executions = {each.component: each for each in store.executions(record.id)}
    trainer = executions["Trainer"]
    assert trainer.state is State.SKIPPED
    assert "Mobile" in trainer.reason
    assert executions["Pusher"].state is State.SKIPPED
    (anomalies,) = executions["ExampleValidator"].outputs["anomalies"]
    assert getattr(anomalies, "answer", None) is Answer.NO


@pytest.fixture(scope="module")
def real(
    taxi_csv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with root, data and serving directory of a run on the real trips."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "data").mkdir()
    shutil.copy(taxi_csv, folder / "data")
    done = python(
        *("-m", "penstock", "run", "penstock.pipelines.taxi:taxi", "--json"),
        *("--root", folder / "root", "--param", f"data={folder / 'data'}"),
        *("--param", f"serving_dir={folder / 'serving'}"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder, json.loads(done.stdout)
    shutil.rmtree(folder)


def test_every_component_runs_on_the_real_trips(
    real: tuple[Path, dict[str, Any]],
) -> None:
    _, result = real
    assert result["state"] == "complete"
    assert {each["state"] for each in result["components"]} == {"complete"}
    (rows,) = (
        each["rows"]
        for each in result["components"]
        if each["component"] == "CsvExampleGen"
    )
    assert rows == 15_002


def test_the_model_of_the_real_trips_is_good(
    real: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = real
    (evaluation,) = store_of(folder / "root").artifacts(ModelEvaluation)
    assert float(str(evaluation.properties["auc"])) > 0.93


def test_the_version_of_the_real_trips_answers_a_csv_row(
    real: tuple[Path, dict[str, Any]], taxi_csv: Path
) -> None:
    folder, _ = real
    assert_credit_cards_tip(probabilities(folder / "serving", 1, taxi_csv))


def test_the_lineage_of_the_version_reaches_the_real_csv(
    real: tuple[Path, dict[str, Any]], taxi_csv: Path
) -> None:
    folder, _ = real
    done = python(
        *("-m", "penstock", "lineage", folder / "serving" / "1", "--json"),
        *("--root", folder / "root"),
    )
    assert done.returncode == 0, done.stderr
    assert file_digest(taxi_csv) in done.stdout


# TFMA divides by zero where a slice has no positives.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_metrics_of_the_real_trips_equal_tfmas(
    real: tuple[Path, dict[str, Any]], demo: tuple[Path, str], tmp_path: Path
) -> None:
    """All rows, weighted and not, sliced and overall, and two models in one pass."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import tensorflow as tf
    from tensorflow_model_analysis.api import model_eval_lib

    from penstock.components.base import RunContext
    from penstock.components.columns import tf_example
    from penstock.components.columns.examples import read_batches
    from penstock.components.evaluation import (
        EvalConfig,
        Evaluator,
        ExampleWeightOptions,
        MetricConfig,
        MetricsSpec,
        ModelSpec,
        SlicingSpec,
    )
    from penstock.components.evaluation.results import read

    (examples,) = store_of(real[0] / "root").artifacts(Examples)
    (candidate,) = store_of(real[0] / "root").artifacts(Model)
    baseline = store_of(demo[0]).artifacts(Model)[0]
    assert isinstance(examples, Examples)
    assert isinstance(candidate, Model) and isinstance(baseline, Model)
    # TFMA takes no label that the model computes from the row, and no missing weight.
    file = tmp_path / "examples" / "Split-all" / "data_tfrecord-00000-of-00001.gz"
    file.parent.mkdir(parents=True)
    rows = 0
    with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions("GZIP")) as writer:
        for split in ("train", "eval"):
            for batch in read_batches(examples, split):
                fare, tips, miles = (
                    pc.fill_null(batch.column(batch.schema.names.index(name)), 0.0)
                    for name in ("fare", "tips", "trip_miles")
                )
                names = [*batch.schema.names, "generous", "weight"]
                generous = pc.greater(tips, pc.multiply(fare, 0.2)).cast(pa.int64())
                weight = pa.array(1 + np.asarray(miles.to_numpy(), np.float32))
                columns = [*batch.columns, generous, weight]
                rows += batch.num_rows
                for record in tf_example.encode(
                    pa.RecordBatch.from_arrays(columns, names=names)
                ):
                    writer.write(record)
    assert rows == 15_002

    of_candidate = (
        *("AUC", "AUCPrecisionRecall", "BinaryAccuracy", "BinaryCrossEntropy"),
        *("Precision", "Recall", "F1Score", "FallOut", "NPV"),
        *("Calibration", "MeanLabel", "MeanPrediction", "MeanAbsoluteError"),
        *("MeanSquaredError", "SquaredPearsonCorrelation", "WeightedExampleCount"),
        *("MaxRecall", "MatthewsCorrelationCoefficient"),
    )
    specs = [
        ModelSpec(
            name=name,
            signature_name="serving_default",
            label_key="generous",
            is_baseline=name == "baseline",
            model_type="tf_generic",
        )
        for name in ("candidate", "baseline")
    ]
    config = EvalConfig(
        model_specs=specs,
        slicing_specs=[
            SlicingSpec(),
            SlicingSpec(feature_keys=["payment_type"]),
            SlicingSpec(feature_keys=["trip_start_hour"]),
        ],
        metrics_specs=[
            MetricsSpec(
                metrics=[
                    MetricConfig(class_name=name)
                    for name in (*of_candidate, "ExampleCount")
                ],
                example_weights=ExampleWeightOptions(unweighted=True, weighted=True),
            )
        ],
    )
    for spec in config.model_specs:
        spec.example_weight_key = "weight"
    model_eval_lib.run_model_analysis(
        eval_config=config,
        eval_shared_model=[
            model_eval_lib.default_eval_shared_model(
                str(model.serving_dir),
                model_name=name,
                eval_config=config,
                tags=["serve"],
            )
            for name, model in (("candidate", candidate), ("baseline", baseline))
        ],
        data_location=str(file),
        output_path=str(tmp_path / "theirs"),
    )
    live = Evaluator(
        examples=Examples(
            tmp_path / "examples",
            properties={"payload_format": "FORMAT_TF_EXAMPLE", "split_names": ["all"]},
        ),
        example_splits=("all",),
        model=candidate,
        baseline=baseline,
        eval_config=config,
    ).with_outputs(tmp_path / "out")
    live.run(RunContext.local(tmp_path / "temporary"))

    mine, theirs = (
        {each.slice: each.metrics for each in read(folder)}
        for folder in (live.evaluation.path, tmp_path / "theirs")
    )
    assert mine.keys() == theirs.keys()
    assert len(mine) > 30
    compared = 0
    for key, metrics in theirs.items():
        assert mine[key].keys() == metrics.keys()
        for name, found in metrics.items():
            # TFMA takes logarithms in the float32 of the model's answers, and a small
            # loss is known to fewer digits; ours are taken in float64.
            relative = 1e-5 if name.name == "binary_crossentropy" else 1e-6
            assert mine[key][name].value == pytest.approx(
                found.value, rel=relative, nan_ok=True
            ), (key, name)
            compared += 1
    assert compared > 1_000
