"""What is decided on retraining: once for each occasion, within limits, for good."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.components.monitoring.retraining.journal import (
    Answer,
    Decision,
    Journal,
    Limits,
    Recipe,
    Source,
    Stage,
    Wish,
)
from penstock.schemas.errors import PipelineError, UnknownName

NOW = 1_796_018_400.0
HOUR = 3_600.0

RECIPE = Recipe("pipe.py:toy", "/root", "/folder", {"rows": "3"})


def wish(*occasions: str, model: str = "taxi") -> Wish:
    """Return a wish that an alert stands for."""
    return Wish(
        model,
        Source.ALERT,
        "ModelDrift",
        ("'fare' drifts.",),
        occasions or ("group 1",),
        {"group_key": "group"},
    )


Decide = Callable[..., Decision]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state")


@pytest.fixture
def decide(journal: Journal) -> Decide:
    def decide(*occasions: str, at: float = 0.0, **how: object) -> Decision:
        model = str(how.pop("model", "taxi"))
        limits = how.pop("limits", Limits(cool_down_seconds=6 * HOUR, runs_per_day=2))
        assert isinstance(limits, Limits)
        return journal.decide(
            wish(*occasions, model=model),
            RECIPE,
            limits,
            now=NOW + at,
            **how,  # type: ignore[arg-type]
        )

    return decide


def test_a_decision_is_kept_with_its_reasons_and_the_id_of_its_run(
    journal: Journal, decide: Decide
) -> None:
    made = decide()
    assert made.answer is Answer.START
    assert made.run_id == "20261130-060000.000000"
    assert made.because == ("No run of 'taxi' goes on; cool-down and limit allow one.")
    (kept,) = Journal(journal.folder).left()
    assert kept == made
    assert kept.reasons == ("'fare' drifts.",)
    assert kept.evidence == {"group_key": "group"}
    assert kept.recipe == RECIPE
    assert (kept.stage, kept.outcome) == (Stage.DECIDED, "")


def test_the_same_again_starts_nothing_whatever_became_of_the_first(
    journal: Journal, decide: Decide
) -> None:
    first = decide()
    again = decide(at=1)
    journal.begin(first.id, now=NOW + 2)
    later = decide(at=3)
    journal.end(first.id, "pushed", "Version 2.", now=NOW + 4)
    last = decide(at=100 * 24 * HOUR)
    for each in (again, later, last):
        assert each.id == first.id
        assert each.is_repeat
    assert last.notices == 4
    assert last.noticed == NOW + 100 * 24 * HOUR
    assert len(journal.decisions()) == 1


def test_the_same_group_is_another_matter_for_another_model(decide: Decide) -> None:
    first, second = decide(), decide(model="tips")
    assert [first.answer, second.answer] == [Answer.START, Answer.START]
    assert first.run_id != second.run_id


def test_one_run_of_a_model_at_a_time(journal: Journal, decide: Decide) -> None:
    first = decide("group 1")
    held = decide("group 2", at=1)
    assert held.answer is Answer.RUNNING
    assert held.run_id == ""
    assert held.because == (
        "Run '20261130-060000.000000' of 'taxi' goes on, and one at a time is run."
    )
    assert held.stage is Stage.ENDED
    assert decide("group 3", model="tips", at=1).answer is Answer.START
    journal.end(first.id, "failed", "It failed.", now=NOW + 2)
    anyway = Limits(cool_down_seconds=0, runs_per_day=9)
    assert decide("group 2", at=3, limits=anyway).answer is Answer.START


def test_a_model_cools_down_after_a_run_has_ended(
    journal: Journal, decide: Decide
) -> None:
    first = decide("group 1")
    journal.end(first.id, "pushed", "", now=NOW + HOUR)
    held = decide("group 2", at=3 * HOUR)
    assert held.answer is Answer.COOL_DOWN
    assert held.because == (
        "The last one ended 2 h ago; until 2026-11-30 13:00:00 UTC 'taxi' cools down."
    )
    # The alert still fires when it is sent the next time, and then it is its turn.
    assert decide("group 2", at=6.9 * HOUR).answer is Answer.COOL_DOWN
    assert decide("group 2", at=7 * HOUR).answer is Answer.START


def test_a_clock_that_was_set_back_holds_nothing_up_for_long(
    journal: Journal, decide: Decide
) -> None:
    first = decide("group 1")
    journal.end(first.id, "pushed", "", now=NOW)
    assert decide("group 2", at=-HOUR).answer is Answer.COOL_DOWN
    once = Limits(cool_down_seconds=0, runs_per_day=1)
    assert decide("group 2", at=-HOUR, limits=once).answer is Answer.LIMIT
    assert decide("group 2", at=-400 * 24 * HOUR, limits=once).answer is Answer.START


def test_no_more_than_so_many_in_any_24_hours(journal: Journal, decide: Decide) -> None:
    limits = Limits(cool_down_seconds=0, runs_per_day=2)
    for number, hour in enumerate((20, 23)):
        made = decide(f"group {number}", at=hour * HOUR, limits=limits)
        journal.end(made.id, "pushed", "", now=NOW + hour * HOUR)
    # Midnight has passed, and the two are within 24 hours all the same.
    held = decide("group 3", at=26 * HOUR, limits=limits)
    assert held.answer is Answer.LIMIT
    assert held.because == (
        "'taxi' was trained again 2 times within 24 hours, and 2 is the limit; until "
        "2026-12-02 02:00:00 UTC none starts."
    )
    assert decide("group 3", at=44 * HOUR, limits=limits).answer is Answer.START


def test_a_person_may_pass_over_cool_down_and_limit_but_not_over_a_run(
    journal: Journal, decide: Decide
) -> None:
    first = decide("group 1")
    assert decide("person 1", at=1, anyway=True).answer is Answer.RUNNING
    journal.end(first.id, "pushed", "", now=NOW + 2)
    made = decide("person 2", at=3, anyway=True)
    assert made.answer is Answer.START
    assert made.because == "Neither cool-down nor limit was asked."


def test_an_alert_that_joins_a_group_is_a_new_matter_within_the_limits(
    journal: Journal, decide: Decide
) -> None:
    first = decide("group 1")
    journal.end(first.id, "pushed", "", now=NOW)
    assert decide("group 1", "group 2", at=HOUR).answer is Answer.COOL_DOWN
    second = decide("group 1", "group 2", at=7 * HOUR)
    assert second.answer is Answer.START and second.id != first.id
    # Each of the two has had its run now, together or alone.
    for again in (("group 1", "group 2"), ("group 2",), ("group 1",)):
        assert decide(*again, at=90 * HOUR).is_repeat


def test_a_refusal_is_written_down_once_while_nothing_changes(
    journal: Journal, decide: Decide
) -> None:
    decide("group 1")
    for seconds in range(5):
        decide("group 2", at=seconds)
    decide("group 3", at=6)
    assert [(each.answer.value, each.notices) for each in journal.decisions()] == [
        ("start", 1),
        ("running", 5),
        ("running", 1),
    ]


def test_a_dry_run_decides_as_if_it_had_started(
    journal: Journal, decide: Decide
) -> None:
    made = decide("group 1", dry_run=True)
    assert made.answer is Answer.DRY_RUN
    assert made.run_id == "" and journal.left() == []
    assert made.because == "It would have been started; nothing is, in a dry run."
    assert decide("group 1", at=1, dry_run=True).is_repeat
    assert decide("group 2", at=2, dry_run=True).answer is Answer.COOL_DOWN
    # What was only dry holds nothing up once it is meant.
    assert decide("group 1", at=3).answer is Answer.START


def test_an_outcome_is_said_once(journal: Journal, decide: Decide) -> None:
    made = decide()
    journal.attempt(made.id, now=NOW + 1)
    assert journal.attempt(made.id, now=NOW + 2) == 2
    journal.begin(made.id, now=NOW + 3)
    journal.begin(made.id, now=NOW + 9)
    journal.end(made.id, "pushed", "Version 2.", now=NOW + 4)
    journal.end(made.id, "failed", "No.", now=NOW + 5)
    journal.begin(made.id, now=NOW + 6)
    found = journal.decision(made.id)
    assert (found.attempts, found.attempted, found.started) == (2, NOW + 2, NOW + 3)
    assert (found.stage, found.ended) == (Stage.ENDED, NOW + 4)
    assert (found.outcome, found.result) == ("pushed", "Version 2.")
    assert journal.last_ended() == {"taxi": NOW + 4}
    assert journal.counts() == [
        ("taxi", "start", "ModelDrift", "pushed", 1, made.run_id)
    ]


def test_decisions_are_listed_by_model_and_from_the_end(
    journal: Journal, decide: Decide
) -> None:
    for number, model in enumerate(("taxi", "tips", "taxi")):
        decide(f"group {number}", model=model)
    assert [each.id for each in journal.decisions()] == [1, 2, 3]
    assert [each.id for each in journal.decisions("taxi")] == [1, 3]
    assert [each.id for each in journal.decisions(last=2)] == [2, 3]


def test_a_missed_time_is_made_up_for_once_and_one_before_it_was_known_never(
    journal: Journal,
) -> None:
    def due(at: float) -> Decision | None:
        return journal.decide_if_due(
            wish(f"schedule {at:.0f}"),
            "every 6h",
            at,
            RECIPE,
            Limits(cool_down_seconds=0),
            now=at + 5,
        )

    assert due(NOW) is None
    assert due(NOW) is None
    # Four times went by while nobody looked; what is asked about is the last.
    missed = due(NOW + 24 * HOUR)
    assert missed is not None and missed.answer is Answer.START
    assert due(NOW + 24 * HOUR) is None
    # A clock that was set back does not make it due again.
    assert due(NOW + 12 * HOUR) is None
    assert len(journal.decisions()) == 1
    # Nor does it wait until the clock is as far again.
    journal.end(missed.id, "pushed", "")
    again = due(NOW + 18 * HOUR)
    assert again is not None and again.answer is Answer.START
    journal.end(again.id, "pushed", "")
    # What was due and done is not done anew.
    same = due(NOW + 24 * HOUR)
    assert same is not None and same.is_repeat and same.id == missed.id


@pytest.mark.parametrize("processes", [8])
def test_of_many_who_ask_at_once_one_is_told_to_start(
    journal: Journal, processes: int
) -> None:
    together = threading.Barrier(processes)
    found: list[Decision] = []

    def ask() -> None:
        own = Journal(journal.folder)
        together.wait()
        found.append(own.decide(wish(), RECIPE, Limits(), now=NOW))

    threads = [threading.Thread(target=ask) for _ in range(processes)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == processes
    assert {each.id for each in found} == {1}
    assert sorted(each.is_repeat for each in found) == [False] + [True] * 7


_STEP = st.tuples(
    st.sampled_from(["alert", "repeat", "end", "dry"]),
    st.integers(0, 3),
    st.floats(0, 10 * HOUR),
)


@settings(max_examples=60)
@given(st.lists(_STEP, max_size=25), st.integers(1, 3))
def test_no_story_has_two_runs_at_once_or_for_one_occasion_or_over_the_limit(
    tmp_path_factory: pytest.TempPathFactory,
    story: list[tuple[str, int, float]],
    most: int,
) -> None:
    journal = Journal(tmp_path_factory.mktemp("state"))
    limits = Limits(cool_down_seconds=HOUR, runs_per_day=most)
    now = NOW
    for what, number, seconds in story:
        now += seconds
        if what == "end":
            for each in journal.left():
                journal.end(each.id, "pushed", "", now=now)
            continue
        journal.decide(
            wish(f"group {number}"), RECIPE, limits, now=now, dry_run=what == "dry"
        )
        if what == "repeat":
            journal.decide(wish(f"group {number}"), RECIPE, limits, now=now)
        assert len(journal.left()) <= 1
    started = [each for each in journal.decisions() if each.answer is Answer.START]
    assert len(started) <= 4
    for each in started:
        day = [
            other
            for other in started
            if each.decided - 24 * HOUR < other.decided <= each.decided
        ]
        assert len(day) <= most
    for before, after in itertools.pairwise(started):
        assert before.ended is not None
        assert after.decided >= before.ended + HOUR


def test_an_unknown_decision_gets_a_sentence(journal: Journal) -> None:
    with pytest.raises(UnknownName) as raised:
        journal.decision(7)
    assert str(raised.value) == (
        f"Decision 7 is not in '{journal.path}'. 'penstock retrain decisions' lists "
        "what is."
    )


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError) as raised:
        Journal(tmp_path / "file" / "state")
    assert str(raised.value) == (
        f"The folder of decisions '{tmp_path}/file/state' cannot be made: Not a "
        "directory. Name another with --state."
    )


def test_what_is_no_journal_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "decisions.sqlite").write_text("no database " * 100)
    with pytest.raises(PipelineError) as raised:
        Journal(tmp_path)
    assert str(raised.value) == (
        f"The decisions in '{tmp_path}/decisions.sqlite' cannot be read or written: "
        "file is not a database. Give yourself the right to, or name another folder "
        "with --state."
    )


def test_a_journal_of_a_newer_penstock_gets_a_sentence(tmp_path: Path) -> None:
    Journal(tmp_path)
    with closing(sqlite3.connect(tmp_path / "decisions.sqlite")) as sql:
        sql.execute("PRAGMA user_version = 2")
    with pytest.raises(PipelineError) as raised:
        Journal(tmp_path)
    assert str(raised.value) == (
        f"The decisions in '{tmp_path}/decisions.sqlite' were written by a newer "
        "penstock (format 2, this one knows 1). Upgrade penstock, or name another "
        "folder with --state."
    )
