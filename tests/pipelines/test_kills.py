"""Runs killed with SIGKILL, and what the next run makes of what they left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.kills import Remote

# Kills lose no page cache, so memory shows as much as a disk, and shows it sooner.
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A site in a process that forks a child for every run."""
    remote = Remote(tmp_path_factory.mktemp("site"))
    yield remote
    remote.close()


@pytest.mark.parametrize(
    ("scenario", "point"),
    [
        # Recorded as complete, and its temporary folder not yet removed.
        ("first", "after os.unlink <root>/.penstock/runs/<run>/2.commit.json 1"),
        ("apart", "after os.rmdir <root>/apart/Apart/.tmp/1 1"),
        # A file half written: a commit, and code.
        ("first", "after open <root>/.penstock/runs/<run>/3.commit.partial 1"),
        ("first", "after open <root>/.penstock/runs/<run>/<sha256>.partial 1"),
        ("first", "before os.replace <root>/.penstock/runs/<run>/<sha256>.partial 2"),
    ],
    ids=str,
)
def test_a_run_killed_at_a_call_is_put_right(
    site: Remote, scenario: str, point: str
) -> None:
    assert site("kill_at", scenario, point) == []
