"""From a push to a safe version, with real processes: nothing here is a double."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import penstock.components as c
from penstock import (
    Component,
    Import,
    LocalRunner,
    Pipeline,
    RunContext,
    output,
    run,
)
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.router.request_log import read_log
from penstock.components.serving.routing import routing_of
from penstock.schemas.artifacts import Model, ModelBlessing

PLAN = """
from penstock.components.serving import Guard, Rollout, Step

plan = Rollout(
    "ranker",
    steps=[Step(10, "2s", 20), Step(50, "2s", 20), Step(100, "2s", 0)],
    guards=[Guard.errors(), Guard.sample_ratio(), Guard.traffic(20)],
    deadline="10m",
)
"""


def save(folder: Path, version: int, *, fails_on: str = "none") -> None:
    """Save y = 2 x + version, which fails rows of one category."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(  # type: ignore[untyped-decorator, unused-ignore]
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="x"),
            tf.TensorSpec([None], tf.string, name="category"),
        ]
    )
    def serve(x: Any, category: Any) -> dict[str, Any]:
        is_bad = tf.reduce_any(tf.equal(category, fails_on))
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.logical_not(is_bad), ["no such category"])]
        ):
            return {"y": 2.0 * x + float(version)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


class Blesses(Component):
    """Bless whatever it is given."""

    model: Model
    blessing: ModelBlessing = output()

    def run(self, context: RunContext) -> None:
        """Say yes."""
        self.blessing.decide("BLESSED", blessed=True)


def push(folder: Path, version: int, **how: Any) -> None:
    """Push a version by a pipeline, behind a blessing."""
    model = folder / f"model-{version}"
    save(model / "Format-Serving", version, **how)
    blesses = Blesses(model=Import(model, Model))
    pusher = c.Pusher(
        model=Import(model, Model),
        blessing=blesses.blessing,
        serving_dir=folder / "ranker",
    )
    result = run(
        Pipeline("ranker", [blesses, pusher]), folder / "root", runner=LocalRunner()
    )
    assert result.state.value == "complete", result.reason


def penstock(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        },
    )


def said(*arguments: str | Path) -> tuple[int, str]:
    process = penstock(*arguments)
    out, _ = process.communicate(timeout=240)
    return process.returncode, out


class Users:
    """Everybody who asks the router: each from time to time, of one category each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True)
            for number in range(4)
        ]

    def __enter__(self) -> Users:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _ask(self, number: int) -> None:
        source = random.Random(number)
        while not self._stop.wait(0.02):
            user = f"user-{source.randrange(100_000)}"
            body = {"inputs": {"x": [3.0], "category": [source.choice("abcd")]}}
            request = urllib.request.Request(
                f"{self._url}/v1/models/ranker:predict",
                json.dumps(body).encode(),
                {"X-Unit-Id": user, "Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    found = json.load(answer)
                    version = int(answer.headers["X-Penstock-Version"])
            except (urllib.error.URLError, OSError) as error:
                with self._lock:
                    self.failures.append(str(error))
                continue
            with self._lock:
                constant = round(float(found["outputs"][0]) - 6.0)
                self.answers.append((version, constant))


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve the directory by two routers and a model server of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = penstock(
        "serve",
        folder / "ranker",
        "--with-model-server",
        f"--server={address}",
        "--port=0",
        "--workers=2",
        "--deadline=20",
        f"--log-dir={folder / 'log'}",
        "--log-rate=ordinary=1",
    )
    assert process.stdout is not None
    reading = threading.Thread(target=process.stdout.read, daemon=True)
    try:
        url = None
        while url is None:
            line = process.stdout.readline()
            assert line, "it ended before it answered"
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
        reading.start()
        yield url[0], address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        if reading.is_alive():
            reading.join()
        process.stdout.close()


@pytest.mark.long
def test_a_good_version_is_promoted_and_a_bad_one_taken_back(tmp_path: Path) -> None:
    plans = tmp_path / "plans.py"
    plans.write_text(PLAN)
    directory = tmp_path / "ranker"
    push(tmp_path, 1)
    with served(tmp_path) as (url, address):
        how = (f"--server={address}", f"--plan={plans}:plan")
        assert said("rollout", "start", directory, "1", *how)[0] == 0
        with Users(url) as users:
            push(tmp_path, 2)
            code, out = said("rollout", "start", directory, "2", *how)
            assert code == 0, out
            assert re.findall(r"answers (\d+) % of units", out) == ["10", "50", "100"]
            assert "promoted: stable from now on, after version 1" in out

            push(tmp_path, 3, fails_on="c")
            code, out = said("rollout", "start", directory, "3", *how)
            assert code == 3, out
            assert "rolls back to version 2: Guard 'errors' failed: " in out
            time.sleep(1.0)
        assert not users.failures, users.failures[:3]  # stable answered instead
        assert {version for version, _ in users.answers} == {1, 2, 3}
        assert all(version == constant for version, constant in users.answers)

        with Ledger(directory, read_only=True) as ledger:
            assert routing_of(ledger).stable == 2
        assert (directory / "3.denied").is_dir() and not (directory / "3").exists()

        # The version before is there at once, without a load.
        assert said("rollback", directory, "--reason", "Try it.")[0] == 0
        code, out = said("rollout", "status", directory, "--json")
        assert (code, json.loads(out)["stable"]) == (3, 1)

    logged = list(read_log(*sorted((tmp_path / "log").rglob("*.tfrecord"))))
    failed = [each for each in logged if _served_instead(each)]
    assert failed and all(_category(each) == b"c" for each in failed)

    code, out = said("lineage", f"{directory}/3", "--root", tmp_path / "root")
    assert code == 0
    for text in ("pushed by run", "answers 10 % of units", "rolled back: Guard"):
        assert text in out, out
    code, out = said("versions", directory)
    assert re.search(r"3 .*quarantined", out), out


def _served_instead(record: Any) -> bool:
    """Return whether stable answered what the candidate failed."""
    return b"fallback 3" in record.SerializeToString()


def _category(record: Any) -> bytes:
    value: bytes = record.predict_log.request.inputs["category"].string_val[0]
    return value
