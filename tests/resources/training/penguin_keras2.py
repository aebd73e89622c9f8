"""A run_fn module in TFX's style, for Keras 2; only its `tfx` imports are ours."""

import tensorflow as tf
import tf_keras as keras
from penguin_features import LABEL, MEASURES, SPECIES
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio import dataset_options

from penstock.components.training import DataAccessor, FnArgs
from penstock.components.training.tfx import utils as io_utils

_SPEC = {name: tf.io.FixedLenFeature([1], tf.float32) for name in MEASURES}


def _get_serve_tf_examples_fn(model):
    @tf.function(
        input_signature=[tf.TensorSpec(shape=[None], dtype=tf.string, name="examples")]
    )
    def serve_tf_examples_fn(serialized_tf_examples):
        return {"logits": model(tf.io.parse_example(serialized_tf_examples, _SPEC))}

    return serve_tf_examples_fn


def _input_fn(file_pattern, data_accessor: DataAccessor, schema, batch_size):
    return data_accessor.tf_dataset_factory(
        file_pattern,
        dataset_options.TensorFlowDatasetOptions(
            batch_size=batch_size, label_key=LABEL
        ),
        schema,
    )


def _without_sex(features, label):
    return {name: features[name] for name in MEASURES}, label


def run_fn(fn_args: FnArgs) -> None:
    """Train the model, and write it where it is served from."""
    schema = io_utils.parse_pbtxt_file(fn_args.schema_file, schema_pb2.Schema())
    train_dataset = _input_fn(fn_args.train_files, fn_args.data_accessor, schema, 20)
    eval_dataset = _input_fn(fn_args.eval_files, fn_args.data_accessor, schema, 20)

    inputs = [keras.layers.Input((1,), name=name) for name in MEASURES]
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.concatenate(inputs))
    model = keras.Model(inputs, keras.layers.Dense(SPECIES)(hidden))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        train_dataset.map(_without_sex),
        steps_per_epoch=fn_args.train_steps,
        validation_data=eval_dataset.map(_without_sex),
        validation_steps=fn_args.eval_steps,
        verbose=0,
    )
    model.save(
        fn_args.serving_model_dir,
        save_format="tf",
        signatures={"serving_default": _get_serve_tf_examples_fn(model)},
    )
