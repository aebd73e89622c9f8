"""The code of a component in a package that imports modules of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from penstock.pipelines.metadata import State
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner

COMPONENT = """
from penstock import Component, RunContext, output
from penstock.schemas.artifacts import Model
import ours

class Train(Component):
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (self.model.path / "text").write_text(ours.words.said())
"""


@pytest.mark.parametrize(
    "way", ["from ours import words", "from . import words", "import ours.words"]
)
def test_a_package_that_imports_its_own_module_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    package = tmp_path / "ours"
    package.mkdir()
    (package / "__init__.py").write_text(f"{way}\n")
    (package / "words.py").write_text("def said():\n    return 'one'\n")
    (package / "training.py").write_text(COMPONENT)
    monkeypatch.syspath_prepend(tmp_path)

    def state() -> State:
        for name in ("ours", "ours.words", "ours.training"):
            sys.modules.pop(name, None)
        module = importlib.import_module("ours.training")
        pipeline = Pipeline("p", [module.Train()])
        return run(pipeline, tmp_path / "root", runner=LocalRunner())["Train"].state

    assert state() is State.COMPLETE
    assert state() is State.CACHED
    (package / "words.py").write_text("def said():\n    return 'another'\n")
    assert state() is State.COMPLETE
