"""Components that are run again after a failure, and functions called at the end."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Options, Retries
from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner, Runner
from penstock.schemas.errors import ComponentFailed, HookFailed, PipelineError
from tests.pipelines.toys import Fail, Flaky, IsolatedFlaky, Make, Wait


def at_once(times: int, on: Any = ConnectionError) -> Options:
    return Options(retries=Retries(times=times, on=on, backoff_seconds=0))


@pytest.mark.parametrize("kind", [Flaky, IsolatedFlaky])
def test_a_component_is_run_again_until_it_works(
    tmp_path: Path, runner: Runner, kind: type[Flaky]
) -> None:
    flaky = kind(tried=tmp_path / "tried", options=at_once(3))
    result = run(Pipeline("p", [flaky]), tmp_path, runner=runner)
    execution = result[kind.__name__]
    assert execution.state is State.COMPLETE
    assert execution.attempts == 3
    assert (tmp_path / "tried").read_text() == "xxx"
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    (record,) = store.executions(result.run_id)
    assert record.properties["penstock_attempts"] == 3
    assert execution.log is not None
    log = execution.log.read_text()
    assert (
        f"Attempt 1 of '{kind.__name__}' failed and is made again in 0 s: "
        f"'{kind.__name__}' failed in run (toys.py, line"
    ) in log
    assert "ConnectionRefusedError: nobody listens" in log


def test_it_fails_when_it_was_run_often_enough(tmp_path: Path) -> None:
    flaky = Flaky(tried=tmp_path / "tried", failures=9, options=at_once(2))
    with pytest.raises(ComponentFailed, match="ConnectionRefusedError: nobody"):
        run(Pipeline("p", [flaky]), tmp_path, runner=LocalRunner())
    assert (tmp_path / "tried").read_text() == "xxx"
    assert not list(tmp_path.rglob("half"))


def test_other_failures_are_not_tried_again(tmp_path: Path) -> None:
    options = at_once(2, on=(TimeoutError, KeyError))
    flaky = Flaky(tried=tmp_path / "tried", options=options)
    with pytest.raises(ComponentFailed):
        run(Pipeline("p", [flaky]), tmp_path, runner=LocalRunner())
    assert (tmp_path / "tried").read_text() == "x"


def test_the_wait_doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    plain = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout in (0.25, 0.5, 1.0):
            waited.append(timeout)
            return False
        return plain(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", wait)
    retries = Retries(times=3, on=(ConnectionError,), backoff_seconds=0.25)
    flaky = Flaky(
        tried=tmp_path / "tried", failures=3, options=Options(retries=retries)
    )
    run(Pipeline("p", [flaky]), tmp_path, runner=LocalRunner())
    assert waited == [0.25, 0.5, 1.0]


def text_of(**fields: Any) -> str:
    with pytest.raises(PipelineError) as raised:
        Retries(**{"times": 1, "on": (ConnectionError,), **fields})
    return str(raised.value)


def test_rules_that_can_never_match_are_refused() -> None:
    assert text_of(on=()) == (
        "Retries.on names no exception, so that nothing is ever run again. Name "
        "classes of exceptions, such as ConnectionError."
    )
    for wrong in ("ConnectionError", KeyboardInterrupt, 3):
        assert text_of(on=(wrong,)) == (
            f"Retries.on has {wrong!r}, which no component fails with. Name classes of "
            "exceptions, such as ConnectionError."
        )
    assert text_of(times=0) == (
        "Retries.times is 0, so that nothing is ever run again. Pass a whole number of "
        "at least 1, or leave retries out."
    )
    assert text_of(times=1.5) == (
        "Retries.times is 1.5. Pass a whole number of at least 1."
    )
    assert text_of(backoff_seconds=-1) == (
        "Retries.backoff_seconds is -1, which is no length of time. Pass a number of "
        "seconds of at least 0."
    )


def test_options_of_another_kind_are_refused() -> None:
    for name, value, takes in (
        ("cache", "no", "True or False"),
        ("cache_salt", 3, "text"),
        ("retries", 3, "Retries or None"),
    ):
        with pytest.raises(PipelineError) as raised:
            Options(**{name: value})  # type: ignore[arg-type]
        assert str(raised.value) == (
            f"Options.{name} takes {takes}, got {value!r} ({type(value).__name__}). "
            "Pass a value of that kind."
        )


# on_exit ---------------------------------------------------------------------------


def test_hooks_are_called_once_however_a_run_ends(tmp_path: Path) -> None:
    called: list[tuple[str, RunState]] = []

    def first(result: RunResult) -> None:
        called.append(("first", result.state))

    def second(result: RunResult) -> None:
        called.append(("second", result.state))

    hooks = [first, second]
    run(Pipeline("p", [Make()], on_exit=hooks), tmp_path, runner=LocalRunner())
    with pytest.raises(ComponentFailed):
        run(Pipeline("p", [Fail()], on_exit=hooks), tmp_path, runner=LocalRunner())
    wait = Wait(started=tmp_path / "started")
    timer = threading.Thread(target=_interrupt_when, args=(tmp_path / "started",))
    timer.start()
    run(Pipeline("p", [wait], on_exit=hooks), tmp_path, runner=LocalRunner())
    timer.join()
    assert called == [
        (name, state)
        for state in (RunState.COMPLETE, RunState.FAILED, RunState.CANCELED)
        for name in ("first", "second")
    ]


def _interrupt_when(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
    signal.raise_signal(signal.SIGINT)


def break_down(result: RunResult) -> None:
    raise ValueError("the mail server is away")


LINE = break_down.__code__.co_firstlineno + 1


def test_a_hook_that_fails_is_said_and_the_others_are_called(tmp_path: Path) -> None:
    called: list[str] = []
    hooks = [break_down, lambda result: called.append(result.run_id)]
    with pytest.raises(PipelineError) as raised:
        run(Pipeline("p", [Make()], on_exit=hooks), tmp_path, runner=LocalRunner())
    (run_id,) = called
    assert str(raised.value) == (
        "'break_down', in on_exit of pipeline 'p', failed after run "
        f"'{run_id}' was complete, in break_down (test_retries.py, line {LINE}): "
        "ValueError: the mail server is away. The run is recorded as it ended; mend "
        "the function."
    )
    assert isinstance(raised.value, HookFailed)
    assert raised.value.result.run_id == run_id
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    assert store.run(run_id).state is RunState.COMPLETE


def test_a_hook_that_fails_does_not_hide_the_failure_of_the_run(tmp_path: Path) -> None:
    pipeline = Pipeline("p", [Fail()], on_exit=[break_down])
    with pytest.raises(ComponentFailed, match="all zeros") as raised:
        run(pipeline, tmp_path, runner=LocalRunner())
    (said,) = raised.value.result.hook_errors
    assert said.startswith("'break_down', in on_exit of pipeline 'p', failed after run")


@pytest.mark.parametrize("what", ["components", "on_exit"])
def test_what_is_no_list_is_refused(what: str) -> None:
    given: dict[str, object] = {"components": [Make()], "on_exit": [break_down]}
    (given[what],) = given[what]  # type: ignore[misc]
    with pytest.raises(PipelineError) as raised:
        Pipeline("p", **given)  # type: ignore[arg-type]
    assert str(raised.value) == (
        f"Pipeline 'p' has {given[what]!r} for {what}, which is no list. Put brackets "
        "around it."
    )


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(PipelineError) as raised:
        Pipeline("p", [Make()], on_exit=["mail"])  # type: ignore[list-item]
    assert str(raised.value) == (
        "Pipeline 'p' has 'mail' in on_exit, which cannot be called. Pass functions "
        "that take a RunResult."
    )
