"""Wrong pipelines: mypy finds every mistake, on its line, and nothing else.

Each `wrong_*.py` here ends the lines it gets wrong with `# E: part of the message`, or
with several of them. mypy reports an argument on its own line, and one that is unknown
or missing where the call begins.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
FILES = sorted(Path(__file__).parent.glob("wrong_*.py"))
_ERROR = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): error: (?P<message>.*)")

Messages = Mapping[int, list[str]]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Messages]:
    """What one run of mypy over all the files finds, by file name and line."""
    options = ["--cache-dir", str(tmp_path_factory.mktemp("mypy")), "--no-pretty"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            *options,
            "--no-error-summary",
            "--hide-error-context",
            *(str(file.relative_to(CHECKOUT)) for file in FILES),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, list[str]]] = {}
    for line in done.stdout.splitlines():
        error = _ERROR.fullmatch(line)
        if error:
            messages = found.setdefault(Path(error["path"]).name, {})
            messages.setdefault(int(error["line"]), []).append(error["message"])
    return found


def expected_in(text: str) -> Messages:
    """Return the parts of messages that a file announces, by line."""
    announced = {
        number: [part.strip() for part in line.split("# E:")[1:]]
        for number, line in enumerate(text.splitlines(), start=1)
    }
    return {number: parts for number, parts in announced.items() if parts}


def mismatches(expected: Messages, found: Messages) -> list[str]:
    """Return a sentence per line where the two differ."""
    wrong = []
    for line in sorted({*expected, *found}):
        parts, messages = expected.get(line, []), found.get(line, [])
        matched = len(parts) == len(messages) and all(
            any(part in message for message in messages) for part in parts
        )
        if not matched:
            wrong.append(f"line {line}: expected {parts}, mypy says {messages}")
    return wrong


def test_there_are_wrong_pipelines() -> None:
    assert len(FILES) >= 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_mypy_finds_what_is_wrong_and_nothing_else(
    file: Path, reported: Mapping[str, Messages]
) -> None:
    expected = expected_in(file.read_text(encoding="utf-8"))
    assert expected
    assert mismatches(expected, reported.get(file.name, {})) == []


def test_a_missing_and_an_unexpected_error_are_both_told() -> None:
    assert mismatches({3: ["Examples"]}, {5: ["Name 'x' is not defined"]}) == [
        "line 3: expected ['Examples'], mypy says []",
        "line 5: expected [], mypy says [\"Name 'x' is not defined\"]",
    ]
