"""JSON of TensorFlow Serving's REST API to a PredictRequest and back, by NumPy.

What is legal is what TensorFlow Serving takes: `instances` in rows or `inputs` in
columns, `{"b64": ...}` for bytes, numbers that keep their value; but whole numbers of
8 and 16 bits that do not fit are refused, where it cuts them off. The sentences are
ours.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.components.serving.messages import (
    DataType,
    Message,
    PredictRequest,
    to_array,
    to_tensor,
)
from penstock.schemas.errors import DataError, did_you_mean, quoted

DEFAULT_SIGNATURE = "serving_default"

_BYTES_SUFFIX = "_bytes"  # strings of outputs named so are bytes
_MAX_SHOWN = 100

_INTEGERS: dict[str, np.dtype[Any]] = {
    f"DT_{sign}INT{bits}": np.dtype(f"{sign}int{bits}".lower())
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
_DECIMALS: dict[str, np.dtype[Any]] = {
    "DT_HALF": np.dtype(np.float16),
    "DT_FLOAT": np.dtype(np.float32),
    "DT_DOUBLE": np.dtype(np.float64),
}

Inputs = Mapping[str, Message]
"""The TensorInfo of every input of a signature, by name."""


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds.

    Raises:
        DataError: It is none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The body is no JSON: {error}. Send a JSON object in UTF-8."
        ) from error
    if not isinstance(document, dict):
        raise DataError(
            f"The body is {_shown(document)}, no JSON object. Send an object with "
            "'instances' or 'inputs'."
        )
    return document


def signature_name(document: Mapping[str, Any], legal: Sequence[str]) -> str:
    """Return the signature that a request names, or the default one.

    Raises:
        DataError: There is no such signature.
    """
    name = document.get("signature_name") or DEFAULT_SIGNATURE
    if name not in legal:
        raise DataError(
            f"The model has no signature {_shown(name)} (it has {quoted(legal)})."
            f"{did_you_mean(str(name), legal)}"
        )
    return str(name)


def request_of(
    document: Mapping[str, Any], signature: str, inputs: Inputs
) -> tuple[PredictRequest, bool]:
    """Return a request, and whether its answer has to be in rows.

    Args:
        document: The body.
        signature: Name of the signature.
        inputs: Its inputs.

    Raises:
        DataError: The body does not fit them.
    """
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        has = "has both 'instances' and 'inputs'"
        if not given:
            has = f"has neither 'instances' nor 'inputs' (it has {quoted(document)})"
        raise DataError(f"The body {has}. Send one of the two.")
    rows = given == ["instances"]
    columns = (_columns_of_rows if rows else _columns)(document[given[0]], inputs)
    request = PredictRequest()
    request.model_spec.signature_name = signature
    for name, value in columns.items():
        request.inputs[name].CopyFrom(to_tensor(_array(name, value, inputs[name])))
    return request, rows


def _columns(value: Any, inputs: Inputs) -> dict[str, Any]:
    if not _is_object(value):
        value = {_only(inputs, "'inputs'"): value}
    # Names beyond those of the signature are ignored, as TensorFlow Serving does here.
    _check_all_there("'inputs'", value, inputs)
    return {name: value[name] for name in inputs}


def _columns_of_rows(rows: Any, inputs: Inputs) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"'instances' is {_shown(rows)}, where a list of at least one instance is "
            "needed. Send one element for each."
        )
    if not _is_object(rows[0]):
        name = _only(inputs, "'instances'")
        for i, row in enumerate(rows):
            if _is_object(row):
                raise DataError(
                    f"Instance {i} is an object where instance 0 is none. Send all of "
                    "them alike."
                )
        return {name: rows}
    for i, row in enumerate(rows):
        if not _is_object(row):
            raise DataError(
                f"Instance {i} is no object where instance 0 is one. Send all of them "
                "alike."
            )
        for name in row:
            if name not in inputs:
                raise DataError(
                    f"Instance {i} has '{name}', which is no input of the signature "
                    f"(it has {quoted(inputs)}).{did_you_mean(name, inputs)}"
                )
        _check_all_there(f"Instance {i}", row, inputs)
    return {name: [row[name] for row in rows] for name in inputs}


def _only(inputs: Inputs, what: str) -> str:
    if len(inputs) != 1:
        raise DataError(
            f"{what} holds plain values, but the signature has several inputs: "
            f"{quoted(inputs)}. Send an object that names them."
        )
    return next(iter(inputs))


def _check_all_there(what: str, given: Mapping[str, Any], inputs: Inputs) -> None:
    missing = [name for name in inputs if name not in given]
    if missing:
        raise DataError(f"{what} lacks {quoted(missing)}. Send all inputs.")


def _is_base64(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and list(value) == ["b64"]
        and isinstance(value["b64"], str)
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _array(name: str, value: Any, info: Message) -> npt.NDArray[Any]:
    flat, shape = _flat(name, value)
    kind = str(DataType.Name(info.dtype))
    kinds = set(map(type, flat))
    if kind in _DECIMALS and kinds <= {int, float}:
        made = _decimals(name, flat, kinds, _DECIMALS[kind])
    elif kind in _INTEGERS and kinds <= {int}:
        made = _integers(name, flat, _INTEGERS[kind])
    elif kind == "DT_BOOL" and kinds <= {bool}:
        made = np.array(flat, np.bool_)
    elif kind == "DT_STRING" and kinds <= {str, dict}:
        made = np.empty(len(flat), object)
        made[:] = [_text(name, each) for each in flat]
    else:
        if kind not in (*_DECIMALS, *_INTEGERS, "DT_BOOL", "DT_STRING"):
            raise DataError(
                f"'{name}' is of type {kind}, which JSON cannot say. Send it by gRPC."
            )
        wanted = "numbers"
        if kind in _INTEGERS:
            wanted = "whole numbers"
        elif kind not in _DECIMALS:
            wanted = "booleans" if kind == "DT_BOOL" else "texts"
        wrong = next(each for each in flat if type(each) not in _LEGAL[wanted])
        raise DataError(
            f"'{name}' holds {_shown(wrong)} where {wanted} ({kind}) are needed. Send "
            "those."
        )
    return made.reshape(shape)


_LEGAL: dict[str, tuple[type, ...]] = {
    "numbers": (int, float),
    "whole numbers": (int,),
    "booleans": (bool,),
    "texts": (str, dict),
}


def _flat(name: str, value: Any) -> tuple[list[Any], list[int]]:
    """Return the values of nested lists, and the shape that they have in common."""
    flat = [value]
    shape: list[int] = []
    while flat and all(type(each) is list for each in flat):
        sizes = set(map(len, flat))
        if len(sizes) > 1:
            raise DataError(
                f"'{name}' has lists of {min(sizes)} and of {max(sizes)} elements at "
                f"depth {len(shape)}, which make no tensor. Send lists of one length."
            )
        shape.append(sizes.pop())
        flat = list(itertools.chain.from_iterable(flat))
    if any(type(each) is list for each in flat):
        raise DataError(
            f"'{name}' has lists beside values at depth {len(shape)}, which make no "
            "tensor. Send lists of one depth."
        )
    return flat, shape


def _decimals(
    name: str, flat: list[Any], kinds: set[type], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    # A fraction is rounded without a word; a whole number that would be another one
    # is not, nor what would become infinite.
    whole = (2 ** (np.finfo(dtype).nmant + 1)) - 1
    if int in kinds:
        for each in flat:
            if type(each) is int and abs(each) > whole:
                raise _lossy(name, each, dtype)
    made = np.array(flat, np.float64)
    with np.errstate(over="ignore"):
        narrow = made.astype(dtype)
    wrong = np.isinf(narrow) & np.isfinite(made)
    if wrong.any():
        raise _lossy(name, float(made[wrong][0]), dtype)
    return narrow


def _integers(name: str, flat: list[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    if flat and not (limits.min <= min(flat) and max(flat) <= limits.max):
        wrong = next(each for each in flat if not limits.min <= each <= limits.max)
        raise _lossy(name, wrong, dtype)
    return np.array(flat, dtype)


def _lossy(name: str, value: float, dtype: np.dtype[Any]) -> DataError:
    return DataError(
        f"'{name}' holds {_shown(value)}, which is no {dtype}. Send numbers that are."
    )


def _text(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not _is_base64(value):
        raise DataError(
            f"'{name}' holds {_shown(value)} where texts are needed. Send a text, or "
            'bytes as {"b64": "..."}.'
        )
    text = value["b64"]
    try:
        # Padding may be left out, as TensorFlow Serving allows.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            f"'{name}' holds {_shown(value)}, which is no base64. Encode the bytes "
            "anew."
        ) from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


# --- answers


def answer_of(outputs: Mapping[str, Message], *, rows: bool) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Args:
        outputs: The tensors by name.
        rows: Whether it has to be in rows.

    Raises:
        DataError: It cannot be in rows, or a tensor is of a type JSON cannot say.
    """
    arrays = {name: to_array(outputs[name], name) for name in sorted(outputs)}
    if rows:
        sizes = {
            name: array.shape[0] if array.ndim else None
            for name, array in arrays.items()
        }
        if None in sizes.values() or len(set(sizes.values())) != 1:
            listed = ", ".join(
                f"'{name}' {list(array.shape)}" for name, array in arrays.items()
            )
            raise DataError(
                "The outputs have no batch dimension in common, so they cannot be in "
                f"rows: {listed or 'none'}. Send 'inputs' in place of 'instances'."
            )
    values = {name: _values(name, array) for name, array in arrays.items()}
    if not rows:
        return {"outputs": values if len(values) != 1 else next(iter(values.values()))}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [
            dict(zip(values, row, strict=True))
            for row in zip(*values.values(), strict=True)
        ]
    }


def _values(name: str, array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind == "c":
        raise DataError(
            f"Output '{name}' is of type {array.dtype}, which JSON cannot say. Ask for "
            "it by gRPC."
        )
    if array.dtype.kind == "O":
        encode = _base64 if name.endswith(_BYTES_SUFFIX) else _readable
        made = np.empty(array.shape, object)
        made.ravel()[:] = [encode(each) for each in array.ravel().tolist()]
        return made.tolist()
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        # The double of fewest digits that is the same float: 0.1 stays 0.1.
        return array.astype("U32").astype(np.float64).tolist()
    return array.tolist()


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _readable(value: bytes) -> str:
    return value.decode("utf-8", "replace")
