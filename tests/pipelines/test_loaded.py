"""Code that was edited after it was imported is refused, and nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from penstock.components.base import Component
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.errors import PipelineError

HELPER = '''
"""Helper."""
from __future__ import annotations

import functools

WORD = "one"


def twice(text: str) -> str:
    """Say it twice."""

    def inner(more: str) -> str:
        said: str = more
        return said

    return inner(text + text)


@functools.lru_cache
def cached(text: str) -> str:
    return twice(text)


class Speaker:
    """Speaks."""

    @staticmethod
    def said(text: str) -> str:
        return cached(text)

    @property
    def word(self) -> str:
        return WORD
'''

COMPONENT = """
from loaded_helper import Speaker
from penstock import Component, RunContext, output
from penstock.schemas import Examples


class Speak(Component):
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        speaker = Speaker()
        (self.examples.path / "said").write_text(speaker.said(speaker.word))
"""


@pytest.fixture
def modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, ModuleType]]:
    """A helper's file, and the imported module of a component that uses it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "loaded_helper.py").write_text(HELPER)
    (tmp_path / "loaded_component.py").write_text(COMPONENT)
    yield tmp_path / "loaded_helper.py", importlib.import_module("loaded_component")
    for name in ("loaded_helper", "loaded_component"):
        del sys.modules[name]


def go(folder: Path, module: ModuleType) -> str:
    speak: Component = module.Speak()
    result = run(Pipeline("p", [speak]), folder / "root", runner=LocalRunner())
    return (result["Speak"].outputs["examples"].path / "said").read_text()


def test_code_as_it_was_imported_runs(
    tmp_path: Path, modules: tuple[Path, ModuleType]
) -> None:
    helper, module = modules
    assert go(tmp_path, module) == "oneone"
    helper.write_text("# A comment that moves all lines.\n" + HELPER)
    assert go(tmp_path, module) == "oneone"


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("inner(text + text)", "inner(text * 3)", "twice"),
        ('WORD = "one"', 'WORD = "two"', "WORD"),
        ("return cached(text)", "return cached(text + '!')", "Speaker"),
        ("return WORD", "return WORD.upper()", "Speaker"),
        ("return twice(text)", "return twice(text.upper())", "cached"),
    ],
)
def test_code_that_was_edited_is_refused_until_it_is_reloaded(
    tmp_path: Path, modules: tuple[Path, ModuleType], old: str, new: str, name: str
) -> None:
    helper, module = modules
    assert old in HELPER
    helper.write_text(HELPER.replace(old, new))
    with pytest.raises(PipelineError) as raised:
        go(tmp_path, module)
    assert str(raised.value) == (
        f"'{name}' in '{helper}' was edited after this process imported it: what would "
        "run is not what the file says. Start a new process, or reload the module."
    )
    importlib.reload(sys.modules["loaded_helper"])
    assert go(tmp_path, importlib.reload(module)) != "oneone"
