"""The rows that an evaluation sees: labels, predictions and weights as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from penstock.schemas.errors import DataError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"
Kind: TypeAlias = Literal["label", "prediction", "weight", "column"]
Key: TypeAlias = tuple[Kind, str, str]
"""What an array holds, of which model, of which output; '' is any."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Scored rows.

    Attributes:
        rows: How many.
        arrays: Arrays whose first dimension is `rows`. Columns of the data, such as a
            query key, have the kind `column` and their name as output.
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

    def take(self, rows: Array) -> Batch:
        """Return some of the rows, by their numbers."""
        return Batch(
            len(rows), {key: array[rows] for key, array in self.arrays.items()}
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
