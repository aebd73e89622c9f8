"""Labels in Parquet and CSV files."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.components.monitoring.log_files import TableFiles, find, seconds
from penstock.components.monitoring.log_format import LogFormat
from penstock.components.monitoring.logs import check_columns
from penstock.schemas.errors import DataError

_BATCH_ROWS = 100_000


@dataclass(frozen=True)
class LabelFile:
    """Labels as `LabelJoin.add_labels` takes them.

    Attributes:
        ids: Of the rows that they are of.
        labels: The labels.
        times: When each became known, in seconds since 1970; None if nothing says it.
        waiting: How many rows had no label yet, and were left out.
    """

    ids: pa.ChunkedArray
    labels: pa.ChunkedArray
    times: np.ndarray[tuple[int], np.dtype[np.float64]] | None
    waiting: int


def read_labels(
    paths: Sequence[Path | str], id: str, label: str, time: str = ""
) -> LabelFile:
    """Read labels.

    Args:
        paths: Parquet or CSV files, folders or patterns of them.
        id: Column of the ids.
        label: Column of the labels; null where none has come yet.
        time: Column of when each became known, as times of a log; empty if there is
            none.

    Raises:
        DataError: A file is no such file, or lacks a column.
    """
    for path in paths:
        if not glob.has_magic(str(path)) and not Path(path).exists():
            raise DataError(f"There is no file of labels '{path}'. Check the path.")
    files, _, kind = find(paths, None)
    subject = "The file of labels " + ", ".join(f"'{each}'" for each in paths)
    if kind == "PredictionLog":
        raise DataError(
            f"{subject} is a request log, which holds no labels. Name the Parquet or "
            "CSV files that they come in."
        )
    names = [id, label, *filter(None, [time])]
    source = TableFiles(files, kind, LogFormat(id=id, time=time or None), None)
    check_columns(names, source.schema.names, subject, "'penstock labels'")
    ids, labels, times, waiting = [], [], [np.zeros(0)], 0
    for piece in source.pieces(names, _BATCH_ROWS):
        came = piece.batch.filter(piece.batch.column(1).is_valid())
        waiting += piece.batch.num_rows - came.num_rows
        ids.append(came.column(0))
        labels.append(came.column(1))
        if time:
            times.append(seconds(came.column(2), "s", f"'{piece.path}'", time))
    fields = [source.schema.field(name).type for name in (id, label)]
    return LabelFile(
        pa.chunked_array(ids, fields[0]),
        pa.chunked_array(labels, fields[1]),
        np.concatenate(times) if time else None,
        waiting,
    )
