from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penstock.components.serving.router.assignment import (
    PLACES,
    end_of,
    is_candidate,
    place,
    places,
    unit_number,
    unit_numbers,
)

units = st.text(max_size=30)
salts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
weights = st.floats(0, 1)


@given(salts, units)
def test_a_place_is_the_first_bytes_of_a_salted_hash(salt: str, unit: str) -> None:
    hashed = hashlib.sha256(salt.encode() + b"\0" + unit.encode()).digest()
    assert place(salt, unit) == int.from_bytes(hashed[:8], "big")


@given(salts, units, weights, weights)
def test_a_rising_weight_never_takes_a_unit_from_the_candidate(
    salt: str, unit: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert is_candidate(salt, unit, low) <= is_candidate(salt, unit, high)


@given(salts, units)
def test_the_candidate_answers_nobody_at_0_and_everybody_at_1(
    salt: str, unit: str
) -> None:
    assert not is_candidate(salt, unit, 0.0)
    assert is_candidate(salt, unit, 1.0)
    assert end_of(1.0) > PLACES - 1  # which float arithmetic would round up


def test_what_has_no_unit_id_is_answered_by_stable() -> None:
    assert not is_candidate("salt", None, 1.0)


@given(salts, st.lists(units, max_size=5))
def test_many_units_are_placed_and_named_as_one_by_one(
    salt: str, many: list[str]
) -> None:
    assert places(salt, many).tolist() == [place(salt, unit) for unit in many]
    assert unit_numbers(many).tolist() == [unit_number(unit) for unit in many]


def test_an_id_that_is_no_unicode_has_a_place() -> None:
    assert place("salt", "\udc80") != place("salt", "\udc81")
    assert unit_number("\udc80") != unit_number("\udc81")


def assignment_of(count: int, salts: int) -> float:
    """Check the places of many ids; return the greatest correlation between salts."""
    ids = [f"user-{i}" for i in range(count)]
    shares = []
    for salt in range(salts):
        found = places(f"salt-{salt}", ids)
        shares.append(found / float(PLACES))
        counts, _ = np.histogram(shares[-1], bins=1000, range=(0, 1))
        assert stats.chisquare(counts).pvalue > 0.001
        before = np.zeros(count, bool)
        for weight in (0.0, 0.05, 0.2, 0.5, 1.0):
            # A float64 of a place would round; all is compared in whole numbers.
            now = found <= np.uint64(max(end_of(weight) - 1, 0))
            now &= weight > 0
            assert not np.any(before & ~now)
            before = now
        assert before.all()
    shares.append(unit_numbers(ids) / float(PLACES))
    off_diagonal = np.corrcoef(shares) - np.eye(len(shares))
    return float(np.abs(off_diagonal).max())


def test_a_million_units_spread_evenly_never_move_and_salts_are_independent() -> None:
    assert assignment_of(1_000_000, salts=2) < 1e-2


@pytest.mark.long
def test_ten_million_units_spread_evenly_and_salts_are_independent() -> None:
    assert assignment_of(10_000_000, salts=2) < 1e-3
