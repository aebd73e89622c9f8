"""One loaded version: what it answers, and what it refuses in which words."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from penstock.components.serving.model_server.servable import (
    Code,
    Servable,
    ServableError,
    example_count,
)
from tests.components.serving.model_server import models
from tests.components.serving.model_server.models import (
    answer,
    examples,
    named_request,
    predict_request,
)


@pytest.fixture(scope="module")
def servable(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Servable:
    folder = models.save_version(template, tmp_path_factory.mktemp("serving"), 7)
    return Servable(folder, version=7)


def refused(error: pytest.ExceptionInfo[ServableError]) -> tuple[Code, str]:
    return error.value.code, error.value.message


# --- Predict


def test_predict_says_value_model_signature_and_version(servable: Servable) -> None:
    response = servable.predict(predict_request([1.0, 2.5], model="m"))
    assert answer(response) == [9.0, 12.0]
    assert response.model_spec.name == "m"
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value == 7


def test_outputs_are_in_the_field_of_their_type(servable: Servable) -> None:
    response = servable.predict(predict_request([1.0]))
    assert list(response.outputs["y"].float_val) == [9.0]
    assert not response.outputs["y"].tensor_content


def test_strings_integers_and_scalars_pass_through(servable: Servable) -> None:
    request = named_request(
        {
            "a": np.array([1.5], np.float32),
            "b": np.array([2], np.int64),
            "s": np.array([b"caf\xc3\xa9"], np.object_),
        },
        signature="several",
    )
    response = servable.predict(request)
    assert answer(response, "sum") == [3.5]
    assert answer(response, "text") == [b"caf\xc3\xa9!"]
    assert tf.make_ndarray(response.outputs["version"]) == 7.0
    assert not response.outputs["version"].tensor_shape.dim


def test_output_filter_selects(servable: Servable) -> None:
    request = named_request(
        {"a": [1.5], "b": np.array([2], np.int64), "s": ["x"]}, signature="several"
    )
    request.output_filter.append("text")
    assert list(servable.predict(request).outputs) == ["text"]


def test_content_and_values_decode_alike(servable: Servable) -> None:
    request = predict_request([])
    proto = request.inputs["x"]
    proto.Clear()
    proto.dtype = tf.float32.as_datatype_enum
    proto.tensor_shape.dim.add().size = 3
    proto.float_val.append(1.0)  # the last value stands for all that follow
    assert answer(servable.predict(request)) == [9.0, 9.0, 9.0]
    proto.ClearField("float_val")
    assert answer(servable.predict(request)) == [7.0, 7.0, 7.0]
    proto.tensor_content = np.array([1, 2, 3], np.float32).tobytes()
    assert answer(servable.predict(request)) == [9.0, 11.0, 13.0]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (
            predict_request(signature="nope"),
            Code.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
        ),
        (
            named_request({}),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). "
            "Sent extra: {}. Missing but required: {x}.",
        ),
        (
            named_request({"x": [1.0], "z": [2.0]}),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
        ),
        (
            named_request({"z": [1.0]}),
            Code.INVALID_ARGUMENT,
            "Signature input alias: x(feed name: serving_default_x:0) not found in "
            "request and no default value provided. Inputs expected to be in the "
            "request {z}, or default input alias set: ",
        ),
        (
            predict_request(outputs=["nope"]),
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: nope Outputs expected to be "
            "in the set {y}.",
        ),
        (
            predict_request(outputs=["y", "y"]),
            Code.INVALID_ARGUMENT,
            "duplicate output tensor alias: y",
        ),
        (
            named_request({"x": np.array([1.0])}),
            Code.INVALID_ARGUMENT,
            "Expects arg[0] to be float but double is provided (input 'x')",
        ),
        (
            named_request({"x": ["a"]}),
            Code.INVALID_ARGUMENT,
            "Expects arg[0] to be float but string is provided (input 'x')",
        ),
    ],
)
def test_wrong_predictions_are_refused(
    servable: Servable, request_: predict_pb2.PredictRequest, code: Code, words: str
) -> None:
    with pytest.raises(ServableError) as error:
        servable.predict(request_)
    assert refused(error) == (code, words)


def test_a_shape_that_the_model_cannot_take_is_refused(servable: Servable) -> None:
    request = named_request({"x": np.ones((1, 4), np.float32)}, signature="matrix")
    with pytest.raises(ServableError, match="incompatible") as error:
        servable.predict(request)
    assert error.value.code is Code.INVALID_ARGUMENT


def test_wrong_inputs_are_told_before_a_wrong_filter(servable: Servable) -> None:
    request = named_request({"z": [1.0]})
    request.output_filter.append("nope")
    with pytest.raises(ServableError, match="Signature input alias: x"):
        servable.predict(request)


def malformed(**fields: Any) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.inputs["x"].dtype = fields.pop("dtype", tf.float32.as_datatype_enum)
    for size in fields.pop("shape", ()):
        request.inputs["x"].tensor_shape.dim.add().size = size
    for name, value in fields.items():
        setattr(request.inputs["x"], name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            malformed(shape=[2], tensor_content=b"123"),
            "its content is 3 bytes where its shape takes 8",
        ),
        (malformed(shape=[-1]), "its shape is not fully known"),
        (malformed(dtype=0), "tensors of type invalid cannot be sent"),
        (malformed(dtype=9999), "tensors of type unknown dtype enum (9999) cannot be"),
        (
            malformed(dtype=tf.resource.as_datatype_enum),
            "tensors of type resource cannot be sent",
        ),
        (
            malformed(shape=[1 << 40]),
            "its shape takes 1099511627776 values, but only 0 were sent",
        ),
        (
            malformed(
                dtype=tf.string.as_datatype_enum, shape=[2], tensor_content=b"\x7f"
            ),
            "its content is shorter than its shape",
        ),
        (
            malformed(
                dtype=tf.string.as_datatype_enum, shape=[2], tensor_content=b"\x7f\x01"
            ),
            "its content holds no such strings",
        ),
    ],
)
def test_malformed_tensors_are_refused(
    servable: Servable, request_: predict_pb2.PredictRequest, words: str
) -> None:
    with pytest.raises(ServableError) as error:
        servable.predict(request_)
    assert error.value.code is Code.INVALID_ARGUMENT
    assert error.value.message.startswith(f"tensor parsing error: x: {words}")


def test_any_number_of_threads_at_once_get_their_own_answers(
    servable: Servable,
) -> None:
    wrong: list[Any] = []

    def ask(place: int) -> None:
        for step in range(200):
            x = float(place * 1000 + step)
            if answer(servable.predict(predict_request([x]))) != [2 * x + 7]:
                wrong.append(x)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_many_output_filters_do_not_pile_up(servable: Servable) -> None:
    request = named_request(
        {"a": [1.0], "b": np.array([2], np.int64), "s": ["x"]}, signature="several"
    )
    for _ in range(3):
        for outputs in (["sum"], ["sum", "text"], ["text", "sum"], ["version"]):
            del request.output_filter[:]
            request.output_filter.extend(outputs)
            assert sorted(servable.predict(request).outputs) == sorted(outputs)
    assert len(servable._calls) <= 64


# --- Classify, Regress, MultiInference


def regression(signature: str, *values: float) -> regression_pb2.RegressionRequest:
    request = regression_pb2.RegressionRequest(input=examples(*values))
    request.model_spec.name = "m"
    request.model_spec.signature_name = signature
    return request


def classification(
    signature: str, *values: float
) -> classification_pb2.ClassificationRequest:
    request = classification_pb2.ClassificationRequest(input=examples(*values))
    request.model_spec.name = "m"
    request.model_spec.signature_name = signature
    return request


def test_regress_gives_one_value_per_example(servable: Servable) -> None:
    response = servable.regress(regression("regress", 1.0, 2.0))
    assert [entry.value for entry in response.result.regressions] == [9.0, 11.0]
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "regress"


def test_classify_gives_labels_and_scores(servable: Servable) -> None:
    response = servable.classify(classification("classify", 0.0))
    (row,) = response.result.classifications
    assert [(entry.label, entry.score) for entry in row.classes] == [
        ("low", 0.5),
        ("high", 0.5),
    ]


def test_the_context_is_part_of_every_example(servable: Servable) -> None:
    request = regression("regress")
    both = request.input.example_list_with_context
    both.context.CopyFrom(models.example(x=5.0))
    both.examples.extend([tf.train.Example(), models.example(x=1.0)])
    assert example_count(request.input) == 2
    response = servable.regress(request)
    # What the example says itself comes later and counts.
    assert [entry.value for entry in response.result.regressions] == [17.0, 9.0]


def multi(*tasks: tuple[str, str, str]) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest(input=examples(0.0))
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    return request


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (
            regression("nope", 1.0),
            Code.INVALID_ARGUMENT,
            "No signature was found with the name: nope",
        ),
        (regression("regress"), Code.INVALID_ARGUMENT, "Input is empty."),
        (
            regression("several", 1.0),
            Code.INVALID_ARGUMENT,
            "Expected one input Tensor.",
        ),
        (
            regression("classify", 1.0),
            Code.INVALID_ARGUMENT,
            "Expected one output Tensor.",
        ),
        (
            regression("", 1.0),
            Code.INVALID_ARGUMENT,
            "No regression inputs found in SignatureDef: ",
        ),
        (
            classification("nope", 1.0),
            Code.INVALID_ARGUMENT,
            "No signature was found with the name: nope",
        ),
        (classification("classify"), Code.INVALID_ARGUMENT, "Input is empty."),
        (
            classification("several", 1.0),
            Code.INVALID_ARGUMENT,
            "Expected one input Tensor.",
        ),
        (
            classification("", 1.0),
            Code.INVALID_ARGUMENT,
            "No classification inputs found in SignatureDef: ",
        ),
        (
            classification("regress", 1.0),
            Code.INVALID_ARGUMENT,
            "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was: ',
        ),
        (
            multi(("", "", "regress")),
            Code.INVALID_ARGUMENT,
            "Found ModelSpec with an empty model name.",
        ),
        (
            multi(("m", "regress", "regress"), ("n", "classify", "classify")),
            Code.INVALID_ARGUMENT,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name",
        ),
        (
            multi(("m", "regress", "regress"), ("m", "regress", "regress")),
            Code.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: regress",
        ),
        (
            multi(("m", "nope", "regress")),
            Code.INVALID_ARGUMENT,
            "Requested signature not found in model graph: nope",
        ),
        (
            multi(("m", "regress", "predict")),
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            # Exported apart by TensorFlow 2, they do not share their placeholder.
            multi(("m", "regress", "regress"), ("m", "classify", "classify")),
            Code.INVALID_ARGUMENT,
            "Input tensor must be the same for all Signatures.",
        ),
    ],
)
def test_wrong_inferences_are_refused(
    servable: Servable, request_: Any, code: Code, words: str
) -> None:
    call = {
        regression_pb2.RegressionRequest: servable.regress,
        classification_pb2.ClassificationRequest: servable.classify,
        inference_pb2.MultiInferenceRequest: servable.multi_inference,
    }[type(request_)]
    with pytest.raises(ServableError) as error:
        call(request_)
    assert error.value.code is code
    assert error.value.message.startswith(words)


def test_an_example_without_the_feature_is_refused(servable: Servable) -> None:
    request = regression("regress")
    request.input.example_list.examples.add()
    with pytest.raises(ServableError, match="x") as error:
        servable.regress(request)
    assert error.value.code is Code.INVALID_ARGUMENT


def test_one_task_alone_is_a_multi_inference(servable: Servable) -> None:
    response = servable.multi_inference(multi(("m", "regress", "regress")))
    (result,) = response.results
    assert result.regression_result.regressions[0].value == 7.0
    assert result.model_spec.version.value == 7


def test_method_names_count_when_they_are_checked(servable: Servable) -> None:
    strict = Servable(servable.folder, check_method_names=True)
    assert answer(strict.predict(predict_request([1.0]))) == [9.0]
    with pytest.raises(ServableError) as error:
        strict.regress(regression("regress", 1.0))
    assert refused(error) == (
        Code.INVALID_ARGUMENT,
        "Expected regression signature method_name to be tensorflow/serving/regress. "
        "Was: tensorflow/serving/predict",
    )
    with pytest.raises(ServableError) as error:
        strict.classify(classification("classify", 1.0))
    assert refused(error) == (
        Code.INVALID_ARGUMENT,
        "Expected classification signature method_name to be "
        "tensorflow/serving/classify. Was: tensorflow/serving/predict",
    )


# --- GetModelMetadata


def metadata_request(*fields: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "m"
    return request


def test_metadata_holds_every_signature(servable: Servable) -> None:
    response = servable.metadata(metadata_request("signature_def"))
    known = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(known)
    assert set(servable.signatures) <= set(known.signature_def)
    assert "serving_default" in servable.signatures
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 7)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (get_model_metadata_pb2.GetModelMetadataRequest(), "Missing ModelSpec"),
        (
            metadata_request(),
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (metadata_request("graph"), "Metadata field graph is not supported"),
    ],
)
def test_other_metadata_is_refused(
    servable: Servable,
    request_: get_model_metadata_pb2.GetModelMetadataRequest,
    words: str,
) -> None:
    with pytest.raises(ServableError) as error:
        servable.metadata(request_)
    assert refused(error) == (Code.INVALID_ARGUMENT, words)


# --- what cannot be loaded, and what loads though it should not


def test_a_folder_without_a_model_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ServableError) as error:
        Servable(tmp_path)
    assert refused(error) == (
        Code.NOT_FOUND,
        "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
        f"{tmp_path}. Check that the directory exists and that you have the right "
        "permissions for accessing it.",
    )
    (tmp_path / "43").touch()
    with pytest.raises(ServableError, match="Could not find SavedModel"):
        Servable(tmp_path / "43")


def test_a_torn_graph_is_not_loaded(template: Path, tmp_path: Path) -> None:
    folder = models.save_version(template, tmp_path, 1)
    whole = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ServableError) as error:
        Servable(folder)
    assert refused(error) == (
        Code.DATA_LOSS,
        f"Can't parse {folder}/saved_model.pb as binary proto",
    )


def test_an_empty_graph_has_no_tag(template: Path, tmp_path: Path) -> None:
    folder = models.save_version(template, tmp_path, 1)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ServableError) as error:
        Servable(folder)
    assert error.value.code is Code.NOT_FOUND
    assert "matching supplied tags: { serve }" in error.value.message


def test_other_tags_are_not_found(servable: Servable) -> None:
    with pytest.raises(ServableError, match=re.escape("tags: { gpu serve }")):
        Servable(servable.folder, tags=("serve", "gpu"))


def test_without_variables_it_loads_and_fails_every_request(
    template: Path, tmp_path: Path
) -> None:
    # tensorflow/serving#1086: a copy that is not finished is reported AVAILABLE.
    folder = models.save_version(template, tmp_path, 1)
    (folder / "variables" / "variables.index").unlink()
    partial = Servable(folder)
    for _ in range(3):
        with pytest.raises(ServableError) as error:
            partial.predict(predict_request([1.0]))
        assert error.value.code is Code.FAILED_PRECONDITION
        assert "variable" in error.value.message.lower()


def test_an_index_without_its_data_is_not_loaded(
    template: Path, tmp_path: Path
) -> None:
    folder = models.save_version(template, tmp_path, 1)
    (folder / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(ServableError) as error:
        Servable(folder)
    assert error.value.code is Code.NOT_FOUND


# --- models made by other hands


def test_models_of_keras_3_are_served(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.export(tmp_path / "1", verbose=False)
    servable = Servable(tmp_path / "1")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (alias,) = servable.signatures["serving_default"].inputs
    response = servable.predict(named_request({alias: x}))
    (found,) = map(tf.make_ndarray, response.outputs.values())
    np.testing.assert_allclose(found, model(x).numpy(), rtol=1e-6)


def test_models_of_keras_2_are_served(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential(
        [tf_keras.layers.Dense(4, activation="relu", input_shape=(3,))]
    )
    model.save(str(tmp_path / "1"), save_format="tf")
    servable = Servable(tmp_path / "1")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (alias,) = servable.signatures["serving_default"].inputs
    response = servable.predict(named_request({alias: x}))
    (found,) = map(tf.make_ndarray, response.outputs.values())
    np.testing.assert_allclose(found, model(x).numpy(), rtol=1e-6)


@pytest.fixture(scope="module")
def of_tensorflow_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose classify and regress signatures share one placeholder."""
    v1 = tf.compat.v1
    folder = tmp_path_factory.mktemp("v1")
    words = folder / "words.txt"
    words.write_text("low\nhigh\n")
    constants = tf.compat.v1.saved_model
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="examples")
        features = {"x": tf.io.FixedLenFeature([], tf.float32)}
        x = v1.io.parse_example(serialized, features)["x"]
        weight = v1.get_variable("w", initializer=3.0, use_resource=True)
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(words), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="?",
        )  # fmt: skip
        y = weight * x
        classes = table.lookup(tf.constant([[0, 1]], tf.int64))
        classes = tf.tile(classes, [tf.shape(x)[0], 1])
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        build = constants.build_tensor_info
        inputs = {"inputs": build(serialized)}
        signatures = {
            "regress": constants.build_signature_def(
                inputs, {"outputs": build(y)}, "tensorflow/serving/regress"
            ),
            "classify": constants.build_signature_def(
                inputs, {"classes": build(classes)}, "tensorflow/serving/classify"
            ),
            "odd": constants.build_signature_def(
                inputs, {"outputs": build(y)}, "of/another/kind"
            ),
        }
        builder = constants.Builder(str(folder / "1"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map=signatures,
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    words.unlink()  # so that only the copy among the assets can be read
    return folder / "1"


def test_models_of_tensorflow_1_are_served_with_their_assets(
    of_tensorflow_1: Path,
) -> None:
    servable = Servable(of_tensorflow_1, check_method_names=True)
    regressed = servable.regress(regression("regress", 1.0, 2.0))
    assert [entry.value for entry in regressed.result.regressions] == [3.0, 6.0]
    classified = servable.classify(classification("classify", 1.0))
    labels = [entry.label for entry in classified.result.classifications[0].classes]
    assert labels == ["low", "high"]


def test_signatures_that_share_an_input_run_together(of_tensorflow_1: Path) -> None:
    servable = Servable(of_tensorflow_1, version=1)
    response = servable.multi_inference(
        multi(("m", "classify", "classify"), ("m", "regress", "regress"))
    )
    first, second = response.results
    assert first.classification_result.classifications[0].classes[1].label == "high"
    assert second.regression_result.regressions[0].value == 0.0
    assert first.model_spec.signature_name == "classify"


def test_predict_refuses_an_odd_method_only_if_it_checks(of_tensorflow_1: Path) -> None:
    request = named_request(
        {"inputs": [models.example(x=1.0).SerializeToString()]}, signature="odd"
    )
    servable = Servable(of_tensorflow_1)
    assert answer(servable.predict(request), "outputs") == [3.0]
    strict = Servable(of_tensorflow_1, check_method_names=True)
    with pytest.raises(ServableError) as error:
        strict.predict(request)
    assert error.value.code is Code.INTERNAL
    assert error.value.message == (
        "Expected prediction signature method_name to be one of "
        "{tensorflow/serving/predict, tensorflow/serving/classify, "
        "tensorflow/serving/regress}. Was: of/another/kind"
    )
