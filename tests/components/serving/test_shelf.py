"""Versions as they lie in a serving directory and as they stand; what people do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from penstock.components.serving import stock
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.shelf import (
    entries,
    entry_of,
    pin,
    quarantine,
    release,
    unpin,
    usable,
)
from penstock.components.serving.standing import (
    ROLLOUT,
    standings,
    why_turned_down,
)
from penstock.components.serving.version_dir import VersionState, push, verify, versions
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import ServingError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    return folder


@pytest.fixture
def serving(tmp_path: Path, model: Path) -> Path:
    """A serving directory with versions 1 to 3, of different bytes."""
    folder = tmp_path / "serving"
    for number in (1, 2, 3):
        (model / "saved_model.pb").write_bytes(b"graph %d" % number)
        push(folder, model, model_uri=f"/m/{number}", run_id=f"r{number}")
    return folder


@pytest.fixture
def ledger(serving: Path) -> Ledger:
    return Ledger(serving)


def to(ledger: Ledger, routing: Routing, kind: str = "step") -> None:
    """Let requests go somewhere, as a controller does."""
    with ledger.writing() as transaction:
        version = routing.candidate or routing.stable
        route(transaction, routing, transaction.event(kind, version, reason="it fails"))


def kinds(ledger: Ledger, version: int) -> list[str]:
    return [each.kind for each in ledger.events(version)]


def numbers(serving: Path) -> list[int]:
    return [each.number for each in versions(serving)]


# --- pushes


def test_a_push_says_what_it_is_about_to_do_and_that_it_did_it(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    push(serving, model, blessing="/b/4")
    assert kinds(ledger, 4) == ["pushing", "pushed"]
    standing = standings(ledger)[4]
    assert standing.digest == folder_digest(model)
    assert (standing.model_uri, standing.blessing) == (None, "/b/4")
    (version,) = (each for each in versions(serving) if each.number == 4)
    assert version.pushed_at is not None
    assert standing.pushed_at == version.pushed_at.timestamp()
    assert standings(ledger)[1].model_uri == "/m/1"
    assert standings(ledger)[1].run_id == "r1"


def test_numbers_survive_all_that_is_lost_but_the_ledger(
    serving: Path, model: Path
) -> None:
    shutil.rmtree(serving / "3")
    (serving / ".penstock" / "high-water").unlink()
    shutil.rmtree(serving / ".penstock" / "manifests")
    assert push(serving, model).number == 4


def test_a_ledger_that_is_lost_is_made_anew(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    before = standings(ledger)
    ledger.close()
    (serving / "9").mkdir()
    (serving / ".penstock" / "ledger.sqlite").unlink()
    assert [each.version.state for each in entries(Ledger(serving))] == [
        *[VersionState.COMPLETE] * 3,
        VersionState.FOREIGN,
    ]
    assert push(serving, model).number == 10
    made = Ledger(serving)
    assert [(e.kind, e.version) for e in made.events()] == [
        *(("pushed", number) for number in (1, 2, 3)),
        ("found", 9),
        ("pushing", 10),
        ("pushed", 10),
    ]
    assert {n: standings(made)[n] for n in before} == before


def test_a_manifest_that_cannot_be_read_makes_a_version_found(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    ledger.close()
    (serving / ".penstock" / "ledger.sqlite").unlink()
    (serving / ".penstock" / "manifests" / "2.json").write_text("{")
    push(serving, model)
    assert kinds(Ledger(serving), 2) == ["found"]


def test_a_version_that_was_deleted_by_others_is_told_once(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    shutil.rmtree(serving / "2")
    entry = entry_of(ledger, 2)
    assert entry.version.state is VersionState.MISSING
    assert entry.remark == (
        "Version 2 is missing: something other than penstock deleted or moved it. Put "
        "it back, or push its model again."
    )
    push(serving, model)
    push(serving, model)
    assert kinds(ledger, 2) == ["pushing", "pushed", "missing"]
    assert standings(ledger)[2].is_missing
    # Put back, it is what its manifest says.
    shutil.copytree(serving / "1", serving / "2")
    push(serving, model)
    assert kinds(ledger, 2)[3:] == ["pushed"]
    assert not standings(ledger)[2].is_missing


def test_a_push_killed_before_its_version_appears_is_withdrawn(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    with ledger.writing() as transaction:
        transaction.event("pushing", 4, push="dead")
    assert [each.number for each in entries(ledger)] == [1, 2, 3]
    with pytest.raises(ServingError, match=r"no version 4 \(it has 1, 2, 3\)"):
        entry_of(ledger, 4)
    assert push(serving, model).number == 5
    assert kinds(ledger, 4) == ["pushing", "withdrawn"]


def test_a_number_that_another_tool_took_from_a_killed_push_is_found(
    serving: Path, ledger: Ledger
) -> None:
    control = serving / ".penstock"
    shutil.copytree(serving / "3", control / "staging" / "dead" / "model")
    text = (control / "manifests" / "3.json").read_text()
    push_id = standings(ledger)[3].push
    assert push_id is not None
    (control / "manifests" / "4.json").write_text(text.replace(push_id, "dead"))
    with ledger.writing() as transaction:
        transaction.event("pushing", 4, push="dead")
    (serving / "4").mkdir()
    pin(ledger, 1, "audit", "It is wanted.")
    assert kinds(ledger, 4) == ["pushing", "found"]


# --- standing


def test_a_version_stands_as_the_routing_says(ledger: Ledger) -> None:
    to(ledger, Routing(stable=2, previous=1, candidate=3, weight=0.2))
    one, two, three = standings(ledger).values()
    assert (one.is_previous, one.weight, one.is_seen) == (True, 0.0, False)
    assert (two.is_stable, two.weight, two.is_seen) == (True, 0.8, True)
    assert (three.is_candidate, three.weight, three.is_seen) == (True, 0.2, True)
    assert three.fault == ""


def test_the_candidate_of_a_rollout_that_loads_is_one(ledger: Ledger) -> None:
    with ledger.writing() as transaction:
        transaction.hold(ROLLOUT, {"candidate": 3, "phase": "loading"})
    assert standings(ledger)[3].is_candidate
    with ledger.writing() as transaction:
        transaction.hold(ROLLOUT, {"candidate": 3, "phase": "rolled back"})
    assert not standings(ledger)[3].is_candidate


def test_a_rollback_is_a_fault_until_the_version_is_promoted(ledger: Ledger) -> None:
    to(ledger, Routing(stable=2), "rolls back")
    with ledger.writing() as transaction:
        transaction.event("rolled back", 3, reason="P99 rose.")
    assert standings(ledger)[3].fault == "was rolled back: P99 rose."
    with ledger.writing() as transaction:
        transaction.event("promoted", 3)
    assert standings(ledger)[3].fault == ""


def test_a_version_that_is_stable_and_gone_is_missing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    to(ledger, Routing(stable=5))
    (entry,) = entries(ledger)
    assert (entry.number, entry.version.state) == (5, VersionState.MISSING)


def test_bytes_are_turned_down_by_what_was_last_said_of_them(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    digest = folder_digest(model)  # version 3
    assert why_turned_down(ledger, digest) == ""
    quarantine(ledger, 3, "It loses money.")
    said = "version 3, which was quarantined: It loses money."
    assert why_turned_down(ledger, digest) == said
    assert push(serving, model).number == 4  # the same bytes
    assert why_turned_down(ledger, digest) == said
    assert why_turned_down(ledger, "sha256:00") == ""
    assert why_turned_down(ledger, "sha256:00", "/m/3") == said
    with ledger.writing() as transaction:
        transaction.event("promoted", 4)
    assert why_turned_down(ledger, digest) == ""
    with ledger.writing() as transaction:
        transaction.event("rolled back", 4, reason="Errors doubled.")
    assert why_turned_down(ledger, digest) == (
        "version 4, which was rolled back: Errors doubled."
    )
    release(ledger, 4, "The client was to blame.")
    assert why_turned_down(ledger, digest) == ""


# --- pins


def test_pins_have_names_and_reasons(ledger: Ledger) -> None:
    pin(ledger, 1, "audit", "The auditors look at it.")
    pin(ledger, 1, "paper", "It is cited.")
    pin(ledger, 1, "audit", "They still do.")
    assert standings(ledger)[1].pins == {
        "audit": "They still do.",
        "paper": "It is cited.",
    }
    unpin(ledger, 1, "audit", "They are done.")
    assert standings(ledger)[1].pins == {"paper": "It is cited."}


def test_a_pin_that_is_not_there_gets_a_near_miss(
    serving: Path, ledger: Ledger
) -> None:
    pin(ledger, 1, "audit", "x")
    with pytest.raises(ServingError) as raised:
        unpin(ledger, 1, "audits", "x")
    assert str(raised.value) == (
        f"Version 1 of '{serving}' has no pin 'audits' (its pins are 'audit'). Did you "
        "mean 'audit'? Name one that it has."
    )
    with pytest.raises(ServingError, match=r"no pin 'audit' \(it has none\)\. Name"):
        unpin(ledger, 2, "audit", "x")


@pytest.mark.parametrize(("name", "reason"), [("", "x"), ("x", " ")])
def test_a_pin_needs_a_name_and_a_reason(
    ledger: Ledger, name: str, reason: str
) -> None:
    what = "reason" if name else "name of a pin"
    with pytest.raises(ServingError) as raised:
        pin(ledger, 1, name, reason)
    assert str(raised.value) == (
        f"The {what} is empty, and later readers will know nothing else of it. Write "
        "one."
    )
    assert kinds(ledger, 1) == ["pushing", "pushed"]


# --- quarantine


def test_a_quarantined_version_has_a_name_that_is_no_number(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    quarantine(ledger, 3, "It fails for 'cash'.")
    assert (serving / "3.denied").is_dir() and numbers(serving) == [1, 2]
    assert kinds(ledger, 3)[2:] == ["quarantining", "quarantined"]
    entry = entry_of(ledger, 3)
    assert entry.version.state is VersionState.COMPLETE
    assert entry.standing.quarantined == "It fails for 'cash'."
    assert entry.remark == ""
    assert verify(serving, 3) == ()
    quarantine(ledger, 3, "Again.")  # nothing more to do
    assert kinds(ledger, 3)[2:] == ["quarantining", "quarantined"]
    assert push(serving, model).number == 4
    release(ledger, 3, "Cash is gone.")
    assert numbers(serving) == [1, 2, 3, 4]
    assert kinds(ledger, 3)[4:] == ["releasing", "released"]
    assert entry_of(ledger, 3).standing.fault == ""
    assert verify(serving, 3) == ()


@pytest.mark.parametrize(
    ("routing", "version", "said"),
    [
        (
            Routing(stable=2, candidate=3, weight=0.2),
            2,
            "it is stable, so that 80% of requests go to it. Roll back or promote "
            "another version first, then quarantine it.",
        ),
        (
            Routing(stable=2, candidate=3, weight=0.2),
            3,
            "it is the candidate of a rollout, so that 20% of requests go to it, or "
            "copies of them. Abort the rollout first: penstock rollout abort DIR.",
        ),
        (
            Routing(stable=2, candidate=3, shadow=True),
            3,
            "it is the candidate of a rollout, so that 0% of requests go to it, or "
            "copies of them. Abort the rollout first: penstock rollout abort DIR.",
        ),
        (
            Routing(stable=2, candidate=3),
            3,
            "it is the candidate of a rollout that has begun. Abort the rollout "
            "first: penstock rollout abort DIR.",
        ),
    ],
)
def test_what_requests_reach_is_not_quarantined(
    serving: Path, ledger: Ledger, routing: Routing, version: int, said: str
) -> None:
    to(ledger, routing)
    with pytest.raises(ServingError) as raised:
        quarantine(ledger, version, "It fails.")
    assert str(raised.value) == (
        f"Version {version} of '{serving}' cannot be quarantined: {said}"
    )
    assert numbers(serving) == [1, 2, 3]


def test_the_version_before_stable_can_be_quarantined(ledger: Ledger) -> None:
    to(ledger, Routing(stable=2, previous=1))
    quarantine(ledger, 1, "It must never come back.")
    assert standings(ledger)[1].quarantined == "It must never come back."


def test_names_that_are_taken_are_told(serving: Path, ledger: Ledger) -> None:
    (serving / "3.denied").mkdir()
    with pytest.raises(ServingError) as raised:
        quarantine(ledger, 3, "x")
    assert str(raised.value) == (
        f"Version 3 of '{serving}' cannot be set aside: '3.denied' is there already. "
        "Move it away first."
    )
    (serving / "3.denied").rmdir()
    quarantine(ledger, 3, "x")
    (serving / "3").mkdir()
    with pytest.raises(ServingError) as raised:
        release(ledger, 3, "x")
    assert str(raised.value) == (
        f"Version 3 of '{serving}' cannot get its number back: '3' is there already. "
        "Move it away first."
    )


def test_what_was_not_turned_down_is_not_released(
    serving: Path, ledger: Ledger
) -> None:
    with pytest.raises(ServingError) as raised:
        release(ledger, 3, "x")
    assert str(raised.value) == (
        f"Version 3 of '{serving}' was neither quarantined nor rolled back, so there "
        "is nothing to take back. 'penstock versions DIR' shows how versions stand."
    )
    with pytest.raises(ServingError, match="has no version 9"):
        release(ledger, 9, "x")


def test_what_people_rename_by_hand_is_told_and_left(
    serving: Path, ledger: Ledger, model: Path
) -> None:
    quarantine(ledger, 3, "x")
    os.rename(serving / "3.denied", serving / "3")
    os.rename(serving / "2", serving / "2.denied")
    push(serving, model)
    assert entry_of(ledger, 3).remark == (
        "Version 3 is quarantined, but lies there under its number again, where a "
        "model server may serve it. Rename it to '3.denied', or release it."
    )
    assert entry_of(ledger, 2).remark == (
        "Version 2 is called '2.denied' though nobody quarantined it here. Rename it "
        "to '2', or quarantine it."
    )
    release(ledger, 3, "y")
    quarantine(ledger, 2, "z")
    assert [each.remark for each in entries(ledger)] == ["", "", "", ""]


def test_a_quarantine_that_was_killed_goes_on(
    serving: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("penstock.components.serving.shelf.set_aside", die)
        with pytest.raises(KeyboardInterrupt):
            quarantine(ledger, 3, "x")
    # Decided is decided: nothing may route to it from here on.
    with pytest.raises(ServingError, match="is quarantined: x"):
        usable(ledger, 3)
    assert numbers(serving) == [1, 2, 3]
    pin(ledger, 1, "audit", "Any other writer finishes it.")
    assert numbers(serving) == [1, 2]
    with monkeypatch.context() as patch:
        patch.setattr("penstock.components.serving.shelf.put_back", die)
        with pytest.raises(KeyboardInterrupt):
            release(ledger, 3, "y")
    unpin(ledger, 1, "audit", "Done.")
    assert numbers(serving) == [1, 2, 3]
    assert [(e.kind, e.data["reason"]) for e in ledger.events(3)[2:]] == [
        *[("quarantining", "x"), ("quarantined", "x")],
        *[("releasing", "y"), ("released", "y")],
    ]


# --- what may be served


def test_a_version_that_may_be_served_is_returned(ledger: Ledger) -> None:
    assert usable(ledger, 3).number == 3
    with ledger.writing():
        assert usable(ledger, 3, reads_bytes=False).number == 3


def test_a_version_that_may_not_be_served_gets_a_sentence(
    serving: Path, ledger: Ledger
) -> None:
    def said(version: int) -> str:
        with pytest.raises(ServingError) as raised:
            usable(ledger, version)
        return str(raised.value)

    assert said(7) == (
        f"Serving directory '{serving}' has no version 7 (it has 1, 2, 3). Name one of "
        "these."
    )
    (serving / "3" / "saved_model.pb").write_bytes(b"graph X")
    where = f"'{serving}'"
    assert said(3).startswith(
        f"Version 3 of {where} is corrupt: 'saved_model.pb' has the SHA-256 "
    )
    assert said(3).endswith(". Quarantine it, and push its model again.")
    (serving / "3" / "saved_model.pb").unlink()
    assert said(3) == (
        f"Version 3 of {where} is corrupt: it does not hold the files that were "
        "pushed. 'penstock verify DIR 3' names them; push its model again."
    )
    assert entry_of(ledger, 3).remark == (
        "Version 3 is damaged: it does not hold the files that were pushed. 'penstock "
        "verify' names them."
    )
    shutil.rmtree(serving / "3")
    assert said(3) == (
        f"Version 3 of {where} is missing: something other than penstock deleted or "
        "moved it. Put it back, or push its model again."
    )
    quarantine(ledger, 2, "It loses money.")
    assert said(2) == (
        f"Version 2 of {where} is quarantined: It loses money. Take another, or "
        "release it first: penstock quarantine DIR 2 --release --reason TEXT."
    )
    os.rename(serving / "1", serving / "1.denied")
    assert said(1) == (
        f"Version 1 of {where} is called '1.denied', where no model server finds it. "
        "Rename it to '1'."
    )


def test_an_empty_serving_directory_has_no_versions(tmp_path: Path) -> None:
    with pytest.raises(ServingError) as raised:
        usable(Ledger(tmp_path), 1)
    assert str(raised.value) == (
        f"Serving directory '{tmp_path}' has no version 1: it has none at all. Push a "
        "model first, or name the folder that holds the numbered versions."
    )


def test_what_another_tool_named_is_listed_beside(
    serving: Path, ledger: Ledger
) -> None:
    (serving / "003").mkdir()
    to(ledger, Routing(stable=3))
    found = [
        (each.version.path.name, each.standing.is_stable) for each in entries(ledger)
    ]
    assert found == [("1", False), ("2", False), ("003", False), ("3", True)]


def test_the_trash_is_emptied_of_all_that_lies_there(
    serving: Path, ledger: Ledger
) -> None:
    trash = serving / ".penstock" / "trash"
    (trash / "1.x").mkdir(parents=True)
    (trash / "file").touch()
    (trash / "link").symlink_to(serving / "1")
    stock.empty_trash(str(serving))
    assert os.listdir(trash) == [] and (serving / "1" / "saved_model.pb").exists()
