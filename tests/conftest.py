"""Fixtures that tests of every room use."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

# A test asserts no time: on a machine that is busy any of them takes long.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


class Said(NamedTuple):
    """What a call of the command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def penstock(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Call the command line in this process."""
    from penstock.__main__ import command_line

    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["penstock", *map(str, arguments)])
        capfd.readouterr()
        code = command_line()
        out, err = capfd.readouterr()
        assert "Traceback" not in err or "This is a defect" in err
        return Said(code, out, err)

    return call


@pytest.fixture(scope="session")
def taxi_csv() -> Path:
    """The real taxi trips: 15,002 rows, 18 columns; beside the checkout, if at all."""
    path = Path(__file__).parents[2] / "shared" / "data" / "taxi" / "data.csv"
    if not path.is_file():
        pytest.skip(f"The real taxi trips are not at {path}.")
    return path
