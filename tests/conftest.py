"""What tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

TAXI_CSV = Path(__file__).parents[2] / "shared" / "data" / "taxi" / "data.csv"


@pytest.fixture(scope="session")
def taxi_csv() -> Path:
    """The real sample of Chicago taxi trips: 15,002 rows, 18 columns."""
    if not TAXI_CSV.exists():
        pytest.skip("the real taxi trips are not beside this checkout")
    return TAXI_CSV
