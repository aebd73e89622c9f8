"""Any sequence of pushes, quarantines, deletions and kills keeps what was promised.

A model of what people were told stands beside the serving directory: what was decided
holds, whoever was killed when; numbers are never given twice; what is pinned or routed
is never deleted; a version that is visible is whole and in the ledger.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from penstock.components.serving import ledger, staging, stock, version_dir
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.retention import retain
from penstock.components.serving.routing import Routing, route, routing_of
from penstock.components.serving.shelf import (
    entries,
    pin,
    quarantine,
    release,
    unpin,
    usable,
)
from penstock.components.serving.standing import standings
from penstock.components.serving.version_dir import VersionState, push, verify, versions
from penstock.schemas.errors import ServingError

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

_EVENT = (ledger.Transaction, "event")

Kill = tuple[tuple[Any, str], int, bool]
"""Where to die: at a call of which function, the how manieth, and before or after."""


def kills(*seams: tuple[Any, str]) -> st.SearchStrategy[Kill | None]:
    return st.none() | st.tuples(
        st.sampled_from([_EVENT, *seams]), st.integers(0, 1), st.booleans()
    )


class _Killed(BaseException):
    """The process ends here: no clean-up runs, and the kernel frees its locks."""


class Shelf(RuleBasedStateMachine):
    """A serving directory, and what anybody was promised of it."""

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir=_MEMORY))
        self.serving = self.root / "serving"
        self.model = self.root / "model"
        self.model.mkdir()
        self.serving.mkdir()
        self.given: set[int] = set()
        self.quarantined: dict[int, bool] = {}  # False: it was begun and may hold
        self.gone: set[int] = set()
        for content in (b"1", b"2", b"3"):
            self.pushes(content, None)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def does(self, act: Callable[[Ledger], object], kill_at: Kill | None) -> bool:
        """Do something in a process that may be killed; return whether it lived."""
        acting = Ledger(self.serving)
        if kill_at is None:
            with acting:
                act(acting)
            return True
        (owner, name), call, before = kill_at
        original = getattr(owner, name)
        calls = 0

        def dying(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls <= call:
                return original(*args, **kwargs)
            if not before:
                original(*args, **kwargs)
            raise _Killed

        with (
            acting,
            mock.patch.object(owner, name, dying),
            mock.patch.object(staging, "_discard"),
        ):
            try:
                act(acting)
            except _Killed:
                return False
        return True

    def one(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.given)))

    # --- what is done

    @rule(
        content=st.binary(min_size=1, max_size=8),
        kill=kills((version_dir, "rename_new"), (version_dir, "publish")),
    )
    def pushes(self, content: bytes, kill: Kill | None) -> None:
        (self.model / "saved_model.pb").write_bytes(content)
        number = 0

        def act(_: Ledger) -> None:
            nonlocal number
            number = push(self.serving, self.model).number

        if self.does(act, kill):
            assert number > max(self.given, default=0)
        for each in versions(self.serving):
            if each.number not in self.given:
                assert each.number > max(self.given, default=0)
                self.given.add(each.number)

    @rule(data=st.data(), kill=kills((stock, "rename_new")))
    def quarantines(self, data: st.DataObject, kill: Kill | None) -> None:
        number = self.one(data)

        def act(acting: Ledger) -> None:
            before = routing_of(acting)
            try:
                quarantine(acting, number, "why")
            except ServingError as error:
                refused = number in (before.stable, before.candidate)
                assert refused or number in self.gone, str(error)
            else:
                assert number not in before.routed
                self.quarantined[number] = True

        if not self.does(act, kill):
            self.quarantined.setdefault(number, False)

    @precondition(lambda self: self.quarantined)
    @rule(data=st.data(), kill=kills((stock, "rename_new")))
    def releases(self, data: st.DataObject, kill: Kill | None) -> None:
        number = data.draw(st.sampled_from(sorted(self.quarantined)))
        with Ledger(self.serving, read_only=True) as reading:
            was = reading.events(number, kinds=("quarantining",)) != ()

        def act(acting: Ledger) -> None:
            try:
                release(acting, number, "why not")
            except ServingError:
                assert not self.quarantined[number] or number in self.gone
            self.quarantined.pop(number)

        if was and not self.does(act, kill):
            self.quarantined[number] = False

    @rule(data=st.data(), weight=st.sampled_from([0.0, 0.5]))
    def routes(self, data: st.DataObject, weight: float) -> None:
        stable, candidate = self.one(data), self.one(data)
        with Ledger(self.serving) as acting, acting.writing() as transaction:
            try:
                for each in (stable, candidate):
                    usable(acting, each, reads_bytes=False)
            except ServingError:
                return
            previous = routing_of(transaction).stable
            routing = Routing(
                stable=stable, previous=previous, candidate=candidate, weight=weight
            )
            route(transaction, routing, transaction.event("step", candidate))

    @rule(data=st.data(), removes=st.booleans(), kill=kills())
    def pins(self, data: st.DataObject, removes: bool, kill: Kill | None) -> None:
        number = self.one(data)

        def act(acting: Ledger) -> None:
            try:
                (unpin if removes else pin)(acting, number, "name", "why")
            except ServingError:
                assert removes or number in self.gone

        self.does(act, kill)

    @rule(
        keep=st.integers(1, 2),
        kill=kills(
            (stock, "throw_away"), (stock, "sync_folder"), (stock, "empty_trash")
        ),
    )
    def retains(self, keep: int, kill: Kill | None) -> None:
        with Ledger(self.serving, read_only=True) as reading:
            before = standings(reading)
        kept = {
            number
            for number, each in before.items()
            if each.deleted is None
            and (each.is_stable or each.is_previous or each.is_candidate or each.pins)
        }

        def act(acting: Ledger) -> None:
            retain(acting, keep, younger_than_seconds=0)

        self.does(act, kill)
        with Ledger(self.serving, read_only=True) as reading:
            after = standings(reading)
        for number, each in after.items():
            if each.deleted is not None:
                assert number not in kept
                self.gone.add(number)

    @rule()
    def somebody_comes_by(self) -> None:
        """Any writer of versions finishes what others left undone."""
        with Ledger(self.serving) as acting, stock.stocktaking(acting):
            pass
        with Ledger(self.serving, read_only=True) as reading:
            assert all(each.pending is None for each in standings(reading).values())
            denied = {
                each.number
                for each in entries(reading)
                if each.version.path.suffix == ".denied"
            }
            quarantined = {
                number
                for number, each in standings(reading).items()
                if each.quarantined is not None and each.deleted is None
            }
        assert denied == quarantined
        trash = self.serving / ".penstock" / "trash"
        assert not trash.exists() or os.listdir(trash) == []

    # --- what always holds

    @invariant()
    def what_is_visible_is_whole(self) -> None:
        for each in versions(self.serving):
            assert each.state is VersionState.COMPLETE
            assert verify(self.serving, each.number) == ()

    @invariant()
    def what_is_routed_or_pinned_is_there(self) -> None:
        with Ledger(self.serving, read_only=True) as reading:
            routed = routing_of(reading).routed
            standing = standings(reading)
            listed = {each.number for each in entries(reading)}
            for number in routed:
                assert usable(reading, number, reads_bytes=False).number == number
        pinned = {number for number, each in standing.items() if each.pins}
        assert pinned <= listed

    @invariant()
    def what_was_decided_holds(self) -> None:
        with Ledger(self.serving, read_only=True) as reading:
            standing = standings(reading)
        for number, is_sure in self.quarantined.items():
            if is_sure:
                assert standing[number].quarantined is not None
        lying = {each.number for each in versions(self.serving)}
        for number in self.gone:
            assert standing[number].deleted is not None
            # A killed deletion may still have its bytes; nothing may route to them.
            assert number not in lying or standing[number].pending == "deleting"


TestShelf = Shelf.TestCase
TestShelf.settings = settings(max_examples=60, stateful_step_count=25)
