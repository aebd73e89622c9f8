"""DriftMonitor in a pipeline, and the verbs that do the same without one."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components.base import Component, RunContext, output
from penstock.components.evaluation import model_loader, write_flavor
from penstock.components.monitoring.budget import Replay
from penstock.components.monitoring.document import read_document
from penstock.components.monitoring.drift_monitor import DriftMonitor
from penstock.components.monitoring.logs import LogFormat, of_table, read_log
from penstock.components.monitoring.sample_files import write_sample
from penstock.components.monitoring.sampling import BottomK
from penstock.components.monitoring.watched import Watched, models
from penstock.components.monitoring.windows import DAY, Window
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Answer, DriftVerdict, Examples, Model
from penstock.schemas.errors import ComponentFailed, DataError, PipelineError
from tests.components.monitoring.traffic import MONDAY, examples, rows
from tests.conftest import Said

Call = Callable[..., Said]


class Given(Component):
    """Hand on Examples that are on disk."""

    folder: Path
    properties: dict[str, Any]
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        shutil.copytree(self.folder, self.examples.path, dirs_exist_ok=True)
        self.examples.properties.update(self.properties)


class After(Component):
    """Run only where there is no drift."""

    drift: DriftVerdict
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (self.model.path / "made").touch()


@pytest.fixture(autouse=True)
def short_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let thresholds rest on few replayed windows."""
    usual = Replay.__init__.__kwdefaults__
    assert usual is not None and "column_windows" in usual
    monkeypatch.setitem(usual, "column_windows", 35_000)


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("reference") / "examples"
    return examples(folder, rows(20_000, 0).drop(["trip", "logged_at"]))


def given(examples: Examples, name: str, **more: Any) -> Given:
    properties = {**examples.properties, **more}
    return Given(name=name, folder=examples.path, properties=properties)


def watch(
    logged: Examples,
    tmp_path: Path,
    reference: Examples | None = None,
    *,
    span: int | None = None,
    **how: Any,
) -> RunResult:
    """Run a pipeline that watches a day, or several, and what depends on it."""
    log = given(logged, "Log", **({} if span is None else {"span": span}))
    trained = None if reference is None else given(reference, "Trained")
    how.setdefault("time", "logged_at")
    drift = DriftMonitor(
        examples=log.examples,
        reference=None if trained is None else (trained.examples,),
        model="taxi",
        monitor_dir=tmp_path / "monitoring",
        scores=("score",),
        **how,
    )
    parts = [log, *([trained] if trained else []), drift, After(drift=drift.verdict)]
    return run(Pipeline("watch", parts), tmp_path, runner=LocalRunner())


def verdict_of(result: RunResult) -> DriftVerdict:
    verdict = result["DriftMonitor"].outputs["verdict"]
    assert isinstance(verdict, DriftVerdict)
    return verdict


def test_a_day_without_drift_lets_what_depends_on_it_run(
    trained_on: Examples, tmp_path: Path
) -> None:
    logged = examples(tmp_path / "day", rows(4_000, 1), split="all")
    result = watch(logged, tmp_path, trained_on)
    verdict = verdict_of(result)
    assert verdict.answer is Answer.YES
    assert result["After"].state.value == "complete"
    document = read_document(verdict.file)
    assert document["state"] == "ok"
    assert document["model"] == "taxi"
    assert document["window"]["name"] == "2026-11-02"
    assert document["rows"] == 4_000
    assert [each["name"] for each in document["columns"]] == [
        *("fare", "miles", "payment_type", "score")
    ]
    assert document["columns"][-1]["role"] == "score"
    assert document["reference"] is not None
    assert document["reference"]["rows"] == 20_000
    assert (verdict.path / "report.html").read_text().startswith("<!doctype html>")
    again = watch(logged, tmp_path, trained_on)
    assert again["DriftMonitor"].state.value == "cached"
    # Another day before it changes what its verdict stands on.
    (tmp_path / "monitoring" / "taxi" / "windows" / "2026-11-01").mkdir()
    again = watch(logged, tmp_path, trained_on)
    assert again["DriftMonitor"].state.value == "complete"


def test_drift_is_found_named_and_stops_what_depends_on_it(
    trained_on: Examples, tmp_path: Path
) -> None:
    days = [
        rows(4_000, 10 + day, day=day, fare=0.15 if day == 2 else 0.0)
        for day in range(3)
    ]
    logged = examples(tmp_path / "days", *days, split="all")
    result = watch(logged, tmp_path, trained_on)
    verdict = verdict_of(result)
    assert verdict.answer is Answer.NO
    assert result["After"].state.value == "skipped"
    assert verdict.properties["columns"] == ["fare"]
    (reason,) = verdict.reasons
    assert reason.startswith("Feature 'fare' drifted: values are greater by 0.2")
    document = read_document(verdict.file)
    assert document["columns"][0]["name"] == "fare"
    assert document["columns"][0]["rank"] == 1
    assert document["columns"][0]["state"] == "alert"
    kept = tmp_path / "monitoring" / "taxi" / "windows"
    states = {
        each.parent.name: read_document(each)["state"]
        for each in kept.glob("*/drift.json")
    }
    assert states == {"2026-11-02": "ok", "2026-11-03": "ok", "2026-11-04": "alert"}
    assert models(tmp_path / "monitoring") == ("taxi",)


def test_drift_within_a_slice_is_found_and_its_slice_named(
    trained_on: Examples, tmp_path: Path
) -> None:
    days = [
        rows(4_000, 10 + day, day=day, card=0.09 if day else 0.0) for day in range(2)
    ]
    logged = examples(tmp_path / "days", *days, split="all")
    plain = verdict_of(watch(logged, tmp_path / "plain", trained_on))
    assert plain.answer is Answer.YES  # all rows together do not show it
    sliced = watch(logged, tmp_path, trained_on, slices=("payment_type",))
    verdict = verdict_of(sliced)
    assert verdict.answer is Answer.NO
    (reason,) = verdict.reasons
    assert reason.startswith("Feature 'fare' drifted in payment_type=")
    told = read_document(verdict.file)["columns"][0]["slices"]
    assert {each["slice"]: each["state"] for each in told} == {
        "payment_type=Credit Card": "alert",
        "payment_type=Cash": "alert",
    }
    page = (verdict.path / "report.html").read_text(encoding="utf-8")
    for each in told:
        words = "greater" if each["slice"].endswith("Card") else "smaller"
        assert f"Values are {words} by 0.1" in each["sentence"]
        assert each["slice"] in page


def test_the_first_windows_make_slices_too(tmp_path: Path) -> None:
    for day in range(3):
        table = rows(1_500, day, day=day)
        logged = examples(tmp_path / f"{day}", table, split="x")
        watch(
            logged,
            tmp_path,
            slices=("payment_type",),
            observe_rows=4_000,
            observe_windows=3,
        )
    made = Watched(tmp_path / "monitoring", "taxi").reference()
    assert made is not None
    assert set(made.profile.slices) == {
        *("payment_type=Cash", "payment_type=Credit Card")
    }
    assert [each.slices for each in made.history] == [{}, {}, {}]
    logged = examples(tmp_path / "later", rows(1_500, 4, day=4), split="x")
    with pytest.raises(ComponentFailed) as raised:
        watch(logged, tmp_path)
    place = tmp_path / "monitoring" / "taxi"
    assert (
        "DriftMonitor.slices is (), and the reference of model 'taxi' in "
        f"'{place}' was made with ('payment_type',). Wire a reference, or watch in "
        "another monitor_dir, where the next windows make one."
    ) in str(raised.value)


# --- scores that training data do not have


@model_loader
def of_the_fare(_: Path) -> Callable[[pa.RecordBatch], Any]:
    return lambda batch: 1 / (1 + 10 / np.asarray(batch.column("fare")))


@model_loader
def of_the_fare_twice(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    score = of_the_fare(folder)
    return lambda batch: np.stack([score(batch), 1 - score(batch)], axis=1)


def served(folder: Path, loader: str) -> Pushes:
    write_flavor(
        folder / "Format-Serving", loader=f"{__name__}:{loader}", columns=["fare"]
    )
    return Pushes(name="Trainer", folder=folder)


class Pushes(Component):
    """Hand on a model that is on disk."""

    folder: Path
    model: Model = output()

    def run(self, context: RunContext) -> None:
        shutil.copytree(self.folder, self.model.path, dirs_exist_ok=True)


def answered(table: pa.Table, times: float = 1.0) -> pa.Table:
    """Return rows with the score that the model gave, or what was logged for it."""
    score = 1 / (1 + 10 / table.column("fare").to_numpy())
    return table.set_column(
        table.column_names.index("score"), "score", pa.array(score * times)
    )


def watch_scores(
    logged: Examples, folder: Path, loader: str | None, **how: Any
) -> RunResult:
    """Run a pipeline that watches scores beside training data without any."""
    trained = examples(folder / "trained", rows(20_000, 0).drop(["logged_at", "score"]))
    log, reference = given(logged, "Log"), given(trained, "Trained")
    model = served(folder / "model", loader) if loader else None
    drift = DriftMonitor(
        examples=log.examples,
        reference=(reference.examples,),
        scored_by=model.model if model else None,
        model="taxi",
        monitor_dir=folder / "monitoring",
        time="logged_at",
        scores=("score",),
        **how,
    )
    parts = [log, reference, *([model] if model else []), drift]
    return run(Pipeline("watch", parts), folder, runner=LocalRunner())


def test_the_served_model_says_the_scores_of_the_reference(tmp_path: Path) -> None:
    # The score is logged as 0.9 of what the model says; nothing else has changed. Some
    # rows are those of training.
    new = rows(4_000, 1)
    new = new.set_column(0, "trip", pa.array([f"1-{i}" for i in range(len(new))]))
    asked = pa.concat_tables([rows(20_000, 0).slice(0, 300), new])
    for times, answer in ((1.0, Answer.YES), (0.9, Answer.NO)):
        folder = tmp_path / f"{times}"
        day = answered(asked, times)
        result = watch_scores(
            examples(folder / "day", day, split="all"),
            folder,
            "of_the_fare",
            id="trip",
            together=True,
        )
        verdict = verdict_of(result)
        assert verdict.answer is answer
        document = read_document(verdict.file)
        roles = {each["name"]: each["role"] for each in document["columns"]}
        assert roles == {
            "score": "score",
            **dict.fromkeys(["fare", "miles", "payment_type"], "feature"),
        }
        # Scores are no values that serving computes otherwise than training.
        assert document["skew"] is not None
        assert document["skew"]["joined"] == 300
        assert "score" not in {each["name"] for each in document["skew"]["columns"]}
    assert verdict.properties["columns"] == ["score"]
    assert verdict.reasons[0].startswith("Score 'score' drifted: values are smaller")


def test_scores_that_nobody_gives_are_told(tmp_path: Path) -> None:
    logged = examples(tmp_path / "day", rows(600, 1), split="all")
    with pytest.raises(ComponentFailed) as raised:
        watch_scores(logged, tmp_path, None)
    assert (
        "The reference does not have the scores 'score' (it has 'fare', 'miles', "
        "'payment_type', 'trip'). Wire the served model, as Served(serving_dir), as "
        "scored_by, so that it says them of the reference's rows; or leave them out of "
        "scores."
    ) in str(raised.value)


def test_a_model_that_says_several_numbers_gives_no_score(tmp_path: Path) -> None:
    logged = examples(tmp_path / "day", rows(600, 1), split="all")
    with pytest.raises(ComponentFailed) as raised:
        watch_scores(logged, tmp_path, "of_the_fare_twice")
    assert (
        "says 2 numbers of each row, and the score 'score' is one. Log the one that "
        "counts, and let an output of the model be it."
    ) in str(raised.value)


def test_what_logs_do_not_have_when_the_reference_is_made_is_not_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = rows(20_000, 0).drop(["trip", "logged_at"])
    label = pa.array(np.arange(20_000) % 2)
    trained = examples(tmp_path / "trained", training.append_column("paid", label))
    logged = examples(tmp_path / "day", rows(4_000, 1), split="all")
    verdict = verdict_of(watch(logged, tmp_path, trained))
    assert verdict.answer is Answer.YES
    document = read_document(verdict.file)
    assert "paid" not in {each["name"] for each in document["columns"]}
    assert any(
        each.startswith("Not watched are 'paid', which '") for each in caplog.messages
    )
    # What is gone later is drift.
    later = rows(4_000, 2, day=1).drop(["miles"])
    gone = examples(tmp_path / "later", later, split="all")
    verdict = verdict_of(watch(gone, tmp_path, trained))
    assert verdict.answer is Answer.NO
    assert verdict.reasons[0].startswith(
        "Feature 'miles' drifted: 100.0 % of the rows have no value instead of 0.0 %"
    )


def test_ids_are_not_watched_without_a_reference_either(tmp_path: Path) -> None:
    logged = examples(tmp_path / "day", rows(1_500, 0), split="x")
    watch(logged, tmp_path, id="trip", observe_rows=1_000, observe_windows=1)
    made = Watched(tmp_path / "monitoring", "taxi").reference()
    assert made is not None
    assert set(made.grid.columns) == {"fare", "miles", "payment_type", "score"}


def test_too_few_rows_are_not_enough_data(trained_on: Examples, tmp_path: Path) -> None:
    logged = examples(tmp_path / "day", rows(200, 1, fare=1.0), split="all")
    verdict = verdict_of(watch(logged, tmp_path, trained_on))
    assert verdict.answer is Answer.NOT_ENOUGH_DATA
    assert "200 rows" in verdict.reasons[0] and "500" in verdict.reasons[0]


def test_without_a_reference_the_first_windows_become_one(tmp_path: Path) -> None:
    def seen(name: str, day: int, **how: float) -> DriftVerdict:
        logged = examples(tmp_path / name, rows(1_500, day, day=day, **how), split="x")
        return verdict_of(
            watch(logged, tmp_path, observe_rows=4_000, observe_windows=2)
        )

    first = seen("first", 0)
    assert first.answer is Answer.NOT_ENOUGH_DATA
    assert first.reasons == (
        "Model 'taxi' is observed: 1 of 2 windows and 1500 of 4000 rows are there. "
        "Nothing is judged before.",
    )
    assert seen("second", 1).answer is Answer.NOT_ENOUGH_DATA
    third = seen("third", 2)
    assert third.reasons == ("The reference of model 'taxi' is made.",)
    assert seen("fourth", 3).answer is Answer.YES
    assert seen("fifth", 4, fare=0.5).answer is Answer.NO


def test_windows_after_those_that_make_the_reference_are_judged(
    tmp_path: Path,
) -> None:
    days = [rows(1_500, day, day=day, fare=0.5 * (day == 4)) for day in range(5)]
    logged = examples(tmp_path / "month", pa.concat_tables(days), split="x")
    verdict = verdict_of(watch(logged, tmp_path, observe_rows=4_000, observe_windows=3))
    assert verdict.answer is Answer.NO
    assert verdict.properties["window"] == "2026-11-06"
    windows = tmp_path / "monitoring" / "taxi" / "windows"
    assert sorted(each.name for each in windows.iterdir()) == [
        "2026-11-05",
        "2026-11-06",
    ]


def test_windows_of_several_versions_are_not_observed(tmp_path: Path) -> None:
    table = rows(1_500, 0)
    versions = [str(7 + number % 2) for number in range(1_500)]
    logged = examples(
        tmp_path / "day", table.append_column("version", [versions]), split="x"
    )
    with pytest.raises(ComponentFailed) as raised:
        watch(logged, tmp_path, version="version")
    assert (
        "Window '2026-11-02' of model 'taxi' mixes versions of the model: '7' (750 "
        "rows), '8' (750 rows). Profile the rows of each version by themselves."
    ) in str(raised.value)
    with pytest.raises(ComponentFailed) as raised:
        watch(logged, tmp_path, version="versoin")
    assert "DriftMonitor.version is 'versoin', a column that '" in str(raised.value)
    assert "Did you mean 'version'?" in str(raised.value)


def test_a_span_is_the_day_of_rows_without_a_time(
    trained_on: Examples, tmp_path: Path
) -> None:
    table = rows(1_000, 3).drop(["logged_at"])
    logged = examples(tmp_path / "day", table, split="all")

    def look(span: int | None) -> RunResult:
        return watch(logged, tmp_path, trained_on, span=span, time="")

    look(20_759)
    assert (tmp_path / "monitoring/taxi/windows/2026-11-02/drift.json").is_file()
    with pytest.raises(ComponentFailed) as raised:
        look(None)
    assert raised.value.result is not None
    log = raised.value.result["Log"].outputs["examples"]
    assert isinstance(log, Examples)
    uri = log.uri
    assert str(raised.value) == (
        f"'DriftMonitor' failed: Examples '{uri}' do not say when their rows were "
        "logged: DriftMonitor.time names no column, and they have no span "
        "of a day. Name the column, or ingest them with a date in the pattern."
    )


def test_rows_of_a_sampled_log_are_made_a_fair_sample(
    trained_on: Examples, tmp_path: Path
) -> None:
    # All trips without a charge are logged, and a tenth of the others.
    table = rows(30_000, 5)
    free = np.array(table.column("payment_type").to_pylist()) == "No Charge"
    kept = np.where(free, 1.0, 0.1)
    logged = np.random.default_rng(1).random(len(kept)) < kept
    table = table.append_column("kept", pa.array(kept)).filter(pa.array(logged))
    sampled = examples(tmp_path / "day", table, split="all")
    unfair = verdict_of(watch(sampled, tmp_path, trained_on))
    assert unfair.properties["columns"] == ["payment_type"]
    fair = verdict_of(watch(sampled, tmp_path, trained_on, probability="kept"))
    assert fair.answer is Answer.YES
    assert 2_600 < read_document(fair.file)["rows"] < 3_400
    with pytest.raises(ComponentFailed) as raised:
        watch(sampled, tmp_path, trained_on, probability="fare")
    assert "which are not all probabilities above 0 and up to 1" in str(raised.value)
    with pytest.raises(ComponentFailed) as raised:
        watch(sampled, tmp_path, trained_on, probability="kep")
    assert "Did you mean 'kept'?" in str(raised.value)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (
            {"alerts_per_month": 0.0},
            "DriftMonitor.alerts_per_month is 0.0; a monitor that may never be wrong "
            "can never speak. Pass a number above 0.",
        ),
        ({"k": 4}, "DriftMonitor.k is 4 and m is 3. Pass a k from 1 to m."),
        (
            {"season": "weekday", "time": ""},
            "DriftMonitor.season is 'weekday', which takes the times of rows. Name "
            "their column as time.",
        ),
        (
            {"skew_tolerated": 1.0},
            "DriftMonitor.skew_tolerated is 1.0, and is a share of rows. Pass a number "
            "from 0 to below 1.",
        ),
        (
            {"together": True},
            "DriftMonitor.together is True, which takes rows of the reference, and "
            "there is none. Wire one, or leave it out.",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    how: dict[str, Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError) as raised:
        DriftMonitor(
            examples=Examples(tmp_path),
            model="taxi",
            monitor_dir=tmp_path,
            **how,
        )
    assert str(raised.value) == text


# Rows, beside profiles -------------------------------------------------------------


def logged_and_trained_on(
    tmp_path: Path, share: float, unknown: bool = False
) -> tuple[Examples, Examples]:
    """Return a day, and training with the same rows but for a share of the fares."""
    day = rows(4_000, 3)
    fares = day.column("fare").to_numpy().copy()
    fares[: round(len(fares) * share)] *= 1.01
    more = rows(16_000, 0, day=9)
    same = more if unknown else pa.concat_tables([day, more])
    place = day.schema.get_field_index("fare")
    return (
        examples(tmp_path / "day", day.set_column(place, "fare", [fares]), split="all"),
        examples(tmp_path / "trained", same.drop(["logged_at"])),
    )


def test_values_that_differ_from_those_in_training_are_an_alert(tmp_path: Path) -> None:
    logged, trained = logged_and_trained_on(tmp_path, 0.05)
    result = watch(logged, tmp_path, trained, id="trip")
    verdict = verdict_of(result)
    assert verdict.answer is Answer.NO
    assert result["After"].state.value == "skipped"
    document = read_document(verdict.file)
    skew = document["skew"]
    assert document["state"] == "alert"
    assert skew is not None
    assert (skew["state"], skew["joined"]) == ("alert", 4_000)
    first, *others = skew["columns"]
    assert (first["name"], first["state"], first["different"]) == ("fare", "alert", 200)
    assert {each["different"] for each in others} == {0}
    assert document["reasons"][0] == skew["sentence"]
    assert "fare" in skew["sentence"]
    # Ids are not watched themselves.
    assert "trip" not in {each["name"] for each in document["columns"]}


def test_skew_of_few_rows_is_tolerated_and_told(tmp_path: Path) -> None:
    logged, trained = logged_and_trained_on(tmp_path, 0.008)
    verdict = verdict_of(watch(logged, tmp_path, trained, id="trip"))
    assert verdict.answer is Answer.YES
    skew = read_document(verdict.file)["skew"]
    assert skew is not None
    assert skew["columns"][0]["different"] == 32
    stricter = watch(logged, tmp_path, trained, id="trip", skew_tolerated=0.001)
    assert verdict_of(stricter).answer is Answer.NO


def test_rows_that_training_does_not_have_say_nothing_of_skew(tmp_path: Path) -> None:
    logged, trained = logged_and_trained_on(tmp_path, 0.05, unknown=True)
    verdict = verdict_of(watch(logged, tmp_path, trained, id="trip"))
    assert verdict.answer is Answer.YES
    skew = read_document(verdict.file)["skew"]
    assert skew is not None
    assert skew["state"] == "insufficient_data"
    assert skew["sentence"] == (
        "None of the 4,000 rows of the log has the id of one of the 16,000 rows of "
        "training, so no value was compared. Compare rows of the same requests."
    )


def test_columns_that_drift_together_are_watched(
    trained_on: Examples, tmp_path: Path
) -> None:
    day = rows(4_000, 3)
    miles, fares = (np.sort(day.column(each).to_numpy()) for each in ("miles", "fare"))
    order = np.random.default_rng(1).permutation(4_000)
    together = day.set_column(3, "miles", [miles[order]])
    together = together.set_column(2, "fare", [fares[order]])
    logged = examples(tmp_path / "day", together, split="all")
    apart = verdict_of(watch(logged, tmp_path, trained_on))
    assert read_document(apart.file)["multivariate"] is None
    verdict = verdict_of(watch(logged, tmp_path, trained_on, together=True))
    assert verdict.answer is Answer.YES
    document = read_document(verdict.file)
    found = document["multivariate"]
    assert document["state"] == "watch"
    assert found is not None
    assert set(found["columns"][:2]) == {"fare", "miles"}
    assert document["reasons"][-1] == found["sentence"]
    assert "by how 'fare' and 'miles' go together" in found["sentence"]


def test_alike_columns_are_no_news_to_a_classifier(
    trained_on: Examples, tmp_path: Path
) -> None:
    logged = examples(tmp_path / "day", rows(4_000, 1), split="all")
    verdict = verdict_of(watch(logged, tmp_path, trained_on, together=True))
    document = read_document(verdict.file)
    assert document["state"] == "ok"
    assert document["multivariate"] is not None
    assert document["multivariate"]["columns"] == []


def test_an_id_that_one_side_lacks_is_told(
    trained_on: Examples, tmp_path: Path
) -> None:
    logged = examples(tmp_path / "day", rows(4_000, 1), split="all")
    with pytest.raises(ComponentFailed) as caught:
        watch(logged, tmp_path, trained_on, id="trip")
    assert (
        "DriftMonitor.id is 'trip', and the rows trained on have no such column"
    ) in str(caught.value)
    with pytest.raises(ComponentFailed) as caught:
        watch(logged, tmp_path, trained_on, id="trup")
    assert (
        "DriftMonitor.id is 'trup', and the rows logged have no such column"
    ) in str(caught.value)
    assert "Did you mean 'trip'?" in str(caught.value)


# Names and verbs ---------------------------------------------------------------------


def test_the_name_of_a_model_is_the_name_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        Watched(tmp_path, "../taxi")
    assert str(raised.value) == (
        "Model name '../taxi' cannot be the name of a folder: letters, digits, '_', "
        "'-' and '.', beginning with a letter or digit, can. Rename it."
    )


# --- the verbs


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    for day in range(4):
        moved = 0.15 if day == 3 else 0.0
        new = 0.03 if day == 3 else 0.0
        table = rows(3_000, 20 + day, day=day, fare=moved, new=new)
        pq.write_table(table, folder / f"{day}.parquet")
    return folder


def test_a_log_is_looked_at_and_the_past_decided_about_again(
    logs: Path, trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    where = ("--model=taxi", f"--dir={tmp_path / 'kept'}")
    columns = ("--id=trip", "--time=logged_at", "--score=score")
    none = penstock("drift", logs, *where, *columns)
    assert none.code == 1
    assert none.err.strip() == (
        "Model 'taxi' has no reference yet. Pass what it was trained on as --reference."
    )
    reference = f"--reference={trained_on.uri}"
    junit = tmp_path / "junit.xml"
    said = penstock("drift", logs, *where, *columns, reference, f"--junit={junit}")
    assert said.code == 3, said.err
    assert "2026-11-02  3,000  ok" in said.out
    assert "2026-11-05  3,000  alert" in said.out
    assert "- Feature 'payment_type' drifted: " in said.out
    assert "report: " in said.out
    assert "<testsuites" in junit.read_text()
    # The reference counts until another is given.
    early = penstock("drift", logs, *where, *columns, "--day=2026-11-03", "--json")
    assert early.code == 0
    (document,) = early.json
    assert document["window"]["name"] == "2026-11-03"
    assert document["versions"] == {}
    past = penstock("backtest", *where)
    assert past.code == 0
    assert "alert 2026-11-05" in past.out
    assert "1 alert in 4 windows with enough rows, of 4: 7.60 a month" in past.out
    strict = penstock("backtest", *where, "--min-rows=5000", "--json")
    assert set(strict.json["states"].values()) == {"insufficient_data"}
    # Slices are those of a reference, and stay with it.
    by = "--slice=payment_type"
    said = penstock("drift", logs, *where, *columns, by)
    assert said.code == 2
    assert "'payment_type' would change the reference, and none is made." in said.err
    penstock("drift", logs, *where, *columns, reference, by)
    said = penstock("drift", logs, *where, *columns, "--json")
    fare = next(each for each in said.json[-1]["columns"] if each["name"] == "fare")
    assert {each["slice"] for each in fare["slices"]} == {
        *("payment_type=Cash", "payment_type=Credit Card")
    }


def test_rows_may_come_in_any_order_and_twice_if_that_is_said(
    trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    table = rows(3_000, 20)
    shuffled = table.take(np.random.default_rng(3).permutation(3_000))
    pq.write_table(shuffled, tmp_path / "log.parquet")
    asked = (
        *("drift", tmp_path / "log.parquet", "--model=taxi", "--id=trip"),
        *(f"--dir={tmp_path / 'kept'}", "--time=logged_at", "--score=score"),
        f"--reference={trained_on.uri}",
    )
    said = penstock(*asked)
    assert said.code == 0, said.err
    assert "2026-11-02  3,000  ok" in said.out
    assert "Times go backwards in " in said.out
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "log.parquet")
    assert "has the id '0-0' in several rows" in penstock(*asked).err
    said = penstock(*asked, "--first-of-id")
    assert (said.code, "2026-11-02  3,000  ok" in said.out) == (0, True)
    # A reference that watches ids was made where nobody said that they are.
    whole = tmp_path / "whole.parquet"
    pq.write_table(rows(20_000, 0), whole)
    plain = [each for each in asked[:-1] if each != "--id=trip"]
    penstock(*plain, f"--reference={whole}")
    said = penstock(*asked[:-1], "--first-of-id")
    assert said.code == 1
    assert said.err.strip() == (
        "--id names 'trip', which the reference of model 'taxi' watches as a feature. "
        "Pass the --reference again, or leave --id out."
    )


def test_what_is_not_there_gets_a_sentence(
    logs: Path, trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    kept = f"--dir={tmp_path / 'kept'}"
    said = penstock("backtest", "--model=taxi", kept)
    assert said.code == 1
    assert said.err.strip() == (
        f"Model 'taxi' is not watched in '{tmp_path / 'kept'}' (it has none). Watch it "
        "with a DriftMonitor, or with penstock drift."
    )
    asked = ("drift", logs, "--model=taxi", kept, "--id=trip", "--time=logged_at")
    said = penstock(*asked, f"--reference={trained_on.uri}", "--importance=fare")
    assert said.code == 2
    assert "'fare' names no column and number. Write COLUMN=NUMBER" in said.err
    other = tmp_path / "other.parquet"
    pq.write_table(rows(10, 0).select(["trip"]).rename_columns(["x"]), other)
    said = penstock(*asked, f"--reference={other}")
    assert said.code == 1
    assert "have no column in common" in said.err
    penstock(*asked, f"--reference={trained_on.uri}", "--day=2026-11-02")
    said = penstock("backtest", "--model=taxy", kept)
    assert "(it has 'taxi'). Did you mean 'taxi'?" in said.err


@pytest.mark.parametrize("hourly", [False, True])
def test_windows_of_long_ago_are_not_read_and_those_before_midnight_are(
    trained_on: Examples, tmp_path: Path, penstock: Call, hourly: bool
) -> None:
    step = datetime.timedelta(hours=1) if hourly else datetime.timedelta(days=1)
    second = datetime.datetime(2026, 11, 3, tzinfo=datetime.timezone.utc)
    log = tmp_path / "log.parquet"
    tables = []
    for number, start in enumerate((second - step, second)):
        table = rows(2_000, 20 + number, fare=0.12)
        times = pa.array([start] * 2_000)
        place = table.schema.get_field_index("logged_at")
        tables.append(table.set_column(place, "logged_at", times))
    asked = ("drift", log, "--model=taxi", f"--dir={tmp_path / 'kept'}", "--id=trip")
    more = ("--time=logged_at", "--json", *(["--hourly"] if hourly else []))
    pq.write_table(tables[0], log)
    penstock(*asked, *more, f"--reference={trained_on.uri}")
    # Of 2026-10-20 nothing counts in days of November, and of 2026-11-01 none in hours.
    ancient = tmp_path / "kept" / "taxi" / "windows"
    for name in ("2026-10-20", *(["2026-11-01"] if hourly else [])):
        (ancient / name).mkdir()
        (ancient / name / "evidence.json").write_text("never read")
    pq.write_table(tables[1], log)
    said = penstock(*asked, *more)
    assert said.code == 3, said.err
    assert "it was so in both of the last 2 windows" in said.json[0]["reasons"][0]


def test_samples_are_looked_at_as_their_log_is(
    trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    # Of each stratum as many rows are kept, whatever its share.
    samples = tmp_path / "samples"
    for day in range(2):
        table = rows(20_000, 20 + day, day=day)
        table = table.append_column("stratum", table.column("payment_type"))
        log = of_table(
            table,
            window=Window(MONDAY + day * DAY, MONDAY + (day + 1) * DAY),
            format=LogFormat(
                id="trip", time="logged_at", stratum="stratum", scores=("score",)
            ),
        )
        sample = BottomK.of(log, 900).rows()
        assert 1 < sample.probabilities.max() / sample.probabilities.min() < 20
        path = write_sample(sample, samples)
        read = read_log(path)
        assert read.table.equals(sample.table.replace_schema_metadata())
        assert (read.features, read.scores) == (sample.features, sample.scores)
    asked = ("drift", samples, "--model=taxi", f"--dir={tmp_path / 'kept'}", "--json")
    said = penstock(*asked, f"--reference={trained_on.uri}")
    assert said.code == 0, said.err
    assert [each["state"] for each in said.json] == ["ok", "ok"]
    assert all(1_500 < each["rows"] < 2_200 for each in said.json)
    roles = {each["name"]: each["role"] for each in said.json[0]["columns"]}
    assert roles["score"] == "score" and set(roles) == {
        *("fare", "miles", "payment_type", "score")
    }


def test_mixed_versions_of_the_model_are_refused(
    logs: Path, trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    table = pq.read_table(logs / "0.parquet")
    versions = [str(7 + number % 2) for number in range(table.num_rows)]
    mixed = tmp_path / "mixed.parquet"
    pq.write_table(table.append_column("version", [versions]), mixed)
    asked = ("drift", mixed, "--model=taxi", f"--dir={tmp_path / 'kept'}")
    columns = ("--id=trip", "--time=logged_at", "--version-column=version")
    reference = f"--reference={trained_on.uri}"
    said = penstock(*asked, *columns, reference)
    assert said.code == 1 and "version" in said.err
    one = penstock(*asked, *columns, reference, "--version=7", "--json")
    assert one.code == 0, one.err
    assert json.dumps(one.json[0]["versions"]) == '{"7": 1500}'


def test_what_numbers_leave_out_is_told(tmp_path: Path, penstock: Call) -> None:
    trained = rows(2_000, 0).drop(["trip", "logged_at"])
    trained = trained.append_column("vendor", [["one"] * 2_000])
    day = rows(2_000, 1)
    fares = day.column("fare").to_numpy().copy()
    fares[:3] = np.inf
    day = day.set_column(2, "fare", [fares]).append_column("vendor", [["one"] * 2_000])
    log = tmp_path / "day.parquet"
    pq.write_table(day, log)
    asked = ("drift", log, "--model=taxi", f"--dir={tmp_path / 'kept'}", "--id=trip")
    reference = examples(tmp_path / "trained", trained)
    said = penstock(*asked, "--time=logged_at", f"--reference={reference.uri}")
    of_window = "Column 'fare' has 3 infinite values of 2000."
    of_reference = "Column 'vendor' is 'one' in the whole reference:"
    assert of_window in said.out
    assert of_reference in said.out
    # The reference is as it was: what is to be known of it was told.
    again = penstock(*asked, "--time=logged_at")
    assert of_window in again.out
    assert of_reference not in again.out


def test_rows_of_no_window_are_refused(
    logs: Path, trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    asked = ("drift", logs / "0.parquet", "--model=taxi", f"--dir={tmp_path / 'kept'}")
    said = penstock(*asked, "--id=trip", f"--reference={trained_on.uri}")
    assert said.code == 1
    assert said.err.strip() == (
        f"The log '{logs / '0.parquet'}' does not say when its rows were logged, so "
        "they are of no window. Name the column that does as --time."
    )


def test_columns_that_one_side_lacks_are_told(tmp_path: Path, penstock: Call) -> None:
    trained = rows(2_000, 0)
    trained = trained.drop(["trip", "logged_at", "score"])
    trained = trained.append_column("tipped", [[0, 1] * 1_000])
    log = tmp_path / "day.parquet"
    pq.write_table(rows(2_000, 1).append_column("app", [["3.1"] * 2_000]), log)
    where = ("--model=taxi", f"--dir={tmp_path / 'kept'}")
    asked = ("drift", log, *where, "--id=trip", "--time=logged_at", "--score=score")
    reference = examples(tmp_path / "trained", trained)
    said = penstock(*asked, f"--reference={reference.uri}")
    assert said.code == 0, said.err
    of_score = (
        "Not watched are the scores 'score', which the reference does not have. Pass "
        "the --reference with --scored-by MODEL, which says them."
    )
    of_app = "Not watched are 'app', which the reference does not have."
    of_label = "Not watched are 'tipped', which the log does not have."
    assert all(each in said.out for each in (of_score, of_app, of_label))
    # The log is another one each day; what the reference was made of is not.
    again = penstock(*asked)
    assert of_score in again.out and of_app in again.out
    assert of_label not in again.out


def test_a_model_says_the_scores_of_the_reference_of_a_log(
    tmp_path: Path, penstock: Call
) -> None:
    trained = rows(20_000, 0).drop(["logged_at", "score"])
    reference = f"--reference={examples(tmp_path / 'trained', trained).uri}"
    model = tmp_path / "model"
    scored_by = f"--scored-by={model / 'Format-Serving'}"
    served(model, "of_the_fare")
    log = tmp_path / "day.parquet"
    asked = ("drift", log, "--model=taxi", f"--dir={tmp_path / 'kept'}", "--id=trip")
    columns = ("--time=logged_at", "--score=score")
    for times, code in ((1.0, 0), (0.9, 3)):
        pq.write_table(answered(rows(4_000, 1), times), log)
        said = penstock(*asked, *columns, reference, scored_by, "--json")
        assert said.code == code, said.err
        roles = {each["name"]: each["role"] for each in said.json[0]["columns"]}
        assert roles["score"] == "score" and roles["fare"] == "feature"
    assert said.json[0]["reasons"][0].startswith(
        "Score 'score' drifted: values are smaller"
    )
    # The reference has them from now on.
    assert penstock(*asked, *columns).code == 3
    said = penstock(*asked, *columns, scored_by)
    assert said.code == 2 and "and none is made. Pass --reference, too." in said.err
    said = penstock(*asked, columns[0], reference, scored_by)
    assert said.code == 1
    assert said.err.strip() == (
        f"--scored-by names '{model / 'Format-Serving'}', and "
        f"'{tmp_path / 'trained'}' lacks none of the log's scores (none). Name them "
        "all as --score, or leave --scored-by out."
    )
    said = penstock(*asked, *columns, reference, f"--scored-by={tmp_path / 'no'}")
    assert said.code == 1 and f"There is no '{tmp_path / 'no'}'." in said.err


def test_columns_that_options_name_have_to_be_watched(
    logs: Path, trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    where = ("--model=taxi", f"--dir={tmp_path / 'kept'}")
    asked = ("drift", logs / "0.parquet", *where, "--id=trip", "--time=logged_at")
    reference = f"--reference={trained_on.uri}"
    said = penstock(*asked, reference, "--category=fair")
    assert said.code == 1
    assert said.err.startswith(
        "--category names the column 'fair', which is not watched (those that are: "
    )
    assert said.err.strip().endswith("Did you mean 'fare'?")
    assert not (tmp_path / "kept" / "taxi" / "reference.json").exists()
    assert penstock(*asked, reference).code == 0
    for verb in (asked, ("backtest", *where)):
        said = penstock(*verb, "--importance=fair=0.3")
        assert said.code == 1
        assert "--importance names the column 'fair', which is not watched" in said.err
    said = penstock(*asked, "--category=fare")
    assert said.code == 2
    assert "'fare' would change the reference, and none is made." in said.err


def test_junit_that_cannot_be_written_is_told_before(
    logs: Path, tmp_path: Path, penstock: Call
) -> None:
    junit = tmp_path / "none" / "junit.xml"
    said = penstock("drift", logs, "--model=taxi", f"--junit={junit}")
    assert said.code == 1
    assert said.err.strip() == (
        f"'{junit}' cannot be written: there is no folder '{junit.parent}'. Make it "
        "first."
    )


def test_a_replay_without_alerts_names_no_run_length(
    logs: Path, trained_on: Examples, tmp_path: Path, penstock: Call
) -> None:
    where = ("--model=taxi", f"--dir={tmp_path / 'kept'}")
    asked = ("drift", logs / "0.parquet", *where, "--id=trip", "--time=logged_at")
    rare = "--alerts-per-month=0.001"
    said = penstock(*asked, f"--reference={trained_on.uri}", rare, "--json")
    assert said.json[0]["budget"]["expected_alerts_per_month"] == 0
    assert said.json[0]["budget"]["run_length_windows"] is None
    past = penstock("backtest", *where, rare)
    assert "none are expected: the replay came to none." in past.out
