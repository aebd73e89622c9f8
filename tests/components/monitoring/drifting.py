"""Models that drift or do not, for tests of drift."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components.monitoring.grid import Role
from penstock.components.monitoring.profile import Profile
from penstock.components.monitoring.profiling import profile_table
from penstock.components.monitoring.reference import Reference
from penstock.components.monitoring.windows import Window

ROLES: Mapping[str, Role] = {"score": "score", "label": "label"}


def day(number: int) -> Window:
    """A day of 2026, counted from 0."""
    date = datetime.date(2026, 1, 1) + datetime.timedelta(days=number)
    return Window.day(date)


def rows(
    count: int,
    seed: int,
    *,
    shift: float = 0.0,
    missing: float = 0.0,
    new: float = 0.0,
    score: float = 0.0,
    zeros: float = 0.1,
) -> pa.Table:
    """Rows of a model with seven columns, some of which may drift."""
    rng = np.random.default_rng([9, seed])
    payment = np.array(["Cash", "Credit Card", "Mobile", "Prcard", "Unknown"])
    kinds = payment[np.minimum(rng.geometric(0.55, count) - 1, 4)]
    kinds = np.where(rng.random(count) < new, "Voucher", kinds)
    tips = np.where(rng.random(count) < zeros, 0.0, rng.lognormal(size=count))
    columns: dict[str, Any] = {
        "fare": pa.array(rng.lognormal(2 + shift, 1, count)),
        "miles": pa.array(rng.standard_normal(count), mask=rng.random(count) < missing),
        "payment": pa.array(kinds),
        "tips": pa.array(tips),
        "hour": pa.array(rng.integers(0, 24, count)),
        "score": pa.array(rng.beta(2, 5, count) + score),
        "label": pa.array((rng.random(count) < 0.3).astype(int)),
    }
    return pa.table(columns)


@functools.lru_cache(maxsize=4)
def reference(count: int = 20_000) -> Reference:
    """A reference without a history."""
    return Reference.of(rows(count, 0), model="taxi", version="7", roles=ROLES)


def window(number: int, count: int = 5_000, **drift: Any) -> Profile:
    """The profile of a day, on the grid of `reference()`."""
    return profiled(reference(), number, count, **drift)


def profiled(of: Reference, number: int, count: int = 5_000, **drift: Any) -> Profile:
    """The profile of a day, on a reference's grid."""
    return profile_table(
        of.grid,
        rows(count, number + 1, **drift),
        day(number),
        model="taxi",
        version="7",
    )


def importances() -> Mapping[str, float]:
    """Of the features."""
    return {"fare": 0.5, "miles": 0.3, "payment": 0.1, "tips": 0.1, "hour": 0.0}
