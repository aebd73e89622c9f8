"""Artifacts wired to inputs of another type, and outputs that do not exist."""

from __future__ import annotations

from pathlib import Path

from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

import penstock.components as c
from penstock import LatestBlessed
from penstock.schemas.artifacts import Examples, Model

ingest = c.CsvExampleGen(input_dir=Path("data"), splits={"train": 4, "eval": 1})
stats = c.StatisticsGen(examples=ingest.examples)
schema = c.SchemaGen(statistics=stats.statistics)
check = c.ExampleValidator(statistics=stats.statistics, schema=schema.schema)
trainer = c.Trainer(examples=ingest.examples, anomalies=check.anomalies)

c.StatisticsGen(
    examples=stats.statistics,  # E: incompatible type "ExampleStatistics"; expected "Examples"
)
c.StatisticsGen(
    examples=ingest.statistics,  # E: "CsvExampleGen" has no attribute "statistics"
)
c.StatisticsGen(
    examples=ingest,  # E: incompatible type "CsvExampleGen"; expected "Examples"
)
c.SchemaGen(
    statistics=schema.schema,  # E: incompatible type "Schema"; expected "ExampleStatistics"
)
c.ExampleValidator(
    statistics=stats.statistics,
    schema=stats.statistics,  # E: incompatible type "ExampleStatistics"; expected "Schema"
)
c.Trainer(
    examples=ingest.examples,
    anomalies=stats.statistics,  # E: incompatible type "ExampleStatistics"
    base_model=ingest.examples,  # E: incompatible type "Examples"
)
c.Evaluator(
    examples=ingest.examples,
    model=trainer.model_run,  # E: incompatible type "ModelRun"; expected "Model | None"
    baseline=LatestBlessed(),
    eval_config=EvalConfig(),
)
c.Pusher(
    model=trainer.model,
    blessing=check.anomalies,  # E: incompatible type "ExampleAnomalies"; expected "ModelBlessing | None"
    serving_dir=Path("serving"),
)
c.Pusher(
    model=Examples("data"),  # E: incompatible type "Examples"; expected "Model"
    serving_dir=Path("serving"),
)
c.Pusher(  # E: "blesing" for "Pusher"; did you mean "blessing"?
    model=Model("model"),
    blesing=None,
    serving_dir=Path("serving"),
)
