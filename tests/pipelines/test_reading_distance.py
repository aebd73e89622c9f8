"""Between run() and a component's run lie at most six frames and 30 files of ours.

Held by profiling a run, so that nobody has to read further than that to follow one.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import penstock
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner
from tests.pipelines.toys import Fit, Make

MOST_FRAMES = 6
MOST_FILES = 30  # see docs/adr/0008-content-addressed-runs.md
OURS = str(Path(penstock.__file__).parent)


class Watch:
    """Notes our files, and our frames below each call of a component's run."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.chains: list[list[str]] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(OURS) and len(self.chains) < 2:
            self.files.add(code.co_filename.removeprefix(OURS))
        if code.co_name == "run" and code.co_filename.endswith("toys.py"):
            chain = []
            below: FrameType | None = frame.f_back
            while below is not None:
                if below.f_code.co_filename.startswith(OURS):
                    place = below.f_code.co_filename.removeprefix(OURS)
                    chain.append(f"{place}:{below.f_code.co_name}")
                below = below.f_back
            self.chains.append(chain)


@pytest.mark.parametrize(
    "runner", [LocalRunner(), BeamDagRunner()], ids=["local", "beam"]
)
def test_the_way_to_a_component_is_short(tmp_path: Path, runner: Runner) -> None:
    make = Make()
    pipeline = Pipeline("p", [make, Fit(examples=make.examples)])
    run(pipeline, tmp_path / "before", runner=runner)  # imports are no frames of a run
    watch = Watch()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        run(pipeline, tmp_path / "watched", runner=runner)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    # run() waits in _execute_all, while another thread works.
    assert len(watch.chains) == 2
    for chain in watch.chains:
        between = {"/pipelines/run.py:_execute_all", *chain}
        assert len(chain) == len(set(chain))
        assert len(between) <= MOST_FRAMES, chain
    assert len(watch.files) <= MOST_FILES, sorted(watch.files)
