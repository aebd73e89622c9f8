"""TFRecord files of tf.Example and SequenceExample: framing, and batches of columns."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
from typing_extensions import Self

from penstock.components.columns import tf_example
from penstock.components.columns.forms import fields_of, is_list, list_parts
from penstock.schemas.errors import DataError

SEQUENCE_COLUMN = "##SEQUENCE##"
"""The struct column that holds the sequence features of a SequenceExample."""

TF_EXAMPLE = "FORMAT_TF_EXAMPLE"
TF_SEQUENCE_EXAMPLE = "FORMAT_TF_SEQUENCE_EXAMPLE"

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = 12  # the length, 8 bytes, and its checksum
_FOOTER_BYTES = 4  # the checksum of the data


def is_gzip(path: str | Path) -> bool:
    """Return whether a file begins as gzip files do."""
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def is_tfrecord(path: str | Path) -> bool:
    """Return whether a file begins as TFRecord files do, with a length below 4 GiB."""
    try:
        with _opened(path) as file:
            header = file.read(_HEADER_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return len(header) == _HEADER_BYTES and header[4:8] == bytes(4)


def count_records(path: str | Path) -> int:
    """Return the number of records, from the framing alone.

    Raises:
        DataError: If a record is cut off.
    """
    count = 0
    with _opened(path) as file:
        try:
            while header := file.read(_HEADER_BYTES):
                if len(header) < _HEADER_BYTES:
                    raise _cut_off(path, count)
                size = struct.unpack_from("<Q", header)[0] + _FOOTER_BYTES
                left = size
                while left:
                    part = file.read(min(left, 1 << 24))
                    if not part:
                        raise _cut_off(path, count)
                    left -= len(part)
                count += 1
        except (EOFError, OSError) as error:
            raise _cut_off(path, count) from error
    return count


def _opened(path: str | Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if is_gzip(path) else open(path, "rb")


def _cut_off(path: str | Path, count: int) -> DataError:
    return DataError(
        f"'{path}', record {count + 1}: the file ends, or is damaged, inside the "
        "record. It is no whole TFRecord file; write it again."
    )


def read_records(path: str | Path, *, batch_size: int) -> Iterator[list[bytes]]:
    """Read the records of a TFRecord file, gzip or not, checking every checksum.

    Args:
        path: The file.
        batch_size: Most records of a list.

    Yields:
        The bytes of the records, in order.

    Raises:
        DataError: If a checksum is wrong or a record is cut off.
    """
    import tensorflow as tf

    compression = "GZIP" if is_gzip(path) else ""
    count = 0
    dataset = tf.data.TFRecordDataset(str(path), compression_type=compression)
    try:
        for records in dataset.batch(batch_size).as_numpy_iterator():
            count += len(records)
            yield records.tolist()
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise DataError(
            f"'{path}', after record {count}: {str(error.message).split(' [', 1)[0]}. "
            "It is no whole TFRecord file; write it again."
        ) from error


class Writer:
    """Writes records to one TFRecord file, compressed with gzip.

    Args:
        path: The file to write; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self.rows = 0
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=6)
        self._writer = tf.io.TFRecordWriter(str(path), options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, records: Iterable[bytes]) -> None:
        """Add records, byte for byte."""
        for record in records:
            self._writer.write(record)
            self.rows += 1

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def encode(batch: pa.RecordBatch) -> list[bytes]:
    """Return one serialized tf.Example per row, as `tf_example.encode` makes them.

    Raises:
        DataError: If tf.Example cannot say a value.
    """
    records: list[bytes] = tf_example.encode(batch).tolist()
    return records


class Decoder:
    """Turns serialized records into batches, without a schema.

    Args:
        payload_format: FORMAT_TF_EXAMPLE or FORMAT_TF_SEQUENCE_EXAMPLE.

    Raises:
        DataError: If records of that format cannot be read as columns.
    """

    def __init__(self, payload_format: str) -> None:
        from tfx_bsl.coders import example_coder, sequence_example_coder

        if payload_format == TF_EXAMPLE:
            self._decoder: Any = example_coder.ExamplesToRecordBatchDecoder()
        elif payload_format == TF_SEQUENCE_EXAMPLE:
            self._decoder = sequence_example_coder.SequenceExamplesToRecordBatchDecoder(
                SEQUENCE_COLUMN
            )
        else:
            raise DataError(
                f"Records of payload format '{payload_format}' cannot be read as "
                f"columns, only '{TF_EXAMPLE}' and '{TF_SEQUENCE_EXAMPLE}' can. "
                "Convert them first."
            )

    def decode(self, records: list[bytes], subject: str) -> pa.RecordBatch:
        """Return the records as a batch of list columns.

        Args:
            records: Serialized records.
            subject: Where they come from, for the text of an error.

        Returns:
            One row per record. Columns are those that these records have; a feature
            without a kind is missing.

        Raises:
            DataError: If a record is something else.
        """
        try:
            batch = self._decoder.DecodeBatch(records)
        except RuntimeError as error:
            raise DataError(
                f"{subject} holds records that are not what payload_format says: "
                f"{error} Pass the payload_format of these files."
            ) from error
        if batch.num_rows != len(records):
            raise DataError(
                f"{subject} gave {batch.num_rows} rows for {len(records)} records, "
                "which have no feature at all. Ingest records that have features."
            )
        return batch


class Shape:
    """Finds the natural type of every column over all the batches of some records.

    A column in which every list that is there has exactly one value is a column of
    values; bytes that are valid UTF-8 throughout are text.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, pa.DataType] = {}
        self._single: dict[str, bool] = {}
        self._text: dict[str, bool] = {}

    def add(self, batch: pa.RecordBatch, subject: str) -> None:
        """Take in a batch as `Decoder.decode` gives it.

        Raises:
            DataError: If a column has another type than before.
        """
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            kind = column.type
            if pa.types.is_null(kind):
                self._kinds.setdefault(name, kind)
                continue
            before = self._kinds.get(name, pa.null())
            if pa.types.is_struct(kind) and pa.types.is_struct(before):
                kind = _united(before, kind)
            elif not pa.types.is_null(before) and not before.equals(kind):
                raise DataError(
                    f"{subject}: feature '{name}' is {kind.value_type} where it was "
                    f"{before.value_type} before. Write it with one type."
                )
            self._kinds[name] = kind
            if not is_list(kind):
                continue
            lengths, values, valid = list_parts(column)
            ones = lengths == 1 if valid is None else (lengths == 1) | ~valid
            self._single[name] = self._single.get(name, True) and bool(np.all(ones))
            if pa.types.is_large_binary(kind.value_type) and self._text.get(name, True):
                self._text[name] = _is_text(values)

    def schema(self) -> pa.Schema:
        """Return the natural type of every column, in the order of their names."""
        fields = []
        for name in sorted(self._kinds):
            kind = self._kinds[name]
            if is_list(kind):
                value = kind.value_type
                if pa.types.is_large_binary(value):
                    value = pa.string() if self._text[name] else pa.binary()
                kind = value if self._single[name] else pa.list_(value)
            fields.append(pa.field(name, kind))
        return pa.schema(fields)


def _united(before: pa.DataType, now: pa.DataType) -> pa.DataType:
    kinds = {
        each.name: each.type for each in (before[i] for i in range(before.num_fields))
    }
    for each in (now[i] for i in range(now.num_fields)):
        if pa.types.is_null(kinds.get(each.name, pa.null())):
            kinds[each.name] = each.type
    return pa.struct([pa.field(name, kinds[name]) for name in sorted(kinds)])


def _is_text(values: pa.Array) -> bool:
    try:
        values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def to_natural(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a decoded batch with the columns and types of a schema from `Shape`.

    Args:
        batch: As `Decoder.decode` gives it.
        schema: Columns wanted; those that the batch lacks are null.
    """
    arrays = []
    for each in schema:
        index = batch.schema.get_field_index(each.name)
        column = pa.nulls(batch.num_rows) if index < 0 else batch.column(index)
        arrays.append(_natural(column, each.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _natural(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if column.type.equals(kind):
        return column
    if pa.types.is_struct(kind):
        names = [each.name for each in fields_of(column.type)]
        children = dict(zip(names, column.flatten(), strict=True))
        nothing = pa.nulls(len(column))
        return pa.StructArray.from_arrays(
            [
                _natural(children.get(each.name, nothing), each.type)
                for each in fields_of(kind)
            ],
            fields=fields_of(kind),
        )
    if is_list(kind):
        return column.cast(pa.list_(column.type.value_type)).cast(kind)
    lengths, values, valid = list_parts(column)
    if valid is not None:
        rows = np.cumsum(lengths) - 1
        values = values.take(pa.array(rows, mask=~valid))
    return values.cast(kind)
