"""Statistics of splits: TFDV's own generators over Arrow record batches, on Beam.

Only imported where statistics are computed: it loads TFDV and Beam.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation import constants
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.generators import (
    cross_feature_stats_generator,
    top_k_uniques_sketch_stats_generator,
)
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx_bsl.arrow import array_util
from tfx_bsl.statistics import merge_util

from penstock.components.base import LiveRows
from penstock.components.columns import examples as columns
from penstock.components.columns.examples import RowGroup, read_row_group
from penstock.components.columns.forms import to_tfdv_form
from penstock.components.columns.whole import write_whole
from penstock.schemas.errors import DataError

EXACT_DISTINCT_VALUES = 16_384
"""Up to so many distinct values of a feature are counted exactly."""

Slice: TypeAlias = "Mapping[str, str | int | None]"
"""Features to slice by: a value, or None for every value that occurs."""

Accumulator: TypeAlias = "dict[tuple[str, int], list[Any]]"
"""Generator states by slice: its name, and the position of what defines it."""

_TopValues = top_k_uniques_sketch_stats_generator.TopKUniquesSketchStatsGenerator
_ALL_EXAMPLES = (constants.DEFAULT_SLICE_KEY, -1)


@dataclasses.dataclass(frozen=True)
class Portion:
    """Consecutive row groups of a split, accumulated in order by one worker."""

    split: str
    number: int
    row_groups: tuple[RowGroup, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """How many rows the files' own footers promise."""
        return sum(group.rows for group in self.row_groups)


def portions(
    split: str, row_groups: Sequence[RowGroup], schema: pa.Schema
) -> list[Portion]:
    """Divide the row groups of a split into portions, at least one.

    Args:
        split: Name of the split.
        row_groups: Its row groups, in order.
        schema: Its columns, in natural form: they are described even without a row.
    """
    return [
        Portion(split, number, groups, schema)
        for number, groups in enumerate(columns.portions(row_groups) or [()])
    ]


class StatisticsAnalysis:
    """Create, add, merge, extract: what a Beam CombineFn does, in a given order.

    TFDV's sketches and floating-point sums depend in their last digits on the order
    in which they are fed and merged; here the caller fixes the order.

    Args:
        options: What to compute, as TFDV says it.
        slices: What to slice by, beside all examples.
        feature_crosses: Pairs of numeric features to correlate.
    """

    def __init__(
        self,
        options: tfdv.StatsOptions,
        slices: Sequence[Slice] = (),
        feature_crosses: Sequence[Sequence[str]] = (),
    ) -> None:
        self._weight_feature = options.weight_feature
        self._slices = tuple(slices)
        self._generators = [
            _wide_top_values(options) if isinstance(each, _TopValues) else each
            for each in stats_impl.get_generators(options, in_memory=True)
        ]
        if feature_crosses:
            self._generators.append(
                cross_feature_stats_generator.CrossFeatureStatsGenerator(
                    # TFDV silently drops pairs that are not in sorted order.
                    feature_crosses=[
                        (min(pair), max(pair)) for pair in feature_crosses
                    ],
                    sample_rate=1.0,
                )
            )
        for generator in self._generators:
            generator.setup()
        self._arguments = (options, tuple(slices), tuple(feature_crosses))

    def __reduce__(self) -> tuple[type[StatisticsAnalysis], tuple[Any, ...]]:
        # TFDV's generators hold lambdas, which only some picklers take.
        return StatisticsAnalysis, self._arguments

    def create_accumulator(self) -> Accumulator:
        """Return the state of having seen nothing."""
        return {}

    def add_input(self, accumulator: Accumulator, batch: pa.RecordBatch) -> None:
        """Add a record batch in the form that TFDV reads to an accumulator.

        Raises:
            DataError: If an example's weight is missing or is no weight.
        """
        if self._weight_feature is not None:
            _check_weights(batch, self._weight_feature)
        for key, part in self._sliced(batch):
            states = accumulator.get(key)
            if states is None:
                states = [each.create_accumulator() for each in self._generators]
            with np.errstate(invalid="ignore", over="ignore"):
                # The mean of infinities is no number, and that is no surprise.
                accumulator[key] = [
                    each.add_input(state, part)
                    for each, state in zip(self._generators, states, strict=True)
                ]

    def merge_accumulators(self, accumulators: Iterable[Accumulator]) -> Accumulator:
        """Merge accumulators in the order given, with two in memory at a time."""
        merged: Accumulator = {}
        with np.errstate(invalid="ignore", over="ignore"):
            for accumulator in accumulators:
                for key, states in accumulator.items():
                    if key in merged:
                        states = [
                            each.merge_accumulators(pair)
                            for each, *pair in zip(
                                self._generators, merged[key], states, strict=True
                            )
                        ]
                    merged[key] = states
        return merged

    def extract_output(
        self, accumulator: Accumulator
    ) -> statistics_pb2.DatasetFeatureStatisticsList:
        """Return the statistics: of all examples first, then of slices by name.

        Raises:
            DataError: If two definitions of slices gave slices of the same name, or
                all weights of a numeric feature are 0.
        """
        result = statistics_pb2.DatasetFeatureStatisticsList()
        order = sorted(accumulator, key=lambda key: (key != _ALL_EXAMPLES, key))
        for (name, _), (other, _) in itertools.pairwise(order):
            if name == other:
                raise DataError(
                    f"Slice '{name}' comes out of two definitions in slices, and its "
                    "statistics would be mixed. Drop or rename one of the features."
                )
        for key in order:
            try:
                result.datasets.append(self._extracted(accumulator[key]))
            except AssertionError as error:
                # TFDV has no answer for quantiles of nothing.
                raise DataError(
                    f"'{key[0]}' cannot be described: TFDV finds no finite values, or "
                    "no weight above 0, for a numeric feature. Leave the feature out, "
                    "or give some example a weight."
                ) from error
            if self._slices:
                result.datasets[-1].name = key[0]
        if not result.datasets:
            result.datasets.add(name=_ALL_EXAMPLES[0] if self._slices else "")
        return result

    def _sliced(
        self, batch: pa.RecordBatch
    ) -> Iterator[tuple[tuple[str, int], pa.RecordBatch]]:
        yield _ALL_EXAMPLES, batch
        for number, each in enumerate(self._slices):
            for name, rows in slice_rows(batch, each):
                part = pa.RecordBatch.from_arrays(
                    [column.take(rows) for column in batch.columns],
                    names=batch.schema.names,
                )
                yield (name, number), part

    def _extracted(self, states: list[Any]) -> statistics_pb2.DatasetFeatureStatistics:
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = [
                each.extract_output(each.compact(state))
                for each, state in zip(self._generators, states, strict=True)
            ]
        (dataset,) = merge_util.merge_dataset_feature_statistics(outputs).datasets
        # TFDV keeps crosses in a set, whose order changes from process to process.
        crosses = sorted(
            dataset.cross_features,
            key=lambda cross: (*cross.path_x.step, *cross.path_y.step),
        )
        del dataset.cross_features[:]
        dataset.cross_features.extend(crosses)
        return dataset


def _wide_top_values(options: tfdv.StatsOptions) -> Any:
    """Return TFDV's generator of top values, with room for more distinct values.

    When its sketch overflows, which values it drops depends on the addresses of a hash
    table and differs from run to run. TFDV's own 1,024 entries overflow often.
    """
    return _TopValues(
        schema=options.schema,
        example_weight_map=options.example_weight_map,
        num_top_values=options.num_top_values,
        num_rank_histogram_buckets=options.num_rank_histogram_buckets,
        frequency_threshold=options.frequency_threshold,
        weighted_frequency_threshold=options.weighted_frequency_threshold,
        num_misragries_buckets=EXACT_DISTINCT_VALUES,
        num_kmv_buckets=EXACT_DISTINCT_VALUES,
    )


def slice_rows(
    batch: pa.RecordBatch, definition: Slice
) -> Iterator[tuple[str, pa.Array]]:
    """Find the slices of a batch, named as TFDV names them.

    TFDV's own slicer is not used: its native row selection crashes on some batches.

    Args:
        batch: A batch in the form that TFDV reads.
        definition: The features to slice by, crossed where there are several.

    Yields:
        A slice's name, and the numbers of its rows in rising order.

    Raises:
        DataError: If a value cannot be part of a name.
    """
    crossed: pd.DataFrame | None = None
    for feature in sorted(definition):
        column = batch.column(batch.schema.get_field_index(feature))
        found = _values_by_row(column, feature, definition[feature])
        if crossed is None:
            crossed = found
            continue
        crossed = crossed.merge(found, on="row", suffixes=("", "_next"))
        crossed["name"] += "_" + crossed.pop("name_next")
    if crossed is None:
        return
    for name, group in crossed.groupby("name", sort=False):
        yield str(name), pa.array(group["row"].to_numpy())


def _values_by_row(
    column: pa.Array, feature: str, wanted: str | int | None
) -> pd.DataFrame:
    """Return one line per row and distinct value: the row, and the part of a name."""
    if pa.types.is_null(column.type):
        return pd.DataFrame({"row": np.array([], np.int64), "name": []}, dtype=object)
    values, rows = array_util.flatten_nested(column, True)
    encoded = values.dictionary_encode()
    parts = []
    for value in encoded.dictionary.to_pylist():
        part = _name_part(value, feature)
        keep = wanted is None or value == wanted or part == str(wanted)
        parts.append(f"{feature}_{part}" if keep else None)
    names = np.array(parts, object)[np.asarray(encoded.indices)]
    frame = pd.DataFrame({"row": np.asarray(rows), "name": names})
    return frame.dropna().drop_duplicates()


def _name_part(value: Any, feature: str) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"Feature '{feature}' holds {value!r}, which is not UTF-8 and cannot name "
            "a slice. Slice by features of text or numbers."
        ) from error


def _check_weights(batch: pa.RecordBatch, feature: str) -> None:
    column = batch.column(batch.schema.get_field_index(feature))
    lengths = (
        np.zeros(len(column), dtype=np.int64)
        if pa.types.is_null(column.type)
        else np.asarray(array_util.ListLengthsFromListArray(column))
    )
    wrong = np.flatnonzero(lengths != 1)
    if wrong.size:
        count = int(lengths[wrong[0]])
        raise DataError(
            f"Weight feature '{feature}' has {count} values in {wrong.size} of "
            f"{len(column)} examples. Give every example exactly one weight."
        )
    if not len(column):
        return
    weights = np.asarray(column.flatten())
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        raise DataError(
            f"Weight feature '{feature}' holds {weights[bad][0]}, which is no weight. "
            "Use finite numbers of at least 0."
        )


def write_statistics(
    pipeline: beam.Pipeline,
    work: Sequence[Portion],
    analysis: StatisticsAnalysis,
    files: Mapping[str, Path],
    live_rows: LiveRows,
) -> None:
    """Add to a Beam pipeline: read portions, compute statistics, write one file each.

    Args:
        pipeline: Where to add.
        work: The portions of all splits.
        analysis: What to compute.
        files: The file to write for every split.
        live_rows: Told of rows as they are described.
    """
    _ = (
        pipeline
        | "List portions of splits" >> beam.Create(work, reshuffle=False)
        | "Spread portions over workers" >> beam.Reshuffle()
        | "Accumulate each portion" >> beam.Map(accumulate, analysis, live_rows)
        | "Gather portions of each split" >> beam.GroupByKey()
        | "Merge in order and write" >> beam.Map(write_merged, analysis, files)
    )


def accumulate(
    portion: Portion, analysis: StatisticsAnalysis, live_rows: LiveRows
) -> tuple[str, tuple[int, int, bytes]]:
    """Return a portion's split, its number, its rows and what was accumulated.

    TFDV's quantile sketches pickle to megabytes, of which Beam holds several copies,
    and compress to a twelfth in hundredths of a second.

    Raises:
        DataError: If a file cannot be described; the text names it.
    """
    accumulator = analysis.create_accumulator()
    if portion.number == 0:
        # Columns are described even where there is no row, in the schema's order.
        nothing = pa.RecordBatch.from_arrays(
            [pa.array([], each.type) for each in portion.schema],
            names=portion.schema.names,
        )
        analysis.add_input(accumulator, to_tfdv_form(nothing))
    for group in portion.row_groups:
        for batch in read_row_group(group):
            try:
                analysis.add_input(accumulator, to_tfdv_form(batch))
            except DataError as error:
                raise DataError(
                    f"Split '{portion.split}', file '{group.path}': {error}"
                ) from error
            except (TypeError, ValueError) as error:
                raise _not_described(portion.split, error) from error
            live_rows(batch.num_rows)
    packed = zlib.compress(pickle.dumps(accumulator), 1)
    return portion.split, (portion.number, portion.rows, packed)


def write_merged(
    gathered: tuple[str, Iterable[tuple[int, int, bytes]]],
    analysis: StatisticsAnalysis,
    files: Mapping[str, Path],
) -> None:
    """Merge the portions of a split by number and write its statistics.

    Raises:
        DataError: If the portions do not go together, or rows were lost.
    """
    split, parts = gathered
    ordered = sorted(parts, key=lambda part: part[0])
    promised = sum(rows for _, rows, _ in ordered)
    try:
        merged = analysis.merge_accumulators(
            # Made by `accumulate` on a worker of this very pipeline.
            pickle.loads(zlib.decompress(packed))
            for _, _, packed in ordered
        )
    except (TypeError, ValueError) as error:
        raise _not_described(split, error) from error
    statistics = analysis.extract_output(merged)
    described = statistics.datasets[0].num_examples
    if described != promised:
        raise DataError(
            f"Split '{split}' has {promised} rows by its files' footers, but "
            f"{described} were described. A file changed while it was read; run again."
        )
    write_whole(files[split], statistics.SerializeToString(deterministic=True))


def _not_described(split: str, error: Exception) -> DataError:
    return DataError(
        f"Split '{split}' cannot be described: TFDV says '{error}' Give every column "
        "one type and one depth of lists in all files of a split."
    )
