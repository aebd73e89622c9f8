"""The verb that tries out a rollout plan before any user meets it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.commands.options import JsonOption
from penstock.commands.terminal import new_console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import Console

    from penstock.components.serving.rollout.incumbents import Fired
    from penstock.components.serving.rollout.plan import Rollout
    from penstock.components.serving.rollout.simulate import (
        Candidate,
        Outcomes,
        Traffic,
    )


def simulate(
    rps: Annotated[
        float, typer.Option("--rps", help="Requests per second, both versions.")
    ],
    errors: Annotated[
        float,
        typer.Option("--errors", help="Share of requests that stable fails, as 0.01."),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="[PLAN]",
            help="A Rollout as FILE.py:NAME, or a file of JSON; the default plan if "
            "left out.",
            show_default=False,
        ),
    ] = "",
    candidate_errors: Annotated[
        float,
        typer.Option(
            "--candidate-errors",
            metavar="RATIO",
            help="How many times as many fail on the bad candidate.",
        ),
    ] = 2.0,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Who fails: independent, bad-users (1 % of users) or daily."
        ),
    ] = "independent",
    requests_per_hour: Annotated[
        float, typer.Option("--requests-per-hour", help="Of one user.")
    ] = 6.0,
    converting: Annotated[
        float,
        typer.Option(
            "--converting", help="Share of users with any of a guarded metric."
        ),
    ] = 0.05,
    rollouts: Annotated[
        int, typer.Option("--rollouts", min=1, help="How many are simulated.")
    ] = 2_000,
    seed: Annotated[int, typer.Option("--seed", help="Of the random numbers.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Simulate a rollout plan: its false rollbacks, its delay, and those of others."""
    from penstock.commands.plans import load_plan
    from penstock.components.serving.rollout.incumbents import beside
    from penstock.components.serving.rollout.plan import Rollout
    from penstock.components.serving.rollout.simulate import (
        HEALTHY,
        Candidate,
        Traffic,
    )
    from penstock.components.serving.rollout.simulate import simulate as run

    plan = load_plan(target) if target else Rollout("model")
    traffic = Traffic(
        rps,
        errors,
        model,  # type: ignore[arg-type]  # Traffic refuses what it does not know
        requests_per_hour,
        converting,
    )
    bad = Candidate(errors=candidate_errors)
    outcomes = {}
    with _shown() as progress:
        for number, candidate in enumerate((HEALTHY, bad)):

            def show(done: float, before: int = number) -> None:
                progress((before + done) / 2)

            outcomes[candidate] = run(
                plan,
                traffic,
                candidate,
                rollouts=rollouts,
                seed=seed + number,
                progress=show,
            )
    healthy, worse = outcomes[HEALTHY], outcomes[bad]
    rules = {
        candidate: beside(plan, traffic, candidate, rollouts=rollouts, seed=seed)
        for candidate in (HEALTHY, bad)
    }
    if as_json:
        print_json(
            {
                "plan": {"model": plan.model, "digest": plan.digest},
                "traffic": {
                    "rps": rps,
                    "errors": errors,
                    "model": model,
                    "requests_per_hour": requests_per_hour,
                    "converting": converting,
                    "units": traffic.units,
                },
                "rollouts": rollouts,
                "seed": seed,
                "healthy": _outcome_json(healthy),
                "bad": {"errors_ratio": candidate_errors, **_outcome_json(worse)},
                "delay_units": _delays(plan, candidate_errors, rollouts, seed),
                "rules": {
                    name: {
                        "false_rollback": fired.rate,
                        "found": rules[bad][name].rate,
                        "median_seconds": _finite(_median(rules[bad][name])),
                    }
                    for name, fired in rules[HEALTHY].items()
                },
            }
        )
        return
    _print(new_console(), plan, traffic, bad, healthy, worse, rules, rollouts, seed)


def _shown() -> AbstractContextManager[Callable[[float], object]]:
    """Return a progress bar on a terminal, and nothing elsewhere."""
    import contextlib

    @contextlib.contextmanager
    def shown() -> Any:
        console = new_console(stderr=True)
        if not console.is_terminal:
            yield lambda done: None
            return
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("Simulating", total=1.0)
            yield lambda done: bar.update(task, completed=done)

    return shown()


def _outcome_json(outcomes: Outcomes) -> dict[str, Any]:
    from penstock.components.serving.rollout.kernels import HOLD, PROMOTE, ROLL_BACK

    return {
        "promoted": outcomes.rate(PROMOTE),
        "rolled_back": outcomes.rate(ROLL_BACK),
        "rolled_back_upper": outcomes.upper(ROLL_BACK),
        "held": outcomes.rate(HOLD),
        "seconds_to_promotion": _finite(outcomes.median(outcomes.seconds, PROMOTE)),
        "seconds_to_rollback": _finite(outcomes.median(outcomes.seconds, ROLL_BACK)),
        "failing_units_to_rollback": _finite(
            outcomes.median(outcomes.failing, ROLL_BACK)
        ),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(fired: Fired) -> float:
    """Return the median time of the rollouts in which a rule fired."""
    import numpy as np

    seconds = fired.seconds[np.isfinite(fired.seconds)]
    return float(np.median(seconds)) if len(seconds) else math.nan


def _delays(
    plan: Rollout, ratio: float, rollouts: int, seed: int
) -> dict[str, float | None]:
    """Return the median number of failing units until the errors guard fails.

    By the weight of every step that has a concurrent control.
    """
    import numpy as np

    from penstock.components.serving.rollout.simulate import delay_units

    if "errors" not in plan.alphas or ratio <= plan.guard("errors").max_ratio:
        return {}
    return {
        f"{step.weight:g}": _finite(
            float(
                np.median(
                    delay_units(plan, number, ratio, rollouts=rollouts, seed=seed)
                )
            )
        )
        for number, step in enumerate(plan.steps)
        if step.weight < 100
    }


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _time(seconds: float) -> str:
    from penstock.components.serving.rollout.plan import duration_text

    return duration_text(seconds) if math.isfinite(seconds) else ""


def _print(
    console: Console,
    plan: Rollout,
    traffic: Traffic,
    bad: Candidate,
    healthy: Outcomes,
    worse: Outcomes,
    rules: dict[Candidate, dict[str, Fired]],
    rollouts: int,
    seed: int,
) -> None:
    from rich.table import Table

    from penstock.components.serving.rollout.kernels import HOLD, PROMOTE, ROLL_BACK
    from penstock.components.serving.rollout.simulate import HEALTHY

    weights = ", ".join(f"{step.weight:g}" for step in plan.steps)
    console.print(
        f"Plan of '{plain(plan.model)}' at {weights} %, alpha {plan.alpha:g}; "
        f"{rollouts:,} rollouts at {traffic.rps:g} requests per second of "
        f"{traffic.units:,} users, {_share(traffic.errors)} errors ({traffic.model})."
    )
    doubled = f"errors x {bad.errors:g}"
    table = Table(box=None, pad_edge=False, title_justify="left")
    for column in ("candidate", "promoted", "rolled back", "at most", "held"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for column in ("promoted after", "rolled back after", "failing units"):
        table.add_column(column, justify="right")
    for name, each in (("healthy", healthy), (doubled, worse)):
        units = each.median(each.failing, ROLL_BACK)
        table.add_row(
            name,
            _share(each.rate(PROMOTE)),
            _share(each.rate(ROLL_BACK)),
            _share(each.upper(ROLL_BACK)),
            _share(each.rate(HOLD)),
            _time(each.median(each.seconds, PROMOTE)),
            _time(each.median(each.seconds, ROLL_BACK)),
            f"{units:,.0f}" if math.isfinite(units) else "",
        )
    console.print(table)
    console.print(
        "'At most' is the upper 95 % confidence bound of 'rolled back'; times and "
        "units are medians."
    )
    delays = _delays(plan, bad.errors, rollouts, seed)
    if delays:
        said = ", ".join(
            f"{units:,.0f} at {weight} %"
            if units is not None
            else f"none at {weight} %"
            for weight, units in delays.items()
        )
        console.print(f"Distinct failing units until '{doubled}' is found: {said}.")
    if not rules[HEALTHY]:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("rule of others")
    for column in ("healthy rolled back", f"{doubled} rolled back", "after"):
        table.add_column(column, justify="right")
    for name, fired in rules[HEALTHY].items():
        found = rules[bad][name]
        table.add_row(
            name, _share(fired.rate), _share(found.rate), _time(_median(found))
        )
    console.print()
    console.print(table)
