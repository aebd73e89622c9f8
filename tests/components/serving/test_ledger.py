from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from penstock.components.serving import holders, ledger
from penstock.components.serving.ledger import LeaseLost, Ledger
from penstock.components.serving.router.watch import Watch
from penstock.components.serving.routing import Routing, route
from penstock.schemas.errors import ServingError


@pytest.fixture
def made(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def test_what_was_done_is_listed_in_order(made: Ledger) -> None:
    with made.writing() as transaction:
        first = transaction.event("pushed", 1, digest="sha256:00")
        second = transaction.event("pinned", 1, name="audit")
    events = made.events()
    assert [(e.seq, e.kind, e.version, dict(e.data)) for e in events] == [
        (first, "pushed", 1, {"digest": "sha256:00"}),
        (second, "pinned", 1, {"name": "audit"}),
    ]
    assert made.events(kinds=("pinned",)) == events[1:]
    assert made.events(since=first) == events[1:]
    assert made.events(2) == ()


def test_a_transaction_that_raises_writes_nothing(made: Ledger) -> None:
    with pytest.raises(KeyError), made.writing() as transaction:
        transaction.event("pushed", 1)
        transaction.hold("routing", {"stable": 1})
        raise KeyError
    assert made.events() == () and made.fact("routing") is None


def test_a_fact_is_replaced_and_removed(made: Ledger) -> None:
    for value in ({"a": 1}, {"a": 2}):
        with made.writing() as transaction:
            transaction.hold("key", value)
    assert made.facts("key", "other") == ({"a": 2}, None)
    with made.writing() as transaction:
        transaction.hold("key", None)
    assert made.fact("key") is None


@pytest.mark.parametrize(
    "change", ["UPDATE events SET kind = 'x'", "DELETE FROM events"]
)
def test_events_can_be_neither_changed_nor_deleted(made: Ledger, change: str) -> None:
    with made.writing() as transaction:
        transaction.event("pushed", 1)
    made.close()
    sql = sqlite3.connect(made.directory / ".penstock" / "ledger.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="events are never"):
        sql.execute(change)
    sql.close()


def test_changes_are_seen_by_readers_and_not_caused_by_them(made: Ledger) -> None:
    reader = Ledger(made.directory, read_only=True)
    before = reader.changes()
    assert reader.changes() == before
    with made.writing() as transaction:
        transaction.event("pushed", 1)
    assert reader.changes() != before
    reader.close()


def test_a_ledger_that_is_not_there_reads_as_an_empty_one(tmp_path: Path) -> None:
    reader = Ledger(tmp_path, read_only=True)
    assert reader.events() == () and reader.fact("routing") is None
    assert reader.silence() is None and reader.controller() is None
    assert list(tmp_path.iterdir()) == []
    with Ledger(tmp_path) as writer, writer.writing() as transaction:
        transaction.event("pushed", 1)
    assert [each.kind for each in reader.events()] == ["pushed"]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    reader = Ledger(tmp_path, read_only=True)
    with (
        pytest.raises(ServingError, match="was opened to be read only"),
        reader.writing(),
    ):
        pass


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become a second user; CI is root"
)
def test_a_user_who_may_only_read_reads(made: Ledger) -> None:
    with made.writing() as transaction:
        transaction.event("pushed", 1)
    made.close()  # removes what readers share
    for folder in (made.directory, *made.directory.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        os._exit(len(Ledger(made.directory, read_only=True).events()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_the_second_controller_is_refused(made: Ledger) -> None:
    with _another_process(made.directory, "hold") as (pid, said):
        assert said == "acquired"
        with pytest.raises(
            ServingError,
            match=rf"is already controlled, by process {pid} of '.*', which was heard "
            r"of 0 seconds ago\. Use the one that runs, or end it first\.",
        ):
            made.acquire()
        assert made.controller() is not None


def test_a_controller_that_was_killed_is_followed_at_once(made: Ledger) -> None:
    with _another_process(made.directory, "hold") as (pid, _):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert made.controller() is None
        assert made.acquire().epoch == 2


def test_a_silent_controller_loses_the_lease_and_its_writes_fail(
    made: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made.acquire()
    monkeypatch.setattr(holders, "actor", lambda: "elsewhere:1")
    monkeypatch.setattr(ledger, "this_holder", lambda: _holder_elsewhere())
    with pytest.raises(ServingError, match="is already controlled"):
        made.acquire()
    new = made.acquire(seconds=0)
    assert new.epoch == old.epoch + 1
    with (
        pytest.raises(
            LeaseLost,
            match=rf"has been controlled under epoch {new.epoch}, by process 1 of "
            rf"'elsewhere', since epoch {old.epoch} fell silent\. Nothing was written",
        ),
        made.writing(old) as transaction,
    ):
        transaction.event("promoted", 1)
    with pytest.raises(LeaseLost):
        made.renew(old)
    made.release(old)  # another's lease is not given up
    assert made.silence() is not None
    assert made.events() == ()
    made.renew(new)
    made.release(new)
    assert made.silence() is None


def test_a_holder_of_another_boot_of_this_machine_is_dead() -> None:
    here = json.loads(holders.this_holder())
    assert not holders.is_dead(json.dumps(here))
    before = json.dumps({**here, "boot": "another"})
    assert holders.is_dead(before) and holders.silent_seconds(before, 0) == float("inf")
    assert not holders.is_dead(json.dumps({**here, "pids": "pid:[1]", "started": ""}))
    assert holders.is_dead(json.dumps({**here, "started": "1"}))


def test_a_zombie_holds_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    here = json.loads(holders.this_holder())
    deadline = time.monotonic() + 30
    zombie = json.dumps({**here, "pid": pid, "started": "7"})
    while not holders.is_dead(zombie):
        assert time.monotonic() < deadline
    os.waitpid(pid, 0)


def test_many_threads_and_processes_write_one_history(made: Ledger) -> None:
    def write(_: int) -> None:
        for _ in range(20):
            with made.writing() as transaction:
                count = transaction.fact("count") or 0
                transaction.event("counted", count + 1)
                transaction.hold("count", count + 1)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=write, args=(i,)) for i in range(4)]
    for process in processes:
        process.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.join()
    assert all(each.exitcode == 0 for each in processes)
    assert [each.version for each in made.events()] == list(range(1, 161))


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ServingError, match=r"nowhere' does not exist\. Pass the folder"
    ):
        Ledger(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ServingError, match="file' is a file"):
        Ledger(file)
    damaged = tmp_path / "damaged" / ".penstock"
    damaged.mkdir(parents=True)
    (damaged / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(
        ServingError, match=r"ledger\.sqlite' is damaged: .*\. Put a copy of it back"
    ):
        Ledger(tmp_path / "damaged")


def test_a_ledger_of_a_newer_penstock_is_refused(made: Ledger) -> None:
    made.close()
    sql = sqlite3.connect(made.directory / ".penstock" / "ledger.sqlite")
    sql.execute("PRAGMA user_version = 7")
    sql.close()
    for read_only in (False, True):
        with pytest.raises(
            ServingError, match="has format 7 where this penstock knows 1"
        ):
            Ledger(made.directory, read_only=read_only).events()


def _holder_elsewhere() -> str:
    here = json.loads(holders.this_holder())
    return json.dumps({**here, "host": "elsewhere", "pids": "pid:[1]", "pid": 1})


class _another_process:
    """Runs something with the ledger in another process until the block ends."""

    def __init__(self, directory: Path, what: str) -> None:
        self.directory, self.what = directory, what

    def __enter__(self) -> tuple[int, str]:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            Ledger(self.directory).acquire()
            os.write(writer, b"acquired")
            signal.pause()
            os._exit(0)
        os.close(writer)
        said = os.read(reader, 100).decode()
        os.close(reader)
        return self.pid, said

    def __exit__(self, *_: object) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become a second user; CI is root"
)
def test_a_user_who_may_only_read_follows_what_is_written_later(made: Ledger) -> None:
    with made.writing() as transaction:
        route(transaction, Routing(stable=1), transaction.event("routed"))
    made.close()  # removes what readers share
    for folder in (made.directory, *made.directory.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        watch = Watch(made.directory)
        time.sleep(0.3)  # its thread has opened the ledger by itself by then
        os.write(writing, b"%d" % (watch.snapshot.routing.stable or 0))
        end = time.monotonic() + 20
        while watch.snapshot.routing.stable != 2 and time.monotonic() < end:
            time.sleep(0.01)
        os._exit(watch.snapshot.routing.stable or 0)
    assert os.read(reading, 1) == b"1"
    with made.writing() as transaction:
        route(transaction, Routing(stable=2), transaction.event("routed"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    os.close(reading)
    os.close(writing)
