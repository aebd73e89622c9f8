"""Samples of windows as Parquet files, which stay when the raw log is gone."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components.columns import parquet
from penstock.components.monitoring.logs import (
    ID,
    LANE,
    PROBABILITY,
    STRATUM,
    TIME,
    VERSION,
    LogFormat,
    LogTable,
)
from penstock.components.monitoring.profile_files import profile_path
from penstock.components.monitoring.windows import Window
from penstock.schemas.errors import DataError

_KEY = b"penstock"
_FORMAT = "penstock-log-sample"


def sample_path(folder: Path, window: Window) -> Path:
    """Return where the sample of a window is in a folder."""
    return profile_path(folder, window).with_suffix(".parquet")


def write_sample(log: LogTable, folder: Path | str) -> Path:
    """Keep a sample of a window, in place of one that is there.

    Args:
        log: Rows of one window, with the probabilities of `sampling`.
        folder: Made if it is not there.

    Returns:
        Its file, which is on disk.

    Raises:
        DataError: The rows are of no window.
    """
    if log.window is None:
        raise DataError(
            f"{log.subject} was read without a window, and a sample is that of one. "
            "Read it with window=..."
        )
    path = sample_path(Path(folder), log.window)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "format": _FORMAT,
        "version": 1,
        "window": [log.window.start, log.window.end],
        "subject": log.subject,
        "features": log.features,
        "scores": log.scores,
        "label": log.label,
        "has_ids": log.has_ids,
        "notes": log.notes,
    }
    table = log.table.replace_schema_metadata({_KEY: json.dumps(about).encode()})
    tried = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, tried, compression="zstd")
        with open(tried, "rb") as file:
            os.fsync(file.fileno())
        os.replace(tried, path)
    except BaseException:
        tried.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path


def read_sample(path: Path | str) -> LogTable:
    """Read a sample.

    Raises:
        DataError: It is none, or is damaged.
    """
    about, window = _about(Path(path))
    batches = [
        batch
        for index, _ in enumerate(parquet.group_rows(path))
        for batch in parquet.read_group(path, index)
    ]
    schema = parquet.file_schema(path)
    return LogTable(
        about["subject"],
        pa.Table.from_batches(batches, schema),
        tuple(about["features"]),
        tuple(about["scores"]),
        about["label"],
        about["has_ids"],
        window,
        tuple(about["notes"]),
    )


def format_of(files: Sequence[Path], format: LogFormat) -> LogFormat:
    """Return the format of a log, where its files are samples and say it themselves.

    Args:
        files: Parquet files. If one of them is no sample, nothing is said.
        format: What somebody says, which comes first.
    """
    found = []
    for path in files:
        about = _said(path)
        if about.get("format") != _FORMAT:
            return format
        found.append(about)
    has_ids = all(about["has_ids"] for about in found)
    scores = dict.fromkeys(name for about in found for name in about["scores"])
    return dataclasses.replace(
        format,
        id=format.id or (ID if has_ids else None),
        time=format.time or TIME,
        version=format.version or VERSION,
        lane=format.lane or LANE,
        stratum=format.stratum or STRATUM,
        probability=format.probability or PROBABILITY,
        scores=format.scores or tuple(scores),
        label=format.label or found[0]["label"],
        leave_out=format.leave_out if has_ids else (*format.leave_out, ID),
    )


def check_sample(path: Path, window: Window) -> None:
    """Check that a file is the sample of a window.

    Raises:
        DataError: It is not.
    """
    found = _about(path)[1]
    if found != window:
        raise DataError(
            f"'{path}' is the sample of {found.name}, and is named as that of "
            f"{window.name}. Write both again."
        )


def window_of_sample(path: Path) -> Window:
    """Return the window that a sample is of.

    Raises:
        DataError: It is none.
    """
    return _about(path)[1]


def _about(path: Path) -> tuple[dict[str, Any], Window]:
    if not path.exists():
        raise DataError(f"There is no sample '{path}'. Check the path.")
    about = _said(path)
    if about.get("format") != _FORMAT:
        raise DataError(
            f"'{path}' is no sample of a log: it does not say what its columns are. "
            "Pass a file that write_sample wrote."
        )
    return about, Window(*about["window"])


def _said(path: Path) -> dict[str, Any]:
    with parquet.open_parquet(path) as file:
        metadata = file.metadata.metadata or {}
    found = json.loads(metadata.get(_KEY, b"{}"))
    return found if isinstance(found, dict) else {}


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder stay so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
