"""Where predictions come from: a SavedModel, a Python predictor, or the data.

`find` says how a model is called, without loading it; what it returns is small,
hashable, and fit for a Beam graph. `load` makes a predictor of that, once per process.

    source = find("Model 'taxi' (candidate)", model, spec, schema)
    predictor = load(source)
    for batch in batches:
        rows = Inputs(batch, "eval", first_row)
        scores = predictor.predict(rows)
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from penstock.components.columns.inputs import Inputs
from penstock.schemas.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

    from penstock.schemas.artifacts import Model


class Predictor(Protocol):
    """A loaded model."""

    def predict(self, rows: Inputs) -> dict[str, np.ndarray[Any, Any]]:
        """Return what the model says of each row.

        Args:
            rows: With every column that the model reads.

        Returns:
            One array per output that was asked of `find`, its first dimension as long
            as the batch. The output '' is the prediction where none is named.

        Raises:
            DataError: If a row cannot be given to the model, the model refuses one
                (the text says the first), or an output has another number of rows.
        """

    def transform(self, rows: Inputs) -> dict[str, np.ndarray[Any, Any]]:
        """Return the features and labels that preprocessing signatures compute.

        Args:
            rows: With every column that the model reads.

        Returns:
            One array per name in `PredictionSource.gives`.

        Raises:
            DataError: As `predict`.
        """


class PredictionSource(Protocol):
    """How predictions are got: hashable, and small enough for a Beam graph."""

    @property
    def subject(self) -> str:
        """What the model is called in texts."""

    @property
    def columns(self) -> frozenset[str]:
        """The columns that are read, all of which the data has."""

    @property
    def required(self) -> frozenset[str]:
        """Those of the columns in which no value may be missing."""

    @property
    def gives(self) -> frozenset[str]:
        """Names of what `Predictor.transform` computes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that `Predictor.predict` returns."""

    @property
    def batch_rows(self) -> int:
        """How many rows at once are quickest."""

    def missing_values(self, column: str, rows: int, first: str = "") -> DataError:
        """Return the error that says that rows lack a value that is required.

        Args:
            column: One of `required`.
            rows: How many rows.
            first: What the first of them is called, if that is known.
        """

    def __hash__(self) -> int: ...

    def open(self) -> Predictor:
        """Load what predicts; call `load` instead, which does it once."""


def find(
    subject: str,
    model: Model | None,
    spec: ModelSpec,
    schema: pa.Schema,
    *,
    outputs: Iterable[str] = ("",),
) -> PredictionSource:
    """Return how the predictions of a model are got, without loading it.

    Args:
        subject: What the model, or without one the rows, are called in texts.
        model: The model; None if predictions are columns, named by `prediction_key`
            or `prediction_keys` of the spec.
        spec: Says which signatures and outputs are used.
        schema: Columns of the data.
        outputs: The output names that metrics ask for; '' where they name none.

    Raises:
        DataError: If the model cannot be called with these columns, or has no such
            output.
        PipelineError: If the spec asks for what the model is not.
    """
    from penstock.components.evaluation import (
        flavors,
        logged,
        python_predictor,
        saved_model,
    )

    if model is None:
        return logged.find(subject, spec, schema, outputs)
    folder = model.serving_dir
    if flavors.is_there(folder):
        return python_predictor.find(subject, folder, spec, schema, outputs)
    return saved_model.find(subject, folder, spec, schema, outputs)


def share(sources: Sequence[PredictionSource]) -> list[PredictionSource]:
    """Return the sources so that those which take tf.Examples take the same ones.

    Records with the columns of all are encoded once for all.
    """
    from penstock.components.evaluation.saved_model import SavedModelSource

    records = tuple(
        dict.fromkeys(
            name
            for each in sources
            if isinstance(each, SavedModelSource)
            for name in each.records
        )
    )
    return [
        each.with_records(records) if isinstance(each, SavedModelSource) else each
        for each in sources
    ]


_LOADED = 4  # a candidate and a baseline, of two evaluations at a time
_loading = threading.Lock()


@functools.lru_cache(maxsize=_LOADED)
def _loaded(source: PredictionSource) -> Predictor:
    return source.open()


def load(source: PredictionSource) -> Predictor:
    """Return what predicts, loaded once per process.

    Raises:
        DataError: If it cannot be loaded.
    """
    with _loading:
        return _loaded(source)


def unload() -> None:
    """Forget the models that are loaded, and free their memory."""
    _loaded.cache_clear()


def check_same_outputs(
    candidate: Mapping[str, np.ndarray[Any, Any]],
    baseline: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    """Check that two models say things of the same shape of the same rows.

    A last dimension of one is no difference: a value is a list of one value.

    Raises:
        DataError: If an output of one has another shape than that of the other.
    """
    for name in candidate.keys() & baseline.keys():
        shapes = [
            each[name].shape[1:]
            if each[name].shape[-1:] != (1,)
            else each[name].shape[1:-1]
            for each in (candidate, baseline)
        ]
        if shapes[0] != shapes[1]:
            output = f"of output '{name}' " if name else ""
            raise DataError(
                f"The predictions {output}have the shape {shapes[0]} per row from the "
                f"candidate, and {shapes[1]} from the baseline. Compare models that "
                "predict the same thing, or evaluate without the baseline."
            )
