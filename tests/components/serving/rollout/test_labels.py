"""Rollouts on a server that is told apart by labels, as callers of labels see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.controller import Controller
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.rollout.servers import ModelServer
from penstock.components.serving.rollout.state import Phase, State
from penstock.components.serving.target import TfServingTarget
from tests.components.serving.rollout.worlds import PLAN, World
from tests.components.serving.server_double import ServerDouble, running_double
from tests.conftest import Said

Call = Callable[..., Said]

AT_ONCE = dataclasses.replace(PLAN, keep_stable="0s")


class Labelled(World):
    """A world whose model server has labels."""

    def __init__(self, folder: Path, double: ServerDouble) -> None:
        super().__init__(folder)
        self.double = double
        self.crowd.asks = 400
        self.controller.close()
        self.target = TfServingTarget(
            "ranker", self.directory, double.address, layout="labels"
        )
        self.controller = self.new_controller()

    def new_controller(self) -> Controller:
        if not hasattr(self, "target"):
            return super().new_controller()
        return Controller(
            self.directory,
            self.target,
            load_seconds=60,
            settle_seconds=5,
            clock=lambda: self.now,
        )

    def start(self, version: int, plan: Rollout = AT_ONCE) -> State:
        named = ModelServer("ranker", self.double.address, layout="labels")
        return verbs.start(self.ledger, version, plan, server=named.to_json())

    @property
    def labels(self) -> dict[str, int]:
        return self.double.labels.get("ranker", {})

    def close(self) -> None:
        super().close()
        self.target.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Labelled]:
    with running_double() as double:
        made = Labelled(tmp_path, double)
        yield made
        made.close()
        for config in double.sent:
            for model in config.model_config_list.config:
                policy = set(model.model_version_policy.specific.versions)
                assert set(model.version_labels.values()) <= policy


def test_labels_follow_a_rollout_and_a_rollback(
    world: Labelled, penstock: Call
) -> None:
    world.stable(1)
    assert world.labels == {"stable": 1}
    world.start(2)
    world.live(4)
    assert world.labels == {"stable": 1, "canary": 2}
    assert world.live(100).phase is Phase.PROMOTED
    assert world.labels == {"stable": 2}
    assert penstock("rollback", world.directory, "--reason=It burns.").code == 0
    assert world.labels == {"stable": 1}
    world.start(3)
    assert world.live(100).phase is Phase.PROMOTED
    assert world.labels == {"stable": 3}


def test_a_label_that_nobody_moved_does_not_stop_the_next_rollout(
    world: Labelled,
) -> None:
    world.stable(1)
    world.start(2)
    assert world.live(100).phase is Phase.PROMOTED
    verbs.roll_back(world.ledger, "It burns.")  # the server is not told
    assert world.labels == {"stable": 2}
    world.start(3)
    assert world.live(100).phase is Phase.PROMOTED
    assert world.labels == {"stable": 3}


def test_labels_follow_a_promotion_by_hand_and_an_abort(
    world: Labelled, penstock: Call
) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.crowd.live(0)
    penstock("rollout", "promote", world.directory, "--reason=Now.", "--yes")
    assert world.labels == {"stable": 2}
    world.start(3)
    world.live(4)
    assert world.labels == {"stable": 2, "canary": 3}
    world.crowd.live(0)
    penstock("rollout", "abort", world.directory, "--reason=No.")
    assert world.labels == {"stable": 2}
    assert world.live(20).phase is Phase.ROLLED_BACK
    assert world.double.available("ranker") == [2]


def test_a_server_that_is_started_anew_gets_its_labels_back(world: Labelled) -> None:
    world.stable(1)
    world.start(2)
    world.live(4)
    world.double.start_anew()
    world.live(4)
    assert world.labels == {"stable": 1, "canary": 2}
    assert world.live(100).phase is Phase.PROMOTED
    world.double.start_anew()
    world.start(3)
    assert world.live(100).phase is Phase.PROMOTED
    assert world.labels == {"stable": 3}
