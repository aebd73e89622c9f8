"""One template of a tiny SavedModel per session, and the servers under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.serving.model_server import models
from tests.components.serving.model_server.client import Client
from tests.components.serving.model_server.under_test import SERVERS, Starter, until


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_template(tmp_path_factory.mktemp("template") / "model")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A serving directory that does not exist yet."""
    return tmp_path / "serving"


@pytest.fixture
def save(template: Path, base: Path) -> Callable[[int], Path]:
    """Puts a version into the serving directory."""
    return lambda version: models.save_version(template, base, version)


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The file of faults on purpose, which does not exist yet."""
    return tmp_path / "faults.json"


@pytest.fixture(params=SERVERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Starter]:
    """Starts a server under test: ours, and the real one where it is on PATH."""
    with Starter(request.param, tmp_path) as starter:
        yield starter


@pytest.fixture
def two(start: Starter, base: Path, save: Callable[[int], Path]) -> Client:
    """A server with versions 1 and 2 loaded."""
    save(1)
    save(2)
    client = start(models.config(m=base, specific={"m": [1, 2]})).client
    until(lambda: client.states("m") == {2: "AVAILABLE", 1: "AVAILABLE"})
    return client


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say against which servers the conformance suite ran."""
    if "tensorflow_model_server" not in SERVERS:
        terminalreporter.write_line(
            "Conformance: held against our model server only; tensorflow_model_server "
            "is not on PATH."
        )
    else:
        terminalreporter.write_line(
            "Conformance: held against our model server and tensorflow_model_server."
        )
