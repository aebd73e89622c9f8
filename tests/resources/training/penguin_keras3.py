"""A run_fn module in TFX's style, for Keras 3; only its `tfx` import is ours."""

import os

import keras
import tensorflow as tf
from penguin_features import LABEL, MEASURES, SPECIES
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.public import tfxio

from penstock.components.training import tfx  # was: from tfx import v1 as tfx

_BATCH = 20


def _input_fn(
    file_pattern: list[str],
    data_accessor: tfx.components.DataAccessor,
    schema: schema_pb2.Schema,
    batch_size: int,
) -> tf.data.Dataset:
    return data_accessor.tf_dataset_factory(
        file_pattern,
        tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key=LABEL),
        schema=schema,
    ).repeat()


def _without_sex(features, label):
    return {name: features[name] for name in MEASURES}, label


def _build_model() -> keras.Model:
    inputs = {name: keras.layers.Input((1,), name=name) for name in MEASURES}
    hidden = keras.layers.concatenate(list(inputs.values()))
    for _ in range(2):
        hidden = keras.layers.Dense(8, activation="relu")(hidden)
    outputs = keras.layers.Dense(SPECIES)(hidden)
    model = keras.Model(inputs=inputs, outputs=outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return model


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Train the model, and write it where it is served from."""
    schema = tfx.utils.parse_pbtxt_file(fn_args.schema_path, schema_pb2.Schema())
    train_dataset = _input_fn(
        fn_args.train_files, fn_args.data_accessor, schema, batch_size=_BATCH
    ).map(_without_sex)
    eval_dataset = _input_fn(
        fn_args.eval_files, fn_args.data_accessor, schema, batch_size=_BATCH
    ).map(_without_sex)

    model = _build_model()
    log = keras.callbacks.CSVLogger(os.path.join(fn_args.model_run_dir, "log.csv"))
    model.fit(
        train_dataset,
        steps_per_epoch=fn_args.train_steps,
        validation_data=eval_dataset,
        validation_steps=fn_args.eval_steps,
        callbacks=[log],
        shuffle=False,
        verbose=0,
    )
    model.export(fn_args.serving_model_dir)
