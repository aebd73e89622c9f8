"""What an expression is made of: `kind` finds out whether types fit, `values` computes.

Types are found out from those of the columns alone, before there are rows. Values are
pyarrow arrays of bool, int64, float32, float64, string or null, without NaN; what is
the same for every row is a scalar. `values` relies on types that fit.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NoReturn, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.forms import (
    as_text,
    is_list,
    list_parts,
    plain_type,
)
from penstock.schemas.errors import DataError

Kind: TypeAlias = Literal["boolean", "number", "text", "missing"]
Value: TypeAlias = Any
"""A pyarrow Array of all rows, or a Scalar that holds for each of them."""

INT64 = np.iinfo(np.int64)

TRUTH = ("false", "true")
_KINDS = {
    "boolean": "true or false",
    "number": "a number",
    "text": "text",
    "missing": "missing in every row",
}
_WANTED = {"boolean": "what is true or false", "number": "numbers", "text": "text"}
_CURES = {
    "boolean": "Compare it with something.",
    "number": "Compute with columns of numbers.",
    "text": "Use a column of text.",
}


def plain_values(array: pa.Array, name: str) -> pa.Array:
    """Return values in one of the types that expressions know.

    Args:
        array: Values, not lists.
        name: Of their column.

    Returns:
        As many values: bool, int64, float32, float64, string or null. Dates and times
        become their ISO text, decimals floats, and NaN null.

    Raises:
        DataError: If the type is another, an integer does not fit, or text is not
            UTF-8.
    """
    kind = known_kind(array.type, name)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_date(array.type) or _is_time(array.type):
        return as_text(array)
    try:
        return _without_nan(array.cast(_plain_type(kind, array.type)))
    except pa.ArrowInvalid as error:
        why = (
            "text that is not UTF-8"
            if kind == "text"
            else "an integer beyond 9,223,372,036,854,775,807, the greatest"
        )
        raise DataError(
            f"Column '{name}' has {why}. Mend or convert it before ingestion."
        ) from error


def with_one_zero(array: pa.Array) -> pa.Array:
    """Return an array with 0.0 for -0.0, which hash tables tell from one another."""
    if not pa.types.is_floating(array.type):
        return array
    return pc.add(array, pa.scalar(0.0, array.type))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_time(kind) or pa.types.is_timestamp(kind))


def kind_of(kind: pa.DataType) -> Kind | None:
    """Return what values of a column are; None if nothing that expressions know."""
    types = pa.types
    kind = plain_type(kind)
    while is_list(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return "boolean"
    if types.is_null(kind):
        return "missing"
    if types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind):
        return "number"
    if types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "text"
    if types.is_fixed_size_binary(kind) or types.is_date(kind) or _is_time(kind):
        return "text"
    return None


def known_kind(kind: pa.DataType, name: str) -> Kind:
    """Return what values of a column are.

    Raises:
        DataError: If they are nothing that expressions know.
    """
    found = kind_of(kind)
    if found is None:
        raise DataError(
            f"Column '{name}' has the type {kind}, which is no number, no text and no "
            "truth value. Convert it before ingestion, or leave it out."
        )
    return found


def _plain_type(kind: Kind, given: pa.DataType) -> pa.DataType:
    if kind == "text":
        return pa.string()
    if pa.types.is_integer(given):
        return pa.int64()
    return pa.float64() if pa.types.is_decimal(given) else given


def _without_nan(value: Value) -> Value:
    """Return the value with null for NaN."""
    if not pa.types.is_floating(value.type):
        return value
    missing = pa.scalar(None, value.type)
    wrong = pc.is_nan(value)
    if isinstance(value, pa.Scalar):
        return missing if wrong.as_py() else value
    return pc.if_else(wrong, missing, value) if pc.any(wrong).as_py() else value


def line(text: str) -> str:
    """Return a text in one line, each character at its place."""
    return re.sub(r"[\s\x00-\x1f\x7f]", " ", text)


def shown(text: str, position: int, sentence: str) -> str:
    """Return a sentence about a place in a text, which is pointed at below."""
    return f"{sentence}\n    {line(text)}\n    {' ' * position}^"


@dataclasses.dataclass(frozen=True)
class Scope:
    """Where types are checked: the text, and the kinds of its columns."""

    text: str
    kinds: Mapping[str, Kind | None]

    def quote(self, node: Node) -> str:
        return f"'{line(self.text[node.start : node.end])}'"

    def refuse(self, position: int, what: str) -> NoReturn:
        raise DataError(
            shown(self.text, position, f"Expression '{line(self.text)}' {what}")
        )

    def require(self, node: Node, wanted: Kind, taker: str) -> None:
        """Refuse an operand that is something else than wanted."""
        kind = node.kind(self)
        if kind not in (wanted, "missing"):
            self.refuse(
                node.start,
                f"uses '{taker}' on {self.quote(node)}, which is {_KINDS[kind]}; it "
                f"takes {_WANTED[wanted]}. {_CURES[wanted]}",
            )


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where values are computed: the text, the rows, and columns already read."""

    text: str
    batch: pa.RecordBatch
    read: dict[str, pa.Array]

    def array(self, value: Value) -> pa.Array:
        """Return a value of every row."""
        if isinstance(value, pa.Scalar):
            return pa.repeat(value, self.batch.num_rows)
        return value

    def column(self, name: str) -> pa.Array:
        if name not in self.read:
            found = self._one_each(self.batch.column(name), name)
            self.read[name] = plain_values(found, name)
        return self.read[name]

    def _one_each(self, array: pa.Array, name: str) -> pa.Array:
        """Return the only value of each row's list, if it is a list."""
        if not is_list(array.type):
            return array
        lengths, values, _ = list_parts(array)
        if (lengths > 1).any():
            raise DataError(
                f"Column '{name}' has a row with {lengths.max():,} values, and "
                f"expression '{line(self.text)}' takes one of each row. Slice by the "
                f"column itself: feature_keys=['{name}']."
            )
        places = pa.array(np.cumsum(lengths) - 1, mask=lengths == 0)
        return self._one_each(values.take(places), name)

    def overflow(self, node: Node) -> DataError:
        return DataError(
            shown(
                self.text,
                node.start,
                f"Expression '{line(self.text)}' computes a whole number beyond "
                f"{INT64.max:,}, the greatest. Multiply by 1.0 to compute with "
                "floats.",
            )
        )


@dataclasses.dataclass(frozen=True)
class Node(abc.ABC):
    """A part of an expression, and where it stands in the text."""

    start: int
    end: int
    operands: tuple[Node, ...] = ()

    @property
    def results(self) -> tuple[str, ...]:
        return ()

    @abc.abstractmethod
    def kind(self, scope: Scope) -> Kind:
        """Return what the values are; refuse operands that do not fit."""

    @abc.abstractmethod
    def values(self, rows: Rows) -> Value:
        """Return the values of the rows."""


class _Truth(Node):
    """A part that is true or false."""

    @property
    def results(self) -> tuple[str, ...]:
        return TRUTH


@dataclasses.dataclass(frozen=True)
class Constant(Node):
    value: bool | int | float | str = 0

    def kind(self, scope: Scope) -> Kind:
        if isinstance(self.value, bool):
            return "boolean"
        return "text" if isinstance(self.value, str) else "number"

    def values(self, rows: Rows) -> Value:
        return pa.scalar(self.value)


@dataclasses.dataclass(frozen=True)
class Column(Node):
    name: str = ""

    def kind(self, scope: Scope) -> Kind:
        kind = scope.kinds[self.name]
        if kind is None:
            scope.refuse(
                self.start,
                f"reads the column '{self.name}', which is no number, no text and no "
                "truth value. Use another column.",
            )
        return kind

    def values(self, rows: Rows) -> Value:
        return rows.column(self.name)


@dataclasses.dataclass(frozen=True)
class Junction(_Truth):
    """Operands joined by `and`, or by `or`."""

    word: str = "and"

    def kind(self, scope: Scope) -> Kind:
        for each in self.operands:
            scope.require(each, "boolean", self.word)
        return "boolean"

    def values(self, rows: Rows) -> Value:
        join = pc.and_kleene if self.word == "and" else pc.or_kleene
        found = (_as(pa.bool_(), each.values(rows)) for each in self.operands)
        return functools.reduce(join, found)


class Not(_Truth):
    def kind(self, scope: Scope) -> Kind:
        scope.require(self.operands[0], "boolean", "not")
        return "boolean"

    def values(self, rows: Rows) -> Value:
        return pc.invert(_as(pa.bool_(), self.operands[0].values(rows)))


COMPARISONS = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}


@dataclasses.dataclass(frozen=True)
class Comparison(_Truth):
    """A chain, such as `5 < fare <= 10`: every neighboring pair compares so."""

    signs: tuple[str, ...] = ()

    def kind(self, scope: Scope) -> Kind:
        kinds = [each.kind(scope) for each in self.operands]
        pairs = zip(self.signs, self.operands, self.operands[1:], strict=False)
        for (sign, one, other), left, right in zip(
            pairs, kinds, kinds[1:], strict=False
        ):
            if "missing" in (left, right):
                continue
            if left != right:
                scope.refuse(
                    other.start,
                    f"compares {scope.quote(one)}, which is {_KINDS[left]}, with "
                    f"{scope.quote(other)}, which is {_KINDS[right]}. Compare like "
                    "with like: numbers stand without quotes, text in quotes, and "
                    "truth values are true and false.",
                )
            if left == "boolean" and sign not in ("==", "!="):
                scope.refuse(
                    other.start,
                    f"orders {scope.quote(one)} and {scope.quote(other)} by '{sign}', "
                    "and they are true or false. Compare them with == or !=.",
                )
        return "boolean"

    def values(self, rows: Rows) -> Value:
        found = [each.values(rows) for each in self.operands]
        return functools.reduce(
            pc.and_kleene,
            (
                _compared(sign, one, other)
                for sign, one, other in zip(self.signs, found, found[1:], strict=False)
            ),
        )


def _compared(sign: str, one: Value, other: Value) -> Value:
    if pa.types.is_null(one.type) or pa.types.is_null(other.type):
        return pa.scalar(None, pa.bool_())
    kind = _common_type(one, other)
    return pc.call_function(COMPARISONS[sign], [_as(kind, one), _as(kind, other)])


def _common_type(one: Value, other: Value) -> pa.DataType:
    """Return the type in which two values are compared.

    A literal is as narrow as the column beside it, so that the 32-bit floats of a
    tf.Example equal the decimals that they were written as.
    """
    if one.type == other.type:
        return one.type
    if _is_narrow(one, other) or _is_narrow(other, one):
        return pa.float32()
    return pa.float64()


def _is_narrow(column: Value, literal: Value) -> bool:
    return bool(
        pa.types.is_float32(column.type)
        and pa.types.is_float64(literal.type)
        and isinstance(literal, pa.Scalar)
    )


def _as(kind: pa.DataType, value: Value) -> Value:
    """Return a value in another type; large integers become the nearest float."""
    return value if value.type == kind else pc.cast(value, kind, safe=False)


@dataclasses.dataclass(frozen=True)
class Among(_Truth):
    """`operand in (…)`."""

    members: tuple[Constant, ...] = ()

    def kind(self, scope: Scope) -> Kind:
        kind = self.operands[0].kind(scope)
        for each in self.members:
            if kind not in (each.kind(scope), "missing"):
                scope.refuse(
                    each.start,
                    f"looks for {scope.quote(self.operands[0])}, which is "
                    f"{_KINDS[kind]}, among values of which {scope.quote(each)} is "
                    f"{_KINDS[each.kind(scope)]}. Compare like with like.",
                )
        return "boolean"

    def values(self, rows: Rows) -> Value:
        found = with_one_zero(rows.array(self.operands[0].values(rows)))
        if pa.types.is_null(found.type):
            return pa.scalar(None, pa.bool_())
        members: list[Any] = [each.value for each in self.members]
        if pa.types.is_int64(found.type):
            members = [int(each) for each in members if _is_int64(each)]
        legal = with_one_zero(pa.array(members, found.type))
        isin = pc.is_in(found, value_set=legal)
        return pc.if_else(pc.is_valid(found), isin, pa.scalar(None, pa.bool_()))


def _is_int64(value: float) -> bool:
    return int(value) == value and INT64.min <= value <= INT64.max


@dataclasses.dataclass(frozen=True)
class InRange(_Truth):
    """`operand in range(start, stop, step)`, of whole numbers, as in Python."""

    range: range = range(0)

    def kind(self, scope: Scope) -> Kind:
        scope.require(self.operands[0], "number", "in range")
        return "boolean"

    def values(self, rows: Rows) -> Value:
        found = rows.array(self.operands[0].values(rows))
        if pa.types.is_null(found.type):
            return pa.scalar(None, pa.bool_())
        missing = pc.is_null(found).to_numpy(zero_copy_only=False)
        numbers = found.fill_null(0).to_numpy(zero_copy_only=False)
        return pa.array(self._has(numbers), mask=missing)

    def _has(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not self.range:
            return np.zeros(len(numbers), bool)
        lowest, highest = sorted((self.range[0], self.range[-1]))
        whole = np.ones(len(numbers), bool)
        if numbers.dtype.kind == "f":
            # 2 ** 63, the first float beyond 64-bit integers.
            whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < 2.0**63)
            numbers = np.where(whole, numbers, 0).astype(np.int64)
        step = abs(self.range.step)
        inside = (lowest <= numbers) & (numbers <= highest)
        # Remainders, because a difference could be larger than 64 bits hold.
        found: np.ndarray[Any, Any] = whole & inside & (numbers % step == lowest % step)
        return found


class IsMissing(_Truth):
    def kind(self, scope: Scope) -> Kind:
        self.operands[0].kind(scope)
        return "boolean"

    def values(self, rows: Rows) -> Value:
        return pc.is_null(self.operands[0].values(rows))


@dataclasses.dataclass(frozen=True)
class Arithmetic(Node):
    """Sums and differences, or products and quotients, from left to right."""

    signs: tuple[str, ...] = ()

    def kind(self, scope: Scope) -> Kind:
        signs = (self.signs[0], *self.signs)
        for sign, each in zip(signs, self.operands, strict=True):
            scope.require(each, "number", sign)
        return "number"

    def values(self, rows: Rows) -> Value:
        first, *others = (each.values(rows) for each in self.operands)
        for sign, other in zip(self.signs, others, strict=True):
            try:
                first = _computed(sign, first, other, rows)
            except (pa.ArrowInvalid, OverflowError) as error:
                raise rows.overflow(self) from error
        return first


_EXACT = {"+": "add_checked", "-": "subtract_checked", "*": "multiply_checked"}
_FLOATING = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
_FLOORED: dict[str, Callable[..., Any]] = {"//": np.floor_divide, "%": np.remainder}


def _computed(sign: str, left: Value, right: Value, rows: Rows) -> Value:
    if pa.types.is_null(left.type) or pa.types.is_null(right.type):
        return pa.scalar(None, pa.int64())
    is_whole = pa.types.is_int64(left.type) and pa.types.is_int64(right.type)
    if sign in _EXACT and is_whole:
        return pc.call_function(_EXACT[sign], [left, right])
    if sign == "/" or not is_whole:
        left, right = _as(pa.float64(), left), _as(pa.float64(), right)
    if sign in ("/", "//", "%"):
        zero = pc.equal(right, pa.scalar(0, right.type))
        right = pc.if_else(zero, pa.scalar(None, right.type), right)
    if sign in _FLOORED:
        return _floored(sign, rows.array(left), rows.array(right))
    return _without_nan(pc.call_function(_FLOATING[sign], [left, right]))


def _floored(sign: str, left: pa.Array, right: pa.Array) -> pa.Array:
    """Return quotients rounded down, or remainders with the sign of the divisor."""
    missing = pc.or_(pc.is_null(left), pc.is_null(right))
    one, other = (
        each.fill_null(1).to_numpy(zero_copy_only=False) for each in (left, right)
    )
    if one.dtype.kind == "i" and ((one == INT64.min) & (other == -1)).any():
        raise OverflowError
    with np.errstate(all="ignore"):
        found = _FLOORED[sign](one, other)
    return _without_nan(
        pa.array(found, left.type, mask=missing.to_numpy(zero_copy_only=False))
    )


class _OneNumber(Node):
    """A number computed from one."""

    name: ClassVar[str]
    function: ClassVar[str]

    def kind(self, scope: Scope) -> Kind:
        scope.require(self.operands[0], "number", self.name)
        return "number"

    def values(self, rows: Rows) -> Value:
        found = self.operands[0].values(rows)
        if pa.types.is_null(found.type):
            return found
        if pa.types.is_floating(found.type):
            return pc.call_function(self.function, [found])
        try:
            return pc.call_function(f"{self.function}_checked", [found])
        except pa.ArrowInvalid as error:
            raise rows.overflow(self) from error


class Negation(_OneNumber):
    """`-operand`."""

    name = "-"
    function = "negate"


class Absolute(_OneNumber):
    """`abs(operand)`."""

    name = function = "abs"


class Lower(Node):
    def kind(self, scope: Scope) -> Kind:
        scope.require(self.operands[0], "text", "lower")
        return "text"

    def values(self, rows: Rows) -> Value:
        return pc.utf8_lower(_as(pa.string(), self.operands[0].values(rows)))


class Length(Node):
    def kind(self, scope: Scope) -> Kind:
        scope.require(self.operands[0], "text", "length")
        return "number"

    def values(self, rows: Rows) -> Value:
        text = _as(pa.string(), self.operands[0].values(rows))
        return _as(pa.int64(), pc.utf8_length(text))


@dataclasses.dataclass(frozen=True)
class Bucket(Node):
    """The interval between edges that a number lies in, lower edge included."""

    edges: tuple[int | float, ...] = ()

    @property
    def results(self) -> tuple[str, ...]:
        inner = (f"[{low}, {high})" for low, high in itertools.pairwise(self.edges))
        return (f"(-inf, {self.edges[0]})", *inner, f"[{self.edges[-1]}, inf)")

    def kind(self, scope: Scope) -> Kind:
        scope.require(self.operands[0], "number", "bucket")
        return "text"

    def values(self, rows: Rows) -> Value:
        found = rows.array(self.operands[0].values(rows))
        if pa.types.is_null(found.type):
            return pa.scalar(None, pa.string())
        missing = pc.is_null(found).to_numpy(zero_copy_only=False)
        numbers = found.fill_null(0).to_numpy(zero_copy_only=False)
        edges = np.array(self.edges)
        if edges.dtype.kind == numbers.dtype.kind:  # as narrow: see `_common_type`
            edges = edges.astype(numbers.dtype)
        places = np.searchsorted(edges, numbers, side="right")
        return pa.array(self.results).take(pa.array(places, mask=missing))
