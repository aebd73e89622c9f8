"""Multivariate drift: can a classifier tell rows of a window from reference rows?

Each column may look as it did while they no longer belong together. A classifier that
sees all of them, and products of two, tells the sides apart then, and its AUC on rows
that it was not fitted to is above 1/2 (Lopez-Paz and Oquab, "Revisiting classifier
two-sample tests", ICLR 2017).

The classifier is that of nearest shrunken centroids: each feature votes with the
distance between the sides' means, less a threshold that keeps out what is likely to be
chance, so that one pair of columns among hundreds is not drowned by the others
(Tibshirani, Hastie, Narasimhan and Chu, "Diagnosis of multiple cancer types by shrunken
centroids of gene expression", PNAS 2002; the threshold is Donoho and Johnstone's
universal one, Biometrika 1994).

Features depend on all rows together and not on their sides, and folds neither. So the
classifiers of hundreds of exchanges of the sides of rows are one product of matrices,
and the p-value

    (1 + exchanges whose AUC is as large) / (1 + exchanges)

is valid for any number of rows, whatever the classifier is worth (Phipson and Smyth,
"Permutation p-values should never be zero", 2010). It takes rows for independent of
one another.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from penstock.components.monitoring.logs import KNOWN
from penstock.schemas.errors import DataError, did_you_mean, quoted

Array: TypeAlias = "np.ndarray[Any, Any]"

LEAST_ROWS = 50
"""Rows of each side below which nothing is said."""

_LEVELS = 10  # values of a category that have features of their own
_LEVELS_IN_PRODUCTS = 3
_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Part:
    """What tells the sides apart.

    Attributes:
        columns: A column by itself, or two that no longer belong together as they did.
        share: Of the distance between the sides that the classifier finds on rows that
            it was not fitted to; shares of all parts add up to 1, and one that is
            noise is near 0, on either side of it.
    """

    columns: tuple[str, ...]
    share: float


@dataclasses.dataclass(frozen=True)
class MultivariateDrift:
    """How well rows of a window are told from reference rows.

    Attributes:
        p_value: Probability of such an AUC, or a larger one, if there were no
            difference; None if there are too few rows.
        auc: Mean over folds of the AUC on rows that were held out; None likewise.
        reference_rows: How many were used.
        current_rows: How many were used.
        permutations: How often the sides were exchanged.
        columns: The columns that were used, those that matter most first.
        parts: What tells the sides apart, the largest share first.
        left_out: Columns that were not used, and why.
    """

    p_value: float | None
    auc: float | None
    reference_rows: int
    current_rows: int
    permutations: int
    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    left_out: Mapping[str, str]

    def sentence(self, level: float = 0.01) -> str:
        """Return what it comes to.

        Args:
            level: The p-value up to which a difference counts.
        """
        rows = f"{self.current_rows:,} rows and {self.reference_rows:,} of reference"
        if self.p_value is None or self.auc is None:
            return (
                f"There are {rows}, where {LEAST_ROWS} of each are the least by which "
                "a classifier could tell them apart."
            )
        if self.p_value > level:
            return (
                f"A classifier cannot tell the window from the reference (AUC "
                f"{self.auc:.3f}, p = {self.p_value:.2g}; {rows})."
            )
        first = self.parts[0].columns
        what = (
            f"by '{first[0]}'"
            if len(first) == 1
            else f"by how '{first[0]}' and '{first[1]}' go together"
        )
        return (
            f"A classifier tells the window from the reference (AUC {self.auc:.3f}, "
            f"p = {self.p_value:.2g}; {rows}), first of all {what}."
        )

    def document(self, level: float = 0.01, most_columns: int = 10) -> dict[str, Any]:
        """Return the part of a monitoring report that says it."""
        if self.p_value is None:
            state = "insufficient_data"
        else:
            state = "alert" if self.p_value <= level else "ok"
        return {
            "p_value": self.p_value,
            "auc": self.auc,
            "columns": list(self.columns[:most_columns]) if state == "alert" else [],
            "state": state,
            "sentence": self.sentence(level),
        }


def domain_classifier(
    reference: pa.Table,
    current: pa.Table,
    *,
    columns: Sequence[str] | None = None,
    importances: Mapping[str, float] | None = None,
    seed: int = 0,
    permutations: int = 199,
    most_rows: int = 2_000,
    most_in_products: int = 24,
) -> MultivariateDrift:
    """Tell rows of a window from reference rows, if that can be done.

    Numbers become normal scores of their ranks among all rows, so that no outlier
    counts for more than its place, with their squares; of text and booleans the most
    frequent values become features; a missing value is a feature. Products of two
    columns are taken of the `most_in_products` columns that are most important or,
    where nobody says, most correlated with another one.

    Args:
        reference: Rows of the reference.
        current: Rows of the window.
        columns: Which columns; all that both have if None, but for those that every
            log has.
        importances: Of columns, if they are known.
        seed: Of the choice of rows, the folds and the exchanges.
        permutations: How often sides are exchanged; the smallest p-value is
            1 / (1 + permutations).
        most_rows: Rows of each side that are used; chosen at random if there are more.
        most_in_products: Columns of which products are taken.

    Raises:
        DataError: A column is not there, or none is left.
    """
    names = _columns(reference, current, columns)
    random = np.random.default_rng(seed)
    sides = [_chosen(each, most_rows, random) for each in (reference, current)]
    counts = [each.num_rows for each in sides]
    pooled: dict[str, list[Array]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        encoded = _encoded(sides[0].column(name), sides[1].column(name))
        if isinstance(encoded, str):
            left_out[name] = encoded
        else:
            pooled[name] = encoded
    if not pooled and names and min(counts) >= LEAST_ROWS:
        why = ", ".join(f"'{name}' {why}" for name, why in left_out.items())
        raise DataError(
            f"No column is left for a classifier to tell rows by: {why}. Name columns "
            "of numbers, text or booleans that vary."
        )
    used = tuple(pooled)
    if min(counts) < LEAST_ROWS:
        return MultivariateDrift(
            None, None, counts[0], counts[1], 0, used, (), left_out
        )
    chosen = _in_products(pooled, importances, most_in_products)
    features, owners = _features(pooled, chosen)
    labels = np.repeat([False, True], counts)
    total = len(labels)
    exchanged = np.empty((total, permutations + 1), np.bool_)
    exchanged[:, 0] = labels
    for column in range(1, permutations + 1):
        exchanged[:, column] = labels[random.permutation(total)]
    folds = random.permutation(total) % _FOLDS
    aucs, distances = _cross_fitted(features, exchanged, folds)
    as_large = int(np.sum(aucs[1:] >= aucs[0] - 1e-12))
    parts = _parts(owners, distances)
    return MultivariateDrift(
        p_value=(1 + as_large) / (1 + permutations),
        auc=float(aucs[0]),
        reference_rows=counts[0],
        current_rows=counts[1],
        permutations=permutations,
        columns=_ranked(used, parts),
        parts=parts,
        left_out=left_out,
    )


def _columns(
    reference: pa.Table, current: pa.Table, columns: Sequence[str] | None
) -> list[str]:
    if columns is None:
        return [
            name
            for name in reference.column_names
            if name in current.column_names and name not in KNOWN
        ]
    for name in columns:
        for table, subject in ((reference, "reference"), (current, "window")):
            if name not in table.column_names:
                raise DataError(
                    f"The {subject} lacks the column '{name}' (it has "
                    f"{quoted(table.column_names)})."
                    f"{did_you_mean(name, table.column_names)}"
                )
    return list(columns)


def _chosen(table: pa.Table, most: int, random: np.random.Generator) -> pa.Table:
    if table.num_rows <= most:
        return table
    rows = np.sort(random.choice(table.num_rows, most, replace=False))
    return table.take(pa.array(rows))


# --- columns as numbers, which depend on all rows and not on their sides


def _encoded(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> list[Array] | str:
    """Return the features of a column over all rows, or why it has none."""
    types = pa.types
    kinds = []
    for each in (ours.type, theirs.type):
        if types.is_dictionary(each):
            each = each.value_type
        if types.is_floating(each) or types.is_integer(each):
            kinds.append("numbers")
        elif (
            types.is_string(each)
            or types.is_large_string(each)
            or types.is_binary(each)
            or types.is_large_binary(each)
            or types.is_boolean(each)
        ):
            kinds.append("text")
        elif types.is_null(each):
            kinds.append("")
        else:
            return f"has type {each}"
    wanted = {kind for kind in kinds if kind}
    if len(wanted) > 1:
        return f"has type {ours.type} in the reference and {theirs.type} in the window"
    if not wanted:
        return "has no value"
    if wanted == {"numbers"}:
        values = np.concatenate(
            [each.cast(pa.float64(), safe=False).to_numpy() for each in (ours, theirs)]
        )
        found = _numeric(values)
    else:
        found = _categorical([*_texts(ours), *_texts(theirs)])
    return found or "never varies"


def _numeric(values: Array) -> list[Array]:
    from scipy.special import ndtri
    from scipy.stats import rankdata

    present = ~np.isnan(values)
    scores = np.zeros(len(values))
    if present.any():
        ranks = rankdata(values[present])
        scores[present] = ndtri((ranks - 0.5) / len(ranks))
    squares = np.where(present, scores**2 - 1, 0.0)
    return [
        each
        for each in (_scaled(scores), _scaled(squares), _scaled(present * 1.0))
        if each is not None
    ]


def _texts(column: pa.ChunkedArray) -> list[Any]:
    cells: list[Any] = column.to_pylist()
    return [
        each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each
        for each in cells
    ]


def _categorical(cells: list[Any]) -> list[Array]:
    encoded = pa.array(
        [
            None
            if cell is None
            else bytes(str(cell), "utf-8")
            if isinstance(cell, bool)
            else cell
            for cell in cells
        ],
        pa.large_binary(),
    ).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    counts = np.bincount(codes[codes >= 0], minlength=len(encoded.dictionary))
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=lambda code: (-counts[code], names[code]))
    found = [_scaled((codes == code) * 1.0) for code in order[:_LEVELS]]
    if len(order) > _LEVELS:
        found.append(_scaled(np.isin(codes, order[_LEVELS:]) * 1.0))
    found.append(_scaled((codes < 0) * 1.0))
    return [each for each in found if each is not None]


def _scaled(values: Array) -> Array | None:
    centered = values - values.mean()
    spread = float(np.sqrt(np.mean(centered**2)))
    return None if spread < 1e-9 else centered / spread


def _in_products(
    pooled: Mapping[str, list[Array]],
    importances: Mapping[str, float] | None,
    most: int,
) -> list[str]:
    names = list(pooled)
    if len(names) <= most:
        return names
    if importances is not None:
        ranked = sorted(names, key=lambda name: (-importances.get(name, 0.0), name))
        return ranked[:most]
    firsts = np.stack([pooled[name][0] for name in names], axis=1)
    correlations = np.abs(firsts.T @ firsts) / len(firsts)
    np.fill_diagonal(correlations, 0.0)
    strongest = correlations.max(axis=1)
    order = sorted(range(len(names)), key=lambda place: (-strongest[place], place))
    return [names[place] for place in sorted(order[:most])]


def _features(
    pooled: Mapping[str, list[Array]], chosen: Sequence[str]
) -> tuple[Array, list[tuple[str, ...]]]:
    """Return the features, shape (rows, features), and the columns of each."""
    features: list[Array] = []
    owners: list[tuple[str, ...]] = []
    for name, some in pooled.items():
        features += some
        owners += [(name,)] * len(some)
    for one, other in itertools.combinations(chosen, 2):
        first = pooled[one][: _in_product(pooled[one])]
        second = pooled[other][: _in_product(pooled[other])]
        for a, b in itertools.product(first, second):
            product = _scaled(a * b)
            if product is not None:
                features.append(product)
                owners.append((one, other))
    return np.stack(features, axis=1), owners


def _in_product(features: list[Array]) -> int:
    """Return how many features of a column enter products: of numbers the scores."""
    is_number = len(np.unique(features[0])) > 2
    return 1 if is_number else min(len(features), _LEVELS_IN_PRODUCTS)


# --- the classifier


def _cross_fitted(features: Array, sides: Array, folds: Array) -> tuple[Array, Array]:
    """Fit and look at rows that were held out, for many sides at once.

    Args:
        features: Shape (rows, features); each of mean 0 and variance 1.
        sides: Whether a row is of the window; booleans, shape (rows, exchanges), the
            real ones first.
        folds: Number of the fold of each row; shape (rows,).

    Returns:
        The mean AUC over folds, shape (exchanges,); and how much each feature adds to
        the distance between the sides' mean scores, for the real ones, shape
        (features,).
    """
    numbers = sides.astype(np.float64)
    sums = features.T @ numbers
    whole = features.sum(axis=0)
    aucs, distances = [], np.zeros(features.shape[1])
    for fold in range(_FOLDS):
        held = folds == fold
        there, those = features[held], numbers[held]
        apart = _apart(
            sums - there.T @ those,
            whole - there.sum(axis=0),
            numbers.sum(axis=0) - those.sum(axis=0),
            len(features) - len(there),
        )
        weights = _shrunken(apart[0], apart[1])
        aucs.append(_aucs(there @ weights, sides[held]))
        if 0 < those[:, 0].sum() < len(those):
            (real,) = _apart(
                (there.T @ those)[:, :1],
                there.sum(axis=0),
                those.sum(axis=0)[:1],
                len(those),
            )[0].T
            distances += weights[:, 0] * real
    found = np.array(aucs)
    known = ~np.isnan(found)
    added = np.where(known, found, 0.0).sum(axis=0)
    return added / np.maximum(known.sum(axis=0), 1), distances


def _apart(sums: Array, whole: Array, ones: Array, rows: int) -> tuple[Array, Array]:
    """Return how far means are apart, and the standard error of that by chance."""
    here, there = np.maximum(ones, 1), np.maximum(rows - ones, 1)
    distance = sums / here - (whole[:, None] - sums) / there
    return distance, np.sqrt(1 / here + 1 / there)


def _shrunken(distance: Array, error: Array) -> Array:
    """Return distances less the threshold; at least the largest always stay."""
    size = np.abs(distance)
    universal = error * math.sqrt(2 * math.log(max(len(distance), 2)))
    threshold = np.minimum(universal, size.max(axis=0) / 2)
    shrunken: Array = np.sign(distance) * np.maximum(size - threshold, 0.0)
    return shrunken


def _aucs(scores: Array, positive: Array) -> Array:
    """Return the AUC of each column, ties counting half; NaN without both sides."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    ones = positive.sum(axis=0).astype(np.float64)
    others = len(scores) - ones
    sums = np.where(positive, ranks, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (sums - ones * (ones + 1) / 2) / (ones * others)
    return np.where(ones * others > 0, found, np.nan)


def _parts(owners: list[tuple[str, ...]], distances: Array) -> tuple[Part, ...]:
    sums: dict[tuple[str, ...], float] = {}
    for owner, distance in zip(owners, distances.tolist(), strict=True):
        sums[owner] = sums.get(owner, 0.0) + distance
    total = sum(sums.values())
    scale = 1.0 / total if total > 0 else math.nan
    parts = [Part(owner, distance * scale) for owner, distance in sums.items()]
    if math.isnan(scale):  # nothing tells them apart
        parts = [Part(owner, 0.0) for owner in sums]
    return tuple(sorted(parts, key=lambda part: (-part.share, part.columns)))


def _ranked(columns: tuple[str, ...], parts: tuple[Part, ...]) -> tuple[str, ...]:
    shares = dict.fromkeys(columns, 0.0)
    for part in parts:
        for name in part.columns:
            shares[name] += part.share / len(part.columns)
    return tuple(sorted(columns, key=lambda name: (-shares[name], name)))
