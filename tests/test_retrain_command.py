"""`penstock retrain`: alerts, wishes, decisions, with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.components.monitoring.retraining.journal import Journal
from penstock.pipelines.metadata import Store
from penstock.schemas.artifacts import PushedModel
from tests.components.monitoring.alertmanager_json import alert, notification
from tests.components.monitoring.retrain_served import Served
from tests.conftest import Said

CHECKOUT = Path(__file__).parents[1]

PIPELINE = """
import time
from pathlib import Path
from penstock.pipelines.pipeline import Pipeline
from tests.pipelines.toys import Bless, Fit, Make, Push

def toy(text: str = "row", blessed: bool = True, wait_for: Path | None = None):
    while wait_for is not None and not wait_for.exists():
        time.sleep(0.05)
    make = Make(text=text)
    fit = Fit(examples=make.examples)
    bless = Bless(model=fit.model, blessed=blessed)
    push = Push(model=fit.model, blessing=bless.blessing)
    return Pipeline("toy", [make, fit, bless, push])
"""

Call = Callable[..., Said]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pipeline."""
    (tmp_path / "pipe.py").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    # The processes that are started look for the tests' own components, too.
    monkeypatch.syspath_prepend(str(CHECKOUT))
    return tmp_path


TOY = ("--model", "taxi=pipe.py:toy", "--runner", "local")


def test_a_wish_is_run_and_told(penstock: Call, here: Path) -> None:
    said = penstock("retrain", "now", "taxi", "--reason", "New vendors", *TOY)
    assert said.code == 0, said.out + said.err
    decided, ran = said.out.splitlines()
    assert decided == (
        "decision 1: start. No run of 'taxi' goes on; cool-down and limit allow one."
    )
    assert re.fullmatch(
        r"run [\d.-]+: The candidate earned its blessing and is version 1 of "
        rf"'{here}/serving'\.",
        ran,
    )
    shown = penstock("show", "last")
    assert "Retraining of 'taxi' (by person, decision 1).\nNew vendors.\n" in shown.out
    (pushed,) = Store("sqlite:///penstock-root/metadata.sqlite").artifacts(PushedModel)
    lineage = penstock("lineage", str(pushed.id))
    assert (
        "\nRetrainingDecision 1: Retraining of 'taxi' (by person, decision 1). New "
        "vendors. No run of 'taxi' goes on; cool-down and limit allow one.\n"
    ) in lineage.out


def test_a_candidate_that_is_not_blessed_exits_with_3(penstock: Call) -> None:
    said = penstock(
        *("retrain", "now", "taxi", "--reason", "Try", *TOY),
        *("--param", "blessed=false", "--json"),
    )
    assert said.code == 3
    assert said.json["outcome"] == "not blessed"
    assert said.json["result"].endswith("What is served stays as it was.")


def test_a_wish_within_the_cool_down_exits_with_3_unless_it_is_meant(
    penstock: Call,
) -> None:
    now = ("retrain", "now", "taxi", *TOY)
    assert penstock(*now, "--reason", "One").code == 0
    held = penstock(*now, "--reason", "Two", "--json")
    assert (held.code, held.json["answer"]) == (3, "cool-down")
    meant = penstock(*now, "--reason", "Three", "--anyway", "--json")
    assert (meant.code, meant.json["outcome"]) == (0, "unchanged")
    listed = penstock("retrain", "decisions", "--json")
    assert [each["answer"] for each in listed.json] == ["start", "cool-down", "start"]
    table = penstock("retrain", "decisions", "--model", "taxi", "--last", "2").out
    assert "Two. The last one ended" in table and "One." not in table


def test_a_dry_run_starts_nothing(penstock: Call, here: Path) -> None:
    said = penstock("retrain", "now", "taxi", "--reason", "If", *TOY, "--dry-run")
    assert said.code == 0
    assert said.out == (
        "decision 1: dry run. It would have been started; nothing is, in a dry run.\n"
    )
    assert not (here / "penstock-root" / "metadata.sqlite").exists()


def test_a_pipeline_that_is_not_there_exits_with_1(penstock: Call) -> None:
    said = penstock(
        *("retrain", "now", "taxi", "--reason", "Try", "--model", "taxi=no.py:toy")
    )
    assert said.code == 1
    assert "There was nothing to run. There is no file 'no.py'." in said.out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ["now", "taxy", "--reason", "Try", *TOY],
            1,
            "There is no model 'taxy' to train again (there are 'taxi'). Did you mean "
            "'taxi'? Add it to the models that 'penstock retrain' is given.",
        ),
        (
            ["now", "taxi", "--reason", " ", *TOY],
            1,
            "The reason is empty. It is all that later readers of the lineage will "
            "know: write why.",
        ),
        (
            ["now", "taxi", "--reason", "Try"],
            2,
            "No model is named. Pass --models FILE, or --model NAME=MODULE:PIPELINE.",
        ),
        (
            ["now", "taxi", "--reason", "Try", *TOY, "--models", "m.json"],
            2,
            "It is for models of --model, and 'm.json' says that of its own. Leave "
            "--model and --runner or --models out.",
        ),
        (
            ["now", "taxi", "--reason", "Try", "--model", "taxi"],
            2,
            "'taxi' is not NAME=MODULE:PIPELINE. Write NAME=MODULE:PIPELINE, each "
            "once.",
        ),
        (
            ["now", "a", "--reason", "Try", "--model", "a=x:y", "--model", "a=x:z"],
            2,
            "'a=x:z' is there twice. Write NAME=MODULE:PIPELINE, each once.",
        ),
        (
            [
                *("now", "a", "--reason", "Try", "--model", "a=x:y"),
                *("--model", "b=x:z", "--param", "rows=3"),
            ],
            2,
            "'rows' could be of any of the models. Write NAME.rows=VALUE.",
        ),
        (
            ["decisions", "--state", "none"],
            1,
            "No decision was ever made in '{here}/none'. Name the folder of the "
            "receiver with --state, or its root with --root.",
        ),
    ],
)
def test_what_cannot_be_gets_a_sentence(
    penstock: Call, here: Path, words: list[str], code: int, sentence: str
) -> None:
    said = penstock("retrain", *words)
    assert said.code == code
    text = re.sub(r"[\s│]+", " ", said.err)
    assert sentence.format(here=here) in text


# --- a receiver that is served


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def serve(*options: str) -> Served:
        served = Served(*options)
        served.begin()
        made.append(served)
        return served

    yield serve
    for each in made:
        if each.process.poll() is None:
            each.kill()


def until(look: Callable[[], Any], what: str) -> Any:
    """Look until something is there."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"Waited in vain for {what}.")


def test_an_alert_comes_to_one_run_though_the_receiver_is_killed_and_begun_again(
    serve: Callable[..., Served], here: Path
) -> None:
    go = here / "go"
    served = serve(*TOY, "--param", f"wait_for={go}", "--cool-down", "0s")
    (decision,) = served.post(notification())["decisions"]
    journal = Journal(here / "penstock-root" / ".penstock" / "retraining")
    log = journal.folder / "logs" / f"{decision['run']}.log"
    until(log.exists, "the process of the run")
    # The process that was started goes on without it.
    served.kill()
    served.begin()
    (again,) = served.post(notification())["decisions"]
    assert (again["decision"], again["repeat"]) == (1, True)
    assert served.post(notification(alert(status="resolved")))["decisions"] == []
    served.kill()
    go.touch()
    served.begin()
    until(lambda: journal.decision(1).outcome, "the outcome")
    served.post(notification())
    assert "penstock_model_retrain_triggered_total" in served.get("/metrics")
    assert json.loads(served.get("/healthz"))["going_on"] == []
    (done,) = journal.decisions()
    assert (done.outcome, done.notices) == ("pushed", 3)
    store = Store("sqlite:///penstock-root/metadata.sqlite")
    assert [each.id for each in store.runs()] == [decision["run"]]
    assert len(store.artifacts(PushedModel)) == 1


def test_a_training_that_is_killed_is_begun_by_another_process_if_nothing_ran(
    serve: Callable[..., Served], here: Path
) -> None:
    go = here / "go"
    served = serve(*TOY, "--param", f"wait_for={go}")
    served.post(notification())
    journal = Journal(here / "penstock-root" / ".penstock" / "retraining")
    first = until(lambda: _child(journal), "the process of the run")
    os.kill(first, signal.SIGKILL)
    go.touch()
    done = until(lambda: (each := journal.decision(1)).outcome and each, "the outcome")
    assert (done.outcome, done.attempts) == ("pushed", 2)
    store = Store("sqlite:///penstock-root/metadata.sqlite")
    assert [each.id for each in store.runs()] == [done.run_id]


def _child(journal: Journal) -> int | None:
    """Return the process that was started for decision 1, once it is there."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(journal.folder).encode() in words:
                return int(folder.name)
    return None


def test_an_unknown_model_gets_404_and_a_sentence(
    serve: Callable[..., Served],
) -> None:
    served = serve(*TOY)
    with pytest.raises(urllib.error.HTTPError) as raised:
        served.post(notification(alert(model="taxy")))
    with raised.value as answer:
        assert answer.code == 404
        assert "There is no model 'taxy'" in json.loads(answer.read())["error"]


def test_sigterm_ends_a_receiver_and_leaves_its_run_alone(
    serve: Callable[..., Served], here: Path
) -> None:
    go = here / "go"
    served = serve(*TOY, "--param", f"wait_for={go}")
    served.post(notification())
    journal = Journal(here / "penstock-root" / ".penstock" / "retraining")
    until(lambda: _child(journal), "the process of the run")
    served.process.terminate()
    served.process.communicate(timeout=60)
    assert served.process.returncode == 0
    go.touch()
    done = until(lambda: (each := journal.decision(1)).outcome and each, "the outcome")
    assert (done.outcome, done.attempts) == ("pushed", 1)
