"""The lineage reads the ledgers of serving directories: no copy of them goes stale."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.components.base import Component, RunContext, output
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.shelf import quarantine, release
from penstock.components.serving.version_dir import push
from penstock.pipelines import lineage, served
from penstock.pipelines.exports import page
from penstock.pipelines.inputs import LatestBlessed, Served, TrainedOn
from penstock.pipelines.metadata import Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.retention import Policy
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner
from penstock.schemas.artifacts import Examples, Model, ModelBlessing, PushedModel
from penstock.schemas.errors import ComponentFailed, PipelineError
from tests.conftest import Said
from tests.pipelines.histories import NOTHING, deleted, found
from tests.pipelines.toys import Bless, Fit, Make


class Ship(Component):
    """Push a blessed Model for real, as Pusher does, but without loading it."""

    model: Model
    blessing: ModelBlessing | None = None
    serving_dir: Path
    pushed: PushedModel = output()

    def run(self, context: RunContext) -> None:
        version = push(
            self.serving_dir,
            self.model.serving_dir,
            model_uri=self.model.uri,
            run_id=context.run_id,
        )
        self.pushed.properties.update(
            pushed=1,
            pushed_destination=str(version.path),
            pushed_version=str(version.number),
            digest=str(version.digest),
        )


class Ask(Component):
    """Read a Model, or none; write Model number's number."""

    baseline: Model | None = None
    model: Model = output()

    def run(self, context: RunContext) -> None:
        found = "" if self.baseline is None else str(self.baseline.id)
        (self.model.path / "found").write_text(found)


def ship(tmp_path: Path, rows: int) -> RunResult:
    """Train, bless and push a model with bytes of its own."""
    make = Make(rows=rows)
    fit = Fit(examples=make.examples)
    bless = Bless(model=fit.model)
    to = tmp_path / "serving"
    shipped = Ship(model=fit.model, blessing=bless.blessing, serving_dir=to)
    pipeline = Pipeline("p", [make, fit, bless, shipped])
    return run(pipeline, tmp_path, runner=LocalRunner())


def store_of(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'metadata.sqlite'}")


def answer(tmp_path: Path, promise: Model, *, needs: bool = False) -> Model | None:
    """Return what a promise stands for, as a run finds it."""
    ask = Ask(baseline=promise)
    result = run(Pipeline("p", [ask]), tmp_path, runner=LocalRunner())
    number = (result.artifact(ask.model).path / "found").read_text()
    model = store_of(tmp_path).artifact(int(number)) if number else None
    assert model is None or isinstance(model, Model)
    return model


def digest_of(tmp_path: Path, version: int) -> str:
    pushed = lineage.pushed(store_of(tmp_path), tmp_path / "serving", version)
    return lineage.model_behind(store_of(tmp_path), pushed).digest


def to(serving: Path, routing: Routing) -> None:
    with Ledger(serving) as ledger, ledger.writing() as transaction:
        route(transaction, routing, transaction.event("promoted", routing.stable))


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """A serving directory with versions 1 and 2, and the store beside it."""
    for rows in (3, 4):
        ship(tmp_path, rows)
    return tmp_path / "serving"


# --- LatestBlessed


def test_what_was_taken_back_is_no_baseline(tmp_path: Path, serving: Path) -> None:
    def found_digest() -> str | None:
        found = answer(tmp_path, LatestBlessed())
        return None if found is None else found.digest

    first, second = digest_of(tmp_path, 1), digest_of(tmp_path, 2)
    assert found_digest() == second
    with Ledger(serving) as ledger:
        quarantine(ledger, 2, "It loses money.")
        assert found_digest() == first
        with ledger.writing() as transaction:
            transaction.event("rolled back", 1, reason="It is slow.")
        assert found_digest() is None
        release(ledger, 2, "It earns some.")
    assert found_digest() == second
    # Where the serving directory is not, nothing is known of it.
    with Ledger(serving) as ledger:
        quarantine(ledger, 2, "It loses money again.")
    shutil.move(serving, tmp_path / "elsewhere")
    assert found_digest() == second


def test_why_nothing_is_found_says_what_was_taken_back(
    tmp_path: Path, serving: Path
) -> None:
    class Need(Component):
        """Need a Model."""

        model: Model
        out: Model = output()

    with Ledger(serving) as ledger:
        for number in (1, 2):
            quarantine(ledger, number, "It loses money.")
    need = Need(model=LatestBlessed())
    with pytest.raises(ComponentFailed) as raised:
        run(Pipeline("p", [need]), tmp_path, runner=LocalRunner())
    named = re.search(r"Model (\d+) is blessed", str(raised.value))
    assert named is not None
    assert str(raised.value) == (
        "'Need' failed: 'LatestBlessed()' finds nothing for Need.model in pipeline "
        f"'p'. Model {named[1]} is blessed, but was pushed as version 2 of '{serving}'"
        ", which was quarantined: It loses money. Run what writes Model first, or "
        "import it."
    )


def test_a_model_is_taken_back_wherever_it_was_pushed(
    tmp_path: Path, serving: Path
) -> None:
    """Not only where it was pushed last."""
    store = store_of(tmp_path)
    model = lineage.model_behind(store, lineage.pushed(store, serving, 2))
    other = tmp_path / "other"
    make = Make(rows=4)
    fit = Fit(examples=make.examples)
    again = Ship(name="Again", model=fit.model, serving_dir=other)
    run(Pipeline("p", [make, fit, again]), tmp_path, runner=LocalRunner())
    assert len(store.made_of(model, PushedModel, but=())) == 2
    assert served.taken_back(store, model) == ""
    with Ledger(serving) as ledger:
        quarantine(ledger, 2, "It fails.")
    assert served.taken_back(store, model) == (
        f"version 2 of '{serving}', which was quarantined: It fails."
    )


# --- Served


def test_served_is_the_model_behind_the_stable_version(
    tmp_path: Path, serving: Path
) -> None:
    def found_digest() -> str | None:
        found = answer(tmp_path, Served(serving))
        return None if found is None else found.digest

    first, second = digest_of(tmp_path, 1), digest_of(tmp_path, 2)
    # Nothing was rolled out: a model server takes the newest.
    assert found_digest() == second
    (serving / "9").mkdir()  # of another tool
    with Ledger(serving) as ledger:
        quarantine(ledger, 2, "It fails.")
        assert found_digest() == first
        release(ledger, 2, "It does not.")
    to(serving, Routing(stable=1))
    assert found_digest() == first
    to(serving, Routing(stable=2, previous=1))
    assert found_digest() == second


def test_where_nothing_is_served_an_optional_field_gets_none(tmp_path: Path) -> None:
    assert answer(tmp_path, Served(tmp_path / "serving")) is None
    (tmp_path / "serving").mkdir()
    assert answer(tmp_path, Served(tmp_path / "serving")) is None


def test_where_nothing_is_served_a_needed_one_gets_a_sentence(tmp_path: Path) -> None:
    class Need(Component):
        """Need a Model."""

        model: Model
        out: Model = output()

    serving = tmp_path / "serving"
    need = Need(model=Served(serving))

    def said() -> str:
        with pytest.raises(ComponentFailed) as raised:
            run(Pipeline("p", [need]), tmp_path, runner=LocalRunner())
        return str(raised.value)

    text = (
        f"'Need' failed: 'Served('{serving}')' finds nothing for Need.model in "
        "pipeline 'p'. {} Run what writes Model first, or import it."
    )
    assert said() == text.format(f"'{serving}' does not exist.")
    serving.mkdir()
    assert said() == text.format(f"'{serving}' has no version that is served.")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    push(serving, tmp_path / "model")
    assert said().startswith(
        f"'Need' failed: Version 1 of '{serving}' was not pushed by a run of this "
        "lineage store"
    )


class Look(Component):
    """Look at Examples, or at none; write Model numbers' numbers."""

    reference: tuple[Examples, ...] | None = None
    model: Model = output()

    def run(self, context: RunContext) -> None:
        numbers = " ".join(str(each.id) for each in self.reference or ())
        (self.model.path / "found").write_text(numbers)


def trained_on(tmp_path: Path) -> str:
    look = Look(reference=TrainedOn(tmp_path / "serving"))
    result = run(Pipeline("look", [look]), tmp_path, runner=LocalRunner())
    return (result.artifact(look.model).path / "found").read_text()


def test_what_the_served_model_was_trained_on(tmp_path: Path, serving: Path) -> None:
    store = store_of(tmp_path)
    read = [str(each.id) for each in store.artifacts(Examples)]
    assert len(read) == 2
    assert trained_on(tmp_path) == read[1]
    to(serving, Routing(stable=1))
    assert trained_on(tmp_path) == read[0]


def test_before_anything_is_served_nothing_was_trained_on(tmp_path: Path) -> None:
    assert trained_on(tmp_path) == ""


def test_what_was_trained_on_and_is_needed_gets_a_sentence(tmp_path: Path) -> None:
    class Need(Component):
        """Need Examples."""

        reference: tuple[Examples, ...]
        out: Model = output()

    serving = tmp_path / "serving"
    need = Need(reference=TrainedOn(serving))
    with pytest.raises(ComponentFailed) as raised:
        run(Pipeline("p", [need]), tmp_path, runner=LocalRunner())
    assert str(raised.value) == (
        f"'Need' failed: 'TrainedOn('{serving}')' finds nothing for Need.reference in "
        f"pipeline 'p'. '{serving}' does not exist. Run what writes Examples first, or "
        "import it."
    )


def test_served_of_a_url_is_refused_when_it_is_written() -> None:
    with pytest.raises(PipelineError) as raised:
        Served("gs://models/taxi")
    assert str(raised.value).startswith(
        "Serving directory 'gs://models/taxi' is a URL, where a version cannot appear"
    )


# --- the story, and what is kept


def test_lineage_tells_the_story_of_a_version(
    tmp_path: Path, serving: Path, penstock: Callable[..., Said]
) -> None:
    with Ledger(serving) as ledger:
        with ledger.writing() as transaction:
            transaction.event("step", 2, rollout="r", weight=0.05, reasons=[])
            transaction.event("rolled back", 2, rollout="r", reason="[P99] rose.")
        quarantine(ledger, 2, "It is slow.")
    root = ("--root", tmp_path)
    said = penstock("lineage", serving / "2", *root)
    assert (said.code, said.err) == (0, "")
    *_, title, pushed, step, back, aside = said.out.splitlines()
    assert re.split("  +", title.strip()) == [
        *("when", "what was done to the version", "by")
    ]
    assert " pushed by run " in pushed and "a copy of '" in pushed
    assert " answers 5 % of units " in step
    assert " rolled back: [P99] rose. " in back
    assert " quarantined: It is slow. " in aside
    told = penstock("lineage", serving / "2", *root, "--json").json
    assert [each["kind"] for each in told["story"]] == [
        *("pushed", "step", "rolled back", "quarantined")
    ]
    assert told["story"][1]["data"]["weight"] == 0.05
    assert json.dumps(told)
    model = penstock("lineage", lineage_number(tmp_path), *root, "--json").json
    assert model["story"] == []
    export = tmp_path / "lineage.html"
    penstock("lineage", serving / "2", *root, "--export", export)
    assert "rolled back: [P99] rose." in export.read_text("utf-8")
    impact = penstock("impact", "p", "--span", "7", *root)
    assert "not there any more; quarantined: It is slow; rolled back" in impact.out
    listed = penstock("impact", "p", "--span", "7", *root, "--json").json["pushed"]
    assert [each["remark"] for each in listed] == [
        "",
        "quarantined: It is slow; rolled back: [P99] rose",
    ]


def lineage_number(tmp_path: Path) -> str:
    return str(store_of(tmp_path).artifacts(Model)[0].id)


def test_a_page_of_a_version_that_is_elsewhere_has_no_story(
    tmp_path: Path, serving: Path
) -> None:
    store = store_of(tmp_path)
    found = lineage.made(store, serving, 2)
    assert "<h3>Story</h3>" in page.text_of(found)
    shutil.rmtree(serving)
    assert "<h3>Story</h3>" not in page.text_of(found)


def test_housekeeping_keeps_what_is_quarantined_or_stable_and_gone(
    tmp_path: Path,
) -> None:
    from tests.pipelines.histories import History

    history = History(tmp_path / "root")
    serving = tmp_path / "serving"
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").touch()
    made = {}
    for number in (1, 2, 3):
        push(serving, model)
        made[number] = history.model(
            history.run(days_ago=90),
            f"bytes {number}",
            blessed=False,
            serving_dir=serving,
            version=number,
        )["pushed"]
    with Ledger(serving) as ledger:
        quarantine(ledger, 1, "It fails.")
    to(serving, Routing(stable=2))
    for number in (2, 3):
        shutil.rmtree(serving / str(number))
    kept = {
        each.id: kept.reason.text
        for kept in found(history, Policy(runs=0, blessed=0)).kept
        for each in kept.artifacts
    }
    assert kept[made[1]] == f"version 1 of '{serving}' is quarantined: It fails"
    assert kept[made[2]] == f"version 2 of '{serving}' is gone, and it is stable"
    assert made[3] not in kept
    assert made[3] in deleted(history, NOTHING)
