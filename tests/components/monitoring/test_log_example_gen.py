"""LogExampleGen: logs and the labels that have come, as monitors read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock.components as c
from penstock.components.base import RunContext
from penstock.components.columns.examples import read_batches
from penstock.components.monitoring.document import read_document
from penstock.components.monitoring.labels import LabelJoin
from penstock.components.monitoring.log_example_gen import LogExampleGen
from penstock.components.monitoring.log_format import LogFormat, LogRules
from penstock.components.monitoring.logs import of_table
from penstock.components.monitoring.watched import Watched
from penstock.components.monitoring.windows import DAY, Window
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import DriftVerdict, Examples, QualityVerdict
from penstock.schemas.errors import ComponentFailed, DataError, PipelineError
from tests.components.monitoring.written_logs import predict_log, write
from tests.conftest import Said

Call = Callable[..., Said]

START = Window.day("2026-11-30").start


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A day of 60 requests and a later one, answered by version 7."""
    folder = tmp_path / "log"
    records = [
        predict_log(
            {"trip": np.array([f"t{i}"]), "fare": np.array([2.0 + i % 10])},
            {"score": np.array([i % 10 / 10])},
            time=START + 60 * i + (DAY if i == 60 else 0),
            rate=0.5,
        )
        for i in range(61)
    ]
    folder.mkdir()
    write(folder / "requests-a.tfrecord", records)
    return folder


def made(log: Path, **changed: Any) -> LogExampleGen:
    given: dict[str, Any] = {
        "log_dir": log,
        "window": "2026-11-30",
        "format": LogFormat(id="trip"),
        **changed,
    }
    return LogExampleGen(**given)


def by_hand(component: LogExampleGen, folder: Path) -> LogExampleGen:
    live = component.with_outputs(folder / "outputs")
    live.run(RunContext.local(folder / "temporary"))
    return live


def rows(examples: Examples) -> pa.Table:
    return pa.Table.from_batches(read_batches(examples, "logged"))


def test_a_day_of_requests_becomes_examples(log: Path, tmp_path: Path) -> None:
    live = by_hand(made(log), tmp_path)
    found = rows(live.examples)
    assert found.column_names == [
        *("log_id", "log_time", "log_version", "log_lane", "log_stratum"),
        *("log_probability", "fare", "score"),
    ]
    assert found.column("log_id").to_pylist() == [f"t{i}" for i in range(60)]
    assert set(found.column("log_version").to_pylist()) == {"7"}
    assert set(found.column("log_probability").to_pylist()) == {0.5}
    properties = live.examples.properties
    assert live.examples.split_names == ("logged",)
    assert properties["rows"] == {"logged": 60}
    assert live.examples.span == START / DAY
    # All of a log, of which no day is the span.
    whole = by_hand(made(log, window=""), tmp_path / "whole")
    assert rows(whole.examples).num_rows == 61 and whole.examples.span is None
    part = f"2026-11-30T00:00:00Z/2026-11-30T00:{10:02}:00Z"
    some = by_hand(made(log, window=part), tmp_path / "some")
    assert rows(some.examples).num_rows == 10 and some.examples.span is None


def test_labels_that_have_come_are_joined(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "labels"
    with LabelJoin(folder) as join:  # some before their predictions are known
        join.add_labels([f"t{i}" for i in range(40)], [i % 2 for i in range(40)])
    component = made(log, labels_dir=folder, label="tipped")
    with caplog.at_level("INFO"):
        live = by_hand(component, tmp_path)
    labels = rows(live.examples).column("tipped")
    assert labels.type == pa.int64()
    assert labels.to_pylist() == [i % 2 for i in range(40)] + [None] * 20
    assert any("40 of 60" in each for each in caplog.messages), caplog.messages
    assert live.why_stale() == ""
    with LabelJoin(folder) as join:
        join.add_labels(["t60"], [1])  # of another day
    assert live.why_stale() == ""
    with LabelJoin(folder) as join:
        join.add_labels(["t50"], [0.5])
    assert live.why_stale() == "labels of its rows have come, or changed, since"
    again = by_hand(component, tmp_path / "again")
    # Of one type, whatever came first.
    assert rows(again.examples).column("tipped").type == pa.float64()
    assert again.why_stale() == ""
    (folder / "labels.sqlite").unlink()
    assert again.why_stale() == f"'{folder}' holds no labels any more"
    assert made(log).why_stale() == ""


def test_a_log_without_any_label_has_a_column_without_any(
    log: Path, tmp_path: Path
) -> None:
    live = by_hand(made(log, labels_dir=tmp_path / "labels"), tmp_path)
    assert rows(live.examples).column("label").null_count == 60


def test_its_inputs_are_the_files_of_the_window(tmp_path: Path) -> None:
    for day in ("2026-11-29", "2026-11-30"):
        folder = tmp_path / "log" / day
        folder.mkdir(parents=True)
        times = [f"{day}T06:00:00Z", f"{day}T07:00:00Z"]
        table = pa.table({"id": ["a", "b"], "at": times, "x": [1.0, 2.0]})
        pq.write_table(table, folder / "part.parquet")
    component = made(
        tmp_path / "log" / "{date}" / "*.parquet", format=LogFormat(id="id", time="at")
    )
    (one,) = component.external_inputs()
    assert one.path == tmp_path / "log" / "2026-11-30" / "part.parquet"
    assert rows(by_hand(component, tmp_path).examples).num_rows == 2


def test_a_log_that_is_odd_is_told_as_read_log_tells_it(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = predict_log({"trip": np.array(["t3"]), "fare": np.array([1.0])}, {})
    twice.log_metadata.timestamp_secs = int(START) + 7_000
    twice.predict_log.response.outputs["score"].CopyFrom(
        predict_log({}, {"score": np.array([0.1])}).predict_log.response.outputs[
            "score"
        ]
    )
    write(log / "requests-b.tfrecord", [twice])
    with pytest.raises(DataError, match="has the id 't3' in several rows"):
        by_hand(made(log), tmp_path)
    first = made(log, rules=LogRules(on_duplicate="first"))
    live = by_hand(first, tmp_path / "first")
    assert rows(live.examples).num_rows == 60
    assert any("were left out" in each for each in caplog.messages)
    none = made(log, window="2026-11-01", rules=LogRules(on_empty="accept"))
    with pytest.raises(DataError) as error:
        by_hand(none, tmp_path / "none")
    assert str(error.value) == (
        f"The log '{log}' has no rows, so that there is nothing to watch. Ingest a "
        "window with requests."
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"labels_dir": Path("labels"), "format": LogFormat()},
            "LogExampleGen.labels_dir is 'labels', and labels are joined by id. Name "
            "the column of ids as format=LogFormat(id=...).",
        ),
        (
            {"labels_dir": Path("labels"), "label": ""},
            "LogExampleGen.label is empty. Pass a name for the column of labels.",
        ),
        (
            {"window": "2026-11-30T06:00/later"},
            "LogExampleGen.window has the time 'later'. Write it as "
            "'2026-11-30T06:00:00Z'.",
        ),
        ({"window": "30.11."}, "'30.11.' is not a day. Write it as '2026-11-30'."),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((PipelineError, DataError)) as error:
        made(tmp_path, **changed)
    assert str(error.value) == sentence


# --- from requests to verdicts


def watched(folder: Path, log: Path) -> RunResult:
    """Run a pipeline that watches the requests of a day."""
    logs = made(log, labels_dir=folder / "labels")
    known: dict[str, Any] = {
        "examples": logs.examples,
        "time": "log_time",
        "version": "log_version",
        "probability": "log_probability",
    }
    drift = c.DriftMonitor(
        model="taxi",
        monitor_dir=folder / "monitoring",
        scores=("score",),
        observe_rows=50,
        observe_windows=1,
        **known,
    )
    quality = c.QualityMonitor(
        label="label",
        prediction="score",
        metrics=("AUC",),
        min_rows=50,
        min_slice_size=20,
        replicates=100,
        **known,
    )
    return run(Pipeline("watch", [logs, drift, quality]), folder, runner=LocalRunner())


@pytest.mark.filterwarnings("ignore")
def test_requests_and_late_labels_come_to_verdicts(
    log: Path, tmp_path: Path, penstock: Call
) -> None:
    came = tmp_path / "labels.csv"
    came.write_text(
        "trip,tipped\n" + "".join(f"t{i},{int(i % 10 > 4)}\n" for i in range(30))
    )
    asked = ("labels", came, f"--dir={tmp_path / 'labels'}", "--id=trip")
    assert penstock(*asked, "--label=tipped").code == 0
    first = watched(tmp_path, log)
    verdict = first["DriftMonitor"].outputs["verdict"]
    assert isinstance(verdict, DriftVerdict)
    assert verdict.reasons == ("The reference of model 'taxi' is made.",)
    made_of = Watched(tmp_path / "monitoring", "taxi").reference()
    assert made_of is not None
    # What is known of every row is no feature.
    roles = {column.name: column.role for column in made_of.grid}
    assert roles == {"fare": "feature", "score": "score", "label": "label"}
    quality = first["QualityMonitor"].outputs["verdict"]
    assert isinstance(quality, QualityVerdict)
    assert "Labels have come for 30 of the 60 rows" in quality.reasons[0]
    # The same once more, and then with the rest of the labels.
    assert watched(tmp_path, log)["LogExampleGen"].state.value == "cached"
    came.write_text(
        "trip,tipped\n" + "".join(f"t{i},{int(i % 10 > 4)}\n" for i in range(60))
    )
    assert penstock(*asked, "--label=tipped").code == 0
    last = watched(tmp_path, log)
    assert last["LogExampleGen"].state.value == "complete"
    quality = last["QualityMonitor"].outputs["verdict"]
    assert isinstance(quality, QualityVerdict)
    found = read_document(quality.file)["quality"]
    assert found is not None
    assert found["metrics"][0]["value"] == 1.0
    assert found["labels"] is not None and found["labels"]["joined"] == 60


def test_rows_are_joined_to_training_by_the_id_they_were_logged_with(
    log: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    fares = [2.0 + i % 10 + (i < 30) for i in range(60)]  # computed otherwise in half
    table = pa.table({"trip": [f"t{i}" for i in range(60)], "fare": fares})
    pq.write_table(table, trained / "part.parquet")
    reference = c.ParquetExampleGen(
        name="Trained", input_dir=trained, input_splits={"train": "*"}
    )
    logs = made(log)
    drift = c.DriftMonitor(
        examples=logs.examples,
        reference=(reference.examples,),
        model="taxi",
        monitor_dir=tmp_path / "monitoring",
        time="log_time",
        id="trip",
    )
    result = run(
        Pipeline("watch", [logs, reference, drift]), tmp_path, runner=LocalRunner()
    )
    verdict = result["DriftMonitor"].outputs["verdict"]
    assert isinstance(verdict, DriftVerdict)
    skew = read_document(verdict.file)["skew"]
    assert skew is not None and skew["joined"] == 60
    assert [each["name"] for each in skew["columns"]] == ["fare"]
    assert skew["columns"][0]["different"] == 30


def test_a_log_that_is_not_there_fails_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises((ComponentFailed, DataError)) as error:
        run(Pipeline("watch", [made(tmp_path / "no")]), tmp_path, runner=LocalRunner())
    assert f"There is no log '{tmp_path / 'no'}'. Check the path." in str(error.value)


# --- the verb


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """A folder in which three rows wait for their labels."""
    folder = tmp_path / "labels"
    table = pa.table({"trip": [1, 2, 3], "at": [START] * 3})
    with LabelJoin(folder) as join:
        join.add_predictions(of_table(table, format=LogFormat(id="trip", time="at")))
    return folder


def test_labels_are_added_from_files(
    waiting: Path, tmp_path: Path, penstock: Call
) -> None:
    came = tmp_path / "came"
    came.mkdir()
    # Ids that are floats, as Pandas makes them; a label that has not come; a stranger.
    one = {"trip": [1.0, 2.0], "tipped": [True, None], "at": [START + 60, START]}
    pq.write_table(pa.table(one), came / "one.parquet")
    two = {"trip": [9.0], "tipped": [True], "at": [START + DAY]}
    pq.write_table(pa.table(two), came / "two.parquet")
    asked = ("labels", came, f"--dir={waiting}", "--id=trip", "--label=tipped")
    said = penstock(*asked, "--time=at")
    assert said.code == 0, said.err
    first, second = said.out.strip().splitlines()
    assert first == (
        "joined 1, known before 0, of unknown rows 1, without a label yet 1"
    )
    assert second.startswith("1 labels are of ids that no prediction has. They are ")
    again = penstock(*asked, "--time=at", "--json").json
    assert (again["joined"], again["known"], again["waiting"]) == (0, 2, 1)
    with LabelJoin(waiting) as join:
        assert join.window(Window.day("2026-11-30")).joined == 1
        curve = join.delays(now=START + DAY)
    assert curve.labels == 1
    # In a CSV file, and without times: now.
    (tmp_path / "late.csv").write_text("trip,tipped\n3,0\n2,\n")
    said = penstock(*("labels", tmp_path / "late.csv", *asked[2:]))
    assert said.out.startswith("joined 1, known before 0, of unknown rows 0, without a")


def test_labels_that_contradict_are_refused_or_taken(
    waiting: Path, tmp_path: Path, penstock: Call
) -> None:
    file = tmp_path / "came.csv"
    asked = ("labels", file, f"--dir={waiting}", "--id=trip", "--label=tipped")
    file.write_text("trip,tipped\n1,1\n")
    penstock(*asked)
    file.write_text("trip,tipped\n2,1\n1,0\n")
    said = penstock(*asked)
    assert said.code == 1
    assert said.err.startswith("Id '1' has the label '1' and the label '0', and 1 ")
    with LabelJoin(waiting) as join:
        assert join.window(Window.day("2026-11-30")).joined == 1
    said = penstock(*asked, "--on-conflict=last", "--json")
    assert (said.json["joined"], said.json["conflicting"]) == (1, 1)
    assert penstock(*asked, "--on-conflict=newest").code == 2


@pytest.mark.parametrize(
    ("file", "label", "sentence"),
    [
        ("no.csv", "tipped", "There is no file of labels '{file}'. Check the path."),
        (
            "came.csv",
            "tiped",
            "'penstock labels' names the column 'tiped', which the file of labels "
            "'{file}' does not have (it has 'tipped', 'trip'). Did you mean 'tipped'?",
        ),
        (
            "requests.tfrecord",
            "tipped",
            "The file of labels '{file}' is a request log, which holds no labels. Name "
            "the Parquet or CSV files that they come in.",
        ),
    ],
)
def test_files_that_are_none_of_labels_get_a_sentence(
    file: str, label: str, sentence: str, tmp_path: Path, penstock: Call
) -> None:
    (tmp_path / "came.csv").write_text("trip,tipped\n1,1\n")
    write(tmp_path / "requests.tfrecord", [predict_log({"x": [1.0]}, {"y": [1.0]})])
    path = tmp_path / file
    said = penstock(
        *("labels", path, f"--dir={tmp_path / 'kept'}", "--id=trip"),
        f"--label={label}",
    )
    assert said.code == 1
    assert said.err.strip() == sentence.format(file=path)
    assert not (tmp_path / "kept").exists()
