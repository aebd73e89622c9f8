"""A client of TensorFlow Serving's gRPC services, made of its messages only."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.components.serving.model_server.models import examples

_SECONDS = 60.0
"""No call takes so long; a hung server fails the test."""

_CALLS = {
    "PredictionService/Predict": (
        predict_pb2.PredictRequest,
        predict_pb2.PredictResponse,
    ),
    "PredictionService/Classify": (
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    "PredictionService/Regress": (
        regression_pb2.RegressionRequest,
        regression_pb2.RegressionResponse,
    ),
    "PredictionService/MultiInference": (
        inference_pb2.MultiInferenceRequest,
        inference_pb2.MultiInferenceResponse,
    ),
    "PredictionService/GetModelMetadata": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "ModelService/GetModelStatus": (
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
    "ModelService/HandleReloadConfigRequest": (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
}


class Client:
    """Calls one server.

    Attributes:
        authorization: The header sent with every call, if any.
    """

    def __init__(self, address: str, credentials: Any = None) -> None:
        if credentials is None:
            self._channel = grpc.insecure_channel(address)
        else:
            self._channel = grpc.secure_channel(address, credentials)
        self.authorization: str | None = None
        self._stubs = {
            name: self._channel.unary_unary(
                f"/tensorflow.serving.{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for name, (request, response) in _CALLS.items()
        }

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", self.authorization)] if self.authorization else []

    def call(self, name: str, request: Any, seconds: float = _SECONDS) -> Any:
        """Call 'PredictionService/Predict' and the like."""
        return self._stubs[name](request, timeout=seconds, metadata=self._metadata())

    def predict(self, request: predict_pb2.PredictRequest) -> Any:
        return self.call("PredictionService/Predict", request)

    def predict_future(self, request: predict_pb2.PredictRequest) -> Any:
        return self._stubs["PredictionService/Predict"].future(
            request, timeout=_SECONDS
        )

    def regress(self, model: str, signature: str, *values: float) -> list[float]:
        request = regression_pb2.RegressionRequest(input=examples(*values))
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        response = self.call("PredictionService/Regress", request)
        return [entry.value for entry in response.result.regressions]

    def reload(self, config: Any, seconds: float = _SECONDS) -> None:
        self.call(
            "ModelService/HandleReloadConfigRequest",
            model_management_pb2.ReloadConfigRequest(config=config),
            seconds,
        )

    def reload_future(self, config: Any) -> Any:
        return self._stubs["ModelService/HandleReloadConfigRequest"].future(
            model_management_pb2.ReloadConfigRequest(config=config), timeout=_SECONDS
        )

    def status(
        self, model: str, version: int | None = None, label: str | None = None
    ) -> Any:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        if label is not None:
            request.model_spec.version_label = label
        return self.call("ModelService/GetModelStatus", request)

    def states(self, model: str) -> dict[int, str]:
        """Return the names of the states of all versions, as they are listed."""
        try:
            response = self.status(model)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        names = get_model_status_pb2.ModelVersionStatus.State
        return {
            entry.version: str(names.Name(entry.state))
            for entry in response.model_version_status
        }

    def error(self, model: str, version: int) -> tuple[int, str]:
        """Return the code and the text of a version's status."""
        (entry,) = self.status(model, version).model_version_status
        return entry.status.error_code, entry.status.error_message
