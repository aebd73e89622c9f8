"""Sliced evaluation: our Evaluator against TFMA's own pipeline, and a bare loop.

Five metrics in all rows, by payment type and by zone, of the taxi model on generated
trips. The peer is what a TFX Evaluator runs: ExtractEvaluateAndWriteResults on TFRecord
files of tf.Example, with TFMA's default extractors; over 100,000 rows it is measured on
the first 100,000 and its time extrapolated. The bare loop reads with our reader and
calls the signature, and does nothing else; the best of three batch sizes counts.

Every figure is of a fresh process that has imported what it needs before the clock
starts; loading the model counts. The models are trained once and kept.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._children import ask, measured, median

if TYPE_CHECKING:
    from penstock.schemas.artifacts import Examples, Model

DAYS = 5
MOST_PEER_ROWS = 100_000
SLOW_PEER_SECONDS = 60
BARE_BATCHES = (2_000, 10_000, 50_000)
METRICS = ("AUC", "BinaryAccuracy", "Precision", "Recall", "Calibration")
LABEL, SCORE, ZONE = "big_tipper", "score", "zone"
STEPS = {"candidate": 300, "baseline": 150}

# What a process measures; "logged" is without a model, on predictions in a column.
OURS = ("ours", "ours-intervals", "ours-logged", "ours-logged-intervals")
PAIRED = ("ours-paired", "ours-paired-intervals")
PEERS = ("peer", "peer-logged")


def main(argv: list[str]) -> dict[str, Any]:
    """Generate trips, let all sides run in turn, and return the medians."""
    parser = argparse.ArgumentParser(prog="evaluation", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--slices", type=int, default=10, help="how many zones")
    parser.add_argument("--runs", type=int, default=3, help="of each side")
    parser.add_argument("--no-peer", action="store_true", help="leave TFMA out")
    parser.add_argument("--no-pairs", action="store_true", help="only one model")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return _child(options.child, options.folder, options.rows, options.slices)

    folder = Path(tempfile.mkdtemp(prefix="evaluation-", dir=options.folder))
    try:
        return _compared(folder, options)
    finally:
        shutil.rmtree(folder)


def _compared(folder: Path, options: Any) -> dict[str, Any]:
    def process(name: str, rows: int = options.rows) -> dict[str, Any]:
        return ask(
            "evaluation",
            name,
            *("--folder", str(folder)),
            *("--rows", str(rows)),
            *("--slices", str(options.slices)),
        )

    process("prepare")
    peer_rows = min(options.rows, MOST_PEER_ROWS)
    bare = [f"bare-{size}" for size in BARE_BATCHES]
    names = [*OURS, *([] if options.no_pairs else PAIRED), *bare]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*names, *PEERS)}
    for _ in range(options.runs):
        for name in names:
            found[name].append(process(name))
        for name in () if options.no_peer else PEERS:
            if not found[name] or found[name][0]["seconds"] <= SLOW_PEER_SECONDS:
                found[name].append(process(name, peer_rows))
    seconds = {name: median(each) for name, each in found.items() if each}
    best = min(bare, key=seconds.__getitem__)
    result: dict[str, Any] = {
        "ratio": None,
        "ratio_logged": None,
        "ratio_to_bare_loop": _ratio(seconds["ours"], seconds[best]),
        "bootstrap_overhead": _overhead(seconds, "ours"),
        "bootstrap_overhead_logged": _overhead(seconds, "ours-logged"),
        "bootstrap_overhead_paired": None,
        "max_relative_difference": None,
        "peak_memory_gib": max(each["peak_memory_gib"] for each in found["ours"]),
        "rows_per_second": {
            name: round(options.rows / seconds[name])
            for name in (*OURS, *PAIRED, *bare)
            if name in seconds
        },
        "seconds": seconds,
        "bare_batch_rows": int(best.removeprefix("bare-")),
        "rows": options.rows,
        "slices": options.slices,
        "runs": options.runs,
        "peer_runs": len(found["peer"]),
        "peer_rows": peer_rows if found["peer"] else None,
        "peer_is_extrapolated": bool(found["peer"]) and peer_rows < options.rows,
        "versions": {
            name: version(name)
            for name in (
                "tensorflow-model-analysis",
                "tensorflow",
                "apache-beam",
                "pyarrow",
                "numpy",
            )
        },
    }
    if not options.no_pairs:
        result["bootstrap_overhead_paired"] = _overhead(seconds, "ours-paired")
    if not options.no_peer:
        share = peer_rows / options.rows
        result["ratio"] = _ratio(seconds["peer"] / share, seconds["ours"])
        result["ratio_logged"] = _ratio(
            seconds["peer-logged"] / share, seconds["ours-logged"]
        )
        result["rows_per_second"] |= {
            name: round(peer_rows / seconds[name]) for name in PEERS
        }
        result |= process("differences", peer_rows)
        del result["benchmark"], result["set"]
    return result


def _ratio(one: float, other: float) -> float:
    return round(one / other, 2)


def _overhead(seconds: dict[str, float], name: str) -> float:
    """Return what intervals add, as a share of the time without them."""
    return round(seconds[f"{name}-intervals"] / seconds[name] - 1, 3)


# --- in the child processes ----------------------------------------------------------


def _child(name: str, folder: Path, rows: int, slices: int) -> dict[str, Any]:
    if name == "prepare":
        _prepare(folder, rows, slices)
        return {}
    if name == "differences":
        return _differences(folder)
    work = folder / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    if name in PEERS:
        return measured(_peer(folder, work, logged=name == "peer-logged"))
    if name.startswith("bare-"):
        return measured(_bare_loop(folder, int(name.removeprefix("bare-"))))
    models = _models()
    logged = "logged" in name
    return measured(
        ours(
            work,
            examples=_examples(folder),
            model=None if logged else models["candidate"],
            baseline=models["baseline"] if "paired" in name else None,
            confidence=0.95 if name.endswith("intervals") else None,
        )
    )


def ours(
    work: Path,
    *,
    examples: Examples,
    model: Model | None,
    baseline: Model | None = None,
    confidence: float | None = None,
) -> Callable[[], dict[str, Any] | None]:
    """Return what evaluates with our component.

    Args:
        work: Where to write.
        examples: The rows.
        model: The candidate; None for predictions that are a column.
        baseline: Its baseline, if there is one.
        confidence: Of intervals by 1,000 replicates; None for no intervals.
    """
    import jinja2
    import tensorflow as tf

    from penstock.components.base import RunContext
    from penstock.components.evaluation import (
        Evaluator,
        engine,
        models,
        report,
        results,
        saved_model,
    )

    imported = (engine, jinja2, models, report, results, saved_model, tf.io)
    assert all(imported)
    evaluator = Evaluator(
        examples=examples,
        model=model,
        baseline=baseline,
        eval_config=_eval_config(logged=model is None),
        confidence=confidence,
    ).with_outputs(work / "out")

    def run() -> None:
        evaluator.run(RunContext.local(work / "temporary"))

    return run


def _bare_loop(folder: Path, batch_rows: int) -> Callable[[], dict[str, Any] | None]:
    import tensorflow as tf

    from penstock.components.columns.examples import read_batches, schema_of
    from penstock.components.columns.inputs import Inputs
    from penstock.components.evaluation import ModelSpec, models, saved_model

    assert all((saved_model, tf.io))
    examples = _examples(folder)
    (model, _) = _models().values()

    def run() -> None:
        spec = ModelSpec(inference_batch_size=batch_rows)
        source = models.find("The model", model, spec, schema_of(examples))
        predictor = models.load(source)
        for batch in read_batches(
            examples, "eval", columns=sorted(source.columns), batch_size=batch_rows
        ):
            predictor.predict(Inputs(batch, "eval"))

    return run


def _peer(
    folder: Path, work: Path, *, logged: bool
) -> Callable[[], dict[str, Any] | None]:
    import apache_beam as beam
    from tensorflow_model_analysis import constants
    from tensorflow_model_analysis.api import model_eval_lib
    from tfx_bsl.tfxio import tf_example_record

    config = _eval_config(logged=logged)
    config.model_specs[0].model_type = "" if logged else "tf_generic"
    model = None
    if not logged:
        model = model_eval_lib.default_eval_shared_model(
            str(_models()["candidate"].serving_dir), eval_config=config, tags=["serve"]
        )
    reader = tf_example_record.TFExampleRecord(
        str(folder / "records" / "*.gz"),
        raw_record_column_name=constants.ARROW_INPUT_COLUMN,
    )
    # The runner that DirectRunner stands for in the old set; the current set's would
    # look for a Prism binary to download.
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"

    def run() -> None:
        with beam.Pipeline(runner) as root:
            _ = (
                root
                | "Read" >> reader.BeamSource()
                | "Evaluate"
                >> model_eval_lib.ExtractEvaluateAndWriteResults(
                    eval_shared_model=model,
                    eval_config=config,
                    output_path=str(work / "out"),
                )
            )

    return run


def _eval_config(*, logged: bool) -> Any:
    from penstock.components.evaluation import (
        EvalConfig,
        MetricConfig,
        MetricsSpec,
        ModelSpec,
        SlicingSpec,
    )

    spec = ModelSpec(label_key=LABEL)
    if logged:
        spec.prediction_key = SCORE
    else:
        spec.signature_name = "serving_default"
    return EvalConfig(
        model_specs=[spec],
        slicing_specs=[
            SlicingSpec(),
            SlicingSpec(feature_keys=["payment_type"]),
            SlicingSpec(feature_keys=[ZONE]),
        ],
        metrics_specs=[
            MetricsSpec(metrics=[MetricConfig(class_name=name) for name in METRICS])
        ],
    )


def _differences(folder: Path) -> dict[str, Any]:
    """Evaluate the rows of the peer; return the largest relative difference."""
    work = folder / "compared"
    examples = _examples(folder, "peer-examples")
    ours(work, examples=examples, model=_models()["candidate"])()
    mine = dict(_values(work / "out" / "evaluation"))
    theirs = dict(_values(folder / "peer" / "out"))
    if mine.keys() != theirs.keys():
        raise RuntimeError(f"Other values: {mine.keys() ^ theirs.keys()}")
    largest = max(_difference(mine[key], theirs[key]) for key in theirs)
    return {"max_relative_difference": largest, "values_compared": len(theirs)}


def _difference(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    return abs(one - other) / max(abs(other), 1e-12)


def _values(folder: Path) -> Iterator[tuple[Any, float]]:
    """Yield the values of metrics, by slice and name, as TFMA reads them."""
    from tensorflow_model_analysis.api import model_eval_lib

    for slice_key, outputs in model_eval_lib.load_eval_result(
        str(folder)
    ).slicing_metrics:
        for name, value in outputs[""][""].items():
            if "doubleValue" in value:
                yield (slice_key, name), float(value["doubleValue"])  # NaN is a text


# --- the input -----------------------------------------------------------------------


def _prepare(folder: Path, rows: int, slices: int) -> None:
    """Train the models that are not there, and write the rows for all sides."""
    from penstock.components.columns import parquet, tf_example, tfrecord
    from penstock.components.columns.examples import read_batches

    _models()
    names = ("examples", "peer-examples")
    for name in (*(f"{each}/Split-eval" for each in names), "records"):
        (folder / name).mkdir(parents=True)
    writers: dict[str, parquet.Writer] = {}
    first = 0
    with tfrecord.Writer(folder / "records" / "data.gz") as records:
        for trips in read_batches(_trips(folder, rows), "eval"):
            batch = _scored(trips.slice(0, rows - first), first, slices)
            fewer = batch.slice(0, max(0, MOST_PEER_ROWS - first))
            for name, part in zip(names, (batch, fewer), strict=True):
                file = (
                    folder / name / "Split-eval" / "data_parquet-00000-of-00001.parquet"
                )
                if name not in writers:
                    writers[name] = parquet.Writer(file, batch.schema)
                writers[name].write(part)
            records.write(tf_example.encode(fewer))
            first += batch.num_rows
            if first == rows:
                break
    for writer in writers.values():
        writer.close()


def _trips(folder: Path, rows: int) -> Examples:
    from penstock.components.base import RunContext
    from penstock.components.ingestion import CsvExampleGen
    from penstock.pipelines.taxi.trips import write_trips

    write_trips(folder / "csv", rows=-(-rows // DAYS), days=DAYS)
    ingest = CsvExampleGen(input_dir=folder / "csv", splits={"eval": 1})
    ingest = ingest.with_outputs(folder / "ingested")
    ingest.run(RunContext.local(folder / "temporary"))
    return ingest.examples


def _scored(trips: Any, first: int, slices: int) -> Any:
    """Return trips with their label, the candidate's score and a zone."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from penstock.components.columns.inputs import Inputs
    from penstock.components.evaluation import ModelSpec, models

    source = models.find("The model", _models()["candidate"], ModelSpec(), trips.schema)
    scores = models.load(source).predict(Inputs(trips, "eval"))[""].ravel()
    fare, tips = (
        pc.fill_null(trips.column(trips.schema.names.index(name)), 0.0)
        for name in ("fare", "tips")
    )
    zones = np.random.default_rng([7, first]).integers(0, slices, trips.num_rows)
    added = {
        LABEL: pc.greater(tips, pc.multiply(fare, 0.2)).cast(pa.int64()),
        # tf.Example has no float64, so that the peer would see other scores.
        SCORE: pa.array(scores.astype(np.float32).astype(np.float64)),
        ZONE: pa.array(zones),
    }
    return pa.RecordBatch.from_arrays(
        [*trips.columns, *added.values()], names=[*trips.schema.names, *added]
    )


def _examples(folder: Path, name: str = "examples") -> Examples:
    from penstock.schemas.artifacts import Examples

    properties = {"split_names": '["eval"]', "payload_format": "FORMAT_PARQUET"}
    return Examples(folder / name, properties=properties)  # type: ignore[arg-type]


def _models() -> dict[str, Model]:
    """Return the candidate and its baseline, trained the first time."""
    from penstock.pipelines.taxi import model as taxi
    from penstock.schemas.artifacts import Model

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    source = Path(taxi.__file__).read_bytes() + version("tensorflow").encode()
    place = cache / "penstock" / "benchmarks" / hashlib.sha256(source).hexdigest()[:16]
    for name, steps in STEPS.items():
        if not (place / name).is_dir():
            _train(place / name, steps)
    return {name: Model(place / name) for name in STEPS}


def _train(target: Path, steps: int) -> None:
    from penstock.components.base import RunContext
    from penstock.components.training import Trainer
    from penstock.components.validation import ImportSchemaGen
    from penstock.pipelines.taxi.model import train
    from penstock.pipelines.taxi.pipeline import TRIPS_SCHEMA

    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".training-", dir=target.parent))
    try:
        schema = ImportSchemaGen(schema_file=TRIPS_SCHEMA).with_outputs(work)
        schema.run(RunContext.local(work / "schema-temporary"))
        trainer = Trainer(
            examples=_trips(work, 50_000),
            schema=schema.schema,
            train_fn=train,
            train_steps=steps,
            train_splits=("eval",),
        ).with_outputs(work)
        trainer.run(RunContext.local(work / "trainer-temporary"))
        trainer.model.path.rename(target)
    finally:
        shutil.rmtree(work)
