"""The rows of a reference, with what the served model says of them.

Training data have no scores. Drift of scores is seen only beside those that the same
model gives to the rows of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from penstock.components.columns.examples import read_batches, schema_of
from penstock.components.columns.inputs import Inputs
from penstock.components.evaluation import models
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import DataError, quoted


class ReferenceRows:
    """Reads the rows of Examples, as often as it is called.

    The model is asked once: its scores are kept, 8 bytes for each.

    Args:
        examples: What to read.
        splits: The splits of each.
        scores: Columns of what the model answered.
        model: The served model; gives the scores that the Examples do not have. A
            score is the output of its name, or the model's only output.

    Attributes:
        scored: The scores that the model gives.
    """

    def __init__(
        self,
        examples: Sequence[Examples],
        splits: Sequence[str],
        scores: Sequence[str] = (),
        model: Model | None = None,
    ) -> None:
        self._parts = [(each, split) for each in examples for split in splits]
        self._model = model
        has = schema_of(examples[0]).names
        lacking = [name for name in scores if name not in has]
        self.scored = lacking if model is not None else []
        self._kept: list[dict[str, pa.Array]] = []
        self._is_kept = False

    @property
    def names(self) -> list[str]:
        """The columns that all of the rows have."""
        names = schema_of(self._parts[0][0]).names
        return [*names, *self.scored]

    def __call__(self) -> Iterator[pa.RecordBatch]:
        """Yield batches of all rows.

        Raises:
            DataError: If the model cannot be asked, or does not give one number per
                row.
        """
        if not self.scored or self._model is None:
            for examples, split in self._parts:
                yield from read_batches(examples, split)
            return
        if not self._is_kept:
            self._kept = list(self._scored(self._model))
            self._is_kept = True
        kept = iter(self._kept)
        for examples, split in self._parts:
            for batch in read_batches(examples, split):
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, *(found := next(kept)).values()],
                    names=[*batch.schema.names, *found],
                )

    def _scored(self, model: Model) -> Iterator[dict[str, pa.Array]]:
        from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

        subject = f"Model '{model.uri}'"
        # The only score is whatever the model says, whether its output has a name.
        outputs = [""] if len(self.scored) == 1 else self.scored
        for examples, split in self._parts:
            source = models.find(
                subject, model, ModelSpec(), schema_of(examples), outputs=outputs
            )
            predictor = models.load(source)
            first = 0
            for batch in read_batches(examples, split):
                said = predictor.predict(Inputs(batch, split, first))
                yield {
                    name: _numbers(said[output], name, subject)
                    for name, output in zip(self.scored, outputs, strict=True)
                }
                first += batch.num_rows


def _numbers(
    said: np.ndarray[tuple[int, ...], np.dtype[np.generic]], name: str, subject: str
) -> pa.Array:
    each = said.reshape(len(said), -1).shape[1] if len(said) else 1
    if each != 1:
        raise DataError(
            f"{subject} says {each} numbers of each row, and the score '{name}' is "
            "one. Log the one that counts, and let an output of the model be it."
        )
    return pa.array(said.reshape(-1))


def lacking(scores: Sequence[str], has: Sequence[str]) -> str:
    """Return a sentence on scores that a reference does not have; or nothing."""
    found = [name for name in scores if name not in has]
    if not found:
        return ""
    return (
        f"The reference does not have the scores {quoted(found)} (it has "
        f"{quoted(has)}). Wire the served model, as Served(serving_dir), as scored_by, "
        "so that it says them of the reference's rows; or leave them out of scores."
    )
