"""Eight processes, one store, one root, fifty runs each: nothing fails or is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.pipelines.metadata import RunState, State, Store
from penstock.schemas.artifacts import Examples, Model
from tests.pipelines.test_metadata import ENVIRONMENT

pytestmark = pytest.mark.long

PROCESSES, RUNS = 8, 50

WORKER = """
import json, sys
from penstock import LocalRunner, Pipeline, run
from tests_toys import Bless, Check, Fit, Make
root, number, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
done = []
print("ready", flush=True)
sys.stdin.readline()
for each in range(runs):
    # Its own parameter, so that it really runs; some names are shared by processes.
    make = Make(text=f"{number}.{each}")
    check = Check(examples=make.examples)
    fit = Fit(examples=make.examples, anomalies=check.anomalies)
    bless = Bless(model=fit.model)
    pipeline = Pipeline(f"p{number % 3}", [make, check, fit, bless])
    result = run(pipeline, root, runner=LocalRunner())
    states = {one.state.value for one in result.executions.values()}
    model = result.artifact(fit.model)
    done.append([result.run_id, result.state.value, sorted(states), model.id])
print(json.dumps(done))
"""


def test_many_processes_on_one_store(tmp_path: Path) -> None:
    # Under another name, because a package named `tests` may be installed.
    toys = Path(__file__).with_name("toys.py")
    (tmp_path / "tests_toys.py").write_bytes(toys.read_bytes())
    root = tmp_path / "root"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, root, str(number), str(RUNS)],
            env={
                **ENVIRONMENT,
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    done = {}
    for number, worker in enumerate(workers):
        out, err = worker.communicate()
        assert worker.returncode == 0, err
        assert "is locked" not in err
        assert "Traceback" not in err
        done[number] = json.loads(out)
    told = [each for one in done.values() for each in one]
    assert len(told) == len({run_id for run_id, *_ in told}) == PROCESSES * RUNS
    assert {(state, *states) for _, state, states, _ in told} == {
        ("complete", "complete")
    }
    assert_all_is_recorded(root, done)


def assert_all_is_recorded(root: Path, done: dict[int, list[list[object]]]) -> None:
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}", create=False)
    total = PROCESSES * RUNS
    runs = {each.id: each for each in store.runs()}
    assert len(runs) == total
    assert {each.state for each in runs.values()} == {RunState.COMPLETE}
    models = {each.id: each for each in store.artifacts(Model)}
    assert len(models) == len(store.artifacts(Examples)) == total
    executions = set()
    for number, worker in done.items():
        for each, (run_id, _, _, model_id) in enumerate(worker):
            assert isinstance(run_id, str)
            assert isinstance(model_id, int)
            assert runs[run_id].pipeline == f"p{number % 3}"
            records = {one.component: one for one in store.executions(run_id)}
            assert set(records) == {"Make", "Check", "Fit", "Bless"}
            assert {one.state for one in records.values()} == {State.COMPLETE}
            executions |= {one.id for one in records.values()}
            (model,) = records["Fit"].outputs["model"]
            assert (model.id, model.uri) == (model_id, models[model_id].uri)
            # Its own bytes: nobody wrote into anybody else's folder.
            saved = model.path / "Format-Serving" / "saved_model.pb"
            assert saved.read_text() == f"{number}.{each}\n" * 3
            assert records["Bless"].inputs["model"][0].id == model_id
    assert len(executions) == total * 4
    left = [each for each in root.rglob("*") if each.name.startswith(".tmp")]
    assert not [each for folder in left for each in folder.iterdir()]
    assert not list(root.rglob("*.partial"))
