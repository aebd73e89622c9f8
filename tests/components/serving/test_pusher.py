"""Pusher with real SavedModels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import Canceled, RunContext
from penstock.components.serving import load_check
from penstock.components.serving.ledger import Ledger
from penstock.components.serving.pusher import Pusher
from penstock.components.serving.routing import Routing, route
from penstock.components.serving.shelf import quarantine, release
from penstock.components.serving.standing import standings
from penstock.components.serving.version_dir import push, verify, versions
from penstock.schemas.artifacts import Model, ModelBlessing, PushedModel
from penstock.schemas.digests import folder_digest, folder_manifest
from penstock.schemas.errors import DataError, PipelineError, ServingError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model artifact's folder: y = 3 x, with a serving signature."""
    return _save(tmp_path_factory.mktemp("saved") / "model", with_signature=True)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model artifact's folder: no signature."""
    return _save(tmp_path_factory.mktemp("unsigned") / "model", with_signature=False)


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    return Model(folder, digest=folder_digest(folder))


def _save(folder: Path, *, with_signature: bool) -> Path:
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(3.0)

    def triple(x: Any) -> dict[str, Any]:
        return {"y": x * module.factor}

    if with_signature:  # A lone function becomes the signature by itself.
        module.triple = tf.function(
            triple, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
        )
    tf.saved_model.save(module, str(folder / "Format-Serving"))
    return folder


def run(pusher: Pusher, folder: Path, context: RunContext | None = None) -> PushedModel:
    live = pusher.with_outputs(folder / "outputs")
    live.run(context or RunContext.local(folder / "temp"))
    return live.pushed_model


def known_to_load(model: Model, serving: Path) -> None:
    """Say that the model was loaded before, so that no process is started."""
    sha256 = folder_digest(model.serving_dir).partition(":")[2]
    checked = serving / ".penstock" / "checked"
    checked.mkdir(parents=True)
    (checked / f"{sha256}.json").write_text('{"signatures": ["serving_default"]}')


def test_a_pushed_model_answers_and_says_what_it_became(
    model: Model, tmp_path: Path
) -> None:
    import tensorflow as tf

    serving = tmp_path / "serving"
    digest = folder_digest(model.serving_dir)
    pushed = run(Pusher(model=model, serving_dir=serving), tmp_path)
    assert pushed.properties == {
        "pushed": 1,
        "pushed_destination": str(serving / "1"),
        "pushed_version": "1",
        "digest": digest,
    }
    assert folder_digest(pushed.path) == digest == folder_digest(serving / "1")
    served = tf.saved_model.load(str(serving / "1")).signatures["serving_default"]
    assert served(x=tf.constant([2.0]))["y"].numpy().tolist() == [6.0]
    (version,) = versions(serving)
    assert (version.digest, version.model_uri) == (digest, model.uri)
    assert version.run_id == "local"
    assert verify(serving, 1) == ()
    manifest = json.loads((serving / ".penstock/manifests/1.json").read_text())
    assert manifest["checked"] == {
        "signatures": ["serving_default"],
        "tensorflow": tf.__version__,
    }


def test_the_archive_shares_no_bytes_with_the_served_files(
    model: Model, tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    known_to_load(model, serving)
    pushed = run(Pusher(model=model, serving_dir=serving), tmp_path)
    before = folder_manifest(pushed.path)
    for folder in (serving / "1", model.serving_dir):
        (folder / "saved_model.pb").write_bytes(b"overwritten in place")
    assert folder_manifest(pushed.path) == before


def test_a_model_is_loaded_once_for_the_same_bytes(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def loaded(copy: Path, subject: str, *_: Any) -> Mapping[str, Any]:
        loads.append((copy.name, subject))
        return {"signatures": ["serving_default"]}

    monkeypatch.setattr("penstock.components.serving.pusher.check_loads", loaded)
    pusher = Pusher(model=model, serving_dir=tmp_path / "serving")
    numbers = [
        run(pusher, tmp_path / str(turn)).properties["pushed_version"]
        for turn in range(3)
    ]
    assert numbers == ["1", "2", "3"]
    assert loads == [("model", f"Model '{model.uri}'")]


def test_a_serving_directory_may_be_given_as_text_and_relative(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known_to_load(model, tmp_path / "serving")
    pushed = run(Pusher(model=model, serving_dir="serving"), tmp_path)
    assert pushed.properties["pushed_destination"] == str(tmp_path / "serving" / "1")


@pytest.mark.parametrize("url", ["gs://bucket/models", Path("gs://bucket/models")])
def test_a_url_is_refused_when_the_pusher_is_made(
    model: Model, url: str | Path
) -> None:
    with pytest.raises(PipelineError) as raised:
        Pusher(model=model, serving_dir=url)
    assert str(raised.value) == (
        f"Serving directory '{url}' is a URL, where a version cannot appear at once: "
        "that needs the rename and the locks of a POSIX file system. Pass a folder of "
        "this machine or of a mounted file system."
    )


def test_a_model_that_changed_since_it_was_made_is_refused(
    model: Model, tmp_path: Path
) -> None:
    recorded = model.digest
    (model.serving_dir / "extra").touch()
    found = folder_digest(model.path)
    with pytest.raises(DataError) as raised:
        run(Pusher(model=model, serving_dir=tmp_path / "serving"), tmp_path)
    assert str(raised.value) == (
        f"Model '{model.uri}' has the digest '{found}' where '{recorded}' was recorded "
        "when it was made: something wrote to it since. Train it again."
    )
    assert not (tmp_path / "serving").exists()


def test_a_model_without_a_saved_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    pusher = Pusher(model=Model(tmp_path / "model"), serving_dir=tmp_path / "serving")
    with pytest.raises(DataError) as raised:
        run(pusher, tmp_path)
    assert str(raised.value) == (
        f"Model '{tmp_path}/model' has no SavedModel in 'Format-Serving/', where "
        "Trainer writes it. Put it there, or train it again."
    )


def refused(model: Model, tmp_path: Path) -> str:
    serving = tmp_path / "serving"
    with pytest.raises(DataError) as raised:
        run(Pusher(model=model, serving_dir=serving), tmp_path)
    assert versions(serving) == ()
    assert os.listdir(serving / ".penstock" / "staging") == []
    return str(raised.value)


def test_a_model_without_variables_is_refused(saved: Path, tmp_path: Path) -> None:
    # TensorFlow Serving may load such a version, and then fail every request.
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / "Format-Serving" / "variables")
    text = refused(Model(folder), tmp_path)
    assert text.startswith(f"Model '{folder}' cannot be loaded: ")
    assert "variables" in text
    assert ".penstock" not in text
    assert text.endswith("Train it again, or export it anew.")


def test_a_model_without_a_signature_is_refused(unsigned: Path, tmp_path: Path) -> None:
    assert refused(Model(unsigned), tmp_path) == (
        f"Model '{unsigned}' has no signature, so a model server cannot answer with "
        'it. Save it with signatures={"serving_default": ...}, or with model.export.'
    )


# --- what happened to a version since it was pushed


@pytest.fixture
def stale(model: Model, tmp_path: Path) -> Any:
    """Push the model as version 1; return what says why that does not stand."""
    known_to_load(model, tmp_path / "serving")
    live = Pusher(model=model, serving_dir=tmp_path / "serving").with_outputs(
        tmp_path / "outputs"
    )
    live.run(RunContext.local(tmp_path / "temp"))
    return live.why_stale


def test_a_version_stands_while_it_is_the_newest(stale: Any, tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    assert stale() == ""
    push(serving, tmp_path / "outputs" / "pushed_model")
    assert stale() == "version 2 was pushed after version 1"
    with Ledger(serving) as ledger:
        quarantine(ledger, 2, "It fails.")
        assert stale() == ""
        release(ledger, 2, "It does not.")
        assert stale() != ""
        with ledger.writing() as transaction:
            transaction.event("rolled back", 2, reason="It is slow.")
    assert stale() == ""


def test_a_version_stands_while_it_is_stable(stale: Any, tmp_path: Path) -> None:
    push(tmp_path / "serving", tmp_path / "outputs" / "pushed_model")
    with Ledger(tmp_path / "serving") as ledger, ledger.writing() as transaction:
        event = transaction.event("promoted", 1)
        route(transaction, Routing(stable=1), event)
    assert stale() == ""


def test_a_version_that_is_gone_or_changed_does_not_stand(
    stale: Any, tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    (serving / "1" / "more").touch()
    assert stale() == (
        "version 1 is not as it was pushed: 'more' is not in the manifest."
    )
    shutil.rmtree(serving / "1")
    assert stale() == f"version 1 is no longer in '{serving}'"
    shutil.rmtree(serving)
    assert stale().startswith("version 1 cannot be looked at: Serving directory ")


def test_what_was_taken_back_is_not_pushed_again(
    model: Model, stale: Any, tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    with Ledger(serving) as ledger:
        quarantine(ledger, 1, "It loses money.")
    # An unchanged pipeline takes the push of before, and says nothing new.
    assert stale() == ""
    with pytest.raises(ServingError) as raised:
        run(Pusher(model=model, serving_dir=serving), tmp_path / "again")
    assert str(raised.value) == (
        f"Model '{model.uri}' was pushed before, as version 1, which was quarantined: "
        "It loses money. Train another, or take that back first: penstock quarantine "
        "DIR VERSION --release --reason TEXT."
    )
    with Ledger(serving) as ledger:
        release(ledger, 1, "It earns some.")
    pushed = run(Pusher(model=model, serving_dir=serving), tmp_path / "more")
    assert pushed.properties["pushed_version"] == "2"


def test_the_ledger_knows_the_blessing_of_a_version(
    model: Model, tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    known_to_load(model, serving)
    (tmp_path / "blessing").mkdir()
    blessing = ModelBlessing(tmp_path / "blessing")
    run(Pusher(model=model, blessing=blessing, serving_dir=serving), tmp_path)
    with Ledger(serving) as ledger:
        assert standings(ledger)[1].blessing == str(tmp_path / "blessing")


# --- the process that loads


def as_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script in the place of the Python that loads."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def load(tmp_path: Path, progress: Any = lambda: None) -> dict[str, Any]:
    return load_check.check_loads(tmp_path, "Model 'm'", tmp_path, progress)


def test_a_process_killed_for_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_python(tmp_path, monkeypatch, "kill -KILL $$")
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    assert str(raised.value) == (
        "Model 'm' cannot be loaded: the process that tried was ended by SIGKILL, as "
        "the system does when memory runs out. Load it with tf.saved_model.load to see "
        "why."
    )


def test_a_process_that_crashes_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_python(tmp_path, monkeypatch, "echo Bad kernel >&2; kill -SEGV $$")
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    assert str(raised.value) == (
        "Model 'm' cannot be loaded: the process that tried was ended by SIGSEGV. It "
        "said: 'Bad kernel'. Load it with tf.saved_model.load to see why."
    )


def test_a_process_that_gives_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_python(tmp_path, monkeypatch, "echo No module named tensorflow; exit 1")
    with pytest.raises(DataError, match=r"exited with code 1\. It said: 'No module"):
        load(tmp_path)


def test_an_answer_of_an_earlier_process_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "load-check.json").write_text('{"signatures": ["serving_default"]}')
    as_python(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(DataError, match="cannot be loaded"):
        load(tmp_path)


def test_a_canceled_push_kills_the_process(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = tmp_path / "serving"
    started = tmp_path / "pid"
    as_python(tmp_path, monkeypatch, f"echo $$ > {started}; exec sleep 600")

    def cancel(_: int) -> None:
        if started.exists() and started.read_text():
            raise Canceled

    context = RunContext(run_id="r", temp_dir=tmp_path, on_progress=cancel)
    with pytest.raises(Canceled):
        run(Pusher(model=model, serving_dir=serving), tmp_path, context)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), signal.SIG_DFL)
    assert versions(serving) == ()
    assert os.listdir(serving / ".penstock" / "staging") == []
