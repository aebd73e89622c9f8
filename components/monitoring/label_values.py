"""Ids and labels between Arrow and SQLite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components.monitoring.ids import whole_numbers
from penstock.schemas.errors import DataError


def id_texts(ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> list[str]:
    """Return ids as texts.

    Raises:
        DataError: One is missing, or none.
    """
    array = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(list(ids))
    if pa.types.is_floating(array.type):
        array = whole_numbers(array, "The column of the ids of labels")
    texts: list[str] = array.cast(pa.string()).to_pylist()
    missing = sum(text is None for text in texts)
    if missing:
        raise DataError(
            f"{missing:,} of {len(texts):,} labels have no id, and nothing says whose "
            "they are. Leave them out."
        )
    return texts


def label_values(labels: pa.Array | pa.ChunkedArray | Sequence[Any]) -> list[Any]:
    """Return labels as SQLite keeps them; None for those that are missing.

    Raises:
        DataError: One is no single value, or too large.
    """
    found = (
        labels.to_pylist()
        if isinstance(labels, (pa.Array, pa.ChunkedArray))
        else [each.item() if isinstance(each, np.generic) else each for each in labels]
    )
    for value in found:
        if not isinstance(value, (int, float, str, bytes, type(None))):
            raise DataError(
                f"A label is {value!r}, of type {type(value).__name__}, where labels "
                "are numbers, texts or booleans. Pass one value for each id."
            )
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise DataError(
                f"A label is {value}, which takes more than 64 bits. Pass it as text, "
                "or as a float."
            )
    # SQLite has neither booleans nor NaN, which is no label.
    return [
        None
        if isinstance(each, float) and math.isnan(each)
        else int(each)
        if isinstance(each, bool)
        else each
        for each in found
    ]


def label_array(labels: list[Any], kinds: set[str]) -> pa.Array:
    """Return labels as SQLite gave them as a column of one type.

    Args:
        labels: Some of them.
        kinds: SQLite's names of the types that all of them have.
    """
    if kinds <= {"integer"}:
        return pa.array(labels, pa.int64() if kinds else pa.null())
    if kinds <= {"integer", "real"}:
        return pa.array([float(label) for label in labels], pa.float64())
    if kinds == {"blob"}:
        return pa.array(labels, pa.binary())
    return pa.array([str(label) for label in labels], pa.string())
