"""A window of logged predictions: cut out of a log, and measured slice by slice.

Rows that have a label are evaluated by the Evaluator's own engine, without a model:
predictions are a column. Rows that were logged with a probability count one over it.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.monitoring import logs
from penstock.components.monitoring.quality.history import (
    OVERALL,
    Point,
    QualityWindow,
)
from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.artifacts import Examples, ModelEvaluation
from penstock.schemas.errors import DataError, quoted

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

    from penstock.components.base import RunContext
    from penstock.components.evaluation.blessing import SliceMetrics

Array: TypeAlias = "np.ndarray[Any, Any]"

CONFIDENCE = 0.95
"""Of the intervals of metrics."""

WEIGHT = "log_weight"
"""Column of how many requests a row stands for."""

_SPLIT = "eval"
_WITHOUT_LABELS = (  # what can be estimated, and so have a threshold
    *("AUC", "AUCPrecisionRecall", "BinaryAccuracy", "BinaryCrossentropy"),
    *("F1Score", "MeanSquaredError", "Precision", "Recall", "Specificity"),
)


@dataclasses.dataclass(frozen=True)
class Question:
    """What is measured of a log, and where it stands there.

    Attributes:
        label: Column of the labels; null where none has come.
        prediction: Column of the predictions.
        probability: Column of the probability with which a row was logged; empty if
            all rows were.
        version: Column of the model's version; empty if there is none.
        time: Column of the time; empty if there is none.
        metrics: Names, as `AUC`; those that fit the labels if there are none.
        slices: Columns or expressions; every value is a slice.
        thresholds: Bounds, as `auc >= 0.8`.
        min_slice_size: Rows that a slice needs.
        replicates: Of bootstraps.
        seed: Of all that is drawn.
    """

    label: str
    prediction: str
    probability: str = ""
    version: str = ""
    time: str = ""
    metrics: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()
    min_slice_size: int = 100
    replicates: int = 1_000
    seed: int = 0


def read(
    examples: Examples, splits: Sequence[str], question: Question
) -> logs.LogTable:
    """Read the columns of logged rows that a question is about.

    Raises:
        DataError: If a column is not there, or rows are not as they should be.
    """
    from penstock.components.columns.examples import read_batches, schema_of
    from penstock.components.evaluation import slicing

    subject = f"Examples '{examples.source or examples.uri}'"
    has = schema_of(examples).names
    sliced: set[str] = set()
    for feature in question.slices:
        slicing.check_feature(feature, has, subject)
        sliced |= slicing.columns_of(feature, has)
    named = {
        "label": question.label,
        "prediction": question.prediction,
        "probability": question.probability,
        "version": question.version,
        "time": question.time,
    }
    for parameter, name in named.items():
        if name:
            logs.check_columns([name], has, subject, f"'{parameter}'")
    wanted = {*sliced, *filter(None, named.values())}
    columns = [name for name in has if name in wanted]
    batches = [
        batch
        for split in splits
        for batch in read_batches(examples, split, columns=columns)
    ]
    if not sum(batch.num_rows for batch in batches):
        raise DataError(
            f"{subject} has no rows in the splits {quoted(splits)}, so that there is "
            "nothing to measure. Ingest the log of a window with requests."
        )
    format = logs.LogFormat(
        time=question.time or None,
        version=question.version or None,
        probability=question.probability or None,
        scores=(question.prediction,),
        label=question.label,
        features=tuple(sorted(sliced - {question.label, question.prediction})),
    )
    # Logs are refused where they are ingested; here versions are told, and rows sorted.
    rules = logs.LogRules(on_mixed_versions="accept", on_backwards="accept")
    return logs.of_table(
        pa.Table.from_batches(batches), format=format, rules=rules, subject=subject
    )


def by_window(
    log: logs.LogTable, window: Window | None, *, has_time: bool
) -> list[tuple[Window, logs.LogTable]]:
    """Divide rows into windows, in the order of time.

    Args:
        log: The rows.
        window: The one that all are of; None to divide them into UTC days.
        has_time: Whether a column says the time of rows.

    Raises:
        DataError: If rows have a time outside of the window.
    """
    times = log.times
    if window is not None:
        if not has_time:
            return [(window, log)]
        outside = ~((times >= window.start) & (times < window.end))
        if outside.any():
            raise DataError(
                f"{log.subject} has {int(outside.sum()):,} of {len(times):,} rows that "
                f"are not of the window {window.name}. Give the log of that window, or "
                "no window, for all days that are in it."
            )
        return [(window, log)]
    days = np.floor(times / DAY).astype(np.int64)
    return [
        (Window(float(day) * DAY, float(day + 1) * DAY), log.only(days == day))
        for day in np.unique(days)
    ]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a window as arrays, in the order of time.

    Attributes:
        scores: Predictions of shape (rows,), NaN where there is none; empty if they
            are not single numbers.
        labels: Likewise; NaN where none has come.
        weights: Requests that each stands for; None for 1 each.
    """

    scores: Array
    labels: Array
    weights: Array | None

    @property
    def are_binary(self) -> bool:
        """Whether labels are 0 and 1, and predictions numbers between them."""
        if not len(self.scores):
            return False
        scores = self.scores[~np.isnan(self.scores)]
        labels = self.labels[~np.isnan(self.labels)]
        return bool(
            ((scores >= 0) & (scores <= 1)).all()
            and ((labels == 0) | (labels == 1)).all()
        )

    def where(self, kept: Array) -> Rows:
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[kept]
        return Rows(self.scores[kept], self.labels[kept], weights)


def arrays(log: logs.LogTable, question: Question) -> Rows:
    """Return predictions and labels as arrays."""
    weights = log.weights if question.probability else None
    scores, labels = (
        _numbers(log.table.column(name))
        for name in (question.prediction, question.label)
    )
    if len(scores) != log.rows or len(labels) != log.rows:
        scores, labels = np.zeros(0), np.zeros(0)
    return Rows(scores, labels, weights)


def _numbers(column: pa.ChunkedArray) -> Array:
    """Return a column of numbers, or of lists of one; empty if it is something else."""
    from penstock.components.columns.forms import is_list, list_parts

    if is_list(column.type):
        parts = [list_parts(chunk) for chunk in column.chunks]
        lengths = np.concatenate([np.asarray(each[0]) for each in parts])
        if (lengths > 1).any():
            return np.zeros(0)
        found = np.full(len(lengths), np.nan)
        values = pa.chunked_array([each[1] for each in parts])
        inner = _numbers(values)
        if len(inner) != int(lengths.sum()):
            return np.zeros(0)
        found[lengths == 1] = inner
        return found
    kinds = pa.types
    if kinds.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not (kinds.is_integer(column.type) or kinds.is_floating(column.type)):
        return np.zeros(0)
    array: Array = column.cast(pa.float64()).to_numpy()
    return array


def has_value(log: logs.LogTable, name: str) -> Array:
    """Return which rows have a value in a column, of shape (rows,)."""
    from penstock.components.columns.forms import is_list

    column = log.table.column(name)
    if is_list(column.type):
        there = pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
    else:
        there = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        there = pc.and_(there, pc.invert(pc.fill_null(pc.is_nan(column), True)))
    found: Array = there.to_numpy().astype(bool)
    return found


def is_number(log: logs.LogTable, name: str) -> Array:
    """Return which rows have no NaN in a column, of shape (rows,)."""
    from penstock.components.columns.forms import is_list, list_parts

    column = log.table.column(name)
    found = np.ones(len(column), np.bool_)
    first = 0
    for chunk in column.chunks:
        rows = np.arange(first, first + len(chunk))
        first += len(chunk)
        if is_list(chunk.type):
            lengths, chunk, _ = list_parts(chunk)
            rows = np.repeat(rows, np.asarray(lengths))
        if pa.types.is_floating(chunk.type):
            found[rows[np.asarray(pc.fill_null(pc.is_nan(chunk), False))]] = False
    return found


def measure(
    log: logs.LogTable,
    question: Question,
    config: EvalConfig,
    examples: Examples,
    evaluation: ModelEvaluation,
    context: RunContext,
) -> list[SliceMetrics]:
    """Evaluate rows that all have a label.

    Args:
        log: The rows.
        question: What is measured.
        config: The same for the Evaluator, by `config_of`.
        examples: What the rows were read from.
        evaluation: Where TFMA's files, the table and the page are written.
        context: Of the component that runs.

    Returns:
        All metrics, slice by slice, all rows first.
    """
    from penstock.components.base import RunContext
    from penstock.components.evaluation import Evaluator, results, table
    from penstock.schemas.artifacts import ModelBlessing

    folder = _new_folder(context)
    written = _written(log, question, examples, folder)
    evaluator = Evaluator(
        name="Quality",
        examples=written,
        eval_config=config,
        replicates=question.replicates,
        seed=question.seed,
    )
    blessing = folder / "blessing"
    blessing.mkdir()
    outputs = {"evaluation": evaluation, "blessing": ModelBlessing(blessing)}
    evaluator.bound({}, outputs).run(
        RunContext(
            run_id=context.run_id,
            temp_dir=folder,
            beam_args=context.beam_args,
            on_progress=context.progress,
        )
    )
    for file in written.files(_SPLIT):
        file.unlink()  # of many windows the temporary folder would hold all rows
    found = table.read_table(evaluation.path / table.TABLE_FILE)
    rows = dict(zip(found["slice"].to_pylist(), found["rows"].to_pylist(), strict=True))
    return [
        dataclasses.replace(each, rows=rows.get(str(each)))
        for each in results.read(evaluation.path)
    ]


class _Labeled(Examples):
    """The rows of other Examples that have a label, in a file of their own."""

    def __init__(self, examples: Examples, file: Path) -> None:
        super().__init__(
            examples.uri,
            properties={
                "split_names": f'["{_SPLIT}"]',
                "payload_format": "FORMAT_PARQUET",
                "file_format": "parquet",
            },
            source=examples.source,
        )
        self._file = file

    def files(self, split: str) -> tuple[Path, ...]:
        """Return the file."""
        self.require_split(split)
        return (self._file,)


def _new_folder(context: RunContext) -> Path:
    """Return a folder for what is temporary, which is removed with the context's."""
    return Path(tempfile.mkdtemp(dir=context.temp_dir))


def _written(
    log: logs.LogTable, question: Question, examples: Examples, folder: Path
) -> Examples:
    """Write rows of examples as Examples of one split."""
    from penstock.components.columns import parquet

    known = set(logs.KNOWN)
    table = log.table.select(
        [each for each in log.table.schema.names if each not in known]
    )
    if question.probability:
        table = table.append_column(WEIGHT, pa.array(log.weights))
    path = folder / "data_parquet-00000-of-00001.parquet"
    with parquet.Writer(path, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write(batch)
    return _Labeled(examples, path)


def config_of(
    log: logs.LogTable, question: Question, examples: Examples, context: RunContext
) -> EvalConfig:
    """Return the EvalConfig that a question stands for.

    Args:
        log: Rows that have labels, to see which metrics fit.
        question: What is measured.
        examples: What they were read from.
        context: Of the component that runs.
    """
    from penstock.components.evaluation import EvalConfig, shorthand

    config = EvalConfig()
    shorthand.name_columns(
        config,
        label=question.label,
        prediction=question.prediction,
        weight=WEIGHT if question.probability else "",
    )
    metrics: Sequence[str] = question.metrics
    if not metrics and not log.rows:
        metrics = _WITHOUT_LABELS
    elif not metrics:
        written = _written(log, question, examples, _new_folder(context))
        metrics = shorthand.usual_metrics(config, written, (_SPLIT,), None)
    shorthand.add_metrics(config, metrics)
    shorthand.add_slices(config, question.slices)
    shorthand.add_thresholds(config, question.thresholds, has_baseline=False)
    config.options.compute_confidence_intervals.value = True
    config.options.min_slice_size.value = question.min_slice_size
    return config


def points_of(measured: Sequence[SliceMetrics]) -> tuple[Point, ...]:
    """Return the numbers of metrics as they are stored, in one order."""
    from penstock.components.evaluation.table import metric_texts
    from penstock.components.monitoring.quality.trends import direction_of

    found = []
    for each in measured:
        if each.baseline_slice is not None:
            continue
        texts = metric_texts(each.metrics)
        for name, metric in each.metrics.items():
            if metric.value is None:
                continue
            ends = metric.interval
            value = metric.value
            if value == 0 and ends is None and direction_of(texts[name]) == 1:
                # TFMA's 0 of what is not defined, as the AUC of rows of one class: as a
                # number of a window it would look like a fall to nothing.
                value = math.nan
            found.append(
                Point(
                    texts[name],
                    str(each) if each.slice else OVERALL,
                    value,
                    ends.lower if ends else math.nan,
                    ends.upper if ends else math.nan,
                    each.rows or 0,
                )
            )
    return tuple(sorted(found, key=lambda each: (each.metric, each.slice)))


def window_of(
    log: logs.LogTable,
    window: Window,
    model: str,
    labeled: int,
    points: tuple[Point, ...] = (),
    detectors: dict[str, Any] | None = None,
) -> QualityWindow:
    """Return what is stored of a window."""
    versions = {name or "none said": rows for name, rows in log.versions.items()}
    return QualityWindow(
        window,
        model,
        {} if set(versions) == {"none said"} else versions,
        log.rows,
        labeled,
        CONFIDENCE,
        points,
        detectors or {},
    )
