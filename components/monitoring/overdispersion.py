"""What a reference's own windows say: days differ more than independent rows do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from penstock.components.monitoring import procedures
from penstock.components.monitoring.comparing import p_over_windows
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.profile import Profile, merged

LEAST_WINDOWS = 8
"""A shorter history says nothing about how much its windows vary."""

_QUANTILE = 0.8
_BLOCK = 7
_RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class History:
    """The windows of a reference, each compared with all the others together.

    Attributes:
        p: P-values by column, shape (windows,); only effects that matter count.
    """

    p: Mapping[str, Array]

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(next(iter(self.p.values()), ()))

    def inflation(
        self, columns: Mapping[str, str], expected: Sequence[Array]
    ) -> dict[str, float]:
        """Return by how much a column's windows vary more than independent rows would.

        The ratio of squared z, at their 80 % quantiles, so that one bad day neither
        hides drift later nor makes an alert now. Only ratios that chance does not make
        are kept.

        Args:
            columns: Roles by name.
            expected: For each of them p-values of replayed windows.
        """
        found: dict[str, float] = {}
        if self.windows < LEAST_WINDOWS:
            return found
        for name, sample in zip(columns, expected, strict=True):
            usual = float(np.quantile(_squared_z(sample), _QUANTILE))
            seen = float(np.quantile(_squared_z(self.p[name]), _QUANTILE))
            ratio = seen / max(usual, 0.5)
            if ratio > 1 + 4 / math.sqrt(self.windows):
                found[name] = ratio
        return found


def history_of(history: Sequence[Profile], effects: Mapping[str, float]) -> History:
    """Compare every window with all the others of a history."""
    whole = merged(history)
    p: dict[str, list[Array]] = {name: [] for name in whole.columns}
    for window in history:
        others = whole - window
        for name, column in window.columns.items():
            found = p_over_windows(others.columns[name], [column], effects)
            p[name].append(found)
    return History({name: np.concatenate(each) for name, each in p.items()})


def level_of_history(
    history: History,
    inflation: Mapping[str, float],
    roles: Sequence[str],
    groups: Mapping[str, float] | None,
    levels: Array,
    rate: float,
    persistence: tuple[int, int, float, float],
    seed: int,
) -> float:
    """Return the greatest level at which the real windows keep the budget.

    Blocks of a week are drawn with replacement, all columns together: what columns
    have in common stays, and so does what days in a row have.

    Args:
        history: The windows.
        inflation: By column, what their p-values are corrected for first.
        roles: Of the columns.
        groups: Shares of the level by role.
        levels: To choose from, rising.
        rate: Alerts per window that are borne.
        persistence: k, m, the share of one window alone, and the correlation.
        seed: Of the blocks.
    """
    rng = np.random.default_rng(seed)
    k, m, once, correlation = persistence
    p = np.stack(
        [
            procedures.deflated(each, inflation.get(name, 1.0))
            for name, each in history.p.items()
        ]
    )
    windows = p.shape[-1]
    blocks = math.ceil(windows / _BLOCK)
    found = []
    for _ in range(_RESAMPLES):
        starts = rng.integers(0, windows, size=blocks)
        picked = (starts[:, None] + np.arange(_BLOCK)).ravel()[:windows] % windows
        over = procedures.over_windows(p[:, picked], k, m, correlation, once)
        found.append(procedures.model_p(over[:, m - 1 :], roles, groups))
    model = np.stack(found)
    best = float(levels[0])
    for level in levels:
        alert = model <= level
        if (alert[:, 1:] & ~alert[:, :-1]).mean() > rate or alert.mean() > 3 * rate:
            break
        best = float(level)
    return best


def _squared_z(p: Array) -> Array:
    from scipy import special

    with np.errstate(divide="ignore"):
        z = special.ndtri_exp(np.log(np.maximum(p, 1e-300)) - math.log(2))
    squared: Array = np.minimum(z, 0.0) ** 2
    return squared
