"""Evaluation without a pipeline: one component runs on files and folders.

What it writes is what an Evaluator writes in a pipeline, and nothing is recorded.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.components.base import RunContext
from penstock.schemas.artifacts import (
    FLAVOR_FILE,
    Examples,
    Model,
    ModelBlessing,
    ModelEvaluation,
)
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from penstock.components.evaluation.blessing import SliceMetrics

_SPLIT = "eval"
_CONFIG_FILE = "eval_config.json"  # every evaluation has one
_MODEL_FILES = ("saved_model.pb", FLAVOR_FILE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of an evaluation.

    Attributes:
        label: Column of the labels, or a feature that the model computes; empty if
            the config names it.
        prediction: Column of the predictions, or, with a model, its output.
        weight: Column of example weights.
        cluster: Column of equal values in rows that are not independent.
        config: File of an EvalConfig, which the rest adds to.
        metrics: Class names; those that fit the labels if neither they nor the config
            name any.
        slices: Columns or expressions; every value is a slice.
        thresholds: Texts, as `shorthand.add_thresholds` takes them.
        confidence: Of the evidence that thresholds ask for; None for values.
        min_slice_size: Rows that a slice needs.
    """

    label: str = ""
    prediction: str = ""
    weight: str = ""
    cluster: str = ""
    config: Path | None = None
    metrics: Sequence[str] = ()
    slices: Sequence[str] = ()
    thresholds: Sequence[str] = ()
    confidence: float | None = None
    min_slice_size: int = 0


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What came of it.

    Attributes:
        measured: The metrics, all rows first, then slices by feature, the largest
            first.
        evaluation: Where everything was written.
        blessing: The verdict; its folder is gone.
        splits: What was evaluated.
    """

    measured: tuple[SliceMetrics, ...]
    evaluation: ModelEvaluation
    blessing: ModelBlessing
    splits: tuple[str, ...]


def evaluate(
    data: Path,
    question: Question,
    *,
    out: Path,
    model: Path | None = None,
    baseline: Path | None = None,
    splits: Sequence[str] = (),
    on_progress: Callable[[int], None] | None = None,
) -> Evaluated:
    """Evaluate a model, or predictions that are a column.

    Args:
        data: A file of Parquet, CSV or TFRecord, a folder of such files, or the folder
            of an Examples artifact.
        question: What to measure and what to ask of it.
        out: Folder for the results; new, empty, or with those of an evaluation.
        model: The candidate: folder of a SavedModel or of a Model artifact.
        baseline: Likewise, what it is compared with.
        splits: Of an Examples artifact; `eval`, or the only one, if none is named.
        on_progress: Called with the number of rows handled since the last call.

    Raises:
        PenstockError: If it cannot be done, with a sentence that says why.
    """
    from penstock.components.evaluation import Evaluator

    check_out(out)
    candidate = None if model is None else open_model(model)
    other = None if baseline is None else open_model(baseline)
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        scratch = Path(folder)
        examples, splits = open_data(data, splits, scratch)
        evaluator = Evaluator(
            name="Evaluation",
            examples=examples,
            model=candidate,
            baseline=other,
            eval_config=_config(question, examples, splits, candidate, other),
            example_splits=tuple(splits),
            confidence=question.confidence,
            cluster_key=question.cluster,
        )
        out.mkdir(parents=True, exist_ok=True)
        (scratch / "blessing").mkdir()
        (scratch / "temporary").mkdir()
        outputs = {
            "evaluation": ModelEvaluation(out.absolute()),
            "blessing": ModelBlessing(scratch / "blessing"),
        }
        live = evaluator.bound({}, outputs)
        live.run(
            RunContext(
                run_id="evaluate",
                temp_dir=scratch / "temporary",
                on_progress=on_progress,
            )
        )
    return Evaluated(
        _measured(live.evaluation), live.evaluation, live.blessing, tuple(splits)
    )


def _config(
    question: Question,
    examples: Examples,
    splits: Sequence[str],
    model: Model | None,
    baseline: Model | None,
) -> object:
    """Return the EvalConfig that a question stands for."""
    from penstock.components.columns.examples import schema_of
    from penstock.components.evaluation import EvalConfig, shorthand

    config = shorthand.read_config(question.config) if question.config else EvalConfig()
    shorthand.name_columns(
        config,
        label=question.label,
        prediction=question.prediction,
        weight=question.weight,
    )
    columns, specs = schema_of(examples).names, config.model_specs
    if model is not None:
        shorthand.compute_labels(config, model, columns)
    elif not any(each.prediction_key or each.prediction_keys for each in specs):
        raise PipelineError(
            "There is neither a model nor a column of predictions. Give a model's "
            f"folder, or the column (the data has {quoted(columns)})."
        )
    metrics = question.metrics
    if not metrics and not any(spec.metrics for spec in config.metrics_specs):
        metrics = shorthand.usual_metrics(config, examples, splits, model)
    if metrics:
        shorthand.add_metrics(config, metrics)
    shorthand.add_slices(config, question.slices)
    has_baseline = baseline is not None or any(each.is_baseline for each in specs)
    shorthand.add_thresholds(config, question.thresholds, has_baseline=has_baseline)
    config.options.compute_confidence_intervals.value = True
    if question.min_slice_size:
        config.options.min_slice_size.value = question.min_slice_size
    return config


def check_out(folder: Path) -> None:
    """Check that results may be written to a folder, and nothing else is lost.

    Raises:
        DataError: If it is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"'{folder}' is a file. Name a folder for the results.")
    is_used = folder.is_dir() and any(folder.iterdir())
    if is_used and not (folder / _CONFIG_FILE).is_file():
        raise DataError(
            f"Folder '{folder}' holds something else than an evaluation. Name a new "
            "folder for the results."
        )


class _Bare(Model):
    """A model that lies in a folder by itself, as a served version does."""

    @property
    def serving_dir(self) -> Path:
        """The folder."""
        return self.path


def open_model(folder: Path) -> Model:
    """Return a model: the folder of a Model artifact, of a SavedModel, of a version.

    Raises:
        DataError: If there is none.
    """
    _require(folder)
    artifact = Model(folder.absolute(), source=str(folder))
    for found in (artifact, _Bare(folder.absolute(), source=str(folder))):
        if any((found.serving_dir / name).is_file() for name in _MODEL_FILES):
            return found
    numbers = [each.name for each in folder.glob("[0-9]*") if each.name.isdecimal()]
    newest = max(numbers, key=int, default="")
    cure = (
        f"It has numbered folders; name one of them, as '{folder / newest}'"
        if newest
        else "Name the folder of a SavedModel or of a Model artifact"
    )
    raise DataError(
        f"'{folder}' is no model: it holds none of {quoted(_MODEL_FILES)}. {cure}."
    )


def _require(path: Path) -> None:
    if not path.exists():
        near = did_you_mean(path.name, [each.name for each in path.parent.glob("*")])
        raise DataError(f"There is no '{path}'.{near} Check the path.")


class _Loose(Examples):
    """Files that lie anywhere, as one split."""

    def __init__(self, uri: Path, files: Sequence[Path], source: str) -> None:
        super().__init__(
            uri, properties={"split_names": f'["{_SPLIT}"]'}, source=source
        )
        self._files = tuple(files)

    def files(self, split: str) -> tuple[Path, ...]:
        """Return the files."""
        self.require_split(split)
        return self._files


def open_data(
    data: Path, splits: Sequence[str], scratch: Path
) -> tuple[Examples, tuple[str, ...]]:
    """Return rows, and the splits that are meant.

    Parquet and TFRecord files are read where they are; CSV files are converted.

    Args:
        data: A file, a folder of files, or the folder of an Examples artifact.
        splits: What the user named.
        scratch: A folder for what is converted.

    Raises:
        DataError: If there is no data, or not of one kind.
    """
    _require(data)
    if data.is_dir() and any(data.glob("Split-*")):
        examples = Examples(data.absolute(), source=str(data))
        names = examples.split_names
        if not splits and _SPLIT not in names and len(names) > 1:
            raise DataError(
                f"Examples '{data}' have the splits {quoted(names)}. Name those to "
                "evaluate on."
            )
        return examples, tuple(splits) or ((_SPLIT,) if _SPLIT in names else names)
    if splits:
        raise DataError(
            f"'{data}' has no splits, and {quoted(splits)} are named. Name none, or "
            "the folder of an Examples artifact."
        )
    files = _files(data) if data.is_dir() else [data]
    kinds = {_kind(file): file for file in files}
    if len(kinds) > 1:
        raise DataError(
            f"Folder '{data}' holds files of several kinds: "
            + ", ".join(f"'{file.name}' is {kind}" for kind, file in kinds.items())
            + ". Name one file, or a folder of one kind."
        )
    (kind,) = kinds
    if kind == "CSV":
        files = _converted(files, scratch)
    elif kind == "Parquet":
        files = _alike(files, scratch)
    return _Loose(data.absolute(), files, str(data)), (_SPLIT,)


def _files(folder: Path) -> list[Path]:
    there = [each for each in folder.iterdir() if not each.name.startswith((".", "_"))]
    files = sorted(each for each in there if each.is_file())
    if not files:
        names = [each.name for each in there]
        raise DataError(
            f"Folder '{folder}' holds no file (it has {quoted(names)}). Name a file, a "
            "folder of files, or the folder of an Examples artifact."
        )
    return files


def _kind(file: Path) -> str:
    from penstock.components.columns import tfrecord

    with open(file, "rb") as opened:
        if opened.read(4) == b"PAR1":
            return "Parquet"
    return "TFRecord" if tfrecord.is_tfrecord(file) else "CSV"


def _alike(files: list[Path], scratch: Path) -> list[Path]:
    """Return Parquet files of the same types; converted if some have no values."""
    from penstock.components.columns import parquet
    from penstock.components.ingestion.parquet_files import common_schema

    schema = common_schema(files)
    if all(parquet.file_schema(file) == schema for file in files):
        return files
    return _converted(files, scratch, is_parquet=True)


def _converted(
    files: Sequence[Path], scratch: Path, *, is_parquet: bool = False
) -> list[Path]:
    """Return the rows of files as Parquet files of ours."""
    from penstock.components.ingestion import CsvExampleGen, ParquetExampleGen

    kind = ParquetExampleGen if is_parquet else CsvExampleGen
    (scratch / "input").mkdir()
    for file in files:
        (scratch / "input" / file.name).symlink_to(file.absolute())
    ingest = kind(input_dir=scratch / "input", input_splits={_SPLIT: "*"})
    live = ingest.with_outputs(scratch / "ingested")
    live.run(RunContext.local(scratch / "ingesting"))
    return list(live.examples.files(_SPLIT))


def _measured(evaluation: ModelEvaluation) -> tuple[SliceMetrics, ...]:
    """Return the metrics of an evaluation, with the rows of slices."""
    from penstock.components.evaluation import results, table

    lines = table.read_table(evaluation.path / table.TABLE_FILE)
    rows = dict(zip(lines["slice"].to_pylist(), lines["rows"].to_pylist(), strict=True))
    measured = [
        dataclasses.replace(each, rows=rows.get(str(each)))
        for each in results.read(evaluation.path)
    ]
    return tuple(
        sorted(
            measured,
            key=lambda each: (
                each.baseline_slice is not None,
                [name for name, _ in each.slice],
                -(each.rows or 0),
                str(each),
            ),
        )
    )
