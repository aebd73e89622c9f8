"""Old versions are deleted, and never one that is in use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from penstock.components.serving import retention, stock
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.retention import Retention, find_old, retain
from penstock.components.serving.rollout import verbs
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.server_config import Served
from penstock.components.serving.server_record import (
    RPC,
    Record,
    record_path,
    write_record,
)
from penstock.components.serving.shelf import entry_of, pin, quarantine, usable
from penstock.components.serving.standing import ROLLOUT, standings
from penstock.components.serving.traffic import Report, Traffic
from penstock.components.serving.version_dir import push, versions
from penstock.schemas.errors import ServingError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    return folder


@pytest.fixture
def serving(tmp_path: Path, model: Path) -> Path:
    """A serving directory with versions 1 to 6."""
    for _ in range(6):
        push(tmp_path / "serving", model)
    return tmp_path / "serving"


@pytest.fixture
def ledger(serving: Path) -> Ledger:
    return Ledger(serving)


def to(ledger: Ledger, routing: Routing) -> None:
    with ledger.writing() as transaction:
        route(transaction, routing, transaction.event("step", routing.candidate))


def why(found: Retention) -> dict[int, str]:
    return {each.number: said for each, said in found.kept}


def numbers(serving: Path) -> list[int]:
    return [each.number for each in versions(serving)]


def test_the_last_ones_are_kept(serving: Path, ledger: Ledger) -> None:
    found = find_old(ledger, 2, younger_than_seconds=0)
    assert [each.number for each in found.deleted] == [1, 2, 3, 4]
    assert found.size_bytes == 4 * len(b"graph")
    assert why(found) == {5: "it is one of the last 2", 6: "it is one of the last 2"}
    assert numbers(serving) == [1, 2, 3, 4, 5, 6]
    done = retain(ledger, 2, younger_than_seconds=0)
    assert [each.number for each in done.deleted] == [1, 2, 3, 4]
    assert numbers(serving) == [5, 6]
    assert os.listdir(serving / ".penstock" / "trash") == []
    assert sorted(os.listdir(serving / ".penstock" / "manifests")) == [
        *("5.json", "6.json")
    ]
    assert [(e.kind, dict(e.data)) for e in ledger.events(1)[2:]] == [
        ("deleting", {"reason": "It was older than the last 2."}),
        ("deleted", {"reason": "It was older than the last 2."}),
    ]
    with pytest.raises(ServingError) as raised:
        usable(ledger, 1)
    assert str(raised.value) == (
        f"Version 1 of '{serving}' was deleted: It was older than the last 2. Push its "
        "model again; it gets a new number."
    )


def test_a_number_that_was_deleted_is_never_given_again(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    retain(ledger, 1, younger_than_seconds=0)
    assert push(serving, model).number == 7


def test_what_is_in_use_is_kept(serving: Path, ledger: Ledger) -> None:
    to(ledger, Routing(stable=2, previous=1, candidate=3, weight=0.1))
    pin(ledger, 4, "audit", "The auditors look at it.")
    told = Served("m", serving, (4, 5), "labels", stable=5)
    control = serving / ".penstock" / "servers"
    control.mkdir()
    path = record_path("127.0.0.1:8500", None, serving)
    write_record(path, Record(RPC, {"m": told}))
    (serving / "0").mkdir()
    found = retain(ledger, 1, younger_than_seconds=0)
    assert found.deleted == ()
    assert why(found) == {
        0: "nothing says that penstock pushed it",
        1: "it was stable before, to go back to",
        2: "it is stable",
        3: "it is the candidate of a rollout",
        4: "it is pinned as 'audit': The auditors look at it",
        5: "model server '127.0.0.1:8500' knows it as 'stable'",
        6: "it is one of the last 1",
    }


def test_what_is_young_is_kept(serving: Path, ledger: Ledger) -> None:
    pushed_at = standings(ledger)[1].pushed_at
    assert pushed_at is not None
    found = find_old(ledger, 5, younger_than_seconds=60, now=pushed_at + 59)
    assert why(found)[1].startswith("it is young: it was pushed at 20")
    found = find_old(ledger, 5, younger_than_seconds=60, now=pushed_at + 61)
    assert [each.number for each in found.deleted] == [1]


def test_what_was_turned_down_counts_not_among_the_last(
    serving: Path, ledger: Ledger
) -> None:
    quarantine(ledger, 6, "It fails.")
    quarantine(ledger, 3, "It fails.")
    with ledger.writing() as transaction:
        transaction.event("rolled back", 4, reason="It is slow.")
    (serving / "2" / "saved_model.pb").unlink()
    found = retain(ledger, 2, younger_than_seconds=0)
    assert [each.number for each in found.deleted] == []
    assert why(found) == {
        1: "it is one of the last 2",
        2: "it is newer than the last 2",
        3: "it is newer than the last 2",
        4: "it is newer than the last 2",
        5: "it is one of the last 2",
        6: "it is newer than the last 2",
    }
    found = retain(ledger, 1, younger_than_seconds=0)
    assert [each.number for each in found.deleted] == [1, 2, 3, 4]
    assert sorted(os.listdir(serving)) == [".penstock", "5", "6.denied"]


@pytest.mark.parametrize(
    ("acknowledged", "is_late"), [(-1, True), (0, False), (1, False)]
)
def test_a_router_that_does_not_obey_yet_keeps_everything(
    ledger: Ledger, acknowledged: int, is_late: bool
) -> None:
    to(ledger, Routing(stable=6))
    seq = ledger.events()[-1].seq
    with Traffic(ledger.directory) as traffic:
        traffic.report(Report("r1", seq + acknowledged))
    found = find_old(ledger, 1, younger_than_seconds=0)
    said = "router 'r1' does not obey the newest routing yet"
    assert why(found) == (
        {**dict.fromkeys(range(1, 6), said), 6: "it is stable"}
        if is_late
        else {6: "it is stable"}
    )


@pytest.mark.parametrize("where", ["routing", "rollout", "pin"])
def test_what_is_taken_while_it_is_looked_at_is_kept(
    serving: Path,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    look = retention.find_old

    def slow(*args: object, **options: object) -> Retention:
        found: Retention = look(*args, **options)  # type: ignore[arg-type]
        with ledger.writing() as transaction:
            if where == "routing":
                event = transaction.event("promoted", 2)
                route(transaction, Routing(stable=2), event)
            elif where == "rollout":
                transaction.hold(ROLLOUT, {"candidate": 2, "phase": "loading"})
            else:
                transaction.event("pinned", 2, name="n", reason="r")
        return found

    monkeypatch.setattr(retention, "find_old", slow)
    found = retain(ledger, 2, younger_than_seconds=0)
    assert 2 in numbers(serving)
    assert [each.number for each in found.deleted] == (
        [] if where == "routing" else [1, 3, 4]
    )
    assert list(why(found)) == ([1, 2, 3, 4, 5, 6] if where == "routing" else [2, 5, 6])


def test_a_rollout_that_starts_after_the_decision_is_refused(
    serving: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    throw = stock.throw_away

    def beaten(directory: Path, number: int) -> None:
        with ledger.writing():
            with pytest.raises(ServingError) as raised:
                usable(ledger, number, reads_bytes=False)
            said.append(str(raised.value))
        throw(directory, number)

    monkeypatch.setattr(retention, "throw_away", beaten)
    retain(ledger, 5, younger_than_seconds=0)
    assert said == [
        f"Version 1 of '{serving}' is being deleted: It was older than the last 5. "
        "Push its model again; it gets a new number."
    ]


@pytest.mark.parametrize("after", [False, True])
def test_a_deletion_that_was_killed_goes_on(
    serving: Path,
    ledger: Ledger,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    throw = stock.throw_away

    def die(directory: Path, number: int) -> None:
        if after:
            throw(directory, number)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retention, "throw_away", die)
        with pytest.raises(KeyboardInterrupt):
            retain(ledger, 4, younger_than_seconds=0)
    assert push(serving, model).number == 7
    assert numbers(serving) == [3, 4, 5, 6, 7]
    assert [e.kind for e in ledger.events(2)[2:]] == ["deleting", "deleted"]
    assert os.listdir(serving / ".penstock" / "trash") == []


def test_a_version_that_is_deleted_while_it_is_checked_is_not_rolled_out(
    serving: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verbs.check_candidate

    def slow(*args: Any, **options: Any) -> str:
        blessing = check(*args, **options)
        with Ledger(serving) as other:
            retain(other, 1, younger_than_seconds=0)
        return blessing

    monkeypatch.setattr(verbs, "check_candidate", slow)
    with pytest.raises(ServingError) as raised:
        verbs.start(ledger, 2, Rollout("m"), server={}, unblessed="A drill.")
    assert str(raised.value) == (
        f"Version 2 of '{serving}' was deleted: It was older than the last 1. Push its "
        "model again; it gets a new number."
    )
    assert ledger.fact(ROLLOUT) is None


def test_what_comes_back_after_its_deletion_is_found(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    retain(ledger, 5, younger_than_seconds=0)
    (serving / "1").mkdir()
    push(serving, model)
    assert [e.kind for e in ledger.events(1)[4:]] == ["found"]
    assert entry_of(ledger, 1).standing.deleted is None


def test_an_empty_serving_directory_has_nothing_to_delete(tmp_path: Path) -> None:
    assert retain(Ledger(tmp_path), 1) == Retention((), ())


@pytest.mark.parametrize("keep", [0, -1, True, 1.5])
def test_a_count_that_is_none_gets_a_sentence(ledger: Ledger, keep: int) -> None:
    with pytest.raises(ServingError) as raised:
        retain(ledger, keep)
    assert str(raised.value) == (
        f"keep_last is {keep!r}. Pass a whole number of at least 1: the newest version "
        "is what a model server serves."
    )


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_that_is_none_gets_a_sentence(ledger: Ledger, seconds: float) -> None:
    with pytest.raises(ServingError) as raised:
        find_old(ledger, 1, younger_than_seconds=seconds)
    assert str(raised.value) == (
        f"younger_than_seconds is {seconds!r}, which is no length of time. Pass a "
        "number of seconds of at least 0."
    )
