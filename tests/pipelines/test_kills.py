"""Runs killed with SIGKILL, and what the next run makes of what they left."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.repair import repair
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.errors import MetadataError, PipelineError
from tests.pipelines.counted import counted
from tests.pipelines.kills import CHECKOUT, Remote
from tests.pipelines.remains import (
    Row,
    faults_at_rest,
    finished,
    lost,
    processes,
    records,
    works,
)

# Kills lose no page cache, so memory shows as much as a disk, and shows it sooner.
MEMORY = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}


NOTE = "os.rename <root>/.penstock/runs/<run>/1.commit.partial 1"
RENAME = "os.rename <root>/counted/Halves/examples/.<run>.partial 1"

# Where a run dies whose store is not the next run's: at work, and in its commit.
TWO_STORES = [
    "after Store.begin_execution 1",
    f"after {NOTE}",
    f"after {RENAME}",
    "after Store.complete_execution 1",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A site in a process that forks a child for every run."""
    remote = Remote(tmp_path_factory.mktemp("site"))
    yield remote
    remote.close()


def store_of(site: Remote) -> Store:
    return Store(f"sqlite:///{site.root / 'metadata.sqlite'}", create=False)


@pytest.mark.parametrize(
    ("scenario", "point"),
    [
        # Recorded as complete, and its temporary folder not yet removed.
        ("first", "after os.unlink <root>/.penstock/runs/<run>/2.commit.json 1"),
        ("apart", "after os.rmdir <root>/apart/Apart/.tmp/<run> 1"),
        # A file half written: a commit, code, a list of packages.
        ("first", "after open <root>/.penstock/runs/<run>/2.commit.partial 1"),
        ("first", "after open <root>/.penstock/runs/<run>/<sha256>.partial 1"),
        ("first", "before os.replace <root>/.penstock/runs/<run>/<sha256>.partial 2"),
        (
            "apart",
            "after open <root>/.penstock/runs/<run>/<sha256>-<thread>.partial 1",
        ),
        # A run of which the store has a name and nothing else.
        ("again", "before Store.begin_run.<locals>.<lambda> 1"),
        ("again", "after Store.begin_run.<locals>.<lambda> 1"),
        # A lock that nobody will ask for again.
        ("repair", "before StoreReader._find_context.<locals>.<lambda> 1"),
        # The attempt to write into the root.
        ("first", "after os.open <root>/.penstock/runs 1"),
    ],
    ids=str,
)
def test_a_run_killed_at_a_call_is_put_right(
    site: Remote, scenario: str, point: str
) -> None:
    assert site("kill_at", scenario, point) == []


# The run is recorded with its process in one write.
@pytest.mark.parametrize(
    "point",
    ["after Store.begin_run.<locals>.<lambda> 1", "after Store.begin_run 1"],
)
def test_an_abandoned_run_says_why(site: Remote, point: str) -> None:
    assert site("kill_at", "first", point) == []
    run, _ = store_of(site).runs()
    assert run.state is RunState.ABANDONED
    assert re.fullmatch(
        r"Its process \(\d+ on '.+'\) ended without recording how: it was killed, or "
        r"the machine went down\.",
        run.reason,
    )


def test_two_stores_share_a_root(site: Remote) -> None:
    site("restore", "first")
    whole = site("run", "first")
    own, other = site.root / "metadata.sqlite", site.root.parent / "other.sqlite"
    other.unlink(missing_ok=True)
    # The other store gives its executions the same numbers.
    assert beside(site, other) == whole
    assert faults_at_rest(site.root, own, other) == []
    locations = [each.name for store in (own, other) for each in outputs(store)]
    assert len(set(locations)) == len(locations) == 6


@pytest.mark.parametrize("point", TWO_STORES)
def test_what_another_store_has_in_a_root_is_left_alone(
    site: Remote, point: str
) -> None:
    whole = site("reference", "first")
    site("restore", "first")
    own, other = site.root / "metadata.sqlite", site.root.parent / "other.sqlite"
    other.unlink(missing_ok=True)
    site("leave_killed", "first", point)
    before = set(site.root.glob("counted/**/*"))
    done = finished(site.root, records(own))
    assert beside(site, other) == whole
    assert before <= set(site.root.glob("counted/**/*"))
    assert site("run", "first") == whole
    assert lost(done, records(own)) == []
    assert faults_at_rest(site.root, own, other) == []


def outputs(store: Path) -> list[Row]:
    found = records(store).artifacts
    return [each for each in found if not each.properties.get("is_external")]


def beside(site: Remote, store: Path) -> Any:
    """Run a pipeline with another store."""
    return site("end", site("begin", "first", store=f"sqlite:///{store}"))


def test_two_identical_runs_at_once_run_once(site: Remote) -> None:
    whole = site("reference", "first")
    site("restore", "first")
    begun = [site("begin", "first", seconds=0.3) for _ in range(2)]
    assert [site("end", each) for each in begun] == [whole, whole]
    own = site.root / "metadata.sqlite"
    assert faults_at_rest(site.root, own) == []
    states = Counter(
        (each.properties["penstock_component"], each.properties["penstock_state"])
        for each in records(own).executions
    )
    assert states == dict.fromkeys(
        itertools.product(("Halves", "Stubborn"), ("complete", "cached")), 1
    )


@pytest.mark.parametrize(
    ("point", "runs"),
    [
        ("after open <root>/counted/Halves/statistics/.<run>.partial/deep/1 1", 2),
        # What it had written down is taken, and it is not run again.
        (f"after {NOTE}", 1),
        ("after os.rename <root>/counted/Halves/statistics/.<run>.partial 1", 1),
    ],
)
def test_a_run_that_waits_takes_over_from_one_that_is_killed(
    site: Remote, point: str, runs: int
) -> None:
    whole = site("reference", "first")
    site("restore", "first")
    first = site("begin", "first", seconds=1.0, point=point)
    wait_until(lambda: processes(site.ledger))
    second = site("begin", "first", seconds=1.0)
    assert site("end", first) is None
    assert site("end", second) == whole
    # The second one itself put right what the first one left.
    assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []
    lines = site.ledger.read_text().splitlines()
    assert sum(line.startswith("Halves ") for line in lines) == runs


def test_a_run_that_starts_during_a_repair_waits_for_it(site: Remote) -> None:
    whole = site("reference", "first")
    left_note(site)
    first = site("begin", "first", careless="slow repair")
    wait_until((site.root / "counted" / "Halves" / "examples" / "1").exists)
    second = site("begin", "first")
    assert [site("end", first), site("end", second)] == [whole, whole]
    assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []
    lines = site.ledger.read_text().splitlines()
    assert sum(line.startswith("Halves ") for line in lines) == 1


def test_only_the_process_of_a_component_is_killed(site: Remote) -> None:
    whole = site("reference", "apart")
    site("restore", "apart")
    run = site("begin", "apart", seconds=30.0)
    wait_until(lambda: processes(site.ledger))
    (child,) = processes(site.ledger)
    assert child != run
    os.kill(child, signal.SIGKILL)
    assert (
        "'Apart' failed in its own process: ProcessDied: the process was ended by "
        "SIGKILL; the system kills processes when memory runs out"
    ) in site("end", run)
    assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []
    assert site("examine", "apart", whole) == []


def test_a_run_leaves_another_one_in_its_process_alone(tmp_path: Path) -> None:
    root, ledger = tmp_path / "root", tmp_path / "ledger"
    ended = []

    def work() -> None:
        ended.append(run(counted(ledger, "slow", 0.5), root, runner=LocalRunner()))

    slow = threading.Thread(target=work)
    slow.start()
    wait_until(lambda: processes(ledger))
    ended.append(run(counted(ledger, "fast"), root, runner=LocalRunner()))
    slow.join()
    assert [each.state for each in ended] == [RunState.COMPLETE] * 2
    assert faults_at_rest(root, root / "metadata.sqlite") == []


def test_a_killed_run_is_resumed(site: Remote) -> None:
    """What was done is taken; the rest is run."""
    site("restore", "whole")
    site("leave_killed", "whole", "before Store.complete_execution 2")
    url = f"sqlite:///{site.root / 'metadata.sqlite'}"
    (killed,) = Store(url).runs()
    resumed = run(
        counted(site.ledger), site.root, runner=LocalRunner(), resume=killed.id
    )
    assert {each.component: each.state for each in resumed.executions.values()} == {
        "Halves": State.CACHED,
        "Stubborn": State.CACHED,
        "Whole": State.COMPLETE,
    }
    assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []


def test_a_process_that_a_component_left_behind_holds_no_lock(site: Remote) -> None:
    site("restore", "daemon")
    run = site("begin", "daemon", point="before Store.complete_execution 1")
    assert site("end", run) is None
    wait_until(lambda: len(processes(site.ledger)) == 2)
    (left,) = [each for each in processes(site.ledger) if works(each)]
    try:
        assert list(site("run", "daemon")) == ["Daemon.model"]
        assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []
        # What it had written down was adopted, and it was not run again.
        assert len(processes(site.ledger)) == 2
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_store_is_known_by_what_it_holds(site: Remote) -> None:
    whole = site("reference", "first")
    site("restore", "first")
    url = f"sqlite:///{site.root}/../root/metadata.sqlite"
    point = "after Store.complete_execution 1"
    assert site("end", site("begin", "first", store=url, point=point)) is None
    assert site("examine", "first", whole) == []


@pytest.mark.parametrize("gone", [".penstock/runs", "counted"])
def test_what_somebody_removed_does_not_stop_a_repair(site: Remote, gone: str) -> None:
    whole = site("reference", "first")
    left_note(site)
    shutil.rmtree(site.root / gone)
    assert site("examine", "first", whole) == []


def test_what_cannot_be_recorded_is_given_up(site: Remote) -> None:
    whole = site("reference", "first")
    note = left_note(site)
    data = json.loads(note.read_text())
    data["outputs"]["examples"]["properties"]["span"] = "no number"
    note.write_text(json.dumps(data))
    assert site("run", "first") == whole
    assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []


def test_what_repair_needs_is_on_the_disk_before_the_store_hears_of_it(
    site: Remote,
) -> None:
    """A power cut takes what was not written through; no kill shows that."""
    points = site("points", "first")
    for synced, told in (
        ("<root>/.penstock/live/<run> 1", "Store.begin_run 1"),
        ("<root>/.penstock/live 1", "Store.begin_run 1"),
        ("<root>/counted/Halves/examples/.<run>.partial/deep/1 1", NOTE),
        ("<root>/counted/Halves/examples/.<run>.partial/deep 1", NOTE),
        ("<root>/counted/Halves/statistics/.<run>.partial 1", NOTE),
        ("<root>/.penstock/runs/<run>/1.commit.partial 1", NOTE),
        ("<root>/.penstock/runs/<run> 1", RENAME),
        ("<root>/counted/Halves/examples 1", "Store.complete_execution 1"),
        ("<root>/counted/Halves/statistics 1", "Store.complete_execution 1"),
    ):
        assert points.index(f"after os.fsync {synced}") < points.index(f"before {told}")


def test_a_note_that_cannot_be_read_gets_a_sentence(site: Remote) -> None:
    note = left_note(site)
    note.write_text("no JSON")
    with pytest.raises(MetadataError) as raised:
        repair(site.root, store_of(site))
    assert str(raised.value) == (
        f"'{note}', which a killed run left, cannot be read: Expecting value: line 1 "
        "column 1 (char 0). Look at it, and remove it to give up what that execution "
        "wrote."
    )


def test_a_repair_that_may_not_write_gets_a_sentence(site: Remote) -> None:
    folder = left_note(site).parent
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(PipelineError) as raised:
        repair(site.root, store_of(site))
    assert str(raised.value) == (
        f"What a killed run left in '{site.root}' cannot be put right: File exists: "
        f"'{folder}'. Give yourself the right to read and write it, or remove it, and "
        "run again."
    )


def test_what_was_done_since_a_run_began_is_taken(site: Remote) -> None:
    whole = site("reference", "first")
    site("restore", "first")
    killed = site("begin", "first", seconds=0.5, point=f"after {NOTE}")
    run = site("begin", "first", seconds=0.5, careless="slow start")
    assert [site("end", killed), site("end", run)] == [None, whole]
    assert faults_at_rest(site.root, site.root / "metadata.sqlite") == []
    lines = site.ledger.read_text().splitlines()
    assert sum(line.startswith("Halves ") for line in lines) == 1


def left_note(site: Remote) -> Path:
    """Leave a run that was killed right after it wrote its first commit down."""
    site("restore", "first")
    site("leave_killed", "first", f"after {NOTE}")
    (found,) = site.root.glob(".penstock/runs/*/1.commit.json")
    return found


# The whole ------------------------------------------------------------------------


def run_kills(*options: str) -> dict[str, Any]:
    """Run the benchmark, which kills more than the tests above."""
    done = python("-m", "benchmarks.run_kills", *options)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=CHECKOUT,
        env={**os.environ, **MEMORY},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_nothing_went_wrong(result: dict[str, Any]) -> None:
    assert result["faults"] == []
    assert set(result["careless_caught"]) == {"no repair", "no notes", "renamed late"}
    assert min(result["careless_caught"].values()) > 0


def test_some_kills_are_counted_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    state = tmp_path / "kills.json"
    few = ("--beam-kills", "0", "--taxi-kills", "0", "--careless-kills", "4")
    options = (*few, "--random-kills", "5", "--workers", "1", "--state", str(state))
    first = run_kills("--kills", "20", *options)
    assert_nothing_went_wrong(first)
    assert (first["kills"], first["random_kills"]) == (20, 5)
    second = run_kills("--kills", "1", *options)
    assert_nothing_went_wrong(second)
    assert (second["kills"], second["random_kills"]) == (21, 10)
    assert set(json.loads(state.read_text())["counts"].values()) == {0, 1}


@pytest.mark.long
def test_a_kill_at_every_point_and_some_at_any_time_are_put_right() -> None:
    """As `scripts/bench run-kills` does, which kills more often."""
    options = ("--random-kills", "80", "--beam-kills", "17", "--taxi-kills", "3")
    result = run_kills("--kills-each", "1", *options)
    assert_nothing_went_wrong(result)
    assert result["points"] > 700
    assert result["least_kills_per_point"] >= 1
    assert result["kills"] >= result["points"]
    assert result["random_kills"] == 80
    assert result["beam_kills"] == 17
    assert result["taxi_kills"] == 3


def test_a_harness_that_catches_nothing_fails() -> None:
    code = (
        "from benchmarks import run_kills as harness; harness._CARELESS = ('',); "
        "harness.main(['--kills', '0', '--random-kills', '0', '--taxi-kills', '0', "
        "'--beam-kills', '0', '--careless-kills', '3', '--workers', '1'])"
    )
    done = python("-c", code)
    assert "What is careless on purpose was not caught" in done.stderr
    assert done.returncode == 1


def wait_until(is_so: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_process_whose_run_died_while_it_started_does_nothing(site: Remote) -> None:
    site("restore", "apart")
    site("leave_killed", "apart", "after start penstock.pipelines.child 1")
    wait_until(lambda: not children_of(site))
    assert not site.ledger.exists()


def children_of(site: Remote) -> list[str]:
    """Return the processes of isolated components that lie in a site."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = path.read_bytes().decode(errors="replace")
            if "penstock.pipelines.child" in command and str(site.root) in command:
                found.append(path.parent.name)
    return found
