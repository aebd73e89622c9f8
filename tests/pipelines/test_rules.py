"""Each rule of a pipeline has one message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.components.base import Component, Promise, output
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.rules import RULES
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import PipelineError
from tests.pipelines.toys import Bless, Check, Fit, Make, toy


def text_of(make: Callable[[], object]) -> str:
    with pytest.raises(PipelineError) as raised:
        make()
    return str(raised.value)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "..", "é", "a" * 64])
def test_a_pipeline_name_is_legal(name: str) -> None:
    assert text_of(lambda: Pipeline(name, [Make()])) == (
        f"Pipeline name '{name}' cannot be used: names begin with a letter or digit, "
        "have only letters, digits, '_', '-' and '.', and at most 63 characters. "
        "Rename the pipeline."
    )


@pytest.mark.parametrize("name", ["a", "taxi-2.v_1", "a" * 63, "7"])
def test_legal_pipeline_names_are_taken(name: str) -> None:
    assert Pipeline(name, [Make()]).name == name


def test_a_pipeline_name_is_text() -> None:
    name: Any = 3
    assert text_of(lambda: Pipeline(name, [Make()])).startswith(
        "Pipeline name '3' cannot be used"
    )


def test_there_are_components() -> None:
    assert text_of(lambda: Pipeline("p", [])) == (
        "Pipeline 'p' has no components. List at least one."
    )


def test_only_components_are_listed() -> None:
    listed: Any = [Make(), "Check"]
    assert text_of(lambda: Pipeline("p", listed)) == (
        "Pipeline 'p' lists 'Check' (str), which is no component. List components only."
    )
    listed = [Make]
    assert "(type), which is no component." in text_of(lambda: Pipeline("p", listed))


def test_names_are_unique() -> None:
    assert text_of(lambda: Pipeline("p", [Make(), Make()])) == (
        "Pipeline 'p' has 2 components named 'Make'. Give each its own, as in "
        'Make(name="Make2", ...).'
    )
    assert Pipeline("p", [Make(), Make(name="Make2")])


def test_a_duplicate_name_is_mended_with_the_class() -> None:
    assert text_of(lambda: Pipeline("p", [Make(name="a"), Make(name="a")])) == (
        "Pipeline 'p' has 2 components named 'a'. Give each its own, as in "
        'Make(name="a2", ...).'
    )


def test_a_component_that_is_left_out_is_named() -> None:
    make = Make()
    check = Check(examples=make.examples)
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    assert text_of(lambda: Pipeline("p", [make, fit])) == (
        "'Fit' reads an output of 'Check', which pipeline 'p' does not contain. Add "
        "'Check' to its components."
    )


def test_a_component_that_is_left_out_gets_a_near_miss() -> None:
    make = Make(name="ingest-trips")
    fit = Fit(examples=Make(name="ingest_trips").examples)
    assert text_of(lambda: Pipeline("p", [make, fit])).endswith(
        "Did you mean 'ingest-trips'?"
    )


def test_what_a_component_comes_after_is_listed() -> None:
    make = Make()
    late = Make(name="late", after=(make,))
    assert text_of(lambda: Pipeline("p", [late])) == (
        "'late' comes after 'Make', which pipeline 'p' does not contain. Add 'Make' to "
        "its components."
    )


def test_another_component_of_the_same_name_is_not_the_one_meant() -> None:
    class Other(Component):
        examples: Examples = output()

    fit = Fit(examples=Other(name="Make").examples)
    assert text_of(lambda: Pipeline("p", [Make(), fit])) == (
        "'Fit' reads an output of a Other named 'Make', but the 'Make' in pipeline 'p' "
        "is a Make. Wire it to the one that is listed."
    )


def test_an_equal_looking_component_is_not_the_one_listed() -> None:
    wired, listed = Make(rows=3), Make(rows=4)
    fit = Fit(examples=wired.examples)
    assert text_of(lambda: Pipeline("p", [listed, fit])) == (
        "'Fit' reads an output of another 'Make' than the one that pipeline 'p' lists: "
        "Make(), not Make(rows=4). Wire it to the one that is listed."
    )


def test_a_copy_of_the_listed_component_is_taken_for_it() -> None:
    import pickle

    make = Make(rows=4)
    fit = pickle.loads(pickle.dumps(Fit(examples=make.examples)))
    assert Pipeline("p", [make, fit])


def looped() -> list[Component]:
    """Components in a loop, which wiring alone cannot make."""
    fit = Fit(examples=Examples("/x"), name="a")
    bless = Bless(model=fit.model, name="b")
    again = Fit(examples=Examples("/x"), name="c", after=(bless,))
    object.__setattr__(fit, "baseline", Model(source=Promise(again, "model")))
    return [fit, bless, again]


def test_a_loop_is_shown() -> None:
    assert text_of(lambda: Pipeline("p", looped())) == (
        "Pipeline 'p' has a loop: 'a' -> 'c' -> 'b' -> 'a'; each waits for the next. "
        "Remove one of these connections."
    )


def test_a_component_after_itself_is_a_loop() -> None:
    make = Make()
    object.__setattr__(make, "after", (make,))
    assert text_of(lambda: Pipeline("p", [make])) == (
        "Pipeline 'p' has a loop: 'Make' -> 'Make'; each waits for the next. Remove "
        "one of these connections."
    )


def test_a_long_chain_is_no_loop_and_needs_no_deep_stack() -> None:
    chain: list[Component] = [Make(name="c0")]
    for number in range(1, 1_500):
        chain.append(Make(name=f"c{number}", after=(chain[-1],)))
    chain.reverse()
    order = [component.name for component, _ in Pipeline("p", chain).ordered()]
    assert order == [f"c{number}" for number in range(1_500)]


def test_every_rule_says_in_its_docstring_what_it_holds() -> None:
    assert all(rule.__doc__ and rule.__doc__.endswith(".") for rule in RULES)


def test_components_are_ordered_by_what_they_wait_for() -> None:
    order = toy().ordered()
    assert [(each.name, names) for each, names in order] == [
        ("Make", ()),
        ("Check", ("Make",)),
        ("Fit", ("Check", "Make")),
        ("Bless", ("Fit",)),
        ("Push", ("Bless", "Fit")),
    ]


def test_repr_names_the_components() -> None:
    assert repr(toy()) == "Pipeline('toy', [Push, Bless, Fit, Make, Check])"
