"""InfraValidator on real models and rows, and what Pusher makes of its verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components.base import RunContext
from penstock.components.columns import tfrecord
from penstock.components.serving import fresh_process, infra_check, warmup
from penstock.components.serving.fresh_process import Ended, Stage
from penstock.components.serving.infra_validator import InfraValidator
from penstock.components.serving.parity import Parity
from penstock.components.serving.pusher import Pusher
from penstock.components.serving.version_dir import verify, versions
from penstock.schemas.artifacts import (
    WARMUP_FILE,
    Answer,
    Examples,
    InfraBlessing,
    Model,
    PushedModel,
    Schema,
)
from penstock.schemas.digests import folder_digest, folder_manifest
from penstock.schemas.errors import DataError, PipelineError
from tests.components.serving import served_models as models
from tests.components.serving.served_models import ROWS


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    models.good(folder / "Format-Serving")
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    return Model(folder, digest=folder_digest(folder))


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Rows of both splits in Parquet files; the train split has twice as many."""
    folder = tmp_path / "examples"
    for split, times in (("train", 2), ("eval", 1)):
        place = folder / f"Split-{split}"
        place.mkdir(parents=True)
        table = pa.Table.from_batches([ROWS] * times)
        pq.write_table(table, place / "data_parquet-00000-of-00001.parquet")
    return Examples(
        folder,
        properties={
            "split_names": '["train", "eval"]',
            "payload_format": "FORMAT_PARQUET",
        },
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what runs in a fresh process run in this one."""

    def run(entry: str, arguments: tuple[str, ...], temp_dir: Path, *_: Any) -> Ended:
        (temp_dir / "stages").touch()
        parent = fresh_process.Parent(str(temp_dir / "stages"))
        function = getattr(infra_check, entry.partition(":")[2])
        answer = json.loads(json.dumps(function(parent, *arguments)))
        return Ended(answer, Stage(), "", "", "", 1 << 29)

    monkeypatch.setattr(fresh_process, "run", run)


def run(validator: InfraValidator, folder: Path) -> InfraBlessing:
    live = validator.with_outputs(folder / "outputs")
    live.run(RunContext.local(folder / "temp"))
    blessing = live.blessing
    # As a runner records it.
    return InfraBlessing(
        blessing.path,
        digest=folder_digest(blessing.path),
        properties=blessing.properties,
    )


def push(pusher: Pusher, folder: Path) -> Pusher:
    live = pusher.with_outputs(folder / "pushed")
    live.run(RunContext.local(folder / "temp"))
    return live


def names(folder: Path) -> list[str]:
    return sorted(folder_manifest(folder))


# --- the verdict


def test_a_good_model_is_blessed_in_a_process_of_its_own(
    model: Model, examples: Examples, tmp_path: Path
) -> None:
    before = folder_manifest(model.path)
    blessing = run(
        InfraValidator(
            model=model,
            examples=examples,
            latency_requests=10,
            parity=Parity(models.trained_path),
        ),
        tmp_path,
    )
    assert (blessing.answer, blessing.reasons) == (Answer.YES, ())
    assert names(blessing.path) == ["INFRA_BLESSED", "report.json"]
    said = blessing.properties
    assert (said["blessed"], said["has_model"], said["verdict"]) == (1, 0, "BLESSED")
    assert said["current_model"] == model.uri
    assert said["model_digest"] == folder_digest(model.serving_dir)
    assert said["signatures"] == ["dense", "serving_default"]
    for name in ("serving_default.p50_ms", "serving_default.p99_ms", "load_seconds"):
        assert float(str(said[name])) > 0
    report = json.loads((blessing.path / "report.json").read_text())
    assert (report["verdict"], report["blessed"], report["reasons"]) == (
        "BLESSED",
        True,
        [],
    )
    assert report["called"]["serving_default"]["rows"] == 4
    assert report["parity"]["rows_that_differ"] == 0
    assert folder_manifest(model.path) == before


def test_the_same_model_gives_the_same_bytes(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    validator = InfraValidator(
        model=model, examples=examples, parity=Parity("dense"), make_warmup=True
    )
    first, second = (run(validator, tmp_path / name) for name in ("a", "b"))
    assert folder_manifest(first.path) == folder_manifest(second.path)
    assert first.properties["dense.requests"] == 200


def test_a_model_that_differs_from_its_training_path_is_not_blessed(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    validator = InfraValidator(
        model=model, examples=examples, parity=Parity(models.other_path)
    )
    blessing = run(validator, tmp_path)
    assert blessing.answer is Answer.NO
    assert names(blessing.path) == ["INFRA_NOT_BLESSED", "report.json"]
    assert blessing.properties["verdict"] == "NOT_BLESSED"
    (reason,) = blessing.reasons_against
    assert reason.startswith(
        f"Signature 'serving_default' of Model '{model.uri}' differs from the training "
        "path, "
    )
    live = InfraValidator(model=model).with_outputs(tmp_path / "again")
    live.blessing.properties.update(blessing.properties)
    assert live.why_stale() == ""


def test_a_refusal_for_time_is_tried_again(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    validator = InfraValidator(
        model=model, examples=examples, max_latency_ms=1e-6, latency_requests=100
    )
    live = validator.with_outputs(tmp_path / "outputs")
    live.run(RunContext.local(tmp_path / "temp"))
    assert live.blessing.answer is Answer.NO
    assert live.why_stale() == (
        "it was refused for time, memory or a crash, which may pass"
    )


def test_without_examples_the_verdict_is_not_enough_data(
    model: Model, here: None, tmp_path: Path
) -> None:
    blessing = run(InfraValidator(model=model), tmp_path / "block")
    assert blessing.answer is Answer.NOT_ENOUGH_DATA
    assert names(blessing.path) == ["INFRA_NOT_BLESSED", "report.json"]
    assert "was not called: there are no rows" in blessing.reasons_against[0]
    blessing = run(
        InfraValidator(model=model, on_inconclusive="bless"), tmp_path / "bless"
    )
    assert blessing.answer is Answer.YES
    assert blessing.properties["verdict"] == "INCONCLUSIVE"
    assert names(blessing.path) == ["INFRA_BLESSED", "report.json"]
    assert blessing.reasons_against == ()
    assert "was not called: there are no rows" in blessing.reasons[0]


def test_an_empty_split_is_not_enough_data(
    model: Model, here: None, tmp_path: Path
) -> None:
    place = tmp_path / "examples" / "Split-eval"
    place.mkdir(parents=True)
    table = pa.Table.from_batches([ROWS.slice(0, 0)])
    pq.write_table(table, place / "data_parquet-00000-of-00001.parquet")
    empty = Examples(
        place.parent,
        properties={
            "split_names": '["eval"]',
            "payload_format": "FORMAT_PARQUET",
        },
    )
    blessing = run(InfraValidator(model=model, examples=empty), tmp_path)
    assert blessing.answer is Answer.NOT_ENOUGH_DATA
    assert "split 'eval' has no rows" in blessing.reasons[0]


def test_rows_of_tfrecord_files_are_taken_and_no_more_than_asked_for(
    model: Model, here: None, tmp_path: Path
) -> None:
    place = tmp_path / "examples" / "Split-train"
    place.mkdir(parents=True)
    with tfrecord.Writer(place / "data_tfrecord-00000-of-00001.gz") as writer:
        writer.write(tfrecord.encode(ROWS))
    records = Examples(place.parent, properties={"split_names": '["train"]'})
    validator = InfraValidator(
        model=model, examples=records, split="train", max_examples=3
    )
    blessing = run(validator, tmp_path)
    assert blessing.answer is Answer.YES
    report = json.loads((blessing.path / "report.json").read_text())
    assert report["called"]["dense"]["rows"] == 3


def test_a_split_that_is_not_there_is_told(
    model: Model, examples: Examples, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"Did you mean 'eval'\?"):
        run(InfraValidator(model=model, examples=examples, split="evl"), tmp_path)


def test_a_model_that_changed_since_it_was_made_is_an_error_and_no_verdict(
    model: Model, tmp_path: Path
) -> None:
    (model.serving_dir / "extra").touch()
    with pytest.raises(DataError, match="something wrote to it since"):
        run(InfraValidator(model=model), tmp_path)


def test_what_the_schema_keeps_from_serving_is_kept_from_requests(
    examples: Examples, here: None, tmp_path: Path
) -> None:
    def leaky(_: Any, examples: Any) -> Any:
        return {"y": models.parsed(examples, label=models.NUMBER)["label"]}

    models.save(
        tmp_path / "leaky" / "Format-Serving", serving_default=(leaky, models.EXAMPLES)
    )
    place = tmp_path / "schema"
    place.mkdir()
    text = (
        'default_environment: "TRAINING" default_environment: "SERVING" '
        'feature {{ name: "x" type: FLOAT }} '
        'feature {{ name: "label" type: FLOAT not_in_environment: "{}" }}'
    )
    for environment, answer in (("SERVING", Answer.NO), ("OTHER", Answer.YES)):
        (place / "schema.pbtxt").write_text(text.format(environment))
        validator = InfraValidator(
            model=Model(tmp_path / "leaky"), examples=examples, schema=Schema(place)
        )
        assert run(validator, tmp_path / environment).answer is answer
    (place / "schema.pbtxt").write_text("feature {")
    with pytest.raises(DataError, match=r"schema\.pbtxt' cannot be read: "):
        run(validator, tmp_path / "damaged")


# --- what makes no sense


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"max_examples": 0},
            "InfraValidator.max_examples is 0. Pass a whole number of at least 1.",
        ),
        (
            {"memory_limit_gib": -1.0},
            "InfraValidator.memory_limit_gib is -1. Pass a number greater than 0.",
        ),
        (
            {"request_timeout_seconds": 0.0},
            "InfraValidator.request_timeout_seconds is 0. Pass a number greater than "
            "0.",
        ),
        (
            {"latency_quantile": 99.0},
            "InfraValidator.latency_quantile is 99; a quantile lies between 0 and 1. "
            "Pass 0.99 for the slowest request of a hundred.",
        ),
        (
            {"max_latency_ms": 5.0, "latency_requests": 99},
            "InfraValidator times 99 requests, and quantile 0.99 takes at least 100. "
            "Raise latency_requests, or bound a lower quantile.",
        ),
        (
            {"make_warmup": True},
            "InfraValidator has make_warmup and nothing to make it of. Wire examples, "
            "or pass request_logs.",
        ),
        (
            {"request_logs": (Path("log"),)},
            "InfraValidator has request_logs, which only a warm-up file is made of. "
            "Pass make_warmup=True, or leave them out.",
        ),
        (
            {"warmup_requests": 1001},
            "InfraValidator.warmup_requests is 1,001, and TensorFlow Serving does not "
            "load a model with more than 1,000. Pass at most that.",
        ),
        (
            {"parity": Parity("dense")},
            "InfraValidator has parity and no examples, so that there is no row to "
            "compare on. Wire examples.",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(PipelineError) as raised:
        InfraValidator(model=Model("model"), **given)
    assert str(raised.value) == said


# --- the warm-up file, and what is pushed


def test_the_pushed_version_has_the_warm_up_file_and_is_not_loaded_again(
    model: Model,
    examples: Examples,
    here: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    infra = InfraValidator(
        model=model, examples=examples, make_warmup=True, warmup_requests=6
    )
    blessing = run(infra, tmp_path)
    assert blessing.answer is Answer.YES
    assert names(blessing.path) == ["INFRA_BLESSED", WARMUP_FILE, "report.json"]
    assert blessing.properties["warmup_records"] == 6

    def loaded(*_: Any) -> None:
        raise AssertionError("It was loaded before.")

    monkeypatch.setattr("penstock.components.serving.pusher.check_loads", loaded)
    serving = tmp_path / "serving"
    pusher = Pusher(model=model, infra_blessing=blessing, serving_dir=serving)
    pushed = push(pusher, tmp_path).pushed_model
    (version,) = versions(serving)
    assert version.model_uri == model.uri
    assert verify(serving, 1) == ()
    assert names(serving / "1") == sorted([*names(model.serving_dir), WARMUP_FILE])
    assert (serving / "1" / WARMUP_FILE).read_bytes() == (
        blessing.warmup_file.read_bytes()
    )
    assert pushed.properties["digest"] == version.digest == folder_digest(pushed.path)
    manifest = json.loads((serving / ".penstock/manifests/1.json").read_text())
    assert manifest["checked"]["signatures"] == ["dense", "serving_default"]

    # The version loads and warms up as TensorFlow Serving does it.
    from penstock.components.serving.model_server.replay import replay
    from penstock.components.serving.model_server.servable import Servable

    assert replay(Servable(serving / "1")) == 6


def test_a_model_that_the_blessing_is_not_of_is_loaded_before_it_is_pushed(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    blessing = run(InfraValidator(model=model, examples=examples), tmp_path)
    other = tmp_path / "other"
    shutil.copytree(model.path, other)
    shutil.rmtree(other / "Format-Serving" / "variables")
    serving = tmp_path / "serving"
    pusher = Pusher(model=Model(other), infra_blessing=blessing, serving_dir=serving)
    with pytest.raises(DataError, match=r"cannot be loaded: .*variables"):
        push(pusher, tmp_path)
    assert versions(serving) == ()


def test_a_warm_up_file_that_changed_since_it_was_made_is_not_pushed(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    infra = InfraValidator(model=model, examples=examples, make_warmup=True)
    blessing = run(infra, tmp_path)
    with open(blessing.warmup_file, "ab") as file:
        file.write(b"more")
    serving = tmp_path / "serving"
    pusher = Pusher(model=model, infra_blessing=blessing, serving_dir=serving)
    with pytest.raises(DataError) as raised:
        push(pusher, tmp_path)
    text = str(raised.value)
    assert text.startswith(f"InfraBlessing '{blessing.uri}' has the digest 'sha256:")
    assert text.endswith("something wrote to it since. Run its InfraValidator again.")
    assert not serving.exists()


def test_another_warm_up_file_asks_for_another_push(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    # A verdict is no part of a fingerprint, so that the pusher itself has to look.
    serving = tmp_path / "serving"
    plain = run(InfraValidator(model=model, examples=examples), tmp_path / "plain")
    live = push(
        Pusher(model=model, infra_blessing=plain, serving_dir=serving), tmp_path
    )
    assert live.why_stale() == ""
    infra = InfraValidator(model=model, examples=examples, make_warmup=True)
    warm = run(infra, tmp_path / "warm")
    now = live.bound({"infra_blessing": warm}, {})
    assert now.why_stale() == "version 1 has another warm-up file than it would now"
    pusher = Pusher(model=model, infra_blessing=warm, serving_dir=serving)
    assert push(pusher, tmp_path / "second").why_stale() == ""


def test_files_beside_the_warm_up_file_stay(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    extra = model.serving_dir / "assets.extra"
    extra.mkdir()
    (extra / "mlmd_uuid").write_text("17")
    with_extra = Model(model.path)
    infra = InfraValidator(model=with_extra, examples=examples, make_warmup=True)
    blessing = run(infra, tmp_path)
    serving = tmp_path / "serving"
    push(
        Pusher(model=with_extra, infra_blessing=blessing, serving_dir=serving), tmp_path
    )
    found = sorted(each.name for each in (serving / "1" / "assets.extra").iterdir())
    assert found == ["mlmd_uuid", "tf_serving_warmup_requests"]


def test_a_model_with_a_warm_up_file_of_its_own_keeps_it(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    (model.serving_dir / "assets.extra").mkdir()
    warmup.write([], model.serving_dir / WARMUP_FILE)
    own = Model(model.path)
    blessing = run(InfraValidator(model=own, examples=examples), tmp_path)
    assert blessing.answer is Answer.YES
    assert blessing.properties["warmup_records"] == 0
    with pytest.raises(DataError) as raised:
        run(
            InfraValidator(model=own, examples=examples, make_warmup=True),
            tmp_path / "made",
        )
    assert str(raised.value) == (
        f"Model '{own.uri}' has a warm-up file of its own ('{WARMUP_FILE}'). It is "
        "tried in any case: leave make_warmup out, or export the model without it."
    )


def test_a_refused_model_leaves_no_warm_up_file(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    infra = InfraValidator(
        model=model,
        examples=examples,
        make_warmup=True,
        parity=Parity(models.other_path),
    )
    blessing = run(infra, tmp_path)
    assert blessing.answer is Answer.NO
    assert names(blessing.path) == ["INFRA_NOT_BLESSED", "report.json"]


def test_logged_requests_become_the_warm_up_file(
    model: Model, examples: Examples, here: None, tmp_path: Path
) -> None:
    from tests.components.serving.test_warmup import predict_log

    log = tmp_path / "peak.tfrecord"
    logs = [predict_log("dense", version=7, x=[[1.0]]) for _ in range(20)]
    warmup.write((each.SerializeToString() for each in logs), log)
    infra = InfraValidator(
        model=model,
        examples=examples,
        make_warmup=True,
        warmup_requests=5,
        request_logs=(log,),
    )
    (read,) = infra.external_inputs()
    assert read.uri == str(log)
    assert run(infra, tmp_path).properties["warmup_records"] == 5


def test_a_blessing_by_tfx_gates_and_the_model_is_loaded_before_it_is_pushed(
    model: Model, tmp_path: Path
) -> None:
    # Of a blessing by TFX nothing is known but the yes.
    (tmp_path / "blessing").mkdir()
    blessing = InfraBlessing(tmp_path / "blessing", properties={"blessed": 1})
    serving = tmp_path / "serving"
    live = push(
        Pusher(model=model, infra_blessing=blessing, serving_dir=serving), tmp_path
    )
    assert isinstance(live.pushed_model, PushedModel)
    assert names(serving / "1") == names(model.serving_dir)
