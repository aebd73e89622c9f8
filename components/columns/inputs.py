"""A batch of rows in the forms that models take, each of them made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from penstock.components.columns.forms import is_list, list_parts
from penstock.schemas.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

Array: TypeAlias = "np.ndarray[Any, Any]"
Made = TypeVar("Made")


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
        self._made: dict[Hashable, Any] = {}

    def part(self, start: int, stop: int) -> Inputs:
        """Return the rows from one number to before another."""
        if (start, stop) == (0, self.batch.num_rows):
            return self
        return self._once(
            ("part", start, stop),
            lambda: Inputs(
                self.batch.slice(start, stop - start),
                self.split,
                self.first_row + start,
            ),
        )

    def parts(self, most: int) -> list[Inputs]:
        """Return all rows in order, in parts of no more rows than a number."""
        rows = self.batch.num_rows
        return [
            self.part(start, min(start + most, rows))
            for start in range(0, max(rows, 1), most)
        ]

    def row(self, index: int) -> str:
        """Return what a row of the batch is called in texts; rows count from 0."""
        return f"row {self.first_row + index:,} of split '{self.split}'"

    def column(self, name: str) -> pa.Array:
        """Return a column as it is."""
        return self.batch.column(self.batch.schema.names.index(name))

    def select(self, columns: tuple[str, ...]) -> pa.RecordBatch:
        """Return some of the columns, in an order."""
        return pa.RecordBatch.from_arrays(
            [self.column(name) for name in columns], names=list(columns)
        )

    def lists(self, name: str) -> tuple[Array, pa.Array]:
        """Return a column as the number of values of each row, and all values."""
        return self._once(("lists", name), lambda: _lists(self.column(name)))

    def records(self, columns: tuple[str, ...]) -> tf.Tensor:
        """Return the rows as serialized tf.Examples with some features.

        Raises:
            DataError: If tf.Example cannot say a value.
        """
        return self._once(("records", columns), lambda: _records(self.select(columns)))

    def values(self, column: str, dtype: str) -> tf.Tensor:
        """Return the values of all rows as one tensor of shape (values,).

        Args:
            column: A column of values, or of lists.
            dtype: TensorFlow's name of the type.

        Raises:
            DataError: If an integer is out of the type's range.
        """
        return self._once(
            ("values", column, dtype),
            lambda: _tensor(column, self.lists(column)[1], dtype),
        )

    def _once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def first_failing(fails: Callable[[int, int], bool], count: int) -> int | None:
    """Return the first of some rows that fails, by halves.

    Args:
        fails: Whether the rows from one number to before another fail.
        count: How many rows there are; together they fail.

    Returns:
        The number of the row, from 0; None if rows fail only together.
    """
    start, stop = 0, count
    while stop - start > 1:
        middle = (start + stop) // 2
        if fails(start, middle):
            stop = middle
        elif fails(middle, stop):
            start = middle
        else:
            return None
    return start


def _lists(column: pa.Array) -> tuple[Array, pa.Array]:
    if is_list(column.type):
        lengths, values, _ = list_parts(column)
        return lengths, values
    if not column.null_count:
        return np.ones(len(column), np.int64), column
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return valid.astype(np.int64), column.drop_null()


def _records(batch: pa.RecordBatch) -> tf.Tensor:
    import tensorflow as tf

    from penstock.components.columns import tf_example

    return tf.constant(tf_example.encode(batch), tf.string)


def _tensor(column: str, values: pa.Array, dtype: str) -> tf.Tensor:
    import tensorflow as tf

    if dtype == "string":
        if pa.types.is_string(values.type):
            values = values.cast(pa.binary())
        elif pa.types.is_large_string(values.type):
            values = values.cast(pa.large_binary())
        found = values.to_numpy(zero_copy_only=False).astype(object)
    else:
        given = values.to_numpy(zero_copy_only=False)
        found = given.astype(tf.as_dtype(dtype).as_numpy_dtype)
        if given.dtype.kind in "iu" and found.dtype.kind in "iu":
            beyond = int((found != given).sum())
            if beyond:
                raise DataError(
                    f"Column '{column}' holds {beyond:,} integers that {dtype} cannot "
                    "hold, which the model takes. Export the model with int64."
                )
    return tf.constant(found, tf.as_dtype(dtype))
