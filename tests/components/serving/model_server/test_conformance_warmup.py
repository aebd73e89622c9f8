"""Conformance: warm-up files, over the wire: what a version's file does to its load.

Every case names what it mirrors in TensorFlow Serving, in
servables/tensorflow/saved_model_warmup_test.cc and saved_model_warmup_util_test.cc, and
runs against our server and, where it is on PATH, against tensorflow_model_server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tensorflow_serving.apis import prediction_log_pb2

from tests.components.serving.model_server.models import (
    config,
    examples,
    predict_log,
    write_warmup,
)
from tests.components.serving.model_server.under_test import Running, Starter, until

Save = Callable[[int], Path]
INVALID_ARGUMENT, UNIMPLEMENTED, DATA_LOSS = 3, 12, 15


def of_examples(kind: str) -> prediction_log_pb2.PredictionLog:
    """Make a record of Regress, Classify or MultiInference."""
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    request.input.CopyFrom(examples(1.0))
    if kind == "multi_inference":
        task = request.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name = "m"
        task.model_spec.signature_name = "regress"
    else:
        request.model_spec.signature_name = kind
    return log


def load(start: Starter, base: Path, write: Callable[[], object]) -> Running:
    """Start a server without the model, and ask it to load it."""
    write()
    server = start(config())
    reload = server.client.reload_future(config(m=base))  # cancelled if it is dropped
    until(lambda: server.client.states("m").get(1, "") in ("AVAILABLE", "END"))
    reload.cancel()
    return server


def error(server: Running) -> tuple[int, str]:
    assert server.client.states("m") == {1: "END"}
    return server.client.error("m", 1)


def test_mixed_warmup_data(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_test.cc MixedWarmupData"""
    folder = save(1)
    kinds = ("regress", "classify", "multi_inference")
    logs = [predict_log(), *map(of_examples, kinds)] * 10
    server = load(start, base, lambda: write_warmup(folder, logs))
    assert server.client.states("m") == {1: "AVAILABLE"}


def test_no_warmup_data_file(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util_test.cc NoWarmupDataFile"""
    folder = save(1)
    server = load(start, base, lambda: (folder / "assets.extra").mkdir())
    assert server.client.states("m") == {1: "AVAILABLE"}


def test_warmup_data_file_empty(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util_test.cc WarmupDataFileEmpty"""
    folder = save(1)
    server = load(start, base, lambda: write_warmup(folder, []))
    assert server.client.states("m") == {1: "AVAILABLE"}


def test_unsupported_log_type(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_test.cc UnsupportedLogType"""
    folder = save(1)
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    server = load(start, base, lambda: write_warmup(folder, [log]))
    code, text = error(server)
    assert code == UNIMPLEMENTED
    assert "Unsupported log_type for warmup" in text


def test_unsupported_file_format(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util_test.cc UnsupportedFileFormat"""
    folder = save(1)

    def write() -> None:
        path = write_warmup(folder, [])
        path.write_bytes(predict_log().SerializeToString() * 10)

    code, text = error(load(start, base, write))
    assert code == DATA_LOSS
    assert "Please verify your warmup data is in TFRecord format" in text


def test_too_many_warmup_records(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util_test.cc TooManyWarmupRecords"""
    folder = save(1)
    logs = [predict_log()] * 1001
    code, text = error(load(start, base, lambda: write_warmup(folder, logs)))
    assert code == INVALID_ARGUMENT
    assert "Number of warmup records exceeds the maximum (1000)" in text


def test_a_thousand_warmup_records(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util.h kMaxNumRecords"""
    folder = save(1)
    logs = [predict_log()] * 1000
    server = load(start, base, lambda: write_warmup(folder, logs))
    assert server.client.states("m") == {1: "AVAILABLE"}


def test_unparsable_record(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util_test.cc UnparsableRecord"""
    folder = save(1)
    server = load(start, base, lambda: write_warmup(folder, [b"malformed_record"]))
    code, text = error(server)
    assert code == INVALID_ARGUMENT
    assert "Failed to parse warmup record" in text


def test_run_failure(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_test.cc RunFailure"""
    folder = save(1)
    logs = [predict_log(), predict_log(outputs=["nope"])]
    code, text = error(load(start, base, lambda: write_warmup(folder, logs)))
    assert code == INVALID_ARGUMENT
    assert "output tensor alias not found in signature: nope" in text


def test_a_torn_file(start: Starter, base: Path, save: Save) -> None:
    """saved_model_warmup_util.cc RunSavedModelWarmup (IsDataLoss)"""
    folder = save(1)

    def write() -> None:
        path = write_warmup(folder, [predict_log()] * 3)
        path.write_bytes(path.read_bytes()[:-3])

    code, text = error(load(start, base, write))
    assert code == DATA_LOSS
    assert "Please verify your warmup data is in TFRecord format" in text


def test_the_model_name_of_a_record_does_not_matter(
    start: Starter, base: Path, save: Save
) -> None:
    """saved_model_warmup.cc RunWarmupRequest (no servable is looked up)"""
    folder = save(1)
    logs = [predict_log(model="another", version=99)]
    server = load(start, base, lambda: write_warmup(folder, logs))
    assert server.client.states("m") == {1: "AVAILABLE"}


def test_warmup_can_be_turned_off(start: Starter, base: Path, save: Save) -> None:
    """main.cc enable_model_warmup"""
    folder = save(1)
    write_warmup(folder, [b"malformed_record"])
    server = start(config(m=base), enable_model_warmup=False)
    assert server.client.states("m") == {1: "AVAILABLE"}


def test_a_failing_warmup_leaves_the_old_version(
    start: Starter, base: Path, save: Save
) -> None:
    """saved_model_bundle_factory.cc CreateSavedModelBundle (the load fails)"""
    save(1)
    server = start(config(m=base))
    folder = save(2)  # renamed into place before its file is written: too late
    write_warmup(folder, [])
    until(lambda: server.client.states("m").get(2) == "AVAILABLE")
    third = base / ".staged"
    folder = save(3).rename(third)
    write_warmup(folder, [b"malformed_record"])
    folder.rename(base / "4")
    until(lambda: server.client.states("m").get(4) == "END")
    assert server.client.states("m")[2] == "AVAILABLE"
