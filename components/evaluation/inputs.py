"""A batch of rows in the forms that models take, each of them made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class Inputs:
    """Rows that are given to models; what two models take alike is made once.

    Args:
        batch: Rows in natural form, with every column that the models read.
        split: Name of the split that they are of, for texts.
        first_row: Number of the first of them in the split, from 0, for texts.
    """

    def __init__(self, batch: pa.RecordBatch, split: str, first_row: int = 0) -> None:
        self.batch = batch
        self.split = split
        self.first_row = first_row
        self._made: dict[Any, Any] = {}
