"""Letters are kept until they were taken: order, backoff, dead ones, killed senders."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.components.monitoring.outbox import (
    FIRST_DELAY_SECONDS,
    KEPT_SECONDS,
    LONGEST_DELAY_SECONDS,
    Letter,
    NotSent,
    Outbox,
    backoff_seconds,
)
from penstock.schemas.errors import DataError
from tests.components.monitoring.prometheus import until
from tests.components.monitoring.receivers import Clock, http_receiver


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite", clock=clock) as opened:
        yield opened


def refuse(letter: Letter) -> None:
    raise NotSent("Channel 'a' answered 500.")


def refuse_for_ever(letter: Letter) -> None:
    raise NotSent("Channel 'a' answered 404.", permanent=True)


def test_a_letter_is_sent_once(outbox: Outbox) -> None:
    assert outbox.put(Letter("key", "a", b"body"))
    assert not outbox.put(Letter("key", "a", b"another"))
    sent: list[bytes] = []
    for _ in range(3):
        outbox.deliver(lambda letter: sent.append(letter.body))
    assert sent == [b"body"]
    assert not outbox.put(Letter("key", "a", b"body")), "it is remembered as sent"


def test_what_is_replaced_is_sent_anew(outbox: Outbox) -> None:
    sent: list[bytes] = []
    for body in (b"1", b"2", b"3"):
        outbox.put(Letter("key", "a", body), replace=True)
        if body != b"1":
            outbox.deliver(lambda letter: sent.append(letter.body))
    assert sent == [b"2", b"3"]


def test_what_is_replaced_while_it_is_sent_is_sent_again(
    outbox: Outbox, tmp_path: Path, clock: Clock
) -> None:
    outbox.put(Letter("key", "a", b"1"))

    def send(letter: Letter) -> None:
        if letter.body == b"1":
            with Outbox(tmp_path / "outbox.sqlite", clock=clock) as other:
                other.put(Letter("key", "a", b"2"), replace=True)

    outbox.deliver(send)
    (waiting,) = outbox.letters("waiting")
    assert waiting.body == b"2"


def test_what_was_not_taken_is_tried_again_later_and_later(
    outbox: Outbox, clock: Clock
) -> None:
    outbox.put(Letter("key", "a", b""))
    delays = []
    for tries in range(12):
        found = outbox.deliver(refuse)
        assert [why for _, why in found.kept] == ["Channel 'a' answered 500."]
        (letter,) = outbox.letters("waiting")
        assert letter.tries == tries + 1
        delays.append(letter.due - clock())
        # Before it is due, nobody is asked.
        asked: list[Letter] = []
        clock.now = letter.due - 0.01
        assert outbox.deliver(asked.append).kept and not asked
        clock.now = letter.due
    for tries, delay in enumerate(delays):
        doubled = min(FIRST_DELAY_SECONDS * 2**tries, LONGEST_DELAY_SECONDS)
        assert 0.9 * doubled <= delay <= 1.1 * doubled + 0.01
        assert delay == pytest.approx(backoff_seconds("key", tries), abs=0.01)
    assert len({round(backoff_seconds(key, 3)) for key in "abcdefgh"}) > 4


def test_a_receiver_that_asks_to_wait_is_waited_for(
    outbox: Outbox, clock: Clock
) -> None:
    def busy(letter: Letter) -> None:
        raise NotSent("Channel 'a' answered 429.", after_seconds=500)

    outbox.put(Letter("key", "a", b""))
    outbox.deliver(busy)
    assert outbox.letters()[0].due == clock() + 500


def test_what_will_never_be_taken_is_a_dead_letter_that_can_be_revived(
    outbox: Outbox,
) -> None:
    outbox.put(Letter("key", "a", b"body"))
    found = outbox.deliver(refuse_for_ever)
    assert [why for _, why in found.dead] == ["Channel 'a' answered 404."]
    (dead,) = outbox.letters("dead")
    assert (dead.body, dead.said) == (b"body", "Channel 'a' answered 404.")
    assert not outbox.put(Letter("key", "a", b"body"))
    asked: list[Letter] = []
    outbox.deliver(asked.append)
    assert not asked
    assert outbox.revive() == 1
    outbox.deliver(asked.append)
    assert [letter.body for letter in asked] == [b"body"]


def test_after_three_days_of_trying_a_letter_is_dead(
    outbox: Outbox, clock: Clock
) -> None:
    outbox.put(Letter("key", "a", b""))
    while outbox.letters("waiting"):
        began = outbox.letters()[0].made
        outbox.deliver(refuse)
        clock.now = max(outbox.letters()[0].due, clock.now)
    assert 3 * 86_400 < clock() - began < 3 * 86_400 + 1.2 * LONGEST_DELAY_SECONDS


def test_days_without_a_sender_are_no_days_of_trying(
    outbox: Outbox, clock: Clock
) -> None:
    outbox.put(Letter("key", "a", b""))
    clock.now += 5 * 86_400
    found = outbox.deliver(refuse)
    assert not found.dead
    (letter,) = outbox.letters("waiting")
    assert letter.tried == clock()
    clock.now += 4 * 86_400
    assert len(outbox.deliver(refuse).dead) == 1
    # Revived, it has three days again.
    assert outbox.revive() == 1
    assert not outbox.deliver(refuse).dead


def test_of_one_thread_the_later_letter_waits_for_the_earlier(
    outbox: Outbox, clock: Clock
) -> None:
    for key, thread in (("1", "taxi"), ("2", "taxi"), ("3", "fares")):
        outbox.put(Letter(key, "a", b"", thread))
    sent: list[str] = []

    def send(letter: Letter) -> None:
        if letter.key == "1" and not letter.tries:
            raise NotSent("Channel 'a' answered 500.")
        sent.append(letter.key)

    outbox.deliver(send)
    assert sent == ["3"]
    outbox.deliver(send)
    assert sent == ["3"]
    clock.now += 60
    outbox.deliver(send)
    assert sent == ["3", "1", "2"]


def test_an_unreachable_channel_is_asked_once_and_others_are_not_held_up(
    outbox: Outbox,
) -> None:
    for key in "12345":
        outbox.put(Letter(key, "a", b"", key))
    outbox.put(Letter("6", "b", b""))
    asked: list[str] = []

    def send(letter: Letter) -> None:
        asked.append(letter.key)
        if letter.channel == "a":
            raise NotSent("Channel 'a' cannot be reached.", unreachable=True)

    found = outbox.deliver(send)
    assert asked == ["1", "6"]
    assert len(found.kept) == 5 and len(found.sent) == 1


def test_what_is_silenced_before_it_was_tried_is_not_sent(
    outbox: Outbox, clock: Clock
) -> None:
    later = clock() + 100
    outbox.put(Letter("1", "a", b"", "taxi", not_before=later))
    assert outbox.deliver(refuse).kept == []
    assert outbox.silence("a", "taxi") and not outbox.silence("a", "taxi")
    clock.now = later
    assert outbox.deliver(refuse).kept == []
    assert outbox.letters()[0].fate == "silenced"


def test_a_sender_that_looks_on_sends_what_becomes_due(
    outbox: Outbox, clock: Clock
) -> None:
    outbox.put(Letter("key", "a", b""))

    def send(letter: Letter) -> None:
        if letter.tries < 3:
            raise NotSent("Channel 'a' answered 500.")

    found = outbox.deliver_for(send, 600, sleep=clock.sleep)
    assert len(found.sent) == 1 and not found.kept


def test_a_sender_that_looks_on_ends_in_time_and_keeps_the_rest(
    outbox: Outbox, clock: Clock
) -> None:
    began = clock()
    outbox.put(Letter("key", "a", b""))
    found = outbox.deliver_for(refuse, 100, sleep=clock.sleep)
    assert clock() - began < 100
    assert [letter.key for letter, _ in found.kept] == ["key"]
    assert len(outbox.letters("waiting")) == 1


def test_changes_are_made_whole_or_not_at_all(outbox: Outbox) -> None:
    with pytest.raises(ZeroDivisionError), outbox.changes():
        outbox.put(Letter("key", "a", b""))
        outbox.remember("taxi", "state", "alert")
        raise ZeroDivisionError
    assert outbox.letters() == () and outbox.recall("taxi", "state") is None


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    with Outbox(tmp_path / "new" / "outbox.sqlite") as first:
        first.remember("taxi", "b", "1")
        first.remember("taxi", "a", "2")
        first.remember("taxi", "a", "3")
        first.remember("taxi", "c", "4")
        first.remember("taxi", "c", None)
    with Outbox(tmp_path / "new" / "outbox.sqlite") as second:
        assert second.recalled("taxi") == {"a": "3", "b": "1"}
        assert second.recall("fares", "a") is None


def test_only_its_owner_reads_the_file(outbox: Outbox) -> None:
    assert outbox.path.stat().st_mode & 0o077 == 0


def test_what_was_sent_long_ago_is_forgotten(outbox: Outbox, clock: Clock) -> None:
    outbox.put(Letter("1", "a", b""))
    outbox.deliver(lambda letter: None)
    outbox.put(Letter("2", "a", b""))
    outbox.deliver(refuse_for_ever)
    clock.now += KEPT_SECONDS + 1
    outbox.deliver(lambda letter: None)
    assert [letter.key for letter in outbox.letters()] == ["2"], "the dead stay"


def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_text("not a database, but long enough to be looked at " * 10)
    with pytest.raises(DataError) as caught:
        Outbox(path)
    assert str(caught.value) == (
        f"Outbox '{path}' cannot be opened: file is not a database. Name another file, "
        "or move this one away; what waits in it is not sent then."
    )


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as caught:
        Outbox(tmp_path / "folder")
    assert str(caught.value) == (
        f"Outbox '{tmp_path / 'folder'}' cannot be opened: Is a directory. Name a file "
        "in a folder that this user may write."
    )


SENDER = """
import sys, urllib.request
from pathlib import Path
from penstock.components.monitoring.outbox import Outbox
from penstock.components.monitoring.web import request

def send(letter):
    request("R", "POST", sys.argv[2], letter.body, {"Idempotency-Key": letter.key})

with Outbox(Path(sys.argv[1])) as outbox:
    outbox.deliver(send)
"""


def test_a_sender_killed_while_it_sends_loses_nothing_and_the_key_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        for key in ("first", "second"):
            outbox.put(Letter(key, "a", key.encode(), "taxi"))
    with http_receiver() as receiver:
        running = subprocess.Popen([sys.executable, "-c", SENDER, path, receiver.url])

        def kill_it(got: object) -> tuple[int, dict[str, str], bytes]:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            return 200, {}, b""

        receiver.answer = kill_it
        until(lambda: running.poll() is not None, "the sender to be killed")
        assert [got.body for got in receiver.got] == [b"first"]
        receiver.answer = lambda got: (200, {}, b"")
        # The lock went with the process, and nobody waits for a lease to run out.
        subprocess.run([sys.executable, "-c", SENDER, path, receiver.url], check=True)
        keys = [got.headers["Idempotency-Key"] for got in receiver.got]
        assert keys == ["first", "first", "second"]
    with Outbox(path) as outbox:
        assert [each.fate for each in outbox.letters()] == ["sent", "sent"]


def test_two_senders_do_not_send_the_same_letter(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        for index in range(40):
            outbox.put(Letter(str(index), "a", b"x"))
    with http_receiver() as receiver:
        senders = [
            subprocess.Popen([sys.executable, "-c", SENDER, path, receiver.url])
            for _ in range(2)
        ]
        assert [each.wait(60) for each in senders] == [0, 0]
        assert len(receiver.got) == 40


class Deliveries(RuleBasedStateMachine):
    """Whatever comes when: nothing is lost, and a thread stays in order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "outbox.sqlite"
        self.outbox = Outbox(path, clock=self.clock)
        self.put: list[tuple[str, str]] = []
        self.taken: list[tuple[str, str]] = []
        self.dead: list[tuple[str, str]] = []

    @rule(thread=st.sampled_from("xy"))
    def write(self, thread: str) -> None:
        letter = Letter(str(len(self.put)), "a", b"", thread)
        assert self.outbox.put(letter)
        self.put.append((letter.key, thread))

    @rule(answers=st.lists(st.sampled_from(["ok", "later", "never", "gone"])))
    def deliver(self, answers: list[str]) -> None:
        def send(letter: Letter) -> None:
            answer = answers.pop() if answers else "ok"
            each = (letter.key, letter.thread)
            if answer == "ok":
                self.taken.append(each)
                return
            if answer == "never":
                self.dead.append(each)
            raise NotSent(
                answer, permanent=answer == "never", unreachable=answer == "gone"
            )

        self.outbox.deliver(send)

    @rule(seconds=st.sampled_from([1.0, 40.0, 4_000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def nothing_is_lost_and_threads_are_in_order(self) -> None:
        waiting = [(each.key, each.thread) for each in self.outbox.letters("waiting")]
        ended = sorted([*waiting, *self.taken, *self.dead])
        assert ended == sorted(self.put)
        for thread in "xy":
            keys = [int(key) for key, each in self.taken if each == thread]
            assert keys == sorted(keys)

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=12, stateful_step_count=25)


def test_the_file_is_sqlite_and_whole_after_use(outbox: Outbox) -> None:
    outbox.put(Letter("key", "a", b""))
    outbox.deliver(refuse)
    looked = sqlite3.connect(outbox.path)
    try:
        assert looked.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        looked.close()
