"""PredictionService, ModelService and health over gRPC."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

from penstock.components.serving.model_server.requests import Requests
from penstock.components.serving.model_server.saved_model import servable_error
from penstock.components.serving.model_server.status import Code, ServableError
from penstock.components.serving.security import authorized
from penstock.schemas.errors import ServingError

_log = logging.getLogger(__name__)

_MAX_DETAILS = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"

_REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
}


@dataclass(frozen=True)
class Endpoint:
    """Where a gRPC server listens, and to what.

    Attributes:
        addresses: 'host:port', with port 0 for one that the system chooses, or
            'unix:/path'.
        credentials: `grpc.ServerCredentials`; None for plain text.
        threads: Requests that run at once.
        options: Channel arguments.
    """

    addresses: tuple[str, ...]
    credentials: Any = None
    threads: int = 16
    options: tuple[tuple[str, Any], ...] = ()


class GrpcServer:
    """A gRPC server, bound when it is made, which answers when it is started.

    Attributes:
        ports: The port of every address, in their order; 1 for a UNIX socket.
    """

    def __init__(self, endpoint: Endpoint, handlers: list[Any]) -> None:
        """Bind the addresses.

        Raises:
            ServingError: An address cannot be bound.
        """
        self._pool = ThreadPoolExecutor(endpoint.threads, "model-server-grpc")
        # Without this, two servers can be bound to one port and share its requests.
        options = [("grpc.so_reuseport", 0), *endpoint.options]
        self._server = grpc.server(self._pool, options=options)
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self.ports: list[int] = []
        for address in endpoint.addresses:
            try:
                if endpoint.credentials is None:
                    port = self._server.add_insecure_port(address)
                else:
                    port = self._server.add_secure_port(address, endpoint.credentials)
            except RuntimeError as error:
                raise ServingError(
                    f"The model server cannot listen on '{address}': another process "
                    "may hold it. Choose another port."
                ) from error
            self.ports.append(port)

    def start(self) -> None:
        """Start to answer."""
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuse new requests, and wait so long at most for those under way."""
        self._server.stop(grace_seconds).wait()
        self._pool.shutdown(wait=True, cancel_futures=True)


def prediction_handler(requests: Requests) -> Any:
    """Return the handler of PredictionService."""
    methods = {
        api: _unary(message, functools.partial(_run, requests, api))
        for api, message in _REQUESTS.items()
    }
    methods["GetModelMetadata"] = _unary(
        get_model_metadata_pb2.GetModelMetadataRequest,
        lambda request, _: requests.metadata(request),
    )
    return grpc.method_handlers_generic_handler(_PREDICTION, methods)


def _run(requests: Requests, api: str, request: Any, _: Any) -> Any:
    return requests.run(api, request)


def model_handler(
    requests: Requests, *, control: bool = True, token: str | None = None
) -> Any:
    """Return the handler of ModelService.

    Args:
        requests: Answers them.
        control: Whether configs may be changed here.
        token: Token that every request has to carry; None asks for none.
    """

    def checked(call: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            if token is not None:
                _check_token(context, token)
            return call(request)

        return answer

    def refuse(_: Any) -> Any:
        raise ServableError(
            Code.PERMISSION_DENIED,
            "This port answers predictions and status only. Send "
            "HandleReloadConfigRequest to the server's control port.",
        )

    return grpc.method_handlers_generic_handler(
        _MODEL,
        {
            "GetModelStatus": _unary(
                get_model_status_pb2.GetModelStatusRequest, checked(requests.status)
            ),
            "HandleReloadConfigRequest": _unary(
                model_management_pb2.ReloadConfigRequest,
                checked(requests.reload) if control else checked(refuse),
            ),
        },
    )


def _check_token(context: Any, token: str) -> None:
    headers = dict(context.invocation_metadata())
    header = headers.get("authorization")
    if not authorized(header if isinstance(header, str) else None, token):
        raise ServableError(
            Code.UNAUTHENTICATED,
            "The request carries no token or a wrong one. Send the metadata "
            "'authorization: Bearer <token>' with the one of the server's token file.",
        )


def _unary(message: Any, call: Callable[[Any, Any], Any]) -> Any:
    def behaviour(request: Any, context: Any) -> Any:
        try:
            return call(request, context)
        except ServableError as error:
            refusal = error
        except Exception as error:  # a defect of ours must not look like another server
            _log.exception("%s", type(request).__name__)
            refusal = servable_error(error)
        details = refusal.message
        if len(details) > _MAX_DETAILS:
            details = details[:_MAX_DETAILS] + "...TRUNCATED"
        context.abort(_CODES[refusal.code], details)

    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=message.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )


class Health:
    """The standard health service: says that the server serves until it drains.

    The answers are written out, one field of one number, since grpcio-health-checking
    would be one more package.
    """

    _SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"

    def __init__(self) -> None:
        """Serve."""
        self._draining = threading.Event()

    def drain(self) -> None:
        """Say from now on that it does not serve."""
        self._draining.set()

    def handler(self) -> Any:
        """Return the handler of grpc.health.v1.Health."""

        def check(request: bytes, context: Any) -> bytes:
            # An empty message asks for the server as a whole, the only thing known.
            if request:
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return self._NOT_SERVING if self._draining.is_set() else self._SERVING

        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {"Check": grpc.unary_unary_rpc_method_handler(check)},
        )
