"""Runs code of ours in a process of its own, under limits of memory and time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
_GIB = 1 << 30
_RAISED = "raised"

# The process may map more than it may use, because TensorFlow's allocators map memory
# that they never touch (9 GiB where 6 were resident). This only stops what grows too
# quickly to be seen between two looks.
_MAPPED = 1.5
_MAPPED_MORE = _GIB // 2


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a fresh process may take.

    Attributes:
        memory_gib: Most memory that it may have resident, TensorFlow's own half GiB
            included; None for no limit.
        load_seconds: Longest time until a model is loaded, and again until its
            training path has answered.
        request_seconds: Longest time of one request.
    """

    memory_gib: float | None = None
    load_seconds: float = 300.0
    request_seconds: float = 30.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a process is about to do.

    Attributes:
        doing: What that is, to follow "while".
        limit: Which of the time limits it has.
    """

    doing: str = "it started"
    limit: str = "load_seconds"


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        answer: What it answered; None if it did not come to that.
        stage: What it did last.
        death: How it died without an answer, to follow a subject.
        said: What it printed last, as a sentence and a space; or nothing.
        exceeded: `memory` or `time`, if it was stopped for taking too much of it.
        peak_bytes: Most memory it was seen to have resident.
    """

    answer: dict[str, Any] | None
    stage: Stage
    death: str
    said: str
    exceeded: str
    peak_bytes: int


def run(
    entry: str,
    arguments: tuple[str, ...],
    temp_dir: Path,
    progress: Callable[[], object],
    limits: Limits | None = None,
) -> Ended:
    """Call a function in a fresh process, and wait for its answer.

    Args:
        entry: Name of a module, a colon and the name of a function, which is called
            with a `Parent` and the arguments.
        arguments: Texts.
        temp_dir: Where the process may leave its answer and what it prints.
        progress: Called often; may raise to stop the process.
        limits: What it may take; by default as much as it needs.

    Raises:
        RuntimeError: If the function raised; the text is its traceback.
    """
    name = entry.rpartition(".")[2].partition(":")[0].replace("_", "-")
    answer, stages = temp_dir / f"{name}.json", temp_dir / f"{name}.stages"
    log = temp_dir / f"{name}.log"
    answer.unlink(missing_ok=True)
    stages.write_bytes(b"")
    code = f"import sys; from {__name__} import main; main(*sys.argv[1:])"
    memory = str(limits.memory_gib or "") if limits else ""
    command = [sys.executable, "-c", code, entry, memory, str(answer), str(stages)]
    watch = _Watch(stages, limits)
    with open(log, "wb") as printed:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                # Whether it loads does not depend on a GPU, which others may hold.
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
            start_new_session=True,  # so that Ctrl-C reaches it only through us
        )
        try:
            while process.poll() is None:
                progress()
                if watch.exceeded(process.pid):
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
    watch.read_stages()
    found = None
    if not watch.over and answer.exists():
        found = json.loads(answer.read_text(encoding="utf-8"))
        if _RAISED in found:
            raise RuntimeError(f"A fresh process raised: {found[_RAISED]}")
    return Ended(
        answer=found,
        stage=watch.stage,
        death=_death(process.returncode),
        said=_last_words(log),
        exceeded=watch.over,
        peak_bytes=max(watch.peak_bytes, (found or {}).get("peak_memory_bytes", 0)),
    )


class _Watch:
    """Looks at a process from outside."""

    def __init__(self, stages: Path, limits: Limits | None) -> None:
        self.stage = Stage()
        self.over = ""
        self.peak_bytes = 0
        self._stages = stages
        self._limits = limits
        self._read = 0
        self._since = time.monotonic()

    def exceeded(self, pid: int) -> bool:
        """Return whether it takes too much."""
        self.read_stages()
        self.peak_bytes = max(self.peak_bytes, _resident_bytes(pid))
        if self._limits is None:
            return False
        memory = self._limits.memory_gib
        if memory is not None and self.peak_bytes > memory * _GIB:
            self.over = "memory"
        elif time.monotonic() - self._since > getattr(self._limits, self.stage.limit):
            self.over = "time"
        return bool(self.over)

    def read_stages(self) -> None:
        """Take in what the process has said of itself since the last time."""
        with open(self._stages, "rb") as file:
            file.seek(self._read)
            *lines, _ = file.read().split(b"\n")
        if lines:
            self._read += sum(len(line) + 1 for line in lines)
            self.stage = Stage(**json.loads(lines[-1]))
            self._since = time.monotonic()


def _resident_bytes(pid: int) -> int:
    """Return the memory that a process has resident; 0 where that is not told."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):  # it ended, or the system is not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "the process that tried was ended by SIGKILL, as the system does when "
            "memory runs out"
        )
    if code < 0:
        return f"the process that tried was ended by {signal.Signals(-code).name}"
    return f"the process that tried exited with code {code}"


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"It said: '{lines[-1].strip()[:300]}'. " if lines else ""


# --- in the process


class Parent:
    """How the process tells the one that started it what it does.

    Args:
        stages: The file that the other reads.
    """

    def __init__(self, stages: str) -> None:
        self._file = os.open(stages, os.O_WRONLY | os.O_APPEND)

    def tell(self, doing: str, limit: str = "request_seconds") -> None:
        """Say what comes next; its time runs from now.

        Args:
            doing: What that is, to follow "while".
            limit: Which of the time limits it has.
        """
        line = json.dumps({"doing": doing, "limit": limit}) + "\n"
        os.write(self._file, line.encode())


def _own_peak_bytes() -> int:
    """Return the most memory that this process had resident; 0 where it is not told.

    Not `ru_maxrss`, which counts what the parent had when it started this process.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main(entry: str, memory: str, answer: str, stages: str, *arguments: str) -> None:
    """Call the function, and write what it returns to a file."""
    import ctypes
    import importlib
    import resource
    import traceback

    # If the parent is killed, so is this process: nobody waits for the answer.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # If memory runs out, this process and not another one is to be killed for it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory:
        most = int(float(memory) * _GIB * _MAPPED + _MAPPED_MORE)
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    module, _, function = entry.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)(
            Parent(stages), *arguments
        )
    except MemoryError:
        raise  # a death like any other
    except Exception:  # not the model: an installation that is broken, or our defect
        found = {_RAISED: traceback.format_exc()}
    found["peak_memory_bytes"] = _own_peak_bytes()
    partial = f"{answer}.partial"
    Path(partial).write_text(json.dumps(found), encoding="utf-8")
    os.replace(partial, answer)
    # TensorFlow's threads need not be waited for, and may crash when it is taken down.
    os._exit(0)
