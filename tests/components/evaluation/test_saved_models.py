"""SavedModels of every kind of signature: what they are given, and what they refuse."""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.components.columns import tf_example
from penstock.components.columns.inputs import Inputs
from penstock.components.evaluation import ModelSpec, models, saved_model
from penstock.components.evaluation.saved_model import SavedModelSource
from penstock.schemas.artifacts import Model
from penstock.schemas.errors import DataError

SUBJECT = "Model 'm' (candidate)"
SIGNATURE = f"Signature 'serving_default' of {SUBJECT}"


def batch(**columns: Any) -> pa.RecordBatch:
    arrays = [
        each if isinstance(each, pa.Array) else pa.array(each)
        for each in columns.values()
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def source(
    model: Model, rows: pa.RecordBatch, outputs: Any = ("",), **spec: Any
) -> SavedModelSource:
    found = models.find(SUBJECT, model, ModelSpec(**spec), rows.schema, outputs=outputs)
    assert isinstance(found, SavedModelSource)
    return found


def predicted(
    model: Model,
    rows: pa.RecordBatch,
    *,
    outputs: Any = ("",),
    first_row: int = 0,
    **spec: Any,
) -> dict[str, Any]:
    predictor = models.load(source(model, rows, outputs, **spec))
    return predictor.predict(Inputs(rows, "eval", first_row))


def refusal(*given: Any, **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        predicted(*given, **fields)
    return str(caught.value)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Model]:
    """Save functions, with what they take, as the signatures of a model."""

    def made(
        folder: str = "model", **signatures: tuple[Callable[..., Any], Any]
    ) -> Model:
        import tensorflow as tf

        functions = {
            name: tf.function(function, input_signature=takes)
            for name, (function, takes) in signatures.items()
        }
        path = tmp_path / folder
        tf.saved_model.save(tf.Module(), str(path / "Format-Serving"), functions)
        return Model(path)

    return made


def spec(dtype: str, *shape: int | None, name: str | None = None) -> Any:
    import tensorflow as tf

    return tf.TensorSpec([None, *shape], dtype, name=name)


TRIPS = batch(fare=[10.0, 30.0], hour=[3, 20])


def test_every_kind_of_model_says_the_same(
    model: Model, keras2_model: Model, tf_example_model: Model
) -> None:
    expected = 1 / (1 + np.exp(-(0.15 * np.array([-5, 15]) + 0.05 * np.array([-9, 8]))))
    for each in (model, keras2_model, tf_example_model):
        (scores,) = predicted(each, TRIPS).values()
        assert scores.shape == (2, 1)
        assert scores.ravel() == pytest.approx(expected, rel=1e-5)


def test_a_source_is_small_and_is_loaded_once_until_the_model_changes(
    model: Model, tf_example_model: Model
) -> None:
    found = source(tf_example_model, TRIPS)
    again = pickle.loads(pickle.dumps(found))
    assert again == found and hash(again) == hash(found)
    assert models.load(again) is models.load(found)
    changed = dataclasses.replace(found, state=(0, 0))
    assert models.load(changed) is not models.load(found)
    loaded = models.load(found)
    models.unload()
    assert models.load(found) is not loaded


def test_only_the_features_that_a_model_parses_are_read(
    tf_example_model: Model,
) -> None:
    rows = batch(company=["a", "b"], hour=[3, 20], fare=[10.0, 30.0], big=[0, 1])
    found = source(tf_example_model, rows)
    assert found.records == ("hour", "fare")
    assert found.columns == found.required == {"hour", "fare"}


def test_all_columns_are_read_where_the_graph_is_not_understood(
    save: Callable[..., Model],
) -> None:
    import tensorflow as tf

    model = save(
        serving_default=(
            lambda examples: {"bytes": tf.strings.length(examples)},
            [spec("string", name="examples")],
        )
    )
    found = source(model, TRIPS)
    assert found.records == ("fare", "hour")
    assert found.required == set()
    records = tf_example.encode(TRIPS)
    assert predicted(model, TRIPS)[""].tolist() == [len(each) for each in records]


def test_models_that_take_examples_share_them(
    tf_example_model: Model, save: Callable[..., Model], model: Model
) -> None:
    import tensorflow as tf

    def miles(examples: Any) -> Any:
        parsed = tf.io.parse_example(
            examples, {"miles": tf.io.VarLenFeature(tf.float32)}
        )
        return {"miles": tf.sparse.to_dense(parsed["miles"])}

    other = save(serving_default=(miles, [spec("string", name="examples")]))
    rows = batch(miles=[None, 2.0], fare=[1.0, 2.0], hour=[1, 2])
    found = [source(each, rows) for each in (tf_example_model, other, model)]
    shared = models.share(found)
    assert [each.columns for each in shared[:2]] == [{"fare", "hour", "miles"}] * 2
    assert shared[2] == found[2]
    inputs = Inputs(rows, "eval")
    one, two = (models.load(each) for each in shared[:2])
    assert one.predict(inputs)[""].shape == (2, 1)
    assert two.predict(inputs)[""].tolist() == [[0.0], [2.0]]
    assert len([key for key in inputs._made if key[0] == "records"]) == 1  # type: ignore[index]


def test_tensors_of_text_booleans_vectors_and_small_integers(
    save: Callable[..., Model],
) -> None:
    names = ("payment", "paid", "place", "free", "kind")
    takes = [
        spec("string", 1, name="payment"),
        spec("float32", name="paid"),
        spec("float32", 2, name="place"),
        spec("int64", None, name="free"),
        spec("int32", name="kind"),
    ]
    echo = save(
        serving_default=(lambda *given: dict(zip(names, given, strict=True)), takes)
    )
    rows = batch(
        payment=pa.array(["Cash", ""], pa.large_string()),
        paid=[True, False],
        place=[[1.0, 2.0], [3.0, 4.0]],
        free=[[1, 2, 3], [4, 5, 6]],
        kind=[7, 8],
    )
    found = predicted(echo, rows, outputs=names)
    assert found["payment"].tolist() == [[b"Cash"], [b""]]
    assert found["paid"].tolist() == [1.0, 0.0]
    assert found["place"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found["free"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found["kind"].dtype == np.int32
    part = Inputs(rows, "eval").part(1, 2)
    found = models.load(source(echo, rows, names)).predict(part)
    assert found["place"].tolist() == [[3.0, 4.0]]


def test_sparse_and_ragged_tensors_are_made_of_lists_and_missing_values(
    save: Callable[..., Model],
) -> None:
    import tensorflow as tf

    def add(tokens: Any, amounts: Any, fare: Any) -> Any:
        total = tf.sparse.reduce_sum(tokens, axis=1)
        return {"sum": tf.cast(total, tf.float32) + tf.reduce_sum(amounts, 1) + fare}

    model = save(
        serving_default=(
            add,
            [
                tf.SparseTensorSpec([None, None], tf.int64),
                tf.RaggedTensorSpec([None, None], tf.float32, ragged_rank=1),
                spec("float32", name="fare"),
            ],
        )
    )
    rows = batch(
        tokens=[[1, 2], None, [], [40]],
        amounts=[0.5, None, 0.25, 0.125],
        fare=[100.0, 200.0, 300.0, 400.0],
    )
    assert source(model, rows).required == {"fare"}
    assert predicted(model, rows)[""].tolist() == [103.5, 200.0, 300.25, 440.125]
    rows = batch(tokens=pa.nulls(1), amounts=[[1.0, 2.0]], fare=[0.0])
    assert predicted(model, rows)[""].tolist() == [3.0]


def test_outputs_are_chosen_as_tfma_chooses_them(save: Callable[..., Model]) -> None:
    model = save(
        serving_default=(
            lambda fare: {"logits": fare, "probabilities": fare + 1, "other": fare + 2},
            [spec("float32", name="fare")],
        ),
        single=(lambda fare: {"any": fare}, [spec("float32", name="fare")]),
        nameless=(lambda fare: {"a": fare, "b": fare}, [spec("float32", name="fare")]),
    )
    rows = batch(fare=[1.0])
    assert predicted(model, rows) == {"": 2.0}
    assert predicted(model, rows, prediction_key="other") == {"": 3.0}
    assert predicted(model, rows, outputs=("other", "logits")) == {
        "other": 3.0,
        "logits": 1.0,
    }
    assert predicted(
        model, rows, outputs=("tip",), prediction_keys={"tip": "logits"}
    ) == {"tip": 1.0}
    # As in TFMA, the only output is the prediction, whatever the key says.
    assert predicted(model, rows, signature_name="single", prediction_key="x") == {
        "": 1.0
    }
    assert refusal(model, rows, signature_name="nameless") == (
        f"Signature 'nameless' of {SUBJECT} gives 'a', 'b', and nothing says which of "
        "them is the prediction. Set prediction_key in the ModelSpec, or output_names "
        "in the MetricsSpecs."
    )
    assert refusal(model, rows, prediction_key="logit") == (
        f"{SIGNATURE} gives no output 'logit' (it gives 'logits', 'other', "
        "'probabilities'). Did you mean 'logits'? Mend output_names of the "
        "MetricsSpec, or the prediction keys of the ModelSpec."
    )


def test_predict_is_preferred_to_serving_default(save: Callable[..., Model]) -> None:
    takes = [spec("float32", name="fare")]
    model = save(
        predict=(lambda fare: {"x": fare}, takes),
        serving_default=(lambda fare: {"x": -fare}, takes),
    )
    assert predicted(model, batch(fare=[1.0]))[""] == [1.0]


def test_preprocessing_signatures_are_computed_from_the_same_records(
    save: Callable[..., Model],
) -> None:
    import tensorflow as tf

    def parse(examples: Any, name: str) -> Any:
        feature = {name: tf.io.FixedLenFeature([1], tf.float32)}
        return tf.io.parse_example(examples, feature)[name]

    takes = [spec("string", name="examples")]
    model = save(
        serving_default=(lambda examples: {"score": parse(examples, "fare")}, takes),
        transform=(lambda examples: {"big": parse(examples, "tips") > 1}, takes),
        also=(lambda fare: {"half": fare / 2}, [spec("float32", name="fare")]),
    )
    rows = batch(fare=[3.0, 4.0], tips=[2.0, 0.0], other=["a", "b"])
    found = source(
        model,
        rows,
        preprocessing_function_names=[
            "transform",
            "also",
            "whitespace_tokenization@other",
        ],
    )
    assert found.gives == {"big", "half", "whitespace_tokenization"}
    assert found.records == ("fare", "tips")
    assert found.columns == {"fare", "tips", "other"}
    inputs = Inputs(rows, "eval")
    predictor = models.load(found)
    assert predictor.predict(inputs)[""].tolist() == [[3.0], [4.0]]
    computed = predictor.transform(inputs)
    assert computed["big"].tolist() == [[True], [False]]
    assert computed["half"].tolist() == [1.5, 2.0]
    assert computed["whitespace_tokenization"].tolist() == [[b"a"], [b"b"]]
    assert len([key for key in inputs._made if key[0] == "records"]) == 1  # type: ignore[index]


def test_bfloat16_becomes_float32(save: Callable[..., Model]) -> None:
    import tensorflow as tf

    model = save(
        serving_default=(
            lambda fare: {"x": tf.cast(fare, tf.bfloat16)},
            [spec("float32", name="fare")],
        )
    )
    assert predicted(model, batch(fare=[0.5]))[""].dtype == np.float32


def counting(save: Callable[..., Model]) -> Model:
    """A model that says how many rows it was called with, and the words of each."""
    import tensorflow as tf

    def count(text: Any) -> Any:
        return {
            "rows": tf.fill(tf.shape(text), tf.size(text)),
            "words": tf.strings.split(text).to_tensor(),
        }

    return save(serving_default=(count, [spec("string", name="text")]))


def test_a_model_is_called_with_as_many_rows_as_the_config_says(
    save: Callable[..., Model],
) -> None:
    rows = batch(text=["a", "b c", "d", "e f g", "h"])
    model = counting(save)
    outputs = ("rows", "words")
    found = predicted(model, rows, outputs=outputs, inference_batch_size=2)
    assert found["rows"].tolist() == [2, 2, 2, 2, 1]
    assert (
        found["words"].tolist()
        == predicted(model, rows, outputs=outputs)["words"].tolist()
    )
    assert predicted(model, rows.slice(0, 0), outputs=("rows",))["rows"].shape == (0,)


def test_a_model_is_called_with_fewer_rows_where_they_are_large(
    save: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_model, "_BYTES_AT_ONCE", 1_000)
    rows = batch(text=["x" * 600] * 4)
    assert (
        predicted(counting(save), rows, outputs=("rows",))["rows"].tolist() == [1] * 4
    )


def test_two_models_share_the_parts_of_rows(tf_example_model: Model) -> None:
    found = source(tf_example_model, TRIPS, inference_batch_size=1)
    inputs = Inputs(TRIPS, "eval")
    predictor = models.load(found)
    predictor.predict(inputs)
    made = inputs.part(0, 1)._made
    (records,) = made.values()
    predictor.predict(inputs)
    assert list(inputs.part(0, 1)._made.values()) == [records]


def test_models_with_more_weights_are_called_with_fewer_rows(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source(model, TRIPS).batch_rows == 25_000
    assert source(model, TRIPS, inference_batch_size=64).batch_rows == 64
    files = (model.serving_dir / "variables").glob("*")
    weights = sum(each.stat().st_size for each in files)
    monkeypatch.setattr(saved_model, "_WEIGHTS", weights // 2)
    assert source(model, TRIPS).batch_rows == 25_000 * (weights // 2) // weights
    monkeypatch.setattr(saved_model, "_WEIGHTS", 1)
    assert source(model, TRIPS).batch_rows == 256


# What is refused before anything is loaded.


def test_inputs_that_the_data_does_not_have_are_named_one_by_one(model: Model) -> None:
    assert refusal(model, batch(fares=[1.0], hour=[1])) == (
        f"{SIGNATURE} takes 'fare', which the data does not have (it has 'fares', "
        "'hour'). Did you mean 'fares'? Export the model with a signature that takes "
        "the columns, or serialized tf.Examples."
    )
    assert refusal(model, batch(fares=[1.0], hours=[1])) == (
        f"{SIGNATURE} takes 'fare', 'hour', which the data does not have (it has "
        "'fares', 'hours'). For 'fare', did you mean 'fares'? For 'hour', did you mean "
        "'hours'? Export the model with a signature that takes the columns, or "
        "serialized tf.Examples."
    )


def test_columns_of_other_types_are_named_one_by_one(model: Model) -> None:
    assert refusal(model, batch(fare=["1"], hour=[b"2"])) == (
        f"{SIGNATURE} takes 'fare' as float32, and column 'fare' is string; 'hour' as "
        "float32, and column 'hour' is binary. Export the model with the type that the "
        "data has, or convert the column before ingestion."
    )


def test_features_that_a_model_requires_of_examples_are_named(
    tf_example_model: Model,
) -> None:
    assert refusal(tf_example_model, batch(fares=[1.0], hour=[1])) == (
        f"{SIGNATURE} parses 'fare' from tf.Examples, without a default, and the data "
        "does not have them (it has 'fares', 'hour'). Did you mean 'fares'? Ingest the "
        "columns, or give the features a default_value where the model parses them."
    )


def test_shapes_of_two_unknown_sizes_are_refused(save: Callable[..., Model]) -> None:
    model = save(
        serving_default=(
            lambda image: {"x": image},
            [spec("float32", None, None, 3, name="image")],
        )
    )
    assert refusal(model, batch(image=[[1.0]])) == (
        f"{SIGNATURE} takes 'image' in the shape (None, None, None, 3), and lists do "
        "not tell more than one size. Export the model with fixed sizes, or with a "
        "signature that takes serialized tf.Examples."
    )


def test_signatures_that_are_not_there_are_refused(tf_example_model: Model) -> None:
    assert refusal(tf_example_model, TRIPS, signature_name="servin_default") == (
        f"{SUBJECT} has no signature 'servin_default' (it has 'serving_default'). Did "
        "you mean 'serving_default'? Export it with that signature, or set "
        "signature_name in the ModelSpec."
    )
    text = refusal(tf_example_model, TRIPS, preprocessing_function_names=["transform"])
    assert text == (
        f"{SUBJECT} has no signature 'transform' (it has 'serving_default'). Export it "
        "with that signature, or set preprocessing_function_names in the ModelSpec."
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "whitespace_tokenizatio@fare",
            "preprocessing_function_names has 'whitespace_tokenizatio@fare', and TFMA "
            "has no preprocessing function 'whitespace_tokenizatio' (it has '_plus_one'"
            ", 'whitespace_tokenization'). Did you mean 'whitespace_tokenization'?",
        ),
        (
            "whitespace_tokenization@paymen",
            "preprocessing_function_names has 'whitespace_tokenization@paymen', and "
            "'paymen' is no column of the data (it has 'fare', 'hour'). ",
        ),
        (
            "whitespace_tokenization@fare",
            f"TFMA's function 'whitespace_tokenization' of {SUBJECT} takes 'fare' as "
            "string, and column 'fare' is double. Export",
        ),
    ],
)
def test_functions_of_tfma_are_checked(model: Model, name: str, text: str) -> None:
    found = refusal(model, TRIPS, preprocessing_function_names=[name])
    assert found.startswith(text.strip())


def test_a_model_that_is_not_there_or_damaged_is_refused(
    tmp_path: Path, model: Model
) -> None:
    broken = Model(tmp_path / "model")
    folder = broken.serving_dir
    assert refusal(broken, TRIPS) == (
        f"{SUBJECT} has no SavedModel at '{folder}'. Let its Trainer write one there."
    )
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\xff not a message")
    assert refusal(broken, TRIPS) == (
        f"'{folder}/saved_model.pb' is damaged: it is no SavedModel message. Run the "
        f"producer of {SUBJECT} again."
    )
    (folder / "saved_model.pb").write_bytes(b"")
    assert refusal(broken, TRIPS) == (
        f"'{folder}/saved_model.pb' has no graph that is tagged 'serve'. Let the "
        f"producer of {SUBJECT} export one for serving."
    )
    whole = (model.serving_dir / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(whole)
    assert re.fullmatch(
        rf"Model 'm' \(candidate\) at '{folder}' cannot be loaded: .+ Run its producer "
        r"again\.",
        refusal(broken, TRIPS),
    )


def test_a_composite_tensor_of_tensorflow_1_is_refused(
    tmp_path: Path, model: Model
) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel.FromString(
        (model.serving_dir / "saved_model.pb").read_bytes()
    )
    inputs = message.meta_graphs[0].signature_def["serving_default"].inputs
    inputs["fare"].coo_sparse.values_tensor_name = "fare:0"
    other = Model(tmp_path)
    other.serving_dir.mkdir()
    (other.serving_dir / "saved_model.pb").write_bytes(message.SerializeToString())
    assert refusal(other, TRIPS) == (
        f"{SIGNATURE} takes 'fare' as a composite tensor of TensorFlow 1, which cannot "
        "be fed. Export the model with TensorFlow 2."
    )


# What is refused while rows are predicted.


def test_missing_values_of_a_dense_tensor_are_counted(
    model: Model, tf_example_model: Model
) -> None:
    rows = batch(fare=[1.0, None, None], hour=[1, 2, 3])
    assert refusal(model, rows, first_row=1_000) == (
        f"{SIGNATURE} takes 'fare' as a dense tensor, and 2 rows have no value, the "
        "first of them row 1,001 of split 'eval'. Fill them before ingestion, or "
        "export the model with a signature that takes serialized tf.Examples."
    )
    found = source(tf_example_model, rows)
    assert str(found.missing_values("fare", 2)) == (
        f"{SIGNATURE} takes 'fare' as a dense tensor, and 2 rows have no value. Fill "
        "them before ingestion, or give the feature a default_value where the model "
        "parses it."
    )
    rows = batch(fare=[[1.0], [None]], hour=[1, 2])
    assert "and 1 rows have no value, the first of them row 1 of" in refusal(
        model, rows
    )


def test_lists_of_another_length_are_refused(
    model: Model, save: Callable[..., Model]
) -> None:
    rows = batch(fare=[[1.0], [2.0, 3.0]], hour=[1, 2])
    assert refusal(model, rows) == (
        f"{SIGNATURE} takes 1 values of 'fare' per row, and row 1 of split 'eval' has "
        "2. Export the model with a signature that takes serialized tf.Examples."
    )
    free = save(
        serving_default=(
            lambda place: {"x": place},
            [spec("float32", None, 2, name="place")],
        )
    )
    assert predicted(free, batch(place=[[1.0] * 4] * 3))[""].shape == (3, 2, 2)
    text = refusal(free, batch(place=[[1.0] * 4, [1.0] * 2]))
    assert "takes 4 values of 'place' per row, and row 1 of split 'eval' has 2." in text
    text = refusal(free, batch(place=[[1.0] * 3]))
    assert "takes 2 values of 'place' per row, and row 0 of split 'eval' has 3." in text


def test_integers_that_a_tensor_cannot_hold_are_refused(
    save: Callable[..., Model],
) -> None:
    model = save(
        serving_default=(lambda kind: {"x": kind}, [spec("int32", name="kind")])
    )
    assert refusal(model, batch(kind=[1, 2**40])) == (
        "Column 'kind' holds 1 integers that int32 cannot hold, which the model takes. "
        "Export the model with int64."
    )


def strict(save: Callable[..., Model]) -> Model:
    import tensorflow as tf

    def positive(fare: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_positive(fare)]):
            return {"same": tf.identity(fare)}

    def together(fare: Any) -> Any:
        check = tf.debugging.assert_less(tf.size(fare), 4, "Too many rows")
        with tf.control_dependencies([check]):
            return {"same": tf.identity(fare)}

    takes = [spec("float32", name="fare")]
    mean = (lambda fare: {"mean": tf.reduce_mean(fare, keepdims=True)}, takes)
    return save(
        serving_default=(positive, takes), together=(together, takes), mean=mean
    )


@pytest.mark.parametrize("wrong", [[0], [7], [4, 6], [3, 4]])
def test_the_first_row_that_a_model_fails_on_is_named_and_no_value_printed(
    save: Callable[..., Model], wrong: list[int]
) -> None:
    fares = np.full(8, 5.0)
    fares[wrong] = -12345.0
    assert refusal(strict(save), batch(fare=fares), first_row=100) == (
        f"{SIGNATURE} fails on row {100 + wrong[0]} of split 'eval': assertion failed: "
        "[] [Condition x > 0 did not hold element-wise:]. Call it with rows of the "
        "data in a test of the model."
    )


def test_a_model_that_fails_on_rows_together_is_named(
    save: Callable[..., Model],
) -> None:
    rows = batch(fare=[1.0] * 5)
    text = refusal(strict(save), rows, signature_name="together")
    assert text.startswith(
        f"Signature 'together' of {SUBJECT} fails on 5 rows from row 0 of split 'eval'"
        ": assertion failed: [Too many rows]"
    )


def test_an_output_of_another_number_of_rows_is_refused(
    save: Callable[..., Model],
) -> None:
    rows = batch(fare=[1.0, 2.0])
    assert refusal(strict(save), rows, signature_name="mean") == (
        f"Output 'mean' of Signature 'mean' of {SUBJECT} has the shape (1,) for 2 "
        "rows. Make the model give one output per row."
    )


def test_features_parsed_as_another_type_are_named_one_by_one(
    tf_example_model: Model,
) -> None:
    assert refusal(tf_example_model, batch(fare=[1, 2], hour=["1", "2"])) == (
        f"{SIGNATURE} parses 'fare' as float32, and column 'fare' is int64; 'hour' as "
        "int64, and column 'hour' is string. Export the model with the type that the "
        "data has, or convert the column before ingestion."
    )


def test_the_first_example_that_cannot_be_parsed_is_named(
    tf_example_model: Model,
) -> None:
    rows = batch(fare=[1.0, 2.0, None, None], hour=[1, 2, 3, 4])
    assert refusal(tf_example_model, rows) == (
        f"{SIGNATURE} fails on row 2 of split 'eval': Name: <unknown>, Feature: fare "
        "(data type: float) is required but could not be found. Call it with rows of "
        "the data in a test of the model."
    )


def test_what_no_model_can_be_compared_by_is_refused() -> None:
    two, three = np.zeros((4, 2)), np.zeros((4, 3))
    models.check_same_outputs({"": np.zeros(4)}, {"": np.zeros((4, 1))})
    models.check_same_outputs({"a": two, "b": three}, {"b": three})
    with pytest.raises(DataError) as caught:
        models.check_same_outputs({"": two}, {"": three})
    assert str(caught.value) == (
        "The predictions have the shape (2,) per row from the candidate, and (3,) from "
        "the baseline. Compare models that predict the same thing, or evaluate without "
        "the baseline."
    )
    with pytest.raises(DataError, match="The predictions of output 'a' have the shape"):
        models.check_same_outputs({"a": two}, {"a": np.zeros(4)})
