"""TensorFlow Serving's REST API, and its metrics for Prometheus."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import uvicorn
from google.protobuf import json_format
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from penstock.components.serving.model_server import json_tensors
from penstock.components.serving.model_server.requests import Requests
from penstock.components.serving.model_server.saved_model import servable_error
from penstock.components.serving.model_server.status import Code, ServableError
from penstock.schemas.errors import ServingError

_log = logging.getLogger(__name__)

# The paths of TensorFlow Serving, which looks at no letter's case.
_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_WHICH}:(?P<method>classify|regress|predict)",
    re.IGNORECASE,
)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<model>[^/:]+))?{_WHICH}(?:/(?P<part>metadata))?",
    re.IGNORECASE,
)

_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

# The name of this option changed with protobuf 5.26.
_ALL_FIELDS = {
    name: True
    for name in (
        "always_print_fields_with_no_presence",
        "including_default_value_fields",
    )
    if name in inspect.signature(json_format.MessageToDict).parameters
}


class RestApi:
    """An ASGI application that answers as TensorFlow Serving's REST API does."""

    def __init__(
        self,
        requests: Requests,
        *,
        threads: int = 8,
        timeout_seconds: float = 30.0,
        metrics_path: str = "",
        max_bytes: int = 64 << 20,
        cors: bool = False,
    ) -> None:
        """Answer from what is loaded.

        Args:
            requests: Answers requests.
            threads: Requests that run at once.
            timeout_seconds: Time after which a request is answered with an error.
            metrics_path: Path of the metrics; empty has none.
            max_bytes: The longest body that is taken.
            cors: Let pages from anywhere ask.
        """
        self._requests = requests
        self._pool = ThreadPoolExecutor(threads, "model-server-rest")
        self._timeout = timeout_seconds
        self._metrics_path = metrics_path
        self._max_bytes = max_bytes
        self._headers = _CORS if cors else {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as ASGI asks."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown(wait=True)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        if self._metrics_path and path == self._metrics_path:
            return Response(self._requests.metrics.page(), media_type="text/plain")
        if not path.lower().startswith("/v1/"):
            return Response("Not Found", 404, media_type="text/plain")
        found: Any
        try:
            body = await self._body(request)
            running = asyncio.get_running_loop().run_in_executor(
                self._pool, self._process, request.method, path, body
            )
            found = await asyncio.wait_for(running, self._timeout)
        except asyncio.TimeoutError:
            found = ServableError(
                Code.DEADLINE_EXCEEDED, "Timed out waiting for answer"
            )
        except ServableError as error:
            found = error
        except RecursionError:
            found = ServableError(Code.INVALID_ARGUMENT, "JSON is nested too deep")
        except Exception as error:  # a defect of ours must not look like another server
            _log.exception("%s %s", request.method, path)
            found = servable_error(error)
        if isinstance(found, ServableError):
            return self._json({"error": found.message}, _HTTP.get(found.code, 500))
        return self._json(found, 200)

    def _json(self, content: Any, status: int) -> Response:
        return Response(
            json.dumps(content, indent=4).encode("utf-8", "replace"),
            status,
            headers=self._headers,
            media_type="application/json",
        )

    async def _body(self, request: Request) -> bytes:
        chunks = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._max_bytes:
                raise ServableError(
                    Code.RESOURCE_EXHAUSTED,
                    f"The request is larger than {self._max_bytes} bytes. Send less at "
                    "once, or raise the server's --max_request_bytes.",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _process(self, method: str, path: str, body: bytes) -> Any:
        if method == "POST" and (match := _PREDICTION.fullmatch(path)):
            return _ANSWERS[match["method"].lower()](self, match, body)
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            return self._metadata(match) if match["part"] else self._status(match)
        raise ServableError(
            Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}"
        )

    def _predict(self, match: re.Match[str], body: bytes) -> Any:
        request = predict_pb2.PredictRequest()
        _fill_spec(match, request.model_spec)
        with self._counted(request):
            document = json_tensors.parse(body)
            request.model_spec.signature_name = json_tensors.signature_name(document)
            inputs = self._requests.signature_inputs(request.model_spec)
            rows = json_tensors.fill_predict(document, inputs, request)
        response = self._requests.run("Predict", request, entrypoint="REST")
        return json_tensors.predictions(response, rows=rows)

    def _classify(self, match: re.Match[str], body: bytes) -> Any:
        request = classification_pb2.ClassificationRequest()
        self._fill_examples(match, body, request)
        response = self._requests.run("Classify", request, entrypoint="REST")
        return json_tensors.classifications(response)

    def _regress(self, match: re.Match[str], body: bytes) -> Any:
        request = regression_pb2.RegressionRequest()
        self._fill_examples(match, body, request)
        response = self._requests.run("Regress", request, entrypoint="REST")
        return json_tensors.regressions(response)

    def _fill_examples(self, match: re.Match[str], body: bytes, request: Any) -> None:
        _fill_spec(match, request.model_spec)
        with self._counted(request):
            document = json_tensors.parse(body)
            request.model_spec.signature_name = json_tensors.signature_name(document)
            json_tensors.fill_examples(document, request)

    def _counted(self, request: Any) -> _Counted:
        return _Counted(self._requests, request.model_spec.name)

    def _metadata(self, match: re.Match[str]) -> Any:
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.metadata_field.append("signature_def")
        _fill_spec(match, request.model_spec)
        response = self._requests.metadata(request)
        known = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(known)
        return {
            "model_spec": _as_dict(response.model_spec),
            "metadata": {"signature_def": _as_dict(known)},
        }

    def _status(self, match: re.Match[str]) -> Any:
        request = get_model_status_pb2.GetModelStatusRequest()
        if not match["model"]:
            raise ServableError(Code.INVALID_ARGUMENT, "Missing model name in request.")
        _fill_spec(match, request.model_spec)
        return _as_dict(self._requests.status(request))


_ANSWERS: dict[str, Callable[[RestApi, re.Match[str], bytes], Any]] = {
    "predict": RestApi._predict,
    "classify": RestApi._classify,
    "regress": RestApi._regress,
}


class _Counted:
    """Counts a request that is refused before the model is asked."""

    def __init__(self, requests: Requests, model: str) -> None:
        self._requests = requests
        self._model = model

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ServableError):
            self._requests.metrics.request_count.add((self._model, error.code.name))


def _fill_spec(match: re.Match[str], spec: Any) -> None:
    spec.name = unquote(match["model"] or "")
    if match["version"]:
        version = int(match["version"])
        if version >= 2**63:
            raise ServableError(
                Code.INVALID_ARGUMENT,
                f"Failed to convert version: {match['version']} to numeric.",
            )
        spec.version.value = version
    if match["label"]:
        spec.version_label = unquote(match["label"])


def _as_dict(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, **_ALL_FIELDS
    )


class HttpServer:
    """Runs an ASGI application in a thread.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, app: RestApi, host: str, port: int) -> None:
        """Bind the port; 0 lets the system choose one.

        Raises:
            ServingError: It cannot be bound.
        """
        self._app = app
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Without its protocol asyncio would leave the delay of small answers on.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise ServingError(
                f"The model server cannot listen on '{host}:{port}' for REST: "
                f"{error.strerror}. Choose another port."
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        )
        self._thread = threading.Thread(
            target=self._run, name="model-server-http", daemon=True
        )

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Start to answer."""
        self._socket.listen(2048)  # from here on a client is kept waiting, not refused
        self._thread.start()

    def stop(self) -> None:
        """Refuse new requests, and wait for those under way."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._app.close()
        self._socket.close()
