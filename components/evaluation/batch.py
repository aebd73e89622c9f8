"""The rows that an evaluation sees: labels, predictions and weights as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from penstock.schemas.errors import DataError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"
Kind: TypeAlias = Literal["label", "prediction", "weight", "column", "query"]
Key: TypeAlias = tuple[Kind, str, str]
"""What an array holds, of which model, of which output; '' is any."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Scored rows.

    Attributes:
        rows: How many.
        arrays: Arrays whose first dimension is `rows`. Columns of the data have the
            kind `column` and their name as output. Where rows of one query stand
            together, the kind `query` has its number, under the name of the query key.
    """

    rows: int
    arrays: Mapping[Key, Array]

    def get(self, kind: Kind, model: str = "", output: str = "") -> Array:
        """Return what a model and an output have, or what all its outputs share.

        Raises:
            DataError: If there is no such array.
        """
        for key in ((kind, model, output), (kind, model, "")):
            if key in self.arrays:
                return self.arrays[key]
        legal = sorted(
            name for what, of, name in self.arrays if what == kind and of == model
        )
        raise DataError(
            f"There is no {kind} for the output '{output}' (there is {quoted(legal)})."
            f"{did_you_mean(output, legal)} Mend output_names of the MetricsSpec, or "
            f"the {kind} keys of the ModelSpec."
        )

    def has(self, kind: Kind, model: str = "") -> bool:
        """Return whether a model has any of what is asked for."""
        return any(what == kind and of == model for what, of, _ in self.arrays)

    def take(self, rows: Array) -> Batch:
        """Return some of the rows, by their numbers."""
        return Batch(
            len(rows), {key: array[rows] for key, array in self.arrays.items()}
        )

    def only(self, keeps: Callable[[Key], bool]) -> Batch:
        """Return the same rows with those arrays whose keys are kept."""
        return Batch(
            self.rows, {key: each for key, each in self.arrays.items() if keeps(key)}
        )

    @classmethod
    def concatenated(cls, batches: Sequence[Batch]) -> Batch:
        """Return the rows of several batches of the same arrays."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            sum(each.rows for each in batches),
            {
                key: np.concatenate([each.arrays[key] for each in batches])
                for key in batches[0].arrays
            },
        )
