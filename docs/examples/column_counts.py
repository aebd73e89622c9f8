"""A component of your own: how often each value of a column occurs, split by split."""

from __future__ import annotations

import collections
import json

from penstock import Component, PipelineError, RunContext, output
from penstock.schemas.artifacts import Artifact, Examples


class ColumnCounts(Artifact):
    """One `counts.json` per split: how often each value occurs."""

    TYPE_NAME = "ColumnCounts"


class CountValues(Component):
    """Count the values of a column.

    Reads Examples; writes the number of rows of every value, missing ones under
    `null`. Use it to see at a glance what a split holds.

    Example:
        counts = CountValues(examples=ingest.examples, column="payment_type")

    Attributes:
        examples: The rows to count.
        column: Name of the column.
        most: How many values to keep, the most frequent ones first.
        counts: The numbers, as JSON.
    """

    examples: Examples
    column: str
    most: int = 100
    counts: ColumnCounts = output()

    def check(self) -> None:
        if self.most < 1:
            raise PipelineError(
                f"{self.name}.most is {self.most}, so that no value would be kept. "
                "Pass a number greater than 0."
            )

    def run(self, context: RunContext) -> None:
        # Imported here: declaring a pipeline needs no Arrow.
        from penstock.components.columns.examples import read_batches

        rows = 0
        for split in self.examples.split_names:
            counter: collections.Counter[object] = collections.Counter()
            for batch in read_batches(self.examples, split, columns=[self.column]):
                for pair in batch.column(0).value_counts().to_pylist():
                    counter[pair["values"]] += pair["counts"]
                context.progress(batch.num_rows)
                rows += batch.num_rows
            # Ties in order of the value, so that the same rows give the same bytes.
            ranked = sorted(counter.items(), key=lambda each: (-each[1], str(each[0])))
            folder = self.counts.path / f"Split-{split}"
            folder.mkdir()
            kept = [{"value": value, "rows": count} for value, count in ranked]
            (folder / "counts.json").write_text(
                json.dumps(kept[: self.most], indent=2), encoding="utf-8"
            )
        self.counts.properties["rows"] = rows
