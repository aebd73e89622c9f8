"""Python predictors that tests name in models: loaders that are marked, and one not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components.evaluation import model_loader

LOADED: list[Path] = []


@model_loader
def load(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    """Load a logistic regression on the columns, in the order of its weights."""
    LOADED.append(folder)
    weights = json.loads((folder / "weights.json").read_text("utf-8"))

    def predict(batch: pa.RecordBatch) -> Any:
        logits = sum(
            weight * column.to_numpy(zero_copy_only=False)
            for weight, column in zip(weights, batch.columns, strict=True)
        )
        return 1 / (1 + np.exp(-logits))

    return predict


@model_loader
class Outputs:
    """Says several things; a class is a loader too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, batch: pa.RecordBatch) -> dict[str, Any]:
        fare = batch.column(0).to_pylist()
        return {"score": fare, "both": [[each, -each] for each in fare], "one": [1.0]}


@model_loader
def counts(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    """Load a model that says how many rows it was called with."""
    return lambda batch: np.full(batch.num_rows, batch.num_rows)


@model_loader
def sums(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    """Load a model that says one thing of all rows."""
    return lambda batch: batch.column(0).to_numpy().sum()


@model_loader
def strict(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    """Load a model that takes only what is positive."""

    def predict(batch: pa.RecordBatch) -> Any:
        fare = batch.column(0).to_numpy()
        if (fare < 0).any():
            raise ArithmeticError(f"negative: {fare}")
        return fare

    return predict


@model_loader
def broken(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    """Raise."""
    raise OSError("no weights")


def unmarked(folder: Path) -> Callable[[pa.RecordBatch], Any]:
    """Load what no model may name."""
    raise AssertionError
