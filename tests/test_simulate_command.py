"""`penstock simulate`: a plan's error rates and delays, and those of other rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from penstock.commands.plans import load_plan
from penstock.commands.simulating import simulate
from penstock.components.serving.rollout.plan import Guard, Rollout, Step
from penstock.schemas.errors import PenstockError

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(simulate)

MODULE = """
from penstock.components.serving.rollout.plan import Guard, Rollout

careful = Rollout("ranker", steps=(1, 10, 50), alpha=0.001)
LIMIT = 5

def made():
    return careful

def broken():
    return Rollout("ranker", steps=(50, 10))

def raising():
    return 1 / 0
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / f"plans_of_{tmp_path.name}.py"
    path.write_text(MODULE)
    return path


def said(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- plans


def test_a_plan_is_a_value_or_a_function_of_a_file(module: Path) -> None:
    careful = Rollout("ranker", steps=(1, 10, 50), alpha=0.001)
    assert load_plan(f"{module}:careful") == careful
    assert load_plan(f"{module}:made") == careful


def test_a_plan_is_a_value_of_a_module(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(module.parent)
    assert load_plan(f"{module.stem}:careful").alpha == 0.001


def test_a_plan_is_a_file_of_json(tmp_path: Path) -> None:
    plan = Rollout("m", steps=[Step(10, "1h"), 100], guards=[Guard.errors(2.0)])
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert load_plan(str(path)) == plan


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            "missing.json",
            "There is no plan 'missing.json'. Write FILE.py:NAME, as in "
            "rollouts.py:plan, or name a file of JSON.",
        ),
        ("missing.py:plan", "There is no file 'missing.py'. Check the path."),
        (
            "no_such_module:plan",
            "There is no module 'no_such_module' on Python's path. Check its name, or "
            "name a file, as in path/to/module.py:plan.",
        ),
        (
            "{module}",
            "'{module}' is a module, and does not say which plan of it is meant. Write "
            "{module}:NAME.",
        ),
        (
            "{module}:carefull",
            "Module '{name}' has no 'carefull' (it has 'broken', 'careful', 'made', "
            "'raising'). Did you mean 'careful'?",
        ),
        (
            "{module}:LIMIT",
            "'{module}:LIMIT' is a int, no Rollout. Name a Rollout or a function that "
            "returns one.",
        ),
        (
            "{module}:broken",
            "The rollout of 'ranker' has the weights 50, 10: 10 does not rise above "
            "50. Write weights that rise, up to at most 100.",
        ),
        (
            "{module}:raising",
            "'{module}:raising' makes no plan: ZeroDivisionError: division by zero "
            "({module}, line 14). Mend it and run again.",
        ),
        (
            "{folder}",
            "The plan '{folder}' cannot be read: Is a directory. Mend that, or name "
            "another file.",
        ),
    ],
)
def test_a_plan_that_is_none_gets_a_sentence(
    module: Path, target: str, sentence: str
) -> None:
    names = {"module": str(module), "name": module.stem, "folder": str(module.parent)}
    with pytest.raises(PenstockError) as caught:
        load_plan(target.format(**names))
    assert str(caught.value) == sentence.format(**names)


# --- the verb


def test_simulate_prints_the_plan_beside_the_rules_of_others() -> None:
    result = said("--rps", 100, "--errors", 0.01, "--rollouts", 200)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "Plan of 'model' at 5, 20, 50, 100 %, alpha 0.01; 200 rollouts at 100 requests "
        "per second of 60,000 users, 1.0 % errors (independent)."
    )
    assert lines[1].split("  ")[0] == "candidate"
    healthy = next(line for line in lines if line.startswith("healthy"))
    assert re.search(r"\b40m\b", healthy)
    assert any(line.startswith("errors x 2 ") for line in lines)
    assert any(
        re.match(
            r"Distinct failing units until 'errors x 2' is found: \d+ at 5 %, "
            r"\d+ at 20 %, \d+ at 50 %\.",
            line,
        )
        for line in lines
    )
    rules = [line for line in lines if re.match("errors doubled|Flagger|Argo", line)]
    assert len(rules) == 5
    assert all(line.count("%") == 2 for line in rules)


def test_simulate_says_the_same_as_json(module: Path) -> None:
    result = said(
        *(f"{module}:careful", "--rps", 20, "--errors", 0.02, "--rollouts", 100),
        *("--candidate-errors", 3, "--model", "bad-users", "--seed", 7, "--json"),
    )
    found = json.loads(result.stdout)
    assert found["plan"] == {
        "model": "ranker",
        "digest": load_plan(f"{module}:careful").digest,
    }
    assert found["traffic"] == {
        "rps": 20.0,
        "errors": 0.02,
        "model": "bad-users",
        "requests_per_hour": 6.0,
        "converting": 0.05,
        "units": 12_000,
    }
    assert found["rollouts"] == 100
    assert found["seed"] == 7
    for arm in ("healthy", "bad"):
        shares = [found[arm][each] for each in ("promoted", "rolled_back", "held")]
        assert sum(shares) == pytest.approx(1)
        assert found[arm]["rolled_back_upper"] > found[arm]["rolled_back"] or (
            found[arm]["rolled_back"] == 1
        )
    assert found["healthy"]["rolled_back"] <= 0.01
    assert set(found["delay_units"]) == {"1", "10", "50"}
    assert len(found["rules"]) == 5
    assert found["rules"]["Argo-like, limit 0"]["false_rollback"] > 0.3


def test_simulate_refuses_an_unknown_error_model() -> None:
    with pytest.raises(PenstockError) as caught:
        said("--rps", 5, "--errors", 0.01, "--model", "badusers")
    assert str(caught.value) == (
        "There is no error model 'badusers' (there are 'bad-users', 'daily', "
        "'independent'). Did you mean 'bad-users'?"
    )


def test_simulate_has_to_be_told_the_traffic() -> None:
    assert said("--errors", 0.01).exit_code == 2
    assert said("--rps", 5).exit_code == 2


def test_a_plan_without_an_errors_guard_has_no_delay(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(Rollout("m", guards=[Guard.latency()]).to_json())
    result = said(path, "--rps", 20, "--errors", 0.01, "--rollouts", 20)
    assert "Distinct failing units" not in result.stdout


def test_a_plan_shorter_than_a_check_of_others_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(Rollout("m", steps=[Step(20, "30s"), Step(100, "30s")]).to_json())
    result = said(path, "--rps", 50, "--errors", 0.01, "--rollouts", 20)
    assert result.exit_code == 0
    assert "rule of others" not in result.stdout


def test_the_verb_imports_neither_numpy_nor_tensorflow_before_it_needs_them() -> None:
    code = (
        "import sys, penstock.commands.simulating, penstock.commands.plans;"
        "print({'numpy', 'scipy', 'rich', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
