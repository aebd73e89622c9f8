"""A column's distribution beside the reference's, in few enough bins to look at."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from penstock.components.monitoring.document import DistributionOf
from penstock.components.monitoring.profile import ColumnProfile

BINS = 20
"""How many bins a numeric column is shown in."""

CATEGORIES = 12
"""How many categories are shown by name."""

_TAIL = 0.005
_UNSEEN = 3

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def distribution(
    reference: ColumnProfile, current: ColumnProfile
) -> DistributionOf | None:
    """Return shares of the present values by bin, of the reference and of a window.

    Bins of a numeric column are of one width between the reference's 0.5 % and 99.5 %
    quantiles, and one per value where there are few; what is beyond falls into the
    outer ones. Of a category column the most frequent values of either side are named.

    Args:
        reference: On the grid of the column.
        current: On the same grid.

    Returns:
        None if one of them has no values.
    """
    if not reference.values or not current.values:
        return None
    if reference.grid.kind == "numeric":
        bins, sides = _numeric(reference, current)
    else:
        bins, sides = _categories(reference, current)
    shares = [
        [round(float(count) / profile.values, 6) for count in side]
        for side, profile in zip(sides, (reference, current), strict=True)
    ]
    return {"bins": bins, "reference": shares[0], "current": shares[1]}


def _numeric(
    reference: ColumnProfile, current: ColumnProfile
) -> tuple[list[str], list[list[float]]]:
    edges = reference.grid.edges
    if len(edges) <= BINS:
        limits = edges
        bins = [f"below {edges[0]:.4g}"] if len(edges) else []
        bins += [f"{edge:.4g}" for edge in edges]
        bins += [f"above {edges[-1]:.4g}"] if len(edges) else ["all"]
        # A place between two values is empty in the reference, and never in a window
        # whose values are the same.
        sides = [[float(each) for each in side.counts] for side in (reference, current)]
        if not len(edges):
            sides = [[float(side.counts.sum())] for side in (reference, current)]
    else:
        limits = _limits(edges, reference.counts)
        uppers = np.concatenate([edges[:1], edges, [np.inf]])
        bin_of = np.searchsorted(limits, uppers, side="left")
        bins = [f"up to {limits[0]:.4g}"]
        bins += [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(limits)]
        bins += [f"above {limits[-1]:.4g}"]
        sides = [
            np.bincount(bin_of, side.counts, minlength=len(bins)).tolist()
            for side in (reference, current)
        ]
    odd = [
        side.nan + side.pos_inf + side.neg_inf + side.mistyped
        for side in (reference, current)
    ]
    if any(odd):
        bins.append("no finite number")
        for side, count in zip(sides, odd, strict=True):
            side.append(float(count))
    return bins, sides


def _limits(edges: Floats, counts: Ints) -> Floats:
    """Return what divides the middle of the reference evenly; they rise."""
    total = np.cumsum(counts)[1:-1]  # of the places that end at an edge
    low = edges[np.searchsorted(total, _TAIL * total[-1])]
    high = edges[min(np.searchsorted(total, (1 - _TAIL) * total[-1]), len(edges) - 1)]
    limits = np.unique(np.linspace(low, high, BINS - 1))
    return np.asarray(limits, np.float64)


def _categories(
    reference: ColumnProfile, current: ColumnProfile
) -> tuple[list[str], list[list[float]]]:
    names = reference.grid.categories
    sides = (reference.counts, current.counts)
    highest = np.maximum(*(each[: len(names)] / max(each.sum(), 1) for each in sides))
    shown = np.argsort(-highest, kind="stable")[:CATEGORIES]
    bins = [names[place] for place in shown]
    found = [[float(each[place]) for place in shown] for each in sides]
    rest = [float(each.sum() - each[shown].sum()) for each in sides]
    if any(rest):
        bins.append("all others")
        for side, count in zip(found, rest, strict=True):
            side.append(count)
    if current.unseen_values or reference.unseen_values:
        most = sorted(current.unseen, key=lambda name: -current.unseen[name])[:_UNSEEN]
        more = ", …" if len(current.unseen) > _UNSEEN or current.unseen_other else ""
        bins.append(f"not in the reference ({', '.join(most)}{more})")
        for side, profile in zip(found, (reference, current), strict=True):
            side.append(float(profile.unseen_values))
    mistyped = [float(each.mistyped) for each in (reference, current)]
    if any(mistyped):
        bins.append("of another type")
        for side, count in zip(found, mistyped, strict=True):
            side.append(count)
    return bins, found
