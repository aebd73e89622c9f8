"""SavedModels, called by their signatures with tensors or with serialized tf.Examples.

Which of the two a signature takes, and which columns they are, is seen from the
SavedModel's message, without loading the model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.columns.forms import is_list
from penstock.components.evaluation import parsing
from penstock.components.evaluation.inputs import Inputs
from penstock.components.evaluation.outputs import (
    by_parts,
    chosen,
    near_misses,
    picked,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow_model_analysis.proto.config_pb2 import ModelSpec

Array: TypeAlias = "np.ndarray[Any, Any]"
Form: TypeAlias = Literal["examples", "dense", "sparse", "ragged"]

# The fixed costs of a call are 3 % of it at 25,000 rows of the taxi model (at 10,000:
# 15 %). Models with more weights than so many bytes are called with fewer rows, in
# proportion, because wide layers make large tensors; and so are large rows.
_ROWS = 25_000
_WEIGHTS = 16 << 20
_FEWEST_ROWS = 256
_BYTES_AT_ONCE = 64 << 20

_SERVE = "serve"  # the tag of the graph that serves
_KERAS_SUFFIX = "_input"  # what Keras 2 appends to the names of inputs
_FRAME = ("Graph execution error", "Detected at node", "<stack", "File ")


@dataclasses.dataclass(frozen=True)
class Argument:
    """What a signature takes.

    A sparse tensor is declared as three tensors, its indices, values and dense shape,
    and a ragged one as two, its values and row splits; the first has the name.

    Attributes:
        names: Names of the tensors.
        form: What they are together.
        dtype: TensorFlow's name of the type of the values: `float32`, `string`.
        shape: Dimensions of a dense tensor after the first, the batch; None for any.
        column: The column that it is; '' for serialized tf.Examples.
        split_dtype: Type of the row splits of a ragged tensor.
    """

    names: tuple[str, ...]
    form: Form
    dtype: str
    shape: tuple[int | None, ...] = ()
    column: str = ""
    split_dtype: str = "int64"


@dataclasses.dataclass(frozen=True)
class Call:
    """A signature, and what it is called with.

    Attributes:
        signature: Its name; or that of a function of TFMA's.
        arguments: What it takes.
        is_of_tfma: Whether it is a function of TFMA's.
        parsed: The features that it parses from tf.Examples, where that is known.
    """

    signature: str
    arguments: tuple[Argument, ...]
    is_of_tfma: bool = False
    parsed: tuple[parsing.Parsed, ...] | None = None

    @property
    def takes_examples(self) -> bool:
        """Whether it takes serialized tf.Examples."""
        return any(each.form == "examples" for each in self.arguments)


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
        return frozenset(name for call in self._calls for name in _required(call))

    def missing_values(self, column: str, rows: int, first: str = "") -> DataError:
        """Return the error that says that a model cannot be given missing values."""
        (call, *_) = [each for each in self._calls if column in _required(each)]
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


def _required(call: Call) -> set[str]:
    dense = {each.column for each in call.arguments if each.form == "dense"}
    return dense | {each.name for each in call.parsed or () if each.is_required}


def _name(source: SavedModelSource, call: Call) -> str:
    kind = "TFMA's function" if call.is_of_tfma else "Signature"
    return f"{kind} '{call.signature}' of {source.subject}"


# How it is found out, from the message.


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
    file = folder / "saved_model.pb"
    graph = _meta_graph(subject, file)
    found = _exported(subject, graph)
    name = spec.signature_name
    if not name:
        name = "predict" if "predict" in found else "serving_default"
    exported = _named(subject, found, name, "signature_name")
    call = _call(subject, exported, graph.graph_def, schema)
    transforms, gives = [], set[str]()
    for each in spec.preprocessing_function_names:
        function, _, column = each.partition("@")
        if column:
            transforms.append(_tfma_call(subject, function, column, schema))
            gives.add(function)
            continue
        field = "preprocessing_function_names"
        computes = _named(subject, found, each, field)
        transforms.append(_call(subject, computes, graph.graph_def, schema))
        gives.update(computes.outputs)
    keys = chosen(
        f"Signature '{name}' of {subject}",
        exported.outputs,
        list(outputs),
        spec.prediction_key,
        dict(spec.prediction_keys),
    )
    calls = [call, *transforms]
    takes = {each.column for call in calls for each in call.arguments if each.column}
    records = _records([each for each in calls if each.takes_examples], schema)
    status = file.stat()
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


@dataclasses.dataclass(frozen=True)
class _Exported:
    """A signature as a SavedModel declares it: messages of tensors, by name."""

    name: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def _meta_graph(subject: str, file: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    if not file.is_file():
        raise DataError(
            f"{subject} has no SavedModel at '{file.parent}'. Let its Trainer write "
            "one there."
        )
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise DataError(
            f"'{file}' is damaged: it is no SavedModel message. Run the producer of "
            f"{subject} again."
        ) from error
    serving = [
        each for each in message.meta_graphs if _SERVE in each.meta_info_def.tags
    ]
    if not serving:
        raise DataError(
            f"'{file}' has no graph that is tagged '{_SERVE}'. Let the producer of "
            f"{subject} export one for serving."
        )
    return serving[0]


def outputs_of_signatures(subject: str, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of what each signature of a SavedModel gives.

    Args:
        subject: What the model is called in texts.
        folder: The folder of the SavedModel.

    Raises:
        DataError: If there is none.
    """
    exported = _exported(subject, _meta_graph(subject, folder / "saved_model.pb"))
    return {name: tuple(sorted(each.outputs)) for name, each in exported.items()}


def _exported(subject: str, graph: Any) -> dict[str, _Exported]:
    return {
        name: _Exported(name, dict(signature.inputs), dict(signature.outputs))
        for name, signature in graph.signature_def.items()
        if not name.startswith("__")
    }


def _named(
    subject: str, found: Mapping[str, _Exported], name: str, field: str
) -> _Exported:
    if name not in found:
        raise DataError(
            f"{subject} has no signature '{name}' (it has {quoted(found)})."
            f"{did_you_mean(name, found)} Export it with that signature, or set "
            f"{field} in the ModelSpec."
        )
    return found[name]


def _call(subject: str, exported: _Exported, graph: Any, schema: pa.Schema) -> Call:
    """Return how a signature is called with columns.

    Raises:
        DataError: If it takes what the data does not have.
    """
    subject = f"Signature '{exported.name}' of {subject}"
    arguments = list(_arguments(subject, exported, schema))
    missing = [each.names[0] for each in arguments if not each.column]
    if missing and len(arguments) == 1 and _holds_records(arguments[0]):
        return _call_with_examples(subject, exported, graph, arguments[0], schema)
    if missing:
        raise DataError(
            f"{subject} takes {quoted(missing)}, which the data does not have (it has "
            f"{quoted(schema.names)}).{near_misses(missing, schema.names)} Export the "
            "model with a signature that takes the columns, or serialized tf.Examples."
        )
    _check_types(subject, arguments, schema)
    return Call(exported.name, tuple(arguments))


def _holds_records(argument: Argument) -> bool:
    return (argument.form, argument.dtype, argument.shape) == ("dense", "string", ())


def _arguments(
    subject: str, exported: _Exported, schema: pa.Schema
) -> Iterator[Argument]:
    """Yield what a signature takes, with columns where the data has them."""
    specs = {
        name: _spec(subject, name, tensor) for name, tensor in exported.inputs.items()
    }
    left = dict(sorted(specs.items()))
    while left:
        name, (dtype, shape) = next(iter(left.items()))
        names, form, split_dtype = _form(name, left, schema)
        if form != "dense":
            dtype = left[names[form == "sparse"]][0]
        for each in names:
            del left[each]
        if form == "dense" and shape.count(None) > 1:
            raise DataError(
                f"{subject} takes '{name}' in the shape {(None, *shape)}, and lists do "
                "not tell more than one size. Export the model with fixed sizes, or "
                "with a signature that takes serialized tf.Examples."
            )
        yield Argument(
            names, form, dtype, shape, _column(name, schema.names), split_dtype
        )


def _spec(subject: str, name: str, tensor: Any) -> tuple[str, tuple[int | None, ...]]:
    """Return type and shape, but for the batch, of a tensor that is fed."""
    import tensorflow as tf

    if tensor.WhichOneof("encoding") != "name":
        raise DataError(
            f"{subject} takes '{name}' as a composite tensor of TensorFlow 1, which "
            "cannot be fed. Export the model with TensorFlow 2."
        )
    sizes = (each.size for each in tensor.tensor_shape.dim[1:])
    shape = tuple(None if size < 0 else size for size in sizes)
    return tf.as_dtype(tensor.dtype).name, shape


def _form(
    name: str, specs: Mapping[str, tuple[str, Any]], schema: pa.Schema
) -> tuple[tuple[str, ...], Form, str]:
    """Return the tensors that a name stands for, what they are, and the splits' type.

    TensorFlow names the parts of a sparse or ragged tensor `x`, `x_1` and `x_2`.
    """
    second, third = f"{name}_1", f"{name}_2"
    if second in specs and not {second, third} & set(schema.names):
        kind, shape = specs[second]
        if third in specs and specs[name] == ("int64", (2,)) and shape == ():
            return (name, second, third), "sparse", ""
        if specs[name][1] == () and shape == () and kind in ("int64", "int32"):
            return (name, second), "ragged", kind
    return (name,), "dense", ""


def _column(argument: str, columns: Collection[str]) -> str:
    """Return the column that an argument is, or nothing."""
    short = argument.removesuffix(_KERAS_SUFFIX)
    return next((name for name in (argument, short) if name in columns), "")


def _check_types(
    subject: str, arguments: Iterable[Argument], schema: pa.Schema
) -> None:
    """Check that columns have types that tensors can hold."""
    wrong = [
        (argument.names[0], argument.dtype, argument.column)
        for argument in arguments
        if not _fits(argument, schema.field(argument.column).type)
    ]
    if wrong:
        raise _wrong_types(f"{subject} takes", wrong, schema)


def _wrong_types(
    begin: str, wrong: Iterable[tuple[str, str, str]], schema: pa.Schema
) -> DataError:
    each = "; ".join(
        f"'{name}' as {dtype}, and column '{column}' is {schema.field(column).type}"
        for name, dtype, column in wrong
    )
    return DataError(
        f"{begin} {each}. Export the model with the type that the data has, or convert "
        "the column before ingestion."
    )


def _fits(argument: Argument, kind: pa.DataType) -> bool:
    if is_list(kind):
        kind = kind.value_type
    types = pa.types
    if types.is_null(kind):
        return argument.form != "dense"
    if argument.dtype == "string":
        return bool(
            types.is_string(kind)
            or types.is_large_string(kind)
            or types.is_binary(kind)
            or types.is_large_binary(kind)
        )
    if argument.dtype.startswith(("float", "bfloat")) and types.is_floating(kind):
        return True
    return bool(types.is_integer(kind) or types.is_boolean(kind))


def _call_with_examples(
    subject: str,
    exported: _Exported,
    graph: Any,
    argument: Argument,
    schema: pa.Schema,
) -> Call:
    parsed = parsing.parsed_features(
        graph,
        exported.inputs[argument.names[0]].name,
        [each.name for each in exported.outputs.values()],
    )
    missing = [
        each.name
        for each in parsed or ()
        if each.is_required and each.name not in schema.names
    ]
    if missing:
        raise DataError(
            f"{subject} parses {quoted(missing)} from tf.Examples, without a default, "
            f"and the data does not have them (it has {quoted(schema.names)})."
            f"{near_misses(missing, schema.names)} Ingest the columns, or give the "
            "features a default_value where the model parses them."
        )
    taken = dataclasses.replace(argument, form="examples")
    return Call(exported.name, (taken,), parsed=parsed)


def _tfma_call(subject: str, function: str, column: str, schema: pa.Schema) -> Call:
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
    _check_types(f"TFMA's function '{function}' of {subject}", [argument], schema)
    return Call(function, (argument,), is_of_tfma=True)


# The loaded model.


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
            self._model = tf.saved_model.load(source.folder, tags=[_SERVE])
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
            return _wrong_types(f"{name} parses", wrong, rows.batch.schema)

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


def first_failing(fails: Callable[[int, int], bool], count: int) -> int | None:
    """Return the first of some rows that fails, by halves.

    Args:
        fails: Whether the rows from one number to before another fail.
        count: How many rows there are; together they fail.

    Returns:
        The number of the row, from 0; None if rows fail only together.
    """
    start, stop = 0, count
    while stop - start > 1:
        middle = (start + stop) // 2
        if fails(start, middle):
            stop = middle
        elif fails(middle, stop):
            start = middle
        else:
            return None
    return start


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
