"""Rollouts in simulation: what a plan does before any user meets it.

Many rollouts at once, on sufficient statistics: no request is simulated, only how many
distinct units are seen, fail or are slow for the first time between two looks. What
decides are the kernels of `decide`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

from penstock.components.serving.rollout import evidence
from penstock.components.serving.rollout.decide import Moments, Pair, StepEvidence
from penstock.components.serving.rollout.kernels import (
    ADVANCE,
    FAILED,
    HOLD,
    PROMOTE,
    ROLL_BACK,
    Arms,
    Array,
    Sums,
    Tallies,
    choose,
    measure,
)
from penstock.components.serving.rollout.plan import Rollout
from penstock.schemas.errors import ServingError, did_you_mean, quoted

ErrorModel = Literal["independent", "bad-users", "daily"]

DAY_SECONDS = 86_400.0
LOOK_SECONDS, LOOK_REQUESTS, LONGEST_LOOK_SECONDS = 10.0, 30.0, 60.0
"""A look is taken every 10 s, or after 30 requests if these take longer, but at least
every minute. Looks are free: evidence holds at all of them at once. Between two
requests nothing changes, so looking more often would only take longer."""

BAD_USERS = 0.01
"""The share of users who fail much more often than the others."""

BAD_USERS_ERRORS = 0.4
"""The share of a bad user's requests that fail."""

DAILY_SWING = 0.8
"""By how much of its mean the traffic rises and falls over a day."""


@dataclass(frozen=True)
class Traffic:
    """Who asks how often, and what stable answers.

    A fixed population of sticky units, each asking at random times; its size is such
    that together they ask `rps` times a second.

    Attributes:
        rps: Requests per second, on average over a day.
        errors: Share of them that stable fails.
        model: `independent`: every request fails with that probability. `bad-users`: 1
        %
            of users fail 40 % of their requests (or as much as makes four fifths of all
            errors, if that is less), the others what is left. `daily`: as independent,
            but traffic and error share swing over a day, from a random hour on.
        requests_per_hour: Of one unit.
        converting: Share of units with a nonzero value of every business metric.
        latency_sigma: Standard deviation of the logarithm of latency.

    Raises:
        ServingError: A value is out of its range.
    """

    rps: float
    errors: float
    model: ErrorModel = "independent"
    requests_per_hour: float = 6.0
    converting: float = 0.05
    latency_sigma: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        legal = get_args(ErrorModel)
        if self.model not in legal:
            raise ServingError(
                f"There is no error model '{self.model}' (there are {quoted(legal)})."
                f"{did_you_mean(str(self.model), legal)}"
            )
        for name in ("rps", "requests_per_hour", "latency_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ServingError(
                    f"Simulated traffic: {name} is {value!r}. Write a number above 0."
                )
        for name in ("errors", "converting"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ServingError(
                    f"Simulated traffic: {name} is {value!r}, where a share is needed. "
                    "Write a number between 0 and 1, such as 0.01 for 1 %."
                )

    @property
    def units(self) -> int:
        """How many units there are."""
        return max(1, round(self.rps * 3600 / self.requests_per_hour))

    @property
    def kinds(self) -> tuple[tuple[float, float], ...]:
        """Kinds of users: their share, and the share of their requests that fail."""
        if self.model != "bad-users":
            return ((1.0, self.errors),)
        bad = min(BAD_USERS_ERRORS, 0.8 * self.errors / BAD_USERS)
        rest = (self.errors - BAD_USERS * bad) / (1 - BAD_USERS)
        return ((1 - BAD_USERS, rest), (BAD_USERS, bad))


@dataclass(frozen=True)
class Candidate:
    """How the candidate differs from stable.

    Attributes:
        errors: How many times as many requests fail.
        latency: How many times as long an answer takes.
        drop: By which share its units convert less.

    Raises:
        ServingError: A value is out of its range.
    """

    errors: float = 1.0
    latency: float = 1.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("errors", "latency"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ServingError(
                    f"A simulated candidate's {name} is {value!r}, where 1 means as "
                    "much as stable's. Write a number above 0."
                )
        if not 0 <= self.drop <= 1:
            raise ServingError(
                f"A simulated candidate's drop is {self.drop!r}, where 0.1 means 10 % "
                "less than stable. Write a number from 0 to 1."
            )


HEALTHY = Candidate()


@dataclass(frozen=True)
class Outcomes:
    """How simulated rollouts ended; all arrays have the shape (rollouts,).

    Attributes:
        actions: `PROMOTE`, `ROLL_BACK` or, at the deadline, `HOLD`.
        seconds: When.
        steps: Index of the step they were in.
        failing: Distinct units that had failed until then, in steps with a control.
        guards: Index of the plan's guard that failed; -1 if none did.
    """

    actions: Array
    seconds: Array
    steps: Array
    failing: Array
    guards: Array

    def rate(self, action: int) -> float:
        """Return the share of rollouts that ended so."""
        return float(np.mean(self.actions == action))

    def upper(self, action: int, confidence: float = 0.95) -> float:
        """Return an upper confidence bound of that share (Clopper & Pearson 1934)."""
        return upper_bound(
            int(np.sum(self.actions == action)), len(self.actions), confidence
        )

    def median(self, values: Array, action: int) -> float:
        """Return the median over the rollouts that ended so; nan if there are none."""
        chosen = values[self.actions == action]
        return float(np.median(chosen)) if len(chosen) else math.nan


def upper_bound(count: int, of: int, confidence: float = 0.95) -> float:
    """Return Clopper and Pearson's one-sided upper bound of a share.

    Args:
        count: How often it happened.
        of: How often it could have.
        confidence: Of the bound.
    """
    if count >= of:
        return 1.0
    return float(stats.beta.ppf(confidence, count + 1, of - count))


@dataclass(frozen=True)
class Look:
    """What one look at every rollout still under way saw, and did.

    Attributes:
        rollouts: Numbers of these rollouts; shape (n,).
        plan: The plan.
        tallies: Their counts; shape (n, steps).
        step: Index of their step; shape (n,).
        seconds: How long that has lasted; shape (n,).
        seen: Distinct units that the candidate answered in it; shape (n,).
        rollout_seconds: How long they have lasted.
        actions: What was chosen; shape (n,).
    """

    rollouts: Array
    plan: Rollout
    tallies: Tallies
    step: Array
    seconds: Array
    seen: Array
    rollout_seconds: float
    actions: Array

    def evidence(self, row: int) -> tuple[StepEvidence, ...]:
        """Return what `decide` would have been given for one of these rollouts."""

        def pair(arms: Arms, step: int) -> Pair:
            return Pair(int(arms.stable[row, step]), int(arms.candidate[row, step]))

        def moments(sums: Sums, arm: str, step: int) -> Moments:
            units, events, total, squares = (
                float(getattr(each, arm)[row, step])
                for each in (sums.units, sums.events, sums.total, sums.squares)
            )
            return Moments(int(units), int(events), total, squares)

        current = int(self.step[row])
        return tuple(
            StepEvidence(
                weight=self.plan.steps[step].fraction,
                seconds=float(self.seconds[row]) if step == current else 0.0,
                units=pair(self.tallies.units, step),
                failing=pair(self.tallies.failing, step),
                slow=pair(self.tallies.slow, step),
                values={
                    metric: (
                        moments(sums, "stable", step),
                        moments(sums, "candidate", step),
                    )
                    for metric, sums in self.tallies.values.items()
                },
                seen=int(self.seen[row]) if step == current else None,
            )
            for step in range(current + 1)
        )


def simulate(
    plan: Rollout,
    traffic: Traffic,
    candidate: Candidate = HEALTHY,
    *,
    rollouts: int = 2_000,
    seed: int = 0,
    look_seconds: float | None = None,
    on_look: Callable[[Look], object] | None = None,
    progress: Callable[[float], object] = lambda done: None,
) -> Outcomes:
    """Simulate a plan on traffic, from the first step to the end or the deadline.

    Args:
        plan: The plan.
        traffic: Units, requests, and stable's errors.
        candidate: How the candidate differs.
        rollouts: How many rollouts.
        seed: Of the random numbers.
        look_seconds: Time between two looks; None for what the traffic suggests.
        on_look: Called at every look.
        progress: Called at every look with the share of rollouts that ended.

    Raises:
        ServingError: There are no rollouts to simulate, or no time between looks.
    """
    if look_seconds is None:
        suggested = max(LOOK_REQUESTS / traffic.rps, LOOK_SECONDS)
        look_seconds = min(suggested, LONGEST_LOOK_SECONDS)
    if rollouts < 1 or not look_seconds > 0:
        raise ServingError(
            f"A simulation of {rollouts} rollouts with a look every {look_seconds:g} s "
            "simulates nothing. Write at least one rollout and a time above 0."
        )
    run = _Run(plan, traffic, candidate, rollouts, np.random.default_rng(seed))
    ended: dict[str, Array] = {
        name: np.zeros(rollouts, np.int64)
        for name in ("actions", "steps", "failing", "guards")
    }
    ended["seconds"] = np.zeros(rollouts)
    now = 0.0
    while len(run.rollouts):
        run.pass_time(now, look_seconds)
        now += look_seconds
        tallies = run.tallies()
        measured = measure(plan, tallies)
        actions = choose(
            plan,
            measured,
            step=run.step,
            seconds=run.seconds,
            seen=run.seen,
            fresh=np.ones(len(run.rollouts), bool),
            rollout_seconds=np.full(len(run.rollouts), now),
        )
        if on_look is not None:
            on_look(
                Look(
                    *(run.rollouts, plan, tallies, run.step.copy()),
                    *(run.seconds.copy(), run.seen.copy(), now, actions),
                )
            )
        over = (actions == PROMOTE) | (actions == ROLL_BACK)
        over |= (actions == HOLD) & (now >= plan.deadline_seconds)
        if over.any():
            which = run.rollouts[over]
            ended["actions"][which] = actions[over]
            ended["seconds"][which] = now
            ended["steps"][which] = run.step[over]
            failing = tallies.failing.stable + tallies.failing.candidate
            ended["failing"][which] = failing[over].sum(axis=1)
            cause = np.full(len(over), -1)
            for number, guard in enumerate(plan.guards):
                if guard.tests:
                    failed = measured[guard.name].states == FAILED
                    cause = np.where((cause < 0) & failed, number, cause)
            ended["guards"][which] = cause[over]
        run.advance(actions == ADVANCE)
        run.keep(~over)
        progress(1 - len(run.rollouts) / rollouts)
    return Outcomes(**ended)


class _Run:
    """The rollouts that are under way: who was seen, failed or was slow already.

    Units are divided into classes by the step that moves them to the candidate; those
    of the last class stay on stable to the end. Counts are exact in distribution:
    between two looks, a unit that did not yet fail does with probability 1 -
    exp(-hazard).
    """

    def __init__(
        self,
        plan: Rollout,
        traffic: Traffic,
        candidate: Candidate,
        rollouts: int,
        rng: np.random.Generator,
    ) -> None:
        self.plan, self.traffic, self.candidate = plan, traffic, candidate
        self.rng = rng
        steps = len(plan.steps)
        edges = np.array([0.0, *plan.weights, 1.0])
        moved = np.arange(steps + 1)
        # arms[step, class]: whether the class is the candidate's in the step.
        self.arms = moved[None, :] <= np.arange(steps)[:, None]
        self.rollouts = np.arange(rollouts)
        self.step = np.zeros(rollouts, np.int64)
        self.seconds = np.zeros(rollouts)
        self.seen = np.zeros(rollouts, np.int64)

        sizes = rng.multinomial(traffic.units, np.diff(edges), size=rollouts)
        self.sizes = self.unseen = sizes
        self.prompt = sizes.copy()
        shares = np.array([share for share, _ in traffic.kinds])
        self.unfailed = rng.multinomial(sizes, shares)
        self.returning = np.zeros(rollouts, np.int64)
        shape = (rollouts, steps)
        self.counts = {
            (what, arm): np.zeros(shape)
            for what in ("units", "failing", "slow")
            for arm in ("stable", "candidate")
        }
        self.metrics = tuple(
            guard.metric for guard in plan.guards if guard.kind == "business"
        )
        self.events = {
            (metric, arm): np.zeros(shape)
            for metric in self.metrics
            for arm in ("stable", "candidate")
        }
        # A day's beginning differs for every rollout.
        self.phase = rng.uniform(0, 2 * np.pi, rollouts)
        self._hazards()

    def _hazards(self) -> None:
        """Lay down hazards per request, by step, class and kind of user."""
        errors = np.array([failing for _, failing in self.traffic.kinds])
        worse = np.minimum(errors * self.candidate.errors, 1.0)
        self.failing = np.where(self.arms[:, :, None], worse, errors)
        slow, slower = _slow_shares(self.plan, self.traffic, self.candidate)
        self.slow = np.where(self.arms, slower, slow)

    def _swing(self, now: float) -> tuple[Array, Array]:
        """Return by what the traffic and the error share differ from their means."""
        if self.traffic.model != "daily":
            one = np.ones(len(self.rollouts))
            return one, one
        wave = np.cos(2 * np.pi * now / DAY_SECONDS + self.phase)
        # The error share swings with the load: mean of (1 + s·wave)(1 + h·wave).
        half = DAILY_SWING / 2
        return 1 + DAILY_SWING * wave, (1 + half * wave) / (1 + DAILY_SWING * half / 2)

    def pass_time(self, now: float, length: float) -> None:
        """Let every unit ask for a while, and count what is new."""
        load, trouble = self._swing(now + length / 2)
        requests = load * self.traffic.requests_per_hour * length / 3600
        any_request = -np.expm1(-requests)
        is_candidate = self.arms[self.step]
        rows = np.arange(len(self.rollouts))

        new = self.rng.binomial(self.unseen, any_request[:, None])
        self.unseen = self.unseen - new
        self._count("units", new, is_candidate, rows)
        again = self.rng.binomial(self.returning, any_request)
        self.returning = self.returning - again
        self.seen = self.seen + again + (new * is_candidate).sum(axis=1)

        hazard = self.failing[self.step] * (requests * trouble)[:, None, None]
        new_failing = self.rng.binomial(self.unfailed, -np.expm1(-hazard))
        self.unfailed = self.unfailed - new_failing
        self._count("failing", new_failing.sum(axis=2), is_candidate, rows)

        hazard = self.slow[self.step] * requests[:, None]
        new_slow = self.rng.binomial(self.prompt, -np.expm1(-hazard))
        self.prompt = self.prompt - new_slow
        self._count("slow", new_slow, is_candidate, rows)

        for metric in self.metrics:
            share = self.traffic.converting
            on_candidate = (new * is_candidate).sum(axis=1)
            on_stable = new.sum(axis=1) - on_candidate
            for arm, units, rate in (
                ("stable", on_stable, share),
                ("candidate", on_candidate, share * (1 - self.candidate.drop)),
            ):
                events = self.events[metric, arm]
                events[rows, self.step] += self.rng.binomial(units, rate)
        self.seconds = self.seconds + length

    def _count(self, what: str, new: Array, is_candidate: Array, rows: Array) -> None:
        on_candidate = (new * is_candidate).sum(axis=1)
        self.counts[what, "candidate"][rows, self.step] += on_candidate
        self.counts[what, "stable"][rows, self.step] += new.sum(axis=1) - on_candidate

    def tallies(self) -> Tallies:
        """Return the counts as the kernels take them."""
        units, failing, slow = (
            Arms(self.counts[what, "stable"], self.counts[what, "candidate"])
            for what in ("units", "failing", "slow")
        )
        values: Mapping[str, Sums] = {
            # Values are 0 or 1: as many events as their sum, and as its squares.
            metric: Sums(units, events, events, events)
            for metric in self.metrics
            if (
                events := Arms(
                    self.events[metric, "stable"], self.events[metric, "candidate"]
                )
            )
        }
        return Tallies(units, failing, slow, values)

    def advance(self, which: Array) -> None:
        """Let some rollouts enter their next step."""
        self.step = self.step + which
        self.seconds = np.where(which, 0.0, self.seconds)
        if which.any():
            is_candidate = self.arms[self.step]
            known = (self.sizes - self.unseen) * is_candidate
            self.returning = np.where(which, known.sum(axis=1), self.returning)
            self.seen = np.where(which, 0, self.seen)

    def keep(self, which: Array) -> None:
        """Forget the rollouts that ended."""
        if which.all():
            return
        for name in (
            *("rollouts", "step", "seconds", "seen", "unseen", "prompt", "unfailed"),
            *("returning", "phase", "sizes"),
        ):
            setattr(self, name, getattr(self, name)[which])
        self.counts = {key: each[which] for key, each in self.counts.items()}
        self.events = {key: each[which] for key, each in self.events.items()}


def _slow_shares(
    plan: Rollout, traffic: Traffic, candidate: Candidate
) -> tuple[float, float]:
    """Return the shares of slow answers of stable and of the candidate.

    Latency is lognormal. Slow is over the quantile t, for the candidate over max_ratio
    * t.
    """
    for guard in plan.guards:
        if guard.kind == "latency":
            margin = math.log(guard.max_ratio / candidate.latency)
            z = float(stats.norm.isf(1 - guard.quantile))
            slower = float(stats.norm.sf(z + margin / traffic.latency_sigma))
            return 1 - guard.quantile, slower
    return 0.01, 0.01


def delay_units(
    plan: Rollout,
    step: int,
    ratio: float,
    *,
    rollouts: int = 2_000,
    seed: int = 0,
    at_most: int = 20_000,
) -> Array:
    """Return after how many distinct failing units the errors guard fails.

    Failing units come one by one, all in one step, and are looked at one by one.

    Args:
        plan: A plan with an errors guard.
        step: Index of the step.
        ratio: How many times as often the candidate's units fail.
        rollouts: How many streams of failing units.
        seed: Of the random numbers.
        at_most: Where streams that are not stopped end; they count as infinite.

    Returns:
        Numbers of failing units of both arms; shape (rollouts,).
    """
    rng = np.random.default_rng(seed)
    guard = plan.guard("errors")
    log_limit = -math.log(plan.alphas["errors"])
    share = evidence.null_share(plan.weights[step], ratio)
    found = np.full(rollouts, np.inf)
    under_way = np.arange(rollouts)
    candidate = np.zeros(rollouts)
    block = 100
    for before in range(0, at_most, block):
        new = rng.random((len(under_way), block)) < share
        on_candidate = candidate[under_way, None] + np.cumsum(new, axis=1)
        both = before + np.arange(1, block + 1)
        counts = np.zeros((2, len(under_way), block, len(plan.steps)))
        counts[0, :, :, step] = both - on_candidate
        counts[1, :, :, step] = on_candidate
        logs = evidence.log_excess(counts[0], counts[1], plan.weights, guard.max_ratio)
        over = logs >= log_limit
        stopped = over.any(axis=1)
        found[under_way[stopped]] = both[over.argmax(axis=1)[stopped]]
        candidate[under_way] = on_candidate[:, -1]
        under_way = under_way[~stopped]
        if not len(under_way):
            break
    return found
