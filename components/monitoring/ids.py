"""Ids of rows as whole numbers: alike in logs and in labels, or else nothing joins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.schemas.errors import DataError


def whole_numbers(
    ids: pa.Array | pa.ChunkedArray, subject: str
) -> pa.Array | pa.ChunkedArray:
    """Return ids that are floats as whole numbers.

    As text, Arrow would write 20261130123456 as '2.0261130123456e+13'.

    Args:
        ids: Floats; null where there is none.
        subject: What holds them, for the sentence.

    Raises:
        DataError: One is no whole number, or so large that floats of its kind do not
            tell it from the next.
    """
    numbers = np.asarray(ids.drop_null())
    bad = ~np.isfinite(numbers) | (numbers != np.rint(numbers))
    if bad.any():
        raise DataError(
            f"{subject} holds {numbers[np.argmax(bad)]:g}, which is no whole number. "
            "Write it as text or whole numbers."
        )
    # From here on floats are 2 apart: what was 9007199254740993 is ...992.
    bits = np.finfo(numbers.dtype).nmant + 1
    bad = np.abs(numbers) >= 2.0**bits
    if bad.any():
        raise DataError(
            f"{subject} holds {numbers[np.argmax(bad)]:.16g} as {ids.type}, and from "
            f"2^{bits} on such numbers stand for several whole ones each. Write it as "
            "text or whole numbers."
        )
    return ids.cast(pa.int64())
