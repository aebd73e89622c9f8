"""The plan of a rollout: steps, guards and one error budget, fixed before it starts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.schemas.errors import ServingError, did_you_mean, quoted

OnFail = Literal["rollback", "hold"]
Kind = Literal["errors", "latency", "business", "sample_ratio", "traffic"]

FORMAT = "penstock.rollout/1"
"""What the key 'format' of a plan's JSON says."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")

# The fields of a guard that each kind has, beside 'share' and 'on_fail'.
_OWN: Mapping[str, tuple[str, ...]] = {
    "errors": ("max_ratio",),
    "latency": ("quantile", "max_ratio"),
    "business": ("metric", "max_drop"),
    "sample_ratio": (),
    "traffic": ("min_units",),
}
_ERRORS_SHARE = 0.5


def duration_seconds(value: str | float, subject: str) -> float:
    """Return a duration in seconds.

    Args:
        value: Seconds, or text such as '30s', '10m', '1h30m', '7d'; '0' is none.
        subject: What has it, as the beginning of a sentence.

    Raises:
        ServingError: It is no duration.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value) and value >= 0:
            return float(value)
    elif isinstance(value, str):
        text = value.strip()
        if text == "0":
            return 0.0
        if text and _PART.sub("", text) == "":
            return sum(
                float(part[1]) * _UNITS[part[2]] for part in _PART.finditer(text)
            )
    raise ServingError(
        f"{subject} is {value!r}, which is no duration. Write seconds, or a number "
        "with a unit as in '30s', '10m', '1h30m' or '7d'."
    )


def duration_text(seconds: float) -> str:
    """Return a duration as people write it, to the second."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts) or "0s"


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


@dataclass(frozen=True)
class Step:
    """A share of the units that the candidate gets for a while.

    Attributes:
        weight: That share in percent, above 0 and at most 100.
        at_least: How long it lasts at least: seconds, or text such as '10m'. Only the
            time counts during which the controller watched.
        min_units: Distinct units that the candidate must have answered in this step
            before the next one begins.

    Raises:
        ServingError: A value is out of its range.
    """

    weight: float
    at_least: str | float = "10m"
    min_units: int = 100

    def __post_init__(self) -> None:
        """Check the values."""
        if not _is_number(self.weight) or not 0 < self.weight <= 100:
            raise ServingError(
                f"A step's weight is {self.weight!r}, where a share of the units in "
                "percent is needed. Write a number above 0 and at most 100."
            )
        duration_seconds(self.at_least, f"The step at {self.weight:g} %: at_least")
        _check_units(self.min_units, f"The step at {self.weight:g} %: min_units")

    @property
    def fraction(self) -> float:
        """The weight as a fraction of the units."""
        return self.weight / 100

    @property
    def seconds(self) -> float:
        """How long it lasts at least."""
        return duration_seconds(self.at_least, "at_least")


def _check_units(value: Any, subject: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ServingError(
            f"{subject} is {value!r}, where a number of distinct units is needed. "
            "Write a whole number, 0 or more."
        )


@dataclass(frozen=True)
class Guard:
    """Something that is watched during a rollout. Made by `Guard.errors(...)` etc.

    Attributes:
        kind: What is watched.
        on_fail: What is done when it fails.
        share: Its share of the plan's alpha; None for what is left, in equal parts.
        metric: Name of the business metric.
        quantile: Quantile of the latency.
        max_ratio: How many times as much as stable's is tolerated of the candidate.
        max_drop: Which relative drop of the metric is tolerated.
        min_units: Distinct units that the candidate must have answered in every step.
    """

    kind: Kind
    on_fail: OnFail = "rollback"
    share: float | None = None
    metric: str = ""
    quantile: float = 0.99
    max_ratio: float = 1.0
    max_drop: float = 0.15
    min_units: int = 0

    @classmethod
    def errors(
        cls,
        max_ratio: float = 1.0,
        share: float | None = None,
        on_fail: OnFail = "rollback",
    ) -> Guard:
        """Watch the distinct units that a version failed.

        Args:
            max_ratio: How many times as many as on stable are tolerated, at equal
                numbers of units.
            share: Share of the plan's alpha.
            on_fail: What is done when there are more.
        """
        return cls("errors", on_fail, share, max_ratio=max_ratio)

    @classmethod
    def latency(
        cls,
        quantile: float = 0.99,
        max_ratio: float = 1.10,
        share: float | None = None,
        on_fail: OnFail = "rollback",
    ) -> Guard:
        """Watch the distinct units that waited longer than a quantile of stable's.

        Args:
            quantile: Which quantile of stable's latency marks a slow answer.
            max_ratio: How many times stable's latency is tolerated.
            share: Share of the plan's alpha.
            on_fail: What is done when the candidate is slower.
        """
        return cls("latency", on_fail, share, quantile=quantile, max_ratio=max_ratio)

    @classmethod
    def business(
        cls,
        metric: str,
        max_drop: float = 0.15,
        share: float | None = None,
        on_fail: OnFail = "rollback",
    ) -> Guard:
        """Watch the mean of a metric per unit.

        Args:
            metric: Its name, as the routers report it.
            max_drop: Which relative drop is tolerated: it fails on evidence that the
                true drop is greater.
            share: Share of the plan's alpha.
            on_fail: What is done then.
        """
        return cls("business", on_fail, share, metric=metric, max_drop=max_drop)

    @classmethod
    def sample_ratio(
        cls, share: float | None = None, on_fail: OnFail = "hold"
    ) -> Guard:
        """Watch whether the candidate gets the share of units that it should get."""
        return cls("sample_ratio", on_fail, share)

    @classmethod
    def traffic(cls, min_units: int = 100) -> Guard:
        """Let no step end before the candidate answered this many distinct units."""
        return cls("traffic", "hold", min_units=min_units)

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kind not in _OWN:
            raise ServingError(
                f"There is no guard {self.kind!r} (there are {quoted(_OWN)})."
                f"{did_you_mean(str(self.kind), _OWN)}"
            )
        if self.on_fail not in ("rollback", "hold"):
            raise ServingError(
                f"Guard '{self.name}': on_fail is {self.on_fail!r}. Write 'rollback' "
                "or 'hold'."
            )
        if self.share is not None and (
            not _is_number(self.share) or not 0 < self.share <= 1
        ):
            raise ServingError(
                f"Guard '{self.name}': share is {self.share!r}, where a share of the "
                "plan's alpha is needed. Write a number above 0 and at most 1."
            )
        if self.kind == "business" and (
            not isinstance(self.metric, str) or not self.metric
        ):
            raise ServingError(
                f"A business guard watches the metric {self.metric!r}, which is no "
                "name. Write the name under which the routers report it."
            )
        if not _is_number(self.quantile) or not 0 < self.quantile < 1:
            raise ServingError(
                f"Guard '{self.name}': quantile is {self.quantile!r}, which is not "
                "between 0 and 1. Write a fraction such as 0.99."
            )
        if not _is_number(self.max_ratio) or not 1 <= self.max_ratio <= 100:
            raise ServingError(
                f"Guard '{self.name}': max_ratio is {self.max_ratio!r}, where 1 means "
                "as much as on stable. Write a number from 1 to 100."
            )
        if not _is_number(self.max_drop) or not 0 <= self.max_drop < 1:
            raise ServingError(
                f"Guard '{self.name}': max_drop is {self.max_drop!r}, where 0.15 means "
                "that 15 % less is tolerated. Write a number from 0 to below 1."
            )
        _check_units(self.min_units, f"Guard '{self.name}': min_units")

    @property
    def name(self) -> str:
        """What it is called in reasons and reports; unique in a plan."""
        return f"business:{self.metric}" if self.kind == "business" else self.kind

    @property
    def tests(self) -> bool:
        """Whether it tests something, and so needs a part of alpha."""
        return self.kind != "traffic"


DEFAULT_STEPS = (5, 20, 50, 100)


def _default_guards() -> tuple[Guard, ...]:
    return (
        Guard.errors(),
        Guard.latency(),
        Guard.sample_ratio(),
        Guard.traffic(),
    )


@dataclass(frozen=True, init=False)
class Rollout:
    """How a candidate takes over from stable, step by step, or does not.

    The chance that a candidate which is no worse than every guard tolerates is rolled
    back or held by a guard is at most `alpha` for the whole rollout, however often
    anybody looks: each guard gets a share of it, and the shares add up to at most 1.

    Attributes:
        model: Name of the model.
        steps: Steps, or only their weights in percent; the weights rise.
        guards: What is watched.
        alpha: That chance.
        deadline: When the rollout has to be complete, from its start.
        on_deadline: What is done when it is not.
        shadow: For how long the candidate gets mirrored requests before the first step.
        salt: What makes the assignment of units of this rollout independent of those
            of others; '' for one made of the model and the candidate's version.
        stale_after: How old reports may be to count as fresh.
        dead_man: After how long without a controller the routers freeze.
        keep_stable: For how long stable stays loaded after the promotion.

    Raises:
        ServingError: The plan contradicts itself, or a value is out of its range.
    """

    model: str
    steps: tuple[Step, ...]
    guards: tuple[Guard, ...]
    alpha: float
    deadline: str | float
    on_deadline: OnFail
    shadow: str | float
    salt: str
    stale_after: str | float
    dead_man: str | float
    keep_stable: str | float

    def __init__(
        self,
        model: str,
        steps: Sequence[Step | float] = DEFAULT_STEPS,
        guards: Iterable[Guard] | None = None,
        alpha: float = 0.01,
        deadline: str | float = "6h",
        on_deadline: OnFail = "hold",
        shadow: str | float = "0",
        salt: str = "",
        stale_after: str | float = "30s",
        dead_man: str | float = "10m",
        keep_stable: str | float = "30m",
    ) -> None:
        """Make a plan and check it whole; see the class for what the values mean."""
        values = dict(locals())
        del values["self"]
        values["steps"] = tuple(
            each if isinstance(each, Step) else Step(each) for each in steps
        )
        values["guards"] = _default_guards() if guards is None else tuple(guards)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        subject = f"The rollout of '{self.model}'"
        if not isinstance(self.model, str) or not self.model:
            raise ServingError(
                f"A rollout's model is {self.model!r}, which is no name. Write the "
                "name of the served model."
            )
        if not isinstance(self.salt, str):
            raise ServingError(
                f"{subject}: salt is {self.salt!r}, which is no text. Write a text, "
                "or leave it out."
            )
        if not self.steps:
            raise ServingError(
                f"{subject} has no steps. Write at least one weight, as in "
                "steps=(5, 20, 50, 100)."
            )
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.weight <= before.weight:
                weights = ", ".join(f"{step.weight:g}" for step in self.steps)
                raise ServingError(
                    f"{subject} has the weights {weights}: {after.weight:g} does not "
                    f"rise above {before.weight:g}. Write weights that rise, up to at "
                    "most 100."
                )
        if len(self.steps) > 1 and self.steps[-1].weight <= 1:
            weights, percent = (
                ", ".join(f"{factor * step.weight:g}" for step in self.steps)
                for factor in (1, 100)
            )
            raise ServingError(
                f"{subject} has the weights {weights}, which look like fractions: they "
                f"are percent, and end at {self.steps[-1].weight:g} %. Write {percent}."
            )
        if not _is_number(self.alpha) or not 0 < self.alpha < 1:
            raise ServingError(
                f"{subject}: alpha is {self.alpha!r}, where the chance of a false "
                "rollback is needed. Write a number between 0 and 1, such as 0.01."
            )
        if self.on_deadline not in ("rollback", "hold"):
            raise ServingError(
                f"{subject}: on_deadline is {self.on_deadline!r}. Write 'rollback' or "
                "'hold'."
            )
        for name in ("deadline", "shadow", "stale_after", "dead_man", "keep_stable"):
            duration_seconds(getattr(self, name), f"{subject}: {name}")
        needed = sum(step.seconds for step in self.steps)
        if needed > self.deadline_seconds:
            raise ServingError(
                f"{subject} has the deadline {duration_text(self.deadline_seconds)}, "
                f"but its steps last at least {duration_text(needed)}. Write a later "
                "deadline or shorter steps."
            )
        self._check_guards(subject)

    def _check_guards(self, subject: str) -> None:
        names = [guard.name for guard in self.guards]
        for name in names:
            if names.count(name) > 1:
                raise ServingError(
                    f"{subject} has the guard '{name}' twice. Write it once."
                )
        given = {
            guard.name: guard.share for guard in self.guards if guard.share is not None
        }
        total = math.fsum(given.values())
        if total > 1 + 1e-9:
            raise ServingError(
                f"{subject}: the shares of alpha of {quoted(given)} add up to "
                f"{total:g}. Write shares that add up to at most 1."
            )
        left_out = [
            guard.name for guard in self.guards if guard.tests and guard.share is None
        ]
        if left_out and total > 1 - 1e-9:
            raise ServingError(
                f"{subject}: the shares of {quoted(given)} use all of alpha, and "
                f"nothing is left for {quoted(left_out)}. Give them a share, too, or "
                "make the others smaller."
            )

    @functools.cached_property
    def alphas(self) -> Mapping[str, float]:
        """The part of alpha of every guard that tests something, by its name."""
        tests = [guard for guard in self.guards if guard.tests]
        shares = {g.name: g.share for g in tests if g.share is not None}
        rest = [guard.name for guard in tests if guard.share is None]
        if not shares and "errors" in rest and len(rest) > 1:
            shares["errors"] = _ERRORS_SHARE
            rest.remove("errors")
        left = 1 - math.fsum(shares.values())
        shares |= {name: left / len(rest) for name in rest}
        return {guard.name: self.alpha * shares[guard.name] for guard in tests}

    def guard(self, name: str) -> Guard:
        """Return a guard by its name.

        Raises:
            ServingError: There is none of that name.
        """
        for guard in self.guards:
            if guard.name == name:
                return guard
        names = [guard.name for guard in self.guards]
        raise ServingError(
            f"The rollout of '{self.model}' has no guard '{name}' (it has "
            f"{quoted(names)}).{did_you_mean(name, names)}"
        )

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the steps, as fractions."""
        return tuple(step.fraction for step in self.steps)

    @property
    def deadline_seconds(self) -> float:
        """When it has to be complete."""
        return duration_seconds(self.deadline, "deadline")

    @property
    def shadow_seconds(self) -> float:
        """For how long requests are mirrored first."""
        return duration_seconds(self.shadow, "shadow")

    @property
    def stale_after_seconds(self) -> float:
        """How old reports may be."""
        return duration_seconds(self.stale_after, "stale_after")

    @property
    def dead_man_seconds(self) -> float:
        """After how long without a controller the routers freeze."""
        return duration_seconds(self.dead_man, "dead_man")

    @property
    def keep_stable_seconds(self) -> float:
        """For how long stable stays loaded after the promotion."""
        return duration_seconds(self.keep_stable, "keep_stable")

    def salt_for(self, candidate: int) -> str:
        """Return the salt of the assignment, for a candidate's version."""
        return self.salt or f"{self.model}-{candidate}"

    def min_units(self, step: int) -> int:
        """Return how many distinct units the candidate must answer in a step."""
        return max(
            [self.steps[step].min_units]
            + [guard.min_units for guard in self.guards if guard.kind == "traffic"]
        )

    @property
    def digest(self) -> str:
        """The plan's pre-registration: SHA-256 over what it says, however written."""
        said = self._plain()
        for step in said["steps"]:
            step["at_least"] = duration_seconds(step["at_least"], "at_least")
        for name in ("deadline", "shadow", "stale_after", "dead_man", "keep_stable"):
            said[name] = duration_seconds(said[name], name)
        text = json.dumps(
            _with_floats(said), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def to_json(self) -> str:
        """Return the plan as JSON, which `from_json` reads."""
        return json.dumps(self._plain(), indent=2, allow_nan=False) + "\n"

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"format": FORMAT}
        for each in dataclasses.fields(self):
            plain[each.name] = getattr(self, each.name)
        plain["steps"] = [dataclasses.asdict(step) for step in self.steps]
        plain["guards"] = [_guard_json(guard) for guard in self.guards]
        return plain

    @classmethod
    def from_json(cls, text: str | bytes) -> Rollout:
        """Return the plan that JSON describes.

        Only 'model' is needed; what is left out has its default. A step is an object or
        a weight, a guard an object with its kind as 'guard'.

        Raises:
            ServingError: It is no JSON, or no plan.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ServingError(
                f"The plan is no JSON: {error}. Write what `Rollout.to_json` gives."
            ) from error
        values = _object(found, "The plan")
        if values.pop("format", FORMAT) != FORMAT:
            raise ServingError(
                f"The plan has the format {found['format']!r}, which this release "
                f"does not read. Write '{FORMAT}'."
            )
        legal = [each.name for each in dataclasses.fields(cls)]
        _check_keys(values, legal, "The plan")
        if "model" not in values:
            raise ServingError(
                "The plan names no model. Add the key 'model' with the name of the "
                "served model."
            )
        if "steps" in values:
            values["steps"] = [
                _step(each) for each in _array(values["steps"], "The plan: steps")
            ]
        if "guards" in values:
            values["guards"] = [
                _guard(each) for each in _array(values["guards"], "The plan: guards")
            ]
        return cls(**values)


def _with_floats(value: Any) -> Any:
    """Return JSON data with every number as a float: 5 and 5.0 say the same."""
    if isinstance(value, dict):
        return {key: _with_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_floats(each) for each in value]
    return float(value) if isinstance(value, int) else value


def _guard_json(guard: Guard) -> dict[str, Any]:
    plain: dict[str, Any] = {"guard": guard.kind}
    for name in _OWN[guard.kind]:
        plain[name] = getattr(guard, name)
    if guard.tests:
        plain |= {"share": guard.share, "on_fail": guard.on_fail}
    return plain


def _object(value: Any, subject: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ServingError(
            f"{subject} is {value!r}, where a JSON object is needed. Write its values "
            "by their names."
        )
    return dict(value)


def _array(value: Any, subject: str) -> list[Any]:
    if not isinstance(value, list):
        raise ServingError(
            f"{subject} is {value!r}, where a JSON array is needed. Write a list."
        )
    return value


def _check_keys(values: Mapping[str, Any], legal: Sequence[str], subject: str) -> None:
    for name in values:
        if name not in legal:
            raise ServingError(
                f"{subject} has no '{name}' (it has {quoted(legal)})."
                f"{did_you_mean(name, legal)}"
            )


def _step(value: Any) -> Step:
    if not isinstance(value, dict):
        return Step(value)
    legal = [each.name for each in dataclasses.fields(Step)]
    _check_keys(value, legal, "A step")
    if "weight" not in value:
        raise ServingError("A step has no 'weight'. Add the share of units in percent.")
    return Step(**value)


def _guard(value: Any) -> Guard:
    values = _object(value, "A guard")
    kind = values.pop("guard", None)
    if kind not in _OWN:
        raise ServingError(
            f"There is no guard {kind!r} (there are {quoted(_OWN)})."
            f"{did_you_mean(str(kind), _OWN)}"
        )
    legal = [*_OWN[kind], *(("share", "on_fail") if kind != "traffic" else ())]
    _check_keys(values, legal, f"Guard '{kind}'")
    if kind == "business" and "metric" not in values:
        raise ServingError(
            "A business guard names no metric. Add the key 'metric' with the name "
            "under which the routers report it."
        )
    made: Guard = getattr(Guard, kind)(**values)
    return made
