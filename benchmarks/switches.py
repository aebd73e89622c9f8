"""Requests against switches of versions: how many fail, and what the router costs.

A load generator, in a process of its own, sends requests at fixed times whatever became
of those before (an open loop, so that a stall is not left out), through a router, and
tries nothing again. A request has failed if it raised, if stable answered in place of
the candidate, or if the answer is not exactly what the version that it names computes.
Meanwhile versions are pushed, loaded, given a weight, promoted or rolled back, and
retired; each of these switches loads a SavedModel that nobody has loaded before.

What the router costs is measured afterwards, with nothing being loaded: windows of
calls through the router and of direct calls in turn, in the same process.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks._serving import (
    MODEL,
    Child,
    W,
    load,
    serving,
    set_routing,
    until,
    write_models,
)

_THREADS = 16
_CHUNK = 10  # switches after which what was found is written
_DEADLINE_SECONDS = 10.0
_LEAST_SECONDS = 2.0


def main(options: list[str]) -> dict[str, Any]:
    """Run switches under load; return the figures."""
    parser = argparse.ArgumentParser(prog="switches")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--rps", type=float, default=250.0)
    parser.add_argument("--windows", type=int, default=5, help="of each kind")
    parser.add_argument("--window-seconds", type=float, default=30.0)
    parser.add_argument(
        "--ci", action="store_true", help="40,000 requests, 50 switches"
    )
    parser.add_argument("--full", action="store_true", help="1,000,000 and 1,000")
    parser.add_argument("--add-to", type=Path, help="go on from what this file holds")
    parser.add_argument("--child", nargs=3, metavar=("DIR", "ADDRESS", "RPS"))
    chosen = parser.parse_args(options)
    if chosen.child:
        _generate(*chosen.child)
        sys.exit(0)
    if chosen.ci:
        chosen.requests, chosen.switches = 40_000, 50
    if chosen.full:
        chosen.requests, chosen.switches = 1_000_000, 1_000
    total = {"requests": 0, "switches": 0, "failed": 0, "seconds": 0.0}
    examples: list[str] = []
    if chosen.add_to and chosen.add_to.exists():
        total |= json.loads(chosen.add_to.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / MODEL
        write_models(folder, [1])
        with serving(folder, max_num_load_retries=0, num_load_threads=1) as target:
            load(target, 1)
            driver = _Driver(folder, target, Path(temp))
            with Child(
                "switches", str(folder), target.control.address, str(chosen.rps)
            ) as generator:
                generator.hear()
                while (
                    total["requests"] < chosen.requests
                    or total["switches"] < chosen.switches
                ):
                    _chunk(driver, generator, chosen, total, examples)
                    if chosen.add_to:
                        text = json.dumps(total, indent=1)
                        chosen.add_to.write_text(text, encoding="utf-8")
                windows = [
                    [
                        generator.ask(do="time", seconds=chosen.window_seconds, how=how)
                        for how in ("router", "direct")
                    ]
                    for _ in range(chosen.windows)
                ]
                generator.tell(do="end")
    return {
        **total,
        "seconds": round(total["seconds"], 1),
        "rps": round(total["requests"] / total["seconds"], 1),
        "failures": examples,
        "kinds": driver.kinds,
        "router_p99_ms": _cost(windows, "p99"),
        "router_p50_ms": _cost(windows, "p50"),
        "direct_p99_ms": round(
            statistics.median(direct["p99"] for _, direct in windows), 3
        ),
    }


def _cost(windows: list[list[dict[str, float]]], figure: str) -> float:
    return round(
        statistics.median(
            routed[figure] - direct[figure] for routed, direct in windows
        ),
        3,
    )


def _chunk(
    driver: _Driver,
    generator: Child,
    chosen: Any,
    total: dict[str, Any],
    examples: list[str],
) -> None:
    """Run some switches while requests go on; add what came of both."""
    left = chosen.switches - total["switches"]
    switches = min(_CHUNK, left) if left > 0 else 0
    requests = max(0, chosen.requests - total["requests"])
    share = requests if left <= 0 else requests * switches // left
    share = max(share, int(_LEAST_SECONDS * chosen.rps))
    began = time.monotonic()
    generator.tell(do="load")
    end = began + share / chosen.rps
    for i in range(switches):
        driver.switch()
        # They are spread over the requests, however fast they are.
        due = began + (end - began) * (i + 1) / switches
        time.sleep(max(0.0, due - time.monotonic()))
    time.sleep(max(0.0, end - time.monotonic()))
    said = generator.ask(do="stop")
    total["requests"] += said["requests"]
    total["failed"] += said["failed"]
    total["switches"] += switches
    total["seconds"] += time.monotonic() - began
    examples.extend(said["examples"][: max(0, 5 - len(examples))])
    print(
        f"{total['requests']:,} requests, {total['switches']} switches, "
        f"{total['failed']} failed; from the expected time to the answer: "
        f"P50 {said['p50']} ms, P99 {said['p99']} ms",
        file=sys.stderr,
        flush=True,
    )


class _Driver:
    """Switches versions, one after the other, as a controller would."""

    def __init__(self, folder: Path, target: Any, temp: Path) -> None:
        from penstock.components.serving.ledger import Ledger
        from penstock.components.serving.traffic import Traffic

        self.kinds = {"promoted": 0, "rolled back": 0}
        self._folder = folder
        self._target = target
        self._temp = temp
        self._ledger = Ledger(folder)
        self._traffic = Traffic(folder)
        self._random = random.Random(1)
        self._stable = 1
        self._saved: list[Path] = []
        set_routing(self._ledger, stable=1)

    def switch(self) -> None:
        """Push a version, load it, give it weight, then keep or leave it."""
        from penstock.components.serving.version_dir import push

        stable = self._stable
        version = push(self._folder, self._next(), check=lambda _: {}).number
        load(self._target, stable, version)
        fields: dict[str, Any] = {
            "stable": stable,
            "candidate": version,
            "salt": f"s{version}",
            "rollout": f"r{version}",
        }
        self._route(weight=0.2, step=0, **fields)
        self._route(weight=0.5, step=1, **fields)
        if self._random.random() < 0.7:
            self._route(weight=1.0, step=2, **fields)
            self._route(stable=version, previous=stable)
            self._stable, gone = version, stable
            self.kinds["promoted"] += 1
        else:
            self._route(stable=stable)
            gone = version
            self.kinds["rolled back"] += 1
        # What is under way was sent before the routers followed.
        time.sleep(_DEADLINE_SECONDS / 50)
        load(self._target, self._stable)
        folder = self._folder / str(gone)
        folder.rename(self._temp / "gone")
        shutil.rmtree(self._temp / "gone")

    def _next(self) -> Path:
        """Return a model whose answers say the number that it is pushed as."""
        number = 1 + max(
            int(each.name) for each in self._folder.iterdir() if each.name.isdigit()
        )
        number = max(number, getattr(self, "_number", 0) + 1)
        self._number = number
        folder = self._temp / "models"
        if not (folder / str(number)).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_models(folder, list(range(number, number + 100)))
        return folder / str(number)

    def _route(self, **fields: Any) -> None:
        seq = set_routing(self._ledger, **fields).seq
        until(
            lambda: all(each.acknowledged >= seq for each in self._traffic.routers()),
            "a router did not follow",
        )
        time.sleep(0.1)  # so that some requests see it


# --- the load generator


def _generate(folder: str, address: str, rps: str) -> None:
    """Send requests as told, until told to end."""
    from penstock.components.serving.router.router import Router

    with Router(
        folder, MODEL, address=address, deadline_seconds=_DEADLINE_SECONDS
    ) as router:
        print(json.dumps("ready"), flush=True)
        running: _Load | None = None
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "load":
                running = _Load(router, float(rps))
            elif order["do"] == "stop":
                assert running is not None
                print(json.dumps(running.stop()), flush=True)
            elif order["do"] == "time":
                run = _Load(
                    router, float(rps), address if order["how"] == "direct" else ""
                )
                time.sleep(order["seconds"])
                said = run.stop()
                if said["failed"]:
                    raise RuntimeError(f"Requests failed: {said}.")
                print(json.dumps(said), flush=True)
            else:
                break


class _Load:
    """Requests at fixed times, from several threads.

    Args:
        router: What answers.
        rps: Requests per second.
        direct: The server's address, to go without the router.
    """

    def __init__(self, router: Any, rps: float, direct: str = "") -> None:
        self._router = router
        self._period = 1 / rps
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._began = time.monotonic() + 0.05
        self._seconds: list[float] = []
        self._wrong: list[str] = []
        self._direct = direct
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(i),))
            for i in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> dict[str, Any]:
        """End, and return what was found."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        ordered = sorted(self._seconds)

        def quantile(q: float) -> float:
            return round(ordered[min(int(q * len(ordered)), len(ordered) - 1)] * 1e3, 3)

        return {
            "requests": len(ordered),
            "failed": len(self._wrong),
            "examples": self._wrong[:5],
            "p50": quantile(0.5),
            "p99": quantile(0.99),
        }

    def _ask(self, draw: random.Random) -> None:
        import numpy as np

        from penstock.components.serving.messages import PREDICT, to_tensor
        from penstock.components.serving.security import open_channel
        from penstock.components.serving.server_config import served_name

        call = None
        if self._direct:
            call = PREDICT.on(open_channel(self._direct))
        stable = self._router.routing.stable
        while not self._stop.is_set():
            with self._lock:
                due = self._began + self._next * self._period
                self._next += 1
            time.sleep(max(0.0, due - time.monotonic()))
            if self._stop.is_set():
                break
            x = np.float32(draw.randrange(1_000))
            wrong = ""
            try:
                if call is None:
                    answer = self._router.predict(
                        {"x": np.array([x])}, f"user-{draw.randrange(100_000)}"
                    )
                    version, outputs = answer.version, answer.message.outputs
                    if answer.fell_back:
                        wrong = "stable answered in place of the candidate"
                else:
                    request = PREDICT.request()
                    request.model_spec.name = served_name(MODEL, stable)
                    request.inputs["x"].CopyFrom(to_tensor(np.array([x])))
                    version = stable
                    outputs = call(request, timeout=_DEADLINE_SECONDS).outputs
                y = _value(outputs["y"])
                if y != W * x + version:
                    wrong = f"version {version} answered {y} to {x}"
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            self._seconds.append(time.monotonic() - due)
            if wrong:
                self._wrong.append(wrong)


def _value(tensor: Any) -> float:
    from penstock.components.serving.messages import to_array

    (value,) = to_array(tensor).tolist()
    return float(value)
