"""How long after a decision the last request is sent to a candidate.

A decision is a transaction of the ledger that takes the weight of the candidate away;
its time is taken before the transaction begins. Routers, in one process and in four,
send requests all the while, every one of them to the candidate as long as it has its
weight; the time of each is taken when it is sent. Meanwhile the model server is stuck
in the retries of a load that fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from array import array
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks._serving import (
    MODEL,
    Child,
    load,
    serving,
    set_routing,
    until,
    write_models,
)

_QUIET_SECONDS = 0.25
_BROKEN = 3


def main(options: list[str]) -> dict[str, Any]:
    """Measure; return the figures."""
    parser = argparse.ArgumentParser(prog="decision")
    parser.add_argument("--decisions", type=int, default=500)
    parser.add_argument("--rps", type=float, default=100, help="of each router")
    parser.add_argument("--child", nargs=3, metavar=("DIR", "ADDRESS", "RPS"))
    chosen = parser.parse_args(options)
    if chosen.child:
        _route(*chosen.child)
        sys.exit(0)
    found: dict[str, Any] = {"decisions": chosen.decisions, "rps": chosen.rps}
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / MODEL
        write_models(folder, [1, 2, _BROKEN])
        faults = Path(temp) / "faults.json"
        fault = {"load_error": "It fails on purpose."}
        faults.write_text(json.dumps({"*": {str(_BROKEN): fault}}), encoding="utf-8")
        with serving(
            folder, fault_file=str(faults), max_num_load_retries=5, num_load_threads=0
        ) as target:
            load(target, 1, 2)
            target.load((1, 2, _BROKEN))
            until(lambda: _state(target) == "LOADING", "the broken one was not tried")
            for name, routers in (("one_process", 1), ("four_processes", 4)):
                times, sent = _measured(folder, target.control.address, chosen, routers)
                if _state(target) != "LOADING":
                    raise RuntimeError("The server was not stuck in a load any more.")
                found |= {
                    f"p50_ms_{name}": _quantile(times, 0.5),
                    f"p99_ms_{name}": _quantile(times, 0.99),
                    f"max_ms_{name}": round(max(times) * 1000, 2),
                    f"candidate_requests_{name}": sent,
                }
    return found


def _state(target: Any) -> str:
    found = target.states().get(_BROKEN)
    return "" if found is None else str(found.state.value)


def _quantile(times: list[float], q: float) -> float:
    return round(sorted(times)[min(int(q * len(times)), len(times) - 1)] * 1000, 2)


def _measured(
    folder: Path, address: str, chosen: Any, routers: int
) -> tuple[list[float], int]:
    """Return, for every decision, the seconds to the last request; and all requests."""
    from penstock.components.serving.ledger import Ledger
    from penstock.components.serving.traffic import Traffic

    decided: list[tuple[float, float]] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder))
        fields = {"stable": 1, "candidate": 2, "salt": "s", "rollout": f"r{routers}"}
        fields["step"] = 0
        set_routing(ledger, **fields)
        children = [
            stack.enter_context(
                Child("decision", str(folder), address, str(chosen.rps))
            )
            for _ in range(routers)
        ]
        for child in children:
            child.hear()
        traffic = stack.enter_context(Traffic(folder))

        def wait(seq: int) -> None:
            until(
                lambda: (
                    sum(each.acknowledged >= seq for each in traffic.routers())
                    >= routers
                ),
                "a router did not follow",
            )

        for i in range(chosen.decisions):
            wait(set_routing(ledger, weight=1.0, **fields).seq)
            time.sleep(_QUIET_SECONDS / 2)
            now = time.monotonic()
            seq = set_routing(ledger, weight=0.0, **fields).seq
            wait(seq)
            time.sleep(_QUIET_SECONDS)
            decided.append((now, time.monotonic()))
            if i % 50 == 49:
                print(f"{i + 1} decisions", file=sys.stderr, flush=True)
        told = [child.ask(stop=True) for child in children]
        wrong = [each["failed"] for each in told if each["failed"]]
        if wrong:
            raise RuntimeError(f"Requests failed: {wrong}.")
    sent = sorted(at for each in told for at in each["sent"])
    times = []
    for begin, end in decided:
        after = [at for at in sent if begin < at < end]
        times.append(max(after) - begin if after else 0.0)
    return times, len(sent)


def _route(folder: str, address: str, rps: str) -> None:
    """Send requests until told to stop; tell when each went to the candidate."""
    import numpy as np

    from penstock.components.serving.router.lanes import Lanes
    from penstock.components.serving.router.router import Router

    sent = array("d")
    real = Lanes.call

    def watched(
        self: Any, method: Any, request: bytes, version: int, *rest: Any
    ) -> Any:
        if version == 2:
            sent.append(time.monotonic())
        return real(self, method, request, version, *rest)

    Lanes.call = watched  # type: ignore[method-assign]
    failed: list[str] = []
    stop = threading.Event()
    threads = 4
    with Router(folder, MODEL, address=address, deadline_seconds=10.0) as router:

        def ask(mine: int) -> None:
            x = {"x": np.array([1.0], np.float32)}
            period = threads / float(rps)
            due = time.monotonic() + period * mine / threads
            i = 0
            while not stop.is_set():
                time.sleep(max(0.0, due - time.monotonic()))
                due += period
                i += 1
                try:
                    answer = router.predict(x, f"{mine}-{i}")
                    if answer.fell_back or answer.outputs["y"] != 2 + answer.version:
                        failed.append(f"{answer}")
                except Exception as error:
                    failed.append(str(error))

        asking = [threading.Thread(target=ask, args=(i,)) for i in range(threads)]
        for thread in asking:
            thread.start()
        print(json.dumps("ready"), flush=True)
        sys.stdin.readline()
        stop.set()
        for thread in asking:
            thread.join()
    print(json.dumps({"sent": list(sent), "failed": failed[:5]}), flush=True)
