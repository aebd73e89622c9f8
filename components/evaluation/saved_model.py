"""SavedModels, called by their signatures with tensors or serialized tf.Examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.columns import feeding
from penstock.components.columns.inputs import Inputs, first_failing
from penstock.components.columns.signatures import (
    SERVE,
    Argument,
    Call,
    Signatures,
    check_types,
    wrong_types,
)
from penstock.components.evaluation.outputs import by_parts, chosen, picked
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

Array: TypeAlias = "np.ndarray[Any, Any]"

# The fixed costs of a call are 3 % of it at 25,000 rows of the taxi model (at 10,000:
# 15 %). Models with more weights than so many bytes are called with fewer rows, in
# proportion, because wide layers make large tensors; and so are large rows.
_ROWS = 25_000
_WEIGHTS = 16 << 20
_FEWEST_ROWS = 256
_BYTES_AT_ONCE = 64 << 20


@dataclasses.dataclass(frozen=True)
class SavedModelSource:
    """How a SavedModel is called.

    Attributes:
        subject: What the model is called in texts.
        folder: The folder of the SavedModel.
        state: Size and time of its message, so that another one is loaded anew.
        call: The signature that predicts.
        keys: The outputs that are wanted, and which of the signature's each one is.
        transforms: The signatures that compute features and labels.
        gives: What those compute.
        columns: The columns that are read.
        records: Those that are encoded as tf.Examples, in this order.
        batch_rows: How many rows the signature is called with.
    """

    subject: str
    folder: str
    state: tuple[int, int]
    call: Call
    keys: tuple[tuple[str, str], ...]
    transforms: tuple[Call, ...]
    gives: frozenset[str]
    columns: frozenset[str]
    records: tuple[str, ...]
    batch_rows: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are wanted."""
        return tuple(output for output, _ in self.keys)

    @property
    def required(self) -> frozenset[str]:
        """The columns that become dense tensors, in or out of tf.Examples."""
        return frozenset(name for call in self._calls for name in call.required)

    def missing_values(self, column: str, rows: int, first: str = "") -> DataError:
        """Return the error that says that a model cannot be given missing values."""
        (call, *_) = [each for each in self._calls if column in each.required]
        return feeding.missing_values(_name(self, call), call, column, rows, first)

    def with_records(self, records: tuple[str, ...]) -> SavedModelSource:
        """Return the source so that its tf.Examples, if any, have these columns."""
        if not any(call.takes_examples for call in self._calls):
            return self
        columns = self.columns | set(records)
        return dataclasses.replace(self, records=records, columns=columns)

    def open(self) -> SavedModel:
        """Load the model."""
        return SavedModel(self)

    @property
    def _calls(self) -> tuple[Call, ...]:
        return (self.call, *self.transforms)


def _name(source: SavedModelSource, call: Call) -> str:
    kind = "TFMA's function" if call.is_of_tfma else "Signature"
    return f"{kind} '{call.signature}' of {source.subject}"


def find(
    subject: str,
    folder: Path,
    spec: ModelSpec,
    schema: pa.Schema,
    outputs: Iterable[str],
) -> SavedModelSource:
    """Return how a SavedModel is called with columns, without loading it.

    Args:
        subject: What the model is called in texts.
        folder: The folder of the SavedModel.
        spec: Names its signatures and outputs. Without a signature_name it is
            `predict` where there is one, else `serving_default`.
        schema: The columns.
        outputs: The output names that metrics ask for.

    Raises:
        DataError: If there is no SavedModel or no such signature or output, or if a
            signature takes what the data does not have.
    """
    signatures = Signatures(subject, folder)
    name = spec.signature_name
    if not name:
        name = "predict" if "predict" in signatures.outputs else "serving_default"
    call = signatures.call(name, schema, "signature_name")
    transforms, gives = [], set[str]()
    for each in spec.preprocessing_function_names:
        function, _, column = each.partition("@")
        if column:
            transforms.append(_call_of_tfma(subject, function, column, schema))
            gives.add(function)
        else:
            field = "preprocessing_function_names"
            transforms.append(signatures.call(each, schema, field))
            gives.update(signatures.outputs[each])
    keys = chosen(
        f"Signature '{name}' of {subject}",
        signatures.outputs[name],
        list(outputs),
        spec.prediction_key,
        dict(spec.prediction_keys),
    )
    calls = [call, *transforms]
    takes = {each.column for call in calls for each in call.arguments if each.column}
    records = feeding.record_columns(calls, schema)
    status = (folder / "saved_model.pb").stat()
    return SavedModelSource(
        subject,
        str(folder),
        (status.st_size, status.st_mtime_ns),
        call,
        tuple(keys.items()),
        tuple(transforms),
        frozenset(gives),
        frozenset(takes) | frozenset(records),
        records,
        spec.inference_batch_size or _fitting_rows(folder),
    )


def _call_of_tfma(subject: str, function: str, column: str, schema: pa.Schema) -> Call:
    """Return how a function of TFMA's is called, written `function@column`."""
    from tensorflow_model_analysis.experimental import preprocessing_functions

    legal = {
        name: each
        for name, each in vars(preprocessing_functions).items()
        if hasattr(each, "input_signature")
    }
    if function not in legal:
        raise DataError(
            f"preprocessing_function_names has '{function}@{column}', and TFMA has no "
            f"preprocessing function '{function}' (it has {quoted(legal)})."
            f"{did_you_mean(function, legal)}"
        )
    if column not in schema.names:
        raise DataError(
            f"preprocessing_function_names has '{function}@{column}', and '{column}' "
            f"is no column of the data (it has {quoted(schema.names)})."
            f"{did_you_mean(column, schema.names)}"
        )
    (wanted,) = legal[function].input_signature
    argument = Argument((column,), "dense", wanted.dtype.name, (), column)
    check_types(f"TFMA's function '{function}' of {subject}", [argument], schema)
    return Call(function, (argument,), is_of_tfma=True)


def _fitting_rows(folder: Path) -> int:
    """Return how many rows a model is called with, by the size of its weights."""
    files = (folder / "variables").glob("*")
    weights = sum(each.stat().st_size for each in files)
    return max(_FEWEST_ROWS, min(_ROWS, _ROWS * _WEIGHTS // max(weights, 1)))


class SavedModel:
    """A loaded SavedModel.

    Args:
        source: How to call it.

    Raises:
        DataError: If it cannot be loaded.
    """

    def __init__(self, source: SavedModelSource) -> None:
        import tensorflow as tf

        self._source = source
        try:
            # Kept as a whole: signatures alone do not keep their variables alive.
            self._model = tf.saved_model.load(source.folder, tags=[SERVE])
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                f"{source.subject} at '{source.folder}' cannot be loaded: "
                f"{str(error).splitlines()[0]}. Run its producer again."
            ) from error

    def predict(self, rows: Inputs) -> dict[str, Array]:
        """Return the outputs of the signature that predicts.

        Args:
            rows: With every column that the model reads.

        Returns:
            The outputs that are wanted, by name.

        Raises:
            DataError: If a row cannot be given to the model, the model refuses one,
                or an output has another number of rows.
        """
        return self._called(self._source.call, rows, dict(self._source.keys))

    def transform(self, rows: Inputs) -> dict[str, Array]:
        """Return the features and labels that preprocessing signatures compute.

        Args:
            rows: With every column that the model reads.

        Returns:
            One array for each name that the signatures give.

        Raises:
            DataError: As `predict`.
        """
        found: dict[str, Array] = {}
        for call in self._source.transforms:
            found.update(self._called(call, rows))
        return found

    def _called(
        self, call: Call, rows: Inputs, keys: Mapping[str, str] | None = None
    ) -> dict[str, Array]:
        """Return outputs of a signature; all of them, if keys do not say which."""
        large = rows.batch.nbytes // _BYTES_AT_ONCE + 1
        most = max(1, min(self._source.batch_rows, rows.batch.num_rows // large))
        return by_parts(rows, most, lambda part: self._answer(call, part, keys))

    def _answer(
        self, call: Call, rows: Inputs, keys: Mapping[str, str] | None
    ) -> dict[str, Array]:
        import tensorflow as tf

        name, records = _name(self._source, call), self._source.records
        tensors = feeding.tensors(name, call, rows, records)
        refusals = (TypeError, ValueError, tf.errors.OpError)
        try:
            arrays = self._run(call, tensors)
        except refusals as error:
            raise self._refused(call, rows, error, refusals) from error
        if keys is None:
            keys = dict(zip(arrays, arrays, strict=True))
        return picked(name, arrays, keys, rows.batch.num_rows)

    def _run(self, call: Call, tensors: Mapping[str, tf.Tensor]) -> dict[str, Array]:
        if call.is_of_tfma:
            from tensorflow_model_analysis.experimental import preprocessing_functions

            function = getattr(preprocessing_functions, call.signature)
            return {call.signature: feeding.dense(function(*tensors.values()))}
        outputs = self._model.signatures[call.signature](**tensors)
        return {name: feeding.dense(value) for name, value in outputs.items()}

    def _refused(
        self,
        call: Call,
        rows: Inputs,
        error: BaseException,
        refusals: tuple[type[BaseException], ...],
    ) -> DataError:
        """Return the error that names the first row that the model fails on."""
        name, records = _name(self._source, call), self._source.records
        wrong = list(feeding.wrongly_parsed(call, rows))
        if wrong:
            return wrong_types(f"{name} parses", wrong, rows.batch.schema)

        def fails(start: int, stop: int) -> bool:
            part = rows.part(start, stop)
            try:
                self._run(call, feeding.tensors(name, call, part, records))
            except refusals:
                return True
            return False

        count = rows.batch.num_rows
        row = first_failing(fails, count)
        which = f"{count:,} rows from {rows.row(0)}" if row is None else rows.row(row)
        return DataError(
            f"{name} fails on {which}: {feeding.reason(error)}. Call it with rows of "
            "the data in a test of the model."
        )
