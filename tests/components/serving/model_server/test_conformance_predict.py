"""Conformance: the calls of PredictionService, over the wire.

Every case names what it mirrors in TensorFlow Serving, and runs against our server and,
where it is on PATH, against tensorflow_model_server.
"""

from __future__ import annotations

from collections.abc import Iterator
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

from tests.components.serving.model_server.client import Client
from tests.components.serving.model_server.models import (
    answer,
    config,
    example,
    examples,
    named_request,
    predict_request,
    save_version,
)
from tests.components.serving.model_server.under_test import SERVERS, Starter, refused

REGRESS, CLASSIFY = "tensorflow/serving/regress", "tensorflow/serving/classify"


@pytest.fixture(scope="module", params=SERVERS)
def client(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A server that serves version 7 of 'm', and 'v1', made by TensorFlow 1."""
    folder = tmp_path_factory.mktemp("predict")
    save_version(template, folder / "m", 7)
    save_of_tensorflow_1(folder / "v1" / "1")
    with Starter(request.param, folder) as start:
        yield start(config(m=folder / "m", v1=folder / "v1")).client


def save_of_tensorflow_1(folder: Path) -> None:
    """Save half_plus_two: x is parsed from examples, y is half of it plus two."""
    v1 = tf.compat.v1
    sm = v1.saved_model
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = {"x": tf.io.FixedLenFeature([1], tf.float32)}
        x = tf.identity(v1.io.parse_example(serialized, features)["x"], name="x")
        a = v1.get_variable("a", initializer=0.5, use_resource=True)
        y = tf.add(a * x, 2.0, name="y")
        y2 = tf.add(a * x, 3.0, name="y2")
        names = tf.tile(tf.constant([["only"]]), [tf.shape(x)[0], 1])
        whole = tf.reduce_sum(y, axis=[0, 1], keepdims=False)
        counter = v1.get_variable("counter", initializer=0.0, use_resource=True)
        counted = counter.read_value()
        with tf.control_dependencies([counter.assign_add(1.0, read_value=False)]):
            added = tf.identity(counter.read_value())
        session.run(v1.global_variables_initializer())
        info = sm.build_tensor_info
        inputs, xs = {"inputs": info(serialized)}, {"x": info(x)}

        def signature(inputs: Any, outputs: Any, method: str) -> Any:
            return sm.build_signature_def(
                inputs, outputs, f"tensorflow/serving/{method}"
            )

        signatures = {
            "serving_default": signature(xs, {"y": info(y)}, "predict"),
            "regress_x_to_y": signature(inputs, {"outputs": info(y)}, "regress"),
            "regress_x_to_y2": signature(inputs, {"outputs": info(y2)}, "regress"),
            "regress_x2_to_y3": signature(
                {"inputs": info(x)}, {"outputs": info(y)}, "regress"
            ),
            "classify_x_to_y": signature(inputs, {"scores": info(y)}, "classify"),
            "classify_x2_to_y3": signature(
                {"inputs": info(x)}, {"scores": info(y)}, "classify"
            ),
            "classes_only": signature(inputs, {"classes": info(names)}, "classify"),
            "both": signature(
                inputs, {"classes": info(names), "scores": info(y)}, "classify"
            ),
            "scalar_output": signature(inputs, {"outputs": info(whole)}, "regress"),
            "string_output": signature(inputs, {"outputs": info(names)}, "regress"),
            "string_scores": signature(inputs, {"scores": info(names)}, "classify"),
            "float_classes": signature(inputs, {"classes": info(y)}, "classify"),
            "scalar_scores": signature(inputs, {"scores": info(whole)}, "classify"),
            "incr_counter": signature({}, {"output": info(added)}, "predict"),
            "get_counter": signature({}, {"output": info(counted)}, "predict"),
        }
        builder = sm.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session, ["serve"], signature_def_map=signatures
        )
        builder.save()


# --- Predict


def test_missing_or_empty_model_spec(client: Client) -> None:
    """predict_impl_test.cc MissingOrEmptyModelSpec"""
    request = predict_pb2.PredictRequest()
    assert refused(lambda: client.predict(request)) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )
    request.model_spec.SetInParent()
    assert refused(lambda: client.predict(request)) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )


def test_wrong_model_name(client: Client) -> None:
    """tensorflow_model_server_test.py WaitForServerReady (missing model)"""
    assert refused(lambda: client.predict(predict_request(model="missing"))) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(missing)",
    )
    assert refused(lambda: client.predict(predict_request(model="m", version=8))) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(m, 8)",
    )


def test_empty_input_list(client: Client) -> None:
    """predict_impl_test.cc EmptyInputList"""
    code, text = refused(lambda: client.predict(named_request({}, model="m")))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("input size does not match signature: 0!=1")


def test_input_tensors_dont_match_model_spec_inputs(client: Client) -> None:
    """predict_impl_test.cc InputTensorsDontMatchModelSpecInputs"""
    request = named_request({"unknown_key1": ["a"], "unknown_key2": [1.0]}, model="m")
    code, text = refused(lambda: client.predict(request))
    assert code == "INVALID_ARGUMENT"
    assert "Sent extra: {unknown_key1,unknown_key2}" in text
    assert "Missing but required: {x}" in text


def test_prediction_invalid_tensor(client: Client) -> None:
    """predict_impl_test.cc PredictionInvalidTensor"""
    request = named_request({"x": np.array([True])}, model="m")
    code, text = refused(lambda: client.predict(request))
    assert code == "INVALID_ARGUMENT"
    assert "Expects arg[0] to be float but bool is provided" in text


def test_input_tensors_have_wrong_type(client: Client) -> None:
    """predict_impl_test.cc InputTensorsHaveWrongType"""
    code, text = refused(lambda: client.predict(named_request({"x": ["a"]}, model="m")))
    assert code == "INVALID_ARGUMENT"
    assert "to be float but string is provided" in text


def test_output_filters_dont_match_model_spec_outputs(client: Client) -> None:
    """predict_impl_test.cc OutputFiltersDontMatchModelSpecOutputs"""
    wrong = predict_request(model="m", outputs=["output_filter"])
    code, text = refused(lambda: client.predict(wrong))
    assert code == "INVALID_ARGUMENT"
    assert "output tensor alias not found in signature: output_filter" in text
    client.predict(predict_request(model="m", outputs=["y"]))
    twice = predict_request(model="m", outputs=["y", "y"])
    code, text = refused(lambda: client.predict(twice))
    assert code == "INVALID_ARGUMENT"
    assert "duplicate output tensor alias: y" in text


def test_model_missing_signatures(client: Client) -> None:
    """predict_impl_test.cc ModelMissingSignatures"""
    request = predict_request(model="m", signature="missing")
    assert refused(lambda: client.predict(request)) == (
        "FAILED_PRECONDITION",
        'Serving signature key "missing" not found.',
    )


def test_prediction_success(client: Client) -> None:
    """predict_impl_test.cc PredictionSuccess"""
    request = named_request({"x": np.float32(2.0)}, model="v1")
    response = client.predict(request)
    assert response.model_spec.name == "v1"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    assert list(response.outputs) == ["y"]
    # A scalar goes in where the signature says otherwise, and comes out.
    assert list(response.outputs["y"].float_val) == [3.0]
    assert not response.outputs["y"].tensor_shape.dim


def test_prediction_with_named_regression_signature(client: Client) -> None:
    """predict_impl_test.cc PredictionWithNamedRegressionSignature"""
    request = named_request(
        {"inputs": [[2.0]]}, model="v1", signature="regress_x2_to_y3"
    )
    assert answer(client.predict(request), "outputs") == [[3.0]]


def test_prediction_with_named_classification_signature(client: Client) -> None:
    """predict_impl_test.cc PredictionWithNamedClassificationSignature"""
    request = named_request(
        {"inputs": [[2.0]]}, model="v1", signature="classify_x2_to_y3"
    )
    assert answer(client.predict(request), "scores") == [[3.0]]


def test_prediction_with_customized_signatures(client: Client) -> None:
    """predict_impl_test.cc PredictionWithCustomizedSignatures"""

    def call(signature: str) -> Any:
        request = named_request({}, model="v1", signature=signature)
        return tf.make_ndarray(client.predict(request).outputs["output"]).item()

    before = call("get_counter")
    assert call("incr_counter") == before + 1
    assert call("get_counter") == before + 1


def test_the_version_that_answered_is_told(client: Client) -> None:
    """predict.proto PredictResponse.model_spec (effective)"""
    response = client.predict(predict_request([1.0], model="m", outputs=["y"]))
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "serving_default"
    assert response.outputs["y"].dtype == tf.float32.as_datatype_enum
    assert answer(response) == [9.0]


def test_a_shape_that_no_operation_refuses_is_taken(client: Client) -> None:
    """predict_util.cc PreProcessPrediction (shapes are not looked at)"""
    request = named_request({"x": np.ones((2, 2), np.float32)}, model="m")
    assert answer(client.predict(request)) == [[9.0, 9.0], [9.0, 9.0]]


def test_a_shape_that_an_operation_refuses_is_an_invalid_argument(
    client: Client,
) -> None:
    """predict_util.cc RunPredict (the session's status)"""
    request = named_request(
        {"x": np.ones((1, 4), np.float32)}, model="m", signature="matrix"
    )
    code, text = refused(lambda: client.predict(request))
    assert code == "INVALID_ARGUMENT"
    assert "incompatible" in text


def test_an_unparsable_tensor(client: Client) -> None:
    """predict_util.cc PreProcessPrediction (tensor parsing error)"""
    request = predict_request(model="m")
    request.inputs["x"].ClearField("float_val")
    request.inputs["x"].tensor_content = b"123"
    code, text = refused(lambda: client.predict(request))
    assert code == "INVALID_ARGUMENT"
    assert "tensor parsing error: x" in text


def test_numbers_stand_in_the_field_of_their_type(client: Client) -> None:
    """predict_util.h PredictResponseTensorSerializationOption (kAsProtoField)"""
    response = client.predict(predict_request([1.0, 2.0], model="m"))
    assert list(response.outputs["y"].float_val) == [9.0, 11.0]
    assert response.outputs["y"].tensor_content == b""


def test_long_texts_are_cut(client: Client) -> None:
    """grpc_status_util.cc ToGRPCStatus (kErrorMessageLimit)"""
    request = predict_request(model="m", signature="s" * 5000)
    code, text = refused(lambda: client.predict(request))
    assert code == "FAILED_PRECONDITION"
    assert len(text) == 1024 + len("...TRUNCATED")
    assert text.endswith("...TRUNCATED")


def test_method_name_check(start: Starter, base: Path, tmp_path: Path) -> None:
    """predict_impl_test.cc, classifier_test.cc, regressor_test.cc MethodNameCheck"""
    save_of_tensorflow_1(base / "1")
    checked = start(config(v1=base), enable_signature_method_name_check=True).client
    assert regress(checked, "regress_x_to_y", 2.0) == [3.0]
    assert refused(lambda: regress(checked, "classify_x_to_y", 2.0)) == (
        "INVALID_ARGUMENT",
        f"Expected regression signature method_name to be {REGRESS}. Was: {CLASSIFY}",
    )
    assert refused(lambda: classify(checked, "regress_x_to_y", 2.0)) == (
        "INVALID_ARGUMENT",
        f"Expected classification signature method_name to be {CLASSIFY}. "
        f"Was: {REGRESS}",
    )


# --- Classify


def classify(
    client: Client, signature: str, *values: float, model: str = "v1", **fields: Any
) -> list[list[tuple[str, float]]]:
    request = classification_pb2.ClassificationRequest(
        input=fields.get("input", examples(*values))
    )
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    response = client.call("PredictionService/Classify", request)
    assert response.model_spec.signature_name == signature
    return [
        [(entry.label, entry.score) for entry in row.classes]
        for row in response.result.classifications
    ]


def with_context(context: float, *values: float | None) -> Any:
    made = classification_pb2.ClassificationRequest().input
    both = made.example_list_with_context
    both.context.CopyFrom(example(x=context))
    for value in values:
        both.examples.append(tf.train.Example() if value is None else example(x=value))
    return made


def test_classify_example_list(client: Client) -> None:
    """classifier_test.cc ExampleList"""
    assert classify(client, "both", 2.0, 4.0) == [[("only", 3.0)], [("only", 4.0)]]


def test_classify_example_list_with_context(client: Client) -> None:
    """classifier_test.cc ExampleListWithContext"""
    found = classify(client, "both", input=with_context(2.0, None, None))
    assert found == [[("only", 3.0)]] * 2


def test_classify_duplicate_features(client: Client) -> None:
    """classifier_test.cc ExampleListWithContext_DuplicateFeatures"""
    found = classify(client, "both", input=with_context(2.0, None, 4.0))
    assert found == [[("only", 3.0)], [("only", 4.0)]]


def test_classify_classes_only(client: Client) -> None:
    """classifier_test.cc ClassesOnly"""
    assert classify(client, "classes_only", 2.0) == [[("only", 0.0)]]


def test_classify_scores_only(client: Client) -> None:
    """classifier_test.cc ScoresOnly"""
    assert classify(client, "classify_x_to_y", 2.0) == [[("", 3.0)]]


def test_classify_zero_scores_are_present(client: Client) -> None:
    """classifier_test.cc ZeroScoresArePresent"""
    assert classify(client, "classify_x_to_y", -4.0, 0.0) == [[("", 0.0)], [("", 2.0)]]


def test_classify_invalid_named_signature(client: Client) -> None:
    """classifier_test.cc InvalidNamedSignature"""
    assert refused(lambda: classify(client, "not_exists", 2.0)) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: not_exists",
    )


def test_classify_missing_classification_signature(client: Client) -> None:
    """classifier_test.cc MissingClassificationSignature"""
    code, text = refused(lambda: classify(client, "serving_default", 2.0))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("No classification inputs found in SignatureDef: ")


def test_classify_empty_input(client: Client) -> None:
    """classifier_test.cc EmptyInput, EmptyExampleList, EmptyExampleListWithContext"""
    nothing = classification_pb2.ClassificationRequest().input
    for empty in (nothing, examples(), with_context(2.0)):
        found = refused(lambda empty=empty: classify(client, "both", input=empty))  # type: ignore[misc]
        assert found == ("INVALID_ARGUMENT", "Input is empty.")


def test_classify_wrong_type_and_shape(client: Client) -> None:
    """classifier_test.cc ScoresIncorrectTensorType, ClassesIncorrectTensorType"""
    assert refused(lambda: classify(client, "string_scores", 2.0)) == (
        "INVALID_ARGUMENT",
        "Expected scores Tensor of DT_FLOAT. Got: DT_STRING",
    )
    assert refused(lambda: classify(client, "float_classes", 2.0)) == (
        "INVALID_ARGUMENT",
        "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
    )
    assert refused(lambda: classify(client, "scalar_scores", 2.0)) == (
        "INVALID_ARGUMENT",
        "Expected Tensor shape: [batch_size num_classes] but got []",
    )


def test_classify_of_tensorflow_2(client: Client) -> None:
    """signature_defs.md and main.cc enable_signature_method_name_check (off)"""
    ((low, high),) = classify(client, "classify", 0.0, model="m")
    assert (low, high) == (("low", 0.5), ("high", 0.5))


# --- Regress


def regress(client: Client, signature: str, *values: float) -> list[float]:
    return client.regress("v1", signature, *values)


def test_regress_basic_example_list(client: Client) -> None:
    """regressor_test.cc BasicExampleList"""
    assert regress(client, "regress_x_to_y", 2.0, 3.0) == [3.0, 3.5]


def test_regress_basic_example_list_with_context(client: Client) -> None:
    """regressor_test.cc BasicExampleListWithContext"""
    request = regression_pb2.RegressionRequest(input=with_context(2.0, None, 4.0))
    request.model_spec.name = "v1"
    request.model_spec.signature_name = "regress_x_to_y"
    response = client.call("PredictionService/Regress", request)
    assert [entry.value for entry in response.result.regressions] == [3.0, 4.0]


def test_regress_invalid_named_signature(client: Client) -> None:
    """regressor_test.cc InvalidNamedSignature"""
    assert refused(lambda: regress(client, "not_exists", 2.0)) == (
        "INVALID_ARGUMENT",
        "No signature was found with the name: not_exists",
    )


def test_regress_missing_regression_signature(client: Client) -> None:
    """regressor_test.cc MissingRegressionSignature"""
    code, text = refused(lambda: regress(client, "serving_default", 2.0))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("No regression inputs found in SignatureDef: ")


def test_regress_empty_input(client: Client) -> None:
    """regressor_test.cc EmptyInput, EmptyExampleList"""
    assert refused(lambda: regress(client, "regress_x_to_y")) == (
        "INVALID_ARGUMENT",
        "Input is empty.",
    )


def test_regress_unexpected_output_tensor_size(client: Client) -> None:
    """regressor_test.cc UnexpectedOutputTensorSize"""
    assert refused(lambda: regress(client, "scalar_output", 2.0)) == (
        "INVALID_ARGUMENT",
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but "
        "got []",
    )


def test_regress_unexpected_output_tensor_type(client: Client) -> None:
    """regressor_test.cc UnexpectedOutputTensorType"""
    assert refused(lambda: regress(client, "string_output", 2.0)) == (
        "INVALID_ARGUMENT",
        "Expected output Tensor of DT_FLOAT.  Got: DT_STRING",
    )


def test_an_example_without_the_feature(client: Client) -> None:
    """regressor.cc Regress (the session's status)"""
    request = regression_pb2.RegressionRequest()
    request.input.example_list.examples.add()
    request.model_spec.name = "v1"
    request.model_spec.signature_name = "regress_x_to_y"
    code, text = refused(lambda: client.call("PredictionService/Regress", request))
    assert code == "INVALID_ARGUMENT"
    assert "Feature: x" in text


# --- MultiInference


def multi(
    client: Client, *tasks: tuple[str, str], rows: Any = None, model: str = "v1"
) -> Any:
    request = inference_pb2.MultiInferenceRequest(
        input=examples(2.0) if rows is None else rows
    )
    for signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    return client.call("PredictionService/MultiInference", request)


def test_multi_missing_input(client: Client) -> None:
    """multi_inference_test.cc MissingInputTest"""
    tasks = ("regress_x_to_y", REGRESS)
    assert refused(lambda: multi(client, tasks, rows=examples())) == (
        "INVALID_ARGUMENT",
        "Input is empty.",
    )


def test_multi_undefined_signature(client: Client) -> None:
    """multi_inference_test.cc UndefinedSignatureTest"""
    assert refused(lambda: multi(client, ("ThisSignatureDoesNotExist", REGRESS))) == (
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: ThisSignatureDoesNotExist",
    )


def test_multi_inconsistent_model_specs(client: Client) -> None:
    """multi_inference_test.cc InconsistentModelSpecsInRequestTest"""
    request = inference_pb2.MultiInferenceRequest(input=examples(2.0))
    for model in ("v1", "ModelB"):
        task = request.tasks.add(method_name=REGRESS)
        task.model_spec.name = model
        task.model_spec.signature_name = "regress_x_to_y"
    found = refused(lambda: client.call("PredictionService/MultiInference", request))
    assert found == (
        "INVALID_ARGUMENT",
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    )


def test_multi_duplicate_signatures(client: Client) -> None:
    """multi_inference_test.cc EvaluateDuplicateSignaturesTest"""
    task = ("regress_x_to_y", REGRESS)
    assert refused(lambda: multi(client, task, task)) == (
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: regress_x_to_y",
    )


def test_multi_unsupported_signature_type(client: Client) -> None:
    """multi_inference_test.cc UsupportedSignatureTypeTest"""
    task = ("serving_default", "tensorflow/serving/predict")
    assert refused(lambda: multi(client, task)) == (
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    )


def test_multi_valid_single_signature(client: Client) -> None:
    """multi_inference_test.cc ValidSingleSignatureTest"""
    (result,) = multi(client, ("regress_x_to_y", REGRESS)).results
    assert [entry.value for entry in result.regression_result.regressions] == [3.0]
    assert result.model_spec.name == "v1"
    assert result.model_spec.version.value == 1
    assert result.model_spec.signature_name == "regress_x_to_y"


def test_multi_several_regression_signatures(client: Client) -> None:
    """multi_inference_test.cc MultipleValidRegressionSignaturesTest"""
    first, second = multi(
        client, ("regress_x_to_y", REGRESS), ("regress_x_to_y2", REGRESS)
    ).results
    assert first.regression_result.regressions[0].value == 3.0
    assert second.regression_result.regressions[0].value == 4.0


def test_multi_regression_and_classification(client: Client) -> None:
    """multi_inference_test.cc RegressionAndClassificationSignaturesTest"""
    first, second = multi(
        client, ("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY)
    ).results
    assert first.regression_result.regressions[0].value == 3.0
    assert second.classification_result.classifications[0].classes[0].score == 3.0


def test_multi_without_tasks(client: Client) -> None:
    """multi_inference_helper.cc GetModelSpecFromRequest (no task)"""
    assert refused(lambda: multi(client)) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )


# --- GetModelMetadata


def metadata(client: Client, model: str = "m", *fields: str) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if model:
        request.model_spec.name = model
    return client.call("PredictionService/GetModelMetadata", request)


def test_metadata_empty_or_invalid_field_list(client: Client) -> None:
    """get_model_metadata_impl_test.cc EmptyOrInvalidMetadataFieldList"""
    assert refused(lambda: metadata(client)) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    code, text = refused(lambda: metadata(client, "m", "some_stuff"))
    assert code == "INVALID_ARGUMENT"
    assert "some_stuff" in text and "is not supported" in text


def test_metadata_missing_model_spec(client: Client) -> None:
    """get_model_metadata_impl_test.cc MissingOrEmptyModelSpec"""
    assert refused(lambda: metadata(client, "", "signature_def")) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )


def test_metadata_returns_signatures(client: Client) -> None:
    """get_model_metadata_impl_test.cc ReturnsSignaturesForValidModel"""
    response = metadata(client, "m", "signature_def")
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 7
    known = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(known)
    x = known.signature_def["serving_default"].inputs["x"]
    assert x.dtype == tf.float32.as_datatype_enum
    assert [dim.size for dim in x.tensor_shape.dim] == [-1]
    assert known.signature_def["several"].method_name == "tensorflow/serving/predict"


def test_metadata_of_an_unknown_model(client: Client) -> None:
    """get_model_metadata_impl.cc SavedModelGetSignatureDef (GetServableHandle)"""
    assert refused(lambda: metadata(client, "nope", "signature_def")) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(nope)",
    )
