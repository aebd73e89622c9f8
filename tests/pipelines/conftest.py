"""Runners, and stores of every kind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.pipelines.metadata import Store
from penstock.pipelines.runners import BeamDagRunner, LocalRunner, Runner
from tests.pipelines.servers import KINDS, Grpc, MariaDB, PostgreSQL


@pytest.fixture(params=["beam", "local"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Each of the two runners in turn."""
    return BeamDagRunner() if request.param == "beam" else LocalRunner(max_workers=4)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server."""
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server."""
    server = MariaDB()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def grpc() -> Iterator[Grpc]:
    """A server of ML Metadata."""
    server = Grpc()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def new_store(request: pytest.FixtureRequest) -> Callable[[str, Path], str]:
    """Make the URL of an empty store of a kind; an SQLite one lies in a folder."""

    def make(kind: str, folder: Path) -> str:
        if kind == "sqlite":
            return f"sqlite:///{folder / 'metadata.sqlite'}"
        url: str = request.getfixturevalue(kind).new_store()
        return url

    return make


@pytest.fixture(params=KINDS)
def store_url(
    request: pytest.FixtureRequest,
    new_store: Callable[[str, Path], str],
    tmp_path: Path,
) -> str:
    """The URL of an empty store, of each kind in turn."""
    return new_store(request.param, tmp_path)


@pytest.fixture(scope="module", params=KINDS)
def store(
    request: pytest.FixtureRequest, new_store: Callable[[str, Path], str]
) -> Iterator[Store]:
    """A store with one run, of each kind in turn."""
    with tempfile.TemporaryDirectory() as folder:
        made = Store(new_store(request.param, Path(folder)))
        made.begin_run("p", "r", {})
        yield made
