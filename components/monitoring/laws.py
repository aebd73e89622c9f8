"""What a column looks like while nothing drifts: for replaying windows that never were.

A law is the shares of a column's places. A replay draws a reference and windows from
it, both anew, and tests them as real ones are tested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from penstock.components.monitoring import column_tests
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.profile import ColumnProfile

PIECES = 64
"""Of a continuous column, which is replayed in as many parts of equal shares."""

_EXACT_PLACES = 100
_MOST_CATEGORIES = 1_000


@dataclasses.dataclass(frozen=True)
class ValueLaw:
    """Of the values of a column.

    Attributes:
        kind: "numeric" or "category".
        probabilities: Of the places, in the order of the values, or of the categories.
        zero_place: The place that holds the value 0 alone, if there is one.
        coarse: As for `column_tests.numeric_tests`.
    """

    kind: str
    probabilities: tuple[float, ...]
    zero_place: int | None = None
    coarse: int = 0


@dataclasses.dataclass(frozen=True)
class ColumnLaw:
    """Of a column.

    Attributes:
        role: Of the column.
        values: Of its values; None if the reference has too few of them.
        per_row: Values per row: the share of rows that have one, if it has no lists.
        shares: Shares of rows or values by drift type: "missing", "nan", "infinite".
    """

    role: str
    values: ValueLaw | None
    per_row: float = 1.0
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)


def law_of(column: ColumnProfile) -> ColumnLaw:
    """Return the law that a reference's column is taken to follow."""
    shares = {}
    if column.grid.role != "label":  # of which what is missing is not tested
        shares["missing"] = column.missing / max(column.rows, 1)
    if column.grid.kind == "numeric":
        held = max(column.values, 1)
        shares["nan"] = column.nan / held
        shares["infinite"] = (column.pos_inf + column.neg_inf) / held
    counts = np.asarray(column.counts, np.float64)
    values = None
    if counts.sum() >= column_tests.LEAST_VALUES:
        if column.grid.kind == "numeric":
            values = numeric_law(counts, zero_place(column))
        else:
            values = ValueLaw("category", tuple(_categories(counts, column)))
    return ColumnLaw(
        column.grid.role,
        values,
        per_row=round(float(counts.sum()) / max(column.rows, 1), 2),
        shares={name: _rounded(share) for name, share in shares.items() if share},
    )


def zero_place(column: ColumnProfile) -> int | None:
    """Return the place that holds all zeros of a column and nothing else."""
    if column.grid.kind != "numeric" or not column.zeros:
        return None
    place = int(np.searchsorted(column.grid.edges, 0.0)) + 1
    if place < len(column.counts) and column.counts[place] == column.zeros:
        return place
    return None


def numeric_law(counts: Array, zero: int | None = None) -> ValueLaw:
    """Return the law of a numeric column with some counts by place.

    With many places it is made coarse: places with much stay, what lies between them
    is divided into parts of a 64th, and the ends are halved on and on, so that what is
    beyond a reference's ends can be told.
    """
    used = np.flatnonzero(counts)
    p = counts[used] / counts.sum()
    place = None
    if zero is not None and zero in used:
        place = int(np.searchsorted(used, zero))
    if len(p) <= _EXACT_PLACES:
        return ValueLaw("numeric", tuple(p), place)
    pieces: list[float] = []
    run = 0.0
    new_place = None
    for i, share in enumerate(p):
        if share < 0.5 / PIECES and i != place:
            run += share
            continue
        pieces += _divided(run, first=not pieces)
        if i == place:
            new_place = len(pieces)
        pieces.append(float(share))
        run = 0.0
    between = sum(share for share in p if share < 0.5 / PIECES)
    pieces += _divided(run, first=not pieces, last=True)
    # The sixth digit decides nothing, and columns without ties get one law together.
    return ValueLaw(
        "numeric",
        tuple(round(share, 9) for share in pieces),
        new_place,
        coarse=PIECES if between > 0.5 else 0,
    )


def _divided(run: float, *, first: bool = False, last: bool = False) -> list[float]:
    """Return a stretch of a continuous column in parts, with fine ends of the whole."""
    if run <= 1e-12:
        return []
    count = max(round(run * PIECES), 1)
    parts = [run / count] * count
    halves = [0.5**i for i in range(1, 13)]
    halves.append(halves[-1])
    if last:
        end = parts.pop()
        parts += [end * half for half in halves]
    if first and parts:
        end = parts.pop(0)
        parts = [end * half for half in reversed(halves)] + parts
    return parts


def _categories(counts: Array, column: ColumnProfile) -> Array:
    """Return shares of categories; those without a place are taken to be alike."""
    named = counts[:-1][counts[:-1] > 0]
    rest, others = counts[-1], len(column.grid.others)
    if rest:
        named = np.concatenate([named, np.full(max(others, 1), rest / max(others, 1))])
    shares: Array = named / named.sum()
    return shares


def _rounded(share: float) -> float:
    """Return a share to two digits: columns nearly alike are replayed together."""
    return float(f"{min(share, 1.0):.1e}")


def replay_values(
    law: ValueLaw,
    rng: np.random.Generator,
    reference_rows: int,
    rows: int,
    windows: int,
    effects: Mapping[str, float],
) -> Array:
    """Return the p-values of windows and a reference that are drawn from a law.

    Returns:
        Shape (windows,).
    """
    p = np.asarray(law.probabilities)
    p = p / p.sum()
    reference = rng.multinomial(reference_rows, p)
    current = rng.multinomial(rows, p, size=windows)
    if law.kind == "numeric":
        tests = column_tests.numeric_tests(
            reference, current, zero_place=law.zero_place, coarse=law.coarse
        )
    else:
        tests = column_tests.category_tests(*seen(reference, current))
    return column_tests.combined_p(tests, law.kind, effects)


def seen(reference: Array, current: Array) -> tuple[Array, Array, Array, float, float]:
    """Return counts by category as a reference's grid has them.

    Returns:
        The reference's counts and the windows', with the categories beyond the 1,000
        most frequent ones together in the last place; the windows' unseen values; the
        reference's categories that came once, and twice.
    """
    order = np.argsort(-reference, kind="stable")
    order = order[reference[order] > 0]
    kept, rest = order[:_MOST_CATEGORIES], order[_MOST_CATEGORIES:]
    r = np.append(reference[kept], reference[rest].sum())
    c = np.concatenate(
        [current[..., kept], current[..., rest].sum(-1, keepdims=True)], -1
    )
    unseen = current.sum(-1) - c.sum(-1)
    singles, doubles = rare_categories(r, len(rest))
    return r, c, unseen, singles, doubles


def rare_categories(reference: Array, others: int) -> tuple[float, float]:
    """Return how many categories came once, and twice, as far as can be told.

    Args:
        reference: Counts by category, and last those of the others together.
        others: How many others there are. Each may have come once, for all that is
            known; then those that came twice are not known either.
    """
    named, rest = reference[:-1], reference[-1]
    unknown = min(float(rest), float(others)) if others else float(rest)
    return float((named == 1).sum()) + unknown, float((named == 2).sum())


def replay_shares(
    kind: str,
    drift_type: str,
    share: float,
    rng: np.random.Generator,
    reference_rows: int,
    rows: int,
    shape: tuple[int, int],
    effects: Mapping[str, float],
) -> Array:
    """Return p-values of a share in references (first axis) and windows (second)."""
    reference = rng.binomial(reference_rows, share, size=(shape[0], 1))
    current = rng.binomial(rows, share, size=shape)
    tests = column_tests.share_tests(
        {
            drift_type: (
                current,
                np.asarray(float(rows)),
                reference,
                np.asarray(float(reference_rows)),
            )
        }
    )
    return column_tests.combined_p(tests, kind, effects)
