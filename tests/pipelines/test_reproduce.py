"""Versions made again from what was recorded, with the code of then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = {
    "features.py": '''
"""Features."""
FACTOR = 2


def scaled(number: int) -> int:
    return number * FACTOR
''',
    "fit.py": '''
import dataclasses
import enum
import os
from pathlib import Path

from features import scaled
from penstock import Component, Pipeline, RunContext, field, output
from penstock.schemas import (
    Examples, ExternalArtifact, Model, ModelBlessing, PushedModel
)
from penstock.schemas.digests import file_digest, manifest_digest


class Kind(enum.Enum):
    PLAIN = 1


@dataclasses.dataclass(frozen=True)
class Size:
    width: float
    kinds: tuple[Kind, ...] = (Kind.PLAIN,)


def nothing() -> int:
    return 0


class Read(Component):
    """Read a file of numbers."""

    file: Path = field(counts=False)
    examples: Examples = output()

    def external_inputs(self) -> tuple[ExternalArtifact, ...]:
        digest = file_digest(self.file)
        files = {self.file.name: (digest, self.file.stat().st_size)}
        return (
            ExternalArtifact(
                self.file,
                digest=manifest_digest(files),
                properties={"files": {self.file.name: digest}},
            ),
        )

    def run(self, context: RunContext) -> None:
        (self.examples.path / "data").write_text(self.file.read_text())


class Fit(Component):
    """Write a model."""

    LIBRARIES = ("numpy",)

    examples: Examples
    size: Size
    more: dict[str, int]
    function: object = nothing
    model: Model = output()

    def run(self, context: RunContext) -> None:
        number = int((self.examples.path / "data").read_text())
        folder = self.model.path / "Format-Serving"
        folder.mkdir()
        said = [scaled(number), self.size.width, self.more, self.function()]
        if os.environ.get("MOOD") == "broken":
            raise ValueError("not today")
        if os.environ.get("MOOD"):
            said.append(os.environ["MOOD"])
        (folder / "saved_model.pb").write_text(repr(said))


class Bless(Component):
    """Bless it."""

    model: Model
    blessing: ModelBlessing = output()

    def run(self, context: RunContext) -> None:
        self.blessing.decide("BLESSED", blessed=True)


class Push(Component):
    """Say that it was pushed."""

    model: Model
    blessing: ModelBlessing
    serving_dir: Path
    pushed: PushedModel = output()

    def run(self, context: RunContext) -> None:
        self.pushed.properties.update(
            pushed_destination=str(self.serving_dir.absolute() / "1"),
            pushed_version="1",
        )


def pipeline() -> Pipeline:
    read = Read(file=Path("number"))
    fit = Fit(examples=read.examples, size=Size(1.5), more={"b": 2, "a": 1})
    bless = Bless(model=fit.model)
    push = Push(
        model=fit.model, blessing=bless.blessing, serving_dir=Path("serving")
    )
    return Pipeline("fit", [read, fit, bless, push])
''',
    "number": "21",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a small project that ran once."""
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    assert penstock(tmp_path, "run", "fit.py:pipeline", "--runner=local").code == 0
    return tmp_path


class Said:
    """What a command said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def penstock(folder: Path, *words: str, **environment: str) -> Said:
    return Said(
        subprocess.run(
            [sys.executable, "-m", "penstock", *words, "--root", "root"],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    )


def compared(said: Said) -> dict[str, Any]:
    return {each["output"]: each for each in json.loads(said.out)}


def test_a_version_is_made_again_from_the_code_of_then(project: Path) -> None:
    for name in ("features.py", "fit.py"):
        (project / name).write_text("raise RuntimeError('this is not what was')")
    said = penstock(project, "reproduce", "serving/1", "--json")
    assert said.code == 0, said.err
    found = compared(said)
    assert set(found) == {"examples", "model", "blessing"}
    assert all(each["equal"] for each in found.values())
    printed = penstock(project, "reproduce", "serving/1").out.splitlines()
    assert [line.split()[0] for line in printed] == [
        *("component", "Read", "Fit", "Bless")
    ]
    assert [line.split()[-1] for line in printed[1:]] == ["equal"] * 3


def test_what_depends_on_more_than_was_recorded_differs(project: Path) -> None:
    said = penstock(project, "reproduce", "serving/1", "--json", MOOD="bad")
    assert said.code == 3
    found = compared(said)
    assert {key: each["equal"] for key, each in found.items()} == {
        "examples": True,
        "model": False,
        "blessing": True,
    }


def test_what_is_made_is_kept_if_asked_for(project: Path) -> None:
    said = penstock(project, "reproduce", "serving/1", "--keep", "kept")
    assert said.code == 0
    (model,) = (project / "kept" / "root" / "fit" / "Fit" / "model").iterdir()
    text = (model / "Format-Serving" / "saved_model.pb").read_text()
    assert text == "[42, 1.5, {'b': 2, 'a': 1}, 0]"


def test_a_changed_or_missing_input_gets_a_sentence(project: Path) -> None:
    (project / "number").write_text("22")
    said = penstock(project, "reproduce", "serving/1")
    assert said.code == 1
    assert said.err.strip() == (
        "'number' has other bytes than when 'Read' read it. Put back what it was to "
        "reproduce what was made of it."
    )
    (project / "number").unlink()
    assert penstock(project, "reproduce", "serving/1").err.strip() == (
        "'number', which 'Read' read, is gone. Put it back to reproduce what was "
        "made of it."
    )


def test_code_that_was_not_kept_gets_a_sentence(project: Path) -> None:
    for listing in (project / "root" / ".penstock" / "code").glob("*.json"):
        listing.unlink()
    said = penstock(project, "reproduce", "serving/1")
    assert said.code == 1
    assert said.err.startswith("The code sha256:")
    assert said.err.strip().endswith(
        f"is not kept in '{project / 'root' / '.penstock' / 'code'}' (No such file or "
        "directory). Restore that folder to reproduce what it made."
    )


def test_other_libraries_are_refused_unless_asked_for(project: Path) -> None:
    import numpy

    fake = project / "fake" / "numpy-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1")
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(project / "fake")])
    said = penstock(project, "reproduce", "serving/1", PYTHONPATH=path)
    assert said.code == 1
    assert said.err.strip() == (
        f"It was made with numpy {numpy.__version__} (here 0.0.1). Install what it was "
        "made with, or pass --here to make it with what is here, which may give other "
        "bytes."
    )
    said = penstock(project, "reproduce", "serving/1", "--here", PYTHONPATH=path)
    assert said.code == 0
    assert f"Fit: library numpy: {numpy.__version__} -> 0.0.1." in said.out


def test_code_with_other_bytes_than_its_name_gets_a_sentence(project: Path) -> None:
    for file in (project / "root" / ".penstock" / "code").iterdir():
        if file.read_bytes().startswith(b'\n"""Features'):
            changed = file
            file.write_text("def scaled(number): return 0")
    said = penstock(project, "reproduce", "serving/1")
    assert said.code == 1
    assert said.err.strip() == (
        f"'{changed}', the code of 'features' as it was, has other bytes than its name "
        "says. Restore it to reproduce what it made."
    )


def test_recorded_code_that_fails_now_gets_a_sentence(project: Path) -> None:
    said = penstock(project, "reproduce", "serving/1", MOOD="broken")
    assert said.code == 1
    assert said.err.strip().startswith("'Fit' failed in run (fit.py, line ")
    assert said.err.strip().endswith("): ValueError: not today")
