"""What the signatures of a SavedModel take, and which columns of the data that is.

Seen from the SavedModel's message, without loading the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from penstock.components.columns import parsing
from penstock.components.columns.forms import is_list
from penstock.schemas.errors import DataError, did_you_mean, near_misses, quoted

Form: TypeAlias = Literal["examples", "dense", "sparse", "ragged"]

SERVE = "serve"
"""The tag of the graph that serves."""

_KERAS_SUFFIX = "_input"  # what Keras 2 appends to the names of inputs


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

    @property
    def required(self) -> set[str]:
        """The columns that become dense tensors, in or out of tf.Examples."""
        dense = {each.column for each in self.arguments if each.form == "dense"}
        return dense | {each.name for each in self.parsed or () if each.is_required}


class Signatures:
    """The signatures of a SavedModel.

    Args:
        subject: What the model is called in texts.
        folder: The folder of the SavedModel.

    Attributes:
        outputs: Names of what each signature gives.

    Raises:
        DataError: If there is no SavedModel.
    """

    def __init__(self, subject: str, folder: Path) -> None:
        self._subject = subject
        graph = serving_graph(subject, folder)
        self._graph = graph.graph_def
        self._found = {
            name: signature
            for name, signature in graph.signature_def.items()
            if not name.startswith("__")
        }
        self.outputs = {
            name: tuple(sorted(each.outputs)) for name, each in self._found.items()
        }

    def call(self, name: str, schema: pa.Schema, field: str) -> Call:
        """Return how a signature is called with columns.

        Args:
            name: Name of the signature.
            schema: The columns.
            field: What in the ModelSpec names it, for texts.

        Raises:
            DataError: If there is no such signature, or it takes what the data does
                not have.
        """
        if name not in self._found:
            raise DataError(
                f"{self._subject} has no signature '{name}' (it has "
                f"{quoted(self._found)}).{did_you_mean(name, self._found)} Export it "
                f"with that signature, or set {field} in the ModelSpec."
            )
        signature = self._found[name]
        subject = f"Signature '{name}' of {self._subject}"
        arguments = list(_arguments(subject, signature, schema))
        missing = [each.names[0] for each in arguments if not each.column]
        if missing and len(arguments) == 1 and _holds_records(arguments[0]):
            (argument,) = arguments
            parsed = _parsed(subject, signature, self._graph, schema)
            taken = dataclasses.replace(argument, form="examples")
            return Call(name, (taken,), parsed=parsed)
        if missing:
            raise DataError(
                f"{subject} takes {quoted(missing)}, which the data does not have (it "
                f"has {quoted(schema.names)}).{near_misses(missing, schema.names)} "
                "Export the model with a signature that takes the columns, or "
                "serialized tf.Examples."
            )
        check_types(subject, arguments, schema)
        return Call(name, tuple(arguments))


def serving_graph(subject: str, folder: Path) -> Any:
    """Return the graph of a SavedModel that serves, a MetaGraphDef.

    Args:
        subject: What the model is called in texts.
        folder: The folder of the SavedModel.

    Raises:
        DataError: If there is no SavedModel, or no such graph in it.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
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
    serving = [each for each in message.meta_graphs if SERVE in each.meta_info_def.tags]
    if not serving:
        raise DataError(
            f"'{file}' has no graph that is tagged '{SERVE}'. Let the producer of "
            f"{subject} export one for serving."
        )
    return serving[0]


def _holds_records(argument: Argument) -> bool:
    return (argument.form, argument.dtype, argument.shape) == ("dense", "string", ())


def _arguments(subject: str, signature: Any, schema: pa.Schema) -> Iterator[Argument]:
    """Yield what a signature takes, with columns where the data has them."""
    specs = {
        name: _spec(subject, name, tensor) for name, tensor in signature.inputs.items()
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


def check_types(subject: str, arguments: Iterable[Argument], schema: pa.Schema) -> None:
    """Check that columns have types that tensors can hold.

    Args:
        subject: What takes the tensors, in texts.
        arguments: What it takes, all of it columns.
        schema: The columns.

    Raises:
        DataError: If one cannot become what is taken.
    """
    wrong = [
        (argument.names[0], argument.dtype, argument.column)
        for argument in arguments
        if not _fits(argument, schema.field(argument.column).type)
    ]
    if wrong:
        raise wrong_types(f"{subject} takes", wrong, schema)


def wrong_types(
    begin: str, wrong: Iterable[tuple[str, str, str]], schema: pa.Schema
) -> DataError:
    """Return the error that says that columns have other types than a model takes.

    Args:
        begin: Subject and verb of the sentence.
        wrong: Name, type that is wanted, and column of each input.
        schema: The columns.
    """
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


def _parsed(
    subject: str, signature: Any, graph: Any, schema: pa.Schema
) -> tuple[parsing.Parsed, ...] | None:
    """Return what a signature parses from tf.Examples, where that is known."""
    (records,) = signature.inputs.values()
    outputs = [each.name for each in signature.outputs.values()]
    parsed = parsing.parsed_features(graph, records.name, outputs)
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
    return parsed
