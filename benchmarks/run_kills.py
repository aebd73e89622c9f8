"""Kills runs at every call of the file system and of the store, and looks at the rest.

Every point is a moment before or after one call that changes a file below the root, or
one call of the lineage store, found by running a pipeline whose calls are recorded. A
child process runs the pipeline and kills itself at the point. Whatever it left, no
artifact that the store knows may be partial, and the next run must end well, lose
nothing that was done, do nothing twice and leave nothing behind. Runs are also killed
at random times, alone and beside another one of the same pipeline, and so is the taxi
pipeline. What is careless on purpose goes through the same; a harness that does not
catch it proves nothing and fails.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from tests.pipelines.kills import Remote

_SCENARIOS = ("first", "again", "apart", "repair")
"""Where every point counts; of Beam's only some are tried."""

# Which runs are killed at random times, and how many of them there are at once.
_AT_RANDOM = (
    *(("whole", 1), ("whole", 2), ("apart", 1), ("whole", 2)),
    *(("whole", 1), ("whole", 2), ("apart", 2), ("whole", 2)),
)
_KILLS_AT_ONCE = 5

_CARELESS = ("no repair", "no notes", "renamed late")


class Job(NamedTuple):
    """What a site is asked to do.

    Attributes:
        kind: What it counts as.
        method: Name of the site's method.
        arguments: The method's arguments.
        kills: How many runs it kills.
    """

    kind: str
    method: str
    arguments: tuple[Any, ...]
    kills: int = 1


def main(argv: list[str]) -> dict[str, Any]:
    """Kill runs; return counts. Faults are the sentences of what must not be."""
    parser = argparse.ArgumentParser(prog="run-kills", description=__doc__)
    parser.add_argument(
        "--kills",
        type=int,
        help="kills at points (without it: until every point has had --kills-each)",
    )
    parser.add_argument("--kills-each", type=int, default=3)
    parser.add_argument("--random-kills", type=int, default=1_000)
    parser.add_argument("--beam-kills", type=int, default=50)
    parser.add_argument("--taxi-kills", type=int, default=20)
    parser.add_argument("--careless-kills", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--state",
        type=Path,
        help="a JSON file with the counts so far, which this run adds to; a run that "
        "is broken off loses at most fifty kills",
    )
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="run-kills-"))
    sites = [Remote(folder / f"site-{number}") for number in range(options.workers)]
    # Its libraries are large, and every fork of a process that has them takes longer.
    taxi = Remote(folder / "taxi")
    try:
        return _measure(options, sites, taxi)
    finally:
        for site in (*sites, taxi):
            site.close()
        shutil.rmtree(folder, ignore_errors=True)


def _measure(
    options: argparse.Namespace, sites: list[Remote], taxi: Remote
) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if options.state is not None and options.state.exists():
        known = json.loads(options.state.read_text(encoding="utf-8"))
    points = {name: sites[0]("points", name) for name in _SCENARIOS}
    before = known.get("counts", {})
    counts = Counter(
        {
            point: before.get(point, 0)
            for name in _SCENARIOS
            for point in (f"{name}: {each}" for each in points[name])
        }
    )
    sums = Counter(known.get("sums", {}))
    faults: list[str] = known.get("faults", [])
    caught = _caught(sites, points["first"], options.careless_kills)

    def keep() -> None:
        if options.state is not None:
            options.state.parent.mkdir(parents=True, exist_ok=True)
            draft = options.state.with_suffix(".partial")
            said = {"counts": counts, "sums": sums, "faults": faults}
            draft.write_text(json.dumps(said, indent=1), encoding="utf-8")
            draft.replace(options.state)

    jobs = [
        *_at_random("random_kills", _AT_RANDOM, options.random_kills, sums),
        *_at_points(counts, options.kills, options.kills_each),
    ]
    if options.beam_kills:
        jobs += _beam(sites[0]("points", "beam"), options.beam_kills, sums)
    left = iter(jobs)
    taxis = _at_random("taxi_kills", [("taxi", 1)], options.taxi_kills, sums)
    queues = [*((site, left) for site in sites), (taxi, taxis)]
    for number, (job, wrong) in enumerate(_done(queues)):
        name, point, *_ = job.arguments
        if job.kind == "kills":
            counts[f"{name}: {point}"] += 1
        else:
            sums[job.kind] += job.kills
        faults += [f"{name}: {point}: {each}" for each in wrong]
        if number % 50 == 0 or job.kind == "taxi_kills":
            keep()
    keep()
    return {
        "points": len(counts),
        "kills": sum(counts.values()),
        "least_kills_per_point": min(counts.values()),
        **{kind: sums[kind] for kind in ("random_kills", "beam_kills", "taxi_kills")},
        "faults": faults,
        "careless_kills": options.careless_kills,
        "careless_caught": caught,
    }


def _at_points(counts: Counter[str], kills: int | None, each: int) -> Iterator[Job]:
    """Yield kills at the points that had the fewest so far."""
    if kills is None:
        kills = sum(max(0, each - count) for count in counts.values())
    source = random.Random(sum(counts.values()))
    planned = Counter(counts)
    while kills > 0:
        fewest = min(planned.values())
        open_points = [point for point, had in planned.items() if had == fewest]
        for point in source.sample(open_points, min(kills, len(open_points))):
            name, _, call = point.partition(": ")
            yield Job("kills", "kill_at", (name, call))
            planned[point] += 1
            kills -= 1


def _at_random(
    kind: str, what: Iterable[tuple[str, int]], kills: int, sums: Counter[str]
) -> Iterator[Job]:
    """Yield kills at random times, with seeds that no run before had."""
    choices = list(what)
    done = sums[kind]
    at_once = _KILLS_AT_ONCE if kind == "random_kills" else 1
    for number in range(0, kills, at_once):
        name, runs = choices[(done + number) // at_once % len(choices)]
        count = min(at_once, kills - number)
        arguments = (name, runs, count, done + number)
        yield Job(kind, "kill_at_random", arguments, count)


def _beam(points: list[str], kills: int, sums: Counter[str]) -> Iterator[Job]:
    source = random.Random(sums["beam_kills"])
    for point in source.choices(points, k=kills):
        yield Job("beam_kills", "kill_at", ("beam", point))


def _done(
    queues: Iterable[tuple[Remote, Iterator[Job]]],
) -> Iterator[tuple[Job, list[str]]]:
    """Give each site a job of its queue whenever it has none; yield what was wrong."""
    working: dict[Any, tuple[Remote, Iterator[Job], Job]] = {}

    def give(site: Remote, left: Iterator[Job]) -> None:
        job = next(left, None)
        if job is not None:
            site.send(job.method, *job.arguments)
            working[site.pipe] = (site, left, job)

    for site, left in queues:
        give(site, left)
    while working:
        for pipe in wait(list(working)):
            site, left, job = working.pop(pipe)
            wrong = site.receive()
            give(site, left)
            yield job, wrong


def _caught(sites: list[Remote], points: list[str], kills: int) -> dict[str, int]:
    """Send what is careless through the same; return how many faults were found."""
    critical = [
        each
        for each in points
        if "Store.complete_execution" in each or "os.rename <root>/counted" in each
    ]
    jobs = [
        Job(careless, "kill_at", ("first", point, careless))
        for careless in _CARELESS
        for point in random.Random(careless).choices(critical, k=kills)
    ]
    found = Counter(dict.fromkeys(_CARELESS, 0))
    left = iter(jobs)
    for job, wrong in _done([(site, left) for site in sites]):
        found[job.kind] += bool(wrong)
    missed = [each for each in _CARELESS if not found[each]]
    if missed:
        raise RuntimeError(
            f"What is careless on purpose was not caught ({', '.join(missed)}), so "
            "this harness proves nothing about other runs."
        )
    return dict(found)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
