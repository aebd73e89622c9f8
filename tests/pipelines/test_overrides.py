"""Forced blessings and the block-list: what is recorded, and what then happens."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.pipelines import overrides
from penstock.pipelines.inputs import Import, LatestBlessed
from penstock.pipelines.metadata import RunState, State, Store
from penstock.pipelines.pipeline import Pipeline
from penstock.pipelines.run import RunResult, run
from penstock.pipelines.runners import LocalRunner, Runner
from penstock.schemas.artifacts import Answer, Model, ModelBlessing
from penstock.schemas.digests import folder_digest
from penstock.schemas.errors import (
    DataError,
    MetadataError,
    PenstockError,
    PipelineError,
)
from tests.pipelines.toys import Bless, Fit, Make, Push

Act = Callable[[Store, Path, Model, str], ModelBlessing]


def pipeline(rows: int, *, blessed: bool, name: str = "p") -> Pipeline:
    """Fit, bless or not, and push where the blessing allows it."""
    make = Make(rows=rows)
    fit = Fit(examples=make.examples)
    bless = Bless(model=fit.model, blessed=blessed)
    push = Push(model=fit.model, blessing=bless.blessing)
    return Pipeline(name, [make, fit, bless, push])


def judged(root: Path, rows: int, *, blessed: bool, name: str = "p") -> Model:
    """Run that pipeline; return its model."""
    made = pipeline(rows, blessed=blessed, name=name)
    result = run(made, root, runner=LocalRunner(), force=["Fit", "Bless"])
    number = result["Fit"].outputs["model"].id
    assert number is not None
    model = store_of(root).artifact(number)
    assert isinstance(model, Model)
    return model


def store_of(root: Path) -> Store:
    return Store(f"sqlite:///{root / 'metadata.sqlite'}")


def baseline(root: Path, *, rows: int = 99, name: str = "p") -> int | None:
    """Return the number of what LatestBlessed is for a new candidate."""
    make = Make(rows=rows)
    fit = Fit(examples=make.examples)
    ask = Fit(name="ask", examples=make.examples, baseline=LatestBlessed())
    result = run(Pipeline(name, [make, fit, ask]), root, runner=LocalRunner())
    found = result["ask"].inputs.get("baseline", ())
    return found[0].id if found else None


# Force ---------------------------------------------------------------------------


def test_a_forced_blessing_keeps_the_verdict_and_says_why(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=False)
    store = store_of(tmp_path)
    assert baseline(tmp_path) is None
    blessing = overrides.force(store, tmp_path, model, " labels were\nlate ")
    assert blessing.id is not None
    recorded = store.artifact(blessing.id)
    assert isinstance(recorded, ModelBlessing)
    assert recorded.answer is Answer.YES
    expected = {
        "blessed": 1,
        "verdict": "NOT_BLESSED",
        "forced": 1,
        "forced_reason": "labels were late.",
        "current_model": model.uri,
        "current_model_id": model.id,
        "component_id": "penstock bless",
    }
    assert expected.items() <= recorded.properties.items()
    assert recorded.reasons == (
        "Blessed by force: labels were late.",
        "auc is 0.4, under 0.5.",
    )
    assert recorded.reasons_against == ()
    assert [each.name for each in recorded.path.iterdir()] == ["BLESSED"]
    assert recorded.digest == folder_digest(recorded.path)
    assert recorded.path.parent == tmp_path / "p" / "penstock.Bless" / "blessing"
    assert baseline(tmp_path) == model.id


def test_a_forced_blessing_is_an_execution_of_the_models_pipeline(
    tmp_path: Path,
) -> None:
    model = judged(tmp_path, 3, blessed=False)
    judged(tmp_path, 4, blessed=True, name="other")
    store = store_of(tmp_path)
    blessing = overrides.force(store, tmp_path, model, "why not")
    (record,) = store.executions_of_type("penstock.Bless")
    assert (record.component, record.pipeline, record.run_id) == (
        *("penstock bless", "p", ""),
    )
    assert (record.state, record.reason) == (State.COMPLETE, "why not.")
    assert [each.id for each in record.inputs["model"]] == [model.id]
    assert [each.id for each in record.outputs["blessing"]] == [blessing.id]
    assert record.properties["penstock_action"] == "force"
    assert record.properties["penstock_model_digest"] == model.digest
    listed = [each.id for each in store.artifacts(ModelBlessing, pipeline="p")]
    assert blessing.id in listed
    assert baseline(tmp_path, name="other") not in (None, model.id)


def test_the_verdict_of_a_component_of_ours_is_kept_as_it_is(tmp_path: Path) -> None:
    class Unsure(Bless):
        """Give no clear verdict."""

        def run(self, context: Any) -> None:
            super().run(context)
            self.blessing.properties["verdict"] = "INCONCLUSIVE"

    make = Make()
    fit = Fit(examples=make.examples)
    bless = Unsure(model=fit.model, blessed=False)
    result = run(Pipeline("p", [make, fit, bless]), tmp_path, runner=LocalRunner())
    model = result.artifact(fit.model)
    blessing = overrides.force(store_of(tmp_path), tmp_path, model, "enough")
    assert blessing.properties["verdict"] == "INCONCLUSIVE"
    assert blessing.answer is Answer.YES


def test_a_model_that_was_never_evaluated_has_no_verdict(tmp_path: Path) -> None:
    make = Make()
    fit = Fit(examples=make.examples)
    result = run(Pipeline("p", [make, fit]), tmp_path, runner=LocalRunner())
    model = result.artifact(fit.model)
    blessing = overrides.force(store_of(tmp_path), tmp_path, model, "the first")
    assert "verdict" not in blessing.properties
    assert blessing.reasons == ("Blessed by force: the first.",)
    assert baseline(tmp_path) == model.id


def test_an_imported_model_belongs_to_the_pipelines_that_read_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "model").write_text("weights")
    push = Push(model=Import(tmp_path / "imported", Model))
    run(Pipeline("push", [push]), tmp_path, runner=LocalRunner())
    store = store_of(tmp_path)
    (model,) = store.artifacts(Model)
    assert isinstance(model, Model)
    blessing = overrides.force(store, tmp_path, model, "trusted")
    assert blessing.path.is_relative_to(tmp_path / "push")
    assert baseline(tmp_path, name="push") == model.id


def test_a_forced_model_is_pushed_by_a_pipeline_that_takes_the_latest_blessed(
    tmp_path: Path,
) -> None:
    model = judged(tmp_path, 3, blessed=False)
    overrides.force(store_of(tmp_path), tmp_path, model, "labels were late")
    push = Push(model=LatestBlessed())
    result = run(Pipeline("p", [push]), tmp_path, runner=LocalRunner())
    assert result.state is RunState.COMPLETE
    assert [each.id for each in result["Push"].inputs["model"]] == [model.id]


# Block ---------------------------------------------------------------------------


def test_a_blocked_model_is_never_the_latest_blessed(tmp_path: Path) -> None:
    first = judged(tmp_path, 3, blessed=True)
    second = judged(tmp_path, 4, blessed=True)
    store = store_of(tmp_path)
    assert baseline(tmp_path) == second.id
    blessing = overrides.block(store, tmp_path, second, "loses money")
    assert blessing.answer is Answer.NO
    assert [each.name for each in blessing.path.iterdir()] == ["NOT_BLESSED"]
    expected = {
        "blessed": 0,
        "verdict": "NOT_BLESSED",
        "blocked": 1,
        "blocked_reason": "loses money.",
        "current_model_id": second.id,
    }
    assert expected.items() <= blessing.properties.items()
    assert blessing.reasons_against == ("On the block-list: loses money.",)
    assert baseline(tmp_path) == first.id
    overrides.block(store, tmp_path, first, "too old")
    assert baseline(tmp_path) is None
    freed = overrides.unblock(store, tmp_path, second, "it earns money")
    assert freed.answer is Answer.YES
    assert [each.name for each in freed.path.iterdir()] == ["BLESSED"]
    assert freed.properties["blocked"] == 0
    assert freed.reasons == ("Off the block-list: it earns money.",)
    assert baseline(tmp_path) == second.id


def test_the_same_bytes_are_blocked_in_every_pipeline(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=True)
    overrides.block(store_of(tmp_path), tmp_path, model, "loses money")
    again = judged(tmp_path, 3, blessed=True, name="other")
    assert again.id != model.id
    assert again.digest == model.digest
    assert baseline(tmp_path) is None
    assert baseline(tmp_path, name="other") is None


def test_a_blessing_of_a_blocked_model_opens_no_gate(
    tmp_path: Path, runner: Runner
) -> None:
    model = judged(tmp_path, 3, blessed=True)
    overrides.block(store_of(tmp_path), tmp_path, model, "loses money")
    made = pipeline(3, blessed=True)
    result = run(made, tmp_path, runner=runner, force=["Fit", "Bless"])
    again = result["Fit"].outputs["model"]
    assert result["Bless"].state is State.COMPLETE
    assert (result.state, result.answer) == (RunState.STOPPED, Answer.NO)
    assert result["Push"].state is State.SKIPPED
    assert result["Push"].reason == (
        f"'Bless.blessing' says yes, but Model {again.id} has the bytes of Model "
        f"{model.id}, which is on the block-list: loses money."
    )
    stored = {
        each.component: each for each in store_of(tmp_path).executions(result.run_id)
    }
    assert stored["Push"].state is State.SKIPPED
    assert stored["Push"].reason == result["Push"].reason
    other = run(pipeline(4, blessed=True), tmp_path, runner=runner)
    assert other.state is RunState.COMPLETE
    overrides.unblock(store_of(tmp_path), tmp_path, model, "it earns money")
    assert run(pipeline(3, blessed=True), tmp_path, runner=runner)["Push"].outputs


def test_a_no_is_told_before_the_block_list(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=True)
    overrides.block(store_of(tmp_path), tmp_path, model, "loses money")
    result = run(pipeline(3, blessed=False), tmp_path, runner=LocalRunner())
    assert result["Push"].reason == ("'Bless.blessing' says no: auc is 0.4, under 0.5.")


def pushed_with(root: Path, model: Model, blessing: ModelBlessing) -> RunResult:
    """Run a push of a model gated by a blessing, both from before."""
    return run(
        Pipeline("p", [Push(model=model, blessing=blessing)]),
        root,
        runner=LocalRunner(),
    )


def test_an_earlier_blessing_opens_no_gate_either(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=True)
    store = store_of(tmp_path)
    (blessing,) = store.artifacts(ModelBlessing)
    assert isinstance(blessing, ModelBlessing)
    overrides.block(store, tmp_path, model, "loses money")
    result = pushed_with(tmp_path, model, blessing)
    assert result["Push"].reason == (
        f"'{blessing.uri}' says yes, but Model {model.id} is on the block-list: loses "
        "money."
    )


@pytest.mark.parametrize("number", [None, 1, 999_999])
def test_a_blessing_that_does_not_say_of_which_model_is_of_what_is_read(
    tmp_path: Path, number: int | None
) -> None:
    """It may come from another store, whose numbers mean something else here."""
    model = judged(tmp_path, 3, blessed=True)
    overrides.block(store_of(tmp_path), tmp_path, model, "loses money")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    said: dict[str, Any] = {"blessed": 1, "current_model": "/another/model"}
    if number is not None:
        said["current_model_id"] = number
    copy = tmp_path / "copy"
    shutil.copytree(model.path, copy)
    result = pushed_with(tmp_path, Model(copy), ModelBlessing(folder, properties=said))
    assert result["Push"].reason == (
        f"'{folder}' says yes, but '{copy}' has the bytes of Model {model.id}, which "
        "is on the block-list: loses money."
    )


def test_the_numbers_of_another_store_are_not_taken_for_ours(tmp_path: Path) -> None:
    blocked = judged(tmp_path, 3, blessed=True)
    good = judged(tmp_path, 4, blessed=True)
    overrides.block(store_of(tmp_path), tmp_path, blocked, "loses money")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    said: dict[str, Any] = {
        "blessed": 1,
        "current_model": "/another/model",
        "current_model_id": blocked.id,
    }
    result = pushed_with(tmp_path, good, ModelBlessing(folder, properties=said))
    assert result.state is RunState.COMPLETE


def test_a_forced_blessing_stands_when_the_model_is_unblocked(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=False)
    store = store_of(tmp_path)
    overrides.force(store, tmp_path, model, "labels were late")
    overrides.block(store, tmp_path, model, "loses money")
    freed = overrides.unblock(store, tmp_path, model, "it earns money")
    expected = {
        "blessed": 1,
        "verdict": "NOT_BLESSED",
        "forced": 1,
        "forced_reason": "labels were late.",
        "blocked": 0,
        "unblocked_reason": "it earns money.",
    }
    assert expected.items() <= freed.properties.items()
    assert freed.reasons == (
        "Blessed by force: labels were late.",
        "auc is 0.4, under 0.5.",
        "Off the block-list: it earns money.",
    )


def test_a_model_that_was_not_blessed_is_not_when_it_is_unblocked(
    tmp_path: Path,
) -> None:
    model = judged(tmp_path, 3, blessed=False)
    store = store_of(tmp_path)
    for _ in range(2):
        overrides.block(store, tmp_path, model, "loses money")
        freed = overrides.unblock(store, tmp_path, model, "it earns money")
        assert (freed.answer, freed.properties["verdict"]) == (
            *(Answer.NO, "NOT_BLESSED"),
        )
        assert freed.reasons_against == ("auc is 0.4, under 0.5.",)
        assert [each.name for each in freed.path.iterdir()] == ["NOT_BLESSED"]
    assert baseline(tmp_path) is None


def test_a_model_of_tfx_is_blocked_by_its_number(tmp_path: Path) -> None:
    """TFX records no digest; the bytes are read when it is blocked."""
    model = judged(tmp_path, 3, blessed=True)
    undigested = Model(model.uri, id=model.id)
    store = store_of(tmp_path)
    overrides.block(store, tmp_path, undigested, "loses money")
    done = overrides.overrides(store)
    assert [each.digest for each in done] == [model.digest]
    blocked = overrides.BlockList(done)
    assert blocked.entry(undigested) is blocked.entry(model) is done[0]
    assert blocked.entry(Model("/x", id=12345)) is None


# What is refused -----------------------------------------------------------------


@pytest.mark.parametrize("act", [overrides.force, overrides.block])
def test_a_reason_is_wanted(tmp_path: Path, act: Act) -> None:
    model = judged(tmp_path, 3, blessed=False)
    with pytest.raises(PipelineError) as raised:
        act(store_of(tmp_path), tmp_path, model, " \n ")
    assert str(raised.value) == (
        "The reason is empty. It is all that later readers of the lineage will know: "
        "write why."
    )


def refused(kind: type[PenstockError], act: Act, root: Path, model: Model) -> str:
    before = sorted(root.rglob("*"))
    with pytest.raises(kind) as raised:
        act(store_of(root), root, model, "because")
    assert sorted(root.rglob("*")) == before
    return str(raised.value)


def test_what_is_so_already_is_not_recorded_again(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=True)
    store = store_of(tmp_path)
    (blessing,) = store.artifacts(ModelBlessing)
    assert refused(MetadataError, overrides.force, tmp_path, model) == (
        f"Model {model.id} is blessed already, by ModelBlessing {blessing.id}. There "
        "is nothing to force."
    )
    assert refused(MetadataError, overrides.unblock, tmp_path, model) == (
        f"Model {model.id} is not on the block-list, so it cannot be taken off it. "
        "'penstock artifacts --type Model' says which models are."
    )
    overrides.block(store, tmp_path, model, "loses money")
    assert refused(MetadataError, overrides.block, tmp_path, model) == (
        f"Model {model.id} is on the block-list already: loses money."
    )
    assert refused(MetadataError, overrides.force, tmp_path, model) == (
        f"Model {model.id} is on the block-list: loses money. Take it off with "
        f"'penstock bless {model.id} --unblock --reason ...' first."
    )
    again = judged(tmp_path, 3, blessed=False)
    assert refused(MetadataError, overrides.block, tmp_path, again) == (
        f"Model {again.id} has the bytes of Model {model.id}, which is on the "
        "block-list already: loses money."
    )


def test_a_model_whose_bytes_are_not_there_is_not_blessed(tmp_path: Path) -> None:
    model = judged(tmp_path, 3, blessed=False)
    recorded = model.digest
    (model.path / "Format-Serving" / "saved_model.pb").write_text("other")
    found = folder_digest(model.path)
    assert refused(DataError, overrides.force, tmp_path, model) == (
        f"Model '{model.uri}' has the digest '{found}' where '{recorded}' was "
        "recorded when it was made: something wrote to it since. Train it again."
    )
    shutil.rmtree(model.path)
    assert refused(DataError, overrides.force, tmp_path, model) == (
        f"Model {model.id} is not at '{model.uri}' any more. It was moved or deleted: "
        "train it again."
    )
    # Its bytes may come again.
    overrides.block(store_of(tmp_path), tmp_path, model, "loses money")
    assert not run(pipeline(3, blessed=True), tmp_path, runner=LocalRunner())[
        "Push"
    ].outputs


# Crashes -------------------------------------------------------------------------


def folders(root: Path) -> list[str]:
    """What lies where blessings are put."""
    return [each.name for each in (root / "p/penstock.Bless/blessing").glob("*")]


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = judged(tmp_path, 3, blessed=False)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        with pytest.raises(DataError) as raised:
            overrides.force(store_of(tmp_path), tmp_path, model, "because")
    place = tmp_path / "p" / "penstock.Bless" / "blessing"
    assert str(raised.value) == (
        f"The blessing of Model {model.id} cannot be written to '{place}': No space "
        "left on device. Nothing is recorded; mend it and say it again."
    )
    assert folders(tmp_path) == []
    assert overrides.overrides(store_of(tmp_path)) == []


def test_a_store_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = judged(tmp_path, 3, blessed=False)

    def broken(*_: Any, **__: Any) -> None:
        raise MetadataError("The store is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "record_execution", broken)
        with pytest.raises(MetadataError, match="The store is gone"):
            overrides.force(store_of(tmp_path), tmp_path, model, "because")
    assert folders(tmp_path) == []
    assert overrides.force(store_of(tmp_path), tmp_path, model, "because").id


# Kills itself before or after one of the steps of a forced blessing.
CHILD = """
import os, signal, sys
from pathlib import Path
from penstock.pipelines import overrides
from penstock.pipelines.metadata import Store

root, number, kill_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
points = 0

def reached():
    global points
    points += 1
    if points == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def hooked(owner, name):
    original = getattr(owner, name)
    def call(*args, **kwargs):
        reached()
        result = original(*args, **kwargs)
        reached()
        return result
    setattr(owner, name, call)

hooked(os, "rename")
hooked(Store, "record_execution")
store = Store(f"sqlite:///{root / 'metadata.sqlite'}")
overrides.force(store, root, store.artifact(number), "because")
"""


@pytest.mark.parametrize("kill_at", [1, 2, 3, 4])
def test_a_blessing_that_is_killed_is_recorded_whole_or_not_at_all(
    tmp_path: Path, kill_at: int
) -> None:
    model = judged(tmp_path, 3, blessed=False)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path, str(model.id), str(kill_at)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == -signal.SIGKILL
    store = store_of(tmp_path)
    recorded = overrides.overrides(store)
    assert len(recorded) == (1 if kill_at == 4 else 0)
    assert baseline(tmp_path) == (model.id if recorded else None)
    for each in recorded:
        assert each.blessing.digest == folder_digest(each.blessing.path)
    if not recorded:
        assert overrides.force(store, tmp_path, model, "because").id


# Remarks -------------------------------------------------------------------------


def test_remarks_say_what_counts_of_models_and_what_blessings_record(
    tmp_path: Path,
) -> None:
    model = judged(tmp_path, 3, blessed=False)
    store = store_of(tmp_path)

    def remarks(artifact: Any) -> dict[str, str]:
        return overrides.Remarks(overrides.overrides(store)).of(artifact)

    assert remarks(model) == {}
    forced = overrides.force(store, tmp_path, model, "labels were late")
    assert remarks(model) == remarks(forced) == {"forced": "labels were late."}
    blocked = overrides.block(store, tmp_path, model, "loses money")
    assert remarks(blocked) == {"blocked": "loses money."}
    both = {"blocked": "loses money.", "forced": "labels were late."}
    assert remarks(model) == both
    assert list(remarks(model)) == ["blocked", "forced"]
    freed = overrides.unblock(store, tmp_path, model, "it earns money")
    assert remarks(model) == {"forced": "labels were late."}
    assert remarks(freed) == {
        "forced": "labels were late.",
        "unblocked": "it earns money.",
    }
    assert remarks(store.artifacts("Examples")[0]) == {}
