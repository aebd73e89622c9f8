"""Slices of a window: which rows are in them, and which of them are watched.

A feature is a column, or an expression over columns as in an evaluation; every value of
it that the reference has in rows enough is a slice.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from penstock.components.evaluation import slicing
from penstock.components.evaluation.blessing import slice_text
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

LEAST_ROWS = 500
"""Rows that a slice needs in the reference: fewer say too little of it."""

MOST = 50
"""Slices of a model. Each has profiles of its own of all columns."""


@dataclasses.dataclass(frozen=True)
class Slicer:
    """Finds the rows of slices.

    Attributes:
        features: Columns or expressions.
        names: Of the slices that are watched, as 'payment_type=Cash'.
    """

    features: tuple[str, ...]
    names: frozenset[str]

    @classmethod
    def of(
        cls, features: Sequence[str], batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> Slicer:
        """Return what finds the slices of a reference that have rows enough.

        Args:
            features: Columns or expressions.
            batches: The reference's rows.

        Raises:
            DataError: If a feature is neither a column nor an expression over columns,
                no slice of it has `LEAST_ROWS`, or there are more than `MOST` slices.
        """
        counted = {each: collections.Counter[str]() for each in features}
        for batch in batches:
            for feature, found in counted.items():
                _check(feature, batch.schema.names)
                for name, rows in _parts(feature, batch):
                    found[name] += len(rows)
        large = {
            feature: [name for name, rows in found.items() if rows >= LEAST_ROWS]
            for feature, found in counted.items()
        }
        for feature, names in large.items():
            if not names:
                most = max(counted[feature].values(), default=0)
                raise DataError(
                    f"No slice by '{feature}' has {LEAST_ROWS} rows in the reference: "
                    f"of {len(counted[feature])} the largest has {most}. Slice by "
                    "something coarser."
                )
        names = [name for each in large.values() for name in each]
        if len(names) > MOST:
            parts = ", ".join(
                f"{len(each)} by '{name}'" for name, each in large.items()
            )
            raise DataError(
                f"{len(names)} slices have {LEAST_ROWS} rows or more in the reference "
                f"({parts}), and {MOST} are watched at most. Slice by something "
                "coarser."
            )
        return cls(tuple(features), frozenset(names))

    def parts(
        self, batch: pa.RecordBatch | pa.Table
    ) -> Iterator[tuple[str, pa.RecordBatch | pa.Table]]:
        """Yield the slices that are watched of which a batch has rows, and those rows.

        A feature whose column is gone has no slices: that the column is gone is told as
        drift of its own.
        """
        has = set(batch.schema.names)
        for feature in self.features:
            if feature in has or ((reads := slicing.read_by(feature)) and reads <= has):
                for name, rows in _parts(feature, batch):
                    if name in self.names:
                        yield name, batch.take(pa.array(rows))


def columns_of(features: Iterable[str], has: Sequence[str]) -> list[str]:
    """Return the columns that features read.

    Raises:
        DataError: If one is neither a column nor an expression over columns.
    """
    found: set[str] = set()
    for feature in features:
        _check(feature, has)
        found |= slicing.columns_of(feature, has)
    return sorted(found)


def is_of(column: str, name: str) -> bool:
    """Return whether a slice is one by a column, which is alike in all of its rows."""
    return name.startswith(f"{column}=")


def _check(feature: str, has: Sequence[str]) -> None:
    if feature in has:
        return
    try:
        reads = slicing.columns_of(feature, has)
    except PipelineError as error:
        raise DataError(
            f"Slices are asked for by '{feature}', which is no column of the reference "
            f"(it has {quoted(has)}).{did_you_mean(feature, has)} {error}"
        ) from error
    for name in sorted(reads - set(has)):
        raise DataError(
            f"Slices are asked for by '{feature}', and the reference has no column "
            f"'{name}' (it has {quoted(has)}).{did_you_mean(name, has)}"
        )


def _parts(
    feature: str, batch: pa.RecordBatch | pa.Table
) -> Iterator[tuple[str, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Yield the slices by a feature, and the numbers of their rows."""
    if not batch.num_rows:
        return
    if isinstance(batch, pa.Table):
        reads = sorted(slicing.columns_of(feature, batch.schema.names))
        batch = batch.select(reads).combine_chunks().to_batches()[0]
    found = slicing.SliceBy((feature,)).assign(batch)
    order = np.argsort(found.codes, kind="stable")
    rows = order if found.rows is None else found.rows[order]
    ends = np.searchsorted(found.codes[order], np.arange(len(found.keys) + 1))
    for code, key in enumerate(found.keys):
        yield slice_text(key), rows[ends[code] : ends[code + 1]]
