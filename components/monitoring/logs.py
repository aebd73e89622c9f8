"""Inference logs as columns: what was asked, answered, by whom and when.

Three kinds of files are read: TFRecord of `PredictionLog` as the router and TensorFlow
Serving write them, Parquet, and CSV. Whatever the kind, a `LogTable` has the same
columns: the features and scores under their own names, and what is known of every row
under the names that begin with `log_`. Whatever was left out is counted and said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.monitoring.log_format import (
    ID,
    KNOWN,
    LANE,
    PROBABILITY,
    STRATUM,
    TIME,
    VERSION,
    LogFormat,
    LogRules,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    from penstock.components.monitoring.windows import Window

__all__ = [
    "ID",
    "KNOWN",
    "LANE",
    "PROBABILITY",
    "STRATUM",
    "TIME",
    "VERSION",
    "LogFormat",
    "LogRules",
    "LogTable",
    "check_columns",
    "of_table",
    "read_log",
    "read_log_batches",
]

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclasses.dataclass(frozen=True)
class LogTable:
    """Rows of a log, in order of time.

    Attributes:
        subject: What texts call the log.
        table: The columns `KNOWN`, the features, the scores and the label.
        features: Names of the features.
        scores: Names of the columns of what the model answered.
        label: Name of the column of the truth, if the log has it.
        has_ids: Whether `ID` holds ids, rather than places in files.
        window: The window that was asked for; None for all of the log.
        notes: What was left out and what is odd, in sentences.
    """

    subject: str
    table: pa.Table
    features: tuple[str, ...]
    scores: tuple[str, ...]
    label: str | None = None
    has_ids: bool = True
    window: Window | None = None
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.table.num_rows)

    @property
    def ids(self) -> pa.ChunkedArray:
        """The ids, as text."""
        return self.table.column(ID)

    @property
    def times(self) -> Array:
        """The times: float64, seconds since 1970 UTC, shape (rows,)."""
        return self.numbers(TIME)

    @property
    def probabilities(self) -> Array:
        """The probabilities with which rows were kept: float64, shape (rows,)."""
        return self.numbers(PROBABILITY)

    @property
    def weights(self) -> Array:
        """How many requests each row stands for, 1 / probability; shape (rows,)."""
        weights: Array = 1.0 / self.probabilities
        return weights

    @property
    def versions(self) -> Mapping[str, int]:
        """How many rows each version answered; '' for rows that do not say."""
        counts = pc.value_counts(self.table.column(VERSION).fill_null("")).to_pylist()
        return {
            each["values"]: each["counts"]
            for each in sorted(counts, key=lambda each: str(each["values"]))
        }

    def numbers(self, name: str) -> Array:
        """Return a column of numbers as float64, missing as NaN; shape (rows,)."""
        column = self.table.column(name).cast(pa.float64(), safe=False)
        values: Array = column.to_numpy()
        return values

    def only(self, rows: Array) -> LogTable:
        """Return some of the rows.

        Args:
            rows: Booleans of shape (rows,), or row numbers.
        """
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
        return dataclasses.replace(self, table=self.table.take(pa.array(rows)))

    def need_ids(self, what_for: str) -> None:
        """Refuse a log without ids.

        Raises:
            DataError: It has none.
        """
        if not self.has_ids:
            raise DataError(
                f"{self.subject} has no ids, and {what_for}. Log what tells requests "
                "apart, and name its column as LogFormat(id=...)."
            )


def read_log(
    *paths: Path | str,
    window: Window | None = None,
    format: LogFormat = LogFormat(),
    rules: LogRules = LogRules(),
    version: str | int | None = None,
) -> LogTable:
    """Read the rows of a window.

    Args:
        *paths: Files, folders, or patterns with * in names; `{date}` stands for each
            date (UTC) of the window, as in 'logs/{date}/*.parquet'. Of a folder its
            finished request logs, Parquet and CSV files are read.
        window: Rows of these times; None for all.
        format: Which columns mean what.
        rules: What to do with a log that is not as it should be.
        version: Rows that this version answered; None for those of the only one.

    Raises:
        DataError: The log is not as it should be.
    """
    from penstock.components.monitoring.log_reading import whole

    return whole(paths, window, format, rules, version)


def read_log_batches(
    *paths: Path | str,
    window: Window | None = None,
    format: LogFormat = LogFormat(),
    rules: LogRules = LogRules(),
    version: str | int | None = None,
    batch_rows: int = 50_000,
) -> Iterator[LogTable]:
    """Read the rows of a window in batches, for logs larger than memory.

    Rows come in the order of the files, and all batches have the same columns and
    types. Of ids, 64 bits of a hash are remembered: of rows with one id the first that
    comes is the first.

    Args:
        *paths: As of `read_log`.
        window: As of `read_log`.
        format: As of `read_log`.
        rules: As of `read_log`.
        version: As of `read_log`.
        batch_rows: About how many rows a batch has.

    Yields:
        Batches; the notes of the last one say what was left out of all of them.

    Raises:
        DataError: The log is not as it should be.
    """
    from penstock.components.monitoring.log_reading import in_batches

    yield from in_batches(paths, window, format, rules, version, batch_rows)


def of_table(
    table: pa.Table,
    *,
    format: LogFormat = LogFormat(),
    rules: LogRules = LogRules(),
    window: Window | None = None,
    version: str | int | None = None,
    subject: str = "The table",
) -> LogTable:
    """Take a table in memory for a log; as `read_log`.

    Raises:
        DataError: It is not as it should be.
    """
    from penstock.components.monitoring.log_reading import of_tables

    return of_tables([table], window, format, rules, version, subject)


def check_columns(
    names: Sequence[str], has: Sequence[str], subject: str, where: str
) -> None:
    """Check that named columns are there.

    Args:
        names: The names.
        has: The columns that there are.
        subject: What has them.
        where: Who named them.

    Raises:
        DataError: One is not there.
    """
    subject = subject[:1].lower() + subject[1:]
    for name in names:
        if name not in has:
            raise DataError(
                f"{where} names the column '{name}', which {subject} does not have "
                f"(it has {quoted(has)}).{did_you_mean(name, has)}"
            )
