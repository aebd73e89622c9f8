"""Reading `Examples` artifacts: how every component gets its rows, whatever the files.

Batches are in natural form: a column is a value, a list of values or a struct; null is
missing. `forms.to_tfdv_form` makes of a batch what TFDV and tfx-bsl expect.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from penstock.components.columns import parquet, tfrecord
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError, did_you_mean, quoted

BATCH_ROWS = parquet.ROWS_PER_GROUP
ROWS_PER_PORTION = 250_000
MOST_PORTIONS = 64


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """A handle of rows that are read together: small, and fit for a Beam graph.

    Attributes:
        path: The file.
        file: Number of the file in its split, from 0.
        index: Number of the row group in the file, from 0. A TFRecord file is one
            row group.
        rows: How many rows it holds.
        payload_format: FORMAT_PARQUET, FORMAT_TF_EXAMPLE, ...
        schema: Columns and types, for a file that does not say them itself.
    """

    path: str
    file: int
    index: int
    rows: int
    payload_format: str = "FORMAT_PARQUET"
    schema: pa.Schema | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Place among the row groups of the split; merge results in this order."""
        return self.file, self.index


def is_parquet(examples: Examples, split: str) -> bool:
    """Return whether the files of a split are Parquet, by their first bytes."""
    with open(examples.files(split)[0], "rb") as file:
        return file.read(4) == b"PAR1"


def row_groups(examples: Examples, split: str) -> list[RowGroup]:
    """Return handles of all the rows of a split, in order.

    Args:
        examples: The artifact to read.
        split: Name of the split.

    Raises:
        DataError: If there is no such split, or a file of it cannot be read.
    """
    files = examples.files(split)
    if is_parquet(examples, split):
        return [
            RowGroup(str(path), number, index, rows)
            for number, path in enumerate(files)
            for index, rows in enumerate(parquet.group_rows(path))
        ]
    schema = schema_of(examples)
    return [
        RowGroup(
            str(path),
            number,
            0,
            tfrecord.count_records(path),
            examples.payload_format,
            schema,
        )
        for number, path in enumerate(files)
    ]


def read_row_group(
    group: RowGroup,
    *,
    columns: Sequence[str] | None = None,
    batch_size: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Read the rows of a handle; their number is proven against the handle's.

    Args:
        group: One of `row_groups`.
        columns: Names of the columns to read, in the order wanted; all if None.
        batch_size: Most rows of a batch.

    Yields:
        Batches in row order, in natural form.

    Raises:
        DataError: If the file is damaged, has other rows than the handle says, or
            lacks a column.
    """
    if group.schema is None:
        if columns is not None:
            _check_columns(columns, parquet.file_schema(group.path), group.path)
        batches = parquet.read_group(
            group.path, group.index, columns=columns, batch_size=batch_size
        )
    else:
        schema = group.schema
        if columns is not None:
            _check_columns(columns, schema, group.path)
            schema = pa.schema([schema.field(name) for name in columns])
        batches = _read_tfrecord(group, schema, batch_size)
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        yield batch
    if rows != group.rows:
        raise DataError(
            f"'{group.path}' gave {rows} rows where {group.rows} were counted. It was "
            "changed while it was read; run again."
        )


def _read_tfrecord(
    group: RowGroup, schema: pa.Schema, batch_size: int
) -> Iterator[pa.RecordBatch]:
    decoder = tfrecord.Decoder(group.payload_format)
    for records in tfrecord.read_records(group.path, batch_size=batch_size):
        decoded = decoder.decode(records, f"'{group.path}'")
        yield tfrecord.to_natural(decoded, schema)


def read_batches(
    examples: Examples,
    split: str,
    *,
    columns: Sequence[str] | None = None,
    batch_size: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Read the rows of a split, file after file.

    Args:
        examples: The artifact to read.
        split: Name of the split.
        columns: Names of the columns to read, in the order wanted; all if None.
        batch_size: Most rows of a batch. Batches end where row groups end, so they
            can be smaller.

    Yields:
        Batches in row order, in natural form, all of one schema.

    Raises:
        DataError: If there is no such split or column, or a file cannot be read.
    """
    if columns is not None:
        _check_columns(columns, schema_of(examples), examples.uri)
    for group in row_groups(examples, split):
        yield from read_row_group(group, columns=columns, batch_size=batch_size)


def portions(groups: Sequence[RowGroup]) -> list[tuple[RowGroup, ...]]:
    """Divide row groups into portions that are worked on one after another.

    Where they begin depends on files and row groups only, never on the runner, so that
    what is merged in their order is the same to the last bit wherever it is computed.
    There are at most `MOST_PORTIONS`, so that what is merged takes the same memory
    however many rows there are.

    Args:
        groups: The row groups of a split, in order.
    """
    total = sum(group.rows for group in groups)
    size = max(ROWS_PER_PORTION, -(-total // MOST_PORTIONS))
    found: list[tuple[RowGroup, ...]] = []
    pending: list[RowGroup] = []
    rows = 0
    for group in groups:
        pending.append(group)
        rows += group.rows
        if rows >= size:
            found.append(tuple(pending))
            pending, rows = [], 0
    return [*found, tuple(pending)] if pending else found


def count_rows(examples: Examples, split: str) -> int:
    """Return the number of rows of a split, from Parquet footers or TFRecord framing.

    Raises:
        DataError: If there is no such split, or a file of it cannot be read.
    """
    count = (
        (lambda path: sum(parquet.group_rows(path)))
        if is_parquet(examples, split)
        else tfrecord.count_records
    )
    return sum(count(path) for path in examples.files(split))


def schema_of(examples: Examples) -> pa.Schema:
    """Return the columns that every split has, and their types in natural form.

    Parquet files say them; TFRecord files are read through, once per process: a
    column in which every row has at most one value is a column of values.

    Raises:
        DataError: If a file cannot be read, or files disagree about a column.
    """
    if is_parquet(examples, examples.split_names[0]):
        return parquet.file_schema(examples.files(examples.split_names[0])[0])
    states = tuple(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for split in examples.split_names
        for path in examples.files(split)
    )
    return _scanned_schema(states, examples.payload_format)


@functools.lru_cache(maxsize=64)
def _scanned_schema(
    states: tuple[tuple[str, int, int], ...], payload_format: str
) -> pa.Schema:
    decoder = tfrecord.Decoder(payload_format)
    shape = tfrecord.Shape()
    for path, _, _ in states:
        for records in tfrecord.read_records(path, batch_size=BATCH_ROWS):
            shape.add(decoder.decode(records, f"'{path}'"), f"'{path}'")
    return shape.schema()


def _check_columns(
    columns: Sequence[str], schema: pa.Schema, subject: str | Path
) -> None:
    for name in columns:
        if name not in schema.names:
            raise DataError(
                f"Column '{name}' is not in '{subject}' (it has "
                f"{quoted(schema.names)}).{did_you_mean(name, schema.names)}"
            )
