from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.components.serving.router.router import Router
from tests.components.serving.router.servers import MODEL, Controls, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def controls(tmp_path: Path) -> Iterator[Controls]:
    made = Controls(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture
def routers(
    tmp_path: Path, controls: Controls, server: Server
) -> Iterator[Callable[..., Router]]:
    """Make routers of one serving directory; they end with the test."""
    made: list[Router] = []

    def make(**options: Any) -> Router:
        options = {"address": server.address, "deadline_seconds": 10.0, **options}
        made.append(Router(tmp_path, MODEL, **options))
        return made[-1]

    yield make
    for router in made:
        router.close()
