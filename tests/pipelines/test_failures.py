"""What goes wrong around a component: its process, its disk, its values, its time."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from penstock.components.base import Component, Options, RunContext, output
from penstock.pipelines.execution import Execution
from penstock.pipelines.metadata import State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import (
    ComponentFailed,
    DataError,
    MetadataError,
    PipelineError,
)
from tests.pipelines.toys import Fail, Fit, IsolatedFail, Make, Refuse

OLD_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
}


def failing(root: Path, *components: Component) -> ComponentFailed:
    with pytest.raises(ComponentFailed) as raised:
        run(Pipeline("p", components), root, runner=LocalRunner())
    return raised.value


def stored(root: Path, failure: ComponentFailed) -> dict[str, Any]:
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}", create=False)
    (record,) = [
        each
        for each in store.executions(failure.run_id)
        if each.component == failure.component
    ]
    assert record.state is State.FAILED
    assert record.reason == str(failure)
    return dict(record.properties)


def left_behind(root: Path) -> list[Path]:
    return [
        path
        for path in root.rglob("*")
        if path.is_file()
        and ".penstock" not in path.parts
        and not path.name.startswith("metadata.sqlite")
    ]


# Processes of their own ----------------------------------------------------------


def test_a_killed_process_is_a_failure(tmp_path: Path) -> None:
    failure = failing(tmp_path, IsolatedFail(how="kill"))
    assert str(failure) == (
        "'IsolatedFail' failed in its own process: ProcessDied: the process was ended "
        "by SIGKILL; the system kills processes when memory runs out"
    )
    assert stored(tmp_path, failure)["penstock_exception"] == "ProcessDied"
    assert not left_behind(tmp_path)


def test_a_process_that_exits_is_a_failure(tmp_path: Path) -> None:
    failure = failing(tmp_path, IsolatedFail(how="exit"))
    assert str(failure) == (
        "'IsolatedFail' failed in its own process: ProcessDied: the process exited "
        "with code 7 and left no result"
    )


def test_an_exception_that_cannot_be_pickled_is_told(tmp_path: Path) -> None:
    failure = failing(tmp_path, IsolatedFail(how="unpicklable"))
    assert re.fullmatch(
        r"'IsolatedFail' failed in run \(toys\.py, line \d+\): Unpicklable: this and "
        r"that",
        str(failure),
    )
    assert stored(tmp_path, failure)["penstock_message"] == "this and that"


def test_a_process_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    slow = Fail(how="sleep", options=Options(timeout_seconds=0.2))
    failure = failing(tmp_path, slow)
    assert str(failure) == (
        "'Fail' failed: It ran longer than its timeout of 0.2 s and was stopped. "
        "Allow more with options=Options(timeout_seconds=...), or give it less to do."
    )
    assert not left_behind(tmp_path)


class Parse(Component):
    """Let Python's own library, or nobody, say what is wrong."""

    how: str = "library"
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        if self.how == "library":
            json.loads("{")
        raise AssertionError


@pytest.mark.parametrize("options", [Options(), Options(timeout_seconds=60)])
def test_what_a_library_raises_is_said_of_the_users_line(
    tmp_path: Path, options: Options
) -> None:
    line = Parse.run.__code__.co_firstlineno + 2
    assert str(failing(tmp_path, Parse(options=options))) == (
        f"'Parse' failed in run (test_failures.py, line {line}): JSONDecodeError: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )


def test_an_assertion_without_words_is_told_by_its_place(tmp_path: Path) -> None:
    failure = failing(tmp_path, Parse(how="nobody"))
    line = Parse.run.__code__.co_firstlineno + 3
    assert str(failure) == (
        f"'Parse' failed in run (test_failures.py, line {line}): AssertionError"
    )


def test_a_sentence_comes_over_as_a_sentence(tmp_path: Path) -> None:
    failure = failing(tmp_path, Refuse())
    assert str(failure) == "'Refuse' failed: Split 'eval' has no rows. Give it some."
    assert isinstance(failure.__cause__, DataError)
    tail = stored(tmp_path, failure)["penstock_traceback"].splitlines()
    assert tail[-2].strip().startswith("raise DataError(")
    log = failure.result["Refuse"].log.read_text()
    assert log.count("Give it some.") == 2  # the line that raises, and the message


def test_a_sentence_that_cannot_be_pickled_comes_over_too(tmp_path: Path) -> None:
    failure = failing(tmp_path, Refuse(picky=True))
    assert str(failure).endswith("Picky: Column 'fare' is text, make it a number.")


def test_a_class_that_cannot_be_found_again_is_refused(tmp_path: Path) -> None:
    class Local(Component):
        isolated: ClassVar[bool] = True
        model: Model = output()

    failure = failing(tmp_path, Local())
    assert str(failure).startswith(
        "'Local' failed: 'Local' runs in a process of its own and cannot be carried "
        "there: "
    )
    assert str(failure).endswith("Define 'Local' at the top level of a module.")


SCRIPT = """
from collections.abc import Callable
from pathlib import Path
from penstock import Component, LocalRunner, Pipeline, RunContext, output, run
from penstock.schemas.artifacts import Model

print("imported as", __name__)

def learn(path: Path) -> None:
    (path / "model").write_text("learned")

class Train(Component):
    isolated = True
    train_fn: Callable[[Path], None]
    model: Model = output()

    def run(self, context: RunContext) -> None:
        self.train_fn(self.model.path)

if __name__ == "__main__":
    import sys
    train = Train(train_fn=learn)
    result = run(Pipeline("script", [train]), sys.argv[1], runner=LocalRunner())
    print((result.artifact(train.model).path / "model").read_text())
"""


def test_functions_and_classes_of_a_script_work(tmp_path: Path) -> None:
    script = tmp_path / "pipeline.py"
    script.write_text(SCRIPT.replace("isolated = True", ISOLATED))
    done = subprocess.run(
        [sys.executable, script, tmp_path / "root"],
        env=OLD_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["imported as __main__", "learned"]
    (log,) = (tmp_path / "root").rglob("Train.log")
    # The child reads the script too, but does not run what is for scripts only.
    assert log.read_text() == "imported as __penstock_main__\n"


ISOLATED = "from typing import ClassVar\n    isolated: ClassVar[bool] = True"


def test_what_lives_in_an_interactive_session_is_refused(tmp_path: Path) -> None:
    code = SCRIPT.replace("isolated = True", ISOLATED).replace("sys.argv[1]", "ROOT")
    done = subprocess.run(
        [sys.executable, "-c", f"ROOT = {str(tmp_path)!r}\n{textwrap.dedent(code)}"],
        env=OLD_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1].endswith(
        "ComponentFailed: 'Train' failed: Train.train_fn is defined in an interactive "
        "session, which the process that 'Train' runs in cannot read. Put it in a "
        "module file and import it."
    )


# Disks ---------------------------------------------------------------------------


def test_a_component_on_a_full_disk_gets_a_sentence(tmp_path: Path) -> None:
    failure = failing(tmp_path, Fail(how="full"))
    assert str(failure) == (
        "'Fail' failed: the disk is full. Free some space and run again; nothing "
        "half-written is left."
    )
    assert stored(tmp_path, failure)["penstock_exception"] == "OSError"
    assert not left_behind(tmp_path)


def test_an_isolated_component_on_a_full_disk_gets_the_same(tmp_path: Path) -> None:
    failure = failing(tmp_path, IsolatedFail(how="full"))
    assert str(failure) == (
        "'IsolatedFail' failed: the disk is full. Free some space and run again; "
        "nothing half-written is left."
    )


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_fills_up_during_commit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fails(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")

    def begins(execution: Execution) -> None:
        monkeypatch.setattr(os, call, fails)

    with pytest.raises(ComponentFailed) as raised:
        run(Pipeline("p", [Make()]), tmp_path, runner=LocalRunner(), on_change=begins)
    monkeypatch.undo()
    assert str(raised.value) == (
        "'Make' failed: the disk of '/somewhere' is full. Free some space and run "
        "again; nothing half-written is left."
    )
    assert not left_behind(tmp_path)
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}", create=False)
    assert store.artifacts() == []


def test_a_disk_that_is_full_when_a_run_begins_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(PipelineError) as raised:
        run(Pipeline("p", [Make()]), tmp_path, runner=LocalRunner())
    monkeypatch.undo()
    assert str(raised.value) == (
        f"Root '{tmp_path}' cannot be written: No space left on device. Free some "
        "space and run again."
    )
    assert run(Pipeline("p", [Make()]), tmp_path, runner=LocalRunner())
    assert len(Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}").runs()) == 1


def test_a_store_that_fails_during_commit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Store, *arguments: Any, **named: Any) -> None:
        raise MetadataError("The lineage store cannot be written.")

    monkeypatch.setattr(Store, "complete_execution", fails)
    failure = failing(tmp_path, Make())
    assert str(failure) == "'Make' failed: The lineage store cannot be written."
    assert not left_behind(tmp_path)


def test_a_failure_that_cannot_be_recorded_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Store, *arguments: Any, **named: Any) -> None:
        raise MetadataError("The lineage store is gone.")

    monkeypatch.setattr(Store, "end_execution", fails)
    failure = failing(tmp_path, Fail())
    assert failure.result["Fail"].reason == (
        f"{failure} It could not be recorded: The lineage store is gone."
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, where this machine lets tests mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine lets no test mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


class Fill(Component):
    """Write more than fits."""

    leave: int = 0
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        with open(self.examples.path / "data", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4_096)
            except OSError:
                if not self.leave:
                    raise
            file.truncate(file.tell() - self.leave)


def test_a_really_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    failure = failing(small_disk, Fill())
    assert "the disk is full. Free some space and run again" in str(failure)
    assert not left_behind(small_disk)
    assert stored(small_disk, failure)["penstock_exception"] == "OSError"
    # With some space free again, the next run is complete.
    assert run(Pipeline("p", [Make()]), small_disk, runner=LocalRunner())


def test_a_full_disk_under_the_store_gets_a_sentence(
    small_disk: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{small_disk / 'metadata.sqlite'}"
    run(Pipeline("p", [Make()]), tmp_path / "root", store=url, runner=LocalRunner())
    with (
        pytest.raises(OSError, match="No space left"),
        open(small_disk / "ballast", "wb", buffering=0) as file,
    ):
        while True:
            file.write(b"x" * 512)
    with pytest.raises(MetadataError) as raised:
        run(Pipeline("p", [Make()]), tmp_path / "root", store=url, runner=LocalRunner())
    assert str(raised.value) == (
        f"The lineage store '{url}' cannot be written: its disk is full or fails. Free "
        "some space and run again."
    )
    assert len(left_behind(tmp_path / "root")) == 1
    (small_disk / "ballast").unlink()
    assert len(Store(url).runs()) in (1, 2)


def test_a_store_that_may_only_be_read_gets_a_sentence(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'metadata.sqlite'}"
    run(Pipeline("p", [Make()]), small_disk, runner=LocalRunner())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = Store(url)
    assert len(store.runs()) == 1
    with pytest.raises(MetadataError) as raised:
        store.begin_run("p", "r", {})
    assert str(raised.value) == (
        f"The lineage store '{url}' cannot be written. Give yourself the right to "
        "write it, or name another store."
    )


def test_a_log_that_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.pipelines import logs

    def fails(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(logs, "kept_in", fails)
    failure = failing(tmp_path, Make())
    log = failure.result["Make"].log
    assert str(failure) == (
        f"'Make' failed: the disk of '{log}' is full. Free some space and run again; "
        "nothing half-written is left."
    )


# Values --------------------------------------------------------------------------


class Record(Component):
    """Set a property that is told by name."""

    what: str
    model: Model = output()
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        import numpy as np

        values: dict[str, Any] = {
            "object": object(),
            "nested": {"a": [object()]},
            "huge": 2**70,
            "numpy": np.int64(3),
            "float32": np.float32(0.5),
            "nan": float("nan"),
            "list": [1, {"a": "b"}],
            "text": "a\0b \udcff",
        }
        if self.what == "span":
            self.examples.properties["span"] = "seven"
        else:
            self.model.properties["value"] = values[self.what]


@pytest.mark.parametrize("what", ["object", "nested"])
def test_a_property_that_cannot_be_recorded_is_a_failure(
    tmp_path: Path, what: str
) -> None:
    failure = failing(tmp_path, Record(what=what))
    assert str(failure).startswith(
        "'Record' failed: Property 'value' of 'Record.model' is "
    )
    assert ", which cannot be recorded: " in str(failure)
    assert str(failure).endswith("Set text, a number, or a list or dict of them.")
    assert not left_behind(tmp_path)


def test_a_typed_property_has_its_type(tmp_path: Path) -> None:
    failure = failing(tmp_path, Record(what="span"))
    assert str(failure) == (
        "'Record' failed: Property 'span' of 'Record.examples' is 'seven' (str), which "
        "cannot be recorded: it takes int. Set text, a number, or a list or dict of "
        "them."
    )


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("numpy", 3),
        ("huge", 2**70),
        ("float32", 0.5),
        ("nan", "nan"),
        ("list", [1, {"a": "b"}]),
        ("text", "a\\x00b \\udcff"),
    ],
)
def test_properties_come_back_from_the_store(
    tmp_path: Path, what: str, value: Any
) -> None:
    record = Record(what=what)
    result = run(Pipeline("p", [record]), tmp_path, runner=LocalRunner())
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}", create=False)
    made = result.artifact(record.model)
    assert made.id is not None
    assert store.artifact(made.id).properties["value"] == value


def test_an_artifact_on_disk_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    from penstock.pipelines.inputs import Import

    fit = Fit(examples=Import(tmp_path / "gone", Examples))
    failure = failing(tmp_path, fit)
    assert str(failure) == (
        f"'Fit' failed: 'Import('{tmp_path}/gone', Examples)' in 'Fit' names no folder "
        "that exists. Check the path; an artifact is a folder."
    )


def test_an_artifact_by_path_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    failure = failing(tmp_path, Fit(examples=Examples(tmp_path / "gone")))
    assert str(failure) == (
        f"'Fit' failed: Fit.examples is Examples '{tmp_path}/gone', which is no folder "
        "that exists. Check the path; an artifact is a folder."
    )
