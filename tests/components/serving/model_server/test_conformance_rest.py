"""Conformance: the REST API, over the wire.

Every case names what it mirrors in TensorFlow Serving, and runs against our server and,
where it is on PATH, against tensorflow_model_server.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tensorflow as tf

from tests.components.serving.model_server.models import config, save_version
from tests.components.serving.model_server.test_conformance_predict import (
    save_of_tensorflow_1,
)
from tests.components.serving.model_server.under_test import (
    SERVERS,
    Running,
    Starter,
    until,
)


class Everything(tf.Module):  # type: ignore[misc]
    """Gives back what it gets, in every type that JSON has words for."""

    def echo(self, i32: Any, i64: Any, f64: Any, b: Any, s: Any) -> Any:
        return {
            "i32": i32,
            "i64": i64,
            "f64": f64,
            "b": b,
            "text": s,
            "text_bytes": s,
        }

    def scalar(self, x: Any) -> Any:
        return {"total": tf.reduce_sum(x)}

    def half(self, x: Any) -> Any:
        return {"y": tf.cast(x, tf.float16)}


def save_everything(folder: Path) -> None:
    module = Everything()
    types = {
        "i32": tf.int32, "i64": tf.int64, "f64": tf.float64, "b": tf.bool,
        "s": tf.string,
    }  # fmt: skip
    x = [tf.TensorSpec([None], tf.float32, name="x")]
    tf.saved_model.save(
        module,
        str(folder),
        signatures={
            "serving_default": tf.function(
                module.echo,
                input_signature=[
                    tf.TensorSpec(None, dtype, name=name)
                    for name, dtype in types.items()
                ],
            ),
            "scalar": tf.function(module.scalar, input_signature=x),
            "half": tf.function(module.half, input_signature=x),
        },
    )


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """'m' in versions 1 and 2, of which 1 is labelled; 'v1' and 'all'."""
    folder = tmp_path_factory.mktemp("rest")
    for version in (1, 2):
        save_version(template, folder / "m", version)
    save_of_tensorflow_1(folder / "v1" / "123")
    save_everything(folder / "all" / "1")

    def served(**settings: Any) -> Any:
        return config(
            m=folder / "m",
            v1=folder / "v1",
            all=folder / "all",
            specific={"m": [1, 2]},
            **settings,
        )

    with Starter(request.param, folder) as start:
        running = start(served())
        until(lambda: list(running.client.states("m").values()) == ["AVAILABLE"] * 2)
        running.client.reload(served(labels={"m": {"stable": 1}}))
        yield running


def post(server: Running, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return server.rest.post(f"/v1/models/{path}", content=content)


def ok(server: Running, path: str, body: Any) -> Any:
    response = post(server, path, body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def error(response: httpx.Response) -> tuple[int, str]:
    assert list(response.json()) == ["error"]
    return response.status_code, response.json()["error"]


def wrong(server: Running, path: str, body: Any) -> str:
    code, text = error(post(server, path, body))
    assert code == 400
    return text


# --- paths


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/debug/model_name"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/foo:predict"),
        ("GET", "/v1/models/foo/version/50:predict"),
        ("POST", "/v1/models/foo/version/50:regress"),
        ("POST", "/v1/models/foo/versions/HELLO:regress"),
        ("POST", "/v1/models/foo/metadata"),
        ("POST", "/v1/models/foo/label/some_label:regress"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress"),
        ("POST", "/v1/models/foo/versions/some_label:regress"),
    ],
)
def test_unsupported_api_calls(server: Running, method: str, path: str) -> None:
    """http_rest_api_handler_test.cc UnsupportedApiCalls"""
    found = error(server.rest.request(method, path))
    assert found == (400, f"Malformed request: {method} {path}")


def test_missing_model_name(server: Running) -> None:
    """http_rest_api_handler_test.cc UnsupportedApiCalls (Missing model name)"""
    code, text = error(server.rest.get("/v1/models"))
    assert (code, text) == (400, "Missing model name in request.")


def test_a_version_beyond_64_bits(server: Running) -> None:
    """http_rest_api_handler_test.cc UnsupportedApiCalls (Failed to convert version)"""
    path = f"/v1/models/foo/versions/{2**64 - 1}:regress"
    assert error(server.rest.post(path)) == (
        400,
        f"Failed to convert version: {2**64 - 1} to numeric.",
    )


@pytest.mark.parametrize("path", ["/statuspage", "/index", "/"])
def test_other_paths_are_not_found(server: Running, path: str) -> None:
    """http_rest_api_handler_test.cc kPathRegex"""
    assert server.rest.get(path).status_code == 404


def test_paths_ignore_case(server: Running) -> None:
    """http_rest_api_util.cc kPredictionApiGegex ((?i))"""
    response = server.rest.post("/V1/Models/m:PREDICT", json={"instances": [1.0]})
    assert response.json() == {"predictions": [4.0]}


@pytest.mark.parametrize("which", ["foo", "foo/versions/50", "m/versions/99"])
def test_predict_model_name_version_errors(server: Running, which: str) -> None:
    """http_rest_api_handler_test.cc PredictModelNameVersionErrors"""
    code, text = error(post(server, f"{which}:predict", {"instances": [1]}))
    assert code == 404
    assert text.startswith("Servable not found for request: ")


# --- Predict


def test_predict_request_errors(server: Running) -> None:
    """http_rest_api_handler_test.cc PredictRequestErrors"""
    assert wrong(server, "m:predict", b"") == (
        "JSON Parse error: The document is empty"
    )
    assert wrong(server, "m:predict", "instances = [1, 2]").startswith(
        "JSON Parse error: Invalid value. at offset: 0"
    )
    assert "not of expected type: float" in wrong(
        server, "m:predict", {"instances": ["x", "y"]}
    )
    assert wrong(server, "m/labels/none:predict", {"instances": [1.0]}) == (
        "Unrecognized servable version label: none"
    )
    assert "'signature_name' key must be a string value." in wrong(
        server, "m:predict", {"signature_name": 100}
    )


def test_predict(server: Running) -> None:
    """http_rest_api_handler_test.cc Predict"""
    assert ok(server, "m:predict", {"instances": [1.0, 2.0]}) == {
        "predictions": [4.0, 6.0]
    }
    assert ok(server, "m/versions/1:predict", {"instances": [1.0]}) == {
        "predictions": [3.0]
    }
    assert ok(server, "m/labels/stable:predict", {"instances": [1.0]}) == {
        "predictions": [3.0]
    }
    named = {"signature_name": "serving_default", "instances": [1.0]}
    assert ok(server, "m/versions/1:predict", named) == {"predictions": [3.0]}
    columns = {"signature_name": "serving_default", "inputs": [3.0, 4.0]}
    assert ok(server, "m:predict", columns) == {"outputs": [8.0, 10.0]}


def test_rows_may_be_objects(server: Running) -> None:
    """api_rest.md (row format, named inputs)"""
    assert ok(server, "m:predict", {"instances": [{"x": 1.0}, {"x": 2.0}]}) == {
        "predictions": [4.0, 6.0]
    }


EVERYTHING = {
    "i32": [[1, 2]],
    "i64": [2**53 + 1],
    "f64": [0.1],
    "b": [True],
    "s": ["text"],
}


def test_every_type_in_columns(server: Running) -> None:
    """json_tensor_test.cc MultipleNamedTensorColumnarFormat"""
    assert ok(server, "all:predict", {"inputs": EVERYTHING}) == {
        "outputs": {
            "i32": [[1, 2]],
            "i64": [2**53 + 1],
            "f64": [0.1],
            "b": [True],
            "text": ["text"],
            "text_bytes": [{"b64": "dGV4dA=="}],
        }
    }


def test_every_type_in_rows(server: Running) -> None:
    """json_tensor_test.cc MultipleNamedTensor"""
    row = {"i32": [1, 2], "i64": 3, "f64": math.nan, "b": False, "s": {"b64": "/w=="}}
    (found,) = ok(server, "all:predict", {"instances": [row]})["predictions"]
    assert found["i32"] == [1, 2]
    assert math.isnan(found["f64"])
    assert found["b"] is False
    assert found["text_bytes"] == {"b64": "/w=="}


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities(server: Running, value: float) -> None:
    """json_tensor_test.cc (kParseNanAndInfFlag) and WriteDecimal"""
    inputs = {**EVERYTHING, "f64": [value]}
    assert ok(server, "all:predict", {"inputs": inputs})["outputs"]["f64"] == [value]


def test_a_base64_object_is_bytes(server: Running) -> None:
    """json_tensor_test.cc SingleUnnamedTensorBase64Scalars"""
    text = {"b64": base64.b64encode(b"hello").decode()}
    inputs = {**EVERYTHING, "s": [text, text]}
    found = ok(server, "all:predict", {"inputs": inputs})
    assert found["outputs"]["text"] == ["hello", "hello"]


def test_numbers_have_few_digits(server: Running) -> None:
    """json_tensor.cc WriteDecimal (no noise digits of float to double)"""
    found = post(server, "m:predict", {"instances": [0.05]})
    assert found.json() == {"predictions": [2.1]}
    # Whole numbers keep their point.
    assert "4.0" in post(server, "m:predict", {"instances": [1]}).text


def test_integers_are_numbers(server: Running) -> None:
    """json_tensor_test.cc MixedInputForFloatTensor"""
    assert ok(server, "m:predict", {"instances": [1, 2.0, 3]}) == {
        "predictions": [4.0, 6.0, 8.0]
    }


def test_single_unnamed_tensor_errors(server: Running) -> None:
    """json_tensor_test.cc SingleUnnamedTensorErrors"""

    def text(body: Any) -> str:
        return wrong(server, "m:predict", body)

    assert "must be a string value" in text({"signature_name": 5, "instances": [1]})
    assert "Not formatted correctly" in text({"instances": [1], "inputs": [1]})
    assert "Expecting tensor size" in text({"instances": [[1, 2], [3, 4], [5, 6, 7]]})
    assert "Expecting shape" in text({"instances": [[1, 2], [3, 4], [[5, 6]]]})
    assert "Expecting shape" in text({"instances": [1, [1]]})
    assert "not of expected type" in text({"instances": [[1, 2], ["a", "b"]]})
    assert "loss of precision" in text({"instances": [1.7976931348623157e308]})
    assert "loss of precision" in text({"instances": [16777217]})


def test_other_errors_of_rows(server: Running) -> None:
    """json_tensor.cc FillTensorMapFromInstancesList, FillPredictRequestFromJson"""

    def text(body: Any, path: str = "m:predict") -> str:
        return wrong(server, path, body)

    assert text({}) == "Missing 'inputs' or 'instances' key"
    assert text([1]) == "JSON Value: [1] Is not object"
    assert "No values in 'instances' array" in text({"instances": []})
    assert "Excepting 'instances' to be an list/array" in text({"instances": 1})
    assert "Expecting object but got list at item 1" in text(
        {"instances": [{"x": 1.0}, 2.0]}
    )
    assert "Expecting value/list but got object at item 1" in text(
        {"instances": [1.0, {"x": 2.0}]}
    )
    assert "does not have named input: z" in text({"instances": [{"z": 1.0}]})
    assert "but expecting list of objects" in text({"instances": [1]}, "all:predict")
    assert "must only have keys: b,f64,i32,i64,s" in text(
        {"instances": [{"i32": 1}]}, "all:predict"
    )
    assert 'Serving signature name: "nope" not found in signature def' in text(
        {"signature_name": "nope", "instances": [1]}
    )


def test_errors_of_columns(server: Running) -> None:
    """json_tensor.cc FillTensorMapFromInputsMap"""

    def text(inputs: Any, path: str = "all:predict") -> str:
        return wrong(server, path, {"inputs": inputs})

    assert "but expecting an object as multiple input" in text([1])
    missing = {name: value for name, value in EVERYTHING.items() if name != "i64"}
    assert text(missing) == "Missing named input: i64 in 'inputs' object."
    for name, value, kind in [
        ("i32", [2**31], "Number is not of expected type: int32"),
        ("i32", [1.5], "Number is not of expected type: int32"),
        ("i64", ["1"], "String is not of expected type: int64"),
        ("b", [1], "Number is not of expected type: bool"),
        ("s", [None], "Null is not of expected type: string"),
    ]:
        assert kind in text({**EVERYTHING, name: value})
    assert "not formatted correctly for base64 data" in text(
        {**EVERYTHING, "s": [{"b64": 1}]}
    )
    assert "Unable to base64 decode" in text({**EVERYTHING, "s": [{"b64": "%"}]})
    assert "Encountered list at unexpected size" in text([[1, 2], [3]], "m:predict")
    assert "found at incorrect level" in text([[1, 2], 3], "m:predict")


def test_rows_need_a_batch(server: Running) -> None:
    """json_tensor.cc MakeRowFormatJsonFromTensors (no shape information)"""
    body = {"signature_name": "scalar", "instances": [1.0, 2.0]}
    assert wrong(server, "all:predict", body) == (
        "Tensor name: total has no shape information "
    )
    body = {"signature_name": "scalar", "inputs": [1.0, 2.0]}
    assert ok(server, "all:predict", body) == {"outputs": 3.0}


def test_a_type_without_json(server: Running) -> None:
    """json_tensor.cc AddSingleValueAndAdvance (Failed to write JSON value)"""
    body = {"signature_name": "half", "instances": [1.0]}
    assert wrong(server, "all:predict", body) == (
        "Failed to write JSON value for tensor type: half"
    )


def test_errors_of_the_model_are_passed_on(server: Running) -> None:
    """http_rest_api_handler.cc ProcessPredictRequest (the session's status)"""
    body = {"signature_name": "matrix", "instances": [[1, 2, 3, 4]]}
    assert "incompatible" in wrong(server, "m:predict", body)


# --- Regress and Classify


def test_regress(server: Running) -> None:
    """http_rest_api_handler_test.cc Regress"""
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}
    for path in ("v1:regress", "v1/versions/123:regress"):
        assert ok(server, path, body) == {"results": [42.0]}


def test_classify(server: Running) -> None:
    """http_rest_api_handler_test.cc Classify"""
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]}
    assert ok(server, "v1:classify", body) == {"results": [[["", 12.0]]]}
    body["signature_name"] = "both"
    assert ok(server, "v1:classify", body) == {"results": [[["only", 12.0]]]}


def test_a_context_is_shared(server: Running) -> None:
    """api_rest.md (context of classify and regress)"""
    body = {
        "signature_name": "regress_x_to_y",
        "context": {"x": 2.0},
        "examples": [{}, {"x": [4.0]}],
    }
    assert ok(server, "v1:regress", body) == {"results": [3.0, 4.0]}


def test_examples_errors(server: Running) -> None:
    """json_tensor.cc FillClassifyRegressRequestFromJson, AddValueToFeature"""

    def text(body: Any) -> str:
        return wrong(server, "v1:regress", body)

    assert "key 'examples' is expected and was not found" in text({})
    assert "Expecting 'examples' value to be an list/array" in text({"examples": 1})
    assert "'examples' value is an empty array" in text({"examples": []})
    assert text({"examples": [1]}) == (
        "Example must be JSON object but got JSON Number"
    )
    assert text({"examples": [{"x": None}]}) == (
        "Feature: x has element with unexpected JSON type: Null"
    )
    assert text({"examples": [{"x": [1, "a"]}]}) == (
        "Unexpected element type in feature: x expecting type: int64"
    )
    assert text({"examples": [{"x": 2**64 - 1}]}) == (
        "Feature: x has uint64 element. Only int64 is supported."
    )
    assert "loss of precision" in text({"examples": [{"x": 1e300}]})


# --- status and metadata


def test_get_status(server: Running) -> None:
    """http_rest_api_handler_test.cc GetStatus"""
    entry = {
        "version": "123",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in ("v1", "v1/versions/123", "v1/labels/any"):
        found = server.rest.get(f"/v1/models/{path}")
        assert found.json() == {"model_version_status": [entry]}
        assert found.headers["content-type"] == "application/json"
    assert error(server.rest.get("/v1/models/nope")) == (
        404,
        "Could not find any versions of model nope",
    )


def test_get_model_metadata(server: Running) -> None:
    """http_rest_api_handler_test.cc GetModelMetadata"""
    found = server.rest.get("/v1/models/m/versions/1/metadata").json()
    assert found["model_spec"] == {"name": "m", "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}],
            "unknown_rank": False,
        },
        "name": "serving_default_x:0",
    }
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


def test_names_may_be_escaped(server: Running) -> None:
    """http_rest_api_util.cc DecodeArg"""
    assert ok(server, "%6D:predict", {"instances": [1.0]}) == {"predictions": [4.0]}


def test_cors(start: Starter, template: Path, base: Path) -> None:
    """main.cc rest_api_enable_cors_support and http_rest_api_util.cc AddCORSHeaders"""
    save_version(template, base, 1)
    plain = start(config(m=base))
    assert "access-control-allow-origin" not in plain.rest.get("/v1/models/m").headers
    shared = start(config(m=base), rest_api_enable_cors_support=True)
    headers = shared.rest.get("/v1/models/m").headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-methods"] == "POST, GET"
    assert headers["access-control-allow-headers"] == "Content-Type"
