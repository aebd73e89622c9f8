"""The control calls of a server of TensorFlow Serving: states, and configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from typing_extensions import Self

from penstock.components.serving.messages import (
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    RELOAD_CONFIG,
    Code,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    Message,
    Method,
    ModelServerConfig,
    ReloadConfigRequest,
    State,
)
from penstock.components.serving.security import (
    MAX_CONTROL_BYTES,
    Tls,
    bearer,
    is_local,
    open_channel,
)
from penstock.schemas.errors import ServingError

RELOAD_SECONDS = 600.0
"""How long a server may take to load the new names of a configuration."""

_R = TypeVar("_R", bound=Message)


class LoadState(str, Enum):
    """How far a version is in a model server; the words are TensorFlow Serving's."""

    UNKNOWN = "UNKNOWN"
    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True)
class Loaded:
    """What a model server says of a version.

    Attributes:
        state: How far it is.
        error: Why it could not be loaded; empty if nothing is wrong.
    """

    state: LoadState
    error: str = ""


class Refused(ServingError):
    """The server keeps the configuration it had."""


class ServerControl:
    """The control calls of one server.

    Args:
        address: 'host:port' or 'unix:/path' of its gRPC side.
        tls: How the connection is secured; None for plain text.
        token: What is sent as bearer token, for a proxy or a server that asks for one.
        deadline_seconds: How long an answer may take.

    Raises:
        ServingError: The address is none, a file of `tls` is not right, or the token
            would travel over a network in plain text.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        deadline_seconds: float = 10.0,
    ) -> None:
        if token is not None and tls is None and not is_local(address):
            raise ServingError(
                f"The token for '{address}' would cross the network in plain text. "
                "Pass tls, or connect by loopback or a UNIX socket."
            )
        self.address = address
        self.deadline_seconds = deadline_seconds
        self._secure = tls is not None
        self._metadata = () if token is None else (("authorization", bearer(token)),)
        self._channel = open_channel(address, tls, MAX_CONTROL_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def statuses(self, names: Iterable[str]) -> dict[str, dict[int, Loaded]]:
        """Return the versions that the server knows of each name, and their states.

        Raises:
            ServingError: The server does not answer.
        """
        calls = {
            name: self._start(
                GET_MODEL_STATUS, GetModelStatusRequest(model_spec={"name": name})
            )
            for name in names
        }
        found = {}
        for name, call in calls.items():
            answer = self._finish(GET_MODEL_STATUS, call, allowed=("NOT_FOUND",))
            found[name] = {} if answer is None else _states(answer)
        return found

    def probe(self, name: str, version: int | None) -> None:
        """Make the server answer for a version.

        Args:
            name: The name it is served under.
            version: The version; None for the one that the name stands for.

        Raises:
            ServingError: It does not answer, or does not have it.
        """
        spec: dict[str, Any] = {"name": name}
        if version is not None:
            spec["version"] = {"value": version}
        request = GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        self._finish(GET_MODEL_METADATA, self._start(GET_MODEL_METADATA, request))

    def labelled(self, name: str, labels: Mapping[str, int]) -> dict[str, int | None]:
        """Return the versions that labels of a model name; None for a label it lacks.

        No call lists labels, but one that asks for a label says what version answered.

        Args:
            name: The name of the model.
            labels: The labels, and the versions they should name. That is believed of
                a server that tells no metadata at this address.

        Raises:
            ServingError: The server does not answer.
        """
        calls = {
            label: self._start(
                GET_MODEL_METADATA,
                GetModelMetadataRequest(
                    model_spec={"name": name, "version_label": label},
                    metadata_field=["signature_def"],
                ),
            )
            for label in labels
        }
        found: dict[str, int | None] = {}
        for label, call in calls.items():
            answer = self._finish(
                GET_MODEL_METADATA,
                call,
                allowed=("NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED"),
            )
            if answer is not None:
                found[label] = answer.model_spec.version.value
            elif call.code().name == "UNIMPLEMENTED":
                found[label] = labels[label]
            else:
                found[label] = None
        return found

    def reload(
        self, config: ModelServerConfig, deadline_seconds: float = RELOAD_SECONDS
    ) -> Callable[[float], bool]:
        """Send a configuration, which replaces the one the server has.

        Args:
            config: The configuration.
            deadline_seconds: How long the answer may take. The server itself waits for
                new names without end, and goes on when nobody listens any more.

        Returns:
            A function that waits so many seconds for the answer, and returns whether it
            has come. It raises ServingError if the server refused. A version that could
            not be loaded is no refusal: its state tells.
        """
        import grpc

        request = ReloadConfigRequest(config=config)
        call = self._start(RELOAD_CONFIG, request, deadline_seconds)

        def answered(seconds: float) -> bool:
            try:
                call.result(timeout=seconds)
            except grpc.FutureTimeoutError:
                return False
            except grpc.RpcError as error:
                # Unknown is how it says that a model did not become available.
                if error.code() is not grpc.StatusCode.UNKNOWN:
                    raise self._explained(
                        RELOAD_CONFIG, error, deadline_seconds
                    ) from error
                return True
            status = call.result().status
            if status.error_code not in (Code.OK, Code.UNKNOWN):
                raise self._refused(status.error_message)
            return True

        return answered

    def _start(
        self, method: Method[Any, _R], request: Any, seconds: float | None = None
    ) -> Any:
        on: Any = method.on(self._channel)
        timeout = self.deadline_seconds if seconds is None else seconds
        return on.future(request, timeout=timeout, metadata=self._metadata)

    def _finish(
        self, method: Method[Any, _R], call: Any, allowed: tuple[str, ...] = ()
    ) -> _R | None:
        import grpc

        try:
            answer: _R = call.result()
        except grpc.RpcError as error:
            if error.code().name in allowed:
                return None
            raise self._explained(method, error) from error
        return answer

    def _explained(
        self, method: Method[Any, Any], error: Any, seconds: float | None = None
    ) -> ServingError:
        name = method.path.rpartition("/")[2]
        server = f"The model server at '{self.address}'"
        code = error.code().name
        why = " ".join((error.details() or "no reason given").split()).rstrip(".")
        if code == "UNAVAILABLE":
            side = "with TLS" if self._secure else "without TLS"
            text = (
                f"{server} cannot be reached: {why}. Start it, or mend the address; it "
                f"was tried {side}."
            )
        elif code == "DEADLINE_EXCEEDED":
            text = (
                f"{server} did not answer '{name}' in "
                f"{seconds or self.deadline_seconds:g} seconds. See what it is busy "
                "with, or allow more time."
            )
        elif code == "UNIMPLEMENTED":
            text = (
                f"{server} does not know the call '{name}': it is too old, or no "
                "TensorFlow Serving. Run TensorFlow Serving 2 or newer there."
            )
        elif code == "UNAUTHENTICATED":
            text = (
                f"{server} lets nobody without the right token do '{name}': {why}. "
                "Pass the token of its token file."
            )
        elif code == "PERMISSION_DENIED":
            text = (
                f"{server} does not allow '{name}': {why}. Use the address and the "
                "token or certificate that it allows it to."
            )
        elif method is RELOAD_CONFIG:
            return self._refused(why)
        else:
            text = f"{server} answered '{name}' with {code}: {why}. See its log."
        return ServingError(text)

    def _refused(self, why: str) -> ServingError:
        why = " ".join(why.split()).rstrip(".")
        return Refused(
            f"The model server at '{self.address}' refuses the configuration: {why}. "
            "Nothing of it holds; mend that, and send it again."
        )


def _states(answer: Message) -> dict[int, Loaded]:
    found = {}
    for each in answer.model_version_status:
        known = each.state in {state.value for state in State}
        state = LoadState[State(each.state).name] if known else LoadState.UNKNOWN
        error = each.status.error_message
        if each.status.error_code != Code.OK and not error:
            error = f"error {each.status.error_code}"
        found[each.version] = Loaded(state, error)
    return found
