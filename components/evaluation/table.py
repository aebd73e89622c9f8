"""The tidy table of an evaluation: one row per slice, metric and model.

It is one Parquet file that pandas, DuckDB or a spreadsheet can read without TFMA. The
same metrics give the same bytes with the same pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from penstock.components.columns import parquet
from penstock.components.evaluation.blessing import MetricName, SliceMetrics
from penstock.schemas.errors import DataError, quoted

if TYPE_CHECKING:
    from penstock.components.evaluation.blessing import Interval

TABLE_FILE = "table.parquet"
"""Its name in the folder of a ModelEvaluation."""

CANDIDATE, BASELINE, DIFFERENCE = "candidate", "baseline", "difference"

TABLE_SCHEMA = pa.schema(
    [
        pa.field("slice", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("lower", pa.float64()),
        pa.field("upper", pa.float64()),
        pa.field("confidence", pa.float64()),
        pa.field("rows", pa.int64()),
        pa.field("method", pa.string()),
    ]
)
"""What the columns are.

slice: As texts show it: `all rows`, `hour=7, payment_type=Cash`; of a comparison,
    `all rows minus hour=7`.
metric: Its name; of two that differ in weights only, one is ` (weighted)`.
model: `candidate`, `baseline`, or `difference`: the candidate minus the baseline.
value: A number; NaN where the metric is not defined.
lower, upper, confidence: The confidence interval; null where none was made.
rows: How many rows the slice has, where that is known.
method: How the interval was made; null where none was.
"""

_Line: TypeAlias = (
    "tuple[str, str, str, float, float | None, float | None, float | None, int | None,"
    " str | None]"
)


def write_table(path: Path, measured: Iterable[SliceMetrics]) -> None:
    """Write metrics as a table, sorted by slice, metric and model.

    What is not a single number, and slices that are too small, have no rows in it.

    Args:
        path: The file to write; its folder exists.
        measured: The metrics, slice by slice in any order.
    """
    lines = [line for each in measured for line in _lines(each)]
    # Two lines of the same names, as of the slices n=1 and n='1', are told by the rest.
    lines.sort(key=lambda line: (line[:3], repr(line)))
    columns = zip(*lines, strict=True) if lines else [[] for _ in TABLE_SCHEMA]
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(list(values), field.type)
            for values, field in zip(columns, TABLE_SCHEMA, strict=True)
        ],
        schema=TABLE_SCHEMA,
    )
    with parquet.Writer(path, TABLE_SCHEMA) as writer:
        writer.write(batch)


def read_table(path: Path) -> pa.Table:
    """Return the rows of a file that `write_table` wrote, with `TABLE_SCHEMA`.

    Raises:
        DataError: If there is no such file, or it is something else.
    """
    if not path.is_file():
        raise DataError(
            f"There is no table of metrics at '{path}'. Run the Evaluator that writes "
            "it again."
        )
    found = parquet.file_schema(path)
    plain = pa.schema([(field.name, field.type) for field in TABLE_SCHEMA])
    if found != plain:
        raise DataError(
            f"'{path}' is no table of metrics: it has the columns "
            f"{quoted(found.names)} of other names or types than {quoted(plain.names)}."
            " Give the file that an Evaluator wrote."
        )
    groups = range(len(parquet.group_rows(path)))
    batches = [batch for index in groups for batch in parquet.read_group(path, index)]
    return pa.Table.from_batches(batches, plain).cast(TABLE_SCHEMA)


def _lines(measured: SliceMetrics) -> Iterator[_Line]:
    texts = metric_texts(measured.metrics)
    for name, found in measured.metrics.items():
        for model, value, interval in (
            (CANDIDATE, found.value, found.interval),
            (BASELINE, found.baseline, found.baseline_interval),
            (DIFFERENCE, found.difference, found.difference_interval),
        ):
            if value is not None:
                ends = _ends(interval)
                yield (
                    str(measured),
                    texts[name],
                    model,
                    value,
                    *ends[:3],
                    measured.rows,
                    ends[3],
                )


def _ends(interval: Interval | None) -> tuple[Any, Any, Any, str | None]:
    if interval is None:
        return None, None, None, None
    return interval.lower, interval.upper, interval.confidence, interval.method


def metric_texts(names: Iterable[MetricName]) -> dict[MetricName, str]:
    """Return what metrics are called where a text is all that tells them apart.

    A weighted one beside an unweighted one of the same name gets ` (weighted)`.
    """
    listed = list(names)
    texts = [str(name) for name in listed]
    return {
        name: f"{text} (weighted)" if name.weighted and texts.count(text) > 1 else text
        for name, text in zip(listed, texts, strict=True)
    }
