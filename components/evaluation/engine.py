"""The engine: rows are read, predicted, sliced and summed, column by column.

One `CombineFn` for any Beam runner; in this process its steps are called one after
another, because a Beam pipeline of its own costs more than small evaluations take.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from apache_beam import CombineFn

from penstock.components.base import LiveRows, RunContext
from penstock.components.columns import examples
from penstock.components.columns.examples import RowGroup, read_row_group
from penstock.components.columns.inputs import Inputs
from penstock.components.columns.whole import write_whole
from penstock.components.evaluation import models
from penstock.components.evaluation.accumulate import (
    Accumulator,
    Settings,
    ranks_of_clusters,
    ranks_of_rows,
)
from penstock.components.evaluation.batch import Array, Batch, Key
from penstock.schemas.errors import DataError


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model, and where its labels and weights are.

    Attributes:
        name: TFMA's name of it: `candidate`, `baseline`, or '' if it is alone.
        source: What predicts.
        labels: Columns (or computed features) of labels, by output; '' for all.
        weights: Columns of example weights, likewise.
    """

    name: str
    source: models.PredictionSource
    labels: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Work:
    """All that a worker needs to know.

    Attributes:
        settings: What to accumulate.
        scored: The models.
        columns: The columns to read.
        kept: Columns that metrics see as arrays.
        computed: Features that preprocessing signatures compute and rows are sliced by.
        cluster_key: Column of the units that intervals are of; '' for rows.
        drops_nan: Whether rows with a NaN score are left out, or else refused.
        seed: Of the sample.
    """

    settings: Settings
    scored: tuple[Scored, ...]
    columns: tuple[str, ...]
    kept: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    cluster_key: str = ""
    drops_nan: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Portion:
    """Row groups of one split that are evaluated one after another.

    Attributes:
        number: Place among the portions; results are merged in this order.
        split: Name of the split.
        place: Number of the split.
        first_row: Number of the first row in the split, from 0.
        groups: What to read.
    """

    number: int
    split: str
    place: int
    first_row: int
    groups: tuple[RowGroup, ...]


def portions(splits: Mapping[str, Sequence[RowGroup]]) -> list[Portion]:
    """Divide the row groups of splits into portions, in order."""
    found: list[Portion] = []
    for place, (split, row_groups) in enumerate(splits.items()):
        first = 0
        for groups in examples.portions(row_groups):
            found.append(Portion(len(found), split, place, first, groups))
            first += sum(group.rows for group in groups)
    return found


def evaluated(portion: Portion, work: Work, live_rows: LiveRows) -> Accumulator:
    """Read, predict and accumulate the rows of a portion."""
    os.stat(portion.groups[0].path)  # a worker that sees no files finds no model either
    accumulator = Accumulator(work.settings)
    predictors = [models.load(each.source) for each in work.scored]
    size = max(each.source.batch_rows for each in work.scored)
    first = portion.first_row
    for table in _batches(portion, work.columns, size):
        rows = Inputs(table, portion.split, first)
        _add(accumulator, work, rows, predictors, (work.seed, portion.place, first))
        live_rows(table.num_rows)
        first += table.num_rows
    return accumulator


def _batches(
    portion: Portion, columns: Sequence[str], size: int
) -> Iterator[pa.RecordBatch]:
    """Read a portion; row groups that are small are put together."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for group in portion.groups:
        for batch in read_row_group(group, columns=columns, batch_size=size):
            if waiting and rows + batch.num_rows > size:
                yield _together(waiting)
                waiting, rows = [], 0
            waiting.append(batch)
            rows += batch.num_rows
    if rows:
        yield _together(waiting)


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def _add(
    accumulator: Accumulator,
    work: Work,
    rows: Inputs,
    predictors: Sequence[models.Predictor],
    start: tuple[int, ...],
) -> None:
    table, batch = _scored(work, rows, predictors)
    ranks = None
    if work.settings.sampled:
        ranks = ranks_of_rows(start, table.num_rows)
        if work.cluster_key:
            ranks = ranks_of_clusters(table, work.cluster_key, ranks, work.seed)
    unknown = _not_a_number(batch)
    if unknown.any():
        if not work.drops_nan:
            first = rows.first_row + int(np.argmax(unknown))
            raise DataError(
                f"{int(unknown.sum()):,} of {len(unknown):,} rows have a score that "
                f"is not a number, the first is row {first:,} of split "
                f"'{rows.split}'. Mend the model, or pass nan_scores='drop' "
                "to leave such rows out and count them."
            )
        kept = np.flatnonzero(~unknown)
        accumulator.dropped += len(unknown) - len(kept)
        table, batch = table.take(pa.array(kept)), batch.take(kept)
        ranks = None if ranks is None else ranks[kept]
    accumulator.add(table, batch, ranks)


def _scored(
    work: Work, rows: Inputs, predictors: Sequence[models.Predictor]
) -> tuple[pa.RecordBatch, Batch]:
    """Return what rows are sliced by, and their labels, predictions and weights."""
    arrays: dict[Key, Array] = {}
    features: dict[str, Array] = {}
    said = []
    for scored, predictor in zip(work.scored, predictors, strict=True):
        predictions = predictor.predict(rows)
        said.append(predictions)
        for output, values in predictions.items():
            arrays["prediction", scored.name, output] = values
        computed = predictor.transform(rows) if scored.source.gives else {}
        features |= {
            name: values for name, values in computed.items() if name in work.computed
        }
        for output, name in scored.labels:
            arrays["label", scored.name, output] = (
                computed[name] if name in computed else column(rows.batch, name)
            )
        for output, name in scored.weights:
            arrays["weight", scored.name, output] = (
                computed[name] if name in computed else column(rows.batch, name)
            )
    if len(said) == 2:
        models.check_same_outputs(*said)
    for name in work.kept:
        arrays["column", "", name] = column(rows.batch, name)
    return _with_columns(rows.batch, features), Batch(rows.batch.num_rows, arrays)


def _with_columns(
    table: pa.RecordBatch, features: Mapping[str, Array]
) -> pa.RecordBatch:
    """Return a table with computed features, which hide columns of their name."""
    if not features:
        return table
    kept = [name for name in table.schema.names if name not in features]
    columns = [table.column(table.schema.names.index(name)) for name in kept]
    for values in features.values():
        listed = values.reshape(len(values), -1)
        columns.append(
            pa.array(listed[:, 0])
            if listed.shape[1] == 1
            else pa.FixedSizeListArray.from_arrays(listed.ravel(), listed.shape[1])
        )
    return pa.RecordBatch.from_arrays(columns, names=[*kept, *features])


def _not_a_number(batch: Batch) -> Array:
    unknown = np.zeros(batch.rows, bool)
    for (kind, _, _), values in batch.arrays.items():
        if kind == "prediction" and values.dtype.kind == "f":
            unknown |= np.isnan(values).reshape(batch.rows, -1).any(axis=1)
    return unknown


def column(table: pa.RecordBatch, name: str) -> Array:
    """Return a column as an array of shape (rows,), or (rows, values) of lists.

    Raises:
        DataError: If rows have no value, or lists of different lengths.
    """
    from penstock.components.columns.forms import is_list, list_parts

    values = table.column(table.schema.names.index(name))
    shape: tuple[int, ...] = (table.num_rows,)
    if is_list(values.type):
        lengths, values, _ = list_parts(values)
        if len(lengths) and (lengths != lengths[0]).any():
            raise DataError(
                f"Column '{name}' has lists of {int(lengths.min())} to "
                f"{int(lengths.max())} values, and the evaluation needs the same "
                "number in every row. Make them as long before ingestion."
            )
        shape = (table.num_rows, int(lengths[0]) if len(lengths) else 0)
    if values.null_count:
        raise DataError(
            f"Column '{name}' has no value in {values.null_count:,} of "
            f"{table.num_rows:,} rows, and the evaluation needs one in each. Leave "
            "such rows out before ingestion."
        )
    found: Array = values.to_numpy(zero_copy_only=False)
    if found.dtype == bool:
        found = found.astype(np.int64)
    return found.reshape(shape)


class Evaluate(CombineFn):  # type: ignore[misc]
    """Accumulates portions; the result is the same in whatever order they come.

    Floating-point sums depend on their order, so portions are kept apart until all
    are there, and then merged by number.

    Args:
        work: What to do.
        live_rows: Shows progress.
    """

    def __init__(self, work: Work, live_rows: LiveRows) -> None:
        self._work = work
        self._live_rows = live_rows

    def create_accumulator(self) -> dict[int, Accumulator]:
        """Return no portions."""
        return {}

    def add_input(
        self, accumulator: dict[int, Accumulator], portion: Portion
    ) -> dict[int, Accumulator]:
        """Evaluate a portion."""
        return accumulator | {
            portion.number: evaluated(portion, self._work, self._live_rows)
        }

    def merge_accumulators(
        self, accumulators: Iterable[dict[int, Accumulator]]
    ) -> dict[int, Accumulator]:
        """Gather portions."""
        return {
            number: each
            for accumulator in accumulators
            for number, each in accumulator.items()
        }

    def extract_output(self, accumulator: dict[int, Accumulator]) -> Accumulator:
        """Merge the portions, by number."""
        total = Accumulator(self._work.settings)
        for _, each in sorted(accumulator.items()):
            total.merge(each)
        return total


def accumulated(
    work: Work, found: Sequence[Portion], context: RunContext
) -> Accumulator:
    """Evaluate portions in this process, or on the runner that Beam options name.

    Args:
        work: What to do.
        found: The portions.
        context: Of the component that runs.
    """
    if context.is_local:
        total = Accumulator(work.settings)
        for portion in found:
            total.merge(evaluated(portion, work, context.live_rows))
        return total
    import apache_beam as beam

    file = context.temp_dir / "accumulated"
    with context.beam_pipeline() as root:
        _ = (
            root
            | "List portions" >> beam.Create(list(found), reshuffle=False)
            | "Spread portions over workers" >> beam.Reshuffle()
            | "Evaluate portions"
            >> beam.CombineGlobally(Evaluate(work, context.live_rows))
            | "Write what was accumulated" >> beam.Map(_write, str(file))
        )
    with open(file, "rb") as written:
        result: Accumulator = pickle.load(written)  # our own, of a moment ago
    return result


def _write(accumulator: Accumulator, path: str) -> None:
    write_whole(Path(path), pickle.dumps(accumulator))
