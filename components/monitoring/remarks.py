"""What is to be known about a reference or a window before its numbers are believed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from penstock.components.monitoring.distinct import STANDARD_ERROR
from penstock.components.monitoring.grid import MOST_CATEGORIES, ColumnGrid, Grid
from penstock.components.monitoring.gridding import MOST_OTHERS
from penstock.components.monitoring.names import MOST_NAMES
from penstock.components.monitoring.profile import ColumnProfile, Profile


def remarks_on_grid(grid: Grid) -> tuple[str, ...]:
    """Return a sentence for each column that can be watched only in part.

    One that is constant or empty in the reference, or has more values than are kept
    by name.
    """
    return tuple(remark for column in grid for remark in _on_grid(column))


def remarks_on(profile: Profile) -> tuple[str, ...]:
    """Return a sentence for each thing that a window's numbers leave out.

    Infinite values and NaN, values of another type, names beyond those that are kept,
    several versions of the model.
    """
    found = [
        remark for column in profile.columns.values() for remark in _on_column(column)
    ]
    if len(profile.versions) > 1:
        listed = ", ".join(
            f"'{version}' ({rows} rows)" for version, rows in profile.versions.items()
        )
        found.insert(
            0,
            f"Window '{profile.window.name}' mixes versions of the model: {listed}. "
            "What differs between them shows as drift; profile each by itself.",
        )
    return tuple(found)


def _on_grid(column: ColumnGrid) -> Iterator[str]:
    name = f"Column '{column.name}'"
    if column.kind == "numeric" and len(column.edges) == 1:
        yield (
            f"{name} is {column.edges[0]:g} in the whole reference: any other value is "
            "a change, and how large a change is cannot be told. Leave it out, or "
            "take a longer reference."
        )
    if not len(column.edges) and not column.categories:
        yield (
            f"{name} has no value in the reference: any value is a change. Leave it "
            "out, or take a reference that has it."
        )
    if column.kind == "category" and len(column.categories) == 1 and not column.is_open:
        yield (
            f"{name} is '{column.categories[0]}' in the whole reference: any other "
            "value is unseen. Leave it out, or take a longer reference."
        )
    if column.is_open:
        yield (
            f"{name} has more than {MOST_CATEGORIES + MOST_OTHERS} values in the "
            f"reference. The {MOST_CATEGORIES} most frequent are counted by name and "
            "all others as one, so that unseen ones are not told. Leave it out if it "
            "is an id."
        )
    elif len(column.others):
        yield (
            f"{name} has {len(column.categories) + len(column.others)} values in the "
            f"reference. The {MOST_CATEGORIES} most frequent are counted by name and "
            "the others as one."
        )


def _on_column(column: ColumnProfile) -> Iterator[str]:
    name = f"Column '{column.name}'"
    if infinite := column.pos_inf + column.neg_inf:
        yield (
            f"{name} has {infinite} infinite values of {column.values}. They are "
            "counted as such, and left out of places and sums."
        )
    if column.nan:
        yield (
            f"{name} has {column.nan} NaN values of {column.values}. They are counted "
            "as such, apart from the missing ones."
        )
    if column.mistyped:
        yield (
            f"{name} has {column.mistyped} values of type {column.type} where the "
            f"reference has {column.grid.type}. Convert it where it is logged."
        )
    if not math.isfinite(column.sum_squares):
        yield (
            f"{name} has values whose squares are beyond the largest float: its "
            "variance is not known. Places and counts are."
        )
    if column.unseen_error:
        yield (
            f"{name} has more unseen values than the {MOST_NAMES} that are kept by "
            f"name: about {column.distinct.estimate():.0f} distinct ones "
            f"(standard error {STANDARD_ERROR:.1%}). {len(column.unseen)} of "
            f"{column.unseen_values} unseen values have a name, with counts up to "
            f"{column.unseen_error} too low."
        )
