"""The control side of a model server that loads nothing: states change as told."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from penstock.components.serving.messages import (
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    RELOAD_CONFIG,
    Code,
    GetModelMetadataResponse,
    GetModelStatusResponse,
    Method,
    ModelServerConfig,
    ReloadConfigResponse,
    State,
)
from penstock.components.serving.security import Tls, authorized


class ServerDouble:
    """What a server answers, and what it was sent.

    Attributes:
        port: Its port on loopback.
        models: State and error of each version, by name.
        labels: The versions that labels name, by name of the model.
        sent: Every configuration it was sent.
        tokens: The Authorization header of every call.
        broken: Versions that do not load, and why.
        refusal: What the next reload is refused with.
        complaint: What the next reload is answered with, in a status of the answer.
        unknown: Calls that it does not know.
        gate: Loads end when it is set.
        pause: States are told when it is set.
        token: The token it asks for, if any.
    """

    def __init__(self) -> None:
        self.port = 0
        self.models: dict[str, dict[int, tuple[State, str]]] = {}
        self.labels: dict[str, dict[str, int]] = {}
        self.sent: list[ModelServerConfig] = []
        self.tokens: list[str | None] = []
        self.broken: dict[int, str] = {}
        self.refusal: tuple[Code, str] | None = None
        self.complaint: tuple[Code, str] | None = None
        self.unknown: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.pause = threading.Event()
        self.pause.set()
        self.token: str | None = None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    def available(self, name: str) -> list[int]:
        """Return the versions of a name that answer."""
        versions = self.models.get(name, {})
        return [n for n, (state, _) in versions.items() if state is State.AVAILABLE]

    def names(self) -> list[str]:
        """Return the names with a version that answers."""
        return sorted(name for name in self.models if self.available(name))

    def status(self, request: Any, context: Any) -> Any:
        """Answer GetModelStatus."""
        self.pause.wait(30)
        name = request.model_spec.name
        if name not in self.models:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find any versions of model {name}",
            )
        return GetModelStatusResponse(
            model_version_status=[
                {
                    "version": version,
                    "state": int(state),
                    "status": {
                        "error_code": int(Code.UNKNOWN if error else Code.OK),
                        "error_message": error,
                    },
                }
                for version, (state, error) in self.models[name].items()
            ]
        )

    def metadata(self, request: Any, context: Any) -> Any:
        """Answer GetModelMetadata."""
        spec = request.model_spec
        available = self.available(spec.name)
        version = max(available, default=0)
        if spec.HasField("version"):
            version = spec.version.value
        elif spec.version_label:
            version = self.labels.get(spec.name, {}).get(spec.version_label, 0)
            if not version:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Unrecognized servable version label: {spec.version_label}",
                )
        if version not in available:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        return GetModelMetadataResponse(
            model_spec={"name": spec.name, "version": {"value": version}}
        )

    def start_anew(self) -> None:
        """Lose everything, as a server that is started with an empty list."""
        self.models.clear()
        self.labels.clear()

    def reload(self, request: Any, context: Any) -> Any:
        """Answer HandleReloadConfigRequest."""
        self.sent.append(request.config)
        if self.refusal is not None:
            code, message = self.refusal
            context.abort(getattr(grpc.StatusCode, code.name), message)
        if self.complaint is not None:
            code, message = self.complaint
            return ReloadConfigResponse(
                status={"error_code": int(code), "error_message": message}
            )
        configs = request.config.model_config_list.config
        for config in configs:
            for version in config.version_labels.values():
                if version not in self.available(config.name):
                    context.abort(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model "
                        f"{config.name}, which is not currently available for "
                        "inference",
                    )
        self.labels = {config.name: dict(config.version_labels) for config in configs}
        new = [config.name for config in configs if config.name not in self.models]
        wanted = {
            config.name: list(config.model_version_policy.specific.versions)
            for config in configs
        }
        for name, versions in self.models.items():
            for version in set(versions) - set(wanted.get(name, [])):
                versions[version] = (State.END, "")
        loads = [
            (name, version)
            for name, versions in wanted.items()
            for version in versions
            if self.models.setdefault(name, {}).get(version, (State.END, ""))[0]
            is State.END
        ]
        for name, version in loads:
            self.models[name][version] = (State.LOADING, "")
        thread = threading.Thread(target=self._load, args=(loads,))
        thread.start()
        if new:
            thread.join()
            failed = [name for name in new if not self.available(name)]
            if failed:
                context.abort(
                    grpc.StatusCode.UNKNOWN,
                    f"{len(failed)} servable(s) did not become available",
                )
        return ReloadConfigResponse(status={"error_code": 0})

    def unauthorized(self, request: Any, context: Any) -> Any:
        """Answer what comes without the token."""
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "No token.")

    def _load(self, loads: list[tuple[str, int]]) -> None:
        self.gate.wait(30)
        for name, version in loads:
            if version in self.broken:
                self.models[name][version] = (State.END, self.broken[version])
            else:
                self.models[name][version] = (State.AVAILABLE, "")


@contextmanager
def running_double(tls: Tls | None = None, port: int = 0) -> Iterator[ServerDouble]:
    """Run a double on loopback, at a free port if none is given."""
    double = ServerDouble()
    calls: dict[str, tuple[Method[Any, Any], Any]] = {
        GET_MODEL_STATUS.path: (GET_MODEL_STATUS, double.status),
        GET_MODEL_METADATA.path: (GET_MODEL_METADATA, double.metadata),
        RELOAD_CONFIG.path: (RELOAD_CONFIG, double.reload),
    }

    class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            if details.method.rpartition("/")[2] in double.unknown:
                return None
            method, answer = calls[details.method]
            metadata = dict(details.invocation_metadata)
            double.tokens.append(metadata.get("authorization"))
            if double.token is not None and not authorized(
                metadata.get("authorization"), double.token
            ):
                answer = double.unauthorized
            return grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=method.request.FromString,
                response_serializer=method.response.SerializeToString,
            )

    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Calls(),))
    if tls is None:
        double.port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        credentials = tls.server_credentials()
        double.port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield double
    finally:
        double.gate.set()
        double.pause.set()
        server.stop(None).wait()


@contextmanager
def running_metrics(text: str, status: int = 200) -> Iterator[str]:
    """Serve a text as a server's metrics; yield its 'host:port'."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
