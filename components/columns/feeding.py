"""Tensors for a signature, made of columns, and what comes out of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.columns.inputs import Inputs
from penstock.components.columns.signatures import Argument, Call
from penstock.schemas.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

Array: TypeAlias = "np.ndarray[Any, Any]"

# How lines of TensorFlow's errors begin that do not say what is wrong.
_FRAME = ("Graph execution error", "Detected at node", "<stack", "File ")


def record_columns(calls: Iterable[Call], schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that tf.Examples for some signatures have.

    Args:
        calls: How the signatures are called; those that take no tf.Examples do not
            count.
        schema: The columns of the data.
    """
    needed: set[str] = set()
    for call in calls:
        if not call.takes_examples:
            continue
        if call.parsed is None:
            return tuple(schema.names)
        needed.update(each.name for each in call.parsed)
    return tuple(name for name in schema.names if name in needed)


def tensors(
    name: str, call: Call, rows: Inputs, records: tuple[str, ...]
) -> dict[str, tf.Tensor]:
    """Return what a signature is called with.

    Args:
        name: What the signature is called in texts.
        call: How it is called.
        rows: With every column that it takes.
        records: The columns of tf.Examples, if it takes these.

    Raises:
        DataError: If a row cannot be given to it.
    """
    found: dict[str, tf.Tensor] = {}
    for argument in call.arguments:
        if argument.form == "examples":
            parts: list[Any] = [rows.records(records)]
        elif argument.form == "dense":
            parts = [_dense_tensor(name, call, argument, rows)]
        else:
            parts = _parts(argument, rows)
        found.update(zip(argument.names, parts, strict=True))
    return found


def _dense_tensor(name: str, call: Call, argument: Argument, rows: Inputs) -> tf.Tensor:
    import tensorflow as tf

    column = argument.column
    lengths, values = rows.lists(column)
    if rows.column(column).null_count or values.null_count:
        raise _missing(name, call, column, rows)
    count, shape = rows.batch.num_rows, [size or -1 for size in argument.shape]
    known = int(np.prod([size or 1 for size in argument.shape]))
    per_row = known
    if None in argument.shape:
        per_row = int(lengths[0]) if count else known
        per_row -= per_row % known
    if (lengths != per_row).any():
        row = int(np.argmax(lengths != per_row))
        raise DataError(
            f"{name} takes {per_row} values of '{column}' per row, and "
            f"{rows.row(row)} has {lengths[row]}. Export the model with a signature "
            "that takes serialized tf.Examples."
        )
    return tf.reshape(rows.values(column, argument.dtype), [count, *shape])


def _missing(name: str, call: Call, column: str, rows: Inputs) -> DataError:
    missing = lacking(column, rows)
    row = rows.row(int(np.argmax(missing)))
    return missing_values(name, call, column, int(missing.sum()), row)


def lacking(column: str, rows: Inputs) -> Array:
    """Return whether each row has no value of a column, or a missing one in a list."""
    lengths, values = rows.lists(column)
    missing: Array = lengths == 0
    if values.null_count:
        unknown = values.is_null().to_numpy(zero_copy_only=False)
        missing[np.repeat(np.arange(len(lengths)), lengths)[unknown]] = True
    return missing


def missing_values(
    name: str, call: Call, column: str, rows: int, first: str = ""
) -> DataError:
    """Return the error that says that a signature cannot be given missing values.

    Args:
        name: What the signature is called in texts.
        call: How it is called.
        column: One that it requires.
        rows: How many rows have no value.
        first: What the first of them is called, if that is known.
    """
    which = f", the first of them {first}" if first else ""
    cure = (
        "give the feature a default_value where the model parses it"
        if call.takes_examples
        else "export the model with a signature that takes serialized tf.Examples"
    )
    return DataError(
        f"{name} takes '{column}' as a dense tensor, and {rows:,} rows have no "
        f"value{which}. Fill them before ingestion, or {cure}."
    )


def _parts(argument: Argument, rows: Inputs) -> list[Any]:
    """Return the tensors that make a sparse or ragged one."""
    import tensorflow as tf

    lengths, _ = rows.lists(argument.column)
    values = rows.values(argument.column, argument.dtype)
    ends = np.cumsum(lengths)
    if argument.form == "ragged":
        splits = np.concatenate([[0], ends])
        return [values, tf.constant(splits, tf.as_dtype(argument.split_dtype))]
    places = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    indices = np.stack([np.repeat(np.arange(len(lengths)), lengths), places], axis=1)
    shape = [len(lengths), int(lengths.max(initial=0))]
    return [tf.constant(indices, tf.int64), values, tf.constant(shape, tf.int64)]


def dense(value: Any) -> Array:
    """Return an output of a signature as an array, padded if it is ragged."""
    import tensorflow as tf

    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    elif isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    if value.dtype == tf.bfloat16:
        value = tf.cast(value, tf.float32)
    return np.asarray(value)


def wrongly_parsed(call: Call, rows: Inputs) -> Iterator[tuple[str, str, str]]:
    """Yield features that are parsed as another type than their columns have.

    As `signatures.wrong_types` takes them.
    """
    for each in call.parsed or ():
        if each.name not in rows.batch.schema.names or not len(
            rows.lists(each.name)[1]
        ):
            continue
        kind = rows.lists(each.name)[1].type
        if each.dtype not in _as_in_examples(kind):
            yield each.name, each.dtype, each.name


def _as_in_examples(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int64"
    return "float32" if pa.types.is_floating(kind) else "string"


def reason(error: BaseException) -> str:
    """Return the line of an error of TensorFlow's that says what is wrong.

    Without the values that an assertion adds: they are those of the data.
    """
    said = (line.strip() for line in str(error).splitlines())
    line = next((each for each in said if each and not each.startswith(_FRAME)), "")
    line = re.sub(r" \[\[?\{\{.*| \[Op:.*| \[[^\]]*= ?\].*", "", line)
    return line.rstrip(". ") or type(error).__name__
