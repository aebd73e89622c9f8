"""What runs again after a change, and what does not: one change of a project a case.

A user's project (`tests/resources/user_project`) is run once; then something about it
is changed; then a plan is made and the pipeline run again, each in a fresh process. A
case says which components the plan must call "will run", which must run and which must
be skipped; all others must be taken from the first run. What the plan said is held
against what then happened.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.schemas.digests import folder_manifest
from tests.pipelines.zygote import Zygote

PROJECT = Path(__file__).parent.parent / "resources" / "user_project"

Change = Callable[[Path], None]
"""Changes something in the folder of a project."""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """What fresh processes come from."""
    made = Zygote()
    yield made
    made.close()


# Changes --------------------------------------------------------------------------


def edit(file: str, *pairs: str) -> Change:
    """Put new texts for old ones: old, new, old, new ..."""

    def change(folder: Path) -> None:
        path = folder / file
        text = path.read_text()
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            assert text.count(old) == 1, f"'{old}' is {text.count(old)} times in {file}"
            text = text.replace(old, new)
        path.write_text(text)

    return change


def add(file: str, text: str) -> Change:
    """Write text at the end of a file, which need not exist."""

    def change(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)

    return change


def both(*changes: Change) -> Change:
    """Make several changes."""

    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def nothing(folder: Path) -> None:
    """Change nothing."""


def touch(folder: Path) -> None:
    """Give every file of the project another time."""
    for path in folder.rglob("*"):
        if path.is_file() and "root" not in path.parts:
            os.utime(path, ns=(10**18, 10**18))


def keeping_time_and_size(file: str, old: str, new: str) -> Change:
    """Put new bytes in place of as many old ones, and the old time back."""

    def change(folder: Path) -> None:
        path = folder / file
        before = path.stat()
        edit(file, old, new)(folder)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (
            before.st_size,
            before.st_mtime_ns,
        )

    return change


def swap_names(folder: Path) -> None:
    """Give each of two data files the name of the other."""
    data = folder / "data"
    (data / "a.csv").rename(data / "c")
    (data / "b.csv").rename(data / "a.csv")
    (data / "c").rename(data / "b.csv")


def move(old: str, new: str) -> Change:
    """Move a file or folder of the project."""

    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(exist_ok=True)
        (folder / old).rename(folder / new)

    return change


def remove(file: str) -> Change:
    """Remove a file."""

    def change(folder: Path) -> None:
        (folder / file).unlink()

    return change


def output_of(folder: Path, component: str) -> Path:
    """Return the folder of the only output that a component has written."""
    (found,) = folder.glob(f"root/trips/{component}/*/[0-9]*")
    return found


def delete_output(component: str) -> Change:
    """Remove what a component wrote."""

    def change(folder: Path) -> None:
        shutil.rmtree(output_of(folder, component))

    return change


def flip_byte(component: str) -> Change:
    """Change one bit of what a component wrote, and keep the file's time."""

    def change(folder: Path) -> None:
        (path,) = output_of(folder, component).iterdir()
        before = path.stat()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


def add_to_output(component: str) -> Change:
    """Put another file beside what a component wrote."""

    def change(folder: Path) -> None:
        (output_of(folder, component) / "more.txt").write_text("more")

    return change


def install(name: str, version: str) -> Change:
    """Install a library, as far as its version goes, in place of an older one."""

    def change(folder: Path) -> None:
        for old in folder.glob(f"{name}-*.dist-info"):
            shutil.rmtree(old)
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )

    return change


# Cases ----------------------------------------------------------------------------

INIT = "trips/features/__init__.py"
SCALING = "trips/features/scaling.py"
WORDS = "trips/features/words.py"
SETTINGS = "trips/settings.py"
COMPONENTS = "trips/components.py"
BASES = "trips/bases.py"
STEPS = "trips/steps.py"
PIPELINE = "pipeline.py"

# What runs if Clean writes other numbers, or only other words: the sum of the numbers
# is the model, and whoever reads that has nothing to do if it stays.
NUMBERS = "Clean Check Fit Report Compare"
TEXTS = "Clean Check Fit Report"


FEW = "@step\ndef few(rows):\n    return rows[:5]\n\n\n"


@dataclasses.dataclass(frozen=True)
class Case:
    """A change, and what comes of it.

    Attributes:
        name: What is changed, in words.
        change: What changes it.
        runs: The components that must run.
        will_run: Those of them that the plan must know of; the first by default.
        skipped: The components that must be skipped.
        given: A change before the first run.
        force: Components that are forced in the second run.
        reason: A part of what the plan must say of why the first component runs.
        remark: A part of what the plan must remark.
        root: Where the second run finds artifacts and the store.
    """

    name: str
    change: Change
    runs: str = ""
    will_run: str | None = None
    skipped: str = ""
    given: Change = nothing
    force: tuple[str, ...] = ()
    reason: str = ""
    remark: str = ""
    root: str = "root"


CASES = [
    Case("nothing", nothing),
    # Code that is reached, and what about it counts.
    Case(
        "a nested helper",
        edit(SCALING, "value * factor", "value * factor + 1"),
        NUMBERS,
        reason="'trips.features.scaling._times' changed",
    ),
    Case(
        "a nested helper, whose output stays the same",
        edit(SCALING, "value * factor", "factor * value"),
        "Clean",
    ),
    Case(
        "the function that calls the helper",
        edit(SCALING, "return _times(int(value))", "return 1 + _times(int(value))"),
        NUMBERS,
    ),
    Case("a docstring", edit(SCALING, "Scale a number", "Multiply a number")),
    Case("no docstring any more", edit(SCALING, '    """Scale a number."""\n', "")),
    Case("a module's docstring", edit(SCALING, '"""Numbers."""', '"""Figures."""')),
    Case("a comment", edit(SCALING, "# A comment.", "# Another remark.")),
    Case(
        "the layout",
        edit(
            SCALING,
            "return _times(int(value))",
            "return _times(\n\n        int(value),\n    )",
        ),
    ),
    Case(
        "an unrelated function in the same file",
        edit(INIT, "return row[::-1]", "return row * 2"),
    ),
    Case(
        "a new function in the same file",
        add(SCALING, "\n\ndef other(value):\n    return value\n"),
    ),
    Case(
        "the order of definitions",
        both(
            edit(
                SCALING,
                '\n\ndef scaled(value: "int | Decimal") -> int:\n    """Scale a '
                'number."""\n    return _times(int(value))\n',
                "",
            ),
            edit(
                SCALING,
                "def _times",
                "def scaled(value: 'int | Decimal') -> int:\n"
                "    return _times(int(value))\n\n\ndef _times",
            ),
        ),
    ),
    Case("a constant", edit(SETTINGS, "FACTOR = 2", "FACTOR = 3"), NUMBERS),
    Case("a constant that nobody uses", edit(SETTINGS, "UNUSED = 7", "UNUSED = 8")),
    Case(
        "a list that a function reads",
        edit(WORDS, '["_", "-"]', '["-"]'),
        TEXTS,
    ),
    Case(
        "a list that is added to later",
        add(WORDS, 'SPACES.append("w")\n'),
        NUMBERS.replace(" Compare", ""),
    ),
    Case(
        "a renamed local variable is other code",
        edit(
            SCALING,
            "    product = value",
            "    made = value",
            "return product",
            "return made",
        ),
        "Clean",
    ),
    Case(
        "a type annotation of a function is other code, which somebody may read",
        edit(SCALING, "(value: int, factor", "(value: float, factor"),
        "Clean",
    ),
    Case(
        "what is imported for type checkers only",
        edit(SCALING, "from decimal import Decimal", "from fractions import Fraction"),
    ),
    Case(
        "a default argument",
        edit(SCALING, "factor: int = FACTOR", "factor: int = FACTOR + 1"),
        NUMBERS,
    ),
    Case(
        "a method of a base class",
        edit(
            BASES,
            "for row in super().read(examples) if row]",
            "for row in super().read(examples)[1:]]",
        ),
        NUMBERS,
    ),
    Case(
        "a method of the base of a base class, which all but one derive from",
        edit(BASES, ".read_text().splitlines()", ".read_text().splitlines()[:]"),
        "Ingest Clean Check Fit Report",
        will_run="Ingest",
    ),
    Case(
        "a class in between",
        edit(COMPONENTS, "class Clean(Kept)", "class Clean(Rows)"),
        "Clean",
    ),
    Case(
        "a component's own method",
        edit(COMPONENTS, "row is not None", "row"),
        "Clean",
    ),
    Case(
        "a function that registers itself",
        edit(STEPS, "list(dict.fromkeys(rows))", "rows"),
        "Ingest " + NUMBERS,
        will_run="Ingest",
    ),
    Case(
        "another function that registers itself",
        add(STEPS, "\n\n@step\ndef first(rows):\n    return rows[1:]\n"),
        "Ingest " + NUMBERS,
        will_run="Ingest",
    ),
    Case(
        "the order of functions that register themselves",
        both(edit(STEPS, FEW, ""), add(STEPS, f"\n\n{FEW}")),
        "Ingest " + NUMBERS,
        given=edit(STEPS, "@step\ndef without", f"{FEW}@step\ndef without"),
    ),
    Case(
        "the decorator that registers",
        edit(
            "trips/registry.py",
            "    STEPS[function.__name__] = function\n",
            "    STEPS.clear()\n",
        ),
        "Ingest " + NUMBERS,
        will_run="Ingest",
    ),
    Case(
        "the order of imports",
        edit(
            COMPONENTS,
            "from .bases import Kept, Rows\nfrom .settings import Limits, Mode\n",
            "from .settings import Limits, Mode\nfrom .bases import Kept, Rows\n",
        ),
    ),
    Case(
        "the order of imports beside one that takes all names, and may hide others",
        edit(
            INIT,
            "from .. import settings\n",
            "",
            "from .words import tidy as tidied\n",
            "from .words import tidy as tidied\nfrom .. import settings\n",
        ),
        "Clean",
    ),
    Case(
        "an import from another module, under the same name",
        edit(
            INIT,
            "from .words import tidy as tidied",
            "from .words import strip as tidied",
        ),
        TEXTS,
        reason="The code no longer reaches 'trips.features.words.tidy'.",
    ),
    Case(
        "an import from a library, under the same name",
        edit(
            SCALING,
            "import TYPE_CHECKING\n",
            "import TYPE_CHECKING\nfrom math import ceil as rounded\n",
        ),
        given=both(
            edit(
                SCALING,
                "import TYPE_CHECKING\n",
                "import TYPE_CHECKING\nfrom math import floor as rounded\n",
            ),
            edit(SCALING, "return product", "return rounded(product)"),
        ),
        runs="Clean",
    ),
    Case(
        "what a module is imported for, when something else is imported so",
        edit(COMPONENTS, "from . import steps as _", "from . import registry as _"),
        "Ingest " + NUMBERS,
    ),
    Case(
        "a function behind try and except ImportError",
        edit("trips/features/slowwords.py", "word.strip()", "word.strip().title()"),
        TEXTS,
    ),
    Case(
        "a faster module that is now there",
        add("fastwords.py", "def strip(word):\n    return word\n"),
        TEXTS,
        reason="The code now reaches 'fastwords.strip'.",
    ),
    Case(
        "the faster module",
        edit("fastwords.py", "return word", "return word.lower()"),
        "Clean",
        given=add("fastwords.py", "def strip(word):\n    return word.strip()\n"),
    ),
    Case(
        "what a module does when it is run itself",
        edit(WORDS, 'print(tidy("a_word"))', 'print(tidy("another_word"))'),
    ),
    Case(
        "a sibling file, imported inside a function",
        edit("texts.py", "The check says", "We say"),
        "Report",
    ),
    Case(
        "a module of a namespace package",
        edit("common/marks.py", "* {row}", "- {row}"),
        "Report",
    ),
    Case(
        "a package's __init__ that hands on a function",
        edit("trips/__init__.py", "import clean as clean", "import plain as clean"),
        NUMBERS,
        reason="'trips.clean' changed",
        given=add(INIT, "\n\ndef plain(row, limits, mode):\n    return row\n"),
    ),
    Case(
        "a statement that patches another module",
        add(BASES, "\nfrom . import settings\nsettings.FACTOR = 5\n"),
        "Ingest " + NUMBERS,
        will_run="Ingest",
    ),
    Case(
        "a statement that patches another module, from the pipeline's own file",
        add(
            PIPELINE,
            "\nimport trips.features.words\ntrips.features.words.SPACES = []\n",
        ),
        TEXTS,
    ),
    Case(
        "the name of a module that is imported while running",
        edit("texts.py", "The check says", "We say"),
        given=edit(
            COMPONENTS,
            "        from texts import heading\n",
            "        import importlib\n"
            "\n"
            "        heading = importlib.import_module(str('texts')).heading\n",
        ),
        remark="looks names up at run time",
    ),
    Case(
        "an unrelated class in a file that imports while running",
        add(COMPONENTS, "\n\nclass Other(Rows):\n    pass\n"),
        "Report",
        given=edit(
            COMPONENTS,
            "        from texts import heading\n",
            "        import importlib\n"
            "\n"
            "        heading = importlib.import_module(str('texts')).heading\n",
        ),
        remark="all of 'components.py' counts",
    ),
    Case(
        "a module file that is given by path",
        edit("training/module.py", "{loss(rows)}", "{loss(rows)}!"),
        "Fit Compare",
    ),
    Case(
        "a file beside the module file",
        edit("training/losses.py", "return sum(", "return 1 + sum("),
        "Fit Compare",
    ),
    Case(
        "an unused function in the module file",
        add("training/module.py", "\n\ndef unused():\n    return 1\n"),
    ),
    Case(
        "a moved module file",
        both(move("training", "fitting"), edit(PIPELINE, '"training"', '"fitting"')),
    ),
    Case(
        "a class that moved to another file is other code",
        both(
            edit(
                SETTINGS,
                "@dataclasses.dataclass(frozen=True)\nclass Limits:\n"
                '    """Which numbers are kept."""\n\n'
                "    low: int = 0\n    high: float = 99.0\n",
                "from .limits import Limits\n",
            ),
            add(
                "trips/limits.py",
                "import dataclasses\n\n\n@dataclasses.dataclass(frozen=True)\n"
                "class Limits:\n    low: int = 0\n    high: float = 99.0\n",
            ),
        ),
        "Clean",
    ),
    # Parameters.
    Case(
        "a parameter",
        edit(PIPELINE, "at_least=2", "at_least=3"),
        "Check Report",
        reason="Parameter at_least changed: 2 -> 3.",
    ),
    Case("1.0 for 1", edit(PIPELINE, "bonus=1", "bonus=1.0"), "Clean"),
    Case("True for 1", edit(PIPELINE, "bonus=1", "bonus=True"), "Clean"),
    Case(
        "a path",
        edit(PIPELINE, 'Path("notes/first")', 'Path("notes/second")'),
        "Clean",
    ),
    Case(
        "a path that is written in another way",
        edit(PIPELINE, 'Path("notes/first")', 'Path("notes") / "first"'),
    ),
    Case(
        "text for a path",
        edit(PIPELINE, 'Path("0")', '"0"'),
        "Clean",
        given=edit(PIPELINE, '"number": {"at": 0}', '"number": {"at": Path("0")}'),
    ),
    Case(
        "a value in a nested dict",
        edit(PIPELINE, '{"at": 1}', '{"at": 2}'),
        "Clean",
        reason="Parameter columns changed",
    ),
    Case(
        "the order of a dict, which a component may go by",
        edit(
            PIPELINE,
            '"number": {"at": 0}, "word": {"at": 1}',
            '"word": {"at": 1}, "number": {"at": 0}',
        ),
        "Clean",
    ),
    Case(
        "a field of a dataclass",
        edit(PIPELINE, "Limits(low=1)", "Limits(low=3)"),
        NUMBERS,
    ),
    Case(
        "a field of a dataclass, given as its default is",
        edit(PIPELINE, "Limits(low=1)", "Limits(low=1, high=99.0)"),
    ),
    Case(
        "the default of a dataclass",
        edit(SETTINGS, "high: float = 99.0", "high: float = 9.0"),
        NUMBERS,
    ),
    Case("an enum", edit(PIPELINE, "Mode.KEEP", "Mode.UPPER"), TEXTS),
    Case(
        "the value of an enum",
        edit(SETTINGS, 'KEEP = "keep"', 'KEEP = "kept"'),
        "Clean",
    ),
    Case(
        "the default of a parameter",
        edit(COMPONENTS, "at_least: int = 1", "at_least: int = 3"),
        "Check Report",
        given=edit(PIPELINE, ", at_least=2", ""),
    ),
    Case(
        "a new parameter with a default",
        edit(
            COMPONENTS, "at_least: int = 1", "at_least: int = 1\n    at_most: int = 9"
        ),
        "Check",
    ),
    # Data.
    Case("the same bytes with new times", touch),
    Case(
        "new bytes with the old time and size",
        keeping_time_and_size("data/b.csv", "five", "nine"),
        "Ingest " + TEXTS,
    ),
    Case(
        "new code with the old time and size",
        keeping_time_and_size(SCALING, "value * factor", "value + factor"),
        NUMBERS,
    ),
    Case("files whose names were swapped", swap_names, "Ingest " + TEXTS),
    Case(
        "an added file",
        add("data/c.csv", "6,six\n"),
        "Ingest " + NUMBERS,
        reason="External[0] changed",
    ),
    Case(
        "an added file that is not read",
        add("data/readme.txt", "nothing"),
        "Ingest",
    ),
    Case("a removed file", remove("data/b.csv"), "Ingest " + NUMBERS),
    Case(
        "data that come to the same",
        edit("data/b.csv", "4,four\n2,two_and\n", "2,two_and\n4,four\n"),
        "Ingest Clean",
        given=edit(
            COMPONENTS,
            "        self.write(self.cleaned, rows)",
            "        self.write(self.cleaned, sorted(rows))",
        ),
    ),
    Case(
        "a moved data folder",
        both(move("data", "elsewhere"), edit(PIPELINE, '"data"', '"elsewhere"')),
    ),
    # Names and places.
    Case(
        "a renamed pipeline",
        edit(PIPELINE, 'Pipeline("trips"', 'Pipeline("tours"'),
    ),
    Case(
        "a renamed component, which may write its name",
        edit(PIPELINE, "at_least=2)", "at_least=2, name='Gate')"),
        "Gate",
    ),
    Case(
        "the order in the pipeline",
        edit(
            PIPELINE,
            "[ingest, clean, check, fit, report, compare]",
            "[report, compare, fit, check, clean, ingest]",
        ),
    ),
    Case(
        "one component less",
        edit(PIPELINE, "fit, report, compare]", "fit, report]"),
    ),
    Case(
        "another order of running",
        edit(PIPELINE, "options=REPORT", "options=REPORT, after=(fit,)"),
    ),
    Case(
        "something that another component only comes after",
        edit("training/module.py", "{loss(rows)}", "{loss(rows)}!"),
        "Fit Compare",
        given=edit(PIPELINE, "options=REPORT", "options=REPORT, after=(fit,)"),
    ),
    Case(
        "a moved root, whose places the store knows",
        move("root", "elsewhere"),
        "Ingest Clean Check Fit Report Compare",
        root="elsewhere",
        reason="its output 'examples' is gone",
    ),
    # Outputs.
    Case(
        "a deleted output",
        delete_output("Clean"),
        "Clean",
        reason="its output 'cleaned' is gone",
    ),
    Case(
        "one flipped bit in an output",
        flip_byte("Clean"),
        "Clean",
        reason="has other bytes",
    ),
    Case("a file added to an output", add_to_output("Clean"), "Clean"),
    Case("a deleted verdict", delete_output("Check"), "Check"),
    Case("an output of the last component", flip_byte("Compare"), "Compare"),
    # Libraries.
    Case(
        "the version of a library",
        install("fakelib", "2.0"),
        "Clean",
        reason="Library fakelib changed: 1.0 -> 2.0.",
    ),
    Case("the version of a library that no component names", install("other", "2.0")),
    Case(
        "a library that is gone",
        lambda folder: shutil.rmtree(folder / "fakelib-1.0.dist-info"),
        "Clean",
        reason="Library fakelib changed: 1.0 -> not installed.",
    ),
    # Options.
    Case(
        "cache=False",
        edit(PIPELINE, "REPORT = Options()", "REPORT = Options(cache=False)"),
        "Report",
        reason="cache=False",
    ),
    Case(
        "cache=False where it was so before, and the same output",
        nothing,
        "Ingest",
        given=edit(PIPELINE, "INGEST = Options()", "INGEST = Options(cache=False)"),
    ),
    Case(
        "outputs that are too old",
        edit(
            PIPELINE, "REPORT = Options()", "REPORT = Options(cache_ttl_seconds=1e-9)"
        ),
        "Report",
        reason="older than cache_ttl_seconds=1e-09",
    ),
    Case(
        "outputs that are young enough",
        edit(PIPELINE, "REPORT = Options()", "REPORT = Options(cache_ttl_seconds=9e9)"),
    ),
    Case(
        "cache_salt",
        edit(PIPELINE, "INGEST = Options()", "INGEST = Options(cache_salt='2')"),
        "Ingest",
        reason="Salt is new: 2.",
    ),
    Case(
        "a timeout and retries",
        edit(
            PIPELINE,
            "REPORT = Options()",
            "from penstock.components.base import Retries\n"
            "REPORT = Options(timeout_seconds=99, retries=Retries(1, on=(OSError,)))",
        ),
    ),
    Case("forced", nothing, "Clean", force=("Clean",), reason="It is forced."),
    Case(
        "forced, both of two",
        nothing,
        "Ingest Report",
        will_run="Ingest Report",
        force=("Report", "Ingest"),
    ),
    # Verdicts.
    Case(
        "a verdict that turns",
        edit(PIPELINE, "at_least=2", "at_least=9"),
        "Check Report",
        skipped="Fit Compare",
    ),
    Case(
        "a verdict that turns because of the data",
        both(remove("data/b.csv"), edit("data/a.csv", "2,two_and\n3, three\n", "")),
        "Ingest Clean Check Report",
        skipped="Fit Compare",
    ),
    Case(
        "a verdict that turns, with what comes after being forced",
        edit(PIPELINE, "at_least=2", "at_least=9"),
        "Check Report",
        skipped="Fit Compare",
        force=("Fit", "Compare"),
    ),
    Case(
        "a verdict that another component only comes after",
        edit(PIPELINE, "at_least=2", "at_least=9"),
        "Check",
        given=edit(PIPELINE, "options=REPORT", "options=REPORT, after=(fit,)"),
        skipped="Fit Report Compare",
        force=("Report",),
    ),
    Case(
        "what a verdict that says no keeps from running",
        edit("training/module.py", "{loss(rows)}", "{loss(rows)}!"),
        given=edit(PIPELINE, "at_least=2", "at_least=9"),
        skipped="Fit Compare",
        force=("Fit",),
    ),
    Case(
        "what a verdict that says no keeps from running, with another input unknown",
        edit(SCALING, "value * factor", "value * factor + 1"),
        "Clean Report",
        given=both(
            edit(PIPELINE, "at_least=2", "at_least=9"),
            edit(
                PIPELINE,
                "examples=clean.cleaned, at_least",
                "examples=ingest.examples, at_least",
            ),
        ),
        skipped="Fit Compare",
        force=("Fit",),
    ),
    Case(
        "a verdict with other bytes that still says yes",
        edit(PIPELINE, "at_least=2", "at_least=1"),
        "Check Report",
    ),
]


class Project:
    """A project in one place, which is put back to what it was after its first run.

    Args:
        folder: Where it lies, always: the store knows places.
        zygote: What fresh processes come from.
    """

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder = folder / "project"
        self._kept = folder / "kept"
        self._zygote = zygote

    def begin(self, given: Change) -> None:
        """Make it anew, and run it once."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if given is nothing and self._kept.exists():
            shutil.copytree(self._kept, self.folder)
            return
        shutil.copytree(PROJECT, self.folder)
        install("fakelib", "1.0")(self.folder)
        given(self.folder)
        first = self.ask("run")
        assert set(first["states"].values()) <= {"complete", "skipped"}, first
        if given is nothing:
            shutil.copytree(self.folder, self._kept)

    def ask(self, verb: str, **options: Any) -> dict[str, Any]:
        """Plan or run it in a fresh process."""
        answer = self._zygote.ask(verb, self.folder, target="pipeline:make", **options)
        assert "error" not in answer, answer["error"]
        return answer


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Project:
    return Project(tmp_path_factory.mktemp("mutations"), zygote)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_change(case: Case, project: Project) -> None:
    project.begin(case.given)
    case.change(project.folder)
    planned = project.ask("plan", force=case.force, root=case.root)
    states = project.ask("run", force=case.force, root=case.root)["states"]
    forecasts, reasons = planned["forecasts"], planned["reasons"]
    assert with_value(states, "complete") == set(case.runs.split()), reasons
    assert with_value(states, "skipped") == set(case.skipped.split())
    will_run = case.runs.split()[:1] if case.will_run is None else case.will_run.split()
    assert with_value(forecasts, "will run") == set(will_run), reasons
    assert with_value(forecasts, "will run") <= with_value(states, "complete")
    assert with_value(forecasts, "hit") <= with_value(states, "cached"), reasons
    assert case.reason in " ".join(" ".join(reasons[name]) for name in will_run)
    assert case.remark in " ".join(planned["remarks"])
    assert bool(case.remark) is bool(planned["remarks"])


def test_nothing_is_left_of_a_plan(project: Project) -> None:
    project.begin(nothing)
    edit(SCALING, "value * factor", "value + factor")(project.folder)
    before = folder_manifest(project.folder)
    project.ask("plan")
    assert folder_manifest(project.folder) == before


def test_code_that_was_not_kept_is_told_as_a_whole(project: Project) -> None:
    project.begin(nothing)
    shutil.rmtree(project.folder / "root" / ".penstock" / "code")
    edit(SCALING, "value * factor", "value + factor")(project.folder)
    (reason,) = project.ask("plan")["reasons"]["Clean"]
    assert re.fullmatch(r"The code changed: sha256:\w{64} -> sha256:\w{64}\.", reason)


def test_what_was_changed_back_is_taken_again(project: Project) -> None:
    project.begin(nothing)
    there = ((SCALING, "* factor", "+ factor"), (PIPELINE, "at_least=2", "at_least=9"))
    for changes in (there, [(file, new, old) for file, old, new in there]):
        for change in changes:
            edit(*change)(project.folder)
        planned = project.ask("plan")["forecasts"]
        states = project.ask("run")["states"]
    assert with_value(planned, "hit") == with_value(states, "cached") == {*planned}


def test_the_newest_is_what_will_be_taken_from_the_cache(project: Project) -> None:
    without = edit(PIPELINE, ", report, compare]", ", report]")
    project.begin(without)
    there = ("training/module.py", "{loss(rows)}", "{loss(rows)}!")
    edit(PIPELINE, ", report]", ", report, compare]")(project.folder)
    edit(*there)(project.folder)
    assert project.ask("run")["states"]["Compare"] == "complete"
    edit(there[0], there[2], there[1])(project.folder)
    planned = project.ask("plan")["forecasts"]
    states = project.ask("run")["states"]
    assert (planned["Fit"], planned["Compare"]) == ("hit", "will run")
    assert (states["Fit"], states["Compare"]) == ("cached", "complete")


def test_code_that_is_no_python_gets_a_sentence(
    project: Project, zygote: Zygote
) -> None:
    project.begin(nothing)
    edit("texts.py", "return f", "return = f")(project.folder)
    for verb in ("plan", "run"):
        answer = zygote.ask(verb, project.folder, target="pipeline:make")
        assert answer["error"] == (
            f"'{project.folder}/texts.py', which the pipeline's code imports, cannot "
            "be read as Python: invalid syntax in line 5. Mend it and run again."
        )


SCRIPT = """
from penstock import Component, Pipeline, RunContext, output, run
from penstock.schemas.artifacts import Examples
from texts import heading

def unused():
    return 1

def words(count):
    return heading(count)

class Say(Component):
    count: int
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "words.txt").write_text(words(self.count))

def make():
    return Pipeline("script", [Say(count=1)])

made = make()
for each in made.components:
    print(each)
if __name__ == "__main__":
    print("run as a script")
"""


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (nothing, "cached"),
        (edit("script.py", "heading(count)", "heading(1 + count)"), "complete"),
        (edit("texts.py", "The check says", "We say"), "complete"),
        (edit("script.py", "count=1", "count=2"), "complete"),
        (edit("script.py", "return 1", "return 2"), "cached"),
        (edit("script.py", '"run as a script"', '"run"'), "cached"),
        (edit("script.py", "print(each)", "print(each, 1)"), "cached"),
    ],
)
def test_a_script(change: Change, state: str, tmp_path: Path, zygote: Zygote) -> None:
    shutil.copy(PROJECT / "texts.py", tmp_path)
    add("script.py", SCRIPT)(tmp_path)
    zygote.ask("run", tmp_path, target="script.py:make")
    change(tmp_path)
    planned = zygote.ask("plan", tmp_path, target="script.py:make")
    answer = zygote.ask("run", tmp_path, target="script.py:make")
    assert answer["states"] == {"Say": state}, planned
    assert planned["forecasts"] == {
        "Say": {"cached": "hit", "complete": "will run"}[state]
    }


def with_value(found: Mapping[str, str], value: str) -> set[str]:
    """Return the keys that have a value."""
    return {key for key, each in found.items() if each == value}
