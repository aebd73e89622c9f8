"""Ids and labels between Arrow and SQLite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.schemas.errors import DataError


def id_texts(ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> list[str]:
    """Return ids as texts.

    Raises:
        DataError: One is missing.
    """
    array = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(list(ids))
    if pa.types.is_floating(array.type):
        array = _whole(array)
    texts: list[str] = array.cast(pa.string()).to_pylist()
    missing = sum(text is None for text in texts)
    if missing:
        raise DataError(
            f"{missing:,} of {len(texts):,} labels have no id, and nothing says whose "
            "they are. Leave them out."
        )
    return texts


def _whole(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return ids that are floats as whole numbers, as logs take them.

    As text, Arrow would write 20261130123456 as '2.0261130123456e+13'.
    """
    try:
        return ids.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"Ids of labels are floats that are no whole numbers ({error}), which no "
            "log has. Pass ids as text or whole numbers."
        ) from error


def label_values(labels: pa.Array | pa.ChunkedArray | Sequence[Any]) -> list[Any]:
    """Return labels as SQLite keeps them; None for those that are missing.

    Raises:
        DataError: One is no single value.
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
    # SQLite has neither booleans nor NaN, which is no label.
    return [
        None
        if isinstance(each, float) and math.isnan(each)
        else int(each)
        if isinstance(each, bool)
        else each
        for each in found
    ]


def label_array(labels: list[Any]) -> pa.Array:
    """Return labels as SQLite gave them as a column of one type."""
    kinds = {type(label) for label in labels}
    if kinds == {int, float}:
        return pa.array([float(label) for label in labels], pa.float64())
    if len(kinds) > 1:
        return pa.array([str(label) for label in labels], pa.string())
    return pa.array(labels)
