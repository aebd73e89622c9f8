"""Answers the requests of every entrypoint from the versions that are loaded."""

from __future__ import annotations

import time
from typing import Any

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

from penstock.components.serving.model_server.core import ServerCore
from penstock.components.serving.model_server.faults import Faults
from penstock.components.serving.model_server.metrics import Metrics
from penstock.components.serving.model_server.servable import (
    check_metadata_request,
    example_count,
)
from penstock.components.serving.model_server.status import Code, ServableError

_METHODS = {
    "Predict": "predict",
    "Classify": "classify",
    "Regress": "regress",
    "MultiInference": "multi_inference",
}


class Requests:
    """Looks up the version a request asks for, runs it, and counts."""

    def __init__(self, core: ServerCore, metrics: Metrics, faults: Faults) -> None:
        """Answer from a core."""
        self.core = core
        self.metrics = metrics
        self._faults = faults

    def run(self, api: str, request: Any, *, entrypoint: str = "GRPC") -> Any:
        """Answer a request of PredictionService.

        Latency is counted of requests that succeed and no others, and MultiInference
        is not counted at all: as in TensorFlow Serving.

        Args:
            api: 'Predict', 'Classify', 'Regress' or 'MultiInference'.
            request: Its request message.
            entrypoint: 'GRPC' or 'REST', where Predict is called 'predict'.

        Raises:
            ServableError: It is refused, or fails.
        """
        start = time.perf_counter()
        counted = api != "MultiInference"
        name = request.model_spec.name if counted else _first_model(request)
        try:
            response = self._run(api, name, request)
        except ServableError as error:
            if counted:
                self.metrics.request_count.add((name, error.code.name))
            raise
        if counted:
            micros = (time.perf_counter() - start) * 1e6
            called = api if entrypoint == "GRPC" else api.lower()
            self.metrics.request_latency.observe((name, called, entrypoint), micros)
            self.metrics.request_count.add((name, "OK"))
        return response

    def _run(self, api: str, name: str, request: Any) -> Any:
        spec = request.tasks[0].model_spec if api == "MultiInference" and name else None
        if api != "MultiInference":
            if not request.HasField("model_spec"):
                raise ServableError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
            spec = request.model_spec
        if spec is None:
            raise ServableError(
                Code.INVALID_ARGUMENT, "ModelSpec has no name specified."
            )
        with self.core.handle(spec) as held:
            self._faults.at_request(name, held.version, request)
            start = time.perf_counter()
            response = getattr(held.servable, _METHODS[api])(request)
            micros = (time.perf_counter() - start) * 1e6
        self.metrics.runtime_latency.observe((name, api, "TF1"), micros)
        if api != "Predict":
            count = example_count(request.input)
            self.metrics.example_counts.observe((name,), count)
            self.metrics.example_total.add((name,), count)
        return response

    def signature_inputs(self, spec: Any) -> Any:
        """Return the inputs of the signature that a ModelSpec names, for REST.

        Raises:
            ServableError: The version is not loaded, or has no such signature.
        """
        name = spec.signature_name or "serving_default"
        with self.core.handle(spec) as held:
            signatures = held.servable.signatures  # type: ignore[attr-defined]
        if name not in signatures:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f'Serving signature name: "{name}" not found in signature def',
            )
        return signatures[name].inputs

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answer GetModelMetadata.

        Raises:
            ServableError: It is refused.
        """
        check_metadata_request(request)
        with self.core.handle(request.model_spec) as held:
            return held.servable.metadata(request)  # type: ignore[attr-defined]

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answer GetModelStatus.

        Raises:
            ServableError: It is refused.
        """
        if not request.HasField("model_spec"):
            raise ServableError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in self.core.status(request.model_spec).items():
            entry = response.model_version_status.add()
            entry.version = version
            entry.state = int(state.state)
            if state.error is not None:
                entry.status.error_code = int(state.error.code)
                entry.status.error_message = state.error.message
            else:
                entry.status.SetInParent()
        return response

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Answer HandleReloadConfigRequest.

        Raises:
            ServableError: The config is refused, or a new model does not load.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise ServableError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported",
            )
        self.core.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response


def _first_model(request: Any) -> str:
    return str(request.tasks[0].model_spec.name) if request.tasks else ""
