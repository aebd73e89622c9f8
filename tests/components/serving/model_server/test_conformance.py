"""The conformance suite as a whole: many cases, and each says what it mirrors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_NAMES = re.compile(r"(?:[a-z_0-9]+\.(?:cc|h|proto|py|md)\b|serving#\d+).*", re.DOTALL)


def cases() -> list[tuple[str, str]]:
    found = []
    for path in sorted(Path(__file__).parent.glob("test_conformance_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append(
                    (f"{path.name}::{node.name}", ast.get_docstring(node) or "")
                )
    return found


def test_every_case_names_what_it_mirrors() -> None:
    assert [name for name, says in cases() if not _NAMES.fullmatch(says)] == []


def test_there_are_a_hundred_cases_and_more() -> None:
    assert len(cases()) >= 150
