"""Training-serving skew, value by value: rows of training and of a log joined by id.

Distributions can agree while rows do not, as where a feature is computed an hour too
early. So the rows of both sides that have one id are laid beside each other, and each
column says in which share of them its two values differ. All of it is arithmetic on
columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.components.columns.forms import is_list, list_parts
from penstock.components.monitoring.logs import ID, LogTable
from penstock.schemas.errors import DataError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"

RELATIVE = 1e-6
"""Numbers that differ by less than this share of the larger are alike: between float64
and float32, in which tf.Examples and most models keep them, there are up to 6e-8."""

_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """A row whose two values differ.

    Attributes:
        id: Its id.
        training: The value in training; None if it is missing.
        serving: The value in the log.
    """

    id: str
    training: Any
    serving: Any


@dataclasses.dataclass(frozen=True)
class ColumnSkew:
    """How often the two values of a column differ.

    Attributes:
        name: The column.
        rows: How many rows were joined.
        compared: Of these, rows with a value on either side.
        different: Rows in which both have a value, and they differ.
        missing_in_training: Rows in which only serving has a value.
        missing_in_serving: Rows in which only training has one.
        share: Of the rows, those that do not match; NaN of no rows.
        lower: Lower end of its interval (Wilson 1927), at the confidence asked for.
        upper: Upper end.
        training_type: Type in training.
        serving_type: Type in the log.
        type_changed: Whether one side has numbers and the other text, or lists.
        mean_difference: Mean of serving minus training over rows that have two finite
            numbers; None for columns that are no numbers.
        examples: Some of the rows that differ.
        sentence: What it comes to.
    """

    name: str
    rows: int
    compared: int
    different: int
    missing_in_training: int
    missing_in_serving: int
    share: float
    lower: float
    upper: float
    training_type: str
    serving_type: str
    type_changed: bool
    mean_difference: float | None
    examples: tuple[Mismatch, ...]
    sentence: str

    @property
    def mismatches(self) -> int:
        """Rows that do not match, in whichever way."""
        return self.different + self.missing_in_training + self.missing_in_serving

    def exceeds(self, tolerated: float) -> bool:
        """Return whether the share is above one that is tolerated, beyond chance."""
        return self.lower > tolerated or (self.type_changed and self.share > tolerated)


@dataclasses.dataclass(frozen=True)
class Skew:
    """Training against serving.

    Attributes:
        joined: Rows of the log that were joined to one of training.
        only_training: Rows of training that no row of the log has the id of.
        only_serving: Rows of the log that no row of training has the id of.
        columns: The columns that both have, by falling share of mismatches.
        not_in_serving: Columns that only training has.
        not_in_training: Columns that only the log has.
        confidence: Of the intervals.
    """

    joined: int
    only_training: int
    only_serving: int
    columns: tuple[ColumnSkew, ...]
    not_in_serving: tuple[str, ...] = ()
    not_in_training: tuple[str, ...] = ()
    confidence: float = 0.95

    def __getitem__(self, name: str) -> ColumnSkew:
        """Return a column by name."""
        for each in self.columns:
            if each.name == name:
                return each
        raise KeyError(name)

    def beyond(self, tolerated: float = 0.0) -> tuple[ColumnSkew, ...]:
        """Return the columns whose share is above what is tolerated, beyond chance."""
        return tuple(each for each in self.columns if each.exceeds(tolerated))

    @property
    def sentence(self) -> str:
        """What it comes to."""
        if not self.joined:
            return (
                f"None of the {self.only_serving:,} rows of the log has the id of one "
                f"of the {self.only_training:,} rows of training, so no value was "
                "compared. Compare rows of the same requests."
            )
        bad = [each for each in self.columns if each.mismatches]
        if not bad:
            return (
                f"All {len(self.columns):,} columns agree between training and serving "
                f"in {self.joined:,} rows."
            )
        more = f" {len(bad) - 1:,} more columns differ." if len(bad) > 1 else ""
        return bad[0].sentence + more

    def document(self, tolerated: float = 0.0) -> dict[str, Any]:
        """Return the part of a monitoring report that says it.

        Args:
            tolerated: Share of mismatches that is no alert.
        """
        bad = {each.name for each in self.beyond(tolerated)}
        state = "alert" if bad else "ok"
        return {
            "state": state if self.joined else "insufficient_data",
            "sentence": self.sentence,
            "joined": self.joined,
            "columns": [
                {
                    "name": each.name,
                    "state": "alert" if each.name in bad else "ok",
                    "compared": each.compared,
                    "different": each.mismatches,
                    "sentence": each.sentence,
                }
                for each in self.columns
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data, with examples of rows that differ."""
        found = dataclasses.asdict(self)
        for column in found["columns"]:
            for key in ("share", "lower", "upper", "mean_difference"):
                value = column[key]
                if value is not None and not math.isfinite(value):
                    column[key] = None
            for each in column["examples"]:
                for side in ("training", "serving"):
                    each[side] = _plain(each[side])
        return found


def _plain(value: Any) -> Any:
    """Return a value as JSON can say it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def compare_rows(
    training: pa.Table,
    serving: LogTable | pa.Table,
    *,
    id: str,
    columns: Sequence[str] | None = None,
    relative: float = RELATIVE,
    absolute: float | Mapping[str, float] = 0.0,
    confidence: float = 0.95,
) -> Skew:
    """Compare the values of rows that have the same id.

    Two numbers are alike if they differ by no more than `relative` times the larger
    of their sizes, or by `absolute`; two integers only by `absolute`, because those
    are often ids and times. NaN is alike to NaN. Texts and bytes are alike if
    they are the same, lists if they are as long and all their values alike. A missing
    value and an empty list are alike to one another and to nothing else.

    Args:
        training: Rows of training, with the column `id`.
        serving: The log; of a table, with the column `id`.
        id: Column of the ids in training.
        columns: Which columns to compare; all features that both have if None.
        relative: Share by which numbers may differ.
        absolute: By how much numbers may differ, or so for some columns.
        confidence: Of the intervals.

    Raises:
        DataError: There are no ids, ids that are there twice, or no such column.
    """
    log_id = id
    if isinstance(serving, LogTable):
        serving.need_ids("rows of training are joined by id")
        log, log_id = serving.table, ID
        candidates: Sequence[str] = serving.features
    else:
        log, candidates = serving, [each for each in serving.column_names if each != id]
    _need(id, training, "The training data")
    _need(log_id, log, "The log")
    names = _compared(columns, training, log, candidates, {id, log_id})
    ours, theirs = _joined(training.column(id), log.column(log_id))
    left = training.select(names).take(pa.array(ours))
    right = log.select(names).take(pa.array(theirs))
    ids = _text(log.column(log_id).take(pa.array(theirs)))
    found = []
    for name in names:
        tolerance = (
            absolute.get(name, 0.0) if isinstance(absolute, Mapping) else absolute
        )
        found.append(
            _column(
                name,
                _chunk(left.column(name)),
                _chunk(right.column(name)),
                ids,
                relative,
                tolerance,
                confidence,
            )
        )
    found.sort(key=lambda each: (-each.mismatches, each.name))
    return Skew(
        joined=len(ours),
        only_training=training.num_rows - len(ours),
        only_serving=log.num_rows - len(theirs),
        columns=tuple(found),
        not_in_serving=tuple(
            each
            for each in training.column_names
            if each != id and each not in log.column_names
        ),
        not_in_training=tuple(
            each
            for each in candidates
            if each not in (id, log_id) and each not in training.column_names
        ),
        confidence=confidence,
    )


def _need(id: str, table: pa.Table, subject: str) -> None:
    if id not in table.column_names:
        raise DataError(
            f"{subject} has no column '{id}' to join rows by (it has "
            f"{quoted(table.column_names)}).{did_you_mean(id, table.column_names)}"
        )
    missing = table.column(id).null_count
    if missing:
        raise DataError(
            f"{subject} has {missing:,} rows without an id in column '{id}', which "
            "nothing can be joined to. Leave them out."
        )


def _compared(
    columns: Sequence[str] | None,
    training: pa.Table,
    log: pa.Table,
    candidates: Sequence[str],
    ids: set[str],
) -> list[str]:
    if columns is None:
        return [
            name
            for name in candidates
            if name in training.column_names and name not in ids
        ]
    for name in columns:
        for table, subject in ((training, "training data"), (log, "log")):
            if name not in table.column_names:
                raise DataError(
                    f"Column '{name}' is to be compared, and the {subject} lacks it "
                    f"(it has {quoted(table.column_names)})."
                    f"{did_you_mean(name, table.column_names)}"
                )
    return list(columns)


def _joined(training: pa.ChunkedArray, log: pa.ChunkedArray) -> tuple[Array, Array]:
    """Return the row numbers of both sides of each pair, in the order of the log."""
    ours, theirs = _text(training), _text(log)
    for ids, subject in ((ours, "The training data"), (theirs, "The log")):
        encoded = ids.dictionary_encode()
        if len(encoded.dictionary) < len(ids):
            counts = np.bincount(encoded.indices.to_numpy(zero_copy_only=False))
            most = int(np.argmax(counts))
            raise DataError(
                f"{subject} has the id '{encoded.dictionary[most].as_py()}' in "
                f"{counts[most]:,} rows, and {len(ids) - len(encoded.dictionary):,} "
                "rows too many in all, so that nobody knows which of them to compare. "
                "Give every row an id of its own, or keep one row of each."
            )
    place = pc.index_in(theirs, value_set=ours)
    found = place.is_valid().to_numpy(zero_copy_only=False)
    return (
        place.drop_null().to_numpy(zero_copy_only=False).astype(np.int64),
        np.flatnonzero(found),
    )


def _chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    combined = column.combine_chunks()
    # Of text beyond 2 GiB, several chunks stay.
    if isinstance(combined, pa.ChunkedArray):
        return pa.concat_arrays(
            [each.cast(pa.large_string()) for each in combined.chunks]
        )
    return combined


def _text(ids: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = _chunk(ids) if isinstance(ids, pa.ChunkedArray) else ids
    if pa.types.is_binary(array.type):
        return array.cast(pa.string())
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


# --- one column


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return "number"
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    ):
        return "text"
    return "list" if is_list(kind) else "other"


def _column(
    name: str,
    ours: pa.Array,
    theirs: pa.Array,
    ids: pa.Array,
    relative: float,
    absolute: float,
    confidence: float,
) -> ColumnSkew:
    types = str(ours.type), str(theirs.type)
    ours, theirs = _decoded(ours), _decoded(theirs)
    kinds = _kind(ours.type), _kind(theirs.type)
    nothing = pa.types.is_null(ours.type) or pa.types.is_null(theirs.type)
    changed = kinds[0] != kinds[1] and not nothing
    here, there = _present(ours), _present(theirs)
    both = here & there
    if nothing:
        differs = np.zeros(len(ours), np.bool_)
    elif changed:
        differs = _unlike(ours, theirs, kinds, both, relative, absolute)
    else:
        differs = ~_alike(ours, theirs, kinds[0], relative, absolute) & both
    mean = None
    if kinds == ("number", "number"):
        mean = _mean_difference(ours, theirs, both)
    wrong = differs | (here != there)
    count = len(ours)
    mismatches = int(wrong.sum())
    lower, upper = wilson(mismatches, count, confidence)
    rows = np.flatnonzero(wrong)[:_EXAMPLES]
    examples = tuple(
        Mismatch(ids[row].as_py(), ours[row].as_py(), theirs[row].as_py())
        for row in rows.tolist()
    )
    found = ColumnSkew(
        name=name,
        rows=count,
        compared=int((here | there).sum()),
        different=int(differs.sum()),
        missing_in_training=int((there & ~here).sum()),
        missing_in_serving=int((here & ~there).sum()),
        share=mismatches / count if count else math.nan,
        lower=lower,
        upper=upper,
        training_type=types[0],
        serving_type=types[1],
        type_changed=changed,
        mean_difference=mean,
        examples=examples,
        sentence="",
    )
    return dataclasses.replace(found, sentence=_sentence(found, confidence))


def _decoded(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    return array


def _present(array: pa.Array) -> Array:
    found: Array = array.is_valid().to_numpy(zero_copy_only=False)
    if is_list(array.type):
        found = found & (list_parts(array)[0] > 0)
    return found


def _numbers(array: pa.Array) -> Array:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    found: Array = array.fill_null(0).to_numpy(zero_copy_only=False)
    return found


def _alike(
    ours: pa.Array, theirs: pa.Array, kind: str, relative: float, absolute: float
) -> Array:
    """Return which values are alike; of missing ones, anything."""
    if kind == "number":
        return _close(_numbers(ours), _numbers(theirs), relative, absolute)
    if kind == "text":
        same = pc.equal(_bytes(ours), _bytes(theirs)).fill_null(False)
        found: Array = same.to_numpy(zero_copy_only=False)
        return found
    if kind == "list":
        return _lists_alike(ours, theirs, relative, absolute)
    pairs = zip(ours.to_pylist(), theirs.to_pylist(), strict=True)
    return np.array([one == other for one, other in pairs], np.bool_)


def _bytes(array: pa.Array) -> pa.Array:
    if pa.types.is_large_binary(array.type):
        return array
    if pa.types.is_string(array.type):
        array = array.cast(pa.large_string())
    return array.cast(pa.large_binary())


def _close(one: Array, other: Array, relative: float, absolute: float) -> Array:
    if one.dtype.kind in "iu" and other.dtype.kind in "iu":
        alike: Array = one == other
        if absolute:
            alike |= np.abs(one.astype(np.float64) - other) <= absolute
        return alike
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = np.maximum(absolute, relative * np.maximum(np.abs(a), np.abs(b)))
        near = np.isfinite(allowed) & (np.abs(a - b) <= allowed)
    same: Array = (a == b) | (np.isnan(a) & np.isnan(b)) | near
    return same


def _lists_alike(
    ours: pa.Array, theirs: pa.Array, relative: float, absolute: float
) -> Array:
    here, values, _ = list_parts(ours)
    there, others, _ = list_parts(theirs)
    alike: Array = here == there
    if not alike.any():
        return alike
    kinds = _kind(values.type), _kind(others.type)
    if kinds[0] != kinds[1]:
        alike &= here == 0
        return alike
    # The values of lists that are as long stand at the same places of both.
    rows = np.repeat(np.arange(len(here)), here)
    mine = values.filter(pa.array(alike[rows]))
    other_rows = np.repeat(np.arange(len(there)), there)
    other = others.filter(pa.array(alike[other_rows]))
    same = _alike(mine, other, kinds[0], relative, absolute)
    known, known_too = _present(mine), _present(other)
    same = np.where(known & known_too, same, known == known_too)
    alike[rows[alike[rows]][~same]] = False
    return alike


def _unlike(
    ours: pa.Array,
    theirs: pa.Array,
    kinds: tuple[str, str],
    both: Array,
    relative: float,
    absolute: float,
) -> Array:
    """Return which values differ of a column that changed its kind.

    Text that says a number is compared as that number; all else differs.
    """
    unlike: Array = both.copy()
    if set(kinds) != {"number", "text"}:
        return unlike
    text, number = (ours, theirs) if kinds[0] == "text" else (theirs, ours)
    parsed = np.full(len(text), np.nan)
    is_number = np.zeros(len(text), np.bool_)
    encoded = _bytes(text).dictionary_encode()
    values = np.full(len(encoded.dictionary), np.nan)
    known = np.zeros(len(encoded.dictionary), np.bool_)
    for place, each in enumerate(encoded.dictionary.to_pylist()):
        try:
            values[place] = float(each)
        except ValueError:
            continue
        known[place] = True
    codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    if len(values):
        parsed, is_number = values[codes], known[codes]
    unlike &= ~(is_number & _close(parsed, _numbers(number), relative, absolute))
    return unlike


def _mean_difference(ours: pa.Array, theirs: pa.Array, both: Array) -> float | None:
    a = _numbers(ours)[both].astype(np.float64)
    b = _numbers(theirs)[both].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = b - a
    finite = difference[np.isfinite(difference)]
    return float(finite.mean()) if len(finite) else None


def _sentence(found: ColumnSkew, confidence: float) -> str:
    name = f"'{found.name}'"
    changed = (
        f" It is {found.serving_type} in serving where training has "
        f"{found.training_type}."
        if found.type_changed
        else ""
    )
    if not found.mismatches:
        return (
            f"{name} agrees between training and serving in all {found.rows:,} rows."
            f"{changed}"
        )
    parts = [
        f"{count:,} {what}"
        for count, what in (
            (found.different, "have another value"),
            (found.missing_in_serving, "have none in serving"),
            (found.missing_in_training, "have none in training"),
        )
        if count
    ]
    return (
        f"{name} differs between training and serving in {found.share:.2%} of "
        f"{found.rows:,} rows ({confidence:.0%} interval {found.lower:.2%} to "
        f"{found.upper:.2%}): {' and '.join(parts)}.{changed}"
    )


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a share by Wilson's score.

    Wilson 1927, "Probable inference, the law of succession, and statistical
    inference", JASA 22, 209-212: the shares p with |successes/trials - p| at most z
    standard errors of p.

    Args:
        successes: How many.
        trials: Of how many; from 0 to 1 if there are none.
        confidence: Such as 0.95.
    """
    from scipy.special import ndtri

    if not trials:
        return 0.0, 1.0
    z = float(ndtri((1 + confidence) / 2))
    share = successes / trials
    center = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    lower = 0.0 if successes == 0 else max(0.0, (center - half) / scale)
    upper = 1.0 if successes == trials else min(1.0, (center + half) / scale)
    return lower, upper
