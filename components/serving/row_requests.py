"""Requests of real rows for a signature of a SavedModel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.schemas.errors import DataError, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    from penstock.components.columns.inputs import Inputs
    from penstock.components.columns.signatures import Call, Signatures

SERVING_SIGNATURE = "serving_default"


class NotCallable(Exception):
    """A signature cannot be called with the rows at hand; the text says why.

    Attributes:
        is_failure: Whether that speaks against the model, because requests have no
            more than the rows.
    """

    def __init__(self, text: str, *, is_failure: bool = False) -> None:
        super().__init__(text)
        self.is_failure = is_failure


@dataclasses.dataclass(frozen=True)
class Ready:
    """A signature, and rows that it can be given.

    Attributes:
        name: Its name.
        title: What texts call it.
        call: How it is called.
        rows: The rows, with the columns that it may have.
        records: The columns of tf.Examples, if it takes these.
        groups: Places of the rows of each request.
        together: Places of rows that one more request holds; or none.
        left_out: How many rows it cannot be given.
    """

    name: str
    title: str
    call: Call
    rows: Inputs
    records: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    together: tuple[int, ...]
    left_out: int

    def part(self, places: Sequence[int]) -> Inputs:
        """Return the rows at some places."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from penstock.components.columns.inputs import Inputs

        if len(places) == 1:
            return self.rows.part(places[0], places[0] + 1)
        return Inputs(pc.take(self.rows.batch, pa.array(places)), self.rows.split)

    def called(self, places: Sequence[int]) -> str:
        """Return what texts call the rows at some places."""
        first = self.rows.row(places[0])
        return first if len(places) == 1 else f"{len(places):,} rows from {first}"

    def request(self, places: Sequence[int]) -> PredictRequest:
        """Return the request that has the rows at some places."""
        import tensorflow as tf
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        from penstock.components.columns import feeding

        request = PredictRequest()
        request.model_spec.name = "model"
        request.model_spec.signature_name = self.name
        if not self.call.arguments:
            return request
        tensors = feeding.tensors(
            self.title, self.call, self.part(places), self.records
        )
        for name, tensor in tensors.items():
            request.inputs[name].CopyFrom(
                tf.make_tensor_proto(tensor.numpy(), dtype=tensor.dtype)
            )
        return request


def make_ready(
    signatures: Signatures,
    name: str,
    inputs: Mapping[str, Any],
    title: str,
    rows: pa.RecordBatch | None,
    split: str,
    absent: Sequence[str],
) -> Ready:
    """Return how a signature is called with rows.

    Args:
        signatures: Those of the model.
        name: Name of the signature.
        inputs: Its inputs, messages of the type TensorInfo.
        title: What texts call it.
        rows: The rows, in natural form; None if there are none.
        split: The split that they are of, for texts.
        absent: Columns of them that requests do not have.

    Raises:
        NotCallable: If it cannot be.
    """
    from penstock.components.columns.inputs import Inputs
    from penstock.components.columns.signatures import Call

    if not inputs:
        nothing = Inputs(_no_rows(), split)
        return Ready(name, title, Call(name, ()), nothing, (), ((0,),), (), 0)
    if rows is None:
        raise NotCallable(
            f"{title} was not called: there are no rows to call it with. Wire examples."
        )
    if not rows.num_rows:
        raise NotCallable(
            f"{title} was not called: split '{split}' has no rows. Name another split, "
            "or ingest more rows."
        )
    scalars = [
        key
        for key, tensor in sorted(inputs.items())
        if not tensor.tensor_shape.unknown_rank and not tensor.tensor_shape.dim
    ]
    if scalars:
        raise NotCallable(
            f"{title} was not called: it takes {quoted(scalars)} without a batch "
            "dimension, which rows cannot be. Export it with shapes that begin with "
            "None, or name the signatures to call with signatures=(...)."
        )
    kept = [each for each in rows.schema.names if each not in absent]
    batch = Inputs(rows, split).select(tuple(kept))
    try:
        call = signatures.call(name, batch.schema, "signatures")
    except DataError as error:
        if absent and _can_call(signatures, name, rows.schema):
            raise NotCallable(
                f"{title} takes what requests do not have (by the schema, they have no "
                f"{quoted(absent)}). {error}",
                is_failure=True,
            ) from error
        raise NotCallable(
            f"{error} It was not called: if it need not be, name the others with "
            "signatures=(...)."
        ) from error
    return _with_rows(name, inputs, title, call, Inputs(batch, split))


def _can_call(signatures: Signatures, name: str, schema: pa.Schema) -> bool:
    try:
        signatures.call(name, schema, "signatures")
    except DataError:
        return False
    return True


def _with_rows(
    name: str, inputs: Mapping[str, Any], title: str, call: Call, rows: Inputs
) -> Ready:
    import numpy as np

    from penstock.components.columns import feeding

    count = rows.batch.num_rows
    usable = np.ones(count, bool)
    widths: list[Any] = []
    for argument in call.arguments:
        if argument.form != "dense":
            continue
        lengths, _ = rows.lists(argument.column)
        known = math.prod(size or 1 for size in argument.shape)
        if None in argument.shape:
            usable &= lengths % known == 0
            widths.append(lengths)
        else:
            usable &= lengths == known
        usable &= ~feeding.lacking(argument.column, rows)
    places = np.flatnonzero(usable).tolist()
    if not places:
        columns = {each.column for each in call.arguments if each.form == "dense"}
        raise NotCallable(
            f"{title} was not called: none of the {count:,} rows of split "
            f"'{rows.split}' has as many values of {quoted(columns)} as it takes. Call "
            "it with other rows, or name the signatures to call with signatures=(...)."
        )
    size = _batch_size(inputs, call)
    together: tuple[int, ...] = ()
    if size is None:
        groups = tuple((place,) for place in places)
        # Tensors are rectangular: only rows of one width go into one request.
        first = [width[places[0]] for width in widths]
        alike = (each for each in places if [width[each] for width in widths] == first)
        together = tuple(alike)
    else:
        # A fixed number of rows: the last request begins again from the first row.
        groups = tuple(
            tuple(places[(start + each) % len(places)] for each in range(size))
            for start in range(0, len(places), size)
        )
    return Ready(
        name,
        title,
        call,
        rows,
        feeding.record_columns([call], rows.batch.schema),
        groups,
        together if len(together) > 1 else (),
        count - len(places),
    )


def _batch_size(inputs: Mapping[str, Any], call: Call) -> int | None:
    """Return how many rows a signature takes, if that is a fixed number."""
    for argument in call.arguments:
        if argument.form in ("dense", "examples"):
            dims = inputs[argument.names[0]].tensor_shape.dim
            if dims and dims[0].size > 0:
                return int(dims[0].size)
    return None


def _no_rows() -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array([0])], names=["row"])
