"""Compares a window with its reference: tests and measures of every column."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from penstock.components.monitoring import column_tests, kernels, laws
from penstock.components.monitoring.column_tests import EFFECTS, WEIGHTS, KsLaw, Tested
from penstock.components.monitoring.explanation import moved, sentence_of
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.measures import (
    ColumnEvidence,
    Label,
    Measure,
    WindowEvidence,
)
from penstock.components.monitoring.profile import ColumnProfile, Profile
from penstock.components.monitoring.slices import is_of
from penstock.schemas.errors import DataError, did_you_mean, quoted

LEVEL = 1e-4
"""Of one column in one window, for critical values where no thresholds are given."""

MODERATE, MAJOR = 0.1, 0.25
"""The customary limits of PSI."""

_FARTHEST = 10.0
_QUARTILES_OF_NORMAL = 1.349


def tests_of(
    reference: ColumnProfile,
    windows: Sequence[ColumnProfile],
    ks_law: KsLaw = kernels.fast_ks_p,
) -> dict[str, Tested]:
    """Return every test of a column that decides, by drift type, in some windows.

    Args:
        reference: The column in the reference.
        windows: The column in each window.
        ks_law: As for `column_tests.numeric_tests`.

    Returns:
        By drift type; arrays of shape (windows,).

    Raises:
        DataError: If a window was counted on another grid.
    """
    for current in windows:
        if reference.grid != current.grid:
            raise DataError(
                f"Column '{current.name}' of the window was counted on another grid "
                "than that of the reference. Profile the window against this reference."
            )
    kind = reference.grid.kind
    # A label that is missing has not come yet, which is no drift.
    types = [] if reference.grid.role == "label" else ["missing"]
    if kind == "numeric":
        types += ["nan", "infinite"]
        if reference.zeros or any(current.zeros for current in windows):
            types.append("zeros")
    counts = {}
    for each in types:
        b, m = _kind_and_all(reference, each)
        pairs = [_kind_and_all(current, each) for current in windows]
        a, n = np.array(pairs, np.float64).T
        counts[each] = (a, n, np.asarray(float(b)), np.asarray(float(m)))
    tests = column_tests.share_tests(counts)
    r = np.asarray(reference.counts)
    c = np.stack([current.counts for current in windows])
    if kind == "numeric":
        tests |= column_tests.numeric_tests(r, c, ks_law=ks_law)
    else:
        unseen = np.array([float(current.unseen_values) for current in windows])
        others = len(reference.grid.others)
        tests |= column_tests.category_tests(
            r, c, unseen, *laws.rare_categories(r, others)
        )
    return tests


def p_over_windows(
    reference: ColumnProfile,
    windows: Sequence[ColumnProfile],
    effects: Mapping[str, float] | None = None,
) -> Array:
    """Return the p-values of a column in windows, of the tests whose effects matter.

    Returns:
        Shape (windows,).
    """
    tests = tests_of(reference, windows)
    p = column_tests.combined_p(tests, reference.grid.kind, effects or EFFECTS)
    mistyped = np.array([each.mistyped / max(each.values, 1) for each in windows])
    gate = (effects or EFFECTS)["type"]
    found: Array = np.where(mistyped > max(gate, 0.0), 0.0, p)
    return found


def compare(
    reference: ColumnProfile,
    current: ColumnProfile,
    *,
    level: float = LEVEL,
    effects: Mapping[str, float] | None = None,
) -> tuple[Measure, ...]:
    """Measure how far a column of a window lies from the reference.

    Args:
        reference: The column in the reference.
        current: The same column in the window, counted on the same grid.
        level: Of the column in one window, for the critical values.
        effects: Least effects by drift type; the default ones where None.

    Returns:
        What is tested by falling weight, then what is only shown.
    """
    tests = tests_of(reference, [current], _exact_ks)
    return _measures(tests, reference, current, level, effects)


def compare_column(
    reference: ColumnProfile,
    current: ColumnProfile,
    *,
    level: float = LEVEL,
    effects: Mapping[str, float] | None = None,
) -> ColumnEvidence:
    """Return what a window says about a column: `compare` with its one p-value."""
    tests = tests_of(reference, [current], _exact_ks)
    kind = reference.grid.kind
    measures = _measures(tests, reference, current, level, effects)
    p = float(column_tests.combined_p(tests, kind)[0])
    if any(
        each.drift_type == "type" and each.effect > each.threshold for each in measures
    ):
        p = 0.0
    return ColumnEvidence(
        name=reference.name,
        role=reference.grid.role,
        kind=kind,
        p_value=p,
        measures=measures,
        missing=(
            reference.missing / max(reference.rows, 1),
            current.missing / max(current.rows, 1),
        ),
        moved=moved(reference, current),
    )


def compare_windows(
    reference: Profile,
    current: Profile,
    *,
    reference_id: str = "",
    level: float = LEVEL,
    effects: Mapping[str, float] | None = None,
    slices: Mapping[str, tuple[Profile, Profile]] | None = None,
) -> WindowEvidence:
    """Return what a window says about all columns of a model.

    Args:
        reference: Profile of the reference.
        current: Profile of the window, on the reference's grid.
        reference_id: Of the reference; the id of its grid if empty.
        level: Of one column in one window, for the critical values; see
            `decision.column_level`.
        effects: Least effects by drift type.
        slices: Of the same columns by name as 'payment_type=Cash': the reference's
            profile and the window's.

    Raises:
        DataError: If the window was counted on another grid, or a slice was.
    """
    pairs = {"": (reference, current), **(slices or {})}
    for name, (left, right) in pairs.items():
        _check(left, right, f"Slice '{name}' of window" if name else "Window")
    columns = {}
    for name, column in reference.columns.items():
        found = compare_column(
            column, current.columns[name], level=level, effects=effects
        )
        parts = {
            part: compare_column(
                left.columns[name], right.columns[name], level=level, effects=effects
            )
            for part, (left, right) in (slices or {}).items()
            if not is_of(name, part)
        }
        columns[name] = dataclasses.replace(found, slices=parts)
    notes = []
    if len(current.versions) > 1:
        listed = ", ".join(
            f"'{version}' ({rows} rows)" for version, rows in current.versions.items()
        )
        notes.append(
            f"The window has rows of {len(current.versions)} versions of the model: "
            f"{listed}."
        )
    return WindowEvidence(
        window=current.window,
        rows=current.rows,
        reference_id=reference_id or reference.grid.id,
        reference_rows=reference.rows,
        columns=columns,
        notes=tuple(notes),
    )


def shared_slices(
    reference: Profile, current: Profile, least_rows: int
) -> dict[str, tuple[Profile, Profile]]:
    """Return the slices that both have with rows enough, as `compare_windows` takes.

    Args:
        reference: Profile of the reference.
        current: Profile of the window.
        least_rows: Below them a slice decides nothing.
    """
    return {
        name: (each, current.slices[name])
        for name, each in reference.slices.items()
        if name in current.slices
        and min(each.rows, current.slices[name].rows) >= least_rows
    }


def _check(reference: Profile, current: Profile, what: str) -> None:
    if reference.grid.id == current.grid.id:
        return
    lacks = set(current.grid.columns) - set(reference.grid.columns)
    more = set(reference.grid.columns) - set(current.grid.columns)
    if lacks:
        near = "".join(
            did_you_mean(name, reference.grid.columns) for name in sorted(lacks)[:1]
        )
        raise DataError(
            f"The reference lacks the columns {quoted(lacks)} that {what.lower()} "
            f"'{current.window.name}' has.{near} Make a reference that has them, or "
            "profile the window on the reference's grid."
        )
    if more:
        raise DataError(
            f"{what} '{current.window.name}' lacks the columns {quoted(more)} of the "
            "reference. Profile it on the reference's grid: a column that is gone is "
            "then counted as missing."
        )
    for name, column in reference.grid.columns.items():
        other = current.grid.columns[name]
        if column.kind != other.kind:
            raise DataError(
                f"Column '{name}' is a {column.kind} column in the reference and a "
                f"{other.kind} column in {what.lower()} '{current.window.name}'. "
                "Profile the window on the reference's grid."
            )
    raise DataError(
        f"{what} '{current.window.name}' was counted on grid {current.grid.id}, and "
        f"the reference has {reference.grid.id}. Profile the window against this "
        "reference."
    )


def _kind_and_all(column: ColumnProfile, drift_type: str) -> tuple[int, int]:
    """Return how many rows or values are of a kind, and out of how many."""
    return {
        "missing": (column.missing, column.rows),
        "nan": (column.nan, column.values),
        "infinite": (column.pos_inf + column.neg_inf, column.values),
        "zeros": (column.zeros, column.finite),
    }[drift_type]


def _exact_ks(distance: Array, n: Array, m: Array) -> Array:
    return kernels.ks_p(distance, float(n[0]), float(m[0]))


def _measures(
    tests: Mapping[str, Tested],
    reference: ColumnProfile,
    current: ColumnProfile,
    level: float,
    effects: Mapping[str, float] | None,
) -> tuple[Measure, ...]:
    limits = {**EFFECTS, **(effects or {})}
    kind = reference.grid.kind
    n, m = _values(current), _values(reference)
    found = []
    for drift_type, weight in WEIGHTS[kind].items():
        test = tests.get(drift_type)
        if test is None:
            continue
        on_rows = drift_type == "missing"
        sizes = (current.rows, reference.rows) if on_rows else (n, m)
        found.append(
            Measure(
                reference.name,
                drift_type,
                float(test.value[0]),
                float(test.effect[0]),
                float(test.p[0]),
                _critical(drift_type, level * weight, sizes, reference, current),
                limits[drift_type],
            )
        )
    found += _shown(reference, current, level, limits)
    if current.mistyped:
        share = current.mistyped / max(current.values, 1)
        found.append(
            Measure(reference.name, "type", share, share, 0.0, 0.0, limits["type"])
        )
    return tuple(
        dataclasses.replace(each, sentence=sentence_of(each, reference, current))
        for each in found
    )


def _values(column: ColumnProfile) -> int:
    return int(np.asarray(column.counts).sum()) + column.unseen_values


def _critical(
    drift_type: str,
    p: float,
    sizes: tuple[int, int],
    reference: ColumnProfile,
    current: ColumnProfile,
) -> float:
    """Return the least value that has at most a p-value."""
    from scipy import special

    n, m = sizes
    size = float(kernels.harmonic(n, m))
    if not size:
        return math.nan
    z = -float(special.ndtri(p / 2))
    if drift_type == "ks":
        return kernels.ks_critical(p, n, m)
    if drift_type == "mean_shift":
        return math.sqrt(math.pi / 3) * z / math.sqrt(size)
    if drift_type == "chi_squared":
        degrees = _degrees(reference, current)
        return float(special.chdtri(degrees, p)) if degrees else math.nan
    share = {
        "missing": reference.missing,
        "nan": reference.nan,
        "infinite": reference.pos_inf + reference.neg_inf,
        "zeros": reference.zeros,
    }.get(drift_type, 0) / max(m, 1)
    if drift_type == "l_infinity":
        share = float(kernels.shares(reference.counts).max())
    rows = math.log(p / 2) / math.log(n / (n + m))
    return max(z * math.sqrt(share * (1 - share) / size), rows / n)


def _degrees(reference: ColumnProfile, current: ColumnProfile) -> int:
    if reference.grid.kind == "numeric":
        return len(kernels.bins_of(np.asarray(reference.counts))) - 1
    r, c = np.asarray(reference.counts), np.asarray(current.counts)
    unseen = np.asarray(float(current.unseen_values))
    rest = (np.asarray(float(r[-1])), c[-1] + unseen)
    return int(kernels.pooled_chi_squared(r[:-1], c[:-1], rest)[1])


def _shown(
    reference: ColumnProfile,
    current: ColumnProfile,
    level: float,
    limits: Mapping[str, float],
) -> list[Measure]:
    """Return the distances that are only shown, with what chance makes of them."""
    from scipy import special

    r, c = np.asarray(reference.counts, float), np.asarray(current.counts, float)
    if reference.grid.kind == "numeric":
        starts = kernels.bins_of(r)
        r, c = kernels.binned(r, starts), kernels.binned(c, starts)
    else:
        r = np.append(r, 0.0)
        c = np.append(c, float(current.unseen_values))
    n, m = float(c.sum()), float(r.sum())
    if not n or not m:
        return []
    size = float(kernels.harmonic(n, m))
    places = int(((r + c) > 0).sum())
    degrees = places - 1
    reach = float(special.chdtri(degrees, level)) / size if degrees else math.nan
    psi = float(kernels.psi(r, c))
    divergence = float(kernels.jensen_shannon(r, c))
    hellinger = float(kernels.hellinger(r, c))
    eighth = degrees / (8 * size)

    def measure(
        name: str, value: float, effect: float, p: float | None, critical: float
    ) -> Measure:
        label: Label = "none"
        if name == "psi":
            label = "major" if effect >= MAJOR else "moderate"
            label = label if effect >= MODERATE else "none"
        return Measure(
            reference.name, name, value, effect, p, critical, limits[name], label
        )

    found = [
        measure(
            "psi",
            psi,
            max(psi - float(kernels.psi_null(places, n, m)), 0.0),
            float(kernels.chi_squared_p(psi * size, degrees)),
            reach,
        ),
        measure(
            "js",
            math.sqrt(divergence),
            math.sqrt(max(divergence - eighth / math.log(2), 0.0)),
            None,
            math.sqrt(reach / (8 * math.log(2))),
        ),
        measure(
            "hellinger",
            hellinger,
            math.sqrt(max(hellinger**2 - eighth, 0.0)),
            None,
            math.sqrt(reach / 8),
        ),
    ]
    if reference.grid.kind == "numeric":
        value, chance = wasserstein(reference, current)
        effect = math.sqrt(max(value**2 - chance**2, 0.0))
        found.append(measure("wasserstein", value, effect, None, math.nan))
    return found


def wasserstein(
    reference: ColumnProfile, current: ColumnProfile
) -> tuple[float, float]:
    """Return the Wasserstein distance in spreads, and what chance makes of it.

    A spread is the distance of the reference's quartiles by 1.349, which is the
    standard deviation of normal values; where the quartiles are equal, that of the
    quantiles 5 % and 95 % by 3.29, else of the ends. Values farther than 10 spreads
    from the quartiles count as there, so that one of 1e9 does not blind it.
    """
    r, c = np.asarray(reference.counts, float), np.asarray(current.counts, float)
    edges = reference.grid.edges
    if not len(edges) or not c.sum() or not r.sum():
        return 0.0, 0.0
    low = min(current.minimum, edges[0]) if current.below else edges[0]
    high = max(current.maximum, edges[-1]) if current.above else edges[-1]
    values = np.concatenate([[low], edges, [high]])
    cumulative = np.cumsum(r) / r.sum()

    def at(share: float) -> float:
        return float(values[np.searchsorted(cumulative, share)])

    spread = (at(0.75) - at(0.25)) / _QUARTILES_OF_NORMAL
    spread = spread or (at(0.95) - at(0.05)) / 3.29 or float(edges[-1] - edges[0])
    if not spread:
        spread = max(abs(float(edges[0])), 1.0)
    reach = _FARTHEST * spread
    values = np.clip(values, at(0.25) - reach, at(0.75) + reach)
    distance = float(kernels.wasserstein(r, c, values)) / spread
    size = float(kernels.harmonic(c.sum(), r.sum()))
    # E|B(F(x))| of the Brownian bridge, summed over the values.
    noise = np.sqrt(cumulative * (1 - cumulative))[:-1] * np.diff(values)
    chance = math.sqrt(2 / math.pi / size) * float(noise.sum()) / spread
    return distance, chance
