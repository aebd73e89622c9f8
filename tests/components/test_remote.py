"""Beam on a portable runner: Beam's own, which keeps the graph in this process.

Steps are carried there and failures back as on a cluster; tests/e2e/test_flink.py has a
real one.
"""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from penstock import Pipeline, RunContext, run
from penstock.components import CsvExampleGen, StatisticsGen
from penstock.components.remote import WorkerFailed, check_job_server, explained
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import (
    ComponentFailed,
    DataError,
    PipelineError,
    ServingError,
)
from tests.components.validation.oracle import write_examples

CHECKOUT = Path(__file__).resolve().parents[2]
EMBEDDED = ("--runner=PortableRunner", "--job_endpoint=embed")
LOOPBACK = (*EMBEDDED, "--environment_type=LOOPBACK")


def failure(tmp_path: Path, step: Any) -> Exception:
    """Return what a pipeline raises one of whose steps does."""
    with (
        pytest.raises(Exception) as caught,
        RunContext.local(tmp_path, beam_args=LOOPBACK).beam_pipeline() as root,
    ):
        _ = root | beam.Create([1], reshuffle=False) | "Look at it" >> beam.Map(step)
    return caught.value


def refuse(number: int) -> None:
    try:
        float("1,5")
    except ValueError as error:
        raise DataError("The cell 'a' is '1,5'.\nWrite it as 1.5: 'dot'.") from error


def divide(number: int) -> float:
    return number / 0


def open_what_is_nowhere(number: int) -> None:
    os.stat("/no/such/file")


def test_what_a_worker_refuses_is_said_as_in_this_process(tmp_path: Path) -> None:
    error = failure(tmp_path, refuse)
    assert type(error) is DataError
    assert str(error) == "The cell 'a' is '1,5'.\nWrite it as 1.5: 'dot'."
    assert "while running 'Look at it'" in str(error.__cause__)


def test_a_defect_on_a_worker_is_told_with_its_place(tmp_path: Path) -> None:
    error = failure(tmp_path, divide)
    assert isinstance(error, WorkerFailed)
    assert str(error) == "ZeroDivisionError: division by zero"
    line = divide.__code__.co_firstlineno + 1
    assert error.place == f"divide (test_remote.py, line {line}) on a Beam worker"
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.type_name, copied.message_text, copied.place, str(copied)) == (
        error.type_name,
        error.message_text,
        error.place,
        str(error),
    )


def test_a_file_that_is_nowhere_is_no_question_of_sharing(tmp_path: Path) -> None:
    error = failure(tmp_path, open_what_is_nowhere)
    assert isinstance(error, WorkerFailed)
    assert error.message_text.endswith("No such file or directory: '/no/such/file'")


def test_what_a_runner_says_itself_stays_as_it_is(tmp_path: Path) -> None:
    said = RuntimeError("Pipeline job-1 failed in state FAILED: no slots.")
    assert explained(said) is said
    with (
        pytest.raises(ValueError, match="Unknown environment type: NONE"),
        RunContext.local(
            tmp_path, beam_args=(*EMBEDDED, "--environment_type=NONE")
        ).beam_pipeline() as root,
    ):
        _ = root | beam.Create([1], reshuffle=False)


def test_a_worker_of_flink_raised() -> None:
    # As Beam's job server says it, shortened.
    said = RuntimeError(
        "Pipeline BeamApp failed in state FAILED: java.lang.RuntimeException: Error "
        "received from SDK harness for instruction 4: Traceback (most recent call "
        'last):\n  File "apache_beam/runners/common.py", line 1498, in process\n'
        "ValueError: not yet\n\nDuring handling of the above exception, another "
        "exception occurred:\n\nTraceback (most recent call last):\n"
        '  File "/venv/site-packages/apache_beam/core.py", line 2118, in <lambda>\n'
        "    wrapper = lambda x: [fn(x)]\n                         ^^^^^\n"
        "penstock.schemas.errors.ServingError: Version 3 is taken. Wait.\n"
    )
    error = explained(said)
    assert type(error) is ServingError
    assert str(error) == "Version 3 is taken. Wait."


def test_an_error_in_the_graph_itself_is_left_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError, match="mine"),
        RunContext.local(tmp_path, beam_args=LOOPBACK).beam_pipeline(),
    ):
        raise KeyError("mine")


class Stop(BaseException):
    """As `Canceled`, which can come at any time."""


def test_a_job_is_canceled_with_what_waits_for_it(tmp_path: Path) -> None:
    pipeline = RunContext.local(tmp_path, beam_args=LOOPBACK).beam_pipeline()
    canceled = []

    class Job:
        def wait_until_finish(self) -> None:
            raise Stop

        def cancel(self) -> None:
            canceled.append(True)

    pipeline.run = Job
    with pytest.raises(Stop), pipeline:
        pass
    assert canceled == [True]


# Components ----------------------------------------------------------------------


def rows(count: int) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "fare": rng.normal(10, 3, count),
            "paid": np.where(rng.random(count) < 0.5, "Cash", "Card"),
            "weight": np.where(np.arange(count) == count - 1, -1.0, 1.0),
        }
    )


def write_csv(folder: Path) -> None:
    folder.mkdir()
    for day in range(3):
        lines = [f"{day}{i},{i / 3},{'x' * i}" for i in range(40)]
        if day == 1:
            lines[20] = "one,2,three,4"
        (folder / f"{day}.csv").write_text("\n".join(["a,b,c", *lines]))


@pytest.mark.parametrize(
    "parameters",
    [
        {"splits": {"train": 4, "eval": 1}},
        {"input_splits": {"a": "0.csv", "b": "2.csv"}},
        {"input_splits": {"a": "0.csv", "b": "1.csv"}, "on_bad_line": "quarantine"},
    ],
)
def test_examples_are_the_same(tmp_path: Path, parameters: Mapping[str, Any]) -> None:
    write_csv(tmp_path / "data")
    parameters = {"on_bad_line": "quarantine", **parameters}
    component = CsvExampleGen(input_dir=tmp_path / "data", **parameters)
    made = []
    for name, arguments in (("here", ()), ("there", LOOPBACK)):
        live = component.with_outputs(tmp_path / name)
        live.run(RunContext.local(tmp_path / name / "temp", beam_args=arguments))
        made.append((folder_digest(live.examples.path), live.examples.properties))
    assert made[0] == made[1]


def test_a_relative_folder_is_found_by_workers_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: tuple[str, ...]
) -> None:
    write_csv(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    component = CsvExampleGen(input_dir="data", pattern="[02].csv")
    result = run(Pipeline("p", [component]), "root", beam_args=elsewhere)
    assert result.artifact(component.examples).properties["rows"] == {
        "train": 54,
        "eval": 26,
    }


def test_a_component_is_refused_as_in_this_process(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", {"train": rows(50)})
    (file,) = examples.files("train")
    component = StatisticsGen(examples=examples, weight_feature="weight")
    with pytest.raises(ComponentFailed) as caught:
        run(Pipeline("p", [component]), tmp_path / "root", beam_args=LOOPBACK)
    assert str(caught.value) == (
        f"'StatisticsGen' failed: Split 'train', file '{file}': Weight feature "
        "'weight' holds -1.0, which is no weight. Use finite numbers of at least 0."
    )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Beam options for workers in processes of their own, in another folder."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    pool = subprocess.Popen(
        [sys.executable, CHECKOUT / "scripts" / "cluster" / "workers.py", str(port)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield (
        *EMBEDDED,
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{port}",
    )
    pool.terminate()
    assert pool.wait(30) == 0


def unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that only a process with this working directory sees."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("/proc/self/cwd/mine")


def sentence(path: Path) -> str:
    return (
        f"A Beam worker finds no '{path}', which is there on this machine. Workers "
        "read and write artifacts themselves: keep the root and the input on a file "
        "system that all of them mount, under the same path as here."
    )


def test_workers_that_do_not_see_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: tuple[str, ...]
) -> None:
    data = unseen(tmp_path, monkeypatch) / "data"
    write_csv(data)
    component = CsvExampleGen(input_dir=data, pattern="0.csv")
    with pytest.raises(ComponentFailed) as caught:
        run(Pipeline("p", [component]), tmp_path / "root", beam_args=elsewhere)
    assert str(caught.value) == f"'CsvExampleGen' failed: {sentence(data / '0.csv')}"


def test_workers_that_do_not_see_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: tuple[str, ...]
) -> None:
    write_csv(tmp_path / "data")
    root = unseen(tmp_path, monkeypatch)
    component = CsvExampleGen(input_dir=tmp_path / "data", pattern="0.csv")
    with pytest.raises(ComponentFailed) as caught:
        run(Pipeline("p", [component]), root, beam_args=elsewhere)
    folder = root / "p" / "CsvExampleGen" / ".tmp" / caught.value.run_id
    assert str(caught.value) == f"'CsvExampleGen' failed: {sentence(folder)}"


# Job servers ---------------------------------------------------------------------


def test_a_job_server_that_does_not_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        check_job_server(f"127.0.0.1:{port}")
    arguments = ("--runner=FlinkRunner", f"--job_endpoint=localhost:{port}")
    write_csv(tmp_path / "data")
    component = CsvExampleGen(input_dir=tmp_path / "data", pattern="0.csv")
    with pytest.raises(ComponentFailed) as caught:
        run(Pipeline("p", [component]), tmp_path / "root", beam_args=arguments)
    assert str(caught.value) == (
        f"'CsvExampleGen' failed: The Beam job server at 'localhost:{port}' cannot be "
        "reached: Connection refused. Start it (scripts/flink start), or correct "
        "--job_endpoint."
    )


@pytest.mark.parametrize("endpoint", ["localhost", ":8099", "a:http", "a:65536"])
def test_an_endpoint_without_a_host_or_port(endpoint: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check_job_server(endpoint)
    assert str(caught.value) == (
        f"--job_endpoint is '{endpoint}', which is no host and port. Write it as "
        "'localhost:8099'."
    )


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("no-such-host.invalid:8099", r".*[Nn]ame.*"),
        ("[::1]:1", "Connection refused|.*[Aa]ddress.*"),
    ],
)
def test_an_endpoint_that_cannot_be(endpoint: str, reason: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check_job_server(endpoint)
    assert re.fullmatch(
        rf"The Beam job server at '{re.escape(endpoint)}' cannot be reached: "
        rf"({reason})\. Start it \(scripts/flink start\), or correct --job_endpoint\.",
        str(caught.value),
    )


@pytest.mark.parametrize("endpoint", [None, "embed"])
def test_no_endpoint_needs_no_server(endpoint: str | None) -> None:
    check_job_server(endpoint)
