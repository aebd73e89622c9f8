"""The fresh process: what it may take, and how its end is told."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.components.serving import fresh_process
from penstock.components.serving.fresh_process import Ended, Limits, Parent

HERE = "tests.components.serving.test_fresh_process"


def run(name: str, tmp_path: Path, limits: Limits | None = None, *more: str) -> Ended:
    return fresh_process.run(f"{HERE}:{name}", more, tmp_path, lambda: None, limits)


# --- what runs in the process


def answering(parent: Parent, *texts: str) -> dict[str, Any]:
    parent.tell("it answered")
    return {"texts": texts}


def raising(_: Parent) -> dict[str, Any]:
    raise KeyError("ours")


def killed(parent: Parent) -> dict[str, Any]:
    parent.tell("it worked")
    print("Out of luck")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def filling(parent: Parent) -> dict[str, Any]:
    parent.tell("it filled memory", "load_seconds")
    held = []
    while True:
        held.append(b"x" * (32 << 20))
        time.sleep(0.02)


def bursting(parent: Parent) -> dict[str, Any]:
    parent.tell("it filled memory", "load_seconds")
    return {"never": len(bytearray(20 << 30))}


def idling(parent: Parent) -> dict[str, Any]:
    parent.tell("it idled")
    time.sleep(600)
    return {}


def waiting(parent: Parent) -> dict[str, Any]:
    parent.tell("it waited", str(os.getpid()))
    time.sleep(600)
    return {}


# --- the tests


def test_the_answer_of_a_function_comes_back(tmp_path: Path) -> None:
    ended = run("answering", tmp_path, None, "a", "b c")
    assert ended.answer is not None
    assert ended.answer["texts"] == ["a", "b c"]
    assert ended.stage.doing == "it answered"
    assert ended.exceeded == ""
    assert ended.peak_bytes == ended.answer["peak_memory_bytes"] > 1 << 20


def test_a_defect_of_ours_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)A fresh process raised:.*KeyError"):
        run("raising", tmp_path)


def test_a_death_is_told_with_what_it_did_and_said(tmp_path: Path) -> None:
    ended = run("killed", tmp_path)
    assert ended.answer is None
    assert ended.stage.doing == "it worked"
    assert ended.death == (
        "the process that tried was ended by SIGKILL, as the system does when memory "
        "runs out"
    )


def test_memory_that_grows_is_seen_and_stopped(tmp_path: Path) -> None:
    ended = run("filling", tmp_path, Limits(memory_gib=0.25))
    assert (ended.answer, ended.exceeded) == (None, "memory")
    assert 0.25 < ended.peak_bytes / (1 << 30) < 0.9
    assert ended.stage.doing == "it filled memory"


def test_memory_that_grows_at_once_is_refused_by_the_system(tmp_path: Path) -> None:
    ended = run("bursting", tmp_path, Limits(memory_gib=0.25))
    assert ended.answer is None
    # Refused before anything was touched, so that it died of a MemoryError.
    assert ended.said == "It said: 'MemoryError'. "


def test_a_process_that_idles_is_stopped(tmp_path: Path) -> None:
    ended = run("idling", tmp_path, Limits(request_seconds=0.2))
    assert (ended.answer, ended.exceeded) == (None, "time")
    assert ended.stage == fresh_process.Stage("it idled", "request_seconds")


def test_a_caller_that_is_canceled_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []

    def cancel() -> None:
        stages = (tmp_path / "test-fresh-process.stages").read_text()
        if stages.endswith("\n"):
            pids.append(int(json.loads(stages)["limit"]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fresh_process.run(f"{HERE}:waiting", (), tmp_path, cancel)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], signal.SIG_DFL)
