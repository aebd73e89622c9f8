"""A wide-and-deep model of generous tips: over 20 % of the fare, or not.

All preprocessing is part of the model, so that a request carries a trip as it stands
in a CSV row. What it needs to know of the data (means, vocabularies, quantiles) comes
from one pass over the train split.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import pyarrow as pa
    import tensorflow as tf

    from penstock.components.training import FnArgs

LABEL = "big_tipper"
TIP_SHARE = 0.2  # of the fare; a tip above it is generous

# Amounts have long tails: the model sees their logarithms. What is missing counts as 0.
AMOUNTS = ("fare", "trip_miles", "trip_seconds")
PLACES = (
    "pickup_latitude",
    "pickup_longitude",
    "dropoff_latitude",
    "dropoff_longitude",
)
NAMES = ("payment_type", "company")
# Whole numbers that are names, and how many there can be, 0 included.
NUMBERED = {
    "trip_start_month": 13,
    "trip_start_day": 8,
    "trip_start_hour": 24,
    "pickup_community_area": 78,
    "dropoff_community_area": 78,
}
TYPES = {
    **dict.fromkeys((*AMOUNTS, *PLACES), "float32"),
    **dict.fromkeys(NAMES, "string"),
    **dict.fromkeys(NUMBERED, "int64"),
    "trip_seconds": "int64",
}
"""The features of the model and their types; the CSV files name them the same."""

_BATCH_ROWS = 256
_MOST_NAMES = 50  # in a vocabulary; rarer names count as unknown
_FARE_BUCKETS = 20


def train(fn_args: FnArgs) -> None:
    """Train on the train split and export a SavedModel.

    Its signatures take serialized `tf.Example`s of raw trips, shape (rows,):
    `serving_default` returns `probability`, float32 of shape (rows, 1);
    `transform_features` returns the label `big_tipper`, float32 of shape (rows, 1),
    for evaluation: the label is no column of the data.

    Args:
        fn_args: What Trainer passes.
    """
    import keras
    from tfx_bsl.public import tfxio

    accessor = fn_args.data_accessor
    batches = accessor.record_batch_factory(
        fn_args.train_files,
        tfxio.RecordBatchesOptions(batch_size=10_000, num_epochs=1),
    )
    rows = accessor.tf_dataset_factory(
        fn_args.train_files,
        tfxio.TensorFlowDatasetOptions(batch_size=_BATCH_ROWS),
    )
    model = _wide_and_deep(batches)
    model.compile(
        optimizer=keras.optimizers.Adam(0.002),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=[keras.metrics.AUC(name="auc")],
        steps_per_execution=50,
    )
    model.fit(
        rows.map(lambda trips: (_features(trips), _label(trips))),
        shuffle=False,  # the dataset is shuffled already
        steps_per_epoch=fn_args.train_steps,
        callbacks=[keras.callbacks.TensorBoard(fn_args.model_run_dir)],
        verbose=2,
    )
    _export(model, fn_args.serving_model_dir)


def _wide_and_deep(batches: Iterable[pa.RecordBatch]) -> keras.Model:
    """Return a model that maps raw features, each of shape (rows, 1), to probabilities.

    Args:
        batches: The rows to learn means, vocabularies and quantiles from.
    """
    import keras
    import numpy as np

    numbers, names = _pass_over(batches)
    inputs = {
        name: keras.Input((1,), name=name, dtype=kind) for name, kind in TYPES.items()
    }
    dense: list[Any] = []
    for name in (*AMOUNTS, *PLACES):
        column = keras.ops.cast(inputs[name], "float32")
        known = numbers[name]
        present = keras.ops.not_equal(column, 0.0)
        if name in AMOUNTS:
            column, known = keras.ops.log1p(keras.ops.relu(column)), np.log1p(known)
        scaled = keras.layers.Normalization(
            mean=float(known.mean()), variance=max(float(known.var()), 1e-6)
        )(column)
        # A place that is missing counts as the mean: 0 degrees are far from Chicago.
        dense.append(
            scaled if name in AMOUNTS else keras.ops.where(present, scaled, 0.0)
        )

    codes: list[tuple[Any, int]] = []  # whole numbers from 0, and how many there are
    for name in NAMES:
        common = [text for text, _ in names[name].most_common(_MOST_NAMES)]
        lookup = keras.layers.StringLookup(vocabulary=sorted(common) or ["?"])
        codes.append((lookup(inputs[name]), lookup.vocabulary_size()))
    payment, kinds = codes[0]
    for name, count in NUMBERED.items():
        codes.append((keras.ops.clip(inputs[name], 0, count - 1), count))
    edges = np.unique(np.quantile(numbers["fare"], np.linspace(0, 1, _FARE_BUCKETS)))
    bucket = keras.layers.Discretization(bin_boundaries=edges.tolist())(inputs["fare"])
    buckets = len(edges) + 1
    codes.append(
        (payment * buckets + keras.ops.cast(bucket, payment.dtype), kinds * buckets)
    )
    codes.append((bucket, buckets))

    # All codes share one table each for the wide and the deep part: two look-ups.
    starts = np.cumsum([0, *(count for _, count in codes)])
    rows = keras.layers.Concatenate()(
        [
            keras.ops.cast(code, "int64") + int(start)
            for (code, _), start in zip(codes, starts[:-1], strict=True)
        ]
    )
    wide = keras.layers.Flatten()(keras.layers.Embedding(int(starts[-1]), 1)(rows))
    deep = keras.layers.Flatten()(keras.layers.Embedding(int(starts[-1]), 4)(rows))
    deep = keras.layers.Concatenate()([*dense, deep])
    for units in (64, 32):
        deep = keras.layers.Dense(units, activation="relu")(deep)
    logit = keras.ops.sum(wide, axis=1, keepdims=True) + keras.layers.Dense(1)(deep)
    return keras.Model(inputs, keras.ops.sigmoid(logit), name=LABEL)


def _pass_over(
    batches: Iterable[pa.RecordBatch],
) -> tuple[dict[str, Any], dict[str, collections.Counter[str]]]:
    """Return the values of every number and the counts of every name."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers: dict[str, list[Any]] = {name: [] for name in (*AMOUNTS, *PLACES)}
    names = {name: collections.Counter[str]() for name in NAMES}
    for batch in batches:
        for name in TYPES:
            if name in NUMBERED or name not in batch.schema.names:
                continue
            values = batch.column(batch.schema.names.index(name))
            if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                values = values.flatten()
            if name in numbers:
                floats = values.drop_null().cast(pa.float32())
                numbers[name].append(floats.to_numpy(zero_copy_only=False))
            else:
                for counted in pc.value_counts(values.cast(pa.string())).to_pylist():
                    if counted["values"] is not None:
                        names[name][counted["values"]] += counted["counts"]
    return {
        name: np.concatenate(parts) if any(map(len, parts)) else np.zeros(1, np.float32)
        for name, parts in numbers.items()
    }, names


def _features(trips: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Return the model's inputs, each of shape (rows, 1), from raw trips."""
    return {name: _dense(trips[name], kind) for name, kind in TYPES.items()}


def _label(trips: Mapping[str, Any]) -> tf.Tensor:
    """Return 1.0 for generous tips and 0.0 for others, shape (rows, 1)."""
    import tensorflow as tf

    tips, fare = _dense(trips["tips"], "float32"), _dense(trips["fare"], "float32")
    return tf.cast(tips > TIP_SHARE * fare, tf.float32)


def _dense(column: Any, kind: str) -> tf.Tensor:
    """Return a column of at most one value per row in shape (rows, 1).

    Args:
        column: Sparse, ragged or dense; what is missing becomes 0 or "".
        kind: Name of the type to return.
    """
    import tensorflow as tf

    if isinstance(column, tf.RaggedTensor):
        column = column.to_sparse()
    if isinstance(column, tf.SparseTensor):
        rows = column.dense_shape[0]
        column = tf.sparse.to_dense(
            tf.SparseTensor(column.indices, column.values, [rows, 1])
        )
    column = tf.reshape(column, [-1, 1])
    return column if kind == "string" else tf.cast(column, kind)


def _export(model: keras.Model, folder: str) -> None:
    """Write the SavedModel with its two signatures."""
    import keras
    import tensorflow as tf

    def predict(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probability": model(_features(_parsed(examples)))}

    def transform_features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {LABEL: _label(_parsed(examples))}

    serialized = [tf.TensorSpec([None], tf.string, name="examples")]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", predict, serialized)
    archive.add_endpoint("transform_features", transform_features, serialized)
    archive.write_out(folder, verbose=False)


def _parsed(examples: tf.Tensor) -> dict[str, Any]:
    """Return the columns of serialized `tf.Example`s as sparse tensors."""
    import tensorflow as tf

    columns = {**TYPES, "tips": "float32"}
    return dict(
        tf.io.parse_example(
            examples,
            {name: tf.io.VarLenFeature(kind) for name, kind in columns.items()},
        )
    )


def example_of(trip: Mapping[str, str]) -> bytes:
    """Return a trip as the serialized `tf.Example` that the signatures take.

    Args:
        trip: A row of a CSV file: texts by column, empty where missing. Columns that
            the model does not know are left out.
    """
    import tensorflow as tf

    features = {}
    for name, kind in {**TYPES, "tips": "float32"}.items():
        text = trip.get(name, "")
        if not text:
            continue
        if kind == "string":
            value = {"bytes_list": tf.train.BytesList(value=[text.encode()])}
        elif kind == "int64":
            # Other tools write whole numbers as '300.0' where some are missing.
            value = {"int64_list": tf.train.Int64List(value=[int(float(text))])}
        else:
            value = {"float_list": tf.train.FloatList(value=[float(text)])}
        features[name] = tf.train.Feature(**value)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())
