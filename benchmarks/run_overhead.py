"""What the bookkeeping of a run costs: 200 components that do next to nothing.

They are ten chains of twenty; each writes one file of a few bytes. Everything else is
what any run does: fingerprints, digests, fsync, renames, the lineage store. Every
figure is the median over fresh roots, in a process that has run a pipeline before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from penstock import (
    BeamDagRunner,
    Component,
    LocalRunner,
    Pipeline,
    RunContext,
    State,
    Store,
    output,
    run,
)
from penstock.pipelines.plan import Forecast, plan
from penstock.pipelines.runners import Runner
from penstock.schemas import Examples

CHAINS = 10


class Start(Component):
    """Write a number."""

    number: int
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "number").write_text(str(self.number))


class Next(Component):
    """Write the next number."""

    examples: Examples
    following: Examples = output()

    def run(self, context: RunContext) -> None:
        number = int((self.examples.path / "number").read_text())
        (self.following.path / "number").write_text(str(number + 1))


def main(argv: list[str]) -> dict[str, Any]:
    """Run the pipeline cold and cached on both runners, and plan it."""
    parser = argparse.ArgumentParser(prog="run-overhead", description=__doc__)
    parser.add_argument("--components", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3, help="of each kind")
    options = parser.parse_args(argv)
    pipeline = chains(options.components)
    found: dict[str, list[float]] = {}
    for _ in range(options.runs):
        for prefix, runner in (("", LocalRunner()), ("beam_", BeamDagRunner())):
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                # Imports and the store's tables are not what is measured.
                run(chains(CHAINS, start=-1_000), root, runner=runner)
                for name, state in (("cold", State.COMPLETE), ("cached", State.CACHED)):
                    seconds = _seconds(pipeline, root, runner, state)
                    each_ms = 1_000 * seconds / options.components
                    found.setdefault(f"{prefix}{name}_ms", []).append(each_ms)
                store = Store(f"sqlite:///{root / 'metadata.sqlite'}", create=False)
                started = time.perf_counter()
                planned = plan(pipeline, root, store)
                seconds = time.perf_counter() - started
                assert {each.forecast for each in planned.components} == {Forecast.HIT}
                found.setdefault("plan_s", []).append(seconds)
    return {
        **{name: round(statistics.median(each), 3) for name, each in found.items()},
        "components": options.components,
        "runs": options.runs,
    }


def chains(components: int, *, start: int = 0) -> Pipeline:
    """Return a pipeline of chains of components."""
    made: list[Component] = []
    for chain in range(CHAINS):
        first = Start(name=f"c{chain}-0", number=start - 100 * chain)
        made.append(first)
        examples = first.examples
        for number in range(1, components // CHAINS):
            following = Next(name=f"c{chain}-{number}", examples=examples)
            made.append(following)
            examples = following.following
    return Pipeline("overhead", made)


def _seconds(pipeline: Pipeline, root: Path, runner: Runner, state: State) -> float:
    started = time.perf_counter()
    result = run(pipeline, root, runner=runner)
    seconds = time.perf_counter() - started
    assert {each.state for each in result.executions.values()} == {state}
    return seconds
