"""Requests against switches of versions: the benchmark, as CI runs it."""

from __future__ import annotations

import pytest

from benchmarks import switches


@pytest.mark.long
def test_no_request_fails_while_versions_come_and_go() -> None:
    came = switches.main(["--ci", "--windows=1", "--window-seconds=2"])
    assert came["requests"] >= 40_000 and came["switches"] >= 50
    assert came["failed"] == 0, came
