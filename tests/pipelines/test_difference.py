"""What two runs were made with, and in what they differ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.pipelines.difference import Change, Difference, difference
from penstock.pipelines.environment import packages_file
from penstock.pipelines.metadata import Store
from penstock.pipelines.recipes import recipe
from penstock.pipelines.run import run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.errors import ComponentFailed, MetadataError
from tests.pipelines.toys import Make, toy

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}

MODULE = '''
from pathlib import Path

from penstock import Component, Pipeline, RunContext, output
from penstock.schemas.artifacts import Examples, Model, ModelEvaluation


def scaled(value):
    """A helper below what is called."""
    return value * {factor}


class Read(Component):
    data: Path
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "data").write_bytes(self.data.read_bytes())


class Train(Component):
    examples: Examples
    steps: int = 10
    rate: float = 0.5
    model: Model = output()

    def run(self, context: RunContext) -> None:
        data = (self.examples.path / "data").read_text()
        (self.model.path / "model").write_text(f"{data} {scaled(self.steps)}")


class Evaluate(Component):
    LIBRARIES = ("numpy",)

    model: Model
    evaluation: ModelEvaluation = output()

    def run(self, context: RunContext) -> None:
        size = len((self.model.path / "model").read_text())
        self.evaluation.properties.update(auc=size / 16, example_count=3)


def small(data: Path, steps: int = 10, extra: bool = False) -> Pipeline:
    read = Read(data=data, name="Read")
    train = Train(examples=read.examples, steps=steps)
    parts = [read, train, Evaluate(model=train.model)]
    return Pipeline("small", [*parts, *([Read(data=data, name="More")] * extra)])
'''


def ran(folder: Path, *, factor: int, data: str, **parameters: object) -> None:
    """Run the small pipeline in a process of its own, as its code is now."""
    (folder / "small.py").write_text(MODULE.replace("{factor}", str(factor)))
    (folder / f"{data}.txt").write_text(data)
    given = {"data": f"{data}.txt", **parameters}
    params = [f"--param={key}={value}" for key, value in given.items()]
    words = ["run", "small.py:small", "--runner=local", "--root=root", *params]
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with runs that differ in nothing, code, a parameter, and data."""
    folder = tmp_path_factory.mktemp("small")
    ran(folder, factor=2, data="abc")
    ran(folder, factor=2, data="abc")
    ran(folder, factor=3, data="abc")
    ran(folder, factor=3, data="abc", steps=1000)
    ran(folder, factor=3, data="abcdef", steps=1000, extra="yes")
    return Store(f"sqlite:///{folder / 'root' / 'metadata.sqlite'}", create=False)


def found(store: Store, first: int, second: int) -> Difference:
    runs = store.runs()
    return difference(store, runs[first].id, runs[second].id)


def named(changes: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(each.component, each.name) for each in changes]


def test_a_recipe_has_code_parameters_environment_and_data(store: Store) -> None:
    run = store.pipelines["small"].runs[0]
    train, evaluate = recipe(run["Train"]), recipe(run["Evaluate"])
    assert train.code.startswith("sha256:")
    assert train.parameters == {"steps": 10, "rate": 0.5}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert train.environment == {"python": version}
    assert train.data == {"examples[0]": run["Read"].examples.digest}
    import numpy

    assert evaluate.environment["numpy"] == numpy.__version__
    # A cached execution was made with the same.
    again = store.pipelines["small"].runs[1]["Train"]
    assert recipe(again) == train


def test_a_recipe_of_what_says_nothing_of_itself_is_empty(store: Store) -> None:
    number = store.record_execution(
        "by.Hand", component="x", pipelines=[], inputs={}, outputs={}, properties={}
    )
    (record,) = store.executions_by_id([number])
    made = recipe(record)
    assert (made.code, made.parameters, made.environment, made.data) == ("", {}, {}, {})


def test_runs_of_the_same_differ_in_nothing(store: Store) -> None:
    alike = found(store, 0, 1)
    assert alike.before.id != alike.after.id
    assert not any(alike.sections.values())
    assert list(alike.sections) == [
        *("states", "parameters", "code", "environment", "data", "metrics")
    ]


def test_code_is_told_by_definition(store: Store) -> None:
    changed = found(store, 1, 2)
    assert named(changed.code) == [("Train", "small.scaled")]
    (change,) = changed.code
    assert change.before != change.after
    assert changed.parameters == changed.environment == changed.states == ()
    # Twenty is as long as thirty, so that nothing is measured otherwise.
    assert named(changed.data) == [("Evaluate", "model[0]")]
    assert changed.metrics == ()


def test_code_that_was_not_kept_is_told_as_a_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pipelines.difference.kept_symbols", lambda *_: {})
    (change,) = found(store, 1, 2).code
    assert (change.component, change.name) == ("Train", "code")
    assert str(change.before).startswith("sha256:") and change.before != change.after


def test_parameters_are_told_of_the_run_and_of_components(store: Store) -> None:
    changed = found(store, 2, 3)
    assert changed.parameters == (
        Change("", "steps", None, 1000),
        Change("Train", "steps", 10, 1000),
    )
    assert changed.code == ()
    assert changed.metrics == (Change("Evaluate", "auc", 6 / 16, 8 / 16),)


def test_data_and_components_are_told(store: Store) -> None:
    changed = found(store, 3, 4)
    assert named(changed.data) == [
        ("Read", "external[0]"),
        ("Train", "examples[0]"),
        ("Evaluate", "model[0]"),
    ]
    assert changed.states == (Change("More", "state", None, "complete"),)
    back = found(store, 4, 3)
    assert back.states == (Change("More", "state", "complete", None),)


def test_packages_are_told_each_where_their_lists_were_kept(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        text = f"keras==3.0\nnumpy=={version}\n" + "new==1\n" * (version == "2.0")
        path = packages_file(tmp_path, f"sha256:{version}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")
    for run_id, version in (("a", "1.0"), ("b", "2.0"), ("c", "3.0")):
        store.begin_run("p", run_id, {"penstock_root": str(tmp_path)})
        store.begin_execution(
            Make(),
            pipeline="p",
            run_id=run_id,
            inputs={},
            properties={
                "penstock_environment_packages": f"sha256:{version}",
                "penstock_environment_cpu_count": 2,
            },
        )
    changed = difference(store, "a", "b").environment
    assert changed == (
        Change("Make", "numpy", "1.0", "2.0"),
        Change("Make", "new", None, "1"),
    )
    lost = difference(store, "b", "c").environment
    assert lost == (Change("Make", "packages", "sha256:2.0", "sha256:3.0"),)
    (execution,) = store.executions("a")
    assert recipe(execution).environment == {
        "packages": "sha256:1.0",
        "cpu_count": "2",
    }


def test_a_component_that_failed_is_told(tmp_path: Path) -> None:
    run(toy(), tmp_path, runner=LocalRunner())
    with pytest.raises(ComponentFailed):
        run(toy(rows=5, fail=True), tmp_path, runner=LocalRunner())
    run(toy(rows=5, good=False), tmp_path, runner=LocalRunner())
    store = Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}", create=False)
    assert found(store, 0, 1).states == (Change("Fail", "state", None, "failed"),)
    assert found(store, 0, 2).states == tuple(
        Change(name, "state", "complete", "skipped")
        for name in ("Fit", "Bless", "Push")
    )


def test_a_run_that_is_not_there_gets_a_sentence(store: Store) -> None:
    with pytest.raises(MetadataError, match="Run 'nope' is not in the lineage store"):
        difference(store, "nope", store.runs()[0].id)
