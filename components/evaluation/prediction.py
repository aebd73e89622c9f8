"""Predictions of SavedModels for batches of rows, by serving signature.

A signature takes serialized tf.Examples, or one tensor per feature; which of the two
is seen from the signature. Imports nothing heavy before it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_KERAS_SUFFIX = "_input"


@dataclasses.dataclass(frozen=True)
class TensorInput:
    """A tensor that a signature takes.

    Attributes:
        dtype: TensorFlow's name of its type: `float32`, `string`.
        shape: Its dimensions after the first, the batch; None for any size.
    """

    dtype: str
    shape: tuple[int | None, ...] = ()


@dataclasses.dataclass(frozen=True)
class Signature:
    """How to call a model.

    Attributes:
        model: What the model is called in texts.
        folder: The folder of its SavedModel.
        name: Name of the signature.
        inputs: What it takes, by argument.
        columns: The column of each argument; empty if it takes serialized tf.Examples.
    """

    model: str
    folder: str
    name: str
    inputs: Mapping[str, TensorInput]
    columns: Mapping[str, str]


def find_signature(
    model: str, folder: Path, name: str, columns: Iterable[str]
) -> Signature:
    """Return the signature of a SavedModel that fits the data, without loading it.

    Args:
        model: What the model is called in texts.
        folder: The folder of its SavedModel.
        name: Name of the signature; if empty, `predict` where there is one, else
            `serving_default`.
        columns: Names of the columns of the data.

    Raises:
        DataError: If there is no SavedModel or no such signature, or if it takes what
            the data does not have.
    """
    found = _signatures(model, folder)
    if not name:
        name = "predict" if "predict" in found else "serving_default"
    inputs = _named(model, found, name, "signature_name").inputs
    legal = set(columns)
    named = {argument: _column(argument, legal) for argument in inputs}
    missing = sorted(argument for argument, column in named.items() if column is None)
    if missing and len(inputs) == 1 and inputs[missing[0]] == TensorInput("string"):
        return Signature(model, str(folder), name, inputs, {})
    if missing:
        raise DataError(
            f"Signature '{name}' of {model} takes {quoted(missing)}, which the data "
            f"does not have (it has {quoted(legal)}).{did_you_mean(missing[0], legal)} "
            "Export the model with a signature that takes the columns, or serialized "
            "tf.Examples."
        )
    return Signature(
        model,
        str(folder),
        name,
        inputs,
        {argument: column for argument, column in named.items() if column is not None},
    )


@dataclasses.dataclass(frozen=True)
class Transformation:
    """What the preprocessing signatures of a model take and give.

    Attributes:
        takes: The columns that become tensors; serialized tf.Examples are none.
        gives: Names of the features and labels that they compute.
    """

    takes: frozenset[str]
    gives: frozenset[str]


def find_transformation(
    model: str, folder: Path, names: Iterable[str], columns: Iterable[str]
) -> Transformation:
    """Return what preprocessing signatures take and give, without loading the model.

    Args:
        model: What the model is called in texts.
        folder: The folder of its SavedModel.
        names: Their names; one with an `@` is a function of TFMA's, of the column
            after it.
        columns: Names of the columns of the data.

    Raises:
        DataError: If there is no SavedModel or no such signature.
    """
    takes: set[str] = set()
    gives: set[str] = set()
    legal = set(columns)
    found = _signatures(model, folder)
    for name in names:
        function, _, column = name.partition("@")
        if column:
            takes.add(column)
            gives.add(function)
            continue
        signature = _named(model, found, name, "preprocessing_function_names")
        named = (_column(argument, legal) for argument in signature.inputs)
        takes.update(column for column in named if column is not None)
        gives.update(signature.outputs)
    return Transformation(frozenset(takes), frozenset(gives))


@dataclasses.dataclass(frozen=True)
class _Exported:
    """A signature as a SavedModel declares it."""

    inputs: Mapping[str, TensorInput]
    outputs: frozenset[str]


def _named(
    model: str, found: Mapping[str, _Exported], name: str, field: str
) -> _Exported:
    if name not in found:
        raise DataError(
            f"{model} has no signature '{name}' (it has {quoted(found)})."
            f"{did_you_mean(name, found)} Export it with that signature, or set "
            f"{field} in the ModelSpec."
        )
    return found[name]


def _signatures(model: str, folder: Path) -> dict[str, _Exported]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    if not file.is_file():
        raise DataError(
            f"{model} has no SavedModel at '{folder}'. Let its Trainer write one there."
        )
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise DataError(
            f"'{file}' is damaged: it is no SavedModel message. Run the producer of "
            f"{model} again."
        ) from error
    return {
        name: _Exported(
            {
                argument: TensorInput(
                    tf.as_dtype(tensor.dtype).name,
                    tuple(
                        None if dimension.size < 0 else dimension.size
                        for dimension in tensor.tensor_shape.dim[1:]
                    ),
                )
                for argument, tensor in signature.inputs.items()
            },
            frozenset(signature.outputs),
        )
        for graph in message.meta_graphs
        for name, signature in graph.signature_def.items()
        if not name.startswith("__")
    }


def _column(argument: str, columns: set[str]) -> str | None:
    """Return the column that an argument is; Keras 2 appends `_input` to names."""
    if argument in columns:
        return argument
    short = argument.removesuffix(_KERAS_SUFFIX)
    return short if short in columns else None


def check_types(signature: Signature, schema: pa.Schema) -> None:
    """Check that columns have types that a signature's tensors can hold.

    Raises:
        DataError: If one has not.
    """
    import pyarrow as pa

    for argument, column in signature.columns.items():
        wanted = signature.inputs[argument].dtype
        kind = schema.field(column).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        kinds = pa.types
        is_text = (
            kinds.is_string(kind)
            or kinds.is_large_string(kind)
            or kinds.is_binary(kind)
            or kinds.is_large_binary(kind)
        )
        is_whole = kinds.is_integer(kind) or kinds.is_boolean(kind)
        fits = (
            is_text
            if wanted == "string"
            else is_whole or (wanted.startswith(("float", "bfloat")) and _real(kind))
        )
        if not fits:
            raise DataError(
                f"Signature '{signature.name}' of {signature.model} takes '{argument}' "
                f"as {wanted}, and column '{column}' is {kind}. Export the model with "
                "the type that the data has, or convert the column before ingestion."
            )


def _real(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind))


class Predictor:
    """A loaded model that predicts batch by batch.

    Args:
        signature: How to call it.

    Raises:
        DataError: If the SavedModel cannot be loaded.
    """

    def __init__(self, signature: Signature) -> None:
        import tensorflow as tf

        self._signature = signature
        try:
            # Kept as a whole: the signature alone does not keep its variables alive.
            self._model = tf.saved_model.load(signature.folder)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                f"{signature.model} at '{signature.folder}' cannot be loaded: "
                f"{str(error).splitlines()[0]}. Run its producer again."
            ) from error
        self._call = self._model.signatures[signature.name]

    def predict(self, batch: pa.RecordBatch) -> dict[str, np.ndarray[Any, Any]]:
        """Return what the model says of each row.

        Args:
            batch: Rows in natural form, with every column that the signature takes.

        Returns:
            The outputs by name, the first dimension of each as long as the batch.

        Raises:
            DataError: If a row cannot be given to the model, the model refuses the
                batch, or an output has another number of rows.
        """
        import tensorflow as tf

        signature = self._signature
        try:
            outputs = self._call(**self._arguments(batch))
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                f"Signature '{signature.name}' of {signature.model} does not take "
                f"{batch.num_rows} rows: {str(error).splitlines()[0]}. Call it with "
                "rows of the data in a test of the model."
            ) from error
        arrays = {name: _dense(value) for name, value in outputs.items()}
        for name, array in arrays.items():
            if array.shape[:1] != (batch.num_rows,):
                raise DataError(
                    f"Output '{name}' of signature '{signature.name}' of "
                    f"{signature.model} has the shape {array.shape} for "
                    f"{batch.num_rows} rows. Export the model with one output per row."
                )
        return arrays

    def _arguments(self, batch: pa.RecordBatch) -> dict[str, Any]:
        import tensorflow as tf

        from penstock.components.columns import tfrecord

        signature = self._signature
        if not signature.columns:
            (argument,) = signature.inputs
            return {argument: tf.constant(tfrecord.encode(batch), tf.string)}
        return {
            argument: tf.constant(
                _values(batch, column, signature.inputs[argument], signature),
                tf.as_dtype(signature.inputs[argument].dtype),
            )
            for argument, column in signature.columns.items()
        }


def _dense(value: Any) -> np.ndarray[Any, Any]:
    import numpy as np
    import tensorflow as tf

    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    elif isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    return np.asarray(value)


def _values(
    batch: pa.RecordBatch, column: str, wanted: TensorInput, signature: Signature
) -> np.ndarray[Any, Any]:
    """Return a column as the array that a tensor is made of.

    Raises:
        DataError: If rows have no value, or lists not the length that is wanted.
    """
    import numpy as np
    import pyarrow as pa

    from penstock.components.columns.forms import is_list, list_parts

    array = batch.column(batch.schema.names.index(column))
    per_row = int(np.prod([size or 1 for size in wanted.shape]))
    if is_list(array.type):
        lengths, array, _ = list_parts(array)
        if None not in wanted.shape and (lengths != per_row).any():
            wrong = int(lengths[lengths != per_row][0])
            raise DataError(
                f"Signature '{signature.name}' of {signature.model} takes {per_row} "
                f"values of '{column}' per row, and a row has {wrong}. Export the "
                "model with a signature that takes serialized tf.Examples."
            )
    if array.null_count:
        raise missing_values(signature, column, array.null_count)
    values: np.ndarray[Any, Any]
    if wanted.dtype == "string":
        if pa.types.is_string(array.type):
            array = array.cast(pa.binary())
        elif pa.types.is_large_string(array.type):
            array = array.cast(pa.large_binary())
        values = array.to_numpy(zero_copy_only=False).astype(object)
    else:
        values = array.to_numpy(zero_copy_only=False)
        values = values.astype(_numpy_type(wanted.dtype))
    free = [-1 if size is None else size for size in wanted.shape]
    return values.reshape(batch.num_rows, *free)


def _numpy_type(dtype: str) -> Any:
    import tensorflow as tf

    return tf.as_dtype(dtype).as_numpy_dtype


def missing_values(signature: Signature, column: str, rows: int) -> DataError:
    """Return the error that says that a signature cannot be given missing values."""
    return DataError(
        f"Signature '{signature.name}' of {signature.model} takes '{column}' as a "
        f"dense tensor, and {rows:,} rows have no value. Fill them before ingestion, "
        "or export the model with a signature that takes serialized tf.Examples."
    )
