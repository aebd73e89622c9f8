"""Random edits of a project, one after another: what is planned is what happens.

After each edit a plan is made, and what it is sure of is run, until it is sure of
everything; then all outputs are held against those of a run from scratch.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.test_mutations import (
    BASES,
    COMPONENTS,
    INIT,
    PIPELINE,
    PROJECT,
    SCALING,
    SETTINGS,
    STEPS,
    WORDS,
    install,
    with_value,
)
from tests.pipelines.zygote import Zygote

READS = {
    "Ingest": (),
    "Clean": ("Ingest",),
    "Check": ("Clean",),
    "Fit": ("Clean", "Check"),
    "Report": ("Clean", "Check"),
    "Compare": ("Fit",),
}

# Texts that may stand in a file's place of the first of them.
VARIANTS: list[tuple[str, tuple[str, ...]]] = [
    (SETTINGS, ("FACTOR = 2", "FACTOR = 3", "FACTOR = 1 + 1")),
    (SETTINGS, ("UNUSED = 7", "UNUSED = 8")),
    (SETTINGS, ("high: float = 99.0", "high: float = 9.0")),
    (SCALING, ("value * factor", "factor * value", "value * factor + 1")),
    (SCALING, ("# A comment.", "# Another one.", "pass")),
    (SCALING, ("Scale a number.", "Multiply a number.")),
    (SCALING, ("factor: int = FACTOR", "factor: int = FACTOR * 1")),
    (INIT, ("row[::-1]", "row * 2")),
    (INIT, ("tidy as tidied", "strip as tidied")),
    (WORDS, ('["_", "-"]', '["-", "_"]', '["-"]')),
    (WORDS, ("found = strip(word)", "found = strip(strip(word))")),
    ("trips/features/slowwords.py", ("word.strip()", "word.strip().title()")),
    (STEPS, ("list(dict.fromkeys(rows))", "list(rows)", "sorted(set(rows))")),
    (BASES, ("(examples) if row", "(examples) if row.strip()")),
    (COMPONENTS, ("count = len(", "count = 0 + len(")),
    ("texts.py", ("The check says", "We say")),
    ("common/marks.py", ("* {row}", "- {row}")),
    ("training/module.py", ("{loss(rows)}", "{loss(rows)}!")),
    ("training/losses.py", ("return sum(", "return 0 + sum(", "return 1 + sum(")),
    (PIPELINE, ("Limits(low=1)", "Limits(low=3)", "Limits(low=1, high=99.0)")),
    (PIPELINE, ("Mode.KEEP", "Mode.UPPER")),
    (PIPELINE, ("bonus=1", "bonus=1.0", "bonus=True")),
    (PIPELINE, ("at_least=2", "at_least=3", "at_least=9", "at_least=4")),
    (PIPELINE, ("INGEST = Options()", "INGEST = Options(cache_salt='2')")),
    (PIPELINE, ("REPORT = Options()", "REPORT = Options(cache=False)")),
    ("data/a.csv", ("1,one", "1,won", "7,one", "1,one\n1,one")),
    ("data/b.csv", ("5,five", "5,five\n6,six", "2,five")),
]


class State:
    """A project that is edited again and again.

    Args:
        folder: Where it lies.
        seed: The same, the same edits.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self._chosen = [0] * len(VARIANTS)
        shutil.copytree(PROJECT, folder)
        install("fakelib", "1.0")(folder)

    def edit(self) -> str:
        """Change something, and say what."""
        changes: list[Callable[[], str]] = [
            *[self._vary] * 12,
            self._swap_files,
            self._add_or_remove_file,
            self._touch,
            self._upgrade,
            self._delete_output,
            self._flip_output,
            self._add_to_output,
        ]
        return self.random.choice(changes)()

    def _vary(self) -> str:
        index = self.random.randrange(len(VARIANTS))
        file, texts = VARIANTS[index]
        self._chosen[index] = self.random.randrange(len(texts))
        path = self.folder / file
        text = (PROJECT / file).read_text()
        for (other, said), chosen in zip(VARIANTS, self._chosen, strict=True):
            if other == file:
                assert text.count(said[0]) == 1, (file, said[0])
                text = text.replace(said[0], said[chosen])
        path.write_text(text)
        return f"{file}: {texts[self._chosen[index]]}"

    def _swap_files(self) -> str:
        first, second = (self.folder / "data" / each for each in ("a.csv", "b.csv"))
        first.rename(self.folder / "c")
        second.rename(first)
        (self.folder / "c").rename(second)
        return "names of files swapped"

    def _add_or_remove_file(self) -> str:
        path = self.folder / "data" / "z.csv"
        if path.exists():
            path.unlink()
        else:
            path.write_text("8,eight\n")
        return "a file more or less"

    def _touch(self) -> str:
        for path in self.folder.rglob("*"):
            if path.is_file() and "root" not in path.parts:
                os.utime(path, ns=(self.random.randrange(2**60),) * 2)
        return "times"

    def _upgrade(self) -> str:
        version = self.random.choice(["1.0", "2.0"])
        install("fakelib", version)(self.folder)
        return f"version {version}"

    def _outputs(self) -> list[Path]:
        return sorted(self.folder.glob("root/trips/*/*/[0-9]*"))

    def _delete_output(self) -> str:
        path = self.random.choice(self._outputs())
        shutil.rmtree(path)
        return f"{path} deleted"

    def _flip_output(self) -> str:
        path = self.random.choice(self._outputs())
        for file in path.iterdir():
            content = bytearray(file.read_bytes() or b" ")
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(
                8
            )
            file.write_bytes(content)
        return f"{path} changed"

    def _add_to_output(self) -> str:
        path = self.random.choice(self._outputs())
        (path / f"more{self.random.random()}").write_text("more")
        return f"{path} added to"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """What fresh processes come from."""
    made = Zygote()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("seed", "edits"),
    [
        (0, 8),
        *(pytest.param(seed, 60, marks=pytest.mark.long) for seed in (1, 2, 3, 4)),
    ],
)
def test_what_is_planned_happens(
    seed: int, edits: int, tmp_path: Path, zygote: Zygote
) -> None:
    state = State(tmp_path / "project", seed)
    done = []
    for number in range(edits):
        if number:
            done.append(state.edit())
        force = [state.random.choice([*READS])] * (state.random.random() < 0.1)
        answer = zygote.ask("settle", state.folder, target="pipeline:make", force=force)
        assert "error" not in answer, (answer, done)
        check_steps(answer["steps"], done)
        check_outputs(answer["steps"][-1]["run"], zygote, state.folder, number, done)


def check_steps(steps: list[dict[str, Any]], done: object) -> None:
    """Check that every plan was exact, and surer from run to run."""
    known: dict[str, str] = {}
    for step in steps:
        forecasts, states = step["plan"]["forecasts"], step["run"]["states"]
        said = (done, step["plan"]["reasons"], states)
        for name, forecast in forecasts.items():
            assert known.get(name, forecast) == forecast, said
            if forecast == "depends":
                check_depends(name, step["plan"], said)
            elif name in states:
                expected = {"will run": "complete", "hit": "cached"}[forecast]
                assert states[name] == expected, said
        # What ran, and what was taken, is known from now on.
        known = {
            name: "hit"
            for name, forecast in forecasts.items()
            if forecast == "hit" or states.get(name) == "complete"
        }
        skipped = with_value(states, "skipped")
        assert skipped <= with_value(forecasts, "depends"), said


def check_depends(name: str, planned: Mapping[str, Any], said: object) -> None:
    """Check that what depends is downstream of what will run, or of a verdict."""
    forecasts, (reason,) = planned["forecasts"], planned["reasons"][name]
    ahead = {forecasts[each] for each in READS[name]}
    is_skipped = reason.startswith("It will be skipped")
    assert is_skipped or ahead & {"will run", "depends"}, said


def check_outputs(
    ran: Mapping[str, Any], zygote: Zygote, folder: Path, number: int, done: object
) -> None:
    """Check that a run from scratch writes the same."""
    again = zygote.ask("run", folder, target="pipeline:make", root=f"../again{number}")
    assert ran["digests"] == again["digests"], done
    shutil.rmtree(folder.parent / f"again{number}")
