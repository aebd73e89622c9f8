"""Logs as columns: real request logs, Parquet and CSV, and everything odd in them."""

from __future__ import annotations

import datetime
import gzip
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from penstock.components.columns import parquet, tfrecord
from penstock.components.monitoring import log_files, prediction_logs
from penstock.components.monitoring.logs import (
    ID,
    LANE,
    STRATUM,
    TIME,
    VERSION,
    LogFormat,
    LogRules,
    LogTable,
    of_table,
    read_log,
    read_log_batches,
)
from penstock.components.monitoring.windows import Window
from penstock.components.serving.messages import (
    CLASSIFY,
    MULTI_INFERENCE,
    PREDICT,
    REGRESS,
    Message,
    PredictionLog,
    to_array,
)
from penstock.components.serving.router.request_log import Exchange, RequestLog
from penstock.schemas.errors import DataError
from tests.components.monitoring.written_logs import (
    NOON,
    answer,
    predict_log,
    request,
    with_metadata,
    write,
)

DAY = Window.day("2026-11-30")
NEXT = Window.day("2026-12-01")


def column(log: LogTable, name: str) -> list[Any]:
    found: list[Any] = log.table.column(name).to_pylist()
    return found


def records(count: int = 6, **fields: Any) -> list[Message]:
    return [
        predict_log(
            {"id": [f"r{i}"], "fare": [float(i)], "company": ["a" if i % 2 else "b"]},
            {"score": [[i / 10]]},
            time=NOON + i,
            **fields,
        )
        for i in range(count)
    ]


# --- what the router writes


def test_what_the_router_logged_is_read_as_columns(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "taxi", rates={"ordinary": 1.0})
    for i in range(40):
        log.add(
            Exchange(
                PREDICT,
                request(id=[f"r{i}"], fare=np.array([i], np.float32), n=[i]),
                answer(score=np.array([i / 40], np.float32)),
                version=7,
                lane="stable",
            )
        )
    log.close()
    found = read_log(tmp_path, format=LogFormat(id="id"))
    assert found.features == ("fare", "n") and found.scores == ("score",)
    assert found.rows == 40 and found.versions == {"7": 40}
    assert sorted(column(found, ID)) == sorted(f"r{i}" for i in range(40))
    by_id = dict(zip(column(found, ID), column(found, "fare"), strict=True))
    assert by_id == {f"r{i}": float(i) for i in range(40)}
    assert found.table.schema.field("n").type == pa.int64()
    assert set(column(found, LANE)) == {"stable"}
    assert set(column(found, STRATUM)) == {"ordinary"}
    assert found.probabilities.tolist() == [1.0] * 40
    now = time.time()
    assert np.all((now - 600 < found.times) & (found.times <= now))


def test_weights_of_a_sampled_log_add_up_to_the_traffic(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "taxi", rates={"ordinary": 0.25}, at_least=50, seed=5)
    for i in range(4000):
        log.add(Exchange(PREDICT, request(id=[f"{i}"]), answer(y=[1.0]), 7, "stable"))
    log.close()
    found = read_log(tmp_path, format=LogFormat(id="id"))
    assert found.rows < 1200
    assert found.weights.sum() == pytest.approx(4000, rel=0.1)


def test_a_fallback_is_no_answer_of_the_candidate_nor_of_its_traffic(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [
            predict_log({"x": [1.0]}, {"y": [1.0]}, lane="stable"),
            predict_log({"x": [2.0]}, {"y": [1.0]}, lane="fallback 8 INTERNAL"),
        ],
    )
    found = read_log(path)
    assert column(found, "x") == [1.0]
    assert found.notes == ("1 records of lane 'fallback' were left out.",)
    both = read_log(path, rules=LogRules(lanes=("stable", "fallback")))
    assert column(both, LANE) == ["stable", "fallback 8 INTERNAL"]


def test_failures_lie_in_files_that_a_folder_does_not_give(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "taxi", rates={"ordinary": 1.0})
    log.add(Exchange(PREDICT, request(x=[1.0]), answer(y=[1.0]), 7, "stable"))
    log.add(Exchange(PREDICT, request(x=[2.0]), None, 7, "failed 14"))
    log.close()
    assert read_log(tmp_path).rows == 1
    (failures,) = tmp_path.glob("failures-*")
    with pytest.raises(DataError) as error:
        read_log(failures)
    assert "1 records of lane 'failed' were left out." in str(error.value)


# --- tensors, against the reader of tensors


SHAPES = st.sampled_from([(1,), (3,), (3, 1), (2, 4), (4, 2), (2, 2, 2), (0,), (0, 3)])
DTYPES = st.sampled_from(["f4", "f8", "i4", "i8", "u1", "u8", "?", "f2", "O"])


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(SHAPES, st.booleans()), min_size=1, max_size=6),
    DTYPES,
    st.integers(0, 2**32 - 1),
)
def test_tensors_become_the_values_that_they_hold(
    tmp_path: Path, shapes: list[tuple[tuple[int, ...], bool]], dtype: str, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    logs: list[Message] = []
    expected: list[Any] = []
    for shape, one_by_one in shapes:
        values = draw.integers(0, 2 if dtype == "?" else 100, shape)
        array: Any = values.astype(dtype) if dtype != "O" else np.empty(shape, object)
        if dtype == "O":
            array.ravel()[:] = [str(each).encode() for each in values.ravel()]
        made = predict_log({}, {"y": np.zeros(shape[:1])})
        tensor = made.predict_log.request.inputs["x"]
        proto = tf.make_tensor_proto(array, shape=shape)
        if one_by_one and dtype in ("f4", "i8"):
            proto.ClearField("tensor_content")
            field = {"f4": proto.float_val, "i8": proto.int64_val}[dtype]
            del field[:]
            field.extend(array.ravel().tolist())
        tensor.MergeFromString(proto.SerializeToString())
        assert np.array_equal(to_array(tensor), array)
        logs.append(made)
        expected += (
            array.reshape(shape[0], -1).tolist() if array.size else ([[]] * shape[0])
        )
    path = write(tmp_path / "requests-t.tfrecord", logs)
    found = read_log(path, rules=LogRules(on_empty="accept"))
    if not expected:
        assert found.rows == 0
        return
    if "x" not in found.table.column_names:
        raise AssertionError(found.table.schema)
    cells = column(found, "x")
    if all(len(row) == 1 for row in expected):
        expected = [row[0] for row in expected]
        cells = [each.encode() if isinstance(each, str) else each for each in cells]
    else:
        cells = [
            [each.encode() if isinstance(each, str) else each for each in row]
            for row in cells
        ]
    assert cells == expected


def test_a_value_without_rows_is_that_of_every_row(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"x": [1.0, 2.0, 3.0], "city": "bern"}, {"y": [[1], [2], [3]]})],
    )
    found = read_log(path)
    assert column(found, "city") == ["bern"] * 3
    assert column(found, "y") == [1, 2, 3]


def test_an_input_that_a_request_lacks_is_missing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [
            predict_log({"x": [1.0], "z": [[1, 2]]}, {"y": [1.0]}),
            predict_log({"x": [2.0, 3.0]}, {"y": [1.0, 2.0]}),
            predict_log({"z": [[3, 4]]}, {"y": [1.0]}),
        ],
    )
    found = read_log(path)
    assert column(found, "x") == [1.0, 2.0, 3.0, None]
    assert column(found, "z") == [[1, 2], None, None, [3, 4]]


def test_tensors_that_disagree_on_their_rows_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"x": [1.0, 2.0], "grid": [1, 2, 3]}, {"y": [1.0, 2.0]})],
    )
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"'{path}', record 1: its tensors disagree on the number of rows: 'grid' 3, "
        "'x' 2, 'y' 2. Name those that are no rows in LogFormat(leave_out=...)."
    )
    found = read_log(path, format=LogFormat(leave_out=("grid",)))
    assert found.features == ("x",) and found.rows == 2


def test_an_output_counts_its_rows_beside_an_input_of_its_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"x": [1.0, 2.0]}, {"x": [1.0, 2.0, 3.0]})],
    )
    with pytest.raises(DataError, match="on the number of rows: 'x' 2, 'x' 3"):
        read_log(path)


def test_shapes_that_are_none_are_refused(tmp_path: Path) -> None:
    made = predict_log({"x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}, {})
    dims = made.predict_log.request.inputs["x"].tensor_shape.dim
    dims[0].size, dims[1].size = -2, -3
    made.predict_log.response.SetInParent()
    path = write(tmp_path / "requests-a.tfrecord", [made])
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"'{path}', record 1: 'x' has the shape [-2, -3], with a negative size. Send "
        "the size of every dimension."
    )


def test_an_input_that_changes_its_type_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [
            predict_log({"x": [1.0]}, {"y": [1.0]}),
            predict_log({"x": ["one"]}, {"y": [1.0]}),
        ],
    )
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"'{path}', record 2: input 'x' is text where it was float64 before. Log it "
        "with one type, or name it in LogFormat(leave_out=...)."
    )


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord", [predict_log({"x": [1j]}, {"y": [1.0]})]
    )
    with pytest.raises(DataError, match="input 'x' holds complex numbers, which no"):
        read_log(path)


def test_an_output_with_the_name_of_an_input_gets_another(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"id": ["a"], "x": [1.0]}, {"x": [0.5]})],
    )
    found = read_log(path, format=LogFormat(id="id"))
    assert found.features == ("x",) and found.scores == ("output_x",)


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"x": [1.0], "output_x": [1.0]}, {"x": [0.5]})],
    )
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"The log '{path}' has the output 'x', whose other name 'output_x' is that of "
        "an input, too. Name one of them in LogFormat(leave_out=...)."
    )
    both = np.array([example(x=1.0).SerializeToString()], object)
    write(path, [predict_log({"x": [1.0], "examples": both}, {"y": [0.5]})])
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"'{path}': 'x' is the name of an input and of a feature of its Examples. Name "
        "one of them in LogFormat(leave_out=...)."
    )


def test_records_without_an_answer_are_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord", [predict_log({"x": [1.0]}, {}), *records(1)]
    )
    found = read_log(path)
    assert found.rows == 1
    assert found.notes == ("1 records without an answer were left out.",)


# --- Examples


def example(**features: Any) -> tf.train.Example:
    made = tf.train.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                feature.bytes_list.value.append(each.encode())
            elif isinstance(each, float):
                feature.float_list.value.append(each)
            else:
                feature.int64_list.value.append(each)
    return made


def test_serialized_examples_of_predict_become_their_features(tmp_path: Path) -> None:
    batches = [[example(id="a", fare=1.5, tips=[1, 2])], [example(id="b", fare=2.5)]]
    path = write(
        tmp_path / "requests-a.tfrecord",
        [
            predict_log(
                {"examples": np.array([e.SerializeToString() for e in some], object)},
                {"score": [[0.5]]},
            )
            for some in batches
        ],
    )
    found = read_log(path, format=LogFormat(id="id"))
    assert found.features == ("fare", "tips")
    assert column(found, ID) == ["a", "b"]
    assert column(found, "fare") == [1.5, 2.5]
    assert column(found, "tips") == [[1, 2], None]
    raw = read_log(path, format=LogFormat(examples=None))
    assert raw.features == ("examples",)


def test_what_is_no_example_is_refused(tmp_path: Path) -> None:
    texts = np.array([b"\x0a\x05abc"], object)
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"examples": texts}, {"y": [1.0]})],
    )
    with pytest.raises(DataError, match="holds records that are not what"):
        read_log(path)


def classify_log() -> Message:
    sent = classification_pb2.ClassificationRequest()
    sent.input.example_list.examples.extend([example(x=1.0), example(x=2.0)])
    got = classification_pb2.ClassificationResponse()
    for score in (0.25, 0.75):
        classes = got.result.classifications.add().classes
        classes.add(label="no", score=1 - score)
        classes.add(label="yes", score=score)
    log = PredictionLog()
    log.classify_log.request.MergeFromString(sent.SerializeToString())
    log.classify_log.response.MergeFromString(got.SerializeToString())
    return with_metadata(log)


def regress_log() -> Message:
    sent = regression_pb2.RegressionRequest()
    within = sent.input.example_list_with_context
    within.context.CopyFrom(example(city="bern", x=9.0))
    within.examples.extend([example(x=3.0), example(y=4.0)])
    got = regression_pb2.RegressionResponse()
    for value in (0.5, 1.5):
        got.result.regressions.add(value=value)
    log = PredictionLog()
    log.regress_log.request.MergeFromString(sent.SerializeToString())
    log.regress_log.response.MergeFromString(got.SerializeToString())
    return with_metadata(log)


def test_classify_gives_scores_and_classes(tmp_path: Path) -> None:
    found = read_log(write(tmp_path / "requests-a.tfrecord", [classify_log()]))
    assert column(found, "x") == [1.0, 2.0]
    assert column(found, "scores") == [[0.75, 0.25], [0.25, 0.75]]
    assert column(found, "classes") == [["no", "yes"]] * 2
    assert found.scores == ("classes", "scores")


def test_regress_gives_outputs_and_every_example_has_its_context(
    tmp_path: Path,
) -> None:
    found = read_log(write(tmp_path / "requests-a.tfrecord", [regress_log()]))
    assert column(found, "outputs") == [0.5, 1.5]
    assert column(found, "city") == ["bern", "bern"]
    assert column(found, "x") == [3.0, 9.0]
    assert column(found, "y") == [None, 4.0]


def test_several_inferences_have_columns_by_signature(tmp_path: Path) -> None:
    sent = inference_pb2.MultiInferenceRequest()
    sent.input.example_list.examples.append(example(x=1.0))
    got = inference_pb2.MultiInferenceResponse()
    one, other = got.results.add(), got.results.add()
    one.model_spec.signature_name = "tips"
    one.regression_result.regressions.add(value=2.5)
    other.model_spec.signature_name = "big"
    other.classification_result.classifications.add().classes.add(score=0.5)
    log = PredictionLog()
    log.multi_inference_log.request.MergeFromString(sent.SerializeToString())
    log.multi_inference_log.response.MergeFromString(got.SerializeToString())
    path = write(tmp_path / "requests-a.tfrecord", [with_metadata(log)])
    found = read_log(path)
    assert found.scores == ("big_scores", "tips_outputs")
    assert column(found, "tips_outputs") == [2.5]
    assert column(found, "big_scores") == [0.5]


def test_all_calls_of_the_router_come_through_its_log(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, "taxi", rates={"ordinary": 1.0})
    for method, kind, made in (
        (CLASSIFY, "classify_log", classify_log()),
        (REGRESS, "regress_log", regress_log()),
    ):
        logged = getattr(made, kind)
        log.add(
            Exchange(
                method,
                logged.request.SerializeToString(),
                logged.response.SerializeToString(),
                7,
                "stable",
            )
        )
    log.close()
    found = read_log(tmp_path)
    assert found.rows == 4
    assert column(found, "x") == [1.0, 2.0, 3.0, 9.0]
    assert found.scores == ("classes", "outputs", "scores")
    assert MULTI_INFERENCE.path.endswith("MultiInference")


def test_an_input_that_is_no_examples_is_refused(tmp_path: Path) -> None:
    log = regress_log()
    log.regress_log.request.ClearField("input")
    log.regress_log.request.MergeFromString(b"\x12\x05\x0a\x03\x0a\xff\x01")
    path = write(tmp_path / "requests-a.tfrecord", [log])
    with pytest.raises(DataError, match="record 1: its input holds no tf"):
        read_log(path)


# --- windows, versions, files


def test_only_rows_of_the_window_are_read(tmp_path: Path) -> None:
    times = [DAY.start - 1, DAY.start, DAY.end - 1, DAY.end]
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"x": [t]}, {"y": [1.0]}, time=t) for t in times],
    )
    found = read_log(path, window=DAY)
    assert column(found, "x") == times[1:3]
    assert found.window == DAY and found.notes == ()


def router_file(folder: Path, began: str, ended: float, number: int = 1) -> Path:
    path = folder / f"requests-{began}-host-12-0a1b2c3d-{number:05}.tfrecord"
    write(path, records())
    os.utime(path, (ended, ended))
    return path


def test_files_that_cannot_hold_the_window_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = router_file(tmp_path, "20261128T000000Z", DAY.start - 7_200, 1)
    during = router_file(tmp_path, "20261128T000000Z", NOON + 30, 2)
    late = router_file(tmp_path, "20261201T000000Z", NEXT.start + 30, 1)
    read: list[Path] = []
    original = prediction_logs.read

    def watched(path: Path, *args: Any) -> Any:
        read.append(path)
        return original(path, *args)

    monkeypatch.setattr(prediction_logs, "read", watched)
    assert read_log(tmp_path, window=DAY, format=LogFormat(id="id")).rows == 6
    assert read == [during]
    assert early.exists() and late.exists()


def test_a_file_that_is_still_written_is_said(tmp_path: Path) -> None:
    write(tmp_path / "requests-a.tfrecord", records())
    (tmp_path / "requests-b.tfrecord.partial").write_bytes(b"")
    found = read_log(tmp_path)
    assert found.notes == (
        "1 files are still being written, the first of them "
        "'requests-b.tfrecord.partial', and were not read.",
    )


def test_several_versions_need_a_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records(4) + records(2, version=8))
    rules = LogRules(on_backwards="accept")
    with pytest.raises(DataError) as error:
        read_log(path, window=DAY, rules=rules)
    assert str(error.value) == (
        f"The log '{path}' holds answers of several versions in the window "
        "2026-11-30: '7' (4 rows), '8' (2 rows). Read those of one by version='8', or "
        'take them as one with LogRules(on_mixed_versions="accept").'
    )
    one = read_log(path, window=DAY, version=8)
    assert one.versions == {"8": 2}
    assert "4 records of other versions than '8' were left out." in one.notes
    both = read_log(path, rules=LogRules(on_mixed_versions="accept"))
    assert both.versions == {"7": 4, "8": 2}
    assert "Rows of the versions '7', '8' were taken as one." in both.notes


def test_a_table_of_several_versions_is_read_by_one() -> None:
    table = pa.table({"x": [1, 2, 3], "model": [7, 7, 8]})
    format = LogFormat(version="model")
    with pytest.raises(DataError, match=r"versions: '7' \(2 rows\), '8' \(1") as error:
        of_table(table, format=format)
    assert str(error.value).startswith("The table holds answers of several versions: ")
    found = of_table(table, format=format, version="7")
    assert column(found, "x") == [1, 2]
    assert found.notes == ("1 rows of other versions than '7' were left out.",)


def test_a_log_that_says_neither_lane_nor_rate_is_read(tmp_path: Path) -> None:
    """As TensorFlow Serving writes it where nobody routes."""
    path = write(
        tmp_path / "requests-a.tfrecord", records(2, lane="", stratum="", rate=None)
    )
    found = read_log(path)
    assert column(found, LANE) == column(found, STRATUM) == [None, None]
    assert found.weights.tolist() == [1.0, 1.0]


def test_a_record_without_a_version_says_none(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records(2, version=None))
    found = read_log(path)
    assert column(found, VERSION) == [None, None]
    assert found.versions == {"": 2}


def test_a_window_without_rows_is_refused_or_accepted(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    with pytest.raises(DataError) as error:
        read_log(path, window=NEXT)
    assert str(error.value) == (
        f"The log '{path}' has no rows in the window 2026-12-01, in 1 file that may "
        "hold some. Check the window, and that requests are logged, or accept it with "
        'LogRules(on_empty="accept").'
    )
    with pytest.raises(DataError, match=r"of version '9' \(there are rows of '7'\)"):
        read_log(path, window=DAY, version=9)
    empty = read_log(path, window=NEXT, rules=LogRules(on_empty="accept"))
    assert empty.rows == 0 and empty.times.shape == (0,)


def test_times_that_go_backwards_are_refused_or_accepted(tmp_path: Path) -> None:
    times = [NOON, NOON + 400, NOON + 100, NOON + 500]
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"x": [t]}, {"y": [1.0]}, time=t) for t in times],
    )
    sentence = (
        f"Times go backwards in '{path}': row 3 is of 2026-11-30T12:01:40Z, 300 "
        "seconds before a row above it."
    )
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"{sentence} Look at the clock of the machine that logs, or, if the log is "
        "not written in order of time, read it with "
        'LogRules(on_backwards="accept").'
    )
    found = read_log(path, rules=LogRules(on_backwards="accept"))
    assert found.times.tolist() == sorted(times)
    assert found.notes == (sentence,)
    assert read_log(path, rules=LogRules(backwards_seconds=300)).notes == ()


# --- ids


def test_ids_that_come_twice_are_refused_or_the_first_is_taken(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [
            predict_log({"id": ["a"], "x": [2.0]}, {"y": [1.0]}, time=NOON + 60),
            predict_log({"id": ["a"], "x": [1.0]}, {"y": [1.0]}, time=NOON),
            predict_log({"id": ["b"], "x": [3.0]}, {"y": [1.0]}, time=NOON + 70),
        ],
    )
    format = LogFormat(id="id")
    with pytest.raises(DataError) as error:
        read_log(path, format=format)
    assert str(error.value) == (
        f"The log '{path}' has the id 'a' in several rows, and at least 1 such rows. "
        "Log an id of its own for every request, or take the first row of each with "
        'LogRules(on_duplicate="first").'
    )
    found = read_log(path, format=format, rules=LogRules(on_duplicate="first"))
    assert column(found, "x") == [1.0, 3.0]
    assert found.notes == ("1 rows with an id that another row has were left out.",)


def test_rows_without_an_id_are_refused_or_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [
            predict_log({"id": ["a"], "x": [1.0]}, {"y": [1.0]}),
            predict_log({"x": [2.0]}, {"y": [1.0]}),
        ],
    )
    format = LogFormat(id="id")
    with pytest.raises(DataError) as error:
        read_log(path, format=format, window=DAY)
    assert str(error.value) == (
        f"The log '{path}' has 1 rows without an id in the window 2026-11-30, which "
        "nothing can be joined to. Log the id of every request, or leave such rows out "
        'with LogRules(on_missing_id="leave_out").'
    )
    found = read_log(path, format=format, rules=LogRules(on_missing_id="leave_out"))
    assert column(found, ID) == ["a"]
    assert found.notes == ("1 rows without an id were left out.",)


def test_a_log_without_ids_tells_rows_by_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    found = read_log(path)
    assert not found.has_ids
    assert column(found, ID) == [f"requests-a.tfrecord:{i}" for i in range(6)]
    with pytest.raises(DataError) as error:
        found.need_ids("labels are joined by id")
    assert str(error.value) == (
        f"The log '{path}' has no ids, and labels are joined by id. Log what tells "
        "requests apart, and name its column as LogFormat(id=...)."
    )


def test_an_id_that_no_input_is_gets_a_near_miss(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    with pytest.raises(DataError) as error:
        read_log(path, format=LogFormat(id="compani"))
    assert str(error.value) == (
        f"The LogFormat names the column 'compani', which the log '{path}' does not "
        "have (it has 'company', 'fare', 'id', 'score'). Did you mean 'company'?"
    )


def test_whole_numbers_are_ids_and_lists_are_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "requests-a.tfrecord",
        [predict_log({"n": [7], "l": [[1, 2]], "f": [0.5]}, {"y": [1.0]})],
    )
    assert column(read_log(path, format=LogFormat(id="n")), ID) == ["7"]
    with pytest.raises(DataError, match="has lists of ids, where a row has one"):
        read_log(path, format=LogFormat(id="l"))
    with pytest.raises(DataError, match=r"'f' of .* holds 0.5, which is no whole num"):
        read_log(path, format=LogFormat(id="f"))


# --- damage


def test_every_record_is_counted_by_its_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    monkeypatch.setattr(tfrecord, "count_records", lambda path: 7)
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"'{path}' gave 6 records where its framing has 7. It was changed while it "
        "was read; read it again."
    )


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match="record 6: the file ends inside the record"):
        read_log(path)
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(DataError, match="record 1: a checksum is wrong"):
        read_log(path)
    write(path, [PredictionLog()])
    with pytest.raises(DataError, match="its log_metadata has no timestamp_secs"):
        read_log(path)
    write(path, records(1, rate=1.5))
    with pytest.raises(DataError, match=r"it was kept with probability 1\.5, which no"):
        read_log(path)


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    from penstock.components.serving.router.frames import framed

    path = tmp_path / "requests-a.tfrecord"
    path.write_bytes(framed(b"\xff\xff\xff"))
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        f"'{path}', record 1: it is no PredictionLog. Pass the files of a request log."
    )


def test_compressed_logs_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_log(path).rows == 6


def test_other_kinds_of_records_are_counted(tmp_path: Path) -> None:
    other = PredictionLog()
    other.session_run_log.SetInParent()
    path = write(tmp_path / "requests-a.tfrecord", [with_metadata(other), *records(1)])
    found = read_log(path)
    assert found.rows == 1
    assert found.notes == ("1 records of kind 'session_run_log' were left out.",)


# --- Parquet and CSV

TABLE = pa.table(
    {
        "request": ["a", "b", "c", "d"],
        "at": pa.array(
            [datetime.datetime(2026, 11, 30, 12, 0, i) for i in range(4)],
            pa.timestamp("us"),
        ),
        "fare": [1.0, None, 3.0, 4.0],
        "company": ["x", "y", None, "x"],
        "p": [0.5, 0.25, 0.75, 1.0],
        "tipped": [1, 0, 1, 1],
        "model": [7, 7, 7, 7],
        "kept": [1.0, 0.5, 0.5, 1.0],
    }
)
FORMAT = LogFormat(
    id="request",
    time="at",
    version="model",
    probability="kept",
    scores=("p",),
    label="tipped",
)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_parquet_and_csv_give_the_same_log(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(TABLE, path)
    else:
        TABLE.to_pandas().to_csv(path, index=False)
    found = read_log(path, window=DAY, format=FORMAT)
    assert found.features == ("fare", "company")
    assert found.scores == ("p",) and found.label == "tipped"
    assert column(found, ID) == ["a", "b", "c", "d"]
    assert column(found, TIME) == [NOON + i for i in range(4)]
    assert found.versions == {"7": 4}
    assert column(found, "fare") == [1.0, None, 3.0, 4.0]
    assert column(found, "company") == ["x", "y", None, "x"]
    assert found.weights.tolist() == [1.0, 2.0, 2.0, 1.0]
    again = read_log(path, window=DAY, format=FORMAT)
    assert again.table.equals(found.table)


def test_ids_of_a_csv_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("id,x\n007,1\n7,2\n")
    assert column(read_log(path, format=LogFormat(id="id")), ID) == ["007", "7"]


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("id,x\na,1\nb,2,3\n")
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value) == (
        "log.csv, line 3: 3 fields where the header has 2. Fix the line."
    )


def test_a_csv_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("x\n1\n2\n")
    source = log_files.TableFiles([path], "CSV", LogFormat(), None)
    path.write_text("x\n1\ntwo\n")
    with pytest.raises(DataError) as error:
        list(source.pieces(["x"], 10))
    assert str(error.value) == (
        f"'{path}' has other cells now than a moment ago. It was changed while it was "
        "read; read it again."
    )


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([NOON, NOON + 1], "s"),
        ([NOON * 1e3, NOON * 1e3 + 1e3], "ms"),
        ([int(NOON) * 10**9, (int(NOON) + 1) * 10**9], "ns"),
        (["2026-11-30T12:00:00Z", "2026-11-30T13:00:01+01:00"], "s"),
        (["2026-11-30 12:00:00", "2026-11-30T12:00:01"], "s"),
        (["2026-11-30T12:00:00Z", "2026-11-30 12:00:01"], "s"),
    ],
)
def test_times_are_understood(values: list[Any], unit: Any) -> None:
    found = log_files.seconds(pa.array(values), unit, "It", "at")
    assert found.tolist() == [NOON, NOON + 1]


def test_dates_and_zones_are_times() -> None:
    dates = pa.array([datetime.date(2026, 11, 30)])
    assert log_files.seconds(dates, "s", "It", "at").tolist() == [DAY.start]
    zoned = pa.array([int(NOON * 1e3)]).cast(pa.timestamp("ms", "Europe/Zurich"))
    assert log_files.seconds(zoned, "s", "It", "at").tolist() == [NOON]
    nothing = log_files.seconds(pa.nulls(2), "s", "It", "at")
    assert np.isnan(nothing).all()


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(DataError, match=r"has a text that is no time: .* 'yesterday'"):
        log_files.seconds(pa.array(["yesterday"]), "s", "The log", "at")
    with pytest.raises(DataError, match="has type bool, which is no time"):
        log_files.seconds(pa.array([True]), "s", "The log", "at")


def test_row_groups_outside_the_window_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = np.arange(DAY.start - 10, DAY.start + 10, dtype=np.int64)
    path = tmp_path / "log.parquet"
    read: list[int] = []
    original = parquet.read_group

    def watched(path: Any, index: int, **options: Any) -> Any:
        read.append(index)
        return original(path, index, **options)

    monkeypatch.setattr(parquet, "read_group", watched)
    for values in (times, pa.array(times * 10**6).cast(pa.timestamp("us"))):
        pq.write_table(pa.table({"at": values, "x": times}), path, row_group_size=5)
        read.clear()
        found = read_log(path, window=DAY, format=LogFormat(time="at"))
        assert column(found, "x") == times[10:].tolist()
        assert column(found, ID) == [f"log.parquet:{i}" for i in range(10, 20)]
        assert 0 not in read and {2, 3} <= set(read)


def test_row_groups_are_not_judged_by_texts_that_do_not_sort_as_their_times(
    tmp_path: Path,
) -> None:
    times = ["2026-11-29T23:30:00-05:00", "2026-11-29T23:59:00Z", "2026-11-29 12:00"]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"at": times, "x": [1, 2, 3]}), path)
    rules = LogRules(on_backwards="accept")
    found = read_log(path, window=DAY, format=LogFormat(time="at"), rules=rules)
    assert column(found, "x") == [1]


def test_dates_in_paths_choose_the_folders(tmp_path: Path) -> None:
    for day in ("2026-11-29", "2026-11-30", "2026-12-01"):
        (tmp_path / day).mkdir()
        start = Window.day(day).start
        pq.write_table(
            pa.table({"at": [start, start + 5], "day": [day, day]}),
            tmp_path / day / "log.parquet",
        )
    pattern = str(tmp_path / "{date}" / "*.parquet")
    format = LogFormat(time="at")
    found = read_log(pattern, window=DAY, format=format)
    assert column(found, "day") == ["2026-11-30"] * 2
    (tmp_path / "2026-11-29" / "log.parquet").write_bytes(b"never opened")
    assert read_log(pattern, window=DAY, format=format).rows == 2
    with pytest.raises(DataError, match="There is no file of a log in"):
        read_log(pattern, window=Window.day("2020-01-01"), format=format)


def test_a_column_that_some_files_lack_is_missing_there_and_said(
    tmp_path: Path,
) -> None:
    pq.write_table(pa.table({"x": [1], "y": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.5]}), tmp_path / "b.parquet")
    found = read_log(tmp_path)
    assert column(found, "x") == [1.0, 1.5] and column(found, "y") == ["a", None]
    assert found.notes == (
        "Column 'y' is missing in 1 of 2 files, the first of them 'b.parquet'.",
    )
    pq.write_table(pa.table({"x": ["one"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"Column 'x' has type string in .* and int64"):
        read_log(tmp_path)


def test_ids_of_many_files_are_whole_whatever_their_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [7, 2**53 - 1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [8.0, None]}), tmp_path / "b.parquet")
    found = read_log(
        tmp_path, format=LogFormat(id="n"), rules=LogRules(on_missing_id="leave_out")
    )
    assert column(found, ID) == ["7", "9007199254740991", "8"]
    # Beside floats it would be one, the same as its neighbor.
    pq.write_table(pa.table({"n": [2**53 + 1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as error:
        read_log(tmp_path, format=LogFormat(id="n"))
    assert str(error.value) == (
        f"Column 'n' of '{tmp_path / 'a.parquet'}' holds 9007199254740992 as double, "
        "and from 2^53 on such numbers stand for several whole ones each. Write it as "
        "text or whole numbers."
    )


def test_lanes_of_a_table_count_as_those_of_a_request_log() -> None:
    table = pa.table({"x": [1, 2, 3, 4], "lane": ["stable", "shadow", None, ""]})
    found = of_table(table, format=LogFormat(lane="lane"))
    assert column(found, "x") == [1, 3, 4]
    assert found.notes == ("1 records of lane 'shadow' were left out.",)


@pytest.mark.parametrize(
    ("changes", "format", "sentence"),
    [
        (
            {"kept": [1.0, 0.0, 1.0, 1.0]},
            FORMAT,
            "Column 'kept' of It has 1 values that are no probabilities, the first of "
            "them 0. Log with which probability a row was kept, from above 0 to 1.",
        ),
        (
            {"kept": ["a"] * 4},
            FORMAT,
            "Column 'kept' of It has type string, which is no probability. Name a "
            "column of numbers as LogFormat(probability=...).",
        ),
        (
            {"at": [NOON, None, NOON, NOON]},
            FORMAT,
            "It has 1 rows without a time, the first of them row 2. Log the time of "
            "every request.",
        ),
        (
            {},
            LogFormat(id="request"),
            "It has no column of times, so that nobody can tell the rows of the window "
            "2026-11-30. Name it as LogFormat(time=...).",
        ),
        (
            {"log_time": [1] * 4},
            FORMAT,
            "It has a column 'log_time', a name that is kept for what is known of "
            "every row. Name the column in LogFormat for what it is, or in its "
            "leave_out.",
        ),
        (
            {"request": [b"\xff"] * 4},
            FORMAT,
            "Column 'request' of It holds bytes that are no text. Log ids as text or "
            "whole numbers.",
        ),
    ],
)
def test_columns_that_are_not_what_they_should_be(
    changes: dict[str, Any], format: LogFormat, sentence: str
) -> None:
    table = TABLE
    for name, values in changes.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(values))
        else:
            table = table.append_column(name, pa.array(values))
    with pytest.raises(DataError) as error:
        of_table(table, window=DAY, format=format, subject="It")
    assert str(error.value) == sentence


def test_paths_that_are_no_log(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_log()
    assert str(error.value) == "No log was named. Pass its files or folders."
    with pytest.raises(DataError) as error:
        read_log(tmp_path / "nowhere")
    assert str(error.value) == (
        f"There is no log '{tmp_path / 'nowhere'}'. Check the path."
    )
    (tmp_path / "days" / "2026-11-30").mkdir(parents=True)
    (tmp_path / "days" / ".state").mkdir()
    with pytest.raises(DataError) as error:
        read_log(tmp_path / "days")
    assert str(error.value) == (
        f"There is no file of a log in '{tmp_path / 'days'}'. Folders in it are not "
        f"looked into: '{tmp_path / 'days'}/*' names them. Pass finished request logs "
        "of the router, or Parquet or CSV files."
    )
    for content, begins in (
        (b"", "is empty"),
        (b"a,b\n1,2\n", "begins with b'a,b\\n'"),
    ):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError) as error:
            read_log(tmp_path)
        assert str(error.value) == (
            f"'{tmp_path / 'a.parquet'}' is no Parquet file: it {begins}. Write it "
            "again, or give it the name of what it is."
        )
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "requests-b.tfrecord.partial").write_bytes(b"")
    with pytest.raises(DataError) as error:
        read_log(tmp_path)
    assert str(error.value) == (
        f"There is no file of a log in '{tmp_path}' (1 is still being written). Pass "
        "finished request logs of the router, or Parquet or CSV files."
    )
    (tmp_path / "requests-b.tfrecord.partial").unlink()
    pq.write_table(TABLE, tmp_path / "a.parquet")
    with pytest.raises(DataError) as error:
        read_log(tmp_path, version="4", format=LogFormat(time="at"))
    assert str(error.value) == (
        f"The log '{tmp_path}' has no rows of version '4' (no row says its version; "
        "name the column that does), in 1 file that may hold some. 4 rows of other "
        "versions than '4' were left out. Check the window, and that requests are "
        'logged, or accept it with LogRules(on_empty="accept").'
    )
    (tmp_path / "b.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match=r"kinds: '.*b\.csv' is CSV, '.*a\.p"):
        read_log(tmp_path)


# --- batches


def batches_of(*paths: Path, **options: Any) -> list[LogTable]:
    return list(read_log_batches(*paths, **options))


def test_batches_have_all_the_rows_and_one_schema(tmp_path: Path) -> None:
    write(tmp_path / "requests-a.tfrecord", records(50))
    odd = predict_log({"id": ["z"], "tags": [[1, 2]]}, {"score": [0.5]}, time=NOON + 60)
    write(tmp_path / "requests-b.tfrecord", [odd])
    format = LogFormat(id="id")
    parts = batches_of(tmp_path, format=format, batch_rows=8)
    assert len(parts) > 5
    together = pa.concat_tables([part.table for part in parts])
    assert together.equals(read_log(tmp_path, format=format).table)

    path = tmp_path / "log.parquet"
    pq.write_table(TABLE, path, row_group_size=3)
    parts = batches_of(path, format=FORMAT, batch_rows=2, window=DAY)
    assert [part.rows for part in parts] == [2, 1, 1]


def test_batches_know_the_ids_of_those_before(tmp_path: Path) -> None:
    ids = [f"{i % 700}" for i in range(1000)]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"id": ids, "x": range(1000)}), path)
    format = LogFormat(id="id")
    with pytest.raises(DataError, match="has the id '0' in several rows"):
        batches_of(path, format=format, batch_rows=10)
    first = LogRules(on_duplicate="first")
    parts = batches_of(path, format=format, batch_rows=10, rules=first)
    found = [value for part in parts for value in column(part, "x")]
    assert found == list(range(700))
    assert parts[-1].notes == (
        "300 rows with an id that another row has were left out.",
    )


def test_batches_of_no_rows_are_one_without_any(tmp_path: Path) -> None:
    path = write(tmp_path / "requests-a.tfrecord", records())
    with pytest.raises(DataError, match="has no rows in the window 2026-12-01"):
        batches_of(path, window=NEXT)
    (part,) = batches_of(path, window=NEXT, rules=LogRules(on_empty="accept"))
    assert part.rows == 0
