"""Rows to evaluate on, and tiny models with weights chosen by hand."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.schemas.artifacts import Examples, Model

with warnings.catch_warnings():
    # Test modules take messages of TFMA when they are collected, and its dependencies
    # warn of their own future when they are first imported.
    warnings.simplefilter("ignore")
    import tensorflow_model_analysis  # noqa: F401

ROWS = 600

# What TFMA and Beam say of their own dependencies and of old interfaces is not ours.
IGNORED = (
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::RuntimeWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for text in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(text))


def make_rows(count: int = ROWS, *, seed: int = 0) -> pa.Table:
    """Trips whose label depends on fare and hour, with two payment types."""
    random = np.random.default_rng(seed)
    fare = random.gamma(3.0, 5.0, count)
    hour = random.integers(0, 24, count)
    score = 0.15 * (fare - 15) + 0.05 * (hour - 12) + random.normal(0, 1, count)
    payment = np.where(random.random(count) < 0.3, "Cash", "Card")
    company = [None if each < 0.2 else "Flash" for each in random.random(count)]
    return pa.table(
        {
            "fare": pa.array(fare, pa.float64()),
            "hour": pa.array(hour, pa.int64()),
            "payment": pa.array(payment.tolist(), pa.string()),
            "company": pa.array(company, pa.string()),
            "share": pa.array(np.round(random.random(count), 1), pa.float64()),
            "weight": pa.array(random.random(count) + 0.5, pa.float64()),
            "big": pa.array((score > 0).astype(np.int64), pa.int64()),
        }
    )


def make_examples(folder: Path, **splits: pa.Table) -> Examples:
    """Write Examples as Parquet."""
    for name, table in splits.items():
        (folder / f"Split-{name}").mkdir(parents=True)
        file = folder / f"Split-{name}" / "data_parquet-00000-of-00001.parquet"
        pq.write_table(table, file, row_group_size=250)
    return Examples(
        folder,
        properties={
            "split_names": json.dumps(list(splits)),
            "payload_format": "FORMAT_PARQUET",
            "file_format": "parquet",
        },
    )


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Examples with a train and an eval split."""
    folder = tmp_path_factory.mktemp("examples")
    return make_examples(folder, train=make_rows(50, seed=1), eval=make_rows())


@pytest.fixture(scope="session")
def rows() -> Callable[..., pa.Table]:
    """Make a table of trips."""
    return make_rows


@pytest.fixture(scope="session")
def write_examples() -> Callable[..., Examples]:
    """Write tables as Examples."""
    return make_examples


def keras_model(keras: Any, slope: float) -> Any:
    """A model of two inputs, `fare` and `hour`, with weights chosen by hand."""
    inputs = {
        name: keras.Input((1,), name=name, dtype="float32") for name in ("fare", "hour")
    }
    both = keras.layers.Concatenate()([inputs["fare"], inputs["hour"]])
    layer = keras.layers.Dense(1, activation="sigmoid", name="score")
    model = keras.Model(inputs, layer(both))
    layer.set_weights([np.array([[slope], [0.05]]), np.array([-15 * slope - 0.6])])
    return model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Keras 3 model, exported with a signature of named tensors."""
    import keras

    folder = tmp_path_factory.mktemp("keras3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras_model(keras, 0.15).export(str(folder / "Format-Serving"), verbose=False)
    return Model(folder, id=11)


@pytest.fixture(scope="session")
def keras2_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same model, saved by Keras 2."""
    import tf_keras

    folder = tmp_path_factory.mktemp("keras2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras_model(tf_keras, 0.15).save(str(folder / "Format-Serving"))
    return Model(folder)


@pytest.fixture(scope="session")
def save_tf_example_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Model]:
    """Save a model whose signature takes serialized tf.Examples."""

    def save(slope: float, *, signature: str = "serving_default", id: int = 0) -> Model:
        import tensorflow as tf

        class Scorer(tf.Module):  # type: ignore[misc]
            @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
            def score(self, examples: Any) -> Any:
                parsed = tf.io.parse_example(
                    examples,
                    {
                        "fare": tf.io.FixedLenFeature([1], tf.float32),
                        "hour": tf.io.FixedLenFeature([1], tf.int64),
                    },
                )
                hour = tf.cast(parsed["hour"], tf.float32)
                logits = slope * (parsed["fare"] - 15) + 0.05 * (hour - 12)
                return {"score": tf.sigmoid(logits)}

        folder = tmp_path_factory.mktemp("tfexample")
        module = Scorer()
        tf.saved_model.save(
            module, str(folder / "Format-Serving"), {signature: module.score}
        )
        return Model(folder, id=id or None)

    return save


@pytest.fixture(scope="session")
def tf_example_model(save_tf_example_model: Callable[..., Model]) -> Model:
    """The same model, with a signature that takes serialized tf.Examples."""
    return save_tf_example_model(0.15)


@pytest.fixture(scope="session")
def worse_model(save_tf_example_model: Callable[..., Model]) -> Model:
    """A model that ranks by the hour only."""
    return save_tf_example_model(0.0, id=7)


@pytest.fixture(scope="session")
def transforming_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with a second signature, which computes the label `generous`."""
    import tensorflow as tf

    takes = tf.TensorSpec([None], tf.float32, name="fare")
    functions = {
        "serving_default": lambda fare: {"score": tf.sigmoid(0.2 * (fare - 15))},
        "labels": lambda fare: {"generous": tf.cast(fare > 18, tf.int64)},
    }
    folder = tmp_path_factory.mktemp("transforming")
    tf.saved_model.save(
        tf.Module(),
        str(folder / "Format-Serving"),
        {
            name: tf.function(function, input_signature=[takes])
            for name, function in functions.items()
        },
    )
    return Model(folder)
