"""TFDV's own answers, and how close ours have to come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import statistics_pb2

from penstock.components.base import RunContext
from penstock.components.validation import StatisticsGen
from penstock.components.validation.protos import read_statistics
from penstock.schemas.artifacts import Examples, ExampleStatistics

EPSILON = 0.01


def write_examples(
    folder: Path,
    splits: Mapping[str, pa.Table | Sequence[pa.Table]],
    *,
    rows_per_group: int = 50_000,
) -> Examples:
    """Write tables as Examples, one Parquet file per table."""
    for split, tables in splits.items():
        target = folder / f"Split-{split}"
        target.mkdir(parents=True)
        files = [tables] if isinstance(tables, pa.Table) else tables
        for number, table in enumerate(files):
            pq.write_table(
                table,
                target / f"data_parquet-{number:05d}-of-{len(files):05d}.parquet",
                row_group_size=rows_per_group,
            )
    return Examples(
        folder,
        properties={
            "split_names": json.dumps(list(splits)),
            "span": 3,
            "payload_format": "FORMAT_PARQUET",
        },
    )


def described(
    examples: Examples, folder: Path, *, beam: tuple[str, ...] = (), **parameters: Any
) -> ExampleStatistics:
    """Run StatisticsGen by hand."""
    live = StatisticsGen(examples=examples, **parameters).with_outputs(folder)
    live.run(RunContext.local(folder / "tmp", beam_args=beam))
    return live.statistics


def statistics_of(
    table: pa.Table,
    folder: Path,
    *,
    rows_per_group: int = 50_000,
    **parameters: Any,
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return what StatisticsGen makes of a table."""
    examples = write_examples(
        folder / "examples", {"train": table}, rows_per_group=rows_per_group
    )
    return read_statistics(described(examples, folder / "out", **parameters), "train")


def list_form(table: pa.Table) -> pa.RecordBatch:
    """Return a table as TFDV reads it, by plain Python: lists of numbers and bytes."""
    arrays = []
    for name in table.column_names:
        values = table.column(name).to_pylist()
        kind = table.schema.field(name).type
        if pa.types.is_null(kind):
            arrays.append(pa.nulls(len(values)))
            continue
        inner = kind.value_type if pa.types.is_list(kind) else kind
        if not pa.types.is_list(kind):
            values = [None if value is None else [value] for value in values]
        if pa.types.is_string(inner):
            values = [
                None if each is None else [value.encode() for value in each]
                for each in values
            ]
            inner = pa.binary()
        elif pa.types.is_boolean(inner):
            values = [
                None if each is None else [int(value) for value in each]
                for each in values
            ]
            inner = pa.int64()
        arrays.append(pa.array(values, pa.list_(inner)))
    return pa.RecordBatch.from_arrays(arrays, names=table.column_names)


def in_memory(
    table: pa.Table, **options: Any
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return TFDV's statistics of a table, as its data frame function computes them.

    A data frame cannot tell NaN from missing; a record batch can.
    """
    with np.errstate(all="ignore"):
        return stats_impl.generate_statistics_in_memory(
            list_form(table), tfdv.StatsOptions(**options)
        )


def assert_equal(
    ours: statistics_pb2.DatasetFeatureStatisticsList,
    theirs: statistics_pb2.DatasetFeatureStatisticsList,
    *,
    quantiles: bool = True,
) -> None:
    """Assert that all counts are equal, and numbers to the digits that can be.

    Args:
        ours: What we computed.
        theirs: What TFDV computed.
        quantiles: Whether histograms and medians are compared too: they are exact
            for few values, and within epsilon for many (`assert_quantiles`).
    """
    assert [each.name for each in ours.datasets] == [
        each.name for each in _by_name(theirs.datasets)
    ]
    for our, their in zip(ours.datasets, _by_name(theirs.datasets), strict=True):
        _assert_message(_sorted(our), _sorted(their), our.name, quantiles)


def _by_name(
    datasets: Iterable[statistics_pb2.DatasetFeatureStatistics],
) -> list[statistics_pb2.DatasetFeatureStatistics]:
    return sorted(datasets, key=lambda each: (each.name != "All Examples", each.name))


def _sorted(
    dataset: statistics_pb2.DatasetFeatureStatistics,
) -> statistics_pb2.DatasetFeatureStatistics:
    result = statistics_pb2.DatasetFeatureStatistics()
    result.CopyFrom(dataset)
    del result.features[:]
    result.features.extend(
        sorted(dataset.features, key=lambda each: list(each.path.step))
    )
    return result


_APPROXIMATE = {"median", "histograms", "num_values_histogram"}
_MOMENTS = {"mean", "std_dev"}

# Of numbers whose squares are infinite, TFDV's moments depend on the batches that they
# come in: in one batch the mean of -1 and infinity is NaN, in two it is infinity
# (test_moments_of_infinities_depend_on_batches_in_tfdv).
_SQUARES_ARE_FINITE = 1e150


def _assert_message(
    ours: Any, theirs: Any, path: str, quantiles: bool, scale: float = 0.0
) -> None:
    if "min" in theirs.DESCRIPTOR.fields_by_name:
        scale = max(abs(theirs.min), abs(theirs.max))
    for field in ours.DESCRIPTOR.fields:
        where = f"{path}.{field.name}"
        if field.name in _APPROXIMATE and not quantiles:
            continue
        if field.name in _MOMENTS and not scale < _SQUARES_ARE_FINITE:
            continue
        our, their = getattr(ours, field.name), getattr(theirs, field.name)
        if hasattr(our, "__len__") and not isinstance(our, str | bytes):
            assert len(our) == len(their), where
            for index, (one, other) in enumerate(zip(our, their, strict=True)):
                _assert_value(one, other, f"{where}[{index}]", quantiles, 0.0, 0.0)
        elif field.message_type is not None:
            assert ours.HasField(field.name) == theirs.HasField(field.name), where
            if ours.HasField(field.name):
                _assert_message(our, their, where, quantiles, scale)
        else:
            slack = 1e-9 * scale if field.name in _MOMENTS else 0.0
            _assert_value(our, their, where, quantiles, slack, scale)


def _assert_value(
    our: Any, their: Any, where: str, quantiles: bool, slack: float, scale: float
) -> None:
    if hasattr(our, "DESCRIPTOR"):
        _assert_message(our, their, where, quantiles, scale)
    elif isinstance(our, float):
        same = our == their or (math.isnan(our) and math.isnan(their))
        assert same or math.isclose(our, their, rel_tol=1e-9, abs_tol=slack), (
            f"{where}: {our!r} is not {their!r}"
        )
    else:
        assert our == their, f"{where}: {our!r} is not {their!r}"


def assert_quantiles(
    statistics: statistics_pb2.FeatureNameStatistics, values: Sequence[float]
) -> None:
    """Assert that quantiles lie within epsilon of their true ranks."""
    ordered = np.sort(np.asarray(values, float))
    count = len(ordered)
    for histogram in statistics.num_stats.histograms:
        if histogram.type != statistics_pb2.Histogram.QUANTILES:
            continue
        edges = [histogram.buckets[0].low_value]
        edges += [bucket.high_value for bucket in histogram.buckets]
        for number, edge in enumerate(edges):
            wanted = number / (len(edges) - 1)
            low = np.searchsorted(ordered, edge, "left") / count
            high = np.searchsorted(ordered, edge, "right") / count
            assert low - EPSILON <= wanted <= high + EPSILON
        total = sum(bucket.sample_count for bucket in histogram.buckets)
        assert math.isclose(total, count, rel_tol=1e-9)
    median = statistics.num_stats.median
    low = np.searchsorted(ordered, median, "left") / count
    high = np.searchsorted(ordered, median, "right") / count
    assert low - EPSILON <= 0.5 <= high + EPSILON
