"""Conformance: what is loaded and unloaded next.

Every case names what it mirrors in TensorFlow Serving's
core/availability_preserving_policy_test.cc.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving.model_server.policy import (
    Action,
    Phase,
    Snapshot,
    Verb,
    next_action,
)

N, L, R = Phase.NEW, Phase.LOADING, Phase.READY
U, D, E = Phase.UNLOADING, Phase.DISABLED, Phase.ERROR

Row = tuple[int, Phase, bool]


def decide(*rows: Row) -> Action | None:
    return next_action([Snapshot(*row) for row in rows])


def test_loads_new_aspired() -> None:
    """availability_preserving_policy_test.cc LoadsNewAspired"""
    assert decide(
        (1, U, False), (2, E, False), (3, R, True), (4, N, True), (5, N, True)
    ) == Action(Verb.LOAD, 5)


def test_unloads_non_aspired_first() -> None:
    """availability_preserving_policy_test.cc UnloadsNonAspiredFirst"""
    assert decide(
        (1, U, False), (2, E, False), (3, R, False), (4, R, True), (5, N, True)
    ) == Action(Verb.UNLOAD, 3)


def test_unloads_first_non_aspired_when_no_aspired() -> None:
    """availability_preserving_policy_test.cc UnloadsFirstNonAspiredWhenNoAspired"""
    assert decide((1, D, False), (2, R, False), (3, E, False)) == Action(Verb.UNLOAD, 2)


def test_returns_no_action_when_none() -> None:
    """availability_preserving_policy_test.cc ReturnsNoActionWhenNone"""
    assert (
        decide((1, R, True), (2, E, True), (3, L, True), (4, U, False), (5, D, False))
        is None
    )


def test_does_not_unload_when_other_not_ready() -> None:
    """availability_preserving_policy_test.cc DoesNotUnloadWhenOtherNotReady"""
    assert decide((1, R, False), (2, L, True)) is None


def test_does_not_unload_when_other_in_error() -> None:
    """availability_preserving_policy_test.cc DoesNotUnloadWhenOtherInError"""
    assert decide((1, R, False), (2, E, True)) is None


def test_unload_if_other_ready_even_if_loading() -> None:
    """availability_preserving_policy_test.cc UnloadIfOtherReadyEvenIfLoading"""
    assert decide((1, R, False), (2, L, True), (3, R, True)) == Action(Verb.UNLOAD, 1)


def test_unload_if_other_ready_even_if_error() -> None:
    """availability_preserving_policy_test.cc UnloadIfOtherReadyEvenIfError"""
    assert decide((1, R, False), (2, E, True), (3, R, True)) == Action(Verb.UNLOAD, 1)


def test_unload_if_no_aspired_versions_ready() -> None:
    """availability_preserving_policy_test.cc UnloadIfNoAspiredVersionsReady"""
    assert decide((2, R, False), (1, R, False), (3, E, True), (4, L, True)) == Action(
        Verb.UNLOAD, 1
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(Phase), st.booleans()),
    unique_by=lambda row: row[0],
    max_size=6,
)


@given(ROWS)
def test_never_leaves_an_aspired_model_without_a_ready_version(rows: list[Row]) -> None:
    """availability_preserving_policy.h (what its name promises)"""
    action = decide(*rows)
    if action is None or action.verb is Verb.LOAD:
        return
    (taken,) = [row for row in rows if row[0] == action.version]
    assert taken[1] is R and not taken[2]
    others = [row for row in rows if row[1] is R and row[0] != action.version]
    assert others or not any(aspired for _, _, aspired in rows)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_versions_does_not_matter(order: tuple[int, ...]) -> None:
    """availability_preserving_policy.cc GetNextAction (lowest, highest)"""
    rows: list[Row] = [(1, R, False), (2, R, False), (3, N, True)]
    assert decide(*(rows[place] for place in order)) == Action(Verb.UNLOAD, 1)
