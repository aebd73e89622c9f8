"""No edit that changes what a component does goes unseen, whatever way it is used.

Random projects are executed before and after each of their definitions is changed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipelines.graphs import Graph, mutations
from tests.pipelines.test_code import said

counted: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_bytecode() -> Iterator[None]:
    """Python goes by a file's time in seconds, and edits come faster."""
    sys.dont_write_bytecode, was = True, sys.dont_write_bytecode
    yield
    sys.dont_write_bytecode = was


@settings(
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 10**9))
def test_no_change_of_what_is_said_goes_unseen(tmp_path: Path, seed: int) -> None:
    check(seed, tmp_path / str(seed))


def check(seed: int, folder: Path) -> None:
    """Execute a project and each change of it."""
    graph = Graph(seed)
    before, first = said(folder, graph.files())
    assert not isinstance(first, str), first  # an error, as text
    for changed in mutations(graph):
        try:
            after, second = said(folder, graph.files())
        except NameError:
            continue
        if isinstance(second, str):  # fails where the definition is used too early
            continue
        is_seen = before.digest != after.digest
        assert is_seen or first == second, (changed, graph.files())
        counted["changed" if first != second else "seen" if is_seen else "same"] += 1
