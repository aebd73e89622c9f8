from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.routing import FACT, Routing, route, routing_of
from penstock.schemas.errors import ServingError

routings = st.builds(
    Routing,
    stable=st.none() | st.integers(1, 9),
    candidate=st.integers(1, 9),
    weight=st.floats(0, 1),
    salt=st.text(max_size=5),
    slow_seconds=st.none() | st.floats(0, 10),
    dead_man_seconds=st.just(math.inf) | st.floats(1, 1e6),
)


def test_before_any_version_is_stable_nothing_is_routed(tmp_path: Path) -> None:
    found = routing_of(Ledger(tmp_path))
    assert found == Routing() and found.routed == ()


@settings(max_examples=50)
@given(routings)
def test_a_routing_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, routing: Routing
) -> None:
    with Ledger(tmp_path_factory.mktemp("serving")) as ledger:
        with ledger.writing() as transaction:
            event = transaction.event("step", 2)
            set_ = route(transaction, routing, event)
            assert routing_of(transaction) == set_
        assert routing_of(ledger) == set_ and set_.seq == event


def test_a_candidate_of_weight_zero_is_not_routed() -> None:
    assert Routing(stable=1, candidate=2).routed == (1,)
    assert Routing(stable=1, candidate=2, weight=0.05).routed == (1, 2)
    assert Routing(stable=1, candidate=2, shadow=True).routed == (1, 2)


def test_a_routing_of_another_penstock_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        with ledger.writing() as transaction:
            transaction.hold(FACT, {"dead_man_seconds": 1, "lanes": 3})
        with pytest.raises(
            ServingError, match=r"routing is not what this penstock writes .*'lanes'"
        ):
            routing_of(ledger)


@pytest.mark.parametrize("weight", [-0.1, 1.1, 0.5])
def test_a_weight_that_is_none_is_a_defect(tmp_path: Path, weight: float) -> None:
    with (
        Ledger(tmp_path) as ledger,
        ledger.writing() as transaction,
        pytest.raises(ValueError, match=r"weight|candidate"),
    ):
        route(transaction, Routing(stable=1, weight=weight), 1)
