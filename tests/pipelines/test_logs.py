"""What a component prints, logs and warns ends in its own file."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Component, RunContext, output
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner
from penstock.schemas.artifacts import Model
from tests.pipelines.toys import IsolatedTalk, Make, Talk

pytestmark = pytest.mark.filterwarnings("default:deprecated:UserWarning")


@pytest.fixture(autouse=True)
def warnings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python print warnings as it does outside of pytest."""

    def show(message: Any, category: Any, name: str, line: int, *_: Any) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, name, line))

    monkeypatch.setattr(warnings, "showwarning", show)


def words_of(log: Path | None) -> str:
    assert log is not None
    return log.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [Talk, IsolatedTalk])
def test_two_components_at_once_keep_their_words_apart(
    tmp_path: Path, kind: type[Talk], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "present"
    folder.mkdir()
    words = ("anna", "bert")
    talks = [kind(name=word, folder=folder, word=word, parties=2) for word in words]
    result = run(Pipeline("p", talks), tmp_path, runner=LocalRunner(max_workers=2))
    for word, other in (words, words[::-1]):
        log = words_of(result[word].log)
        lines = [line for line in log.splitlines() if line.startswith("printed")]
        assert lines == [f"printed {word} {number}" for number in range(20)]
        assert f"logged {word}" in log
        assert f"warned {word}" in log
        assert f"deprecated {word}" in log
        assert other not in log
    captured = capsys.readouterr()
    assert "anna" not in captured.out + captured.err
    assert sys.stdout is not None and type(sys.stdout).__module__ != "penstock"


def test_each_line_of_a_log_says_when_and_who(tmp_path: Path) -> None:
    folder = tmp_path / "present"
    folder.mkdir()
    talk = Talk(folder=folder, word="anna")
    result = run(Pipeline("p", [talk]), tmp_path, runner=LocalRunner())
    log = words_of(result["Talk"].log)
    assert " INFO penstock: logged anna" in log
    assert " WARNING somebody.else: warned anna" in log
    assert "UserWarning: deprecated anna" in log
    assert result["Talk"].log == (
        tmp_path / ".penstock" / "runs" / result.run_id / "Talk.log"
    )


def test_verbose_prints_the_words_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runner: Runner
) -> None:
    folder = tmp_path / "present"
    folder.mkdir()
    talk = Talk(folder=folder, word="anna")
    result = run(Pipeline("p", [talk]), tmp_path, runner=runner, verbose=True)
    assert "printed anna 19" in capsys.readouterr().out
    assert "printed anna 19" in words_of(result["Talk"].log)


class Helped(Component):
    """Print from a thread of its own, as Beam's workers do."""

    model: Model = output()

    def run(self, context: RunContext) -> None:
        thread = threading.Thread(target=print, args=("words of a helper",))
        thread.start()
        thread.join()


def test_threads_of_a_component_belong_to_it(tmp_path: Path) -> None:
    result = run(Pipeline("p", [Helped()]), tmp_path, runner=LocalRunner())
    assert words_of(result["Helped"].log) == "words of a helper\n"


def test_streams_and_levels_are_given_back(tmp_path: Path) -> None:
    before = (sys.stdout, sys.stderr, logging.getLogger("penstock").level)
    handlers = list(logging.getLogger().handlers)
    run(Pipeline("p", [Make()]), tmp_path, runner=BeamDagRunner())
    assert (sys.stdout, sys.stderr, logging.getLogger("penstock").level) == before
    assert logging.getLogger().handlers == handlers


def test_text_that_is_not_unicode_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "present"
    folder.mkdir()
    talk = Talk(folder=folder, word="ä€\udcff")
    result = run(Pipeline("p", [talk]), tmp_path, runner=LocalRunner())
    assert "printed ä€\\udcff 0" in words_of(result["Talk"].log)
