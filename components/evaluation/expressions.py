"""A small language of expressions over columns: parsed here, computed in columns.

    fare > 20 and payment_type == "Cash"
    5 < fare <= 10 or not (hour in range(7, 10))
    bucket(fare, 5, 10, 20)
    company is null

Values are numbers, text or truth values. A null, a NaN and an empty list are missing;
what is computed from a missing value is missing, except that `false and x` is false,
`true or x` is true (Kleene's three-valued logic, as in SQL), and `is null` always
answers. A division by zero is missing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from penstock.components.evaluation.expression_nodes import (
    COMPARISONS,
    INT64,
    TRUTH,
    Absolute,
    Among,
    Arithmetic,
    Bucket,
    Column,
    Comparison,
    Constant,
    InRange,
    IsMissing,
    Junction,
    Length,
    Lower,
    Negation,
    Node,
    Not,
    Rows,
    Scope,
    kind_of,
    line,
    shown,
)
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

DEEPEST = 30
"""How many parentheses, functions, `not` and `-` may stand inside one another."""


@functools.lru_cache(maxsize=1_000)
def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        PipelineError: If it is none; the last two lines show where.
    """
    if not text.strip():
        raise PipelineError(
            f"Expression '{text}' is empty. Write one, such as fare > 20."
        )
    expression = Expression(text, _Parser(text).parse())
    if not expression.columns:
        raise PipelineError(
            f"Expression '{text}' reads no column, so it is the same for every row. "
            "Name a column, without quotes."
        )
    return expression


@dataclasses.dataclass(frozen=True)
class Expression:
    """An expression over columns, as `parse` gives it.

    Attributes:
        text: As it was written.
        root: What it computes.
    """

    text: str
    root: Node

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(each.name for each in self._columns())

    @property
    def results(self) -> tuple[str, ...]:
        """Every value that it can have; () if that depends on the data."""
        return self.root.results

    def _columns(self) -> Iterator[Column]:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Column):
                yield node
            waiting += reversed(node.operands)

    def check_columns(self, columns: Iterable[str], subject: str) -> None:
        """Check that there are the columns that it reads.

        Args:
            columns: Names of the columns that there are.
            subject: What the data is called in texts.

        Raises:
            DataError: If one is not there.
        """
        legal = list(columns)
        for each in self._columns():
            if each.name not in legal:
                near = did_you_mean(each.name, legal) or " Text stands in quotes."
                raise DataError(
                    shown(
                        self.text,
                        each.start,
                        f"Expression '{line(self.text)}' reads '{each.name}', which "
                        f"is no column of {subject} (it has {quoted(legal)}).{near}",
                    )
                )

    def check(self, schema: pa.Schema, subject: str) -> None:
        """Check that columns and their types fit.

        Args:
            schema: Of the data.
            subject: What the data is called in texts.

        Raises:
            DataError: If a column is not there, or what is compared or computed with
                has the wrong type; the last two lines show where.
        """
        self.check_columns(schema.names, subject)
        kinds = {each: kind_of(schema.field(each).type) for each in self.columns}
        self.root.kind(Scope(self.text, kinds))

    def evaluate(self, batch: pa.RecordBatch) -> pa.Array:
        """Compute the expression.

        Args:
            batch: Rows with the columns that it reads, each a value, or a list of at
                most one.

        Returns:
            One value per row, null where it is missing: int64, float32 or float64
            without NaN, or text; what is true or false becomes the text 'true' or
            'false'.

        Raises:
            DataError: If columns do not fit, a row has several values, text is not
                UTF-8, or a whole number gets larger than 64 bits hold.
        """
        self.check(batch.schema, "the rows")
        rows = Rows(self.text, batch, {})
        found = rows.array(self.root.values(rows))
        if pa.types.is_boolean(found.type):
            return pa.array(TRUTH).take(found.cast(pa.int8()))
        return found.cast(pa.string()) if pa.types.is_null(found.type) else found


_FUNCTIONS: dict[str, type[Node]] = {
    "abs": Absolute,
    "bucket": Bucket,
    "length": Length,
    "lower": Lower,
    "missing": IsMissing,
}

_WORDS = ("and", "or", "not", "in", "is")
_TRUTHS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = ("null", "None")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<column>`(?:[^`]|``)+`)
    | (?P<foreign><>|&&?|\|\|?|!(?!=)|=(?!=))
    | (?P<sign>[=!<>]=|//|[-<>+*/%()\[\],])
    """,
    re.VERBOSE | re.DOTALL,
)
_FOREIGN = {
    "<>": "!=",
    "&": "and",
    "&&": "and",
    "|": "or",
    "||": "or",
    "!": "not",
    "=": "==",
}
_ESCAPED = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


@dataclasses.dataclass(frozen=True)
class _Token:
    """A number, a text, a name, a column in backticks, a word, a sign, or the end."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class _Parser:
    """Reads an expression from left to right, without going back.

    Args:
        text: What to read.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._read_tokens())
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        """Return the root of the whole text."""
        root = self._either()
        if self._token.kind != "end":
            raise self._unexpected("an operator", "Write one there, or take it out.")
        return root

    # Tokens

    def _read_tokens(self) -> Iterator[_Token]:
        place = 0
        while place < len(self._text):
            found = _TOKEN.match(self._text, place)
            if found is None:
                raise self._unreadable(place)
            kind = str(found.lastgroup)
            if kind == "foreign":
                raise self._error(
                    place,
                    f"has '{found[0]}', which means nothing here. Write "
                    f"'{_FOREIGN[found[0]]}'.",
                )
            if kind == "name" and found[0] in (*_WORDS, *_TRUTHS, *_NULLS):
                kind = "word"
            if kind != "space":
                yield _Token(kind, found[0], place)
            place = found.end()
        yield _Token("end", "", len(self._text))

    def _unreadable(self, place: int) -> PipelineError:
        character = self._text[place]
        if character in "'\"`":
            return self._error(
                place, f"opens a {character} that never closes. Close it."
            )
        return self._error(
            place,
            f"has {character!r}, which means nothing here. Take it out; a column with "
            "an odd name stands in backticks.",
        )

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, *texts: str) -> _Token | None:
        """Go past a word or sign, if it is one of these."""
        token = self._token
        if token.kind in ("word", "sign") and token.text in texts:
            self._next += 1
            return token
        return None

    def _expect(self, text: str, cure: str = "Add it.") -> None:
        if self._accept(text) is None:
            raise self._unexpected(f"'{text}'", cure)

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    @property
    def _end(self) -> int:
        """Where what was read ends."""
        return self._tokens[self._next - 1].end

    # Errors

    def _error(self, place: int, what: str) -> PipelineError:
        sentence = f"Expression '{line(self._text)}' {what}"
        return PipelineError(shown(self._text, place, sentence))

    def _unexpected(self, expected: str, cure: str) -> PipelineError:
        token = self._token
        if token.kind == "end":
            return self._error(
                token.start, f"ends where {expected} is expected. {cure}"
            )
        if token.text in _NULLS:
            cure = "To ask for missing values write 'is null', or missing(...)."
        elif token.text.lower() in _WORDS and token.kind == "name":
            cure = f"Write '{token.text.lower()}'."
        return self._error(
            token.start,
            f"has '{line(token.text)}' where {expected} is expected. {cure}",
        )

    # Grammar, from what binds least to what binds most

    def _nested(self, read: Callable[[], Node]) -> Node:
        """Read what stands inside something."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(
                self._token.start,
                f"is nested more than {DEEPEST} levels deep. Write it flatter, or "
                "compute a column before ingestion.",
            )
        found = read()
        self._depth -= 1
        return found

    def _either(self) -> Node:
        return self._joined("or", self._both)

    def _both(self) -> Node:
        return self._joined("and", self._negated)

    def _joined(self, word: str, read: Callable[[], Node]) -> Node:
        operands = [read()]
        while self._accept(word):
            operands.append(read())
        if len(operands) == 1:
            return operands[0]
        return Junction(operands[0].start, self._end, tuple(operands), word)

    def _negated(self) -> Node:
        token = self._accept("not")
        if token is None:
            return self._compared()
        operand = self._nested(self._negated)
        return Not(token.start, self._end, (operand,))

    def _compared(self) -> Node:
        first = self._sum()
        if self._accept("is"):
            return self._missing(first)
        if self._accept("in"):
            return self._among(first)
        if self._accept("not"):
            self._expect("in", "Write 'not in', or put 'not' before the comparison.")
            found = self._among(first)
            return Not(found.start, found.end, (found,))
        operands, signs = [first], []
        while token := self._accept(*COMPARISONS):
            signs.append(token.text)
            operands.append(self._sum())
        if not signs:
            return first
        return Comparison(first.start, self._end, tuple(operands), tuple(signs))

    def _missing(self, operand: Node) -> Node:
        negated = self._accept("not")
        if not self._accept(*_NULLS):
            raise self._unexpected("null", "Write 'is null', or compare with ==.")
        found = IsMissing(operand.start, self._end, (operand,))
        return Not(found.start, found.end, (found,)) if negated else found

    def _among(self, operand: Node) -> Node:
        if self._token.kind == "name" and self._token.text == "range":
            self._take()
            members = self._range()
            return InRange(operand.start, self._end, (operand,), members)
        opening = self._accept("(", "[")
        if opening is None:
            raise self._unexpected(
                "a list of values", "Write values in parentheses, or range(a, b)."
            )
        closing = ")" if opening.text == "(" else "]"
        values = [self._literal()]
        while self._accept(",") and self._token.text != closing:
            values.append(self._literal())
        self._expect(closing)
        return Among(operand.start, self._end, (operand,), tuple(values))

    def _range(self) -> range:
        self._expect("(", "Write range(a, b), or range(a, b, step).")
        numbers = [self._integer()]
        self._expect(",", "Write range(a, b), or range(a, b, step).")
        numbers.append(self._integer())
        if self._accept(","):
            place = self._token.start
            numbers.append(self._integer())
            if numbers[-1] == 0:
                raise self._error(
                    place, "has a range whose step is 0. Leave the step out."
                )
        self._expect(")")
        return range(*numbers)

    def _sum(self) -> Node:
        return self._computed(("+", "-"), self._product)

    def _product(self) -> Node:
        return self._computed(("*", "/", "//", "%"), self._signed)

    def _computed(self, legal: tuple[str, ...], read: Callable[[], Node]) -> Node:
        operands, signs = [read()], []
        while token := self._accept(*legal):
            signs.append(token.text)
            operands.append(read())
        if not signs:
            return operands[0]
        return Arithmetic(operands[0].start, self._end, tuple(operands), tuple(signs))

    def _signed(self) -> Node:
        token = self._accept("-")
        if token is None:
            return self._primary()
        operand = self._nested(self._signed)
        return Negation(token.start, self._end, (operand,))

    def _primary(self) -> Node:
        token = self._token
        if self._accept("("):
            found = self._nested(self._either)
            self._expect(")")
            # The text of an operand has its parentheses.
            return dataclasses.replace(found, start=token.start, end=self._end)
        if token.kind == "name":
            self._take()
            if self._token.text == "(":
                return self._call(token)
            return Column(token.start, token.end, name=token.text)
        if token.kind == "column":
            self._take()
            name = token.text[1:-1].replace("``", "`")
            return Column(token.start, token.end, name=name)
        if token.kind in ("number", "text") or token.text in _TRUTHS:
            return self._literal()
        raise self._unexpected("a value", "Write a column, a number or a 'text' there.")

    def _call(self, name: _Token) -> Node:
        if name.text not in _FUNCTIONS:
            near = did_you_mean(name.text, _FUNCTIONS)
            cure = (
                "It stands after 'in'."
                if name.text == "range"
                else f"There are {quoted(_FUNCTIONS)}.{near}"
            )
            raise self._error(
                name.start, f"calls '{name.text}', which is no function. {cure}"
            )
        self._expect("(")
        operand = self._nested(self._either)
        if name.text == "bucket":
            edges = self._edges()
            return Bucket(name.start, self._end, (operand,), edges)
        self._expect(")", f"'{name.text}' takes one value.")
        return _FUNCTIONS[name.text](name.start, self._end, (operand,))

    def _edges(self) -> tuple[int | float, ...]:
        """Read the edges of buckets, up to the closing parenthesis."""
        edges: list[int | float] = []
        self._expect(",", "Give edges too: bucket(fare, 5, 10, 20).")
        while not edges or self._accept(","):
            place = self._token.start
            edges.append(self._number())
            if len(edges) > 1 and edges[-2] >= edges[-1]:
                raise self._error(
                    place,
                    f"has the bucket edge {edges[-1]} after {edges[-2]}. Give edges "
                    "in ascending order.",
                )
        self._expect(")", "Separate edges by commas.")
        return tuple(edges)

    # Literals

    def _literal(self) -> Constant:
        token = self._token
        value: bool | int | float | str
        if token.kind == "text":
            self._take()
            value = self._unescaped(token)
        elif token.text in _TRUTHS:
            self._take()
            value = _TRUTHS[token.text]
        elif token.kind == "number" or token.text == "-":
            value = self._number()
        else:
            raise self._unexpected("a value", "Write a number or a 'text' there.")
        return Constant(token.start, self._end, value=value)

    def _unescaped(self, token: _Token) -> str:
        def character(found: re.Match[str]) -> str:
            if found[1] not in _ESCAPED:
                raise self._error(
                    token.start + 1 + found.start(),
                    f"has '{line(found[0])}' in a text. Write a backslash twice.",
                )
            return _ESCAPED[found[1]]

        return re.sub(r"\\(.)", character, token.text[1:-1], flags=re.DOTALL)

    def _number(self) -> int | float:
        sign = -1 if self._accept("-") else 1
        token = self._token
        if token.kind != "number":
            raise self._unexpected("a number", "Write one, such as 5 or 0.5.")
        self._take()
        return sign * self._unsigned(token)

    def _unsigned(self, token: _Token) -> int | float:
        value: int | float = math.inf
        if not token.text.isdecimal():
            value = float(token.text)
        elif len(token.text.lstrip("0")) <= len(str(INT64.max)):
            value = int(token.text)
        if value == math.inf or (isinstance(value, int) and value > INT64.max):
            raise self._error(
                token.start,
                "has a number that 64 bits do not hold. Write a smaller one.",
            )
        return value

    def _integer(self) -> int:
        place = self._token.start
        value = self._number()
        if isinstance(value, float):
            raise self._error(
                place, f"has a range of {value}. Ranges are of whole numbers."
            )
        return value
