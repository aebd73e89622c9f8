"""Tiny SavedModels whose answers say which version gave them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    input_pb2,
    predict_pb2,
    prediction_log_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

_VERSION = -987654.0
"""Stands for the version in the template; never the value of anything else."""


class Affine(tf.Module):  # type: ignore[misc]
    """y = 2 x + version, with a signature for every call of PredictionService."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(2.0)

    def _y(self, x: Any) -> Any:
        return self.w * x + tf.constant(_VERSION)

    def _x(self, serialized: Any) -> Any:
        features = {"x": tf.io.FixedLenFeature([], tf.float32)}
        return tf.io.parse_example(serialized, features)["x"]

    def predict(self, x: Any) -> Any:
        return {"y": self._y(x)}

    def several(self, a: Any, b: Any, s: Any) -> Any:
        return {
            "sum": a + tf.cast(b, tf.float32),
            "text": tf.strings.join([s, "!"]),
            "version": tf.constant(_VERSION),
        }

    def matrix(self, x: Any) -> Any:
        return {"y": tf.linalg.matmul(x, tf.ones([3, 2])) * self.w}

    def regress(self, inputs: Any) -> Any:
        return {"outputs": self._y(self._x(inputs))}

    def classify(self, inputs: Any) -> Any:
        x = self._x(inputs)
        labels = tf.constant([["low", "high"]])
        return {
            "classes": tf.tile(labels, [tf.shape(x)[0], 1]),
            "scores": tf.stack([tf.sigmoid(-x), tf.sigmoid(x)], axis=1),
        }


def save_template(folder: Path) -> Path:
    """Save the model that `save_version` copies; takes a second."""
    model = Affine()
    serialized = [tf.TensorSpec([None], tf.string, name="inputs")]
    inputs = {
        "predict": [tf.TensorSpec([None], tf.float32, name="x")],
        "several": [
            tf.TensorSpec([None], tf.float32, name="a"),
            tf.TensorSpec([None], tf.int64, name="b"),
            tf.TensorSpec([None], tf.string, name="s"),
        ],
        "matrix": [tf.TensorSpec([None, 3], tf.float32, name="x")],
        "regress": serialized,
        "classify": serialized,
    }
    signatures = {
        name: tf.function(getattr(model, name), input_signature=specs)
        for name, specs in inputs.items()
    }
    signatures["serving_default"] = signatures.pop("predict")
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return folder


def save_version(template: Path, base: Path, version: int, name: str = "") -> Path:
    """Put a version of the model into a serving directory at once, by a rename.

    Args:
        template: What `save_template` wrote.
        base: The serving directory; made if it is missing.
        version: What its answers say.
        name: Name of its folder, if it is not the version.

    Returns:
        The folder of the version.
    """
    saved = saved_model_pb2.SavedModel.FromString(
        (template / "saved_model.pb").read_bytes()
    )
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            values = node.attr["value"].tensor.float_val if node.op == "Const" else []
            if list(values) == [_VERSION]:
                values[0] = version
    base.mkdir(parents=True, exist_ok=True)
    folder = base / (name or str(version))
    staged = base / f".staged-{version}"
    shutil.copytree(template, staged)
    (staged / "saved_model.pb").write_bytes(saved.SerializeToString())
    staged.rename(folder)
    return folder


def predict_request(
    values: Iterable[float] = (1.0,),
    *,
    model: str = "",
    signature: str = "",
    version: int | None = None,
    label: str | None = None,
    outputs: Iterable[str] = (),
) -> predict_pb2.PredictRequest:
    """Ask for y at some x."""
    request = named_request(
        {"x": np.array(list(values), np.float32)}, model=model, signature=signature
    )
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    request.output_filter.extend(outputs)
    return request


def named_request(
    tensors: Mapping[str, Any], *, model: str = "", signature: str = ""
) -> predict_pb2.PredictRequest:
    """Ask for what a signature makes of named tensors."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in tensors.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def example(**features: float) -> tf.train.Example:
    """Make a tf.Example of floats."""
    made = tf.train.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def examples(*values: float) -> input_pb2.Input:
    """Make the input of Classify and Regress: one example per x."""
    made = input_pb2.Input()
    made.example_list.examples.extend(example(x=value) for value in values)
    return made


def predict_log(**arguments: Any) -> prediction_log_pb2.PredictionLog:
    """Make a warm-up record that asks for y at some x."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request(**arguments))
    return log


def write_warmup(
    version: Path, logs: Iterable[prediction_log_pb2.PredictionLog | bytes]
) -> Path:
    """Write the warm-up file of a version."""
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())
    return path


def answer(response: predict_pb2.PredictResponse, name: str = "y") -> list[Any]:
    """Return one output of an answer as a list."""
    values: list[Any] = tf.make_ndarray(response.outputs[name]).tolist()
    return values


def config(
    *,
    specific: Mapping[str, Iterable[int]] | None = None,
    latest: Mapping[str, int] | None = None,
    every: Iterable[str] = (),
    labels: Mapping[str, Mapping[str, int]] | None = None,
    **bases: Path | str,
) -> model_server_config_pb2.ModelServerConfig:
    """Make a config of models and their serving directories.

    Args:
        specific: Specific versions, by model.
        latest: How many of the latest versions, by model.
        every: Models of which all versions are wanted.
        labels: Labels and their versions, by model.
        **bases: Serving directories, by model.
    """
    made = model_server_config_pb2.ModelServerConfig()
    made.model_config_list.SetInParent()
    for name, base in bases.items():
        model = made.model_config_list.config.add(
            name=name, base_path=str(base), model_platform="tensorflow"
        )
        policy = model.model_version_policy
        if specific and name in specific:
            policy.specific.versions.extend(specific[name])
        if latest and name in latest:
            policy.latest.num_versions = latest[name]
        if name in every:
            policy.all.SetInParent()
        for label, version in (labels or {}).get(name, {}).items():
            model.version_labels[label] = version
    return made
