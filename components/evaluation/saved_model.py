"""SavedModels, called by their signatures with tensors or serialized tf.Examples."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.evaluation.inputs import Inputs
from penstock.components.evaluation.outputs import (
    by_parts,
    chosen,
    first_failing,
    picked,
)
from penstock.components.evaluation.signatures import (
    SERVE,
    Argument,
    Call,
    Signatures,
    call_of_tfma,
    wrong_types,
)
from penstock.schemas.errors import DataError

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

# How lines of TensorFlow's errors begin that do not say what is wrong.
_FRAME = ("Graph execution error", "Detected at node", "<stack", "File ")


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
        which = f", the first of them {first}" if first else ""
        cure = (
            "give the feature a default_value where the model parses it"
            if call.takes_examples
            else "export the model with a signature that takes serialized tf.Examples"
        )
        return DataError(
            f"{_name(self, call)} takes '{column}' as a dense tensor, and {rows:,} "
            f"rows have no value{which}. Fill them before ingestion, or {cure}."
        )

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
            transforms.append(call_of_tfma(subject, function, column, schema))
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
    records = _records([each for each in calls if each.takes_examples], schema)
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


def _fitting_rows(folder: Path) -> int:
    """Return how many rows a model is called with, by the size of its weights."""
    files = (folder / "variables").glob("*")
    weights = sum(each.stat().st_size for each in files)
    return max(_FEWEST_ROWS, min(_ROWS, _ROWS * _WEIGHTS // max(weights, 1)))


def _records(calls: Iterable[Call], schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that tf.Examples for some signatures have."""
    needed: set[str] = set()
    for call in calls:
        if call.parsed is None:
            return tuple(schema.names)
        needed.update(each.name for each in call.parsed)
    return tuple(name for name in schema.names if name in needed)


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

        tensors = self._tensors(call, rows)
        refusals = (TypeError, ValueError, tf.errors.OpError)
        try:
            arrays = self._run(call, tensors)
        except refusals as error:
            raise self._refused(call, rows, error, refusals) from error
        if keys is None:
            keys = dict(zip(arrays, arrays, strict=True))
        return picked(_name(self._source, call), arrays, keys, rows.batch.num_rows)

    def _run(self, call: Call, tensors: Mapping[str, tf.Tensor]) -> dict[str, Array]:
        if call.is_of_tfma:
            from tensorflow_model_analysis.experimental import preprocessing_functions

            function = getattr(preprocessing_functions, call.signature)
            return {call.signature: _dense(function(*tensors.values()))}
        outputs = self._model.signatures[call.signature](**tensors)
        return {name: _dense(value) for name, value in outputs.items()}

    def _refused(
        self,
        call: Call,
        rows: Inputs,
        error: BaseException,
        refusals: tuple[type[BaseException], ...],
    ) -> DataError:
        """Return the error that names the first row that the model fails on."""
        name = _name(self._source, call)
        wrong = list(_wrongly_parsed(call, rows))
        if wrong:
            return wrong_types(f"{name} parses", wrong, rows.batch.schema)

        def fails(start: int, stop: int) -> bool:
            part = rows.part(start, stop)
            try:
                self._run(call, self._tensors(call, part))
            except refusals:
                return True
            return False

        count = rows.batch.num_rows
        row = first_failing(fails, count)
        which = f"{count:,} rows from {rows.row(0)}" if row is None else rows.row(row)
        return DataError(
            f"{name} fails on {which}: {_reason(error)}. Call it with rows of the data "
            "in a test of the model."
        )

    def _tensors(self, call: Call, rows: Inputs) -> dict[str, tf.Tensor]:
        tensors: dict[str, tf.Tensor] = {}
        for argument in call.arguments:
            if argument.form == "examples":
                parts: list[Any] = [rows.records(self._source.records)]
            elif argument.form == "dense":
                parts = [self._dense_tensor(call, argument, rows)]
            else:
                parts = _parts(argument, rows)
            tensors.update(zip(argument.names, parts, strict=True))
        return tensors

    def _dense_tensor(self, call: Call, argument: Argument, rows: Inputs) -> tf.Tensor:
        import tensorflow as tf

        column = argument.column
        lengths, values = rows.lists(column)
        if rows.column(column).null_count or values.null_count:
            self._refuse_missing(column, rows)
        count, shape = rows.batch.num_rows, [size or -1 for size in argument.shape]
        known = int(np.prod([size or 1 for size in argument.shape]))
        per_row = known
        if None in argument.shape:
            per_row = int(lengths[0]) if count else known
            per_row -= per_row % known
        if (lengths != per_row).any():
            row = int(np.argmax(lengths != per_row))
            raise DataError(
                f"{_name(self._source, call)} takes {per_row} values of '{column}' per "
                f"row, and {rows.row(row)} has {lengths[row]}. Export the model with a "
                "signature that takes serialized tf.Examples."
            )
        return tf.reshape(rows.values(column, argument.dtype), [count, *shape])

    def _refuse_missing(self, column: str, rows: Inputs) -> None:
        lengths, values = rows.lists(column)
        missing = lengths == 0
        if values.null_count:
            unknown = values.is_null().to_numpy(zero_copy_only=False)
            missing[np.repeat(np.arange(len(lengths)), lengths)[unknown]] = True
        raise self._source.missing_values(
            column, int(missing.sum()), rows.row(int(np.argmax(missing)))
        )


def _wrongly_parsed(call: Call, rows: Inputs) -> Iterator[tuple[str, str, str]]:
    """Yield features that are parsed as another type than their columns have."""
    for each in call.parsed or ():
        if each.name not in rows.batch.schema.names or not len(
            rows.lists(each.name)[1]
        ):
            continue
        kind = rows.lists(each.name)[1].type
        if each.dtype not in _as_in_examples(kind):
            yield each.name, each.dtype, each.name


def _as_in_examples(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int64"
    return "float32" if pa.types.is_floating(kind) else "string"


def _reason(error: BaseException) -> str:
    """Return the line of an error of TensorFlow's that says what is wrong.

    Without the values that an assertion adds: they are those of the data.
    """
    said = (line.strip() for line in str(error).splitlines())
    line = next((each for each in said if each and not each.startswith(_FRAME)), "")
    line = re.sub(r" \[\[?\{\{.*| \[Op:.*| \[[^\]]*= ?\].*", "", line)
    return line.rstrip(". ") or type(error).__name__


def _parts(argument: Argument, rows: Inputs) -> list[Any]:
    """Return the tensors that make a sparse or ragged one."""
    import tensorflow as tf

    lengths, _ = rows.lists(argument.column)
    values = rows.values(argument.column, argument.dtype)
    ends = np.cumsum(lengths)
    if argument.form == "ragged":
        splits = np.concatenate([[0], ends])
        return [values, tf.constant(splits, tf.as_dtype(argument.split_dtype))]
    places = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    indices = np.stack([np.repeat(np.arange(len(lengths)), lengths), places], axis=1)
    shape = [len(lengths), int(lengths.max(initial=0))]
    return [tf.constant(indices, tf.int64), values, tf.constant(shape, tf.int64)]


def _dense(value: Any) -> Array:
    import tensorflow as tf

    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    elif isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    if value.dtype == tf.bfloat16:
        value = tf.cast(value, tf.float32)
    return np.asarray(value)
