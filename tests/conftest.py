"""Fixtures that tests of every room use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def taxi_csv() -> Path:
    """The real taxi trips: 15,002 rows, 18 columns; beside the checkout, if at all."""
    path = Path(__file__).parents[2] / "shared" / "data" / "taxi" / "data.csv"
    if not path.is_file():
        pytest.skip(f"The real taxi trips are not at {path}.")
    return path
