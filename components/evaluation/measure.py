"""From sums by slice to metrics by slice, their differences and their intervals."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from penstock.components.evaluation.accumulate import ROWS, Accumulator
from penstock.components.evaluation.batch import Array
from penstock.components.evaluation.blessing import CrossSlicing, Slice
from penstock.components.evaluation.intervals import Asked, Intervals, Spread
from penstock.components.evaluation.metrics.registry import Metric, Part
from penstock.components.evaluation.statistics import Statistic

_MANY_CELLS = 4_096
_MOST_FILLED = 1_000
_MOST_CELLS = 1 << 21  # of a dense array, 16 MiB


@dataclasses.dataclass
class Found:
    """All that was measured in one slice, or of one slice minus another.

    Attributes:
        slice: The rows that are measured.
        rows: How many they are.
        values: Numbers, arrays, and objects that TFMA's writers take, by TFMA's keys.
        spreads: Intervals of numbers and arrays.
        baseline_slice: For a comparison, the slice that `slice` is subtracted from.
    """

    slice: Slice
    rows: int
    values: dict[Any, Any]
    spreads: dict[Any, Spread]
    baseline_slice: Slice | None = None


def measured(
    accumulator: Accumulator,
    metrics: Sequence[Metric],
    *,
    crosses: Sequence[CrossSlicing] = (),
    baseline: str | None = None,
    asked: Asked | None = None,
) -> list[Found]:
    """Return the metrics of every slice, all rows first, then by name.

    Args:
        accumulator: With the statistics of the metrics.
        metrics: What is wanted.
        crosses: Comparisons of slices that are wanted.
        baseline: Name of the baseline's model; the others' metrics get a difference.
        asked: Intervals that are wanted, if any.
    """
    found = _measured(
        accumulator,
        [each for each in metrics if not each.query_key],
        crosses,
        baseline,
        asked,
    )
    for key in dict.fromkeys(each.query_key for each in metrics if each.query_key):
        of_queries = _measured(
            accumulator.of_queries(key),
            [each for each in metrics if each.query_key == key],
            crosses,
            baseline,
            dataclasses.replace(asked, has_clusters=True) if asked else None,
        )
        for each, more in zip(found, of_queries, strict=True):
            each.values.update(more.values)
            each.spreads.update(more.spreads)
    return found


def _measured(
    accumulator: Accumulator,
    metrics: Sequence[Metric],
    crosses: Sequence[CrossSlicing],
    baseline: str | None,
    asked: Asked | None,
) -> list[Found]:
    intervals = Intervals(accumulator, asked) if asked else None
    numbers = _in_order(accumulator)
    values = _values(accumulator, metrics, max(numbers, default=-1) + 1)
    by_key = {each.key: each for each in metrics}
    _, counts = accumulator.sums(ROWS).all()

    def of_slice(number: int) -> Found:
        _, key = accumulator.slices[number]
        each = Found(key, int(counts[number, 0]), values[number], {})
        if intervals:
            each.spreads.update(_spreads(intervals, by_key, each, number))
        _add_differences(each, by_key, baseline, number, intervals)
        return each

    # What is drawn depends on the slice alone, so threads change nothing but the time;
    # NumPy lets them run while it draws and sums.
    with ThreadPoolExecutor(os.cpu_count() if intervals else 1) as pool:
        found = list(pool.map(of_slice, numbers))
    compared = [
        _difference_of(mine, others, numbers, found, by_key, baseline, intervals)
        for mine, others in _compared(found, crosses)
    ]
    return found + compared


def _in_order(accumulator: Accumulator) -> list[int]:
    """Return the numbers of slices; one that two slicings give is kept once."""
    numbers = {
        key: number
        for number, (_, key) in reversed(list(enumerate(accumulator.slices)))
    }
    return sorted(
        numbers.values(),
        key=lambda number: [
            (name, isinstance(value, str), value)
            for name, value in accumulator.slices[number][1]
        ],
    )


def _values(
    accumulator: Accumulator, metrics: Sequence[Metric], slices: int
) -> list[dict[Any, Any]]:
    """Return the values of every slice, chunk by chunk of slices."""
    found: list[dict[Any, Any]] = [{} for _ in range(slices)]
    for parts, group in _by_parts(metrics).items():
        numbers = [each for each in group if each.kind == "number"]
        if len(parts) == 1 and parts[0].statistic.cells > _MANY_CELLS and numbers:
            _add_compact(accumulator, parts[0], numbers, found)
            group = [each for each in group if each.kind != "number"]
            if not group:
                continue
        cells = sum(part.statistic.cells * part.statistic.columns for part in parts)
        chunk = max(1, _MOST_CELLS // cells)
        for first in range(0, slices, chunk):
            last = min(first + chunk, slices)
            sums = [_sums(accumulator, part.statistic, first, last) for part in parts]
            _add_values(found[first:last], parts, group, sums)
    return found


def _add_compact(
    accumulator: Accumulator,
    part: Part,
    metrics: Sequence[Metric],
    found: Sequence[dict[Any, Any]],
) -> None:
    """Add numbers of slices that fill few of many cells.

    Slices are taken together while they fill few cells, and only the cells that any of
    them fills are looked at.
    """
    cells, columns = part.statistic.cells, part.statistic.columns
    places, sums = accumulator.sums(part.statistic).all()
    starts = np.searchsorted(places, np.arange(len(found) + 1) * cells)
    first = 0
    while first < len(found):
        last = int(np.searchsorted(starts, starts[first] + _MOST_FILLED, "right")) - 1
        last = max(last, first + 1)
        taken = slice(starts[first], starts[last])
        cell, row = places[taken] % cells, places[taken] // cells - first
        totals = _summed(cell, sums[taken], cells, columns)
        group, form = part.form.grouped(totals, cells)
        count = int(group.max()) + 1
        size = (last - first) * count
        each = _summed(row * count + group[cell], sums[taken], size, columns)
        state = form(each.reshape(last - first, count, columns))
        for metric in metrics:
            with np.errstate(all="ignore"):
                values = np.asarray(metric.value(state)).tolist()
            for number, value in enumerate(values, first):
                found[number][metric.key] = value
        first = last


def _summed(places: Array, sums: Array, size: int, columns: int) -> Array:
    return np.stack(
        [
            np.bincount(places, weights=sums[:, column], minlength=size)
            for column in range(columns)
        ],
        axis=1,
    )


def _sums(accumulator: Accumulator, statistic: Statistic, first: int, last: int) -> Any:
    """Return the sums of slices, one after another."""
    sums = accumulator.sums(statistic)
    if statistic.is_sparse:
        return [sums.filled(number) for number in range(first, last)]
    return sums.dense(first, last, statistic.columns)


def _by_parts(metrics: Sequence[Metric]) -> dict[Any, list[Metric]]:
    groups: dict[Any, list[Metric]] = {}
    for each in metrics:
        groups.setdefault(each.parts, []).append(each)
    return groups


def _add_values(
    found: Sequence[dict[Any, Any]],
    parts: Any,
    metrics: Sequence[Metric],
    sums: Sequence[Array],
) -> None:
    states = None
    for metric in metrics:
        if metric.kind in ("number", "array"):
            if states is None:
                states = [
                    part.form.whole(each)
                    for part, each in zip(parts, sums, strict=True)
                ]
            with np.errstate(all="ignore"):
                values = np.asarray(metric.value(*states))
            for each, value in zip(found, values, strict=True):
                each[metric.key] = value if value.ndim else float(value)
            continue
        for number, each in enumerate(found):
            alone = (
                part.form.whole(one[number])
                for part, one in zip(parts, sums, strict=True)
            )
            each[metric.key] = metric.value(*alone)


def _spreads(
    intervals: Intervals, by_key: Mapping[Any, Metric], each: Found, number: int
) -> Iterator[tuple[Any, Spread]]:
    for key, value in each.values.items():
        metric = by_key[key]
        if metric.kind in ("number", "array") and metric.has_interval:
            spread = intervals.of(metric, number, np.asarray(value))
            if spread is not None:
                yield key, spread


def _add_differences(
    each: Found,
    by_key: Mapping[Any, Metric],
    baseline: str | None,
    number: int,
    intervals: Intervals | None,
) -> None:
    """Add candidate minus baseline, under TFMA's key of the difference."""
    if baseline is None:
        return
    for key, other in _paired(by_key, baseline):
        value, base = each.values[key], each.values[other]
        if by_key[key].kind == "plot":
            continue
        difference = value - base
        each.values[key.make_diff_key()] = difference
        if intervals and by_key[key].has_interval:
            spread = intervals.of_difference(
                by_key[key], by_key[other], number, np.asarray(difference)
            )
            if spread is not None:
                each.spreads[key.make_diff_key()] = spread


def _paired(by_key: Mapping[Any, Metric], baseline: str) -> Iterator[tuple[Any, Any]]:
    for key in by_key:
        if key.is_diff or key.model_name == baseline:
            continue
        other = key.make_baseline_key(baseline)
        if other in by_key:
            yield key, other


def _compared(
    found: Sequence[Found], crosses: Sequence[CrossSlicing]
) -> Iterator[tuple[int, int]]:
    """Yield the places of the two slices of every comparison, the baseline first."""
    for cross in crosses:
        for first, mine in enumerate(found):
            if not cross.baseline.matches(mine.slice):
                continue
            for second, other in enumerate(found):
                wanted = (
                    any(each.matches(other.slice) for each in cross.compared)
                    if cross.compared
                    else not cross.baseline.matches(other.slice)
                )
                if wanted:
                    yield first, second


def _difference_of(
    first: int,
    second: int,
    numbers: Sequence[int],
    found: Sequence[Found],
    by_key: Mapping[Any, Metric],
    baseline: str | None,
    intervals: Intervals | None,
) -> Found:
    mine, other = found[first], found[second]
    result = Found(other.slice, other.rows, {}, {}, mine.slice)
    for key, value in mine.values.items():
        terms = _terms(key, by_key, baseline)
        if terms is None or key not in other.values:
            continue
        difference = value - other.values[key]
        result.values[key] = difference
        if intervals and all(metric.has_interval for metric, _ in terms):
            spread = intervals.of_slices(
                terms, numbers[first], numbers[second], np.asarray(difference)
            )
            if spread is not None:
                result.spreads[key] = spread
    return result


def _terms(
    key: Any, by_key: Mapping[Any, Metric], baseline: str | None
) -> list[tuple[Metric, float]] | None:
    """Return the metrics that a value is the sum of, each with a sign."""
    if key in by_key:
        metric = by_key[key]
        return [(metric, 1.0)] if metric.kind != "plot" else None
    candidate = key._replace(is_diff=False)
    assert baseline is not None
    return [
        (by_key[candidate], 1.0),
        (by_key[candidate.make_baseline_key(baseline)], -1.0),
    ]
