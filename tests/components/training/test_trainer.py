"""Trainer: what the train function gets, which models it refuses, the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2

from penstock.components.base import RunContext
from penstock.components.training import FnArgs, Trainer
from penstock.schemas.artifacts import (
    Examples,
    ExampleStatistics,
    Model,
    Schema,
    TransformGraph,
)
from penstock.schemas.errors import DataError, PipelineError
from tests.components.training import penguins, train_functions

MODULES = penguins.RESOURCES


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return penguins.schema(tmp_path_factory.mktemp("schema") / "schema")


@pytest.fixture(scope="module", params=["parquet", "tfrecords_gzip"])
def examples(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return penguins.examples(tmp_path_factory.mktemp("examples"), request.param)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return penguins.examples(tmp_path_factory.mktemp("parquet"), "parquet")


def _run(folder: Path, **fields: Any) -> Trainer:
    trainer = Trainer(**fields).with_outputs(folder)
    trainer.run(RunContext.local(folder / "tmp"))
    return trainer


def _error(folder: Path, error: type[Exception], **fields: Any) -> str:
    with pytest.raises(error) as caught:
        _run(folder, **fields)
    return str(caught.value)


# Whole trainings, with modules written in TFX's style.


def test_a_keras_3_run_fn_trains_from_any_files(
    tmp_path: Path, examples: Examples, schema: Schema
) -> None:
    trainer = _run(
        tmp_path,
        examples=examples,
        schema=schema,
        module_file=MODULES / "penguin_keras3.py",
        train_steps=30,
        eval_steps=2,
    )
    loaded = tf.saved_model.load(str(trainer.model.path / "Format-Serving"))
    inputs = {name: tf.constant([[0.0], [2.0]]) for name in penguins.MEASURES}
    (logits,) = loaded.signatures["serving_default"](**inputs).values()
    assert tf.argmax(logits, axis=1).numpy().tolist() == [0, 2]
    assert trainer.model.properties["signatures"] == ["serve", "serving_default"]
    assert trainer.model.properties["seed"] == 0
    framework = str(trainer.model.properties["framework"])
    assert framework.startswith("keras 3.") and tf.__version__ in framework
    assert (trainer.model_run.path / "log.csv").is_file()


def test_a_keras_2_run_fn_trains_from_any_files(
    tmp_path: Path, examples: Examples, schema: Schema
) -> None:
    trainer = _run(
        tmp_path,
        examples=examples,
        schema=schema,
        module_file=MODULES / "penguin_keras2.py",
        train_steps=15,
        eval_steps=2,
    )
    loaded = tf.saved_model.load(str(trainer.model.serving_dir))
    feature = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=[2.0]))
        for name in penguins.MEASURES
    }
    row = tf.train.Example(features=tf.train.Features(feature=feature))
    answer = loaded.signatures["serving_default"](
        examples=tf.constant([row.SerializeToString()])
    )
    assert answer["logits"].shape == (1, 3)
    assert trainer.model.properties["signatures"] == ["serving_default"]
    assert str(trainer.model.properties["framework"]).startswith("tf_keras 2.")


@pytest.mark.long
@pytest.mark.parametrize("module", ["penguin_keras3.py", "penguin_keras2.py"])
def test_a_fresh_process_writes_the_same_bytes(tmp_path: Path, module: str) -> None:
    penguins.examples(tmp_path / "data" / "examples", "parquet")
    penguins.schema(tmp_path / "data" / "schema")
    root = Path(__file__).parents[3]
    digests = set()
    for number in range(2):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.components.training.penguins",
                module,
                str(tmp_path / "data"),
                str(tmp_path / f"out-{number}"),
            ],
            cwd=root,
            # What the runner sets for an isolated component.
            env={**os.environ, "PYTHONHASHSEED": "0", "TF_DETERMINISTIC_OPS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        digests.add(done.stdout.splitlines()[-1])
    assert len(digests) == 1
    assert digests.pop().startswith("sha256:")


# What the train function gets.


def test_fn_args_has_what_a_train_function_of_tfx_expects(
    tmp_path: Path, parquet: Examples, schema: Schema
) -> None:
    graph, base, statistics = (tmp_path / name for name in ("graph", "base", "stats"))
    graph.mkdir()
    train_functions.save(str(base / "Format-Serving"))
    for split, rows in (("train", 300), ("eval", 100)):
        (statistics / f"Split-{split}").mkdir(parents=True)
        written = statistics_pb2.DatasetFeatureStatisticsList()
        written.datasets.add(num_examples=rows)
        (statistics / f"Split-{split}" / "FeatureStats.pb").write_bytes(
            written.SerializeToString()
        )
    trainer = _run(
        tmp_path / "out",
        examples=parquet,
        schema=schema,
        transform_graph=TransformGraph(graph),
        base_model=Model(base),
        statistics=ExampleStatistics(statistics),
        train_fn=train_functions.train,
        train_steps=7,
        eval_steps=0,
        custom_config={"learning_rate": 0.1, "layers": [8, 8]},
        seed=5,
    )
    given = train_functions.SEEN[-1]
    assert given.data_accessor.payload_format == "FORMAT_PARQUET"
    assert given.data_accessor.seed == 5
    assert given == FnArgs(
        working_dir=str(tmp_path / "out" / "tmp"),
        train_files=[f"{parquet.uri}/Split-train/*"],
        eval_files=[f"{parquet.uri}/Split-eval/*"],
        train_steps=7,
        eval_steps=None,
        schema_path=str(schema.file),
        schema_file=str(schema.file),
        transform_graph_path=str(graph),
        transform_output=str(graph),
        data_accessor=given.data_accessor,
        serving_model_dir=str(trainer.model.path / "Format-Serving"),
        eval_model_dir=str(trainer.model.path / "Format-TFMA"),
        model_run_dir=str(trainer.model_run.path),
        base_model=str(base / "Format-Serving"),
        hyperparameters=None,
        custom_config={"learning_rate": 0.1, "layers": [8, 8]},
        num_examples={"train": 300, "eval": 100},
    )
    assert isinstance(json.dumps(given.custom_config), str)


def test_what_is_not_wired_is_none(tmp_path: Path, parquet: Examples) -> None:
    _run(tmp_path, examples=parquet, train_fn=train_functions.train, eval_splits=())
    given = train_functions.SEEN[-1]
    assert given.eval_files == []
    for name in [
        "train_steps",
        "eval_steps",
        "schema_path",
        "schema_file",
        "transform_graph_path",
        "transform_output",
        "base_model",
        "hyperparameters",
        "custom_config",
        "num_examples",
    ]:
        assert getattr(given, name) is None, name


def test_a_warm_start_begins_at_the_base_model(
    tmp_path: Path, parquet: Examples
) -> None:
    train_functions.save(str(tmp_path / "base" / "Format-Serving"), 3.0)
    trainer = _run(
        tmp_path / "out",
        examples=parquet,
        base_model=Model(tmp_path / "base"),
        train_fn=train_functions.train_from_base,
    )
    loaded = tf.saved_model.load(str(trainer.model.serving_dir))
    answer = loaded.signatures["serving_default"](x=tf.constant([1.0]))
    assert answer["doubled"].numpy().tolist() == [12.0]


def test_a_python_predictor_is_no_saved_model(
    tmp_path: Path, parquet: Examples
) -> None:
    trainer = _run(
        tmp_path, examples=parquet, train_fn=train_functions.train_a_python_predictor
    )
    assert trainer.model.properties == {"seed": 0, "framework": "python"}
    names = [each.name for each in trainer.model.serving_dir.iterdir()]
    assert sorted(names) == ["flavor.json", "model.json"]


def test_every_library_is_seeded(tmp_path: Path, parquet: Examples) -> None:
    def weight(folder: str, seed: int) -> float:
        trainer = _run(
            tmp_path / folder,
            examples=parquet,
            train_fn=train_functions.train_randomly,
            seed=seed,
        )
        loaded = tf.saved_model.load(str(trainer.model.serving_dir))
        answer = loaded.signatures["serving_default"](tf.constant([1.0]))
        return float(answer["doubled"][0])

    assert weight("a", 1) == weight("b", 1) != weight("c", 2)


# Models that are refused, and errors.


@pytest.mark.parametrize(
    ("train_fn", "sentence"),
    [
        (
            train_functions.write_nothing,
            "The train function returned without a model: it wrote nothing to "
            "'{dir}'. Export the model there, for Keras 3 with "
            "model.export(fn_args.serving_model_dir).",
        ),
        (
            train_functions.write_something_else,
            "The train function wrote no SavedModel to '{dir}': there is no "
            "'saved_model.pb' (it has 'model.keras'). Export the model, for Keras 3 "
            "with model.export(fn_args.serving_model_dir).",
        ),
        (
            train_functions.write_no_signature,
            "The model in '{dir}' has no signature 'serving_default' (it has none), so "
            "a model server cannot answer with it. Save it with "
            'signatures={{"serving_default": ...}}, or with model.export.',
        ),
        (
            train_functions.write_another_signature,
            "The model in '{dir}' has no signature 'serving_default' (it has 'double'),"
            " so a model server cannot answer with it. Save it with "
            'signatures={{"serving_default": ...}}, or with model.export.',
        ),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(
    tmp_path: Path, parquet: Examples, train_fn: Any, sentence: str
) -> None:
    said = _error(tmp_path, DataError, examples=parquet, train_fn=train_fn)
    assert said == sentence.format(dir=tmp_path / "model" / "Format-Serving")


@pytest.mark.parametrize(
    "train_fn", [train_functions.write_half_a_model, train_functions.write_garbage]
)
def test_a_model_that_does_not_load_is_refused(
    tmp_path: Path, parquet: Examples, train_fn: Any
) -> None:
    said = _error(tmp_path, DataError, examples=parquet, train_fn=train_fn)
    folder = tmp_path / "model" / "Format-Serving"
    assert said.startswith(f"The model in '{folder}' cannot be loaded: ")
    assert said.endswith(" Write it whole, once, at the end of the train function.")


def test_what_the_train_function_raises_is_raised(
    tmp_path: Path, parquet: Examples
) -> None:
    train_fn = train_functions.raise_an_error
    said = _error(tmp_path, ZeroDivisionError, examples=parquet, train_fn=train_fn)
    assert said == "the loss is nothing"


def test_parquet_read_as_tfrecord_gets_the_way_out(
    tmp_path: Path, parquet: Examples
) -> None:
    train_fn = train_functions.read_as_tfrecord
    said = _error(tmp_path, DataError, examples=parquet, train_fn=train_fn)
    assert said == (
        f"'{train_fn.__module__}.read_as_tfrecord' read the examples as TFRecord "
        f"files, but '{parquet.uri}' holds Parquet files. Read them with "
        "fn_args.data_accessor.tf_dataset_factory, or let "
        'CsvExampleGen(file_format="tfrecords_gzip") write what it expects.'
    )


def test_a_label_that_is_missing_is_said_plainly(
    tmp_path: Path, schema: Schema
) -> None:
    said = _error(
        tmp_path / "out",
        DataError,
        examples=penguins.examples(tmp_path / "in", "parquet", label=False),
        schema=schema,
        train_fn=train_functions.read_eval,
    )
    assert said == (
        f"'{tmp_path}/in/Split-eval/data_parquet-00000-of-00001.parquet', row group 0, "
        "row 100: feature 'species' has no value, where the schema says that every row "
        "has one value. Mend the data, or leave the feature's shape out of the schema."
    )


@pytest.mark.parametrize("field", ["train_splits", "eval_splits"])
def test_a_split_named_wrong_is_named_right(
    tmp_path: Path, parquet: Examples, field: str
) -> None:
    said = _error(
        tmp_path,
        DataError,
        examples=parquet,
        train_fn=train_functions.train,
        **{field: ("evl",)},
    )
    assert said == (
        f"Split 'evl' is not in Examples '{parquet.uri}' (it has 'eval', 'train'). Did "
        "you mean 'eval'?"
    )


def test_a_base_model_that_is_gone_is_named(tmp_path: Path, parquet: Examples) -> None:
    said = _error(
        tmp_path,
        DataError,
        examples=parquet,
        base_model=Model(tmp_path / "gone"),
        train_fn=train_functions.train,
    )
    assert said == (
        f"Model '{tmp_path}/gone', the base model of 'Trainer', has no folder "
        "'Format-Serving'. It was moved or deleted; run its producer again."
    )


def test_a_module_file_that_is_gone_is_named(tmp_path: Path, parquet: Examples) -> None:
    path = MODULES / "penguin_keras.py"
    said = _error(tmp_path, PipelineError, examples=parquet, module_file=path)
    assert said.startswith(f"Module file '{path}' does not exist.")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {},
            "'Trainer' takes either train_fn or module_file, got neither. Pass "
            "train_fn=a_function, or module_file=Path('a_file.py') with a run_fn in "
            "it.",
        ),
        (
            {"train_fn": train_functions.train, "module_file": Path("a.py")},
            "'Trainer' takes either train_fn or module_file, got both. Pass "
            "train_fn=a_function, or module_file=Path('a_file.py') with a run_fn in "
            "it.",
        ),
        (
            {"module_file": Path("a.py"), "train_splits": ()},
            "Trainer.train_splits is empty. Name at least one split to train on.",
        ),
        (
            {"module_file": Path("a.py"), "train_steps": -1},
            "Trainer.train_steps is -1. Pass a number of batches, or None for no "
            "limit.",
        ),
        (
            {"module_file": Path("a.py"), "eval_steps": -2},
            "Trainer.eval_steps is -2. Pass a number of batches, or None for no limit.",
        ),
        (
            {"module_file": Path("a.py"), "seed": -1},
            "Trainer.seed is -1, which NumPy cannot take. Pass a number from 0 to "
            "2**32 - 1.",
        ),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        Trainer(examples=Examples("/anywhere"), **fields)
    assert str(caught.value) == sentence


def test_it_runs_in_a_process_of_its_own_and_is_found_as_tfx_names_it() -> None:
    assert Trainer.isolated
    assert Trainer.EXECUTION_TYPE == "tfx.components.trainer.component.Trainer"


def test_importing_the_trainer_loads_nothing_heavy() -> None:
    code = (
        "import sys, penstock.components.training, penstock.components.training.tfx;"
        "print([m for m in ('tensorflow', 'keras', 'pyarrow', 'numpy', 'apache_beam')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("uuid", ["", "1234"])
def test_the_fingerprints_id_follows_from_the_rest(tmp_path: Path, uuid: str) -> None:
    from tensorflow.core.protobuf import fingerprint_pb2

    from penstock.components.training.saved_model import settle_fingerprint

    names = fingerprint_pb2.FingerprintDef.DESCRIPTOR.fields_by_name
    written = fingerprint_pb2.FingerprintDef(saved_model_checksum=7)
    if uuid and "uuid" in names:  # TensorFlow 2.16 writes none
        written.uuid = uuid
    settled: Callable[[], bytes] = (tmp_path / "fingerprint.pb").read_bytes
    (tmp_path / "fingerprint.pb").write_bytes(written.SerializeToString())
    settle_fingerprint(tmp_path)
    once = settled()
    settle_fingerprint(tmp_path)
    assert settled() == once
    read = fingerprint_pb2.FingerprintDef.FromString(once)
    assert read.saved_model_checksum == 7
    assert getattr(read, "uuid", "") != "1234"
    assert bool(getattr(read, "uuid", "")) == bool(getattr(written, "uuid", ""))
