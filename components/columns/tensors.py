"""Parquet files to tensors, as tfx-bsl gives them for TFRecord files of the same rows.

Rows stay in columns all the way: Arrow reads, checks, shuffles and casts them in row
groups, and TensorFlow cuts batches out of chunks of thousands of rows, in its own
threads. No row is ever a Python object.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.components.columns import parquet
from penstock.components.columns.examples import RowGroup, read_row_group
from penstock.components.columns.forms import is_list, list_parts, to_tfdv_form
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.public.tfxio import RecordBatchesOptions, TensorFlowDatasetOptions

_CHUNK_ROWS = 8192
_READ_AHEAD = 2  # row groups in flight where the options leave the number open


@dataclasses.dataclass(frozen=True)
class Slot:
    """What a tensor, or a batch, takes from one column.

    Attributes:
        key: Its name among the slots.
        column: Name of the column.
        kind: Type of the values: int64, float32 or large_binary; None for whatever
            the column has.
        shape: Shape of a row, for a dense tensor; None for lists of any length.
        default: What a missing row is filled with, for a dense tensor.
    """

    key: str
    column: str
    kind: pa.DataType | None
    shape: tuple[int, ...] | None = None
    default: int | float | bytes | None = None

    @property
    def is_scalar(self) -> bool:
        """Whether every row is one value."""
        return self.shape is not None and math.prod(self.shape) == 1


def record_batches(
    files: Sequence[str],
    schema: schema_pb2.Schema | None,
    options: RecordBatchesOptions,
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """Read Parquet files as batches in the form that tfx-bsl decodes tf.Example to.

    Args:
        files: Paths of Parquet files.
        schema: The features to read, one column each; all columns if None.
        options: Batch size, epochs, shuffling.
        seed: Seeds the shuffling.

    Yields:
        Batches of `options.batch_size` rows, their columns large lists of int64,
        float32 or binary values; a missing value is a missing list.

    Raises:
        DataError: If a file cannot be read, or does not fit the schema.
    """
    if schema is None:
        names = parquet.file_schema(files[0]).names
        slots = [Slot(name, name, None) for name in names]
    else:
        slots = [
            Slot(feature.name, feature.name, _value_type(feature.name, feature.type))
            for feature in schema.feature
        ]
    passes = itertools.count()
    for table in _buffers(files, slots, options, seed, passes, options.batch_size):
        for start in range(0, table.num_rows, options.batch_size):
            batch = table.slice(start, options.batch_size).combine_chunks()
            yield from batch.to_batches()


def tensor_dataset(
    files: Sequence[str],
    schema: schema_pb2.Schema,
    options: TensorFlowDatasetOptions,
    seed: int,
    on_error: Callable[[DataError], None],
) -> tf.data.Dataset:
    """Read Parquet files as batches of tensors.

    Args:
        files: Paths of Parquet files.
        schema: Says which features there are, and the kind and shape of each tensor.
        options: As for tfx-bsl's `TensorFlowDataset`; all of them count. Shuffling
            is in buffers of `shuffle_buffer_size` rows, rounded up to whole row
            groups, which come in an order of their own in every epoch.
        seed: Seeds the shuffling.
        on_error: Called with what went wrong while reading; TensorFlow passes on the
            text of an error, but neither its type nor its cause.

    Returns:
        Elements are dicts of feature name to tensor, or pairs of such a dict and the
        label; dtypes are int64, float32 and string. The first dimension is the batch.

    Raises:
        DataError: If the schema has a feature that cannot be a tensor, or no label.
    """
    import tensorflow as tf

    representations = _representations(schema)
    label = options.label_key
    if label is not None and label not in representations:
        raise DataError(
            f"Label '{label}' is not a feature of the schema (it has "
            f"{quoted(representations)}).{did_you_mean(label, representations)}"
        )
    slots_of = {
        name: _slots(name, representation, schema)
        for name, representation in representations.items()
    }
    slots = [slot for some in slots_of.values() for slot in some]
    size = options.batch_size
    whole = max(1, _CHUNK_ROWS // size) * size
    passes = itertools.count()

    def chunks() -> Iterator[dict[str, Any]]:
        try:
            for table in _buffers(files, slots, options, seed, passes, size):
                for start in range(0, table.num_rows, whole):
                    yield _chunk(table.slice(start, whole), slots)
        except DataError as error:
            on_error(error)
            raise

    # There is no Python control flow to convert, and looking for it takes seconds.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def batches(chunk: dict[str, Any]) -> tf.data.Dataset:
        starts = tf.data.Dataset.range(0, chunk["rows"], size)
        return starts.map(
            lambda start: _batch(chunk, start), num_parallel_calls=parsers
        )

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def _batch(chunk: dict[str, Any], start: Any) -> Any:
        stop = tf.minimum(start + size, chunk["rows"])
        count = size if _drops_final_batch(options) else None
        tensors = {
            name: _tensor(
                representations[name],
                [_cut(chunk, slot, start, stop, count) for slot in some],
            )
            for name, some in slots_of.items()
        }
        return tensors if label is None else (tensors, tensors.pop(label))

    parsers = options.parser_num_threads
    dataset = tf.data.Dataset.from_generator(chunks, output_signature=_signature(slots))
    dataset = dataset.flat_map(batches)
    settings = tf.data.Options()
    settings.deterministic = not options.sloppy_ordering
    return dataset.with_options(settings).prefetch(options.prefetch_buffer_size)


def _drops_final_batch(options: TensorFlowDatasetOptions) -> bool:
    # Without an end there is no final batch: tfx-bsl then gives the batch dimension
    # its size, and so do we.
    return bool(options.drop_final_batch or options.num_epochs is None)


# Reading: row groups -> checked columns -> shuffled buffers of whole batches.


def _buffers(
    files: Sequence[str],
    slots: Sequence[Slot],
    options: TensorFlowDatasetOptions | RecordBatchesOptions,
    seed: int,
    passes: Iterator[int],
    batch_size: int,
) -> Iterator[pa.Table]:
    """Yield tables of whole batches, all but the last; epochs run into one another."""
    groups = [
        RowGroup(path, number, index, rows)
        for number, path in enumerate(files)
        for index, rows in enumerate(parquet.group_rows(path))
        if rows
    ]
    if not groups:
        return
    least = options.shuffle_buffer_size if options.shuffle else 1
    threads = getattr(options, "reader_num_threads", -1)
    rest: list[pa.Table] = []
    for _ in _epochs(options.num_epochs):
        order: Sequence[int] = range(len(groups))
        generator = np.random.default_rng([seed % 2**64, next(passes)])
        if options.shuffle:
            order = generator.permutation(len(groups)).tolist()
        waiting: list[pa.Table] = []
        ordered = [groups[place] for place in order]
        for place, table in enumerate(_tables(ordered, slots, threads)):
            waiting.append(table)
            last = place == len(ordered) - 1
            if not last and sum(each.num_rows for each in waiting) < least:
                continue
            buffer = pa.concat_tables(waiting)
            waiting = []
            if options.shuffle:
                buffer = buffer.take(pa.array(generator.permutation(buffer.num_rows)))
            buffer = pa.concat_tables([*rest, buffer])
            whole = buffer.num_rows - buffer.num_rows % batch_size
            if whole:
                yield buffer.slice(0, whole)
            rest = [buffer.slice(whole)]
    if rest and rest[0].num_rows and not options.drop_final_batch:
        yield rest[0]


def _epochs(count: int | None) -> Iterator[int]:
    return itertools.count() if count is None or count < 0 else iter(range(count))


def _tables(
    groups: Sequence[RowGroup], slots: Sequence[Slot], threads: int
) -> Iterator[pa.Table]:
    """Read row groups ahead in threads; give them in order."""
    ahead = threads if threads > 0 else _READ_AHEAD
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        reading: deque[Any] = deque()
        try:
            for group in groups:
                reading.append(pool.submit(_read, group, slots))
                if len(reading) > ahead:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()
        finally:
            for future in reading:
                future.cancel()


def _read(group: RowGroup, slots: Sequence[Slot]) -> pa.Table:
    present = set(parquet.file_schema(group.path).names)
    columns = list(dict.fromkeys(slot.column for slot in slots))
    columns = [name for name in columns if name in present]
    if not columns:
        raise DataError(
            f"'{group.path}' has none of the features of the schema (it has "
            f"{quoted(present)}). Use the schema of these Examples."
        )
    batches = []
    before = 0
    for batch in read_row_group(group, columns=columns):
        listed = to_tfdv_form(batch)
        arrays = [_filled(slot, listed, group, before) for slot in slots]
        batches.append(
            pa.RecordBatch.from_arrays(arrays, names=[slot.key for slot in slots])
        )
        before += batch.num_rows
    return pa.Table.from_batches(batches)


def _filled(
    slot: Slot, batch: pa.RecordBatch, group: RowGroup, before: int
) -> pa.Array:
    """Return a column as its slot takes it: values for a scalar, lists otherwise."""
    lengths, values, valid = _parts(slot, batch, group, before)
    if slot.shape is None:
        return _large_list(lengths, values, valid)
    size = math.prod(slot.shape)
    filled = np.zeros(len(lengths), bool)
    if slot.default is not None and valid is not None:
        filled = ~valid
    wrong = (lengths != size) & ~filled
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _wrong_length(slot, size, int(lengths[row]), group, before + row)
    if filled.any():
        take = np.full((len(lengths), size), -1)
        take[~filled] = np.arange(len(values)).reshape(-1, size)
        flat = take.ravel()
        values = values.take(pa.array(flat, mask=flat < 0))
        values = values.fill_null(pa.scalar(slot.default, values.type))
        lengths = np.full(len(lengths), size)
    return values if slot.is_scalar else _large_list(lengths, values, None)


def _parts(
    slot: Slot, batch: pa.RecordBatch, group: RowGroup, before: int
) -> tuple[np.ndarray[Any, Any], pa.Array, np.ndarray[Any, Any] | None]:
    """Return lengths, flat values and valid rows of a column, cast to its slot."""
    index = batch.schema.get_field_index(slot.column)
    rows = batch.num_rows
    column = pa.nulls(rows) if index < 0 else batch.column(index)
    if pa.types.is_null(column.type):
        if index < 0 and slot.shape is not None and slot.default is None:
            raise DataError(
                f"'{group.path}' has no column '{slot.column}', though the schema says "
                "that every row has a value of it. Ingest it, or take the feature out "
                "of the schema."
            )
        nothing = pa.nulls(0, slot.kind or pa.large_binary())
        return np.zeros(rows, np.int64), nothing, np.zeros(rows, bool)
    if not is_list(column.type):
        raise _no_tensor(slot.column, column.type)
    lengths, values, valid = list_parts(column)
    if values.null_count:
        parents = np.repeat(np.arange(rows), lengths)
        row = int(parents[int(np.argmax(np.asarray(values.is_null())))])
        raise DataError(
            f"'{group.path}', row group {group.index}, row {before + row + 1}: the "
            f"list in column '{slot.column}' has a missing value, which a tensor "
            "cannot. Fill it or leave it out when the data are made."
        )
    return lengths, _cast(slot, values, group), valid


def _cast(slot: Slot, values: pa.Array, group: RowGroup) -> pa.Array:
    kinds = pa.types
    kind = values.type
    wanted = slot.kind
    if kinds.is_null(kind):
        return pa.nulls(len(values), wanted or pa.large_binary())
    if wanted is None:
        if is_list(kind) or kinds.is_struct(kind):
            raise _no_tensor(slot.column, kind)
        if kinds.is_integer(kind):
            wanted = pa.int64()
        else:
            floating = kinds.is_floating(kind)
            wanted = pa.float32() if floating else pa.large_binary()
    fits = {
        pa.int64(): kinds.is_integer,
        pa.float32(): kinds.is_floating,
        pa.large_binary(): lambda kind: (
            kinds.is_binary(kind) or kinds.is_large_binary(kind)
        ),
    }[wanted]
    if not fits(kind):
        if is_list(kind) or kinds.is_struct(kind):
            raise _no_tensor(slot.column, kind)
        names = {pa.int64(): "INT", pa.float32(): "FLOAT", pa.large_binary(): "BYTES"}
        raise DataError(
            f"Column '{slot.column}' of '{group.path}' has type {kind}, where the "
            f"schema says {names[wanted]}. Change the type in the schema, or ingest "
            "the column with the type that the schema says."
        )
    try:
        # float64 to float32 as tf.Example has it; integers must fit.
        return values.cast(wanted, safe=not kinds.is_floating(kind))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Column '{slot.column}' of '{group.path}' holds an integer above "
            "2**63 - 1, the largest that a tensor of a schema can hold. Ingest it as "
            "text."
        ) from error


def _large_list(
    lengths: np.ndarray[Any, Any],
    values: pa.Array,
    valid: np.ndarray[Any, Any] | None,
) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    mask = None if valid is None else np.append(~valid, False)
    return pa.LargeListArray.from_arrays(pa.array(offsets, mask=mask), values)


def _wrong_length(
    slot: Slot, size: int, length: int, group: RowGroup, row: int
) -> DataError:
    has = "no value" if length == 0 else f"{length} values"
    wants = "one value" if size == 1 else f"{size} values"
    return DataError(
        f"'{group.path}', row group {group.index}, row {row + 1}: feature "
        f"'{slot.column}' has {has}, where the schema says that every row has {wants}. "
        "Mend the data, or leave the feature's shape out of the schema."
    )


def _no_tensor(name: str, kind: pa.DataType) -> DataError:
    return DataError(
        f"Column '{name}' has type {kind}, which cannot become a tensor: features are "
        "values or lists of values. Take it out of the schema, or ingest its parts as "
        "columns of their own."
    )


# Tensors: chunks of thousands of rows, cut into batches inside TensorFlow.


def _chunk(table: pa.Table, slots: Sequence[Slot]) -> dict[str, Any]:
    """Return a table as the arrays that `_signature` describes."""
    chunk: dict[str, Any] = {"rows": np.int64(table.num_rows)}
    for slot in slots:
        column = table.column(slot.key).combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # as newer Arrows give it
            column = pa.concat_arrays(column.chunks)
        if slot.shape is None:
            lengths, values, _ = list_parts(column)
            splits = np.zeros(len(lengths) + 1, np.int64)
            np.cumsum(lengths, out=splits[1:])
            chunk[slot.key] = _numpy(values)
            chunk[f"{slot.key} splits"] = splits
        else:
            flat = column if slot.is_scalar else column.flatten()
            chunk[slot.key] = _numpy(flat).reshape(table.num_rows, *slot.shape)
    return chunk


def _numpy(values: pa.Array) -> np.ndarray[Any, Any]:
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _signature(slots: Sequence[Slot]) -> dict[str, tf.TensorSpec]:
    import tensorflow as tf

    dtypes = {
        pa.int64(): tf.int64,
        pa.float32(): tf.float32,
        pa.large_binary(): tf.string,
    }
    signature = {"rows": tf.TensorSpec([], tf.int64)}
    for slot in slots:
        shape = [None] if slot.shape is None else [None, *slot.shape]
        signature[slot.key] = tf.TensorSpec(shape, dtypes[slot.kind])
        if slot.shape is None:
            signature[f"{slot.key} splits"] = tf.TensorSpec([None], tf.int64)
    return signature


def _cut(
    chunk: Mapping[str, Any], slot: Slot, start: Any, stop: Any, count: int | None
) -> Any:
    """Return rows of a chunk: a dense tensor, or the pair of values and row splits."""
    import tensorflow as tf

    if slot.shape is not None:
        return tf.ensure_shape(chunk[slot.key][start:stop], [count, *slot.shape])
    splits = chunk[f"{slot.key} splits"][start : stop + 1]
    values = chunk[slot.key][splits[0] : splits[-1]]
    return values, tf.ensure_shape(
        splits - splits[0], [None if count is None else count + 1]
    )


def _tensor(representation: Any, parts: Sequence[Any]) -> Any:
    """Return the tensor of a representation, as `tf.io.parse_example` makes it."""
    import tensorflow as tf

    kind = representation.WhichOneof("kind")
    if kind == "dense_tensor":
        return parts[0]
    ragged = [
        tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        for values, splits in parts
    ]
    if kind == "varlen_sparse_tensor":
        return ragged[0].to_sparse()
    if kind == "sparse_tensor":
        return _merged(representation.sparse_tensor, ragged)
    return _partitioned(representation.ragged_tensor, ragged)


def _merged(sparse: Any, ragged: Sequence[Any]) -> Any:
    import tensorflow as tf

    *indices, values = ragged
    sizes = [dim.size for dim in sparse.dense_shape.dim]
    columns = [values.value_rowids(), *(index.values for index in indices)]
    merged = tf.SparseTensor(
        tf.stack(columns, axis=1),
        values.values,
        tf.concat([[values.nrows()], tf.constant(sizes, tf.int64)], axis=0),
    )
    if not sparse.already_sorted:
        merged = tf.sparse.reorder(merged)
    return merged


def _partitioned(representation: Any, ragged: Sequence[Any]) -> Any:
    import tensorflow as tf
    from tensorflow_metadata.proto.v0 import schema_pb2

    int32 = schema_pb2.TensorRepresentation.RowPartitionDType.INT32
    dtype = tf.int32 if representation.row_partition_dtype == int32 else tf.int64
    values, *lengths = (each.with_row_splits_dtype(dtype) for each in ragged)
    remaining = iter(lengths)
    # From the innermost partition outwards, each one parts the rows of the last.
    for partition in reversed(representation.partition):
        if partition.HasField("uniform_row_length"):
            length = partition.uniform_row_length
            inner = values.values
            parted: Any
            if isinstance(inner, tf.RaggedTensor):
                parted = tf.RaggedTensor.from_uniform_row_length(inner, length)
            else:
                shape = tf.concat([[-1, length], tf.shape(inner)[1:]], axis=0)
                parted = tf.reshape(inner, shape)
            values = tf.RaggedTensor.from_row_splits(
                parted, values.row_splits // tf.cast(length, dtype)
            )
        else:
            row = next(remaining)
            values = row.with_values(
                tf.RaggedTensor.from_row_lengths(
                    values.values, tf.cast(row.values, dtype)
                )
            )
    return values


# What the schema says.


def _representations(schema: schema_pb2.Schema) -> dict[str, Any]:
    """Return how each tensor is made, by its name, as tfx-bsl infers it."""
    from tfx_bsl.public import tfxio

    reader = tfxio.TFExampleRecord("unused", schema=schema, telemetry_descriptors=[])
    try:
        found: dict[str, Any] = reader.TensorRepresentations()
    except (ValueError, NotImplementedError) as error:
        raise DataError(
            f"The schema cannot say tensors: {error} Mend the schema."
        ) from error
    return found


def _slots(name: str, representation: Any, schema: schema_pb2.Schema) -> list[Slot]:
    """Return what a tensor takes from columns, its values last or first (ragged)."""
    types = {feature.name: feature.type for feature in schema.feature}

    def slot(number: int, column: str, **more: Any) -> Slot:
        if column not in types:
            raise DataError(
                f"Tensor '{name}' of the schema is made of feature '{column}', which "
                f"the schema does not have.{did_you_mean(column, types)}"
            )
        kind = _value_type(column, types[column])
        return Slot(f"{name}/{number}", column, kind, **more)

    kind = representation.WhichOneof("kind")
    if kind == "dense_tensor":
        dense = representation.dense_tensor
        default = None
        if dense.HasField("default_value"):
            which = dense.default_value.WhichOneof("kind")
            default = getattr(dense.default_value, which)
        shape = tuple(dim.size for dim in dense.shape.dim)
        return [slot(0, dense.column_name, shape=shape, default=default)]
    if kind == "varlen_sparse_tensor":
        return [slot(0, representation.varlen_sparse_tensor.column_name)]
    if kind == "sparse_tensor":
        sparse = representation.sparse_tensor
        columns = [*sparse.index_column_names, sparse.value_column_name]
        return [slot(number, column) for number, column in enumerate(columns)]
    ragged = representation.ragged_tensor
    if len(ragged.feature_path.step) != 1:
        path = ".".join(ragged.feature_path.step)
        raise DataError(
            f"Tensor '{name}' of the schema lies inside a struct ('{path}'), which "
            "cannot be read as a tensor. Take it out of the schema, or ingest it as a "
            "column of its own."
        )
    columns = [ragged.feature_path.step[0]]
    columns += [
        partition.row_length
        for partition in reversed(ragged.partition)
        if partition.HasField("row_length")
    ]
    return [slot(number, column) for number, column in enumerate(columns)]


def _value_type(name: str, kind: int) -> pa.DataType:
    from tensorflow_metadata.proto.v0 import schema_pb2

    types = {
        schema_pb2.INT: pa.int64(),
        schema_pb2.FLOAT: pa.float32(),
        schema_pb2.BYTES: pa.large_binary(),
    }
    if kind not in types:
        raise DataError(
            f"Feature '{name}' of the schema has type "
            f"{schema_pb2.FeatureType.Name(kind)}, which cannot be read as values: "
            "that can INT, FLOAT and BYTES. Change its type, or take it out."
        )
    return types[kind]
