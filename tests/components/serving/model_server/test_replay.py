"""Replaying warm-up files: what runs, and what fails the load in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow_serving.apis import prediction_log_pb2

from penstock.components.serving.model_server.replay import replay
from penstock.components.serving.model_server.servable import Servable
from penstock.components.serving.model_server.status import Code, ServableError
from tests.components.serving.model_server import models
from tests.components.serving.model_server.models import predict_log, write_warmup
from tests.components.serving.model_server.test_servable import (
    classification,
    multi,
    refused,
    regression,
)


@pytest.fixture
def version(template: Path, tmp_path: Path) -> Path:
    return models.save_version(template, tmp_path / "serving", 3)


def test_every_kind_of_record_but_session_runs_is_replayed(version: Path) -> None:
    regress, classify, both = (prediction_log_pb2.PredictionLog() for _ in range(3))
    regress.regress_log.request.CopyFrom(regression("regress", 1.0))
    classify.classify_log.request.CopyFrom(classification("classify", 1.0))
    both.multi_inference_log.request.CopyFrom(multi(("m", "regress", "regress")))
    write_warmup(version, [predict_log(), regress, classify, both, predict_log()])
    assert replay(Servable(version), iterations=2) == 5


def test_no_file_is_no_warmup(version: Path) -> None:
    assert replay(Servable(version)) == 0


def test_session_runs_cannot_be_replayed(version: Path) -> None:
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    write_warmup(version, [log])
    with pytest.raises(ServableError) as error:
        replay(Servable(version))
    assert refused(error) == (
        Code.UNIMPLEMENTED,
        "Unsupported log_type for warmup: session_run_log",
    )


def test_a_failing_record_fails_the_warmup(version: Path) -> None:
    write_warmup(version, [predict_log(), predict_log(signature="nope")])
    with pytest.raises(ServableError, match='Serving signature key "nope"') as error:
        replay(Servable(version))
    assert error.value.code is Code.FAILED_PRECONDITION


def test_a_thousand_records_are_enough(version: Path) -> None:
    path = write_warmup(version, [predict_log()] * 1000)
    assert replay(Servable(version)) == 1000
    write_warmup(version, [predict_log()] * 1001)
    with pytest.raises(ServableError) as error:
        replay(Servable(version))
    assert refused(error) == (
        Code.INVALID_ARGUMENT,
        f"Number of warmup records exceeds the maximum (1000) at {path}",
    )


def test_a_record_of_other_bytes_fails_the_warmup(version: Path) -> None:
    path = write_warmup(version, [b"\xff\xff"])
    with pytest.raises(ServableError) as error:
        replay(Servable(version))
    assert refused(error) == (
        Code.INVALID_ARGUMENT,
        rf"Failed to parse warmup record: b'\xff\xff' from {path}",
    )


@pytest.mark.parametrize("missing", [1, 4, 20])
def test_a_torn_file_fails_the_warmup(version: Path, missing: int) -> None:
    path = write_warmup(version, [predict_log()] * 3)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ServableError) as error:
        replay(Servable(version))
    assert error.value.code is Code.DATA_LOSS
    assert error.value.message.endswith(
        ". Please verify your warmup data is in TFRecord format."
    )


def test_a_torn_header_is_taken_for_the_end(version: Path) -> None:
    # TensorFlow's own reader, which TensorFlow Serving uses, does not tell it.
    path = write_warmup(version, [predict_log()] * 2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:5])
    assert replay(Servable(version)) == 2
