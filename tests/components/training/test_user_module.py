"""Loading module files: siblings, names, and what is said when they are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.components.training.user_module import function_of
from penstock.schemas.errors import PipelineError


def _module(folder: Path, text: str, name: str = "my_trainer.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_a_sibling_is_imported_at_the_top_and_inside(tmp_path: Path) -> None:
    _module(tmp_path, "ANSWER = 42", "penstock_test_sibling.py")
    path = _module(
        tmp_path,
        "from penstock_test_sibling import ANSWER\n"
        "def run_fn(x):\n"
        "    import penstock_test_sibling as again\n"
        "    return ANSWER + again.ANSWER + x\n",
    )
    with function_of(path, "run_fn") as run_fn:
        assert run_fn(1) == 85
    assert str(tmp_path) not in sys.path
    assert "penstock_test_sibling" not in sys.modules


def test_imports_of_other_threads_miss_no_entry(tmp_path: Path) -> None:
    path = _module(tmp_path, "run_fn = print")
    going = iter(sys.path)  # as an import in another thread goes through it
    first = next(going)
    with function_of(path, "run_fn"):
        inside = list(sys.path)
        assert inside[0] == str(tmp_path.resolve())
    assert [first, *going] == inside[1:] == sys.path


def test_siblings_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    found = []
    for answer in (1, 2):
        folder = tmp_path / str(answer)
        folder.mkdir()
        _module(folder, f"ANSWER = {answer}", "penstock_test_sibling.py")
        path = _module(
            folder, "from penstock_test_sibling import ANSWER\nrun_fn = lambda: ANSWER"
        )
        with function_of(path, "run_fn") as run_fn:
            found.append(run_fn())
    assert found == [1, 2]


def test_classes_of_the_module_can_be_found_by_name(tmp_path: Path) -> None:
    path = _module(
        tmp_path,
        "from __future__ import annotations\n"
        "import dataclasses, pickle\n"
        "@dataclasses.dataclass\n"
        "class Point:\n    x: int\n"
        "def run_fn(x): return pickle.loads(pickle.dumps(Point(x))).x",
    )
    with function_of(path, "run_fn") as run_fn:
        assert run_fn(3) == 3


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    import types

    path = _module(tmp_path, "def run_fn(): return __name__", "types.py")
    with function_of(path, "run_fn") as run_fn:
        assert run_fn() == "types_module_file"
    assert sys.modules["types"] is types


def test_what_the_module_raises_is_raised(tmp_path: Path) -> None:
    path = _module(tmp_path, "1 / 0")
    with pytest.raises(ZeroDivisionError), function_of(path, "run_fn"):
        pass
    assert str(tmp_path) not in sys.path


def test_a_missing_file_is_named_with_its_nearest(tmp_path: Path) -> None:
    _module(tmp_path, "")
    path = tmp_path / "my_trainr.py"
    with pytest.raises(PipelineError) as caught, function_of(path, "run_fn"):
        pass
    assert str(caught.value) == (
        f"Module file '{path}' does not exist. Pass the path of a Python file that "
        "defines run_fn(fn_args). Did you mean 'my_trainer.py'?"
    )


def test_a_missing_function_is_named_with_those_there_are() -> None:
    path = Path(__file__).parents[2] / "resources" / "training" / "no_run_fn.py"
    with pytest.raises(PipelineError) as caught, function_of(path, "run_fn"):
        pass
    assert str(caught.value) == (
        f"Module file '{path}' has no function 'run_fn' (it has 'helper', 'run_func'). "
        "Define run_fn(fn_args). Did you mean 'run_func'?"
    )


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = _module(tmp_path, "", "my_trainer.txt")
    with pytest.raises(PipelineError) as caught, function_of(path, "run_fn"):
        pass
    assert str(caught.value) == (
        f"Module file '{path}' is no Python file. Pass one that ends in '.py'."
    )
