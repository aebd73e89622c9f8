"""Runners, and a look into stores with the standard library alone."""

from __future__ import annotations

import pytest

from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner


@pytest.fixture(params=["beam", "local"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Each of the two runners in turn."""
    return BeamDagRunner() if request.param == "beam" else LocalRunner(max_workers=4)
