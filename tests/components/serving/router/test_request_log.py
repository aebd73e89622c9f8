from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import input_pb2, prediction_log_pb2, regression_pb2

from penstock.components.serving.messages import (
    CLASSIFY,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    Message,
    PredictionLog,
    PredictRequest,
    RegressionRequest,
    to_array,
    to_tensor,
)
from penstock.components.serving.router import request_log as module
from penstock.components.serving.router.frames import framed, read_frames
from penstock.components.serving.router.private import Unreadable, strip
from penstock.components.serving.router.request_log import (
    Exchange,
    RequestLog,
    by_header,
    by_input,
    read_log,
    recover,
)
from penstock.components.serving.router.router import Router
from penstock.schemas.errors import DataError, ServingError
from tests.components.serving.router.servers import Controls, Server, until

Routers = Callable[..., Router]


def request(**inputs: Any) -> bytes:
    made = PredictRequest()
    made.model_spec.name = "anything"
    made.model_spec.version_label = "stable"
    made.model_spec.signature_name = "serving_default"
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(to_tensor(np.array(value)))
    return made.SerializeToString()


def answer(value: float = 1.0) -> bytes:
    made = PREDICT.response()
    made.outputs["y"].CopyFrom(to_tensor(np.array([value], np.float32)))
    return made.SerializeToString()


def exchange(i: int = 0, **fields: Any) -> Exchange:
    return Exchange(
        **{
            "method": PREDICT,
            "request": request(x=[float(i)]),
            "response": answer(i),
            "version": 3,
            "lane": "stable",
            **fields,
        }
    )


def logged(folder: Path, *exchanges: Exchange, **options: Any) -> list[Message]:
    log = RequestLog(folder, "ranker", **options)
    for each in exchanges:
        log.add(each)
    log.close()
    return list(read_log(folder))


def test_a_record_says_who_answered_and_how_likely_it_was_to_be_kept(
    tmp_path: Path,
) -> None:
    (record,) = logged(tmp_path, exchange(5, lane="candidate"))
    assert record.predict_log.request.SerializeToString(deterministic=True) == (
        PredictRequest(
            model_spec={"name": "ranker", "signature_name": "serving_default"},
            inputs={"x": to_tensor(np.array([5.0]))},
        ).SerializeToString(deterministic=True)
    )
    assert to_array(record.predict_log.response.outputs["y"]) == [5.0]
    metadata = record.log_metadata
    assert metadata.model_spec.name == "ranker"
    assert metadata.model_spec.version.value == 3
    assert metadata.model_spec.signature_name == "serving_default"
    assert metadata.sampling_config.sampling_rate == 1.0
    assert metadata.timestamp_secs > 1_600_000_000
    assert metadata.request_origin == "candidate"
    assert metadata.request_criticality == "ordinary"


def test_tensorflow_reads_the_files_and_its_own_class_the_records(
    tmp_path: Path,
) -> None:
    logged(tmp_path, *(exchange(i) for i in range(5)))
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("requests-") and path.name.endswith(".tfrecord")
    found = []
    for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(raw)
        found.append(float(tf.make_ndarray(log.predict_log.request.inputs["x"])[0]))
        assert log.log_metadata.sampling_config.sampling_rate == 1.0
        assert log.log_metadata.request_criticality == "ordinary"
    assert found == [0, 1, 2, 3, 4]


def test_strata_have_rates_and_totals_come_out(tmp_path: Path) -> None:
    def some() -> list[Exchange]:
        return [
            exchange(i, headers={"x-tier": "vip" if i % 10 == 0 else ""})
            for i in range(5000)
        ]

    found = logged(
        tmp_path,
        *some(),
        rates={"vip": 1.0, "ordinary": 0.1},
        stratum=by_header("X-Tier"),
        at_least=20,
        seed=3,
    )
    totals: dict[str, float] = defaultdict(float)
    kept: Counter[str] = Counter()
    for record in found:
        stratum = record.log_metadata.request_criticality
        kept[stratum] += 1
        totals[stratum] += 1 / record.log_metadata.sampling_config.sampling_rate
    assert kept["vip"] == totals["vip"] == 500
    assert 350 < kept["ordinary"] < 550
    assert totals["ordinary"] == pytest.approx(4500, rel=0.15)


def test_totals_over_many_minutes_are_unbiased(tmp_path: Path) -> None:
    """P18, through the files: |z| < 3 over 300 windows."""
    log = RequestLog(tmp_path, "ranker", rates={"ordinary": 0.05}, at_least=10, seed=11)
    for minute in range(300):
        for i in range(10 + minute % 40):
            log._take(exchange(i))
        log._end_window()
    log.close()
    errors = []
    by_minute: list[list[Message]] = [[]]
    for record in read_log(tmp_path):
        value = float(to_array(record.predict_log.request.inputs["x"])[0])
        if by_minute[-1] and value <= float(
            to_array(by_minute[-1][-1].predict_log.request.inputs["x"])[0]
        ):
            by_minute.append([])
        by_minute[-1].append(record)
    assert len(by_minute) == 300
    for minute, records in enumerate(by_minute):
        total = sum(
            float(to_array(record.predict_log.request.inputs["x"])[0])
            / record.log_metadata.sampling_config.sampling_rate
            for record in records
        )
        errors.append(total - sum(range(10 + minute % 40)))
    assert abs(np.mean(errors) / (np.std(errors, ddof=1) / np.sqrt(300))) < 3


def test_a_stratum_may_be_what_a_feature_says(tmp_path: Path) -> None:
    found = logged(
        tmp_path,
        exchange(request=request(x=[1.0], category=["toys"])),
        exchange(request=request(x=[1.0])),
        exchange(method=REGRESS, request=b"", response=b""),
        stratum=by_input("category"),
    )
    strata = Counter(record.log_metadata.request_criticality for record in found)
    assert strata == {"toys": 1, "ordinary": 2}


def test_a_function_that_cannot_name_the_stratum_loses_no_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(_: Exchange) -> str:
        raise KeyError("tier")

    log = RequestLog(tmp_path, "ranker", stratum=wrong)
    log.add(exchange())
    log.close()
    assert log.ends["unnamed"] == log.ends["written"] == 1
    assert "The stratum of a request could not be told." in caplog.text


def test_what_a_version_failed_is_kept_whole(tmp_path: Path) -> None:
    found = logged(
        tmp_path,
        *(exchange(i) for i in range(1000)),
        *(exchange(i, lane="fallback 2 INTERNAL") for i in range(300)),
        at_least=5,
        rates={"ordinary": 0.0},
    )
    strata = Counter(record.log_metadata.request_criticality for record in found)
    assert strata == {"ordinary": 5, "failed": 300}
    few = logged(
        tmp_path / "few",
        *(exchange(i, lane="fallback 2 INTERNAL") for i in range(300)),
        at_least=5,
        rates={"failed": 0.0},
    )
    assert len(few) == 5


def test_callers_cannot_make_strata_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STRATA", 3)
    found = logged(
        tmp_path,
        *(exchange(i, headers={"tier": f"t{i}"}) for i in range(20)),
        stratum=by_header("tier"),
    )
    strata = {record.log_metadata.request_criticality for record in found}
    assert strata == {"t0", "t1", "t2", "ordinary"}


def test_what_nobody_answered_lies_in_files_of_its_own(tmp_path: Path) -> None:
    found = logged(tmp_path, exchange(1), exchange(2, response=None, lane="failed X"))
    assert [record.log_metadata.request_origin for record in found] == ["stable"]
    (path,) = tmp_path.glob("failures-*.tfrecord")
    (record,) = read_log(path)
    assert record.log_metadata.request_origin == "failed X"
    assert not record.predict_log.HasField("response")


def test_the_router_logs_a_fallback_as_no_answer_of_the_candidate(
    tmp_path: Path, routers: Routers, controls: Controls, server: Server
) -> None:
    controls.rollout(1.0)
    server.fail(2)
    router = routers(request_log=RequestLog(tmp_path / "log", "ranker"))
    router.predict({"x": np.array([1.0])}, "one", headers={"a": "b"})
    server.behaviors.clear()
    router.predict({"x": np.array([1.0])}, "two")
    router.predict({"x": np.array([1.0])})
    router.close()
    found = [
        (
            record.log_metadata.request_origin,
            record.log_metadata.model_spec.version.value,
        )
        for record in read_log(tmp_path / "log")
    ]
    assert found == [("fallback 2 INTERNAL", 1), ("candidate", 2), ("stable", 1)]
    text = router.metrics().decode()
    assert 'penstock_request_log_total{end="written",model="ranker"} 3.0' in text


# --- what is private


def example(**features: str) -> tf.train.Example:
    made = tf.train.Example()
    for name, value in features.items():
        made.features.feature[name].bytes_list.value.append(value.encode())
    return made


def test_private_inputs_and_outputs_are_never_written(tmp_path: Path) -> None:
    response = PREDICT.response()
    for name in ("y", "email"):
        response.outputs[name].CopyFrom(to_tensor(np.array(["secret@x"])))
    logged(
        tmp_path,
        exchange(
            request=request(x=[1.0], email=["secret@x"]),
            response=response.SerializeToString(),
        ),
        private=["email", "y"],
    )
    (path,) = tmp_path.iterdir()
    assert b"secret" not in path.read_bytes()
    (record,) = read_log(path)
    assert list(record.predict_log.request.inputs) == ["x"]
    assert list(record.predict_log.response.outputs) == []


@pytest.mark.parametrize("raw", [False, True])
def test_private_features_are_taken_out_of_serialized_examples(
    raw: bool, tmp_path: Path
) -> None:
    kept = example(age="7")
    texts = [example(age="7", email="secret@x").SerializeToString(), b"\n\x03abc", b""]
    made = PredictRequest()
    tensor = made.inputs["examples"]
    tensor.CopyFrom(to_tensor(np.array(texts, object)))
    if raw:  # as TensorFlow may write strings: the lengths, then the bytes
        tensor.tensor_content = bytes(map(len, texts)) + b"".join(texts)
        tensor.ClearField("string_val")
    logged(
        tmp_path,
        exchange(request=made.SerializeToString()),
        private=["email"],
    )
    (record,) = read_log(tmp_path)
    values = to_array(record.predict_log.request.inputs["examples"]).tolist()
    assert tf.train.Example.FromString(values[0]) == kept
    assert values[1:] == texts[1:]
    (path,) = tmp_path.iterdir()
    assert b"secret" not in path.read_bytes()


def test_private_features_are_taken_out_of_inputs_of_examples(tmp_path: Path) -> None:
    plain = regression_pb2.RegressionRequest()
    plain.input.example_list.examples.append(example(age="7", email="secret@x"))
    plain.input.example_list.examples.append(example(email="secret@x"))
    context = regression_pb2.RegressionRequest()
    within = context.input.example_list_with_context
    within.examples.append(example(age="7", email="secret@x"))
    within.context.CopyFrom(example(email="secret@x", place="here"))
    logged(
        tmp_path,
        *(
            exchange(method=REGRESS, request=each.SerializeToString(), response=b"")
            for each in (plain, context)
        ),
        private=["email"],
    )
    (path,) = tmp_path.iterdir()
    assert b"secret" not in path.read_bytes()
    first, second = (
        input_pb2.Input.FromString(record.regress_log.request.input.SerializeToString())
        for record in read_log(path)
    )
    assert list(first.example_list.examples) == [
        example(age="7"),
        tf.train.Example(features=tf.train.Features()),
    ]
    found = second.example_list_with_context
    assert list(found.examples) == [example(age="7")]
    assert found.context == example(place="here")


def test_a_sequence_example_is_freed_of_both_kinds_of_features(tmp_path: Path) -> None:
    made = tf.train.SequenceExample()
    made.context.feature["email"].bytes_list.value.append(b"secret@x")
    made.feature_lists.feature_list["email"].feature.add().bytes_list.value.append(
        b"secret@x"
    )
    made.feature_lists.feature_list["clicks"].feature.add().int64_list.value.append(3)
    texts = np.array([made.SerializeToString()], object)
    logged(tmp_path, exchange(request=request(s=texts)), private=["email"])
    (record,) = read_log(tmp_path)
    (value,) = to_array(record.predict_log.request.inputs["s"])
    left = tf.train.SequenceExample.FromString(value)
    assert not left.context.feature
    assert list(left.feature_lists.feature_list) == ["clicks"]


def test_examples_that_cannot_be_taken_apart_are_not_written(tmp_path: Path) -> None:
    # Field 1 of Input is to hold messages, and holds what is none.
    broken = RegressionRequest.FromString(b"\x12\x05\x0a\x03\x0a\xff\x01")
    with pytest.raises(Unreadable):
        log = PredictionLog()
        log.regress_log.request.CopyFrom(broken)
        strip(log, frozenset(["email"]))
    log_ = RequestLog(tmp_path, "ranker", private=["email"])
    log_.add(exchange(method=REGRESS, request=broken.SerializeToString(), response=b""))
    log_.close()
    assert log_.ends["unreadable"] == 1
    assert list(tmp_path.iterdir()) == []


# --- files


def test_files_are_closed_by_size_and_by_age(tmp_path: Path) -> None:
    logged(tmp_path / "size", *(exchange(i) for i in range(9)), max_bytes=400)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "size").iterdir())]
    assert len(sizes) > 2 and all(size < 800 for size in sizes)
    assert len(list(read_log(tmp_path / "size"))) == 9

    log = RequestLog(
        tmp_path / "age", "ranker", rates={"ordinary": 1.0}, max_seconds=0.0
    )
    log.add(exchange())
    until(lambda: list((tmp_path / "age").glob("*.tfrecord")))
    log.close()


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "ranker", rates={"ordinary": 1.0})
    log.add(exchange())
    until(lambda: log.ends.get("written"))
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert recover(tmp_path) == 0  # its writer lives
    log.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".tfrecord"]


def test_what_a_killed_router_wrote_is_recovered_up_to_the_torn_record(
    tmp_path: Path,
) -> None:
    code = """
import sys, time
from penstock.components.serving.messages import PREDICT
from penstock.components.serving.router.request_log import Exchange, RequestLog
log = RequestLog(sys.argv[1], "ranker", rates={"ordinary": 1.0})
for _ in range(3):
    log.add(Exchange(PREDICT, b"", b"", 3, "stable"))
while log.ends.get("written") != 3:
    time.sleep(0.01)
time.sleep(1.5)
print("written", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    (partial,) = tmp_path.glob("*.partial")
    with open(partial, "ab") as file:
        file.write(framed(b"torn")[:-3])
    assert len(list(read_log(partial))) == 3  # readers tolerate it
    RequestLog(tmp_path, "ranker").close()
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".tfrecord"
    assert len(list(read_frames(path, torn=False))) == 3


def test_what_comes_too_fast_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    go = threading.Event()

    def wait(_: Exchange) -> str:
        go.wait(20)
        return "ordinary"

    log = RequestLog(tmp_path, "ranker", stratum=wait)
    for i in range(10):
        log.add(exchange(i))
    assert log.ends["dropped"] >= 6
    go.set()
    log.close()
    assert log.ends["dropped"] + log.ends["written"] == 10


def test_a_disk_that_is_full_loses_records_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(tmp_path, "ranker", rates={"ordinary": 1.0})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Files, "write", full)
    log.add(exchange())
    until(lambda: log.ends.get("lost"))
    assert "Requests are not logged: [Errno 28] No space left on device" in caplog.text
    monkeypatch.undo()
    log.add(exchange())
    log.close()
    assert log.ends["written"] == 1


def test_a_frame_is_that_of_tensorflow(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"one")
        writer.write(b"")
    assert path.read_bytes() == framed(b"one") + framed(b"")
    assert [record for _, record in read_frames(path)] == [b"one", b""]
    assert google_crc32c.implementation == "c"  # or it would be slow


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    path = tmp_path / "requests-1.tfrecord"
    good = framed(b"one")
    for at in (2, 13):
        bad = bytearray(good + good)
        bad[len(good) + at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(DataError) as raised:
            list(read_frames(path))
        assert str(raised.value) == (
            f"'{path}', record 2: a checksum is wrong. The file is damaged; take its "
            "other copies, or remove it."
        )
    path.write_bytes(good[:-1])
    assert list(read_frames(path)) == []
    with pytest.raises(DataError) as raised:
        list(read_frames(path, torn=False))
    assert str(raised.value) == (
        f"'{path}', record 1: the file ends inside the record. It is no whole TFRecord "
        "file; write it again."
    )


def test_what_is_no_request_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        list(read_log(tmp_path / "none"))
    assert str(raised.value) == (
        f"There is no request log '{tmp_path / 'none'}'. Check the path."
    )
    path = tmp_path / "requests-1.tfrecord"
    path.write_bytes(framed(b"\xff\xff"))
    with pytest.raises(DataError) as raised:
        list(read_log(path))
    assert str(raised.value) == (
        f"'{path}' holds a record that is no PredictionLog. Pass the files of a "
        "request log."
    )


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServingError) as raised:
        RequestLog(tmp_path / "file", "ranker")
    assert str(raised.value) == (
        f"The request log cannot be written to '{tmp_path / 'file'}': File exists. "
        "Pass a folder that this user may write to."
    )


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_a_rate_is_a_share(wrong: float, tmp_path: Path) -> None:
    with pytest.raises(ServingError) as raised:
        RequestLog(tmp_path, "ranker", rates={"vip": wrong})
    assert str(raised.value) == (
        f"The request log is to keep {wrong:g} of stratum 'vip', which is no share. "
        "Pass a number from 0 to 1."
    )


def test_every_kind_of_call_is_logged_under_its_kind(tmp_path: Path) -> None:
    found = logged(
        tmp_path,
        exchange(),
        exchange(method=CLASSIFY, request=b"", response=b""),
        exchange(method=REGRESS, request=b"", response=b""),
        exchange(method=MULTI_INFERENCE, request=b"", response=b""),
    )
    assert [record.WhichOneof("log_type") for record in found] == [
        "predict_log",
        "classify_log",
        "regress_log",
        "multi_inference_log",
    ]
