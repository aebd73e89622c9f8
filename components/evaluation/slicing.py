"""Which rows are in which slice: one SlicingSpec at a time, whole batches at a time.

A feature is a column or, where no column has its name, an expression over columns. A
row is in the slices of the values that it has: several for a column of lists, none
where it is missing. All as in TFMA (`slicer_lib.SingleSliceSpec`), except that

- NaN is missing, where TFMA gives every such row a slice of its own;
- a value of `feature_values` matches text as it is written, where TFMA makes a number
  of '00501' and never finds it;
- and it matches 32-bit floats that it is nearest to, where TFMA compares 64 bits.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.forms import as_text, is_list, list_parts
from penstock.components.evaluation.blessing import Slice, SliceValue
from penstock.components.evaluation.expression_nodes import (
    INT64,
    known_kind,
    plain_values,
    with_one_zero,
)
from penstock.components.evaluation.expressions import parse
from penstock.schemas.errors import DataError, PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto.config_pb2 import EvalConfig

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The slices of a batch's rows.

    Attributes:
        rows: For each code the number of its row, ascending, of type int64. None if
            the i-th code is of row i.
        codes: For each pair of a row and a slice it is in the place of the slice in
            `keys`, of type int64; -1 for a row in no slice, where `rows` is None.
        keys: The slices, each of which has rows.
    """

    rows: Array | None
    codes: Array
    keys: list[Slice]


@dataclasses.dataclass(frozen=True)
class SliceBy:
    """What one SlicingSpec slices by.

    Attributes:
        keys: Features of which every value is a slice, sorted.
        values: Features of which one value is, sorted; a number may be text.
    """

    keys: tuple[str, ...] = ()
    values: tuple[tuple[str, SliceValue], ...] = ()

    @classmethod
    def of(cls, spec: Any) -> SliceBy:
        """Return what a SlicingSpec message says.

        Raises:
            PipelineError: If it has a feature among its keys and among its values.
        """
        keys, values = set(spec.feature_keys), dict(spec.feature_values)
        for name in sorted(keys & values.keys()):
            raise PipelineError(
                f"A SlicingSpec has '{name}' in feature_keys and in feature_values. "
                "Keep one of them: every value, or the one."
            )
        return cls(tuple(sorted(keys)), tuple(sorted(values.items())))

    @property
    def features(self) -> tuple[str, ...]:
        """The names of all features."""
        return (*self.keys, *(name for name, _ in self.values))

    def columns(self, schema: pa.Schema) -> frozenset[str]:
        """Return the columns that it reads of data with a schema."""
        return frozenset().union(
            *(columns_of(name, schema.names) for name in self.features)
        )

    def check(self, schema: pa.Schema, subject: str) -> None:
        """Check that features have types that can be sliced by.

        An expression over columns that are not in the schema, because a model computes
        them, is left to `assign`.

        Args:
            schema: Of the data.
            subject: What the data is called in texts.

        Raises:
            DataError: If a column has none, or an expression does not fit its columns.
        """
        for name in self.features:
            if name in schema.names:
                known_kind(schema.field(name).type, name)
            elif parse(name).columns <= set(schema.names):
                parse(name).check(schema, subject)

    def assign(self, batch: pa.RecordBatch) -> Assignment:
        """Return the slices of rows.

        Args:
            batch: The rows, with the columns that `columns` names.

        Raises:
            DataError: If a column has values that no slice can have, or an expression
                does not fit the columns.
        """
        rows = batch.num_rows
        coded = _Coded(None, np.zeros(rows, np.int64), [()])
        for number, name in enumerate(self.keys):
            encoded = _encoded(_feature(name, batch))
            coded = _crossed(coded, encoded, rows) if number else encoded
        fixed: list[SliceValue] = []
        for name, value in self.values:
            found, has = _with_value(_feature(name, batch), value, rows)
            fixed.append(found)
            coded = coded.where(has)
        coded = coded.compact()
        order = sorted(range(len(self.features)), key=self.features.__getitem__)
        keys = [
            tuple((self.features[place], values[place]) for place in order)
            for values in ((*each, *fixed) for each in coded.values)
        ]
        return Assignment(coded.rows, coded.codes, keys)


def slices_by(config: EvalConfig) -> list[SliceBy]:
    """Return how rows are sliced: as TFMA, the overall slice if nothing is said.

    Slices that are compared with one another are computed too. Thresholds compute
    none: one that names other slices is not met.

    Raises:
        PipelineError: If a SlicingSpec contradicts itself.
    """
    specs = list(config.slicing_specs)
    for cross in config.cross_slicing_specs:
        specs += [cross.baseline_spec, *cross.slicing_specs]
    return list(dict.fromkeys(map(SliceBy.of, specs))) or [SliceBy()]


def columns_of(feature: str, columns: Iterable[str]) -> frozenset[str]:
    """Return the columns that a feature reads: its own, or those of its expression.

    Raises:
        PipelineError: If it is neither a column nor an expression.
    """
    return frozenset([feature]) if feature in columns else parse(feature).columns


def read_by(feature: str) -> frozenset[str]:
    """Return the columns that a feature reads if it is an expression, or else none."""
    try:
        return parse(feature).columns
    except PipelineError:
        return frozenset()


def check_feature(feature: str, columns: Iterable[str], subject: str) -> None:
    """Check that a feature is a column, or an expression over columns.

    Args:
        feature: As a SlicingSpec names it.
        columns: Names of the columns that there are.
        subject: What the data is called in texts.

    Raises:
        DataError: If it is neither; for an expression, the last two lines show where.
    """
    legal = list(columns)
    if feature in legal:
        return
    near = did_you_mean(feature, legal)
    none = (
        f"The eval_config has the slicing feature '{feature}', which is no column of "
        f"{subject} (it has {quoted(legal)})."
    )
    if feature.isidentifier():
        raise DataError(f"{none}{near}")
    try:
        expression = parse(feature)
    except PipelineError as error:
        raise DataError(f"{none}{near} {error}") from error
    expression.check_columns(legal, subject)


def check_value(feature: str, value: str, columns: Iterable[str]) -> None:
    """Check that an expression can have the value that a SlicingSpec asks for.

    Raises:
        DataError: If it cannot.
    """
    if feature in columns:
        return
    legal = parse(feature).results
    if legal and value not in legal:
        raise DataError(
            f"The eval_config has a slice where '{feature}' is '{value}', and it can "
            f"only be {' or '.join(map(repr, legal))}.{did_you_mean(value, legal)}"
        )


def with_features(
    table: pa.RecordBatch, batch: pa.RecordBatch, slicings: Sequence[SliceBy]
) -> pa.RecordBatch:
    """Return a table with a column more for every feature that is an expression.

    For what knows nothing of expressions, such as TFMA.

    Args:
        table: What to add to.
        batch: As many rows, with the columns that the expressions read.
        slicings: Whose features to add.
    """
    features = dict.fromkeys(name for each in slicings for name in each.features)
    names = [name for name in features if name not in batch.schema.names]
    return pa.RecordBatch.from_arrays(
        [*table.columns, *(parse(name).evaluate(batch) for name in names)],
        names=[*table.schema.names, *names],
    )


@dataclasses.dataclass(frozen=True)
class _Flat:
    """The values of a feature, without lists.

    Attributes:
        values: An array of int64, float32, float64, string or null, without NaN.
        rows: For each value the number of its row; None if the i-th is of row i.
    """

    values: pa.Array
    rows: Array | None = None


@dataclasses.dataclass(frozen=True)
class _Coded:
    """Rows and the combinations of values that they have.

    Attributes:
        rows: For each code the number of its row; None if the i-th is of row i.
        codes: The place of the combination in `values`; -1 for none, where `rows` is
            None.
        values: The combinations.
    """

    rows: Array | None
    codes: Array
    values: Sequence[tuple[SliceValue, ...]]

    def where(self, wanted: Array) -> _Coded:
        """Return those rows that are wanted."""
        if self.rows is None:
            return dataclasses.replace(self, codes=np.where(wanted, self.codes, -1))
        kept = wanted[self.rows]
        return dataclasses.replace(self, rows=self.rows[kept], codes=self.codes[kept])

    def listed(self) -> tuple[Array, Array]:
        """Return rows and codes, without rows that have none."""
        if self.rows is not None:
            return self.rows, self.codes
        rows = np.flatnonzero(self.codes >= 0)
        return rows, self.codes[rows]

    def compact(self) -> _Coded:
        """Return the same with only those combinations that rows have."""
        present, codes = _compacted(self.codes, len(self.values))
        values = [self.values[each] for each in present.tolist()]
        return _Coded(self.rows, codes, values)


def _feature(name: str, batch: pa.RecordBatch) -> _Flat:
    if name not in batch.schema.names:
        return _Flat(parse(name).evaluate(batch))
    flat = _flattened(batch.column(name))
    return dataclasses.replace(flat, values=_sliceable(flat.values, name))


def _flattened(array: pa.Array) -> _Flat:
    """Return the values of lists, at any depth, and the rows that have them."""
    if not is_list(array.type):
        return _Flat(array)
    lengths, values, _ = list_parts(array)
    inner = _flattened(values)
    if inner.rows is None and (lengths == 1).all():
        return inner
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return _Flat(inner.values, rows if inner.rows is None else rows[inner.rows])


def _sliceable(values: pa.Array, name: str) -> pa.Array:
    """Return values as slices name them.

    Truth values are 0 and 1, and decimals text, as TFDV and TFMA see them.
    """
    if pa.types.is_decimal(values.type):
        return as_text(values)
    values = plain_values(values, name)
    return values.cast(pa.int64()) if pa.types.is_boolean(values.type) else values


def _encoded(flat: _Flat) -> _Coded:
    """Return the values that each row has, once each."""
    encoded = with_one_zero(flat.values).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    codes = codes.astype(np.int64)
    distinct = [(each,) for each in encoded.dictionary.to_pylist()]
    if flat.rows is None:
        return _Coded(None, codes, distinct)
    pairs = np.unique((flat.rows * len(distinct) + codes)[codes >= 0])
    size = max(1, len(distinct))
    return _Coded(pairs // size, pairs % size, distinct)


def _crossed(left: _Coded, right: _Coded, rows: int) -> _Coded:
    """Return the pairs of what each row has on the left and on the right."""
    size = len(right.values)
    if left.rows is None and right.rows is None:
        both = (left.codes >= 0) & (right.codes >= 0)
        numbers, codes = None, np.where(both, left.codes * size + right.codes, -1)
    else:
        numbers, first, second = _joined(*left.listed(), *right.listed(), rows)
        codes = first * size + second
    present, codes = _compacted(codes, len(left.values) * size)
    pairs = [
        left.values[each // size] + right.values[each % size]
        for each in present.tolist()
    ]
    return _Coded(numbers, codes, pairs)


def _joined(
    left_rows: Array, left: Array, right_rows: Array, right: Array, rows: int
) -> tuple[Array, Array, Array]:
    """Return the rows of pairs, and both codes; rows are ascending on either side."""
    counts = np.bincount(right_rows, minlength=rows)
    starts = np.cumsum(counts) - counts
    repeats = counts[left_rows]
    chosen = np.repeat(np.arange(len(left_rows)), repeats)
    place = np.arange(len(chosen)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    numbers = left_rows[chosen]
    return numbers, left[chosen], right[starts[numbers] + place]


def _compacted(codes: Array, size: int) -> tuple[Array, Array]:
    """Return which codes there are, ascending, and codes as places among them."""
    if size > 4 * len(codes) + 1_000:
        present, places = np.unique(codes, return_inverse=True)
        without = int(len(present) > 0 and present[0] < 0)
        return present[without:], places.astype(np.int64) - without
    present = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=size))
    places = np.full(size + 1, -1, np.int64)  # the last one is for -1
    places[present] = np.arange(len(present))
    return present, places[codes]


def _with_value(flat: _Flat, value: SliceValue, rows: int) -> tuple[SliceValue, Array]:
    """Return a value as slices name it, and which rows have it."""
    value, wanted = _wanted(value, flat.values.type)
    if wanted is None:
        return value, np.zeros(rows, bool)
    equal = pc.equal(flat.values, wanted).fill_null(False)
    found: Array = equal.to_numpy(zero_copy_only=False)
    if flat.rows is not None:
        has = np.zeros(rows, bool)
        has[flat.rows[found]] = True
        return value, has
    return value, found


def _wanted(
    value: SliceValue, kind: pa.DataType
) -> tuple[SliceValue, pa.Scalar | None]:
    """Return a value as slices of a type name it, and as rows have it, if they can."""
    if pa.types.is_string(kind):
        return str(value), pa.scalar(str(value))
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, str) or pa.types.is_null(kind):
        return value, None
    if pa.types.is_floating(kind):
        return value, pa.scalar(float(value), kind)
    is_whole = INT64.min <= value <= INT64.max and value == int(value)
    return value, pa.scalar(int(value)) if is_whole else None


def _number(text: str) -> SliceValue:
    """Return text as the number that TFMA takes it for, or as it is."""
    try:
        number = float(text) if "." in text else int(text)
    except ValueError:
        return text
    # What no float comes near to is no value of any column.
    return number if abs(number) <= sys.float_info.max else text
