"""The contract itself: what keeps it passes, and each breach is found and named."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from penstock.components import contract
from penstock.components.base import Component, RunContext, output
from penstock.schemas.artifacts import Examples, Model


class Copy(Component):
    """Copy the rows of a split.

    Reads Examples; writes a Model of the same bytes.

    Example:
        copy = Copy(examples=ingest.examples)
    """

    examples: Examples
    suffix: str = ""
    model: Model = output()

    def run(self, context: RunContext) -> None:
        (context.temp_dir / "half").write_text("half")
        text = (self.examples.path / "data").read_text()
        (self.model.path / "data").write_text(text + self.suffix)
        self.model.properties["rows"] = len(text)


class Silent(Copy):
    pass


class NoExample(Copy):
    """Read Examples; write a Model."""


class Changing(Copy):
    __doc__ = Copy.__doc__

    def run(self, context: RunContext) -> None:
        super().run(context)
        (self.examples.path / "data").write_text("changed")


class Straying(Copy):
    def run(self, context: RunContext) -> None:
        super().run(context)
        (self.model.path.parent.parent / "stray").write_text("x")


class Littering(Copy):
    def run(self, context: RunContext) -> None:
        super().run(context)
        Path("litter").mkdir()


class Random(Copy):
    def run(self, context: RunContext) -> None:
        super().run(context)
        (self.model.path / "data").write_text(str(random.random()))


class Moody(Copy):
    def run(self, context: RunContext) -> None:
        super().run(context)
        if "second" in str(self.model.path):
            self.model.properties["again"] = 1


class Eager(Copy):
    def check(self) -> None:
        Path("eager").write_text("x")


class Wordy(Copy):
    def __repr__(self) -> str:
        return "Wordy(\n)"


class Loose(Copy):
    suffix: object = ""  # type: ignore[assignment]

    def __post_init__(self) -> None:
        suffix = self.suffix
        self._set("suffix", "")
        super().__post_init__()
        self._set("suffix", suffix)


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "data").write_text("rows")
    return Examples(folder)


def held(component: Component, tmp_path: Path) -> contract.Subject:
    return contract.Subject(component, tmp_path / "work")


def test_what_keeps_the_contract_passes(examples: Examples, tmp_path: Path) -> None:
    contract.check_component(Copy(examples=examples), tmp_path / "work")


@pytest.mark.parametrize(
    ("kind", "check", "text"),
    [
        (Silent, contract.says_what_it_does, "does not say what it reads."),
        (NoExample, contract.says_what_it_does, "has no section 'Example:'"),
        (Changing, contract.leaves_its_inputs_alone, "which it reads: data. Write"),
        (Straying, contract.writes_only_its_outputs, "/work/first/stray"),
        (Littering, contract.writes_only_its_outputs, "/work/first/cwd/litter"),
        (Random, contract.repeats_itself, "writes other bytes to model when it runs"),
        (Moody, contract.repeats_itself, "sets other properties when it runs again"),
        (Wordy, contract.has_a_short_repr, "is not one line: 'Wordy(\\n)'"),
    ],
)
def test_each_breach_is_named(
    examples: Examples, tmp_path: Path, kind: type[Copy], check: object, text: str
) -> None:
    assert callable(check)
    with pytest.raises(AssertionError) as raised:
        check(held(kind(examples=examples), tmp_path))
    assert text in str(raised.value)
    assert f"'{kind.__name__}'" in str(raised.value)


def test_writing_at_construction_is_a_breach(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError) as raised:
        contract.constructs_without_effect(held(Eager(examples=examples), tmp_path))
    assert str(raised.value) == (
        f"Constructing 'Eager' writes {tmp_path}/eager. Leave that to run."
    )


def test_what_takes_anything_is_a_breach(examples: Examples, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="was not refused"):
        contract.refuses_wrong_values(held(Loose(examples=examples), tmp_path))


def test_a_heavy_import_is_a_breach(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import sys

    path = tmp_path / "heavy_component.py"
    path.write_text(
        "import numpy\nfrom penstock import Component\n\n\nclass Heavy(Component):\n"
        "    '''Read and write.'''\n"
    )
    spec = importlib.util.spec_from_file_location("heavy_component", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "heavy_component", module)
    spec.loader.exec_module(module)
    with pytest.raises(AssertionError) as raised:
        contract.imports_nothing_heavy(held(module.Heavy(), tmp_path))
    assert str(raised.value) == (
        "Importing 'Heavy' imports numpy. Import it inside the functions that use it."
    )


class Tidying(Component):
    """Write a folder, and remove it and one beside its outputs."""

    model: Model = output()

    def run(self, context: RunContext) -> None:
        (self.model.path / "a" / "b").mkdir(parents=True)
        (self.model.path / "a" / "b" / "file").write_text("x")
        shutil.rmtree(self.model.path / "a")
        other = self.model.path.parent.parent / "other"
        (other / "c").mkdir(parents=True)
        shutil.rmtree(other)


def test_what_is_removed_is_told_by_where_it_was(tmp_path: Path) -> None:
    subject = contract.Subject(Tidying(), tmp_path / "work")
    other = tmp_path / "work" / "first" / "other"
    assert subject.runs[0].strays == (str(other), str(other / "c"))


def test_what_may_be_written_besides_is_no_stray(
    examples: Examples, tmp_path: Path
) -> None:
    subject = contract.Subject(
        Straying(examples=examples),
        tmp_path / "work",
        may_write=[tmp_path / "work" / "first" / "stray"],
    )
    assert subject.runs[0].strays == ()
    assert subject.runs[1].strays == (str(tmp_path / "work" / "second" / "stray"),)


def test_other_bytes_are_allowed_where_said(examples: Examples, tmp_path: Path) -> None:
    subject = contract.Subject(
        Random(examples=examples), tmp_path / "work", is_repeatable=False
    )
    contract.repeats_itself(subject)


def test_every_check_has_a_name_and_a_sentence() -> None:
    names = [contract.name(check) for check in contract.CHECKS]
    assert len(names) == len(set(names))
    assert all((check.__doc__ or "").endswith(".") for check in contract.CHECKS)
