"""How rows are dealt out to splits: by hash, by key, by time, or stratified.

Only what a user declares; `components.columns.splits` does the dealing. Every rule but
`ByTime` gives a split its share by weight, as TFX's hash buckets do.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

from penstock.schemas.artifacts import check_split_name
from penstock.schemas.errors import PipelineError

DEFAULT_WEIGHTS: Mapping[str, int] = {"train": 2, "eval": 1}
"""What TFX's ExampleGens do unless told otherwise."""

_MOST_WEIGHT = 1 << 31


@dataclasses.dataclass(frozen=True)
class ByHash:
    """Deal out rows by a hash of their content.

    Rows that are equal go to the same split. A split's share comes out at its weight
    within the scatter of independent draws: of n different rows a split with the share
    p gets n p, give or take about 2 sqrt(n p (1 - p)). A mapping of weights alone
    means the same.

    Attributes:
        weights: The weight of every split, whole numbers of at least 1.
    """

    weights: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_weights(self.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(self.weights)


@dataclasses.dataclass(frozen=True)
class ByKey:
    """Deal out keys by their hash: no key is in two splits.

    For rows that belong together, such as those of one user. It is the number of
    different keys, not of rows, that follows the weights. Rows whose key is missing
    are one key.

    Attributes:
        column: Name of the column that holds the key, or of several.
        weights: The weight of every split, whole numbers of at least 1.
    """

    column: str | tuple[str, ...]
    weights: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_weights(self.weights)
        if not self.columns or not all(
            isinstance(name, str) and name for name in self.columns
        ):
            raise PipelineError(
                f"ByKey.column is {self.column!r}, which names no column. Pass the "
                "name of the key column, or a tuple of names."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the key columns."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(self.weights)


@dataclasses.dataclass(frozen=True)
class ByTime:
    """Deal out rows by a column of times: what came before, and what came after.

    Example:
        ByTime("trip_start_timestamp", {"train": 1_400_000_000, "eval": None})

    Attributes:
        column: Name of the column: numbers, dates, timestamps, or text that sorts as
            time does, such as ISO 8601.
        until: For every split, in order of time, the time at which it ends, of the
            column's own kind (ISO text for dates and timestamps). Rows at that very
            time belong to the next split. The last split has None: it takes the rest.
    """

    column: str
    until: Mapping[str, int | float | str | None]

    def __post_init__(self) -> None:
        _check_names(self.until)
        *ends, last = self.until.values()
        if last is not None or any(end is None for end in ends):
            raise PipelineError(
                f"ByTime.until is {dict(self.until)!r}. Give every split the time at "
                "which it ends, and the last one, and only that, None."
            )
        if len({isinstance(end, str) for end in ends}) > 1 or any(
            isinstance(end, bool) or not isinstance(end, int | float | str)
            for end in ends
        ):
            raise PipelineError(
                f"ByTime.until is {dict(self.until)!r}. Give times of one kind: all "
                "numbers, or all text."
            )
        if any(not a < b for a, b in itertools.pairwise(ends)):  # type: ignore[operator]
            raise PipelineError(
                f"ByTime.until is {dict(self.until)!r}, whose times do not rise. Name "
                "the splits in order of time."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(self.until)


@dataclasses.dataclass(frozen=True)
class Stratified:
    """Deal out rows so that every value of a column is in every split by weight.

    Within each value's rows, ranked by a hash of their content, every split gets its
    share to within one row. Equal rows stay together, and can shift a share by as many
    as there are of them. It reads the input once more, and holds 16 bytes per row.

    Attributes:
        column: Name of the column; rows where it is missing are one stratum.
        weights: The weight of every split, whole numbers of at least 1.
    """

    column: str
    weights: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_weights(self.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(self.weights)


def _check_names(splits: Mapping[str, object]) -> None:
    if not splits:
        raise PipelineError(
            'No split is named. Name at least one, as {"train": 4, "eval": 1}.'
        )
    for name in splits:
        check_split_name(name)


def _check_weights(weights: Mapping[str, int]) -> None:
    _check_names(weights)
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:
            raise PipelineError(
                f"Split '{name}' has the weight {weight!r}. Weights are whole numbers "
                "of at least 1; leave out a split that gets nothing."
            )
    if sum(weights.values()) >= _MOST_WEIGHT:
        raise PipelineError(
            f"The weights of the splits add up to {sum(weights.values())}. Divide them "
            f"so that they stay below {_MOST_WEIGHT}."
        )
