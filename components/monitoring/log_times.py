"""The times of the rows of one file of a log, read as cheaply as its kind allows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from penstock.components.monitoring import prediction_logs
from penstock.components.monitoring.log_files import TableFiles, kind_of, seconds
from penstock.components.monitoring.logs import LogFormat
from penstock.schemas.errors import DataError, did_you_mean, quoted


def file_times(path: Path, format: LogFormat) -> tuple[float, float] | None:
    """Return the first and the last time in a file, in seconds since 1970.

    Args:
        path: A file of a log.
        format: The column of times, of Parquet and CSV.

    Returns:
        None if it has no rows.

    Raises:
        DataError: The file is damaged, or says no times.
    """
    kind = kind_of(path)
    if kind == "PredictionLog":
        return prediction_logs.times(path)
    source = TableFiles([path], kind, format, None)
    if format.time is None or format.time not in source.schema.names:
        names = source.schema.names
        name = f" '{format.time}'" if format.time else ""
        raise DataError(
            f"'{path}' has no column of times{name} (it has {quoted(names)})."
            f"{did_you_mean(format.time or '', names)} Name it as LogFormat(time=...)."
        )
    first, last = math.inf, -math.inf
    for piece in source.pieces([format.time], 50_000):
        if piece.batch.num_rows:
            found = seconds(
                piece.batch.column(0), format.time_unit, f"'{path}'", format.time
            )
            if np.isnan(found).any():
                raise DataError(
                    f"'{path}' has {int(np.isnan(found).sum()):,} rows without a time. "
                    "Log the time of every request."
                )
            first = min(first, float(found.min()))
            last = max(last, float(found.max()))
    return None if first > last else (first, last)
