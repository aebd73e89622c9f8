"""Components on a real Flink cluster of two task managers: the same bytes as here."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import penstock.components as c
from penstock import Pipeline, RunContext, RunResult, run
from penstock.components.base import Canceled, Component
from penstock.components.evaluation import (
    EvalConfig,
    MetricConfig,
    MetricsSpec,
    ModelSpec,
    SlicingSpec,
    write_flavor,
)
from penstock.components.evaluation.results import read
from penstock.components.validation.protos import (
    read_anomalies,
    read_schema,
    read_statistics,
)
from penstock.pipelines.taxi import TRIPS_SCHEMA
from penstock.pipelines.taxi.evaluation import EVAL_CONFIG
from penstock.pipelines.taxi.model import train
from penstock.pipelines.taxi.trips import write_trips
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import DataError
from penstock.schemas.splits import Stratified
from tests.components.evaluation.conftest import IGNORED, make_examples, make_rows

pytestmark = [
    pytest.mark.flink,
    *(pytest.mark.filterwarnings(text) for text in IGNORED),
]

CHECKOUT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("PENSTOCK_FLINK", CHECKOUT / ".flink"))


class Cluster(NamedTuple):
    """The cluster that scripts/flink starts.

    Attributes:
        options: Beam options for it.
        url: Of Flink's REST interface.
    """

    options: tuple[str, ...]
    url: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as page:
            return json.load(page)

    def newest_job(self) -> dict[str, Any]:
        jobs = self.get("/jobs/overview")["jobs"]
        newest: dict[str, Any] = max(jobs, key=lambda job: job["start-time"])
        return newest

    def task_managers_of(self, job: str) -> set[str]:
        """Return the task managers that had tasks of a job."""
        return {
            each["taskmanager-id"]
            for vertex in self.get(f"/jobs/{job}")["vertices"]
            for each in self.get(f"/jobs/{job}/vertices/{vertex['id']}/taskmanagers")[
                "taskmanagers"
            ]
        }


@pytest.fixture
def flink() -> Cluster:
    """The cluster, with all its parts running."""

    def scripts_flink(verb: str) -> str:
        return subprocess.run(
            [CHECKOUT / "scripts" / "flink", verb],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    options = tuple(scripts_flink("start").split())
    (url,) = re.findall(r"(http://\S+)/jobs", scripts_flink("status"))
    return Cluster(options, url)


def ran(component: Component, folder: Path, options: tuple[str, ...] = ()) -> Any:
    """Run a component by hand; return it with its outputs."""
    live = component.with_outputs(folder)
    live.run(RunContext.local(folder / "temp", beam_args=options))
    return live


# The taxi pipeline ---------------------------------------------------------------


def taxi_pipeline(data: Path) -> Pipeline:
    """The taxi pipeline, with a schema of both kinds; its trips have an anomaly."""
    ingest = c.CsvExampleGen(input_dir=data, splits={"train": 4, "eval": 1})
    stats = c.StatisticsGen(examples=ingest.examples)
    inferred = c.SchemaGen(statistics=stats.statistics)
    curated = c.ImportSchemaGen(schema_file=TRIPS_SCHEMA)
    check = c.ExampleValidator(
        statistics=stats.statistics, schema=curated.schema, environment="TRAINING"
    )
    trainer = c.Trainer(
        examples=ingest.examples, schema=curated.schema, train_fn=train, train_steps=60
    )
    evaluator = c.Evaluator(
        examples=ingest.examples, model=trainer.model, eval_config=EVAL_CONFIG
    )
    return Pipeline(
        "taxi", [ingest, stats, inferred, curated, check, trainer, evaluator]
    )


def test_the_taxi_pipeline_gives_the_same_results(
    tmp_path: Path, flink: Cluster
) -> None:
    write_trips(tmp_path / "trips", rows=1_500, days=3, fault="new_payment_type")
    pipeline = taxi_pipeline(tmp_path / "trips")
    here = run(pipeline, tmp_path / "here")
    earlier = {job["jid"] for job in flink.get("/jobs/overview")["jobs"]}
    there = run(pipeline, tmp_path / "there", beam_args=flink.options)
    assert_same(pipeline, here, there)

    jobs = flink.get("/jobs/overview")["jobs"]
    added = [job for job in jobs if job["jid"] not in earlier]
    assert [job["state"] for job in added] == ["FINISHED"] * len(added)
    assert len(added) >= 3  # of the components that open Beam pipelines
    assert max(len(flink.task_managers_of(job["jid"])) for job in added) == 2


def assert_same(pipeline: Pipeline, here: RunResult, there: RunResult) -> None:
    pairs: dict[tuple[str, str], tuple[Any, Any]] = {
        (each.name, key): (here.artifact(made), there.artifact(made))
        for each in pipeline.components
        for key, made in each.outputs.items()
    }
    one, other = pairs["CsvExampleGen", "examples"]
    assert one.digest == other.digest
    one, other = pairs["StatisticsGen", "statistics"]
    for split in ("train", "eval"):
        assert read_statistics(one, split).datasets[0].num_examples > 500
        assert read_statistics(one, split) == read_statistics(other, split)
    for name in ("SchemaGen", "ImportSchemaGen"):
        one, other = pairs[name, "schema"]
        assert len(read_schema(one.file).feature) == 18
        assert read_schema(one.file) == read_schema(other.file)
    one, other = pairs["ExampleValidator", "anomalies"]
    found = read_anomalies(one, "train")
    assert "payment_type" in found.anomaly_info
    for split in ("train", "eval"):
        assert read_anomalies(one, split) == read_anomalies(other, split)
    one, other = pairs["Evaluator", "evaluation"]
    assert_same_metrics(one.path, other.path)
    blessings = pairs["Evaluator", "blessing"]
    assert blessings[0].answer is blessings[1].answer


def assert_same_metrics(one: Path, other: Path) -> None:
    mine = {each.slice: each.metrics for each in read(one)}
    peers = {each.slice: each.metrics for each in read(other)}
    assert mine.keys() == peers.keys()
    assert len(mine) > 2
    for key, metrics in mine.items():
        assert metrics.keys() == peers[key].keys()
        for name, found in metrics.items():
            value = peers[key][name].value
            assert found.value == pytest.approx(value, rel=1e-9, abs=0, nan_ok=True)


# Every other graph ---------------------------------------------------------------


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trips")
    write_trips(folder, rows=400, days=2)
    return folder


STRATA = Stratified("payment_type", {"train": 2, "eval": 1})
OWN_SPLITS = {"one": "*-01.csv", "two": "*-02.csv"}


def test_other_components_of_ingestion_write_the_same_files(
    tmp_path: Path, trips: Path, flink: Cluster
) -> None:
    csv = c.CsvExampleGen(
        input_dir=trips, input_splits=OWN_SPLITS, file_format="tfrecords_gzip"
    )
    records = ran(csv, tmp_path / "records").examples
    columns = ran(c.CsvExampleGen(input_dir=trips), tmp_path / "columns").examples
    components: list[Component] = [
        csv,
        c.CsvExampleGen(name="strata", input_dir=trips, splits=STRATA),
        c.ImportExampleGen(input_dir=records.path, pattern="Split-*/*"),
        c.ParquetExampleGen(
            input_dir=columns.path,
            input_splits={name: f"Split-{name}/*" for name in ("train", "eval")},
        ),
    ]
    for component in components:
        here = ran(component, tmp_path / "here" / component.name)
        there = ran(component, tmp_path / "there" / component.name, flink.options)
        assert here.examples.properties == there.examples.properties
        assert folder_digest(here.examples.path) == folder_digest(there.examples.path)


def config(*metrics: MetricConfig) -> EvalConfig:
    return EvalConfig(
        model_specs=[ModelSpec(label_key="big")],
        slicing_specs=[SlicingSpec(), SlicingSpec(feature_keys=["payment"])],
        metrics_specs=[MetricsSpec(metrics=list(metrics))],
    )


class Waiting(NamedTuple):
    """Examples, and a model that answers when it may: see waiting_model.py."""

    examples: Examples
    model: Model
    called: Path
    may_answer: Path

    def evaluator(self, *metrics: str) -> c.Evaluator:
        """Evaluate by its metrics, as TFMA's names and settings."""
        named = [each.partition(" ") for each in ("AUC", "ExampleCount", *metrics)]
        return c.Evaluator(
            examples=self.examples,
            model=self.model,
            example_splits=("train", "eval"),
            eval_config=config(
                *(MetricConfig(class_name=name, config=how) for name, _, how in named)
            ),
        )

    def process(self) -> int:
        """Wait until a worker calls the model; return its process."""
        return int(await_one(lambda: next(self.called.iterdir(), None)).name)


def await_one(find: Callable[[], Any], seconds: float = 120) -> Any:
    """Return what a function finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.1)
    raise AssertionError("It did not come in time.")


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    folder = tmp_path / "model" / "Format-Serving"
    folder.mkdir(parents=True)
    # By a name that workers know, too: scripts/test-flink puts it on their path.
    write_flavor(folder, loader="waiting_model:load", columns=["fare"])
    (tmp_path / "model" / "called").mkdir()
    made = Waiting(
        make_examples(
            tmp_path / "examples", train=make_rows(400, seed=1), eval=make_rows(300)
        ),
        Model(tmp_path / "model"),
        tmp_path / "model" / "called",
        tmp_path / "model" / "may-answer",
    )
    yield made
    made.may_answer.touch()


def test_what_tfma_computes_is_the_same(
    tmp_path: Path, waiting: Waiting, flink: Cluster
) -> None:
    waiting.may_answer.touch()
    evaluator = waiting.evaluator('Poisson "dtype": "float64"')
    here = ran(evaluator, tmp_path / "here")
    there = ran(evaluator, tmp_path / "there", flink.options)
    assert "poisson" in here.evaluation.properties
    assert_same_metrics(here.evaluation.path, there.evaluation.path)


def test_the_guide_runs(tmp_path: Path, flink: Cluster) -> None:
    guide = (CHECKOUT / "docs" / "runners.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    printed = []
    for name, options in (("here", ()), ("there", flink.options)):
        (tmp_path / name).mkdir()  # with a root of its own: nothing is cached
        (tmp_path / name / "describe.py").write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "describe.py", *options],
            cwd=tmp_path / name,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert printed[0].startswith("complete {'train': ")


# What goes wrong -----------------------------------------------------------------


def test_workers_that_do_not_see_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trips: Path, flink: Cluster
) -> None:
    shutil.copytree(trips, tmp_path / "trips")
    monkeypatch.chdir(tmp_path)
    folder = Path("/proc/self/cwd/trips")  # another process has another one
    component = c.CsvExampleGen(input_dir=folder, input_splits=OWN_SPLITS)
    with pytest.raises(DataError) as caught:
        ran(component, tmp_path / "out", flink.options)
    assert re.fullmatch(
        r"A Beam worker finds no '/proc/self/cwd/trips/trips-2013-05-0[12].csv', which "
        r"is there on this machine\. Workers read and write artifacts themselves: keep "
        r"the root and the input on a file system that all of them mount, under the "
        r"same path as here\.",
        str(caught.value),
    )


def test_a_component_is_refused_as_in_this_process(
    tmp_path: Path, flink: Cluster
) -> None:
    rows = make_rows(50)
    rows = rows.append_column("wrong", [[-1.0] * 50])
    examples = make_examples(tmp_path / "examples", train=rows)
    component = c.StatisticsGen(examples=examples, weight_feature="wrong")
    with pytest.raises(DataError) as caught:
        ran(component, tmp_path / "out", flink.options)
    (file,) = examples.files("train")
    assert str(caught.value) == (
        f"Split 'train', file '{file}': Weight feature 'wrong' holds -1.0, which is no "
        "weight. Use finite numbers of at least 0."
    )


def in_background(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Call a function in a thread; return that, and where its outcome will be."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, outcome


def listener(port: int) -> int:
    """Return the process that listens on a port of this machine."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{words[9]}]")
    for name in ("taskmanager-1", "taskmanager-2"):
        process = (HOME / f"{name}.pid").read_text().strip()
        for descriptor in Path("/proc", process, "fd").iterdir():
            if os.readlink(descriptor) in sockets:
                return int(process)
    raise AssertionError(f"No task manager listens on port {port}.")


def test_a_task_manager_killed_in_the_middle_is_survived(
    tmp_path: Path, waiting: Waiting, flink: Cluster
) -> None:
    evaluator = waiting.evaluator()
    thread, outcome = in_background(
        lambda: ran(evaluator, tmp_path / "there", flink.options)
    )
    worker = waiting.process()
    command = Path("/proc", str(worker), "cmdline").read_text().split("\0")
    (port,) = (each[10:] for each in command if each.startswith("localhost:"))
    task_manager = listener(int(port))
    os.kill(task_manager, signal.SIGKILL)
    waiting.may_answer.touch()
    thread.join(240)
    assert not isinstance(outcome[0], BaseException), outcome[0]

    job = flink.newest_job()
    assert job["state"] == "FINISHED"
    assert flink.get(f"/jobs/{job['jid']}/exceptions")["exceptionHistory"]["entries"]
    assert not Path("/proc", str(task_manager), "exe").exists()
    here = ran(evaluator, tmp_path / "here")
    for name in ("metrics", "table.parquet", "validations"):
        (one,), (other,) = (
            list(each.evaluation.path.glob(f"{name}*")) for each in (here, outcome[0])
        )
        assert one.read_bytes() == other.read_bytes()


def test_the_job_of_a_canceled_component_ends_and_writes_nothing(
    tmp_path: Path, waiting: Waiting, flink: Cluster
) -> None:
    thread, outcome = in_background(
        lambda: ran(waiting.evaluator(), tmp_path / "there", flink.options)
    )
    waiting.process()
    assert flink.newest_job()["state"] == "RUNNING"
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Canceled)
    )
    thread.join(30)
    assert isinstance(outcome[0], Canceled)
    # As a run does. Beam's job server is told, but cancels no batch job of Flink: that
    # ends when it finds no folder to write to.
    shutil.rmtree(tmp_path / "there" / "temp")
    waiting.may_answer.touch()
    await_one(lambda: flink.newest_job()["state"] in ("CANCELED", "FAILED"))
    assert not (tmp_path / "there" / "temp").exists()
