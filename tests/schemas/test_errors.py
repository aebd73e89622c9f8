"""The tree of exceptions and the helpers for their texts."""

from __future__ import annotations

import pickle

import pytest

from penstock.schemas import errors
from penstock.schemas.errors import ComponentFailed, PenstockError, did_you_mean, quoted


def test_every_exception_is_a_penstock_error() -> None:
    raised = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert {each.__name__ for each in raised} == {
        "ComponentFailed",
        "DataError",
        "HookFailed",
        "MetadataError",
        "PenstockError",
        "PipelineError",
        "ServingError",
        "UnknownName",
    }
    assert all(issubclass(each, PenstockError) for each in raised)


def test_a_near_miss_is_offered() -> None:
    assert did_you_mean("evl", ["train", "eval"]) == " Did you mean 'eval'?"


@pytest.mark.parametrize("legal", [[], ["payment_type"]])
def test_nothing_is_offered_where_nothing_is_near(legal: list[str]) -> None:
    assert did_you_mean("evl", legal) == ""


def test_names_are_quoted_and_sorted() -> None:
    assert quoted(["train", "eval"]) == "'eval', 'train'"
    assert quoted([]) == "none"


def test_a_failure_carries_its_component_through_pickling() -> None:
    other = ComponentFailed("'B' failed.", component="B", run_id="r1")
    failure = ComponentFailed(
        "'A' failed.", component="A", run_id="r1", others=(other,)
    )
    copied = pickle.loads(pickle.dumps(failure))
    assert (str(copied), copied.component, copied.run_id) == ("'A' failed.", "A", "r1")
    assert [each.component for each in copied.others] == ["B"]
