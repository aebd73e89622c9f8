"""From a budget of false alerts to the level that keeps it.

Months without drift are replayed: a reference and windows are drawn anew from the
reference's own counts, tested and decided about as real ones are, and the alerts are
counted. The reference is drawn, too, because its noise repeats in every window that is
compared with it.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from penstock.components.monitoring import column_tests, laws, procedures
from penstock.components.monitoring.decision import Thresholds
from penstock.components.monitoring.kernels import Array
from penstock.components.monitoring.laws import ColumnLaw, ValueLaw
from penstock.components.monitoring.overdispersion import (
    history_of,
    level_of_history,
)
from penstock.components.monitoring.profile import Profile
from penstock.schemas.errors import DataError, did_you_mean

MONTH = 30.4
"""Days of a month."""

_WINDOWS = 91
_BATCHES = 10
_REPLAYS = 40
_LEAST_PATHS = 3
_SAMPLE = _BATCHES * _LEAST_PATHS
_COLUMN_WINDOWS = 700_000
_EACH, _LEAST = 14_000, 80_000
_LEVELS = np.exp(np.linspace(math.log(1e-5), math.log(0.5), 109))
_LONGEST_ALERTS = 3.0
# What a replay does not know: the laws are estimates, and columns are made coarse.
_AIM = 0.85


class Referenced(Protocol):
    """What thresholds are calibrated for; a `Reference` is one."""

    @property
    def profile(self) -> Profile:
        """All of its rows."""

    @property
    def history(self) -> tuple[Profile, ...]:
        """Its windows, in the order of time; may be empty."""

    @property
    def id(self) -> str:
        """'sha256:...' of its content."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What replayed months come to at a level.

    Attributes:
        alerts: Per model and month.
        error: Its standard error.
        alerting: Share of windows in the state alert.
    """

    alerts: float
    error: float
    alerting: float


def calibrate(
    reference: Referenced,
    rows_per_window: int,
    budget: float = 1.0,
    windows_per_month: float = MONTH,
    *,
    k: int = 2,
    m: int = 3,
    once: float = 0.3,
    min_rows: int = 500,
    effects: Mapping[str, float] | None = None,
    groups: Mapping[str, float] | None = None,
    require_history: bool = False,
    seed: int = 0,
) -> Thresholds:
    """Return the thresholds that keep a budget of false alerts.

    Args:
        reference: What windows will be compared with.
        rows_per_window: Rows of a typical window.
        budget: False alerts per model and month that are borne, on average.
        windows_per_month: 30.4 for days, 730 for hours.
        k: In how many of the last m windows drift has to be there.
        m: See `k`.
        once: Share of the level for drift so clear that one window is enough.
        min_rows: Below them a window decides nothing.
        effects: Least effects by drift type, where other than the default.
        groups: Shares of the level by role, where other than the default.
        require_history: Whether a history too short for the budget is an error;
            otherwise a sentence in the notes says so.
        seed: Of the replay.

    Raises:
        DataError: If the budget, k and m, an effect or the sizes cannot be, or the
            history is too short.
    """
    _check(rows_per_window, budget, windows_per_month, k, m, once, effects, groups)
    columns = reference.profile.columns
    laws_of = {name: laws.law_of(column) for name, column in columns.items()}
    wanted = {**column_tests.EFFECTS, **(effects or {})}
    gates = _gates(wanted, sliced=bool(reference.profile.slices))
    found, replay = _calibrated(
        list(laws_of.values()),
        reference.profile.rows,
        Thresholds(
            level=0.0,
            k=k,
            m=m,
            min_rows=min_rows,
            effects=wanted,
            once=once,
            groups=procedures.default_shares(groups),
            budget=budget,
            windows_per_month=windows_per_month,
            rows_per_window=rows_per_window,
            reference_id=reference.id,
            reference_rows=reference.profile.rows,
            seed=seed,
        ),
        gates,
    )
    needed = math.ceil(3 * windows_per_month / budget) + m
    sentence = (
        f"The reference has a history of {len(reference.history)} windows, too short "
        f"to show that {budget:g} alerts in {windows_per_month:g} windows are kept: it "
        f"would have to be {needed} windows."
    )
    short = len(reference.history) < needed
    if short and require_history:
        raise DataError(f"{sentence} Collect them, or raise the budget.")
    if reference.history:
        found = _with_history(found, replay, laws_of, reference.history, short, gates)
    if short:
        found = dataclasses.replace(
            found,
            notes=(
                *found.notes,
                f"{sentence} Until then the level rests on replayed windows of "
                "independent rows.",
            ),
        )
    return found


def thresholds_of(
    columns: Sequence[ColumnLaw],
    reference_rows: int,
    rows_per_window: int,
    thresholds: Thresholds | None = None,
    *,
    sliced: bool = False,
) -> Thresholds:
    """Return thresholds for columns of known laws; see `calibrate`.

    Args:
        columns: Their laws.
        reference_rows: Rows of references.
        rows_per_window: Rows of windows.
        thresholds: What is wanted beside the level; the default if None.
        sliced: Whether columns are compared in slices, too.
    """
    wanted = thresholds or Thresholds(
        level=0.0,
        effects=dict(column_tests.EFFECTS),
        groups=procedures.default_shares(None),
    )
    wanted = dataclasses.replace(
        wanted, rows_per_window=rows_per_window, reference_rows=reference_rows
    )
    gates = _gates(wanted.effects, sliced=sliced)
    return _calibrated(columns, reference_rows, wanted, gates)[0]


def _gates(effects: Mapping[str, float], *, sliced: bool) -> Mapping[str, float]:
    """Return the least effects that a replay counts on.

    They make alerts rare, so that it takes a high level. Slices have fewer rows, and
    chance alone reaches those effects there: their level has to keep the budget without
    them.
    """
    return dict.fromkeys(effects, 0.0) if sliced else effects


def _calibrated(
    columns: Sequence[ColumnLaw],
    reference_rows: int,
    wanted: Thresholds,
    gates: Mapping[str, float],
) -> tuple[Thresholds, Replay]:
    replay = Replay(
        columns,
        reference_rows,
        max(wanted.rows_per_window, wanted.min_rows),
        k=wanted.k,
        m=wanted.m,
        once=wanted.once,
        effects=gates,
        groups=wanted.shares,
        seed=wanted.seed,
    )
    level = replay.level(wanted.budget, wanted.windows_per_month)
    return _at(dataclasses.replace(wanted, level=level), replay), replay


def _at(thresholds: Thresholds, replay: Replay) -> Thresholds:
    """Return thresholds with what their level comes to in the replay."""
    month = thresholds.windows_per_month
    found = replay.at(thresholds.level, month)
    half = 1.96 * found.error
    return dataclasses.replace(
        thresholds,
        expected=found.alerts,
        interval=(max(found.alerts - half, 0.0), found.alerts + half),
        run_length=month / max(found.alerts, 1e-9),
        replayed=replay.years(month),
    )


def _with_history(
    thresholds: Thresholds,
    replay: Replay,
    columns: Mapping[str, ColumnLaw],
    windows: Sequence[Profile],
    short: bool,
    gates: Mapping[str, float],
) -> Thresholds:
    """Return thresholds that the reference's own windows have had a say in."""
    history = history_of(windows, gates)
    roles = {name: law.role for name, law in columns.items()}
    inflation = history.inflation(roles, replay.scores)
    notes = _inflation_notes(inflation)
    level = thresholds.level
    if not short:
        rows = max(thresholds.rows_per_window, thresholds.min_rows)
        correlation = rows / (rows + thresholds.reference_rows)
        held = level_of_history(
            history,
            inflation,
            list(roles.values()),
            thresholds.shares,
            _LEVELS,
            thresholds.budget / thresholds.windows_per_month,
            (thresholds.k, thresholds.m, thresholds.once, correlation),
            thresholds.seed,
        )
        if held < level:
            notes.append(
                f"The reference's own {len(windows)} windows vary more than "
                f"independent rows: the level is {held:.2g}, not {level:.2g}."
            )
            level = held
    found = dataclasses.replace(
        thresholds, level=level, inflation=inflation, notes=tuple(notes)
    )
    return _at(found, replay)


class Replay:
    """Replayed months of a model whose columns do not drift.

    Columns are drawn independently of one another: real ones that move together raise
    fewer alerts, not more. Columns of one law share a pool of paths, each a reference
    and the windows that were compared with it; a replay takes one path for each column.

    Attributes:
        model_p: P-values of the model, shape (batches, replays, windows).
        scores: Of each column, by position: a sample of its p-values in one window,
            before windows are looked at together.
    """

    def __init__(
        self,
        columns: Sequence[ColumnLaw],
        reference_rows: int,
        rows: int,
        *,
        k: int,
        m: int,
        once: float,
        effects: Mapping[str, float],
        groups: Mapping[str, float] | None = None,
        seed: int = 0,
        column_windows: int | None = None,
    ) -> None:
        self._columns = columns
        self._sizes = (reference_rows, rows)
        self._effects = effects
        self._windows = _WINDOWS + m - 1
        self._rng = np.random.default_rng(seed)
        roles = [column.role for column in columns]
        parts = [_parts(column) for column in columns]
        # Each column adds to the pool of its law, so that the laws that stand for many
        # columns are known best.
        users = collections.Counter(part for each in parts for part in each)
        count = max(len(columns), 1)
        # The fewer columns, the more often each of them is what an alert is about.
        wanted = min(max(_EACH * count, _LEAST), _COLUMN_WINDOWS)
        share = (column_windows or wanted) / self._windows / count
        pools = {
            part: self._pool(part, max(round(share * uses), _LEAST_PATHS * _BATCHES))
            for part, uses in sorted(users.items(), key=repr)
        }
        correlation = rows / (rows + reference_rows)

        self.scores = [
            np.minimum.reduce([pools[part][:_SAMPLE] for part in each])
            if each
            else np.ones((1, self._windows))
            for each in parts
        ]
        found = []
        for batch in range(_BATCHES):
            for _ in range(_REPLAYS):
                p = np.ones((len(columns), self._windows), np.float64)
                for i, each in enumerate(parts):
                    for part in each:
                        size = len(pools[part]) // _BATCHES
                        path = batch * size + int(self._rng.integers(size))
                        np.minimum(p[i], pools[part][path], out=p[i])
                over = procedures.over_windows(p, k, m, correlation, once)
                found.append(procedures.model_p(over[:, m - 1 :], roles, groups))
        self.model_p = np.stack(found).reshape(_BATCHES, _REPLAYS, -1)

    def _pool(self, part: _Part, paths: int) -> Array:
        """Return the p-values of one part of a column, shape (paths, windows)."""
        law, per_row = part[0], part[1]
        reference_rows, rows = self._sizes
        shape = (paths, self._windows)
        if isinstance(law, ValueLaw):
            sizes = round(reference_rows * per_row), round(rows * per_row)
            return np.stack(
                [
                    laws.replay_values(
                        law, self._rng, *sizes, self._windows, self._effects
                    )
                    for _ in range(paths)
                ]
            )
        return laws.replay_shares(
            part[2], law, per_row, self._rng, reference_rows, rows, shape, self._effects
        )

    def at(self, level: float, windows_per_month: float) -> Replayed:
        """Return what the replayed months come to at a level."""
        alert = self.model_p <= level
        begun = alert[..., 1:] & ~alert[..., :-1]
        monthly = begun.mean((1, 2)) * windows_per_month
        return Replayed(
            float(monthly.mean()),
            float(monthly.std(ddof=1) / math.sqrt(_BATCHES)),
            float(alert.mean()),
        )

    def level(self, budget: float, windows_per_month: float) -> float:
        """Return the greatest level at which the budget is surely kept.

        Levels are tried from the smallest up to the first one whose upper 95 % bound
        of alerts is above 85 % of the budget, or at which the state would be alert so
        often that few alerts could begin.
        """
        best = float(_LEVELS[0])
        longest = _LONGEST_ALERTS * budget / windows_per_month
        for level in _LEVELS:
            found = self.at(float(level), windows_per_month)
            bound = found.alerts + 1.645 * found.error
            if bound > _AIM * budget or found.alerting > longest:
                break
            best = float(level)
        return best

    def years(self, windows_per_month: float) -> float:
        """Return how many model-years were replayed."""
        return float(self.model_p.size / windows_per_month / 12)


_Part = tuple[ValueLaw, float, str] | tuple[str, float, str]


def _parts(column: ColumnLaw) -> list[_Part]:
    """Return what a column is replayed as: its values, and each share of its rows."""
    kind = "numeric" if column.values is None else column.values.kind
    parts: list[_Part] = [
        (drift_type, share, kind) for drift_type, share in column.shares.items()
    ]
    if column.values is not None:
        parts.append((column.values, column.per_row, kind))
    return parts


def _inflation_notes(inflation: Mapping[str, float]) -> list[str]:
    if not inflation:
        return []
    most = max(inflation, key=lambda name: inflation[name])
    return [
        f"The windows of {len(inflation)} columns vary more than independent rows "
        f"would, most those of '{most}' ({inflation[most]:.1f} times the variance); "
        "their p-values are corrected for it."
    ]


def _check(
    rows: int,
    budget: float,
    windows_per_month: float,
    k: int,
    m: int,
    once: float,
    effects: Mapping[str, float] | None,
    groups: Mapping[str, float] | None,
) -> None:
    if not 0 < budget < windows_per_month / 2:
        raise DataError(
            f"The budget is {budget:g} alerts per model and month, which has "
            f"{windows_per_month:g} windows. Give a budget above 0 and below half the "
            "windows."
        )
    if not 1 <= k <= m:
        raise DataError(
            f"Drift is asked to be in {k} of the last {m} windows. Give a k from 1 "
            "to m."
        )
    if not 0 <= once < 1:
        raise DataError(
            f"The share of the level for one window alone is {once:g}. Give one from 0 "
            "up to but not including 1."
        )
    if rows < 1:
        raise DataError(
            f"A window of {rows} rows cannot be replayed. Give the rows of a typical "
            "window."
        )
    for name, effect in (effects or {}).items():
        if name not in column_tests.EFFECTS:
            raise DataError(
                f"There is no drift type '{name}' to give a least effect for."
                f"{did_you_mean(name, column_tests.EFFECTS)}"
            )
        if not effect >= 0:
            raise DataError(
                f"The least effect of '{name}' is {effect:g}. Give 0 or more."
            )
    shares = sum((groups or {}).values())
    if any(share <= 0 for share in (groups or {}).values()) or shares >= 1:
        raise DataError(
            f"The groups' shares of the level are {dict(groups or {})}. Give shares "
            "above 0 that leave something for the features."
        )
