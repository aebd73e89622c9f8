"""Configs and disks that change at random: what is loaded follows and stays there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.components.serving.model_server.core import CoreOptions, ServerCore
from penstock.components.serving.model_server.source import aspired_versions
from penstock.components.serving.model_server.states import State, VersionState
from penstock.components.serving.model_server.status import Code, ServableError
from tests.components.serving.model_server.models import config

NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(1, 4)
SETTLED = 40
"""More steps than any change of two models takes: each action is one."""

NEXT = {
    None: {State.START},
    State.START: {State.LOADING, State.START},
    State.LOADING: {State.AVAILABLE, State.END},
    State.AVAILABLE: {State.UNLOADING},
    State.UNLOADING: {State.END},
    State.END: {State.START},
}
"""What may follow a state. A version that is wanted no more before it loads is
forgotten, and starts again if it is wanted again."""


class Free:
    """Nothing to free."""

    def close(self) -> None:
        pass


class Core(RuleBasedStateMachine):
    """A core whose threads stand still; every step is taken here."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        for name in ("a", "b"):
            (self.folder / name).mkdir()
        self.bad: set[Path] = set()
        self.failed = False
        options = CoreOptions(file_system_poll_wait_seconds=-1, max_num_load_retries=0)
        self.core = ServerCore(self.load, options)
        # As started with an empty list, without its threads.
        self.core._started = True
        self.told: dict[tuple[str, int], State] = {}
        tell = self.core._manager._tell

        def told(name: str, version: int, state: VersionState) -> None:
            before = self.told.get((name, version))
            assert state.state in NEXT[before], (name, version, before, state)
            self.told[name, version] = state.state
            tell(name, version, state)

        self.core._manager._tell = told
        self.current: dict[str, Any] = {}

    def teardown(self) -> None:
        self.core.stop()
        shutil.rmtree(self.folder)

    def load(self, name: str, version: int, path: Path) -> Free:
        if path in self.bad:
            self.failed = True
            raise ServableError(Code.INTERNAL, "Bad.")
        return Free()

    # --- what happens

    @rule(name=NAMES, number=NUMBERS, bad=st.booleans() | st.just(False))
    def push(self, name: str, number: int, bad: bool) -> None:
        path = self.folder / name / str(number)
        if not path.exists():
            path.mkdir()
            (self.bad.add if bad else self.bad.discard)(path)

    @rule(name=NAMES, number=NUMBERS)
    def remove(self, name: str, number: int) -> None:
        shutil.rmtree(self.folder / name / str(number), ignore_errors=True)

    @rule(
        policies=st.dictionaries(
            NAMES, st.sampled_from(["latest", "two", "all"]) | st.sets(NUMBERS)
        )
    )
    def reload(self, policies: dict[str, Any]) -> None:
        made = config(
            **{name: self.folder / name for name in policies},  # type: ignore[arg-type]
            latest={name: 2 for name, policy in policies.items() if policy == "two"},
            every=[name for name, policy in policies.items() if policy == "all"],
            specific={
                name: sorted(policy)
                for name, policy in policies.items()
                if isinstance(policy, set)
            },
        )
        # Without threads nothing becomes available while a reload waits, so that it
        # is told to wait no more.
        self.core._stopping.set()
        try:
            self.core.reload(made)
        except ServableError as error:
            assert error.code is Code.CANCELLED
        self.core._stopping.clear()
        self.current = {
            model.name: model.model_version_policy
            for model in made.model_config_list.config
        }

    @rule(times=st.integers(1, 3))
    def step(self, times: int) -> None:
        self.core._source.poll()
        for _ in range(times):
            before = self.loaded()
            self.core._manager.step()
            for name in self.current:
                managed = self.core._manager._managed.get(name, {}).values()
                if before[name] and any(harness.aspired for harness in managed):
                    assert self.loaded()[name], name

    @rule()
    def settle(self) -> None:
        self.step(SETTLED)
        self.step(SETTLED)
        if self.failed:
            return  # what failed may hold the rest up, as in TensorFlow Serving
        for name in ("a", "b"):
            wanted = []
            if name in self.current:
                model = next(m for m in self.core._source._models if m.name == name)
                wanted = [version for version, _ in aspired_versions(model)]
            assert self.loaded()[name] == sorted(wanted)

    # --- what holds

    def loaded(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"a": [], "b": []}
        for name, version in self.core.available():
            found[name].append(version)
        return found

    @invariant()
    def requests_without_a_version_go_to_the_highest(self) -> None:
        for name, versions in self.loaded().items():
            try:
                with self.core._manager.handle(name, None) as held:
                    assert held.version == max(versions)
            except ServableError as error:
                assert not versions
                assert error.code is Code.NOT_FOUND

    @invariant()
    def what_is_loaded_is_what_is_told(self) -> None:
        told = {entry for entry, state in self.told.items() if state is State.AVAILABLE}
        assert told == set(self.core.available())


TestCore = Core.TestCase
TestCore.settings = settings(max_examples=60, stateful_step_count=30)
