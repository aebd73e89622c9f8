"""A serving directory of tiny models, a server that holds them, and processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock.components.serving.control import LoadState
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.model_server.spawn import spawned
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.target import TfServingTarget

MODEL = "ranker"
W = 2.0
"""A version answers y = W x + its number."""

_RUN = Path(__file__).resolve().parent / "run.py"


def write_models(folder: Path, versions: list[int]) -> None:
    """Save models in a process that ends with it, for TensorFlow takes half a GiB."""
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.components.serving.model_server import models\n"
        "folder = Path(sys.argv[1])\n"
        "template = models.save_template(folder / 'template')\n"
        "for version in sys.argv[2:]:\n"
        "    models.save_version(template, folder, int(version))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder), *map(str, versions)],
        check=True,
        cwd=_RUN.parents[1],
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[TfServingTarget]:
    """Run a model server for a serving directory; yield what controls it."""
    config = folder.parent / "models.config"
    config.write_text("model_config_list {}", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(
            spawned(
                model_config_file=str(config),
                file_system_poll_wait_seconds=0.1,
                **settings,
            )
        )
        address = run.ports.address
        yield stack.enter_context(TfServingTarget(MODEL, folder, address))


def load(target: TfServingTarget, *versions: int) -> None:
    """Have exactly these versions loaded."""
    target.load(versions)

    def done() -> bool:
        states = target.states()
        held = {
            version
            for version, loaded in states.items()
            if loaded.state in (LoadState.AVAILABLE, LoadState.UNLOADING)
        }
        available = (states.get(version) for version in versions)
        return held == set(versions) and all(
            each is not None and each.state is LoadState.AVAILABLE for each in available
        )

    until(done, "a version was not loaded")


def until(holds: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for something that another process brings about."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"After {seconds:g} seconds {what}.")
        time.sleep(0.02)


def set_routing(ledger: Ledger, **fields: Any) -> Routing:
    """Let requests go elsewhere, as a controller does."""
    with ledger.writing() as transaction:
        return route(transaction, Routing(**fields), transaction.event("routed"))


class Child:
    """A process of a benchmark, called with `--child`, which is told what to do.

    Args:
        benchmark: Name of the benchmark.
        options: Its options after `--child NAME`.
    """

    def __init__(self, benchmark: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_RUN), benchmark, "--child", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, **order: Any) -> None:
        """Send an order, as a line of JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Return what it says next, from a line of JSON."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("A process of the benchmark ended; see what it printed.")
        return json.loads(line)

    def ask(self, **order: Any) -> Any:
        """Send an order and return the answer."""
        self.tell(**order)
        return self.hear()
