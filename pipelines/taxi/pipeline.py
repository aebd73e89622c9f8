"""The taxi pipeline: CSV files in, a served model version out."""

from __future__ import annotations

from pathlib import Path

import penstock.components as c
import penstock.schemas
from penstock.pipelines.inputs import LatestBlessed
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.taxi.model import train

TRIPS_SCHEMA = Path(penstock.schemas.__file__).parent / "taxi_trips.pbtxt"
"""The curated schema of the trips."""


def taxi(data: Path, serving_dir: Path, *, train_steps: int = 1_000) -> Pipeline:
    """Train on the CSV files in `data`; push the model if it is blessed.

    Args:
        data: Folder of CSV files with the columns of `penstock.pipelines.taxi.trips`.
        serving_dir: Where the model is pushed as a numbered version.
        train_steps: How many batches of 256 trips to train on.
    """
    # Here and not above: it loads TensorFlow Model Analysis.
    from penstock.pipelines.taxi.evaluation import EVAL_CONFIG

    ingest = c.CsvExampleGen(input_dir=data, splits={"train": 4, "eval": 1})
    stats = c.StatisticsGen(examples=ingest.examples)
    # Curated: a schema inferred from the same trips would find nothing wrong.
    schema = c.ImportSchemaGen(schema_file=TRIPS_SCHEMA)
    check = c.ExampleValidator(
        statistics=stats.statistics, schema=schema.schema, environment="TRAINING"
    )
    trainer = c.Trainer(
        examples=ingest.examples,
        schema=schema.schema,
        anomalies=check.anomalies,
        train_fn=train,
        train_steps=train_steps,
    )
    evaluator = c.Evaluator(
        examples=ingest.examples,
        model=trainer.model,
        baseline=LatestBlessed(),
        eval_config=EVAL_CONFIG,
    )
    pusher = c.Pusher(
        model=trainer.model, blessing=evaluator.blessing, serving_dir=serving_dir
    )
    return Pipeline("taxi", [ingest, stats, schema, check, trainer, evaluator, pusher])
