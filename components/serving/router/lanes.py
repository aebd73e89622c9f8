"""Lanes: the versions of a model that one server holds, each called by itself.

A request goes out as the bytes it came in, with the wanted version added at the end:
of two messages in the same field a reader keeps the values of the later one, so the
name and the version are replaced, and nothing else is (Protocol Buffers, "Encoding",
"Last One Wins"). The tensors are neither read nor copied field by field.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import grpc

from penstock.components.serving.messages import (
    MULTI_INFERENCE,
    Method,
    ModelSpec,
    MultiInferenceRequest,
    PredictRequest,
    model_specs,
)
from penstock.components.serving.security import (
    MAX_REQUEST_BYTES,
    Tls,
    channel_options,
    check_address,
)
from penstock.components.serving.server_config import (
    Layout,
    check_model_name,
    served_name,
)
from penstock.schemas.errors import ServingError

Origin = Literal["client", "server"]
"""Who is to blame for an error."""

# A peer that is gone is noticed within a minute, though its connection never ends. A
# server answers pings of a connection without data by closing it; those need a call.
_KEEP_ALIVE = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # A server that was started anew is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

_CLIENT_CODES = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}


class LaneError(ServingError):
    """A version did not answer a request.

    Attributes:
        version: The version that was asked.
        code: Name of the gRPC code, such as 'UNAVAILABLE'.
        details: What the server said.
        origin: Who is to blame, as far as one version can tell.
    """

    def __init__(self, model: str, version: int, code: str, details: str) -> None:
        said = details.strip().rstrip(".") or "nothing"
        super().__init__(
            f"Version {version} of '{model}' did not answer: {code}: {said}. "
            f"{_CURES.get(code, _CURE)}"
        )
        self.version = version
        self.code = code
        self.details = details
        self.origin: Origin = origin_of(grpc.StatusCode[code], details)

    @property
    def is_missing(self) -> bool:
        """Whether the server has no such version, which says nothing of the version."""
        return self.code == "NOT_FOUND" and "servable not found" in self.details.lower()


_CURE = "Look into the log of the model server."
_CURES = {
    "NOT_FOUND": "Check that the model server has loaded it, under the name and layout "
    "that are asked for.",
    "DEADLINE_EXCEEDED": "Allow more time, or give the server less to do.",
    "UNAVAILABLE": "Check that the model server runs, and its address.",
    "INVALID_ARGUMENT": "Send what the model's signature takes.",
    "FAILED_PRECONDITION": "Send what the model's signature takes.",
}


def origin_of(code: grpc.StatusCode, details: str) -> Origin:
    """Return who is to blame for an error, as its code and text tell.

    A signature that is not there is the caller's error, a version that is not there
    is the server's; so is a message above the size that this side may send or take.
    """
    if code in _CLIENT_CODES:
        return "client"
    text = details.lower()
    if code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
        return "client" if "signature" in text else "server"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        return "client"
    return "server"


class Lanes:
    """One connection to a model server, for any number of threads.

    Args:
        address: 'host:port', '[::1]:port' or 'unix:/path' of its gRPC side.
        model: Name of the model.
        layout: What tells its versions apart there: 'names', a served name for each,
            or 'labels', numbers under one name.
        tls: How the connection is secured; None for plain text.
        max_bytes: The largest message in either direction.

    Raises:
        ServingError: The address or the name is none, or a file of `tls` is not right.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        layout: Layout = "names",
        tls: Tls | None = None,
        max_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        check_address(address)
        check_model_name(model)
        self._model = model
        self._layout = layout
        options = [*channel_options(tls, max_bytes), *_KEEP_ALIVE]
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            credentials = tls.channel_credentials()
            self._channel = grpc.secure_channel(address, credentials, options)
        self._calls: dict[str, Any] = {}
        self._ending = lru_cache(maxsize=64)(self._make_ending)

    def call(
        self, method: Method[Any, Any], request: bytes, version: int, seconds: float
    ) -> bytes:
        """Ask a version.

        Args:
            method: The call.
            request: A serialized message; what it says of the version is replaced.
            version: The version to ask.
            seconds: How long to wait for the answer.

        Returns:
            The serialized answer.

        Raises:
            LaneError: There is none.
        """
        call = self._calls.get(method.path)
        if call is None:
            call = self._channel.unary_unary(method.path)
            self._calls[method.path] = call
        try:
            answer: bytes = call(self.addressed(method, request, version), seconds)
        except grpc.RpcError as error:
            raise LaneError(
                self._model, version, error.code().name, error.details() or ""
            ) from error
        return answer

    def addressed(
        self, method: Method[Any, Any], request: bytes, version: int
    ) -> bytes:
        """Return a request as it is sent to a version."""
        if method is MULTI_INFERENCE:
            parsed = MultiInferenceRequest.FromString(request)
            for spec in model_specs(parsed):
                spec.name = self._name(version)
                spec.version.value = version
            return parsed.SerializeToString()
        return request + self._ending(version)

    def close(self) -> None:
        """End the connection; calls that run end with an error."""
        self._channel.close()

    def _name(self, version: int) -> str:
        names = self._layout == "names"
        return served_name(self._model, version) if names else self._model

    def _make_ending(self, version: int) -> bytes:
        # Every request but that of MultiInference has its ModelSpec in field 1.
        spec = ModelSpec(name=self._name(version), version={"value": version})
        return PredictRequest(model_spec=spec).SerializeToString()
