"""Parquet files: read by row group, written so that the same rows give the same bytes.

The bytes do not depend on the runner, the threads or the time; they do depend on the
version of pyarrow, which names itself in every file's footer.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Self

from penstock.components.columns.forms import plain_type, to_plain
from penstock.schemas.errors import DataError

ROWS_PER_GROUP = 50_000
"""Rows of a row group that we write, and so of a batch that is read from it."""

_CODEC = "snappy"


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        DataError: If it is not one.
    """
    try:
        state = os.stat(path)
        footer = _footer(str(path), state.st_mtime_ns, state.st_size)
        return pq.ParquetFile(str(path), memory_map=True, metadata=footer)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"'{path}' cannot be read as Parquet: {_first_line(error)} Give the files "
            "that are Parquet by the pattern, or mend this one."
        ) from error


@functools.lru_cache(maxsize=64)
def _footer(path: str, changed: int, size: int) -> pq.FileMetaData:
    """Return a file's footer, read once: a file of many row groups has a long one."""
    del changed, size  # they tell a file from another of its name
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.metadata


def group_rows(path: str | Path) -> list[int]:
    """Return the number of rows of every row group, as the footer says.

    Raises:
        DataError: If the file is not Parquet.
    """
    with open_parquet(path) as file:
        footer = file.metadata
        return [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]


def file_schema(path: str | Path) -> pa.Schema:
    """Return a file's columns, with dictionary encoding taken out.

    Raises:
        DataError: If the file is not Parquet.
    """
    with open_parquet(path) as file:
        return pa.schema(
            [pa.field(each.name, plain_type(each.type)) for each in file.schema_arrow]
        )


def read_group(
    path: str | Path,
    index: int,
    *,
    columns: Sequence[str] | None = None,
    batch_size: int = ROWS_PER_GROUP,
) -> Iterator[pa.RecordBatch]:
    """Read one row group.

    Args:
        path: The file.
        index: Number of the row group, from 0.
        columns: Names of the columns to read, in the order wanted; all if None.
        batch_size: Most rows of a batch.

    Yields:
        Batches in row order, without dictionary encoding.

    Raises:
        DataError: If the file is not Parquet, or the group holds other rows than the
            footer says.
    """
    with open_parquet(path) as file:
        expected = file.metadata.row_group(index).num_rows
        schema = file.schema_arrow
        wanted = list(schema.names if columns is None else columns)
        seen = 0
        if not wanted:
            # A row group without columns still has rows, which batches can say.
            raise DataError(f"'{path}' was asked for no columns. Name at least one.")
        try:
            for batch in file.iter_batches(
                batch_size=batch_size, row_groups=[index], columns=wanted
            ):
                seen += batch.num_rows
                if batch.schema.names != wanted:
                    batch = pa.RecordBatch.from_arrays(
                        [batch.column(name) for name in wanted], names=wanted
                    )
                yield to_plain(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                f"'{path}' cannot be read, row group {index}: {_first_line(error)} It "
                "is damaged; write it again."
            ) from error
    if seen != expected:
        raise DataError(
            f"'{path}' gave {seen} rows in row group {index}, where its footer says "
            f"{expected}. It is damaged; write it again."
        )


class Writer:
    """Writes batches to one Parquet file, in row groups of `ROWS_PER_GROUP` rows.

    Where one batch ends and the next begins leaves no trace in the file.

    Args:
        path: The file to write; its folder exists.
        schema: Columns of every batch.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema.remove_metadata()
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._writer = pq.ParquetWriter(
            str(path),
            self._schema,
            compression=_CODEC,
            version="2.6",
            write_statistics=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch, of any number."""
        if batch.num_rows == 0:
            return
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= ROWS_PER_GROUP:
            self._flush(whole_groups=True)

    def _flush(self, *, whole_groups: bool) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        count = self._waiting_rows
        if whole_groups:
            count -= count % ROWS_PER_GROUP
        for start in range(0, count, ROWS_PER_GROUP):
            group = table.slice(start, min(ROWS_PER_GROUP, count - start))
            self._writer.write_table(
                group.combine_chunks(), row_group_size=ROWS_PER_GROUP
            )
        rest = table.slice(count)
        self._waiting = rest.to_batches() if rest.num_rows else []
        self._waiting_rows = rest.num_rows

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._waiting_rows:
            self._flush(whole_groups=False)
        self._writer.close()


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()[0].strip().rstrip(".")
    return text + "."
