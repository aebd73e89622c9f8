"""Logs of a model whose quality in every slice is known and moves as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special

from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.artifacts import Examples

Array: TypeAlias = "np.ndarray[Any, Any]"

SHARES = {"Cash": 0.4, "Credit Card": 0.3, "Mobile": 0.15, "Prcard": 0.1, "Other": 0.05}
FIRST_DAY = Window.day("2026-09-07").start
AUC = 0.80


def distance(auc: float | Array) -> Any:
    """Return how far apart normal scores of both classes are for an AUC."""
    return np.sqrt(2) * special.ndtri(auc)


def day_of_logs(
    random: np.random.Generator,
    day: int,
    rows: int,
    *,
    auc: Mapping[str, float] | None = None,
    labeled: float = 1.0,
    version: str = "7",
    positives: float = 0.3,
) -> pa.Table:
    """Return the log of a day, in the order of time.

    Args:
        random: What to draw from.
        day: Days since the first one.
        rows: How many rows.
        auc: Of slices of `payment_type`; 0.80 for the others.
        labeled: Share of the rows whose label has come.
        version: Of the model.
        positives: Share of positive rows.
    """
    names = list(SHARES)
    slices = random.choice(len(names), rows, p=list(SHARES.values()))
    each = np.array([(auc or {}).get(name, AUC) for name in names])
    labels = (random.random(rows) < positives).astype(np.int64)
    apart = distance(each)[slices]
    # Calibrated where the AUC is 0.80: the log odds of two normal distributions.
    known = distance(AUC)
    values = random.normal(size=rows) + apart * (labels - 0.5)
    odds = known * values + np.log(positives / (1 - positives))
    times = FIRST_DAY + DAY * (day + np.sort(random.random(rows)))
    return pa.table(
        {
            "id": np.char.add(f"{day}-", np.arange(rows).astype(str)),
            "time": times,
            "score": special.expit(odds),
            "big_tipper": pa.array(labels, mask=random.random(rows) >= labeled),
            "payment_type": np.array(names)[slices],
            "version": np.full(rows, version),
        }
    )


def examples_of(folder: Path, *tables: pa.Table, split: str = "logged") -> Examples:
    """Write tables as Examples of one split."""
    path = folder / f"Split-{split}"
    path.mkdir(parents=True)
    pq.write_table(
        pa.concat_tables(tables), path / "data.parquet", row_group_size=50_000
    )
    return Examples(
        folder,
        properties={
            "split_names": f'["{split}"]',
            "payload_format": "FORMAT_PARQUET",
            "file_format": "parquet",
        },
    )
