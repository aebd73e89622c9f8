"""Small SavedModels of raw modules and of Keras, and rows to call them with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf

ROWS = pa.RecordBatch.from_arrays(
    [
        pa.array([1.0, 2.0, -3.0, 4.0], pa.float32()),
        pa.array(["a", None, "c", "d"]),
        pa.array([0.5, 1.0, -1.5, 2.0], pa.float32()),
    ],
    names=["x", "name", "label"],
)
"""Four rows: a number, a text that is missing once, and the label 0.5 x."""

EXAMPLES = [tf.TensorSpec([None], tf.string, name="examples")]
DENSE = [tf.TensorSpec([None, 1], tf.float32, name="x")]
NUMBER = tf.io.FixedLenFeature([1], tf.float32)


def save(folder: Path, /, **signatures: tuple[Callable[..., Any], list[Any]]) -> Path:
    """Save a module that has one weight, `half`, of 0.5.

    Args:
        folder: Where.
        signatures: For each one a function of the module and of tensors, and their
            specs.
    """
    module = tf.Module()
    module.half = tf.Variable(0.5)

    def bound(function: Callable[..., Any], specs: list[Any]) -> Any:
        def call(*tensors: Any) -> Any:
            return function(module, *tensors)

        traced = tf.function(call, input_signature=specs, autograph=False)
        return traced.get_concrete_function()

    concrete = {
        name: bound(function, specs) for name, (function, specs) in signatures.items()
    }
    module.kept = list(concrete.values())
    tf.saved_model.save(module, str(folder), concrete)
    return folder


def parsed(examples: Any, **features: Any) -> Any:
    return tf.io.parse_example(examples, features)


def halved(module: Any, examples: Any) -> Any:
    """From serialized tf.Examples: half of x."""
    return {"y": module.half * parsed(examples, x=NUMBER)["x"]}


def halved_dense(module: Any, x: Any) -> Any:
    """From a tensor: half of x."""
    return {"y": module.half * x}


def good(folder: Path) -> Path:
    """A model whose two signatures agree."""
    return save(folder, serving_default=(halved, EXAMPLES), dense=(halved_dense, DENSE))


def keras_model(folder: Path, keras: Any) -> Path:
    """A Keras model, of version 2 or 3, that takes the column x."""
    inputs = keras.Input((1,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs))
    with contextlib.redirect_stdout(io.StringIO()):  # Keras 2 cannot be quiet
        model.export(str(folder))
    return folder


def trained_path(rows: pa.RecordBatch, folder: Path) -> Any:
    """What training says of rows: half of x."""
    assert (folder / "saved_model.pb").is_file()
    return rows.column(rows.schema.names.index("x")).to_numpy() / 2


def other_path(rows: pa.RecordBatch, folder: Path) -> Any:
    """A training path that fills in what is negative."""
    return {"y": trained_path(rows, folder).clip(0)}


def broken_path(rows: pa.RecordBatch, folder: Path) -> Any:
    raise KeyError("fare")


def shapeless_path(rows: pa.RecordBatch, folder: Path) -> Any:
    return 3.0
