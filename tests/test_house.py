"""The house: what importing loads, the walls between the rooms, links and names."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import find_packages

import benchmarks.run
import penstock
from benchmarks.import_time import HEAVY

CHECKOUT = Path(__file__).parent.parent
ROOMS = ("components", "pipelines", "schemas")


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh Python holds after `code`."""
    report = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import penstock",
        "import penstock.components",
        "import penstock.__main__",
        "from penstock.components import *",
        "from penstock import *",
    ],
)
def test_importing_loads_no_heavy_library(code: str) -> None:
    assert loaded_by(code) & set(HEAVY) == set()


def test_a_heavy_library_would_be_noticed() -> None:
    assert "numpy" in loaded_by("import penstock, numpy") & set(HEAVY)


@pytest.mark.parametrize(
    "verb", [["--help"], ["versions", "--help"], ["evaluate", "--help"]]
)
def test_the_command_line_starts_without_heavy_libraries(verb: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['penstock', *{verb!r}]\n"
        "from penstock.__main__ import command_line\n"
        "assert command_line() == 0"
    )
    assert loaded_by(code) & set(HEAVY) == set()


def test_listing_versions_loads_no_heavy_library(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['penstock', 'versions', {str(tmp_path)!r}]\n"
        "from penstock.__main__ import command_line\n"
        "command_line()"
    )
    assert loaded_by(code) & set(HEAVY) == set()


def test_the_walls_stand() -> None:
    lint_imports = "from importlinter.cli import lint_imports_command as c; c()"
    done = subprocess.run(
        [sys.executable, "-c", lint_imports, "--no-logo", "--no-cache"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_a_relative_link_under_penstock(room: str) -> None:
    link = CHECKOUT / "penstock" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
    assert not (CHECKOUT / room).is_symlink()


def test_every_folder_with_python_files_is_a_package() -> None:
    packages = find_packages(str(CHECKOUT), include=["penstock", "penstock.*"])
    expected = {
        ".".join(("penstock", *file.parent.relative_to(CHECKOUT).parts))
        for room in ROOMS
        for file in (CHECKOUT / room).rglob("*.py")
    }
    assert sorted(packages) == sorted({"penstock", "penstock.commands", *expected})


def test_public_names_are_sorted_and_importable() -> None:
    assert list(penstock.__all__) == sorted(penstock.__all__)
    assert len(set(penstock.__all__)) == len(penstock.__all__)
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None


def test_public_names_of_the_components_are_sorted_and_importable() -> None:
    components = importlib.import_module("penstock.components")
    assert list(components.__all__) == sorted(components.__all__)
    for name in components.__all__:
        assert getattr(components, name) is not None


def test_no_module_is_a_drawer_for_the_rest() -> None:
    modules = [
        file.relative_to(CHECKOUT)
        for folder in (*ROOMS, "penstock", "tests", "benchmarks")
        for file in (CHECKOUT / folder).rglob("*.py")
    ]
    drawers = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert [module for module in modules if module.name in drawers] == []


def test_the_version_is_said_alike_in_setup_and_package() -> None:
    assert f'version="{penstock.__version__}"' in (CHECKOUT / "setup.py").read_text()


@pytest.mark.parametrize("pins", ["old.txt", "current.txt"])
def test_constraints_are_whole_pins_in_order(pins: str) -> None:
    lines = (CHECKOUT / "constraints" / pins).read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    names = [requirement.partition("==")[0] for requirement in requirements]
    assert all("==" in requirement for requirement in requirements)
    assert names == sorted(names)
    assert not any("://" in line or "@" in line for line in lines)


def test_every_install_requirement_is_pinned_in_both_sets() -> None:
    setup = (CHECKOUT / "setup.py").read_text()
    block = setup.partition("install_requires=[")[2].partition("]")[0]
    wanted = {
        line.strip().strip('",').partition(">=")[0].lower().replace("_", "-")
        for line in block.splitlines()
        if line.strip().startswith('"')
    }
    assert len(wanted) > 15
    for pins in ("old.txt", "current.txt"):
        lines = (CHECKOUT / "constraints" / pins).read_text().splitlines()
        assert wanted - {line.partition("==")[0] for line in lines} == set()


def test_every_data_file_of_a_room_is_packaged() -> None:
    packaged = {".pbtxt", ".jinja", ".json", ".typed"}
    others = {
        file.suffix
        for room in ROOMS
        for file in (CHECKOUT / room).rglob("*.*")
        if file.is_file() and file.suffix not in (".py", ".pyc", ".ipynb")
    }
    assert others - packaged == set()
    setup = (CHECKOUT / "setup.py").read_text()
    assert '["py.typed", "*.pbtxt", "*.json", "*.jinja"]' in setup


def test_an_unknown_benchmark_is_told_with_the_near_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmarks.run.main(["import-tim"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "There is no benchmark 'import-tim'. Did you mean 'import-time'? Benchmarks: "
    )


def test_a_benchmark_ends_with_one_line_of_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.import_time.main", lambda argv: {"got": argv})
    assert benchmarks.run.main(["import-time", "--processes", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.pop("set") in ("old", "current")
    assert result == {"benchmark": "import-time", "got": ["--processes", "1"]}
