"""Train functions for the tests: tiny models, good and bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from penstock.components.evaluation import write_flavor
from penstock.components.training import FnArgs

SEEN: list[FnArgs] = []


class Doubling(tf.Module):  # type: ignore[misc]
    """Two times a weight times x."""

    def __init__(self, weight: Any = 1.0) -> None:
        super().__init__()
        self.weight = tf.Variable(weight, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])  # type: ignore[untyped-decorator]
    def double(self, x: Any) -> dict[str, Any]:
        """Return the outputs by name."""
        return {"doubled": 2.0 * self.weight * x}


def save(folder: str, weight: Any = 1.0) -> None:
    """Write the smallest model that can be served."""
    model = Doubling(weight)
    tf.saved_model.save(model, folder, signatures={"serving_default": model.double})


def train(fn_args: FnArgs) -> None:
    """Keep what it was given, and write a model."""
    SEEN.append(fn_args)
    save(fn_args.serving_model_dir)


def train_randomly(fn_args: FnArgs) -> None:
    """Write a model whose weight is a random number of each library."""
    import random

    import keras
    import numpy as np

    weight = random.random() + np.random.rand() + float(tf.random.uniform([]))
    weight += float(tf.reduce_sum(keras.initializers.GlorotUniform()((2, 2))))
    save(fn_args.serving_model_dir, weight)


def train_from_base(fn_args: FnArgs) -> None:
    """Start from the base model's weight."""
    assert fn_args.base_model is not None
    base = tf.saved_model.load(fn_args.base_model)
    answer = base.signatures["serving_default"](x=tf.constant([1.0]))["doubled"]
    save(fn_args.serving_model_dir, float(answer[0]))


def train_a_python_predictor(fn_args: FnArgs) -> None:
    """Write a model that a function loads, and no SavedModel."""
    loader = "penstock.components.evaluation.flavors:load_xgboost"
    write_flavor(fn_args.serving_model_dir, loader=loader, columns=["x"])
    Path(fn_args.serving_model_dir, "model.json").write_text("{}", "utf-8")


def raise_an_error(fn_args: FnArgs) -> None:
    """Fail as a user's function fails."""
    raise ZeroDivisionError("the loss is nothing")


def write_nothing(fn_args: FnArgs) -> None:
    """Return without a model."""


def write_something_else(fn_args: FnArgs) -> None:
    """Write a file that is no SavedModel."""
    folder = Path(fn_args.serving_model_dir)
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"weights")


def write_half_a_model(fn_args: FnArgs) -> None:
    """Write a model whose variables are cut off."""
    save(fn_args.serving_model_dir)
    (data,) = Path(fn_args.serving_model_dir, "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:3])


def write_garbage(fn_args: FnArgs) -> None:
    """Write a file that only has the name of a model."""
    folder = Path(fn_args.serving_model_dir)
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\xff\xff\xff")


def write_no_signature(fn_args: FnArgs) -> None:
    """Write a model that no request can call."""
    tf.saved_model.save(Doubling(), fn_args.serving_model_dir, signatures={})


def write_another_signature(fn_args: FnArgs) -> None:
    """Write a model that only requests which know its name can call."""
    model = Doubling()
    tf.saved_model.save(
        model, fn_args.serving_model_dir, signatures={"double": model.double}
    )


def read_as_tfrecord(fn_args: FnArgs) -> None:
    """Open the files without the data accessor."""
    files = tf.io.gfile.glob(fn_args.train_files)
    for _ in tf.data.TFRecordDataset(files):
        pass


def read_eval(fn_args: FnArgs) -> None:
    """Read the eval split to its end, in batches with a label."""
    from tfx_bsl.public import tfxio

    options = tfxio.TensorFlowDatasetOptions(
        batch_size=10, num_epochs=1, label_key="species"
    )
    for _ in fn_args.data_accessor.tf_dataset_factory(fn_args.eval_files, options):
        pass
    save(fn_args.serving_model_dir)
