"""QualityMonitor on generated logs: by hand, in pipelines, and as a story."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.base import RunContext
from penstock.components.monitoring.document import read_document
from penstock.components.monitoring.quality.history import (
    FOLDER,
    History,
    QualityWindow,
    read_windows,
)
from penstock.components.monitoring.quality.watching import Watch, watched
from penstock.components.monitoring.quality_monitor import QualityMonitor
from penstock.schemas.artifacts import Answer, Examples, ModelEvaluation
from penstock.schemas.errors import DataError, PipelineError
from tests.components.monitoring.logged_quality import (
    AUC,
    SHARES,
    day_of_logs,
    distance,
    examples_of,
)

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

ROWS = 3_000


def monitor(examples: Examples, **changed: Any) -> QualityMonitor:
    """A monitor of the generated logs, quick to run."""
    given: dict[str, Any] = {
        "examples": examples,
        "label": "big_tipper",
        "prediction": "score",
        "time": "time",
        "version": "version",
        "slices": ("payment_type",),
        "metrics": ("AUC",),
        "replicates": 100,
        **changed,
    }
    return QualityMonitor(**given)


def run(component: QualityMonitor, folder: Path) -> QualityMonitor:
    """Run it by hand."""
    live = component.with_outputs(folder / "outputs")
    live.run(RunContext.local(folder / "temporary"))
    return live


def a_day(folder: Path, *, day: int = 0, rows: int = ROWS, **changed: Any) -> Examples:
    """The log of one day as Examples."""
    random = np.random.default_rng([day, rows])
    return examples_of(folder, day_of_logs(random, day, rows, **changed))


def test_a_day_is_measured_slice_by_slice(tmp_path: Path) -> None:
    live = run(monitor(a_day(tmp_path / "logs")), tmp_path)
    assert live.verdict.answer is Answer.YES
    assert live.verdict.properties["verdict"] == "OK"
    document = read_document(live.verdict.file)
    assert document["window"]["name"] == "2026-09-07"
    assert (document["rows"], document["model_version"]) == (ROWS, "7")
    quality = document["quality"]
    assert quality is not None
    by_slice = {each["slice"]: each for each in quality["metrics"]}
    assert sorted(by_slice) == sorted(
        ["overall", *(f"payment_type={name}" for name in SHARES)]
    )
    overall = by_slice["overall"]
    assert overall["value"] == pytest.approx(AUC, abs=0.03)
    assert overall["lower"] < overall["value"] < overall["upper"]  # type: ignore[operator]
    assert overall["rows"] == ROWS
    assert live.evaluation.properties["auc"] == overall["value"]
    assert quality["labels"] == {
        "joined": ROWS,
        "waiting": 0,
        "late": 0,
        "share": 1.0,
    }
    (stored,) = read_windows(live.evaluation.path / FOLDER)
    assert stored.labeled == ROWS


def test_labels_that_came_after_the_first_look_are_told(tmp_path: Path) -> None:
    found = []
    evaluations: tuple[ModelEvaluation, ...] = ()
    for look, labeled in enumerate((0.6, 0.9, 0.9, 1.0)):
        live = run(
            monitor(
                a_day(tmp_path / f"logs-{look}", labeled=labeled),
                evaluations=evaluations,
            ),
            tmp_path / f"{look}",
        )
        document = read_document(live.verdict.file)
        assert document["quality"] is not None
        labels = document["quality"]["labels"]
        assert labels is not None
        assert labels["joined"] + labels["waiting"] == ROWS
        found.append((labels["joined"], labels["late"]))
        evaluations = (live.evaluation,)
    first = found[0][0]
    assert [late for _, late in found] == [joined - first for joined, _ in found]
    assert found[1] == found[2]
    assert found[3] == (ROWS, ROWS - first)


def test_it_measures_what_the_evaluation_command_does(tmp_path: Path) -> None:
    from penstock.pipelines.evaluate import Question, evaluate

    examples = a_day(tmp_path / "logs")
    live = run(monitor(examples), tmp_path)
    expected = evaluate(
        examples.path,
        Question(
            label="big_tipper",
            prediction="score",
            metrics=("AUC",),
            slices=("payment_type",),
        ),
        out=tmp_path / "evaluated",
    )
    (stored,) = read_windows(live.evaluation.path / FOLDER)
    found = {point.slice: point.value for point in stored.points}
    for each in expected.measured:
        (metric,) = each.metrics.values()
        name = "overall" if not each.slice else str(each)
        assert found[name] == pytest.approx(metric.value, abs=1e-12)


def test_rows_logged_with_a_probability_count_one_over_it(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    whole = day_of_logs(random, 0, 40_000, auc={"Cash": 0.7})
    is_cash = np.array(whole["payment_type"].to_pylist()) == "Cash"
    probability = np.where(is_cash, 0.1, 1.0)
    kept = random.random(40_000) < probability
    sampled = whole.append_column("kept", pa.array(probability)).filter(pa.array(kept))
    one, two = (
        run(
            monitor(examples_of(tmp_path / name / "logs", table), **more),
            tmp_path / name,
        )
        for name, table, more in (
            ("whole", whole, {}),
            ("sampled", sampled, {"probability": "kept"}),
        )
    )
    auc = [float(each.evaluation.properties["auc"]) for each in (one, two)]  # type: ignore[arg-type]
    assert auc[0] == pytest.approx(auc[1], abs=0.01)
    plain = run(
        monitor(examples_of(tmp_path / "plain" / "logs", sampled)), tmp_path / "plain"
    )
    assert float(plain.evaluation.properties["auc"]) > auc[0] + 0.01  # type: ignore[arg-type]


def test_labels_that_wait_are_left_out_and_counted(tmp_path: Path) -> None:
    live = run(monitor(a_day(tmp_path / "logs", labeled=0.5)), tmp_path)
    quality = read_document(live.verdict.file)["quality"]
    assert quality is not None and quality["labels"] is not None
    labels = quality["labels"]
    assert labels["joined"] + labels["waiting"] == ROWS
    assert labels["share"] == pytest.approx(0.5, abs=0.05)
    assert live.verdict.answer is Answer.YES


def test_too_few_labels_are_not_enough_data(tmp_path: Path) -> None:
    live = run(monitor(a_day(tmp_path / "logs", rows=400)), tmp_path)
    assert live.verdict.answer is Answer.NOT_ENOUGH_DATA
    assert live.verdict.reasons == (
        "Labels have come for 400 of the 400 rows of 2026-09-07, and 500 are needed to "
        "measure. Use longer windows.",
    )


def test_a_threshold_that_a_slice_misses_is_an_alert(tmp_path: Path) -> None:
    examples = a_day(tmp_path / "logs", auc={"Cash": 0.55})
    live = run(monitor(examples, thresholds=("auc >= 0.65",)), tmp_path)
    assert live.verdict.answer is Answer.NO
    (against, *_) = live.verdict.reasons_against
    assert against.startswith("'auc' in payment_type=Cash is 0.5")
    quality = read_document(live.verdict.file)["quality"]
    assert quality is not None
    states = {each["slice"]: each["state"] for each in quality["metrics"]}
    assert states["payment_type=Cash"] == "alert"
    assert states["payment_type=Mobile"] == "ok"


def test_a_threshold_within_the_noise_is_none(tmp_path: Path) -> None:
    examples = a_day(tmp_path / "logs")
    live = run(monitor(examples, thresholds=(f"auc >= {AUC}",)), tmp_path)
    assert live.verdict.answer is Answer.YES


def _reference(folder: Path) -> Examples:
    return examples_of(
        folder, day_of_logs(np.random.default_rng(99), -30, 10_000), split="test"
    )


def test_without_labels_quality_is_estimated(tmp_path: Path) -> None:
    live = run(
        monitor(
            a_day(tmp_path / "logs", labeled=0.0),
            reference=_reference(tmp_path / "reference"),
            estimated=("auc", "recall"),
        ),
        tmp_path,
    )
    assert live.verdict.answer is Answer.YES
    document = read_document(live.verdict.file)
    quality = document["quality"]
    assert quality is not None and quality["estimate"] is not None
    estimate = quality["estimate"]
    assert estimate["assumption"] == "unchecked"
    assert estimate["lower"] < AUC < estimate["upper"]  # type: ignore[operator]
    assert [(each["metric"], each["estimated"]) for each in quality["metrics"]] == [
        ("auc", True),
        ("recall", True),
    ]
    assert document["reference"] is not None
    assert document["reference"]["id"].startswith("sha256:")


def test_an_estimate_beyond_a_threshold_is_an_alert(tmp_path: Path) -> None:
    live = run(
        monitor(
            a_day(tmp_path / "logs", labeled=0.0),
            reference=_reference(tmp_path / "reference"),
            thresholds=("auc >= 0.9",),
        ),
        tmp_path,
    )
    assert live.verdict.answer is Answer.NO
    assert "The bound is 0.9 to inf, beyond its 98.9" in live.verdict.reasons[0]


def test_labels_that_contradict_estimates_are_an_alert(tmp_path: Path) -> None:
    live = run(
        monitor(
            a_day(tmp_path / "logs", auc=dict.fromkeys(SHARES, 0.7)),
            reference=_reference(tmp_path / "reference"),
        ),
        tmp_path,
    )
    assert live.verdict.answer is Answer.NO
    quality = read_document(live.verdict.file)["quality"]
    assert quality is not None and quality["estimate"] is not None
    assert quality["estimate"]["assumption"] == "violated"
    assert "Go by labels, not by estimates, and retrain." in live.verdict.reasons[0]


def test_detectors_go_on_where_the_last_window_ended(tmp_path: Path) -> None:
    names = ("ADWIN", "CUSUM", "DDM", "EDDM", "Page-Hinkley")
    reference = _reference(tmp_path / "reference")
    steady, worse = (
        a_day(tmp_path / f"logs{day}", day=day, auc=auc)
        for day, auc in ((0, None), (1, dict.fromkeys(SHARES, 0.55)))
    )
    first = run(monitor(steady, concept=names, reference=reference), tmp_path / "first")
    second = run(
        monitor(
            worse,
            concept=names,
            reference=reference,
            evaluations=(first.evaluation,),
        ),
        tmp_path / "second",
    )
    one, two = (read_document(each.verdict.file)["quality"] for each in (first, second))
    assert one is not None and two is not None
    states = {each["detector"]: each["state"] for each in two["concept"]}
    assert sorted(states) == sorted(names)
    assert states["ADWIN"] == states["CUSUM"] == "drift"
    before_that = {each["detector"]: each["state"] for each in one["concept"]}
    assert before_that["ADWIN"] == before_that["CUSUM"] == "ok"
    before, _ = read_windows(second.evaluation.path / FOLDER)
    assert before.detectors["ADWIN"]["rows"] == ROWS


def test_detectors_remember_over_a_window_whose_labels_have_not_come(
    tmp_path: Path,
) -> None:
    evaluations: tuple[ModelEvaluation, ...] = ()
    stored: list[QualityWindow] = []
    for day, labeled in enumerate((1.0, 0.0, 1.0)):
        folder = tmp_path / str(day)
        logs = a_day(folder / "logs", day=day, labeled=labeled)
        live = run(monitor(logs, evaluations=evaluations), folder)
        evaluations = (live.evaluation,)
        stored = read_windows(live.evaluation.path / FOLDER)
    seen = [each.detectors["ADWIN"]["rows"] for each in stored]
    assert seen == [ROWS, ROWS, 2 * ROWS]


def test_the_auc_of_a_slice_of_one_class_is_not_defined(tmp_path: Path) -> None:
    table = day_of_logs(np.random.default_rng(4), 0, ROWS)
    is_other = np.array(table["payment_type"].to_pylist()) == "Other"
    labels = np.where(is_other, 0, table["big_tipper"].to_numpy())
    place = table.schema.get_field_index("big_tipper")
    log = table.set_column(place, "big_tipper", pa.array(labels))
    live = run(monitor(examples_of(tmp_path / "logs", log)), tmp_path)
    quality = read_document(live.verdict.file)["quality"]
    assert quality is not None
    values = {each["slice"]: each["value"] for each in quality["metrics"]}
    assert values.pop("payment_type=Other") is None
    assert all(value is not None and value > 0.5 for value in values.values())
    (stored,) = read_windows(live.evaluation.path / FOLDER)
    assert [p.slice for p in stored.points if math.isnan(p.value)] == [
        "payment_type=Other"
    ]


def with_nan(log: pa.Table, count: int) -> pa.Table:
    """The log with its first predictions NaN."""
    scores = log["score"].to_numpy().copy()
    scores[:count] = math.nan
    place = log.schema.get_field_index("score")
    return log.set_column(place, "score", pa.array(scores, log["score"].type))


def test_predictions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    log = day_of_logs(np.random.default_rng(4), 0, ROWS)
    examples = examples_of(tmp_path / "logs", with_nan(log, 12))
    sentence = (
        f"Examples '{examples.uri}' has 12 of 3,000 rows whose prediction in 'score' "
        "is not a number. Mend the model, or pass nan_scores='drop' to leave such rows "
        "out and count them."
    )
    for given in (
        {"examples": examples},
        {"examples": a_day(tmp_path / "fine"), "reference": examples},
    ):
        with pytest.raises(DataError) as error:
            run(monitor(**given), tmp_path)
        assert str(error.value) == sentence


def test_predictions_that_are_no_numbers_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    log = day_of_logs(np.random.default_rng(4), 0, ROWS)
    found = []
    for name, table in (("nan", with_nan(log, 1_200)), ("less", log.slice(1_200))):
        examples = examples_of(tmp_path / name / "logs", table)
        live = run(
            monitor(examples, reference=examples, nan_scores="drop"), tmp_path / name
        )
        document = read_document(live.verdict.file)
        assert document["rows"] == 1_800
        found.append((document["quality"], live.verdict.reasons))
    (nan, told), (less, reasons) = found
    assert nan == less
    (text,) = set(told) - set(reasons)
    assert text == (
        "1,200 of 3,000 rows of 2026-09-07 have a prediction that is not a number, and "
        "are left out."
    )


def test_a_day_without_one_number_has_too_few_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    days = [day_of_logs(random, day, ROWS) for day in range(2)]
    examples = examples_of(tmp_path / "logs", days[0], with_nan(days[1], ROWS))
    live = run(
        monitor(
            examples,
            reference=a_day(tmp_path / "fine"),
            nan_scores="drop",
            thresholds=("auc >= 0.5",),
        ),
        tmp_path,
    )
    assert live.verdict.answer is Answer.NOT_ENOUGH_DATA
    assert live.verdict.properties["window"] == "2026-09-08"
    assert list(live.verdict.reasons) == [
        "Labels have come for 0 of the 0 rows of 2026-09-08, and 500 are needed to "
        "measure. Use longer windows.",
        "There is 1 window yet, too few for trends: every series needs 7 with enough "
        "rows.",
        "3,000 of 3,000 rows of 2026-09-08 have a prediction that is not a number, and "
        "are left out.",
    ]


def test_versions_that_mix_are_told(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    tables = [day_of_logs(random, 0, 600, version=each) for each in ("7", "8")]
    live = run(monitor(examples_of(tmp_path / "logs", *tables)), tmp_path)
    assert live.verdict.answer is Answer.YES
    assert live.verdict.reasons[-1] == (
        "The window 2026-09-07 mixes versions of the model: '7' (600 rows), '8' (600 "
        "rows). Its metrics are of all of them; slice by the version to tell them "
        "apart."
    )


def test_a_column_without_values_of_one_slice_is_left_out(tmp_path: Path) -> None:
    live = run(monitor(a_day(tmp_path / "logs"), min_slice_size=300), tmp_path)
    quality = read_document(live.verdict.file)["quality"]
    assert quality is not None
    assert "payment_type=Other" not in {each["slice"] for each in quality["metrics"]}


# The story ------------------------------------------------------------------------

STEADY, SINKING = 14, 35  # days
A_DAY = 24_000
POINTS_A_WEEK = 0.003  # 0.3 percentage points of AUC


def _story(day: int) -> dict[str, float]:
    """What each slice's AUC is on a day: Cash sinks, and the others make up for it."""
    weeks = max(day - STEADY, 0) / 7
    cash = AUC - POINTS_A_WEEK * weeks
    # The overall AUC is that of the mean distance of the classes' scores.
    share = SHARES["Cash"]
    others = (distance(AUC) - share * distance(cash)) / (1 - share)
    from scipy import special

    rest = float(special.ndtr(others / math.sqrt(2)))
    return {name: cash if name == "Cash" else rest for name in SHARES}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[QualityMonitor, Path]:
    """Seven weeks of logs, measured day by day."""
    folder = tmp_path_factory.mktemp("story")
    random = np.random.default_rng(2026)
    tables = [
        day_of_logs(random, day, A_DAY, auc=_story(day))
        for day in range(STEADY + SINKING)
    ]
    examples = examples_of(folder / "logs", *tables)
    deployments = (("2026-09-10T12:00:00Z", "version 7"),)
    return run(monitor(examples, deployments=deployments, concept=()), folder), folder


def test_the_slice_that_sinks_is_named_first_and_nothing_else(
    told: tuple[QualityMonitor, Path],
) -> None:
    live, _ = told
    assert live.verdict.answer is Answer.NO
    assert live.verdict.properties["verdict"] == "ALERT"
    (against,) = live.verdict.reasons_against
    assert against.startswith("'auc' in payment_type=Cash ")
    quality = read_document(live.verdict.file)["quality"]
    assert quality is not None
    assert quality["deployments"] == [{"window": "2026-09-10", "text": "version 7"}]
    first, *others = quality["trends"]
    assert (first["slice"], first["state"]) == ("payment_type=Cash", "alert")
    assert len(first["points"]) == STEADY + SINKING
    assert first["slope_per_week"] == pytest.approx(-POINTS_A_WEEK, abs=0.002)
    assert {each["state"] for each in others} == {"ok"}


def test_it_is_found_within_five_weeks_while_no_other_alert_is_raised(
    told: tuple[QualityMonitor, Path],
) -> None:
    """Every day anew, as a team looks: on the stored windows up to that day."""
    live, _ = told
    windows: list[QualityWindow] = read_windows(live.evaluation.path / FOLDER)
    history = History.of(windows, min_rows=100)
    alerted: dict[str, int] = {}
    for day in range(7, STEADY + SINKING):
        until = history.last(day + 1, without=len(windows) - day - 1)
        for found in watched(until, Watch(alerts=1.0)):
            if found.state == "alert":
                alerted.setdefault(found.slice, day)
                assert found.slice != "payment_type=Cash" or found.rank == 1
    assert list(alerted) == ["payment_type=Cash"]
    assert STEADY < alerted["payment_type=Cash"] <= STEADY + 35


def test_meanwhile_the_overall_auc_is_steady(
    told: tuple[QualityMonitor, Path],
) -> None:
    live, _ = told
    windows = read_windows(live.evaluation.path / FOLDER)
    overall = [
        point.value
        for each in windows
        for point in each.points
        if point.slice == "overall"
    ]
    assert np.mean(overall[-7:]) == pytest.approx(np.mean(overall[:7]), abs=0.003)


# In pipelines ------------------------------------------------------------------------


def test_it_is_an_ordinary_component_of_a_pipeline(tmp_path: Path) -> None:
    """Logs ingested by day; each run takes up the history of the one before."""
    import pyarrow.csv

    from penstock import LocalRunner, Pipeline
    from penstock import run as run_pipeline
    from penstock.components import CsvExampleGen
    from penstock.pipelines.inputs import Latest

    def pipeline(day: int) -> Pipeline:
        logs = CsvExampleGen(
            input_dir=tmp_path / f"day{day}", input_splits={"logged": "*.csv"}
        )
        watch = monitor(
            logs.examples,
            # On the first day there is none.
            evaluations=Latest(ModelEvaluation, component="QualityMonitor"),
        )
        return Pipeline("watch", [logs, watch])

    names = []
    for day in range(2):
        (tmp_path / f"day{day}").mkdir()
        table = day_of_logs(np.random.default_rng(day), day, ROWS)
        pyarrow.csv.write_csv(table, tmp_path / f"day{day}" / "log.csv")
        result = run_pipeline(pipeline(day), tmp_path / "root", runner=LocalRunner())
        evaluation = result["QualityMonitor"].outputs["evaluation"]
        names = [each.window.name for each in read_windows(evaluation.path / FOLDER)]
    assert names == ["2026-09-07", "2026-09-08"]


def test_twice_the_same_differs_by_when_it_was_made_only(tmp_path: Path) -> None:
    component = monitor(
        a_day(tmp_path / "logs", labeled=0.9),
        reference=_reference(tmp_path / "reference"),
        thresholds=("auc >= 0.5",),
        model="taxi",
    )
    documents = []
    for name in ("one", "two"):
        live = run(component, tmp_path / name)
        documents.append({**read_document(live.verdict.file), "made_at": ""})
    assert documents[0] == documents[1]


# What is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"label": ""}, "QualityMonitor.label is empty. Pass the name of a column."),
        ({"model": ""}, "QualityMonitor.model is empty. Pass the name of the model."),
        (
            {"min_rows": 0},
            "QualityMonitor.min_rows is 0. Pass a whole number from 1.",
        ),
        (
            {"alerts_per_month": 0.0},
            "QualityMonitor.alerts_per_month is 0.0; it lies between 0 and 7.6. Pass a "
            "number in between.",
        ),
        (
            {"decision": 1.0},
            "QualityMonitor.decision is 1.0; it lies between 0 and 1. Pass a number in "
            "between.",
        ),
        (
            {"deployments": (("yesterday", "version 8"),)},
            "QualityMonitor.deployments has the time 'yesterday'. Write it as "
            "'2026-11-30T06:00:00Z'.",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        monitor(Examples(tmp_path), **changed)
    assert str(caught.value) == sentence


def test_a_window_that_is_no_day_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'30\.11\.2026' is not a day. Write it as"):
        monitor(Examples(tmp_path), window="30.11.2026")


def test_cusum_without_a_reference_is_refused(tmp_path: Path) -> None:
    component = monitor(a_day(tmp_path / "logs"), concept=("CUSUM",))
    with pytest.raises(PipelineError) as caught:
        run(component, tmp_path)
    assert str(caught.value) == (
        "QualityMonitor.concept has 'CUSUM', which has to know the error rate when all "
        "is well. Give a reference, or another detector."
    )


def test_a_metric_that_cannot_be_estimated_gets_a_near_miss(tmp_path: Path) -> None:
    component = monitor(a_day(tmp_path / "logs"), estimated=("aucc",))
    with pytest.raises(PipelineError, match=r"\.estimated has 'aucc'.*'auc'"):
        run(component, tmp_path)


def test_rows_of_another_window_are_refused(tmp_path: Path) -> None:
    component = monitor(a_day(tmp_path / "logs"), window="2026-09-08")
    with pytest.raises(
        DataError, match=r"3,000 of 3,000 rows that are not of the wind"
    ):
        run(component, tmp_path)


def test_examples_that_are_of_no_window_are_refused(tmp_path: Path) -> None:
    component = monitor(a_day(tmp_path / "logs"), time="")
    with pytest.raises(
        DataError, match=r"Nothing tells which window Examples .*Pass win"
    ):
        run(component, tmp_path)


def test_the_span_tells_the_day(tmp_path: Path) -> None:
    examples = a_day(tmp_path / "logs")
    examples.properties["span"] = 20_703
    live = run(monitor(examples, time=""), tmp_path)
    assert live.verdict.properties["window"] == "2026-09-07"


def test_a_missing_column_gets_a_near_miss(tmp_path: Path) -> None:
    component = monitor(a_day(tmp_path / "logs"), label="big_tiper")
    with pytest.raises(DataError, match="Did you mean 'big_tipper'"):
        run(component, tmp_path)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    empty = day_of_logs(np.random.default_rng(0), 0, 5).slice(0, 0)
    component = monitor(examples_of(tmp_path / "logs", empty))
    with pytest.raises(DataError, match="has no rows in the splits 'logged'"):
        run(component, tmp_path)


def test_an_evaluation_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    component = monitor(
        a_day(tmp_path / "logs"), evaluations=(ModelEvaluation(tmp_path / "other"),)
    )
    with pytest.raises(
        DataError, match=r"holds no stored windows: its folder 'windows'"
    ):
        run(component, tmp_path)


def test_the_history_of_another_model_is_refused(tmp_path: Path) -> None:
    first = run(monitor(a_day(tmp_path / "logs"), model="taxi"), tmp_path / "first")
    component = monitor(
        a_day(tmp_path / "more", day=1),
        history_dir=first.evaluation.path / FOLDER,
        model="other",
    )
    with pytest.raises(
        DataError, match=r"is of 'taxi', and QualityMonitor.model is 'oth"
    ):
        run(component, tmp_path)


def test_a_reference_of_other_numbers_is_refused(tmp_path: Path) -> None:
    table = day_of_logs(np.random.default_rng(0), 0, 1_000)
    labels = pa.array(np.arange(1_000) % 3)
    place = table.schema.get_field_index("big_tipper")
    reference = examples_of(
        tmp_path / "reference", table.set_column(place, "big_tipper", labels)
    )
    component = monitor(a_day(tmp_path / "logs"), reference=reference)
    with pytest.raises(
        DataError, match=r"are not probabilities and classes of 0 and 1"
    ):
        run(component, tmp_path)


def test_stored_windows_are_plain_json(tmp_path: Path) -> None:
    live = run(monitor(a_day(tmp_path / "logs")), tmp_path)
    (path,) = (live.evaluation.path / FOLDER).iterdir()
    assert path.name == "2026-09-07.json"
    assert json.loads(path.read_text())["model"] == "model"
    assert dataclasses.is_dataclass(QualityWindow)
