"""Warm-up files: from request logs, and whether their records run."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2

from penstock.components.serving import warmup
from penstock.schemas.errors import DataError


def predict_log(
    signature: str = "serving_default", version: int = 0, **inputs: Any
) -> prediction_log_pb2.PredictionLog:
    """Return a record of a Predict request with its answer, as a router logs it."""
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "taxi"
    request.model_spec.signature_name = signature
    if version:
        request.model_spec.version.value = version
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, tf.float32))
    log.predict_log.response.outputs["y"].CopyFrom(tf.make_tensor_proto([1.0]))
    log.log_metadata.timestamp_secs = 1_700_000_000
    return log


def rows(count: int) -> list[list[float]]:
    return [[float(row)] for row in range(count)]


def written(path: Path, logs: list[Any]) -> Path:
    warmup.write((log.SerializeToString() for log in logs), path)
    return path


def read(path: Path) -> list[Any]:
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(each) for each in records]


# --- from request logs


def test_requests_keep_what_they_ask_and_lose_answers_and_versions(
    tmp_path: Path,
) -> None:
    log = predict_log(version=42, x=rows(2))
    target = tmp_path / "warmup"
    assert warmup.make_from_request_logs([written(tmp_path / "a", [log])], target) == 1
    (found,) = read(target)
    request = found.predict_log.request
    assert request.inputs["x"] == log.predict_log.request.inputs["x"]
    assert (request.model_spec.name, request.model_spec.signature_name) == (
        "taxi",
        "serving_default",
    )
    assert request.model_spec.WhichOneof("version_choice") is None
    assert not found.predict_log.HasField("response")
    assert not found.HasField("log_metadata")


def test_every_kind_of_request_that_tensorflow_serving_replays_is_taken(
    tmp_path: Path,
) -> None:
    logs = [predict_log(x=rows(1))]
    for kind in ("classify_log", "regress_log"):
        log = prediction_log_pb2.PredictionLog()
        request = getattr(log, kind).request
        request.model_spec.version_label = "stable"
        request.input.example_list.examples.add()
        logs.append(log)
    log = prediction_log_pb2.PredictionLog()
    task = log.multi_inference_log.request.tasks.add()
    task.method_name = "tensorflow/serving/regress"
    task.model_spec.version.value = 3
    log.multi_inference_log.request.input.example_list_with_context.examples.add()
    logs.append(log)
    target = tmp_path / "warmup"
    assert warmup.make_from_request_logs([written(tmp_path / "a", logs)], target) == 4
    found = read(target)
    assert [each.WhichOneof("log_type") for each in found] == [
        "predict_log",
        "classify_log",
        "regress_log",
        "multi_inference_log",
    ]
    assert not found[1].classify_log.request.model_spec.version_label
    (task,) = found[3].multi_inference_log.request.tasks
    assert task.model_spec.WhichOneof("version_choice") is None


def test_of_many_files_a_thousand_are_kept_and_what_is_rare_with_them(
    tmp_path: Path,
) -> None:
    files = [
        written(
            tmp_path / f"log-{number}",
            [predict_log(x=rows(1)) for _ in range(700)]
            + [predict_log("rare", x=rows(1)), predict_log(x=rows(100))],
        )
        for number in range(3)
    ]
    target = tmp_path / "warmup"
    assert warmup.make_from_request_logs(files, target) == 1000
    found = [each.predict_log.request for each in read(target)]
    assert sum(each.model_spec.signature_name == "rare" for each in found) == 3
    sizes = [each.inputs["x"].tensor_shape.dim[0].size for each in found]
    assert sizes.count(100) == 3
    # The same logs give the same file.
    again = tmp_path / "again"
    warmup.make_from_request_logs(files, again)
    assert again.read_bytes() == target.read_bytes()
    other = tmp_path / "other"
    warmup.make_from_request_logs(files, other, most=10, seed=1)
    assert len(read(other)) == 10


def test_compressed_logs_are_read_and_the_file_is_not_compressed(
    tmp_path: Path,
) -> None:
    plain = written(tmp_path / "plain", [predict_log(x=rows(1))])
    (tmp_path / "log.gz").write_bytes(gzip.compress(plain.read_bytes()))
    target = tmp_path / "warmup"
    assert warmup.make_from_request_logs([tmp_path / "log.gz"], target) == 1
    assert target.read_bytes()[:2] != b"\x1f\x8b"
    assert len(read(target)) == 1


@given(
    counts=st.dictionaries(
        st.integers(0, 40), st.integers(1, 2_000), min_size=1, max_size=30
    ),
    most=st.integers(1, 1_000),
)
def test_every_place_is_given_away_and_no_stratum_goes_without(
    counts: dict[int, int], most: int
) -> None:
    places = warmup.shares(counts, most)
    assert sum(places.values()) == min(most, sum(counts.values()))
    assert places.keys() == counts.keys()
    assert all(0 <= places[each] <= counts[each] for each in counts)
    if len(counts) <= most:
        assert all(places.values())


def test_a_torn_log_is_told(tmp_path: Path) -> None:
    whole = written(tmp_path / "log", [predict_log(x=rows(1))] * 2)
    whole.write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([whole], tmp_path / "warmup")
    text = str(raised.value)
    assert text.startswith(f"'{whole}', after record ")
    assert text.endswith("It is no whole TFRecord file; write it again.")


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([tmp_path / "log"], tmp_path / "warmup")
    assert str(raised.value) == (
        f"Request log '{tmp_path}/log' is not there. Pass TFRecord files of "
        "PredictionLog."
    )


def test_a_log_of_something_else_is_told(tmp_path: Path) -> None:
    warmup.write([b"\xff\xff\xff"], tmp_path / "log")
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([tmp_path / "log"], tmp_path / "warmup")
    assert str(raised.value) == (
        f"Record 1 of '{tmp_path}/log' is no PredictionLog. Pass request logs as a "
        "router of penstock writes them."
    )


def test_a_record_without_a_request_is_told(tmp_path: Path) -> None:
    logs = [predict_log(x=rows(1)), prediction_log_pb2.PredictionLog()]
    log = written(tmp_path / "log", logs)
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([log], tmp_path / "warmup")
    assert str(raised.value) == (
        f"Record 2 of '{log}' holds no request. Leave such records out."
    )


@pytest.mark.parametrize("kind", ["session_run_log", "predict_streamed_log"])
def test_a_kind_that_tensorflow_serving_does_not_replay_is_told(
    tmp_path: Path, kind: str
) -> None:
    bad = prediction_log_pb2.PredictionLog()
    getattr(bad, kind).SetInParent()
    log = written(tmp_path / "log", [predict_log(x=rows(1)), bad])
    sentence = (
        f" is a {kind}, which TensorFlow Serving does not replay (it replays "
        "'classify_log', 'multi_inference_log', 'predict_log', 'regress_log'). Leave "
        "such records out."
    )
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([log], tmp_path / "warmup")
    assert str(raised.value) == f"Record 2 of '{log}'{sentence}"
    # A file that has one is not accepted either.
    count, text = warmup.failing(log, lambda _: None)
    assert count == 1
    assert text == f"Record 2 of warm-up file '{tmp_path.name}/log'{sentence}"


def test_a_log_without_a_request_at_all_is_told(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [])
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([log], tmp_path / "warmup")
    assert str(raised.value) == (
        f"The request logs '{log}' hold no request, so there is nothing to warm up "
        "with. Pass logs of some traffic."
    )


@pytest.mark.parametrize("most", [0, 1001])
def test_more_than_a_thousand_records_are_refused(tmp_path: Path, most: int) -> None:
    with pytest.raises(DataError) as raised:
        warmup.make_from_request_logs([], tmp_path / "warmup", most=most)
    assert str(raised.value) == (
        f"A warm-up file of {most:,} records cannot be made: TensorFlow Serving "
        "accepts at most 1,000. Pass a number from 1 to 1000."
    )


# --- whether records run


def test_every_record_is_run_in_order(tmp_path: Path) -> None:
    logs = [predict_log(f"s{number}", x=rows(1)) for number in range(3)]
    log = written(tmp_path / "log", logs)
    ran: list[str] = []
    told: list[int] = []

    def run(each: Any) -> None:
        ran.append(each.predict_log.request.model_spec.signature_name)

    assert warmup.failing(log, run, told.append) == (3, "")
    assert (ran, told) == (["s0", "s1", "s2"], [1, 2, 3])


def test_the_first_record_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [predict_log(x=rows(1))] * 3)
    answers = iter([None, ValueError("No such\ntensor.")])

    def run(_: Any) -> None:
        error = next(answers)
        if error:
            raise error

    assert warmup.failing(log, run) == (
        1,
        f"Record 2 of warm-up file '{tmp_path.name}/log' fails: No such. TensorFlow "
        "Serving would not load the model. Leave the record out, or mend the model.",
    )


def test_one_record_too_many_is_told(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [predict_log()] * 1001)
    count, text = warmup.failing(log, lambda _: None)
    assert count == 1000
    assert text == (
        f"Warm-up file '{tmp_path.name}/log' has more than 1,000 records, with which "
        "TensorFlow Serving does not load the model. Keep at most 1,000 of them."
    )


def test_a_record_that_is_no_prediction_log_is_told(tmp_path: Path) -> None:
    warmup.write([b"\xff\xff\xff"], tmp_path / "log")
    assert warmup.failing(tmp_path / "log", lambda _: None) == (
        0,
        f"Record 1 of warm-up file '{tmp_path.name}/log' is no PredictionLog. Write "
        "the file anew.",
    )


def test_a_compressed_warm_up_file_is_told(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [predict_log()])
    log.write_bytes(gzip.compress(log.read_bytes()))
    count, text = warmup.failing(log, lambda _: None)
    assert count == 0
    assert text.startswith(
        f"Warm-up file '{tmp_path.name}/log' is damaged after record 0: "
    )
    assert text.endswith("not compressed; write it anew.")
