"""Whether a model server can run a SavedModel, on real ones.

What a model does wrong is found out in this process, because a fresh one takes
3 seconds; what only a process can do (die, take too much) is found out in one.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from penstock.components.serving import fresh_process, infra_check
from penstock.components.serving.fresh_process import Ended, Limits, Stage
from penstock.components.serving.infra_check import Latency, WarmUp
from penstock.components.serving.model_check import Checked, check_model
from penstock.components.serving.parity import Parity
from penstock.schemas.artifacts import WARMUP_FILE, Answer
from penstock.schemas.errors import DataError, PipelineError
from tests.components.serving import served_models as models
from tests.components.serving.served_models import DENSE, EXAMPLES, NUMBER, ROWS

MODEL = "Model 'm'"
QUICK = Latency(requests=10)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.good(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let what runs in a fresh process run in this one; return what it is at."""
    told: list[str] = []

    def run(entry: str, arguments: tuple[str, ...], temp_dir: Path, *_: Any) -> Ended:
        stages = temp_dir / "stages"
        stages.touch()
        answer = infra_check.examine(fresh_process.Parent(str(stages)), *arguments)
        lines = stages.read_text().splitlines()
        told[:] = [json.loads(line)["doing"] for line in lines]
        # As it comes out of the file.
        return Ended(json.loads(json.dumps(answer)), Stage(), "", "", "", 0)

    monkeypatch.setattr(fresh_process, "run", run)
    return told


def check(folder: Path, tmp_path: Path, **more: Any) -> Checked:
    more = {"rows": ROWS, "latency": QUICK, **more}
    return check_model(folder, MODEL, tmp_path, **more)


def failure(folder: Path, tmp_path: Path, **more: Any) -> str:
    checked = check(folder, tmp_path, **more)
    assert checked.answer is Answer.NO
    (text,) = checked.failures
    return text


def untold(folder: Path, tmp_path: Path, **more: Any) -> str:
    checked = check(folder, tmp_path, **more)
    assert (checked.answer, checked.failures) == (Answer.NOT_ENOUGH_DATA, ())
    (text,) = checked.untold
    return text


# --- in a fresh process


def test_a_good_model_is_called_compared_and_warmed_up(
    good: Path, tmp_path: Path
) -> None:
    target = tmp_path / "warmup"
    looks: list[None] = []
    checked = check(
        good,
        tmp_path,
        parity=Parity(models.trained_path),
        warm_up=WarmUp(target, 3),
        limits=Limits(memory_gib=4.0),
        progress=lambda: looks.append(None),
    )
    assert checked.reasons == ("3 warm-up records ran.",)
    assert checked.answer is Answer.YES
    assert checked.signatures == ("dense", "serving_default")
    assert checked.warmup_records == 3
    assert checked.tensorflow == tf.__version__
    assert (checked.load_seconds or 0) > 0
    assert checked.peak_memory_bytes > 100 << 20
    assert looks
    for name in checked.signatures:
        called = checked.called[name]
        assert (called["rows"], called["rows_left_out"]) == (4, 0)
        assert (called["requests"], called["rows_per_request"]) == (10, 1)
        assert 0 < called["p50_ms"] <= called["p99_ms"]
    assert checked.parity is not None
    assert checked.parity["rows"] == 4
    assert checked.parity["rows_that_differ"] == 0
    assert checked.parity["against"] == (
        "function 'tests.components.serving.served_models.trained_path'"
    )
    assert not checked.depends_on_machine


def test_a_model_that_crashes_says_on_which_row(tmp_path: Path) -> None:
    def crash(_: Any, x: Any) -> Any:
        with tf.control_dependencies(
            [tf.cond(tf.reduce_any(x < 0), lambda: tf.raw_ops.Abort(), tf.no_op)]
        ):
            return {"y": tf.identity(x)}

    folder = models.save(tmp_path / "model", serving_default=(crash, DENSE))
    checked = check(folder, tmp_path)
    (text,) = checked.failures
    assert text.startswith(
        "Model 'm' cannot be served: the process that tried was ended by SIGABRT, "
        "while signature 'serving_default' answered row 2 of split 'eval'. "
    )
    assert text.endswith("Load and call it with tf.saved_model.load to see why.")
    assert checked.answer is Answer.NO
    assert checked.depends_on_machine


def test_a_model_that_never_answers_is_stopped(tmp_path: Path) -> None:
    def endless(_: Any, x: Any) -> Any:
        (count,) = tf.while_loop(
            lambda i: tf.reduce_all(i >= 0), lambda i: [i * 0.5], [tf.abs(x)]
        )
        return {"y": count}

    folder = models.save(tmp_path / "model", serving_default=(endless, DENSE))
    checked = check(folder, tmp_path, limits=Limits(request_seconds=0.5))
    assert checked.failures == (
        "Model 'm' was stopped after 0.5 seconds (request_timeout_seconds) while "
        "signature 'serving_default' answered row 0 of split 'eval'. Make the model "
        "quicker, or allow more.",
    )
    assert checked.depends_on_machine


def test_a_model_that_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    def greedy(_: Any, x: Any) -> Any:
        # 256 MiB at a time, held until the end.
        parts = [
            tf.random.normal([64, 1024, 1024]) + tf.reduce_sum(x) for _ in range(16)
        ]
        return {"y": x + sum(part[0, 0, 0] * 0 for part in parts)}

    folder = models.save(tmp_path / "model", serving_default=(greedy, DENSE))
    checked = check(folder, tmp_path, limits=Limits(memory_gib=0.9))
    (text,) = checked.failures
    # Seen from outside, or refused by the system, whichever is quicker.
    assert " memory" in text or "OOM when allocating" in text
    assert "serving_default" in text or "memory_limit_gib is 0.9" in text
    assert checked.answer is Answer.NO
    assert checked.depends_on_machine
    assert checked.peak_memory_bytes < 2 << 30


def test_a_model_that_asks_for_too_much_at_once_is_refused_it(tmp_path: Path) -> None:
    def gulp(_: Any, x: Any) -> Any:
        whole = tf.random.normal([64, 1024, 1024 * 64]) + tf.reduce_sum(x)  # 16 GiB
        return {"y": x + tf.reduce_sum(whole) * 0}

    folder = models.save(tmp_path / "model", serving_default=(gulp, DENSE))
    checked = check(folder, tmp_path, limits=Limits(memory_gib=1.5))
    (text,) = checked.failures
    assert text.startswith(
        "Signature 'serving_default' of Model 'm' runs out of memory on row 0 of split "
        "'eval': OOM when allocating tensor"
    )
    assert text.endswith(
        " Make the model smaller, or allow more with memory_limit_gib."
    )
    assert checked.depends_on_machine


def test_a_model_that_is_not_loaded_in_time_is_stopped(
    good: Path, tmp_path: Path
) -> None:
    assert failure(good, tmp_path, limits=Limits(load_seconds=0.1)) == (
        "Model 'm' was stopped after 0.1 seconds (load_timeout_seconds) while it "
        "started. Make the model quicker, or allow more."
    )


# --- what is wrong with a model


def test_a_folder_without_a_model_is_told(here: list[str], tmp_path: Path) -> None:
    text = failure(tmp_path / "nothing", tmp_path)
    assert text == (
        "Model 'm' cannot be loaded: NOT_FOUND: Could not find SavedModel .pb or "
        ".pbtxt at supplied export directory path: Model 'm'. Check that the directory "
        "exists and that you have the right permissions for accessing it. Train it "
        "again, or export it anew."
    )


def test_a_model_without_a_signature_is_told(here: list[str], tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    assert failure(tmp_path / "model", tmp_path) == (
        "Model 'm' has no signature, so a model server cannot answer with it. Save it "
        'with signatures={"serving_default": ...}, or with model.export.'
    )


def test_a_signature_that_is_not_there_is_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    assert failure(good, tmp_path, signatures=["serving_defualt"]) == (
        "Model 'm' has no signature 'serving_defualt' (it has 'dense', "
        "'serving_default'). Did you mean 'serving_default'? Export it with that "
        "signature, or mend signatures."
    )


def test_only_the_signatures_that_are_named_are_called(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    checked = check(good, tmp_path, signatures=["dense"])
    assert (checked.answer, list(checked.called)) == (Answer.YES, ["dense"])


def test_a_signature_that_fails_says_on_which_row_and_why(
    here: list[str], tmp_path: Path
) -> None:
    def picky(module: Any, examples: Any) -> Any:
        x = parsed_x(examples)
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "x < 0")]):
            return {"y": module.half * x}

    folder = models.save(tmp_path / "model", serving_default=(picky, EXAMPLES))
    text = failure(folder, tmp_path)
    assert text.startswith(
        "Signature 'serving_default' of Model 'm' fails on row 2 of split 'eval': "
    )
    assert "x < 0" in text
    # The request that has all rows fails on this one too.
    assert text.endswith("leave such rows out of the data. So does 1 more request.")


def parsed_x(examples: Any) -> Any:
    return models.parsed(examples, x=NUMBER)["x"]


def test_a_missing_value_that_a_model_parses_without_a_default_is_a_failure(
    here: list[str], tmp_path: Path
) -> None:
    def named(_: Any, examples: Any) -> Any:
        name = tf.io.FixedLenFeature([], tf.string)
        return {"y": tf.strings.length(models.parsed(examples, name=name)["name"])}

    folder = models.save(tmp_path / "model", serving_default=(named, EXAMPLES))
    text = failure(folder, tmp_path)
    assert text.startswith(
        "Signature 'serving_default' of Model 'm' fails on row 1 of split 'eval': "
    )
    assert "Feature: name" in text


def test_a_wrong_type_in_a_tf_example_is_told(here: list[str], tmp_path: Path) -> None:
    def wrong(_: Any, examples: Any) -> Any:
        x = tf.io.FixedLenFeature([1], tf.int64)
        return {"y": models.parsed(examples, x=x)["x"]}

    folder = models.save(tmp_path / "model", serving_default=(wrong, EXAMPLES))
    assert failure(folder, tmp_path).startswith(
        "Signature 'serving_default' of Model 'm' parses 'x' as int64, and column 'x' "
        "is float. "
    )


@pytest.mark.parametrize(
    ("value", "said"), [(float("nan"), "nan"), (float("inf"), "inf")]
)
def test_an_output_that_is_not_finite_says_in_which_row(
    here: list[str], tmp_path: Path, value: float, said: str
) -> None:
    def holes(_: Any, x: Any) -> Any:
        return {"score": tf.where(x < 0, value, x)}

    folder = models.save(tmp_path / "model", serving_default=(holes, DENSE))
    assert failure(folder, tmp_path) == (
        "Output 'score' of signature 'serving_default' of Model 'm' is "
        f"{said} in row 2 of split 'eval'. Mend the model, or pass "
        "require_finite=False if it means that. So does 1 more request."
    )
    assert check(folder, tmp_path, require_finite=False).answer is Answer.YES


def test_an_output_without_a_value_per_row_is_told(
    here: list[str], tmp_path: Path
) -> None:
    def summed(_: Any, x: Any) -> Any:
        return {"total": tf.reduce_sum(x, axis=0)}

    folder = models.save(tmp_path / "model", serving_default=(summed, DENSE))
    assert failure(folder, tmp_path) == (
        "Output 'total' of signature 'serving_default' of Model 'm' has the shape "
        "(1,) for 4 rows from row 0 of split 'eval'. Make the model give one output "
        "per row."
    )


def test_a_bound_on_latency_is_kept_or_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    one = ["dense"]
    slow = Latency(requests=10, quantile=0.9, max_ms=1e-6)
    checked = check(good, tmp_path, signatures=one, latency=slow)
    (text,) = checked.failures
    assert text.startswith("Signature 'dense' of Model 'm' takes 0.")
    assert text.endswith(
        " ms at quantile 0.9 of 10 requests, where max_latency_ms is 1e-06. Make the "
        "model quicker, measure on a machine with nothing else to do, or allow more."
    )
    assert checked.depends_on_machine
    wide = Latency(requests=10, quantile=0.9, max_ms=1e6)
    assert check(good, tmp_path, signatures=one, latency=wide).answer is Answer.YES


def test_a_model_that_fails_now_and_then_is_told(
    here: list[str], tmp_path: Path
) -> None:
    def moody(module: Any, x: Any) -> Any:
        count = module.half.assign_add(1.0)
        with tf.control_dependencies(
            [tf.debugging.assert_less(count, 9.0, "out of patience")]
        ):
            return {"y": tf.identity(x)}

    folder = models.save(tmp_path / "model", serving_default=(moody, DENSE))
    text = failure(folder, tmp_path)
    assert text.startswith(
        "Signature 'serving_default' of Model 'm' fails when it is asked again: "
        "INVALID_ARGUMENT: "
    )
    assert text.endswith(" Make the model answer the same request every time.")


def damaged(good: Path, folder: Path, name: str) -> Path:
    """Return a copy of a model in which a file is overwritten in the middle."""
    shutil.copytree(good, folder)
    file = folder / name
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4] = b"\xff\xfe\xfd\xfc"
    file.write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
def test_damaged_variables_are_told(
    good: Path, here: list[str], tmp_path: Path, name: str
) -> None:
    folder = damaged(good, tmp_path / "m", f"variables/{name}")
    text = failure(folder, tmp_path)
    assert text.startswith("Model 'm' cannot be loaded: DATA_LOSS: ")
    assert text.endswith(" Train it again, or export it anew.")


def test_missing_variables_are_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    # TensorFlow Serving takes it for a model without any, and fails every request.
    shutil.copytree(good, tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "variables")
    assert failure(tmp_path / "m", tmp_path) == (
        "Model 'm' cannot be loaded: DataError: 'variables/variables.index' is "
        "missing. Train it again, or export it anew."
    )


def test_a_missing_vocabulary_is_told(here: list[str], tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    module = tf.Module()
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(words),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )
    module.table = table

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None, 1], tf.string, name="name")]
    )
    def number(name: Any) -> Any:
        return {"number": table.lookup(name)}

    folder = tmp_path / "model"
    tf.saved_model.save(module, str(folder), {"serving_default": number})
    assert check(folder, tmp_path).failures == ()
    (folder / "assets" / "words.txt").unlink()
    text = failure(folder, tmp_path)
    assert text.startswith("Model 'm' cannot be loaded: NOT_FOUND: ")
    assert "assets/words.txt" in text


# --- what cannot be told


def test_without_rows_only_the_loading_is_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    checked = check(good, tmp_path, rows=None)
    assert checked.answer is Answer.NOT_ENOUGH_DATA
    assert checked.untold == tuple(
        f"Signature '{name}' of Model 'm' was not called: there are no rows to call "
        "it with. Wire examples."
        for name in ("dense", "serving_default")
    )


def test_a_split_without_rows_tells_nothing(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    text = untold(good, tmp_path, rows=ROWS.slice(0, 0), signatures=["dense"])
    assert text == (
        "Signature 'dense' of Model 'm' was not called: split 'eval' has no rows. Name "
        "another split, or ingest more rows."
    )


def test_a_signature_of_what_the_data_does_not_have_is_not_told(
    here: list[str], tmp_path: Path
) -> None:
    folder = models.save(
        tmp_path / "model",
        serving_default=(
            models.halved_dense,
            [tf.TensorSpec([None, 1], tf.float32, name="nmae")],
        ),
    )
    assert untold(folder, tmp_path) == (
        "Signature 'serving_default' of Model 'm' takes 'nmae', which the data does "
        "not have (it has 'label', 'name', 'x'). Did you mean 'name'? Export the model "
        "with a signature that takes the columns, or serialized tf.Examples. It was "
        "not called: if it need not be, name the others with signatures=(...)."
    )


def test_a_signature_without_a_batch_dimension_is_not_told(
    here: list[str], tmp_path: Path
) -> None:
    folder = models.save(
        tmp_path / "model",
        serving_default=(
            models.halved_dense,
            [tf.TensorSpec([], tf.float32, name="x")],
        ),
    )
    assert untold(folder, tmp_path) == (
        "Signature 'serving_default' of Model 'm' was not called: it takes 'x' without "
        "a batch dimension, which rows cannot be. Export it with shapes that begin "
        "with None, or name the signatures to call with signatures=(...)."
    )


def test_a_number_that_the_model_cannot_hold_is_not_told(
    here: list[str], tmp_path: Path
) -> None:
    def same(_: Any, n: Any) -> Any:
        return {"y": n}

    specs = [tf.TensorSpec([None, 1], tf.int32, name="n")]
    folder = models.save(tmp_path / "model", serving_default=(same, specs))
    rows = pa.RecordBatch.from_arrays([pa.array([1, 2**40])], names=["n"])
    assert untold(folder, tmp_path, rows=rows) == (
        "Signature 'serving_default' of Model 'm' was not called on all rows. Column "
        "'n' holds 1 integers that int32 cannot hold, which the model takes. Export "
        "the model with int64."
    )


def test_rows_that_no_tensor_can_be_are_left_out_and_counted(
    here: list[str], tmp_path: Path
) -> None:
    def length(_: Any, name: Any) -> Any:
        return {"y": tf.strings.length(name)}

    specs = [tf.TensorSpec([None, 1], tf.string, name="name")]
    folder = models.save(tmp_path / "model", serving_default=(length, specs))
    checked = check(folder, tmp_path)
    assert checked.answer is Answer.YES
    assert checked.remarks[0] == (
        "Signature 'serving_default' was called without 1 row that has no value, or "
        "another number of values, of what it takes."
    )
    nothing = pa.RecordBatch.from_arrays([pa.nulls(2, pa.string())], names=["name"])
    assert untold(folder, tmp_path, rows=nothing) == (
        "Signature 'serving_default' of Model 'm' was not called: none of the 2 rows "
        "of split 'eval' has as many values of 'name' as it takes. Call it with other "
        "rows, or name the signatures to call with signatures=(...)."
    )


# --- kinds of signatures


def test_a_signature_of_a_fixed_number_of_rows_is_given_so_many(
    here: list[str], tmp_path: Path
) -> None:
    specs = [tf.TensorSpec([3, 1], tf.float32, name="x")]
    folder = models.save(
        tmp_path / "model", serving_default=(models.halved_dense, specs)
    )
    checked = check(folder, tmp_path, parity=Parity(models.trained_path))
    assert checked.failures == ()
    called = checked.called["serving_default"]
    assert (called["rows"], called["rows_per_request"]) == (4, 3)
    assert checked.parity is not None and checked.parity["rows"] == 4


def test_a_signature_that_takes_nothing_is_called_once(
    here: list[str], tmp_path: Path
) -> None:
    folder = models.save(
        tmp_path / "model", serving_default=(lambda module: {"y": module.half}, [])
    )
    checked = check(folder, tmp_path, rows=None)
    assert checked.answer is Answer.YES
    assert checked.called["serving_default"]["rows"] == 0
    assert "signature 'serving_default' answered" in here


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_of_keras_2_and_3_are_called(
    here: list[str], tmp_path: Path, name: str
) -> None:
    keras = pytest.importorskip(name)
    folder = models.keras_model(tmp_path / "model", keras)
    checked = check(folder, tmp_path)
    assert checked.failures == checked.untold == ()
    assert checked.called["serving_default"]["rows"] == 4


def test_numbers_that_numpy_does_not_know_are_looked_at(
    here: list[str], tmp_path: Path
) -> None:
    def short(_: Any, x: Any) -> Any:
        return {"y": tf.cast(tf.where(x < 0, float("nan"), x), tf.bfloat16)}

    folder = models.save(tmp_path / "model", serving_default=(short, DENSE))
    assert "is nan in row 2 of split 'eval'" in failure(folder, tmp_path)


def test_lists_of_any_length_go_one_by_one(here: list[str], tmp_path: Path) -> None:
    def widest(_: Any, values: Any) -> Any:
        return {"y": tf.reduce_max(values, axis=1)}

    specs = [tf.TensorSpec([None, None], tf.float32, name="v")]
    folder = models.save(tmp_path / "model", serving_default=(widest, specs))
    lists = pa.array([[1.0], [2.0, 3.0], [4.0, 5.0], [6.0]], pa.list_(pa.float32()))
    rows = pa.RecordBatch.from_arrays([lists], names=["v"])
    checked = check(folder, tmp_path, rows=rows)
    assert checked.failures == ()
    assert checked.called["serving_default"]["rows"] == 4
    assert "signature 'serving_default' answered 2 rows from row 0 of split 'eval'" in (
        here
    )


# --- what requests do not have


def test_a_serving_signature_that_needs_the_label_is_a_failure(
    here: list[str], tmp_path: Path
) -> None:
    def leaky(_: Any, examples: Any) -> Any:
        return {"y": models.parsed(examples, label=NUMBER)["label"]}

    folder = models.save(tmp_path / "model", serving_default=(leaky, EXAMPLES))
    assert check(folder, tmp_path).answer is Answer.YES
    assert failure(folder, tmp_path, absent=["label"]) == (
        "Signature 'serving_default' of Model 'm' takes what requests do not have (by "
        "the schema, they have no 'label'). Signature 'serving_default' of Model 'm' "
        "parses 'label' from tf.Examples, without a default, and the data does not "
        "have them (it has 'name', 'x'). Ingest the columns, or give the features a "
        "default_value where the model parses them."
    )


def test_other_signatures_may_take_the_label(here: list[str], tmp_path: Path) -> None:
    def label(_: Any, examples: Any) -> Any:
        return {"label": models.parsed(examples, label=NUMBER)["label"]}

    folder = models.save(
        tmp_path / "model",
        serving_default=(models.halved, EXAMPLES),
        transform_features=(label, EXAMPLES),
    )
    assert check(folder, tmp_path, absent=["label"]).answer is Answer.YES
    # The label is half of x, so it can stand for a training path.
    parity = Parity("transform_features", outputs={"y": "label"})
    checked = check(folder, tmp_path, absent=["label"], parity=parity)
    assert checked.failures == ()
    assert checked.parity is not None and checked.parity["rows"] == 4


# --- the parity gate


def test_a_difference_from_the_training_path_says_rows_and_values(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    name = "tests.components.serving.served_models.other_path"
    assert failure(good, tmp_path, parity=Parity(models.other_path)) == (
        "Signature 'serving_default' of Model 'm' differs from the training path, "
        f"function '{name}', on 1 of 4 rows. Row 2 of split 'eval': 'y' is -1.5 where "
        "the training path says 0. Make serving compute features as training does, or "
        "allow more with rtol and atol."
    )


def test_a_second_signature_can_be_the_training_path(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    checked = check(good, tmp_path, parity=Parity("dense"))
    assert checked.answer is Answer.YES
    assert "Nothing was compared" not in " ".join(checked.reasons)
    assert checked.parity is not None
    assert checked.parity["against"] == "signature 'dense'"


def test_without_parity_the_reasons_say_that_nothing_was_compared(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    assert check(good, tmp_path).remarks == (
        "Nothing was compared with the training path: no parity is set.",
    )


def test_a_training_path_that_raises_is_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    name = "tests.components.serving.served_models.broken_path"
    assert failure(good, tmp_path, parity=Parity(models.broken_path)) == (
        f"The training path, function '{name}', raised KeyError on 4 rows: 'fare'. "
        "Call it with rows of the data in a test."
    )


def test_a_training_path_of_another_shape_is_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    name = "tests.components.serving.served_models.shapeless_path"
    assert failure(good, tmp_path, parity=Parity(models.shapeless_path)) == (
        "Output 'y' has the shape (4, 1) for 4 rows, and the training path, function "
        f"'{name}', gives (). Compare outputs of one shape."
    )


def test_a_training_signature_that_is_not_there_is_told(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    assert failure(good, tmp_path, parity=Parity("desne")) == (
        "Model 'm' has no signature 'desne' for the parity gate (it has 'dense', "
        "'serving_default'). Did you mean 'dense'? Export it with that signature, or "
        "mend parity."
    )


def test_a_function_of_a_module_file_is_found_by_its_file(tmp_path: Path) -> None:
    import importlib.util
    import sys

    file = tmp_path / "my_paths.py"
    file.write_text("def path(rows, folder):\n    return rows.num_rows\n")
    spec = importlib.util.spec_from_file_location("my_paths", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_paths"] = module
    try:
        spec.loader.exec_module(module)
        portable = Parity(module.path).portable()
    finally:
        del sys.modules["my_paths"]
    try:
        assert callable(portable.against)
        assert portable.against(ROWS, tmp_path) == 4
        assert portable.other == "function 'my_paths.path'"
    finally:
        sys.modules.pop("my_paths", None)


def test_a_function_without_a_file_is_refused(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    def inner(rows: pa.RecordBatch, folder: Path) -> Any:
        return rows

    with pytest.raises(PipelineError) as raised:
        check(good, tmp_path, parity=Parity(inner))
    text = str(raised.value)
    assert text.startswith("Parity.against is function 'tests.")
    assert text.endswith(
        "which a fresh process cannot find. Define it at the top level of a module "
        "that is a file."
    )


# --- warm-up


def with_warmup(good: Path, folder: Path, write: Callable[[Path], object]) -> Path:
    shutil.copytree(good, folder)
    (folder / "assets.extra").mkdir()
    write(folder / WARMUP_FILE)
    return folder


def test_a_warm_up_file_that_the_model_has_is_tried(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    assert check(good, tmp_path, warm_up=WarmUp(made, 8)).warmup_records == 8
    content = made.read_bytes()
    folder = with_warmup(good, tmp_path / "m", lambda file: file.write_bytes(content))
    assert check(folder, tmp_path).warmup_records == 8
    assert "warm-up record 8 ran" in here


def test_a_torn_warm_up_file_of_the_model_is_a_failure(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    check(good, tmp_path, warm_up=WarmUp(tmp_path / "made", 2))
    torn = (tmp_path / "made").read_bytes()[:-3]
    folder = with_warmup(good, tmp_path / "m", lambda file: file.write_bytes(torn))
    text = failure(folder, tmp_path)
    assert text.startswith(
        "Warm-up file 'assets.extra/tf_serving_warmup_requests' is damaged after "
        "record 1: "
    )
    assert text.endswith(
        "It has to be a whole TFRecord file, not compressed; write it anew."
    )


def test_a_logged_request_that_fails_on_this_model_is_a_failure(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    from penstock.components.serving import warmup
    from tests.components.serving.test_warmup import predict_log

    log = tmp_path / "log"
    records = [predict_log(x=[[1.0]]), predict_log(z=[[1.0]])]
    warmup.write((each.SerializeToString() for each in records), log)
    wanted = WarmUp(tmp_path / "target", 10, (log,))
    text = failure(good, tmp_path, warm_up=wanted, signatures=["dense"])
    name = f"{tmp_path.name}/target"
    assert text.startswith(
        f"Record 1 of warm-up file '{name}' fails: INVALID_ARGUMENT: "
    )
    assert text.endswith(
        "TensorFlow Serving would not load the model. Leave the record out, or mend "
        "the model."
    )


def test_request_logs_that_cannot_be_used_are_an_error_and_no_verdict(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    wanted = WarmUp(tmp_path / "target", 10, (tmp_path / "nothing",))
    with pytest.raises(DataError, match="is not there"):
        check(good, tmp_path, warm_up=wanted)


def test_quantiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert infra_check.quantile(values, 0.5) == 3.0
    assert infra_check.quantile(values, 0.99) == 5.0
    assert infra_check.quantile(list(np.arange(1.0, 101.0)), 0.99) == 99.0


def test_a_report_can_be_written_as_json(
    good: Path, here: list[str], tmp_path: Path
) -> None:
    checked = check(good, tmp_path, parity=Parity("dense"))
    found = dataclasses.asdict(checked)
    found["answer"] = checked.answer.value
    assert json.loads(json.dumps(found))["answer"] == "yes"
