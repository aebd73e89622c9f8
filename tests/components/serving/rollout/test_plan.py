"""Plans: what they say, what they refuse, and their digest."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving.rollout.plan import (
    Guard,
    Rollout,
    Step,
    duration_seconds,
    duration_text,
)
from penstock.schemas.errors import ServingError


def says(text: str) -> str:
    return f"^{re.escape(text)}$"


def test_by_default_errors_get_half_of_alpha_and_the_others_equal_parts() -> None:
    plan = Rollout("ranker")
    assert [step.weight for step in plan.steps] == [5, 20, 50, 100]
    assert plan.alphas == pytest.approx(
        {"errors": 0.005, "latency": 0.0025, "sample_ratio": 0.0025}
    )
    assert plan.min_units(0) == 100
    assert plan.salt_for(43) == "ranker-43"


def test_a_guard_alone_has_all_of_alpha() -> None:
    assert Rollout("m", guards=[Guard.errors()]).alphas == {"errors": 0.01}
    assert Rollout("m", guards=[Guard.latency(), Guard.traffic()]).alphas == {
        "latency": 0.01
    }


def test_shares_that_are_given_are_kept_and_the_rest_is_divided() -> None:
    plan = Rollout(
        "m",
        guards=[Guard.errors(share=0.7), Guard.latency(), Guard.business("ctr")],
    )
    assert plan.alphas == pytest.approx(
        {"errors": 0.007, "latency": 0.0015, "business:ctr": 0.0015}
    )


shares = st.none() | st.floats(0.01, 0.3)


@given(
    shares=st.tuples(shares, shares, shares),
    alpha=st.floats(1e-6, 0.5),
    metrics=st.lists(st.text(min_size=1), unique=True, max_size=4),
)
def test_the_parts_of_alpha_never_add_up_to_more_than_alpha(
    shares: tuple[float | None, ...], alpha: float, metrics: list[str]
) -> None:
    plan = Rollout(
        "m",
        alpha=alpha,
        guards=[
            Guard.errors(share=shares[0]),
            Guard.latency(share=shares[1]),
            Guard.sample_ratio(share=shares[2]),
            *(Guard.business(metric) for metric in metrics),
            Guard.traffic(),
        ],
    )
    assert sum(plan.alphas.values()) <= alpha * (1 + 1e-12)
    assert all(part > 0 for part in plan.alphas.values())
    assert set(plan.alphas) == {guard.name for guard in plan.guards if guard.tests}


durations = st.sampled_from(["0", "30s", "10m", "1h30m", "7d", "500ms", 90, 2.5])
guards = st.one_of(
    st.builds(Guard.errors, max_ratio=st.floats(1, 100)),
    st.builds(Guard.latency, quantile=st.floats(0.01, 0.99), max_ratio=st.floats(1, 9)),
    st.builds(Guard.business, st.text(min_size=1), max_drop=st.floats(0, 0.99)),
    st.builds(Guard.sample_ratio, on_fail=st.sampled_from(["rollback", "hold"])),
    st.builds(Guard.traffic, st.integers(0, 1000)),
)
plans = st.builds(
    Rollout,
    st.text(min_size=1),
    steps=st.lists(
        st.floats(0.01, 100) | st.integers(1, 100),
        unique=True,
        min_size=1,
        max_size=6,
    )
    .map(sorted)
    .filter(lambda weights: len(weights) == 1 or weights[-1] > 1)
    .map(lambda weights: [Step(weight, "10m") for weight in weights]),
    guards=st.lists(guards, unique_by=lambda guard: guard.name),
    alpha=st.floats(1e-9, 0.999),
    on_deadline=st.sampled_from(["rollback", "hold"]),
    shadow=durations,
    keep_stable=durations,
    salt=st.text(),
)


@given(plan=plans)
def test_a_plan_survives_json_with_its_digest(plan: Rollout) -> None:
    again = Rollout.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest
    assert hash(again) == hash(plan)


def test_the_digest_is_of_what_a_plan_says_not_of_how_it_is_written() -> None:
    plan = Rollout("m", steps=(5, 100), deadline="6h")
    same = Rollout("m", steps=(Step(5.0, 600), Step(100)), deadline=21600)
    assert plan.digest == same.digest
    assert re.fullmatch("sha256:[0-9a-f]{64}", plan.digest)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"alpha": 0.02},
        {"steps": (5, 30, 100)},
        {"guards": (Guard.errors(max_ratio=1.5),)},
        {"deadline": "5h"},
        {"on_deadline": "rollback"},
        {"salt": "x"},
    ],
)
def test_the_digest_changes_with_everything_that_a_plan_says(
    change: dict[str, Any],
) -> None:
    plan = Rollout("m", steps=(5, 100))
    assert dataclasses.replace(plan, **change).digest != plan.digest


def test_json_needs_only_a_model() -> None:
    assert Rollout.from_json('{"model": "ranker"}') == Rollout("ranker")


def test_json_takes_weights_for_steps_and_leaves_out_what_has_a_default() -> None:
    text = json.dumps(
        {
            "model": "m",
            "steps": [1, {"weight": 50, "at_least": "1h"}],
            "guards": [
                {"guard": "errors", "share": 0.5},
                {"guard": "business", "metric": "ctr"},
            ],
        }
    )
    assert Rollout.from_json(text) == Rollout(
        "m",
        steps=(1, Step(50, "1h")),
        guards=(Guard.errors(share=0.5), Guard.business("ctr")),
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("0", 0), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("7d", 604800)),
        *(("500ms", 0.5), ("1.5h", 5400), (" 2h ", 7200), (12, 12), (0.5, 0.5)),
    ],
)
def test_durations_are_seconds_or_numbers_with_units(
    value: str | float, seconds: float
) -> None:
    assert duration_seconds(value, "It") == seconds


@pytest.mark.parametrize(
    "value", ["", "10", "ten minutes", "10 x", "-5m", "5m-", "m", -1, None, True]
)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ServingError) as caught:
        duration_seconds(value, "The step at 5 %: at_least")
    assert str(caught.value) == (
        f"The step at 5 %: at_least is {value!r}, which is no duration. Write seconds, "
        "or a number with a unit as in '30s', '10m', '1h30m' or '7d'."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_duration_is_finite(value: float) -> None:
    with pytest.raises(ServingError, match="is no duration"):
        duration_seconds(value, "It")


def test_durations_are_written_as_people_write_them() -> None:
    assert [duration_text(each) for each in (0, 59.6, 600, 5400, 90061)] == [
        *("0s", "1m", "10m", "1h30m", "1d1h1m1s")
    ]


WRONG: list[tuple[Callable[[], object], str]] = [
    (
        lambda: Rollout("m", steps=(0.05, 0.2, 1)),
        "The rollout of 'm' has the weights 0.05, 0.2, 1, which look like fractions: "
        "they are percent, and end at 1 %. Write 5, 20, 100.",
    ),
    (
        lambda: Rollout("m", steps=(5, 20, 20)),
        "The rollout of 'm' has the weights 5, 20, 20: 20 does not rise above 20. "
        "Write weights that rise, up to at most 100.",
    ),
    (
        lambda: Rollout("m", steps=(5, 2.5)),
        "The rollout of 'm' has the weights 5, 2.5: 2.5 does not rise above 5. Write "
        "weights that rise, up to at most 100.",
    ),
    (
        lambda: Rollout("m", steps=(5, 120)),
        "A step's weight is 120, where a share of the units in percent is needed. "
        "Write a number above 0 and at most 100.",
    ),
    (
        lambda: Step(0),
        "A step's weight is 0, where a share of the units in percent is needed. Write "
        "a number above 0 and at most 100.",
    ),
    (
        lambda: Step(True),
        "A step's weight is True, where a share of the units in percent is needed. "
        "Write a number above 0 and at most 100.",
    ),
    (
        lambda: Rollout("m", steps=()),
        "The rollout of 'm' has no steps. Write at least one weight, as in steps=(5, "
        "20, 50, 100).",
    ),
    (
        lambda: Step(5, "soon"),
        "The step at 5 %: at_least is 'soon', which is no duration. Write seconds, or "
        "a number with a unit as in '30s', '10m', '1h30m' or '7d'.",
    ),
    (
        lambda: Step(5, min_units=-1),
        "The step at 5 %: min_units is -1, where a number of distinct units is needed. "
        "Write a whole number, 0 or more.",
    ),
    *(
        (
            lambda alpha=alpha: Rollout("m", alpha=alpha),
            f"The rollout of 'm': alpha is {alpha!r}, where the chance of a false "
            "rollback is needed. Write a number between 0 and 1, such as 0.01.",
        )
        for alpha in (0, 1, -0.1, 5, "1 %", float("nan"))
    ),
    (
        lambda: Rollout("m", deadline="20m"),
        "The rollout of 'm' has the deadline 20m, but its steps last at least 40m. "
        "Write a later deadline or shorter steps.",
    ),
    (
        lambda: Rollout("m", stale_after="30 parsecs"),
        "The rollout of 'm': stale_after is '30 parsecs', which is no duration. Write "
        "seconds, or a number with a unit as in '30s', '10m', '1h30m' or '7d'.",
    ),
    (
        lambda: Rollout("m", on_deadline="stop"),  # type: ignore[arg-type]
        "The rollout of 'm': on_deadline is 'stop'. Write 'rollback' or 'hold'.",
    ),
    (
        lambda: Rollout(""),
        "A rollout's model is '', which is no name. Write the name of the served "
        "model.",
    ),
    (
        lambda: Rollout("m", salt=5),  # type: ignore[arg-type]
        "The rollout of 'm': salt is 5, which is no text. Write a text, or leave it "
        "out.",
    ),
    (
        lambda: Rollout("m", guards=[Guard.errors(), Guard.errors(2)]),
        "The rollout of 'm' has the guard 'errors' twice. Write it once.",
    ),
    (
        lambda: Rollout(
            "m", guards=[Guard.errors(share=0.8), Guard.latency(share=0.3)]
        ),
        "The rollout of 'm': the shares of alpha of 'errors', 'latency' add up to 1.1. "
        "Write shares that add up to at most 1.",
    ),
    (
        lambda: Rollout("m", guards=[Guard.errors(share=1), Guard.latency()]),
        "The rollout of 'm': the shares of 'errors' use all of alpha, and nothing is "
        "left for 'latency'. Give them a share, too, or make the others smaller.",
    ),
    (
        lambda: Guard.errors(share=0),
        "Guard 'errors': share is 0, where a share of the plan's alpha is needed. "
        "Write a number above 0 and at most 1.",
    ),
    (
        lambda: Guard.errors(max_ratio=0.5),
        "Guard 'errors': max_ratio is 0.5, where 1 means as much as on stable. Write a "
        "number from 1 to 100.",
    ),
    (
        lambda: Guard.latency(quantile=99),
        "Guard 'latency': quantile is 99, which is not between 0 and 1. Write a "
        "fraction such as 0.99.",
    ),
    (
        lambda: Guard.business("ctr", max_drop=15),
        "Guard 'business:ctr': max_drop is 15, where 0.15 means that 15 % less is "
        "tolerated. Write a number from 0 to below 1.",
    ),
    (
        lambda: Guard.business(""),
        "A business guard watches the metric '', which is no name. Write the name "
        "under which the routers report it.",
    ),
    (
        lambda: Guard.latency(on_fail="page"),  # type: ignore[arg-type]
        "Guard 'latency': on_fail is 'page'. Write 'rollback' or 'hold'.",
    ),
    (
        lambda: Guard.traffic(-5),
        "Guard 'traffic': min_units is -5, where a number of distinct units is needed. "
        "Write a whole number, 0 or more.",
    ),
    (
        lambda: Guard("error"),  # type: ignore[arg-type]
        "There is no guard 'error' (there are 'business', 'errors', 'latency', "
        "'sample_ratio', 'traffic'). Did you mean 'errors'?",
    ),
    (
        lambda: Rollout("m").guard("latenz"),
        "The rollout of 'm' has no guard 'latenz' (it has 'errors', 'latency', "
        "'sample_ratio', 'traffic'). Did you mean 'latency'?",
    ),
    (
        lambda: Rollout.from_json("{"),
        "The plan is no JSON: Expecting property name enclosed in double quotes: line "
        "1 column 2 (char 1). Write what `Rollout.to_json` gives.",
    ),
    (
        lambda: Rollout.from_json("[5]"),
        "The plan is [5], where a JSON object is needed. Write its values by their "
        "names.",
    ),
    (
        lambda: Rollout.from_json("{}"),
        "The plan names no model. Add the key 'model' with the name of the served "
        "model.",
    ),
    (
        lambda: Rollout.from_json('{"format": "penstock.rollout/9", "model": "m"}'),
        "The plan has the format 'penstock.rollout/9', which this release does not "
        "read. Write 'penstock.rollout/1'.",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "alfa": 1}'),
        "The plan has no 'alfa' (it has 'alpha', 'dead_man', 'deadline', 'guards', "
        "'keep_stable', 'model', 'on_deadline', 'salt', 'shadow', 'stale_after', "
        "'steps'). Did you mean 'alpha'?",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "steps": 5}'),
        "The plan: steps is 5, where a JSON array is needed. Write a list.",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "steps": [{"at_least": "5m"}]}'),
        "A step has no 'weight'. Add the share of units in percent.",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "steps": [{"wait": 5}]}'),
        "A step has no 'wait' (it has 'at_least', 'min_units', 'weight'). Did you mean "
        "'weight'?",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "guards": [{"guard": "latncy"}]}'),
        "There is no guard 'latncy' (there are 'business', 'errors', 'latency', "
        "'sample_ratio', 'traffic'). Did you mean 'latency'?",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "guards": ["errors"]}'),
        "A guard is 'errors', where a JSON object is needed. Write its values by their "
        "names.",
    ),
    (
        lambda: Rollout.from_json(
            '{"model": "m", "guards": [{"guard": "errors", "ratio": 2}]}'
        ),
        "Guard 'errors' has no 'ratio' (it has 'max_ratio', 'on_fail', 'share'). Did "
        "you mean 'max_ratio'?",
    ),
    (
        lambda: Rollout.from_json('{"model": "m", "guards": [{"guard": "business"}]}'),
        "A business guard names no metric. Add the key 'metric' with the name under "
        "which the routers report it.",
    ),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_a_wrong_plan_gets_a_sentence(
    wrong: Callable[[], object], sentence: str
) -> None:
    with pytest.raises(ServingError, match=says(sentence)):
        wrong()
