"""Rollouts under a router: all that the controller knows is what it reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from penstock.components.serving.ledger import Ledger
from penstock.components.serving.messages import Message, to_array
from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.controller import Controller
from penstock.components.serving.rollout.plan import Rollout, Step
from penstock.components.serving.rollout.state import Phase, State
from penstock.components.serving.router.request_log import RequestLog, read_log
from penstock.components.serving.router.router import Router
from penstock.components.serving.version_dir import push
from tests.components.serving.rollout.worlds import Server as Target
from tests.components.serving.router.servers import (
    MODEL,
    Refused,
    Server,
    serving,
    until,
)

BROKEN_CATEGORY = 7.0


class World:
    """A controller, a router, and units that ask it without pause.

    Attributes:
        router: The router.
        server: What answers.
        ended: What the rollouts came to.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.router = Router(
            folder,
            MODEL,
            address=server.address,
            deadline_seconds=10.0,
            request_log=RequestLog(folder.parent / "log", MODEL),
        )
        self.wrong: list[object] = []
        self._stop = threading.Event()
        self._next = 0
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in (0, 1)]

    def begin(self) -> None:
        until(lambda: self.router.routing.stable == 1)
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self.router.close()

    def _ask(self, mine: int) -> None:
        i = 0
        while not self._stop.is_set():
            i += 1
            x = np.float32(i % 8)
            try:
                answer = self.router.predict({"x": np.array([x])}, f"{mine}-{i}")
                if answer.outputs["y"] != 2 * x + answer.version:
                    self.wrong.append(answer)
            except Exception as error:
                self.wrong.append(error)

    def roll_out(self, version: int) -> State:
        plan = Rollout(
            MODEL,
            steps=[Step(20, "0.2s", 20), Step(100, "0.2s", 0)],
            deadline="60s",
            stale_after="10s",
        )
        with Ledger(self.folder) as ledger:
            verbs.start(ledger, version, plan, server={}, unblessed="a test")
        controller = Controller(self.folder, Target(), tick_seconds=0.05)
        try:
            return controller.run()
        finally:
            controller.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "serving"
    for i in (1, 2):
        model = tmp_path / f"model-{i}"
        model.mkdir()
        (model / "saved_model.pb").write_text(f"version {i}")
        push(folder, model)
    with serving() as server:
        made = World(folder, server)
        yield made
        made.end()


def test_a_good_version_is_promoted_and_nobody_notices(world: World) -> None:
    assert world.roll_out(1).phase is Phase.PROMOTED
    world.begin()
    assert world.roll_out(2).phase is Phase.PROMOTED
    until(lambda: world.router.routing.stable == 2)
    world.end()
    assert world.wrong == []


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        (lambda x: True, "failed 6 different units in a row"),
        (lambda x: x == BROKEN_CATEGORY, "fail"),
    ],
)
def test_a_bad_version_is_rolled_back_with_its_reason_and_its_rows_are_in_the_log(
    fails: Callable[[float], bool], reason: str, world: World
) -> None:
    assert world.roll_out(1).phase is Phase.PROMOTED

    def refuse(request: Message) -> None:
        if fails(float(to_array(request.inputs["x"])[0])):
            # As a model does that does not know a category.
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "assertion failed")

    world.server.behaviors[2] = refuse
    world.begin()
    state = world.roll_out(2)
    assert state.phase is Phase.ROLLED_BACK
    with Ledger(world.folder) as ledger:
        said = str([event.data for event in ledger.events(rollout=state.id)])
    assert reason in said
    until(lambda: world.router.routing.weight == 0)
    assert world.router.routing.stable == 1
    world.end()
    assert world.wrong == []  # stable answered what the candidate failed
    rows = [
        float(to_array(record.predict_log.request.inputs["x"])[0])
        for record in read_log(world.folder.parent / "log")
        if record.log_metadata.request_origin == "fallback 2 INVALID_ARGUMENT"
    ]
    assert rows
    assert all(fails(x) for x in rows)
