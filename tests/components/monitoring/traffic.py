"""Taxi-like rows as a model is trained on and asked, with drift where it is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components.monitoring.windows import DAY, Window
from penstock.schemas.artifacts import Examples

MONDAY = Window.day("2026-11-02").start
PAYMENTS = ["Cash", "Credit Card", "No Charge"]


def rows(
    many: int,
    seed: int,
    *,
    day: int = 0,
    fare: float = 0.0,
    card: float = 0.0,
    new: float = 0.0,
) -> pa.Table:
    """Return rows of a day.

    Args:
        many: How many.
        seed: Of all that is drawn.
        day: Days after Monday, 2 November 2026.
        fare: By how much the logarithm of the fare is moved.
        card: By how much that of fares paid by credit card is moved; of those paid in
            cash it is moved the other way, so that all together hardly are.
        new: Share of a payment type that was never seen before.
    """
    random = np.random.default_rng(seed)
    payment = random.choice(PAYMENTS, many, p=[0.5, 0.45, 0.05]).astype(object)
    payment[random.uniform(size=many) < new] = "Prcard"
    moved = fare + card * (payment == "Credit Card") - 0.9 * card * (payment == "Cash")
    return pa.table(
        {
            "trip": [f"{day}-{number}" for number in range(many)],
            "logged_at": MONDAY + day * DAY + np.sort(random.uniform(0, DAY, many)),
            "fare": random.lognormal(2.3 + moved, 0.6, many),
            "miles": random.gamma(1.5, 2, many),
            "payment_type": pa.array(payment.tolist(), pa.string()),
            "score": random.beta(2, 5, many),
        }
    )


def examples(folder: Path, *tables: pa.Table, split: str = "train") -> Examples:
    """Write tables as the one split of Examples."""
    where = folder / f"Split-{split}"
    where.mkdir(parents=True)
    for number, table in enumerate(tables):
        name = f"data_parquet-{number:05}-of-{len(tables):05}.parquet"
        pq.write_table(table, where / name)
    found = Examples(folder, properties={"payload_format": "FORMAT_PARQUET"})
    found.split_names = [split]
    return found
