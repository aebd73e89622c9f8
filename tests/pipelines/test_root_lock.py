"""Runs and housekeeping keep out of each other's way, whoever dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.pipelines.housekeeping import Garbage, What, delete_garbage
from penstock.pipelines.metadata import State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.root_lock import in_use, runs_going_on, unused
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import ArtifactState
from penstock.schemas.errors import PipelineError
from tests.pipelines.histories import NOTHING, NOW, History, alive, gone
from tests.pipelines.toys import Fit, Make, Wait

# Holds the lock of a root, shared or alone, until it is killed.
CHILD = """
import sys, time
from pathlib import Path
from penstock.pipelines import root_lock

with getattr(root_lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def elsewhere(kind: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in another process meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, kind, root],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def refused(root: Path) -> str:
    """By whom a root is in use that shall be deleted from."""
    with pytest.raises(PipelineError) as raised, unused(root):
        pass
    who, _, rest = str(raised.value).partition(", which ")
    assert rest == (
        "may need what would be deleted. Wait until that ends, or say with --wait "
        "SECONDS how long to wait for it."
    )
    return who.removeprefix(f"Root '{root}' is in use by ")


def test_many_may_use_a_root_and_one_may_delete(tmp_path: Path) -> None:
    with elsewhere("in_use", tmp_path), in_use(tmp_path):
        assert refused(tmp_path) == "another process"
    with unused(tmp_path):
        assert refused(tmp_path) == "another process"


def test_the_runs_that_go_on_are_named(tmp_path: Path) -> None:
    """Even those that hold no lock of the root, as an older penstock's do not."""
    runs = tmp_path / ".penstock" / "runs"
    for name in ("1", "2", "ended", ".probe-1"):
        (runs / name).mkdir(parents=True)
    (runs / "link").symlink_to(runs / "1")
    (runs / "file").touch()
    with alive(runs / "1"):
        assert runs_going_on(tmp_path) == ["1"]
        assert refused(tmp_path) == "run '1'"
        with alive(runs / "2"):
            assert refused(tmp_path) == "runs '1', '2'"
    assert runs_going_on(tmp_path) == []
    with unused(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["in_use", "unused"])
def test_the_kernel_frees_what_a_dead_process_held(tmp_path: Path, kind: str) -> None:
    with elsewhere(kind, tmp_path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        with unused(tmp_path):
            pass


def test_housekeeping_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    with elsewhere("in_use", tmp_path) as child:
        ended = []

        def end() -> None:
            time.sleep(0.3)
            ended.append(True)
            child.kill()

        thread = threading.Thread(target=end)
        thread.start()
        with unused(tmp_path, wait_seconds=30):
            assert ended
        thread.join()


def test_a_run_waits_for_housekeeping_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with elsewhere("unused", tmp_path) as child:
        thread = threading.Timer(0.3, child.kill)
        thread.start()
        with caplog.at_level(logging.WARNING, "penstock"), in_use(tmp_path):
            assert child.wait() == -signal.SIGKILL
        thread.join()
    assert [each.getMessage() for each in caplog.records] == [
        f"Waiting for 'penstock gc', which deletes below '{tmp_path}'."
    ]


def test_a_root_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(PipelineError) as raised, in_use(tmp_path / "root"):
        pass
    assert str(raised.value) == (
        f"Root '{tmp_path / 'root'}' cannot be written: Not a directory: "
        f"'{tmp_path / 'root' / '.penstock'}'. Choose a folder that you may write to."
    )


def test_a_run_that_goes_on_loses_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "root")
    made = history.model(history.run(days_ago=90), blessed=False)
    make = Make()
    wait = Wait(examples=make.examples, seconds=1.0, started=tmp_path / "started")
    pipeline = Pipeline("p", [make, wait, Fit(examples=make.examples, after=(wait,))])
    results = []
    thread = threading.Thread(
        target=lambda: results.append(run(pipeline, history.root, runner=LocalRunner()))
    )
    thread.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    (run_id,) = runs_going_on(history.root)
    with pytest.raises(PipelineError, match=f"in use by run '{run_id}', which"):
        delete_garbage(history.store(), history.root, NOTHING, now=NOW)
    assert set(history.states().values()) == {"LIVE"}
    delete_garbage(history.store(), history.root, NOTHING, now=NOW, wait_seconds=60)
    thread.join()
    assert results[0].run_id == run_id
    assert gone(history) >= set(made.values())


# Runs a pipeline again and again, with bytes that others make too, so that they are
# taken from the cache while somebody deletes.
RUNNER = """
import sys
from pathlib import Path
from penstock.pipelines.root_lock import in_use
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from tests.pipelines.toys import toy

root = Path(sys.argv[1])
for number in range(int(sys.argv[2])):
    with in_use(root):  # to look at the result before it is deleted
        pipeline = toy(rows=3 + number % 3, serving_dir=root / "serving")
        result = run(pipeline, root, runner=LocalRunner())
        assert result.state.value == "complete", result
        for execution in result.executions.values():
            read = sum(execution.inputs.values(), ())
            assert all(each.path.is_dir() for each in read), read
            made = execution.outputs.values()
            assert all(each.path.is_dir() for each in made), made
"""


def test_runs_lose_nothing_while_somebody_deletes_again_and_again(
    tmp_path: Path,
) -> None:
    history = History(tmp_path)
    store = history.store()
    (tmp_path / "serving" / ".penstock").mkdir(parents=True)
    runners = [
        subprocess.Popen(
            [sys.executable, "-c", RUNNER, tmp_path, "8"],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    deleted = 0
    while any(each.poll() is None for each in runners):
        done = delete_garbage(store, tmp_path, NOTHING, wait_seconds=300)
        deleted += len(done.of(What.ARTIFACT))
        time.sleep(0.05)
    for each in runners:
        said = each.communicate()[1]
        assert each.returncode == 0, said
    assert deleted > 0
    assert set(history.states().values()) == {"LIVE", "DELETED"}


def test_a_run_holds_the_root_from_before_it_chooses_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def repair(root: Path, store: object) -> list[str]:
        seen.append(refused(root))
        return []

    monkeypatch.setattr("penstock.pipelines.run.repair", repair)
    run(Pipeline("p", [Make()]), tmp_path, runner=LocalRunner())
    assert seen == ["another process"]
    with unused(tmp_path):
        pass


def test_a_run_may_end_with_housekeeping(tmp_path: Path) -> None:
    def clean(result: object) -> None:
        store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
        deleted.append(delete_garbage(store, tmp_path, NOTHING))

    deleted: list[Garbage] = []
    pipeline = Pipeline("p", [Make()], on_exit=[clean])
    run(pipeline, tmp_path, runner=LocalRunner())
    assert len(deleted[0].of(What.ARTIFACT)) == 1


def test_what_is_marked_for_deletion_is_no_hit(tmp_path: Path) -> None:
    pipeline = Pipeline("p", [Make()])
    first = run(pipeline, tmp_path, runner=LocalRunner())["Make"].outputs["examples"]
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    again = run(pipeline, tmp_path, runner=LocalRunner())["Make"]
    assert again.state is State.CACHED
    store.set_artifact_state([first], ArtifactState.MARKED_FOR_DELETION)
    third = run(pipeline, tmp_path, runner=LocalRunner())["Make"]
    assert third.state is State.COMPLETE
    assert third.outputs["examples"].id != first.id
