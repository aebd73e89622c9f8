"""The story of a version: what people are told of what was done to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.components.serving.ledger import Event, Ledger
from penstock.components.serving.retention import retain
from penstock.components.serving.rollout import state as moves
from penstock.components.serving.rollout.plan import Rollout
from penstock.components.serving.shelf import pin, quarantine, release, unpin
from penstock.components.serving.story import story_of, told
from penstock.components.serving.version_dir import push, versions


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The ledger of a serving directory with versions 1 and 2."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    for number in (1, 2):
        push(
            tmp_path / "serving",
            tmp_path / "model",
            model_uri=f"/m/{number}",
            run_id=f"run-{number}",
        )
    return Ledger(tmp_path / "serving")


def texts(ledger: Ledger, version: int) -> list[str]:
    return [each.text for each in story_of(ledger, version)]


def test_a_push_is_told_with_its_run_and_its_model_at_its_time(ledger: Ledger) -> None:
    (chapter,) = story_of(ledger, 1)
    assert chapter.text == "pushed by run run-1, a copy of '/m/1'"
    pushed_at = versions(ledger.directory)[0].pushed_at
    assert pushed_at is not None and chapter.at == pushed_at.timestamp()
    assert re.fullmatch(r".+:\d+", chapter.actor)


def test_a_rollout_is_told_with_its_weights_and_reasons(ledger: Ledger) -> None:
    with ledger.writing() as transaction:
        state = moves.begin(transaction, Rollout("taxi"), 1)
        transaction.event("blessing", 1, rollout=state.id, blessing="/b/1", reason="")
        moves.loaded(transaction, state)
        state = moves.begin(transaction, Rollout("taxi"), 2)
        transaction.event("blessing", 2, blessing="", reason="A fire drill.")
        state = moves.loaded(transaction, state)
        state = moves.held(transaction, state, "Lunch.")
        state = moves.released(transaction, state)
        state = moves.next_step(transaction, state, ("All guards are ok.",), 0.25)
        state = moves.noted(
            transaction, state, holding="No units.", holding_kind="traffic"
        )
        state = moves.noted(transaction, state, holding="", holding_kind="")
        state = moves.knows_slow(transaction, state, 0.2)
        state = moves.rolls_back(transaction, state, "Errors doubled.", blames=True)
        state = moves.rolled_back(transaction, state)
    assert texts(ledger, 1)[1:] == [
        "rollout started; no version was stable",
        "blessed by '/b/1'",
        "loaded",
        "promoted: stable from now on: There was no stable version before.",
    ]
    assert texts(ledger, 2)[1:] == [
        "rollout started; 1 was stable",
        "rolled out unblessed: A fire drill.",
        "loaded",
        "answers 5 % of units",
        "held by somebody: Lunch.",
        "goes on, as somebody said",
        "answers 20 % of units; the step before is done: All guards are ok.",
        "waits: No units.",
        "waits no more",
        "an answer of stable is slow from 200 ms on",
        "rolls back to version 1: Errors doubled.",
        "rolled back: Errors doubled.",
    ]
    assert {each.rollout for each in story_of(ledger, 2)[3:]} == {state.id}


def test_what_people_did_is_told_once_with_the_reason(ledger: Ledger) -> None:
    pin(ledger, 1, "audit", "They look at it.")
    unpin(ledger, 1, "audit", "Done.")
    quarantine(ledger, 1, "It fails.")
    release(ledger, 1, "It does not.")
    retain(ledger, 1, younger_than_seconds=0)
    assert texts(ledger, 1)[1:] == [
        "pinned as 'audit': They look at it.",
        "unpinned as 'audit': Done.",
        "quarantined: It fails.",
        "released: It does not.",
        "deleted: It was older than the last 1.",
    ]


def test_what_was_begun_and_not_finished_is_told(ledger: Ledger) -> None:
    with ledger.writing() as transaction:
        transaction.event("quarantining", 2, reason="It fails.")
    assert texts(ledger, 2)[1:] == ["is being quarantined: It fails."]


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("found", {}, "found there: penstock did not push it"),
        (
            "missing",
            {},
            "found to be gone: something other than penstock deleted or moved it",
        ),
        ("withdrawn", {}, "its push was broken off before it appeared"),
        ("pushed", {}, "pushed"),
        ("rolls back", {}, "rolls back"),
        (
            "rolled back",
            {"reason": "A.", "remark": "Late: r1."},
            "rolled back: A. Late: r1.",
        ),
        ("promoted", {"previous": 3}, "promoted: stable from now on, after version 3"),
        ("praised", {}, "praised"),
        ("praised", {"reasons": ["A.", "B."], "by": 2}, 'praised: A. B. {"by": 2}'),
    ],
)
def test_any_event_is_told(kind: str, data: dict[str, object], text: str) -> None:
    event = Event(1, 5.0, 0, "host:1", kind, 2, None, data)
    (chapter,) = told([event])
    assert (chapter.text, chapter.at) == (text, 5.0)
