"""Every component of penstock keeps the contract, on artifacts that they made."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

import penstock.components as c
from penstock.components import contract
from penstock.components.base import Component, RunContext
from penstock.components.monitoring.log_format import LogFormat
from penstock.schemas.artifacts import Examples
from tests.contract.chain import train

C = TypeVar("C", bound=Component)

# What TFMA and Beam say of their own dependencies and of old interfaces is not ours.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{name}")
    for name in (
        "FutureWarning",
        "DeprecationWarning",
        "UserWarning",
        "RuntimeWarning",
        "ResourceWarning",
        "pytest.PytestUnraisableExceptionWarning",
    )
]


class Chain:
    """Examples of every component, each reading what the ones before it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serving_dir = folder / "serving"
        self.monitor_dir = folder / "monitoring"
        self.labels_dir = folder / "labels"
        data = folder / "data"
        data.mkdir()
        numbers = random.Random(0)
        with open(data / "trips.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["fare", "hour", "payment", "big"])
            for _ in range(300):
                fare = round(numbers.gammavariate(3, 5), 2)
                is_big = int(fare + numbers.gauss(0, 5) > 15)
                payment = numbers.choice(["Card", "Cash", ""])
                writer.writerow([fare, numbers.randrange(24), payment, is_big])
        splits = {"train": 1, "eval": 1}
        ingest = self.done(c.CsvExampleGen(input_dir=data, splits=splits))
        records = self.done(
            c.CsvExampleGen(
                name="records",
                input_dir=data,
                splits=splits,
                file_format="tfrecords_gzip",
            )
        )
        statistics = self.done(c.StatisticsGen(examples=ingest.examples))
        schema = self.done(c.SchemaGen(statistics=statistics.statistics))
        validator = self.done(
            c.ExampleValidator(statistics=statistics.statistics, schema=schema.schema)
        )
        trainer = self.done(
            c.Trainer(
                examples=ingest.examples,
                schema=schema.schema,
                anomalies=validator.anomalies,
                train_fn=train,
            )
        )
        evaluator = self.done(
            c.Evaluator(
                examples=ingest.examples,
                model=trainer.model,
                eval_config=self.eval_config(),
            )
        )
        log = folder / "log.csv"
        log.write_text(
            "trip,at,fare\n"
            + "".join(f"{i},2026-11-30T06:00:{i:02},{i % 7}.5\n" for i in range(60))
        )
        # The span of a day: its rows do not say when they were logged.
        day = Examples(ingest.examples.path, properties={"span": 20_000})
        day.split_names = ingest.examples.split_names
        self.examples: dict[str, Component] = {
            type(each).__name__: each
            for each in (
                c.CsvExampleGen(input_dir=data, splits=splits),
                c.ParquetExampleGen(
                    input_dir=ingest.examples.path,
                    input_splits={"all": "Split-*/*"},
                ),
                c.ImportExampleGen(
                    input_dir=records.examples.path,
                    input_splits={"train": "Split-train/*", "eval": "Split-eval/*"},
                ),
                c.StatisticsGen(examples=ingest.examples),
                c.SchemaGen(statistics=statistics.statistics),
                c.ImportSchemaGen(schema_file=schema.schema.file),
                c.ExampleValidator(
                    statistics=statistics.statistics, schema=schema.schema
                ),
                c.Trainer(
                    examples=ingest.examples, schema=schema.schema, train_fn=train
                ),
                c.Evaluator(
                    examples=ingest.examples,
                    model=trainer.model,
                    schema=schema.schema,
                    eval_config=self.eval_config(),
                ),
                c.InfraValidator(
                    model=trainer.model,
                    examples=ingest.examples,
                    schema=schema.schema,
                    make_warmup=True,
                ),
                c.LogExampleGen(
                    log_dir=log,
                    window="2026-11-30",
                    format=LogFormat(id="trip", time="at"),
                    labels_dir=self.labels_dir,
                ),
                c.DriftMonitor(
                    examples=day,
                    reference=(ingest.examples,),
                    model="trips",
                    monitor_dir=self.monitor_dir,
                ),
                c.QualityMonitor(
                    examples=day,
                    label="big",
                    prediction="fare",
                    metrics=("MeanPrediction",),
                ),
                c.Pusher(
                    model=trainer.model,
                    blessing=evaluator.blessing,
                    serving_dir=self.serving_dir,
                ),
            )
        }

    def done(self, component: C) -> C:
        """Run a component by hand; return it with its outputs as facts."""
        live = component.with_outputs(self.folder / component.name)
        live.run(RunContext.local(self.folder / "temp" / component.name))
        return live

    @staticmethod
    def eval_config() -> Any:
        from penstock.components.evaluation import (
            EvalConfig,
            GenericValueThreshold,
            MetricConfig,
            MetricsSpec,
            MetricThreshold,
            ModelSpec,
            SlicingSpec,
        )

        half = GenericValueThreshold(lower_bound={"value": 0.5})
        accuracy = MetricConfig(
            class_name="BinaryAccuracy", threshold=MetricThreshold(value_threshold=half)
        )
        return EvalConfig(
            model_specs=[ModelSpec(label_key="big")],
            slicing_specs=[SlicingSpec(), SlicingSpec(feature_keys=["payment"])],
            metrics_specs=[MetricsSpec(metrics=[accuracy])],
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


SUBJECTS: dict[str, contract.Subject] = {}


@pytest.fixture
def subject(
    request: pytest.FixtureRequest,
    chain: Chain,
    tmp_path_factory: pytest.TempPathFactory,
) -> contract.Subject:
    """A component, run twice for all checks together."""
    name = request.param
    if name not in SUBJECTS:
        SUBJECTS[name] = contract.Subject(
            chain.examples[name],
            tmp_path_factory.mktemp(name),
            may_write={
                "Pusher": [chain.serving_dir],
                "DriftMonitor": [chain.monitor_dir],
                "LogExampleGen": [chain.labels_dir],
            }.get(name, []),
            # A model's bytes depend on what its process built before, which is why
            # runs train in processes of their own; its own tests hold it to that.
            # Monitors say when they looked.
            is_repeatable=name not in ("Trainer", "DriftMonitor", "QualityMonitor"),
        )
    return SUBJECTS[name]


@pytest.mark.parametrize("check", contract.CHECKS, ids=contract.name)
@pytest.mark.parametrize("subject", c.__all__, indirect=True)
def test_it_keeps_the_contract(
    subject: contract.Subject, check: Callable[[contract.Subject], None]
) -> None:
    check(subject)


def test_every_exported_component_has_an_example(chain: Chain) -> None:
    assert sorted(chain.examples) == sorted(c.__all__)


def test_the_guides_component_keeps_the_contract(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import sys

    path = Path(__file__).parents[2] / "docs" / "examples" / "column_counts.py"
    spec = importlib.util.spec_from_file_location("column_counts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "column_counts", module)
    spec.loader.exec_module(module)
    statistics = chain.examples["StatisticsGen"]
    assert isinstance(statistics, c.StatisticsGen)
    example = module.CountValues(examples=statistics.examples, column="payment")
    contract.check_component(example, tmp_path / "work")
