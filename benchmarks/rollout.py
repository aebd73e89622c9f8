"""Operating characteristics of the default rollout plan, beside the rules of others.

Healthy candidates in every cell of traffic, error share and error model: how many are
rolled back, promoted or held. Then how many distinct failing units it takes to find a
candidate with doubled errors and a dead one, and what the rules of others do in the
same simulation. With --state every cell is kept, and a later call goes on where it
ended.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from penstock.components.serving.rollout.incumbents import (
    argo_like,
    errors_doubled,
    flagger_like,
    request_level,
)
from penstock.components.serving.rollout.kernels import HOLD, PROMOTE, ROLL_BACK
from penstock.components.serving.rollout.plan import Guard, Rollout
from penstock.components.serving.rollout.simulate import (
    ErrorModel,
    Traffic,
    delay_units,
    simulate,
    upper_bound,
)

RPS = (1.0, 5.0, 20.0, 100.0, 500.0)
ERRORS = (0.001, 0.005, 0.01, 0.02)
MODELS: tuple[ErrorModel, ...] = ("independent", "bad-users", "daily")
WEIGHTS = (5, 20, 50)
ROLLOUTS, FULL_ROLLOUTS = 2_000, 10_000

ANCHORS = (  # requests per second, error share, the rates that are known
    (5, 0.005, (0.129, 0.003, 0.89, 0.104)),
    (5, 0.008, (0.494, 0.065, 0.98, 0.39)),
    (20, 0.005, (0.033, 0.0, 0.75, 0.018)),
    (20, 0.008, (0.458, 0.044, 0.977, 0.389)),
    (100, 0.008, (0.132, 0.002, 0.88, 0.104)),
    (500, 0.008, (0.002, 0.0, 0.41, 0.001)),
)


def main(argv: list[str]) -> dict[str, Any]:
    """Simulate all cells and rules, and return the worst rates and the delays."""
    parser = argparse.ArgumentParser(prog="rollout", description=__doc__)
    parser.add_argument("--rollouts", type=int, help=f"per cell; {ROLLOUTS:,}")
    parser.add_argument("--full", action="store_true", help=f"{FULL_ROLLOUTS:,}")
    parser.add_argument("--state", type=Path, help="JSON file that cells are kept in")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    rollouts = options.rollouts or (FULL_ROLLOUTS if options.full else ROLLOUTS)
    if rollouts < 1:
        parser.error("--rollouts is a number of rollouts, 1 or more")

    start = time.perf_counter()
    plan = Rollout("model")
    cells = _cells(plan, rollouts, options.seed, options.state)
    worst = max(cells, key=lambda cell: cell["rolled_back"])
    fast = [cell for cell in cells if cell["rps"] >= 20]
    doubled = {
        f"{rps:g} rps, {errors:.1%}": errors_doubled(rps, errors).rate
        for rps, errors in ((5, 0.001), (1, 0.01), (5, 0.005))
    }
    return {
        "rollouts": rollouts,
        "seed": options.seed,
        "cells": len(cells),
        "worst_false_rollback": worst["rolled_back"] / rollouts,
        "worst_false_rollback_upper": round(
            upper_bound(worst["rolled_back"], rollouts), 5
        ),
        "mean_false_rollback": round(
            sum(cell["rolled_back"] for cell in cells) / rollouts / len(cells), 5
        ),
        "least_completion_from_20_rps": min(c["promoted"] for c in fast) / rollouts,
        "hold_rates_below_20_rps": {
            f"{rps:g} rps": round(
                max(c["held"] for c in cells if c["rps"] == rps) / rollouts, 4
            )
            for rps in RPS
            if rps < 20
        },
        "delay_units": _delays(plan, options.seed),
        "delay_units_with_all_of_alpha": _delays(
            Rollout("model", guards=[Guard.errors(), Guard.traffic()]), options.seed
        ),
        "dead_canary_units": _delays(plan, options.seed, ratio=1e9),
        "naive_false_rollback": max(doubled.values()),
        "errors_doubled_false_rollback": doubled,
        "incumbents": _incumbents(),
        "request_level_false_rollback": {
            f"{weight} %": request_level(weight / 100).rate for weight in WEIGHTS
        },
        "seconds": round(time.perf_counter() - start, 1),
    }


def _cells(
    plan: Rollout, rollouts: int, seed: int, state: Path | None
) -> list[dict[str, Any]]:
    """Return the counts of every cell; print each as it is done."""
    kept: dict[str, dict[str, Any]] = {}
    if state is not None and state.exists():
        kept = json.loads(state.read_text(encoding="utf-8"))
    cells = []
    for model in MODELS:
        for rps in RPS:
            for errors in ERRORS:
                name = f"{plan.digest} {rollouts} {seed} {rps:g} {errors:g} {model}"
                if name not in kept:
                    kept[name] = _cell(
                        plan, Traffic(rps, errors, model), rollouts, seed
                    )
                    if state is not None:
                        draft = state.with_name(f"{state.name}.draft")
                        draft.write_text(json.dumps(kept, indent=1), encoding="utf-8")
                        os.replace(draft, state)
                cell = kept[name]
                cells.append(cell)
                back = cell["rolled_back"]
                print(
                    f"{rps:5g} rps  {errors:4.1%} errors  {model:11}  rolled back "
                    f"{back / rollouts:6.2%} (at most "
                    f"{upper_bound(back, rollouts):5.2%})  promoted "
                    f"{cell['promoted'] / rollouts:6.1%}  held "
                    f"{cell['held'] / rollouts:6.1%}",
                    flush=True,
                )
    return cells


def _cell(plan: Rollout, traffic: Traffic, rollouts: int, seed: int) -> dict[str, Any]:
    outcomes = simulate(plan, traffic, rollouts=rollouts, seed=seed)
    counts = {
        name: int((outcomes.actions == action).sum())
        for name, action in (
            ("rolled_back", ROLL_BACK),
            ("promoted", PROMOTE),
            ("held", HOLD),
        )
    }
    return {"rps": traffic.rps, **counts}


def _delays(plan: Rollout, seed: int, ratio: float = 2.0) -> dict[str, float]:
    """Return the median number of distinct failing units until the guard fails."""
    return {
        f"{weight}": float(
            np.median(delay_units(plan, step, ratio, rollouts=4_000, seed=seed))
        )
        for step, weight in enumerate(WEIGHTS)
    }


def _incumbents() -> dict[str, Any]:
    """Return what the rules do to healthy canaries, and how far that is from known."""
    rates, distance = {}, 0.0
    for rps, errors, known in ANCHORS:
        traffic = Traffic(rps, errors)
        found = (
            flagger_like(traffic, threshold=5).rate,
            flagger_like(traffic, threshold=10).rate,
            argo_like(traffic).rate,
            argo_like(traffic, failure_limit=3).rate,
        )
        names = ("flagger_5", "flagger_10", "argo_0", "argo_3")
        rates[f"{rps} rps, {errors:.1%}"] = dict(zip(names, found, strict=True))
        distance = max(
            [distance, *(abs(a - b) for a, b in zip(found, known, strict=True))]
        )
    return {"false_rollback": rates, "distance_from_anchors": round(distance, 4)}
