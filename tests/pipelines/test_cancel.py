"""Ctrl-C: the run ends at once, is recorded as canceled, and leaves nothing behind."""

from __future__ import annotations

import json
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

from penstock.pipelines.metadata import RunState, State, Store

TOYS = Path(__file__).with_name("toys.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}


def take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def started(root: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own, running the pipeline that waits."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "penstock", "run", f"{TOYS}:waiting"),
            *("--root", str(root), "--param", f"started={root / 'started'}"),
            *options,
        ],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that started these tests in the background has SIGINT ignored.
        preexec_fn=take_interrupts,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(condition: Path, process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 60
    while not condition.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (["--runner=local"], signal.SIGINT),
        (["--runner=local", "--param", "busy=true"], signal.SIGINT),
        (["--runner=local", "--param", "isolated=true"], signal.SIGINT),
        (["--runner=beam", "--param", "busy=true"], signal.SIGINT),
        (["--runner=local"], signal.SIGTERM),
    ],
    ids=["sleeping", "computing", "isolated", "beam", "terminated"],
)
def test_an_interrupted_run_is_canceled(
    tmp_path: Path, options: list[str], number: signal.Signals
) -> None:
    with started(tmp_path, *options) as process:
        until(tmp_path / "started", process)
        pids = json.loads((tmp_path / "started").read_text())
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "The run was canceled."
    assert "Traceback" not in err
    assert "canceled in" in out
    for pid in pids:
        assert not is_alive(pid)
    assert_canceled(tmp_path)


def assert_canceled(root: Path) -> None:
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}", create=False)
    (record,) = store.runs()
    assert (record.state, record.reason) == (RunState.CANCELED, "The run was canceled.")
    ended = {each.component: each for each in store.executions(record.id)}
    assert ended["Make"].state is State.COMPLETE
    (waited,) = [each for name, each in ended.items() if "Wait" in name]
    assert waited.state is State.CANCELED
    assert waited.reason == "The run was canceled."
    assert waited.seconds is not None and waited.seconds > 0
    assert waited.outputs == {}
    assert "Fit" not in ended
    assert not list(root.rglob("left"))
    assert not list(root.rglob("*.partial"))
    assert not list(root.rglob(".tmp/*"))


def test_a_canceled_run_returns_its_result(tmp_path: Path) -> None:
    code = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from penstock import LocalRunner, run
import toys
result = run(toys.waiting(Path(sys.argv[2]) / "started"), sys.argv[2],
             runner=LocalRunner())
states = {name: each.state.value for name, each in result.executions.items()}
print(json.dumps([result.state.value, result.reason, states]), flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(TOYS.parent), str(tmp_path)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=take_interrupts,
    )
    until(tmp_path / "started", process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out) == [
        "canceled",
        "The run was canceled.",
        {"Make": "complete", "Wait": "canceled"},
    ]
    assert_canceled(tmp_path)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds an SQLite file all the while."""
    code = (
        "import sqlite3, sys, time\n"
        "held = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "held.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.kill()


def test_a_held_store_does_not_hold_up_a_cancel(tmp_path: Path) -> None:
    with started(tmp_path, "--runner=local", "--store-wait=600") as process:
        until(tmp_path / "started", process)
        with held(tmp_path / "metadata.sqlite"):
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The run was canceled. It could not be recorded: The lineage store" in err
    assert "is held by another process for more than 0.5 s." in err
    assert not list(tmp_path.rglob("left"))


def test_waiting_for_a_store_can_be_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    Store(f"sqlite:///{path}")
    with (
        held(path),
        started(tmp_path, "--runner=local", "--store-wait=600") as process,
    ):
        # It is in the store's queue as soon as it looks at the file.
        until(tmp_path / ".penstock" / "stderr.log", process)
        while not opened(process.pid, path):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "Canceled.\n"


def opened(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    return any(
        os.path.realpath(link) == str(path)
        for link in Path(f"/proc/{pid}/fd").iterdir()
    )


def test_a_store_that_is_let_go_in_time_is_used(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    store = Store(f"sqlite:///{path}", wait_seconds=60)
    answers: list[int] = []
    with held(path):
        asker = threading.Thread(target=lambda: answers.append(len(store.runs())))
        asker.start()
        asker.join(0.3)
        assert answers == []
    asker.join(60)
    assert answers == [0]
