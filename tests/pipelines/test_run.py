"""run: complete, stopped, failed; what is returned, and what the store keeps."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Component, Options, output
from penstock.pipelines.execution import Execution
from penstock.pipelines.inputs import Latest, LatestBlessed
from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner
from penstock.schemas.artifacts import Answer, Examples, Model, PushedModel
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import ComponentFailed, PipelineError
from tests.pipelines.toys import (
    Bless,
    Check,
    Fail,
    Fit,
    IsolatedFail,
    IsolatedFit,
    Make,
    Meet,
    Push,
    Report,
    toy,
    unsure,
)


def store_of(root: Path) -> Store:
    return Store(f"sqlite:///{root / 'metadata.sqlite'}", create=False)


def failing(pipeline: Pipeline, root: Path, runner: Runner) -> ComponentFailed:
    with pytest.raises(ComponentFailed) as raised:
        run(pipeline, root, runner=runner)
    return raised.value


def files_below(root: Path) -> set[str]:
    """The files of artifacts, without the run's own folder and the store."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file()
        and ".penstock" not in path.parts
        and not path.name.startswith("metadata.sqlite")
    }


# Complete ------------------------------------------------------------------------


def test_a_complete_run_says_so(tmp_path: Path, runner: Runner) -> None:
    result = run(toy(), tmp_path, runner=runner)
    assert (result.state, result.reason, result.answer) == (RunState.COMPLETE, "", None)
    assert {name: each.state for name, each in result.executions.items()} == {
        name: State.COMPLETE for name in ("Make", "Check", "Fit", "Bless", "Push")
    }
    assert result.pipeline == "toy"
    assert result.seconds > 0
    record = store_of(tmp_path).run(result.run_id)
    assert (record.state, record.pipeline, record.reason) == (
        RunState.COMPLETE,
        "toy",
        "",
    )
    assert record.finished is not None and record.finished > record.started


def test_outputs_lie_under_the_execution_and_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    result = run(toy(), tmp_path, runner=LocalRunner())
    ids = {name: each.id for name, each in result.executions.items()}
    assert files_below(tmp_path) == {
        f"toy/Make/examples/{ids['Make']}/Split-train/data",
        f"toy/Fit/model/{ids['Fit']}/Format-Serving/saved_model.pb",
        f"toy/Bless/blessing/{ids['Bless']}/BLESSED",
    }
    assert not list(tmp_path.rglob("*.partial"))
    assert not [path for path in tmp_path.rglob(".tmp/*")]


def test_digests_properties_and_rows_are_recorded(
    tmp_path: Path, runner: Runner
) -> None:
    make = Make(rows=5)
    fit = Fit(examples=make.examples)
    result = run(Pipeline("p", [make, fit]), tmp_path, runner=runner)
    examples = result.artifact(make.examples)
    assert examples.digest == folder_digest(examples.path)
    assert (result["Make"].rows, result["Fit"].rows) == (5, 7)
    store = store_of(tmp_path)
    assert examples.id is not None
    stored = store.artifact(examples.id)
    assert (stored.uri, stored.digest) == (examples.uri, examples.digest)
    assert stored.properties["span"] == 7
    assert stored.properties["note"] == "made by hand"
    made, fitted = store.executions(result.run_id)
    assert made.properties["rows"] == 5
    assert made.properties["penstock_rows"] == 5
    assert fitted.properties["penstock_rows"] == 7
    assert fitted.inputs["examples"][0].id == examples.id
    assert fitted.outputs["model"][0].properties["auc"] == 0.5
    assert made.seconds is not None and made.seconds >= 0
    for key in ("penstock_cpu_seconds", "penstock_peak_memory_bytes"):
        measured = made.properties[key]
        assert isinstance(measured, int | float) and measured >= 0
    assert isinstance(made.properties["penstock_peak_memory_bytes"], int)
    assert made.properties["penstock_peak_memory_bytes"] > 1_000_000


def test_both_runners_give_the_same_records(tmp_path: Path) -> None:
    beam = run(toy(), tmp_path / "beam", runner=BeamDagRunner())
    local = run(toy(), tmp_path / "local", runner=LocalRunner(max_workers=1))
    assert described(tmp_path / "beam", beam) == described(tmp_path / "local", local)


def described(root: Path, result: RunResult) -> list[Any]:
    """What a store says about a run, without what differs from run to run."""
    volatile = re.compile(r"penstock_(seconds|cpu|peak|started|shared|run)")
    return sorted(
        (
            each.component,
            each.type,
            each.state.value,
            sorted(
                (key, str(value))
                for key, value in each.properties.items()
                if not volatile.match(key)
            ),
            ends(each.inputs, root),
            ends(each.outputs, root),
        )
        for each in store_of(root).executions(result.run_id)
    )


def ends(sides: Mapping[str, Any], root: Path) -> list[Any]:
    volatile = ("current_model", "penstock_execution")
    return [
        (
            key,
            each.TYPE_NAME,
            each.digest,
            each.uri.removeprefix(str(root)).rsplit("/", 1)[0],
            sorted(
                (name, str(value))
                for name, value in each.properties.items()
                if not name.startswith(volatile)
            ),
        )
        for key, made in sorted(sides.items())
        for each in made
    ]


def test_the_default_runner_is_beam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Runner] = []

    def execute_all(self: Runner, pipeline: Pipeline, active: Any) -> None:
        used.append(self)
        LocalRunner().execute_all(pipeline, active)

    monkeypatch.setattr(BeamDagRunner, "execute_all", execute_all)
    run(toy(), tmp_path)
    assert [type(each) for each in used] == [BeamDagRunner]


def test_independent_branches_overlap_on_the_local_runner(tmp_path: Path) -> None:
    folder = tmp_path / "present"
    folder.mkdir()
    meet = [Meet(name=f"m{n}", folder=folder, parties=3) for n in range(3)]
    result = run(Pipeline("p", meet), tmp_path, runner=LocalRunner(max_workers=3))
    assert result.state is RunState.COMPLETE
    assert all(each.shared for each in result.executions.values())
    for each in store_of(tmp_path).executions(result.run_id):
        assert each.properties["penstock_shared"] == 1


def test_one_worker_runs_one_component_at_a_time(tmp_path: Path) -> None:
    makes = [Make(name=f"m{n}") for n in range(4)]
    result = run(Pipeline("p", makes), tmp_path, runner=LocalRunner(max_workers=1))
    assert not any(each.shared for each in result.executions.values())


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_a_number_of_workers_is_a_number(workers: Any) -> None:
    with pytest.raises(PipelineError) as raised:
        LocalRunner(max_workers=workers)
    assert str(raised.value) == (
        f"LocalRunner.max_workers is {workers!r}, which is no number of threads. Pass "
        "a whole number of at least 1, or None for the number of cores."
    )


def test_after_orders_without_data(tmp_path: Path, runner: Runner) -> None:
    ended: list[str] = []

    def changed(execution: Execution) -> None:
        if execution.state is State.COMPLETE:
            ended.append(execution.component)

    first = Make(name="z-first")
    second = Make(name="a-second", after=(first,))
    third = Make(name="b-third", after=(second,))
    pipeline = Pipeline("p", [third, second, first])
    result = run(pipeline, tmp_path, runner=runner, on_change=changed)
    assert result.state is RunState.COMPLETE
    assert ended == ["z-first", "a-second", "b-third"]
    assert list(result.executions) == ended


def test_changes_are_told_as_they_happen(tmp_path: Path) -> None:
    told: list[tuple[str, str, int]] = []
    lock = threading.Lock()

    def changed(execution: Execution) -> None:
        with lock:
            told.append((execution.component, execution.state.value, execution.rows))

    run(Pipeline("p", [Make()]), tmp_path, runner=LocalRunner(), on_change=changed)
    states = [("running", 0), ("running", 3), ("complete", 3)]
    assert told == [("Make", *each) for each in states]


def test_parameters_of_the_pipeline_are_recorded(tmp_path: Path) -> None:
    result = run(
        toy(), tmp_path, runner=LocalRunner(), parameters={"good": "true", "rows": "3"}
    )
    properties = store_of(tmp_path).run(result.run_id).properties
    assert properties["parameter_good"] == "true"
    assert properties["parameter_rows"] == "3"
    assert properties["penstock_root"] == str(tmp_path)


def test_a_second_run_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    first = run(toy(), tmp_path, runner=LocalRunner())
    before = {path: path.read_bytes() for path in tmp_path.glob("toy/**/*.pb")}
    second = run(toy(rows=9), tmp_path, runner=LocalRunner())
    assert first.run_id != second.run_id
    assert all(path.read_bytes() == content for path, content in before.items())
    assert [each.id for each in store_of(tmp_path).runs("toy")] == [
        first.run_id,
        second.run_id,
    ]
    assert store_of(tmp_path).runs("other") == []


def test_an_isolated_component_runs_in_a_process_of_its_own(
    tmp_path: Path, runner: Runner
) -> None:
    import os

    make = Make()
    fit = IsolatedFit(examples=make.examples)
    result = run(Pipeline("p", [make, fit]), tmp_path, runner=runner)
    model = result.artifact(fit.model)
    assert model.properties["auc"] == 0.5
    assert model.properties["process"] != os.getpid()
    assert result["IsolatedFit"].rows == 7
    assert result["IsolatedFit"].cpu_seconds > 0
    assert result["IsolatedFit"].peak_memory_bytes > 1_000_000
    assert not result["IsolatedFit"].shared
    log = result["IsolatedFit"].log
    assert log is not None and "words of the child" in log.read_text()


def test_a_component_with_a_timeout_runs_in_a_process_of_its_own(
    tmp_path: Path,
) -> None:
    make = Make(options=Options(timeout_seconds=60))
    result = run(Pipeline("p", [make]), tmp_path, runner=LocalRunner())
    assert result["Make"].rows == 3
    assert result.artifact(make.examples).split_names == ("train",)


# Results -------------------------------------------------------------------------


def test_a_result_is_asked_by_component_and_by_promise(tmp_path: Path) -> None:
    make = Make()
    result = run(Pipeline("p", [make]), tmp_path, runner=LocalRunner())
    assert result["Make"].component == "Make"
    assert result.artifact(make.examples).path.is_dir()
    on_disk = Examples("/somewhere")
    assert result.artifact(on_disk) is on_disk
    with pytest.raises(PipelineError) as raised:
        result["Mak"]
    assert str(raised.value) == (
        f"Run '{result.run_id}' has no component 'Mak' (it has 'Make'). Did you mean "
        "'Make'?"
    )


def test_an_artifact_that_was_not_written_is_not_returned(tmp_path: Path) -> None:
    make = Make()
    check = Check(examples=make.examples, verdict="no")
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    result = run(Pipeline("p", [make, check, fit]), tmp_path, runner=LocalRunner())
    with pytest.raises(PipelineError) as raised:
        result.artifact(fit.model)
    assert str(raised.value) == (
        f"'Fit.model' was not written in run '{result.run_id}': 'Fit' is skipped. See "
        "its reason in the result."
    )


# Stopped -------------------------------------------------------------------------


def test_a_verdict_stops_what_it_gates_and_all_below(
    tmp_path: Path, runner: Runner
) -> None:
    result = run(toy(good=False), tmp_path, runner=runner)
    assert result.state is RunState.STOPPED
    assert result.answer is Answer.NO
    reason = "'Check.anomalies' says no: Split 'train': payment_type is new."
    assert result.reason == f"'Fit' did not run: {reason}"
    assert {name: each.state.value for name, each in result.executions.items()} == {
        "Make": "complete",
        "Check": "complete",
        "Fit": "skipped",
        "Bless": "skipped",
        "Push": "skipped",
    }
    assert result["Fit"].reason == reason
    assert result["Bless"].reason == f"'Fit' did not run: {reason}"
    store = store_of(tmp_path)
    record = store.run(result.run_id)
    assert (record.state, record.reason) == (RunState.STOPPED, result.reason)
    stored = {each.component: each for each in store.executions(result.run_id)}
    assert stored["Fit"].state is State.SKIPPED
    assert stored["Fit"].reason == reason
    assert set(stored["Fit"].inputs) == {"examples", "anomalies"}
    assert stored["Push"].state is State.SKIPPED
    assert stored["Push"].reason == f"'Fit' did not run: {reason}"
    assert not list(tmp_path.glob("toy/Fit/*"))


def test_not_enough_data_stops_with_its_own_answer(tmp_path: Path) -> None:
    result = run(unsure(), tmp_path, runner=LocalRunner())
    assert (result.state, result.answer) == (RunState.STOPPED, Answer.NOT_ENOUGH_DATA)
    assert result["Fit"].reason == (
        "'Check.anomalies' says not enough data: Split 'train' has 3 rows, under 100."
    )


def test_many_reasons_are_counted(tmp_path: Path) -> None:
    make = Make()
    check = Check(
        examples=make.examples, verdict="no", reasons=("a.", "b.", "c.", "d.", "e.")
    )
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    result = run(Pipeline("p", [make, check, fit]), tmp_path, runner=LocalRunner())
    assert result["Fit"].reason == ("'Check.anomalies' says no: a; b; c; and 2 more.")


def test_a_component_that_reads_a_verdict_is_not_gated(
    tmp_path: Path, runner: Runner
) -> None:
    make = Make()
    check = Check(examples=make.examples, verdict="no")
    report = Report(anomalies=check.anomalies)
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    result = run(Pipeline("p", [make, check, report, fit]), tmp_path, runner=runner)
    assert result.state is RunState.STOPPED
    assert result["Report"].state is State.COMPLETE
    said = result.artifact(report.examples).path / "said.txt"
    assert said.read_text() == "no"


def test_a_verdict_on_disk_gates_too(tmp_path: Path) -> None:
    from penstock.schemas.artifacts import ExampleAnomalies

    (tmp_path / "verdict").mkdir()
    verdict = ExampleAnomalies(tmp_path / "verdict", properties={"blessed": {"a": 0}})
    make = Make()
    fit = Fit(examples=make.examples, anomalies=verdict)
    result = run(Pipeline("p", [make, fit]), tmp_path, runner=LocalRunner())
    assert result["Fit"].reason == f"'{tmp_path / 'verdict'}' says no."


def test_what_comes_after_a_skipped_component_is_skipped(tmp_path: Path) -> None:
    make = Make()
    check = Check(examples=make.examples, verdict="no")
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    late = Make(name="late", after=(fit,))
    result = run(
        Pipeline("p", [make, check, fit, late]), tmp_path, runner=LocalRunner()
    )
    assert result["late"].state is State.SKIPPED
    assert result["late"].reason.startswith("'Fit' did not run: 'Check.anomalies' says")


# Failed --------------------------------------------------------------------------


def test_a_failure_is_raised_with_the_whole_result(
    tmp_path: Path, runner: Runner
) -> None:
    make = Make()
    fail = Fail(examples=make.examples)
    below = Fit(examples=make.examples, baseline=fail.model)
    failure = failing(Pipeline("p", [make, fail, below]), tmp_path, runner)
    assert re.fullmatch(
        r"'Fail' failed in run \(toys\.py, line \d+\): ValueError: the feature 'fare' "
        r"is all zeros",
        str(failure),
    )
    assert failure.component == "Fail"
    assert isinstance(failure.__cause__, ValueError)
    assert failure.others == ()
    result = failure.result
    assert isinstance(result, RunResult)
    assert failure.run_id == result.run_id
    assert result.state is RunState.FAILED
    assert result.reason == str(failure)
    assert result["Fit"].state is State.SKIPPED
    assert result["Fit"].reason == "'Fail' failed."
    stored = {
        each.component: each for each in store_of(tmp_path).executions(result.run_id)
    }
    assert stored["Fail"].state is State.FAILED
    assert stored["Fail"].reason == str(failure)
    assert stored["Fail"].properties["penstock_exception"] == "ValueError"
    assert (
        stored["Fail"].properties["penstock_message"]
        == "the feature 'fare' is all zeros"
    )
    tail = str(stored["Fail"].properties["penstock_traceback"]).splitlines()
    assert tail[-1] == "ValueError: the feature 'fare' is all zeros"
    assert stored["Fail"].seconds is not None
    assert stored["Fit"].state is State.SKIPPED
    assert store_of(tmp_path).run(result.run_id).state is RunState.FAILED
    assert not list(tmp_path.rglob("half"))


def test_independent_branches_finish_before_a_failure_is_raised(
    tmp_path: Path, runner: Runner
) -> None:
    make = Make()
    # The first failure is the first in time, not in the order of starts.
    fail = Fail(name="a-fail", examples=make.examples, seconds=0.5)
    slow = Fail(name="b-fail", examples=make.examples)
    fit = Fit(name="c-fit", examples=make.examples)
    bless = Bless(name="d-bless", model=fit.model)
    pipeline = Pipeline("p", [make, fail, slow, fit, bless])
    failure = failing(pipeline, tmp_path, runner)
    names = [failure.component, *(each.component for each in failure.others)]
    assert sorted(names) == ["a-fail", "b-fail"]
    if isinstance(runner, LocalRunner):
        assert names == ["b-fail", "a-fail"]
    assert failure.result["d-bless"].state is State.COMPLETE


def test_the_last_forty_lines_of_a_traceback_are_kept(tmp_path: Path) -> None:
    failure = failing(Pipeline("p", [Fail(depth=60)]), tmp_path, LocalRunner())
    (record,) = store_of(tmp_path).executions(failure.run_id)
    tail = str(record.properties["penstock_traceback"]).splitlines()
    assert len(tail) == 40
    assert tail[-1] == "ValueError: deep down"
    log = failure.result["Fail"].log.read_text()
    assert log.startswith("Traceback")
    assert log.count("toys.py") > 60


@pytest.mark.parametrize("kind", [Fail, IsolatedFail])
def test_a_traceback_ends_in_the_users_file_whatever_the_process(
    tmp_path: Path, kind: type[Fail]
) -> None:
    failure = failing(Pipeline("p", [kind(depth=3)]), tmp_path, LocalRunner())
    assert re.fullmatch(
        rf"'{kind.__name__}' failed in _fail_below \(toys\.py, line \d+\): "
        r"ValueError: deep down",
        str(failure),
    )
    (record,) = store_of(tmp_path).executions(failure.run_id)
    tail = str(record.properties["penstock_traceback"]).splitlines()
    assert tail[-2].strip() == 'raise ValueError("deep down")'
    assert record.properties["penstock_exception"] == "ValueError"
    assert failure.result[kind.__name__].log.read_text().count("ValueError: deep") == 1


def test_a_component_that_exits_python_fails(tmp_path: Path, runner: Runner) -> None:
    failure = failing(Pipeline("p", [Fail(how="sys.exit")]), tmp_path, runner)
    assert re.fullmatch(
        r"'Fail' failed in run \(toys\.py, line \d+\): SystemExit: 3", str(failure)
    )


def test_a_missing_input_is_a_failure_with_a_sentence(
    tmp_path: Path, runner: Runner
) -> None:
    fit = Fit(examples=Latest(Examples))
    failure = failing(Pipeline("p", [fit]), tmp_path, runner)
    assert str(failure) == (
        "'Fit' failed: 'Latest(Examples)' finds nothing for Fit.examples in pipeline "
        "'p'. Run what writes Examples first, or import it."
    )
    (record,) = store_of(tmp_path).executions(failure.run_id)
    assert record.state is State.FAILED


def test_a_component_without_run_fails(tmp_path: Path) -> None:
    class Lazy(Component):
        model: Model = output()

    failure = failing(Pipeline("p", [Lazy()]), tmp_path, LocalRunner())
    assert str(failure).endswith(
        "NotImplementedError: 'Lazy' has no run method. Define run(self, context)."
    )


# Roots ---------------------------------------------------------------------------


def test_a_root_behind_a_url_is_refused() -> None:
    with pytest.raises(PipelineError) as raised:
        run(toy(), "gs://bucket/root")
    assert str(raised.value) == (
        "Root 'gs://bucket/root' is not a local folder. Artifacts are committed by "
        "renaming folders, which only a local file system can: name a local folder."
    )


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "root"
    with pytest.raises(PipelineError) as raised:
        run(toy(), root)
    assert str(raised.value) == (
        f"Root '{root}' cannot be written: Not a directory: '{root}/.penstock/runs'. "
        "Choose a folder that you may write to."
    )


def test_a_read_only_root_is_refused() -> None:
    root = Path("/proc/root-of-penstock")
    with pytest.raises(PipelineError, match="cannot be written: No such file or"):
        run(toy(), root)


def test_a_relative_root_is_recorded_as_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make = Make()
    result = run(Pipeline("p", [make]), "root", runner=LocalRunner())
    assert result.artifact(make.examples).path.is_absolute()


def test_run_ids_are_distinct_even_in_the_same_microsecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.pipelines.run import _new_run_id

    (tmp_path / ".penstock" / "runs").mkdir(parents=True)
    ids = {_new_run_id(tmp_path) for _ in range(50)}
    assert len(ids) == 50


def test_a_broken_runner_is_recorded_and_raised(tmp_path: Path) -> None:
    class Broken:
        def execute_all(self, pipeline: Pipeline, run: Any) -> None:
            raise RuntimeError("no workers")

    with pytest.raises(RuntimeError, match="no workers"):
        run(toy(), tmp_path, runner=Broken())
    (record,) = store_of(tmp_path).runs()
    assert record.state is RunState.FAILED
    assert record.reason == "RuntimeError: no workers"


# Inputs from earlier runs --------------------------------------------------------


def test_the_latest_blessed_model_is_the_baseline_of_the_next(tmp_path: Path) -> None:
    baselines = []
    for rows, blessed in ((3, True), (4, False), (5, True), (5, True)):
        make = Make(rows=rows)
        fit = Fit(examples=make.examples)
        judge = Fit(
            name="judge",
            examples=make.examples,
            baseline=LatestBlessed(),
            after=(fit,),
        )
        bless = Bless(model=fit.model, blessed=blessed, after=(judge,))
        result = run(
            Pipeline("p", [make, fit, judge, bless]), tmp_path, runner=LocalRunner()
        )
        baselines.append(result["judge"].inputs.get("baseline"))
    rows_of = [
        None if each is None else (each[0].path / "Format-Serving/saved_model.pb")
        for each in baselines
    ]
    lengths = [
        None if path is None else path.read_text().count("row") for path in rows_of
    ]
    assert lengths == [None, 3, 3, 5]


def test_push_and_models_are_typed_in_results(tmp_path: Path) -> None:
    make = Make()
    fit = Fit(examples=make.examples)
    push = Push(model=fit.model, serving_dir=tmp_path / "serving")
    result = run(Pipeline("p", [make, fit, push]), tmp_path, runner=LocalRunner())
    assert type(result.artifact(push.pushed)) is PushedModel
