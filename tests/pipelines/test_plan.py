"""plan: what is said before a run, and that a run then does it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Component, Options, RunContext, field, output
from penstock.pipelines.inputs import Latest, LatestBlessed, Resolve, Spans, Where
from penstock.pipelines.metadata import State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.plan import Plan, plan
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Examples, Model
from penstock.schemas.errors import ComponentFailed, PipelineError
from tests.pipelines.toys import Bless, Check, Fail, Fit, Make, toy


class Read(Component):
    """Write down what was found."""

    examples: tuple[Examples, ...] = ()
    model: Model | None = None
    found: Examples = output()

    def run(self, context: RunContext) -> None:
        read = [*self.examples, *([self.model] if self.model else [])]
        (self.found.path / "found").write_text("".join(each.digest for each in read))


class Need(Component):
    """Do nothing with a model."""

    model: Model
    found: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.found.path / "found").touch()


class Spanned(Component):
    """Write Examples of a span."""

    span: int
    text: str
    examples: Examples = output()

    def run(self, context: RunContext) -> None:
        (self.examples.path / "data").write_text(self.text)
        self.examples.properties["span"] = self.span
        self.examples.split_names = ("train",)


def planned(folder: Path, pipeline: Pipeline, **options: Any) -> Plan:
    path = folder / "metadata.sqlite"
    store = Store(f"sqlite:///{path}" if path.exists() else "sqlite://")
    return plan(pipeline, folder, store, **options)


def go(folder: Path, pipeline: Pipeline, **options: Any) -> RunResult:
    return run(pipeline, folder, runner=LocalRunner(), **options)


def said(found: Plan) -> dict[str, str]:
    return {each.component: each.forecast.value for each in found.components}


def done(result: RunResult) -> dict[str, str]:
    words = {"complete": "will run", "cached": "hit", "skipped": "depends"}
    return {name: words[each.state.value] for name, each in result.executions.items()}


def test_what_never_ran(tmp_path: Path) -> None:
    found = planned(tmp_path, toy())
    assert found.pipeline == "toy"
    assert said(found) == {
        "Make": "will run",
        "Check": "depends",
        "Fit": "depends",
        "Bless": "depends",
        "Push": "depends",
    }
    assert found["Make"].reasons == ("It has not run in this pipeline.",)
    assert found["Check"].reasons == ("It depends on the output of 'Make'.",)
    assert found["Fit"].reasons == ("It depends on the verdict of 'Check'.",)
    assert found["Push"].reasons == ("It depends on the verdict of 'Bless', 'Check'.",)


def test_what_ran(tmp_path: Path) -> None:
    result = go(tmp_path, toy())
    found = planned(tmp_path, toy())
    assert set(said(found).values()) == {"hit"}
    assert found["Make"].reasons == (
        f"Execution {result['Make'].id} of run '{result.run_id}' had the same "
        "fingerprint, and what it wrote is still there.",
    )


def test_what_failed(tmp_path: Path) -> None:
    def failing() -> Pipeline:
        make = Make()
        return Pipeline("p", [make, Fail(examples=make.examples)])

    with pytest.raises(ComponentFailed) as raised:
        go(tmp_path, failing())
    assert raised.value.result is not None
    run_id = raised.value.result.run_id
    assert planned(tmp_path, failing())["Fail"].reasons == (
        f"The last execution of it was failed, in run '{run_id}', with the same "
        "fingerprint.",
    )


def test_what_changed(tmp_path: Path) -> None:
    salted = Options(cache_salt="1")
    go(tmp_path, Pipeline("p", [Make(rows=1, text="x" * 80, options=salted)]))
    found = planned(tmp_path, Pipeline("p", [Make(rows=2, text="y" * 80)]))
    assert found["Make"].reasons == (
        "Parameter rows changed: 1 -> 2.",
        f'Parameter text changed: "{"x" * 56}... -> "{"y" * 56}....',
        "Salt is gone; it was 1.",
    )


def test_what_is_taken_from_a_run(tmp_path: Path) -> None:
    result = go(tmp_path, toy())
    found = planned(tmp_path, toy(rows=4), resume=result.run_id)
    assert set(said(found).values()) == {"hit"}
    assert found["Fit"].reasons == (
        f"Its outputs are taken from run '{result.run_id}'.",
    )


def test_a_name_that_is_no_component(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as raised:
        planned(tmp_path, toy(), force=["Mak"])
    assert str(raised.value) == (
        "--force names 'Mak', which pipeline 'toy' does not contain (it has 'Bless', "
        "'Check', 'Fit', 'Make', 'Push'). Did you mean 'Make'?"
    )
    with pytest.raises(PipelineError) as raised:
        planned(tmp_path, toy())["Mak"]
    assert str(raised.value) == (
        "The plan of 'toy' has no component 'Mak' (it has 'Bless', 'Check', 'Fit', "
        "'Make', 'Push'). Did you mean 'Make'?"
    )


def test_a_plan_names_the_verdict_that_stops_it(tmp_path: Path) -> None:
    go(tmp_path, toy(good=False))
    found = planned(tmp_path, toy(good=False), force=["Fit", "Push"])
    assert said(found)["Fit"] == said(found)["Push"] == "depends"
    assert found["Fit"].reasons == (
        "It will be skipped: 'Check.anomalies' says no: Split 'train': payment_type "
        "is new.",
    )
    assert found["Push"].reasons[0].startswith("It will be skipped: 'Fit' did not run:")


# What resolvers find once the components ahead are recorded -----------------------


def spanned(text: str, *, reads: bool = True) -> Pipeline:
    make = Spanned(span=3, text=text)
    read = Read(examples=Spans(last=1, at_least=0), after=(make,))
    return Pipeline("p", [make, read] if reads else [make])


def latest(text: str, *, reads: bool = True) -> Pipeline:
    make = Make(text=text)
    fit = Fit(examples=make.examples)
    read = Read(model=Latest(Model), after=(fit,))
    return Pipeline("p", [make, fit, read] if reads else [make, fit])


def blessed(text: str, *, reads: bool = True) -> Pipeline:
    make = Make(text=text)
    fit = Fit(examples=make.examples)
    bless = Bless(model=fit.model)
    read = Read(model=LatestBlessed(), after=(bless,))
    return Pipeline("p", [make, fit, bless, *([read] if reads else [])])


def where(text: str, *, reads: bool = True) -> Pipeline:
    make = Make(text=text)
    fit = Fit(examples=make.examples)
    read = Read(model=Where("auc >= 0.5", Model), after=(fit,))
    return Pipeline("p", [make, fit, *([read] if reads else [])])


@pytest.mark.parametrize("made", [spanned, latest, blessed, where])
def test_what_is_taken_again_is_the_newest(tmp_path: Path, made: Any) -> None:
    go(tmp_path, made("first", reads=False))
    go(tmp_path, made("second"))
    found = planned(tmp_path, made("first"))
    assert said(found) == done(go(tmp_path, made("first")))
    assert set(said(planned(tmp_path, made("first"))).values()) == {"hit"}


@pytest.mark.parametrize("made", [spanned, latest, blessed, where])
def test_a_new_pipeline_finds_what_it_takes(tmp_path: Path, made: Any) -> None:
    go(tmp_path, made("first"))
    pipeline = made("first")
    pipeline.name = "q"
    assert set(said(planned(tmp_path, pipeline)).values()) == {"hit"}
    assert set(done(go(tmp_path, pipeline)).values()) == {"hit"}


def test_what_is_written_far_ahead_may_be_found(tmp_path: Path) -> None:
    def chain(text: str) -> Pipeline:
        make = Make(text=text)
        between = Make(name="Between", after=(make,))
        read = Read(examples=(Latest(Examples, component="Make"),), after=(between,))
        return Pipeline("p", [make, between, read])

    go(tmp_path, chain("first"))
    found = planned(tmp_path, chain("second"))
    assert said(found) == {"Make": "will run", "Between": "hit", "Read": "depends"}
    assert found["Read"].reasons == ("It depends on the output of 'Make'.",)
    assert done(go(tmp_path, chain("second")))["Read"] == "will run"


def test_what_only_comes_after_is_a_hit(tmp_path: Path) -> None:
    def chain(text: str, verdict: str = "yes") -> Pipeline:
        make = Make(text=text)
        check = Check(examples=make.examples, verdict=verdict)
        push = Fit(examples=make.examples, anomalies=check.anomalies)
        return Pipeline("p", [make, check, push, Make(name="Last", after=(push,))])

    go(tmp_path, chain("first"))
    found = planned(tmp_path, chain("second"))
    assert said(found)["Last"] == "depends"
    assert found["Last"].reasons == ("It depends on the verdict of 'Check'.",)
    again = planned(tmp_path, chain("first"), force=["Fit"])
    assert said(again)["Last"] == "hit"
    assert done(go(tmp_path, chain("first"), force=["Fit"]))["Last"] == "hit"


def broken(store: Store, pipeline: str, component: Component) -> Model | None:
    """Raise."""
    raise ValueError("no idea")


def test_what_cannot_be_resolved_will_fail(tmp_path: Path) -> None:
    make = Make()
    pipeline = Pipeline(
        "p",
        [
            make,
            Need(name="None", model=Latest(Model)),
            Need(name="Wrong", model=Resolve(broken, Model)),
        ],
    )
    line = broken.__code__.co_firstlineno + 2
    found = planned(tmp_path, pipeline)
    assert said(found) == {"Make": "will run", "None": "will run", "Wrong": "will run"}
    assert found["None"].reasons == (
        "It will fail: 'None' failed: 'Latest(Model)' finds nothing for None.model in "
        "pipeline 'p'. Run what writes Model first, or import it.",
    )
    assert found["Wrong"].reasons == (
        "It will fail: 'Wrong' failed in broken (test_plan.py, line "
        f"{line}): ValueError: no idea",
    )
    with pytest.raises(ComponentFailed) as raised:
        go(tmp_path, pipeline)
    result = raised.value.result
    assert [each.reason for each in result.executions.values()] == [
        "",
        *(
            found[name].reasons[0].removeprefix("It will fail: ")
            for name in ("None", "Wrong")
        ),
    ]


class Look(Component):
    """Read files that parameters name."""

    table: Path
    more: tuple[Path, ...] = ()
    place: Path = field(default=Path("nowhere"), counts=False)
    found: Examples = output()

    def run(self, context: RunContext) -> None:
        texts = [each.read_text() for each in (self.table, *self.more)]
        (self.found.path / "found").write_text(" ".join(texts))


def test_a_file_that_a_parameter_names_counts(tmp_path: Path) -> None:
    table, more, place = (tmp_path / name for name in ("table", "more", "place"))
    for path in (table, more, place):
        path.write_text("one")
    pipeline = Pipeline("p", [Look(table=table, more=(more,), place=place)])
    root = tmp_path / "root"
    first = go(root, pipeline)
    os.utime(table, (1, 1))
    place.write_text("two")
    assert said(planned(root, pipeline)) == {"Look": "hit"}
    more.write_text("two")
    found = planned(root, pipeline)
    assert said(found) == {"Look": "will run"}
    (reason,) = found["Look"].reasons
    digests = (hashlib.sha256(each).hexdigest()[:12] for each in (b"one", b"two"))
    assert reason == "File 'more' changed: {} -> {}.".format(*digests)
    assert go(root, pipeline)["Look"].state is State.COMPLETE
    # What the file reached is in the lineage.
    store = Store(f"sqlite:///{root / 'metadata.sqlite'}")
    (record,) = store.executions(first.run_id)
    assert [each.uri for each in record.inputs["external"]] == [str(table), str(more)]
    more.unlink()
    (reason,) = planned(root, pipeline)["Look"].reasons
    assert reason.startswith("File 'more' is gone; it was ")
