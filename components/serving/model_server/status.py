"""The canonical codes of gRPC and TensorFlow, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum

from penstock.schemas.errors import ServingError


class Code(IntEnum):
    """The canonical codes, under the names TensorFlow Serving's metrics use."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServableError(ServingError):
    """A request, a load or a configuration that the server refuses.

    Attributes:
        code: What kind of refusal it is.
        message: What the client is told; TensorFlow Serving's words where it has some.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
